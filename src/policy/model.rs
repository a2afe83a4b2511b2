//! One field's rule and one namespace's rules, as resolved from the configuration.

use std::sync::Arc;

use super::shape::Shape;
use crate::crypto::suite::Suite;
use crate::name::Namespace;

/// Whether equal values become equal ciphertexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Equal values become equal ciphertexts: searchable by equality; leaks equality. Values are of one declared type.
    Deterministic(DeclaredType),
    /// Every sealing differs; nothing can be searched.
    Random,
}

/// The one BSON type that a deterministic field holds, so that equality means what it meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are MongoDB's own type aliases")]
pub enum DeclaredType {
    String,
    Int,
    Long,
    Date,
    ObjectId,
    BinData,
}

impl DeclaredType {
    /// MongoDB's alias, as used in `$type` and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int => "int",
            Self::Long => "long",
            Self::Date => "date",
            Self::ObjectId => "objectId",
            Self::BinData => "binData",
        }
    }

    /// The type with this alias.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::String,
            Self::Int,
            Self::Long,
            Self::Date,
            Self::ObjectId,
            Self::BinData,
        ]
        .into_iter()
        .find(|t| t.name() == name)
    }
}

/// How far a field's stored data has been moved to ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldState {
    /// Stored values may still be plaintext: reads take both forms, equality looks for both, writes seal.
    Migrating,
    /// Every stored value is sealed; plaintext found on read is reported and counted.
    Enforced,
}

/// What the configuration says about one field.
#[derive(Debug, PartialEq, Eq)]
pub struct FieldRule {
    /// Dotted path without array indexes (`contacts.phone`).
    pub path: Arc<str>,
    /// Searchable or not.
    pub mode: Mode,
    /// The algorithm that seals it.
    pub suite: Suite,
    /// The unit of key separation: fields of one domain share data keys.
    pub domain: Arc<str>,
    /// Migrating or enforced.
    pub state: FieldState,
    /// Random only: an array is sealed element by element instead of as one value.
    pub each: bool,
}

impl FieldRule {
    /// Whether equality can be searched.
    pub fn is_deterministic(&self) -> bool {
        matches!(self.mode, Mode::Deterministic(_))
    }

    /// Whether an array at this path is sealed element by element.
    pub fn seals_elements(&self) -> bool {
        self.each || self.is_deterministic()
    }
}

/// The rules of one namespace.
#[derive(Debug)]
pub struct CollectionPolicy {
    /// The namespace itself (a pattern has been resolved to the actual name).
    pub namespace: Namespace,
    /// The field that says whose record this is; shown in the audit as a pseudonym.
    pub subject: Option<Arc<FieldRule>>,
    /// Every rule, in the order of the configuration.
    pub rules: Vec<Arc<FieldRule>>,
    /// The rules as a tree of paths; everything unlisted is plain.
    pub shape: Shape,
}
