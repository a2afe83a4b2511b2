//! The key vault on a real server: `FIELDVEIL_TEST_MONGODB` holds its connection string. Where that is absent each test
//! says `NOT RUN` and, on CI, fails. Each test has a database of its own and drops it.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use fieldveil::crypto::Suite;
use fieldveil::keys::{DekStore, Inserted, KeyProvider, KeyRecord, MasterKey};
use fieldveil::kms::{CsfleLocal, EnvKey};
use fieldveil::name::{KeyId, Namespace};
use fieldveil::secret::Secret;
use fieldveil::store::{KeyErrorKind, KeyService, MongoStore};
use mongodb::Client;

struct Vault {
    uri: String,
    client: Client,
    namespace: Namespace,
}

impl Vault {
    async fn open(test: &str) -> Option<Self> {
        let Ok(uri) = std::env::var("FIELDVEIL_TEST_MONGODB") else {
            eprintln!("NOT RUN: {test}: FIELDVEIL_TEST_MONGODB is not set");
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "no server on CI"
            );
            return None;
        };
        let client = Client::with_uri_str(&uri).await.unwrap();
        // Names of databases end at 63 bytes.
        let database = format!("fv_{:.20}_{}", test, uuid::Uuid::new_v4().simple());
        client.database(&database).drop().await.unwrap();
        Some(Self {
            uri,
            client,
            namespace: Namespace::new(&database, "__keyVault").unwrap(),
        })
    }

    fn raw(&self) -> mongodb::Collection<Document> {
        self.client
            .database(self.namespace.db())
            .collection(self.namespace.collection())
    }

    /// A store with connections of its own, as a proxy has them.
    async fn store(&self) -> MongoStore {
        MongoStore::connect(&self.uri, &self.namespace).await.unwrap()
    }

    async fn service(&self, provider: Arc<dyn KeyProvider>) -> KeyService {
        let service = KeyService::new(
            Arc::new(self.store().await),
            provider,
            "file",
            Duration::from_secs(60),
        );
        service.prepare().await.unwrap();
        service
    }

    async fn drop(self) {
        self.client.database(self.namespace.db()).drop().await.unwrap();
    }
}

fn own(byte: &str) -> Arc<dyn KeyProvider> {
    Arc::new(EnvKey::new("TEST", &byte.repeat(32)).unwrap())
}

fn domain(name: &str) -> Vec<Arc<str>> {
    vec![name.into()]
}

fn record(id: u8, alt_names: &[&str]) -> KeyRecord {
    KeyRecord {
        id: KeyId([id; 16]),
        alt_names: alt_names.iter().map(|&name| name.to_owned()).collect(),
        wrapped: vec![1, 2, 3],
        master: MasterKey {
            provider: "local".to_owned(),
            fields: Vec::new(),
        },
        enabled: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_proxies_that_start_at_once_end_up_with_one_key() {
    let Some(vault) = Vault::open("eight_proxies_that_start_at_once_end_up_with_one_key").await else {
        return;
    };
    let mut proxies = Vec::new();
    for _ in 0..8 {
        proxies.push(Arc::new(vault.service(own("ab")).await));
    }
    let tasks: Vec<_> = proxies
        .iter()
        .map(|proxy| {
            let proxy = Arc::clone(proxy);
            tokio::spawn(async move { proxy.resolve(&domain("clinic.patients.nhs_number"), &[]).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(vault.raw().count_documents(doc! {}).await.unwrap(), 1);
    let (mut first, value) = (Vec::new(), b"943 476 5919");
    for proxy in &proxies {
        let ring = proxy.ring();
        let mut sealed = Vec::new();
        let keys = ring.domain("clinic.patients.nhs_number").unwrap();
        keys.write.seal(Suite::Aes256Siv, 2, value, &mut sealed).unwrap();
        if first.is_empty() {
            first.clone_from(&sealed);
        }
        assert_eq!(sealed, first, "every proxy looks for the same bytes");
    }
    vault.drop().await;
}

#[tokio::test]
async fn a_domain_is_matched_whole_and_literally() {
    let Some(vault) = Vault::open("a_domain_is_matched_whole_and_literally").await else {
        return;
    };
    let store = vault.store().await;
    store.prepare().await.unwrap();
    store.prepare().await.unwrap();
    let all: [(u8, &[&str]); 9] = [
        (1, &["fieldveil/a.b/1"]),
        (2, &["fieldveil/a.b/2", "an alias"]),
        (3, &["fieldveil/aXb/1"]),
        (4, &["fieldveil/a.b/c/1"]),
        (5, &["fieldveil/a.b.c/1"]),
        (6, &["fieldveil/.*/1"]),
        (7, &["fieldveil/a.b0/1"]),
        (8, &["local"]),
        (9, &[]),
    ];
    for (id, names) in all {
        assert_eq!(store.insert(&record(id, names)).await, Ok(Inserted::Done));
    }
    // Keys without alt names do not collide with each other; alt names do.
    assert_eq!(store.insert(&record(10, &[])).await, Ok(Inserted::Done));
    assert_eq!(
        store.insert(&record(11, &["fieldveil/a.b/2"])).await,
        Ok(Inserted::Taken)
    );
    for (domains, expected) in [
        (&["a.b"][..], &[1, 2][..]),
        (&[".*"], &[6]),
        (&["a.b/c", "aXb"], &[3, 4]),
        (&["a"], &[]),
        (&["$where"], &[]),
        (&[], &[]),
    ] {
        let mut ids: Vec<u8> = store
            .by_domains(domains)
            .await
            .unwrap()
            .iter()
            .map(|key| key.id.0[0])
            .collect();
        ids.sort();
        assert_eq!(ids, expected, "{domains:?}");
    }
    let found = store.by_ids(&[KeyId([2; 16]), KeyId([99; 16])]).await.unwrap();
    assert_eq!(found, [record(2, &["fieldveil/a.b/2", "an alias"])]);
    vault.drop().await;
}

#[tokio::test]
async fn a_key_document_has_mongodbs_fields_and_no_others() {
    let Some(vault) = Vault::open("a_key_document_has_mongodbs_fields_and_no_others").await else {
        return;
    };
    vault
        .service(own("ab"))
        .await
        .resolve(&domain("d"), &[])
        .await
        .unwrap();
    let stored = vault.raw().find_one(doc! {}).await.unwrap().unwrap();
    let mut fields: Vec<&str> = stored.keys().map(String::as_str).collect();
    fields.sort();
    assert_eq!(
        fields,
        [
            "_id",
            "creationDate",
            "keyAltNames",
            "keyMaterial",
            "masterKey",
            "status",
            "updateDate"
        ]
    );
    assert_eq!(
        stored.get_document("masterKey").unwrap(),
        &doc! { "provider": "local:fieldveil" }
    );
    let indexes = vault.raw().list_index_names().await.unwrap();
    assert_eq!(indexes, ["_id_", "keyAltNames_1"]);
    vault.drop().await;
}

#[tokio::test]
async fn disabling_and_deleting_take_effect_at_the_next_refresh() {
    let Some(vault) = Vault::open("disabling_and_deleting_take_effect").await else {
        return;
    };
    let service = vault.service(own("ab")).await;
    let name: Arc<str> = "d".into();
    service.resolve(std::slice::from_ref(&name), &[]).await.unwrap();
    assert_eq!(service.add_version(&name).await, Ok(2));
    assert_eq!(service.ring().domain("d").unwrap().write.version(), 2);

    let second = doc! { "keyAltNames": "fieldveil/d/2" };
    vault
        .raw()
        .update_one(second, doc! { "$set": { "status": 1 } })
        .await
        .unwrap();
    service.refresh().await.unwrap();
    assert_eq!(service.ring().domain("d").unwrap().write.version(), 1);
    assert_eq!(service.ring().keys().count(), 1);

    vault.raw().delete_many(doc! {}).await.unwrap();
    service.refresh().await.unwrap();
    assert_eq!(service.ring().keys().count(), 0);
    vault.drop().await;
}

#[tokio::test]
async fn a_wrong_master_key_is_called_that() {
    let Some(vault) = Vault::open("a_wrong_master_key_is_called_that").await else {
        return;
    };
    vault
        .service(own("ab"))
        .await
        .resolve(&domain("d"), &[])
        .await
        .unwrap();
    let local: Arc<dyn KeyProvider> = Arc::new(CsfleLocal::new(&Secret::new([1; 96])).unwrap());
    for other in [own("cd"), local] {
        let failure = vault
            .service(other)
            .await
            .resolve(&domain("d"), &[])
            .await
            .unwrap_err();
        assert_eq!(failure.kind, KeyErrorKind::WrongMasterKey);
        assert!(failure.text.starts_with("wrong master key: "), "{failure}");
    }
    vault.drop().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_retryable_and_named() {
    // Nothing listens on port 1.
    let uri = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200";
    let namespace = Namespace::new("encryption", "__keyVault").unwrap();
    let store = MongoStore::connect(uri, &namespace).await.unwrap();
    let service = KeyService::new(Arc::new(store), own("ab"), "file", Duration::from_secs(60));
    let failure = service.resolve(&domain("d"), &[]).await.unwrap_err();
    assert_eq!(failure.kind, KeyErrorKind::VaultUnreachable);
    assert!(failure.is_retryable());
    assert!(failure.text.contains("encryption.__keyVault"), "{failure}");
}

#[tokio::test]
async fn leases_add_up_over_processes() {
    let Some(vault) = Vault::open("leases").await else {
        return;
    };
    let id = KeyId([9; 16]);
    let (one, two) = (vault.store().await, vault.store().await);
    let lease = async |store: &MongoStore| {
        let mut totals = Vec::new();
        for _ in 0..20 {
            totals.push(store.lease(&id, "aes-256-gcm", 7).await.unwrap());
        }
        totals
    };
    let (mut totals, others) = tokio::join!(lease(&one), lease(&two));
    totals.extend(others);
    totals.sort_unstable();
    assert_eq!(totals, (1..=40).map(|n| n * 7).collect::<Vec<u64>>());
    assert_eq!(one.lease(&id, "chacha20-poly1305", 1).await.unwrap(), 1);
    vault.drop().await;
}
