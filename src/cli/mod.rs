//! The command line: one subcommand per file. The only place that reads the process's environment and prints.

mod audit;
mod check;
mod exit;
mod hint;
mod init;
mod load;
mod logging;
mod serve;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::exit::Exit;
use self::hint::Failure;
use self::logging::LogFormat;

/// Keeps the sensitive fields of unmodified MongoDB applications encrypted: a proxy between them and the database.
#[derive(Debug, Parser)]
#[command(name = "fieldveil", version, propagate_version = true)]
struct Arguments {
    /// The configuration; relative paths in it count from the working directory
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "config/fieldveil.toml"
    )]
    config: PathBuf,
    /// How log lines look on stderr
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Human)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented configuration, a development certificate and a master key; never overwrites
    Init(init::Arguments),
    /// Check the configuration, the keys and both TLS sides, and say what happens to each field
    Check(check::Arguments),
    /// Run the proxy in the foreground
    Serve,
    /// Work with the audit log
    #[command(subcommand)]
    Audit(audit::Command),
}

/// Runs the command line of this process; the exit code is 0 done, 1 failed, 2 wrong usage or configuration.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(told) => {
            // Help and version come this way too; a closed stdout is nobody's fault.
            let _ = told.print();
            return if told.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            }
            .into();
        }
    };
    match run(&arguments) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit.into()
        }
    }
}

fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Init(asked) => init::run(asked),
        Command::Check(asked) => check::run(asked, &arguments.config, arguments.log_format),
        Command::Serve => serve::run(&arguments.config, arguments.log_format),
        Command::Audit(command) => audit::run(command, &arguments.config),
    }
}

/// The runtime of a subcommand; the proxy's connections have worker threads of their own.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|why| {
            Failure::failed(
                format!("the runtime cannot be started: {why}"),
                "look at this user's limits (ulimit -a)",
            )
        })
}
