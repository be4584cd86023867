//! Members of a space, by engines over real keystones: what is allowed, what counts, what is held.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use sealtide_ibgib::{Manifest, Object, Relations, Sid, genesis, space_genesis, uuid};
use sealtide_identity::members::{Member, Members};
use sealtide_identity::{Action, Grant, Role, SpaceId, allows};
use sealtide_store::SpaceLabel;
use sealtide_sync::{CommitRequest, SpaceView};

use super::*;
use crate::engine::Engine;
use crate::engine::members::MembersRefused;
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

    fn writes(&self, space: &SpaceId, name: &str) {
        let mut data = Object::new();
        data.insert("name".into(), name.into());
        data.insert("by".into(), self.id().to_string().into());
        let doc = genesis("doc", data, Relations::new(), Stamp { ms: 5 }, &uuid(&mut OsEntropy));
        let result = self.engine.commit_in_thread(*space, vec![doc]).unwrap();
        self.engine.committed(*space, None, &result);
    }

    /// How many of the records that the other has more would be held here, and how many there are.
    fn would_hold(&self, other: &Self, space: &SpaceId) -> (usize, usize) {
        let (own, theirs) = (self.records(space), other.records(space));
        let new: Vec<Sid> = theirs.keys().filter(|sid| !own.contains_key(*sid)).copied().collect();
        (self.engine.judged(space, &new, &|sid| theirs.get(sid).cloned()).len(), new.len())
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
    a.engine.enter_invited(&b.id());
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
    let (a, b) = (Home::new(4), Home::new(5));
    let space = a.space();
    a.meets(&b);
    a.enters(space, &b, Role::Admin);
    b.meets(&a);
    b.takes_all(&a, &space);
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
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    for by_hand in [true, false] {
        let (a, b) = (Home::new(1), Home::new(2));
        let space = a.space();
        a.meets(&b);
        a.enters(space, &b, Role::Write);
        b.meets(&a);
        b.takes_all(&a, &space);
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
        let (room, saga) = (a.engine.room(&space, &b.id()).unwrap(), a.engine.new_saga_id());
        a.engine.store().stage(&space, &saga, &new, &[]).unwrap();
        let request = CommitRequest::of_saga(saga);
        runtime.block_on(a.engine.commit_received(&room, b.id(), saga, request, None)).unwrap();
        let held = || a.engine.held(&space).iter().map(|from| from.records).sum::<usize>();
        assert_eq!((held(), a.records(&space).len()), (new.len(), own.len()));
        if by_hand {
            assert_eq!(a.engine.take_held(&space, None).unwrap(), 1);
        } else {
            a.enters(space, &b, Role::Write);
            a.engine.review_held(&space);
        }
        assert_eq!(held(), 0, "by hand: {by_hand}");
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
