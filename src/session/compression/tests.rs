use bson::{Document, doc};

use super::super::fuzz::{ring, sample};
use super::super::{Context, Cursors, Packed, Session, Step};
use super::*;
use crate::config::Config;
use crate::crypto::pseudonym::Pseudonymizer;
use crate::keys::KeyRing;
use crate::policy::Found;
use crate::secret::Secret;
use crate::topology::{Address, HostMap};
use crate::wire::op_msg::Flags;
use crate::wire::{checksum, encode, op_query};

use Compressor::{Snappy, Zlib, Zstd};

struct Bench {
    config: Config,
    ring: KeyRing,
    pseudonymizer: Pseudonymizer,
    listener: Address,
    session: Session,
}

/// What left for the server and for the client.
type Left = (Vec<u8>, Vec<u8>);

impl Bench {
    fn new(allowed: &[Compressor], offered: &[Compressor]) -> Self {
        let list = |list: &[Compressor]| list.iter().copied().collect();
        let compression = Compression::new(list(allowed), list(offered), 9);
        let config = sample();
        Self {
            ring: ring(&config, 1),
            config,
            pseudonymizer: Pseudonymizer::new(&Secret::new([7; 32])),
            listener: Address::parse("127.0.0.1:27018").unwrap(),
            session: Session::new(1, None).with_compression(compression),
        }
    }

    /// A client that offered everything, and a server that takes what it is offered.
    fn agreed(allowed: &[Compressor], offered: &[Compressor]) -> Self {
        let mut bench = Self::new(allowed, offered);
        bench.hello(doc! { "compression": ["zstd", "bogus", "snappy", "zlib"] });
        bench
    }

    fn with<T>(&mut self, step: impl FnOnce(&mut Session, &Context<'_>) -> T) -> T {
        let cx = Context {
            map: &self.config.fields,
            found: &Found::default(),
            ring: &self.ring,
            hosts: &HostMap::default(),
            listener: &self.listener,
            follows: false,
            service: &[7; 12],
            cursors: &Cursors::default(),
            pseudonymizer: &self.pseudonymizer,
            now_us: 0,
            unix_ms: 0,
            login: false,
            audit_ready: true,
        };
        step(&mut self.session, &cx)
    }

    fn ask(&mut self, frame: &[u8]) -> Result<Left, Closing> {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let step = self.with(|session, cx| session.on_client(frame, cx, &mut to_server, &mut to_client))?;
        assert!(matches!(step, Step::Done), "keys are all there");
        Ok((to_server, to_client))
    }

    fn answer(&mut self, frame: &[u8]) -> Result<Vec<u8>, Closing> {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let step = self.with(|session, cx| session.on_server(frame, cx, &mut to_server, &mut to_client))?;
        assert!(to_server.is_empty(), "nothing is asked because of an answer");
        assert!(matches!(step, Step::Done), "keys are all there");
        Ok(to_client)
    }

    /// What the hello looks like to the server, and its reply to the client.
    fn hello(&mut self, with: Document) -> (Document, Document) {
        let mut hello = doc! { "hello": 1, "$db": "admin" };
        hello.extend(with);
        let (sent, _) = self.ask(&message(1, &hello)).unwrap();
        let sent = body(&sent);
        let mut reply = doc! { "ok": 1 };
        if let Some(offer) = sent.get("compression") {
            reply.insert("compression", offer);
        }
        let got = self.answer(&replied(1, &reply)).unwrap();
        (sent, body(&got))
    }
}

fn message(id: i32, command: &Document) -> Vec<u8> {
    encode::command(id, &bson::serialize_to_vec(command).unwrap()).unwrap()
}

fn replied(to: i32, reply: &Document) -> Vec<u8> {
    encode::reply(900, to, &bson::serialize_to_vec(reply).unwrap(), false).unwrap()
}

fn body(frame: &[u8]) -> Document {
    let message = OpMsg::parse(frame).unwrap();
    bson::deserialize_from_slice(&frame[message.body()]).unwrap()
}

fn packed(frame: &[u8], by: Compressor) -> Vec<u8> {
    let mut packed = frame.to_vec();
    compress::pack(&mut packed, 0, by, 6, false).unwrap();
    packed
}

/// How a frame was compressed, and what was inside.
fn opened(frame: &[u8]) -> (Option<Compressor>, Vec<u8>) {
    if opcode(frame) != Some(Opcode::Compressed) {
        return (None, frame.to_vec());
    }
    let message = OpCompressed::parse(frame, limits::MAX_MESSAGE).unwrap();
    (Some(message.compressor), compress::inflate(&message).unwrap())
}

fn find(id: i32) -> Vec<u8> {
    message(
        id,
        &doc! { "find": "other", "filter": { "x": "y".repeat(200) }, "$db": "c" },
    )
}

fn found() -> Document {
    doc! { "ok": 1, "cursor": { "id": 0_i64, "ns": "c.other", "firstBatch": [{ "x": "y".repeat(500) }] } }
}

#[test]
fn answers_the_client_for_itself_and_offers_nothing_upstream() {
    let mut bench = Bench::new(&[Snappy, Zstd], &[]);
    let (sent, got) = bench.hello(doc! { "compression": ["zstd", "bogus", "zlib", "snappy", "zstd"] });
    assert_eq!(sent, doc! { "hello": 1, "$db": "admin" });
    assert_eq!(got, doc! { "ok": 1, "compression": ["zstd", "snappy"] });
    let (_, again) = bench.hello(doc! {});
    assert_eq!(again, got, "a hello without an offer changes nothing");
    let (_, fewer) = bench.hello(doc! { "compression": ["snappy"] });
    assert_eq!(fewer, doc! { "ok": 1, "compression": ["snappy"] });
    let (_, none) = bench.hello(doc! { "compression": [] });
    assert_eq!(none, doc! { "ok": 1 });
    assert_eq!(
        bench.ask(&packed(&find(2), Snappy)),
        Err(Closing("compression was not negotiated"))
    );
}

#[test]
fn shows_no_agreement_beside_an_error() {
    let mut bench = Bench::agreed(&[Zlib], &[]);
    bench
        .ask(&message(2, &doc! { "hello": 1, "$db": "admin", "client": 5 }))
        .unwrap();
    let error = doc! { "ok": 0, "code": 14 };
    assert_eq!(body(&bench.answer(&replied(2, &error)).unwrap()), error);
    bench
        .ask(&packed(&find(3), Zlib))
        .expect("what was agreed on before still counts");
}

#[test]
fn offers_upstream_what_the_client_does_not_ask_for() {
    let mut bench = Bench::new(&[], &[Zlib, Zstd]);
    let (sent, got) = bench.hello(doc! { "compression": ["snappy"] });
    assert_eq!(
        sent,
        doc! { "hello": 1, "$db": "admin", "compression": ["zlib", "zstd"] }
    );
    assert_eq!(got, doc! { "ok": 1 });
    let (to_server, _) = bench.ask(&find(2)).unwrap();
    assert_eq!(opened(&to_server), (Some(Zlib), find(2)));
    let reply = replied(2, &found());
    assert_eq!(
        bench.answer(&packed(&reply, Zlib)).unwrap(),
        reply,
        "the client gets it plain"
    );
}

#[test]
fn compresses_each_side_by_its_own() {
    for by in Compressor::ALL {
        for upstream in [None, Some(Snappy), Some(Zlib), Some(Zstd)] {
            let mut bench = Bench::agreed(&Compressor::ALL, upstream.as_slice());
            let (to_server, _) = bench.ask(&packed(&find(2), by)).unwrap();
            assert_eq!(opened(&to_server), (upstream, find(2)));
            let plain = replied(2, &found());
            let reply = upstream.map_or_else(|| plain.clone(), |upstream| packed(&plain, upstream));
            let to_client = bench.answer(&reply).unwrap();
            assert_eq!(opened(&to_client), (Some(by), plain), "{by:?} and {upstream:?}");
        }
    }
}

#[test]
fn answers_plain_what_came_plain() {
    let mut bench = Bench::agreed(&Compressor::ALL, &[Zstd]);
    bench.ask(&find(2)).unwrap();
    bench.ask(&packed(&find(3), Zlib)).unwrap();
    let (two, three) = (replied(2, &found()), replied(3, &found()));
    assert_eq!(bench.answer(&packed(&two, Zstd)).unwrap(), two);
    assert_eq!(
        opened(&bench.answer(&packed(&three, Zstd)).unwrap()),
        (Some(Zlib), three)
    );
}

#[test]
fn passes_on_a_reply_as_the_server_compressed_it() {
    let mut bench = Bench::agreed(&[Zlib], &[Zlib]);
    bench.ask(&packed(&find(2), Zlib)).unwrap();
    // By another level than ours: what arrives is the server's own work.
    let mut reply = replied(2, &found());
    compress::pack(&mut reply, 0, Zlib, 1, false).unwrap();
    assert_eq!(bench.answer(&reply).unwrap(), reply);
}

#[test]
fn seals_and_opens_inside() {
    let mut bench = Bench::agreed(&[Zstd], &[Snappy]);
    let insert = message(
        2,
        &doc! { "insert": "p", "documents": [{ "nhs": "9434765919" }], "$db": "c" },
    );
    let (to_server, _) = bench.ask(&packed(&insert, Zstd)).unwrap();
    let (by, plain) = opened(&to_server);
    assert_eq!(by, Some(Snappy));
    let stored = body(&plain).get_array("documents").unwrap()[0]
        .as_document()
        .unwrap()
        .clone();
    assert!(stored.get("nhs").unwrap().as_str().is_none(), "sealed");
    bench.answer(&replied(2, &doc! { "ok": 1, "n": 1 })).unwrap();

    let find = message(3, &doc! { "find": "p", "filter": {}, "$db": "c" });
    bench.ask(&packed(&find, Zstd)).unwrap();
    let reply = doc! { "ok": 1, "cursor": { "id": 0_i64, "ns": "c.p", "firstBatch": vec![stored; 20] } };
    let (by, plain) = opened(&bench.answer(&packed(&replied(3, &reply), Snappy)).unwrap());
    assert_eq!(by, Some(Zstd));
    let batch = body(&plain)
        .get_document("cursor")
        .unwrap()
        .get_array("firstBatch")
        .unwrap()
        .clone();
    assert_eq!(batch[19].as_document().unwrap(), &doc! { "nhs": "9434765919" });
}

#[test]
fn keeps_checksum_and_chain_inside() {
    let mut bench = Bench::agreed(&[Snappy], &[Zlib]);
    let more = doc! { "getMore": 5_i64, "collection": "other", "$db": "c", "comment": "x".repeat(100) };
    let flags = Flags::CHECKSUM_PRESENT.with(Flags::EXHAUST_ALLOWED);
    let ask = encode::MsgWriter::new(2, 0, flags)
        .body(&bson::serialize_to_vec(&more).unwrap())
        .finish()
        .unwrap();
    let (to_server, _) = bench.ask(&packed(&ask, Snappy)).unwrap();
    let (_, sent) = opened(&to_server);
    assert!(OpMsg::parse(&sent).unwrap().flags().exhaust_allowed());
    let part = |id, to, flags: Flags| {
        encode::MsgWriter::new(id, to, flags.with(Flags::CHECKSUM_PRESENT))
            .body(&bson::serialize_to_vec(&found()).unwrap())
            .finish()
            .unwrap()
    };
    for (id, to, flags) in [
        (10, 2, Flags::MORE_TO_COME),
        (11, 10, Flags::MORE_TO_COME),
        (12, 11, Flags::default()),
    ] {
        let reply = part(id, to, flags);
        let got = bench.answer(&packed(&reply, Zlib)).unwrap();
        assert_eq!(opened(&got), (Some(Snappy), reply));
    }
    assert!(bench.session.is_idle());
}

#[test]
fn keeps_a_compressed_refusal_behind_replies_in_flight() {
    let mut bench = Bench::agreed(&Compressor::ALL, &[]);
    bench.ask(&packed(&find(2), Zstd)).unwrap();
    let text = "x".repeat(300);
    let refused = message(3, &doc! { "find": "p", "filter": { "notes": text }, "$db": "c" });
    let (to_server, to_client) = bench.ask(&packed(&refused, Zlib)).unwrap();
    assert_eq!((to_server, to_client), (vec![], vec![]), "its turn has not come");
    let both = bench.answer(&replied(2, &found())).unwrap();
    let first = Header::peek(&both, limits::MAX_MESSAGE).unwrap().length;
    assert_eq!(opened(&both[..first]), (Some(Zstd), replied(2, &found())));
    let (by, refusal) = opened(&both[first..]);
    let header = Header::peek(&refusal, limits::MAX_MESSAGE).unwrap();
    assert!(matches!(by, Some(Zlib) | None), "if it shrinks");
    assert_eq!(header.response_to, 3);
    assert!(body(&refusal).get_str("errmsg").unwrap().contains("notes"));
}

#[test]
fn never_compresses_hello_or_secrets() {
    let mut bench = Bench::agreed(&Compressor::ALL, &[Zstd]);
    for (id, command) in [
        doc! { "hello": 1, "$db": "admin", "x": "y".repeat(200) },
        doc! { "saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": "n,,n=u,r=x", "$db": "admin" },
        doc! { "saslContinue": 1, "conversationId": 1, "payload": "p", "$db": "admin" },
        doc! { "createUser": "u", "pwd": "p", "roles": [], "$db": "admin" },
        doc! { "updateUser": "u", "pwd": "p", "$db": "admin" },
    ]
    .into_iter()
    .enumerate()
    {
        let frame = message(i32::try_from(id).unwrap() + 2, &command);
        let (to_server, _) = bench.ask(&frame).unwrap();
        assert_ne!(opcode(&to_server), Some(Opcode::Compressed), "{command}");
        assert_eq!(
            Bench::agreed(&Compressor::ALL, &[]).ask(&packed(&frame, Zlib)),
            Err(Closing("compressed a command that must not be")),
            "{command}"
        );
    }
    let legacy = op_query::command(
        9,
        "admin",
        &bson::serialize_to_vec(&doc! { "isMaster": 1 }).unwrap(),
    )
    .unwrap();
    assert!(bench.ask(&packed(&legacy, Zlib)).is_err());
}

#[test]
fn closes_on_what_was_not_agreed_on() {
    let refused = Err(Closing("compression was not negotiated"));
    assert_eq!(
        Bench::new(&Compressor::ALL, &[]).ask(&packed(&find(2), Zlib)),
        refused,
        "before any hello"
    );
    assert_eq!(Bench::agreed(&[Zlib], &[]).ask(&packed(&find(2), Zstd)), refused);
    let mut bench = Bench::agreed(&Compressor::ALL, &[]);
    bench.ask(&packed(&find(2), Zlib)).unwrap();
    assert_eq!(
        bench.answer(&packed(&replied(2, &found()), Zlib)),
        Err(Closing("compression was not negotiated"))
    );
}

#[test]
fn closes_on_hostile_envelopes() {
    let good = packed(&find(2), Zlib);
    let changed = |at: usize, with: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + with.len()].copy_from_slice(with);
        bad
    };
    let mut cut = good.clone();
    cut.truncate(good.len() - 1);
    checksum::repair(&mut cut).unwrap();
    for (what, bad) in [
        ("nested", changed(16, &2012i32.to_le_bytes())),
        ("legacy inside", changed(16, &2002i32.to_le_bytes())),
        ("a reply inside", changed(16, &1i32.to_le_bytes())),
        ("too large", changed(20, &48_000_000i32.to_le_bytes())),
        ("negative", changed(20, &(-1i32).to_le_bytes())),
        (
            "one less",
            changed(20, &(i32::try_from(find(2).len()).unwrap() - 17).to_le_bytes()),
        ),
        (
            "one more",
            changed(20, &(i32::try_from(find(2).len()).unwrap() - 15).to_le_bytes()),
        ),
        ("unknown", changed(24, &[9])),
        ("noop", changed(24, &[0])),
        ("another's", changed(24, &[3])),
        ("cut", cut),
    ] {
        let mut bench = Bench::agreed(&Compressor::ALL, &[]);
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let step = bench.with(|session, cx| session.on_client(&bad, cx, &mut to_server, &mut to_client));
        assert!(step.is_err(), "{what}");
        assert_eq!((to_server, to_client), (vec![], vec![]), "{what}");
    }
    let mut bench = Bench::agreed(&[], &[Zlib]);
    bench.ask(&find(2)).unwrap();
    let reply = packed(&replied(2, &found()), Zlib);
    let mut nested = reply.clone();
    nested[16..20].copy_from_slice(&2012i32.to_le_bytes());
    assert_eq!(bench.answer(&nested), Err(Closing("malformed reply")));
}

#[test]
fn bounds_what_is_inflated_before_the_greeting() {
    let mut bench = Bench::new(&Compressor::ALL, &[]);
    let hello = doc! { "hello": 1, "$db": "admin", "compression": ["zstd"] };
    bench.ask(&message(1, &hello)).unwrap();
    let large = message(2, &doc! { "ping": 1, "$db": "admin", "x": "y".repeat(2_000_000) });
    let small = packed(&large, Zstd);
    assert!(small.len() < 10_000);
    assert_eq!(bench.ask(&small), Err(Closing("malformed compressed frame")));
}

#[test]
fn answers_section_defects_inside() {
    let mut bench = Bench::agreed(&Compressor::ALL, &[]);
    let empty = [0, 5, 0, 0, 0, 0];
    let mut two = [&[0; 12][..], &2013i32.to_le_bytes(), &[0; 4], &empty, &empty].concat();
    checksum::repair(&mut two).unwrap();
    let (_, to_client) = bench.ask(&packed(&two, Zlib)).unwrap();
    assert_eq!(body(&opened(&to_client).1).get_i32("code").unwrap(), 40430);
}

#[test]
fn counts_messages_once() {
    let mut bench = Bench::agreed(&[Zlib], &[Zstd]);
    bench.ask(&packed(&find(2), Zlib)).unwrap();
    bench.answer(&packed(&replied(2, &found()), Zstd)).unwrap();
    let (asked, replied) = (find(2).len(), replied(2, &found()).len());
    let of = |side, way, compressor, plain| Packed {
        side,
        way,
        compressor,
        plain,
    };
    assert!(bench.session.has_done());
    let counted = bench.session.take_packed();
    assert_eq!(
        counted,
        [
            of(Side::Client, Way::In, Zlib, asked),
            of(Side::Server, Way::Out, Zstd, asked),
            of(Side::Server, Way::In, Zstd, replied),
            of(Side::Client, Way::Out, Zlib, replied),
        ]
    );
}
