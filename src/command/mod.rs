//! What each MongoDB command means for protected fields: one planner per command, one closed table of verdicts.
//! Everything here is pure: bytes and rules in, a plan or a refusal out.

pub mod aggregate;
pub mod bulk_write;
pub mod coll_mod;
pub mod count;
pub mod create;
pub mod create_indexes;
pub mod definition;
pub mod delete;
pub mod distinct;
pub mod document;
pub mod explain;
pub mod expression;
pub mod failure;
pub mod filter;
pub mod find;
pub mod find_and_modify;
pub mod insert;
pub mod namespace;
pub mod operators;
pub mod options;
#[cfg(test)]
mod rehearsal;
pub mod reply;
pub mod schema;
pub mod scrub;
pub mod shard_key;
pub mod table;
pub mod update;
pub mod update_ops;
pub mod view;
pub mod views;

use std::sync::Arc;

pub use view::CommandView;

use crate::policy::{CollectionPolicy, FieldMap, Found, Refusal, Shape, Tree};

/// What a command works on: the field map, and the policy of the namespace it names.
#[derive(Clone, Copy)]
pub struct Scope<'m> {
    /// The whole map, for commands that name other namespaces as well.
    pub map: &'m FieldMap,
    /// What is known of views, which are named like collections.
    pub found: &'m Found,
    /// The policy of the command's own namespace; `None` where nothing in it is protected.
    pub policy: Option<&'m CollectionPolicy>,
}

impl<'m> Scope<'m> {
    /// The shape of the namespace's documents, where some of it is protected.
    pub fn shape(&self) -> Option<&'m Shape> {
        self.policy.map(|policy| &policy.shape)
    }

    /// The same as a tree.
    pub fn tree(&self) -> Option<Arc<Tree>> {
        match self.shape()? {
            Shape::Tree(tree) => Some(Arc::clone(tree)),
            _ => None,
        }
    }
}

/// What is to be done with a command.
#[derive(Debug)]
pub enum Decision {
    /// It goes on; where the plan has no edit, as the same bytes.
    Plan(crate::plan::Plan),
    /// It is answered with an error.
    Refuse(Refusal),
}
