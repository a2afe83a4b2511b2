//! What the server says when something fails: its texts and the values it shows in support. None of them is opened: an
//! error ends in logs, so a sealed value is replaced by a mark, under its own name. Owns error documents; the rest of
//! a reply is `reply.rs`'s. Source: SEMANTICS B3.6, B6.

use super::scrub::{self, MARK, Rules};
use crate::bson::build::Builder;
use crate::bson::{Doc, Element, kind};
use crate::crypto::envelope::{self, Header};
use crate::limits;
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{Reason, Refusal, Target};

/// Whether this field of a reply tells of failures although the command itself went through.
pub fn is_failure(key: &[u8]) -> bool {
    matches!(key, b"writeErrors" | b"writeConcernError" | b"writeConcernErrors")
}

/// Plans one element of an error document.
///
/// # Errors
/// A [`Refusal`] for malformed bytes.
pub fn plan(
    draft: &mut Draft<'_>,
    element: &Element<'_>,
    rules: &Rules<'_>,
    depth: usize,
) -> Result<(), Refusal> {
    if depth > limits::MAX_DEPTH {
        return Err(Refusal::new(
            Reason::Malformed,
            "the reply nests deeper than 200 levels",
        ));
    }
    match (element.key, element.kind) {
        (b"errmsg", kind::STRING) => {
            if let Some(clean) = element.text().and_then(|text| scrub::scrub(text, rules)) {
                replace(draft, element, &clean);
            }
            Ok(())
        }
        // The values that a validator saw: where plaintext may be stored, they are not told apart by path.
        (b"consideredValue" | b"consideredValues", _) if rules.is_migrating() => {
            replace(draft, element, MARK);
            Ok(())
        }
        (b"keyValue", kind::DOCUMENT) => each(draft, element, |draft, part| {
            let is_protected = rules
                .policies()
                .any(|policy| !matches!(policy.shape.resolve(part.key), Target::Plain))
                && part.kind != kind::NULL;
            if is_protected {
                replace(draft, part, MARK);
                return Ok(());
            }
            plan(draft, part, rules, depth + 1)
        }),
        (_, kind::DOCUMENT | kind::ARRAY) => {
            each(draft, element, |draft, part| plan(draft, part, rules, depth + 1))
        }
        (_, kind::BINARY) => {
            let Some((subtype, payload)) = element.binary() else {
                return Ok(());
            };
            // Elsewhere CSFLE ciphertext belongs to the driver that wrote it.
            let ours = subtype == 0x80 || subtype == 6 && rules.any();
            if ours && !matches!(envelope::header(subtype, payload), Header::NotEnvelope) {
                replace(draft, element, MARK);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn each<'a>(
    draft: &mut Draft<'_>,
    element: &Element<'a>,
    mut part: impl FnMut(&mut Draft<'_>, &Element<'a>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let Some(doc): Option<Doc<'a>> = element.document().map_err(malformed)? else {
        return Ok(());
    };
    let region = draft.open_doc(&doc);
    for element in doc.elements() {
        part(draft, &element.map_err(malformed)?)?;
    }
    draft.close(region, doc.end());
    Ok(())
}

/// Puts a text in the element's place, under its own name.
fn replace(draft: &mut Draft<'_>, element: &Element<'_>, text: &str) {
    let mut document = Builder::new();
    document.string(&element.key_text(), text);
    let bytes = document.finish();
    draft.drop_element(element);
    // The element alone, without the length and the terminator of the document around it.
    draft.put(element.end, bytes.get(4..bytes.len() - 1).unwrap_or_default());
}
