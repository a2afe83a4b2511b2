//! `OP_QUERY`, only as drivers still open a connection with it: one command on `<db>.$cmd`. Every other use of the opcode
//! could carry plaintext past us and is refused.

use std::ops::Range;

use super::encode;
use super::error::FrameError;
use super::header::{Header, Opcode};

/// The one flag that changes nothing about a command: `secondaryOk`.
const SECONDARY_OK: i32 = 1 << 2;

/// A command in an `OP_QUERY` frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpQuery<'a> {
    /// The whole frame.
    pub frame: &'a [u8],
    /// Its header.
    pub header: Header,
    /// Database in front of `.$cmd`.
    pub db: &'a str,
    /// Where the command document stands; it may still be wrapped in `$query`.
    pub query: Range<usize>,
}

impl<'a> OpQuery<'a> {
    /// Reads a whole frame, header included.
    ///
    /// # Errors
    /// [`FrameError::LegacyQuery`] for anything but a command: another collection, other flags than `secondaryOk`,
    /// documents to skip, more than one to return, a field selector. Otherwise what is wrong with the bytes.
    pub fn parse(frame: &'a [u8]) -> Result<Self, FrameError> {
        let (header, mut reader) = Header::open(frame, Opcode::Query)?;
        let flags = reader.i32()?;
        let namespace = reader.name()?;
        let skip = reader.i32()?;
        let limit = reader.i32()?;
        let query = reader.document()?;

        let db = namespace.strip_suffix(".$cmd").ok_or(FrameError::LegacyQuery)?;
        let plain = flags & !SECONDARY_OK == 0 && skip == 0 && matches!(limit, -1 | 1);
        if !plain || db.is_empty() || db.contains('.') || !reader.is_empty() {
            return Err(FrameError::LegacyQuery);
        }
        Ok(Self {
            frame,
            header,
            db,
            query,
        })
    }

    /// The same message with another command document.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] where it outgrows the message limit.
    pub fn with_query(&self, doc: &[u8]) -> Result<Vec<u8>, FrameError> {
        encode::replace(self.frame, self.query.clone(), doc)
    }
}

/// An `OP_QUERY` frame with one command on `<db>.$cmd`: for tests, and for servers that know no other way.
///
/// # Errors
/// [`FrameError::TooLong`] where it outgrows the message limit.
pub fn command(request_id: i32, db: &str, doc: &[u8]) -> Result<Vec<u8>, FrameError> {
    let header = Header {
        length: 0,
        request_id,
        response_to: 0,
        opcode: Opcode::Query,
    };
    let fields = [
        &header.to_bytes()[..],
        &SECONDARY_OK.to_le_bytes(),
        db.as_bytes(),
        b".$cmd\0",
        &0i32.to_le_bytes(),
        &(-1i32).to_le_bytes(),
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

    const DOC: &[u8] = b"\x10\0\0\0\x10hello\0\x01\0\0\0\0";
    // Header 16, flags 4, "admin.$cmd\0" 11, skip 4, return 4.
    const DOC_AT: usize = 39;

    fn hello() -> Vec<u8> {
        command(7, "admin", DOC).unwrap()
    }

    fn changed(at: usize, bytes: &[u8]) -> Result<(), FrameError> {
        let mut frame = hello();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        OpQuery::parse(&frame).map(drop)
    }

    #[test]
    fn keeps_db_and_document() {
        let frame = hello();
        let query = OpQuery::parse(&frame).unwrap();
        assert_eq!((query.db, query.query.clone()), ("admin", DOC_AT..DOC_AT + 16));
        assert_eq!(query.header.request_id, 7);
        assert_eq!(query.with_query(&frame[query.query.clone()]).unwrap(), frame);
    }

    #[test]
    fn rewrites_length_with_the_document() {
        let frame = hello();
        let smaller = OpQuery::parse(&frame)
            .unwrap()
            .with_query(&[5, 0, 0, 0, 0])
            .unwrap();
        assert_eq!(smaller.len(), frame.len() - 11);
        assert_eq!(OpQuery::parse(&smaller).unwrap().query, DOC_AT..DOC_AT + 5);
    }

    #[test]
    fn rejects_what_is_not_a_command() {
        let refused = Err(FrameError::LegacyQuery);
        assert_eq!(changed(20, b"admin.cmds\0"), refused, "a collection");
        assert_eq!(changed(20, b"a.min.$cmd\0"), refused, "a dot in the database");
        for flag in [0, 1, 3, 4, 5, 6, 7, 8, 31] {
            assert_eq!(changed(16, &(1u32 << flag).to_le_bytes()), refused, "flag {flag}");
        }
        assert_eq!(changed(16, &[0; 4]), Ok(()));
        assert_eq!(changed(31, &[1, 0, 0, 0]), refused, "skip");
        for limit in [0i32, 2, -2] {
            assert_eq!(changed(35, &limit.to_le_bytes()), refused, "return {limit}");
        }
        assert_eq!(changed(35, &[1, 0, 0, 0]), Ok(()));
        let nameless = command(1, "", &[5, 0, 0, 0, 0]).unwrap();
        assert_eq!(OpQuery::parse(&nameless).map(drop), refused);
    }

    #[test]
    fn rejects_a_field_selector_and_leftovers() {
        let mut frame = hello();
        frame.extend_from_slice(&[5, 0, 0, 0, 0]);
        super::super::checksum::repair(&mut frame).unwrap();
        assert_eq!(OpQuery::parse(&frame).map(drop), Err(FrameError::LegacyQuery));
    }

    #[test]
    fn rejects_every_truncation() {
        let whole = hello();
        for n in 16..whole.len() {
            let mut cut = whole[..n].to_vec();
            super::super::checksum::repair(&mut cut).unwrap();
            assert!(OpQuery::parse(&cut).is_err(), "{n} bytes");
        }
    }
}
