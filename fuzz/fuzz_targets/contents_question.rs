//! `cargo +nightly fuzz run contents_question`: see `sealtide_node::fuzzing::contents_question`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sealtide_node::fuzzing::contents_question(input));
