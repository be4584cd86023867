//! What waits for one login: first what steers, then data by deficit round robin over the nodes that it comes from
//! and over the circuits of each. Spec: link C.5 "Fairness".

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use sealtide_identity::NodeId;

use super::frame::RelayFrame;
use super::round_robin::RoundRobin;

/// Steering frames that wait for one login; more means that it asks for answers and does not read them.
pub(super) const STEERING_MAX: usize = 4096;

/// Frames that wait for one login.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    steering: VecDeque<Bytes>,
    nodes: RoundRobin<NodeId>,
    circuits: BTreeMap<NodeId, RoundRobin<u32>>,
    /// By the number that the receiver knows. Whole messages, R_DATA and a last R_CLOSE.
    queues: BTreeMap<u32, Queue>,
    waiting_bytes: usize,
}

#[derive(Debug)]
struct Queue {
    from: NodeId,
    messages: VecDeque<Bytes>,
}

/// What left the outbox.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) message: Bytes,
    /// Bytes that wait no longer: 0 for what steers.
    pub(super) data_bytes: usize,
}

impl Outbox {
    /// Puts a steering frame in line; false when too many wait.
    pub(super) fn steer(&mut self, frame: &RelayFrame) -> bool {
        if self.steering.len() >= STEERING_MAX {
            return false;
        }
        self.steering.push_back(frame.encode());
        true
    }

    /// Puts `message` of the circuit `number` in line, which comes from the node `from`.
    pub(super) fn data(&mut self, number: u32, from: NodeId, message: Bytes) {
        self.waiting_bytes += message.len();
        let queue = self.queues.entry(number).or_insert_with(|| Queue { from, messages: VecDeque::new() });
        if queue.messages.is_empty() {
            let circuits = self.circuits.entry(from).or_default();
            if circuits.is_empty() {
                self.nodes.add(from);
            }
            circuits.add(number);
        }
        queue.messages.push_back(message);
    }

    /// Drops what waits of a circuit that this login ended; gives the bytes.
    pub(super) fn drop_circuit(&mut self, number: u32) -> usize {
        let Some(queue) = self.queues.remove(&number) else { return 0 };
        if let Some(circuits) = self.circuits.get_mut(&queue.from) {
            circuits.remove(number);
            if circuits.is_empty() {
                self.circuits.remove(&queue.from);
                self.nodes.remove(queue.from);
            }
        }
        let bytes = queue.messages.iter().map(Bytes::len).sum();
        self.waiting_bytes -= bytes;
        bytes
    }

    /// Whether something of the circuit `number` waits.
    pub(super) fn waits(&self, number: u32) -> bool {
        self.queues.contains_key(&number)
    }

    /// The next message to write.
    pub(super) fn next(&mut self) -> Option<Sent> {
        if let Some(message) = self.steering.pop_front() {
            return Some(Sent { message, data_bytes: 0 });
        }
        let Self { nodes, circuits, queues, .. } = self;
        let cost = |number: u32| queues.get(&number).and_then(|queue| queue.messages.front()).map_or(0, Bytes::len);
        let from =
            nodes.front(|node| circuits.get_mut(&node).and_then(|circuits| circuits.front(cost)).map_or(0, cost))?;
        let number = circuits.get_mut(&from)?.front(cost)?;
        let queue = queues.get_mut(&number)?;
        let message = queue.messages.pop_front()?;
        let (bytes, more) = (message.len(), !queue.messages.is_empty());
        let of_node = circuits.get_mut(&from)?;
        of_node.sent(bytes, more);
        let node_has_more = !of_node.is_empty();
        if !more {
            queues.remove(&number);
        }
        if !node_has_more {
            circuits.remove(&from);
        }
        nodes.sent(bytes, node_has_more);
        self.waiting_bytes -= bytes;
        Some(Sent { message, data_bytes: bytes })
    }

    /// Bytes of circuits that wait.
    pub(super) const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steering.is_empty() && self.nodes.is_empty()
    }
}
