//! One request as the session sees it: what it asks for, of which namespace, and how it wants to be answered.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Context, transaction};
use crate::bson::Doc;
use crate::command::aggregate::Policies;
use crate::command::table::{self, Entry};
use crate::command::view::Sequence;
use crate::command::views::{self, Known};
use crate::command::{CommandView, bulk_write, explain};
use crate::plan::draft::malformed;
use crate::policy::found::Change;
use crate::policy::{CollectionPolicy, Refusal};
use crate::wire::op_msg::{OpMsg, Section};

/// A command, and what is needed to answer it here.
pub(super) struct Request<'a> {
    /// Its request id.
    pub(super) id: i32,
    /// It expects no reply.
    pub(super) silent: bool,
    /// It carried a checksum, so its answer does.
    pub(super) checksum: bool,
    /// The command's name, from the closed table.
    pub(super) command: &'static str,
    /// Its entry in the table.
    pub(super) entry: Option<&'static Entry>,
    /// The database.
    pub(super) db: &'a str,
    /// The collection, where it names one.
    pub(super) collection: Option<&'a str>,
    /// The cursor that a `getMore` goes on with.
    pub(super) cursor: Option<i64>,
    /// The namespace's policy; `None` where nothing in it is protected. Of a command on several namespaces, the first
    /// that is protected.
    pub(super) policy: Option<Arc<CollectionPolicy>>,
    /// The other protected namespaces of a `bulkWrite`.
    pub(super) others: Vec<Arc<CollectionPolicy>>,
    /// What it does to views, should the server do it.
    pub(super) change: Option<Box<Change>>,
    /// What ends the transaction that it is a statement of.
    pub(super) abort: Option<Vec<u8>>,
}

impl<'a> Request<'a> {
    pub(super) fn new(message: &OpMsg<'a>, view: &CommandView<'a>, cx: &Context<'_>) -> Self {
        let collection = collection(view);
        let known = Known {
            map: cx.map,
            found: cx.found,
        };
        let mut policy = collection.and_then(|c| known.policy(view.db, c));
        let mut others = Vec::new();
        let entry = table::find(view.name);
        if view.name == "bulkWrite" {
            // What cannot be read is refused by the planner.
            let mut policies = protected(&bulk_write::namespaces(view).unwrap_or_default(), cx).into_iter();
            policy = policies.next();
            others = policies.collect();
        }
        Self {
            id: message.header().request_id,
            silent: message.flags().more_to_come(),
            checksum: message.flags().checksum_present(),
            command: entry.map_or("other", |e| e.name),
            entry,
            db: view.db,
            collection,
            cursor: view.first.integer().filter(|_| view.name == "getMore"),
            policy,
            others,
            change: views::change(view)
                .filter(|_| cx.map.protects_db(view.db))
                .map(Box::new),
            abort: transaction::abort(&view.body),
        }
    }

    /// It is about a view.
    pub(super) fn is_view(&self, cx: &Context<'_>) -> bool {
        self.collection
            .is_some_and(|collection| cx.found.view(self.db, collection).is_some())
    }

    /// `db.collection`, or the database alone; of a `bulkWrite` the protected ones of its namespaces.
    pub(super) fn namespace(&self) -> String {
        match (&self.policy, self.collection) {
            (Some(policy), _) if self.others.is_empty() => policy.namespace.as_str().to_owned(),
            (Some(policy), _) => {
                let shown = std::iter::once(policy)
                    .chain(&self.others)
                    .map(|policy| policy.namespace.as_str());
                let mut names = shown.take(SHOWN).collect::<Vec<_>>().join(",");
                if self.others.len() >= SHOWN {
                    names.push_str(",…");
                }
                names
            }
            (None, Some(collection)) => format!("{}.{collection}", self.db),
            (None, None) => self.db.to_owned(),
        }
    }

    /// The protected paths of its namespace, for a message.
    pub(super) fn protected_paths(&self) -> String {
        let paths: Vec<&str> = self
            .policy
            .iter()
            .chain(&self.others)
            .flat_map(|p| p.rules.iter().map(|rule| &*rule.path))
            .collect();
        if paths.is_empty() {
            "named in an argument".to_owned()
        } else {
            paths.join(", ")
        }
    }
}

/// Most namespaces of one command that an event names.
const SHOWN: usize = 64;

/// The policies of these namespaces, each once.
fn protected(namespaces: &[(&str, &str)], cx: &Context<'_>) -> Vec<Arc<CollectionPolicy>> {
    let mut seen = HashSet::new();
    namespaces
        .iter()
        .filter(|namespace| seen.insert(**namespace))
        .filter_map(|(db, collection)| cx.map.lookup(db, collection))
        .collect()
}

/// The command in a message; `None` where it has no name or no `$db`.
///
/// # Errors
/// A [`Refusal`] for malformed bytes.
pub(super) fn read<'a>(message: &OpMsg<'a>) -> Result<Option<CommandView<'a>>, Refusal> {
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

/// The collection a command names: its first value, `getMore`'s `collection`, or that of the command it explains.
fn collection<'a>(view: &CommandView<'a>) -> Option<&'a str> {
    match view.name {
        "getMore" => view.get("collection").ok()?.and_then(|e| e.text()),
        "explain" => explain::inner(view).ok()?.and_then(|inner| inner.collection()),
        _ => view.collection(),
    }
}
