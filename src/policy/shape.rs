//! What a planner knows about each path of a document: plain, sealed by a rule, or unknown. A namespace's field map
//! is a shape, and so is the output of every aggregation stage. Paths follow MongoDB's rules: an array on the way
//! is walked through, and a numeric component may be an index or a key.

use std::sync::Arc;

use super::model::FieldRule;

/// Knowledge about one value.
#[derive(Clone, Debug)]
pub enum Shape {
    /// Nothing protected in it, at any depth.
    Plain,
    /// Sealed by this rule (as one value, or element by element where the rule says so).
    Sealed(Arc<FieldRule>),
    /// A document (or an array of documents) some of whose fields are protected.
    Tree(Arc<Tree>),
    /// May be protected in a way that cannot be told: comparing anything with it is refused.
    Unknown,
}

/// A document with protected fields somewhere below.
#[derive(Debug, Default)]
pub struct Tree {
    fields: Vec<(Box<[u8]>, Shape)>,
    /// One bit per (length, first byte) class of the keys above: most keys of a document miss it.
    mask: u64,
    rest: Rest,
}

/// What the fields are that a tree does not list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rest {
    /// Plain or missing.
    #[default]
    Plain,
    /// Unknown.
    Unknown,
}

/// What a path leads to.
#[derive(Clone, Debug)]
pub enum Target {
    /// Neither on, above nor below anything protected.
    Plain,
    /// Exactly on a sealed value, or on one element of an array that is sealed element by element.
    Sealed(Arc<FieldRule>),
    /// Below a sealed value: the server cannot look inside.
    Below(Arc<FieldRule>),
    /// Above protected fields.
    Above(Arc<Tree>),
    /// Cannot be told.
    Unknown,
}

impl Tree {
    /// A tree with these fields; later entries replace earlier ones of the same key.
    pub fn new(rest: Rest, fields: impl IntoIterator<Item = (Box<[u8]>, Shape)>) -> Self {
        let mut tree = Self {
            rest,
            ..Self::default()
        };
        for (key, shape) in fields {
            tree.set(&key, shape);
        }
        tree
    }

    /// What this key holds; `None` where the tree does not list it.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<&Shape> {
        self.position(key).map(|at| &self.fields[at].1)
    }

    /// Index of this key among the listed fields, for duplicate detection.
    #[inline]
    pub fn position(&self, key: &[u8]) -> Option<usize> {
        if self.mask & class(key) == 0 {
            return None;
        }
        self.fields.iter().position(|(k, _)| **k == *key)
    }

    /// The field at this index of [`Tree::position`].
    pub fn at(&self, index: usize) -> Option<&Shape> {
        self.fields.get(index).map(|(_, shape)| shape)
    }

    /// The listed fields.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &Shape)> {
        self.fields.iter().map(|(key, shape)| (&**key, shape))
    }

    /// What unlisted fields are.
    pub fn rest(&self) -> Rest {
        self.rest
    }

    /// What this key holds, listed or not.
    pub fn child(&self, key: &[u8]) -> Shape {
        self.get(key).cloned().unwrap_or(match self.rest {
            Rest::Plain => Shape::Plain,
            Rest::Unknown => Shape::Unknown,
        })
    }

    /// Lists or replaces a field.
    pub fn set(&mut self, key: &[u8], shape: Shape) {
        match self.fields.iter_mut().find(|(k, _)| **k == *key) {
            Some((_, old)) => *old = shape,
            None => {
                self.mask |= class(key);
                self.fields.push((key.into(), shape));
            }
        }
    }

    /// Forgets a field: it becomes what unlisted fields are.
    pub fn remove(&mut self, key: &[u8]) {
        self.fields.retain(|(k, _)| **k != *key);
    }

    /// A copy that can be changed.
    pub fn to_owned_tree(&self) -> Self {
        Self {
            fields: self.fields.clone(),
            mask: self.mask,
            rest: self.rest,
        }
    }
}

impl Shape {
    /// Whether nothing protected can be in it.
    pub fn is_plain(&self) -> bool {
        match self {
            Self::Plain => true,
            Self::Tree(tree) => tree.rest == Rest::Plain && tree.fields.iter().all(|(_, s)| s.is_plain()),
            Self::Sealed(_) | Self::Unknown => false,
        }
    }

    /// What a dotted path leads to. `$`, `$[]`, `$[id]` and numbers count as array positions.
    pub fn resolve(&self, path: &[u8]) -> Target {
        let (head, rest) = match path.iter().position(|b| *b == b'.') {
            Some(dot) => (&path[..dot], Some(&path[dot + 1..])),
            None => (path, None),
        };
        match self {
            Self::Plain => Target::Plain,
            Self::Unknown => Target::Unknown,
            Self::Sealed(rule) => {
                if rule.seals_elements() && rest.is_none() && is_position(head) {
                    Target::Sealed(Arc::clone(rule))
                } else {
                    Target::Below(Arc::clone(rule))
                }
            }
            Self::Tree(tree) => {
                let listed = tree.get(head);
                if !is_position(head) {
                    return match listed {
                        Some(shape) => shape.end_or_resolve(rest),
                        None if tree.rest == Rest::Unknown => Target::Unknown,
                        None => Target::Plain,
                    };
                }
                // A number may be an index into an array of these documents, or a key of its own.
                let as_index = self.end_or_resolve(rest);
                match listed {
                    None => as_index,
                    Some(shape) => match (as_index, shape.end_or_resolve(rest)) {
                        (Target::Plain, Target::Plain) => Target::Plain,
                        (Target::Sealed(a), Target::Sealed(b)) if a == b => Target::Sealed(a),
                        _ => Target::Unknown,
                    },
                }
            }
        }
    }

    fn end_or_resolve(&self, rest: Option<&[u8]>) -> Target {
        match rest {
            Some(rest) => self.resolve(rest),
            None => match self {
                Self::Plain => Target::Plain,
                Self::Sealed(rule) => Target::Sealed(Arc::clone(rule)),
                Self::Tree(tree) if self.is_plain() && tree.fields.is_empty() => Target::Plain,
                Self::Tree(tree) => Target::Above(Arc::clone(tree)),
                Self::Unknown => Target::Unknown,
            },
        }
    }
}

/// Whether a path component can stand for an array position: a number, `$`, `$[]` or `$[identifier]`.
pub fn is_position(component: &[u8]) -> bool {
    match component {
        [] => false,
        [b'$'] => true,
        [b'$', b'[', .., b']'] => true,
        digits => digits.iter().all(u8::is_ascii_digit),
    }
}

#[inline]
fn class(key: &[u8]) -> u64 {
    let first = key.first().copied().unwrap_or(0);
    1 << ((usize::from(first) + 11 * key.len()) & 63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::suite::Suite;
    use crate::policy::model::{FieldState, Mode};

    fn rule(path: &str, mode: Mode) -> Arc<FieldRule> {
        Arc::new(FieldRule {
            path: path.into(),
            mode,
            suite: Suite::Aes256Siv,
            domain: path.into(),
            state: FieldState::Enforced,
            each: false,
        })
    }

    fn sample() -> Shape {
        let det = Mode::Deterministic(crate::policy::DeclaredType::String);
        let contacts = Tree::new(
            Rest::Plain,
            [(
                Box::from(&b"phone"[..]),
                Shape::Sealed(rule("contacts.phone", det)),
            )],
        );
        Shape::Tree(Arc::new(Tree::new(
            Rest::Plain,
            [
                (Box::from(&b"nhs"[..]), Shape::Sealed(rule("nhs", det))),
                (
                    Box::from(&b"notes"[..]),
                    Shape::Sealed(rule("notes", Mode::Random)),
                ),
                (Box::from(&b"contacts"[..]), Shape::Tree(Arc::new(contacts))),
            ],
        )))
    }

    #[test]
    fn resolves_paths_through_arrays_and_positions() {
        let shape = sample();
        for path in [
            "contacts.phone",
            "contacts.0.phone",
            "contacts.$.phone",
            "contacts.$[].phone",
            "contacts.$[x].phone",
        ] {
            assert!(
                matches!(shape.resolve(path.as_bytes()), Target::Sealed(r) if &*r.path == "contacts.phone"),
                "{path}"
            );
        }
        assert!(matches!(shape.resolve(b"nhs.0"), Target::Sealed(_)));
        assert!(matches!(shape.resolve(b"nhs.x"), Target::Below(_)));
        assert!(matches!(shape.resolve(b"notes.0"), Target::Below(_)));
        assert!(matches!(shape.resolve(b"contacts"), Target::Above(_)));
        assert!(matches!(shape.resolve(b"contacts.3"), Target::Above(_)));
        assert!(matches!(shape.resolve(b"contacts.kind"), Target::Plain));
        assert!(matches!(shape.resolve(b"name"), Target::Plain));
    }
}
