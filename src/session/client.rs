//! Frames from the client: planned, applied, proved and passed on, or answered here.

use std::sync::Arc;

use super::auth::{claimed, refuse_x509};
use super::pending::{Kind, Pending};
use super::{Closing, Context, Done, Session, Step, Wanted, proof, refuse};
use crate::bson::Doc;
use crate::command::table::{self, Entry, Verdict};
use crate::command::view::Sequence;
use crate::command::{CommandView, Scope, explain, namespace};
use crate::event::{CommandEvent, Outcome, bounded_name};
use crate::limits;
use crate::plan::apply::{ApplyError, Subjects, apply};
use crate::plan::draft::malformed;
use crate::plan::{Draft, Plan};
use crate::policy::{CollectionPolicy, Reason, Refusal};
use crate::topology::hello;
use crate::wire::error::OpMsgError;
use crate::wire::header::{Header, Opcode};
use crate::wire::op_msg::{OpMsg, Section};
use crate::wire::op_query::OpQuery;
use crate::wire::{checksum, encode, op_reply};

/// A request: what is needed to answer it here.
struct Request<'a> {
    id: i32,
    /// It expects no reply.
    silent: bool,
    checksum: bool,
    legacy: bool,
    command: &'static str,
    namespace: String,
    policy: Option<&'a Arc<CollectionPolicy>>,
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
        let header = Header::peek(frame, limits::MAX_MESSAGE).map_err(|_| Closing("malformed frame"))?;
        match header.opcode {
            Opcode::Msg => self.on_msg(frame, cx, to_server, to_client),
            Opcode::Query => self.on_query(frame, cx, to_server, to_client),
            Opcode::Compressed => Err(Closing("compression was not negotiated")),
            _ => Err(Closing("legacy opcode")),
        }
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
        to_client: &mut Vec<u8>,
    ) -> Result<(), Closing> {
        let refusal = Refusal::new(Reason::Key, why);
        let message = OpMsg::parse(frame).map_err(|_| Closing("malformed frame"))?;
        let Ok(Some(view)) = read(&message) else {
            return Err(Closing("malformed frame"));
        };
        let named = Named::new(&view, cx);
        let request = named.request(&message);
        self.refuse(&request, &refusal, cx, to_client)
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
        let view = match read(&message) {
            Ok(Some(view)) => view,
            // No `$db`, or an empty body: the server's own code for it.
            Ok(None) => {
                let refusal = Refusal::new(Reason::Malformed, "OP_MSG requests require a $db argument")
                    .with_code(40571);
                return self.refuse_unread(&message, &refusal, cx, to_client);
            }
            Err(refusal) => return self.refuse_unread(&message, &refusal, cx, to_client),
        };
        let entry = table::find(view.name);
        if let Some(Entry {
            verdict: Verdict::Session,
            ..
        }) = entry
        {
            return self.on_session_command(&message, &view, entry, cx, to_server, to_client);
        }
        let named = Named::new(&view, cx);
        let request = named.request(&message);
        if cx.map.is_empty() {
            self.pass_on(frame, &message, entry, None, Plan::default(), None, cx, to_server);
            return Ok(Step::Done);
        }
        let (plan, touches) = match decide(&view, entry, &named, cx) {
            Ok(decided) => decided,
            Err(refusal) => {
                return self
                    .refuse(&request, &refusal, cx, to_client)
                    .map(|()| Step::Done);
            }
        };
        if plan.needs_keys() {
            return Ok(Step::NeedKeys(Wanted::new(plan)));
        }
        if touches && !cx.audit_ready {
            let refusal = Refusal::new(
                Reason::Audit,
                "the audit log cannot be written, and the configuration refuses protected operations without it; \
                 the operator must free the log's disk or file (audit.path)",
            );
            return self
                .refuse(&request, &refusal, cx, to_client)
                .map(|()| Step::Done);
        }
        if plan.is_identity() {
            let event = touches.then(|| self.event(&request, &plan, cx));
            self.pass_on(
                frame,
                &message,
                entry,
                named.policy.clone(),
                plan,
                event,
                cx,
                to_server,
            );
            return Ok(Step::Done);
        }
        match self.rewrite(frame, &plan, &named, cx, to_server) {
            Ok(applied) => {
                let mut event = self.event(&request, &plan, cx);
                event.subjects = applied.subjects;
                event.subjects_total = applied.subjects_met;
                self.await_reply(&message, entry, named.policy.clone(), plan, Some(event), cx);
                Ok(Step::Done)
            }
            Err(refusal) => self
                .refuse(&request, &refusal, cx, to_client)
                .map(|()| Step::Done),
        }
    }

    /// Applies and proves; on failure nothing has been appended.
    fn rewrite(
        &self,
        frame: &[u8],
        plan: &Plan,
        named: &Named,
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
    ) -> Result<crate::plan::apply::Applied, Refusal> {
        let subject = named.policy.as_ref().and_then(|p| p.subject.as_ref());
        let subjects = subject.map(|rule| Subjects {
            domain: &rule.domain,
            pseudonymizer: cx.pseudonymizer,
        });
        let base = to_server.len();
        let result = apply(frame, plan, cx.ring, subjects.as_ref(), to_server)
            .map_err(|why| apply_refusal(&why))
            .and_then(|applied| {
                let rewritten = to_server.get_mut(base..).unwrap_or_default();
                checksum::repair(rewritten).map_err(|_| apply_refusal(&ApplyError::TooLarge))?;
                if let Some(policy) = &named.policy {
                    proof::prove_command(rewritten, &policy.shape).map_err(|path| {
                        Refusal::new(
                            Reason::Proof,
                            format!(
                                "field '{}' would have left unsealed; please report this as a bug",
                                path.0
                            ),
                        )
                    })?;
                }
                Ok(applied)
            });
        if result.is_err() {
            to_server.truncate(base);
        }
        result
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call site per outcome; a struct would only name the same things twice"
    )]
    fn pass_on(
        &mut self,
        frame: &[u8],
        message: &OpMsg<'_>,
        entry: Option<&'static Entry>,
        policy: Option<Arc<CollectionPolicy>>,
        plan: Plan,
        event: Option<Box<CommandEvent>>,
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
    ) {
        to_server.extend_from_slice(frame);
        self.await_reply(message, entry, policy, plan, event, cx);
    }

    fn await_reply(
        &mut self,
        message: &OpMsg<'_>,
        entry: Option<&'static Entry>,
        policy: Option<Arc<CollectionPolicy>>,
        plan: Plan,
        event: Option<Box<CommandEvent>>,
        cx: &Context<'_>,
    ) {
        let mut pending = Pending::new(message.header().request_id, Kind::Command, cx.now_us);
        pending.entry = entry;
        pending.policy = policy;
        pending.event = event;
        pending.sealed = plan.summary.rules;
        pending.computed = plan.summary.computed;
        if message.flags().more_to_come() {
            // Nobody will say how it went: it counts as done once it is on its way.
            let done = self.finish(pending, Outcome::Ok, cx);
            self.done.push(done);
        } else {
            self.pending.push(pending);
        }
    }

    fn on_session_command(
        &mut self,
        message: &OpMsg<'_>,
        view: &CommandView<'_>,
        entry: Option<&'static Entry>,
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
    ) -> Result<Step, Closing> {
        let id = message.header().request_id;
        let named = Named::new(view, cx);
        let request = named.request(message);
        let kind = match view.name {
            "hello" | "isMaster" | "ismaster" => match self.greet(&view.body, view.db) {
                Ok((candidate, body)) => {
                    match body.map(|doc| message.with_body(&doc)) {
                        Some(Ok(rewritten)) => to_server.extend_from_slice(&rewritten),
                        Some(Err(_)) => return Err(Closing("malformed frame")),
                        None => to_server.extend_from_slice(message.frame()),
                    }
                    let mut pending = Pending::new(
                        id,
                        Kind::Hello {
                            legacy: false,
                            candidate,
                        },
                        cx.now_us,
                    );
                    pending.entry = entry;
                    if !message.flags().more_to_come() {
                        self.pending.push(pending);
                    }
                    return Ok(Step::Done);
                }
                Err(refusal) => {
                    return self
                        .refuse(&request, &refusal, cx, to_client)
                        .map(|()| Step::Done);
                }
            },
            "authenticate" => {
                return self
                    .refuse(&request, &refuse_x509(), cx, to_client)
                    .map(|()| Step::Done);
            }
            "saslStart" => match claimed(&view.body, view.db) {
                Ok(candidate) => Kind::Sasl(candidate),
                Err(refusal) => {
                    return self
                        .refuse(&request, &refusal, cx, to_client)
                        .map(|()| Step::Done);
                }
            },
            "saslContinue" => Kind::Sasl(None),
            _ => Kind::Logout,
        };
        to_server.extend_from_slice(message.frame());
        let mut pending = Pending::new(id, kind, cx.now_us);
        pending.entry = entry;
        if !message.flags().more_to_come() {
            self.pending.push(pending);
        }
        Ok(Step::Done)
    }

    /// A legacy hello in an `OP_QUERY`; any other legacy command is refused.
    fn on_query(
        &mut self,
        frame: &[u8],
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
    ) -> Result<Step, Closing> {
        let query = OpQuery::parse(frame).map_err(|_| Closing("malformed or legacy query"))?;
        let id = query.header.request_id;
        let bad = |_| Closing("malformed frame");
        let mut body = Doc::at(frame, query.query.start).map_err(bad)?;
        if let Some(wrapped) = body.get(b"$query").map_err(bad)? {
            body = wrapped
                .document()
                .map_err(bad)?
                .ok_or(Closing("malformed frame"))?;
        }
        let name = body
            .elements()
            .next()
            .and_then(Result::ok)
            .map_or(&b""[..], |e| e.key);
        if !matches!(name, b"hello" | b"isMaster" | b"ismaster") {
            let refusal = Refusal::new(
                Reason::Protocol,
                "legacy OP_QUERY commands other than hello are not supported; use a driver that speaks OP_MSG (MongoDB 3.6 or later)",
            )
            .with_code(352);
            self.answer(id, true, &refuse::document(&refusal), false, cx, to_client);
            return Ok(Step::Done);
        }
        let whole = Doc::at(frame, query.query.start).map_err(bad)?;
        match self.greet(&whole, "admin") {
            Ok((candidate, rewritten)) => {
                match rewritten.map(|doc| query.with_query(&doc)) {
                    Some(Ok(rewritten)) => to_server.extend_from_slice(&rewritten),
                    Some(Err(_)) => return Err(Closing("malformed frame")),
                    None => to_server.extend_from_slice(frame),
                }
                self.pending.push(Pending::new(
                    id,
                    Kind::Hello {
                        legacy: true,
                        candidate,
                    },
                    cx.now_us,
                ));
            }
            Err(refusal) => self.answer(id, true, &refuse::document(&refusal), false, cx, to_client),
        }
        Ok(Step::Done)
    }

    /// Reads what a hello says about the client; returns who it claims to be and, where something has to go, the
    /// document that goes upstream instead.
    fn greet(
        &mut self,
        body: &Doc<'_>,
        db: &str,
    ) -> Result<(Option<super::auth::Candidate>, Option<Vec<u8>>), Refusal> {
        let facts = hello::facts(*body).map_err(malformed)?;
        if let Some(application) = facts.application {
            self.application = Some(bounded_name(application).0.into());
        }
        let mut candidate = None;
        if let Some(speculative) = body.get(b"speculativeAuthenticate").map_err(malformed)?
            && let Some(start) = speculative.document().map_err(malformed)?
        {
            // X.509 names no user here; its `authenticate` is refused with the explanation when it comes.
            candidate = claimed(&start, db).unwrap_or_default();
        }
        let rewritten = hello::strip_request_compression(*body).map_err(malformed)?;
        Ok((candidate, rewritten))
    }

    fn refuse_unread(
        &mut self,
        message: &OpMsg<'_>,
        refusal: &Refusal,
        cx: &Context<'_>,
        to_client: &mut Vec<u8>,
    ) -> Result<Step, Closing> {
        if message.flags().more_to_come() {
            return Err(Closing("malformed command without reply"));
        }
        self.answer(
            message.header().request_id,
            false,
            &refuse::document(refusal),
            message.flags().checksum_present(),
            cx,
            to_client,
        );
        Ok(Step::Done)
    }

    /// Answers a request with an error, or drops it and closes where it expects no reply.
    fn refuse(
        &mut self,
        request: &Request<'_>,
        refusal: &Refusal,
        cx: &Context<'_>,
        to_client: &mut Vec<u8>,
    ) -> Result<(), Closing> {
        let reason = refusal.reason.label();
        let outcome = if request.silent {
            Outcome::Dropped { reason }
        } else {
            Outcome::Refused { reason }
        };
        let mut event = self.event(request, &Plan::default(), cx);
        event.outcome = outcome;
        event.fields.extend(refusal.field.clone());
        self.done.push(Done {
            command: request.command,
            outcome,
            duration_us: 0,
            spent_us: 0,
            event: Some(event),
            policy: request.policy.cloned(),
            sealed: Vec::new(),
            opened: Vec::new(),
            plaintext: Vec::new(),
        });
        if request.silent {
            return Err(Closing("refused an unacknowledged command"));
        }
        self.answer(
            request.id,
            request.legacy,
            &refuse::document(refusal),
            request.checksum,
            cx,
            to_client,
        );
        Ok(())
    }

    /// Puts an answer of our own in line behind the replies in flight.
    fn answer(
        &mut self,
        request_id: i32,
        legacy: bool,
        doc: &[u8],
        checksum: bool,
        cx: &Context<'_>,
        to_client: &mut Vec<u8>,
    ) {
        let bytes = if legacy {
            op_reply::reply(0, request_id, doc).unwrap_or_default()
        } else {
            encode::reply(0, request_id, doc, checksum).unwrap_or_default()
        };
        self.pending
            .push(Pending::new(request_id, Kind::Local(bytes), cx.now_us));
        self.pending.release(to_client);
    }

    fn event(&self, request: &Request<'_>, plan: &Plan, cx: &Context<'_>) -> Box<CommandEvent> {
        let mut event = CommandEvent::new(
            cx.unix_ms,
            self.connection,
            request.namespace.clone(),
            request.command,
        );
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

/// The namespace a command works on, and its policy.
struct Named {
    command: &'static str,
    namespace: String,
    policy: Option<Arc<CollectionPolicy>>,
}

impl Named {
    fn new(view: &CommandView<'_>, cx: &Context<'_>) -> Self {
        let collection = collection(view);
        let policy = collection.and_then(|c| cx.map.lookup(view.db, c));
        let namespace = match (&policy, collection) {
            (Some(policy), _) => policy.namespace.as_str().to_owned(),
            (None, Some(collection)) => format!("{}.{collection}", view.db),
            (None, None) => view.db.to_owned(),
        };
        Self {
            command: table::find(view.name).map_or("other", |e| e.name),
            namespace,
            policy,
        }
    }

    fn request(&self, message: &OpMsg<'_>) -> Request<'_> {
        Request {
            id: message.header().request_id,
            silent: message.flags().more_to_come(),
            checksum: message.flags().checksum_present(),
            legacy: false,
            command: self.command,
            namespace: self.namespace.clone(),
            policy: self.policy.as_ref(),
        }
    }
}

/// The collection a command names: its first value, `getMore`'s `collection`, or that of the command it explains.
fn collection<'a>(view: &CommandView<'a>) -> Option<&'a str> {
    match view.name {
        "getMore" => view.get("collection").ok()?.and_then(|e| e.text()),
        "explain" => explain::inner(view).ok()?.and_then(|inner| inner.collection()),
        _ => view.collection(),
    }
}

fn read<'a>(message: &OpMsg<'a>) -> Result<Option<CommandView<'a>>, Refusal> {
    let frame = message.frame();
    let mut sequences = Vec::new();
    for section in message.sections() {
        if let Section::Sequence {
            at,
            identifier,
            docs_at,
            end,
        } = section
        {
            sequences.push(Sequence {
                identifier,
                at,
                documents_at: docs_at,
                end,
            });
        }
    }
    let body = Doc::at(frame, message.body().start).map_err(malformed)?;
    CommandView::new(body, None, sequences)
}

/// The verdict on a command, as a plan and whether it touches anything protected.
fn decide(
    view: &CommandView<'_>,
    entry: Option<&'static Entry>,
    named: &Named,
    cx: &Context<'_>,
) -> Result<(Plan, bool), Refusal> {
    let protected = named.policy.is_some();
    let name = named.command;
    match entry.map(|entry| entry.verdict) {
        Some(Verdict::Rewrite(planner)) => {
            if protected {
                view.refuse_repeats()?;
            }
            refuse_inside(view, cx)?;
            let subject = named.policy.as_ref().and_then(|p| p.subject.clone());
            let mut draft = Draft::new(view.body.buffer(), cx.ring, subject);
            let scope = Scope {
                map: cx.map,
                policy: named.policy.as_deref(),
            };
            planner(view, &scope, &mut draft)?;
            let plan = draft.finish();
            let touches = protected || !plan.summary.rules.is_empty();
            Ok((plan, touches))
        }
        Some(Verdict::Forward | Verdict::Session) => Ok((Plan::default(), protected)),
        Some(Verdict::Unprotected) => {
            if namespace::names_protected(view, cx.map)? {
                return Err(Refusal::new(
                    Reason::Command,
                    format!(
                        "command '{name}' is not supported on a protected collection ({}); run it on a direct connection if it is meant",
                        protected_paths(named)
                    ),
                ));
            }
            Ok((Plan::default(), false))
        }
        Some(Verdict::Refuse) => Err(Refusal::new(
            Reason::Command,
            format!(
                "command '{name}' is not supported through the proxy; run it on a direct connection if it is meant"
            ),
        )),
        None => {
            if cx.map.protects_db(view.db) || namespace::names_protected(view, cx.map)? {
                return Err(Refusal::new(
                    Reason::Command,
                    format!(
                        "command '{}' is not known and its database holds protected collections; run it on a direct connection if it is meant",
                        shown_name(view.name)
                    ),
                ));
            }
            Ok((Plan::default(), false))
        }
    }
}

/// A command's name as it may be shown: the client's own word, so only if it looks like a name.
fn shown_name(name: &str) -> &str {
    let is_name = name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$');
    if is_name { name } else { "?" }
}

fn protected_paths(named: &Named) -> String {
    let paths = named
        .policy
        .iter()
        .flat_map(|policy| policy.rules.iter().map(|rule| &*rule.path))
        .collect::<Vec<_>>();
    if paths.is_empty() {
        "named in an argument".to_owned()
    } else {
        paths.join(", ")
    }
}

/// Collections of the server's own that show other clients' commands or raw changes.
fn refuse_inside(view: &CommandView<'_>, cx: &Context<'_>) -> Result<(), Refusal> {
    let Some(collection) = collection(view) else {
        return Ok(());
    };
    let shows_commands = collection == "system.profile" && cx.map.protects_db(view.db)
        || view.db == "local" && collection.starts_with("oplog.");
    if shows_commands {
        return Err(Refusal::new(
            Reason::Command,
            format!(
                "collection '{}.{collection}' shows other clients' operations; read it on a direct connection",
                view.db
            ),
        ));
    }
    Ok(())
}

/// Why a plan could not be applied, as an answer.
pub(super) fn apply_refusal(why: &ApplyError) -> Refusal {
    match why {
        ApplyError::Broken { key, domain } => Refusal::new(
            Reason::Tampered,
            format!(
                "a stored value of domain '{}' (data key {}) does not authenticate: it was changed or moved, or sealed under another key; restore it from a backup",
                domain.as_deref().unwrap_or("unknown"),
                key.map_or_else(|| "unknown".to_owned(), |key| key.to_string()),
            ),
        ),
        ApplyError::Moved { path, domain } => Refusal::new(
            Reason::Tampered,
            format!(
                "field '{path}' holds a ciphertext of domain '{domain}': it was moved there from another field; restore the document from a backup"
            ),
        ),
        ApplyError::MissingKey => Refusal::new(
            Reason::Key,
            "a data key is not available; try again, or ask the operator to check the key vault",
        ),
        ApplyError::Exhausted { path } => Refusal::new(
            Reason::Key,
            format!(
                "field '{path}': its data key cannot seal any more (random nonces spent); rotate the key"
            ),
        ),
        ApplyError::TooLarge => Refusal::new(
            Reason::Size,
            "the message would be larger than the server accepts once its fields are sealed; send smaller batches",
        ),
        ApplyError::Inconsistent => Refusal::new(
            Reason::Proof,
            "the plan did not fit the message; please report this as a bug",
        ),
    }
}
