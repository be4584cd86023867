//! Which record is meant when several stand at one address. Spec: ibgib §12.2.1, SY-13.
//!
//! sha256v1 gives one address to records of different shape: relations only, the same JSON text as data only, and
//! the bytes of that text. All are kept; the reader decides which one it takes, never the order of arrival.

use std::cmp::Reverse;

use crate::{Data, Verified};

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Timelines, keystones, manifests, documents: JSON data, or relations without data. Never bytes.
    Json,
    /// The content of a one-record binary: bytes, nothing else.
    Bytes,
    /// One who follows relations: the shape with relations, so that nothing reached is missed.
    Graph,
}

/// The shape among `shapes`, the records of one address, that `reader` takes. `None` when there is none for it:
/// to this reader the address is missing, and asking for it again brings the right shape.
pub fn pick_shape(reader: Reader, shapes: &[Verified]) -> Option<&Verified> {
    shapes
        .iter()
        .filter_map(|shape| rank(reader, shape).map(|rank| (rank, shape)))
        .min_by_key(|(rank, shape)| (*rank, shape.sid()))
        .map(|(_, shape)| shape)
}

/// Smaller is better; `None` is never taken.
fn rank(reader: Reader, shape: &Verified) -> Option<(Reverse<bool>, u8)> {
    let bytes = matches!(shape.data(), Data::Bytes(_));
    let related = Reverse(shape.relations().values().any(|addresses| !addresses.is_empty()));
    match reader {
        Reader::Json => (!bytes).then_some((related, 0)),
        Reader::Bytes => bytes.then_some((related, 0)),
        Reader::Graph => Some((related, u8::from(bytes))),
    }
}
