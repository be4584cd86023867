//! What is counted behind the door. Spec: gateway §11.1.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use sealtide_gateway::{Sample, Spread};
use sealtide_identity::keyring::{Algorithm, KeyVersion, Signed};
use sealtide_releases::Scope;

/// Counters. Labels come from fixed sets: versions of the ledger, algorithms, scopes.
pub(super) struct Figures {
    counts: Mutex<Counts>,
    signature_seconds: Spread,
    rotation_seconds: Spread,
}

impl Default for Figures {
    fn default() -> Self {
        let (signature_seconds, rotation_seconds) = (Spread::of_seconds(), Spread::of_seconds());
        Self { counts: Mutex::default(), signature_seconds, rotation_seconds }
    }
}

#[derive(Default)]
struct Counts {
    signatures: BTreeMap<(KeyVersion, Algorithm), u64>,
    /// From (none: a version that the ledger does not know, for callers name any) and to.
    fallbacks: BTreeMap<(Option<KeyVersion>, KeyVersion), u64>,
    bumps: BTreeMap<(&'static str, &'static str), u64>,
    rotations: BTreeMap<&'static str, u64>,
    /// Bundles that went to the archive, and those that did not.
    moves: [u64; 2],
    /// A version that signs now and made no signature yet, and when the change was asked for.
    awaited: Option<(KeyVersion, Instant)>,
}

impl Figures {
    /// A signature took so long to make.
    pub(super) fn signing_took(&self, seconds: f64) {
        self.signature_seconds.observe(seconds);
    }

    /// A version signs that was asked for at `since`; its first signature ends the wait.
    pub(super) fn awaits(&self, version: KeyVersion, since: Instant) {
        self.lock().awaited = Some((version, since));
    }

    /// `knows`: whether the ledger knows a version.
    pub(super) fn signed(&self, signed: &Signed, knows: impl FnOnce(KeyVersion) -> bool) {
        let mut counts = self.lock();
        if let Some((_, since)) = counts.awaited.take_if(|(version, _)| *version == signed.version) {
            self.rotation_seconds.observe(since.elapsed().as_secs_f64());
        }
        *counts.signatures.entry((signed.version, signed.algorithm)).or_default() += 1;
        if let Some(wanted) = signed.instead_of {
            let from = Some(wanted).filter(|wanted| knows(*wanted));
            *counts.fallbacks.entry((from, signed.version)).or_default() += 1;
        }
    }

    /// Signatures of each version.
    pub(super) fn signatures(&self) -> BTreeMap<KeyVersion, u64> {
        let mut counts = BTreeMap::new();
        for ((version, _), count) in &self.lock().signatures {
            *counts.entry(*version).or_default() += count;
        }
        counts
    }

    pub(super) fn bumped(&self, scope: Scope, done: bool) {
        *self.lock().bumps.entry((scope.name(), result(done))).or_default() += 1;
    }

    pub(super) fn rotation(&self, done: bool) {
        *self.lock().rotations.entry(result(done)).or_default() += 1;
    }

    pub(super) fn moved(&self, done: u64, failed: u64) {
        let mut counts = self.lock();
        counts.moves[0] += done;
        counts.moves[1] += failed;
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        let counts = self.lock();
        let mut samples = vec![
            Sample::spread("sealtide_gw_signature_seconds", "Time to make a signature", &self.signature_seconds),
            Sample::spread(
                "sealtide_gw_rotation_seconds",
                "From the order to the first signature of the new version",
                &self.rotation_seconds,
            ),
        ];
        for ((version, algorithm), count) in &counts.signatures {
            let sample = Sample::counter("sealtide_gw_signatures", "Signatures made", *count);
            samples.push(sample.label("key_version", &version.to_string()).label("alg", algorithm.name()));
        }
        for ((from, to), count) in &counts.fallbacks {
            let sample = Sample::counter("sealtide_gw_key_fallback", "Signatures by a lower version", *count);
            let from = from.map_or_else(|| "other".to_owned(), |from| from.to_string());
            samples.push(sample.label("from", &from).label("to", &to.to_string()));
        }
        for ((scope, result), count) in &counts.bumps {
            let sample = Sample::counter("sealtide_gw_bumps", "Bumps", *count);
            samples.push(sample.label("scope", scope).label("result", result));
        }
        for (count, result) in counts.moves.iter().zip([result(true), result(false)]) {
            let sample = Sample::counter("sealtide_gw_bundle_moves", "Bundles moved to the archive", *count);
            samples.push(sample.label("result", result));
        }
        for (result, count) in &counts.rotations {
            samples.push(Sample::counter("sealtide_gw_rotations", "Rotations", *count).label("result", result));
        }
        samples
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn result(done: bool) -> &'static str {
    if done { "done" } else { "failed" }
}
