//! What a store of wrapped data keys must do, and the names that tie a key to a domain.

use std::fmt;

use super::{BoxFuture, MasterKey};
use crate::name::KeyId;

/// One document of the key vault, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// `_id`.
    pub id: KeyId,
    /// `keyAltNames`; none is the same as an absent field.
    pub alt_names: Vec<String>,
    /// `keyMaterial`: the wrapped key.
    pub wrapped: Vec<u8>,
    /// `masterKey`.
    pub master: MasterKey,
    /// `status`: a disabled key neither writes nor reads.
    pub enabled: bool,
}

impl KeyRecord {
    /// The domain and version that its alt names give it; a key that no alt name ties to a domain has none.
    pub fn alt_name(&self) -> Option<AltName<'_>> {
        self.alt_names.iter().find_map(|name| AltName::parse(name))
    }
}

/// `fieldveil/<domain>/<version>`: the alt name that makes a data key the n-th of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AltName<'a> {
    /// Never empty; may hold dots and slashes.
    pub domain: &'a str,
    /// From 1.
    pub version: u32,
}

impl<'a> AltName<'a> {
    /// What every alt name of ours starts with.
    pub const PREFIX: &'static str = "fieldveil/";

    /// Reads an alt name; `None` for one that is not ours. There is one spelling per version: no sign, no leading zero.
    pub fn parse(name: &'a str) -> Option<Self> {
        let (domain, digits) = name.strip_prefix(Self::PREFIX)?.rsplit_once('/')?;
        let version: u32 = digits.parse().ok()?;
        (!domain.is_empty() && version > 0 && version.to_string() == digits)
            .then_some(Self { domain, version })
    }
}

impl fmt::Display for AltName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}/{}", Self::PREFIX, self.domain, self.version)
    }
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The key is in the store.
    Done,
    /// Another key has one of its alt names already: somebody was faster, and theirs is the key to use.
    Taken,
}

/// Keeps wrapped data keys. Reads see what a majority holds; a finished write is on a majority.
pub trait DekStore: Send + Sync {
    /// Makes alt names unique, which is what lets two proxies that start at once end up with one key. Idempotent.
    fn prepare(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The keys with these ids; absent ones are left out.
    fn by_ids<'a>(&'a self, ids: &'a [KeyId]) -> BoxFuture<'a, Result<Vec<KeyRecord>, StoreError>>;

    /// Every version of these domains, disabled ones included.
    fn by_domains<'a>(&'a self, domains: &'a [&'a str]) -> BoxFuture<'a, Result<Vec<KeyRecord>, StoreError>>;

    /// Adds a key unless one of its alt names is taken.
    fn insert<'a>(&'a self, record: &'a KeyRecord) -> BoxFuture<'a, Result<Inserted, StoreError>>;

    /// Adds `count` to what has been leased of this key under this suite, by whatever process, and returns the sum.
    fn lease<'a>(
        &'a self,
        id: &'a KeyId,
        suite: &'static str,
        count: u64,
    ) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// Whether the store answers.
    fn health(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// Why a store did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// It cannot be reached: trying again may help.
    Unavailable,
    /// Our credentials may not do this.
    Denied,
    /// A document in it is not a key document.
    Malformed,
    /// It refused for another reason.
    Other,
}

impl StoreErrorKind {
    /// Whether the same request may succeed later without anybody acting.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable)
    }
}

/// A store's failure; the text names what to do and holds no key material.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// What kind of failure.
    pub kind: StoreErrorKind,
    /// What happened and what to do.
    pub text: String,
}

impl StoreError {
    /// Builds an error; `text` must not contain key material.
    pub fn new(kind: StoreErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for StoreError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alt_names_are_read_and_written_one_way() {
        for (name, domain, version) in [
            ("fieldveil/nhs_number/1", "nhs_number", 1),
            (
                "fieldveil/clinic.patients.contacts.phone/42",
                "clinic.patients.contacts.phone",
                42,
            ),
            ("fieldveil/a/b/7", "a/b", 7),
        ] {
            let parsed = AltName::parse(name).unwrap();
            assert_eq!(parsed, AltName { domain, version });
            assert_eq!(parsed.to_string(), name);
        }
    }

    #[test]
    fn rejects_alt_names_that_are_not_ours() {
        for name in [
            "local",
            "fieldveil/d",
            "fieldveil//1",
            "fieldveil/d/",
            "fieldveil/d/0",
            "fieldveil/d/01",
            "fieldveil/d/+1",
            "fieldveil/d/4294967296",
            "other/d/1",
        ] {
            assert_eq!(AltName::parse(name), None, "{name}");
        }
    }
}
