//! Connect over the real state machine of a session whose path changes in its middle, and proofs that are shown to
//! somebody else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use sealtide_crypto::Now;
use sealtide_identity::NodeId;
use sealtide_node::engine::keystones::{Connection, Keystones};
use sealtide_sim::control_end::ControlEnd;
use sealtide_sim::dice::Dice;
use sealtide_sim::identities::RealKeeper;
use sealtide_sim::keystones::PlainKeystones;
use sealtide_sim::node::Keeper;
use sealtide_sim::seeds::{in_virtual_time, scale};
use sealtide_store::mem::MemDisk;
use sealtide_store::{Config, Store};
use sealtide_sync::{AbortCode, ControlInput, Message};
use sealtide_wire::frame::Header;
use sealtide_wire::session::{
    ChannelId, Event, PathId, SendError, Session, SessionConfig, SessionLimits, SessionState, Terms,
};

const WALL_MS: u64 = 1_800_000_000_000;
const OLD: PathId = PathId(0);
const NEW: PathId = PathId(1);

/// How the path changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// The old path dies with all that is on it; the new one comes at once.
    Lost,
    /// The same, after a time without any path.
    Suspended,
    /// The new path is there first, then both ends go over to it; the old one dies later.
    Switched,
    /// As [`Move::Switched`], but one end only.
    OneSided,
}

const MOVES: [Move; 4] = [Move::Lost, Move::Suspended, Move::Switched, Move::OneSided];

/// Two ends of a session, and the pipes between them.
struct Line {
    now: Now,
    ends: [Session; 2],
    pipes: BTreeMap<PathId, [VecDeque<Bytes>; 2]>,
    attached: [BTreeSet<PathId>; 2],
    channels: [Option<ChannelId>; 2],
    switches: usize,
}

impl Line {
    fn new(seed: u64) -> Self {
        let now = Now { mono_ms: 1_000, wall_ms: WALL_MS };
        let (terms, limits) = (Terms::default(), SessionLimits::default());
        let end = |initiator| {
            let jitter_seed = seed + u64::from(initiator);
            Session::new(now, SessionConfig { initiator, ours: terms, theirs: terms, limits, jitter_seed })
        };
        let mut line = Self {
            now,
            ends: [end(true), end(false)],
            pipes: BTreeMap::new(),
            attached: Default::default(),
            channels: [None; 2],
            switches: 0,
        };
        line.attach(OLD);
        line.channels[0] = Some(line.ends[0].open(0, "sts/1/control").unwrap());
        line
    }

    fn attach(&mut self, path: PathId) {
        self.pipes.insert(path, Default::default());
        let next = [self.ends[0].rx_next(), self.ends[1].rx_next()];
        for end in 0..2 {
            self.ends[end].attach(self.now, path, next[1 - end]).unwrap();
            self.attached[end].insert(path);
        }
    }

    fn lose(&mut self, path: PathId) {
        self.pipes.remove(&path);
        for end in 0..2 {
            if self.attached[end].remove(&path) {
                self.ends[end].path_lost(self.now, path);
            }
        }
    }

    /// Writes up to `frames` frames of an end; whether there were any.
    fn write(&mut self, end: usize, frames: u64) -> bool {
        let mut written = 0;
        for path in self.attached[end].clone() {
            while written < frames
                && let Some(transmit) = self.ends[end].poll_transmit(self.now, path, usize::MAX)
            {
                written += 1;
                if let Some(pipe) = self.pipes.get_mut(&path) {
                    pipe[end].push_back([transmit.head.as_ref(), &transmit.payload].concat().into());
                }
            }
        }
        written > 0
    }

    /// Hands one frame over that waits for an end.
    fn deliver(&mut self, to: usize) -> bool {
        let Some((path, bytes)) =
            self.pipes.iter_mut().find_map(|(path, pipe)| Some((*path, pipe[1 - to].pop_front()?)))
        else {
            return false;
        };
        let header = Header::parse(&bytes, u32::MAX).unwrap().unwrap();
        self.ends[to].handle_frame(self.now, path, header, &bytes[header.bytes()..]).unwrap();
        true
    }

    fn events(&mut self) {
        for end in 0..2 {
            while let Some(event) = self.ends[end].poll_event() {
                match event {
                    Event::ChannelOpened { channel, .. } => self.channels[end] = Some(channel),
                    Event::Switched { from: Some(_), .. } => self.switches += 1,
                    Event::PathFailed { path, .. } => _ = self.attached[end].remove(&path),
                    Event::Aborted { .. } | Event::Lost { .. } => panic!("{event:?}"),
                    _ => {}
                }
            }
        }
    }

    fn message(&mut self, end: usize) -> Option<Bytes> {
        let channel = self.channels[end]?;
        let message = self.ends[end].recv(channel).unwrap()?;
        self.ends[end].release(channel, message.len() as u64);
        Some(message)
    }

    /// To the next time at which something happens by itself.
    fn wait(&mut self) {
        let next = self.ends.iter().filter_map(Session::next_timeout).min().unwrap();
        self.now.mono_ms = self.now.mono_ms.max(next);
        for end in &mut self.ends {
            if end.next_timeout().is_some_and(|at| at <= self.now.mono_ms) {
                end.handle_timeout(self.now);
            }
        }
    }

    fn migrate(&mut self, how: Move) {
        match how {
            Move::Lost => {
                self.lose(OLD);
                self.attach(NEW);
            }
            Move::Suspended => {
                self.lose(OLD);
                assert!(self.ends.iter().all(|end| end.state() == SessionState::Suspended));
                self.now.mono_ms += 3_000;
                self.attach(NEW);
            }
            Move::Switched => {
                self.attach(NEW);
                assert!(self.ends[0].switch(self.now, NEW) && self.ends[1].switch(self.now, NEW));
            }
            Move::OneSided => {
                self.attach(NEW);
                assert!(self.ends[0].switch(self.now, NEW));
            }
        }
    }
}

/// One connect; the path changes after one end has CHALLENGE and before it has PROOF. Gives how many bytes of proofs had
/// left by then.
async fn connect_over(line: &mut Line, ends: &mut [ControlEnd; 2], how: Move, dice: &mut Dice) {
    let (whose, after_frames) = (dice.below(2) as usize, dice.below(12));
    let late = dice.one_in(2);
    let (mut countdown, mut moved, mut proof_came) = (None::<u64>, false, false);
    let mut waiting: [Option<Bytes>; 2] = [None, None];
    for end in ends.iter_mut() {
        end.take(line.now, ControlInput::Start).await;
    }
    for _ in 0..100_000 {
        if ends.iter().all(ControlEnd::is_ready) {
            break;
        }
        let mut busy = false;
        for end in 0..2 {
            line.events();
            while let Some(channel) = line.channels[end]
                && let Some(message) = waiting[end].take().or_else(|| ends[end].next_message())
            {
                match line.ends[end].send(channel, message) {
                    Ok(()) => {}
                    Err(SendError::WouldBlock(message)) => {
                        waiting[end] = Some(message);
                        break;
                    }
                    Err(_) => panic!("the channel is open"),
                }
            }
            busy |= line.write(end, dice.between(1, 3));
            if let Some(left) = &mut countdown
                && !moved
            {
                if *left == 0 {
                    line.migrate(how);
                    moved = true;
                    assert!(!proof_came, "between CHALLENGE and PROOF");
                }
                *left = left.saturating_sub(1);
            }
            for _ in 0..dice.between(1, 4) {
                busy |= line.deliver(end);
            }
            line.events();
            while let Some(message) = line.message(end) {
                busy = true;
                if end == whose {
                    match message[0] {
                        // Either before the own proof is made, or while it is on its way.
                        0x02 if late => countdown = Some(after_frames),
                        0x02 => {
                            line.migrate(how);
                            (countdown, moved) = (Some(0), true);
                        }
                        0x03 if !moved => {
                            // The proof was faster than the frames that were counted: now is the last moment.
                            line.migrate(how);
                            moved = true;
                        }
                        0x03 => proof_came = true,
                        _ => {}
                    }
                }
                ends[end].take(line.now, ControlInput::Message(message)).await;
            }
        }
        if !busy {
            line.wait();
        }
    }
    assert!(moved, "the path changed");
}

fn plain(id: u8) -> (NodeId, Arc<dyn Keystones>) {
    let id = NodeId::from_bytes([id; 32]);
    (id, Arc::new(PlainKeystones::new(id)))
}

/// The identities of a node, over a store of its own.
fn real(seed: u64) -> (NodeId, Arc<dyn Keystones>) {
    let keeper = RealKeeper::new(seed);
    let store = Store::open(Arc::new(MemDisk::new(seed)), Config::default()).unwrap();
    (keeper.id(), keeper.open(&store, Arc::new(|| WALL_MS)).unwrap())
}

fn pair(
    nodes: &[(NodeId, Arc<dyn Keystones>); 2],
    bindings: [[u8; 32]; 2],
    peers: [NodeId; 2],
    challenges: [[u8; 32]; 2],
) -> [ControlEnd; 2] {
    [0, 1].map(|end| {
        let (own, keystones) = &nodes[end];
        let connection = Connection::unattended(*own, peers[end], end == 0, bindings[end]);
        ControlEnd::new(keystones.clone(), connection, challenges[end])
    })
}

async fn connect_while_migrating(seed: u64, nodes: [(NodeId, Arc<dyn Keystones>); 2]) -> Move {
    let mut dice = Dice::new(seed);
    let how = MOVES[dice.below(4) as usize];
    let mut line = Line::new(seed);
    let peers = [nodes[1].0, nodes[0].0];
    let mut ends = pair(&nodes, [[5; 32]; 2], peers, [[1; 32], [2; 32]]);
    connect_over(&mut line, &mut ends, how, &mut dice).await;
    for end in &ends {
        assert!(end.is_ready() && end.failed().is_none(), "seed {seed}, {how:?}: {:?}", end.failed());
    }
    if matches!(how, Move::Switched | Move::OneSided) {
        assert!(line.switches > 0, "seed {seed}: nobody switched");
    }
    how
}

/// Proves: SY-89
#[test]
fn connect_while_migrating_is_accepted() {
    let seeds = 1000 * scale();
    let mut count = [0; 4];
    for seed in 0..seeds {
        let how = in_virtual_time(connect_while_migrating(seed, [plain(1), plain(2)]));
        count[how as usize] += 1;
    }
    println!("{seeds} seeds, by move {count:?}");
    assert!(count.iter().all(|count| *count > seeds / 8), "{count:?}");
}

/// The same with proofs of real keystones, which are several frames of the link each.
/// Proves: SY-89
#[test]
fn connect_while_migrating_with_real_keystones() {
    for seed in 0..12 * scale() {
        in_virtual_time(connect_while_migrating(seed, [real(2 * seed + 1), real(2 * seed + 2)]));
    }
}

/// Passes what both ends say to each other, as a node with a session to each would; gives why they gave up.
async fn relay(mut ends: [ControlEnd; 2]) -> [Option<AbortCode>; 2] {
    let now = Now { mono_ms: 1, wall_ms: WALL_MS };
    for end in &mut ends {
        end.take(now, ControlInput::Start).await;
    }
    let mut proofs = 0;
    loop {
        let mut moved = false;
        for from in 0..2 {
            // The reasons that travel would hide the own verdict of the other end.
            while let Some(message) = ends[from].next_message() {
                moved = true;
                proofs += usize::from(message[0] == 0x03);
                if !matches!(Message::decode(&message), Ok(Message::Abort { .. })) {
                    ends[1 - from].take(now, ControlInput::Message(message)).await;
                }
            }
        }
        if !moved {
            break;
        }
    }
    assert_eq!(proofs, 2, "both proofs were shown");
    assert!(!ends.iter().any(ControlEnd::is_ready));
    [ends[0].failed(), ends[1].failed()]
}

/// A node in the middle has a session with each of two others and shows each the words of the other as its own. Neither
/// believes it, even if the two sessions had one binding; and when it lies about nothing but the session, neither too.
/// Proves: SY-89
#[test]
fn connect_misbinding_by_a_relay_is_refused() {
    let auth = [Some(AbortCode::Auth); 2];
    for make in [plain as fn(u8) -> (NodeId, Arc<dyn Keystones>), |id| real(u64::from(id))] {
        let nodes = || [make(1), make(2)];
        let middle = make(3).0;
        in_virtual_time(async {
            let challenges = [[1; 32], [2; 32]];
            let between = pair(&nodes(), [[5; 32], [6; 32]], [middle; 2], challenges);
            assert_eq!(relay(between).await, auth, "two sessions through a third node");
            let one_binding = pair(&nodes(), [[5; 32]; 2], [middle; 2], challenges);
            assert_eq!(relay(one_binding).await, auth, "the same, were the bindings equal");
            let pairs = nodes();
            let peers = [pairs[1].0, pairs[0].0];
            let spliced = pair(&pairs, [[5; 32], [6; 32]], peers, challenges);
            assert_eq!(relay(spliced).await, auth, "two sessions of the right nodes");
        });
    }
}
