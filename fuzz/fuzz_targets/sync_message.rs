//! `cargo +nightly fuzz run sync_message`: see `sealtide_sync::fuzzing::message`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sealtide_sync::fuzzing::message(input));
