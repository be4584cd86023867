//! A shared space in memory, and what different hands put into it.

use sealtide_crypto::{GatewayContext, Now, Seed, SigningKey};
use sealtide_ibgib::{space_genesis, try_evolve};
use sealtide_identity::keyring::{KeyOffers, KeySecret, Keyring, LoadedKeys, VersionKeys};
use sealtide_store::Config;
use sealtide_store::mem::MemDisk;
use sealtide_sync::CommitRequest;
use serde_json::json;

use super::*;

/// A space that several nodes write to.
struct Space {
    store: Store,
    id: SpaceId,
}

/// A node with one key.
struct Someone {
    key: SigningKey,
    keys: VersionKeys,
    first: Verified,
    writer: Writer,
}

impl Someone {
    fn new(number: u8) -> Self {
        let key = SigningKey::from_seed(&Seed::from_bytes([number; 32]));
        let secret = format!("{number:02x}").repeat(32).into_bytes();
        let files = BTreeMap::from([(KeyVersion::V1, secret.clone())]);
        let loaded = LoadedKeys::load(&KeyOffers { files, ..KeyOffers::default() }, &mut OsEntropy).unwrap();
        let record = Keyring::first_record(&loaded, &key, "test", Now { mono_ms: 0, wall_ms: 1 }).unwrap();
        let data = Object::from_iter([("record".to_owned(), record.to_value())]);
        let first = genesis("keyring", data, Relations::new(), Stamp { ms: 1 }, &format!("ledger {number}"));
        let writer = Writer { node: NodeId::of(key.public()), ledger: first.address().as_str().to_owned() };
        let keys = VersionKeys::derive(KeyVersion::V1, KeySecret::from_text(&secret).unwrap());
        Self { key, keys, first, writer }
    }

    /// What tells others of this node's keys.
    fn told(&self) -> Vec<Verified> {
        vec![writer_frame(&self.writer.node, self.key.public()), self.first.clone()]
    }

    /// Data that this node signs and that names `next`.
    fn data(&self, registry: &Registry, next: &Writer) -> Object {
        let envelope = registry.envelope("default", &next.node.to_string(), &next.ledger).unwrap();
        let entities: serde_json::Value = serde_json::from_str(&registry.text()).unwrap();
        let data = json!({
            "app": "default", "writer": next.node.to_string(), "ledger": next.ledger, "revision": registry.revision(),
            "entities": entities, "signedBy": "v1",
            "registrySignature": self.keys.ed25519(GatewayContext::Registry, envelope.as_bytes()),
        });
        data.as_object().unwrap().clone()
    }

    fn after(&self, before: &Verified, registry: &Registry, next: &Writer) -> Verified {
        try_evolve(before, self.data(registry, next), Relations::new(), Stamp { ms: 2 }).unwrap()
    }
}

impl Space {
    fn new() -> Self {
        let store = Store::open(Arc::new(MemDisk::new(1)), Config::default()).unwrap();
        let first = space_genesis("registry", "data", "somebody", Stamp { ms: 1 }, "u");
        let id = store.create_space(first).unwrap();
        Self { store, id }
    }

    fn put(&self, records: &[Verified]) {
        for record in records {
            let records = vec![record.clone()];
            let request = CommitRequest::local(records);
            self.store.commit(&self.id, &request).unwrap();
        }
    }

    fn follow(&self, first: &Verified) -> SharedRegistry {
        SharedRegistry::new(self.store.clone(), self.id, first.address().clone())
    }
}

fn bumped(before: &Registry, version: &str) -> Registry {
    before.with_versions(&[("api:sample".to_owned(), version.to_owned())]).unwrap()
}

fn revision(shared: &SharedRegistry) -> Option<u64> {
    shared.state().map(|state| state.registry.revision())
}

// Proves: GW-108
#[test]
fn frames_of_others_change_nothing_and_a_hand_over_does() {
    let (space, a, b) = (Space::new(), Someone::new(1), Someone::new(2));
    let r1 = Registry::sample();
    let first = genesis("registry", a.data(&r1, &a.writer), Relations::new(), Stamp { ms: 1 }, "r");
    space.put(std::slice::from_ref(&first));
    let shared = space.follow(&first);
    // The ledger is still on its way: nothing counts, and nothing is held against anybody.
    let looked = shared.look();
    assert!(revision(&shared).is_none() && looked.refused.is_empty(), "{looked:?}");
    space.put(&[a.told(), b.told()].concat());
    assert!(shared.look().moved);
    assert_eq!(revision(&shared), Some(1));

    // Another node writes: as itself, in the name of the writer, and behind a frame that does not count.
    let r2 = bumped(&r1, "1.0.1");
    let foreign = b.after(&first, &r2, &b.writer);
    let in_name = b.after(&first, &r2, &a.writer);
    let behind = b.after(&foreign, &bumped(&r2, "1.0.2"), &b.writer);
    space.put(&[foreign.clone(), in_name.clone(), behind]);
    let looked = shared.look();
    let refused: BTreeSet<Address> = looked.refused.iter().map(|(address, _)| address.clone()).collect();
    assert_eq!(refused, BTreeSet::from([foreign.address().clone(), in_name.address().clone()]));
    assert!(looked.refused.iter().all(|(_, why)| *why == LineRefused::Signature) && !looked.moved);
    assert!(shared.look().refused.is_empty(), "each is told once");

    // The writer goes on beside them.
    let second = a.after(&first, &r2, &a.writer);
    space.put(std::slice::from_ref(&second));
    assert!(shared.look().moved && revision(&shared) == Some(2));
    // It hands over; from there on its own frames are foreign.
    let r3 = r2.with_versions(&[]).unwrap();
    let third = a.after(&second, &r3, &b.writer);
    space.put(std::slice::from_ref(&third));
    shared.look();
    let state = shared.state().unwrap();
    assert_eq!((state.registry.revision(), &state.writer), (3, &b.writer));
    assert!(state.ledger.is_some_and(|known| known.ledger.tip().node == b.writer.node));
    let r4 = bumped(&r3, "1.0.3");
    space.put(&[a.after(&third, &r4, &a.writer)]);
    assert!(!shared.look().moved);
    let fourth = b.after(&third, &r4, &b.writer);
    space.put(std::slice::from_ref(&fourth));
    assert!(shared.look().moved && revision(&shared) == Some(4));
    // Whoever comes later finds the same line.
    let later = space.follow(&first);
    later.look();
    let line: Vec<Address> = later.frames().iter().map(|frame| frame.address().clone()).collect();
    assert_eq!(line, [&first, &second, &third, &fourth].map(|frame| frame.address().clone()));
}

// Proves: GW-108
#[test]
fn two_successors_that_the_writer_signed_are_both_refused() {
    let (space, a) = (Space::new(), Someone::new(1));
    let r1 = Registry::sample();
    let first = genesis("registry", a.data(&r1, &a.writer), Relations::new(), Stamp { ms: 1 }, "r");
    let second = a.after(&first, &bumped(&r1, "1.0.1"), &a.writer);
    let third = a.after(&second, &bumped(&bumped(&r1, "1.0.1"), "1.0.2"), &a.writer);
    space.put(&[a.told(), vec![first.clone(), second, third]].concat());
    let shared = space.follow(&first);
    shared.look();
    assert_eq!(revision(&shared), Some(3));
    // A writer that went back to an old copy of its home, and on from there.
    let other = a.after(&first, &bumped(&r1, "9.0.0"), &a.writer);
    space.put(std::slice::from_ref(&other));
    let looked = shared.look();
    assert!(looked.moved && looked.forked.is_some(), "{looked:?}");
    let state = shared.state().unwrap();
    assert_eq!((state.registry.revision(), state.forked), (1, Some(1)), "neither side is taken");
    // It is told once, and whoever comes later sees the same.
    assert!(shared.look().forked.is_none());
    let later = space.follow(&first);
    assert!(later.look().forked.is_some());
    assert_eq!((revision(&later), later.state().unwrap().forked), (Some(1), Some(1)));
}

/// What others put beside the line is judged when it comes, and costs nothing from then on.
// Proves: GW-108
#[test]
fn each_frame_is_judged_once() {
    let (space, a, b) = (Space::new(), Someone::new(1), Someone::new(2));
    let mut registry = Registry::sample();
    let first = genesis("registry", a.data(&registry, &a.writer), Relations::new(), Stamp { ms: 1 }, "r");
    space.put(&[a.told(), vec![first.clone()]].concat());
    let shared = space.follow(&first);
    let stray = b.after(&first, &bumped(&registry, "9.0.0"), &b.writer);
    let mut tip = first.clone();
    for number in 1..=10 {
        registry = bumped(&registry, &format!("1.0.{number}"));
        tip = a.after(&tip, &registry, &a.writer);
        space.put(std::slice::from_ref(&tip));
        shared.look();
        if number == 1 {
            space.put(std::slice::from_ref(&stray));
        }
    }
    assert_eq!((revision(&shared), shared.lock().judged), (Some(11), 12));
    // By a key that no ledger names: judged when it comes, and again when what tells keys has changed.
    for (before, of) in [(&first, &Registry::sample()), (&tip, &registry)] {
        let mut data = a.data(&bumped(of, "8.0.0"), &a.writer);
        data.insert("signedBy".to_owned(), json!("v9"));
        space.put(&[try_evolve(before, data, Relations::new(), Stamp { ms: 3 }).unwrap()]);
    }
    shared.look();
    shared.look();
    assert_eq!(shared.lock().judged, 14);
    space.put(&b.told());
    shared.look();
    shared.look();
    assert_eq!((revision(&shared), shared.lock().judged), (Some(11), 16));
    // Beside the line in its middle, and by the writer: that is found among the few that are new.
    let other = a.after(&first, &bumped(&Registry::sample(), "9.0.0"), &a.writer);
    space.put(std::slice::from_ref(&other));
    assert!(shared.look().forked.is_some());
    assert_eq!((revision(&shared), shared.lock().judged), (Some(1), 17));
}

/// Whoever asks what counts does not wait for a look.
// Proves: GW-108
#[test]
fn what_the_last_look_found_is_told_during_the_next() {
    let (space, a) = (Space::new(), Someone::new(1));
    let registry = Registry::sample();
    let first = genesis("registry", a.data(&registry, &a.writer), Relations::new(), Stamp { ms: 1 }, "r");
    space.put(&[a.told(), vec![first.clone()]].concat());
    let shared = space.follow(&first);
    shared.look_first();
    let looking = shared.lock();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| tell.send(revision(&shared)).unwrap());
        let told = told.recv_timeout(std::time::Duration::from_secs(60));
        drop(looking);
        assert_eq!(told, Ok(Some(1)));
    });
}
