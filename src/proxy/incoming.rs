//! Bytes that have come from one side and are no message yet. Reads sockets; takes no frame apart.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::leg::Leg;

/// What one read takes at most; one buffer per worker thread serves all its connections.
const SCRATCH: usize = 64 * 1024;
/// An input buffer that has grown past this is given back once it is empty.
const KEEP: usize = 4 * 1024;

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
