//! Frames from the server: matched with the request they answer, opened, and passed on in order.

use std::sync::Arc;

use super::open::open;
use super::pending::{Kind, Pending};
use super::{Closing, Context, Done, MOVED, Session, Step, Wanted, names, refuse, transaction};
use crate::bson::Doc;
use crate::command::reply::{self, Facts, Reading};
use crate::command::scrub::Rules;
use crate::command::table::Reply;
use crate::event::{CommandEvent, Outcome};
use crate::limits;
use crate::plan::apply::Applied;
use crate::plan::{Draft, Plan};
use crate::policy::{CollectionPolicy, Reason, Refusal};
use crate::topology::Scope;
use crate::wire::header::{Header, Opcode};
use crate::wire::op_msg::OpMsg;
use crate::wire::op_reply::OpReply;
use crate::wire::{encode, op_reply};

impl Session {
    /// Takes one whole frame of the server; what the client gets is appended to `to_client`, and to `to_server`
    /// the end of a transaction one of whose replies cannot be passed on.
    ///
    /// # Errors
    /// [`Closing`] where the server says what it should not.
    pub fn on_server(
        &mut self,
        frame: &[u8],
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
    ) -> Result<Step, Closing> {
        let header = Header::peek(frame, limits::MAX_MESSAGE).map_err(|_| Closing("malformed reply"))?;
        let Some(front) = self.pending.front() else {
            return Err(Closing("reply without a request"));
        };
        if front.expects != header.response_to {
            return Err(Closing("reply to another request"));
        }
        let (base, compressor, counted) = (to_client.len(), front.compressor, self.packed.len());
        let step = match header.opcode {
            Opcode::Reply => self.on_legacy_reply(frame, cx, to_client),
            Opcode::Msg => self.on_reply(frame, cx, to_server, to_client),
            Opcode::Compressed => {
                self.with_compressed_reply(frame, to_client, |session, plain, to_client| {
                    match Header::peek(plain, limits::MAX_MESSAGE).map(|header| header.opcode) {
                        // A legacy reply answers a hello only, which is never compressed.
                        Ok(Opcode::Msg) => session.on_reply(plain, cx, to_server, to_client),
                        _ => Err(Closing("unexpected opcode in a reply")),
                    }
                })
            }
            _ => Err(Closing("unexpected opcode in a reply")),
        }?;
        if matches!(step, Step::NeedKeys(_)) {
            // It will come again, and count then.
            self.packed.truncate(counted);
        }
        self.pack_reply(compressor, to_client, base);
        // Answers of our own go out once the replies before them have.
        self.pending.release(to_client);
        Ok(step)
    }

    /// The keys that this reply asked for cannot be had: the client gets an error in its place.
    ///
    /// # Errors
    /// [`Closing`] where there is no request it belongs to.
    pub fn refuse_server(
        &mut self,
        why: &str,
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
    ) -> Result<(), Closing> {
        let refusal = Refusal::new(Reason::Key, why);
        self.fail(&refusal, cx, to_server, to_client)?;
        self.pending.release(to_client);
        Ok(())
    }

    fn on_reply(
        &mut self,
        frame: &[u8],
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
    ) -> Result<Step, Closing> {
        let message = OpMsg::parse(frame).map_err(|_| Closing("malformed reply"))?;
        let body = Doc::at(frame, message.body().start).map_err(|_| Closing("malformed reply"))?;
        let Some(front) = self.pending.front() else {
            return Err(Closing("reply without a request"));
        };
        let more = message.flags().more_to_come();
        match &mut front.kind {
            Kind::Hello {
                candidate,
                compressors,
                ..
            } => {
                let (candidate, compressors) = (candidate.take(), *compressors);
                let rewritten = self.present(body, compressors, cx)?;
                let bytes = message
                    .with_body(&rewritten)
                    .map_err(|_| Closing("malformed reply"))?;
                to_client.extend_from_slice(&bytes);
                self.greeted(&body, candidate);
                self.pending.told_who_it_is();
                self.advance(&message, more, Outcome::Ok, cx);
            }
            Kind::Sasl { starts, candidate } => {
                if *starts {
                    self.candidate = candidate.take();
                }
                let facts = reply::facts(&body).unwrap_or_default();
                self.authenticated(facts);
                to_client.extend_from_slice(frame);
                self.advance(&message, more, outcome(&facts), cx);
            }
            Kind::Logout => {
                let facts = reply::facts(&body).unwrap_or_default();
                if facts.ok {
                    self.principal = None;
                    self.logged_in = false;
                }
                to_client.extend_from_slice(frame);
                self.advance(&message, more, outcome(&facts), cx);
            }
            Kind::Local(_) => return Err(Closing("reply to a request that was answered here")),
            Kind::Abort(answer) => {
                transaction::ended(&body, cx)?;
                to_client.append(answer);
                self.pending.pop();
            }
            Kind::Command => return self.on_command_reply(&message, &body, cx, to_server, to_client),
        }
        Ok(Step::Done)
    }

    fn on_command_reply(
        &mut self,
        message: &OpMsg<'_>,
        body: &Doc<'_>,
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
    ) -> Result<Step, Closing> {
        let more = message.flags().more_to_come();
        let failed = names::has_error(body)?;
        if failed && cx.follows && names::says_moved(body)? {
            return Err(MOVED);
        }
        let base = to_client.len();
        if cx.map.is_empty() {
            to_client.extend_from_slice(message.frame());
            self.rename(base, failed, cx, to_client)?;
            self.note_naming(body, cx);
            // Facts cost a walk of the reply: without a field map only success is told apart from nothing.
            self.advance(message, more, Outcome::Ok, cx);
            return Ok(Step::Done);
        }
        let Some(front) = self.pending.front() else {
            return Err(Closing("reply without a request"));
        };
        let policy = front.policy.clone();
        let entry = front.entry;
        let (shows, cursor, others) = (front.shows.clone(), front.cursor, front.others.clone());
        let reading = Reading {
            reply: if front.explained {
                Reply::Sealed
            } else {
                entry.map_or(Reply::Documents, |e| e.reply)
            },
            stored: shows.as_ref(),
            // A pipeline on another collection may have brought them in.
            strict: policy.is_some() || !front.sealed.is_empty() || shows.is_some(),
            rules: Rules {
                policy: policy.as_deref(),
                others: &others,
                unknown: front.joins_plaintext(),
            },
        };
        let mut draft = Draft::new(message.frame(), cx.ring, None);
        let planned =
            reply::facts(body).and_then(|facts| reply::plan(&mut draft, body, &reading).map(|()| facts));
        let facts = match planned {
            Ok(facts) => facts,
            Err(refusal) => return self.fail(&refusal, cx, to_server, to_client).map(|()| Step::Done),
        };
        let mut plan = draft.finish();
        if plan.needs_keys() {
            return Ok(Step::NeedKeys(Wanted::new(plan)));
        }
        if facts.ok
            && let Some(change) = self.pending.front().and_then(|front| front.change.take())
        {
            self.changes.push(*change);
        }
        let applied = match open(message, &plan, policy.as_deref(), reading.reply, cx, to_client) {
            Ok(applied) => applied,
            Err(refusal) => {
                to_client.truncate(base);
                return self.fail(&refusal, cx, to_server, to_client).map(|()| Step::Done);
            }
        };
        self.rename(base, failed, cx, to_client)?;
        self.note_naming(body, cx);
        match (shows, cursor, facts.cursor) {
            (Some(_), Some(exhausted), Some(0)) => cx.cursors.forget(exhausted),
            (Some(shows), None, Some(open)) if open != 0 => cx.cursors.keep(open, &shows),
            _ => {}
        }
        self.note(&facts, &applied, &mut plan, policy, cx);
        self.advance_with(message, more, outcome(&facts), applied, plan, cx);
        Ok(Step::Done)
    }

    /// A cursor whose first batch names the server goes on to do so.
    fn note_naming(&mut self, body: &Doc<'_>, cx: &Context<'_>) {
        let Some(front) = self.pending.front() else { return };
        if !matches!(front.scope, Scope::Batch | Scope::Joined) {
            return;
        }
        match (reply::facts(body).unwrap_or_default().cursor, front.cursor) {
            (Some(0), Some(exhausted)) => cx.cursors.forget(exhausted),
            (Some(open), None) if open != 0 => cx.cursors.keep_naming(open, front.scope),
            _ => {}
        }
    }

    /// Adds to the pending event what this reply held; makes one where only the reply showed that something protected
    /// was touched.
    fn note(
        &mut self,
        facts: &Facts,
        applied: &Applied,
        plan: &mut Plan,
        policy: Option<Arc<CollectionPolicy>>,
        cx: &Context<'_>,
    ) {
        plan.summary.documents = facts.documents;
        let Some(front) = self.pending.front() else { return };
        if front.event.is_none() && !applied.opened.is_empty() {
            let namespace = policy.as_ref().map_or("", |p| p.namespace.as_str());
            let command = front.entry.map_or("other", |e| e.name);
            let mut event = CommandEvent::new(cx.unix_ms, self.connection, namespace, command);
            event.principal.clone_from(&self.principal);
            event.application.clone_from(&self.application);
            event.peer.clone_from(&self.peer);
            front.event = Some(Box::new(event));
        }
        let Some(event) = front.event.as_mut() else { return };
        event.documents_out = event.documents_out.saturating_add(facts.documents);
        for (domain, n) in &applied.opened {
            event.opened = event.opened.saturating_add(*n);
            let rule = policy
                .as_ref()
                .and_then(|p| p.rules.iter().find(|r| r.domain == *domain));
            let path = rule.map_or_else(|| Arc::clone(domain), |r| Arc::clone(&r.path));
            if !event.fields.contains(&path) {
                event.fields.push(path);
            }
        }
        for subject in &applied.subjects {
            event.add_subject(*subject);
        }
        event.subjects_total = event.subjects_total.max(applied.subjects_met);
    }

    fn on_legacy_reply(
        &mut self,
        frame: &[u8],
        cx: &Context<'_>,
        to_client: &mut Vec<u8>,
    ) -> Result<Step, Closing> {
        let bad = Closing("malformed reply");
        let reply = OpReply::parse(frame).map_err(|_| bad)?;
        let Some(Pending {
            kind:
                Kind::Hello {
                    legacy: true,
                    candidate,
                    compressors,
                    ..
                },
            ..
        }) = self.pending.front()
        else {
            return Err(Closing("legacy reply to a modern request"));
        };
        let (candidate, compressors) = (candidate.take(), *compressors);
        let body = Doc::at(frame, reply.document.start).map_err(|_| bad)?;
        let rewritten = self.present(body, compressors, cx)?;
        to_client.extend_from_slice(&reply.with_document(&rewritten).map_err(|_| bad)?);
        self.greeted(&body, candidate);
        if let Some(pending) = self.pending.pop() {
            let done = self.finish(pending, Outcome::Ok, cx);
            self.done.push(done);
        }
        Ok(Step::Done)
    }

    /// The front request has its reply; in a chain it waits for the next.
    fn advance(&mut self, message: &OpMsg<'_>, more: bool, outcome: Outcome, cx: &Context<'_>) {
        self.advance_with(message, more, outcome, Applied::default(), Plan::default(), cx);
    }

    fn advance_with(
        &mut self,
        message: &OpMsg<'_>,
        more: bool,
        outcome: Outcome,
        applied: Applied,
        plan: Plan,
        cx: &Context<'_>,
    ) {
        let Some(front) = self.pending.front() else { return };
        tally(&mut front.opened, applied.opened, |one, other| one == other);
        tally(&mut front.plaintext, plan.summary.plaintext, Arc::ptr_eq);
        if more {
            front.expects = message.header().request_id;
            return;
        }
        let Some(pending) = self.pending.pop() else { return };
        let done = self.finish(pending, outcome, cx);
        self.done.push(done);
    }

    pub(super) fn finish(&self, pending: Pending, outcome: Outcome, cx: &Context<'_>) -> Done {
        let duration_us = cx.now_us.saturating_sub(pending.started_us);
        let mut event = pending.event;
        if let Some(event) = event.as_mut() {
            event.outcome = outcome;
            event.time_ms = cx.unix_ms;
            event.duration_us = duration_us;
        }
        Done {
            command: pending.entry.map_or("other", |e| e.name),
            outcome,
            duration_us,
            spent_us: pending.spent_us,
            event,
            policy: pending.policy,
            others: pending.others,
            sealed: pending.sealed,
            opened: pending.opened,
            plaintext: pending.plaintext,
        }
    }

    /// The reply cannot be passed on: the client gets an error instead, and the transaction that it belongs to, if any, is
    /// over.
    fn fail(
        &mut self,
        refusal: &Refusal,
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
    ) -> Result<(), Closing> {
        let Some(mut pending) = self.pending.pop() else {
            return Err(Closing("reply without a request"));
        };
        let doc = refuse::document(refusal);
        let legacy = matches!(pending.kind, Kind::Hello { legacy: true, .. });
        let mut bytes = if legacy {
            op_reply::reply(0, pending.expects, &doc).unwrap_or_default()
        } else {
            encode::reply(0, pending.expects, &doc, false).unwrap_or_default()
        };
        self.pack_reply(pending.compressor, &mut bytes, 0);
        match pending.abort.take() {
            Some(_) if self.pending.is_logging_in() => {
                // By then the server may take us for somebody else, whose transaction it is not.
                return Err(Closing("a transaction could not be ended"));
            }
            Some(abort) => {
                // Behind requests that came after it the answer cannot wait for the end of the transaction.
                if !self.pending.is_empty() {
                    to_client.append(&mut bytes);
                }
                self.abort_transaction(pending.expects, &abort, bytes, cx, to_server);
            }
            None => to_client.append(&mut bytes),
        }
        let done = self.finish(
            pending,
            Outcome::Failed {
                what: refusal.reason.label(),
            },
            cx,
        );
        self.done.push(done);
        Ok(())
    }
}

fn outcome(facts: &Facts) -> Outcome {
    match facts.code {
        Some(code) => Outcome::ServerError { code },
        None if facts.ok => Outcome::Ok,
        None => Outcome::ServerError { code: 0 },
    }
}

/// Adds counts to those of the replies before.
fn tally<K>(total: &mut Vec<(K, u32)>, more: Vec<(K, u32)>, same: impl Fn(&K, &K) -> bool) {
    for (key, n) in more {
        match total.iter_mut().find(|(known, _)| same(known, &key)) {
            Some((_, sum)) => *sum = sum.saturating_add(n),
            None => total.push((key, n)),
        }
    }
}
