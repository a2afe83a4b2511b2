//! One client connection as a state machine: frames in, steps out. No socket, no clock, no key service: the pump hands
//! in bytes and time, resolves the keys a step asks for, and calls again with the same frame. Owns the order of
//! replies: a locally made answer never overtakes replies in flight.

mod auth;
mod client;
mod compression;
mod cursors;
pub mod fuzz;
mod greet;
mod names;
mod open;
mod pending;
mod proof;
mod refuse;
mod request;
mod transaction;
mod upstream;
mod verdict;

use std::sync::Arc;

use crate::crypto::Suite;
use crate::crypto::pseudonym::Pseudonymizer;
use crate::event::{CommandEvent, Lifecycle, Outcome};
use crate::keys::KeyRing;
use crate::limits;
use crate::name::KeyId;
use crate::plan::{Catalogue, Plan};
use crate::policy::found::Change;
use crate::policy::{CollectionPolicy, FieldMap, FieldRule, Found};
use crate::topology::{Address, HostMap};

pub use compression::{Compression, Packed, Side, Way};
pub use cursors::Cursors;
pub use proof::prove_command;

/// What a session needs to know for one step. All of it may have changed since the step before.
pub struct Context<'a> {
    /// The field map in force.
    pub map: &'a FieldMap,
    /// What the deployment says about its own collections.
    pub found: &'a Found,
    /// The keys resolved so far.
    pub ring: &'a KeyRing,
    /// Upstream members and the listeners that stand for them.
    pub hosts: &'a HostMap,
    /// The advertised address of the listener the client came in by.
    pub listener: &'a Address,
    /// What the cursors show that any connection has open.
    pub cursors: &'a Cursors,
    /// The upstream side is to be the member that takes writes, and there are several: once it says that it does not,
    /// the connection has no business there.
    pub follows: bool,
    /// What a client behind a load balancer knows the service by.
    pub service: &'a [u8; 12],
    /// Makes the audit's pseudonyms.
    pub pseudonymizer: &'a Pseudonymizer,
    /// Monotonic time, in microseconds.
    pub now_us: u64,
    /// Unix time, in milliseconds.
    pub unix_ms: i64,
    /// The deployment lets nobody in without a login, so neither does what belongs to it: no key is made or used for
    /// whoever has not logged in.
    pub login: bool,
    /// The audit log can be written, or need not be.
    pub audit_ready: bool,
}

/// What became of a frame.
#[derive(Debug)]
pub enum Step {
    /// It has been dealt with: whatever goes on stands in the output buffers.
    Done,
    /// These keys are wanted; call again with the same frame once they are resolved, or tell the session they cannot
    /// be had.
    NeedKeys(Wanted),
}

/// Keys that a frame cannot do without.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Domains that a value is sealed or searched in.
    pub domains: Vec<Arc<str>>,
    /// Data keys that envelopes name.
    pub ids: Vec<KeyId>,
    /// The elements that they stand in, for messages.
    pub elements: Vec<Box<str>>,
    /// Random nonces: of this key, for this algorithm, so many.
    pub nonces: Option<(KeyId, Suite, u64)>,
}

impl Wanted {
    fn new(plan: Plan) -> Self {
        let (ids, mut elements): (Vec<_>, Vec<Box<str>>) = plan.missing_keys.into_iter().unzip();
        // Enough to find them by; a thousand array indexes say no more.
        elements.truncate(8);
        Self {
            domains: plan.missing_domains,
            ids,
            elements,
            nonces: None,
        }
    }

    /// Nonces for what the plan seals.
    fn nonces(key: KeyId, suite: Suite, plan: &Plan) -> Self {
        Self {
            nonces: Some((key, suite, u64::from(plan.summary.sealed()).max(1))),
            ..Self::default()
        }
    }
}

/// The connection ends: why, as a label for logs and metrics. Whatever stands in the output buffers is still sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing(pub &'static str);

/// The upstream side takes no writes any more: the client is to connect again, and comes to the member that does. An
/// error reply in its place would leave a driver behind a load balancer with connections to the wrong member.
pub const MOVED: Closing = Closing("writes go elsewhere");

/// What happened to one command, for audit and metrics.
#[derive(Debug)]
pub struct Done {
    /// The command's name, from the closed table.
    pub command: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// From its arrival to its answer, in microseconds.
    pub duration_us: u64,
    /// Of that, spent in the proxy itself, in microseconds.
    pub spent_us: u64,
    /// The audit event, where the command touched something protected.
    pub event: Option<Box<CommandEvent>>,
    /// The namespace's policy.
    pub policy: Option<Arc<CollectionPolicy>>,
    /// Those of the other namespaces of a `bulkWrite`.
    pub others: Vec<Arc<CollectionPolicy>>,
    /// Values sealed, by rule.
    pub sealed: Vec<(Arc<FieldRule>, u32)>,
    /// Values opened, by domain.
    pub opened: Vec<(Arc<str>, u32)>,
    /// Plaintext found where an enforced rule allows none.
    pub plaintext: Vec<(Arc<FieldRule>, u32)>,
}

/// One connection's state.
pub struct Session {
    connection: u64,
    peer: Option<Arc<str>>,
    principal: Option<Arc<str>>,
    application: Option<Arc<str>>,
    /// Who the client claims to be, until the server says `done`.
    candidate: Option<auth::Candidate>,
    pending: pending::Queue,
    greeted: bool,
    /// The server has accepted an authentication, whether or not it named the user to us.
    logged_in: bool,
    compression: Compression,
    /// Compressed messages since the pump last looked.
    packed: Vec<Packed>,
    /// The client takes us for the whole deployment.
    balanced: bool,
    /// The member at the other side, as its hello says.
    me: Option<Address>,
    /// Commands that have come to an end since the pump last looked.
    done: Vec<Done>,
    /// Authentications that have come to an end since then.
    notices: Vec<Lifecycle>,
    /// Views that were made or dropped since then.
    changes: Vec<Change>,
}

impl Session {
    /// A fresh connection; `connection` is unique in this process.
    pub fn new(connection: u64, peer: Option<Arc<str>>) -> Self {
        Self {
            connection,
            peer,
            principal: None,
            application: None,
            candidate: None,
            pending: pending::Queue::default(),
            greeted: false,
            logged_in: false,
            compression: Compression::default(),
            packed: Vec::new(),
            balanced: false,
            me: None,
            done: Vec::new(),
            notices: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// What may be compressed on this connection; without it nothing is.
    #[must_use]
    pub fn with_compression(self, compression: Compression) -> Self {
        Self { compression, ..self }
    }

    /// Who the server says the client is.
    pub fn principal(&self) -> Option<&Arc<str>> {
        self.principal.as_ref()
    }

    /// How large a request may be: until a hello has been answered, and the login that the deployment wants has gone
    /// well, only small ones are accepted.
    pub fn largest_request(&self, login: bool) -> usize {
        if self.greeted && (self.logged_in || !login) {
            limits::MAX_MESSAGE
        } else {
            limits::MAX_MESSAGE_BEFORE_AUTH
        }
    }

    /// Whether no request waits for its reply.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether a further request may be handed in: not while as many as may be wait for their reply, nor while an
    /// authentication is under way, which decides what becomes of the next one and in whose name.
    pub fn takes_requests(&self) -> bool {
        !self.pending.is_full() && !self.pending.is_logging_in()
    }

    /// Whether nothing is lost if the connection ends now: no request waits but a hello that waits for news, as a
    /// driver's monitor always has one under way.
    pub fn is_quiet(&self) -> bool {
        self.pending.only_waits_for_news()
    }

    /// Whether commands have come to an end since the last look.
    pub fn has_done(&self) -> bool {
        !self.done.is_empty() || !self.notices.is_empty() || !self.packed.is_empty()
    }

    /// Takes the compressed messages, and their memory with them: a connection at rest keeps none.
    pub fn take_packed(&mut self) -> Vec<Packed> {
        std::mem::take(&mut self.packed)
    }

    /// Takes the commands that have come to an end.
    pub fn take_done(&mut self) -> std::vec::Drain<'_, Done> {
        self.done.drain(..)
    }

    /// Takes the authentications that have come to an end.
    pub fn take_notices(&mut self) -> Vec<Lifecycle> {
        std::mem::take(&mut self.notices)
    }

    /// Takes the changes to views that the server has made since the last look; they must be in force before the client
    /// hears of them.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The connection ends: what waits for a reply has reached the server, or may have, so the audit is told of it all
    /// the same.
    pub fn abandon(&mut self, cx: &Context<'_>) {
        while let Some(pending) = self.pending.pop() {
            if pending.event.is_some() {
                let done = self.finish(pending, Outcome::Failed { what: "connection" }, cx);
                self.done.push(done);
            }
        }
    }

    /// Charges time spent in the proxy to the youngest request, or to the command that has just come to an end.
    pub fn charge(&mut self, us: u64) {
        match self.done.last_mut() {
            Some(done) => done.spent_us += us,
            None => self.pending.charge(us),
        }
    }
}

impl Catalogue for KeyRing {
    fn readable(&self, domain: &str) -> Option<usize> {
        self.domain(domain).map(|keys| keys.read.len())
    }

    fn has(&self, id: &KeyId) -> bool {
        self.by_id(id).is_some()
    }
}
