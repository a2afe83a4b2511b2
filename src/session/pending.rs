//! Requests that wait for their reply, in order. The server answers a connection's requests one after the other, so
//! the oldest is always the next to be answered; an answer of our own waits its turn among them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::auth::Candidate;
use crate::command::table::Entry;
use crate::event::CommandEvent;
use crate::limits;
use crate::policy::found::Change;
use crate::policy::{CollectionPolicy, FieldRule, FieldState, Shape};
use crate::topology::Scope;
use crate::wire::{Compressor, Compressors};

/// One request in flight.
pub(super) struct Pending {
    /// What the reply's `responseTo` must be: the request's id, or in a chain the id of the reply before.
    pub(super) expects: i32,
    pub(super) kind: Kind,
    pub(super) entry: Option<&'static Entry>,
    pub(super) policy: Option<Arc<CollectionPolicy>>,
    pub(super) others: Vec<Arc<CollectionPolicy>>,
    pub(super) event: Option<Box<CommandEvent>>,
    pub(super) sealed: Vec<(Arc<FieldRule>, u32)>,
    /// Which rule's values stand where in the documents of the reply; `None` where that is not known.
    pub(super) shows: Option<Shape>,
    /// The cursor that a `getMore` goes on with.
    pub(super) cursor: Option<i64>,
    /// The request came compressed by this, so its replies go by it.
    pub(super) compressor: Option<Compressor>,
    /// What ends the transaction that this is a statement of.
    pub(super) abort: Option<Vec<u8>>,
    /// Values opened so far, by domain: a chain of replies is one command's.
    pub(super) opened: Vec<(Arc<str>, u32)>,
    /// Plaintext found so far where an enforced rule allows none.
    pub(super) plaintext: Vec<(Arc<FieldRule>, u32)>,
    /// It decides who the client is.
    logs_in: bool,
    /// The reply is a plan, whose literals stay sealed.
    pub(super) explained: bool,
    /// What the command does to views, should the server do it.
    pub(super) change: Option<Box<Change>>,
    /// Where the reply names upstream members.
    pub(super) scope: Scope,
    pub(super) started_us: u64,
    pub(super) spent_us: u64,
}

pub(super) enum Kind {
    Command,
    /// hello: the reply is rewritten.
    Hello {
        legacy: bool,
        /// It is answered when something has changed, or after a time.
        awaits: bool,
        candidate: Option<Candidate>,
        /// What the reply shows as agreed on between the client and us.
        compressors: Compressors,
    },
    /// A step of an authentication.
    Sasl {
        /// The first one: whatever conversation came before is over.
        starts: bool,
        candidate: Option<Candidate>,
    },
    Logout,
    /// An answer of our own.
    Local(Vec<u8>),
    /// The end of a transaction, asked for here: the reply to it stays here, and this answer goes in its place.
    Abort(Vec<u8>),
}

impl Pending {
    pub(super) fn new(request_id: i32, kind: Kind, started_us: u64) -> Self {
        let logs_in = match &kind {
            Kind::Hello { candidate, .. } => candidate.is_some(),
            Kind::Sasl { .. } | Kind::Logout => true,
            Kind::Command | Kind::Local(_) | Kind::Abort(_) => false,
        };
        Self {
            expects: request_id,
            kind,
            logs_in,
            abort: None,
            opened: Vec::new(),
            plaintext: Vec::new(),
            entry: None,
            policy: None,
            others: Vec::new(),
            event: None,
            sealed: Vec::new(),
            shows: None,
            cursor: None,
            compressor: None,
            explained: false,
            change: None,
            scope: Scope::Errors,
            started_us,
            spent_us: 0,
        }
    }
}

impl Pending {
    /// A pipeline on an unprotected collection brings in fields that are migrating: errors may show their plaintext.
    pub(super) fn joins_plaintext(&self) -> bool {
        self.policy.is_none()
            && self
                .sealed
                .iter()
                .any(|(rule, _)| rule.state == FieldState::Migrating)
    }
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Pending>,
    /// How many of them decide who the client is.
    logins: usize,
    /// How the request at hand came: what is put in line belongs to it.
    pub(super) arriving: Option<Compressor>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn only_waits_for_news(&self) -> bool {
        self.waiting
            .iter()
            .all(|pending| matches!(pending.kind, Kind::Hello { awaits: true, .. }))
    }

    /// Somebody waits to hear who the client is: nothing is taken behind that.
    pub(super) fn is_logging_in(&self) -> bool {
        self.logins > 0
    }

    /// The first of several replies to a hello has come: the login that it carried is decided.
    pub(super) fn told_who_it_is(&mut self) {
        if let Some(front) = self.waiting.front_mut()
            && std::mem::take(&mut front.logs_in)
        {
            self.logins -= 1;
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= limits::MAX_PENDING
    }

    pub(super) fn push(&mut self, pending: Pending) {
        self.logins += usize::from(pending.logs_in);
        self.waiting.push_back(Pending {
            compressor: self.arriving,
            ..pending
        });
    }

    pub(super) fn front(&mut self) -> Option<&mut Pending> {
        self.waiting.front_mut()
    }

    pub(super) fn pop(&mut self) -> Option<Pending> {
        let oldest = self.waiting.pop_front()?;
        self.logins -= usize::from(oldest.logs_in);
        Some(oldest)
    }

    pub(super) fn charge(&mut self, us: u64) {
        if let Some(youngest) = self.waiting.back_mut() {
            youngest.spent_us += us;
        }
    }

    /// Moves answers of our own whose turn has come to the client's buffer.
    pub(super) fn release(&mut self, to_client: &mut Vec<u8>) {
        while let Some(Pending {
            kind: Kind::Local(bytes),
            ..
        }) = self.waiting.front()
        {
            to_client.extend_from_slice(bytes);
            self.waiting.pop_front();
        }
        if self.waiting.is_empty() {
            // An idle connection keeps no queue.
            self.waiting.shrink_to(4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_a_login_whatever_stands_behind_it() {
        let login = || Kind::Sasl {
            starts: true,
            candidate: None,
        };
        let mut queue = Queue::default();
        for kind in [Kind::Command, login(), Kind::Abort(Vec::new())] {
            queue.push(Pending::new(1, kind, 0));
        }
        assert!(queue.is_logging_in());
        queue.pop();
        assert!(queue.is_logging_in());
        queue.pop();
        assert!(!queue.is_logging_in());
        queue.push(Pending::new(1, Kind::Logout, 0));
        queue.pop();
        queue.told_who_it_is();
        assert!(!queue.is_logging_in(), "a first of several replies");
        queue.pop();
        assert!(!queue.is_logging_in());
    }
}
