//! sha256v1 of any record JavaScript could hold, and the gib made from it. Spec: ibgib §2.
//!
//! This is the *compat* hasher. Strict acceptance hashes the received texts as they are (`strict_gib`), which is
//! the same thing because they were found canonical first.

use sealtide_crypto::{Sha256, sha256};

use crate::cbor::Kind;
use crate::json::{Js, JsObject, write_norm};

/// The parts of a hash, as `hashing.json` lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// Whether some relation is not empty.
    pub has_rel8ns: bool,
    /// Whether the data counts as data.
    pub has_data: bool,
    /// The exact text that is hashed for the relations, if one is.
    pub canon_rel8ns: Option<String>,
    /// The exact text that is hashed for the data, if one is; `None` for bytes.
    pub canon_data: Option<String>,
    /// Hash of the ib; empty for an empty ib.
    pub ib_hash: String,
    /// Hash of the relations; empty when not taken.
    pub rel8ns_hash: String,
    /// Hash of the data; empty when not taken.
    pub data_hash: String,
    /// The hash of the record, 64 upper-case hex digits, or empty when there is nothing at all.
    pub hash: String,
}

/// Why a gib cannot be made. Spec: ibgib §2.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GibError {
    /// The record has a TJP but `rel8ns.tjp` is an empty list.
    #[error("has_tjp_but_empty")]
    TjpEmpty,
    /// The last entry of `rel8ns.tjp` is falsy.
    #[error("tjp_first_falsy")]
    TjpFalsy,
    /// The record should have a TJP and names none.
    #[error("has_tjp_but_none")]
    TjpMissing,
    /// `rel8ns.tjp` is no list of addresses.
    #[error("type_error")]
    Type,
}

/// Hashes a record: its members `ib`, `data` and `rel8ns`; all others are ignored. Gibs use the empty salt.
// Spec: SY-1, SY-5
pub fn sha256v1(record: &JsObject, salt: &str) -> Hashed {
    let ib = record.named("ib").as_string().map(|ib| ib.to_text()).unwrap_or_default();
    let (data, rel8ns) = (record.named("data"), record.named("rel8ns"));
    let (has_data, has_rel8ns) = (has_data(data), has_rel8ns(rel8ns));
    let is_bytes = matches!(data, Js::Bytes(_));

    let canon_rel8ns = if has_rel8ns { write_norm(rel8ns) } else { None };
    let canon_data = if has_data && !is_bytes { write_norm(data) } else { None };
    let ib_hash = hash_text(&[salt, &ib]);
    let rel8ns_hash = canon_rel8ns.as_ref().map(|text| hash_text(&[salt, text])).unwrap_or_default();
    let data_hash = match data {
        Js::Bytes(bytes) => hash_bytes(&[salt.as_bytes(), bytes]),
        _ => canon_data.as_ref().map(|text| hash_text(&[salt, text])).unwrap_or_default(),
    };
    let hash = if has_rel8ns || has_data {
        hash_text(&[salt, &ib_hash, &rel8ns_hash, &data_hash])
    } else {
        hash_text(&[salt, &ib_hash])
    };
    Hashed { has_rel8ns, has_data, canon_rel8ns, canon_data, ib_hash, rel8ns_hash, data_hash, hash }
}

/// Whether data counts as data. Spec: ibgib §2.1.
pub fn has_data(data: &Js) -> bool {
    match data {
        Js::Bytes(_) => true,
        Js::Array(elements) => !elements.is_empty(),
        Js::Object(object) => !object.is_empty(),
        other => other.truthy(),
    }
}

/// Whether some relation value is truthy with `length > 0`. Spec: ibgib §2.1.
pub fn has_rel8ns(rel8ns: &Js) -> bool {
    match rel8ns {
        Js::Object(object) => object.iter().any(|(_, value)| has_length(value)),
        Js::Array(elements) => elements.iter().any(has_length),
        // The "members" of a string are its characters, each of length 1.
        Js::String(text) => !text.is_empty(),
        _ => false,
    }
}

/// JavaScript's `value?.length > 0`.
pub(crate) fn has_length(value: &Js) -> bool {
    match value {
        Js::Array(elements) => !elements.is_empty(),
        Js::Bytes(bytes) => !bytes.is_empty(),
        Js::String(text) => !text.is_empty(),
        Js::Object(object) => match object.named("length") {
            Js::Number(number) => *number > 0.0,
            Js::Bool(value) => *value,
            Js::String(text) => text.as_str().and_then(|text| text.trim().parse::<f64>().ok()).is_some_and(|n| n > 0.0),
            _ => false,
        },
        _ => false,
    }
}

/// The gib of a record. `has_tjp` is the caller's knowledge that the record is in a timeline. Spec: ibgib §2.4.
///
/// # Errors
/// [`GibError`] when the timeline cannot be told.
// Spec: SY-4
pub fn gib_of(record: &JsObject, has_tjp: bool) -> Result<String, GibError> {
    let hash = sha256v1(record, "").hash;
    let is_tjp = record.named("data").as_object().is_some_and(|data| data.named("isTjp").truthy());
    let tjp = record.named("rel8ns").as_object().map_or(&Js::Undefined, |rel8ns| rel8ns.named("tjp"));
    if !has_tjp && !is_tjp && !has_length(tjp) {
        return Ok(hash);
    }
    let tjp_gib = if tjp.truthy() {
        let entries = tjp.as_array().ok_or(GibError::Type)?;
        let last = entries.last().ok_or(GibError::TjpEmpty)?;
        if !last.truthy() {
            return Err(GibError::TjpFalsy);
        }
        let address = last.as_string().ok_or(GibError::Type)?.to_text();
        Some(address.rsplit_once('^').map_or(address.clone(), |(_, gib)| gib.to_owned()))
    } else if is_tjp {
        None
    } else {
        return Err(GibError::TjpMissing);
    };
    match tjp_gib {
        Some(tjp_gib) if !is_tjp => Ok(format!("{hash}.{tjp_gib}")),
        _ => Ok(hash),
    }
}

/// The bare hash of a record from the exact texts of its encoded form; `ib` is not empty.
pub(crate) fn strict_hash(ib: &str, kind: Kind, data: &[u8], relations: &str) -> [u8; 64] {
    let mut whole = Sha256::new();
    whole.update(&hex_upper(&sha256(ib.as_bytes())));
    if !relations.is_empty() {
        whole.update(&hex_upper(&sha256(relations.as_bytes())));
    }
    if kind != Kind::None {
        whole.update(&hex_upper(&sha256(data)));
    }
    hex_upper(&whole.finish())
}

fn hash_text(parts: &[&str]) -> String {
    if parts.iter().all(|part| part.is_empty()) {
        return String::new();
    }
    hash_bytes(&parts.iter().map(|part| part.as_bytes()).collect::<Vec<_>>())
}

fn hash_bytes(parts: &[&[u8]]) -> String {
    hex_upper(&sealtide_crypto::sha256_parts(parts)).iter().map(|byte| char::from(*byte)).collect()
}

pub(crate) fn hex_upper(bytes: &[u8; 32]) -> [u8; 64] {
    hex(bytes, b"0123456789ABCDEF")
}

pub(crate) fn hex_lower(bytes: &[u8; 32]) -> [u8; 64] {
    hex(bytes, b"0123456789abcdef")
}

fn hex(bytes: &[u8; 32], digits: &[u8; 16]) -> [u8; 64] {
    let mut out = [0; 64];
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = digits[usize::from(byte >> 4)];
        pair[1] = digits[usize::from(byte & 0xF)];
    }
    out
}
