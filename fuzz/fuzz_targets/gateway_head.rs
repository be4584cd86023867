//! `cargo +nightly fuzz run gateway_head`: see `sealtide_gateway::fuzzing::head`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sealtide_gateway::fuzzing::head(input));
