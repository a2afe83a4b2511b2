//! Bytes on their way to one side: written as far as the socket takes them, bounded by back-pressure at the other side.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// Above this many waiting bytes nothing more is read that could add to them.
pub(super) const HIGH_WATER: usize = 256 * 1024;
/// A buffer that has grown past this is given back once it is empty.
const KEEP: usize = 16 * 1024;

#[derive(Default)]
pub(super) struct Outgoing {
    pub(super) bytes: Vec<u8>,
    written: usize,
    unflushed: bool,
}

impl Outgoing {
    /// Whether everything has reached the socket.
    pub(super) fn is_drained(&self) -> bool {
        self.bytes.is_empty() && !self.unflushed
    }

    /// Whether the other side may be read on.
    pub(super) fn has_room(&self) -> bool {
        self.bytes.len() - self.written < HIGH_WATER
    }

    /// Writes what it can. `Ready(Ok(n))`: all of it is with the socket, `n` bytes of it since the last call.
    pub(super) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        mut sink: Pin<&mut (impl AsyncWrite + ?Sized)>,
    ) -> Poll<io::Result<usize>> {
        let mut moved = 0;
        while self.written < self.bytes.len() {
            let n = ready!(sink.as_mut().poll_write(cx, &self.bytes[self.written..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
            self.unflushed = true;
            moved += n;
        }
        self.reset();
        if self.unflushed {
            ready!(sink.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(moved))
    }

    fn reset(&mut self) {
        self.written = 0;
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }
}
