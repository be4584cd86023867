//! HELLO: the payload is the input, on every kind of pipe. Spec: LK-28.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealtide_wire::frame::{FrameType, plain_frame};
use sealtide_wire::handshake::{PipeKind, check_layout};

fuzz_target!(|payload: &[u8]| {
    let frame = plain_frame(FrameType::Hello, payload);
    for kind in PipeKind::ALL {
        let _ = check_layout(&frame, kind);
    }
    // The input as a whole frame, header included.
    let _ = check_layout(payload, PipeKind::Direct);
});
