//! Updates that are pipelines: what is sealed in them, and what is refused.

use bson::{Bson, Document, doc};

use super::common::{Harness, is_sealed};
use super::{refuses, update};

fn sent(stages: Vec<Document>) -> Vec<Document> {
    let stages: Vec<Bson> = stages.into_iter().map(Bson::from).collect();
    let sent = update(&mut Harness::new(1), doc! { "_id": 1 }, stages, false).sent();
    let statement = sent.get_array("updates").unwrap()[0].as_document().unwrap();
    let stages = statement.get_array("u").unwrap();
    stages.iter().map(|s| s.as_document().unwrap().clone()).collect()
}

fn assigned(stages: &[Document], at: usize) -> &Document {
    stages[at].get_document("$set").unwrap()
}

#[track_caller]
fn is_refused(stages: Vec<Document>, mentions: &[&str]) {
    let stages: Vec<Bson> = stages.into_iter().map(Bson::from).collect();
    refuses(update(&mut Harness::new(1), doc! {}, stages, false), mentions);
}

#[test]
fn seals_constants_that_a_pipeline_assigns() {
    let stages = sent(vec![doc! { "$set": {
        "nhs": "SECRET",
        "age": 5.0,
        "notes": { "$literal": { "text": "SECRET" } },
        "tags": ["SECRET", null],
        "address": { "line1": "SECRET", "city": "Leeds" },
        "contacts": { "$literal": [{ "phone": "SECRET", "kind": "home" }] },
        "ward": "A1",
        "seen": "$$NOW",
    } }]);
    assert!(!format!("{stages:?}").contains("SECRET"));
    let set = assigned(&stages, 0);
    assert!(is_sealed(set.get("nhs")) && is_sealed(set.get("age")));
    assert!(is_sealed(set.get_document("notes").unwrap().get("$literal")));
    let tags = set.get_array("tags").unwrap();
    assert!(is_sealed(tags.first()) && tags[1] == Bson::Null);
    assert!(is_sealed(set.get_document("address").unwrap().get("line1")));
    let contacts = set
        .get_document("contacts")
        .unwrap()
        .get_array("$literal")
        .unwrap();
    assert!(is_sealed(contacts[0].as_document().unwrap().get("phone")));
    assert_eq!(set.get_str("ward").unwrap(), "A1");
    assert_eq!(set.get_str("seen").unwrap(), "$$NOW");
}

#[test]
fn seals_every_branch_that_a_pipeline_may_assign() {
    let stages = sent(vec![doc! { "$set": {
        "nhs": { "$cond": [{ "$eq": ["$ward", "A1"] }, "SECRET", "$nhs"] },
        "age": { "$switch": { "branches": [{ "case": { "$gt": ["$x", 1] }, "then": 5 }], "default": "$$REMOVE" } },
        "notes": { "$ifNull": ["$notes", "SECRET"] },
        "born": null,
    } }]);
    assert!(!format!("{stages:?}").contains("SECRET"));
    let set = assigned(&stages, 0);
    let cond = set.get_document("nhs").unwrap().get_array("$cond").unwrap();
    assert!(is_sealed(cond.get(1)) && cond[2] == Bson::from("$nhs"));
    let branches = set.get_document("age").unwrap().get_document("$switch").unwrap();
    let branch = branches.get_array("branches").unwrap()[0].as_document().unwrap();
    assert!(is_sealed(branch.get("then")));
    assert!(is_sealed(
        set.get_document("notes")
            .unwrap()
            .get_array("$ifNull")
            .unwrap()
            .get(1)
    ));
    assert_eq!(set.get("born"), Some(&Bson::Null));
}

#[test]
fn seals_what_a_written_out_document_holds() {
    let stages = sent(vec![doc! { "$replaceWith": {
        "_id": "$_id",
        "nhs": "SECRET",
        "notes": "$notes",
        "address": { "city": "$address.city" },
    } }]);
    assert!(is_sealed(
        stages[0].get_document("$replaceWith").unwrap().get("nhs")
    ));
    let stages = sent(vec![doc! { "$replaceRoot": { "newRoot": { "$mergeObjects": [
        "$$ROOT", { "nhs": "SECRET", "ward": "A2", "address": { "line1": "SECRET" } },
    ] } } }]);
    assert!(!format!("{stages:?}").contains("SECRET"));
}

#[test]
fn keeps_pipelines_that_leave_protected_fields_as_they_are() {
    for stages in [
        vec![doc! { "$set": { "x": { "$add": ["$x", 1] }, "nhs": "$nhs" } }],
        vec![doc! { "$unset": ["nhs", "contacts.phone", "x"] }],
        vec![doc! { "$project": { "nhs": 1, "address.line1": 1, "x": 1 } }],
        vec![doc! { "$project": { "notes": 0 } }],
        vec![doc! { "$set": { "copy": "$nhs" } }, doc! { "$unset": "copy" }],
        vec![doc! { "$set": { "known": { "$ne": [{ "$ifNull": ["$notes", null] }, null] } } }],
        vec![
            doc! { "$set": { "contacts": { "$map": { "input": "$contacts", "as": "c", "in": {
            "$mergeObjects": ["$$c", { "kind": "home" }] } } } } },
        ],
        vec![doc! { "$replaceWith": { "ward": "$ward" } }],
    ] {
        assert_eq!(sent(stages.clone()), stages);
    }
}

#[test]
fn seals_constants_that_a_pipeline_compares() {
    let stages = sent(vec![doc! { "$set": { "is": { "$eq": ["$nhs", "SECRET"] } } }]);
    let eq = assigned(&stages, 0)
        .get_document("is")
        .unwrap()
        .get_array("$eq")
        .unwrap();
    assert!(is_sealed(eq.get(1)));
}

#[test]
fn rejects_pipelines_that_would_store_what_its_rule_does_not_want() {
    for (set, mentions) in [
        (
            doc! { "nhs": "$ward" },
            &["pipeline update", "'nhs'", "$unset"][..],
        ),
        (doc! { "nhs": "$$NOW" }, &["'nhs'"]),
        (doc! { "copy": "$nhs" }, &["'nhs'", "'copy'"]),
        (doc! { "nhs": "$notes" }, &["'notes'", "'nhs'"]),
        (doc! { "notes": { "$concat": ["$ward", "SECRET"] } }, &["'notes'"]),
        (doc! { "nhs": { "$toUpper": "$nhs" } }, &["$toUpper", "'nhs'"]),
        (doc! { "age": { "$add": ["$age", 1] } }, &["$add", "'age'"]),
        (doc! { "nhs": { "$cond": [true, "SECRET", "$ward"] } }, &["'nhs'"]),
        (doc! { "nhs": 5 }, &["'nhs'", "int"]),
        (doc! { "notes": { "inner": "SECRET" } }, &["'notes'"]),
        (doc! { "contacts.0.phone": "SECRET" }, &["contacts.phone"]),
        (
            doc! { "contacts": { "$concatArrays": ["$contacts", [{ "phone": "$ward" }]] } },
            &["contacts.phone"],
        ),
        (
            doc! { "tags": { "$map": { "input": "$list", "in": "$$this" } } },
            &["'tags'"],
        ),
        (doc! { "moving": "$nhs" }, &["'nhs'", "'moving'"]),
        (
            doc! { "x": { "$function": { "body": "SECRET", "args": [], "lang": "js" } } },
            &["$function"],
        ),
    ] {
        is_refused(vec![doc! { "$set": set }], mentions);
    }
    is_refused(vec![doc! { "$replaceWith": "$address" }], &["nhs"]);
    is_refused(
        vec![doc! { "$replaceWith": { "other": "$nhs" } }],
        &["'nhs'", "'other'"],
    );
    is_refused(
        vec![doc! { "$project": { "kept": "$contacts" } }],
        &["contacts.phone", "kept"],
    );
    is_refused(vec![doc! { "$match": { "nhs": "SECRET" } }], &["$match"]);
    is_refused(vec![doc! { "$lookup": { "from": "p" } }], &["$lookup"]);
}

#[test]
fn keeps_constants_of_a_pipeline_away_from_protected_paths() {
    let statement = |u: Document, c: Document| {
        doc! { "update": "p", "updates": [{ "q": {}, "u": [u], "c": c }] }
    };
    let mut h = Harness::new(1);
    h.command(statement(doc! { "$set": { "ward": "$$w" } }, doc! { "w": "A1" }))
        .sent();
    refuses(
        h.command(statement(
            doc! { "$set": { "nhs": "$$w" } },
            doc! { "w": "SECRET" },
        )),
        &["'nhs'"],
    );
    let operators = doc! { "update": "p", "updates": [{ "q": {}, "u": { "$set": { "ward": 1 } }, "c": { "w": "SECRET" } }] };
    refuses(h.command(operators), &["'c'"]);
    let mut with_let = doc! { "update": "p", "updates": [{ "q": {}, "u": [{ "$set": { "nhs": "$$w" } }] }] };
    with_let.insert("let", doc! { "w": "SECRET" });
    refuses(h.command(with_let), &["'nhs'"]);
    let forged = bson::Binary {
        subtype: bson::spec::BinarySubtype::UserDefined(0x80),
        bytes: [vec![1, 1], vec![7; 50]].concat(),
    };
    let mut injected = doc! { "update": "p", "updates": [{ "q": {}, "u": [{ "$set": { "ward": "$$w" } }] }] };
    injected.insert("let", doc! { "w": forged });
    refuses(h.command(injected), &["w"]);
}

#[test]
fn plans_the_pipeline_of_find_and_modify_alike() {
    let mut h = Harness::new(1);
    let command = |stage: Document| doc! { "findAndModify": "p", "query": { "nhs": "SECRET" }, "update": [stage], "new": true };
    let sent = h.command(command(doc! { "$set": { "notes": "SECRET" } })).sent();
    assert!(!sent.to_string().contains("SECRET"));
    refuses(
        h.command(command(doc! { "$set": { "notes": "$ward" } })),
        &["'notes'"],
    );
}

#[test]
fn looks_for_every_stored_form_in_a_pipeline_update() {
    let stages: Vec<Bson> =
        vec![doc! { "$set": { "is": { "$eq": ["$nhs", "SECRET"] }, "nhs": "SECRET" } }.into()];
    let sent = update(&mut Harness::new(2), doc! { "_id": 1 }, stages, false)
        .sent()
        .to_string();
    assert!(sent.contains("$in") && !sent.contains("SECRET"), "{sent}");
    // An upsert would take the field from a filter that names two forms of it.
    let stages: Vec<Bson> = vec![doc! { "$set": { "x": 1 } }.into()];
    refuses(
        update(&mut Harness::new(2), doc! { "nhs": "SECRET" }, stages, true),
        &["'nhs'", "upsert"],
    );
}
