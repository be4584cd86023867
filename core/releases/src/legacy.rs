//! Transaction manifests that the older system wrote. Spec: gateway §9.1.
//!
//! It signed the compact JSON without `signature` **and** `signedAt`, members in the order in which they stand; its own verifier
//! left `signedAt` in, and so took none of them. HMAC proves something only to whoever has the secret, so it never speaks
//! for a bundle.

use sealtide_ibgib::json::{Js, JsObject, JsString, Rules, parse, write};
use sealtide_identity::keyring::{VersionKeys, decode_hmac};

/// Bytes of such a manifest, at most.
pub const LEGACY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Members that each has.
const NEEDED: [&str; 7] =
    ["transactionId", "type", "timestamp", "status", "affectedEntities", "backedUpFiles", "fileChanges"];
/// Members that one may have too.
const OPTIONAL: [&str; 3] = ["entityId", "signature", "signedAt"];
/// Members that only the manifest of a bundle has.
const OF_A_BUNDLE: [&str; 3] = ["manifestVersion", "registry", "files"];

/// A transaction manifest, well-formed and not verified.
#[derive(Clone, Debug, PartialEq)]
pub struct LegacyManifest {
    id: String,
    content: String,
    signature: Option<String>,
}

/// Why a text is no transaction manifest, or does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LegacyRefused {
    /// No JSON, too long, a member too many or too few.
    #[error("it is no manifest of a transaction")]
    Form,
    /// The manifest of a bundle, however it is signed: such a one counts in its file alone, by a pair.
    #[error("it is untrusted: the manifest of a bundle counts by the two signatures of a pair alone, never by HMAC")]
    Untrusted,
    /// Nobody signed it.
    #[error("it has no signature")]
    NotSigned,
    /// The signature is no HMAC, or another one.
    #[error("its HMAC does not hold")]
    Signature,
}

impl LegacyRefused {
    /// Its word, for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Form => "not_a_manifest",
            Self::Untrusted => "untrusted",
            Self::NotSigned => "not_signed",
            Self::Signature => "bad_signature",
        }
    }
}

impl LegacyManifest {
    /// Reads the text of a manifest.
    ///
    /// # Errors
    /// [`LegacyRefused::Form`], [`LegacyRefused::Untrusted`].
    // Spec: GW-73
    pub fn read(text: &str) -> Result<Self, LegacyRefused> {
        let value = if text.len() <= LEGACY_BYTES_MAX { parse(text, Rules::Strict).ok() } else { None };
        let Some(Js::Object(mut object)) = value else { return Err(LegacyRefused::Form) };
        let has = |object: &JsObject, name: &str| object.get(&JsString::from(name)).is_some();
        if OF_A_BUNDLE.iter().any(|name| has(&object, name)) {
            return Err(LegacyRefused::Untrusted);
        }
        let is_known =
            |name: &JsString| name.as_str().is_some_and(|name| NEEDED.contains(&name) || OPTIONAL.contains(&name));
        if !NEEDED.iter().all(|name| has(&object, name)) || !object.iter().all(|(name, _)| is_known(&name)) {
            return Err(LegacyRefused::Form);
        }
        let text = |value: &Js| value.as_string().and_then(JsString::as_str).map(str::to_owned);
        let id = text(object.named("transactionId")).ok_or(LegacyRefused::Form)?;
        let signature = object.remove(&JsString::from("signature"));
        // A signature that is no text is none that could hold.
        let signature = signature.map(|value| text(&value).unwrap_or_default());
        object.remove(&JsString::from("signedAt"));
        let content = write(&Js::Object(object)).ok_or(LegacyRefused::Form)?;
        Ok(Self { id, content, signature })
    }

    /// The name of the transaction.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The signed text: without `signature` and `signedAt`, of which nothing is proven.
    pub fn content(&self) -> &str {
        &self.content
    }

    /// Checks the HMAC with the secret that made it.
    ///
    /// # Errors
    /// [`LegacyRefused::NotSigned`], [`LegacyRefused::Signature`].
    // Spec: GW-73
    pub fn verify(&self, keys: &VersionKeys) -> Result<(), LegacyRefused> {
        let signature = self.signed()?;
        if keys.hmac_verifies(self.content.as_bytes(), signature) { Ok(()) } else { Err(LegacyRefused::Signature) }
    }

    /// The signature, when it has the form of one.
    ///
    /// # Errors
    /// [`LegacyRefused::NotSigned`], [`LegacyRefused::Signature`].
    pub fn signed(&self) -> Result<&str, LegacyRefused> {
        let signature = self.signature.as_deref().ok_or(LegacyRefused::NotSigned)?;
        decode_hmac(signature).map(|_| signature).ok_or(LegacyRefused::Signature)
    }
}
