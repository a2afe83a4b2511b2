//! What connections report: commands to audit and metrics, bytes to counters. Handles are resolved once per
//! connection.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;

use super::shared::Shared;
use crate::event::{Event, LifecycleEvent};
use crate::metrics::{Direction, FieldSeries, FieldTable, Leg, Metrics};
use crate::policy::{CollectionPolicy, FieldRule};
use crate::session::{Done, Session, Side, Way};

pub(super) struct Observer {
    shared: Arc<Shared>,
    fields: Option<Fields>,
    bytes: [IntCounter; 4],
}

/// The series of one policy's rules, in their order: a connection mostly stays with one collection.
struct Fields {
    policy: Arc<CollectionPolicy>,
    series: Vec<Option<FieldSeries>>,
}

impl Fields {
    fn new(policy: &Arc<CollectionPolicy>, table: &FieldTable) -> Self {
        let namespace = policy.namespace.as_str();
        let of = |rule: &Arc<FieldRule>| table.get(namespace, &rule.path).cloned();
        Self {
            policy: Arc::clone(policy),
            series: policy.rules.iter().map(of).collect(),
        }
    }

    fn find(&self, is_it: impl FnMut(&Arc<FieldRule>) -> bool) -> Option<&FieldSeries> {
        let at = self.policy.rules.iter().position(is_it)?;
        self.series.get(at)?.as_ref()
    }
}

impl Observer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let metrics = shared.metrics();
        let bytes = [
            metrics.bytes(Leg::Client, Direction::In),
            metrics.bytes(Leg::Client, Direction::Out),
            metrics.bytes(Leg::Upstream, Direction::In),
            metrics.bytes(Leg::Upstream, Direction::Out),
        ];
        Self {
            shared,
            fields: None,
            bytes,
        }
    }

    pub(super) fn client_sent(&self, n: usize) {
        self.bytes[0].inc_by(n as u64);
    }

    pub(super) fn client_got(&self, n: usize) {
        self.bytes[1].inc_by(n as u64);
    }

    pub(super) fn server_sent(&self, n: usize) {
        self.bytes[2].inc_by(n as u64);
    }

    pub(super) fn server_got(&self, n: usize) {
        self.bytes[3].inc_by(n as u64);
    }

    /// Reports the commands that have come to an end.
    pub(super) fn report(&mut self, session: &mut Session) {
        if !session.has_done() {
            return;
        }
        for packed in session.take_packed() {
            self.metrics().compressed(
                match packed.side {
                    Side::Client => Leg::Client,
                    Side::Server => Leg::Upstream,
                },
                match packed.way {
                    Way::In => Direction::In,
                    Way::Out => Direction::Out,
                },
                packed.compressor,
                packed.plain,
            );
        }
        for what in session.take_notices() {
            self.record(LifecycleEvent {
                time_ms: self.shared.unix_ms_at(self.shared.now_us()),
                what,
            });
        }
        for done in session.take_done() {
            self.metrics().command(
                done.command,
                done.outcome,
                Duration::from_micros(done.duration_us),
            );
            self.metrics().added(Duration::from_micros(done.spent_us));
            self.count_fields(&done);
            if let Some(event) = done.event {
                self.record(event);
            }
        }
    }

    /// A full queue makes the sink unhealthy for the next protected command; the loss itself is counted by the sink and
    /// told in its log.
    fn record(&self, event: impl Into<Event>) {
        let recorded = self.shared.audit().map(|audit| audit.record(event));
        if let Some(Err(why)) = recorded {
            tracing::error!(reason = %why, "an audit event could not be recorded");
        }
    }

    fn metrics(&self) -> &Metrics {
        self.shared.metrics()
    }

    fn count_fields(&mut self, done: &Done) {
        let Some(policy) = &done.policy else { return };
        if done.sealed.is_empty() && done.opened.is_empty() && done.plaintext.is_empty() {
            return;
        }
        let known = self
            .fields
            .take()
            .filter(|known| Arc::ptr_eq(&known.policy, policy));
        let fields = known.unwrap_or_else(|| Fields::new(policy, &self.metrics().fields()));
        for (rule, n) in done.sealed.iter().filter(|(_, n)| *n > 0) {
            if let Some(series) = fields.find(|known| Arc::ptr_eq(known, rule)) {
                series.sealed.inc_by(u64::from(*n));
            }
        }
        for (domain, n) in &done.opened {
            if let Some(series) = fields.find(|known| known.domain == *domain) {
                series.opened.inc_by(u64::from(*n));
            }
        }
        for (rule, n) in &done.plaintext {
            if let Some(series) = fields.find(|known| Arc::ptr_eq(known, rule)) {
                series.plaintext_found.inc_by(u64::from(*n));
            }
        }
        self.fields = Some(fields);
        for policy in &done.others {
            let fields = Fields::new(policy, &self.metrics().fields());
            for (rule, n) in done.sealed.iter().filter(|(_, n)| *n > 0) {
                if let Some(series) = fields.find(|known| Arc::ptr_eq(known, rule)) {
                    series.sealed.inc_by(u64::from(*n));
                }
            }
        }
    }
}
