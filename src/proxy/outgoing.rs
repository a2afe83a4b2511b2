//! Bytes on their way to one side: written as far as the socket takes them, bounded by back-pressure at the other side.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio::time::Instant;

/// Above this many waiting bytes nothing more is read that could add to them.
pub(super) const HIGH_WATER: usize = 256 * 1024;
/// A buffer that has grown past this is given back once it is empty.
const KEEP: usize = 16 * 1024;

#[derive(Default)]
pub(super) struct Outgoing {
    pub(super) bytes: Vec<u8>,
    written: usize,
    /// Bytes that the socket has taken and nobody has counted.
    uncounted: usize,
    unflushed: bool,
    stalled: Option<Instant>,
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

    /// Since when the socket has taken nothing of what waits; `None` while nothing waits.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        self.stalled
    }

    /// Bytes that the socket has taken since the last call.
    pub(super) fn take_count(&mut self) -> usize {
        std::mem::take(&mut self.uncounted)
    }

    /// Writes what it can. `Ready(Ok(()))`: all of it is with the socket.
    pub(super) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        sink: Pin<&mut (impl AsyncWrite + ?Sized)>,
    ) -> Poll<io::Result<()>> {
        let before = self.uncounted;
        let drained = self.poll_write(cx, sink);
        if drained.is_ready() {
            self.stalled = None;
        } else if self.uncounted > before || self.stalled.is_none() {
            // A look at the clock only where the socket is full.
            self.stalled = Some(Instant::now());
        }
        drained
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        mut sink: Pin<&mut (impl AsyncWrite + ?Sized)>,
    ) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            let Poll::Ready(taken) = sink.as_mut().poll_write(cx, &self.bytes[self.written..]) else {
                self.forget_written();
                return Poll::Pending;
            };
            let n = taken?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
            self.unflushed = true;
            self.uncounted += n;
        }
        self.reset();
        if self.unflushed {
            ready!(sink.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// A peer that always lags a little behind never takes everything: what it has taken must not pile up meanwhile.
    /// Moves the rest only once it is no longer than what goes, so that each byte is moved less than once on average.
    fn forget_written(&mut self) {
        if self.written >= KEEP && self.written * 2 >= self.bytes.len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn counts_a_stall_from_the_last_byte_that_was_taken() {
        let (mut ours, mut theirs) = tokio::io::duplex(4);
        let mut outgoing = Outgoing::default();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        outgoing.bytes.extend_from_slice(b"twelve bytes");
        let mut drain =
            |outgoing: &mut Outgoing, cx: &mut Context<'_>| outgoing.poll_drain(cx, Pin::new(&mut ours));

        assert!(outgoing.stalled_since().is_none());
        assert!(drain(&mut outgoing, &mut cx).is_pending());
        let first = outgoing.stalled_since().unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        assert!(drain(&mut outgoing, &mut cx).is_pending());
        assert_eq!(outgoing.stalled_since(), Some(first), "nothing was taken");

        theirs.read_exact(&mut [0; 4]).await.unwrap();
        assert!(drain(&mut outgoing, &mut cx).is_pending());
        assert!(outgoing.stalled_since().unwrap() > first, "something was taken");
        theirs.read_exact(&mut [0; 4]).await.unwrap();
        assert!(drain(&mut outgoing, &mut cx).is_ready());
        assert!(outgoing.stalled_since().is_none() && outgoing.is_drained());
    }

    /// Takes a few bytes at a time, and blocks after each.
    struct Narrow {
        taken: usize,
        open: bool,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.open = !self.open;
            if self.open {
                return Poll::Pending;
            }
            let n = bytes.len().min(3);
            self.taken += n;
            Poll::Ready(Ok(n))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn keeps_no_more_than_waits_for_a_peer_that_is_always_a_little_behind() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut sink = Wide(64 * 1024);
        let mut out = Outgoing::default();
        let (mut sent, mut most) = (0, 0);
        while sent < 16 << 20 {
            while out.has_room() {
                out.bytes.extend_from_slice(&[7; 32 * 1024]);
                sent += 32 * 1024;
            }
            sink.0 = 64 * 1024;
            assert!(out.poll_drain(&mut cx, Pin::new(&mut sink)).is_pending());
            most = most.max(out.bytes.len());
        }
        assert!(most <= 3 * HIGH_WATER, "{most} bytes are kept");
    }

    /// Takes so many bytes, then blocks.
    struct Wide(usize);

    impl AsyncWrite for Wide {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let n = bytes.len().min(self.0);
            self.0 -= n;
            if n == 0 { Poll::Pending } else { Poll::Ready(Ok(n)) }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn counts_what_a_full_socket_takes_bit_by_bit() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut sink = Narrow {
            taken: 0,
            open: false,
        };
        let mut out = Outgoing {
            bytes: vec![7; 10],
            ..Outgoing::default()
        };
        let mut counted = 0;
        while out.poll_drain(&mut cx, Pin::new(&mut sink)).is_pending() {
            counted += out.take_count();
        }
        counted += out.take_count();
        assert_eq!((counted, sink.taken, out.is_drained()), (10, 10, true));
    }
}
