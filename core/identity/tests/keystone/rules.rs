//! Each rule of ibgib §12.3 accepts a frame of ours and refuses one that breaks it.

use sealtide_crypto::{Label, Seed, SigningKey};
use sealtide_ibgib::{Address, Data, Relations, Verified};
use sealtide_identity::keystone::{
    Claim, Frame, Manage, OwnerProfiles, Rule, Standing, Verb, WorkingSecret, manage, read_first, read_next, revoke,
};
use serde_json::{Value, json};

use crate::support::{Holder, TARGET, at, broken_first, broken_next, changed, post, resigned};

/// A first frame with one thing changed, signed again by its own key, breaks `rule`; unchanged it breaks none.
fn refuse_first(holder: &Holder, rule: Rule, change: impl FnOnce(&mut Value)) {
    let record = holder.first_record();
    assert_eq!(broken_first(&record), []);
    let broken = broken_first(&resigned(&record, &holder.key, None, change));
    assert!(broken.contains(&rule), "{rule} is not in {broken:?}");
}

/// A frame with one thing changed, signed again, breaks `rule`; unchanged it breaks none.
fn refuse_next(holder: &Holder, record: &Verified, rule: Rule, change: impl FnOnce(&mut Value)) {
    assert_eq!(broken_next(holder.newest(), record), []);
    let previous = holder.newest().frame().record();
    let broken = broken_next(holder.newest(), &resigned(record, &holder.key, Some(previous), change));
    assert!(broken.contains(&rule), "{rule} is not in {broken:?}");
}

/// The same record with other relations or another ib.
fn moved(record: &Verified, ib: &str, change: impl FnOnce(&mut Relations)) -> Verified {
    let mut relations = record.relations().clone();
    change(&mut relations);
    Verified::make(ib, Data::Json(Value::Object(record.object().unwrap())), relations).unwrap()
}

fn address(text: &str) -> Vec<Address> {
    vec![Address::parse(text).unwrap()]
}

/// A frame after the first, made by the owner and not added.
fn next_of(owner: &mut Holder) -> Verified {
    owner.make(&post(), 1).unwrap().frame().record().clone()
}

fn pool(data: &mut Value, at: usize) -> &mut Value {
    &mut data["challengePools"][at]
}

/// Takes the first challenge out of a pool and its map.
fn drop_challenge(pool: &mut Value) {
    let challenges = pool["challenges"].as_object_mut().unwrap();
    let id = challenges.keys().next().unwrap().clone();
    challenges.shift_remove(&id);
    for bucket in pool["bindingMap"].as_object_mut().unwrap().values_mut() {
        bucket.as_array_mut().unwrap().retain(|other| *other != id.as_str());
    }
}

/// Gives the first challenge another id, at its place in the pool and in its bucket.
fn rename_challenge(pool: &mut Value, name: &str) {
    let text = pool.to_string();
    let id = pool["challenges"].as_object().unwrap().keys().next().unwrap().clone();
    *pool = serde_json::from_str(&text.replace(&id, name)).unwrap();
}

// Proves: SY-20 (G1, E1)
#[test]
fn g1_e1_the_record_is_accepted() {
    let mut owner = Holder::owner(20);
    let next = next_of(&mut owner);
    let first = owner.first_record();
    assert!(read_first(first.encoded().clone()).is_ok() && read_next(next.encoded().clone()).is_ok());
    let damaged = |record: &Verified| {
        let mut bytes = record.encoded().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    assert_eq!(read_first(damaged(&first).into()).unwrap_err().rule, Rule::G1);
    assert_eq!(read_next(damaged(&next).into()).unwrap_err().rule, Rule::E1);
}

// Proves: SY-20 (G2)
#[test]
fn g2_relations_and_ib() {
    let device = Holder::device(21);
    let record = device.first_record();
    let breaks = |record: &Verified| assert!(broken_first(record).contains(&Rule::G2));
    breaks(&moved(&record, "key stone", |_| {}));
    breaks(&moved(&record, "keystone", |relations| drop(relations.insert("ancestor".into(), address("ib^gib")))));
    breaks(&moved(&record, "keystone", |relations| drop(relations.insert("dna".into(), address("x^gib")))));
    breaks(&moved(&record, "keystone", |relations| drop(relations.insert("past".into(), vec![]))));
}

// Proves: SY-20 (G3)
#[test]
fn g3_counter_and_uuid() {
    let device = Holder::device(22);
    refuse_first(&device, Rule::G3, |data| data["n"] = json!(1));
    refuse_first(&device, Rule::G3, |data| data["isTjp"] = json!(1));
    refuse_first(&device, Rule::G3, |data| data["uuid"] = json!("AB"));
}

// Proves: SY-20 (G4)
#[test]
fn g4_nothing_is_proven_or_revoked() {
    let mut device = Holder::device(23);
    let proofs = device.make(&post(), 1).unwrap().frame().record().object().unwrap()["proofs"].clone();
    refuse_first(&device, Rule::G4, |data| data["proofs"] = proofs);
    refuse_first(&device, Rule::G4, |data| data["revocationInfo"] = json!({"reason": "no"}));
}

// Proves: SY-20 (G5)
#[test]
fn g5_pool_ids() {
    let owner = Holder::owner(24);
    refuse_first(&owner, Rule::G5, |data| pool(data, 0)["id"] = json!("manage"));
    refuse_first(&owner, Rule::G5, |data| pool(data, 0)["id"] = json!("Default"));
    refuse_first(&owner, Rule::G5, |data| pool(data, 0)["config"]["salt"] = json!(""));
}

// Proves: SY-20 (G6)
#[test]
fn g6_challenges() {
    let owner = Holder::owner(25);
    refuse_first(&owner, Rule::G6, |data| drop_challenge(pool(data, 1)));
    refuse_first(&owner, Rule::G6, |data| rename_challenge(pool(data, 1), "0123456789abcdeg"));
    let other = owner.newest().frame().pools[0].challenges[0].id.to_string();
    refuse_first(&owner, Rule::G6, |data| rename_challenge(pool(data, 1), &other));
    refuse_first(&owner, Rule::G6, |data| {
        let challenges = pool(data, 0)["challenges"].as_object_mut().unwrap();
        challenges.values_mut().next().unwrap()["hash"] = json!("00");
    });
    refuse_first(&owner, Rule::G6, |data| pool(data, 0)["config"]["algo"] = json!("SHA-512"));
}

// Proves: SY-20 (G7)
#[test]
fn g7_binding_map() {
    let device = Holder::device(26);
    refuse_first(&device, Rule::G7, |data| {
        let map = pool(data, 0)["bindingMap"].as_object_mut().unwrap();
        map.values_mut().next().unwrap().as_array_mut().unwrap().reverse();
    });
    refuse_first(&device, Rule::G7, |data| pool(data, 0)["bindingMap"]["z"] = json!([]));
}

// Proves: SY-20 (G8)
#[test]
fn g8_rounds_and_numbers() {
    let device = Holder::device(27);
    refuse_first(&device, Rule::G8, |data| pool(data, 0)["config"]["rounds"] = json!(0));
    refuse_first(&device, Rule::G8, |data| pool(data, 0)["config"]["rounds"] = json!(10_001));
    refuse_first(&device, Rule::G8, |data| pool(data, 0)["config"]["behavior"]["selectRandomly"] = json!(257));
    refuse_first(&device, Rule::G8, |data| {
        pool(data, 0)["config"].as_object_mut().unwrap().shift_remove("stBind");
    });
}

// Proves: SY-20 (G9), SY-85
#[test]
fn g9_classes() {
    let (owner, device) = (Holder::owner(28), Holder::device(28));
    refuse_first(&owner, Rule::G9, |data| data["challengePools"].as_array_mut().unwrap().swap(0, 1));
    refuse_first(&owner, Rule::G9, |data| data["challengePools"].as_array_mut().unwrap().truncate(2));
    refuse_first(&device, Rule::G9, |data| data["challengePools"] = json!([]));
    let manage = owner.first_record().object().unwrap()["challengePools"][1].clone();
    refuse_first(&device, Rule::G9, |data| data["challengePools"].as_array_mut().unwrap().push(manage));
    for verbs in [json!([]), json!(["sync"]), json!(["sync", "post", "delegate"])] {
        refuse_first(&device, Rule::G9, |data| pool(data, 0)["config"]["allowedVerbs"] = verbs);
    }
    refuse_first(&owner, Rule::G9, |data| pool(data, 2)["config"]["allowedVerbs"] = json!(["revoke", "sync"]));
}

// Proves: SY-20 (G10)
#[test]
fn g10_hybrid_block() {
    let device = Holder::device(29);
    let other = SigningKey::from_seed(&Seed::from_bytes([1; 32]));
    let record = device.first_record();
    let breaks = |record: &Verified| assert_eq!(broken_first(record), [Rule::G10]);
    breaks(&resigned(&record, &other, None, |_| {}));
    breaks(&resigned(&record, &device.key, None, |data| data["st"]["kid"] = json!("0".repeat(32))));
    breaks(&resigned(&record, &device.key, None, |data| data["st"]["v"] = json!(2)));
    breaks(&resigned(&record, &device.key, None, |data| data["st"]["alg"] = json!("ML-DSA-65")));
    breaks(&changed(&record, |data| data["timestampMs"] = json!(7)));
    breaks(&changed(&record, |data| drop(data.as_object_mut().unwrap().shift_remove("st"))));
    breaks(&changed(&record, |data| {
        drop(data["st"].as_object_mut().unwrap().shift_remove("pk"));
    }));
}

// Proves: SY-20 (B), SY-85
#[test]
fn b_binding_pools() {
    let (owner, device) = (Holder::owner(30), Holder::device(30));
    for bind in [0, 31, 65, 256] {
        refuse_first(&device, Rule::B, |data| pool(data, 0)["config"]["stBind"] = json!(bind));
    }
    refuse_first(&device, Rule::B, |data| {
        drop(pool(data, 0)["config"].as_object_mut().unwrap().shift_remove("stBind"))
    });
    for number in ["selectSequentially", "selectRandomly", "targetBindingChars"] {
        refuse_first(&device, Rule::B, |data| pool(data, 0)["config"]["behavior"][number] = json!(1));
    }
    for replenish in ["top-up", "consume", "scorched-earth"] {
        refuse_first(&device, Rule::B, |data| pool(data, 0)["config"]["behavior"]["replenish"] = json!(replenish));
    }
    refuse_first(&owner, Rule::B, |data| pool(data, 2)["config"]["behavior"]["replenish"] = json!("replace-all"));
    for size in [128, 255, 2_048] {
        refuse_first(&device, Rule::B, |data| pool(data, 0)["config"]["behavior"]["size"] = json!(size));
    }
    refuse_first(&owner, Rule::B, |data| pool(data, 1)["config"]["behavior"]["size"] = json!(256));
}

// Proves: SY-20 (Form)
#[test]
fn one_spelling_only() {
    let device = Holder::device(31);
    refuse_first(&device, Rule::Form, |data| pool(data, 0)["defaultClaim"] = json!({}));
    refuse_first(&device, Rule::Form, |data| {
        let pool = pool(data, 0).as_object_mut().unwrap();
        let config = pool.shift_remove("config").unwrap();
        pool.insert("config".into(), config);
    });
    refuse_first(&device, Rule::Form, |data| pool(data, 0)["config"]["type"] = json!("hash-reveal-v2"));
    refuse_first(&device, Rule::Form, |data| data["challengePools"] = json!({}));
}

// Proves: SY-20 (E2)
#[test]
fn e2_nothing_after_a_revocation() {
    let mut owner = Holder::owner(32);
    let ended = revoke(&owner.chain, &owner.root, "over", None, at(1)).unwrap();
    let record = next_of(&mut owner);
    let frame = ended.frame();
    // What a thief with every secret but time could still try.
    let after = moved(&record, "keystone", |relations| {
        relations.insert("past".into(), vec![frame.address().clone()]);
    });
    assert!(broken_next(&ended, &changed(&after, |data| data["n"] = json!(2))).contains(&Rule::E2));
}

// Proves: SY-20 (E3)
#[test]
fn e3_place_in_the_timeline() {
    let mut owner = Holder::owner(33);
    let record = next_of(&mut owner);
    let first = owner.first_record().address().clone();
    let breaks = |record: &Verified| assert!(broken_next(owner.newest(), record).contains(&Rule::E3));
    breaks(&moved(&record, "key stone", |_| {}));
    breaks(&moved(&record, "keystone", |relations| drop(relations.insert("ancestor".into(), address("ib^gib")))));
    breaks(&moved(&record, "keystone", |relations| drop(relations.insert("identity".into(), address("x^gib")))));
    breaks(&moved(&record, "keystone", |relations| drop(relations.insert("past".into(), vec![first.clone(), first]))));
}

// Proves: SY-20 (E4, E5)
#[test]
fn e4_e5_counter_uuid_and_time() {
    let mut owner = Holder::owner(34);
    owner.post(5);
    let record = owner.make(&post(), 6).unwrap().frame().record().clone();
    refuse_next(&owner, &record, Rule::E4, |data| data["n"] = json!(3));
    refuse_next(&owner, &record, Rule::E4, |data| data["uuid"] = json!("0".repeat(64)));
    refuse_next(&owner, &record, Rule::E4, |data| data["isTjp"] = json!(false));
    let early = at(4).timestamp();
    refuse_next(&owner, &record, Rule::E5, |data| data["timestamp"] = json!(early));
    refuse_next(&owner, &record, Rule::E5, |data| data["timestamp"] = json!("now"));
}

// Proves: SY-20 (E6), SY-85
#[test]
fn e6_two_proofs_or_none() {
    let mut owner = Holder::owner(35);
    let record = next_of(&mut owner);
    refuse_next(&owner, &record, Rule::E6, |data| data["proofs"] = json!([]));
    refuse_next(&owner, &record, Rule::E6, |data| {
        let proof = data["proofs"][0].clone();
        data["proofs"].as_array_mut().unwrap().push(proof);
    });
    refuse_next(&owner, &record, Rule::E6, |data| data["proofs"][0]["solutions"] = json!([]));
}

// Proves: SY-20 (E7)
#[test]
fn e7_exactly_the_demanded() {
    let mut owner = Holder::owner(36);
    let record = next_of(&mut owner);
    let solutions = |data: &mut Value, change: &dyn Fn(&mut Vec<Value>)| {
        change(data["proofs"][0]["solutions"].as_array_mut().unwrap());
    };
    refuse_next(&owner, &record, Rule::E7, |data| solutions(data, &|list| drop(list.pop())));
    refuse_next(&owner, &record, Rule::E7, |data| solutions(data, &|list| list.push(list[0].clone())));
    refuse_next(&owner, &record, Rule::E7, |data| solutions(data, &|list| list[1] = list[0].clone()));
    refuse_next(&owner, &record, Rule::E7, |data| solutions(data, &|list| list.swap(0, 1)));
    refuse_next(&owner, &record, Rule::E7, |data| solutions(data, &|list| list[3]["poolId"] = json!("manage")));
    refuse_next(&owner, &record, Rule::E7, |data| solutions(data, &|list| list[0]["poolId"] = json!("other")));
}

// Proves: SY-20 (E8)
#[test]
fn e8_verb_and_values() {
    let mut owner = Holder::owner(37);
    let record = next_of(&mut owner);
    refuse_next(&owner, &record, Rule::E8, |data| data["proofs"][0]["claim"]["verb"] = json!("manage"));
    refuse_next(&owner, &record, Rule::E8, |data| data["proofs"][0]["solutions"][5]["value"] = json!("00"));
    refuse_next(&owner, &record, Rule::E8, |data| {
        data["proofs"][0]["solutions"][5]["challengeId"] = json!("0000000000000000");
    });
}

// Proves: SY-20 (E9)
#[test]
fn e9_demands_follow_from_the_content() {
    let mut owner = Holder::owner(38);
    let record = next_of(&mut owner);
    refuse_next(&owner, &record, Rule::E9, |data| data["proofs"][0]["claim"]["scope"] = json!("more"));
    refuse_next(&owner, &record, Rule::E9, |data| data["frameDetails"] = json!({"note": "more"}));
    refuse_next(&owner, &record, Rule::E9, |data| {
        data["proofs"][0]["requiredChallengeIds"].as_array_mut().unwrap().swap(0, 1);
    });
    refuse_next(&owner, &record, Rule::E9, |data| {
        drop(data["proofs"][0].as_object_mut().unwrap().shift_remove("requiredChallengeIds"));
    });
}

// Proves: SY-20 (E10)
#[test]
fn e10_pools_change_by_their_strategy() {
    let mut owner = Holder::owner(39);
    let record = next_of(&mut owner);
    let old = owner.first_record().object().unwrap()["challengePools"].clone();
    let other = Holder::owner(40).first_record().object().unwrap()["challengePools"].clone();
    refuse_next(&owner, &record, Rule::E10, |data| *pool(data, 1) = other[1].clone());
    refuse_next(&owner, &record, Rule::E10, |data| *pool(data, 0) = old[0].clone());
    refuse_next(&owner, &record, Rule::E10, |data| drop_challenge(pool(data, 0)));
    refuse_next(&owner, &record, Rule::E10, |data| pool(data, 0)["config"]["rounds"] = json!(2));
    refuse_next(&owner, &record, Rule::E10, |data| pool(data, 0)["bindingMap"]["z"] = json!([]));
    let spent = owner.newest().frame().pools[1].challenges[0].id.to_string();
    refuse_next(&owner, &record, Rule::E10, |data| rename_challenge(pool(data, 0), &spent));
    // An id of a frame longer ago.
    let frame = Frame::read(&record).unwrap();
    let broken = owner.newest().step(frame, &|_| true).unwrap_err();
    assert!(broken.iter().all(|broken| broken.rule == Rule::E10) && !broken.is_empty());
}

fn managed(owner: &mut Holder) -> Verified {
    let (working, key) = (WorkingSecret::from_bytes([1; 32]), SigningKey::from_seed(&Seed::from_bytes([1; 32])));
    let plan =
        Manage { root: &owner.root, working: &working, key: &key, profiles: OwnerProfiles::default(), from: None };
    let made: Standing = manage(&owner.chain, &plan, at(1), &mut owner.entropy).unwrap();
    made.frame().record().clone()
}

/// As `refuse_next`, for a frame that the new key signs.
fn refuse_managed(owner: &Holder, record: &Verified, rule: Rule, change: impl FnOnce(&mut Value)) {
    let key = SigningKey::from_seed(&Seed::from_bytes([1; 32]));
    assert_eq!(broken_next(owner.newest(), record), []);
    let previous = owner.newest().frame().record();
    let broken = broken_next(owner.newest(), &resigned(record, &key, Some(previous), change));
    assert!(broken.contains(&rule), "{rule} is not in {broken:?}");
}

// Proves: SY-20 (E11)
#[test]
fn e11_managing() {
    let mut owner = Holder::owner(41);
    let record = managed(&mut owner);
    refuse_managed(&owner, &record, Rule::E11, |data| data["proofs"][0]["claim"]["target"] = json!(TARGET));
    refuse_managed(&owner, &record, Rule::E11, |data| data["proofs"][0]["claim"]["verb"] = json!("sync"));
    refuse_managed(&owner, &record, Rule::E11, |data| data["challengePools"].as_array_mut().unwrap().truncate(1));
    refuse_managed(&owner, &record, Rule::G8, |data| pool(data, 0)["config"]["rounds"] = json!(0));
    let old = owner.first_record().object().unwrap()["challengePools"][1].clone();
    refuse_managed(&owner, &record, Rule::E10, |data| *pool(data, 1) = old);
    // New pools under a proof of pool `default` are no management at all.
    let ordinary = next_of(&mut owner);
    let pools = record.object().unwrap()["challengePools"].clone();
    refuse_next(&owner, &ordinary, Rule::E10, |data| data["challengePools"] = pools);
}

// Proves: SY-20 (E12)
#[test]
fn e12_revoking() {
    let owner = Holder::owner(42);
    let ended = revoke(&owner.chain, &owner.root, "over", None, at(1)).unwrap();
    let record = ended.frame().record().clone();
    assert_eq!(broken_next(owner.newest(), &record), []);
    let breaks = |change: &dyn Fn(&mut Value)| {
        let broken = broken_next(owner.newest(), &changed(&record, change));
        assert!(broken.contains(&Rule::E12), "{broken:?}");
    };
    breaks(&|data| data["proofs"][0]["claim"]["target"] = json!(TARGET));
    breaks(&|data| data["revocationInfo"]["proof"]["claim"]["target"] = json!(TARGET));
    breaks(&|data| drop(data["revocationInfo"].as_object_mut().unwrap().shift_remove("proof")));
    breaks(&|data| drop(data.as_object_mut().unwrap().shift_remove("revocationInfo")));
    let pools = owner.first_record().object().unwrap()["challengePools"].clone();
    breaks(&|data| data["challengePools"] = pools.clone());
    breaks(&|data| pool(data, 0)["bindingMap"] = json!({}));
    // The reason is bound by the demands.
    let other = changed(&record, |data| data["revocationInfo"]["reason"] = json!("another"));
    assert!(broken_next(owner.newest(), &other).contains(&Rule::E9));
}

// Proves: SY-20 (E13)
#[test]
fn e13_the_claim() {
    let mut owner = Holder::owner(43);
    let record = next_of(&mut owner);
    for claim in [
        json!({"target": TARGET}),
        json!({"verb": "post"}),
        json!({"target": "nothing", "verb": "post"}),
        json!({"target": "0".repeat(64), "verb": "post"}),
        json!({"target": TARGET, "verb": "post", "more": 1}),
        json!({"target": TARGET, "verb": 1}),
        json!("post"),
    ] {
        refuse_next(&owner, &record, Rule::E13, |data| data["proofs"][0]["claim"] = claim);
    }
    assert!(owner.make(&Claim::new(Verb::Post, TARGET), 1).is_ok());
}

// Proves: SY-20 (E14), SY-24
#[test]
fn e14_hash_part_or_signature_part_alone() {
    let mut owner = Holder::owner(44);
    let record = next_of(&mut owner);
    let previous = owner.first_record();
    let stranger = SigningKey::from_seed(&Seed::from_bytes([2; 32]));
    let frame = Frame::read(&record).unwrap();
    let content = frame.signed_content(Some(previous.address()));
    let with = |signature: sealtide_crypto::Signature| {
        let text = data_encoding::BASE64URL_NOPAD.encode(signature.as_bytes());
        broken_next(owner.newest(), &changed(&record, |data| data["st"]["sig"] = json!(text)))
    };
    assert_eq!(with(owner.key.sign(Label::KeystoneFrame, &content)), []);
    for label in Label::ALL.into_iter().filter(|label| *label != Label::KeystoneFrame) {
        assert_eq!(with(owner.key.sign(label, &content)), [Rule::E14]);
    }
    assert_eq!(with(stranger.sign(Label::KeystoneFrame, &content)), [Rule::E14]);
    assert_eq!(with(owner.key.sign(Label::KeystoneFrame, &frame.signed_content(None))), [Rule::E14]);
    // Dropped, swapped for the one of another frame, of another length.
    let dropped = changed(&record, |data| drop(data.as_object_mut().unwrap().shift_remove("st")));
    assert!(broken_next(owner.newest(), &dropped).contains(&Rule::E14));
    let first_signature = previous.object().unwrap()["st"]["sig"].clone();
    for signature in [first_signature, json!(""), json!("AAAA")] {
        let swapped = changed(&record, |data| data["st"]["sig"] = signature);
        assert_eq!(broken_next(owner.newest(), &swapped), [Rule::E14]);
    }
    // A good signature over a false hash proof.
    refuse_next(&owner, &record, Rule::E8, |data| data["proofs"][0]["solutions"][0]["value"] = json!("00"));
    // A second library agrees about the signature.
    let signature = frame.block.unwrap().sig;
    let signature = data_encoding::BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    assert!(second_library_takes(&owner, &content, &signature));
    let mut other = content.clone();
    other[100] ^= 1;
    assert!(!second_library_takes(&owner, &other, &signature));
}

fn second_library_takes(owner: &Holder, content: &[u8], signature: &[u8]) -> bool {
    use ml_dsa::{EncodedSignature, EncodedVerifyingKey, MlDsa87, VerifyingKey};
    let key = EncodedVerifyingKey::<MlDsa87>::try_from(owner.key.public().as_bytes()).unwrap();
    let encoded = EncodedSignature::<MlDsa87>::try_from(signature).unwrap();
    let message = sealtide_crypto::signed_message(Label::KeystoneFrame, content);
    let signature = ml_dsa::Signature::<MlDsa87>::decode(&encoded).unwrap();
    VerifyingKey::<MlDsa87>::decode(&key).verify_with_context(&message, &[], &signature)
}

// Proves: SY-81
#[test]
fn keystone_swap_pk() {
    let mut owner = Holder::owner(45);
    let record = managed(&mut owner);
    let previous = owner.first_record();
    let (thief, old) = (SigningKey::from_seed(&Seed::from_bytes([3; 32])), &owner.key);
    let named = |key: &SigningKey| {
        let pk = data_encoding::BASE64URL_NOPAD.encode(key.public().as_bytes());
        (json!(pk), json!(sealtide_identity::keystone::kid(key.public())))
    };
    for key in [&thief, old] {
        let (pk, kid) = named(key);
        let swapped = resigned(&record, key, Some(&previous), |data| {
            data["st"]["pk"] = pk;
            data["st"]["kid"] = kid;
        });
        assert!(broken_next(owner.newest(), &swapped).contains(&Rule::E9));
    }
    for (member, value) in [("kid", json!("1".repeat(32))), ("v", json!(2)), ("alg", json!("x")), ("pk", json!("AA"))] {
        let mutated = resigned(&record, &thief, Some(&previous), |data| data["st"][member] = value);
        assert!(broken_next(owner.newest(), &mutated).contains(&Rule::E9), "{member}");
    }
    // Only pool `manage` may bring a new key, whoever signs.
    let ordinary = next_of(&mut owner);
    let (pk, kid) = named(&thief);
    let smuggled = resigned(&ordinary, &thief, Some(&previous), |data| {
        data["st"]["pk"] = pk;
        data["st"]["kid"] = kid;
    });
    assert!(broken_next(owner.newest(), &smuggled).contains(&Rule::E14));
}
