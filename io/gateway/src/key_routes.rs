//! What anybody may ask about keys: which count, what the ledger says, whether a signature holds. Spec: gateway §1.2 E8,
//! E9, E21.

use data_encoding::BASE64;
use http::StatusCode;
use sealtide_crypto::GatewayContext;
use sealtide_ibgib::json::{Js, JsObject, JsString, write};
use sealtide_identity::keyring::{Algorithm, KeyVersion, VersionState};

use crate::app::{KeyDesk, ListedVersion, Question};
use crate::refusal::Code;
use crate::routes::{Answer, json};

/// Bytes of a question about a signature: the largest registry in base64, with room.
pub(crate) const QUESTION_BYTES_MAX: usize = 6 << 20;
/// Records in one answer about the ledger.
const RECORDS_MAX: usize = 256;

/// E8. HMAC keys have a name for readers only, and never bytes.
pub(crate) fn list(desk: &dyn KeyDesk, may_read: bool) -> Answer {
    let list = desk.list();
    let mut object = JsObject::new();
    object.set("active", Js::text(list.active.to_string()));
    object.set("epoch", Js::Number(list.epoch as f64));
    object.set("accepted", Js::Array(list.versions.iter().map(|listed| version(listed, may_read)).collect()));
    json(StatusCode::OK, &write(&Js::Object(object)).unwrap_or_default())
}

fn version(listed: &ListedVersion, may_read: bool) -> Js {
    let key = |algorithm: Algorithm, kid: &str, public: Option<&[u8]>| {
        let mut object = JsObject::new();
        object.set("alg", Js::text(algorithm.name()));
        object.set("kid", Js::text(kid));
        if let Some(public) = public {
            object.set("publicKey", Js::text(BASE64.encode(public)));
        }
        Js::Object(object)
    };
    let hmac = listed.hmac_kid.iter().filter(|_| may_read).map(|kid| key(Algorithm::HmacSha256, kid, None));
    let pair = listed.keys.iter().map(|entry| key(entry.algorithm, &entry.kid, Some(&entry.public_key)));
    let mut object = JsObject::new();
    object.set("keyVersion", Js::text(listed.version.to_string()));
    object.set("state", Js::text(listed.state.name()));
    if let Some(ms) = listed.not_after {
        object.set("notAfter", Js::Number(ms as f64));
    }
    object.set("keys", Js::Array(hmac.chain(pair).collect()));
    Js::Object(object)
}

/// E9. A signature that does not hold is an answer, not a fault.
// Spec: GW-55
pub(crate) fn verify(desk: &dyn KeyDesk, object: &JsObject) -> Result<Answer, Code> {
    const MEMBERS: [&str; 5] = ["payload", "signature", "keyVersion", "alg", "context"];
    let known = |name: &JsString| name.as_str().is_some_and(|name| MEMBERS.contains(&name));
    if object.iter().any(|(name, _)| !known(&name)) {
        return Err(Code::InvalidField);
    }
    let text = |name: &str| object.named(name).as_string().and_then(JsString::as_str).ok_or(Code::InvalidField);
    let payload = BASE64.decode(text("payload")?.as_bytes()).map_err(|_| Code::InvalidField)?;
    let context = match object.named("context") {
        Js::Undefined => GatewayContext::Bump,
        _ => context_named(text("context")?).ok_or(Code::InvalidField)?,
    };
    let question = Question {
        payload: &payload,
        context,
        algorithm: Algorithm::named(text("alg")?).ok_or(Code::InvalidField)?,
        version: KeyVersion::parse(text("keyVersion")?).ok_or(Code::InvalidField)?,
        signature: text("signature")?,
    };
    let verdict = desk.verify(&question);
    let mut answer = JsObject::new();
    answer.set("valid", Js::Bool(verdict.valid));
    answer.set("keyVersion", Js::text(question.version.to_string()));
    answer.set("state", Js::text(verdict.state.map_or("unknown", VersionState::name)));
    Ok(json(StatusCode::OK, &write(&Js::Object(answer)).unwrap_or_default()))
}

fn context_named(word: &str) -> Option<GatewayContext> {
    match word {
        "bump" => Some(GatewayContext::Bump),
        "registry" => Some(GatewayContext::Registry),
        "manifest" => Some(GatewayContext::Manifest),
        _ => None,
    }
}

/// E21.
// Spec: GW-109
pub(crate) fn ledger(desk: &dyn KeyDesk, query: &str) -> Result<Answer, Code> {
    let records = desk.ledger(number(query, "since")?.unwrap_or(0), RECORDS_MAX)?;
    Ok(json(StatusCode::OK, &format!("[{}]", records.join(","))))
}

/// A whole number in a query; none when it is not there.
pub(crate) fn number(query: &str, name: &str) -> Result<Option<u64>, Code> {
    let mut found = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(key, _)| *key == name);
    let Some((_, text)) = found.next() else { return Ok(None) };
    let plain = !text.is_empty() && text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || found.next().is_some() {
        return Err(Code::InvalidField);
    }
    text.parse().map(Some).map_err(|_| Code::InvalidField)
}
