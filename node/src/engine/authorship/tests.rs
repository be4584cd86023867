//! Two engines over stores of their own; what one commits is handed to the other as a saga would.

use std::collections::BTreeMap;

use sealtide_crypto::Seed;
use sealtide_ibgib::{Data, Object, Relations, Stamp, evolve, genesis, space_genesis, uuid};
use sealtide_store::Store;
use sealtide_sync::{Introduction, Misfit, OwnIdentity, Proof, Refused};
use serde_json::json;

use super::*;
use crate::engine::keystones::{Checked, Connection, Keystones, NoKeystones, Work};
use crate::real::RealWorld;
use crate::world::OsEntropy;

/// A keeper that holds keys and nothing else.
#[derive(Clone)]
struct Keys {
    own: Option<CommitKey>,
    held: Arc<Mutex<BTreeMap<Address, PublicKey>>>,
}

impl Keystones for Keys {
    fn identity(&self, peer: &NodeId) -> Option<OwnIdentity> {
        NoKeystones.identity(peer)
    }
    fn held(&self, first: Address) -> Work<Option<u64>> {
        NoKeystones.held(first)
    }
    fn prove(&self, connection: Connection, introduction: Introduction) -> Work<Result<Proof, Refused>> {
        NoKeystones.prove(connection, introduction)
    }
    fn check_proof(&self, on: Connection, frames: Vec<Verified>, by: Introduction) -> Work<Result<(), Refused>> {
        NoKeystones.check_proof(on, frames, by)
    }
    fn frames(
        &self,
        connection: Connection,
        first: Address,
        after: Option<u64>,
        named: BTreeSet<Address>,
    ) -> Work<Vec<Verified>> {
        NoKeystones.frames(connection, first, after, named)
    }
    fn keep(&self, on: Connection, first: Address, frames: Vec<Verified>, last: bool) -> Work<Result<(), Refused>> {
        NoKeystones.keep(on, first, frames, last)
    }
    fn keep_unseen(&self, connection: Connection, sig: Verified) -> Work<()> {
        NoKeystones.keep_unseen(connection, sig)
    }
    fn sign(&self, connection: Connection, target: String) -> Work<Result<Verified, Refused>> {
        NoKeystones.sign(connection, target)
    }
    fn check_sig(&self, on: Connection, target: String, sig: Verified) -> Work<Result<Checked, Refused>> {
        NoKeystones.check_sig(on, target, sig)
    }
    fn ended(&self, connection: &Connection) {
        NoKeystones.ended(connection);
    }
    fn commit_key(&self) -> Option<CommitKey> {
        self.own.clone()
    }
    fn node_key(&self, keystone: &Address) -> Option<PublicKey> {
        lock(&self.held).get(keystone).cloned()
    }
}

fn commit_key(number: u8) -> CommitKey {
    let key = Arc::new(SigningKey::from_seed(&Seed::from_bytes([number; 32])));
    CommitKey { key, keystone: Address::parse(&format!("keystone^{number:064X}")).unwrap() }
}

struct Node {
    engine: Engine<RealWorld>,
    keys: Keys,
    space: SpaceId,
    place: tempfile::TempDir,
}

impl Node {
    fn open(number: u8, place: tempfile::TempDir, space: SpaceId) -> Self {
        let own = commit_key(number);
        let id = NodeId::of(own.key.public());
        let held = BTreeMap::from([(own.keystone.clone(), own.key.public().clone())]);
        let keys = Keys { own: Some(own), held: Arc::new(Mutex::new(held)) };
        let store = Store::open_dir(place.path()).unwrap();
        let engine = Engine::with_keystones(RealWorld, store, id, Arc::new(keys.clone()));
        Self { engine, keys, space, place }
    }

    fn new(number: u8) -> Self {
        let mut node = Self::open(number, tempfile::tempdir().unwrap(), SpaceId::from_bytes([0; 32]));
        let by = node.engine.id().to_string();
        let first = space_genesis("t", "data", &by, Stamp { ms: 1 }, &uuid(&mut OsEntropy));
        node.space = node.engine.create_space(first).unwrap();
        node
    }

    /// Another node with all that this one holds, and with its key.
    fn copy(&self, number: u8) -> Self {
        let other = Self::open(number, tempfile::tempdir().unwrap(), self.space);
        other.engine.store().adopt_space(self.space).unwrap();
        other.take_from(self);
        let own = self.keys.own.clone().unwrap();
        lock(&other.keys.held).insert(own.keystone, own.key.public().clone());
        other
    }

    fn reopen(self, number: u8) -> Self {
        let (place, space) = (self.place, self.space);
        drop(self.engine);
        drop(self.keys);
        Self::open(number, place, space)
    }

    fn view(&self) -> SpaceHandle {
        self.engine.store().view(&self.space).unwrap()
    }

    fn id(&self) -> NodeId {
        self.engine.id()
    }

    async fn commit<const COUNT: usize>(&self, records: [&Verified; COUNT]) {
        self.engine.commit_local(self.space, records.map(Clone::clone).to_vec()).await.unwrap();
    }

    /// As records arrive by a saga: nobody signs them here.
    fn put(&self, records: Vec<Verified>) {
        let request = CommitRequest::local(records);
        self.engine.store().commit(&self.space, &request).unwrap();
    }

    fn take_from(&self, other: &Self) {
        let view = other.view();
        self.put(view.bulk(None, usize::MAX).iter().map(|(_, sid)| view.record(sid).unwrap()).collect());
    }

    fn stones(&self) -> Vec<Commit> {
        let view = self.view();
        view.stones().iter().filter_map(|sid| read_commit(&view.record(sid)?)).collect()
    }

    fn whose(&self, frame: &Verified) -> Authorship {
        self.engine.authorship(&self.view(), frame)
    }
}

fn data(text: &str) -> Object {
    let mut data = Object::new();
    data.insert("text".into(), text.into());
    data
}

fn first(text: &str) -> Verified {
    genesis("doc", data(text), Relations::new(), Stamp { ms: 5 }, &uuid(&mut OsEntropy))
}

fn edit(before: &Verified, text: &str) -> Verified {
    evolve(before, data(text), Relations::new(), Stamp { ms: 6 })
}

// Proves: SY-103
#[tokio::test]
async fn every_local_commit_is_signed_and_the_stones_follow_one_another() {
    let a = Node::new(1);
    let one = first("one");
    let two = edit(&one, "two");
    let three = edit(&two, "three");
    a.commit([&one]).await;
    a.commit([&two, &three, &first("other")]).await;
    let b = a.copy(2);
    for frame in [&one, &two, &three] {
        assert_eq!((a.whose(frame), b.whose(frame)), (Authorship::Verified(a.id()), Authorship::Verified(a.id())));
    }
    // Another process goes on where the one before stopped.
    let a = a.reopen(1);
    a.commit([&edit(&three, "four")]).await;
    let mut stones = a.stones();
    stones.sort_by_key(|commit| commit.seq);
    assert_eq!(
        stones.iter().map(|commit| (commit.seq, commit.tips.len())).collect::<Vec<_>>(),
        [(0, 1), (1, 1), (2, 2), (3, 1)]
    );
    let view = a.view();
    for (before, after) in stones.iter().zip(&stones[1..]) {
        let named = view.records_at(after.prev.as_ref().unwrap());
        assert_eq!(read_commit(&named[0]).as_ref(), Some(before));
    }
}

// Proves: SY-103
#[tokio::test]
async fn commits_at_once_have_one_order() {
    let a = Node::new(1);
    let mut many = tokio::task::JoinSet::new();
    for number in 0..16 {
        let (engine, space) = (a.engine.clone(), a.space);
        many.spawn(async move { engine.commit_local(space, vec![first(&number.to_string())]).await.unwrap() });
    }
    assert_eq!(many.join_all().await.len(), 16);
    let mut seqs: Vec<u64> = a.stones().iter().map(|commit| commit.seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (0..17).collect::<Vec<_>>());
}

// Proves: SY-14, SY-51
#[tokio::test]
async fn what_no_peer_would_take_is_not_committed() {
    let a = Node::new(1);
    let one = first("one");
    let two = edit(&one, "two");
    let mut data = two.object().unwrap();
    data.insert("n".into(), 9.into());
    let ninth = Verified::make("doc", Data::Json(data.into()), two.relations().clone()).unwrap();
    let count = || a.view().info().unwrap().records;
    let before = count();
    let without = Misfit::Missing { record: two.address().clone(), link: one.address().clone() };
    for (records, expected) in [
        (vec![two.clone()], without.clone()),
        (vec![one.clone(), ninth.clone()], Misfit::Counter(ninth.address().clone())),
    ] {
        let refused = a.engine.commit_local(a.space, records.clone()).await;
        assert!(matches!(refused, Err(CommitError::Misfit(misfit)) if misfit == expected));
        let (engine, space, of_thread) = (a.engine.clone(), a.space, records.clone());
        let refused = tokio::task::spawn_blocking(move || engine.commit_in_thread(space, of_thread)).await.unwrap();
        assert!(matches!(refused, Err(CommitError::Misfit(misfit)) if misfit == expected));
        let begin = space_genesis("t", "data", "x", Stamp { ms: 1 }, &uuid(&mut OsEntropy));
        let refused = a.engine.create_space_with(begin, records);
        assert!(matches!(refused, Err(CreateError::Commit(CommitError::Misfit(misfit))) if misfit == expected));
    }
    assert_eq!((count(), a.engine.store().spaces().len()), (before, 1), "nothing of it stays");
    a.commit([&two, &one]).await;
    assert_eq!(a.stones().iter().map(|commit| commit.seq).max(), Some(1), "no stone was made for what was refused");
}

#[tokio::test]
async fn a_change_of_what_was_read_is_refused_where_that_has_moved() {
    let a = Node::new(1);
    let one = first("one");
    let timeline = one.frame().unwrap().timeline;
    let commit = |records: [&Verified; 1], tips: &[&Verified]| {
        let expected = vec![(timeline, tips.iter().map(|tip| tip.sid()).collect())];
        a.engine.commit_local_if(a.space, records.map(Clone::clone).to_vec(), expected)
    };
    commit([&one], &[]).await.unwrap();
    let (two, beside) = (edit(&one, "two"), edit(&one, "beside"));
    commit([&two], &[&one]).await.unwrap();
    for tips in [&[][..], &[&one]] {
        assert!(matches!(commit([&beside], tips).await, Err(CommitError::TipMoved(moved)) if moved == timeline));
    }
    assert_eq!(a.view().tip_sids(&timeline), [two.sid()], "there is still one newest version");
    a.commit([&beside]).await;
    commit([&edit(&two, "three")], &[&beside, &two]).await.unwrap();
    assert_eq!(a.whose(&two), Authorship::Verified(a.id()));
}

// Proves: SY-103
#[tokio::test]
async fn frames_before_the_last_commit_keep_their_own_author() {
    let a = Node::new(1);
    let one = first("one");
    a.commit([&one]).await;
    let b = a.copy(2);
    let two = edit(&one, "two");
    b.commit([&two]).await;
    // What nobody signed and somebody went on from.
    let (three, unsigned) = (edit(&two, "three"), edit(&two, "beside"));
    a.take_from(&b);
    a.put(vec![three.clone(), unsigned.clone()]);
    let four = edit(&three, "four");
    a.commit([&four]).await;
    lock(&a.keys.held).extend(lock(&b.keys.held).clone());
    assert_eq!(a.whose(&one), Authorship::Verified(a.id()));
    assert_eq!(a.whose(&two), Authorship::Verified(b.id()));
    assert_eq!(a.whose(&three), Authorship::Verified(a.id()), "reached from the next frame");
    assert_eq!(a.whose(&four), Authorship::Verified(a.id()));
    assert_eq!(a.whose(&unsigned), Authorship::Claimed);
}

// Proves: SY-103
#[tokio::test]
async fn a_key_that_comes_later_proves_what_was_a_claim() {
    let a = Node::new(1);
    let one = first("one");
    a.commit([&one]).await;
    let b = a.copy(2);
    let keystone = a.keys.own.clone().unwrap().keystone;
    let key = lock(&b.keys.held).remove(&keystone).unwrap();
    assert_eq!(b.whose(&one), Authorship::Claimed);
    lock(&b.keys.held).insert(keystone, key);
    assert_eq!(b.whose(&one), Authorship::Verified(a.id()));
}

// Proves: SY-103
#[tokio::test]
async fn forged_stones_prove_nothing() {
    let a = Node::new(1);
    let victim = a.id().to_string();
    let forger = commit_key(9);
    let author = Author { key: &forger.key, keystone: &a.keys.own.clone().unwrap().keystone };
    let of = |frame: &Verified| Tip { sid: frame.sid(), address: frame.address().clone() };
    let changed = |stone: &Verified, change: &dyn Fn(&mut serde_json::Value)| {
        let mut data = serde_json::Value::Object(stone.object().unwrap());
        change(&mut data);
        Verified::make(COMMIT_IB, Data::Json(data), stone.relations().clone()).unwrap()
    };
    // Another key under the victim's name and keystone, with a seq in front of all.
    let one = first("one");
    let stone = commit_stones(&author, vec![of(&one)], 1, None).unwrap().remove(0);
    let named = changed(&stone, &|data| data["by"] = json!(victim));
    // Tips that were not signed: the right signature, another shape of the list.
    let own = a.keys.own.clone().unwrap();
    let own = Author { key: &own.key, keystone: &own.keystone };
    let two = first("two");
    let wrong = Tip { sid: first("else").sid(), address: two.address().clone() };
    let wrong_tips = commit_stones(&own, vec![wrong], 1, None).unwrap().remove(0);
    // A `prev` that is a stone of somebody else.
    let three = first("three");
    let orphan = commit_stones(&own, vec![of(&three)], 1, Some((stone.address(), 0))).unwrap().remove(0);
    // A `prev` that is not here.
    let four = first("four");
    let nowhere = commit_stones(&own, vec![of(&four)], 1, Some((first("x").address(), 6))).unwrap().remove(0);
    let frames = [&one, &two, &three, &four];
    let stones = [&stone, &named, &wrong_tips, &orphan, &nowhere];
    a.put(frames.into_iter().chain(stones).cloned().collect());
    for (number, frame) in frames.into_iter().enumerate() {
        assert_eq!(a.whose(frame), Authorship::Claimed, "frame {number}");
    }
    for (number, stone) in stones.into_iter().enumerate() {
        assert_eq!(a.engine.stone_verdict(&a.view(), stone), StoneVerdict::Bad, "stone {number}");
    }
    // A forged stone far ahead does not become the one that the next own one names.
    let ahead = commit_stones(&author, vec![of(&one)], 1, Some((stone.address(), 1 << 40))).unwrap().remove(0);
    a.put(vec![changed(&ahead, &|data| data["by"] = json!(victim))]);
    let a = a.reopen(1);
    let five = first("five");
    a.commit([&five]).await;
    assert_eq!(a.whose(&five), Authorship::Verified(a.id()));
}

// Proves: SY-103
#[tokio::test]
async fn a_node_without_identities_signs_nothing() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open_dir(place.path()).unwrap();
    let engine = Engine::new(RealWorld, store, NodeId::from_bytes([1; 32]));
    let frame = space_genesis("t", "data", "x", Stamp { ms: 1 }, &uuid(&mut OsEntropy));
    let space = engine.create_space(frame).unwrap();
    let one = first("one");
    engine.commit_local(space, vec![one.clone()]).await.unwrap();
    let view = engine.store().view(&space).unwrap();
    assert_eq!(view.info().unwrap().records, 2);
    assert_eq!(engine.authorship(&view, &one), Authorship::Claimed);
}

// Proves: SY-103
#[tokio::test]
async fn merge_frames_and_yields_are_nobody_s() {
    use sealtide_ibgib::{Content, FileKind, MergeStrategy, merge_tips, yield_frame};

    let a = Node::new(1);
    let base = first("one");
    a.commit([&base]).await;
    let (left, right) = (edit(&base, "left"), edit(&base, "right"));
    a.commit([&left]).await;
    a.commit([&right]).await;
    let view = a.view();
    let mut load = |address: &Address| view.records_at(address).pop();
    let merge = merge_tips((&left, &right), &MergeStrategy::Optimistic, &mut load).unwrap();
    let file = |stamp| {
        let frame = FileFrame {
            path: "a".into(),
            kind: FileKind::File,
            exec: false,
            mtime: 1,
            by: a.id().to_string(),
            deleted: false,
            yielded: None,
            content: Content::Text("x".into()),
        };
        frame.genesis(Stamp { ms: stamp }, &uuid(&mut OsEntropy)).unwrap()
    };
    let (owner, loser) = (file(10), file(20));
    let yielded = yield_frame(&loser, owner.address()).unwrap();
    let before = a.stones().len();
    let tips = new_tips(&[merge.clone(), yielded.clone(), owner.clone(), loser.clone()]);
    let named: BTreeSet<Address> = tips.into_iter().map(|tip| tip.address).collect();
    assert_eq!(named, BTreeSet::from([owner.address().clone(), loser.address().clone()]));
    a.commit([&merge]).await;
    assert_eq!((a.whose(&merge), a.stones().len()), (Authorship::Merged, before));
}
