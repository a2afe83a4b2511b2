//! Aggregation pipelines that follow what each path holds from stage to stage, so that most of them mean something.

use bson::{Bson, Document, bson, doc};

use crate::filters::Maker;
use crate::model::{Field, Kind, Map, Mode, Model, State};

/// What a path holds at some point of a pipeline.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) field: Field,
    /// May hold an array, or lie in one.
    pub(crate) many: bool,
}

/// What is known about the documents at some point of a pipeline.
#[derive(Clone)]
pub(crate) struct Env {
    pub(crate) entries: Vec<Entry>,
    /// The order of documents is the same on both sides.
    pub(crate) ordered: bool,
    /// Arrays that stand for sets are in them.
    pub(crate) sets: bool,
    /// `_id` is the stored one, and no two documents share it.
    pub(crate) unique: bool,
    /// Documents are still as they were stored.
    pub(crate) whole: bool,
    pub(crate) state_allows_sets: bool,
}

/// A pipeline, and how its results can be compared.
pub(crate) struct Pipeline {
    pub(crate) stages: Vec<Document>,
    pub(crate) ordered: bool,
    pub(crate) sets: bool,
    pub(crate) writes: bool,
}

fn plain(path: &str, kind: Kind) -> Entry {
    Entry {
        path: path.to_owned(),
        field: Field {
            path: "p",
            kind,
            mode: Mode::Plain,
            algorithm: "",
            domain: String::new(),
        },
        many: kind == Kind::Items,
    }
}

impl Env {
    pub(crate) fn of(map: &Map, collection: &str) -> Self {
        Self::of_model(map.model(collection), map.state)
    }

    pub(crate) fn of_model(model: &Model, state: State) -> Self {
        let mut entries: Vec<Entry> = model
            .fields
            .iter()
            .map(|field| Entry {
                path: field.path.to_owned(),
                many: field.in_array() || field.is_array(),
                field: field.clone(),
            })
            .collect();
        for name in ["p", "g"] {
            entries.push(plain(name, Kind::Int));
        }
        entries.push(plain("q", Kind::Text));
        entries.push(plain("arr.k", Kind::Items));
        entries.push(plain("w", Kind::Items));
        Self {
            entries,
            ordered: true,
            sets: false,
            unique: true,
            whole: true,
            state_allows_sets: state == State::Enforced,
        }
    }

    pub(crate) fn add(&mut self, path: &str, like: &Entry) {
        self.forget(path);
        self.entries.push(Entry {
            path: path.to_owned(),
            ..like.clone()
        });
    }

    fn forget(&mut self, path: &str) {
        let below = format!("{path}.");
        self.entries
            .retain(|e| e.path != path && !e.path.starts_with(&below));
    }

    fn replace(&mut self, entries: Vec<Entry>) {
        self.entries = entries;
        self.unique = false;
        self.whole = false;
    }
}

impl Maker<'_> {
    pub(crate) fn entry(&mut self, env: &Env, fits: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let fitting: Vec<&Entry> = env.entries.iter().filter(|e| fits(e)).collect();
        (!fitting.is_empty()).then(|| (*self.rng.pick(&fitting)).clone())
    }

    pub(crate) fn pipeline(&mut self, map: &Map, collection: &str) -> Pipeline {
        let mut env = Env::of(map, collection);
        let mut stages = Vec::new();
        for _ in 0..1 + self.rng.below(4) {
            self.stage(map, &mut env, &mut stages, true);
        }
        let mut writes = false;
        // What $out and $merge store has to come in one order on both sides.
        if env.whole && env.unique && collection == "a" && self.rng.percent(12) {
            stages.push(doc! { "$sort": { "_id": 1 } });
            writes = true;
            stages.push(match self.rng.below(6) {
                4 | 5 => {
                    self.tag("stage $merge by a pipeline");
                    self.merge_by_pipeline(map)
                }
                0 => {
                    self.tag("stage $out");
                    doc! { "$out": "t" }
                }
                1 => {
                    self.tag("stage $merge");
                    doc! { "$merge": "t" }
                }
                n => {
                    self.tag("stage $merge");
                    let matched = *self.rng.pick(&["replace", "keepExisting", "merge", "fail"]);
                    let unmatched = if n == 2 { "insert" } else { "discard" };
                    doc! { "$merge": { "into": "t", "on": "_id", "whenMatched": matched, "whenNotMatched": unmatched } }
                }
            });
        } else if env.unique && self.rng.percent(40) {
            stages.push(doc! { "$sort": { "_id": 1 } });
            env.ordered = true;
        }
        Pipeline {
            stages,
            ordered: env.ordered,
            sets: env.sets,
            writes,
        }
    }

    #[allow(clippy::too_many_lines, reason = "one arm per stage")]
    pub(crate) fn stage(&mut self, map: &Map, env: &mut Env, stages: &mut Vec<Document>, nest: bool) {
        let choice = self.rng.below(37);
        let name = match choice {
            0..=5 => {
                let condition = self.match_stage(env);
                stages.push(doc! { "$match": condition });
                "$match"
            }
            6..=8 => {
                let mut project = Document::new();
                let mut next = Vec::new();
                for n in 0..3 {
                    let Some(entry) = self.entry(env, |_| true) else {
                        break;
                    };
                    if self.rng.percent(60) {
                        if next.iter().all(|e: &Entry| !clash(&e.path, &entry.path)) {
                            project.insert(entry.path.clone(), 1);
                            next.push(entry);
                        }
                    } else {
                        let alias = format!("x{n}");
                        let (value, shown) = self.value(env, 2);
                        project.insert(alias.clone(), value);
                        if let Some(shown) = shown {
                            next.push(Entry { path: alias, ..shown });
                        }
                    }
                }
                if project.is_empty() {
                    return;
                }
                let unique = env.unique;
                stages.push(doc! { "$project": project });
                env.replace(next);
                env.unique = unique;
                "$project"
            }
            9 | 10 => {
                let Some(entry) = self.entry(env, |_| true) else {
                    return;
                };
                stages.push(if self.rng.percent(50) {
                    doc! { "$unset": entry.path.clone() }
                } else {
                    doc! { "$project": { entry.path.clone(): 0 } }
                });
                env.forget(&entry.path);
                env.whole = false;
                "$unset"
            }
            11..=13 => {
                let mut alias = *self.rng.pick(&["x7", "x8", "x9"]);
                let (value, shown) = if self.rng.percent(40) {
                    self.tag("expression wild");
                    (self.wild(env, 3), None)
                } else {
                    self.value(env, 3)
                };
                if self.rng.percent(15) {
                    self.tag("stage $addFields at a path");
                    alias = *self.rng.pick(&[
                        "s1", "n1", "arr.x", "arr.z", "sub.x", "sub.z", "s1.z", "l1.z", "m1.z", "i1.z",
                        "sub.deep", "arr",
                    ]);
                    env.forget(alias.split('.').next().unwrap_or(alias));
                }
                stages.push(doc! { "$addFields": { alias: value } });
                env.forget(alias);
                if let (Some(shown), None) = (shown, alias.find('.')) {
                    env.add(alias, &shown);
                }
                env.whole = false;
                "$addFields"
            }
            14 | 15 => {
                let odd = self.odd;
                let Some(entry) = self.entry(env, |e| {
                    (e.field.is_array() || e.path == "w")
                        && (odd || e.field.mode != Mode::Random)
                        && !e.path.contains("arr.")
                }) else {
                    return;
                };
                let path = if self.rng.percent(25) && env.entries.iter().any(|e| e.path.starts_with("arr.")) {
                    "arr".to_owned()
                } else {
                    entry.path
                };
                let preserve = self.rng.percent(40);
                stages.push(doc! { "$unwind": { "path": format!("${path}"), "preserveNullAndEmptyArrays": preserve } });
                env.unique = false;
                env.whole = false;
                "$unwind"
            }
            16 | 17 => {
                self.group(env, stages);
                "$group"
            }
            18 if env.unique => {
                let sort = self.rng.pick(&["p", "q", "g"]);
                stages.push(doc! { "$sort": { *sort: 1, "_id": 1 } });
                env.ordered = true;
                "$sort"
            }
            19 if env.ordered && env.unique => {
                let n = 1 + self.rng.small(6);
                stages.push(if self.rng.percent(50) {
                    doc! { "$limit": n }
                } else {
                    doc! { "$skip": n }
                });
                "$limit"
            }
            20 if env.whole => {
                self.lookup(map, env, stages);
                "$lookup"
            }
            21 if nest => {
                let mut branches = Document::new();
                for name in ["fa", "fb"] {
                    let mut inner = env.clone();
                    let mut list = Vec::new();
                    self.stage(map, &mut inner, &mut list, false);
                    if list.is_empty() {
                        list.push(doc! { "$match": { "p": 1 } });
                    }
                    env.sets |= inner.sets || !inner.ordered;
                    branches.insert(name, list);
                }
                stages.push(doc! { "$facet": branches });
                env.replace(Vec::new());
                "$facet"
            }
            22 if nest => {
                let other = *self.rng.pick(&["a", "t", "b", "u"]);
                let mut inner = Env::of(map, other);
                let mut list = Vec::new();
                self.stage(map, &mut inner, &mut list, false);
                env.ordered &= inner.ordered;
                env.sets |= inner.sets;
                stages.push(doc! { "$unionWith": { "coll": other, "pipeline": list } });
                env.unique = false;
                env.whole = false;
                if !matches!(other, "a" | "t") {
                    env.entries.retain(|e| !e.field.protected());
                }
                "$unionWith"
            }
            23 => {
                let (Some(one), Some(two)) = (self.entry(env, |_| true), self.entry(env, |_| true)) else {
                    return;
                };
                let (one_path, two_path) = (format!("${}", one.path), format!("${}", two.path));
                if self.rng.percent(60) {
                    stages.push(doc! { "$replaceRoot": { "newRoot": { "_id": "$_id", "ra": one_path, "rb": { "c": two_path } } } });
                    let mut next = Env {
                        entries: Vec::new(),
                        ..env.clone()
                    };
                    next.add("ra", &one);
                    next.add("rb.c", &two);
                    env.entries = next.entries;
                } else {
                    stages.push(doc! { "$replaceWith": { "$mergeObjects": ["$$ROOT", { "ra": one_path }] } });
                    env.add("ra", &one);
                }
                env.whole = false;
                "$replaceRoot"
            }
            24 => {
                stages.push(if self.rng.percent(50) {
                    doc! { "$bucket": { "groupBy": { "$ifNull": ["$p", 0] }, "boundaries": [0, 2, 4], "default": "rest", "output": { "c": { "$sum": 1 } } } }
                } else {
                    doc! { "$count": "c" }
                });
                env.replace(Vec::new());
                "$bucket"
            }
            25 => {
                let Some(entry) = self.entry(env, |e| groupable(e, env.state_allows_sets)) else {
                    return;
                };
                stages.push(doc! { "$sortByCount": format!("${}", entry.path) });
                env.replace(Vec::new());
                env.sets |= entry.many;
                env.ordered = false;
                "$sortByCount"
            }
            26 if env.unique => {
                let Some(entry) = self.entry(env, |_| true) else {
                    return;
                };
                let partition = self.entry(env, |e| groupable(e, env.state_allows_sets) && !e.many);
                // One output: the server does not promise the order of several.
                let output = if self.rng.percent(70) {
                    doc! { "x5": { *self.rng.pick(&["$first", "$last", "$push"]): format!("${}", entry.path) } }
                } else {
                    doc! { "x6": { "$documentNumber": {} } }
                };
                let mut window = doc! { "sortBy": { "_id": 1 }, "output": output };
                if let Some(partition) = partition {
                    window.insert("partitionBy", format!("${}", partition.path));
                }
                // $push and $first take documents of the whole partition: without a window, all of them.
                stages.push(doc! { "$setWindowFields": window });
                env.ordered = false;
                env.whole = false;
                "$setWindowFields"
            }
            27 => {
                let odd = self.odd;
                if !odd
                    && env
                        .entries
                        .iter()
                        .any(|e| matches!(e.field.mode, Mode::Random | Mode::Each))
                {
                    return;
                }
                let condition = self.boolean(env, 2);
                stages.push(doc! { "$redact": { "$cond": [condition, "$$KEEP", "$$PRUNE"] } });
                env.whole = false;
                "$redact"
            }
            28 => {
                stages.push(doc! { "$sample": { "size": 1000 } });
                env.ordered = false;
                "$sample"
            }
            29 if self.odd => {
                let Some(entry) = self.entry(env, |e| e.field.protected()) else {
                    return;
                };
                stages.push(doc! { "$sort": { entry.path: 1 } });
                "$sort"
            }
            30.. => match self.rarer_stage(map, env, stages, nest) {
                Some(name) => name,
                None => return,
            },
            _ => return,
        };
        self.tag(format!("stage {name}"));
    }

    pub(crate) fn match_stage(&mut self, env: &Env) -> Document {
        if self.rng.percent(30) {
            if self.rng.percent(30) {
                self.tag("expression wild");
                return doc! { "$expr": self.wild(env, 3) };
            }
            return doc! { "$expr": self.boolean(env, 2) };
        }
        let mut out = Document::new();
        for _ in 0..1 + self.rng.below(2) {
            let Some(entry) = self.entry(env, |_| true) else {
                return doc! { "p": 1 };
            };
            let condition = self.condition(&entry.field);
            out.insert(entry.path, condition);
        }
        out
    }

    fn group(&mut self, env: &mut Env, stages: &mut Vec<Document>) {
        let sets = env.state_allows_sets;
        let key = self.entry(env, |e| groupable(e, sets) && !e.many);
        let second = self.entry(env, |e| groupable(e, sets) && !e.many);
        let mut next = Env {
            entries: Vec::new(),
            ..env.clone()
        };
        let mut group = Document::new();
        match (self.rng.below(6), key, second) {
            (0, Some(one), Some(two)) => {
                group.insert(
                    "_id",
                    doc! { "a": format!("${}", one.path), "b": format!("${}", two.path) },
                );
                next.add("_id.a", &one);
                next.add("_id.b", &two);
            }
            (1, _, _) | (_, None, _) => {
                group.insert("_id", Bson::Null);
            }
            (_, Some(one), _) => {
                group.insert("_id", format!("${}", one.path));
                next.add("_id", &one);
            }
        }
        group.insert("c", doc! { "$sum": 1 });
        for name in ["ga", "gb"] {
            let (ordered, odd) = (env.ordered, self.odd);
            let accumulator = match self.rng.below(6) {
                0 if ordered => "$first",
                1 if ordered => "$last",
                2 if ordered => "$push",
                3 => "$addToSet",
                4 => "$max",
                _ => "$sum",
            };
            let entry = self.entry(env, |e| match accumulator {
                "$addToSet" => groupable(e, sets),
                "$max" | "$sum" => odd || !e.field.protected(),
                _ => true,
            });
            let Some(entry) = entry else { continue };
            self.tag(format!("accumulator {accumulator}"));
            group.insert(name, doc! { accumulator: format!("${}", entry.path) });
            match accumulator {
                "$addToSet" => next.sets = true,
                "$first" | "$last" => next.add(name, &entry),
                _ => {}
            }
        }
        stages.push(doc! { "$group": group });
        *env = next;
        env.ordered = false;
        env.unique = false;
        env.whole = false;
    }

    fn lookup(&mut self, map: &Map, env: &mut Env, stages: &mut Vec<Document>) {
        let (from, local, foreign) = match self.rng.below(5) {
            0 => ("u", "p", "g"),
            1 => ("b", "p", "p"),
            2 if env.entries.iter().any(|e| e.path == "r1") => ("a", "r1", "s1"),
            _ if env.entries.iter().any(|e| e.path == "s1" && e.field.protected()) => ("b", "s1", "r1"),
            _ => ("a", "g", "p"),
        };
        let mut lookup = doc! { "from": from };
        match self.rng.below(4) {
            0 => {
                lookup.insert("let", doc! { "v": format!("${local}") });
                lookup.insert(
                    "pipeline",
                    vec![
                        doc! { "$match": { "$expr": { "$eq": [format!("${foreign}"), "$$v"] } } },
                        doc! { "$sort": { "_id": 1 } },
                        doc! { "$project": { foreign: 1, "p": 1 } },
                    ],
                );
            }
            1 => {
                let inner = Env::of(map, from);
                let condition = self.match_stage(&inner);
                lookup.insert("localField", local);
                lookup.insert("foreignField", foreign);
                // An index on the field of the condition would give the order, of ciphertexts on one side.
                lookup.insert(
                    "pipeline",
                    vec![doc! { "$match": condition }, doc! { "$sort": { "_id": 1 } }],
                );
            }
            _ => {
                lookup.insert("localField", local);
                lookup.insert("foreignField", foreign);
            }
        }
        lookup.insert("as", "e");
        stages.push(doc! { "$lookup": lookup });
        if self.rng.percent(40) {
            stages.push(doc! { "$unwind": "$e" });
            env.unique = false;
        }
        for field in &map.model(from).fields {
            if field.path.len() == 2 {
                env.entries.push(Entry {
                    path: format!("e.{}", field.path),
                    field: field.clone(),
                    many: true,
                });
            }
        }
        env.whole = false;
    }
}

fn clash(one: &str, two: &str) -> bool {
    one == two || one.starts_with(&format!("{two}.")) || two.starts_with(&format!("{one}."))
}

/// Whether documents can be grouped by it.
pub(crate) fn groupable(entry: &Entry, sets: bool) -> bool {
    match entry.field.mode {
        Mode::Plain => true,
        Mode::Deterministic => sets,
        Mode::Random | Mode::Each => false,
    }
}

/// A literal as an expression: never mistaken for a path.
pub(crate) fn quoted(value: Bson) -> Bson {
    match value {
        Bson::String(text) if text.starts_with('$') => bson!({ "$literal": text }),
        Bson::Document(_) | Bson::Array(_) => bson!({ "$literal": value }),
        other => other,
    }
}
