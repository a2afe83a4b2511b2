//! Upserts while a field is migrating or its key rotates: the filter was widened, so the server takes no value for the new document
//! from it, and `$setOnInsert` brings it instead. Owns what would conflict with that.

use std::collections::HashSet;

use super::refuse::{upsert_in_two_forms, upsert_matched_twice};
use crate::bson::Doc;
use crate::command::filter::Widened;
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::Refusal;
use crate::policy::shape::is_position;

/// Refuses an upsert whose filter says what a whole is, and what stands in it in a form that had to be widened: the server
/// inserts nothing where one path is matched twice, and it no longer sees the second.
///
/// # Errors
/// A [`Refusal`] naming the field.
pub fn refuse_matched_twice(filter: &Doc<'_>, widened: &[Widened], depth: usize) -> Result<(), Refusal> {
    if widened.is_empty() || depth > crate::limits::MAX_DEPTH {
        return Ok(());
    }
    for clause in filter.elements() {
        let clause = clause.map_err(malformed)?;
        let inner = clause.document().map_err(malformed)?;
        if let (b"$and" | b"$or", Some(branches)) = (clause.key, &inner) {
            for branch in branches.elements() {
                if let Some(branch) = branch.map_err(malformed)?.document().map_err(malformed)? {
                    refuse_matched_twice(&branch, widened, depth + 1)?;
                }
            }
            continue;
        }
        let above = widened
            .iter()
            .find(|one| *one.path != *clause.key && leads_to(clause.key, &one.path));
        let Some(one) = above else { continue };
        let mut says = true;
        for (at, operator) in inner.iter().flat_map(Doc::elements).enumerate() {
            let key = operator.map_err(malformed)?.key;
            let is_operator = key.first() == Some(&b'$');
            says = match at {
                0 => !is_operator || matches!(key, b"$eq" | b"$in" | b"$all"),
                _ => says || matches!(key, b"$eq" | b"$in" | b"$all"),
            };
        }
        if says {
            return Err(upsert_matched_twice(&one.rule));
        }
    }
    Ok(())
}

/// Adds what the filter brings, sealed, to a `$setOnInsert` at this place.
pub(super) fn add_widened(draft: &mut Draft<'_>, at: usize, widened: &[Widened]) {
    if widened.is_empty() {
        return;
    }
    // An empty put moves the copy to where the new elements belong.
    draft.put(at, []);
    for one in widened {
        draft.put_sealed(&one.path, one.value, &one.rule);
    }
}

/// Fields that the update sets itself need nothing from the filter.
pub(super) fn retain_unset(widened: &mut Vec<Widened>, doc: &Doc<'_>) -> Result<(), Refusal> {
    if widened.is_empty() {
        return Ok(());
    }
    for operator in doc.elements() {
        let operator = operator.map_err(malformed)?;
        let Some(fields) = operator.document().map_err(malformed)? else {
            continue;
        };
        for field in fields.elements() {
            let key = field.map_err(malformed)?.key;
            let replaces = match operator.key {
                b"$set" | b"$setOnInsert" => true,
                // Of `a.b` it would leave an empty `a`, which the filter's value had brought.
                b"$unset" => !key.contains(&b'.'),
                _ => false,
            };
            if replaces {
                widened.retain(|one| !leads_to(key, &one.path));
            }
            // What the server would do to the filter's value, it cannot do to one that `$setOnInsert` brings: the two
            // paths would conflict.
            if let Some(one) = widened.iter().find(|one| meets(key, &one.path)) {
                return Err(upsert_in_two_forms(&one.rule));
            }
        }
    }
    // The server inserts nothing where two values are asked of one field; `$setOnInsert` with both would fail always.
    let mut seen = HashSet::new();
    if let Some(one) = widened.iter().find(|one| !seen.insert(&one.path)) {
        return Err(upsert_in_two_forms(&one.rule));
    }
    if let Some(one) = widened
        .iter()
        .find(|one| one.path.split(|b| *b == b'.').any(is_position))
    {
        return Err(upsert_in_two_forms(&one.rule));
    }
    Ok(())
}

/// Whether `path` is `key` or below it.
fn leads_to(key: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(key)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
}

/// Whether an update of `key` and one of `path` may concern the same value.
fn meets(key: &[u8], path: &[u8]) -> bool {
    let mut keys = key.split(|b| *b == b'.');
    let mut paths = path.split(|b| *b == b'.');
    loop {
        match (keys.next(), paths.next()) {
            (Some(k), Some(p)) if k == p => {}
            (Some(k), Some(_)) => return k.starts_with(b"$") || is_position(k),
            _ => return true,
        }
    }
}
