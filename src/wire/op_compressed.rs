//! `OP_COMPRESSED`: the envelope around another opcode. Owns the inner header and the compressor list; refuses
//! nesting. It does not inflate: hello never offers a compressor, so a compressed message is refused
//! ([`FrameError::Compressor`]) by whoever dispatches on the opcode.

use super::error::FrameError;
use super::header::{HEADER, Header, Opcode};
use crate::limits;

/// Bytes an inner message may have without its header.
const MAX_INNER: usize = limits::MAX_MESSAGE.saturating_sub(HEADER);

/// How the payload is compressed. Closed: an unknown id refuses the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compressor {
    /// Not at all.
    Noop,
    /// Snappy, raw block format.
    Snappy,
    /// Zlib (RFC 1950).
    Zlib,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Compressor {
    /// The compressor with this id on the wire.
    pub fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::Noop),
            1 => Some(Self::Snappy),
            2 => Some(Self::Zlib),
            3 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The name that `hello` negotiates it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Snappy => "snappy",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// A compressed frame, not inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpCompressed<'a> {
    /// The envelope's header; the inner message has the same ids.
    pub header: Header,
    /// Opcode of the inner message.
    pub original: Opcode,
    /// Bytes of the inner message without its header; together they are within [`limits::MAX_MESSAGE`].
    pub uncompressed: usize,
    /// How to inflate `payload`.
    pub compressor: Compressor,
    /// The compressed bytes.
    pub payload: &'a [u8],
}

impl<'a> OpCompressed<'a> {
    /// Reads a whole frame, header included.
    ///
    /// # Errors
    /// [`FrameError::NestedCompression`], [`FrameError::Compressor`] for an unknown id, [`FrameError::TooLong`] where the
    /// declared size passes the limit, otherwise what is wrong with the bytes.
    pub fn parse(frame: &'a [u8]) -> Result<Self, FrameError> {
        let (header, mut reader) = Header::open(frame, Opcode::Compressed)?;
        let original = Opcode::from(reader.i32()?);
        let uncompressed = reader.length()?;
        let compressor = reader.u8()?;
        let payload = reader.take(reader.end().saturating_sub(reader.position()))?;

        if original == Opcode::Compressed {
            return Err(FrameError::NestedCompression);
        }
        if uncompressed > MAX_INNER {
            return Err(FrameError::TooLong {
                limit: limits::MAX_MESSAGE,
            });
        }
        Ok(Self {
            header,
            original,
            uncompressed,
            compressor: Compressor::from_id(compressor).ok_or(FrameError::Compressor)?,
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::checksum;
    use super::*;

    fn frame(original: i32, size: i32, compressor: u8, payload: &[u8]) -> Vec<u8> {
        let header = Header {
            length: 0,
            request_id: 4,
            response_to: 5,
            opcode: Opcode::Compressed,
        };
        let fields = [
            &header.to_bytes()[..],
            &original.to_le_bytes(),
            &size.to_le_bytes(),
            &[compressor],
            payload,
        ];
        let mut frame = fields.concat();
        checksum::repair(&mut frame).unwrap();
        frame
    }

    #[test]
    fn keeps_the_inner_header() {
        let frame = frame(2013, 10, 1, b"abc");
        let parsed = OpCompressed::parse(&frame).unwrap();
        assert_eq!((parsed.original, parsed.uncompressed), (Opcode::Msg, 10));
        assert_eq!(
            (parsed.compressor.name(), parsed.payload),
            ("snappy", &b"abc"[..])
        );
        assert_eq!((parsed.header.request_id, parsed.header.response_to), (4, 5));
    }

    #[test]
    fn rejects_by_defect() {
        let limit = limits::MAX_MESSAGE;
        for (frame, want) in [
            (frame(2012, 1, 0, b"a"), FrameError::NestedCompression),
            (frame(2013, 1, 4, b"a"), FrameError::Compressor),
            (frame(2013, 1, 255, b"a"), FrameError::Compressor),
            (frame(2013, -1, 0, b"a"), FrameError::Truncated),
            (frame(2013, 47_999_985, 2, b"a"), FrameError::TooLong { limit }),
            (frame(2013, i32::MAX, 3, b"a"), FrameError::TooLong { limit }),
        ] {
            assert_eq!(OpCompressed::parse(&frame), Err(want));
        }
        assert!(OpCompressed::parse(&frame(2013, 47_999_984, 3, b"")).is_ok());
    }
}
