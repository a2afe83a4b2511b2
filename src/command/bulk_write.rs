//! `bulkWrite` (MongoDB 8.0, sent to `admin`): inserts, updates and deletes on many collections in one command. Each
//! operation is planned under the rules of the namespace that it names by its index in `nsInfo`. Source: SEMANTICS B3.8
//! and the server manual's page of the command.

use std::sync::Arc;

use super::document::seal_document;
use super::expression::Variables;
use super::filter::{self, Around};
use super::options::{UNKNOWN, has_collation, pass, refuse_order, variables};
use super::update::{Names, Parts, constants};
use super::{CommandView, Scope};
use crate::bson::{Doc, Element, kind};
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{CollectionPolicy, Reason, Refusal, Shape};

const OWN: &[&str] = &[
    "nsInfo",
    "ordered",
    "errorsOnly",
    "bypassDocumentValidation",
    "bypassEmptyTsReplacement",
    "let",
    "cursor",
];
const NAMESPACE: &[&[u8]] = &[b"ns", b"collectionUUID"];
const INSERT: &[&[u8]] = &[b"insert", b"document"];
const UPDATE: &[&[u8]] = &[
    b"update",
    b"filter",
    b"updateMods",
    b"arrayFilters",
    b"constants",
    b"multi",
    b"upsert",
    b"upsertSupplied",
    b"hint",
    b"collation",
    b"sort",
];
const DELETE: &[&[u8]] = &[b"delete", b"filter", b"multi", b"hint", b"collation"];

/// The namespaces of `nsInfo`, in order, as database and collection.
///
/// # Errors
/// A [`Refusal`] where an entry names none: its operations could not be planned.
pub fn namespaces<'a>(view: &CommandView<'a>) -> Result<Vec<(&'a str, &'a str)>, Refusal> {
    let mut found = Vec::new();
    let mut name = |doc: &Doc<'a>| -> Result<(), Refusal> {
        let ns = doc.get(b"ns").map_err(malformed)?;
        let namespace = ns
            .and_then(|ns| ns.text())
            .and_then(|text| text.split_once('.'))
            .ok_or_else(|| {
                Refusal::new(
                    Reason::Malformed,
                    "bulkWrite: an entry of 'nsInfo' names no namespace ('ns')",
                )
            })?;
        found.push(namespace);
        Ok(())
    };
    for sequence in view.sequences.iter().filter(|s| s.identifier == "nsInfo") {
        let mut at = sequence.documents_at;
        while at < sequence.end {
            let doc = Doc::at(view.body.buffer(), at).map_err(malformed)?;
            name(&doc)?;
            at = doc.end();
        }
    }
    if let Some(element) = view.get("nsInfo")?
        && let Some(array) = element.document().map_err(malformed)?
    {
        for item in array.elements() {
            match item.map_err(malformed)?.document().map_err(malformed)? {
                Some(doc) => name(&doc)?,
                None => {
                    return Err(Refusal::new(
                        Reason::Malformed,
                        "bulkWrite: 'nsInfo' holds something that is not a document",
                    ));
                }
            }
        }
    }
    Ok(found)
}

/// Plans the command.
///
/// # Errors
/// A [`Refusal`] naming the field and the operator.
pub fn plan<'a>(view: &CommandView<'a>, scope: &Scope<'_>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    let places: Vec<Place> = namespaces(view)?
        .into_iter()
        .map(|(db, collection)| {
            let policy = scope.map.lookup(db, collection);
            let collated = policy
                .as_ref()
                .is_some_and(|policy| scope.found.is_collated(&policy.namespace));
            Place { policy, collated }
        })
        .collect();
    if places.iter().all(|place| place.policy.is_none()) {
        return Ok(());
    }
    view.refuse_repeats()?;
    // Read once: a batch has thousands of operations, and `let` may hold as many variables.
    let in_scope = [variables(&view.body, false)?, variables(&view.body, true)?];
    view.each_field(draft, |draft, field| match field.key() {
        b"ops" => field.each_document(draft, |draft, op| operation(draft, &op, &places, &in_scope)),
        b"nsInfo" => field.each_document(draft, |_, entry| known(&entry, NAMESPACE, "an entry of 'nsInfo'")),
        _ => pass(draft, view, field, OWN),
    })
}

/// What is known of a namespace of `nsInfo`.
struct Place {
    policy: Option<Arc<CollectionPolicy>>,
    /// Its default collation is other than `simple`.
    collated: bool,
}

fn operation(
    draft: &mut Draft<'_>,
    op: &Doc<'_>,
    places: &[Place],
    in_scope: &[Variables; 2],
) -> Result<(), Refusal> {
    let first = op.elements().next().transpose().map_err(malformed)?;
    let Some((first, allowed)) = first.and_then(|first| {
        let allowed = match first.key {
            b"insert" => INSERT,
            b"update" => UPDATE,
            b"delete" => DELETE,
            _ => return None,
        };
        Some((first, allowed))
    }) else {
        return Err(Refusal::new(
            Reason::Malformed,
            "bulkWrite: an operation begins with none of insert, update, delete",
        ));
    };
    let index = first.integer().and_then(|index| usize::try_from(index).ok());
    let Some(place) = index.and_then(|index| places.get(index)) else {
        return Err(Refusal::new(
            Reason::Malformed,
            format!(
                "bulkWrite: the namespace of an operation ('{}') is no index of 'nsInfo'",
                first.key_text()
            ),
        ));
    };
    let Some(policy) = &place.policy else {
        return Ok(());
    };
    known(op, allowed, &format!("operation '{}'", first.key_text()))?;
    draft.report_subjects_of(policy.subject.clone());
    let region = draft.open_doc(op);
    match first.key {
        b"insert" => insert(draft, op, &policy.shape)?,
        b"update" => update(draft, op, &policy.shape, place.collated, in_scope)?,
        _ => delete(draft, op, &policy.shape, place.collated, in_scope)?,
    }
    draft.close(region, op.end());
    Ok(())
}

fn insert(draft: &mut Draft<'_>, op: &Doc<'_>, shape: &Shape) -> Result<(), Refusal> {
    let (Some(document), Shape::Tree(tree)) = (op.get(b"document").map_err(malformed)?, shape) else {
        return Ok(());
    };
    draft.count_documents(1);
    seal_document(draft, &document_of(&document)?, tree)
}

fn update(
    draft: &mut Draft<'_>,
    op: &Doc<'_>,
    shape: &Shape,
    collated: bool,
    [simple, with_collation]: &[Variables; 2],
) -> Result<(), Refusal> {
    let Shape::Tree(tree) = shape else { return Ok(()) };
    draft.count_documents(1);
    let names = Names {
        filter: b"filter",
        update: b"updateMods",
        constants: b"constants",
    };
    let variables = if has_collation(op, collated)? {
        with_collation
    } else {
        simple
    };
    let variables = &*constants(op, &names, variables)?;
    let parts = Parts::read(draft, op, &names, tree, variables, collated)?;
    for element in op.elements() {
        let element = element.map_err(malformed)?;
        if !parts.plan(draft, &element, &names, tree, variables)? && element.key == b"sort" {
            refuse_order(&element, shape)?;
        }
    }
    Ok(())
}

fn delete(
    draft: &mut Draft<'_>,
    op: &Doc<'_>,
    shape: &Shape,
    collated: bool,
    [simple, with_collation]: &[Variables; 2],
) -> Result<(), Refusal> {
    let collation = has_collation(op, collated)?;
    let Some(query) = op.get(b"filter").map_err(malformed)? else {
        return Ok(());
    };
    let mut around = Around {
        collation,
        variables: Some(if collation { with_collation } else { simple }),
        ..Around::default()
    };
    filter::plan(draft, &document_of(&query)?, shape, &mut around)
}

/// Each key is in the list, and stands once.
fn known(doc: &Doc<'_>, allowed: &[&[u8]], what: &str) -> Result<(), Refusal> {
    let mut seen = 0_u32;
    for element in doc.elements() {
        let element = element.map_err(malformed)?;
        let at = allowed.iter().position(|key| *key == element.key).ok_or_else(|| {
            Refusal::new(
                Reason::Option,
                format!(
                    "bulkWrite: argument '{}' of {what} is not supported on a protected collection; leave it out",
                    element.key_text()
                ),
            )
            .with_code(UNKNOWN)
        })?;
        if seen & (1 << at) != 0 {
            return Err(Refusal::new(
                Reason::Malformed,
                format!("bulkWrite: '{}' stands twice in {what}", element.key_text()),
            ));
        }
        seen |= 1 << at;
    }
    Ok(())
}

fn document_of<'a>(element: &Element<'a>) -> Result<Doc<'a>, Refusal> {
    element
        .document()
        .map_err(malformed)?
        .filter(|_| element.kind == kind::DOCUMENT)
        .ok_or_else(|| {
            Refusal::new(
                Reason::Malformed,
                format!("bulkWrite: '{}' is not a document", element.key_text()),
            )
        })
}
