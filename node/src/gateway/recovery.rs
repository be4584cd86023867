//! A lost or stolen signing key is replaced: a new version, and a record that the owner's words let count. Spec: releases.md §4.
//!
//! ```text
//! new secret into the key file ─▶ record, signed by node and new pair ─▶ keystone frame that names it (words)
//!                                                     ─▶ frame of the ledger ─▶ epoch in the key file ─▶ signs
//! ```
//!
//! A crash anywhere leaves the ledger as it was, and the same command does it again: the newest keystone frame counts.
//!
//! A home that never had the keys takes the ledger over first: the records of the lost node, as its apps have them, become
//! the begin of a timeline of its own. Nothing signs by them before the recovery stands behind them.

use std::collections::BTreeMap;

use sealtide_crypto::Entropy;
use sealtide_gateway::{KeyChange, Notice};
use sealtide_ibgib::Verified;
use sealtide_identity::SpaceId;
use sealtide_identity::keyring::{
    KeySecret, KeyVersion, KeyringRecovery, LastGood, Ledger, LedgerRecord, PublicPair, VersionKeys, VersionState,
};
use sealtide_store::Store;
use zeroize::Zeroizing;

use super::Desk;
use super::changes::Before;
use super::key_file::{KeyFile, Keys};
use super::last_good::{Named, last_good};
use super::timelines::{Frames, app_space, data_of, known_space, ledger_address, member};
use crate::failpoint;
use crate::failure::{Exit, Failure};
use crate::home::{Home, Identity};
use crate::real::now;
use crate::releases::App;
use crate::world::OsEntropy;

/// What is to be replaced.
#[derive(Clone, Debug)]
pub(crate) struct Replacement {
    /// Somebody else may have the secrets of before: what they signed counts up to the last good releases.
    pub(crate) compromised: bool,
    /// Last good releases of the version that signed, where they are not the newest.
    pub(crate) last_good: Vec<Named>,
    /// Who.
    pub(crate) by: &'static str,
    /// Why.
    pub(crate) reason: String,
    /// The ledger of a lost node, oldest first, to go on from in a home without one.
    pub(crate) taken: Option<Vec<LedgerRecord>>,
}

/// Has the owner's words name the record with this hash, durably.
pub(crate) type Prove<'a> = &'a mut dyn FnMut(&[u8; 32]) -> Result<(), Failure>;

/// Where the keys of a home are.
struct Place<'a> {
    store: &'a Store,
    space: &'a SpaceId,
    identity: &'a Identity,
    key_file: &'a KeyFile,
    grace_ms: u64,
}

/// A replacement that is durable.
struct Replaced {
    done: KeyChange,
    record: LedgerRecord,
    /// Of the ledger, with the record.
    frame: Verified,
    /// What the key file says now.
    keys: Keys,
    /// Of the new version.
    secret: Zeroizing<[u8; 32]>,
}

impl Desk {
    /// Replaces the pair that signs, while it is in use.
    ///
    /// # Errors
    /// As [`replace_lost`].
    pub(crate) fn replace(&self, order: &Replacement, prove: Prove<'_>) -> Result<KeyChange, Failure> {
        if self.audit().is_failing() {
            return Err(Failure::failed("audit", "the audit cannot be written, and keys are not changed without it"));
        }
        let mut turn = self.turn();
        if let Some(records) = &order.taken {
            take_over(self.store(), self.node(), records)?;
        }
        let before = Before::of(self.read().ring.ledger().tip());
        let grace_ms = self.settings.policy.grace_ms;
        let (store, space, identity, key_file) = (self.store(), self.space(), self.node(), self.key_file());
        let replaced = Place { store, space, identity, key_file, grace_ms }.replace(order, prove)?;
        // It holds, whatever else is lost: what is loaded goes on, with the new version beside it, and no file is read again.
        let Replaced { done, record, frame, keys, secret } = replaced;
        turn.keys = keys;
        let recovered = self.write().ring.recovered(record.clone(), KeySecret::from_raw(*secret), &identity.key);
        recovered.map_err(|error| Failure::new(Exit::Verification, "key_ledger", error.to_string()))?;
        turn.ledger = frame;
        self.tell(&record, &before);
        self.note_moved();
        self.notify(Notice::KeyRotated(done));
        Ok(done)
    }
}

/// Replaces the pair that signs in a home whose keys cannot be opened, because their secret is lost.
///
/// # Errors
/// Exit 1 when there is no key ledger, 5 for one that does not verify; what `prove` refuses.
pub(crate) fn replace_lost(
    home: &Home,
    store: &Store,
    identity: &Identity,
    grace_ms: u64,
    order: &Replacement,
    prove: Prove<'_>,
) -> Result<KeyChange, Failure> {
    let space = match &order.taken {
        Some(records) => take_over(store, identity, records)?,
        None => known_space(store).ok_or_else(|| {
            Failure::failed("no_keys", "there is no key ledger in this home, and nothing to replace").hint(
                "--app NAME goes on from the ledger that the space of an app has, where the home with the keys is lost",
            )
        })?,
    };
    let key_file = KeyFile::of(home)?;
    let place = Place { store, space: &space, identity, key_file: &key_file, grace_ms };
    Ok(place.replace(order, prove)?.done)
}

/// The records of a lost node become the begin of the ledger of this home; what a crash left of that is gone on with. A home
/// that has gone on from them already keeps what it has.
///
/// # Errors
/// Exit 2 where there is another ledger.
fn take_over(store: &Store, identity: &Identity, records: &[LedgerRecord]) -> Result<SpaceId, Failure> {
    let space = app_space(store, identity)?;
    let frames = Frames { store, space: &space, ib: "keyring" };
    let there = frames.all()?;
    let told: Vec<_> = there.iter().map(|frame| member(frame, "record")).collect();
    let same = told.iter().zip(records).take_while(|(told, record)| **told == record.to_value()).count();
    let own = identity.id.to_string();
    let has_own = told.iter().any(|record| record["node"] == own.as_str());
    let expected = if has_own { records.len() } else { there.len().min(records.len()) };
    if same < expected {
        return Err(Failure::usage("keys_here", "this home has a key ledger of its own").hint("use a fresh home"));
    }
    let mut tip = there.last().cloned();
    for record in &records[same..] {
        failpoint::hit("recover_taken");
        let data = data_of("record", record.to_value());
        tip = Some(match &tip {
            None => frames.begin(data)?,
            Some(tip) => frames.next(tip, data)?,
        });
    }
    Ok(space)
}

impl Place<'_> {
    // Spec: GW-106
    fn replace(&self, order: &Replacement, prove: Prove<'_>) -> Result<Replaced, Failure> {
        let frames = Frames { store: self.store, space: self.space, ib: "keyring" };
        let all = frames.all()?;
        let broken = |error: String| Failure::new(Exit::Verification, "key_ledger", error);
        let records: Result<Vec<LedgerRecord>, _> =
            all.iter().map(|frame| LedgerRecord::parse(&member(frame, "record"))).collect();
        let records = records.map_err(|error| broken(error.to_string()))?;
        let tip = all.last().ok_or_else(|| Failure::failed("no_keys", "the key ledger is empty"))?;
        let own = self.identity.id;
        let address = ledger_address(&all, &records, own);
        let ledger = match records.iter().any(|record| record.node == own) {
            true => Ledger::open(&address, &records, self.identity.key.public()),
            false => Ledger::of_another(&address, &records),
        };
        let ledger = ledger.map_err(|error| broken(error.to_string()))?;
        let compromised = if order.compromised { self.given_up(&ledger, &order.last_good)? } else { BTreeMap::new() };
        let version = ledger.next_version();
        let version = version.ok_or_else(|| Failure::usage("version", "no version is left"))?;
        let mut secret = Zeroizing::new([0; 32]);
        OsEntropy.fill(secret.as_mut_slice());
        let keys = VersionKeys::derive(version, KeySecret::from_raw(*secret));
        let (wall_ms, from) = (now().wall_ms, ledger.tip().active());
        let not_after = wall_ms.saturating_add(self.grace_ms);
        let recovery = KeyringRecovery { keys: &keys, not_after, compromised, by: order.by, reason: &order.reason };
        let record = ledger.recover(&recovery, &self.identity.key, wall_ms);
        let record = record.map_err(|refused| Failure::failed("key_state", refused.to_string()))?;
        // The secret is durable before anybody hears of its keys.
        let mut kept = self.key_file.read()?;
        kept.made.insert(version, secret.clone());
        self.key_file.write(&kept)?;
        failpoint::hit("recover_made");
        if let Err(failure) = prove(&record.hash()) {
            kept.made.remove(&version);
            self.key_file.write(&kept)?;
            return Err(failure);
        }
        failpoint::hit("recover_proven");
        let frame = frames.next(tip, data_of("record", record.to_value()))?;
        failpoint::hit("recover_committed");
        kept.epoch = record.epoch;
        if let Err(error) = self.key_file.write(&kept) {
            tracing::error!(%error, "the epoch of the key ledger was not written; the next start does it");
        }
        let done = KeyChange { from, to: version, epoch: record.epoch, at_ms: wall_ms };
        Ok(Replaced { done, record, frame, keys: kept, secret })
    }

    /// Every version that signed, with its last good releases.
    fn given_up(&self, ledger: &Ledger, named: &[Named]) -> Result<BTreeMap<KeyVersion, Vec<LastGood>>, Failure> {
        let active = ledger.tip().active();
        let signed = |state| matches!(state, VersionState::Active | VersionState::VerifyOnly);
        let versions = ledger.versions().filter(|(_, state)| signed(*state)).map(|(version, _)| version);
        let pair = |version: KeyVersion| {
            let entries = ledger.keys().iter().filter(|key| key.version == version).collect::<Vec<_>>();
            (version, PublicPair::of_entries(&entries))
        };
        let versions: Vec<(KeyVersion, Option<PublicPair>)> = versions.map(pair).collect();
        let pairs: Vec<PublicPair> = versions.iter().filter_map(|(_, pair)| pair.clone()).collect();
        let manifests = App::manifests(self.store, &pairs)?;
        let of = |(version, pair): (KeyVersion, Option<PublicPair>)| {
            let named = if version == active { named } else { &[] };
            let good = match pair {
                Some(pair) => last_good(&manifests, version, &pair, named)?,
                None => Vec::new(),
            };
            Ok((version, good))
        };
        versions.into_iter().map(of).collect()
    }
}
