//! How much peers may bring: in one saga, one peer at a time, into one space. Spec: SY-68; node §5
//!
//! What counts is what was received, with its record or later, and not given up since. Changes of this node's own folders and
//! documents are never refused: they are here already.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sealtide_ibgib::{ChunkHash, Manifest};
use sealtide_identity::{NodeId, SpaceId};
use sealtide_store::Store;
use sealtide_sync::{SagaId, SagaState, SpaceView};

use crate::engine::Engine;
use crate::engine::room::held_space;
use crate::known::{Absence, Known};
use crate::world::World;

/// Bytes that may be received; `u64::MAX` is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaLimits {
    /// In one saga.
    pub saga: u64,
    /// From one peer, without what became part of a space: staged by sagas that run or were cut, and held.
    pub peer: u64,
    /// Of one space in all: its records and chunks, and what is staged for it.
    pub space: u64,
}

impl QuotaLimits {
    /// No bounds.
    pub const NONE: Self = Self { saga: u64::MAX, peer: u64::MAX, space: u64::MAX };
}

/// Which bound was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quota {
    Saga,
    Peer,
    Space,
}

/// More than a quota allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OverQuota {
    pub(crate) quota: Quota,
    /// The local name of the space.
    pub(crate) space: String,
    /// The node that says no.
    pub(crate) node: NodeId,
    /// What it would be.
    pub(crate) bytes: u64,
    pub(crate) bytes_max: u64,
}

impl fmt::Display for OverQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, setting) = match self.quota {
            Quota::Saga => ("one saga", "quota.saga"),
            Quota::Peer => ("what waits from one peer", "quota.peer"),
            Quota::Space => ("the space", "quota.space"),
        };
        let Self { space, bytes, bytes_max, .. } = self;
        write!(
            f,
            "space {space}: {what} would be {bytes} bytes of {bytes_max} that {setting} allows at node {}; \
             `sealtide config set {setting} SIZE` there raises it at the next start",
            self.node.short()
        )
    }
}

/// What one saga has staged.
#[derive(Clone, Copy, Debug)]
struct Staged {
    /// Unknown for a saga of before the start that nobody wrote down.
    peer: Option<NodeId>,
    space: SpaceId,
    bytes: u64,
}

/// Counts what is staged.
#[derive(Debug)]
pub(crate) struct Quotas(Mutex<State>);

#[derive(Debug)]
struct State {
    limits: QuotaLimits,
    staged: BTreeMap<SagaId, Staged>,
    /// Sagas that are at work: two with one id would count as one.
    running: BTreeSet<SagaId>,
    /// What the store tells of spaces and is not so, as it was when the last saga began.
    amended: BTreeMap<SpaceId, Amended>,
}

/// Bytes by which what the store tells of a space differs from what is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amended {
    /// Counted, and given up since.
    given_up: u64,
    /// Came after the record that lists it, so nobody counted it.
    came_later: u64,
}

impl Amended {
    fn of(store: &Store, space: &SpaceId) -> Self {
        Self { given_up: given_up_bytes(store, space), came_later: came_later_bytes(store, space) }
    }

    /// What is here of so many bytes that the store tells.
    fn bytes(self, told: u64) -> u64 {
        told.saturating_add(self.came_later).saturating_sub(self.given_up)
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self(Mutex::new(State {
            limits: QuotaLimits::NONE,
            staged: BTreeMap::new(),
            running: BTreeSet::new(),
            amended: BTreeMap::new(),
        }))
    }
}

impl Quotas {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the bounds, and finds what sagas of before the start have staged.
    pub(crate) fn set(&self, limits: QuotaLimits, store: &Store) {
        let known = Known::of(store);
        let peers: Vec<NodeId> = known.peers().into_iter().map(|peer| peer.node).collect();
        let mut state = self.lock();
        state.limits = limits;
        for staged in store.staged_sagas() {
            let noted =
                |peer: &&NodeId| known.open_saga(peer, &staged.space).is_some_and(|open| open.saga == staged.saga);
            let peer = peers.iter().find(noted).copied();
            state.staged.insert(staged.saga, Staged { peer, space: staged.space, bytes: staged.bytes });
        }
    }

    /// The bounds.
    pub(crate) fn limits(&self) -> QuotaLimits {
        self.lock().limits
    }

    /// A saga begins, or goes on after a cut. `false`: one with this id is at work.
    #[must_use]
    pub(crate) fn begin(&self, store: &Store, saga: SagaId, peer: NodeId, space: SpaceId) -> bool {
        let (bytes, amended) = (store.staged_bytes(&saga), Amended::of(store, &space));
        let mut state = self.lock();
        if !state.running.insert(saga) {
            return false;
        }
        state.amended.insert(space, amended);
        state.staged.insert(saga, Staged { peer: Some(peer), space, bytes });
        true
    }

    /// A saga ended here. What it has staged counts on where it may go on.
    pub(crate) fn end(&self, store: &Store, saga: &SagaId) {
        let goes_on = store.saga_state(saga) == SagaState::Staged;
        let mut state = self.lock();
        state.running.remove(saga);
        if !goes_on {
            state.staged.remove(saga);
        }
    }

    /// Bytes that sagas of each peer have staged in a space.
    pub(crate) fn staged_in(&self, space: &SpaceId) -> BTreeMap<NodeId, u64> {
        let mut of_peers = BTreeMap::new();
        for staged in self.lock().staged.values().filter(|staged| staged.space == *space) {
            staged.peer.into_iter().for_each(|peer| *of_peers.entry(peer).or_default() += staged.bytes);
        }
        of_peers
    }

    fn sum(&self, counts: impl Fn(&Staged) -> bool) -> u64 {
        self.lock().staged.values().filter(|staged| counts(staged)).map(|staged| staged.bytes).sum()
    }

    /// Counts bytes that a saga is about to stage, or says which bound they do not fit into. Then nothing is counted.
    fn charge(&self, store: &Store, saga: &SagaId, bytes: u64) -> Result<(), (Quota, u64, u64)> {
        let Some(Staged { peer, space, .. }) = self.lock().staged.get(saga).copied() else {
            return Err((Quota::Saga, bytes, 0));
        };
        let bytes_of = |space: &SpaceId| store.view(space).and_then(|view| view.info()).map_or(0, |info| info.bytes);
        let held = peer.map_or(0, |peer| bytes_of(&held_space(&space, &peer)));
        let in_space = bytes_of(&space).saturating_add(held);
        let mut state = self.lock();
        let in_space = state.amended.get(&space).copied().unwrap_or_default().bytes(in_space);
        // Sagas that were cut, and ran out of time or were finished since, do not count any more.
        let limits = state.limits;
        let sums = |state: &State| {
            let sum = |counts: &dyn Fn(&SagaId, &Staged) -> bool| {
                let counted = state.staged.iter().filter(|(id, staged)| counts(id, staged));
                counted.map(|(_, staged)| staged.bytes).fold(bytes, u64::saturating_add)
            };
            let of_peer = sum(&|_, staged| staged.peer == peer).saturating_add(held);
            let of_space = sum(&|_, staged| staged.space == space).saturating_add(in_space);
            [
                (Quota::Saga, sum(&|id, _| id == saga), limits.saga),
                (Quota::Peer, of_peer, limits.peer),
                (Quota::Space, of_space, limits.space),
            ]
        };
        let over = |state: &State| sums(state).into_iter().find(|(_, would, max)| would > max);
        if over(&state).is_some() {
            let State { staged, running, .. } = &mut *state;
            staged.retain(|id, _| running.contains(id) || store.saga_state(id) == SagaState::Staged);
        }
        if let Some(over) = over(&state) {
            return Err(over);
        }
        if let Some(staged) = state.staged.get_mut(saga) {
            staged.bytes += bytes;
        }
        Ok(())
    }
}

impl<W: World> Engine<W> {
    /// Sets how much peers may bring. Without it there is no bound.
    pub fn set_quotas(&self, limits: QuotaLimits) {
        self.quotas().set(limits, self.store());
    }

    /// How much peers may bring.
    pub fn quota_limits(&self) -> QuotaLimits {
        self.quotas().limits()
    }

    /// Whether a saga is at work with a peer.
    pub(crate) fn is_at_work(&self, saga: &SagaId) -> bool {
        self.quotas().lock().running.contains(saga)
    }

    /// Bytes of a space: its records and the chunks that they list, without those that are not here.
    pub fn space_bytes(&self, space: &SpaceId) -> u64 {
        let told = self.store().view(space).and_then(|view| view.info()).map_or(0, |info| info.bytes);
        Amended::of(self.store(), space).bytes(told)
    }

    /// Bytes that `quota.space` still lets into a space, beside what sagas have staged for it.
    pub(crate) fn space_left(&self, space: &SpaceId) -> u64 {
        let staged = self.quotas().sum(|staged| staged.space == *space);
        self.quota_limits().space.saturating_sub(self.space_bytes(space)).saturating_sub(staged)
    }

    /// How many chunks of old releases in a space are not here: given up, or never came.
    pub fn absent_chunks(&self, space: &SpaceId) -> u64 {
        absent_chunks(self.store(), space, Absence::is_away).len() as u64
    }

    /// Bytes that sagas of each peer have staged in a space and not committed yet.
    pub fn staged_in(&self, space: &SpaceId) -> BTreeMap<NodeId, u64> {
        self.quotas().staged_in(space)
    }

    /// Counts what a saga is about to stage.
    pub(crate) fn charge(&self, saga: &SagaId, space: &SpaceId, bytes: u64) -> Result<(), OverQuota> {
        self.quotas().charge(self.store(), saga, bytes).map_err(|(quota, bytes, bytes_max)| {
            let space = self.known().label(space).map_or_else(|| space.to_string(), |label| label.name);
            OverQuota { quota, space, node: self.id(), bytes, bytes_max }
        })
    }
}

/// Bytes of the chunks that a space counts and that were given up here.
fn given_up_bytes(store: &Store, space: &SpaceId) -> u64 {
    absent_chunks(store, space, |absence| absence == Absence::GivenUp).values().map(|length| u64::from(*length)).sum()
}

/// Bytes of the chunks that are here and that nothing lists but records that they did not come with.
fn came_later_bytes(store: &Store, space: &SpaceId) -> u64 {
    let mut late = Known::of(store).absences(space);
    late.retain(|_, absence| *absence != Absence::GivenUp);
    let Some(view) = store.view(space).filter(|_| !late.is_empty()) else { return 0 };
    let mut lists: BTreeMap<ChunkHash, (u32, u64)> = BTreeMap::new();
    for chunk in late.keys().filter_map(|sid| view.record(sid)).flat_map(|record| Manifest::chunks_listed(&record)) {
        lists.entry(chunk.hash).or_insert((chunk.length, 0)).1 += 1;
    }
    let uncounted =
        |(hash, (_, late)): &(ChunkHash, (u32, u64))| store.holds_chunk(hash) && view.lists_of(hash) <= *late;
    lists.into_iter().filter(uncounted).map(|(_, (length, _))| u64::from(length)).sum()
}

/// The chunks of a space that are not here, with their lengths, of records that are away for such a reason.
fn absent_chunks(store: &Store, space: &SpaceId, counts: impl Fn(Absence) -> bool) -> BTreeMap<ChunkHash, u32> {
    let absences = Known::of(store).absences(space);
    let Some(view) = store.view(space).filter(|_| !absences.is_empty()) else { return BTreeMap::new() };
    let records = absences.iter().filter(|(_, absence)| counts(**absence)).filter_map(|(sid, _)| view.record(sid));
    let chunks = records.flat_map(|record| Manifest::chunks_listed(&record));
    let away = chunks.filter(|chunk| !store.holds_chunk(&chunk.hash));
    away.map(|chunk| (chunk.hash, chunk.length)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sealtide_ibgib::ChunkRef;
    use sealtide_store::mem::MemDisk;
    use sealtide_store::{Config, conformance};

    use super::*;

    const SPACE: SpaceId = SpaceId::from_bytes([1; 32]);
    const OTHER: SpaceId = SpaceId::from_bytes([2; 32]);

    fn store() -> Store {
        let store = Store::open(Arc::new(MemDisk::new(1)), Config::default()).unwrap();
        store.adopt_space(SPACE).unwrap();
        store.adopt_space(OTHER).unwrap();
        store
    }

    fn saga(number: u8) -> SagaId {
        SagaId([number; 32])
    }

    fn peer(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn note(store: &Store, record: &sealtide_ibgib::Verified, absence: Absence) {
        let known = Known::of(store);
        known.change_absences(&SPACE, |absences| absences.extend([(record.sid(), absence)])).unwrap();
    }

    fn limits(saga: u64, peer: u64, space: u64) -> QuotaLimits {
        QuotaLimits { saga, peer, space }
    }

    // Proves: SY-68
    #[test]
    fn a_saga_may_stage_so_much_and_others_go_on() {
        let (store, quotas) = (store(), Quotas::default());
        quotas.set(limits(100, u64::MAX, u64::MAX), &store);
        assert!(quotas.begin(&store, saga(1), peer(1), SPACE));
        assert!(quotas.begin(&store, saga(2), peer(1), OTHER));
        assert!(!quotas.begin(&store, saga(1), peer(2), OTHER), "an id is at work once");
        assert_eq!(quotas.charge(&store, &saga(1), 60), Ok(()));
        assert_eq!(quotas.charge(&store, &saga(1), 41), Err((Quota::Saga, 101, 100)));
        assert_eq!(quotas.charge(&store, &saga(1), 40), Ok(()), "what was refused does not count");
        assert_eq!(quotas.charge(&store, &saga(2), 100), Ok(()));
        quotas.end(&store, &saga(1));
        assert!(quotas.begin(&store, saga(3), peer(1), SPACE));
        assert_eq!(quotas.charge(&store, &saga(3), 100), Ok(()));
    }

    // Proves: SY-68
    #[test]
    fn the_sagas_of_one_peer_share_a_bound_and_other_peers_have_their_own() {
        let (store, quotas) = (store(), Quotas::default());
        quotas.set(limits(u64::MAX, 100, u64::MAX), &store);
        for (number, space) in [(1, SPACE), (2, OTHER)] {
            assert!(quotas.begin(&store, saga(number), peer(1), space));
        }
        assert!(quotas.begin(&store, saga(3), peer(2), SPACE));
        assert_eq!(quotas.charge(&store, &saga(1), 60), Ok(()));
        assert_eq!(quotas.charge(&store, &saga(2), 60), Err((Quota::Peer, 120, 100)));
        assert_eq!(quotas.charge(&store, &saga(3), 60), Ok(()));
        quotas.end(&store, &saga(1));
        assert_eq!(quotas.charge(&store, &saga(2), 60), Ok(()), "there is room again");
    }

    // Proves: SY-68
    #[test]
    fn what_a_space_holds_and_what_is_staged_for_it_share_a_bound() {
        let (store, quotas) = (store(), Quotas::default());
        let (chunks, manifest) = conformance::binary(1);
        chunks.iter().for_each(|(hash, content)| store.put_chunk(*hash, content).unwrap());
        store.commit(&SPACE, &conformance::local(vec![manifest])).unwrap();
        let held = store.view(&SPACE).unwrap().info().unwrap().bytes;
        assert!(held > 600 * 1024, "chunks count");
        quotas.set(limits(u64::MAX, u64::MAX, held + 100), &store);
        for number in [1, 2] {
            assert!(quotas.begin(&store, saga(number), peer(number), SPACE));
        }
        assert!(quotas.begin(&store, saga(3), peer(1), OTHER));
        assert_eq!(quotas.charge(&store, &saga(1), 60), Ok(()));
        assert_eq!(quotas.charge(&store, &saga(2), 60), Err((Quota::Space, held + 120, held + 100)));
        assert_eq!(quotas.charge(&store, &saga(3), 600), Ok(()), "another space has its own bound");
    }

    // Proves: SY-68
    #[test]
    fn what_is_held_of_a_peer_counts_for_it_and_for_the_space() {
        let (store, quotas) = (store(), Quotas::default());
        let aside = held_space(&SPACE, &peer(1));
        store.adopt_space(aside).unwrap();
        store.commit(&aside, &conformance::local(vec![conformance::stone_of("held")])).unwrap();
        let held = store.view(&aside).unwrap().info().unwrap().bytes;
        for (quota, limits) in [
            (Quota::Peer, limits(u64::MAX, held + 10, u64::MAX)),
            (Quota::Space, limits(u64::MAX, u64::MAX, held + 10)),
        ] {
            quotas.set(limits, &store);
            assert!(quotas.begin(&store, saga(1), peer(1), SPACE));
            assert_eq!(quotas.charge(&store, &saga(1), 11), Err((quota, held + 11, held + 10)));
            assert_eq!(quotas.charge(&store, &saga(1), 10), Ok(()));
            quotas.end(&store, &saga(1));
        }
        quotas.set(limits(u64::MAX, held + 10, u64::MAX), &store);
        for (number, from, space) in [(2, peer(2), SPACE), (3, peer(1), OTHER)] {
            assert!(quotas.begin(&store, saga(number), from, space));
            assert_eq!(quotas.charge(&store, &saga(number), held + 10), Ok(()), "of another peer, or another space");
            quotas.end(&store, &saga(number));
        }
    }

    // Proves: SY-68
    #[test]
    fn what_was_given_up_makes_room() {
        let wall_ms = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let clock = wall_ms.clone();
        let read = move || clock.load(std::sync::atomic::Ordering::Relaxed);
        let config = Config { wall_ms: Arc::new(read), garbage_bytes: 1, ..Config::default() };
        let store = Store::open(Arc::new(MemDisk::new(1)), config).unwrap();
        store.adopt_space(SPACE).unwrap();
        let (chunks, manifest) = conformance::binary(1);
        chunks.iter().for_each(|(hash, content)| store.put_chunk(*hash, content).unwrap());
        store.commit(&SPACE, &conformance::local(vec![manifest.clone()])).unwrap();
        let view = store.view(&SPACE).unwrap();
        let held = view.info().unwrap().bytes;
        let quotas = Quotas::default();
        quotas.set(limits(u64::MAX, u64::MAX, held), &store);
        assert!(quotas.begin(&store, saga(1), peer(1), SPACE));
        assert_eq!(quotas.charge(&store, &saga(1), 1), Err((Quota::Space, held + 1, held)));
        // What may be away and is here counts.
        note(&store, &manifest, Absence::GivenUp);
        assert_eq!(given_up_bytes(&store, &SPACE), 0);
        wall_ms.store(48 * 3600 * 1000, std::sync::atomic::Ordering::Relaxed);
        let mut given_up = sealtide_store::GivenUp::default();
        given_up.add(&view, &manifest);
        let freed = store.collect_with(&given_up).unwrap().bytes;
        quotas.end(&store, &saga(1));
        assert!(quotas.begin(&store, saga(1), peer(1), SPACE));
        assert_eq!(quotas.charge(&store, &saga(1), freed), Ok(()));
        assert_eq!(quotas.charge(&store, &saga(1), 1), Err((Quota::Space, held + 1, held)));
        // Chunks that never came were never counted.
        note(&store, &manifest, Absence::NeverCame);
        assert_eq!(given_up_bytes(&store, &SPACE), 0);
    }

    // Proves: SY-68
    #[test]
    fn what_came_later_than_its_record_counts_once() {
        let (store, quotas) = (store(), Quotas::default());
        let (chunks, manifest) = conformance::binary(1);
        store.stage(&SPACE, &saga(1), std::slice::from_ref(&manifest), &[]).unwrap();
        store.commit(&SPACE, &conformance::of_saga(saga(1))).unwrap();
        note(&store, &manifest, Absence::NeverCame);
        let told = store.view(&SPACE).unwrap().info().unwrap().bytes;
        quotas.set(limits(u64::MAX, u64::MAX, told), &store);
        assert!(quotas.begin(&store, saga(2), peer(1), SPACE));
        assert_eq!(quotas.charge(&store, &saga(2), 1), Err((Quota::Space, told + 1, told)));
        // Half of it, and then all.
        let mut here = told;
        for (at, (hash, content)) in chunks.iter().enumerate() {
            store.put_chunk(*hash, content).unwrap();
            here += content.len() as u64;
            note(&store, &manifest, if at == 0 { Absence::NeverCame } else { Absence::CameLater });
            quotas.set(limits(u64::MAX, u64::MAX, here), &store);
            quotas.end(&store, &saga(2));
            assert!(quotas.begin(&store, saga(2), peer(1), SPACE));
            assert_eq!(quotas.charge(&store, &saga(2), 1), Err((Quota::Space, here + 1, here)), "{at}");
        }
        assert_eq!(store.view(&SPACE).unwrap().info().unwrap().bytes, told);
        // What came with another record was counted with that one.
        let mut both: Vec<ChunkRef> = Vec::new();
        let (more, other) = conformance::binary(2);
        for (hash, content) in chunks.iter().take(1).chain(&more) {
            store.put_chunk(*hash, content).unwrap();
            both.push(ChunkRef { length: content.len() as u32, hash: *hash });
        }
        let size = both.iter().map(|chunk| u64::from(chunk.length)).sum();
        let shares = Manifest { size, hash: [7; 32], chunks: both }.records().pop().unwrap();
        store.commit(&OTHER, &conformance::local(vec![other.clone(), shares])).unwrap();
        let known = Known::of(&store);
        known.change_absences(&OTHER, |absences| absences.extend([(other.sid(), Absence::CameLater)])).unwrap();
        assert_eq!(Amended::of(&store, &OTHER), Amended::default());
    }

    // Proves: SY-68
    #[test]
    fn what_was_staged_counts_after_a_start_until_it_is_dropped() {
        let store = store();
        let note = conformance::stone_of("staged before");
        store.stage(&SPACE, &saga(1), std::slice::from_ref(&note), &[]).unwrap();
        let bytes = note.encoded().len() as u64;
        let quotas = Quotas::default();
        quotas.set(limits(u64::MAX, u64::MAX, bytes + 10), &store);
        assert!(quotas.begin(&store, saga(2), peer(1), SPACE));
        assert_eq!(quotas.charge(&store, &saga(2), 11), Err((Quota::Space, bytes + 11, bytes + 10)));
        store.abort(&saga(1)).unwrap();
        assert_eq!(quotas.charge(&store, &saga(2), 11), Ok(()));
        // The one that goes on after a cut begins with what it has.
        let again = Quotas::default();
        store.stage(&OTHER, &saga(3), &[note], &[]).unwrap();
        again.set(limits(bytes, u64::MAX, u64::MAX), &store);
        assert!(again.begin(&store, saga(3), peer(1), OTHER));
        assert_eq!(again.charge(&store, &saga(3), 1), Err((Quota::Saga, bytes + 1, bytes)));
    }

    #[test]
    fn the_refusal_says_what_to_do() {
        let over =
            OverQuota { quota: Quota::Space, space: "Notes".to_owned(), node: peer(1), bytes: 12, bytes_max: 10 };
        let text = over.to_string();
        for part in ["space Notes", "12 bytes of 10", "quota.space", "config set"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.len() <= 256, "{} bytes", text.len());
    }
}
