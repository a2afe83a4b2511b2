//! One side of a connection: plain TCP, or TLS in either role.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::tls::inspect::peer_expiry;

/// A byte stream towards the client or the server.
pub(super) enum Leg {
    Plain(TcpStream),
    /// We are the server of this TLS session.
    Accepted(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// We are its client.
    Dialled(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Leg {
    /// When the certificate expires that the server showed, in seconds of Unix time.
    pub(super) fn peer_expiry(&self) -> Option<i64> {
        match self {
            Self::Dialled(stream) => peer_expiry(stream.get_ref().1),
            Self::Plain(_) | Self::Accepted(_) => None,
        }
    }
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Leg::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Leg::Accepted(stream) => {
                let $stream = Pin::new(&mut **stream);
                $call
            }
            Leg::Dialled(stream) => {
                let $stream = Pin::new(&mut **stream);
                $call
            }
        }
    };
}

impl AsyncRead for Leg {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Leg {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(cx))
    }
}
