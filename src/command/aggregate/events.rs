//! Change streams: the shape of an event follows from the shape of the documents that change. Source: SEMANTICS B3.9.

use std::sync::Arc;

use super::scan;
use super::stages::Kind;
use super::{Flow, Removed, scan::stage_of};
use crate::bson::{Doc, Element};
use crate::command::expression::{Arguments, shapes};
use crate::plan::draft::malformed;
use crate::policy::{Refusal, Rest, Shape, Tree};

/// Whether a pipeline watches something.
pub(super) fn opens(array: &Doc<'_>) -> Result<bool, Refusal> {
    match array.elements().next() {
        Some(item) => Ok(scan::kind_of(&stage_of(&item.map_err(malformed)?)?)? == Kind::ChangeStream),
        None => Ok(false),
    }
}

/// The events of a watched collection; of a whole database or cluster (`on_collection` false), whose documents are of
/// any collection, nothing can be told but what surrounds them.
pub(super) fn change_stream(stage: &Element<'_>, flow: &Flow, on_collection: bool) -> Result<Flow, Refusal> {
    Arguments::read(
        "$changeStream",
        stage,
        &[
            "allChangesForCluster",
            "fullDocument",
            "fullDocumentBeforeChange",
            "resumeAfter",
            "showExpandedEvents",
            "startAfter",
            "startAtOperationTime",
        ],
    )?;
    let document = if on_collection {
        flow.shape()
    } else {
        Shape::Unknown
    };
    // Of the key only `_id` is sure to be no field of the document's: it is never protected. Shard keys may be.
    let mut key = parts(&document);
    key.set(b"_id", Shape::Plain);
    let changed = Tree::new(
        Rest::Plain,
        [(
            Box::from(&b"updatedFields"[..]),
            Shape::Tree(Arc::new(parts(&document))),
        )],
    );
    let event = Tree::new(
        Rest::Plain,
        [
            (Box::from(&b"fullDocument"[..]), document.clone()),
            (Box::from(&b"fullDocumentBeforeChange"[..]), document),
            (Box::from(&b"documentKey"[..]), Shape::Tree(Arc::new(key))),
            (
                Box::from(&b"updateDescription"[..]),
                Shape::Tree(Arc::new(changed)),
            ),
        ],
    );
    Ok(Flow {
        tree: Some(event),
        closed: false,
        removed: Removed::default(),
    })
}

/// Fields of a document, some of them under dotted keys of their own (`contacts.0.phone`): no path leads to those, but
/// what takes a document apart finds them.
fn parts(document: &Shape) -> Tree {
    let mut parts = match document {
        Shape::Tree(tree) => tree.to_owned_tree(),
        Shape::Plain => Tree::default(),
        Shape::Sealed(_) | Shape::Unknown => return Tree::new(Rest::Unknown, []),
    };
    if !document.is_plain() {
        parts.set(shapes::DOTTED, Shape::Unknown);
    }
    parts
}
