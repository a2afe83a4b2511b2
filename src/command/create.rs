//! `create`: collections under a protected name, and views over one. Source: SEMANTICS B1.6, B1.7, B4.

use super::options::{has_collation, pass};
use super::{CommandView, Scope, definition, views};
use crate::plan::Draft;
use crate::policy::{Reason, Refusal};

const OWN: &[&str] = &[
    "autoIndexId",
    "capped",
    "changeStreamPreAndPostImages",
    "clusteredIndex",
    "expireAfterSeconds",
    "indexOptionDefaults",
    "max",
    "size",
    "storageEngine",
    "validationAction",
    "validationLevel",
];

/// Plans the command.
///
/// # Errors
/// A [`Refusal`] naming the option and the field.
pub fn plan<'a>(view: &CommandView<'a>, scope: &Scope<'_>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    if view.get("viewOn")?.is_some() {
        return self::view(view, scope, draft);
    }
    let Some(shape) = scope.shape() else { return Ok(()) };
    if has_collation(&view.body, false)? {
        return Err(Refusal::new(
            Reason::Collation,
            "create: a default collation has no effect on sealed values, and every search for a sealed string would have to be refused; leave it out, and give the collation to the queries and indexes of other fields",
        ));
    }
    view.each_field(draft, |draft, field| match (field.key(), field.element()) {
        (b"validator", Some(element)) => definition::validator(draft, element, shape, false),
        (b"timeseries", Some(element)) => definition::time_series(element, shape),
        (b"collation", _) => Ok(()),
        (b"encryptedFields", _) => Err(Refusal::new(
            Reason::Option,
            "create: 'encryptedFields' is Queryable Encryption, which would encrypt what is sealed already; leave it out, or take the collection out of the field map",
        )),
        _ => pass(draft, view, field, OWN),
    })
}

/// `create` and `collMod` of a view: judged as the pipeline that every query on it will run first.
///
/// # Errors
/// A [`Refusal`] naming what its definition does that cannot be stored.
pub fn view<'a>(view: &CommandView<'a>, scope: &Scope<'_>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    let Some(definition) = views::definition(view)? else {
        return Err(Refusal::new(
            Reason::Malformed,
            "a view is defined by a collection's name and an array of stages",
        ));
    };
    let known = views::Known {
        map: scope.map,
        found: scope.found,
    };
    match views::analyse(&definition, &known) {
        None if scope.policy.is_none() => Ok(()),
        Some(crate::policy::found::View::Refused(why)) => Err(Refusal::new(Reason::Command, why.to_string())),
        _ => view.each_field(draft, |draft, field| {
            pass(draft, view, field, &["viewOn", "pipeline", "collation"])
        }),
    }
}
