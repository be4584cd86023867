//! The node's side of one login: its circuits, their credit, and what has to be written. Spec: link C.5.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;

use bytes::{Bytes, BytesMut};
use sealtide_identity::{LinkAddress, NodeId};

use super::frame::{
    CircuitEnd, CircuitNumber, GoAwayCode, RELAY_DATA_BYTES_MAX, RelayFrame, RelayFrameError, RelayMessage,
};
use crate::handshake::RelayLimits;

/// Bytes that a circuit takes from its writer before the socket has taken them.
const UNSENT_BYTES_MAX: usize = 128 * 1024;
/// Frames that answer the relay, or that it can bring about, and that wait for the socket. A relay that has more to be said
/// than this and reads nothing means harm.
const ANSWERS_MAX: usize = 4096;

/// What the relay told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// Somebody wants a circuit: accept or refuse it.
    Incoming {
        /// Its number.
        circuit: CircuitNumber,
        /// Who the relay says it is; proved to this node only inside the circuit.
        opener: NodeId,
        /// Where the relay sees it, if it wants that told.
        address: Option<LinkAddress>,
    },
    /// The circuit changed: it stands, has bytes, takes bytes, or is over.
    Circuit(CircuitNumber),
    /// Where the relay sees this node now.
    Observed(LinkAddress),
    /// The login is over, or soon will be.
    GoAway {
        /// Why.
        code: GoAwayCode,
        /// When to come back, ms.
        reconnect_ms: u32,
    },
}

/// What a relay did that ends the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RelayViolation {
    /// Bytes that are no relay frame.
    #[error(transparent)]
    Frame(#[from] RelayFrameError),
    /// A frame that only nodes send.
    #[error("a frame that only nodes send")]
    Direction,
    /// A circuit number that is taken or of the wrong parity.
    #[error("a circuit number that means nothing here")]
    Number,
    /// More bytes than credit, or credit without end.
    #[error("more bytes than this node takes")]
    Credit,
    /// More circuits than agreed.
    #[error("more circuits than agreed")]
    TooMany,
    /// Asks for more answers than it reads.
    #[error("asks for answers and does not read them")]
    Unread,
}

/// What a circuit gives to its reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// These bytes.
    Bytes(Bytes),
    /// Nothing yet.
    Wait,
    /// It is over.
    Over(CircuitEnd),
}

/// How a circuit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// Asked for by this node.
    Opening,
    /// Offered to this node.
    Offered,
    /// Stands.
    Open,
    /// Over; what came before can still be read.
    Over(CircuitEnd),
}

#[derive(Debug)]
struct Circuit {
    state: CircuitState,
    received: VecDeque<Bytes>,
    /// Bytes that the peer may still send.
    window: u64,
    /// What `window` and the bytes that came and wait for the reader or its R_CREDIT add up to.
    window_size: u64,
    /// What the last R_CREDIT added to `window`.
    granted: u64,
    /// When that was, on the clock of [`RelayClient::read`].
    granted_ms: Option<u64>,
    /// The peer has used up what it had since.
    ran_out: bool,
    /// Bytes read since the last R_CREDIT.
    read: u64,
    credit: u64,
    unsent: BytesMut,
}

/// One login at a relay.
#[derive(Debug)]
pub struct RelayClient {
    limits: RelayLimits,
    next_odd: u32,
    circuits: BTreeMap<CircuitNumber, Circuit>,
    /// What steers, in order; whether each counts as an answer.
    steering: VecDeque<(RelayMessage, bool)>,
    /// Answers among them.
    answers: usize,
    /// More was to be answered than [`ANSWERS_MAX`] frames: the login is over with the next message.
    overflowed: bool,
    /// Circuits with unsent bytes and credit, in the order of their turns.
    turns: VecDeque<CircuitNumber>,
    events: VecDeque<ClientEvent>,
}

/// Bytes of one circuit that may wait here, at most, whatever the relay grants. Spec: link C.5.
const CREDIT_MAX: u32 = 2 * 1024 * 1024;
/// What the window of a circuit grows to, bytes: less than what a relay lets wait for a node (1 MiB), so that one circuit alone
/// never holds its sender up. Spec: link C.5.
const GROWN_CREDIT_BYTES: u64 = 768 * 1024;
/// By how much all windows of a login grow together, bytes: what waits for it at the relay is for all.
const GROWN_TOGETHER_BYTES: u64 = 512 * 1024;
/// A window grows where as much as it will be is read in so many ms. A relay ends circuits of whom reads less than half of what waits in
/// ten seconds, and what is read now says what will be.
const GROWN_IS_READ_MS: u64 = 1000;
/// Circuits of one login, at most. Spec: link C.12.
const CIRCUITS_MAX: u16 = 1024;

impl RelayClient {
    /// A login with what the relay granted; of that, what this node can bear.
    pub fn new(limits: RelayLimits) -> Self {
        let (credit, max_circuits) = (limits.credit.min(CREDIT_MAX), limits.max_circuits.min(CIRCUITS_MAX));
        Self {
            limits: RelayLimits { credit, max_circuits, ..limits },
            next_odd: 1,
            circuits: BTreeMap::new(),
            steering: VecDeque::new(),
            answers: 0,
            overflowed: false,
            turns: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Asks for a circuit; `None` when all of them are taken.
    pub fn open(&mut self, target: NodeId) -> Option<CircuitNumber> {
        if self.circuits.len() >= usize::from(self.limits.max_circuits) {
            return None;
        }
        let circuit = CircuitNumber::new(self.next_odd).filter(|number| !self.circuits.contains_key(number))?;
        self.next_odd = self.next_odd.checked_add(2).unwrap_or(1);
        self.circuits.insert(circuit, self.fresh(CircuitState::Opening));
        self.push(RelayFrame::Open { circuit, target, show_address: false });
        Some(circuit)
    }

    /// Takes a circuit that was offered.
    pub fn accept(&mut self, circuit: CircuitNumber) {
        if let Some(found) = self.circuits.get_mut(&circuit).filter(|found| found.state == CircuitState::Offered) {
            found.state = CircuitState::Open;
            self.answer(RelayFrame::Accept { circuit });
        }
    }

    /// Does not take a circuit that was offered. The opener is not told that this node is here.
    pub fn refuse(&mut self, circuit: CircuitNumber) {
        if self.circuits.remove(&circuit).is_some_and(|found| found.state == CircuitState::Offered) {
            self.answer(RelayFrame::Refuse { circuit, why: CircuitEnd::Unreachable });
        }
    }

    /// Lets `node` in at the relay for so long, 0 takes it back; zeros are guests.
    pub fn allow(&mut self, node: NodeId, seconds: u32) {
        self.answer(RelayFrame::Allow { node, seconds });
    }

    /// Asks for a sign of life.
    pub fn ping(&mut self, token: [u8; 8]) {
        self.push(RelayFrame::Ping(token));
    }

    /// One message of the relay. Answers that it does not read pile up to a bound; beyond it the login is over.
    ///
    /// # Errors
    /// [`RelayViolation`]: the login is to be closed.
    pub fn message(&mut self, message: &Bytes) -> Result<(), RelayViolation> {
        match RelayFrame::decode(message)? {
            RelayFrame::Incoming { circuit, opener, address } => {
                if circuit.is_openers() || self.circuits.contains_key(&circuit) {
                    return Err(RelayViolation::Number);
                }
                if self.circuits.len() >= 2 * usize::from(self.limits.max_circuits) {
                    return Err(RelayViolation::TooMany);
                }
                self.circuits.insert(circuit, self.fresh(CircuitState::Offered));
                self.events.push_back(ClientEvent::Incoming { circuit, opener, address });
            }
            RelayFrame::Accept { circuit } => {
                if let Some(found) = self.circuits.get_mut(&circuit) {
                    if found.state != CircuitState::Opening {
                        return Err(RelayViolation::Number);
                    }
                    found.state = CircuitState::Open;
                    self.events.push_back(ClientEvent::Circuit(circuit));
                }
            }
            RelayFrame::Refuse { circuit, why } | RelayFrame::Close { circuit, why } => self.over(circuit, why),
            RelayFrame::Data { circuit, payload } => {
                // What comes for a circuit that this end has closed is not wanted.
                let Some(found) = self.circuits.get_mut(&circuit) else { return Ok(()) };
                let window = found.window.checked_sub(payload.len() as u64);
                found.window = window.ok_or(RelayViolation::Credit)?;
                // All used up, or all that it had before the last R_CREDIT, which may still be on its way: a peer that has more
                // to say and may not cuts its last frame to what it may.
                found.ran_out |= found.window == 0 || found.window == found.granted;
                if found.state != CircuitState::Open {
                    return Err(RelayViolation::Number);
                }
                found.received.push_back(payload);
                self.events.push_back(ClientEvent::Circuit(circuit));
            }
            RelayFrame::Credit { circuit, increment } => {
                if let Some(found) = self.circuits.get_mut(&circuit) {
                    let was_stuck = found.credit == 0 && !found.unsent.is_empty();
                    found.credit = found.credit.saturating_add(increment.into());
                    if found.credit > 1 << 40 {
                        return Err(RelayViolation::Credit);
                    }
                    if was_stuck {
                        self.turns.push_back(circuit);
                    }
                    self.events.push_back(ClientEvent::Circuit(circuit));
                }
            }
            RelayFrame::Observed { address } => self.events.push_back(ClientEvent::Observed(address)),
            RelayFrame::GoAway { code, reconnect_ms, .. } => {
                self.events.push_back(ClientEvent::GoAway { code, reconnect_ms });
            }
            RelayFrame::Ping(token) => self.answer(RelayFrame::Pong(token)),
            RelayFrame::Pong(_) | RelayFrame::ProbeResult { .. } => {}
            RelayFrame::Open { .. } | RelayFrame::Probe { .. } | RelayFrame::Allow { .. } => {
                return Err(RelayViolation::Direction);
            }
        }
        if self.overflowed { Err(RelayViolation::Unread) } else { Ok(()) }
    }

    /// How a circuit stands; `None`: this node has closed it.
    pub fn state(&self, circuit: CircuitNumber) -> Option<CircuitState> {
        self.circuits.get(&circuit).map(|found| found.state)
    }

    /// At most `bytes_max` bytes for the reader of a circuit, at `now_ms` on any clock that does not go back. The peer is granted new
    /// ones when half of the window was read; more than that where it runs out of them and they are read fast, since the way holds more than
    /// the window then. Spec: relay, section 3.
    pub fn read(&mut self, now_ms: u64, circuit: CircuitNumber, bytes_max: usize) -> ReadOutcome {
        let Some(found) = self.circuits.get_mut(&circuit) else { return ReadOutcome::Over(CircuitEnd::Done) };
        let Some(first) = found.received.front_mut() else {
            return match found.state {
                CircuitState::Over(why) => ReadOutcome::Over(why),
                _ => ReadOutcome::Wait,
            };
        };
        let bytes = first.split_to(first.len().min(bytes_max));
        if first.is_empty() {
            found.received.pop_front();
        }
        found.read += bytes.len() as u64;
        if found.read >= found.window_size / 2 && found.state == CircuitState::Open {
            self.grant(now_ms, circuit);
        }
        ReadOutcome::Bytes(bytes)
    }

    /// Lets the peer send as much as was read, and more where the window grows.
    fn grant(&mut self, now_ms: u64, circuit: CircuitNumber) {
        let first = u64::from(self.limits.credit);
        let together: u64 = self.circuits.values().map(|one| one.window_size - first).sum();
        let Some(found) = self.circuits.get_mut(&circuit) else { return };
        let read = std::mem::take(&mut found.read);
        let took_ms = found.granted_ms.replace(now_ms).map(|before| now_ms.saturating_sub(before).max(1));
        let by = first.min(GROWN_CREDIT_BYTES.saturating_sub(found.window_size));
        let is_fast = took_ms.is_some_and(|ms| read * GROWN_IS_READ_MS / ms >= found.window_size + by);
        let grows = std::mem::take(&mut found.ran_out) && is_fast && together + by <= GROWN_TOGETHER_BYTES;
        let by = if grows { by } else { 0 };
        found.granted = read + by;
        found.window_size += by;
        found.window += found.granted;
        let increment = u32::try_from(found.granted).unwrap_or(u32::MAX);
        self.answer(RelayFrame::Credit { circuit, increment });
    }

    /// Takes bytes of the writer of a circuit; how many, 0 asks to wait. `None`: it is over, or does not stand yet.
    pub fn write(&mut self, circuit: CircuitNumber, pieces: &[IoSlice<'_>]) -> Option<usize> {
        let found = self.circuits.get_mut(&circuit).filter(|found| found.state == CircuitState::Open)?;
        let before = found.unsent.len();
        for piece in pieces {
            let room = UNSENT_BYTES_MAX.saturating_sub(found.unsent.len());
            found.unsent.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        let taken = found.unsent.len() - before;
        if taken > 0 && before == 0 && found.credit > 0 {
            self.turns.push_back(circuit);
        }
        Some(taken)
    }

    /// Ends a circuit. What was written and not sent is sent first.
    pub fn close(&mut self, circuit: CircuitNumber) {
        let Some(mut found) = self.circuits.remove(&circuit) else { return };
        self.turns.retain(|turn| *turn != circuit);
        if matches!(found.state, CircuitState::Over(_)) {
            return;
        }
        while !found.unsent.is_empty() && found.credit > 0 {
            let payload = take_payload(&mut found);
            self.push(RelayFrame::Data { circuit, payload });
        }
        self.push(RelayFrame::Close { circuit, why: CircuitEnd::Done });
    }

    /// The connection to the relay is gone, and every circuit with it.
    pub fn lost(&mut self) {
        let circuits: Vec<_> = self.circuits.keys().copied().collect();
        circuits.into_iter().for_each(|circuit| self.over(circuit, CircuitEnd::Unreachable));
    }

    /// The next message to write: what steers, then the circuits in turn.
    pub fn transmit(&mut self) -> Option<RelayMessage> {
        if let Some((message, is_answer)) = self.steering.pop_front() {
            self.answers -= usize::from(is_answer);
            return Some(message);
        }
        let circuit = self.turns.pop_front()?;
        let found = self.circuits.get_mut(&circuit)?;
        let was_full = found.unsent.len() >= UNSENT_BYTES_MAX;
        let payload = take_payload(found);
        if !found.unsent.is_empty() && found.credit > 0 {
            self.turns.push_back(circuit);
        }
        if was_full {
            self.events.push_back(ClientEvent::Circuit(circuit));
        }
        Some(RelayFrame::Data { circuit, payload }.into_message())
    }

    /// Whether something is there to write.
    pub fn has_messages(&self) -> bool {
        !self.steering.is_empty() || !self.turns.is_empty()
    }

    /// What the relay told; until `None`.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    fn over(&mut self, circuit: CircuitNumber, why: CircuitEnd) {
        if let Some(found) = self.circuits.get_mut(&circuit) {
            let offered = found.state == CircuitState::Offered;
            found.state = CircuitState::Over(why);
            found.unsent.clear();
            self.turns.retain(|turn| *turn != circuit);
            if offered {
                self.circuits.remove(&circuit);
            }
            self.events.push_back(ClientEvent::Circuit(circuit));
        }
    }

    fn fresh(&self, state: CircuitState) -> Circuit {
        let window = self.limits.credit.into();
        Circuit {
            state,
            received: VecDeque::new(),
            window,
            window_size: window,
            granted: 0,
            granted_ms: None,
            ran_out: false,
            read: 0,
            credit: window,
            unsent: BytesMut::new(),
        }
    }

    /// Puts a frame in line that this node sends of its own accord: one for each circuit, and what was written to it.
    fn push(&mut self, frame: RelayFrame) {
        self.steering.push_back((frame.into_message(), false));
    }

    /// Puts a frame in line that a relay can have as often as it likes. What finds no place is lost, and with it the login:
    /// the relay has stopped reading.
    fn answer(&mut self, frame: RelayFrame) {
        if self.answers >= ANSWERS_MAX {
            self.overflowed = true;
        } else {
            self.answers += 1;
            self.steering.push_back((frame.into_message(), true));
        }
    }
}

fn take_payload(circuit: &mut Circuit) -> Bytes {
    let credit = usize::try_from(circuit.credit).unwrap_or(usize::MAX);
    let length = circuit.unsent.len().min(RELAY_DATA_BYTES_MAX).min(credit);
    let payload = circuit.unsent.split_to(length).freeze();
    circuit.credit -= length as u64;
    if circuit.unsent.is_empty() {
        circuit.unsent = BytesMut::new();
    }
    payload
}

#[cfg(test)]
mod tests;
