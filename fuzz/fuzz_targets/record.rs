//! `cargo +nightly fuzz run record`: see `sealtide_ibgib::fuzzing::record`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sealtide_ibgib::fuzzing::record(input));
