//! Who the upstream's members are and which of them takes writes, as the driver's own monitors see it: they follow
//! elections and reconfigurations within milliseconds. Sends nothing itself.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mongodb::event::EventHandler;
use mongodb::event::sdam::{SdamEvent, TopologyDescription};
use mongodb::options::{ClientOptions, ServerAddress};
use mongodb::{ServerType, TopologyType};
use tokio::sync::watch;

use crate::topology::{Address, Deployment, DeploymentKind};

/// What is known of the deployment, for everyone who asks. Outlives the client that finds it out: a reload brings
/// another one.
pub struct Members {
    seen: watch::Sender<Arc<Deployment>>,
    /// Which client is listened to.
    client: AtomicU64,
    /// A number that differs from proxy to proxy.
    turn: usize,
}

impl Default for Members {
    fn default() -> Self {
        Self {
            seen: watch::Sender::new(Arc::default()),
            client: AtomicU64::new(0),
            turn: usize::try_from(RandomState::new().hash_one(0_u8) >> 33).unwrap_or_default(),
        }
    }
}

impl Members {
    /// Lets the client that these options will make say what it sees, in place of any before it.
    pub fn listen_to(self: &Arc<Self>, options: &mut ClientOptions) {
        let number = self.client.fetch_add(1, Ordering::SeqCst) + 1;
        let members = Arc::clone(self);
        options.sdam_event_handler = Some(EventHandler::callback(move |event| {
            if let SdamEvent::TopologyDescriptionChanged(change) = event
                && members.client.load(Ordering::SeqCst) == number
            {
                members.put(read(&change.new_description));
            }
        }));
    }

    /// The deployment as it was seen last.
    pub fn now(&self) -> Arc<Deployment> {
        Arc::clone(&self.seen.borrow())
    }

    /// Told of every change.
    pub fn changes(&self) -> watch::Receiver<Arc<Deployment>> {
        self.seen.subscribe()
    }

    fn put(&self, mut deployment: Deployment) {
        self.seen.send_if_modified(|last| {
            deployment.version = last.version;
            deployment.settle_on_a_router(last, self.turn);
            if **last == deployment {
                return false;
            }
            deployment.version += 1;
            if deployment.primary != last.primary {
                let primary = deployment.primary.as_ref().map_or("none", Address::as_str);
                tracing::info!(
                    primary,
                    members = deployment.members.len(),
                    "the upstream replica set has another primary"
                );
            }
            if deployment.router != last.router && deployment.kind == DeploymentKind::Sharded {
                let router = deployment.router.as_ref().map_or("none", Address::as_str);
                tracing::info!(
                    router,
                    answering = deployment.routers.len(),
                    "connections go to another router of the sharded cluster"
                );
            }
            *last = Arc::new(std::mem::take(&mut deployment));
            true
        });
    }
}

fn read(seen: &TopologyDescription) -> Deployment {
    let mut deployment = Deployment {
        kind: match seen.topology_type() {
            TopologyType::Single | TopologyType::LoadBalanced => DeploymentKind::Single,
            TopologyType::ReplicaSetNoPrimary | TopologyType::ReplicaSetWithPrimary => {
                DeploymentKind::ReplicaSet
            }
            TopologyType::Sharded => DeploymentKind::Sharded,
            _ => DeploymentKind::Unknown,
        },
        ..Deployment::default()
    };
    for (address, server) in seen.servers() {
        let Some(address) = tcp(address) else { continue };
        match server.server_type() {
            ServerType::RsPrimary => deployment.primary = Some(address.clone()),
            ServerType::Mongos => deployment.routers.push(address.clone()),
            ServerType::Unknown if server.error().is_none() => deployment.awaited.push(address.clone()),
            _ => {}
        }
        deployment.members.push(address);
    }
    deployment.members.sort();
    deployment.routers.sort();
    deployment.awaited.sort();
    deployment
}

fn tcp(address: &ServerAddress) -> Option<Address> {
    match address {
        ServerAddress::Tcp { host, port } if host.contains(':') && !host.starts_with('[') => {
            Address::parse(&format!("[{host}]:{}", port.unwrap_or(27017)))
        }
        ServerAddress::Tcp { host, port } => Address::parse(&format!("{host}:{}", port.unwrap_or(27017))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(primary: &str) -> Deployment {
        Deployment {
            kind: DeploymentKind::ReplicaSet,
            primary: Address::parse(primary),
            ..Deployment::default()
        }
    }

    #[test]
    fn tells_of_changes_only_and_counts_them() {
        let members = Members::default();
        let mut changes = members.changes();
        members.put(deployment("a:1"));
        assert!(changes.has_changed().unwrap());
        assert_eq!(changes.borrow_and_update().version, 1);
        members.put(deployment("a:1"));
        assert!(!changes.has_changed().unwrap());
        members.put(deployment("b:1"));
        assert_eq!(members.now().version, 2);
    }

    #[test]
    fn reads_addresses_as_the_host_map_does() {
        for (host, port, want) in [
            ("DB1.internal", Some(1), "db1.internal:1"),
            ("db1", None, "db1:27017"),
            ("::1", Some(5), "[::1]:5"),
            ("[::1]", Some(5), "[::1]:5"),
        ] {
            let address = ServerAddress::Tcp {
                host: host.to_owned(),
                port,
            };
            assert_eq!(tcp(&address).unwrap().as_str(), want);
        }
    }
}
