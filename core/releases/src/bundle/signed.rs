//! A JSON object with its signatures: what was signed are the bytes that came, and one spelling only is taken.
//! Spec: gateway §7.3.

use sealtide_crypto::{Label, sha256};
use sealtide_ibgib::Object;
use sealtide_ibgib::json::{Js, write_rfc8785};
use sealtide_identity::keyring::{Pair, PairRefused, PublicPair, RecordSignature, parse_time};
use serde_json::Value;

/// Greatest integer in a signed object: 2^53 − 1.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// A manifest or a channel head as it was read: well-formed, and not verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Signed<T> {
    content: T,
    bytes: String,
    signatures: Vec<RecordSignature>,
}

/// An object that is none, by the member that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {member}")]
pub struct NotSigned {
    /// What was read.
    pub what: &'static str,
    /// The member that is missing, unknown or of another form.
    pub member: &'static str,
}

/// What can stand in [`Signed`].
pub trait Content: Sized {
    /// What it is called.
    const WHAT: &'static str;
    /// The label it is signed under.
    const LABEL: Label;

    /// The object without `signatures`.
    fn to_value(&self) -> Value;

    /// Reads the object; every member must be taken.
    ///
    /// # Errors
    /// The member that is wrong.
    fn read(members: &mut Members) -> Result<Self, &'static str>;
}

impl<T: Content> Signed<T> {
    /// Signs by a pair.
    pub fn sign(content: T, pair: &Pair) -> Self {
        let bytes = write_rfc8785(&Js::from(&content.to_value())).expect("texts and small integers");
        let signatures = pair.sign(T::LABEL, bytes.as_bytes());
        Self { content, bytes, signatures }
    }

    /// Puts signed bytes and signatures together, as a bundle holds them.
    ///
    /// # Errors
    /// [`NotSigned`], for bytes in another spelling too.
    pub fn parse(bytes: &[u8], signatures: Vec<RecordSignature>) -> Result<Self, NotSigned> {
        let wrong = |member| NotSigned { what: T::WHAT, member };
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("its text"))?;
        let value: Value = serde_json::from_str(text).map_err(|_| wrong("its text"))?;
        if write_rfc8785(&Js::from(&value)).as_deref() != Some(text) {
            return Err(wrong("its spelling"));
        }
        let Value::Object(object) = value else { return Err(wrong("its text")) };
        let mut members = Members(object);
        let content = T::read(&mut members).map_err(wrong)?;
        if !members.0.is_empty() {
            return Err(wrong("an unknown member"));
        }
        Ok(Self { content, bytes: text.to_owned(), signatures })
    }

    /// Reads the object with its `signatures`, as documents and timelines hold it.
    ///
    /// # Errors
    /// [`NotSigned`].
    pub fn from_value(value: &Value) -> Result<Self, NotSigned> {
        let wrong = |member| NotSigned { what: T::WHAT, member };
        let mut object = value.as_object().ok_or(wrong("its text"))?.clone();
        let list = object.shift_remove("signatures").ok_or(wrong("signatures"))?;
        let list = list.as_array().filter(|list| list.len() == 2).ok_or(wrong("signatures"))?;
        let signatures: Option<Vec<_>> = list.iter().map(RecordSignature::read).collect();
        let bytes = write_rfc8785(&Js::from(&Value::Object(object))).ok_or(wrong("its text"))?;
        Self::parse(bytes.as_bytes(), signatures.ok_or(wrong("signatures"))?)
    }

    /// The object with its `signatures`.
    pub fn to_value(&self) -> Value {
        let mut value: Value = serde_json::from_str(&self.bytes).expect("its own text");
        value["signatures"] = self.signatures.iter().map(RecordSignature::to_value).collect();
        value
    }

    /// What it says; nothing of it is proven.
    pub fn content(&self) -> &T {
        &self.content
    }

    /// The bytes that were signed.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_bytes()
    }

    /// Its signatures.
    pub fn signatures(&self) -> &[RecordSignature] {
        &self.signatures
    }

    /// SHA-256 of the signed bytes: the name by which others call it.
    pub fn hash(&self) -> [u8; 32] {
        sha256(self.bytes.as_bytes())
    }

    /// Checks both signatures with the keys of the verifier.
    ///
    /// # Errors
    /// [`PairRefused`].
    pub fn verify(&self, pair: &PublicPair) -> Result<(), PairRefused> {
        pair.verify(T::LABEL, self.bytes.as_bytes(), &self.signatures)
    }
}

/// Members that were not read yet.
pub struct Members(Object);

impl Members {
    /// Takes a member.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, &'static str> {
        self.0.shift_remove(name).and_then(|value| read(&value)).ok_or(name)
    }

    /// Takes a member that may be null.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, &'static str> {
        match self.0.shift_remove(name).ok_or(name)? {
            Value::Null => Ok(None),
            value => read(&value).map(Some).ok_or(name),
        }
    }

    /// Takes a member that must have this text.
    pub(super) fn is(&mut self, name: &'static str, text: &str) -> Result<(), &'static str> {
        self.read(name, |value| (value.as_str() == Some(text)).then_some(()))
    }
}

pub(super) fn integer(value: &Value) -> Option<u64> {
    value.as_u64().filter(|number| *number <= INTEGER_MAX)
}

/// A time as text; what is kept is the text, for it is what was signed.
pub(super) fn time(value: &Value) -> Option<u64> {
    parse_time(value.as_str()?)
}

pub(super) fn hex32(value: &Value) -> Option<[u8; 32]> {
    data_encoding::HEXLOWER.decode(value.as_str()?.as_bytes()).ok()?.try_into().ok()
}

/// The address of a first frame: `ib^gib`, bounded.
pub(super) fn address(value: &Value) -> Option<String> {
    value.as_str().filter(|text| text.len() <= 512 && text.contains('^')).map(str::to_owned)
}
