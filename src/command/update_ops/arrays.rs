//! Update operators on arrays: `$push`, `$addToSet`, `$pull`, `$pullAll`.

use std::sync::Arc;

use super::refuse::{refused, refused_above, refused_at};
use crate::bson::{Element, kind};
use crate::command::document::{seal_value, shape_of};
use crate::command::expression::shapes::item_of;
use crate::command::filter::{self, Around};
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{DeclaredType, FieldRule, Mode, Reason, Refusal, Shape, Target, Tree};

/// The server's code for a modifier that it does not take.
const BAD_VALUE: i32 = 2;

/// `$addToSet` needs items that are equal exactly where their plaintexts are.
pub(super) fn distinguishable(
    draft: &mut Draft<'_>,
    operator: &Element<'_>,
    field: &Element<'_>,
    target: &Target,
    collation: bool,
) -> Result<(), Refusal> {
    if collation {
        refuse_collation(operator, field, target)?;
    }
    let expanded = match target {
        Target::Sealed(rule) => draft.is_expanded(rule).then(|| Arc::clone(rule)),
        Target::Above(tree) if !all_deterministic(tree) => return Err(refused_above(operator, field)),
        Target::Above(tree) => expanded(draft, tree),
        _ => None,
    };
    match expanded {
        Some(rule) => Err(Refusal::new(
            Reason::Rotation,
            format!(
                "field '{}': $addToSet cannot tell duplicates while the field is migrating or its key is rotating; finish that first, or use $push",
                rule.path
            ),
        )),
        None => Ok(()),
    }
}

/// `$push` / `$addToSet`, plain or with `$each` and its modifiers.
pub(super) fn push(
    draft: &mut Draft<'_>,
    operator: &Element<'_>,
    field: &Element<'_>,
    target: &Target,
) -> Result<(), Refusal> {
    let shape = shape_of(target);
    let each = match field
        .document()
        .map_err(malformed)?
        .filter(|_| field.kind == kind::DOCUMENT)
    {
        Some(doc) if doc.get(b"$each").map_err(malformed)?.is_some() => doc,
        _ => return item(draft, field, &shape, operator),
    };
    let region = draft.open_doc(&each);
    for modifier in each.elements() {
        let modifier = modifier.map_err(malformed)?;
        match modifier.key {
            b"$each" => {
                // The server refuses anything else, but its log would have shown it.
                let Some(list) = modifier
                    .document()
                    .map_err(malformed)?
                    .filter(|_| modifier.kind == kind::ARRAY)
                else {
                    return Err(Refusal::new(
                        Reason::Malformed,
                        format!(
                            "{} on '{}': $each takes an array",
                            operator.key_text(),
                            field.key_text()
                        ),
                    )
                    .with_code(BAD_VALUE));
                };
                let inner = draft.open_doc(&list);
                for one in list.elements() {
                    item(draft, &one.map_err(malformed)?, &shape, operator)?;
                }
                draft.close(inner, list.end());
            }
            b"$position" | b"$slice" => {}
            b"$sort" => sort_modifier(&modifier, field, &shape)?,
            _ => {
                return Err(Refusal::new(
                    Reason::UpdateOperator,
                    format!(
                        "{} on '{}': '{}' beside $each is not supported; there are $position, $slice and $sort",
                        operator.key_text(),
                        field.key_text(),
                        modifier.key_text()
                    ),
                )
                .with_code(BAD_VALUE));
            }
        }
    }
    draft.close(region, each.end());
    Ok(())
}

/// One new array item.
fn item(
    draft: &mut Draft<'_>,
    value: &Element<'_>,
    shape: &Shape,
    operator: &Element<'_>,
) -> Result<(), Refusal> {
    if let Shape::Sealed(rule) = shape
        && value.kind == kind::ARRAY
    {
        return Err(Refusal::new(
            Reason::Type,
            format!(
                "field '{}': {} of an array as one item; use $each for several items",
                rule.path,
                operator.key_text()
            ),
        ));
    }
    seal_value(draft, value, shape)
}

fn sort_modifier(modifier: &Element<'_>, field: &Element<'_>, shape: &Shape) -> Result<(), Refusal> {
    let sorts_protected = match (shape, modifier.document().map_err(malformed)?) {
        (Shape::Tree(_), Some(keys)) => {
            let mut protected = false;
            for key in keys.elements() {
                protected |= !matches!(shape.resolve(key.map_err(malformed)?.key), Target::Plain);
            }
            protected
        }
        _ => true,
    };
    if sorts_protected {
        return Err(Refusal::new(
            Reason::Order,
            format!(
                "field '{}': $sort by a protected field would order ciphertext; sort by a field that is not protected",
                field.key_text()
            ),
        ));
    }
    Ok(())
}

/// `$pull`: its operand is a condition on each item.
pub(super) fn pull(
    draft: &mut Draft<'_>,
    operator: &Element<'_>,
    field: &Element<'_>,
    target: &Target,
    collation: bool,
) -> Result<(), Refusal> {
    let mut around = Around {
        collation,
        ..Around::default()
    };
    match target {
        Target::Sealed(rule) => filter::predicate(draft, field, &item_of(rule), &mut around, false, 1),
        Target::Above(tree) => {
            if field.kind == kind::ARRAY {
                return Err(refused_above(operator, field));
            }
            filter::items(draft, field, tree, &mut around)
        }
        Target::Plain | Target::Below(_) | Target::Unknown => Err(refused_at(operator, field, target)),
    }
}

pub(super) fn pull_all(
    draft: &mut Draft<'_>,
    operator: &Element<'_>,
    field: &Element<'_>,
    target: &Target,
    collation: bool,
) -> Result<(), Refusal> {
    let Target::Sealed(rule) = target else {
        return Err(refused_at(operator, field, target));
    };
    if collation {
        refuse_collation(operator, field, target)?;
    }
    let Some(list) = field
        .document()
        .map_err(malformed)?
        .filter(|_| field.kind == kind::ARRAY)
    else {
        return Err(refused(operator, field, rule));
    };
    if !draft.is_expanded(rule) {
        return draft.seal_stored(field, rule);
    }
    draft.drop_element(field);
    draft.put_header(field.end, kind::ARRAY, field.key);
    draft.begin();
    for one in list.elements() {
        draft.item_forms(&one.map_err(malformed)?, rule)?;
    }
    draft.end();
    Ok(())
}

/// Items that are equal under a collation have different ciphertexts.
fn refuse_collation(operator: &Element<'_>, field: &Element<'_>, target: &Target) -> Result<(), Refusal> {
    let string = match target {
        Target::Sealed(rule) => holds_string(&Shape::Sealed(Arc::clone(rule))),
        Target::Above(tree) => holds_string(&Shape::Tree(Arc::clone(tree))),
        _ => None,
    };
    let Some(rule) = string else { return Ok(()) };
    Err(Refusal::new(
        Reason::Collation,
        format!(
            "{} on '{}': a collation has no effect on sealed values, so field '{}' would be compared otherwise than the collation says; leave the collation out, or use {{locale: \"simple\"}}",
            operator.key_text(),
            field.key_text(),
            rule.path
        ),
    )
    .about(&rule))
}

/// A rule for strings in it.
fn holds_string(shape: &Shape) -> Option<Arc<FieldRule>> {
    match shape {
        Shape::Sealed(rule) => {
            (rule.mode == Mode::Deterministic(DeclaredType::String)).then(|| Arc::clone(rule))
        }
        Shape::Tree(tree) => tree.fields().find_map(|(_, shape)| holds_string(shape)),
        Shape::Plain | Shape::Unknown => None,
    }
}

fn all_deterministic(tree: &Tree) -> bool {
    tree.fields().all(|(_, shape)| match shape {
        Shape::Sealed(rule) => rule.is_deterministic(),
        Shape::Tree(inner) => all_deterministic(inner),
        Shape::Plain => true,
        Shape::Unknown => false,
    })
}

/// A field inside that may be stored in several forms.
fn expanded(draft: &mut Draft<'_>, tree: &Tree) -> Option<Arc<FieldRule>> {
    tree.fields().find_map(|(_, shape)| match shape {
        Shape::Sealed(rule) => draft.is_expanded(rule).then(|| Arc::clone(rule)),
        Shape::Tree(inner) => expanded(draft, inner),
        Shape::Plain | Shape::Unknown => None,
    })
}
