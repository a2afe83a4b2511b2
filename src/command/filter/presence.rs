//! Whether a value is there: null and missing are never sealed, so this can be asked even where it cannot be told
//! whether the value is.

use super::written_operators;
use crate::bson::{Element, kind};
use crate::plan::draft::malformed;
use crate::policy::shape::is_position;
use crate::policy::{Refusal, Shape};

/// The predicate asks for nothing but presence: `$exists`, or comparisons with null.
pub(super) fn is_asked(element: &Element<'_>) -> Result<bool, Refusal> {
    let Some(operators) = written_operators(element)? else {
        return Ok(element.kind == kind::NULL);
    };
    for operator in operators.elements() {
        let operator = operator.map_err(malformed)?;
        let asked = match operator.key {
            b"$exists" => operator.document().map_err(malformed)?.is_none(),
            b"$eq" | b"$ne" => operator.kind == kind::NULL,
            b"$in" | b"$nin" => match operator.document().map_err(malformed)? {
                Some(list) if operator.kind == kind::ARRAY => list
                    .elements()
                    .all(|item| item.is_ok_and(|item| item.kind == kind::NULL)),
                _ => false,
            },
            _ => false,
        };
        if !asked {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The path leads to a value of a document that the server can look into, whatever the value is.
pub(super) fn can_be_told(shape: &Shape, path: &[u8]) -> bool {
    let (head, rest) = match path.iter().position(|b| *b == b'.') {
        Some(dot) => (&path[..dot], Some(&path[dot + 1..])),
        None => (path, None),
    };
    match (shape, rest) {
        (Shape::Tree(_), _) if is_position(head) => false,
        (Shape::Tree(_), None) => true,
        (Shape::Tree(tree), Some(rest)) => can_be_told(&tree.child(head), rest),
        _ => false,
    }
}
