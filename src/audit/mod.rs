//! The hash-chained audit log: chain, sink, verification.
