//! Filters: every operator of the query language on plain, sealed and enclosing paths. A literal that meets a
//! deterministic path is sealed in every form that may be stored; whatever cannot work on ciphertext is refused.
//! Knows shapes, not commands: the same code plans `find`, `$match`, `arrayFilters` and `$pull`.
//! Source: SEMANTICS B1.2.

mod comments;
mod enclosing;
mod lists;
mod presence;
mod refuse;

use std::sync::Arc;

use enclosing::{enclosing, enclosing_operators, is_about_items};
use lists::{all, is_bare_array, list};
use refuse::{below, malformed_operand, refused, searchable, single_value, unanalysable, unknown};

use super::expression;
use super::expression::shapes::item_of;
use super::operators::{self, Fit, Predicate, Top};
use crate::bson::{Doc, Element, kind};
use crate::limits;
use crate::plan::canonical::canonical;
use crate::plan::draft::malformed;
use crate::plan::{Draft, Value};
use crate::policy::shape::is_position;
use crate::policy::{FieldRule, Reason, Refusal, Shape, Target, Tree};

/// What surrounds a filter.
#[derive(Default)]
pub struct Around<'a> {
    /// The command carries a collation other than `simple`.
    pub collation: bool,
    /// Variables in scope for `$expr` (`let`).
    pub variables: Option<&'a expression::Variables>,
    /// What a `$jsonSchema` in it may say of protected fields.
    pub purpose: super::definition::Purpose,
    /// The filter of an upsert: equalities that had to be widened are reported here, since the server can then no
    /// longer take the inserted document's fields from them.
    pub upsert: Option<Vec<Widened>>,
}

/// Most equalities of one upsert's filter that are widened.
const MAX_WIDENED: usize = 1000;

/// An equality of an upsert's filter that was widened to several stored forms.
pub struct Widened {
    /// The dotted path as the filter wrote it.
    pub path: Box<[u8]>,
    /// The value to store on insert.
    pub value: Value,
    /// The rule it is sealed under.
    pub rule: Arc<FieldRule>,
}

/// Plans a filter document over documents of this shape.
///
/// # Errors
/// A [`Refusal`] naming the path and the operator.
pub fn plan(
    draft: &mut Draft<'_>,
    doc: &Doc<'_>,
    shape: &Shape,
    around: &mut Around<'_>,
) -> Result<(), Refusal> {
    clauses(draft, doc, shape, around, true, 1)
}

/// `conjunct`: the clause holds for every matching document (so an upsert takes its equalities).
fn clauses(
    draft: &mut Draft<'_>,
    doc: &Doc<'_>,
    shape: &Shape,
    around: &mut Around<'_>,
    conjunct: bool,
    depth: usize,
) -> Result<(), Refusal> {
    if depth > limits::MAX_DEPTH {
        return Err(Refusal::new(
            Reason::Malformed,
            "filters nest deeper than 200 levels",
        ));
    }
    let region = draft.open_doc(doc);
    for element in doc.elements() {
        let element = element.map_err(malformed)?;
        let top = operators::filter_top(element.key);
        match (element.key, top) {
            (_, Some(Top::Branches)) => {
                // The server refuses anything else, but its log would have shown it.
                let Some(list) = element
                    .document()
                    .map_err(malformed)?
                    .filter(|_| element.kind == kind::ARRAY)
                else {
                    return Err(malformed_operand(&element, "an array of filters"));
                };
                let only_branch = list.elements().count() == 1;
                let holds = conjunct && (element.key == b"$and" || element.key == b"$or" && only_branch);
                let inner_region = draft.open_doc(&list);
                for branch in list.elements() {
                    let branch = branch.map_err(malformed)?;
                    if let Some(branch) = branch.document().map_err(malformed)? {
                        clauses(draft, &branch, shape, around, holds, depth + 1)?;
                    }
                }
                draft.close(inner_region, list.end());
            }
            (_, Some(Top::Expression)) => {
                let none = expression::Variables::with_collation(around.collation);
                let variables = around.variables.unwrap_or(&none);
                expression::plan(draft, &element, shape, variables)?;
            }
            // It goes to the server's log and profiler and could hold anything.
            (_, Some(Top::Removed)) => draft.drop_element(&element),
            (_, Some(Top::Kept)) => {}
            (_, Some(Top::Schema)) => super::schema::judge(&element, shape, around.purpose)?,
            (_, Some(Top::Refused)) => return Err(unanalysable(&element)),
            (key, None) if key.first() == Some(&b'$') => {
                return Err(Refusal::new(
                    Reason::Operator,
                    format!(
                        "operator '{}' is not supported in filters on a protected collection",
                        element.key_text()
                    ),
                ));
            }
            (path, None) => match shape.resolve(path) {
                Target::Plain => comments::drop_inside(draft, &element, depth)?,
                Target::Unknown if presence::is_asked(&element)? && presence::can_be_told(shape, path) => {}
                Target::Unknown => return Err(unknown(&element)),
                Target::Sealed(rule) => {
                    let last = path.rsplit(|b| *b == b'.').next().unwrap_or(path);
                    let rule = if is_position(last) { item_of(&rule) } else { rule };
                    predicate(draft, &element, &rule, around, conjunct, depth)?;
                }
                Target::Below(rule) => return Err(below(&element, &rule)),
                Target::Above(tree) => enclosing(draft, &element, &tree, around, depth)?,
            },
        }
    }
    draft.close(region, doc.end());
    Ok(())
}

/// A predicate on a sealed path: a literal, or a document of operators.
///
/// # Errors
/// A [`Refusal`] naming the path and the operator.
pub fn predicate(
    draft: &mut Draft<'_>,
    element: &Element<'_>,
    rule: &Arc<FieldRule>,
    around: &mut Around<'_>,
    conjunct: bool,
    depth: usize,
) -> Result<(), Refusal> {
    draft.touch(rule);
    match written_operators(element)? {
        Some(doc) => {
            let region = draft.open_doc(&doc);
            for operator in doc.elements() {
                let operator = operator.map_err(malformed)?;
                operate(draft, &operator, element.key, rule, around, conjunct, depth)?;
            }
            draft.close(region, doc.end());
            Ok(())
        }
        None => equality(draft, element, element, rule, around, conjunct),
    }
}

fn operate(
    draft: &mut Draft<'_>,
    operator: &Element<'_>,
    path: &[u8],
    rule: &Arc<FieldRule>,
    around: &mut Around<'_>,
    conjunct: bool,
    depth: usize,
) -> Result<(), Refusal> {
    if depth > limits::MAX_DEPTH {
        return Err(Refusal::new(
            Reason::Malformed,
            "filters nest deeper than 200 levels",
        ));
    }
    let row = operators::filter(operator.key).filter(|row| row.on(rule) != Fit::No);
    match row.map(|row| row.kind) {
        Some(Predicate::Outside) => outside(operator),
        Some(Predicate::Kind) => kinds(operator, rule),
        Some(Predicate::One(list_operator)) => {
            let named = Named { operator, path };
            let conjunct = conjunct && operator.key == b"$eq";
            widen(draft, &named, rule, around, conjunct, list_operator.as_bytes())
        }
        Some(Predicate::List) => list(
            draft,
            operator,
            path,
            rule,
            around,
            conjunct && operator.key == b"$in",
        ),
        Some(Predicate::All) => all(draft, operator, path, rule, around, conjunct, depth),
        Some(Predicate::Not) => match written_operators(operator)? {
            Some(doc) => nested(draft, &doc, path, rule, around, depth),
            None if operator.kind == kind::REGEX => Err(refused(rule, "$not with a regular expression")),
            None => Err(malformed_operand(operator, "a document of operators")),
        },
        Some(Predicate::Items) => match written_operators(operator)? {
            Some(doc) => nested(draft, &doc, path, &item_of(rule), around, depth),
            None => Err(refused(rule, "$elemMatch on fields of its items")),
        },
        Some(Predicate::Inside) | None => Err(refused(rule, &operator.key_text())),
    }
}

/// An operator that says nothing about the value. What the server would refuse, its log would have shown.
fn outside(operator: &Element<'_>) -> Result<(), Refusal> {
    let is_number = matches!(
        operator.kind,
        kind::INT32 | kind::INT64 | kind::DOUBLE | kind::DECIMAL128
    );
    if operator.key == b"$size" && !is_number {
        return Err(malformed_operand(operator, "a number"));
    }
    Ok(())
}

/// `$type`: null is stored as it is, and so is the array around items that are sealed one by one; any other value is
/// binary to the server.
fn kinds(operator: &Element<'_>, rule: &FieldRule) -> Result<(), Refusal> {
    let is_seen = |named: &Element<'_>| match (named.text(), named.integer()) {
        (Some("null"), _) | (_, Some(10)) => true,
        (Some("array"), _) | (_, Some(4)) => rule.seals_elements(),
        _ => false,
    };
    let seen = match operator.document().map_err(malformed)? {
        Some(list) => list
            .elements()
            .all(|named| named.is_ok_and(|named| is_seen(&named))),
        None => is_seen(operator),
    };
    if seen {
        Ok(())
    } else {
        Err(refused(rule, &operator.key_text()))
    }
}

/// The condition of a `$pull` from an array whose items hold protected fields.
///
/// # Errors
/// A [`Refusal`] naming the path and the operator.
pub fn items(
    draft: &mut Draft<'_>,
    field: &Element<'_>,
    tree: &Arc<Tree>,
    around: &mut Around<'_>,
) -> Result<(), Refusal> {
    let Some(condition) = field.document().map_err(malformed)? else {
        return Ok(());
    };
    if is_about_items(field)? {
        return enclosing_operators(draft, &condition, field, tree, around, 1);
    }
    plan(draft, &condition, &Shape::Tree(Arc::clone(tree)), around)
}

/// Operators inside another one, on the same path.
fn nested(
    draft: &mut Draft<'_>,
    doc: &Doc<'_>,
    path: &[u8],
    rule: &Arc<FieldRule>,
    around: &mut Around<'_>,
    depth: usize,
) -> Result<(), Refusal> {
    let region = draft.open_doc(doc);
    for inner in doc.elements() {
        operate(
            draft,
            &inner.map_err(malformed)?,
            path,
            rule,
            around,
            false,
            depth + 1,
        )?;
    }
    draft.close(region, doc.end());
    Ok(())
}

struct Named<'e, 'a> {
    operator: &'e Element<'a>,
    path: &'e [u8],
}

/// `$eq` / `$ne` with one literal: sealed in place, or renamed to `list_operator` over every stored form.
fn widen(
    draft: &mut Draft<'_>,
    named: &Named<'_, '_>,
    rule: &Arc<FieldRule>,
    around: &mut Around<'_>,
    conjunct: bool,
    list_operator: &[u8],
) -> Result<(), Refusal> {
    let element = named.operator;
    if element.kind == kind::REGEX {
        return Err(refused(rule, "a regular expression (regex)"));
    }
    if element.kind == kind::NULL || is_bare_array(element, rule)? {
        return Ok(());
    }
    searchable(rule, Some(element), element, around)?;
    if !draft.is_expanded(rule) {
        return draft.seal_stored(element, rule);
    }
    single_value(element, rule)?;
    note_upsert(element, named.path, rule, around, conjunct)?;
    draft.drop_element(element);
    draft.put_header(element.end, kind::ARRAY, list_operator);
    draft.begin();
    draft.item_forms(element, rule)?;
    draft.end();
    Ok(())
}

/// `path: literal`.
fn equality(
    draft: &mut Draft<'_>,
    element: &Element<'_>,
    literal: &Element<'_>,
    rule: &Arc<FieldRule>,
    around: &mut Around<'_>,
    conjunct: bool,
) -> Result<(), Refusal> {
    if literal.kind == kind::REGEX {
        return Err(refused(rule, "a regular expression (regex)"));
    }
    if literal.kind == kind::NULL || is_bare_array(literal, rule)? {
        return Ok(());
    }
    searchable(rule, None, literal, around)?;
    if !draft.is_expanded(rule) {
        return draft.seal_stored(literal, rule);
    }
    single_value(literal, rule)?;
    note_upsert(literal, element.key, rule, around, conjunct)?;
    draft.drop_element(element);
    draft.put_header(element.end, kind::DOCUMENT, element.key);
    draft.begin();
    draft.put_header(element.end, kind::ARRAY, b"$in");
    draft.begin();
    draft.item_forms(literal, rule)?;
    draft.end();
    draft.end();
    Ok(())
}

/// The document of operators that `element` holds, if that is what it is: the server looks at the first key.
fn written_operators<'a>(element: &Element<'a>) -> Result<Option<Doc<'a>>, Refusal> {
    if element.kind != kind::DOCUMENT {
        return Ok(None);
    }
    let Some(doc) = element.document().map_err(malformed)? else {
        return Ok(None);
    };
    let first = doc.elements().next().transpose().map_err(malformed)?;
    Ok(first
        .filter(|e| e.key.first() == Some(&b'$') && e.key != b"$ref" && e.key != b"$id")
        .map(|_| doc))
}

fn note_upsert(
    literal: &Element<'_>,
    path: &[u8],
    rule: &Arc<FieldRule>,
    around: &mut Around<'_>,
    conjunct: bool,
) -> Result<(), Refusal> {
    let Some(widened) = around.upsert.as_mut() else {
        return Ok(());
    };
    if !conjunct {
        return Ok(());
    }
    if widened.len() == MAX_WIDENED {
        return Err(Refusal::new(
            Reason::Limit,
            format!("the filter of an upsert holds more than {MAX_WIDENED} equalities on protected fields"),
        ));
    }
    if let Some(value) = canonical(literal, rule)? {
        widened.push(Widened {
            path: path.into(),
            value,
            rule: Arc::clone(rule),
        });
    }
    Ok(())
}
