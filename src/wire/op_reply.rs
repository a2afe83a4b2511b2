//! `OP_REPLY`, only as the answer to a command in an `OP_QUERY`: one document. Owns no other use of the opcode.

use std::ops::Range;

use super::encode;
use super::error::FrameError;
use super::header::{Header, Opcode};

/// The server sets it in every reply.
const AWAIT_CAPABLE: i32 = 1 << 3;

/// A command reply in an `OP_REPLY` frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpReply<'a> {
    /// The whole frame.
    pub frame: &'a [u8],
    /// Its header.
    pub header: Header,
    /// Response flags as the server sent them.
    pub flags: i32,
    /// Always 0 in a command reply.
    pub cursor_id: i64,
    /// Always 0 in a command reply.
    pub starting_from: i32,
    /// Always 1 in a command reply.
    pub number_returned: i32,
    /// Where the reply document stands.
    pub document: Range<usize>,
}

impl<'a> OpReply<'a> {
    /// Reads a whole frame, header included.
    ///
    /// # Errors
    /// [`FrameError::LegacyReply`] where there is a cursor or not exactly one document; otherwise what is wrong with
    /// the bytes.
    pub fn parse(frame: &'a [u8]) -> Result<Self, FrameError> {
        let (header, reader) = Header::open(frame, Opcode::Reply)?;
        let reply = reader.all(|reader| {
            Ok::<_, FrameError>(Self {
                frame,
                header,
                flags: reader.i32()?,
                cursor_id: reader.i64()?,
                starting_from: reader.i32()?,
                number_returned: reader.i32()?,
                document: reader.document()?,
            })
        })?;
        match (reply.cursor_id, reply.starting_from, reply.number_returned) {
            (0, 0, 1) => Ok(reply),
            _ => Err(FrameError::LegacyReply),
        }
    }

    /// The same message with another document.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] where it outgrows the message limit.
    pub fn with_document(&self, doc: &[u8]) -> Result<Vec<u8>, FrameError> {
        encode::replace(self.frame, self.document.clone(), doc)
    }
}

/// An `OP_REPLY` frame with one command reply.
///
/// # Errors
/// [`FrameError::TooLong`] where it outgrows the message limit.
pub fn reply(request_id: i32, response_to: i32, doc: &[u8]) -> Result<Vec<u8>, FrameError> {
    let header = Header {
        length: 0,
        request_id,
        response_to,
        opcode: Opcode::Reply,
    };
    let fields = [
        &header.to_bytes()[..],
        &AWAIT_CAPABLE.to_le_bytes(),
        &0i64.to_le_bytes(),
        &0i32.to_le_bytes(),
        &1i32.to_le_bytes(),
        doc,
    ];
    encode::replace(&fields.concat(), 0..0, &[])
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests {
    use super::*;

    const EMPTY: [u8; 5] = [5, 0, 0, 0, 0];

    #[test]
    fn keeps_what_was_encoded() {
        let frame = reply(3, 9, &EMPTY).unwrap();
        let parsed = OpReply::parse(&frame).unwrap();
        assert_eq!((parsed.header.request_id, parsed.header.response_to), (3, 9));
        assert_eq!((parsed.flags, parsed.document.clone()), (8, 36..41));
        assert_eq!(parsed.with_document(&EMPTY).unwrap(), frame);
    }

    #[test]
    fn rejects_cursors_and_other_counts() {
        for (at, what) in [(20, "cursor"), (28, "starting from"), (33, "returned 257")] {
            let mut frame = reply(3, 9, &EMPTY).unwrap();
            frame[at] = 1;
            assert_eq!(
                OpReply::parse(&frame).map(drop),
                Err(FrameError::LegacyReply),
                "{what}"
            );
        }
    }

    #[test]
    fn rejects_truncations_and_leftovers() {
        let whole = reply(3, 9, &EMPTY).unwrap();
        for n in 16..whole.len() {
            let mut cut = whole[..n].to_vec();
            super::super::checksum::repair(&mut cut).unwrap();
            assert_eq!(
                OpReply::parse(&cut).map(drop),
                Err(FrameError::Truncated),
                "{n} bytes"
            );
        }
        let two = reply(3, 9, &[EMPTY, EMPTY].concat()).unwrap();
        assert_eq!(OpReply::parse(&two).map(drop), Err(FrameError::Leftover));
    }
}
