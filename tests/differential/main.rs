//! A differential test: random documents under random field maps, and the same random operations on a server directly
//! and through the proxy. Answers have to be the same, or the proxy's has to be a refusal from the register. In the end
//! collections have to be the same, and what the server holds must show no protected value.
//!
//! `scripts/differential` runs it; `cargo test` runs a short part of it under a fixed seed. `FIELDVEIL_TEST_MONGODB`
//! names the server (a replica set of one, without users), `FIELDVEIL_BIN` the proxy if it is not the one just built.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod compare;
mod execute;
mod expressions;
mod filters;
mod leak;
mod model;
mod pipelines;
mod rng;
mod sequence;
mod servers;
mod shrink;
mod stages;
mod statistics;
mod updates;
mod wire;

use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::execute::{Bench, Failure};
use crate::model::Map;
use crate::rng::Rng;
use crate::sequence::{Sequence, sequence};
use crate::statistics::Statistics;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Field maps of a run.
const MAPS: usize = 12;

struct Arguments {
    seed: u64,
    /// So many operations, setting up included.
    ops: usize,
    /// Only this sequence.
    only: Option<u64>,
    workers: usize,
    /// Stop after so many failures.
    failures: usize,
    /// Seconds for making one failure small.
    shrink: u64,
    verbose: bool,
}

fn arguments() -> Outcome<Option<Arguments>> {
    let mut read = Arguments {
        seed: 20_261_122,
        ops: 20_000,
        only: None,
        workers: 4,
        failures: 1,
        shrink: 60,
        verbose: false,
    };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let mut number = || -> Outcome<u64> {
            let text = given.next().ok_or_else(|| format!("{name} needs a number"))?;
            Ok(text.replace('_', "").parse()?)
        };
        match name.as_str() {
            "--seed" => read.seed = number()?,
            "--ops" => read.ops = usize::try_from(number()?)?,
            "--sequence" => read.only = Some(number()?),
            "--workers" => read.workers = usize::try_from(number()?)?.max(1),
            "--failures" => read.failures = usize::try_from(number()?)?.max(1),
            "--shrink" => read.shrink = number()?,
            "--verbose" => read.verbose = true,
            // The test runner's own, which `cargo test` hands to every target.
            "--list" => return Ok(None),
            "--quiet" | "--show-output" | "--nocapture" | "--include-ignored" | "-q" => {}
            filter if !filter.starts_with('-') => {
                if !"differential".contains(filter) {
                    return Ok(None);
                }
            }
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    Ok(Some(read))
}

fn main() -> ExitCode {
    let answer = arguments().and_then(|arguments| arguments.map_or(Ok(true), |a| run(&a)));
    match answer {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("differential: {e}");
            ExitCode::from(2)
        }
    }
}

struct Shared {
    next: AtomicU64,
    operations: AtomicUsize,
    stop: AtomicBool,
    found: Mutex<Vec<(u64, Sequence, Failure)>>,
    statistics: Mutex<Statistics>,
}

fn run(arguments: &Arguments) -> Outcome<bool> {
    let Ok(uri) = std::env::var("FIELDVEIL_TEST_MONGODB") else {
        println!("NOT RUN: differential: FIELDVEIL_TEST_MONGODB is not set");
        return Ok(std::env::var("CI").as_deref() != Ok("true"));
    };
    let hosts = uri
        .trim_start_matches("mongodb://")
        .split('/')
        .next()
        .unwrap_or_default();
    let server = hosts.to_socket_addrs()?.next().ok_or("no address")?;
    let binary = std::env::var_os("FIELDVEIL_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_fieldveil").into(), PathBuf::from);
    let mut dice = Rng::part(arguments.seed, u64::MAX);
    let maps: Vec<Map> = (0..MAPS).map(|index| Map::random(&mut dice, index)).collect();
    let directory = tempfile::Builder::new()
        .prefix("fieldveil-differential-")
        .tempdir()?;
    servers::drop_vaults(&mut wire::Connection::open(server)?)?;
    servers::prepare_vaults(&uri, &maps)?;
    let mut now = servers::Proxy::start(&binary, directory.path(), "now", &uri, &maps)?;
    let before = servers::Proxy::start(&binary, directory.path(), "before", &uri, &maps)?;

    let shared = Shared {
        next: AtomicU64::new(arguments.only.unwrap_or(0)),
        operations: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        found: Mutex::new(Vec::new()),
        statistics: Mutex::new(Statistics::default()),
    };
    let begun = Instant::now();
    let workers = if arguments.only.is_some() {
        1
    } else {
        arguments.workers
    };
    let troubles: Vec<Outcome<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|worker| {
                let (shared, maps, now, before) = (&shared, &maps, &now, &before);
                scope.spawn(move || {
                    let done = Bench::new(maps, worker, server, now, before)
                        .and_then(|mut bench| work(&mut bench, arguments, shared, maps));
                    if done.is_err() {
                        shared.stop.store(true, Ordering::Relaxed);
                    }
                    done
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| Err("a worker panicked".into())))
            .collect()
    });
    let alive = now.alive();
    for trouble in troubles {
        if let Err(e) = trouble {
            println!("{}", std::fs::read_to_string(&now.log)?);
            return Err(e);
        }
    }
    let statistics = shared.statistics.into_inner()?;
    let found = shared.found.into_inner()?;
    if arguments.verbose || (arguments.ops > 20_000 && found.is_empty()) {
        println!("{statistics}");
    }
    println!(
        "differential: seed {}, {} operations in {} sequences, {} refused ({} %), {} difference(s), {:.0} s",
        arguments.seed,
        statistics.operations,
        statistics.sequences,
        statistics.refused,
        statistics.refused * 100 / statistics.operations.max(1),
        found.len(),
        begun.elapsed().as_secs_f64(),
    );
    if !alive {
        println!("the proxy is gone:\n{}", std::fs::read_to_string(&now.log)?);
    }
    Ok(found.is_empty() && alive)
}

fn work(bench: &mut Bench<'_>, arguments: &Arguments, shared: &Shared, maps: &[Map]) -> Outcome<()> {
    let mut statistics = Statistics::default();
    loop {
        if shared.stop.load(Ordering::Relaxed) || shared.operations.load(Ordering::Relaxed) >= arguments.ops {
            break;
        }
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if arguments.only.is_some_and(|only| only != number) {
            break;
        }
        let whole = sequence(&mut Rng::part(arguments.seed, number), maps);
        let before = statistics.operations;
        let failure = bench.run(&whole, &mut statistics)?;
        statistics.sequences += 1;
        shared
            .operations
            .fetch_add(statistics.operations - before, Ordering::Relaxed);
        let Some(failure) = failure else { continue };
        let budget = Duration::from_secs(arguments.shrink);
        let (small, failure) = shrink::shrink(bench, &whole, failure, budget)?;
        let mut found = shared.found.lock().map_err(|e| e.to_string())?;
        show(arguments.seed, number, &maps[small.map], &small, &failure);
        found.push((number, small, failure));
        if found.len() >= arguments.failures {
            shared.stop.store(true, Ordering::Relaxed);
        }
    }
    shared
        .statistics
        .lock()
        .map_err(|e| e.to_string())?
        .add(statistics);
    Ok(())
}

fn show(seed: u64, number: u64, map: &Map, sequence: &Sequence, failure: &Failure) {
    let mut out = format!(
        "\n--- DIFFERENT ({}): --seed {seed} --sequence {number}; field map {} ({:?}){}\n",
        failure.kind,
        map.index,
        map.state,
        if sequence.indexed { ", with indexes" } else { "" },
    );
    for (at, op) in sequence.ops.iter().enumerate() {
        let arrow = if at == failure.at { "=>" } else { "  " };
        out.push_str(&format!("{arrow} {op}\n"));
    }
    out.push_str(&format!("   {}\n", failure.text));
    let text: String = sequence.ops.iter().map(ToString::to_string).collect();
    for (name, model) in [("a, t", &map.a), ("b", &map.b)] {
        let rules = model
            .fields
            .iter()
            .filter(|f| f.protected() && text.contains(f.last()));
        let rules: Vec<String> = rules
            .map(|f| format!("{} {:?} {}", f.path, f.mode, f.algorithm))
            .collect();
        out.push_str(&format!("   {name}: {}\n", rules.join("; ")));
    }
    println!("{out}");
}
