//! The arguments that commands share: which of them are forwarded as they are, dropped, or looked at. Each command
//! lists its own; an argument that is in neither list is refused on a protected namespace.

use super::expression::{self, Variables};
use super::view::{CommandView, Field};
use crate::bson::{Doc, Element, kind};
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{FieldRule, Reason, Refusal, Shape, Target};

/// The server's own code for an argument that it does not know.
pub const UNKNOWN: i32 = 40415;

/// Arguments of any command that say nothing about a document.
pub const GENERIC: &[&str] = &[
    "$audit",
    "$clusterTime",
    "$configServerState",
    "$db",
    "$oplogQueryData",
    "$queryOptions",
    "$readPreference",
    "$replData",
    "apiDeprecationErrors",
    "apiStrict",
    "apiVersion",
    "autocommit",
    "lsid",
    "maxTimeMS",
    "maxTimeMSOpOnly",
    "readConcern",
    "startTransaction",
    "stmtId",
    "stmtIds",
    "txnNumber",
    "writeConcern",
];

/// Handles an argument that a command does not look at itself: forwards it when it is generic or in `own`, drops
/// `comment` (it goes to the server's log and profiler and could hold anything), refuses the rest.
///
/// # Errors
/// A [`Refusal`] naming the argument.
pub fn pass(
    draft: &mut Draft<'_>,
    view: &CommandView<'_>,
    field: &Field<'_>,
    own: &[&str],
) -> Result<(), Refusal> {
    let key = field.key();
    if key == view.name.as_bytes() {
        return Ok(());
    }
    if key == b"comment" {
        if let Some(element) = field.element() {
            draft.drop_element(element);
        }
        return Ok(());
    }
    if own.iter().chain(GENERIC).any(|known| known.as_bytes() == key) {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::Option,
        format!(
            "argument '{}' of {} is not supported on a protected collection; leave it out",
            String::from_utf8_lossy(key),
            view.name
        ),
    )
    .with_code(UNKNOWN))
}

/// Drops `comment` from a command that is forwarded otherwise as it is.
///
/// # Errors
/// A [`Refusal`] for malformed bytes.
pub fn drop_comment<'a>(view: &CommandView<'a>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    if view.get("comment")?.is_none() {
        return Ok(());
    }
    view.each_field(draft, |draft, field| {
        if let Some(comment) = field.element().filter(|element| element.key == b"comment") {
            draft.drop_element(comment);
        }
        Ok(())
    })
}

/// Whether strings are compared under a collation other than `simple`: the command's own, else the collection's
/// `default`.
///
/// # Errors
/// A [`Refusal`] for malformed bytes.
pub fn has_collation(doc: &Doc<'_>, default: bool) -> Result<bool, Refusal> {
    let Some(element) = doc.get(b"collation").map_err(malformed)? else {
        return Ok(default);
    };
    let Some(collation) = element.document().map_err(malformed)? else {
        return Ok(default);
    };
    if collation.is_empty() {
        return Ok(default);
    }
    let locale = collation.get(b"locale").map_err(malformed)?;
    Ok(locale.and_then(|e| e.text()) != Some("simple"))
}

/// The shapes of a command's `let` variables: constants and expressions over no document, so all of them are plain.
///
/// # Errors
/// A [`Refusal`] for malformed bytes.
pub fn variables(doc: &Doc<'_>, collation: bool) -> Result<Variables, Refusal> {
    let mut variables = Variables::with_collation(collation);
    if let Some(element) = doc.get(b"let").map_err(malformed)? {
        bind_plain(&mut variables, &element)?;
    }
    Ok(variables)
}

/// Binds the variables that a document of constants names. None of them may bring ciphertext: it could be stored.
///
/// # Errors
/// A [`Refusal`] naming the variable.
pub fn bind_plain(variables: &mut Variables, element: &Element<'_>) -> Result<(), Refusal> {
    let Some(names) = element.document().map_err(malformed)? else {
        return Ok(());
    };
    for name in names.elements() {
        let name = name.map_err(malformed)?;
        super::document::refuse_ciphertext(&name)?;
        variables.bind(name.key, Shape::Plain)?;
    }
    Ok(())
}

/// Refuses a sort (or index bounds) by anything protected.
///
/// # Errors
/// A [`Refusal`] naming the field.
pub fn refuse_order(element: &Element<'_>, shape: &Shape) -> Result<(), Refusal> {
    let Some(keys) = element.document().map_err(malformed)? else {
        return Ok(());
    };
    for key in keys.elements() {
        let key = key.map_err(malformed)?;
        if !matches!(shape.resolve(key.key), Target::Plain) {
            return Err(Refusal::new(
                Reason::Order,
                format!(
                    "{} by '{}': a protected field has no order on the server, it would follow ciphertext; order by another field, or in the application",
                    element.key_text(),
                    key.key_text()
                ),
            ));
        }
    }
    Ok(())
}

/// Plans a projection: inclusion and exclusion pass; `$elemMatch` is a filter; expressions are tracked.
///
/// # Errors
/// A [`Refusal`] naming the field and the operator.
pub fn projection(
    draft: &mut Draft<'_>,
    element: &Element<'_>,
    shape: &Shape,
    variables: &Variables,
    collation: bool,
) -> Result<(), Refusal> {
    let Some(doc) = element.document().map_err(malformed)? else {
        return Ok(());
    };
    project(draft, &doc, b"", shape, variables, collation, 1)
}

fn project(
    draft: &mut Draft<'_>,
    doc: &Doc<'_>,
    prefix: &[u8],
    shape: &Shape,
    variables: &Variables,
    collation: bool,
    depth: usize,
) -> Result<(), Refusal> {
    if depth > crate::limits::MAX_DEPTH {
        return Err(Refusal::new(
            Reason::Malformed,
            "projections nest deeper than 200 levels",
        ));
    }
    let region = draft.open_doc(doc);
    for field in doc.elements() {
        let field = field.map_err(malformed)?;
        let path = if prefix.is_empty() {
            field.key.to_vec()
        } else {
            [prefix, b".", field.key].concat()
        };
        refuse_below(&path, shape)?;
        match field.kind {
            kind::BOOL | kind::INT32 | kind::INT64 | kind::DOUBLE | kind::DECIMAL128 => {}
            kind::DOCUMENT => {
                let Some(inner) = field.document().map_err(malformed)? else {
                    continue;
                };
                let first = inner.elements().next().transpose().map_err(malformed)?;
                match first {
                    Some(operator) if operator.key.first() == Some(&b'$') => {
                        let inner_region = draft.open_doc(&inner);
                        let handled = match_operator(draft, &operator, &path, shape, collation)?;
                        draft.close(inner_region, inner.end());
                        if !handled {
                            draft.note_computed();
                            expression::plan(draft, &field, shape, variables)?;
                        }
                    }
                    _ => project(draft, &inner, &path, shape, variables, collation, depth + 1)?,
                }
            }
            _ => {
                draft.note_computed();
                expression::plan(draft, &field, shape, variables)?;
            }
        }
    }
    draft.close(region, doc.end());
    Ok(())
}

/// A projection of what lies inside a sealed value would find nothing to show, or nothing to leave out. A deterministic
/// value has no inside.
fn refuse_below(path: &[u8], shape: &Shape) -> Result<(), Refusal> {
    // In a projection a number is always a key.
    let last = path.rsplit(|b| *b == b'.').next().unwrap_or(path);
    match shape.resolve(path) {
        Target::Below(rule) if !rule.is_deterministic() => Err(inside(path, &rule)),
        Target::Sealed(rule) if rule.each && last.iter().all(u8::is_ascii_digit) => Err(inside(path, &rule)),
        _ => Ok(()),
    }
}

fn inside(path: &[u8], rule: &FieldRule) -> Refusal {
    Refusal::new(
        Reason::BelowSealed,
        format!(
            "projection of '{}' leads into field '{}', which is sealed as one value; project the whole field, or protect the inner fields one by one in the field map",
            String::from_utf8_lossy(path),
            rule.path
        ),
    )
    .about(rule)
}

/// The projection operators that are no expressions. `false`: it is an expression.
fn match_operator(
    draft: &mut Draft<'_>,
    operator: &Element<'_>,
    path: &[u8],
    shape: &Shape,
    collation: bool,
) -> Result<bool, Refusal> {
    // With numbers this is the projection operator; with an array first, in whatever words, it is an expression.
    if operator.key == b"$slice" && !starts_with_number(operator)? {
        return Ok(false);
    }
    let target = shape.resolve(path);
    let mut around = super::filter::Around {
        collation,
        ..Default::default()
    };
    match (operator.key, target) {
        (b"$meta", _) => Ok(true),
        (b"$slice", Target::Sealed(rule)) if !rule.seals_elements() => Err(Refusal::new(
            Reason::Operator,
            format!(
                "projection $slice on field '{}', which is sealed as one value; project the whole field",
                rule.path
            ),
        )),
        (b"$slice", Target::Unknown | Target::Below(_)) => Err(Refusal::new(
            Reason::Operator,
            format!(
                "projection $slice on '{}' cannot be analysed; project the whole field",
                String::from_utf8_lossy(path)
            ),
        )),
        (b"$slice", _) => Ok(true),
        (b"$elemMatch", Target::Plain) => Ok(true),
        (b"$elemMatch", Target::Above(tree)) => {
            if let Some(inner) = operator.document().map_err(malformed)? {
                super::filter::plan(draft, &inner, &Shape::Tree(tree), &mut around)?;
            }
            Ok(true)
        }
        (b"$elemMatch", Target::Sealed(rule)) if rule.seals_elements() => {
            let item = expression::shapes::item_of(&rule);
            super::filter::predicate(draft, operator, &item, &mut around, false, 1)?;
            Ok(true)
        }
        (b"$elemMatch", _) => Err(Refusal::new(
            Reason::Operator,
            format!(
                "projection $elemMatch on '{}': the server cannot look inside a sealed value",
                String::from_utf8_lossy(path)
            ),
        )),
        _ => Ok(false),
    }
}

/// A number, or a list that begins with one.
fn starts_with_number(operand: &Element<'_>) -> Result<bool, Refusal> {
    let is_number = |e: &Element<'_>| {
        matches!(
            e.kind,
            kind::INT32 | kind::INT64 | kind::DOUBLE | kind::DECIMAL128
        )
    };
    let Some(list) = operand.document().map_err(malformed)? else {
        return Ok(is_number(operand));
    };
    let first = list.elements().next().transpose().map_err(malformed)?;
    Ok(first.is_some_and(|first| is_number(&first)))
}
