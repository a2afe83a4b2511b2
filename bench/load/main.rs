//! A closed-loop benchmark of fieldveil against a real `mongod`, TLS on both sides.
//!
//! Owns: the order of the run. One process starts everything (database, HAProxy, fieldveil twice), then goes round
//! robin over the ways to the database in short slices, so that a noisy neighbour hits all of them alike, and
//! compares only inside a round. Does not own: the parts (see the modules), nor any figure that has no second way
//! to compare it with.
//!
//! Every reply is checked: `ok: 1`, the number of documents, and each document byte for byte against what was
//! written, so that a fast wrong answer ends the run instead of winning it.

mod args;
mod connection;
mod matrix;
mod message;
mod operation;
mod patient;
mod process;
mod report;
mod scram;
mod servers;
mod slice;
mod targets;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Whatever went wrong, said once, at the top.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let options = args::Options::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(run_until_signalled(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error),
    }
}

/// Runs the matrix; a signal drops it, and with it every server that it started.
async fn run_until_signalled(options: args::Options) -> Outcome<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = matrix::run(options) => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        _ = terminated.recv() => Err("terminated".into()),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("load: {error}");
    ExitCode::FAILURE
}
