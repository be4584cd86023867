//! Fairness of a relay in virtual time: a bulk transfer and an echo that share the line of one receiver.

use std::collections::VecDeque;

use bytes::Bytes;
use sealtide_crypto::{Now, SeededEntropy};
use sealtide_identity::NodeId;
use sealtide_wire::relay::{Admit, CircuitNumber, Gate, Hub, LoginId, RelayFrame, RelaySettings};

const BULK: LoginId = LoginId(1);
const SHARED: LoginId = LoginId(2);
const ECHO: LoginId = LoginId(3);

/// The line of each node: 100 Mbit/s, in bytes per ms.
const LINE_BYTES_MS: u64 = 12_500;
/// What the driver takes from the hub for one write.
const BATCH_BYTES: usize = 64 * 1024;
/// One echo each so many µs.
const EVERY_US: u64 = 20_000;
const RUN_US: u64 = 10_000_000;

fn node(login: LoginId) -> NodeId {
    NodeId::from_bytes([login.0 as u8; 32])
}

fn number(n: u32) -> CircuitNumber {
    CircuitNumber::new(n).expect("not 0")
}

/// One line to a node: what was taken for it and has not arrived.
#[derive(Default)]
struct Line {
    under_way: VecDeque<(u64, Bytes)>,
    free_at_us: u64,
}

impl Line {
    /// Takes the next batch when the last one is through.
    fn fill(&mut self, hub: &mut Hub, now_us: u64, login: LoginId) {
        if self.free_at_us > now_us {
            return;
        }
        let (mut at_us, mut bytes) = (now_us, 0);
        while bytes < BATCH_BYTES
            && let Some(message) = hub.transmit(now(now_us), login)
        {
            bytes += message.len();
            at_us += (message.len() as u64 * 1000).div_ceil(LINE_BYTES_MS);
            self.under_way.push_back((at_us, message));
        }
        self.free_at_us = at_us;
    }

    fn arrived(&mut self, now_us: u64) -> Option<RelayFrame> {
        let (at_us, _) = self.under_way.front()?;
        if *at_us > now_us {
            return None;
        }
        let (_, message) = self.under_way.pop_front()?;
        Some(RelayFrame::decode(&message).expect("a relay speaks relay frames"))
    }
}

fn now(us: u64) -> Now {
    Now { mono_ms: us / 1000, wall_ms: 0 }
}

/// The round trips of 64 bytes from the echo node to the shared one and back, in µs, sorted; and the bytes of the bulk.
fn run(with_bulk: bool) -> (Vec<u64>, u64) {
    // The rate of a node is another matter.
    let mut hub = Hub::new(RelaySettings { rate_bytes_s: 0, ..RelaySettings::default() }, Admit::Open);
    for login in [BULK, SHARED, ECHO] {
        assert!(hub.logged_in(now(0), login, node(login), None, false, &mut SeededEntropy::new(1)));
    }
    for (opener, even) in [(BULK, 2), (ECHO, 4)] {
        let open = RelayFrame::Open { circuit: number(1), target: node(SHARED), show_address: false };
        hub.message(now(0), opener, &open.encode()).expect("in order");
        hub.message(now(0), SHARED, &RelayFrame::Accept { circuit: number(even) }.encode()).expect("in order");
    }
    let mut lines = [Line::default(), Line::default(), Line::default()];
    let (mut credit, mut read, mut bulk) = (256 * 1024u64, 0u64, 0);
    let (mut sent_at_us, mut times) = (None, Vec::new());
    for now_us in (0..RUN_US).step_by(10) {
        if with_bulk {
            while credit >= 16_000 && hub.gate(now(now_us), BULK) == Gate::Open {
                let data = RelayFrame::Data { circuit: number(1), payload: vec![1; 16_000].into() };
                hub.message(now(now_us), BULK, &data.encode()).expect("within the credit");
                credit -= 16_000;
            }
        }
        if now_us % EVERY_US == 0 && sent_at_us.is_none() {
            let data = RelayFrame::Data { circuit: number(1), payload: vec![2; 64].into() };
            hub.message(now(now_us), ECHO, &data.encode()).expect("within the credit");
            sent_at_us = Some(now_us);
        }
        for (line, login) in lines.iter_mut().zip([BULK, SHARED, ECHO]) {
            line.fill(&mut hub, now_us, login);
            while let Some(frame) = line.arrived(now_us) {
                match (login, frame) {
                    (SHARED, RelayFrame::Data { circuit, payload }) if circuit == number(2) => {
                        (read, bulk) = (read + payload.len() as u64, bulk + payload.len() as u64);
                        if read >= 128 * 1024 {
                            let increment = std::mem::take(&mut read) as u32;
                            hub.message(now(now_us), SHARED, &RelayFrame::Credit { circuit, increment }.encode())
                                .expect("what was read");
                        }
                    }
                    (SHARED, RelayFrame::Data { circuit, payload }) => {
                        hub.message(now(now_us), SHARED, &RelayFrame::Data { circuit, payload }.encode())
                            .expect("echo");
                    }
                    (BULK, RelayFrame::Credit { increment, .. }) => credit += u64::from(increment),
                    (ECHO, RelayFrame::Data { .. }) => {
                        times.extend(sent_at_us.take().map(|sent| now_us - sent));
                        let back = RelayFrame::Credit { circuit: number(1), increment: 64 };
                        hub.message(now(now_us), ECHO, &back.encode()).expect("what was read");
                        hub.message(
                            now(now_us),
                            SHARED,
                            &RelayFrame::Credit { circuit: number(4), increment: 64 }.encode(),
                        )
                        .expect("what was read");
                    }
                    _ => {}
                }
            }
        }
    }
    times.sort_unstable();
    (times, bulk)
}

// Proves: LK-61
#[test]
fn relay_fairness() {
    let ((idle, _), (busy, bulk)) = (run(false), run(true));
    let p99 = |times: &[u64]| times[times.len() * 99 / 100];
    println!("p99 of {} idle echoes {} µs, of {} busy ones {} µs", idle.len(), p99(&idle), busy.len(), p99(&busy));
    assert!(idle.len() > 400 && busy.len() > 400);
    let line = LINE_BYTES_MS * RUN_US / 1000;
    assert!(bulk > line * 9 / 10, "the bulk fills the line: {bulk} of {line} bytes");
    assert!(p99(&busy) <= 3 * p99(&idle) + 10_000);
}
