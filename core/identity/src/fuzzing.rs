//! Bodies of the fuzz targets, shared with the property tests: they panic when a promise is broken.

use bytes::Bytes;
use sealtide_ibgib::Verified;

use crate::keystone::{Chain, Frame, read_first, read_next};

/// Any bytes as an encoded keystone frame. Whatever is read can be judged, and what is judged good is read again.
pub fn keystone(input: &[u8]) {
    let encoded = Bytes::copy_from_slice(input);
    let _ = read_first(encoded.clone());
    if let Ok(frame) = read_next(encoded) {
        judge(frame.record());
    }
}

/// Any text as the data of a keystone frame: its hash is made to fit, so that the reader is reached.
pub fn keystone_data(previous: &[Verified], text: &str) {
    let Some(last) = previous.last() else { return };
    for relations in previous.iter().map(|record| record.relations().clone()) {
        let Ok(record) = Verified::make_canonical(last.address().ib(), text, &relations) else { continue };
        judge(&record);
        let Some(first) = previous.first() else { return };
        let mut chain = Chain::new(first.address().clone());
        for known in previous {
            let _ = chain.add(known);
        }
        let frames = chain.frames().count();
        let state = chain.state();
        let _ = chain.add(&record);
        let taken = chain.frames().count() > frames;
        assert!(!taken || chain.state() != state || previous.contains(&record), "a made-up frame was taken");
    }
}

fn judge(record: &Verified) {
    let Ok(frame) = Frame::read(record) else { return };
    let again = Frame::read(record).expect("what was read once is read again");
    assert_eq!(frame.proofs, again.proofs);
    let _ = (frame.signed_content(None), frame.claim(), frame.proven_by());
    let mut chain = Chain::new(record.address().clone());
    let _ = chain.add(record);
}
