//! Carries out the plan of a reply: the client's bytes, opened.

use super::Context;
use super::refuse::apply_refusal;
use crate::bson::Doc;
use crate::command::reply;
use crate::command::table::Reply;
use crate::plan::Plan;
use crate::plan::apply::{Applied, Subjects, apply};
use crate::policy::{CollectionPolicy, Reason, Refusal};
use crate::wire::checksum;
use crate::wire::op_msg::OpMsg;

/// Appends the opened reply.
pub(super) fn open(
    message: &OpMsg<'_>,
    plan: &Plan,
    policy: Option<&CollectionPolicy>,
    reply: Reply,
    cx: &Context<'_>,
    to_client: &mut Vec<u8>,
) -> Result<Applied, Refusal> {
    let base = to_client.len();
    if plan.is_identity() {
        to_client.extend_from_slice(message.frame());
    }
    let applied = if plan.is_identity() {
        Applied::default()
    } else {
        let subjects = policy.and_then(|p| p.subject.as_ref()).map(|rule| Subjects {
            domain: &rule.domain,
            pseudonymizer: cx.pseudonymizer,
        });
        let applied = apply(message.frame(), plan, cx.ring, subjects.as_ref(), to_client)
            .map_err(|why| apply_refusal(&why))?;
        let rewritten = to_client.get_mut(base..).unwrap_or_default();
        checksum::repair(rewritten).map_err(|_| too_large())?;
        applied
    };
    if reply == Reply::Values && policy.is_some() {
        let frame = to_client.split_off(base);
        let unique = OpMsg::parse(&frame).ok().and_then(|opened| {
            let body = Doc::at(&frame, opened.body().start).ok()?;
            let doc = reply::without_repetition(&body)?;
            opened.with_body(&doc).ok()
        });
        to_client.extend_from_slice(unique.as_deref().unwrap_or(&frame));
    }
    Ok(applied)
}

fn too_large() -> Refusal {
    Refusal::new(
        Reason::Size,
        "the opened reply is larger than a message may be; ask for smaller batches",
    )
}
