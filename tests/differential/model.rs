//! What is stored: the fields of a collection, which of them are protected by what rule, and values for them. Protected
//! values carry marks, so that one of them in the clear is recognised wherever it lies. Plain values never do.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, Document, Regex, Timestamp, bson, doc};

use crate::rng::Rng;

/// Begins every protected string; occurs nowhere else.
pub(crate) const MARK: &str = "zqX7kW9vLm2";
/// Protected 32-bit integers lie in this and the next 4096.
pub(crate) const MARK_INT: i32 = 1_518_338_048;
/// Protected 64-bit integers, and dates (negative), likewise.
pub(crate) const MARK_LONG: i64 = 0x0000_5EED_7712_0000;
/// The first bytes of protected object ids and binaries.
pub(crate) const MARK_BYTES: [u8; 8] = *b"\x7fzQ\xeeVK\x01\xfa";
/// Protected doubles lie in this and the next 4096 steps of its size.
pub(crate) const MARK_DOUBLE: f64 = 7.3912e211;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Text,
    Int,
    Long,
    Date,
    Oid,
    Bin,
    /// Any type, documents and arrays included.
    Mixed,
    /// An array of strings.
    Texts,
    /// An array of anything.
    Items,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Plain,
    Deterministic,
    Random,
    Each,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Enforced,
    Migrating,
    Rotating,
}

#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    pub(crate) mode: Mode,
    pub(crate) algorithm: &'static str,
    pub(crate) domain: String,
}

impl Field {
    pub(crate) fn protected(&self) -> bool {
        self.mode != Mode::Plain
    }

    pub(crate) fn top(&self) -> &'static str {
        self.path.split('.').next().unwrap_or(self.path)
    }

    pub(crate) fn last(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// Lies in the items of the array `arr`.
    pub(crate) fn in_array(&self) -> bool {
        self.path.starts_with("arr.")
    }

    pub(crate) fn is_array(&self) -> bool {
        matches!(self.kind, Kind::Texts | Kind::Items)
    }

    fn toml(&self) -> String {
        let mode = match self.mode {
            Mode::Plain => return String::new(),
            Mode::Deterministic => {
                let declared = match self.kind {
                    Kind::Text | Kind::Texts => "string",
                    Kind::Int => "int",
                    Kind::Long => "long",
                    Kind::Date => "date",
                    Kind::Oid => "objectId",
                    Kind::Bin => "binData",
                    Kind::Mixed | Kind::Items => unreachable!("a mixed field is never deterministic"),
                };
                format!("mode = \"deterministic\", type = \"{declared}\", accept_leakage = \"invented\"")
            }
            Mode::Random => "mode = \"random\"".to_owned(),
            Mode::Each => "mode = \"random\", each = true".to_owned(),
        };
        format!(
            "\"{}\" = {{ {mode}, algorithm = \"{}\", domain = \"{}\" }}\n",
            self.path, self.algorithm, self.domain
        )
    }
}

/// The fields of one collection. Beside them every document has plain ones: `_id`, `p` and `g` (small integers), `q`
/// (a short string), `w` (an array of small integers), `arr.k`, `sub.q`.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) fields: Vec<Field>,
}

/// A field map: what `a`, `b` and `t` of its databases protect. `t` has the rules of `a`; `u` has none.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    pub(crate) index: usize,
    pub(crate) state: State,
    pub(crate) a: Model,
    pub(crate) b: Model,
    pub(crate) plain: Model,
}

/// A view of `a`.
pub(crate) const VIEW: &str = "v";

/// What it leaves out and brings in.
pub(crate) fn view() -> Document {
    doc! { "create": VIEW, "viewOn": "a", "pipeline": [
        { "$match": { "p": { "$ne": 1 } } }, { "$addFields": { "z": "$g" } }, { "$project": { "m1": 0 } },
    ] }
}

pub(crate) const COLLECTIONS: [&str; 4] = ["a", "b", "t", "u"];

const CSFLE: &str = "aead-aes-256-cbc-hmac-sha-512";

const FIELDS_A: [(&str, Kind); 18] = [
    ("s1", Kind::Text),
    ("s2", Kind::Text),
    ("n1", Kind::Int),
    ("n2", Kind::Long),
    ("d1", Kind::Date),
    ("o1", Kind::Oid),
    ("b1", Kind::Bin),
    ("m1", Kind::Mixed),
    ("l1", Kind::Texts),
    ("i1", Kind::Items),
    ("sub.x", Kind::Text),
    ("sub.n", Kind::Int),
    ("sub.deep.z", Kind::Text),
    ("sub.m", Kind::Mixed),
    ("arr.x", Kind::Text),
    ("arr.m", Kind::Mixed),
    ("arr.l", Kind::Texts),
    ("arr.in.x", Kind::Text),
];

const FIELDS_B: [(&str, Kind); 6] = [
    ("r1", Kind::Text),
    ("n1", Kind::Int),
    ("s2", Kind::Text),
    ("l1", Kind::Texts),
    ("sub.x", Kind::Text),
    ("arr.x", Kind::Text),
];

impl Map {
    pub(crate) fn random(rng: &mut Rng, index: usize) -> Self {
        let state = match index % 6 {
            3 => State::Migrating,
            5 => State::Rotating,
            _ => State::Enforced,
        };
        let mut a = Vec::new();
        for (path, kind) in FIELDS_A {
            let mode = match (kind, rng.below(10)) {
                (_, 0 | 1) if path != "s1" => Mode::Plain,
                (Kind::Mixed, _) => Mode::Random,
                (Kind::Texts, 2..=6) => Mode::Deterministic,
                (Kind::Texts | Kind::Items, 7 | 8) => Mode::Each,
                (Kind::Texts, _) => Mode::Random,
                (Kind::Items, 2..=4) => Mode::Random,
                (Kind::Items, _) => Mode::Each,
                (_, 2 | 3) if path != "s1" => Mode::Random,
                _ => Mode::Deterministic,
            };
            a.push(Field {
                path,
                kind,
                mode,
                algorithm: algorithm(rng, mode),
                domain: format!("m{index}.{path}"),
            });
        }
        let mut b = Vec::new();
        for (path, kind) in FIELDS_B {
            // `r1` joins with `s1`; other fields of the same name share rules half of the time.
            let twin = if path == "r1" { "s1" } else { path };
            let shared = a.iter().find(|f| f.path == twin);
            match shared {
                Some(field) if path == "r1" || rng.percent(60) => b.push(Field {
                    path,
                    kind,
                    ..field.clone()
                }),
                _ => {
                    let mode = if rng.percent(50) {
                        Mode::Deterministic
                    } else {
                        Mode::Plain
                    };
                    b.push(Field {
                        path,
                        kind,
                        mode,
                        algorithm: algorithm(rng, mode),
                        domain: format!("m{index}.b.{path}"),
                    });
                }
            }
        }
        let plain = FIELDS_A.iter().map(|(path, kind)| Field {
            path,
            kind: *kind,
            mode: Mode::Plain,
            algorithm: "",
            domain: String::new(),
        });
        Self {
            index,
            state,
            plain: Model {
                fields: plain.collect(),
            },
            a: Model { fields: a },
            b: Model { fields: b },
        }
    }

    pub(crate) fn model(&self, collection: &str) -> &Model {
        match collection {
            "a" | "t" | VIEW => &self.a,
            "b" => &self.b,
            _ => &self.plain,
        }
    }

    pub(crate) fn toml(&self) -> String {
        let state = match self.state {
            State::Migrating => "state = \"migrating\"\n",
            _ => "",
        };
        let mut out = String::new();
        for name in ["a", "b", "t"] {
            out.push_str(&format!(
                "[[collection]]\nnamespace = \"e{}_*.{name}\"\n{state}[collection.fields]\n",
                self.index
            ));
            for field in &self.model(name).fields {
                out.push_str(&field.toml());
            }
            out.push('\n');
        }
        out
    }

    /// Every domain, once.
    pub(crate) fn domains(&self) -> Vec<&str> {
        let both = self.a.fields.iter().chain(&self.b.fields);
        let mut all: Vec<&str> = both
            .filter(|f| f.protected())
            .map(|f| f.domain.as_str())
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

fn algorithm(rng: &mut Rng, mode: Mode) -> &'static str {
    match mode {
        Mode::Plain => "",
        Mode::Deterministic => rng.pick::<&str>(&["aes-256-siv", "aes-256-siv", CSFLE]),
        Mode::Random | Mode::Each => rng.pick::<&str>(&[
            "aes-256-gcm",
            "chacha20-poly1305",
            "aes-256-cbc-hmac-sha-256",
            CSFLE,
        ]),
    }
}

/// How many values of a kind there are: few, so that equality finds something.
const POOL: i32 = 6;

/// One value of a scalar kind (an item's, for arrays), from a small pool.
pub(crate) fn scalar(rng: &mut Rng, field: &Field) -> Bson {
    if !field.protected() {
        return plain_scalar(rng, field.kind);
    }
    let n = rng.small(POOL);
    match field.kind {
        Kind::Text | Kind::Texts => text(n),
        Kind::Int => (MARK_INT + n).into(),
        Kind::Long => (MARK_LONG + i64::from(n)).into(),
        Kind::Date => DateTime::from_millis(-MARK_LONG - i64::from(n)).into(),
        Kind::Oid => oid(n),
        Kind::Bin => binary(n),
        Kind::Mixed | Kind::Items => match rng.below(8) {
            0 => text(n),
            1 => (MARK_INT + n).into(),
            2 => (MARK_LONG + i64::from(n)).into(),
            3 => (MARK_DOUBLE * f64::from(n + 1)).into(),
            4 => DateTime::from_millis(-MARK_LONG - i64::from(n)).into(),
            5 => oid(n),
            6 => binary(n),
            _ => odd(rng, n),
        },
    }
}

/// What a random field takes and a deterministic one does not; some of it too short to carry a mark.
fn odd(rng: &mut Rng, n: i32) -> Bson {
    match rng.below(6) {
        0 => rng.percent(50).into(),
        1 => Bson::Decimal128(
            format!("{MARK_INT}.{n}E+300")
                .parse()
                .unwrap_or(Decimal128::from_bytes([0; 16])),
        ),
        2 => match (format!("^{MARK}{n}").try_into(), "i".to_owned().try_into()) {
            (Ok(pattern), Ok(options)) => Regex { pattern, options }.into(),
            _ => true.into(),
        },
        3 => Bson::JavaScriptCode(format!("{MARK}{n}()")),
        4 => Bson::Timestamp(Timestamp {
            time: 7,
            increment: n.unsigned_abs() + 1,
        }),
        _ => Bson::Symbol(format!("{MARK}sym{n}")),
    }
}

fn text(n: i32) -> Bson {
    match n {
        0 => format!("${MARK}"),
        1 => format!("{MARK} ünï {n}"),
        2 => format!("{MARK}.dot.{n}"),
        n => format!("{MARK}{n}"),
    }
    .into()
}

fn oid(n: i32) -> Bson {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&MARK_BYTES);
    bytes[11] = n.unsigned_abs().to_le_bytes()[0];
    ObjectId::from_bytes(bytes).into()
}

fn binary(n: i32) -> Bson {
    let mut bytes = MARK_BYTES.to_vec();
    bytes.push(n.unsigned_abs().to_le_bytes()[0]);
    Binary {
        subtype: BinarySubtype::Generic,
        bytes,
    }
    .into()
}

fn plain_scalar(rng: &mut Rng, kind: Kind) -> Bson {
    let n = rng.small(POOL);
    match kind {
        Kind::Text | Kind::Texts => format!("v{n}").into(),
        Kind::Int => (100 + n).into(),
        Kind::Long => (1000 + i64::from(n)).into(),
        Kind::Date => DateTime::from_millis(1_000_000_000 + i64::from(n)).into(),
        Kind::Oid => ObjectId::from_bytes([n.unsigned_abs().to_le_bytes()[0]; 12]).into(),
        Kind::Bin => Binary {
            subtype: BinarySubtype::Generic,
            bytes: vec![n.unsigned_abs().to_le_bytes()[0]; 3],
        }
        .into(),
        Kind::Mixed | Kind::Items => match rng.below(4) {
            0 => format!("v{n}").into(),
            1 => n.into(),
            2 => (f64::from(n) + 0.5).into(),
            _ => true.into(),
        },
    }
}

/// A value to store: mostly what the kind says, now and then null, an array, or a document where any value will do.
pub(crate) fn stored(rng: &mut Rng, field: &Field) -> Bson {
    match field.kind {
        _ if rng.percent(5) => Bson::Null,
        Kind::Texts | Kind::Items if rng.percent(92) => {
            let count = rng.below(4);
            let mut items: Vec<Bson> = (0..count).map(|_| scalar(rng, field)).collect();
            if rng.below(300) == 0 {
                items.push(bson!([scalar(rng, field)]));
            }
            // In an array that is sealed whole a null is refused.
            if field.mode != Mode::Random && rng.percent(8) {
                items.push(Bson::Null);
            }
            items.into()
        }
        Kind::Mixed if rng.percent(40) => match rng.below(3) {
            0 => bson!({ "x": scalar(rng, field), "y": { "z": scalar(rng, field) } }),
            1 => bson!([scalar(rng, field), { "x": scalar(rng, field) }]),
            _ => bson!([]),
        },
        Kind::Text | Kind::Int | Kind::Long if rng.percent(5) => (0..rng.below(3))
            .map(|_| scalar(rng, field))
            .collect::<Vec<_>>()
            .into(),
        _ => scalar(rng, field),
    }
}

/// A whole document with this `_id`.
pub(crate) fn document(rng: &mut Rng, model: &Model, id: i32) -> Document {
    let mut out = doc! { "_id": id };
    let mut tops: Vec<&'static str> = Vec::new();
    for field in &model.fields {
        if !tops.contains(&field.top()) {
            tops.push(field.top());
        }
    }
    for top in tops {
        if rng.percent(18) {
            continue;
        }
        let value = match top {
            "sub" => sub(rng, model),
            "arr" => arr(rng, model),
            _ => match model.fields.iter().find(|f| f.path == top) {
                Some(field) => stored(rng, field),
                None => continue,
            },
        };
        out.insert(top, value);
    }
    for plain in ["p", "g", "q", "w"] {
        if rng.percent(88) {
            out.insert(plain, plain_value(rng, plain));
        }
    }
    out
}

pub(crate) fn plain_value(rng: &mut Rng, name: &str) -> Bson {
    match name {
        "q" => (*rng.pick(&["qa", "qb", "qc"])).into(),
        "w" => (0..rng.below(4))
            .map(|_| Bson::from(rng.small(4)))
            .collect::<Vec<_>>()
            .into(),
        _ => rng.small(5).into(),
    }
}

/// A value for `sub`.
pub(crate) fn sub(rng: &mut Rng, model: &Model) -> Bson {
    match rng.below(20) {
        0 => Bson::Null,
        1 => bson!("plain"),
        2 => bson!([inner(rng, model, "sub."), inner(rng, model, "sub.")]),
        3 => bson!({}),
        _ => inner(rng, model, "sub.").into(),
    }
}

/// A value for `arr`.
pub(crate) fn arr(rng: &mut Rng, model: &Model) -> Bson {
    match rng.below(28) {
        24 => bson!({ "0": inner(rng, model, "arr."), "k": 1 }),
        25 => bson!([[inner(rng, model, "arr.")], inner(rng, model, "arr.")]),
        0 => Bson::Null,
        1 => inner(rng, model, "arr.").into(),
        2 => bson!([inner(rng, model, "arr."), 7, Bson::Null]),
        3 => bson!([]),
        _ => {
            let items: Vec<Bson> = (0..1 + rng.below(3))
                .map(|_| inner(rng, model, "arr.").into())
                .collect();
            items.into()
        }
    }
}

/// The document that holds the fields below `prefix`.
pub(crate) fn inner(rng: &mut Rng, model: &Model, prefix: &str) -> Document {
    let mut out = Document::new();
    if rng.percent(85) {
        match prefix {
            "arr." => out.insert("k", rng.small(4)),
            _ => out.insert("q", *rng.pick(&["qa", "qb"])),
        };
    }
    for field in &model.fields {
        let Some(rest) = field.path.strip_prefix(prefix) else {
            continue;
        };
        if rng.percent(25) {
            continue;
        }
        let value = stored(rng, field);
        match rest.split_once('.') {
            None => {
                out.insert(rest, value);
            }
            Some((first, second)) => {
                out.insert(first, doc! { second: value });
            }
        }
    }
    out
}
