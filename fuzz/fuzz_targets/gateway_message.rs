//! `cargo +nightly fuzz run gateway_message`: see `sealtide_gateway::fuzzing::message`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sealtide_gateway::fuzzing::message(input));
