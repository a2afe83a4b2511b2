//! How a 32-byte master key of our own (from a file or an environment variable) wraps a data key. Owns the format;
//! where the master key comes from is its callers' business.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroize;

use crate::crypto::{MATERIAL, kdf, nonce};
use crate::keys::{MasterKey, ProviderError, ProviderErrorKind};
use crate::name::KeyId;
use crate::secret::Secret;

/// Bytes of a wrapped data key.
pub const WRAPPED: usize = 1 + CHECK + NONCE + MATERIAL + TAG;

const VERSION: u8 = 1;
const CHECK: usize = 16;
const NONCE: usize = 12;
const TAG: usize = 16;
const LABEL: &[u8] = b"fieldveil/wrap/v1";

/// What the `masterKey` of such a key says: a named provider without fields is a form that every driver's
/// `ClientEncryption` can list, though only fieldveil can unwrap it.
pub(super) const PROVIDER: &str = "local:fieldveil";

/// A master key, expanded. `keyMaterial` is
///
/// ```text
/// wrapped = version check nonce sealed
/// version = %x01
/// check   = 16OCTET        ; HKDF-SHA-512(master key, "fieldveil/wrap/v1/check"): tells a wrong master key from damage
/// nonce   = 12OCTET        ; random
/// sealed  = 96OCTET tag    ; AES-256-GCM under HKDF-SHA-512(master key, "fieldveil/wrap/v1/key")
/// tag     = 16OCTET
/// ```
///
/// with the data key's UUID followed by `fieldveil/wrap/v1` as associated data, so that the wrapped key of one document
/// does not open in another.
pub(super) struct NativeWrap {
    key: LessSafeKey,
    check: [u8; CHECK],
}

impl NativeWrap {
    pub(super) fn new(master: &Secret<[u8; 32]>) -> Result<Self, ProviderError> {
        let derive = |purpose: &[u8]| [LABEL, b"/", purpose].concat();
        let key = kdf::derive::<32>(master.expose(), &[&derive(b"key")]).map_err(|_| internal())?;
        let check = kdf::derive::<CHECK>(master.expose(), &[&derive(b"check")]).map_err(|_| internal())?;
        let key = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| internal())?;
        Ok(Self {
            key: LessSafeKey::new(key),
            check: *check.expose(),
        })
    }

    pub(super) fn master_key() -> MasterKey {
        MasterKey {
            provider: PROVIDER.to_owned(),
            fields: Vec::new(),
        }
    }

    pub(super) fn wrap(
        &self,
        id: &KeyId,
        material: &Secret<[u8; MATERIAL]>,
    ) -> Result<Vec<u8>, ProviderError> {
        let nonce: [u8; NONCE] = nonce::next().map_err(|_| internal())?;
        let mut out = Vec::with_capacity(WRAPPED);
        out.push(VERSION);
        out.extend_from_slice(&self.check);
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.extend_from_slice(material.expose());
        let nonce = Nonce::assume_unique_for_key(nonce);
        match self
            .key
            .seal_in_place_separate_tag(nonce, aad(id), &mut out[start..])
        {
            Ok(tag) => {
                out.extend_from_slice(tag.as_ref());
                Ok(out)
            }
            Err(_) => {
                out.zeroize();
                Err(internal())
            }
        }
    }

    pub(super) fn unwrap(
        &self,
        id: &KeyId,
        master: &MasterKey,
        wrapped: &[u8],
    ) -> Result<Secret<[u8; MATERIAL]>, ProviderError> {
        if *master != Self::master_key() {
            return Err(ProviderError::new(
                ProviderErrorKind::WrongMasterKey,
                format!(
                    "wrong master key: data key {id} was wrapped by provider `{}`, not by a master key of fieldveil's own; \
                     configure that provider under [keys] master",
                    master.provider
                ),
            ));
        }
        let Some((&version, rest)) = wrapped.split_first() else {
            return Err(corrupt(id));
        };
        if version != VERSION {
            return Err(ProviderError::new(
                ProviderErrorKind::Corrupt,
                format!("data key {id} is wrapped in version {version}, which this release does not know"),
            ));
        }
        if wrapped.len() != WRAPPED {
            return Err(corrupt(id));
        }
        let (check, rest) = rest.split_first_chunk::<CHECK>().ok_or_else(|| corrupt(id))?;
        if *check != self.check {
            return Err(ProviderError::new(
                ProviderErrorKind::WrongMasterKey,
                format!(
                    "wrong master key: data key {id} was wrapped by another one; restore that master key"
                ),
            ));
        }
        let (nonce, rest) = rest.split_first_chunk::<NONCE>().ok_or_else(|| corrupt(id))?;
        let (sealed, tag) = rest.split_last_chunk::<TAG>().ok_or_else(|| corrupt(id))?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        Secret::fill(|out| self.key.open_separate_gather(nonce, aad(id), sealed, tag, out))
            .map_err(|_| corrupt(id))
    }
}

fn aad(id: &KeyId) -> Aad<[u8; 16 + LABEL.len()]> {
    let mut bytes = [0; 16 + LABEL.len()];
    bytes[..16].copy_from_slice(&id.0);
    bytes[16..].copy_from_slice(LABEL);
    Aad::from(bytes)
}

fn corrupt(id: &KeyId) -> ProviderError {
    ProviderError::new(
        ProviderErrorKind::Corrupt,
        format!(
            "the wrapped material of data key {id} is damaged: restore its document from a backup of the key vault"
        ),
    )
}

fn internal() -> ProviderError {
    ProviderError::new(ProviderErrorKind::Internal, "the cryptographic library failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: KeyId = KeyId([7; 16]);

    fn wrap(byte: u8) -> NativeWrap {
        NativeWrap::new(&Secret::new([byte; 32])).unwrap()
    }

    fn kind(answer: Result<Secret<[u8; MATERIAL]>, ProviderError>) -> ProviderErrorKind {
        answer.err().unwrap().kind
    }

    #[test]
    fn unwraps_what_it_wrapped() {
        let wrapped = wrap(1).wrap(&ID, &Secret::new([9; MATERIAL])).unwrap();
        assert_eq!(wrapped.len(), WRAPPED);
        assert_eq!(wrapped[0], 1);
        let key = wrap(1).unwrap(&ID, &NativeWrap::master_key(), &wrapped).unwrap();
        assert!(key.ct_eq(&[9; MATERIAL]));
    }

    #[test]
    fn tells_a_wrong_master_key_from_damage() {
        let wrapped = wrap(1).wrap(&ID, &Secret::new([9; MATERIAL])).unwrap();
        let ours = NativeWrap::master_key();
        let refused = wrap(2).unwrap(&ID, &ours, &wrapped).err().unwrap();
        assert_eq!(refused.kind, ProviderErrorKind::WrongMasterKey);
        assert!(refused.text.starts_with("wrong master key: "), "{}", refused.text);

        let foreign = MasterKey {
            provider: "local".into(),
            fields: Vec::new(),
        };
        assert_eq!(
            kind(wrap(1).unwrap(&ID, &foreign, &wrapped)),
            ProviderErrorKind::WrongMasterKey
        );

        for at in 0..wrapped.len() {
            let mut bent = wrapped.clone();
            bent[at] ^= 1;
            let expected = match at {
                1..=16 => ProviderErrorKind::WrongMasterKey,
                _ => ProviderErrorKind::Corrupt,
            };
            assert_eq!(kind(wrap(1).unwrap(&ID, &ours, &bent)), expected, "byte {at}");
        }
        for len in 0..wrapped.len() {
            assert_eq!(
                kind(wrap(1).unwrap(&ID, &ours, &wrapped[..len])),
                ProviderErrorKind::Corrupt
            );
        }
    }

    #[test]
    fn rejects_the_wrapped_key_of_another_document() {
        let wrapped = wrap(1).wrap(&ID, &Secret::new([9; MATERIAL])).unwrap();
        let moved = wrap(1).unwrap(&KeyId([8; 16]), &NativeWrap::master_key(), &wrapped);
        assert_eq!(kind(moved), ProviderErrorKind::Corrupt);
    }
}
