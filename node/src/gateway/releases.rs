//! The keys of the gateway sign releases: manifests and heads by the active pair, and the ledger that says so.

use sealtide_identity::keyring::{KeyVersion, LedgerRecord, VersionState};
use sealtide_releases::EntityVersion;
use sealtide_releases::bundle::{Content, Signed};

use super::Desk;
use crate::failure::{Exit, Failure};

impl Desk {
    /// Signs by the active pair what `make` makes of its version and of the epoch.
    ///
    /// # Errors
    /// Exit 6 when the active version has no pair.
    // Spec: GW-102
    pub fn sign_release<T: Content>(&self, make: impl FnOnce(KeyVersion, u64) -> T) -> Result<Signed<T>, Failure> {
        let state = self.read();
        let tip = state.ring.ledger().tip();
        let pair = state.ring.keys(tip.active()).and_then(sealtide_identity::keyring::VersionKeys::pair);
        let pair = pair.ok_or_else(|| {
            let text = format!("the secret of {} has no key pair, and nothing else signs releases", tip.active());
            Failure::new(Exit::Refused, "key_unavailable", text)
                .hint("a secret of 64 lower-case hex digits has one; `sealtide keys new`, then `sealtide keys rotate`")
        })?;
        Ok(Signed::sign(make(tip.active(), tip.epoch), pair))
    }

    /// The epoch of the key ledger.
    pub fn epoch(&self) -> u64 {
        self.read().ring.ledger().tip().epoch
    }

    /// Versions that signed before the one that does now. Of one that a roll-back left, the bundles go to the archive too.
    pub fn replaced(&self) -> Vec<KeyVersion> {
        let state = self.read();
        let ledger = state.ring.ledger();
        let is_replaced = |state: VersionState| !matches!(state, VersionState::Active | VersionState::Prepared);
        ledger.versions().filter(|(_, state)| is_replaced(*state)).map(|(version, _)| version).collect()
    }

    /// Every record of the key ledger, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn ledger_records(&self) -> Result<Vec<LedgerRecord>, Failure> {
        let damaged = |error: sealtide_identity::keyring::RecordError| {
            Failure::new(Exit::Verification, "key_ledger", error.to_string())
        };
        self.records(0, usize::MAX)?.iter().map(|value| LedgerRecord::parse(value).map_err(damaged)).collect()
    }

    /// The version and revision of the registry: what a release is called when nobody names a version.
    pub fn app_version(&self) -> (Option<EntityVersion>, u64) {
        let registry = self.read().registry.clone();
        let version =
            registry.entity("global:main").and_then(|entity| EntityVersion::parse(entity.current_version()).ok());
        (version, registry.revision())
    }
}
