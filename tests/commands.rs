//! Commands through a session: what is sealed, what is rewritten, what is refused and with which words. The real server
//! has the last word in `tests/e2e`; these say the rules.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod common;

#[path = "cases/bulk_write.rs"]
mod bulk_write;
#[path = "cases/pipeline_updates.rs"]
mod pipeline_updates;
#[path = "cases/registry.rs"]
mod registry;

use bson::{Bson, Document, bson, doc};
use common::{Harness, Outcome, is_sealed};

fn filter(harness: &mut Harness, filter: Document) -> Outcome {
    harness.command(doc! { "find": "p", "filter": filter })
}

fn update(harness: &mut Harness, q: Document, u: impl Into<Bson>, upsert: bool) -> Outcome {
    harness.command(doc! { "update": "p", "updates": [{ "q": q, "u": u.into(), "upsert": upsert }] })
}

fn the_filter(outcome: Outcome) -> Document {
    outcome.sent().get_document("filter").unwrap().clone()
}

fn the_update(outcome: Outcome) -> Document {
    let sent = outcome.sent();
    sent.get_array("updates").unwrap()[0]
        .as_document()
        .unwrap()
        .get_document("u")
        .unwrap()
        .clone()
}

/// A refusal names the field and the operator, and holds no value.
#[track_caller]
fn refuses(outcome: Outcome, mentions: &[&str]) {
    let text = outcome.refused();
    assert!(text.starts_with("fieldveil: "), "{text}");
    for word in mentions {
        assert!(text.contains(word), "'{word}' is missing in: {text}");
    }
    assert!(!text.contains("SECRET"), "a value leaked: {text}");
}

#[test]
fn seals_literals_of_every_equality_operator() {
    let mut h = Harness::new(1);
    let f = the_filter(filter(&mut h, doc! { "nhs": "SECRET", "name": "plain" }));
    assert!(is_sealed(f.get("nhs")));
    assert_eq!(f.get_str("name").unwrap(), "plain");
    for operator in ["$eq", "$ne"] {
        let f = the_filter(filter(&mut h, doc! { "nhs": { operator: "SECRET" } }));
        assert!(
            is_sealed(f.get_document("nhs").unwrap().get(operator)),
            "{operator}"
        );
    }
    for operator in ["$in", "$nin", "$all"] {
        let f = the_filter(filter(
            &mut h,
            doc! { "nhs": { operator: ["SECRET", "SECRET2"] } },
        ));
        let items = f
            .get_document("nhs")
            .unwrap()
            .get_array(operator)
            .unwrap()
            .clone();
        assert!(
            items.len() == 2 && items.iter().all(|i| is_sealed(Some(i))),
            "{operator}"
        );
    }
    let f = the_filter(filter(
        &mut h,
        doc! { "$and": [{ "$or": [{ "nhs": "SECRET" }, { "x": 1 }] }] },
    ));
    let or = f.get_array("$and").unwrap()[0]
        .as_document()
        .unwrap()
        .get_array("$or")
        .unwrap()
        .clone();
    assert!(is_sealed(or[0].as_document().unwrap().get("nhs")));
    let f = the_filter(filter(&mut h, doc! { "nhs": { "$not": { "$eq": "SECRET" } } }));
    assert!(is_sealed(
        f.get_document("nhs")
            .unwrap()
            .get_document("$not")
            .unwrap()
            .get("$eq")
    ));
}

#[test]
fn keeps_null_and_exists_as_they_are() {
    let mut h = Harness::new(2);
    for plain in [
        doc! { "nhs": null },
        doc! { "nhs": { "$exists": true } },
        doc! { "notes": { "$exists": false } },
        doc! { "notes": { "$ne": null } },
        doc! { "contacts": { "$size": 2 } },
        doc! { "contacts": null },
    ] {
        assert_eq!(the_filter(filter(&mut h, plain.clone())), plain);
    }
}

#[test]
fn reaches_through_arrays_by_path_and_by_elem_match() {
    let mut h = Harness::new(1);
    for path in ["contacts.phone", "contacts.0.phone"] {
        assert!(
            is_sealed(the_filter(filter(&mut h, doc! { path: "SECRET" })).get(path)),
            "{path}"
        );
    }
    let f = the_filter(filter(
        &mut h,
        doc! { "contacts": { "$elemMatch": { "phone": "SECRET", "kind": "home" } } },
    ));
    let inner = f
        .get_document("contacts")
        .unwrap()
        .get_document("$elemMatch")
        .unwrap()
        .clone();
    assert!(is_sealed(inner.get("phone")));
    assert_eq!(inner.get_str("kind").unwrap(), "home");
}

#[test]
fn coerces_equal_numbers_to_one_form_and_refuses_the_rest() {
    let mut h = Harness::new(1);
    let forms = [Bson::Int32(5), Bson::Int64(5), Bson::Double(5.0)];
    for field in ["age", "count"] {
        let sealed: Vec<_> = forms
            .iter()
            .map(|v| {
                the_filter(filter(&mut h, doc! { field: v.clone() }))
                    .get(field)
                    .cloned()
            })
            .collect();
        assert!(
            sealed.iter().all(|s| is_sealed(s.as_ref()) && *s == sealed[0]),
            "{field}"
        );
        refuses(filter(&mut h, doc! { field: 5.5 }), &[field, "double"]);
        refuses(filter(&mut h, doc! { field: "SECRET" }), &[field, "string"]);
    }
    refuses(filter(&mut h, doc! { "age": i64::MAX }), &["age", "long"]);
    refuses(
        filter(&mut h, doc! { "nhs": 9_434_765_919_i64 }),
        &["nhs", "string", "long"],
    );
}

#[test]
fn looks_for_every_form_that_may_be_stored() {
    let mut rotating = Harness::new(2);
    let f = the_filter(filter(&mut rotating, doc! { "nhs": "SECRET", "after": 1 }));
    let forms = f.get_document("nhs").unwrap().get_array("$in").unwrap().clone();
    assert!(forms.len() == 2 && forms.iter().all(|i| is_sealed(Some(i))) && forms[0] != forms[1]);
    assert_eq!(f.get_i32("after").unwrap(), 1);
    let f = the_filter(filter(&mut rotating, doc! { "nhs": { "$ne": "SECRET" } }));
    assert_eq!(f.get_document("nhs").unwrap().get_array("$nin").unwrap().len(), 2);
    let f = the_filter(filter(&mut rotating, doc! { "nhs": { "$in": ["a", "b", null] } }));
    assert_eq!(f.get_document("nhs").unwrap().get_array("$in").unwrap().len(), 5);
    // The driver cannot build a document with two `$in`, so only the text of the reply shows both.
    let all = rotating.command(doc! { "find": "p", "filter": { "nhs": { "$all": ["a"] } } });
    assert_eq!(
        the_filter(all)
            .get_document("nhs")
            .unwrap()
            .get_array("$in")
            .unwrap()
            .len(),
        2
    );

    let mut migrating = Harness::new(1);
    let f = the_filter(filter(&mut migrating, doc! { "moving": "x" }));
    let forms = f
        .get_document("moving")
        .unwrap()
        .get_array("$in")
        .unwrap()
        .clone();
    assert!(forms.len() == 2 && forms[0] == Bson::from("x") && is_sealed(forms.get(1)));
}

#[test]
fn refuses_operators_that_cannot_work_on_ciphertext() {
    let mut h = Harness::new(1);
    for (operator, operand) in [
        ("$gt", Bson::from("SECRET")),
        ("$gte", "SECRET".into()),
        ("$lt", "SECRET".into()),
        ("$lte", "SECRET".into()),
        ("$regex", "SECRET".into()),
        ("$mod", vec![Bson::Int32(2), Bson::Int32(0)].into()),
        ("$type", "string".into()),
        ("$bitsAllSet", 3.into()),
        ("$bitsAnySet", 3.into()),
        ("$bitsAllClear", 3.into()),
        ("$bitsAnyClear", 3.into()),
        ("$near", doc! { "x": 1 }.into()),
        ("$nearSphere", doc! { "x": 1 }.into()),
        ("$geoWithin", doc! { "x": 1 }.into()),
        ("$geoIntersects", doc! { "x": 1 }.into()),
    ] {
        refuses(
            filter(&mut h, doc! { "nhs": { operator: operand } }),
            &["nhs", operator],
        );
    }
    let regex = Bson::RegularExpression(bson::Regex {
        pattern: "SECRET".try_into().unwrap(),
        options: "".try_into().unwrap(),
    });
    refuses(
        filter(&mut h, doc! { "nhs": regex.clone() }),
        &["nhs", "regular expression"],
    );
    refuses(
        filter(&mut h, doc! { "nhs": { "$in": [regex] } }),
        &["nhs", "regular expression"],
    );
    refuses(filter(&mut h, doc! { "notes": "SECRET" }), &["notes", "random"]);
    refuses(
        filter(&mut h, doc! { "notes.inner": "SECRET" }),
        &["notes.inner", "sealed as one value"],
    );
    refuses(
        filter(&mut h, doc! { "contacts": { "phone": "SECRET" } }),
        &["contacts", "as a whole"],
    );
    refuses(
        filter(&mut h, doc! { "contacts": { "$in": [{ "phone": "SECRET" }] } }),
        &["contacts"],
    );
    for operator in ["$where", "$text", "$jsonSchema"] {
        refuses(filter(&mut h, doc! { operator: "SECRET" }), &[operator]);
    }
    refuses(
        h.command(doc! { "find": "p", "filter": {}, "sort": { "nhs": 1 } }),
        &["sort", "nhs"],
    );
    refuses(
        h.command(doc! { "find": "p", "filter": {}, "min": { "nhs": "SECRET" } }),
        &["min", "nhs"],
    );
    refuses(
        h.command(doc! { "find": "p", "filter": { "nhs": "SECRET" }, "collation": { "locale": "en" } }),
        &["nhs", "collation"],
    );
    refuses(
        h.command(doc! { "find": "p", "filter": {}, "unheardOf": "SECRET" }),
        &["unheardOf"],
    );
}

#[test]
fn an_item_of_a_random_array_may_be_an_array_sealed_as_one_value() {
    let mut h = Harness::new(1);
    for inside in [
        doc! { "$size": 1 },
        doc! { "$not": { "$size": 1 } },
        doc! { "$elemMatch": { "$exists": true } },
    ] {
        for condition in [
            doc! { "tags": { "$elemMatch": inside.clone() } },
            doc! { "tags": { "$all": [{ "$elemMatch": inside.clone() }] } },
            doc! { "tags.1": inside.clone() },
        ] {
            refuses(filter(&mut h, condition), &["tags"]);
        }
        refuses(
            h.command(doc! { "find": "p", "projection": { "tags": { "$elemMatch": inside.clone() } } }),
            &["tags"],
        );
        refuses(
            update(
                &mut h,
                doc! {},
                doc! { "$pull": { "tags": inside.clone() } },
                false,
            ),
            &["tags"],
        );
        let statement =
            doc! { "q": {}, "u": { "$set": { "tags.$[e]": "x" } }, "arrayFilters": [{ "e": inside }] };
        refuses(
            h.command(doc! { "update": "p", "updates": [statement] }),
            &["tags"],
        );
    }
    for condition in [
        doc! { "tags": { "$size": 1 } },
        doc! { "tags": { "$elemMatch": { "$exists": true, "$ne": null } } },
        doc! { "tags.1": { "$exists": true } },
        doc! { "tags.1": null },
    ] {
        assert_eq!(the_filter(filter(&mut h, condition.clone())), condition);
    }
}

#[test]
fn an_enclosing_path_can_be_compared_with_what_holds_no_protected_field() {
    let mut h = Harness::new(1);
    for empty in [
        bson!([]),
        bson!({}),
        bson!({ "kind": "home" }),
        bson!([[], { "kind": "home" }, 1]),
    ] {
        for condition in [
            empty.clone(),
            bson!({ "$ne": empty.clone() }),
            bson!({ "$nin": [null, empty.clone()] }),
            bson!({ "$not": { "$in": [empty] } }),
        ] {
            let sent = the_filter(filter(&mut h, doc! { "contacts": condition.clone() }));
            assert_eq!(sent, doc! { "contacts": condition });
        }
    }
    refuses(
        filter(
            &mut h,
            doc! { "contacts": { "$in": [[], [{ "phone": "SECRET" }]] } },
        ),
        &["contacts", "as a whole"],
    );
}

#[test]
fn drops_comments_on_protected_collections() {
    let mut h = Harness::new(1);
    let sent = h
        .command(doc! { "find": "p", "filter": { "a": 1, "$comment": "SECRET" }, "comment": "SECRET" })
        .sent();
    assert!(!sent.to_string().contains("SECRET"));
    let sent = h
        .command(doc! { "find": "other", "filter": {}, "comment": "kept" })
        .sent();
    assert_eq!(sent.get_str("comment").unwrap(), "kept");
}

#[test]
fn seals_what_updates_store() {
    let mut h = Harness::new(1);
    for operator in ["$set", "$setOnInsert"] {
        let u = doc! { operator: { "nhs": "SECRET", "contacts.$.phone": "SECRET", "address": { "line1": "SECRET", "town": "Leeds" }, "x": 1 } };
        let u = the_update(update(&mut h, doc! { "_id": 1 }, u, false));
        let set = u.get_document(operator).unwrap();
        assert!(
            is_sealed(set.get("nhs")) && is_sealed(set.get("contacts.$.phone")),
            "{operator}"
        );
        assert!(is_sealed(set.get_document("address").unwrap().get("line1")));
        assert_eq!(
            set.get_document("address").unwrap().get_str("town").unwrap(),
            "Leeds"
        );
    }
    let u = the_update(update(
        &mut h,
        doc! {},
        doc! { "nhs": "SECRET", "contacts": [{ "phone": "SECRET" }] },
        false,
    ));
    assert!(is_sealed(u.get("nhs")));
    assert!(is_sealed(
        u.get_array("contacts").unwrap()[0]
            .as_document()
            .unwrap()
            .get("phone")
    ));
    let u = the_update(update(
        &mut h,
        doc! {},
        doc! { "$push": { "contacts": { "$each": [{ "phone": "SECRET" }], "$slice": -5, "$sort": { "kind": 1 } } } },
        false,
    ));
    assert!(!u.to_string().contains("SECRET"));
    let u = the_update(update(
        &mut h,
        doc! {},
        doc! { "$addToSet": { "nhs": { "$each": ["SECRET"] } } },
        false,
    ));
    assert!(!u.to_string().contains("SECRET"));
    let u = the_update(update(
        &mut h,
        doc! {},
        doc! { "$pull": { "contacts": { "phone": "SECRET" }, "nhs": { "$in": ["SECRET"] } } },
        false,
    ));
    assert!(!u.to_string().contains("SECRET"));
    let u = the_update(update(
        &mut h,
        doc! {},
        doc! { "$pullAll": { "nhs": ["SECRET"] }, "$unset": { "notes": "" }, "$pop": { "nhs": 1 } },
        false,
    ));
    assert!(!u.to_string().contains("SECRET"));
}

#[test]
fn plans_array_filters_like_filters() {
    let mut h = Harness::new(1);
    let command = |filter: Document| {
        doc! { "update": "p", "updates": [{ "q": {}, "u": { "$set": { "contacts.$[c].phone": "SECRET" } }, "arrayFilters": [filter] }] }
    };
    let sent = h
        .command(command(doc! { "c.phone": "SECRET", "c.kind": "home" }))
        .sent();
    assert!(!sent.to_string().contains("SECRET"));
    refuses(
        h.command(command(doc! { "c.phone": { "$gt": "SECRET" } })),
        &["phone", "$gt"],
    );
    refuses(
        h.command(command(doc! { "other.phone": "SECRET" })),
        &["'other'", "arrayFilters"],
    );
}

#[test]
fn refuses_updates_that_cannot_work_on_ciphertext() {
    let mut h = Harness::new(1);
    for (operator, operand) in [
        ("$inc", Bson::Int32(1)),
        ("$mul", 2.into()),
        ("$min", 1.into()),
        ("$max", 1.into()),
        ("$bit", doc! { "and": 1 }.into()),
        ("$currentDate", true.into()),
    ] {
        refuses(
            update(&mut h, doc! {}, doc! { operator: { "age": operand } }, false),
            &["age", operator],
        );
    }
    refuses(
        update(&mut h, doc! {}, doc! { "$rename": { "nhs": "other" } }, false),
        &["nhs", "$rename"],
    );
    refuses(
        update(&mut h, doc! {}, doc! { "$rename": { "other": "nhs" } }, false),
        &["other", "$rename"],
    );
    refuses(
        update(&mut h, doc! {}, doc! { "$set": { "notes.x": "SECRET" } }, false),
        &["notes"],
    );
    refuses(
        update(&mut h, doc! {}, doc! { "$push": { "notes": "SECRET" } }, false),
        &["notes", "$push", "each = true"],
    );
    refuses(
        update(&mut h, doc! {}, doc! { "$addToSet": { "tags": "SECRET" } }, false),
        &["tags", "$addToSet"],
    );
    refuses(
        update(
            &mut h,
            doc! {},
            doc! { "$push": { "contacts": { "$each": [], "$sort": { "phone": 1 } } } },
            false,
        ),
        &["contacts", "$sort"],
    );
}

#[test]
fn rejects_set_semantics_while_one_value_may_be_stored_in_several_forms() {
    const MORE: &str = r#"
[[collection]]
namespace = "c.q"
[collection.fields]
"links.id" = { mode = "deterministic", type = "string" }
"#;
    let add = doc! { "update": "q", "updates": [{ "q": {}, "u": { "$addToSet": { "links": { "id": "SECRET", "n": 1 } } } }] };
    Harness::with(MORE, 1).command(add.clone()).sent();
    refuses(Harness::with(MORE, 2).command(add), &["links.id", "$addToSet"]);
    let add = doc! { "$addToSet": { "nhs": "SECRET" } };
    refuses(
        update(&mut Harness::new(2), doc! {}, add, false),
        &["'nhs'", "$addToSet"],
    );
}

#[test]
fn an_upsert_stores_the_equality_that_had_to_be_widened() {
    let mut h = Harness::new(2);
    let u = the_update(update(
        &mut h,
        doc! { "nhs": "SECRET" },
        doc! { "$set": { "x": 1 } },
        true,
    ));
    assert!(
        is_sealed(u.get_document("$setOnInsert").unwrap().get("nhs")),
        "{u}"
    );
    let u = the_update(update(
        &mut h,
        doc! { "$and": [{ "nhs": { "$eq": "SECRET" } }] },
        doc! { "$setOnInsert": { "y": 2 } },
        true,
    ));
    assert!(
        is_sealed(u.get_document("$setOnInsert").unwrap().get("nhs")),
        "{u}"
    );
    assert_eq!(u.get_document("$setOnInsert").unwrap().get_i32("y").unwrap(), 2);
    let u = the_update(update(
        &mut h,
        doc! { "nhs": "SECRET" },
        doc! { "$set": { "nhs": "SECRET2" } },
        true,
    ));
    assert!(!u.contains_key("$setOnInsert"));
    refuses(
        update(
            &mut h,
            doc! { "contacts.0.phone": "SECRET" },
            doc! { "$set": { "x": 1 } },
            true,
        ),
        &["contacts.phone"],
    );
    let mut settled = Harness::new(1);
    let u = the_update(update(
        &mut settled,
        doc! { "nhs": "SECRET" },
        doc! { "$set": { "x": 1 } },
        true,
    ));
    assert!(!u.contains_key("$setOnInsert"));
}

#[test]
fn opens_csfle_values_that_a_pipeline_brings_into_an_unprotected_collection() {
    let coded = "[[collection]]\nnamespace = \"c.coded\"\n[collection.fields]\n\
                 code = { mode = \"random\", algorithm = \"aead-aes-256-cbc-hmac-sha-512\" }\n";
    let mut h = Harness::with(coded, 1);
    let stored = h
        .command(doc! { "insert": "coded", "documents": [{ "code": "SECRET" }] })
        .sent();
    let stored = stored.get_array("documents").unwrap()[0].clone();
    let joins = doc! { "$lookup": { "from": "coded", "localField": "x", "foreignField": "y", "as": "e" } };
    h.command(doc! { "aggregate": "free", "pipeline": [joins], "cursor": {} })
        .sent();
    for batch in ["firstBatch", "nextBatch"] {
        let cursor = doc! { "id": 5_i64, "ns": "c.free", batch: [{ "e": [stored.clone()] }] };
        let opened = h.reply(doc! { "cursor": cursor, "ok": 1 });
        assert!(format!("{opened}").contains("\"code\": \"SECRET\""), "{opened}");
        h.command(doc! { "getMore": 5_i64, "collection": "free" }).sent();
    }
}

#[test]
fn refuses_projections_that_lead_into_sealed_values() {
    let mut h = Harness::new(1);
    for projection in [
        doc! { "notes.x": 1 },
        doc! { "notes.x": 0 },
        doc! { "notes": { "x": { "y": 1 } } },
        doc! { "notes.x": "$plain" },
        doc! { "address.line1.x": 0 },
        doc! { "tags.x": 1 },
        doc! { "tags.0": 1 },
    ] {
        refuses(
            h.command(doc! { "find": "p", "projection": projection.clone() }),
            &["sealed as one value"],
        );
        refuses(
            h.command(doc! { "findAndModify": "p", "update": { "$set": { "x": 1 } }, "fields": projection }),
            &["sealed as one value"],
        );
    }
    for projection in [
        doc! { "nhs.x": 1 },
        doc! { "contacts.0": 0 },
        doc! { "tags": 1, "address.city": 1 },
    ] {
        h.command(doc! { "find": "p", "projection": projection }).sent();
    }
}

#[test]
fn an_upsert_takes_nothing_from_the_filter_below_what_the_update_replaces() {
    let mut h = Harness::new(2);
    let phone = doc! { "contacts.phone": "SECRET" };
    for change in [
        doc! { "$set": { "contacts": [] } },
        doc! { "$setOnInsert": { "contacts": null } },
        doc! { "$unset": { "contacts": "" } },
    ] {
        let u = the_update(update(&mut h, phone.clone(), change.clone(), true));
        assert!(!format!("{u}").contains("contacts.phone"), "{change}: {u}");
    }
    // Beside it, both stay.
    let u = the_update(update(
        &mut h,
        phone.clone(),
        doc! { "$set": { "contacts.kind": "home" } },
        true,
    ));
    assert!(
        is_sealed(u.get_document("$setOnInsert").unwrap().get("contacts.phone")),
        "{u}"
    );
    // One value, though the list says it twice; two are none.
    let list = |items: Bson| doc! { "nhs": { "$in": items } };
    let u = the_update(update(
        &mut h,
        list(bson!(["SECRET", "SECRET"])),
        doc! { "$set": { "x": 1 } },
        true,
    ));
    assert!(
        is_sealed(u.get_document("$setOnInsert").unwrap().get("nhs")),
        "{u}"
    );
    let u = the_update(update(
        &mut h,
        list(bson!(["SECRET", "OTHER"])),
        doc! { "$set": { "x": 1 } },
        true,
    ));
    assert!(!u.contains_key("$setOnInsert"), "{u}");
    // The server inserts nothing for two values of one field.
    for filter in [
        doc! { "nhs": { "$all": ["SECRET", "OTHER"] } },
        doc! { "$and": [{ "nhs": "SECRET" }, { "nhs": "OTHER" }] },
    ] {
        refuses(
            update(&mut h, filter, doc! { "$set": { "x": 1 } }, true),
            &["nhs", "upsert"],
        );
    }
    // Nor for one path that is matched twice, whatever the update sets.
    for filter in [
        doc! { "contacts": [], "contacts.phone": "SECRET" },
        doc! { "$and": [{ "contacts": { "$in": [[]] } }, { "contacts.phone": "SECRET" }] },
    ] {
        for change in [
            doc! { "$set": { "x": 1 } },
            doc! { "$setOnInsert": { "contacts.phone": "SECRET" } },
        ] {
            refuses(
                update(&mut h, filter.clone(), change, true),
                &[
                    "contacts.phone",
                    "upsert",
                    "leave one of the two conditions out of the filter",
                ],
            );
        }
    }
    // What the server would do to the filter's value first cannot be said in one update.
    for change in [
        doc! { "$push": { "contacts": { "kind": "home" } } },
        doc! { "$pop": { "contacts": 1 } },
        doc! { "$set": { "contacts.0.kind": "home" } },
        doc! { "$push": { "contacts.phone": "OTHER" } },
        doc! { "$unset": { "contacts.phone": "" } },
    ] {
        refuses(
            update(&mut h, phone.clone(), change, true),
            &["contacts.phone", "upsert"],
        );
    }
}

#[test]
fn refuses_documents_that_read_two_ways_or_bring_ciphertext() {
    let mut h = Harness::new(1);
    let insert = |h: &mut Harness, doc: Document| h.command(doc! { "insert": "p", "documents": [doc] });
    refuses(
        insert(&mut h, doc! { "contacts.phone": "SECRET" }),
        &["contacts.phone"],
    );
    refuses(insert(&mut h, doc! { "$nhs": "SECRET" }), &["$nhs"]);
    refuses(insert(&mut h, doc! { "$min": { "age": 1 } }), &["$min"]);
    refuses(
        insert(&mut h, doc! { "address": { "$x.line1": "SECRET" } }),
        &["$x.line1"],
    );
    insert(&mut h, doc! { "": { "age": 1 }, ".age": 1 }).sent();
    let envelope = bson::Binary {
        subtype: bson::spec::BinarySubtype::UserDefined(0x80),
        bytes: vec![1; 40],
    };
    let csfle = bson::Binary {
        subtype: bson::spec::BinarySubtype::Encrypted,
        bytes: vec![1; 82],
    };
    refuses(
        insert(&mut h, doc! { "nhs": envelope.clone() }),
        &["nhs", "ciphertext"],
    );
    refuses(
        insert(&mut h, doc! { "other": { "deep": [csfle.clone()] } }),
        &["ciphertext"],
    );
    refuses(
        insert(&mut h, doc! { "notes": { "deep": [envelope] } }),
        &["ciphertext"],
    );
    refuses(
        update(&mut h, doc! {}, doc! { "$set": { "other": csfle } }, false),
        &["ciphertext"],
    );
    refuses(
        insert(&mut h, doc! { "notes": Bson::MinKey }),
        &["notes", "minKey"],
    );
    refuses(
        insert(&mut h, doc! { "notes": Bson::MaxKey }),
        &["notes", "maxKey"],
    );
    refuses(
        insert(&mut h, doc! { "notes": Bson::Undefined }),
        &["notes", "undefined"],
    );
    refuses(
        insert(
            &mut h,
            doc! { "notes": Bson::Timestamp(bson::Timestamp { time: 0, increment: 0 }) },
        ),
        &["notes", "Timestamp"],
    );
    // One key twice: the driver's document cannot hold it, so the bytes are made by hand.
    let mut twice = fieldveil::bson::build::Builder::new();
    twice
        .string("insert", "p")
        .array("documents")
        .document("0")
        .string("nhs", "SECRET")
        .string("nhs", "SECRET2")
        .end()
        .end()
        .string("$db", "c");
    let frame = fieldveil::wire::encode::command(1, &twice.finish()).unwrap();
    refuses(h.frame(&frame), &["nhs", "twice"]);
}

#[test]
fn refuses_indexes_that_could_never_work() {
    let mut h = Harness::new(1);
    let index = |h: &mut Harness, mut index: Document| {
        index.insert("name", "i");
        h.command(doc! { "createIndexes": "p", "indexes": [index] })
    };
    for good in [
        doc! { "key": { "nhs": 1 }, "unique": true },
        doc! { "key": { "nhs": "hashed" } },
        doc! { "key": { "contacts.phone": 1, "x": -1 } },
        doc! { "key": { "x": "text" } },
        doc! { "key": { "$**": 1 } },
        doc! { "key": { "x": 1 }, "partialFilterExpression": { "nhs": { "$exists": true } } },
        doc! { "key": { "contacts.$**": 1 } },
        doc! { "key": { "x": 1 }, "collation": { "locale": "en" }, "expireAfterSeconds": 5 },
        doc! { "key": { "nhs": 1, "x": 1 }, "sparse": true, "hidden": true, "background": true, "collation": { "locale": "simple" } },
        doc! { "key": { "x": "text" }, "weights": { "y": 3 }, "language_override": "lang" },
    ] {
        index(&mut h, good).sent();
    }
    refuses(
        index(&mut h, doc! { "key": { "notes": 1 }, "unique": true }),
        &["notes", "random"],
    );
    refuses(
        index(&mut h, doc! { "key": { "nhs": 1 }, "expireAfterSeconds": 5 }),
        &["nhs", "TTL"],
    );
    for (bad, word) in [
        (doc! { "key": { "$**": "text" } }, "text"),
        (
            doc! { "key": { "x": "text" }, "weights": { "notes": 2 } },
            "notes",
        ),
        (
            doc! { "key": { "x": "text" }, "language_override": "nhs" },
            "language_override",
        ),
        (
            doc! { "key": { "nhs": 1 }, "collation": { "locale": "en", "strength": 2 } },
            "collation",
        ),
        (doc! { "key": { "notes.$**": 1 } }, "notes"),
        (doc! { "key": { "nhs": "columnstore" } }, "columnstore"),
    ] {
        refuses(index(&mut h, bad), &[word]);
    }
    for kind in ["text", "2dsphere", "2d"] {
        refuses(index(&mut h, doc! { "key": { "nhs": kind } }), &["nhs", kind]);
    }
    refuses(index(&mut h, doc! { "key": { "contacts": 1 } }), &["contacts"]);
    refuses(index(&mut h, doc! { "key": { "notes.x": 1 } }), &["notes.x"]);
    refuses(
        index(
            &mut h,
            doc! { "key": { "x": 1 }, "partialFilterExpression": { "nhs": "SECRET" } },
        ),
        &["nhs", "partialFilterExpression"],
    );
}

#[test]
fn refuses_what_it_cannot_see_through() {
    let mut h = Harness::new(1);
    for command in [
        doc! { "mapReduce": "p", "map": "SECRET" },
        doc! { "renameCollection": "c.p", "to": "c.q" },
        doc! { "collMod": "p", "validator": { "nhs": "SECRET" } },
        doc! { "create": "v", "viewOn": "p", "pipeline": [{ "$match": { "nhs": "SECRET" } }] },
        doc! { "create": "v", "viewOn": "p", "pipeline": [{ "$sort": { "nhs": 1 } }] },
        doc! { "create": "v", "viewOn": "system.buckets.p", "pipeline": [] },
        doc! { "create": "v", "viewOn": "system.profile", "pipeline": [] },
        doc! { "create": "p", "viewOn": "other", "pipeline": [] },
        doc! { "collMod": "v", "viewOn": "other", "pipeline": [{ "$lookup": { "from": "p", "as": "x", "pipeline": [{ "$match": { "nhs": "SECRET" } }] } }] },
        doc! { "insert": "system.views", "documents": [{ "_id": "c.v", "viewOn": "p", "pipeline": [{ "$match": { "nhs": "SECRET" } }] }] },
        doc! { "find": "system.buckets.p", "filter": { "data.nhs.0": "SECRET" } },
        doc! { "aggregate": "other", "pipeline": [{ "$unionWith": { "coll": "system.buckets.p", "pipeline": [{ "$match": { "data.nhs.0": "SECRET" } }] } }], "cursor": {} },
        doc! { "explain": { "create": "p" } },
        doc! { "explain": { "insert": "p", "documents": [{ "nhs": "SECRET" }] } },
        doc! { "create": "p", "validator": { "nhs": "SECRET" } },
        doc! { "applyOps": ["SECRET"] },
        doc! { "somethingNew": "p", "x": "SECRET" },
        doc! { "somethingNew": "elsewhere", "x": "SECRET" },
        doc! { "getLog": "global" },
        doc! { "find": "system.profile" },
        doc! { "explain": { "collMod": "p" } },
    ] {
        refuses(h.command(command), &[]);
    }
    h.command(doc! { "create": "p", "capped": true, "size": 4096 })
        .sent();
    h.command(doc! { "mapReduce": "other", "map": "f" }).sent();
    let sent = h
        .command(
            doc! { "explain": { "find": "p", "filter": { "nhs": "SECRET" } }, "verbosity": "queryPlanner" },
        )
        .sent();
    assert!(!sent.to_string().contains("SECRET"));
}

#[test]
fn forwards_what_touches_nothing_protected_as_the_same_bytes() {
    let mut h = Harness::new(1);
    for command in [
        doc! { "find": "other", "filter": { "nhs": "x" }, "$db": "c" },
        doc! { "insert": "other", "documents": [{ "nhs": "x" }], "$db": "c" },
        doc! { "find": "p", "filter": { "name": "x" }, "$db": "c" },
        doc! { "ping": 1, "$db": "c" },
    ] {
        let frame = fieldveil::wire::encode::command(1, &common::to_bytes(&command)).unwrap();
        assert_eq!(h.frame(&frame).sent(), command);
    }
}

#[test]
fn opens_replies_wherever_an_envelope_surfaces_and_scrubs_errors() {
    let mut h = Harness::new(1);
    let (stored, _) = h
        .round_trip(vec![doc! { "nhs": "9434765919", "notes": { "deep": [1, 2] } }])
        .unwrap();
    h.command(doc! { "aggregate": "other", "pipeline": [], "cursor": {} })
        .sent();
    let renamed = doc! { "cursor": { "firstBatch": [{ "who": { "x": [stored[0].get("nhs").unwrap()] } }], "id": 0_i64, "ns": "c.other" }, "ok": 1 };
    let read = h.reply(renamed);
    assert!(read.to_string().contains("9434765919"));
    h.command(doc! { "insert": "p", "documents": [{ "nhs": "9434765919" }] })
        .sent();
    let read = h.reply(doc! { "ok": 1, "n": 0, "writeErrors": [{ "index": 0, "code": 11000, "keyPattern": { "nhs": 1 },
        "keyValue": { "nhs": stored[0].get("nhs").unwrap() },
        "errmsg": "E11000 duplicate key error collection: c.p index: nhs_1 dup key: { nhs: BinData(128, 0101AB) }" }] });
    let error = read.get_array("writeErrors").unwrap()[0].as_document().unwrap();
    assert_eq!(
        error.get_document("keyValue").unwrap().get_str("nhs").unwrap(),
        "<protected>"
    );
    assert!(
        error
            .get_str("errmsg")
            .unwrap()
            .ends_with("dup key: { nhs: <protected> }")
    );
    h.command(doc! { "distinct": "p", "key": "nhs" }).sent();
    let read =
        h.reply(doc! { "values": [stored[0].get("nhs").unwrap(), "9434765919", "4505577104"], "ok": 1 });
    assert_eq!(read.get_array("values").unwrap().len(), 2);
}

#[test]
fn opens_change_events_under_dotted_keys_and_keeps_what_describes_them() {
    let mut h = Harness::new(1);
    let (nhs, _) = stored(&mut h);
    h.command(doc! { "aggregate": "p", "pipeline": [{ "$changeStream": { "showExpandedEvents": true } }], "cursor": {} })
        .sent();
    let described = doc! { "contacts.0.phone": ["contacts", 0, "phone"], "map.0.x": ["map", "0", "x"] };
    let event = doc! {
        "operationType": "update", "documentKey": { "_id": 1 }, "splitEvent": { "fragment": 1, "of": 1 },
        "updateDescription": {
            "updatedFields": { "nhs": nhs, "map.0.x": 1 },
            "removedFields": ["notes"], "truncatedArrays": [{ "field": "contacts", "newSize": 1 }],
            "disambiguatedPaths": described.clone(),
        },
    };
    let read = h.reply(doc! { "cursor": { "firstBatch": [event], "id": 5_i64, "ns": "c.p" }, "ok": 1 });
    let batch = read
        .get_document("cursor")
        .unwrap()
        .get_array("firstBatch")
        .unwrap();
    let seen = batch[0]
        .as_document()
        .unwrap()
        .get_document("updateDescription")
        .unwrap();
    assert_eq!(seen.get_document("disambiguatedPaths").unwrap(), &described);
    assert_eq!(
        seen.get_document("updatedFields").unwrap(),
        &doc! { "nhs": "1", "map.0.x": 1 }
    );
    assert_eq!(seen.get_array("truncatedArrays").unwrap().len(), 1);
}

/// A value of `nhs` and one of `age`, as the server holds them under the newest of so many keys.
fn under_keys(versions: u8) -> (Bson, Bson) {
    stored(&mut Harness::new(versions))
}

#[test]
fn shows_a_distinct_value_once_under_several_keys_and_forms() {
    let mut h = Harness::new(3);
    let ((nhs, age), (nhs_2, age_2), (nhs_3, age_3)) = (under_keys(1), under_keys(2), under_keys(3));
    assert!(nhs != nhs_2 && nhs_2 != nhs_3);
    h.command(doc! { "distinct": "p", "key": "nhs" }).sent();
    let read = h.reply(doc! { "values": [nhs_3, "2", nhs, nhs_2, null], "ok": 1 });
    let values: Vec<Bson> = vec!["1".into(), "2".into(), Bson::Null];
    assert_eq!(read.get_array("values").unwrap(), &values);
    // Plaintext of another number type than the declared one is the same value to MongoDB.
    h.command(doc! { "distinct": "p", "key": "age" }).sent();
    let read = h.reply(doc! { "values": [age_2, 7_i64, age, 7.0, age_3, 7.5, "7"], "ok": 1 });
    let values: Vec<Bson> = vec![7.into(), 7.5.into(), "7".into()];
    assert_eq!(read.get_array("values").unwrap(), &values);
}

#[test]
fn keeps_the_distinct_values_of_unprotected_collections_as_they_are() {
    let mut h = Harness::new(1);
    h.command(doc! { "distinct": "open", "key": "x" }).sent();
    let values: Vec<Bson> = vec![1.into(), 1_i64.into(), "1".into()];
    let read = h.reply(doc! { "values": values.clone(), "ok": 1 });
    assert_eq!(read.get_array("values").unwrap(), &values);
}

#[test]
fn rejects_grouping_and_joining_by_a_field_in_rotation_and_counts_by_all_its_forms() {
    let mut h = Harness::new(2);
    for stage in [
        doc! { "$group": { "_id": "$nhs" } },
        doc! { "$group": { "_id": { "n": "$nhs" } } },
        doc! { "$group": { "_id": null, "s": { "$addToSet": "$nhs" } } },
        doc! { "$sortByCount": "$nhs" },
        doc! { "$setWindowFields": { "partitionBy": "$nhs", "output": { "n": { "$sum": 1 } } } },
        doc! { "$lookup": { "from": "p", "localField": "nhs", "foreignField": "nhs", "as": "j" } },
        doc! { "$graphLookup": { "from": "p", "startWith": "$nhs", "connectFromField": "nhs", "connectToField": "nhs", "as": "g" } },
        doc! { "$project": { "x": { "$setUnion": ["$nhs", []] } } },
    ] {
        let command = doc! { "aggregate": "p", "pipeline": [stage], "cursor": {} };
        refuses(h.command(command), &["'nhs'", "rotating", "finish"]);
    }
    let sent = h
        .command(doc! { "count": "p", "query": { "nhs": "SECRET" } })
        .sent();
    let forms = sent.get_document("query").unwrap().get_document("nhs").unwrap();
    assert_eq!(forms.get_array("$in").unwrap().len(), 2);
    for stage in [
        doc! { "$group": { "_id": "$ward", "all": { "$push": "$nhs" } } },
        doc! { "$match": { "nhs": "SECRET" } },
    ] {
        let command = doc! { "aggregate": "p", "pipeline": [stage], "cursor": {} };
        assert!(!h.command(command).sent().to_string().contains("SECRET"));
    }
}

#[test]
fn never_passes_tampered_ciphertext_off_as_data() {
    let mut h = Harness::new(1);
    let (mut stored, _) = h.round_trip(vec![doc! { "nhs": "9434765919" }]).unwrap();
    if let Some(Bson::Binary(binary)) = stored[0].get_mut("nhs") {
        let last = binary.bytes.len() - 1;
        binary.bytes[last] ^= 1;
    }
    h.command(doc! { "find": "p", "filter": {} }).sent();
    let read =
        h.reply(doc! { "cursor": { "firstBatch": [stored[0].clone()], "id": 0_i64, "ns": "c.p" }, "ok": 1 });
    assert_eq!(read.get_f64("ok").unwrap(), 0.0);
    assert!(read.get_str("errmsg").unwrap().contains("does not authenticate"));
}

/// What the server holds for one value of `nhs` and of `age`.
fn stored(h: &mut Harness) -> (Bson, Bson) {
    let sent = h
        .command(doc! { "insert": "p", "documents": [{ "nhs": "1", "age": 7 }] })
        .sent();
    h.reply(doc! { "ok": 1, "n": 1 });
    let document = sent.get_array("documents").unwrap()[0]
        .as_document()
        .unwrap()
        .clone();
    (
        document.get("nhs").unwrap().clone(),
        document.get("age").unwrap().clone(),
    )
}

fn first(id: i64, document: Document) -> Document {
    doc! { "cursor": { "firstBatch": [document], "id": id, "ns": "c.p" }, "ok": 1 }
}

fn next(id: i64, document: Document) -> Document {
    doc! { "cursor": { "nextBatch": [document], "id": id, "ns": "c.p" }, "ok": 1 }
}

#[track_caller]
fn moved(reply: Document) {
    assert!(reply.get_str("errmsg").unwrap().contains("moved"), "{reply}");
}

fn plaintext_found(h: &mut Harness) -> u32 {
    h.done()
        .iter()
        .flat_map(|done| &done.plaintext)
        .map(|(_, n)| n)
        .sum()
}

#[test]
fn looks_at_later_batches_as_at_the_first_on_whatever_connection() {
    let mut h = Harness::new(1);
    let (nhs, age) = stored(&mut h);
    h.command(doc! { "find": "p", "filter": {} }).sent();
    h.reply(first(77, doc! { "nhs": nhs.clone() }));
    let more = doc! { "getMore": 77_i64, "collection": "p" };

    h.session = fieldveil::session::Session::new(2, None);
    h.command(more.clone()).sent();
    let read = h.reply(next(77, doc! { "nhs": nhs.clone() }));
    assert!(read.to_string().contains("\"nhs\": \"1\""), "{read}");
    assert_eq!(plaintext_found(&mut h), 0);
    h.command(more.clone()).sent();
    h.reply(next(77, doc! { "nhs": "in the clear" }));
    assert_eq!(plaintext_found(&mut h), 1);
    h.command(more.clone()).sent();
    moved(h.reply(next(77, doc! { "nhs": age.clone() })));

    // Exhausted: the server may give the number to another cursor.
    h.command(more.clone()).sent();
    h.reply(next(0, doc! { "nhs": nhs }));
    h.command(more).sent();
    h.reply(next(0, doc! { "nhs": age }));
}

#[test]
fn looks_at_the_places_that_an_aggregation_yields() {
    let mut h = Harness::new(1);
    let (nhs, age) = stored(&mut h);
    let aggregate = doc! { "aggregate": "p", "pipeline": [{ "$project": { "number": "$nhs", "years": { "$ifNull": ["$age", "$nhs"] } } }], "cursor": {} };
    h.command(aggregate.clone()).sent();
    // What may be either of two is not known.
    let read = h.reply(first(0, doc! { "number": nhs.clone(), "years": nhs.clone() }));
    assert!(read.to_string().contains("\"number\": \"1\""), "{read}");
    h.command(aggregate.clone()).sent();
    h.reply(first(5, doc! { "number": "in the clear", "years": age.clone() }));
    assert_eq!(plaintext_found(&mut h), 1);
    h.command(doc! { "getMore": 5_i64, "collection": "p" }).sent();
    moved(h.reply(next(5, doc! { "number": age.clone() })));
    h.command(aggregate).sent();
    moved(h.reply(first(0, doc! { "number": age })));
}

#[test]
fn looks_at_no_place_that_a_projection_computes() {
    let mut h = Harness::new(1);
    let (_, age) = stored(&mut h);
    h.command(doc! { "find": "p", "filter": {}, "projection": { "nhs": "$age" } })
        .sent();
    h.reply(first(9, doc! { "nhs": age.clone() }));
    h.command(doc! { "getMore": 9_i64, "collection": "p" }).sent();
    let read = h.reply(next(0, doc! { "nhs": age }));
    assert!(read.to_string().contains("\"nhs\": 7"), "{read}");
    assert_eq!(plaintext_found(&mut h), 0);
}

#[test]
fn judges_validators_by_what_they_look_at() {
    let mut h = Harness::new(1);
    for command in ["create", "collMod"] {
        for good in [
            doc! { "$jsonSchema": { "required": ["nhs"], "properties": { "x": { "bsonType": "int" }, "nhs": { "bsonType": "binData" } } } },
            doc! { "x": { "$gt": 3 }, "nhs": { "$exists": true } },
            doc! { "$or": [{ "$jsonSchema": { "required": ["nhs"] } }, { "$expr": { "$gt": ["$x", "$y"] } }] },
        ] {
            h.command(doc! { command: "p", "validator": good, "validationLevel": "moderate", "validationAction": "warn" })
                .sent();
        }
        for (bad, words) in [
            (
                doc! { "$jsonSchema": { "properties": { "nhs": { "minLength": 10 } } } },
                ["nhs", "minLength"],
            ),
            (doc! { "$and": [{ "nhs": "SECRET" }] }, ["validator", "$exists"]),
            (
                doc! { "$expr": { "$eq": ["$nhs", "SECRET"] } },
                ["validator", "key"],
            ),
            (doc! { "nhs": { "$regex": "^SECRET" } }, ["nhs", "$regex"]),
            (doc! { "notes": { "$type": "string" } }, ["notes", "$type"]),
        ] {
            refuses(h.command(doc! { command: "p", "validator": bad }), &words);
        }
    }
    // What an application asks by a schema is told of the values, not of how they are stored.
    let schema = |properties: Document| doc! { "$jsonSchema": { "properties": properties } };
    filter(&mut h, schema(doc! { "x": { "minimum": 3 } })).sent();
    refuses(
        filter(&mut h, schema(doc! { "nhs": { "bsonType": "binData" } })),
        &["nhs", "bsonType"],
    );
}

#[test]
fn judges_what_create_and_coll_mod_say_of_protected_fields() {
    let mut h = Harness::new(1);
    for good in [
        doc! { "create": "p", "clusteredIndex": { "key": { "_id": 1 }, "unique": true }, "expireAfterSeconds": 60 },
        doc! { "create": "p", "changeStreamPreAndPostImages": { "enabled": true }, "collation": { "locale": "simple" } },
        doc! { "create": "p", "timeseries": { "timeField": "at", "metaField": "nhs" } },
        doc! { "create": "p", "timeseries": { "timeField": "at", "metaField": "contacts", "granularity": "hours" } },
        doc! { "create": "other", "validator": { "nhs": "x" }, "collation": { "locale": "en" }, "timeseries": { "timeField": "born" } },
        doc! { "collMod": "p", "index": { "keyPattern": { "x": 1 }, "expireAfterSeconds": 5 } },
        doc! { "collMod": "p", "index": { "name": "nhs_1", "hidden": true } },
    ] {
        h.command(good).sent();
    }
    for (bad, words) in [
        (
            doc! { "create": "p", "collation": { "locale": "en" } },
            vec!["collation", "leave it out"],
        ),
        (
            doc! { "create": "p", "encryptedFields": { "fields": [] } },
            vec!["encryptedFields", "leave it out"],
        ),
        (
            doc! { "create": "p", "timeseries": { "timeField": "born" } },
            vec!["timeField", "born"],
        ),
        (
            doc! { "create": "p", "timeseries": { "timeField": "at", "metaField": "address" } },
            vec!["metaField", "address"],
        ),
        (
            doc! { "create": "p", "timeseries": { "timeField": "at", "metaField": "notes" } },
            vec!["metaField", "notes"],
        ),
        (doc! { "create": "p", "pipeline": [] }, vec!["pipeline"]),
        (
            doc! { "collMod": "p", "index": { "keyPattern": { "born": 1 }, "expireAfterSeconds": 5 } },
            vec!["born", "date"],
        ),
        (
            doc! { "collMod": "p", "index": { "name": "born_1", "expireAfterSeconds": 5 } },
            vec!["keyPattern"],
        ),
    ] {
        refuses(h.command(bad), &words);
    }
}

#[test]
fn plans_queries_on_views_over_what_their_pipelines_yield() {
    let mut h = Harness::new(1);
    h.views(&[
        ("all", "p", vec![]),
        (
            "renamed",
            "p",
            vec![doc! { "$project": { "who": "$nhs", "x": 1, "mix": { "$ifNull": ["$nhs", "$notes"] } } }],
        ),
        (
            "nested",
            "renamed",
            vec![doc! { "$match": { "x": { "$gt": 3 } } }],
        ),
        (
            "joined",
            "wards",
            vec![doc! { "$lookup": { "from": "p", "localField": "a", "foreignField": "x", "as": "p" } }],
        ),
        (
            "grouped",
            "p",
            vec![doc! { "$group": { "_id": "$nhs", "n": { "$sum": 1 } } }],
        ),
        ("plain", "p", vec![doc! { "$project": { "x": 1 } }]),
        ("literal", "p", vec![doc! { "$match": { "nhs": "9434765919" } }]),
        ("above", "literal", vec![]),
        ("sorted", "p", vec![doc! { "$sort": { "nhs": 1 } }]),
        ("loop1", "loop2", vec![]),
        ("loop2", "loop1", vec![]),
        ("harmless", "wards", vec![]),
    ]);
    for (view, path) in [
        ("all", "nhs"),
        ("renamed", "who"),
        ("nested", "who"),
        ("joined", "p.nhs"),
        ("grouped", "_id"),
    ] {
        let filter = doc! { path: "SECRET", "x": 1 };
        for command in [
            doc! { "find": view, "filter": filter.clone() },
            doc! { "count": view, "query": filter.clone() },
            doc! { "distinct": view, "key": path, "query": filter.clone() },
            doc! { "aggregate": view, "pipeline": [{ "$match": filter.clone() }], "cursor": {} },
            doc! { "aggregate": "wards", "pipeline": [{ "$lookup": { "from": view, "pipeline": [{ "$match": filter.clone() }], "as": "y" } }], "cursor": {} },
            doc! { "explain": { "find": view, "filter": filter.clone() } },
        ] {
            let sent = h.command(command.clone()).sent().to_string();
            assert!(!sent.contains("SECRET") && sent != command.to_string(), "{sent}");
        }
    }
    for command in [
        doc! { "find": "renamed", "filter": { "mix": "SECRET" } },
        doc! { "find": "renamed", "filter": { "who": { "$gt": "SECRET" } } },
        doc! { "find": "renamed", "filter": {}, "sort": { "who": 1 } },
        doc! { "find": "joined", "filter": { "p": { "nhs": "SECRET" } } },
        doc! { "insert": "all", "documents": [{ "nhs": "SECRET" }] },
        doc! { "update": "all", "updates": [{ "q": { "nhs": "SECRET" }, "u": {} }] },
        doc! { "explain": { "delete": "all", "deletes": [{ "q": { "nhs": "SECRET" }, "limit": 1 }] } },
        doc! { "mapReduce": "all", "map": "SECRET" },
    ] {
        refuses(h.command(command), &[]);
    }
    for view in ["literal", "above", "sorted", "loop1", "loop2"] {
        let inside = doc! { "$unionWith": { "coll": view, "pipeline": [{ "$match": { "nhs": "SECRET" } }] } };
        for command in [
            doc! { "find": view, "filter": { "nhs": "SECRET" } },
            doc! { "aggregate": "wards", "pipeline": [inside], "cursor": {} },
        ] {
            refuses(h.command(command), &[view]);
        }
        h.command(doc! { "drop": view }).sent();
    }
    for view in ["plain", "harmless"] {
        let find = doc! { "find": view, "filter": { "x": "anything" }, "$db": "c" };
        assert_eq!(h.command(find.clone()).sent(), find);
    }
    // A rotation under way: only what needs one stored form is held up.
    let mut rotating = Harness::new(2);
    rotating.found = h.found.clone();
    rotating
        .command(doc! { "find": "renamed", "filter": { "who": "SECRET" } })
        .sent();
    refuses(
        rotating.command(doc! { "find": "grouped", "filter": {} }),
        &["nhs", "rotating"],
    );
}

#[test]
fn tells_of_views_that_are_made_and_dropped() {
    use fieldveil::policy::found::Change;
    let mut h = Harness::new(1);
    let made = doc! { "create": "v", "viewOn": "p", "pipeline": [{ "$project": { "nhs": 1 } }], "comment": "SECRET" };
    assert!(!h.command(made.clone()).sent().contains_key("comment"));
    h.reply(doc! { "ok": 0, "code": 48, "errmsg": "exists" });
    assert!(h.session.take_changes().is_empty());
    h.command(made).sent();
    h.reply(doc! { "ok": 1 });
    let changes = h.session.take_changes();
    assert!(
        matches!(&changes[..], [Change::View(view)] if view.name.as_str() == "c.v" && view.source == "p")
    );
    h.command(doc! { "drop": "v" }).sent();
    h.reply(doc! { "ok": 1 });
    assert!(matches!(&h.session.take_changes()[..], [Change::Dropped(name)] if name.as_str() == "c.v"));
}

#[test]
fn leaves_errors_and_plans_sealed() {
    let mut h = Harness::new(1);
    let (stored, _) = h
        .round_trip(vec![doc! { "nhs": "SECRET", "errmsg": "BinData(6, 01)" }])
        .unwrap();
    let sealed = stored[0].get("nhs").unwrap().clone();
    h.command(doc! { "insert": "p", "documents": [{ "nhs": "SECRET" }] })
        .sent();
    let read = h.reply(doc! { "ok": 1, "n": 0, "writeErrors": [{ "index": 0, "code": 121, "errmsg": "Document failed validation",
        "errInfo": { "details": { "operatorName": "$type", "consideredValue": sealed.clone(), "nested": [{ "consideredValues": [sealed.clone()] }] } } }] });
    assert!(
        read.to_string().contains("<protected>") && !read.to_string().contains("SECRET"),
        "{read}"
    );
    h.command(doc! { "findAndModify": "p", "query": {}, "update": { "$set": { "x": 1 } } })
        .sent();
    let read = h.reply(doc! { "ok": 0, "code": 11000, "keyPattern": { "moving": 1 }, "keyValue": { "moving": "SECRET", "x": 3 },
        "errmsg": "E11000 dup key: { moving: \"SECRET\", x: 3 }" });
    assert!(
        !read.to_string().contains("SECRET")
            && read.get_document("keyValue").unwrap().get_i32("x").unwrap() == 3,
        "{read}"
    );
    h.command(doc! { "aggregate": "p", "pipeline": [{ "$match": { "nhs": "SECRET" } }], "explain": true, "cursor": {} }).sent();
    let read =
        h.reply(doc! { "queryPlanner": { "parsedQuery": { "nhs": { "$eq": sealed.clone() } } }, "ok": 1 });
    assert!(is_sealed(
        read.get_document("queryPlanner")
            .unwrap()
            .get_document("parsedQuery")
            .unwrap()
            .get_document("nhs")
            .unwrap()
            .get("$eq")
    ));
    // A document is no error, whatever its fields are called.
    h.command(doc! { "find": "p", "filter": {} }).sent();
    let read = h.reply(doc! { "cursor": { "firstBatch": [{ "errmsg": "BinData(6, 01)", "keyValue": { "nhs": sealed } }], "id": 0_i64, "ns": "c.p" }, "ok": 1 });
    assert!(
        read.to_string().contains("BinData(6, 01)") && read.to_string().contains("SECRET"),
        "{read}"
    );
}

#[test]
fn asks_for_nonces_before_anything_leaves_and_only_for_random_fields() {
    let mut h = Harness::new(1);
    h.on_lease();
    h.command(doc! { "insert": "p", "documents": [{ "nhs": "1", "age": 7 }] })
        .sent();
    assert!(h.leased.is_empty(), "{:?}", h.leased);
    let document = doc! { "nhs": "1", "notes": "a", "tags": ["b", "c"], "address": { "line1": "d" } };
    let sent = h.command(doc! { "insert": "p", "documents": [document] }).sent();
    let stored = sent.get_array("documents").unwrap()[0].as_document().unwrap();
    assert!(is_sealed(stored.get("notes")) && is_sealed(stored.get("nhs")));
    let leased: Vec<_> = h
        .leased
        .iter()
        .map(|(domain, suite, n)| (domain.as_str(), *suite, *n))
        .collect();
    assert_eq!(
        leased,
        [
            ("c.p.notes", "aes-256-gcm", 5),
            ("c.p.tags", "aes-256-gcm", 5),
            ("c.p.address.line1", "chacha20-poly1305", 5)
        ]
    );
}

#[test]
fn follows_an_expression_in_a_sliced_projection() {
    let mut h = Harness::new(1);
    let slice = |of: Document| doc! { "find": "p", "projection": { "x": { "$slice": [of, 1] } } };
    let cond = |value: &str| doc! { "$filter": { "input": "$tags2", "cond": { "$eq": ["$nhs", value] } } };
    let sent = h.command(slice(cond("SECRET"))).sent();
    assert!(!sent.to_string().contains("SECRET"), "{sent}");
    refuses(
        h.command(slice(
            doc! { "$map": { "input": "$x", "in": { "$concat": ["$nhs", "SECRET"] } } },
        )),
        &["nhs", "$concat"],
    );
    // With numbers it is the projection's own operator.
    for operand in [bson!(1), bson!([0, 1]), bson!(-1.0)] {
        let command = doc! { "find": "p", "projection": { "tags": { "$slice": operand } } };
        assert_eq!(
            h.command(command.clone()).sent().get("projection"),
            command.get("projection")
        );
    }
}

#[test]
fn refuses_set_operators_on_strings_under_a_collation() {
    let mut h = Harness::with(
        "\n[[collection]]\nnamespace = \"c.words\"\n[collection.fields]\nwords = { mode = \"deterministic\", type = \"string\" }\n\
         \"list.word\" = { mode = \"deterministic\", type = \"string\" }\ndays = { mode = \"deterministic\", type = \"date\", accept_leakage = \"x\" }\n",
        1,
    );
    let update = |u: Document, collation: Document| doc! { "update": "words", "updates": [{ "q": {}, "u": u, "collation": collation }] };
    let day = Bson::from(bson::DateTime::from_millis(5));
    for (u, path) in [
        (doc! { "$addToSet": { "words": "SECRET" } }, "words"),
        (
            doc! { "$addToSet": { "list": { "word": "SECRET" } } },
            "list.word",
        ),
        (doc! { "$pullAll": { "words": ["SECRET"] } }, "words"),
    ] {
        refuses(
            h.command(update(u.clone(), doc! { "locale": "en", "strength": 1 })),
            &[path, "collation"],
        );
        refuses(
            h.command(doc! { "findAndModify": "words", "query": {}, "update": u.clone(), "collation": { "locale": "en" } }),
            &[path, "collation"],
        );
        h.command(update(u, doc! { "locale": "simple" })).sent();
    }
    for u in [
        doc! { "$addToSet": { "days": day.clone() } },
        doc! { "$pullAll": { "days": [day] } },
    ] {
        h.command(update(u, doc! { "locale": "en" })).sent();
    }
}

#[test]
fn refuses_to_explain_a_command_of_another_database() {
    let mut h = Harness::new(1);
    let explain = |db: &str| doc! { "explain": { "find": "p", "filter": { "nhs": "SECRET" }, "$db": db } };
    refuses(h.command_on("admin", explain("c")), &["$db"]);
    refuses(h.command_on("c", explain("admin")), &["$db"]);
    let sent = h.command_on("c", explain("c")).sent();
    assert!(!sent.to_string().contains("SECRET"), "{sent}");
}

#[test]
fn refuses_unknown_commands_that_name_database_and_collection_apart() {
    let mut h = Harness::new(1);
    for command in [
        doc! { "setQuerySettings": { "find": "p", "filter": { "nhs": "SECRET" }, "$db": "c" }, "settings": {} },
        doc! { "run": 1, "commands": [{ "db": "c", "command": { "insert": "p", "documents": [{ "nhs": "SECRET" }] } }] },
        doc! { "run": 1, "in": { "collection": "p" }, "of": ["c"] },
    ] {
        refuses(h.command_on("admin", command), &["command"]);
    }
    h.command_on(
        "admin",
        doc! { "setQuerySettings": { "find": "open", "filter": { "nhs": 1 }, "$db": "c" } },
    )
    .sent();
    h.command_on(
        "admin",
        doc! { "setQuerySettings": { "find": "p", "filter": {}, "$db": "d" } },
    )
    .sent();
}

#[test]
fn drops_comments_below_plain_paths() {
    let mut h = Harness::new(1);
    for condition in [
        doc! { "$elemMatch": { "$comment": "SECRET", "k": 1 } },
        doc! { "$not": { "$elemMatch": { "$comment": "SECRET", "k": 1 } } },
        doc! { "$all": [{ "$elemMatch": { "$or": [{ "k": { "$elemMatch": { "$comment": "SECRET" } } }] } }] },
    ] {
        let f = the_filter(filter(&mut h, doc! { "list": condition }));
        assert!(
            !f.to_string().contains("SECRET") && !f.to_string().contains("$comment"),
            "{f}"
        );
    }
    // A value that is compared with is no condition.
    let literal = doc! { "list": { "$eq": { "$comment": 5 } }, "other": { "a": { "$comment": 5 } } };
    assert_eq!(the_filter(filter(&mut h, literal.clone())), literal);
}

#[test]
fn compares_enclosing_fields_with_what_holds_nothing_protected() {
    for keys in [1, 2] {
        let mut h = Harness::new(keys);
        for same in [
            doc! { "contacts": [] },
            doc! { "contacts": { "$ne": [] }, "address": { "$ne": {} } },
            doc! { "contacts": { "$nin": [null, [], [{ "kind": "home" }, { "phone": null }]] } },
            doc! { "address": { "city": "Leeds", "line1": null } },
            doc! { "tags": { "$ne": [] } },
            doc! { "nhs": { "$in": [[], [null]] }, "moving": { "$nin": [[]] } },
            doc! { "contacts": { "$elemMatch": { "$exists": true, "$nin": [null, []] } } },
            doc! { "contacts": { "$elemMatch": { "$not": { "$type": "object" } } } },
            doc! { "nhs": { "$type": ["null", 4] }, "notes": { "$type": 10 }, "tags": { "$type": "array" } },
        ] {
            assert_eq!(the_filter(filter(&mut h, same.clone())), same);
        }
        for (refused, path) in [
            (doc! { "contacts": [{ "phone": "SECRET" }] }, "contacts"),
            (
                doc! { "contacts": { "$in": [[], { "0": { "phone": "SECRET" } }] } },
                "contacts",
            ),
            (
                doc! { "contacts": { "$ne": { "x": 1, "a.phone": "SECRET" } } },
                "contacts",
            ),
            (
                doc! { "contacts": { "$elemMatch": { "$eq": { "phone": "SECRET" } } } },
                "contacts",
            ),
            (doc! { "address": { "line1": [] } }, "address"),
            (doc! { "notes": [] }, "notes"),
            (doc! { "tags": { "$in": [["SECRET"]] } }, "tags"),
            (doc! { "notes": { "$type": "array" } }, "notes"),
            (doc! { "nhs": { "$type": ["null", "string"] } }, "nhs"),
        ] {
            refuses(filter(&mut h, refused), &[path]);
        }
        let pull = |condition: Document| doc! { "$pull": { "contacts": condition } };
        for same in [doc! { "$exists": true }, doc! { "$in": [null, {}] }] {
            let u = the_update(update(&mut h, doc! {}, pull(same.clone()), false));
            assert_eq!(u, pull(same));
        }
        refuses(
            update(
                &mut h,
                doc! {},
                pull(doc! { "$in": [{ "phone": "SECRET" }] }),
                false,
            ),
            &["contacts"],
        );
    }
}

#[test]
fn answers_malformed_operands_with_the_codes_of_the_server() {
    let mut h = Harness::new(1);
    let code = |outcome: Outcome| match outcome {
        Outcome::Answered(doc) => (
            doc.get_i32("code").unwrap(),
            doc.get_str("codeName").unwrap().to_owned(),
        ),
        Outcome::Sent(doc) => panic!("went through: {doc}"),
    };
    for bad in [
        doc! { "$and": { "nhs": "SECRET" } },
        doc! { "nhs": { "$in": "SECRET" } },
        doc! { "nhs": { "$all": "SECRET" } },
        doc! { "nhs": { "$not": "SECRET" } },
        doc! { "nhs": { "$size": "SECRET" } },
        doc! { "contacts": { "$elemMatch": "SECRET" } },
        doc! { "contacts": { "$in": "SECRET" } },
    ] {
        assert_eq!(
            code(filter(&mut h, bad.clone())),
            (2, "BadValue".to_owned()),
            "{bad}"
        );
    }
    for (bad, number, name) in [
        (doc! { "$set": { "a..b": "SECRET" } }, 56, "EmptyFieldName"),
        (
            doc! { "$set": { "$foo": "SECRET" } },
            52,
            "DollarPrefixedFieldName",
        ),
        (doc! { "$set": "SECRET" }, 9, "FailedToParse"),
        (
            doc! { "$push": { "contacts": { "$each": "SECRET" } } },
            2,
            "BadValue",
        ),
        (
            doc! { "$push": { "contacts": { "$each": [], "$foo": "SECRET" } } },
            2,
            "BadValue",
        ),
    ] {
        assert_eq!(
            code(update(&mut h, doc! {}, bad.clone(), false)),
            (number, name.to_owned()),
            "{bad}"
        );
    }
    for bad in [
        doc! { "q": {}, "u": "SECRET" },
        doc! { "q": "SECRET", "u": { "$set": { "x": 1 } } },
    ] {
        assert_eq!(
            code(h.command(doc! { "update": "p", "updates": [bad.clone()] })).0,
            9,
            "{bad}"
        );
    }
    let filters = |filters: Bson| doc! { "update": "p", "updates": [{ "q": {}, "u": { "$set": { "contacts.$[c].phone": "SECRET" } }, "arrayFilters": filters }] };
    assert_eq!(code(h.command(filters(bson!({ "c.phone": "SECRET" })))).0, 14);
    refuses(
        h.command(filters(bson!([{ "d.phone": "SECRET" }]))),
        &["'d'", "arrayFilters"],
    );
}

#[test]
fn refuses_binaries_that_could_not_be_read_back() {
    let mut h = Harness::new(1);
    let own = Bson::Binary(bson::Binary {
        subtype: bson::spec::BinarySubtype::UserDefined(0x80),
        bytes: vec![2, 1, 7],
    });
    for stored in [
        doc! { "ward": own.clone() },
        doc! { "meta": { "list": [1, { "a": own.clone() }] } },
        doc! { "contacts": [{ "kind": own.clone() }] },
    ] {
        refuses(
            h.command(doc! { "insert": "p", "documents": [stored.clone()] }),
            &["subtype"],
        );
        refuses(update(&mut h, doc! {}, stored.clone(), false), &["subtype"]);
        refuses(
            update(&mut h, doc! {}, doc! { "$set": stored }, false),
            &["subtype"],
        );
    }
    refuses(
        update(&mut h, doc! {}, doc! { "$push": { "list": own.clone() } }, false),
        &["'list'", "subtype"],
    );
    // Inside a sealed value it is only a value, and elsewhere nobody's business.
    for (collection, stored) in [
        ("p", doc! { "notes": own.clone(), "tags": [own.clone()] }),
        ("p", doc! { "notes": { "deep": [own.clone()] } }),
        ("open", doc! { "ward": own }),
    ] {
        h.command(doc! { "insert": collection, "documents": [stored] })
            .sent();
    }
}

#[test]
fn refuses_ciphertext_in_the_filter_of_an_upsert() {
    let mut h = Harness::new(1);
    let (sealed, _) = stored(&mut h);
    let set = doc! { "$set": { "x": 1 } };
    for q in [
        doc! { "ward": sealed.clone() },
        doc! { "_id": { "a": sealed.clone() } },
        doc! { "$and": [{ "ward": { "$in": [sealed.clone()] } }] },
    ] {
        refuses(update(&mut h, q.clone(), set.clone(), true), &["ciphertext"]);
        refuses(
            h.command(
                doc! { "findAndModify": "p", "query": q.clone(), "update": set.clone(), "upsert": true },
            ),
            &["ciphertext"],
        );
        let ops = vec![doc! { "update": 0, "filter": q.clone(), "updateMods": set.clone(), "upsert": true }];
        refuses(
            h.command_on(
                "admin",
                doc! { "bulkWrite": 1, "nsInfo": [{ "ns": "c.p" }], "ops": ops },
            ),
            &["ciphertext"],
        );
        // Without it nothing is stored.
        update(&mut h, q, set.clone(), false).sent();
    }
}

#[test]
fn takes_no_keyword_of_a_schema_for_a_field() {
    let mut h = Harness::with(
        "\n[[collection]]\nnamespace = \"c.papers\"\n[collection.fields]\ntitle = { mode = \"random\" }\ndescription = { mode = \"random\" }\n",
        1,
    );
    let schema =
        doc! { "$jsonSchema": { "title": "papers", "description": "those with one", "required": ["title"] } };
    for filter in [schema.clone(), doc! { "$nor": [schema] }] {
        let sent = h
            .command(doc! { "find": "papers", "filter": filter.clone() })
            .sent();
        assert_eq!(sent.get_document("filter").unwrap(), &filter);
    }
    let judged = doc! { "$jsonSchema": { "properties": { "title": { "pattern": "SECRET" } } } };
    refuses(
        h.command(doc! { "find": "papers", "filter": judged }),
        &["title", "pattern"],
    );
}

#[test]
fn rejects_an_upsert_that_says_a_whole_and_what_stands_in_it_in_two_forms() {
    let mut h = Harness::new(2);
    let set = doc! { "$set": { "x": 1 } };
    for q in [
        doc! { "contacts": { "kind": "home" }, "contacts.phone": "SECRET" },
        doc! { "contacts.phone": "SECRET", "$and": [{ "contacts": { "$ne": 5, "$eq": {} } }] },
        doc! { "contacts": null, "contacts.phone": { "$in": ["SECRET"] } },
    ] {
        refuses(
            update(&mut h, q.clone(), set.clone(), true),
            &["contacts.phone", "upsert"],
        );
        update(&mut h, q, set.clone(), false).sent();
    }
    let q = doc! { "contacts": { "$exists": true }, "contacts.phone": "SECRET", "address": {} };
    update(&mut h, q, set, true).sent();
}

#[test]
fn refuses_conditions_that_nest_too_deep_wherever_they_stand() {
    let nested = |levels: usize, around: &dyn Fn(Document) -> Document| {
        (0..levels).fold(doc! { "$exists": true }, |inner, _| around(inner))
    };
    let mut h = Harness::new(1);
    for around in [
        &(|inner| doc! { "$not": inner }) as &dyn Fn(Document) -> Document,
        &|inner| doc! { "$elemMatch": inner },
        &|inner| doc! { "$all": [inner] },
        &|inner| doc! { "$elemMatch": { "$or": [{ "k": inner }] } },
    ] {
        for path in ["nhs", "contacts", "list", "contacts.kind"] {
            let condition = nested(300, around);
            // What is no operator there is refused as such.
            let text = filter(&mut h, doc! { path: condition.clone() }).refused();
            assert!(text.contains("levels") || path == "nhs", "{path}: {text}");
            let pull = doc! { "$pull": { "contacts": { path: condition.clone() } } };
            update(&mut h, doc! {}, pull, false).refused();
            update(
                &mut h,
                doc! {},
                doc! { "$pull": { path: condition.clone() } },
                false,
            );
            h.command(doc! { "findAndModify": "p", "query": { path: condition }, "upsert": true, "update": { "$set": { "x": 1 } } })
                .refused();
        }
    }
}
