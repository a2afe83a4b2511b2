//! Structure back to bytes: whole `OP_MSG` frames from their sections, and one span of a frame replaced. Owns no
//! decision about what is sent.

use std::ops::Range;

use super::checksum;
use super::error::FrameError;
use super::header::{HEADER, Header, Opcode};
use super::op_msg::{Flags, OpMsg, Section};

/// Writes one `OP_MSG`, section by section in the order of the calls.
pub struct MsgWriter {
    frame: Vec<u8>,
}

impl MsgWriter {
    /// Starts a message with header and flags. With [`Flags::CHECKSUM_PRESENT`] the checksum is written by
    /// [`MsgWriter::finish`].
    pub fn new(request_id: i32, response_to: i32, flags: Flags) -> Self {
        let header = Header {
            length: 0,
            request_id,
            response_to,
            opcode: Opcode::Msg,
        };
        let mut frame = header.to_bytes().to_vec();
        frame.extend_from_slice(&flags.bits().to_le_bytes());
        Self { frame }
    }

    /// Appends a kind-0 section: one BSON document, taken as it is.
    #[must_use]
    pub fn body(mut self, doc: &[u8]) -> Self {
        self.frame.push(0);
        self.frame.extend_from_slice(doc);
        self
    }

    /// Appends a kind-1 section: BSON documents back to back, taken as they are. A NUL inside `identifier` would end it
    /// early, so it is cut there.
    #[must_use]
    pub fn sequence(mut self, identifier: &str, docs: &[u8]) -> Self {
        let identifier = identifier.split('\0').next().unwrap_or_default();
        let size = [4, identifier.len(), 1, docs.len()]
            .into_iter()
            .fold(0, usize::saturating_add);
        // A size past int32 belongs to a message past the limit, which `finish` refuses.
        let size = i32::try_from(size).unwrap_or(i32::MAX);
        self.frame.push(1);
        self.frame.extend_from_slice(&size.to_le_bytes());
        self.frame.extend_from_slice(identifier.as_bytes());
        self.frame.push(0);
        self.frame.extend_from_slice(docs);
        self
    }

    /// Sets length and checksum and returns the frame.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] above [`crate::limits::MAX_MESSAGE`].
    pub fn finish(mut self) -> Result<Vec<u8>, FrameError> {
        let flags = self.frame.get(HEADER..).and_then(<[u8]>::first_chunk);
        if flags.is_some_and(|bits| Flags::from_bits(u32::from_le_bytes(*bits)).checksum_present()) {
            self.frame.extend_from_slice(&[0; checksum::CHECKSUM]);
        }
        checksum::repair(&mut self.frame)?;
        Ok(self.frame)
    }
}

/// A reply frame around one BSON document.
///
/// # Errors
/// [`FrameError::TooLong`]; not for a document within [`crate::limits::MAX_BSON`].
pub fn reply(request_id: i32, response_to: i32, doc: &[u8], checksum: bool) -> Result<Vec<u8>, FrameError> {
    let flags = if checksum {
        Flags::CHECKSUM_PRESENT
    } else {
        Flags::default()
    };
    MsgWriter::new(request_id, response_to, flags).body(doc).finish()
}

/// A command frame around one BSON document: for hello of our own, and for tests.
///
/// # Errors
/// As [`reply`].
pub fn command(request_id: i32, doc: &[u8]) -> Result<Vec<u8>, FrameError> {
    reply(request_id, 0, doc, false)
}

/// The frame that a parsed message came from, built anew from its parts.
///
/// # Errors
/// [`FrameError::TooLong`]; not for a message that came from [`OpMsg::parse`].
pub fn rebuild(message: &OpMsg<'_>) -> Result<Vec<u8>, FrameError> {
    let header = message.header();
    let mut writer = MsgWriter::new(header.request_id, header.response_to, message.flags());
    let bytes = |range: Range<usize>| message.frame().get(range).ok_or(FrameError::Truncated);
    for section in message.sections() {
        writer = match section {
            Section::Body { doc_at, end } => writer.body(bytes(doc_at..end)?),
            Section::Sequence {
                identifier,
                docs_at,
                end,
                ..
            } => writer.sequence(identifier, bytes(docs_at..end)?),
        };
    }
    writer.finish()
}

/// The frame with one span replaced, its length and checksum set. The span must not lie in a sequence: a section's own
/// size is not repaired.
///
/// # Errors
/// [`FrameError::Truncated`] where the span is not inside the frame, [`FrameError::TooLong`] above
/// [`crate::limits::MAX_MESSAGE`].
pub(super) fn replace(frame: &[u8], span: Range<usize>, with: &[u8]) -> Result<Vec<u8>, FrameError> {
    let before = frame.get(..span.start).ok_or(FrameError::Truncated)?;
    let after = frame.get(span.end..).ok_or(FrameError::Truncated)?;
    let mut out = [before, with, after].concat();
    checksum::repair(&mut out)?;
    Ok(out)
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests {
    use super::*;
    use crate::limits;

    const EMPTY: [u8; 5] = [5, 0, 0, 0, 0];

    #[test]
    fn writes_the_bytes_of_the_specification() {
        let want = b"\x1a\0\0\0\x03\0\0\0\x09\0\0\0\xdd\x07\0\0\0\0\0\0\0\x05\0\0\0\0";
        assert_eq!(reply(3, 9, &EMPTY, false).unwrap(), want);
        assert_eq!(command(3, &EMPTY).unwrap()[8..12], [0; 4]);
        let checked = reply(3, 9, &EMPTY, true).unwrap();
        assert_eq!((checked[0], checked[16], checked.len()), (30, 1, 30));
        assert!(OpMsg::parse(&checked).is_ok());
    }

    #[test]
    fn cuts_an_identifier_at_its_nul() {
        let frame = command(1, &EMPTY).unwrap();
        let flags = Flags::default();
        let want = MsgWriter::new(1, 0, flags).sequence("docs", &EMPTY).finish();
        assert_eq!(
            MsgWriter::new(1, 0, flags).sequence("docs\0x", &EMPTY).finish(),
            want
        );
        assert_eq!(MsgWriter::new(1, 0, flags).body(&EMPTY).finish(), Ok(frame));
    }

    #[test]
    fn rejects_a_message_past_the_limit() {
        let limit = limits::MAX_MESSAGE;
        let most = vec![0; limit - 21];
        assert_eq!(reply(1, 2, &most, false).map(|frame| frame.len()), Ok(limit));
        assert_eq!(reply(1, 2, &most, true), Err(FrameError::TooLong { limit }));
    }

    #[test]
    fn rejects_a_span_outside_the_frame() {
        let frame = command(1, &EMPTY).unwrap();
        assert_eq!(replace(&frame, 21..27, &EMPTY), Err(FrameError::Truncated));
        assert_eq!(replace(&frame, 27..28, &EMPTY), Err(FrameError::Truncated));
        assert_eq!(replace(&frame, 21..26, &EMPTY), Ok(frame));
    }
}
