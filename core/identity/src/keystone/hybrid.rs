//! The hybrid block: an ML-DSA-87 signature beside the hash proof. Spec: ibgib §12.3.

use std::ops::Range;

use data_encoding::BASE64URL_NOPAD;
use sealtide_crypto::{Label, PUBLIC_KEY_BYTES, PublicKey, SIGNATURE_BYTES, SigningKey, sha256};
use sealtide_ibgib::Address;

use super::frame::Frame;
use super::text::{Cursor, FormError};

/// The algorithm of every block.
const ALG: &str = "ML-DSA-87";

/// Data member `st`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Version, 1.
    pub v: u32,
    /// The algorithm's name.
    pub alg: String,
    /// The first 32 hex digits of SHA-256 of the key that verifies it.
    pub kid: String,
    /// The key, in a first frame and in one that changes it; base64url.
    pub pk: Option<String>,
    /// The signature; base64url.
    pub sig: String,
}

impl Block {
    pub(super) fn read(text: &str, place: Range<usize>) -> Result<Self, FormError> {
        let mut cursor = Cursor::new(text, place);
        cursor.expect("{\"alg\":")?;
        let alg = cursor.plain()?.to_owned();
        cursor.expect(",\"kid\":")?;
        let kid = cursor.plain()?.to_owned();
        let pk = if cursor.takes(",\"pk\":") { Some(cursor.plain()?.to_owned()) } else { None };
        cursor.expect(",\"sig\":")?;
        let sig = cursor.plain()?.to_owned();
        cursor.expect(",\"v\":")?;
        let v = cursor.number()?;
        cursor.expect("}")?;
        cursor.end()?;
        Ok(Self { v, alg, kid, pk, sig })
    }

    /// The block of a frame that `key` will sign; `names_key` puts the public key in.
    pub(super) fn unsigned_for(key: &PublicKey, names_key: bool) -> Self {
        let pk = names_key.then(|| BASE64URL_NOPAD.encode(key.as_bytes()));
        Self { v: 1, alg: ALG.to_owned(), kid: kid(key), pk, sig: String::new() }
    }

    /// The canonical text without `sig`.
    pub(super) fn unsigned(&self) -> String {
        self.text(None)
    }

    /// The canonical text.
    pub(super) fn signed(&self, signature: &str) -> String {
        self.text(Some(signature))
    }

    fn text(&self, signature: Option<&str>) -> String {
        let member =
            |name: &str, value: Option<&str>| value.map(|value| format!(",\"{name}\":\"{value}\"")).unwrap_or_default();
        let (pk, sig) = (member("pk", self.pk.as_deref()), member("sig", signature));
        format!("{{\"alg\":\"{}\",\"kid\":\"{}\"{pk}{sig},\"v\":{}}}", self.alg, self.kid, self.v)
    }

    /// The public key that it names.
    pub(super) fn public_key(&self) -> Option<PublicKey> {
        PublicKey::parse(&decode(self.pk.as_ref()?, PUBLIC_KEY_BYTES)?).ok()
    }

    /// Whether it is well made and its signature over `content` was made by `key`.
    // Spec: SY-24
    pub(super) fn verifies(&self, key: &PublicKey, content: &[u8]) -> bool {
        let well_made = self.v == 1 && self.alg == ALG && self.kid == kid(key);
        let signature = decode(&self.sig, SIGNATURE_BYTES);
        well_made && signature.is_some_and(|signature| key.verify(Label::KeystoneFrame, content, &signature).is_ok())
    }
}

/// The first 32 hex digits of SHA-256 of a public key.
pub fn kid(key: &PublicKey) -> String {
    data_encoding::HEXLOWER.encode(&sha256(key.as_bytes())[..16])
}

/// What the signature covers: the previous address (or nothing), the data without `st.sig`, the relations.
pub(super) fn content(previous: Option<&Address>, data: &str, relations: &str) -> Vec<u8> {
    let mut content = Vec::with_capacity(data.len() + relations.len() + 256);
    lp(&mut content, previous.map_or("", Address::as_str));
    lp(&mut content, data);
    lp(&mut content, relations);
    content
}

impl Frame {
    /// The content that this frame's signature covers.
    pub fn signed_content(&self, previous: Option<&Address>) -> Vec<u8> {
        content(previous, &self.signed_data(), self.record.relations_text())
    }
}

/// The signature as the block holds it.
pub(super) fn sign(key: &SigningKey, content: &[u8]) -> String {
    BASE64URL_NOPAD.encode(key.sign(Label::KeystoneFrame, content).as_bytes())
}

/// Appends a length of eight bytes, big-endian, and the text.
pub(super) fn lp(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn decode(text: &str, bytes: usize) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok().filter(|decoded| decoded.len() == bytes)
}
