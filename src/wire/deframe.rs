//! Where the next frame in a receive buffer ends. Owns no buffer: the connection keeps the bytes and drops what it used.

use super::error::FrameError;
use super::header::{HEADER, bounded_length};
use super::reader::Reader;

/// What stands at the front of a receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peeled {
    /// Not a whole frame yet: not an error.
    Incomplete {
        /// Bytes wanted in total from the front of the buffer: the frame's length, or a header's while even that is
        /// unknown. Bounded by the limit asked for, so it may be reserved.
        need: usize,
    },
    /// A whole frame of this many bytes.
    Frame(usize),
}

/// Looks at the front of `buf`; a frame may have at most `max` bytes (and [`crate::limits::MAX_MESSAGE`]). An impossible
/// length is refused as soon as its four bytes are there.
///
/// # Errors
/// [`FrameError::TooShort`] or [`FrameError::TooLong`].
pub fn peel(buf: &[u8], max: usize) -> Result<Peeled, FrameError> {
    let Ok(length) = Reader::new(buf).i32() else {
        return Ok(Peeled::Incomplete { need: HEADER });
    };
    let length = bounded_length(length, max)?;
    Ok(if buf.len() < length {
        Peeled::Incomplete { need: length }
    } else {
        Peeled::Frame(length)
    })
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
    fn incomplete_is_not_an_error() {
        let frame = [17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xdd, 7, 0, 0, 9];
        for n in 0..4 {
            assert_eq!(peel(&frame[..n], 100), Ok(Peeled::Incomplete { need: 16 }));
        }
        for n in 4..17 {
            assert_eq!(peel(&frame[..n], 100), Ok(Peeled::Incomplete { need: 17 }));
        }
        assert_eq!(peel(&frame, 100), Ok(Peeled::Frame(17)));
    }

    #[test]
    fn leaves_the_next_frame_alone() {
        let two = [[16u8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]; 2].concat();
        assert_eq!(peel(&two, 16), Ok(Peeled::Frame(16)));
    }

    #[test]
    fn rejects_an_impossible_length_before_the_rest_arrives() {
        assert_eq!(peel(&[15, 0, 0, 0], 100), Err(FrameError::TooShort));
        assert_eq!(
            peel(&[101, 0, 0, 0], 100),
            Err(FrameError::TooLong { limit: 100 })
        );
        // A TLS record or an HTTP request on a plain port is a length, too.
        assert_eq!(
            peel(b"GET / HTTP/1.1", 100),
            Err(FrameError::TooLong { limit: 100 })
        );
        assert_eq!(peel(&[0x16, 3, 1, 0x80], 100), Err(FrameError::TooShort));
    }
}
