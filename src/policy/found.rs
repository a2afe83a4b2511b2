//! What the deployment itself says about its collections, beside the configuration: views that look at protected
//! collections, and protected collections whose default collation changes what equality means.

use std::collections::{HashMap, HashSet};

use crate::name::Namespace;

/// The findings of one look at the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Views over protected collections, with what they look at. A search through one would be forwarded in plaintext.
    pub views: HashMap<Namespace, String>,
    /// Protected collections with a default collation other than `simple`.
    pub collated: HashSet<Namespace>,
}

impl Found {
    /// What the view of this name looks at, where that is protected.
    pub fn view(&self, db: &str, collection: &str) -> Option<&str> {
        if self.views.is_empty() {
            return None;
        }
        self.views
            .get(&Namespace::new(db, collection)?)
            .map(String::as_str)
    }

    /// Whether a command without a collation of its own compares strings by another rule than equality of bytes.
    pub fn is_collated(&self, namespace: &Namespace) -> bool {
        !self.collated.is_empty() && self.collated.contains(namespace)
    }
}
