//! `fieldveil audit verify`: proves offline that nobody touched the log.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::exit::Exit;
use super::hint::Failure;
use super::load::load;
use crate::app;
use crate::audit::{self, Anchor};
use crate::config::Config;
use crate::error::{Error, Fault};

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
    verify(
        &config,
        &files,
        asked.expect_seq.zip(asked.expect_hash),
        asked.json,
    )
}

/// The chain's key comes from the key vault, so vault and master key must be there; MongoDB's data need not be.
fn verify(
    config: &Config,
    files: &[PathBuf],
    expect: Option<(u64, [u8; 32])>,
    json: bool,
) -> Result<Exit, Failure> {
    let expect = expect.map(|(seq, hash)| Anchor { seq, hash });
    let report = super::runtime()?.block_on(async {
        let keys = app::key_service(config, None).await?;
        let (key, _) = app::audit_keys(&keys).await?;
        audit::verify_all(files, &key, expect)
            .map_err(|why| Error::new(Fault::Operator, format!("the audit log cannot be read: {why}")))
    })?;
    if json {
        let shown = serde_json::to_string_pretty(&report).map_err(|why| {
            Failure::failed(format!("the report cannot be shown: {why}"), "leave --json out")
        })?;
        println!("{shown}");
    } else {
        for finding in &report.findings {
            println!("{finding}");
        }
        let verdict = if report.ok { "intact" } else { "NOT INTACT" };
        println!("{verdict}: {} lines", report.lines);
        if let (Some(seq), Some(hash)) = (report.last_seq, &report.last_hash) {
            println!("last line {seq} with hash {hash}");
        }
    }
    Ok(if report.ok { Exit::Done } else { Exit::Failed })
}
