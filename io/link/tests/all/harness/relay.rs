//! Relay logins driven by hand: a node that says what a test likes, and a relay that does to circuits what a test likes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sealtide_crypto::{SeededEntropy, SigningKey};
use sealtide_identity::{InviteId, InviteSecret, NodeId, RelayHint};
use sealtide_link::{Admission, RELAY_PATH, Refused};
use sealtide_wire::handshake::{
    CertificateFacts, Initiator, LocalEnd, Proof, RelayLimits, RelayLogin, Responder, Step,
};
use sealtide_wire::relay::{CircuitNumber, RelayFrame};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::raw::{AnyDates, MessagesIn, MessagesOut, Raw, TestCertificate, client, hybrid, read_head, upgrade};

fn local_end(key: &Arc<SigningKey>) -> Arc<LocalEnd> {
    Arc::new(LocalEnd::new(key.clone(), CertificateFacts::new(Vec::new(), 0, 0)))
}

/// A node's login at a relay.
pub struct RawLogin {
    pub raw: Raw,
    pub login: RelayLogin,
}

impl RawLogin {
    /// Logs in with `key`; `None` when the relay does not let it in.
    pub async fn connect(relay: &RelayHint, address: SocketAddr, key: &Arc<SigningKey>) -> Option<Self> {
        let mut tls = Raw::tls(address, client(hybrid(), None)).await.ok()?;
        tls.write_all(upgrade(RELAY_PATH).as_bytes()).await.ok()?;
        let head = read_head(&mut tls).await.ok()?;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self::over(Raw::new(tls, yawc::Role::Client), relay, key).await
    }

    /// The same over a connection that was upgraded.
    pub async fn over(mut raw: Raw, relay: &RelayHint, key: &Arc<SigningKey>) -> Option<Self> {
        let connection = raw.login_connection(&TestCertificate::new());
        let entropy = &mut SeededEntropy::new(77);
        let (mut initiator, hello) =
            Initiator::start(local_end(key), relay.relay, Proof::Key, connection, None, entropy);
        raw.send(&[hello]).await.ok()?;
        loop {
            let frame = raw.frame().await?;
            match initiator.handle(&frame, &raw, &AnyDates).ok()? {
                Step::Send(frames) => raw.send(&frames).await.ok()?,
                Step::LoggedIn { login, .. } => return Some(Self { raw, login: *login }),
                _ => {}
            }
        }
    }

    pub async fn say(&mut self, frame: &RelayFrame) {
        self.raw.send_bytes(frame.encode().to_vec()).await.unwrap();
    }

    /// The next frame; `None` when the relay closed.
    pub async fn hear(&mut self) -> Option<RelayFrame> {
        self.raw.message().await.map(|message| RelayFrame::decode(&message).unwrap())
    }
}

/// Lets in everybody.
struct Everybody;

impl Admission for Everybody {
    fn allowed(&self, _peer: &NodeId) -> bool {
        true
    }

    fn invite_secret(&self, _invite: &InviteId) -> Option<InviteSecret> {
        None
    }

    fn enrol(&self, _invite: &InviteId, _peer: &NodeId) -> Result<(), Refused> {
        Err(Refused)
    }
}

/// What comes of one R_DATA on its way.
pub type Harm = Box<dyn FnMut(Bytes) -> Vec<Bytes> + Send>;
/// Gives what happens to the R_DATA of a new circuit from the one node to the other, in that direction.
pub type Harms = Box<dyn FnMut(NodeId, NodeId) -> Harm + Send>;

/// An R_OPEN: the opener, its number, the target.
pub type CaughtOpen = (NodeId, CircuitNumber, NodeId);

/// A relay in the hands of somebody else. It passes circuits on, harmed as the test says, and writes down what nodes tell.
#[derive(Clone)]
pub struct EvilRelay {
    pub hint: RelayHint,
    pub address: SocketAddr,
    /// The key of the relay.
    pub key: Arc<SigningKey>,
    state: Arc<Mutex<State>>,
}

struct State {
    /// The newest login of each node: its number and what is to be written.
    logins: BTreeMap<NodeId, (u64, mpsc::UnboundedSender<RelayFrame>)>,
    /// By the node and its number: the other end, and what happens to what comes from here.
    circuits: BTreeMap<(NodeId, CircuitNumber), Way>,
    harms: Harms,
    next_even: u32,
    logins_so_far: u64,
    /// Every byte that came inside the TLS of the logins, after the upgrade.
    heard: Vec<u8>,
    /// What came but R_DATA.
    told: Vec<RelayFrame>,
    /// Where R_OPENs go when the test plays the target.
    caught: Option<mpsc::UnboundedSender<CaughtOpen>>,
    /// And R_DATA and R_CLOSE then.
    caught_data: Option<mpsc::UnboundedSender<(NodeId, RelayFrame)>>,
}

struct Way {
    to: NodeId,
    number: CircuitNumber,
    harm: Harm,
}

impl EvilRelay {
    pub async fn open(key: Arc<SigningKey>, harms: Harms) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hint = RelayHint { relay: NodeId::of(key.public()), url: format!("wss://{address}") };
        let state = State {
            logins: BTreeMap::new(),
            circuits: BTreeMap::new(),
            harms,
            next_even: 2,
            logins_so_far: 0,
            heard: Vec::new(),
            told: Vec::new(),
            caught: None,
            caught_data: None,
        };
        let relay = Self { hint, address, key, state: Arc::new(Mutex::new(state)) };
        let serving = relay.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let relay = serving.clone();
                tokio::spawn(async move { relay.serve(tcp).await });
            }
        });
        relay
    }

    /// One that does no harm.
    pub async fn honest(key: Arc<SigningKey>) -> Self {
        Self::open(key, Box::new(|_, _| Box::new(|payload| vec![payload]))).await
    }

    /// How many logins came about so far.
    pub fn logins(&self) -> u64 {
        self.state.lock().unwrap().logins_so_far
    }

    /// Everything that nodes said after the upgrade.
    pub fn heard(&self) -> Vec<u8> {
        self.state.lock().unwrap().heard.clone()
    }

    /// The frames other than R_DATA that nodes sent.
    pub fn told(&self) -> Vec<RelayFrame> {
        self.state.lock().unwrap().told.clone()
    }

    pub fn say(&self, node: &NodeId, frame: RelayFrame) {
        let _gone = self.state.lock().unwrap().logins[node].1.send(frame);
    }

    /// Closes the connection of a node behind what was said to it.
    pub fn drop_login(&self, node: &NodeId) {
        self.state.lock().unwrap().logins.remove(node);
    }

    /// From now on this end plays whoever is asked for: the opener, its number and the target of each R_OPEN, and what
    /// comes on circuits afterwards.
    pub fn catch(&self) -> (mpsc::UnboundedReceiver<CaughtOpen>, mpsc::UnboundedReceiver<(NodeId, RelayFrame)>) {
        let (opens, caught) = mpsc::unbounded_channel();
        let (data, caught_data) = mpsc::unbounded_channel();
        let mut state = self.state.lock().unwrap();
        (state.caught, state.caught_data) = (Some(opens), Some(data));
        (caught, caught_data)
    }

    async fn serve(&self, tcp: TcpStream) -> Option<()> {
        let certificate = TestCertificate::new();
        let mut raw = Raw::accept(tcp, &certificate).await.ok()?;
        let connection = raw.login_connection(&certificate);
        let limits = RelayLimits { max_circuits: 1024, credit: 256 << 10, rate_bytes_s: 0, burst: 0, ping_ms: 15_000 };
        let mut responder = Responder::relay(local_end(&self.key), connection, limits);
        let node = loop {
            let frame = raw.frame().await?;
            self.state.lock().unwrap().heard.extend_from_slice(&frame);
            match responder.handle(&frame, &raw, &AnyDates, &Everybody, &mut SeededEntropy::new(5)).ok()? {
                Step::Send(frames) => raw.send(&frames).await.ok()?,
                Step::LoggedIn { send, login } => {
                    raw.send(&send).await.ok()?;
                    break login.peer;
                }
                _ => {}
            }
        };
        let (reading, writing) = raw.into_halves();
        let (frames, queue) = mpsc::unbounded_channel();
        let number = {
            let mut state = self.state.lock().unwrap();
            state.logins_so_far += 1;
            let number = state.logins_so_far;
            state.logins.insert(node, (number, frames));
            number
        };
        tokio::select! {
            () = write(writing, queue) => {}
            _ = self.read(node, reading) => {}
        }
        let mut state = self.state.lock().unwrap();
        if state.logins.get(&node).is_some_and(|(newest, _)| *newest == number) {
            state.logins.remove(&node);
        }
        Some(())
    }

    async fn read(&self, node: NodeId, mut reading: MessagesIn) -> Option<()> {
        loop {
            let message = reading.next().await?;
            self.state.lock().unwrap().take(node, &message);
        }
    }
}

async fn write(mut writing: MessagesOut, mut queue: mpsc::UnboundedReceiver<RelayFrame>) {
    while let Some(frame) = queue.recv().await {
        if writing.send(frame.encode()).await.is_err() {
            return;
        }
    }
}

impl State {
    fn take(&mut self, node: NodeId, message: &Bytes) {
        self.heard.extend_from_slice(message);
        let frame = RelayFrame::decode(message).unwrap();
        if !matches!(frame, RelayFrame::Data { .. }) {
            self.told.push(frame.clone());
        }
        match frame {
            RelayFrame::Open { circuit, target, .. } => self.open(node, circuit, target),
            RelayFrame::Data { circuit, payload } => {
                if let Some(caught) = &self.caught_data {
                    let _test_is_over = caught.send((node, RelayFrame::Data { circuit, payload }));
                    return;
                }
                let Some(way) = self.circuits.get_mut(&(node, circuit)) else { return };
                let (to, number, payloads) = (way.to, way.number, (way.harm)(payload));
                for payload in payloads {
                    self.send(to, RelayFrame::Data { circuit: number, payload });
                }
            }
            RelayFrame::Accept { circuit } => {
                if let Some((to, circuit)) = self.other(node, circuit) {
                    self.send(to, RelayFrame::Accept { circuit });
                }
            }
            RelayFrame::Credit { circuit, increment } => {
                if let Some((to, circuit)) = self.other(node, circuit) {
                    self.send(to, RelayFrame::Credit { circuit, increment });
                }
            }
            RelayFrame::Refuse { circuit, why } => {
                self.end(node, circuit, |circuit| RelayFrame::Refuse { circuit, why })
            }
            RelayFrame::Close { .. } if self.caught_data.is_some() => {
                let _test_is_over = self.caught_data.as_ref().map(|caught| caught.send((node, frame)));
            }
            RelayFrame::Close { circuit, why } => self.end(node, circuit, |circuit| RelayFrame::Close { circuit, why }),
            RelayFrame::Ping(token) => self.send(node, RelayFrame::Pong(token)),
            _ => {}
        }
    }

    fn open(&mut self, node: NodeId, circuit: CircuitNumber, target: NodeId) {
        if let Some(caught) = &self.caught {
            let _test_is_over = caught.send((node, circuit, target));
            return;
        }
        let number = CircuitNumber::new(self.next_even).unwrap();
        self.next_even += 2;
        let (there, back) = ((self.harms)(node, target), (self.harms)(target, node));
        self.circuits.insert((node, circuit), Way { to: target, number, harm: there });
        self.circuits.insert((target, number), Way { to: node, number: circuit, harm: back });
        self.send(target, RelayFrame::Incoming { circuit: number, opener: node, address: None });
    }

    fn other(&self, node: NodeId, circuit: CircuitNumber) -> Option<(NodeId, CircuitNumber)> {
        self.circuits.get(&(node, circuit)).map(|way| (way.to, way.number))
    }

    fn end(&mut self, node: NodeId, circuit: CircuitNumber, told: impl Fn(CircuitNumber) -> RelayFrame) {
        let Some(way) = self.circuits.remove(&(node, circuit)) else { return };
        if self.circuits.remove(&(way.to, way.number)).is_some() {
            self.send(way.to, told(way.number));
        }
    }

    fn send(&self, to: NodeId, frame: RelayFrame) {
        if let Some((_, login)) = self.logins.get(&to) {
            let _gone = login.send(frame);
        }
    }
}
