//! Cipher suites, key derivation and the stored envelope. Knows bytes only: no BSON document, no wire frame, no policy.
//!
//! Promises: `open(seal(x)) == x`; one bit flipped in an envelope, or an envelope moved to another domain, is
//! [`OpenError::Broken`] and never data; equal values give equal envelopes only under a deterministic suite; no key
//! schedule, no system call and no allocation beyond the caller's buffer per value.
//!
//! [`suite`] names the algorithms, [`envelope`] reads headers, [`cipher`] seals and opens, the other files hold one
//! construction each.

mod aead;
mod cbc_hmac;
pub mod cipher;
pub mod csfle;
pub mod envelope;
pub mod kdf;
pub mod nonce;
pub mod pseudonym;
mod siv;
pub mod suite;

use std::fmt;

pub use cipher::Cipher;
pub use envelope::{Header, header};
pub use suite::Suite;

/// Bytes of key material in one data key, as MongoDB's key vault defines it.
pub const MATERIAL: usize = 96;

/// Why a value was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// CSFLE has no ciphertext for a value of zero bytes (null, undefined, minKey, maxKey).
    EmptyValue,
    /// This key has sealed as many values under a random 96-bit nonce as is safe; a new key version must write.
    BudgetSpent,
    /// The nonces that this process has leased are used up: lease more and try again.
    LeaseSpent,
    /// A native suite binds each value to a domain, and this key belongs to none.
    NoDomain,
    /// The cryptographic library refused: no randomness, or an internal failure.
    Library,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptyValue => "a value without bytes cannot be sealed in the CSFLE format",
            Self::BudgetSpent => {
                "this data key has sealed 2^32 values under random nonces and must not seal more: rotate it"
            }
            Self::LeaseSpent => "the random nonces leased for this data key are used up",
            Self::NoDomain => {
                "this data key has no `fieldveil/<domain>/<n>` alt name, so only the CSFLE suites can seal with it"
            }
            Self::Library => "the cryptographic library failed (no randomness, or an internal error)",
        })
    }
}

impl std::error::Error for SealError {}

/// Why bytes were not opened. "Not ours" and "ours but broken" are different answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The bytes are no envelope of either family: data of somebody else, to be left alone.
    NotEnvelope,
    /// An envelope that does not open: truncated, tampered with, moved, of an unknown version, or sealed by another key.
    Broken(&'static str),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEnvelope => f.write_str("not an envelope"),
            Self::Broken(why) => write!(f, "broken envelope: {why}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// The one text for a failed authentication: which of the causes it was cannot be known.
pub(crate) const FORGED: OpenError = OpenError::Broken(
    "authentication failed: the bytes, the key or the domain are not those it was sealed with",
);
