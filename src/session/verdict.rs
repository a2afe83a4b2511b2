//! The verdict on one command: a plan, or a refusal, by the closed table of commands.

use std::sync::Arc;

use super::Context;
use super::request::Request;
use crate::command::table::Verdict;
use crate::command::{CommandView, Scope, bulk_write, explain, namespace, options, views};
use crate::plan::{Draft, Plan};
use crate::policy::found::View;
use crate::policy::{FieldRule, Reason, Refusal};

/// The verdict on a command, as a plan and whether it touches anything protected.
pub(super) fn decide(
    view: &CommandView<'_>,
    request: &Request<'_>,
    cx: &Context<'_>,
) -> Result<(Plan, bool), Refusal> {
    let one_form = judge_views(view, request, cx)?;
    let protected = request.policy.is_some();
    let name = request.command;
    match request.entry.map(|entry| entry.verdict) {
        Some(Verdict::Rewrite(planner)) => {
            match request.collection {
                Some(collection) => refuse_inside(request.command, request.db, collection, cx)?,
                None if name == "bulkWrite" => bulk_write::namespaces(view)?
                    .into_iter()
                    .try_for_each(|(db, collection)| refuse_inside(name, db, collection, cx))?,
                None => {}
            }
            let subject = request.policy.as_ref().and_then(|p| p.subject.clone());
            let mut draft = Draft::new(view.body.buffer(), cx.ring, subject);
            demand_one_form(&mut draft, &one_form)?;
            if request.is_view(cx) {
                // What stands in a path of a view need not be what is stored under it.
                draft.note_computed();
            }
            let scope = Scope {
                map: cx.map,
                found: cx.found,
                policy: request.policy.as_deref(),
            };
            planner(view, &scope, &mut draft)?;
            let plan = draft.finish();
            let touches = protected || !plan.summary.rules.is_empty();
            Ok((plan, touches))
        }
        Some(Verdict::Forward) => {
            let mut draft = Draft::new(view.body.buffer(), cx.ring, None);
            if protected || cx.map.protects_db(view.db) {
                options::drop_comment(view, &mut draft)?;
            }
            Ok((draft.finish(), protected))
        }
        Some(Verdict::Session) => Ok((Plan::default(), protected)),
        Some(Verdict::Unprotected) => {
            if namespace::names_protected(view, cx.map)? {
                return Err(Refusal::new(
                    Reason::Command,
                    format!(
                        "command '{name}' is not supported on a protected collection ({}); run it on a direct connection if it is meant",
                        request.protected_paths()
                    ),
                ));
            }
            Ok((Plan::default(), false))
        }
        Some(Verdict::Refuse) => Err(Refusal::new(
            Reason::Command,
            format!(
                "command '{name}' is not supported through the proxy; run it on a direct connection if it is meant"
            ),
        )),
        None => {
            if cx.map.protects_db(view.db) || namespace::names_protected(view, cx.map)? {
                return Err(Refusal::new(
                    Reason::Command,
                    format!(
                        "command '{}' is not known and its database holds protected collections; run it on a direct connection if it is meant",
                        shown_name(view.name)
                    ),
                ));
            }
            Ok((Plan::default(), false))
        }
    }
}

/// Commands that only read, and can read a view.
const READS: &[&str] = &["aggregate", "count", "distinct", "explain", "find", "getMore"];

/// Judges the views that a command names: one whose documents cannot be told is refused, the others can be read. Returns
/// the fields that their definitions compare, each of which must have one key.
fn judge_views(
    view: &CommandView<'_>,
    request: &Request<'_>,
    cx: &Context<'_>,
) -> Result<Vec<Arc<FieldRule>>, Refusal> {
    // Dropping and describing one is harmless; making one is judged by its own definition.
    let harmless = matches!(
        request.command,
        "drop" | "listIndexes" | "collStats" | "killCursors" | "create" | "collMod"
    );
    if cx.found.views.is_empty() || harmless {
        return Ok(Vec::new());
    }
    if request.command == "bulkWrite" {
        let written = bulk_write::namespaces(view)?;
        return match written
            .iter()
            .find(|(db, name)| cx.found.view(db, name).is_some())
        {
            Some((db, name)) => Err(read_only(db, name)),
            None => Ok(Vec::new()),
        };
    }
    let mut named = Vec::new();
    if let Some(collection) = request.collection {
        named.push(collection);
        if let Some(View::Open { .. }) = cx.found.view(request.db, collection) {
            let command = match request.command {
                "explain" => explain::inner(view)?.map_or("explain", |inner| inner.name),
                command => command,
            };
            if !READS.contains(&command) {
                return Err(read_only(request.db, collection));
            }
        }
    }
    // Any string of a pipeline could name a view.
    if matches!(request.command, "aggregate" | "explain") {
        views::strings(&view.body, 1, &mut named)?;
    }
    let mut one_form = Vec::new();
    for collection in named {
        match cx.found.view(request.db, collection) {
            Some(View::Refused(why)) => return Err(Refusal::new(Reason::Command, why.to_string())),
            Some(View::Open { one_form: rules, .. }) => one_form.extend(rules.iter().cloned()),
            None => {}
        }
    }
    Ok(one_form)
}

fn read_only(db: &str, view: &str) -> Refusal {
    Refusal::new(
        Reason::Command,
        format!("'{db}.{view}' is a view, which can only be read; write to the collection that it looks at"),
    )
    .with_code(166)
}

/// A view's definition compares these fields with each other, or groups by them: with several keys, equal values differ.
fn demand_one_form(draft: &mut Draft<'_>, rules: &[Arc<FieldRule>]) -> Result<(), Refusal> {
    for rule in rules {
        draft.touch(rule);
        if draft.is_expanded(rule) {
            return Err(Refusal::new(
                Reason::Rotation,
                format!(
                    "the view compares or groups by field '{}', which has several stored forms while it is migrating or rotating; wait for that to finish",
                    rule.path
                ),
            ));
        }
    }
    Ok(())
}

/// A command's name as it may be shown: the client's own word, so only if it looks like a name.
fn shown_name(name: &str) -> &str {
    let is_name = name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$');
    if is_name { name } else { "?" }
}

/// Collections of the server's own that show other clients' commands or raw changes, hold what is stored of protected
/// collections under other paths, or define views past `create`.
fn refuse_inside(command: &str, db: &str, collection: &str, cx: &Context<'_>) -> Result<(), Refusal> {
    let refuse = |why: &str| {
        Err(Refusal::new(
            Reason::Command,
            format!("collection '{db}.{collection}' {why}"),
        ))
    };
    let shows_commands = collection == "system.profile" && cx.map.protects_db(db)
        || db == "local" && collection.starts_with("oplog.");
    if shows_commands {
        return refuse("shows other clients' operations; read it on a direct connection");
    }
    let buckets = collection.strip_prefix("system.buckets.");
    if buckets.is_some_and(|series| cx.map.lookup(db, series).is_some()) {
        return refuse("holds the buckets of a protected time series; name the time series itself");
    }
    if collection == "system.views" && cx.map.protects_db(db) && !READS.contains(&command) {
        return refuse("holds the definitions of views; use create, collMod and drop");
    }
    Ok(())
}
