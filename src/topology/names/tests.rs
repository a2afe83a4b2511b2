use ::bson::{Document, doc};

use super::super::hosts::Listener;
use super::*;

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// db1 and db2 have listeners, db3 has none.
fn map() -> HostMap {
    let listener = |advertise: &str, member: &str| Listener {
        advertise: address(advertise),
        member: Some(address(member)),
    };
    HostMap::new(vec![
        listener("proxy:1", "db1.internal:27017"),
        listener("proxy:2", "db2.internal:27018"),
    ])
    .unwrap()
    .knowing(&["db1.internal:27017", "db2.internal:27018", "db3.internal:27017"].map(address))
}

fn renamed(reply: &Document, scope: Scope) -> Document {
    let (map, listener) = (map(), address("proxy:1"));
    let bytes = ::bson::serialize_to_vec(reply).unwrap();
    let names = Names::new(&map, &listener, None, Some("192.0.2.9:5"));
    match names.rewrite(Doc::at(&bytes, 0).unwrap(), scope).unwrap() {
        Some(out) => {
            Doc::at(&out, 0).unwrap().validate().unwrap();
            let out: Document = ::bson::deserialize_from_slice(&out).unwrap();
            assert_ne!(&out, reply, "a change was reported where there is none");
            out
        }
        None => reply.clone(),
    }
}

#[test]
fn replaces_members_in_texts_at_their_boundaries_only() {
    let (map, listener) = (map(), address("proxy:1"));
    let names = Names::new(&map, &listener, None, None);
    for (text, want) in [
        (
            "not primary: ask DB1.internal:27017",
            Some("not primary: ask proxy:1"),
        ),
        ("db2.internal:27018,db1.internal:27017", Some("proxy:2,proxy:1")),
        ("rs0/db1.internal:27017", Some("rs0/proxy:1")),
        ("db1.internal:270170", None),
        ("mydb1.internal:27017", None),
        (
            "my-db1.internal:27017 but db1.internal:27017",
            Some("my-db1.internal:27017 but proxy:1"),
        ),
        ("ünicode db1.internal:27017 ü", Some("ünicode proxy:1 ü")),
        ("db9:27017", None),
        ("no colon", None),
    ] {
        assert_eq!(names.text(text).as_deref(), want, "{text}");
    }
    let hidden = names.text("db3.internal:27017 is down").unwrap();
    assert!(
        hidden.starts_with("hidden-") && hidden.ends_with(".invalid:27017 is down"),
        "{hidden}"
    );
    assert_eq!(
        names.text("DB3.internal:27017").unwrap(),
        names.text("db3.internal:27017").unwrap()
    );
}

/// Of the size that a client can make an error, echoed names included.
#[test]
fn long_texts_are_searched_once() {
    let map = map().routed(true);
    let listener = address("proxy:1");
    let names = Names::new(&map, &listener, None, None);
    let echoed = format!("unknown operator: $[{}", "]:11".repeat(1 << 18));
    assert_eq!(names.text(&echoed), None);
    // Each found again and again, and of two kinds: the others stand far behind.
    let count = 1 << 15;
    let near = "db1.internal:27017, s1.internal:27018, ".repeat(count);
    let shown = names
        .text(&format!("{near} db2.internal:27018 [fe80::1]:27018"))
        .unwrap();
    assert_eq!(shown.matches("proxy:1, hidden-").count(), count);
    assert!(shown.contains(" proxy:2 hidden-") && !shown.contains("internal"));
    // Where what was replaced ends decides what stands behind it.
    let shown = names
        .text("db1.internal:27017-x.internal:27018 s2.internal:27018")
        .unwrap();
    assert!(
        shown.starts_with("proxy:1hidden-") && !shown.contains("internal"),
        "{shown}"
    );
}

#[test]
fn a_listener_that_follows_writes_stands_for_whoever_answers() {
    let open = Listener {
        advertise: address("proxy:9"),
        member: None,
    };
    let map = HostMap::new(vec![open])
        .unwrap()
        .knowing(&["db1:1", "db2:1"].map(address));
    let (listener, me) = (address("proxy:9"), address("db2:1"));
    let names = Names::new(&map, &listener, Some(&me), None);
    assert_eq!(names.text("db2:1 says").unwrap(), "proxy:9 says");
    assert!(names.text("db1:1 says").unwrap().starts_with("hidden-"));
}

#[test]
fn error_texts_lose_addresses_and_everything_else_stays() {
    let reply = doc! {
        "ok": 0.0, "errmsg": "could not reach db1.internal:27017", "code": 6, "note": "db1.internal:27017",
        "writeErrors": [{ "index": 0, "errmsg": "via db2.internal:27018", "keyValue": { "host": "db1.internal:27017" } }],
        "writeConcernError": { "code": 64, "errmsg": "waiting for db1.internal:27017" },
        "value": { "errmsg": "db1.internal:27017" },
    };
    let want = doc! {
        "ok": 0.0, "errmsg": "could not reach proxy:1", "code": 6, "note": "db1.internal:27017",
        "writeErrors": [{ "index": 0, "errmsg": "via proxy:2", "keyValue": { "host": "db1.internal:27017" } }],
        "writeConcernError": { "code": 64, "errmsg": "waiting for proxy:1" },
        "value": { "errmsg": "db1.internal:27017" },
    };
    assert_eq!(renamed(&reply, Scope::Errors), want);
}

/// As a member of a set with three members answers it.
#[test]
fn the_sets_status_and_configuration_name_listeners() {
    let status = renamed(
        &doc! {
            "set": "rs0", "syncSourceHost": "db1.internal:27017", "members": [
                { "_id": 0, "name": "db1.internal:27017", "stateStr": "PRIMARY", "syncSourceHost": "" },
                { "_id": 1, "name": "db2.internal:27018", "syncSourceHost": "db3.internal:27017",
                  "lastHeartbeatMessage": "Error connecting to db1.internal:27017 :: caused by" },
                { "_id": 2, "name": "other.internal:27017" },
            ], "ok": 1.0,
        },
        Scope::Status,
    );
    let members = status.get_array("members").unwrap();
    let name = |n: usize| members[n].as_document().unwrap().get_str("name").unwrap();
    assert_eq!(status.get_str("syncSourceHost").unwrap(), "proxy:1");
    assert_eq!((name(0), name(1)), ("proxy:1", "proxy:2"));
    assert!(name(2).ends_with(".invalid:27017"));
    assert!(!status.to_string().contains("internal"), "{status}");
    assert_eq!(
        members[0]
            .as_document()
            .unwrap()
            .get_str("syncSourceHost")
            .unwrap(),
        ""
    );

    let config = renamed(
        &doc! { "config": { "_id": "rs0", "members": [{ "_id": 0, "host": "db1.internal:27017", "tags": { "dc": "a" } }] }, "ok": 1.0 },
        Scope::Status,
    );
    assert_eq!(
        config,
        doc! { "config": { "_id": "rs0", "members": [{ "_id": 0, "host": "proxy:1", "tags": { "dc": "a" } }] }, "ok": 1.0 }
    );
}

#[test]
fn a_server_that_speaks_of_itself_names_the_listener() {
    let status = doc! {
        "host": "ip-10-0-0-7:27017", "process": "mongod", "pid": 7_i64,
        "repl": { "hosts": ["db1.internal:27017", "db3.internal:27017"], "me": "db1.internal:27017", "primary": "db2.internal:27018" },
        "security": { "SSLServerSubjectName": "CN=db1.internal" }, "connections": { "current": 3 }, "ok": 1.0,
    };
    let got = renamed(&status, Scope::Status);
    assert_eq!(got.get_str("host").unwrap(), "proxy:1");
    let repl = got.get_document("repl").unwrap();
    assert_eq!(repl.get_str("me").unwrap(), "proxy:1");
    assert_eq!(repl.get_str("primary").unwrap(), "proxy:2");
    assert!(
        !got.to_string().contains("internal") && !got.to_string().contains("10-0"),
        "{got}"
    );
    assert_eq!(got.get_str("process").unwrap(), "mongod");

    let host = doc! { "system": { "hostname": "ip-10-0-0-7:27017", "cpuArch": "x86_64", "numCores": 4 }, "os": { "type": "Linux" }, "ok": 1.0 };
    let got = renamed(&host, Scope::Status);
    assert_eq!(
        got.get_document("system").unwrap().get_str("hostname").unwrap(),
        "proxy"
    );

    let options = doc! {
        "argv": ["mongod", "--port", "27017", "--bind_ip=10.0.0.7", "--replSet", "rs0"],
        "parsed": { "net": { "bindIp": "10.0.0.7", "port": 27017 }, "replication": { "replSet": "rs0" } }, "ok": 1.0,
    };
    assert_eq!(
        renamed(&options, Scope::Status),
        doc! {
            "argv": ["mongod", "--port", "hidden", "--bind_ip=hidden", "--replSet", "rs0"],
            "parsed": { "net": { "bindIp": "hidden", "port": 1 }, "replication": { "replSet": "rs0" } }, "ok": 1.0,
        }
    );
    let you = doc! { "you": "10.0.0.1:999", "ok": 1.0 };
    assert_eq!(
        renamed(&you, Scope::Status),
        doc! { "you": "192.0.2.9:5", "ok": 1.0 }
    );
}

#[test]
fn pools_and_shards_name_nobody_else() {
    let pools = doc! {
        "hosts": { "db1.internal:27017": { "inUse": 1 }, "db3.internal:27017": { "inUse": 0 } },
        "replicaSets": { "rs0": { "hosts": [{ "addr": "db2.internal:27018", "ok": true }] } }, "ok": 1.0,
    };
    let got = renamed(&pools, Scope::Status);
    assert!(got.get_document("hosts").unwrap().contains_key("proxy:1"));
    assert!(!got.to_string().contains("internal"), "{got}");
    let shards = doc! { "shards": [{ "_id": "a", "host": "a/s1.internal:27017,db1.internal:27017", "state": 1 }], "ok": 1.0 };
    let got = renamed(&shards, Scope::Status);
    let host = got.get_array("shards").unwrap()[0]
        .as_document()
        .unwrap()
        .get_str("host")
        .unwrap();
    assert!(
        host.starts_with("a/hidden-") && host.ends_with(".invalid:27017,proxy:1"),
        "{host}"
    );
    let map = doc! { "map": { "a": "a/s1.internal:27017" }, "hosts": { "s1.internal:27017": "a" }, "connStrings": { "a/s1.internal:27017": "a" }, "ok": 1.0 };
    let got = renamed(&map, Scope::Status);
    assert!(!got.to_string().contains("internal"), "{got}");
}

#[test]
fn plans_and_index_statistics_name_the_listener() {
    let plan = doc! {
        "queryPlanner": { "parsedQuery": { "host": { "$eq": "db1.internal:27017" } } },
        "command": { "find": "c", "filter": { "host": "db1.internal:27017" } },
        "serverInfo": { "host": "ip-10-0-0-7", "port": 27017, "version": "6.0.5" }, "ok": 1.0,
    };
    let got = renamed(&plan, Scope::Plan);
    let mut want = plan;
    want.insert(
        "serverInfo",
        doc! { "host": "proxy", "port": 1, "version": "6.0.5" },
    );
    assert_eq!(got, want);

    let batch = doc! { "cursor": { "firstBatch": [{ "name": "_id_", "host": "ip-10-0-0-7:27017", "spec": { "host": 1 } }], "id": 0_i64, "ns": "c.p" }, "ok": 1.0 };
    let got = renamed(&batch, Scope::Batch);
    assert!(!got.to_string().contains("10-0"), "{got}");
    assert!(got.to_string().contains("\"spec\": { \"host\": 1 }"), "{got}");
}

#[test]
fn documents_are_not_searched() {
    assert_eq!(scope("find", Asked::Documents), Scope::Errors);
    assert_eq!(scope("aggregate", Asked::Documents), Scope::Errors);
    assert_eq!(scope("aggregate", Asked::Statistics), Scope::Batch);
    assert_eq!(scope("aggregate", Asked::Plan), Scope::Plan);
    let batch = doc! { "cursor": { "firstBatch": [{ "host": "db1.internal:27017", "errmsg": "db1.internal:27017" }] }, "ok": 1.0 };
    assert_eq!(renamed(&batch, Scope::Errors), batch);
}

/// One router is known, the shards behind it are not. Forms from the documentation of each command.
fn behind_a_router(reply: &Document, scope: Scope) -> Document {
    let open = Listener {
        advertise: address("proxy:9"),
        member: None,
    };
    let map = HostMap::new(vec![open])
        .unwrap()
        .knowing(&["router.internal:27017"].map(address))
        .routed(true);
    let listener = address("proxy:9");
    let bytes = ::bson::serialize_to_vec(reply).unwrap();
    let names = Names::new(&map, &listener, None, None);
    let out = names.rewrite(Doc::at(&bytes, 0).unwrap(), scope).unwrap();
    let out = out.unwrap_or(bytes);
    Doc::at(&out, 0).unwrap().validate().unwrap();
    ::bson::deserialize_from_slice(&out).unwrap()
}

#[test]
fn a_routers_errors_name_no_shard() {
    let reply = doc! {
        "ok": 0.0, "code": 6, "codeName": "HostUnreachable",
        "errmsg": "Write failed :: caused by :: Error connecting to s1.internal:27018 (10.0.0.5:27018) :: caused by :: Connection refused",
        "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out; Error details: { s2.internal:27018: 1 } at shard01/s1:27018,s2:27018" },
        "keyValue": { "host": "s1.internal:27018" },
    };
    let got = behind_a_router(&reply, Scope::Errors);
    let text = got.get_str("errmsg").unwrap();
    assert!(
        text.starts_with("Write failed :: caused by :: Error connecting to hidden-"),
        "{text}"
    );
    assert!(
        text.ends_with(".invalid:27017) :: caused by :: Connection refused"),
        "{text}"
    );
    let concern = got
        .get_document("writeConcernError")
        .unwrap()
        .get_str("errmsg")
        .unwrap();
    assert!(
        !concern.contains("internal") && !concern.contains("s1:27018"),
        "{concern}"
    );
    assert_eq!(
        got.get_document("keyValue").unwrap().get_str("host").unwrap(),
        "s1.internal:27018",
        "a document's value"
    );
    let stale = doc! {
        "ok": 0.0, "code": 13388, "codeName": "StaleConfig",
        "errmsg": "Failed to read local metadata. :: caused by :: sharding status of collection clinic.patients is not currently available for reading and needs to be recovered",
        "ns": "clinic.patients", "vReceived": { "e": 1 }, "shardId": "shard01",
    };
    assert_eq!(behind_a_router(&stale, Scope::Errors), stale);
}

#[test]
fn what_each_shard_said_stands_under_no_address() {
    let reply = doc! {
        "raw": {
            "shard01/s1.internal:27018,s2.internal:27018": { "numIndexesBefore": 1, "numIndexesAfter": 2, "commitQuorum": "votingMembers", "ok": 1.0 },
            "shard02/s3:27018": { "ok": 0.0, "errmsg": "cannot reach s4.internal:27018", "code": 6 },
        },
        "ok": 1.0, "$clusterTime": { "clusterTime": 5 },
    };
    let names = {
        let map = HostMap::new(Vec::new()).unwrap().routed(true);
        Names::new(&map, &address("proxy:9"), None, None).concerns(scope("createIndexes", Asked::Documents))
    };
    assert!(names, "also where nothing failed");
    let got = behind_a_router(&reply, scope("createIndexes", Asked::Documents));
    let shown = got.to_string();
    assert!(
        !shown.contains("internal") && !shown.contains("s3:27018"),
        "{shown}"
    );
    let raw = got.get_document("raw").unwrap();
    assert!(
        raw.keys().next().unwrap().starts_with("shard01/hidden-"),
        "{shown}"
    );
    assert_eq!(raw.len(), 2);
    assert_eq!(
        got.get_document("$clusterTime").unwrap(),
        &doc! { "clusterTime": 5 }
    );
    // A document of the application is never below `raw`.
    assert_eq!(scope("findAndModify", Asked::Documents), Scope::Errors);
    assert_eq!(scope("dbStats", Asked::Documents), Scope::Shards);
}

#[test]
fn plans_of_shards_name_no_host() {
    let aggregate = doc! {
        "serverInfo": { "host": "router", "port": 27017 }, "mergeType": "mongos",
        "splitPipeline": { "shardsPart": [{ "$match": { "host": "s1.internal:27018" } }], "mergerPart": [] },
        "shards": {
            "shard01": { "host": "s1.internal:27018", "queryPlanner": { "parsedQuery": { "host": { "$eq": "kept" } } } },
            "shard02": { "host": "s3:27018", "stages": [{ "$cursor": { "host": "kept" } }] },
        }, "ok": 1.0,
    };
    let got = behind_a_router(&aggregate, scope("aggregate", Asked::Plan));
    let shards = got.get_document("shards").unwrap();
    for shard in ["shard01", "shard02"] {
        let host = shards.get_document(shard).unwrap().get_str("host").unwrap();
        assert!(host.starts_with("hidden-"), "{host}");
    }
    assert!(shards.to_string().matches("kept").count() == 2, "{shards}");
    assert_eq!(
        got.get_document("serverInfo").unwrap(),
        &doc! { "host": "proxy", "port": 9 }
    );
    assert_eq!(
        got.get("splitPipeline"),
        aggregate.get("splitPipeline"),
        "the query is the client's own"
    );
    let find = doc! {
        "queryPlanner": { "winningPlan": { "stage": "SHARD_MERGE", "shards": [
            { "shardName": "shard01", "connectionString": "shard01/s1.internal:27018", "serverInfo": { "host": "s1", "port": 27018 } },
        ] } }, "ok": 1.0,
    };
    let shown = behind_a_router(&find, scope("explain", Asked::Documents)).to_string();
    assert!(!shown.contains("internal") && !shown.contains("27018"), "{shown}");
}

#[test]
fn a_routers_status_names_nobody_behind_it() {
    let status = doc! {
        "host": "router.internal:27017", "process": "mongos",
        "sharding": { "configsvrConnectionString": "csrs/c1.internal:27019,c2:27019", "maxChunkSizeInBytes": 134_217_728_i64 },
        "transactions": { "commitTypes": { "noShards": { "initiated": 0_i64 } } }, "ok": 1.0,
    };
    let got = behind_a_router(&status, scope("serverStatus", Asked::Documents));
    let shown = got.to_string();
    assert!(
        !shown.contains("internal") && !shown.contains("c2:27019"),
        "{shown}"
    );
    assert_eq!(got.get_str("host").unwrap(), "proxy:9");
    assert_eq!(got.get_str("process").unwrap(), "mongos");
    for (command, reply) in [
        (
            "isdbgrid",
            doc! { "isdbgrid": 1, "hostname": "router.internal", "ok": 1.0 },
        ),
        (
            "getShardVersion",
            doc! { "configServer": "csrs/c1.internal:27019", "inMemory": "", "ok": 1.0 },
        ),
        (
            "connPoolStats",
            doc! { "pools": { "NetworkInterfaceTL-TaskExecutorPool-0": { "poolInUse": 1, "s1.internal:27018": { "inUse": 1 } } },
            "hosts": { "s1.internal:27018": { "inUse": 1 } }, "replicaSets": { "shard01": { "hosts": [{ "addr": "s1.internal:27018", "ok": true }] } }, "ok": 1.0 },
        ),
    ] {
        let shown = behind_a_router(&reply, scope(command, Asked::Documents)).to_string();
        assert!(!shown.contains("internal"), "{command}: {shown}");
    }
    let plain = doc! { "version": "6.0.5", "localTime": "2026-01-01T10:30:00", "ok": 1.0 };
    assert_eq!(behind_a_router(&plain, Scope::Status), plain);
}
