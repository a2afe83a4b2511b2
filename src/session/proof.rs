//! Where the documents and filters of a rewritten command stand, for the proof after it.

use crate::bson::{Doc, Element, kind};
use crate::plan::prove::{Place, Unproved, prove, prove_pipeline};
use crate::policy::{FieldMap, Shape};
use crate::wire::op_msg::{OpMsg, Section};

/// Proves a rewritten OP_MSG: every protected path in its documents, updates and filters holds an envelope.
///
/// # Errors
/// [`Unproved`] with the path, or with what made the message unreadable.
pub fn prove_command(frame: &[u8], shape: &Shape) -> Result<(), Unproved> {
    let message = OpMsg::parse(frame).map_err(|why| Unproved::Unreadable(why.to_string()))?;
    for section in message.sections() {
        match section {
            Section::Body { doc_at, .. } => body(&Doc::at(frame, doc_at)?, shape)?,
            Section::Sequence { identifier, .. } => {
                for range in message.documents(section) {
                    item(identifier.as_bytes(), &Doc::at(frame, range.start)?, shape)?;
                }
            }
        }
    }
    Ok(())
}

/// Proves a rewritten `bulkWrite`: as [`prove_command`], each operation under the rules of the namespace it names.
///
/// # Errors
/// As [`prove_command`].
pub(super) fn prove_bulk(frame: &[u8], map: &FieldMap) -> Result<(), Unproved> {
    let message = OpMsg::parse(frame).map_err(|why| Unproved::Unreadable(why.to_string()))?;
    let (mut namespaces, mut operations) = (Vec::new(), Vec::new());
    for section in message.sections() {
        match section {
            Section::Body { doc_at, .. } => {
                for element in Doc::at(frame, doc_at)?.elements() {
                    let element = element?;
                    let list = match element.key {
                        b"nsInfo" => &mut namespaces,
                        b"ops" => &mut operations,
                        _ => continue,
                    };
                    let Some(array) = element.document()? else {
                        continue;
                    };
                    for item in array.elements() {
                        list.extend(item?.document()?);
                    }
                }
            }
            Section::Sequence { identifier, .. } => {
                let list = match identifier {
                    "nsInfo" => &mut namespaces,
                    "ops" => &mut operations,
                    _ => continue,
                };
                for range in message.documents(section) {
                    list.push(Doc::at(frame, range.start)?);
                }
            }
        }
    }
    let mut policies = Vec::with_capacity(namespaces.len());
    for namespace in &namespaces {
        let ns = namespace.get(b"ns")?;
        let named = ns.and_then(|ns| ns.text()).and_then(|text| text.split_once('.'));
        policies.push(named.and_then(|(db, collection)| map.lookup(db, collection)));
    }
    for op in &operations {
        let Some(first) = op.elements().next().transpose()? else {
            continue;
        };
        let index = first.integer().and_then(|index| usize::try_from(index).ok());
        // An index that names nothing is refused while planning, and by the server.
        let Some(Some(policy)) = index.and_then(|index| policies.get(index)) else {
            continue;
        };
        for element in op.elements() {
            let element = element?;
            let Some(doc) = element.document()? else { continue };
            match element.key {
                b"document" => prove(&doc, &policy.shape, Place::Stored)?,
                b"filter" => prove(&doc, &policy.shape, Place::Filter)?,
                b"updateMods" => update(&element, &doc, &policy.shape)?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn body(body: &Doc<'_>, shape: &Shape) -> Result<(), Unproved> {
    for element in body.elements() {
        let element = element?;
        let Some(doc) = element.document()? else { continue };
        match element.key {
            b"filter" | b"query" => prove(&doc, shape, Place::Filter)?,
            b"update" => update(&element, &doc, shape)?,
            b"explain" => self::body(&doc, shape)?,
            b"pipeline" => leading_matches(&doc, shape)?,
            b"documents" | b"updates" | b"deletes" => {
                for one in doc.elements() {
                    if let Some(one) = one?.document()? {
                        item(element.key, &one, shape)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn item(array: &[u8], doc: &Doc<'_>, shape: &Shape) -> Result<(), Unproved> {
    if array == b"documents" {
        return prove(doc, shape, Place::Stored);
    }
    for element in doc.elements() {
        let element = element?;
        let Some(inner) = element.document()? else {
            continue;
        };
        match element.key {
            b"q" => prove(&inner, shape, Place::Filter)?,
            b"u" => update(&element, &inner, shape)?,
            _ => {}
        }
    }
    Ok(())
}

fn update(element: &Element<'_>, doc: &Doc<'_>, shape: &Shape) -> Result<(), Unproved> {
    if element.kind == kind::ARRAY {
        prove_pipeline(doc, shape)
    } else {
        prove(doc, shape, Place::Stored)
    }
}

/// Stages after the first that is no `$match` may rename paths; what they hold was tracked while planning.
fn leading_matches(pipeline: &Doc<'_>, shape: &Shape) -> Result<(), Unproved> {
    for stage in pipeline.elements() {
        let Some(stage) = stage?.document()? else {
            return Ok(());
        };
        let Some(first) = stage.elements().next().transpose()? else {
            return Ok(());
        };
        match first.document()? {
            Some(filter) if first.key == b"$match" => prove(&filter, shape, Place::Filter)?,
            _ => return Ok(()),
        }
    }
    Ok(())
}
