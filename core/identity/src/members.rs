//! The members of a space: a timeline that says which keystone may do what. Spec: ibgib §12.5.

use std::collections::{BTreeMap, BTreeSet};

use sealtide_ibgib::{Address, Object, Refusal, Relations, Stamp, Verified, try_evolve, try_genesis};
use serde_json::{Value, json};

use crate::keystone::{Chain, Verb};
use crate::{NodeId, Role, SpaceId};

/// The ib of every members frame.
pub const MEMBERS_IB: &str = "members";
/// Members of one space, at most.
pub const MEMBER_COUNT_MAX: usize = 512;
/// Nodes of one member, at most.
pub const MEMBER_NODES_MAX: usize = 16;

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
}

/// A record that is no members frame; says which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no members frame: {0}")]
pub struct MembersError(pub &'static str);

/// Where the chains of keystones are found.
pub trait Keystones {
    /// The chain of the keystone with this first frame.
    fn chain(&self, first: &Address) -> Option<&Chain>;

    /// The device keystone of a node.
    fn device_of(&self, node: &NodeId) -> Option<Address>;

    /// The owner keystones that delegate to a device, whatever the verb.
    fn owners_of(&self, device: &Address) -> Vec<Address>;
}

impl Members {
    /// A space without members.
    pub fn new(space: SpaceId) -> Self {
        Self { space, members: BTreeMap::new() }
    }

    /// Adds or replaces a member.
    pub fn insert(&mut self, member: Member) {
        self.members.insert(member.keystone.gib().to_owned(), member);
    }

    /// The role of a keystone.
    pub fn role(&self, keystone: &Address) -> Option<Role> {
        self.members.get(keystone.gib()).filter(|member| member.keystone == *keystone).map(|member| member.role)
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
        Ok(Self { space, members })
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
            let nodes: Vec<String> = member.nodes.iter().map(NodeId::to_string).collect();
            let mut nodes = nodes;
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
        data
    }

    /// What two frames that grew from `base` give together: a removal wins, and of two roles the lesser. The order of
    /// the two does not matter.
    // Spec: SY-102
    pub fn merge(base: &Self, left: &Self, right: &Self) -> Self {
        let names: BTreeSet<&String> = left.members.keys().chain(right.members.keys()).collect();
        let merged = names.into_iter().filter_map(|name| {
            let (old, left, right) = (base.members.get(name), left.members.get(name), right.members.get(name));
            let member = match (left, right) {
                (Some(left), Some(right)) => both(old, left, right),
                // New on one side, or removed on the other.
                (Some(only), None) | (None, Some(only)) if old.is_none() => only.clone(),
                _ => return None,
            };
            Some((name.clone(), member))
        });
        Self { space: base.space, members: merged.collect() }
    }
}

/// The frames of a members timeline that count. `founder` is the node named by the first frame of the space.
///
/// A frame counts when an admin of the frame before it posted it, itself or through a device; the first when the
/// founder's keystone did; a merge frame when both its pasts count and it says what [`Members::merge`] gives.
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
    let past: BTreeMap<&Address, &[Address]> =
        order.iter().filter_map(|(frame, _)| Some((frame.address(), frame.frame_ref()?.past.as_slice()))).collect();
    let mut counted: BTreeMap<Address, Members> = BTreeMap::new();
    // The first frames that the founder posted: one, unless the founder equivocates; then none counts.
    let firsts = order.iter().filter(|(frame, _)| past[frame.address()].is_empty());
    let firsts: Vec<&Address> = firsts
        .map(|(frame, _)| frame.address())
        .filter(|first| founders(founder, keystones).iter().any(|by| posted(by, first, keystones)))
        .collect();
    for (frame, members) in &order {
        let counts = match past[frame.address()] {
            [] => firsts.as_slice() == [frame.address()],
            [before] => counted.get(before).is_some_and(|before| {
                let mut admins = before.members.values().filter(|member| member.role == Role::Admin);
                admins.any(|admin| posted(&admin.keystone, frame.address(), keystones))
            }),
            [left, right] => match (counted.get(left), counted.get(right), fork(left, right, &past)) {
                (Some(left), Some(right), Some(base)) => {
                    counted.get(&base).is_some_and(|base| Members::merge(base, left, right) == *members)
                }
                _ => false,
            },
            _ => false,
        };
        if counts {
            counted.insert(frame.address().clone(), members.clone());
        }
    }
    counted
}

/// The keystones that may make the first frame: that of the founder's device, and its owners'.
fn founders(founder: &NodeId, keystones: &dyn Keystones) -> Vec<Address> {
    let Some(device) = keystones.device_of(founder) else { return Vec::new() };
    let mut all = keystones.owners_of(&device);
    let named = |owner: &Address| keystones.chain(owner).is_some_and(|owner| delegates(owner, &device, None));
    all.retain(named);
    all.push(device);
    all
}

/// Whether a keystone, or a device that it delegates `post` to, holds a frame that posts this address.
fn posted(keystone: &Address, address: &Address, keystones: &dyn Keystones) -> bool {
    let Some(chain) = keystones.chain(keystone) else { return false };
    if post_time(chain, address).is_some() {
        return true;
    }
    let devices: Vec<Address> = chain.delegated().map(|(device, _)| device.clone()).collect();
    devices.iter().any(|device| {
        let time = keystones.chain(device).and_then(|device| post_time(device, address));
        time.is_some_and(|time| delegates(chain, device, Some(time)))
    })
}

fn post_time(chain: &Chain, address: &Address) -> Option<Stamp> {
    let mut proofs = chain.proofs_on(address.as_str());
    let post = proofs.find(|frame| frame.claim().is_some_and(|claim| claim.known_verb() == Some(Verb::Post)))?;
    post.facts().stamp
}

/// Whether the owner delegates `post` to the device, at the time of the post where there is one.
fn delegates(owner: &Chain, device: &Address, at: Option<Stamp>) -> bool {
    owner.delegations(device).iter().any(|delegation| {
        delegation.verbs().contains(&Verb::Post) && at.is_none_or(|at| delegation.allows(Verb::Post, at))
    })
}

/// The newest frame that both have behind them; of several the smallest address.
fn fork(left: &Address, right: &Address, past: &BTreeMap<&Address, &[Address]>) -> Option<Address> {
    let behind = |from: &Address| {
        let mut depth: BTreeMap<Address, usize> = BTreeMap::new();
        let mut open = vec![from.clone()];
        while let Some(at) = open.pop() {
            if depth.insert(at.clone(), 0).is_none() {
                open.extend(past.get(&at).copied().unwrap_or_default().iter().cloned());
            }
        }
        depth.into_keys().collect::<BTreeSet<Address>>()
    };
    let common: BTreeSet<Address> = behind(left).intersection(&behind(right)).cloned().collect();
    // A common frame that no other common frame has behind it.
    let inner: BTreeSet<Address> =
        common.iter().flat_map(|at| past.get(at).copied().unwrap_or_default()).cloned().collect();
    common.into_iter().find(|at| !inner.contains(at))
}

fn both(old: Option<&Member>, left: &Member, right: &Member) -> Member {
    let was = |node: &NodeId| old.is_some_and(|old| old.nodes.contains(node));
    let nodes = left
        .nodes
        .union(&right.nodes)
        .filter(|node| (left.nodes.contains(*node) && right.nodes.contains(*node)) || !was(node));
    Member {
        keystone: left.keystone.clone().min(right.keystone.clone()),
        nodes: nodes.copied().take(MEMBER_NODES_MAX).collect(),
        role: left.role.min(right.role),
        since_ms: left.since_ms.min(right.since_ms),
    }
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
