//! A registry as it stands in a space that several nodes have: which of its frames count, and who writes the next one. Spec:
//! gateway §8.1.
//!
//! ```text
//! ib `writer`    key of a node ─▶ proves its ledger
//! ib `keyring`   records of a ledger ─▶ keys that sign the registry
//! ib `registry`  frames ─▶ the line: from the first, the one successor that the writer signed, and so on
//! ```
//!
//! Whoever may write to the space can put frames behind any other; those that the writer did not sign change nothing. Two
//! that the writer signed for one place are equivocation: the line ends before them, and nobody goes on from there.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, Once, PoisonError};

use data_encoding::BASE64;
use sealtide_crypto::{Ed25519PublicKey, PublicKey};
use sealtide_ibgib::{Address, Object, Relations, Sid, Stamp, Verified, genesis, uuid};
use sealtide_identity::keyring::{Algorithm, KeyVersion, Ledger, LedgerRecord};
use sealtide_identity::{NodeId, SpaceId};
use sealtide_releases::{LineRefused, Registry, RegistryFrame, Standing, Writer};
use sealtide_store::{SpaceHandle, Store};
use sealtide_sync::SpaceView;

use super::timelines::member;
use crate::real::now;
use crate::world::OsEntropy;

/// Timelines of writers and of ledgers that are looked at, at most.
const WRITERS_MAX: usize = 64;
/// Records of one ledger that are looked at, at most.
const RECORDS_MAX: usize = 65_536;
/// Frames that may stand for one record of a ledger: the right one, and what others put beside it.
const BESIDE_MAX: usize = 16;
/// Frames of the registry that are looked at, at most.
const FRAMES_MAX: usize = 1 << 20;
/// Frames that are remembered as refused, at most.
const REFUSED_MAX: usize = 1024;

/// The ib of the frame that tells the key of a node.
const WRITER_IB: &str = "writer";

/// A ledger of somebody, verified; with every Ed25519 key that it ever named.
pub(crate) struct KnownLedger {
    pub(crate) ledger: Ledger,
    /// As they were made, oldest first.
    pub(crate) records: Vec<LedgerRecord>,
    ed25519: BTreeMap<KeyVersion, Vec<u8>>,
}

/// What a reader is shown.
#[derive(Clone)]
pub(crate) struct SharedState {
    /// Who writes the next frame.
    pub(crate) writer: Writer,
    pub(crate) registry: Arc<Registry>,
    pub(crate) signature: String,
    pub(crate) signed_by: KeyVersion,
    /// Of the writer, where the space holds it.
    pub(crate) ledger: Option<Arc<KnownLedger>>,
    /// The revision that has two successors, both signed.
    pub(crate) forked: Option<u64>,
}

/// What a look brought.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// Whether the line goes further than before, or ends elsewhere.
    pub(crate) moved: bool,
    /// Frames that do not count, and why.
    pub(crate) refused: Vec<(Address, LineRefused)>,
    /// The writer signed two frames for one place.
    pub(crate) forked: Option<(Address, Address)>,
}

/// The registry in a shared space.
pub(crate) struct SharedRegistry {
    store: Store,
    space: SpaceId,
    first: Address,
    /// Held for a whole look.
    line: Mutex<Line>,
    /// What the last look found; nobody who asks for it waits for one that is under way, but for the first.
    state: Mutex<Option<SharedState>>,
    first_look: Once,
}

#[derive(Default)]
struct Line {
    /// Frames that count, oldest first, and what holds after each.
    taken: Vec<(Address, Standing)>,
    refused: BTreeSet<Address>,
    forked: Option<u64>,
    /// Every frame that a look came by: the next one stops there, so that each is judged once.
    came_by: HashSet<Address>,
    /// Frames that were not judged for good yet, by the one before them.
    waiting: BTreeMap<Address, Waiting>,
    /// As `waiting`, of those whose key no ledger names yet: only when what tells keys has changed they are judged again.
    keyless: BTreeMap<Address, Waiting>,
    /// How many signatures were looked at so far.
    #[cfg(test)]
    judged: usize,
    ledgers: Ledgers,
    /// The ends of the ledgers and of what tells keys, at the last look: nothing is verified twice.
    seen: Vec<Sid>,
}

/// Frames that say they come right after another one and nothing else: merges are none of a writer's.
struct Waiting {
    /// Where the one before them stands, if it counts.
    at: usize,
    frames: Vec<Address>,
}

/// The frame that tells others the key of this node.
pub(crate) fn writer_frame(node: &NodeId, key: &PublicKey) -> Verified {
    let data = Object::from_iter([
        ("node".to_owned(), serde_json::json!(node.to_string())),
        ("publicKey".to_owned(), serde_json::json!(BASE64.encode(key.as_bytes()))),
    ]);
    genesis(WRITER_IB, data, Relations::new(), Stamp { ms: now().wall_ms }, &uuid(&mut OsEntropy))
}

/// The keys of nodes that a space tells. A node id is the hash of its key, so nobody tells another's.
pub(crate) fn writers_in(view: &SpaceHandle) -> BTreeMap<NodeId, PublicKey> {
    let firsts = view.timelines_of(WRITER_IB).into_iter().take(WRITERS_MAX);
    let key = |frame: &Verified| {
        let bytes = BASE64.decode(member(frame, "publicKey").as_str()?.as_bytes()).ok()?;
        PublicKey::parse(&bytes).ok().map(|key| (NodeId::of(&key), key))
    };
    firsts.filter_map(|info| key(view.records_at(&info.tjp).first()?)).collect()
}

/// The first frames of registries in a space, and who each says writes it.
pub(crate) fn registries_in(view: &SpaceHandle) -> Vec<(Address, Writer)> {
    let firsts = view.timelines_of("registry").into_iter().take(WRITERS_MAX);
    let read = |first: &Address| RegistryFrame::read(&view.records_at(first).first()?.object()?).ok();
    firsts.filter_map(|info| Some((info.tjp.clone(), read(&info.tjp)?.writer))).collect()
}

/// The ledgers in a space that verify under the keys of their nodes, by the address of their first frame.
pub(crate) fn ledgers_in(view: &SpaceHandle) -> BTreeMap<String, Arc<KnownLedger>> {
    let writers = writers_in(view);
    let timelines = view.timelines_of("keyring").into_iter().take(WRITERS_MAX);
    let open = |info: sealtide_store::TimelineInfo| {
        let mut known: Option<KnownLedger> = None;
        let mut epoch = 0;
        while let Some(record) = record_at(view, &info, epoch, known.as_ref(), &writers) {
            epoch += 1;
            let keys = record.1.versions().flat_map(|(version, _)| record.1.keys_of(version)).cloned();
            let keys: Vec<_> = keys.filter(|key| key.algorithm == Algorithm::Ed25519).collect();
            let (mut records, mut ed25519) = known.map(|known| (known.records, known.ed25519)).unwrap_or_default();
            ed25519.extend(keys.into_iter().map(|key| (key.version, key.public_key)));
            records.push(record.1);
            known = Some(KnownLedger { ledger: record.0, records, ed25519 });
        }
        Some((info.tjp.as_str().to_owned(), Arc::new(known?)))
    };
    timelines.filter_map(open).collect()
}

/// The record with this place in a ledger that goes on from what is known, and the ledger with it.
fn record_at(
    view: &SpaceHandle,
    info: &sealtide_store::TimelineInfo,
    epoch: u64,
    known: Option<&KnownLedger>,
    writers: &BTreeMap<NodeId, PublicKey>,
) -> Option<(Ledger, LedgerRecord)> {
    (epoch < RECORDS_MAX as u64).then_some(())?;
    let beside = view.frames(&info.timeline, epoch, epoch, BESIDE_MAX);
    beside.iter().filter_map(|sid| view.record(sid)).find_map(|frame| {
        let record = LedgerRecord::parse(&member(&frame, "record")).ok()?;
        let key = writers.get(&record.node)?;
        let ledger = match known {
            None => Ledger::open(info.tjp.as_str(), std::slice::from_ref(&record), key),
            Some(known) => known.ledger.extend(record.clone(), key),
        };
        Some((ledger.ok()?, record))
    })
}

impl SharedRegistry {
    /// Of a space, from this first frame on. Nothing is read yet.
    pub(crate) fn new(store: Store, space: SpaceId, first: Address) -> Self {
        Self { store, space, first, line: Mutex::default(), state: Mutex::default(), first_look: Once::new() }
    }

    pub(crate) fn space(&self) -> SpaceId {
        self.space
    }

    pub(crate) fn first(&self) -> &Address {
        &self.first
    }

    /// Looks, where nobody has yet; waits for the first look that another has begun. Reads the store.
    pub(crate) fn look_first(&self) {
        self.first_look.call_once_force(|_| drop(self.look()));
    }

    /// What counted at the last look; none before the first frame counts.
    pub(crate) fn state(&self) -> Option<SharedState> {
        self.shown().clone()
    }

    /// All frames that count, oldest first.
    pub(crate) fn frames(&self) -> Vec<Verified> {
        let taken: Vec<Address> = self.lock().taken.iter().map(|(address, _)| address.clone()).collect();
        let Some(view) = self.store.view(&self.space) else { return Vec::new() };
        taken.iter().filter_map(|address| view.records_at(address).into_iter().next()).collect()
    }

    /// Looks at what the space holds now. Reads the store.
    // Spec: GW-108
    pub(crate) fn look(&self) -> Looked {
        let Some(view) = self.store.view(&self.space) else { return Looked::default() };
        let mut line = self.lock();
        let ends = [WRITER_IB, "keyring"].into_iter().flat_map(|ib| view.timelines_of(ib)).flat_map(|info| info.tips);
        let ends: Vec<Sid> = ends.map(|tip| tip.sid).collect();
        if line.seen != ends {
            (line.ledgers, line.seen) = (ledgers_in(&view), ends);
            for (past, Waiting { at, frames }) in std::mem::take(&mut line.keyless) {
                add(&mut line.waiting, past, at, frames);
            }
        }
        let ledgers = line.ledgers.clone();
        let before = line.taken.last().map(|(address, _)| address.clone());
        let was_forked = line.forked;
        let mut looked = Looked::default();
        line.come_by(&view, &self.first);
        loop {
            let found = line.next_frames(&view, &ledgers, &self.first, &mut looked.refused);
            match found.as_slice() {
                [] => break,
                [_] => line.taken.extend(found),
                [(left, _), (right, _), ..] => {
                    line.forked = Some(line.taken.last().map_or(0, |(_, standing)| standing.revision));
                    looked.forked = Some((left.clone(), right.clone()));
                    break;
                }
            }
            line.forked = None;
        }
        if let Some(fork) = line.late_fork(&view, &ledgers, &mut looked.refused) {
            line.taken.truncate(fork.at + 1);
            line.forked = Some(line.taken[fork.at].1.revision);
            looked.forked = Some(fork.both);
            // What stood behind it waits again.
            line.came_by.clear();
            line.waiting.clear();
            line.keyless.clear();
        }
        line.refused.extend(looked.refused.iter().map(|(address, _)| address.clone()).take(REFUSED_MAX));
        looked.moved = before.as_ref() != line.taken.last().map(|(address, _)| address);
        if was_forked == line.forked {
            looked.forked = None;
        }
        let state = line.taken.last().and_then(|(address, standing)| {
            let frame = RegistryFrame::read(&view.records_at(address).first()?.object()?).ok()?;
            Some(SharedState {
                writer: standing.writer.clone(),
                ledger: ledgers.get(&standing.writer.ledger).filter(|it| is_of(it, &standing.writer)).cloned(),
                registry: Arc::new(frame.registry),
                signature: frame.signature,
                signed_by: frame.signed_by,
                forked: line.forked,
            })
        });
        *self.shown() = state;
        looked
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Option<SharedState>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_of(ledger: &KnownLedger, writer: &Writer) -> bool {
    ledger.ledger.tip().node == writer.node
}

impl Line {
    /// Finds the frames that came since the last look, from the tips back to what is known: those that may count wait.
    fn come_by(&mut self, view: &SpaceHandle, first: &Address) {
        let Some(facts) = view.frame_facts(first) else { return };
        let mut next: Vec<Address> = view.tips(&facts.timeline).into_iter().map(|tip| tip.tip).collect();
        let (mut new, mut followers) = (HashSet::new(), Vec::new());
        while let Some(address) = next.pop() {
            if self.came_by.contains(&address) || !new.insert(address.clone()) {
                continue;
            }
            if self.came_by.len() + new.len() > FRAMES_MAX {
                return;
            }
            let Some(facts) = view.frame_facts(&address) else { continue };
            if let ([past], []) = (facts.past.as_slice(), facts.orphans.as_slice()) {
                followers.push((past.clone(), facts.n, address));
            }
            next.extend(facts.past.into_iter().chain(facts.orphans));
        }
        self.came_by.extend(new);
        for (past, n, address) in followers {
            let at = usize::try_from(n.saturating_sub(1)).unwrap_or(usize::MAX);
            add(&mut self.waiting, past, at, vec![address]);
        }
    }

    /// The frames that count after the last one that does; more than one is equivocation.
    fn next_frames(
        &mut self,
        view: &SpaceHandle,
        ledgers: &Ledgers,
        first: &Address,
        refused: &mut Vec<(Address, LineRefused)>,
    ) -> Vec<(Address, Standing)> {
        let Some(at) = self.taken.len().checked_sub(1) else {
            return self.judge(view, ledgers, None, vec![first.clone()], refused).0;
        };
        let Some(waiting) = self.waiting.remove(&self.taken[at].0) else { return Vec::new() };
        let (counting, later) = self.judge(view, ledgers, Some(at), waiting.frames, refused);
        let past = self.taken[at].0.clone();
        if counting.len() > 1 {
            let both = counting.iter().map(|(address, _)| address.clone()).collect();
            add(&mut self.waiting, past.clone(), at, both);
        }
        add(&mut self.keyless, past, at, later);
        counting
    }

    /// A frame that came late to a place that is taken, and that the writer of that place signed too; the first such place.
    fn late_fork(
        &mut self,
        view: &SpaceHandle,
        ledgers: &Ledgers,
        refused: &mut Vec<(Address, LineRefused)>,
    ) -> Option<Fork> {
        let is_passed = |past: &Address, at: usize| at + 1 < self.taken.len() && self.taken[at].0 == *past;
        let passed = self.waiting.iter().filter(|(past, waiting)| is_passed(past, waiting.at));
        let mut places: Vec<usize> = passed.map(|(_, waiting)| waiting.at).collect();
        places.sort_unstable();
        for at in places {
            let Some(waiting) = self.waiting.remove(&self.taken[at].0) else { continue };
            let taken = self.taken[at + 1].0.clone();
            let others = waiting.frames.into_iter().filter(|other| *other != taken).collect();
            let (counting, later) = self.judge(view, ledgers, Some(at), others, refused);
            if let Some((other, _)) = counting.into_iter().next() {
                return Some(Fork { at, both: (taken, other) });
            }
            add(&mut self.keyless, self.taken[at].0.clone(), at, later);
        }
        None
    }

    /// Of frames after the one at `at`, or at the first place, those that count, and those whose ledger may still be on its way.
    fn judge(
        &mut self,
        view: &SpaceHandle,
        ledgers: &Ledgers,
        at: Option<usize>,
        frames: Vec<Address>,
        refused: &mut Vec<(Address, LineRefused)>,
    ) -> (Vec<(Address, Standing)>, Vec<Address>) {
        #[cfg(test)]
        {
            self.judged += frames.len();
        }
        let before = at.map(|at| &self.taken[at].1);
        let (mut counting, mut later) = (Vec::new(), Vec::new());
        for address in frames {
            match standing_after(view, ledgers, before, &address) {
                Ok(standing) => counting.push((address, standing)),
                Err(LineRefused::Key(_)) => later.push(address),
                Err(why) if !self.refused.contains(&address) => refused.push((address, why)),
                Err(_) => {}
            }
        }
        (counting, later)
    }
}

/// Puts frames with those that come right after the same one.
fn add(to: &mut BTreeMap<Address, Waiting>, past: Address, at: usize, frames: Vec<Address>) {
    if !frames.is_empty() {
        to.entry(past).or_insert_with(|| Waiting { at, frames: Vec::new() }).frames.extend(frames);
    }
}

type Ledgers = BTreeMap<String, Arc<KnownLedger>>;

fn standing_after(
    view: &SpaceHandle,
    ledgers: &Ledgers,
    before: Option<&Standing>,
    address: &Address,
) -> Result<Standing, LineRefused> {
    let record = view.records_at(address).into_iter().next().ok_or(LineRefused::Form("record"))?;
    let frame = RegistryFrame::read(&record.object().ok_or(LineRefused::Form("data"))?)?;
    let key = |writer: &Writer, version: KeyVersion| {
        let known = ledgers.get(&writer.ledger).filter(|known| is_of(known, writer))?;
        Ed25519PublicKey::parse(known.ed25519.get(&version)?).ok()
    };
    match before {
        None => frame.begin(key),
        Some(before) => frame.after(before, key),
    }
}

struct Fork {
    at: usize,
    both: (Address, Address),
}
