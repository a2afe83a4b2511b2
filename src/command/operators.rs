//! What each query operator, update operator and index type does on protected fields: closed tables. `filter`,
//! `update_ops` and `create_indexes` dispatch on them: what a cell refuses is refused, and the row says how the rest is
//! planned. `docs/COMMANDS.md` is generated from them, and `tests/generated_docs.rs` holds every cell against what the
//! code does.

use crate::policy::{FieldRule, Target};

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
pub struct Operator<K = Predicate> {
    /// Its name.
    pub name: &'static str,
    /// How it is planned where no cell refuses it.
    pub kind: K,
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

impl<K> Operator<K> {
    /// Its cell for a field of this rule.
    pub fn on(&self, rule: &FieldRule) -> Fit {
        if rule.is_deterministic() {
            self.deterministic
        } else if rule.seals_elements() {
            self.each
        } else {
            self.random
        }
    }

    /// Its cell for what a path leads to; nothing works below a sealed value.
    pub fn at(&self, target: &Target) -> Fit {
        match target {
            Target::Plain => Fit::Yes,
            Target::Sealed(rule) => self.on(rule),
            Target::Above(_) => self.around,
            Target::Below(_) | Target::Unknown => Fit::No,
        }
    }
}

/// How a filter operator is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// Says nothing about the value, or about what the server can see of it.
    Outside,
    /// One literal; in several stored forms it becomes this operator over all of them.
    One(&'static str),
    /// A list of literals.
    List,
    /// `$all`.
    All,
    /// `$not`.
    Not,
    /// `$elemMatch`.
    Items,
    /// Looks into the value: no cell lets it through.
    Inside,
}

/// How an update operator is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Stores the operand.
    Assign,
    /// Takes the value away.
    Remove,
    /// Adds items to an array.
    Push,
    /// Adds items to an array that are not there yet.
    AddToSet,
    /// Takes out the items that meet a condition.
    Pull,
    /// Takes out the items that equal one of a list.
    PullAll,
    /// Takes out the first or last item.
    Pop,
    /// Moves the value to another path.
    Rename,
    /// Computes with the stored value: no cell lets it through.
    Compute,
}

/// What becomes of an operator that stands in no field's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// Its clauses are planned like the filter itself.
    Branches,
    /// Planned as an expression.
    Expression,
    /// Taken out before the command goes on.
    Removed,
    /// Goes on as it is.
    Kept,
    /// Judged keyword by keyword: it goes on where none looks at a protected value.
    Schema,
    /// Refused in a protected namespace.
    Refused,
}

use Fit::{No, Partly, Yes};

const fn row<K: Copy>(name: &'static str, kind: K, fits: [Fit; 4], note: &'static str) -> Operator<K> {
    let [deterministic, random, each, around] = fits;
    Operator {
        name,
        kind,
        deterministic,
        random,
        each,
        around,
        note,
    }
}

const NULL_ONLY: &str =
    "random: comparison with null only; enclosing path: with what holds no protected field";
const PLACE: &str = "the value's place is not its ciphertext's";

/// Operators on a field's path in a filter.
pub const FILTER: &[Operator] = &[
    row(
        "$eq",
        Predicate::One("$in"),
        [Yes, Partly, Partly, Partly],
        NULL_ONLY,
    ),
    row(
        "$ne",
        Predicate::One("$nin"),
        [Yes, Partly, Partly, Partly],
        NULL_ONLY,
    ),
    row("$in", Predicate::List, [Yes, Partly, Partly, Partly], NULL_ONLY),
    row("$nin", Predicate::List, [Yes, Partly, Partly, Partly], NULL_ONLY),
    row(
        "$all",
        Predicate::All,
        [Yes, Partly, Partly, Partly],
        "as $in; on an enclosing path with $elemMatch inside",
    ),
    row(
        "$exists",
        Predicate::Outside,
        [Yes, Yes, Yes, Yes],
        "null and missing fields stay as they are",
    ),
    row(
        "$not",
        Predicate::Not,
        [Partly, Partly, Partly, Partly],
        "as the operator inside",
    ),
    row(
        "$elemMatch",
        Predicate::Items,
        [Partly, No, Partly, Yes],
        "as the operators inside; a value that is sealed whole has no items",
    ),
    row(
        "$size",
        Predicate::Outside,
        [Yes, No, Yes, Yes],
        "the length of an array shows unless it is sealed whole",
    ),
    row(
        "$type",
        Predicate::Outside,
        [No, No, No, Yes],
        "the stored type is binary",
    ),
    row("$gt", Predicate::Inside, [No, No, No, No], PLACE),
    row("$gte", Predicate::Inside, [No, No, No, No], PLACE),
    row("$lt", Predicate::Inside, [No, No, No, No], PLACE),
    row("$lte", Predicate::Inside, [No, No, No, No], PLACE),
    row(
        "$regex",
        Predicate::Inside,
        [No, No, No, No],
        "also as a regular expression literal, and inside $in",
    ),
    row(
        "$mod",
        Predicate::Inside,
        [No, No, No, No],
        "arithmetic on ciphertext",
    ),
    row(
        "$bitsAllSet",
        Predicate::Inside,
        [No, No, No, No],
        "bits of ciphertext",
    ),
    row(
        "$bitsAnySet",
        Predicate::Inside,
        [No, No, No, No],
        "bits of ciphertext",
    ),
    row(
        "$bitsAllClear",
        Predicate::Inside,
        [No, No, No, No],
        "bits of ciphertext",
    ),
    row(
        "$bitsAnyClear",
        Predicate::Inside,
        [No, No, No, No],
        "bits of ciphertext",
    ),
    row(
        "$geoWithin",
        Predicate::Inside,
        [No, No, No, No],
        "no geometry in ciphertext",
    ),
    row(
        "$geoIntersects",
        Predicate::Inside,
        [No, No, No, No],
        "no geometry in ciphertext",
    ),
    row(
        "$near",
        Predicate::Inside,
        [No, No, No, No],
        "no geometry in ciphertext",
    ),
    row(
        "$nearSphere",
        Predicate::Inside,
        [No, No, No, No],
        "no geometry in ciphertext",
    ),
];

/// Operators at the top of a filter or of one of its branches.
pub const FILTER_TOP: &[(&str, Top, &str)] = &[
    ("$and", Top::Branches, "each branch"),
    ("$or", Top::Branches, "each branch"),
    ("$nor", Top::Branches, "each branch"),
    ("$expr", Top::Expression, "by the table of expression operators"),
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
        Top::Schema,
        "of protected fields only `required`, and what an enclosing document or array keeps",
    ),
];

/// Update operators.
pub const UPDATE: &[Operator<Change>] = &[
    row(
        "$set",
        Change::Assign,
        [Yes, Yes, Yes, Yes],
        "sealed; also by position: contacts.0.phone, contacts.$[].phone, contacts.$[c].phone",
    ),
    row("$setOnInsert", Change::Assign, [Yes, Yes, Yes, Yes], "as $set"),
    row("$unset", Change::Remove, [Yes, Yes, Yes, Yes], ""),
    row(
        "$push",
        Change::Push,
        [Yes, No, Yes, Yes],
        "with $each, $position, $slice; $sort by unprotected fields only",
    ),
    row(
        "$addToSet",
        Change::AddToSet,
        [Yes, No, No, Partly],
        "needs equality: not while migrating or rotating; on an enclosing path only where all protected fields inside are deterministic",
    ),
    row(
        "$pull",
        Change::Pull,
        [Yes, No, Partly, Yes],
        "its condition is planned like a filter",
    ),
    row(
        "$pullAll",
        Change::PullAll,
        [Yes, No, No, No],
        "needs equality of whole items",
    ),
    row("$pop", Change::Pop, [Yes, No, Yes, Yes], ""),
    row(
        "$rename",
        Change::Rename,
        [No, No, No, No],
        "the key belongs to the path; also refused where only the new name is protected",
    ),
    row(
        "$inc",
        Change::Compute,
        [No, No, No, No],
        "arithmetic on ciphertext",
    ),
    row(
        "$mul",
        Change::Compute,
        [No, No, No, No],
        "arithmetic on ciphertext",
    ),
    row("$min", Change::Compute, [No, No, No, No], "order of ciphertext"),
    row("$max", Change::Compute, [No, No, No, No], "order of ciphertext"),
    row("$bit", Change::Compute, [No, No, No, No], "bits of ciphertext"),
    row(
        "$currentDate",
        Change::Compute,
        [No, No, No, No],
        "the server would write its clock unsealed",
    ),
];

/// The row of a filter operator; `None` where the table does not know it.
pub fn filter(name: &[u8]) -> Option<&'static Operator> {
    FILTER.iter().find(|row| row.name.as_bytes() == name)
}

/// What becomes of an operator at the top of a filter; `None` where the table does not know it.
pub fn filter_top(name: &[u8]) -> Option<Top> {
    FILTER_TOP
        .iter()
        .find(|(known, ..)| known.as_bytes() == name)
        .map(|(_, top, _)| *top)
}

/// The row of an update operator; `None` where the table does not know it.
pub fn update(name: &[u8]) -> Option<&'static Operator<Change>> {
    UPDATE.iter().find(|row| row.name.as_bytes() == name)
}

/// What an index is, by its key or by its options; it can be several at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKind {
    /// `1` or `-1`.
    Ordered,
    /// `unique`.
    Unique,
    /// `sparse`, `hidden`.
    Sparse,
    /// `"hashed"`.
    Hashed,
    /// `$**`.
    Wildcard,
    /// `expireAfterSeconds`.
    Expiring,
    /// `"text"`.
    Text,
    /// `collation`.
    Collated,
    /// `"2d"`.
    Flat,
    /// `"2dsphere"`, and any other kind that is named by a string.
    Sphere,
    /// `partialFilterExpression` by `$exists`.
    PartlyByExistence,
    /// `partialFilterExpression` by anything else.
    PartlyByValue,
}

/// One kind of index.
#[derive(Clone, Copy, Debug)]
pub struct Index {
    /// What it is called.
    pub name: &'static str,
    /// What it is.
    pub kind: IndexKind,
    /// With a deterministic field in its key.
    pub deterministic: Fit,
    /// With a random field in its key.
    pub random: Fit,
    /// With a path that holds protected fields in its key.
    pub around: Fit,
    /// One line for people.
    pub note: &'static str,
}

impl IndexKind {
    /// Its cell for what a path of the key, or of the partial filter, leads to.
    pub fn at(self, target: &Target) -> Fit {
        let row = INDEXES.iter().find(|row| row.kind == self);
        row.map_or(Fit::No, |row| match target {
            Target::Plain => Fit::Yes,
            Target::Sealed(rule) if rule.is_deterministic() => row.deterministic,
            Target::Sealed(_) => row.random,
            Target::Above(_) => row.around,
            Target::Below(_) | Target::Unknown => Fit::No,
        })
    }
}

const fn index(name: &'static str, kind: IndexKind, fits: [Fit; 3], note: &'static str) -> Index {
    let [deterministic, random, around] = fits;
    Index {
        name,
        kind,
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
        IndexKind::Ordered,
        [Yes, No, No],
        "alone or in a compound index; serves equality, not order",
    ),
    index(
        "unique",
        IndexKind::Unique,
        [Yes, No, No],
        "holds for one key version: during a rotation the same value can be stored once under each",
    ),
    index("sparse, hidden", IndexKind::Sparse, [Yes, No, No], ""),
    index("hashed", IndexKind::Hashed, [Yes, No, No], ""),
    index(
        "wildcard ($**)",
        IndexKind::Wildcard,
        [Yes, Yes, Yes],
        "takes in ciphertext as binary; leave protected fields out by wildcardProjection to save space",
    ),
    index(
        "TTL (expireAfterSeconds)",
        IndexKind::Expiring,
        [No, No, No],
        "a sealed date is no date to the server",
    ),
    index(
        "text",
        IndexKind::Text,
        [No, No, No],
        "by name, by weight or by `$**`; nor may language_override name a protected field",
    ),
    index(
        "with a collation",
        IndexKind::Collated,
        [No, No, No],
        "a collation has no effect on ciphertext: unique would not be what it says",
    ),
    index("2d", IndexKind::Flat, [No, No, No], ""),
    index("2dsphere", IndexKind::Sphere, [No, No, No], ""),
    index(
        "partial, by $exists",
        IndexKind::PartlyByExistence,
        [Yes, Yes, Yes],
        "partialFilterExpression on the protected field; the key is judged by the rows above",
    ),
    index(
        "partial, by a value",
        IndexKind::PartlyByValue,
        [No, No, No],
        "the literal would have to change with every key",
    ),
];
