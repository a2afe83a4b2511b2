//! `$project`, `$addFields`/`$set` and `$unset`: which fields go on, and what computed ones hold.

use super::{Flow, Planner};
use crate::bson::{Element, kind};
use crate::command::document::shape_of;
use crate::command::expression::{Variables, children, misformed, shapes, string};
use crate::limits;
use crate::policy::{Reason, Refusal, Shape, Target, Tree};

/// One field of a projection, by its whole dotted path.
struct Leaf<'a> {
    path: Vec<u8>,
    element: Element<'a>,
}

impl Leaf<'_> {
    /// `1`, `true` and their like, or `0` and `false`; `None` for anything computed.
    fn flag(&self) -> Option<bool> {
        match self.element.kind {
            kind::BOOL | kind::INT32 | kind::INT64 | kind::DOUBLE => Some(self.element.truthy()),
            // Zero in decimal form is all but unheard of; the bytes of its coefficient are then all zero.
            kind::DECIMAL128 => Some(self.element.value().iter().take(12).any(|b| *b != 0)),
            _ => None,
        }
    }
}

impl<'a> Planner<'_, '_, 'a, '_> {
    pub(super) fn project(
        &mut self,
        stage: &Element<'a>,
        flow: Flow,
        variables: &Variables,
    ) -> Result<Flow, Refusal> {
        let leaves = leaves("$project", stage)?;
        let excludes = leaves
            .iter()
            .filter(|leaf| leaf.path != b"_id")
            .all(|leaf| leaf.flag() == Some(false))
            && leaves.iter().any(|leaf| leaf.flag() == Some(false));
        if excludes {
            return self.exclude(
                flow,
                leaves
                    .iter()
                    .filter(|l| l.flag() == Some(false))
                    .map(|l| &*l.path),
            );
        }
        let from = known("$project", &flow)?;
        let shape = flow.shape();
        let mut to = Tree::default();
        if !leaves.iter().any(|leaf| leaf.path == b"_id") {
            shapes::include_path(&mut to, from, b"_id")?;
        }
        for leaf in &leaves {
            match leaf.flag() {
                Some(true) => shapes::include_path(&mut to, from, &leaf.path)?,
                // Only `_id` can be left out of an inclusion; the server says so for the others.
                Some(false) if leaf.path == b"_id" => {}
                Some(false) => return Err(misformed("$project")),
                None => {
                    parent_is_open(from, &leaf.path)?;
                    let yielded = self.assigned(&leaf.path, &leaf.element, &shape, variables)?;
                    shapes::set_path(&mut to, &leaf.path, yielded)?;
                }
            }
        }
        Ok(Flow::closed(to))
    }

    pub(super) fn add_fields(
        &mut self,
        name: &str,
        stage: &Element<'a>,
        mut flow: Flow,
        variables: &Variables,
    ) -> Result<Flow, Refusal> {
        let shape = flow.shape();
        let leaves = leaves(name, stage)?;
        known(name, &flow)?;
        for leaf in &leaves {
            let empty = leaf.element.kind == kind::DOCUMENT && children(&leaf.element)?.is_empty();
            if empty && !matches!(shape.resolve(&leaf.path), Target::Plain) {
                return Err(Refusal::new(
                    Reason::Stage,
                    format!(
                        "stage {name}: an empty document at '{}' would be merged into protected fields; use {{$literal: {{}}}} or $unset",
                        String::from_utf8_lossy(&leaf.path)
                    ),
                ));
            }
            let yielded = self.assigned(&leaf.path, &leaf.element, &shape, variables)?;
            flow.set(&leaf.path, yielded)?;
        }
        Ok(flow)
    }

    pub(super) fn unset(&mut self, stage: &Element<'a>, flow: Flow) -> Result<Flow, Refusal> {
        let paths = match stage.kind {
            kind::STRING => vec![*stage],
            kind::ARRAY => children(stage)?,
            _ => return Err(misformed("$unset")),
        };
        if paths.iter().any(|path| path.kind != kind::STRING) {
            return Err(misformed("$unset"));
        }
        self.exclude(flow, paths.iter().map(string))
    }

    fn exclude<'p>(&self, mut flow: Flow, paths: impl Iterator<Item = &'p [u8]>) -> Result<Flow, Refusal> {
        let Some(tree) = &mut flow.tree else {
            return Ok(flow);
        };
        for path in paths {
            shapes::remove_path(tree, path)?;
            // What is missing fits any rule of the place that it is stored in.
            if let Some(rules) = self.stored.as_ref().or(self.target.as_ref()) {
                match rules.resolve(path) {
                    Target::Plain => {}
                    there => shapes::set_path(tree, path, shape_of(&there))?,
                }
            }
        }
        Ok(flow)
    }
}

/// The fields of documents that a stage picks from by name.
pub(super) fn known<'f>(name: &str, flow: &'f Flow) -> Result<&'f Tree, Refusal> {
    flow.tree.as_ref().ok_or_else(|| {
        Refusal::new(
            Reason::UnknownShape,
            format!(
                "stage {name}: it cannot be told any more which fields of its documents are protected; move it before the stage that makes them ambiguous"
            ),
        )
    })
}

/// A computed dotted path goes into a document that the server can look into: an array there has one result per item.
fn parent_is_open(from: &Tree, path: &[u8]) -> Result<(), Refusal> {
    let mut copy = from.to_owned_tree();
    shapes::set_path(&mut copy, path, Shape::Plain)
}

/// The fields of a projection, nested documents taken apart; a document of operators is one expression.
fn leaves<'a>(name: &str, stage: &Element<'a>) -> Result<Vec<Leaf<'a>>, Refusal> {
    if stage.kind != kind::DOCUMENT {
        return Err(misformed(name));
    }
    let mut found = Vec::new();
    descend(name, stage, &[], 1, &mut found)?;
    Ok(found)
}

fn descend<'a>(
    name: &str,
    element: &Element<'a>,
    prefix: &[u8],
    depth: usize,
    found: &mut Vec<Leaf<'a>>,
) -> Result<(), Refusal> {
    if depth > limits::MAX_DEPTH {
        return Err(Refusal::new(
            Reason::Malformed,
            "a projection nests deeper than 200 levels",
        ));
    }
    for field in children(element)? {
        let path = if prefix.is_empty() {
            field.key.to_vec()
        } else {
            [prefix, b".", field.key].concat()
        };
        let inner = if field.kind == kind::DOCUMENT {
            children(&field)?
        } else {
            Vec::new()
        };
        if inner.is_empty() || inner.iter().any(|f| f.key.first() == Some(&b'$')) {
            found.push(Leaf { path, element: field });
            if found.len() > shapes::MAX_FIELDS {
                return Err(Refusal::new(
                    Reason::Limit,
                    format!("stage {name} names more than 4096 fields; split it"),
                ));
            }
        } else {
            descend(name, &field, &path, depth + 1, found)?;
        }
    }
    Ok(())
}
