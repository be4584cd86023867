//! Commit stones: made, checked, refused. Spec: ibgib §12.6.

use sealtide_crypto::{Label, Seed, SigningKey};
use sealtide_ibgib::{Address, Data, Relations, Sid, Verified};
use sealtide_identity::NodeId;
use sealtide_identity::authorship::{
    Author, Authors, CommitRefused, STONE_BYTES_MAX, TIPS_MAX, Tip, check_commit, commit_stones,
};
use serde_json::{Value, json};

fn key(byte: u8) -> SigningKey {
    SigningKey::from_seed(&Seed::from_bytes([byte; 32]))
}

fn keystone() -> Address {
    Address::parse(&format!("keystone^{:064X}", 7)).unwrap()
}

fn tip(number: u64, ib: &str) -> Tip {
    let mut sid = [0; 32];
    sid[..8].copy_from_slice(&(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_be_bytes());
    Tip { sid: Sid(sid), address: Address::parse(&format!("{ib}^{number:064X}.{:064X}", number + 1)).unwrap() }
}

fn tips(count: u64) -> Vec<Tip> {
    (0..count).map(|number| tip(number, "file")).collect()
}

fn made(key: &SigningKey, tips: Vec<Tip>) -> Vec<Verified> {
    commit_stones(&Author { key, keystone: &keystone() }, tips, 1_700_000_000_000, None).unwrap()
}

fn changed(record: &Verified, change: impl FnOnce(&mut Value, &mut Relations)) -> Verified {
    let (mut data, mut relations) = (Value::Object(record.object().unwrap()), record.relations().clone());
    change(&mut data, &mut relations);
    Verified::make(record.address().ib(), Data::Json(data), relations).unwrap()
}

// Proves: SY-103
#[test]
fn a_batch_is_signed() {
    let key = key(1);
    let stones = made(&key, tips(3));
    let commit = check_commit(&stones[0], key.public()).unwrap();
    assert_eq!((stones.len(), commit.by, commit.seq, commit.prev.clone()), (1, NodeId::of(key.public()), 0, None));
    let mut sorted = tips(3);
    sorted.sort();
    let sids: Vec<Sid> = sorted.iter().map(|tip| tip.sid).collect();
    assert_eq!(commit.tips, sorted.iter().map(|tip| tip.address.clone()).collect::<Vec<_>>());
    commit.check_tips(&sids).unwrap();
    // wrong tips, wrong order, too few
    for wrong in [vec![sids[0], sids[1], Sid([9; 32])], vec![sids[1], sids[0], sids[2]], sids[..2].to_vec()] {
        assert_eq!(commit.check_tips(&wrong), Err(CommitRefused::Tips));
    }
}

// Proves: SY-103
#[test]
fn large_batches_have_several_stones() {
    let key = key(2);
    let author = Author { key: &key, keystone: &keystone() };
    let stones = made(&key, tips(TIPS_MAX as u64 * 2 + 1));
    let commits: Vec<_> = stones.iter().map(|stone| check_commit(stone, key.public()).unwrap()).collect();
    assert!(stones.iter().all(|stone| stone.encoded().len() <= STONE_BYTES_MAX));
    assert_eq!(commits.iter().map(|commit| commit.tips.len()).sum::<usize>(), TIPS_MAX * 2 + 1);
    for (at, pair) in commits.windows(2).enumerate() {
        assert_eq!((pair[1].seq, pair[1].prev.as_ref()), (pair[0].seq + 1, Some(stones[at].address())));
    }
    let last = stones.last().unwrap();
    let next = commit_stones(&author, tips(1), 5, Some((last.address(), commits.last().unwrap().seq))).unwrap();
    assert_eq!(check_commit(&next[0], key.public()).unwrap().prev.as_ref(), Some(last.address()));
    // Long names make the stones smaller.
    let long: Vec<Tip> = (0..600).map(|number| tip(number, &"x".repeat(3_000))).collect();
    assert!(made(&key, long).len() > 3);
}

// Proves: SY-103
#[test]
fn refused_stones() {
    let (key, other) = (key(3), key(4));
    let stone = made(&key, tips(2)).remove(0);
    assert!(check_commit(&stone, key.public()).is_ok());
    assert_eq!(check_commit(&stone, other.public()), Err(CommitRefused::Key));
    type Change = fn(&mut Value, &mut Relations);
    let cases: [(Change, CommitRefused); 9] = [
        (|data, _| data["at"] = json!(1), CommitRefused::Signature),
        (|data, _| data["tips"] = json!("00"), CommitRefused::Signature),
        (|_, relations| drop(relations.get_mut("tip").unwrap().pop()), CommitRefused::Signature),
        (|data, _| data["seq"] = json!(1), CommitRefused::Previous),
        (|_, relations| drop(relations.insert("prev".into(), vec![keystone()])), CommitRefused::Previous),
        (|data, _| data["by"] = json!(NodeId::from_bytes([1; 32]).to_string()), CommitRefused::Key),
        (|data, _| data["more"] = json!(1), CommitRefused::Form),
        (|_, relations| drop(relations.insert("other".into(), vec![keystone()])), CommitRefused::Form),
        (|data, _| data["st"]["sig"] = json!("AA"), CommitRefused::Form),
    ];
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        assert_eq!(check_commit(&changed(&stone, change), key.public()), Err(expected), "case {number}");
    }
    // A signature for something else is none for a stone.
    let signature = key.sign(Label::KeystoneFrame, b"x");
    let text = data_encoding::BASE64URL_NOPAD.encode(signature.as_bytes());
    let swapped = changed(&stone, |data, _| data["st"]["sig"] = json!(text));
    assert_eq!(check_commit(&swapped, key.public()), Err(CommitRefused::Signature));
}

/// Frames 0 ← 1 ← 2 ← 3 of one timeline; A commits 1, B commits 3.
// Proves: SY-103
#[test]
fn frames_before_the_last_commit_keep_their_author() {
    let (a, b) = (key(5), key(6));
    let frames: Vec<Tip> = tips(5);
    let mut authors = Authors::default();
    for (key, tip) in [(&a, &frames[1]), (&b, &frames[3])] {
        authors.add(&check_commit(&made(key, vec![tip.clone()])[0], key.public()).unwrap());
    }
    let mut later = |address: &Address| {
        let at = frames.iter().position(|frame| frame.address == *address).unwrap();
        frames.get(at + 1).map(|frame| vec![frame.address.clone()]).unwrap_or_default()
    };
    let (a, b) = (Some(NodeId::of(a.public())), Some(NodeId::of(b.public())));
    for (frame, expected) in frames.iter().zip([a, a, b, b, None]) {
        assert_eq!(authors.of(&frame.address, &mut later), expected);
    }
}
