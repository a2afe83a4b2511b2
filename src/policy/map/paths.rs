//! What only all fields of a collection together show: paths that overlap, and whose record a document is.

use std::collections::HashMap;

use super::rules::{Desk, clip};
use super::spec::CollectionSpec;

/// A path that is given twice, or that lies below another one: the outer value is sealed whole.
pub(super) fn judge_paths(desk: &mut Desk<'_>, spec: &CollectionSpec) {
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (index, field) in spec.fields.iter().enumerate() {
        if first.insert(&field.path, index).is_some() {
            desk.mistake(
                Some((index, &field.path)),
                None,
                "is listed twice",
                "keep one of the two",
            );
        }
    }
    for (index, field) in spec.fields.iter().enumerate() {
        let outer = field
            .path
            .match_indices('.')
            .map(|(dot, _)| &field.path[..dot])
            .find(|prefix| first.contains_key(prefix));
        if let Some(outer) = outer {
            desk.mistake(
                Some((index, &field.path)),
                None,
                format!("lies below `{}`, which is sealed as a whole", clip(outer)),
                "protect either the whole or the fields inside it, not both",
            );
        }
    }
}

/// Index of the subject's field.
pub(super) fn judge_subject(desk: &mut Desk<'_>, spec: &CollectionSpec) -> Option<usize> {
    let subject = spec.subject.as_deref()?;
    let found = spec
        .fields
        .iter()
        .position(|field| field.path == subject && field.mode == "deterministic");
    if found.is_none() {
        desk.mistake(
            None,
            Some("subject"),
            format!(
                "the subject `{}` is not one of its deterministic fields",
                clip(subject)
            ),
            "name a field with mode = \"deterministic\": one person must always have the same pseudonym",
        );
    }
    found
}
