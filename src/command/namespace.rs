//! Which namespaces a command names, and the commands that are about a namespace as a whole.

use super::options::pass;
use super::{CommandView, Scope};
use crate::bson::{Doc, kind};
use crate::limits;
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{FieldMap, Reason, Refusal};

/// Commands that could name documents by their values, though they are about none: without that they pass.
///
/// # Errors
/// A [`Refusal`] naming the argument.
pub fn bare<'a>(view: &CommandView<'a>, scope: &Scope<'_>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    // `dataSize` names `db.collection`, `profile` a level.
    let named = view.collection().and_then(|text| text.split_once('.'));
    let qualified = named.is_some_and(|(db, collection)| scope.map.lookup(db, collection).is_some());
    let whole_database = view.name == "profile" && scope.map.protects_db(view.db);
    if scope.policy.is_none() && !qualified && !whole_database {
        return Ok(());
    }
    view.each_field(draft, |draft, field| {
        pass(draft, view, field, &["estimate", "slowms", "sampleRate"])
    })
}

/// `getLog`: shells show the startup warnings; everything else may hold what writers past the proxy sent.
///
/// # Errors
/// A [`Refusal`] for any other log.
pub fn get_log<'a>(view: &CommandView<'a>, _: &Scope<'_>, _: &mut Draft<'a>) -> Result<(), Refusal> {
    match view.first.text() {
        Some("startupWarnings" | "*") => Ok(()),
        _ => Err(Refusal::new(
            Reason::Command,
            "getLog: the server's log can hold values of those who write past the proxy; ask for 'startupWarnings', or read it on a direct connection",
        )),
    }
}

/// Whether any string of the command, at any depth, is the name of a protected namespace (`db.collection`), or its
/// first argument names a protected collection of its database.
///
/// # Errors
/// A [`Refusal`] for malformed bytes.
pub fn names_protected(view: &CommandView<'_>, map: &FieldMap) -> Result<bool, Refusal> {
    if view
        .collection()
        .is_some_and(|c| map.lookup(view.db, c).is_some())
    {
        return Ok(true);
    }
    // The one command whose output may be a collection of another database.
    if let Some(out) = view.get("out")?
        && let Some(out) = out.document().map_err(malformed)?
        && let Some(db) = out.get(b"db").map_err(malformed)?.and_then(|db| db.text())
        && any_string(&out, map, db, 1)?
    {
        return Ok(true);
    }
    any_string(&view.body, map, view.db, 1)
}

fn any_string(doc: &Doc<'_>, map: &FieldMap, db: &str, depth: usize) -> Result<bool, Refusal> {
    if depth > limits::MAX_DEPTH {
        return Ok(true);
    }
    for element in doc.elements() {
        let element = element.map_err(malformed)?;
        let hit = match element.kind {
            kind::STRING => element.text().is_none_or(|text| {
                let qualified = text
                    .split_once('.')
                    .is_some_and(|(d, c)| map.lookup(d, c).is_some());
                qualified || map.lookup(db, text).is_some()
            }),
            _ => match element.document().map_err(malformed)? {
                Some(inner) => any_string(&inner, map, db, depth + 1)?,
                None => false,
            },
        };
        if hit {
            return Ok(true);
        }
    }
    Ok(false)
}
