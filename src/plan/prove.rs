//! One walk of a rewritten command: every protected path holds an envelope. Written apart from the planners on
//! purpose: it knows only shapes and dotted paths, so that a planner's blind spot is not its own.

use crate::bson::{Doc, Element, Malformed, kind};
use crate::crypto::envelope::{self, Header};
use crate::limits;
use crate::policy::{FieldState, Shape};

/// What kind of document is walked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A document that is stored as it stands, or an update: nothing but envelopes may stand in a protected path.
    Stored,
    /// A filter: a migrating field is looked for in both forms, so its plaintext is there on purpose.
    Filter,
}

/// Why a rewritten command is not proved.
#[derive(Debug, PartialEq, Eq)]
pub enum Unproved {
    /// The value at this path is not sealed although it should be.
    Unsealed(String),
    /// The command cannot be read to its end, so nothing can be said of it.
    Unreadable(String),
}

impl From<Malformed> for Unproved {
    fn from(error: Malformed) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// Operators whose operand is no value of the field.
const NOT_VALUES: &[&[u8]] = &[
    b"$exists",
    // Its constants stand beside the fields that they meet, not below them: the plan tracked them.
    b"$expr",
    // Its keywords are no fields, though fields may be called like them: `title`, `description`. The plan judged it.
    b"$jsonSchema",
    b"$unset",
    b"$size",
    b"$slice",
    b"$position",
    b"$sort",
    b"$pop",
    b"$type",
];

/// Walks `doc`, whose root has this shape.
///
/// # Errors
/// [`Unproved`] with the path of the first value that stands unsealed in a protected place.
pub fn prove(doc: &Doc<'_>, shape: &Shape, place: Place) -> Result<(), Unproved> {
    walk(doc, shape, place, 0)
}

/// Walks an update that is a pipeline: what its stages assign to a protected path as a constant is an envelope or null.
/// Expressions are left to the plan, which followed them.
///
/// # Errors
/// As [`prove`].
pub fn prove_pipeline(pipeline: &Doc<'_>, shape: &Shape) -> Result<(), Unproved> {
    for stage in pipeline.elements() {
        let Some(stage) = stage?.document()? else { continue };
        for operator in stage.elements() {
            let operator = operator?;
            if let (b"$set" | b"$addFields" | b"$replaceWith", Some(doc)) =
                (operator.key, operator.document()?)
            {
                assigned(&doc, shape, 0)?;
            }
        }
    }
    Ok(())
}

fn assigned(doc: &Doc<'_>, shape: &Shape, depth: usize) -> Result<(), Unproved> {
    if depth > limits::MAX_DEPTH {
        return Err(Unproved::Unreadable("it nests deeper than 200 levels".to_owned()));
    }
    for element in doc.elements() {
        let element = element?;
        match (element.key, descend(shape, element.key)) {
            (b"$literal" | b"$const", Inside::At(shape)) => value(&element, shape, Place::Stored, depth)?,
            // An operator: what it yields depends on the documents.
            (key, _) if key.first() == Some(&b'$') => {}
            (_, Inside::Plain) => {}
            (_, Inside::At(shape)) => match element.document()? {
                Some(inner) => assigned(&inner, shape, depth + 1)?,
                // A path or a variable.
                None if element.text().is_some_and(|text| text.starts_with('$')) => {}
                None => value(&element, shape, Place::Stored, depth)?,
            },
        }
    }
    Ok(())
}

fn walk(doc: &Doc<'_>, shape: &Shape, place: Place, depth: usize) -> Result<(), Unproved> {
    if depth > limits::MAX_DEPTH {
        return Err(Unproved::Unreadable("it nests deeper than 200 levels".to_owned()));
    }
    for element in doc.elements() {
        let element = element?;
        if NOT_VALUES.contains(&element.key) {
            continue;
        }
        // What `$pull` takes out is named by a filter.
        let place = if matches!(element.key, b"$pull" | b"$pullAll") {
            Place::Filter
        } else {
            place
        };
        match descend(shape, element.key) {
            Inside::Plain => {}
            Inside::At(shape) => value(&element, shape, place, depth)?,
        }
    }
    Ok(())
}

fn value(element: &Element<'_>, shape: &Shape, place: Place, depth: usize) -> Result<(), Unproved> {
    if let Some(doc) = element.document()? {
        // An unsealed document at a sealed path can only be operators, or an array sealed item by item: whatever
        // else it is, its leaves are unsealed and found below.
        return walk(&doc, shape, place, depth + 1);
    }
    let Shape::Sealed(rule) = shape else {
        return Ok(());
    };
    if place == Place::Filter && rule.state == FieldState::Migrating {
        return Ok(());
    }
    let sealed = element.kind == kind::NULL
        || element.binary().is_some_and(|(subtype, payload)| {
            matches!(envelope::header(subtype, payload), Header::Envelope { .. })
        });
    if sealed {
        Ok(())
    } else {
        Err(Unproved::Unsealed(rule.path.to_string()))
    }
}

enum Inside<'a> {
    Plain,
    At(&'a Shape),
}

/// Where a key leads from here. Operators and array positions stay; a dotted key goes down several steps.
fn descend<'a>(mut shape: &'a Shape, key: &[u8]) -> Inside<'a> {
    for component in key.split(|b| *b == b'.') {
        match shape {
            Shape::Plain | Shape::Unknown => return Inside::Plain,
            // Below a sealed value everything counts as part of it.
            Shape::Sealed(_) => return Inside::At(shape),
            Shape::Tree(tree) => match tree.get(component) {
                Some(child) => shape = child,
                None if component.first() == Some(&b'$') || is_number(component) => {}
                None => return Inside::Plain,
            },
        }
    }
    Inside::At(shape)
}

fn is_number(component: &[u8]) -> bool {
    !component.is_empty() && component.iter().all(u8::is_ascii_digit)
}
