//! Raw BSON, walked in place. Owns the byte layout of documents and elements and nothing else: no policy, no wire
//! frame, no ciphertext. Every offset is absolute in the buffer it was read from, so that a plan can name spans of
//! the message itself. Never panics on hostile bytes and never allocates from a length it has not checked.
//!
//! Source: <https://bsonspec.org/spec.html>.

pub mod build;
pub mod element;

pub use element::{Doc, Element, Elements, Malformed, kind};
