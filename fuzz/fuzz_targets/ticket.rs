//! Tickets and relay addresses, as text and as payload under a right check. Spec: LK-28.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealtide_identity::{RelayAddress, Ticket, encode_text};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Ticket::decode(text);
        let _ = RelayAddress::decode(text);
    }
    let ticket = encode_text("stt1", bytes);
    if let Ok(read) = Ticket::decode(&ticket) {
        assert_eq!(read.encode(), ticket);
    }
    let relay = encode_text("str1", bytes);
    if let Ok(read) = RelayAddress::decode(&relay) {
        assert_eq!(read.encode(), relay);
    }
});
