//! Commands grown from bytes: any bytes are a command that a driver could send, most of them on protected fields, which
//! random bytes hardly ever are. Owns the shape of commands, not what must become of them.
//!
//! Every string that stands where the sample's field map protects it contains [`SECRET`], and no other string does: the
//! word must not be found in anything that leaves.

mod further;
mod stages;

use bson::raw::{CString, cstr};
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, Document, Regex, Timestamp, doc, oid::ObjectId};

/// Stands in every protected string.
pub(super) const SECRET: &str = "SECRET-IN-PLAIN";

/// Paths of `SAMPLE` whose values may be strings.
const PROTECTED: [&str; 6] = [
    "nhs",
    "notes",
    "tags",
    "contacts.phone",
    "address.line1",
    "moving",
];
const NAMES: [&str; 12] = [
    "nhs", "age", "count", "born", "notes", "tags", "contacts", "address", "moving", "phone", "line1", "ward",
];
const PATHS: [&str; 20] = [
    "nhs",
    "age",
    "count",
    "born",
    "notes",
    "tags",
    "contacts.phone",
    "address.line1",
    "moving",
    "contacts",
    "address",
    "ward",
    "_id",
    "contacts.0.phone",
    "contacts.$.phone",
    "contacts.$[].phone",
    "contacts.kind",
    "tags.0",
    "notes.inner",
    "nhs.inner",
];
const DEPTH: u8 = 4;

/// Bytes that decide; where they end, every decision is the first.
pub(super) struct Source<'a> {
    bytes: &'a [u8],
    /// Inside a question, not a write: a field that is migrating is looked for in plaintext too.
    asking: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, asking: false }
    }

    fn asking<T>(&mut self, grow: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.asking, true);
        let grown = grow(self);
        self.asking = before;
        grown
    }

    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.bytes.split_first() else {
            return 0;
        };
        self.bytes = rest;
        first
    }

    fn below(&mut self, n: u8) -> u8 {
        self.byte() % n
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[usize::from(self.byte()) % from.len()]
    }

    fn some<T>(&mut self, most: u8, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..=self.below(most)).map(|_| one(self)).collect()
    }
}

/// Documents to insert.
pub(super) fn insert(source: &mut Source<'_>) -> Document {
    let documents = source.some(3, |source| document(source, "", DEPTH));
    doc! { "insert": "p", "documents": documents, "$db": "c" }
}

/// Any command on the protected collection.
pub(super) fn command(source: &mut Source<'_>) -> Document {
    let mut command = match source.below(13) {
        0 => insert(source),
        10 => further::bulk_write(source),
        11 => further::definition(source),
        12 => further::indexes(source),
        1 | 2 => {
            let (u, filters) = update(source);
            let mut one = doc! { "q": filter(source, "", DEPTH), "u": u, "upsert": source.below(2) == 1, "multi": source.below(2) == 1 };
            one.extend(filters);
            doc! { "update": "p", "updates": [one] }
        }
        3 => doc! { "delete": "p", "deletes": [{ "q": filter(source, "", DEPTH), "limit": 1 }] },
        4 | 5 => {
            let mut find = doc! { "find": "p", "filter": filter(source, "", DEPTH) };
            if source.below(2) == 1 {
                find.insert("projection", stages::projection(source));
            }
            if source.below(3) == 1 {
                find.insert("sort", doc! { source.pick(&PATHS): 1 });
            }
            find
        }
        6 => {
            let (update, filters) = update(source);
            let mut one = doc! { "findAndModify": "p", "query": filter(source, "", DEPTH), "update": update };
            one.extend(filters);
            one
        }
        7 => doc! { "count": "p", "query": filter(source, "", DEPTH) },
        8 => doc! { "distinct": "p", "key": source.pick(&PATHS), "query": filter(source, "", DEPTH) },
        _ => {
            // What a later stage compares may have been computed: only the first stage is sure to see what is stored.
            let mut stages = vec![doc! { "$match": filter(source, "", DEPTH) }];
            stages.extend(source.some(3, |source| stages::stage(source, DEPTH)));
            doc! { "aggregate": "p", "pipeline": stages, "cursor": {} }
        }
    };
    if source.below(8) == 1 {
        command = doc! { "explain": command };
    }
    let database = if command.contains_key("bulkWrite") {
        "admin"
    } else {
        "c"
    };
    command.insert("$db", database);
    command
}

fn protected(source: &Source<'_>, path: &str) -> bool {
    let plain: Vec<&str> = path
        .split('.')
        .filter(|part| !part.starts_with('$') && !part.bytes().all(|b| b.is_ascii_digit()))
        .collect();
    let path = plain.join(".");
    if source.asking && plain.first() == Some(&"moving") {
        return false;
    }
    PROTECTED
        .iter()
        .any(|rule| path == *rule || path.strip_prefix(rule).is_some_and(|rest| rest.starts_with('.')))
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}.{name}")
    }
}

fn document(source: &mut Source<'_>, prefix: &str, depth: u8) -> Document {
    source
        .some(5, |source| {
            let name = source.pick(&NAMES);
            (name.to_owned(), value(source, &join(prefix, name), depth))
        })
        .into_iter()
        .collect()
}

fn value(source: &mut Source<'_>, path: &str, depth: u8) -> Bson {
    // A scalar where there is one, and now and then what nobody expects there.
    let holds = matches!(path, "contacts" | "address" | "tags" | "notes" | "ward");
    match (source.below(if holds { 4 } else { 32 }), depth) {
        (1, 1..) => Bson::Document(document(source, path, depth - 1)),
        (2, 1..) => Bson::Array(source.some(3, |source| value(source, path, depth - 1))),
        _ => at(source, path),
    }
}

/// Mostly a value of the type that the field's rule asks for: what has the wrong one is refused before anything else.
fn at(source: &mut Source<'_>, path: &str) -> Bson {
    let secret = protected(source, path);
    let n = source.byte();
    match path {
        _ if n % 8 == 7 => leaf(source, secret),
        "age" => Bson::Int32(n.into()),
        "count" => Bson::Int64(n.into()),
        "born" => Bson::DateTime(DateTime::from_millis(n.into())),
        _ if secret => Bson::String(format!("{SECRET}{n}")),
        _ => Bson::String(format!("plain{n}")),
    }
}

fn leaf(source: &mut Source<'_>, secret: bool) -> Bson {
    let n = source.byte();
    let text = if secret {
        format!("{SECRET}{n}")
    } else {
        format!("plain{n}")
    };
    match n % 20 {
        0..=8 => Bson::String(text),
        9 => Bson::Int32(n.into()),
        10 => Bson::Int64(n.into()),
        11 => Bson::Double(f64::from(n) / 2.0),
        12 => Bson::Null,
        13 => Bson::Boolean(n > 99),
        14 => Bson::DateTime(DateTime::from_millis(n.into())),
        15 => Bson::ObjectId(ObjectId::from_bytes([n; 12])),
        16 => Bson::Binary(Binary {
            subtype: BinarySubtype::from(source.byte()),
            bytes: text.into_bytes(),
        }),
        17 => Bson::Decimal128(Decimal128::from_bytes([n; 16])),
        18 => Bson::Timestamp(Timestamp {
            time: n.into(),
            increment: 1,
        }),
        // The pattern is put together from ASCII: it can hold no zero byte.
        _ => CString::try_from(text).map_or(Bson::MinKey, |pattern| {
            let options = cstr!("i").into();
            Bson::RegularExpression(Regex { pattern, options })
        }),
    }
}

fn filter(source: &mut Source<'_>, prefix: &str, depth: u8) -> Document {
    source.asking(|source| conditions(source, prefix, depth))
}

fn conditions(source: &mut Source<'_>, prefix: &str, depth: u8) -> Document {
    source
        .some(2, |source| match (source.below(8), depth) {
            (1, 1..) => {
                let operator = source.pick(&["$and", "$or", "$nor"]);
                let all = source.some(2, |source| Bson::Document(filter(source, prefix, depth - 1)));
                (operator.to_owned(), Bson::Array(all))
            }
            (2, 1..) if prefix.is_empty() => ("$expr".to_owned(), compared(source, depth - 1)),
            (3, _) => ("$comment".to_owned(), leaf(source, false)),
            _ => {
                let name = source.pick(&PATHS);
                let path = join(prefix, name);
                let condition = if source.below(2) == 1 {
                    Bson::Document(operators(source, &path, depth))
                } else {
                    value(source, &path, depth)
                };
                (name.to_owned(), condition)
            }
        })
        .into_iter()
        .collect()
}

fn operators(source: &mut Source<'_>, path: &str, depth: u8) -> Document {
    source
        .some(2, |source| {
            let (operator, operand) = match (source.below(9), depth) {
                (0, _) => (
                    source.pick(&["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]),
                    value(source, path, depth),
                ),
                (1 | 2, 1..) => {
                    let all = source.some(3, |source| value(source, path, depth - 1));
                    (source.pick(&["$in", "$nin", "$all"]), Bson::Array(all))
                }
                (3, 1..) => ("$elemMatch", Bson::Document(filter(source, path, depth - 1))),
                (4, 1..) => ("$elemMatch", Bson::Document(operators(source, path, depth - 1))),
                (5, 1..) => ("$not", Bson::Document(operators(source, path, depth - 1))),
                (6, _) => (
                    source.pick(&["$exists", "$type", "$size", "$mod"]),
                    leaf(source, false),
                ),
                (7, _) => ("$regex", at(source, path)),
                _ => ("$eq", at(source, path)),
            };
            (operator.to_owned(), operand)
        })
        .into_iter()
        .collect()
}

/// A comparison of a stored field with a value of that field.
fn compared(source: &mut Source<'_>, depth: u8) -> Bson {
    let path = source.pick(&[
        "nhs",
        "age",
        "count",
        "born",
        "notes",
        "address.line1",
        "ward",
        "moving",
    ]);
    let operand = source.asking(|source| at(source, path));
    let sides = match source.below(3) {
        0 => vec![Bson::String(format!("${path}")), operand],
        1 => vec![operand, Bson::String(format!("${path}"))],
        _ => vec![
            Bson::String(format!("${path}")),
            Bson::Document(doc! { "$literal": operand }),
        ],
    };
    let one = match source.below(4) {
        0 => doc! { "$in": [&sides[0], [sides[1].clone()]] },
        1 => doc! { source.pick(&["$ne", "$gt", "$lt", "$cmp"]): sides },
        _ => doc! { "$eq": sides },
    };
    match (source.below(4), depth) {
        (1, 1..) => Bson::Document(doc! { "$and": [one, compared(source, depth - 1)] }),
        (2, 1..) => Bson::Document(doc! { "$not": [compared(source, depth - 1)] }),
        _ => Bson::Document(one),
    }
}

/// An update and the further fields of its statement.
fn update(source: &mut Source<'_>) -> (Bson, Document) {
    match source.below(6) {
        0 => (Bson::Document(document(source, "", DEPTH)), Document::new()),
        1 => {
            let stages = source.some(2, |source| Bson::Document(assignment(source)));
            (Bson::Array(stages), Document::new())
        }
        2 => (
            Bson::Document(
                doc! { "$set": { "contacts.$[x].phone": value(source, "contacts.phone", 1), "tags.$[y]": value(source, "tags", 1) } },
            ),
            doc! { "arrayFilters": [{ "x.phone": operators(source, "contacts.phone", 1) }, { "y": operators(source, "tags", 1) }] },
        ),
        _ => {
            let modifiers = source.some(1, |source| {
                let operator = source.pick(&[
                    "$set",
                    "$setOnInsert",
                    "$push",
                    "$addToSet",
                    "$pull",
                    "$pullAll",
                    "$unset",
                    "$inc",
                    "$mul",
                    "$min",
                    "$max",
                    "$rename",
                    "$pop",
                ]);
                let fields: Document = source
                    .some(2, |source| {
                        let path = source.pick(&PATHS);
                        (path.to_owned(), operand(source, operator, path))
                    })
                    .into_iter()
                    .collect();
                (operator.to_owned(), Bson::Document(fields))
            });
            (Bson::Document(modifiers.into_iter().collect()), Document::new())
        }
    }
}

/// A stage of an update's pipeline.
fn assignment(source: &mut Source<'_>) -> Document {
    let path = source.pick(&["nhs", "age", "notes", "address.line1", "moving", "ward"]);
    let set = match source.below(6) {
        0 => doc! { path: { "$literal": at(source, path) } },
        1 => doc! { path: { "$cond": [compared(source, 1), at(source, path), format!("${path}")] } },
        2 => doc! { path: { "$ifNull": [format!("${path}"), at(source, path)] } },
        3 => doc! { path: format!("${}", source.pick(&PATHS)) },
        _ => doc! { path: at(source, path) },
    };
    match source.below(8) {
        0 => doc! { "$unset": source.pick(&PATHS) },
        3 => doc! { "$replaceWith": { "$literal": document(source, "", 2) } },
        4 => {
            doc! { "$replaceWith": { "$setField": { "field": path, "input": "$$ROOT", "value": at(source, path) } } }
        }
        1 => doc! { "$replaceWith": { "$mergeObjects": ["$$ROOT", set] } },
        2 => doc! { source.pick(&["$replaceWith", "$project"]): set },
        _ => doc! { source.pick(&["$set", "$addFields"]): set },
    }
}

fn operand(source: &mut Source<'_>, operator: &str, path: &str) -> Bson {
    match operator {
        "$unset" | "$inc" | "$mul" | "$pop" => leaf(source, false),
        "$rename" => Bson::String(source.pick(&PATHS).to_owned()),
        "$pullAll" => Bson::Array(source.asking(|source| source.some(2, |source| value(source, path, 1)))),
        "$pull" if source.below(2) == 1 => Bson::Document(source.asking(|source| operators(source, path, 2))),
        // What is pulled is looked for, not written.
        "$pull" => source.asking(|source| value(source, path, 3)),
        "$push" | "$addToSet" if source.below(2) == 1 => {
            let each = source.some(3, |source| value(source, path, 2));
            Bson::Document(doc! { "$each": each })
        }
        _ => value(source, path, 3),
    }
}
