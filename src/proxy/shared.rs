//! What all connections of the process share: the configuration in force, keys, audit, metrics, limits, and the signal
//! to stop.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use tokio::sync::watch;

use super::observe::Observer;
use super::upstream::{self, DEPOSED};
use crate::audit::AuditSink;
use crate::command::views;
use crate::crypto::pseudonym::Pseudonymizer;
use crate::keys::KeyRing;
use crate::metrics::{Leg, Metrics};
use crate::policy::found::Change;
use crate::policy::{FieldMap, Found};
use crate::session::{Cursors, Wanted};
use crate::store::{Catalogue, KeyService, Members};
use crate::tls::Upstream;
use crate::topology::{Address, Deployment, HostMap};
use crate::wire::Compressors;

/// How much later than ours the monitors of another proxy may see a change.
const OTHERS: Duration = Duration::from_millis(50);

/// What a reload replaces as one.
pub struct Live {
    /// The field map.
    pub fields: Arc<FieldMap>,
    /// TLS towards applications; `None` where every listener is plaintext.
    pub tls_in: Option<Arc<rustls::ServerConfig>>,
    /// The upstream's own catalogue, through connections of the service.
    pub catalogue: Catalogue,
    /// The MongoDB side: hosts and TLS.
    pub upstream: Upstream,
    /// The upstream lets nobody in without a login.
    pub login: bool,
    /// What the upstream is offered to compress by.
    pub upstream_compression: Compressors,
    /// The level of zlib towards it.
    pub zlib_level: u8,
    /// Bounds of a connection.
    pub times: Times,
}

/// Time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// For the client's TLS handshake.
    pub handshake: Duration,
    /// For reaching the upstream, TLS included.
    pub connect: Duration,
    /// For silence; `None` for ever.
    pub idle: Option<Duration>,
    /// For a peer that takes nothing of what waits for it; `None` for ever.
    pub stall: Option<Duration>,
}

/// Built once by `app.rs`, shared by every worker.
pub struct Shared {
    live: ArcSwap<Live>,
    found: ArcSwap<Found>,
    /// Changes to views by clients; held while what is found is replaced.
    view_changes: Mutex<u64>,
    hosts: ArcSwap<HostMap>,
    members: Arc<Members>,
    deposed: ArcSwapOption<Deposed>,
    service: [u8; 12],
    keys: Arc<KeyService>,
    audit: Option<AuditSink>,
    /// Protected operations go on while the audit log cannot be written.
    audit_optional: bool,
    metrics: Arc<Metrics>,
    cursors: Cursors,
    pseudonymizer: Pseudonymizer,
    stop: watch::Receiver<bool>,
    started: Instant,
    unix_ms_at_start: AtomicI64,
    connections: AtomicU64,
}

/// A member that said that it takes no writes.
struct Deposed {
    member: Address,
    /// What the monitors had seen by then.
    version: u64,
    at: Instant,
}

impl Shared {
    /// Puts the parts together. `stop` turns true once, when the process is to drain; `service` is the id by which
    /// clients behind a load balancer know the service.
    #[expect(clippy::too_many_arguments, reason = "each part of the process, once")]
    pub fn new(
        live: Live,
        members: Arc<Members>,
        service: [u8; 12],
        keys: Arc<KeyService>,
        audit: Option<AuditSink>,
        audit_optional: bool,
        metrics: Arc<Metrics>,
        pseudonymizer: Pseudonymizer,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let shared = Self {
            live: ArcSwap::from_pointee(live),
            found: ArcSwap::from_pointee(Found::default()),
            view_changes: Mutex::new(0),
            hosts: ArcSwap::from_pointee(HostMap::default()),
            members,
            deposed: ArcSwapOption::empty(),
            service,
            keys,
            audit,
            audit_optional,
            metrics,
            cursors: Cursors::default(),
            pseudonymizer,
            stop,
            started: Instant::now(),
            unix_ms_at_start: AtomicI64::new(0),
            connections: AtomicU64::new(0),
        };
        shared.set_clock();
        shared
    }

    /// Puts a new configuration in force, for the next frame of every connection, with what a look at the upstream found
    /// for it; where there was none, what is known of views is judged by the new rules.
    pub fn replace(&self, live: Live, found: Option<Found>) {
        let changes = self.view_changes.lock().unwrap_or_else(PoisonError::into_inner);
        let found = found.unwrap_or_else(|| {
            let known = self.found.load();
            views::resolve(known.definitions.clone(), known.collated.clone(), &live.fields)
        });
        self.found.store(Arc::new(found));
        self.live.store(Arc::new(live));
        self.cursors.forget_places();
        drop(changes);
    }

    /// Puts new findings about the upstream's collections in force; says whether they differ from the old. `None` where
    /// a client has changed views since `seen`, so that the look may have missed it: look again.
    pub fn set_found(&self, found: Found, seen: u64) -> Option<bool> {
        let changes = self.view_changes.lock().unwrap_or_else(PoisonError::into_inner);
        if *changes != seen {
            return None;
        }
        let agrees = self.found.load().agrees(&found);
        self.found.store(Arc::new(found));
        Some(!agrees)
    }

    /// How many changes to views clients have made so far: taken before a look, and given to [`Shared::set_found`].
    pub fn views_changed(&self) -> u64 {
        *self.view_changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client has made or dropped a view: in force at once, for every connection.
    pub(super) fn change_views(&self, change: Change) {
        let mut changes = self.view_changes.lock().unwrap_or_else(PoisonError::into_inner);
        *changes += 1;
        let (definitions, collated) = self.found.load().after(change);
        let found = views::resolve(definitions, collated, &self.live().fields);
        self.found.store(Arc::new(found));
    }

    /// Puts a new map of listeners in force.
    pub fn set_hosts(&self, hosts: HostMap) {
        self.hosts.store(Arc::new(hosts));
    }

    pub(super) fn hosts(&self) -> Guard<Arc<HostMap>> {
        self.hosts.load()
    }

    /// What is known of the upstream deployment.
    pub fn members(&self) -> &Arc<Members> {
        &self.members
    }

    pub(super) fn service(&self) -> &[u8; 12] {
        &self.service
    }

    /// Notes that a member said that it takes no writes: nobody is sent there until the monitors have seen a change.
    /// Returns once they have, or have had the time, so that whoever connects anew finds nobody who does not know yet.
    pub(super) async fn depose(&self, member: Address) {
        let mut changes = self.members.changes();
        let version = changes.borrow_and_update().version;
        self.deposed.store(Some(Arc::new(Deposed {
            member: member.clone(),
            version,
            at: Instant::now(),
        })));
        let knows = |seen: &Arc<Deployment>| seen.writable() != Some(&member);
        drop(tokio::time::timeout(DEPOSED, changes.wait_for(knows)).await);
        // The monitors of other proxies were told at the same moment as ours.
        tokio::time::sleep(OTHERS).await;
    }

    /// Whether a member has said so since the deployment was seen like this.
    pub(super) fn is_deposed(&self, member: &Address, version: u64) -> bool {
        self.deposed.load().as_ref().is_some_and(|deposed| {
            deposed.member == *member && version <= deposed.version && deposed.at.elapsed() < DEPOSED
        })
    }

    /// Completes when writes go to another member than this one.
    pub(super) fn moved_from(&self, member: Address) -> impl Future<Output = ()> + 'static {
        let mut changes = self.members.changes();
        async move {
            let moved = |seen: &Arc<Deployment>| seen.has_moved_from(&member);
            // An error means that the process is ending.
            drop(changes.wait_for(moved).await);
        }
    }

    pub(super) fn found(&self) -> Guard<Arc<Found>> {
        self.found.load()
    }

    /// The configuration in force.
    pub fn live(&self) -> Guard<Arc<Live>> {
        self.live.load()
    }

    /// The metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The audit log.
    pub(super) fn audit(&self) -> Option<&AuditSink> {
        self.audit.as_ref()
    }

    pub(super) fn ring(&self) -> Guard<Arc<KeyRing>> {
        self.keys.load()
    }

    pub(super) fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    pub(super) fn pseudonymizer(&self) -> &Pseudonymizer {
        &self.pseudonymizer
    }

    pub(super) fn audit_ready(&self) -> bool {
        self.audit_optional || self.audit.as_ref().is_none_or(AuditSink::healthy)
    }

    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Unix time at this moment of [`Shared::now_us`]: no second look at a clock.
    pub(super) fn unix_ms_at(&self, now_us: u64) -> i64 {
        let since_start = i64::try_from(now_us / 1000).unwrap_or(i64::MAX);
        self.unix_ms_at_start
            .load(Ordering::Relaxed)
            .saturating_add(since_start)
    }

    /// Follows the system's clock, which may have been set.
    pub fn set_clock(&self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started = since.saturating_sub(self.started.elapsed());
        let ms = i64::try_from(started.as_millis()).unwrap_or(i64::MAX);
        self.unix_ms_at_start.store(ms, Ordering::Relaxed);
    }

    pub(super) fn idle_limit(&self) -> Option<Duration> {
        self.live().times.idle
    }

    pub(super) fn stall_limit(&self) -> Option<Duration> {
        self.live().times.stall
    }

    pub(super) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn observer(self: &Arc<Self>) -> Observer {
        Observer::new(Arc::clone(self))
    }

    /// Resolves keys; the error is a text for the client.
    pub(super) async fn resolve(&self, wanted: &Wanted) -> Result<(), String> {
        if let Some((key, suite, count)) = wanted.nonces {
            let leased = self.keys.lease(&key, suite, count).await;
            return leased.map_err(|why| why.to_string());
        }
        self.keys
            .resolve(&wanted.domains, &wanted.ids)
            .await
            .map_err(|why| match wanted.elements.as_slice() {
                [] => why.to_string(),
                elements => format!("field '{}': {why}", elements.join("', '")),
            })
    }

    /// Completes when the process is to drain.
    pub(super) fn stop(&self) -> impl Future<Output = ()> + 'static {
        let mut stop = self.stop.clone();
        async move {
            // An error means that the sender is gone, and with it the process's own idea of going on.
            drop(stop.wait_for(|stopping| *stopping).await);
        }
    }

    /// Whether any member of the upstream answers, TLS included.
    pub async fn reach_upstream(&self) -> bool {
        match upstream::any_answers(self).await {
            Ok(leg) => {
                if let Some(not_after) = leg.peer_expiry() {
                    self.metrics.set_certificate_expiry(Leg::Upstream, not_after);
                }
                true
            }
            Err(why) => {
                tracing::warn!(reason = %why, "the upstream does not answer");
                false
            }
        }
    }

    /// Whether the process is draining.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }
}
