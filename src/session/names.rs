//! Addresses of upstream members in what the server says: hello, status, plans and errors. What becomes of each address
//! is `topology`'s to say; here it is applied to frames.

use super::{Closing, Context, Session};
use crate::bson::{Doc, Element, kind};
use crate::command::CommandView;
use crate::limits;
use crate::topology::deployment::is_state_change;
use crate::topology::names::Asked;
use crate::topology::{Names, Scope, hello, names};
use crate::wire::op_msg::OpMsg;
use crate::wire::{Compressor, Compressors};

const BAD: Closing = Closing("malformed reply");

/// Where the reply to this command names members.
pub(super) fn scope(view: &CommandView<'_>) -> Scope {
    let asked = match view.name {
        "aggregate" => asked(view),
        _ => Asked::Documents,
    };
    names::scope(view.name, asked)
}

fn asked(view: &CommandView<'_>) -> Asked {
    if view
        .get("explain")
        .is_ok_and(|flag| flag.is_some_and(|flag| flag.truthy()))
    {
        return Asked::Plan;
    }
    let pipeline = view.get("pipeline").ok().flatten();
    let Some(Ok(Some(pipeline))) = pipeline.map(|pipeline| pipeline.document()) else {
        return Asked::Documents;
    };
    let joins = joins_statistics(&pipeline, 0);
    match first_stage(&pipeline) {
        Some(stage) if names::names_server(stage) && (joins || !unites_only(&pipeline)) => Asked::Statistics,
        Some(stage) if names::names_server(stage) || joins => Asked::JoinedStatistics,
        _ => Asked::Documents,
    }
}

fn first_stage<'a>(pipeline: &Doc<'a>) -> Option<&'a [u8]> {
    let first = pipeline.elements().next()?.ok()?.document().ok()??;
    Some(first.elements().next()?.ok()?.key)
}

/// Whether a pipeline brings in documents from elsewhere, and no stage makes others of its own.
fn unites_only(pipeline: &Doc<'_>) -> bool {
    let mut unites = false;
    for stage in pipeline.elements().skip(1) {
        let stage = stage.ok().and_then(|stage| stage.document().ok().flatten());
        let name = stage.and_then(|stage| Some(stage.elements().next()?.ok()?.key));
        match name {
            Some(b"$unionWith") => unites = true,
            Some(b"$match" | b"$sort" | b"$limit" | b"$skip") => {}
            _ => return false,
        }
    }
    unites
}

/// Whether a pipeline inside this one begins with a stage that names the server.
fn joins_statistics(pipeline: &Doc<'_>, depth: usize) -> bool {
    let begins = |inner: &Doc<'_>| {
        first_stage(inner).is_some_and(names::names_server) || joins_statistics(inner, depth + 1)
    };
    let stage = |doc: &Doc<'_>| {
        doc.elements().flatten().any(|element| match element.document() {
            Ok(Some(inner)) if matches!(element.key, b"$lookup" | b"$unionWith") => {
                let pipeline = inner.get(b"pipeline").ok().flatten();
                pipeline
                    .and_then(|pipeline| pipeline.document().ok().flatten())
                    .is_some_and(|pipeline| begins(&pipeline))
            }
            Ok(Some(facets)) if element.key == b"$facet" => facets.elements().flatten().any(|facet| {
                facet
                    .document()
                    .ok()
                    .flatten()
                    .is_some_and(|facet| begins(&facet))
            }),
            _ => false,
        })
    };
    depth < limits::MAX_DEPTH
        && pipeline
            .elements()
            .flatten()
            .any(|element| element.document().ok().flatten().is_some_and(|doc| stage(&doc)))
}

/// Whether a reply holds an error: of the command, of one of its writes, or of its write concern.
pub(super) fn has_error(body: &Doc<'_>) -> Result<bool, Closing> {
    let mut ok = false;
    for element in body.elements() {
        let element = element.map_err(|_| BAD)?;
        match element.key {
            b"ok" => ok = element.truthy(),
            b"writeErrors" | b"writeConcernError" => return Ok(true),
            _ => {}
        }
    }
    Ok(!ok)
}

/// Whether one of a reply's errors says that the server takes no writes.
pub(super) fn says_moved(body: &Doc<'_>) -> Result<bool, Closing> {
    for element in body.elements() {
        let element = element.map_err(|_| BAD)?;
        let moved = match element.key {
            b"code" => is_code(&element),
            b"writeConcernError" => code_in(&element)?,
            b"writeErrors" if element.kind == kind::ARRAY => {
                let mut any = false;
                if let Some(errors) = element.document().map_err(|_| BAD)? {
                    for error in errors.elements() {
                        any |= code_in(&error.map_err(|_| BAD)?)?;
                    }
                }
                any
            }
            _ => false,
        };
        if moved {
            return Ok(true);
        }
    }
    Ok(false)
}

fn code_in(error: &Element<'_>) -> Result<bool, Closing> {
    let Some(error) = error.document().map_err(|_| BAD)? else {
        return Ok(false);
    };
    let code = error.get(b"code").map_err(|_| BAD)?;
    Ok(code.is_some_and(|code| is_code(&code)))
}

fn is_code(element: &Element<'_>) -> bool {
    let code = element.integer().and_then(|code| i32::try_from(code).ok());
    code.is_some_and(is_state_change)
}

impl Session {
    /// The server's hello as the client may see it.
    pub(super) fn present(
        &mut self,
        body: Doc<'_>,
        compressors: Compressors,
        cx: &Context<'_>,
    ) -> Result<Vec<u8>, Closing> {
        if let Some(me) = hello::me(body).map_err(|_| BAD)? {
            self.me = Some(me);
        }
        let ok = body.get(b"ok").ok().flatten().is_some_and(|ok| ok.truthy());
        let shown = if ok { compressors } else { Compressors::default() };
        let shown: Vec<&str> = shown.iter().map(Compressor::name).collect();
        let service = self.balanced.then_some(cx.service);
        hello::rewrite(body, &self.names(cx), &shown, service).map_err(|_| BAD)
    }

    /// Replaces members' addresses in the reply that stands in `to_client` from `base` on.
    pub(super) fn rename(
        &mut self,
        base: usize,
        failed: bool,
        cx: &Context<'_>,
        to_client: &mut Vec<u8>,
    ) -> Result<(), Closing> {
        let scope = self.pending.front().map_or(Scope::Errors, |front| front.scope);
        if !failed && !self.names(cx).concerns(scope) {
            return Ok(());
        }
        let frame = to_client.get(base..).unwrap_or_default();
        let message = OpMsg::parse(frame).map_err(|_| BAD)?;
        let body = Doc::at(frame, message.body().start).map_err(|_| BAD)?;
        let renamed = self.names(cx).rewrite(body, scope).map_err(|_| BAD)?;
        if let Some(renamed) = renamed {
            let frame = message.with_body(&renamed).map_err(|_| BAD)?;
            to_client.truncate(base);
            to_client.extend_from_slice(&frame);
        }
        Ok(())
    }

    fn names<'c>(&'c self, cx: &Context<'c>) -> Names<'c> {
        Names::new(cx.hosts, cx.listener, self.me.as_ref(), self.peer.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use ::bson::{Bson, bson, doc};

    use super::*;

    fn of(pipeline: &Bson) -> Scope {
        let command =
            ::bson::serialize_to_vec(&doc! { "aggregate": "c", "pipeline": pipeline, "$db": "d" }).unwrap();
        let view = CommandView::new(Doc::at(&command, 0).unwrap(), None, Vec::new()).unwrap();
        scope(&view.unwrap())
    }

    #[test]
    fn knows_what_an_aggregation_brings() {
        let indexes = || bson!([{ "$indexStats": {} }]);
        let united = |coll: &str| bson!({ "$unionWith": coll });
        let joined = || bson!({ "$lookup": { "from": "c", "pipeline": (indexes()), "as": "s" } });
        for (pipeline, want) in [
            (bson!([{ "$match": {} }]), Scope::Errors),
            (
                bson!([{ "$facet": { "a": [{ "$match": {} }], "b": [] } }]),
                Scope::Errors,
            ),
            (indexes(), Scope::Batch),
            (
                bson!([{ "$indexStats": {} }, { "$project": { "host": 1 } }]),
                Scope::Batch,
            ),
            (bson!([(joined())]), Scope::Joined),
            (
                bson!([{ "$facet": { "a": [{ "$match": {} }], "b": [(joined())] } }]),
                Scope::Joined,
            ),
            (bson!([{ "$facet": { "a": (indexes()) } }]), Scope::Joined),
            (
                bson!([{ "$lookup": { "from": "c", "pipeline": [{ "$facet": { "a": [(joined())] } }], "as": "s" } }]),
                Scope::Joined,
            ),
            // The application's own documents beside them are told by their looks …
            (
                bson!([{ "$indexStats": {} }, { "$match": {} }, (united("c"))]),
                Scope::Joined,
            ),
            // … where statistics still have theirs.
            (
                bson!([{ "$indexStats": {} }, { "$project": { "host": 1 } }, (united("c"))]),
                Scope::Batch,
            ),
            (
                bson!([{ "$indexStats": {} }, { "$unionWith": { "coll": "c", "pipeline": (indexes()) } }]),
                Scope::Batch,
            ),
        ] {
            assert_eq!(of(&pipeline), want, "{pipeline}");
        }
    }
}
