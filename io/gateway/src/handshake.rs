//! Whether a request head may become a WebSocket: a pure function, in the order of gateway §3.
//!
//! ```text
//!  1 peer    2 head (the listener)    3 GET, HTTP/1.1, no body    4 Host    5 Upgrade    6 version    7 key
//!  8 Origin, credential    9 rates and places    10 subprotocol    11 extensions    12 token    13 one step    14 101
//! ```
//!
//! The first step that fails answers and nothing after it runs. Steps 1 to 12 look and take nothing, so that a refusal
//! leaves the token usable; [`Admission::admit`] is step 13.

use std::net::SocketAddr;

use data_encoding::BASE64;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, ORIGIN, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Uri, Version};

use crate::extensions::Deflate;
use crate::ladder::{KeyFacts, Mismatch, Offer, Rung, Selected};
use crate::peer::Peer;
use crate::principal::Principal;
use crate::refusal::Code;
use crate::settings::Door;
use crate::sign_in::principal_of;
use crate::token::{Admission, Binding, Purpose, TokenDigest, TokenRefusal};

/// A request head, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// `GET` for an upgrade.
    pub method: &'a Method,
    /// HTTP/1.1 for an upgrade.
    pub version: Version,
    /// The target.
    pub uri: &'a Uri,
    /// All headers, repeated ones included.
    pub headers: &'a HeaderMap,
}

/// What the decision asks of the world; everything is looked at, nothing is taken.
pub struct Facts<'a> {
    /// The settings.
    pub door: &'a Door,
    /// Where the bytes come from.
    pub tcp: SocketAddr,
    /// Tokens and places.
    pub admission: &'a Admission,
    /// What the keys can keep.
    pub keys: KeyFacts,
    /// Milliseconds of a clock that never steps.
    pub mono_ms: u64,
    /// Takes one of the source's upgrades; false when it had too many. Asked at step 9 only.
    pub rate: &'a dyn Fn([u8; 9]) -> bool,
}

/// A request that may become a WebSocket once its token and a place are taken.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Who is at the other end.
    pub peer: Peer,
    /// The value of `Sec-WebSocket-Key`.
    pub key: String,
    /// What the session speaks.
    pub selected: Selected,
    /// What was agreed about compression.
    pub deflate: Option<Deflate>,
    /// The token to take; none for the echo.
    pub token: Option<TokenDigest>,
    /// Whose session it is: the one that fetched the token.
    pub principal: Principal,
    /// What a renewed token must be bound to.
    pub binding: Binding,
}

/// A request that may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the caller is told.
    pub code: Code,
    /// What the audit is told of a token besides.
    pub token: Option<TokenRefusal>,
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self { code, token: None }
    }
}

impl From<TokenRefusal> for Refusal {
    fn from(reason: TokenRefusal) -> Self {
        Self { code: Code::CsrfInvalid, token: Some(reason) }
    }
}

/// Where a request stands before it is known what it wants: who asks, under which name, from which page.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who is at the other end.
    pub peer: Peer,
    /// The matched host, as it stands in bindings.
    pub host: String,
    /// The `Origin`, if it has one.
    pub origin: Option<String>,
    /// Whether the origin may connect; false without one.
    pub origin_allowed: bool,
}

impl Caller {
    /// Steps 1 and 4.
    ///
    /// # Errors
    /// [`Code::HostMismatch`].
    // Spec: GW-15, GW-16
    pub fn of(door: &Door, tcp: SocketAddr, head: &Head<'_>) -> Result<Self, Code> {
        let peer = Peer::of(door, tcp, head.headers).map_err(|_| Code::HostMismatch)?;
        let told = single(head.headers, HOST.as_str()).ok_or(Code::HostMismatch)?;
        // An absolute target would say the host a second time, and proxies do not agree on which counts.
        let is_absolute = head.uri.authority().is_some();
        let forwarded =
            head.headers.contains_key("x-forwarded-host") && peer.is_proxy && door.settings.use_forwarded_host;
        let name = if forwarded { single(head.headers, "x-forwarded-host").ok_or(Code::HostMismatch)? } else { told };
        let host = door.matched_host(name).filter(|_| !is_absolute).ok_or(Code::HostMismatch)?;
        let origin = head.headers.contains_key(ORIGIN).then(|| single(head.headers, ORIGIN.as_str()).unwrap_or("null"));
        let origin_allowed = origin.is_some_and(|origin| door.allows_origin(origin));
        Ok(Self { peer, host, origin: origin.map(str::to_owned), origin_allowed })
    }

    /// The origin it has, or would have: the page that a browser fetched from here sends none on a GET.
    // Spec: GW-9
    pub fn effective_origin(&self, door: &Door) -> String {
        self.origin.clone().unwrap_or_else(|| format!("{}://{}", door.scheme, self.host))
    }
}

/// Steps 1 to 12.
///
/// # Errors
/// [`Refusal`] of the first step that fails.
// Spec: GW-10, GW-22
pub fn judge(head: &Head<'_>, facts: &Facts<'_>) -> Result<Grant, Refusal> {
    let (door, echo) = (facts.door, facts.door.settings.echo);
    check_request(head)?;
    let caller = if echo { echo_caller(door, facts.tcp, head)? } else { Caller::of(door, facts.tcp, head)? };
    let key = upgrade_key(head)?;
    let presented = if echo { Principal::nobody(crate::Role::Public) } else { check_caller(head, facts, &caller)? };
    let source = caller.peer.source();
    if door.limits(caller.peer.client, caller.peer.is_public) && !(facts.rate)(source) {
        return Err(Code::RateLimited.into());
    }
    facts.admission.room(source).map_err(|_| Code::Overload)?;
    let offer = if echo { Offer::default() } else { Offer::read(head.headers).map_err(mismatch)? };
    let settings = &door.settings;
    let selected = if echo {
        Selected { name: None, rung: Rung::V1 }
    } else {
        offer
            .select(&settings.subprotocols, settings.min_subprotocol, settings.legacy_alias, &facts.keys)
            .map_err(mismatch)?
    };
    let deflate = if settings.compression { Deflate::negotiate(head.headers) } else { None };
    let binding = Binding::new(&presented, &caller.peer, &caller.effective_origin(door), &caller.host);
    let (token, principal) = if echo {
        (None, presented)
    } else {
        let carried = carried(head, door, &offer);
        let (digest, principal) = facts.admission.check_carried(carried, Purpose::Ws, &binding, facts.mono_ms)?;
        // The settings may have been read again since it was issued.
        if !door.knows(&principal) {
            return Err(TokenRefusal::Unknown.into());
        }
        (Some(digest), principal)
    };
    Ok(Grant { peer: caller.peer, key, selected, deflate, token, principal, binding })
}

/// Steps 5 to 7: the key of the upgrade.
pub(crate) fn upgrade_key(head: &Head<'_>) -> Result<String, Code> {
    if !has_token(head.headers, UPGRADE.as_str(), "websocket")
        || !has_token(head.headers, CONNECTION.as_str(), "upgrade")
    {
        return Err(Code::UpgradeRequired);
    }
    if single(head.headers, "sec-websocket-version") != Some("13") {
        return Err(Code::WsVersion);
    }
    single(head.headers, "sec-websocket-key").filter(|key| is_key(key)).map(str::to_owned).ok_or(Code::WsKey)
}

/// Step 3.
pub(crate) fn check_request(head: &Head<'_>) -> Result<(), Code> {
    if head.method != Method::GET {
        return Err(Code::Method);
    }
    if head.version != Version::HTTP_11 {
        return Err(Code::HttpVersion);
    }
    let is_empty = |value: &http::HeaderValue| value.as_bytes() == b"0";
    let has_body =
        head.headers.contains_key(TRANSFER_ENCODING) || !head.headers.get_all(CONTENT_LENGTH).iter().all(is_empty);
    if has_body { Err(Code::Body) } else { Ok(()) }
}

/// The echo takes every host; it stays on this machine.
fn echo_caller(door: &Door, tcp: SocketAddr, head: &Head<'_>) -> Result<Caller, Code> {
    let peer = Peer::of(door, tcp, head.headers).map_err(|_| Code::HostMismatch)?;
    Ok(Caller { peer, host: String::new(), origin: None, origin_allowed: false })
}

/// Step 8.
// Spec: GW-18
fn check_caller(head: &Head<'_>, facts: &Facts<'_>, caller: &Caller) -> Result<Principal, Code> {
    let door = facts.door;
    let has_bearer = head.headers.contains_key(http::header::AUTHORIZATION);
    let allowed = match caller.origin {
        Some(_) => caller.origin_allowed,
        None => has_bearer || door.allow_missing_origin,
    };
    if !allowed {
        return Err(Code::OriginDenied);
    }
    let found = principal_of(door, &caller.peer, head.headers, &facts.admission.sign_ins, facts.mono_ms);
    found.map_err(|_| Code::Unauthenticated)
}

/// The one token that a request carries.
// Spec: GW-13
fn carried<'a>(head: &'a Head<'_>, door: &Door, offer: &'a Offer) -> Result<&'a str, TokenRefusal> {
    let headers = head.headers.get_all("x-tes-ws-csrf-token").iter().map(|value| value.to_str().unwrap_or("?").trim());
    let query = head.uri.query().filter(|_| door.settings.allow_query_token).unwrap_or_default();
    let query = query.split('&').filter_map(|pair| pair.strip_prefix("csrf="));
    let mut all = headers.chain(offer.tokens.iter().map(String::as_str)).chain(query);
    let first = all.next().ok_or(TokenRefusal::Missing)?;
    if all.next().is_some() { Err(TokenRefusal::Carrier) } else { Ok(first) }
}

fn mismatch(mismatch: Mismatch) -> Code {
    match mismatch {
        Mismatch::Malformed | Mismatch::Unsupported => Code::Subprotocol,
        Mismatch::Ineligible => Code::Deprecated,
    }
}

/// The value of a header that stands there exactly once.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let value = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(value.trim_matches([' ', '\t']))
}

fn has_token(headers: &HeaderMap, name: &str, token: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// 16 bytes in strict base64: 24 characters with padding, no stray bits.
// Spec: GW-19
fn is_key(key: &str) -> bool {
    key.len() == 24 && BASE64.decode(key.as_bytes()).is_ok_and(|bytes| bytes.len() == 16)
}
