//! Edits that planning an expression or a pipeline asks for. They are collected in any order while the shapes are worked
//! out, and then recorded in the order of the bytes in one walk: that is what a [`Draft`] needs.

use std::sync::Arc;

use super::Variables;
use crate::bson::{Doc, Element, kind};
use crate::command::{document, filter};
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{FieldRule, Reason, Refusal, Shape};

/// One edit of one element; edits never nest.
pub(crate) struct Edit<'a> {
    /// The element that the edit replaces, or whose document it plans.
    pub(crate) element: Element<'a>,
    /// What happens to it.
    pub(crate) change: Change<'a>,
}

/// What happens to an element.
pub(crate) enum Change<'a> {
    /// A literal is sealed where it stands, by this shape.
    Seal(Shape),
    /// The array of literals becomes every form that may be stored, under the same key.
    Forms {
        /// How they are sealed.
        rule: Arc<FieldRule>,
        /// The element is an operand that would be evaluated: the forms need a `$literal` around them.
        wrap: bool,
    },
    /// `$eq`/`$ne` of a path and a literal becomes membership in every form that may be stored.
    Membership {
        /// The operand that names the sealed value: a string.
        needle: Element<'a>,
        /// The literal.
        literal: Element<'a>,
        /// How it is sealed.
        rule: Arc<FieldRule>,
        /// `$ne`.
        negate: bool,
    },
    /// The element's document is a filter over documents of this shape.
    Filter {
        /// The documents' shape.
        shape: Shape,
        /// Variables in scope.
        variables: Variables,
    },
}

/// Records the edits that fall inside `element`.
///
/// # Errors
/// A [`Refusal`] where a literal cannot be sealed or a filter cannot be planned.
pub(crate) fn record(
    draft: &mut Draft<'_>,
    element: &Element<'_>,
    edits: Vec<Edit<'_>>,
) -> Result<(), Refusal> {
    let edits = in_order(edits, element.start, element.end)?;
    if edits.is_empty() {
        return Ok(());
    }
    within(draft, element, &edits)
}

/// Records the edits that fall inside a document or array.
///
/// # Errors
/// As [`record`].
pub(crate) fn record_in(draft: &mut Draft<'_>, doc: &Doc<'_>, edits: Vec<Edit<'_>>) -> Result<(), Refusal> {
    let edits = in_order(edits, doc.start(), doc.end())?;
    if edits.is_empty() {
        return Ok(());
    }
    inside(draft, doc, &edits)
}

/// Edits in the order of the bytes, none of them over another or outside `from..to`.
fn in_order(mut edits: Vec<Edit<'_>>, from: usize, to: usize) -> Result<Vec<Edit<'_>>, Refusal> {
    edits.sort_by_key(|edit| edit.element.start);
    let overlap = edits.windows(2).any(|pair| match pair {
        [a, b] => b.element.start < a.element.end,
        _ => false,
    });
    let outside = edits
        .iter()
        .any(|edit| edit.element.start < from || edit.element.end > to);
    if overlap || outside {
        return Err(Refusal::new(
            Reason::Proof,
            "two rewrites of one expression contradict each other; please report this pipeline's form",
        ));
    }
    Ok(edits)
}

fn within(draft: &mut Draft<'_>, element: &Element<'_>, edits: &[Edit<'_>]) -> Result<(), Refusal> {
    if let [edit] = edits
        && edit.element.start == element.start
    {
        return change(draft, edit);
    }
    match element.document().map_err(malformed)? {
        Some(doc) => inside(draft, &doc, edits),
        None => Ok(()),
    }
}

fn inside(draft: &mut Draft<'_>, doc: &Doc<'_>, edits: &[Edit<'_>]) -> Result<(), Refusal> {
    let region = draft.open_doc(doc);
    let mut left = edits;
    for inner in doc.elements() {
        if left.is_empty() {
            break;
        }
        let inner = inner.map_err(malformed)?;
        let here = left.partition_point(|edit| edit.element.start < inner.end);
        let (mine, rest) = left.split_at(here);
        if !mine.is_empty() {
            within(draft, &inner, mine)?;
        }
        left = rest;
    }
    draft.close(region, doc.end());
    Ok(())
}

fn change(draft: &mut Draft<'_>, edit: &Edit<'_>) -> Result<(), Refusal> {
    let element = &edit.element;
    match &edit.change {
        Change::Seal(shape) => document::seal_value(draft, element, shape),
        Change::Filter { shape, variables } => {
            let Some(doc) = element.document().map_err(malformed)? else {
                return Ok(());
            };
            let mut around = filter::Around {
                collation: variables.collation(),
                variables: Some(variables),
                ..filter::Around::default()
            };
            filter::plan(draft, &doc, shape, &mut around)
        }
        Change::Forms { rule, wrap } => {
            let Some(array) = element.document().map_err(malformed)? else {
                return Ok(());
            };
            draft.drop_element(element);
            let literals = array
                .elements()
                .collect::<Result<Vec<_>, _>>()
                .map_err(malformed)?;
            if *wrap {
                put_literals(draft, element.end, element.key, &literals, rule)
            } else {
                put_forms(draft, element.end, element.key, &literals, rule)
            }
        }
        Change::Membership {
            needle,
            literal,
            rule,
            negate,
        } => {
            let end = element.end;
            draft.drop_element(element);
            if *negate {
                draft.put_header(end, kind::ARRAY, b"$not");
                draft.begin();
                draft.put_header(end, kind::DOCUMENT, b"0");
                draft.begin();
            }
            draft.put_header(end, kind::ARRAY, b"$in");
            draft.begin();
            // A path, so it is structure and no value: planning made sure of it.
            draft.put_header(end, needle.kind, b"0");
            draft.put(end, needle.value());
            put_literals(draft, end, b"1", &[*literal], rule)?;
            draft.end();
            if *negate {
                draft.end();
                draft.end();
            }
            Ok(())
        }
    }
}

/// `key: {$literal: [forms]}`: a migrating field's plaintext is among the forms, and could read like a path.
fn put_literals(
    draft: &mut Draft<'_>,
    at: usize,
    key: &[u8],
    literals: &[Element<'_>],
    rule: &Arc<FieldRule>,
) -> Result<(), Refusal> {
    draft.put_header(at, kind::DOCUMENT, key);
    draft.begin();
    put_forms(draft, at, b"$literal", literals, rule)?;
    draft.end();
    Ok(())
}

fn put_forms(
    draft: &mut Draft<'_>,
    at: usize,
    key: &[u8],
    literals: &[Element<'_>],
    rule: &Arc<FieldRule>,
) -> Result<(), Refusal> {
    draft.put_header(at, kind::ARRAY, key);
    draft.begin();
    for literal in literals {
        draft.item_forms(literal, rule)?;
    }
    draft.end();
    Ok(())
}
