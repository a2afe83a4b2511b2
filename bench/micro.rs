//! What the proxy itself computes per message: plan, apply and prove, without sockets or TLS. One patient of about
//! 1 KB with six protected fields, as in the load benchmark.

#![allow(missing_docs, reason = "criterion's macros make public items without any")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed benchmark"
)]

use bson::{Document, doc};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fieldveil::config::{Config, Empty};
use fieldveil::crypto::pseudonym::Pseudonymizer;
use fieldveil::keys::KeyRing;
use fieldveil::policy::Found;
use fieldveil::secret::Secret;
use fieldveil::session::fuzz::ring;
use fieldveil::session::{Context, Cursors, Session};
use fieldveil::topology::{Address, HostMap};
use fieldveil::wire::encode;
use fieldveil::wire::op_msg::OpMsg;

const MAP: &str = r#"
[upstream]
uri = "mongodb://127.0.0.1:27017"
[[listen]]
address = "127.0.0.1:27018"
allow_plaintext = true
[keys]
master = { provider = "file", path = "master.key" }
[[collection]]
namespace = "clinic.patients"
subject = "nhs_number"
[collection.fields]
nhs_number = { mode = "deterministic", type = "string" }
mrn = { mode = "deterministic", type = "string" }
postcode = { mode = "deterministic", type = "string", accept_leakage = "benchmark" }
date_of_birth = { mode = "deterministic", type = "date", accept_leakage = "benchmark" }
notes = { mode = "random" }
"address.line1" = { mode = "random" }
"#;

struct Bench {
    config: Config,
    found: Found,
    ring: KeyRing,
    hosts: HostMap,
    listener: Address,
    cursors: Cursors,
    pseudonymizer: Pseudonymizer,
}

impl Bench {
    fn new() -> Self {
        let config = Config::parse("bench.toml", MAP, &Empty).expect("a configuration");
        Self {
            ring: ring(&config, 1),
            config,
            found: Found::default(),
            hosts: HostMap::default(),
            listener: Address::parse("127.0.0.1:27018").unwrap(),
            cursors: Cursors::default(),
            pseudonymizer: Pseudonymizer::new(&Secret::new([7; 32])),
        }
    }

    fn context(&self) -> Context<'_> {
        Context {
            map: &self.config.fields,
            found: &self.found,
            ring: &self.ring,
            hosts: &self.hosts,
            listener: &self.listener,
            cursors: &self.cursors,
            follows: false,
            service: &[7; 12],
            pseudonymizer: &self.pseudonymizer,
            now_us: 0,
            unix_ms: 0,
            login: false,
            audit_ready: true,
        }
    }

    /// What goes upstream for a command.
    fn send(&self, session: &mut Session, frame: &[u8], out: &mut Vec<u8>) {
        out.clear();
        let mut to_client = Vec::new();
        session
            .on_client(frame, &self.context(), out, &mut to_client)
            .unwrap();
        assert!(to_client.is_empty(), "the command was refused");
    }

    /// A session that waits for the reply to `find`.
    fn waiting(&self, find: &[u8]) -> Session {
        let mut session = Session::new(1, None);
        self.send(&mut session, find, &mut Vec::new());
        session
    }
}

fn patient(n: i32) -> Document {
    doc! {
        "_id": n,
        "nhs_number": "9990000018",
        "mrn": format!("MRN{n:08}"),
        "postcode": "LS1 4AP",
        "date_of_birth": bson::DateTime::from_millis(450_000_000_000),
        "name": { "given": "Mary", "family": "Example", "title": "Mrs" },
        "address": { "line1": "12 Long Example Street", "town": "Leeds", "country": "GB" },
        "gp": { "code": "B86001", "name": "The Street Lane Practice" },
        "notes": "n".repeat(200),
        "appointments": [
            { "at": bson::DateTime::from_millis(1_700_000_000_000), "ward": "A1", "seen": true, "outcome": "follow-up in six weeks" },
            { "at": bson::DateTime::from_millis(1_710_000_000_000), "ward": "B2", "seen": false, "outcome": "did not attend" },
        ],
        "flags": ["allergy", "diabetes"],
        "updated": bson::DateTime::from_millis(1_720_000_000_000),
        "free": "x".repeat(150),
    }
}

fn frame(mut command: Document) -> Vec<u8> {
    command.insert("$db", "clinic");
    encode::command(1, &bson::serialize_to_vec(&command).unwrap()).unwrap()
}

fn messages(c: &mut Criterion) {
    let bench = Bench::new();
    let find = frame(doc! { "find": "patients", "filter": { "nhs_number": "9990000018" }, "limit": 1 });
    let insert =
        |n: i32| frame(doc! { "insert": "patients", "documents": (0..n).map(patient).collect::<Vec<_>>() });
    let reply = |n: i32| {
        let mut out = Vec::new();
        bench.send(&mut Session::new(1, None), &insert(n), &mut out);
        let sent = OpMsg::parse(&out).unwrap();
        let sealed: Document = bson::deserialize_from_slice(&out[sent.body()]).unwrap();
        let batch = sealed.get_array("documents").unwrap().clone();
        let reply =
            doc! { "cursor": { "firstBatch": batch, "id": 0_i64, "ns": "clinic.patients" }, "ok": 1.0 };
        encode::reply(2, 1, &bson::serialize_to_vec(&reply).unwrap(), false).unwrap()
    };
    let mut group = c.benchmark_group("session");
    let mut command = |name: &str, frame: &[u8], documents: u64| {
        group.throughput(Throughput::Elements(documents));
        group.bench_function(name, |b| {
            let mut out = Vec::with_capacity(1 << 20);
            b.iter_batched_ref(
                || Session::new(1, None),
                |session| bench.send(session, frame, &mut out),
                BatchSize::SmallInput,
            );
        });
    };
    command("find by NHS number", &find, 1);
    command("insert 1", &insert(1), 1);
    command("insert 100", &insert(100), 100);
    let mut answer = |name: &str, frame: &[u8], documents: u64| {
        group.throughput(Throughput::Elements(documents));
        group.bench_function(name, |b| {
            let mut out = Vec::with_capacity(1 << 20);
            b.iter_batched_ref(
                || bench.waiting(&find),
                |session| {
                    out.clear();
                    session
                        .on_server(frame, &bench.context(), &mut Vec::new(), &mut out)
                        .unwrap();
                },
                BatchSize::SmallInput,
            );
        });
    };
    answer("reply of 1", &reply(1), 1);
    answer("reply of 100", &reply(100), 100);
    group.finish();
}

criterion_group!(benches, messages);
criterion_main!(benches);
