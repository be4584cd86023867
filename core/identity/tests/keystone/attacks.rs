//! The weaknesses of V1, W1 to W10, against the strict rules; W11 and W12 are of size, not of rules.

use std::collections::BTreeSet;

use sealtide_ibgib::{Data, Verified};
use sealtide_identity::keystone::{
    Added, Chain, ChallengeId, Claim, Derivation, Frame, Rule, State, Verb, revoke, session_genesis,
};
use serde_json::{Value, json};

use crate::support::{Holder, TARGET, at, broken_first, broken_next, post, resigned, v1_takes};

/// What pool `default` of a holder is derived from; the library gives it to nobody.
fn solution(holder: &Holder, id: ChallengeId) -> String {
    let master =
        sealtide_crypto::hkdf_sha512(holder.working.expose(), b"sealtide/working/1", holder.newest().uuid().as_bytes());
    let pool = &holder.newest().frame().pools[0];
    let derivation = Derivation { salt: &pool.id, algo: pool.config.algo, rounds: pool.config.rounds };
    let secret = derivation.pool_secret(&data_encoding::HEXLOWER.encode(&master));
    derivation.solution(&secret, id.as_str()).to_string()
}

// Proves: SY-21 (W1), SY-77
#[test]
fn w1_a_frame_without_proofs() {
    let mut device = Holder::device(51);
    let (first, record) = (device.first_record(), device.make(&post(), 1).unwrap().frame().record().clone());
    let bare = resigned(&record, &device.key, Some(&first), |data| data["proofs"] = json!([]));
    assert!(v1_takes(Some(&first), &bare), "V1 lets anybody extend a keystone");
    assert_eq!(broken_next(device.newest(), &bare), [Rule::E6]);
}

// Proves: SY-21 (W2), SY-77
#[test]
fn w2_other_content_with_the_same_reveal() {
    let mut device = Holder::device(52);
    let (first, record) = (device.first_record(), device.make(&post(), 1).unwrap().frame().record().clone());
    let thief = Holder::device(53).first_record().object().unwrap()["challengePools"].clone();
    // Even with the stolen key.
    let stolen = resigned(&record, &device.key, Some(&first), |data| data["challengePools"] = thief);
    assert!(v1_takes(Some(&first), &stolen), "V1 gives the identity to whoever sees the reveal first");
    assert_eq!(broken_next(device.newest(), &stolen), [Rule::E9]);
    let other = resigned(&record, &device.key, Some(&first), |data| {
        data["proofs"][0]["claim"]["target"] = json!("comment ho^gib");
    });
    assert!(v1_takes(Some(&first), &other));
    assert_eq!(broken_next(device.newest(), &other), [Rule::E9]);
}

// Proves: SY-21 (W3), SY-77
#[test]
fn w3_splicing_and_reviving() {
    let mut device = Holder::device(54);
    let one = device.post(1);
    let two = device.post(2);
    let mut relations = two.relations().clone();
    relations.insert("past".into(), vec![device.first_record().address().clone()]);
    let spliced = Verified::make("keystone", Data::Json(Value::Object(two.object().unwrap())), relations).unwrap();
    let first = Chain::begun(device.chain.genesis().unwrap().clone());
    let broken = broken_next(first.newest().unwrap(), &spliced);
    assert!(broken.contains(&Rule::E4) && broken.contains(&Rule::E9), "{broken:?}");
    // Skipping a frame: V1 looks at no link.
    assert!(broken_next(device.chain.standing(one.address()).unwrap(), &spliced).contains(&Rule::E3));

    let mut owner = Holder::owner(54);
    let ended = revoke(&owner.chain, &owner.root, "over", None, at(1)).unwrap();
    let revived = owner.make(&post(), 2).unwrap().frame().record().clone();
    assert!(broken_next(&ended, &revived).contains(&Rule::E2));
}

// Proves: SY-21 (W4), SY-77
#[test]
fn w4_forced_revocation() {
    let mut owner = Holder::owner(55);
    let (first, record) = (owner.first_record(), owner.make(&post(), 1).unwrap().frame().record().clone());
    let forced = resigned(&record, &owner.key, Some(&first), |data| {
        let target = first.address().as_str();
        data["revocationInfo"] = json!({"reason": "x", "proof": {"claim": {"target": target, "verb": "revoke"}}});
    });
    assert!(v1_takes(Some(&first), &forced), "V1 takes any signed frame as a revocation");
    let broken = broken_next(owner.newest(), &forced);
    assert!(broken.contains(&Rule::E12) && broken.contains(&Rule::E14), "{broken:?}");
}

// Proves: SY-21 (W5), SY-22
#[test]
fn w5_two_frames_in_one_millisecond() {
    let mut device = Holder::device(56);
    for _ in 0..10 {
        device.post(0);
    }
    let ids: BTreeSet<ChallengeId> = device.chain.frames().flat_map(Frame::challenge_ids).collect();
    assert_eq!(ids.len(), 11 * 256);
    // Going back to the ids of an earlier frame is refused by everybody who has that frame.
    let old = device.first_record().object().unwrap()["challengePools"].clone();
    let newest = device.newest().frame().record().clone();
    let record = device.make(&post(), 0).unwrap().frame().record().clone();
    let replayed = resigned(&record, &device.key, Some(&newest), |data| data["challengePools"] = old);
    let Added::Broken(broken) = device.chain.add(&replayed) else { panic!("taken") };
    assert!(broken.iter().any(|broken| broken.rule == Rule::E10));
}

// Proves: SY-21 (W6)
#[test]
fn w6_ids_that_collide_across_pools() {
    let owner = Holder::owner(57);
    let collided = resigned(&owner.first_record(), &owner.key, None, |data| {
        let name = data["challengePools"][0]["challenges"].as_object().unwrap().keys().next().unwrap().clone();
        let other = data["challengePools"][1]["challenges"].as_object().unwrap().keys().next().unwrap().clone();
        let text = data["challengePools"][1].to_string().replace(&other, &name);
        data["challengePools"][1] = serde_json::from_str(&text).unwrap();
    });
    assert!(broken_first(&collided).contains(&Rule::G6));
}

// Proves: SY-21 (W7), SY-27
#[test]
fn w7_signing_twice_is_seen() {
    let mut device = Holder::device(58);
    let left = device.make(&post(), 1).unwrap().frame().record().clone();
    let right = device.make(&Claim::new(Verb::Post, "comment ho^gib"), 1).unwrap().frame().record().clone();
    assert!(v1_takes(Some(&device.first_record()), &left) && v1_takes(Some(&device.first_record()), &right));
    assert_eq!(device.chain.add(&left), Added::Checked);
    assert_eq!(device.chain.state(), State::Live);
    assert_eq!(device.chain.add(&right), Added::Checked);
    assert_eq!(device.chain.state(), State::Forked);
    assert_eq!(device.chain.claims_on(TARGET).count(), 0);
}

// Proves: SY-21 (W8)
#[test]
fn w8_rounds_zero_empty_salt_dead_pool() {
    let device = Holder::device(59);
    let first = device.first_record();
    let broken = |change: &dyn Fn(&mut Value)| broken_first(&resigned(&first, &device.key, None, change));
    assert_eq!(broken(&|data| data["challengePools"][0]["config"]["rounds"] = json!(0)), [Rule::G8]);
    let nameless = broken(&|data| {
        data["challengePools"][0]["id"] = json!("");
        data["challengePools"][0]["config"]["salt"] = json!("");
    });
    assert!(nameless.contains(&Rule::G5));
    let dead = broken(&|data| {
        data["challengePools"][0]["config"].as_object_mut().unwrap().shift_remove("stBind");
    });
    assert_eq!(dead, [Rule::G8, Rule::B]);
}

// Proves: SY-21 (W9)
#[test]
fn w9_no_selection_by_chance() {
    let mut device = Holder::device(60);
    let secret = device.working.session(&[1; 32]);
    let session = session_genesis(&secret, at(0), &mut device.entropy).frame().record().clone();
    let key = sealtide_crypto::SigningKey::from_seed(&secret.key_seed());
    for (record, key, rule) in [(device.first_record(), &device.key, Rule::B), (session, &key, Rule::G8)] {
        let random = resigned(&record, key, None, |data| {
            data["challengePools"][0]["config"]["behavior"]["selectRandomly"] = json!(2);
        });
        assert_eq!(broken_first(&random), [rule]);
    }
}

/// A target with the same first characters demands other challenges.
// Proves: SY-21 (W10)
#[test]
fn w10_targets_that_begin_alike() {
    let mut device = Holder::device(61);
    let (first, record) = (device.first_record(), device.make(&post(), 1).unwrap().frame().record().clone());
    let mut alike = 0;
    for last in 0..200 {
        let target = format!("{}{last:04}", &TARGET[..TARGET.len() - 4]);
        let moved = resigned(&record, &device.key, Some(&first), |data| {
            data["proofs"][0]["claim"]["target"] = json!(target);
        });
        alike += usize::from(broken_next(device.newest(), &moved).is_empty());
    }
    assert_eq!(alike, 0);
}

/// What the guard against a second signature protects: two frames from one pool together reveal the union of their
/// demands, and a third frame could be forged only if all its demands fell into that union.
// Proves: SY-85
#[test]
fn hors_union() {
    let mut device = Holder::device(62);
    let mut union = BTreeSet::new();
    for (signs, most) in [(1, 32), (2, 64), (3, 96)] {
        let claim = Claim::new(Verb::Post, &format!("comment {signs}^gib"));
        let made = device.make(&claim, 1).unwrap();
        for solution_shown in &made.frame().proofs[0].solutions {
            assert_eq!(solution_shown.value, solution(&device, solution_shown.id));
            union.insert(solution_shown.id);
        }
        // log2 of C(256,32) / C(union,32), what a forger has to try: on average 135, 79 and 58, without overlap less.
        let bits: f64 = (0..32).map(|i| (f64::from(256 - i) / (union.len() as f64 - f64::from(i))).log2()).sum();
        println!("{signs} signs from one pool: {} of 256 revealed, {bits:.0} bits", union.len());
        assert!(union.len() <= most && bits > [134.0, 74.0, 50.0][signs - 1]);
    }
}
