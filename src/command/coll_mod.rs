//! `collMod`: validators by `definition.rs`, indexes by the field they are on. Source: SEMANTICS B4.

use super::options::pass;
use super::{CommandView, Scope, create, definition};
use crate::bson::Element;
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{Reason, Refusal, Shape, Target};

const OWN: &[&str] = &[
    "cappedMax",
    "cappedSize",
    "changeStreamPreAndPostImages",
    "dryRun",
    "expireAfterSeconds",
    "recordPreImages",
    "timeseries",
    "validationAction",
    "validationLevel",
];

/// Plans the command.
///
/// # Errors
/// A [`Refusal`] naming the option and the field.
pub fn plan<'a>(view: &CommandView<'a>, scope: &Scope<'_>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    if view.get("viewOn")?.is_some() {
        return create::view(view, scope, draft);
    }
    let Some(shape) = scope.shape() else { return Ok(()) };
    view.each_field(draft, |draft, field| match (field.key(), field.element()) {
        (b"validator", Some(element)) => definition::validator(draft, element, shape, view.collated),
        (b"index", Some(element)) => index(element, shape),
        _ => pass(draft, view, field, OWN),
    })
}

/// Only the expiry depends on what the field holds.
fn index(element: &Element<'_>, shape: &Shape) -> Result<(), Refusal> {
    let Some(index) = element.document().map_err(malformed)? else {
        return Err(Refusal::new(
            Reason::Malformed,
            "collMod: 'index' must be a document",
        ));
    };
    let get = |key: &[u8]| index.get(key).map_err(malformed);
    if get(b"expireAfterSeconds")?.is_none() {
        return Ok(());
    }
    let Some(pattern) = get(b"keyPattern")? else {
        return Err(Refusal::new(
            Reason::Index,
            "collMod: an expiry is set by the index's name, which does not say what field it is on; give its keyPattern",
        ));
    };
    let Some(keys) = pattern.document().map_err(malformed)? else {
        return Err(Refusal::new(
            Reason::Malformed,
            "collMod: 'keyPattern' must be a document",
        ));
    };
    for key in keys.elements() {
        let key = key.map_err(malformed)?;
        if !matches!(shape.resolve(key.key), Target::Plain) {
            return Err(Refusal::new(
                Reason::Index,
                format!(
                    "collMod: expireAfterSeconds on protected field '{}': a sealed value never expires, it is no date to the server; keep the expiry date in a field of its own",
                    key.key_text()
                ),
            ));
        }
    }
    Ok(())
}
