//! `distinct`: the query's literals are sealed; values of a deterministic field come back opened and without
//! repetition (two keys, or plaintext beside ciphertext, make one value look like two to the server).

use super::filter::{self, Around};
use super::options::{has_collation, pass};
use super::{CommandView, Scope};
use crate::plan::Draft;
use crate::policy::{Reason, Refusal, Target};

const OWN: &[&str] = &["collation", "hint"];

/// Plans the command.
///
/// # Errors
/// A [`Refusal`] naming the field and the operator.
pub fn plan<'a>(view: &CommandView<'a>, scope: &Scope<'_>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    let Some(shape) = scope.shape() else { return Ok(()) };
    let collation = has_collation(&view.body, view.collated)?;
    view.each_field(draft, |draft, field| match (field.key(), field.document()?) {
        (b"query", Some(doc)) => filter::plan(draft, &doc, shape, &mut Around { collation, ..Around::default() }),
        (b"query", None) => Ok(()),
        (b"key", _) => {
            let Some(path) = field.element().and_then(|e| e.text()) else { return Ok(()) };
            match shape.resolve(path.as_bytes()) {
                Target::Plain => Ok(()),
                Target::Sealed(rule) if rule.is_deterministic() => {
                    if collation {
                        return Err(Refusal::new(
                            Reason::Collation,
                            format!("distinct on field '{path}': a collation has no effect on sealed values; leave it out"),
                        ));
                    }
                    draft.touch(&rule);
                    Ok(())
                }
                _ => Err(Refusal::new(
                    Reason::Operator,
                    format!(
                        "distinct on '{path}': the server cannot tell sealed values apart there; only deterministic fields have distinct values"
                    ),
                )),
            }
        }
        _ => pass(draft, view, field, OWN),
    })
}
