//! `cargo +nightly fuzz run release_bundle`: see `sealtide_releases::fuzzing::bundle`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sealtide_releases::fuzzing::bundle(input));
