//! The members of a space: which frames count, and how they merge. Spec: ibgib §12.5.

use std::collections::BTreeMap;

use sealtide_crypto::SeededEntropy;
use sealtide_ibgib::{Address, Data, Relations, Verified, uuid};
use sealtide_identity::keystone::{Chain, Claim, Delegation, Verb};
use sealtide_identity::members::{Keystones, Member, Members, counting};
use sealtide_identity::{NodeId, Role, SpaceId};
use serde_json::{Value, json};

use crate::support::{Holder, at};

const SPACE: SpaceId = SpaceId::from_bytes([3; 32]);

#[derive(Default)]
struct World {
    chains: BTreeMap<Address, Chain>,
    devices: BTreeMap<NodeId, Address>,
}

impl World {
    fn knows(&mut self, holder: &Holder) {
        let first = holder.chain.first_address().clone();
        self.chains.insert(first.clone(), holder.chain.clone());
        self.devices.insert(NodeId::of(holder.newest().key()), first);
    }
}

impl Keystones for World {
    fn chain(&self, first: &Address) -> Option<&Chain> {
        self.chains.get(first)
    }

    fn device_of(&self, node: &NodeId) -> Option<Address> {
        self.devices.get(node).cloned()
    }

    fn owners_of(&self, device: &Address) -> Vec<Address> {
        let owners = self.chains.iter().filter(|(_, chain)| !chain.delegations(device).is_empty());
        owners.map(|(first, _)| first.clone()).collect()
    }
}

fn member(holder: &Holder, role: Role) -> Member {
    let keystone = holder.chain.first_address().clone();
    Member { keystone, nodes: [NodeId::of(holder.newest().key())].into(), role, since_ms: 1 }
}

fn with(mut members: Members, more: &[Member]) -> Members {
    more.iter().for_each(|member| members.insert(member.clone()));
    members
}

fn post(holder: &mut Holder, frame: &Verified, seconds: u64) {
    holder.sign(&Claim::new(Verb::Post, frame.address().as_str()), seconds);
}

// Proves: SY-102
#[test]
fn only_frames_claimed_by_an_admin_count() {
    let (mut founder, mut writer, mut admin) = (Holder::device(120), Holder::device(121), Holder::device(122));
    let node = NodeId::of(founder.key.public());
    let mut entropy = SeededEntropy::new(1);
    let one = with(Members::new(SPACE), &[member(&founder, Role::Admin), member(&writer, Role::Write)]);
    let first = one.first_frame(at(1), &uuid(&mut entropy)).unwrap();
    assert_eq!(Members::read(&first), Ok(one.clone()));
    let two = with(one.clone(), &[member(&admin, Role::Admin)]);
    let second = two.next_frame(&first, at(2)).unwrap();
    let frames = [second.clone(), first.clone()];
    let count = |founder: &Holder, writer: &Holder, admin: &Holder, frames: &[Verified]| {
        let mut world = World::default();
        [founder, writer, admin].into_iter().for_each(|holder| world.knows(holder));
        counting(frames, SPACE, &node, &world).into_keys().collect::<std::collections::BTreeSet<Address>>()
    };
    let names = |frames: &[&Verified]| frames.iter().map(|frame| frame.address().clone()).collect();

    assert_eq!(count(&founder, &writer, &admin, &frames), names(&[]));
    post(&mut founder, &first, 3);
    assert_eq!(count(&founder, &writer, &admin, &frames), names(&[&first]));
    post(&mut writer, &second, 4);
    assert_eq!(count(&founder, &writer, &admin, &frames), names(&[&first]), "a writer changes no members");
    post(&mut admin, &second, 4);
    assert_eq!(count(&founder, &writer, &admin, &frames), names(&[&first]), "nobody makes himself admin");
    post(&mut founder, &second, 4);
    assert_eq!(count(&founder, &writer, &admin, &frames), names(&[&first, &second]));
    // Another first frame, by the founder: then nobody knows which is meant.
    let other = one.first_frame(at(9), &uuid(&mut entropy)).unwrap();
    post(&mut founder, &other, 9);
    assert_eq!(count(&founder, &writer, &admin, &[first.clone(), second, other]), names(&[]));
}

// Proves: SY-102
#[test]
fn a_device_posts_for_its_owner_while_it_is_delegated() {
    let (mut owner, mut device) = (Holder::owner(123), Holder::device(124));
    let node = NodeId::of(device.key.public());
    let name = device.chain.first_address().to_string();
    let mut entropy = SeededEntropy::new(2);
    let one = with(Members::new(SPACE), &[member(&owner, Role::Admin)]);
    let first = one.first_frame(at(1), &uuid(&mut entropy)).unwrap();
    owner.sign(&Delegation::new(&[Verb::Sync, Verb::Post], at(50)).unwrap().claim(&name), 2);
    post(&mut device, &first, 3);
    let second = one.next_frame(&first, at(4)).unwrap();
    post(&mut device, &second, 5);
    let third = one.next_frame(&second, at(60)).unwrap();
    post(&mut device, &third, 60);
    let frames = [first, second, third];
    let count = |owner: &Holder, device: &Holder| {
        let mut world = World::default();
        [owner, device].into_iter().for_each(|holder| world.knows(holder));
        counting(&frames, SPACE, &node, &world).len()
    };
    assert_eq!(count(&owner, &device), 2, "the third came after the end of the delegation");
    owner.sign(&Claim::new(Verb::Undelegate, &name), 6);
    assert_eq!(count(&owner, &device), 1, "the founder's own frame stays");
}

// Proves: SY-102
#[test]
fn removal_wins_and_the_lesser_role() {
    let holders: Vec<Holder> = (130..134).map(Holder::device).collect();
    let [a, b, c, d] = [0, 1, 2, 3].map(|at| &holders[at]);
    let base = with(Members::new(SPACE), &[member(a, Role::Admin), member(b, Role::Write), member(c, Role::Admin)]);
    let mut left = with(base.clone(), &[member(c, Role::Write), member(d, Role::Read)]);
    left.members.remove(b.chain.first_address().gib());
    let mut more = member(b, Role::Admin);
    more.nodes.insert(NodeId::from_bytes([9; 32]));
    let right = with(base.clone(), &[more, member(c, Role::Read)]);
    let merged = Members::merge(&base, &left, &right);
    assert_eq!(merged, Members::merge(&base, &right, &left), "the order does not matter");
    let role = |holder: &Holder| merged.role(holder.chain.first_address());
    assert_eq!([role(a), role(b), role(c), role(d)], [Some(Role::Admin), None, Some(Role::Read), Some(Role::Read)]);
    // Nodes: one removed, one added.
    let mut left = with(base.clone(), &[]);
    let at_a = a.chain.first_address().gib().to_owned();
    left.members.get_mut(&at_a).unwrap().nodes = [NodeId::from_bytes([1; 32])].into();
    let mut right = base.clone();
    right.members.get_mut(&at_a).unwrap().nodes.insert(NodeId::from_bytes([2; 32]));
    let merged = Members::merge(&base, &left, &right);
    let nodes: Vec<NodeId> = merged.members[&at_a].nodes.iter().copied().collect();
    assert_eq!(nodes, [NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32])]);
}

/// Two admins change the members at once; the merge frame counts when it says what the rule gives.
// Proves: SY-102
#[test]
fn a_merge_frame_counts_by_rule() {
    let (mut a, mut b, c) = (Holder::device(140), Holder::device(141), Holder::device(142));
    let node = NodeId::of(a.key.public());
    let base = with(Members::new(SPACE), &[member(&a, Role::Admin), member(&b, Role::Admin), member(&c, Role::Write)]);
    let first = base.first_frame(at(1), &uuid(&mut SeededEntropy::new(3))).unwrap();
    post(&mut a, &first, 2);
    let mut without = base.clone();
    without.members.remove(c.chain.first_address().gib());
    let left = without.next_frame(&first, at(3)).unwrap();
    let right = with(base.clone(), &[member(&c, Role::Admin)]).next_frame(&first, at(3)).unwrap();
    post(&mut a, &left, 3);
    post(&mut b, &right, 3);
    let merge = |members: &Members| {
        let evolved = members.next_frame(&left, at(3)).unwrap();
        let mut relations: Relations = evolved.relations().clone();
        relations.insert("past".into(), vec![left.address().clone(), right.address().clone()]);
        Verified::make("members", Data::Json(Value::Object(evolved.object().unwrap())), relations).unwrap()
    };
    let (good, bad) = (merge(&without), merge(&base));
    let mut world = World::default();
    [&a, &b, &c].into_iter().for_each(|holder| world.knows(holder));
    let counted = counting(&[good.clone(), bad.clone(), left, right, first], SPACE, &node, &world);
    assert!(counted.contains_key(good.address()) && !counted.contains_key(bad.address()));
    assert_eq!(counted.len(), 4);
}

#[test]
fn only_the_one_spelling_is_read() {
    let a = Holder::device(150);
    let members = with(Members::new(SPACE), &[member(&a, Role::Read)]);
    let first = members.first_frame(at(1), &uuid(&mut SeededEntropy::new(4))).unwrap();
    let gib = a.chain.first_address().gib().to_owned();
    type Change<'a> = &'a dyn Fn(&mut Value);
    let breaks: [Change<'_>; 8] = [
        &|data| data["space"] = json!(SPACE.to_string().to_uppercase()),
        &|data| data["members"] = json!([]),
        &|data| data["members"][&gib]["role"] = json!("owner"),
        &|data| data["members"][&gib]["since"] = json!(-1),
        &|data| data["members"][&gib]["nodes"] = json!(["stn1x"]),
        &|data| data["members"][&gib]["keystone"] = json!("keystone^gib"),
        &|data| data["members"][&gib]["more"] = json!(1),
        &|data| {
            let node = data["members"][&gib]["nodes"][0].clone();
            data["members"][&gib]["nodes"] = json!([node, node]);
        },
    ];
    assert!(Members::read(&first).is_ok());
    for (number, change) in breaks.iter().enumerate() {
        assert!(Members::read(&crate::support::changed(&first, change)).is_err(), "case {number}");
    }
}
