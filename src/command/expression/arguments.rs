//! How operators and stages are written: operands, named arguments, and the refusals when they are not as they must be.

use super::shapes::protected_path;
use crate::bson::{Element, kind};
use crate::plan::draft::malformed;
use crate::policy::{Reason, Refusal, Shape};

/// Refuses an operand that is not plain.
pub(crate) fn not_plain(name: &str, shape: &Shape) -> Refusal {
    match (shape, protected_path(shape)) {
        (Shape::Sealed(_), Some(path)) => Refusal::new(
            Reason::Expression,
            format!(
                "{name} cannot work on field '{path}', which is sealed; only equality with constants and null, and passing it on, work there: compute in the application, after reading the field"
            ),
        ),
        (_, Some(path)) => Refusal::new(
            Reason::Expression,
            format!(
                "{name} cannot work on a value that holds protected field '{path}'; name the unprotected fields inside it instead"
            ),
        ),
        (_, None) => Refusal::new(
            Reason::UnknownShape,
            format!(
                "{name}: it cannot be told here whether its operand holds protected values; use it before the stage or branch that mixes protected and unprotected values"
            ),
        ),
    }
}

/// An operator or stage that is not written as the server wants it; it could be read in more than one way.
pub(crate) fn misformed(name: &str) -> Refusal {
    Refusal::new(
        Reason::Malformed,
        format!("{name} is not written as the server's manual says"),
    )
}

/// Named arguments of an operator or stage: a document with these keys and no other, each once.
pub(crate) struct Arguments<'a>(Vec<Element<'a>>);

impl<'a> Arguments<'a> {
    pub(crate) fn read(name: &str, element: &Element<'a>, allowed: &[&str]) -> Result<Self, Refusal> {
        if element.kind != kind::DOCUMENT {
            return Err(misformed(name));
        }
        let mut fields: Vec<Element<'a>> = Vec::new();
        for field in children(element)? {
            if !allowed.iter().any(|known| known.as_bytes() == field.key) {
                return Err(Refusal::new(
                    Reason::Option,
                    format!(
                        "{name}: argument '{}' is not supported where protected fields are in play; leave it out",
                        field.key_text()
                    ),
                ));
            }
            if fields.iter().any(|earlier| earlier.key == field.key) {
                return Err(misformed(name));
            }
            fields.push(field);
        }
        Ok(Self(fields))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Element<'a>> {
        self.0.iter().find(|field| field.key == key.as_bytes())
    }

    pub(crate) fn need(&self, name: &str, key: &str) -> Result<&Element<'a>, Refusal> {
        self.get(key).ok_or_else(|| misformed(name))
    }

    /// A field name or path without `$`.
    pub(crate) fn string(&self, name: &str, key: &str) -> Result<&'a [u8], Refusal> {
        let element = self.need(name, key)?;
        if element.kind == kind::STRING {
            Ok(string(element))
        } else {
            Err(misformed(name))
        }
    }
}

/// The fields of a document or the items of an array; empty for anything else.
pub(crate) fn children<'a>(element: &Element<'a>) -> Result<Vec<Element<'a>>, Refusal> {
    match element.document().map_err(malformed)? {
        Some(doc) => doc.elements().collect::<Result<Vec<_>, _>>().map_err(malformed),
        None => Ok(Vec::new()),
    }
}

/// The bytes of a string element, whether or not they are UTF-8: the server does not ask either.
pub(crate) fn string<'a>(element: &Element<'a>) -> &'a [u8] {
    if element.kind != kind::STRING {
        return &[];
    }
    let value = element.value();
    value.get(4..value.len().saturating_sub(1)).unwrap_or_default()
}

/// An operator's operands: the items of an array, or the one that stands alone.
pub(super) fn operands<'a>(element: &Element<'a>) -> Result<Vec<Element<'a>>, Refusal> {
    if element.kind == kind::ARRAY {
        children(element)
    } else {
        Ok(vec![*element])
    }
}

/// The fields of an object that is written out. The server takes no dotted name there, and logs what it does not take.
pub(super) fn written<'a>(element: &Element<'a>) -> Result<Vec<Element<'a>>, Refusal> {
    let fields = children(element)?;
    match fields.iter().find(|field| field.key.contains(&b'.')) {
        Some(dotted) => Err(dotted_name(dotted.key)),
        None => Ok(fields),
    }
}

/// A field of an object whose name would have to be a path.
pub(super) fn dotted_name(name: &[u8]) -> Refusal {
    Refusal::new(
        Reason::Malformed,
        format!(
            "'{}' has a dot, which no field of an object in an expression may have; write nested objects instead",
            String::from_utf8_lossy(name)
        ),
    )
}

pub(super) fn is_operator(field: &Element<'_>) -> bool {
    field.key.first() == Some(&b'$')
}
