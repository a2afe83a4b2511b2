//! The hash-chained audit log. Owns the file's form, the thread that writes it, and its verification; does not decide
//! what is recorded nor what happens to a command whose event has no room.
//!
//! One JSON object per line, ASCII only: `seq`, `time`, the event's fields, `prev` (the previous line's hash) and
//! `hash`, an HMAC-SHA-256 of the line's bytes before `,"hash"` under a key that whoever can write the file does not
//! have. A small head file beside the log (`<path>.head`) names the last line under the same key.
//!
//! What that proves: without the key no line can be changed, made up, moved, repeated or left out, nor can the end be cut
//! off, without [`verify()`] saying where. What it cannot prove on this machine alone: that nobody put back an *older* log
//! **together with** its older head, or removed both. For that the head is emitted (a log line and
//! `fieldveil_audit_sequence`) so that it can be kept elsewhere, and [`verify()`] takes it back as an [`Anchor`]. Lines of
//! the last [`Settings::commit_every`] before a crash may not be named by the head yet.

mod chain;
mod encode;
mod file;
mod head;
mod report;
mod sink;
mod verify;
mod writer;

pub use chain::{Anchor, AuditKey};
pub use file::OpenError;
pub use report::{Finding, FindingKind, Report};
pub use sink::{AuditSink, CloseError, Fsync, RecordError, Settings, Status, Target};
pub use verify::{verify, verify_all};
