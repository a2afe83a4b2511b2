//! `update`: each statement's query, update and array filters.

use std::borrow::Cow;
use std::sync::Arc;

use super::document::refuse_ciphertext;
use super::expression::Variables;
use super::filter::{self, Around, Widened};
use super::options::{UNKNOWN, bind_plain, has_collation, pass, refuse_order, variables};
use super::update_ops;
use super::{CommandView, Scope};
use crate::bson::{Doc, kind};
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{Reason, Refusal, Shape, Tree};

/// The server's code for an update that it cannot read.
const FAILED_TO_PARSE: i32 = 9;

const OWN: &[&str] = &[
    "ordered",
    "bypassDocumentValidation",
    "bypassEmptyTsReplacement",
    "let",
];

/// Plans the command.
///
/// # Errors
/// A [`Refusal`] naming the field and the operator.
pub fn plan<'a>(view: &CommandView<'a>, scope: &Scope<'_>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    let Some(tree) = scope.tree() else { return Ok(()) };
    // Read once: a batch has thousands of statements, and `let` may hold as many variables.
    let (simple, collated) = (variables(&view.body, false)?, variables(&view.body, true)?);
    view.each_field(draft, |draft, field| match field.key() {
        b"updates" => field.each_document(draft, |draft, statement| {
            draft.count_documents(1);
            let names = Names {
                filter: b"q",
                update: b"u",
                constants: b"c",
            };
            let variables = if has_collation(&statement, view.collated)? {
                &collated
            } else {
                &simple
            };
            let variables = &*constants(&statement, &names, variables)?;
            let region = draft.open_doc(&statement);
            let parts = Parts::read(draft, &statement, &names, &tree, variables, view.collated)?;
            for element in statement.elements() {
                let element = element.map_err(malformed)?;
                if parts.plan(draft, &element, &names, &tree, variables)? {
                    continue;
                }
                match element.key {
                    b"upsert" | b"multi" | b"collation" | b"hint" => {}
                    b"sort" => refuse_order(&element, &Shape::Tree(Arc::clone(&tree)))?,
                    b"c" => {}
                    b"q" | b"u" | b"arrayFilters" => {
                        return Err(Refusal::new(
                            Reason::Malformed,
                            format!(
                                "'{}' of an update is not of the kind it must be",
                                element.key_text()
                            ),
                        )
                        .with_code(FAILED_TO_PARSE));
                    }
                    _ => {
                        return Err(Refusal::new(
                            Reason::Option,
                            format!(
                                "argument '{}' of an update is not supported on a protected collection",
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

/// The variables in scope of one statement: `let`, and the constants of a pipeline update. They are plain: one that
/// would reach a protected path is refused there.
pub(super) fn constants<'v>(
    statement: &Doc<'_>,
    names: &Names,
    variables: &'v Variables,
) -> Result<Cow<'v, Variables>, Refusal> {
    let Some(element) = statement.get(names.constants).map_err(malformed)? else {
        return Ok(Cow::Borrowed(variables));
    };
    let update = statement.get(names.update).map_err(malformed)?;
    if update.is_none_or(|update| update.kind != kind::ARRAY) {
        return Err(Refusal::new(
            Reason::Option,
            format!(
                "argument '{}' of an update belongs to a pipeline; leave it out",
                element.key_text()
            ),
        ));
    }
    let mut all = variables.clone();
    bind_plain(&mut all, &element)?;
    Ok(Cow::Owned(all))
}

/// What the parts of an update are called: each command has its own words.
pub(super) struct Names {
    pub(super) filter: &'static [u8],
    pub(super) update: &'static [u8],
    pub(super) constants: &'static [u8],
}

/// What must be known of a statement before its parts are planned in the order they stand.
pub(super) struct Parts {
    collation: bool,
    identifiers: update_ops::Identifiers,
    widened: std::cell::RefCell<Vec<Widened>>,
}

impl Parts {
    pub(super) fn read(
        draft: &Draft<'_>,
        statement: &Doc<'_>,
        names: &Names,
        tree: &Arc<Tree>,
        variables: &Variables,
        collated: bool,
    ) -> Result<Self, Refusal> {
        let get = |key: &[u8]| statement.get(key).map_err(malformed);
        let collation = has_collation(statement, collated)?;
        let identifiers = match get(names.update)? {
            Some(update) if get(b"arrayFilters")?.is_some() => update_ops::identifiers(&update, tree)?,
            _ => update_ops::Identifiers::default(),
        };
        let mut widened = Vec::new();
        if get(b"upsert")?.is_some_and(|e| e.truthy())
            && let Some(filter) = get(names.filter)?
            && let Some(doc) = filter.document().map_err(malformed)?
        {
            // The server takes the inserted document's fields from it.
            for clause in doc.elements() {
                refuse_ciphertext(&clause.map_err(malformed)?)?;
            }
            // A dry run over the same filter: only what had to be widened is of interest.
            let mut scratch = draft.scratch();
            let mut around = Around {
                collation,
                variables: Some(variables),
                upsert: Some(Vec::new()),
                ..Around::default()
            };
            filter::plan(&mut scratch, &doc, &Shape::Tree(Arc::clone(tree)), &mut around)?;
            widened = around.upsert.unwrap_or_default();
            update_ops::refuse_matched_twice(&doc, &widened, 1)?;
        }
        Ok(Self {
            collation,
            identifiers,
            widened: widened.into(),
        })
    }

    /// Plans `element` if it is the filter, the update or the array filters.
    pub(super) fn plan(
        &self,
        draft: &mut Draft<'_>,
        element: &crate::bson::Element<'_>,
        names: &Names,
        tree: &Arc<Tree>,
        variables: &Variables,
    ) -> Result<bool, Refusal> {
        let document = element.document().map_err(malformed)?;
        match document {
            Some(doc) if element.key == names.filter => {
                let mut around = Around {
                    collation: self.collation,
                    variables: Some(variables),
                    ..Around::default()
                };
                filter::plan(draft, &doc, &Shape::Tree(Arc::clone(tree)), &mut around)?;
            }
            Some(_) if element.key == names.update => {
                update_ops::plan(draft, element, tree, self.widened.take(), variables)?;
            }
            Some(_) if element.key == b"arrayFilters" => {
                update_ops::array_filters(draft, element, &self.identifiers, self.collation)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
