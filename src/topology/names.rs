//! Addresses of upstream members in replies: status reports, plans and error texts. Owns what becomes of each; hello has
//! its own rules (`hello`), documents of the application are never touched.
//!
//! A member with a listener becomes that listener. One without becomes a name under `.invalid` (RFC 2606), the same one
//! each time. Source: SEMANTICS B3.5.

use super::copier::{Copier, string_value};
use super::hosts::{Address, HostMap};
use crate::bson::{Doc, Element, Malformed, kind};
use crate::limits;

/// Stands for an option of the server's command line that says where it listens.
const HIDDEN: &str = "hidden";

/// Upstream addresses as the clients of one listener see them.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    map: &'a HostMap,
    listener: &'a Address,
    /// The member that answers, where the listener follows whichever takes writes.
    answering: Option<&'a Address>,
    /// The client's own address.
    peer: Option<&'a str>,
}

/// Which parts of a reply name members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Error texts only.
    Errors,
    /// All of it: the server speaks of itself.
    Status,
    /// `serverInfo` of a query plan.
    Plan,
    /// `host` in each document of the batch, and in statistics that were joined to them.
    Batch,
    /// `host` in statistics that were joined to the documents of the batch, or united with them.
    Joined,
}

/// What an aggregation says that its reply will hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The plan in place of the documents.
    Plan,
    /// The server's statistics: documents of a stage that names the server.
    Statistics,
    /// Such documents, brought in from an inner pipeline.
    JoinedStatistics,
    /// Documents of collections.
    Documents,
}

/// Whether an aggregation's stage makes documents that name the server.
pub fn names_server(stage: &[u8]) -> bool {
    matches!(
        stage,
        b"$indexStats" | b"$collStats" | b"$planCacheStats" | b"$currentOp"
    )
}

/// What the reply of a command has to be searched for.
pub fn scope(command: &str, asked: Asked) -> Scope {
    match (command, asked) {
        ("aggregate", Asked::Statistics) => Scope::Batch,
        ("aggregate", Asked::JoinedStatistics) => Scope::Joined,
        ("explain", _) | ("aggregate", Asked::Plan) => Scope::Plan,
        (
            "replSetGetStatus" | "replSetGetConfig" | "serverStatus" | "hostInfo" | "getCmdLineOpts"
            | "connPoolStats" | "getLog" | "getDiagnosticData" | "getParameter" | "listShards"
            | "getShardMap" | "whatsmyuri",
            _,
        ) => Scope::Status,
        _ => Scope::Errors,
    }
}

impl<'a> Names<'a> {
    /// `me` is the member that the connection leads to, as its own hello said; `peer` the client's own address.
    pub fn new(
        map: &'a HostMap,
        listener: &'a Address,
        me: Option<&'a Address>,
        peer: Option<&'a str>,
    ) -> Self {
        Self {
            map,
            listener,
            answering: me.filter(|_| map.follows_writes(listener)),
            peer,
        }
    }

    /// The listener that stands for this member; `None` where none does. One configured for the member comes first, so
    /// that all listeners tell the same story.
    pub fn shown(&self, member: &Address) -> Option<&'a Address> {
        let answering = || (self.answering == Some(member)).then_some(self.listener);
        self.map.advertised(member).or_else(answering)
    }

    /// The reply with every member's address replaced; `None` where there is none, so that its bytes can go on.
    ///
    /// # Errors
    /// [`Malformed`] where the reply is not BSON, or nests deeper than the server's own limit.
    pub fn rewrite(&self, reply: Doc<'_>, scope: Scope) -> Result<Option<Vec<u8>>, Malformed> {
        let out = self.document(reply, scope, b"", 0)?;
        Ok((out != reply.bytes()).then_some(out))
    }

    /// A text with the addresses of known members replaced; `None` where there is none.
    pub fn text(&self, text: &str) -> Option<String> {
        if !text.contains(':') {
            return None;
        }
        let lower = text.to_ascii_lowercase();
        let (mut out, mut from) = (String::new(), 0);
        while let Some((at, member)) = self.first_member(&lower, from) {
            out.push_str(text.get(from..at)?);
            out.push_str(&self.instead_of(member));
            from = at + member.as_str().len();
        }
        (from > 0).then(|| {
            out.push_str(text.get(from..).unwrap_or_default());
            out
        })
    }

    /// The leftmost address of a member in the text, from an offset on.
    fn first_member(&self, lower: &str, from: usize) -> Option<(usize, &'a Address)> {
        let found = self.map.known().chain(self.answering).filter_map(|member| {
            let places = lower.get(from..)?.match_indices(member.as_str());
            let at = places.map(|(at, _)| from + at).find(|at| {
                let before = lower.as_bytes().get(at.wrapping_sub(1));
                let after = lower.as_bytes().get(at + member.as_str().len());
                !before.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
                    && !after.is_some_and(u8::is_ascii_digit)
            })?;
            Some((at, member))
        });
        found.min_by_key(|(at, _)| *at)
    }

    fn instead_of(&self, member: &Address) -> String {
        match self.shown(member) {
            Some(listener) => listener.as_str().to_owned(),
            None => hidden(member),
        }
    }

    /// A value that is known to be a list of addresses: `host:port`, or `set/host:port,host:port`.
    fn addresses(&self, text: &str) -> String {
        let (set, list) = text.split_once('/').map_or(("", text), |(set, list)| (set, list));
        let shown = list.split(',').map(|one| match Address::parse(one) {
            Some(address) if address != *self.listener || self.map.known().any(|m| *m == address) => {
                self.instead_of(&address)
            }
            _ => one.to_owned(),
        });
        let shown = shown.collect::<Vec<_>>().join(",");
        if set.is_empty() {
            shown
        } else {
            format!("{set}/{shown}")
        }
    }

    /// `within` is the key that the document (or the array around it) stands under.
    fn document(
        &self,
        doc: Doc<'_>,
        scope: Scope,
        within: &[u8],
        depth: usize,
    ) -> Result<Vec<u8>, Malformed> {
        if depth > limits::MAX_DEPTH {
            return Err(Malformed { at: doc.start() });
        }
        let mut out = Copier::new(doc);
        let mut option = false;
        let of_server = match scope {
            Scope::Batch => depth == BATCH_DOCUMENT || depth > BATCH_DOCUMENT && is_statistics(&doc)?,
            Scope::Joined => depth >= BATCH_DOCUMENT && is_statistics(&doc)?,
            Scope::Errors | Scope::Status | Scope::Plan => false,
        };
        for element in doc.elements() {
            let element = element?;
            let key = self.key(&element, scope);
            let key = key.as_deref().unwrap_or(element.key);
            match element.document()? {
                Some(inner) if enters(scope, element.key, within, depth) => {
                    let is_item = element.key.iter().all(u8::is_ascii_digit);
                    let under = if is_item { within } else { element.key };
                    let inner = self.document(inner, scope, under, depth + 1)?;
                    out.put_as(element.kind, key, &inner);
                }
                _ if of_server && element.key == b"host" && element.text().is_some() => {
                    out.put_as(kind::STRING, key, &string_value(self.listener.as_str()));
                }
                _ => match self.value(&element, scope, within, depth, &mut option) {
                    Some(Value::Text(text)) => out.put_as(kind::STRING, key, &string_value(&text)),
                    Some(Value::Port(port)) => {
                        out.put_as(kind::INT32, key, &i32::from(port).to_le_bytes());
                    }
                    None => out.put_as(element.kind, key, element.value()),
                },
            }
        }
        Ok(out.finish())
    }

    /// Pools and maps have addresses for keys.
    fn key(&self, element: &Element<'_>, scope: Scope) -> Option<Vec<u8>> {
        if scope != Scope::Status || !element.key.contains(&b':') {
            return None;
        }
        let key = std::str::from_utf8(element.key).ok()?;
        let is_set = key.contains('/');
        (is_set || Address::parse(key).is_some()).then(|| self.addresses(key).into_bytes())
    }

    /// What stands in an element's place; `None` for itself. `option` says that the item before was an option of the
    /// command line whose value must not show.
    fn value(
        &self,
        element: &Element<'_>,
        scope: Scope,
        within: &[u8],
        depth: usize,
        option: &mut bool,
    ) -> Option<Value> {
        let is_port = element.key == b"port" && matches!(within, b"net" | b"serverInfo");
        if is_port && matches!(scope, Scope::Status | Scope::Plan) {
            return Some(Value::Port(self.listener.port()));
        }
        let text = element.text()?;
        let replaced = match scope {
            Scope::Errors => self.text(text).filter(|_| element.key == b"errmsg"),
            // Documents of the application stand in it, too.
            Scope::Batch | Scope::Joined if depth >= BATCH_DOCUMENT => None,
            Scope::Batch | Scope::Joined => self.text(text).filter(|_| element.key == b"errmsg"),
            Scope::Plan => match (within, element.key) {
                (b"serverInfo", b"host") => Some(self.listener.host().to_owned()),
                (_, b"connectionString") => Some(self.addresses(text)),
                (_, b"errmsg") => self.text(text),
                _ => None,
            },
            Scope::Status => match (within, element.key) {
                (b"" | b"system", b"host") if depth < 2 => Some(self.listener.as_str().to_owned()),
                // The server sees the proxy; the client asks for itself.
                (b"", b"you") => self.peer.map(str::to_owned),
                (_, b"hostname" | b"saslHostName") => Some(self.listener.host().to_owned()),
                (b"net", b"bindIp") | (_, b"SSLServerSubjectName") => Some(HIDDEN.to_owned()),
                (b"argv", _) => argument(text, option).or_else(|| self.text(text)),
                (b"members", b"name")
                | (b"hosts" | b"passives" | b"arbiters" | b"map" | b"connStrings", _)
                | (
                    _,
                    b"host" | b"me" | b"primary" | b"addr" | b"syncSourceHost" | b"syncingTo" | b"source",
                ) => Some(self.addresses(text)),
                _ => self.text(text),
            },
        };
        replaced.filter(|new| new != text).map(Value::Text)
    }
}

/// How deep the documents of a batch stand: reply, cursor, batch, document.
const BATCH_DOCUMENT: usize = 3;

/// Whether a document looks like one that a stage made which names the server.
fn is_statistics(doc: &Doc<'_>) -> Result<bool, Malformed> {
    let (mut ns, mut time, mut other) = (false, false, false);
    for element in doc.elements() {
        match element?.key {
            b"ns" => ns = true,
            b"localTime" => time = true,
            b"accesses" | b"planCacheKey" => other = true,
            _ => {}
        }
    }
    Ok(ns && time || other)
}

enum Value {
    Text(String),
    Port(u16),
}

/// Whether an embedded document can hold names in this scope.
fn enters(scope: Scope, key: &[u8], within: &[u8], depth: usize) -> bool {
    let of = |names: &[&[u8]]| names.contains(&key) || names.contains(&within);
    match scope {
        Scope::Status | Scope::Plan => true,
        Scope::Errors => of(&[b"writeErrors", b"writeConcernError"]),
        Scope::Batch | Scope::Joined => {
            depth >= 2 || of(&[b"cursor", b"firstBatch", b"nextBatch", b"writeConcernError"])
        }
    }
}

/// An item of the server's command line: the value of `--port` and its like does not show.
fn argument(text: &str, option: &mut bool) -> Option<String> {
    const WHERE: [&str; 4] = ["--port", "--bind_ip", "--host", "--ipv6"];
    if std::mem::take(option) {
        return Some(HIDDEN.to_owned());
    }
    let (name, value) = text
        .split_once('=')
        .map_or((text, None), |(name, value)| (name, Some(value)));
    if !WHERE.contains(&name) {
        return None;
    }
    *option = value.is_none() && name != "--ipv6";
    value.map(|_| format!("{name}={HIDDEN}"))
}

/// A name for a member that has no listener: the same for the same member, and no place to connect to.
fn hidden(member: &Address) -> String {
    // FNV-1a: this is a label, not a secret.
    let hash = member.as_str().bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("hidden-{hash:08x}.invalid:27017")
}

#[cfg(test)]
mod tests;
