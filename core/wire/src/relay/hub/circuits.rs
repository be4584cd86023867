//! Circuits: from R_OPEN to the last byte delivered.

use std::collections::BTreeMap;

use bytes::Bytes;
use sealtide_crypto::Now;
use sealtide_identity::NodeId;

use super::super::frame::{CircuitEnd, CircuitNumber, RELAY_DATA_BYTES_MAX, RELAY_HEAD_BYTES, RelayFrame};
use super::super::guest_list::Standing;
use super::logins::{Held, Login};
use super::{Hub, LoginId, Output, Timer, Violation};

/// Names a circuit inside the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CircuitKey(u64);

/// A circuit between two logins. `ends[0]` opened it.
#[derive(Debug)]
pub(super) struct Circuit {
    ends: [End; 2],
    open: bool,
    /// When the opener is answered, should nobody accept; on the monotonic clock, ms.
    refuse_at_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct End {
    login: LoginId,
    number: CircuitNumber,
    /// Bytes that this end may still send: what the other end granted.
    credit: u64,
}

#[derive(Debug, Default)]
pub(super) struct Circuits {
    all: BTreeMap<CircuitKey, Circuit>,
    last: u64,
    open: usize,
}

impl Circuits {
    pub(super) const fn open_count(&self) -> usize {
        self.open
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn insert(&mut self, circuit: Circuit) -> CircuitKey {
        self.last += 1;
        let key = CircuitKey(self.last);
        self.all.insert(key, circuit);
        key
    }

    fn remove(&mut self, key: CircuitKey) -> Option<Circuit> {
        let circuit = self.all.remove(&key)?;
        self.open -= usize::from(circuit.open);
        Some(circuit)
    }
}

impl Circuit {
    /// The side that `login` is at by `number`.
    fn side(&self, login: LoginId, number: CircuitNumber) -> usize {
        usize::from((self.ends[0].login, self.ends[0].number) != (login, number))
    }
}

impl Hub {
    pub(super) fn open(
        &mut self,
        now: Now,
        id: LoginId,
        number: CircuitNumber,
        target: NodeId,
        show_address: bool,
    ) -> Result<(), Violation> {
        let settings = self.settings;
        let Some(login) = self.logins.get_mut(id) else { return Ok(()) };
        if !number.is_openers() || login.circuits.contains_key(&number) {
            return Err(Violation::Number);
        }
        let (node, standing) = (login.node, login.standing);
        let address = login.address.filter(|_| show_address);
        let why_not = if self.draining {
            Some(CircuitEnd::Draining)
        } else if !login.may_open(now.mono_ms, &settings) {
            Some(CircuitEnd::Rate)
        } else if login.circuits.len() >= usize::from(settings.circuits_per_node) {
            Some(CircuitEnd::Busy)
        } else if standing == Standing::Guest && !login.circuits.is_empty() {
            Some(CircuitEnd::NotAllowed)
        } else {
            None
        };
        if let Some(why) = why_not {
            self.stats.refused += 1;
            return self.steer(id, &RelayFrame::Refuse { circuit: number, why });
        }
        // From here on nobody sees from outside what became of it, but by R_ACCEPT. Spec: LK-27
        let offered = self.logins.of(&target).filter(|to| *to != id && self.may_meet(now, standing, *to));
        let end = |login, number| End { login, number, credit: settings.credit.into() };
        let to = offered.and_then(|to| Some((to, self.logins.get_mut(to)?.even_number())));
        // Without a target the circuit leads back to its opener, under a number that nobody knows.
        let (to_login, to_number) = to.unwrap_or((id, number));
        let refuse_at_ms = now.mono_ms + settings.refusal_ms;
        let circuit = Circuit { ends: [end(id, number), end(to_login, to_number)], open: false, refuse_at_ms };
        let key = self.circuits.insert(circuit);
        if let Some(login) = self.logins.get_mut(id) {
            login.circuits.insert(number, key);
        }
        self.timers.insert((refuse_at_ms, Timer::Refuse(id, number)));
        if let Some((to, even)) = to {
            if let Some(login) = self.logins.get_mut(to) {
                login.circuits.insert(even, key);
            }
            // A target that reads nothing is as if it were not there.
            let _full = self.steer(to, &RelayFrame::Incoming { circuit: even, opener: node, address });
        }
        Ok(())
    }

    /// Whether a circuit of a node that stands so is offered to this login.
    // Spec: LK-108
    fn may_meet(&self, now: Now, opener: Standing, to: LoginId) -> bool {
        self.logins.get(to).is_some_and(|target| {
            let room = target.circuits.len() < usize::from(self.settings.circuits_per_node);
            let invited = opener != Standing::Guest || self.guest_list.expects_guests(now.mono_ms, &target.node);
            room && invited && target.standing != Standing::Guest
        })
    }

    pub(super) fn accept(&mut self, id: LoginId, number: CircuitNumber) -> Result<(), Violation> {
        let Some(key) = self.key_of(id, number)? else { return Ok(()) };
        let Some(circuit) = self.circuits.all.get_mut(&key) else { return Ok(()) };
        if number.is_openers() || circuit.open {
            return Err(Violation::Number);
        }
        circuit.open = true;
        self.circuits.open += 1;
        self.stats.circuits_opened += 1;
        let (opener, refuse_at_ms) = (circuit.ends[0], circuit.refuse_at_ms);
        self.timers.remove(&(refuse_at_ms, Timer::Refuse(opener.login, opener.number)));
        self.steer(opener.login, &RelayFrame::Accept { circuit: opener.number }).or(Ok(()))
    }

    /// The target does not want it. The opener hears that when it would have heard that nobody is there.
    pub(super) fn refused_by_target(&mut self, id: LoginId, number: CircuitNumber) -> Result<(), Violation> {
        let Some(key) = self.key_of(id, number)? else { return Ok(()) };
        let Some(circuit) = self.circuits.all.get_mut(&key) else { return Ok(()) };
        if number.is_openers() || circuit.open {
            return Err(Violation::Number);
        }
        circuit.ends[1] = circuit.ends[0];
        if let Some(login) = self.logins.get_mut(id) {
            login.circuits.remove(&number);
        }
        Ok(())
    }

    /// Time is up for an R_OPEN that nobody accepted.
    pub(super) fn refuse_in_time(&mut self, id: LoginId, number: CircuitNumber) {
        let Some(key) = self.logins.get(id).and_then(|login| login.circuits.get(&number)).copied() else { return };
        let Some(circuit) = self.circuits.remove(key) else { return };
        self.stats.refused += 1;
        let [opener, target] = circuit.ends;
        self.unlink(opener);
        if target.login != opener.login {
            self.unlink(target);
            // It was offered, and is taken back.
            let frame = RelayFrame::Close { circuit: target.number, why: CircuitEnd::Unreachable };
            let _full = self.steer(target.login, &frame);
        }
        let _full = self.steer(id, &RelayFrame::Refuse { circuit: number, why: CircuitEnd::Unreachable });
        self.drained_early();
    }

    pub(super) fn data(
        &mut self,
        now: Now,
        id: LoginId,
        number: CircuitNumber,
        payload: Bytes,
    ) -> Result<(), Violation> {
        if let Some(login) = self.logins.get_mut(id) {
            login.spend(payload.len());
        }
        self.stats.bytes_in += payload.len() as u64;
        let Some(key) = self.key_of(id, number)? else { return Ok(()) };
        let Some(circuit) = self.circuits.all.get_mut(&key) else { return Ok(()) };
        if !circuit.open {
            return Err(Violation::Number);
        }
        let side = circuit.side(id, number);
        let bytes = payload.len() as u64;
        let sender = &mut circuit.ends[side];
        sender.credit = sender.credit.checked_sub(bytes).ok_or(Violation::Credit)?;
        let receiver = circuit.ends[1 - side];
        let Some(from) = self.logins.get(id).map(|login| login.node) else { return Ok(()) };
        let Some(to) = self.logins.get_mut(receiver.login) else { return Ok(()) };
        let message = RelayFrame::Data { circuit: receiver.number, payload }.encode();
        self.stats.waiting_bytes += message.len() as u64;
        if to.outbox.waiting_bytes() == 0 {
            to.took_at_ms = now.mono_ms;
        }
        to.outbox.data(receiver.number.as_u32(), from, message);
        let full = to.outbox.waiting_bytes() + RELAY_DATA_BYTES_MAX > self.settings.waiting_per_node;
        self.outputs.push_back(Output::Wake(receiver.login));
        if full {
            self.block(now, id, receiver.login);
        } else if !self.has_room_for(1) {
            self.starve(now, id);
        }
        Ok(())
    }

    pub(super) fn credit(&mut self, id: LoginId, number: CircuitNumber, increment: u32) -> Result<(), Violation> {
        let Some(key) = self.key_of(id, number)? else { return Ok(()) };
        let settings = self.settings;
        let Some(circuit) = self.circuits.all.get_mut(&key) else { return Ok(()) };
        let side = circuit.side(id, number);
        let other = &mut circuit.ends[1 - side];
        let credit = other.credit + u64::from(increment);
        if !circuit.open || credit > u64::from(settings.credit_max) {
            return Err(Violation::Credit);
        }
        other.credit = credit;
        let (login, circuit) = (other.login, other.number);
        self.steer(login, &RelayFrame::Credit { circuit, increment }).or(Ok(()))
    }

    /// One end ends the circuit: what waits for the other is delivered first, what waits for this one is not wanted.
    pub(super) fn close(&mut self, id: LoginId, number: CircuitNumber, why: CircuitEnd) {
        let Ok(Some(key)) = self.key_of(id, number) else { return };
        let Some(circuit) = self.circuits.remove(key) else { return };
        let side = circuit.side(id, number);
        let (own, other) = (circuit.ends[side], circuit.ends[1 - side]);
        if !circuit.open {
            let opener = circuit.ends[0];
            self.timers.remove(&(circuit.refuse_at_ms, Timer::Refuse(opener.login, opener.number)));
        }
        self.drop_waiting(own);
        self.unlink(own);
        if other.login != own.login || other.number != own.number {
            self.say_closed(own.login, other, why);
        }
        self.drained_early();
    }

    /// The relay ends every circuit of a login: whichever end comes first, both get what waits for them before they hear of
    /// it.
    pub(super) fn end_circuits_for_both(&mut self, id: LoginId, why: CircuitEnd) {
        let numbers: Vec<_> = self.logins.get(id).into_iter().flat_map(|login| login.circuits.clone()).collect();
        for (number, key) in numbers {
            if !self.circuits.all.get(&key).is_some_and(|circuit| circuit.open) {
                continue;
            }
            let Some(circuit) = self.circuits.remove(key) else { continue };
            let side = circuit.side(id, number);
            let (own, other) = (circuit.ends[side], circuit.ends[1 - side]);
            self.say_closed(other.login, own, why);
            self.say_closed(own.login, other, why);
        }
        self.end_circuits(id, why);
    }

    /// Ends every circuit of a login that goes.
    pub(super) fn end_circuits(&mut self, id: LoginId, why: CircuitEnd) {
        let Some(login) = self.logins.get(id) else { return };
        let numbers: Vec<_> = login.circuits.keys().copied().collect();
        for number in numbers {
            // An opener of a circuit that does not stand yet hears of it like of any absent target.
            let opening = self.key_of(id, number).ok().flatten().and_then(|key| self.circuits.all.get(&key));
            if opening.is_some_and(|circuit| !circuit.open) && !number.is_openers() {
                let _unknown = self.refused_by_target(id, number);
            } else {
                self.close(id, number, why);
            }
        }
    }

    /// `id` sent to a receiver that does not read: it is not read either until there is room.
    fn block(&mut self, now: Now, id: LoginId, receiver: LoginId) {
        if let Some(login) = self.logins.get_mut(id) {
            login.held = Some(Held::By(receiver));
        }
        self.stats.blocked += 1;
        let Some(login) = self.logins.get_mut(receiver) else { return };
        login.blocks.insert(id);
        if login.unblock_at_ms.is_none() {
            let at_ms = now.mono_ms + self.settings.blocked_ms;
            login.unblock_at_ms = Some(at_ms);
            self.timers.insert((at_ms, Timer::Blocked(receiver)));
        }
    }

    /// There is room at `receiver` again, perhaps.
    pub(super) fn unblock(&mut self, receiver: LoginId) {
        let Some(login) = self.logins.get(receiver) else { return };
        let room = login.outbox.waiting_bytes() <= self.settings.waiting_per_node / 2;
        if room && !login.blocks.is_empty() {
            self.unblock_all(receiver);
        }
    }

    /// Nobody is held up by `receiver` any more.
    pub(super) fn unblock_all(&mut self, receiver: LoginId) {
        let Some(login) = self.logins.get_mut(receiver) else { return };
        let armed = login.unblock_at_ms.take();
        for id in std::mem::take(&mut login.blocks) {
            if let Some(sender) = self.logins.get_mut(id).filter(|sender| sender.held == Some(Held::By(receiver))) {
                sender.held = None;
                self.outputs.push_back(Output::Wake(id));
            }
        }
        self.disarm(armed, Timer::Blocked(receiver));
    }

    /// A receiver has taken nothing for long while others are held up by it: the circuits between them end, so that
    /// one node cannot stop another from talking to third ones.
    pub(super) fn blocked_too_long(&mut self, receiver: LoginId) {
        let Some(login) = self.logins.get(receiver) else { return };
        let held_up = login.blocks.clone();
        self.end_circuits_towards(receiver, |sender, _| held_up.contains(&sender));
        self.unblock_all(receiver);
    }

    /// The relay is full: `id`, who sent last, is not read until somebody, whoever it is, has taken something.
    fn starve(&mut self, now: Now, id: LoginId) {
        let Some(login) = self.logins.get_mut(id) else { return };
        login.held = Some(Held::Total);
        self.starved.push_back(id);
        self.stats.blocked += 1;
        self.arm_starved(now);
    }

    /// Something was taken: as many of those who wait for room go on as messages fit, who has waited longest first.
    pub(super) fn feed(&mut self) {
        if self.starved.is_empty() {
            return;
        }
        let mut fed = 0;
        while self.has_room_for(fed + 1)
            && let Some(id) = self.starved.pop_front()
        {
            let Some(login) = self.logins.get_mut(id).filter(|login| login.held == Some(Held::Total)) else { continue };
            login.held = None;
            self.outputs.push_back(Output::Wake(id));
            fed += 1;
        }
        if self.starved.is_empty() {
            let armed = self.starved_at_ms.take();
            self.disarm(armed, Timer::Starved);
        }
    }

    /// The relay has been full for long. Who has taken nothing for as long is what fills it: what waits for such nodes
    /// ends, with the circuits that it came by.
    pub(super) fn starved_too_long(&mut self, now: Now) {
        self.starved_at_ms = None;
        let stale = |login: &Login| {
            login.outbox.waiting_bytes() > 0 && now.mono_ms >= login.took_at_ms + self.settings.blocked_ms
        };
        let stale: Vec<_> =
            self.logins.ids().into_iter().filter(|id| self.logins.get(*id).is_some_and(stale)).collect();
        for receiver in stale {
            self.end_circuits_towards(receiver, |_, waits| waits);
            self.unblock_all(receiver);
        }
        self.feed();
        if !self.starved.is_empty() {
            self.arm_starved(now);
        }
    }

    fn arm_starved(&mut self, now: Now) {
        if self.starved_at_ms.is_none() {
            let at_ms = now.mono_ms + self.settings.blocked_ms;
            self.starved_at_ms = Some(at_ms);
            self.timers.insert((at_ms, Timer::Starved));
        }
    }

    /// Whether so many messages of any size fit into what may wait for all nodes together.
    fn has_room_for(&self, messages: usize) -> bool {
        let wanted = messages.saturating_mul(RELAY_HEAD_BYTES + RELAY_DATA_BYTES_MAX);
        self.stats.waiting_bytes + wanted as u64 <= self.settings.waiting_total as u64
    }

    /// Ends the circuits of `receiver` that `which` names, given the node at the other end and whether something waits:
    /// what waits is dropped, and both ends are told.
    fn end_circuits_towards(&mut self, receiver: LoginId, which: impl Fn(LoginId, bool) -> bool) {
        let Some(login) = self.logins.get(receiver) else { return };
        let numbers: Vec<_> = login.circuits.iter().map(|(number, key)| (*number, *key)).collect();
        for (number, key) in numbers {
            let Some(circuit) = self.circuits.all.get(&key).filter(|circuit| circuit.open) else { continue };
            let side = circuit.side(receiver, number);
            let (own, other) = (circuit.ends[side], circuit.ends[1 - side]);
            let login = self.logins.get(receiver);
            let waits = login.is_some_and(|login| login.outbox.waits(number.as_u32()));
            if which(other.login, waits) {
                let told = RelayFrame::Close { circuit: other.number, why: CircuitEnd::Busy };
                let _full = self.steer(other.login, &told);
                self.drop_waiting(own);
                self.close(other.login, other.number, CircuitEnd::Busy);
            }
        }
    }

    /// Tells `to` that its circuit is over, behind everything that waits for it on that circuit.
    fn say_closed(&mut self, from: LoginId, to: End, why: CircuitEnd) {
        let Some(from) = self.logins.get(from).map(|login| login.node) else { return };
        let Some(login) = self.logins.get_mut(to.login) else { return };
        login.circuits.remove(&to.number);
        let message = RelayFrame::Close { circuit: to.number, why }.encode();
        self.stats.waiting_bytes += message.len() as u64;
        login.outbox.data(to.number.as_u32(), from, message);
        self.outputs.push_back(Output::Wake(to.login));
    }

    fn drop_waiting(&mut self, end: End) {
        let Some(login) = self.logins.get_mut(end.login) else { return };
        self.stats.waiting_bytes -= login.outbox.drop_circuit(end.number.as_u32()) as u64;
        self.unblock(end.login);
        self.feed();
    }

    fn unlink(&mut self, end: End) {
        if let Some(login) = self.logins.get_mut(end.login) {
            login.circuits.remove(&end.number);
        }
    }

    /// The circuit that this login calls `number`. `None`: it is over, and the node may not know yet.
    fn key_of(&self, id: LoginId, number: CircuitNumber) -> Result<Option<CircuitKey>, Violation> {
        Ok(self.logins.get(id).and_then(|login| login.circuits.get(&number)).copied())
    }
}
