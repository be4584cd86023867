//! `cargo +nightly fuzz run json`: see `sealtide_ibgib::fuzzing::json`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sealtide_ibgib::fuzzing::json(input));
