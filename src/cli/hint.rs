//! What a person is told when a command does not work: what, where, and what to do.

use std::fmt;

use super::exit::Exit;
use crate::config::Report;
use crate::error::{Error, Fault};

/// Why a command stopped.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    text: String,
    hint: Option<String>,
}

impl Failure {
    /// Something went wrong; the hint says what to do.
    pub(super) fn failed(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            text: text.into(),
            hint: Some(hint.into()),
        }
    }

    /// It was asked for in the wrong way.
    pub(super) fn usage(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            ..Self::failed(text, hint)
        }
    }
}

/// A room's error says what to do itself; where the fault lies elsewhere, that is added.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let hint = match error.fault {
            Fault::Client | Fault::Operator => None,
            Fault::Upstream => Some("`fieldveil check` tells whether MongoDB can be reached, and how"),
            Fault::KeyProvider => {
                Some("`fieldveil check` tells whether the master key and the key vault can be used")
            }
            Fault::Internal => Some("this is a bug in fieldveil: please report it, with this message"),
        };
        Self {
            exit: Exit::Failed,
            text: error.text,
            hint: hint.map(str::to_owned),
        }
    }
}

impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        let count = report.mistakes.len();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        Self {
            exit: Exit::Usage,
            text: format!("{count} {noun} in the configuration\n{report}"),
            hint: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fieldveil: {}", self.text)?;
        match &self.hint {
            Some(hint) => write!(f, "\n    {hint}"),
            None => Ok(()),
        }
    }
}
