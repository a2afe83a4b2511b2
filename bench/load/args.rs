//! The command line of the benchmark. `cargo bench --bench load -- --quick`

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use fieldveil::wire::Compressor;

use crate::operation::Operation;
use crate::targets::Way;

/// Closed-loop load on MongoDB, directly and through HAProxy and fieldveil, interleaved.
#[derive(Parser, Debug, Clone)]
#[command(name = "load")]
pub(crate) struct Options {
    /// A smoke run of a few seconds: checks everything, proves nothing about speed.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Rounds per connection count; ratios are taken within a round, and their median is quoted.
    #[arg(long)]
    rounds: Option<usize>,
    /// Length of one slice in seconds.
    #[arg(long)]
    slice: Option<f64>,
    /// Only these operations.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Operation>,
    /// Only these ways to the database.
    #[arg(long, value_delimiter = ',')]
    ways: Vec<Way>,
    /// Every way is asked for compressed messages: zlib, snappy or zstd.
    #[arg(long, value_parser = |name: &str| Compressor::from_name(name).ok_or("snappy, zlib or zstd"))]
    pub(crate) compression: Option<Compressor>,
    /// Connection counts of the closed loop.
    #[arg(long, value_delimiter = ',')]
    connections: Vec<usize>,
    /// Idle connections to open at the end; 0 leaves that part out.
    #[arg(long)]
    idle: Option<usize>,
    /// Patients that the reads choose from.
    #[arg(long)]
    patients: Option<usize>,
    /// The database server.
    #[arg(long, default_value = "mongod")]
    pub(crate) mongod: PathBuf,
    /// The forwarder to compare with.
    #[arg(long, default_value = "haproxy")]
    pub(crate) haproxy: PathBuf,
    /// The proxy under test.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_fieldveil"))]
    pub(crate) fieldveil: PathBuf,
    /// Write every figure of every round to this file as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Only start and fill everything, print each way's connection string as one line of JSON, and wait until standard
    /// input ends. For benchmarks that bring their own load.
    #[arg(long)]
    pub(crate) serve: bool,
    /// Exit with 1 when a target is missed.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Keep the servers' directory (logs, configurations) and say where it is.
    #[arg(long)]
    pub(crate) keep: bool,
    /// What `cargo bench` adds by itself.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 7 }).max(1)
    }

    pub(crate) fn slice(&self) -> Duration {
        Duration::from_secs_f64(
            self.slice
                .unwrap_or(if self.quick { 0.2 } else { 2.0 })
                .clamp(0.05, 600.0),
        )
    }

    /// Uncounted load before each slice: caches, buffers and the clock of the processor settle on the new way.
    pub(crate) fn warm_up(&self) -> Duration {
        self.slice() / 8
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        if self.only.is_empty() {
            Operation::ALL.to_vec()
        } else {
            self.only.clone()
        }
    }

    pub(crate) fn ways(&self) -> Vec<Way> {
        if self.ways.is_empty() {
            Way::ALL.to_vec()
        } else {
            self.ways.clone()
        }
    }

    pub(crate) fn connections(&self) -> Vec<usize> {
        match (self.connections.is_empty(), self.quick) {
            (false, _) => self.connections.clone(),
            (true, true) => vec![1, 4],
            (true, false) => vec![1, 16, 64],
        }
    }

    pub(crate) fn idle(&self) -> usize {
        self.idle.unwrap_or(if self.quick { 20 } else { 1000 })
    }

    pub(crate) fn patients(&self) -> usize {
        self.patients
            .unwrap_or(if self.quick { 500 } else { 10_000 })
            .max(200)
    }
}
