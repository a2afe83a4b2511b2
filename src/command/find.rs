//! `find`: the filter's literals are sealed; sorting and index bounds on protected fields are refused.

use super::filter::{self, Around};
use super::options::{has_collation, pass, projection, refuse_order, variables};
use super::{CommandView, Scope};
use crate::plan::Draft;
use crate::policy::Refusal;

const OWN: &[&str] = &[
    "skip",
    "limit",
    "batchSize",
    "singleBatch",
    "collation",
    "hint",
    "let",
    "returnKey",
    "showRecordId",
    "tailable",
    "oplogReplay",
    "noCursorTimeout",
    "awaitData",
    "allowPartialResults",
    "allowDiskUse",
    "ntoreturn",
];

/// Plans the command.
///
/// # Errors
/// A [`Refusal`] naming the field and the operator.
pub fn plan<'a>(view: &CommandView<'a>, scope: &Scope<'_>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    let Some(shape) = scope.shape() else { return Ok(()) };
    let collation = has_collation(&view.body, view.collated)?;
    let variables = variables(&view.body, collation)?;
    view.each_field(draft, |draft, field| {
        let Some(element) = field.element() else {
            return pass(draft, view, field, OWN);
        };
        match field.key() {
            b"filter" => match field.document()? {
                Some(doc) => {
                    let mut around = Around {
                        collation,
                        variables: Some(&variables),
                        ..Around::default()
                    };
                    filter::plan(draft, &doc, shape, &mut around)
                }
                None => Ok(()),
            },
            b"projection" => projection(draft, element, shape, &variables, collation),
            b"sort" | b"min" | b"max" => refuse_order(element, shape),
            _ => pass(draft, view, field, OWN),
        }
    })
}
