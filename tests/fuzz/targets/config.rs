//! A configuration file that somebody else wrote.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fieldveil::config::fuzz_config(data));
