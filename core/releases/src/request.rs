//! What a caller of a bump asks for, over REST or WebSocket. Spec: gateway §1.3.

use sealtide_ibgib::json::{Js, JsObject, JsString};
use sealtide_identity::keyring::KeyVersion;

use crate::Scope;

/// Characters of an entity id in a request, at most.
const ID_BYTES_MAX: usize = 256;
/// Every member there is.
const MEMBERS: [&str; 9] = ["scope", "type", "entityId", "entity", "cascade", "dryRun", "all", "keyVersion", "crypto"];

/// How the answer is to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crypto {
    /// HMAC-SHA256.
    Hmac,
    /// Ed25519.
    Ed25519,
}

/// A bump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BumpRequest {
    /// Which part moves.
    pub scope: Scope,
    /// Which entity; none: the tree of the root.
    pub entity: Option<String>,
    /// Whether what is linked below moves too.
    pub cascade: bool,
    /// Whether nothing is to change.
    pub dry_run: bool,
    /// Whether every entity moves, independent ones too.
    pub all: bool,
    /// The version that should sign, at least.
    pub key_version: Option<KeyVersion>,
    /// How it should sign.
    pub crypto: Option<Crypto>,
}

impl Default for BumpRequest {
    fn default() -> Self {
        Self {
            scope: Scope::Patch,
            entity: None,
            cascade: true,
            dry_run: false,
            all: false,
            key_version: None,
            crypto: None,
        }
    }
}

/// A request that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// `scope` is no scope.
    #[error("scope must be major, minor or patch")]
    Scope,
    /// A member is unknown, of another type, or said twice in two spellings.
    #[error("{0}")]
    Field(&'static str),
}

impl BumpRequest {
    /// Reads the members of a request. `besides` are members that belong to the message around it; `header` is the
    /// value of `X-Key-Version`, which may not contradict `keyVersion`.
    ///
    /// # Errors
    /// [`FieldError`].
    // Spec: GW-68
    pub fn read(object: &JsObject, besides: &[&str], header: Option<&str>) -> Result<Self, FieldError> {
        // In a WebSocket message `type` names the message; the legacy spelling of `scope` is REST's alone.
        let is_message = besides.contains(&"type");
        let known =
            |name: &JsString| name.as_str().is_some_and(|name| MEMBERS.contains(&name) || besides.contains(&name));
        if object.iter().any(|(name, _)| !known(&name)) {
            return Err(FieldError::Field("an unknown member"));
        }
        let legacy = if is_message { None } else { text(object, "type")? };
        let scope = either(text(object, "scope")?, legacy, "scope and type differ")?;
        let entity = either(text(object, "entityId")?, text(object, "entity")?, "entityId and entity differ")?;
        let header = header.map(str::trim);
        let version = either(text(object, "keyVersion")?, header, "keyVersion and X-Key-Version differ")?;
        let request = Self {
            scope: scope.map_or(Ok(Scope::Patch), |word| Scope::named(word).ok_or(FieldError::Scope))?,
            entity: entity.map(str::to_owned),
            cascade: flag(object, "cascade")?.unwrap_or(true),
            dry_run: flag(object, "dryRun")?.unwrap_or(false),
            all: flag(object, "all")?.unwrap_or(false),
            key_version: version
                .map(|text| KeyVersion::parse(text).ok_or(FieldError::Field("keyVersion must be v1, v2, …")))
                .transpose()?,
            crypto: match text(object, "crypto")? {
                None => None,
                Some("hmac") => Some(Crypto::Hmac),
                Some("ed25519") => Some(Crypto::Ed25519),
                Some(_) => return Err(FieldError::Field("crypto must be hmac or ed25519")),
            },
        };
        if request.all && request.entity.is_some() {
            return Err(FieldError::Field("all and entityId exclude each other"));
        }
        if request.entity.as_ref().is_some_and(|id| id.len() > ID_BYTES_MAX) {
            return Err(FieldError::Field("entityId is too long"));
        }
        Ok(request)
    }
}

fn text<'a>(object: &'a JsObject, name: &'static str) -> Result<Option<&'a str>, FieldError> {
    match object.named(name) {
        Js::Undefined => Ok(None),
        Js::String(text) => text.as_str().map(Some).ok_or(FieldError::Field(name)),
        _ => Err(FieldError::Field(type_of(name))),
    }
}

fn flag(object: &JsObject, name: &'static str) -> Result<Option<bool>, FieldError> {
    match object.named(name) {
        Js::Undefined => Ok(None),
        Js::Bool(value) => Ok(Some(*value)),
        _ => Err(FieldError::Field(type_of(name))),
    }
}

fn type_of(name: &'static str) -> &'static str {
    match name {
        "cascade" => "cascade must be true or false",
        "dryRun" => "dryRun must be true or false",
        "all" => "all must be true or false",
        "scope" | "type" => "scope must be a text",
        "entityId" | "entity" => "entityId must be a text",
        "keyVersion" => "keyVersion must be a text",
        _ => "crypto must be a text",
    }
}

fn either<'a>(
    new: Option<&'a str>,
    legacy: Option<&'a str>,
    differ: &'static str,
) -> Result<Option<&'a str>, FieldError> {
    match (new, legacy) {
        (Some(new), Some(legacy)) if new != legacy => Err(FieldError::Field(differ)),
        (new, legacy) => Ok(new.or(legacy)),
    }
}
