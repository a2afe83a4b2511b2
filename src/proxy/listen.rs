//! Listeners: bound before anything is promised, accepting until told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::shared::Shared;
use super::worker::{Accepted, Workers};
use crate::metrics::ConnectionEnd;
use crate::topology::Address;
use crate::wire::Compressors;

/// A bound listener.
pub struct Listening {
    listener: TcpListener,
    door: Arc<Door>,
}

/// What every connection of one listener has in common.
pub(super) struct Door {
    /// What hello shows.
    pub(super) advertise: Address,
    /// The upstream member that it stands for; `None` for whichever takes writes.
    pub(super) member: Option<String>,
    /// No TLS at all.
    pub(super) plaintext: bool,
    /// What clients may compress by.
    pub(super) compression: Compressors,
}

/// Binds one listener.
///
/// # Errors
/// The operating system's error, with the address in its text.
pub async fn bind(
    address: SocketAddr,
    advertise: Address,
    member: Option<String>,
    plaintext: bool,
    compression: Compressors,
) -> io::Result<Listening> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|why| io::Error::new(why.kind(), format!("cannot listen on {address}: {why}")))?;
    Ok(Listening {
        listener,
        door: Arc::new(Door {
            advertise,
            member,
            plaintext,
            compression,
        }),
    })
}

impl Listening {
    /// The address that it is bound to.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Whether it speaks no TLS.
    pub fn is_plaintext(&self) -> bool {
        self.door.plaintext
    }

    /// Accepts until the process is told to stop; each connection goes to the worker with the fewest.
    pub async fn accept(self, shared: Arc<Shared>, workers: Arc<Workers>, permits: Arc<Semaphore>) {
        let stop = shared.stop();
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => return,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(why) => {
                    // Out of file descriptors, most likely: pause instead of spinning.
                    tracing::warn!(reason = %why, "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                shared.metrics().connection_turned_away(ConnectionEnd::Limit);
                tracing::warn!(%peer, "turned away: limits.connections is reached");
                continue;
            };
            match stream.into_std() {
                Ok(stream) => workers.hand_over(Accepted {
                    stream,
                    peer,
                    door: Arc::clone(&self.door),
                    permit,
                }),
                Err(why) => tracing::warn!(reason = %why, "cannot hand over a connection"),
            }
        }
    }
}
