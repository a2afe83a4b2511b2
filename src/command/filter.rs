//! Filters: every operator of the query language on plain, sealed and enclosing paths. A literal that meets a
//! deterministic path is sealed in every form that may be stored; whatever cannot work on ciphertext is refused.
//! Knows shapes, not commands: the same code plans `find`, `$match`, `arrayFilters` and `$pull`.
//! Source: SEMANTICS B1.2.

use std::sync::Arc;

use super::expression;
use crate::bson::{Doc, Element, kind};
use crate::limits;
use crate::plan::canonical::canonical;
use crate::plan::draft::malformed;
use crate::plan::{Draft, Value};
use crate::policy::{FieldRule, Reason, Refusal, Shape, Target, Tree};

/// What surrounds a filter.
#[derive(Default)]
pub struct Around<'a> {
    /// The command carries a collation other than `simple`.
    pub collation: bool,
    /// Variables in scope for `$expr` (`let`).
    pub variables: Option<&'a expression::Variables>,
    /// The filter of an upsert: equalities that had to be widened are reported here, since the server can then no
    /// longer take the inserted document's fields from them.
    pub upsert: Option<Vec<Widened>>,
}

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
        match element.key {
            b"$and" | b"$or" | b"$nor" => {
                let Some(list) = element.document().map_err(malformed)? else {
                    continue;
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
            b"$expr" => {
                let none = expression::Variables::with_collation(around.collation);
                let variables = around.variables.unwrap_or(&none);
                expression::plan(draft, &element, shape, variables)?;
            }
            // It goes to the server's log and profiler and could hold anything.
            b"$comment" => draft.drop_element(&element),
            b"$alwaysTrue" | b"$alwaysFalse" | b"$sampleRate" => {}
            b"$where" | b"$text" | b"$jsonSchema" | b"$_internalSchemaEq" => {
                return Err(unanalysable(&element));
            }
            key if key.first() == Some(&b'$') => {
                return Err(Refusal::new(
                    Reason::Operator,
                    format!(
                        "operator '{}' is not supported in filters on a protected collection",
                        element.key_text()
                    ),
                ));
            }
            path => match shape.resolve(path) {
                Target::Plain => {}
                Target::Unknown => return Err(unknown(&element)),
                Target::Sealed(rule) => predicate(draft, &element, &rule, around, conjunct, depth)?,
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
    match operators(element)? {
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
    match operator.key {
        b"$exists" => Ok(()),
        b"$eq" => {
            let named = Named { operator, path };
            widen(
                draft,
                &named,
                rule,
                around,
                conjunct,
                b"$in",
                operator.kind == kind::REGEX,
            )
        }
        b"$ne" => {
            let named = Named { operator, path };
            widen(
                draft,
                &named,
                rule,
                around,
                false,
                b"$nin",
                operator.kind == kind::REGEX,
            )
        }
        b"$in" | b"$nin" => list(
            draft,
            operator,
            path,
            rule,
            around,
            conjunct && operator.key == b"$in",
        ),
        b"$all" => all(draft, operator, path, rule, around, depth),
        b"$not" => match operators(operator)? {
            Some(doc) => {
                let region = draft.open_doc(&doc);
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
            None => Err(refused(rule, "$not with a regular expression")),
        },
        b"$elemMatch" if rule.seals_elements() => match operators(operator)? {
            Some(doc) => {
                let region = draft.open_doc(&doc);
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
            None => Err(refused(rule, "$elemMatch on fields of its items")),
        },
        b"$size" if rule.seals_elements() => Ok(()),
        _ => Err(refused(rule, &operator.key_text())),
    }
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
    regex: bool,
) -> Result<(), Refusal> {
    let element = named.operator;
    if regex {
        return Err(refused(rule, "a regular expression (regex)"));
    }
    if element.kind == kind::NULL {
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
    if literal.kind == kind::NULL {
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

/// `$in` / `$nin`.
fn list(
    draft: &mut Draft<'_>,
    operator: &Element<'_>,
    path: &[u8],
    rule: &Arc<FieldRule>,
    around: &mut Around<'_>,
    conjunct: bool,
) -> Result<(), Refusal> {
    // The server refuses an operand that is no array; let it say so.
    if operator.kind != kind::ARRAY {
        return Err(refused(
            rule,
            &format!("{} without an array", operator.key_text()),
        ));
    }
    let Some(array) = operator.document().map_err(malformed)? else {
        return Ok(());
    };
    let expanded = draft.is_expanded(rule);
    let only = array.elements().count() == 1;
    let region = if expanded {
        draft.drop_element(operator);
        draft.put_header(operator.end, kind::ARRAY, operator.key);
        draft.begin();
        None
    } else {
        Some(draft.open_doc(&array))
    };
    for item in array.elements() {
        let item = item.map_err(malformed)?;
        if item.kind == kind::REGEX {
            return Err(refused(
                rule,
                &format!("a regular expression in {}", operator.key_text()),
            ));
        }
        if item.kind != kind::NULL {
            searchable(rule, Some(operator), &item, around)?;
            single_value(&item, rule)?;
        }
        if expanded {
            if only && item.kind != kind::NULL {
                note_upsert(&item, path, rule, around, conjunct)?;
            }
            draft.item_forms(&item, rule)?;
        } else {
            draft.seal(&item, rule)?;
        }
    }
    match region {
        Some(region) => draft.close(region, array.end()),
        None => draft.end(),
    }
    Ok(())
}

/// `$all`: sealed in place; where several forms may be stored each literal becomes an `$in` of its own, since the
/// server ANDs the operators of one field.
fn all(
    draft: &mut Draft<'_>,
    operator: &Element<'_>,
    path: &[u8],
    rule: &Arc<FieldRule>,
    around: &mut Around<'_>,
    depth: usize,
) -> Result<(), Refusal> {
    let Some(array) = operator.document().map_err(malformed)? else {
        return Err(refused(rule, "$all without an array"));
    };
    if !draft.is_expanded(rule) {
        let region = draft.open_doc(&array);
        for item in array.elements() {
            let item = item.map_err(malformed)?;
            match operators(&item)? {
                Some(doc) => {
                    let inner = draft.open_doc(&doc);
                    for op in doc.elements() {
                        operate(
                            draft,
                            &op.map_err(malformed)?,
                            path,
                            rule,
                            around,
                            false,
                            depth + 1,
                        )?;
                    }
                    draft.close(inner, doc.end());
                }
                None => {
                    if item.kind == kind::REGEX {
                        return Err(refused(rule, "a regular expression in $all"));
                    }
                    if item.kind != kind::NULL {
                        searchable(rule, Some(operator), &item, around)?;
                    }
                    draft.seal(&item, rule)?;
                }
            }
        }
        draft.close(region, array.end());
        return Ok(());
    }
    if array.is_empty() {
        return Ok(());
    }
    draft.drop_element(operator);
    for item in array.elements() {
        let item = item.map_err(malformed)?;
        if matches!(item.kind, kind::REGEX | kind::DOCUMENT | kind::ARRAY | kind::NULL) {
            return Err(Refusal::new(
                Reason::Rotation,
                format!(
                    "field '{}': $all over anything but plain values is not possible while the field is migrating or its key is rotating; finish the migration, or write one $in per value",
                    rule.path
                ),
            ));
        }
        searchable(rule, Some(operator), &item, around)?;
        draft.put_header(operator.end, kind::ARRAY, b"$in");
        draft.begin();
        draft.item_forms(&item, rule)?;
        draft.end();
    }
    Ok(())
}

/// A predicate on a path above protected fields.
fn enclosing(
    draft: &mut Draft<'_>,
    element: &Element<'_>,
    tree: &Arc<Tree>,
    around: &mut Around<'_>,
    depth: usize,
) -> Result<(), Refusal> {
    let Some(doc) = operators(element)? else {
        return match element.kind {
            kind::DOCUMENT | kind::ARRAY => Err(whole(element)),
            _ => Ok(()),
        };
    };
    enclosing_operators(draft, &doc, element, tree, around, depth)
}

fn enclosing_operators(
    draft: &mut Draft<'_>,
    doc: &Doc<'_>,
    element: &Element<'_>,
    tree: &Arc<Tree>,
    around: &mut Around<'_>,
    depth: usize,
) -> Result<(), Refusal> {
    let region = draft.open_doc(doc);
    for operator in doc.elements() {
        let operator = operator.map_err(malformed)?;
        match operator.key {
            b"$exists" | b"$type" | b"$size" => {}
            b"$elemMatch" => {
                if let Some(inner) = operator.document().map_err(malformed)? {
                    let shape = Shape::Tree(Arc::clone(tree));
                    clauses(draft, &inner, &shape, around, false, depth + 1)?;
                }
            }
            b"$not" => match operators(&operator)? {
                Some(inner) => enclosing_operators(draft, &inner, element, tree, around, depth + 1)?,
                None => return Err(refused_above(element, "$not")),
            },
            b"$eq" | b"$ne" => {
                if matches!(operator.kind, kind::DOCUMENT | kind::ARRAY | kind::REGEX) {
                    return Err(whole(element));
                }
            }
            b"$in" | b"$nin" | b"$all" => {
                let Some(array) = operator.document().map_err(malformed)? else {
                    continue;
                };
                let inner_region = draft.open_doc(&array);
                for item in array.elements() {
                    let item = item.map_err(malformed)?;
                    let is_elem_match = operator.key == b"$all" && operators(&item)?.is_some();
                    if is_elem_match {
                        if let Some(inner) = item.document().map_err(malformed)? {
                            enclosing_operators(draft, &inner, element, tree, around, depth + 1)?;
                        }
                    } else if matches!(item.kind, kind::DOCUMENT | kind::ARRAY | kind::REGEX) {
                        return Err(whole(element));
                    }
                }
                draft.close(inner_region, array.end());
            }
            _ => return Err(refused_above(element, &operator.key_text())),
        }
    }
    draft.close(region, doc.end());
    Ok(())
}

/// The document of operators that `element` holds, if that is what it is: the server looks at the first key.
fn operators<'a>(element: &Element<'a>) -> Result<Option<Doc<'a>>, Refusal> {
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

/// Equality can be searched here, and this literal can be equal to what is stored.
fn searchable(
    rule: &FieldRule,
    operator: Option<&Element<'_>>,
    literal: &Element<'_>,
    around: &Around<'_>,
) -> Result<(), Refusal> {
    if !rule.is_deterministic() {
        return Err(Refusal::new(
            Reason::RandomEquality,
            format!(
                "field '{}' is sealed with a random algorithm and cannot be searched{}; only {{$exists}} and comparison with null work on it, or make it deterministic in the field map",
                rule.path,
                match operator {
                    Some(operator) => format!(" by {}", operator.key_text()),
                    None => String::new(),
                }
            ),
        )
        .about(rule));
    }
    if around.collation && literal.kind == kind::STRING {
        return Err(Refusal::new(
            Reason::Collation,
            format!(
                "field '{}': a collation has no effect on sealed values, so this search would return other rows; leave the collation out, or use {{locale: \"simple\"}}",
                rule.path
            ),
        )
        .about(rule));
    }
    Ok(())
}

fn single_value(literal: &Element<'_>, rule: &FieldRule) -> Result<(), Refusal> {
    if literal.kind == kind::ARRAY || literal.kind == kind::DOCUMENT {
        return Err(Refusal::new(
            Reason::WholeDocument,
            format!(
                "field '{}' cannot be compared with a whole array or document; compare its values one by one",
                rule.path
            ),
        ));
    }
    Ok(())
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
    if let Some(value) = canonical(literal, rule)? {
        widened.push(Widened {
            path: path.into(),
            value,
            rule: Arc::clone(rule),
        });
    }
    Ok(())
}

fn refused(rule: &FieldRule, operator: &str) -> Refusal {
    let way_out = if rule.is_deterministic() {
        "only equality ($eq, $ne, $in, $nin, $all, $exists, null) works on a deterministic field"
    } else {
        "only $exists and comparison with null work on a field sealed with a random algorithm"
    };
    Refusal::new(
        Reason::Operator,
        format!(
            "field '{}': {operator} cannot work on sealed values; {way_out}",
            rule.path
        ),
    )
    .about(rule)
}

fn refused_above(element: &Element<'_>, operator: &str) -> Refusal {
    Refusal::new(
        Reason::Operator,
        format!(
            "field '{}' holds protected fields: {operator} cannot be applied to it as a whole; name the fields inside, or use $elemMatch",
            element.key_text()
        ),
    )
}

fn whole(element: &Element<'_>) -> Refusal {
    Refusal::new(
        Reason::WholeDocument,
        format!(
            "field '{}' holds protected fields and cannot be compared as a whole; compare its fields by dotted path, or use $elemMatch",
            element.key_text()
        ),
    )
}

fn below(element: &Element<'_>, rule: &FieldRule) -> Refusal {
    Refusal::new(
        Reason::BelowSealed,
        format!(
            "path '{}' leads into field '{}', which is sealed as one value; the server cannot look inside. Protect the inner fields one by one in the field map instead",
            element.key_text(),
            rule.path
        ),
    )
    .about(rule)
}

fn unknown(element: &Element<'_>) -> Refusal {
    Refusal::new(
        Reason::UnknownShape,
        format!(
            "path '{}': it cannot be told whether it holds protected values here; filter before the stage or key that makes it ambiguous",
            element.key_text()
        ),
    )
}

fn unanalysable(element: &Element<'_>) -> Refusal {
    Refusal::new(
        Reason::Unanalysable,
        format!(
            "operator '{}' cannot be analysed and is not supported on a protected collection; use query operators on the fields instead",
            element.key_text()
        ),
    )
}
