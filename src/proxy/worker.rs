//! Worker threads: each runs a single-threaded runtime and keeps its connections to itself.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::LocalSet;

use super::connection::Connection;
use super::end::End;
use super::leg::Leg;
use super::listen::Door;
use super::shared::Shared;
use super::upstream;
use crate::metrics::{ConnectionEnd, Leg as Side};
use crate::session::{Compression, Session};

/// A connection on its way to a worker.
pub(super) struct Accepted {
    pub(super) stream: std::net::TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) door: Arc<Door>,
    pub(super) permit: OwnedSemaphorePermit,
}

/// All workers.
pub struct Workers {
    each: Vec<Worker>,
}

struct Worker {
    queue: mpsc::UnboundedSender<Accepted>,
    busy: Arc<AtomicUsize>,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn start(count: usize, shared: &Arc<Shared>) -> io::Result<Self> {
        let each = (0..count.max(1))
            .map(|n| Worker::start(n, Arc::clone(shared)))
            .collect::<io::Result<_>>()?;
        Ok(Self { each })
    }

    /// Gives a connection to the worker with the fewest. The queue is bounded by the permits that come with it.
    pub(super) fn hand_over(&self, accepted: Accepted) {
        let Some(worker) = self.each.iter().min_by_key(|w| w.busy.load(Ordering::Relaxed)) else {
            return;
        };
        worker.busy.fetch_add(1, Ordering::Relaxed);
        if worker.queue.send(accepted).is_err() {
            tracing::error!("a worker thread has ended");
        }
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.each.iter().map(|w| w.busy.load(Ordering::Relaxed)).sum()
    }

    /// Lets the threads end once their connections have.
    pub fn join(self) {
        for worker in self.each {
            drop(worker.queue);
            let thread = worker
                .thread
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .take();
            if thread.is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

impl Worker {
    fn start(number: usize, shared: Arc<Shared>) -> io::Result<Self> {
        let (queue, incoming) = mpsc::unbounded_channel();
        let busy = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&busy);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || LocalSet::new().block_on(&runtime, serve(incoming, counter, shared)))?;
        Ok(Self {
            queue,
            busy,
            thread: std::sync::Mutex::new(Some(thread)),
        })
    }
}

async fn serve(mut incoming: mpsc::UnboundedReceiver<Accepted>, busy: Arc<AtomicUsize>, shared: Arc<Shared>) {
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = incoming.recv() => match accepted {
                Some(accepted) => {
                    let (busy, shared) = (Arc::clone(&busy), Arc::clone(&shared));
                    tasks.spawn_local(async move {
                        one(accepted, shared).await;
                        busy.fetch_sub(1, Ordering::Relaxed);
                    });
                }
                None => break,
            },
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
    while tasks.join_next().await.is_some() {}
}

async fn one(accepted: Accepted, shared: Arc<Shared>) {
    let Accepted {
        stream,
        peer,
        door,
        permit,
    } = accepted;
    let metrics = Arc::clone(shared.metrics());
    let client = match meet(stream, &door, &shared).await {
        Ok(client) => client,
        Err(why) => {
            tracing::info!(%peer, reason = %why, "TLS handshake failed");
            metrics.connection_turned_away(ConnectionEnd::ClientFailed);
            return;
        }
    };
    if shared.is_stopping() {
        return;
    }
    let reached = match upstream::dial(&shared, door.member.as_deref()).await {
        Ok(reached) => reached,
        Err(why) => {
            tracing::warn!(%peer, reason = %why, "cannot reach the upstream");
            metrics.connection_turned_away(ConnectionEnd::UpstreamFailed);
            return;
        }
    };
    let live = Arc::clone(&shared.live());
    let compression = Compression::new(door.compression, live.upstream_compression, live.zlib_level);
    drop(live);
    metrics.connection_opened();
    let number = shared.next_connection();
    if let Some(member) = &reached.following {
        tracing::debug!(connection = number, %member, "a connection follows writes");
    }
    let session = Session::new(number, Some(peer.to_string().into())).with_compression(compression);
    let connection =
        Box::pin(Connection::new(client, reached, session, shared, door.advertise.clone()).run());
    let end = connection.await;
    tracing::debug!(connection = number, reason = end.label(), "connection ended");
    metrics.connection_ended(match end {
        End::ClientClosed => ConnectionEnd::Closed,
        End::ServerClosed => ConnectionEnd::UpstreamFailed,
        End::Io => ConnectionEnd::ClientFailed,
        End::Closed(_) => ConnectionEnd::Malformed,
        End::Idle | End::Slow | End::Stalled => ConnectionEnd::TimedOut,
        End::Drained => ConnectionEnd::Drained,
        End::Moved => ConnectionEnd::Moved,
    });
    drop(permit);
}

/// The client's side: TLS unless the listener is plaintext.
async fn meet(stream: std::net::TcpStream, door: &Door, shared: &Shared) -> io::Result<Leg> {
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    if door.plaintext {
        return Ok(Leg::Plain(stream));
    }
    let live = Arc::clone(&shared.live());
    let config = live
        .tls_in
        .as_ref()
        .ok_or_else(|| io::Error::other("no certificate is configured"))?;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(config));
    let handshake = tokio::time::timeout(live.times.handshake, acceptor.accept(stream)).await;
    let result =
        handshake.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no handshake in time")));
    let version = result
        .as_ref()
        .ok()
        .and_then(|tls| tls.get_ref().1.protocol_version());
    let version = upstream::tls_version(version);
    shared
        .metrics()
        .tls_handshake(Side::Client, version, result.is_ok());
    result.map(|tls| Leg::Accepted(Box::new(tls)))
}
