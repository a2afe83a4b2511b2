//! `insert`: every document is sealed as it is stored.

use super::document::seal_document;
use super::options::pass;
use super::{CommandView, Scope};
use crate::plan::Draft;
use crate::policy::Refusal;

const OWN: &[&str] = &["ordered", "bypassDocumentValidation", "bypassEmptyTsReplacement"];

/// Plans the command.
///
/// # Errors
/// A [`Refusal`] naming the field.
pub fn plan<'a>(view: &CommandView<'a>, scope: &Scope<'_>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    let Some(tree) = scope.tree() else { return Ok(()) };
    view.each_field(draft, |draft, field| match field.key() {
        b"documents" => field.each_document(draft, |draft, doc| {
            draft.count_documents(1);
            seal_document(draft, &doc, &tree)
        }),
        _ => pass(draft, view, field, OWN),
    })
}
