//! The small facts: each change is one durable step.

use std::sync::Arc;

use sealtide_crypto::Now;
use sealtide_identity::{Grant, Invite, InviteSecret, LinkAddress, NodeId, RelayHint, Role, SpaceId};
use sealtide_store::mem::MemDisk;
use sealtide_store::{Config, EnrolError, FsDisk, Peer, SpaceLabel, Store};

fn open(disk: &MemDisk) -> Store {
    Store::open(Arc::new(disk.clone()), Config::default()).unwrap()
}

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

const NOW: Now = Now { mono_ms: 0, wall_ms: 10 };

fn invite(uses_left: u32) -> Invite {
    Invite {
        id: [7; 16],
        secret: InviteSecret::from_bytes([8; 32]),
        space: SpaceId::from_bytes([5; 32]),
        role: Role::Write,
        expires_ms: 1000,
        uses_left,
        enrolled: Vec::new(),
        refused: Vec::new(),
    }
}

// Proves: LK-100 (crash at each write), LK-4 (durable part)
#[test]
fn enrolling_happens_whole_or_not_at_all_wherever_the_power_fails() {
    let disk = MemDisk::new(1);
    open(&disk).facts().put_invite(&invite(1)).unwrap();
    let mut cuts = 0;
    for call in 0.. {
        let disk = disk.crash(call);
        let store = open(&disk);
        disk.fail_from(Some(disk.calls() + call + 1));
        let done = store.facts().enrol(&[7; 16], node(1), NOW);
        for image in 0..8 {
            let store = open(&disk.crash(image));
            let facts = store.facts();
            let used = facts.invite(&[7; 16]).unwrap().unwrap().uses_left == 0;
            let granted = facts.grant(&SpaceId::from_bytes([5; 32]), &node(1)).unwrap().is_some();
            let known = facts.peer(&node(1)).unwrap().is_some();
            assert_eq!((used, used), (granted, known), "call {call} image {image}: one step");
            if done.is_ok() {
                assert!(used, "call {call} image {image}: acknowledged is durable");
            }
            // And the loser can try again.
            facts.enrol(&[7; 16], node(1), NOW).unwrap();
            assert!(matches!(facts.enrol(&[7; 16], node(2), NOW), Err(EnrolError::Refused(_))));
            cuts += 1;
        }
        if done.is_ok() {
            break;
        }
        assert!(call < 100, "the disk never worked");
    }
    println!("{cuts} images");
    assert!(cuts > 16, "the power failed in the middle");
}

/// Wherever the power fails while a use is given back, the node has its grant or may come again.
// Proves: LK-100 (crash at each write), LK-4 (durable part)
#[test]
fn taking_an_enrolment_back_happens_whole_or_not_at_all() {
    let disk = MemDisk::new(1);
    let store = open(&disk);
    store.facts().put_invite(&invite(1)).unwrap();
    let grant = store.facts().enrol(&[7; 16], node(1), NOW).unwrap().unwrap();
    drop(store);
    for call in 0.. {
        let disk = disk.crash(call);
        let store = open(&disk);
        disk.fail_from(Some(disk.calls() + call + 1));
        let done = store.facts().unenrol(&grant);
        for image in 0..8 {
            let store = open(&disk.crash(image));
            let facts = store.facts();
            let back = facts.invite(&[7; 16]).unwrap().unwrap().uses_left == 1;
            assert_eq!(
                facts.grant(&grant.space, &node(1)).unwrap().is_none(),
                back,
                "call {call} image {image}: one step"
            );
            assert!(back || done.is_err(), "call {call} image {image}: acknowledged is durable");
            assert!(facts.enrol(&[7; 16], node(1), NOW).unwrap().is_some());
        }
        if done.is_ok() {
            return assert!(call > 2, "the power failed in the middle");
        }
        assert!(call < 100, "the disk never worked");
    }
}

// Proves: LK-100 (race)
#[test]
fn of_64_holders_of_one_use_one_is_enrolled() {
    let store = open(&MemDisk::new(1));
    store.facts().put_invite(&invite(1)).unwrap();
    let enrolled: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64u8)
            .map(|number| {
                let store = &store;
                scope.spawn(move || usize::from(store.facts().enrol(&[7; 16], node(number), NOW).is_ok()))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(enrolled, 1);
    assert_eq!(store.facts().grants().unwrap().len(), 1);
    assert_eq!(store.facts().peers().unwrap().len(), 1);
}

#[test]
fn everything_comes_back_after_reopening() {
    let home = tempfile::tempdir().unwrap();
    let peer = Peer {
        name: "laptop".to_owned(),
        addresses: vec![LinkAddress { source: 1, socket: "10.0.0.7:7443".parse().unwrap() }],
        relays: vec![RelayHint { relay: node(9), url: "wss://relay.example/link".to_owned() }],
        last_seen_ms: 77,
        ..Peer::new(node(1), NOW)
    };
    let space = SpaceId::from_bytes([5; 32]);
    let label = SpaceLabel { name: "Notes".to_owned(), kind: "folder".to_owned(), dir: Some("/home/ada".to_owned()) };
    let grant = |number, role| Grant { space, node: node(number), role, since_ms: 3, invite: None };
    {
        let store = Store::open_dir(home.path()).unwrap();
        let facts = store.facts();
        facts.put_peer(&peer).unwrap();
        facts.put_peer(&Peer::new(node(2), NOW)).unwrap();
        facts.put_peer(&Peer::new(node(3), NOW)).unwrap();
        [grant(1, Role::Admin), grant(2, Role::Read)].iter().for_each(|grant| facts.put_grant(grant).unwrap());
        facts.put_setting("listen", Some(b"127.0.0.1:7443")).unwrap();
        facts.put_setting("gone", Some(b"x")).unwrap();
        facts.put_setting("gone", None).unwrap();
        facts.put_label(&space, Some(&label)).unwrap();
        assert!(facts.revoke_peer(&node(2)).unwrap());
        assert!(facts.remove_peer(&node(3)).unwrap() && !facts.remove_peer(&node(3)).unwrap());
        assert!(facts.update_peer(&node(1), |peer| peer.last_seen_ms = 78).unwrap());
        assert!(!facts.update_peer(&node(4), |_| panic!("nobody")).unwrap());
    }
    let store = Store::open_dir(home.path()).unwrap();
    let facts = store.facts();
    let peers = facts.peers().unwrap();
    assert_eq!(peers[0], Peer { last_seen_ms: 78, ..peer });
    assert_eq!(peers.iter().map(|peer| peer.revoked).collect::<Vec<_>>(), [false, true]);
    assert_eq!(facts.grants().unwrap(), [grant(1, Role::Admin)], "a revoked peer has no grants");
    assert_eq!(facts.setting("listen").unwrap().as_deref(), Some(&b"127.0.0.1:7443"[..]));
    assert_eq!(facts.setting("gone").unwrap(), None);
    assert_eq!(facts.labels().unwrap(), [(space, label)]);
    assert!(facts.remove_grant(&space, &node(1)).unwrap() && facts.grants().unwrap().is_empty());
}

/// Two that change one setting at once do not make each other forget.
#[test]
fn changes_of_a_setting_come_one_after_the_other() {
    const EACH: usize = 50;
    let store = open(&MemDisk::new(1));
    let add = |byte: u8| {
        let more = |before: Option<&[u8]>| Some([before.unwrap_or_default(), &[byte]].concat());
        (0..EACH).for_each(|_| store.facts().change_setting("list", more).unwrap());
    };
    std::thread::scope(|scope| {
        scope.spawn(|| add(1));
        scope.spawn(|| add(2));
    });
    let list = store.facts().setting("list").unwrap().unwrap();
    assert_eq!([1, 2].map(|byte| list.iter().filter(|it| **it == byte).count()), [EACH, EACH]);
}

/// A disk that was full and has room again needs no restart, wherever it failed.
#[test]
fn a_disk_that_failed_and_works_again_is_written_on() {
    for call in 0.. {
        let disk = MemDisk::new(1);
        let store = open(&disk);
        let facts = store.facts();
        facts.put_setting("before", Some(b"1")).unwrap();
        disk.fail_from(Some(disk.calls() + call));
        let done = facts.put_setting("while", Some(&[7; 100_000]));
        if done.is_err() {
            assert!(facts.put_setting("while", Some(b"2")).is_err(), "call {call}");
        }
        disk.fail_from(None);
        facts.put_setting("after", Some(b"3")).unwrap();
        for facts in [facts, open(&disk.crash(call)).facts()] {
            assert_eq!(facts.setting("before").unwrap().as_deref(), Some(&b"1"[..]), "call {call}");
            assert_eq!(facts.setting("after").unwrap().as_deref(), Some(&b"3"[..]), "call {call}");
            if done.is_ok() {
                assert!(facts.setting("while").unwrap().is_some(), "call {call}");
            }
        }
        if done.is_ok() {
            return assert!(call > 3, "it failed somewhere");
        }
    }
}

#[test]
fn the_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let inner = home.path().join("store");
    drop(Store::open(Arc::new(FsDisk::new(&inner).unwrap()), Config::default()).unwrap());
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inner), 0o700);
    assert_eq!(mode(&inner.join("packs")), 0o700);
    for name in ["facts.redb", "format", "packs/00000001.pack"] {
        assert_eq!(mode(&inner.join(name)), 0o600, "{name}");
    }
}
