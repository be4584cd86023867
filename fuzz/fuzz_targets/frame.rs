//! Link frames: what is read is written again as the same bytes. Spec: LK-28.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealtide_wire::frame::{Frame, Notice};

fuzz_target!(|bytes: &[u8]| {
    let _ = Notice::parse(bytes);
    let mut rest = bytes;
    while let Ok(Some((frame, after))) = Frame::split(rest, 65_536) {
        let mut again = Vec::new();
        frame.header.write(&mut again);
        again.extend_from_slice(frame.payload);
        assert_eq!(again, rest[..rest.len() - after.len()]);
        rest = after;
    }
});
