//! A TCP connection to a host, straight or through a proxy: HTTP `CONNECT` or SOCKS5.
//!
//! A proxy's answer is read without taking a byte too much, so what comes back is a plain stream whose next byte is
//! the target's. Everything a proxy says is bounded in size, and the whole in time.

use std::io;
use std::net::{IpAddr, SocketAddr};

use data_encoding::BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use crate::eyeballs;
use crate::http::{HEAD_BYTES_MAX, HEADERS_MAX};
use crate::proxy::{Credentials, Proxy, ProxyKind, ProxySettings, ProxyUrlError, host_text, is_host};

/// Characters of a proxy's own words that are shown.
const WORDS_MAX: usize = 80;
/// How a proxy is named when it is waited for.
const THE_PROXY: &str = "the proxy";

/// Why no connection came about. Found in the `io::Error` of [`connect`] by [`ConnectError::of`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The host is neither a name nor an address.
    #[error("{host:?} is neither a host name nor an address")]
    Host {
        /// What stood in its place.
        host: String,
    },
    /// The target itself is not reached, without a proxy between.
    #[error("{0}")]
    Direct(#[source] io::Error),
    /// The setting that names the proxy names none that can be used.
    #[error("{named_by} cannot be used: {source}")]
    Setting {
        /// The variable or setting.
        named_by: String,
        /// What is wrong with it.
        source: ProxyUrlError,
    },
    /// The proxy is not reached.
    #[error("the proxy {proxy} is not reached: {source}; see {named_by}")]
    Proxy {
        /// The proxy, without credentials.
        proxy: String,
        /// The variable or setting that names it.
        named_by: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The proxy wants credentials, or others.
    #[error("the proxy {proxy} refused: {reason}; put the right USER:PASSWORD@ before the host in {named_by}")]
    Credentials {
        /// The proxy, without credentials.
        proxy: String,
        /// The variable or setting that names it.
        named_by: String,
        /// What it said.
        reason: String,
    },
    /// The proxy is there and does not connect to the target.
    #[error("the proxy {proxy} refused: {reason}")]
    Refused {
        /// The proxy, without credentials.
        proxy: String,
        /// What it said.
        reason: String,
    },
    /// What answers as proxy is none.
    #[error("what answers at {proxy} is no {kind} proxy: {reason}; see {named_by}")]
    NoProxy {
        /// The proxy, without credentials.
        proxy: String,
        /// The variable or setting that names it.
        named_by: String,
        /// The kind it was taken for.
        kind: &'static str,
        /// What it did.
        reason: &'static str,
    },
    /// The time was up.
    #[error("{waited_for} did not answer in time")]
    Timeout {
        /// Who was waited for.
        waited_for: String,
    },
}

impl ConnectError {
    /// The reason in an error of [`connect`].
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Whether the proxy, or the setting that names it, is to blame.
    pub fn is_of_the_proxy(&self) -> bool {
        match self {
            Self::Setting { .. } | Self::Proxy { .. } | Self::Credentials { .. } | Self::Refused { .. } => true,
            Self::NoProxy { .. } => true,
            Self::Timeout { waited_for } => waited_for.starts_with(THE_PROXY),
            Self::Host { .. } | Self::Direct(_) => false,
        }
    }
}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        let kind = match &error {
            ConnectError::Host { .. } | ConnectError::Setting { .. } => io::ErrorKind::InvalidInput,
            ConnectError::Direct(source) | ConnectError::Proxy { source, .. } => source.kind(),
            ConnectError::Credentials { .. } => io::ErrorKind::PermissionDenied,
            ConnectError::Refused { .. } => io::ErrorKind::ConnectionRefused,
            ConnectError::NoProxy { .. } => io::ErrorKind::InvalidData,
            ConnectError::Timeout { .. } => io::ErrorKind::TimedOut,
        };
        Self::new(kind, error)
    }
}

/// Connects to `host` (a name, or an address without brackets) and `port`, as `settings` say, before `deadline`.
/// Names are resolved here when the way is direct, else by the proxy.
///
/// # Errors
/// An `io::Error` that wraps a [`ConnectError`].
pub async fn connect(host: &str, port: u16, settings: &ProxySettings, deadline: Instant) -> io::Result<TcpStream> {
    if !is_host(host) {
        return Err(ConnectError::Host { host: host.chars().take(WORDS_MAX).collect() }.into());
    }
    let named_by = settings.named_by();
    let proxy = settings
        .proxy_for(host, port)
        .map_err(|source| ConnectError::Setting { named_by: named_by.to_owned(), source })?;
    let Some(proxy) = proxy else {
        let target = format!("{}:{port}", host_text(host));
        let reached = async { direct(host, port).await.map_err(ConnectError::Direct) };
        return Ok(in_time(deadline, &target, reached).await?);
    };
    let shown = proxy.to_string();
    let not_reached = |source| ConnectError::Proxy { proxy: shown.clone(), named_by: named_by.to_owned(), source };
    let through = async {
        let stream = direct(&proxy.host, proxy.port).await.map_err(not_reached)?;
        let mut hop = Hop { stream, proxy, named_by };
        match proxy.kind {
            ProxyKind::Http => hop.http_connect(host, port).await?,
            ProxyKind::Socks5 => hop.socks5(host, port).await?,
        }
        Ok(hop.stream)
    };
    Ok(in_time(deadline, &format!("{THE_PROXY} {shown}"), through).await?)
}

async fn in_time<T>(
    deadline: Instant,
    waited_for: &str,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    let timed = timeout_at(deadline, work).await;
    timed.unwrap_or_else(|_| Err(ConnectError::Timeout { waited_for: waited_for.to_owned() }))
}

async fn direct(host: &str, port: u16) -> io::Result<TcpStream> {
    eyeballs::first(resolve(host, port).await?, TcpStream::connect).await
}

/// The addresses of a host, the preferred one first.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let found = tokio::net::lookup_host((host, port)).await;
    let nameless = |error: io::Error| io::Error::new(error.kind(), format!("the name {host} has no address: {error}"));
    Ok(found.map_err(nameless)?.collect())
}

/// A connection to a proxy that shall become one to the target.
struct Hop<'a> {
    stream: TcpStream,
    proxy: &'a Proxy,
    named_by: &'a str,
}

impl Hop<'_> {
    async fn http_connect(&mut self, host: &str, port: u16) -> Result<(), ConnectError> {
        let target = format!("{}:{port}", host_text(host));
        let mut request = Zeroizing::new(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"));
        if let Some(Credentials { user, password }) = &self.proxy.credentials {
            let pair = Zeroizing::new(format!("{}:{}", user.as_str(), password.as_str()));
            let encoded = Zeroizing::new(BASE64.encode(pair.as_bytes()));
            request.push_str(&format!("Proxy-Authorization: Basic {}\r\n", encoded.as_str()));
        }
        request.push_str("\r\n");
        self.send(request.as_bytes()).await?;

        let head = self.read_head().await?;
        let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut lines);
        if !matches!(answer.parse(&head), Ok(httparse::Status::Complete(_))) {
            return Err(self.no_proxy("its answer is no HTTP"));
        }
        let status = answer.code.unwrap_or(0);
        let reason = format!("{status} {}", words(answer.reason.unwrap_or_default())).trim_end().to_owned();
        match status {
            200..=299 => Ok(()),
            407 => Err(self.wants_credentials(&reason, answer.headers)),
            _ => Err(ConnectError::Refused { proxy: self.proxy.to_string(), reason }),
        }
    }

    /// 407, with the kinds of proof that the proxy would take when Basic is not among them.
    fn wants_credentials(&self, reason: &str, headers: &[httparse::Header<'_>]) -> ConnectError {
        let asked = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("proxy-authenticate"));
        let schemes: Vec<String> = asked
            .filter_map(|header| std::str::from_utf8(header.value).ok())
            .filter_map(|value| value.split_whitespace().next().map(words))
            .collect();
        if !schemes.is_empty() && !schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic")) {
            let reason = format!("{reason}; it takes {}, and only Basic is supported here", schemes.join(", "));
            return ConnectError::Refused { proxy: self.proxy.to_string(), reason };
        }
        self.bad_credentials(reason.to_owned())
    }

    // RFC 1928 and 1929.
    async fn socks5(&mut self, host: &str, port: u16) -> Result<(), ConnectError> {
        let greeting: &[u8] = if self.proxy.credentials.is_some() { &[5, 2, 0, 2] } else { &[5, 1, 0] };
        self.send(greeting).await?;
        match self.read::<2>().await? {
            [5, 0] => {}
            [5, 2] if self.proxy.credentials.is_some() => self.socks5_login().await?,
            [5, 0xff] if self.proxy.credentials.is_some() => {
                return Err(ConnectError::Refused {
                    proxy: self.proxy.to_string(),
                    reason: "it takes neither a password nor nobody".to_owned(),
                });
            }
            [5, 0xff] => return Err(self.bad_credentials("it wants to know its user".to_owned())),
            _ => return Err(self.no_proxy("its answer is no SOCKS5")),
        }
        let mut request = vec![5, 1, 0];
        match host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
            Ok(IpAddr::V4(ip)) => {
                request.push(1);
                request.extend_from_slice(&ip.octets());
            }
            Ok(IpAddr::V6(ip)) => {
                request.push(4);
                request.extend_from_slice(&ip.octets());
            }
            Err(_) => {
                request.push(3);
                request.push(u8::try_from(host.len()).expect("a host has at most 255 bytes"));
                request.extend_from_slice(host.as_bytes());
            }
        }
        request.extend_from_slice(&port.to_be_bytes());
        self.send(&request).await?;
        let [version, reply, _, kind] = self.read::<4>().await?;
        if version != 5 {
            return Err(self.no_proxy("its answer is no SOCKS5"));
        }
        if reply != 0 {
            return Err(ConnectError::Refused { proxy: self.proxy.to_string(), reason: socks_reply(reply) });
        }
        // The address that the proxy uses towards the target; nobody needs it.
        match kind {
            1 => drop(self.read::<6>().await?),
            4 => drop(self.read::<18>().await?),
            3 => {
                let [length] = self.read::<1>().await?;
                let mut rest = vec![0; usize::from(length) + 2];
                self.read_into(&mut rest).await?;
            }
            _ => return Err(self.no_proxy("its answer is no SOCKS5")),
        }
        Ok(())
    }

    async fn socks5_login(&mut self) -> Result<(), ConnectError> {
        let Some(Credentials { user, password }) = &self.proxy.credentials else { return Ok(()) };
        let mut login = Zeroizing::new(vec![1]);
        for part in [user, password] {
            login.push(u8::try_from(part.len()).expect("credentials have at most 255 bytes"));
            login.extend_from_slice(part.as_bytes());
        }
        self.send(&login).await?;
        match self.read::<2>().await? {
            [_, 0] => Ok(()),
            _ => Err(self.bad_credentials("user name or password is wrong".to_owned())),
        }
    }

    /// An HTTP head with its empty line, and not a byte more: bytes are looked at before they are taken.
    async fn read_head(&mut self) -> Result<Vec<u8>, ConnectError> {
        let mut head = Vec::new();
        let mut seen = [0; 1024];
        while !head.ends_with(b"\r\n\r\n") {
            let peeked = self.stream.peek(&mut seen).await.map_err(|error| self.broke(error))?;
            if peeked == 0 {
                return Err(self.no_proxy("it closed the connection without an answer"));
            }
            let from = head.len();
            head.extend_from_slice(&seen[..peeked]);
            let searched = from.saturating_sub(3);
            if let Some(at) = head[searched..].windows(4).position(|four| four == b"\r\n\r\n") {
                head.truncate(searched + at + 4);
            }
            let mut taken = vec![0; head.len() - from];
            self.read_into(&mut taken).await?;
            if head.len() > HEAD_BYTES_MAX {
                return Err(self.no_proxy("its answer has no end"));
            }
        }
        Ok(head)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), ConnectError> {
        self.stream.write_all(bytes).await.map_err(|error| self.broke(error))
    }

    async fn read<const N: usize>(&mut self) -> Result<[u8; N], ConnectError> {
        let mut bytes = [0; N];
        self.read_into(&mut bytes).await.map(|()| bytes)
    }

    async fn read_into(&mut self, bytes: &mut [u8]) -> Result<(), ConnectError> {
        match self.stream.read_exact(bytes).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.no_proxy("it closed the connection without an answer"))
            }
            Err(error) => Err(self.broke(error)),
        }
    }

    fn broke(&self, source: io::Error) -> ConnectError {
        ConnectError::Proxy { proxy: self.proxy.to_string(), named_by: self.named_by.to_owned(), source }
    }

    fn bad_credentials(&self, reason: String) -> ConnectError {
        ConnectError::Credentials { proxy: self.proxy.to_string(), named_by: self.named_by.to_owned(), reason }
    }

    fn no_proxy(&self, reason: &'static str) -> ConnectError {
        let kind = match self.proxy.kind {
            ProxyKind::Http => "HTTP",
            ProxyKind::Socks5 => "SOCKS5",
        };
        ConnectError::NoProxy { proxy: self.proxy.to_string(), named_by: self.named_by.to_owned(), kind, reason }
    }
}

fn socks_reply(code: u8) -> String {
    match code {
        1 => "it failed".to_owned(),
        2 => "its rules do not allow this target".to_owned(),
        3 => "the network is not reached from there".to_owned(),
        4 => "the host is not reached from there, or has no address".to_owned(),
        5 => "the target refused the connection".to_owned(),
        6 => "the target does not answer".to_owned(),
        8 => "it does not know this kind of address".to_owned(),
        other => format!("code {other}"),
    }
}

/// What a proxy says, fit to be shown: short, and no control characters.
fn words(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}
