//! Aggregation expressions over what a pipeline knows.

use bson::{Bson, bson};

use crate::filters::Maker;
use crate::model::{Kind, Mode};
use crate::pipelines::{Entry, Env, quoted};

impl Maker<'_> {
    /// An expression that is true or false.
    pub(crate) fn boolean(&mut self, env: &Env, depth: usize) -> Bson {
        if depth > 0 && self.rng.percent(30) {
            let one = self.boolean(env, depth - 1);
            return match self.rng.below(4) {
                0 => bson!({ "$and": [one, self.boolean(env, depth - 1)] }),
                1 => bson!({ "$or": [one, self.boolean(env, depth - 1)] }),
                2 => bson!({ "$not": [one] }),
                _ => bson!({ "$cond": [one, self.boolean(env, 0), false] }),
            };
        }
        let odd = self.odd;
        let Some(entry) = self.entry(env, |_| true) else {
            return bson!({ "$eq": ["$p", 1] });
        };
        let path = format!("${}", entry.path);
        match entry.field.mode {
            Mode::Deterministic if !(odd && self.rng.percent(50)) => {
                let literal = quoted(self.literal(&entry.field));
                let other = quoted(self.literal(&entry.field));
                let (name, made) = match self.rng.below(9) {
                    0 | 1 => ("$eq", bson!({ "$eq": [path, literal] })),
                    2 => ("$eq", bson!({ "$eq": [literal, path] })),
                    3 => ("$ne", bson!({ "$ne": [path, literal] })),
                    4 => ("$in", bson!({ "$in": [path, [literal, other]] })),
                    5 => ("$gt null", bson!({ "$gt": [path, null] })),
                    6 => ("$ifNull", bson!({ "$eq": [{ "$ifNull": [path, null] }, null] })),
                    7 if entry.field.is_array() => (
                        "$in array",
                        bson!({ "$in": [literal, { "$cond": [{ "$isArray": [path.clone()] }, path, []] }] }),
                    ),
                    7 => ("$eq field", bson!({ "$eq": [path.clone(), path] })),
                    _ => (
                        "$let",
                        bson!({ "$let": { "vars": { "v": path }, "in": { "$eq": ["$$v", literal] } } }),
                    ),
                };
                self.tag(format!("expression {name} deterministic"));
                made
            }
            Mode::Plain => {
                let literal = quoted(self.literal(&entry.field));
                let name = *self.rng.pick(&["$eq", "$ne", "$gt", "$lte"]);
                self.tag("expression plain");
                bson!({ name: [path, literal] })
            }
            _ if odd => {
                self.tag("expression odd");
                bson!({ *self.rng.pick(&["$gt", "$strcasecmp", "$eq"]): [path, "x"] })
            }
            _ => {
                self.tag("expression null");
                match self.rng.below(3) {
                    0 => bson!({ "$gt": [path, null] }),
                    1 => bson!({ "$eq": [{ "$ifNull": [path, null] }, null] }),
                    _ => bson!({ "$lte": [path, null] }),
                }
            }
        }
    }

    /// An expression, and what its value is like where that can be told.
    pub(crate) fn value(&mut self, env: &Env, depth: usize) -> (Bson, Option<Entry>) {
        let Some(entry) = self.entry(env, |_| true) else {
            return ("$p".into(), None);
        };
        let path: Bson = format!("${}", entry.path).into();
        if depth == 0 || self.rng.percent(25) {
            return (path, Some(entry));
        }
        let made = match self.rng.below(20) {
            0 => return (self.boolean(env, depth - 1), None),
            1 => (
                "$cond",
                bson!({ "$cond": [self.boolean(env, depth - 1), path, null] }),
            ),
            2 => (
                "$cond",
                bson!({ "$cond": { "if": self.boolean(env, 1), "then": path, "else": "$$REMOVE" } }),
            ),
            3 => ("$ifNull", bson!({ "$ifNull": [path, null] })),
            4 if entry.field.mode == Mode::Deterministic && entry.field.kind != Kind::Texts => {
                let literal = quoted(self.literal(&entry.field));
                ("$ifNull literal", bson!({ "$ifNull": [path, literal] }))
            }
            5 => (
                "$switch",
                bson!({ "$switch": { "branches": [
                { "case": self.boolean(env, 1), "then": path }], "default": null } }),
            ),
            6 => ("$let", bson!({ "$let": { "vars": { "v": path }, "in": "$$v" } })),
            7 | 8
                if entry.field.is_array()
                    && entry.field.mode != Mode::Random
                    && !entry.path.contains("arr.") =>
            {
                let guarded = bson!({ "$cond": [{ "$isArray": [path.clone()] }, path, []] });
                self.tag("expression on items");
                let deterministic = entry.field.mode == Mode::Deterministic;
                let made = match self.rng.below(9) {
                    0 => bson!({ "$size": guarded }),
                    1 => bson!({ "$first": guarded }),
                    2 => bson!({ "$arrayElemAt": [guarded, self.rng.small(2)] }),
                    3 => bson!({ "$reverseArray": guarded }),
                    4 => bson!({ "$slice": [guarded, 1] }),
                    5 => bson!({ "$concatArrays": [guarded.clone(), guarded] }),
                    6 => bson!({ "$map": { "input": guarded, "in": "$$this" } }),
                    7 if deterministic => {
                        let literal = quoted(self.literal(&entry.field));
                        bson!({ "$filter": { "input": guarded, "cond": { "$ne": ["$$this", literal] } } })
                    }
                    _ => bson!({ "$last": guarded }),
                };
                return (made, None);
            }
            9 => {
                let Some(inner) = self.entry(env, |e| {
                    e.path.starts_with("arr.") && e.path.matches('.').count() == 1
                }) else {
                    return (path, Some(entry));
                };
                self.tag("expression on enclosing items");
                let guarded = bson!({ "$cond": [{ "$isArray": ["$arr"] }, "$arr", []] });
                let item = format!("$$this.{}", inner.path.trim_start_matches("arr."));
                let made = match self.rng.below(3) {
                    0 => bson!({ "$map": { "input": guarded, "in": item } }),
                    1 if inner.field.mode == Mode::Deterministic && inner.field.kind == Kind::Text => {
                        let literal = quoted(self.literal(&inner.field));
                        bson!({ "$filter": { "input": guarded, "cond": { "$eq": [item, literal] } } })
                    }
                    _ => bson!({ "$map": { "input": guarded, "as": "it", "in": {
                        "v": format!("$$it.{}", inner.path.trim_start_matches("arr.")), "k": "$$it.k" } } }),
                };
                return (made, None);
            }
            10 => {
                self.tag("expression $mergeObjects");
                return (bson!({ "$mergeObjects": [{ "mx": path }, { "k": "$p" }] }), None);
            }
            11 => {
                self.tag("expression object");
                return (bson!({ "ox": path, "oy": "$p" }), None);
            }
            12 => {
                self.tag("expression plain");
                return (bson!({ "$add": [{ "$ifNull": ["$p", 0] }, 1] }), None);
            }
            13 => {
                self.tag("expression array");
                return (bson!([path, "$p"]), None);
            }
            15 => return (self.mixed(env, &path), None),
            16 if entry.field.mode == Mode::Deterministic && entry.field.kind == Kind::Text => {
                self.tag("expression on a listed value");
                let (one, two) = (
                    quoted(self.literal(&entry.field)),
                    quoted(self.literal(&entry.field)),
                );
                let list = bson!([path, one.clone()]);
                let made = match self.rng.below(6) {
                    0 => bson!({ "$in": [one, list] }),
                    1 => bson!({ "$size": { "$setUnion": [list, [two]] } }),
                    2 => bson!({ "$size": { "$setIntersection": [list, [one, two]] } }),
                    3 => bson!({ "$indexOfArray": [list, two] }),
                    4 => bson!({ "$filter": { "input": list, "cond": { "$ne": ["$$this", two] } } }),
                    _ => bson!({ "$arrayElemAt": [list, self.rng.small(2)] }),
                };
                return (made, None);
            }
            17 if entry.field.protected() => {
                self.tag("expression on a list of one");
                let list = bson!([path]);
                let made = match self.rng.below(6) {
                    0 => bson!({ "$size": list }),
                    1 => bson!({ "$isArray": [list] }),
                    2 => bson!({ "$first": list }),
                    3 => bson!({ "$concatArrays": [list.clone(), list] }),
                    4 => bson!({ "$map": { "input": [1, 2], "in": list } }),
                    _ => bson!({ "$size": { "$map": { "input": list, "in": "$$this" } } }),
                };
                return (made, None);
            }
            14 if self.odd => {
                self.tag("expression odd");
                return (
                    bson!({ *self.rng.pick(&["$toUpper", "$strLenCP", "$toString", "$type"]): path }),
                    None,
                );
            }
            _ => return (path, Some(entry)),
        };
        self.tag(format!("expression {}", made.0));
        (made.1, Some(entry))
    }

    /// Branches of which one may be sealed and another not.
    fn mixed(&mut self, env: &Env, path: &Bson) -> Bson {
        self.tag("expression mixed");
        let test = self.boolean(env, 1);
        let other: Bson = match self.entry(env, |_| true) {
            Some(other) => format!("${}", other.path).into(),
            None => Bson::Null,
        };
        match self.rng.below(5) {
            0 => bson!({ "$cond": [test, path.clone(), other] }),
            1 => bson!({ "$ifNull": [path.clone(), other] }),
            2 => {
                bson!({ "$switch": { "branches": [{ "case": test, "then": path.clone() }], "default": other } })
            }
            3 => bson!({ "$eq": [{ "$ifNull": [path.clone(), null] }, null] }),
            _ => bson!({ "$getField": { "field": "v", "input": { "v": path.clone(), "o": other } } }),
        }
    }

    /// A path, or a literal of any kind.
    fn leaf(&mut self, env: &Env) -> Bson {
        let Some(entry) = self.entry(env, |_| true) else {
            return Bson::Null;
        };
        match self.rng.below(10) {
            0 => quoted(self.literal(&entry.field)),
            1 => Bson::Null,
            2 => bson!([]),
            3 => bson!({ "$literal": [self.literal(&entry.field)] }),
            4 => "$arr".into(),
            5 => (*self.rng.pick(&["$sub", "$$ROOT", "$missing", "$$REMOVE", "$p"])).into(),
            _ => format!("${}", entry.path).into(),
        }
    }

    /// Any expression over anything, whether it means something or not.
    pub(crate) fn wild(&mut self, env: &Env, depth: usize) -> Bson {
        if depth == 0 {
            return self.leaf(env);
        }
        let one = self.wild(env, depth - 1);
        let two = if self.rng.percent(60) {
            self.leaf(env)
        } else {
            self.wild(env, depth - 1)
        };
        let list = |value: Bson| bson!({ "$cond": [{ "$isArray": [value.clone()] }, value, []] });
        match self.rng.below(30) {
            0 => bson!({ *self.rng.pick(&["$eq", "$ne"]): [one, two] }),
            1 => bson!({ *self.rng.pick(&["$gt", "$lte", "$cmp"]): [one, two] }),
            2 => bson!({ "$in": [one, list(two)] }),
            3 => bson!({ "$cond": [one, two, self.leaf(env)] }),
            4 => bson!({ "$ifNull": [one, two] }),
            5 => {
                bson!({ "$switch": { "branches": [{ "case": one, "then": two }], "default": self.leaf(env) } })
            }
            6 => bson!({ *self.rng.pick(&["$and", "$or"]): [one, two] }),
            7 => bson!({ "$not": [one] }),
            8 => bson!({ "$let": { "vars": { "v": one }, "in": { "$eq": ["$$v", two] } } }),
            9 => bson!({ "$size": list(one) }),
            10 => bson!({ *self.rng.pick(&["$first", "$last", "$reverseArray"]): list(one) }),
            11 => bson!({ "$arrayElemAt": [list(one), 0] }),
            12 => bson!({ "$slice": [list(one), 1] }),
            13 => bson!({ "$filter": { "input": list(one), "cond": { "$eq": ["$$this", two] } } }),
            14 => bson!({ "$filter": { "input": list(one), "cond": { "$ne": ["$$this.x", two] } } }),
            15 => bson!({ "$map": { "input": list(one), "in": { "$ifNull": ["$$this.x", two] } } }),
            16 => bson!({ "$map": { "input": list(one), "in": { "a": "$$this", "b": two } } }),
            17 => bson!({ "$concatArrays": [list(one), list(two)] }),
            18 => bson!({ *self.rng.pick(&["$setEquals", "$setIsSubset"]): [list(one), list(two)] }),
            19 => {
                bson!({ "$size": { *self.rng.pick(&["$setUnion", "$setIntersection", "$setDifference"]): [list(one), list(two)] } })
            }
            20 => bson!({ "$mergeObjects": [{ "a": one }, { "x": two }] }),
            21 => bson!({ "$objectToArray": { "x": one, "y": two } }),
            22 => bson!({ "$getField": { "field": *self.rng.pick(&["x", "k", "n", "s1"]), "input": one } }),
            23 => bson!({ "$setField": { "field": "x", "input": "$$ROOT", "value": one } }),
            24 => bson!({ "$indexOfArray": [list(one), two] }),
            25 => bson!({ "x": one, "y": two }),
            26 => bson!([one, two]),
            27 => bson!({ "$firstN": { "input": list(one), "n": 1 } }),
            28 => {
                bson!({ "$reduce": { "input": list(one), "initialValue": false, "in": { "$or": ["$$value", { "$eq": ["$$this", two] }] } } })
            }
            _ => bson!({ "$arrayToObject": { "$objectToArray": { "x": one } } }),
        }
    }
}
