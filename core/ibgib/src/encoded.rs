//! Strict acceptance of encoded records: the only way to a [`Verified`]. Spec: ibgib §12.2.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use crate::{Address, FrameFacts, Sid};

/// Bytes of one encoded record, at most. Spec: ibgib §12.2.2 `too_large`.
pub const RECORD_BYTES_MAX: usize = 768 * 1024;

/// Relation name → addresses, ordered by name.
pub type Relations = BTreeMap<String, Vec<Address>>;

/// The intrinsic content of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// No data by ibgib §2.1.
    None,
    /// Any JSON value that counts as data.
    Json(Value),
    /// Raw bytes.
    Bytes(Bytes),
}

/// A record that passed strict acceptance: bytes, address and strong id belong together. Cheap to clone.
///
/// There is no other way to make one than [`Verified::accept`] and the makers of this crate
/// (`genesis`, `evolve`, `stone`, …), and a store commits nothing else.
#[derive(Clone, Debug)]
pub struct Verified {
    _private: (),
}

impl Verified {
    /// Checks an encoded record by ibgib §12.2.2, every row that needs no other record.
    ///
    /// # Errors
    /// The first refusal in the order of the table.
    pub fn accept(encoded: Bytes) -> Result<Self, Refusal> {
        let _ = encoded;
        todo!()
    }

    /// Takes back bytes that this node itself accepted before (read from its own log, integrity checked there):
    /// parses, but does not hash again.
    ///
    /// # Errors
    /// A [`Refusal`] when the bytes are no record at all.
    pub fn trusted(encoded: Bytes) -> Result<Self, Refusal> {
        let _ = encoded;
        todo!()
    }

    /// The one encoding: deterministic CBOR `[ib, gib, kind, D, R]`.
    pub fn encoded(&self) -> &Bytes {
        todo!()
    }

    /// The strong id.
    pub fn sid(&self) -> Sid {
        todo!()
    }

    /// The address `ib^gib`.
    pub fn address(&self) -> &Address {
        todo!()
    }

    /// The data: JSON values are parsed when asked for.
    pub fn data(&self) -> Data {
        todo!()
    }

    /// The data when it is a JSON object, else `None`.
    pub fn object(&self) -> Option<crate::Object> {
        todo!()
    }

    /// All relations.
    pub fn relations(&self) -> &Relations {
        todo!()
    }

    /// Every address that this record relates to, primitives left out, repeats left out.
    pub fn links(&self) -> Vec<Address> {
        todo!()
    }

    /// The order key of ibgib §12.2.1.
    pub fn order_key(&self) -> u64 {
        todo!()
    }

    /// What this record is in its timeline; `None` for stones. Spec: ibgib §1.4.
    pub fn frame(&self) -> Option<FrameFacts> {
        todo!()
    }

    /// The record as people see it: `{"ib":…,"gib":…,"data":…,"rel8ns":…}`. Bytes appear as base64 under `data_base64`.
    pub fn to_json(&self) -> Value {
        todo!()
    }
}

impl PartialEq for Verified {
    fn eq(&self, other: &Self) -> bool {
        self.sid() == other.sid()
    }
}

impl Eq for Verified {}

/// Why a record is refused; each variant is a code of ibgib §12.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// More than [`RECORD_BYTES_MAX`] bytes.
    #[error("too_large")]
    TooLarge,
    /// D or R is not JSON we take.
    #[error("bad_json")]
    BadJson,
    /// Another spelling of the same record.
    #[error("not_canonical")]
    NotCanonical,
    /// The address breaks a rule.
    #[error("bad_addr")]
    BadAddr,
    /// The gib is `gib`.
    #[error("primitive")]
    Primitive,
    /// The recomputed gib differs.
    #[error("gib_mismatch")]
    GibMismatch,
    /// A relation is no list of valid addresses, or points at the record itself.
    #[error("bad_rel")]
    BadRel,
    /// `tjp` or `past` names another timeline.
    #[error("bad_tjp")]
    BadTjp,
    /// The frame counter does not fit.
    #[error("bad_n")]
    BadN,
    /// A binary record or page breaks ibgib §15.
    #[error("bad_bin")]
    BadBin,
}
