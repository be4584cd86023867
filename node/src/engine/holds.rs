//! What a peer brought and nobody here may vouch for: kept apart, listed, passed to nobody, until an admin decides or the
//! members change. Spec: ibgib §12.5; sync §13

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use sealtide_ibgib::{Address, Manifest, Sid, TimelineId, Verified, settle_tips};
use sealtide_identity::authorship::Tip;
use sealtide_identity::members::{MEMBERS_IB, counting};
use sealtide_identity::{NodeId, Role, SpaceId};
use sealtide_store::{CommitError, SpaceHandle, StoreError};
use sealtide_sync::{CommitRequest, CommitResult, SagaId, SpaceView};

use super::admission::{Batch, Given, Verdict};
use super::histories::Histories;
use super::members::{FETCH_ROUNDS, MembersRefused, founder_of, frames_of, members_timelines};
use super::room::{Held, Room, held_space};
use crate::engine::keystones::Connection;
use crate::engine::{Engine, Event};
use crate::world::World;

/// The peers of which something is held, and what was read of the space to judge that.
type Peers = BTreeMap<NodeId, Arc<Histories>>;

/// Who holds something, as far as anybody has looked.
#[derive(Default)]
pub(super) struct Holding {
    from: Mutex<Option<BTreeMap<SpaceId, Peers>>>,
    /// Held while what is held is judged anew.
    reviewing: Mutex<()>,
    /// The spaces that wait for that.
    due: Mutex<BTreeSet<SpaceId>>,
    /// Held while something is put aside, or what is aside goes: nothing is put where it is just taken away.
    moving: Mutex<()>,
    /// What was read of what lies aside, for the next saga with that peer: a saga, and each list of offers, compares sets with it.
    read: Mutex<BTreeMap<(SpaceId, NodeId), Arc<Held>>>,
}

/// What is held of a space from one peer.
#[derive(Clone, Debug)]
pub struct HeldFrom {
    /// Who brought it.
    pub peer: NodeId,
    /// The frames that somebody must vouch for: those that do not follow from rules. Those with the greatest counter last.
    pub frames: Vec<Verified>,
    /// All records, those that the frames refer to and commit stones included.
    pub records: usize,
}

/// The next frame of a timeline that puts what was in the space over what was held: from the tips before (none where the
/// timeline is new) and the tips after.
pub type Supersede<'a> = &'a dyn Fn(&[Verified], &[Verified]) -> Option<Verified>;

/// What lies aside and is no member of the space.
fn held_sids(aside: &SpaceHandle, view: &SpaceHandle) -> impl Iterator<Item = Sid> {
    aside.bulk(None, usize::MAX).into_iter().map(|(_, sid)| sid).filter(|sid| !view.contains(sid))
}

impl<W: World> Engine<W> {
    /// The space as a saga with this peer sees it. What is held from it is read once for all of them, unless it is very much.
    pub(crate) async fn room(&self, space: &SpaceId, peer: &NodeId) -> Option<Room> {
        let view = self.store().view(space)?;
        let Some(aside) = self.store().view(&held_space(space, peer)) else { return Some(Room::new(view, None)) };
        let known = self.held_read(|read| read.get(&(*space, *peer)).filter(|held| held.is_of(&aside)).cloned());
        let held = match known {
            Some(held) => held,
            None => {
                let space_view = view.clone();
                let reading = tokio::task::spawn_blocking(move || Arc::new(Held::of(aside, &space_view)));
                let held = reading.await.expect("reading what is held does not panic");
                self.held_read(|read| {
                    read.remove(&(*space, *peer));
                    if read.values().map(|held| held.len()).sum::<usize>() + held.len() <= READ_MAX {
                        read.insert((*space, *peer), held.clone());
                    }
                });
                held
            }
        };
        Some(Room::new(view, Some(held).filter(|held| held.is_any())))
    }

    fn held_read<T>(&self, look: impl FnOnce(&mut BTreeMap<(SpaceId, NodeId), Arc<Held>>) -> T) -> T {
        look(&mut self.0.holding.read.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets go of what was read of what is held from a peer whose session is over.
    pub(super) fn forget_read(&self, peer: &NodeId) {
        self.held_read(|read| read.retain(|(_, from), _| from != peer));
    }

    /// Commits what a saga brought. What is held of it goes aside first, so that no crash loses it.
    // Spec: SY-102
    pub(crate) async fn commit_received(
        &self,
        room: &Room,
        peer: NodeId,
        saga: SagaId,
        request: CommitRequest,
        connection: Option<Connection>,
    ) -> Result<CommitResult, CommitError> {
        let space = room.space().id();
        let verdict = self.judge_received(room, saga, &request, connection.as_ref()).await;
        let result = if verdict.held.is_empty() {
            self.world().commit(self.store(), space, request).await?
        } else {
            self.commit_part(room, peer, saga, request, &verdict.held).await?
        };
        if let Some(connection) = connection {
            let engine = self.clone();
            tokio::spawn(async move { engine.fetch_claims(space, connection).await });
        }
        Ok(result)
    }

    async fn judge_received(
        &self,
        room: &Room,
        saga: SagaId,
        request: &CommitRequest,
        connection: Option<&Connection>,
    ) -> Verdict {
        let mut asked: BTreeSet<Address> = BTreeSet::new();
        if self.members(&room.space().id()).is_none() {
            return Verdict::default();
        }
        let made: BTreeMap<Sid, Verified> =
            request.records.iter().map(|record| (record.sid(), record.clone())).collect();
        let made = Arc::new(made);
        let mut read = None;
        loop {
            let (engine, space, saga, made) = (self.clone(), room.space().clone(), saga, made.clone());
            let (staged, last) = (request.staged.clone(), read.take());
            let judging = tokio::task::spawn_blocking(move || {
                let Some(members) = engine.members(&space.id()) else { return (Verdict::default(), None) };
                let load = |sid: &Sid| made.get(sid).cloned().or_else(|| space.staged_record(&saga, sid));
                let mut batch = last.unwrap_or_else(|| {
                    let staged = staged.unwrap_or_else(|| space.staged(&saga));
                    let sids: Vec<Sid> = staged.into_iter().chain(made.keys().copied()).collect();
                    Batch::of(&Given { space: &space, load: &load }, &sids, &Histories::default())
                });
                let given = Given { space: &space, load: &load };
                let verdict = engine.judge_batch(&space.id(), &members, &given, &mut batch);
                (verdict, Some(batch))
            });
            let (verdict, batch) = judging.await.expect("judging does not panic");
            read = batch;
            let wanted: Vec<Address> = verdict.wanted.iter().filter(|first| !asked.contains(*first)).cloned().collect();
            match connection {
                Some(connection) if !wanted.is_empty() && asked.len() < FETCH_ROUNDS * WANTED_MAX => {
                    asked.extend(wanted.iter().cloned());
                    self.keystones().fetch(connection.clone(), wanted).await;
                }
                _ => return verdict,
            }
        }
    }

    /// Puts aside what is held and commits the rest.
    async fn commit_part(
        &self,
        room: &Room,
        peer: NodeId,
        saga: SagaId,
        request: CommitRequest,
        held: &BTreeSet<Sid>,
    ) -> Result<CommitResult, CommitError> {
        let space = room.space().id();
        let made = request.records.iter().filter(|record| held.contains(&record.sid())).cloned();
        let staged = held.iter().filter_map(|sid| room.staged_record(&saga, sid));
        let aside: Vec<Verified> = made.chain(staged).collect();
        let timelines: BTreeSet<TimelineId> =
            aside.iter().filter_map(Verified::frame_ref).map(|facts| facts.timeline).collect();
        tracing::warn!(%space, peer = peer.short(), frames = timelines.len(), "nobody who may write vouches for what came: it is held");
        let engine = self.clone();
        let kept = tokio::task::spawn_blocking(move || engine.put_aside(&space, &peer, aside)).await;
        kept.expect("the store does not panic")?;
        let moved = |timeline: &TimelineId| timelines.contains(timeline) || room.holds(timeline);
        let all = request.staged.unwrap_or_else(|| room.staged(&saga));
        let part = CommitRequest {
            saga: Some(saga),
            staged: Some(all.into_iter().filter(|sid| !held.contains(sid)).collect()),
            records: request.records.into_iter().filter(|record| !held.contains(&record.sid())).collect(),
            expected: request.expected.iter().filter(|(timeline, _)| !moved(timeline)).cloned().collect(),
            strict: request.strict,
        };
        let mut result = self.world().commit(self.store(), space, part).await?;
        // The tips of these timelines are other ones in the room than in the space: for the saga nothing moved meanwhile.
        for (timeline, before, _) in result.moved.iter_mut().filter(|(timeline, ..)| moved(timeline)) {
            if let Some((_, expected)) = request.expected.iter().find(|(expected, _)| expected == timeline) {
                before.clone_from(expected);
            }
        }
        self.emit(Event::Held { space, peer });
        // What came may vouch for what was held before.
        self.review_held_soon(space);
        Ok(result)
    }

    fn put_aside(&self, space: &SpaceId, peer: &NodeId, mut records: Vec<Verified>) -> Result<(), StoreError> {
        let aside = held_space(space, peer);
        let _alone = self.0.holding.moving.lock().unwrap_or_else(PoisonError::into_inner);
        if self.store().view(space).is_none() {
            // It was removed meanwhile: the commit that comes next fails, and nobody would ask for what is held.
            return Ok(());
        }
        self.store().adopt_space(aside)?;
        self.holding(|from| {
            from.entry(*space).or_default().entry(*peer).or_default();
        });
        records.sort_by_key(|record| record.frame_ref().map(|facts| facts.n));
        match self.commit_others(&aside, records) {
            Ok(_) => Ok(()),
            Err(CommitError::Store(error)) => Err(error),
            Err(_) => Err(StoreError::Failed),
        }
    }

    /// Commits records that others made.
    fn commit_others(&self, space: &SpaceId, records: Vec<Verified>) -> Result<CommitResult, CommitError> {
        let mut request = CommitRequest::local(records);
        self.stage_lacking(space, &mut request)?;
        let result = self.store().commit(space, &request);
        self.drop_if_failed(&request, &result);
        result
    }

    /// Forgets what [`Engine::stage_lacking`] staged where the commit did not come: nobody else knows of it.
    pub(super) fn drop_if_failed(&self, request: &CommitRequest, result: &Result<CommitResult, CommitError>) {
        if let (Some(saga), Err(_)) = (&request.saga, result)
            && let Err(error) = self.store().abort(saga)
        {
            tracing::warn!(%error, "what was staged of others is kept for some days");
        }
    }

    /// Takes the records that list chunks which are not here, as of an old release, out of a request and into a saga that it then commits
    /// too: a local change has all its chunks, what others made may go without.
    pub(super) fn stage_lacking(&self, space: &SpaceId, request: &mut CommitRequest) -> Result<(), StoreError> {
        let lacks = |record: &mut Verified| {
            Manifest::chunks_listed(record).iter().any(|it| !self.store().holds_chunk(&it.hash))
        };
        let lacking: Vec<Verified> = request.records.extract_if(.., lacks).collect();
        if !lacking.is_empty() {
            let saga = self.new_saga_id();
            self.store().stage(space, &saga, &lacking, &[])?;
            request.saga = Some(saga);
        }
        Ok(())
    }

    /// Looks at who holds something, or changes it.
    fn holding<T>(&self, look: impl FnOnce(&mut BTreeMap<SpaceId, Peers>) -> T) -> T {
        let mut from = self.0.holding.from.lock().unwrap_or_else(PoisonError::into_inner);
        look(from.get_or_insert_with(|| {
            let mut found: BTreeMap<SpaceId, Peers> = BTreeMap::new();
            for (space, _) in self.known().labels() {
                let peers = self.known().peers().into_iter().map(|peer| peer.node);
                let held = peers.filter(|peer| self.store().view(&held_space(&space, peer)).is_some());
                let held: Peers = held.map(|peer| (peer, Arc::default())).collect();
                if !held.is_empty() {
                    found.insert(space, held);
                }
            }
            found
        }))
    }

    /// The peers from which something of a space is held.
    fn peers_held(&self, space: &SpaceId) -> Vec<NodeId> {
        self.holding(|from| from.get(space).map(|peers| peers.keys().copied().collect())).unwrap_or_default()
    }

    /// Whether something of a space is held.
    pub fn holds(&self, space: &SpaceId) -> bool {
        self.holding(|from| from.contains_key(space))
    }

    /// What is held of a space, by the peer that brought it. Reads it all.
    pub fn held(&self, space: &SpaceId) -> Vec<HeldFrom> {
        let Some(view) = self.store().view(space) else { return Vec::new() };
        let held = self.held_records(space, &view);
        let by_rule = self.by_rule(space, &view, &held);
        let held = held.into_iter().map(|(peer, records)| {
            let count = records.len();
            let by_hand = |record: &Verified| record.frame_ref().is_some() && !by_rule.contains(record.address());
            let mut frames: Vec<Verified> = records.into_iter().filter(by_hand).collect();
            frames.sort_by_key(|frame| (frame.frame_ref().map(|facts| facts.n), frame.address().clone()));
            HeldFrom { peer, frames, records: count }
        });
        held.collect()
    }

    /// The frames of what is held that follow from rules, and need nobody's word: what only looks so is not among them.
    fn by_rule(&self, space: &SpaceId, view: &SpaceHandle, held: &[(NodeId, Vec<Verified>)]) -> BTreeSet<Address> {
        let by_rule = held.iter().flat_map(|(peer, records)| {
            let by_sid: BTreeMap<Sid, &Verified> = records.iter().map(|record| (record.sid(), record)).collect();
            let load = |sid: &Sid| by_sid.get(sid).copied().cloned();
            let sids: Vec<Sid> = by_sid.keys().copied().collect();
            let batch = self.batch_of_held(space, peer, &Given { space: view, load: &load }, &sids);
            let frames = records.iter().map(Verified::address).filter(|frame| batch.is_by_rule(frame));
            frames.cloned().collect::<Vec<Address>>()
        });
        by_rule.collect()
    }

    /// Reads what is held from a peer to judge it. What is read of the space for it, as of long files that it names, is read once.
    fn batch_of_held(&self, space: &SpaceId, peer: &NodeId, given: &Given<'_>, sids: &[Sid]) -> Batch {
        let before = self.holding(|from| from.get(space)?.get(peer).cloned()).unwrap_or_default();
        let mut batch = Batch::of(given, sids, &before);
        let read = batch.take_histories();
        tracing::debug!(%space, peer = peer.short(), versions = read.read, "what is held was looked at");
        self.holding(|from| {
            if let Some(before) = from.get_mut(space).and_then(|peers| peers.get_mut(peer)) {
                *before = Arc::new(read);
            }
        });
        batch
    }

    fn held_records(&self, space: &SpaceId, view: &SpaceHandle) -> Vec<(NodeId, Vec<Verified>)> {
        let peers = self.peers_held(space);
        let held = peers.into_iter().filter_map(|peer| {
            let aside = self.store().view(&held_space(space, &peer))?;
            let records = held_sids(&aside, view).filter_map(|sid| aside.record(&sid)).collect();
            Some((peer, records))
        });
        held.collect()
    }

    /// Forgets what is held from peers of which everything is in the space.
    fn forget_held(&self, space: &SpaceId, view: &SpaceHandle) {
        for peer in self.peers_held(space) {
            // A saga of the peer may put more aside meanwhile.
            let _alone = self.0.holding.moving.lock().unwrap_or_else(PoisonError::into_inner);
            let aside = self.store().view(&held_space(space, &peer));
            if aside.is_none_or(|aside| held_sids(&aside, view).next().is_none()) {
                self.held_read(|read| read.remove(&(*space, peer)));
                if let Err(error) = self.store().remove_space(&held_space(space, &peer)) {
                    tracing::warn!(%error, "what is not held any more could not be removed");
                    continue;
                }
                self.holding(|from| {
                    let left = from.get_mut(space).is_none_or(|peers| {
                        peers.remove(&peer);
                        peers.is_empty()
                    });
                    if left {
                        from.remove(space);
                    }
                });
            }
        }
    }

    /// Forgets all that is held of a space, as its space is forgotten.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn drop_held(&self, space: &SpaceId) -> Result<(), StoreError> {
        let _alone = self.0.holding.moving.lock().unwrap_or_else(PoisonError::into_inner);
        for peer in self.peers_held(space) {
            self.held_read(|read| read.remove(&(*space, peer)));
            self.store().remove_space(&held_space(space, &peer))?;
            self.holding(|from| from.get_mut(space).map(|peers| peers.remove(&peer)));
        }
        self.holding(|from| from.remove(space));
        Ok(())
    }

    /// Judges what is held anew: members may have changed, keystones come, or somebody vouched for it. Waits for the disk, unless
    /// another look is at work: that one looks at this space too before it ends.
    pub(crate) fn review_held(&self, space: &SpaceId) {
        if !self.holds(space) {
            return;
        }
        let due = || self.0.holding.due.lock().unwrap_or_else(PoisonError::into_inner);
        due().insert(*space);
        // Whoever asks while the last one lets go finds nobody at work, or is found.
        while !due().is_empty() {
            let Ok(_alone) = self.0.holding.reviewing.try_lock() else { return };
            loop {
                let Some(next) = due().pop_first() else { break };
                self.review_held_now(&next);
            }
        }
    }

    fn review_held_now(&self, space: &SpaceId) {
        let Some(view) = self.store().view(space) else { return };
        for (peer, records) in self.held_records(space, &view) {
            self.held_read(|read| {
                // Some of it came into the space since it was read.
                if read.get(&(*space, peer)).is_some_and(|held| held.len() != records.len()) {
                    read.remove(&(*space, peer));
                }
            });
            let Some(members) = self.members(space) else { return };
            let by_sid: BTreeMap<Sid, Verified> = records.into_iter().map(|record| (record.sid(), record)).collect();
            let sids: Vec<Sid> = by_sid.keys().copied().collect();
            let load = |sid: &Sid| by_sid.get(sid).cloned();
            let given = Given { space: &view, load: &load };
            let mut batch = self.batch_of_held(space, &peer, &given, &sids);
            let verdict = self.judge_batch(space, &members, &given, &mut batch);
            let records: Vec<Verified> = by_sid
                .iter()
                .filter(|(sid, _)| !verdict.held.contains(*sid))
                .map(|(_, record)| record.clone())
                .collect();
            if records.is_empty() {
                continue;
            }
            match self.commit_others(space, records) {
                Ok(result) => self.committed(*space, None, &result),
                Err(error) => tracing::warn!(%error, "what is not held any more could not be committed"),
            }
        }
        self.forget_held(space, &view);
    }

    /// As [`Engine::review_held`], from wherever a commit is told of.
    pub(super) fn review_held_soon(&self, space: SpaceId) {
        if !self.holds(&space) {
            return;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let engine = self.clone();
                drop(runtime.spawn_blocking(move || engine.review_held(&space)));
            }
            Err(_) => self.review_held(&space),
        }
    }

    /// How many versions of the space were read when what is held from a peer was looked at last.
    #[cfg(test)]
    pub(crate) fn versions_read(&self, space: &SpaceId, peer: &NodeId) -> Option<usize> {
        self.holding(|from| Some(from.get(space)?.get(peer)?.read))
    }

    /// What of these new records would be held, judged three times; `meanwhile` happens behind the first.
    #[cfg(test)]
    pub(crate) fn judged_again(
        &self,
        space: &SpaceId,
        sids: &[Sid],
        load: &dyn Fn(&Sid) -> Option<Verified>,
        meanwhile: &dyn Fn(),
    ) -> [BTreeSet<Sid>; 3] {
        let view = self.store().view(space).expect("the space is here");
        let given = Given { space: &view, load };
        let mut batch = Batch::of(&given, sids, &Histories::default());
        [0, 1, 2].map(|round| {
            let members = self.members(space).expect("a list of members");
            let held = self.judge_batch(space, &members, &given, &mut batch).held;
            if round == 0 {
                meanwhile();
            }
            held
        })
    }

    /// What of these new records would be held.
    #[cfg(test)]
    pub(crate) fn judged(
        &self,
        space: &SpaceId,
        sids: &[Sid],
        load: &dyn Fn(&Sid) -> Option<Verified>,
    ) -> BTreeSet<Sid> {
        let (members, view) = (self.members(space).expect("a list of members"), self.store().view(space));
        let view = view.expect("the space is here");
        let given = Given { space: &view, load };
        self.judge_batch(space, &members, &given, &mut Batch::of(&given, sids, &Histories::default())).held
    }

    /// Takes what is held into the space, as an admin: this node vouches for it. To reject it is to take it in, so that all
    /// nodes agree, with a newer frame over it. Members frames that do not count are left held; those that do, but on a branch of
    /// somebody who is no admin any more, are decided alike. Gives the number of frames that it vouches for.
    /// Waits for the disk.
    ///
    /// # Errors
    /// [`MembersRefused`].
    ///
    /// # Panics
    /// As [`Engine::change_members`].
    // Spec: SY-102
    pub fn take_held(&self, space: &SpaceId, supersede: Option<Supersede<'_>>) -> Result<usize, MembersRefused> {
        if self.role(&self.id(), space) != Some(Role::Admin) {
            return Err(MembersRefused::NotAdmin);
        }
        let view = self.store().view(space).ok_or(MembersRefused::None)?;
        let held = self.held_records(space, &view);
        // What follows from rules needs nobody's word; what only says so needs it.
        let by_rule = self.by_rule(space, &view, &held);
        let held = held.into_iter().flat_map(|(_, records)| records);
        let mut records: BTreeMap<Sid, Verified> = held.map(|record| (record.sid(), record)).collect();
        self.leave_out_members(space, &view, &mut records);
        let before = self.members(space).map(|members| members.newest.members.clone());
        let frames: BTreeMap<Address, Verified> = records
            .values()
            .filter(|record| record.frame_ref().is_some())
            .map(|frame| (frame.address().clone(), frame.clone()))
            .collect();
        let by_hand = frames.values().filter(|frame| !by_rule.contains(frame.address()));
        let vouched: Vec<Tip> =
            by_hand.map(|frame| Tip { sid: frame.sid(), address: frame.address().clone() }).collect();
        let count = vouched.len();
        let is_members = |frame: &Verified| frame.address().ib() == MEMBERS_IB;
        let lists_members = frames.values().any(is_members);
        let others: BTreeMap<Address, Verified> = frames
            .iter()
            .filter(|(_, frame)| !is_members(frame))
            .map(|(at, frame)| (at.clone(), frame.clone()))
            .collect();
        let over = supersede.map(|supersede| over(&view, &others, supersede)).unwrap_or_default();
        let records: Vec<Verified> = records.into_values().collect();
        if !records.is_empty() {
            let result = self.commit_vouching(*space, records, over, vouched);
            let result = result.map_err(|error| MembersRefused::Store(error.to_string()))?;
            self.committed(*space, None, &result);
            self.forget_held(space, &view);
        }
        if let Some(before) = before.filter(|_| supersede.is_some() && lists_members) {
            self.change_members(*space, |list| {
                let changed = *list != before;
                *list = before;
                changed
            })?;
        }
        Ok(count)
    }

    /// Leaves out members frames that do not count, which no admin can make count, and what leads to them.
    fn leave_out_members(&self, space: &SpaceId, view: &SpaceHandle, records: &mut BTreeMap<Sid, Verified>) {
        let held = records.values().filter(|record| record.address().ib() == MEMBERS_IB).cloned();
        let held: Vec<Verified> = held.collect();
        if held.is_empty() {
            return;
        }
        let mut all = frames_of(view, &members_timelines(view));
        all.extend(held.iter().cloned());
        let counted = match (self.keystones().chains(), founder_of(view)) {
            (Some(chains), Some(founder)) => counting(&all, *space, &founder, chains),
            _ => BTreeMap::new(),
        };
        let worthless = held.iter().map(|frame| frame.address().clone());
        leave_out(records, worthless.filter(|frame| !counted.contains_key(frame)).collect());
    }
}

/// Held records of which it stays in memory between sagas what was read, from all peers: one takes about 1.5 KB.
pub(crate) const READ_MAX: usize = if cfg!(test) { 16 } else { 131_072 };
/// Keystones that are asked for in one round before a commit.
const WANTED_MAX: usize = 64;

/// Leaves out these frames and what leads to them.
fn leave_out(records: &mut BTreeMap<Sid, Verified>, mut left_out: BTreeSet<Address>) {
    loop {
        let leads = |record: &Verified| record.relations().values().flatten().any(|link| left_out.contains(link));
        let more: Vec<Sid> = records
            .iter()
            .filter(|(_, record)| left_out.contains(record.address()) || leads(record))
            .map(|(sid, _)| *sid)
            .collect();
        if more.is_empty() {
            return;
        }
        left_out.extend(more.iter().filter_map(|sid| records.remove(sid)).map(|record| record.address().clone()));
    }
}

/// For each timeline of held frames the frame that puts what was in the space over them.
fn over(view: &SpaceHandle, held: &BTreeMap<Address, Verified>, supersede: Supersede<'_>) -> Vec<Verified> {
    let mut timelines: BTreeMap<TimelineId, Vec<Address>> = BTreeMap::new();
    for frame in held.values() {
        if let Some(facts) = frame.frame_ref() {
            timelines.entry(facts.timeline).or_default().push(frame.address().clone());
        }
    }
    let made = timelines.into_iter().filter_map(|(timeline, new)| {
        let load = |address: &Address| {
            held.get(address).cloned().or_else(|| view.by_address(address).first().and_then(|sid| view.record(sid)))
        };
        let known: Vec<Address> = view.tips(&timeline).into_iter().map(|tip| tip.tip).collect();
        let mut facts = |address: &Address| load(address)?.frame();
        let after = settle_tips(&known, &new, &mut facts);
        let records = |addresses: &[Address]| addresses.iter().filter_map(load).collect::<Vec<Verified>>();
        supersede(&records(&known), &records(&after))
    });
    made.collect()
}
