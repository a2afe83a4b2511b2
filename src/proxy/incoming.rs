//! Bytes that have come from one side and are no message yet. Reads sockets; takes no frame apart.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::leg::Leg;

/// What one read takes at most; one buffer per worker thread serves all its connections.
const SCRATCH: usize = 64 * 1024;
/// So much is read ahead of requests that nobody takes yet, so that their end is seen.
const AHEAD: usize = SCRATCH;
/// An input buffer that has grown past this is given back once it is empty.
const KEEP: usize = 4 * 1024;
/// A partial frame may take this long to become whole.
pub(super) const FRAME_TIME: Duration = Duration::from_secs(60);
/// And a second more for so many bytes of it that have come: a large message over a slow line is no attack.
const BYTES_PER_SECOND: usize = 16 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// Bytes of a frame that is not whole yet, or of frames that wait until there is room for what becomes of them.
#[derive(Default)]
pub(super) struct Incoming {
    pub(super) bytes: Vec<u8>,
    /// Since when a frame is incomplete.
    pub(super) since: Option<Instant>,
    pub(super) closed: bool,
    /// It holds whole frames.
    pub(super) whole: bool,
}

impl Incoming {
    /// Reads once. `Ready(Ok(0))` is the end of the stream.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut std::task::Context<'_>,
        source: Pin<&mut Leg>,
    ) -> Poll<io::Result<usize>> {
        SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            match source.poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) => {
                    let read = buf.filled();
                    self.closed = read.is_empty();
                    self.bytes.extend_from_slice(read);
                    Poll::Ready(Ok(read.len()))
                }
                Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    self.closed = true;
                    Poll::Ready(Ok(0))
                }
                Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
                Poll::Pending => Poll::Pending,
            }
        })
    }

    /// It is not read, because there is no room for what would become of it: the time does not count.
    pub(super) fn hold(&mut self) {
        if self.since.is_some() {
            self.since = Some(Instant::now());
        }
    }

    /// Whether a frame has been incomplete for too long.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        let earned = u64::try_from(self.bytes.len() / BYTES_PER_SECOND).unwrap_or(u64::MAX);
        self.since.is_some_and(|since| {
            now.saturating_duration_since(since) >= FRAME_TIME + Duration::from_secs(earned)
        })
    }

    /// Whether it may be read although nothing of it is taken yet.
    pub(super) fn reads_ahead(&self) -> bool {
        self.bytes.len() < AHEAD
    }

    /// Nothing will come of it any more.
    pub(super) fn is_over(&self) -> bool {
        self.closed && !self.whole
    }

    /// Keeps what follows `at`: whole frames, or the beginning of one, whose time starts now.
    pub(super) fn keep_rest(&mut self, mut bytes: Vec<u8>, at: usize) {
        if at > 0 {
            bytes.drain(..at);
            self.since = None;
        }
        if bytes.is_empty() {
            self.since = None;
            if bytes.capacity() > KEEP {
                bytes = Vec::new();
            }
        } else if self.since.is_none() && !self.whole {
            self.since = Some(Instant::now());
        }
        self.bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partial(length: usize, age: Duration) -> (Incoming, Instant) {
        let now = Instant::now() + Duration::from_secs(3600);
        let incoming = Incoming {
            bytes: vec![0; length],
            since: Some(now - age),
            ..Incoming::default()
        };
        (incoming, now)
    }

    #[test]
    fn gives_a_large_message_the_time_that_a_slow_line_takes() {
        let (small, now) = partial(16, FRAME_TIME);
        assert!(small.is_late(now));
        let (large, now) = partial(20 << 20, FRAME_TIME * 10);
        assert!(!large.is_late(now), "20 MiB in ten minutes");
        let (dripping, now) = partial(600, FRAME_TIME * 10);
        assert!(dripping.is_late(now), "a byte a second");
    }

    #[test]
    fn counts_no_time_while_it_is_not_read() {
        let (mut held, _) = partial(16, Duration::from_secs(7200));
        held.hold();
        assert!(!held.is_late(Instant::now()));
        let mut empty = Incoming::default();
        empty.hold();
        assert!(empty.since.is_none());
    }
}
