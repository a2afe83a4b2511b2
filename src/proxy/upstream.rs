//! Reaching the MongoDB side: TCP, then TLS where the URI asks for it.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::leg::Leg;
use super::shared::Live;
use crate::tls::Target;

/// Dials `member`, or the only host that there is.
pub(super) async fn dial(live: &Live, member: Option<&str>) -> io::Result<Leg> {
    let target = live.upstream.target(member).map_err(io::Error::other)?;
    match tokio::time::timeout(live.times.connect, reach(live, &target)).await {
        Ok(Ok(leg)) => Ok(leg),
        Ok(Err(why)) => Err(io::Error::new(why.kind(), format!("{target}: {why}"))),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{target}: no answer in time"),
        )),
    }
}

async fn reach(live: &Live, target: &Target) -> io::Result<Leg> {
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
    stream.set_nodelay(true)?;
    let Some(config) = &live.upstream.tls else {
        return Ok(Leg::Plain(stream));
    };
    let name = target.server_name().map_err(io::Error::other)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    Ok(Leg::Dialled(Box::new(connector.connect(name, stream).await?)))
}
