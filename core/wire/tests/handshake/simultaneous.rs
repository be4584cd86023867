//! Two nodes dial each other at once, in every order of arrival. Spec: link C.6.

use sealtide_crypto::SeededEntropy;
use sealtide_identity::NodeId;
use sealtide_wire::handshake::{
    Initiator, LocalEnd, PipeKind, Proof, Responder, SessionOrigin, Step, Survivor, replaces_session, tie_break,
};

use std::collections::VecDeque;
use std::sync::Arc;

use crate::world::{Book, TestCertificates, Tls, connection, node};

/// One node with one dial and one accepted handshake, as a driver would keep them.
struct Driver {
    local: Arc<LocalEnd>,
    peer: NodeId,
    book: Book,
    dial: Option<Initiator>,
    accepted: Option<Responder>,
    /// Which handshake the session came from: 0 or 1, the end that dialled.
    session: Option<usize>,
    /// Whether the accepted handshake had its CHALLENGE when the session began.
    overlapped: bool,
    challenged: bool,
    number: usize,
}

impl Driver {
    /// Takes a frame of handshake `dialler`, gives the frames to send on the same handshake.
    fn take(&mut self, dialler: usize, frame: &[u8], entropy: &mut SeededEntropy) -> Vec<Vec<u8>> {
        let tls = Tls([dialler as u8; 32]);
        let step = if dialler == self.number {
            let Some(dial) = &mut self.dial else { return Vec::new() };
            dial.handle(frame, &tls, &TestCertificates)
        } else {
            let Some(accepted) = &mut self.accepted else { return Vec::new() };
            accepted.handle(frame, &tls, &TestCertificates, &self.book, entropy)
        };
        let step = step.expect("both ends are honest");
        self.challenged |= dialler != self.number;
        self.resolve();
        let alive = if dialler == self.number { self.dial.is_some() } else { self.accepted.is_some() };
        match step {
            _ if !alive => Vec::new(),
            Step::Wait => Vec::new(),
            Step::Send(frames) => frames,
            Step::Done { send, .. } => {
                self.session = Some(dialler);
                self.overlapped = self.challenged;
                // Own dials that are no handshakes yet are dropped once there is a session.
                if self.dial.as_ref().is_some_and(|dial| dialler != self.number && !dial.peer_is_proven()) {
                    self.dial = None;
                }
                send
            }
            Step::LoggedIn { .. } => unreachable!("no relay here"),
        }
    }

    fn resolve(&mut self) {
        let dial_takes_part = self.dial.as_ref().is_some_and(Initiator::peer_is_proven);
        let accepted_takes_part = self.accepted.as_ref().is_some_and(|accepted| accepted.proven_peer().is_some());
        if dial_takes_part && accepted_takes_part {
            match tie_break(&self.local.id(), &self.peer) {
                Survivor::Dialled => self.accepted = None,
                Survivor::Accepted => self.dial = None,
            }
        }
        if let Some(dialler) = self.session.filter(|_| accepted_takes_part) {
            let session = SessionOrigin { dialled_here: dialler == self.number, overlapped: self.overlapped };
            if !replaces_session(&self.local.id(), &self.peer, session) {
                self.accepted = None;
            }
        }
    }
}

/// Plays both handshakes; bit k of `schedule` says which handshake's next frame arrives at step k.
fn play(locals: &[Arc<LocalEnd>; 2], schedule: u32) -> [Option<usize>; 2] {
    let mut entropy = SeededEntropy::new(u64::from(schedule));
    let mut hellos = Vec::new();
    let mut drivers = [0, 1].map(|number| {
        let (local, peer) = (locals[number].clone(), locals[1 - number].id());
        let dialled = connection(PipeKind::Direct, number as u8 + 1);
        let (dial, hello) = Initiator::start(local.clone(), peer, Proof::Key, dialled, None, &mut entropy);
        hellos.push(hello);
        let accepted = Responder::new(local.clone(), connection(PipeKind::Direct, 2 - number as u8));
        let book = Book::default();
        book.allowed.borrow_mut().insert(peer);
        Driver {
            local,
            peer,
            book,
            dial: Some(dial),
            accepted: Some(accepted),
            session: None,
            overlapped: false,
            challenged: false,
            number,
        }
    });
    // For each handshake, the frames on their way with the node they go to.
    let mut wires: [VecDeque<(usize, Vec<u8>)>; 2] =
        [0, 1].map(|dialler| VecDeque::from([(1 - dialler, hellos[dialler].clone())]));
    for step in 0.. {
        let wish = (schedule >> (step % 32) & 1) as usize;
        let Some(dialler) = [wish, 1 - wish].into_iter().find(|wire| !wires[*wire].is_empty()) else { break };
        let (to, frame) = wires[dialler].pop_front().expect("looked at above");
        for answer in drivers[to].take(dialler, &frame, &mut entropy) {
            wires[dialler].push_back((1 - to, answer));
        }
    }
    drivers.map(|driver| driver.session)
}

// Proves: LK-111
#[test]
fn tie_break_every_order() {
    let (first, second) = (Arc::new(node(1)), Arc::new(node(2)));
    let mut outcomes = std::collections::BTreeMap::new();
    for locals in [[first.clone(), second.clone()], [second, first]] {
        let smaller = usize::from(locals[1].id() < locals[0].id());
        // Each handshake has 5 arrivals: every order of them is among the schedules of 10 bits.
        for schedule in 0..1 << 10 {
            let sessions = play(&locals, schedule);
            assert!(sessions[0].is_some(), "schedule {schedule:#b} ends without a session: {sessions:?}");
            assert_eq!(sessions[0], sessions[1], "schedule {schedule:#b}");
            *outcomes.entry(sessions[0] == Some(smaller)).or_insert(0) += 1;
        }
    }
    // Both ways happen: the smaller id wins a tie, but one that came too late to tie loses nothing it had.
    assert!(outcomes.len() == 2, "{outcomes:?}");
}

// Proves: LK-111
#[test]
fn tie_break_is_the_same_at_both_ends() {
    let (small, great) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
    assert_eq!(tie_break(&small, &great), Survivor::Dialled);
    assert_eq!(tie_break(&great, &small), Survivor::Accepted);
}

// Proves: LK-111
#[test]
fn tie_break_a_restarted_peer_replaces_the_session() {
    let (small, great) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
    for (own, peer) in [(small, great), (great, small)] {
        for dialled_here in [true, false] {
            assert!(replaces_session(&own, &peer, SessionOrigin { dialled_here, overlapped: false }));
        }
        let overlapped = SessionOrigin { dialled_here: true, overlapped: true };
        assert_eq!(replaces_session(&own, &peer, overlapped), own == great);
    }
}
