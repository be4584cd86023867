//! What counts of the frames of one keystone, in whatever order they come. Spec: ibgib §12.3 "Precedence".

use sealtide_crypto::{Seed, SeededEntropy, SigningKey};
use sealtide_ibgib::{Address, Stamp, Verified};
use sealtide_identity::keystone::{
    Added, Chain, Claim, Delegation, Manage, OwnerProfiles, Place, Rank, SignError, Signer, State, Verb, WorkingSecret,
    manage, revoke, sign, speaks_for,
};

use crate::support::{Holder, at, post, rand, scale};

/// A managing frame that keeps secret and key, on a given frame.
fn managed(owner: &mut Holder, from: Option<&Address>, seconds: u64) -> Verified {
    let plan = Manage {
        root: &owner.root,
        working: &owner.working,
        key: &owner.key,
        profiles: OwnerProfiles::default(),
        from,
    };
    manage(&owner.chain, &plan, at(seconds), &mut owner.entropy).unwrap().frame().record().clone()
}

fn other_post(number: u64) -> Claim {
    Claim::new(Verb::Post, &format!("comment {number}^gib"))
}

/// State, newest frame, voided frames, and the place of every frame.
type Verdict = (State, Option<Address>, Vec<Address>, Vec<(Address, Option<Place>)>);

/// What a chain says, to compare.
fn verdict(chain: &Chain) -> Verdict {
    let mut voided: Vec<Address> = chain.voided().cloned().collect();
    voided.sort();
    let mut places: Vec<_> = chain.frames().map(|frame| frame.address().clone()).collect();
    places.sort();
    let places = places.into_iter().map(|address| (address.clone(), chain.place(&address))).collect();
    (chain.state(), chain.newest().map(|newest| newest.frame().address().clone()), voided, places)
}

/// Adds the records in many orders; all give one verdict.
fn same_in_every_order(first: &Address, records: &[Verified], orders: usize) -> Chain {
    let mut entropy = SeededEntropy::new(84);
    let mut reference: Option<Chain> = None;
    for _ in 0..orders {
        let mut order = records.to_vec();
        for at in (1..order.len()).rev() {
            order.swap(at, rand(&mut entropy, at + 1));
        }
        let mut chain = Chain::new(first.clone());
        for record in &order {
            assert!(matches!(chain.add(record), Added::Checked | Added::Waiting));
            assert_eq!(
                chain.missing().count() > 0,
                chain.frames().count() < order.iter().position(|r| r == record).unwrap() + 1
            );
        }
        assert_eq!((chain.missing().count(), chain.frames().count()), (0, records.len()));
        match &reference {
            Some(reference) => assert_eq!(verdict(&chain), verdict(reference)),
            None => reference = Some(chain),
        }
    }
    println!("{} frames in {orders} orders", records.len());
    reference.unwrap()
}

/// An owner, frames up to a base, five frames of a thief after it, and the owner's managing frame on the base.
// Proves: SY-84
#[test]
fn fork_then_recover() {
    let mut owner = Holder::owner(80);
    let first = owner.first_record();
    let base = owner.post(1);
    let mut records = vec![first.clone(), base.clone()];
    let before = owner.chain.clone();
    for seconds in 2..7 {
        records.push(owner.post(seconds));
    }
    let thief_chain = std::mem::replace(&mut owner.chain, before);
    let rescue = managed(&mut owner, None, 3);
    records.push(rescue.clone());
    let chain = same_in_every_order(first.address(), &records, 40 * scale() as usize);
    assert_eq!((chain.state(), chain.newest().unwrap().frame().address()), (State::Live, rescue.address()));
    assert_eq!(chain.voided().count(), 5);
    assert_eq!(chain.place(base.address()), Some(Place::Valid));
    // Authorisations of the voided branch ended.
    assert_eq!(chain.claims_on(crate::support::TARGET).count(), 1);
    // The thief's node sees the same once it gets the managing frame.
    let mut thief_chain = thief_chain;
    assert_eq!(thief_chain.add(&rescue), Added::Checked);
    assert_eq!(verdict(&thief_chain), verdict(&chain));
}

// Proves: SY-84
#[test]
fn fork_manage_manage() {
    let mut owner = Holder::owner(81);
    let first = owner.first_record();
    let base = owner.post(1);
    let (left, right) = (managed(&mut owner, None, 2), managed(&mut owner, Some(first.address()), 2));
    let chain = same_in_every_order(
        first.address(),
        &[first.clone(), base.clone(), left.clone(), right.clone()],
        10 * scale() as usize,
    );
    assert_eq!((chain.state(), chain.newest().unwrap().frame().address()), (State::ManagedTwice, first.address()));
    assert_eq!(chain.place(left.address()), Some(Place::Undecided));
    owner.chain = chain;
    assert_eq!(owner.make(&post(), 3).err(), Some(SignError::Forked));
    let plan = Manage {
        root: &owner.root,
        working: &owner.working,
        key: &owner.key,
        profiles: OwnerProfiles::default(),
        from: None,
    };
    assert_eq!(manage(&owner.chain, &plan, at(3), &mut owner.entropy).err(), Some(SignError::Forked));
    let end = revoke(&owner.chain, &owner.root, "both", Some(left.address()), at(4)).unwrap().frame().record().clone();
    let records = [first.clone(), base, left, right, end.clone()];
    let chain = same_in_every_order(first.address(), &records, 10 * scale() as usize);
    assert_eq!((chain.state(), chain.newest().unwrap().frame().address()), (State::Revoked, end.address()));
}

// Proves: SY-27
#[test]
fn equivocation_freezes_until_manage() {
    let mut owner = Holder::owner(82);
    let first = owner.first_record();
    let left = owner.make(&other_post(1), 1).unwrap().frame().record().clone();
    let right = owner.make(&other_post(2), 1).unwrap().frame().record().clone();
    let chain = same_in_every_order(first.address(), &[first.clone(), left.clone(), right.clone()], 6);
    assert_eq!((chain.state(), chain.newest().unwrap().frame().address()), (State::Forked, first.address()));
    assert_eq!(chain.claims_on("comment 1^gib").count(), 0);
    owner.chain = chain;
    assert_eq!(owner.make(&post(), 2).err(), Some(SignError::Forked));
    // Three nodes, each with another order, see the owner choose a branch.
    let choice = managed(&mut owner, Some(right.address()), 2);
    let chain = same_in_every_order(first.address(), &[first.clone(), left.clone(), right.clone(), choice.clone()], 24);
    assert_eq!((chain.state(), chain.newest().unwrap().frame().address()), (State::Live, choice.address()));
    assert_eq!(chain.claims_on("comment 2^gib").count(), 1);
    assert_eq!((chain.place(left.address()), chain.place(right.address())), (Some(Place::Voided), Some(Place::Valid)));
}

// Proves: SY-28, SY-20 (E15)
#[test]
fn revocation_is_final() {
    let mut owner = Holder::owner(83);
    let first = owner.first_record();
    let one = owner.post(1);
    let end = revoke(&owner.chain, &owner.root, "first", None, at(2)).unwrap().frame().record().clone();
    let again = revoke(&owner.chain, &owner.root, "second", Some(first.address()), at(2)).unwrap();
    let again = again.frame().record().clone();
    let later = owner.post(3);
    let managed_later = managed(&mut owner, None, 4);
    let records = [first.clone(), one, end.clone(), again.clone(), later.clone(), managed_later.clone()];
    let chain = same_in_every_order(first.address(), &records, 30 * scale() as usize);
    assert_eq!(chain.state(), State::Revoked);
    // The earliest of several counts.
    assert_eq!(chain.newest().unwrap().frame().address(), again.address());
    assert_eq!(chain.newest().unwrap().rank(), Rank::Revoke);
    for record in [&later, &managed_later] {
        assert_eq!(chain.place(record.address()), Some(Place::Voided));
    }
    owner.chain = chain;
    assert_eq!(owner.make(&post(), 5).err(), Some(SignError::Revoked));
    assert_eq!(revoke(&owner.chain, &owner.root, "third", None, at(5)).err(), Some(SignError::Revoked));
}

/// Random trees of ordinary, managing and revoking frames: every order of arrival gives one verdict.
// Proves: SY-84
#[test]
fn random_trees_in_random_orders() {
    for seed in 0..4 * u64::from(scale()) {
        let mut owner = Holder::owner(900 + seed);
        let mut dice = SeededEntropy::new(seed);
        let first = owner.first_record();
        let mut records = vec![first.clone()];
        while records.len() < 9 {
            let from = records[rand(&mut dice, records.len())].clone();
            // The chain as somebody sees it who knows this branch only.
            let whole = owner.chain.clone();
            let mut branch = Chain::new(first.address().clone());
            let mut path: Vec<Verified> = Vec::new();
            let mut at_record = Some(from.address().clone());
            while let Some(address) = at_record {
                let record = whole.standing(&address).unwrap().frame().record().clone();
                at_record = record.frame_ref().unwrap().past.last().cloned();
                path.push(record);
            }
            for record in path.iter().rev() {
                assert_eq!(branch.add(record), Added::Checked);
            }
            owner.chain = branch;
            let number = records.len() as u64;
            let made = match rand(&mut dice, 8) {
                _ if owner.chain.state() == State::Revoked => None,
                0 if seed % 2 == 0 => {
                    let made = revoke(&owner.chain, &owner.root, "x", None, at(number)).unwrap();
                    Some(made.frame().record().clone())
                }
                0..3 => Some(managed(&mut owner, None, number)),
                _ => Some(owner.make(&other_post(number), number).unwrap().frame().record().clone()),
            };
            owner.chain = whole;
            if let Some(made) = made {
                assert_eq!(owner.chain.add(&made), Added::Checked);
                records.push(made);
            }
        }
        let chain = same_in_every_order(first.address(), &records, 8);
        assert_eq!(verdict(&chain), verdict(&owner.chain));
        println!("tree {seed}: {:?}, {} voided", chain.state(), chain.voided().count());
    }
}

#[test]
fn one_step_is_checked_for_one_frame_and_waiting_is_bounded() {
    let mut device = Holder::device(84);
    let mut late = Chain::new(device.first_record().address().clone());
    let records: Vec<Verified> = (1..30).map(|seconds| device.post(seconds)).collect();
    for record in records.iter().rev() {
        assert_eq!(late.add(record), Added::Waiting);
        assert_eq!(late.add(record), Added::Waiting, "twice is once");
    }
    assert_eq!((late.state(), late.frames().count()), (State::Empty, 0));
    assert_eq!(late.add(&device.first_record()), Added::Checked);
    assert_eq!(late.add(&records[3]), Added::Known);
    assert_eq!(verdict(&late), verdict(&device.chain));
    assert_eq!(late.valid_backwards().count(), 30);
    assert_eq!(late.id_count(), 30 * 256);
    // Frames whose predecessor never comes take no more than their share of memory.
    let mut flooded = Chain::new(device.first_record().address().clone());
    let mut full = 0;
    for number in 0..1_400u32 {
        let mut relations = records[5].relations().clone();
        relations.insert(
            "past".into(),
            vec![Address::parse(&format!("keystone^{number:064X}.{}", device.first_record().address().gib())).unwrap()],
        );
        let record = Verified::make_canonical("keystone", records[5].data_text().unwrap(), &relations).unwrap();
        full += usize::from(flooded.add(&record) == Added::Full);
    }
    assert_eq!(flooded.missing().count() + full, 1_400);
    assert!(full > 300 && flooded.missing().count() <= sealtide_identity::keystone::WAITING_MAX);
    // A frame of somebody else is no frame of this keystone.
    assert!(matches!(late.add(&Holder::device(85).post(1)), Added::Broken(_)));
}

// Proves: SY-29
#[test]
fn delegation() {
    let (mut owner, mut device) = (Holder::owner(86), Holder::device(86));
    let name = device.chain.first_address().clone();
    let until = at(100);
    let delegate = |verbs: &[Verb]| Delegation::new(verbs, until).unwrap().claim(name.as_str());
    let counts = |owner: &Holder, device: &Holder, verb, now: Stamp| speaks_for(&owner.chain, &device.chain, verb, now);

    assert!(!counts(&owner, &device, Verb::Sync, at(1)), "nothing is delegated yet");
    owner.sign(&delegate(&[Verb::Sync]), 1);
    // verb and time
    for (verb, now, expected) in [
        (Verb::Sync, at(2), true),
        (Verb::Sync, at(99), true),
        (Verb::Sync, at(100), false),
        (Verb::Post, at(2), false),
        (Verb::Connect, at(2), false),
        (Verb::Manage, at(2), false),
        (Verb::Delegate, at(2), false),
    ] {
        assert_eq!(counts(&owner, &device, verb, now), expected, "{verb:?} {now:?}");
    }
    owner.sign(&delegate(&[Verb::Post, Verb::Connect]), 3);
    assert!(counts(&owner, &device, Verb::Post, at(4)) && counts(&owner, &device, Verb::Sync, at(4)));
    // another device, and depth 1: a device delegates nothing, an owner is nobody's device
    assert!(!counts(&owner, &Holder::device(87), Verb::Sync, at(4)));
    assert_eq!(device.make(&delegate(&[Verb::Sync]), 1).err(), Some(SignError::Verb("delegate".into())));
    let other_owner = Holder::owner(88);
    owner.sign(&Delegation::new(&[Verb::Sync], until).unwrap().claim(other_owner.chain.first_address().as_str()), 4);
    assert!(!counts(&owner, &other_owner, Verb::Sync, at(5)));
    // undelegate ends all of it, delegating again begins anew
    owner.sign(&Claim::new(Verb::Undelegate, name.as_str()), 5);
    assert!(!counts(&owner, &device, Verb::Sync, at(6)) && !counts(&owner, &device, Verb::Post, at(6)));
    owner.sign(&delegate(&[Verb::Sync]), 7);
    assert!(counts(&owner, &device, Verb::Sync, at(8)) && !counts(&owner, &device, Verb::Post, at(8)));
    // a forked device, then a revoked owner
    let whole = device.chain.clone();
    let fork = device.make(&other_post(1), 1).unwrap().frame().record().clone();
    device.post(1);
    assert_eq!(device.chain.add(&fork), Added::Checked);
    assert!(!counts(&owner, &device, Verb::Sync, at(8)));
    device.chain = whole;
    assert!(counts(&owner, &device, Verb::Sync, at(8)));
    let end = revoke(&owner.chain, &owner.root, "over", None, at(9)).unwrap();
    assert_eq!(owner.chain.extend(end), Added::Checked);
    assert!(!counts(&owner, &device, Verb::Sync, at(9)));
}

// Proves: SY-29
#[test]
fn delegation_scopes() {
    let text = "verbs=connect,sync,post;until=2027-01-01T00:00:00Z";
    assert_eq!(Delegation::parse(text).unwrap().scope(), text);
    for bad in [
        "",
        "verbs=;until=2027-01-01T00:00:00Z",
        "verbs=sync,connect;until=2027-01-01T00:00:00Z",
        "verbs=sync,sync;until=2027-01-01T00:00:00Z",
        "verbs=delegate;until=2027-01-01T00:00:00Z",
        "verbs=manage;until=2027-01-01T00:00:00Z",
        "verbs=sync; until=2027-01-01T00:00:00Z",
        "verbs=sync;until=2027-01-01",
        "until=2027-01-01T00:00:00Z;verbs=sync",
        "verbs=sync;until=2027-01-01T00:00:00Z;x=1",
    ] {
        assert_eq!(Delegation::parse(bad), None, "{bad}");
    }
    assert_eq!(Delegation::new(&[Verb::Manage], at(1)), None);
}

/// A key that was replaced signs nothing any more, and the new one nothing before.
#[test]
fn the_key_in_force() {
    let mut owner = Holder::owner(89);
    let (working, key) = (WorkingSecret::from_bytes([1; 32]), SigningKey::from_seed(&Seed::from_bytes([1; 32])));
    let plan =
        Manage { root: &owner.root, working: &working, key: &key, profiles: OwnerProfiles::default(), from: None };
    let before = owner.chain.clone();
    let made = manage(&owner.chain, &plan, at(1), &mut owner.entropy).unwrap();
    assert_eq!(owner.chain.extend(made), Added::Checked);
    assert_eq!(owner.newest().key(), key.public());
    assert!(sign(&before, Signer::Working(&owner.working), &key, &post(), at(2), &mut owner.entropy).is_err());
    assert!(sign(&owner.chain, Signer::Working(&working), &owner.key, &post(), at(2), &mut owner.entropy).is_err());
    assert!(sign(&owner.chain, Signer::Working(&working), &key, &post(), at(2), &mut owner.entropy).is_ok());
}
