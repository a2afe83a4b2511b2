//! The verdict on one command: a plan, or a refusal, by the closed table of commands.

use super::Context;
use super::request::Request;
use crate::command::table::Verdict;
use crate::command::{CommandView, Scope, bulk_write, namespace, options};
use crate::plan::{Draft, Plan};
use crate::policy::{Reason, Refusal};

/// The verdict on a command, as a plan and whether it touches anything protected.
pub(super) fn decide(
    view: &CommandView<'_>,
    request: &Request<'_>,
    cx: &Context<'_>,
) -> Result<(Plan, bool), Refusal> {
    refuse_view(view, request, cx)?;
    let protected = request.policy.is_some();
    let name = request.command;
    match request.entry.map(|entry| entry.verdict) {
        Some(Verdict::Rewrite(planner)) => {
            refuse_inside(request, cx)?;
            let subject = request.policy.as_ref().and_then(|p| p.subject.clone());
            let mut draft = Draft::new(view.body.buffer(), cx.ring, subject);
            let scope = Scope {
                map: cx.map,
                policy: request.policy.as_deref(),
                found: cx.found,
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

/// A search through a view over a protected collection would be forwarded in plaintext, and its results opened.
fn refuse_view(view: &CommandView<'_>, request: &Request<'_>, cx: &Context<'_>) -> Result<(), Refusal> {
    if cx.found.views.is_empty() {
        return Ok(());
    }
    // Dropping and describing it is harmless.
    if matches!(
        request.command,
        "drop" | "listIndexes" | "collStats" | "killCursors"
    ) {
        return Ok(());
    }
    let named = match request
        .collection
        .and_then(|c| cx.found.view(request.db, c).map(|source| (request.db, c, source)))
    {
        Some(named) => Some(named),
        None if request.command == "bulkWrite" => bulk_write::namespaces(view)?
            .into_iter()
            .find_map(|(db, name)| cx.found.view(db, name).map(|source| (db, name, source))),
        None if request.command == "aggregate" => namespace::find_string(view, &|name| {
            cx.found
                .view(request.db, name)
                .map(|source| (request.db, name, source))
        })?,
        None => None,
    };
    match named {
        Some((db, name, source)) => Err(Refusal::new(
            Reason::Command,
            format!(
                "'{db}.{name}' is a view over protected collection '{source}'; query that collection itself"
            ),
        )),
        None => Ok(()),
    }
}

/// A command's name as it may be shown: the client's own word, so only if it looks like a name.
fn shown_name(name: &str) -> &str {
    let is_name = name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$');
    if is_name { name } else { "?" }
}

/// Collections of the server's own that show other clients' commands or raw changes.
fn refuse_inside(request: &Request<'_>, cx: &Context<'_>) -> Result<(), Refusal> {
    let Some(collection) = request.collection else {
        return Ok(());
    };
    let shows_commands = collection == "system.profile" && cx.map.protects_db(request.db)
        || request.db == "local" && collection.starts_with("oplog.");
    if shows_commands {
        return Err(Refusal::new(
            Reason::Command,
            format!(
                "collection '{}.{collection}' shows other clients' operations; read it on a direct connection",
                request.db
            ),
        ));
    }
    Ok(())
}
