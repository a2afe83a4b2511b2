//! Figures → ratios → verdicts. A ratio is taken inside a round and the median over the rounds is quoted; absolute
//! figures are medians too. Does not own any measuring.

use std::fs;

use serde_json::{Value, json};

use crate::Outcome;
use crate::args::Options;
use crate::operation::{BATCH, Operation};
use crate::servers::workers;
use crate::slice::Slice;
use crate::targets::Way;

/// All rounds of one operation over one number of connections.
pub(crate) struct Cell {
    operation: Operation,
    connections: usize,
    pub(crate) rounds: Vec<Vec<(Way, Slice)>>,
}

/// Growth of resident memory by one idle connection.
pub(crate) struct Idle {
    pub(crate) way: Way,
    pub(crate) connections: usize,
    pub(crate) bytes: f64,
}

/// Everything that was measured.
pub(crate) struct Report {
    pub(crate) cells: Vec<Cell>,
    pub(crate) idle: Vec<Idle>,
    pub(crate) ciphers: Vec<(Way, String)>,
    load_before: String,
}

/// One target, and what came of it.
struct Verdict {
    what: String,
    value: f64,
    spread: (f64, f64),
    bound: f64,
    at_most: bool,
}

impl Verdict {
    fn met(&self) -> bool {
        if self.at_most {
            self.value <= self.bound
        } else {
            self.value >= self.bound
        }
    }
}

/// A median with the smallest and the largest it was taken from.
struct Middle {
    median: f64,
    least: f64,
    most: f64,
}

impl Middle {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let upper = *values.get(half)?;
        let median = if values.len() % 2 == 1 {
            upper
        } else {
            (upper + *values.get(half - 1)?) / 2.0
        };
        Some(Self { median, least, most })
    }
}

type Figure = fn(&Slice) -> Option<f64>;

impl Cell {
    pub(crate) fn new(operation: Operation, connections: usize) -> Self {
        Self {
            operation,
            connections,
            rounds: Vec::new(),
        }
    }

    fn of(round: &[(Way, Slice)], way: Way) -> Option<&Slice> {
        round
            .iter()
            .find(|(other, _)| *other == way)
            .map(|(_, slice)| slice)
    }

    fn figure(&self, way: Way, figure: Figure) -> Option<Middle> {
        Middle::of(
            self.rounds
                .iter()
                .filter_map(|round| figure(Self::of(round, way)?))
                .collect(),
        )
    }

    /// `figure` of one way combined with that of another, round by round.
    fn paired(&self, one: Way, other: Way, figure: Figure, combine: fn(f64, f64) -> f64) -> Option<Middle> {
        let pairs = self.rounds.iter().filter_map(|round| {
            Some(combine(
                figure(Self::of(round, one)?)?,
                figure(Self::of(round, other)?)?,
            ))
        });
        Middle::of(pairs.collect())
    }

    fn ratio(&self, one: Way, other: Way, figure: Figure) -> Option<Middle> {
        self.paired(one, other, figure, |a, b| a / b)
    }

    /// The block of the table for this cell, as soon as it is known.
    pub(crate) fn say(&self) {
        println!("\n{} · {} connections", self.operation.name(), self.connections);
        println!(
            "  {:<8} {:>9} {:>9} {:>9} {:>13} {:>13} {:>12} {:>10}   ratios",
            "", "ops/s", "p50 µs", "p99 µs", "proxy µs/op", "mongod µs/op", "load µs/op", "proxy MiB"
        );
        for way in Way::ALL {
            let Some(throughput) = self.figure(way, |slice| Some(slice.throughput)) else {
                continue;
            };
            let median = |figure: Figure| self.figure(way, figure).map(|middle| middle.median);
            let text = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.1}"));
            let memory = self.figure(way, |slice| {
                slice.proxy_memory.map(|bytes| bytes as f64 / 1048576.0)
            });
            println!(
                "  {:<8} {:>9.0} {:>9} {:>9} {:>13} {:>13} {:>12} {:>10}   {}",
                way.name(),
                throughput.median,
                text(median(|slice| Some(slice.p50))),
                text(median(|slice| Some(slice.p99))),
                text(median(|slice| slice.proxy_cpu)),
                text(median(|slice| Some(slice.database_cpu))),
                text(median(|slice| Some(slice.load_cpu))),
                text(memory.map(|middle| middle.most)),
                self.ratios(way),
            );
        }
    }

    fn ratios(&self, way: Way) -> String {
        let mut parts = Vec::new();
        for (other, figure, label) in [
            (Way::Direct, throughput as Figure, "ops/direct"),
            (Way::Haproxy, throughput, "ops/haproxy"),
            (Way::Haproxy, proxy_cpu, "cpu/haproxy"),
        ] {
            if way == other {
                continue;
            }
            if let Some(ratio) = self.ratio(way, other, figure) {
                parts.push(format!(
                    "{label} {:.2} [{:.2}–{:.2}]",
                    ratio.median, ratio.least, ratio.most
                ));
            }
        }
        parts.join("  ")
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let place = format!("{}, {} connections", self.operation.name(), self.connections);
        let mut verdicts = Vec::new();
        let mut judge = |what: &str, middle: Option<Middle>, bound: f64, at_most: bool| {
            if let Some(Middle { median, least, most }) = middle {
                let what = format!("{what} ({place})");
                verdicts.push(Verdict {
                    what,
                    value: median,
                    spread: (least, most),
                    bound,
                    at_most,
                });
            }
        };
        let single = self.operation.documents() == 1;
        judge(
            "(c) proxy CPU / HAProxy's",
            self.ratio(Way::Empty, Way::Haproxy, proxy_cpu),
            0.9,
            true,
        );
        if single {
            judge(
                "(d) proxy CPU / HAProxy's",
                self.ratio(Way::Mapped, Way::Haproxy, proxy_cpu),
                1.0,
                true,
            );
            judge(
                "(d) throughput / HAProxy's",
                self.ratio(Way::Mapped, Way::Haproxy, throughput),
                1.0,
                false,
            );
        } else {
            let total = self.figure(Way::Mapped, |slice| {
                slice.proxy_cpu.map(|spent| spent / BATCH as f64)
            });
            judge("(d) proxy µs per document, all in", total, 2.5, true);
            let over = self.paired(Way::Mapped, Way::Empty, proxy_cpu, |d, c| (d - c) / BATCH as f64);
            judge("(d) proxy µs per document, over (c)", over, 2.5, true);
        }
        if self.connections == 16 && matches!(self.operation, Operation::FindId | Operation::Insert) {
            judge(
                "(d) throughput / direct",
                self.ratio(Way::Mapped, Way::Direct, throughput),
                0.85,
                false,
            );
        }
        verdicts
    }

    fn json(&self) -> Value {
        let rounds: Vec<Value> = self
            .rounds
            .iter()
            .map(|round| {
                round
                    .iter()
                    .map(|(way, slice)| (way.name().to_owned(), slice_json(slice)))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            })
            .collect();
        json!({ "operation": self.operation.name(), "connections": self.connections, "rounds": rounds })
    }
}

fn throughput(slice: &Slice) -> Option<f64> {
    Some(slice.throughput)
}

fn proxy_cpu(slice: &Slice) -> Option<f64> {
    slice.proxy_cpu
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        let load_before = fs::read_to_string("/proc/loadavg")
            .unwrap_or_default()
            .trim()
            .to_owned();
        println!(
            "{} rounds of {:?} per way, {} processors, load average {load_before}",
            options.rounds(),
            options.slice(),
            workers(),
        );
        Self {
            cells: Vec::new(),
            idle: Vec::new(),
            ciphers: Vec::new(),
            load_before,
        }
    }

    /// Says the verdicts, writes the JSON; with `--strict` a missed target is an error.
    pub(crate) fn finish(&self, options: &Options) -> Outcome<()> {
        let mut verdicts: Vec<Verdict> = self.cells.iter().flat_map(Cell::verdicts).collect();
        println!();
        for Idle {
            way,
            connections,
            bytes,
        } in &self.idle
        {
            println!(
                "idle connection, {}: {:.1} KiB (of {connections})",
                way.name(),
                bytes / 1024.0
            );
            if matches!(way, Way::Empty | Way::Mapped) {
                let (what, kibibytes) = (format!("idle connection, KiB ({})", way.name()), bytes / 1024.0);
                let spread = (kibibytes, kibibytes);
                verdicts.push(Verdict {
                    what,
                    value: kibibytes,
                    spread,
                    bound: 40.0,
                    at_most: true,
                });
            }
        }
        for (way, cipher) in &self.ciphers {
            println!("TLS towards the client, {}: {cipher}", way.name());
        }
        if !verdicts.is_empty() {
            println!("\ntargets");
        }
        for verdict in &verdicts {
            let Verdict {
                what,
                value,
                spread: (least, most),
                bound,
                at_most,
            } = verdict;
            let (mark, sign) = (
                if verdict.met() { "met   " } else { "MISSED" },
                if *at_most { '≤' } else { '≥' },
            );
            println!("  {mark} {what}: {value:.2} [{least:.2}–{most:.2}], target {sign} {bound}");
        }
        if let Some(path) = &options.json {
            fs::write(
                path,
                serde_json::to_string_pretty(&self.json(options, &verdicts))? + "\n",
            )?;
        }
        let missed = verdicts.iter().filter(|verdict| !verdict.met()).count();
        if options.strict && missed > 0 {
            Err(format!("{missed} targets missed").into())
        } else {
            Ok(())
        }
    }

    fn json(&self, options: &Options, verdicts: &[Verdict]) -> Value {
        let verdicts: Vec<Value> = verdicts
            .iter()
            .map(|verdict| {
                json!({
                    "what": verdict.what, "value": verdict.value, "least": verdict.spread.0,
                    "most": verdict.spread.1, "bound": verdict.bound, "at_most": verdict.at_most,
                    "met": verdict.met(),
                })
            })
            .collect();
        let idle: Vec<Value> = self
            .idle
            .iter()
            .map(|idle| json!({ "way": idle.way.name(), "connections": idle.connections, "bytes": idle.bytes }))
            .collect();
        let ciphers: serde_json::Map<String, Value> = self
            .ciphers
            .iter()
            .map(|(way, cipher)| (way.name().to_owned(), json!(cipher)))
            .collect();
        json!({
            "rounds": options.rounds(), "slice_seconds": options.slice().as_secs_f64(), "quick": options.quick,
            "patients": options.patients(), "processors": workers(),
            "load_average_before": self.load_before, "tls": ciphers,
            "cells": self.cells.iter().map(Cell::json).collect::<Vec<_>>(), "idle": idle, "targets": verdicts,
        })
    }
}

fn slice_json(slice: &Slice) -> Value {
    json!({
        "operations": slice.operations, "throughput": slice.throughput, "p50_us": slice.p50, "p99_us": slice.p99,
        "proxy_cpu_us": slice.proxy_cpu, "mongod_cpu_us": slice.database_cpu, "load_cpu_us": slice.load_cpu,
        "proxy_resident_bytes": slice.proxy_memory, "proxy_peak_bytes": slice.proxy_peak,
    })
}
