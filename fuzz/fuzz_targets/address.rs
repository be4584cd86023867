//! Addresses of 20 bytes. Spec: LK-28.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealtide_identity::{LearnedFrom, LinkAddress};

fuzz_target!(|bytes: [u8; 20]| {
    if let Some(address) = LinkAddress::from_bytes(&bytes) {
        assert_eq!(address.to_bytes(), bytes);
        assert!(address.may_be_dialled(LearnedFrom::Ticket) || !address.may_be_dialled(LearnedFrom::Punch));
    }
});
