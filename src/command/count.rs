//! `count`: the query's literals are sealed; the count itself needs no key.

use super::filter::{self, Around};
use super::options::{has_collation, pass};
use super::{CommandView, Scope};
use crate::plan::Draft;
use crate::policy::Refusal;

const OWN: &[&str] = &["limit", "skip", "hint", "collation", "fields"];

/// Plans the command.
///
/// # Errors
/// A [`Refusal`] naming the field and the operator.
pub fn plan<'a>(view: &CommandView<'a>, scope: &Scope<'_>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    let Some(shape) = scope.shape() else { return Ok(()) };
    let collation = has_collation(&view.body, view.collated)?;
    view.each_field(draft, |draft, field| match (field.key(), field.document()?) {
        (b"query", Some(doc)) => filter::plan(
            draft,
            &doc,
            shape,
            &mut Around {
                collation,
                ..Around::default()
            },
        ),
        (b"query", None) => Ok(()),
        _ => pass(draft, view, field, OWN),
    })
}
