//! A door without a socket: heads in, decisions out.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use sealtide_crypto::SeededEntropy;
use sealtide_gateway::{
    Admission, AdmissionLimits, Binding, Caller, Code, Door, Facts, Grant, Head, KeyFacts, Principal, Purpose, Refusal,
    Settings, judge,
};

/// Where the door of these tests listens.
pub(crate) const DOOR: &str = "127.0.0.1:8443";

/// A request head that can be changed.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
}

impl Request {
    /// A proper upgrade, without a token.
    pub(crate) fn upgrade() -> Self {
        let request = Self {
            method: Method::GET,
            version: Version::HTTP_11,
            target: "/version/ws".into(),
            headers: HeaderMap::new(),
        };
        request
            .with("host", DOOR)
            .with("upgrade", "websocket")
            .with("connection", "Upgrade")
            .with("sec-websocket-version", "13")
            .with("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .with("sec-websocket-protocol", "tes-ui-v1")
    }

    /// Sets a header in place of all of its name.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
        self
    }

    /// Adds a line.
    pub(crate) fn and(mut self, name: &str, value: &str) -> Self {
        self.headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }
}

/// A door, its tables, and what the keys say.
pub(crate) struct Rig {
    pub(crate) door: Door,
    pub(crate) admission: Admission,
    pub(crate) keys: KeyFacts,
    pub(crate) tcp: SocketAddr,
    pub(crate) mono_ms: u64,
    pub(crate) rate_left: bool,
}

impl Rig {
    pub(crate) fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        change(&mut settings);
        let door = Door::new(settings, DOOR.parse().unwrap()).unwrap();
        let limits = AdmissionLimits {
            token_ttl_ms: door.settings.ws_token_ttl_ms,
            tokens: door.settings.tokens_max,
            tokens_per_source: door.tokens_per_source(),
            sessions: door.settings.max_sessions,
            sessions_per_source: door.sessions_per_source(),
        };
        Self {
            door,
            admission: Admission::new(limits),
            keys: KeyFacts { ledger: 2, loaded: 2, v1_counts: true },
            tcp: "127.0.0.1:50000".parse().unwrap(),
            mono_ms: 0,
            rate_left: true,
        }
    }

    fn uri(request: &Request) -> Uri {
        request.target.parse().unwrap()
    }

    pub(crate) fn judge(&self, request: &Request) -> Result<Grant, Refusal> {
        let uri = Self::uri(request);
        let head = Head { method: &request.method, version: request.version, uri: &uri, headers: &request.headers };
        judge(
            &head,
            &Facts {
                door: &self.door,
                tcp: self.tcp,
                admission: &self.admission,
                keys: self.keys,
                mono_ms: self.mono_ms,
                rate: &|_| self.rate_left,
            },
        )
    }

    pub(crate) fn code(&self, request: &Request) -> Option<Code> {
        self.judge(request).err().map(|refusal| refusal.code)
    }

    /// Issues a token as the token endpoint does for this request.
    pub(crate) fn token_for(&self, request: &Request, purpose: Purpose) -> Option<String> {
        let uri = Self::uri(request);
        let head = Head { method: &request.method, version: request.version, uri: &uri, headers: &request.headers };
        let caller = Caller::of(&self.door, self.tcp, &head).ok()?;
        let principal = Principal::of(&self.door, &caller.peer, &request.headers).ok()?;
        let origin = caller.effective_origin(&self.door);
        let binding = Binding::new(&principal, &caller.peer, &origin, &caller.host);
        let seed = &mut SeededEntropy::new(self.admission.counts().0 as u64 + self.mono_ms * 1_000);
        self.admission.issue(purpose, &binding, &principal, caller.peer.source(), self.mono_ms, seed).ok()
    }

    /// A proper upgrade with a fresh token.
    pub(crate) fn fresh(&self) -> Request {
        let token = self.token_for(&Request::upgrade(), Purpose::General).unwrap();
        Request::upgrade().with("x-tes-ws-csrf-token", &token)
    }

    /// The whole of it: decision and the step that takes.
    pub(crate) fn enter(&self, request: &Request) -> Result<Grant, Refusal> {
        let grant = self.judge(request)?;
        match self.admission.admit(grant.token.as_ref(), grant.peer.source()) {
            Ok(()) => Ok(grant),
            Err(_) => Err(Code::CsrfInvalid.into()),
        }
    }
}
