//! What happened, as data: pseudonyms, paths and counts. Owns the shapes that audit and metrics consume; does not
//! know a clock (times are handed in), a file or a metric.
//!
//! No type here has a place for a value of a protected field: reasons are `&'static str`, subjects are keyed digests,
//! fields are paths of the field map. Names that come from the wire (principal, application, namespace, peer) are
//! bounded by [`bounded_name`] and escaped by whoever writes them.

use std::sync::Arc;

use crate::limits::MAX_AUDIT_SUBJECTS;
use crate::name::KeyId;

/// Bytes of a name that an event keeps; a longer one is cut at a character and marked with `…`.
pub const MAX_EVENT_NAME: usize = 256;
/// Field paths listed in one event.
pub const MAX_EVENT_FIELDS: usize = 256;

/// A keyed digest of the value of a `subject` field: says "the same person", never who.
pub type Pseudonym = [u8; 16];

/// One command of one connection, with its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandEvent {
    /// When it finished, in milliseconds of Unix time.
    pub time_ms: i64,
    /// The connection's number, unique within this process.
    pub connection: u64,
    /// Who asked (`user@db`); `None` before the server confirmed an authentication.
    pub principal: Option<Arc<str>>,
    /// The application's own name for itself (`client.application.name` of its hello).
    pub application: Option<Arc<str>>,
    /// The client's address.
    pub peer: Option<Arc<str>>,
    /// `db.collection`, or the database alone for a command without a collection.
    pub namespace: String,
    /// The command's name, from the closed list of commands.
    pub command: &'static str,
    /// Paths of protected fields that it touched, as the field map spells them.
    pub fields: Vec<Arc<str>>,
    /// Values sealed on the way in.
    pub sealed: u32,
    /// Values opened on the way out.
    pub opened: u32,
    /// Documents that the client sent.
    pub documents_in: u32,
    /// Documents that the client was given.
    pub documents_out: u32,
    /// Whose records, at most [`MAX_AUDIT_SUBJECTS`] of them.
    pub subjects: Vec<Pseudonym>,
    /// How many subjects in all, listed or not.
    pub subjects_total: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// From the first byte of the request to the last of its reply, in microseconds.
    pub duration_us: u64,
}

impl CommandEvent {
    /// An event with nothing counted yet and outcome [`Outcome::Ok`].
    pub fn new(time_ms: i64, connection: u64, namespace: impl Into<String>, command: &'static str) -> Self {
        Self {
            time_ms,
            connection,
            principal: None,
            application: None,
            peer: None,
            namespace: namespace.into(),
            command,
            fields: Vec::new(),
            sealed: 0,
            opened: 0,
            documents_in: 0,
            documents_out: 0,
            subjects: Vec::new(),
            subjects_total: 0,
            outcome: Outcome::Ok,
            duration_us: 0,
        }
    }

    /// Adds a subject unless it is listed already; past [`MAX_AUDIT_SUBJECTS`] it is only counted (repeats included,
    /// since what is not listed cannot be compared).
    pub fn add_subject(&mut self, subject: Pseudonym) {
        if self.subjects.contains(&subject) {
            return;
        }
        if self.subjects.len() < MAX_AUDIT_SUBJECTS {
            self.subjects.push(subject);
        }
        self.subjects_total = self.subjects_total.saturating_add(1);
    }

    /// Cuts what it owns to the bounds, so that a queue of events has a known size.
    pub fn bound(&mut self) {
        if let Some(cut) = cut_point(&self.namespace) {
            self.namespace.truncate(cut);
            self.namespace.push('…');
            self.namespace.shrink_to_fit();
        }
        let listed = self.subjects.len();
        self.subjects_total = self.subjects_total.max(u32::try_from(listed).unwrap_or(u32::MAX));
        self.subjects.truncate(MAX_AUDIT_SUBJECTS);
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server did it.
    Ok,
    /// The proxy said no.
    Refused {
        /// The refusal's name, from the closed list of refusals.
        reason: &'static str,
    },
    /// The server said no.
    ServerError {
        /// MongoDB's error code.
        code: i32,
    },
    /// The proxy could not (tampered ciphertext, missing key, audit not writable …).
    Failed {
        /// What failed, from a closed list.
        what: &'static str,
    },
    /// An unacknowledged command that was refused: there is no reply to say so in.
    Dropped {
        /// The refusal's name, from the closed list of refusals.
        reason: &'static str,
    },
}

impl Outcome {
    /// Every label, in the order of [`Outcome::index`].
    pub const LABELS: [&'static str; 5] = ["ok", "refused", "server_error", "failed", "dropped"];

    /// Place in [`Outcome::LABELS`].
    pub const fn index(self) -> usize {
        match self {
            Self::Ok => 0,
            Self::Refused { .. } => 1,
            Self::ServerError { .. } => 2,
            Self::Failed { .. } => 3,
            Self::Dropped { .. } => 4,
        }
    }

    /// The outcome's name in audit and metrics.
    pub const fn label(self) -> &'static str {
        Self::LABELS[self.index()]
    }
}

/// Something that happened to the proxy rather than to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LifecycleEvent {
    /// When, in milliseconds of Unix time.
    pub time_ms: i64,
    /// What.
    pub what: Lifecycle,
}

/// What can happen to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// The proxy is up.
    Started {
        /// The crate's version.
        version: &'static str,
        /// SHA-256 of the effective configuration: says which rules were in force.
        configuration: [u8; 32],
    },
    /// The proxy is going down.
    Stopped {
        /// Why (`signal`, `error` …).
        reason: &'static str,
    },
    /// A new configuration is in force.
    ConfigReloaded {
        /// SHA-256 of the effective configuration.
        configuration: [u8; 32],
    },
    /// A new configuration was not usable; the old one stays in force.
    ConfigRejected {
        /// Why, from a closed list.
        reason: &'static str,
    },
    /// The server confirmed who a connection is.
    Authenticated {
        /// The connection's number.
        connection: u64,
        /// `user@db`.
        principal: Arc<str>,
        /// SASL mechanism or `x509`.
        mechanism: &'static str,
        /// The client's address.
        peer: Arc<str>,
    },
    /// The server did not believe a connection.
    AuthenticationFailed {
        /// The connection's number.
        connection: u64,
        /// Who it claimed to be, where it said so.
        claimed: Option<Arc<str>>,
        /// The client's address.
        peer: Arc<str>,
    },
    /// A data key was made.
    KeyCreated {
        /// Its `_id` in the key vault.
        key: KeyId,
        /// What it protects.
        domain: Arc<str>,
    },
    /// A data key could not be had.
    KeyRefused {
        /// Its `_id`; `None` where none could be found or made.
        key: Option<KeyId>,
        /// What it protects.
        domain: Arc<str>,
        /// Why, from a closed list.
        reason: &'static str,
    },
    /// A data key changed state (`disabled`, `destroyed`, `rewrapped`, `enabled`).
    KeyChanged {
        /// Its `_id` in the key vault.
        key: KeyId,
        /// What it protects.
        domain: Arc<str>,
        /// Its new state, from a closed list.
        state: &'static str,
    },
    /// The master-key provider stopped or began to answer.
    ProviderHealth {
        /// Which, from the closed list of providers.
        provider: &'static str,
        /// Whether it answers now.
        up: bool,
    },
    /// The first line of an audit file.
    LogOpened {
        /// Whether an earlier file holds the lines before this one.
        continues: bool,
    },
    /// The last line of an audit file that was rotated away.
    LogRotated,
    /// A line that a crash cut short was dropped from the end of the audit file.
    LogRecovered {
        /// Bytes that were dropped.
        torn_bytes: u64,
    },
    /// Events that the audit queue had no room for.
    EventsLost {
        /// How many since the last such line.
        count: u64,
    },
}

/// What the audit log takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// One command.
    Command(Box<CommandEvent>),
    /// Anything else.
    Lifecycle(LifecycleEvent),
}

impl From<CommandEvent> for Event {
    fn from(mut event: CommandEvent) -> Self {
        event.bound();
        Self::Command(Box::new(event))
    }
}

impl From<Box<CommandEvent>> for Event {
    fn from(mut event: Box<CommandEvent>) -> Self {
        event.bound();
        Self::Command(event)
    }
}

impl From<LifecycleEvent> for Event {
    fn from(event: LifecycleEvent) -> Self {
        Self::Lifecycle(event)
    }
}

/// The part of `name` that an event may show, and whether something was cut off.
pub fn bounded_name(name: &str) -> (&str, bool) {
    match cut_point(name) {
        Some(cut) => (&name[..cut], true),
        None => (name, false),
    }
}

fn cut_point(name: &str) -> Option<usize> {
    let whole = |at: &usize| name.is_char_boundary(*at);
    (name.len() > MAX_EVENT_NAME).then(|| (0..=MAX_EVENT_NAME).rev().find(whole).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_long_names_at_a_character() {
        let long = "é".repeat(300);
        let (shown, cut) = bounded_name(&long);
        assert!(cut && shown.len() <= MAX_EVENT_NAME && long.starts_with(shown));
        assert_eq!(bounded_name("clinic.patients"), ("clinic.patients", false));
    }

    #[test]
    fn lists_no_more_subjects_than_the_limit_and_counts_the_rest() {
        let mut event = CommandEvent::new(0, 1, "a".repeat(1000), "find");
        for n in 0..=200_u8 {
            event.add_subject([n; 16]);
            event.add_subject([0; 16]);
        }
        event.bound();
        assert_eq!(event.subjects.len(), MAX_AUDIT_SUBJECTS);
        assert_eq!(event.subjects_total, 201);
        assert!(event.namespace.len() <= MAX_EVENT_NAME + '…'.len_utf8());
    }

    #[test]
    fn every_outcome_has_a_label_of_its_own() {
        let all = [
            Outcome::Ok,
            Outcome::Refused { reason: "r" },
            Outcome::ServerError { code: 1 },
            Outcome::Failed { what: "w" },
            Outcome::Dropped { reason: "r" },
        ];
        assert_eq!(all.map(Outcome::label), Outcome::LABELS);
    }
}
