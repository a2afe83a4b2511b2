//! Filters over a model: every operator, every spelling of a path; mostly what can be answered, now and then not.

use bson::{Bson, Decimal128, Document, bson, doc};

use crate::model::{Field, Kind, Mode, Model, State, plain_value, scalar};
use crate::pipelines::Env;
use crate::rng::Rng;

/// What is being made: the dice, and what was used, for the statistics.
pub(crate) struct Maker<'a> {
    pub(crate) rng: &'a mut Rng,
    pub(crate) tags: Vec<String>,
    /// May ask for what is known to be refused.
    pub(crate) odd: bool,
}

impl<'a> Maker<'a> {
    pub(crate) fn new(rng: &'a mut Rng) -> Self {
        let odd = rng.percent(12);
        Self {
            rng,
            tags: Vec::new(),
            odd,
        }
    }

    pub(crate) fn tag(&mut self, tag: impl Into<String>) {
        self.tags.push(tag.into());
    }

    fn operator(&mut self, name: &str, mode: Mode) {
        let mode = match mode {
            Mode::Plain => "plain",
            Mode::Deterministic => "deterministic",
            Mode::Random => "random",
            Mode::Each => "each",
        };
        self.tag(format!("filter {name} {mode}"));
    }

    pub(crate) fn filter(&mut self, model: &Model, state: State) -> Document {
        match self.rng.below(15) {
            0 => doc! {},
            1 => doc! { "_id": self.rng.small(30) },
            2 => {
                self.tag("filter $or");
                doc! { "$or": [self.filter(model, state), self.conditions(model)] }
            }
            3 => {
                self.tag("filter $and");
                doc! { "$and": [self.conditions(model), self.filter(model, state)] }
            }
            4 => {
                self.tag("filter $nor");
                doc! { "$nor": [self.conditions(model)] }
            }
            5 => {
                self.tag("filter $expr");
                let env = Env::of_model(model, state);
                doc! { "$expr": self.boolean(&env, 1) }
            }
            _ => self.conditions(model),
        }
    }

    pub(crate) fn conditions(&mut self, model: &Model) -> Document {
        let mut out = Document::new();
        for _ in 0..1 + self.rng.below(2) {
            let (path, condition) = self.single(model);
            out.insert(path, condition);
        }
        out
    }

    fn single(&mut self, model: &Model) -> (String, Bson) {
        match self.rng.below(10) {
            0..=2 => self.plain_single(),
            3 => self.enclosing(model),
            _ => {
                let field = &model.fields[self.rng.below(model.fields.len())];
                (self.spelled(field), self.condition(field))
            }
        }
    }

    /// The path as an application may write it: by name, or by a position on the way.
    pub(crate) fn spelled(&mut self, field: &Field) -> String {
        let mut path = field.path.to_owned();
        if field.in_array() && self.rng.percent(30) {
            let at = self.rng.below(2);
            path = path.replacen("arr.", &format!("arr.{at}."), 1);
            self.tag("filter path by index");
        }
        if field.is_array() && field.mode != Mode::Random && self.rng.percent(20) {
            path = format!("{path}.{}", self.rng.below(2));
            self.tag("filter path by index");
        }
        if field.kind == Kind::Mixed && self.rng.percent(3) {
            path.push_str(".x");
            self.tag("filter path below");
        }
        path
    }

    fn plain_single(&mut self) -> (String, Bson) {
        let name = *self.rng.pick(&["p", "g", "q", "w", "arr.k", "sub.q", "_id"]);
        let value = |rng: &mut Rng| match name {
            "_id" => rng.small(30).into(),
            "w" | "arr.k" => rng.small(4).into(),
            "sub.q" => "qa".into(),
            _ => plain_value(rng, name),
        };
        let v = value(self.rng);
        let condition = match self.rng.below(12) {
            0 => bson!({ "$gt": v }),
            1 => bson!({ "$gte": v, "$exists": true }),
            2 => bson!({ "$lt": v }),
            3 => bson!({ "$ne": v }),
            4 => bson!({ "$in": [v, value(self.rng)] }),
            5 => bson!({ "$type": ["int", "string", "null"] }),
            6 if matches!(name, "p" | "g" | "_id") => bson!({ "$mod": [2, 1] }),
            7 if matches!(name, "p" | "g") => bson!({ "$bitsAnySet": 3 }),
            8 if name == "q" => bson!({ "$regex": "^q[ab]" }),
            9 => bson!({ "$not": { "$lte": v } }),
            _ => v,
        };
        self.operator("any", Mode::Plain);
        (name.to_owned(), condition)
    }

    fn enclosing(&mut self, model: &Model) -> (String, Bson) {
        let name = *self.rng.pick(&["arr", "arr", "arr", "sub"]);
        if self.rng.percent(25) {
            return (name.to_owned(), self.bare(name));
        }
        let condition = match self.rng.below(8) {
            0 => {
                self.tag("filter enclosing $exists");
                bson!({ "$exists": self.rng.percent(60) })
            }
            1 => {
                self.tag("filter enclosing null");
                Bson::Null
            }
            2 => {
                self.tag("filter enclosing $ne null");
                bson!({ "$ne": null })
            }
            3 => {
                self.tag("filter enclosing $type");
                bson!({ "$type": "object" })
            }
            _ if name == "sub" => {
                self.tag("filter enclosing $size");
                bson!({ "$size": 2 })
            }
            4 => {
                self.tag("filter enclosing $size");
                bson!({ "$size": self.rng.small(3) })
            }
            _ => {
                self.tag("filter $elemMatch");
                let inner = self.item_filter(model);
                bson!({ "$elemMatch": inner })
            }
        };
        (name.to_owned(), condition)
    }

    /// A whole that holds nothing protected, and operators on the items themselves.
    fn bare(&mut self, name: &str) -> Bson {
        let whole = |rng: &mut Rng| match (rng.below(5), name) {
            (0 | 1, _) => bson!([]),
            (2, _) => bson!({}),
            (3, "sub") => bson!({ "q": "qa" }),
            (3, _) => bson!({ "k": rng.small(4) }),
            (_, "sub") => bson!({ "q": "qa", "x": null }),
            _ => bson!([{ "k": rng.small(4) }, null]),
        };
        let (tag, condition) = match self.rng.below(8) {
            0 => ("literal", whole(self.rng)),
            1 => ("$eq", bson!({ "$eq": whole(self.rng) })),
            2 => ("$ne", bson!({ "$ne": whole(self.rng) })),
            3 => ("$in", bson!({ "$in": [whole(self.rng), null, whole(self.rng)] })),
            4 => ("$nin", bson!({ "$nin": [whole(self.rng), 7] })),
            5 => ("$elemMatch $exists", bson!({ "$elemMatch": { "$exists": true } })),
            6 => (
                "$elemMatch $nin",
                bson!({ "$elemMatch": { "$nin": [null, whole(self.rng)] } }),
            ),
            _ => (
                "$elemMatch $not",
                bson!({ "$elemMatch": { "$not": { "$type": "object" } } }),
            ),
        };
        self.tag(format!("filter enclosing whole {tag}"));
        condition
    }

    /// Conditions on one item of `arr`, by names relative to it.
    pub(crate) fn item_filter(&mut self, model: &Model) -> Document {
        let mut out = Document::new();
        if self.rng.percent(50) {
            out.insert("k", self.rng.small(4));
        }
        let inner: Vec<&Field> = model.fields.iter().filter(|f| f.in_array()).collect();
        if !inner.is_empty() && (out.is_empty() || self.rng.percent(60)) {
            let field = *self.rng.pick(&inner);
            out.insert(field.path.trim_start_matches("arr."), self.condition(field));
        }
        if out.is_empty() {
            out.insert("k", 1);
        }
        out
    }

    /// A literal to compare with; whole numbers sometimes of another type than the declared one.
    pub(crate) fn literal(&mut self, field: &Field) -> Bson {
        let value = scalar(self.rng, field);
        if field.mode != Mode::Deterministic || !self.rng.percent(12) {
            return value;
        }
        // Equal to the server, and to no stored form: the proxy has to refuse it.
        if self.rng.percent(10)
            && let Bson::Int32(_) | Bson::Int64(_) = value
            && let Ok(decimal) = value.to_string().parse::<Decimal128>()
        {
            self.tag("decimal literal");
            return decimal.into();
        }
        match value {
            Bson::Int32(n) if self.rng.percent(50) => f64::from(n).into(),
            Bson::Int32(n) => i64::from(n).into(),
            #[allow(clippy::cast_precision_loss, reason = "below 2^53")]
            Bson::Int64(n) => (n as f64).into(),
            other => other,
        }
    }

    pub(crate) fn condition(&mut self, field: &Field) -> Bson {
        let odd = self.odd && self.rng.percent(60);
        match field.mode {
            Mode::Plain => {
                self.operator("any", Mode::Plain);
                self.equality(field)
            }
            Mode::Deterministic if odd => {
                let (name, condition) = match self.rng.below(5) {
                    0 => ("$gt", bson!({ "$gt": self.literal(field) })),
                    1 => ("$regex", bson!({ "$regex": "^x" })),
                    2 => ("$type", bson!({ "$type": "string" })),
                    3 => ("other type", bson!({ "$eq": true })),
                    _ => ("whole array", bson!([self.literal(field), self.literal(field)])),
                };
                self.operator(name, field.mode);
                condition
            }
            Mode::Deterministic => self.equality(field),
            Mode::Random | Mode::Each => {
                let (name, condition) = match self.rng.below(7) {
                    _ if odd => ("$eq", self.literal(field)),
                    0 | 1 => ("$exists", bson!({ "$exists": self.rng.percent(60) })),
                    2 => ("null", Bson::Null),
                    3 => ("$in null", bson!({ "$in": [null] })),
                    4 if field.mode == Mode::Each => match self.rng.below(4) {
                        0 => ("$ne []", bson!({ "$ne": [] })),
                        1 => ("$type", bson!({ "$type": "array" })),
                        _ => ("$size", bson!({ "$size": self.rng.small(3) })),
                    },
                    5 => ("$not", bson!({ "$not": { "$exists": true } })),
                    _ => ("$ne null", bson!({ "$ne": null })),
                };
                self.operator(name, field.mode);
                condition
            }
        }
    }

    fn equality(&mut self, field: &Field) -> Bson {
        let v = self.literal(field);
        let (name, condition) = match self.rng.below(22) {
            19 => ("$type", bson!({ "$type": *self.rng.pick(&["null", "array"]) })),
            20 => ("$type", bson!({ "$type": [10, 4] })),
            21 => match self.rng.below(4) {
                0 => ("[]", bson!([])),
                1 => ("$ne []", bson!({ "$ne": [] })),
                2 => ("$in []", bson!({ "$in": [[], v] })),
                _ => ("$in []", bson!({ "$nin": [[null], []] })),
            },
            0..=3 => ("literal", v),
            4 => ("$eq", bson!({ "$eq": v })),
            5 | 6 => ("$ne", bson!({ "$ne": v })),
            7 | 8 => ("$in", bson!({ "$in": self.several(field) })),
            9 | 10 => ("$nin", bson!({ "$nin": self.several(field) })),
            11 => ("$exists", bson!({ "$exists": self.rng.percent(60) })),
            12 => ("null", Bson::Null),
            13 => ("$not", bson!({ "$not": { "$in": self.several(field) } })),
            14 => ("$not", bson!({ "$not": { "$eq": v } })),
            15 => ("$all", bson!({ "$all": [v, self.literal(field)] })),
            16 => {
                let operator = *self.rng.pick(&["$eq", "$in", "$ne", "$nin"]);
                let operand = if operator.ends_with("in") { bson!([v]) } else { v };
                ("$elemMatch", bson!({ "$elemMatch": { operator: operand } }))
            }
            17 if field.is_array() => ("$size", bson!({ "$size": self.rng.small(3) })),
            _ => ("two", bson!({ "$ne": v, "$exists": true })),
        };
        self.operator(name, field.mode);
        condition
    }

    fn several(&mut self, field: &Field) -> Bson {
        let mut all: Vec<Bson> = (0..self.rng.below(4)).map(|_| self.literal(field)).collect();
        if self.rng.percent(20) {
            all.push(Bson::Null);
        }
        all.into()
    }

    /// A sort that leaves nothing open.
    pub(crate) fn sort(&mut self) -> Document {
        let mut sort = Document::new();
        if self.rng.percent(60) {
            let name = *self.rng.pick(&["p", "g", "q", "arr.k", "w"]);
            sort.insert(name, if self.rng.percent(50) { 1 } else { -1 });
        }
        sort.insert("_id", if self.rng.percent(50) { 1 } else { -1 });
        sort
    }

    pub(crate) fn projection(&mut self, model: &Model, filter: &Document) -> Document {
        let tops = [
            "s1", "s2", "n1", "m1", "l1", "i1", "sub.x", "sub.deep", "arr.x", "arr.k", "p", "q", "d1", "r1",
            "m1.x", "arr.m.x",
        ];
        let mut out = Document::new();
        match self.rng.below(8) {
            0..=2 => {
                self.tag("projection inclusion");
                let below = if self.rng.percent(10) {
                    tops.len()
                } else {
                    tops.len() - 2
                };
                for _ in 0..3 {
                    out.insert(tops[self.rng.below(below)], 1);
                }
                if self.rng.percent(20) {
                    out.insert("_id", 0);
                }
            }
            3 | 4 => {
                self.tag("projection exclusion");
                for _ in 0..2 {
                    out.insert(*self.rng.pick(&tops), 0);
                }
            }
            5 if self.rng.percent(40) => {
                let lists: Vec<&Field> = model
                    .fields
                    .iter()
                    .filter(|f| f.kind == Kind::Texts && !f.in_array() && f.mode == Mode::Deterministic)
                    .collect();
                let path = lists.first().map_or("w", |f| f.path);
                let cond = match lists.first() {
                    Some(field) => bson!({ "$ne": ["$$this", { "$literal": self.literal(field) }] }),
                    None => bson!({ "$gt": ["$$this", 1] }),
                };
                self.tag("projection $slice of an expression");
                let list = format!("${path}");
                let input = bson!({ "$cond": [{ "$isArray": list.clone() }, list, []] });
                out.insert(
                    "alias",
                    doc! { "$slice": [{ "$filter": { "input": input, "cond": cond } }, 2] },
                );
            }
            5 => {
                self.tag("projection $slice");
                let name = *self.rng.pick(&["arr", "w"]);
                out.insert(name, doc! { "$slice": [self.rng.small(2), 1] });
            }
            6 => {
                self.tag("projection $elemMatch");
                out.insert("arr", doc! { "$elemMatch": self.item_filter(model) });
            }
            _ if filter.contains_key("arr.k") => {
                self.tag("projection positional");
                out.insert("arr.$", 1);
            }
            _ => {
                self.tag("projection computed");
                let fields: Vec<&Field> = model.fields.iter().filter(|f| !f.in_array()).collect();
                let field = *self.rng.pick(&fields);
                out.insert("alias", format!("${}", field.path));
                out.insert("p", 1);
                if field.mode == Mode::Deterministic && field.kind != Kind::Texts {
                    let value = self.literal(field);
                    out.insert(
                        "hit",
                        doc! { "$eq": [format!("${}", field.path), { "$literal": value }] },
                    );
                }
            }
        }
        out
    }
}
