//! Which path leads where: the one place. Spec: gateway §1.2.
//!
//! | Path | Who |
//! |---|---|
//! | `/health`, `/healthz`, `/readyz` | anybody, under any host |
//! | `/metrics` | this machine, requests that are not public |
//! | `/version/health`, `/api/dev/version-ws/health` | anybody; the long form for readers |
//! | `/`, `/dashboard/…` | anybody; where a node is behind the door |
//! | `/api/node/…` | whoever signed in; see [`crate::console`] |
//! | `/api/auth/csrf-token` | own pages and programs |
//! | `/api/auth/session` | whoever shows a proof; a cookie comes back |
//! | `/version/ws`, `/api/dev/version-ws` | holders of a token |
//! | `/version/registry`, `/api/dev/versions` | readers |
//! | `/version/bump`, `/api/dev/bump-version` | bumpers with a token |
//! | `/version/keys`, `/version/keys/ledger` | anybody; names of HMAC keys for readers |
//! | `/version/verify` | readers |
//! | `/bundle`, `/bundle/{name}/{version}`, `…/manifest`, `/bundle/{name}/head/{channel}` | readers |
//! | the same, `PUT` | bumpers with a token |
//! | `/api/lifecycle/export` | readers |
//! | `/admin/rotate`, `/admin/rollback`, `/admin/force` | admins with a token for it, from allowed addresses |
//! | `/admin/audit` | admins, from allowed addresses |
//! | `/st/v1/tunnel` | peers of a node that has a tunnel; who they are is proved inside |
//!
//! With the echo, every path takes an upgrade, and only the first row answers otherwise.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use sealtide_crypto::{Entropy, sha256};
use sealtide_ibgib::json::{Js, JsObject, write};
use sealtide_releases::{BumpRequest, Earlier, FieldError, IdempotencyKey, summary};

use crate::admin::{self, AdminPath};
use crate::app::{Bumped, ListedVersion, Way};
use crate::body::AnswerBody;
use crate::bundles::{self, BundlePath};
use crate::counts::Counted;
use crate::handshake::{Caller, Facts, Grant, Head, Refusal, judge, single};
use crate::ladder::{KeyFacts, Rung};
use crate::peer::{Peer, source_of};
use crate::principal::{Principal, Role};
use crate::refusal::Code;
use crate::server::{Place, Shared};
use crate::session::{Broadcast, read_object};
use crate::sign_in::principal_of;
use crate::spoken::Spoken;
use crate::token::{AdmitRefusal, Binding, Purpose, TokenDigest, TokenRefusal};
use crate::tunnel::{self, TUNNEL_PATH};
use crate::{App, Sample, console, dashboard, key_routes, metrics, sign_in_routes, told, uploads};

/// Bytes of a body. Spec: gateway §1.3.
const BODY_BYTES_MAX: usize = 64 * 1024;
const JSON: &str = "application/json";

pub(crate) type Answer = Response<AnswerBody>;

/// Answers one request.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    tcp: SocketAddr,
    request: Request<Incoming>,
    place: Place,
) -> Result<Answer, Infallible> {
    let id = request_id(request.headers());
    let is_upgrade =
        request.headers().contains_key("sec-websocket-key") || request.headers().contains_key(header::UPGRADE);
    let wants_json =
        request.headers().get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(JSON.as_bytes()));
    let refuse = |code| refuse(code, &id, !is_upgrade || wants_json);
    let mut answer = route(&shared, tcp, request, place, &id, refuse).await.unwrap_or_else(refuse);
    let headers = answer.headers_mut();
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", id);
    }
    Ok(answer)
}

async fn route(
    shared: &Arc<Shared>,
    tcp: SocketAddr,
    request: Request<Incoming>,
    place: Place,
    id: &str,
    refuse: impl Fn(Code) -> Answer,
) -> Result<Answer, Code> {
    let path = request.uri().path().to_owned();
    let get_only =
        |request: &Request<Incoming>| if request.method() == Method::GET { Ok(()) } else { Err(Code::Method) };
    match path.as_str() {
        "/health" => return get_only(&request).map(|()| health(shared)),
        "/healthz" => return get_only(&request).map(|()| json(StatusCode::OK, r#"{"status":"ok"}"#)),
        "/readyz" => return get_only(&request).map(|()| ready(shared)),
        _ => {}
    }
    let Some(app) = shared.app.clone() else {
        let is_upgrade = request.headers().contains_key(header::UPGRADE);
        return if is_upgrade { upgrade(shared, tcp, request, place, id) } else { Err(Code::NotFound) };
    };
    if path == TUNNEL_PATH
        && let Some(door) = shared.tunnel.clone()
    {
        let mut request = request;
        return Ok(tunnel::open(door, tcp, &mut request)?.map(|()| AnswerBody::from(Bytes::new())));
    }
    if path == "/version/ws" || path == "/api/dev/version-ws" {
        return upgrade(shared, tcp, request, place, id);
    }
    let caller = {
        let head = Head {
            method: request.method(),
            version: request.version(),
            uri: request.uri(),
            headers: request.headers(),
        };
        Caller::of(&shared.door, tcp, &head)?
    };
    note_ignored(shared, app.as_ref(), &caller.peer);
    // A page that may read here reads what it is refused too: without its origin a 404 or 429 is a broken network to it.
    let answer = serve(shared, &app, &caller, tcp, request, id).await;
    Ok(with_origin(answer.unwrap_or_else(refuse), &caller))
}

/// Answers a caller whose address and origin are known.
async fn serve(
    shared: &Arc<Shared>,
    app: &Arc<dyn App>,
    caller: &Caller,
    tcp: SocketAddr,
    request: Request<Incoming>,
    id: &str,
) -> Result<Answer, Code> {
    let path = request.uri().path().to_owned();
    let get_only =
        |request: &Request<Incoming>| if request.method() == Method::GET { Ok(()) } else { Err(Code::Method) };
    let limited = shared.door.limits(caller.peer.client, caller.peer.is_public);
    if limited && !shared.requests.take(caller.peer.source(), shared.mono_ms()) {
        return Err(Code::RateLimited);
    }
    // Before anybody is asked who they are: a browser whose sign-in is over signs in again, on the page.
    if shared.console.is_some()
        && let Some(page) = dashboard::serve(&request)
    {
        return page;
    }
    if path == sign_in_routes::PATH {
        return sign_in_routes::serve(shared, app, caller, request).await;
    }
    let (sign_ins, mono_ms) = (&shared.admission.sign_ins, shared.mono_ms());
    let principal = principal_of(&shared.door, &caller.peer, request.headers(), sign_ins, mono_ms);
    let principal = principal.map_err(|_| Code::Unauthenticated)?;
    let needs = |role| match principal.may(&shared.door, role) {
        true => Ok(()),
        false if principal.role == Role::Public => Err(Code::Unauthenticated),
        false => Err(Code::Forbidden),
    };
    let answer = match path.as_str() {
        "/metrics" if tcp.ip().is_loopback() && !caller.peer.is_public => figures(shared)?,
        "/api/auth/csrf-token" => {
            get_only(&request)?;
            token(shared, app.as_ref(), caller, &principal, &request, id)?
        }
        "/api/lifecycle/export" => {
            get_only(&request)?;
            needs(Role::Reader)?;
            json(StatusCode::OK, &shared.lives.export(shared.mono_ms(), app.wall_ms()))
        }
        "/version/health" | "/api/dev/version-ws/health" => {
            get_only(&request)?;
            long_health(shared, app.as_ref(), needs(Role::Reader).is_ok())
        }
        "/version/registry" => {
            get_only(&request)?;
            needs(Role::Reader)?;
            registry(app.as_ref(), request.headers())
        }
        "/api/dev/versions" => {
            get_only(&request)?;
            needs(Role::Reader)?;
            json(StatusCode::OK, &summary(&app.registry(), principal.role >= Role::Bumper))
        }
        "/version/bump" | "/api/dev/bump-version" => {
            if request.method() != Method::POST {
                return Err(Code::Method);
            }
            needs(Role::Bumper)?;
            bump(shared, app.clone(), caller, &principal, request).await?
        }
        "/version/keys" => {
            get_only(&request)?;
            key_routes::list(app.key_desk().ok_or(Code::NotFound)?, needs(Role::Reader).is_ok())
        }
        "/version/keys/ledger" => {
            get_only(&request)?;
            let query = request.uri().query().unwrap_or_default();
            key_routes::ledger(app.key_desk().ok_or(Code::NotFound)?, query)?
        }
        "/version/verify" => {
            if request.method() != Method::POST {
                return Err(Code::Method);
            }
            needs(Role::Reader)?;
            let (_, object) = read_json_up_to(shared, request, key_routes::QUESTION_BYTES_MAX).await?;
            key_routes::verify(app.key_desk().ok_or(Code::NotFound)?, &object)?
        }
        other if console::is_path(other) => console::serve(shared, caller, &principal, request).await?,
        other if let Some(path) = BundlePath::of(other) => {
            if let (&Method::PUT, BundlePath::Bundle { name, version }) = (request.method(), &path) {
                let named = (name.clone(), version.clone());
                let allowed = needs(Role::Bumper).and_then(|()| may_bring(shared, caller, &principal, &request));
                allowed.inspect_err(|code| app.note(told::upload_refused(caller, &principal, &named, *code)))?;
                return uploads::serve(shared, app.clone(), principal.id.clone(), named, request).await;
            }
            get_only(&request)?;
            needs(Role::Reader)?;
            let query = request.uri().query().unwrap_or_default().to_owned();
            bundles::serve(shared, app.clone(), path, query).await?
        }
        other => match AdminPath::of(other) {
            Some(path) => admin::serve(shared, app.clone(), caller, &principal, path, request).await?,
            None => return Err(Code::NotFound),
        },
    };
    Ok(answer)
}

/// The 101, once token and place are taken. What was sent behind the head waits in the upgraded stream.
// Spec: GW-99
fn upgrade(
    shared: &Arc<Shared>,
    tcp: SocketAddr,
    mut request: Request<Incoming>,
    place: Place,
    id: &str,
) -> Result<Answer, Code> {
    let none = KeyFacts { ledger: 1, loaded: 1, v1_counts: true };
    let grant = {
        let head = Head {
            method: request.method(),
            version: request.version(),
            uri: request.uri(),
            headers: request.headers(),
        };
        let mono_ms = shared.mono_ms();
        let facts = Facts {
            door: &shared.door,
            tcp,
            admission: &shared.admission,
            keys: shared.app.as_ref().map_or(none, |app| app.keys()),
            mono_ms,
            rate: &|source| shared.upgrades.take(source, mono_ms),
        };
        judge(&head, &facts).map_err(|refusal| refused(shared, tcp, request.headers(), refusal, id))?
    };
    let accept = accept_of(&grant.key).ok_or(Code::WsKey)?;
    shared.admission.admit(grant.token.as_ref(), grant.peer.source()).map_err(|refusal| {
        let refusal = match refusal {
            AdmitRefusal::Full => Code::Overload.into(),
            AdmitRefusal::Replayed => TokenRefusal::Replayed.into(),
        };
        refused(shared, tcp, request.headers(), refusal, id)
    })?;
    shared.counts.add(Counted::Upgrades, &[("code", "none"), ("result", "taken"), ("subprotocol", rung_word(&grant))]);
    if let Some(app) = &shared.app {
        note_ignored(shared, app.as_ref(), &grant.peer);
        told::forwarding_ignored(&grant.peer, id).into_iter().for_each(|event| app.note(event));
        told::skipped(&grant, &shared.door, request.headers(), id).into_iter().for_each(|event| app.note(event));
        app.note(told::validated(&grant, request.headers(), id));
    }
    let mut answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "Upgrade")
        .header("sec-websocket-accept", accept);
    if let Some(name) = &grant.selected.name {
        answer = answer.header("sec-websocket-protocol", name);
    }
    if let Some(deflate) = &grant.deflate {
        answer = answer.header("sec-websocket-extensions", deflate.answer());
    }
    let (shared, source) = (shared.clone(), grant.peer.source());
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let _place = place;
        match upgraded.await {
            Ok(upgraded) => shared.talk(grant, upgraded).await,
            Err(_) => shared.admission.leave(source),
        }
    });
    answer.body(AnswerBody::default()).map_err(|_| Code::WsKey)
}

/// Counts a refusal and tells the audit; callers see the code alone.
fn refused(shared: &Shared, tcp: SocketAddr, headers: &HeaderMap, refusal: Refusal, id: &str) -> Code {
    let labels = [("code", refusal.code.name()), ("result", "refused"), ("subprotocol", "none")];
    shared.counts.add(Counted::Upgrades, &labels);
    if let Some(reason) = refusal.token {
        shared.counts.add(Counted::TokensRejected, &[("reason", reason.word())]);
    }
    if let Some(app) = &shared.app {
        let peer = Peer::of(&shared.door, tcp, headers);
        peer.iter().for_each(|peer| note_ignored(shared, app.as_ref(), peer));
        let client = peer.map_or(tcp.ip(), |peer| peer.client);
        let told = told::refused(&refusal, headers, &client.to_string(), id);
        let told = told.filter(|_| shared.seen.tells_refusal(source_of(client), shared.mono_ms()));
        told.into_iter().for_each(|event| app.note(event));
    }
    refusal.code
}

/// A forwarding header that counts for nothing: counted each time, told once an hour and source.
fn note_ignored(shared: &Shared, app: &dyn App, peer: &Peer) {
    if peer.ignored.is_some() {
        shared.counts.add(Counted::ForwardingIgnored, &[]);
        shared.seen.public_request(peer, shared.mono_ms()).into_iter().for_each(|event| app.note(event));
    }
}

/// The rung of a session as a label: those that everybody has, and one word for the others.
fn rung_word(grant: &Grant) -> &'static str {
    match grant.selected.rung.number() {
        1 => "tes-ui-v1",
        2 => "tes-ui-v2",
        _ => "tes-ui-vN",
    }
}

// Spec: GW-3, GW-4
fn token(
    shared: &Shared,
    app: &dyn App,
    caller: &Caller,
    principal: &Principal,
    request: &Request<Incoming>,
    id: &str,
) -> Result<Answer, Code> {
    let site = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
    let from_elsewhere = matches!(site, Some(b"cross-site" | b"same-site"));
    if !caller.origin_allowed && (caller.origin.is_some() || from_elsewhere) {
        return Err(Code::OriginDenied);
    }
    let query = request.uri().query().unwrap_or_default();
    let word = query.split('&').find_map(|pair| pair.strip_prefix("purpose=")).unwrap_or("general");
    let purpose = Purpose::named(word).ok_or(Code::InvalidField)?;
    if purpose == Purpose::Admin && principal.role < Role::Admin {
        return Err(Code::Unauthenticated);
    }
    let (source, mono_ms) = (caller.peer.source(), shared.mono_ms());
    let limited = shared.door.limits(caller.peer.client, caller.peer.is_public);
    if limited && !shared.tokens.take(source, mono_ms) {
        return Err(Code::RateLimited);
    }
    let binding = Binding::new(principal, &caller.peer, &caller.effective_origin(&shared.door), &caller.host);
    let issued = shared.admission.issue(purpose, &binding, principal, source, mono_ms, &mut OsEntropy);
    let client = caller.peer.client.to_string();
    let token = issued.map_err(|_| {
        app.note(told::capacity(purpose, &client, id));
        Code::RateLimited
    })?;
    shared.counts.add(Counted::TokensIssued, &[("purpose", purpose.name())]);
    app.note(told::issued(&token, purpose, &client, id));
    let ttl = shared.door.settings.ws_token_ttl_ms;
    let now = app.wall_ms();
    let body = format!(
        r#"{{"token":"{token}","purpose":"{}","expiresAt":{},"expiresIn":{}}}"#,
        purpose.name(),
        now + ttl,
        ttl / 1000
    );
    Ok(unstored(json(StatusCode::OK, &body)))
}

/// The body of a request, which must be a JSON object.
pub(crate) async fn read_json(shared: &Shared, request: Request<Incoming>) -> Result<(Bytes, JsObject), Code> {
    read_json_up_to(shared, request, BODY_BYTES_MAX).await
}

async fn read_json_up_to(
    shared: &Shared,
    request: Request<Incoming>,
    bytes_max: usize,
) -> Result<(Bytes, JsObject), Code> {
    let (head, body) = request.into_parts();
    let media = single(&head.headers, "content-type").unwrap_or_default();
    if !media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(JSON) {
        return Err(Code::UnsupportedMedia);
    }
    let deadline = std::time::Duration::from_millis(shared.door.settings.handshake_timeout_ms);
    let body = tokio::time::timeout(deadline, Limited::new(body, bytes_max).collect()).await;
    let body = body.map_err(|_| Code::InvalidJson)?.map_err(|_| Code::PayloadTooLarge)?.to_bytes();
    let text = std::str::from_utf8(&body).map_err(|_| Code::InvalidJson)?;
    let object = read_object(text).ok_or(Code::InvalidJson)?;
    Ok((body, object))
}

/// Takes the one-time token of a request that changes something.
pub(crate) fn take_http_token(
    shared: &Shared,
    caller: &Caller,
    principal: &Principal,
    headers: &HeaderMap,
) -> Result<(), Code> {
    let binding = Binding::new(principal, &caller.peer, &caller.effective_origin(&shared.door), &caller.host);
    let carried = single(headers, "x-csrf-token").ok_or(TokenRefusal::Missing);
    let digest = carried.ok().and_then(TokenDigest::of);
    let checked = shared.admission.check_carried(carried, Purpose::Http, &binding, shared.mono_ms());
    let taken = checked.is_ok_and(|(digest, _)| shared.admission.take(&digest));
    if let Some(app) = &shared.app {
        app.note(told::http_token(digest.as_ref(), Purpose::Http, taken));
    }
    if taken { Ok(()) } else { Err(Code::CsrfInvalid) }
}

/// Whether somebody may bring a bundle: the token goes when everything else about the head of the request is right.
fn may_bring(shared: &Shared, caller: &Caller, principal: &Principal, request: &Request<Incoming>) -> Result<(), Code> {
    if caller.origin.is_some() && !caller.origin_allowed {
        return Err(Code::OriginDenied);
    }
    if shared.app.as_ref().is_none_or(|app| app.bundle_taker().is_none()) {
        return Err(Code::NotFound);
    }
    uploads::check_length(request.headers(), shared.door.settings.bundle_bytes_max)?;
    take_http_token(shared, caller, principal, request.headers())
}

// Spec: GW-67
async fn bump(
    shared: &Arc<Shared>,
    app: Arc<dyn App>,
    caller: &Caller,
    principal: &Principal,
    request: Request<Incoming>,
) -> Result<Answer, Code> {
    if caller.origin.is_some() && !caller.origin_allowed {
        return Err(Code::OriginDenied);
    }
    let headers = request.headers().clone();
    let (body, object) = read_json(shared, request).await?;
    let version = single(&headers, "x-key-version");
    let request = BumpRequest::read(&object, &[], version).map_err(|error| match error {
        FieldError::Scope => Code::InvalidScope,
        FieldError::Field(_) => Code::InvalidField,
    })?;
    take_http_token(shared, caller, principal, &headers)?;
    let key = idempotency_key(&headers, caller, principal)?;
    let request_hash = sha256(&[body.as_ref(), &[0], version.unwrap_or_default().as_bytes()].concat());
    // The write waits for the disk: not on a thread that serves others.
    let work = {
        let (shared, app) = (shared.clone(), app.clone());
        move || once(&shared, key, request_hash, || app.bump(&request, Way::Rest))
    };
    let told = tokio::task::spawn_blocking(work).await.map_err(|_| Code::StorageError)??;
    let mut response = unstored(json(StatusCode::OK, &told.body));
    response.headers_mut().insert("hsl", HeaderValue::from_static(sealtide_releases::HSL_NORMAL));
    response.headers_mut().extend(
        told.headers.iter().filter_map(|(name, value)| {
            Some((header::HeaderName::from_static(name), HeaderValue::from_str(value).ok()?))
        }),
    );
    Ok(response)
}

/// What was answered to a bump: kept as it was told, for a caller who asks again under its key.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    body: String,
    headers: Vec<(&'static str, String)>,
}

impl Told {
    fn of(done: &Bumped) -> (Self, Option<String>) {
        let answer = done.answer();
        let headers = done.signed.iter().flat_map(|signed| {
            [
                ("tes-sig", signed.text.clone()),
                ("tes-key-version", signed.version.to_string()),
                ("tes-sig-alg", signed.algorithm.name().to_owned()),
            ]
        });
        let told = Self { body: answer.body(), headers: headers.collect() };
        (told, done.signed.is_some().then(|| answer.broadcast()))
    }

    /// Header lines, then an empty one, then the body: how an answer is kept.
    fn kept(&self) -> String {
        let lines: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        format!("{lines}\n{}", self.body)
    }

    fn read(kept: &str) -> Option<Self> {
        let (lines, body) = kept.strip_prefix('\n').map_or_else(|| kept.split_once("\n\n"), |body| Some(("", body)))?;
        let header = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            let name = ["tes-sig", "tes-key-version", "tes-sig-alg"].into_iter().find(|known| *known == name)?;
            Some((name, value.to_owned()))
        };
        Some(Self { body: body.to_owned(), headers: lines.lines().filter_map(header).collect() })
    }
}

/// Bumps once for each key. Requests with a key wait for each other, so that the second of two finds the answer.
// Spec: GW-69
fn once(
    shared: &Shared,
    key: Option<IdempotencyKey>,
    request: [u8; 32],
    bump: impl FnOnce() -> Result<Bumped, Code>,
) -> Result<Told, Code> {
    let mut kept = key.is_some().then(|| shared.answers.lock().unwrap_or_else(PoisonError::into_inner));
    if let (Some(kept), Some(key)) = (&mut kept, &key) {
        match kept.earlier(key, &request, shared.mono_ms()) {
            Earlier::None => {}
            Earlier::Answer(text) => return Told::read(&text).ok_or(Code::StorageError),
            Earlier::OtherRequest => return Err(Code::StateConflict),
        }
    }
    let (told, broadcast) = Told::of(&bump()?);
    if let Some(text) = broadcast {
        let _ = shared.others.send(Broadcast::Said { from: u64::MAX, spoken: Arc::new(Spoken::new(text)) });
    }
    if let (Some(kept), Some(key)) = (&mut kept, key) {
        kept.keep(key, request, told.kept(), shared.mono_ms());
    }
    Ok(told)
}

/// The key, bound to whoever asks; a header that is none is refused.
fn idempotency_key(
    headers: &HeaderMap,
    caller: &Caller,
    principal: &Principal,
) -> Result<Option<IdempotencyKey>, Code> {
    if !headers.contains_key("idempotency-key") {
        return Ok(None);
    }
    let text = single(headers, "idempotency-key").ok_or(Code::InvalidField)?;
    let source = data_encoding::HEXLOWER.encode(&caller.peer.source());
    let who = principal.id.as_ref().map_or_else(|| format!("a:{source}"), |id| format!("p:{id}"));
    IdempotencyKey::new(&who, text).map(Some).ok_or(Code::InvalidField)
}

fn registry(app: &dyn App, headers: &HeaderMap) -> Answer {
    let registry = app.registry();
    let tag = format!("\"{}\"", registry.revision());
    let same = single(headers, "if-none-match") == Some(tag.as_str());
    let signature = app.registry_signature().map(|text| format!(r#","registrySignature":"{text}""#));
    let body = format!(
        r#"{{"entities":{},"lifecycle":"{}","hsl":"{}","revision":{}{}}}"#,
        registry.text(),
        app.lifecycle(),
        sealtide_releases::HSL_NORMAL,
        registry.revision(),
        signature.unwrap_or_default()
    );
    let mut answer = if same { json(StatusCode::NOT_MODIFIED, "") } else { json(StatusCode::OK, &body) };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.headers_mut().insert(header::ETAG, tag);
    }
    answer
}

// Spec: GW-1
fn health(shared: &Shared) -> Answer {
    let is_ready = shared.probe.ready().is_ok();
    let mut object = JsObject::new();
    object.set("status", Js::text(if is_ready { "ok" } else { "starting" }));
    object.set("timestamp", Js::Number(shared.app.as_ref().map_or(0, |app| app.wall_ms()) as f64));
    object.set("version", Js::text(env!("CARGO_PKG_VERSION")));
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &write(&Js::Object(object)).unwrap_or_default())
}

// Spec: GW-2
fn long_health(shared: &Shared, app: &dyn App, may_read: bool) -> Answer {
    let is_ready = shared.probe.ready().is_ok();
    let mut object = JsObject::new();
    object.set("status", Js::text(if is_ready { "ok" } else { "starting" }));
    if may_read {
        let (active, epoch, last) = app.key_status();
        let (tokens, sessions) = shared.admission.counts();
        let registry = app.registry();
        object.set("lifecycle", Js::text(app.lifecycle()));
        object.set("hsl", Js::text(sealtide_releases::HSL_NORMAL));
        object.set("threadId", Js::text("0x6001"));
        object.set("keyVersion", Js::text(active.digits()));
        object.set("keyEpoch", Js::Number(epoch as f64));
        if let Some(desk) = app.key_desk() {
            let list = desk.list();
            object.set("keys", Js::Array(list.versions.iter().map(health_key).collect()));
        }
        let rungs = |keep: &dyn Fn(Rung) -> bool| {
            let spoken = shared.door.settings.subprotocols.iter().filter(|rung| keep(**rung));
            Js::Array(spoken.map(|rung| Js::text(rung.to_string())).collect())
        };
        let facts = app.keys();
        let mut subprotocols = JsObject::new();
        subprotocols.set("supported", rungs(&|_| true));
        subprotocols.set("eligible", rungs(&|rung| facts.allow(rung)));
        object.set("subprotocols", Js::Object(subprotocols));
        object.set("algorithms", algorithms());
        object.set("uptimeMs", Js::Number(shared.mono_ms() as f64));
        object.set("lastSigVersion", last.map_or(Js::Null, |version| Js::text(version.to_string())));
        object.set("sessions", Js::Number(sessions as f64));
        object.set("tokensOutstanding", Js::Number(tokens as f64));
        object.set("revision", Js::Number(registry.revision() as f64));
        object.set("entities", Js::Number(registry.entities().len() as f64));
    }
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &write(&Js::Object(object)).unwrap_or_default())
}

/// A version in the long health; no names of keys.
fn health_key(listed: &ListedVersion) -> Js {
    let mut object = JsObject::new();
    object.set("keyVersion", Js::text(listed.version.digits()));
    object.set("state", Js::text(listed.state.name()));
    if let Some(ms) = listed.not_after {
        object.set("notAfter", Js::Number(ms as f64));
    }
    Js::Object(object)
}

/// What each signature rests on. Spec: gateway §7.11.
fn algorithms() -> Js {
    let mut object = JsObject::new();
    for (what, algorithm) in [
        ("tes-ui-v1", "HMAC-SHA256"),
        ("tes-ui-v2", "Ed25519"),
        ("registry", "Ed25519"),
        ("ledger", "ML-DSA-87 + Ed25519"),
        ("checkpoint", "ML-DSA-87"),
    ] {
        object.set(what, Js::text(algorithm));
    }
    Js::Object(object)
}

fn ready(shared: &Shared) -> Answer {
    match shared.probe.ready() {
        Ok(()) => json(StatusCode::OK, r#"{"status":"ok"}"#),
        Err(_) => json(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"starting"}"#),
    }
}

fn figures(shared: &Shared) -> Result<Answer, Code> {
    let (tokens, sessions) = shared.admission.counts();
    let gauge = |name, help, value: usize| Sample::gauge(name, help, value as u64);
    let own = [
        gauge("sealtide_gw_sessions", "Open WebSocket sessions", sessions),
        gauge("sealtide_gw_tokens_outstanding", "Tokens that wait to be used", tokens),
    ];
    let samples = shared.probe.samples().into_iter().chain(own).chain(shared.counts.samples()).collect();
    let text = metrics::encode(samples).map_err(|_| Code::StorageError)?;
    let mut answer = Response::new(AnswerBody::from(text));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    Ok(answer)
}

fn refuse(code: Code, id: &str, as_json: bool) -> Answer {
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = if as_json {
        let mut object = JsObject::new();
        object.set("success", Js::Bool(false));
        for (name, value) in [("error", code.line()), ("code", code.name()), ("hsl", code.hsl()), ("requestId", id)] {
            object.set(name, Js::text(value));
        }
        json(status, &write(&Js::Object(object)).unwrap_or_default())
    } else {
        let mut answer = Response::new(AnswerBody::from(code.line()));
        *answer.status_mut() = status;
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        answer
    };
    let headers = answer.headers_mut();
    headers.insert("x-tes-error", HeaderValue::from_static(code.name()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if code == Code::Method {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, POST, PUT, DELETE"));
    }
    if let Some((name, value)) = code.hint() {
        headers.insert(header::HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    answer
}

pub(crate) fn json(status: StatusCode, body: &str) -> Answer {
    let mut answer = Response::new(AnswerBody::from(body.to_owned()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    answer
}

pub(crate) fn unstored(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// An origin is named only when its pages may connect, and never as `*`.
fn with_origin(mut answer: Answer, caller: &Caller) -> Answer {
    if let Some(origin) = caller.origin.as_ref().filter(|_| caller.origin_allowed) {
        if let Ok(origin) = HeaderValue::from_str(origin) {
            answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
        answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    answer
}

/// The caller's own name for its request, when it is a plain one; else a new UUID.
fn request_id(headers: &HeaderMap) -> String {
    let plain =
        |text: &&str| (8..=64).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
    if let Some(own) = single(headers, "x-request-id").filter(plain) {
        return own.to_owned();
    }
    let mut bytes = [0; 16];
    OsEntropy.fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The value that proves a WebSocket server answered: yawc computes it, it owns the SHA-1 in it.
pub(crate) fn accept_of(key: &str) -> Option<String> {
    let request =
        Request::get("/").header("sec-websocket-version", "13").header("sec-websocket-key", key).body(()).ok()?;
    let (answer, _upgrade) = yawc::WebSocket::upgrade(request).ok()?;
    Some(answer.headers().get("sec-websocket-accept")?.to_str().ok()?.to_owned())
}

/// The operating system's randomness.
pub(crate) struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        getrandom::fill(out).expect("the operating system has randomness");
    }
}
