//! What the fuzz targets and their twins in the tests run: nothing here may panic, whatever the input.

use bytes::Bytes;
use sealtide_crypto::{Now, SeededEntropy};
use sealtide_identity::NodeId;

use crate::handshake::RelayLimits;
use crate::relay::{Admit, CircuitNumber, ClientEvent, Gate, Hub, LoginId, RelayClient, RelayFrame, RelaySettings};

/// Nodes that talk to the relay of [`relay`].
const NODES: u8 = 3;

/// One relay message: decoded, and written again.
///
/// # Panics
/// When a message has two spellings.
pub fn relay_frame(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    if let Ok(frame) = RelayFrame::decode(&bytes) {
        assert_eq!(frame.encode(), bytes, "a relay frame with two spellings");
    }
}

/// A relay with three nodes and a node with a bad relay. The input is a script: steps of `what u8 | length u8 | bytes`, see
/// `Script`. Gives how many messages the relay and the node took.
///
/// # Panics
/// When the relay counts bytes or circuits that are gone.
pub fn relay(input: &[u8]) -> (usize, usize) {
    let mut script = Script::new();
    let mut rest = input;
    while let [what, length, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        script.step(*what, bytes);
        rest = tail;
    }
    script.end()
}

struct Script {
    hub: Hub,
    client: RelayClient,
    client_is_over: bool,
    /// The login of each node that has one.
    logins: [Option<LoginId>; NODES as usize],
    last: u64,
    now_ms: u64,
    taken: (usize, usize),
}

impl Script {
    fn new() -> Self {
        // Small, so that limits are met.
        let settings = RelaySettings {
            circuits_per_node: 4,
            credit: 300,
            credit_max: 600,
            waiting_per_node: 17_000,
            waiting_total: 34_000,
            ..RelaySettings::default()
        };
        let limits = RelayLimits { max_circuits: 4, credit: 300, rate_bytes_s: 0, burst: 0, ping_ms: settings.ping_ms };
        let admit = Admit::AllowList([node(0), node(1)].into());
        let (hub, client) = (Hub::new(settings, admit), RelayClient::new(limits));
        let logins = [None; NODES as usize];
        let mut script = Self { hub, client, client_is_over: false, logins, last: 0, now_ms: 1, taken: (0, 0) };
        (0..NODES).for_each(|n| script.log_in(n));
        script
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, wall_ms: 0 }
    }

    fn log_in(&mut self, n: u8) {
        self.last += 1;
        let (id, now) = (LoginId(self.last), self.now());
        // The driver closes a login that another one replaced, or that did not come about.
        let old = self.logins[usize::from(n)].take();
        let entropy = &mut SeededEntropy::new(self.last);
        if self.hub.logged_in(now, id, node(n), None, false, entropy) {
            self.logins[usize::from(n)] = Some(id);
        }
        old.into_iter().for_each(|old| self.hub.lost(old));
    }

    fn step(&mut self, what: u8, bytes: &[u8]) {
        let n = what % NODES;
        let Some(id) = self.logins[usize::from(n)] else { return self.log_in(n) };
        match what / NODES % 8 {
            0..=3 => self.say(n, id, bytes),
            4 => (0..bytes.len()).for_each(|_| drop(self.hub.transmit(self.now(), id))),
            5 => {
                let seconds = bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
                self.now_ms += seconds * 100;
                self.hub.handle_timeout(self.now());
            }
            6 if bytes.is_empty() => self.hub.lost(self.logins[usize::from(n)].take().unwrap_or(id)),
            6 => self.log_in(n),
            _ => self.tell_client(bytes),
        }
        while self.hub.poll().is_some() {}
    }

    fn say(&mut self, n: u8, id: LoginId, bytes: &[u8]) {
        if self.hub.gate(self.now(), id) != Gate::Open {
            return;
        }
        match self.hub.message(self.now(), id, &Bytes::copy_from_slice(bytes)) {
            Ok(()) => self.taken.0 += 1,
            Err(_) => {
                self.hub.lost(id);
                self.logins[usize::from(n)] = None;
            }
        }
    }

    /// The same bytes from a bad relay to a node, which does what nodes do.
    fn tell_client(&mut self, bytes: &[u8]) {
        if self.client_is_over {
            return;
        }
        let _number = self.client.open(node(9));
        match self.client.message(&Bytes::copy_from_slice(bytes)) {
            Ok(()) => self.taken.1 += 1,
            Err(_) => {
                self.client.lost();
                self.client_is_over = true;
            }
        }
        while let Some(event) = self.client.poll_event() {
            match event {
                ClientEvent::Incoming { circuit, .. } if circuit.as_u32() % 4 == 0 => self.client.refuse(circuit),
                ClientEvent::Incoming { circuit, .. } => self.client.accept(circuit),
                ClientEvent::Circuit(circuit) => {
                    let _taken = self.client.write(circuit, &[std::io::IoSlice::new(bytes)]);
                    let _bytes = self.client.read(self.now_ms, circuit, 100);
                }
                _ => {}
            }
        }
        if bytes.len().is_multiple_of(2) {
            while self.client.transmit().is_some() {}
        }
        if let (3, Some(circuit)) = (bytes.len() % 4, CircuitNumber::new(1)) {
            self.client.close(circuit);
        }
    }

    fn end(mut self) -> (usize, usize) {
        self.logins.into_iter().flatten().for_each(|id| self.hub.lost(id));
        let stats = self.hub.stats();
        assert_eq!((stats.nodes, stats.circuits, stats.waiting_bytes), (0, 0, 0), "what is gone counts still");
        self.taken
    }
}

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n + 1; 32])
}
