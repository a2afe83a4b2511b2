//! One data key: an opaque handle. Owns the expanded ciphers and the budget of random nonces.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::crypto::{Cipher, Header, MATERIAL, OpenError, SealError, Suite, header, kdf};
use crate::name::KeyId;
use crate::secret::Secret;

/// Values that one key may seal under random 96-bit nonces (NIST SP 800-38D §8.3).
pub const NONCE_BUDGET: u64 = 1 << 32;

/// A data key. The key is never accessible outside this type: it only seals and opens.
///
/// Ciphers are expanded on first use, once per suite, and kept. Safe to share between threads without a lock.
///
/// Each of its AES-256-GCM and ChaCha20-Poly1305 sub-keys refuses to seal more than [`NONCE_BUDGET`] values, or more
/// than it has been granted where it is [on lease](Dek::on_lease): what all processes on one vault have leased together is counted in the vault.
pub struct Dek {
    id: KeyId,
    domain: Arc<str>,
    version: u32,
    material: Secret<[u8; MATERIAL]>,
    ciphers: [OnceLock<Result<Cipher, SealError>>; Suite::ALL.len()],
    sealed: [AtomicU64; Suite::ALL.len()],
    granted: [AtomicU64; Suite::ALL.len()],
}

impl Dek {
    /// Takes over the key material of version `version` of `domain`. A key that belongs to no domain (a CSFLE driver
    /// made it) has the empty domain: only the CSFLE suites work with it.
    pub fn new(id: KeyId, domain: &str, version: u32, material: Secret<[u8; MATERIAL]>) -> Self {
        Self {
            id,
            domain: domain.into(),
            version,
            material,
            ciphers: [const { OnceLock::new() }; Suite::ALL.len()],
            sealed: [const { AtomicU64::new(0) }; Suite::ALL.len()],
            granted: [const { AtomicU64::new(NONCE_BUDGET) }; Suite::ALL.len()],
        }
    }

    /// The same key with nothing granted yet: it seals under random nonces as far as [`Dek::grant`] lets it.
    #[must_use]
    pub fn on_lease(mut self) -> Self {
        self.granted = [const { AtomicU64::new(0) }; Suite::ALL.len()];
        self
    }

    /// Lets it seal so many more values under the suite's random nonces.
    pub fn grant(&self, suite: Suite, count: u64) {
        self.granted[suite.index()].fetch_add(count, Ordering::Relaxed);
    }

    /// How many values it has sealed under the suite's random nonces.
    pub fn sealed(&self, suite: Suite) -> u64 {
        self.sealed[suite.index()].load(Ordering::Relaxed)
    }

    /// How many more it may seal.
    pub fn left(&self, suite: Suite) -> u64 {
        let granted = self.granted[suite.index()].load(Ordering::Relaxed);
        granted.saturating_sub(self.sealed(suite))
    }

    /// The key's `_id` in the key vault.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The domain it belongs to; empty for none.
    pub fn domain(&self) -> &Arc<str> {
        &self.domain
    }

    /// Its place among the versions of its domain; the highest enabled one writes.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Appends the envelope of `value` to `out`: the payload of a BSON binary of subtype [`Suite::subtype`], without
    /// length and subtype byte. `kind` is the value's BSON type, `value` its value bytes. On error `out` is as it was.
    ///
    /// # Errors
    /// [`SealError`]: budget spent, no domain, a value without bytes (CSFLE), or a failing library.
    pub fn seal(&self, suite: Suite, kind: u8, value: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let cipher = self.cipher(suite)?;
        if suite.has_nonce_budget() {
            self.spend(suite)?;
        }
        cipher.seal(kind, value, out)
    }

    /// Appends the value bytes inside an envelope and returns their BSON type; on error `out` is as it was.
    ///
    /// # Errors
    /// [`OpenError::NotEnvelope`] for somebody else's data; [`OpenError::Broken`] for an envelope that this key did
    /// not seal, or that was changed since.
    pub fn open(&self, subtype: u8, payload: &[u8], out: &mut Vec<u8>) -> Result<u8, OpenError> {
        let (key, suite) = match header(subtype, payload) {
            Header::Envelope { key, suite, .. } => (key, suite),
            Header::NotEnvelope => return Err(OpenError::NotEnvelope),
            Header::Broken(why) => return Err(OpenError::Broken(why)),
        };
        if key != self.id {
            return Err(OpenError::Broken("sealed by another key"));
        }
        let cipher = self.cipher(suite).map_err(|refused| match refused {
            SealError::NoDomain => {
                OpenError::Broken("a native envelope under a key that belongs to no domain")
            }
            _ => OpenError::Broken("the cryptographic library failed to expand its key"),
        })?;
        cipher.open(payload, out)
    }

    /// A key for another purpose, derived from this one: it says nothing about the data key or about other purposes.
    ///
    /// # Errors
    /// [`SealError`] where the cryptographic library fails.
    pub fn subkey(&self, purpose: &str) -> Result<Secret<[u8; 32]>, SealError> {
        kdf::derive(
            self.material.expose(),
            &[b"fieldveil/v1/", purpose.as_bytes(), b"/", self.domain.as_bytes()],
        )
    }

    fn cipher(&self, suite: Suite) -> Result<&Cipher, SealError> {
        self.ciphers[suite.index()]
            .get_or_init(|| Cipher::expand(suite, &self.id, &self.domain, &self.material))
            .as_ref()
            .map_err(|&refused| refused)
    }

    fn spend(&self, suite: Suite) -> Result<(), SealError> {
        let sealed = &self.sealed[suite.index()];
        let granted = self.granted[suite.index()].load(Ordering::Relaxed);
        if sealed.fetch_add(1, Ordering::Relaxed) < granted {
            return Ok(());
        }
        // Taken back, so that no number of refusals uses up what is granted next.
        sealed.fetch_sub(1, Ordering::Relaxed);
        Err(if granted < NONCE_BUDGET {
            SealError::LeaseSpent
        } else {
            SealError::BudgetSpent
        })
    }
}

impl fmt::Debug for Dek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dek")
            .field("id", &self.id)
            .field("domain", &self.domain)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dek(domain: &str) -> Dek {
        Dek::new(KeyId([3; 16]), domain, 1, Secret::new([4; MATERIAL]))
    }

    #[test]
    fn opens_what_it_sealed_under_every_suite() {
        let dek = dek("nhs_number");
        for suite in Suite::ALL {
            let (mut sealed, mut opened) = (Vec::new(), Vec::new());
            dek.seal(suite, 2, b"value", &mut sealed).unwrap();
            assert_eq!(dek.open(suite.subtype(), &sealed, &mut opened), Ok(2));
            assert_eq!(opened, b"value");
        }
    }

    #[test]
    fn tells_not_ours_from_broken() {
        let dek = dek("nhs_number");
        let mut sealed = Vec::new();
        dek.seal(Suite::Aes256Gcm, 2, b"value", &mut sealed).unwrap();
        let mut out = Vec::new();
        assert_eq!(dek.open(0, &sealed, &mut out), Err(OpenError::NotEnvelope));
        sealed[2] ^= 1;
        assert_eq!(
            dek.open(0x80, &sealed, &mut out),
            Err(OpenError::Broken("sealed by another key"))
        );
        assert!(matches!(
            dek.open(0x80, b"\x01", &mut out),
            Err(OpenError::Broken(_))
        ));
        assert!(matches!(
            dek.open(6, b"\x01", &mut out),
            Err(OpenError::Broken(_))
        ));
        assert!(out.is_empty());
    }

    #[test]
    fn a_key_without_a_domain_knows_only_csfle() {
        let (dek, mut out) = (dek(""), Vec::new());
        assert_eq!(
            dek.seal(Suite::Aes256Siv, 2, b"v", &mut out),
            Err(SealError::NoDomain)
        );
        assert!(out.is_empty());
        dek.seal(Suite::CsfleRandom, 2, b"v", &mut out).unwrap();
        assert_eq!(dek.open(6, &out, &mut Vec::new()), Ok(2));

        let mut native = vec![1, 2];
        native.extend_from_slice(&[3; 16]);
        native.extend_from_slice(&[0; 40]);
        assert!(matches!(
            dek.open(0x80, &native, &mut out),
            Err(OpenError::Broken(_))
        ));
    }

    #[test]
    fn refuses_to_seal_past_its_nonce_budget() {
        let (dek, mut out) = (dek("d"), Vec::new());
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            dek.sealed[suite.index()].store(NONCE_BUDGET - 1, Ordering::Relaxed);
            dek.seal(suite, 2, b"last", &mut out).unwrap();
            let len = out.len();
            for _ in 0..3 {
                assert_eq!(
                    dek.seal(suite, 2, b"one more", &mut out),
                    Err(SealError::BudgetSpent)
                );
            }
            assert_eq!(out.len(), len);
            assert_eq!(
                dek.open(suite.subtype(), &out, &mut Vec::new()),
                Ok(2),
                "reading goes on"
            );
            out.clear();
        }
        dek.seal(Suite::Aes256Siv, 2, b"other suites go on", &mut out)
            .unwrap();
    }

    #[test]
    fn seals_on_lease_as_far_as_it_is_granted() {
        let (dek, mut out) = (dek("d").on_lease(), Vec::new());
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            for _ in 0..3 {
                assert_eq!(dek.seal(suite, 2, b"v", &mut out), Err(SealError::LeaseSpent));
            }
            dek.grant(suite, 2);
            assert_eq!(dek.left(suite), 2);
            dek.seal(suite, 2, b"v", &mut out).unwrap();
            dek.seal(suite, 2, b"v", &mut out).unwrap();
            assert_eq!(dek.seal(suite, 2, b"v", &mut out), Err(SealError::LeaseSpent));
            assert_eq!((dek.sealed(suite), dek.left(suite)), (2, 0));
        }
        dek.seal(Suite::Aes256Siv, 2, b"no nonce, no lease", &mut out)
            .unwrap();
    }

    #[test]
    fn shows_no_key_material() {
        let shown = format!("{:?}", dek("d"));
        assert!(!shown.contains("4, 4") && !shown.contains("0404"), "{shown}");
    }
}
