//! What is counted behind the door. Spec: gateway §11.1.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sealtide_gateway::Sample;
use sealtide_identity::keyring::{Algorithm, KeyVersion, Signed};
use sealtide_releases::Scope;

/// Counters. Labels come from fixed sets: versions of the ledger, algorithms, scopes.
#[derive(Default)]
pub(super) struct Figures(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    signatures: BTreeMap<(KeyVersion, Algorithm), u64>,
    fallbacks: BTreeMap<(KeyVersion, KeyVersion), u64>,
    bumps: BTreeMap<(&'static str, &'static str), u64>,
    rotations: BTreeMap<&'static str, u64>,
}

impl Figures {
    pub(super) fn signed(&self, signed: &Signed) {
        let mut counts = self.lock();
        *counts.signatures.entry((signed.version, signed.algorithm)).or_default() += 1;
        if let Some(wanted) = signed.instead_of {
            *counts.fallbacks.entry((wanted, signed.version)).or_default() += 1;
        }
    }

    pub(super) fn bumped(&self, scope: Scope, done: bool) {
        *self.lock().bumps.entry((scope.name(), result(done))).or_default() += 1;
    }

    pub(super) fn rotation(&self, done: bool) {
        *self.lock().rotations.entry(result(done)).or_default() += 1;
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        let counts = self.lock();
        let mut samples = Vec::new();
        for ((version, algorithm), count) in &counts.signatures {
            let sample = Sample::counter("sealtide_gw_signatures", "Signatures made", *count);
            samples.push(sample.label("key_version", &version.to_string()).label("alg", algorithm.name()));
        }
        for ((from, to), count) in &counts.fallbacks {
            let sample = Sample::counter("sealtide_gw_key_fallback", "Signatures by a lower version", *count);
            samples.push(sample.label("from", &from.to_string()).label("to", &to.to_string()));
        }
        for ((scope, result), count) in &counts.bumps {
            let sample = Sample::counter("sealtide_gw_bumps", "Bumps", *count);
            samples.push(sample.label("scope", scope).label("result", result));
        }
        for (result, count) in &counts.rotations {
            samples.push(Sample::counter("sealtide_gw_rotations", "Rotations", *count).label("result", result));
        }
        samples
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn result(done: bool) -> &'static str {
    if done { "done" } else { "failed" }
}
