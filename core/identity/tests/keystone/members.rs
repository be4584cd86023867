//! The members of a space: which frames count, and how they merge. Spec: ibgib §12.5.

use std::collections::BTreeMap;

use sealtide_crypto::SeededEntropy;
use sealtide_ibgib::{Address, MergeStrategy, Verified, merge_tips, uuid};
use sealtide_identity::keystone::{Chain, Claim, Delegation, Verb};
use sealtide_identity::members::{Keystones, Member, Members, counting, newest, poster};
use sealtide_identity::{NodeId, Role, SpaceId};
use serde_json::{Value, json};

use crate::support::{Holder, at};

const SPACE: SpaceId = SpaceId::from_bytes([3; 32]);

#[derive(Default)]
struct World(BTreeMap<Address, Chain>);

impl World {
    fn knows(&mut self, holder: &Holder) {
        self.0.insert(holder.chain.first_address().clone(), holder.chain.clone());
    }
}

impl Keystones for World {
    fn look(&self, first: &Address, look: &mut dyn FnMut(&Chain)) {
        self.0.get(first).into_iter().for_each(look);
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
    assert_eq!(count(&owner, &device), 2, "what was posted before the end stays posted");
    owner.sign(&Delegation::new(&[Verb::Sync, Verb::Post], at(90)).unwrap().claim(&name), 61);
    assert_eq!(count(&owner, &device), 3, "delegated again, for longer");
    let mut lone = World::default();
    lone.knows(&owner);
    assert_eq!(counting(&frames, SPACE, &node, &lone).len(), 0, "without the device nobody knows who posted");
}

/// Two admins change the members at once; the merge frame counts when it is the one that the rule gives.
// Proves: SY-102
#[test]
fn a_merge_frame_counts_by_rule() {
    let (mut a, mut b, c) = (Holder::device(140), Holder::device(141), Holder::device(142));
    let node = NodeId::of(a.key.public());
    let base = with(Members::new(SPACE), &[member(&a, Role::Admin), member(&b, Role::Admin), member(&c, Role::Write)]);
    let first = base.first_frame(at(1), &uuid(&mut SeededEntropy::new(3))).unwrap();
    post(&mut a, &first, 2);
    let mut without = base.clone();
    let last = Address::parse(&format!("commit^{}", "A".repeat(64))).unwrap();
    assert!(without.remove(c.chain.first_address(), [last.clone()].into()));
    assert!(!without.remove(c.chain.first_address(), [last].into()), "removed once");
    let left = without.next_frame(&first, at(3)).unwrap();
    let right = with(base.clone(), &[member(&c, Role::Admin)]).next_frame(&first, at(3)).unwrap();
    let frames = [first.clone(), left.clone(), right.clone()];
    let merge = |strategy: &MergeStrategy| {
        let mut load = |address: &Address| frames.iter().find(|frame| frame.address() == address).cloned();
        merge_tips((&left, &right), strategy, &mut load)
    };
    let good = merge(&MergeStrategy::Optimistic).unwrap();
    assert!(merge(&MergeStrategy::Ours(right.address().clone())).is_err());
    // The same parents, and another list.
    let forged = crate::support::changed(&good, |data: &mut Value| data["members"] = json!(base.data()["members"]));
    let world = |holders: [&Holder; 3]| {
        let mut world = World::default();
        holders.into_iter().for_each(|holder| world.knows(holder));
        world
    };
    let all = [good.clone(), forged.clone(), left.clone(), right.clone(), first.clone()];
    let counted = counting(&all, SPACE, &node, &world([&a, &b, &c]));
    assert_eq!(counted.len(), 1, "nobody posted the parents");
    post(&mut a, &left, 3);
    post(&mut b, &right, 3);
    let held = world([&a, &b, &c]);
    let counted = counting(&all, SPACE, &node, &held);
    assert!(counted.contains_key(good.address()) && !counted.contains_key(forged.address()));
    assert_eq!(counted.len(), 4);
    assert_eq!(poster(&right, &base, &held), Some(b.chain.first_address().clone()));
    // The merge is what the newest say, whether its frame is here or not.
    for frames in [&all[..], &all[2..]] {
        let counted = counting(frames, SPACE, &node, &held);
        let newest = newest(frames, &counted).unwrap();
        assert_eq!(newest.frame.address(), good.address());
        assert_eq!(newest.merges.len(), usize::from(frames.len() == 3));
        assert_eq!(newest.members.role(c.chain.first_address()), None, "the removal wins");
        assert_eq!(newest.members.last, without.last);
    }
}

#[test]
fn only_the_one_spelling_is_read() {
    let a = Holder::device(150);
    let members = with(Members::new(SPACE), &[member(&a, Role::Read)]);
    let first = members.first_frame(at(1), &uuid(&mut SeededEntropy::new(4))).unwrap();
    let gib = a.chain.first_address().gib().to_owned();
    type Change<'a> = &'a dyn Fn(&mut Value);
    let breaks: [Change<'_>; 11] = [
        &|data| data["space"] = json!(SPACE.to_string().to_uppercase()),
        &|data| data["members"] = json!([]),
        &|data| data["members"][&gib]["role"] = json!("owner"),
        &|data| data["members"][&gib]["since"] = json!(-1),
        &|data| data["members"][&gib]["nodes"] = json!(["stn1x"]),
        &|data| data["members"][&gib]["keystone"] = json!("keystone^gib"),
        &|data| data["members"][&gib]["more"] = json!(1),
        &|data| data["last"] = json!([]),
        &|data| data["last"] = json!({"A": []}),
        &|data| data["last"] = json!({"A": ["no address"]}),
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
