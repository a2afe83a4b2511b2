//! What each stage does to shapes, literals and other namespaces.

use std::collections::HashMap;
use std::sync::Arc;

use bson::{Bson, Document, bson, doc};

use super::accumulators::ACCUMULATORS;
use super::stages::{Kind, STAGES};
use super::{Policies, plan};
use crate::bson::Doc;
use crate::command::CommandView;
use crate::command::rehearsal::{Keys, det, perform, policy, rule};
use crate::plan::Draft;
use crate::policy::{CollectionPolicy, DeclaredType, FieldState, Mode, Reason, Refusal, Shape};

struct Map(HashMap<String, Arc<CollectionPolicy>>);

impl Policies for Map {
    fn policy(&self, db: &str, collection: &str) -> Option<Arc<CollectionPolicy>> {
        self.0.get(&format!("{db}.{collection}")).cloned()
    }
}

fn map(state: FieldState) -> Map {
    let patients = |name: &str| {
        let mut rules = vec![
            det("nhs", DeclaredType::String),
            det("dob", DeclaredType::Date),
            det("phones", DeclaredType::String),
            rule("notes", Mode::Random),
            rule("tags", Mode::Random),
            det("contacts.phone", DeclaredType::String),
        ];
        rules[4].each = true;
        for rule in &mut rules {
            rule.state = state;
        }
        (name.to_owned(), policy(name, rules))
    };
    let mut episode = det("patient.nhs", DeclaredType::String);
    episode.domain = "nhs".into();
    let foreign = det("nhs", DeclaredType::Int);
    let mut other = rule("nhs", Mode::Random);
    other.domain = "other".into();
    Map(HashMap::from([
        patients("clinic.patients"),
        patients("clinic.archive"),
        patients("other.archive"),
        (
            "clinic.episodes".to_owned(),
            policy("clinic.episodes", vec![episode]),
        ),
        (
            "clinic.stats".to_owned(),
            policy("clinic.stats", vec![foreign, other]),
        ),
    ]))
}

/// What is run against which collection.
struct Run {
    command: Document,
    state: FieldState,
    keys: usize,
}

fn on(collection: impl Into<Bson>, pipeline: impl Into<Bson>) -> Run {
    Run {
        command: doc! {"aggregate": collection.into(), "pipeline": pipeline.into(), "cursor": {}, "$db": "clinic"},
        state: FieldState::Enforced,
        keys: 1,
    }
}

fn patients(stages: impl Into<Bson>) -> Run {
    on("patients", stages)
}

impl Run {
    fn with(mut self, key: &str, value: impl Into<Bson>) -> Self {
        self.command.insert(key, value);
        self
    }

    fn rotating(mut self) -> Self {
        self.keys = 2;
        self
    }

    fn plan(&self) -> Result<(Document, Shape), Refusal> {
        let bytes = self.command.to_vec().unwrap();
        let keys = Keys(self.keys);
        let mut draft = Draft::new(&bytes, &keys, None);
        let view = CommandView::new(Doc::at(&bytes, 0).unwrap(), None, Vec::new())
            .unwrap()
            .unwrap();
        let shape = plan(&view, &mut draft, &map(self.state))?;
        Ok((perform(&bytes, &draft.finish(), self.keys), shape))
    }

    fn pipeline(&self) -> Bson {
        match self.plan() {
            Ok((mut after, _)) => after.remove("pipeline").unwrap(),
            Err(refusal) => panic!("{}: {}", self.command, refusal.text),
        }
    }

    fn shape(&self) -> String {
        match self.plan() {
            Ok((_, shape)) => show(&shape),
            Err(refusal) => panic!("{}: {}", self.command, refusal.text),
        }
    }

    fn refused(&self) -> Reason {
        match self.plan() {
            Ok((after, shape)) => panic!("became {after}, yields {}", show(&shape)),
            Err(refusal) => {
                assert!(!refusal.text.contains("SECRET"), "{}", refusal.text);
                refusal.reason
            }
        }
    }

    fn forwarded(&self) {
        match self.plan() {
            Ok((after, _)) => assert_eq!(after, self.command),
            Err(refusal) => panic!("{}: {}", self.command, refusal.text),
        }
    }
}

fn show(shape: &Shape) -> String {
    match shape {
        Shape::Plain => "plain".to_owned(),
        Shape::Sealed(rule) => rule.path.to_string(),
        Shape::Unknown => "unknown".to_owned(),
        Shape::Tree(tree) => {
            let mut fields: Vec<String> = tree
                .fields()
                .filter(|(_, child)| !child.is_plain())
                .map(|(key, child)| format!("{}: {}", String::from_utf8_lossy(key), show(child)))
                .collect();
            fields.sort();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

/// For each stage: one that is forwarded as it is on a protected collection, and one that is refused there.
fn examples() -> Vec<(&'static str, Option<Bson>, Option<Bson>)> {
    vec![
        (
            "$addFields",
            Some(bson!({"x": "$nhs", "a.b": 1})),
            Some(bson!({"x": {"$toUpper": "$nhs"}})),
        ),
        ("$set", Some(bson!({"nhs": "$name"})), Some(bson!({"notes.x": 1}))),
        ("$backupCursor", None, Some(bson!({}))),
        ("$backupCursorExtend", None, Some(bson!({}))),
        (
            "$bucket",
            Some(bson!({"groupBy": "$n", "boundaries": [0, 5], "output": {"all": {"$push": "$nhs"}}})),
            Some(bson!({"groupBy": "$dob", "boundaries": [0, 5]})),
        ),
        (
            "$bucketAuto",
            Some(bson!({"groupBy": "$n", "buckets": 4})),
            Some(bson!({"groupBy": "$nhs", "buckets": 4})),
        ),
        (
            "$changeStream",
            Some(bson!({"fullDocument": "updateLookup"})),
            Some(bson!({"fromTheFuture": 1})),
        ),
        ("$changeStreamSplitLargeEvent", Some(bson!({})), None),
        ("$collStats", Some(bson!({"count": {}})), None),
        ("$count", Some(bson!("n")), Some(bson!(1))),
        ("$currentOp", None, Some(bson!({}))),
        (
            "$densify",
            Some(bson!({"field": "n", "range": {"step": 1, "bounds": "full"}})),
            Some(bson!({"field": "dob", "range": {"step": 1, "bounds": "full"}})),
        ),
        (
            "$documents",
            Some(bson!([{"a": 1}])),
            Some(bson!([{"a": {"$function": {}}}])),
        ),
        (
            "$facet",
            Some(bson!({"a": [{"$limit": 1}], "b": [{"$count": "n"}]})),
            Some(bson!({"a": [{"$sort": {"nhs": 1}}]})),
        ),
        (
            "$fill",
            Some(bson!({"sortBy": {"n": 1}, "output": {"v": {"method": "locf"}}})),
            Some(bson!({"sortBy": {"n": 1}, "output": {"nhs": {"method": "linear"}}})),
        ),
        (
            "$geoNear",
            Some(bson!({"near": [1, 2], "distanceField": "d", "key": "place", "query": {"n": 1}})),
            Some(bson!({"near": [1, 2], "distanceField": "d", "key": "contacts.phone"})),
        ),
        (
            "$graphLookup",
            Some(
                bson!({"from": "trees", "startWith": "$n", "connectFromField": "a", "connectToField": "b", "as": "x"}),
            ),
            Some(
                bson!({"from": "trees", "startWith": "$nhs", "connectFromField": "a", "connectToField": "b", "as": "x"}),
            ),
        ),
        (
            "$group",
            Some(bson!({"_id": "$nhs", "n": {"$sum": 1}})),
            Some(bson!({"_id": "$notes"})),
        ),
        ("$indexStats", Some(bson!({})), None),
        ("$limit", Some(bson!(5)), None),
        ("$listCatalog", None, Some(bson!({}))),
        ("$listClusterCatalog", None, Some(bson!({}))),
        ("$listLocalSessions", Some(bson!({})), None),
        ("$listSampledQueries", None, Some(bson!({}))),
        ("$listSearchIndexes", Some(bson!({})), None),
        ("$listSessions", Some(bson!({})), None),
        (
            "$lookup",
            Some(bson!({"from": "wards", "localField": "ward", "foreignField": "_id", "as": "ward"})),
            Some(bson!({"from": "wards", "localField": "nhs", "foreignField": "nhs", "as": "x"})),
        ),
        (
            "$match",
            Some(bson!({"name": "x", "nhs": null})),
            Some(bson!({"notes": "SECRET"})),
        ),
        (
            "$merge",
            Some(bson!({"into": "archive", "on": "nhs", "whenMatched": "replace"})),
            Some(bson!("wards")),
        ),
        ("$operationMetrics", Some(bson!({})), None),
        (
            "$out",
            Some(bson!({"db": "other", "coll": "archive"})),
            Some(bson!("wards")),
        ),
        ("$planCacheStats", None, Some(bson!({}))),
        (
            "$project",
            Some(bson!({"nhs": 1, "x": {"y": "$notes"}})),
            Some(bson!({"x": {"y": {"$substrCP": ["$nhs", 0, 1]}}})),
        ),
        ("$querySettings", None, Some(bson!({}))),
        ("$queryStats", None, Some(bson!({}))),
        ("$rankFusion", None, Some(bson!({"input": {}}))),
        (
            "$redact",
            None,
            Some(bson!({"$cond": [{"$eq": ["$level", 5]}, "$$PRUNE", "$$DESCEND"]})),
        ),
        (
            "$replaceRoot",
            Some(bson!({"newRoot": {"n": "$nhs"}})),
            Some(bson!({"newRoot": "$notes"})),
        ),
        (
            "$replaceWith",
            Some(bson!({"$mergeObjects": ["$$ROOT", {"a": 1}]})),
            Some(bson!("$nhs")),
        ),
        ("$sample", Some(bson!({"size": 3})), None),
        ("$score", None, Some(bson!({}))),
        ("$scoreFusion", None, Some(bson!({}))),
        (
            "$search",
            None,
            Some(bson!({"text": {"query": "SECRET", "path": "nhs"}})),
        ),
        ("$searchMeta", None, Some(bson!({}))),
        (
            "$setWindowFields",
            Some(
                bson!({"partitionBy": "$nhs", "sortBy": {"n": 1}, "output": {"r": {"$rank": {}}, "s": {"$sum": "$n", "window": {"documents": ["unbounded", "current"]}}}}),
            ),
            Some(bson!({"sortBy": {"dob": 1}, "output": {"r": {"$rank": {}}}})),
        ),
        ("$shardedDataDistribution", Some(bson!({})), None),
        ("$skip", Some(bson!(5)), None),
        (
            "$sort",
            Some(bson!({"name": 1, "contacts.kind": -1, "score": {"$meta": "textScore"}})),
            Some(bson!({"name": 1, "nhs": 1})),
        ),
        ("$sortByCount", Some(bson!("$nhs")), Some(bson!("$tags"))),
        (
            "$unionWith",
            Some(bson!({"coll": "episodes", "pipeline": [{"$limit": 1}]})),
            Some(bson!({"coll": "beds", "pipeline": [{"$search": {}}]})),
        ),
        (
            "$unset",
            Some(bson!(["nhs", "contacts.phone"])),
            Some(bson!("notes.inner")),
        ),
        (
            "$unwind",
            Some(bson!({"path": "$contacts", "includeArrayIndex": "i"})),
            Some(bson!("$notes")),
        ),
        ("$vectorSearch", None, Some(bson!({"queryVector": [1.0]}))),
    ]
}

#[test]
fn forwards_and_refuses_an_example_of_every_stage() {
    let examples = examples();
    for (name, kind) in STAGES {
        let (_, forwarded, denied) = examples
            .iter()
            .find(|(known, ..)| known == name)
            .unwrap_or_else(|| panic!("no example for {name} ({kind:?})"));
        if let Some(stage) = forwarded {
            patients(bson!([{*name: stage.clone()}])).forwarded();
        }
        if let Some(stage) = denied {
            patients(bson!([{*name: stage.clone()}])).refused();
        }
        // Where nothing is protected all are forwarded but those that show what others do.
        let Some(stage) = denied else { continue };
        if *kind == Kind::Never {
            assert_eq!(
                on("wards", bson!([{*name: stage.clone()}])).refused(),
                Reason::Stage
            );
        } else {
            on("wards", bson!([{*name: stage.clone()}])).forwarded();
        }
    }
}

#[test]
fn keeps_the_tables_in_order_so_that_they_can_be_searched() {
    assert!(STAGES.windows(2).all(|w| w[0].0 < w[1].0));
    assert!(ACCUMULATORS.windows(2).all(|w| w[0].0 < w[1].0));
}

#[test]
fn plans_an_example_of_every_accumulator() {
    use super::accumulators::Kind;
    let group = |accumulator: Document| patients(bson!([{"$group": {"_id": null, "x": accumulator}}]));
    for (name, kind) in ACCUMULATORS {
        let name = *name;
        match kind {
            Kind::Values => {
                group(doc! {name: "$n"}).forwarded();
                assert_eq!(group(doc! {name: "$nhs"}).refused(), Reason::Expression, "{name}");
                assert_eq!(
                    group(doc! {name: {"input": "$notes", "n": 2}}).refused(),
                    Reason::Expression
                );
            }
            Kind::Keep => {
                assert_eq!(
                    group(doc! {name: "$contacts"}).shape(),
                    "{x: {phone: contacts.phone}}"
                );
                assert_eq!(
                    group(doc! {name: {"$toLower": "$nhs"}}).refused(),
                    Reason::Expression
                );
            }
            Kind::KeepN => {
                assert_eq!(group(doc! {name: {"input": "$nhs", "n": 2}}).shape(), "{x: nhs}");
            }
            Kind::Set => {
                assert_eq!(group(doc! {name: "$nhs"}).shape(), "{x: nhs}");
                assert_eq!(group(doc! {name: "$notes"}).refused(), Reason::RandomEquality);
                assert_eq!(group(doc! {name: "$nhs"}).rotating().refused(), Reason::Rotation);
            }
            Kind::Top => {
                let top = |by: &str| group(doc! {name: {"sortBy": {by: 1}, "output": ["$nhs"]}});
                assert_eq!(top("n").shape(), "{x: nhs}");
                assert_eq!(top("dob").refused(), Reason::Order);
            }
            Kind::Shift => {
                let shift = |d: &str| group(doc! {name: {"output": "$nhs", "by": 1, "default": d}});
                assert_eq!(shift("$nhs").shape(), "{x: nhs}");
                assert_eq!(shift("x").shape(), "{x: unknown}");
            }
            Kind::Position => group(doc! {name: {}}).forwarded(),
            Kind::Never => assert_eq!(group(doc! {name: {"init": "f"}}).refused(), Reason::Unanalysable),
        }
    }
    assert_eq!(group(doc! {"$fromTheFuture": "$n"}).refused(), Reason::Expression);
    assert_eq!(
        group(doc! {"$push": "$nhs", "$sum": 1}).refused(),
        Reason::Malformed
    );
}

#[test]
fn plans_nothing_where_nothing_protected_is_in_play() {
    let run = on(
        "wards",
        bson!([{"$match": {"nhs": "x", "$where": "f"}}, {"$lookup": {"from": "beds", "pipeline": [{"$sort": {"nhs": 1}}], "as": "b"}}, {"$out": "copy"}]),
    )
    .with("comment", "kept")
    .with("fromTheFuture", 1);
    run.forwarded();
}

#[test]
fn protects_a_pipeline_that_only_names_a_protected_namespace() {
    let lookup = bson!({"from": "patients", "localField": "p", "foreignField": "_id", "as": "p"});
    for stage in [
        doc! {"$lookup": lookup.clone()},
        doc! {"$facet": {"a": [{"$lookup": lookup.clone()}]}},
        doc! {"$unionWith": {"coll": "wards", "pipeline": [{"$lookup": lookup}]}},
        doc! {"$unionWith": "patients"},
        doc! {"$graphLookup": {"from": "patients", "startWith": "$a", "connectFromField": "a", "connectToField": "a", "as": "x"}},
    ] {
        let run = on("wards", bson!([stage])).with("comment", "SECRET");
        let (after, _) = run.plan().unwrap();
        assert!(!after.contains_key("comment"), "{after}");
    }
    for stage in [
        doc! {"$out": "patients"},
        doc! {"$out": {"db": "other", "coll": "archive"}},
        doc! {"$merge": "patients"},
        doc! {"$merge": {"into": {"db": "other", "coll": "archive"}}},
    ] {
        assert_eq!(on("wards", bson!([stage])).refused(), Reason::Stage);
    }
}

#[test]
fn seals_literals_in_match_by_the_shape_at_that_point() {
    assert_eq!(
        patients(bson!([{"$match": {"nhs": "1"}}, {"$project": {"id": "$nhs"}}, {"$match": {"id": {"$in": ["2", null]}, "mrn": "plain"}}])).pipeline(),
        bson!([{"$match": {"nhs": "⟦nhs:1⟧"}}, {"$project": {"id": "$nhs"}}, {"$match": {"id": {"$in": ["⟦nhs:2⟧", null]}, "mrn": "plain"}}])
    );
    assert_eq!(
        patients(bson!([{"$match": {"$expr": {"$eq": ["$nhs", "1"]}, "n": 1}}])).pipeline(),
        bson!([{"$match": {"$expr": {"$eq": ["$nhs", "⟦nhs:1⟧"]}, "n": 1}}])
    );
    assert_eq!(
        patients(bson!([{"$unwind": "$contacts"}, {"$replaceRoot": {"newRoot": "$contacts"}}, {"$match": {"phone": "1"}}])).pipeline(),
        bson!([{"$unwind": "$contacts"}, {"$replaceRoot": {"newRoot": "$contacts"}}, {"$match": {"phone": "⟦contacts.phone:1⟧"}}])
    );
    assert_eq!(
        patients(bson!([{"$group": {"_id": {"n": "$nhs"}, "phones": {"$push": "$phones"}}}, {"$match": {"_id.n": "1"}}])).pipeline(),
        bson!([{"$group": {"_id": {"n": "$nhs"}, "phones": {"$push": "$phones"}}}, {"$match": {"_id.n": "⟦nhs:1⟧"}}])
    );
    assert_eq!(
        patients(bson!([{"$addFields": {"hit": {"$cond": [{"$eq": ["$nhs", "1"]}, "$nhs", "none"]}}}, {"$match": {"hit": "none"}}])).pipeline(),
        bson!([{"$addFields": {"hit": {"$cond": [{"$eq": ["$nhs", "⟦nhs:1⟧"]}, "$nhs", "⟦nhs:none⟧"]}}}, {"$match": {"hit": "⟦nhs:none⟧"}}])
    );
    assert_eq!(
        patients(bson!([{"$facet": {"a": [{"$match": {"nhs": "1"}}]}}, {"$match": {"a.nhs": "2"}}]))
            .pipeline(),
        bson!([{"$facet": {"a": [{"$match": {"nhs": "⟦nhs:1⟧"}}]}}, {"$match": {"a.nhs": "⟦nhs:2⟧"}}])
    );
    assert_eq!(
        patients(bson!([{"$geoNear": {"query": {"nhs": "1"}, "near": [0, 0], "distanceField": "d"}}]))
            .pipeline(),
        bson!([{"$geoNear": {"query": {"nhs": "⟦nhs:1⟧"}, "near": [0, 0], "distanceField": "d"}}])
    );
}

#[test]
fn asks_whether_a_value_is_there_where_it_cannot_be_told_what_it_is() {
    let united = |condition: Bson| patients(bson!([{"$unionWith": "wards"}, {"$match": condition}]));
    for condition in [
        bson!({"nhs": null}),
        bson!({"nhs": {"$exists": true, "$ne": null}}),
        bson!({"$or": [{"contacts.phone": {"$nin": [null]}}, {"notes": {"$eq": null}}]}),
    ] {
        united(condition).forwarded();
    }
    for condition in [
        bson!({"nhs": {"$ne": "SECRET"}}),
        bson!({"nhs": {"$in": [null, "SECRET"]}}),
        bson!({"nhs": {"$exists": "SECRET", "$type": 2}}),
        bson!({"nhs": {"$not": {"$eq": "SECRET"}}}),
        bson!({"contacts.0.phone": null}),
    ] {
        assert_eq!(united(condition).refused(), Reason::UnknownShape);
    }
    // What may be sealed as one cannot be looked into.
    let inside = patients(bson!([
        {"$set": {"x": {"$ifNull": ["$notes", "$name"]}}},
        {"$match": {"x.author": null}},
    ]));
    assert_eq!(inside.refused(), Reason::UnknownShape);
}

#[test]
fn refuses_what_is_compared_with_a_field_that_is_no_longer_there() {
    for stages in [
        bson!([{"$project": {"id": "$nhs"}}, {"$match": {"nhs": "1"}}]),
        bson!([{"$unset": ["contacts.phone"]}, {"$match": {"contacts.phone": "1"}}]),
        bson!([{"$group": {"_id": "$ward"}}, {"$match": {"$expr": {"$eq": ["$nhs", "1"]}}}]),
        bson!([{"$unset": "nhs"}, {"$set": {"same": {"$eq": ["$$ROOT.nhs", "1"]}}}]),
    ] {
        patients(stages).refused();
    }
    // Another field of the name has taken its place, or the documents are others.
    for stages in [
        bson!([{"$project": {"nhs": {"$strLenCP": "$ward"}}}, {"$match": {"nhs": 1}}]),
        bson!([{"$unset": "nhs"}, {"$set": {"nhs": "$ward"}}, {"$match": {"nhs": "a"}}]),
        bson!([{"$replaceRoot": {"newRoot": "$referral"}}, {"$match": {"nhs": "a"}}]),
    ] {
        patients(stages).pipeline();
    }
}

#[test]
fn tells_what_documents_hold_after_each_stage() {
    const ALL: &str =
        "{contacts: {phone: contacts.phone}, dob: dob, nhs: nhs, notes: notes, phones: phones, tags: tags}";
    for (stages, expected) in [
        (bson!([{"$limit": 1}]), ALL),
        (
            bson!([{"$project": {"nhs": 1, "contacts.phone": true}}]),
            "{contacts: {phone: contacts.phone}, nhs: nhs}",
        ),
        (
            bson!([{"$project": {"contacts": {"kind": 1}, "x": {"y": "$notes"}}}]),
            "{x: {y: notes}}",
        ),
        (bson!([{"$project": {"_id": 0, "name": 1}}]), "plain"),
        (
            bson!([{"$project": {"nhs": 0, "contacts": {"phone": 0}}}]),
            "{dob: dob, notes: notes, phones: phones, tags: tags}",
        ),
        (bson!([{"$project": {"_id": 0}}]), ALL),
        (
            bson!([{"$project": {"nhs": "$name", "name": "$nhs"}}]),
            "{name: nhs}",
        ),
        (
            bson!([{"$unset": ["dob", "notes", "phones", "tags", "contacts"]}, {"$set": {"a.b": "$nhs"}}]),
            "{a: {b: nhs}, nhs: nhs}",
        ),
        (
            bson!([{"$set": {"contacts.phone": "hidden", "nhs": "$$REMOVE"}}]),
            "{dob: dob, notes: notes, phones: phones, tags: tags}",
        ),
        (
            bson!([{"$unwind": "$tags"}, {"$project": {"tags": 1}}]),
            "{tags: tags}",
        ),
        (
            bson!([{"$group": {"_id": "$nhs", "last": {"$last": "$$ROOT"}, "n": {"$sum": 1}}}, {"$project": {"last.nhs": 1}}]),
            "{_id: nhs, last: {nhs: nhs}}",
        ),
        (bson!([{"$sortByCount": "$nhs"}]), "{_id: nhs}"),
        (bson!([{"$count": "nhs"}]), "plain"),
        (
            bson!([{"$bucketAuto": {"groupBy": "$n", "buckets": 2, "output": {"who": {"$addToSet": "$nhs"}}}}]),
            "{who: nhs}",
        ),
        (
            bson!([{"$setWindowFields": {"output": {"first": {"$first": "$nhs"}}}}, {"$project": {"first": 1}}]),
            "{first: nhs}",
        ),
        (bson!([{"$unionWith": "archive"}]), ALL),
        (
            bson!([{"$project": {"nhs": 1}}, {"$unionWith": {"coll": "stats", "pipeline": [{"$project": {"x": 1}}]}}]),
            "{nhs: nhs}",
        ),
        (
            bson!([{"$project": {"nhs": 1}}, {"$unionWith": "wards"}]),
            "{nhs: unknown}",
        ),
        (
            bson!([{"$project": {"nhs": 1}}, {"$unionWith": "stats"}]),
            "{nhs: unknown}",
        ),
        (
            bson!([{"$project": {"name": 1}}, {"$lookup": {"from": "episodes", "localField": "_id", "foreignField": "p", "as": "e"}}]),
            "{e: {patient: {nhs: nhs}}}",
        ),
        (
            bson!([{"$project": {"n": 1}}, {"$fill": {"output": {"nhs": {"value": "x"}}}}, {"$unionWith": {"coll": "patients", "pipeline": [{"$project": {"nhs": 1}}]}}]),
            "{nhs: unknown}",
        ),
        (
            bson!([{"$fill": {"partitionBy": "$nhs", "sortBy": {"n": 1}, "output": {"notes": {"method": "locf"}, "v": {"value": "$n"}}}}]),
            ALL,
        ),
        (
            bson!([{"$project": {"n": 1}}, {"$densify": {"field": "dob", "partitionByFields": ["nhs"], "range": {"step": 1, "bounds": [1, 2]}}}, {"$unionWith": {"coll": "patients", "pipeline": [{"$project": {"dob": 1}}]}}]),
            "{dob: unknown}",
        ),
        (
            bson!([{"$group": {"_id": null, "all": {"$push": "$notes"}}}, {"$unwind": "$all"}, {"$set": {"n": {"$size": [["$all"]]}}}]),
            "{all: notes}",
        ),
        (
            bson!([{"$group": {"_id": null, "all": {"$firstN": {"input": "$notes", "n": 2}}}}, {"$project": {"one": {"$first": "$all"}}}]),
            "{one: notes}",
        ),
        (
            bson!([{"$project": {"all": {"$slice": [{"$map": {"input": [1, 2], "in": "$notes"}}, 1]}}}]),
            "{all: notes}",
        ),
        (bson!([{"$collStats": {}}]), "plain"),
        (bson!([{"$indexStats": {}}]), "{spec: unknown}"),
        (
            bson!([{"$replaceWith": {"a": {"b": "$notes"}}}]),
            "{a: {b: notes}}",
        ),
    ] {
        assert_eq!(
            patients(stages.clone()).shape().replace("patient.nhs", "nhs"),
            expected,
            "{stages}"
        );
    }
}

#[test]
fn refuses_what_sealed_values_cannot_do_in_stages() {
    for (stages, reason) in [
        (bson!([{"$sort": {"contacts": 1}}]), Reason::Order),
        (bson!([{"$sort": {"contacts.0.phone": 1}}]), Reason::Order),
        (
            bson!([{"$unionWith": "wards"}, {"$sort": {"nhs": 1}}]),
            Reason::UnknownShape,
        ),
        (
            bson!([{"$unionWith": "wards"}, {"$match": {"nhs": "SECRET"}}]),
            Reason::UnknownShape,
        ),
        (bson!([{"$project": {"notes.x": 1}}]), Reason::BelowSealed),
        (bson!([{"$project": {"notes.x": "$name"}}]), Reason::BelowSealed),
        (bson!([{"$project": {"notes.x": 0}}]), Reason::BelowSealed),
        (bson!([{"$set": {"contacts": {}}}]), Reason::Stage),
        (
            bson!([{"$unwind": "$tags"}, {"$unwind": "$tags"}]),
            Reason::BelowSealed,
        ),
        (bson!([{"$unwind": "$notes.x"}]), Reason::BelowSealed),
        (bson!([{"$group": {"_id": "$tags"}}]), Reason::RandomEquality),
        (
            bson!([{"$group": {"_id": {"a": "$notes"}}}]),
            Reason::RandomEquality,
        ),
        (
            bson!([{"$group": {"_id": {"$toUpper": "$nhs"}}}]),
            Reason::Expression,
        ),
        (
            bson!([{"$group": {"_id": {"$ifNull": ["$nhs", "$name"]}}}]),
            Reason::UnknownShape,
        ),
        (bson!([{"$group": {"_id": null, "a": 1}}]), Reason::Malformed),
        (bson!([{"$fromTheFuture": {}}]), Reason::Stage),
        (bson!([{"$match": {}, "$limit": 1}]), Reason::Malformed),
        (bson!(["x"]), Reason::Malformed),
        (
            bson!([{"$bucket": {"groupBy": "$n", "boundaries": [1], "default": "$nhs"}}]),
            Reason::Expression,
        ),
        (
            bson!([{"$fill": {"output": {"x": {"value": "$nhs"}}}}, {"$match": {"x": "SECRET"}}]),
            Reason::UnknownShape,
        ),
        (
            bson!([{"$fill": {"partitionByFields": ["notes"], "sortBy": {"n": 1}, "output": {"v": {"method": "locf"}}}}]),
            Reason::RandomEquality,
        ),
        (
            bson!([{"$fill": {"sortBy": {"n": 1}, "output": {"contacts.phone": {"method": "locf"}}}}]),
            Reason::Order,
        ),
        (
            bson!([{"$densify": {"field": "n", "partitionByFields": ["tags"], "range": {"step": 1, "bounds": "full"}}}]),
            Reason::RandomEquality,
        ),
        (bson!([{"$match": {"$where": "f"}}]), Reason::Unanalysable),
        (
            bson!([{"$replaceRoot": {"newRoot": {"$function": {}}}}]),
            Reason::Unanalysable,
        ),
        (bson!([{"$facet": {"a": [{"$out": "wards"}]}}]), Reason::Stage),
        (
            bson!([{"$redact": {"$cond": [true, "$$KEEP", "$$PRUNE"]}}]),
            Reason::Stage,
        ),
    ] {
        assert_eq!(patients(stages.clone()).refused(), reason, "{stages}");
    }
}

#[test]
fn refuses_grouping_by_a_field_in_rotation_and_looks_for_all_forms_in_match() {
    for stage in [
        doc! {"$group": {"_id": "$nhs"}},
        doc! {"$sortByCount": "$nhs"},
        doc! {"$group": {"_id": null, "x": {"$addToSet": "$nhs"}}},
        doc! {"$setWindowFields": {"partitionBy": "$nhs", "output": {"r": {"$rank": {}}}}},
        doc! {"$lookup": {"from": "episodes", "localField": "nhs", "foreignField": "patient.nhs", "as": "e"}},
        doc! {"$merge": {"into": "archive", "on": "nhs"}},
    ] {
        let run = patients(bson!([stage]));
        run.forwarded();
        assert_eq!(run.rotating().refused(), Reason::Rotation);
    }
    assert_eq!(
        patients(bson!([{"$match": {"nhs": "1"}}])).rotating().pipeline(),
        bson!([{"$match": {"nhs": {"$in": ["⟦nhs:1⟧", "⟦1/nhs:1⟧"]}}}])
    );
}

#[test]
fn redacts_only_by_what_is_plain_at_every_level() {
    let redact = |e: Document| {
        patients(bson!([{"$unset": ["notes", "tags"]}, {"$redact": {"$cond": [e, "$$DESCEND", "$$PRUNE"]}}]))
    };
    redact(doc! {"$eq": ["$level", 5]}).forwarded();
    redact(doc! {"$eq": ["$phone", null]}).forwarded();
    assert_eq!(
        redact(doc! {"$eq": ["$phone", "SECRET"]}).refused(),
        Reason::UnknownShape
    );
    assert_eq!(
        redact(doc! {"$eq": ["$nhs", "SECRET"]}).refused(),
        Reason::UnknownShape
    );
}

#[test]
fn joins_only_what_can_be_equal() {
    let lookup = |from: &str, local: &str, foreign: &str| {
        patients(
            bson!([{"$lookup": {"from": from, "localField": local, "foreignField": foreign, "as": "x"}}]),
        )
    };
    lookup("episodes", "nhs", "patient.nhs").forwarded();
    lookup("archive", "contacts.phone", "contacts.phone").forwarded();
    lookup("episodes", "name", "patient.name").forwarded();
    assert_eq!(
        lookup("episodes", "name", "patient.nhs").refused(),
        Reason::Expression
    );
    assert_eq!(
        lookup("episodes", "dob", "patient.nhs").refused(),
        Reason::Expression
    );
    assert_eq!(
        lookup("archive", "notes", "notes").refused(),
        Reason::RandomEquality
    );
    assert_eq!(
        lookup("episodes", "contacts", "x").refused(),
        Reason::WholeDocument
    );
    assert_eq!(
        lookup("episodes", "x", "patient").refused(),
        Reason::WholeDocument
    );
    assert_eq!(lookup("episodes", "notes.x", "x").refused(), Reason::BelowSealed);
    assert_eq!(
        lookup("episodes", "nhs", "patient.nhs")
            .with("collation", bson!({"locale": "en"}))
            .refused(),
        Reason::Collation
    );
}

#[test]
fn plans_the_pipeline_of_a_lookup_whatever_the_order_of_its_fields() {
    let bound = bson!([
        {"$match": {"$expr": {"$and": [{"$eq": ["$patient.nhs", "$$n"]}, {"$eq": ["$$n", "1"]}]}}},
        {"$match": {"patient.nhs": "2"}},
    ]);
    let sealed = bson!([
        {"$match": {"$expr": {"$and": [{"$eq": ["$patient.nhs", "$$n"]}, {"$eq": ["$$n", "⟦nhs:1⟧"]}]}}},
        {"$match": {"patient.nhs": "⟦nhs:2⟧"}},
    ]);
    assert_eq!(
        patients(bson!([{"$lookup": {"from": "episodes", "let": {"n": "$nhs"}, "pipeline": bound.clone(), "as": "e"}}])).pipeline(),
        bson!([{"$lookup": {"from": "episodes", "let": {"n": "$nhs"}, "pipeline": sealed.clone(), "as": "e"}}])
    );
    assert_eq!(
        patients(bson!([{"$lookup": {"pipeline": bound.clone(), "as": "e", "let": {"n": {"$ifNull": ["$nhs", "0"]}}, "from": "episodes"}}])).pipeline(),
        bson!([{"$lookup": {"pipeline": sealed, "as": "e", "let": {"n": {"$ifNull": ["$nhs", "⟦nhs:0⟧"]}}, "from": "episodes"}}])
    );
    assert_eq!(
        patients(
            bson!([{"$lookup": {"from": "episodes", "let": {"n": "$name"}, "pipeline": bound, "as": "e"}}])
        )
        .refused(),
        Reason::Expression
    );
    assert_eq!(
        patients(bson!([{"$lookup": {"from": "wards", "let": {"CURRENT": "$contacts"}, "pipeline": [], "as": "e"}}])).refused(),
        Reason::Expression
    );
    // The documents looked up are of the other collection's shape, also for what follows.
    assert_eq!(
        patients(bson!([{"$lookup": {"from": "episodes", "pipeline": [], "as": "e"}}, {"$match": {"e.patient.nhs": "3"}}])).pipeline(),
        bson!([{"$lookup": {"from": "episodes", "pipeline": [], "as": "e"}}, {"$match": {"e.patient.nhs": "⟦nhs:3⟧"}}])
    );
}

#[test]
fn walks_graphs_along_equal_domains() {
    let graph = |start: Bson, from: &str, to: &str| {
        patients(bson!([{"$graphLookup": {
            "from": "episodes", "startWith": start, "connectFromField": from, "connectToField": to, "as": "x",
            "restrictSearchWithMatch": {"patient.nhs": "1"},
        }}]))
    };
    let after = |start: &str| {
        bson!([{"$graphLookup": {
            "from": "episodes", "startWith": start, "connectFromField": "patient.nhs", "connectToField": "patient.nhs", "as": "x",
            "restrictSearchWithMatch": {"patient.nhs": "⟦nhs:1⟧"},
        }}])
    };
    assert_eq!(
        graph("$nhs".into(), "patient.nhs", "patient.nhs").pipeline(),
        after("$nhs")
    );
    assert_eq!(
        graph("5".into(), "patient.nhs", "patient.nhs").pipeline(),
        after("⟦nhs:5⟧")
    );
    assert_eq!(
        graph("$nhs".into(), "parent", "patient.nhs").refused(),
        Reason::Expression
    );
    assert_eq!(
        graph("$name".into(), "patient.nhs", "patient.nhs").refused(),
        Reason::Expression
    );
}

#[test]
fn stores_only_under_rules_that_agree_path_by_path() {
    for (stages, forwarded) in [
        (bson!([{"$out": "archive"}]), true),
        (bson!([{"$set": {"extra": 1}}, {"$merge": "archive"}]), true),
        (
            bson!([{"$project": {"nhs": 1, "score": "$n"}}, {"$merge": {"into": "archive"}}]),
            true,
        ),
        (
            bson!([{"$group": {"_id": "$ward", "n": {"$sum": 1}}}, {"$out": "wards"}]),
            true,
        ),
        (
            bson!([{"$project": {"score": "$n"}}, {"$merge": {"into": "patients", "on": "_id", "whenMatched": "merge"}}]),
            true,
        ),
        (
            bson!([{"$unset": ["nhs", "dob", "phones", "notes", "tags", "contacts"]}, {"$out": "wards"}]),
            true,
        ),
        (bson!([{"$unset": ["nhs"]}, {"$out": "archive"}]), true),
        (bson!([{"$out": "wards"}]), false),
        (bson!([{"$project": {"nhs": 1}}, {"$out": "wards"}]), false),
        (bson!([{"$set": {"nhs": "SECRET"}}, {"$out": "archive"}]), false),
        (
            bson!([{"$set": {"contacts": "$name"}}, {"$out": "archive"}]),
            false,
        ),
        (bson!([{"$project": {"nhs": "$dob"}}, {"$out": "archive"}]), false),
        (bson!([{"$project": {"nhs": 1}}, {"$out": "stats"}]), false),
        (
            bson!([{"$project": {"all": "$$ROOT"}}, {"$out": "archive"}]),
            false,
        ),
        (bson!([{"$unionWith": "wards"}, {"$out": "archive"}]), false),
        (bson!([{"$group": {"_id": "$nhs"}}, {"$out": "archive"}]), false),
        // Fields that documents did not have before.
        (
            bson!([{"$project": {"n": 1}}, {"$fill": {"output": {"nhs": {"value": "SECRET"}}}}, {"$out": "archive"}]),
            false,
        ),
        (
            bson!([{"$project": {"n": 1}}, {"$densify": {"field": "dob", "range": {"step": 1, "bounds": [1, 2]}}}, {"$merge": "archive"}]),
            false,
        ),
    ] {
        if forwarded {
            patients(stages).forwarded();
        } else {
            let reason = patients(stages.clone()).refused();
            assert!(
                matches!(reason, Reason::Stage | Reason::UnknownShape),
                "{stages}: {reason:?}"
            );
        }
    }
}

#[test]
fn plans_what_merge_does_to_documents_that_match() {
    let merge = |update: Bson| {
        patients(bson!([
            {"$project": {"nhs": 1, "n": 1}},
            {"$merge": {"into": "archive", "whenMatched": update, "let": {"m": "$n", "p": "$nhs"}}},
        ]))
    };
    merge(bson!([{"$set": {"n": {"$add": ["$n", "$$m"]}}}])).forwarded();
    merge(bson!([{"$set": {"nhs": "$$p"}}])).forwarded();
    merge(bson!([{"$set": {"nhs": "$$new.nhs"}}])).forwarded();
    merge(bson!([{"$replaceWith": {"$mergeObjects": ["$$ROOT", {"n": "$$m"}]}}])).forwarded();
    let sealed = merge(bson!([{"$set": {"nhs": "SECRET"}}])).pipeline().to_string();
    assert!(sealed.contains(r#""nhs": "⟦nhs:SECRET⟧""#), "{sealed}");
    merge(bson!([{"$unset": ["nhs", "contacts.phone"]}])).forwarded();
    assert_eq!(merge(bson!([{"$set": {"nhs": "$n"}}])).refused(), Reason::Stage);
    assert_eq!(
        merge(bson!([{"$set": {"name": "$nhs"}}])).refused(),
        Reason::Stage
    );
    assert_eq!(
        merge(bson!([{"$set": {"name": {"$toUpper": "$$p"}}}])).refused(),
        Reason::Expression
    );
    assert_eq!(
        merge(bson!([{"$group": {"_id": 1}}])).refused(),
        Reason::Malformed
    );
    assert_eq!(
        patients(bson!([{"$merge": {"into": "archive", "on": "notes"}}])).refused(),
        Reason::RandomEquality
    );
}

#[test]
fn stores_documents_without_the_fields_that_were_left_out() {
    for stages in [
        bson!([{"$unset": ["notes", "contacts.phone"]}, {"$out": "archive"}]),
        bson!([{"$project": {"notes": 0, "contacts": 0}}, {"$merge": {"into": "archive", "whenMatched": "replace"}}]),
        bson!([{"$unset": "nhs"}, {"$match": {"n": 1}}, {"$merge": "archive"}]),
    ] {
        patients(stages).forwarded();
    }
    // What stands there afterwards counts.
    for stages in [
        bson!([{"$unset": "nhs"}, {"$set": {"nhs": "$name"}}, {"$out": "archive"}]),
        bson!([{"$unset": "nhs"}, {"$out": "stats"}]),
        bson!([{"$unset": "nhs"}, {"$out": "beds"}]),
    ] {
        patients(stages).refused();
    }
}

#[test]
fn refuses_to_copy_a_migrating_field_into_an_enforced_one() {
    // Both migrate here, which is fine: what is plaintext stays allowed plaintext.
    let mut run = patients(bson!([{"$out": "archive"}]));
    run.state = FieldState::Migrating;
    run.forwarded();
    let mut run =
        patients(bson!([{"$project": {"_id": 0, "patient": {"nhs": "$nhs"}}}, {"$out": "episodes"}]));
    run.forwarded();
    run.state = FieldState::Migrating;
    assert_eq!(run.refused(), Reason::Rotation);
}

#[test]
fn answers_an_unknown_stage_with_the_servers_code() {
    for name in ["patients", "wards"] {
        let no = on(name, bson!([{"$unsupported": "SECRET"}])).plan().unwrap_err();
        assert_eq!((no.reason, no.code), (Reason::Stage, Some(40324)));
    }
}

#[test]
fn watches_a_protected_collection() {
    let watch =
        |stage: Document| patients(bson!([{"$changeStream": {"fullDocument": "updateLookup"}}, stage]));
    assert_eq!(
        watch(doc! {"$match": {"fullDocument.nhs": "1", "operationType": "insert"}}).pipeline(),
        bson!([{"$changeStream": {"fullDocument": "updateLookup"}}, {"$match": {"fullDocument.nhs": "⟦nhs:1⟧", "operationType": "insert"}}])
    );
    watch(doc! {"$match": {"documentKey._id": 5, "ns.coll": "patients"}}).forwarded();
    watch(doc! {"$match": {"updateDescription.removedFields": "nhs"}}).forwarded();
    watch(doc! {"$project": {"fullDocument.nhs": 1}}).forwarded();
    for path in ["updateDescription.updatedFields.nhs", "documentKey.nhs"] {
        let sealed = watch(doc! {"$match": {path: "SECRET"}}).pipeline().to_string();
        assert!(
            sealed.contains(&format!(r#""{path}": "⟦nhs:SECRET⟧""#)),
            "{sealed}"
        );
        watch(doc! {"$match": {path: {"$exists": true}}}).forwarded();
    }
    watch(doc! {"$match": {"updateDescription.updatedFields.ward": "A1"}}).forwarded();
    for (condition, reason) in [
        (
            doc! {"updateDescription.updatedFields.notes": "SECRET"},
            Reason::RandomEquality,
        ),
        (
            doc! {"updateDescription.updatedFields.nhs": {"$gt": "SECRET"}},
            Reason::Operator,
        ),
        (
            doc! {"updateDescription.updatedFields": {"nhs": "SECRET"}},
            Reason::WholeDocument,
        ),
    ] {
        assert_eq!(watch(doc! {"$match": condition}).refused(), reason);
    }
}

/// `updatedFields` has keys like `contacts.0.phone`: no path leads there, but operators on documents do.
#[test]
fn keeps_dotted_keys_of_an_event_unknown() {
    let changed = "$updateDescription.updatedFields";
    let dotted = |from: Bson| bson!({"$getField": {"field": "contacts.0.phone", "input": from}});
    let watch = |expression: Bson| {
        patients(bson!([{"$changeStream": {}}, {"$match": {"$expr": {"$eq": [expression, "SECRET"]}}}]))
    };
    for expression in [
        dotted(bson!(changed)),
        dotted(bson!({"$mergeObjects": [changed, {"x": 1}]})),
        dotted(bson!({"$unsetField": {"field": "contacts", "input": changed}})),
        dotted(bson!({"$setField": {"field": "x", "input": changed, "value": 1}})),
        dotted(bson!({"$setField": {"field": ".", "input": changed, "value": 1}})),
        dotted(bson!({"$unsetField": {"field": ".", "input": changed}})),
        dotted(bson!({"$ifNull": [changed, {}]})),
        bson!({"$first": {"$map": {"input": {"$objectToArray": changed}, "in": "$$this.v"}}}),
    ] {
        watch(expression).refused();
    }
    let pipeline = bson!([{"$changeStream": {}}, {"$unset": ["updateDescription.updatedFields.nhs", "updateDescription.updatedFields.contacts"]},
        {"$replaceRoot": {"newRoot": changed}}, {"$match": {"$expr": {"$eq": [{"$getField": "contacts.0.phone"}, "SECRET"]}}}]);
    patients(pipeline).refused();
    watch(bson!({"$getField": {"field": "n", "input": changed}}))
        .plan()
        .unwrap();
}

#[test]
fn watches_whole_databases() {
    // A whole database: the documents may be of any collection.
    let all = |stage: Document| on(1, bson!([{"$changeStream": {}}, stage]));
    all(doc! {"$match": {"operationType": "insert"}}).forwarded();
    all(doc! {"$match": {"documentKey._id": 5, "ns.coll": "patients"}}).forwarded();
    for path in [
        "fullDocument.nhs",
        "documentKey.nhs",
        "fullDocument",
        "updateDescription.updatedFields.nhs",
    ] {
        assert_eq!(
            all(doc! {"$match": {path: {"nhs": "SECRET"}}}).refused(),
            Reason::UnknownShape,
            "{path}"
        );
    }
}

#[test]
fn runs_on_a_database() {
    on(1, bson!([{"$documents": [{"a": 1}]}])).forwarded();
    on(1, bson!([{"$listLocalSessions": {}}])).forwarded();
    assert_eq!(
        on(
            1,
            bson!([{"$currentOp": {"allUsers": true}}, {"$match": {"active": true}}])
        )
        .refused(),
        Reason::Stage
    );
    assert_eq!(
        on(1, bson!([{"$documents": [{"a": "1"}]}, {"$lookup": {"from": "patients", "localField": "a", "foreignField": "nhs", "as": "p"}}])).refused(),
        Reason::Expression
    );
}

#[test]
fn handles_every_option_of_the_command() {
    let limit = || patients(bson!([{"$limit": 1}]));
    let options = doc! {
        "explain": true, "allowDiskUse": true, "bypassDocumentValidation": true, "hint": {"nhs": 1}, "maxTimeMS": 5,
        "readConcern": {"level": "majority"}, "writeConcern": {"w": 1}, "lsid": {"id": 1}, "txnNumber": 1_i64,
        "collation": {"locale": "en"}, "apiVersion": "1", "$readPreference": {"mode": "primary"}, "let": {"x": 1},
    };
    for (key, value) in options {
        limit().with(&key, value).forwarded();
    }
    let (after, _) = limit().with("comment", "SECRET").plan().unwrap();
    assert_eq!(after, limit().command);
    assert_eq!(limit().with("fromTheFuture", 1).refused(), Reason::Option);
    let by_nhs = || patients(bson!([{"$match": {"nhs": "SECRET"}}]));
    assert_eq!(
        by_nhs().with("collation", bson!({"locale": "fr"})).refused(),
        Reason::Collation
    );
    assert!(
        by_nhs()
            .with("collation", bson!({"locale": "simple"}))
            .plan()
            .is_ok()
    );
    let by_variable = patients(bson!([{"$match": {"$expr": {"$eq": ["$nhs", "$$x"]}}}]));
    assert_eq!(
        by_variable.with("let", bson!({"x": "SECRET"})).refused(),
        Reason::Expression
    );
    assert_eq!(
        limit().with("let", bson!({"x": {"$function": {}}})).refused(),
        Reason::Unanalysable
    );
    assert_eq!(limit().with("pipeline", 5).refused(), Reason::Malformed);
}

#[test]
fn refuses_a_stage_that_names_two_namespaces() {
    let mut bytes = on(
        "wards",
        bson!([{"$lookup": {"from": "wards", "FROM": "patients", "localField": "a", "foreignField": "nhs", "as": "x"}}]),
    )
    .command
    .to_vec()
    .unwrap();
    let at = bytes.windows(5).position(|w| w == b"FROM\0").unwrap();
    bytes[at..at + 4].copy_from_slice(b"from");
    let keys = Keys(1);
    let mut draft = Draft::new(&bytes, &keys, None);
    let view = CommandView::new(Doc::at(&bytes, 0).unwrap(), None, Vec::new())
        .unwrap()
        .unwrap();
    let refusal = plan(&view, &mut draft, &map(FieldState::Enforced)).unwrap_err();
    assert_eq!(refusal.reason, Reason::Malformed);
}

#[test]
fn bounds_pipelines_and_what_they_make_documents_of() {
    let many: Vec<Bson> = (0..1001).map(|_| bson!({"$limit": 1})).collect();
    assert_eq!(patients(many).refused(), Reason::Limit);
    let doubling: Vec<Bson> = (0..60)
        .map(|_| bson!({"$set": {"a": "$$ROOT", "b": "$$ROOT"}}))
        .collect();
    // Once nothing can be told any more, nothing is picked from it.
    assert_eq!(patients(doubling).refused(), Reason::UnknownShape);
    let wide: Document = (0..5000).map(|n| (format!("f{n}"), Bson::Int32(1))).collect();
    assert_eq!(patients(bson!([{"$project": wide}])).refused(), Reason::Limit);
}

#[test]
fn nothing_is_compared_with_a_field_that_joined_documents_have_lost() {
    let lost = bson!([{"$project": {"ward": 1}}]);
    for (place, before) in [
        ("a.nhs", bson!({"$facet": {"a": lost.clone()}})),
        (
            "p.nhs",
            bson!({"$lookup": {"from": "patients", "pipeline": lost.clone(), "as": "p"}}),
        ),
    ] {
        let run = |then: Document| patients(bson!([{"$unset": "notes"}, before.clone(), {"$match": then}]));
        assert_eq!(run(doc! {place: "SECRET"}).refused(), Reason::UnknownShape);
        run(doc! {place: {"$exists": false}}).forwarded();
        run(doc! {place.replace("nhs", "ward"): "A1"}).forwarded();
    }
    // What they have lost does not stand in the way of storing the rest.
    let joined = bson!({"$lookup": {"from": "patients", "pipeline": lost.clone(), "as": "p"}});
    on("wards", bson!([joined, {"$out": "report"}])).forwarded();
    let united = on(
        "wards",
        bson!([{"$unionWith": {"coll": "patients", "pipeline": lost}}, {"$match": {"nhs": "SECRET"}}]),
    );
    assert_eq!(united.refused(), Reason::UnknownShape);
    for name in [
        doc! {"$getField": "nhs"},
        doc! {"$getField": {"field": "nhs", "input": "$$ROOT"}},
    ] {
        let compared = bson!([{"$unset": "nhs"}, {"$project": {"x": {"$eq": [name, "SECRET"]}}}]);
        assert_eq!(patients(compared).refused(), Reason::Stage);
    }
}

#[test]
fn wholes_of_which_nothing_is_known_are_not_compared() {
    let watch = |then: Document| on(1, bson!([{"$changeStream": {}}, {"$match": then}]));
    for whole in [
        doc! {"documentKey": {"nhs": "SECRET"}},
        doc! {"documentKey": {"$in": [{"nhs": "SECRET"}]}},
        doc! {"updateDescription.updatedFields": {"nhs": "SECRET"}},
    ] {
        assert_eq!(watch(whole).refused(), Reason::WholeDocument);
    }
    watch(doc! {"documentKey": {"_id": 5}}).forwarded();
}
