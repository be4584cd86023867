//! A key that was lost or stolen is replaced with the owner's recovery words, and who holds an old trust file follows.

use std::collections::BTreeMap;

use sealtide_crypto::{Entropy, Now, Seed, SeededEntropy, SigningKey};
use sealtide_ibgib::{Stamp, Verified};
use sealtide_identity::keyring::{
    ChangeRefused, ChangeRequest, KeySecret, KeyringRecovery, LastGood, Ledger, LedgerRecord, Order, RecoveryRefused,
    VersionKeys, VersionState,
};
use sealtide_identity::keystone::{
    Added, Chain, Claim, Manage, OwnerProfiles, RootSecret, SignError, Signer, Standing, Verb, WorkingSecret,
    manage_keyring, owner_genesis, revoke, sign,
};
use sealtide_releases::bundle::{BundleHead, NotABundle, ReleaseRefused, Trust, TrustRefused};

use serde_json::{Value, json};

use crate::support::{LEDGER, Publisher, REGISTRY, START, v};

/// The owner of a publisher, with everything.
struct Owner {
    root: RootSecret,
    working: WorkingSecret,
    key: SigningKey,
    entropy: SeededEntropy,
    chain: Chain,
}

impl Owner {
    fn new(seed: u64) -> Self {
        let mut entropy = SeededEntropy::new(seed);
        let (root, working) = (RootSecret::generate(&mut entropy), WorkingSecret::generate(&mut entropy));
        let key = SigningKey::from_seed(&Seed::generate(&mut entropy));
        let first = owner_genesis(&root, &working, &key, OwnerProfiles::default(), Stamp { ms: START }, &mut entropy);
        Self { root, working, key, entropy, chain: Chain::begun(first) }
    }

    fn address(&self) -> String {
        self.chain.first_address().to_string()
    }

    fn frames(&self) -> Vec<Verified> {
        self.chain.frames().map(|frame| frame.record().clone()).collect()
    }

    fn extend(&mut self, made: Standing) {
        assert_eq!(self.chain.extend(made), Added::Checked);
    }

    /// With these words, whosever they are.
    fn manage_with(&mut self, root: &RootSecret, record: &LedgerRecord) -> Result<Standing, SignError> {
        let mut drawn = [0; 32];
        self.entropy.fill(&mut drawn);
        let key = SigningKey::from_seed(&Seed::from_bytes(drawn));
        let profiles = OwnerProfiles::default();
        let manage = Manage { root, working: &self.working, key: &key, profiles, from: None };
        let made = manage_keyring(&self.chain, &manage, &record.hash(), Stamp { ms: START + 1 }, &mut self.entropy);
        if made.is_ok() {
            self.key = key;
        }
        made
    }

    fn proves(&mut self, record: &LedgerRecord) {
        let root = RootSecret::from_words(&self.root.words()).unwrap();
        let made = self.manage_with(&root, record).unwrap();
        self.extend(made);
    }

    /// What a stolen node can do: everything but what needs the words.
    fn claims(&mut self, claim: &Claim) {
        let stamp = Stamp { ms: START + 2 };
        let made = sign(&self.chain, Signer::Working(&self.working), &self.key, claim, stamp, &mut self.entropy);
        self.extend(made.unwrap());
    }
}

fn old_trust(publisher: &Publisher, owner: &Owner) -> Trust {
    Trust::of_publisher(REGISTRY, &publisher.records[0], Some(&owner.address())).unwrap()
}

fn none() -> BTreeMap<sealtide_identity::keyring::KeyVersion, Vec<LastGood>> {
    BTreeMap::new()
}

// Proves: GW-106
#[test]
fn trust_recover() {
    let (mut publisher, mut owner) = (Publisher::new(&[1, 2]), Owner::new(1));
    let before = publisher.publish("stable", "1.0.0");
    publisher.rotate(2);
    owner
        .claims(&Claim::new(Verb::Post, "comment hi^A1C0499999999999999999999999999999999999999999999999999999999999"));
    let record = publisher.recover(3, none());
    owner.proves(&record);
    let after = publisher.publish("stable", "1.1.0");
    let (records, frames) = (publisher.records.clone(), owner.frames());

    let mut trust = old_trust(&publisher, &owner);
    assert_eq!(trust.follow_proven(&records, &frames), Ok(2));
    assert_eq!((trust.epoch(), trust.recovered().unwrap().epoch), (3, 3));
    assert!(trust.manifest(&after, &[], publisher.now).is_ok());
    assert!(trust.manifest(&before, &[], publisher.now).is_ok(), "the lost key signed that when it was not lost");
    assert!(trust.head(&publisher.head(&after), publisher.now).is_ok());
    assert_eq!(trust.follow_proven(&records, &frames), Ok(0), "again");
    assert_eq!(trust.follow(&records), Ok(0), "what is known needs no proof");
    assert_eq!(Trust::parse(trust.to_value().to_string().as_bytes()).unwrap(), trust, "what was learned is kept");

    // Who was there all the time follows one by one, with no proof but for the recovery.
    let mut slowly = old_trust(&publisher, &owner);
    assert_eq!(slowly.follow(&records[..2]), Ok(1));
    assert_eq!(slowly.follow(&records[2..]), Err(TrustRefused::Unproven(3)));
    assert_eq!(slowly.follow_proven(&records[2..], &frames), Ok(1));
    assert_eq!(slowly.active(), trust.active());

    let mut rootless = Trust::of_publisher(REGISTRY, &records[0], None).unwrap();
    assert_eq!(rootless.follow_proven(&records, &frames), Err(TrustRefused::NoRoot(3)));
    assert_eq!(rootless.epoch(), 2, "as far as the pairs said");

    // A trust file of afterwards begins there.
    let mut late = publisher.trust();
    assert_eq!((late.follow(&records), late.epoch()), (Ok(0), 3));
}

// Proves: GW-106
#[test]
fn what_a_recovery_leads_to() {
    let mut publisher = Publisher::new(&[1, 2, 5]);
    publisher.rotate(2);
    let keys = |number: u16| VersionKeys::derive(v(number), KeySecret::from_raw([number as u8; 32]));
    let propose = |number: u16, given_up: Option<u16>| {
        let keys = keys(number);
        let compromised = given_up.map(|version| (v(version), Vec::new())).into_iter().collect();
        let recovery = KeyringRecovery { keys: &keys, not_after: START, compromised, by: "tester", reason: "lost" };
        publisher.ring.ledger().recover(&recovery, &publisher.node, START)
    };
    assert_eq!(propose(3, None), Err(RecoveryRefused::Version(v(3))), "not above all others");
    let waiting = RecoveryRefused::State { version: v(5), state: Some(VersionState::Prepared) };
    assert_eq!(propose(6, Some(5)), Err(waiting), "it signed nothing");
    assert_eq!(propose(6, Some(4)), Err(RecoveryRefused::State { version: v(4), state: None }));

    let record = publisher.recover(6, BTreeMap::from([(v(1), Vec::new())]));
    let states: Vec<(u16, &str)> = record.versions().map(|(version, state)| (version.number(), state.name())).collect();
    assert_eq!(states, [(1, "compromised"), (2, "verify-only"), (5, "expired"), (6, "active")]);
    assert!(record.forced() && record.not_after(v(2)).is_some() && record.signatures.len() == 3);
    let rollback = ChangeRequest { order: Order::Rollback, expect: None, auto: false, by: "tester", reason: "" };
    let now = Now { mono_ms: 0, wall_ms: START };
    let refused = publisher.ring.propose(&rollback, &publisher.node, now).map(|change| change.is_some());
    assert_eq!(refused, Err(ChangeRefused::NoWayBack(v(6))), "the key before is lost");
    // A record that says anything else than its step leads to is not taken.
    for edit in [
        |value: &mut Value| value["states"]["v5"] = json!("prepared"),
        |value: &mut Value| value["forced"] = json!(false),
        |value: &mut Value| value["states"]["v2"] = json!("expired"),
        |value: &mut Value| value["action"] = json!("rotate"),
        |value: &mut Value| value["compromised"] = json!([]),
    ] {
        let mut value = record.to_value();
        edit(&mut value);
        let odd = LedgerRecord::parse(&value).unwrap();
        let records = [&publisher.records[..2], &[odd]].concat();
        assert!(Ledger::open(LEDGER, &records, publisher.node.public()).is_err());
    }
    assert!(Ledger::open(LEDGER, &publisher.records, publisher.node.public()).is_ok());
}

/// Another node goes on from the records of a lost one, and nothing but a recovery lets it.
// Proves: GW-106
#[test]
fn a_recovery_hands_the_ledger_to_another_node() {
    let mut lost = Publisher::new(&[1, 2, 3]);
    lost.rotate(2);
    let heir = SigningKey::from_seed(&Seed::from_bytes([8; 32]));
    assert!(Ledger::open(LEDGER, &lost.records, heir.public()).is_err(), "nothing in it is by the heir");
    let keys = VersionKeys::derive(v(4), KeySecret::from_raw([4; 32]));
    let compromised = BTreeMap::new();
    let recovery = KeyringRecovery { keys: &keys, not_after: START, compromised, by: "tester", reason: "lost" };
    let taken = Ledger::of_another(LEDGER, &lost.records).unwrap();
    let record = taken.recover(&recovery, &heir, START).unwrap();
    let all = [&lost.records[..], std::slice::from_ref(&record)].concat();
    assert_eq!(Ledger::open(LEDGER, &all, heir.public()).unwrap().tip(), &record);
    assert!(Ledger::open(LEDGER, &all, lost.node.public()).is_err(), "the lost node goes on with it no more");
    // Records of the lost node that were left out, or that its pair did not sign.
    assert!(Ledger::open(LEDGER, &[all[0].clone(), record.clone()], heir.public()).is_err());
    assert!(Ledger::open(LEDGER, &all[1..], heir.public()).is_err());
    let mut unsigned = all[1].to_value();
    unsigned["signatures"] = all[0].to_value()["signatures"].clone();
    let unsigned = [all[0].clone(), LedgerRecord::parse(&unsigned).unwrap(), record];
    assert!(Ledger::open(LEDGER, &unsigned, heir.public()).is_err());
    // Who has the pairs of the lost node, and no words, rotates nothing in a name of his own.
    let order = Order::Rotate { to: Some(v(3)), keep_until: None };
    let rotate = ChangeRequest { order, expect: None, auto: false, by: "tester", reason: "" };
    let now = Now { mono_ms: 0, wall_ms: START };
    assert!(lost.ring.propose(&rotate, &heir, now).is_err());
    assert!(lost.ring.propose(&rotate, &lost.node, now).is_ok());
}

/// Somebody has the keys and goes on alone: both histories are signed as they must be.
struct Stolen {
    publisher: Publisher,
    thief: Publisher,
    owner: Owner,
}

fn stolen() -> Stolen {
    let (mut publisher, mut thief) = (Publisher::new(&[1, 2, 3]), Publisher::new(&[1, 2, 3]));
    publisher.rotate(2);
    thief.now += 1;
    thief.rotate(3);
    thief.order(Order::Rollback);
    thief.rotate(3);
    Stolen { publisher, thief, owner: Owner::new(2) }
}

// Proves: GW-106, GW-107
#[test]
fn a_recovery_wins_over_a_history_that_a_thief_made() {
    let Stolen { mut publisher, mut thief, mut owner } = stolen();
    let good = publisher.publish("stable", "1.0.0");
    let evil = thief.publish("stable", "6.6.6");
    let later = publisher.publish("stable", "6.6.7");
    let mut misled = old_trust(&publisher, &owner);
    assert_eq!(misled.follow(&thief.records), Ok(3));
    assert!(misled.manifest(&evil, &[], publisher.now).is_ok(), "that is what a stolen key can do");
    let mut torn = old_trust(&publisher, &owner);
    torn.follow(&publisher.records).unwrap();
    assert!(matches!(torn.follow(&thief.records), Err(TrustRefused::Forked(_))));

    let content = good.content();
    let last = LastGood {
        registry: content.registry.clone(),
        channel: content.channel.as_str().to_owned(),
        seq: content.seq,
        manifest_sha256: good.hash(),
    };
    let record = publisher.recover(4, BTreeMap::from([(v(2), vec![last])]));
    owner.proves(&record);
    for trust in [&mut misled, &mut torn] {
        assert!(trust.follow_proven(&publisher.records, &owner.frames()).is_ok());
        assert_eq!((trust.epoch(), trust.fork()), (3, None));
        let unknown = trust.manifest(&evil, &[], publisher.now);
        assert!(matches!(unknown, Err(ReleaseRefused::UnknownKey(_))), "{unknown:?}");
        assert!(trust.manifest(&good, &[], publisher.now).is_ok());
        let given_up = trust.manifest(&later, &[], publisher.now);
        assert!(matches!(given_up, Err(ReleaseRefused::KeyCompromised(_))), "{given_up:?}");
        // The thief's history is not followed again, and forks nothing.
        assert_eq!(trust.follow(&thief.records), Err(TrustRefused::Chain(4)));
        assert_eq!((trust.epoch(), trust.fork()), (3, None));
        assert_eq!(Trust::parse(trust.to_value().to_string().as_bytes()).unwrap(), *trust);
    }
}

// Proves: GW-106
#[test]
fn only_the_words_of_the_root_replace_a_key() {
    let (mut publisher, mut owner) = (Publisher::new(&[1, 2]), Owner::new(3));
    let before = owner.frames();
    let record = publisher.recover(3, none());
    let refused = |frames: &[Verified]| {
        let mut trust = old_trust(&publisher, &owner);
        let refused = trust.follow_proven(&publisher.records, frames);
        assert_eq!(trust.epoch(), 1);
        refused
    };
    assert_eq!(refused(&[]), Err(TrustRefused::Unproven(2)));
    assert_eq!(refused(&before), Err(TrustRefused::Unproven(2)), "it says nothing");
    let mut stranger = Owner::new(4);
    stranger.proves(&record);
    assert_eq!(refused(&stranger.frames()), Err(TrustRefused::Unproven(2)), "another keystone");

    // A stolen node holds the working secret and the key. It can claim, and not manage.
    let no_words = RootSecret::generate(&mut SeededEntropy::new(9));
    assert_eq!(owner.manage_with(&no_words, &record).unwrap_err(), SignError::WrongSecret);
    owner.claims(&Claim::new(
        Verb::Delegate,
        "comment hi^A1C0499999999999999999999999999999999999999999999999999999999999",
    ));
    let stolen = owner.frames();
    let mut trust = old_trust(&publisher, &owner);
    assert_eq!(trust.follow_proven(&publisher.records, &stolen), Err(TrustRefused::Unproven(2)));

    // The words speak of another record.
    let mut other = Publisher::new(&[1, 2]);
    other.now += 1;
    owner.proves(&other.recover(3, none()));
    assert_eq!(trust.follow_proven(&publisher.records, &owner.frames()), Err(TrustRefused::Unproven(2)));
    owner.proves(&record);
    assert_eq!(trust.follow_proven(&publisher.records, &owner.frames()), Ok(1));

    // A frame that is left out, and a root that was revoked.
    let mut gapped = owner.frames();
    gapped.remove(2);
    let mut trust = old_trust(&publisher, &owner);
    assert_eq!(trust.follow_proven(&publisher.records, &gapped), Err(TrustRefused::Unproven(2)));
    let revoked = revoke(&owner.chain, &owner.root, "lost", None, Stamp { ms: START + 9 }).unwrap();
    owner.extend(revoked);
    assert_eq!(trust.follow_proven(&publisher.records, &owner.frames()), Err(TrustRefused::Unproven(2)));
}

// Proves: GW-106
#[test]
fn the_newest_recovery_holds() {
    let (mut publisher, mut owner) = (Publisher::new(&[1, 2]), Owner::new(5));
    let mut twin = Publisher::new(&[1, 2]);
    twin.now += 1;
    owner.proves(&publisher.recover(3, none()));
    // The home came back from a copy that did not know of that, and was recovered again.
    owner.proves(&twin.recover(3, none()));
    let frames = owner.frames();
    let both = [&publisher.records[..], &twin.records[1..]].concat();
    let mut trust = old_trust(&publisher, &owner);
    trust.follow_proven(&publisher.records, &frames[..2]).unwrap();
    let first = trust.active().clone();
    assert_eq!(trust.follow_proven(&twin.records, &frames), Ok(1));
    assert_eq!((trust.epoch(), trust.recovered().unwrap().frame), (2, 2));
    // An old one that is shown again tells nothing.
    let held = trust.clone();
    assert_eq!(trust.follow_proven(&publisher.records, &frames), Ok(0));
    assert_eq!(trust, held);
    let mut at_once = old_trust(&publisher, &owner);
    assert_eq!(at_once.follow_proven(&both, &frames), Ok(1));
    assert_eq!(at_once.recovered(), trust.recovered());
    // Both replaced the same pair by the same one here; only the record differs.
    assert_eq!(*trust.active(), first);
}

// Proves: GW-106
#[test]
fn a_history_that_does_not_hang_together_is_refused() {
    let Stolen { mut publisher, thief, mut owner } = stolen();
    owner.proves(&publisher.recover(4, none()));
    let frames = owner.frames();
    let mut trust = old_trust(&publisher, &owner);
    trust.follow(&thief.records).unwrap();
    let held = trust.clone();
    // The thief's record 2 is not the one that the recovery follows.
    let mixed = [thief.records[0].clone(), thief.records[1].clone(), publisher.records[2].clone()];
    assert_eq!(trust.follow_proven(&mixed, &frames), Err(TrustRefused::Chain(3)));
    assert_eq!(
        trust.follow_proven(&publisher.records[2..], &frames),
        Err(TrustRefused::Chain(3)),
        "record 2 is not there"
    );
    assert_eq!(trust, held);
    let mut behind = old_trust(&publisher, &owner);
    assert_eq!(behind.follow_proven(&publisher.records[2..], &frames), Err(TrustRefused::Gap { trusted: 1, found: 3 }));

    // A trust file that begins later is not taken back before its begin.
    let newest = thief.records.last().unwrap();
    let mut late = Trust::of_publisher(REGISTRY, newest, Some(&owner.address())).unwrap();
    assert_eq!((late.follow_proven(&publisher.records, &frames), late.epoch()), (Ok(0), 4));
}

// Proves: GW-106
#[test]
fn a_recovery_that_nobody_proves_stops_nobody() {
    let (mut publisher, mut anybody) = (Publisher::new(&[1, 2]), Publisher::new(&[1, 2]));
    let owner = Owner::new(6);
    publisher.rotate(2);
    anybody.recover(3, none());
    let mut trust = old_trust(&publisher, &owner);
    trust.follow(&publisher.records).unwrap();
    assert_eq!(trust.follow(&anybody.records), Err(TrustRefused::Unproven(2)));
    assert_eq!((trust.fork(), trust.epoch()), (None, 2));
}

// Proves: GW-72, GW-106
#[test]
fn a_bundle_carries_what_proves_a_recovery() {
    let (mut publisher, mut owner) = (Publisher::new(&[1, 2]), Owner::new(7));
    let mut trust = old_trust(&publisher, &owner);
    owner.proves(&publisher.recover(3, none()));
    let manifest = publisher.publish("stable", "1.0.0");
    let head = BundleHead { proof: owner.frames(), ..publisher.bundle(&manifest) };
    let bytes = head.encode().unwrap();
    let (read, length) = BundleHead::read(&bytes).unwrap();
    assert_eq!((&read, length), (&head, bytes.len()));
    assert_eq!(trust.follow_proven(&read.chain, &read.proof), Ok(1));
    assert!(trust.manifest(&read.manifest, &[], publisher.now).is_ok());
    println!("head with a recovery: {} bytes", bytes.len());
    // One bit of a frame, wherever it is, and nothing is proven or read.
    let at = bytes.len() - 1000;
    let mut odd = bytes.clone();
    odd[at] ^= 1;
    assert_eq!(BundleHead::read(&odd).unwrap_err(), NotABundle::Chain(3));
}
