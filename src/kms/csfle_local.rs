//! The `csfle-local` provider: a 96-byte master key that wraps data keys the way the `local` provider of every MongoDB
//! driver does, so that their `ClientEncryption` can unwrap them with the same key.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::keyfile;
use crate::crypto::{MATERIAL, csfle};
use crate::keys::{BoxFuture, KeyProvider, MasterKey, ProviderError, ProviderErrorKind};
use crate::name::KeyId;
use crate::secret::Secret;

/// A driver's `local` master key.
pub struct CsfleLocal(csfle::Aead);

impl CsfleLocal {
    /// Reads the key from a file: 96 raw bytes, or their base64.
    ///
    /// # Errors
    /// Where the file is absent, is not of mode 0600 or stricter, belongs to another user, or holds neither form.
    pub fn open(path: &Path) -> Result<Self, ProviderError> {
        let mut bytes = keyfile::read(path)?;
        if bytes.len() != MATERIAL {
            let mut decoded = Zeroizing::new(vec![0; 1024]);
            let len = STANDARD
                .decode_slice(bytes.trim_ascii(), &mut decoded[..])
                .unwrap_or(0);
            decoded.truncate(len);
            bytes = decoded;
        }
        let key = Secret::take(&mut bytes)
            .ok_or_else(|| keyfile::misconfigured(path, "must hold 96 bytes, raw or in base64"))?;
        Self::new(&key)
    }

    /// Takes the key itself.
    ///
    /// # Errors
    /// Where the cryptographic library fails.
    pub fn new(key: &Secret<[u8; MATERIAL]>) -> Result<Self, ProviderError> {
        csfle::Aead::new(key).map(Self).map_err(|_| internal())
    }
}

impl KeyProvider for CsfleLocal {
    fn describe(&self) -> MasterKey {
        MasterKey {
            provider: "local".to_owned(),
            fields: Vec::new(),
        }
    }

    fn wrap<'a>(
        &'a self,
        _id: &'a KeyId,
        material: &'a Secret<[u8; MATERIAL]>,
    ) -> BoxFuture<'a, Result<Vec<u8>, ProviderError>> {
        Box::pin(async move { self.0.wrap(material).map_err(|_| internal()) })
    }

    fn unwrap<'a>(
        &'a self,
        id: &'a KeyId,
        master: &'a MasterKey,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<Secret<[u8; MATERIAL]>, ProviderError>> {
        Box::pin(async move {
            if *master != self.describe() {
                let text = format!(
                    "wrong master key: data key {id} was wrapped by provider `{}`, not by a `local` master key; configure \
                     that provider under [keys] master",
                    master.provider
                );
                return Err(ProviderError::new(ProviderErrorKind::WrongMasterKey, text));
            }
            if wrapped.len() != csfle::WRAPPED {
                let text = format!(
                    "the wrapped material of data key {id} has not the 160 bytes of the local format"
                );
                return Err(ProviderError::new(ProviderErrorKind::Corrupt, text));
            }
            // The format holds nothing that tells a wrong key from damage; a wrong key is what happens.
            self.0.unwrap(wrapped).map_err(|_| {
                ProviderError::new(
                    ProviderErrorKind::WrongMasterKey,
                    format!(
                        "wrong master key: data key {id} does not unwrap with it (or its document is damaged)"
                    ),
                )
            })
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<(), ProviderError>> {
        Box::pin(async { Ok(()) })
    }
}

fn internal() -> ProviderError {
    ProviderError::new(ProviderErrorKind::Internal, "the cryptographic library failed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;

    fn file(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = folder.join(name);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        path
    }

    #[tokio::test]
    async fn reads_both_forms_of_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let key: [u8; 96] = std::array::from_fn(|n| n as u8);
        let raw = CsfleLocal::open(&file(folder.path(), "raw", &key)).unwrap();
        let text = format!("{}\n", STANDARD.encode(key));
        let coded = CsfleLocal::open(&file(folder.path(), "base64", text.as_bytes())).unwrap();
        let id = KeyId([1; 16]);
        let wrapped = raw.wrap(&id, &Secret::new([5; 96])).await.unwrap();
        assert_eq!(wrapped.len(), 160);
        let key = coded.unwrap(&id, &raw.describe(), &wrapped).await.unwrap();
        assert!(key.ct_eq(&[5; 96]));
        for (name, bytes) in [
            ("short", &key.expose()[..95]),
            ("text", b"not base64!"),
            ("empty", b""),
        ] {
            assert!(
                CsfleLocal::open(&file(folder.path(), name, bytes)).is_err(),
                "{name}"
            );
        }
    }

    #[tokio::test]
    async fn reports_a_wrong_master_key_as_such() {
        let id = KeyId([1; 16]);
        let one = CsfleLocal::new(&Secret::new([1; 96])).unwrap();
        let two = CsfleLocal::new(&Secret::new([2; 96])).unwrap();
        let wrapped = one.wrap(&id, &Secret::new([5; 96])).await.unwrap();
        let refused = two.unwrap(&id, &two.describe(), &wrapped).await.err().unwrap();
        assert_eq!(refused.kind, ProviderErrorKind::WrongMasterKey);
        assert!(refused.text.starts_with("wrong master key: "));
        let aws = MasterKey {
            provider: "aws".into(),
            fields: Vec::new(),
        };
        let refused = one.unwrap(&id, &aws, &wrapped).await.err().unwrap();
        assert_eq!(refused.kind, ProviderErrorKind::WrongMasterKey);
    }
}
