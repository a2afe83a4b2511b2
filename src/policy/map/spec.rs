//! What the configuration says, before anybody has judged it, and the form in which a judgement is handed back.

use std::fmt;

use crate::policy::model::FieldState;

/// One `[[collection]]`, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectionSpec {
    /// `db.collection`; `*` in either part stands for any run of characters.
    pub namespace: String,
    /// Path of the deterministic field that says whose record a document is.
    pub subject: Option<String>,
    /// State of those fields that name none themselves.
    pub state: Option<FieldState>,
    /// The fields, in the order in which they are written.
    pub fields: Vec<FieldSpec>,
}

/// One entry of `[collection.fields]`, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSpec {
    /// Dotted path without array indexes.
    pub path: String,
    /// `deterministic` or `random`.
    pub mode: String,
    /// The declared BSON type, by MongoDB's alias (`type` in the file).
    pub declared: Option<String>,
    /// The algorithm; the mode's own default where absent.
    pub algorithm: Option<String>,
    /// The domain of key separation; `<db>.<collection>.<path>` where absent.
    pub domain: Option<String>,
    /// How far stored data has been moved to ciphertext; the collection's, else enforced.
    pub state: Option<FieldState>,
    /// Random only: seal an array element by element.
    pub each: bool,
    /// Why equality of a value with few possibilities may show; silences the linter's warning.
    pub accept_leakage: Option<String>,
}

impl CollectionSpec {
    /// A collection with these fields, without a subject.
    pub fn new(namespace: &str, fields: impl IntoIterator<Item = FieldSpec>) -> Self {
        Self {
            namespace: namespace.to_owned(),
            fields: fields.into_iter().collect(),
            ..Self::default()
        }
    }
}

impl FieldSpec {
    /// A searchable field of this declared type.
    pub fn deterministic(path: &str, declared: &str) -> Self {
        Self {
            path: path.to_owned(),
            mode: "deterministic".to_owned(),
            declared: Some(declared.to_owned()),
            ..Self::default()
        }
    }

    /// A field that cannot be searched.
    pub fn random(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            mode: "random".to_owned(),
            ..Self::default()
        }
    }

    /// The same field in a domain shared with others.
    pub fn with_domain(mut self, domain: &str) -> Self {
        self.domain = Some(domain.to_owned());
        self
    }

    /// The same field sealed by another algorithm.
    pub fn with_algorithm(mut self, algorithm: &str) -> Self {
        self.algorithm = Some(algorithm.to_owned());
        self
    }

    /// The same field in another state.
    pub fn with_state(mut self, state: FieldState) -> Self {
        self.state = Some(state);
        self
    }

    /// The same field, sealed element by element where it holds an array.
    pub fn with_each(mut self) -> Self {
        self.each = true;
        self
    }
}

/// Something in the field map that is wrong, or (among the warnings) unwise. Where it stands is told by indexes, so
/// that whoever read the file can add the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Index of the collection among the specs.
    pub collection: usize,
    /// Index of the field in its collection; `None` where the collection itself is meant.
    pub field: Option<usize>,
    /// The key that is wrong; `None` where the whole entry is.
    pub key: Option<&'static str>,
    /// The namespace, and the path of the field where there is one: `clinic.patients: notes`.
    pub subject: String,
    /// What is wrong, and why that cannot work.
    pub reason: String,
    /// What to write instead.
    pub way_out: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.subject, self.reason, self.way_out)
    }
}
