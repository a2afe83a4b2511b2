//! Update operators on arrays: `$push`, `$addToSet`, `$pull`, `$pullAll`.

use std::sync::Arc;

use super::refuse::{below, refused, refused_above, whole_array};
use crate::bson::{Element, kind};
use crate::command::document::{seal_value, shape_of};
use crate::command::filter::{self, Around};
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{Reason, Refusal, Shape, Target, Tree};

/// `$push` / `$addToSet`, plain or with `$each` and its modifiers.
pub(super) fn push(
    draft: &mut Draft<'_>,
    operator: &Element<'_>,
    field: &Element<'_>,
    target: &Target,
) -> Result<(), Refusal> {
    match target {
        Target::Below(rule) => return Err(below(operator, field, rule)),
        Target::Sealed(rule) if !rule.seals_elements() => return Err(whole_array(operator, field, rule)),
        Target::Sealed(rule) if operator.key == b"$addToSet" => {
            if !rule.is_deterministic() {
                return Err(refused(operator, field, rule));
            }
            if draft.is_expanded(rule) {
                return Err(Refusal::new(
                    Reason::Rotation,
                    format!(
                        "field '{}': $addToSet cannot tell duplicates while the field is migrating or its key is rotating; finish that first, or use $push",
                        rule.path
                    ),
                ));
            }
        }
        Target::Above(tree) if operator.key == b"$addToSet" && !all_deterministic(tree) => {
            return Err(refused_above(operator, field));
        }
        _ => {}
    }
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
                let Some(list) = modifier.document().map_err(malformed)? else {
                    continue;
                };
                let inner = draft.open_doc(&list);
                for one in list.elements() {
                    item(draft, &one.map_err(malformed)?, &shape, operator)?;
                }
                draft.close(inner, list.end());
            }
            b"$position" | b"$slice" => {}
            b"$sort" => sort_modifier(&modifier, field, &shape)?,
            _ => return Err(refused_above(operator, field)),
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
        Target::Sealed(rule) if rule.seals_elements() => {
            filter::predicate(draft, field, rule, &mut around, false, 1)
        }
        Target::Sealed(rule) => Err(whole_array(operator, field, rule)),
        Target::Below(rule) => Err(below(operator, field, rule)),
        Target::Above(tree) => {
            let Some(condition) = field
                .document()
                .map_err(malformed)?
                .filter(|_| field.kind == kind::DOCUMENT)
            else {
                return if field.kind == kind::ARRAY {
                    Err(refused_above(operator, field))
                } else {
                    Ok(())
                };
            };
            filter::plan(draft, &condition, &Shape::Tree(Arc::clone(tree)), &mut around)
        }
        Target::Plain | Target::Unknown => Ok(()),
    }
}

pub(super) fn pull_all(
    draft: &mut Draft<'_>,
    operator: &Element<'_>,
    field: &Element<'_>,
    target: &Target,
) -> Result<(), Refusal> {
    let rule = match target {
        Target::Sealed(rule) if rule.is_deterministic() => rule,
        Target::Sealed(rule) => return Err(refused(operator, field, rule)),
        Target::Below(rule) => return Err(below(operator, field, rule)),
        _ => return Err(refused_above(operator, field)),
    };
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

fn all_deterministic(tree: &Tree) -> bool {
    tree.fields().all(|(_, shape)| match shape {
        Shape::Sealed(rule) => rule.is_deterministic() && rule.state == crate::policy::FieldState::Enforced,
        Shape::Tree(inner) => all_deterministic(inner),
        Shape::Plain => true,
        Shape::Unknown => false,
    })
}
