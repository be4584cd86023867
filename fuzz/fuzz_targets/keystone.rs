//! `cargo +nightly fuzz run keystone`: see `sealtide_identity::fuzzing::keystone`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sealtide_identity::fuzzing::keystone(input));
