//! The closed two-way table of cipher suites. An id that was ever written stays here for ever, with its meaning.

/// BSON binary subtype of native envelopes (user-defined range).
pub const NATIVE_SUBTYPE: u8 = 0x80;
/// BSON binary subtype of MongoDB's client-side field level encryption.
pub const CSFLE_SUBTYPE: u8 = 0x06;

/// How one value is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Suite {
    /// RFC 5297, 256-bit AES, no nonce: equal values give equal ciphertexts.
    Aes256Siv,
    /// NIST SP 800-38D with a random 96-bit nonce.
    Aes256Gcm,
    /// RFC 8439 with a random 96-bit nonce.
    ChaCha20Poly1305,
    /// AES-256-CBC with a random IV, then HMAC-SHA-256 over all of it.
    Aes256CbcHmacSha256,
    /// MongoDB's `AEAD_AES_256_CBC_HMAC_SHA_512-Deterministic`.
    CsfleDeterministic,
    /// MongoDB's `AEAD_AES_256_CBC_HMAC_SHA_512-Random`.
    CsfleRandom,
}

/// Suite, BSON subtype, id byte, name: the only place where they meet.
const TABLE: [(Suite, u8, u8, &str); 6] = [
    (Suite::Aes256Siv, NATIVE_SUBTYPE, 1, "aes-256-siv"),
    (Suite::Aes256Gcm, NATIVE_SUBTYPE, 2, "aes-256-gcm"),
    (Suite::ChaCha20Poly1305, NATIVE_SUBTYPE, 3, "chacha20-poly1305"),
    (
        Suite::Aes256CbcHmacSha256,
        NATIVE_SUBTYPE,
        4,
        "aes-256-cbc-hmac-sha-256",
    ),
    (
        Suite::CsfleDeterministic,
        CSFLE_SUBTYPE,
        1,
        "aead-aes-256-cbc-hmac-sha-512-deterministic",
    ),
    (
        Suite::CsfleRandom,
        CSFLE_SUBTYPE,
        2,
        "aead-aes-256-cbc-hmac-sha-512-random",
    ),
];

impl Suite {
    /// Every suite, in the order of [`Suite::index`].
    pub const ALL: [Self; 6] = [
        Self::Aes256Siv,
        Self::Aes256Gcm,
        Self::ChaCha20Poly1305,
        Self::Aes256CbcHmacSha256,
        Self::CsfleDeterministic,
        Self::CsfleRandom,
    ];

    /// The suite that wrote `id` into a binary of `subtype`; `None` for an id that was never given out.
    pub fn from_id(subtype: u8, id: u8) -> Option<Self> {
        TABLE
            .iter()
            .find(|row| row.1 == subtype && row.2 == id)
            .map(|row| row.0)
    }

    /// The suite that a configuration calls `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.3 == name).map(|row| row.0)
    }

    /// Position in [`Suite::ALL`]; never stored.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The byte stored in the envelope: algorithm (native) or blob subtype (CSFLE).
    pub const fn id(self) -> u8 {
        TABLE[self.index()].2
    }

    /// The BSON binary subtype that its envelopes carry.
    pub const fn subtype(self) -> u8 {
        TABLE[self.index()].1
    }

    /// The name used in configuration, key derivation and reports.
    pub const fn name(self) -> &'static str {
        TABLE[self.index()].3
    }

    /// Whether equal values under one key give equal envelopes, so that equality can be asked for.
    pub const fn is_deterministic(self) -> bool {
        matches!(self, Self::Aes256Siv | Self::CsfleDeterministic)
    }

    /// Whether it is one of MongoDB's own CSFLE algorithms.
    pub const fn is_csfle(self) -> bool {
        self.subtype() == CSFLE_SUBTYPE
    }

    /// Whether it draws a random 96-bit nonce per value, which bounds how many values one key may seal.
    pub const fn has_nonce_budget(self) -> bool {
        matches!(self, Self::Aes256Gcm | Self::ChaCha20Poly1305)
    }

    /// Bytes of the envelope that holds a value of `value` bytes.
    pub const fn sealed_len(self, value: usize) -> usize {
        let padded = (value / 16 + 1) * 16;
        match self {
            Self::Aes256Siv => 19 + 16 + value,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 19 + 12 + value + 16,
            Self::Aes256CbcHmacSha256 => 19 + 16 + padded + 32,
            Self::CsfleDeterministic | Self::CsfleRandom => 18 + 16 + padded + 32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_closed_and_two_way() {
        for (at, suite) in Suite::ALL.into_iter().enumerate() {
            assert_eq!(TABLE[at].0, suite, "row {at} stands in its enum's place");
            assert_eq!(suite.index(), at);
            assert_eq!(Suite::from_id(suite.subtype(), suite.id()), Some(suite));
            assert_eq!(Suite::from_name(suite.name()), Some(suite));
        }
        assert_eq!(TABLE.len(), Suite::ALL.len());
    }

    #[test]
    fn rejects_ids_that_were_never_given_out() {
        let known = (0..=255u8)
            .flat_map(|subtype| (0..=255u8).map(move |id| (subtype, id)))
            .filter(|&(subtype, id)| Suite::from_id(subtype, id).is_some())
            .count();
        assert_eq!(known, Suite::ALL.len());
        assert_eq!(Suite::from_name("aes-128-gcm"), None);
    }

    #[test]
    fn keeps_the_ids_that_are_stored_for_ever() {
        let stored: Vec<_> = Suite::ALL
            .iter()
            .map(|s| (s.subtype(), s.id(), s.name()))
            .collect();
        assert_eq!(
            stored,
            [
                (0x80, 1, "aes-256-siv"),
                (0x80, 2, "aes-256-gcm"),
                (0x80, 3, "chacha20-poly1305"),
                (0x80, 4, "aes-256-cbc-hmac-sha-256"),
                (6, 1, "aead-aes-256-cbc-hmac-sha-512-deterministic"),
                (6, 2, "aead-aes-256-cbc-hmac-sha-512-random"),
            ]
        );
    }
}
