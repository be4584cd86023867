//! What an operator decides about the door, and what follows from it once the address is known. Spec: gateway §1.4, §12.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::ladder::Rung;
use crate::principal::{Bearer, PassphraseHolder, Principal, Role};
use crate::sign_in::Holder;
use crate::tls::TlsFiles;

/// Longest life of a token, and the default, in milliseconds.
pub const TOKEN_TTL_MS_MAX: u64 = 300_000;
/// Shortest life of a token that can be set, in milliseconds.
const TOKEN_TTL_MS_MIN: u64 = 1_000;
/// Bounds of `max_message_bytes`.
const MESSAGE_BYTES: std::ops::RangeInclusive<usize> = 1_024..=16 << 20;

/// Who may come in without a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Whoever reaches a listener that is not public reads and bumps.
    None,
    /// Nobody does anything without a bearer token.
    Bearer,
}

/// Which header of a trusted proxy names the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedBy {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// `CF-Connecting-IP`.
    CfConnectingIp,
}

/// Everything that can be set. [`Settings::default`] is a gateway for one machine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name under which browsers reach the gateway; makes it public.
    pub public_host: Option<String>,
    /// Peers whose forwarding headers count; makes it public.
    pub trusted_proxies: Vec<IpNet>,
    /// Which of their headers names the client.
    pub forwarded_by: ForwardedBy,
    /// Whether `X-Forwarded-Host` of a trusted proxy takes the place of `Host`.
    pub use_forwarded_host: bool,
    /// Hosts that are ours, with or without a port.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may connect.
    pub allowed_origins: Vec<String>,
    /// Whether an upgrade without `Origin` is taken; none: exactly where `auth` is `none`.
    pub allow_missing_origin: Option<bool>,
    /// Who may come in without a credential; none: everybody on a listener that is not public.
    pub auth: Option<Auth>,
    /// Bearer tokens, by their digest.
    pub bearers: Vec<Bearer>,
    /// Who signs in with a passphrase.
    pub passphrases: Vec<PassphraseHolder>,
    /// Life of a sign-in in milliseconds.
    pub sign_in_ttl_ms: u64,
    /// Life of a session of a credential's holder without renewal, in milliseconds; 0: without end.
    pub session_ttl_ms: u64,
    /// Whether anybody may read.
    pub public_read: bool,
    /// Whether a token may stand in the query.
    pub allow_query_token: bool,
    /// Life of a token in milliseconds, 1 000 to 300 000.
    pub ws_token_ttl_ms: u64,
    /// Tokens of one source that wait to be used; none: 32, or without bound on a loopback listener that is not public.
    pub tokens_per_source: Option<usize>,
    /// Tokens in all that wait to be used.
    pub tokens_max: usize,
    /// Rungs that are spoken.
    pub subprotocols: BTreeSet<Rung>,
    /// The lowest rung that is taken.
    pub min_subprotocol: Rung,
    /// Whether `tes-subproto-v1` means `tes-ui-v1`.
    pub legacy_alias: bool,
    /// Whether messages may be compressed.
    pub compression: bool,
    /// Bytes from which a message is worth compressing.
    pub compress_min_bytes: usize,
    /// How many times its size a message may inflate to, beyond the first 64 KiB.
    pub inflate_max_ratio: usize,
    /// Bytes of one message of a client after inflation, 1 KiB to 16 MiB.
    pub max_message_bytes: Option<usize>,
    /// Fragments of one message.
    pub max_fragments: usize,
    /// WebSocket sessions in all.
    pub max_sessions: usize,
    /// Sessions of one source; none: 64, or without bound on a loopback listener that is not public.
    pub sessions_per_source: Option<usize>,
    /// Milliseconds in which a request head must be complete.
    pub handshake_timeout_ms: u64,
    /// Milliseconds without any frame after which a session is dropped.
    pub idle_timeout_ms: u64,
    /// Bytes of a release bundle that somebody brings, at most.
    pub bundle_bytes_max: u64,
    /// Milliseconds that it may take to come.
    pub upload_timeout_ms: u64,
    /// Milliseconds between pings.
    pub ping_interval_ms: u64,
    /// Token requests per second and source; 0: any number.
    pub tokens_per_second: u32,
    /// Upgrades per second and source; 0: any number.
    pub upgrades_per_second: u32,
    /// Requests per second and source; 0: any number.
    pub requests_per_second: u32,
    /// Messages per second and session; 0: any number.
    pub messages_per_second: u32,
    /// Whether rates hold for loopback peers too.
    pub limits_loopback: bool,
    /// From where keys may be changed over the door; empty: from this machine. Not the same as `trusted_proxies`: a proxy
    /// is a way in, not an authority.
    pub admin_allow_from: Vec<IpNet>,
    /// Milliseconds between the notice that a rung is withdrawn and the end of its sessions.
    pub withdraw_grace_ms: u64,
    /// Send every message back, for conformance suites. Spec: gateway §2.1.
    pub echo: bool,
    /// Certificate and key; none: plain HTTP, on loopback only.
    pub tls: Option<TlsFiles>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            public_host: None,
            trusted_proxies: Vec::new(),
            forwarded_by: ForwardedBy::XForwardedFor,
            use_forwarded_host: false,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            allow_missing_origin: None,
            auth: None,
            bearers: Vec::new(),
            passphrases: Vec::new(),
            sign_in_ttl_ms: 12 * 3_600_000,
            session_ttl_ms: 12 * 3_600_000,
            public_read: false,
            allow_query_token: false,
            ws_token_ttl_ms: TOKEN_TTL_MS_MAX,
            tokens_per_source: None,
            tokens_max: 65_536,
            subprotocols: BTreeSet::from([Rung::V1, Rung::V2]),
            min_subprotocol: Rung::V1,
            legacy_alias: false,
            compression: true,
            compress_min_bytes: 256,
            inflate_max_ratio: 200,
            max_message_bytes: None,
            max_fragments: 1_024,
            max_sessions: 10_000,
            sessions_per_source: None,
            handshake_timeout_ms: 5_000,
            idle_timeout_ms: 60_000,
            bundle_bytes_max: 1 << 30,
            upload_timeout_ms: 3_600_000,
            ping_interval_ms: 30_000,
            tokens_per_second: 10,
            upgrades_per_second: 20,
            requests_per_second: 50,
            messages_per_second: 100,
            limits_loopback: false,
            admin_allow_from: Vec::new(),
            withdraw_grace_ms: 30_000,
            echo: false,
            tls: None,
        }
    }
}

impl Settings {
    /// Whether this is a host, with or without a port.
    pub fn is_host(text: &str) -> bool {
        split_host(text).is_some()
    }

    /// Whether this is an origin, `https://host[:port]`.
    pub fn is_origin(text: &str) -> bool {
        check_origin(text).is_some()
    }

    /// Whether a listener with these settings counts as public, wherever it listens.
    pub fn is_public(&self) -> bool {
        self.public_host.is_some() || !self.trusted_proxies.is_empty()
    }
}

/// A combination of settings with which the gateway does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The listener is not on loopback; that needs TLS.
    #[error("{0} is not a loopback address; a door there needs tls_cert and tls_key")]
    NotLoopback(SocketAddr),
    /// A public listener lets anybody bump.
    #[error("auth = none is not for a listener that counts as public")]
    OpenToAll,
    /// A public listener whose own name is not known.
    #[error("a listener that counts as public needs public_host or allowed_hosts")]
    NoHost,
    /// The echo is for conformance suites on this machine.
    #[error("echo is not for a listener that counts as public")]
    PublicEcho,
    /// A value is out of its range.
    #[error("{0} must be {1}")]
    Range(&'static str, &'static str),
    /// A host or an origin that is none.
    #[error("{0} is no host, or no origin of the form https://host[:port]")]
    Name(String),
}

/// The settings together with what follows from them.
#[derive(Clone, Debug)]
pub struct Door {
    /// As they were given.
    pub settings: Settings,
    /// Where the door listens.
    pub address: SocketAddr,
    /// Whether every request is public.
    pub is_public: bool,
    /// `http` or, with a public host, `https`.
    pub scheme: &'static str,
    /// Who comes in without a credential.
    pub auth: Auth,
    /// Whether an upgrade without `Origin` is taken.
    pub allow_missing_origin: bool,
    hosts: BTreeSet<(String, Option<u16>)>,
    origins: BTreeSet<String>,
}

impl Door {
    /// Works out what follows from the settings of a door at `address`, its real port.
    ///
    /// # Errors
    /// [`SettingsError`]; then nothing starts.
    // Spec: GW-48, GW-93, GW-94, GW-96
    pub fn new(settings: Settings, address: SocketAddr) -> Result<Self, SettingsError> {
        let is_loopback = address.ip().is_loopback();
        if !is_loopback && settings.tls.is_none() {
            return Err(SettingsError::NotLoopback(address));
        }
        check_ranges(&settings)?;
        let is_public = !is_loopback || settings.is_public();
        let auth = settings.auth.unwrap_or(if is_public { Auth::Bearer } else { Auth::None });
        if is_public && auth == Auth::None {
            return Err(SettingsError::OpenToAll);
        }
        if is_public && settings.echo {
            return Err(SettingsError::PublicEcho);
        }
        if is_public && settings.public_host.is_none() && settings.allowed_hosts.is_empty() {
            return Err(SettingsError::NoHost);
        }
        let (mut hosts, mut origins) = (BTreeSet::new(), BTreeSet::new());
        let (own, default_port) = if settings.tls.is_some() { ("https", 443) } else { ("http", 80) };
        for name in ["localhost", "127.0.0.1", "[::1]"].into_iter().filter(|_| is_loopback) {
            hosts.insert((name.to_owned(), Some(address.port())));
            origins.insert(format!("{own}://{name}:{}", address.port()));
            if address.port() == default_port {
                origins.insert(format!("{own}://{name}"));
            }
        }
        let no_name = |name: &String| SettingsError::Name(name.clone());
        for name in settings.allowed_hosts.iter().chain(&settings.public_host) {
            hosts.insert(split_host(name).ok_or_else(|| no_name(name))?);
        }
        for origin in &settings.allowed_origins {
            origins.insert(check_origin(origin).ok_or_else(|| no_name(origin))?);
        }
        origins.extend(settings.public_host.iter().map(|host| format!("https://{}", host.to_ascii_lowercase())));
        Ok(Self {
            scheme: if settings.public_host.is_some() { "https" } else { own },
            allow_missing_origin: settings.allow_missing_origin.unwrap_or(auth == Auth::None),
            address,
            is_public,
            auth,
            hosts,
            origins,
            settings,
        })
    }

    /// The host that a `Host` value names, as it stands in bindings: lower case, the default port left out. None when
    /// it is not ours.
    // Spec: GW-15
    pub fn matched_host(&self, value: &str) -> Option<String> {
        let (name, port) = split_host(value)?;
        let default = if self.scheme == "https" { 443 } else { 80 };
        let is_default = port.is_none_or(|port| port == default);
        let port = port.unwrap_or(default);
        let ours = self.hosts.contains(&(name.clone(), Some(port)))
            || is_default && self.hosts.contains(&(name.clone(), None));
        ours.then(|| if is_default { name } else { format!("{name}:{port}") })
    }

    /// Whether pages of this origin may connect: compared as a whole, so nothing that looks like it passes.
    // Spec: GW-18
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.origins.contains(origin)
    }

    /// The name of the cookie of a sign-in. Cookies of one host are shared by its ports, so on plain HTTP the port is in it.
    pub fn cookie_name(&self) -> String {
        if self.scheme == "https" { "__Host-sealtide".to_owned() } else { format!("sealtide-{}", self.address.port()) }
    }

    /// What the holder of a credential may do; none when nobody has that name.
    pub fn role_of(&self, id: &str) -> Option<Role> {
        let bearers = self.settings.bearers.iter().map(|bearer| (&bearer.id, bearer.role));
        let all = bearers.chain(self.settings.passphrases.iter().map(|holder| (&holder.id, holder.role)));
        all.filter(|(own, _)| *own == id).map(|(_, role)| role).next()
    }

    /// Whether a principal of before may still do as much as it might then; whoever has no name had no credential to lose.
    // Spec: GW-85
    pub(crate) fn knows(&self, principal: &Principal) -> bool {
        let Some(id) = &principal.id else { return true };
        // The name of who signed in by a code stands in no file.
        let bearers = self.settings.bearers.iter().map(|bearer| (&bearer.id, bearer.role));
        let mut all = bearers.chain(self.settings.passphrases.iter().map(|holder| (&holder.id, holder.role)));
        id == Holder::Local.id() || all.any(|(own, role)| own == id && role >= principal.role)
    }

    /// Whether rates hold for a request.
    // Spec: GW-95
    pub fn limits(&self, client: IpAddr, is_public: bool) -> bool {
        !client.is_loopback() || is_public || self.settings.limits_loopback
    }

    /// Whether keys may be changed from this address.
    // Spec: GW-57
    pub fn allows_admin(&self, client: IpAddr) -> bool {
        let listed = &self.settings.admin_allow_from;
        if listed.is_empty() { client.is_loopback() } else { listed.iter().any(|net| net.contains(&client)) }
    }

    /// Tokens of one source that may wait to be used.
    pub fn tokens_per_source(&self) -> usize {
        self.settings.tokens_per_source.unwrap_or(if self.is_public { 32 } else { usize::MAX })
    }

    /// Sessions that one source may hold.
    pub fn sessions_per_source(&self) -> usize {
        self.settings.sessions_per_source.unwrap_or(if self.is_public { 64 } else { usize::MAX })
    }

    /// Bytes of one message of a client.
    pub fn message_bytes_max(&self) -> usize {
        self.settings.max_message_bytes.unwrap_or(if self.settings.echo { 16 << 20 } else { 65_536 })
    }

    /// Fragments of one message of a client.
    pub fn fragments_max(&self) -> usize {
        if self.settings.echo { 65_536 } else { self.settings.max_fragments }
    }
}

fn check_ranges(settings: &Settings) -> Result<(), SettingsError> {
    if !(TOKEN_TTL_MS_MIN..=TOKEN_TTL_MS_MAX).contains(&settings.ws_token_ttl_ms) {
        return Err(SettingsError::Range("ws_token_ttl_ms", "from 1000 to 300000"));
    }
    if settings.max_message_bytes.is_some_and(|bytes| !MESSAGE_BYTES.contains(&bytes)) {
        return Err(SettingsError::Range("max_message_bytes", "from 1024 to 16777216"));
    }
    let positive = [
        (settings.tokens_max, "tokens_max"),
        (settings.max_sessions, "max_sessions"),
        (settings.max_fragments, "max_fragments"),
        (settings.inflate_max_ratio, "inflate_max_ratio"),
    ];
    match positive.iter().find(|(number, _)| *number == 0) {
        Some((_, name)) => Err(SettingsError::Range(name, "at least 1")),
        None => Ok(()),
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`; the name in lower case.
fn split_host(value: &str) -> Option<(String, Option<u16>)> {
    let end = if value.starts_with('[') { value.find(']')? + 1 } else { value.find(':').unwrap_or(value.len()) };
    let (name, rest) = value.split_at(end);
    let inner = name.trim_start_matches('[').trim_end_matches(']');
    let fine = if name.starts_with('[') {
        inner.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        inner.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    if inner.is_empty() || !fine {
        return None;
    }
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok()?)
        }
        _ => return None,
    };
    Some((name.to_ascii_lowercase(), port))
}

/// A serialised origin: scheme, host, and the port only where it is not the scheme's own.
fn check_origin(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let (name, port) = split_host(rest)?;
    let default = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    Some(match port.filter(|port| *port != default) {
        Some(port) => format!("{scheme}://{name}:{port}"),
        None => format!("{scheme}://{name}"),
    })
}
