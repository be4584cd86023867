//! The members of a space: a timeline that says which keystone may do what. Spec: ibgib §12.5.

use std::collections::{BTreeMap, BTreeSet};

use sealtide_ibgib::{
    Address, MergeStrategy, Object, Refusal, Relations, Stamp, Verified, merge_all, merge_tips, try_evolve,
    try_genesis, winner,
};
use serde_json::{Value, json};

use crate::keystone::{Chain, Class, Delegation, Verb};
use crate::{NodeId, Role, SpaceId};

/// The ib of every members frame.
pub const MEMBERS_IB: &str = "members";
/// Members of one space, at most.
pub const MEMBER_COUNT_MAX: usize = 512;
/// Nodes of one member, at most.
pub const MEMBER_NODES_MAX: usize = 16;
/// Former writers whose last commits are named, at most; whoever writes leaves out those with the smallest names.
pub const FORMER_COUNT_MAX: usize = 1024;
/// Last commits of one former writer, at most: one for each node and branch.
pub const LAST_COUNT_MAX: usize = 64;

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The first frame of its keystone: an owner's, or a device's.
    pub keystone: Address,
    /// The nodes that it uses.
    pub nodes: BTreeSet<NodeId>,
    /// What it may do.
    pub role: Role,
    /// Since when, ms since 1970.
    pub since_ms: u64,
}

/// What one members frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// Of which space.
    pub space: SpaceId,
    /// The members by the gib of their keystone's first frame.
    pub members: BTreeMap<String, Member>,
    /// Of those who may not write any more, by the gib of their keystone's first frame: the commit stones up to which,
    /// through `prev`, what they wrote counts.
    pub last: BTreeMap<String, BTreeSet<Address>>,
}

/// A record that is no members frame; says which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no members frame: {0}")]
pub struct MembersError(pub &'static str);

/// Where the chains of keystones are found.
pub trait Keystones {
    /// Shows the chain of the keystone with this first frame, when it is held. Not called from within itself.
    fn look(&self, first: &Address, look: &mut dyn FnMut(&Chain));
}

/// What the newest frames that count say together.
#[derive(Clone, Debug)]
pub struct Newest {
    /// The frame that the next one follows.
    pub frame: Verified,
    /// Who the members are.
    pub members: Members,
    /// What `frame` itself says, where the newest frames could not be merged and `members` is only what all of them say.
    pub apart: Option<Members>,
    /// Merge frames that are not among those that were looked at, earlier ones first; `frame` may be the last of them.
    pub merges: Vec<Verified>,
}

impl Members {
    /// A space without members.
    pub fn new(space: SpaceId) -> Self {
        Self { space, members: BTreeMap::new(), last: BTreeMap::new() }
    }

    /// Adds or replaces a member.
    pub fn insert(&mut self, member: Member) {
        let gib = member.keystone.gib().to_owned();
        if member.role > Role::Read {
            self.last.remove(&gib);
        }
        self.members.insert(gib, member);
    }

    /// Takes a member out; what it wrote up to these commit stones counts. `false` when there is no such member.
    pub fn remove(&mut self, keystone: &Address, last: BTreeSet<Address>) -> bool {
        let gone = self.role(keystone).is_some() && self.members.remove(keystone.gib()).is_some();
        if gone && !last.is_empty() {
            self.last.insert(keystone.gib().to_owned(), last.into_iter().take(LAST_COUNT_MAX).collect());
            while self.last.len() > FORMER_COUNT_MAX {
                self.last.pop_first();
            }
        }
        gone
    }

    /// The member with this keystone.
    pub fn member(&self, keystone: &Address) -> Option<&Member> {
        self.members.get(keystone.gib()).filter(|member| member.keystone == *keystone)
    }

    /// The role of a keystone.
    pub fn role(&self, keystone: &Address) -> Option<Role> {
        self.member(keystone).map(|member| member.role)
    }

    /// The keystones of admins.
    pub fn admins(&self) -> impl Iterator<Item = &Address> {
        self.members.values().filter(|member| member.role == Role::Admin).map(|member| &member.keystone)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`MembersError`].
    pub fn read(record: &Verified) -> Result<Self, MembersError> {
        let frame = record.address().ib() == MEMBERS_IB && record.frame_ref().is_some();
        let data = record.object().filter(|_| frame).ok_or(MembersError("a frame of a timeline"))?;
        let space = data.get("space").and_then(Value::as_str).and_then(exact).ok_or(MembersError("space"))?;
        let list = data.get("members").and_then(Value::as_object).ok_or(MembersError("members"))?;
        if list.len() > MEMBER_COUNT_MAX {
            return Err(MembersError("at most 512 members"));
        }
        let mut members = BTreeMap::new();
        for (gib, value) in list {
            let member = read_member(value).ok_or(MembersError("a member"))?;
            if member.keystone.gib() != gib {
                return Err(MembersError("the name of a member is the gib of its keystone"));
            }
            members.insert(gib.clone(), member);
        }
        let last = data.get("last").map_or(Some(BTreeMap::new()), read_last).ok_or(MembersError("last"))?;
        Ok(Self { space, members, last })
    }

    /// Makes the first frame.
    ///
    /// # Errors
    /// [`Refusal`], `too_large` for instance.
    pub fn first_frame(&self, stamp: Stamp, uuid: &str) -> Result<Verified, Refusal> {
        try_genesis(MEMBERS_IB, self.data(), Relations::new(), stamp, uuid)
    }

    /// Makes the frame after `previous`.
    ///
    /// # Errors
    /// [`Refusal`], `too_large` for instance.
    pub fn next_frame(&self, previous: &Verified, stamp: Stamp) -> Result<Verified, Refusal> {
        try_evolve(previous, self.data(), Relations::new(), stamp)
    }

    /// The data of a frame.
    pub fn data(&self) -> Object {
        let mut members = Object::new();
        for (gib, member) in &self.members {
            let mut nodes: Vec<String> = member.nodes.iter().map(NodeId::to_string).collect();
            nodes.sort();
            let entry = json!({
                "keystone": member.keystone.as_str(),
                "nodes": nodes,
                "role": role_word(member.role),
                "since": member.since_ms,
            });
            members.insert(gib.clone(), entry);
        }
        let mut data = Object::new();
        data.insert("space".to_owned(), json!(self.space.to_string()));
        data.insert("members".to_owned(), Value::Object(members));
        if !self.last.is_empty() {
            let texts = |list: &BTreeSet<Address>| list.iter().map(Address::to_string).collect::<Vec<_>>();
            let last = self.last.iter().map(|(gib, list)| (gib.clone(), json!(texts(list))));
            data.insert("last".to_owned(), Value::Object(last.collect()));
        }
        data
    }
}

/// The frames of a members timeline that count. `founder` is the node named by the first frame of the space.
///
/// A frame counts when an admin of the frame before it posted it, itself or through a device; the first when the
/// founder's device, or the owner that it lists and speaks for, did; a merge frame when both its parents count and it
/// is the one that the rule gives.
// Spec: SY-102
pub fn counting(
    frames: &[Verified],
    space: SpaceId,
    founder: &NodeId,
    keystones: &dyn Keystones,
) -> BTreeMap<Address, Members> {
    let mut order: Vec<(&Verified, Members)> = frames
        .iter()
        .filter_map(|frame| Some((frame, Members::read(frame).ok().filter(|members| members.space == space)?)))
        .collect();
    order.sort_by_key(|(frame, _)| (frame.frame_ref().map(|facts| facts.n), frame.address().clone()));
    order.dedup_by_key(|(frame, _)| frame.address().clone());
    let all: BTreeMap<&Address, &Verified> = order.iter().map(|(frame, _)| (frame.address(), *frame)).collect();
    let mut counted: BTreeMap<Address, Members> = BTreeMap::new();
    // The first frames that the founder posted: one, unless the founder equivocates; then none counts.
    let firsts = order.iter().filter(|(frame, _)| frame.frame_ref().is_some_and(|facts| facts.past.is_empty()));
    let firsts: Vec<&Address> = firsts
        .filter(|(frame, members)| founded(frame.address(), members, founder, keystones))
        .map(|(frame, _)| frame.address())
        .collect();
    for (frame, members) in &order {
        let Some(facts) = frame.frame_ref() else { continue };
        let counts = match (facts.past.as_slice(), facts.orphans.as_slice()) {
            ([], []) => firsts.as_slice() == [frame.address()],
            ([before], []) => counted.get(before).is_some_and(|before| poster(frame, before, keystones).is_some()),
            ([left], [right]) => {
                counted.contains_key(left) && counted.contains_key(right) && is_merge(frame, (left, right), &all)
            }
            _ => false,
        };
        if counts {
            counted.insert(frame.address().clone(), members.clone());
        }
    }
    counted
}

/// What the newest of the frames that count say. Several that were not merged yet are merged here; where they cannot be,
/// a keystone has the least of its roles in all of them.
pub fn newest(frames: &[Verified], counted: &BTreeMap<Address, Members>) -> Option<Newest> {
    let counting: Vec<&Verified> = frames.iter().filter(|frame| counted.contains_key(frame.address())).collect();
    let behind: BTreeSet<&Address> = counting
        .iter()
        .filter_map(|frame| frame.frame_ref())
        .flat_map(|facts| facts.past.iter().chain(&facts.orphans))
        .collect();
    let tips: Vec<Verified> =
        counting.iter().filter(|frame| !behind.contains(frame.address())).map(|frame| (*frame).clone()).collect();
    if let [only] = tips.as_slice() {
        let members = counted.get(only.address())?.clone();
        return Some(Newest { frame: only.clone(), members, apart: None, merges: Vec::new() });
    }
    let mut load = |address: &Address| counting.iter().find(|frame| frame.address() == address).copied().cloned();
    let merged = merge_all(tips.clone(), &mut load);
    if let [only] = merged.tips.as_slice()
        && let Ok(members) = Members::read(only)
    {
        return Some(Newest { frame: only.clone(), members, apart: None, merges: merged.frames });
    }
    let frame = winner(&tips)?.clone();
    let own = counted.get(frame.address())?.clone();
    let mut least = own.clone();
    for other in tips.iter().filter_map(|tip| counted.get(tip.address())) {
        least.members.retain(|gib, _| other.members.contains_key(gib));
        for (gib, member) in &mut least.members {
            member.role = member.role.min(other.members[gib].role);
        }
    }
    Some(Newest { frame, members: least, apart: Some(own), merges: Vec::new() })
}

/// The admin of the frame before who posted a frame, itself or through a device.
pub fn poster(frame: &Verified, before: &Members, keystones: &dyn Keystones) -> Option<Address> {
    before.admins().find(|admin| posted(admin, frame.address(), keystones)).cloned()
}

/// The devices that an owner ever delegated something to, whatever became of it.
pub fn devices_of(owner: &Address, keystones: &dyn Keystones) -> BTreeSet<Address> {
    on(owner, keystones, |chain| {
        let claims = chain.valid_backwards().filter_map(|standing| standing.frame().claim());
        let given = claims.filter(|claim| claim.known_verb() == Some(Verb::Delegate));
        given.filter_map(|claim| claim.target_address()).collect()
    })
    .unwrap_or_default()
}

/// Whether this is the merge frame that the rule gives for its two parents.
fn is_merge(frame: &Verified, (left, right): (&Address, &Address), all: &BTreeMap<&Address, &Verified>) -> bool {
    let mut load = |address: &Address| all.get(address).copied().cloned();
    let (Some(left), Some(right)) = (load(left), load(right)) else { return false };
    let made = merge_tips((&left, &right), &MergeStrategy::Optimistic, &mut load);
    made.is_ok_and(|made| made.address() == frame.address())
}

fn on<T>(first: &Address, keystones: &dyn Keystones, look: impl Fn(&Chain) -> T) -> Option<T> {
    let mut found = None;
    keystones.look(first, &mut |chain| found = Some(look(chain)));
    found
}

/// Whether the founder posted the first frame: the device with the founder's key, listed or a listed owner's, or that
/// owner.
fn founded(first: &Address, members: &Members, founder: &NodeId, keystones: &dyn Keystones) -> bool {
    let is_founder = |device: &Address| {
        let key = |chain: &Chain| {
            let genesis = chain.genesis().filter(|genesis| genesis.class() == Class::Device);
            genesis.is_some_and(|genesis| NodeId::of(genesis.key()) == *founder)
        };
        on(device, keystones, key) == Some(true)
    };
    members.admins().any(|listed| {
        if is_founder(listed) {
            return post_time(listed, first, keystones).is_some();
        }
        let mut devices = devices_of(listed, keystones).into_iter().filter(is_founder);
        devices.any(|device| {
            post_time(&device, first, keystones).is_some() || post_time(listed, first, keystones).is_some()
        })
    })
}

/// Whether a keystone, or a device that it delegated `post` to at that time, holds a frame that posts this address.
fn posted(keystone: &Address, address: &Address, keystones: &dyn Keystones) -> bool {
    if post_time(keystone, address, keystones).is_some() {
        return true;
    }
    devices_of(keystone, keystones).iter().any(|device| {
        let time = post_time(device, address, keystones);
        time.is_some_and(|time| on(keystone, keystones, |owner| delegated_at(owner, device, time)) == Some(true))
    })
}

/// Whether a frame that a device posts now, at `now` by its clock, will count for one of the admins listed in `before`; else the time at
/// which it would be posted. A device posts at no earlier time than it did before.
///
/// # Errors
/// That time.
pub fn may_post(before: &Members, device: &Address, now: Stamp, keystones: &dyn Keystones) -> Result<(), Stamp> {
    let newest = on(device, keystones, |chain| chain.newest().and_then(|newest| newest.frame().facts().stamp));
    let at = newest.flatten().map_or(now, |newest| newest.max(now));
    let speaks = |owner: &Address| on(owner, keystones, |chain| delegated_at(chain, device, at)) == Some(true);
    if before.admins().any(|listed| listed == device || speaks(listed)) { Ok(()) } else { Err(at) }
}

fn post_time(keystone: &Address, address: &Address, keystones: &dyn Keystones) -> Option<Stamp> {
    let time = |chain: &Chain| {
        let mut proofs = chain.proofs_on(address.as_str());
        let post = proofs.find(|frame| frame.claim().is_some_and(|claim| claim.known_verb() == Some(Verb::Post)))?;
        post.facts().stamp
    };
    on(keystone, keystones, time).flatten()
}

/// Whether the owner delegated `post` to the device until after this time: neither was the time of the delegation over,
/// nor was it taken back. What was posted before it was taken back stays posted.
fn delegated_at(owner: &Chain, device: &Address, at: Stamp) -> bool {
    let mut taken_back: Option<Stamp> = None;
    for standing in owner.valid_backwards() {
        let frame = standing.frame();
        let Some(claim) = frame.claim().filter(|claim| claim.target == device.as_str()) else { continue };
        match claim.known_verb() {
            Some(Verb::Undelegate) => taken_back = frame.facts().stamp.or(Some(Stamp { ms: 0 })),
            Some(Verb::Delegate) => {
                let given = claim.scope.as_deref().and_then(Delegation::parse);
                let holds = given.is_some_and(|given| given.allows(Verb::Post, at));
                if holds && taken_back.is_none_or(|end| at < end) {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

fn read_last(value: &Value) -> Option<BTreeMap<String, BTreeSet<Address>>> {
    let object = value.as_object().filter(|object| object.len() <= FORMER_COUNT_MAX)?;
    let read = |list: &Value| -> Option<BTreeSet<Address>> {
        let list = list.as_array().filter(|list| (1..=LAST_COUNT_MAX).contains(&list.len()))?;
        let texts: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
        let texts = texts.filter(|texts| texts.windows(2).all(|pair| pair[0] < pair[1]))?;
        texts.into_iter().map(|text| Address::parse(text).ok()).collect()
    };
    object.iter().map(|(gib, list)| Some((gib.clone(), read(list)?))).collect()
}

fn read_member(value: &Value) -> Option<Member> {
    let object = value.as_object().filter(|object| object.len() == 4)?;
    let text = |name: &str| object.get(name)?.as_str();
    let list = object.get("nodes")?.as_array().filter(|nodes| nodes.len() <= MEMBER_NODES_MAX)?;
    let texts: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
    let texts = texts.filter(|texts| texts.windows(2).all(|pair| pair[0] < pair[1]))?;
    let nodes: Option<BTreeSet<NodeId>> = texts.into_iter().map(exact).collect();
    let role =
        [Role::Read, Role::Write, Role::Admin].into_iter().find(|role| Some(role_word(*role)) == text("role"))?;
    let keystone = Address::parse(text("keystone")?).ok()?;
    Some(Member { keystone, nodes: nodes?, role, since_ms: object.get("since")?.as_u64().filter(|ms| *ms < 1 << 53)? })
}

/// A text form in its one spelling.
fn exact<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    text.parse().ok().filter(|id: &T| id.to_string() == text)
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Read => "read",
        Role::Write => "write",
        Role::Admin => "admin",
    }
}
