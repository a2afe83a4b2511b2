#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]

use proptest::prelude::*;

use super::super::{checksum, encode, fuzz_frames};
use super::*;

/// `{}` and `{"a": true}`.
const EMPTY: &[u8] = &[5, 0, 0, 0, 0];
const SMALL: &[u8] = b"\x09\0\0\0\x08a\0\x01\0";

fn writer(flags: u32) -> encode::MsgWriter {
    encode::MsgWriter::new(11, 0, Flags::from_bits(flags))
}

/// A frame from raw section bytes.
fn raw(flags: u32, sections: &[u8]) -> Vec<u8> {
    let mut frame = writer(flags).finish().unwrap();
    let checksum = frame.split_off(20);
    frame.extend_from_slice(sections);
    frame.extend_from_slice(&checksum);
    checksum::repair(&mut frame).unwrap();
    frame
}

fn sequence(identifier: &str, docs: &[&[u8]]) -> Vec<u8> {
    let frame = writer(0).sequence(identifier, &docs.concat()).finish().unwrap();
    frame[20..].to_vec()
}

fn body(doc: &[u8]) -> Vec<u8> {
    [&[0], doc].concat()
}

#[track_caller]
fn closes(frame: &[u8], why: FrameError) {
    assert_eq!(OpMsg::parse(frame).err(), Some(OpMsgError::Close(why)));
}

#[track_caller]
fn answers(sections: &[u8], code: i32) {
    match OpMsg::parse(&raw(0, sections)).err() {
        Some(OpMsgError::Reply(why)) => assert_eq!(why.code(), code),
        other => panic!("expected a reply, got {other:?}"),
    }
    // The same defect where no reply is expected can only close.
    match OpMsg::parse(&raw(2, sections)).err() {
        Some(OpMsgError::Close(FrameError::Unanswerable(why))) => assert_eq!(why.code(), code),
        other => panic!("expected a close, got {other:?}"),
    }
}

#[test]
fn keeps_order_identifiers_and_offsets() {
    let frame = writer(0)
        .sequence("documents", &[EMPTY, SMALL].concat())
        .body(SMALL)
        .sequence("ops", &[])
        .finish()
        .unwrap();
    let message = OpMsg::parse(&frame).unwrap();
    let sections: Vec<_> = message.sections().collect();
    assert_eq!(
        sections,
        [
            Section::Sequence {
                at: 21,
                identifier: "documents",
                docs_at: 35,
                end: 49
            },
            Section::Body { doc_at: 50, end: 59 },
            Section::Sequence {
                at: 60,
                identifier: "ops",
                docs_at: 68,
                end: 68
            },
        ]
    );
    assert_eq!(&frame[21..25], &28i32.to_le_bytes());
    assert_eq!(message.body(), 50..59);
    let spans = |n: usize| -> Vec<_> {
        let spans = message.documents(sections[n]);
        spans.map(|span| (span.start, span.end)).collect()
    };
    assert_eq!(spans(0), [(35, 40), (40, 49)]);
    assert_eq!(spans(1), [(50, 59)]);
    assert_eq!(spans(2), []);
    assert_eq!(encode::rebuild(&message).unwrap(), frame);
}

#[test]
fn answers_section_defects_with_the_servers_codes() {
    answers(&[body(EMPTY), body(EMPTY)].concat(), 40430);
    answers(
        &[sequence("d", &[]), body(EMPTY), sequence("d", &[])].concat(),
        40431,
    );
    answers(&[body(EMPTY), vec![2, 0]].concat(), 40432);
    answers(&[body(EMPTY), vec![5]].concat(), 40432);
    answers(&[255], 40432);
    answers(&sequence("d", &[EMPTY]), 40587);
    answers(&[], 40587);
}

#[test]
fn closes_on_a_third_sequence() {
    let sections = [
        body(EMPTY),
        sequence("a", &[]),
        sequence("b", &[]),
        sequence("c", &[]),
    ]
    .concat();
    closes(&raw(0, &sections), FrameError::TooManySequences);
}

#[test]
fn rejects_unknown_required_flags_and_keeps_unknown_optional_ones() {
    for bit in 2..16 {
        closes(&raw(1 << bit, &body(EMPTY)), FrameError::RequiredFlag);
    }
    for bit in 16..32 {
        let frame = raw(1 << bit, &body(EMPTY));
        let message = OpMsg::parse(&frame).unwrap();
        assert_eq!(message.flags().bits(), 1 << bit);
        assert_eq!(message.flags().exhaust_allowed(), bit == 16);
        assert_eq!(encode::rebuild(&message).unwrap(), frame);
    }
}

#[test]
fn verifies_the_checksum_when_there_is_one() {
    let frame = raw(1, &body(SMALL));
    assert_eq!(OpMsg::parse(&frame).unwrap().body(), 21..30);
    for at in 4..frame.len() {
        let mut bad = frame.clone();
        bad[at] ^= 0x40;
        assert!(OpMsg::parse(&bad).is_err(), "bit flipped in byte {at}");
    }
    let mut bad = frame.clone();
    *bad.last_mut().unwrap() ^= 1;
    closes(&bad, FrameError::Checksum);
    // A checksum that is right but overlaps the flags.
    let mut short = frame[..18].to_vec();
    short[0] = 22;
    short.extend_from_slice(&checksum::crc(&short).to_le_bytes());
    closes(&short, FrameError::Truncated);
}

#[test]
fn rejects_a_section_that_reaches_into_the_checksum() {
    let mut sections = sequence("d", &[EMPTY]);
    // Size one larger: the section's end would lie inside the CRC.
    sections[1] += 1;
    closes(&raw(1, &[body(EMPTY), sections].concat()), FrameError::Truncated);
}

#[test]
fn rejects_sequence_sizes_that_do_not_fit() {
    for size in [i32::MIN, -1, 0, 3] {
        let sections = [&[1][..], &size.to_le_bytes(), b"d\0", EMPTY].concat();
        closes(&raw(0, &sections), FrameError::Truncated);
    }
    let size_only = [&[1][..], &4i32.to_le_bytes()].concat();
    closes(&raw(0, &size_only), FrameError::Name);
    let past_the_frame = [&[1][..], &100i32.to_le_bytes(), b"d\0", EMPTY].concat();
    closes(&raw(0, &past_the_frame), FrameError::Truncated);
    let cuts_a_document = [&[1][..], &10i32.to_le_bytes(), b"d\0", EMPTY].concat();
    closes(&raw(0, &cuts_a_document), FrameError::Truncated);
}

#[test]
fn rejects_documents_and_names_that_cannot_be() {
    closes(&raw(0, &body(&[4, 0, 0, 0, 0])), FrameError::Document);
    closes(&raw(0, &body(&[5, 0, 0, 0, 7])), FrameError::Document);
    closes(&raw(0, &body(&[6, 0, 0, 0, 0])), FrameError::Truncated);
    let unterminated = [&[1][..], &6i32.to_le_bytes(), b"dd", &body(EMPTY)].concat();
    closes(&raw(0, &unterminated), FrameError::Name);
    let not_utf8 = [&[1][..], &6i32.to_le_bytes(), b"\xff\0", &body(EMPTY)].concat();
    closes(&raw(0, &not_utf8), FrameError::Name);
}

#[test]
fn rejects_every_truncation() {
    let whole = raw(0, &[body(SMALL), sequence("docs", &[EMPTY, SMALL])].concat());
    // After the body alone the message is whole again.
    for n in (16..whole.len()).filter(|n| *n != 30) {
        let mut cut = whole[..n].to_vec();
        cut[0] = u8::try_from(n).unwrap();
        assert!(OpMsg::parse(&cut).is_err(), "{n} bytes");
    }
}

#[test]
fn replaces_the_body_and_nothing_else() {
    for flags in [0, 1, 1 << 16] {
        let frame = raw(
            flags,
            &[sequence("d", &[SMALL]), body(SMALL), sequence("e", &[EMPTY])].concat(),
        );
        let want = raw(
            flags,
            &[sequence("d", &[SMALL]), body(EMPTY), sequence("e", &[EMPTY])].concat(),
        );
        assert_eq!(OpMsg::parse(&frame).unwrap().with_body(EMPTY).unwrap(), want);
    }
}

fn document() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(|inside| {
        let len = i32::try_from(inside.len() + 5).unwrap();
        [&len.to_le_bytes()[..], &inside, &[0]].concat()
    })
}

proptest! {
    #[test]
    fn encode_of_decode_is_the_same_frame(
        request_id: i32,
        response_to: i32,
        optional in any::<u16>(),
        required in 0u32..4,
        body in document(),
        body_at in 0usize..3,
        sequences in prop::collection::btree_map("[a-z.$é]{0,8}", prop::collection::vec(document(), 0..4), 0..=2),
    ) {
        let flags = Flags::from_bits(u32::from(optional) << 16 | required);
        let mut writer = encode::MsgWriter::new(request_id, response_to, flags);
        let mut sequences: Vec<_> = sequences.into_iter().map(Some).collect();
        sequences.insert(body_at.min(sequences.len()), None);
        for section in &sequences {
            writer = match section {
                None => writer.body(&body),
                Some((name, docs)) => writer.sequence(name, &docs.concat()),
            };
        }
        let frame = writer.finish().unwrap();
        let message = OpMsg::parse(&frame).unwrap();
        prop_assert_eq!(encode::rebuild(&message).unwrap(), &frame[..]);
        prop_assert_eq!(&frame[message.body()], &body[..]);
        for (section, want) in message.sections().zip(&sequences) {
            let docs: Vec<_> = message.documents(section).map(|span| frame[span].to_vec()).collect();
            match (section, want) {
                (Section::Body { .. }, None) => prop_assert_eq!(&docs, std::slice::from_ref(&body)),
                (Section::Sequence { identifier, .. }, Some((name, want))) => {
                    prop_assert_eq!(identifier, name);
                    prop_assert_eq!(&docs, want);
                }
                _ => prop_assert!(false, "order changed"),
            }
        }
        fuzz_frames(&frame);
    }

    #[test]
    fn no_bytes_break_a_promise(data in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_frames(&data);
    }

    #[test]
    fn no_damage_breaks_a_promise(at in 0usize..62, byte: u8, cut in 0usize..62) {
        let mut frame = raw(1, &[body(SMALL), sequence("docs", &[EMPTY, SMALL])].concat());
        frame[at % 53] = byte;
        fuzz_frames(&frame);
        // Without the header, so that the fuzzer's own headers make the sections reachable.
        fuzz_frames(&frame[16..]);
        frame.truncate(cut);
        fuzz_frames(&frame);
    }
}
