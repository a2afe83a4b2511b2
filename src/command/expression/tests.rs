//! What each operator does with plain, sealed, enclosing and unknown operands.

use std::sync::Arc;

use bson::{Bson, Document, bson, doc};

use super::operators::OPERATORS;
use super::{Variables, plan};
use crate::bson::Doc;
use crate::command::rehearsal::{Keys, det, perform, policy, rule};
use crate::plan::Draft;
use crate::policy::{DeclaredType, FieldState, Mode, Reason, Refusal, Shape};

struct World {
    shape: Shape,
    variables: Variables,
    keys: usize,
}

fn world() -> World {
    world_in(FieldState::Enforced, 1)
}

fn world_in(state: FieldState, keys: usize) -> World {
    let mut rules = vec![
        det("nhs", DeclaredType::String),
        det("nhs2", DeclaredType::String),
        det("age", DeclaredType::Int),
        det("dob", DeclaredType::Date),
        det("phones", DeclaredType::String),
        rule("notes", Mode::Random),
        rule("tags", Mode::Random),
        det("contacts.phone", DeclaredType::String),
        rule("address.line1", Mode::Random),
    ];
    rules[1].domain = "nhs".into();
    rules[6].each = true;
    for rule in &mut rules {
        rule.state = state;
    }
    let shape = policy("clinic.patients", rules).shape.clone();
    let mut variables = Variables::default();
    variables.bind(b"plain", Shape::Plain).unwrap();
    variables.bind(b"odd", Shape::Unknown).unwrap();
    if let Shape::Tree(tree) = &shape {
        variables.bind(b"nhs", tree.child(b"nhs")).unwrap();
    }
    World {
        shape,
        variables,
        keys,
    }
}

impl World {
    /// The expression after planning, and what it yields.
    fn plan(&self, expression: impl Into<Bson>) -> Result<(Bson, String), Refusal> {
        self.plan_as("e", expression.into())
    }

    fn plan_as(&self, key: &str, expression: Bson) -> Result<(Bson, String), Refusal> {
        let bytes = doc! { key: expression }.to_vec().unwrap();
        let keys = Keys(self.keys);
        let mut draft = Draft::new(&bytes, &keys, None);
        let root = Doc::at(&bytes, 0).unwrap();
        let element = root.get(key.as_bytes()).unwrap().unwrap();
        let region = draft.open_doc(&root);
        let yielded = plan(&mut draft, &element, &self.shape, &self.variables)?;
        draft.close(region, root.end());
        let mut after = perform(&bytes, &draft.finish(), self.keys);
        Ok((after.remove(key).unwrap(), show(&yielded)))
    }
}

fn show(shape: &Shape) -> String {
    match shape {
        Shape::Plain => "plain".to_owned(),
        Shape::Sealed(rule) => rule.path.to_string(),
        Shape::Unknown => "unknown".to_owned(),
        Shape::Tree(tree) => {
            let fields: Vec<String> = tree
                .fields()
                .map(|(key, child)| format!("{}: {}", String::from_utf8_lossy(key), show(child)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

fn yields(expression: impl Into<Bson>) -> String {
    let expression = expression.into();
    world()
        .plan(expression.clone())
        .unwrap_or_else(|refusal| panic!("{expression}: {}", refusal.text))
        .1
}

fn becomes(expression: impl Into<Bson>) -> Bson {
    let expression = expression.into();
    world()
        .plan(expression.clone())
        .unwrap_or_else(|refusal| panic!("{expression}: {}", refusal.text))
        .0
}

fn refused(expression: impl Into<Bson>) -> Reason {
    let expression = expression.into();
    match world().plan(expression.clone()) {
        Ok((after, yielded)) => panic!("{expression} became {after}, yields {yielded}"),
        Err(refusal) => {
            assert!(!refusal.text.contains("SECRET"), "{}", refusal.text);
            refusal.reason
        }
    }
}

/// For each operator: a form that is forwarded as it is, and one that is refused.
fn examples() -> Vec<(&'static str, Option<Document>, Option<Document>)> {
    let mut list: Vec<(&'static str, Option<Document>, Option<Document>)> = vec![
        (
            "$accumulator",
            None,
            Some(doc! {"$accumulator": {"init": "function() {}"}}),
        ),
        (
            "$function",
            None,
            Some(doc! {"$function": {"body": "f", "args": [], "lang": "js"}}),
        ),
        (
            "$encStrContains",
            None,
            Some(doc! {"$encStrContains": {"input": "$name", "substring": "x"}}),
        ),
        (
            "$encStrEndsWith",
            None,
            Some(doc! {"$encStrEndsWith": {"input": "$name", "suffix": "x"}}),
        ),
        (
            "$encStrStartsWith",
            None,
            Some(doc! {"$encStrStartsWith": {"input": "$name", "prefix": "x"}}),
        ),
        (
            "$encStrNormalizedEq",
            None,
            Some(doc! {"$encStrNormalizedEq": {"input": "$name", "string": "x"}}),
        ),
        ("$rand", Some(doc! {"$rand": {}}), None),
        ("$createObjectId", Some(doc! {"$createObjectId": {}}), None),
        (
            "$literal",
            Some(doc! {"$literal": "$nhs"}),
            Some(doc! {"$literal": bson::Binary { subtype: 6.into(), bytes: vec![1; 40] }}),
        ),
        ("$const", Some(doc! {"$const": 1}), None),
        ("$meta", Some(doc! {"$meta": "textScore"}), None),
        (
            "$eq",
            Some(doc! {"$eq": ["$name", "x"]}),
            Some(doc! {"$eq": ["$notes", "SECRET"]}),
        ),
        (
            "$ne",
            Some(doc! {"$ne": ["$name", "x"]}),
            Some(doc! {"$ne": ["$notes", "SECRET"]}),
        ),
        (
            "$in",
            Some(doc! {"$in": ["$name", ["x"]]}),
            Some(doc! {"$in": ["$notes", ["SECRET"]]}),
        ),
        (
            "$indexOfArray",
            Some(doc! {"$indexOfArray": ["$list", "x", 1]}),
            Some(doc! {"$indexOfArray": ["$notes", "SECRET"]}),
        ),
        (
            "$and",
            Some(doc! {"$and": ["$name", "$nhs", true]}),
            Some(doc! {"$and": ["$age"]}),
        ),
        (
            "$or",
            Some(doc! {"$or": ["$name", "$nhs"]}),
            Some(doc! {"$or": ["$notes"]}),
        ),
        (
            "$not",
            Some(doc! {"$not": ["$dob"]}),
            Some(doc! {"$not": "$$odd"}),
        ),
        (
            "$cond",
            Some(doc! {"$cond": ["$name", "$nhs", null]}),
            Some(doc! {"$cond": ["$notes", 1, 2]}),
        ),
        (
            "$switch",
            Some(doc! {"$switch": {"branches": [{"case": true, "then": 1}], "default": 2}}),
            Some(doc! {"$switch": {"branches": [{"case": "$age", "then": 1}]}}),
        ),
        (
            "$ifNull",
            Some(doc! {"$ifNull": ["$nhs", "$nhs2"]}),
            Some(doc! {"$ifNull": ["$nhs.x", 1]}),
        ),
        (
            "$let",
            Some(doc! {"$let": {"vars": {"a": "$nhs"}, "in": "$$a"}}),
            Some(doc! {"$let": {"vars": {"CURRENT": "$contacts"}, "in": "$phone"}}),
        ),
        (
            "$type",
            Some(doc! {"$type": "$contacts"}),
            Some(doc! {"$type": "$nhs"}),
        ),
        (
            "$size",
            Some(doc! {"$size": "$phones"}),
            Some(doc! {"$size": "$notes"}),
        ),
        (
            "$isArray",
            Some(doc! {"$isArray": ["$tags"]}),
            Some(doc! {"$isArray": "$notes"}),
        ),
        (
            "$first",
            Some(doc! {"$first": "$phones"}),
            Some(doc! {"$first": "$notes"}),
        ),
        (
            "$last",
            Some(doc! {"$last": "$contacts"}),
            Some(doc! {"$last": "$notes"}),
        ),
        (
            "$arrayElemAt",
            Some(doc! {"$arrayElemAt": ["$tags", 0]}),
            Some(doc! {"$arrayElemAt": ["$list", "$age"]}),
        ),
        (
            "$slice",
            Some(doc! {"$slice": ["$phones", 2]}),
            Some(doc! {"$slice": ["$notes", 2]}),
        ),
        (
            "$reverseArray",
            Some(doc! {"$reverseArray": "$phones"}),
            Some(doc! {"$reverseArray": "$notes"}),
        ),
        (
            "$firstN",
            Some(doc! {"$firstN": {"input": "$phones", "n": 2}}),
            Some(doc! {"$firstN": {"input": "$notes", "n": 2}}),
        ),
        (
            "$lastN",
            Some(doc! {"$lastN": {"input": "$phones", "n": 2}}),
            Some(doc! {"$lastN": {"input": "$notes", "n": 2}}),
        ),
        (
            "$filter",
            Some(doc! {"$filter": {"input": "$contacts", "as": "c", "cond": {"$eq": ["$$c.kind", "x"]}}}),
            Some(doc! {"$filter": {"input": "$notes", "cond": true}}),
        ),
        (
            "$map",
            Some(doc! {"$map": {"input": "$contacts", "in": "$$this.phone"}}),
            Some(doc! {"$map": {"input": "$contacts", "in": {"$toUpper": "$$this.phone"}}}),
        ),
        (
            "$reduce",
            Some(
                doc! {"$reduce": {"input": "$list", "initialValue": 0, "in": {"$add": ["$$value", "$$this"]}}},
            ),
            Some(doc! {"$reduce": {"input": "$phones", "initialValue": "", "in": "$$this"}}),
        ),
        (
            "$sortArray",
            Some(doc! {"$sortArray": {"input": "$contacts", "sortBy": {"kind": 1}}}),
            Some(doc! {"$sortArray": {"input": "$contacts", "sortBy": {"phone": 1}}}),
        ),
        (
            "$concatArrays",
            Some(doc! {"$concatArrays": ["$phones", "$phones"]}),
            Some(doc! {"$concatArrays": ["$phones", "$notes"]}),
        ),
        (
            "$setUnion",
            Some(doc! {"$setUnion": ["$phones", "$phones"]}),
            Some(doc! {"$setUnion": ["$phones", "$list"]}),
        ),
        (
            "$setIntersection",
            Some(doc! {"$setIntersection": ["$list", ["x"]]}),
            Some(doc! {"$setIntersection": ["$tags", "$tags"]}),
        ),
        (
            "$setDifference",
            Some(doc! {"$setDifference": ["$phones", "$phones"]}),
            Some(doc! {"$setDifference": ["$list", "$phones"]}),
        ),
        (
            "$setEquals",
            Some(doc! {"$setEquals": ["$phones", "$phones"]}),
            Some(doc! {"$setEquals": ["$contacts", "$list"]}),
        ),
        (
            "$setIsSubset",
            Some(doc! {"$setIsSubset": ["$list", "$list"]}),
            Some(doc! {"$setIsSubset": [["SECRET"], "$tags"]}),
        ),
        (
            "$mergeObjects",
            Some(doc! {"$mergeObjects": ["$$ROOT", {"x": 1}]}),
            Some(doc! {"$mergeObjects": ["$notes", {"x": 1}]}),
        ),
        (
            "$objectToArray",
            Some(doc! {"$objectToArray": "$$ROOT"}),
            Some(doc! {"$objectToArray": "$notes"}),
        ),
        (
            "$arrayToObject",
            Some(doc! {"$arrayToObject": {"$objectToArray": "$address"}}),
            Some(doc! {"$arrayToObject": "$phones"}),
        ),
        (
            "$getField",
            Some(doc! {"$getField": "nhs"}),
            Some(doc! {"$getField": {"field": {"$toLower": "$name"}, "input": "$$ROOT"}}),
        ),
        (
            "$setField",
            Some(doc! {"$setField": {"field": "x", "input": "$$ROOT", "value": "$nhs"}}),
            Some(doc! {"$setField": {"field": "x", "input": "$notes", "value": 1}}),
        ),
        (
            "$unsetField",
            Some(doc! {"$unsetField": {"field": "nhs", "input": "$$ROOT"}}),
            Some(doc! {"$unsetField": {"field": "x", "input": "$notes"}}),
        ),
    ];
    for name in ["$gt", "$gte", "$lt", "$lte", "$cmp"] {
        list.push((
            name,
            Some(doc! {name: ["$nhs", null]}),
            Some(doc! {name: ["$nhs", "SECRET"]}),
        ));
    }
    for (name, kind) in OPERATORS {
        if *kind == super::Kind::Values {
            list.push((
                name,
                Some(doc! {*name: ["$name", 1]}),
                Some(doc! {*name: ["$name", "$nhs"]}),
            ));
        }
    }
    list
}

#[test]
fn forwards_and_refuses_an_example_of_every_operator() {
    let examples = examples();
    for (name, kind) in OPERATORS {
        let (_, forwarded, denied) = examples
            .iter()
            .find(|(known, ..)| known == name)
            .unwrap_or_else(|| panic!("no example for {name} ({kind:?})"));
        if let Some(expression) = forwarded {
            let before = Bson::from(expression.clone());
            assert_eq!(becomes(before.clone()), before, "{name}");
        }
        if let Some(expression) = denied {
            let refusal = world().plan(expression.clone()).err();
            let refusal = refusal.unwrap_or_else(|| panic!("{name} must be refused"));
            assert!(!refusal.text.contains("SECRET"), "{}", refusal.text);
        }
    }
}

#[test]
fn keeps_the_table_in_order_so_that_it_can_be_searched() {
    assert!(OPERATORS.windows(2).all(|w| w[0].0 < w[1].0));
}

#[test]
fn refuses_every_computing_operator_however_its_sealed_operand_is_written() {
    for (name, kind) in OPERATORS {
        if *kind != super::Kind::Values {
            continue;
        }
        for operand in [
            bson!("$nhs"),
            bson!(["$nhs"]),
            bson!({"input": "$nhs", "other": 1}),
            bson!([["$nhs"]]),
            bson!("$$nhs"),
            bson!("$contacts.phone"),
            bson!("$$ROOT"),
            bson!("$address"),
            bson!({"$ifNull": ["$nhs", "x"]}),
        ] {
            assert_eq!(refused(doc! {*name: operand}), Reason::Expression, "{name}");
        }
        assert_eq!(refused(doc! {*name: "$$odd"}), Reason::UnknownShape, "{name}");
        assert_eq!(refused(doc! {*name: "$$unbound"}), Reason::UnknownShape, "{name}");
    }
}

#[test]
fn tells_what_each_path_yields() {
    for (path, expected) in [
        ("$nhs", "nhs"),
        ("$$ROOT.nhs", "nhs"),
        ("$$CURRENT.nhs", "nhs"),
        ("$contacts.phone", "contacts.phone"),
        ("$contacts", "{phone: contacts.phone}"),
        ("$name", "plain"),
        ("$contacts.kind", "plain"),
        ("$$NOW", "plain"),
        ("$$REMOVE", "plain"),
        ("$$odd", "unknown"),
        ("$$unbound.x", "unknown"),
        // In expressions a number is a key, never an index.
        ("$contacts.0.phone", "unknown"),
        ("$phones.0", "unknown"),
        ("name", "plain"),
    ] {
        assert_eq!(yields(path), expected, "{path}");
    }
    assert_eq!(refused("$notes.x"), Reason::BelowSealed);
    assert_eq!(refused("$notes.0"), Reason::BelowSealed);
    assert_eq!(refused("$tags.0"), Reason::BelowSealed);
    assert_eq!(refused("$nhs.x"), Reason::BelowSealed);
}

#[test]
fn seals_the_literal_that_meets_a_deterministic_field() {
    assert_eq!(
        becomes(doc! {"$eq": ["$nhs", "943"]}),
        bson!({"$eq": ["$nhs", "⟦nhs:943⟧"]})
    );
    assert_eq!(
        becomes(doc! {"$ne": ["943", "$nhs"]}),
        bson!({"$ne": ["⟦nhs:943⟧", "$nhs"]})
    );
    assert_eq!(
        becomes(doc! {"$eq": ["$$nhs", {"$literal": "$9"}]}),
        bson!({"$eq": ["$$nhs", {"$literal": "⟦nhs:$9⟧"}]})
    );
    assert_eq!(
        becomes(doc! {"$eq": ["$age", 7.0]}),
        bson!({"$eq": ["$age", "⟦age:7⟧"]})
    );
    assert_eq!(
        becomes(doc! {"$eq": ["$nhs", null]}),
        bson!({"$eq": ["$nhs", null]})
    );
    assert_eq!(
        becomes(doc! {"$eq": ["$contacts.phone", ["1", null]]}),
        bson!({"$eq": ["$contacts.phone", ["⟦contacts.phone:1⟧", null]]})
    );
    assert_eq!(
        becomes(doc! {"$in": ["$nhs", ["1", null, "2"]]}),
        bson!({"$in": ["$nhs", ["⟦nhs:1⟧", null, "⟦nhs:2⟧"]]})
    );
    assert_eq!(
        becomes(doc! {"$in": ["1", "$phones"]}),
        bson!({"$in": ["⟦phones:1⟧", "$phones"]})
    );
    assert_eq!(
        becomes(doc! {"$indexOfArray": ["$phones", "1"]}),
        bson!({"$indexOfArray": ["$phones", "⟦phones:1⟧"]})
    );
    assert_eq!(
        becomes(doc! {"$setIsSubset": [["1", "2"], "$phones"]}),
        bson!({"$setIsSubset": [["⟦phones:1⟧", "⟦phones:2⟧"], "$phones"]})
    );
    assert_eq!(
        becomes(doc! {"$eq": ["$nhs", {"$cond": ["$name", "1", "2"]}]}),
        bson!({"$eq": ["$nhs", {"$cond": ["$name", "⟦nhs:1⟧", "⟦nhs:2⟧"]}]})
    );
}

#[test]
fn refuses_comparisons_that_would_be_silently_false() {
    for (expression, reason) in [
        (doc! {"$eq": ["$notes", "SECRET"]}, Reason::RandomEquality),
        (doc! {"$eq": ["$notes", "$notes"]}, Reason::RandomEquality),
        (doc! {"$eq": ["$nhs", "$name"]}, Reason::Expression),
        (doc! {"$eq": ["$nhs", "$$plain"]}, Reason::Expression),
        (doc! {"$eq": ["$nhs", {"$toUpper": "$name"}]}, Reason::Expression),
        (doc! {"$eq": ["$nhs", "$dob"]}, Reason::Expression),
        (doc! {"$eq": ["$nhs", "$contacts.phone"]}, Reason::Expression),
        (doc! {"$eq": ["$$odd", "SECRET"]}, Reason::UnknownShape),
        (doc! {"$in": ["SECRET", ["$nhs", "$name"]]}, Reason::UnknownShape),
        (doc! {"$in": ["$nhs", "$list"]}, Reason::Expression),
        (doc! {"$in": ["$nhs", ["SECRET", "$name"]]}, Reason::Expression),
        (doc! {"$eq": ["$$ROOT", {"nhs": "SECRET"}]}, Reason::WholeDocument),
        (
            doc! {"$eq": ["$contacts", [{"phone": "SECRET"}]]},
            Reason::WholeDocument,
        ),
        (doc! {"$eq": ["$contacts", "$list"]}, Reason::WholeDocument),
        (doc! {"$eq": ["$nhs", 5]}, Reason::Type),
        (doc! {"$eq": ["$nhs", ["SECRET", 5]]}, Reason::Type),
        (doc! {"$eq": ["$nhs", {"a": "SECRET"}]}, Reason::Type),
        (doc! {"$gt": ["$nhs", "SECRET"]}, Reason::Expression),
        (
            doc! {"$switch": {"branches": [{"case": {"$gt": ["$nhs", "SECRET"]}, "then": 1}]}},
            Reason::Expression,
        ),
    ] {
        assert_eq!(refused(expression.clone()), reason, "{expression}");
    }
    assert_eq!(yields(doc! {"$eq": ["$nhs", "$nhs2"]}), "plain");
    assert_eq!(yields(doc! {"$eq": ["$contacts", []]}), "plain");
    assert_eq!(yields(doc! {"$eq": ["$contacts", "x"]}), "plain");
}

#[test]
fn refuses_a_collation_where_sealed_strings_are_compared() {
    let mut world = world();
    world.variables = Variables::with_collation(true);
    let reason = |e: Document| world.plan(e).err().map(|r| r.reason);
    assert_eq!(reason(doc! {"$eq": ["$nhs", "SECRET"]}), Some(Reason::Collation));
    assert_eq!(reason(doc! {"$eq": ["$nhs", "$nhs2"]}), Some(Reason::Collation));
    assert_eq!(reason(doc! {"$eq": ["$age", 5]}), None);
    assert_eq!(reason(doc! {"$eq": ["$name", "x"]}), None);
}

#[test]
fn looks_for_every_stored_form_while_keys_rotate() {
    let world = world_in(FieldState::Enforced, 2);
    let becomes = |e: Document| world.plan(e).map(|(after, _)| after).map_err(|r| r.reason);
    let forms = bson!({"$in": ["$nhs", {"$literal": ["⟦nhs:9⟧", "⟦1/nhs:9⟧"]}]});
    assert_eq!(becomes(doc! {"$eq": ["$nhs", "9"]}), Ok(forms.clone()));
    assert_eq!(becomes(doc! {"$eq": ["9", "$nhs"]}), Ok(forms.clone()));
    assert_eq!(
        becomes(doc! {"$eq": [{"$literal": "9"}, "$nhs"]}),
        Ok(forms.clone())
    );
    assert_eq!(
        becomes(doc! {"$ne": ["$nhs", "9"]}),
        Ok(bson!({"$not": [forms.clone()]}))
    );
    assert_eq!(
        becomes(doc! {"$cond": [{"$and": [{"$eq": ["$nhs", "9"]}, {"$eq": ["$name", "x"]}]}, 1, 0]}),
        Ok(bson!({"$cond": [{"$and": [forms, {"$eq": ["$name", "x"]}]}, 1, 0]}))
    );
    assert_eq!(
        becomes(doc! {"$in": ["$nhs", ["1", null]]}),
        Ok(bson!({"$in": ["$nhs", {"$literal": ["⟦nhs:1⟧", "⟦1/nhs:1⟧", null]}]}))
    );
    assert_eq!(
        becomes(doc! {"$in": ["$nhs", {"$literal": ["1"]}]}),
        Ok(bson!({"$in": ["$nhs", {"$literal": ["⟦nhs:1⟧", "⟦1/nhs:1⟧"]}]}))
    );
    assert_eq!(
        becomes(doc! {"$eq": ["$nhs", null]}),
        Ok(bson!({"$eq": ["$nhs", null]}))
    );
    for expression in [
        doc! {"$eq": ["$nhs", "$nhs2"]},
        doc! {"$in": ["SECRET", "$phones"]},
        doc! {"$eq": ["$nhs", ["SECRET"]]},
        doc! {"$eq": ["$nhs", {"$cond": ["$name", "SECRET", null]}]},
        doc! {"$eq": [{"$ifNull": ["$nhs", "SECRET"]}, "SECRET"]},
        doc! {"$in": ["$nhs", [{"$literal": ["SECRET"]}]]},
        doc! {"$in": ["$nhs", {"$cond": ["$name", ["SECRET"], null]}]},
        doc! {"$setUnion": ["$phones"]},
        doc! {"$indexOfArray": ["$phones", "SECRET"]},
    ] {
        assert_eq!(becomes(expression.clone()), Err(Reason::Rotation), "{expression}");
    }
}

#[test]
fn looks_for_plaintext_too_while_a_field_migrates_and_never_as_a_path() {
    let world = world_in(FieldState::Migrating, 1);
    let (after, _) = world.plan(doc! {"$eq": ["$nhs", {"$literal": "$x"}]}).unwrap();
    assert_eq!(after, bson!({"$in": ["$nhs", {"$literal": ["$x", "⟦nhs:$x⟧"]}]}));
}

#[test]
fn seals_the_literals_of_a_branch_whose_other_branch_is_sealed() {
    assert_eq!(
        becomes(doc! {"$ifNull": ["$nhs", "none"]}),
        bson!({"$ifNull": ["$nhs", "⟦nhs:none⟧"]})
    );
    assert_eq!(yields(doc! {"$ifNull": ["$nhs", "none"]}), "nhs");
    assert_eq!(
        becomes(doc! {"$cond": {"if": true, "then": "hidden", "else": "$notes"}}),
        bson!({"$cond": {"if": true, "then": "⟦notes:hidden⟧", "else": "$notes"}})
    );
    assert_eq!(
        becomes(
            doc! {"$switch": {"branches": [{"case": true, "then": {"$cond": [true, "a", "b"]}}], "default": "$nhs"}}
        ),
        bson!({"$switch": {"branches": [{"case": true, "then": {"$cond": [true, "⟦nhs:a⟧", "⟦nhs:b⟧"]}}], "default": "$nhs"}})
    );
    assert_eq!(yields(doc! {"$cond": [true, "$nhs", "$name"]}), "unknown");
    assert_eq!(yields(doc! {"$cond": [true, "$nhs", "$$REMOVE"]}), "nhs");
    assert_eq!(yields(doc! {"$cond": [true, "$nhs", "$dob"]}), "unknown");
    assert_eq!(
        yields(doc! {"$ifNull": ["$contacts", []]}),
        "{phone: contacts.phone}"
    );
    assert_eq!(
        becomes(doc! {"$ifNull": ["$contacts", [{"phone": "0", "kind": "x"}]]}),
        bson!({"$ifNull": ["$contacts", [{"phone": "⟦contacts.phone:0⟧", "kind": "x"}]]})
    );
    assert_eq!(refused(doc! {"$ifNull": ["$dob", "SECRET"]}), Reason::Type);
}

#[test]
fn tells_what_objects_and_arrays_yield() {
    for (expression, expected) in [
        (doc! {"a": "$nhs", "b": "$name"}, "{a: nhs}"),
        (doc! {"a": {"b": "$notes"}}, "{a: {b: notes}}"),
        (doc! {"a": 1, "b": "x"}, "plain"),
        (
            doc! {"$mergeObjects": ["$$ROOT", {"nhs": "shown"}]},
            "{nhs2: nhs2",
        ),
        (
            doc! {"$mergeObjects": [{"a": "$nhs"}, {"a": "$name"}]},
            "{a: unknown}",
        ),
        (
            doc! {"$mergeObjects": [{"a": "$nhs"}, {"b": "$notes"}]},
            "{a: nhs, b: notes}",
        ),
        (
            doc! {"$mergeObjects": [{"a": "$nhs"}, "$plain_document"]},
            "{a: unknown}",
        ),
        (doc! {"$mergeObjects": ["$contacts"]}, "{phone: contacts.phone}"),
        (
            doc! {"$setField": {"field": "x", "input": {}, "value": "$nhs"}},
            "{x: nhs}",
        ),
        (
            doc! {"$unsetField": {"field": "phone", "input": "$contacts"}},
            "plain",
        ),
        (
            doc! {"$getField": {"field": "phone", "input": "$contacts"}},
            "contacts.phone",
        ),
        (doc! {"$getField": "nhs"}, "nhs"),
        (doc! {"$getField": {"$literal": "name"}}, "plain"),
        (doc! {"$objectToArray": "$contacts"}, "{v: unknown}"),
        (
            doc! {"$map": {"input": "$phones", "as": "p", "in": {"n": "$$p"}}},
            "{n: phones}",
        ),
        (doc! {"$arrayElemAt": ["$contacts", 0]}, "{phone: contacts.phone}"),
        (
            doc! {"$let": {"vars": {"n": "$nhs"}, "in": {"$let": {"vars": {"n": "$name"}, "in": "$$n"}}}},
            "plain",
        ),
        (doc! {"$meta": "indexKey"}, "unknown"),
    ] {
        let found = yields(expression.clone());
        if expected.ends_with('}') || !expected.starts_with('{') {
            assert_eq!(found, expected, "{expression}");
        } else {
            assert!(found.contains("nhs: plain"), "{expression}: {found}");
        }
    }
    assert_eq!(yields(bson!(["$nhs", "$nhs2"])), "nhs");
    assert_eq!(yields(bson!(["$nhs", "$name"])), "unknown");
}

#[test]
fn forgets_that_elements_of_a_random_array_are_arrays_that_can_be_looked_into() {
    assert_eq!(yields(doc! {"$size": "$tags"}), "plain");
    assert_eq!(refused(doc! {"$size": {"$first": "$tags"}}), Reason::Expression);
    assert_eq!(
        refused(doc! {"$map": {"input": "$tags", "in": {"$isArray": "$$this"}}}),
        Reason::Expression
    );
}

#[test]
fn refuses_conditions_whose_truth_sealing_changes() {
    let world = world();
    let reason = |e: Bson| world.plan_as("$expr", e).err().map(|r| r.reason);
    assert_eq!(reason(bson!("$age")), Some(Reason::Expression));
    assert_eq!(reason(bson!("$notes")), Some(Reason::Expression));
    assert_eq!(reason(bson!("$$odd")), Some(Reason::UnknownShape));
    assert_eq!(reason(bson!("$nhs")), None);
    assert_eq!(reason(bson!({"$eq": ["$nhs", "x"]})), None);
}

#[test]
fn refuses_ciphertext_among_the_constants() {
    for subtype in [6u8, 0x80] {
        let sent = bson::Binary {
            subtype: subtype.into(),
            bytes: vec![1; 40],
        };
        assert_eq!(refused(sent.clone()), Reason::Injection);
        assert_eq!(refused(doc! {"a": {"b": [sent.clone()]}}), Reason::Injection);
        assert_eq!(refused(doc! {"$literal": {"a": sent.clone()}}), Reason::Injection);
        assert_eq!(refused(doc! {"$eq": ["$nhs", sent]}), Reason::Injection);
    }
}

#[test]
fn refuses_operators_that_are_not_in_the_table_where_protected_fields_are_in_reach() {
    assert_eq!(refused(doc! {"$fromTheFuture": 1}), Reason::Expression);
    let mut world = world();
    world.shape = Shape::Plain;
    world.variables = Variables::default();
    assert!(world.plan(doc! {"$fromTheFuture": 1}).is_ok());
    world.variables.bind(b"x", Shape::Unknown).unwrap();
    assert!(world.plan(doc! {"$fromTheFuture": 1}).is_err());
}

#[test]
fn refuses_nesting_past_the_bound_and_names_of_system_variables() {
    let mut deep = bson!("$nhs");
    for _ in 0..150 {
        deep = bson!({"$ifNull": [deep]});
    }
    assert_eq!(refused(deep), Reason::Malformed);
    for name in ["CURRENT", "ROOT"] {
        assert_eq!(
            refused(doc! {"$map": {"input": "$contacts", "as": name, "in": "$phone"}}),
            Reason::Expression
        );
    }
    assert_eq!(
        refused(doc! {"$eq": ["$nhs", "SECRET"], "a": 1}),
        Reason::Malformed
    );
    assert_eq!(refused(doc! {"$eq": ["$nhs"]}), Reason::Malformed);
}

#[test]
fn bounds_shapes_that_double_with_every_level() {
    let mut expression = bson!("$$a");
    for _ in 0..40 {
        expression = bson!({"$let": {"vars": {"a": {"l": "$$a", "r": "$$a"}}, "in": expression}});
    }
    let expression = bson!({"$let": {"vars": {"a": "$contacts"}, "in": expression}});
    let shown = yields(expression);
    // 2^40 nodes without the bound.
    assert!(shown.contains("unknown") && shown.len() < 1_000_000);
}

#[test]
fn reports_the_rules_it_met() {
    let world = world();
    let bytes = doc! {"e": {"$eq": ["$nhs", "x"]}}.to_vec().unwrap();
    let keys = Keys(1);
    let mut draft = Draft::new(&bytes, &keys, None);
    let element = Doc::at(&bytes, 0).unwrap().get(b"e").unwrap().unwrap();
    plan(&mut draft, &element, &world.shape, &world.variables).unwrap();
    let rules: Vec<(Arc<str>, u32)> = draft
        .finish()
        .summary
        .rules
        .iter()
        .map(|(rule, n)| (Arc::clone(&rule.path), *n))
        .collect();
    assert_eq!(rules, [("nhs".into(), 1)]);
}
