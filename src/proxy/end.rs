//! How a connection ends: for logs, and for what is counted.

use crate::session::{Closing, MOVED};

/// Why a connection ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    ClientClosed,
    ServerClosed,
    Closed(&'static str),
    Io,
    Idle,
    Slow,
    Stalled,
    Drained,
    Moved,
}

impl From<Closing> for End {
    fn from(closing: Closing) -> Self {
        if closing == MOVED {
            Self::Moved
        } else {
            Self::Closed(closing.0)
        }
    }
}

impl End {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::ClientClosed => "client closed",
            Self::ServerClosed => "server closed",
            Self::Closed(why) => why,
            Self::Io => "connection lost",
            Self::Idle => "idle for too long",
            Self::Slow => "a message took too long to arrive",
            Self::Stalled => "a peer does not read what waits for it",
            Self::Drained => "drained",
            Self::Moved => MOVED.0,
        }
    }
}
