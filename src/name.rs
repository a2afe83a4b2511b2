//! Names that must not be confused with each other: each is a type of its own.

use std::fmt;

/// A MongoDB namespace: database and collection (`clinic.patients`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace {
    text: Box<str>,
    dot: usize,
}

impl Namespace {
    /// Joins a database and a collection name. `None` where either is empty, holds a NUL, or the database holds a dot:
    /// the server accepts no such name.
    pub fn new(db: &str, collection: &str) -> Option<Self> {
        if db.is_empty() || collection.is_empty() || db.contains(['.', '\0']) || collection.contains('\0') {
            return None;
        }
        Some(Self {
            text: format!("{db}.{collection}").into_boxed_str(),
            dot: db.len(),
        })
    }

    /// Splits `db.collection` at its first dot.
    pub fn parse(text: &str) -> Option<Self> {
        let (db, collection) = text.split_once('.')?;
        Self::new(db, collection)
    }

    /// The database part.
    pub fn db(&self) -> &str {
        &self.text[..self.dot]
    }

    /// The collection part; it may hold dots itself (`fs.chunks`).
    pub fn collection(&self) -> &str {
        &self.text[self.dot + 1..]
    }

    /// `db.collection`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The `_id` of a data key in the key vault: a UUID, as raw bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 16]);

impl KeyId {
    /// Reads the 16 bytes of a UUID; `None` for any other length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&uuid::Uuid::from_bytes(self.0), f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
