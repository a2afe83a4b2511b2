//! `OP_COMPRESSED`: the envelope around another opcode, read in place. Owns the inner header and the bound on the
//! announced size; refuses nesting. Inflating is [`super::compress`]'s business.

use super::compressor::Compressor;
use super::error::FrameError;
use super::header::{HEADER, Header, Opcode};
use crate::limits;

/// Bytes in front of the compressed ones: the header, the inner opcode, the inner size and the compressor's id.
pub const ENVELOPE: usize = 25;

/// A compressed frame, not inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpCompressed<'a> {
    /// The envelope's header; the inner message has the same ids.
    pub header: Header,
    /// Opcode of the inner message.
    pub original: Opcode,
    /// Bytes of the inner message without its header; together they are within the limit that was asked for.
    pub uncompressed: usize,
    /// How to inflate `payload`.
    pub compressor: Compressor,
    /// The compressed bytes.
    pub payload: &'a [u8],
}

impl<'a> OpCompressed<'a> {
    /// Reads a whole frame, header included. The message inside may have at most `max` bytes, header included (and
    /// [`limits::MAX_MESSAGE`]).
    ///
    /// # Errors
    /// [`FrameError::NestedCompression`], [`FrameError::Compressor`] for an unknown id, [`FrameError::TooLong`] where the
    /// announced size passes the limit or is more than these bytes can hold, otherwise what is wrong with the bytes.
    pub fn parse(frame: &'a [u8], max: usize) -> Result<Self, FrameError> {
        let (header, mut reader) = Header::open(frame, Opcode::Compressed)?;
        let original = Opcode::from(reader.i32()?);
        let uncompressed = reader.length()?;
        let compressor = reader.u8()?;
        let payload = reader.take(reader.end().saturating_sub(reader.position()))?;

        if original == Opcode::Compressed {
            return Err(FrameError::NestedCompression);
        }
        let compressor = Compressor::from_id(compressor).ok_or(FrameError::Compressor)?;
        let limit = max.min(limits::MAX_MESSAGE);
        let most = limit
            .saturating_sub(HEADER)
            .min(payload.len().saturating_mul(expansion(compressor)));
        if uncompressed > most {
            return Err(FrameError::TooLong { limit });
        }
        Ok(Self {
            header,
            original,
            uncompressed,
            compressor,
            payload,
        })
    }
}

/// Bytes that one compressed byte can stand for at most, by the formats: a snappy copy of 64 bytes takes 3, deflate's
/// 258 take 2 bits, a zstd block of 128 KiB takes 4. A message that announces more is a lie, and no memory is spent on it.
const fn expansion(compressor: Compressor) -> usize {
    match compressor {
        Compressor::Snappy => 22,
        Compressor::Zlib => 1032,
        Compressor::Zstd => 32 * 1024,
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
        let parsed = OpCompressed::parse(&frame, usize::MAX).unwrap();
        assert_eq!((parsed.original, parsed.uncompressed), (Opcode::Msg, 10));
        assert_eq!(
            (parsed.compressor, parsed.payload),
            (Compressor::Snappy, &b"abc"[..])
        );
        assert_eq!((parsed.header.request_id, parsed.header.response_to), (4, 5));
        assert_eq!(frame.len() - parsed.payload.len(), ENVELOPE);
    }

    #[test]
    fn rejects_by_defect() {
        let limit = limits::MAX_MESSAGE;
        let many = vec![0; 48_000];
        for (frame, want) in [
            (frame(2012, 1, 2, b"a"), FrameError::NestedCompression),
            (frame(2013, 1, 0, b"a"), FrameError::Compressor),
            (frame(2013, 1, 4, b"a"), FrameError::Compressor),
            (frame(2013, 1, 255, b"a"), FrameError::Compressor),
            (frame(2013, -1, 2, b"a"), FrameError::Truncated),
            (frame(2013, 47_999_985, 2, &many), FrameError::TooLong { limit }),
            (frame(2013, i32::MAX, 3, &many), FrameError::TooLong { limit }),
            (frame(2013, 23, 1, b"a"), FrameError::TooLong { limit }),
            (frame(2013, 1033, 2, b"a"), FrameError::TooLong { limit }),
            (frame(2013, 32 * 1024 + 1, 3, b"a"), FrameError::TooLong { limit }),
            (frame(2013, 1, 3, b""), FrameError::TooLong { limit }),
        ] {
            assert_eq!(OpCompressed::parse(&frame, usize::MAX), Err(want));
        }
        assert!(OpCompressed::parse(&frame(2013, 47_999_984, 2, &many), usize::MAX).is_ok());
    }

    #[test]
    fn keeps_to_the_limit_asked_for() {
        let small = frame(2013, 85, 2, b"abc");
        assert_eq!(
            OpCompressed::parse(&small, 100),
            Err(FrameError::TooLong { limit: 100 })
        );
        assert!(OpCompressed::parse(&small, 101).is_ok());
    }

    #[test]
    fn rejects_every_truncation_of_the_envelope() {
        let whole = frame(2013, 10, 2, b"");
        for n in HEADER..ENVELOPE {
            let mut cut = whole.get(..n).unwrap().to_vec();
            checksum::repair(&mut cut).unwrap();
            assert_eq!(OpCompressed::parse(&cut, usize::MAX), Err(FrameError::Truncated));
        }
    }
}
