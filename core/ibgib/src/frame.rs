//! Frames of our own timelines: one record per change. Spec: ibgib §12.7, DESIGN of folders.

use sealtide_crypto::Entropy;

use crate::{Address, Data, Object, Relations, TimelineId, Verified};

/// A time stamp in a record: `data.timestamp` (RFC 7231, seconds) and `data.timestampMs` (0 to 999).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Milliseconds since 1970-01-01 UTC; years 1970 to 9999.
    pub ms: u64,
}

/// What a record is in its timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameFacts {
    /// The address of the first frame (its own for a first frame).
    pub tjp: Address,
    /// SHA-256 of that address.
    pub timeline: TimelineId,
    /// `data.n`, 0 for the first frame.
    pub n: u64,
    /// `rel8ns.past`, in order; empty for the first frame.
    pub past: Vec<Address>,
    /// `rel8ns.graftorphan`: tips that were merged or settled into this frame.
    pub orphans: Vec<Address>,
    /// `data.timestamp` and `timestampMs`, when they can be read.
    pub stamp: Option<Stamp>,
}

/// Makes the first frame of a timeline. Adds `isTjp`, `n: 0`, `uuid`, the time stamp and `ancestor: [ib^gib]`.
///
/// # Panics
/// When `ib` holds `^` or the record would break strict acceptance: a bug of the caller.
pub fn genesis(ib: &str, data: Object, relations: Relations, stamp: Stamp, uuid: &str) -> Verified {
    let _ = (ib, data, relations, stamp, uuid);
    todo!()
}

/// Makes the next frame: the new members replace the old ones whole, `n` + 1, `past: [prev]`, `tjp` linked,
/// `ancestor` and `uuid` kept. The stamp is never earlier than that of `prev`.
///
/// # Panics
/// When `prev` is no frame of a timeline or the record would break strict acceptance: a bug of the caller.
pub fn evolve(prev: &Verified, data: Object, relations: Relations, stamp: Stamp) -> Verified {
    let _ = (prev, data, relations, stamp);
    todo!()
}

/// Makes a record that is in no timeline.
///
/// # Panics
/// When the record would break strict acceptance: a bug of the caller.
pub fn stone(ib: &str, data: Data, relations: Relations) -> Verified {
    let _ = (ib, data, relations);
    todo!()
}

/// Makes the first frame of a space: ib `space`, data `{name, kind, by}`. The space id is the hash in its gib.
pub fn space_genesis(name: &str, kind: &str, by: &str, stamp: Stamp, uuid: &str) -> Verified {
    let _ = (name, kind, by, stamp, uuid);
    todo!()
}

/// A new uuid: 16 random bytes, by ibgib §1.5.
pub fn uuid(entropy: &mut dyn Entropy) -> String {
    let _ = entropy;
    todo!()
}

/// The tips of a timeline after more frames arrived: those of `known` (its tips so far) and `new` that are not an
/// ancestor (through `past` and `graftorphan`) of another. The result does not depend on the order of arrival;
/// it is sorted by address. `load` gives the facts of any frame of the timeline that the space holds.
pub fn settle_tips(
    known: &[Address],
    new: &[Address],
    load: &mut dyn FnMut(&Address) -> Option<FrameFacts>,
) -> Vec<Address> {
    let _ = (known, new, load);
    todo!()
}
