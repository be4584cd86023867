//! Who may do what in a space: by its newest members frame that counts, and where it has none by the grants of this node.
//! Spec: ibgib §12.5

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data_encoding::HEXUPPER;
use sealtide_ibgib::{Address, Stamp, TimelineId, Verified, uuid};
use sealtide_identity::authorship::{check_commit, read_commit};
use sealtide_identity::keyring::write_time;
use sealtide_identity::members::{
    MEMBER_COUNT_MAX, MEMBER_NODES_MAX, MEMBERS_IB, Member, Members, Newest, counting, devices_of, may_post, newest,
};
use sealtide_identity::{Action, Grant, Invite, InviteId, NodeId, Role, SpaceId, allows};
use sealtide_store::SpaceHandle;
use sealtide_sync::{AbortCode, Refused, SpaceView};

use crate::engine::keystones::Connection;
use crate::engine::{Engine, Event};
use crate::world::World;

/// Frames of one members timeline that are looked at, the oldest first.
pub(crate) const FRAMES_MAX: usize = if cfg!(test) { 64 } else { 65_536 };
/// So many of them are left for the merges of what several admins change at once.
const FRAMES_SPARE: usize = FRAMES_MAX / 64;
/// Nodes of a space whose commits are looked for when somebody is removed.
const MAKERS_MAX: usize = 4_096;
/// Commits of one node that are looked at to find its newest.
const STONES_MAX: usize = 4_096;
/// How often a peer is asked for keystones before one goes on without: an owner, its device, and what came meanwhile.
pub(super) const FETCH_ROUNDS: usize = 4;

/// The members of one space.
#[derive(Clone, Debug)]
pub struct SpaceMembers {
    /// What the newest frames that count say.
    pub newest: Newest,
    /// Every keystone that a frame which counts ever listed.
    pub named: BTreeSet<Address>,
}

/// What is remembered of one space.
#[derive(Default)]
struct Known {
    /// Its members timelines: one, unless somebody made more. `None` while nobody has looked.
    timelines: Option<BTreeSet<TimelineId>>,
    /// What they say, as of this number of [`super::keystones::Keystones::news`].
    says: Option<(u64, Option<Arc<SpaceMembers>>)>,
}

/// What the engine remembers of members.
#[derive(Default)]
pub(super) struct Rolls {
    spaces: Mutex<BTreeMap<SpaceId, Known>>,
    /// Held while members are changed: each frame follows the newest.
    changing: Mutex<()>,
}

/// Why the members of a space are not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MembersRefused {
    /// The space goes by the grants of this node.
    #[error("this space has no list of members")]
    None,
    /// Only an admin changes members.
    #[error("only an admin of the space changes its members")]
    NotAdmin,
    /// Somebody has to stay.
    #[error("the last admin of a space stays")]
    LastAdmin,
    /// Every node would refuse the frame.
    #[error("it has {MEMBER_COUNT_MAX} members, the most that a space can have")]
    Full,
    /// No node would look at the frame: so many came before it.
    #[error("its list of members was changed {FRAMES_MAX} times, and nobody reads more changes")]
    Worn,
    /// The frame would be refused.
    #[error("the list of members cannot be written: {0}")]
    Record(String),
    /// Nothing was signed.
    #[error("{}", .0.text)]
    Sign(Refused),
    /// Nobody would count the frame: what the owner lets this device do had ended by the time that the device signs with.
    #[error(
        "this device signs with the time {signed}, and its owner does not let it post then: the change would not count"
    )]
    NotCounted {
        /// That time, RFC 3339. It is never earlier than that of the signature before: a clock that was ahead once leaves it ahead.
        signed: String,
    },
    /// It could not be written.
    #[error("the store: {0}")]
    Store(String),
}

impl<W: World> Engine<W> {
    /// The members of a space; `None` where no members frame counts here: then the grants of this node are the rule.
    pub fn members(&self, space: &SpaceId) -> Option<Arc<SpaceMembers>> {
        let chains = self.keystones().chains()?;
        let news = self.keystones().news();
        let timelines = {
            let mut known = lock(&self.0.rolls.spaces);
            let known = known.entry(*space).or_default();
            match &known.says {
                Some((as_of, says)) if *as_of == news => return says.clone(),
                _ => known.timelines.clone(),
            }
        };
        let view = self.store().view(space)?;
        let timelines = timelines.unwrap_or_else(|| members_timelines(&view));
        let frames = frames_of(&view, &timelines);
        let says = founder_of(&view).and_then(|founder| {
            let counted = counting(&frames, *space, &founder, chains);
            let named = counted.values().flat_map(|members| members.members.values());
            let named = named.map(|member| member.keystone.clone()).collect();
            Some(Arc::new(SpaceMembers { newest: newest(&frames, &counted)?, named }))
        });
        let mut known = lock(&self.0.rolls.spaces);
        let known = known.entry(*space).or_default();
        // A commit that came in between has cleared what is known, and knows of more timelines.
        if known.timelines.as_ref().is_none_or(|there| there.is_subset(&timelines)) {
            known.timelines = Some(timelines);
            known.says = Some((news, says.clone()));
        }
        says
    }

    /// The address of the newest members frame that counts, for OPEN and OPEN_ACK.
    pub(super) fn members_frame(&self, space: &SpaceId) -> Option<Address> {
        self.members(space).map(|members| members.newest.frame.address().clone())
    }

    /// What is granted to a node in a space.
    // Spec: SY-101
    pub fn grants_of(&self, node: &NodeId, space: &SpaceId) -> Vec<Grant> {
        let local: Vec<Grant> = self.known().grant(space, node).into_iter().collect();
        let Some(members) = self.members(space) else { return local };
        self.granted(node, space, &self.keystones().acts_as(node), &members, local)
    }

    /// The same, of what was read before: the keystones that the node acts as, the members, and what this node granted itself.
    fn granted(
        &self,
        node: &NodeId,
        space: &SpaceId,
        keystones: &[Address],
        members: &SpaceMembers,
        mut local: Vec<Grant>,
    ) -> Vec<Grant> {
        if let Some(member) = keystones.iter().find_map(|keystone| members.newest.members.member(keystone)) {
            let invite = local.first().and_then(|grant| grant.invite);
            return vec![Grant { space: *space, node: *node, role: member.role, since_ms: member.since_ms, invite }];
        }
        // Whoever was let in by an invite is a member as soon as the issuer wrote it down; the joiner itself waits for
        // the first frame that lists it.
        let unnamed = !keystones.iter().any(|keystone| members.named.contains(keystone));
        match *node == self.id() {
            true => local.retain(|_| unnamed),
            false => local.retain(|grant| grant.invite.is_some() && self.administers(members)),
        }
        local
    }

    /// All that is granted here: to this node and to those that it knows.
    pub fn grants(&self) -> Vec<Grant> {
        let mut nodes: BTreeSet<NodeId> = self.known().peers().iter().map(|peer| peer.node).collect();
        let mut local: BTreeMap<(SpaceId, NodeId), Vec<Grant>> = BTreeMap::new();
        for grant in self.known().grants() {
            nodes.insert(grant.node);
            local.entry((grant.space, grant.node)).or_default().push(grant);
        }
        nodes.insert(self.id());
        let nodes: Vec<(NodeId, Vec<Address>)> =
            nodes.into_iter().map(|node| (node, self.keystones().acts_as(&node))).collect();
        let mut grants = Vec::new();
        for (space, _) in self.known().labels() {
            let members = self.members(&space);
            for (node, keystones) in &nodes {
                let local = local.remove(&(space, *node)).unwrap_or_default();
                grants.extend(match &members {
                    None => local,
                    Some(members) => self.granted(node, &space, keystones, members, local),
                });
            }
        }
        grants
    }

    /// The role of a node in a space at this node.
    // Spec: SY-101
    pub fn role(&self, node: &NodeId, space: &SpaceId) -> Option<Role> {
        let grants = self.grants_of(node, space);
        [(Action::Invite, Role::Admin), (Action::MoveTips, Role::Write), (Action::Pull, Role::Read)]
            .into_iter()
            .find(|(action, _)| allows(&grants, node, space, *action))
            .map(|(_, role)| role)
    }

    fn administers(&self, members: &SpaceMembers) -> bool {
        let own = self.keystones().acts_as(&self.id());
        own.iter().find_map(|own| members.newest.members.role(own)) == Some(Role::Admin)
    }

    /// Keystones that the members of spaces shared with a peer name: it may have their frames.
    pub(super) fn named_for(&self, peer: &NodeId) -> BTreeSet<Address> {
        let spaces = self.known().labels().into_iter().map(|(space, _)| space);
        let shared = spaces.filter(|space| self.role(peer, space).is_some());
        shared.filter_map(|space| self.members(&space)).flat_map(|members| members.named.clone()).collect()
    }

    // --- what changes members ---

    /// The first members frame of a space that this node makes, claimed; `None` in a node that goes by no members. Waits
    /// for the disk.
    ///
    /// # Errors
    /// [`MembersRefused`]; a space without it would go by other rules than its maker thinks.
    pub fn first_members(&self, space: SpaceId) -> Result<Option<Verified>, MembersRefused> {
        let (Some(_), Some(own)) = (self.keystones().chains(), self.keystones().acts_as(&self.id()).into_iter().next())
        else {
            return Ok(None);
        };
        let now = self.world().now().wall_ms;
        let mut members = Members::new(space);
        members.insert(Member { keystone: own, nodes: [self.id()].into(), role: Role::Admin, since_ms: now });
        let frame = members
            .first_frame(Stamp { ms: now }, &uuid(&mut *self.world().entropy()))
            .map_err(|refusal| MembersRefused::Record(refusal.to_string()))?;
        self.keystones().post(frame.address()).map_err(MembersRefused::Sign)?;
        Ok(Some(frame))
    }

    /// Changes the members of a space by a frame after the newest, claimed by this node. `change` says whether there is
    /// anything to change. Waits for the disk.
    ///
    /// # Errors
    /// [`MembersRefused`].
    ///
    /// # Panics
    /// When called from an asynchronous task, before anything changed: `tokio::task::spawn_blocking` is the place for it.
    // Spec: SY-102
    pub fn change_members(
        &self,
        space: SpaceId,
        change: impl FnOnce(&mut Members) -> bool,
    ) -> Result<bool, MembersRefused> {
        let _alone = lock(&self.0.rolls.changing);
        // Taken before anything is posted, which stays in the keystone for good: who may not wait here learns it in time.
        let turn = self.turn_to_commit(&space);
        let members = self.members(&space).ok_or(MembersRefused::None)?;
        if !self.administers(&members) {
            return Err(MembersRefused::NotAdmin);
        }
        let Newest { frame, members: all, apart, merges } = members.newest.clone();
        // What the next frame changes is what the one before it says.
        let mut list = apart.clone().unwrap_or(all);
        if !change(&mut list) {
            return Ok(false);
        }
        if list.admins().next().is_none() {
            return Err(MembersRefused::LastAdmin);
        }
        // Lists that admins filled while they were apart have too many members together: whoever is added to one of them is none.
        let adds = |apart: &Members| list.members.keys().any(|gib| !apart.members.contains_key(gib));
        if list.members.len() > MEMBER_COUNT_MAX || apart.as_ref().is_some_and(adds) {
            return Err(MembersRefused::Full);
        }
        if self.is_worn(&space, &frame) {
            return Err(MembersRefused::Worn);
        }
        let stamp = Stamp { ms: self.world().now().wall_ms };
        let next = list.next_frame(&frame, stamp).map_err(|refusal| MembersRefused::Record(refusal.to_string()))?;
        Members::read(&next).map_err(|error| MembersRefused::Record(error.to_string()))?;
        self.may_post(&members.newest.members, stamp)?;
        self.keystones().post(next.address()).map_err(MembersRefused::Sign)?;
        let records = merges.into_iter().chain([next]).collect();
        let result = self.commit_in_turn(turn, records).map_err(|error| MembersRefused::Store(error.to_string()))?;
        self.committed(space, None, &result);
        Ok(true)
    }

    /// Whether a frame behind this one, and merges before it, may not be looked at.
    fn is_worn(&self, space: &SpaceId, newest: &Verified) -> bool {
        let (view, facts) = (self.store().view(space), newest.frame_ref());
        let frames =
            view.zip(facts).map_or(0, |(view, facts)| view.frames(&facts.timeline, 0, u64::MAX, FRAMES_MAX).len());
        frames + FRAMES_SPARE >= FRAMES_MAX
    }

    /// Whether an invite into a space can make this peer a member, or anybody: it is one, or there is room for one more. Of a peer that
    /// proved no keystones here nobody can tell: it may be one more device of a member. [`Engine::enter_invited`] decides then.
    ///
    /// # Errors
    /// [`MembersRefused::Full`], [`MembersRefused::Worn`].
    pub(crate) fn room_for(&self, space: &SpaceId, peer: Option<&NodeId>) -> Result<(), MembersRefused> {
        let Some(members) = self.members(space) else { return Ok(()) };
        let Newest { frame, members: list, apart, .. } = &members.newest;
        if peer.is_some_and(|peer| self.is_listed(peer, list) || self.keystones().acts_as(peer).is_empty()) {
            return Ok(());
        }
        if list.members.len() >= MEMBER_COUNT_MAX || apart.is_some() {
            return Err(MembersRefused::Full);
        }
        if self.is_worn(space, frame) { Err(MembersRefused::Worn) } else { Ok(()) }
    }

    fn is_listed(&self, peer: &NodeId, list: &Members) -> bool {
        self.keystones().acts_as(peer).iter().any(|keystone| list.member(keystone).is_some())
    }

    /// Whether others would count a frame that this node posted now. Asked before: what is posted stays in the keystone for good.
    fn may_post(&self, before: &Members, stamp: Stamp) -> Result<(), MembersRefused> {
        let chains = self.keystones().chains().ok_or(MembersRefused::None)?;
        let device = self.keystones().acts_as(&self.id()).into_iter().next_back().ok_or(MembersRefused::None)?;
        may_post(before, &device, stamp, chains)
            .map_err(|signed| MembersRefused::NotCounted { signed: write_time(signed.ms) })
    }

    /// Whether invites let this peer into spaces with members, and no members frame says so yet.
    pub(super) fn is_to_be_entered(&self, peer: &NodeId) -> bool {
        self.known().grants().iter().any(|grant| self.may_enter(peer, grant))
    }

    fn may_enter(&self, peer: &NodeId, grant: &Grant) -> bool {
        let to_enter = grant.node == *peer && grant.invite.is_some();
        to_enter && self.members(&grant.space).is_some_and(|members| self.administers(&members))
    }

    /// Makes a peer that came with an invite and proved its keystones a member, as its owner where it named one. The grant
    /// of the invite is spent by it. Waits for the disk.
    ///
    /// Where a space can have no more members the grant is taken back, for what came by it would count nowhere else; but a device for
    /// which the owner here is to speak keeps it until then, and needs no place of its own.
    ///
    /// # Errors
    /// When the invite lets in nowhere else: it has its use again.
    pub(crate) fn enter_invited(&self, peer: &NodeId) -> Result<(), Refused> {
        let mut not_entered = Vec::new();
        for grant in self.known().grants().iter().filter(|grant| self.may_enter(peer, grant)) {
            let Some(keystone) = self.keystones().acts_as(peer).into_iter().next() else { break };
            let entered = self.change_members(grant.space, |list| {
                let there = list.member(&keystone).cloned();
                let mut member = there.clone().unwrap_or(Member {
                    keystone,
                    nodes: BTreeSet::new(),
                    role: grant.role,
                    since_ms: grant.since_ms,
                });
                member.role = member.role.max(grant.role);
                // More nodes of one owner are members as much: these are only the names by which it is known.
                if member.nodes.len() < MEMBER_NODES_MAX {
                    member.nodes.insert(*peer);
                }
                list.insert(member.clone());
                there != Some(member)
            });
            // What was entered on one of two lists that no merge brings together counts nowhere yet.
            match entered.and_then(|_| self.room_for(&grant.space, Some(peer))) {
                Ok(()) => drop(self.store().facts().remove_grant(&grant.space, peer)),
                Err(error @ (MembersRefused::Full | MembersRefused::Worn | MembersRefused::Record(_))) => {
                    if self.awaits_own_owner(peer, &grant.space) {
                        continue;
                    }
                    let label = self.known().label(&grant.space).map_or_else(String::new, |label| label.name);
                    let text = format!("space {label} takes nobody in: {error}");
                    tracing::warn!(peer = peer.short(), text, "an invited node could not be made a member");
                    not_entered.push((grant.clone(), Refused { code: AbortCode::Limit, text }));
                }
                Err(error) => tracing::warn!(%error, peer = peer.short(), "an invited node could not be made a member"),
            }
        }
        let spaces: Vec<SpaceId> = not_entered.iter().map(|(grant, _)| grant.space).collect();
        let mut refused = None;
        for (grant, why) in not_entered {
            // A member, to whom the invite would have given more; and a device goes on where else it was let in.
            let is_in = |space: &SpaceId| match spaces.contains(space) {
                true => self.members(space).is_some_and(|members| self.is_listed(peer, &members.newest.members)),
                false => self.role(peer, space).is_some(),
            };
            let invite = grant.invite.unwrap_or_default();
            let stays = self.opened_by(&invite, grant.space).iter().any(is_in);
            let taken_back = match stays {
                true => self.store().facts().remove_grant(&grant.space, peer).map(drop),
                false => self.known().unenrol(&grant),
            };
            if let Err(error) = taken_back {
                tracing::error!(%error, peer = peer.short(), "what an invite granted could not be taken back");
            }
            refused = Some(why).filter(|_| !stays).or(refused);
        }
        self.grants_changed();
        refused.map_or(Ok(()), Err)
    }

    /// Whether a device needs no place of its own in a space: the owner here is a member, and delegates the device or is about to.
    fn awaits_own_owner(&self, device: &NodeId, space: &SpaceId) -> bool {
        let (own, keystones) = (self.keystones().acts_as(&self.id()), self.keystones().acts_as(device));
        let [owner, _device] = &own[..] else { return false };
        let is_member = self.members(space).is_some_and(|members| members.newest.members.member(owner).is_some());
        let is_delegated = || keystones.iter().any(|keystone| self.keystones().delegates(owner, keystone));
        is_member && (self.known().awaits_owner(device) || is_delegated())
    }

    /// What an invite into a space opens: that one, or all where it is for a device.
    fn opened_by(&self, invite: &InviteId, space: SpaceId) -> Vec<SpaceId> {
        match self.known().is_device_invite(invite) {
            true => self.known().labels().into_iter().map(|(space, _)| space).collect(),
            false => vec![space],
        }
    }

    /// Whether a node has a role in what an invite opens.
    pub(crate) fn is_in_by(&self, invite: &Invite, node: &NodeId) -> bool {
        self.opened_by(&invite.id, invite.space).iter().any(|space| self.role(node, space).is_some())
    }

    /// Lists the owner of this node as an admin of every space that its device administers without it: those that were made before
    /// the owner was, which its recovery words would not give back. Gives the spaces that changed. Waits for the disk.
    ///
    /// # Panics
    /// As [`Engine::change_members`].
    pub fn enter_owner(&self) -> Vec<SpaceId> {
        let (here, mut entered) = (self.id(), Vec::new());
        let [owner, _device] = &self.keystones().acts_as(&here)[..] else { return entered };
        for (space, _) in self.known().labels() {
            let administers =
                |it: &Arc<SpaceMembers>| it.newest.members.member(owner).is_none() && self.administers(it);
            if !self.members(&space).as_ref().is_some_and(administers) {
                continue;
            }
            let since_ms = self.world().now().wall_ms;
            let member = Member { keystone: owner.clone(), nodes: [here].into(), role: Role::Admin, since_ms };
            match self.change_members(space, |list| {
                list.insert(member);
                true
            }) {
                Ok(_) => entered.push(space),
                Err(error) => tracing::warn!(%error, space = space.short(), "the owner is not an admin of a space yet"),
            }
        }
        entered
    }

    /// Takes a node's keystones, that of its owner included, out of every space that this node administers. What they
    /// wrote and is here counts from then on as written before. Waits for the disk.
    ///
    /// # Errors
    /// [`MembersRefused`].
    ///
    /// # Panics
    /// As [`Engine::change_members`].
    // Spec: SY-102
    pub fn remove_member(&self, node: &NodeId) -> Result<Vec<SpaceId>, MembersRefused> {
        let (mut removed, mut failed) = (Vec::new(), None);
        for (space, _) in self.known().labels() {
            let Some(members) = self.members(&space).filter(|members| self.administers(members)) else { continue };
            let mut keystones: BTreeSet<Address> = self.keystones().acts_as(node).into_iter().collect();
            let listed = members.newest.members.members.values().filter(|member| member.nodes.contains(node));
            keystones.extend(listed.map(|member| member.keystone.clone()));
            let last: Vec<(Address, BTreeSet<Address>)> = keystones
                .into_iter()
                .map(|keystone| (keystone.clone(), self.last_commits(&space, &keystone)))
                .collect();
            let own = self.keystones().acts_as(&self.id());
            let changed = self.change_members(space, |list| {
                // Nobody throws himself out by the name of a device of his own.
                let others = last.into_iter().filter(|(keystone, _)| !own.contains(keystone));
                others.fold(false, |changed, (keystone, last)| list.remove(&keystone, last) || changed)
            });
            match changed {
                Ok(changed) => removed.extend(changed.then_some(space)),
                // One space that cannot be changed keeps nobody in the others.
                Err(error) => {
                    tracing::warn!(%error, space = space.short(), "a node could not be taken out of the members");
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(removed), Err)
    }

    /// The newest good commit stones here of the nodes of a keystone.
    fn last_commits(&self, space: &SpaceId, keystone: &Address) -> BTreeSet<Address> {
        let (Some(view), Some(chains)) = (self.store().view(space), self.keystones().chains()) else {
            return BTreeSet::new();
        };
        let devices = devices_of(keystone, chains);
        let newest = view.stone_makers(MAKERS_MAX).into_iter().filter_map(|(node, _)| {
            view.stones_by(&node, STONES_MAX).iter().filter_map(|sid| view.record(sid)).find_map(|stone| {
                let says = read_commit(&stone)
                    .filter(|says| says.keystone == *keystone || devices.contains(&says.keystone))?;
                let key = self.keystones().node_key(&says.keystone)?;
                check_commit(&stone, &key).ok().map(|_| stone.address().clone())
            })
        });
        newest.collect()
    }

    // --- when something moved ---

    /// Looks whether a commit moved a members timeline; then who may do what is looked at again at once.
    pub(super) fn look_at_members(&self, space: &SpaceId, moved: impl Iterator<Item = TimelineId>) {
        if self.keystones().chains().is_none() {
            return;
        }
        let Some(view) = self.store().view(space) else { return };
        // There are few members timelines, and a large saga moves very many others.
        let of_members: BTreeSet<TimelineId> = view.timelines_of(MEMBERS_IB).iter().map(|info| info.timeline).collect();
        let moved: BTreeSet<TimelineId> = moved.filter(|timeline| of_members.contains(timeline)).collect();
        if moved.is_empty() {
            return;
        }
        let before = {
            let mut known = lock(&self.0.rolls.spaces);
            let known = known.entry(*space).or_default();
            if let Some(timelines) = &mut known.timelines {
                timelines.extend(moved);
            }
            known.says.take().and_then(|(_, says)| says)
        };
        self.members_moved(space, before);
    }

    /// Keystones changed: members frames may count that did not, or not any more. Waits for the disk.
    pub(super) fn look_at_claims(&self) {
        if self.keystones().chains().is_none() {
            return;
        }
        let news = self.keystones().news();
        let stale: Vec<(SpaceId, Option<Arc<SpaceMembers>>)> = lock(&self.0.rolls.spaces)
            .iter()
            .filter_map(|(space, known)| known.says.as_ref().map(|says| (space, says)))
            .filter(|(_, (as_of, _))| *as_of != news)
            .map(|(space, (_, says))| (*space, says.clone()))
            .collect();
        for (space, before) in stale {
            self.members_moved(&space, before);
            self.review_held(&space);
        }
    }

    /// The space is not here any more: who its members were is no news about anybody.
    pub(crate) fn forget_members(&self, space: &SpaceId) {
        lock(&self.0.rolls.spaces).remove(space);
    }

    fn members_moved(&self, space: &SpaceId, before: Option<Arc<SpaceMembers>>) {
        if self.store().view(space).is_none() {
            return self.forget_members(space);
        }
        let after = self.members(space);
        let list = |members: &Option<Arc<SpaceMembers>>| members.as_ref().map(|members| members.newest.members.clone());
        if list(&before) == list(&after) {
            return;
        }
        self.grants_changed();
        let Some(before) = before else { return };
        for (peer, _) in self.peers() {
            let keystones = self.keystones().acts_as(&peer);
            let was = keystones.iter().any(|keystone| before.newest.members.role(keystone).is_some());
            if was && self.role(&peer, space).is_none() {
                self.emit(Event::MemberRemoved { space: *space, peer });
            }
        }
    }

    /// Asks a peer for the keystones that claims on members frames may stand in, where some do not count here.
    pub(super) async fn fetch_claims(&self, space: SpaceId, connection: Connection) {
        for _ in 0..FETCH_ROUNDS {
            let engine = self.clone();
            let wanted =
                tokio::task::spawn_blocking(move || engine.claims_wanted(&space, &[])).await.unwrap_or_default();
            if wanted.is_empty() {
                return;
            }
            self.keystones().fetch(connection.clone(), wanted).await;
            let engine = self.clone();
            let _ = tokio::task::spawn_blocking(move || engine.look_at_claims()).await;
        }
    }

    /// The keystones that may have posted members frames which do not count: admins of the frame before and their devices.
    pub(super) fn claims_wanted(&self, space: &SpaceId, more: &[Verified]) -> Vec<Address> {
        let (Some(view), Some(chains)) = (self.store().view(space), self.keystones().chains()) else {
            return Vec::new();
        };
        let mut frames = frames_of(&view, &members_timelines_known(self, space, &view));
        frames.extend(more.iter().cloned());
        let Some(founder) = founder_of(&view) else { return Vec::new() };
        let counted = counting(&frames, *space, &founder, chains);
        let mut wanted = BTreeSet::new();
        for frame in frames.iter().filter(|frame| !counted.contains_key(frame.address())) {
            let Some(facts) = frame.frame_ref() else { continue };
            let admins: Vec<Address> = match facts.past.as_slice() {
                [] => Members::read(frame).map(|members| members.admins().cloned().collect()).unwrap_or_default(),
                [before, ..] => {
                    counted.get(before).map(|before| before.admins().cloned().collect()).unwrap_or_default()
                }
            };
            for admin in admins {
                wanted.extend(devices_of(&admin, chains));
                wanted.insert(admin);
            }
        }
        let own: Vec<Address> = self.keystones().acts_as(&self.id());
        wanted.into_iter().filter(|keystone| !own.contains(keystone)).collect()
    }
}

/// The members timelines of a space: one, unless somebody made more.
pub(super) fn members_timelines(view: &SpaceHandle) -> BTreeSet<TimelineId> {
    view.timelines_of(MEMBERS_IB).into_iter().map(|info| info.timeline).collect()
}

fn members_timelines_known<W: World>(engine: &Engine<W>, space: &SpaceId, view: &SpaceHandle) -> BTreeSet<TimelineId> {
    let known = lock(&engine.0.rolls.spaces).get(space).and_then(|known| known.timelines.clone());
    known.unwrap_or_else(|| members_timelines(view))
}

/// Every frame of these timelines.
pub(super) fn frames_of(view: &SpaceHandle, timelines: &BTreeSet<TimelineId>) -> Vec<Verified> {
    let sids = timelines.iter().flat_map(|timeline| view.frames(timeline, 0, u64::MAX, FRAMES_MAX));
    sids.filter_map(|sid| view.record(&sid)).collect()
}

/// The node that made the space, as its first frame says.
pub(crate) fn founder_of(view: &SpaceHandle) -> Option<NodeId> {
    let first = Address::parse(&format!("space^{}", HEXUPPER.encode(view.id().as_bytes()))).ok()?;
    let record = view.by_address(&first).first().and_then(|sid| view.record(sid))?;
    record.object()?.get("by")?.as_str()?.parse().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
