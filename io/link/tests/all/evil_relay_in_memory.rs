//! Ten thousand relays that harm the bytes of a circuit, in memory: the relay's core, the circuits of both nodes and the
//! TLS of the peers, without sockets, tasks or clocks. (Whole sessions over sockets: `evil_relay`.)

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use crate::harness::raw::{TestCertificate, client, hybrid, server};
use bytes::Bytes;
use rustls::{ClientConnection, ConnectionCommon, ServerConnection, SideData};
use rustls_pki_types::ServerName;
use sealtide_crypto::{Entropy, Now, SeededEntropy};
use sealtide_identity::NodeId;
use sealtide_link::{Admit, RelaySettings};
use sealtide_wire::relay::{
    CircuitNumber, CircuitState, ClientEvent, Hub, LoginId, RELAY_DATA_BYTES_MAX, ReadOutcome, RelayClient, RelayFrame,
};

const NOW: Now = Now { mono_ms: 1, wall_ms: 0 };
/// Records of one case in each direction, and their bytes.
const RECORDS: usize = 24;
const RECORD_BYTES: usize = 700;

struct Dice(SeededEntropy);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        let mut random = [0; 8];
        self.0.fill(&mut random);
        usize::try_from(u64::from_be_bytes(random) % bound as u64).unwrap()
    }
}

/// What the relay does to one R_DATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Alter,
    Drop,
    Replay,
    Reorder,
    Duplicate,
    Truncate,
    Inject,
}

const WHATS: [What; 7] =
    [What::Alter, What::Drop, What::Replay, What::Reorder, What::Duplicate, What::Truncate, What::Inject];

/// Harms one R_DATA of one direction, the `at`th.
struct Harm {
    dice: Dice,
    what: What,
    at: usize,
    seen: Vec<Bytes>,
    held: Option<Bytes>,
    done: bool,
}

impl Harm {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(SeededEntropy::new(seed));
        let (what, at) = (WHATS[dice.below(WHATS.len())], dice.below(RECORDS + 6));
        Self { dice, what, at, seen: Vec::new(), held: None, done: false }
    }

    fn pass(&mut self, payload: Bytes) -> Vec<Bytes> {
        self.seen.push(payload.clone());
        if let Some(held) = self.held.take() {
            return vec![payload, held];
        }
        if self.seen.len() - 1 != self.at {
            return vec![payload];
        }
        self.done = true;
        match self.what {
            What::Alter => {
                let mut altered = payload.to_vec();
                let bit = self.dice.below(8 * altered.len());
                altered[bit / 8] ^= 1 << (bit % 8);
                vec![altered.into()]
            }
            What::Drop => Vec::new(),
            What::Replay => vec![self.seen[self.dice.below(self.seen.len())].clone(), payload],
            What::Reorder => {
                self.held = Some(payload);
                Vec::new()
            }
            What::Duplicate => vec![payload.clone(), payload],
            What::Truncate => {
                let kept = 1 + self.dice.below(payload.len().max(2) - 1);
                vec![payload.slice(..kept)]
            }
            What::Inject => {
                let mut random = vec![0; 1 + self.dice.below(RELAY_DATA_BYTES_MAX)];
                self.dice.0.fill(&mut random);
                vec![random.into(), payload]
            }
        }
    }
}

/// One node: its login, its circuit, the TLS in it, what it says and what it heard.
struct End<T> {
    login: LoginId,
    client: RelayClient,
    circuit: Option<CircuitNumber>,
    tls: T,
    to_say: Vec<Vec<u8>>,
    heard: Vec<u8>,
    broken: bool,
}

fn said(seed: u8) -> Vec<Vec<u8>> {
    (0..RECORDS).map(|n| [&[seed, n as u8][..], &[seed ^ n as u8; RECORD_BYTES]].concat()).collect()
}

impl<T> End<T> {
    fn new(login: u64, tls: T, seed: u8) -> Self {
        let client = RelayClient::new(RelaySettings::default().granted());
        let mut to_say = said(seed);
        to_say.reverse();
        Self { login: LoginId(login), client, circuit: None, tls, to_say, heard: Vec::new(), broken: false }
    }

    /// Moves TLS and circuit on; true when something moved.
    fn work<D: SideData>(&mut self) -> bool
    where
        T: std::ops::DerefMut<Target = ConnectionCommon<D>>,
    {
        let stands = |circuit: &CircuitNumber| self.client.state(*circuit) != Some(CircuitState::Opening);
        let Some(circuit) = self.circuit.filter(|_| !self.broken).filter(stands) else { return false };
        let mut moved = false;
        if !self.tls.is_handshaking()
            && let Some(record) = self.to_say.pop()
        {
            self.tls.writer().write_all(&record).unwrap();
            moved = true;
        }
        // One write of the TLS is one R_DATA, so that harm falls on records as well as between them.
        if self.tls.wants_write() {
            let mut out = Vec::new();
            self.tls.write_tls(&mut out).unwrap();
            assert_eq!(self.client.write(circuit, &[std::io::IoSlice::new(&out)]).unwrap_or(out.len()), out.len());
            moved = true;
        }
        match self.client.read(0, circuit, 64 << 10) {
            ReadOutcome::Bytes(bytes) => {
                moved = true;
                let mut bytes = &bytes[..];
                while !bytes.is_empty() && !self.broken {
                    self.tls.read_tls(&mut bytes).unwrap();
                    self.broken = self.tls.process_new_packets().is_err();
                    let _all = self.tls.reader().read_to_end(&mut self.heard);
                }
            }
            ReadOutcome::Wait => {}
            ReadOutcome::Over(_) => self.broken = true,
        }
        moved
    }

    /// Gives the relay what this login has to write.
    fn speak(&mut self, hub: &mut Hub) -> bool {
        let mut moved = false;
        while let Some(message) = self.client.transmit() {
            moved = true;
            hub.message(NOW, self.login, &message.to_bytes()).unwrap();
        }
        moved
    }

    /// Takes what the relay has for this login, harmed.
    fn listen(&mut self, hub: &mut Hub, harm: &mut Harm) -> bool {
        let mut moved = false;
        while let Some(message) = hub.transmit(NOW, self.login) {
            moved = true;
            let frames = match RelayFrame::decode(&message).unwrap() {
                RelayFrame::Data { circuit, payload } => {
                    harm.pass(payload).into_iter().map(|payload| RelayFrame::Data { circuit, payload }).collect()
                }
                other => vec![other],
            };
            for frame in frames {
                // More than the window is a reason to end the login, which ends the circuit.
                self.broken |= self.client.message(&frame.encode()).is_err();
            }
            while let Some(event) = self.client.poll_event() {
                if let ClientEvent::Incoming { circuit, .. } = event {
                    self.client.accept(circuit);
                    self.circuit = Some(circuit);
                }
            }
        }
        moved
    }
}

/// Whether everything that one end said was heard by the other; what was heard is the beginning of it in any case.
fn heard_all(seed: u64, heard: &[u8], said: &[Vec<u8>]) -> bool {
    let said = said.concat();
    assert!(said.starts_with(heard), "seed {seed}: wrong application data");
    heard.len() == said.len()
}

// Proves: LK-21
#[test]
fn evil_relay_in_memory() {
    let scale: u64 = std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1);
    let cases = 10_000 * scale.max(1);
    let (ours, theirs) = (TestCertificate::new(), TestCertificate::new());
    let (dials, answers) = (client(hybrid(), Some(&ours)), server(hybrid(), &theirs));
    let name = ServerName::try_from("node.invalid").unwrap();
    let mut results = BTreeMap::<What, [u64; 3]>::new();
    for seed in 0..cases {
        let mut hub = Hub::new(RelaySettings { rate_bytes_s: 0, ..RelaySettings::default() }, Admit::Open);
        let mut a = End::new(1, ClientConnection::new(dials.clone(), name.clone()).unwrap(), 0x11);
        let mut b = End::new(2, ServerConnection::new(answers.clone()).unwrap(), 0x22);
        for login in [a.login, b.login] {
            let node = NodeId::from_bytes([login.0 as u8; 32]);
            assert!(hub.logged_in(NOW, login, node, None, false, &mut SeededEntropy::new(seed)));
        }
        a.circuit = a.client.open(NodeId::from_bytes([2; 32]));
        // One direction is harmed.
        let mut harms = [Harm::new(seed), Harm::new(seed)];
        let harmed = usize::try_from(seed / 7 % 2).unwrap();
        harms[1 - harmed].at = usize::MAX;
        loop {
            let mut moved = a.work() | a.speak(&mut hub) | b.work() | b.speak(&mut hub);
            moved |= b.listen(&mut hub, &mut harms[0]) | a.listen(&mut hub, &mut harms[1]);
            if !moved {
                break;
            }
        }
        let all = heard_all(seed, &b.heard, &said(0x11)) & heard_all(seed, &a.heard, &said(0x22));
        let noticed = a.broken || b.broken || !all;
        let result = results.entry(harms[harmed].what).or_default();
        match (harms[harmed].done, noticed) {
            (true, true) => result[0] += 1,
            (true, false) => result[1] += 1,
            (false, noticed) => {
                assert!(!noticed, "seed {seed}: nothing was harmed, and yet not everything arrived");
                result[2] += 1;
            }
        }
    }
    println!("{cases} cases; of each harm: path ended, harmless, never reached: {results:?}");
    for (what, [ended, harmless, _]) in results {
        // TLS ignores some bits, such as those of its old version numbers.
        let ignored = if what == What::Alter { ended / 10 } else { 0 };
        assert!(ended > 500 * scale && harmless <= ignored, "{what:?}: {ended} noticed, {harmless} not");
    }
}
