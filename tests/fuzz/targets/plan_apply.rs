//! A command against a field map: planned, applied, proved.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldveil::session::fuzz::fuzz_plan_apply(data));
