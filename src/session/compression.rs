//! What is compressed on a connection, each side on its own: the client's hello is answered for us, and what we offer
//! the server stands in its place. A reply goes by the compressor that its request came by.

use super::{Closing, Session, Step};
use crate::bson::Doc;
use crate::limits;
use crate::wire::header::{Header, Opcode};
use crate::wire::op_compressed::OpCompressed;
use crate::wire::op_msg::OpMsg;
use crate::wire::{Compressor, Compressors, compress};

/// What the specification of `OP_COMPRESSED` keeps out of it: what comes before an agreement, and what holds secrets.
const NEVER: &[&str] = &[
    "hello",
    "isMaster",
    "saslStart",
    "saslContinue",
    "getnonce",
    "authenticate",
    "createUser",
    "updateUser",
    "copydbSaslStart",
    "copydbgetnonce",
    "copydb",
];

/// Whether this command must not be compressed.
pub(super) fn is_never_compressed(name: &[u8]) -> bool {
    NEVER
        .iter()
        .any(|never| name.eq_ignore_ascii_case(never.as_bytes()))
}

/// What may be compressed on a connection, and what was agreed on.
#[derive(Clone, Copy, Debug)]
pub struct Compression {
    /// What the client may use.
    allowed: Compressors,
    /// What it offered of that, in its order.
    agreed: Compressors,
    /// What is offered to the server.
    offered: Compressors,
    /// The server's choice of that.
    upstream: Option<Compressor>,
    zlib_level: u8,
}

impl Default for Compression {
    fn default() -> Self {
        Self::new(
            Compressors::default(),
            Compressors::default(),
            compress::ZLIB_LEVEL,
        )
    }
}

impl Compression {
    /// `allowed` is what the client may use, `offered` what the server is asked for; `zlib_level` (0 to 9) is for what
    /// goes to the server.
    pub fn new(allowed: Compressors, offered: Compressors, zlib_level: u8) -> Self {
        Self {
            allowed,
            agreed: Compressors::default(),
            offered,
            upstream: None,
            zlib_level,
        }
    }

    /// The client's hello offers these names. One without an offer changes nothing, as with the server.
    pub(super) fn agree(&mut self, offered: Option<&[&str]>) {
        if let Some(names) = offered {
            let known: Compressors = names
                .iter()
                .filter_map(|name| Compressor::from_name(name))
                .collect();
            self.agreed = known.and(self.allowed);
        }
    }

    /// What the client and we have agreed on.
    pub(super) fn agreed(&self) -> Compressors {
        self.agreed
    }

    /// What a hello to the server offers, by name.
    pub(super) fn offer(&self) -> Vec<&'static str> {
        self.offered.iter().map(Compressor::name).collect()
    }

    /// Reads the server's answer to the offer: the first on its list is used.
    pub(super) fn agreed_upstream(&mut self, hello: &Doc<'_>) {
        let ok = hello.get(b"ok").ok().flatten().is_some_and(|ok| ok.truthy());
        if self.offered.is_empty() || !ok {
            return;
        }
        let list = hello.get(b"compression").ok().flatten();
        let list = list.and_then(|list| list.document().ok().flatten());
        self.upstream = list.and_then(|list| {
            list.elements()
                .filter_map(|item| Compressor::from_name(item.ok()?.text()?))
                .find(|chosen| self.offered.contains(*chosen))
        });
    }
}

/// A message that was compressed, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// On which side.
    pub side: Side,
    /// Which way it went.
    pub way: Way,
    /// How.
    pub compressor: Compressor,
    /// Its length inflated, in bytes.
    pub plain: usize,
}

/// One of the two sides of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The application.
    Client,
    /// MongoDB.
    Server,
}

/// Which way a message went, seen from the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Read.
    In,
    /// Written.
    Out,
}

impl Session {
    /// Runs `handle` over the client's frame, inflated if it is compressed; what it puts in line will be answered by
    /// the same compressor.
    pub(super) fn with_request<T>(
        &mut self,
        frame: &[u8],
        login: bool,
        handle: impl FnOnce(&mut Self, &[u8]) -> Result<T, Closing>,
    ) -> Result<T, Closing> {
        if !is_compressed(frame) {
            self.pending.arriving = None;
            return handle(self, frame);
        }
        // Nothing is agreed on before a hello was read: until then no byte is inflated.
        let max = self.largest_request(login);
        let message = OpCompressed::parse(frame, max).map_err(|_| Closing("malformed compressed frame"))?;
        if !self.compression.agreed.contains(message.compressor) {
            return Err(Closing("compression was not negotiated"));
        }
        let plain = compress::inflate(&message).map_err(|_| Closing("malformed compressed frame"))?;
        self.count(Side::Client, Way::In, message.compressor, plain.len());
        self.pending.arriving = Some(message.compressor);
        let result = handle(self, &plain);
        self.pending.arriving = None;
        compress::recycle(plain);
        result
    }

    /// Compresses the request that stands at the end of `to_server`, if there is one and the server agreed.
    pub(super) fn pack_request(&mut self, to_server: &mut Vec<u8>, base: usize) {
        let Some(compressor) = self.compression.upstream else {
            return;
        };
        let Some(frame) = to_server.get(base..).filter(|frame| !frame.is_empty()) else {
            return;
        };
        // A reply is compressed only where its request was: so are requests that do not shrink by it.
        if may_be_compressed(frame)
            && let Some((plain, _)) =
                compress::pack(to_server, base, compressor, self.compression.zlib_level, false)
        {
            self.count(Side::Server, Way::Out, compressor, plain);
        }
    }

    /// Runs `handle` over the reply inside a compressed one. Where what it appends to `to_client` is that reply, byte for
    /// byte, and the client asked by the same compressor, the bytes that the server sent take its place.
    pub(super) fn with_compressed_reply(
        &mut self,
        frame: &[u8],
        to_client: &mut Vec<u8>,
        handle: impl FnOnce(&mut Self, &[u8], &mut Vec<u8>) -> Result<Step, Closing>,
    ) -> Result<Step, Closing> {
        let message =
            OpCompressed::parse(frame, limits::MAX_MESSAGE).map_err(|_| Closing("malformed reply"))?;
        let compressor = message.compressor;
        if !self.compression.offered.contains(compressor) {
            return Err(Closing("compression was not negotiated"));
        }
        let plain = compress::inflate(&message).map_err(|_| Closing("malformed reply"))?;
        self.count(Side::Server, Way::In, compressor, plain.len());
        let base = to_client.len();
        let asked = self.pending.front().and_then(|front| front.compressor);
        let step = handle(self, &plain, to_client);
        if asked == Some(compressor) && to_client.get(base..) == Some(&plain) {
            to_client.truncate(base);
            to_client.extend_from_slice(frame);
            self.count(Side::Client, Way::Out, compressor, plain.len());
        }
        compress::recycle(plain);
        step
    }

    /// Compresses the reply that stands at the end of `to_client` as its request was, if it shrinks by it.
    pub(super) fn pack_reply(
        &mut self,
        compressor: Option<Compressor>,
        to_client: &mut Vec<u8>,
        base: usize,
    ) {
        if let Some(compressor) = compressor
            && to_client.get(base..).is_some_and(is_plain)
            && let Some((plain, _)) = compress::pack(to_client, base, compressor, compress::ZLIB_LEVEL, true)
        {
            self.count(Side::Client, Way::Out, compressor, plain);
        }
    }

    /// An answer of our own to the request at hand, compressed as that came.
    pub(super) fn packed_answer(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        self.pack_reply(self.pending.arriving, &mut bytes, 0);
        bytes
    }

    fn count(&mut self, side: Side, way: Way, compressor: Compressor, plain: usize) {
        self.packed.push(Packed {
            side,
            way,
            compressor,
            plain,
        });
    }
}

fn is_compressed(frame: &[u8]) -> bool {
    opcode(frame) == Some(Opcode::Compressed)
}

/// Whether there is a frame, and one that can still be compressed.
fn is_plain(frame: &[u8]) -> bool {
    opcode(frame).is_some_and(|opcode| opcode != Opcode::Compressed)
}

fn opcode(frame: &[u8]) -> Option<Opcode> {
    let header = Header::peek(frame, limits::MAX_MESSAGE).ok()?;
    Some(header.opcode)
}

/// Whether this frame is an `OP_MSG` with a command that may be compressed.
fn may_be_compressed(frame: &[u8]) -> bool {
    let Ok(message) = OpMsg::parse(frame) else {
        return false;
    };
    Doc::at(frame, message.body().start).is_ok_and(|body| {
        body.elements()
            .next()
            .and_then(Result::ok)
            .is_some_and(|first| !is_never_compressed(first.key))
    })
}

#[cfg(test)]
mod tests;
