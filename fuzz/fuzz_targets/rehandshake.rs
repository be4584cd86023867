//! The four frames of the re-handshake, CERT_UPDATE, ADDR_UPDATE and PUNCH: the payload is the input. Spec: LK-28.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealtide_wire::frame::{FrameType, plain_frame};
use sealtide_wire::handshake::{AddressUpdate, check_update_layout};
use sealtide_wire::rehandshake::{Punch, check_layout};

fuzz_target!(|payload: &[u8]| {
    for kind in [
        FrameType::RehandshakeRequest,
        FrameType::RehandshakeResponse,
        FrameType::RehandshakeComplete,
        FrameType::RehandshakeReject,
    ] {
        let _ = check_layout(&plain_frame(kind, payload));
    }
    let _ = check_layout(payload);
    let _ = check_update_layout(payload);
    let _ = AddressUpdate::read(payload);
    let _ = Punch::read(payload);
});
