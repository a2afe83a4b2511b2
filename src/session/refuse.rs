//! Refusals as MongoDB error replies, so that every driver shows them; each is counted and audited.

use super::pending::{Kind, Pending};
use super::request::Request;
use super::{Closing, Context, Done, Session, Step, transaction};
use crate::bson::Doc;
use crate::bson::build::Builder;
use crate::event::Outcome;
use crate::plan::Plan;
use crate::plan::apply::ApplyError;
use crate::policy::{Reason, Refusal};
use crate::wire::op_msg::OpMsg;
use crate::wire::{encode, op_reply};

impl Session {
    pub(super) fn refuse_unread(
        &mut self,
        message: &OpMsg<'_>,
        refusal: &Refusal,
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
    ) -> Result<Step, Closing> {
        if message.flags().more_to_come() {
            return Err(Closing("malformed command without reply"));
        }
        let body = Doc::at(message.frame(), message.body().start).ok();
        let abort = body.and_then(|body| transaction::abort(&body));
        let (id, checksum) = (message.header().request_id, message.flags().checksum_present());
        self.answer_statement(id, &document(refusal), checksum, abort, cx, to_server, to_client);
        Ok(Step::Done)
    }

    /// Answers a request with an error, or drops it and closes where it expects no reply. A transaction that it is a
    /// statement of is over.
    pub(super) fn refuse(
        &mut self,
        request: &Request<'_>,
        refusal: &Refusal,
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
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
            policy: request.policy.clone(),
            others: Vec::new(),
            sealed: Vec::new(),
            opened: Vec::new(),
            plaintext: Vec::new(),
        });
        let (id, abort) = (request.id, request.abort.clone());
        if request.silent {
            if let Some(abort) = abort {
                // Sent with what still stands in the buffer; the answer finds nobody.
                self.abort_transaction(id, &abort, Vec::new(), cx, to_server);
            }
            return Err(Closing("refused an unacknowledged command"));
        }
        let doc = document(refusal);
        self.answer_statement(id, &doc, request.checksum, abort, cx, to_server, to_client);
        Ok(())
    }

    /// Answers a request, once the transaction that it is a statement of has been ended.
    #[expect(clippy::too_many_arguments, reason = "an answer, and both directions")]
    fn answer_statement(
        &mut self,
        request_id: i32,
        doc: &[u8],
        checksum: bool,
        abort: Option<Vec<u8>>,
        cx: &Context<'_>,
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
    ) {
        // Whoever has not logged in has no transaction.
        match abort.filter(|_| self.logged_in || !cx.login) {
            Some(abort) => {
                let answer = encode::reply(0, request_id, doc, checksum).unwrap_or_default();
                let answer = self.packed_answer(answer);
                self.abort_transaction(request_id, &abort, answer, cx, to_server);
            }
            None => self.answer(request_id, false, doc, checksum, cx, to_client),
        }
    }

    /// Puts an answer of our own in line behind the replies in flight.
    pub(super) fn answer(
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
        let bytes = self.packed_answer(bytes);
        self.pending
            .push(Pending::new(request_id, Kind::Local(bytes), cx.now_us));
        self.pending.release(to_client);
    }
}

/// MongoDB's `Unauthorized`.
const UNAUTHORIZED: i32 = 13;

/// What the server calls one of its codes; most of those that parsing gives have no name.
fn name_of(code: i32) -> String {
    let name = match code {
        2 => "BadValue",
        9 => "FailedToParse",
        14 => "TypeMismatch",
        52 => "DollarPrefixedFieldName",
        56 => "EmptyFieldName",
        73 => "InvalidNamespace",
        166 => "CommandNotSupportedOnView",
        _ => return format!("Location{code}"),
    };
    name.to_owned()
}

/// The error document: `ok: 0`, `errmsg` beginning with `fieldveil: `, `code` and `codeName`.
pub(super) fn document(refusal: &Refusal) -> Vec<u8> {
    let (code, name) = refusal.reason.code();
    let (code, name) = match refusal.code {
        Some(UNAUTHORIZED) => (UNAUTHORIZED, "Unauthorized".to_owned()),
        Some(own) => (own, name_of(own)),
        None => (code, name.to_owned()),
    };
    let mut doc = Builder::new();
    doc.double("ok", 0.0)
        .string("errmsg", &format!("fieldveil: {}", refusal.text))
        .int32("code", code)
        .string("codeName", &name);
    doc.finish()
}

/// The server's own answer to a command before a login. Given here, since the command would have to be sealed, and that
/// takes keys; or to be printed by the server, in the clear.
pub(super) fn must_log_in(command: &str) -> Refusal {
    Refusal::new(
        Reason::Authentication,
        format!(
            "command '{command}' requires authentication: the proxy's own connection string has credentials, so applications need theirs"
        ),
    )
    .with_code(UNAUTHORIZED)
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
        ApplyError::MissingKey | ApplyError::Lease { .. } => Refusal::new(
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
