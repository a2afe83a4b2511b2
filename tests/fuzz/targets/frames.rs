//! Wire bytes from a client, cut where TCP cuts them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldveil::wire::fuzz_frames(data));
