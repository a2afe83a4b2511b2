//! The `env` provider: a 32-byte master key as 64 hexadecimal characters in an environment variable. The value is
//! handed in: assembly reads the environment.

use super::keyfile::master_from_hex;
use super::native_wrap::NativeWrap;
use crate::crypto::MATERIAL;
use crate::keys::{BoxFuture, KeyProvider, MasterKey, ProviderError, ProviderErrorKind};
use crate::name::KeyId;
use crate::secret::Secret;

/// A master key that came in an environment variable.
pub struct EnvKey(NativeWrap);

impl EnvKey {
    /// Takes the variable's value; `variable` is its name, for the error's text.
    ///
    /// # Errors
    /// Where it is not 64 hexadecimal characters.
    pub fn new(variable: &str, value: &str) -> Result<Self, ProviderError> {
        let key = master_from_hex(value.as_bytes()).ok_or_else(|| {
            ProviderError::new(
                ProviderErrorKind::Misconfigured,
                format!("environment variable {variable} must hold 64 hexadecimal characters (32 bytes)"),
            )
        })?;
        Ok(Self(NativeWrap::new(&key)?))
    }
}

impl KeyProvider for EnvKey {
    fn describe(&self) -> MasterKey {
        NativeWrap::master_key()
    }

    fn wrap<'a>(
        &'a self,
        id: &'a KeyId,
        material: &'a Secret<[u8; MATERIAL]>,
    ) -> BoxFuture<'a, Result<Vec<u8>, ProviderError>> {
        Box::pin(async move { self.0.wrap(id, material) })
    }

    fn unwrap<'a>(
        &'a self,
        id: &'a KeyId,
        master: &'a MasterKey,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<Secret<[u8; MATERIAL]>, ProviderError>> {
        Box::pin(async move { self.0.unwrap(id, master, wrapped) })
    }

    fn health(&self) -> BoxFuture<'_, Result<(), ProviderError>> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_what_is_no_key_without_repeating_it() {
        EnvKey::new("FIELDVEIL_MASTER_KEY", &"ab".repeat(32)).unwrap();
        for value in ["", "abc", &"zz".repeat(32), &"ab".repeat(33)] {
            let refused = EnvKey::new("FIELDVEIL_MASTER_KEY", value).err().unwrap();
            assert!(refused.text.contains("FIELDVEIL_MASTER_KEY"));
            assert!(value.is_empty() || !refused.text.contains(value));
        }
    }
}
