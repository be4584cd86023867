//! The registry of another node behind the own door: shown as the shared space holds it, with the keys that its writer's ledger names.
//! Nothing here signs.

use sealtide_crypto::Ed25519PublicKey;
use sealtide_gateway::{Code, KeyChange, KeyDesk, KeyFacts, KeyList, KeyOrder, ListedVersion, Question};
use sealtide_identity::keyring::{
    Algorithm, Deadline, KeyVersion, PublicKeyEntry, Verdict, VersionState, decode_signature,
};

use crate::gateway::{SharedState, end_ms};
use crate::node::Node;
use crate::real::now;

/// The keys of whoever writes the registry that this node follows.
pub(crate) struct Followed(pub(crate) Node);

impl Followed {
    /// What the writer's keys say about the rungs.
    pub(crate) fn facts(state: &SharedState) -> KeyFacts {
        let Some(known) = &state.ledger else { return KeyFacts { ledger: 1, loaded: 1, v1_counts: true } };
        let (ledger, tip) = (&known.ledger, known.ledger.tip());
        let usable = |state: VersionState| {
            matches!(state, VersionState::Active | VersionState::Prepared | VersionState::VerifyOnly)
        };
        let loaded = ledger.versions().filter(|(_, state)| usable(*state)).map(|(version, _)| version.number()).max();
        let v1 = ledger.state_at(KeyVersion::V1, now().wall_ms);
        KeyFacts {
            ledger: tip.active().number(),
            loaded: loaded.unwrap_or(0),
            v1_counts: matches!(v1, Some(VersionState::Active | VersionState::VerifyOnly)) && !tip.forced(),
        }
    }

    /// The active version of the writer, its epoch, and what signed the registry.
    pub(crate) fn status(state: &SharedState) -> (KeyVersion, u64, Option<KeyVersion>) {
        let (active, epoch) = state
            .ledger
            .as_ref()
            .map_or((state.signed_by, 0), |known| (known.ledger.tip().active(), known.ledger.tip().epoch));
        (active, epoch, Some(state.signed_by))
    }
}

impl KeyDesk for Followed {
    fn list(&self) -> KeyList {
        let state = self.0.followed();
        let Some(known) = state.and_then(|state| state.ledger) else {
            return KeyList { active: KeyVersion::V1, epoch: 0, versions: Vec::new() };
        };
        let ledger = &known.ledger;
        let listed = |version: KeyVersion| {
            let state = ledger.state_at(version, now().wall_ms)?;
            let counts = matches!(state, VersionState::Active | VersionState::Prepared | VersionState::VerifyOnly);
            let keys: Vec<PublicKeyEntry> =
                ledger.keys().iter().filter(|key| key.version == version).cloned().collect();
            let not_after = ledger.not_after(version).map(|date: Deadline| end_ms(date));
            counts.then_some(ListedVersion { version, state, not_after, keys, hmac_kid: None })
        };
        KeyList {
            active: ledger.tip().active(),
            epoch: ledger.tip().epoch,
            versions: ledger.versions().filter_map(|(version, _)| listed(version)).collect(),
        }
    }

    /// Only what a public key verifies: the secret of an HMAC is the writer's.
    fn verify(&self, question: &Question<'_>) -> Verdict {
        let state = self.0.followed().and_then(|state| state.ledger);
        let Some(known) = state else { return Verdict { valid: false, state: None } };
        let state = known.ledger.state_at(question.version, now().wall_ms);
        let counts = matches!(state, Some(VersionState::Active | VersionState::Prepared | VersionState::VerifyOnly));
        let of_version = |key: &&PublicKeyEntry| key.version == question.version && key.algorithm == Algorithm::Ed25519;
        let key =
            known.ledger.keys().iter().find(of_version).and_then(|key| Ed25519PublicKey::parse(&key.public_key).ok());
        let signature = decode_signature(question.algorithm, question.signature);
        let is_one = question.algorithm == Algorithm::Ed25519;
        let valid = key.zip(signature).is_some_and(|(key, signature)| {
            is_one && counts && key.verify_alone(question.context, question.payload, &signature).is_ok()
        });
        Verdict { valid, state }
    }

    fn change(&self, _order: &KeyOrder) -> Result<KeyChange, Code> {
        // The keys that this door shows are another's.
        Err(Code::StateConflict)
    }

    fn ledger(&self, since: u64, limit: usize) -> Result<Vec<String>, Code> {
        let known = self.0.followed().and_then(|state| state.ledger).ok_or(Code::StorageError)?;
        let after = known.records.iter().filter(|record| record.epoch > since).take(limit);
        Ok(after.map(|record| record.to_value().to_string()).collect())
    }

    fn audit(&self, since: u64, limit: usize) -> Result<Vec<String>, Code> {
        crate::audit::since(self.0.audit().dir(), since, limit).map_err(|_| Code::StorageError)
    }
}
