//! Updates over a model: operators, positions, replacements, pipelines.

use bson::{Bson, Document, bson, doc};

use crate::filters::Maker;
use crate::model::{Field, Kind, Mode, Model, arr, document, inner, plain_value, scalar, stored, sub};

/// What `u` and its companions are.
pub(crate) struct Update {
    pub(crate) change: Bson,
    pub(crate) array_filters: Vec<Document>,
    /// Conditions that the filter must hold for the change to make sense (a positional `$`).
    pub(crate) needs: Document,
}

impl Maker<'_> {
    pub(crate) fn update(&mut self, model: &Model) -> Update {
        let mut update = Update {
            change: Bson::Null,
            array_filters: Vec::new(),
            needs: Document::new(),
        };
        update.change = match self.rng.below(20) {
            0 | 1 => {
                self.tag("update replacement");
                let mut whole = document(self.rng, model, 0);
                whole.remove("_id");
                whole.into()
            }
            2 => self.pipeline_update(model),
            _ => self.operators(model, &mut update).into(),
        };
        update
    }

    fn operators(&mut self, model: &Model, update: &mut Update) -> Document {
        let mut out = Document::new();
        let mut taken: Vec<&str> = Vec::new();
        for _ in 0..1 + self.rng.below(3) {
            let top = match self.rng.below(10) {
                0 => "arr",
                1 => "sub",
                2 | 3 => *self.rng.pick(&["p", "g", "q", "w"]),
                _ => model.fields[self.rng.below(model.fields.len())].top(),
            };
            if taken.contains(&top) {
                continue;
            }
            taken.push(top);
            let (operator, path, value) = match top {
                "arr" => self.change_arr(model, update),
                "sub" => self.change_sub(model),
                "p" | "g" | "q" | "w" => self.change_plain(top),
                _ => match model.fields.iter().find(|f| f.path == top) {
                    Some(field) => self.change_field(field, field.path.to_owned()),
                    None => continue,
                },
            };
            let group = out
                .entry(operator.to_owned())
                .or_insert(Bson::Document(Document::new()));
            if let Bson::Document(group) = group {
                group.insert(path, value);
            }
        }
        out
    }

    fn did(&mut self, operator: &'static str, mode: Mode) -> &'static str {
        self.tag(format!("update {operator} {mode:?}").to_lowercase());
        operator
    }

    fn change_plain(&mut self, name: &'static str) -> (&'static str, String, Bson) {
        let n = self.rng.small(4);
        let (operator, value): (_, Bson) = match (name, self.rng.below(7)) {
            ("q", 0) => ("$rename", "q2".into()),
            ("q", 1) => ("$unset", "".into()),
            ("q", _) => ("$set", plain_value(self.rng, "q")),
            ("w", 0 | 1) => ("$push", bson!({ "$each": [n, 2], "$sort": 1, "$slice": 4 })),
            ("w", 2) => ("$addToSet", n.into()),
            ("w", 3) => ("$pull", bson!({ "$gt": n })),
            ("w", 4) => ("$pop", 1.into()),
            ("w", _) => ("$pullAll", bson!([n, 1])),
            (_, 0) => ("$inc", n.into()),
            (_, 1) => ("$mul", 2.into()),
            (_, 2) => ("$min", n.into()),
            (_, 3) => ("$max", n.into()),
            (_, 4) => ("$bit", bson!({ "or": n })),
            (_, 5) => ("$setOnInsert", n.into()),
            _ => ("$set", n.into()),
        };
        (self.did(operator, Mode::Plain), name.to_owned(), value)
    }

    fn change_field(&mut self, field: &Field, path: String) -> (&'static str, String, Bson) {
        if self.odd && field.protected() && self.rng.percent(50) {
            let operator = *self.rng.pick(&["$inc", "$min", "$rename", "$bit"]);
            let value = match operator {
                "$rename" => bson!("elsewhere"),
                "$bit" => bson!({ "or": 1 }),
                _ => bson!(1),
            };
            return (self.did(operator, field.mode), path, value);
        }
        if field.kind == Kind::Mixed && self.rng.percent(4) {
            self.tag("update path below");
            return (self.did("$set", field.mode), format!("{path}.x"), 1.into());
        }
        let item = field.mode == Mode::Deterministic || !field.protected();
        if field.is_array() && field.mode != Mode::Random && self.rng.percent(75) {
            let v = scalar(self.rng, field);
            let (operator, value) = match self.rng.below(12) {
                10 => return (self.did("$set", field.mode), format!("{path}.$[]"), v),
                0 | 1 => ("$push", v),
                2 => (
                    "$push",
                    bson!({ "$each": [v, scalar(self.rng, field)], "$position": 0 }),
                ),
                3 => ("$push", bson!({ "$each": [v], "$slice": -3 })),
                4 if item => ("$addToSet", v),
                5 if item => ("$addToSet", bson!({ "$each": [v, scalar(self.rng, field)] })),
                6 if item => ("$pull", v),
                7 if item => ("$pull", bson!({ "$in": [v, scalar(self.rng, field)] })),
                8 if item => ("$pullAll", bson!([v, scalar(self.rng, field)])),
                9 => {
                    let at = self.rng.below(3);
                    return (self.did("$set", field.mode), format!("{path}.{at}"), v);
                }
                _ => ("$pop", if self.rng.percent(50) { 1 } else { -1 }.into()),
            };
            return (self.did(operator, field.mode), path, value);
        }
        match self.rng.below(8) {
            0 => (self.did("$unset", field.mode), path, "".into()),
            1 => (
                self.did("$setOnInsert", field.mode),
                path,
                stored(self.rng, field),
            ),
            _ => (self.did("$set", field.mode), path, stored(self.rng, field)),
        }
    }

    fn change_sub(&mut self, model: &Model) -> (&'static str, String, Bson) {
        let below: Vec<&Field> = model.fields.iter().filter(|f| f.top() == "sub").collect();
        match self.rng.below(8) {
            0 => (
                self.did("$set", Mode::Plain),
                "sub".to_owned(),
                sub(self.rng, model),
            ),
            1 => (self.did("$unset", Mode::Plain), "sub".to_owned(), "".into()),
            2 if below.iter().any(|f| f.path == "sub.deep.z") => {
                let field = below.iter().find(|f| f.path == "sub.deep.z").copied();
                let value = field.map_or(Bson::Null, |f| stored(self.rng, f));
                self.tag("update $set enclosing");
                ("$set", "sub.deep".to_owned(), bson!({ "z": value, "o": 1 }))
            }
            _ if below.is_empty() => ("$set", "sub.q".to_owned(), "qa".into()),
            _ => {
                let field = *self.rng.pick(&below);
                self.change_field(field, field.path.to_owned())
            }
        }
    }

    fn change_arr(&mut self, model: &Model, update: &mut Update) -> (&'static str, String, Bson) {
        let below: Vec<&Field> = model.fields.iter().filter(|f| f.in_array()).collect();
        let at = self.rng.below(3);
        let arr_path = || "arr".to_owned();
        let choice = self.rng.below(15);
        match choice {
            0 => (self.did("$set", Mode::Plain), arr_path(), arr(self.rng, model)),
            1 | 2 => {
                self.tag("update $push enclosing");
                let items = vec![inner(self.rng, model, "arr."), inner(self.rng, model, "arr.")];
                let value = match self.rng.below(3) {
                    0 => items[0].clone().into(),
                    1 => bson!({ "$each": items, "$slice": 4 }),
                    _ => bson!({ "$each": items, "$sort": { "k": 1 }, "$slice": -4 }),
                };
                ("$push", arr_path(), value)
            }
            3 => {
                self.tag("update $pull enclosing");
                ("$pull", arr_path(), self.item_filter(model).into())
            }
            4 => (self.did("$pop", Mode::Plain), arr_path(), 1.into()),
            5 => {
                self.tag("update $set item");
                ("$set", format!("arr.{at}"), inner(self.rng, model, "arr.").into())
            }
            6 if self.odd => {
                self.tag("update $addToSet enclosing");
                ("$addToSet", arr_path(), inner(self.rng, model, "arr.").into())
            }
            7 => {
                self.tag("update $unset in item");
                (
                    "$unset",
                    format!("arr.{at}.{}", below.first().map_or("k", |f| f.last())),
                    "".into(),
                )
            }
            _ if below.is_empty() => ("$set", format!("arr.{at}.k"), self.rng.small(4).into()),
            _ => {
                let field = *self.rng.pick(&below);
                let rest = field.path.trim_start_matches("arr.");
                let position = match choice {
                    8 | 9 => {
                        self.tag("update path by index");
                        at.to_string()
                    }
                    10 => {
                        self.tag("update path $[]");
                        "$[]".to_owned()
                    }
                    11 | 12 => {
                        self.tag("update path $");
                        update.needs = if self.rng.percent(50) || field.kind == Kind::Texts {
                            doc! { "arr.k": self.rng.small(4) }
                        } else {
                            let item = self.item_filter(model);
                            doc! { "arr": { "$elemMatch": item } }
                        };
                        "$".to_owned()
                    }
                    _ => {
                        self.tag("update path $[id]");
                        let filter = self.item_filter(model);
                        update.array_filters = vec![
                            filter
                                .into_iter()
                                .map(|(key, value)| (format!("it.{key}"), value))
                                .collect(),
                        ];
                        "$[it]".to_owned()
                    }
                };
                self.change_field(field, format!("arr.{position}.{rest}"))
            }
        }
    }

    fn pipeline_update(&mut self, model: &Model) -> Bson {
        self.tag("update pipeline");
        match self.rng.below(4) {
            0 => bson!([{ "$set": { "p": { "$add": [{ "$ifNull": ["$g", 0] }, 1] } } }, { "$unset": ["q"] }]),
            1 => {
                bson!([{ "$addFields": { "q": { "$concat": [{ "$ifNull": ["$q", "-"] }, "x"] }, "sub2.v": "$p" } }])
            }
            2 => bson!([{ "$unset": ["s2", "sub.x"] }]),
            _ => {
                let fields: Vec<&Field> = model.fields.iter().filter(|f| f.path.len() == 2).collect();
                let field = *self.rng.pick(&fields);
                self.tag("update pipeline protected");
                bson!([{ "$set": { field.path: { "$literal": scalar(self.rng, field) } } }])
            }
        }
    }
}
