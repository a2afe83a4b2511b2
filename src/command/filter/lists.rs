//! `$in`, `$nin` and `$all` on a sealed path: each literal sealed, in every form that may be stored.

use std::sync::Arc;

use super::refuse::{malformed_operand, refused, searchable, single_value};
use super::{Around, note_upsert, operate, written_operators};
use crate::bson::{Doc, Element, kind};
use crate::plan::Draft;
use crate::plan::canonical::canonical;
use crate::plan::draft::malformed;
use crate::policy::{FieldRule, Reason, Refusal};

/// `$in` / `$nin`.
pub(super) fn list(
    draft: &mut Draft<'_>,
    operator: &Element<'_>,
    path: &[u8],
    rule: &Arc<FieldRule>,
    around: &mut Around<'_>,
    conjunct: bool,
) -> Result<(), Refusal> {
    if operator.kind != kind::ARRAY {
        return Err(malformed_operand(operator, "an array"));
    }
    let Some(array) = operator.document().map_err(malformed)? else {
        return Ok(());
    };
    let expanded = draft.is_expanded(rule);
    let mut only = conjunct && around.upsert.is_some() && is_one_value(&array, rule)?;
    let region = if expanded {
        draft.drop_element(operator);
        draft.put_header(operator.end, kind::ARRAY, operator.key);
        draft.begin();
        None
    } else {
        Some(draft.open_doc(&array))
    };
    for item in array.elements() {
        let item = item.map_err(malformed)?;
        if item.kind == kind::REGEX {
            return Err(refused(
                rule,
                &format!("a regular expression in {}", operator.key_text()),
            ));
        }
        if is_bare_array(&item, rule)? {
            if expanded {
                draft.item_plain(&item);
            }
            continue;
        }
        if item.kind != kind::NULL {
            searchable(rule, Some(operator), &item, around)?;
            single_value(&item, rule)?;
        }
        if expanded {
            if only && item.kind != kind::NULL {
                note_upsert(&item, path, rule, around, conjunct)?;
                only = false;
            }
            draft.item_forms(&item, rule)?;
        } else {
            draft.seal(&item, rule)?;
        }
    }
    match region {
        Some(region) => draft.close(region, array.end()),
        None => draft.end(),
    }
    Ok(())
}

/// Whether a list names one value, be it several times: the server takes repetitions for one.
fn is_one_value(array: &Doc<'_>, rule: &FieldRule) -> Result<bool, Refusal> {
    let mut first = None;
    for item in array.elements() {
        let item = item.map_err(malformed)?;
        if is_bare_array(&item, rule)? {
            return Ok(false);
        }
        let value = canonical(&item, rule)?;
        let value = value.map(|v| (v.kind, v.slice(array.buffer()).to_vec()));
        if first.get_or_insert_with(|| value.clone()) != &value {
            return Ok(false);
        }
    }
    Ok(first.is_some())
}

/// `$all`: sealed in place; where several forms may be stored each literal becomes an `$in` of its own, since the
/// server ANDs the operators of one field.
pub(super) fn all(
    draft: &mut Draft<'_>,
    operator: &Element<'_>,
    path: &[u8],
    rule: &Arc<FieldRule>,
    around: &mut Around<'_>,
    conjunct: bool,
    depth: usize,
) -> Result<(), Refusal> {
    let Some(array) = operator
        .document()
        .map_err(malformed)?
        .filter(|_| operator.kind == kind::ARRAY)
    else {
        return Err(malformed_operand(operator, "an array"));
    };
    if !draft.is_expanded(rule) {
        let region = draft.open_doc(&array);
        for item in array.elements() {
            let item = item.map_err(malformed)?;
            match written_operators(&item)? {
                Some(doc) => {
                    let inner = draft.open_doc(&doc);
                    for op in doc.elements() {
                        operate(
                            draft,
                            &op.map_err(malformed)?,
                            path,
                            rule,
                            around,
                            false,
                            depth + 1,
                        )?;
                    }
                    draft.close(inner, doc.end());
                }
                None => {
                    if item.kind == kind::REGEX {
                        return Err(refused(rule, "a regular expression in $all"));
                    }
                    if item.kind != kind::NULL {
                        searchable(rule, Some(operator), &item, around)?;
                    }
                    draft.seal(&item, rule)?;
                }
            }
        }
        draft.close(region, array.end());
        return Ok(());
    }
    if array.is_empty() {
        return Ok(());
    }
    draft.drop_element(operator);
    let only = array.elements().count() == 1;
    for item in array.elements() {
        let item = item.map_err(malformed)?;
        if matches!(item.kind, kind::REGEX | kind::DOCUMENT | kind::ARRAY | kind::NULL) {
            return Err(Refusal::new(
                Reason::Rotation,
                format!(
                    "field '{}': $all over anything but plain values is not possible while the field is migrating or its key is rotating; finish the migration, or write one $in per value",
                    rule.path
                ),
            ));
        }
        searchable(rule, Some(operator), &item, around)?;
        // The server takes the field of an inserted document from a list of one, and inserts nothing for a longer one.
        if conjunct && !only && around.upsert.is_some() {
            return Err(Refusal::new(
                Reason::Rotation,
                format!(
                    "field '{}': $all over several values is not possible in an upsert while the field is migrating or its key is rotating; set the field in the update itself ($setOnInsert) and look for one value",
                    rule.path
                ),
            ));
        }
        note_upsert(&item, path, rule, around, conjunct)?;
        draft.put_header(operator.end, kind::ARRAY, b"$in");
        draft.begin();
        draft.item_forms(&item, rule)?;
        draft.end();
    }
    Ok(())
}

/// An array without a value to seal, of a field whose items are sealed one by one: it is stored as it is.
pub(super) fn is_bare_array(literal: &Element<'_>, rule: &FieldRule) -> Result<bool, Refusal> {
    if literal.kind != kind::ARRAY || !rule.seals_elements() {
        return Ok(false);
    }
    let items = literal.document().map_err(malformed)?;
    Ok(items.is_some_and(|items| {
        items
            .elements()
            .all(|item| item.is_ok_and(|item| item.kind == kind::NULL))
    }))
}
