//! Reaching the MongoDB side: TCP, then TLS where the URI asks for it. A listener stands for one member, or follows the
//! member that takes writes: then the connection waits out an election.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::leg::Leg;
use super::shared::{Live, Shared};
use crate::metrics::{Leg as Side, Metrics, TlsVersion};
use crate::tls::Target;
use crate::topology::{Address, Deployment, DeploymentKind};

/// How long a new connection waits for a member that takes writes: an election of a set with default settings takes up
/// to about twelve seconds.
const ELECTION: Duration = Duration::from_secs(20);
/// How long after it said that it takes no writes a member is not tried, if the monitors have seen no change since.
pub(super) const DEPOSED: Duration = Duration::from_secs(2);
/// How often it is looked whether something has changed that no monitor tells of.
const AGAIN: Duration = Duration::from_millis(100);

/// A connection to the MongoDB side.
pub(super) struct Reached {
    pub(super) leg: Leg,
    /// The member, where the connection follows writes and there are others.
    pub(super) following: Option<Address>,
}

/// Dials `member`, or the member that takes writes.
pub(super) async fn dial(shared: &Shared, member: Option<&str>) -> io::Result<Reached> {
    let Some(member) = member else {
        return follow(shared).await;
    };
    let live = Arc::clone(&shared.live());
    let target = parse(member)?;
    let leg = dial_target(&live, shared.metrics(), &target).await?;
    Ok(Reached { leg, following: None })
}

/// Dials whoever takes writes, and waits while nobody does.
async fn follow(shared: &Shared) -> io::Result<Reached> {
    let mut changes = shared.members().changes();
    let deadline = Instant::now() + ELECTION;
    loop {
        let seen = Arc::clone(&changes.borrow_and_update());
        let live = Arc::clone(&shared.live());
        if let Some(only) = only(&live, &seen) {
            let leg = dial_target(&live, shared.metrics(), &only).await?;
            return Ok(Reached { leg, following: None });
        }
        let why = match writable(shared, &seen) {
            Some(address) => match dial_target(&live, shared.metrics(), &parse(address.as_str())?).await {
                Ok(leg) => {
                    return Ok(Reached {
                        leg,
                        following: Some(address),
                    });
                }
                Err(why) => why,
            },
            None => io::Error::new(io::ErrorKind::TimedOut, "no member takes writes"),
        };
        if Instant::now() >= deadline {
            return Err(why);
        }
        // Whichever comes first; a sender that is gone cannot be: `shared` holds it.
        drop(tokio::time::timeout(AGAIN, changes.changed()).await);
    }
}

/// The one server that there is, so that nothing has to be found out.
fn only(live: &Live, seen: &Deployment) -> Option<Target> {
    let ([only], true) = (live.upstream.hosts.as_slice(), seen.is_alone()) else {
        return None;
    };
    match (seen.kind, seen.members.first()) {
        // A router has no name but the one in the connection string, or by now in its SRV record.
        (DeploymentKind::Sharded, Some(router)) => Target::parse(router.as_str()),
        // The name in the connection string, which need not be the member's own.
        _ => Some(only.clone()),
    }
}

fn writable(shared: &Shared, seen: &Deployment) -> Option<Address> {
    let address = seen.writable()?;
    (!shared.is_deposed(address, seen.version)).then(|| address.clone())
}

/// Whether any member of the upstream answers, TLS included: which of them takes writes is not asked, because an election
/// is no reason to take the proxy out of service.
pub(super) async fn any_answers(shared: &Shared) -> io::Result<Leg> {
    let live = Arc::clone(&shared.live());
    let seen = shared.members().now();
    let mut targets: Vec<Target> = only(&live, &seen).into_iter().collect();
    if targets.is_empty() {
        targets.clone_from(&live.upstream.hosts);
        let hosts = shared.hosts();
        let known = seen.writable().into_iter().chain(&seen.members);
        let known: Vec<_> = known
            .chain(hosts.known())
            .filter_map(|member| Target::parse(member.as_str()))
            .collect();
        targets.splice(..0, known);
    }
    let mut last = io::Error::other("the upstream has no host");
    for target in &targets {
        match dial_target(&live, shared.metrics(), target).await {
            Ok(leg) => return Ok(leg),
            Err(why) => last = why,
        }
    }
    Err(last)
}

fn parse(member: &str) -> io::Result<Target> {
    Target::parse(member)
        .ok_or_else(|| io::Error::other(format!("the member `{member}` is not a host and a port")))
}

async fn dial_target(live: &Live, metrics: &Metrics, target: &Target) -> io::Result<Leg> {
    match tokio::time::timeout(live.times.connect, reach(live, metrics, target)).await {
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
