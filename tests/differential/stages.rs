//! Stages that are rarer: what fills, spaces, walks graphs, and writes by a pipeline.

use bson::{Bson, Document, bson, doc};

use crate::filters::Maker;
use crate::model::{Kind, Map, Mode};
use crate::pipelines::{Entry, Env, groupable, quoted};

impl Maker<'_> {
    /// One of them; `None` where none fits what is known.
    pub(crate) fn rarer_stage(
        &mut self,
        map: &Map,
        env: &mut Env,
        stages: &mut Vec<Document>,
        nest: bool,
    ) -> Option<&'static str> {
        match self.rng.below(8) {
            0 if env.unique => self.fill(env, stages),
            1 => self.densify(env, stages),
            2 => self.graph(map, env, stages),
            3 => self.pushed(env, stages),
            4 => self.indexed(env, stages),
            5 if nest => self.facet_again(map, env, stages),
            6 => self.rebuilt(env, stages),
            7 => self.buckets(env, stages),
            _ => None,
        }
    }

    fn partition(&mut self, env: &Env) -> Option<Entry> {
        let sets = env.state_allows_sets;
        self.entry(env, |e| groupable(e, sets) && !e.many && !e.path.contains("arr."))
    }

    fn fill(&mut self, env: &mut Env, stages: &mut Vec<Document>) -> Option<&'static str> {
        let entry = self.entry(env, |e| !e.path.contains('.'))?;
        let how = if self.rng.percent(50) {
            doc! { "method": "locf" }
        } else {
            doc! { "value": quoted(self.literal(&entry.field)) }
        };
        let mut fill = doc! { "sortBy": { "_id": 1 }, "output": { entry.path: how } };
        if self.rng.percent(50)
            && let Some(by) = self.partition(env)
        {
            fill.insert("partitionByFields", [by.path]);
            env.ordered = false;
        }
        stages.push(doc! { "$fill": fill });
        env.whole = false;
        Some("$fill")
    }

    fn densify(&mut self, env: &mut Env, stages: &mut Vec<Document>) -> Option<&'static str> {
        if env.sets {
            return None;
        }
        let mut densify = doc! { "field": "p", "range": { "step": 1, "bounds": [0, 3] } };
        if self.rng.percent(50)
            && let Some(by) = self.partition(env)
        {
            densify.insert("partitionByFields", [by.path]);
        }
        stages.push(doc! { "$densify": densify });
        env.unique = false;
        env.whole = false;
        env.ordered = false;
        Some("$densify")
    }

    fn graph(&mut self, map: &Map, env: &mut Env, stages: &mut Vec<Document>) -> Option<&'static str> {
        // `r1` of `b` has the domain of `s1` of `a`.
        let sealed = self.entry(env, |e| e.path == "s1" && e.field.protected());
        let (from, start, connect) = match sealed {
            Some(_) if self.rng.percent(70) => ("b", "$s1", "r1"),
            _ => ("u", "$p", "g"),
        };
        let mut graph = doc! {
            "from": from, "startWith": start, "connectFromField": connect, "connectToField": connect, "as": "e", "maxDepth": 1,
        };
        if self.rng.percent(40) {
            graph.insert("depthField", *self.rng.pick(&["depth", "r1", "s1", "n1"]));
        }
        if self.rng.percent(40) {
            let condition = self.match_stage(&Env::of(map, from));
            graph.insert("restrictSearchWithMatch", condition);
        }
        stages.push(doc! { "$graphLookup": graph });
        env.sets = true;
        env.whole = false;
        Some("$graphLookup")
    }

    /// An array of what is pushed, which is then looked at or taken apart again.
    fn pushed(&mut self, env: &mut Env, stages: &mut Vec<Document>) -> Option<&'static str> {
        if !env.ordered {
            return None;
        }
        let entry = self.entry(env, |e| !e.many)?;
        let path = format!("${}", entry.path);
        let accumulator = match self.rng.below(4) {
            0 => doc! { "$push": path },
            1 => doc! { "$firstN": { "input": path, "n": 2 } },
            2 => doc! { "$push": { "in": path } },
            _ => doc! { "$lastN": { "input": path, "n": 3 } },
        };
        let nested = accumulator
            .get_document("$push")
            .is_ok_and(|pushed| pushed.contains_key("in"));
        let by = self
            .partition(env)
            .map_or(Bson::Null, |by| format!("${}", by.path).into());
        stages.push(doc! { "$group": { "_id": by, "all": accumulator } });
        let shown = Entry {
            path: if nested { "all.in" } else { "all" }.to_owned(),
            many: true,
            ..entry
        };
        env.entries = vec![shown];
        env.ordered = false;
        env.unique = false;
        env.whole = false;
        match self.rng.below(3) {
            0 => stages.push(doc! { "$unwind": "$all" }),
            1 => stages.push(
                doc! { "$addFields": { "n": { "$size": "$all" }, "one": { "$arrayElemAt": ["$all", -1] } } },
            ),
            _ => {}
        }
        Some("$group that pushes")
    }

    fn indexed(&mut self, env: &mut Env, stages: &mut Vec<Document>) -> Option<&'static str> {
        let name = *self.rng.pick(&["s1", "n1", "m1", "x4"]);
        stages.push(doc! { "$unwind": { "path": "$w", "includeArrayIndex": name, "preserveNullAndEmptyArrays": true } });
        let like = self.entry(env, |e| e.field.kind == Kind::Int && e.field.mode == Mode::Plain);
        env.entries.retain(|e| e.path != name);
        if let Some(like) = like {
            env.add(name, &Entry { many: false, ..like });
        }
        env.unique = false;
        env.whole = false;
        Some("$unwind with an index")
    }

    /// What a facet found is documents again.
    fn facet_again(&mut self, map: &Map, env: &mut Env, stages: &mut Vec<Document>) -> Option<&'static str> {
        let mut inner = env.clone();
        let mut list = Vec::new();
        self.stage(map, &mut inner, &mut list, false);
        if list.is_empty() {
            return None;
        }
        stages.push(doc! { "$facet": { "fa": list } });
        stages.push(doc! { "$unwind": "$fa" });
        stages.push(doc! { "$replaceRoot": { "newRoot": "$fa" } });
        *env = inner;
        env.whole = false;
        Some("$facet, then its documents")
    }

    fn rebuilt(&mut self, env: &mut Env, stages: &mut Vec<Document>) -> Option<&'static str> {
        let entry = self.entry(env, |e| !e.path.contains('.'))?;
        let other = self.entry(env, |e| !e.path.contains('.'))?;
        let (path, value) = (entry.path.clone(), format!("${}", other.path));
        let root = match self.rng.below(4) {
            0 => bson!({ "$unsetField": { "field": path, "input": "$$ROOT" } }),
            1 => bson!({ "$setField": { "field": path, "input": "$$ROOT", "value": value } }),
            2 => bson!({ "$mergeObjects": ["$$ROOT", { path: value }] }),
            _ => bson!({ "$arrayToObject": { "$objectToArray": "$$ROOT" } }),
        };
        stages.push(doc! { "$replaceWith": root });
        env.entries.retain(|e| e.path != entry.path);
        env.whole = false;
        Some("$replaceWith of the root")
    }

    fn buckets(&mut self, env: &mut Env, stages: &mut Vec<Document>) -> Option<&'static str> {
        let entry = self.entry(env, |_| true)?;
        stages.push(doc! { "$bucketAuto": { "groupBy": "$p", "buckets": 2, "output": {
        "n": { "$sum": 1 }, "all": { "$push": format!("${}", entry.path) } } } });
        env.entries = vec![Entry {
            path: "all".to_owned(),
            many: true,
            ..entry
        }];
        env.sets = true;
        env.ordered = false;
        env.unique = false;
        env.whole = false;
        Some("$bucketAuto")
    }

    /// `$merge` that updates what it finds by a pipeline.
    pub(crate) fn merge_by_pipeline(&mut self, map: &Map) -> Document {
        let env = Env::of(map, "t");
        let paths: Vec<String> = env
            .entries
            .iter()
            .map(|e| e.path.clone())
            .filter(|path| !path.contains("arr."))
            .collect();
        let path = self.rng.pick(&paths).clone();
        let (held, new) = (format!("${path}"), format!("$$new.{path}"));
        let stage = match self.rng.below(6) {
            0 => doc! { "$set": { path: new } },
            1 => doc! { "$set": { path: { "$ifNull": [new, held] } } },
            2 => doc! { "$set": { path: { "$cond": [{ "$gt": ["$p", "$$new.p"] }, held, new] } } },
            3 => doc! { "$replaceWith": { "$mergeObjects": ["$$ROOT", "$$new"] } },
            4 => doc! { "$unset": path },
            _ => doc! { "$set": { "same": { "$eq": [new, held] } } },
        };
        let unmatched = *self.rng.pick(&["insert", "discard"]);
        doc! { "$merge": { "into": "t", "on": "_id", "whenMatched": [stage], "whenNotMatched": unmatched } }
    }
}
