use super::*;
use crate::crypto::{MATERIAL, Suite};
use crate::keys::{BoxFuture, MasterKey, ProviderErrorKind, StoreErrorKind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

const GRACE: Duration = Duration::from_secs(300);

/// A vault in memory. Each call yields once, so that callers that run at the same time interleave.
#[derive(Default)]
struct Vault {
    records: Mutex<Vec<KeyRecord>>,
    reads: AtomicUsize,
    down: AtomicBool,
    leased: Mutex<HashMap<(KeyId, &'static str), u64>>,
    /// So many reads do not see what was inserted: a majority does not hold it yet.
    lag: AtomicUsize,
}

impl Vault {
    async fn answer<T>(&self, read: impl FnOnce(&mut Vec<KeyRecord>) -> T) -> Result<T, StoreError> {
        tokio::task::yield_now().await;
        if self.down.load(SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "vault down"));
        }
        Ok(read(&mut self.records.lock().unwrap()))
    }

    async fn read(&self, wanted: impl Fn(&KeyRecord) -> bool) -> Result<Vec<KeyRecord>, StoreError> {
        self.reads.fetch_add(1, SeqCst);
        if self
            .lag
            .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
            .is_ok()
        {
            return Ok(Vec::new());
        }
        self.answer(|records| records.iter().filter(|record| wanted(record)).cloned().collect())
            .await
    }

    fn change(&self, change: impl FnOnce(&mut Vec<KeyRecord>)) {
        change(&mut self.records.lock().unwrap());
    }
}

impl DekStore for Vault {
    fn prepare(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.answer(|_| ()))
    }

    fn by_ids<'a>(&'a self, ids: &'a [KeyId]) -> BoxFuture<'a, Result<Vec<KeyRecord>, StoreError>> {
        Box::pin(self.read(|record| ids.contains(&record.id)))
    }

    fn by_domains<'a>(&'a self, domains: &'a [&'a str]) -> BoxFuture<'a, Result<Vec<KeyRecord>, StoreError>> {
        Box::pin(self.read(|record| {
            record
                .alt_name()
                .is_some_and(|name| domains.contains(&name.domain))
        }))
    }

    fn insert<'a>(&'a self, record: &'a KeyRecord) -> BoxFuture<'a, Result<Inserted, StoreError>> {
        Box::pin(self.answer(|records| {
            if records
                .iter()
                .any(|other| other.alt_names.iter().any(|name| record.alt_names.contains(name)))
            {
                return Inserted::Taken;
            }
            records.push(record.clone());
            Inserted::Done
        }))
    }

    fn lease<'a>(
        &'a self,
        id: &'a KeyId,
        suite: &'static str,
        count: u64,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            self.answer(|_| ()).await?;
            let mut leased = self.leased.lock().unwrap();
            let total = leased.entry((*id, suite)).or_default();
            *total += count;
            Ok(*total)
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.answer(|_| ()))
    }
}

/// A provider whose wrapping is a marker byte and the key itself.
struct Provider {
    marker: u8,
    unwraps: AtomicUsize,
    down: AtomicBool,
}

impl Provider {
    fn check(&self) -> Result<(), ProviderError> {
        match self.down.load(SeqCst) {
            true => Err(ProviderError::new(
                ProviderErrorKind::Unavailable,
                "provider down",
            )),
            false => Ok(()),
        }
    }
}

impl KeyProvider for Provider {
    fn describe(&self) -> MasterKey {
        MasterKey {
            provider: "local:fake".to_owned(),
            fields: Vec::new(),
        }
    }

    fn wrap<'a>(
        &'a self,
        _id: &'a KeyId,
        material: &'a Secret<[u8; MATERIAL]>,
    ) -> BoxFuture<'a, Result<Vec<u8>, ProviderError>> {
        Box::pin(async {
            self.check()
                .map(|()| [&[self.marker], &material.expose()[..]].concat())
        })
    }

    fn unwrap<'a>(
        &'a self,
        _id: &'a KeyId,
        _master: &'a MasterKey,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<Secret<[u8; MATERIAL]>, ProviderError>> {
        Box::pin(async {
            self.check()?;
            self.unwraps.fetch_add(1, SeqCst);
            if wrapped[0] != self.marker {
                return Err(ProviderError::new(
                    ProviderErrorKind::WrongMasterKey,
                    "wrong master key: fake",
                ));
            }
            Ok(Secret::take(&mut wrapped[1..].to_vec()).unwrap())
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<(), ProviderError>> {
        Box::pin(async { self.check() })
    }
}

fn provider(marker: u8) -> Arc<Provider> {
    Arc::new(Provider {
        marker,
        unwraps: AtomicUsize::new(0),
        down: AtomicBool::new(false),
    })
}

fn service(vault: &Arc<Vault>, provider: &Arc<Provider>) -> Arc<KeyService> {
    Arc::new(KeyService::new(vault.clone(), provider.clone(), "fake", GRACE))
}

fn record(id: u8, alt_name: Option<&str>) -> KeyRecord {
    KeyRecord {
        id: KeyId([id; 16]),
        alt_names: alt_name.into_iter().map(str::to_owned).collect(),
        wrapped: [&[1][..], &[id; MATERIAL]].concat(),
        master: MasterKey {
            provider: "local:fake".to_owned(),
            fields: Vec::new(),
        },
        enabled: true,
    }
}

fn names(domains: &[&str]) -> Vec<Arc<str>> {
    domains.iter().map(|&domain| domain.into()).collect()
}

fn versions(service: &KeyService, domain: &str) -> Option<Vec<u32>> {
    Some(
        service
            .load()
            .domain(domain)?
            .read
            .iter()
            .map(|key| key.version())
            .collect(),
    )
}

#[tokio::test]
async fn a_domain_without_a_key_gets_its_first_one() {
    let (vault, provider) = (Arc::new(Vault::default()), provider(1));
    let service = service(&vault, &provider);
    service.resolve(&names(&["a.b.c"]), &[]).await.unwrap();
    assert_eq!(vault.records.lock().unwrap()[0].alt_names, ["fieldveil/a.b.c/1"]);
    let keys = Arc::clone(service.load().domain("a.b.c").unwrap());
    let (mut sealed, mut opened) = (Vec::new(), Vec::new());
    keys.write.seal(Suite::Aes256Siv, 2, b"v", &mut sealed).unwrap();
    let by_id = Arc::clone(service.ring().by_id(&keys.write.id()).unwrap());
    assert_eq!(by_id.open(0x80, &sealed, &mut opened), Ok(2));
    assert_eq!(service.health().keys, 1);
}

#[tokio::test]
async fn two_proxies_that_start_at_once_end_up_with_one_key() {
    for lag in [0, 3] {
        let (vault, provider) = (Arc::new(Vault::default()), provider(1));
        vault.lag.store(lag, SeqCst);
        let (one, two) = (service(&vault, &provider), service(&vault, &provider));
        let wanted = names(&["a", "b"]);
        let (first, second) = tokio::join!(one.resolve(&wanted, &[]), two.resolve(&wanted, &[]));
        first.unwrap();
        second.unwrap();
        assert_eq!(vault.records.lock().unwrap().len(), 2, "one key per domain");
        for domain in ["a", "b"] {
            let id = |service: &KeyService| service.load().domain(domain).unwrap().write.id();
            assert_eq!(id(&one), id(&two));
        }
    }
}

#[tokio::test]
async fn callers_at_the_same_time_share_one_load() {
    let (vault, provider) = (Arc::new(Vault::default()), provider(1));
    vault.change(|records| records.push(record(7, Some("fieldveil/a/1"))));
    let service = service(&vault, &provider);
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { service.resolve(&names(&["a"]), &[]).await })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert_eq!((vault.reads.load(SeqCst), provider.unwraps.load(SeqCst)), (1, 1));
}

#[tokio::test]
async fn callers_at_the_same_time_share_one_failure() {
    let (vault, provider) = (Arc::new(Vault::default()), provider(1));
    vault.down.store(true, SeqCst);
    let service = service(&vault, &provider);
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { service.resolve(&names(&["a"]), &[]).await })
        })
        .collect();
    for caller in callers {
        let failure = caller.await.unwrap().unwrap_err();
        assert_eq!(failure.kind, KeyErrorKind::VaultUnreachable);
        assert!(failure.is_retryable());
    }
    assert_eq!(vault.reads.load(SeqCst), 1);
    vault.down.store(false, SeqCst);
    service.resolve(&names(&["a"]), &[]).await.unwrap();
}

#[tokio::test]
async fn a_missing_key_is_named_and_not_asked_for_again_at_once() {
    let (vault, provider) = (Arc::new(Vault::default()), provider(1));
    vault.change(|records| records.push(record(7, None)));
    let service = service(&vault, &provider);
    let wanted = [KeyId([9; 16]), KeyId([7; 16])];
    for _ in 0..5 {
        let failure = service.resolve(&[], &wanted).await.unwrap_err();
        assert_eq!(failure.kind, KeyErrorKind::MissingKey);
        assert!(
            failure.text.contains("09090909-0909-0909-0909-090909090909"),
            "{failure}"
        );
        assert!(!failure.is_retryable());
    }
    assert_eq!(vault.reads.load(SeqCst), 1);
    assert!(
        service.ring().by_id(&wanted[1]).is_some(),
        "what could be had is at hand"
    );
}

#[tokio::test]
async fn a_drivers_key_is_usable_by_id_with_no_domain() {
    let (vault, provider) = (Arc::new(Vault::default()), provider(1));
    vault.change(|records| records.push(record(7, Some("made-by-a-driver"))));
    let service = service(&vault, &provider);
    service.resolve(&[], &[KeyId([7; 16])]).await.unwrap();
    let ring = service.ring();
    assert_eq!(&**ring.by_id(&KeyId([7; 16])).unwrap().domain(), "");
    assert_eq!(ring.domains().count(), 0);
}

#[tokio::test]
async fn a_disabled_key_neither_reads_nor_writes() {
    let (vault, provider) = (Arc::new(Vault::default()), provider(1));
    vault.change(|records| {
        records.push(record(1, Some("fieldveil/a/1")));
        records.push(KeyRecord {
            enabled: false,
            ..record(2, Some("fieldveil/a/2"))
        });
        records.push(KeyRecord {
            enabled: false,
            ..record(3, Some("fieldveil/b/1"))
        });
    });
    let service = service(&vault, &provider);
    service.resolve(&names(&["a"]), &[]).await.unwrap();
    assert_eq!(versions(&service, "a"), Some(vec![1]));
    let failure = service.resolve(&names(&["b"]), &[]).await.unwrap_err();
    assert_eq!(failure.kind, KeyErrorKind::Disabled);
    let failure = service.resolve(&[], &[KeyId([2; 16])]).await.unwrap_err();
    assert_eq!(failure.kind, KeyErrorKind::Disabled);
    assert_eq!(
        vault.records.lock().unwrap().len(),
        3,
        "no key is made for a domain that has one"
    );
}

#[tokio::test]
async fn a_refresh_follows_the_vault_and_keeps_what_is_the_same() {
    let (vault, provider) = (Arc::new(Vault::default()), provider(1));
    vault.change(|records| {
        records.push(record(1, Some("fieldveil/a/1")));
        records.push(record(4, Some("fieldveil/b/1")));
        records.push(record(5, None));
    });
    let service = service(&vault, &provider);
    service
        .resolve(&names(&["a", "b"]), &[KeyId([5; 16])])
        .await
        .unwrap();
    let before = service.ring();

    vault.change(|records| records.push(record(2, Some("fieldveil/a/2"))));
    service.refresh().await.unwrap();
    assert_eq!(versions(&service, "a"), Some(vec![2, 1]));
    let kept = |id| Arc::ptr_eq(before.by_id(&id).unwrap(), service.ring().by_id(&id).unwrap());
    assert!(
        kept(KeyId([1; 16])) && kept(KeyId([4; 16])) && kept(KeyId([5; 16])),
        "nonce budgets go on"
    );
    assert_eq!(provider.unwraps.load(SeqCst), 4);

    vault.change(|records| {
        records[0].enabled = false;
        records.retain(|record| record.id != KeyId([4; 16]) && record.id != KeyId([5; 16]));
    });
    service.refresh().await.unwrap();
    assert_eq!(versions(&service, "a"), Some(vec![2]));
    assert_eq!(versions(&service, "b"), None);
    for gone in [1, 4, 5] {
        assert!(
            service.ring().by_id(&KeyId([gone; 16])).is_none(),
            "key {gone} is gone from the vault"
        );
    }
    assert_eq!(service.health().keys, 1);
}

#[tokio::test]
async fn a_version_that_cannot_be_unwrapped_closes_its_domain_and_no_other() {
    let (vault, provider) = (Arc::new(Vault::default()), provider(1));
    vault.change(|records| {
        records.push(record(1, Some("fieldveil/a/1")));
        records.push(record(2, Some("fieldveil/b/1")));
    });
    let service = service(&vault, &provider);
    service.resolve(&names(&["a", "b"]), &[]).await.unwrap();
    vault.change(|records| {
        let foreign = KeyRecord {
            wrapped: vec![9; 97],
            ..record(3, Some("fieldveil/a/2"))
        };
        records.push(foreign);
    });
    assert_eq!(
        service.refresh().await.unwrap_err().kind,
        KeyErrorKind::WrongMasterKey
    );
    assert_eq!(versions(&service, "a"), None);
    assert_eq!(versions(&service, "b"), Some(vec![1]));
    assert!(
        service.ring().by_id(&KeyId([1; 16])).is_some(),
        "what it sealed can be read"
    );
    let failure = service.resolve(&names(&["a"]), &[]).await.unwrap_err();
    assert_eq!(failure.kind, KeyErrorKind::WrongMasterKey);
    assert!(failure.text.starts_with("wrong master key"));
}

#[tokio::test]
async fn an_outage_stops_nothing_within_the_grace_period_and_everything_after() {
    for vault_fails in [true, false] {
        let (vault, provider) = (Arc::new(Vault::default()), provider(1));
        let service = service(&vault, &provider);
        service.resolve(&names(&["a"]), &[]).await.unwrap();
        service.refresh().await.unwrap();
        let good = service.health().last_good;

        let down = if vault_fails { &vault.down } else { &provider.down };
        down.store(true, SeqCst);
        let failure = service.refresh().await.unwrap_err();
        assert!(failure.is_retryable());
        assert_eq!(versions(&service, "a"), Some(vec![1]));
        assert_eq!(service.health().failing, Some(failure.clone()));

        service.settle(Err(failure.clone()), good + GRACE).unwrap_err();
        assert_eq!(versions(&service, "a"), Some(vec![1]), "the last moment of grace");
        service
            .settle(Err(failure), good + GRACE + Duration::from_millis(1))
            .unwrap_err();
        assert_eq!(service.ring().keys().count(), 0);
        assert_eq!(service.health().keys, 0);
        assert!(
            service
                .resolve(&names(&["a"]), &[])
                .await
                .unwrap_err()
                .is_retryable()
        );

        down.store(false, SeqCst);
        service.refresh().await.unwrap();
        service.resolve(&names(&["a"]), &[]).await.unwrap();
        assert_eq!(service.health().failing, None);
        assert_eq!(vault.records.lock().unwrap().len(), 1, "the same key is back");
    }
}

#[tokio::test]
async fn a_new_version_writes_at_once_here() {
    let (vault, provider) = (Arc::new(Vault::default()), provider(1));
    let (one, two) = (service(&vault, &provider), service(&vault, &provider));
    let domain: Arc<str> = "a".into();
    one.resolve(std::slice::from_ref(&domain), &[]).await.unwrap();
    let (first, second) = tokio::join!(one.add_version(&domain), two.add_version(&domain));
    let mut added = [first.unwrap(), second.unwrap()];
    added.sort();
    assert_eq!(added, [2, 3]);
    one.refresh().await.unwrap();
    assert_eq!(versions(&one, "a"), Some(vec![3, 2, 1]));
}

#[tokio::test]
async fn tells_once_of_each_change_of_keys_and_provider() {
    let (vault, provider) = (Arc::new(Vault::default()), provider(1));
    let service = service(&vault, &provider);
    service.resolve(&names(&["early"]), &[]).await.unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    service.listen(move |event| listener.lock().unwrap().push(event));
    let take = || std::mem::take(&mut *told.lock().unwrap());
    let early = service.load().domain("early").unwrap().write.id();
    assert_eq!(
        take(),
        [Lifecycle::KeyCreated {
            key: early,
            domain: "early".into()
        }],
        "what happened before anybody listened"
    );

    // A key that cannot be had: told of once, and again when it is news again.
    let refused = |key, domain: &str, reason| Lifecycle::KeyRefused {
        key,
        domain: domain.into(),
        reason,
    };
    let lost = KeyId([9; 16]);
    for _ in 0..3 {
        service.resolve(&[], &[lost]).await.unwrap_err();
    }
    vault.change(|records| {
        let mut disabled = record(8, Some("fieldveil/off/1"));
        disabled.enabled = false;
        records.push(disabled);
    });
    for _ in 0..3 {
        service.resolve(&names(&["off"]), &[]).await.unwrap_err();
    }
    assert_eq!(
        take(),
        [
            refused(Some(lost), "", "missing"),
            refused(None, "off", "disabled")
        ]
    );
    vault.change(|records| records.iter_mut().for_each(|record| record.enabled = true));
    service.resolve(&names(&["off"]), &[]).await.unwrap();
    vault.change(|records| {
        records
            .iter_mut()
            .filter(|record| record.id == KeyId([8; 16]))
            .for_each(|record| record.enabled = false);
    });
    service.refresh().await.unwrap();
    let changed = |key, domain: &str, state| Lifecycle::KeyChanged {
        key,
        domain: domain.into(),
        state,
    };
    assert_eq!(take(), [changed(KeyId([8; 16]), "off", "disabled")]);
    service.resolve(&names(&["off"]), &[]).await.unwrap_err();
    assert_eq!(take(), [refused(None, "off", "disabled")]);

    // Another proxy's new version, and a key that somebody deleted.
    vault.change(|records| records.push(record(7, Some("fieldveil/early/2"))));
    service.refresh().await.unwrap();
    assert_eq!(take(), [changed(KeyId([7; 16]), "early", "enabled")]);
    vault.change(|records| records.retain(|record| record.id != early));
    service.refresh().await.unwrap();
    assert_eq!(take(), [changed(early, "early", "destroyed")]);

    for down in [true, false] {
        provider.down.store(down, SeqCst);
        for _ in 0..2 {
            assert_eq!(service.refresh().await.is_err(), down);
        }
        assert_eq!(
            take(),
            [Lifecycle::ProviderHealth {
                provider: "fake",
                up: !down
            }]
        );
    }
}

#[tokio::test]
async fn leases_nonces_so_that_no_number_of_processes_exceeds_the_budget() {
    let (vault, provider) = (Arc::new(Vault::default()), provider(1));
    let gcm = Suite::Aes256Gcm;
    let one = service(&vault, &provider);
    one.resolve(&names(&["a"]), &[]).await.unwrap();
    let key = Arc::clone(&one.load().domain("a").unwrap().write);
    let mut out = Vec::new();
    assert_eq!(
        key.seal(gcm, 2, b"v", &mut out),
        Err(crate::crypto::SealError::LeaseSpent)
    );
    one.lease(&key.id(), gcm, 1).await.unwrap();
    key.seal(gcm, 2, b"v", &mut out).unwrap();
    let leased = |suite: Suite| {
        vault
            .leased
            .lock()
            .unwrap()
            .get(&(key.id(), suite.name()))
            .copied()
    };
    assert_eq!(leased(gcm), Some(1 << 16));
    assert_eq!(leased(Suite::ChaCha20Poly1305), None);

    // A message with more values than a block has.
    one.lease(&key.id(), gcm, 3 << 20).await.unwrap();
    assert!(key.left(gcm) >= 3 << 20);
    // Nothing is lacking: nothing is leased, and the vault may be away.
    vault.down.store(true, SeqCst);
    one.lease(&key.id(), gcm, 1000).await.unwrap();
    assert!(
        one.lease(&key.id(), gcm, 4 << 20)
            .await
            .unwrap_err()
            .is_retryable()
    );
    vault.down.store(false, SeqCst);

    // Another process gets blocks of its own, up to the budget and not one nonce more.
    *vault
        .leased
        .lock()
        .unwrap()
        .get_mut(&(key.id(), gcm.name()))
        .unwrap() = (1 << 32) - 10;
    let two = service(&vault, &provider);
    two.resolve(&names(&["a"]), &[]).await.unwrap();
    let other = Arc::clone(&two.load().domain("a").unwrap().write);
    two.lease(&other.id(), gcm, 5).await.unwrap();
    assert_eq!(other.left(gcm), 10);
    for _ in 0..10 {
        other.seal(gcm, 2, b"v", &mut out).unwrap();
    }
    let spent = two.lease(&other.id(), gcm, 1).await.unwrap_err();
    assert_eq!(spent.kind, KeyErrorKind::Spent);
    assert!(other.seal(gcm, 2, b"v", &mut out).is_err());
    let total = leased(gcm);
    two.lease(&other.id(), gcm, 1).await.unwrap_err();
    assert_eq!(leased(gcm), total, "a spent key is not asked for again");
}

#[tokio::test]
async fn leases_ahead_for_keys_that_seal() {
    let (vault, provider) = (Arc::new(Vault::default()), provider(1));
    let service = service(&vault, &provider);
    service.resolve(&names(&["busy", "idle"]), &[]).await.unwrap();
    let key = Arc::clone(&service.load().domain("busy").unwrap().write);
    service.lease(&key.id(), Suite::Aes256Gcm, 1).await.unwrap();
    key.seal(Suite::Aes256Gcm, 2, b"v", &mut Vec::new()).unwrap();
    service.lease_ahead().await.unwrap();
    assert!(key.left(Suite::Aes256Gcm) > 1 << 19);
    assert_eq!(vault.leased.lock().unwrap().len(), 1);
}
