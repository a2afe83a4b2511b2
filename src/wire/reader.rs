//! A bounded little-endian cursor. Owns the only code in this room that turns a length from the wire into a range.

use std::ops::Range;

use super::error::FrameError;
use crate::limits;

/// Shortest BSON document: length prefix and terminator.
const MIN_DOCUMENT: usize = 5;

/// Reads forward through `buf[at..end]`; positions are absolute in the buffer.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    buf: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// A cursor over the whole buffer.
    pub fn new(buf: &'a [u8]) -> Self {
        Self {
            buf,
            at: 0,
            end: buf.len(),
        }
    }

    /// A cursor over a range of the buffer that keeps counting from the buffer's start.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] where the range is not inside the buffer.
    pub fn over(buf: &'a [u8], range: Range<usize>) -> Result<Self, FrameError> {
        buf.get(range.clone()).ok_or(FrameError::Truncated)?;
        Ok(Self {
            buf,
            at: range.start,
            end: range.end,
        })
    }

    /// Runs `read` over what this cursor still holds and accepts its result only where nothing is left.
    ///
    /// # Errors
    /// Those of `read`, or [`FrameError::Leftover`].
    pub fn all<T, E: From<FrameError>>(
        mut self,
        read: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let out = read(&mut self)?;
        if self.is_empty() {
            Ok(out)
        } else {
            Err(FrameError::Leftover.into())
        }
    }

    /// Offset of the next byte, absolute in the buffer.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Offset just past the last byte that may be read.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.at >= self.end
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] where fewer are left; nothing is consumed then.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], FrameError> {
        let stop = self.stop_after(n)?;
        let bytes = self.buf.get(self.at..stop).ok_or(FrameError::Truncated)?;
        self.at = stop;
        Ok(bytes)
    }

    /// A cursor over the next `n` bytes, which this one skips.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] where fewer are left.
    pub fn sub(&mut self, n: usize) -> Result<Self, FrameError> {
        let at = self.at;
        self.take(n)?;
        Self::over(self.buf, at..self.at)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`FrameError::Truncated`].
    pub fn u8(&mut self) -> Result<u8, FrameError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A little-endian int32.
    ///
    /// # Errors
    /// [`FrameError::Truncated`].
    pub fn i32(&mut self) -> Result<i32, FrameError> {
        self.array().map(i32::from_le_bytes)
    }

    /// A little-endian uint32.
    ///
    /// # Errors
    /// [`FrameError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, FrameError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A little-endian int64.
    ///
    /// # Errors
    /// [`FrameError::Truncated`].
    pub fn i64(&mut self) -> Result<i64, FrameError> {
        self.array().map(i64::from_le_bytes)
    }

    /// An int32 that counts bytes; the sign is checked before it is widened.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] where it is missing or negative.
    pub fn length(&mut self) -> Result<usize, FrameError> {
        usize::try_from(self.i32()?).map_err(|_| FrameError::Truncated)
    }

    /// A NUL-terminated UTF-8 name, without its NUL.
    ///
    /// # Errors
    /// [`FrameError::Name`] where the NUL is missing or the bytes are not UTF-8.
    pub fn name(&mut self) -> Result<&'a str, FrameError> {
        let rest = self.buf.get(self.at..self.end).ok_or(FrameError::Truncated)?;
        let len = memchr::memchr(0, rest).ok_or(FrameError::Name)?;
        let bytes = self.take(len)?;
        self.u8()?;
        std::str::from_utf8(bytes).map_err(|_| FrameError::Name)
    }

    /// Skips one BSON document and returns where it stands. Only its length prefix and terminator are looked at.
    ///
    /// # Errors
    /// [`FrameError::Document`] where its length is impossible or the last byte is not NUL, [`FrameError::Truncated`]
    /// where it does not fit.
    pub fn document(&mut self) -> Result<Range<usize>, FrameError> {
        let start = self.at;
        // A copy looks ahead: the length prefix is part of the document.
        let len = { *self }.i32()?;
        let len = usize::try_from(len).map_err(|_| FrameError::Document)?;
        if !(MIN_DOCUMENT..=limits::MAX_BSON).contains(&len) {
            return Err(FrameError::Document);
        }
        match self.take(len)?.last() {
            Some(0) => Ok(start..self.at),
            _ => Err(FrameError::Document),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        self.take(N)?.try_into().map_err(|_| FrameError::Truncated)
    }

    fn stop_after(&self, n: usize) -> Result<usize, FrameError> {
        match self.at.checked_add(n) {
            Some(stop) if stop <= self.end => Ok(stop),
            _ => Err(FrameError::Truncated),
        }
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
    fn keeps_position_when_too_little_is_left() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.i32(), Err(FrameError::Truncated));
        assert_eq!(reader.take(3), Ok(&[1u8, 2, 3][..]));
        assert!(reader.is_empty());
    }

    #[test]
    fn rejects_lengths_that_overflow_or_are_negative() {
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff, 0]);
        assert_eq!({ reader }.length(), Err(FrameError::Truncated));
        assert_eq!({ reader }.document(), Err(FrameError::Document));
        assert_eq!(reader.take(usize::MAX), Err(FrameError::Truncated));
        assert_eq!(
            reader.sub(6).err(),
            Some(FrameError::Truncated),
            "longer than the buffer"
        );
    }

    #[test]
    fn rejects_leftovers() {
        let read = |reader: &mut Reader<'_>| reader.u8();
        assert_eq!(Reader::new(&[1]).all(read), Ok(1));
        assert_eq!(Reader::new(&[1, 2]).all(read), Err(FrameError::Leftover));
    }

    #[test]
    fn sub_cannot_read_past_its_own_end() {
        let bytes = [1, 2, 3, 4, 5, 6];
        let mut outer = Reader::new(&bytes);
        let mut inner = outer.sub(3).unwrap();
        assert_eq!(inner.i32(), Err(FrameError::Truncated));
        assert_eq!((inner.position(), inner.end(), outer.position()), (0, 3, 3));
    }

    #[test]
    fn rejects_documents_by_length_and_terminator() {
        for (bytes, want) in [
            (&[4u8, 0, 0, 0, 0][..], FrameError::Document),
            (&[5, 0, 0, 0, 1], FrameError::Document),
            (&[6, 0, 0, 0, 0], FrameError::Truncated),
            (&[5, 0, 0], FrameError::Truncated),
            (&[0xff, 0xff, 0xff, 0x7f, 0], FrameError::Document),
        ] {
            assert_eq!(Reader::new(bytes).document(), Err(want), "{bytes:?}");
        }
        assert_eq!(Reader::new(&[5, 0, 0, 0, 0]).document(), Ok(0..5));
    }

    #[test]
    fn rejects_names_without_terminator_or_utf8() {
        assert_eq!(Reader::new(b"docs").name(), Err(FrameError::Name));
        assert_eq!(Reader::new(b"\xff\0").name(), Err(FrameError::Name));
        assert_eq!(Reader::new(b"docs\0x").name(), Ok("docs"));
    }
}
