//! Refusals as MongoDB error replies, so that every driver shows them.

use crate::bson::build::Builder;
use crate::policy::Refusal;

/// The error document: `ok: 0`, `errmsg` beginning with `fieldveil: `, `code` and `codeName`.
pub(super) fn document(refusal: &Refusal) -> Vec<u8> {
    let (code, name) = refusal.reason.code();
    let (code, name) = match refusal.code {
        Some(own) => (own, format!("Location{own}")),
        None => (code, name.to_owned()),
    };
    let mut doc = Builder::new();
    doc.double("ok", 0.0)
        .string("errmsg", &format!("fieldveil: {}", refusal.text))
        .int32("code", code)
        .string("codeName", &name);
    doc.finish()
}
