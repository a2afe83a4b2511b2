//! Commands that no driver sends: forms that the server reads in another way than a careless reader would, and forms
//! whose cost grows faster than their size. Each was found by looking for a way past the planners.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod common;

use std::time::{Duration, Instant};

use bson::{Bson, Document, doc, oid::ObjectId};
use common::{Harness, Outcome, is_sealed, to_bytes};
use fieldveil::wire::encode;

/// A document of these elements in this order; names may repeat.
fn raw(elements: &[Document]) -> Vec<u8> {
    let inner: Vec<u8> = elements
        .iter()
        .flat_map(|element| {
            let bytes = to_bytes(element);
            bytes[4..bytes.len() - 1].to_vec()
        })
        .collect();
    let length = i32::try_from(inner.len() + 5).unwrap();
    [&length.to_le_bytes()[..], &inner, &[0]].concat()
}

fn send(body: &[u8]) -> Outcome {
    Harness::new(1).frame(&encode::command(1, body).unwrap())
}

#[track_caller]
fn refuses(outcome: Outcome, mentions: &str) {
    let text = outcome.refused();
    assert!(text.contains(mentions), "'{mentions}' is missing in: {text}");
    assert!(!text.contains("SECRET"), "a value leaked: {text}");
}

#[test]
fn rejects_a_collection_named_by_a_symbol_or_a_uuid() {
    let uuid = Bson::Binary(bson::Binary {
        subtype: bson::spec::BinarySubtype::Uuid,
        bytes: vec![7; 16],
    });
    for name in [Bson::Symbol("p".to_owned()), uuid] {
        for command in [
            "insert",
            "find",
            "update",
            "count",
            "distinct",
            "findAndModify",
            "renameCollection",
        ] {
            let mut body = Document::new();
            body.insert(command, name.clone());
            body.insert("filter", doc! { "nhs": "SECRET" });
            refuses(Harness::new(1).command(body.clone()), "name it by a string");
            refuses(
                Harness::new(1).command(doc! { "explain": body }),
                "name it by a string",
            );
        }
    }
}

#[test]
fn rejects_a_database_named_twice() {
    for (first, second) in [("c", "other"), ("other", "c")] {
        let body = raw(&[
            doc! { "insert": "p" },
            doc! { "documents": [{ "nhs": "SECRET" }] },
            doc! { "$db": first },
            doc! { "$db": second },
        ]);
        refuses(send(&body), "$db");
    }
}

#[test]
fn rejects_a_command_with_a_field_given_twice_on_whatever_namespace() {
    let secret = doc! { "documents": [{ "nhs": "SECRET" }] };
    let db = doc! { "$db": "c" };
    let elsewhere = doc! { "$db": "d" };
    for (parts, twice) in [
        // Which of the two would be planned is not which of the two the server would print.
        (
            vec![
                doc! { "insert": "free" },
                doc! { "insert": "p" },
                secret.clone(),
                db.clone(),
            ],
            "insert",
        ),
        (
            vec![
                doc! { "insert": "free" },
                secret.clone(),
                secret.clone(),
                db.clone(),
            ],
            "documents",
        ),
        (
            vec![doc! { "insert": "free" }, secret.clone(), secret, elsewhere],
            "documents",
        ),
        (
            vec![
                doc! { "getMore": 1_i64 },
                doc! { "collection": "p" },
                doc! { "collection": "free" },
                db.clone(),
            ],
            "collection",
        ),
        (
            vec![
                doc! { "ping": 1 },
                doc! { "comment": "SECRET" },
                doc! { "comment": "SECRET" },
                db.clone(),
            ],
            "comment",
        ),
        (
            vec![
                doc! { "hello": 1 },
                doc! { "odd name": 1 },
                doc! { "odd name": 1 },
                db,
            ],
            "stands twice",
        ),
    ] {
        let outcome = send(&raw(&parts));
        assert!(
            matches!(&outcome, Outcome::Answered(reply) if reply.get_i32("code").ok() == Some(40413)),
            "{outcome:?}"
        );
        let text = outcome.refused();
        assert!(text.contains(twice), "'{twice}' is missing in: {text}");
    }
}

#[test]
fn rejects_an_explained_command_with_a_field_given_twice() {
    let inner = raw(&[
        doc! { "find": "free" },
        doc! { "find": "p" },
        doc! { "filter": { "nhs": "SECRET" } },
    ]);
    let mut body = fieldveil::bson::build::Builder::new();
    body.raw(3, "explain", &inner).string("$db", "c");
    refuses(send(&body.finish()), "find");
}

#[test]
fn rejects_operands_of_a_form_that_the_server_would_print() {
    let mut h = Harness::new(1);
    for operator in ["$and", "$or", "$nor"] {
        let filter = doc! { operator: { "nhs": "SECRET" } };
        refuses(
            h.command(doc! { "find": "p", "filter": filter.clone() }),
            operator,
        );
        refuses(
            h.command(doc! { "delete": "p", "deletes": [{ "q": filter.clone(), "limit": 1 }] }),
            operator,
        );
        refuses(
            h.command(doc! { "aggregate": "p", "pipeline": [{ "$match": filter }], "cursor": {} }),
            operator,
        );
    }
    for update in [
        doc! { "$set": { "name": 1 }, "nhs": "SECRET" },
        doc! { "$set": { "name": 1 }, "address": { "line1": "SECRET" } },
        doc! { "$set": "SECRET" },
        doc! { "$set": [{ "nhs": "SECRET" }] },
    ] {
        refuses(
            h.command(doc! { "update": "p", "updates": [{ "q": {}, "u": update.clone() }] }),
            "update: ",
        );
        refuses(
            h.command(doc! { "findAndModify": "p", "query": {}, "update": update }),
            "update: ",
        );
    }
    let index =
        doc! { "key": { "a": 1 }, "name": "a", "partialFilterExpression": { "$and": { "nhs": "SECRET" } } };
    refuses(
        h.command(doc! { "createIndexes": "p", "indexes": [index] }),
        "$and",
    );
}

#[test]
fn rejects_an_explained_explain() {
    let inner = doc! { "find": "p", "filter": { "nhs": "SECRET" } };
    refuses(
        Harness::new(1).command(doc! { "explain": { "explain": inner } }),
        "explain",
    );
}

#[test]
fn rejects_values_in_commands_about_a_whole_collection() {
    let mut h = Harness::new(1);
    refuses(
        h.command(doc! { "planCacheClear": "p", "query": { "nhs": "SECRET" } }),
        "query",
    );
    refuses(
        h.command(doc! { "profile": 2, "filter": { "command.filter.nhs": "SECRET" } }),
        "filter",
    );
    let bounds = doc! { "dataSize": "c.p", "keyPattern": { "nhs": 1 }, "min": { "nhs": "SECRET" }, "max": { "nhs": "t" } };
    refuses(h.command(bounds), "keyPattern");
    h.command(doc! { "planCacheClear": "p" }).sent();
    h.command(doc! { "profile": -1 }).sent();
    h.command(doc! { "dataSize": "c.p" }).sent();
}

#[test]
fn rejects_a_map_reduce_into_a_protected_collection_of_another_database() {
    let body = raw(&[
        doc! { "mapReduce": "x" },
        doc! { "out": { "merge": "p", "db": "c" } },
        doc! { "$db": "elsewhere" },
    ]);
    refuses(send(&body), "mapReduce");
}

#[test]
fn rejects_pipelines_that_look_at_other_clients_operations() {
    for stage in [
        doc! { "$unionWith": "system.profile" },
        doc! { "$unionWith": { "coll": "system.profile" } },
        doc! { "$lookup": { "from": "system.profile", "pipeline": [], "as": "x" } },
        doc! { "$facet": { "a": [{ "$unionWith": { "db": "local", "coll": "oplog.rs" } }] } },
    ] {
        for collection in ["p", "unprotected"] {
            let command = doc! { "aggregate": collection, "pipeline": [stage.clone()], "cursor": {} };
            refuses(Harness::new(1).command(command), "other clients");
        }
    }
}

#[test]
fn drops_the_comment_of_forwarded_commands() {
    let mut h = Harness::new(1);
    for command in [
        doc! { "getMore": 5_i64, "collection": "p", "comment": "SECRET" },
        doc! { "listIndexes": "p", "comment": { "nhs": "SECRET" } },
        doc! { "ping": 1, "comment": "SECRET" },
    ] {
        let sent = h.command(command).sent();
        assert!(!sent.contains_key("comment"), "{sent}");
        assert!(sent.contains_key("$db"), "{sent}");
    }
}

#[test]
fn rejects_an_identifier_of_two_arrays_in_a_filter_on_one() {
    for set in [
        doc! { "contacts.$[x].phone": "a", "labels.$[x].n": 1 },
        doc! { "labels.$[x].n": 1, "contacts.$[x].phone": "a" },
    ] {
        let statement = doc! { "q": {}, "u": { "$set": set }, "arrayFilters": [{ "x.phone": "SECRET" }] };
        refuses(
            Harness::new(1).command(doc! { "update": "p", "updates": [statement] }),
            "x.phone",
        );
    }
}

#[test]
fn seals_below_numeric_keys_as_below_indexes() {
    let mut h = Harness::new(1);
    let keyed = doc! { "_id": 1, "contacts": { "0": { "phone": "SECRET" }, "2": { "phone": "SECRET" } } };
    let (stored, read) = h.round_trip(vec![keyed.clone()]).unwrap();
    let contacts = stored[0].get_document("contacts").unwrap();
    for key in ["0", "2"] {
        assert!(
            is_sealed(contacts.get_document(key).unwrap().get("phone")),
            "{contacts}"
        );
    }
    assert_eq!(read[0], keyed);
    refuses(
        h.command(doc! { "insert": "p", "documents": [{ "contacts": { "0.phone": "SECRET" } }] }),
        "0.phone",
    );
}

#[test]
fn rejects_more_fields_than_any_command_has() {
    let mut body = doc! { "find": "p" };
    for n in 0..200_000 {
        body.insert(format!("f{n}"), 1);
    }
    let begun = Instant::now();
    refuses(Harness::new(1).command(body), "fields");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn reads_the_variables_of_a_batch_once() {
    let mut h = Harness::new(1);
    let bound: Document = (0..900).map(|n| (format!("v{n}"), Bson::Int32(1))).collect();
    let statements: Vec<Document> = (0..20_000)
        .map(|_| doc! { "q": {}, "u": { "$set": { "name": 1 } } })
        .collect();
    let begun = Instant::now();
    h.command(doc! { "update": "p", "let": bound, "updates": statements })
        .sent();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn answers_a_document_that_outgrows_its_bound_as_too_large() {
    let contacts: Vec<Bson> = (0..220_000)
        .map(|_| Bson::Document(doc! { "phone": "x".repeat(20) }))
        .collect();
    refuses(
        Harness::new(1)
            .command(doc! { "insert": "p", "documents": [{ "_id": ObjectId::new(), "contacts": contacts }] }),
        "larger than the server accepts",
    );
}

#[test]
fn leaves_the_principal_alone_where_another_database_logs_out() {
    let mut h = Harness::new(1);
    let log_in = |h: &mut Harness| {
        let payload = Bson::Binary(bson::Binary {
            subtype: bson::spec::BinarySubtype::Generic,
            bytes: b"n,,n=ward,r=abc".to_vec(),
        });
        h.command(doc! { "saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": payload })
            .sent();
        h.reply(doc! { "ok": 1, "done": true, "conversationId": 1 });
    };
    log_in(&mut h);
    assert_eq!(h.session.principal().map(|p| &**p), Some("ward@c"));
    let elsewhere = raw(&[doc! { "logout": 1 }, doc! { "$db": "elsewhere" }]);
    h.frame(&encode::command(50, &elsewhere).unwrap()).sent();
    h.reply(doc! { "ok": 1 });
    assert_eq!(h.session.principal().map(|p| &**p), Some("ward@c"));
    h.command(doc! { "logout": 1 }).sent();
    h.reply(doc! { "ok": 0 });
    assert!(h.session.principal().is_some());
    h.command(doc! { "logout": 1 }).sent();
    h.reply(doc! { "ok": 1 });
    assert!(h.session.principal().is_none());
}

#[test]
fn records_a_write_whose_connection_ends_before_its_reply() {
    let mut h = Harness::new(1);
    h.command(doc! { "insert": "p", "documents": [{ "nhs": "a" }] })
        .sent();
    assert!(h.done().is_empty());
    h.end();
    let done = h.done();
    assert_eq!(done.len(), 1);
    let event = done[0].event.as_ref().unwrap();
    assert_eq!((event.command, event.sealed), ("insert", 1));
    assert!(matches!(event.outcome, fieldveil::event::Outcome::Failed { .. }));
    // A monitor's hello is always under way: that is no failure.
    let mut h = Harness::new(1);
    h.command(doc! { "hello": 1 }).sent();
    h.end();
    assert!(h.done().is_empty());
}

#[test]
fn strips_a_speculative_authentication_by_certificate() {
    for start in [
        doc! { "authenticate": 1, "mechanism": "MONGODB-X509", "db": "$external" },
        doc! { "saslStart": 1, "mechanism": "MONGODB-X509", "db": "$external" },
        doc! { "authenticate": 1, "db": "$external" },
    ] {
        let sent = Harness::new(1)
            .command(doc! { "hello": 1, "speculativeAuthenticate": start })
            .sent();
        assert!(!sent.contains_key("speculativeAuthenticate"), "{sent}");
        assert!(sent.contains_key("$db"), "{sent}");
    }
    let start = doc! { "saslStart": 1, "mechanism": "SCRAM-SHA-256", "db": "admin" };
    let sent = Harness::new(1)
        .command(doc! { "hello": 1, "speculativeAuthenticate": start })
        .sent();
    assert!(sent.contains_key("speculativeAuthenticate"), "{sent}");
}

#[test]
fn rejects_what_is_protected_before_a_login_and_names_nothing() {
    let mut h = Harness::new(1);
    h.login = true;
    let protected = [
        doc! { "insert": "p", "documents": [{ "nhs": "SECRET" }] },
        doc! { "find": "p", "filter": { "nhs": "SECRET" } },
        doc! { "find": "p", "filter": { "nhs": { "$gt": "SECRET" } } },
        doc! { "aggregate": "free", "pipeline": [{ "$lookup": { "from": "p", "pipeline": [{ "$match": { "nhs": "SECRET" } }], "as": "c" } }], "cursor": {} },
        doc! { "explain": { "find": "p", "filter": { "nhs": "SECRET" } } },
        doc! { "getMore": 1_i64, "collection": "p" },
    ];
    for command in &protected {
        let outcome = h.command(command.clone());
        assert!(
            matches!(&outcome, Outcome::Answered(reply) if reply.get_i32("code").ok() == Some(13)
                && reply.get_str("codeName").ok() == Some("Unauthorized")),
            "{outcome:?}"
        );
        let text = outcome.refused();
        assert!(!text.contains("nhs") && !text.contains("SECRET"), "{text}");
    }
    // What is not protected is the server's to answer.
    h.command(doc! { "find": "free", "filter": {} }).sent();
    h.command(doc! { "ping": 1 }).sent();

    // A step is not a login; the server's `done` is.
    let start = doc! { "saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": "n,,n=u,r=x" };
    h.command(start.clone()).sent();
    h.reply(doc! { "ok": 1, "done": false, "conversationId": 1, "payload": "" });
    refuses(h.command(protected[1].clone()), "requires authentication");
    h.command(doc! { "saslContinue": 1, "conversationId": 1, "payload": "" })
        .sent();
    h.reply(doc! { "ok": 0, "code": 18 });
    refuses(h.command(protected[1].clone()), "requires authentication");
    h.command(start).sent();
    h.reply(doc! { "ok": 1, "done": true, "conversationId": 1, "payload": "" });
    h.command(protected[1].clone()).sent();
    h.command(doc! { "logout": 1 }).sent();
    h.reply(doc! { "ok": 1 });
    refuses(h.command(protected[1].clone()), "requires authentication");
}

/// The first message of a conversation in which the client names itself.
fn scram(user: &str) -> Document {
    let payload = bson::Binary {
        subtype: bson::spec::BinarySubtype::Generic,
        bytes: format!("n,,n={user},r=abc").into_bytes(),
    };
    doc! { "saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": payload }
}

#[test]
fn believes_no_name_from_a_conversation_that_another_one_replaced() {
    let mut harness = Harness::new(1);
    let principal = |harness: &Harness| harness.session.principal().map(ToString::to_string);
    harness.command_on("admin", scram("alice"));
    harness.reply(doc! { "conversationId": 1, "done": false, "ok": 1 });
    // It says who the client is in a way that only the server can read.
    harness.command_on("admin", doc! { "saslStart": 1, "mechanism": "MONGODB-OIDC" });
    harness.reply(doc! { "conversationId": 1, "done": true, "ok": 1 });
    assert_eq!(principal(&harness), None);

    harness.command_on("admin", scram("bob"));
    harness.reply(doc! { "conversationId": 1, "done": true, "ok": 1 });
    assert_eq!(principal(&harness).as_deref(), Some("bob@admin"));
    harness.command_on("admin", doc! { "saslStart": 1, "mechanism": "MONGODB-OIDC" });
    harness.reply(doc! { "conversationId": 1, "done": true, "ok": 1 });
    assert_eq!(
        principal(&harness),
        None,
        "whoever it is now, it is not known to be bob"
    );
}

#[test]
fn takes_nothing_behind_a_login_before_the_server_has_answered_it() {
    let mut harness = Harness::new(1);
    assert!(harness.session.takes_requests());
    harness.command_on("admin", scram("alice"));
    assert!(!harness.session.takes_requests());
    harness.reply(doc! { "conversationId": 1, "done": false, "ok": 1 });
    assert!(harness.session.takes_requests());
    harness.command_on("admin", doc! { "ping": 1 });
    assert!(harness.session.takes_requests());
}

#[test]
fn refuses_a_login_that_waits_for_news() {
    let mut harness = Harness::new(1);
    let hello = doc! { "hello": 1, "topologyVersion": { "processId": ObjectId::new(), "counter": 1_i64 }, "maxAwaitTimeMS": 1_000_000_000_i64, "speculativeAuthenticate": scram("alice") };
    refuses(harness.command_on("admin", hello), "maxAwaitTimeMS");
    assert!(harness.session.takes_requests());
}

/// A statement of a transaction that is refused here.
fn statement() -> Document {
    let id = Bson::Binary(bson::Binary {
        subtype: bson::spec::BinarySubtype::Uuid,
        bytes: vec![7; 16],
    });
    doc! { "count": "p", "query": { "nhs": { "$gt": "SECRET" } }, "lsid": { "id": id }, "txnNumber": 1_i64, "autocommit": false }
}

#[test]
fn answers_a_refused_statement_only_once_its_transaction_is_certainly_over() {
    let standalone = doc! { "ok": 0, "code": 20, "errmsg": "Transaction numbers are only allowed on a replica set member or mongos" };
    for over in [
        doc! { "ok": 1 },
        doc! { "ok": 0, "code": 251 },
        doc! { "ok": 0, "code": 256 },
        doc! { "ok": 0, "code": 225 },
        standalone,
    ] {
        let mut harness = Harness::new(1);
        let sent = harness.command(statement()).sent();
        assert!(sent.contains_key("abortTransaction"), "{sent}");
        let answer = harness.reply(over);
        assert!(
            answer.get_str("errmsg").unwrap().starts_with("fieldveil: "),
            "{answer}"
        );
    }
    for alive in [
        doc! { "ok": 0, "code": 13 },
        doc! { "ok": 0, "code": 20, "errmsg": "something else" },
        doc! { "ok": 0, "code": 24 },
        doc! { "ok": 0, "code": 267 },
        doc! { "ok": 0, "code": 11602 },
        doc! { "ok": 0 },
        doc! {},
    ] {
        let mut harness = Harness::new(1);
        harness.command(statement()).sent();
        assert!(harness.try_reply(alive.clone()).is_err(), "{alive}");
    }
}

#[test]
fn keeps_nothing_of_a_session_that_no_server_would_take() {
    let mut statement = statement();
    statement.insert("lsid", doc! { "id": "SECRET".repeat(1000) });
    refuses(Harness::new(1).command(statement), "nhs");
}

#[test]
fn ends_no_transaction_behind_a_login() {
    let mut harness = Harness::new(1);
    let sent = harness
        .command(doc! { "insert": "p", "documents": [{ "nhs": "a" }] })
        .sent();
    let mut broken = sent.get_array("documents").unwrap()[0]
        .as_document()
        .unwrap()
        .clone();
    let Some(Bson::Binary(sealed)) = broken.get_mut("nhs") else {
        panic!("it is not sealed: {broken}");
    };
    *sealed.bytes.last_mut().unwrap() ^= 1;
    let reply = doc! { "value": broken, "ok": 1 };
    let mut modify = doc! { "findAndModify": "p", "query": { "x": 1 }, "update": { "$set": { "x": 2 } } };
    for (key, value) in statement().into_iter().skip(2) {
        modify.insert(key, value);
    }

    harness.command(modify.clone()).sent();
    assert!(harness.try_reply(reply.clone()).unwrap().is_empty());
    let answer = harness.reply(doc! { "ok": 1 });
    assert!(
        answer.get_str("errmsg").unwrap().starts_with("fieldveil: "),
        "{answer}"
    );

    // The server would look for it among the transactions of whoever that is.
    harness.command(modify).sent();
    let first = harness.command_behind(scram("bob"));
    assert!(harness.try_reply_to(first, reply).is_err());
}
