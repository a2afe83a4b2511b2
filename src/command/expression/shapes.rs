//! Algebra of shapes: what two alternatives have in common, and what a dotted path does to a document. Whatever
//! cannot be told exactly becomes [`Shape::Unknown`], which every comparison refuses.

use std::sync::Arc;

use crate::policy::shape::is_position;
use crate::policy::{FieldRule, FieldState, Mode, Reason, Refusal, Rest, Shape, Target, Tree};

/// Shapes are shared graphs: a pipeline can make one whose walk is exponential in its length. Past this many nodes
/// nothing is known any more.
const MAX_NODES: usize = 20_000;
/// Deepest shape that is kept.
const MAX_LEVELS: usize = 100;
/// Most fields that one document's shape lists.
pub const MAX_FIELDS: usize = 4096;

/// Stands in a tree for all keys with a dot in them, where such keys may hold protected values: no path leads there.
pub const DOTTED: &[u8] = b".";

/// A tree that holds nothing protected is plain.
pub fn normal(tree: Tree) -> Shape {
    let shape = Shape::Tree(Arc::new(tree));
    if shape.is_plain() { Shape::Plain } else { shape }
}

/// The shape itself, or [`Shape::Unknown`] where walking it would cost too much.
pub fn bounded(shape: Shape) -> Shape {
    let mut left = MAX_NODES;
    if fits(&shape, &mut left, 0) {
        shape
    } else {
        Shape::Unknown
    }
}

fn fits(shape: &Shape, left: &mut usize, level: usize) -> bool {
    let Some(fewer) = left.checked_sub(1) else {
        return false;
    };
    *left = fewer;
    match shape {
        Shape::Tree(tree) => {
            level < MAX_LEVELS && tree.fields().all(|(_, child)| fits(child, left, level + 1))
        }
        Shape::Plain | Shape::Sealed(_) | Shape::Unknown => true,
    }
}

/// What a value is that may be either of two.
pub fn merge(a: &Shape, b: &Shape) -> Shape {
    match (a, b) {
        (Shape::Plain, Shape::Plain) => Shape::Plain,
        (Shape::Sealed(a), Shape::Sealed(b)) => unify(a, b).map_or(Shape::Unknown, Shape::Sealed),
        (Shape::Tree(a), Shape::Tree(b)) if Arc::ptr_eq(a, b) => Shape::Tree(Arc::clone(a)),
        (Shape::Tree(a), Shape::Tree(b)) => merge_trees(a, b),
        (Shape::Tree(tree), Shape::Plain) | (Shape::Plain, Shape::Tree(tree)) => {
            merge_trees(tree, &Tree::default())
        }
        _ => Shape::Unknown,
    }
}

fn merge_trees(a: &Tree, b: &Tree) -> Shape {
    let rest = if a.rest() == Rest::Unknown || b.rest() == Rest::Unknown {
        Rest::Unknown
    } else {
        Rest::Plain
    };
    let mut merged = Tree::new(rest, []);
    for (key, shape) in a.fields() {
        merged.set(key, merge(shape, &b.child(key)));
    }
    for (key, shape) in b.fields() {
        if a.get(key).is_none() {
            merged.set(key, merge(&a.child(key), shape));
        }
    }
    normal(merged)
}

/// Whether values sealed by the two rules are equal exactly where their plaintexts are (for deterministic rules), and
/// open under each other's keys.
pub fn same_seal(a: &FieldRule, b: &FieldRule) -> bool {
    a.domain == b.domain && a.mode == b.mode && a.suite == b.suite
}

/// One rule that stands for both; the one that is still migrating, since its field may hold plaintext.
fn unify(a: &Arc<FieldRule>, b: &Arc<FieldRule>) -> Option<Arc<FieldRule>> {
    if Arc::ptr_eq(a, b) {
        return Some(Arc::clone(a));
    }
    if !same_seal(a, b) || a.each != b.each {
        return None;
    }
    let migrating = b.state == FieldState::Migrating;
    Some(Arc::clone(if migrating { b } else { a }))
}

/// One element of an array of this shape. What a random rule sealed element by element may be an array itself, sealed
/// as one value: it is no longer known to be one that can be looked into.
pub fn element_of(shape: &Shape) -> Shape {
    match shape {
        Shape::Sealed(rule) => Shape::Sealed(item_of(rule)),
        other => other.clone(),
    }
}

/// The rule of one item of an array under this rule.
pub fn item_of(rule: &Arc<FieldRule>) -> Arc<FieldRule> {
    if rule.each && rule.mode == Mode::Random {
        with_each(rule, false)
    } else {
        Arc::clone(rule)
    }
}

/// An array of such values, as `$push` makes it: what a random rule sealed as one value stands in it item by item.
pub fn array_of(shape: &Shape) -> Shape {
    match shape {
        Shape::Sealed(rule) if !rule.seals_elements() => Shape::Sealed(with_each(rule, true)),
        other => other.clone(),
    }
}

fn with_each(rule: &FieldRule, each: bool) -> Arc<FieldRule> {
    Arc::new(FieldRule {
        path: Arc::clone(&rule.path),
        mode: rule.mode,
        suite: rule.suite,
        domain: Arc::clone(&rule.domain),
        state: rule.state,
        each,
    })
}

/// The first protected path in a shape, for messages; `None` where none is known by name.
pub fn protected_path(shape: &Shape) -> Option<Arc<str>> {
    match shape {
        Shape::Sealed(rule) => Some(Arc::clone(&rule.path)),
        Shape::Tree(tree) => tree.fields().find_map(|(_, child)| protected_path(child)),
        Shape::Plain | Shape::Unknown => None,
    }
}

/// What an expression path (`a.b`, without `$`) leads to. Unlike a filter's, its numbers are keys, not indexes: a
/// number next to anything protected cannot be told.
pub fn resolve(shape: &Shape, path: &[u8]) -> Target {
    let last = path.rsplit(|b| *b == b'.').next().unwrap_or(path);
    match shape.resolve(path) {
        Target::Plain => Target::Plain,
        // Inside a value that is sealed as one, whether it is an array or a document.
        Target::Below(rule) => Target::Below(rule),
        Target::Sealed(rule) if rule.each && is_position(last) => Target::Below(rule),
        _ if path.split(|b| *b == b'.').any(is_position) => Target::Unknown,
        target => target,
    }
}

/// A child list that can be changed; a plain document lists nothing.
pub fn tree_of(shape: &Shape) -> Option<Tree> {
    match shape {
        Shape::Plain => Some(Tree::default()),
        Shape::Tree(tree) => Some(tree.to_owned_tree()),
        Shape::Sealed(_) | Shape::Unknown => None,
    }
}

/// Sets a dotted path, as `$addFields` does.
///
/// # Errors
/// A [`Refusal`] where the path leads into a sealed or unknown value.
pub fn set_path(tree: &mut Tree, path: &[u8], value: Shape) -> Result<(), Refusal> {
    let (head, rest) = split(path);
    let Some(rest) = rest else {
        return list(tree, head, value);
    };
    let mut child = inside(&tree.child(head), head)?;
    set_path(&mut child, rest, value)?;
    list(tree, head, normal(child))
}

/// Removes a dotted path, as `$unset` does.
///
/// # Errors
/// A [`Refusal`] where the path leads into a sealed or unknown value.
pub fn remove_path(tree: &mut Tree, path: &[u8]) -> Result<(), Refusal> {
    let (head, rest) = split(path);
    let Some(rest) = rest else {
        tree.remove(head);
        return Ok(());
    };
    let mut child = inside(&tree.child(head), head)?;
    remove_path(&mut child, rest)?;
    list(tree, head, normal(child))
}

/// Copies a dotted path from `from` into `to`, as an inclusion does.
///
/// # Errors
/// A [`Refusal`] where the path leads into a sealed or unknown value.
pub fn include_path(to: &mut Tree, from: &Tree, path: &[u8]) -> Result<(), Refusal> {
    let (head, rest) = split(path);
    let Some(rest) = rest else {
        return list(to, head, from.child(head));
    };
    let source = inside(&from.child(head), head)?;
    let mut child = inside(&to.child(head), head)?;
    include_path(&mut child, &source, rest)?;
    list(to, head, normal(child))
}

/// Lists a field, within the bound on how many are kept.
pub fn list(tree: &mut Tree, key: &[u8], shape: Shape) -> Result<(), Refusal> {
    if tree.fields().count() >= MAX_FIELDS && tree.get(key).is_none() {
        return Err(Refusal::new(
            Reason::Limit,
            "a stage names more than 4096 fields of one document; split it",
        ));
    }
    tree.set(key, shape);
    Ok(())
}

fn inside(shape: &Shape, key: &[u8]) -> Result<Tree, Refusal> {
    tree_of(shape).ok_or_else(|| {
        let key = String::from_utf8_lossy(key);
        match shape {
            Shape::Sealed(rule) => Refusal::new(
                Reason::BelowSealed,
                format!(
                    "a path leads into '{key}' (field '{}'), which is sealed; the server cannot look inside. Name the whole field, or protect the inner fields one by one in the field map",
                    rule.path
                ),
            ),
            _ => Refusal::new(
                Reason::UnknownShape,
                format!(
                    "a path leads into '{key}', and it cannot be told here whether that is sealed; name the whole field, or use it before the stage that makes it ambiguous"
                ),
            ),
        }
    })
}

fn split(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|b| *b == b'.') {
        Some(dot) => (&path[..dot], Some(&path[dot + 1..])),
        None => (path, None),
    }
}
