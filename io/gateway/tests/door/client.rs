//! A client that can send what no library would, and an application in memory.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use sealtide_crypto::{GatewayContext, Now, Seed, SeededEntropy, SigningKey};
use sealtide_gateway::{
    App, Bumped, Code, DoorEvent, KeptSignIn, KeyChange, KeyDesk, KeyFacts, Notice, Probe, Sample, Server, Settings,
    Way,
};
use sealtide_identity::keyring::{
    Algorithm, ChangeRefused, ChangeRequest, KeyOffers, KeyPolicy, KeyVersion, Keyring, LedgerRow, LoadedKeys, Order,
    VersionState,
};
use sealtide_releases::{BumpError, BumpRequest, Crypto, Registry, plan};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::broadcast;

pub(crate) const WALL_MS: u64 = 1_700_000_000_000;

pub(crate) struct Ready;

impl Probe for Ready {
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn samples(&self) -> Vec<Sample> {
        vec![Sample::gauge("sealtide_sessions", "Open sessions", 2)]
    }
}

/// Keys v1 and v2 and a registry, as a node would have them.
pub(crate) struct Desk {
    node: SigningKey,
    pub(crate) inner: Mutex<(Keyring, Arc<Registry>)>,
    pub(crate) notices: broadcast::Sender<Notice>,
    pub(crate) events: Mutex<Vec<DoorEvent>>,
    pub(crate) fail: Mutex<Option<Code>>,
    /// The code with which a browser signs in.
    pub(crate) code: Mutex<Option<String>>,
    /// Sign-ins that outlive a door.
    pub(crate) kept: Mutex<Vec<KeptSignIn>>,
}

impl Desk {
    pub(crate) fn new() -> Arc<Self> {
        let load = || {
            let secret = |digits: &str| digits.repeat(32).into_bytes();
            let files = BTreeMap::from([(KeyVersion::V1, secret("a1")), (KeyVersion::new(2).unwrap(), secret("b2"))]);
            LoadedKeys::load(&KeyOffers { files, ..KeyOffers::default() }, &mut SeededEntropy::new(1)).unwrap()
        };
        let node = SigningKey::from_seed(&Seed::from_bytes([3; 32]));
        let now = Now { mono_ms: 0, wall_ms: WALL_MS };
        let first = Keyring::first_record(&load(), &node, "test", now).unwrap();
        let row = LedgerRow::of(&first, "tip", None);
        let ring = Keyring::open(load(), "keyring^1", &[first], &row, 1, node.public(), KeyPolicy::default()).unwrap();
        let inner = Mutex::new((ring, Arc::new(Registry::sample())));
        let notices = broadcast::Sender::new(16);
        Arc::new(Self {
            node,
            inner,
            notices,
            events: Mutex::default(),
            fail: Mutex::new(None),
            code: Mutex::default(),
            kept: Mutex::default(),
        })
    }

    pub(crate) fn rotate(&self) {
        let order = Order::Rotate { to: None, keep_until: None };
        self.order(order, None).unwrap().unwrap();
    }

    /// Follows an order, without a word to the door; none when it is so already.
    pub(crate) fn order(&self, order: Order, expect: Option<KeyVersion>) -> Result<Option<KeyChange>, ChangeRefused> {
        let mut inner = self.inner.lock().unwrap();
        let now = Now { mono_ms: 0, wall_ms: WALL_MS };
        let request = ChangeRequest { order, expect, auto: false, by: "", reason: "" };
        let Some(change) = inner.0.propose(&request, &self.node, now)? else { return Ok(None) };
        let (from, to, epoch) = (change.from, change.to, change.record.epoch);
        inner.0.apply(change, &self.node, now)?;
        Ok(Some(KeyChange { from, to, epoch, at_ms: WALL_MS }))
    }

    /// The public Ed25519 key of the active version: what a user would pin.
    pub(crate) fn ed25519_key(&self) -> Vec<u8> {
        let inner = self.inner.lock().unwrap();
        let keys = inner.0.keys(inner.0.ledger().tip().active()).unwrap().public_keys();
        keys.into_iter().find(|entry| entry.algorithm == Algorithm::Ed25519).unwrap().public_key
    }

    pub(crate) fn verifies(&self, payload: &str, algorithm: Algorithm, version: &str, signature: &str) -> bool {
        let version = KeyVersion::parse(version).unwrap();
        let inner = self.inner.lock().unwrap();
        inner.0.verify(payload.as_bytes(), GatewayContext::Bump, algorithm, version, signature, WALL_MS).valid
    }
}

impl App for Desk {
    fn keys(&self) -> KeyFacts {
        let inner = self.inner.lock().unwrap();
        let state = inner.0.ledger().state(KeyVersion::V1);
        KeyFacts {
            ledger: inner.0.ledger().tip().active().number(),
            loaded: inner.0.loaded().last().map_or(0, KeyVersion::number),
            v1_counts: matches!(state, Some(VersionState::Active | VersionState::VerifyOnly))
                && !inner.0.ledger().tip().forced(),
        }
    }

    fn key_status(&self) -> (KeyVersion, u64, Option<KeyVersion>) {
        let inner = self.inner.lock().unwrap();
        (inner.0.ledger().tip().active(), inner.0.ledger().tip().epoch, None)
    }

    fn registry(&self) -> Arc<Registry> {
        self.inner.lock().unwrap().1.clone()
    }

    fn lifecycle(&self) -> &'static str {
        "RUNNING"
    }

    fn bump(&self, request: &BumpRequest, way: Way) -> Result<Bumped, Code> {
        let mut inner = self.inner.lock().unwrap();
        let plan = plan(&inner.1, request, "global:main").map_err(|error| match error {
            BumpError::NotFound(_) => Code::EntityNotFound,
            _ => Code::InvalidVersion,
        })?;
        let algorithm = match (way, request.crypto) {
            (Way::Rung(rung), _) if rung.number() > 1 => Algorithm::Ed25519,
            (_, Some(Crypto::Ed25519)) => Algorithm::Ed25519,
            _ => Algorithm::HmacSha256,
        };
        let bytes = plan.bumped.as_bytes();
        let signed = inner.0.sign(bytes, GatewayContext::Bump, algorithm, request.key_version, true, WALL_MS);
        let signed = signed.map_err(|_| Code::KeyUnavailable)?;
        if let Some(code) = *self.fail.lock().unwrap() {
            return Err(code);
        }
        if !request.dry_run {
            inner.1 = Arc::new(plan.after.clone());
        }
        let (key_version, revision) = (signed.version, inner.1.revision());
        let signed = (!request.dry_run).then_some(signed);
        Ok(Bumped { plan, signed, key_version, timestamp: WALL_MS, revision })
    }

    fn wall_ms(&self) -> u64 {
        WALL_MS
    }

    fn key_desk(&self) -> Option<&dyn KeyDesk> {
        Some(self)
    }

    fn kept_sign_ins(&self) -> Vec<KeptSignIn> {
        self.kept.lock().unwrap().clone()
    }

    fn keep_sign_ins(&self, all: &[KeptSignIn]) {
        *self.kept.lock().unwrap() = all.to_vec();
    }

    fn take_sign_in_code(&self, code: &str) -> bool {
        self.code.lock().unwrap().take_if(|own| own == code).is_some()
    }

    fn notices(&self) -> Option<broadcast::Receiver<Notice>> {
        Some(self.notices.subscribe())
    }

    fn note(&self, event: DoorEvent) {
        self.events.lock().unwrap().push(event);
    }
}

pub(crate) async fn door(desk: &Arc<Desk>, change: impl FnOnce(&mut Settings)) -> Server {
    let mut settings = Settings::default();
    change(&mut settings);
    let app: Arc<dyn App> = desk.clone();
    Server::open(settings, "127.0.0.1:0".parse().unwrap(), Arc::new(Ready), Some(app)).await.unwrap()
}

pub(crate) async fn echo_door() -> Server {
    let settings = Settings { echo: true, ..Settings::default() };
    Server::open(settings, "127.0.0.1:0".parse().unwrap(), Arc::new(Ready), None).await.unwrap()
}

/// While this lives, a paused clock stands still: it does not run ahead when bytes are on their way and nobody has work.
pub(crate) struct Still {
    _end: std::sync::mpsc::Sender<()>,
}

impl Still {
    /// A runtime does not move its clock while something blocks beside it.
    pub(crate) fn new() -> Self {
        let (end, ended) = std::sync::mpsc::channel();
        tokio::task::spawn_blocking(move || ended.recv());
        Self { _end: end }
    }
}

/// The address that requests come from where it does not matter.
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A connection from an address of this machine: all of 127.0.0.0/8 is.
pub(crate) async fn connect(from: IpAddr, at: SocketAddr) -> TcpStream {
    if from == HERE {
        return TcpStream::connect(at).await.unwrap();
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(at).await.unwrap()
}

/// Sends a request and reads the answer to its end.
pub(crate) async fn ask(at: SocketAddr, request: &str, lines: &[&str], body: &str) -> String {
    ask_from(HERE, at, request, lines, body).await
}

/// As [`ask`], from an address.
pub(crate) async fn ask_from(from: IpAddr, at: SocketAddr, request: &str, lines: &[&str], body: &str) -> String {
    let mut stream = connect(from, at).await;
    let has_host = lines.iter().any(|line| line.to_lowercase().starts_with("host:"));
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let host = if has_host { String::new() } else { format!("Host: {at}\r\n") };
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let text = format!("{request} HTTP/1.1\r\n{host}{length}Connection: close\r\n{lines}\r\n{body}");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

/// Sends a request as it stands and reads the head of the answer; the connection is closed.
pub(crate) async fn head_of(at: SocketAddr, request: &str) -> String {
    let mut stream = connect(HERE, at).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

pub(crate) fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

pub(crate) fn body(answer: &str) -> serde_json::Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or_else(|_| panic!("{answer}"))
}

pub(crate) async fn token(at: SocketAddr) -> String {
    let answer = ask(at, "GET /api/auth/csrf-token", &[], "").await;
    body(&answer)["token"].as_str().unwrap().to_owned()
}

/// A WebSocket, frame by frame.
pub(crate) struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    /// The head of the 101.
    pub(crate) head: String,
}

impl Client {
    /// Upgrades; `behind` is sent together with the head.
    pub(crate) async fn open(at: SocketAddr, lines: &[String], behind: &[u8]) -> Result<Self, String> {
        Self::open_from(HERE, at, lines, behind).await
    }

    /// As [`Client::open`], from an address.
    pub(crate) async fn open_from(
        from: IpAddr,
        at: SocketAddr,
        lines: &[String],
        behind: &[u8],
    ) -> Result<Self, String> {
        let mut stream = connect(from, at).await;
        let has_host = lines.iter().any(|line| line.to_lowercase().starts_with("host:"));
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let host = if has_host { String::new() } else { format!("Host: {at}\r\n") };
        let head = format!(
            "GET /version/ws HTTP/1.1\r\n{host}Upgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
        );
        stream.write_all(&[head.as_bytes(), behind].concat()).await.unwrap();
        let mut input = Vec::new();
        let end = loop {
            if let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut input).await.unwrap() == 0 {
                break input.len();
            }
        };
        let rest = input.split_off(end);
        let head = String::from_utf8(input).unwrap();
        if head.starts_with("HTTP/1.1 101") { Ok(Self { stream, input: rest, head }) } else { Err(head) }
    }

    /// With a token, offering these subprotocols.
    pub(crate) async fn enter(at: SocketAddr, protocols: &str) -> Self {
        let token = token(at).await;
        let lines = [format!("X-TES-WS-CSRF-Token: {token}"), format!("Sec-WebSocket-Protocol: {protocols}")];
        Self::open(at, &lines, b"").await.unwrap()
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// As [`Client::raw`], where the server may have gone.
    pub(crate) async fn try_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.raw(&frame(0x81, text.as_bytes())).await;
    }

    /// The next frame: its first byte and its payload; none at the end.
    pub(crate) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((length, payload)) = whole(&self.input) {
                let first = self.input[0];
                self.input.drain(..length);
                return Some((first, payload));
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next message as JSON.
    pub(crate) async fn json(&mut self) -> serde_json::Value {
        let (first, payload) = self.frame().await.unwrap();
        assert_eq!(first, 0x81, "{payload:?}");
        serde_json::from_slice(&payload).unwrap()
    }

    /// The next message, past pings; the code when the server closes.
    pub(crate) async fn next_said(&mut self) -> Result<serde_json::Value, u16> {
        loop {
            match self.frame().await.unwrap() {
                (0x89, _) => {}
                (0x88, payload) => return Err(u16::from_be_bytes([payload[0], payload[1]])),
                (_, payload) => return Ok(serde_json::from_slice(&payload).unwrap()),
            }
        }
    }

    /// As [`Client::ask`], past pings.
    pub(crate) async fn ask_said(&mut self, text: &str) -> serde_json::Value {
        self.send(text).await;
        self.next_said().await.unwrap()
    }

    pub(crate) async fn ask(&mut self, text: &str) -> serde_json::Value {
        self.send(text).await;
        self.json().await
    }

    /// Reads on until the close frame; its code.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        while let Some((first, payload)) = self.frame().await {
            if first == 0x88 {
                return payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
            }
        }
        None
    }
}

fn whole(input: &[u8]) -> Option<(usize, Vec<u8>)> {
    let (head, length) = match *input.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes([*input.get(2)?, *input.get(3)?]))),
        127 => (10, u64::from_be_bytes(input.get(2..10)?.try_into().unwrap()) as usize),
        length => (2, usize::from(length)),
    };
    Some((head + length, input.get(head..head + length)?.to_vec()))
}

/// A masked frame; `first` is its first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let length = match payload.len() {
        length @ 0..=125 => vec![0x80 | length as u8],
        length @ 126..=65_535 => [&[0xfe], (length as u16).to_be_bytes().as_slice()].concat(),
        length => [&[0xff], (length as u64).to_be_bytes().as_slice()].concat(),
    };
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    [vec![first], length, mask.to_vec(), masked].concat()
}
