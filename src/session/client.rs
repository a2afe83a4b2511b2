//! Frames from the client: planned, applied, proved and passed on, or answered here.

use std::sync::Arc;

use super::compression::is_never_compressed;
use super::names::scope;
use super::pending::{Kind, Pending};
use super::refuse::{apply_refusal, must_log_in};
use super::request::{Request, read};
use super::verdict::decide;
use super::{Closing, Context, Session, Step, Wanted, proof, refuse};
use crate::command::table::{Entry, Verdict};
use crate::crypto::Suite;
use crate::event::{CommandEvent, Outcome};
use crate::limits;
use crate::name::KeyId;
use crate::plan::Plan;
use crate::plan::apply::{Applied, ApplyError, Subjects, apply};
use crate::plan::prove::Unproved;
use crate::policy::{Reason, Refusal};
use crate::topology::Scope;
use crate::wire::checksum;
use crate::wire::error::OpMsgError;
use crate::wire::header::{Header, Opcode};
use crate::wire::op_msg::OpMsg;

/// Why a planned command does not leave.
enum Unfit {
    Refused(Refusal),
    /// Random nonces of this key are wanted first.
    Lease(KeyId, Suite),
}

impl Session {
    /// Takes one whole frame of the client. What goes upstream is appended to `to_server`, what is answered here to
    /// `to_client`.
    ///
    /// # Errors
    /// [`Closing`] where the connection cannot go on.
    pub fn on_client(
        &mut self,
        frame: &[u8],
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
    ) -> Result<Step, Closing> {
        if self.pending.is_full() {
            return Err(Closing("too many requests in flight"));
        }
        let (base, counted) = (to_server.len(), self.packed.len());
        let step = self.with_request(frame, cx.login, |session, frame| {
            let header = Header::peek(frame, limits::MAX_MESSAGE).map_err(|_| Closing("malformed frame"))?;
            match header.opcode {
                Opcode::Msg => session.on_msg(frame, cx, to_server, to_client),
                Opcode::Query => session.on_query(frame, cx, to_server, to_client),
                _ => Err(Closing("legacy opcode")),
            }
        })?;
        if matches!(step, Step::NeedKeys(_)) {
            // It will come again, and count then.
            self.packed.truncate(counted);
        }
        self.pack_request(to_server, base);
        Ok(step)
    }

    /// The keys that this frame of the client asked for cannot be had: it is refused.
    ///
    /// # Errors
    /// [`Closing`] where it expects no reply.
    pub fn refuse_client(
        &mut self,
        frame: &[u8],
        cx: &Context<'_>,
        why: &str,
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
    ) -> Result<(), Closing> {
        let refusal = Refusal::new(Reason::Key, why);
        self.with_request(frame, cx.login, |session, frame| {
            let message = OpMsg::parse(frame).map_err(|_| Closing("malformed frame"))?;
            let Ok(Some(view)) = read(&message) else {
                return Err(Closing("malformed frame"));
            };
            let request = Request::new(&message, &view, cx);
            session.refuse(&request, &refusal, cx, to_server, to_client)
        })
    }

    fn on_msg(
        &mut self,
        frame: &[u8],
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
    ) -> Result<Step, Closing> {
        let message = match OpMsg::parse(frame) {
            Ok(message) => message,
            Err(OpMsgError::Close(_)) => return Err(Closing("malformed frame")),
            Err(OpMsgError::Reply(why)) => {
                let id = Header::peek(frame, limits::MAX_MESSAGE).map_or(0, |h| h.request_id);
                let refusal = Refusal::new(Reason::Malformed, why.to_string()).with_code(why.code());
                self.answer(id, false, &refuse::document(&refusal), false, cx, to_client);
                return Ok(Step::Done);
            }
        };
        let mut view = match read(&message) {
            Ok(Some(view)) => view,
            // No `$db`, or an empty body: the server's own code for it.
            Ok(None) => {
                let refusal = Refusal::new(Reason::Malformed, "OP_MSG requests require a $db argument")
                    .with_code(40571);
                return self.refuse_unread(&message, &refusal, cx, to_server, to_client);
            }
            Err(refusal) => return self.refuse_unread(&message, &refusal, cx, to_server, to_client),
        };
        if self.pending.arriving.is_some() && is_never_compressed(view.name.as_bytes()) {
            return Err(Closing("compressed a command that must not be"));
        }
        let request = Request::new(&message, &view, cx);
        let collated = request
            .policy
            .as_ref()
            .is_some_and(|policy| cx.found.is_collated(&policy.namespace));
        view.collated = collated;
        if let Err(refusal) = view.refuse_repeats() {
            return self
                .refuse(&request, &refusal, cx, to_server, to_client)
                .map(|()| Step::Done);
        }
        if let Some(Entry {
            verdict: Verdict::Session,
            ..
        }) = request.entry
        {
            return self.on_session_command(&message, &view, &request, cx, to_server, to_client);
        }
        if cx.map.is_empty() {
            to_server.extend_from_slice(frame);
            self.await_reply(request, scope(&view), Plan::default(), None, cx);
            return Ok(Step::Done);
        }
        let decided = decide(&view, &request, cx);
        let decided = if cx.login && !self.logged_in {
            // Not even the words of a refusal: they name the field map's paths.
            decided
                .ok()
                .filter(|(plan, touches)| !touches && !plan.needs_keys() && plan.summary.rules.is_empty())
                .ok_or_else(|| must_log_in(request.command))
        } else {
            decided
        };
        let result = match decided {
            Ok((plan, _)) if plan.needs_keys() => return Ok(Step::NeedKeys(Wanted::new(plan))),
            Ok((_, true)) if !cx.audit_ready => Err(Refusal::new(
                Reason::Audit,
                "the audit log cannot be written, and the configuration refuses protected operations without it; \
                 the operator must free the log's disk or file (audit.path)",
            )),
            Ok((plan, touches)) if plan.is_identity() => prove(frame, &request, cx).map(|()| {
                to_server.extend_from_slice(frame);
                (plan, touches, Applied::default())
            }),
            Ok((plan, touches)) => match self.rewrite(frame, &plan, &request, cx, to_server) {
                Ok(applied) => Ok((plan, touches, applied)),
                Err(Unfit::Lease(key, suite)) => {
                    return Ok(Step::NeedKeys(Wanted::nonces(key, suite, &plan)));
                }
                Err(Unfit::Refused(refusal)) => Err(refusal),
            },
            Err(refusal) => Err(refusal),
        };
        match result {
            Ok((plan, touches, applied)) => {
                let event = touches.then(|| {
                    let mut event = self.event(&request, &plan, cx);
                    event.subjects = applied.subjects;
                    event.subjects_total = applied.subjects_met;
                    event
                });
                self.await_reply(request, scope(&view), plan, event, cx);
                Ok(Step::Done)
            }
            Err(refusal) => self
                .refuse(&request, &refusal, cx, to_server, to_client)
                .map(|()| Step::Done),
        }
    }

    /// Applies and proves; on failure nothing has been appended.
    fn rewrite(
        &self,
        frame: &[u8],
        plan: &Plan,
        request: &Request<'_>,
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
    ) -> Result<Applied, Unfit> {
        let subject = request
            .policy
            .iter()
            .chain(&request.others)
            .find_map(|p| p.subject.as_ref());
        let subjects = subject.map(|rule| Subjects {
            domain: &rule.domain,
            pseudonymizer: cx.pseudonymizer,
        });
        let base = to_server.len();
        let result = apply(frame, plan, cx.ring, subjects.as_ref(), to_server)
            .map_err(|why| match why {
                ApplyError::Lease { key, suite } => Unfit::Lease(key, suite),
                why => Unfit::Refused(apply_refusal(&why)),
            })
            .and_then(|applied| {
                let rewritten = to_server.get_mut(base..).unwrap_or_default();
                checksum::repair(rewritten)
                    .map_err(|_| Unfit::Refused(apply_refusal(&ApplyError::TooLarge)))?;
                prove(rewritten, request, cx).map_err(Unfit::Refused)?;
                Ok(applied)
            });
        if result.is_err() {
            to_server.truncate(base);
        }
        result
    }

    fn await_reply(
        &mut self,
        request: Request<'_>,
        mut scope: Scope,
        plan: Plan,
        event: Option<Box<CommandEvent>>,
        cx: &Context<'_>,
    ) {
        let mut pending = Pending::new(request.id, Kind::Command, cx.now_us);
        pending.entry = request.entry;
        match request.command {
            "find" | "findAndModify" | "findandmodify" if !plan.summary.computed => {
                pending.shows = request.policy.as_ref().map(|policy| policy.shape.clone());
            }
            "aggregate" => pending.shows = plan.summary.yields,
            "getMore" => {
                pending.cursor = request.cursor;
                pending.shows = request.cursor.and_then(|id| cx.cursors.shape(id));
                scope = request
                    .cursor
                    .and_then(|id| cx.cursors.naming(id))
                    .unwrap_or(scope);
            }
            _ => {}
        }
        pending.scope = scope;
        pending.policy = request.policy;
        pending.others = request.others;
        pending.event = event;
        pending.sealed = plan.summary.rules;
        pending.explained = plan.summary.explained;
        pending.change = request.change;
        pending.abort = request.abort;
        if request.silent {
            // Nobody will say how it went: it counts as done once it is on its way.
            let done = self.finish(pending, Outcome::Ok, cx);
            self.done.push(done);
        } else {
            self.pending.push(pending);
        }
    }

    pub(super) fn event(&self, request: &Request<'_>, plan: &Plan, cx: &Context<'_>) -> Box<CommandEvent> {
        let mut event = CommandEvent::new(cx.unix_ms, self.connection, request.namespace(), request.command);
        event.principal.clone_from(&self.principal);
        event.application.clone_from(&self.application);
        event.peer.clone_from(&self.peer);
        event.fields = plan
            .summary
            .rules
            .iter()
            .map(|(rule, _)| Arc::clone(&rule.path))
            .collect();
        event.sealed = plan.summary.sealed();
        event.documents_in = plan.summary.documents;
        Box::new(event)
    }
}

/// The proof of what is about to leave, rewritten or not: a planner that overlooked something may have left it all.
fn prove(frame: &[u8], request: &Request<'_>, cx: &Context<'_>) -> Result<(), Refusal> {
    let Some(policy) = &request.policy else {
        return Ok(());
    };
    let proved = if request.command == "bulkWrite" {
        proof::prove_bulk(frame, cx.map)
    } else {
        proof::prove_command(frame, &policy.shape)
    };
    let is_planned = request
        .entry
        .is_some_and(|entry| matches!(entry.verdict, Verdict::Rewrite(_)));
    proved.map_err(|why| match why {
        // Nothing was planned, and no argument of such a command holds documents: it is one that the server would
        // refuse, after it has logged it.
        Unproved::Unsealed(path) if !is_planned => Refusal::new(
            Reason::Option,
            format!(
                "{}: an argument that this command does not have holds field '{path}'; leave it out",
                request.command
            ),
        ),
        Unproved::Unsealed(path) => Refusal::new(
            Reason::Proof,
            format!("field '{path}' would have left unsealed; please report this as a bug"),
        ),
        Unproved::Unreadable(why) => {
            Refusal::new(Reason::Malformed, format!("the command cannot be read: {why}"))
        }
    })
}
