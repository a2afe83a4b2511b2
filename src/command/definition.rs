//! What is stored about a collection and evaluated on its documents later: validators. A literal in one would have to
//! be sealed, and sealed again with every key; so none may meet a protected field. Source: SEMANTICS B1.7, B3.7, B4.

use super::filter::{self, Around};
use crate::bson::Element;
use crate::plan::Draft;
use crate::plan::draft::malformed;
use crate::policy::{Reason, Refusal, Shape, Target, Tree};

/// Who evaluates a schema, and on whose behalf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// An application asks: what it would be told must be what it would be told of the values themselves.
    #[default]
    Asked,
    /// An administrator says how documents are stored: as ciphertext, and that may be said.
    Stored,
}

/// Plans a validator.
///
/// # Errors
/// A [`Refusal`] naming the field.
pub fn validator(
    draft: &mut Draft<'_>,
    element: &Element<'_>,
    shape: &Shape,
    collation: bool,
) -> Result<(), Refusal> {
    let Some(doc) = element.document().map_err(malformed)? else {
        return Err(Refusal::new(Reason::Malformed, "a validator must be a document"));
    };
    let before = draft.sealed();
    let mut around = Around {
        collation,
        purpose: Purpose::Stored,
        ..Around::default()
    };
    filter::plan(draft, &doc, shape, &mut around)?;
    if draft.sealed() == before {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::Unanalysable,
        "the validator compares a protected field with a value: the stored definition would have to change with every key; use $exists, or check the value in the application",
    ))
}

/// `timeseries`: the time must be a date to the server, and what groups measurements must group equal values.
///
/// # Errors
/// A [`Refusal`] naming the field.
pub fn time_series(element: &Element<'_>, shape: &Shape) -> Result<(), Refusal> {
    let Some(doc) = element.document().map_err(malformed)? else {
        return Err(Refusal::new(Reason::Malformed, "timeseries must be a document"));
    };
    let path = |key: &[u8]| {
        doc.get(key)
            .map_err(malformed)
            .map(|found| found.and_then(|e| e.text()).map(str::to_owned))
    };
    if let Some(time) = path(b"timeField")?
        && !matches!(shape.resolve(time.as_bytes()), Target::Plain)
    {
        return Err(Refusal::new(
            Reason::Option,
            format!(
                "timeseries.timeField '{time}' is protected: a sealed date is no date to the server; keep the time in a field that is not protected"
            ),
        ));
    }
    if let Some(meta) = path(b"metaField")? {
        let groups = match shape.resolve(meta.as_bytes()) {
            Target::Plain => true,
            Target::Sealed(rule) => rule.is_deterministic(),
            Target::Above(tree) => all_deterministic(&tree),
            _ => false,
        };
        if !groups {
            return Err(Refusal::new(
                Reason::Option,
                format!(
                    "timeseries.metaField '{meta}' is sealed with a random algorithm, so every measurement would get a bucket of its own; make it deterministic in the field map, or group by a field that is not protected"
                ),
            ));
        }
    }
    Ok(())
}

fn all_deterministic(tree: &Tree) -> bool {
    tree.fields().all(|(_, shape)| match shape {
        Shape::Plain => true,
        Shape::Sealed(rule) => rule.is_deterministic(),
        Shape::Tree(tree) => all_deterministic(tree),
        Shape::Unknown => false,
    })
}
