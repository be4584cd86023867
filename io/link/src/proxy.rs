//! Through which proxy a connection goes: what `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say, as data.
//!
//! Nothing here reads the environment: the node does, and hands the link the settings. Rules as curl has them, with
//! two differences that are written down in `spec/link-door.md`: loopback is never proxied unless it is named, and a
//! setting that cannot be used makes connections fail instead of going around the proxy.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use zeroize::Zeroizing;

/// Bytes of a proxy's user name or password, at most: what SOCKS5 can carry (RFC 1929).
const CREDENTIAL_BYTES_MAX: usize = 255;
/// Bytes of a host name, at most.
const HOST_BYTES_MAX: usize = 255;

/// Which connections go through a proxy, and through which. The default: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxySettings {
    proxy: Option<Result<Proxy, ProxyUrlError>>,
    /// What named the proxy, for messages: a variable or a setting.
    named_by: String,
    bypass: Vec<Pattern>,
    through: Vec<Pattern>,
}

/// A proxy. Its `Debug` and `Display` forms show no credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// How it is spoken to.
    pub kind: ProxyKind,
    /// Its name or address, without brackets.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// What it wants to know of its user.
    pub credentials: Option<Credentials>,
}

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP/1.1 `CONNECT`.
    Http,
    /// SOCKS version 5 (RFC 1928); names are resolved by the proxy.
    Socks5,
}

/// User name and password of a proxy; neither is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// At most 255 bytes, without `:` for HTTP.
    pub user: Zeroizing<String>,
    /// At most 255 bytes.
    pub password: Zeroizing<String>,
}

/// Why a text names no proxy. The text itself is not shown: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyUrlError {
    /// TLS to the proxy itself.
    #[error("it names an https:// proxy, and proxies that are spoken to over TLS are not supported; use http://")]
    Tls,
    /// A scheme that is none of ours.
    #[error("{scheme}:// is no kind of proxy that is supported; use http://HOST:PORT or socks5://HOST:PORT")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// There is no host, or it is no host.
    #[error("it names no host; write http://HOST:PORT or socks5://HOST:PORT")]
    Host,
    /// The port is none.
    #[error("its port is no number from 1 to 65535")]
    Port,
    /// User name or password is too long, or badly encoded.
    #[error("its user name or password is longer than 255 bytes, or its %-encoding is wrong")]
    Credentials,
}

/// Hosts that a rule is about: `*`, a name with everything below it, an address, or a network; each with a port or for
/// all ports.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    All,
    /// In lower case, without dots at the ends.
    Below(String),
    Network {
        base: IpAddr,
        bits: u8,
    },
}

impl ProxySettings {
    /// Everything goes through the proxy that `url` names, but for loopback. `named_by` is the variable or setting
    /// that said so. A `url` that names no proxy is kept as such: then connections fail and say why.
    pub fn new(url: &str, named_by: &str) -> Self {
        let proxy = Some(Proxy::parse(url));
        Self { proxy, named_by: named_by.to_owned(), bypass: Vec::new(), through: Vec::new() }
    }

    /// Adds targets that are reached without the proxy, separated by commas or spaces, as in `NO_PROXY`. What is no
    /// pattern matches nothing.
    pub fn bypassing(mut self, patterns: &str) -> Self {
        self.bypass.extend(split(patterns).filter_map(Pattern::parse));
        self
    }

    /// Adds targets that go through the proxy although they are loopback or bypassed.
    pub fn through(mut self, patterns: &str) -> Self {
        self.through.extend(split(patterns).filter_map(Pattern::parse));
        self
    }

    /// Whether every entry of a list is a pattern.
    pub fn are_patterns(patterns: &str) -> bool {
        split(patterns).all(|text| Pattern::parse(text).is_some())
    }

    /// The proxy for `host` (a name, or an address without brackets) and `port`; `None` when the way is direct.
    ///
    /// # Errors
    /// [`ProxyUrlError`] when it would go through a proxy and the setting names none that can be used.
    pub fn proxy_for(&self, host: &str, port: u16) -> Result<Option<&Proxy>, ProxyUrlError> {
        let Some(proxy) = &self.proxy else { return Ok(None) };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let named = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(&host, port));
        if !named(&self.through) && (is_loopback(&host) || named(&self.bypass)) {
            return Ok(None);
        }
        proxy.as_ref().map(Some).map_err(Clone::clone)
    }

    /// What named the proxy; empty when none is set.
    pub fn named_by(&self) -> &str {
        &self.named_by
    }

    /// The proxy, whatever the target; `None` when none is set.
    ///
    /// # Errors
    /// [`ProxyUrlError`] when the setting names none that can be used.
    pub fn proxy(&self) -> Result<Option<&Proxy>, ProxyUrlError> {
        self.proxy.as_ref().map(|proxy| proxy.as_ref().map_err(Clone::clone)).transpose()
    }
}

impl Proxy {
    /// Reads `[SCHEME://][USER[:PASSWORD]@]HOST[:PORT]`. Without a scheme it is an HTTP proxy; without a port it is
    /// 1080, as in curl. User name and password may be %-encoded.
    ///
    /// # Errors
    /// [`ProxyUrlError`].
    pub fn parse(url: &str) -> Result<Self, ProxyUrlError> {
        let url = url.trim();
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let kind = match scheme.to_ascii_lowercase().as_str() {
            "http" => ProxyKind::Http,
            "socks5" | "socks5h" | "socks" => ProxyKind::Socks5,
            "https" => return Err(ProxyUrlError::Tls),
            other => return Err(ProxyUrlError::Scheme { scheme: other.chars().take(16).collect() }),
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (credentials, host_port) = match rest.rsplit_once('@') {
            Some((credentials, host_port)) => (Some(Credentials::parse(credentials)?), host_port),
            None => (None, rest),
        };
        let (host, port) = split_port(host_port).ok_or(ProxyUrlError::Port)?;
        if !is_host(host) {
            return Err(ProxyUrlError::Host);
        }
        if port == Some(0) {
            return Err(ProxyUrlError::Port);
        }
        Ok(Self { kind, host: host.to_ascii_lowercase(), port: port.unwrap_or(1080), credentials })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            ProxyKind::Http => "http",
            ProxyKind::Socks5 => "socks5",
        };
        let host = host_text(&self.host);
        write!(f, "{scheme}://{host}:{}", self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl Credentials {
    fn parse(text: &str) -> Result<Self, ProxyUrlError> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self { user: percent_decoded(user)?, password: percent_decoded(password)? })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self { hosts: Hosts::All, port: None });
        }
        if let Some((base, bits)) = text.split_once('/') {
            let base: IpAddr = base.trim_matches(['[', ']']).parse().ok()?;
            let bits: u8 = bits.parse().ok()?;
            return (bits <= width(base)).then_some(Self { hosts: Hosts::Network { base, bits }, port: None });
        }
        if let Ok(base) = text.parse::<IpAddr>() {
            return Some(Self { hosts: Hosts::Network { base, bits: width(base) }, port: None });
        }
        let (host, port) = split_port(text)?;
        if let Ok(base) = host.parse::<IpAddr>() {
            return Some(Self { hosts: Hosts::Network { base, bits: width(base) }, port });
        }
        let name = host.strip_prefix("*.").unwrap_or(host).trim_matches('.').to_ascii_lowercase();
        is_host(&name).then_some(Self { hosts: Hosts::Below(name), port })
    }

    /// `host` in lower case, without a dot at the end.
    fn matches(&self, host: &str, port: u16) -> bool {
        if self.port.is_some_and(|own| own != port) {
            return false;
        }
        match &self.hosts {
            Hosts::All => true,
            Hosts::Below(name) => {
                host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Hosts::Network { base, bits } => host.parse().is_ok_and(|ip| in_network(ip, *base, *bits)),
        }
    }
}

/// A host as it stands in front of `:PORT`.
pub(crate) fn host_text(host: &str) -> String {
    if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() }
}

/// Whether a text can be a host name or an address: what goes into a request is checked before.
pub(crate) fn is_host(host: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_name = !host.is_empty() && host.len() <= HOST_BYTES_MAX && host.bytes().all(is_name);
    is_name || host.parse::<IpAddr>().is_ok()
}

fn split(patterns: &str) -> impl Iterator<Item = &str> {
    patterns.split([',', ' ', '\t']).filter(|part| !part.is_empty())
}

/// `HOST`, `HOST:PORT`, `[V6]` or `[V6]:PORT`; `None` when what follows the colon is no port.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    match port {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some((host, Some(port.parse().ok()?))),
        Some(_) => None,
        None => Some((host, None)),
    }
}

fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn in_network(ip: IpAddr, base: IpAddr, bits: u8) -> bool {
    let shifted = |value: u128, width: u32| value.checked_shr(width - u32::from(bits)).unwrap_or(0);
    match (ip.to_canonical(), base) {
        (IpAddr::V4(ip), IpAddr::V4(base)) => {
            shifted(u128::from(ip.to_bits()), 32) == shifted(u128::from(base.to_bits()), 32)
        }
        (IpAddr::V6(ip), IpAddr::V6(base)) => shifted(ip.to_bits(), 128) == shifted(base.to_bits(), 128),
        _ => false,
    }
}

fn percent_decoded(text: &str) -> Result<Zeroizing<String>, ProxyUrlError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
            let byte = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
            let byte = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            bytes.push(byte.ok_or(ProxyUrlError::Credentials)?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    if bytes.len() > CREDENTIAL_BYTES_MAX {
        return Err(ProxyUrlError::Credentials);
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| ProxyUrlError::Credentials)?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, kind: ProxyKind, host: &str, port: u16, credentials: Option<(&str, &str)>) {
        let proxy = Proxy::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        let found = proxy.credentials.as_ref().map(|found| (found.user.as_str(), found.password.as_str()));
        assert_eq!((proxy.kind, proxy.host.as_str(), proxy.port, found), (kind, host, port, credentials), "{url}");
    }

    #[test]
    fn urls_of_proxies() {
        check("http://Proxy.example:3128", ProxyKind::Http, "proxy.example", 3128, None);
        check("proxy:8080/", ProxyKind::Http, "proxy", 8080, None);
        check("proxy", ProxyKind::Http, "proxy", 1080, None);
        check("socks5h://[2001:db8::1]:9", ProxyKind::Socks5, "2001:db8::1", 9, None);
        check("socks5://192.0.2.1", ProxyKind::Socks5, "192.0.2.1", 1080, None);
        check("http://me:p%40ss%3aword@proxy:1", ProxyKind::Http, "proxy", 1, Some(("me", "p@ss:word")));
        check("http://me:a@b@proxy:1", ProxyKind::Http, "proxy", 1, Some(("me", "a@b")));
        check("socks5://me@proxy:1", ProxyKind::Socks5, "proxy", 1, Some(("me", "")));
    }

    #[test]
    fn texts_that_name_no_proxy_are_refused_without_showing_them() {
        for (url, expected) in [
            ("https://secret@proxy:1", ProxyUrlError::Tls),
            ("socks4://proxy:1", ProxyUrlError::Scheme { scheme: "socks4".to_owned() }),
            ("http://", ProxyUrlError::Host),
            ("http://a b:1", ProxyUrlError::Host),
            ("http://a\r\nX:1", ProxyUrlError::Port),
            ("http://a\r\nX", ProxyUrlError::Host),
            ("http://proxy:0", ProxyUrlError::Port),
            ("http://proxy:65536", ProxyUrlError::Port),
            ("http://proxy:x", ProxyUrlError::Port),
            ("http://2001:db8::1", ProxyUrlError::Port),
            ("http://secret:%4@proxy:1", ProxyUrlError::Credentials),
            ("http://secret:%+1@proxy:1", ProxyUrlError::Credentials),
            ("http://secret:%ff@proxy:1", ProxyUrlError::Credentials),
        ] {
            let error = Proxy::parse(url).unwrap_err();
            assert_eq!(error, expected, "{url}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let long = format!("http://{}@proxy:1", "u".repeat(256));
        assert_eq!(Proxy::parse(&long), Err(ProxyUrlError::Credentials));
    }

    #[test]
    fn credentials_are_never_shown() {
        let settings = ProxySettings::new("http://sesame:opensesame@proxy:1", "HTTPS_PROXY");
        let shown = format!("{settings:?} {}", settings.proxy().unwrap().unwrap());
        assert!(shown.contains("http://proxy:1") && !shown.contains("sesame"), "{shown}");
    }

    #[test]
    fn patterns_name_hosts_names_below_them_networks_and_ports() {
        let bypasses = |patterns: &str, host: &str, port: u16| {
            let settings = ProxySettings::new("http://proxy:1", "t").bypassing(patterns);
            settings.proxy_for(host, port).unwrap().is_none()
        };
        for (patterns, host, port) in [
            ("*", "example.com", 1),
            ("example.com", "example.com", 1),
            ("example.com", "WWW.example.com.", 1),
            (".example.com", "example.com", 1),
            ("*.example.com", "a.b.example.com", 1),
            ("a, example.com:443", "example.com", 443),
            ("a example.com", "example.com", 1),
            ("192.0.2.0/24", "192.0.2.77", 1),
            ("192.0.2.7", "192.0.2.7", 1),
            ("192.0.2.7:443", "192.0.2.7", 443),
            ("192.0.2.7", "::ffff:192.0.2.7", 1),
            ("2001:db8::/32", "2001:db8:1::5", 1),
            ("2001:db8::1", "2001:db8::1", 1),
            ("[2001:db8::1]:9", "2001:db8::1", 9),
            ("0.0.0.0/0", "192.0.2.7", 1),
        ] {
            assert!(bypasses(patterns, host, port), "{patterns} is about {host}:{port}");
        }
        for (patterns, host, port) in [
            ("", "example.com", 1),
            ("example.com", "badexample.com", 1),
            ("example.com", "example.com.evil", 1),
            ("www.example.com", "example.com", 1),
            ("example.com:443", "example.com", 80),
            ("192.0.2.0/24", "192.0.3.1", 1),
            ("192.0.2.0/33", "192.0.2.1", 1),
            ("192.0.2.0/x", "192.0.2.1", 1),
            ("192.0.2.7:443", "192.0.2.7", 80),
            ("2001:db8::/32", "2001:db9::1", 1),
            ("0.0.0.0/0", "2001:db8::1", 1),
            ("192.0.2.0/24", "example.com", 1),
        ] {
            assert!(!bypasses(patterns, host, port), "{patterns} is not about {host}:{port}");
        }
        assert!(ProxySettings::are_patterns("*, a.example:1 10.0.0.0/8"));
        assert!(!ProxySettings::are_patterns("10.0.0.0/99"));
    }

    #[test]
    fn loopback_goes_around_the_proxy_unless_it_is_named() {
        let settings = ProxySettings::new("http://proxy:1", "t");
        for host in ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1", "localhost", "a.localhost"] {
            assert_eq!(settings.proxy_for(host, 1), Ok(None), "{host}");
        }
        assert!(settings.proxy_for("192.0.2.1", 1).unwrap().is_some());
        let named = settings.bypassing("192.0.2.0/24").through("127.0.0.1:7 192.0.2.9");
        assert!(named.proxy_for("127.0.0.1", 7).unwrap().is_some());
        assert!(named.proxy_for("127.0.0.1", 8).unwrap().is_none());
        assert!(named.proxy_for("192.0.2.9", 8).unwrap().is_some(), "what is named goes before what is bypassed");
        assert!(named.proxy_for("192.0.2.8", 8).unwrap().is_none());
        assert_eq!(ProxySettings::default().proxy_for("192.0.2.1", 1), Ok(None));
    }

    #[test]
    fn a_setting_that_cannot_be_used_is_no_way_around() {
        let settings = ProxySettings::new("https://proxy:1", "HTTPS_PROXY");
        assert_eq!(settings.proxy_for("192.0.2.1", 1), Err(ProxyUrlError::Tls));
        assert_eq!(settings.proxy_for("127.0.0.1", 1), Ok(None));
    }
}
