//! `cargo +nightly fuzz run release_tar`: see `sealtide_folder::fuzzing::release_tar`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sealtide_folder::fuzzing::release_tar(input));
