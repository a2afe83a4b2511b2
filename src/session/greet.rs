//! Hello and authentication: read for what they say, passed on with what must not go upstream left out.

use std::sync::Arc;

use super::auth::{Candidate, claimed, refuse_x509};
use super::pending::{Kind, Pending};
use super::request::Request;
use super::{Closing, Context, Session, Step, refuse};
use crate::bson::Doc;
use crate::command::CommandView;
use crate::command::reply::Facts;
use crate::event::{Lifecycle, bounded_name};
use crate::plan::draft::malformed;
use crate::policy::{Reason, Refusal};
use crate::topology::hello;
use crate::wire::op_msg::OpMsg;
use crate::wire::op_query::OpQuery;

/// What a hello says.
struct Greeting {
    /// Who the client claims to be.
    candidate: Option<Candidate>,
    /// It asks to be answered when something changes.
    awaits: bool,
    /// The document that goes upstream instead, where something has to go.
    rewritten: Option<Vec<u8>>,
}

impl Session {
    pub(super) fn on_session_command(
        &mut self,
        message: &OpMsg<'_>,
        view: &CommandView<'_>,
        request: &Request<'_>,
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
    ) -> Result<Step, Closing> {
        let id = message.header().request_id;
        if request.silent && !matches!(view.name, "hello" | "isMaster" | "ismaster") {
            // The server would do it, and nobody would hear who the client is from then on.
            return Err(Closing("authentication without a reply"));
        }
        let kind = match view.name {
            "hello" | "isMaster" | "ismaster" => match self.greet(&view.body, view.db, cx) {
                Ok(Greeting {
                    candidate,
                    awaits,
                    rewritten,
                }) => {
                    match rewritten.map(|doc| message.with_body(&doc)) {
                        Some(Ok(rewritten)) => to_server.extend_from_slice(&rewritten),
                        Some(Err(_)) => return Err(Closing("malformed frame")),
                        None => to_server.extend_from_slice(message.frame()),
                    }
                    let mut pending = Pending::new(
                        id,
                        Kind::Hello {
                            legacy: false,
                            awaits,
                            candidate,
                            compressors: self.compression.agreed(),
                        },
                        cx.now_us,
                    );
                    pending.entry = request.entry;
                    if !request.silent {
                        self.pending.push(pending);
                    }
                    return Ok(Step::Done);
                }
                Err(refusal) => {
                    return self
                        .refuse(request, &refusal, cx, to_server, to_client)
                        .map(|()| Step::Done);
                }
            },
            "authenticate" => {
                return self
                    .refuse(request, &refuse_x509(), cx, to_server, to_client)
                    .map(|()| Step::Done);
            }
            "saslStart" => match claimed(&view.body, view.db) {
                Ok(candidate) => Kind::Sasl {
                    starts: true,
                    candidate,
                },
                Err(refusal) => {
                    return self
                        .refuse(request, &refusal, cx, to_server, to_client)
                        .map(|()| Step::Done);
                }
            },
            "saslContinue" => Kind::Sasl {
                starts: false,
                candidate: None,
            },
            // It ends the session of one database's user: of another it is none of ours.
            _ if self.is_of(view.db) => Kind::Logout,
            _ => Kind::Command,
        };
        to_server.extend_from_slice(message.frame());
        let mut pending = Pending::new(id, kind, cx.now_us);
        pending.entry = request.entry;
        self.pending.push(pending);
        Ok(Step::Done)
    }

    /// Whether the principal authenticated in this database.
    fn is_of(&self, db: &str) -> bool {
        match &self.principal {
            Some(principal) => principal.rsplit_once('@').is_some_and(|(_, source)| source == db),
            // Whoever logged in without telling us a name could be of any.
            None => self.logged_in,
        }
    }

    /// A legacy hello in an `OP_QUERY`; any other legacy command is refused.
    pub(super) fn on_query(
        &mut self,
        frame: &[u8],
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
    ) -> Result<Step, Closing> {
        if self.pending.arriving.is_some() {
            return Err(Closing("compressed a command that must not be"));
        }
        let query = OpQuery::parse(frame).map_err(|_| Closing("malformed or legacy query"))?;
        let id = query.header.request_id;
        let bad = |_| Closing("malformed frame");
        let whole = Doc::at(frame, query.query.start).map_err(bad)?;
        let body = hello::wrapped_command(whole).map_err(bad)?.unwrap_or(whole);
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
        match self.greet(&whole, "admin", cx) {
            Ok(Greeting {
                candidate,
                awaits,
                rewritten,
            }) => {
                match rewritten.map(|doc| query.with_query(&doc)) {
                    Some(Ok(rewritten)) => to_server.extend_from_slice(&rewritten),
                    Some(Err(_)) => return Err(Closing("malformed frame")),
                    None => to_server.extend_from_slice(frame),
                }
                self.pending.push(Pending::new(
                    id,
                    Kind::Hello {
                        legacy: true,
                        awaits,
                        candidate,
                        compressors: self.compression.agreed(),
                    },
                    cx.now_us,
                ));
            }
            Err(refusal) => self.answer(id, true, &refuse::document(&refusal), false, cx, to_client),
        }
        Ok(Step::Done)
    }

    /// Reads what a hello says about the client.
    fn greet(&mut self, body: &Doc<'_>, db: &str, cx: &Context<'_>) -> Result<Greeting, Refusal> {
        let facts = hello::facts(*body).map_err(malformed)?;
        if facts.load_balanced && !cx.hosts.follows_writes(cx.listener) {
            return Err(Refusal::new(
                Reason::Protocol,
                "loadBalanced=true needs a listener that follows the primary, and this one stands for one member of a \
                 replica set; connect to a [[listen]] without `member`, or leave loadBalanced out",
            ));
        }
        self.balanced |= facts.load_balanced;
        if let Some(application) = facts.application {
            self.application = Some(bounded_name(application).0.into());
        }
        let mut candidate = None;
        let command = hello::wrapped_command(*body).map_err(malformed)?.unwrap_or(*body);
        let awaits = command.get(b"maxAwaitTimeMS").map_err(malformed)?.is_some();
        if let Some(speculative) = command.get(b"speculativeAuthenticate").map_err(malformed)?
            && let Some(start) = speculative.document().map_err(malformed)?
        {
            if awaits {
                // The server waits first, for as long as it is asked to, and nothing is taken behind a login.
                return Err(Refusal::new(
                    Reason::Protocol,
                    "a hello that waits (maxAwaitTimeMS) cannot carry a login (speculativeAuthenticate) as well; send one \
                     of the two, or saslStart",
                ));
            }
            // X.509 names no user here; its `authenticate` is refused with the explanation when it comes.
            candidate = claimed(&start, db).unwrap_or_default();
        }
        self.compression.agree(facts.compressors.as_deref());
        let offer = self.compression.offer();
        let rewritten = hello::rewrite_request(*body, &offer).map_err(malformed)?;
        Ok(Greeting {
            candidate,
            awaits,
            rewritten,
        })
    }

    /// The server has answered a hello.
    pub(super) fn greeted(&mut self, body: &Doc<'_>, candidate: Option<Candidate>) {
        self.greeted = true;
        self.compression.agreed_upstream(body);
        if candidate.is_none() {
            return;
        }
        let speculative = body.get(b"speculativeAuthenticate").ok().flatten();
        let Some(Ok(Some(answer))) = speculative.map(|e| e.document()) else {
            return;
        };
        let done = answer.get(b"done").ok().flatten().is_some_and(|e| e.truthy());
        self.candidate = candidate;
        self.authenticated(Facts {
            ok: true,
            done,
            ..Facts::default()
        });
    }

    /// A step of an authentication went well: the principal counts once the server says `done`.
    pub(super) fn authenticated(&mut self, facts: Facts) {
        let peer = || self.peer.clone().unwrap_or_else(|| "unknown".into());
        if !facts.ok {
            let claimed = self.candidate.take().map(|candidate| candidate.principal);
            self.notices.push(Lifecycle::AuthenticationFailed {
                connection: self.connection,
                claimed,
                peer: peer(),
            });
            return;
        }
        if !facts.done {
            return;
        }
        self.logged_in = true;
        // Whoever logs in without telling us a name is not who was there before.
        self.principal = None;
        if let Some(candidate) = self.candidate.take() {
            self.notices.push(Lifecycle::Authenticated {
                connection: self.connection,
                principal: Arc::clone(&candidate.principal),
                mechanism: candidate.mechanism,
                peer: peer(),
            });
            self.principal = Some(candidate.principal);
        }
    }
}
