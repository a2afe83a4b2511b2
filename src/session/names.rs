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
    match first_stage(&pipeline) {
        Some(stage) if names::names_server(stage) => Asked::Statistics,
        _ if joins_statistics(&pipeline, 0) => Asked::JoinedStatistics,
        _ => Asked::Documents,
    }
}

fn first_stage<'a>(pipeline: &Doc<'a>) -> Option<&'a [u8]> {
    let first = pipeline.elements().next()?.ok()?.document().ok()??;
    Some(first.elements().next()?.ok()?.key)
}

/// Whether a pipeline inside this one begins with a stage that names the server.
fn joins_statistics(pipeline: &Doc<'_>, depth: usize) -> bool {
    let inner = |doc: &Doc<'_>| {
        doc.elements().flatten().any(|element| match element.document() {
            Ok(Some(inner)) if matches!(element.key, b"$lookup" | b"$unionWith") => {
                let pipeline = inner.get(b"pipeline").ok().flatten();
                let pipeline = pipeline.and_then(|pipeline| pipeline.document().ok().flatten());
                pipeline.is_some_and(|pipeline| {
                    first_stage(&pipeline).is_some_and(names::names_server)
                        || joins_statistics(&pipeline, depth + 1)
                })
            }
            _ => false,
        })
    };
    depth < limits::MAX_DEPTH
        && pipeline
            .elements()
            .flatten()
            .any(|stage| stage.document().ok().flatten().is_some_and(|stage| inner(&stage)))
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
