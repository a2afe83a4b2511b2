//! The unmodified Rust driver, each step once through the proxy and once directly against a plaintext server, with the
//! same result asserted. Addresses and the marker prefix come from `tests/e2e/test_drivers.py`, which starts the servers.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::change_stream::event::ChangeStreamEvent;
use mongodb::error::{Error, ErrorKind, Result};
use mongodb::options::{IndexOptions, ReturnDocument};
use mongodb::{Client, Collection, IndexModel};

static MADE: AtomicU32 = AtomicU32::new(80_000);

fn given(name: &str) -> String {
    std::env::vars().find(|(key, _)| key == name).map_or_else(
        || panic!("{name} is not set: run this through tests/e2e/test_drivers.py (make test)"),
        |(_, value)| value,
    )
}

/// A value that the scan after the tests looks for; never twice the same.
fn marker() -> String {
    let prefix = given("FIELDVEIL_TEST_MARKER");
    format!("{prefix}{:05}", MADE.fetch_add(1, Ordering::Relaxed))
}

fn patient(id: i32) -> Document {
    doc! {
        "_id": id, "nhs_number": marker(), "mrn": marker(), "postcode": marker(),
        "date_of_birth": DateTime::from_millis(-86_400_000 * i64::from(id)),
        "notes": marker(),
        "contacts": [{ "kind": "mobile", "phone": marker() }, { "kind": "home", "phone": marker() }],
        "address": { "line1": marker(), "city": "Leeds" },
        "allergies": [marker(), marker()], "ward": "A1", "visits": 3,
    }
}

/// One connection: through the proxy, or not.
#[derive(Clone)]
struct Side {
    client: Client,
    c: Collection<Document>,
}

impl Side {
    async fn open(variable: &str) -> Result<Self> {
        let client = Client::with_uri_str(given(variable)).await?;
        let c = client
            .database(&given("FIELDVEIL_TEST_DB"))
            .collection("patients_rust");
        c.delete_many(doc! {}).await?;
        Ok(Self { client, c })
    }
}

struct Run {
    sealed: Side,
    plain: Side,
    steps: u32,
    failed: u32,
}

impl Run {
    fn say(&mut self, name: &str, wrong: Option<String>) {
        self.steps += 1;
        if let Some(wrong) = wrong {
            self.failed += 1;
            println!("not ok {name}: {wrong}");
        } else {
            println!("ok {name}");
        }
    }

    /// Runs the operation on both sides and compares.
    async fn step<T: PartialEq + Debug>(
        &mut self,
        name: &str,
        operation: impl AsyncFn(&Side) -> Result<T>,
    ) -> Result<()> {
        let expected = operation(&self.plain).await?;
        let wrong = match operation(&self.sealed).await {
            Ok(actual) if actual == expected => None,
            other => Some(format!("{other:?}, expected {expected:?}")),
        };
        self.say(name, wrong);
        Ok(())
    }
}

/// The only document that a filter finds; finding none would compare nothing, so it is an error.
async fn one(s: &Side, filter: Document) -> Result<Document> {
    s.c.find_one(filter)
        .await?
        .ok_or_else(|| Error::custom("no document"))
}

async fn reads(run: &mut Run) -> Result<()> {
    let first = patient(1);
    run.step("insert one", async |s| {
        Ok(s.c.insert_one(&first).await?.inserted_id)
    })
    .await?;
    for key in ["_id", "nhs_number", "mrn", "postcode", "date_of_birth"] {
        run.step(&format!("find by {key}"), async |s| {
            one(s, doc! { key: first.get(key) }).await
        })
        .await?;
    }
    let phone = first
        .get_array("contacts")
        .map_err(Error::custom)?
        .get(1)
        .and_then(Bson::as_document)
        .and_then(|c| c.get("phone"));
    run.step("find through an array", async |s| {
        one(s, doc! { "contacts.phone": phone }).await
    })
    .await?;
    run.step("projection", async |s| {
        s.c.find_one(doc! { "_id": 1 })
            .projection(doc! { "nhs_number": 1, "address": 1 })
            .await
    })
    .await?;
    let many: Vec<Document> = (100..400).map(patient).collect();
    run.step("insert many", async |s| {
        Ok(s.c.insert_many(&many).await?.inserted_ids.len())
    })
    .await?;
    run.step("cursor over batches", async |s| {
        let mut cursor = s.c.find(doc! {}).sort(doc! { "_id": 1 }).batch_size(37).await?;
        let mut documents = Vec::new();
        while cursor.advance().await? {
            documents.push(cursor.deserialize_current()?);
        }
        Ok(documents)
    })
    .await?;
    run.step("cursor left early", async |s| {
        let mut cursor = s.c.find(doc! {}).sort(doc! { "_id": -1 }).batch_size(5).await?;
        let mut documents = Vec::new();
        while documents.len() < 12 && cursor.advance().await? {
            documents.push(cursor.deserialize_current()?);
        }
        Ok(documents)
    })
    .await?;
    let mrn = first.get("mrn");
    run.step("count", async |s| s.c.count_documents(doc! { "mrn": mrn }).await)
        .await?;
    run.step("distinct", async |s| {
        s.c.distinct("postcode", doc! { "_id": 1 }).await
    })
    .await?;
    run.step("aggregate", async |s| {
        let mut cursor =
            s.c.aggregate([
                doc! { "$match": { "mrn": mrn } },
                doc! { "$project": { "number": "$nhs_number", "notes": 1 } },
            ])
            .await?;
        Ok(if cursor.advance().await? {
            Some(cursor.deserialize_current()?)
        } else {
            None
        })
    })
    .await
}

async fn writes(run: &mut Run) -> Result<()> {
    let five = patient(5);
    let mrn = five.get("mrn");
    let phone = five
        .get_array("contacts")
        .map_err(Error::custom)?
        .get(1)
        .and_then(Bson::as_document)
        .and_then(|c| c.get("phone"));
    run.step("insert for updates", async |s| {
        Ok(s.c.insert_one(&five).await?.inserted_id)
    })
    .await?;
    let updates = [
        doc! { "$set": { "nhs_number": marker() } },
        doc! { "$set": { "address.line1": marker() } },
        doc! { "$set": { "contacts.0.phone": marker() } },
        doc! { "$push": { "contacts": { "kind": "work", "phone": marker() } } },
        doc! { "$pull": { "contacts": { "phone": phone } } },
        doc! { "$unset": { "notes": "" }, "$inc": { "visits": 1 } },
    ];
    for (n, update) in updates.iter().enumerate() {
        run.step(&format!("update {n}"), async |s| {
            let done = s.c.update_one(doc! { "mrn": mrn }, update.clone()).await?;
            Ok((done.modified_count, one(s, doc! { "_id": 5 }).await?))
        })
        .await?;
    }
    let value = marker();
    run.step("array filters", async |s| {
        s.c.update_one(
            doc! { "_id": 5 },
            doc! { "$set": { "contacts.$[c].phone": &value } },
        )
        .array_filters([doc! { "c.kind": "work" }])
        .await?;
        one(s, doc! { "contacts.phone": &value }).await
    })
    .await?;
    let newer = marker();
    run.step("find one and update", async |s| {
        s.c.find_one_and_update(doc! { "mrn": mrn }, doc! { "$set": { "mrn": &newer } })
            .return_document(ReturnDocument::After)
            .await
    })
    .await?;
    let replacement = patient(2);
    let number = replacement.get("nhs_number");
    run.step("replace with upsert", async |s| {
        Ok(s.c
            .replace_one(doc! { "nhs_number": number }, &replacement)
            .upsert(true)
            .await?
            .upserted_id)
    })
    .await?;
    run.step("delete", async |s| {
        Ok(s.c
            .delete_many(doc! { "nhs_number": number })
            .await?
            .deleted_count)
    })
    .await?;
    let (six, mut again) = (patient(6), patient(7));
    again.insert("nhs_number", six.get("nhs_number"));
    run.step("unique index", async |s| {
        let unique = IndexModel::builder()
            .keys(doc! { "nhs_number": 1 })
            .options(IndexOptions::builder().unique(true).build())
            .build();
        s.c.create_index(unique).await?;
        s.c.insert_one(&six).await?;
        Ok(match s.c.insert_one(&again).await {
            Err(e) => format!("{:?}", e.kind).contains("code: 11000"),
            Ok(_) => false,
        })
    })
    .await
}

async fn transactions(run: &mut Run) -> Result<()> {
    let ten = patient(10);
    let mrn = ten.get("mrn");
    run.step("transaction committed", async |s| {
        let mut session = s.client.start_session().await?;
        session.start_transaction().await?;
        s.c.insert_one(&ten).session(&mut session).await?;
        let seen = s.c.find_one(doc! { "mrn": mrn }).session(&mut session).await?;
        session.commit_transaction().await?;
        Ok((seen.is_some(), one(s, doc! { "mrn": mrn }).await?))
    })
    .await?;
    let never = marker();
    run.step("transaction aborted", async |s| {
        let mut session = s.client.start_session().await?;
        session.start_transaction().await?;
        s.c.update_one(doc! { "mrn": mrn }, doc! { "$set": { "notes": &never } })
            .session(&mut session)
            .await?;
        session.abort_transaction().await?;
        one(s, doc! { "_id": 10 }).await
    })
    .await
}

async fn changes(run: &mut Run) -> Result<()> {
    let observed = patient(20);
    let number = marker();
    run.step("change stream", async |s| {
        let mut stream = s.c.watch().await?;
        s.c.insert_one(&observed).await?;
        s.c.update_one(doc! { "_id": 20 }, doc! { "$set": { "nhs_number": &number } })
            .await?;
        s.c.delete_one(doc! { "nhs_number": &number }).await?;
        let mut events = Vec::new();
        while events.len() < 3 {
            let Some(event) = next(&mut stream).await? else {
                continue;
            };
            let updated = event.update_description.map(|d| d.updated_fields);
            events.push((
                format!("{:?}", event.operation_type),
                event.document_key,
                event.full_document,
                updated,
            ));
        }
        Ok(events)
    })
    .await
}

type Stream = mongodb::change_stream::ChangeStream<ChangeStreamEvent<Document>>;

async fn next(stream: &mut Stream) -> Result<Option<ChangeStreamEvent<Document>>> {
    tokio::time::timeout(Duration::from_secs(30), stream.next_if_any())
        .await
        .map_err(Error::custom)?
}

async fn refusal(run: &mut Run) {
    let wrong = match run
        .sealed
        .c
        .find_one(doc! { "nhs_number": { "$gt": marker() } })
        .await
    {
        Ok(found) => Some(format!("answered with {found:?}")),
        Err(e) => match &*e.kind {
            ErrorKind::Command(c)
                if c.message.starts_with("fieldveil: ")
                    && c.message.contains("nhs_number")
                    && c.message.contains("$gt") =>
            {
                None
            }
            _ => Some(format!("{e:?}")),
        },
    };
    run.say("a refusal names field and operator", wrong);
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (sealed, plain) = (
        Side::open("FIELDVEIL_TEST_PROXY_URI").await?,
        Side::open("FIELDVEIL_TEST_PLAIN_URI").await?,
    );
    let mut run = Run {
        sealed,
        plain,
        steps: 0,
        failed: 0,
    };
    reads(&mut run).await?;
    writes(&mut run).await?;
    transactions(&mut run).await?;
    changes(&mut run).await?;
    refusal(&mut run).await;
    println!("{} steps, {} failed", run.steps, run.failed);
    if run.failed > 0 {
        return Err(Error::custom("steps failed"));
    }
    Ok(())
}
