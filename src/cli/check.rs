//! `fieldveil check`: is everything there that serving needs, and what will happen to each field? Changes nothing,
//! and shows no value of any document.

mod fields;
mod local;
mod remote;
mod report;

use std::path::Path;

use clap::Args;

use self::report::CheckReport;
use super::exit::Exit;
use super::hint::Failure;
use super::load::{NotLoaded, load};
use super::logging::{self, LogFormat};
use crate::config::LogLevel;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(asked: &Arguments, file: &Path, format: LogFormat) -> Result<Exit, Failure> {
    let config = match load(file) {
        Ok(config) => config,
        Err(NotLoaded::Mistaken(mistaken)) if asked.json => {
            println!("{}", report::mistaken(&mistaken));
            return Ok(Exit::Usage);
        }
        Err(reason) => return Err(reason.into()),
    };
    // Warnings of other rooms are findings here; only what is worse is shown beside the report.
    logging::start(LogLevel::Error, format);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::failed(
                format!("no threads can be started: {error}"),
                "see the system's limits",
            )
        })?;
    let mut report = CheckReport::new(&config.file);
    for warning in &config.warnings {
        let line = warning
            .line
            .map_or_else(String::new, |line| format!("line {line}: "));
        report.warn("config", format!("{line}{}", warning.text), &warning.hint);
    }
    local::check(&config, &mut report);
    runtime.block_on(remote::check(&config, &mut report));
    report.fields = fields::explain(&config.fields);
    if asked.json {
        println!("{}", report.json());
    } else {
        print!("{report}");
    }
    Ok(if report.failed() { Exit::Failed } else { Exit::Done })
}
