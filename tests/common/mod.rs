//! A session without sockets: frames in, frames out, keys of a fixed ring.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses its own part"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

use std::collections::HashSet;
use std::sync::Arc;

use bson::{Document, doc};
use fieldveil::command::views::resolve;
use fieldveil::config::{Config, Empty};
use fieldveil::crypto::pseudonym::Pseudonymizer;
use fieldveil::keys::{Dek, DomainKeys, KeyRing};
use fieldveil::name::Namespace;
use fieldveil::policy::Found;
use fieldveil::policy::found::Definition;
use fieldveil::secret::Secret;
use fieldveil::session::fuzz::{SAMPLE, ring, sample};
use fieldveil::session::{Closing, Context, Cursors, Done, Session, Step};
use fieldveil::topology::{Address, HostMap};
use fieldveil::wire::encode;
use fieldveil::wire::op_msg::OpMsg;

pub struct Harness {
    config: Config,
    pub found: Found,
    ring: KeyRing,
    hosts: HostMap,
    listener: Address,
    cursors: Cursors,
    /// Domain, algorithm and number of the nonces that were asked for.
    pub leased: Vec<(String, &'static str, u64)>,
    /// The deployment wants a login first.
    pub login: bool,
    pseudonymizer: Pseudonymizer,
    pub session: Session,
    next: i32,
    /// The last command went upstream and has no reply yet: a refusal would wait behind it.
    unanswered: bool,
}

/// What became of a command.
#[derive(Debug)]
pub enum Outcome {
    /// It went upstream as this body.
    Sent(Document),
    /// It was answered here.
    Answered(Document),
}

impl Outcome {
    pub fn sent(self) -> Document {
        match self {
            Self::Sent(doc) => doc,
            Self::Answered(doc) => panic!("refused: {doc}"),
        }
    }

    /// The text of the refusal.
    pub fn refused(self) -> String {
        match self {
            Self::Answered(doc) => doc.get_str("errmsg").unwrap().to_owned(),
            Self::Sent(doc) => panic!("went through: {doc}"),
        }
    }
}

impl Harness {
    pub fn new(versions: u8) -> Self {
        Self::of(sample(), versions)
    }

    /// The same with more collections, in TOML.
    pub fn with(more: &str, versions: u8) -> Self {
        let text = format!("{SAMPLE}{more}");
        Self::of(Config::parse("sample.toml", &text, &Empty).unwrap(), versions)
    }

    fn of(config: Config, versions: u8) -> Self {
        let ring = ring(&config, versions);
        Self {
            config,
            found: Found::default(),
            ring,
            hosts: HostMap::default(),
            listener: Address::parse("127.0.0.1:27018").unwrap(),
            cursors: Cursors::default(),
            leased: Vec::new(),
            login: false,
            pseudonymizer: Pseudonymizer::new(&Secret::new([7; 32])),
            session: Session::new(1, None),
            next: 1,
            unanswered: false,
        }
    }

    /// Views of database `c`, as a look at the upstream would find them: name, source, stages.
    pub fn views(&mut self, views: &[(&str, &str, Vec<Document>)]) {
        let definitions = views
            .iter()
            .map(|(name, source, stages)| Definition {
                name: Namespace::new("c", name).unwrap(),
                source: (*source).to_owned(),
                pipeline: to_bytes(
                    &stages
                        .iter()
                        .enumerate()
                        .map(|(at, stage)| (at.to_string(), bson::Bson::from(stage.clone())))
                        .collect(),
                ),
                collated: false,
            })
            .collect();
        self.found = resolve(definitions, HashSet::new(), &self.config.fields);
    }

    /// Keys that seal under random nonces only as far as they are granted some; whatever is granted is in `leased`.
    pub fn on_lease(&mut self) {
        let keys = self.ring.domains().map(|keys| {
            let (id, domain) = (keys.write.id(), keys.write.domain());
            let key = Dek::new(id, domain, 1, Secret::new([5; 96])).on_lease();
            Arc::new(DomainKeys::new(vec![Arc::new(key)]).unwrap())
        });
        self.ring = KeyRing::empty().with(keys.collect(), Vec::new());
    }

    /// Sends a command on database `c`.
    pub fn command(&mut self, command: Document) -> Outcome {
        self.command_on("c", command)
    }

    /// Sends a command on this database.
    pub fn command_on(&mut self, db: &str, command: Document) -> Outcome {
        let mut command = command;
        command.insert("$db", db);
        let frame = encode::command(self.next, &to_bytes(&command)).unwrap();
        self.frame(&frame)
    }

    pub fn frame(&mut self, frame: &[u8]) -> Outcome {
        let (to_server, to_client) = self.send(frame);
        if to_client.is_empty() {
            Outcome::Sent(body(&to_server))
        } else {
            Outcome::Answered(body(&to_client))
        }
    }

    /// Sends a frame; the bytes that went upstream, none where it was answered here.
    pub fn raw(&mut self, frame: &[u8]) -> Vec<u8> {
        self.send(frame).0
    }

    fn send(&mut self, frame: &[u8]) -> (Vec<u8>, Vec<u8>) {
        if self.unanswered {
            self.reply(doc! { "ok": 1 });
        }
        let id = i32::from_le_bytes(frame[4..8].try_into().unwrap());
        self.next = id;
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let cx = Context {
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
            login: self.login,
            audit_ready: true,
        };
        loop {
            let step = self
                .session
                .on_client(frame, &cx, &mut to_server, &mut to_client)
                .expect("the connection goes on");
            let Step::NeedKeys(wanted) = step else { break };
            let (id, suite, count) = wanted.nonces.expect("keys are all there");
            assert!(
                to_server.is_empty() && to_client.is_empty(),
                "something left before its nonces were there"
            );
            let key = self.ring.by_id(&id).expect("a key of the ring");
            key.grant(suite, count);
            self.leased.push((key.domain().to_string(), suite.name(), count));
        }
        self.next += 1;
        self.unanswered = to_client.is_empty();
        (to_server, to_client)
    }

    /// The server answers the last command with this.
    pub fn reply(&mut self, reply: Document) -> Document {
        body(&self.try_reply(reply).expect("the connection goes on"))
    }

    /// What the client gets, or why the connection ends.
    pub fn try_reply(&mut self, reply: Document) -> Result<Vec<u8>, Closing> {
        self.try_reply_to(self.next - 1, reply)
    }

    /// Sends a command on database `admin` before the one before it is answered; the id of that one.
    pub fn command_behind(&mut self, command: Document) -> i32 {
        self.unanswered = false;
        let before = self.next - 1;
        self.command_on("admin", command).sent();
        before
    }

    /// The same, of an answer to this request.
    pub fn try_reply_to(&mut self, request: i32, reply: Document) -> Result<Vec<u8>, Closing> {
        self.unanswered = false;
        let frame = encode::reply(900, request, &to_bytes(&reply), false).unwrap();
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let cx = Context {
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
            login: self.login,
            audit_ready: true,
        };
        let step = self
            .session
            .on_server(&frame, &cx, &mut to_server, &mut to_client)?;
        assert!(matches!(step, Step::Done), "keys are all there");
        Ok(to_client)
    }

    /// The connection ends.
    pub fn end(&mut self) {
        let cx = Context {
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
            login: self.login,
            audit_ready: true,
        };
        self.session.abandon(&cx);
    }

    /// Stores documents and reads them back as a find would.
    pub fn round_trip(&mut self, documents: Vec<Document>) -> Result<(Vec<Document>, Vec<Document>), String> {
        let stored = match self.command(doc! { "insert": "p", "documents": documents }) {
            Outcome::Sent(sent) => sent,
            Outcome::Answered(answer) => return Err(answer.get_str("errmsg").unwrap().to_owned()),
        };
        self.reply(doc! { "ok": 1, "n": 1 });
        let stored: Vec<Document> = stored
            .get_array("documents")
            .unwrap()
            .iter()
            .map(|d| d.as_document().unwrap().clone())
            .collect();
        self.command(doc! { "find": "p", "filter": {} }).sent();
        let read = self
            .reply(doc! { "cursor": { "firstBatch": stored.clone(), "id": 0_i64, "ns": "c.p" }, "ok": 1 });
        let read = read
            .get_document("cursor")
            .unwrap()
            .get_array("firstBatch")
            .unwrap();
        Ok((
            stored,
            read.iter().map(|d| d.as_document().unwrap().clone()).collect(),
        ))
    }

    pub fn done(&mut self) -> Vec<Done> {
        self.session.take_done().collect()
    }
}

pub fn to_bytes(doc: &Document) -> Vec<u8> {
    bson::serialize_to_vec(doc).unwrap()
}

pub fn body(frame: &[u8]) -> Document {
    let message = OpMsg::parse(frame).expect("a whole frame");
    bson::deserialize_from_slice(&frame[message.body()]).expect("a document")
}

/// Whether a value is an envelope of ours.
pub fn is_sealed(value: Option<&bson::Bson>) -> bool {
    matches!(value, Some(bson::Bson::Binary(b)) if u8::from(b.subtype) == 0x80 && b.bytes[0] == 1)
}
