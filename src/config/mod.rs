//! The configuration: a text and an [`Env`] in, a typed [`Config`] or every mistake at once out. Opens no file and
//! reads no process environment; paths are kept as written and count from the current working directory.
//!
//! Two steps: `raw` is the file as typed, with lines; `resolve` judges it, fills in defaults and builds the field
//! map. Secrets come in as references only (`uri_env`, `${NAME}` in a connection string, a key file's path).

mod env;
mod raw;
mod report;
mod resolve;
mod table;
mod uri;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::env::{Empty, Env};
pub use self::report::{Mistake, Report};
pub use self::uri::ConnectionUri;
use crate::name::Namespace;
use crate::policy::FieldMap;
use crate::wire::Compressors;

/// The whole configuration, judged and complete.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from, as it was named.
    pub file: String,
    /// SHA-256 of the file's text: the audit says by it which rules were in force (`sha256sum` gives the same).
    pub fingerprint: [u8; 32],
    /// The MongoDB side.
    pub upstream: ConnectionUri,
    /// How messages to and from MongoDB are compressed: `compressors` of the connection string, in its order.
    pub upstream_compression: Compressors,
    /// The level of zlib towards MongoDB, 0 to 9: `zlibCompressionLevel` of the connection string.
    pub zlib_level: u8,
    /// Where applications connect; at least one.
    pub listen: Vec<Listen>,
    /// TLS towards applications; `None` only where every listener is plaintext.
    pub tls: Option<Tls>,
    /// Where data keys live, and what wraps them.
    pub keys: Keys,
    /// The audit log.
    pub audit: Audit,
    /// Address of `/metrics`, `/livez` and `/readyz`; `None` where they are not served.
    pub admin: Option<SocketAddr>,
    /// Bounds per process and per connection.
    pub limits: Limits,
    /// Worker threads; `None` for one per core.
    pub workers: Option<usize>,
    /// How long requests in flight may take to finish once the process was told to stop.
    pub drain: Duration,
    /// How much is logged.
    pub log_level: LogLevel,
    /// What is protected.
    pub fields: Arc<FieldMap>,
    /// What works but may not be wise; `check` and `serve` show it.
    pub warnings: Vec<Mistake>,
}

/// One address that applications connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where to listen.
    pub address: SocketAddr,
    /// The replica-set member (`host:port`, as the set names it) that this listener stands for; `None` for the one that
    /// takes writes, or for each that is found.
    pub member: Option<String>,
    /// What `hello` shows in that member's place: `host:port`; where members are found, the host alone.
    pub advertise: String,
    /// This listener speaks no TLS at all.
    pub plaintext: bool,
    /// How applications may compress what they send here; every known way unless the file says less.
    pub compression: Compressors,
    /// There is a listener for each member that the replica set names, from `address` on.
    pub discover: Option<Discover>,
}

/// Listeners for the members that are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discover {
    /// How many ports they may use.
    pub ports: u16,
    /// The file that keeps which member has which port.
    pub remember: PathBuf,
}

/// PEM files of the TLS side towards applications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, the server's own first.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub private_key: PathBuf,
    /// Authorities whose client certificates are accepted; a client without one is then turned away.
    pub client_ca: Option<PathBuf>,
}

/// Data keys and the master key.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The key-vault collection.
    pub vault: Namespace,
    /// The deployment that holds the vault: `keys.uri`, else the upstream with the service's own credentials.
    pub uri: ConnectionUri,
    /// What wraps the data keys.
    pub master: Master,
    /// How long an unwrapped data key is used before it is fetched again.
    pub ttl: Duration,
    /// How long past `ttl` it may still be used while the vault or the key service cannot be reached; then it may not.
    pub grace: Duration,
}

/// The master-key provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Master {
    /// A file that only its owner can read.
    File(PathBuf),
    /// An environment variable with this name.
    Env(String),
    /// CSFLE's `local` provider: 96 bytes, base64 or raw.
    CsfleLocal(LocalKey),
}

/// Where CSFLE's local master key is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalKey {
    /// In a file.
    Path(PathBuf),
    /// In an environment variable.
    Variable(String),
}

/// The audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// The hash-chained JSONL file.
    pub path: PathBuf,
    /// What happens to protected operations while it cannot be written.
    pub on_failure: OnFailure,
    /// When it is forced to disk.
    pub fsync: Fsync,
}

/// What happens to protected operations while the audit log cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// They are refused.
    Refuse,
    /// They go on, unrecorded but counted.
    Continue,
}

/// When the audit log is forced to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// After each batch of records that were written together.
    Batch,
    /// When the operating system likes.
    Off,
}

/// Bounds per process and per connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at the same time.
    pub connections: usize,
    /// How long a client may take for its TLS handshake and first message.
    pub handshake: Duration,
    /// How long reaching the upstream may take, TLS included.
    pub connect: Duration,
    /// How long a connection may be silent; `None` for ever.
    pub idle: Option<Duration>,
    /// How long a peer may take nothing of what waits for it; `None` for ever.
    pub stall: Option<Duration>,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the usual five")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// As it is written in the file and in a log filter.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl Config {
    /// Reads a configuration; `file` is only its name, for messages.
    pub fn parse(file: &str, text: &str, env: &dyn Env) -> Result<Self, Report> {
        resolve::config(file, text, env)
    }
}

/// Fuzz target: any text gives a configuration or a report whose lines are lines of the text, and never a panic.
pub fn fuzz_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(report) = Config::parse("fuzz.toml", text, &Empty) {
        let last = text.bytes().filter(|b| *b == b'\n').count() + 1;
        assert!(!report.mistakes.is_empty(), "a report without a mistake");
        for mistake in &report.mistakes {
            assert!(
                mistake.line.is_none_or(|line| (1..=last).contains(&line)),
                "no such line: {mistake:?}"
            );
        }
    }
}
