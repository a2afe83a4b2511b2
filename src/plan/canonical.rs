//! A value as it is sealed: for a deterministic field in the one form of its declared type, so that values that are
//! equal in MongoDB (5, 5L, 5.0) become equal ciphertexts. Source: SEMANTICS B0.1, B0.4, B0.6, B1.8.

use super::op::{Bytes, Value};
use crate::bson::{Element, kind};
use crate::policy::{DeclaredType, FieldRule, Mode, Reason, Refusal};

/// The canonical value of `element` under `rule`; `None` for null, which stays as it is.
///
/// # Errors
/// A [`Refusal`] for ciphertext of the client's own, for values that can never be sealed, and for values that are not
/// of the declared type and cannot become so without loss.
pub fn canonical(element: &Element<'_>, rule: &FieldRule) -> Result<Option<Value>, Refusal> {
    if element.kind == kind::NULL {
        return Ok(None);
    }
    refuse_unsealable(element, &rule.path)?;
    let span = Value {
        kind: element.kind,
        bytes: Bytes::Span {
            at: offset(element.value_at),
            end: offset(element.end),
        },
    };
    let Mode::Deterministic(declared) = rule.mode else {
        refuse_hidden_null(element, rule)?;
        return Ok(Some(span));
    };
    let fitting = match declared {
        DeclaredType::String => element.kind == kind::STRING,
        DeclaredType::Date => element.kind == kind::DATE,
        DeclaredType::ObjectId => element.kind == kind::OBJECT_ID,
        DeclaredType::BinData => element.kind == kind::BINARY,
        DeclaredType::Int | DeclaredType::Long => {
            return number(element, declared)
                .map(Some)
                .ok_or_else(|| mistyped(element.kind, rule, declared));
        }
    };
    if fitting {
        Ok(Some(span))
    } else {
        Err(mistyped(element.kind, rule, declared))
    }
}

/// To the server an array that is sealed as one value is none, so `{field: null}` would not find a null in it, as it
/// must (SEMANTICS B0.1).
fn refuse_hidden_null(element: &Element<'_>, rule: &FieldRule) -> Result<(), Refusal> {
    if element.kind != kind::ARRAY || rule.each {
        return Ok(());
    }
    let Some(array) = element.document().map_err(super::draft::malformed)? else {
        return Ok(());
    };
    for item in array.elements() {
        if matches!(
            item.map_err(super::draft::malformed)?.kind,
            kind::NULL | kind::UNDEFINED
        ) {
            return Err(Refusal::new(
                Reason::Value,
                format!(
                    "field '{}': a null inside an array that is sealed as one value could not be found by {{field: null}} any more; leave nulls out of the array, or set `each = true` for the field in the field map",
                    rule.path
                ),
            ));
        }
    }
    Ok(())
}

/// Refuses what may not be sealed at all, in any mode.
///
/// # Errors
/// A [`Refusal`] that names the path.
pub fn refuse_unsealable(element: &Element<'_>, path: &str) -> Result<(), Refusal> {
    let never = match element.kind {
        kind::UNDEFINED => "undefined",
        kind::MIN_KEY => "minKey",
        kind::MAX_KEY => "maxKey",
        kind::TIMESTAMP if element.value() == [0; 8] => "Timestamp(0, 0)",
        _ => {
            if is_ciphertext(element) {
                return Err(Refusal::new(
                    Reason::Injection,
                    format!(
                        "field '{path}': the client sent ciphertext; send the plaintext value, the proxy seals it"
                    ),
                ));
            }
            return Ok(());
        }
    };
    Err(Refusal::new(
        Reason::Value,
        format!(
            "field '{path}': a value of type {never} cannot be protected; store a real value, null, or leave the field out"
        ),
    ))
}

/// Whether a client's value is, or claims to be, ciphertext of ours (subtype 0x80 with our version byte) or of CSFLE
/// (subtype 6).
pub fn is_ciphertext(element: &Element<'_>) -> bool {
    match element.binary() {
        Some((0x80, payload)) => payload.first() == Some(&1),
        Some((6, _)) => true,
        _ => false,
    }
}

/// MongoDB's alias for a BSON type, for messages.
pub fn type_name(code: u8) -> &'static str {
    match code {
        kind::DOUBLE => "double",
        kind::STRING => "string",
        kind::DOCUMENT => "object",
        kind::ARRAY => "array",
        kind::BINARY => "binData",
        kind::UNDEFINED => "undefined",
        kind::OBJECT_ID => "objectId",
        kind::BOOL => "bool",
        kind::DATE => "date",
        kind::NULL => "null",
        kind::REGEX => "regex",
        kind::DB_POINTER => "dbPointer",
        kind::CODE => "javascript",
        kind::SYMBOL => "symbol",
        kind::CODE_WITH_SCOPE => "javascriptWithScope",
        kind::INT32 => "int",
        kind::TIMESTAMP => "timestamp",
        kind::INT64 => "long",
        kind::DECIMAL128 => "decimal",
        kind::MIN_KEY => "minKey",
        kind::MAX_KEY => "maxKey",
        _ => "unknown",
    }
}

fn number(element: &Element<'_>, declared: DeclaredType) -> Option<Value> {
    let wide = element.integer()?;
    if declared == DeclaredType::Long {
        return Some(Value {
            kind: kind::INT64,
            bytes: Bytes::Inline {
                bytes: wide.to_le_bytes(),
                len: 8,
            },
        });
    }
    let narrow = i32::try_from(wide).ok()?;
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&narrow.to_le_bytes());
    Some(Value {
        kind: kind::INT32,
        bytes: Bytes::Inline { bytes, len: 4 },
    })
}

fn mistyped(found: u8, rule: &FieldRule, declared: DeclaredType) -> Refusal {
    Refusal::new(
        Reason::Type,
        format!(
            "field '{}' is declared as {}, but the value is of type {}; send a {} (or declare the field's type as what the application uses)",
            rule.path,
            declared.name(),
            type_name(found),
            declared.name(),
        ),
    )
    .about(rule)
}

/// Offsets of a message fit: it has at most 48 000 000 bytes.
#[inline]
pub(crate) fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
