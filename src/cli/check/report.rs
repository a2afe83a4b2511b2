//! What `check` found: for people, and as JSON for scripts (its keys are part of the contract).

use std::fmt;

use serde::Serialize;
use serde_json::json;

use super::fields::Explained;
use crate::config::Report;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) area: &'static str,
    pub(super) status: Status,
    pub(super) text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
}

#[derive(Debug)]
pub(super) struct CheckReport {
    config: String,
    pub(super) findings: Vec<Finding>,
    pub(super) fields: Vec<Explained>,
}

impl CheckReport {
    pub(super) fn new(config: &str) -> Self {
        Self {
            config: config.to_owned(),
            findings: Vec::new(),
            fields: Vec::new(),
        }
    }

    pub(super) fn ok(&mut self, area: &'static str, text: impl Into<String>) {
        self.add(area, Status::Ok, text.into(), None);
    }

    pub(super) fn warn(&mut self, area: &'static str, text: impl Into<String>, hint: &str) {
        self.add(area, Status::Warn, text.into(), Some(hint.to_owned()));
    }

    pub(super) fn fail(&mut self, area: &'static str, text: impl Into<String>, hint: &str) {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        self.add(area, Status::Fail, text.into(), hint);
    }

    fn add(&mut self, area: &'static str, status: Status, text: String, hint: Option<String>) {
        self.findings.push(Finding {
            area,
            status,
            text,
            hint,
        });
    }

    pub(super) fn failed(&self) -> bool {
        self.findings.iter().any(|finding| finding.status == Status::Fail)
    }

    pub(super) fn json(&self) -> String {
        let value = json!({
            "ok": !self.failed(),
            "config": self.config,
            "findings": self.findings,
            "fields": self.fields,
        });
        format!("{value:#}")
    }
}

/// The JSON of a configuration that cannot be used.
pub(super) fn mistaken(report: &Report) -> String {
    let mistakes: Vec<_> = report
        .mistakes
        .iter()
        .map(|m| json!({"line": m.line, "text": m.text, "hint": m.hint}))
        .collect();
    format!(
        "{:#}",
        json!({"ok": false, "config": report.file, "mistakes": mistakes})
    )
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let status = match finding.status {
                Status::Ok => "ok  ",
                Status::Warn => "warn",
                Status::Fail => "FAIL",
            };
            writeln!(f, "{status}  {:<9} {}", finding.area, finding.text)?;
            if let Some(hint) = &finding.hint {
                writeln!(f, "                {hint}")?;
            }
        }
        let mut namespace = "";
        for field in &self.fields {
            if field.namespace != namespace {
                namespace = &field.namespace;
                writeln!(f, "\n{namespace}")?;
            }
            write!(f, "{field}")?;
        }
        let count = |status| {
            self.findings
                .iter()
                .filter(|finding| finding.status == status)
                .count()
        };
        writeln!(
            f,
            "\n{}: {} ok, {} to look at, {} failed",
            self.config,
            count(Status::Ok),
            count(Status::Warn),
            count(Status::Fail)
        )
    }
}
