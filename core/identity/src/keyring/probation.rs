//! A new version is watched: its first signatures are checked, and one that fails takes the change back.
//! Spec: gateway §7.8.

use super::{KeyPolicy, KeyVersion};

/// What is left to be seen of a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probation {
    version: KeyVersion,
    until_mono_ms: u64,
    left: u32,
}

/// What one checked signature means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbationVerdict {
    /// Nothing: no new version, or another one made the signature.
    Nothing,
    /// One more that is good.
    Good,
    /// The last one that had to be seen.
    Passed,
    /// It does not verify: go back to the version before.
    RollBack,
}

impl Probation {
    pub(super) fn begin(version: KeyVersion, policy: &KeyPolicy, mono_ms: u64) -> Option<Self> {
        let until_mono_ms = mono_ms.saturating_add(policy.probation_ms);
        (policy.probation_signatures > 0).then_some(Self { version, until_mono_ms, left: policy.probation_signatures })
    }

    /// Whether signatures of `version` made now have to be checked.
    pub fn watches(&self, version: KeyVersion, mono_ms: u64) -> bool {
        self.version == version && mono_ms < self.until_mono_ms && self.left > 0
    }

    pub(super) fn observe(&mut self, version: KeyVersion, verified: bool, mono_ms: u64) -> ProbationVerdict {
        if !self.watches(version, mono_ms) {
            return ProbationVerdict::Nothing;
        }
        if !verified {
            self.left = 0;
            return ProbationVerdict::RollBack;
        }
        self.left -= 1;
        if self.left == 0 { ProbationVerdict::Passed } else { ProbationVerdict::Good }
    }
}
