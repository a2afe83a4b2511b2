//! The closed lists that label values come from; there are no others.

/// Label value of what is not on its closed list.
pub const OTHER: &str = "other";
/// Operations of a master-key provider.
pub const PROVIDER_OPERATIONS: [&str; 4] = ["wrap", "unwrap", "describe", "health"];

/// The closed lists that label values come from.
#[derive(Clone, Copy, Debug)]
pub struct Labels {
    /// Names of commands.
    pub commands: &'static [&'static str],
    /// Names of refusals.
    pub refusals: &'static [&'static str],
    /// What can fail about ciphertext and keys ([`crate::event::Outcome::Failed`]).
    pub failures: &'static [&'static str],
    /// Master-key providers.
    pub providers: &'static [&'static str],
}

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// Towards the application.
    Client,
    /// Towards MongoDB.
    Upstream,
}

impl Leg {
    pub(super) const LABELS: [&'static str; 2] = ["client", "upstream"];
}

/// Which way bytes went, seen from the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Read.
    In,
    /// Written.
    Out,
}

impl Direction {
    pub(super) const LABELS: [&'static str; 2] = ["in", "out"];
}

/// What a handshake agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
    /// Nothing.
    None,
}

impl TlsVersion {
    pub(super) const LABELS: [&'static str; 3] = ["1.2", "1.3", "none"];
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// One side closed it in good order.
    Closed,
    /// The client's socket or TLS failed.
    ClientFailed,
    /// The server could not be reached or went away.
    UpstreamFailed,
    /// Bytes that are no message, or one that may not pass.
    Malformed,
    /// Too slow.
    TimedOut,
    /// Turned away: too many connections.
    Limit,
    /// The proxy is going down.
    Drained,
    /// Writes went to another member, and this connection follows them.
    Moved,
}

impl ConnectionEnd {
    pub(super) const LABELS: [&'static str; 8] = [
        "closed",
        "client_failed",
        "upstream_failed",
        "malformed",
        "timed_out",
        "limit",
        "drained",
        "moved",
    ];
}

pub(super) const OK_OR_ERROR: [&str; 2] = ["ok", "error"];
pub(super) const RELOADS: [&str; 2] = ["applied", "rejected"];
