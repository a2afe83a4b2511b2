//! The 16 bytes in front of every message. Owns the opcode list and the sanity of the length; not what follows.

use super::error::FrameError;
use super::reader::Reader;
use crate::limits;

/// Length of a message header.
pub const HEADER: usize = 16;

/// Who the bytes after the header are for. Closed: what is not listed is [`Opcode::Unknown`] and never served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the specification's own")]
pub enum Opcode {
    Reply,
    Update,
    Insert,
    Query,
    GetMore,
    Delete,
    KillCursors,
    Compressed,
    Msg,
    Unknown(i32),
}

impl From<i32> for Opcode {
    fn from(code: i32) -> Self {
        match code {
            1 => Self::Reply,
            2001 => Self::Update,
            2002 => Self::Insert,
            2004 => Self::Query,
            2005 => Self::GetMore,
            2006 => Self::Delete,
            2007 => Self::KillCursors,
            2012 => Self::Compressed,
            2013 => Self::Msg,
            other => Self::Unknown(other),
        }
    }
}

impl From<Opcode> for i32 {
    fn from(opcode: Opcode) -> Self {
        match opcode {
            Opcode::Reply => 1,
            Opcode::Update => 2001,
            Opcode::Insert => 2002,
            Opcode::Query => 2004,
            Opcode::GetMore => 2005,
            Opcode::Delete => 2006,
            Opcode::KillCursors => 2007,
            Opcode::Compressed => 2012,
            Opcode::Msg => 2013,
            Opcode::Unknown(code) => code,
        }
    }
}

/// A message header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the whole message, these 16 included.
    pub length: usize,
    /// The sender's own number for this message.
    pub request_id: i32,
    /// The `request_id` this answers; 0 in a request.
    pub response_to: i32,
    /// How to read the rest.
    pub opcode: Opcode,
}

impl Header {
    /// Reads the header at the front of `buf`; the rest of the message need not be there yet. `max` bounds the length
    /// further than [`limits::MAX_MESSAGE`] does (before authentication, for example).
    ///
    /// # Errors
    /// [`FrameError::Truncated`] below 16 bytes, [`FrameError::TooShort`] or [`FrameError::TooLong`] for the length.
    pub fn peek(buf: &[u8], max: usize) -> Result<Self, FrameError> {
        let mut reader = Reader::new(buf);
        let length = bounded_length(reader.i32()?, max)?;
        Ok(Self {
            length,
            request_id: reader.i32()?,
            response_to: reader.i32()?,
            opcode: reader.i32()?.into(),
        })
    }

    /// Reads the header of a whole frame and leaves a cursor behind it.
    ///
    /// # Errors
    /// Those of [`Header::peek`]; [`FrameError::LengthMismatch`] where the length is not the frame's;
    /// [`FrameError::Opcode`] where the frame is of another opcode than asked for.
    pub fn open(frame: &[u8], opcode: Opcode) -> Result<(Self, Reader<'_>), FrameError> {
        let header = Self::peek(frame, limits::MAX_MESSAGE)?;
        if header.length != frame.len() {
            return Err(FrameError::LengthMismatch);
        }
        if header.opcode != opcode {
            return Err(FrameError::Opcode);
        }
        Ok((header, Reader::over(frame, HEADER..frame.len())?))
    }

    /// The header's 16 bytes.
    pub fn to_bytes(self) -> [u8; HEADER] {
        // Lengths are bounded by `limits::MAX_MESSAGE`; one that is not becomes a length that every peer refuses.
        let length = i32::try_from(self.length).unwrap_or(i32::MAX);
        let mut out = [0; HEADER];
        let fields = [length, self.request_id, self.response_to, self.opcode.into()];
        for (slot, field) in out.chunks_exact_mut(4).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        out
    }
}

/// Checks a length from the wire before anything is done with it.
pub(super) fn bounded_length(length: i32, max: usize) -> Result<usize, FrameError> {
    let limit = max.min(limits::MAX_MESSAGE);
    let length = usize::try_from(length).map_err(|_| FrameError::TooShort)?;
    if length < HEADER {
        Err(FrameError::TooShort)
    } else if length > limit {
        Err(FrameError::TooLong { limit })
    } else {
        Ok(length)
    }
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests {
    use super::*;

    #[test]
    fn keeps_every_opcode_both_ways() {
        for code in [
            1,
            2001,
            2002,
            2004,
            2005,
            2006,
            2007,
            2012,
            2013,
            0,
            -1,
            2011,
            2014,
            i32::MIN,
        ] {
            assert_eq!(i32::from(Opcode::from(code)), code);
        }
        assert_eq!(Opcode::from(2010), Opcode::Unknown(2010));
    }

    #[test]
    fn keeps_header_bytes() {
        let header = Header {
            length: 21,
            request_id: -7,
            response_to: i32::MAX,
            opcode: Opcode::Unknown(9),
        };
        assert_eq!(Header::peek(&header.to_bytes(), usize::MAX), Ok(header));
    }

    #[test]
    fn rejects_impossible_lengths() {
        for length in [i32::MIN, -1, 0, 15] {
            assert_eq!(bounded_length(length, usize::MAX), Err(FrameError::TooShort));
        }
        assert_eq!(bounded_length(16, usize::MAX), Ok(16));
        assert_eq!(bounded_length(48_000_000, usize::MAX), Ok(48_000_000));
        let limit = limits::MAX_MESSAGE;
        assert_eq!(
            bounded_length(48_000_001, usize::MAX),
            Err(FrameError::TooLong { limit })
        );
        assert_eq!(bounded_length(101, 100), Err(FrameError::TooLong { limit: 100 }));
    }

    #[test]
    fn rejects_a_frame_of_another_length_or_opcode() {
        let header = Header {
            length: 16,
            request_id: 1,
            response_to: 0,
            opcode: Opcode::Msg,
        };
        let mut frame = header.to_bytes().to_vec();
        assert_eq!(
            Header::open(&frame, Opcode::Query).err(),
            Some(FrameError::Opcode)
        );
        assert!(Header::open(&frame, Opcode::Msg).is_ok());
        frame.push(0);
        assert_eq!(
            Header::open(&frame, Opcode::Msg).err(),
            Some(FrameError::LengthMismatch)
        );
    }
}
