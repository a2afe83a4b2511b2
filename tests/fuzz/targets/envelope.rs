//! What the database hands back where an envelope is expected.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldveil::keys::fuzz_envelope(data));
