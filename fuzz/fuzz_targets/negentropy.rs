//! `cargo +nightly fuzz run negentropy`: see `sealtide_sync::fuzzing::negentropy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sealtide_sync::fuzzing::negentropy(input));
