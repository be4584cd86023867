//! `cargo +nightly fuzz run gateway_offers`: see `sealtide_gateway::fuzzing::offers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sealtide_gateway::fuzzing::offers(input));
