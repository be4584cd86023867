//! One path as the session sees it: is it alive, and which unnumbered frames wait for it. Spec: link C.11.
//!
//! ```text
//! Alive ── silent for the ping interval ──▶ Asked ── pong_ms ──▶ Suspect ── until ──▶ failed
//!   ▲  └── busy and silent, or the machine slept ──────────────────▲  │
//!   └──────────────────── any frame ──────────────────────────────────┘
//! ```

use std::collections::VecDeque;

/// PINGs of the peer that wait for their PONG; of more, the oldest are forgotten.
const PONGS_MAX: usize = 8;
/// Bytes of PING and PONG: token, clock of the sender in µs.
pub(super) const PING_BYTES: usize = 16;

/// How sure we are that the path works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Something came not long ago.
    Alive,
    /// An idle path was asked at this time.
    Asked(u64),
    /// Something should have come before `since`, when a PING was sent; the path fails at `until`.
    Suspect { since: u64, until: u64 },
}

#[derive(Debug)]
pub(super) struct Path {
    pub(super) health: Health,
    /// When the last frame came, or the path was attached.
    pub(super) heard: u64,
    /// Silence before the next PING.
    pub(super) interval: u64,
    pub(super) pongs: VecDeque<[u8; PING_BYTES]>,
    /// A PING is to leave.
    pub(super) ping: bool,
    /// An ACK is to leave.
    pub(super) ack: bool,
    /// A PATH_END is to leave, with this number.
    pub(super) end: Option<u64>,
    /// ABORT has left on this path.
    pub(super) abort_sent: bool,
    /// The peer said PATH_END and has sent no numbered frame since.
    pub(super) peer_ended: bool,
    /// PINGs answered in a row.
    pub(super) answered: u32,
    token: u64,
    /// The PING whose PONG measures the round trip: its token and when it left.
    measuring: Option<(u64, u64)>,
    last_ping: u64,
    /// Smoothed round-trip time in µs.
    srtt_us: Option<u64>,
    /// Least round-trip time in ms: what the way takes when nothing waits on it.
    least_ms: Option<u64>,
}

impl Path {
    /// A path attached now: it acknowledges at once, and measures its round trip.
    pub(super) fn new(now_ms: u64, interval: u64) -> Self {
        Self {
            health: Health::Alive,
            heard: now_ms,
            interval,
            pongs: VecDeque::new(),
            ping: true,
            ack: true,
            end: None,
            abort_sent: false,
            peer_ended: false,
            answered: 0,
            token: 0,
            measuring: None,
            last_ping: now_ms,
            srtt_us: None,
            least_ms: None,
        }
    }

    /// A frame came.
    pub(super) fn hear(&mut self, now_ms: u64) {
        self.heard = now_ms;
        self.health = Health::Alive;
    }

    /// The peer wants this echoed.
    pub(super) fn queue_pong(&mut self, payload: [u8; PING_BYTES]) {
        if self.pongs.len() == PONGS_MAX {
            self.pongs.pop_front();
        }
        self.pongs.push_back(payload);
    }

    /// The payload of the next PING.
    pub(super) fn ping(&mut self, now_ms: u64) -> [u8; PING_BYTES] {
        self.ping = false;
        self.last_ping = now_ms;
        self.token += 1;
        self.measuring = Some((self.token, now_ms));
        let mut payload = [0; PING_BYTES];
        payload[..8].copy_from_slice(&self.token.to_be_bytes());
        payload[8..].copy_from_slice(&now_ms.saturating_mul(1_000).to_be_bytes());
        payload
    }

    /// A PONG came; the time in it is not trusted, the own note of when its PING left is.
    pub(super) fn pong(&mut self, now_ms: u64, payload: &[u8; PING_BYTES]) {
        let [token @ .., _, _, _, _, _, _, _, _] = *payload;
        if let Some((expected, sent)) = self.measuring
            && u64::from_be_bytes(token) == expected
        {
            self.measuring = None;
            self.answered = self.answered.saturating_add(1);
            let took = now_ms.saturating_sub(sent);
            self.least_ms = Some(self.least_ms.map_or(took, |least| least.min(took)));
            let sample = took.saturating_mul(1_000);
            self.srtt_us = Some(self.srtt_us.map_or(sample, |srtt| (srtt * 7 + sample) / 8));
        }
    }

    /// Nothing came where something should have.
    pub(super) fn suspect(&mut self, since: u64, until: u64) {
        self.health = Health::Suspect { since, until };
        self.answered = 0;
        self.ping = true;
    }

    /// Whether the round trip of a path in use was not measured for four intervals.
    pub(super) fn wants_sample(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.last_ping) >= self.interval.saturating_mul(4)
    }

    /// Smoothed round-trip time in milliseconds, rounded up.
    pub(super) fn rtt_ms(&self) -> Option<u64> {
        self.srtt_us.map(|us| us.div_ceil(1_000))
    }

    pub(super) fn least_ms(&self) -> Option<u64> {
        self.least_ms
    }

    pub(super) fn is_suspect(&self) -> bool {
        matches!(self.health, Health::Suspect { .. })
    }

    /// When the idle rule wants to look at the path again.
    pub(super) fn deadline(&self, pong_ms: u64) -> u64 {
        match self.health {
            Health::Alive => self.heard.saturating_add(self.interval),
            Health::Asked(since) => since.saturating_add(pong_ms),
            Health::Suspect { until, .. } => until,
        }
    }
}
