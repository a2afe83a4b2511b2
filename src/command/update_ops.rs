//! Update documents: operators, replacement, and what an upsert adds. Every operator that cannot work on ciphertext is
//! refused where it touches a protected path. Source: SEMANTICS B0.2, B0.3, B0.5, B1.4.

mod arrays;
mod refuse;
mod upsert;

use std::sync::Arc;

use arrays::{distinguishable, pull, pull_all, push};
use refuse::{refused_at, upsert_in_two_forms};
pub use upsert::refuse_matched_twice;
use upsert::{add_widened, retain_unset};

use super::aggregate;
use super::document::{seal_document, seal_value, shape_of};
use super::expression::Variables;
use super::expression::shapes::element_of;
use super::filter::{self, Around, Widened};
use super::operators::{self, Change, Fit};
use crate::bson::{Doc, Element, kind};
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::shape::is_position;
use crate::policy::{Reason, Refusal, Shape, Target, Tree};

/// The shapes that `$[identifier]` positions of an update stand for, for its `arrayFilters`.
#[derive(Default)]
pub struct Identifiers(Vec<(Box<[u8]>, Shape)>);

/// The server's own codes for updates that it could not read.
const FAILED_TO_PARSE: i32 = 9;
const TYPE_MISMATCH: i32 = 14;
const DOLLAR_PREFIXED: i32 = 52;
const EMPTY_FIELD_NAME: i32 = 56;

/// Most identifiers of one update.
const MAX_IDENTIFIERS: usize = 1000;

impl Identifiers {
    /// One identifier may stand in several paths: a filter on it then meets the items of all of them.
    fn add(&mut self, name: &[u8], shape: Shape) -> Result<(), Refusal> {
        if let Some((_, known)) = self.0.iter_mut().find(|(known, _)| **known == *name) {
            let same = match (&*known, &shape) {
                (Shape::Plain, Shape::Plain) => true,
                (Shape::Sealed(a), Shape::Sealed(b)) => Arc::ptr_eq(a, b),
                (Shape::Tree(a), Shape::Tree(b)) => Arc::ptr_eq(a, b),
                _ => false,
            };
            if !same {
                *known = Shape::Unknown;
            }
            return Ok(());
        }
        if self.0.len() == MAX_IDENTIFIERS {
            return Err(Refusal::new(
                Reason::Limit,
                format!("an update has more than {MAX_IDENTIFIERS} array filter identifiers"),
            ));
        }
        self.0.push((name.into(), shape));
        Ok(())
    }
}

/// Whether an element that holds an update is a pipeline, operators or a replacement.
enum Form<'a> {
    Pipeline(Doc<'a>),
    Operators(Doc<'a>),
    Replacement(Doc<'a>),
}

/// Plans the update that `element` holds. `widened` are the equalities of the filter that an upsert can no longer take
/// its fields from; `variables` are those of `let` and `c`, and say whether strings are compared under a collation.
///
/// # Errors
/// A [`Refusal`] naming the operator and the field.
pub fn plan(
    draft: &mut Draft<'_>,
    element: &Element<'_>,
    tree: &Arc<Tree>,
    widened: Vec<Widened>,
    variables: &Variables,
) -> Result<(), Refusal> {
    match form(element)? {
        Form::Pipeline(stages) => {
            if let Some(first) = widened.first() {
                return Err(upsert_in_two_forms(&first.rule));
            }
            aggregate::update(draft, &stages, &Shape::Tree(Arc::clone(tree)), variables)
        }
        Form::Replacement(doc) => seal_document(draft, &doc, tree),
        Form::Operators(doc) => by_operators(draft, &doc, tree, widened, variables.collation()),
    }
}

/// The shapes behind the `$[identifier]`s of this update's paths.
///
/// # Errors
/// A [`Refusal`] for malformed bytes.
pub fn identifiers(element: &Element<'_>, tree: &Arc<Tree>) -> Result<Identifiers, Refusal> {
    let mut found = Identifiers::default();
    let Form::Operators(doc) = form(element)? else {
        return Ok(found);
    };
    let root = Shape::Tree(Arc::clone(tree));
    for operator in doc.elements() {
        let Some(paths) = operator.map_err(malformed)?.document().map_err(malformed)? else {
            continue;
        };
        for path in paths.elements() {
            let path = path.map_err(malformed)?.key;
            let mut at = 0;
            for component in path.split(|b| *b == b'.') {
                if let [b'$', b'[', name @ .., b']'] = component
                    && !name.is_empty()
                {
                    let shape = shape_of(&root.resolve(&path[..at + component.len()]));
                    found.add(name, shape)?;
                }
                at += component.len() + 1;
            }
        }
    }
    Ok(found)
}

/// Plans `arrayFilters`: each is a filter whose paths begin with an identifier.
///
/// # Errors
/// A [`Refusal`] naming the path and the operator.
pub fn array_filters(
    draft: &mut Draft<'_>,
    element: &Element<'_>,
    identifiers: &Identifiers,
    collation: bool,
) -> Result<(), Refusal> {
    let Some(list) = element
        .document()
        .map_err(malformed)?
        .filter(|_| element.kind == kind::ARRAY)
    else {
        return Err(
            Refusal::new(Reason::Malformed, "arrayFilters takes an array of filters")
                .with_code(TYPE_MISMATCH),
        );
    };
    let items = identifiers
        .0
        .iter()
        .map(|(name, shape)| (name.clone(), element_of(shape)));
    let tree = Tree::new(crate::policy::Rest::Unknown, items);
    let shape = Shape::Tree(Arc::new(tree));
    let region = draft.open_doc(&list);
    for item in list.elements() {
        if let Some(doc) = item.map_err(malformed)?.document().map_err(malformed)? {
            refuse_unused(&doc, identifiers)?;
            filter::plan(
                draft,
                &doc,
                &shape,
                &mut Around {
                    collation,
                    ..Around::default()
                },
            )?;
        }
    }
    draft.close(region, list.end());
    Ok(())
}

/// An identifier that no path of the update has: nothing says what it is compared with.
fn refuse_unused(filter: &Doc<'_>, identifiers: &Identifiers) -> Result<(), Refusal> {
    for clause in filter.elements() {
        let clause = clause.map_err(malformed)?;
        let name = clause.key.split(|b| *b == b'.').next().unwrap_or_default();
        if name.first() != Some(&b'$') && !identifiers.0.iter().any(|(known, _)| **known == *name) {
            return Err(Refusal::new(
                Reason::UnknownShape,
                format!(
                    "arrayFilters: identifier '{}' stands in no path of the update; leave its filter out, or use it as $[{0}]",
                    String::from_utf8_lossy(name)
                ),
            ));
        }
    }
    Ok(())
}

fn form<'a>(element: &Element<'a>) -> Result<Form<'a>, Refusal> {
    let Some(doc) = element.document().map_err(malformed)? else {
        return Err(Refusal::new(
            Reason::Malformed,
            "an update must be a document or a pipeline",
        ));
    };
    if element.kind == kind::ARRAY {
        return Ok(Form::Pipeline(doc));
    }
    let first = doc.elements().next().transpose().map_err(malformed)?;
    let has_operators = first.is_some_and(|e| e.key.first() == Some(&b'$'));
    Ok(if has_operators {
        Form::Operators(doc)
    } else {
        Form::Replacement(doc)
    })
}

fn by_operators(
    draft: &mut Draft<'_>,
    doc: &Doc<'_>,
    tree: &Arc<Tree>,
    mut widened: Vec<Widened>,
    collation: bool,
) -> Result<(), Refusal> {
    retain_unset(&mut widened, doc)?;
    let region = draft.open_doc(doc);
    let mut has_set_on_insert = false;
    for operator in doc.elements() {
        let operator = operator.map_err(malformed)?;
        // The server refuses both, but its log would have shown them.
        if operator.key.first() != Some(&b'$') {
            return Err(Refusal::new(
                Reason::Malformed,
                format!("update: field '{}' stands beside operators", operator.key_text()),
            )
            .with_code(FAILED_TO_PARSE));
        }
        let Some(fields) = operator
            .document()
            .map_err(malformed)?
            .filter(|_| operator.kind == kind::DOCUMENT)
        else {
            return Err(Refusal::new(
                Reason::Malformed,
                format!("update: {} takes a document of fields", operator.key_text()),
            )
            .with_code(FAILED_TO_PARSE));
        };
        let inner = draft.open_doc(&fields);
        for field in fields.elements() {
            let field = field.map_err(malformed)?;
            assign(draft, &operator, &field, tree, collation)?;
        }
        if operator.key == b"$setOnInsert" {
            has_set_on_insert = true;
            add_widened(draft, fields.end() - 1, &widened);
        }
        draft.close(inner, fields.end());
    }
    if !widened.is_empty() && !has_set_on_insert {
        draft.put_header(doc.end() - 1, kind::DOCUMENT, b"$setOnInsert");
        draft.begin();
        for one in &widened {
            draft.put_sealed(&one.path, one.value, &one.rule);
        }
        draft.end();
    }
    draft.close(region, doc.end());
    Ok(())
}

fn assign(
    draft: &mut Draft<'_>,
    operator: &Element<'_>,
    field: &Element<'_>,
    tree: &Arc<Tree>,
    collation: bool,
) -> Result<(), Refusal> {
    // The server refuses such a path, but its log would have shown what was to stand there.
    if field.key.split(|b| *b == b'.').any(<[u8]>::is_empty) {
        return Err(Refusal::new(
            Reason::Malformed,
            format!(
                "{}: path '{}' contains an empty field name",
                operator.key_text(),
                field.key_text()
            ),
        )
        .with_code(EMPTY_FIELD_NAME));
    }
    // Nor does the server take `$name` in a path, the parts of a DBRef apart; `$[x` is neither a position nor a name.
    if let Some(odd) = field
        .key
        .split(|b| *b == b'.')
        .find(|c| c.first() == Some(&b'$') && !is_position(c) && !matches!(*c, b"$id" | b"$ref" | b"$db"))
    {
        return Err(Refusal::new(
            Reason::Malformed,
            format!(
                "{}: '{}' in path '{}' is neither a field name nor a position ($, $[], $[identifier])",
                operator.key_text(),
                String::from_utf8_lossy(odd),
                field.key_text()
            ),
        )
        .with_code(DOLLAR_PREFIXED));
    }
    let root = Shape::Tree(Arc::clone(tree));
    let target = root.resolve(field.key);
    let row = operators::update(operator.key);
    if row.is_some_and(|row| row.kind == Change::Rename) {
        return rename(operator, field, &root, &target);
    }
    if let Target::Plain = target {
        return super::document::refuse_ciphertext(field);
    }
    if let Target::Unknown = target {
        return Err(Refusal::new(
            Reason::UnknownShape,
            format!(
                "{} on '{}': a number in this path may be an array index or a key; it is protected in one reading only",
                operator.key_text(),
                field.key_text()
            ),
        ));
    }
    if let Target::Sealed(rule) | Target::Below(rule) = &target {
        draft.touch(rule);
    }
    let row = row.filter(|row| row.at(&target) != Fit::No);
    match row.map(|row| row.kind) {
        Some(Change::Assign) => seal_value(draft, field, &shape_of(&target)),
        Some(Change::Remove | Change::Pop) => Ok(()),
        Some(Change::Push) => push(draft, operator, field, &target),
        Some(Change::AddToSet) => {
            distinguishable(draft, operator, field, &target, collation)?;
            push(draft, operator, field, &target)
        }
        Some(Change::Pull) => pull(draft, operator, field, &target, collation),
        Some(Change::PullAll) => pull_all(draft, operator, field, &target, collation),
        Some(Change::Rename | Change::Compute) | None => Err(refused_at(operator, field, &target)),
    }
}

fn rename(operator: &Element<'_>, field: &Element<'_>, root: &Shape, from: &Target) -> Result<(), Refusal> {
    let to = field
        .text()
        .map_or(Target::Unknown, |to| root.resolve(to.as_bytes()));
    if matches!((from, &to), (Target::Plain, Target::Plain)) {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::UpdateOperator,
        format!(
            "{} of '{}' to '{}' moves a value into or out of a protected path, where it could not be opened or would stand unsealed; read the document, change it and write it back",
            operator.key_text(),
            field.key_text(),
            field.text().unwrap_or_default(),
        ),
    ))
}
