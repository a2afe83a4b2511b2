//! OP_MSG frames: built once with the `bson` crate, then patched in place, so that the load generator costs next to
//! nothing. Does not own checksums or `moreToCome`: the benchmark uses none. Compression is the connection's.

use bson::raw::RawDocumentBuf;
use bson::{RawArray, RawDocument};

use crate::Outcome;

/// Bytes before the sections: message header and flag bits.
const HEADER: usize = 16;
const OP_MSG: i32 = 2013;

/// A request, ready to be sent again and again.
#[derive(Clone)]
pub(crate) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A command in one kind-0 section.
    pub(crate) fn command(body: &RawDocumentBuf) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes.extend_from_slice(&0u32.to_le_bytes());
        bytes.push(0);
        bytes.extend_from_slice(body.as_bytes());
        let mut request = Self { bytes };
        request.seal_header();
        request
    }

    /// Adds a kind-1 section with `documents`; the answer is where each of them starts.
    pub(crate) fn with_sequence(
        mut self,
        identifier: &str,
        documents: &[&[u8]],
    ) -> Outcome<(Self, Vec<usize>)> {
        self.bytes.push(1);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(identifier.as_bytes());
        self.bytes.push(0);
        let mut offsets = Vec::with_capacity(documents.len());
        for document in documents {
            offsets.push(self.bytes.len());
            self.bytes.extend_from_slice(document);
        }
        let length = u32::try_from(self.bytes.len() - start)?;
        self.bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.seal_header();
        Ok((self, offsets))
    }

    /// The only place where `marker` occurs; anything but exactly one occurrence is a mistake in the template.
    pub(crate) fn position_of(&self, marker: &[u8]) -> Outcome<usize> {
        let mut found = memchr::memmem::find_iter(&self.bytes, marker);
        match (found.next(), found.next()) {
            (Some(position), None) => Ok(position),
            _ => Err("a template does not hold its marker exactly once".into()),
        }
    }

    pub(crate) fn patch(&mut self, position: usize, value: &[u8]) {
        self.bytes[position..position + value.len()].copy_from_slice(value);
    }

    pub(crate) fn set_id(&mut self, id: i32) {
        self.patch(4, &id.to_le_bytes());
    }

    pub(crate) fn as_mut_bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn seal_header(&mut self) {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.patch(0, &length.to_le_bytes());
        self.patch(12, &OP_MSG.to_le_bytes());
    }
}

/// A whole reply; `ok` is not yet looked at.
pub(crate) struct Reply<'a> {
    pub(crate) body: &'a RawDocument,
}

impl<'a> Reply<'a> {
    /// The single kind-0 section of a reply to request `id`.
    pub(crate) fn parse(frame: &'a [u8], id: i32) -> Outcome<Self> {
        if frame.len() < HEADER + 5 + 5 {
            return Err("a reply is too short".into());
        }
        let word = |at: usize| i32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        if word(8) != id {
            return Err("a reply answers another request".into());
        }
        if word(12) != OP_MSG || word(16) != 0 || frame[HEADER + 4] != 0 {
            return Err("a reply is not a plain OP_MSG with one body".into());
        }
        Ok(Self {
            body: RawDocument::from_bytes(&frame[HEADER + 5..])?,
        })
    }

    /// `ok: 1`, and no write that failed inside a command that did not.
    pub(crate) fn succeeded(&self) -> Outcome<()> {
        let ok = self.body.get_f64("ok").unwrap_or_default();
        if ok == 1.0
            && self.body.get("writeErrors")?.is_none()
            && self.body.get("writeConcernError")?.is_none()
        {
            return Ok(());
        }
        // The documents here are made up, so the message may be shown whole.
        Err(format!("the server refused: {:?}", bson::Document::try_from(self.body)).into())
    }

    /// The first (and only) batch of a cursor that is already exhausted.
    pub(crate) fn batch(&self) -> Outcome<&'a RawArray> {
        let cursor = self.body.get_document("cursor")?;
        if cursor.get_i64("id")? != 0 {
            return Err("a cursor was left open".into());
        }
        Ok(cursor.get_array("firstBatch")?)
    }
}

/// Length of the frame whose first bytes these are, once they are there.
pub(crate) fn frame_length(start: &[u8]) -> Outcome<Option<usize>> {
    let Some(word) = start.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(i32::from_le_bytes(*word))?;
    if (HEADER..=48_000_000).contains(&length) {
        Ok(Some(length))
    } else {
        Err("a frame has a mad length".into())
    }
}
