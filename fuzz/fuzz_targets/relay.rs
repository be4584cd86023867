//! `cargo +nightly fuzz run relay`: see `sealtide_wire::fuzzing::relay`. Spec: LK-28.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    sealtide_wire::fuzzing::relay_frame(input);
    sealtide_wire::fuzzing::relay(input);
});
