//! `explain`: the inner command is planned as if it were sent by itself.

use super::{CommandView, Scope, table};
use crate::bson::kind;
use crate::plan::Draft;
use crate::policy::{Reason, Refusal};

/// What the server explains. Least of all an explain: it would be planned without the policy of what it explains.
const EXPLAINED: &[&str] = &[
    "aggregate",
    "count",
    "delete",
    "distinct",
    "find",
    "findAndModify",
    "findandmodify",
    "update",
];

/// The server's code for an explain across databases.
const INVALID_NAMESPACE: i32 = 73;

/// Plans the command.
///
/// # Errors
/// A [`Refusal`] of the inner command, or one for a command that cannot be explained on a protected namespace.
pub fn plan<'a>(view: &CommandView<'a>, scope: &Scope<'_>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    let Some(inner) = inner(view)? else {
        return Err(Refusal::new(
            Reason::Malformed,
            "explain needs a command document",
        ));
    };
    inner.refuse_repeats()?;
    // It would be planned by the rules of one database, and logged, if nothing else, with the values of another.
    if inner.db != view.db {
        return Err(Refusal::new(
            Reason::Malformed,
            "explain: the explained command names another $db than the explain itself; send both to one database",
        )
        .with_code(INVALID_NAMESPACE));
    }
    let Some(entry) = table::find(inner.name) else {
        return Err(Refusal::new(
            Reason::Command,
            "explain of this command is not supported on a protected collection",
        ));
    };
    let (true, table::Verdict::Rewrite(plan)) = (EXPLAINED.contains(&entry.name), entry.verdict) else {
        return Err(Refusal::new(
            Reason::Command,
            format!(
                "explain of '{}' is not supported on a protected collection",
                entry.name
            ),
        ));
    };
    view.each_field(draft, |draft, field| {
        if field.key() == view.name.as_bytes() {
            plan(&inner, scope, draft)
        } else {
            super::options::pass(draft, view, field, &["verbosity"])
        }
    })
}

/// The command that is explained.
///
/// # Errors
/// A [`Refusal`] for malformed bytes.
pub fn inner<'a>(view: &CommandView<'a>) -> Result<Option<CommandView<'a>>, Refusal> {
    if view.first.kind != kind::DOCUMENT {
        return Ok(None);
    }
    match view.first.document().map_err(crate::plan::draft::malformed)? {
        Some(body) => {
            let inner = CommandView::new(body, Some(view.db), Vec::new())?;
            Ok(inner.map(|mut inner| {
                inner.collated = view.collated;
                inner
            }))
        }
        None => Ok(None),
    }
}
