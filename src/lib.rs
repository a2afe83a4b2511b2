//! fieldveil: a TLS-terminating proxy between unmodified applications and MongoDB that keeps the
//! configured fields encrypted in everything the database, its disk, its log and its backups hold.
//!
//! One idea holds it together: **Plan → Keys → Apply → Prove**. A command (or a reply) is first *planned*:
//! pure, synchronous, without key material: which spans of the bytes are replaced, by which rule, under which
//! keys, or a [`policy::refusal::Refusal`]. The connection pump then *resolves keys* (the only await, skipped
//! when the ring has them). The plan is *applied*, pure again: bytes in, bytes out. It is *proved*: one walk of
//! the output shows that every protected path holds an envelope. Nothing else may change a document.
//!
//! Rooms in layer order; an arrow may only point down, and `tests/architecture.rs` checks it:
//!
//! ```text
//! 6 assembly   main → cli/ → app.rs
//! 5 effects    proxy/  kms/  store/  tls/  audit/  metrics/  admin/
//! 4 talk       session/                 one connection as a state machine: frames in, steps out
//! 3 meaning    command/  plan/  topology/
//! 2 rules      policy/  keys/  config/  event.rs
//! 1 bytes      wire/    bson/   crypto/      three rooms that do not know each other
//! 0 words      secret.rs  name.rs  error.rs  limits.rs
//! ```

pub mod error;
pub mod limits;
pub mod name;
pub mod secret;

pub mod bson;
pub mod crypto;
pub mod wire;

pub mod config;
pub mod event;
pub mod keys;
pub mod policy;

pub mod command;
pub mod plan;
pub mod topology;

pub mod session;

pub mod admin;
pub mod audit;
pub mod kms;
pub mod metrics;
pub mod proxy;
pub mod store;
pub mod tls;

pub mod app;
pub mod cli;
