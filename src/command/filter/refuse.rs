//! Why a filter is refused: each refusal names the path, the operator and the way out, never a value.

use super::Around;
use crate::bson::{Element, kind};
use crate::policy::{FieldRule, Reason, Refusal};

/// The server's code for an operand that an operator does not take.
const BAD_VALUE: i32 = 2;

/// Equality can be searched here, and this literal can be equal to what is stored.
pub(super) fn searchable(
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

pub(super) fn single_value(literal: &Element<'_>, rule: &FieldRule) -> Result<(), Refusal> {
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

pub(super) fn refused(rule: &FieldRule, operator: &str) -> Refusal {
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

pub(super) fn refused_above(element: &Element<'_>, operator: &str) -> Refusal {
    Refusal::new(
        Reason::Operator,
        format!(
            "field '{}' holds protected fields: {operator} cannot be applied to it as a whole; name the fields inside, or use $elemMatch",
            element.key_text()
        ),
    )
}

pub(super) fn whole(element: &Element<'_>) -> Refusal {
    Refusal::new(
        Reason::WholeDocument,
        format!(
            "field '{}' holds protected fields and cannot be compared as a whole; compare its fields by dotted path, or use $elemMatch",
            element.key_text()
        ),
    )
}

pub(super) fn below(element: &Element<'_>, rule: &FieldRule) -> Refusal {
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

pub(super) fn unknown(element: &Element<'_>) -> Refusal {
    Refusal::new(
        Reason::UnknownShape,
        format!(
            "path '{}': it cannot be told whether it holds protected values here; filter before the stage or key that makes it ambiguous",
            element.key_text()
        ),
    )
}

pub(super) fn unanalysable(element: &Element<'_>) -> Refusal {
    Refusal::new(
        Reason::Unanalysable,
        format!(
            "operator '{}' cannot be analysed and is not supported on a protected collection; use query operators on the fields instead",
            element.key_text()
        ),
    )
}

/// The server's own refusal of an operand: it would have logged what stands there.
pub(super) fn malformed_operand(operator: &Element<'_>, takes: &str) -> Refusal {
    Refusal::new(
        Reason::Malformed,
        format!("{} takes {takes}", operator.key_text()),
    )
    .with_code(BAD_VALUE)
}
