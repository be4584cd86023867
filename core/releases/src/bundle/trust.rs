//! The trust of a verifier: which pairs it takes signatures of, and how it follows the key ledger. Spec: gateway §9.7.
//!
//! ```text
//! trust file (epoch e, its pair) ──follow(record e+1)──▶ epoch e+1, its pair; the pair of e stays good until its end
//!                                ├─ two records of one epoch ──▶ forked: nothing newer is taken
//!                                └─ recover, proven by the root ──▶ its history holds, another is forgotten (`recovery.rs`)
//! ```

mod recovery;

use std::collections::BTreeMap;

use sealtide_ibgib::Verified;

use data_encoding::{BASE64, HEXLOWER};
use sealtide_crypto::Label;
use sealtide_identity::keyring::{
    Action, Algorithm, Deadline, KeyVersion, LastGood, LedgerRecord, PairRefused, PublicPair, RecordSignature,
    VersionState,
};
use serde_json::{Value, json};

use super::signed::{address, hex32, integer};

/// The schema of a trust file, and of the trust that a verifier keeps.
const SCHEMA: &str = "sealtide/trust/1";
/// Bytes of a trust file, at most.
pub const TRUST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Epochs that are remembered, at most; beyond, the oldest are forgotten.
const EPOCHS_MAX: usize = 4096;
/// Pairs that are remembered, at most: as many as a ledger can have.
const PAIRS_MAX: usize = 64;

/// What a verifier trusts for the releases of one registry.
#[derive(Clone, Debug, PartialEq)]
pub struct Trust {
    registry: String,
    epoch: u64,
    root: Option<String>,
    ledger: Option<String>,
    /// The active pair of `epoch` last.
    pairs: Vec<TrustedPair>,
    /// The records that were followed, by epoch: hash, and the first kid of the pair that was active after it.
    followed: BTreeMap<u64, ([u8; 32], String)>,
    compromised: BTreeMap<KeyVersion, Vec<LastGood>>,
    fork: Option<Fork>,
    recovered: Option<Recovered>,
}

/// The newest recovery that was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The epoch of its record.
    pub epoch: u64,
    /// The counter of the keystone frame that proves it; a later recovery has a greater one.
    pub frame: u64,
}

/// A pair that was active at some followed epoch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TrustedPair {
    pub(super) pair: PublicPair,
    /// Known once a record named it.
    pub(super) version: Option<KeyVersion>,
    pub(super) state: VersionState,
    pub(super) not_after: Option<Deadline>,
}

/// Two records of one epoch, both signed as they must be: somebody made two histories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// Of both.
    pub epoch: u64,
    /// SHA-256 of the signed bytes of the one that was followed.
    pub followed: [u8; 32],
    /// And of the other.
    pub other: [u8; 32],
}

/// Why a trust file is none, or a record is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustRefused {
    /// Not a trust file.
    #[error("no trust file: {0}")]
    File(&'static str),
    /// Records between are missing.
    #[error("the key ledger goes on at epoch {found}, the trust ends at epoch {trusted}: records between are missing")]
    Gap {
        /// Of the trust.
        trusted: u64,
        /// Of the record.
        found: u64,
    },
    /// The record names another one as the one before it, or another ledger.
    #[error("record {0} of the key ledger does not follow the one that is trusted")]
    Chain(u64),
    /// Not signed by the pair before, or not by the pair after.
    #[error("record {epoch} of the key ledger: {refused}")]
    Signature {
        /// Its epoch.
        epoch: u64,
        /// What is wrong.
        refused: PairRefused,
    },
    /// The record names no whole pair for the version that is to sign.
    #[error("record {0} of the key ledger makes a version sign that has no pair")]
    NoPair(u64),
    /// There are two histories.
    #[error(
        "the key ledger was forked at epoch {}: records {}… and {}… are both signed; take a new trust file from the publisher by another way",
        .0.epoch, short(&.0.followed), short(&.0.other)
    )]
    Forked(Fork),
    /// A lost key was replaced, and this trust names nobody who may say so.
    #[error("record {0} of the key ledger replaces a lost key, and the trust file names no root that could prove it")]
    NoRoot(u64),
    /// A lost key was replaced, and no frame of the root that is here says so; or the root was revoked.
    #[error(
        "record {0} of the key ledger replaces a lost key, and the owner that the trust file names as root does not say so"
    )]
    Unproven(u64),
}

fn short(hash: &[u8; 32]) -> String {
    HEXLOWER.encode(&hash[..8])
}

impl Trust {
    /// The trust that a publisher hands out: the pair that is active after `record`, the newest of its ledger.
    ///
    /// # Errors
    /// [`TrustRefused::NoPair`].
    pub fn of_publisher(registry: &str, record: &LedgerRecord, root: Option<&str>) -> Result<Self, TrustRefused> {
        let pair = active_pair(record)?;
        let active = TrustedPair { pair, version: None, state: VersionState::Active, not_after: None };
        Ok(Self {
            registry: registry.to_owned(),
            epoch: record.epoch,
            root: root.map(str::to_owned),
            ledger: None,
            pairs: vec![active],
            followed: BTreeMap::new(),
            compromised: BTreeMap::new(),
            fork: None,
            recovered: None,
        })
    }

    /// Whose releases.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The newest epoch that was followed.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The owner keystone that can replace a lost key, where the trust file named one.
    pub fn root(&self) -> Option<&str> {
        self.root.as_deref()
    }

    /// Two histories, when there are.
    pub fn fork(&self) -> Option<Fork> {
        self.fork
    }

    /// The newest recovery that was followed. When it is another one than before, what was seen of channels says nothing any more: a
    /// thief may have shown it.
    pub fn recovered(&self) -> Option<Recovered> {
        self.recovered
    }

    /// Takes the root of another trust file, where this one has none and both trust the same pair at the same epoch.
    pub fn adopt_root(&mut self, given: &Self) {
        let is_same = given.registry == self.registry && given.epoch == self.epoch && given.active() == self.active();
        if self.root.is_none() && is_same {
            self.root.clone_from(&given.root);
        }
    }

    /// The pair that signs heads at the newest epoch.
    pub fn active(&self) -> &PublicPair {
        &self.pairs.last().expect("a trust has a pair").pair
    }

    pub(super) fn pair_of(&self, kid: &str) -> Option<&TrustedPair> {
        self.pairs.iter().find(|trusted| trusted.pair.has(kid))
    }

    pub(super) fn is_active(&self, pair: &PublicPair) -> bool {
        self.active() == pair
    }

    pub(super) fn last_good(&self, version: KeyVersion) -> Option<&[LastGood]> {
        self.compromised.get(&version).map(Vec::as_slice)
    }

    /// As [`Trust::follow_proven`], without a proof of recoveries.
    ///
    /// # Errors
    /// [`TrustRefused`].
    pub fn follow(&mut self, records: &[LedgerRecord]) -> Result<u64, TrustRefused> {
        self.follow_proven(records, &[])
    }

    /// Follows records of the ledger, oldest first; those of earlier epochs are only compared. `frames` are of the keystone that is the
    /// root; they prove recoveries. Returns how many epochs were taken. Those before the one that is refused stay taken.
    ///
    /// # Errors
    /// [`TrustRefused`]. A fork is remembered, so the trust is to be kept even then.
    // Spec: GW-106
    pub fn follow_proven(&mut self, records: &[LedgerRecord], frames: &[Verified]) -> Result<u64, TrustRefused> {
        // The record of the trust file's own epoch: a recovery may go back to it.
        let own = records.iter().find(|record| record.epoch == self.epoch && self.followed.is_empty());
        own.map_or(Ok(false), |own| self.follow_one(own))?;
        let mut taken = self.recover(records, frames)?;
        for record in records {
            taken += match self.fork {
                Some(fork) if record.epoch > fork.epoch => return Err(TrustRefused::Forked(fork)),
                _ => u64::from(self.follow_one(record)?),
            };
        }
        Ok(taken)
    }

    /// Whether the trust is an epoch further.
    fn follow_one(&mut self, record: &LedgerRecord) -> Result<bool, TrustRefused> {
        let epoch = record.epoch;
        let is_next = epoch == self.epoch + 1;
        if epoch > self.epoch + 1 {
            return Err(TrustRefused::Gap { trusted: self.epoch, found: epoch });
        }
        match self.followed.get(&epoch) {
            Some((hash, _)) if *hash == record.hash() => return Ok(false),
            // The recovery decided between the histories before it.
            Some(_) if self.recovered.is_some_and(|recovered| epoch <= recovered.epoch) => return Ok(false),
            // Anybody can write one that nobody proves.
            Some(_) if record.action == Action::Recover => return Err(self.unproven(epoch)),
            Some((hash, _)) => {
                let fork = Fork { epoch, followed: *hash, other: record.hash() };
                // Anybody can write an unsigned record; only who holds the pair can fork.
                self.check(record)?;
                self.fork = Some(fork);
                return Err(TrustRefused::Forked(fork));
            }
            // Older than what this trust began with.
            None if epoch < self.epoch => return Ok(false),
            None => {}
        }
        if record.action == Action::Recover && is_next {
            return Err(self.unproven(epoch));
        }
        self.check(record)?;
        self.take(record)?;
        Ok(is_next)
    }

    fn unproven(&self, epoch: u64) -> TrustRefused {
        if self.root.is_some() { TrustRefused::Unproven(epoch) } else { TrustRefused::NoRoot(epoch) }
    }

    /// Checks that the pair before and the pair after signed. Entries of the node key are not looked at: what a node says of
    /// itself counts on that node.
    fn check(&self, record: &LedgerRecord) -> Result<(), TrustRefused> {
        let epoch = record.epoch;
        let before = self.followed.get(&(epoch - 1));
        let wrong_prev = before.is_some_and(|(hash, _)| record.prev != Some(*hash));
        let wrong_ledger = self.ledger.is_some() && record.ledger != self.ledger && epoch > 1;
        if wrong_prev || wrong_ledger {
            return Err(TrustRefused::Chain(epoch));
        }
        let after = active_pair(record)?;
        let before = match before.and_then(|(_, kid)| self.pair_of(kid)) {
            Some(before) => Some(&before.pair),
            None if epoch == self.epoch + 1 => Some(self.active()),
            // The epoch of the trust file itself: only its own pair is known, and must be the one that is active.
            None => None,
        };
        if before.is_none() && after != *self.active() {
            return Err(TrustRefused::Chain(epoch));
        }
        // In place of the pair before the owner says that a recovery holds; who asks for that looks at the proof.
        let before = before.filter(|before| **before != after && record.action != Action::Recover);
        let refused = |refused| TrustRefused::Signature { epoch, refused };
        for pair in before.into_iter().chain([&after]) {
            let entries: Vec<RecordSignature> = pair
                .keys()
                .filter_map(|(algorithm, kid, _)| {
                    record.signatures.iter().find(|entry| entry.kid == kid && entry.algorithm == algorithm).cloned()
                })
                .collect();
            pair.verify(Label::KeysRotate, record.signed_bytes(), &entries).map_err(refused)?;
        }
        Ok(())
    }

    fn take(&mut self, record: &LedgerRecord) -> Result<(), TrustRefused> {
        let after = active_pair(record)?;
        let at = self.pairs.iter().position(|trusted| trusted.pair == after);
        let mut active = match at {
            Some(at) => self.pairs.remove(at),
            None => TrustedPair { pair: after, version: None, state: VersionState::Active, not_after: None },
        };
        active.version = Some(record.active());
        self.pairs.push(active);
        if self.pairs.len() > PAIRS_MAX {
            self.pairs.remove(0);
        }
        let states: BTreeMap<KeyVersion, VersionState> = record.versions().collect();
        for trusted in &mut self.pairs {
            if let Some(version) = trusted.version {
                trusted.state = states.get(&version).copied().unwrap_or(VersionState::Destroyed);
                trusted.not_after = record.not_after(version);
            }
        }
        self.compromised = record.compromised().map(|(version, channels)| (version, channels.to_vec())).collect();
        self.epoch = record.epoch;
        if record.epoch > 1 {
            self.ledger.clone_from(&record.ledger);
        }
        let kid = self.active().keys().next().map(|(_, kid, _)| kid.to_owned()).unwrap_or_default();
        self.followed.insert(record.epoch, (record.hash(), kid));
        if self.followed.len() > EPOCHS_MAX {
            self.followed.pop_first();
        }
        Ok(())
    }

    /// The trust as a file: what was given out, and what was learned since.
    pub fn to_value(&self) -> Value {
        let mut value = json!({
            "schema": SCHEMA,
            "registry": self.registry,
            "epoch": self.epoch,
            "keys": keys_value(self.active()),
        });
        let active = self.pairs.last().expect("a trust has a pair");
        let earlier = &self.pairs[..self.pairs.len() - 1];
        let pair = |trusted: &TrustedPair| json!({"keys": keys_value(&trusted.pair), "state": state_value(trusted)});
        let followed = |(epoch, (hash, kid)): (&u64, &([u8; 32], String))| json!([epoch, HEXLOWER.encode(hash), kid]);
        if let Some(root) = &self.root {
            value["root"] = json!(root);
        }
        if !self.followed.is_empty() {
            value["learned"] = json!({
                "ledger": self.ledger,
                "active": state_value(active),
                "earlier": earlier.iter().map(pair).collect::<Vec<_>>(),
                "followed": self.followed.iter().map(followed).collect::<Vec<_>>(),
                "compromised": self.compromised.iter().map(compromised_value).collect::<Vec<_>>(),
                "fork": self.fork.map(|fork| json!([fork.epoch, HEXLOWER.encode(&fork.followed), HEXLOWER.encode(&fork.other)])),
            });
            if let Some(recovered) = self.recovered {
                value["learned"]["recovered"] = json!([recovered.epoch, recovered.frame]);
            }
        }
        value
    }

    /// Reads a trust file.
    ///
    /// # Errors
    /// [`TrustRefused::File`] with the member that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, TrustRefused> {
        if bytes.len() > TRUST_BYTES_MAX {
            return Err(TrustRefused::File("it is too long"));
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|_| TrustRefused::File("it is no JSON"))?;
        read_file(&value).map_err(TrustRefused::File)
    }
}

fn active_pair(record: &LedgerRecord) -> Result<PublicPair, TrustRefused> {
    PublicPair::of_entries(&record.keys_of(record.active())).ok_or(TrustRefused::NoPair(record.epoch))
}

fn keys_value(pair: &PublicPair) -> Value {
    let key = |(algorithm, kid, key): (Algorithm, &str, &[u8])| json!({"kid": kid, "alg": algorithm.name(), "publicKey": BASE64.encode(key)});
    pair.keys().map(key).collect()
}

fn state_value(trusted: &TrustedPair) -> Value {
    let not_after = trusted.not_after.map(|end| match end {
        Deadline::At(ms) => json!(ms),
        Deadline::Unreadable => json!("unreadable"),
    });
    json!({"version": trusted.version.map(|version| version.to_string()), "state": trusted.state.name(), "notAfter": not_after})
}

fn compromised_value((version, channels): (&KeyVersion, &Vec<LastGood>)) -> Value {
    json!({"version": version.to_string(), "channels": channels.iter().map(LastGood::to_value).collect::<Vec<_>>()})
}

fn read_file(value: &Value) -> Result<Trust, &'static str> {
    const KNOWN: [&str; 6] = ["schema", "registry", "epoch", "keys", "root", "learned"];
    let object = value.as_object().ok_or("it is no object")?;
    if object.get("schema").and_then(Value::as_str) != Some(SCHEMA) {
        return Err("schema");
    }
    if object.keys().any(|name| !KNOWN.contains(&name.as_str())) {
        return Err("an unknown member");
    }
    let pair = object.get("keys").and_then(read_keys).ok_or("keys")?;
    let active = TrustedPair { pair, version: None, state: VersionState::Active, not_after: None };
    let root = match object.get("root") {
        None => None,
        Some(root) => Some(address(root).ok_or("root")?),
    };
    let mut trust = Trust {
        registry: object.get("registry").and_then(address).ok_or("registry")?,
        epoch: object.get("epoch").and_then(integer).filter(|epoch| *epoch > 0).ok_or("epoch")?,
        root,
        ledger: None,
        pairs: vec![active],
        followed: BTreeMap::new(),
        compromised: BTreeMap::new(),
        fork: None,
        recovered: None,
    };
    if let Some(learned) = object.get("learned") {
        read_learned(&mut trust, learned).ok_or("learned")?;
    }
    Ok(trust)
}

fn read_learned(trust: &mut Trust, value: &Value) -> Option<()> {
    let recovered = value.get("recovered");
    let object = value.as_object().filter(|object| object.len() == 6 + usize::from(recovered.is_some()))?;
    if let Some(recovered) = recovered {
        let [epoch, frame] = recovered.as_array()?.as_slice() else { return None };
        trust.recovered = Some(Recovered { epoch: integer(epoch)?, frame: integer(frame)? });
    }
    let list = |name: &str| object.get(name)?.as_array();
    trust.ledger = match object.get("ledger")? {
        Value::Null => None,
        ledger => Some(address(ledger)?),
    };
    read_state(trust.pairs.last_mut()?, object.get("active")?)?;
    let active = trust.pairs.pop()?;
    for entry in list("earlier")?.iter().take(PAIRS_MAX) {
        let pair = read_keys(entry.get("keys")?)?;
        let mut trusted = TrustedPair { pair, version: None, state: VersionState::Expired, not_after: None };
        read_state(&mut trusted, entry.get("state")?)?;
        trust.pairs.push(trusted);
    }
    trust.pairs.push(active);
    for entry in list("followed")?.iter().take(EPOCHS_MAX) {
        let kid = entry.get(2)?.as_str()?.to_owned();
        trust.followed.insert(integer(entry.get(0)?)?, (hex32(entry.get(1)?)?, kid));
    }
    // A recovery is one of the records that were followed.
    if trust.recovered.is_some() && trust.followed.is_empty() {
        return None;
    }
    for entry in list("compromised")?.iter().take(PAIRS_MAX) {
        let version = KeyVersion::parse(entry.get("version")?.as_str()?)?;
        let channels: Option<Vec<LastGood>> = entry.get("channels")?.as_array()?.iter().map(LastGood::read).collect();
        trust.compromised.insert(version, channels?);
    }
    trust.fork = match object.get("fork")? {
        Value::Null => None,
        fork => {
            Some(Fork { epoch: integer(fork.get(0)?)?, followed: hex32(fork.get(1)?)?, other: hex32(fork.get(2)?)? })
        }
    };
    Some(())
}

fn read_state(trusted: &mut TrustedPair, value: &Value) -> Option<()> {
    trusted.version = match value.get("version")? {
        Value::Null => None,
        version => Some(KeyVersion::parse(version.as_str()?)?),
    };
    trusted.state = VersionState::named(value.get("state")?.as_str()?)?;
    trusted.not_after = match value.get("notAfter")? {
        Value::Null => None,
        end => Some(integer(end).map_or(Deadline::Unreadable, Deadline::At)),
    };
    Some(())
}

fn read_keys(value: &Value) -> Option<PublicPair> {
    let [ml_dsa, ed25519] = value.as_array()?.as_slice() else { return None };
    let read = |value: &Value, algorithm: Algorithm| {
        let object = value.as_object().filter(|object| object.len() == 3)?;
        let named = object.get("alg")?.as_str() == Some(algorithm.name());
        named.then(|| BASE64.decode(object.get("publicKey")?.as_str()?.as_bytes()).ok()).flatten()
    };
    let pair = PublicPair::of(&read(ml_dsa, Algorithm::MlDsa87)?, &read(ed25519, Algorithm::Ed25519)?)?;
    let told = [ml_dsa, ed25519].map(|value| value.get("kid").and_then(Value::as_str));
    pair.keys().map(|(_, kid, _)| Some(kid)).eq(told).then_some(pair)
}
