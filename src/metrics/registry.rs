//! Facts → series. Owns the handles: resolved once, so that counting hashes no label and takes no lock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use prometheus::core::Collector;
use prometheus::{
    Counter, Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::event::{CommandEvent, Outcome};
use crate::wire::Compressor;

use super::fields::{FieldTable, FieldVecs};
use super::labels::{
    ConnectionEnd, Direction, Labels, Leg, OK_OR_ERROR, OTHER, PROVIDER_OPERATIONS, RELOADS, TlsVersion,
};
use super::names::{self, Kind, Series};
use super::process;

/// Every series of the process. One per process, shared behind an [`Arc`].
pub struct Metrics {
    registry: Registry,
    commands: Closed<[IntCounter; Outcome::LABELS.len()]>,
    command_seconds: Histogram,
    added_seconds: Histogram,
    refusals: Closed<IntCounter>,
    failures: Closed<IntCounter>,
    fields: FieldVecs,
    table: ArcSwap<FieldTable>,
    providers: Closed<Vec<ProviderSeries>>,
    connections: IntGauge,
    ends: Vec<IntCounter>,
    bytes: [[IntCounter; 2]; 2],
    /// Messages and their inflated bytes.
    compressed: [[[[IntCounter; 2]; 3]; 2]; 2],
    handshakes: [[[IntCounter; 2]; 3]; 2],
    audit_healthy: IntGauge,
    audit_sequence: IntGauge,
    audit_events: IntCounter,
    audit_turned_away: IntCounter,
    keys_loaded: IntGauge,
    reloads: [IntCounter; 2],
    expiry: IntGaugeVec,
    not_after: [AtomicI64; 2],
    cpu: Counter,
    memory: IntGauge,
    fds: IntGauge,
}

impl Metrics {
    /// Registers every series. `fields` are the configuration's pairs of namespace (as configured, patterns included) and
    /// path. Fails only where a closed list holds what Prometheus does not take, which is a bug.
    pub fn new(labels: &Labels, fields: &[(String, String)]) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let at = &registry;
        let commands = counter_vec(at, &names::COMMANDS)?;
        let refusals = counter_vec(at, &names::REFUSALS)?;
        let failures = counter_vec(at, &names::OPEN_FAILURES)?;
        let calls = counter_vec(at, &names::PROVIDER_CALLS)?;
        let seconds = histogram_vec(at, &names::PROVIDER_SECONDS)?;
        let ends = counter_vec(at, &names::CONNECTIONS_ENDED)?;
        let bytes = counter_vec(at, &names::BYTES)?;
        let compressed = [
            counter_vec(at, &names::COMPRESSED_MESSAGES)?,
            counter_vec(at, &names::INFLATED_BYTES)?,
        ];
        let handshakes = counter_vec(at, &names::TLS_HANDSHAKES)?;
        let reloads = counter_vec(at, &names::CONFIG_RELOADS)?;
        let build = register(
            at,
            IntGaugeVec::new(opts(&names::BUILD_INFO), names::BUILD_INFO.labels)?,
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            commands: Closed::new(labels.commands, |command| {
                Outcome::LABELS.map(|outcome| commands.with_label_values(&[command, outcome]))
            }),
            command_seconds: histogram(at, &names::COMMAND_SECONDS)?,
            added_seconds: histogram(at, &names::ADDED_SECONDS)?,
            refusals: Closed::new(labels.refusals, |reason| refusals.with_label_values(&[reason])),
            failures: Closed::new(labels.failures, |reason| failures.with_label_values(&[reason])),
            fields: FieldVecs::new(
                counter_vec(at, &names::SEALED)?,
                counter_vec(at, &names::OPENED)?,
                counter_vec(at, &names::PLAINTEXT_FOUND)?,
            ),
            table: ArcSwap::default(),
            providers: Closed::new(labels.providers, |provider| {
                let of = |operation: &str| ProviderSeries {
                    calls: OK_OR_ERROR
                        .map(|outcome| calls.with_label_values(&[provider, operation, outcome])),
                    seconds: seconds.with_label_values(&[provider, operation]),
                };
                PROVIDER_OPERATIONS
                    .iter()
                    .map(|operation| of(operation))
                    .chain([of(OTHER)])
                    .collect()
            }),
            connections: gauge(at, &names::CONNECTIONS)?,
            ends: ConnectionEnd::LABELS
                .iter()
                .map(|end| ends.with_label_values(&[*end]))
                .collect(),
            bytes: Leg::LABELS.map(|leg| Direction::LABELS.map(|way| bytes.with_label_values(&[leg, way]))),
            compressed: Leg::LABELS.map(|leg| {
                Direction::LABELS.map(|way| {
                    Compressor::ALL.map(|by| {
                        [0, 1].map(|n: usize| compressed[n].with_label_values(&[leg, way, by.name()]))
                    })
                })
            }),
            handshakes: Leg::LABELS.map(|leg| {
                TlsVersion::LABELS.map(|version| {
                    OK_OR_ERROR.map(|outcome| handshakes.with_label_values(&[leg, version, outcome]))
                })
            }),
            audit_healthy: gauge(at, &names::AUDIT_HEALTHY)?,
            audit_sequence: gauge(at, &names::AUDIT_SEQUENCE)?,
            audit_events: register(at, IntCounter::with_opts(opts(&names::AUDIT_EVENTS))?)?,
            audit_turned_away: register(at, IntCounter::with_opts(opts(&names::AUDIT_TURNED_AWAY))?)?,
            keys_loaded: gauge(at, &names::KEYS_LOADED)?,
            reloads: RELOADS.map(|outcome| reloads.with_label_values(&[outcome])),
            expiry: register(
                at,
                IntGaugeVec::new(opts(&names::CERTIFICATE_EXPIRY), names::CERTIFICATE_EXPIRY.labels)?,
            )?,
            not_after: [AtomicI64::new(i64::MIN), AtomicI64::new(i64::MIN)],
            cpu: register(at, Counter::with_opts(opts(&names::PROCESS_CPU))?)?,
            memory: gauge(at, &names::PROCESS_MEMORY)?,
            fds: gauge(at, &names::PROCESS_FDS)?,
            registry,
        };
        metrics.set_fields(fields);
        Ok(metrics)
    }

    /// Counts a command by its event; see [`Metrics::command`].
    pub fn observe(&self, event: &CommandEvent) {
        self.command(
            event.command,
            event.outcome,
            Duration::from_micros(event.duration_us),
        );
    }

    /// Counts a command by name and outcome, its time, and its refusal or failure by reason.
    pub fn command(&self, name: &str, outcome: Outcome, time: Duration) {
        self.commands.get(name)[outcome.index()].inc();
        self.command_seconds.observe(time.as_secs_f64());
        match outcome {
            Outcome::Refused { reason } | Outcome::Dropped { reason } => self.refusals.get(reason).inc(),
            Outcome::Failed { what } => self.failures.get(what).inc(),
            Outcome::Ok | Outcome::ServerError { .. } => {}
        }
    }

    /// Time that the proxy itself added to a command.
    pub fn added(&self, time: Duration) {
        self.added_seconds.observe(time.as_secs_f64());
    }

    /// The series of the configured fields, to be kept as long as the field map that they belong to.
    pub fn fields(&self) -> Arc<FieldTable> {
        self.table.load_full()
    }

    /// Replaces the configured fields after a reload. What was counted stays; past [`super::MAX_FIELD_SERIES`] different pairs
    /// the rest shares one series.
    pub fn set_fields(&self, fields: &[(String, String)]) {
        self.table.store(Arc::new(self.fields.table(fields)));
    }

    /// A call to the master-key provider ended; `operation` is one of [`PROVIDER_OPERATIONS`].
    pub fn provider_call(&self, provider: &str, operation: &str, ok: bool, time: Duration) {
        let of = self.providers.get(provider);
        let index = PROVIDER_OPERATIONS
            .iter()
            .position(|known| *known == operation)
            .unwrap_or(PROVIDER_OPERATIONS.len());
        if let Some(series) = of.get(index) {
            series.calls[usize::from(!ok)].inc();
            series.seconds.observe(time.as_secs_f64());
        }
    }

    /// A client connection was accepted.
    pub fn connection_opened(&self) {
        self.connections.inc();
    }

    /// A connection that was accepted ended.
    pub fn connection_ended(&self, end: ConnectionEnd) {
        self.connections.dec();
        self.connection_turned_away(end);
    }

    /// A connection ended before it counted as open.
    pub fn connection_turned_away(&self, end: ConnectionEnd) {
        if let Some(series) = self.ends.get(end as usize) {
            series.inc();
        }
    }

    /// The counter of bytes of a leg, to be kept and added to.
    pub fn bytes(&self, leg: Leg, direction: Direction) -> IntCounter {
        self.bytes[leg as usize][direction as usize].clone()
    }

    /// A message was compressed; `inflated` is its length in bytes when it is not.
    pub fn compressed(&self, leg: Leg, direction: Direction, by: Compressor, inflated: usize) {
        let [messages, bytes] = &self.compressed[leg as usize][direction as usize][by.index()];
        messages.inc();
        bytes.inc_by(inflated as u64);
    }

    /// A TLS handshake ended.
    pub fn tls_handshake(&self, leg: Leg, version: TlsVersion, ok: bool) {
        self.handshakes[leg as usize][version as usize][usize::from(!ok)].inc();
    }

    /// The audit log's health, its last committed line, and its counts since start.
    pub fn set_audit(&self, healthy: bool, sequence: u64, events: u64, turned_away: u64) {
        self.audit_healthy.set(i64::from(healthy));
        self.audit_sequence
            .set(i64::try_from(sequence).unwrap_or(i64::MAX));
        raise(&self.audit_events, events);
        raise(&self.audit_turned_away, turned_away);
    }

    /// How many data keys are held unwrapped.
    pub fn set_keys_loaded(&self, keys: usize) {
        self.keys_loaded.set(i64::try_from(keys).unwrap_or(i64::MAX));
    }

    /// A configuration reload ended.
    pub fn config_reload(&self, applied: bool) {
        self.reloads[usize::from(!applied)].inc();
    }

    /// When the certificate of a leg expires, in seconds of Unix time.
    pub fn set_certificate_expiry(&self, leg: Leg, not_after: i64) {
        self.not_after[leg as usize].store(not_after, Ordering::Relaxed);
    }

    /// Everything in Prometheus text format 0.0.4.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        self.refresh();
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        String::from_utf8(out).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    /// Brings what is only known at the time of asking up to date.
    fn refresh(&self) {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        for (leg, not_after) in Leg::LABELS.iter().zip(&self.not_after) {
            let not_after = not_after.load(Ordering::Relaxed);
            if not_after != i64::MIN {
                self.expiry
                    .with_label_values(&[*leg])
                    .set(not_after.saturating_sub(now));
            }
        }
        if let Some(usage) = process::usage() {
            let grown = usage.cpu_seconds - self.cpu.get();
            if grown > 0.0 {
                self.cpu.inc_by(grown);
            }
            self.memory.set(usage.resident_bytes);
            self.fds.set(usage.open_fds);
        }
    }
}

struct ProviderSeries {
    calls: [IntCounter; 2],
    seconds: Histogram,
}

/// Handles for the words of a closed list, found by comparing.
struct Closed<T> {
    words: Vec<(&'static str, T)>,
    other: T,
}

impl<T> Closed<T> {
    fn new(words: &[&'static str], mut handle: impl FnMut(&str) -> T) -> Self {
        let words: BTreeSet<_> = words.iter().copied().collect();
        Self {
            words: words.into_iter().map(|word| (word, handle(word))).collect(),
            other: handle(OTHER),
        }
    }

    fn get(&self, word: &str) -> &T {
        self.words
            .binary_search_by_key(&word, |(known, _)| known)
            .ok()
            .and_then(|at| self.words.get(at))
            .map_or(&self.other, |(_, handle)| handle)
    }
}

/// Brings a counter up to a count that is kept elsewhere.
fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

fn opts(series: &Series) -> Opts {
    Opts::new(series.name, series.help)
}

fn histogram_opts(series: &Series) -> HistogramOpts {
    let opts = HistogramOpts::new(series.name, series.help);
    match series.kind {
        Kind::Histogram(buckets) => opts.buckets(buckets.to_vec()),
        Kind::Counter | Kind::Gauge => opts,
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counter_vec(registry: &Registry, series: &Series) -> Result<IntCounterVec, prometheus::Error> {
    register(registry, IntCounterVec::new(opts(series), series.labels)?)
}

fn gauge(registry: &Registry, series: &Series) -> Result<IntGauge, prometheus::Error> {
    register(registry, IntGauge::with_opts(opts(series))?)
}

fn histogram(registry: &Registry, series: &Series) -> Result<Histogram, prometheus::Error> {
    register(registry, Histogram::with_opts(histogram_opts(series))?)
}

fn histogram_vec(registry: &Registry, series: &Series) -> Result<HistogramVec, prometheus::Error> {
    register(
        registry,
        HistogramVec::new(histogram_opts(series), series.labels)?,
    )
}

#[cfg(test)]
mod tests;
