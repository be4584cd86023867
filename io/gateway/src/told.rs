//! What the audit is told of the door: refused and taken upgrades, tokens, requests from elsewhere. Spec: gateway §10.3.
//!
//! Never in an event: a token, a key of a WebSocket in full, a credential, a query.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

use crate::app::DoorEvent;
use crate::connection::Tally;
use crate::handshake::{Caller, Grant, Refusal};
use crate::ladder::{CARRIER, Rung};
use crate::peer::Peer;
use crate::principal::Principal;
use crate::refusal::Code;
use crate::settings::Door;
use crate::token::{Purpose, TokenDigest, TokenRefusal};

const HSL_NORMAL: &str = "#9D4EDD";
const HSL_WARNING: &str = "#FF8C00";
/// Characters of a key that are shown.
const KEY_PREVIEW: usize = 8;
/// Sources that are remembered, at most; when all are taken nothing more is told until the hour is over.
const SOURCES_MAX: usize = 4_096;
/// Refused upgrades of one source that are told of in an hour; the others are counted in the figures alone.
const REFUSALS_OF_SOURCE: u32 = 64;
/// The same for all sources together.
const REFUSALS_MAX: u32 = 4_096;
const HOUR_MS: u64 = 3_600_000;

/// A refused upgrade as an event; none for refusals that say nothing about anybody.
pub(crate) fn refused(refusal: &Refusal, headers: &HeaderMap, client: &str, id: &str) -> Option<DoorEvent> {
    let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let host = || ("declaredHost", text(HOST.as_str()).unwrap_or_default());
    let origin = || ("origin", text(ORIGIN.as_str()).unwrap_or_default());
    let from = ("clientIP", client.to_owned());
    let (name, mut members) = match refusal.code {
        Code::HostMismatch => ("ws:upgrade:host_mismatch", vec![host(), ("expectedHost", "configured".to_owned())]),
        Code::WsKey => {
            let key = text("sec-websocket-key").unwrap_or_default();
            let length = key.chars().count().to_string();
            ("ws:upgrade:invalid_key", vec![("wsKeyPreview", preview(&key)), ("wsKeyLength", length)])
        }
        Code::CsrfInvalid => {
            let reason = refusal.token.map_or("missing", TokenRefusal::word);
            ("ws:upgrade:csrf_invalid", vec![("reason", reason.to_owned()), origin()])
        }
        Code::OriginDenied => ("ws:upgrade:origin_denied", vec![origin()]),
        Code::WsVersion => {
            ("ws:upgrade:version_mismatch", vec![("version", text("sec-websocket-version").unwrap_or_default())])
        }
        Code::RateLimited | Code::Overload => ("ws:upgrade:rate_limited", vec![("source", client.to_owned())]),
        Code::Subprotocol | Code::Deprecated => {
            let reason = if refusal.code == Code::Deprecated { "keys" } else { "unsupported" };
            ("ws:subproto:mismatch", vec![("offered", offered(headers)), ("reason", reason.to_owned())])
        }
        _ => return None,
    };
    members.push(from);
    Some(DoorEvent { name, hsl: refusal.code.hsl(), members, request_id: Some(id.to_owned()) })
}

/// An upgrade that is taken.
pub(crate) fn validated(grant: &Grant, headers: &HeaderMap, id: &str) -> DoorEvent {
    let host = headers.get(HOST).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let members = vec![
        ("declaredHost", host.unwrap_or_default()),
        ("wsKey", preview(&grant.key)),
        ("clientIP", grant.peer.client.to_string()),
        ("proxyTrusted", grant.peer.is_proxy.to_string()),
        ("selectedProtocol", grant.selected.name.clone().unwrap_or_else(|| "none".to_owned())),
        ("requestedProtocols", offered(headers)),
    ];
    DoorEvent { name: "ws:upgrade:headers_validated", hsl: HSL_NORMAL, members, request_id: Some(id.to_owned()) }
}

/// Names that come before the one that was taken and that are spoken here: the keys do not keep them now.
pub(crate) fn skipped(grant: &Grant, door: &Door, headers: &HeaderMap, id: &str) -> Vec<DoorEvent> {
    let Some(taken) = &grant.selected.name else { return Vec::new() };
    let settings = &door.settings;
    let is_spoken = |name: &str| {
        Rung::parse(name).is_some_and(|rung| settings.subprotocols.contains(&rung) && rung >= settings.min_subprotocol)
    };
    let offered = offered(headers);
    let before = offered.split(',').take_while(|name| name != taken).filter(|name| is_spoken(name));
    let event = |name: &str| DoorEvent {
        name: "ws:subproto:skipped",
        hsl: HSL_WARNING,
        members: vec![("offered", name.to_owned()), ("reason", "keys".to_owned())],
        request_id: Some(id.to_owned()),
    };
    before.map(event).collect()
}

/// An upgrade with a forwarding header of a peer that nobody trusts.
pub(crate) fn forwarding_ignored(peer: &Peer, id: &str) -> Option<DoorEvent> {
    let members = vec![("peer", peer.client.to_string()), ("header", peer.ignored?.to_owned())];
    Some(DoorEvent { name: "ws:upgrade:forwarding_ignored", hsl: "#FF4500", members, request_id: Some(id.to_owned()) })
}

/// A token for a change over HTTP that was taken, or was none.
pub(crate) fn http_token(digest: Option<&TokenDigest>, purpose: Purpose, taken: bool) -> DoorEvent {
    let (name, hsl) = if taken { ("CSRF_VERIFY", HSL_NORMAL) } else { ("CSRF_FAILURE", "#FF4500") };
    let reference = digest.map(TokenDigest::nonce_hash).unwrap_or_default();
    let members = vec![("type", purpose.name().to_owned()), ("ref", reference)];
    DoorEvent { name, hsl, members, request_id: None }
}

/// A bundle that nobody looked at, for want of a right.
pub(crate) fn upload_refused(
    caller: &Caller,
    principal: &Principal,
    (name, version): &(String, String),
    code: Code,
) -> DoorEvent {
    let members = vec![
        ("name", name.clone()),
        ("version", version.clone()),
        ("principal", principal.id.clone().unwrap_or_default()),
        ("source", caller.peer.client.to_string()),
        ("reason", code.name().to_owned()),
    ];
    DoorEvent { name: "bundle:rejected", hsl: "#FF4500", members, request_id: None }
}

/// A session whose other end broke the protocol.
pub(crate) fn broken(protocol: &str, tally: &Tally) -> DoorEvent {
    let code = tally.code.map(|code| code.to_string()).unwrap_or_default();
    let members = vec![("protocol", protocol.to_owned()), ("code", code)];
    DoorEvent { name: "ws:error", hsl: "#FF0000", members, request_id: None }
}

/// The end of a session; without a close frame there is no code.
pub(crate) fn closed(protocol: &str, duration_ms: u64, tally: &Tally) -> DoorEvent {
    let members = vec![
        ("protocol", protocol.to_owned()),
        ("code", tally.code.map(|code| code.to_string()).unwrap_or_default()),
        ("bytesIn", tally.bytes_in.to_string()),
        ("bytesOut", tally.bytes_out.to_string()),
        ("durationMs", duration_ms.to_string()),
    ];
    DoorEvent { name: "ws:close", hsl: HSL_NORMAL, members, request_id: None }
}

/// A token that was given out; its hash says which, and nobody can go back from it.
pub(crate) fn issued(token: &str, purpose: Purpose, client: &str, id: &str) -> DoorEvent {
    let nonce = TokenDigest::of(token).map(|digest| digest.nonce_hash()).unwrap_or_default();
    let members = vec![("purpose", purpose.name().to_owned()), ("nonceHash", nonce), ("source", client.to_owned())];
    DoorEvent { name: "csrf:issued", hsl: HSL_NORMAL, members, request_id: Some(id.to_owned()) }
}

/// No more tokens for a source, or for anybody.
pub(crate) fn capacity(purpose: Purpose, client: &str, id: &str) -> DoorEvent {
    let members = vec![("purpose", purpose.name().to_owned()), ("source", client.to_owned())];
    DoorEvent { name: "csrf:capacity", hsl: HSL_WARNING, members, request_id: Some(id.to_owned()) }
}

/// Names offered, without the tokens among them.
fn offered(headers: &HeaderMap) -> String {
    let lines = headers.get_all("sec-websocket-protocol").iter().filter_map(|value| value.to_str().ok());
    let names = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|name| !name.starts_with(CARRIER));
    names.collect::<Vec<_>>().join(",")
}

fn preview(key: &str) -> String {
    let shown: String = key.chars().take(KEY_PREVIEW).collect();
    if shown.is_empty() { "none".to_owned() } else { format!("{shown}...") }
}

/// What was told of strangers in this hour: what costs them nothing must not fill the audit.
#[derive(Default)]
pub(crate) struct Seen(Mutex<Hour>);

#[derive(Default)]
struct Hour {
    number: u64,
    /// Sources whose forwarding headers count for nothing.
    public: HashSet<[u8; 9]>,
    /// Refused upgrades that were told, by source.
    refused: HashMap<[u8; 9], u32>,
    refused_in_all: u32,
}

impl Seen {
    fn at(&self, mono_ms: u64) -> MutexGuard<'_, Hour> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = mono_ms / HOUR_MS;
        if seen.number != number {
            *seen = Hour { number, ..Hour::default() };
        }
        seen
    }

    /// The event of a request that counts as public for a header that nobody trusts: once an hour and source.
    // Spec: GW-16
    pub(crate) fn public_request(&self, peer: &Peer, mono_ms: u64) -> Option<DoorEvent> {
        let header = peer.ignored?;
        let mut seen = self.at(mono_ms);
        let is_new = seen.public.len() < SOURCES_MAX && seen.public.insert(peer.source());
        let members = vec![("source", peer.client.to_string()), ("header", header.to_owned())];
        is_new.then_some(DoorEvent { name: "access:public_request", hsl: HSL_WARNING, members, request_id: None })
    }

    /// Whether one more refused upgrade of a source is told of in this hour.
    pub(crate) fn tells_refusal(&self, source: [u8; 9], mono_ms: u64) -> bool {
        let mut seen = self.at(mono_ms);
        if seen.refused_in_all >= REFUSALS_MAX {
            return false;
        }
        let told = seen.refused.entry(source).or_default();
        if *told >= REFUSALS_OF_SOURCE {
            return false;
        }
        *told += 1;
        seen.refused_in_all += 1;
        true
    }
}

impl TokenRefusal {
    /// The audit's word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Carrier => "carrier",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Purpose => "purpose",
            Self::Binding => "binding",
            Self::Replayed => "replayed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_upgrades_do_not_fill_the_audit() {
        let seen = Seen::default();
        let source = |number: u32| {
            let mut source = [0; 9];
            source[..4].copy_from_slice(&number.to_be_bytes());
            source
        };
        let told = |number, times, mono_ms| (0..times).filter(|_| seen.tells_refusal(source(number), mono_ms)).count();
        assert_eq!(told(0, 1_000, 0), REFUSALS_OF_SOURCE as usize);
        assert_eq!(told(1, 3, 0), 3, "one that is loud hides no other");
        let of_many: usize = (2..100_000).map(|number| told(number, 1, HOUR_MS - 1)).sum();
        assert_eq!(of_many + 3 + REFUSALS_OF_SOURCE as usize, REFUSALS_MAX as usize);
        assert!(seen.at(0).refused.len() <= REFUSALS_MAX as usize, "and no more are remembered");
        assert_eq!(told(0, 1_000, HOUR_MS), REFUSALS_OF_SOURCE as usize, "the next hour");
    }
}
