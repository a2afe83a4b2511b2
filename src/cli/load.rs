//! Reads the configuration file and the environment for the configuration's own room, which opens neither.

use std::fs;
use std::io;
use std::path::Path;

use super::hint::Failure;
use crate::config::{Config, Env, Report};

/// The environment of this process.
pub(super) struct ProcessEnv;

impl Env for ProcessEnv {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Why there is no configuration.
#[derive(Debug)]
pub(super) enum NotLoaded {
    /// The file cannot be read.
    Unreadable(Failure),
    /// The file can be read, but not used.
    Mistaken(Report),
}

impl From<NotLoaded> for Failure {
    fn from(reason: NotLoaded) -> Self {
        match reason {
            NotLoaded::Unreadable(failure) => failure,
            NotLoaded::Mistaken(report) => report.into(),
        }
    }
}

/// The configuration in this file.
pub(super) fn load(path: &Path) -> Result<Config, NotLoaded> {
    let text = fs::read_to_string(path).map_err(|error| NotLoaded::Unreadable(unreadable(path, &error)))?;
    Config::parse(&path.display().to_string(), &text, &ProcessEnv).map_err(NotLoaded::Mistaken)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => Failure::usage(
            format!("there is no configuration file {shown}"),
            "name it with --config FILE, or let `fieldveil init` write one",
        ),
        io::ErrorKind::InvalidData => Failure::usage(
            format!("the configuration file {shown} is not UTF-8 text"),
            "save it as UTF-8",
        ),
        _ => Failure::usage(
            format!("the configuration file {shown} cannot be read: {error}"),
            "give this user the right to read it",
        ),
    }
}
