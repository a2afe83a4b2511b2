//! Whose fault an error is. Rooms keep small error types of their own and convert at their edge; every `Display`
//! is free of values, since it may reach a log.

use std::fmt;

/// Who has to act for this error to go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The application sent something malformed or not allowed.
    Client,
    /// The MongoDB side failed or answered nonsense.
    Upstream,
    /// The configuration or the environment is wrong.
    Operator,
    /// The master-key provider or the key vault failed.
    KeyProvider,
    /// A bug of ours.
    Internal,
}

/// A fault with a text that a person can act on.
#[derive(Debug)]
pub struct Error {
    /// Who has to act.
    pub fault: Fault,
    /// What happened, where, and what to do; never holds a protected value.
    pub text: String,
}

impl Error {
    /// Builds an error; `text` must not contain document values or key material.
    pub fn new(fault: Fault, text: impl Into<String>) -> Self {
        Self {
            fault,
            text: text.into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}
