//! `delete`: each statement's query is planned like a filter.

use super::filter::{self, Around};
use super::options::{UNKNOWN, has_collation, pass, variables};
use super::{CommandView, Scope};
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{Reason, Refusal};

const OWN: &[&str] = &["ordered", "let"];
const STATEMENT: &[&[u8]] = &[b"limit", b"collation", b"hint"];

/// Plans the command.
///
/// # Errors
/// A [`Refusal`] naming the field and the operator.
pub fn plan<'a>(view: &CommandView<'a>, scope: &Scope<'_>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    let Some(shape) = scope.shape() else { return Ok(()) };
    // Read once: a batch has thousands of statements, and `let` may hold as many variables.
    let (simple, collated) = (variables(&view.body, false)?, variables(&view.body, true)?);
    view.each_field(draft, |draft, field| match field.key() {
        b"deletes" => field.each_document(draft, |draft, statement| {
            let collation = has_collation(&statement, view.collated)?;
            let variables = if collation { &collated } else { &simple };
            let region = draft.open_doc(&statement);
            for element in statement.elements() {
                let element = element.map_err(malformed)?;
                match (element.key, element.document().map_err(malformed)?) {
                    (b"q", Some(doc)) => {
                        let mut around = Around {
                            collation,
                            variables: Some(variables),
                            ..Around::default()
                        };
                        filter::plan(draft, &doc, shape, &mut around)?;
                    }
                    (key, _) if STATEMENT.contains(&key) => {}
                    _ => {
                        return Err(Refusal::new(
                            Reason::Option,
                            format!(
                                "argument '{}' of a delete is not supported on a protected collection",
                                element.key_text()
                            ),
                        )
                        .with_code(UNKNOWN));
                    }
                }
            }
            draft.close(region, statement.end());
            Ok(())
        }),
        _ => pass(draft, view, field, OWN),
    })
}
