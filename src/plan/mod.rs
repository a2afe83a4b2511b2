//! A plan is a list of edits over the bytes of one message; [`apply`](apply::apply) makes the new bytes,
//! [`prove`](prove::prove) checks them. Planning decides, without key material, what is sealed, opened, dropped or
//! put; nothing else in the crate may change a document. Knows no command: `command/` drives the [`Draft`].

pub mod apply;
pub mod canonical;
pub mod draft;
pub mod op;
pub mod prove;
mod subject;

use std::sync::Arc;

use crate::name::KeyId;
use crate::policy::{FieldRule, Shape};

pub use draft::{Catalogue, Draft};
pub use op::{Op, Value, Versions};

/// What happens to one message. With no edit the message leaves as the bytes it came in.
#[derive(Debug, Default)]
pub struct Plan {
    /// The edits, in the order of the bytes they concern.
    pub ops: Vec<Op>,
    /// Counts and paths for audit and metrics; never values.
    pub summary: Summary,
    /// Domains whose keys the ring did not have while planning: resolve them and plan again.
    pub missing_domains: Vec<Arc<str>>,
    /// Data keys the ring did not have while planning: resolve them and plan again.
    /// Each with the key of an element that needs it, for messages.
    pub missing_keys: Vec<(KeyId, Box<str>)>,
}

impl Plan {
    /// Whether the message leaves as it came.
    pub fn is_identity(&self) -> bool {
        self.ops.is_empty()
    }

    /// Whether keys must be resolved before the plan is final.
    pub fn needs_keys(&self) -> bool {
        !self.missing_domains.is_empty() || !self.missing_keys.is_empty()
    }
}

/// What a plan touches, for audit and metrics.
#[derive(Debug, Default)]
pub struct Summary {
    /// Each rule met, with how often a value of it is sealed. A rule that is only read about counts 0.
    pub rules: Vec<(Arc<FieldRule>, u32)>,
    /// Values of the subject field that the command names: spans of the message, canonical.
    pub subjects: Vec<Value>,
    /// Documents carried by the message (inserted, or in a reply's batch).
    pub documents: u32,
    /// A projection computes fields, so that a reply's paths need not be those of the stored documents.
    pub computed: bool,
    /// Which rule's values stand where in the documents that an aggregation yields.
    pub yields: Option<Shape>,
    /// The reply will be a plan that shows literals, not documents.
    pub explained: bool,
    /// Plaintext met in fields that should hold none, by path.
    pub plaintext: Vec<(Arc<FieldRule>, u32)>,
}
