//! `findAndModify`: a filter, an update, a projection and a sort in one command.

use super::options::{has_collation, pass, projection, refuse_order, variables};
use super::update::{Names, Parts};
use super::{CommandView, Scope};
use crate::plan::Draft;
use crate::policy::Refusal;

const OWN: &[&str] = &[
    "remove",
    "new",
    "upsert",
    "bypassDocumentValidation",
    "collation",
    "hint",
    "let",
];

/// Plans the command.
///
/// # Errors
/// A [`Refusal`] naming the field and the operator.
pub fn plan<'a>(view: &CommandView<'a>, scope: &Scope<'_>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    let (Some(tree), Some(shape)) = (scope.tree(), scope.shape()) else {
        return Ok(());
    };
    let collation = has_collation(&view.body, view.collated)?;
    let variables = variables(&view.body, collation)?;
    let names = Names {
        filter: b"query",
        update: b"update",
        // It has none: the argument is refused.
        constants: b"c",
    };
    let parts = Parts::read(draft, &view.body, &names, &tree, &variables, view.collated)?;
    view.each_field(draft, |draft, field| {
        let Some(element) = field.element() else {
            return pass(draft, view, field, OWN);
        };
        if parts.plan(draft, element, &names, &tree, &variables)? {
            return Ok(());
        }
        match field.key() {
            b"fields" => projection(draft, element, shape, &variables, collation),
            b"sort" => refuse_order(element, shape),
            b"query" | b"update" | b"arrayFilters" => Ok(()),
            _ => pass(draft, view, field, OWN),
        }
    })
}
