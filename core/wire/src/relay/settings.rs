//! What a relay is told by its operator. Spec: link C.5, C.12.

use crate::handshake::RelayLimits;

/// Every limit of a relay. Times in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelaySettings {
    /// Circuits of one node, opened and offered together.
    pub circuits_per_node: u16,
    /// First credit of a circuit in each direction, bytes.
    pub credit: u32,
    /// The most credit of a circuit, bytes.
    pub credit_max: u32,
    /// Bytes that may wait for one node; above it those who send to it are not read.
    pub waiting_per_node: usize,
    /// Bytes that may wait for all nodes together.
    pub waiting_total: usize,
    /// Rate of one node's R_DATA, bytes per second; 0 for no limit.
    pub rate_bytes_s: u64,
    /// Bytes beyond the rate in one go.
    pub burst: u32,
    /// R_OPENs of one node per second.
    pub opens_per_second: u32,
    /// R_OPENs of one node in one go.
    pub opens_burst: u32,
    /// When every R_OPEN that leads to no circuit is answered, whatever the reason: nobody learns who is here.
    pub refusal_ms: u64,
    /// How long a node may be held up by one that does not read, before the circuit between them is closed.
    pub blocked_ms: u64,
    /// The interval of pings that nodes are told.
    pub ping_ms: u32,
    /// A login without a byte for so long is over.
    pub idle_ms: u64,
    /// Entries of one node's R_ALLOW.
    pub allows_per_node: usize,
    /// Guests at one time.
    pub guests: usize,
    /// How long a guest may stay.
    pub guest_ms: u64,
    /// Replaced logins of one node in a minute before both are sent away.
    pub replacements_per_minute: usize,
    /// How long circuits live on when the relay drains.
    pub drain_ms: u64,
    /// Nodes come back between the two after the relay drained.
    pub reconnect_ms: (u32, u32),
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            circuits_per_node: 1024,
            credit: 256 << 10,
            credit_max: 2 << 20,
            waiting_per_node: 1 << 20,
            waiting_total: 1 << 30,
            rate_bytes_s: 50_000_000 / 8,
            burst: 4 << 20,
            opens_per_second: 10,
            opens_burst: 50,
            refusal_ms: 1_000,
            blocked_ms: 10_000,
            ping_ms: 15_000,
            idle_ms: 60_000,
            allows_per_node: 256,
            guests: 64,
            guest_ms: 600_000,
            replacements_per_minute: 3,
            drain_ms: 30_000,
            reconnect_ms: (500, 8_000),
        }
    }
}

impl RelaySettings {
    /// What a node is told at its login. Spec: link C.4.5, extension 2.
    pub fn granted(&self) -> RelayLimits {
        RelayLimits {
            max_circuits: self.circuits_per_node,
            credit: self.credit,
            rate_bytes_s: self.rate_bytes_s,
            burst: self.burst,
            ping_ms: self.ping_ms,
        }
    }
}
