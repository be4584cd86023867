//! A recovery: a record that the pair before did not sign, and that the owner wanted. Spec: gateway §9.7; releases.md §4.
//!
//! ```text
//! trust file: root ──▶ keystone ──managing frame, made with the words──▶ SHA-256 of the recover record
//!                                                                            │ prev, prev, …
//! followed: 1 ◀─ 2 ◀─ 3 ◀─ 4 ◀─ 5                                            ▼
//!                     ▲    (the thief's: forgotten)          3 ◀─ 4' ◀─ 5' recover: taken, with all that it names
//!                     └──────────────────────────────────────┘
//! ```
//!
//! The record names the one before it by hash, so the owner's word holds for the whole history up to it. The managing frame is
//! made with the recovery words; what a stolen node holds does not make one.

use std::collections::{BTreeMap, BTreeSet};

use sealtide_ibgib::{Address, Verified};
use sealtide_identity::keyring::{Action, LedgerRecord};
use sealtide_identity::keystone::Chain;

use super::{Recovered, Trust, TrustRefused};

impl Trust {
    /// Takes the newest recovery among `records` that `frames` prove, with the history that it names. Returns how many epochs were
    /// taken: none where there is no recovery, or none newer than the one that was followed.
    // Spec: GW-106
    pub(super) fn recover(&mut self, records: &[LedgerRecord], frames: &[Verified]) -> Result<u64, TrustRefused> {
        let Some((newest, recovered)) = self.newest_recovery(records, frames) else { return Ok(0) };
        let (path, base) = self.history(newest, records)?;
        // Nothing is forgotten before all of it was checked.
        let mut next = self.clone();
        next.go_back(base);
        for record in &path {
            next.check(record)?;
            next.take(record)?;
        }
        next.recovered = Some(recovered);
        *self = next;
        Ok(path.len() as u64)
    }

    /// The recovery whose keystone frame is the newest, when that is newer than the one that was followed.
    fn newest_recovery<'a>(
        &self,
        records: &'a [LedgerRecord],
        frames: &[Verified],
    ) -> Option<(&'a LedgerRecord, Recovered)> {
        // What is older than the trust file is its publisher's affair.
        let begin = self.followed.first_key_value().map_or(self.epoch, |(epoch, _)| *epoch);
        let is_new = |record: &&LedgerRecord| {
            let known = self.followed.get(&record.epoch).is_some_and(|(hash, _)| *hash == record.hash());
            record.action == Action::Recover && record.epoch > begin && !known
        };
        let found: Vec<&LedgerRecord> = records.iter().filter(is_new).collect();
        let root = self.root.as_ref().filter(|_| !found.is_empty())?;
        let mut chain = Chain::new(Address::parse(root).ok()?);
        for frame in frames {
            // One that breaks a rule is not kept, and proves nothing.
            let _ = chain.add(frame);
        }
        let proven = found.into_iter().filter_map(|record| {
            let frame = chain.keyring_authority(&record.hash())?;
            Some((record, Recovered { epoch: record.epoch, frame }))
        });
        let newest = proven.max_by_key(|(_, recovered)| recovered.frame)?;
        let is_newer = self.recovered.is_none_or(|before| newest.1.frame > before.frame);
        is_newer.then_some(newest)
    }

    /// The records from the last one that is followed already up to `newest`, oldest first, and the epoch of that last one.
    fn history(
        &self,
        newest: &LedgerRecord,
        records: &[LedgerRecord],
    ) -> Result<(Vec<LedgerRecord>, u64), TrustRefused> {
        let mut by_epoch: BTreeMap<u64, Vec<&LedgerRecord>> = BTreeMap::new();
        records.iter().for_each(|record| by_epoch.entry(record.epoch).or_default().push(record));
        let refused = TrustRefused::Chain(newest.epoch);
        let (mut path, mut at) = (Vec::new(), newest);
        loop {
            path.push(at.clone());
            let (Some(before), Some(epoch)) = (at.prev, at.epoch.checked_sub(1)) else { return Err(refused) };
            match self.followed.get(&epoch) {
                Some((hash, _)) if *hash == before => break,
                // The trust file speaks of this epoch, and its record was not seen.
                None if epoch == self.epoch => break,
                None if epoch < self.epoch => return Err(refused),
                _ => {}
            }
            let same_epoch = by_epoch.get(&epoch).into_iter().flatten();
            at = match same_epoch.copied().find(|record| record.hash() == before) {
                Some(record) => record,
                None if epoch > self.epoch => return Err(TrustRefused::Gap { trusted: self.epoch, found: at.epoch }),
                None => return Err(refused),
            };
        }
        path.reverse();
        let base = path[0].epoch - 1;
        Ok((path, base))
    }

    /// Forgets every epoch after `base`, and the pairs that were active only then.
    fn go_back(&mut self, base: u64) {
        let later = self.followed.split_off(&(base + 1));
        let kept: BTreeSet<&str> = self.followed.values().map(|(_, kid)| kid.as_str()).collect();
        let gone: Vec<&str> = later.values().map(|(_, kid)| kid.as_str()).filter(|kid| !kept.contains(kid)).collect();
        if let Some((_, kid)) = self.followed.get(&base) {
            let at = self.pairs.iter().position(|trusted| trusted.pair.has(kid));
            if let Some(at) = at {
                let active = self.pairs.remove(at);
                self.pairs.retain(|trusted| !gone.iter().any(|kid| trusted.pair.has(kid)));
                self.pairs.push(active);
            }
        }
        self.fork = None;
        self.epoch = base;
    }
}
