//! The field map: what is written is handed to the policy's own judgement, whose mistakes come back with their lines.

use std::collections::HashMap;

use super::word;
use crate::config::raw::{self, Text};
use crate::config::report::Mistakes;
use crate::name::Namespace;
use crate::policy::map::{self, CollectionSpec, FieldSpec};
use crate::policy::{FieldMap, FieldState};

pub(super) fn field_map(
    collections: &[raw::Collection],
    vault: Option<Namespace>,
    out: &mut Mistakes,
    warnings: &mut Mistakes,
) -> Option<FieldMap> {
    if collections.is_empty() {
        warnings.add(
            None,
            "there is no [[collection]]: nothing is protected",
            "name what to protect, or leave fieldveil out of the way",
        );
    }
    let mut specs = Vec::new();
    let mut sources = Vec::new();
    for collection in collections {
        let Some(namespace) = &collection.namespace else {
            out.add(
                collection.line,
                "[[collection]] has no namespace",
                "write namespace = \"database.collection\"",
            );
            continue;
        };
        let state = state(&collection.state, out);
        specs.push(CollectionSpec {
            namespace: namespace.value.clone(),
            subject: collection.subject.as_ref().map(|at| at.value.clone()),
            state,
            fields: collection
                .fields
                .iter()
                .map(|field| field_spec(field, out))
                .collect(),
        });
        sources.push(collection);
    }
    let file = |mistake: map::Mistake, into: &mut Mistakes| {
        let line = sources.get(mistake.collection).map(|c| line_of(c, &mistake));
        into.add(
            line,
            format!("{}: {}", mistake.subject, mistake.reason),
            mistake.way_out,
        );
    };
    match FieldMap::build_beside(specs, vault) {
        Ok(map) => {
            for warning in map.warnings() {
                file(warning.clone(), warnings);
            }
            Some(map)
        }
        Err(mistakes) => {
            for mistake in mistakes {
                file(mistake, out);
            }
            None
        }
    }
}

fn field_spec(field: &raw::Field, out: &mut Mistakes) -> FieldSpec {
    let text = |at: &Text| at.as_ref().map(|at| at.value.clone());
    FieldSpec {
        path: field.path.clone(),
        mode: text(&field.mode).unwrap_or_default(),
        declared: text(&field.declared),
        algorithm: text(&field.algorithm),
        domain: text(&field.domain),
        state: state(&field.state, out),
        each: field.each.as_ref().is_some_and(|at| at.value),
        accept_leakage: text(&field.accept_leakage),
    }
}

fn state(at: &Text, out: &mut Mistakes) -> Option<FieldState> {
    let words = [
        ("migrating", FieldState::Migrating),
        ("enforced", FieldState::Enforced),
    ];
    word(at, "state", &words, out)
}

/// Where in the file a mistake of the field map stands: at the key that is wrong, else at the entry.
fn line_of(collection: &raw::Collection, mistake: &map::Mistake) -> usize {
    let text = |at: &Text| at.as_ref().map(|at| at.line);
    let (entry, keys): (usize, HashMap<&str, Option<usize>>) =
        match mistake.field.and_then(|index| collection.fields.get(index)) {
            Some(field) => (
                field.line,
                HashMap::from([
                    ("mode", text(&field.mode)),
                    ("type", text(&field.declared)),
                    ("algorithm", text(&field.algorithm)),
                    ("domain", text(&field.domain)),
                    ("each", field.each.as_ref().map(|at| at.line)),
                    ("accept_leakage", text(&field.accept_leakage)),
                ]),
            ),
            None => (
                collection.line,
                HashMap::from([
                    ("namespace", text(&collection.namespace)),
                    ("subject", text(&collection.subject)),
                ]),
            ),
        };
    mistake
        .key
        .and_then(|key| keys.get(key).copied().flatten())
        .unwrap_or(entry)
}
