//! The HTTP shell: accepts, bounds, and hands requests to the routes. One request per connection, each bounded in time
//! and size, so that nobody can hold a place.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::routes::Admin;

/// Connections served at the same time; more are closed at once.
const MAX_CONNECTIONS: usize = 64;
/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;
/// Time for a request's head to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept: out of descriptors, it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bound listener, not serving yet.
pub struct AdminServer {
    listener: TcpListener,
    admin: Arc<Admin>,
}

impl AdminServer {
    /// Binds the address; port 0 takes any. Needs a tokio runtime.
    pub async fn bind(address: SocketAddr, admin: Admin) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            admin: Arc::new(admin),
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` ends; requests in flight then finish by themselves.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => return,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                continue;
            };
            let admin = Arc::clone(&self.admin);
            tokio::spawn(async move {
                // A connection that failed or ran out of time concerns nobody but its client.
                let _ = timeout(CONNECTION_TIMEOUT, serve_one(stream, admin)).await;
                drop(place);
            });
        }
    }
}

async fn serve_one(stream: TcpStream, admin: Arc<Admin>) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = admin.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

#[cfg(test)]
mod tests;
