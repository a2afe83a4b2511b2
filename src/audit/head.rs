//! The head file: which line is the last, under the audit key. Owns its form and its atomic replacement.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::chain::{Anchor, AuditKey};

const MAC: &[u8] = b",\"mac\":\"";
const END: &[u8] = b"\"}\n";
const MAX_HEAD: u64 = 4096;

/// What is known about a log file from outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The line before the file's first: genesis, or the last of the file that was rotated away.
    pub(super) before: Anchor,
    /// The last line; `before` while the file has none.
    pub(super) last: Anchor,
    /// Bytes of the file up to and including the last line.
    pub(super) length: u64,
}

/// Why a head file is not usable.
#[derive(Debug)]
pub(super) enum HeadError {
    Io(io::Error),
    /// Written under another audit key.
    OtherKey,
    /// Not what any key of ours wrote.
    Edited,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    key: String,
    before_seq: u64,
    before_hash: String,
    seq: u64,
    hash: String,
    length: u64,
    #[serde(rename = "mac")]
    _mac: String,
}

/// `<log>.head`.
pub(super) fn path_of(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".head");
    name.into()
}

/// Reads the head beside `log`; `None` where there is no such file.
pub(super) fn read(log: &Path, key: &AuditKey) -> Result<Option<Head>, HeadError> {
    let file = match File::open(path_of(log)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HeadError::Io(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_HEAD)
        .read_to_end(&mut bytes)
        .map_err(HeadError::Io)?;
    decode(&bytes, key).map(Some)
}

/// Replaces the head beside `log`: whoever reads it sees the old one or the new one, also after a crash.
pub(super) fn write(log: &Path, key: &AuditKey, head: &Head, durable: bool) -> io::Result<()> {
    let path = path_of(log);
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".tmp");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(&encode(head, key))?;
    if durable {
        file.sync_data()?;
    }
    fs::rename(&fresh, &path)
}

pub(super) fn encode(head: &Head, key: &AuditKey) -> Vec<u8> {
    let mut out = format!(
        "{{\"key\":\"{}\",\"before_seq\":{},\"before_hash\":\"{}\",\"seq\":{},\"hash\":\"{}\",\"length\":{}",
        hex::encode(key.id()),
        head.before.seq,
        head.before.hash_hex(),
        head.last.seq,
        head.last.hash_hex(),
        head.length
    )
    .into_bytes();
    let mac = key.head_mac(&out);
    out.extend_from_slice(MAC);
    out.extend_from_slice(hex::encode(mac).as_bytes());
    out.extend_from_slice(END);
    out
}

pub(super) fn decode(bytes: &[u8], key: &AuditKey) -> Result<Head, HeadError> {
    let text: Text = serde_json::from_slice(bytes).map_err(|_| HeadError::Edited)?;
    if text.key != hex::encode(key.id()) {
        return Err(HeadError::OtherKey);
    }
    let head = (|| {
        Some(Head {
            before: Anchor::parse(text.before_seq, &text.before_hash)?,
            last: Anchor::parse(text.seq, &text.hash)?,
            length: text.length,
        })
    })()
    .ok_or(HeadError::Edited)?;
    let sealed_len = bytes.len().saturating_sub(MAC.len() + 64 + END.len());
    let (sealed, rest) = bytes.split_at_checked(sealed_len).ok_or(HeadError::Edited)?;
    let mut mac = [0; 32];
    let digits = rest
        .strip_prefix(MAC)
        .and_then(|rest| rest.strip_suffix(END))
        .ok_or(HeadError::Edited)?;
    hex::decode_to_slice(digits, &mut mac).map_err(|_| HeadError::Edited)?;
    if digits.iter().any(u8::is_ascii_uppercase) || !key.is_head_mac(sealed, &mac) {
        return Err(HeadError::Edited);
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_head_and_rejects_every_changed_bit_and_every_shorter_one() {
        let key = AuditKey::new(&[3; 32]);
        let head = Head {
            before: Anchor::GENESIS,
            last: Anchor {
                seq: 42,
                hash: [9; 32],
            },
            length: 12_345,
        };
        let bytes = encode(&head, &key);
        assert_eq!(decode(&bytes, &key).unwrap(), head);
        for at in 0..bytes.len() {
            assert!(decode(&bytes[..at], &key).is_err());
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(decode(&changed, &key).is_err(), "byte {at} bit {bit}");
            }
        }
        assert!(matches!(
            decode(&bytes, &AuditKey::new(&[4; 32])),
            Err(HeadError::OtherKey)
        ));
    }
}
