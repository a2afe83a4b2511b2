//! Predicates on a path above protected fields: what looks inside is planned, what compares the whole is refused.

use std::sync::Arc;

use super::refuse::{refused_above, whole};
use super::{Around, clauses, written_operators};
use crate::bson::{Doc, Element, kind};
use crate::command::operators::{self, Fit, Predicate};
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::shape::is_position;
use crate::policy::{Refusal, Shape, Tree};

/// A predicate on a path above protected fields.
pub(super) fn enclosing(
    draft: &mut Draft<'_>,
    element: &Element<'_>,
    tree: &Arc<Tree>,
    around: &mut Around<'_>,
    depth: usize,
) -> Result<(), Refusal> {
    let Some(doc) = written_operators(element)? else {
        return match element.kind {
            kind::DOCUMENT | kind::ARRAY if !is_bare(element, tree)? => Err(whole(element)),
            _ => Ok(()),
        };
    };
    enclosing_operators(draft, &doc, element, tree, around, depth)
}

fn enclosing_operators(
    draft: &mut Draft<'_>,
    doc: &Doc<'_>,
    element: &Element<'_>,
    tree: &Arc<Tree>,
    around: &mut Around<'_>,
    depth: usize,
) -> Result<(), Refusal> {
    let region = draft.open_doc(doc);
    for operator in doc.elements() {
        let operator = operator.map_err(malformed)?;
        let row = operators::filter(operator.key).filter(|row| row.around != Fit::No);
        match row.map(|row| row.kind) {
            Some(Predicate::Outside) => {}
            Some(Predicate::Items) => {
                if let Some(inner) = operator.document().map_err(malformed)? {
                    let shape = Shape::Tree(Arc::clone(tree));
                    clauses(draft, &inner, &shape, around, false, depth + 1)?;
                }
            }
            Some(Predicate::Not) => match written_operators(&operator)? {
                Some(inner) => enclosing_operators(draft, &inner, element, tree, around, depth + 1)?,
                None => return Err(refused_above(element, "$not")),
            },
            Some(Predicate::One(_)) => {
                if matches!(operator.kind, kind::DOCUMENT | kind::ARRAY | kind::REGEX)
                    && !is_bare(&operator, tree)?
                {
                    return Err(whole(element));
                }
            }
            Some(how @ (Predicate::List | Predicate::All)) => {
                let Some(array) = operator.document().map_err(malformed)? else {
                    continue;
                };
                let inner_region = draft.open_doc(&array);
                for item in array.elements() {
                    let item = item.map_err(malformed)?;
                    let is_elem_match = how == Predicate::All && written_operators(&item)?.is_some();
                    if is_elem_match {
                        if let Some(inner) = item.document().map_err(malformed)? {
                            enclosing_operators(draft, &inner, element, tree, around, depth + 1)?;
                        }
                    } else if matches!(item.kind, kind::DOCUMENT | kind::ARRAY | kind::REGEX)
                        && !is_bare(&item, tree)?
                    {
                        return Err(whole(element));
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

/// A literal without any of the protected fields, like `[]` or `{_id: 1}`: what is equal to it holds nothing sealed.
fn is_bare(literal: &Element<'_>, tree: &Tree) -> Result<bool, Refusal> {
    let Some(doc) = literal.document().map_err(malformed)? else {
        return Ok(literal.kind != kind::REGEX);
    };
    for inner in doc.elements() {
        let inner = inner.map_err(malformed)?;
        let bare = if literal.kind == kind::ARRAY {
            is_bare(&inner, tree)?
        } else {
            !inner.key.contains(&b'.') && !is_position(inner.key) && tree.child(inner.key).is_plain()
        };
        if !bare {
            return Ok(false);
        }
    }
    Ok(true)
}
