//! The one list of every series: name, help, labels. The registry builds from it, and a test holds what is exposed
//! against it.

/// What kind of series it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size; upper bounds in seconds.
    Histogram(&'static [f64]),
}

/// One series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Series {
    /// Its name.
    pub name: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
}

const fn series(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Series {
    Series {
        name,
        help,
        kind,
        labels,
    }
}

use Kind::{Counter, Gauge, Histogram};

/// From 5 µs (a small command) to 1 s (a large batch).
const ADDED: &[f64] = &[
    5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1, 2.5e-1, 1.0,
];
/// From 100 µs to 60 s.
const COMMAND: &[f64] = &[
    1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1, 2.5e-1, 5e-1, 1.0, 2.5, 5.0, 10.0, 60.0,
];
/// From 1 ms to 30 s.
const PROVIDER: &[f64] = &[
    1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1, 2.5e-1, 5e-1, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Commands by name and outcome.
pub const COMMANDS: Series = series(
    "fieldveil_commands_total",
    Counter,
    &["command", "outcome"],
    "Commands by name and outcome",
);
/// Whole time of a command.
pub const COMMAND_SECONDS: Series = series(
    "fieldveil_command_seconds",
    Histogram(COMMAND),
    &[],
    "Time from a request's first byte to its reply's last, the server's work included",
);
/// The proxy's own part of it.
pub const ADDED_SECONDS: Series = series(
    "fieldveil_added_seconds",
    Histogram(ADDED),
    &[],
    "Time that the proxy itself added to a command",
);
/// Values sealed.
pub const SEALED: Series = series(
    "fieldveil_fields_sealed_total",
    Counter,
    &["namespace", "field"],
    "Values sealed, by configured namespace and field",
);
/// Values opened.
pub const OPENED: Series = series(
    "fieldveil_fields_opened_total",
    Counter,
    &["namespace", "field"],
    "Values opened, by configured namespace and field",
);
/// Protected fields found unprotected.
pub const PLAINTEXT_FOUND: Series = series(
    "fieldveil_plaintext_found_total",
    Counter,
    &["namespace", "field"],
    "Values of protected fields that the server held unprotected; alert on any where the field is enforced",
);
/// Refusals.
pub const REFUSALS: Series = series(
    "fieldveil_refusals_total",
    Counter,
    &["reason"],
    "Commands refused, by reason",
);
/// Ciphertext that could not be opened.
pub const OPEN_FAILURES: Series = series(
    "fieldveil_open_failures_total",
    Counter,
    &["reason"],
    "Commands failed because a value could not be opened or sealed, by reason; alert on any",
);
/// Calls of the master-key provider.
pub const PROVIDER_CALLS: Series = series(
    "fieldveil_key_provider_calls_total",
    Counter,
    &["provider", "operation", "outcome"],
    "Calls to the master-key provider",
);
/// Their time.
pub const PROVIDER_SECONDS: Series = series(
    "fieldveil_key_provider_seconds",
    Histogram(PROVIDER),
    &["provider", "operation"],
    "Time of a call to the master-key provider",
);
/// Open connections.
pub const CONNECTIONS: Series = series("fieldveil_connections", Gauge, &[], "Client connections open now");
/// Ended connections.
pub const CONNECTIONS_ENDED: Series = series(
    "fieldveil_connections_total",
    Counter,
    &["outcome"],
    "Client connections that ended or were turned away, by how",
);
/// Bytes.
pub const BYTES: Series = series(
    "fieldveil_bytes_total",
    Counter,
    &["leg", "direction"],
    "Bytes of wire messages, by leg (client, upstream) and direction seen from the proxy",
);
/// Compressed messages.
pub const COMPRESSED_MESSAGES: Series = series(
    "fieldveil_compressed_messages_total",
    Counter,
    &["leg", "direction", "compressor"],
    "Wire messages that were compressed, by leg, direction and compressor",
);
/// What they would have taken.
pub const INFLATED_BYTES: Series = series(
    "fieldveil_inflated_bytes_total",
    Counter,
    &["leg", "direction", "compressor"],
    "Bytes that the compressed messages have inflated",
);
/// TLS handshakes.
pub const TLS_HANDSHAKES: Series = series(
    "fieldveil_tls_handshakes_total",
    Counter,
    &["leg", "version", "outcome"],
    "TLS handshakes, by leg, version and outcome",
);
/// Whether audit works.
pub const AUDIT_HEALTHY: Series = series(
    "fieldveil_audit_healthy",
    Gauge,
    &[],
    "1 while the audit log can be written",
);
/// The audit head.
pub const AUDIT_SEQUENCE: Series = series(
    "fieldveil_audit_sequence",
    Gauge,
    &[],
    "Number of the last committed audit line; must never go down",
);
/// Audit events.
pub const AUDIT_EVENTS: Series = series(
    "fieldveil_audit_events_total",
    Counter,
    &[],
    "Events taken for the audit log",
);
/// Audit events without room.
pub const AUDIT_TURNED_AWAY: Series = series(
    "fieldveil_audit_events_turned_away_total",
    Counter,
    &[],
    "Events that the audit queue had no room for; alert on any",
);
/// Data keys.
pub const KEYS_LOADED: Series = series(
    "fieldveil_keys_loaded",
    Gauge,
    &[],
    "Data keys held unwrapped in memory",
);
/// Reloads.
pub const CONFIG_RELOADS: Series = series(
    "fieldveil_config_reloads_total",
    Counter,
    &["outcome"],
    "Configuration reloads, applied or rejected",
);
/// Certificates.
pub const CERTIFICATE_EXPIRY: Series = series(
    "fieldveil_certificate_expiry_seconds",
    Gauge,
    &["leg"],
    "Seconds until the certificate of that leg expires (client: the listeners', upstream: the server's as last seen); negative once it has",
);
/// Version.
pub const BUILD_INFO: Series = series(
    "fieldveil_build_info",
    Gauge,
    &["version"],
    "1, with the version as a label",
);
/// Processor time.
pub const PROCESS_CPU: Series = series(
    "process_cpu_seconds_total",
    Counter,
    &[],
    "Processor time of the process, user and system",
);
/// Memory.
pub const PROCESS_MEMORY: Series = series(
    "process_resident_memory_bytes",
    Gauge,
    &[],
    "Resident memory of the process",
);
/// Descriptors.
pub const PROCESS_FDS: Series = series(
    "process_open_fds",
    Gauge,
    &[],
    "Open file descriptors of the process",
);

/// Every series that `/metrics` can show.
pub const ALL: &[Series] = &[
    COMMANDS,
    COMMAND_SECONDS,
    ADDED_SECONDS,
    SEALED,
    OPENED,
    PLAINTEXT_FOUND,
    REFUSALS,
    OPEN_FAILURES,
    PROVIDER_CALLS,
    PROVIDER_SECONDS,
    CONNECTIONS,
    CONNECTIONS_ENDED,
    BYTES,
    COMPRESSED_MESSAGES,
    INFLATED_BYTES,
    TLS_HANDSHAKES,
    AUDIT_HEALTHY,
    AUDIT_SEQUENCE,
    AUDIT_EVENTS,
    AUDIT_TURNED_AWAY,
    KEYS_LOADED,
    CONFIG_RELOADS,
    CERTIFICATE_EXPIRY,
    BUILD_INFO,
    PROCESS_CPU,
    PROCESS_MEMORY,
    PROCESS_FDS,
];
