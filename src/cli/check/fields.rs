//! What will happen to each field, in words: how it is sealed, which operations work and which are refused.

use std::fmt;

use serde::Serialize;

use crate::policy::{FieldMap, FieldRule, FieldState, Mode};

/// One field, explained.
#[derive(Debug, Serialize)]
pub(super) struct Explained {
    pub(super) namespace: String,
    path: String,
    mode: &'static str,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    declared: Option<&'static str>,
    algorithm: &'static str,
    domain: String,
    state: &'static str,
    subject: bool,
    works: &'static [&'static str],
    refused: &'static [&'static str],
}

/// Every field of the map, in its order.
pub(super) fn explain(map: &FieldMap) -> Vec<Explained> {
    map.entries()
        .iter()
        .flat_map(|entry| {
            entry.rules.iter().map(|rule| {
                let subject = entry
                    .subject
                    .as_ref()
                    .is_some_and(|subject| subject.path == rule.path);
                field(&entry.namespace, rule, subject)
            })
        })
        .collect()
}

fn field(namespace: &str, rule: &FieldRule, subject: bool) -> Explained {
    let (mode, declared) = match rule.mode {
        Mode::Deterministic(declared) => ("deterministic", Some(declared.name())),
        Mode::Random => ("random", None),
    };
    let (works, refused): (&[&str], &[&str]) = if rule.is_deterministic() {
        (
            &[
                "insert",
                "read",
                "$eq",
                "$in",
                "$ne",
                "$nin",
                "$exists",
                "null",
                "$set",
                "$unset",
                "distinct",
                "index",
                "unique index",
            ],
            &[
                "$gt and other ranges",
                "$regex",
                "sort",
                "$inc and other arithmetic",
                "text search",
                "collation",
            ],
        )
    } else if rule.each {
        (
            &["insert", "read", "$exists", "null", "$set", "$unset", "$push"],
            &[
                "every comparison",
                "$pull by value",
                "sort",
                "index",
                "distinct",
                "$inc and other arithmetic",
            ],
        )
    } else {
        (
            &["insert", "read", "$exists", "null", "$set", "$unset"],
            &[
                "every comparison",
                "fields inside it",
                "sort",
                "index",
                "distinct",
                "$inc and other arithmetic",
            ],
        )
    };
    Explained {
        namespace: namespace.to_owned(),
        path: rule.path.to_string(),
        mode,
        declared,
        algorithm: rule.suite.name(),
        domain: rule.domain.to_string(),
        state: match rule.state {
            FieldState::Migrating => "migrating",
            FieldState::Enforced => "enforced",
        },
        subject,
        works,
        refused,
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let declared = self.declared.map_or_else(String::new, |name| format!(" {name}"));
        let subject = if self.subject { ", the subject" } else { "" };
        writeln!(
            f,
            "  {}: {}{declared}, {}, domain {}, {}{subject}",
            self.path, self.mode, self.algorithm, self.domain, self.state
        )?;
        writeln!(f, "      works:   {}", self.works.join(", "))?;
        writeln!(f, "      refused: {}", self.refused.join(", "))
    }
}
