//! Protected fields that an earlier stage removed. To the server they are missing from there on, and a value that is
//! compared with one finds nothing: but it would travel, and be logged, as it was written. Owns which names these are;
//! whoever compares refuses them.

use super::Flow;
use super::stages::Kind;
use crate::command::expression::shapes;
use crate::policy::{Shape, Tree};

/// Dotted paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Removed(Vec<Box<[u8]>>);

impl Removed {
    /// What documents of this flow may lose in the next stage.
    pub(super) fn before(flow: &Flow) -> Self {
        let mut paths = flow.removed.0.clone();
        if let Some(tree) = &flow.tree {
            sealed(tree, &[], &mut paths);
        }
        Self(paths)
    }

    /// What is left of that after a stage of this kind.
    pub(super) fn after(mut self, kind: Kind, flow: &Flow) -> Self {
        let is_renamed = match kind {
            // Whatever has taken the place of the documents, its names are its own.
            Kind::ReplaceRoot | Kind::ReplaceWith => !flow.closed,
            Kind::Documents | Kind::ChangeStream | Kind::Report | Kind::IndexStats => true,
            _ => false,
        };
        match &flow.tree {
            Some(tree) if !is_renamed => {
                self.0.retain(|path| is_missing(tree, path));
                self.0.sort_unstable();
                self.0.dedup();
                self
            }
            _ => Self::default(),
        }
    }

    /// These, and what other documents that were brought in have lost.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// These, where the documents go on as the value of a field.
    pub(super) fn below(&self, field: &[u8]) -> Self {
        let paths = self.0.iter();
        Self(paths.map(|path| [field, b".", path].concat().into()).collect())
    }

    pub(super) fn paths(&self) -> &[Box<[u8]>] {
        &self.0
    }

    /// A shape in which nothing is known of these fields.
    pub(super) fn shade(&self, shape: Shape) -> Shape {
        if self.0.is_empty() {
            return shape;
        }
        let Some(mut tree) = shapes::tree_of(&shape) else {
            return shape;
        };
        for path in &self.0 {
            // What leads into something sealed or unknown is refused without this.
            if shapes::set_path(&mut tree, path, Shape::Unknown).is_err() {
                return Shape::Unknown;
            }
        }
        shapes::normal(tree)
    }
}

/// Whether the tree neither protects this path nor lists it as a field that was set since.
fn is_missing(tree: &Tree, path: &[u8]) -> bool {
    match path.iter().position(|b| *b == b'.') {
        None => tree.get(path).is_none() && tree.child(path).is_plain(),
        Some(dot) => match tree.get(&path[..dot]) {
            Some(Shape::Tree(inner)) => is_missing(inner, &path[dot + 1..]),
            Some(shape) => shape.is_plain(),
            None => matches!(tree.child(&path[..dot]), Shape::Plain),
        },
    }
}

fn sealed(tree: &Tree, prefix: &[u8], found: &mut Vec<Box<[u8]>>) {
    for (key, shape) in tree.fields() {
        let path = if prefix.is_empty() {
            key.to_vec()
        } else {
            [prefix, b".", key].concat()
        };
        match shape {
            Shape::Sealed(_) => found.push(path.into()),
            Shape::Tree(inner) => sealed(inner, &path, found),
            Shape::Plain | Shape::Unknown => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_was_set_since_is_not_missing() {
        let mut tree = Tree::default();
        assert!(is_missing(&tree, b"nhs") && is_missing(&tree, b"address.line1"));
        tree.set(b"nhs", Shape::Plain);
        assert!(!is_missing(&tree, b"nhs"));
    }
}
