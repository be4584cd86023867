//! What our builders make: every frame passes our rules and V1's check, whatever the class.

use sealtide_crypto::{Seed, SigningKey};
use sealtide_identity::keystone::{
    Added, Chain, Claim, Class, Manage, OwnerProfiles, Profile, Rank, RootSecret, SignError, Signer, State, Verb,
    WorkingSecret, device_genesis, drill, manage, owner_genesis, revoke, session_genesis, sign,
};

use crate::support::{Holder, TARGET, at, post, v1_takes};

// Proves: SY-18, SY-85
#[test]
fn v1_takes_every_frame_that_we_make() {
    let mut owner = Holder::owner(1);
    let mut device = Holder::device(2);
    let device_first = device.first_record();
    let mut records = vec![owner.first_record()];
    records.push(owner.post(1));
    let delegate =
        Claim::new(Verb::Delegate, device_first.address().as_str()).scoped("any \"scope\" \u{1F30A}\n".into());
    records.push(owner.sign(&delegate, 2));
    let next = Manage {
        root: &owner.root,
        working: &WorkingSecret::from_bytes([9; 32]),
        key: &SigningKey::from_seed(&Seed::from_bytes([9; 32])),
        profiles: OwnerProfiles { default: Profile::Standard, manage: Profile::Strong, revoke: Profile::Light },
        from: None,
    };
    let managed = manage(&owner.chain, &next, at(3), &mut owner.entropy).unwrap();
    records.push(managed.frame().record().clone());
    assert_eq!((managed.rank(), managed.key() == next.key.public()), (Rank::Manage, true));
    assert_eq!(owner.chain.extend(managed), Added::Checked);
    let after = sign(&owner.chain, Signer::Working(next.working), next.key, &post(), at(4), &mut owner.entropy);
    records.push(after.as_ref().unwrap().frame().record().clone());
    assert_eq!(owner.chain.extend(after.unwrap()), Added::Checked);
    let revoked = revoke(&owner.chain, &owner.root, "lost \"it\"", None, at(5)).unwrap();
    records.push(revoked.frame().record().clone());
    assert_eq!(owner.chain.extend(revoked), Added::Checked);
    assert_eq!(owner.chain.state(), State::Revoked);
    check_all(&records);

    let mut records = vec![device_first];
    records.extend((1..4).map(|seconds| device.post(seconds)));
    check_all(&records);

    let secret = device.working.session(&[7; 32]);
    let key = SigningKey::from_seed(&secret.key_seed());
    let mut chain = Chain::begun(session_genesis(&secret, at(0), &mut device.entropy));
    let mut records = vec![chain.newest().unwrap().frame().record().clone()];
    for (n, verb) in [Verb::Connect, Verb::Sync, Verb::Sync].into_iter().enumerate() {
        let claim = Claim::new(verb, &format!("{n:064x}"));
        let made = sign(&chain, Signer::Session(&secret), &key, &claim, at(1), &mut device.entropy).unwrap();
        records.push(made.frame().record().clone());
        assert_eq!(chain.extend(made), Added::Checked);
    }
    assert_eq!(chain.newest().unwrap().class(), Class::Session);
    check_all(&records);
}

fn check_all(records: &[sealtide_ibgib::Verified]) {
    assert!(v1_takes(None, &records[0]));
    for pair in records.windows(2) {
        assert!(v1_takes(Some(&pair[0]), &pair[1]), "{}", pair[1].address());
    }
    // A second node takes them too, and shows the same.
    let mut chain = Chain::new(records[0].address().clone());
    for record in records {
        assert_eq!(chain.add(record), Added::Checked);
    }
    assert_eq!(chain.newest().unwrap().frame().record(), records.last().unwrap());
}

// Proves: SY-85
#[test]
fn frame_sizes() {
    let mut made = Holder::owner(3);
    let all = |profile| OwnerProfiles { default: profile, manage: profile, revoke: profile };
    for (name, profiles) in [("default", OwnerProfiles::default()), ("strong", all(Profile::Strong))] {
        let first = owner_genesis(&made.root, &made.working, &made.key, profiles, at(0), &mut made.entropy);
        made.chain = Chain::begun(first);
        let next = made.post(1);
        println!(
            "owner {name}: first {} bytes, next {} bytes",
            made.first_record().encoded().len(),
            next.encoded().len()
        );
        assert!(next.encoded().len() < sealtide_ibgib::RECORD_BYTES_MAX);
    }
    for profile in [Profile::Light, Profile::Standard, Profile::Strong] {
        made.chain = Chain::begun(device_genesis(&made.working, &made.key, profile, at(0), &mut made.entropy));
        let next = made.post(1);
        println!(
            "device {profile:?}: first {} bytes, next {} bytes",
            made.first_record().encoded().len(),
            next.encoded().len()
        );
    }
    let secret = made.working.session(&[1; 32]);
    let mut chain = Chain::begun(session_genesis(&secret, at(0), &mut made.entropy));
    let first = chain.newest().unwrap().frame().record().encoded().len();
    let claim = Claim::new(Verb::Connect, &"0".repeat(64));
    let key = SigningKey::from_seed(&secret.key_seed());
    let next = sign(&chain, Signer::Session(&secret), &key, &claim, at(1), &mut made.entropy).unwrap();
    println!("session: first {first} bytes, next {} bytes", next.frame().record().encoded().len());
    assert_eq!(chain.extend(next), Added::Checked);
}

// Proves: SY-82
#[test]
fn recover_without_mldsa_key() {
    let mut owner = Holder::owner(4);
    owner.post(1);
    let words = owner.root.words();
    let records: Vec<_> = owner.chain.frames().map(|frame| frame.record().clone()).collect();
    // Working secret and key are lost: words and public frames are all there is.
    let root = RootSecret::from_words(&words).unwrap();
    let mut second = Chain::new(records[0].address().clone());
    for record in &records {
        assert_eq!(second.add(record), Added::Checked);
    }
    drill(&second, &root).unwrap();
    let (working, key) = (WorkingSecret::from_bytes([5; 32]), SigningKey::from_seed(&Seed::from_bytes([5; 32])));
    let plan = Manage { root: &root, working: &working, key: &key, profiles: OwnerProfiles::default(), from: None };
    let recovered = manage(&second, &plan, at(2), &mut owner.entropy).unwrap();
    // Another node that saw only the frames takes it.
    assert_eq!(owner.chain.add(recovered.frame().record()), Added::Checked);
    assert_eq!(owner.chain.newest().unwrap().key(), key.public());
    assert_eq!(second.extend(recovered), Added::Checked);
    sign(&second, Signer::Working(&working), &key, &post(), at(3), &mut owner.entropy).unwrap();
    // What the thief has is worth nothing now.
    assert_eq!(owner.make(&post(), 3).err(), Some(SignError::WrongKey));
    let old = sign(&second, Signer::Working(&owner.working), &key, &post(), at(3), &mut owner.entropy);
    assert_eq!(old.err(), Some(SignError::WrongSecret));

    let revoked = revoke(&second, &root, "recovered and ended", None, at(4)).unwrap();
    assert_eq!(owner.chain.add(revoked.frame().record()), Added::Checked);
    assert_eq!(owner.chain.state(), State::Revoked);
}

// Proves: SY-31
#[test]
fn drill_reveals_nothing_and_knows_its_words() {
    let owner = Holder::owner(5);
    drill(&owner.chain, &owner.root).unwrap();
    assert_eq!(drill(&owner.chain, &RootSecret::from_bytes([1; 32])).err(), Some(SignError::WrongSecret));
    let device = Holder::device(5);
    assert_eq!(drill(&device.chain, &device.root).err(), Some(SignError::Verb("manage".into())));
}

/// Everything a stolen machine holds: working secret and key, no words.
// Proves: SY-82
#[test]
fn without_the_words_nothing_is_managed_or_revoked() {
    let mut owner = Holder::owner(6);
    for bytes in [*owner.working.expose(), [0; 32], *sealtide_crypto::Seed::from_bytes([6; 32]).expose()] {
        let root = RootSecret::from_bytes(bytes);
        let plan = Manage {
            root: &root,
            working: &owner.working,
            key: &owner.key,
            profiles: OwnerProfiles::default(),
            from: None,
        };
        assert_eq!(manage(&owner.chain, &plan, at(1), &mut owner.entropy).err(), Some(SignError::WrongSecret));
        assert_eq!(revoke(&owner.chain, &root, "theft", None, at(1)).err(), Some(SignError::WrongSecret));
    }
}

#[test]
fn refusals_before_anything_is_made() {
    let mut device = Holder::device(7);
    let manage_claim = Claim::new(Verb::Manage, TARGET);
    assert_eq!(device.make(&manage_claim, 1).err(), Some(SignError::Verb("manage".into())));
    let delegate = Claim::new(Verb::Delegate, TARGET);
    assert_eq!(device.make(&delegate, 1).err(), Some(SignError::Verb("delegate".into())));
    for target in ["", "no address", &"0".repeat(64)] {
        assert_eq!(device.make(&Claim::new(Verb::Post, target), 1).err(), Some(SignError::Target));
    }
    let empty = Chain::new(device.first_record().address().clone());
    let other = SigningKey::from_seed(&Seed::from_bytes([1; 32]));
    let signer = Signer::Working(&device.working);
    assert_eq!(sign(&empty, signer, &other, &post(), at(1), &mut device.entropy).err(), Some(SignError::Unknown));
    assert_eq!(
        sign(&device.chain, signer, &other, &post(), at(1), &mut device.entropy).err(),
        Some(SignError::WrongKey)
    );
    let wrong = WorkingSecret::from_bytes([1; 32]);
    assert_eq!(
        sign(&device.chain, Signer::Working(&wrong), &device.key, &post(), at(1), &mut device.entropy).err(),
        Some(SignError::WrongSecret)
    );
}

#[test]
fn a_clock_that_steps_back_does_not_break_the_chain() {
    let mut device = Holder::device(8);
    device.post(100);
    let record = device.post(50);
    assert_eq!(record.frame_ref().unwrap().stamp, Some(at(100)));
}
