//! Who wrote what: the frames of every local commit are signed by commit stones, and the stones of all nodes tell whose
//! a frame is. Spec: ibgib §12.6

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealtide_crypto::{PublicKey, SigningKey};
use sealtide_ibgib::{Address, FILE_IB, FileFrame, FrameFacts, Sid, TimelineId, Verified, merge_conflicts};
use sealtide_identity::authorship::{
    Author, Authors, COMMIT_IB, Commit, Tip, check_commit, commit_stones, read_commit,
};
use sealtide_identity::{NodeId, SpaceId};
use sealtide_store::{CommitError, CreateError, SpaceHandle, StoreError};
use sealtide_sync::{CommitRequest, CommitResult, Fitting, SpaceView};
use tokio::sync::OwnedMutexGuard;

use crate::engine::Engine;
use crate::world::World;

/// Stones whose verdict is remembered.
const CHECKED_MAX: usize = 16_384;
/// Own stones that are looked at to find the newest: those in front of it are forged, since their signature is wrong.
const OWN_LOOKED_AT: usize = 4_096;
/// Records that may stand at one address beside each other and are tried in turn, all in all for one stone.
const SHAPES_TRIED: usize = 64;
/// Nodes of one space whose keys are looked for.
const SIGNERS_MAX: usize = 64;
/// Frames behind one frame that are looked at for the node that went on from it.
const LATER_LOOKED_AT: usize = 4_096;

/// What signs the commits of this node.
#[derive(Clone)]
pub struct CommitKey {
    /// The node key.
    pub key: Arc<SigningKey>,
    /// First frame of the device keystone, which carries it.
    pub keystone: Address,
}

/// Whose a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorship {
    /// A commit of this node names it, or the next named frame behind it.
    Verified(NodeId),
    /// Whoever it says; nothing proves it.
    Claimed,
    /// The rules made it of two versions; every node makes the same. What only looks so is in a space when somebody vouched for it.
    Merged,
}

/// What a commit stone is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoneVerdict {
    /// Its signature holds and its tips are those that were signed.
    Good,
    /// The device keystone that it names is not held here.
    Unknown,
    /// It is forged or damaged.
    Bad,
}

/// The newest own stone of a space: address and `seq`; the outer `None` while nobody has looked.
type Last = Option<Option<(Address, u64)>>;

/// What the engine remembers of stones.
#[derive(Default)]
pub(super) struct Stones {
    /// One lock for each space: a stone names the one before it, so commits follow one another.
    last: Mutex<BTreeMap<SpaceId, Arc<tokio::sync::Mutex<Last>>>>,
    /// Stones whose key is known: the commit, or nothing for a bad one.
    checked: Mutex<BTreeMap<Sid, Option<Arc<Commit>>>>,
    /// Nodes whose key is held.
    known: Mutex<BTreeSet<NodeId>>,
}

/// The turn of whoever commits to a space.
pub(super) struct Turn {
    space: SpaceId,
    last: OwnedMutexGuard<Last>,
}

impl Stones {
    fn slot(&self, space: &SpaceId) -> Arc<tokio::sync::Mutex<Last>> {
        lock(&self.last).entry(*space).or_default().clone()
    }
}

/// What a local commit signs: frames that this node made, without those that follow from rules alone, and of frames that
/// follow one another the last.
fn new_tips(records: &[Verified]) -> Vec<Tip> {
    let own =
        |record: &&Verified| record.frame_ref().is_some() && merge_conflicts(record).is_none() && !is_yield(record);
    let behind: BTreeSet<&Address> =
        records.iter().filter(own).filter_map(Verified::frame_ref).flat_map(|facts| &facts.past).collect();
    let tips = records.iter().filter(own).filter(|record| !behind.contains(record.address()));
    tips.map(|record| Tip { sid: record.sid(), address: record.address().clone() }).collect()
}

/// Whether a rule made this frame, so that every node makes the same.
pub(super) fn is_yield(record: &Verified) -> bool {
    let may_be =
        record.address().ib() == FILE_IB && record.data_text().is_some_and(|text| text.contains("\"yielded\""));
    may_be && FileFrame::read(record).is_ok_and(|frame| frame.yielded.is_some())
}

impl<W: World> Engine<W> {
    /// Makes a space of its first frame, signed like every local commit.
    ///
    /// # Errors
    /// As the store reports.
    pub fn create_space(&self, first: Verified) -> Result<SpaceId, CreateError> {
        self.create_space_with(first, Vec::new())
    }

    /// As [`Engine::create_space`], with more records of the same commit: the first members frame.
    ///
    /// # Errors
    /// As [`Engine::commit_local`].
    pub fn create_space_with(&self, first: Verified, more: Vec<Verified>) -> Result<SpaceId, CreateError> {
        let all: Vec<Verified> = std::iter::once(first.clone()).chain(more.iter().cloned()).collect();
        Fitting::check(None, &all).map_err(CommitError::from)?;
        let stones = self.stones_for(new_tips(&all), None);
        self.store().create_space_with(first, more.into_iter().chain(stones).collect())
    }

    /// Commits a local change and tells everybody. The frames of it are signed in the same commit. Whatever its records name is in the
    /// space, or among them: a first frame comes with, or before, the one that follows it.
    ///
    /// # Errors
    /// [`CommitError::Misfit`] for what no peer would take, and as the store reports; then nothing is committed.
    // Spec: SY-103
    pub async fn commit_local(&self, space: SpaceId, records: Vec<Verified>) -> Result<CommitResult, CommitError> {
        self.commit_if(space, records, None).await
    }

    /// As [`Engine::commit_local`], only where these timelines still have these tips, in whatever order: those that were read before, or
    /// none of a timeline that is not to be there. What somebody else wrote meanwhile is not overlooked.
    ///
    /// # Errors
    /// [`CommitError::TipMoved`] names the first that moved: read it again, and make the change on that. Others as
    /// [`Engine::commit_local`].
    pub async fn commit_local_if(
        &self,
        space: SpaceId,
        records: Vec<Verified>,
        expected: Vec<(TimelineId, Vec<Sid>)>,
    ) -> Result<CommitResult, CommitError> {
        self.commit_if(space, records, Some(expected)).await
    }

    async fn commit_if(
        &self,
        space: SpaceId,
        records: Vec<Verified>,
        expected: Option<Vec<(TimelineId, Vec<Sid>)>>,
    ) -> Result<CommitResult, CommitError> {
        let engine = self.clone();
        // In a task of its own: who asked may go away while the disk is at work, and a commit that nobody hears of
        // would stay here.
        let committed = tokio::spawn(async move {
            let slot = engine.stones().slot(&space);
            let mut last = slot.lock().await;
            engine.check_fits(&space, &records)?;
            let tips = new_tips(&records);
            let (request, next) = engine.signed(&space, records, tips, &mut last);
            let request = match expected {
                None => request,
                Some(expected) => CommitRequest::local_if(request.records, expected),
            };
            let result = engine.world().commit(engine.store(), space, request).await;
            *last = next.filter(|_| result.is_ok());
            drop(last);
            let result = result?;
            engine.committed(space, None, &result);
            Ok(result)
        });
        committed.await.expect("a commit neither panics nor is aborted")
    }

    /// As [`Engine::commit_local`], for the thread of a folder, which looks at the result before it tells.
    ///
    /// # Errors
    /// As the store reports.
    pub(crate) fn commit_in_thread(&self, space: SpaceId, records: Vec<Verified>) -> Result<CommitResult, CommitError> {
        self.commit_in_turn(self.turn_to_commit(&space), records)
    }

    /// As [`Engine::commit_in_thread`], with records of others, `others`, that this node vouches for: its stones name
    /// `vouched` too. Their own stones are among them, and they may list chunks that are not here.
    pub(super) fn commit_vouching(
        &self,
        space: SpaceId,
        others: Vec<Verified>,
        own: Vec<Verified>,
        vouched: Vec<Tip>,
    ) -> Result<CommitResult, CommitError> {
        let mut tips = if vouched.is_empty() { new_tips(&others) } else { vouched };
        tips.extend(new_tips(&own));
        let records = others.into_iter().chain(own).collect();
        self.commit_with(self.turn_to_commit(&space), records, tips, |request| self.stage_lacking(&space, request))
    }

    /// Waits until nobody else commits local changes to a space. Commits of one space have one order: a stone names the one before.
    ///
    /// # Panics
    /// When called from an asynchronous task.
    pub(super) fn turn_to_commit(&self, space: &SpaceId) -> Turn {
        Turn { space: *space, last: self.stones().slot(space).blocking_lock_owned() }
    }

    /// As [`Engine::commit_in_thread`], in a turn that was waited for before.
    pub(super) fn commit_in_turn(&self, turn: Turn, records: Vec<Verified>) -> Result<CommitResult, CommitError> {
        let tips = new_tips(&records);
        self.commit_with(turn, records, tips, |_| Ok(()))
    }

    /// Commits records with stones that name `tips`; `ready` makes the request ready.
    fn commit_with(
        &self,
        Turn { space, mut last }: Turn,
        records: Vec<Verified>,
        tips: Vec<Tip>,
        ready: impl FnOnce(&mut CommitRequest) -> Result<(), StoreError>,
    ) -> Result<CommitResult, CommitError> {
        self.check_fits(&space, &records)?;
        let (mut request, next) = self.signed(&space, records, tips, &mut last);
        let made_ready = ready(&mut request).map_err(CommitError::from);
        let result = made_ready.and_then(|()| self.store().commit(&space, &request));
        self.drop_if_failed(&request, &result);
        *last = next.filter(|_| result.is_ok());
        result
    }

    /// Whether peers would take the space with these records. Asked before they are signed: a log takes nothing back.
    fn check_fits(&self, space: &SpaceId, records: &[Verified]) -> Result<(), CommitError> {
        let view = self.store().view(space).ok_or(StoreError::NoSpace(*space))?;
        Fitting::check(Some(&view), records).map_err(|misfit| match self.store().health() {
            // What is missing may be there.
            Err(_) => StoreError::Failed.into(),
            Ok(()) => misfit.into(),
        })
    }

    /// The request of a local commit, and what the newest own stone is after it.
    fn signed(
        &self,
        space: &SpaceId,
        mut records: Vec<Verified>,
        tips: Vec<Tip>,
        last: &mut Last,
    ) -> (CommitRequest, Last) {
        // While the commit runs, and when it is dropped or fails, nothing is known.
        let before = last.take().unwrap_or_else(|| self.newest_own(space));
        let stones = self.stones_for(tips, before.as_ref());
        let newest = stones.last().and_then(|stone| Some((stone.address().clone(), read_commit(stone)?.seq)));
        records.extend(stones);
        let request = CommitRequest::local(records);
        (request, Some(newest.or(before)))
    }

    /// The stones of a batch; none in a node without identities.
    fn stones_for(&self, tips: Vec<Tip>, before: Option<&(Address, u64)>) -> Vec<Verified> {
        let Some(CommitKey { key, keystone }) = self.keystones().commit_key() else { return Vec::new() };
        let author = Author { key: &key, keystone: &keystone };
        let before = before.map(|(address, seq)| (address, *seq));
        let stones = commit_stones(&author, tips, self.world().now().wall_ms, before);
        stones.unwrap_or_else(|refusal| {
            // Only an address of half a megabyte does this: such a frame stays a claim.
            tracing::error!(%refusal, "a change could not be signed");
            Vec::new()
        })
    }

    /// The newest stone of this node in a space. What others forged in its name has no signature of its key.
    fn newest_own(&self, space: &SpaceId) -> Option<(Address, u64)> {
        let key = self.keystones().commit_key()?.key;
        let view = self.store().view(space)?;
        let stones = view.stones_by(&NodeId::of(key.public()), OWN_LOOKED_AT);
        stones.iter().filter_map(|sid| view.record(sid)).find_map(|stone| {
            let commit = check_commit(&stone, key.public()).ok()?;
            Some((stone.address().clone(), commit.seq))
        })
    }

    /// Nodes that commit stones of a space name and whose keys were not seen yet, with their newest stones.
    pub(super) fn new_signers(&self, space: &SpaceId) -> Vec<(NodeId, Sid)> {
        let mut makers = self.store().view(space).map(|view| view.stone_makers(SIGNERS_MAX)).unwrap_or_default();
        makers.retain(|(node, _)| !lock(&self.stones().known).contains(node));
        makers
    }

    /// The device keystones of these nodes that are not held here.
    pub(super) fn unknown_signers(&self, space: &SpaceId, makers: Vec<(NodeId, Sid)>) -> Vec<Address> {
        let Some(view) = self.store().view(space) else { return Vec::new() };
        let mut unknown = Vec::new();
        for (node, newest) in makers {
            let Some(says) = view.record(&newest).as_ref().and_then(read_commit) else { continue };
            match self.keystones().node_key(&says.keystone) {
                Some(key) if NodeId::of(&key) == node => drop(lock(&self.stones().known).insert(node)),
                Some(_) => {}
                None => unknown.push(says.keystone),
            }
        }
        unknown
    }

    /// Whose a frame of a space is.
    // Spec: SY-103
    pub fn authorship(&self, view: &SpaceHandle, frame: &Verified) -> Authorship {
        if merge_conflicts(frame).is_some() && self.commits_naming(view, frame.address()).is_empty() {
            return Authorship::Merged;
        }
        let Some(facts) = frame.frame_ref() else { return Authorship::Claimed };
        let mut authors = Authors::default();
        let mut commits: BTreeMap<(u64, Address), Arc<Commit>> = BTreeMap::new();
        let mut later: BTreeMap<Address, Vec<Address>> = BTreeMap::new();
        let mut open = vec![(frame.address().clone(), facts.n)];
        let mut met = BTreeSet::new();
        while let Some((address, n)) = open.pop() {
            if !met.insert(address.clone()) {
                continue;
            }
            let named = self.commits_naming(view, &address);
            if !named.is_empty() || met.len() > LATER_LOOKED_AT {
                commits.extend(named);
                continue;
            }
            let next = next_frames(view, facts, &address, n);
            open.extend(next.iter().map(|next| (next.clone(), n + 1)));
            later.insert(address, next);
        }
        commits.values().for_each(|commit| authors.add(commit));
        let by = authors.of(frame.address(), &mut |address| later.get(address).cloned().unwrap_or_default());
        by.map_or(Authorship::Claimed, Authorship::Verified)
    }

    /// The valid commits that name a frame, in the order that decides which was first.
    fn commits_naming(&self, view: &SpaceHandle, address: &Address) -> Vec<((u64, Address), Arc<Commit>)> {
        let stones = view.stones_naming(address).into_iter().filter_map(|sid| {
            let stone = view.record(&sid)?;
            let commit = self.commit(view, &stone).ok()?;
            commit.tips.contains(address).then(|| ((commit.at_ms, stone.address().clone()), commit))
        });
        stones.collect()
    }

    /// What a commit stone is worth.
    pub fn stone_verdict(&self, view: &SpaceHandle, stone: &Verified) -> StoneVerdict {
        self.commit(view, stone).map_or_else(|verdict| verdict, |_| StoneVerdict::Good)
    }

    fn commit(&self, view: &SpaceHandle, stone: &Verified) -> Result<Arc<Commit>, StoneVerdict> {
        if let Some(known) = lock(&self.stones().checked).get(&stone.sid()) {
            return known.clone().ok_or(StoneVerdict::Bad);
        }
        let says = read_commit(stone).ok_or(StoneVerdict::Bad)?;
        let key = self.keystones().node_key(&says.keystone).ok_or(StoneVerdict::Unknown)?;
        let commit = self.check(view, stone, &key).map(Arc::new);
        let mut checked = lock(&self.stones().checked);
        if checked.len() >= CHECKED_MAX {
            checked.clear();
        }
        checked.insert(stone.sid(), commit.clone());
        commit.ok_or(StoneVerdict::Bad)
    }

    fn check(&self, view: &SpaceHandle, stone: &Verified, key: &PublicKey) -> Option<Commit> {
        let commit = check_commit(stone, key).ok()?;
        let before = |address: &Address| {
            let before = view.records_at(address);
            before.iter().filter_map(read_commit).any(|before| before.by == commit.by && before.seq + 1 == commit.seq)
        };
        let follows = commit.prev.as_ref().is_none_or(before);
        (follows && tips_fit(&commit, &|tip| view.by_address(tip))).then_some(commit)
    }
}

/// Whether the tips that are here are those that were signed; `sids_of` gives the shapes of an address. It may hold
/// several; one fits.
pub(super) fn tips_fit(commit: &Commit, sids_of: &dyn Fn(&Address) -> Vec<Sid>) -> bool {
    let shapes: Vec<Vec<Sid>> = commit.tips.iter().map(sids_of).collect();
    let ways =
        shapes.iter().map(Vec::len).try_fold(1usize, |ways, count| ways.checked_mul(count)).unwrap_or(usize::MAX);
    (0..ways.min(SHAPES_TRIED)).any(|mut way| {
        let sids: Vec<Sid> = shapes
            .iter()
            .map(|shapes| {
                let at = way % shapes.len();
                way /= shapes.len();
                shapes[at]
            })
            .collect();
        commit.check_tips(&sids).is_ok()
    })
}

/// The frames that went on from one frame and from nothing else.
fn next_frames(view: &SpaceHandle, facts: &FrameFacts, address: &Address, n: u64) -> Vec<Address> {
    let sids = view.frames(&facts.timeline, n + 1, n + 1, LATER_LOOKED_AT);
    let frames = sids.iter().filter_map(|sid| view.record(sid));
    let next = frames.filter(|frame| {
        let goes_on =
            frame.frame_ref().is_some_and(|facts| facts.past == [address.clone()] && facts.orphans.is_empty());
        goes_on && merge_conflicts(frame).is_none()
    });
    next.map(|frame| frame.address().clone()).collect()
}

/// Whether a record is a commit stone by its name.
pub fn is_stone(record: &Verified) -> bool {
    record.address().ib() == COMMIT_IB && record.frame_ref().is_none()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
