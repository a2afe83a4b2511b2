//! Laws that hold for any document: what is stored comes back byte for byte, and bytes that no rule names stay as they
//! are.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod common;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};
use common::{Harness, is_sealed, to_bytes};
use proptest::prelude::*;

/// Any value that may stand in an unprotected field or under a random rule.
fn any_value(depth: u32) -> BoxedStrategy<Bson> {
    let leaf = prop_oneof![
        any::<i32>().prop_map(Bson::Int32),
        any::<i64>().prop_map(Bson::Int64),
        any::<f64>().prop_map(Bson::Double),
        any::<bool>().prop_map(Bson::Boolean),
        ".{0,40}".prop_map(Bson::String),
        any::<i64>().prop_map(|ms| Bson::DateTime(bson::DateTime::from_millis(ms))),
        any::<[u8; 12]>().prop_map(|id| Bson::ObjectId(bson::oid::ObjectId::from_bytes(id))),
        prop::collection::vec(any::<u8>(), 0..64).prop_map(|bytes| Bson::Binary(Binary {
            subtype: BinarySubtype::Generic,
            bytes
        })),
        Just(Bson::Null),
    ];
    leaf.prop_recursive(depth, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Bson::Array),
            prop::collection::vec(("[a-z]{1,8}", inner), 0..5)
                .prop_map(|fields| Bson::Document(fields.into_iter().collect())),
        ]
    })
    .boxed()
}

fn text() -> BoxedStrategy<Bson> {
    prop_oneof![".{0,60}".prop_map(Bson::String), Just(Bson::Null)].boxed()
}

/// A null in an array that is sealed as one value is refused.
fn without_nulls(value: Bson) -> Bson {
    match value {
        Bson::Array(items) => items.into_iter().filter(|item| *item != Bson::Null).collect(),
        other => other,
    }
}

/// Any document of the sample collection, some of its protected fields present.
fn any_document() -> impl Strategy<Value = Document> {
    let one_or_many = |value: BoxedStrategy<Bson>| {
        prop_oneof![
            value.clone(),
            prop::collection::vec(value, 0..4).prop_map(Bson::Array)
        ]
        .boxed()
    };
    let contact = (text(), any_value(1))
        .prop_map(|(phone, kind)| Bson::Document(doc! { "phone": phone, "kind": kind }));
    let fields = (
        prop::option::of(one_or_many(text())),
        prop::option::of(any::<i32>().prop_map(Bson::Int32)),
        prop::option::of(any::<i64>().prop_map(Bson::Int64)),
        prop::option::of(any_value(3).prop_map(without_nulls)),
        prop::option::of(one_or_many(any_value(1))),
        prop::option::of(one_or_many(contact.boxed())),
        prop::option::of(any_value(2).prop_map(without_nulls)),
        prop::option::of(text()),
        prop::collection::vec(("[A-Z]{1,6}", any_value(2)), 0..5),
    );
    fields.prop_map(
        |(nhs, age, count, notes, tags, contacts, line1, moving, others)| {
            let mut document = Document::new();
            let named = [
                ("nhs", nhs),
                ("age", age),
                ("count", count),
                ("notes", notes),
                ("tags", tags),
                ("contacts", contacts),
                ("moving", moving),
            ];
            let mut others = others.into_iter();
            for (name, value) in named {
                if let Some((key, value)) = others.next() {
                    document.insert(key, value);
                }
                if let Some(value) = value {
                    document.insert(name, value);
                }
            }
            if let Some(line1) = line1 {
                document.insert("address", doc! { "line1": line1, "town": "Leeds" });
            }
            document
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn what_is_stored_comes_back_byte_for_byte(document in any_document()) {
        let mut harness = Harness::new(1);
        let (stored, read) = harness.round_trip(vec![document.clone()]).expect("nothing in it is refused");
        prop_assert_eq!(to_bytes(&read[0]), to_bytes(&document));
        for name in ["nhs", "age", "count", "notes", "moving"] {
            match (document.get(name), stored[0].get(name)) {
                (None, None) | (Some(Bson::Null), Some(Bson::Null)) => {}
                (Some(Bson::Array(_)), Some(Bson::Array(items))) => {
                    prop_assert!(items.iter().all(|i| matches!(i, Bson::Null) || is_sealed(Some(i))), "{} {:?}", name, items);
                }
                (_, now) => prop_assert!(is_sealed(now), "{} is {:?}", name, now),
            }
        }
    }

    #[test]
    fn what_no_rule_names_stays_as_it_is(document in any_document()) {
        let mut harness = Harness::new(1);
        let (stored, _) = harness.round_trip(vec![document.clone()]).expect("nothing in it is refused");
        for (key, value) in &document {
            if key.chars().all(|c| c.is_ascii_uppercase()) {
                prop_assert_eq!(to_bytes(&doc! { "v": value.clone() }), to_bytes(&doc! { "v": stored[0].get(key).unwrap().clone() }));
            }
        }
        let keys: Vec<_> = document.keys().collect();
        prop_assert_eq!(keys, stored[0].keys().collect::<Vec<_>>());
    }

    #[test]
    fn equal_values_become_equal_ciphertexts(value in ".{0,40}") {
        let mut harness = Harness::new(1);
        let (stored, _) = harness.round_trip(vec![doc! { "nhs": &value }]).unwrap();
        let find = harness.command(doc! { "find": "p", "filter": { "nhs": &value } }).sent();
        prop_assert_eq!(find.get_document("filter").unwrap().get("nhs"), stored[0].get("nhs"));
    }
}
