//! `fieldveil audit verify`: proves offline that nobody touched the log.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::exit::Exit;
use super::hint::Failure;
use super::load::load;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Follow the chain of hashes from the first line to the last
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The log; with rotated files before it, oldest first. Default: the one in the configuration
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Number of a line that was noted down elsewhere; it must be in the log
    #[arg(long, value_name = "N", requires = "expect_hash")]
    expect_seq: Option<u64>,
    /// That line's hash, 64 hex digits
    #[arg(long, value_name = "HEX", requires = "expect_seq", value_parser = hash)]
    expect_hash: Option<[u8; 32]>,
}

fn hash(text: &str) -> Result<[u8; 32], String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| "a hash has 64 hex digits".to_owned())?;
    Ok(bytes)
}

pub(super) fn run(command: &Command, config: &Path) -> Result<Exit, Failure> {
    let Command::Verify(asked) = command;
    let config = load(config)?;
    let files = if asked.files.is_empty() {
        vec![config.audit.path.clone()]
    } else {
        asked.files.clone()
    };
    verify(&files, asked.expect_seq.zip(asked.expect_hash), asked.json)
}

/// TO WIRE: audit::verify_all(files, key, expect) with the audit key that the assembly derives; print the report as it
/// is or as JSON; Exit::Failed where it has findings.
fn verify(_files: &[PathBuf], _expect: Option<(u64, [u8; 32])>, _json: bool) -> Result<Exit, Failure> {
    Err(Failure::failed(
        "the audit log is not part of this build",
        "build fieldveil with its audit room",
    ))
}
