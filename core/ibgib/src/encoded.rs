//! The encoded record and the type that proves it was accepted. Spec: ibgib §12.2.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sealtide_crypto::Sha256;
use serde_json::Value;

use crate::accept::{self, Hashing};
use crate::cbor::Kind;
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
/// It is made by [`Verified::accept`] and the makers of this crate ([`Verified::make`], `genesis`, `evolve`, `stone`, …), and a store
/// commits nothing else. One way in checks no hash: [`Verified::from_own_log`], by which a store takes back what it wrote. Whoever calls
/// that says that the bytes were accepted before and are the same still; for any others the type proves nothing any more.
#[derive(Clone)]
pub struct Verified(Arc<Inner>);

/// What acceptance learnt about the bytes.
pub(crate) struct Inner {
    pub(crate) encoded: Bytes,
    pub(crate) address: Address,
    pub(crate) kind: Kind,
    /// Where D lies in `encoded`.
    pub(crate) data: Range<usize>,
    /// Where R lies in `encoded`.
    pub(crate) relations_text: Range<usize>,
    pub(crate) relations: Relations,
    pub(crate) frame: Option<FrameFacts>,
    pub(crate) sid: OnceLock<Sid>,
    pub(crate) order: OnceLock<u64>,
}

impl Verified {
    /// Checks an encoded record by ibgib §12.2.2, every row that needs no other record.
    ///
    /// Keeps a view of `encoded`, so a record cut from a large buffer should be copied out first.
    ///
    /// # Errors
    /// The first refusal in the order of the table.
    // Spec: SY-14
    pub fn accept(encoded: Bytes) -> Result<Self, Refusal> {
        accept::check(encoded, Hashing::Recompute).map(|inner| Self(Arc::new(inner)))
    }

    /// For stores alone: takes back bytes that this node itself accepted before, read from its own log, where a checksum vouches for
    /// them. Checks the form, and **no hash**: of any other bytes it makes records whose address says something else than they do. The
    /// sid is computed when asked for.
    ///
    /// # Errors
    /// A [`Refusal`] when the bytes are no record at all.
    #[doc(hidden)]
    pub fn from_own_log(encoded: Bytes) -> Result<Self, Refusal> {
        accept::check(encoded, Hashing::Trust).map(|inner| Self(Arc::new(inner)))
    }

    /// As [`Verified::from_own_log`], for bytes that are kept under their sid, which is believed too: it is not computed again.
    ///
    /// # Errors
    /// As [`Verified::from_own_log`].
    #[doc(hidden)]
    pub fn from_own_log_as(encoded: Bytes, sid: Sid) -> Result<Self, Refusal> {
        let inner = accept::check(encoded, Hashing::Trust)?;
        Ok(Self(Arc::new(Inner { sid: OnceLock::from(sid), ..inner })))
    }

    /// Makes a record: computes the gib by ibgib §2.4 (in a timeline when `rel8ns.tjp` is not empty or `data.isTjp`
    /// is truthy), encodes and checks it like a foreign one.
    ///
    /// Data that does not count as data (`{}`, `null`, …) and relations that are all empty are left out.
    ///
    /// # Errors
    /// The [`Refusal`] that any node would give this record.
    pub fn make(ib: &str, data: Data, relations: Relations) -> Result<Self, Refusal> {
        accept::make(ib, &data, &relations).map(|inner| Self(Arc::new(inner)))
    }

    /// As [`Verified::make`], for JSON data that is canonical text already: nothing is parsed into values.
    ///
    /// # Errors
    /// The [`Refusal`] that any node would give this record; `not_canonical` when `data` is not its own canonical text.
    pub fn make_canonical(ib: &str, data: &str, relations: &Relations) -> Result<Self, Refusal> {
        accept::make_canonical(ib, data, relations).map(|inner| Self(Arc::new(inner)))
    }

    /// The one encoding: deterministic CBOR `[ib, gib, kind, D, R]`.
    pub fn encoded(&self) -> &Bytes {
        &self.0.encoded
    }

    /// The strong id.
    // Spec: SY-12
    pub fn sid(&self) -> Sid {
        let address = self.address().as_str();
        *self.0.sid.get_or_init(|| sid_of(address, self.0.kind, self.data_bytes(), self.relations_text()))
    }

    /// The address `ib^gib`.
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// What kind of data there is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// D: the canonical JSON text, the bytes, or nothing.
    pub fn data_bytes(&self) -> &[u8] {
        &self.0.encoded[self.0.data.clone()]
    }

    /// The canonical JSON text of the data, when it is JSON.
    pub fn data_text(&self) -> Option<&str> {
        (self.0.kind == Kind::Json).then(|| utf8(self.data_bytes()))
    }

    /// R: the canonical text of the relations, or nothing.
    pub fn relations_text(&self) -> &str {
        utf8(&self.0.encoded[self.0.relations_text.clone()])
    }

    /// The data: JSON values are parsed when asked for.
    pub fn data(&self) -> Data {
        match self.0.kind {
            Kind::None => Data::None,
            Kind::Json => Data::Json(json(self.data_bytes())),
            Kind::Bytes => Data::Bytes(self.0.encoded.slice(self.0.data.clone())),
        }
    }

    /// The data when it is a JSON object, else `None`.
    pub fn object(&self) -> Option<crate::Object> {
        match self.data() {
            Data::Json(Value::Object(object)) => Some(object),
            _ => None,
        }
    }

    /// All relations.
    pub fn relations(&self) -> &Relations {
        &self.0.relations
    }

    /// Every address that this record relates to, primitives left out, repeats left out.
    pub fn links(&self) -> Vec<Address> {
        let all = self.relations().values().flatten().filter(|address| !address.is_primitive());
        all.collect::<BTreeSet<_>>().into_iter().cloned().collect()
    }

    /// The order key of ibgib §12.2.1.
    // Spec: SY-12
    pub fn order_key(&self) -> u64 {
        *self.0.order.get_or_init(|| crate::order_key(self.address(), self.0.frame.is_some()))
    }

    /// What this record is in its timeline; `None` for stones. Spec: ibgib §1.4.
    pub fn frame(&self) -> Option<FrameFacts> {
        self.0.frame.clone()
    }

    /// As [`Verified::frame`], without a copy.
    pub fn frame_ref(&self) -> Option<&FrameFacts> {
        self.0.frame.as_ref()
    }

    /// The `bad_n` row that needs another record: whether the counter follows that of the last past frame. `load`
    /// gives the facts of frames that are present; an absent one passes, and is asked for again before commit.
    ///
    /// # Errors
    /// [`Refusal::BadN`].
    // Spec: SY-14
    pub fn check_counter(&self, load: &mut dyn FnMut(&Address) -> Option<FrameFacts>) -> Result<(), Refusal> {
        let Some(facts) = self.frame_ref() else { return Ok(()) };
        let Some(before) = facts.past.last().and_then(load) else { return Ok(()) };
        if before.n.checked_add(1) == Some(facts.n) { Ok(()) } else { Err(Refusal::BadN) }
    }

    /// The record as people see it: `{"ib":…,"gib":…,"data":…,"rel8ns":…}`. Bytes appear as base64 under `data_base64`.
    pub fn to_json(&self) -> Value {
        let mut members = crate::Object::new();
        members.insert("ib".into(), self.address().ib().into());
        members.insert("gib".into(), self.address().gib().into());
        match self.data() {
            Data::None => {}
            Data::Json(value) => {
                members.insert("data".into(), value);
            }
            Data::Bytes(bytes) => {
                members.insert("data_base64".into(), data_encoding::BASE64.encode(&bytes).into());
            }
        }
        if !self.relations_text().is_empty() {
            members.insert("rel8ns".into(), json(self.relations_text().as_bytes()));
        }
        Value::Object(members)
    }
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verified({})", self.address())
    }
}

impl PartialEq for Verified {
    fn eq(&self, other: &Self) -> bool {
        self.encoded() == other.encoded()
    }
}

impl Eq for Verified {}

/// The strong id of these parts; the relations text is empty when there are none. Spec: ibgib §12.2.
pub(crate) fn sid_of(address: &str, kind: Kind, data: &[u8], relations: &str) -> Sid {
    let mut hasher = Sha256::new();
    let part = |hasher: &mut Sha256, bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
    };
    hasher.update(b"sealtide/sid/1\0");
    part(&mut hasher, address.as_bytes());
    hasher.update(&[kind.byte()]);
    part(&mut hasher, data);
    hasher.update(&[u8::from(!relations.is_empty())]);
    part(&mut hasher, relations.as_bytes());
    Sid(hasher.finish())
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("acceptance found this part to be text")
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).expect("acceptance found this part to be JSON of at most 64 levels")
}

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
