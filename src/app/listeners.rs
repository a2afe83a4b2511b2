//! The process's listeners: those that the configuration names, and one for each member that is found. Owns which member
//! has which, and tells connections when that changes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{START_PATIENCE, address, announce, internal};
use crate::config::Listen;
use crate::error::{Error, Fault};
use crate::proxy::{Listening, Shared, Workers, bind};
use crate::topology::{Address, Deployment, DeploymentKind, HostMap, Listener, Ports};

/// A port that could not be had is tried again this often.
const AGAIN: Duration = Duration::from_secs(5);

/// All listeners, open until they are told to close.
pub(super) struct Listeners {
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    permits: Arc<Semaphore>,
    /// The `[[listen]]` with `discover`.
    discover: Option<Discovery>,
    board: Mutex<Board>,
}

struct Discovery {
    listen: Listen,
    remember: PathBuf,
    ports: Mutex<Ports>,
}

#[derive(Default)]
struct Board {
    /// As the configuration names them.
    named: Vec<Listener>,
    accepting: Vec<JoinHandle<()>>,
    /// By member, as they are found.
    found: BTreeMap<Address, (Listener, JoinHandle<()>)>,
}

impl Listeners {
    /// Binds what the configuration names, and finds the members of the set where it says so.
    ///
    /// # Errors
    /// A port that is taken, or no set to find members of.
    pub(super) async fn open(
        listen: &[Listen],
        shared: &Arc<Shared>,
        workers: &Arc<Workers>,
        permits: &Arc<Semaphore>,
    ) -> Result<Arc<Self>, Error> {
        let discover = listen.iter().find_map(|listen| {
            let discover = listen.discover.as_ref()?;
            let kept = recall(&discover.remember);
            Some(Discovery {
                ports: Mutex::new(Ports::new(listen.address.port(), discover.ports, kept)),
                remember: discover.remember.clone(),
                listen: listen.clone(),
            })
        });
        let listeners = Arc::new(Self {
            shared: Arc::clone(shared),
            workers: Arc::clone(workers),
            permits: Arc::clone(permits),
            discover,
            board: Mutex::default(),
        });
        listeners.board().named = named(listen)?;
        let seen = match &listeners.discover {
            Some(discovery) => {
                let seen = first_sight(shared).await?;
                listeners.find(discovery, &seen).await?;
                seen
            }
            None => shared.members().now(),
        };
        // Before the first connection, which is greeted by it.
        listeners.publish(&seen)?;
        for one in listen.iter().filter(|listen| listen.discover.is_none()) {
            let member = one.member.clone();
            let listening = bound(one, one.address, address(&one.advertise)?, member).await?;
            let accepting = listeners.accept(listening)?;
            listeners.board().accepting.push(accepting);
        }
        Ok(listeners)
    }

    /// Follows the deployment for as long as the process takes connections.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut changes = self.shared.members().changes();
        loop {
            let seen = Arc::clone(&changes.borrow_and_update());
            let mut wait = None;
            if let Some(discovery) = &self.discover
                && let Err(why) = self.find(discovery, &seen).await
            {
                tracing::error!("a member of the replica set has no listener yet: {why}");
                wait = Some(AGAIN);
            }
            if let Err(why) = self.publish(&seen) {
                tracing::error!("{why}");
            }
            let changed = async { changes.changed().await.is_err() };
            let ended = match wait {
                Some(wait) => tokio::time::timeout(wait, changed).await.unwrap_or(false),
                None => changed.await,
            };
            if ended {
                return;
            }
        }
    }

    /// Puts the names of a new configuration in force; ports and addresses stay as they are.
    ///
    /// # Errors
    /// Where two listeners would be shown as one.
    pub(super) fn rename(&self, listen: &[Listen]) -> Result<(), Error> {
        let named = named(listen)?;
        HostMap::new(named.clone()).map_err(super::operator)?;
        self.board().named = named;
        self.publish(&self.shared.members().now())
    }

    /// Takes no more connections.
    pub(super) fn close(&self) {
        let mut board = self.board();
        for accepting in board.accepting.drain(..) {
            accepting.abort();
        }
        for (_, accepting) in std::mem::take(&mut board.found).into_values() {
            accepting.abort();
        }
    }

    /// Opens a listener for each member that has none, and closes those of members that are gone.
    async fn find(&self, discovery: &Discovery, seen: &Deployment) -> Result<(), Error> {
        let Some(members) = seen.settled() else {
            return Ok(());
        };
        // A member with a listener of its own in the configuration needs no other.
        let members: Vec<Address> = {
            let board = self.board();
            let is_named = |member: &Address| board.named.iter().any(|n| n.member.as_ref() == Some(member));
            members
                .iter()
                .filter(|member| !is_named(member))
                .cloned()
                .collect()
        };
        let places = self.places(discovery, &members);
        let gone: BTreeMap<_, _> = {
            let mut board = self.board();
            let stays =
                |member: &Address, shown: &Address| places.get(member).is_some_and(|(_, s)| s == shown);
            let (stay, gone) = std::mem::take(&mut board.found)
                .into_iter()
                .partition(|(member, (listener, _))| stays(member, &listener.advertise));
            board.found = stay;
            gone
        };
        for (member, (listener, accepting)) in gone {
            accepting.abort();
            // The port is free once the task is gone.
            drop(accepting.await);
            tracing::info!(%member, listener = %listener.advertise, "the member left the replica set: its listener is closed");
        }
        let mut result = Ok(());
        for (member, (at, shown)) in places {
            if !self.board().found.contains_key(&member) {
                // One port that is taken keeps no other member from its listener.
                result = result.and(self.open_for(discovery, member, at, shown).await);
            }
        }
        result
    }

    async fn open_for(
        &self,
        discovery: &Discovery,
        member: Address,
        at: SocketAddr,
        advertise: Address,
    ) -> Result<(), Error> {
        let name = Some(member.as_str().to_owned());
        let listening = bound(&discovery.listen, at, advertise.clone(), name).await?;
        let accepting = self.accept(listening)?;
        tracing::info!(%member, listener = %advertise, "a member of the replica set has a listener");
        let listener = Listener {
            advertise,
            member: Some(member.clone()),
        };
        self.board().found.insert(member, (listener, accepting));
        Ok(())
    }

    /// Where each of these members is to be reached, and what is shown for it.
    fn places(&self, discovery: &Discovery, members: &[Address]) -> BTreeMap<Address, (SocketAddr, Address)> {
        let mut ports = lock(&discovery.ports);
        let before = ports.clone();
        for member in ports.give(members) {
            tracing::error!(%member, "no port is left for this member of the replica set: raise `ports` of the [[listen]] with discover");
        }
        if *ports != before {
            keep(&discovery.remember, &ports);
        }
        let listen = &discovery.listen;
        let place = |member: &Address| {
            let port = ports.of(member)?;
            let shown = Address::parse(&format!("{}:{port}", listen.advertise))?;
            Some((
                member.clone(),
                (SocketAddr::new(listen.address.ip(), port), shown),
            ))
        };
        members.iter().filter_map(place).collect()
    }

    fn publish(&self, seen: &Deployment) -> Result<(), Error> {
        let board = self.board();
        let found = board.found.values().map(|(listener, _)| listener.clone());
        let listeners = board.named.iter().cloned().chain(found).collect();
        let hosts = HostMap::new(listeners).map_err(super::operator)?;
        self.shared
            .set_hosts(hosts.knowing(&seen.members).routed(seen.is_routed()));
        Ok(())
    }

    fn accept(&self, listening: Listening) -> Result<JoinHandle<()>, Error> {
        let at = listening.local_addr().map_err(internal)?;
        let kind = if listening.is_plaintext() {
            "plaintext"
        } else {
            "TLS"
        };
        announce(&format!("listening on {at} ({kind})"));
        let (shared, workers) = (Arc::clone(&self.shared), Arc::clone(&self.workers));
        Ok(tokio::spawn(listening.accept(
            shared,
            workers,
            Arc::clone(&self.permits),
        )))
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        lock(&self.board)
    }
}

/// The listeners of the configuration, as hello shows them.
fn named(listen: &[Listen]) -> Result<Vec<Listener>, Error> {
    let named = listen.iter().filter(|listen| listen.discover.is_none());
    named
        .map(|listen| {
            Ok(Listener {
                advertise: address(&listen.advertise)?,
                member: listen.member.as_deref().map(address).transpose()?,
            })
        })
        .collect()
}

async fn bound(
    listen: &Listen,
    at: SocketAddr,
    advertise: Address,
    member: Option<String>,
) -> Result<Listening, Error> {
    bind(at, advertise, member, listen.plaintext, listen.compression)
        .await
        .map_err(|why| {
            Error::new(
                Fault::Operator,
                format!("{why}; is another process on that port? Change [[listen]] address or stop it"),
            )
        })
}

/// The set as its primary names it, once there is one.
async fn first_sight(shared: &Shared) -> Result<Arc<Deployment>, Error> {
    let mut changes = shared.members().changes();
    let known = |seen: &Arc<Deployment>| {
        seen.settled().is_some() || matches!(seen.kind, DeploymentKind::Single | DeploymentKind::Sharded)
    };
    let Ok(Ok(seen)) = tokio::time::timeout(START_PATIENCE, changes.wait_for(known)).await else {
        return Err(Error::new(
            Fault::Upstream,
            "the upstream replica set shows no primary, so its members are not known ([[listen]] discover); is it up, and \
             can its members be reached by the names in its own configuration?",
        ));
    };
    if seen.settled().is_none() {
        return Err(Error::new(
            Fault::Operator,
            "[[listen]] discover needs a replica set, and the upstream is none (or directConnection=true hides it); take \
             discover out",
        ));
    }
    Ok(Arc::clone(&seen))
}

/// Which member had which port when the process ran last.
fn recall(file: &Path) -> Vec<(Address, u16)> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(why) => {
            tracing::warn!(file = %file.display(), reason = %why, "the ports of members cannot be read: they are given anew");
            return Vec::new();
        }
    };
    match serde_json::from_str::<BTreeMap<String, u16>>(&text) {
        Ok(kept) => kept
            .iter()
            .filter_map(|(member, port)| Some((Address::parse(member)?, *port)))
            .collect(),
        Err(why) => {
            tracing::warn!(file = %file.display(), reason = %why, "the ports of members cannot be understood: they are given anew");
            Vec::new()
        }
    }
}

fn keep(file: &Path, ports: &Ports) {
    let given: BTreeMap<&str, u16> = ports
        .given()
        .map(|(member, port)| (member.as_str(), port))
        .collect();
    let beside = file.with_extension("new");
    let written = serde_json::to_string_pretty(&given)
        .map_err(std::io::Error::other)
        .and_then(|text| {
            if let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(&beside, text + "\n")?;
            std::fs::rename(&beside, file)
        });
    if let Err(why) = written {
        tracing::warn!(file = %file.display(), reason = %why, "the ports of members cannot be kept: after a restart they may differ");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_and_recalls_ports() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data/members.json");
        assert!(recall(&file).is_empty());
        let mut ports = Ports::new(100, 3, []);
        ports.give(&[Address::parse("b").unwrap(), Address::parse("a:1").unwrap()]);
        keep(&file, &ports);
        assert_eq!(Ports::new(100, 3, recall(&file)), ports);
        std::fs::write(&file, "[]").unwrap();
        assert!(recall(&file).is_empty());
    }
}
