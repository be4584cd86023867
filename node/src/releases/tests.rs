//! The space of an app in memory, into which a publisher writes, and somebody else who may write there too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use sealtide_crypto::{Now, Seed, SeededEntropy, SigningKey, blake3};
use sealtide_ibgib::{Address, Object, Relations, Stamp, Verified, genesis, space_genesis, try_evolve};
use sealtide_identity::SpaceId;
use sealtide_identity::keyring::{KeyOffers, KeyVersion, Keyring, LedgerRecord, LoadedKeys, Pair};
use sealtide_releases::bundle::{
    AppName, BundleHead, Channel, ChannelHead, HEAD_MS_DEFAULT, Manifest, ReleaseFile, Seen, Signed, Trust, Wanted,
};
use sealtide_store::mem::MemDisk;
use sealtide_store::{Config, SpaceLabel, Store};
use sealtide_sync::CommitRequest;
use serde_json::{Value, json};

use super::app::App;
use super::install::{InstallOrder, choose};
use super::own::{OwnKeys, OwnLine};
use crate::content::store_bytes;
use crate::known::Known;
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

fn object(value: Value) -> Object {
    value.as_object().unwrap().clone()
}

impl Scene {
    fn new() -> Self {
        let store = Store::open(Arc::new(MemDisk::new(1)), Config::default()).unwrap();
        let space = store.create_space(space_genesis("kiosk", "data", "n", Stamp { ms: 1 }, "u")).unwrap();
        let label = SpaceLabel { name: "kiosk".to_owned(), kind: "data".to_owned(), ..SpaceLabel::default() };
        Known::of(&store).put_label(&space, Some(&label)).unwrap();
        let (keys, node) = (load(1), SigningKey::from_seed(&Seed::from_bytes([3; 32])));
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
        let request =
            CommitRequest { saga: None, staged: None, records: records.to_vec(), expected: Vec::new(), strict: false };
        self.store.commit(&self.space, &request).unwrap();
    }

    fn app(&self) -> App {
        App::all(&self.store).into_iter().find(|app| app.registry == self.registry).unwrap()
    }

    fn own(&self) -> OwnLine {
        OwnLine::of(&self.app(), &stable(), &OwnKeys::of(&self.ledger)).unwrap()
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
        let bundle = BundleHead { manifest: of.clone(), chain: self.ledger.clone(), proof: Vec::new() };
        let mut records = store_bytes(&self.store, &bundle.encode().unwrap()).unwrap();
        let bin: Vec<Address> = vec![records.last().unwrap().address().clone(); 2];
        let hash = data_encoding::HEXLOWER.encode(&of.hash());
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
        let newest = line.manifests.last().map(|newest| newest.content().seq);
        assert_eq!((line.next_seq(), line.yanked(), newest, line.manifests.len()), (4, vec![2], Some(3), 3), "{what}");
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
    let released = App::all(&scene.store).into_iter().map(|app| (app.registry == twin, keys.released(&app)));
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
        (line.next_seq(), line.yanked(), line.head_of(second.content())),
        (3, vec![1], None),
        "one is to be signed"
    );
    let again = scene.head(&second, 1000, &line.yanked(), keys);
    let tip = scene.frame(Some(&tip), 2, &second, &again);
    assert_eq!(scene.chosen(&Seen::default(), None), Ok(2));
    assert_eq!(scene.own().head_of(second.content()), Some(again.content()), "and that is enough");
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
