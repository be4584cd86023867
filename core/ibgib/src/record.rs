//! From a JavaScript record to its encoded form. Spec: ibgib §12.2.1.

use crate::cbor::{Kind, Parts, encode};
use crate::hash::sha256v1;
use crate::json::{Js, JsObject};
use crate::{Address, AddressError, Sid, encoded::sid_of};

/// The parts of the encoding of any record that has one, strictly acceptable or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encodable {
    ib: String,
    gib: String,
    kind: Kind,
    data: Vec<u8>,
    relations: String,
}

impl Encodable {
    /// Takes a record apart; `None` when the ib or gib is no well-formed text, so there is no encoded form.
    pub fn of(record: &JsObject) -> Option<Self> {
        let part = |name: &str| record.named(name).as_string().and_then(|text| text.as_str()).map(str::to_owned);
        let hashed = sha256v1(record, "");
        let (kind, data) = match (record.named("data"), hashed.canon_data) {
            (Js::Bytes(bytes), _) => (Kind::Bytes, bytes.clone()),
            (_, Some(text)) => (Kind::Json, text.into_bytes()),
            (_, None) => (Kind::None, Vec::new()),
        };
        let relations = hashed.canon_rel8ns.unwrap_or_default();
        Some(Self { ib: part("ib")?, gib: part("gib")?, kind, data, relations })
    }

    /// The address `ib^gib`.
    ///
    /// # Errors
    /// [`AddressError`] when it is not valid by ibgib §1.3.
    pub fn address(&self) -> Result<Address, AddressError> {
        Address::of(&self.ib, &self.gib)
    }

    /// The strong id. Spec: ibgib §12.2.
    pub fn sid(&self) -> Sid {
        sid_of(&format!("{}^{}", self.ib, self.gib), self.kind, &self.data, &self.relations)
    }

    /// The encoded record, for `Verified::accept` to judge.
    pub fn encode(&self) -> Vec<u8> {
        encode(&Parts { ib: &self.ib, gib: &self.gib, kind: self.kind, data: &self.data, relations: &self.relations })
    }
}
