//! Stories of one or two rooms without a network: crashes at every write, forks, foreign devices, members.

mod members;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use sealtide_crypto::{Seed, SeededEntropy, SigningKey};
use sealtide_ibgib::Verified;
use sealtide_identity::NodeId;
use sealtide_identity::keystone::{Chain, Claim, RootSecret, State, Verb};
use sealtide_store::Config;
use sealtide_store::mem::MemDisk;
use sealtide_sync::{AbortCode, Introduction, Refused};
use zeroize::Zeroizing;

use super::*;
use crate::engine::keystones::{Connection, Keystones};

/// A key file in memory. Its power fails with that of the disk: after `left` writes, and a write that fails may have
/// happened or not.
#[derive(Clone, Default)]
struct MemPlace(Arc<Mutex<Place>>);

#[derive(Default)]
struct Place {
    text: Option<String>,
    left: Option<u64>,
    torn: bool,
}

impl KeyPlace for MemPlace {
    fn read(&self) -> io::Result<Option<Zeroizing<String>>> {
        Ok(lock(&self.0).text.clone().map(Zeroizing::new))
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let mut place = lock(&self.0);
        match &mut place.left {
            Some(0) => {
                if place.torn {
                    place.text = Some(text.to_owned());
                }
                return Err(io::Error::other("the power failed"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        place.text = Some(text.to_owned());
        Ok(())
    }
}

fn node(seed: u64) -> Identity {
    let key = SigningKey::from_seed(&Seed::generate(&mut SeededEntropy::new(seed)));
    Identity { id: NodeId::of(key.public()), key: Arc::new(key) }
}

fn clock() -> Clock {
    let ms = AtomicU64::new(1_800_000_000_000);
    Arc::new(move || Stamp { ms: ms.fetch_add(1, Ordering::Relaxed) })
}

fn room(disk: &MemDisk, place: &MemPlace, marker: [u8; 32], seed: u64) -> Result<Identities, OpenError> {
    room_at(disk, place, marker, seed, clock())
}

fn room_at(
    disk: &MemDisk,
    place: &MemPlace,
    marker: [u8; 32],
    seed: u64,
    clock: Clock,
) -> Result<Identities, OpenError> {
    let store = Store::open(Arc::new(disk.clone()), Config::default()).map_err(StoreTrouble::of)?;
    let place = Box::new(place.clone());
    Identities::open(Parts { node: node(seed), store, place, marker, clock })
}

fn sign_something(identities: &Identities) -> Result<Verified, SignRefused> {
    let device = identities.device().ok_or(SignRefused::NoKeys)?;
    identities.sign_owner(&Claim::new(Verb::Post, device.as_str()))
}

/// The power fails at every write of the store and of the key file while the owner signs: no frame that was shown is lost,
/// and no two frames follow one, whatever was on the disk.
// Proves: SY-25
#[test]
fn no_second_signature_after_a_crash_at_any_write() {
    let mut crashes = 0;
    for at in 0..18 {
        for (seed, torn) in [(1, false), (2, true), (3, false)] {
            let (disk, place) = (MemDisk::new(seed), MemPlace::default());
            let before = room(&disk, &place, [1; 32], 7).unwrap();
            let owner = before.make_owner(&RootSecret::from_bytes([9; 32])).unwrap();
            let mut shown = before.frames_of(&owner);
            {
                let mut place = lock(&place.0);
                (place.left, place.torn) = (Some(at / 4), torn);
            }
            disk.fail_from(Some(disk.calls() + at));
            let failed = (0..4).any(|_| match sign_something(&before) {
                Ok(frame) => {
                    shown.push(frame);
                    false
                }
                Err(_) => true,
            });
            crashes += u32::from(failed);
            drop(before);
            lock(&place.0).left = None;
            let after = room(&disk.crash(seed), &place, [1; 32], 7).unwrap();
            assert_eq!(after.doubt(), None, "call {at}, seed {seed}");
            shown.push(sign_something(&after).unwrap());
            shown.extend(after.frames_of(&owner));
            let mut seen = Chain::new(owner.clone());
            for frame in &shown {
                let _ = seen.add(frame);
            }
            assert_eq!((seen.state(), seen.missing().count()), (State::Live, 0), "call {at}, seed {seed}");
        }
    }
    println!("54 runs, {crashes} of them with a crash while signing");
    assert!(crashes > 20, "{crashes}");
}

/// What was signed after a frame is given again; nothing else is made.
// Proves: SY-25
#[test]
fn a_frame_has_one_successor_whatever_memory_says() {
    let (disk, place) = (MemDisk::new(1), MemPlace::default());
    let identities = room(&disk, &place, [1; 32], 7).unwrap();
    let owner = identities.make_owner(&RootSecret::from_bytes([9; 32])).unwrap();
    let old = identities.0.frames.with(&owner, |chain| chain.clone());
    let signed = sign_something(&identities).unwrap();
    *lock(&identities.0.frames.slot(&owner)) = Some(old);
    match sign_something(&identities) {
        Err(SignRefused::AlreadySigned(there)) => assert_eq!(there.sid(), signed.sid()),
        other => panic!("{other:?}"),
    }
}

/// An old store with a newer key file, and a home elsewhere.
// Proves: SY-26
#[test]
fn an_old_store_does_not_sign() {
    let (disk, place) = (MemDisk::new(1), MemPlace::default());
    let identities = room(&disk, &place, [1; 32], 7).unwrap();
    identities.make_owner(&RootSecret::from_bytes([9; 32])).unwrap();
    let old = disk.copy();
    sign_something(&identities).unwrap();
    drop(identities);
    let restored = room(&old, &place, [1; 32], 7).unwrap();
    assert!(matches!(restored.doubt(), Some(Doubt::Restored { store: 3, key_file: 4 })), "{:?}", restored.doubt());
    assert!(matches!(sign_something(&restored), Err(SignRefused::Doubtful(_))));
    restored.settle_doubt([1; 32]).unwrap();
    sign_something(&restored).unwrap();
    drop(restored);
    let moved = room(&old.copy(), &place, [2; 32], 7).unwrap();
    assert_eq!(moved.doubt(), Some(Doubt::Moved));
    assert!(matches!(sign_something(&moved), Err(SignRefused::Doubtful(_))));
}

/// Own frames that came from a peer and were written, but not counted: memory knows of them too, and the next start counts them.
// Proves: SY-25
#[test]
fn what_was_imported_and_not_counted_is_known() {
    let (disk, place) = (MemDisk::new(1), MemPlace::default());
    let before = room(&disk, &place, [1; 32], 7).unwrap();
    let (device, old, old_place) = (before.device().unwrap(), disk.copy(), MemPlace::default());
    lock(&old_place.0).text = lock(&place.0).text.clone();
    before.post(&device).unwrap();
    let restored = room(&old, &old_place, [1; 32], 7).unwrap();
    lock(&old_place.0).left = Some(0);
    assert!(restored.import(&device, &before.frames_of(&device)).is_err());
    lock(&old_place.0).left = None;
    restored.post(&device).unwrap();
    assert_eq!((restored.state_of(&device), restored.frames_of(&device).len()), (State::Live, 3));
    assert_eq!(restored.0.frames.count(&device), 3);
    drop(restored);
    assert_eq!(room(&old, &old_place, [1; 32], 7).unwrap().doubt(), None);
}

/// The key file counts the frames of the owner that is the own one, whichever that is by now: no start doubts the store.
// Proves: SY-26
#[test]
fn another_owner_is_no_restored_store() {
    let words = |byte| RootSecret::from_bytes([byte; 32]);
    let (elsewhere, other_place) = (MemDisk::new(2), MemPlace::default());
    let other = room(&elsewhere, &other_place, [1; 32], 2).unwrap();
    let foreign = other.make_owner(&words(8)).unwrap();
    sign_something(&other).unwrap();
    let frames = other.frames_of(&foreign);
    type Step<'a> = (&'a str, Box<dyn Fn(&Identities) + 'a>);
    let new = |byte| move |it: &Identities| drop(it.make_owner(&words(byte)).unwrap());
    let post = |it: &Identities| drop(sign_something(it).unwrap());
    let revoke = |byte, frames| move |it: &Identities| drop(it.revoke(&words(byte), "over", frames).unwrap());
    let steps: [Step; 7] = [
        ("a first owner", Box::new(new(9))),
        ("that signs", Box::new(post)),
        ("the end of another owner", Box::new(revoke(8, &frames))),
        ("the end of the own owner", Box::new(revoke(9, &[]))),
        ("a second owner", Box::new(new(10))),
        ("that signs more than the one to come", Box::new(|it| (0..5).for_each(|_| post(it)))),
        ("a third one, from elsewhere", Box::new(|it| drop(it.recover(&words(11), &third()).unwrap()))),
    ];
    let (disk, place) = (MemDisk::new(1), MemPlace::default());
    for (what, step) in steps {
        let identities = room(&disk, &place, [1; 32], 7).unwrap();
        step(&identities);
        let (held, counted) = (identities.own_frame_count(), identities.0.vault.keys().generation);
        assert_eq!(held, counted, "{what}");
        drop(identities);
        assert_eq!(room(&disk, &place, [1; 32], 7).unwrap().doubt(), None, "{what}");
    }
}

/// The frames of one more owner, of another node.
fn third() -> Vec<Verified> {
    let node = room(&MemDisk::new(3), &MemPlace::default(), [1; 32], 3).unwrap();
    let owner = node.make_owner(&RootSecret::from_bytes([11; 32])).unwrap();
    node.frames_of(&owner)
}

fn connection(own: u64, peer: u64) -> Connection {
    bound(own, peer, 5)
}

fn bound(own: u64, peer: u64, binding: u8) -> Connection {
    Connection::new(node(own).id, node(peer).id, own < peer, [binding; 32]).0
}

fn said(of: &Identities, own: u8, peer: u8) -> Introduction {
    Introduction {
        own_challenge: [own; 32],
        peer_challenge: [peer; 32],
        peer_keystone: of.device().unwrap(),
        peer_owner: None,
        peer_known: None,
    }
}

/// A peer says which keystone its proof belongs to. That it is the device's own, or that two peers name each other's, holds nobody up.
// Proves: SY-32
#[tokio::test]
async fn a_proof_that_names_a_device_stops_nobody() {
    let open = |seed| room(&MemDisk::new(seed), &MemPlace::default(), [1; 32], seed).unwrap();
    let (a, b, c) = (open(1), open(2), open(3));
    let mut firsts = Vec::new();
    for (peer, of) in [(1, &a), (3, &c)] {
        let proof = of.prove(connection(peer, 2), said(&b, 10, 20)).await.unwrap();
        firsts.push(proof.device[0].clone());
        b.keep(connection(2, peer), of.device().unwrap(), proof.device, true).await.unwrap();
    }
    let check = |of: &Identities, peer, frame: &Verified| {
        let (b, said, frame) = (b.clone(), said(of, 20, 10), frame.clone());
        async move {
            let check = b.check_proof(connection(2, peer), vec![frame], said);
            let checked = tokio::time::timeout(std::time::Duration::from_secs(120), check).await;
            assert_eq!(checked.expect("it ends").unwrap_err().code, AbortCode::Auth);
        }
    };
    check(&a, 1, &firsts[0]).await;
    for _ in 0..200 {
        tokio::join!(check(&a, 1, &firsts[1]), check(&c, 3, &firsts[0]));
    }
    assert_eq!(b.held(a.device().unwrap()).await, Some(1), "the identities go on");
}

/// A proof holds for its connection, its challenge and the node whose device it is.
// Proves: SY-32 SY-90
#[tokio::test]
async fn a_proof_is_good_once() {
    let open = |seed| room(&MemDisk::new(seed), &MemPlace::default(), [1; 32], seed).unwrap();
    let (a, b) = (open(1), open(2));
    let proof = a.prove(connection(1, 2), said(&b, 10, 20)).await.unwrap();
    let device = a.device().unwrap();
    b.keep(connection(2, 1), device.clone(), proof.device.clone(), true).await.unwrap();
    let good = b.check_proof(connection(2, 1), proof.session.clone(), said(&a, 20, 10)).await;
    assert_eq!(good, Ok(()));
    let code = |result: Result<(), Refused>| result.unwrap_err().code;
    let replayed = b.check_proof(connection(2, 1), proof.session.clone(), said(&a, 21, 10)).await;
    assert_eq!(code(replayed), AbortCode::Auth, "another challenge");
    let mut elsewhere = connection(2, 1);
    elsewhere.binding = [6; 32];
    let replayed = b.check_proof(elsewhere, proof.session.clone(), said(&a, 20, 10)).await;
    assert_eq!(code(replayed), AbortCode::Auth, "another connection");
    // A third node shows the device keystone of the first as its own.
    let c = open(3);
    let other = c.keep(connection(3, 2), device, proof.device, true).await;
    assert_eq!(code(other), AbortCode::Auth, "a device keystone whose key is another node's");
    let stolen = b.check_proof(connection(2, 3), proof.session, said(&a, 20, 10)).await;
    assert_eq!(code(stolen), AbortCode::Auth, "another node's proof");
    // The next connection uses the session again: one more frame of it, none of the device.
    let mut next = connection(1, 2);
    next.binding = [7; 32];
    let again = a.prove(next, said(&b, 11, 21)).await.unwrap();
    assert_eq!((again.session.len(), again.device.len()), (3, 2));
}

/// Chains take memory: those used longest ago are let go, the others need not be read and checked anew.
#[test]
fn the_chain_that_was_used_longest_ago_is_let_go() {
    let identities = room(&MemDisk::new(1), &MemPlace::default(), [1; 32], 7).unwrap();
    let device = identities.device().unwrap();
    let owner = identities.make_owner(&RootSecret::from_bytes([9; 32])).unwrap();
    let other = third();
    let first = other[0].address().clone();
    identities.import(&first, &other).unwrap();
    let bytes = |frames: Vec<Verified>| frames.iter().map(|frame| frame.encoded().len()).sum::<usize>();
    let bytes = bytes(identities.frames_of(&device)) + bytes(other);
    let frames = &identities.0.frames;
    for used in [&device, &owner, &first, &device] {
        frames.with(used, |chain| assert!(chain.is_live()));
    }
    lock(&frames.slots).let_go(2, usize::MAX);
    let mut left = vec![&device, &first];
    left.sort_unstable();
    assert_eq!(lock(&frames.slots).ready(), left);
    frames.with(&owner, |_| ());
    frames.with(&device, |_| ());
    lock(&frames.slots).let_go(3, bytes);
    let in_use = frames.slot(&owner);
    lock(&frames.slots).let_go(0, 0);
    assert_eq!(lock(&frames.slots).ready(), [&owner], "what is in use stays");
    drop(in_use);
}

/// A device keystone that is too long for one connection comes over several: each goes on behind what is here.
// Proves: SY-32
#[tokio::test]
async fn what_came_of_a_device_keystone_does_not_come_again() {
    let open = |seed| room(&MemDisk::new(seed), &MemPlace::default(), [1; 32], seed).unwrap();
    let (a, b) = (open(1), open(2));
    let (a_id, device) = (node(1).id, a.device().unwrap());
    let proof = a.prove(connection(1, 2), said(&b, 10, 20)).await.unwrap();
    let part = proof.device[..1].to_vec();
    b.keep(connection(2, 1), device.clone(), part.clone(), false).await.unwrap();
    b.ended(&connection(2, 1));
    let known = b.identity(&a_id).unwrap().known;
    assert_eq!(known.as_ref().map(|(newest, _)| newest), Some(part[0].address()));
    let said_now = Introduction { peer_known: known, ..said(&b, 10, 20) };
    let rest = a.prove(bound(1, 2, 6), said_now).await.unwrap();
    assert!(rest.device == proof.device[1..], "{} frames", rest.device.len());
    b.keep(bound(2, 1, 6), device, rest.device, true).await.unwrap();
    assert_eq!(b.check_proof(bound(2, 1, 6), rest.session, said(&a, 20, 10)).await, Ok(()));
    assert!(lock(&b.0.coming).is_empty(), "from now on the row of the peer says it");
    assert_eq!(b.identity(&node(3).id).unwrap().known, None);
}

/// What a peer brings is counted once, whatever it sends again, and for a day; a session serves for weeks and over restarts.
// Proves: SY-32
#[tokio::test]
async fn a_peer_that_goes_on_as_it_did_is_never_shut_out() {
    const DAY: u64 = 24 * 3600 * 1000;
    let ms = Arc::new(AtomicU64::new(1_800_000_000_000));
    let clock = || -> Clock {
        let ms = ms.clone();
        Arc::new(move || Stamp { ms: ms.fetch_add(1, Ordering::Relaxed) })
    };
    let (disk, place) = (MemDisk::new(1), MemPlace::default());
    let open = || room_at(&disk, &place, [1; 32], 1, clock()).unwrap();
    let b = room_at(&MemDisk::new(2), &MemPlace::default(), [1; 32], 2, clock()).unwrap();
    let mut a = open();
    let (a_id, device) = (node(1).id, a.device().unwrap());
    let mut number = 0;
    let mut connect = async |a: &Identities| {
        number += 1;
        let on = |own, peer| bound(own, peer, number);
        let proof = a.prove(on(1, 2), said(&b, 10, 20)).await.unwrap();
        b.keep(on(2, 1), device.clone(), proof.device.clone(), true).await?;
        // Frames that are here, sent again, are no new ones.
        b.keep(on(2, 1), device.clone(), proof.device, true).await?;
        b.check_proof(on(2, 1), proof.session.clone(), said(a, 20, 10)).await?;
        b.check_proof(on(2, 1), proof.session.clone(), said(a, 20, 10)).await?;
        b.ended(&on(2, 1));
        Ok::<_, Refused>(proof.session.len())
    };
    let brought = || b.peer(&a_id).unwrap().brought;
    assert_eq!(connect(&a).await, Ok(2));
    assert_eq!(brought().frames, 4, "two of the device, two of the session");
    // A month of days, each with a restart: one more frame of the session each.
    for day in 1..29 {
        ms.fetch_add(DAY, Ordering::Relaxed);
        drop(a);
        a = open();
        assert_eq!(connect(&a).await, Ok(1), "day {day}");
        assert_eq!(brought().frames, 1);
    }
    assert_eq!(a.frames_of(&device).len(), 2, "the device signed nothing more");
    let today = brought();
    lock(&b.0.brought).insert(a_id, Brought { frames: 65_536, ..today });
    assert_eq!(connect(&a).await.unwrap_err().code, AbortCode::Limit);
    ms.fetch_add(DAY, Ordering::Relaxed);
    assert!(connect(&a).await.is_ok());
    assert_eq!(brought(), Brought { day: today.day + 1, ..brought() });
    // A session without room for what one connection signs is not begun with.
    let session = lock(&a.0.sessions).values().next().cloned().unwrap();
    assert!(!a.is_used_up(&session, 64) && a.is_used_up(&session, 4_096));
    ms.fetch_add(2 * DAY, Ordering::Relaxed);
    assert_eq!(connect(&a).await, Ok(2), "a new one");
}

/// The end that one owner makes of a device binds its node, whatever owner it names and device it makes later.
// Proves: SY-29
#[tokio::test]
async fn no_other_owner_and_no_new_device_hides_from_an_owner() {
    let open = |seed| room(&MemDisk::new(seed), &MemPlace::default(), [1; 32], seed).unwrap();
    let (a, b) = (open(1), open(2));
    let order = DelegationOrder { node: node(1).id, verbs: vec![Verb::Connect, Verb::Sync], until: None };
    let knows = |of: &Identities, device: Address| {
        let row = PeerIdentity { device, owner: None, owners: BTreeMap::new(), brought: Brought::default() };
        of.put_peer(&node(1).id, row);
    };
    let owners: Vec<(Identities, Address)> = (10..19)
        .map(|seed| {
            let of = open(seed);
            let owner = of.make_owner(&RootSecret::from_bytes([9; 32])).unwrap();
            knows(&of, a.device().unwrap());
            of.delegate(&order).unwrap();
            b.import(&owner, &of.frames_of(&owner)).unwrap();
            (of, owner)
        })
        .collect();
    let connect = async |a: &Identities, owner: Option<&Address>| {
        let proof = a.prove(connection(1, 2), said(&b, 10, 20)).await.unwrap();
        b.keep(connection(2, 1), a.device().unwrap(), proof.device, true).await.unwrap();
        let said = Introduction { peer_owner: owner.cloned(), ..said(a, 20, 10) };
        let checked = b.check_proof(connection(2, 1), proof.session, said).await;
        checked.map_err(|refused| refused.code)
    };
    for (_, owner) in &owners[..8] {
        assert_eq!(connect(&a, Some(owner)).await, Ok(()));
    }
    assert_eq!(connect(&a, Some(&owners[8].1)).await, Err(AbortCode::Auth), "a ninth owner");
    assert_eq!(connect(&a, Some(&owners[7].1)).await, Ok(()));
    let (first, owner) = &owners[0];
    first.undelegate(&a.device().unwrap()).unwrap();
    b.import(owner, &first.frames_of(owner)).unwrap();
    assert_eq!(connect(&a, Some(&owners[7].1)).await, Err(AbortCode::Revoked), "another owner");
    assert_eq!(connect(&a, None).await, Err(AbortCode::Revoked), "no owner");
    let anew = open(1);
    assert_ne!(anew.device(), a.device());
    assert_eq!(connect(&anew, None).await, Err(AbortCode::Revoked), "a new device under the same node key");
    // Unless the owner lets that one speak.
    knows(first, anew.device().unwrap());
    first.delegate(&order).unwrap();
    b.import(owner, &first.frames_of(owner)).unwrap();
    assert_eq!(connect(&anew, Some(owner)).await, Ok(()));
}

/// A home that was set back with its key file, as by a snapshot of the machine, goes on with a new session where the old one went
/// on without it.
// Proves: SY-27
#[tokio::test]
async fn a_home_that_was_set_back_begins_a_new_session() {
    let ms = Arc::new(AtomicU64::new(1_800_000_000_000));
    let clock = || -> Clock {
        let ms = ms.clone();
        Arc::new(move || Stamp { ms: ms.fetch_add(1, Ordering::Relaxed) })
    };
    let (disk, place) = (MemDisk::new(1), MemPlace::default());
    let open = |disk: &MemDisk, place: &MemPlace| room_at(disk, place, [1; 32], 1, clock()).unwrap();
    let b = room_at(&MemDisk::new(2), &MemPlace::default(), [1; 32], 2, clock()).unwrap();
    let connect = async |a: &Identities, binding: u8| {
        let (here, there) = (bound(1, 2, binding), bound(2, 1, binding));
        let proof = a.prove(here, said(&b, 10, 20)).await.unwrap();
        b.keep(there.clone(), a.device().unwrap(), proof.device, true).await.unwrap();
        b.check_proof(there, proof.session, said(a, 20, 10)).await.map_err(|refused| refused.code)
    };
    let copy = |disk: &MemDisk, place: &MemPlace| {
        let (disk, old_place) = (disk.copy(), MemPlace::default());
        lock(&old_place.0).text = lock(&place.0).text.clone();
        (disk, old_place)
    };
    let a = open(&disk, &place);
    assert_eq!(connect(&a, 1).await, Ok(()));
    let snapshot = copy(&disk, &place);
    assert_eq!(connect(&a, 2).await, Ok(()));
    let again = copy(&snapshot.0, &snapshot.1);
    let set_back = open(&snapshot.0, &snapshot.1);
    assert_eq!(set_back.doubt(), None);
    assert_eq!(connect(&set_back, 3).await, Err(AbortCode::IdentityForked));
    // Not for a word that any peer can say at any time.
    set_back.refused_as_forked(&bound(1, 2, 3));
    assert_eq!(connect(&set_back, 4).await, Err(AbortCode::IdentityForked));
    ms.fetch_add(3_600_000, Ordering::Relaxed);
    set_back.refused_as_forked(&bound(1, 2, 4));
    assert_eq!(connect(&set_back, 5).await, Ok(()));
    // Where a peer brings the frames of the device that were made meanwhile, no session of before is used.
    let device = set_back.device().unwrap();
    let restored = open(&again.0, &again.1);
    assert_eq!(lock(&restored.0.sessions).len(), 1);
    assert_eq!(restored.import(&device, &set_back.frames_of(&device)).unwrap(), 1);
    assert_eq!(lock(&restored.0.sessions).len(), 0);
    drop(restored);
    let restored = open(&again.0, &again.1);
    assert_eq!(lock(&restored.0.sessions).len(), 0, "after a restart too");
    assert_eq!(connect(&restored, 6).await, Ok(()));
}

/// Two first-come successors freeze a keystone where both are seen, and its connections end.
// Proves: SY-27
#[tokio::test]
async fn a_fork_is_refused_where_both_branches_are_seen() {
    let (disk, place) = (MemDisk::new(1), MemPlace::default());
    let a = room(&disk, &place, [1; 32], 1).unwrap();
    let b = room(&MemDisk::new(2), &MemPlace::default(), [1; 32], 2).unwrap();
    let text = lock(&place.0).text.clone();
    let twin_place = MemPlace::default();
    lock(&twin_place.0).text = text;
    let twin = room(&disk.copy(), &twin_place, [1; 32], 1).unwrap();
    let (one, two) = (
        a.prove(connection(1, 2), said(&b, 10, 20)).await.unwrap(),
        twin.prove(connection(1, 2), said(&b, 11, 21)).await.unwrap(),
    );
    let device = a.device().unwrap();
    b.keep(connection(2, 1), device.clone(), one.device, true).await.unwrap();
    b.check_proof(connection(2, 1), one.session, said(&a, 20, 10)).await.unwrap();
    b.keep(connection(2, 1), device.clone(), two.device, true).await.unwrap();
    assert_eq!(b.state_of(&device), State::Forked);
    let refused = b.check_proof(connection(2, 1), two.session, said(&a, 21, 11)).await.unwrap_err();
    assert_eq!(refused.code, AbortCode::IdentityForked);
}

/// A proof fails when any one of the things that it is bound to is another for whoever checks it.
// Proves: SY-89
#[tokio::test]
async fn connect_misbinding() {
    let open = |seed| room(&MemDisk::new(seed), &MemPlace::default(), [1; 32], seed).unwrap();
    let (a, b, c) = (open(1), open(2), open(3));
    let proof = a.prove(connection(1, 2), said(&b, 10, 20)).await.unwrap();
    let for_c = a.prove(connection(1, 3), said(&c, 10, 20)).await.unwrap();
    let device = a.device().unwrap();
    b.keep(connection(2, 1), device.clone(), for_c.device.clone(), true).await.unwrap();
    let other_device = c.device().unwrap();
    c.keep(connection(3, 1), device, for_c.device, true).await.unwrap();
    b.keep(connection(2, 3), other_device.clone(), c.frames_of(&other_device), true).await.unwrap();

    type Change = fn(&mut Connection, &mut Introduction);
    let changes: [(&str, Change); 7] = [
        ("the role", |on, _| on.is_initiator = !on.is_initiator),
        ("the session binding", |on, _| on.binding[31] ^= 1),
        ("the node id of the prover", |on, _| on.peer = node(3).id),
        ("the node id of the verifier", |on, _| on.own = node(3).id),
        ("the challenge that was received", |_, said| said.own_challenge[0] ^= 1),
        ("the challenge that was sent", |_, said| said.peer_challenge[0] ^= 1),
        ("no session binding", |on, _| on.binding = [0; 32]),
    ];
    for (what, change) in changes {
        let (mut on, mut said) = (connection(2, 1), said(&a, 20, 10));
        change(&mut on, &mut said);
        let refused = b.check_proof(on, proof.session.clone(), said).await.expect_err(what);
        assert_eq!(refused.code, AbortCode::Auth, "{what}");
    }
    // The three first frames: of the prover's device, of its session, and of the verifier's device.
    let mut of_c = said(&a, 20, 10);
    of_c.peer_keystone = other_device;
    let refused = b.check_proof(connection(2, 1), proof.session.clone(), of_c).await.unwrap_err();
    assert_eq!(refused.code, AbortCode::Auth, "the device of another node");
    let refused = b.check_proof(connection(2, 1), for_c.session.clone(), said(&a, 20, 10)).await.unwrap_err();
    assert_eq!(refused.code, AbortCode::Auth, "the session for another node");
    let refused = c.check_proof(connection(3, 1), proof.session.clone(), said(&a, 20, 10)).await.unwrap_err();
    assert_eq!(refused.code, AbortCode::Auth, "shown to another node");
    // As it is, each holds where it was made for.
    assert_eq!(b.check_proof(connection(2, 1), proof.session, said(&a, 20, 10)).await, Ok(()));
    assert_eq!(c.check_proof(connection(3, 1), for_c.session, said(&a, 20, 10)).await, Ok(()));
}
