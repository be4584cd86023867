//! `cargo +nightly fuzz run release_legacy`: see `sealtide_releases::fuzzing::legacy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sealtide_releases::fuzzing::legacy(input));
