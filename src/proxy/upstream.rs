//! Reaching the MongoDB side: TCP, then TLS where the URI asks for it.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::leg::Leg;
use super::shared::Live;
use crate::metrics::{Leg as Side, Metrics, TlsVersion};
use crate::tls::Target;

/// Dials `member`, or the only host that there is.
pub(super) async fn dial(live: &Live, metrics: &Metrics, member: Option<&str>) -> io::Result<Leg> {
    let target = live.upstream.target(member).map_err(io::Error::other)?;
    match tokio::time::timeout(live.times.connect, reach(live, metrics, &target)).await {
        Ok(Ok(leg)) => Ok(leg),
        Ok(Err(why)) => Err(io::Error::new(why.kind(), format!("{target}: {why}"))),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{target}: no answer in time"),
        )),
    }
}

async fn reach(live: &Live, metrics: &Metrics, target: &Target) -> io::Result<Leg> {
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
    stream.set_nodelay(true)?;
    let Some(config) = &live.upstream.tls else {
        return Ok(Leg::Plain(stream));
    };
    let name = target.server_name().map_err(io::Error::other)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    let result = connector.connect(name, stream).await;
    let version = result
        .as_ref()
        .ok()
        .and_then(|tls| tls.get_ref().1.protocol_version());
    metrics.tls_handshake(Side::Upstream, tls_version(version), result.is_ok());
    Ok(Leg::Dialled(Box::new(result?)))
}

/// The version as a label.
pub(super) fn tls_version(version: Option<rustls::ProtocolVersion>) -> TlsVersion {
    match version {
        Some(rustls::ProtocolVersion::TLSv1_3) => TlsVersion::V13,
        Some(rustls::ProtocolVersion::TLSv1_2) => TlsVersion::V12,
        _ => TlsVersion::None,
    }
}
