//! `cargo +nightly fuzz run gateway_frames`: see `sealtide_gateway::fuzzing::frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sealtide_gateway::fuzzing::frames(input));
