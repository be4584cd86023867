//! Members of a space, by engines over real keystones: what is allowed, what counts, what is held.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use sealtide_ibgib::{
    Content, Data, FileFrame, FileKind, Manifest, MergeStrategy, Object, Relations, Sid, evolve, genesis, merge_tips,
    space_genesis, uuid, yield_frame,
};
use sealtide_identity::authorship::{Author, Tip, commit_stones};
use sealtide_identity::members::{MEMBER_COUNT_MAX, MEMBER_NODES_MAX, Member, Members};
use sealtide_identity::{Action, Grant, Invite, InviteSecret, Role, SpaceId, allows};
use sealtide_store::SpaceLabel;
use sealtide_sync::{AbortCode, CommitRequest, SpaceView};

use super::*;
use crate::engine::Engine;
use crate::engine::authorship::Authorship;
use crate::engine::histories::{VERSIONS_FREE, VERSIONS_MAX, VERSIONS_MORE};
use crate::engine::holds::READ_MAX;
use crate::engine::members::{FRAMES_MAX, MembersRefused};
use crate::known::Known;
use crate::real::RealWorld;

struct Home {
    seed: u64,
    identities: Identities,
    engine: Engine<RealWorld>,
}

impl Home {
    fn new(seed: u64) -> Self {
        Self::of(seed, room(&MemDisk::new(seed), &MemPlace::default(), [1; 32], seed).unwrap())
    }

    fn of(seed: u64, identities: Identities) -> Self {
        let keystones = Arc::new(identities.clone());
        let engine = Engine::with_keystones(RealWorld, identities.0.store.clone(), node(seed).id, keystones);
        Self { seed, identities, engine }
    }

    fn id(&self) -> NodeId {
        node(self.seed).id
    }

    fn device(&self) -> Address {
        self.identities.device().unwrap()
    }

    /// A space of its own.
    fn space(&self) -> SpaceId {
        let by = self.id().to_string();
        let first = space_genesis("t", "data", &by, Stamp { ms: 1 }, &uuid(&mut OsEntropy));
        let hash = data_encoding::HEXUPPER.decode(first.address().gib().as_bytes()).unwrap();
        let space = SpaceId::from_bytes(hash.try_into().unwrap());
        let members = self.engine.first_members(space).unwrap();
        assert_eq!(self.engine.create_space_with(first, members.into_iter().collect()).unwrap(), space);
        self.label(space);
        space
    }

    fn label(&self, space: SpaceId) {
        let label = SpaceLabel { name: "t".into(), kind: "data".into(), dir: None };
        Known::of(&self.identities.0.store).put_label(&space, Some(&label)).unwrap();
    }

    /// Knows the other's device, as after a proof.
    fn meets(&self, other: &Self) {
        let device = other.device();
        self.identities.import(&device, &other.identities.frames_of(&device)).unwrap();
        self.identities.tell();
        self.identities.put_peer(
            &other.id(),
            PeerIdentity { device, owner: None, owners: BTreeMap::new(), brought: Brought::default() },
        );
    }

    fn records(&self, space: &SpaceId) -> BTreeMap<Sid, Verified> {
        let view = self.engine.store().view(space).unwrap();
        view.bulk(None, usize::MAX).into_iter().map(|(_, sid)| (sid, view.record(&sid).unwrap())).collect()
    }

    /// Holds all that the other holds of a space.
    fn takes_all(&self, other: &Self, space: &SpaceId) {
        self.engine.store().adopt_space(*space).unwrap();
        self.label(*space);
        let records = other.records(space).into_values().collect();
        let request = CommitRequest::local(records);
        let result = self.engine.store().commit(space, &request).unwrap();
        self.engine.committed(*space, None, &result);
    }

    fn data(&self, name: &str) -> Object {
        let mut data = Object::new();
        data.insert("name".into(), name.into());
        data.insert("by".into(), self.id().to_string().into());
        data
    }

    fn doc(&self, name: &str) -> Verified {
        genesis("doc", self.data(name), Relations::new(), Stamp { ms: 5 }, &uuid(&mut OsEntropy))
    }

    fn edit(&self, before: &Verified, name: &str) -> Verified {
        evolve(before, self.data(name), Relations::new(), Stamp { ms: 6 })
    }

    /// A file of this path, first recorded then.
    fn file(&self, path: &str, ms: u64) -> Verified {
        let by = self.id().to_string();
        let (kind, content) = (FileKind::File, Content::Text("the same".into()));
        let path = path.to_owned();
        let frame = FileFrame { path, kind, exec: false, mtime: 1, by, deleted: false, yielded: None, content };
        frame.genesis(Stamp { ms }, &uuid(&mut OsEntropy)).unwrap()
    }

    /// The version of a file that follows, with this text.
    fn writes_over(&self, before: &Verified, text: &str) -> Verified {
        let content = Content::Text(text.into());
        FileFrame { content, ..FileFrame::read(before).unwrap() }.evolve(before, Stamp { ms: 50 }).unwrap()
    }

    /// As [`Home::file`], with versions of these texts behind it.
    fn file_of(&self, path: &str, ms: u64, texts: impl IntoIterator<Item = String>) -> Vec<Verified> {
        let mut versions = vec![self.file(path, ms)];
        for text in texts {
            versions.push(self.writes_over(versions.last().unwrap(), &text));
        }
        versions
    }

    /// Commits with a stone.
    fn commits(&self, space: &SpaceId, record: &Verified) {
        self.commits_all(space, vec![record.clone()]);
    }

    fn commits_all(&self, space: &SpaceId, records: Vec<Verified>) {
        let result = self.engine.commit_in_thread(*space, records).unwrap();
        self.engine.committed(*space, None, &result);
    }

    fn writes(&self, space: &SpaceId, name: &str) {
        self.commits(space, &self.doc(name));
    }

    /// How many of these new records would be held here.
    fn holds_of(&self, space: &SpaceId, new: &[&Verified]) -> usize {
        let new: BTreeMap<Sid, &Verified> = new.iter().map(|record| (record.sid(), *record)).collect();
        let sids: Vec<Sid> = new.keys().copied().collect();
        self.engine.judged(space, &sids, &|sid| new.get(sid).map(|record| (*record).clone())).len()
    }

    /// How many of the records that the other has more would be held here, and how many there are.
    fn would_hold(&self, other: &Self, space: &SpaceId) -> (usize, usize) {
        let own = self.records(space);
        let new = other.records(space).into_values().filter(|record| !own.contains_key(&record.sid()));
        let new: Vec<Verified> = new.collect();
        (self.holds_of(space, &new.iter().collect::<Vec<_>>()), new.len())
    }

    /// As a saga of that peer would bring them.
    fn receives(&self, space: &SpaceId, from: &Self, new: &[Verified]) {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let (room, saga) = (runtime.block_on(self.engine.room(space, &from.id())).unwrap(), self.engine.new_saga_id());
        self.engine.store().stage(space, &saga, new, &[]).unwrap();
        let request =
            CommitRequest { saga: Some(saga), staged: None, records: vec![], expected: vec![], strict: false };
        runtime.block_on(self.engine.commit_received(&room, from.id(), saga, request, None)).unwrap();
    }

    fn member(&self, role: Role) -> Member {
        Member { keystone: self.device(), nodes: BTreeSet::from([self.id()]), role, since_ms: 1 }
    }

    fn enters(&self, space: SpaceId, other: &Self, role: Role) {
        let entered = self.engine.change_members(space, |list| {
            list.insert(other.member(role));
            true
        });
        assert!(entered.unwrap());
    }
}

/// Role × action, by the keystone of the peer; grants of before decide nothing where a members frame counts.
// Proves: SY-101
#[test]
fn what_a_member_may_do() {
    let (a, b) = (Home::new(1), Home::new(2));
    let space = a.space();
    a.meets(&b);
    let may = |action| allows(&a.engine.grants_of(&b.id(), &space), &b.id(), &space, action);
    let all = || [Action::Pull, Action::MoveTips, Action::ChangeSpace, Action::Invite].map(may);
    assert_eq!(a.engine.role(&a.id(), &space), Some(Role::Admin), "the maker");
    assert_eq!(all(), [false; 4], "a stranger");
    let grant = |invite| Grant { space, node: b.id(), role: Role::Write, since_ms: 1, invite };
    let known = Known::of(&a.identities.0.store);
    known.put_grant(&grant(None)).unwrap();
    assert_eq!(all(), [false; 4], "a grant that no invite gave");
    for (role, expected) in
        [(Role::Read, [true, false, false, false]), (Role::Write, [true, true, false, false]), (Role::Admin, [true; 4])]
    {
        a.enters(space, &b, role);
        assert_eq!((a.engine.role(&b.id(), &space), all()), (Some(role), expected));
        let of = |home: &Home| a.engine.grants_of(&home.id(), &space);
        let mut each = [of(&a), of(&b)].concat();
        each.sort_by_key(|grant| grant.node);
        assert_eq!(a.engine.grants(), each, "all at once");
    }
    assert_eq!(a.engine.remove_member(&b.id()).unwrap(), [space]);
    assert_eq!(all(), [false; 4], "removed");
    // An invite lets in until the list says so, and is spent by that.
    known.put_grant(&grant(Some([7; 16]))).unwrap();
    assert_eq!(all(), [true, true, false, false]);
    a.engine.enter_invited(&b.id()).unwrap();
    assert_eq!(a.engine.role(&b.id(), &space), Some(Role::Write));
    assert!(known.grants().iter().all(|grant| grant.node != b.id()));
    let own = a.device();
    let alone = a.engine.change_members(space, |list| list.remove(&own, BTreeSet::new()));
    assert!(matches!(alone, Err(MembersRefused::LastAdmin)), "{alone:?}");
    // The other node has the same list, and may not change it.
    b.meets(&a);
    b.takes_all(&a, &space);
    assert_eq!(b.engine.role(&b.id(), &space), Some(Role::Write));
    assert_eq!(b.engine.role(&a.id(), &space), Some(Role::Admin));
    let raised = b.engine.change_members(space, |list| {
        list.insert(b.member(Role::Admin));
        true
    });
    assert!(matches!(raised, Err(MembersRefused::NotAdmin)), "{raised:?}");
}

/// As many members as a space can have: whoever comes next is told so, and is let in nowhere.
// Proves: SY-102
#[test]
fn a_full_space_takes_nobody_in_and_says_so() {
    let (a, b) = (Home::new(1), Home::new(2));
    let space = a.space();
    a.meets(&b);
    let known = Known::of(&a.identities.0.store);
    let invites =
        |role| known.put_grant(&Grant { space, node: b.id(), role, since_ms: 1, invite: Some([7; 16]) }).unwrap();
    let (id, secret, expires_ms) = ([8; 16], InviteSecret::from_bytes([8; 32]), u64::MAX);
    let (enrolled, refused) = (Vec::new(), Vec::new());
    known
        .put_invite(&Invite { id, secret, space, role: Role::Read, expires_ms, uses_left: 1, enrolled, refused })
        .unwrap();
    let stranger = |number: usize| Address::parse(&format!("keystone^{number:064X}")).unwrap();
    let filled = a.engine.change_members(space, |list| {
        for number in 1..MEMBER_COUNT_MAX {
            list.insert(Member { keystone: stranger(number), nodes: BTreeSet::new(), role: Role::Read, since_ms: 1 });
        }
        true
    });
    assert!(filled.unwrap());
    // It was proved while there was room.
    assert!(known.enrol(&id, b.id()).unwrap().is_some());
    let has_room = |peer: Option<&Home>| a.engine.room_for(&space, peer.map(Home::id).as_ref()).is_ok();
    assert_eq!([Some(&a), Some(&b), None].map(has_room), [true, false, false]);
    let refused = a.engine.enter_invited(&b.id()).unwrap_err();
    assert!(refused.code == AbortCode::Limit && refused.text.contains("512 members"), "{refused}");
    assert_eq!(
        (a.engine.role(&b.id(), &space), known.grants().len()),
        (None, 0),
        "not by the grant of the invite either"
    );
    // Somebody goes.
    assert!(a.engine.change_members(space, |list| list.remove(&stranger(1), BTreeSet::new())).unwrap());
    assert_eq!([Some(&a), Some(&b), None].map(has_room), [true; 3]);
    assert!(known.enrol(&id, b.id()).unwrap().is_some(), "its use was given back");
    a.engine.enter_invited(&b.id()).unwrap();
    assert_eq!(a.engine.role(&b.id(), &space), Some(Role::Read));
    // One more node of a member that has as many as are listed.
    let crowd = || (10..10 + MEMBER_NODES_MAX as u64).map(|seed| node(seed).id).collect();
    let crowded = a.engine.change_members(space, |list| {
        list.insert(Member { nodes: crowd(), ..b.member(Role::Read) });
        true
    });
    assert!(crowded.unwrap());
    invites(Role::Write);
    a.engine.enter_invited(&b.id()).unwrap();
    assert_eq!((a.engine.role(&b.id(), &space), known.grants().len()), (Some(Role::Write), 0));
}

/// A full space, and one more device of an owner who is a member: it needs no place, and comes in by any ticket.
// Proves: SY-102
#[test]
fn one_more_device_of_a_member_comes_into_a_full_space() {
    let (a, b, c) = (Home::new(1), Home::new(2), Home::new(3));
    let space = a.space();
    let owner = b.identities.make_owner(&RootSecret::from_bytes([9; 32])).unwrap();
    let stranger = |number: usize| Address::parse(&format!("keystone^{number:064X}")).unwrap();
    let member = |keystone| Member { keystone, nodes: BTreeSet::new(), role: Role::Write, since_ms: 1 };
    let filled = a.engine.change_members(space, |list| {
        list.insert(member(owner.clone()));
        (2..MEMBER_COUNT_MAX).for_each(|number| list.insert(member(stranger(number))));
        true
    });
    assert!(filled.unwrap());
    let has_room = |peer: &Home| a.engine.room_for(&space, Some(&peer.id())).is_ok();
    assert!(has_room(&c), "before it proved whose it is");
    a.meets(&c);
    assert!(!has_room(&c), "its own");
    b.meets(&c);
    b.identities.delegate(&DelegationOrder { node: c.id(), verbs: vec![Verb::Sync], until: None }).unwrap();
    a.identities.import(&owner, &b.identities.frames_of(&owner)).unwrap();
    let (device, owners) = (c.device(), BTreeMap::from([(owner.clone(), c.device())]));
    let row = PeerIdentity { device, owner: Some(owner.clone()), owners, brought: Brought::default() };
    a.identities.put_peer(&c.id(), row);
    a.identities.tell();
    assert!(has_room(&c));
    let known = Known::of(&a.identities.0.store);
    known.put_grant(&Grant { space, node: c.id(), role: Role::Read, since_ms: 1, invite: Some([7; 16]) }).unwrap();
    a.engine.enter_invited(&c.id()).unwrap();
    assert_eq!((a.engine.role(&c.id(), &space), known.grants().len()), (Some(Role::Write), 0));
    assert_eq!(a.engine.members(&space).unwrap().newest.members.members.len(), MEMBER_COUNT_MAX);
}

/// Two admins who let in as many as there was room for while they were apart: nobody more comes in until enough are taken out, and then all
/// that were let in are members.
// Proves: SY-102
#[test]
fn lists_that_were_overfilled_apart_take_nobody_in_and_heal() {
    let [a, b, c, d] = [1, 2, 3, 4].map(Home::new);
    let space = a.space();
    a.meets(&b);
    let stranger = |number: usize| Address::parse(&format!("keystone^{number:064X}")).unwrap();
    let reader = |number| Member { keystone: stranger(number), nodes: BTreeSet::new(), role: Role::Read, since_ms: 1 };
    let filled = a.engine.change_members(space, |list| {
        list.insert(b.member(Role::Admin));
        (4..MEMBER_COUNT_MAX).for_each(|number| list.insert(reader(number)));
        true
    });
    assert!(filled.unwrap());
    b.meets(&a);
    b.takes_all(&a, &space);
    let adds = |home: &Home, number| {
        home.engine.change_members(space, |list| {
            list.insert(reader(number));
            true
        })
    };
    for (home, new, number) in [(&a, &c, 1001), (&b, &d, 1002)] {
        home.enters(space, new, Role::Read);
        assert!(adds(home, number).unwrap());
    }
    let tells = |home: &Home, other: &Home| {
        other.meets(home);
        other.takes_all(home, &space);
    };
    let listed = |home: &Home| {
        let list = home.engine.members(&space).unwrap().newest.members.clone();
        let new = [c.device(), d.device(), stranger(1001), stranger(1002)];
        (list.members.len(), new.map(|keystone| list.member(&keystone).is_some()))
    };
    tells(&a, &b);
    tells(&b, &a);
    assert_eq!([&a, &b].map(listed), [(MEMBER_COUNT_MAX - 2, [false; 4]); 2]);
    for home in [&a, &b] {
        let known = Known::of(&home.identities.0.store);
        assert!(matches!(home.engine.room_for(&space, None), Err(MembersRefused::Full)));
        assert!(matches!(adds(home, 1003), Err(MembersRefused::Full)));
        // Those who are on one of the lists too.
        for peer in [&c, &d] {
            home.meets(peer);
            let (node, invite) = (peer.id(), Some([7; 16]));
            known.put_grant(&Grant { space, node, role: Role::Read, since_ms: 1, invite }).unwrap();
            assert_eq!(home.engine.enter_invited(&node).unwrap_err().code, AbortCode::Limit);
            assert_eq!((home.engine.role(&node, &space), known.grants().len()), (None, 0));
        }
    }
    let goes = |home: &Home, number| {
        let gone = home.engine.change_members(space, |list| list.remove(&stranger(number), BTreeSet::new()));
        assert!(gone.unwrap());
    };
    goes(&b, 4);
    tells(&b, &a);
    assert_eq!([&a, &b].map(listed), [(MEMBER_COUNT_MAX - 3, [false; 4]); 2], "one too many yet");
    assert!(matches!(adds(&a, 1003), Err(MembersRefused::Full)));
    goes(&a, 5);
    tells(&a, &b);
    assert_eq!([&a, &b].map(listed), [(MEMBER_COUNT_MAX, [true; 4]); 2]);
    goes(&b, 6);
    assert!(adds(&b, 1003).unwrap());
    tells(&b, &a);
    assert_eq!([&a, &b].map(listed), [(MEMBER_COUNT_MAX, [true; 4]); 2]);
}

/// Nobody reads more changes of a list than so many: one that nobody would read is not made.
// Proves: SY-102
#[test]
fn a_change_of_members_that_nobody_would_read_is_refused() {
    let a = Home::new(1);
    let space = a.space();
    let keystone = Address::parse(&format!("keystone^{:064X}", 1)).unwrap();
    let changes = |since_ms| {
        a.engine.change_members(space, |list| {
            let member = Member { keystone: keystone.clone(), nodes: BTreeSet::new(), role: Role::Read, since_ms };
            list.insert(member);
            true
        })
    };
    let refused = (1..=FRAMES_MAX as u64).find_map(|number| changes(number).err());
    assert!(matches!(refused, Some(MembersRefused::Worn)), "{refused:?}");
    let frames = a.records(&space).values().filter(|record| record.address().ib() == "members").count();
    let listed = a.engine.members(&space).unwrap().newest.members.member(&keystone).unwrap().since_ms;
    assert!(frames < FRAMES_MAX && listed == frames as u64 - 1, "{frames} frames, {listed}: what was made is read");
}

/// What a writer writes is taken; what it wrote before its removal too, whoever hears of it when; later versions are held.
// Proves: SY-102
#[test]
fn what_is_held_of_a_removed_writer() {
    let (a, b, late) = (Home::new(1), Home::new(2), Home::new(3));
    let space = a.space();
    a.meets(&b);
    a.enters(space, &b, Role::Write);
    b.meets(&a);
    late.meets(&a);
    late.meets(&b);
    b.takes_all(&a, &space);
    late.takes_all(&a, &space);
    b.writes(&space, "early");
    assert_eq!(a.would_hold(&b, &space), (0, 2), "a frame and its stone");
    a.takes_all(&b, &space);
    a.engine.remove_member(&b.id()).unwrap();
    late.meets(&a);
    assert_eq!(late.would_hold(&a, &space).0, 0, "what was written before the removal is taken with it");
    b.writes(&space, "late");
    assert_eq!(a.would_hold(&b, &space), (2, 2));
    late.takes_all(&a, &space);
    assert_eq!(late.would_hold(&b, &space), (2, 2));
}

/// Whoever may not wait for the disk changes nothing: what is posted to a keystone could not be taken back.
// Proves: SY-102
#[test]
fn members_that_are_changed_where_nobody_may_wait_stay_as_they_are() {
    let (a, b) = (Home::new(31), Home::new(32));
    let space = a.space();
    a.meets(&b);
    a.enters(space, &b, Role::Write);
    let posted = || a.identities.frames_of(&a.device()).len();
    let before = posted();
    let task = async { a.engine.remove_member(&b.id()) };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(task)));
    assert!(ended.is_err(), "it waits for the disk");
    assert_eq!(posted(), before);
    assert_eq!(a.engine.remove_member(&b.id()).unwrap(), [space], "in its place it goes on");
    assert_eq!(a.engine.role(&b.id(), &space), None);
}

/// Nobody makes himself admin, neither with a claim of his own nor behind his removal.
// Proves: SY-102
#[test]
fn members_frames_of_others_are_held() {
    let (a, b) = (Home::new(1), Home::new(2));
    let space = a.space();
    a.meets(&b);
    let raise = |role| {
        a.enters(space, &b, role);
        b.meets(&a);
        b.takes_all(&a, &space);
    };
    let forge = || {
        let newest = b.engine.members(&space).unwrap().newest.clone();
        let mut list: Members = newest.members;
        list.insert(b.member(Role::Admin));
        list.remove(&a.device(), BTreeSet::new());
        let frame = list.next_frame(&newest.frame, Stamp { ms: 9 }).unwrap();
        b.identities.post(frame.address()).unwrap();
        let result = b.engine.commit_in_thread(space, vec![frame]).unwrap();
        b.engine.committed(space, None, &result);
        a.meets(&b);
    };
    raise(Role::Write);
    forge();
    assert_eq!(b.engine.role(&b.id(), &space), Some(Role::Write), "it does not count");
    assert_eq!(a.would_hold(&b, &space), (2, 2), "the frame and the stone that names it");
    // An admin may; once it is removed, what it makes on the old branch is held.
    let (a, b, space) = founder_and(Role::Admin);
    let by = |home: &Home, name: u8| {
        home.engine.change_members(space, |list| {
            let keystone = Address::parse(&format!("keystone^{name:064X}")).unwrap();
            list.insert(Member { keystone, nodes: BTreeSet::new(), role: Role::Read, since_ms: 1 });
            true
        })
    };
    assert!(by(&b, 1).unwrap());
    a.meets(&b);
    assert_eq!(a.would_hold(&b, &space), (0, 2), "an admin of today");
    a.engine.remove_member(&b.id()).unwrap();
    assert_eq!(a.would_hold(&b, &space), (2, 2), "an admin of yesterday");
}

/// A founder, and somebody whom it let in.
fn founder_and(role: Role) -> (Home, Home, SpaceId) {
    let (a, b) = (Home::new(1), Home::new(2));
    let space = a.space();
    a.meets(&b);
    a.enters(space, &b, role);
    b.meets(&a);
    b.takes_all(&a, &space);
    (a, b, space)
}

/// A founder, and a writer that is removed and whose versions come by way of others.
fn founder_and_removed(written_before: impl FnOnce(&Home, &SpaceId)) -> (Home, Home, SpaceId) {
    let (a, b, space) = founder_and(Role::Write);
    written_before(&b, &space);
    a.takes_all(&b, &space);
    a.engine.remove_member(&b.id()).unwrap();
    (a, b, space)
}

/// A stone counts by its signature, and for the very records that were signed; without one nothing is taken.
// Proves: SY-102
#[test]
fn forged_stones_say_nothing() {
    let (a, b, space) = founder_and_removed(|_, _| {});
    let (own, foreign) = (node(1).key, node(2).key);
    let late = b.doc("late");
    let tip = Tip { sid: late.sid(), address: late.address().clone() };
    let stone = |key: &SigningKey, keystone: &Address, tip: &Tip| {
        commit_stones(&Author { key, keystone }, vec![tip.clone()], 9, None).unwrap().remove(0)
    };
    let device = a.device();
    let by_admin = stone(&own, &device, &tip);
    assert_eq!(a.holds_of(&space, &[&late, &by_admin]), 0, "an admin's");
    assert_eq!(a.holds_of(&space, &[&late]), 1, "no stone");
    let in_the_name = stone(&foreign, &device, &tip);
    assert_eq!(a.holds_of(&space, &[&late, &in_the_name]), 2, "the admin's keystone, and another node");
    let (mut data, signed) = (by_admin.object().unwrap(), in_the_name.object().unwrap());
    data["st"]["sig"] = signed["st"]["sig"].clone();
    let all_but_signed = Verified::make("commit", Data::Json(data.into()), by_admin.relations().clone()).unwrap();
    assert_eq!(a.holds_of(&space, &[&late, &all_but_signed]), 2, "the admin's in all but the signature");
    let of_another = stone(&own, &device, &Tip { sid: b.doc("signed").sid(), ..tip });
    assert_eq!(a.holds_of(&space, &[&late, &of_another]), 2, "the admin's, and not what was signed");
}

/// What rules give needs nobody's word: exactly what they give, of what is taken. An admin takes what says so and does not, and then all do.
// Proves: SY-102
#[test]
fn what_only_says_that_it_follows_from_rules_is_held() {
    let docs = RefCell::new(Vec::new());
    let (a, b, space) = founder_and_removed(|b, space| {
        let base = b.doc("one");
        let tips = ["left", "right"].map(|name| b.edit(&base, name));
        let files = [("path", 10), ("path", 20), ("elsewhere", 30)].map(|(path, ms)| b.file(path, ms));
        docs.borrow_mut().extend([base].into_iter().chain(tips).chain(files));
        docs.borrow().iter().for_each(|record| b.commits(space, record));
    });
    let docs = docs.into_inner();
    let [base, left, right, owner, loser, other] = &docs[..] else { panic!("{docs:?}") };
    let held = |record: &Verified| a.holds_of(&space, &[record]);
    let mut load = |address: &Address| [base, left, right].into_iter().find(|it| it.address() == address).cloned();
    let merged = merge_tips((left, right), &MergeStrategy::Optimistic, &mut load).unwrap();
    let mut data = merged.object().unwrap();
    data["name"] = "middle".into();
    let forged = Verified::make("doc", Data::Json(data.into()), merged.relations().clone()).unwrap();
    assert_eq!((held(&merged), held(&forged)), (0, 1), "a merge");

    let yields = |loser: &Verified, owner: &Address| yield_frame(loser, owner).unwrap();
    assert_eq!(held(&yields(loser, owner.address())), 0, "another file owns the path");
    let nobody = Address::parse(&format!("file^{:064X}", 7)).unwrap();
    let of_nobody = yields(loser, &nobody);
    for (forged, what) in [
        (&of_nobody, "nobody owns it"),
        (&yields(owner, loser.address()), "it owns the path itself"),
        (&yields(owner, owner.address()), "the owner is the file itself"),
        (&yields(other, owner.address()), "the owner stands elsewhere"),
    ] {
        assert_eq!(held(forged), 1, "{what}");
    }
    let late = b.file("path", 1);
    b.commits(&space, &late);
    let new = b.records(&space).into_values().filter(|it| !a.records(&space).contains_key(&it.sid()));
    let new: Vec<Verified> = new.chain([yields(owner, late.address())]).collect();
    assert_eq!((a.holds_of(&space, &new.iter().collect::<Vec<_>>()), new.len()), (3, 3), "the owner is held");

    let c = Home::new(3);
    c.meets(&a);
    c.meets(&b);
    c.takes_all(&a, &space);
    let more = b.edit(right, "more");
    let mut load =
        |address: &Address| [base, left, right, &more].into_iter().find(|it| it.address() == address).cloned();
    let merged = merge_tips((left, &more), &MergeStrategy::Optimistic, &mut load).unwrap();
    let by_hand = [forged, of_nobody, more];
    a.receives(&space, &b, &[&by_hand[..], std::slice::from_ref(&merged)].concat());
    let sids = |frames: &[Verified]| frames.iter().map(Verified::sid).collect::<BTreeSet<Sid>>();
    let held = a.engine.held(&space);
    let shown: Vec<Verified> = crate::commands::hold::versions(&held).map(|(_, frame)| frame.clone()).collect();
    assert_eq!(sids(&shown), sids(&by_hand), "whoever decides sees all that it then vouches for");
    assert_eq!(a.engine.take_held(&space, None).unwrap(), shown.len());
    assert!(by_hand.iter().all(|frame| a.records(&space).contains_key(&frame.sid())));
    assert_eq!(c.would_hold(&a, &space), (0, 5), "these, the merge, and the stone of the admin");
    let view = a.engine.store().view(&space).unwrap();
    let whose = |frame| a.engine.authorship(&view, frame);
    assert_eq!((whose(&by_hand[0]), whose(&merged)), (Authorship::Verified(a.id()), Authorship::Merged));
}

/// A yield is made against the newest version of the owner; since then that may have got very many.
// Proves: SY-102
#[test]
fn a_yield_against_a_file_of_very_many_versions_is_taken() {
    let losers = RefCell::new(Vec::new());
    let (a, _, space) = founder_and_removed(|b, space| {
        let before = (0..VERSIONS_MAX).map(|number| number.to_string());
        let owner = b.file_of("path", 10, before.chain(["late".into(), "later".into()]));
        let loser = b.file_of("path", 20, ["late".into()]);
        losers.borrow_mut().extend(loser.iter().map(|loser| yield_frame(loser, owner[0].address()).unwrap()));
        b.commits_all(space, [owner, loser].concat());
    });
    let [of_the_first, of_the_last] = &losers.into_inner()[..] else { panic!("two versions") };
    assert_eq!(a.holds_of(&space, &[of_the_last]), 0);
    assert_eq!(a.holds_of(&space, &[of_the_first]), 1, "nobody looks that far back");
}

/// What is held is judged with each commit of anybody; the files that it names may have long histories.
// Proves: SY-102
#[test]
fn what_held_yields_name_is_read_once() {
    let files = RefCell::new(Vec::new());
    let (a, b, space) = founder_and_removed(|b, space| {
        files.borrow_mut().push(b.file_of("path", 10, (0..20).map(|number| number.to_string())));
        files.borrow_mut().push(b.file_of("path", 20, ["never".into()]));
        b.commits_all(space, files.borrow().concat());
    });
    let [owner, loser] = &files.into_inner()[..] else { panic!("two files") };
    let ended = yield_frame(&loser[1], owner[0].address()).unwrap();
    a.receives(&space, &b, std::slice::from_ref(&ended));
    let read = || a.engine.versions_read(&space, &b.id());
    a.engine.review_held(&space);
    a.engine.review_held(&space);
    assert_eq!((read(), a.engine.held(&space)[0].frames.len(), read()), (Some(0), 1, Some(0)), "nothing is new");
    a.writes(&space, "another document");
    assert_eq!(read(), Some(0), "nothing of the file");
    let next = a.writes_over(owner.last().unwrap(), "next");
    a.commits(&space, &next);
    assert_eq!(read(), Some(1), "its new version");
    a.commits(&space, &a.writes_over(&next, "never"));
    assert_eq!((read(), a.records(&space).contains_key(&ended.sid())), (None, true), "by the rule, now");
}

/// Who names files with long histories does not have all of them read at once, and keeps nobody's short ones from being read. The rest is
/// read with the next looks.
// Proves: SY-102
#[test]
fn yields_that_name_much_are_looked_at_in_parts() {
    let ends = RefCell::new(Vec::new());
    let (a, b, space) = founder_and_removed(|b, space| {
        let texts = |count: usize| (1..count).map(|number| number.to_string());
        let long = VERSIONS_FREE + VERSIONS_MORE * 2 / 5;
        let mut owners: Vec<Vec<Verified>> = (0..5).map(|_| b.file_of("path", 10, texts(long))).collect();
        // They are looked at in this order.
        owners.sort_by_key(|versions| versions[0].address().clone());
        owners[4].truncate(VERSIONS_FREE);
        let loser = b.file_of("path", 20, ["never".into()]);
        let ended = |what: usize, owner: usize| yield_frame(&loser[what], owners[owner][0].address()).unwrap();
        ends.borrow_mut().extend([ended(1, 0), ended(1, 1), ended(1, 2), ended(0, 3), ended(0, 4)]);
        b.commits_all(space, [owners.concat(), loser.clone()].concat());
    });
    let ends = ends.into_inner();
    let taken = || ends.iter().map(|end| a.records(&space).contains_key(&end.sid())).collect::<Vec<bool>>();
    let all: Vec<&Verified> = ends.iter().collect();
    assert_eq!((a.holds_of(&space, &all), a.holds_of(&space, &all[3..])), (4, 0), "much, and what is alone");
    a.receives(&space, &b, &ends);
    assert!(taken()[4], "a short history");
    a.engine.review_held(&space);
    a.engine.review_held(&space);
    assert_eq!(taken(), [false, false, false, true, true]);
}

/// What was read of a large hold does not stay in memory.
#[test]
fn what_was_read_of_very_much_that_is_held_is_let_go_of() {
    for (count, kept) in [(1, true), (READ_MAX + 1, false)] {
        let (a, b, space) = founder_and_removed(|_, _| {});
        let new: Vec<Verified> = (0..count).map(|number| b.doc(&format!("document {number}"))).collect();
        a.receives(&space, &b, &new);
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let room = || runtime.block_on(a.engine.room(&space, &b.id())).unwrap();
        let first = room();
        assert!(new.iter().all(|record| first.contains(&record.sid())));
        assert_eq!(first.has_read_of(&room()), kept, "{count}");
    }
}

/// What an admin who has not heard of the removal writes behind a removed writer's version does not make that version its own.
// Proves: SY-102
#[test]
fn who_goes_on_from_what_is_held_does_not_vouch_for_it() {
    let (a, b, c) = (Home::new(1), Home::new(2), Home::new(3));
    let space = a.space();
    let first = a.doc("first");
    a.commits(&space, &first);
    for (other, role) in [(&b, Role::Write), (&c, Role::Admin)] {
        a.meets(other);
        a.enters(space, other, role);
    }
    for (one, two) in [(&b, &a), (&c, &a), (&c, &b)] {
        one.meets(two);
    }
    b.takes_all(&a, &space);
    c.takes_all(&a, &space);
    a.engine.remove_member(&b.id()).unwrap();
    let second = b.edit(&first, "second");
    b.commits(&space, &second);
    assert_eq!(c.would_hold(&b, &space), (0, 2), "a writer's, as far as it knows");
    c.takes_all(&b, &space);
    c.commits(&space, &c.edit(&second, "third"));
    a.meets(&c);
    assert_eq!(a.would_hold(&c, &space), (4, 4), "both versions and both stones");
    c.commits(&space, &c.doc("another"));
    assert_eq!(a.would_hold(&c, &space), (6, 6), "what it commits behind that, too");
}

/// Whoever passes them on: versions count by the role of who wrote them, and the first frame of a space is moved by admins.
// Proves: SY-102
#[test]
fn a_stone_counts_as_far_as_the_role_of_its_maker() {
    for (role, held) in [(Role::Read, 4), (Role::Write, 2), (Role::Admin, 0)] {
        let (a, b, space) = founder_and(role);
        b.writes(&space, "a version");
        let first = b.records(&space).into_values().find(|it| it.address().ib() == "space").unwrap();
        b.commits(&space, &b.edit(&first, "another name"));
        assert_eq!(a.would_hold(&b, &space), (held, 4), "{role:?}");
    }
    let (a, b, space) = founder_and(Role::Write);
    b.writes(&space, "by a writer");
    a.takes_all(&b, &space);
    a.enters(space, &b, Role::Read);
    b.writes(&space, "by a reader");
    assert_eq!(a.would_hold(&b, &space), (2, 2), "made a reader");
}

/// Contents are given to whoever may read the space, while it is not paused.
// Proves: SY-73
#[test]
fn contents_are_given_to_readers_only() {
    let (a, b) = (Home::new(1), Home::new(2));
    let space = a.space();
    a.meets(&b);
    let given = || a.engine.contents_for(&b.id(), &space).is_some();
    assert!(!given(), "a stranger");
    a.enters(space, &b, Role::Read);
    assert!(given(), "a reader");
    assert!(a.engine.contents_for(&b.id(), &SpaceId::from_bytes([9; 32])).is_none(), "another space");
    a.engine.pause(space, true);
    assert!(!given(), "paused");
    a.engine.pause(space, false);
    assert!(given());
    a.engine.remove_member(&b.id()).unwrap();
    assert!(!given(), "removed");
}

/// A saga may bring much, and keystones come in several rounds: each record is read once, a commit stone once more when
/// the key of its maker is known.
#[test]
fn what_came_is_read_once_however_often_it_is_judged() {
    let (a, b, c) = (Home::new(21), Home::new(22), Home::new(23));
    let space = a.space();
    for other in [&b, &c] {
        a.meets(other);
        a.enters(space, other, Role::Write);
        other.meets(&a);
        other.takes_all(&a, &space);
    }
    b.meets(&a);
    b.takes_all(&a, &space);
    (0..5).for_each(|number| c.writes(&space, &format!("document {number}")));
    let (own, theirs) = (b.records(&space), c.records(&space));
    let new: Vec<Sid> = theirs.keys().filter(|sid| !own.contains_key(*sid)).copied().collect();
    let reads: RefCell<BTreeMap<Sid, usize>> = RefCell::default();
    let load = |sid: &Sid| {
        *reads.borrow_mut().entry(*sid).or_default() += 1;
        theirs.get(sid).cloned()
    };
    let [first, second, third] = b.engine.judged_again(&space, &new, &load, &|| {
        // To say what is held with them, what is held is read again.
        reads.borrow_mut().clear();
        b.meets(&c);
    });
    assert_eq!((first.len(), new.len()), (10, 10), "nobody knows whose they are");
    assert_eq!((second.len(), third.len()), (0, 0), "a writer's");
    let read: BTreeMap<Sid, usize> = reads.take();
    assert!(read.keys().all(|sid| theirs[sid].address().ib() == "commit") && read.len() == 5, "{read:?}");
    assert!(read.values().all(|count| *count == 1), "{read:?}");
}

/// An old release whose tar nobody has any more, by a publisher that was removed: it is held, and taken when a person says so, or when the
/// publisher may write again.
// Proves: SY-102
#[test]
fn what_is_held_may_lack_what_nobody_has() {
    for by_hand in [true, false] {
        let (a, b, space) = founder_and(Role::Write);
        a.engine.remove_member(&b.id()).unwrap();
        let store = b.engine.store();
        let tar = vec![7; 2 << 20];
        let manifest = Manifest::cut(&mut &tar[..], &mut |cut| {
            store.put_chunk(cut.chunk().hash, cut.bytes()).map_err(std::io::Error::other)
        });
        let mut records = manifest.unwrap().records();
        let relations = Relations::from([("tar".to_owned(), vec![records.last().unwrap().address().clone()])]);
        let mut data = Object::new();
        data.insert("by".into(), b.id().to_string().into());
        records.push(genesis("doc", data, relations, Stamp { ms: 5 }, &uuid(&mut OsEntropy)));
        b.engine.committed(space, None, &b.engine.commit_in_thread(space, records).unwrap());

        let (own, theirs) = (a.records(&space), b.records(&space));
        let new: Vec<Verified> =
            theirs.iter().filter(|(sid, _)| !own.contains_key(*sid)).map(|(_, record)| record.clone()).collect();
        a.receives(&space, &b, &new);
        let held = || a.engine.held(&space).iter().map(|from| from.records).sum::<usize>();
        assert_eq!((held(), a.records(&space).len()), (new.len(), own.len()));
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let room = || runtime.block_on(a.engine.room(&space, &b.id())).unwrap();
        let first = room();
        assert!(first.has_read_of(&room()), "what is held is read once");
        assert!(new.iter().all(|record| first.contains(&record.sid())));
        if by_hand {
            assert_eq!(a.engine.take_held(&space, None).unwrap(), 1);
        } else {
            a.enters(space, &b, Role::Write);
            a.engine.review_held(&space);
        }
        assert_eq!(held(), 0, "by hand: {by_hand}");
        assert!(!first.has_read_of(&room()), "nothing is held any more");
        assert!(new.iter().all(|record| a.records(&space).contains_key(&record.sid())), "by hand: {by_hand}");
    }
}

/// A clock that was far ahead once leaves the times of a device ahead. What it then signs beyond the end of its delegation nobody
/// counts, so it is not written, and whoever asked hears why.
// Proves: SY-102
#[test]
fn a_change_that_nobody_would_count_is_refused() {
    const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
    let ms = Arc::new(AtomicU64::new(1_800_000_000_000));
    let shown = ms.clone();
    let clock: Clock = Arc::new(move || Stamp { ms: shown.fetch_add(1, Ordering::Relaxed) });
    let identities = room_at(&MemDisk::new(31), &MemPlace::default(), [1; 32], 31, clock).unwrap();
    identities.make_owner(&RootSecret::from_bytes([9; 32])).unwrap();
    let a = Home::of(31, identities);
    let space = a.space();
    let adds = |name: u8| {
        a.engine.change_members(space, |list| {
            let keystone = Address::parse(&format!("keystone^{name:064X}")).unwrap();
            list.insert(Member { keystone, nodes: BTreeSet::new(), role: Role::Read, since_ms: 1 });
            true
        })
    };
    let listed = || a.engine.members(&space).unwrap().newest.members.members.len();
    assert!(adds(1).unwrap());
    assert_eq!(listed(), 2);
    ms.fetch_add(20 * YEAR_MS, Ordering::Relaxed);
    a.identities.post(&a.device()).unwrap();
    ms.fetch_sub(20 * YEAR_MS, Ordering::Relaxed);
    let frames = || a.records(&space).values().filter(|record| record.address().ib() == "members").count();
    let before = frames();
    let refused = adds(2).unwrap_err();
    assert!(matches!(&refused, MembersRefused::NotCounted { signed } if signed.starts_with("2047-01")), "{refused:?}");
    assert_eq!((frames(), listed()), (before, 2), "nothing was written");
    let until = Some(Stamp { ms: 1_800_000_000_000 + 30 * YEAR_MS });
    a.identities.delegate(&DelegationOrder { node: a.id(), verbs: vec![Verb::Sync, Verb::Post], until }).unwrap();
    assert!(adds(2).unwrap());
    assert_eq!(listed(), 3, "the cure");
}
