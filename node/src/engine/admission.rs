//! Which records that a peer brings become part of a space, and which are held until an admin decides. Spec: ibgib §12.5
//!
//! Only where a members frame counts. A frame is taken when a good commit stone of somebody who may write names it (or a
//! later frame that leads to it, see identity §7), or when it follows from rules; a members frame when it counts. What is
//! behind a removal, by the last commits that the members frame names, counts as written before it. Whatever leads to
//! something held is held too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealtide_crypto::PublicKey;
use sealtide_ibgib::{
    Address, FILE_IB, FileFrame, FrameFacts, MergeStrategy, Reader, Sid, TimelineId, Verified, merge_conflicts,
    merge_tips, path_rank, pick_shape, yield_frame,
};
use sealtide_identity::authorship::{COMMIT_IB, Commit, check_commit, read_commit};
use sealtide_identity::members::{MEMBERS_IB, Members, counting, devices_of, newest, poster};
use sealtide_identity::{Role, SpaceId};
use sealtide_store::SpaceHandle;
use sealtide_sync::SpaceView;

use super::histories::{Histories, Want, live_want, want_of};
use super::members::{SpaceMembers, founder_of, frames_of, members_timelines};
use crate::engine::Engine;
use crate::engine::authorship::{is_yield, tips_fit};
use crate::world::World;

/// New records: those that a saga brought, or that are held.
pub(super) struct Given<'a> {
    /// The space, without anything of them.
    pub(super) space: &'a SpaceHandle,
    pub(super) load: &'a dyn Fn(&Sid) -> Option<Verified>,
}

/// What comes of new records.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// What is held.
    pub(super) held: BTreeSet<Sid>,
    /// Keystones that would tell more.
    pub(super) wanted: BTreeSet<Address>,
}

struct NewFrame {
    sid: Sid,
    facts: FrameFacts,
    by_rule: Option<Rule>,
}

/// Why a frame needs nobody's word.
enum Rule {
    /// It is the merge of its parents.
    Merge,
    /// It ends a file in favour of another one, by any of these versions of that one: if none of them is taken, it stands for nothing.
    Yield(Arc<[Address]>),
}

struct NewStone {
    sid: Sid,
    says: Commit,
    /// Whether its signature holds and its tips are here; `None` while the key of its maker is not known.
    good: Option<bool>,
    /// What whoever made it may do.
    role: Option<Role>,
}

/// New records as far as they must be known to judge them. Reading them costs more than judging them, and more keystones
/// may come meanwhile: so they are read once, and judged as often as something new is known.
#[derive(Default)]
pub(super) struct Batch {
    frames: BTreeMap<Address, NewFrame>,
    stones: BTreeMap<Address, NewStone>,
    /// Everything else.
    others: BTreeMap<Address, BTreeSet<Sid>>,
    members: Vec<Verified>,
    /// What was read of the space to tell what follows from rules.
    histories: Histories,
    /// Members frames that are taken.
    members_taken: BTreeSet<Address>,
    wanted: BTreeSet<Address>,
}

impl<W: World> Engine<W> {
    /// Judges records that were read, by what is known now. A signature that was checked is not checked again.
    // Spec: SY-102
    pub(super) fn judge_batch(
        &self,
        space: &SpaceId,
        members: &SpaceMembers,
        given: &Given<'_>,
        batch: &mut Batch,
    ) -> Verdict {
        batch.members_taken.clear();
        batch.wanted.clear();
        let list = self.judge_members(space, members, given, batch);
        self.judge_stones(&list, given, batch);
        let (frames, stones) = batch.settle(given);
        if frames.is_empty() && stones.is_empty() {
            return Verdict::default();
        }
        let held = batch.with_what_belongs(given, &frames, &stones);
        // Who is whose device may be told by newer frames of owners.
        let owners = list.members.values().map(|member| &member.keystone);
        batch.wanted.extend(owners.filter(|keystone| self.keystones().node_key(keystone).is_none()).cloned());
        Verdict { held, wanted: std::mem::take(&mut batch.wanted) }
    }

    /// Finds the members frames that are taken; gives what the members are with them.
    ///
    /// A frame that goes on from the newest one here is taken when it counts. One on another branch counts only by an
    /// admin of today, by somebody who was never listed here, or when an admin of today vouches for it: who was removed
    /// cannot go back behind the removal without a person who says so.
    fn judge_members(&self, space: &SpaceId, members: &SpaceMembers, given: &Given<'_>, batch: &mut Batch) -> Members {
        let now = &members.newest;
        let (Some(chains), Some(founder)) = (self.keystones().chains(), founder_of(given.space)) else {
            return now.members.clone();
        };
        if batch.members.is_empty() {
            return now.members.clone();
        }
        let mut all = frames_of(given.space, &members_timelines(given.space));
        let mut known: BTreeSet<Address> = all.iter().map(|frame| frame.address().clone()).collect();
        all.extend(batch.members.iter().cloned());
        let counted = counting(&all, *space, &founder, chains);
        let mut onward = BTreeSet::from([now.frame.address().clone()]);
        for frame in &batch.members {
            let Some(facts) = frame.frame_ref() else { continue };
            let Some(before) = facts.past.first() else { continue };
            let mut parents = facts.past.iter().chain(&facts.orphans);
            if !counted.contains_key(frame.address()) {
                let admins = counted.get(before).into_iter().flat_map(Members::admins);
                for admin in admins {
                    batch.wanted.extend(devices_of(admin, chains));
                    batch.wanted.insert(admin.clone());
                }
                continue;
            }
            if !parents.clone().all(|parent| known.contains(parent)) {
                continue;
            }
            let goes_on = parents.any(|parent| onward.contains(parent));
            let by = counted.get(before).and_then(|before| poster(frame, before, chains));
            let trusted = |by: &Address| now.members.role(by) == Some(Role::Admin) || !members.named.contains(by);
            let vouched = || self.is_vouched_for(&now.members, &batch.stones, given, frame.address());
            if goes_on || !facts.orphans.is_empty() || by.as_ref().is_some_and(trusted) || vouched() {
                known.insert(frame.address().clone());
                batch.members_taken.insert(frame.address().clone());
                if goes_on {
                    onward.insert(frame.address().clone());
                }
            }
        }
        all.retain(|frame| known.contains(frame.address()));
        let counted = counting(&all, *space, &founder, chains);
        newest(&all, &counted).map_or_else(|| now.members.clone(), |newest| newest.members)
    }

    /// Whether a stone that came along, of an admin of today, names this frame.
    fn is_vouched_for(
        &self,
        list: &Members,
        stones: &BTreeMap<Address, NewStone>,
        given: &Given<'_>,
        frame: &Address,
    ) -> bool {
        stones.values().filter(|stone| stone.says.tips.contains(frame)).any(|stone| {
            let device = &stone.says.keystone;
            let key = self.keystones().node_key(device);
            let signed =
                key.zip((given.load)(&stone.sid)).is_some_and(|(key, record)| check_commit(&record, &key).is_ok());
            signed && self.role_of_device(list, device) == Some(Role::Admin)
        })
    }

    /// Looks whose the new commit stones are, and what they may do.
    fn judge_stones(&self, list: &Members, given: &Given<'_>, batch: &mut Batch) {
        let before_removal = batch.behind(list.last.values().flatten());
        let mut roles: BTreeMap<Address, Option<Role>> = BTreeMap::new();
        let mut judged = Vec::new();
        for (address, stone) in &batch.stones {
            let key = || self.keystones().node_key(&stone.says.keystone);
            let Some(good) = stone.good.or_else(|| key().map(|key| batch.is_good(given, stone, &key))) else {
                batch.wanted.insert(stone.says.keystone.clone());
                continue;
            };
            let device = stone.says.keystone.clone();
            let role = *roles.entry(device).or_insert_with_key(|device| self.role_of_device(list, device));
            let written = before_removal.contains(address).then_some(Role::Write);
            judged.push((address.clone(), good, role.max(written)));
        }
        for (address, good, role) in judged {
            if let Some(stone) = batch.stones.get_mut(&address) {
                (stone.good, stone.role) = (Some(good), role);
            }
        }
    }

    /// What a device may do: as the device of an owner, or by itself.
    fn role_of_device(&self, list: &Members, device: &Address) -> Option<Role> {
        let owners = list.members.values().filter(|member| self.keystones().delegates(&member.keystone, device));
        owners.map(|owner| owner.role).max().or_else(|| list.role(device))
    }
}

impl Batch {
    /// Reads records; `before` is what was read of the space for these same ones.
    pub(super) fn of(given: &Given<'_>, sids: &[Sid], before: &Histories) -> Self {
        let mut batch = Self::default();
        let (mut merges, mut yields) = (Vec::new(), Vec::new());
        for record in sids.iter().filter_map(given.load) {
            let (sid, address) = (record.sid(), record.address().clone());
            if let Some(facts) = record.frame_ref().cloned() {
                match facts.orphans.is_empty() {
                    false if merge_conflicts(&record).is_some() || is_yield(&record) => merges.push(address.clone()),
                    true if is_yield(&record) => yields.push(address.clone()),
                    _ => {}
                }
                if address.ib() == MEMBERS_IB {
                    batch.members.push(record);
                }
                batch.frames.insert(address, NewFrame { sid, facts, by_rule: None });
            } else if address.ib() == COMMIT_IB
                && let Some(says) = read_commit(&record)
            {
                batch.stones.insert(address, NewStone { sid, says, good: None, role: None });
            } else {
                batch.others.entry(address).or_default().insert(sid);
            }
        }
        batch.members.sort_by_key(|frame| (frame.frame_ref().map(|facts| facts.n), frame.address().clone()));
        for address in merges {
            let known = before.merges.get(&address).copied();
            let Some(is_merge) = known.or_else(|| batch.is_merge(given, &address)) else { continue };
            if let Some(frame) = batch.frames.get_mut(&address).filter(|_| is_merge) {
                frame.by_rule = Some(Rule::Merge);
            }
            batch.histories.merges.insert(address, is_merge);
        }
        batch.look_at_yields(given, before, &yields);
        batch
    }

    /// What was read of the space for these records.
    pub(super) fn take_histories(&mut self) -> Histories {
        std::mem::take(&mut self.histories)
    }

    /// Whether this frame follows from rules, as far as what is here tells.
    pub(super) fn is_by_rule(&self, frame: &Address) -> bool {
        self.frames.get(frame).is_some_and(|frame| frame.by_rule.is_some())
    }

    /// Whether the signature of a commit stone holds and its tips are here.
    fn is_good(&self, given: &Given<'_>, stone: &NewStone, key: &PublicKey) -> bool {
        (given.load)(&stone.sid).is_some_and(|record| check_commit(&record, key).is_ok())
            && tips_fit(&stone.says, &|address| self.sids_of(given, address).into_iter().collect())
    }

    /// Whether this frame is the merge of its parents, by one of the rules. Nobody can tell while something behind it is missing.
    fn is_merge(&self, given: &Given<'_>, address: &Address) -> Option<bool> {
        let mut misses = false;
        let mut load = |address: &Address| {
            let record = self.record(given, address);
            misses |= record.is_none();
            record
        };
        let frame = load(address)?;
        let facts = frame.frame_ref()?;
        let ([past], [orphan]) = (facts.past.as_slice(), facts.orphans.as_slice()) else { return Some(false) };
        let (left, right) = (load(past)?, load(orphan)?);
        let ours = |tip: &Address| MergeStrategy::Ours(tip.clone());
        let theirs = |tip: &Address| MergeStrategy::Theirs(tip.clone());
        let by_itself = [MergeStrategy::Optimistic, MergeStrategy::OneBase, MergeStrategy::Earlier];
        let mut ways = by_itself.into_iter().chain([ours(past), ours(orphan), theirs(past), theirs(orphan)]);
        let is_it = |way| merge_tips((&left, &right), &way, &mut load).is_ok_and(|made| made.address() == address);
        let is_merge = ways.any(is_it);
        (is_merge || !misses).then_some(is_merge)
    }

    /// Looks which of these yields follow from rules. Each owner is read once, however many of them name it.
    fn look_at_yields(&mut self, given: &Given<'_>, before: &Histories, yields: &[Address]) {
        let mut named: BTreeMap<Address, Vec<(&Address, Want)>> = BTreeMap::new();
        for address in yields {
            if let Some((owner, want)) = self.yields(given, address) {
                named.entry(owner).or_default().push((address, want));
            }
        }
        let mut new: BTreeMap<TimelineId, Vec<Sid>> = BTreeMap::new();
        if !named.is_empty() {
            for frame in self.frames.iter().filter(|(address, _)| address.ib() == FILE_IB).map(|(_, frame)| frame) {
                new.entry(frame.facts.timeline).or_default().push(frame.sid);
            }
        }
        for (owner, yields) in named {
            let wants: BTreeSet<Want> = yields.iter().map(|(_, want)| *want).collect();
            let here = self.histories.search(before, given.space, &owner, &wants);
            let mut by: BTreeMap<Want, Vec<Address>> = BTreeMap::new();
            let new = new.get(&owner.timeline_id()).filter(|_| here.len() < wants.len()).into_iter().flatten();
            for version in new.filter_map(|sid| (given.load)(sid)) {
                if let Some(want) = live_want(&version).filter(|want| wants.contains(want) && !here.contains_key(want))
                {
                    by.entry(want).or_default().push(version.address().clone());
                }
            }
            by.extend(here.into_iter().map(|(want, version)| (want, vec![version])));
            let by: BTreeMap<Want, Arc<[Address]>> = by.into_iter().map(|(want, by)| (want, by.into())).collect();
            for (address, want) in yields {
                if let Some(frame) = self.frames.get_mut(address) {
                    frame.by_rule = by.get(&want).cloned().map(Rule::Yield);
                }
            }
        }
    }

    /// The owner that this frame ends a file in favour of, where that one comes before the file, and what a version of it must want. Which
    /// of them was the newest when somebody looked nobody knows any more.
    fn yields(&self, given: &Given<'_>, address: &Address) -> Option<(Address, Want)> {
        let frame = self.record(given, address)?;
        let [past] = frame.frame_ref()?.past.as_slice() else { return None };
        let owner = FileFrame::read(&frame).ok()?.yielded?;
        let loser = self.record(given, past)?;
        if yield_frame(&loser, &owner).ok()?.address() != address {
            return None;
        }
        let first_ms = |address: &Address| {
            let facts = self.record(given, address)?.frame().filter(|facts| facts.tjp == *address)?;
            Some(facts.stamp.map_or(0, |stamp| stamp.ms))
        };
        let own = &loser.frame_ref()?.tjp;
        let theirs = path_rank(first_ms(&owner)?, &owner, owner.timeline_id());
        let comes_first = theirs < path_rank(first_ms(own)?, own, own.timeline_id());
        let want = want_of(&FileFrame::read(&loser).ok()?);
        comes_first.then_some((owner, want))
    }

    fn record(&self, given: &Given<'_>, address: &Address) -> Option<Verified> {
        let shapes: Vec<Verified> = self
            .sids_of(given, address)
            .iter()
            .filter_map(|sid| (given.load)(sid).or_else(|| given.space.record(sid)))
            .collect();
        pick_shape(Reader::Json, &shapes).cloned()
    }

    fn sids_of(&self, given: &Given<'_>, address: &Address) -> BTreeSet<Sid> {
        let frame = self.frames.get(address).map(|frame| frame.sid);
        let stone = self.stones.get(address).map(|stone| stone.sid);
        let others = self.others.get(address).into_iter().flatten().copied();
        frame.into_iter().chain(stone).chain(others).chain(given.space.by_address(address)).collect()
    }

    /// New commit stones that are one of these, or behind it.
    fn behind<'a>(&self, last: impl Iterator<Item = &'a Address>) -> BTreeSet<Address> {
        let mut behind = BTreeSet::new();
        for last in last {
            let mut next = Some(last.clone());
            while let Some((address, stone)) = next.and_then(|next| self.stones.get_key_value(&next)) {
                let new = behind.insert(address.clone());
                next = stone.says.prev.clone().filter(|_| new);
            }
        }
        behind
    }

    /// The commit stones that vouch for each frame: those that name it, or the next named frames that lead to it.
    fn covers(&self) -> BTreeMap<&Address, BTreeSet<&Address>> {
        let mut covers: BTreeMap<&Address, BTreeSet<&Address>> = BTreeMap::new();
        for (stone, says) in self.stones.iter().filter(|(_, stone)| stone.good == Some(true)) {
            for tip in &says.says.tips {
                covers.entry(tip).or_default().insert(stone);
            }
        }
        let named: BTreeSet<&Address> = covers.keys().copied().collect();
        let mut downward: Vec<(&Address, &NewFrame)> = self.frames.iter().collect();
        downward.sort_by_key(|(_, frame)| std::cmp::Reverse(frame.facts.n));
        for (address, frame) in downward {
            let ([before], []) = (frame.facts.past.as_slice(), frame.facts.orphans.as_slice()) else { continue };
            if !named.contains(before)
                && let Some((before, _)) = self.frames.get_key_value(before)
            {
                let stones = covers.get(address).cloned().unwrap_or_default();
                covers.entry(before).or_default().extend(stones);
            }
        }
        covers
    }

    /// The frames and commit stones that are held: those that nobody vouches for, and what leads to something held.
    fn settle(&self, given: &Given<'_>) -> (BTreeSet<Address>, BTreeSet<Address>) {
        let covers = self.covers();
        let here = |address: &Address| !given.space.by_address(address).is_empty();
        let (mut frames, mut stones) = (BTreeSet::new(), BTreeSet::new());
        let mut upward: Vec<(&Address, &NewFrame)> = self.frames.iter().collect();
        upward.sort_by_key(|(_, frame)| frame.facts.n);
        let mut in_turn: Vec<(&Address, &NewStone)> = self.stones.iter().collect();
        in_turn.sort_by_key(|(_, stone)| stone.says.seq);
        loop {
            let before = (frames.len(), stones.len());
            for (address, frame) in &upward {
                if frames.contains(*address) {
                    continue;
                }
                let mut parents = frame.facts.past.iter().chain(&frame.facts.orphans);
                let is_taken =
                    |other: &Address| here(other) || self.frames.contains_key(other) && !frames.contains(other);
                let rooted = parents.all(is_taken);
                let by_rule = match &frame.by_rule {
                    Some(Rule::Merge) => true,
                    Some(Rule::Yield(owner)) => owner.iter().any(is_taken),
                    None => false,
                };
                let least = if address.ib() == "space" { Role::Admin } else { Role::Write };
                let mut vouching = covers.get(*address).into_iter().flatten().filter(|stone| !stones.contains(**stone));
                let vouched = match address.ib() {
                    MEMBERS_IB => self.members_taken.contains(*address),
                    _ => by_rule || vouching.any(|stone| self.stones[*stone].role >= Some(least)),
                };
                if !rooted || !vouched {
                    frames.insert((*address).clone());
                }
            }
            for (address, stone) in &in_turn {
                let tip_ok = |tip: &Address| match self.frames.contains_key(tip) {
                    true => !frames.contains(tip),
                    false => here(tip),
                };
                let follows = stone.says.prev.as_ref().is_none_or(|prev| match self.stones.contains_key(prev) {
                    true => !stones.contains(prev),
                    false => here(prev),
                });
                if stone.good != Some(true) || !follows || !stone.says.tips.iter().all(tip_ok) {
                    stones.insert((*address).clone());
                }
            }
            if before == (frames.len(), stones.len()) {
                return (frames, stones);
            }
        }
    }

    /// Held frames and stones, and the records that only they refer to.
    fn with_what_belongs(
        &self,
        given: &Given<'_>,
        frames: &BTreeSet<Address>,
        stones: &BTreeSet<Address>,
    ) -> BTreeSet<Sid> {
        let reach = |of_held: bool| {
            let frames = self.frames.iter().filter(|(address, _)| frames.contains(*address) == of_held);
            let stones = self.stones.iter().filter(|(address, _)| stones.contains(*address) == of_held);
            let mut open: Vec<Sid> =
                frames.map(|(_, frame)| frame.sid).chain(stones.map(|(_, stone)| stone.sid)).collect();
            let mut reached: BTreeSet<Sid> = BTreeSet::new();
            while let Some(sid) = open.pop() {
                let Some(record) = (given.load)(&sid) else { continue };
                let links = record.relations().values().flatten();
                for sid in links.filter_map(|link| self.others.get(link)).flatten() {
                    if reached.insert(*sid) {
                        open.push(*sid);
                    }
                }
            }
            reached
        };
        let (taken, held) = (reach(false), reach(true));
        let mut all: BTreeSet<Sid> = held.difference(&taken).copied().collect();
        all.extend(frames.iter().filter_map(|address| self.frames.get(address)).map(|frame| frame.sid));
        all.extend(stones.iter().filter_map(|address| self.stones.get(address)).map(|stone| stone.sid));
        all
    }
}
