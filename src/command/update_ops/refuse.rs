//! Why an update is refused: each refusal names the operator, the path and the way out, never a value.

use crate::bson::Element;
use crate::command::operators::{self, Change};
use crate::policy::{FieldRule, Reason, Refusal, Target};

/// Whatever the path leads to, the operator does not work there.
pub(super) fn refused_at(operator: &Element<'_>, field: &Element<'_>, target: &Target) -> Refusal {
    let on_items = operators::update(operator.key).is_some_and(|row| {
        matches!(
            row.kind,
            Change::Push | Change::AddToSet | Change::Pull | Change::PullAll | Change::Pop
        )
    });
    match target {
        Target::Below(rule) => below(operator, field, rule),
        Target::Sealed(rule) if on_items && !rule.seals_elements() => whole_array(operator, field, rule),
        Target::Sealed(rule) => refused(operator, field, rule),
        _ => refused_above(operator, field),
    }
}

pub(super) fn refused(operator: &Element<'_>, field: &Element<'_>, rule: &FieldRule) -> Refusal {
    Refusal::new(
        Reason::UpdateOperator,
        format!(
            "{} on '{}': field '{}' is sealed and the server cannot compute on it; read the value, change it and write it back with $set",
            operator.key_text(),
            field.key_text(),
            rule.path
        ),
    )
    .about(rule)
}

pub(super) fn refused_above(operator: &Element<'_>, field: &Element<'_>) -> Refusal {
    Refusal::new(
        Reason::UpdateOperator,
        format!(
            "{} on '{}': it holds protected fields and the server cannot compare or compute on them; use $set, $push or $pull with a condition on its fields",
            operator.key_text(),
            field.key_text()
        ),
    )
}

fn whole_array(operator: &Element<'_>, field: &Element<'_>, rule: &FieldRule) -> Refusal {
    Refusal::new(
        Reason::UpdateOperator,
        format!(
            "{} on '{}': field '{}' is sealed as one value; set the whole array with $set, or give the rule `each = true` so that its items are sealed one by one",
            operator.key_text(),
            field.key_text(),
            rule.path
        ),
    )
    .about(rule)
}

fn below(operator: &Element<'_>, field: &Element<'_>, rule: &FieldRule) -> Refusal {
    Refusal::new(
        Reason::BelowSealed,
        format!(
            "{} on '{}' leads into field '{}', which is sealed as one value; $set the whole field instead, or protect its inner fields one by one",
            operator.key_text(),
            field.key_text(),
            rule.path
        ),
    )
    .about(rule)
}

pub(super) fn upsert_in_two_forms(rule: &FieldRule) -> Refusal {
    Refusal::new(
        Reason::Rotation,
        format!(
            "field '{}': while it is migrating or its key is rotating, an upsert cannot take it from the filter here; set the field in the update itself ($setOnInsert)",
            rule.path
        ),
    )
    .about(rule)
}

/// The filter itself is the conflict: whatever the update sets, the server would insert nothing.
pub(super) fn upsert_matched_twice(rule: &FieldRule) -> Refusal {
    Refusal::new(
        Reason::Rotation,
        format!(
            "field '{}': the filter of this upsert compares it and also what encloses it, which cannot be told apart from two values while the field is migrating or its key is rotating; leave one of the two conditions out of the filter",
            rule.path
        ),
    )
    .about(rule)
}
