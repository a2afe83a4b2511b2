//! That growing reaches what it is there for, and a short run of it with every build.

use bson::doc;

use super::grammar::{self, SECRET, Source};
use super::{ask, encode, fuzz_plan_apply, with_session};

/// Bytes that look random and are the same on every run (xorshift, Marsaglia 2003).
fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_le_bytes()[3]
        })
        .collect()
}

#[test]
fn grows_every_command_with_protected_values() {
    let grown: Vec<_> = (0..500)
        .map(|seed| grammar::command(&mut Source::new(&bytes(seed, 300))))
        .collect();
    for name in [
        "insert",
        "update",
        "delete",
        "find",
        "findAndModify",
        "count",
        "distinct",
        "aggregate",
        "explain",
        "bulkWrite",
        "create",
        "collMod",
        "createIndexes",
    ] {
        assert!(
            grown
                .iter()
                .any(|command| command.contains_key(name) && command.to_string().contains(SECRET)),
            "no {name} with a protected value"
        );
    }
}

#[test]
fn keeps_protected_values_in_whatever_command() {
    for seed in 0..6000 {
        let mut data = vec![0xff; 4];
        data.extend(bytes(seed, 300));
        fuzz_plan_apply(&data);
    }
}

/// Found by fuzzing: operators behind a field, and `$[` without its end, which the planner took for names of fields.
#[test]
fn keeps_to_one_reading_of_an_update_that_the_proof_reads_otherwise() {
    for update in [
        doc! { "$set": { "contacts.$[x.phone": "1" } },
        doc! { "x": 1, "$min": { "age": 1 } },
        doc! { "\u{a4}set": { "born": 1 }, "$set": { "nhs": "1" } },
    ] {
        let command = doc! { "findAndModify": "p", "query": { "nhs": "1" }, "update": update, "$db": "c" };
        let frame = encode::command(1, &bson::serialize_to_vec(&command).unwrap()).unwrap();
        let mut data = u32::try_from(frame.len()).unwrap().to_le_bytes().to_vec();
        data.extend(frame);
        fuzz_plan_apply(&data);
    }
}

/// Found by fuzzing: a dotted name in an object of an expression, which the server refuses after it has logged the
/// value, and a field that a later stage drops again.
#[test]
fn keeps_what_objects_of_an_updates_pipeline_set() {
    let line = || format!("{SECRET} 1");
    for stages in [
        vec![
            doc! { "$replaceWith": { "$mergeObjects": ["$$ROOT", { "address.line1": { "$literal": line() } }] } },
        ],
        vec![doc! { "$replaceWith": { "address.line1": line() } }],
        vec![doc! { "$set": { "address": { "line1.x": line() } } }],
        vec![
            doc! { "$replaceWith": { "$setField": { "field": "address.line1", "input": "$$ROOT", "value": line() } } },
        ],
        vec![
            doc! { "$replaceWith": { "$setField": { "field": "moving", "input": "$$ROOT", "value": line() } } },
            doc! { "$replaceWith": { "$literal": { "ward": "a" } } },
        ],
    ] {
        let update = doc! { "update": "p", "updates": [{ "q": {}, "u": stages }], "$db": "c" };
        keeps(&update);
    }
}

/// Found by fuzzing: a literal beside a field that an earlier stage removed.
#[test]
fn keeps_what_is_compared_with_a_removed_field() {
    let line = || format!("{SECRET} 1");
    let same = |path: &str| doc! { "$eq": [path, line()] };
    for stages in [
        vec![
            doc! { "$project": { "ward": 1 } },
            doc! { "$set": { "ward": { "$cond": [same("$address.line1"), 1, 2] } } },
        ],
        vec![
            doc! { "$replaceWith": { "ward": "$ward" } },
            doc! { "$set": { "ward": same("$$ROOT.nhs") } },
        ],
    ] {
        keeps(&doc! { "update": "p", "updates": [{ "q": {}, "u": stages }], "$db": "c" });
    }
    for (first, then) in [
        (
            doc! { "$project": { "ward": 1 } },
            doc! { "$match": { "nhs": line() } },
        ),
        (
            doc! { "$unset": "contacts" },
            doc! { "$match": { "contacts.phone": line() } },
        ),
        (
            doc! { "$unset": "address.line1" },
            doc! { "$match": { "$or": [{ "address.line1": line() }] } },
        ),
        (
            doc! { "$group": { "_id": "$ward", "n": { "$sum": 1 } } },
            doc! { "$match": { "$expr": same("$nhs") } },
        ),
        (
            doc! { "$project": { "nhs": 0 } },
            doc! { "$facet": { "a": [{ "$match": { "nhs": line() } }] } },
        ),
        (doc! { "$count": "n" }, doc! { "$set": { "same": same("$nhs") } }),
    ] {
        let pipeline = [first, doc! { "$limit": 5 }, then];
        keeps(&doc! { "aggregate": "p", "pipeline": pipeline.to_vec(), "cursor": {}, "$db": "c" });
    }
}

fn keeps(command: &bson::Document) {
    let frame = encode::command(1, &bson::serialize_to_vec(command).unwrap()).unwrap();
    with_session(|session, cx| {
        let (to_server, to_client) = ask(session, cx, &frame);
        for left in [to_server, to_client] {
            let found = memchr::memmem::find(&left, SECRET.as_bytes());
            assert!(found.is_none(), "{command}");
        }
    });
}

/// Found by fuzzing: a command that is forwarded as it is, with an argument of another.
#[test]
fn keeps_arguments_that_a_forwarded_command_does_not_have() {
    let value = format!("{SECRET} 1");
    let command = doc! { "connPoolStats": "p", "query": { "nhs": &value }, "$db": "c" };
    keeps(&command);
    let frame = encode::command(1, &bson::serialize_to_vec(&command).unwrap()).unwrap();
    let mut data = u32::try_from(frame.len()).unwrap().to_le_bytes().to_vec();
    data.extend(frame);
    fuzz_plan_apply(&data);
}
