//! Keyed digests that stand for a person in the audit: stable, comparable, and not to be guessed without the key.

use aws_lc_rs::hmac;

use crate::secret::Secret;

/// Makes pseudonyms under one key, expanded once.
pub struct Pseudonymizer {
    key: hmac::Key,
}

impl Pseudonymizer {
    /// Expands the key.
    pub fn new(key: &Secret<[u8; 32]>) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key.expose()),
        }
    }

    /// 32 hexadecimal characters: the first 16 bytes of HMAC-SHA-256 over `value`. A plain digest would not do: there
    /// are only some 10⁹ NHS numbers, so without a key each digest could be looked up.
    pub fn of(&self, value: &[u8]) -> String {
        hex::encode(self.digest(value))
    }

    /// The same as 16 bytes.
    pub fn digest(&self, value: &[u8]) -> [u8; 16] {
        let mut digest = [0; 16];
        digest.copy_from_slice(&hmac::sign(&self.key, value).as_ref()[..16]);
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_published_hmac_value() {
        // RFC 4231 test case 1 has a 20-byte key; HMAC pads keys with zeros, so 32 bytes that end in zeros are the same.
        let mut key = [0u8; 32];
        key[..20].fill(0x0b);
        let maker = Pseudonymizer::new(&Secret::new(key));
        assert_eq!(maker.of(b"Hi There"), "b0344c61d8db38535ca8afceaf0bf12b");
    }

    #[test]
    fn differs_by_key_and_by_value() {
        let one = Pseudonymizer::new(&Secret::new([1; 32]));
        let two = Pseudonymizer::new(&Secret::new([2; 32]));
        assert_ne!(one.of(b"9434765919"), two.of(b"9434765919"));
        assert_ne!(one.of(b"9434765919"), one.of(b"4505577104"));
    }
}
