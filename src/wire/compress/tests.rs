#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]

use proptest::prelude::*;

use super::super::encode;
use super::super::op_compressed::ENVELOPE;
use super::*;

const MAX: usize = limits::MAX_MESSAGE;

fn packed(frame: &[u8], compressor: Compressor) -> Vec<u8> {
    let mut buffer = b"before".to_vec();
    buffer.extend_from_slice(frame);
    let sizes = pack(&mut buffer, 6, compressor, ZLIB_LEVEL, false).unwrap();
    assert_eq!(&buffer[..6], b"before", "what stands before is not ours");
    let packed = buffer.split_off(6);
    assert_eq!(sizes, (frame.len(), packed.len()));
    packed
}

fn unpacked(frame: &[u8]) -> Result<Vec<u8>, FrameError> {
    inflate(&OpCompressed::parse(frame, MAX)?)
}

/// An envelope around a payload of one's own.
fn envelope(compressor: Compressor, size: usize, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        length: 0,
        request_id: 4,
        response_to: 5,
        opcode: Opcode::Compressed,
    };
    let size = i32::try_from(size).unwrap();
    let fields = [
        &header.to_bytes()[..],
        &2013i32.to_le_bytes(),
        &size.to_le_bytes(),
        &[compressor.id()],
        payload,
    ];
    let mut frame = fields.concat();
    checksum::repair(&mut frame).unwrap();
    frame
}

fn message(body: usize) -> Vec<u8> {
    let mut doc = vec![0; body.max(5)];
    let length = i32::try_from(doc.len()).unwrap();
    doc[..4].copy_from_slice(&length.to_le_bytes());
    encode::reply(7, 9, &doc, true).unwrap()
}

#[test]
fn keeps_the_message_both_ways() {
    for compressor in Compressor::ALL {
        for size in [5, 100, 70_000, 2_000_000] {
            let frame = message(size);
            let small = packed(&frame, compressor);
            let parsed = OpCompressed::parse(&small, MAX).unwrap();
            assert_eq!((parsed.header.request_id, parsed.header.response_to), (7, 9));
            assert_eq!((parsed.original, parsed.compressor), (Opcode::Msg, compressor));
            assert!(
                size < 1000 || small.len() < frame.len() / 4,
                "{compressor:?} of {size}"
            );
            let plain = unpacked(&small).unwrap();
            assert_eq!(plain, frame);
            recycle(plain);
        }
    }
}

#[test]
fn keeps_what_does_not_shrink_unless_told_to() {
    // A multiplicative generator: no compressor finds anything in it.
    let mut x = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        x = x
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        x.to_be_bytes()[0]
    })
    .take(300_000)
    .collect();
    let mut frame = message(noise.len() + 5);
    frame[25..25 + noise.len()].copy_from_slice(&noise);
    checksum::repair(&mut frame).unwrap();
    for compressor in Compressor::ALL {
        let mut buffer = frame.clone();
        assert_eq!(pack(&mut buffer, 0, compressor, ZLIB_LEVEL, true), None);
        assert_eq!(buffer, frame);
        assert_eq!(
            unpacked(&packed(&frame, compressor)).unwrap(),
            frame,
            "{compressor:?}"
        );
    }
}

#[test]
fn compresses_by_the_level_asked_for() {
    let text: Vec<u8> = (0..20_000u32)
        .flat_map(|n| (n * n % 977).to_string().into_bytes())
        .collect();
    let mut frame = message(text.len() + 5);
    frame[25..25 + text.len()].copy_from_slice(&text);
    let size = |level| {
        let mut buffer = frame.clone();
        pack(&mut buffer, 0, Compressor::Zlib, level, false).unwrap().1
    };
    let (none, fast, best) = (size(0), size(1), size(9));
    assert!(none > frame.len() && fast > best, "{none} {fast} {best}");
    assert_eq!(size(1), fast, "the level is no longer that of the message before");
}

#[test]
fn rejects_every_other_size_than_the_announced() {
    let frame = message(1000);
    for compressor in Compressor::ALL {
        let small = packed(&frame, compressor);
        let payload = &small[ENVELOPE..];
        let right = frame.len() - HEADER;
        for size in [0, 1, right - 1, right + 1, right + 10] {
            let got = unpacked(&envelope(compressor, size, payload));
            assert!(
                matches!(got, Err(FrameError::Inflate | FrameError::TooLong { .. })),
                "{compressor:?}: {size} instead of {right}: {got:?}"
            );
        }
        assert_eq!(
            unpacked(&envelope(compressor, right, payload)).unwrap()[HEADER..],
            frame[HEADER..]
        );
    }
}

#[test]
fn rejects_truncated_damaged_and_longer_payloads() {
    let frame = message(1000);
    for compressor in Compressor::ALL {
        let small = packed(&frame, compressor);
        let payload = &small[ENVELOPE..];
        let size = frame.len() - HEADER;
        for n in 0..payload.len() {
            assert!(
                unpacked(&envelope(compressor, size, &payload[..n])).is_err(),
                "{compressor:?} {n}"
            );
        }
        let longer = [payload, b"x"].concat();
        assert!(
            unpacked(&envelope(compressor, size, &longer)).is_err(),
            "{compressor:?} and more"
        );
        assert!(unpacked(&envelope(compressor, size, b"no compressor wrote this, ever")).is_err());
    }
}

#[test]
fn rejects_a_bomb_at_the_announced_size() {
    let bomb = vec![0; 50_000_000];
    let zlib = {
        let mut out = Vec::new();
        Contexts::default().deflate(9, &bomb, &mut out).unwrap();
        out
    };
    let mut zstd = Vec::new();
    Contexts::default()
        .squeeze(Compressor::Zstd, 0, &bomb, &mut zstd)
        .unwrap();
    for (compressor, payload) in [(Compressor::Zlib, zlib), (Compressor::Zstd, zstd)] {
        for size in [100, 1_000_000, MAX - HEADER] {
            assert_eq!(
                unpacked(&envelope(compressor, size, &payload)),
                Err(FrameError::Inflate),
                "{compressor:?} {size}"
            );
        }
    }
}

#[test]
fn keeps_no_large_buffer() {
    let frame = message(5_000_000);
    let small = packed(&frame, Compressor::Zstd);
    recycle(unpacked(&small).unwrap());
    CONTEXTS.with_borrow(|contexts| {
        assert!(contexts.plain.capacity() <= KEEP);
        assert!(contexts.packed.capacity() <= KEEP);
    });
}

proptest! {
    #[test]
    fn keeps_any_message(body in prop::collection::vec(any::<u8>(), 0..3000), level in 0u8..=9) {
        let mut frame = message(body.len() + 5);
        frame[25..25 + body.len()].copy_from_slice(&body);
        for compressor in Compressor::ALL {
            let mut buffer = frame.clone();
            pack(&mut buffer, 0, compressor, level, false).unwrap();
            prop_assert_eq!(unpacked(&buffer).unwrap(), frame.clone());
        }
    }

    #[test]
    fn never_panics_on_a_payload(payload in prop::collection::vec(any::<u8>(), 0..200), size in 0usize..5000) {
        for compressor in Compressor::ALL {
            // A payload that happens to be right inflates to what it announces, and that is all it may do.
            if let Ok(plain) = unpacked(&envelope(compressor, size, &payload)) {
                prop_assert_eq!(plain.len(), size + HEADER);
            }
        }
    }
}
