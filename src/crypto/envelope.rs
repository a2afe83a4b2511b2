//! What a stored binary says about itself, read without any key. Owns the header grammar of both families; sealing
//! and opening are `cipher`'s.

use super::suite::{CSFLE_SUBTYPE, NATIVE_SUBTYPE, Suite};
use crate::name::KeyId;

/// The version byte that native envelopes start with.
pub const VERSION: u8 = 1;
/// Bytes of a native header: version, algorithm, data-key UUID, BSON type.
pub const NATIVE_HEADER: usize = 19;
/// Bytes of a CSFLE header: blob subtype, data-key UUID, BSON type.
pub const CSFLE_HEADER: usize = 18;

/// What the first bytes of a BSON binary are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Neither family: somebody else's data.
    NotEnvelope,
    /// A well-formed envelope; whether it opens is another question.
    Envelope {
        /// The data key that sealed it.
        key: KeyId,
        /// How it was sealed.
        suite: Suite,
        /// BSON type byte of the value inside.
        kind: u8,
    },
    /// In a family's subtype but not readable as one of its envelopes; the text says why and holds no value.
    Broken(&'static str),
}

/// Reads the header of a binary's payload (the bytes after length and subtype). Never guesses: what claims a family
/// and is not known in every byte that matters is [`Header::Broken`].
///
/// Native, subtype 0x80:
///
/// ```text
/// envelope   = version algorithm key-id bson-type body
/// version    = %x01
/// algorithm  = %x01-04                       ; Suite::id
/// key-id     = 16OCTET                       ; UUID of the data key
/// bson-type  = OCTET                         ; type of the value inside
/// body       = siv / aead / cbc
/// siv        = 16OCTET *OCTET                ; 1: synthetic IV, ciphertext
/// aead       = 12OCTET *OCTET 16OCTET        ; 2, 3: nonce, ciphertext, tag
/// cbc        = 16OCTET 1*(16OCTET) 32OCTET   ; 4: IV, ciphertext, HMAC-SHA-256 tag
/// ```
///
/// The authenticated data is the first 19 bytes followed by the domain's name, so a value moved to another domain does
/// not open.
///
/// CSFLE, subtype 6 (MongoDB specifications, `bson-binary-encrypted`):
///
/// ```text
/// blob       = blob-type key-id bson-type iv 1*(16OCTET) tag
/// blob-type  = %x01-02                       ; deterministic, random
/// iv         = 16OCTET
/// tag        = 32OCTET                       ; truncated HMAC-SHA-512
/// ```
pub fn header(subtype: u8, payload: &[u8]) -> Header {
    match subtype {
        NATIVE_SUBTYPE => native(payload),
        CSFLE_SUBTYPE => csfle(payload),
        _ => Header::NotEnvelope,
    }
}

fn native(payload: &[u8]) -> Header {
    let Some((head, _)) = payload.split_first_chunk::<NATIVE_HEADER>() else {
        return Header::Broken("shorter than an envelope header");
    };
    if head[0] != VERSION {
        return Header::Broken("unknown envelope version");
    }
    let Some(suite) = Suite::from_id(NATIVE_SUBTYPE, head[1]) else {
        return Header::Broken("unknown envelope algorithm");
    };
    let whole = match suite {
        Suite::Aes256CbcHmacSha256 => is_blocks(payload.len(), suite),
        _ => payload.len() >= suite.sealed_len(0),
    };
    if !whole {
        return Header::Broken("no envelope of its algorithm has this length");
    }
    match KeyId::from_slice(&head[2..18]) {
        Some(key) => Header::Envelope {
            key,
            suite,
            kind: head[18],
        },
        None => Header::Broken("shorter than an envelope header"),
    }
}

fn csfle(payload: &[u8]) -> Header {
    let Some((head, _)) = payload.split_first_chunk::<CSFLE_HEADER>() else {
        return Header::Broken("shorter than a CSFLE header");
    };
    let suite = match (Suite::from_id(CSFLE_SUBTYPE, head[0]), head[0]) {
        (Some(suite), _) => suite,
        (None, 0) => return Header::Broken("a CSFLE marking, which must never be stored"),
        (None, 3..=18) => return Header::Broken("a Queryable Encryption payload, which is not supported"),
        (None, _) => return Header::Broken("unknown CSFLE blob type"),
    };
    if !is_blocks(payload.len(), suite) {
        return Header::Broken("no CSFLE ciphertext has this length");
    }
    match KeyId::from_slice(&head[1..17]) {
        Some(key) => Header::Envelope {
            key,
            suite,
            kind: head[17],
        },
        None => Header::Broken("shorter than a CSFLE header"),
    }
}

fn is_blocks(len: usize, suite: Suite) -> bool {
    let least = suite.sealed_len(0);
    len >= least && (len - least).is_multiple_of(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native_bytes(len: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; len];
        bytes[..2].copy_from_slice(&[1, 2]);
        bytes
    }

    #[test]
    fn leaves_other_subtypes_alone() {
        for subtype in (0..=255u8).filter(|s| ![0x80, 6].contains(s)) {
            assert_eq!(header(subtype, &native_bytes(80)), Header::NotEnvelope);
        }
    }

    #[test]
    fn rejects_every_unknown_version_and_algorithm() {
        for version in (0..=255u8).filter(|&v| v != 1) {
            let mut bytes = native_bytes(80);
            bytes[0] = version;
            assert_eq!(header(0x80, &bytes), Header::Broken("unknown envelope version"));
        }
        for algorithm in (0..=255u8).filter(|a| !(1..=4).contains(a)) {
            let mut bytes = native_bytes(80);
            bytes[1] = algorithm;
            assert_eq!(header(0x80, &bytes), Header::Broken("unknown envelope algorithm"));
        }
    }

    #[test]
    fn rejects_lengths_that_no_suite_writes() {
        for suite in Suite::ALL {
            let (subtype, at) = if suite.is_csfle() { (6, 0) } else { (0x80, 1) };
            let written: std::collections::HashSet<usize> = (0..200).map(|n| suite.sealed_len(n)).collect();
            for len in 0..200 {
                let mut bytes = vec![1u8; len];
                if let Some(id) = bytes.get_mut(at) {
                    *id = suite.id();
                }
                let known = matches!(header(subtype, &bytes), Header::Envelope { .. });
                assert_eq!(known, written.contains(&len), "{} of {len} bytes", suite.name());
            }
        }
    }

    #[test]
    fn rejects_markings_and_queryable_encryption() {
        for blob in (0..=255u8).filter(|b| ![1, 2].contains(b)) {
            let mut bytes = vec![0u8; 82];
            bytes[0] = blob;
            assert!(matches!(header(6, &bytes), Header::Broken(_)), "blob type {blob}");
        }
    }
}
