//! `bulkWrite` of MongoDB 8: each operation under the rules of the namespace it names.

use bson::{Bson, Document, doc};
use fieldveil::event::Outcome as Fate;
use fieldveil::wire::Flags;
use fieldveil::wire::encode::MsgWriter;

use super::common::{Harness, Outcome, is_sealed, to_bytes};
use super::refuses;

/// Beside `c.p`: another protected collection, in another database.
const OTHER: &str = r#"
[[collection]]
namespace = "d.staff"
subject = "number"

[collection.fields]
number = { mode = "deterministic", type = "string", domain = "staff" }
salary = { mode = "random" }
"#;

fn bulk(ops: Vec<Document>) -> Document {
    doc! {
        "bulkWrite": 1,
        "ops": ops,
        "nsInfo": [{ "ns": "c.p" }, { "ns": "d.staff" }, { "ns": "c.open" }],
    }
}

fn run(h: &mut Harness, ops: Vec<Document>) -> Outcome {
    h.command_on("admin", bulk(ops))
}

fn ops(sent: &Document) -> Vec<Document> {
    let ops = sent.get_array("ops").unwrap();
    ops.iter().map(|op| op.as_document().unwrap().clone()).collect()
}

#[track_caller]
fn sent(h: &mut Harness, command: Vec<Document>) -> Vec<Document> {
    let sent = run(h, command).sent();
    assert!(!sent.to_string().contains("SECRET"), "{sent}");
    ops(&sent)
}

#[test]
fn seals_each_operation_under_the_rules_of_its_namespace() {
    let h = &mut Harness::with(OTHER, 1);
    let ops = sent(
        h,
        vec![
            doc! { "insert": 0, "document": { "_id": 1, "nhs": "SECRET", "salary": 3, "ward": "A1" } },
            doc! { "insert": 1, "document": { "_id": 2, "nhs": "open", "salary": "SECRET" } },
            doc! { "insert": 2, "document": { "_id": 3, "nhs": "open", "salary": "open" } },
            doc! { "update": 0, "filter": { "nhs": "SECRET", "ward": "A1" }, "updateMods": { "$set": { "notes": "SECRET", "ward": "B2" } }, "multi": false },
            doc! { "update": 0, "filter": { "nhs": "SECRET" }, "updateMods": { "nhs": "SECRET", "ward": "C3" }, "multi": false, "upsert": true },
            doc! { "update": 1, "filter": { "number": { "$in": ["SECRET", null] } }, "updateMods": [{ "$set": { "salary": "SECRET" } }], "multi": true },
            doc! { "delete": 1, "filter": { "number": { "$ne": "SECRET" } }, "multi": true },
            doc! { "delete": 0, "filter": { "$expr": { "$eq": ["$nhs", "SECRET"] } }, "multi": false },
        ],
    );
    let get = |n: usize, part: &str| ops[n].get_document(part).unwrap();
    assert!(is_sealed(get(0, "document").get("nhs")));
    assert_eq!(get(0, "document").get_i32("salary").unwrap(), 3);
    assert!(is_sealed(get(1, "document").get("salary")));
    assert_eq!(get(1, "document").get_str("nhs").unwrap(), "open");
    assert_eq!(
        ops[2],
        doc! { "insert": 2, "document": { "_id": 3, "nhs": "open", "salary": "open" } }
    );
    assert!(is_sealed(get(3, "filter").get("nhs")));
    assert!(is_sealed(
        get(3, "updateMods").get_document("$set").unwrap().get("notes")
    ));
    assert!(is_sealed(get(4, "updateMods").get("nhs")));
    let listed = get(5, "filter")
        .get_document("number")
        .unwrap()
        .get_array("$in")
        .unwrap();
    assert!(is_sealed(listed.first()) && listed[1] == Bson::Null);
    let stage = ops[5].get_array("updateMods").unwrap()[0].as_document().unwrap();
    assert!(is_sealed(stage.get_document("$set").unwrap().get("salary")));
    assert!(is_sealed(
        get(6, "filter").get_document("number").unwrap().get("$ne")
    ));
}

/// A frame with `ops` and `nsInfo` as document sequences, as drivers send them.
fn sequences(order: &[&str]) -> Vec<u8> {
    let body = to_bytes(
        &doc! { "bulkWrite": 1, "ordered": true, "errorsOnly": true, "comment": "SECRET", "$db": "admin" },
    );
    let operations = [
        doc! { "insert": 1, "document": { "nhs": "SECRET", "contacts": [{ "phone": "SECRET" }] } },
        doc! { "insert": 0, "document": { "nhs": "open" } },
        doc! { "update": 1, "filter": { "contacts": { "$elemMatch": { "phone": "SECRET" } } }, "multi": false,
        "updateMods": { "$set": { "contacts.$[c].phone": "SECRET" } }, "arrayFilters": [{ "c.phone": "SECRET" }] },
    ];
    let namespaces = [doc! { "ns": "c.open" }, doc! { "ns": "c.p" }];
    order
        .iter()
        .fold(
            MsgWriter::new(1, 0, Flags::from_bits(0)),
            |writer, part| match *part {
                "body" => writer.body(&body),
                "ops" => writer.sequence("ops", &operations.iter().flat_map(to_bytes).collect::<Vec<u8>>()),
                _ => writer.sequence(
                    "nsInfo",
                    &namespaces.iter().flat_map(to_bytes).collect::<Vec<u8>>(),
                ),
            },
        )
        .finish()
        .unwrap()
}

#[test]
fn seals_operations_in_document_sequences_in_any_order() {
    for order in [
        ["body", "ops", "nsInfo"],
        ["body", "nsInfo", "ops"],
        ["nsInfo", "ops", "body"],
        ["ops", "body", "nsInfo"],
    ] {
        let mut h = Harness::new(1);
        let raw = h.raw(&sequences(&order));
        assert!(!raw.is_empty(), "{order:?} was refused");
        let text = String::from_utf8_lossy(&raw);
        assert!(!text.contains("SECRET") && text.contains("open"), "{order:?}");
        // Five values: nhs, two phones, the condition and the array filter.
        let envelopes = raw.windows(3).filter(|w| *w == [0x80, 1, 1]).count();
        assert_eq!(envelopes, 5, "{order:?}");
    }
}

#[test]
fn forwards_as_the_same_bytes_where_no_namespace_is_protected() {
    let mut h = Harness::new(1);
    let frame = MsgWriter::new(1, 0, Flags::from_bits(0))
        .body(&to_bytes(&doc! {
            "bulkWrite": 1, "ops": [{ "insert": 0, "document": { "nhs": "open" }, "future": 1 }],
            "nsInfo": [{ "ns": "c.open", "future": 1 }], "comment": "kept", "$db": "admin",
        }))
        .finish()
        .unwrap();
    assert_eq!(h.raw(&frame), frame);
}

#[test]
fn rejects_operations_that_cannot_be_planned() {
    let filter = doc! { "nhs": "x" };
    for (op, mentions) in [
        (
            doc! { "delete": 0, "filter": { "nhs": { "$gt": "SECRET" } } },
            &["'nhs'", "$gt"][..],
        ),
        (
            doc! { "delete": 0, "filter": { "notes": "SECRET" } },
            &["'notes'"],
        ),
        (
            doc! { "delete": 0, "filter": filter.clone(), "future": "SECRET" },
            &["'future'"],
        ),
        (
            doc! { "delete": 0, "filter": filter.clone(), "return": true },
            &["'return'"],
        ),
        (
            doc! { "delete": 0, "filter": { "nhs": "SECRET" }, "collation": { "locale": "en", "strength": 2 } },
            &["'nhs'", "collation"],
        ),
        (doc! { "delete": 7, "filter": filter.clone() }, &["nsInfo"]),
        (doc! { "delete": -1, "filter": filter.clone() }, &["nsInfo"]),
        (doc! { "delete": "c.p", "filter": filter.clone() }, &["nsInfo"]),
        (doc! { "delete": 0, "filter": "SECRET" }, &["'filter'"]),
        (
            doc! { "filter": filter.clone(), "delete": 0 },
            &["insert, update, delete"],
        ),
        (doc! {}, &["insert, update, delete"]),
        (doc! { "insert": 0, "document": { "nhs": 5 } }, &["'nhs'", "int"]),
        (doc! { "insert": 0, "document": ["SECRET"] }, &["'document'"]),
        (doc! { "insert": 0, "document": {}, "update": 2 }, &["'update'"]),
        (
            doc! { "update": 0, "filter": filter.clone(), "updateMods": { "$inc": { "age": 1 } } },
            &["'age'", "$inc"],
        ),
        (
            doc! { "update": 0, "filter": filter.clone(), "updateMods": [{ "$set": { "nhs": "$ward" } }] },
            &["'nhs'"],
        ),
        (
            doc! { "update": 0, "filter": filter.clone(), "updateMods": { "$set": { "x": 1 } }, "sort": { "nhs": 1 } },
            &["'nhs'", "sort"],
        ),
        (
            doc! { "update": 0, "filter": filter.clone(), "updateMods": { "$set": { "contacts.$[c].kind": 1 } }, "arrayFilters": [{ "c.phone": { "$gt": "SECRET" } }] },
            &["$gt"],
        ),
        (
            doc! { "update": 0, "filter": filter.clone(), "updateMods": [{ "$set": { "nhs": "$$v" } }], "constants": { "v": "SECRET" } },
            &["'nhs'"],
        ),
        (
            doc! { "update": 0, "filter": filter, "updateMods": { "$set": { "x": 1 } }, "constants": { "v": "SECRET" } },
            &["'constants'"],
        ),
    ] {
        refuses(run(&mut Harness::with(OTHER, 1), vec![op]), mentions);
    }
}

#[test]
fn rejects_commands_whose_namespaces_cannot_be_told() {
    let command = |ns: Bson| doc! { "bulkWrite": 1, "ops": [{ "insert": 0, "document": { "nhs": "SECRET" } }], "nsInfo": ns };
    let entry = |entry: Document| Bson::Array(vec![entry.into()]);
    for (ns, mentions) in [
        (entry(doc! { "ns": 5 }), "ns"),
        (entry(doc! { "ns": "nodot" }), "ns"),
        (entry(doc! { "collection": "SECRET" }), "ns"),
        (Bson::Array(vec!["SECRET".into()]), "nsInfo"),
        (
            entry(doc! { "ns": "c.p", "encryptionInformation": { "x": "SECRET" } }),
            "encryptionInformation",
        ),
        (entry(doc! { "ns": "c.p", "future": "SECRET" }), "future"),
    ] {
        refuses(Harness::new(1).command_on("admin", command(ns)), &[mentions]);
    }
    let mut odd = bulk(vec![doc! { "insert": 0, "document": { "nhs": "SECRET" } }]);
    odd.insert("future", "SECRET");
    refuses(Harness::new(1).command_on("admin", odd), &["'future'"]);
    refuses(
        Harness::new(1).command_on("admin", doc! { "explain": bulk(vec![]) }),
        &["bulkWrite"],
    );
}

#[test]
fn rejects_bulk_writes_to_a_view_over_a_protected_collection() {
    let mut h = Harness::new(1);
    h.views(&[("v", "p", Vec::new())]);
    let command = doc! { "bulkWrite": 1, "ops": [{ "delete": 0, "filter": { "nhs": "SECRET" } }], "nsInfo": [{ "ns": "c.v" }] };
    refuses(h.command_on("admin", command), &["view", "'c.v'"]);
}

#[test]
fn refuses_a_search_under_the_default_collation_of_its_collection() {
    let mut h = Harness::with(OTHER, 1);
    h.found
        .collated
        .insert(fieldveil::name::Namespace::new("d", "staff").unwrap());
    refuses(
        run(
            &mut h,
            vec![doc! { "delete": 1, "filter": { "number": "SECRET" } }],
        ),
        &["'number'", "collation"],
    );
    let simple = doc! { "delete": 1, "filter": { "number": "SECRET" }, "collation": { "locale": "simple" } };
    sent(&mut h, vec![simple]);
    sent(&mut h, vec![doc! { "delete": 0, "filter": { "nhs": "SECRET" } }]);
}

#[test]
fn takes_comments_out_and_keeps_the_options() {
    let mut command = bulk(vec![doc! { "insert": 0, "document": { "nhs": "SECRET" } }]);
    command.extend(doc! {
        "comment": "SECRET", "ordered": false, "errorsOnly": true, "bypassDocumentValidation": true,
        "let": { "w": 1 }, "cursor": { "batchSize": 5 }, "writeConcern": { "w": 1 }, "txnNumber": 3_i64, "lsid": { "id": 1 },
    });
    let sent = Harness::new(1).command_on("admin", command).sent();
    assert!(!sent.to_string().contains("SECRET") && !sent.contains_key("comment"));
    for kept in [
        "ordered",
        "errorsOnly",
        "bypassDocumentValidation",
        "let",
        "cursor",
        "writeConcern",
        "txnNumber",
        "lsid",
    ] {
        assert!(sent.contains_key(kept), "{kept}");
    }
}

#[test]
fn looks_for_every_stored_form_and_stores_one_on_upsert() {
    let ops = sent(
        &mut Harness::new(2),
        vec![
            doc! { "update": 0, "filter": { "nhs": "SECRET" }, "updateMods": { "$set": { "x": 1 } }, "multi": false, "upsert": true },
            doc! { "delete": 0, "filter": { "nhs": { "$ne": "SECRET" } }, "multi": true },
        ],
    );
    let forms = ops[0]
        .get_document("filter")
        .unwrap()
        .get_document("nhs")
        .unwrap();
    assert_eq!(forms.get_array("$in").unwrap().len(), 2);
    let added = ops[0]
        .get_document("updateMods")
        .unwrap()
        .get_document("$setOnInsert")
        .unwrap();
    assert!(is_sealed(added.get("nhs")));
    let forms = ops[1]
        .get_document("filter")
        .unwrap()
        .get_document("nhs")
        .unwrap();
    assert_eq!(forms.get_array("$nin").unwrap().len(), 2);
}

#[test]
fn opens_and_scrubs_the_fates_of_the_operations() {
    let mut h = Harness::new(1);
    let sealed = sent(
        &mut h,
        vec![doc! { "insert": 0, "document": { "nhs": "SECRET" } }],
    );
    let sealed = sealed[0]
        .get_document("document")
        .unwrap()
        .get("nhs")
        .unwrap()
        .clone();
    let read = h.reply(doc! {
        "cursor": { "id": 0_i64, "ns": "admin.$cmd.bulkWrite", "firstBatch": [
            { "ok": 1.0, "idx": 0, "n": 1 },
            { "ok": 0.0, "idx": 1, "code": 11000, "n": 0,
              "errmsg": "E11000 duplicate key error collection: c.p index: nhs_1 dup key: { nhs: BinData(128, 0101AB) }",
              "keyPattern": { "nhs": 1 }, "keyValue": { "nhs": sealed } },
        ] },
        "nErrors": 1, "nInserted": 1, "nMatched": 0, "nModified": 0, "nUpserted": 0, "nDeleted": 0, "ok": 1,
    });
    let fates = read
        .get_document("cursor")
        .unwrap()
        .get_array("firstBatch")
        .unwrap();
    let failed = fates[1].as_document().unwrap();
    assert!(
        failed
            .get_str("errmsg")
            .unwrap()
            .ends_with("dup key: { nhs: <protected> }")
    );
    assert_eq!(
        failed.get_document("keyValue").unwrap().get_str("nhs").unwrap(),
        "<protected>"
    );
    let done = h.done();
    let event = done[0].event.as_ref().unwrap();
    assert_eq!(event.outcome, Fate::ServerError { code: 11000 });
    assert_eq!((event.documents_in, event.documents_out), (1, 0));
}

#[test]
fn reports_namespaces_fields_and_subjects_of_all_operations() {
    let mut h = Harness::with(OTHER, 1);
    sent(
        &mut h,
        vec![
            doc! { "insert": 1, "document": { "number": "SECRET-1", "salary": 5 } },
            doc! { "insert": 0, "document": { "nhs": "SECRET-2" } },
            doc! { "delete": 2, "filter": { "nhs": "open" } },
        ],
    );
    h.reply(doc! { "ok": 1, "nErrors": 0, "cursor": { "id": 0_i64, "firstBatch": [], "ns": "admin.$cmd.bulkWrite" } });
    let done = h.done();
    let event = done[0].event.as_ref().unwrap();
    assert_eq!((event.command, &*event.namespace), ("bulkWrite", "c.p,d.staff"));
    assert_eq!(
        (event.sealed, event.documents_in, event.subjects.len()),
        (3, 2, 2)
    );
    for path in ["nhs", "number", "salary"] {
        assert!(event.fields.iter().any(|field| **field == *path), "{path}");
    }
    assert_eq!(event.outcome, Fate::Ok);
}
