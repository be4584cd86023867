//! Which version signs. Spec: gateway §7.5.

use super::{KeyVersion, Keyring, VersionState};

/// What the operator decided about keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPolicy {
    /// Whether a lower version may sign when the wanted one cannot.
    pub fallback: Fallback,
    /// How long signatures of a version count after another took its place, in milliseconds.
    pub grace_ms: u64,
    /// How long a new version is watched, in milliseconds.
    pub probation_ms: u64,
    /// How many of its first signatures are checked.
    pub probation_signatures: u32,
}

impl Default for KeyPolicy {
    fn default() -> Self {
        Self { fallback: Fallback::Never, grace_ms: 30 * 86_400_000, probation_ms: 60_000, probation_signatures: 16 }
    }
}

/// Whether a lower version may sign when the wanted one cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// No: the request is refused.
    Never,
    /// Yes, labelled in the answer and in the audit.
    Audited,
}

/// The version that signs, and what has to be said about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// It signs, and its name stands in the answer.
    pub used: KeyVersion,
    /// The version that should have signed, when this one is a fallback.
    pub instead_of: Option<KeyVersion>,
}

/// No version can sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} cannot sign: {reason}")]
pub struct ChoiceRefused {
    /// Which should have.
    pub wanted: KeyVersion,
    /// Why it cannot.
    pub reason: &'static str,
}

impl Keyring {
    /// The version that signs for a caller who asked for `requested`: never lower than the ledger's. `may_fall_back`
    /// is true for bump answers over REST and tes-ui-v1 only.
    ///
    /// # Errors
    /// [`ChoiceRefused`] when it cannot sign and no fallback is allowed.
    // Spec: GW-49, GW-50
    pub fn choose(
        &self,
        requested: Option<KeyVersion>,
        may_fall_back: bool,
        wall_ms: u64,
    ) -> Result<Choice, ChoiceRefused> {
        let wanted = requested.unwrap_or(KeyVersion::V1).max(self.ledger().tip().active());
        let refused = |reason| ChoiceRefused { wanted, reason };
        let reason = match (self.keys(wanted).is_some(), self.ledger().state(wanted)) {
            (true, Some(VersionState::Active | VersionState::Prepared)) => {
                return Ok(Choice { used: wanted, instead_of: None });
            }
            (false, _) | (_, None) => "it is not loaded",
            (true, Some(state)) => match state {
                VersionState::VerifyOnly => "it only verifies",
                VersionState::Expired => "it is expired",
                VersionState::Compromised => "it was given up",
                _ => "it was destroyed",
            },
        };
        let falls = self.policy().fallback == Fallback::Audited && may_fall_back && !self.ledger().tip().forced();
        let usable = |version: &KeyVersion| {
            let state = self.ledger().state_at(*version, wall_ms);
            matches!(state, Some(VersionState::Active | VersionState::VerifyOnly)) && self.keys(*version).is_some()
        };
        let lower = self.ledger().versions().map(|(version, _)| version).filter(|version| *version < wanted);
        match lower.filter(usable).last().filter(|_| falls) {
            Some(used) => Ok(Choice { used, instead_of: Some(wanted) }),
            None => Err(refused(reason)),
        }
    }
}
