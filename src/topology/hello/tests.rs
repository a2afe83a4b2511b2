use ::bson::{Binary, DateTime, Document, Timestamp, doc, oid::ObjectId, spec::BinarySubtype};

use super::super::hosts::{HostMap, Listener};
use super::*;

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn map(listeners: &[(&str, Option<&str>)]) -> HostMap {
    let listeners = listeners.iter().map(|(advertise, member)| Listener {
        advertise: address(advertise),
        member: member.map(address),
    });
    HostMap::new(listeners.collect()).unwrap()
}

fn bytes(document: &Document) -> Vec<u8> {
    ::bson::serialize_to_vec(document).unwrap()
}

fn raw(reply: &[u8], at: usize, map: &HostMap, listener: &str) -> Result<Vec<u8>, Malformed> {
    let doc = Doc::at(reply, at)?;
    let (listener, me) = (address(listener), me(doc)?);
    rewrite(doc, &Names::new(map, &listener, me.as_ref(), None), &[], None)
}

fn rewritten(reply: &Document, map: &HostMap, listener: &str, compressors: &[&str]) -> Document {
    let reply = bytes(reply);
    let doc = Doc::at(&reply, 0).unwrap();
    let (listener, me) = (address(listener), me(doc).unwrap());
    let names = Names::new(map, &listener, me.as_ref(), None);
    let out = rewrite(doc, &names, compressors, None).unwrap();
    Doc::at(&out, 0).unwrap().validate().unwrap();
    ::bson::deserialize_from_slice(&out).unwrap()
}

/// What every server says, as 6.0 sends it.
fn limits() -> Document {
    doc! {
        "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
        "localTime": DateTime::from_millis(1_700_000_000_000), "logicalSessionTimeoutMinutes": 30,
        "connectionId": 17, "minWireVersion": 0, "maxWireVersion": 17, "readOnly": false,
    }
}

fn lowered() -> Document {
    let mut limits = limits();
    limits.insert("maxMessageSizeBytes", 24_000_000);
    limits.insert("maxWriteBatchSize", 50_000);
    limits
}

fn joined(parts: &[Document]) -> Document {
    parts
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn end() -> Document {
    doc! {
        "ok": 1.0,
        "$clusterTime": { "clusterTime": Timestamp { time: 1, increment: 2 }, "signature": { "keyId": 0_i64 } },
        "operationTime": Timestamp { time: 1, increment: 2 },
    }
}

fn replica_set(members: &Document) -> Document {
    let head = doc! {
        "topologyVersion": { "processId": ObjectId::from_bytes([7; 12]), "counter": 6_i64 },
        "setName": "rs0", "setVersion": 3, "isWritablePrimary": true, "secondary": false,
    };
    let tail = doc! {
        "electionId": ObjectId::from_bytes([9; 12]),
        "lastWrite": { "opTime": { "ts": Timestamp { time: 5, increment: 1 }, "t": 2_i64 } },
        "tags": { "dc": "a" },
    };
    joined(&[head, members.clone(), tail])
}

#[test]
fn lowers_only_the_limits_of_a_standalone_and_a_mongos() {
    for kind in [
        doc! { "isWritablePrimary": true, "helloOk": true },
        doc! { "ismaster": true, "msg": "isdbgrid" },
        doc! { "ismaster": false, "isreplicaset": true, "info": "Does not have a valid replica set config" },
    ] {
        let got = rewritten(
            &joined(&[kind.clone(), limits(), end()]),
            &map(&[("proxy:27018", None)]),
            "proxy:27018",
            &[],
        );
        assert_eq!(got, joined(&[kind, lowered(), end()]));
    }
}

#[test]
fn keeps_limits_that_are_lower_already_and_replaces_what_is_no_number() {
    let map = map(&[]);
    let low = doc! { "maxMessageSizeBytes": 1_000_i64, "maxWriteBatchSize": 1_000.0, "ok": 1 };
    assert_eq!(rewritten(&low, &map, "p", &[]), low);
    let odd = doc! { "maxMessageSizeBytes": "48000000", "maxWriteBatchSize": 100_000_i64 };
    assert_eq!(
        rewritten(&odd, &map, "p", &[]),
        doc! { "maxMessageSizeBytes": 24_000_000, "maxWriteBatchSize": 50_000 }
    );
}

#[test]
fn a_listener_without_a_member_stands_for_the_one_that_answers() {
    let members = doc! { "hosts": ["Mongo-0.internal:27017"], "primary": "mongo-0.internal:27017", "me": "mongo-0.INTERNAL:27017" };
    let got = rewritten(
        &joined(&[replica_set(&members), limits(), end()]),
        &map(&[("Proxy:27018", None)]),
        "proxy:27018",
        &[],
    );
    let shown = doc! { "hosts": ["proxy:27018"], "primary": "proxy:27018", "me": "proxy:27018" };
    assert_eq!(got, joined(&[replica_set(&shown), lowered(), end()]));
}

#[test]
fn a_listener_without_a_member_leaves_the_others_out() {
    let members =
        doc! { "hosts": ["db1:27017", "db2:27017", "db3:27017"], "primary": "db1:27017", "me": "db2:27017" };
    let got = rewritten(&replica_set(&members), &map(&[("p:1", None)]), "p:1", &[]);
    assert_eq!(got, replica_set(&doc! { "hosts": ["p:1"], "me": "p:1" }));
}

#[test]
fn three_listeners_show_the_whole_set_the_same_from_each() {
    let map = map(&[("p:1", Some("db1")), ("p:2", Some("db2")), ("p:3", Some("arb"))]);
    let members = |me: &str| doc! { "hosts": ["db1:27017", "db2:27017"], "passives": ["db4:27017"], "arbiters": ["ARB:27017"], "primary": "db1:27017", "me": me };
    for (listener, me) in [("p:1", "db1:27017"), ("p:2", "db2:27017"), ("p:3", "arb:27017")] {
        let got = rewritten(&replica_set(&members(me)), &map, listener, &[]);
        let shown = doc! { "hosts": ["p:1", "p:2"], "passives": [], "arbiters": ["p:3"], "primary": "p:1", "me": listener };
        assert_eq!(got, replica_set(&shown), "through {listener}");
    }
}

#[test]
fn never_shows_an_unmapped_address() {
    let members = doc! {
        "hosts": ["secret-1:27017", "db1:27017", 5, "not an address", { "a": "secret-2:27017" }],
        "passives": "secret-3:27017", "arbiters": ["secret-4:27017"], "primary": "secret-5:27017", "me": 7,
    };
    for listeners in [
        &[("p:1", Some("db1"))][..],
        &[("p:1", None), ("p:2", None), ("p:3", Some("db1"))],
    ] {
        let got = rewritten(&replica_set(&members), &map(listeners), "p:1", &[]);
        assert!(!got.to_string().contains("secret"), "{got}");
        assert!(!got.contains_key("passives") && !got.contains_key("primary") && !got.contains_key("me"));
        assert_eq!(got.get_array("hosts").unwrap().len(), 1);
    }
    // A listener configured for a member does not borrow the answering member's name.
    let other = doc! { "hosts": ["db9:27017"], "me": "db9:27017" };
    let got = rewritten(&other, &map(&[("p:1", Some("db1"))]), "p:1", &[]);
    assert_eq!(got, doc! { "hosts": [] });
}

#[test]
fn rewrites_every_occurrence_of_a_duplicated_field() {
    // {me: "secret:1", me: "secret:1"}, by hand.
    let one = b"\x02me\0\x09\0\0\0secret:1\0";
    let mut reply = vec![0; 4];
    reply.extend_from_slice(&[&one[..], one, &[0]].concat());
    let length = i32::try_from(reply.len()).unwrap();
    reply[..4].copy_from_slice(&length.to_le_bytes());
    let view = map(&[("p:1", Some("db1"))]);
    let out = raw(&reply, 0, &view, "p:1").unwrap();
    assert_eq!(out, [5, 0, 0, 0, 0]);
}

#[test]
fn keeps_authentication_fields_byte_for_byte() {
    let payload = Binary {
        subtype: BinarySubtype::Generic,
        bytes: b"r=nonce,s=salt,i=15000".to_vec(),
    };
    let reply = doc! {
        "isWritablePrimary": true,
        "saslSupportedMechs": ["SCRAM-SHA-1", "SCRAM-SHA-256"],
        "speculativeAuthenticate": { "conversationId": 1, "done": false, "payload": payload },
        "compression": ["snappy", "zstd"],
        "serviceId": ObjectId::from_bytes([1; 12]), "unknownYet": { "x": [1, 2_i64, 3.0] }, "ok": 1.0,
    };
    let mut want = reply.clone();
    want.remove("compression");
    want.remove("serviceId");
    let reply = bytes(&reply);
    let out = raw(&reply, 0, &map(&[]), "p").unwrap();
    assert_eq!(out, bytes(&want));
}

#[test]
fn shows_our_own_compressors_instead_of_the_servers() {
    let reply = doc! { "compression": ["snappy"], "ok": 1.0 };
    let got = rewritten(&reply, &map(&[]), "p", &["zstd", "zlib"]);
    assert_eq!(got, doc! { "ok": 1.0, "compression": ["zstd", "zlib"] });
}

#[test]
fn reads_from_the_middle_of_a_frame() {
    let reply = doc! { "hosts": ["db:27017"], "me": "db:27017", "ok": 1 };
    let frame = [&[0xaa; 21][..], &bytes(&reply), &[0xbb; 4]].concat();
    let view = map(&[("p:1", None)]);
    let out = raw(&frame, 21, &view, "p:1").unwrap();
    assert_eq!(out, bytes(&doc! { "hosts": ["p:1"], "me": "p:1", "ok": 1 }));
}

#[test]
fn rejects_malformed_replies() {
    let whole = bytes(&doc! { "hosts": ["db:27017"], "me": "db:27017" });
    let view = map(&[("p:1", None)]);
    let mut bad = whole.clone();
    // The array claims one byte more than its element has.
    bad[11] += 1;
    assert!(raw(&bad, 0, &view, "p:1").is_err());
    let mut bad = whole;
    bad[4] = 0x20;
    assert!(raw(&bad, 0, &view, "p:1").is_err());
    assert!(rewrite_request(Doc::at(&bad, 0).unwrap(), &[]).is_err());
    assert!(facts(Doc::at(&bad, 0).unwrap()).is_err());
}

/// What pymongo opens a connection with.
fn client_hello() -> Document {
    doc! {
        "ismaster": 1, "helloOk": true, "$db": "admin",
        "client": {
            "driver": { "name": "PyMongo", "version": "4.20.0" },
            "os": { "type": "Linux", "architecture": "x86_64" },
            "platform": "CPython 3.12.3.final.0",
            "application": { "name": "ward-round" },
        },
        "compression": ["zstd", "snappy"],
        "saslSupportedMechs": "clinic.app",
        "speculativeAuthenticate": { "saslStart": 1, "mechanism": "SCRAM-SHA-256", "db": "clinic" },
    }
}

#[test]
fn strips_compression_from_a_request_and_nothing_else() {
    let mut want = client_hello();
    want.remove("compression");
    let hello = bytes(&client_hello());
    let stripped = rewrite_request(Doc::at(&hello, 0).unwrap(), &[]).unwrap();
    assert_eq!(stripped, Some(bytes(&want)));
    let stripped = stripped.unwrap();
    assert_eq!(rewrite_request(Doc::at(&stripped, 0).unwrap(), &[]), Ok(None));
}

#[test]
fn strips_compression_inside_a_wrapped_query() {
    let wrap = |inner: Document| doc! { "$query": inner, "$readPreference": { "mode": "nearest" } };
    let mut want = client_hello();
    want.remove("compression");
    let hello = bytes(&wrap(client_hello()));
    assert_eq!(
        rewrite_request(Doc::at(&hello, 0).unwrap(), &[]),
        Ok(Some(bytes(&wrap(want.clone()))))
    );
    assert_eq!(
        facts(Doc::at(&hello, 0).unwrap()).unwrap().driver,
        Some("PyMongo")
    );
    let bare = bytes(&wrap(want));
    assert_eq!(rewrite_request(Doc::at(&bare, 0).unwrap(), &[]), Ok(None));
}

#[test]
fn offers_our_own_compressors_to_the_server() {
    let wrap = |inner: Document| doc! { "$query": inner, "$readPreference": { "mode": "nearest" } };
    let mut want = client_hello();
    want.remove("compression");
    let bare = want.clone();
    want.insert("compression", vec!["zlib", "zstd"]);
    for hello in [client_hello(), bare] {
        for (hello, want) in [(hello.clone(), want.clone()), (wrap(hello), wrap(want.clone()))] {
            let hello = bytes(&hello);
            let rewritten = rewrite_request(Doc::at(&hello, 0).unwrap(), &["zlib", "zstd"]);
            assert_eq!(rewritten, Ok(Some(bytes(&want))));
        }
    }
}

#[test]
fn keeps_what_is_between_a_balanced_client_and_us_from_the_server() {
    let mut balanced = client_hello();
    balanced.remove("compression");
    let want = bytes(&balanced);
    balanced.insert("loadBalanced", true);
    let hello = bytes(&balanced);
    let hello = Doc::at(&hello, 0).unwrap();
    assert!(facts(hello).unwrap().load_balanced);
    assert_eq!(rewrite_request(hello, &[]), Ok(Some(want)));
    let no = bytes(&doc! { "hello": 1, "loadBalanced": false });
    assert!(!facts(Doc::at(&no, 0).unwrap()).unwrap().load_balanced);
}

#[test]
fn tells_a_balanced_client_an_id_and_no_address() {
    let members = doc! { "hosts": ["db1:27017", "db2:27017"], "passives": ["db4:27017"], "arbiters": ["arb:27017"], "primary": "db1:27017", "me": "db1:27017" };
    let reply = bytes(&joined(&[replica_set(&members), limits(), end()]));
    let (map, listener) = (map(&[("p:1", None)]), address("p:1"));
    let names = Names::new(&map, &listener, None, None);
    let out = rewrite(Doc::at(&reply, 0).unwrap(), &names, &[], Some(&[5; 12])).unwrap();
    let got: Document = ::bson::deserialize_from_slice(&out).unwrap();
    let service = doc! { "serviceId": ObjectId::from_bytes([5; 12]) };
    assert_eq!(got, joined(&[replica_set(&doc! {}), lowered(), end(), service]));
}

/// What mongos says, from the documentation of its `hello`: no set, no member, no address.
#[test]
fn a_routers_hello_passes_but_for_its_limits() {
    let router = doc! {
        "isWritablePrimary": true, "msg": "isdbgrid",
        "topologyVersion": { "processId": ObjectId::from_bytes([3; 12]), "counter": 0_i64 },
    };
    for map in [map(&[("p:1", None)]), map(&[("p:1", Some("mongos1"))])] {
        let reply = joined(&[router.clone(), limits(), end()]);
        let got = rewritten(&reply, &map, "p:1", &[]);
        assert_eq!(got, joined(&[router.clone(), lowered(), end()]));
    }
}

#[test]
fn leaves_a_malformed_offer_for_the_server_to_refuse() {
    for offer in [
        bson::Bson::Int32(5),
        "zlib".into(),
        vec![5].into(),
        doc! { "0": "zlib" }.into(),
    ] {
        let hello = bytes(&doc! { "hello": 1, "compression": offer, "$db": "admin" });
        for ours in [&[][..], &["zstd"]] {
            assert_eq!(rewrite_request(Doc::at(&hello, 0).unwrap(), ours), Ok(None));
        }
        assert_eq!(facts(Doc::at(&hello, 0).unwrap()).unwrap().compressors, None);
    }
    let absent = bytes(&doc! { "hello": 1, "compression": [bson::Bson::Null, "zlib"] });
    let facts = facts(Doc::at(&absent, 0).unwrap()).unwrap();
    assert_eq!(facts.compressors, Some(vec!["zlib"]), "as the server reads it");
}

#[test]
fn takes_addresses_out_of_an_error() {
    let error = doc! { "ok": 0.0, "errmsg": "cannot reach db1:27017 or db2:27017", "code": 91 };
    let got = rewritten(&error, &map(&[("p:1", Some("db1"))]), "p:1", &[]);
    assert_eq!(
        got.get_str("errmsg").unwrap(),
        "cannot reach p:1 or db2:27017",
        "an address that is no known member's is text"
    );
}

#[test]
fn reads_what_a_client_says_about_itself() {
    let hello = bytes(&client_hello());
    assert_eq!(
        facts(Doc::at(&hello, 0).unwrap()).unwrap(),
        HelloFacts {
            application: Some("ward-round"),
            driver: Some("PyMongo"),
            driver_version: Some("4.20.0"),
            compressors: Some(vec!["zstd", "snappy"]),
            load_balanced: false,
        }
    );
    let silent = bytes(&doc! { "hello": 1, "client": 3, "compression": "zstd" });
    assert_eq!(
        facts(Doc::at(&silent, 0).unwrap()).unwrap(),
        HelloFacts::default()
    );
}

#[test]
fn ignores_names_longer_than_a_server_accepts() {
    let name = |n: usize| bytes(&doc! { "hello": 1, "client": { "application": { "name": "x".repeat(n) } } });
    let at_most = name(128);
    assert!(
        facts(Doc::at(&at_most, 0).unwrap())
            .unwrap()
            .application
            .is_some()
    );
    let too_long = name(129);
    assert!(
        facts(Doc::at(&too_long, 0).unwrap())
            .unwrap()
            .application
            .is_none()
    );
}
