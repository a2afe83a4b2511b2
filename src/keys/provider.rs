//! What a master-key provider must do: four verbs, and errors that say whether trying again can help.

use std::fmt;
use std::pin::Pin;

use crate::crypto::MATERIAL;
use crate::name::KeyId;
use crate::secret::Secret;

/// A boxed future, so that this layer names no runtime.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The `masterKey` document of a data key: which master key wrapped it, in MongoDB's key-vault schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterKey {
    /// `local`, `aws`, …, optionally with a name: `local:fieldveil`.
    pub provider: String,
    /// The provider's locator fields (`region`, `key`, …), in order; all of them strings.
    pub fields: Vec<(String, String)>,
}

/// Wraps and unwraps data keys under a master key that never leaves it.
///
/// Law: `unwrap(id, wrap(id, key)) == key` for every key, for as long as the master key is the same.
pub trait KeyProvider: Send + Sync {
    /// What to write into the `masterKey` of keys that it wraps.
    fn describe(&self) -> MasterKey;

    /// Wraps the material of the data key `id`.
    fn wrap<'a>(
        &'a self,
        id: &'a KeyId,
        material: &'a Secret<[u8; MATERIAL]>,
    ) -> BoxFuture<'a, Result<Vec<u8>, ProviderError>>;

    /// Unwraps the material of the data key `id`, which was wrapped under `master`.
    fn unwrap<'a>(
        &'a self,
        id: &'a KeyId,
        master: &'a MasterKey,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<Secret<[u8; MATERIAL]>, ProviderError>>;

    /// Whether the master key can be used right now.
    fn health(&self) -> BoxFuture<'_, Result<(), ProviderError>>;
}

/// Why a provider did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderErrorKind {
    /// It cannot be reached, or is overloaded: trying again may help.
    Unavailable,
    /// It refuses our credentials.
    Denied,
    /// It holds another master key than the one that wrapped this data key.
    WrongMasterKey,
    /// The wrapped bytes are damaged or of a form that it does not know.
    Corrupt,
    /// Its configuration cannot work (file mode, length, encoding).
    Misconfigured,
    /// The cryptographic library failed.
    Internal,
}

impl ProviderErrorKind {
    /// Whether the same request may succeed later without anybody acting.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable)
    }
}

/// A provider's failure; the text names what to do and holds no key material.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderError {
    /// What kind of failure.
    pub kind: ProviderErrorKind,
    /// What happened and what to do.
    pub text: String,
}

impl ProviderError {
    /// Builds an error; `text` must not contain key material.
    pub fn new(kind: ProviderErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ProviderError {}
