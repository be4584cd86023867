//! `cargo +nightly fuzz run release_documents`: see `sealtide_releases::fuzzing::documents`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sealtide_releases::fuzzing::documents(input));
