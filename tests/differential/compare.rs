//! Whether two answers mean the same.

use bson::{Bson, Document, bson};
use fieldveil::policy::Reason;

use crate::leak::is_mark;
use crate::model::{Map, Mode, State};
use crate::sequence::Op;

/// A reply without its cursor, and the documents of all its batches.
pub(crate) struct Answer {
    pub(crate) reply: Document,
    pub(crate) documents: Option<Vec<Document>>,
}

pub(crate) struct Refused {
    pub(crate) text: String,
    /// Why this refusal is a fault of its own.
    pub(crate) wrong: Option<&'static str>,
}

pub(crate) fn batch(cursor: &mut Document, name: &str) -> Vec<Document> {
    match cursor.remove(name) {
        Some(Bson::Array(items)) => items
            .into_iter()
            .filter_map(|item| match item {
                Bson::Document(d) => Some(d),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// `ok: 1`.
pub(crate) fn succeeded(reply: &Document) -> bool {
    matches!(reply.get_f64("ok"), Ok(ok) if ok > 0.0)
}

/// The proxy's own refusal, if the answer is one.
pub(crate) fn refusal(answer: &Answer) -> Option<Refused> {
    let text = answer.reply.get_str("errmsg").ok()?;
    if !text.starts_with("fieldveil: ") {
        return None;
    }
    let code = answer.reply.get_i32("code").unwrap_or(0);
    let name = answer.reply.get_str("codeName").unwrap_or("");
    let known = Reason::ALL.iter().any(|reason| reason.code() == (code, name));
    let wrong = if answer.documents.is_some() {
        Some("refused in the middle of a cursor")
    } else if !known {
        Some("the code is not in the register of refusals")
    } else if answer.reply.contains_key("errorLabels") {
        Some("a refusal with error labels would be retried")
    } else if matches!(code, 96 | 22 | 18 | 10334) {
        Some("nothing here should be refused for this reason")
    } else {
        None
    };
    Some(Refused {
        text: text.to_owned(),
        wrong,
    })
}

/// What changes from one server, run or side to the next.
const VOLATILE: [&str; 9] = [
    "operationTime",
    "$clusterTime",
    "electionId",
    "opTime",
    "errmsg",
    "nModified",
    "writeErrors",
    "values",
    "value",
];

/// The first difference between the two, if there is one: its kind and its text.
pub(crate) fn answers(
    op: &Op,
    map: &Map,
    proxied: &Answer,
    oracle: &Answer,
) -> Option<(&'static str, String)> {
    if op.command() == "explain" {
        let same = proxied.reply.get("ok") == oracle.reply.get("ok");
        return (!same).then(|| ("reply", sides(&proxied.reply, &oracle.reply)));
    }
    let ok = |answer: &Answer| succeeded(&answer.reply);
    match (ok(proxied), ok(oracle)) {
        (false, true) => return Some(("loud", sides(&proxied.reply, &oracle.reply))),
        (true, false) => return Some(("quiet", sides(&proxied.reply, &oracle.reply))),
        _ => {}
    }
    let plain = |answer: &Answer| {
        let mut reply = answer.reply.clone();
        for name in VOLATILE {
            reply.remove(name);
        }
        if !ok(answer) {
            // Key values in them are sealed or hidden.
            reply.remove("keyValue");
        }
        canonical(&Bson::Document(reply), loose(map, false))
    };
    if plain(proxied) != plain(oracle) || errors(&proxied.reply) != errors(&oracle.reply) {
        return Some(("reply", sides(&proxied.reply, &oracle.reply)));
    }
    if let Some(text) = modified(op, map, &proxied.reply, &oracle.reply) {
        return Some(("modified", text));
    }
    let how = loose(map, op.sets);
    let (one, two) = (proxied.reply.get("value"), oracle.reply.get("value"));
    if one.map(|v| canonical(v, how)) != two.map(|v| canonical(v, how)) {
        return Some(("value", sides(&proxied.reply, &oracle.reply)));
    }
    if let (Ok(one), Ok(two)) = (
        proxied.reply.get_array("values"),
        oracle.reply.get_array("values"),
    ) && let Some(text) = lists(one, two, false, how)
    {
        return Some(("values", text));
    }
    let documents = |answer: &Answer| -> Vec<Bson> {
        let all = answer.documents.iter().flatten();
        all.cloned().map(Bson::Document).collect()
    };
    // Which documents came before an error depends on the order in which they were looked at.
    if !ok(oracle) {
        return None;
    }
    if proxied.documents.is_some() != oracle.documents.is_some() {
        return Some(("reply", sides(&proxied.reply, &oracle.reply)));
    }
    lists(&documents(proxied), &documents(oracle), op.ordered, how).map(|text| ("documents", text))
}

fn sides(proxied: &Document, oracle: &Document) -> String {
    let short = |reply: &Document| {
        let mut reply = reply.clone();
        for name in [
            "operationTime",
            "$clusterTime",
            "queryPlanner",
            "serverInfo",
            "serverParameters",
            "command",
        ] {
            reply.remove(name);
        }
        reply.to_string()
    };
    format!("\n    proxied {}\n    oracle  {}", short(proxied), short(oracle))
}

/// Index and code of each write that failed.
fn errors(reply: &Document) -> Vec<(i32, i32)> {
    let list = reply
        .get_array("writeErrors")
        .map(Vec::as_slice)
        .unwrap_or_default();
    list.iter()
        .filter_map(Bson::as_document)
        .map(|e| (e.get_i32("index").unwrap_or(-1), e.get_i32("code").unwrap_or(-1)))
        .collect()
}

/// `nModified` is the oracle's, but where a value may have been sealed anew it may be more.
fn modified(op: &Op, map: &Map, proxied: &Document, oracle: &Document) -> Option<String> {
    let (one, two) = (
        proxied.get_i32("nModified").ok(),
        oracle.get_i32("nModified").ok(),
    );
    if one == two {
        return None;
    }
    let anew = map.state != State::Enforced || mentions_random(op, map);
    if anew && one > two && one <= proxied.get_i32("n").ok() {
        return None;
    }
    Some(sides(proxied, oracle))
}

fn mentions_random(op: &Op, map: &Map) -> bool {
    let name = op.body.get_str(op.command()).unwrap_or("");
    let random: Vec<&str> = map
        .model(name)
        .fields
        .iter()
        .filter(|f| matches!(f.mode, Mode::Random | Mode::Each))
        .map(|f| f.top())
        .collect();
    let statements = op
        .body
        .get_array("updates")
        .map(Vec::as_slice)
        .unwrap_or_default();
    statements.iter().filter_map(Bson::as_document).any(|statement| {
        let text = format!("{:?}", statement.get("u"));
        random.iter().any(|top| text.contains(&format!("\"{top}")))
    })
}

fn lists(proxied: &[Bson], oracle: &[Bson], ordered: bool, how: Loose) -> Option<String> {
    let texts = |list: &[Bson]| {
        let mut all: Vec<String> = list.iter().map(|v| canonical(v, how)).collect();
        if !ordered {
            all.sort_unstable();
        }
        all
    };
    let (one, two) = (texts(proxied), texts(oracle));
    if one == two {
        return None;
    }
    let at = one
        .iter()
        .zip(&two)
        .position(|(a, b)| a != b)
        .unwrap_or(one.len().min(two.len()));
    let show = |list: &[String]| list.get(at).cloned().unwrap_or_else(|| "(nothing)".to_owned());
    Some(format!(
        "{} and {} results, different at {at}{}\n    proxied {}\n    oracle  {}",
        one.len(),
        two.len(),
        if ordered { "" } else { " (sorted)" },
        show(&one),
        show(&two)
    ))
}

/// What does not count in a comparison.
#[derive(Clone, Copy)]
struct Loose {
    /// The order of items.
    sets: bool,
    /// The order of keys: while several forms are looked for, an upsert sets its fields by itself.
    keys: bool,
}

fn loose(map: &Map, sets: bool) -> Loose {
    Loose {
        sets,
        keys: map.state != State::Enforced,
    }
}

/// One text for each value. Protected whole numbers lose their width, since they come back in the declared type.
fn canonical(value: &Bson, how: Loose) -> String {
    match value {
        Bson::Document(d) => {
            let mut inner: Vec<String> = d
                .iter()
                .map(|(k, v)| format!("{k:?}: {}", canonical(v, how)))
                .collect();
            if how.keys {
                inner.sort_unstable();
            }
            format!("{{{}}}", inner.join(", "))
        }
        Bson::Array(items) => {
            let mut inner: Vec<String> = items.iter().map(|v| canonical(v, how)).collect();
            if how.sets {
                inner.sort_unstable();
            }
            format!("[{}]", inner.join(", "))
        }
        Bson::Int32(n) if is_mark(i64::from(*n)) => format!("number {n}"),
        Bson::Int64(n) if is_mark(*n) => format!("number {n}"),
        #[allow(clippy::cast_possible_truncation, reason = "marks are whole numbers")]
        Bson::Double(x) if is_mark(*x as i64) && x.fract() == 0.0 => format!("number {}", *x as i64),
        // The server's own engines differ in what they make of the two deprecated kinds of string.
        Bson::Symbol(text) | Bson::JavaScriptCode(text) => format!("{:?}", Bson::String(text.clone())),
        other => format!("{other:?}"),
    }
}

/// Names that stay when an operation is made smaller: without them it would not be one.
pub(crate) fn essential(key: &str) -> bool {
    frozen(key) || matches!(key, "q" | "u" | "limit" | "name" | "as" | "from")
}

/// Names whose values stay as they are, too: order and identity hang on them.
pub(crate) fn frozen(key: &str) -> bool {
    matches!(
        key,
        "sort" | "$sort" | "sortBy" | "hint" | "cursor" | "key" | "_id"
    )
}

/// The simplest value of a kind, for making operations smaller.
pub(crate) fn simpler(value: &Bson) -> Option<Bson> {
    match value {
        Bson::Document(d) if d.is_empty() => None,
        Bson::Array(a) if a.is_empty() => None,
        Bson::Document(d) => match d.get("_id") {
            Some(_) if d.len() == 1 => None,
            Some(id) => Some(bson!({ "_id": id.clone() })),
            None => Some(bson!({})),
        },
        Bson::Array(_) => Some(bson!([])),
        _ => None,
    }
}
