//! Why a key could not be had, in words for whoever has to act on it. No text holds key material.

use std::fmt;

use crate::error::{Error, Fault};
use crate::keys::{ProviderError, ProviderErrorKind, StoreError, StoreErrorKind};
use crate::name::KeyId;

/// What a missing or unusable key is due to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyErrorKind {
    /// The vault holds no key of this id.
    MissingKey,
    /// The key, or every key of the domain, is disabled in the vault.
    Disabled,
    /// The configured master key is not the one that wrapped it.
    WrongMasterKey,
    /// The vault does not answer.
    VaultUnreachable,
    /// The vault refuses us, or holds what is no key.
    Vault,
    /// The master-key provider does not answer.
    ProviderUnreachable,
    /// The master-key provider refuses us or failed.
    Provider,
    /// The key has sealed as many values under random nonces as is safe.
    Spent,
}

impl KeyErrorKind {
    /// Its name in the audit, from this closed list.
    pub const fn label(self) -> &'static str {
        match self {
            Self::MissingKey => "missing",
            Self::Disabled => "disabled",
            Self::WrongMasterKey => "wrong-master-key",
            Self::VaultUnreachable => "vault-unreachable",
            Self::Vault => "vault",
            Self::ProviderUnreachable => "provider-unreachable",
            Self::Provider => "provider",
            Self::Spent => "spent",
        }
    }
}

/// A key that could not be had; the text names it and what to do, and holds no key material.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError {
    /// What it is due to.
    pub kind: KeyErrorKind,
    /// What happened and what to do.
    pub text: String,
}

impl KeyError {
    pub(super) fn new(kind: KeyErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }

    /// Whether the same request may succeed later without anybody acting.
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            KeyErrorKind::VaultUnreachable | KeyErrorKind::ProviderUnreachable
        )
    }
}

pub(super) fn missing(id: &KeyId) -> KeyError {
    let text =
        format!("data key {id} is not in the key vault: restore it from a backup, or the value is lost");
    KeyError::new(KeyErrorKind::MissingKey, text)
}

pub(super) fn disabled_key(id: &KeyId) -> KeyError {
    KeyError::new(
        KeyErrorKind::Disabled,
        format!("data key {id} is disabled in the key vault (status 1)"),
    )
}

pub(super) fn disabled_domain(domain: &str) -> KeyError {
    let text = format!(
        "every data key of domain `{domain}` is disabled in the key vault: enable one, or add a version"
    );
    KeyError::new(KeyErrorKind::Disabled, text)
}

pub(super) fn lost_race(domain: &str) -> KeyError {
    let text = format!(
        "another proxy is creating the data key of domain `{domain}`, but a majority does not hold it yet"
    );
    KeyError::new(KeyErrorKind::VaultUnreachable, text)
}

impl From<StoreError> for KeyError {
    fn from(error: StoreError) -> Self {
        let kind = match error.kind {
            StoreErrorKind::Unavailable => KeyErrorKind::VaultUnreachable,
            StoreErrorKind::Denied | StoreErrorKind::Malformed | StoreErrorKind::Other => KeyErrorKind::Vault,
        };
        Self::new(kind, error.text)
    }
}

impl From<ProviderError> for KeyError {
    fn from(error: ProviderError) -> Self {
        let kind = match error.kind {
            ProviderErrorKind::Unavailable => KeyErrorKind::ProviderUnreachable,
            ProviderErrorKind::WrongMasterKey => KeyErrorKind::WrongMasterKey,
            ProviderErrorKind::Denied
            | ProviderErrorKind::Corrupt
            | ProviderErrorKind::Misconfigured
            | ProviderErrorKind::Internal => KeyErrorKind::Provider,
        };
        Self::new(kind, error.text)
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        Self::new(Fault::KeyProvider, error.text)
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for KeyError {}
