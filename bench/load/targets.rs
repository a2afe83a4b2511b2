//! The ways to the database that are compared.

use std::net::SocketAddr;

use clap::ValueEnum;

use crate::process::Process;

/// One way from the load generator to `mongod`; TLS on every leg.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// (a) Straight to `mongod`.
    Direct,
    /// (b) HAProxy, TCP mode.
    Haproxy,
    /// (c) fieldveil with an empty field map.
    Empty,
    /// (d) fieldveil that protects six fields.
    Mapped,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [Self::Direct, Self::Haproxy, Self::Empty, Self::Mapped];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::Empty => "empty",
            Self::Mapped => "mapped",
        }
    }

    /// Where its reads look; only (d) has patients of its own, because its are sealed.
    pub(crate) fn read_collection(self) -> &'static str {
        match self {
            Self::Direct | Self::Haproxy | Self::Empty => "plain",
            Self::Mapped => "sealed",
        }
    }

    /// Where its inserts go; emptied before each slice.
    pub(crate) fn write_collection(self) -> &'static str {
        match self {
            Self::Direct => "new_direct",
            Self::Haproxy => "new_haproxy",
            Self::Empty => "new_empty",
            Self::Mapped => "new_sealed",
        }
    }
}

/// A way that is up.
pub(crate) struct Target {
    pub(crate) way: Way,
    pub(crate) address: SocketAddr,
    /// The forwarder or proxy; nothing when the way is direct.
    pub(crate) proxy: Option<Process>,
}
