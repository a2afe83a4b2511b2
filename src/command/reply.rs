//! Replies: every envelope is opened wherever it surfaces, and plaintext found where none may be is counted; errors
//! are left to `failure.rs`. Source: SEMANTICS B3.6, B6; DESIGN §4.

use super::failure;
use super::scrub::Rules;
use super::table::Reply;
use crate::bson::build::Builder;
use crate::bson::{Doc, Element, kind};
use crate::crypto::envelope::{self, Header};
use crate::limits;
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{FieldState, Reason, Refusal, Shape};

/// What a reply says about the command's fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `ok: 1`.
    pub ok: bool,
    /// The error code, of the command or of its first write error.
    pub code: Option<i32>,
    /// Documents in the batch, or 1 for a `findAndModify` that found one.
    pub documents: u32,
    /// The cursor that the reply leaves open; 0 where there is nothing more to come.
    pub cursor: Option<i64>,
    /// `done` of a SASL conversation.
    pub done: bool,
}

/// How a reply is read.
pub struct Reading<'m> {
    /// What the command's reply holds.
    pub reply: Reply,
    /// Which rule's values stand where in the documents, where that is known: anything else is counted or refused.
    pub stored: Option<&'m Shape>,
    /// The namespace is protected: whatever looks like an envelope is one, and a broken one is an error.
    pub strict: bool,
    /// The rules of the namespaces: their names and states decide what an error may show.
    pub rules: Rules<'m>,
}

/// Reads the facts of a reply.
///
/// # Errors
/// A [`Refusal`] for malformed bytes.
pub fn facts(body: &Doc<'_>) -> Result<Facts, Refusal> {
    let mut facts = Facts::default();
    let mut bulk = false;
    for element in body.elements() {
        let element = element.map_err(malformed)?;
        match element.key {
            b"ok" => facts.ok = element.truthy(),
            b"code" => facts.code = element.integer().and_then(|n| i32::try_from(n).ok()),
            b"done" => facts.done = element.truthy(),
            b"value" if element.kind == kind::DOCUMENT => facts.documents = 1,
            b"cursor" => (facts.documents, facts.cursor) = batch(&element)?,
            b"nErrors" => bulk = true,
            b"writeErrors" => {
                let first = element
                    .document()
                    .map_err(malformed)?
                    .and_then(|list| list.elements().next());
                if let Some(Ok(first)) = first
                    && let Some(error) = first.document().map_err(malformed)?
                {
                    let code = error.get(b"code").map_err(malformed)?;
                    facts.code = facts
                        .code
                        .or(code.and_then(|c| c.integer()).and_then(|n| i32::try_from(n).ok()));
                }
            }
            _ => {}
        }
    }
    if bulk {
        // What a bulkWrite's cursor holds are the fates of its operations, no documents.
        facts.documents = 0;
        facts.code = facts.code.or(first_failure(body)?);
    }
    Ok(facts)
}

fn inside<'a>(doc: &Doc<'a>, key: &[u8]) -> Result<Option<Doc<'a>>, Refusal> {
    match doc.get(key).map_err(malformed)? {
        Some(element) => element.document().map_err(malformed),
        None => Ok(None),
    }
}

/// The code of the first operation that failed, in the first batch of a `bulkWrite`.
fn first_failure(body: &Doc<'_>) -> Result<Option<i32>, Refusal> {
    let Some(cursor) = inside(body, b"cursor")? else {
        return Ok(None);
    };
    let Some(batch) = inside(&cursor, b"firstBatch")? else {
        return Ok(None);
    };
    for item in batch.elements() {
        let Some(fate) = item.map_err(malformed)?.document().map_err(malformed)? else {
            continue;
        };
        if let Some(code) = fate.get(b"code").map_err(malformed)? {
            return Ok(code.integer().and_then(|code| i32::try_from(code).ok()));
        }
    }
    Ok(None)
}

/// Plans a reply's body.
///
/// # Errors
/// A [`Refusal`] where an envelope is broken or the reply is malformed; the reply must then not be passed on.
pub fn plan(draft: &mut Draft<'_>, body: &Doc<'_>, reading: &Reading<'_>) -> Result<(), Refusal> {
    let walk = Walk {
        opens: reading.reply != Reply::Sealed,
        strict: reading.strict,
    };
    let failed = body.get(b"ok").map_err(malformed)?.is_some_and(|ok| !ok.truthy());
    let region = draft.open_doc(body);
    for element in body.elements() {
        let element = element.map_err(malformed)?;
        if failed || failure::is_failure(element.key) {
            failure::plan(draft, &element, &reading.rules, 1)?;
            continue;
        }
        if element.key == b"cursor"
            && let Some(cursor) = element.document().map_err(malformed)?
            && holds_fates(&cursor)?
        {
            // A later batch does not say whose fates it holds.
            let unknown = cursor.get(b"nextBatch").map_err(malformed)?.is_some();
            let rules = Rules {
                unknown,
                ..reading.rules
            };
            failure::plan(draft, &element, &rules, 1)?;
            continue;
        }
        let batch = match (reading.stored, element.key) {
            (Some(shape), b"cursor" | b"value") => Some(shape),
            _ => None,
        };
        match batch {
            Some(shape) if element.key == b"value" => walk.value(draft, &element, Some(shape), 1)?,
            Some(shape) => cursor(draft, &element, shape, &walk)?,
            None => walk.value(draft, &element, None, 1)?,
        }
    }
    draft.close(region, body.end());
    Ok(())
}

/// Whether a cursor is a `bulkWrite`'s: it holds the fates of operations, errors among them, and no documents.
fn holds_fates(cursor: &Doc<'_>) -> Result<bool, Refusal> {
    let namespace = cursor.get(b"ns").map_err(malformed)?;
    Ok(namespace
        .and_then(|ns| ns.text())
        .is_some_and(|ns| ns.ends_with(".$cmd.bulkWrite")))
}

/// The `values` of a `distinct` reply without repetition, once opened; `None` where nothing repeats.
pub fn without_repetition(body: &Doc<'_>) -> Option<Vec<u8>> {
    let mut out = Builder::new();
    let mut changed = false;
    for element in body.elements() {
        let element = element.ok()?;
        let key = std::str::from_utf8(element.key).ok()?;
        if element.key != b"values" || element.kind != kind::ARRAY {
            out.raw(element.kind, key, element.value());
            continue;
        }
        let mut seen = std::collections::HashSet::new();
        out.array(key);
        for item in element.document().ok()??.elements() {
            let item = item.ok()?;
            if seen.insert(Same::of(&item)) {
                let index = (seen.len() - 1).to_string();
                out.raw(item.kind, &index, item.value());
            } else {
                changed = true;
            }
        }
        out.end();
    }
    changed.then(|| out.finish())
}

/// What two `distinct` values have in common when MongoDB takes them for one: numbers of all types are compared by value.
/// While a field is migrating, 5 may be stored as it was written and sealed in its declared type.
#[derive(PartialEq, Eq, Hash)]
enum Same<'a> {
    Number(i64),
    Value(u8, &'a [u8]),
}

impl<'a> Same<'a> {
    fn of(item: &Element<'a>) -> Self {
        match item.integer() {
            Some(number) => Self::Number(number),
            None => Self::Value(item.kind, item.value()),
        }
    }
}

struct Walk {
    opens: bool,
    strict: bool,
}

impl Walk {
    #[inline]
    fn value(
        &self,
        draft: &mut Draft<'_>,
        element: &Element<'_>,
        stored: Option<&Shape>,
        depth: usize,
    ) -> Result<(), Refusal> {
        match element.kind {
            kind::BINARY => self.binary(draft, element, stored),
            kind::DOCUMENT | kind::ARRAY => {
                if let Some(doc) = element.document().map_err(malformed)? {
                    self.document(draft, &doc, stored, element.kind == kind::ARRAY, depth + 1)?;
                }
                Ok(())
            }
            _ => {
                if let Some(Shape::Sealed(rule)) = stored
                    && element.kind != kind::NULL
                    && rule.state == FieldState::Enforced
                {
                    draft.note_plaintext(rule);
                }
                Ok(())
            }
        }
    }

    fn document(
        &self,
        draft: &mut Draft<'_>,
        doc: &Doc<'_>,
        stored: Option<&Shape>,
        is_array: bool,
        depth: usize,
    ) -> Result<(), Refusal> {
        if depth > limits::MAX_DEPTH {
            return Err(Refusal::new(
                Reason::Malformed,
                "the reply nests deeper than 200 levels",
            ));
        }
        let region = draft.open_doc(doc);
        for element in doc.elements() {
            let element = element.map_err(malformed)?;
            let inner = match stored {
                Some(Shape::Tree(tree)) if !is_array => tree.get(element.key),
                Some(shape @ (Shape::Tree(_) | Shape::Sealed(_))) => Some(shape),
                _ => None,
            };
            self.value(draft, &element, inner, depth)?;
        }
        draft.close(region, doc.end());
        Ok(())
    }

    fn binary(
        &self,
        draft: &mut Draft<'_>,
        element: &Element<'_>,
        stored: Option<&Shape>,
    ) -> Result<(), Refusal> {
        let place = match stored {
            Some(Shape::Sealed(rule)) if rule.state == FieldState::Enforced => Some(rule),
            _ => None,
        };
        let Some((subtype, payload)) = element.binary() else {
            return Ok(());
        };
        if subtype != 0x80 && subtype != 6 || !self.opens {
            if let Some(rule) = place {
                draft.note_plaintext(rule);
            }
            return Ok(());
        }
        // In a namespace that is not ours, CSFLE ciphertext belongs to the driver that wrote it.
        if !self.strict && subtype == 6 {
            return Ok(());
        }
        match envelope::header(subtype, payload) {
            Header::Envelope { key, .. } => {
                draft.unseal(element, &key, place);
                Ok(())
            }
            Header::NotEnvelope => Ok(()),
            Header::Broken(_) if !self.strict => Ok(()),
            Header::Broken(why) => Err(Refusal::new(
                Reason::Tampered,
                format!(
                    "a stored value under key '{}' is no ciphertext that can be opened: {why}",
                    element.key_text()
                ),
            )),
        }
    }
}

fn cursor(draft: &mut Draft<'_>, cursor: &Element<'_>, shape: &Shape, walk: &Walk) -> Result<(), Refusal> {
    let Some(doc) = cursor.document().map_err(malformed)? else {
        return Ok(());
    };
    let region = draft.open_doc(&doc);
    for element in doc.elements() {
        let element = element.map_err(malformed)?;
        let is_batch = matches!(element.key, b"firstBatch" | b"nextBatch");
        walk.value(draft, &element, is_batch.then_some(shape), 2)?;
    }
    draft.close(region, doc.end());
    Ok(())
}

/// How many documents a cursor's reply holds, and the cursor's id.
fn batch(cursor: &Element<'_>) -> Result<(u32, Option<i64>), Refusal> {
    let (mut documents, mut id) = (0, None);
    let Some(doc) = cursor.document().map_err(malformed)? else {
        return Ok((documents, id));
    };
    for element in doc.elements() {
        let element = element.map_err(malformed)?;
        match element.key {
            b"firstBatch" | b"nextBatch" => {
                if let Some(batch) = element.document().map_err(malformed)? {
                    documents = u32::try_from(batch.elements().count()).unwrap_or(u32::MAX);
                }
            }
            b"id" => id = element.integer(),
            _ => {}
        }
    }
    Ok((documents, id))
}
