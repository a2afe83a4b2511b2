//! One entry for the fuzzer into every parser of this room. Owns no parser; what it checks are the room's promises.

use super::header::HEADER;
use super::op_compressed::OpCompressed;
use super::op_query::OpQuery;
use super::op_reply::OpReply;
use super::{Compressor, Header, OpMsg, Opcode, Peeled, checksum, compress, encode, peel};
use crate::limits;

/// What a compressed message may announce: enough for every path, and no time lost on filling memory.
const INFLATED: usize = 256 * 1024;

/// Runs arbitrary bytes through every parser: as they came, and again under each opcode with the length set right so
/// that the fuzzer need not guess it.
///
/// # Panics
/// Where a promise of this room is broken. Only for the fuzzer and the tests.
pub fn fuzz_frames(data: &[u8]) {
    if let Ok(Peeled::Frame(n)) = peel(data, limits::MAX_MESSAGE)
        && let Some(frame) = data.get(..n)
    {
        every_parser(frame);
    }
    for opcode in [Opcode::Msg, Opcode::Query, Opcode::Reply, Opcode::Compressed] {
        let header = Header {
            length: 0,
            request_id: 1,
            response_to: 2,
            opcode,
        };
        let mut frame = [&header.to_bytes()[..], data].concat();
        // A frame with the checksum flag and no room for it stays as it is: that is a case of its own.
        let whole = checksum::repair(&mut frame);
        every_parser(&frame);
        if whole.is_ok() {
            assert_eq!(
                peel(&frame, limits::MAX_MESSAGE),
                Ok(Peeled::Frame(frame.len())),
                "a repaired frame is a whole frame"
            );
        }
    }
}

fn every_parser(frame: &[u8]) {
    if let Ok(message) = OpMsg::parse(frame) {
        for section in message.sections() {
            for document in message.documents(section) {
                assert!(frame.get(document).is_some(), "a document lies inside the frame");
            }
        }
        assert_eq!(
            encode::rebuild(&message).as_deref(),
            Ok(frame),
            "encode(decode(x)) == x"
        );
        keeps(
            message.with_body(frame.get(message.body()).unwrap_or_default()),
            frame,
        );
    }
    if let Ok(query) = OpQuery::parse(frame) {
        keeps(
            query.with_query(frame.get(query.query.clone()).unwrap_or_default()),
            frame,
        );
    }
    if let Ok(reply) = OpReply::parse(frame) {
        keeps(
            reply.with_document(frame.get(reply.document.clone()).unwrap_or_default()),
            frame,
        );
    }
    if let Ok(compressed) = OpCompressed::parse(frame, INFLATED) {
        if let Ok(plain) = compress::inflate(&compressed) {
            assert_eq!(
                plain.len(),
                compressed.uncompressed.saturating_add(HEADER),
                "exactly the announced size"
            );
            // Once more is enough: there is no compressed message inside.
            every_parser(&plain);
            compress::recycle(plain);
        }
    } else {
        packs(frame);
    }
}

/// Compressed by each compressor and inflated, it is the same message.
fn packs(frame: &[u8]) {
    for compressor in Compressor::ALL {
        let mut packed = frame.to_vec();
        if compress::pack(&mut packed, 0, compressor, compress::ZLIB_LEVEL, false).is_none() {
            continue;
        }
        let plain =
            OpCompressed::parse(&packed, limits::MAX_MESSAGE).and_then(|message| compress::inflate(&message));
        match plain {
            Ok(plain) => {
                assert_eq!(plain.get(HEADER..), frame.get(HEADER..), "inflate(pack(x)) == x");
                compress::recycle(plain);
            }
            // The formats leave no room for nothing at all, and an envelope takes no envelope.
            Err(_) => assert!(
                frame.len() == HEADER
                    || Header::peek(frame, limits::MAX_MESSAGE).is_ok_and(|h| h.opcode == Opcode::Compressed),
                "what was packed can be unpacked"
            ),
        }
    }
}

fn keeps(rewritten: Result<Vec<u8>, super::FrameError>, frame: &[u8]) {
    assert_eq!(
        rewritten.as_deref(),
        Ok(frame),
        "a span replaced by itself changes nothing"
    );
}
