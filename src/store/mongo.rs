//! The key vault collection, in MongoDB's own schema and over connections of our own. Owns the document's shape; no key
//! is unwrapped here.
//!
//! Source: MongoDB specifications, `client-side-encryption`, "Key vault collection". A field of ours in these documents
//! would make every driver refuse them, so there is none.

use std::time::Duration;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, doc};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::options::{
    ClientOptions, CollectionOptions, IndexOptions, ReadConcern, ReadPreference, ReturnDocument,
    SelectionCriteria, WriteConcern,
};
use mongodb::{Client, Collection, IndexModel};

use crate::keys::{AltName, BoxFuture, DekStore, Inserted, KeyRecord, MasterKey, StoreError, StoreErrorKind};
use crate::name::{KeyId, Namespace};

/// How long an operation waits for a server before the vault counts as unreachable: longer than an election takes under
/// default settings, which is up to about twelve seconds.
const SELECTION: Duration = Duration::from_secs(15);

/// The key vault of a MongoDB deployment.
pub struct MongoStore {
    keys: Collection<Document>,
    /// Beside the keys: `_id` of the key, and the count leased by suite. A field of ours in a key document would make
    /// drivers refuse it.
    leases: Collection<Document>,
}

impl MongoStore {
    /// Opens connections of its own. Nothing is sent yet: an unreachable server shows at the first call.
    ///
    /// # Errors
    /// Where the connection string is wrong.
    pub async fn connect(uri: &str, vault: &Namespace) -> Result<Self, StoreError> {
        let mut options = ClientOptions::parse(uri)
            .await
            .map_err(|error| failed(vault.as_str(), &error))?;
        options.app_name.get_or_insert_with(|| "fieldveil".to_owned());
        options.server_selection_timeout.get_or_insert(SELECTION);
        let client = Client::with_options(options).map_err(|error| failed(vault.as_str(), &error))?;
        Ok(Self::new(&client, vault))
    }

    /// Uses the connections of `client`. What it reads a majority holds, and what it wrote is on a majority: a key that
    /// a failover can take back must seal nothing.
    pub fn new(client: &Client, vault: &Namespace) -> Self {
        let options = CollectionOptions::builder()
            .read_concern(ReadConcern::majority())
            .write_concern(WriteConcern::majority())
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .build();
        let database = client.database(vault.db());
        let leases = format!("{}.leases", vault.collection());
        Self {
            keys: database.collection_with_options(vault.collection(), options.clone()),
            leases: database.collection_with_options(&leases, options),
        }
    }

    /// Whether the vault holds no key at all: only then may a new master key be made.
    ///
    /// # Errors
    /// Where the vault does not answer.
    pub async fn is_empty(&self) -> Result<bool, StoreError> {
        let any = self
            .keys
            .find_one(doc! {})
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(any.is_none())
    }

    async fn find(&self, filter: Document) -> Result<Vec<KeyRecord>, StoreError> {
        let mut cursor = self
            .keys
            .find(filter)
            .await
            .map_err(|error| self.failed(&error))?;
        let mut records = Vec::new();
        while cursor.advance().await.map_err(|error| self.failed(&error))? {
            let document = cursor
                .deserialize_current()
                .map_err(|error| self.failed(&error))?;
            records.push(from_document(&document).map_err(|what| self.malformed(&document, what))?);
        }
        Ok(records)
    }

    fn failed(&self, error: &Error) -> StoreError {
        failed(&self.keys.namespace().to_string(), error)
    }

    fn malformed(&self, document: &Document, what: &str) -> StoreError {
        let id = document
            .get("_id")
            .map_or_else(|| "without _id".to_owned(), Bson::to_string);
        let text = format!(
            "key vault {}: document {id} is no data key: {what}",
            self.keys.namespace()
        );
        StoreError::new(StoreErrorKind::Malformed, text)
    }
}

impl DekStore for MongoStore {
    fn prepare(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            // The index that drivers make, so that whoever comes first, the other finds it as wanted.
            let options = IndexOptions::builder()
                .unique(true)
                .partial_filter_expression(doc! { "keyAltNames": { "$exists": true } })
                .build();
            let index = IndexModel::builder()
                .keys(doc! { "keyAltNames": 1 })
                .options(options)
                .build();
            self.keys
                .create_index(index)
                .await
                .map_err(|error| self.failed(&error))?;
            Ok(())
        })
    }

    fn by_ids<'a>(&'a self, ids: &'a [KeyId]) -> BoxFuture<'a, Result<Vec<KeyRecord>, StoreError>> {
        Box::pin(async move {
            if ids.is_empty() {
                return Ok(Vec::new());
            }
            let ids: Vec<Bson> = ids.iter().map(uuid).collect();
            self.find(doc! { "_id": { "$in": ids } }).await
        })
    }

    fn by_domains<'a>(&'a self, domains: &'a [&'a str]) -> BoxFuture<'a, Result<Vec<KeyRecord>, StoreError>> {
        Box::pin(async move {
            if domains.is_empty() {
                return Ok(Vec::new());
            }
            // A range of strings, not a pattern: a domain's name needs no escaping. '0' follows '/' in ASCII.
            let ranges: Vec<Document> = domains
                .iter()
                .map(|domain| {
                    let from = format!("{}{domain}/", AltName::PREFIX);
                    let to = format!("{}{domain}0", AltName::PREFIX);
                    doc! { "keyAltNames": { "$elemMatch": { "$gte": from, "$lt": to } } }
                })
                .collect();
            let mut records = self.find(doc! { "$or": ranges }).await?;
            // The range of `a` holds the domain `a/b` as well.
            records.retain(|record| {
                record
                    .alt_name()
                    .is_some_and(|name| domains.contains(&name.domain))
            });
            Ok(records)
        })
    }

    fn insert<'a>(&'a self, record: &'a KeyRecord) -> BoxFuture<'a, Result<Inserted, StoreError>> {
        Box::pin(async move {
            match self.keys.insert_one(to_document(record, DateTime::now())).await {
                Ok(_) => Ok(Inserted::Done),
                Err(error) if is_duplicate(&error) => Ok(Inserted::Taken),
                Err(error) => Err(self.failed(&error)),
            }
        })
    }

    fn lease<'a>(
        &'a self,
        id: &'a KeyId,
        suite: &'static str,
        count: u64,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let failed = |error: &Error| failed(&self.leases.namespace().to_string(), error);
            let add = Bson::Int64(i64::try_from(count).unwrap_or(i64::MAX));
            let lease = || {
                self.leases
                    .find_one_and_update(doc! { "_id": uuid(id) }, doc! { "$inc": { suite: add.clone() } })
                    .upsert(true)
                    .return_document(ReturnDocument::After)
            };
            let leased = match lease().await {
                // Somebody else's first lease of this key came between.
                Err(error) if is_duplicate(&error) => lease().await,
                other => other,
            };
            let total = leased
                .map_err(|error| failed(&error))?
                .and_then(|document| document.get_i64(suite).ok())
                .and_then(|total| u64::try_from(total).ok());
            total.ok_or_else(|| {
                let text = format!(
                    "{}: the lease of data key {id} is no count",
                    self.leases.namespace()
                );
                StoreError::new(StoreErrorKind::Malformed, text)
            })
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            // A read of the collection, not a ping: what counts is that keys could be loaded.
            self.keys
                .find_one(doc! {})
                .projection(doc! { "_id": 1 })
                .await
                .map_err(|error| self.failed(&error))?;
            Ok(())
        })
    }
}

fn to_document(record: &KeyRecord, now: DateTime) -> Document {
    let mut master = doc! { "provider": &record.master.provider };
    master.extend(
        record
            .master
            .fields
            .iter()
            .map(|(name, value)| (name.clone(), Bson::from(value))),
    );
    let mut document = doc! { "_id": uuid(&record.id) };
    if !record.alt_names.is_empty() {
        document.insert("keyAltNames", &record.alt_names);
    }
    document.insert(
        "keyMaterial",
        Binary {
            subtype: BinarySubtype::Generic,
            bytes: record.wrapped.clone(),
        },
    );
    document.insert("creationDate", now);
    document.insert("updateDate", now);
    document.insert("status", i32::from(!record.enabled));
    document.insert("masterKey", master);
    document
}

fn from_document(document: &Document) -> Result<KeyRecord, &'static str> {
    let id = match document.get("_id") {
        Some(Bson::Binary(Binary {
            subtype: BinarySubtype::Uuid,
            bytes,
        })) => KeyId::from_slice(bytes),
        _ => None,
    };
    let alt_names = match document.get("keyAltNames") {
        None => Some(Vec::new()),
        Some(Bson::Array(names)) => names
            .iter()
            .map(|name| name.as_str().map(str::to_owned))
            .collect(),
        Some(_) => None,
    };
    let wrapped = match document.get("keyMaterial") {
        Some(Bson::Binary(Binary {
            subtype: BinarySubtype::Generic,
            bytes,
        })) => Some(bytes.clone()),
        _ => None,
    };
    // Anything but a plain "enabled" counts as disabled: a key that somebody meant to switch off must not be used.
    let enabled = match document.get("status") {
        None => true,
        Some(Bson::Int32(status)) => *status == 0,
        Some(Bson::Int64(status)) => *status == 0,
        Some(Bson::Double(status)) => *status == 0.0,
        Some(_) => return Err("status is not a number"),
    };
    let master = document
        .get_document("masterKey")
        .map_err(|_| "masterKey is not a document")?;
    let provider = master
        .get_str("provider")
        .map_err(|_| "masterKey.provider is not a string")?;
    let fields = master
        .iter()
        .filter(|(name, _)| *name != "provider")
        .filter_map(|(name, value)| value.as_str().map(|value| (name.clone(), value.to_owned())))
        .collect();
    Ok(KeyRecord {
        id: id.ok_or("_id is not a UUID (binary subtype 4)")?,
        alt_names: alt_names.ok_or("keyAltNames is not an array of strings")?,
        wrapped: wrapped.ok_or("keyMaterial is not a binary of subtype 0")?,
        master: MasterKey {
            provider: provider.to_owned(),
            fields,
        },
        enabled,
    })
}

fn uuid(id: &KeyId) -> Bson {
    Bson::Binary(Binary {
        subtype: BinarySubtype::Uuid,
        bytes: id.0.to_vec(),
    })
}

fn is_duplicate(error: &Error) -> bool {
    match &*error.kind {
        ErrorKind::Write(WriteFailure::WriteError(write)) => write.code == 11000,
        ErrorKind::Command(command) => command.code == 11000,
        _ => false,
    }
}

fn failed(vault: &str, error: &Error) -> StoreError {
    let code = match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(write)) => Some(write.code),
        _ => None,
    };
    let kind = match (&*error.kind, code) {
        (ErrorKind::Authentication { .. }, _) | (_, Some(13 | 18)) => StoreErrorKind::Denied,
        (ErrorKind::Write(WriteFailure::WriteConcernError(_)), _) => StoreErrorKind::Unavailable,
        (ErrorKind::Command(_) | ErrorKind::Write(_), _) if is_transient(error, code) => {
            StoreErrorKind::Unavailable
        }
        (ErrorKind::Command(_) | ErrorKind::Write(_), _) => StoreErrorKind::Other,
        (ErrorKind::InvalidArgument { .. } | ErrorKind::InvalidTlsConfig { .. }, _) => StoreErrorKind::Other,
        (ErrorKind::BsonDeserialization(_), _) => StoreErrorKind::Malformed,
        _ => StoreErrorKind::Unavailable,
    };
    let hint = match kind {
        StoreErrorKind::Denied => {
            "; its user needs readWrite on this collection and on the one beside it whose name ends in .leases"
        }
        StoreErrorKind::Unavailable => "; check [keys] uri and that the deployment is up",
        StoreErrorKind::Malformed | StoreErrorKind::Other => "",
    };
    StoreError::new(kind, format!("key vault {vault}: {}{hint}", error.kind))
}

/// Labels first; then the codes that mean "not primary", "shutting down" or "took too long" (server error codes).
fn is_transient(error: &Error, code: Option<i32>) -> bool {
    error.contains_label("RetryableWriteError")
        || matches!(
            code,
            Some(6 | 7 | 50 | 89 | 91 | 189 | 262 | 9001 | 10107 | 11600 | 11602 | 13435 | 13436)
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> KeyRecord {
        KeyRecord {
            id: KeyId([5; 16]),
            alt_names: vec!["fieldveil/nhs_number/1".to_owned()],
            wrapped: vec![1, 2, 3],
            master: MasterKey {
                provider: "aws".to_owned(),
                fields: vec![
                    ("region".to_owned(), "eu-west-2".to_owned()),
                    ("key".to_owned(), "arn".to_owned()),
                ],
            },
            enabled: true,
        }
    }

    #[test]
    fn writes_the_schema_of_mongodb_and_nothing_else() {
        let now = DateTime::from_millis(1_700_000_000_000);
        let document = to_document(&record(), now);
        let expected = doc! {
            "_id": Binary { subtype: BinarySubtype::Uuid, bytes: vec![5; 16] },
            "keyAltNames": ["fieldveil/nhs_number/1"],
            "keyMaterial": Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2, 3] },
            "creationDate": now,
            "updateDate": now,
            "status": 0,
            "masterKey": { "provider": "aws", "region": "eu-west-2", "key": "arn" },
        };
        assert_eq!(document, expected);
        let unnamed = KeyRecord {
            alt_names: Vec::new(),
            ..record()
        };
        assert!(
            !to_document(&unnamed, now).contains_key("keyAltNames"),
            "the array must be absent, not empty"
        );
    }

    #[test]
    fn reads_what_it_wrote() {
        for enabled in [true, false] {
            let record = KeyRecord { enabled, ..record() };
            assert_eq!(from_document(&to_document(&record, DateTime::now())), Ok(record));
        }
    }

    #[test]
    fn rejects_documents_that_are_no_keys() {
        let whole = to_document(&record(), DateTime::now());
        for (field, value) in [
            ("_id", Bson::Int32(1)),
            (
                "_id",
                Bson::Binary(Binary {
                    subtype: BinarySubtype::Generic,
                    bytes: vec![5; 16],
                }),
            ),
            ("keyMaterial", Bson::String("x".into())),
            ("keyAltNames", Bson::String("x".into())),
            ("keyAltNames", Bson::Array(vec![Bson::Int32(1)])),
            ("status", Bson::String("0".into())),
            ("masterKey", Bson::Null),
            ("masterKey", Bson::Document(doc! {})),
        ] {
            let mut bent = whole.clone();
            bent.insert(field, value);
            assert!(from_document(&bent).is_err(), "{field}");
        }
    }

    #[test]
    fn treats_every_status_but_enabled_as_disabled() {
        for (status, enabled) in [
            (Bson::Int32(0), true),
            (Bson::Int64(0), true),
            (Bson::Int32(1), false),
            (Bson::Double(2.0), false),
        ] {
            let mut document = to_document(&record(), DateTime::now());
            document.insert("status", status);
            assert_eq!(from_document(&document).unwrap().enabled, enabled);
        }
    }
}
