//! `cargo +nightly fuzz run gateway_deflate`: see `sealtide_gateway::fuzzing::compressed`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sealtide_gateway::fuzzing::compressed(input));
