//! Addresses of upstream members in replies: status reports, plans and error texts. Owns what becomes of each; hello has
//! its own rules (`hello`), documents of the application are never touched.
//!
//! A member with a listener becomes that listener. One without becomes a name under `.invalid` (RFC 2606), the same one
//! each time. Source: SEMANTICS B3.5.

use super::copier::{Copier, string_value};
use super::hosts::{Address, HostMap};
use super::statistics::is_statistics;
use super::stranger::{self, Stranger};
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
    /// Error texts, and of a sharded cluster what each shard said (`raw`).
    Shards,
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
    /// Such documents as the stage makes them, beside others: they are brought in by an inner pipeline, or brings others in.
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
            | "getShardMap" | "getShardVersion" | "isdbgrid" | "shardConnPoolStats" | "whatsmyuri",
            _,
        ) => Scope::Status,
        // A router answers these itself, in the form of one server.
        (
            "aggregate" | "bulkWrite" | "count" | "delete" | "distinct" | "find" | "findAndModify"
            | "findandmodify" | "getMore" | "insert" | "update",
            _,
        ) => Scope::Errors,
        _ => Scope::Shards,
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

    /// Whether a reply without an error, of a command with this scope, can name anybody.
    pub fn concerns(&self, scope: Scope) -> bool {
        match scope {
            Scope::Errors => false,
            Scope::Shards => self.map.is_routed(),
            Scope::Status | Scope::Plan | Scope::Batch | Scope::Joined => true,
        }
    }

    /// The reply with every member's address replaced; `None` where there is none, so that its bytes can go on.
    ///
    /// # Errors
    /// [`Malformed`] where the reply is not BSON, or nests deeper than the server's own limit.
    pub fn rewrite(&self, reply: Doc<'_>, scope: Scope) -> Result<Option<Vec<u8>>, Malformed> {
        let out = self.document(reply, scope, Place::default())?;
        Ok((out != reply.bytes()).then_some(out))
    }

    /// A text with the addresses of known members replaced, and behind routers whatever looks like an address; `None`
    /// where there is none.
    pub fn text(&self, text: &str) -> Option<String> {
        if !text.contains(':') {
            return None;
        }
        let lower = text.to_ascii_lowercase();
        let mut next = self.first_addresses(&lower);
        let (mut out, mut from) = (String::new(), 0);
        while let Some((at, length, instead)) = self.leftmost(&next) {
            out.push_str(text.get(from..at)?);
            out.push_str(&instead);
            from = at + length;
            next.pass(&lower, from);
        }
        (from > 0).then(|| {
            out.push_str(text.get(from..).unwrap_or_default());
            out
        })
    }

    fn first_addresses(&self, lower: &str) -> Next<'a> {
        let (members, routed) = (self.map.known().chain(self.answering), self.map.is_routed());
        Next {
            members: members
                .filter_map(|member| Some((place_of(member, lower, 0)?, member)))
                .collect(),
            stranger: routed.then(|| stranger::first(lower, 0)).flatten(),
            routed,
        }
    }

    /// The leftmost address that must not show: where, how long, and what stands in its place.
    fn leftmost(&self, next: &Next<'a>) -> Option<(usize, usize, String)> {
        let member = next.members.iter().min_by_key(|(at, _)| *at);
        match (member, &next.stranger) {
            // At one place: a member's own listener.
            (Some((at, member)), stranger) if stranger.as_ref().is_none_or(|found| *at <= found.at) => {
                Some((*at, member.as_str().len(), self.instead_of(member)))
            }
            (_, Some(found)) => Some((found.at, found.length, self.instead_of(&found.address))),
            (_, None) => None,
        }
    }

    fn instead_of(&self, member: &Address) -> String {
        match self.shown(member) {
            Some(listener) => listener.as_str().to_owned(),
            // What is shown already.
            None if member == self.listener && !self.map.known().any(|known| known == member) => {
                member.as_str().to_owned()
            }
            None => hidden(member),
        }
    }

    /// A value that is known to be a list of addresses: `host:port`, or `set/host:port,host:port`.
    fn addresses(&self, text: &str) -> String {
        let (set, list) = text.split_once('/').map_or(("", text), |(set, list)| (set, list));
        let shown = list.split(',').map(|one| match Address::parse(one) {
            Some(address) => self.instead_of(&address),
            None => one.to_owned(),
        });
        let shown = shown.collect::<Vec<_>>().join(",");
        if set.is_empty() {
            shown
        } else {
            format!("{set}/{shown}")
        }
    }

    fn document(&self, doc: Doc<'_>, scope: Scope, place: Place<'_>) -> Result<Vec<u8>, Malformed> {
        if place.depth > limits::MAX_DEPTH {
            return Err(Malformed { at: doc.start() });
        }
        let mut out = Copier::new(doc);
        let mut option = false;
        let of_server = match scope {
            // Whatever later stages made of them.
            Scope::Batch if place.depth == BATCH_DOCUMENT => true,
            Scope::Batch | Scope::Joined => place.depth >= BATCH_DOCUMENT && is_statistics(&doc)?,
            Scope::Errors | Scope::Shards | Scope::Status | Scope::Plan => false,
        };
        for element in doc.elements() {
            let element = element?;
            let key = self.key(&element, scope, place);
            let key = key.as_deref().unwrap_or(element.key);
            match element.document()? {
                Some(inner) if enters(scope, element.key, place) => {
                    let inner = self.document(inner, scope, place.under(element.key))?;
                    out.put_as(element.kind, key, &inner);
                }
                _ if of_server && element.key == b"host" && element.text().is_some() => {
                    out.put_as(kind::STRING, key, &string_value(self.listener.as_str()));
                }
                _ => match self.value(&element, scope, place, &mut option) {
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

    /// Pools and maps have addresses for keys, and so has what each shard said.
    fn key(&self, element: &Element<'_>, scope: Scope, place: Place<'_>) -> Option<Vec<u8>> {
        let of_a_shard = scope == Scope::Shards && place.depth == 1 && place.within == b"raw";
        if !(scope == Scope::Status || of_a_shard) || !element.key.contains(&b':') {
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
        place: Place<'_>,
        option: &mut bool,
    ) -> Option<Value> {
        let Place { within, outer, depth } = place;
        let is_port = element.key == b"port" && matches!(within, b"net" | b"serverInfo");
        if is_port && matches!(scope, Scope::Status | Scope::Plan) {
            return Some(Value::Port(self.listener.port()));
        }
        let text = element.text()?;
        let replaced = match scope {
            Scope::Errors | Scope::Shards => self.text(text).filter(|_| element.key == b"errmsg"),
            // Documents of the application stand in it, too.
            Scope::Batch | Scope::Joined if place.depth >= BATCH_DOCUMENT => None,
            Scope::Batch | Scope::Joined => self.text(text).filter(|_| element.key == b"errmsg"),
            Scope::Plan => match (within, element.key) {
                (b"serverInfo", b"host") => Some(self.listener.host().to_owned()),
                (_, b"connectionString") => Some(self.addresses(text)),
                // What each shard plans: `shards: { shard01: { host: … } }`.
                (_, b"host") if depth == 2 && (outer == b"shards" || within == b"shards") => {
                    Some(self.addresses(text))
                }
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
                    b"host"
                    | b"me"
                    | b"primary"
                    | b"addr"
                    | b"syncSourceHost"
                    | b"syncingTo"
                    | b"source"
                    | b"configsvrConnectionString"
                    | b"configServer",
                ) => Some(self.addresses(text)),
                _ => self.text(text),
            },
        };
        replaced.filter(|new| new != text).map(Value::Text)
    }
}

/// How deep the documents of a batch stand: reply, cursor, batch, document.
const BATCH_DOCUMENT: usize = 3;

/// Where each address stands next in a text. Kept, so that a text full of addresses is searched once for each member, and
/// not once for each address that was found.
struct Next<'a> {
    members: Vec<(usize, &'a Address)>,
    stranger: Option<Stranger>,
    /// Whether there can be strangers.
    routed: bool,
}

impl Next<'_> {
    /// Goes on behind an offset.
    fn pass(&mut self, lower: &str, from: usize) {
        self.members.retain_mut(|(at, member)| {
            if *at < from {
                let Some(place) = place_of(member, lower, from) else {
                    return false;
                };
                *at = place;
            }
            true
        });
        if self.routed {
            self.stranger = stranger::after(lower, from, self.stranger.take());
        }
    }
}

/// Where a member's address stands in the text, from an offset on.
fn place_of(member: &Address, lower: &str, from: usize) -> Option<usize> {
    let places = lower.get(from..)?.match_indices(member.as_str());
    places.map(|(at, _)| from + at).find(|at| {
        let before = lower.as_bytes().get(at.wrapping_sub(1));
        let after = lower.as_bytes().get(at + member.as_str().len());
        !before.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            && !after.is_some_and(u8::is_ascii_digit)
    })
}

enum Value {
    Text(String),
    Port(u16),
}

/// Where a document stands in the reply.
#[derive(Clone, Copy, Default)]
struct Place<'d> {
    /// The key that it, or the array around it, stands under.
    within: &'d [u8],
    /// The key that the document around it stands under.
    outer: &'d [u8],
    depth: usize,
}

impl<'d> Place<'d> {
    fn under(self, key: &'d [u8]) -> Self {
        let is_item = !key.is_empty() && key.iter().all(u8::is_ascii_digit);
        Self {
            within: if is_item { self.within } else { key },
            outer: if is_item { self.outer } else { self.within },
            depth: self.depth + 1,
        }
    }
}

/// Whether an embedded document can hold names in this scope.
fn enters(scope: Scope, key: &[u8], place: Place<'_>) -> bool {
    let of = |names: &[&[u8]]| names.contains(&key) || names.contains(&place.within);
    let has_errors = of(&[b"writeErrors", b"writeConcernError"]);
    match scope {
        Scope::Status | Scope::Plan => true,
        Scope::Errors => has_errors,
        Scope::Shards => {
            let is_raw = place.depth == 0 && key == b"raw" || place.depth == 1 && place.within == b"raw";
            is_raw || has_errors
        }
        Scope::Batch | Scope::Joined => {
            place.depth >= 2 || of(&[b"cursor", b"firstBatch", b"nextBatch", b"writeConcernError"])
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
