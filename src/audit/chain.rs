//! The chain itself: how a line is sealed to the one before it and how an authentic line is told from any other bytes.
//! Knows bytes and the key; not files, not events.
//!
//! ```text
//! line  = '{"seq":' DECIMAL ',' body ',"prev":"' 64HEX '","hash":"' 64HEX '"}' LF
//! hash  = HMAC-SHA-256(key, "fieldveil/audit/line/v1" NUL (line up to ',"hash"'))
//! ```
//!
//! Both ends of a line are fixed bytes at fixed places, so nothing inside the body can pass for them, and there is
//! exactly one spelling of a line: every bit of it is covered.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::event::{Event, LifecycleEvent};

use super::encode;

pub(super) type Hash = [u8; 32];

/// Longest line that is read back; the bounds on an event keep what is written well below.
pub(super) const MAX_LINE: usize = 1024 * 1024;

const LINE_LABEL: &[u8] = b"fieldveil/audit/line/v1\0";
const HEAD_LABEL: &[u8] = b"fieldveil/audit/head/v1\0";
const KEY_LABEL: &[u8] = b"fieldveil/audit/key-id/v1\0";

const SEQ: &[u8] = b"{\"seq\":";
const PREV: &[u8] = b",\"prev\":\"";
const HASH: &[u8] = b"\",\"hash\":\"";
const END: &[u8] = b"\"}";

/// The audit key, ready for use. Derived by the caller from the master key; never written anywhere.
#[derive(Clone)]
pub struct AuditKey(Hmac<Sha256>);

impl AuditKey {
    /// Takes the 32 bytes of the key.
    pub fn new(key: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length (RFC 2104)")]
        let mac = Hmac::new_from_slice(key).expect("HMAC takes a key of any length");
        Self(mac)
    }

    /// Names the key without giving it away, so that "another key" and "edited" can be told apart.
    pub(super) fn id(&self) -> [u8; 8] {
        let mac = self.mac(KEY_LABEL, &[]).finalize().into_bytes();
        let mut id = [0; 8];
        id.copy_from_slice(&mac[..8]);
        id
    }

    pub(super) fn head_mac(&self, bytes: &[u8]) -> Hash {
        self.mac(HEAD_LABEL, bytes).finalize().into_bytes().into()
    }

    pub(super) fn is_head_mac(&self, bytes: &[u8], mac: &Hash) -> bool {
        self.mac(HEAD_LABEL, bytes).verify_slice(mac).is_ok()
    }

    fn mac(&self, label: &[u8], bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(label);
        mac.update(bytes);
        mac
    }
}

/// A place in the chain: a line's number and its hash. Line 0 is the one before the first, with a hash of zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The line's `seq`.
    pub seq: u64,
    /// The line's `hash`.
    pub hash: [u8; 32],
}

impl Anchor {
    /// Where every chain begins.
    pub const GENESIS: Self = Self {
        seq: 0,
        hash: [0; 32],
    };

    /// Reads the hash as `audit verify --expect-hash` and the log spell it; `None` unless it is 64 hex digits.
    pub fn parse(seq: u64, hash: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(hash, &mut bytes).ok()?;
        Some(Self { seq, hash: bytes })
    }

    /// The hash as 64 hex digits.
    pub fn hash_hex(&self) -> String {
        hex::encode(self.hash)
    }
}

/// What an authentic line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) at: Anchor,
    pub(super) prev: Hash,
    /// The `event` member.
    pub(super) event: &'a [u8],
}

/// Appends `event` as the line after `last`, line feed included, and returns its place.
pub(super) fn seal(key: &AuditKey, last: Anchor, event: &Event, out: &mut Vec<u8>) -> Anchor {
    let start = out.len();
    let seq = last.seq.saturating_add(1);
    out.extend_from_slice(SEQ);
    out.extend_from_slice(itoa::Buffer::new().format(seq).as_bytes());
    out.push(b',');
    encode::body(event, out);
    out.extend_from_slice(PREV);
    push_hex(&last.hash, out);
    out.push(b'"');
    let hash: Hash = key
        .mac(LINE_LABEL, out.get(start..).unwrap_or_default())
        .finalize()
        .into_bytes()
        .into();
    out.extend_from_slice(HASH.get(1..).unwrap_or_default());
    push_hex(&hash, out);
    out.extend_from_slice(END);
    out.push(b'\n');
    Anchor { seq, hash }
}

fn push_hex(hash: &Hash, out: &mut Vec<u8>) {
    let mut digits = [0; 64];
    // Twice as many digits as bytes: it cannot fail.
    if hex::encode_to_slice(hash, &mut digits).is_ok() {
        out.extend_from_slice(&digits);
    }
}

/// [`seal`] for an event about the log itself.
pub(super) fn seal_lifecycle(
    key: &AuditKey,
    last: Anchor,
    event: LifecycleEvent,
    out: &mut Vec<u8>,
) -> Anchor {
    seal(key, last, &Event::Lifecycle(event), out)
}

/// Reads a line without its line feed; `None` unless it was sealed under this key and not a bit of it changed.
pub(super) fn open<'a>(key: &AuditKey, line: &'a [u8]) -> Option<Line<'a>> {
    let (rest, hash) = take_hex(line.strip_suffix(END)?)?;
    let prev_end = rest.strip_suffix(HASH)?;
    let (body, prev) = take_hex(prev_end)?;
    let body = body.strip_suffix(PREV)?.strip_prefix(SEQ)?;
    // Sealed bytes run up to and including the quote that closes `prev`.
    let sealed = line.get(..prev_end.len().checked_add(1)?)?;
    key.mac(LINE_LABEL, sealed).verify_slice(&hash).ok()?;
    let comma = memchr::memchr(b',', body)?;
    let seq = std::str::from_utf8(body.get(..comma)?).ok()?.parse().ok()?;
    Some(Line {
        at: Anchor { seq, hash },
        prev,
        event: encode::event_of(body)?,
    })
}

/// Splits 64 lowercase hex digits off the end. Uppercase is another spelling, hence not ours.
fn take_hex(bytes: &[u8]) -> Option<(&[u8], Hash)> {
    let (rest, digits) = bytes.split_at_checked(bytes.len().checked_sub(64)?)?;
    if digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut hash = [0; 32];
    hex::decode_to_slice(digits, &mut hash).ok()?;
    Some((rest, hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{CommandEvent, Lifecycle};

    fn sealed(key: &AuditKey) -> Vec<u8> {
        let mut out = Vec::new();
        let event = CommandEvent::new(1_700_000_000_123, 7, "clinic.patients", "find");
        seal(key, Anchor::GENESIS, &event.into(), &mut out);
        out
    }

    #[test]
    fn opens_what_it_sealed_and_nothing_with_a_bit_changed() {
        let key = AuditKey::new(&[7; 32]);
        let text = sealed(&key);
        let line = text.strip_suffix(b"\n").unwrap();
        let opened = open(&key, line).unwrap();
        assert_eq!(
            (opened.at.seq, opened.prev, opened.event),
            (1, [0; 32], b"command".as_slice())
        );
        for at in 0..line.len() {
            for bit in 0..8 {
                let mut changed = line.to_vec();
                changed[at] ^= 1 << bit;
                assert_eq!(open(&key, &changed), None, "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn rejects_lines_of_another_key_and_heads_passed_off_as_lines() {
        let key = AuditKey::new(&[7; 32]);
        let text = sealed(&key);
        let line = text.strip_suffix(b"\n").unwrap();
        assert_eq!(open(&AuditKey::new(&[8; 32]), line), None);
        let cut = line.len() - 64 - 2 - 9;
        let forged = [
            &line[..cut],
            b",\"hash\":\"",
            hex::encode(key.head_mac(&line[..cut])).as_bytes(),
            b"\"}",
        ]
        .concat();
        assert_eq!(forged.len(), line.len());
        assert_eq!(open(&key, &forged), None);
    }

    #[test]
    fn a_name_cannot_pass_for_the_end_of_a_line() {
        let key = AuditKey::new(&[1; 32]);
        let fake = format!(
            "x\",\"prev\":\"{0}\",\"hash\":\"{0}\"}}\n{{\"seq\":9,",
            "0".repeat(64)
        );
        let mut out = Vec::new();
        let event = CommandEvent::new(0, 1, fake.clone(), "find");
        seal(&key, Anchor::GENESIS, &event.into(), &mut out);
        let last = LifecycleEvent {
            time_ms: 0,
            what: Lifecycle::LogRotated,
        };
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
        let line = out.strip_suffix(b"\n").unwrap();
        let at = open(&key, line).unwrap().at;
        let json: serde_json::Value = serde_json::from_slice(line).unwrap();
        assert_eq!(json["namespace"], fake.as_str());
        assert_eq!(seal_lifecycle(&key, at, last, &mut Vec::new()).seq, 2);
    }
}
