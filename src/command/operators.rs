//! What each query operator, update operator and index type does on protected fields, as tables for people. Decides
//! nothing: `filter`, `update_ops` and `create_indexes` do, and `tests/generated_docs.rs` holds every cell against them.

/// What comes of an operator at one kind of path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It works.
    Yes,
    /// It works for some operands; the note says for which.
    Partly,
    /// It is refused.
    No,
}

/// One operator at the four kinds of protected path.
#[derive(Clone, Copy, Debug)]
pub struct Operator {
    /// Its name.
    pub name: &'static str,
    /// On a deterministic field.
    pub deterministic: Fit,
    /// On a random field, sealed as one value.
    pub random: Fit,
    /// On a random field with `each = true`, whose array items are sealed one by one.
    pub each: Fit,
    /// On a path that holds protected fields (`contacts`, where `contacts.phone` is protected).
    pub around: Fit,
    /// One line for people.
    pub note: &'static str,
}

/// What becomes of an operator that stands in no field's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// Its clauses are planned like the filter itself.
    Planned,
    /// Taken out before the command goes on.
    Removed,
    /// Goes on as it is.
    Kept,
    /// Refused in a protected namespace.
    Refused,
}

use Fit::{No, Partly, Yes};

const fn row(name: &'static str, fits: [Fit; 4], note: &'static str) -> Operator {
    let [deterministic, random, each, around] = fits;
    Operator {
        name,
        deterministic,
        random,
        each,
        around,
        note,
    }
}

const NULL_ONLY: &str = "random: comparison with null only; enclosing path: with scalars and null only";
const PLACE: &str = "the value's place is not its ciphertext's";

/// Operators on a field's path in a filter.
pub const FILTER: &[Operator] = &[
    row("$eq", [Yes, Partly, Partly, Partly], NULL_ONLY),
    row("$ne", [Yes, Partly, Partly, Partly], NULL_ONLY),
    row("$in", [Yes, Partly, Partly, Partly], NULL_ONLY),
    row("$nin", [Yes, Partly, Partly, Partly], NULL_ONLY),
    row(
        "$all",
        [Yes, Partly, Partly, Partly],
        "as $in; on an enclosing path with $elemMatch inside",
    ),
    row(
        "$exists",
        [Yes, Yes, Yes, Yes],
        "null and missing fields stay as they are",
    ),
    row("$not", [Partly, Partly, Partly, Partly], "as the operator inside"),
    row(
        "$elemMatch",
        [Partly, No, Partly, Yes],
        "as the operators inside; a value that is sealed whole has no items",
    ),
    row(
        "$size",
        [Yes, No, Yes, Yes],
        "the length of an array shows unless it is sealed whole",
    ),
    row("$type", [No, No, No, Yes], "the stored type is binary"),
    row("$gt", [No, No, No, No], PLACE),
    row("$gte", [No, No, No, No], PLACE),
    row("$lt", [No, No, No, No], PLACE),
    row("$lte", [No, No, No, No], PLACE),
    row(
        "$regex",
        [No, No, No, No],
        "also as a regular expression literal, and inside $in",
    ),
    row("$mod", [No, No, No, No], "arithmetic on ciphertext"),
    row("$bitsAllSet", [No, No, No, No], "bits of ciphertext"),
    row("$bitsAnySet", [No, No, No, No], "bits of ciphertext"),
    row("$bitsAllClear", [No, No, No, No], "bits of ciphertext"),
    row("$bitsAnyClear", [No, No, No, No], "bits of ciphertext"),
    row("$geoWithin", [No, No, No, No], "no geometry in ciphertext"),
    row("$geoIntersects", [No, No, No, No], "no geometry in ciphertext"),
    row("$near", [No, No, No, No], "no geometry in ciphertext"),
    row("$nearSphere", [No, No, No, No], "no geometry in ciphertext"),
];

/// Operators at the top of a filter or of one of its branches.
pub const FILTER_TOP: &[(&str, Top, &str)] = &[
    ("$and", Top::Planned, "each branch"),
    ("$or", Top::Planned, "each branch"),
    ("$nor", Top::Planned, "each branch"),
    ("$expr", Top::Planned, "by the table of expression operators"),
    (
        "$comment",
        Top::Removed,
        "it would reach the server's log and profiler",
    ),
    ("$sampleRate", Top::Kept, "names no field"),
    ("$alwaysTrue", Top::Kept, "names no field"),
    ("$alwaysFalse", Top::Kept, "names no field"),
    ("$where", Top::Refused, "code cannot be analysed"),
    (
        "$text",
        Top::Refused,
        "a text index holds no protected field, and the search may be for one",
    ),
    (
        "$jsonSchema",
        Top::Refused,
        "describes values the server does not hold",
    ),
];

/// Update operators.
pub const UPDATE: &[Operator] = &[
    row(
        "$set",
        [Yes, Yes, Yes, Yes],
        "sealed; also by position: contacts.0.phone, contacts.$[].phone, contacts.$[c].phone",
    ),
    row("$setOnInsert", [Yes, Yes, Yes, Yes], "as $set"),
    row("$unset", [Yes, Yes, Yes, Yes], ""),
    row(
        "$push",
        [Yes, No, Yes, Yes],
        "with $each, $position, $slice; $sort by unprotected fields only",
    ),
    row(
        "$addToSet",
        [Yes, No, No, Partly],
        "needs equality: not while migrating or rotating; on an enclosing path only where all protected fields inside are deterministic",
    ),
    row(
        "$pull",
        [Yes, No, Partly, Yes],
        "its condition is planned like a filter",
    ),
    row("$pullAll", [Yes, No, No, No], "needs equality of whole items"),
    row("$pop", [Yes, No, Yes, Yes], ""),
    row(
        "$rename",
        [No, No, No, No],
        "the key belongs to the path; also refused where only the new name is protected",
    ),
    row("$inc", [No, No, No, No], "arithmetic on ciphertext"),
    row("$mul", [No, No, No, No], "arithmetic on ciphertext"),
    row("$min", [No, No, No, No], "order of ciphertext"),
    row("$max", [No, No, No, No], "order of ciphertext"),
    row("$bit", [No, No, No, No], "bits of ciphertext"),
    row(
        "$currentDate",
        [No, No, No, No],
        "the server would write its clock unsealed",
    ),
];

/// One kind of index.
#[derive(Clone, Copy, Debug)]
pub struct Index {
    /// What it is called.
    pub name: &'static str,
    /// With a deterministic field in its key.
    pub deterministic: Fit,
    /// With a random field in its key.
    pub random: Fit,
    /// With a path that holds protected fields in its key.
    pub around: Fit,
    /// One line for people.
    pub note: &'static str,
}

const fn index(name: &'static str, fits: [Fit; 3], note: &'static str) -> Index {
    let [deterministic, random, around] = fits;
    Index {
        name,
        deterministic,
        random,
        around,
        note,
    }
}

/// Kinds of index.
pub const INDEXES: &[Index] = &[
    index(
        "ascending, descending",
        [Yes, No, No],
        "alone or in a compound index; serves equality, not order",
    ),
    index(
        "unique",
        [Yes, No, No],
        "holds for one key version: during a rotation the same value can be stored once under each",
    ),
    index("sparse", [Yes, No, No], ""),
    index("hashed", [Yes, No, No], ""),
    index(
        "wildcard ($**)",
        [Yes, Yes, Yes],
        "takes in ciphertext as binary; leave protected fields out by wildcardProjection to save space",
    ),
    index(
        "TTL (expireAfterSeconds)",
        [No, No, No],
        "a sealed date is no date to the server",
    ),
    index("text", [No, No, No], ""),
    index("2d", [No, No, No], ""),
    index("2dsphere", [No, No, No], ""),
    index(
        "partial, by $exists",
        [Yes, Yes, Yes],
        "partialFilterExpression on the protected field; the key is judged by the rows above",
    ),
    index(
        "partial, by a value",
        [No, No, No],
        "the literal would have to change with every key",
    ),
];
