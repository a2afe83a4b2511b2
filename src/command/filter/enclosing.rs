//! Predicates on a path above protected fields: what looks inside is planned, what compares the whole is refused.

use std::sync::Arc;

use super::refuse::{malformed_operand, refused_above, whole};
use super::{Around, clauses, written_operators};
use crate::bson::{Doc, Element, kind};
use crate::command::operators::{self, Fit, Predicate};
use crate::limits;
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::shape::{Rest, is_position};
use crate::policy::{Reason, Refusal, Shape, Tree};

/// A predicate on a path above protected fields.
pub(super) fn enclosing(
    draft: &mut Draft<'_>,
    element: &Element<'_>,
    tree: &Arc<Tree>,
    around: &mut Around<'_>,
    depth: usize,
) -> Result<(), Refusal> {
    match written_operators(element)? {
        Some(doc) => enclosing_operators(draft, &doc, element, tree, around, depth),
        None if element.kind == kind::REGEX => Ok(()),
        None => literal(element, element, tree),
    }
}

/// A value that the whole is compared with: what holds nothing that would be sealed is equal to what is stored exactly
/// where it was equal before.
fn literal(value: &Element<'_>, element: &Element<'_>, tree: &Tree) -> Result<(), Refusal> {
    let equal = match value.kind {
        kind::REGEX => false,
        kind::DOCUMENT | kind::ARRAY => holds_nothing_sealed(value, tree, 1)?,
        _ => true,
    };
    if equal { Ok(()) } else { Err(whole(element)) }
}

/// Whether `value`, standing where `tree` is known, would be stored as it is.
fn holds_nothing_sealed(value: &Element<'_>, tree: &Tree, depth: usize) -> Result<bool, Refusal> {
    let Some(doc) = value.document().map_err(malformed)? else {
        return Ok(true);
    };
    if depth > limits::MAX_DEPTH {
        return Ok(false);
    }
    for inner in doc.elements() {
        let inner = inner.map_err(malformed)?;
        let as_it_is = match tree.get(inner.key) {
            _ if value.kind == kind::ARRAY => holds_nothing_sealed(&inner, tree, depth + 1)?,
            Some(shape) => is_unsealed(&inner, shape, depth)?,
            // Of what the tree does not list nothing may be known.
            None if tree.rest() == Rest::Unknown => false,
            // A number may be a position; what reads like a path or an operator is never taken for a name.
            None if is_position(inner.key) => holds_nothing_sealed(&inner, tree, depth + 1)?,
            None => !inner.key.contains(&b'.') && inner.key.first() != Some(&b'$'),
        };
        if !as_it_is {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_unsealed(value: &Element<'_>, shape: &Shape, depth: usize) -> Result<bool, Refusal> {
    match shape {
        Shape::Plain => Ok(true),
        Shape::Unknown => Ok(false),
        Shape::Tree(tree) => holds_nothing_sealed(value, tree, depth + 1),
        Shape::Sealed(rule) => Ok(match value.document().map_err(malformed)? {
            Some(items) if value.kind == kind::ARRAY && rule.seals_elements() => items
                .elements()
                .all(|item| item.is_ok_and(|item| item.kind == kind::NULL)),
            Some(_) => false,
            None => value.kind == kind::NULL,
        }),
    }
}

/// Operators about a value that holds protected fields: on a path, or on the items of `$elemMatch` and `$pull`.
pub(super) fn enclosing_operators(
    draft: &mut Draft<'_>,
    doc: &Doc<'_>,
    element: &Element<'_>,
    tree: &Arc<Tree>,
    around: &mut Around<'_>,
    depth: usize,
) -> Result<(), Refusal> {
    if depth > limits::MAX_DEPTH {
        return Err(Refusal::new(
            Reason::Malformed,
            "filters nest deeper than 200 levels",
        ));
    }
    let region = draft.open_doc(doc);
    for operator in doc.elements() {
        let operator = operator.map_err(malformed)?;
        let row = operators::filter(operator.key).filter(|row| row.around != Fit::No);
        match row.map(|row| row.kind) {
            Some(Predicate::Kind) => {}
            Some(Predicate::Outside) => super::outside(&operator)?,
            Some(Predicate::Items) => match operator.document().map_err(malformed)? {
                Some(inner) if is_about_items(&operator)? => {
                    enclosing_operators(draft, &inner, element, tree, around, depth + 1)?;
                }
                Some(inner) => {
                    let shape = Shape::Tree(Arc::clone(tree));
                    clauses(draft, &inner, &shape, around, false, depth + 1)?;
                }
                None => return Err(malformed_operand(&operator, "a document")),
            },
            Some(Predicate::Not) => match written_operators(&operator)? {
                Some(inner) => enclosing_operators(draft, &inner, element, tree, around, depth + 1)?,
                None => return Err(refused_above(element, "$not")),
            },
            Some(Predicate::One(_)) => literal(&operator, element, tree)?,
            Some(how @ (Predicate::List | Predicate::All)) => {
                let Some(array) = operator
                    .document()
                    .map_err(malformed)?
                    .filter(|_| operator.kind == kind::ARRAY)
                else {
                    return Err(malformed_operand(&operator, "an array"));
                };
                let inner_region = draft.open_doc(&array);
                for item in array.elements() {
                    let item = item.map_err(malformed)?;
                    let is_elem_match = how == Predicate::All && written_operators(&item)?.is_some();
                    if is_elem_match {
                        if let Some(inner) = item.document().map_err(malformed)? {
                            enclosing_operators(draft, &inner, element, tree, around, depth + 1)?;
                        }
                    } else {
                        literal(&item, element, tree)?;
                    }
                }
                draft.close(inner_region, array.end());
            }
            Some(Predicate::Inside) | None => return Err(refused_above(element, &operator.key_text())),
        }
    }
    draft.close(region, doc.end());
    Ok(())
}

/// Whether an `$elemMatch`, or the condition of a `$pull`, names operators on the items themselves instead of their
/// fields: the server looks at the first key.
pub(super) fn is_about_items(operator: &Element<'_>) -> Result<bool, Refusal> {
    let Some(doc) = written_operators(operator)? else {
        return Ok(false);
    };
    let first = doc.elements().next().transpose().map_err(malformed)?;
    Ok(first.is_some_and(|first| operators::filter_top(first.key).is_none()))
}
