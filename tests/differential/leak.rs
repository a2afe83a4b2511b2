//! Looks for marked values in what the server itself holds.

use bson::{Bson, Document};

use crate::model::{MARK, MARK_BYTES, MARK_DOUBLE, MARK_INT, MARK_LONG};

/// The first protected value in the clear, by its path.
pub(crate) fn find(stored: &[Document]) -> Option<String> {
    stored.iter().find_map(|document| {
        document
            .iter()
            .find_map(|(key, value)| within(key, value))
            .map(|path| {
                format!(
                    "a protected value lies in the clear at {path} of {:?}",
                    document.get("_id")
                )
            })
    })
}

fn within(path: &str, value: &Bson) -> Option<String> {
    let marked = match value {
        Bson::Document(d) => {
            return d
                .iter()
                .find_map(|(key, value)| within(&format!("{path}.{key}"), value));
        }
        Bson::Array(items) => return items.iter().find_map(|value| within(path, value)),
        Bson::String(s) | Bson::JavaScriptCode(s) | Bson::Symbol(s) => s.contains(MARK),
        Bson::RegularExpression(r) => r.pattern.to_string().contains(MARK),
        Bson::Int32(n) => integer(i64::from(*n)),
        Bson::Int64(n) => integer(*n),
        #[allow(clippy::cast_possible_truncation, reason = "a mark survives it")]
        Bson::Double(x) => (MARK_DOUBLE..MARK_DOUBLE * 4097.0).contains(x) || integer(*x as i64),
        Bson::DateTime(t) => integer(-t.timestamp_millis()),
        Bson::ObjectId(id) => id.bytes().starts_with(&MARK_BYTES),
        Bson::Binary(b) => {
            let has = |needle: &[u8]| b.bytes.windows(needle.len()).any(|w| w == needle);
            has(&MARK_BYTES) || has(MARK.as_bytes())
        }
        Bson::Decimal128(d) => d.to_string().starts_with("1.518338048"),
        _ => false,
    };
    marked.then(|| path.to_owned())
}

fn integer(n: i64) -> bool {
    is_mark(n)
}

/// Whether a whole number is a protected one.
pub(crate) fn is_mark(n: i64) -> bool {
    let small = i64::from(MARK_INT);
    (small..small + 4096).contains(&n) || (MARK_LONG..MARK_LONG + 4096).contains(&n)
}
