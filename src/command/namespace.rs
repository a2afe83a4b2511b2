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

/// Most databases of protected collections that one command may name beside its own.
const MAX_DATABASES: usize = 64;

/// Whether any string of the command, at any depth, is the name of a protected namespace (`db.collection`), or of a
/// protected collection of its database or of one that another string names: `out: {db, collection}` of a mapReduce, the
/// `$db` of a command inside another.
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
    let mut documents = vec![view.body];
    for sequence in &view.sequences {
        let mut at = sequence.documents_at;
        while at < sequence.end {
            let doc = Doc::at(view.body.buffer(), at).map_err(malformed)?;
            at = doc.end();
            documents.push(doc);
        }
    }
    let mut databases = vec![view.db];
    for doc in &documents {
        let too_many = any_string(doc, 1, &mut |text| {
            if map.protects_db(text) && !databases.contains(&text) {
                databases.push(text);
            }
            databases.len() > MAX_DATABASES
        })?;
        if too_many {
            return Ok(true);
        }
    }
    for doc in &documents {
        let is_named = any_string(doc, 1, &mut |text| {
            let qualified = text
                .split_once('.')
                .is_some_and(|(db, collection)| map.lookup(db, collection).is_some());
            qualified || databases.iter().any(|db| map.lookup(db, text).is_some())
        })?;
        if is_named {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether one of the strings, at any depth, is a hit; what cannot be read is one.
fn any_string<'a>(
    doc: &Doc<'a>,
    depth: usize,
    is_hit: &mut impl FnMut(&'a str) -> bool,
) -> Result<bool, Refusal> {
    if depth > limits::MAX_DEPTH {
        return Ok(true);
    }
    for element in doc.elements() {
        let element = element.map_err(malformed)?;
        let hit = match element.kind {
            kind::STRING => element.text().is_none_or(&mut *is_hit),
            _ => match element.document().map_err(malformed)? {
                Some(inner) => any_string(&inner, depth + 1, is_hit)?,
                None => false,
            },
        };
        if hit {
            return Ok(true);
        }
    }
    Ok(false)
}
