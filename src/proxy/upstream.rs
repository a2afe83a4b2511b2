//! Reaching the MongoDB side: TCP, then TLS where the URI asks for it.

use std::io;

use tokio::net::TcpStream;

use super::leg::Leg;
use super::shared::Live;

/// Dials `member`, or the first of the URI's hosts that answers.
pub(super) async fn dial(live: &Live, member: Option<&str>) -> io::Result<Leg> {
    let members: Vec<&str> = match member {
        Some(member) => vec![member],
        None => live.upstream.iter().map(String::as_str).collect(),
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the upstream URI names no host");
    for member in members {
        match tokio::time::timeout(live.times.connect, reach(live, member)).await {
            Ok(Ok(leg)) => return Ok(leg),
            Ok(Err(why)) => last = io::Error::new(why.kind(), format!("{member}: {why}")),
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{member}: no answer in time")),
        }
    }
    Err(last)
}

async fn reach(live: &Live, member: &str) -> io::Result<Leg> {
    let stream = TcpStream::connect(member).await?;
    stream.set_nodelay(true)?;
    let Some(config) = &live.tls_out else { return Ok(Leg::Plain(stream)) };
    let host = member.rsplit_once(':').map_or(member, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = rustls_pki_types::ServerName::try_from(host.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not a host name"))?;
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::clone(config));
    Ok(Leg::Dialled(Box::new(connector.connect(name, stream).await?)))
}
