//! Every bound the proxy keeps, in one list. Units are bytes unless a name says otherwise.

/// Largest wire message, header included (the server's `maxMessageSizeBytes`).
pub const MAX_MESSAGE: usize = 48_000_000;
/// Largest message accepted before the client has authenticated.
pub const MAX_MESSAGE_BEFORE_AUTH: usize = 1024 * 1024;
/// Largest BSON document: 16 MiB of user data plus the server's own 16 KiB of headroom.
pub const MAX_BSON: usize = 16 * 1024 * 1024 + 16 * 1024;
/// Deepest nesting of documents and arrays, as the server's default `maxBSONDepth`.
pub const MAX_DEPTH: usize = 200;
/// Kind-1 sections the server accepts in one OP_MSG.
pub const MAX_SEQUENCES: usize = 2;
/// `maxMessageSizeBytes` shown to drivers: lower than the server's so that a batch still fits once sealed.
pub const ADVERTISED_MESSAGE: i32 = 24_000_000;
/// `maxWriteBatchSize` shown to drivers.
pub const ADVERTISED_BATCH: i32 = 50_000;
/// Top-level fields of a command on a protected collection: no command of the server takes half as many.
pub const MAX_COMMAND_FIELDS: usize = 128;
/// Data keys that one reply may ask for at a time.
pub const MAX_MISSING_KEYS: usize = 1024;
/// Requests of one connection that wait for their reply at the same time.
pub const MAX_PENDING: usize = 1024;
/// Open cursors, of all connections, whose later batches are known.
pub const MAX_CURSORS: usize = 16_384;
/// Subject pseudonyms listed in one audit event; beyond it only their number is given.
pub const MAX_AUDIT_SUBJECTS: usize = 100;
