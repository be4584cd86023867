//! A publisher in memory, with keys, a ledger and channels; and what is needed to forge.

use std::collections::BTreeMap;

use sealtide_crypto::{Now, Seed, SeededEntropy, SigningKey, blake3};
use sealtide_identity::keyring::{
    ChangeRequest, KeyOffers, KeyPolicy, KeyVersion, Keyring, KeyringRecovery, LastGood, LedgerRecord, LedgerRow,
    LoadedKeys, Order, Pair,
};
use sealtide_releases::bundle::{
    AppName, BundleHead, Channel, ChannelHead, HEAD_MS_DEFAULT, Manifest, ReleaseFile, Signed, Trust,
};
use semver::Version;

pub(crate) const REGISTRY: &str = "releases^AAAA";
pub(crate) const LEDGER: &str = "keyring^0000";
pub(crate) const START: u64 = 1_700_000_000_000;
pub(crate) const DAY: u64 = 86_400_000;

pub(crate) fn v(number: u16) -> KeyVersion {
    KeyVersion::new(number).unwrap()
}

pub(crate) fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

pub(crate) fn app() -> AppName {
    AppName::parse("kiosk").unwrap()
}

pub(crate) struct Publisher {
    pub(crate) node: SigningKey,
    pub(crate) ring: Keyring,
    pub(crate) records: Vec<LedgerRecord>,
    pub(crate) channels: BTreeMap<Channel, Vec<Signed<Manifest>>>,
    pub(crate) now: u64,
}

fn load(versions: &[u16], seed: u16) -> LoadedKeys {
    let secret = |number: &u16| format!("{:04x}", number + seed).repeat(16).into_bytes();
    let files: BTreeMap<KeyVersion, Vec<u8>> = versions.iter().map(|number| (v(*number), secret(number))).collect();
    LoadedKeys::load(&KeyOffers { files, ..KeyOffers::default() }, &mut SeededEntropy::new(1)).unwrap()
}

impl Publisher {
    pub(crate) fn new(versions: &[u16]) -> Self {
        Self::seeded(versions, 0)
    }

    /// Another publisher with the same node and other keys.
    pub(crate) fn seeded(versions: &[u16], seed: u16) -> Self {
        let node = SigningKey::from_seed(&Seed::from_bytes([3; 32]));
        let at = Now { mono_ms: 0, wall_ms: START };
        let first = Keyring::first_record(&load(versions, seed), &node, "test", at).unwrap();
        let row = LedgerRow::of(&first, "tip", None);
        let records = vec![first];
        let policy = KeyPolicy::default();
        let ring = Keyring::open(load(versions, seed), LEDGER, &records, &row, 1, node.public(), policy).unwrap();
        Self { node, ring, records, channels: BTreeMap::new(), now: START }
    }

    pub(crate) fn order(&mut self, order: Order) {
        let request = ChangeRequest { order, expect: None, auto: false, by: "tester", reason: "a test" };
        let now = Now { mono_ms: self.now - START, wall_ms: self.now };
        let change = self.ring.propose(&request, &self.node, now).unwrap().unwrap();
        self.records.push(change.record.clone());
        self.ring.apply(change, &self.node, now).unwrap();
    }

    /// Replaces the pair, as who lost it does; `compromised` names versions with their last good manifests.
    pub(crate) fn recover(&mut self, to: u16, compromised: BTreeMap<KeyVersion, Vec<LastGood>>) -> LedgerRecord {
        let mut loaded = load(&[to], 1000);
        let (keys, _) = loaded.keys.remove(&v(to)).unwrap();
        let not_after = self.now + 30 * DAY;
        let recovery = KeyringRecovery { keys: &keys, not_after, compromised, by: "tester", reason: "lost" };
        let record = self.ring.ledger().recover(&recovery, &self.node, self.now).unwrap();
        self.records.push(record.clone());
        let row = LedgerRow::of(&record, "tip", None);
        let policy = KeyPolicy::default();
        let (loaded, public) = (load(&[to], 1000), self.node.public());
        self.ring = Keyring::open(loaded, LEDGER, &self.records, &row, 1, public, policy).unwrap();
        record
    }

    pub(crate) fn rotate(&mut self, to: u16) {
        self.order(Order::Rotate { to: Some(v(to)), keep_until: None });
    }

    pub(crate) fn active(&self) -> KeyVersion {
        self.ring.ledger().tip().active()
    }

    pub(crate) fn pair(&self, version: KeyVersion) -> &Pair {
        self.ring.keys(version).unwrap().pair().unwrap()
    }

    /// What the next release of a channel would say.
    pub(crate) fn draft(&self, name: &str, version: &str) -> Manifest {
        let before = self.channels.get(&channel(name)).and_then(|list| list.last());
        Manifest {
            registry: REGISTRY.to_owned(),
            name: app(),
            version: Version::parse(version).unwrap(),
            channel: channel(name),
            seq: before.map_or(1, |before| before.content().seq + 1),
            prev: before.map(Signed::hash),
            minimum_version: None,
            key_version: self.active(),
            created_at: self.now,
            expiry: None,
            archive_date: None,
            hash: blake3(version.as_bytes()),
            size: 5,
            unpacked_size: 5,
            files: vec![ReleaseFile { path: "a/b".to_owned(), hash: blake3(b"hello"), size: 5, executable: false }],
            registry_revision: 1,
            signed_at: self.now,
        }
    }

    pub(crate) fn publish(&mut self, name: &str, version: &str) -> Signed<Manifest> {
        let signed = Signed::sign(self.draft(name, version), self.pair(self.active()));
        self.channels.entry(channel(name)).or_default().push(signed.clone());
        signed
    }

    pub(crate) fn head_of(&self, manifest: &Signed<Manifest>, yanked: &[u64]) -> ChannelHead {
        let content = manifest.content();
        ChannelHead {
            registry: content.registry.clone(),
            channel: content.channel.clone(),
            seq: content.seq,
            manifest_sha256: manifest.hash(),
            version: content.version.clone(),
            epoch: self.records.last().unwrap().epoch,
            issued_at: self.now,
            not_after: self.now + HEAD_MS_DEFAULT,
            yanked: yanked.to_vec(),
        }
    }

    pub(crate) fn head(&self, manifest: &Signed<Manifest>) -> Signed<ChannelHead> {
        Signed::sign(self.head_of(manifest, &[]), self.pair(self.active()))
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::of_publisher(REGISTRY, self.records.last().unwrap(), None).unwrap()
    }

    pub(crate) fn bundle(&self, manifest: &Signed<Manifest>) -> BundleHead {
        BundleHead { manifest: manifest.clone(), chain: self.records.clone(), proof: Vec::new() }
    }
}
