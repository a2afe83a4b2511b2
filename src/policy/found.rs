//! What the deployment itself says about its collections, beside the configuration: views that look at protected
//! collections, and protected collections whose default collation changes what equality means. Holds what was found;
//! what a view's definition means for protected fields is `command/views.rs`'s to say.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::model::{CollectionPolicy, FieldRule};
use crate::name::Namespace;

/// The findings of one look at the upstream.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Every view of the databases that hold protected collections.
    pub definitions: Vec<Definition>,
    /// The views among them whose documents hold, or may hold, something protected.
    pub views: HashMap<Namespace, View>,
    /// Protected collections, and views, with a default collation other than `simple`.
    pub collated: HashSet<Namespace>,
}

/// A view as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: Namespace,
    /// The collection or view that it looks at, in the same database.
    pub source: String,
    /// Its stages, as the bytes of a BSON array.
    pub pipeline: Vec<u8>,
    /// It compares strings by a collation other than `simple`.
    pub collated: bool,
}

/// What a view means for protected fields.
#[derive(Clone, Debug)]
pub enum View {
    /// Its documents are known: a query on it is planned like one on a collection with these rules.
    Open {
        /// The rules, and where in the view's documents they hold.
        policy: Arc<CollectionPolicy>,
        /// Fields that its definition compares with each other, or groups by: possible only while each has one key.
        one_form: Vec<Arc<FieldRule>>,
    },
    /// Nothing can be asked of it: why.
    Refused(Box<str>),
}

/// A change that a command makes to what is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A view is made, or defined anew.
    View(Definition),
    /// A collection or view is dropped.
    Dropped(Namespace),
    /// A database is dropped.
    Emptied(Box<str>),
}

impl Found {
    /// The view of this name, where it has to do with anything protected.
    pub fn view(&self, db: &str, collection: &str) -> Option<&View> {
        if self.views.is_empty() {
            return None;
        }
        self.views.get(&Namespace::new(db, collection)?)
    }

    /// Whether a command without a collation of its own compares strings by another rule than equality of bytes.
    pub fn is_collated(&self, namespace: &Namespace) -> bool {
        !self.collated.is_empty() && self.collated.contains(namespace)
    }

    /// Why views are refused, each with its name.
    pub fn refusals(&self) -> impl Iterator<Item = &str> {
        self.views.values().filter_map(|view| match view {
            View::Refused(why) => Some(&**why),
            View::Open { .. } => None,
        })
    }

    /// Whether the deployment says the same.
    pub fn agrees(&self, other: &Self) -> bool {
        self.definitions == other.definitions && self.collated == other.collated
    }

    /// The definitions and collations after this change; the views are then to be judged anew.
    pub fn after(&self, change: Change) -> (Vec<Definition>, HashSet<Namespace>) {
        let (mut definitions, mut collated) = (self.definitions.clone(), self.collated.clone());
        let gone = |name: &Namespace| match &change {
            Change::View(made) => *name == made.name,
            Change::Dropped(dropped) => name == dropped,
            Change::Emptied(db) => name.db() == &**db,
        };
        definitions.retain(|definition| !gone(&definition.name));
        collated.retain(|name| !gone(name));
        if let Change::View(made) = change {
            if made.collated {
                collated.insert(made.name.clone());
            }
            definitions.push(made);
        }
        (definitions, collated)
    }
}
