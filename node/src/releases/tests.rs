//! The space of an app in memory, into which a publisher writes, and somebody else who may write there too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use sealtide_crypto::{Now, Seed, SeededEntropy, SigningKey, blake3};
use sealtide_ibgib::{Address, Object, Relations, Sid, Stamp, Verified, genesis, space_genesis, try_evolve};
use sealtide_identity::SpaceId;
use sealtide_identity::keyring::{
    ChangeRequest, KeyOffers, KeyPolicy, KeySecret, KeyVersion, Keyring, KeyringRecovery, LastGood, Ledger,
    LedgerRecord, LedgerRow, LoadedKeys, Order, Pair, VersionKeys,
};
use sealtide_releases::bundle::{
    AppName, BundleHead, Channel, ChannelHead, HEAD_MS_DEFAULT, INTEGER_MAX, Manifest, ReleaseFile, Seen, Signed,
    Trust, Wanted,
};
use sealtide_store::mem::MemDisk;
use sealtide_store::{Config, SpaceLabel, Store};
use sealtide_sync::CommitRequest;
use serde_json::{Value, json};

use super::app::App;
use super::install::{Install, InstallOrder, choose};
use super::memory::Made;
use super::mirror::settle;
use super::own::{OwnKeys, OwnLine};
use crate::content::store_bytes;
use crate::known::Known;
use crate::node::Node;
use crate::real::now;

struct Scene {
    store: Store,
    space: SpaceId,
    registry: String,
    ledger: Vec<LedgerRecord>,
    keys: LoadedKeys,
    /// Of somebody else.
    foreign: LoadedKeys,
}

fn load(seed: u16) -> LoadedKeys {
    let files = BTreeMap::from([(KeyVersion::V1, format!("{seed:04x}").repeat(16).into_bytes())]);
    LoadedKeys::load(&KeyOffers { files, ..KeyOffers::default() }, &mut SeededEntropy::new(1)).unwrap()
}

fn pair(keys: &LoadedKeys) -> &Pair {
    keys.keys[&KeyVersion::V1].0.pair().unwrap()
}

fn stable() -> Channel {
    Channel::parse("stable").unwrap()
}

/// The keys of the second version.
fn next_keys() -> VersionKeys {
    let secret = KeySecret::from_text("0009".repeat(16).as_bytes()).unwrap();
    VersionKeys::derive(KeyVersion::new(2).unwrap(), secret)
}

fn node_key() -> SigningKey {
    SigningKey::from_seed(&Seed::from_bytes([3; 32]))
}

/// First frames with this ib of timelines that come before another in every list, so many.
fn junk_before<'a>(own: &'a Verified, ib: &'a str) -> impl Iterator<Item = Verified> + 'a {
    let timeline = own.frame().unwrap().timeline;
    let made =
        (0..).map(move |at| genesis(ib, Object::new(), Relations::new(), Stamp { ms: 1 }, &format!("junk {at}")));
    made.filter(move |frame| frame.frame().unwrap().timeline < timeline)
}

fn object(value: Value) -> Object {
    value.as_object().unwrap().clone()
}

impl Scene {
    fn new() -> Self {
        let store = Store::open(Arc::new(MemDisk::new(1)), Config::default()).unwrap();
        let space = store.create_space(space_genesis("kiosk", "data", "n", Stamp { ms: 1 }, "u")).unwrap();
        let label = SpaceLabel { name: "kiosk".to_owned(), kind: "data".to_owned(), ..SpaceLabel::default() };
        Known::of(&store).put_label(&space, Some(&label)).unwrap();
        let (keys, node) = (load(1), node_key());
        let ledger = vec![Keyring::first_record(&keys, &node, "test", Now { mono_ms: 0, wall_ms: 1 }).unwrap()];
        let mut scene = Self { store, space, registry: String::new(), ledger, keys, foreign: load(2) };
        scene.registry = scene.begin_app("r").address().as_str().to_owned();
        scene
    }

    /// A first frame that says it is the app's.
    fn begin_app(&self, uuid: &str) -> Verified {
        let data = object(json!({"schema": "sealtide/releases/1", "name": "kiosk", "by": "n"}));
        let first = genesis("releases", data, Relations::new(), Stamp { ms: 1 }, uuid);
        self.put(std::slice::from_ref(&first));
        first
    }

    fn put(&self, records: &[Verified]) {
        let request = CommitRequest::local(records.to_vec());
        self.store.commit(&self.space, &request).unwrap();
    }

    fn app(&self) -> App {
        App::all(&self.store).into_iter().find(|app| app.registry == self.registry).unwrap()
    }

    fn own(&self) -> OwnLine {
        self.own_by(&self.ledger)
    }

    fn own_by(&self, ledger: &[LedgerRecord]) -> OwnLine {
        OwnLine::of(&self.app(), &stable(), &OwnKeys::of(ledger)).unwrap()
    }

    /// The ledger after the key that signs was lost, given up or not.
    fn recovered(&self, compromised: Option<Vec<LastGood>>) -> Vec<LedgerRecord> {
        let ledger = Ledger::open("keyring^1", &self.ledger, node_key().public()).unwrap();
        let compromised = compromised.into_iter().map(|good| (KeyVersion::V1, good)).collect();
        let recovery = KeyringRecovery { keys: &next_keys(), not_after: 9, compromised, by: "test", reason: "test" };
        vec![self.ledger[0].clone(), ledger.recover(&recovery, &node_key(), 2).unwrap()]
    }

    fn manifest(&self, seq: u64, by: &LoadedKeys) -> Signed<Manifest> {
        let file = ReleaseFile { path: "a".to_owned(), hash: blake3(b"a"), size: 1, executable: false };
        let manifest = Manifest {
            registry: self.registry.clone(),
            name: AppName::parse("kiosk").unwrap(),
            version: format!("1.{}.0", seq % 1000).parse().unwrap(),
            channel: stable(),
            seq,
            prev: (seq > 1).then_some([7; 32]),
            minimum_version: None,
            key_version: KeyVersion::V1,
            created_at: 1,
            expiry: None,
            archive_date: None,
            hash: [1; 32],
            size: 1,
            unpacked_size: 1,
            files: vec![file],
            registry_revision: 1,
            signed_at: 1,
        };
        Signed::sign(manifest, pair(by))
    }

    fn head(&self, manifest: &Signed<Manifest>, ago_ms: u64, yanked: &[u64], by: &LoadedKeys) -> Signed<ChannelHead> {
        let (content, issued_at) = (manifest.content(), now().wall_ms - ago_ms);
        let head = ChannelHead {
            registry: content.registry.clone(),
            channel: content.channel.clone(),
            seq: content.seq,
            manifest_sha256: manifest.hash(),
            version: content.version.clone(),
            epoch: 1,
            issued_at,
            not_after: issued_at + HEAD_MS_DEFAULT,
            yanked: yanked.to_vec(),
        };
        Signed::sign(head, pair(by))
    }

    /// Puts a frame of the channel: behind another, or as the first of its own timeline.
    fn frame(
        &self,
        behind: Option<&Verified>,
        seq: u64,
        of: &Signed<Manifest>,
        head: &Signed<ChannelHead>,
    ) -> Verified {
        self.frame_that_names(behind, seq, of.hash(), of, head)
    }

    /// The same, with any hash of a manifest beside the head.
    fn frame_that_names(
        &self,
        behind: Option<&Verified>,
        seq: u64,
        named: [u8; 32],
        of: &Signed<Manifest>,
        head: &Signed<ChannelHead>,
    ) -> Verified {
        let bundle = BundleHead { manifest: of.clone(), chain: self.ledger.clone(), proof: Vec::new() };
        let mut records = store_bytes(&self.store, &bundle.encode().unwrap()).unwrap();
        let bin: Vec<Address> = vec![records.last().unwrap().address().clone(); 2];
        let hash = data_encoding::HEXLOWER.encode(&named);
        let data = object(json!({
            "registry": self.registry, "channel": "stable", "seq": seq, "manifest": hash, "head": head.to_value(),
        }));
        let relations = Relations::from([("bin".to_owned(), bin)]);
        let frame = match behind {
            Some(behind) => try_evolve(behind, data, relations, Stamp { ms: 2 }).unwrap(),
            None => genesis("channel", data, relations, Stamp { ms: 2 }, &format!("{seq}{}", head.content().issued_at)),
        };
        records.push(frame.clone());
        self.put(&records);
        frame
    }

    /// What a follower takes that has this memory: its number, or why none.
    fn chosen(&self, seen: &Seen, version: Option<&str>) -> Result<u64, String> {
        let wanted = Wanted { name: AppName::parse("kiosk").unwrap(), channel: stable(), allow_downgrade: false };
        let version = version.map(|version| version.parse().unwrap());
        let order = InstallOrder { wanted, version, to: "/nowhere".into(), yes: false };
        let trust = Trust::of_publisher(&self.registry, &self.ledger[0], None).unwrap();
        let chosen = choose(&self.app(), &order, &trust, seen);
        chosen.map(|chosen| chosen.manifest.content().seq).map_err(|failure| failure.code)
    }
}

/// Three releases, the second taken back; then somebody else writes whatever he likes.
#[test]
fn what_others_write_moves_neither_publisher_nor_follower() {
    let scene = Scene::new();
    let (own, other) = (&scene.keys, &scene.foreign);
    let releases = [1, 2, 3].map(|seq| scene.manifest(seq, own));
    let mut tip = scene.frame(None, 1, &releases[0], &scene.head(&releases[0], 5000, &[], own));
    for (release, yanked) in releases[1..].iter().zip([&[][..], &[2]]) {
        let head = scene.head(release, 4000 - release.content().seq * 1000, yanked, own);
        tip = scene.frame(Some(&tip), release.content().seq, release, &head);
    }
    let holds = |what: &str| {
        let line = scene.own();
        let newest = line.releases.last().map(|newest| newest.seq);
        for (made, release) in line.releases.iter().zip(&releases) {
            let (manifest, entry) = made.whole(&scene.app()).unwrap();
            assert_eq!((&manifest, entry.manifest_sha256), (release, made.hash), "{what}");
        }
        assert_eq!(
            (line.next_seq().unwrap(), line.yanked(), newest, line.releases.len()),
            (4, vec![2], Some(3), 3),
            "{what}"
        );
        assert_eq!(scene.chosen(&Seen::default(), None), Ok(3), "{what}");
        assert_eq!(scene.chosen(&Seen::default(), Some("1.1.0")), Err("not_of_head".to_owned()), "{what}");
        line.tip.unwrap().frame.sid()
    };
    assert_eq!(holds("nobody else"), tip.sid());
    let forged = scene.head(&releases[2], 0, &[3], other);
    let behind = scene.frame(Some(&tip), 3, &releases[2], &forged);
    assert_eq!(holds("a foreign head that takes a release back"), behind.sid(), "and the next goes behind it");
    let huge = scene.manifest((1 << 53) - 1, other);
    let behind = scene.frame(Some(&behind), 9, &huge, &scene.head(&huge, 0, &[], other));
    holds("a foreign release of the highest number");
    let replayed = scene.head(&releases[0], 5000, &[], own);
    scene.frame(Some(&behind), 1 << 40, &releases[0], &replayed);
    holds("the head of the first release beside an invented number");
    scene.frame(None, 77, &releases[2], &scene.head(&releases[2], 3000, &[], own));
    holds("a head of before the yank, in a timeline of its own");
    let side = scene.frame(Some(&tip), 3, &huge, &forged);
    (0..9).fold(side, |side, _| scene.frame(Some(&side), 3, &huge, &forged));
    holds("a longer side of the own timeline");
    // Another who says he is the app, in the same space.
    let twin = scene.begin_app("twin").address().as_str().to_owned();
    let keys = OwnKeys::of(&scene.ledger);
    let released = App::all(&scene.store).into_iter().map(|app| (app.registry == twin, keys.released(&app).unwrap()));
    assert_eq!(released.collect::<BTreeMap<_, _>>(), BTreeMap::from([(false, true), (true, false)]));
}

#[test]
fn a_head_of_before_a_yank_does_not_undo_it() {
    let scene = Scene::new();
    let release = scene.manifest(1, &scene.keys);
    let [before, after] =
        [(2000, &[][..]), (1000, &[1])].map(|(ago, yanked)| scene.head(&release, ago, yanked, &scene.keys));
    let tip = scene.frame(None, 1, &release, &before);
    assert_eq!(scene.chosen(&Seen::default(), None), Ok(1));
    let tip = scene.frame(Some(&tip), 1, &release, &after);
    scene.frame(Some(&tip), 2, &release, &before);
    assert_eq!(scene.chosen(&Seen::default(), None), Err("yanked".to_owned()));
    assert_eq!(scene.own().yanked(), [1]);
}

/// A clock that was ahead once dates a head for years to come: nobody takes it, and the publisher signs another one that says no less.
#[test]
fn a_head_of_a_clock_that_was_ahead_binds_nobody() {
    let scene = Scene::new();
    let keys = &scene.keys;
    let (first, second) = (scene.manifest(1, keys), scene.manifest(2, keys));
    let ahead = |yanked: &[u64]| {
        let mut head = scene.head(&second, 0, yanked, keys).content().clone();
        head.issued_at += 70 * 365 * 86_400_000;
        head.not_after = head.issued_at + HEAD_MS_DEFAULT;
        Signed::sign(head, pair(keys))
    };
    let before = scene.head(&first, 5000, &[], keys);
    let tip = scene.frame(None, 1, &first, &before);
    let tip = scene.frame(Some(&tip), 2, &second, &ahead(&[1]));
    assert_eq!(scene.chosen(&Seen::default(), None), Ok(1), "as if it were not there");
    let line = scene.own();
    assert_eq!(
        (line.next_seq().unwrap(), line.yanked(), line.head_of(second.content().seq)),
        (3, vec![1], None),
        "one is to be signed"
    );
    let again = scene.head(&second, 1000, &line.yanked(), keys);
    let tip = scene.frame(Some(&tip), 2, &second, &again);
    assert_eq!(scene.chosen(&Seen::default(), None), Ok(2));
    assert_eq!(scene.own().head_of(second.content().seq), Some(again.content()), "and that is enough");
    let more = scene.head(&second, 500, &[1, 2], keys);
    scene.frame(Some(&tip), 2, &second, &more);
    assert_eq!(scene.own().yanked(), [1, 2]);
    // Where it is the only one, the reason is said.
    let scene = Scene::new();
    let only = scene.manifest(1, &scene.keys);
    let mut head = scene.head(&only, 0, &[], &scene.keys).content().clone();
    (head.issued_at, head.not_after) = (head.issued_at + 90_000_000, head.not_after + 90_000_000);
    scene.frame(None, 1, &only, &Signed::sign(head, pair(&scene.keys)));
    assert_eq!(scene.chosen(&Seen::default(), None), Err("head_early".to_owned()));
}

/// A clock was three days ahead; then it was right, and a release was taken back. Two days later the head of the wrong clock is the newest
/// that followers take, and knows nothing of that: it is not the head that the publisher has to say.
#[test]
fn what_was_taken_back_stays_so_when_a_head_of_a_wrong_clock_comes_into_time() {
    let scene = Scene::new();
    let keys = &scene.keys;
    let (first, second) = (scene.manifest(1, keys), scene.manifest(2, keys));
    let hour = 3_600_000;
    let mut ahead = scene.head(&second, 0, &[], keys).content().clone();
    (ahead.issued_at, ahead.not_after) = (ahead.issued_at + 23 * hour, ahead.not_after + 23 * hour);
    let ahead = Signed::sign(ahead, pair(keys));
    let tip = scene.frame(None, 1, &first, &scene.head(&first, 60 * hour, &[], keys));
    let tip = scene.frame(Some(&tip), 2, &second, &ahead);
    let tip = scene.frame(Some(&tip), 2, &second, &scene.head(&second, 48 * hour, &[], keys));
    let tip = scene.frame(Some(&tip), 2, &second, &scene.head(&second, 47 * hour, &[1], keys));
    let line = scene.own();
    assert_eq!(line.head_of(second.content().seq), Some(ahead.content()), "the next is dated behind it");
    assert_eq!(line.yanked(), [1]);
    // And what a clock that was behind took back.
    scene.frame(Some(&tip), 2, &second, &scene.head(&second, 90 * hour, &[1, 2], keys));
    assert_eq!(scene.own().yanked(), [1, 2]);
}

/// Somebody repeats true heads beside a manifest that is nowhere, and more often than they were signed.
#[test]
fn a_repeated_head_stops_no_publisher() {
    let scene = Scene::new();
    let release = scene.manifest(1, &scene.keys);
    let [head, newest] = [2000, 1000].map(|ago| scene.head(&release, ago, &[], &scene.keys));
    let begin = scene.frame(None, 1, &release, &head);
    let tip = scene.frame(Some(&begin), 1, &release, &newest);
    let holds = |what: &str| {
        let line = scene.own();
        assert_eq!(
            (line.next_seq().unwrap(), line.prev(), line.releases.len()),
            (2, Some(release.hash()), 1),
            "{what}"
        );
        assert_eq!(line.tip.unwrap().frame.sid(), tip.sid(), "{what}");
    };
    holds("nobody else");
    let repeat = |number: u64, named: [u8; 32], first: &Signed<ChannelHead>| {
        let begin = scene.frame_that_names(None, number, named, &release, first);
        (0..3).fold(begin, |behind, _| scene.frame_that_names(Some(&behind), 1, named, &release, &newest));
    };
    repeat(7, [9; 32], &head);
    holds("all of them beside a manifest that is nowhere");
    repeat(8, [9; 32], &newest);
    holds("the newest beside one");
    repeat(9, release.hash(), &newest);
    holds("as it is, and often");
}

/// A head of a key that was replaced, dated ahead within a day, is not what the door shows: nobody takes it.
// Proves: GW-104
#[test]
fn the_door_shows_a_head_of_the_key_that_signs_now() {
    let scene = Scene::new();
    let release = scene.manifest(1, &scene.keys);
    let mut ahead = scene.head(&release, 0, &[], &scene.keys).content().clone();
    ahead.issued_at += 3_600_000;
    let ahead = Signed::sign(ahead, pair(&scene.keys));
    let tip = scene.frame(None, 1, &release, &ahead);
    let keys = OwnKeys::of(&scene.recovered(None));
    let shown = || keys.newest_in_time(&scene.app(), &stable(), now().wall_ms).unwrap();
    assert_eq!(shown(), Some(ahead), "where there is no other");
    let next = ChannelHead { epoch: 2, ..scene.head(&release, 1000, &[], &scene.keys).content().clone() };
    let next = Signed::sign(next, next_keys().pair().unwrap());
    scene.frame(Some(&tip), 1, &release, &next);
    assert_eq!(shown(), Some(next));
}

#[test]
fn the_copy_of_the_ledger_goes_on_behind_itself_alone() {
    let scene = Scene::new();
    let first = scene.app().next_keys(&scene.ledger, &[]).unwrap();
    scene.put(&first);
    assert_eq!((first.len(), scene.app().next_keys(&scene.ledger, &[]).unwrap().len()), (1, 0), "it is there");
    let junk = try_evolve(&first[0], object(json!({"record": 1})), Relations::new(), Stamp { ms: 2 }).unwrap();
    scene.put(&[junk]);
    let again = scene.app().next_keys(&scene.ledger, &[]).unwrap();
    assert_eq!(again.len(), 1, "another copy");
    scene.put(&again);
    assert_eq!(scene.app().next_keys(&scene.ledger, &[]).unwrap().len(), 0);
}

/// Whoever may write there puts so many timelines and sides before those of the publisher that nobody who follows sees it.
// Proves: GW-72
#[test]
fn what_others_write_hides_nothing_from_the_publisher() {
    let scene = Scene::new();
    let keys = OwnKeys::of(&scene.ledger);
    let first = scene.app().next_keys(&scene.ledger, &[]).unwrap();
    scene.put(&first);
    let releases = [1, 2].map(|seq| scene.manifest(seq, &scene.keys));
    let [head, newest] = [(0, 2000), (1, 1000)].map(|(at, ago)| scene.head(&releases[at], ago, &[], &scene.keys));
    let begin = scene.frame(None, 1, &releases[0], &head);
    let tip = scene.frame(Some(&begin), 2, &releases[1], &newest);
    for side in 0..17 {
        let junk = |before: &Verified, at: u64| {
            try_evolve(before, object(json!({"side": side})), Relations::new(), Stamp { ms: at }).unwrap()
        };
        let one = junk(&begin, 3);
        let two = junk(&one, 4);
        scene.put(&[one, two.clone(), junk(&two, 5)]);
    }
    scene.put(&junk_before(&begin, "channel").take(256).collect::<Vec<_>>());
    scene.put(&junk_before(&first[0], "keys").take(256).collect::<Vec<_>>());
    assert_eq!(scene.app().channel(&stable()).len(), 0, "nobody who follows sees it");
    let line = scene.own();
    assert_eq!((line.next_seq().unwrap(), line.releases.len(), line.in_time.clone()), (3, 2, Some(newest.clone())));
    assert_eq!(line.tip.as_ref().map(|tip| tip.frame.sid()), Some(tip.sid()));
    assert_eq!(keys.newest_head(&scene.app(), &stable()).unwrap(), Some(newest));
    assert!(keys.released(&scene.app()).unwrap());
    assert_eq!(scene.app().next_keys(&scene.ledger, &[]).unwrap().len(), 0, "the copy of the ledger is there");
    let app = Verified::clone(&scene.begin_app("r"));
    scene.app().memory().keep_made(&[(stable(), line.unremembered.unwrap())]).unwrap();
    let twin = object(json!({"schema": "sealtide/releases/1", "name": "kiosk", "by": "n"}));
    let twins = (0..).map(|at| genesis("releases", twin.clone(), Relations::new(), Stamp { ms: 1 }, &format!("t{at}")));
    let before = twins.filter(|frame| frame.frame().unwrap().timeline < app.frame().unwrap().timeline);
    scene.put(&before.take(16).collect::<Vec<_>>());
    assert_eq!(scene.app().registry, app.address().as_str(), "the app that this node published to is found");
}

/// A space that lost what was released, or never had it back.
// Proves: GW-72
#[test]
fn a_number_that_was_given_is_not_given_again() {
    let scene = Scene::new();
    let release = scene.manifest(1, &scene.keys);
    let frame = scene.frame(None, 1, &release, &scene.head(&release, 0, &[], &scene.keys));
    let made = scene.own().unremembered.unwrap();
    assert_eq!(made, Made { seq: 1, frame: frame.sid() });
    let memory = scene.app().memory();
    memory.keep_made(&[(stable(), made)]).unwrap();
    let line = scene.own();
    assert_eq!((line.next_seq().unwrap(), line.unremembered), (2, None));
    let told = |line: &OwnLine| line.is_whole(&scene.app(), &stable()).map_err(|failure| failure.code);
    assert_eq!(told(&line), Ok(()));
    // The frame behind it is not there, as one that took it back.
    memory.keep_made(&[(stable(), Made { seq: 1, frame: Sid([9; 32]) })]).unwrap();
    let unyanked = scene.own();
    let sentence = unyanked.is_whole(&scene.app(), &stable()).unwrap_err().message;
    assert!(sentence.contains("wrote more of kiosk (stable) than its space shows, behind release 1"), "{sentence}");
    assert_eq!(told(&unyanked), Err("releases_lost".to_owned()));
    assert_eq!((unyanked.next_seq().unwrap(), unyanked.prev()), (2, Some(release.hash())));
    memory.keep_made(&[(stable(), Made { seq: 2, frame: frame.sid() })]).unwrap();
    let lost = scene.own();
    assert_eq!(told(&lost), Err("releases_lost".to_owned()), "no head is signed of the first");
    assert_eq!((lost.next_seq().unwrap(), lost.prev()), (3, Some(release.hash())), "and a release goes on from there");
    let third = scene.manifest(3, &scene.keys);
    let frame = scene.frame(Some(&frame), 3, &third, &scene.head(&third, 0, &[], &scene.keys));
    let third = Made { seq: 3, frame: frame.sid() };
    memory.keep_made(&[(stable(), third)]).unwrap();
    assert_eq!((told(&scene.own()), scene.own().next_seq().unwrap()), (Ok(()), 4));
    // Of one channel, and the others go on. Of that one nothing is here: what was remembered stands for the release.
    memory.keep_made(&[(Channel::parse("beta").unwrap(), made)]).unwrap();
    let lines = OwnLine::all(&scene.app(), &OwnKeys::of(&scene.ledger)).unwrap();
    let lines =
        lines.into_iter().map(|(channel, line)| (channel.to_string(), line.unwrap())).collect::<BTreeMap<_, _>>();
    assert_eq!((told(&lines["beta"]).is_err(), told(&lines["stable"])), (true, Ok(())));
    assert_eq!((lines["beta"].next_seq().unwrap(), lines["beta"].prev()), (2, Some(made.frame.0)));
}

/// A thief signs on in a channel: what his numbers bind, and what not.
// Proves: GW-107
#[test]
fn numbers_of_a_key_that_was_given_up_bind_until_a_recovery() {
    let scene = Scene::new();
    let own = &scene.keys;
    let put = |seq: u64, yanked: &[u64]| {
        let release = scene.manifest(seq, own);
        scene.frame(None, seq, &release, &scene.head(&release, 0, yanked, own));
        release.hash()
    };
    let fifth = put(5, &[6]);
    let told = |ledger: &[LedgerRecord]| {
        let line = scene.own_by(ledger);
        (line.next_seq().map_err(|failure| failure.code), line.prev(), line.yanked(), line.releases.len())
    };
    let given_up = scene.recovered(Some(Vec::new()));
    assert_eq!(told(&given_up), (Ok(1), None, vec![], 0), "whoever follows a recovery forgets what was seen");
    // Given up without one: the numbers bind, and what comes next names one before it, so that it can be read.
    let mut retired = scene.recovered(None);
    let keys = LoadedKeys::load(
        &KeyOffers {
            files: BTreeMap::from([(KeyVersion::new(2).unwrap(), "0009".repeat(16).into_bytes())]),
            ..KeyOffers::default()
        },
        &mut SeededEntropy::new(1),
    );
    let row = LedgerRow::of(&retired[1], "tip", None);
    let policy = KeyPolicy::default();
    let ring = Keyring::open(keys.unwrap(), "keyring^1", &retired, &row, 1, node_key().public(), policy).unwrap();
    let order = Order::Compromise(KeyVersion::V1, Vec::new());
    let request = ChangeRequest { order, expect: None, auto: false, by: "test", reason: "test" };
    let change = ring.propose(&request, &node_key(), Now { mono_ms: 0, wall_ms: 3 }).unwrap().unwrap();
    retired.push(change.record);
    assert_eq!(told(&retired), (Ok(6), Some(fifth), vec![], 0));
    // The releases that the ledger names go on counting, whatever came later.
    let good = put(1, &[]);
    let named =
        LastGood { registry: scene.registry.clone(), channel: "stable".to_owned(), seq: 1, manifest_sha256: good };
    assert_eq!(told(&scene.recovered(Some(vec![named]))), (Ok(2), Some(good), vec![], 1));
    put(INTEGER_MAX, &[]);
    assert_eq!(told(&scene.ledger).0, Err("last_number".to_owned()));
    assert_eq!(told(&given_up).0, Ok(1));
}

/// A door is asked for a head often, and a channel has one for each day.
// Proves: GW-104
#[test]
fn the_newest_head_costs_one_look_at_a_signature() {
    let scene = Scene::new();
    let release = scene.manifest(1, &scene.keys);
    let mut tip: Option<Verified> = None;
    for age in (0..20).rev() {
        tip = Some(scene.frame(tip.as_ref(), 1, &release, &scene.head(&release, age * 1000, &[], &scene.keys)));
    }
    let keys = OwnKeys::of(&scene.ledger);
    let newest = keys.newest_head(&scene.app(), &stable()).unwrap();
    assert_eq!(newest, scene.own().in_time);
    assert_eq!(keys.verified.get(), 1);
}

/// Who gives contents up is not met by an install, nor by a mirror that looks whether all of a release is there.
#[tokio::test(flavor = "multi_thread")]
async fn installs_and_mirrors_wait_while_contents_are_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new_at(dir.path().join("home"));
    let scene = Scene::new();
    let release = scene.manifest(1, &scene.keys);
    scene.frame(None, 1, &release, &scene.head(&release, 5000, &[], &scene.keys));
    let app = scene.app();
    let entry = app.channel(&stable())[0].last().unwrap().clone();
    let wanted = Wanted { name: AppName::parse("kiosk").unwrap(), channel: stable(), allow_downgrade: false };
    let order = InstallOrder { wanted, version: None, to: dir.path().join("to"), yes: false };
    let progress = crate::api::Progress::none();
    let install = || drop(Install::from_space(&node, &app, &order, None, &progress));
    let mirror = || drop(settle(&node, &(scene.app(), entry.clone()), 0));
    for (what, work) in [("install", &install as &(dyn Fn() + Sync)), ("mirror", &mirror)] {
        let (alone, (tell, told)) = (node.keep_contents_alone(), std::sync::mpsc::channel());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                work();
                let _ = tell.send(());
            });
            let waited = told.recv_timeout(std::time::Duration::from_millis(300));
            drop(alone);
            assert!(waited.is_err(), "{what} did not wait");
            told.recv().unwrap();
        });
    }
}
