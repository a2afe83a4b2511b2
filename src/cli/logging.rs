//! Where log lines go: stderr, for people or as JSON.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::config::LogLevel;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// One line of text each
    Human,
    /// One JSON object each
    Json,
}

/// Starts logging for this process. Libraries are heard from `warn` up only, whatever the level: what they say below
/// that is not ours to vouch for.
pub(super) fn start(level: LogLevel, format: LogFormat) {
    let others = if level == LogLevel::Error { "error" } else { "warn" };
    let filter = EnvFilter::new(format!("{others},fieldveil={}", level.name()));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr);
    // The second start in one process is refused; the first one's choice then stays.
    let _ = match format {
        LogFormat::Human => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
