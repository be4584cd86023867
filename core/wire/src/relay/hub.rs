//! The relay: logins, circuits between them, and what each of them may read and write when. It sees who meets whom,
//! sizes and times, and never what is said. Spec: link C.5.
//!
//! ```text
//! R_OPEN ─▶ Opening ──R_ACCEPT──▶ Open ──R_CLOSE or the end of a login──▶ gone, after what waits was delivered
//!              └── refused, not there, no answer: one R_REFUSE, always after the same time
//! ```
//!
//! The driver gives every message of a socket to [`Hub::message`], asks [`Hub::gate`] before it reads the next,
//! writes what [`Hub::transmit`] gives, and looks at all three again when [`Hub::poll`] says [`Output::Wake`].

mod circuits;
mod logins;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use sealtide_crypto::{Entropy, Now};
use sealtide_identity::{LinkAddress, NodeId};

use super::frame::{CircuitEnd, CircuitNumber, GoAwayCode, RelayFrame, RelayFrameError};
use super::guest_list::{Admit, GUESTS, GuestList, Standing};
use super::settings::RelaySettings;

use circuits::Circuits;
use logins::{Login, Logins};

/// One proven connection of a node to the relay. Given out by the driver, never twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoginId(pub u64);

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Something changed for this login: look at its gate, its messages and its end.
    Wake(LoginId),
    /// Try to connect to `address` and report with [`Hub::probed`].
    Probe {
        /// Who asks.
        login: LoginId,
        /// Where it is seen, with the port it asks about.
        address: LinkAddress,
    },
    /// Two machines use one node key: to be told to the operator.
    DuplicateIdentity(NodeId),
    /// The last circuit ended, or had its time: the relay can stop.
    Drained,
}

/// Whether a login may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Yes.
    Open,
    /// Not before this time on the monotonic clock, ms.
    Until(u64),
    /// Not before [`Output::Wake`].
    Closed,
}

/// What a node did that ends its login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Bytes that are no relay frame.
    #[error(transparent)]
    Frame(#[from] RelayFrameError),
    /// A frame that only relays send.
    #[error("a frame that only relays send")]
    Direction,
    /// A number that is taken, of the wrong parity, or of no circuit where one is needed.
    #[error("a circuit number that means nothing here")]
    Number,
    /// More bytes than credit.
    #[error("more bytes than the other end takes")]
    Credit,
    /// Asks for more answers than it reads.
    #[error("asks for answers and does not read them")]
    Unread,
}

/// What a relay does, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayStats {
    /// Nodes logged in.
    pub nodes: u64,
    /// Guests among them.
    pub guests: u64,
    /// Circuits now.
    pub circuits: u64,
    /// Circuits that came about.
    pub circuits_opened: u64,
    /// R_OPENs that led to none.
    pub refused: u64,
    /// Bytes of R_DATA taken.
    pub bytes_in: u64,
    /// Bytes of R_DATA passed on.
    pub bytes_out: u64,
    /// Bytes that wait for their receivers.
    pub waiting_bytes: u64,
    /// How often reading was put off because of the rate.
    pub rate_delays: u64,
    /// How often reading was put off because receivers did not read.
    pub blocked: u64,
    /// Logins so far.
    pub logins: u64,
    /// Logins that a newer one of the same node replaced.
    pub replaced: u64,
}

/// The state of a relay.
#[derive(Debug)]
pub struct Hub {
    settings: RelaySettings,
    guest_list: GuestList,
    logins: Logins,
    circuits: Circuits,
    /// What is due when. Each time stands once more in the thing that it is of, so that a timer is found without a look at the others.
    timers: BTreeSet<(u64, Timer)>,
    outputs: VecDeque<Output>,
    /// Who sent while the relay was full, in the order of their turns.
    starved: VecDeque<LoginId>,
    starved_at_ms: Option<u64>,
    drained_at_ms: Option<u64>,
    draining: bool,
    /// The time of the relay is over: nobody comes in any more.
    dismissed: bool,
    stats: RelayStats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// An R_OPEN of this login that leads to nothing is answered.
    Refuse(LoginId, CircuitNumber),
    /// Whoever is held up by a node that does not read is set free.
    Blocked(LoginId),
    /// Somebody has waited for room in the relay.
    Starved,
    /// A guest has had its time.
    GuestOver(LoginId),
    /// A login without a sign of life.
    Idle(LoginId),
    Drained,
}

impl Hub {
    /// A relay without logins.
    pub fn new(settings: RelaySettings, admit: Admit) -> Self {
        Self {
            settings,
            guest_list: GuestList::new(admit, settings.allows_per_node),
            logins: Logins::default(),
            circuits: Circuits::default(),
            timers: BTreeSet::new(),
            outputs: VecDeque::new(),
            starved: VecDeque::new(),
            starved_at_ms: None,
            drained_at_ms: None,
            draining: false,
            dismissed: false,
            stats: RelayStats::default(),
        }
    }

    /// Whether the login of `node` by its key alone is let in now.
    // Spec: LK-26, LK-108
    pub fn admits(&self, now: Now, node: &NodeId) -> bool {
        match self.guest_list.standing(now.mono_ms, node) {
            Some(Standing::Guest) => self.logins.guests() < self.settings.guests,
            standing => standing.is_some(),
        }
    }

    /// A login finished its handshake. `token`: it proved the relay's token. False: it is not let in after all, and
    /// the driver closes it.
    // Spec: LK-25
    pub fn logged_in(
        &mut self,
        now: Now,
        id: LoginId,
        node: NodeId,
        address: Option<LinkAddress>,
        token: bool,
        entropy: &mut dyn Entropy,
    ) -> bool {
        if self.dismissed {
            return false;
        }
        if token {
            self.guest_list.proved_token(node);
        }
        let Some(standing) = self.guest_list.standing(now.mono_ms, &node).filter(|_| self.admits(now, &node)) else {
            return false;
        };
        self.stats.logins += 1;
        let mut login = Login::new(now.mono_ms, node, standing, address, &self.settings);
        if let Some(old) = self.logins.of(&node) {
            self.stats.replaced += 1;
            let fight = self.logins.replaced(now.mono_ms, node) > self.settings.replacements_per_minute;
            let code = if fight { GoAwayCode::DuplicateIdentity } else { GoAwayCode::Replaced };
            if let Some(bucket) = self.logins.get(old).map(Login::bucket) {
                login.set_bucket(bucket);
            }
            self.send_away(old, code, 0);
            if fight {
                self.outputs.push_back(Output::DuplicateIdentity(node));
                self.logins.insert(id, login);
                self.send_away(id, code, 60_000);
                return true;
            }
        }
        if standing == Standing::Guest {
            let at_ms = now.mono_ms + self.settings.guest_ms;
            login.guest_over_at_ms = Some(at_ms);
            self.timers.insert((at_ms, Timer::GuestOver(id)));
        }
        let idle_at_ms = now.mono_ms + self.settings.idle_ms;
        login.idle_at_ms = Some(idle_at_ms);
        self.timers.insert((idle_at_ms, Timer::Idle(id)));
        self.logins.insert(id, login);
        if let Some(address) = address {
            // An address never changes while a connection lives: once is enough. Spec: LK-51
            let _full = self.steer(id, &RelayFrame::Observed { address });
        }
        if self.draining {
            self.say_draining(id, entropy);
        }
        true
    }

    /// One message of a login.
    ///
    /// # Errors
    /// [`Violation`]: the driver closes the connection and calls [`Hub::lost`].
    pub fn message(&mut self, now: Now, id: LoginId, message: &Bytes) -> Result<(), Violation> {
        let frame = RelayFrame::decode(message)?;
        let Some(login) = self.logins.get_mut(id).filter(|login| !login.is_leaving()) else { return Ok(()) };
        login.alive_at_ms = now.mono_ms;
        match frame {
            RelayFrame::Open { circuit, target, show_address } => self.open(now, id, circuit, target, show_address),
            RelayFrame::Accept { circuit } => self.accept(id, circuit),
            RelayFrame::Refuse { circuit, .. } => self.refused_by_target(id, circuit),
            RelayFrame::Data { circuit, payload } => self.data(now, id, circuit, payload),
            RelayFrame::Credit { circuit, increment } => self.credit(id, circuit, increment),
            RelayFrame::Close { circuit, why } => {
                self.close(id, circuit, why);
                Ok(())
            }
            RelayFrame::Ping(token) => self.steer(id, &RelayFrame::Pong(token)),
            RelayFrame::Pong(_) => Ok(()),
            RelayFrame::Allow { node, seconds } => {
                self.allow(now, id, node, seconds);
                Ok(())
            }
            RelayFrame::Probe { port } => self.probe(now, id, port),
            RelayFrame::Incoming { .. }
            | RelayFrame::Observed { .. }
            | RelayFrame::ProbeResult { .. }
            | RelayFrame::GoAway { .. } => Err(Violation::Direction),
        }
    }

    /// The next message to write to this login.
    pub fn transmit(&mut self, now: Now, id: LoginId) -> Option<Bytes> {
        let login = self.logins.get_mut(id)?;
        let sent = login.outbox.next()?;
        if sent.data_bytes > 0 {
            login.took_at_ms = now.mono_ms;
            self.stats.waiting_bytes -= sent.data_bytes as u64;
            self.stats.bytes_out += sent.data_bytes as u64;
            self.unblock(id);
            self.feed();
        }
        Some(sent.message)
    }

    /// Whether the next message of this login may be read now.
    // Spec: LK-60, LK-62
    pub fn gate(&mut self, now: Now, id: LoginId) -> Gate {
        let Some(login) = self.logins.get_mut(id) else { return Gate::Closed };
        if login.is_leaving() || login.held.is_some() {
            return Gate::Closed;
        }
        match login.ready_at(now.mono_ms, &self.settings) {
            Some(at) => {
                self.stats.rate_delays += 1;
                Gate::Until(at)
            }
            None => Gate::Open,
        }
    }

    /// Whether this login is over: nothing is taken from it any more, and when all its messages are written the
    /// connection ends.
    pub fn is_over(&self, id: LoginId) -> bool {
        self.logins.get(id).is_none_or(|login| login.is_leaving() && login.outbox.is_empty())
    }

    /// The connection of this login is gone.
    pub fn lost(&mut self, id: LoginId) {
        self.end_circuits(id, CircuitEnd::Unreachable);
        self.unblock_all(id);
        if let Some(login) = self.logins.remove(id) {
            self.stats.waiting_bytes -= login.outbox.waiting_bytes() as u64;
            self.disarm(login.idle_at_ms, Timer::Idle(id));
            self.disarm(login.guest_over_at_ms, Timer::GuestOver(id));
        }
        self.starved.retain(|starved| *starved != id);
        self.feed();
        self.drained_early();
    }

    /// The result of [`Output::Probe`].
    pub fn probed(&mut self, id: LoginId, port: u16, open: bool, ms: u16) {
        // Not owed to a node that reads nothing.
        let _full = self.steer(id, &RelayFrame::ProbeResult { port, open, ms });
    }

    /// The relay goes away: everybody is told, each with another time to come back; circuits live on for a while.
    pub fn drain(&mut self, now: Now, entropy: &mut dyn Entropy) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        for id in self.logins.ids() {
            self.say_draining(id, entropy);
        }
        let at_ms = now.mono_ms + self.settings.drain_ms;
        self.drained_at_ms = Some(at_ms);
        self.timers.insert((at_ms, Timer::Drained));
        self.drained_early();
    }

    /// The time of a drained relay is over: every login ends once what is said to it last is written. The driver waits for
    /// that, within its own patience.
    pub fn dismiss(&mut self) {
        self.dismissed = true;
        for id in self.logins.ids() {
            self.end_circuits_for_both(id, CircuitEnd::Draining);
            if let Some(login) = self.logins.get_mut(id) {
                login.leave();
            }
            self.outputs.push_back(Output::Wake(id));
        }
    }

    /// The operator's new rule; who is let in no longer is sent away.
    // Spec: LK-108
    pub fn set_admit(&mut self, now: Now, admit: Admit) {
        self.guest_list.set_admit(admit);
        self.look_at_standings(now);
    }

    /// When to call [`Hub::handle_timeout`] next, on the monotonic clock, ms.
    pub fn next_timeout(&self) -> Option<u64> {
        let timer = self.timers.first().map(|(at, _)| *at);
        timer.into_iter().chain(self.guest_list.next_end()).min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now.mono_ms) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Refuse(id, circuit) => self.refuse_in_time(id, circuit),
                Timer::Blocked(receiver) => self.blocked_too_long(receiver),
                Timer::Starved => self.starved_too_long(now),
                Timer::GuestOver(id) => {
                    let is_guest = self.logins.get(id).is_some_and(|login| login.standing == Standing::Guest);
                    if is_guest {
                        self.send_away(id, GoAwayCode::NotAdmitted, 0);
                    }
                }
                Timer::Idle(id) => self.idle(now, id),
                Timer::Drained => {
                    self.drained_at_ms = None;
                    self.outputs.push_back(Output::Drained);
                }
            }
        }
        if self.guest_list.expire(now.mono_ms) {
            self.look_at_standings(now);
        }
    }

    /// What to do next; until `None`.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The numbers of now.
    pub fn stats(&self) -> RelayStats {
        RelayStats {
            nodes: self.logins.len() as u64,
            guests: self.logins.guests() as u64,
            circuits: self.circuits.open_count() as u64,
            ..self.stats
        }
    }

    fn allow(&mut self, now: Now, id: LoginId, node: NodeId, seconds: u32) {
        let Some(login) = self.logins.get(id) else { return };
        if login.standing != Standing::Member {
            return;
        }
        let maker = login.node;
        self.guest_list.allow(now.mono_ms, maker, node, seconds);
        // Only these can stand otherwise now: a member may say so often, and there may be many logins.
        let concerned =
            if node == GUESTS { self.logins.guest_ids() } else { self.logins.of(&node).into_iter().collect() };
        self.look_at(now, concerned);
    }

    fn probe(&mut self, now: Now, id: LoginId, port: u16) -> Result<(), Violation> {
        let Some(login) = self.logins.get_mut(id) else { return Ok(()) };
        let seen = login.address.filter(|_| login.may_probe(now.mono_ms));
        match seen {
            Some(mut address) => {
                address.socket.set_port(port);
                self.outputs.push_back(Output::Probe { login: id, address });
                Ok(())
            }
            None => self.steer(id, &RelayFrame::ProbeResult { port, open: false, ms: 0 }),
        }
    }

    /// Standings follow the entries: a guest that was let in for good stays, who lost its place goes.
    fn look_at_standings(&mut self, now: Now) {
        self.look_at(now, self.logins.ids());
    }

    fn look_at(&mut self, now: Now, concerned: Vec<LoginId>) {
        for id in concerned {
            let Some(login) = self.logins.get(id).filter(|login| !login.is_leaving()) else { continue };
            match self.guest_list.standing(now.mono_ms, &login.node) {
                None => self.send_away(id, GoAwayCode::NotAdmitted, 0),
                // Whose entry ended is not a guest by that: guests come as such.
                Some(Standing::Guest) if login.standing != Standing::Guest => {
                    self.send_away(id, GoAwayCode::NotAdmitted, 0);
                }
                Some(standing) => self.logins.set_standing(id, standing),
            }
        }
    }

    fn idle(&mut self, now: Now, id: LoginId) {
        let Some(login) = self.logins.get_mut(id) else { return };
        // Who is not read cannot show that it lives.
        if login.held.is_some() {
            login.alive_at_ms = now.mono_ms;
        }
        let at = login.alive_at_ms + self.settings.idle_ms;
        if at > now.mono_ms {
            login.idle_at_ms = Some(at);
            self.timers.insert((at, Timer::Idle(id)));
        } else {
            login.leave();
            self.stats.waiting_bytes -= login.outbox.waiting_bytes() as u64;
            login.outbox = Default::default();
            self.outputs.push_back(Output::Wake(id));
            self.feed();
        }
    }

    /// GOAWAY, and the end of the login once it is written.
    fn send_away(&mut self, id: LoginId, code: GoAwayCode, reconnect_ms: u32) {
        self.end_circuits(id, CircuitEnd::Unreachable);
        self.unblock_all(id);
        let _full = self.steer(id, &RelayFrame::GoAway { code, reconnect_ms, relays: Vec::new() });
        if let Some(login) = self.logins.get_mut(id) {
            login.leave();
        }
        self.logins.forget(id);
        self.outputs.push_back(Output::Wake(id));
    }

    fn say_draining(&mut self, id: LoginId, entropy: &mut dyn Entropy) {
        let (least, most) = self.settings.reconnect_ms;
        let mut random = [0; 4];
        entropy.fill(&mut random);
        let reconnect_ms = least + u32::from_be_bytes(random) % most.saturating_sub(least).max(1);
        let frame = RelayFrame::GoAway { code: GoAwayCode::Draining, reconnect_ms, relays: Vec::new() };
        let _full = self.steer(id, &frame);
    }

    /// When the last circuit is gone there is nothing to wait for.
    fn drained_early(&mut self) {
        if self.circuits.is_empty() && self.drained_at_ms.is_some() {
            let armed = self.drained_at_ms.take();
            self.disarm(armed, Timer::Drained);
            self.outputs.push_back(Output::Drained);
        }
    }

    /// `timer`, where it was armed, is not due any more.
    fn disarm(&mut self, at_ms: Option<u64>, timer: Timer) {
        if let Some(at_ms) = at_ms {
            self.timers.remove(&(at_ms, timer));
        }
    }

    fn steer(&mut self, id: LoginId, frame: &RelayFrame) -> Result<(), Violation> {
        let Some(login) = self.logins.get_mut(id) else { return Ok(()) };
        if !login.outbox.steer(frame) {
            return Err(Violation::Unread);
        }
        self.outputs.push_back(Output::Wake(id));
        Ok(())
    }
}
