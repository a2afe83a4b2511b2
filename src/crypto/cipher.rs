//! One suite under one data key: everything that does not depend on the value is done once, at expansion. Owns what an
//! envelope is bound to; each construction is in a file of its own.

use std::sync::OnceLock;

use super::aead::Aead;
use super::cbc_hmac::CbcHmac;
use super::siv::{Bound, Siv};
use super::{MATERIAL, OpenError, SealError, Suite, csfle, envelope, kdf};
use crate::name::KeyId;
use crate::secret::Secret;

/// Seals and opens envelopes of one suite under one data key.
pub struct Cipher {
    suite: Suite,
    binding: Binding,
    inner: Inner,
}

enum Inner {
    Siv(Box<(Siv, BoundByKind)>),
    Aead(Aead),
    CbcHmac(Box<CbcHmac>),
    Csfle(Box<csfle::Aead>),
}

/// A BSON type byte is all that differs between the associated data of two values, so what SIV makes of it is kept.
struct BoundByKind([OnceLock<Bound>; 32]);

impl Cipher {
    /// Derives the sub-key and expands it.
    ///
    /// # Errors
    /// [`SealError::NoDomain`] for a native suite without a domain; [`SealError::Library`].
    pub fn expand(
        suite: Suite,
        key: &KeyId,
        domain: &str,
        material: &Secret<[u8; MATERIAL]>,
    ) -> Result<Self, SealError> {
        if domain.is_empty() && !suite.is_csfle() {
            return Err(SealError::NoDomain);
        }
        let material_bytes = material.expose();
        let inner = match suite {
            Suite::Aes256Siv => {
                let siv = Siv::new(&kdf::native(suite, domain, material_bytes)?);
                Inner::Siv(Box::new((siv, BoundByKind([const { OnceLock::new() }; 32]))))
            }
            Suite::Aes256Gcm => Inner::Aead(Aead::gcm(kdf::native(suite, domain, material_bytes)?.expose())?),
            Suite::ChaCha20Poly1305 => Inner::Aead(Aead::chacha(
                kdf::native(suite, domain, material_bytes)?.expose(),
            )?),
            Suite::Aes256CbcHmacSha256 => Inner::CbcHmac(Box::new(CbcHmac::new(&kdf::native(
                suite,
                domain,
                material_bytes,
            )?)?)),
            Suite::CsfleDeterministic | Suite::CsfleRandom => {
                Inner::Csfle(Box::new(csfle::Aead::new(material)?))
            }
        };
        Ok(Self {
            suite,
            binding: Binding::new(suite, key, domain),
            inner,
        })
    }

    /// Appends the envelope of `value`, whose BSON type is `kind`; on error `out` is as it was.
    ///
    /// # Errors
    /// [`SealError::EmptyValue`] (CSFLE suites), [`SealError::Library`].
    pub fn seal(&self, kind: u8, value: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let start = out.len();
        out.reserve(self.suite.sealed_len(value.len()));
        out.extend_from_slice(&self.binding.aad[..self.binding.kind_at]);
        out.push(kind);
        let sealed = match &self.inner {
            Inner::Siv(siv) => {
                siv.0.seal(self.bound(siv, kind), value, out);
                Ok(())
            }
            Inner::Aead(aead) => self.binding.with(kind, |aad| aead.seal(aad, value, out)),
            Inner::CbcHmac(cbc) => self.binding.with(kind, |aad| cbc.seal(aad, value, out)),
            Inner::Csfle(csfle) if self.suite.is_deterministic() => self
                .binding
                .with(kind, |aad| csfle.seal_deterministic(aad, value, out)),
            Inner::Csfle(csfle) => self.binding.with(kind, |aad| csfle.seal_random(aad, value, out)),
        };
        if sealed.is_err() {
            out.truncate(start);
        }
        sealed
    }

    /// Appends the value inside `payload` and returns its BSON type; on error `out` is as it was.
    ///
    /// # Errors
    /// [`OpenError::Broken`] for anything that this cipher did not seal.
    pub fn open(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<u8, OpenError> {
        let at = self.binding.kind_at;
        if payload.len() <= at || payload[..at] != self.binding.aad[..at] {
            return Err(OpenError::Broken("sealed by another key or suite"));
        }
        let (kind, body) = (payload[at], &payload[at + 1..]);
        match &self.inner {
            Inner::Siv(siv) => siv.0.open(self.bound(siv, kind), body, out),
            Inner::Aead(aead) => self.binding.with(kind, |aad| aead.open(aad, body, out)),
            Inner::CbcHmac(cbc) => self.binding.with(kind, |aad| cbc.open(aad, body, out)),
            Inner::Csfle(csfle) => self.binding.with(kind, |aad| csfle.open(aad, body, out)),
        }?;
        Ok(kind)
    }

    fn bound(&self, (siv, kept): &(Siv, BoundByKind), kind: u8) -> Bound {
        let bind = || self.binding.with(kind, |aad| siv.bind(aad));
        match kept.0.get(usize::from(kind)) {
            Some(slot) => *slot.get_or_init(bind),
            None => bind(),
        }
    }
}

/// What an envelope is bound to: its own header, and for native suites the domain. Only the BSON type varies.
struct Binding {
    aad: Box<[u8]>,
    kind_at: usize,
}

impl Binding {
    fn new(suite: Suite, key: &KeyId, domain: &str) -> Self {
        let (head, bound): (&[u8], &str) = match suite.is_csfle() {
            true => (&[suite.id()], ""),
            false => (&[envelope::VERSION, suite.id()], domain),
        };
        let kind_at = head.len() + key.0.len();
        Self {
            aad: [head, &key.0, &[0], bound.as_bytes()].concat().into(),
            kind_at,
        }
    }

    /// Runs with the associated data of `kind`, on the stack unless the domain's name is very long.
    fn with<R>(&self, kind: u8, run: impl FnOnce(&[u8]) -> R) -> R {
        let mut small = [0; 160];
        let mut large;
        let aad = match small.get_mut(..self.aad.len()) {
            Some(room) => {
                room.copy_from_slice(&self.aad);
                room
            }
            None => {
                large = self.aad.to_vec();
                &mut large[..]
            }
        };
        aad[self.kind_at] = kind;
        run(aad)
    }
}

#[cfg(test)]
mod tests;
