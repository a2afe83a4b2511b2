//! Keeps the ring of usable keys in step with vault and master key: loads on demand, refreshes, and drops everything
//! once either has been out of reach for longer than the grace period. Holds no key bytes itself: a [`Dek`] does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use tokio::time::{sleep, timeout};

use super::failure::{KeyError, KeyErrorKind, disabled_domain, disabled_key, lost_race, missing};
use super::leases::Leases;
use super::watch::Watch;
use crate::crypto::nonce;
use crate::event::Lifecycle;
use crate::keys::{
    AltName, Dek, DekStore, DomainKeys, Inserted, KeyProvider, KeyRecord, KeyRing, ProviderError, StoreError,
};
use crate::name::KeyId;
use crate::secret::Secret;

/// A vault or provider that takes longer than this to answer counts as unreachable.
const CALL: Duration = Duration::from_secs(10);
/// For so long a key id that the vault does not hold is not asked for again: documents that name it must not become
/// a load on the vault.
const ABSENT: Duration = Duration::from_secs(2);
/// Absent ids remembered at most.
const ABSENT_KEPT: usize = 1024;
/// Re-reads after losing the race for a domain's key: the winner's write may not be on a majority yet.
const RACE_READS: u32 = 40;
const RACE_PAUSE: Duration = Duration::from_millis(50);

/// The keys of this process.
pub struct KeyService {
    pub(super) store: Arc<dyn DekStore>,
    provider: Arc<dyn KeyProvider>,
    grace: Duration,
    ring: ArcSwap<KeyRing>,
    /// Held while loading: whoever waits finds what the holder loaded, or shares its failure.
    gate: tokio::sync::Mutex<Gate>,
    health: Mutex<KeyHealth>,
    watch: Watch,
    pub(super) leases: Leases,
    /// Held while leasing, apart from the gate: whoever waits finds what the holder leased.
    pub(super) leasing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Gate {
    failed: Option<(Instant, KeyError)>,
    absent: HashMap<KeyId, Instant>,
}

/// Whether keys can be had, as of the last refresh or load.
#[derive(Clone, Debug)]
pub struct KeyHealth {
    /// Keys at hand.
    pub keys: usize,
    /// When vault and master key were last known to work.
    pub last_good: Instant,
    /// Why the last refresh failed; `None` when it did not.
    pub failing: Option<KeyError>,
}

impl KeyService {
    /// A service with an empty ring. `name` is the provider's, from the closed list of providers; `grace` is how long
    /// keys stay usable while vault or provider is out of reach.
    pub fn new(
        store: Arc<dyn DekStore>,
        provider: Arc<dyn KeyProvider>,
        name: &'static str,
        grace: Duration,
    ) -> Self {
        let health = KeyHealth {
            keys: 0,
            last_good: Instant::now(),
            failing: None,
        };
        Self {
            store,
            provider,
            grace,
            ring: ArcSwap::from_pointee(KeyRing::empty()),
            gate: tokio::sync::Mutex::default(),
            health: Mutex::new(health),
            watch: Watch::new(name),
            leases: Leases::default(),
            leasing: tokio::sync::Mutex::default(),
        }
    }

    /// Tells what happens to keys and to their provider from now on, and what has happened before: keys made, refused
    /// and changed; the provider gone and back. Changes only: a key that cannot be had is told of once.
    pub fn listen(&self, listener: impl Fn(Lifecycle) + Send + Sync + 'static) {
        self.watch.listen(Arc::new(listener));
    }

    /// The present ring, to be kept as long as one message takes.
    pub fn ring(&self) -> Arc<KeyRing> {
        self.ring.load_full()
    }

    /// The present ring, borrowed: cheaper, for a look-up or two.
    pub fn load(&self) -> Guard<Arc<KeyRing>> {
        self.ring.load()
    }

    /// How things stand, without asking anybody.
    pub fn health(&self) -> KeyHealth {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes alt names unique in the vault. Call it once before anything is sealed.
    ///
    /// # Errors
    /// Where the vault is out of reach or refuses.
    pub async fn prepare(&self) -> Result<(), KeyError> {
        self.ask(self.store.prepare()).await
    }

    /// Sees to it that the ring holds these domains and these keys. A domain without a key gets its first one. Callers
    /// that ask at the same time share one load.
    ///
    /// # Errors
    /// [`KeyError`] for the first that cannot be had; keys that could be had are in the ring all the same.
    pub async fn resolve(&self, domains: &[Arc<str>], ids: &[KeyId]) -> Result<(), KeyError> {
        let asked = Instant::now();
        if self.lacks_nothing(domains, ids) {
            return Ok(());
        }
        let mut gate = self.gate.lock().await;
        if self.lacks_nothing(domains, ids) {
            return Ok(());
        }
        if let Some((_, failure)) = gate
            .failed
            .as_ref()
            .filter(|(at, failure)| *at >= asked && failure.is_retryable())
        {
            return Err(failure.clone());
        }
        let loaded = self.load_lacking(&mut gate, domains, ids).await;
        gate.failed = loaded
            .as_ref()
            .err()
            .map(|failure| (Instant::now(), failure.clone()));
        loaded
    }

    /// Adds the next version of a domain's key to the vault and takes it into use here; other proxies follow at their
    /// next refresh. Returns the version.
    ///
    /// # Errors
    /// Where vault or provider is out of reach or refuses, or others keep adding versions at the same time.
    pub async fn add_version(&self, domain: &Arc<str>) -> Result<u32, KeyError> {
        let _gate = self.gate.lock().await;
        for _ in 0..RACE_READS {
            let records = self.ask(self.store.by_domains(&[domain])).await?;
            let highest = records
                .iter()
                .filter_map(KeyRecord::alt_name)
                .map(|name| name.version)
                .max();
            let version = highest.unwrap_or(0) + 1;
            if self.create(domain, version).await? == Inserted::Done {
                let (keys, _) = self.read_domain(domain).await?;
                self.publish(keys.into_iter().collect(), Vec::new());
                return Ok(version);
            }
            sleep(RACE_PAUSE).await;
        }
        Err(lost_race(domain))
    }

    /// Brings the ring up to date: new versions come, disabled and deleted keys go. Call it once per TTL. While vault or
    /// provider is out of reach the ring stays as it is until the grace period is over, and is emptied then.
    ///
    /// # Errors
    /// What failed; [`KeyService::health`] keeps it.
    pub async fn refresh(&self) -> Result<(), KeyError> {
        let _gate = self.gate.lock().await;
        let fresh = self.reread().await;
        self.settle(fresh, Instant::now())
    }

    /// Publishes a refreshed ring, or counts down the grace period.
    fn settle(
        &self,
        fresh: Result<(KeyRing, Option<KeyError>), KeyError>,
        now: Instant,
    ) -> Result<(), KeyError> {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        match fresh {
            Ok((ring, unusable)) => {
                self.ring.store(Arc::new(ring));
                health.last_good = now;
                health.failing = unusable;
            }
            Err(failure) => {
                if now.saturating_duration_since(health.last_good) > self.grace {
                    self.ring.store(Arc::new(KeyRing::empty()));
                }
                health.failing = Some(failure);
            }
        }
        health.keys = self.ring.load().keys().count();
        health.failing.clone().map_or(Ok(()), Err)
    }

    /// A whole new ring. A domain with an enabled key that cannot be unwrapped is left out, since writing without its
    /// newest version, or looking for values without one of them, would be quietly wrong; its other keys still read.
    async fn reread(&self) -> Result<(KeyRing, Option<KeyError>), KeyError> {
        self.ask(self.store.health()).await?;
        self.call(self.provider.health()).await?;
        let ring = self.ring();
        let domains: Vec<&str> = ring.domains().map(|keys| &**keys.write.domain()).collect();
        let ids: Vec<KeyId> = ring.keys().map(|key| key.id()).collect();
        let mut records = self.ask(self.store.by_domains(&domains)).await?;
        records.extend(self.ask(self.store.by_ids(&ids)).await?);
        records.sort_by_key(|record| record.id);
        records.dedup_by_key(|record| record.id);

        let mut fresh: HashMap<&str, Vec<Arc<Dek>>> = HashMap::new();
        let (mut others, mut closed, mut first) = (Vec::new(), Vec::new(), None);
        let mut changes = gone(&ring, &records);
        for record in records.iter().filter(|record| record.enabled) {
            let domain = record
                .alt_name()
                .map(|name| name.domain)
                .filter(|domain| domains.contains(domain));
            let usable = self.usable(&ring, record).await;
            match &usable {
                Ok(key) => {
                    self.watch.had(Some(key.id()), key.domain());
                    if ring.by_id(&key.id()).is_none() {
                        changes.push((key.id(), Arc::clone(key.domain()), "enabled"));
                    }
                }
                Err(failure) => {
                    let name = record.alt_name().map_or("", |name| name.domain);
                    self.watch.refused(Some(record.id), name, failure.kind);
                }
            }
            match (usable, domain) {
                (Ok(key), Some(domain)) => fresh.entry(domain).or_default().push(key),
                (Ok(key), None) => others.push(key),
                (Err(failure), _) if failure.is_retryable() => return Err(failure),
                (Err(failure), domain) => {
                    closed.extend(domain);
                    first.get_or_insert(failure);
                }
            }
        }
        for (key, domain, state) in changes {
            self.watch.changed(key, &domain, state);
        }
        for domain in closed {
            others.extend(fresh.remove(domain).unwrap_or_default());
        }
        let domains = fresh
            .into_values()
            .filter_map(DomainKeys::new)
            .map(Arc::new)
            .collect();
        Ok((KeyRing::empty().with(domains, others), first))
    }

    fn lacks_nothing(&self, domains: &[Arc<str>], ids: &[KeyId]) -> bool {
        let ring = self.ring.load();
        domains.iter().all(|domain| ring.domain(domain).is_some())
            && ids.iter().all(|id| ring.by_id(id).is_some())
    }

    async fn load_lacking(
        &self,
        gate: &mut Gate,
        domains: &[Arc<str>],
        ids: &[KeyId],
    ) -> Result<(), KeyError> {
        let mut first = Ok(());
        for domain in domains {
            if self.ring.load().domain(domain).is_some() {
                continue;
            }
            let opened = self.open_domain(domain).await;
            match &opened {
                Ok(_) => self.watch.had(None, domain),
                Err(failure) => self.watch.refused(None, domain, failure.kind),
            }
            match opened {
                Ok(keys) => self.publish(vec![keys], Vec::new()),
                Err(failure) if failure.is_retryable() => return Err(failure),
                Err(failure) => first = first.and(Err(failure)),
            }
        }
        gate.absent.retain(|_, since| since.elapsed() < ABSENT);
        let ring = self.ring();
        let (absent, lacking): (Vec<KeyId>, Vec<KeyId>) = ids
            .iter()
            .filter(|id| ring.by_id(id).is_none())
            .partition(|id| gate.absent.contains_key(id));
        if let Some(id) = absent.first() {
            first = first.and(Err(missing(id)));
        }
        if lacking.is_empty() {
            return first;
        }
        let records = self.ask(self.store.by_ids(&lacking)).await?;
        let mut found = Vec::new();
        for id in &lacking {
            let opened = match records.iter().find(|record| record.id == *id) {
                Some(record) if record.enabled => self.usable(&ring, record).await,
                Some(_) => Err(disabled_key(id)),
                None => {
                    if gate.absent.len() < ABSENT_KEPT {
                        gate.absent.insert(*id, Instant::now());
                    }
                    Err(missing(id))
                }
            };
            match &opened {
                Ok(key) => self.watch.had(Some(*id), key.domain()),
                Err(failure) => {
                    let name = records
                        .iter()
                        .find(|record| record.id == *id)
                        .and_then(KeyRecord::alt_name);
                    self.watch
                        .refused(Some(*id), name.map_or("", |name| name.domain), failure.kind);
                }
            }
            match opened {
                Ok(key) => found.push(key),
                Err(failure) => first = first.and(Err(failure)),
            }
        }
        self.publish(Vec::new(), found);
        first
    }

    /// The keys of a domain, its first one made where it has none. Two proxies that do this at once end up with one
    /// key: the alt name is unique, and the loser reads what the winner wrote.
    async fn open_domain(&self, domain: &Arc<str>) -> Result<Arc<DomainKeys>, KeyError> {
        for _ in 0..RACE_READS {
            match self.read_domain(domain).await? {
                (Some(keys), _) => return Ok(keys),
                (None, 0) => {}
                (None, _) => return Err(disabled_domain(domain)),
            }
            if self.create(domain, 1).await? == Inserted::Taken {
                sleep(RACE_PAUSE).await;
            }
        }
        Err(lost_race(domain))
    }

    /// The enabled keys of a domain, and how many there are in all.
    async fn read_domain(&self, domain: &Arc<str>) -> Result<(Option<Arc<DomainKeys>>, usize), KeyError> {
        let records = self.ask(self.store.by_domains(&[domain])).await?;
        let ring = self.ring();
        let mut keys = Vec::new();
        for record in records.iter().filter(|record| record.enabled) {
            keys.push(self.usable(&ring, record).await?);
        }
        Ok((DomainKeys::new(keys).map(Arc::new), records.len()))
    }

    async fn create(&self, domain: &str, version: u32) -> Result<Inserted, KeyError> {
        let library = || KeyError::new(KeyErrorKind::Provider, "no randomness for a new data key");
        let id = KeyId(*uuid::Uuid::new_v4().as_bytes());
        let material = Secret::fill(|out| nonce::fill(out)).map_err(|_| library())?;
        let wrapped = self.call(self.provider.wrap(&id, &material)).await?;
        let record = KeyRecord {
            id,
            alt_names: vec![AltName { domain, version }.to_string()],
            wrapped,
            master: self.provider.describe(),
            enabled: true,
        };
        let inserted = self.ask(self.store.insert(&record)).await?;
        if inserted == Inserted::Done {
            self.watch.created(id, domain);
        }
        Ok(inserted)
    }

    /// The key of a record: the one at hand where it is the same, so that its expanded ciphers and its nonce budget go
    /// on, or else unwrapped.
    async fn usable(&self, ring: &KeyRing, record: &KeyRecord) -> Result<Arc<Dek>, KeyError> {
        let (domain, version) = record
            .alt_name()
            .map_or(("", 0), |name| (name.domain, name.version));
        if let Some(key) = ring
            .by_id(&record.id)
            .filter(|key| **key.domain() == *domain && key.version() == version)
        {
            return Ok(Arc::clone(key));
        }
        let material = self
            .call(self.provider.unwrap(&record.id, &record.master, &record.wrapped))
            .await?;
        Ok(Arc::new(
            Dek::new(record.id, domain, version, material).on_lease(),
        ))
    }

    fn publish(&self, domains: Vec<Arc<DomainKeys>>, others: Vec<Arc<Dek>>) {
        // Under the gate, so nothing published in between is lost.
        let ring = self.ring.load().with(domains, others);
        let keys = ring.keys().count();
        self.ring.store(Arc::new(ring));
        self.health.lock().unwrap_or_else(PoisonError::into_inner).keys = keys;
    }

    pub(super) async fn ask<T>(
        &self,
        asked: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, KeyError> {
        let late = KeyError::new(
            KeyErrorKind::VaultUnreachable,
            "the key vault does not answer in time",
        );
        timeout(CALL, asked)
            .await
            .map_err(|_| late)?
            .map_err(KeyError::from)
    }

    async fn call<T>(&self, asked: impl Future<Output = Result<T, ProviderError>>) -> Result<T, KeyError> {
        let late = KeyError::new(
            KeyErrorKind::ProviderUnreachable,
            "the master-key provider does not answer in time",
        );
        let answer = timeout(CALL, asked)
            .await
            .map_err(|_| late)
            .and_then(|answer| answer.map_err(KeyError::from));
        // What it refuses it has answered.
        let gone = |failure: &KeyError| failure.kind == KeyErrorKind::ProviderUnreachable;
        self.watch.provider(!answer.as_ref().is_err_and(gone));
        answer
    }
}

/// Keys in the ring that the vault's records do not allow any more.
fn gone(ring: &KeyRing, records: &[KeyRecord]) -> Vec<(KeyId, Arc<str>, &'static str)> {
    ring.keys()
        .filter_map(|key| {
            let state = match records.iter().find(|record| record.id == key.id()) {
                None => "destroyed",
                Some(record) if !record.enabled => "disabled",
                Some(_) => return None,
            };
            Some((key.id(), Arc::clone(key.domain()), state))
        })
        .collect()
}

#[cfg(test)]
mod tests;
