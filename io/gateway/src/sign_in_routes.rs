//! `/api/auth/session`: a browser signs in, asks who it is, and signs out. Spec: gateway §1.4 (b).
//!
//! `POST` takes exactly one proof: a bearer in `Authorization`, from this machine `{"code"}` that a command of it drew, or
//! `{"name","passphrase"}`. Its body is JSON, so a form of a foreign page cannot send it, and a page of an origin that may
//! not connect is refused.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderValue, SET_COOKIE};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use sealtide_crypto::Passphrase;
use sealtide_ibgib::json::{Js, JsObject, JsString, write};

use crate::app::{App, DoorEvent};
use crate::handshake::Caller;
use crate::passphrase::Verifier;
use crate::principal::Principal;
use crate::refusal::Code;
use crate::routes::{Answer, OsEntropy, json, read_json, unstored};
use crate::server::Shared;
use crate::session::Broadcast;
use crate::sign_in::{Holder, cookie_value, principal_of, set_cookie};

/// The path.
pub(crate) const PATH: &str = "/api/auth/session";
/// Bytes of a passphrase, at most.
const PASSPHRASE_BYTES_MAX: usize = 1_024;

/// Serves it.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    app: &Arc<dyn App>,
    caller: &Caller,
    request: Request<Incoming>,
) -> Result<Answer, Code> {
    if request.method() == Method::GET {
        let headers = request.headers();
        let found = principal_of(&shared.door, &caller.peer, headers, &shared.admission.sign_ins, shared.mono_ms());
        let principal = found.map_err(|_| Code::Unauthenticated)?;
        return Ok(unstored(json(StatusCode::OK, &told(shared, &principal))));
    }
    // What changes a sign-in is asked by our own pages, or by programs, which name no page.
    let site = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
    let is_foreign = caller.origin.is_some() || matches!(site, Some(b"cross-site" | b"same-site"));
    if is_foreign && !caller.origin_allowed {
        return Err(Code::OriginDenied);
    }
    match *request.method() {
        Method::POST => sign_in(shared, app, caller, request).await,
        Method::DELETE => {
            let value = cookie_value(&shared.door, request.headers()).ok().flatten();
            let ended = value.and_then(|value| shared.admission.sign_ins.end(value));
            over(shared, ended.ok_or(Code::Unauthenticated)?);
            keep(shared, app).await?;
            app.note(event("access:signed_out", "#9D4EDD", caller, vec![]));
            with_cookie(shared, StatusCode::OK, r#"{"success":true}"#, None)
        }
        _ => Err(Code::Method),
    }
}

// Spec: GW-92
async fn sign_in(
    shared: &Arc<Shared>,
    app: &Arc<dyn App>,
    caller: &Caller,
    request: Request<Incoming>,
) -> Result<Answer, Code> {
    let limited = shared.door.limits(caller.peer.client, caller.peer.is_public);
    if limited && !shared.sign_in_tries.take(caller.peer.source(), shared.mono_ms()) {
        return Err(Code::RateLimited);
    }
    let headers = request.headers().clone();
    let (_, object) = read_json(shared, request).await?;
    let text = |name: &str| match object.named(name) {
        Js::Undefined => Ok(None),
        value => value.as_string().and_then(JsString::as_str).map(str::to_owned).map(Some).ok_or(Code::InvalidField),
    };
    let known = |name: &str| ["code", "name", "passphrase"].contains(&name);
    if object.iter().any(|(name, _)| !name.as_str().is_some_and(known)) {
        return Err(Code::InvalidField);
    }
    let bearer = headers.contains_key(AUTHORIZATION);
    let (way, holder) = match (bearer, text("code")?, text("name")?, text("passphrase")?) {
        (true, None, None, None) => ("bearer", by_bearer(shared, caller, &headers)),
        (false, Some(code), None, None) => ("code", by_code(app.as_ref(), caller, &code)),
        (false, None, Some(name), Some(passphrase)) => ("passphrase", by_passphrase(shared, name, passphrase).await?),
        _ => return Err(Code::InvalidField),
    };
    let role = holder.as_ref().and_then(|holder| holder.role(&shared.door));
    let Some((holder, role)) = holder.zip(role) else {
        app.note(event("access:sign_in_refused", "#FF4500", caller, vec![("way", way.to_owned())]));
        return Err(Code::Unauthenticated);
    };
    let (life, now) = (shared.door.settings.sign_in_ttl_ms, shared.mono_ms());
    let id = holder.id().to_owned();
    let begun = shared.admission.sign_ins.begin(holder, now + life, now, &mut OsEntropy).ok_or(Code::Overload)?;
    if let Some(gone) = begun.gone {
        over(shared, gone);
    }
    keep(shared, app).await?;
    app.note(event("access:signed_in", "#9D4EDD", caller, vec![("principal", id.clone()), ("way", way.to_owned())]));
    let principal = Principal { id: Some(id), role, ends_mono_ms: Some(now + life), sign_in: Some(begun.digest) };
    with_cookie(shared, StatusCode::OK, &told(shared, &principal), Some(&begun.value))
}

/// What was begun with a sign-in ends with it: the tokens that wait, and the sessions.
fn over(shared: &Shared, sign_in: [u8; 32]) {
    shared.admission.forget(&sign_in);
    let _ = shared.others.send(Broadcast::SignedOut(sign_in));
}

/// Who signed in stays signed in when the process starts again, and who signed out does not come back.
async fn keep(shared: &Arc<Shared>, app: &Arc<dyn App>) -> Result<(), Code> {
    let (shared, app) = (shared.clone(), app.clone());
    let keep = move || {
        let (mono_ms, wall_ms) = (shared.mono_ms(), app.wall_ms());
        shared.admission.sign_ins.keep(mono_ms, wall_ms, |all| app.keep_sign_ins(all));
    };
    tokio::task::spawn_blocking(keep).await.map_err(|_| Code::StorageError)
}

/// A code is for a browser of this machine; one that comes from elsewhere is not taken, and stays good.
fn by_code(app: &dyn App, caller: &Caller, code: &str) -> Option<Holder> {
    let is_here = caller.peer.client.is_loopback() && caller.peer.ignored.is_none();
    (is_here && app.take_sign_in_code(code)).then_some(Holder::Local)
}

fn by_bearer(shared: &Shared, caller: &Caller, headers: &http::HeaderMap) -> Option<Holder> {
    Principal::of(&shared.door, &caller.peer, headers).ok()?.id.map(Holder::Named)
}

/// One passphrase is tried at a time: each costs tens of megabytes. A name that nobody has costs the same.
async fn by_passphrase(shared: &Arc<Shared>, name: String, passphrase: String) -> Result<Option<Holder>, Code> {
    if passphrase.len() > PASSPHRASE_BYTES_MAX {
        return Err(Code::InvalidField);
    }
    let passphrase = Passphrase::new(&passphrase);
    let Ok(turn) = shared.passphrases.clone().try_acquire_owned() else { return Err(Code::RateLimited) };
    let found = shared.door.settings.passphrases.iter().find(|holder| holder.id == name);
    let verifier = found.map_or_else(Verifier::nobody, |holder| holder.verifier.clone());
    let tried = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        verifier.admits(&passphrase)
    });
    let fits = tried.await.map_err(|_| Code::StorageError)?;
    Ok(fits.then_some(Holder::Named(name)))
}

fn told(shared: &Shared, principal: &Principal) -> String {
    let mut object = JsObject::new();
    object.set("id", principal.id.as_deref().map_or(Js::Null, Js::text));
    object.set("role", Js::text(principal.role.word()));
    if let Some(ends) = principal.ends_mono_ms {
        object.set("expiresIn", Js::Number((ends.saturating_sub(shared.mono_ms()) / 1_000) as f64));
    }
    write(&Js::Object(object)).unwrap_or_default()
}

fn with_cookie(shared: &Shared, status: StatusCode, body: &str, value: Option<&str>) -> Result<Answer, Code> {
    let line = set_cookie(&shared.door, value, shared.door.settings.sign_in_ttl_ms);
    let mut answer = unstored(json(status, body));
    let line = HeaderValue::from_str(&line).map_err(|_| Code::StorageError)?;
    answer.headers_mut().insert(SET_COOKIE, line);
    Ok(answer)
}

fn event(name: &'static str, hsl: &'static str, caller: &Caller, more: Vec<(&'static str, String)>) -> DoorEvent {
    let mut members = vec![("source", caller.peer.client.to_string())];
    members.extend(more);
    DoorEvent { name, hsl, members, request_id: None }
}
