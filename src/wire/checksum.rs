//! The optional CRC-32C at the end of an `OP_MSG`, and the repair of a frame whose inside has changed. Owns the last four
//! bytes and the length field; nothing between them.

use super::error::FrameError;
use super::header::{HEADER, Header, Opcode, bounded_length};
use super::op_msg::Flags;
use super::reader::Reader;

/// Length of the checksum.
pub const CHECKSUM: usize = 4;

/// CRC-32C (Castagnoli) as the wire protocol uses it: over every byte of the message in front of the checksum.
pub fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// Checks the last four bytes of a frame against the rest.
///
/// # Errors
/// [`FrameError::Checksum`] where they differ, [`FrameError::Truncated`] where the frame is too short to hold one.
pub fn verify(frame: &[u8]) -> Result<(), FrameError> {
    let (covered, stored) = frame
        .split_last_chunk::<CHECKSUM>()
        .ok_or(FrameError::Truncated)?;
    if crc(covered) == u32::from_le_bytes(*stored) {
        Ok(())
    } else {
        Err(FrameError::Checksum)
    }
}

/// Makes a frame whole again after its inside was rewritten: sets the header's length and, in an `OP_MSG` with
/// `checksumPresent`, recomputes the last four bytes. Lengths inside sections are not its business.
///
/// # Errors
/// [`FrameError::Truncated`] where there is no room for header, flags or checksum; [`FrameError::TooLong`] where the
/// message has outgrown [`crate::limits::MAX_MESSAGE`]. The frame must not be sent then.
pub fn repair(frame: &mut [u8]) -> Result<(), FrameError> {
    let length = i32::try_from(frame.len()).unwrap_or(i32::MAX);
    bounded_length(length, usize::MAX)?;
    let field = frame.first_chunk_mut().ok_or(FrameError::Truncated)?;
    *field = length.to_le_bytes();

    let header = Header::peek(frame, usize::MAX)?;
    if header.opcode != Opcode::Msg {
        return Ok(());
    }
    let mut body = Reader::over(frame, HEADER..frame.len())?;
    if !Flags::from_bits(body.u32()?).checksum_present() {
        return Ok(());
    }
    // The four bytes must lie behind the flags, or the checksum would overwrite what it covers.
    body.take(CHECKSUM)?;
    let (covered, stored) = frame
        .split_last_chunk_mut::<CHECKSUM>()
        .ok_or(FrameError::Truncated)?;
    *stored = crc(covered).to_le_bytes();
    Ok(())
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests {
    use super::super::encode;
    use super::*;

    const EMPTY: [u8; 5] = [5, 0, 0, 0, 0];

    #[test]
    fn agrees_with_the_published_check_value() {
        // RFC 3720 B.4 and the catalogue's check value for CRC-32C.
        assert_eq!(crc(b"123456789"), 0xe306_9283);
        assert_eq!(crc(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn repairs_length_and_checksum_after_growth() {
        let mut frame = encode::reply(1, 2, &EMPTY, true).unwrap();
        frame.splice(21..26, [7, 0, 0, 0, 10, 0, 0]);
        assert_eq!(verify(&frame), Err(FrameError::Checksum));
        repair(&mut frame).unwrap();
        assert_eq!(frame[..4], 32i32.to_le_bytes());
        assert_eq!(verify(&frame), Ok(()));
    }

    #[test]
    fn leaves_frames_without_checksum_alone_but_for_the_length() {
        let frame = encode::reply(1, 2, &EMPTY, false).unwrap();
        let mut repaired = frame.clone();
        repaired[0] = 0;
        repair(&mut repaired).unwrap();
        assert_eq!(repaired, frame);
    }

    #[test]
    fn rejects_frames_that_cannot_be_repaired() {
        assert_eq!(repair(&mut [0; 15]), Err(FrameError::TooShort));
        let mut no_room = encode::reply(1, 2, &EMPTY, true).unwrap()[..20].to_vec();
        assert_eq!(repair(&mut no_room), Err(FrameError::Truncated));
        let limit = crate::limits::MAX_MESSAGE;
        let mut huge = vec![0; limit + 1];
        assert_eq!(repair(&mut huge), Err(FrameError::TooLong { limit }));
    }
}
