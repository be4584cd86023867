//! A pair that was lost or stolen is replaced: a record that the pair before does not sign. Spec: gateway §7.6, §9.7; releases.md §4.
//!
//! The node and the new pair sign it. Others follow it where a frame of the owner's keystone names it
//! ([`crate::keystone::manage_keyring`]).

use std::collections::BTreeMap;

use sealtide_crypto::SigningKey;

use super::change::{cut, sign, sign_by_node};
use super::ledger::Step;
use super::record::Draft;
use super::{Action, Deadline, KeyVersion, LastGood, Ledger, LedgerRecord, VersionKeys, VersionState, write_time};
use crate::NodeId;

/// A replacement of the pair that signs.
#[derive(Debug)]
pub struct KeyringRecovery<'a> {
    /// The keys from now on, of a version above all that the ledger knows.
    pub keys: &'a VersionKeys,
    /// Until when signatures of the version that signed before count, ms; where it is not among `compromised`.
    pub not_after: u64,
    /// The versions whose secret somebody else may have, with the last good manifest of each channel.
    pub compromised: BTreeMap<KeyVersion, Vec<LastGood>>,
    /// Who.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
}

/// Why a pair is not replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryRefused {
    /// The new version is not above the others, or has no pair.
    #[error("{0} cannot take the place of the version that signs")]
    Version(KeyVersion),
    /// A version that cannot be given up.
    #[error("{version} is {}", state.map_or("unknown to the ledger", VersionState::name))]
    State {
        /// Which.
        version: KeyVersion,
        /// Its state.
        state: Option<VersionState>,
    },
}

impl Ledger {
    /// The version that a recovery makes: the one above all others.
    pub fn next_version(&self) -> Option<KeyVersion> {
        KeyVersion::new(self.versions().last()?.0.number().checked_add(1)?)
    }

    /// The signed record of a recovery. Nothing changes yet.
    ///
    /// # Errors
    /// [`RecoveryRefused`].
    // Spec: GW-106
    pub fn recover(
        &self,
        recovery: &KeyringRecovery<'_>,
        node: &SigningKey,
        wall_ms: u64,
    ) -> Result<LedgerRecord, RecoveryRefused> {
        let (tip, to) = (self.tip(), recovery.keys.version());
        for version in recovery.compromised.keys() {
            let state = self.state(*version);
            if !matches!(state, Some(VersionState::Active | VersionState::VerifyOnly)) {
                return Err(RecoveryRefused::State { version: *version, state });
            }
        }
        let step = Step::Recover {
            to,
            keys: recovery.keys.public_keys(),
            not_after: Some(Deadline::At(recovery.not_after)),
            compromised: recovery.compromised.clone(),
        };
        let state = tip.state.step(&step).ok_or(RecoveryRefused::Version(to))?;
        let draft = Draft {
            ledger: Some(self.address()),
            epoch: tip.epoch + 1,
            prev: Some(tip.hash()),
            action: Action::Recover,
            state,
            rotation_timestamp: write_time(wall_ms),
            auto: false,
            node: NodeId::of(node.public()),
            by: cut(recovery.by),
            reason: cut(recovery.reason),
        };
        let record = LedgerRecord::make(draft, |signed| {
            std::iter::once(sign_by_node(node, signed)).chain(sign(recovery.keys, signed)).collect()
        });
        // A record that this node would not take at its next start is never written.
        self.extend(record.clone(), node.public()).map_err(|_| RecoveryRefused::Version(to))?;
        Ok(record)
    }
}
