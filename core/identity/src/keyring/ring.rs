//! The keys and their ledger together: what signs, what verifies. Spec: gateway §7.5 to §7.8.

use std::collections::BTreeMap;

use sealtide_crypto::{Ed25519PublicKey, GatewayContext, Now, PublicKey, SigningKey};

use super::change::{sign, sign_by_node};
use super::ledger::KeyStates;
use super::record::Draft;
use super::{
    Action, Algorithm, ChoiceRefused, KeyPolicy, KeySecret, KeySource, KeyVersion, Ledger, LedgerError, LedgerRecord,
    LoadedKeys, Probation, ProbationVerdict, VersionKeys, VersionState, decode_signature, write_time,
};
use crate::NodeId;

/// The keys of a node's gateway and their ledger.
#[derive(Debug)]
pub struct Keyring {
    keys: BTreeMap<KeyVersion, (VersionKeys, KeySource)>,
    ledger: Ledger,
    policy: KeyPolicy,
    probation: Option<Probation>,
}

/// The cached row of a store: what the newest record says, for readers that know no ledger. Spec: gateway §7.6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    /// Bare digits.
    pub key_version: String,
    /// ISO 8601.
    pub rotation_timestamp: String,
    /// `v2`, with the letter; none before the first signature.
    pub last_sig_version: Option<String>,
    /// Epoch of the newest record.
    pub epoch: u64,
    /// Address of the newest frame.
    pub tip: String,
}

/// Why the keyring does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// The ledger is damaged.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// The row does not say what the newest record says.
    #[error("the cached row of the key ledger does not say what its newest record says")]
    Row,
    /// The key file has seen a later epoch: the ledger was cut or replaced by an old copy.
    #[error("the key ledger ends at epoch {found}, but the key file has seen epoch {seen}")]
    Shortened {
        /// Of the newest record.
        found: u64,
        /// In the key file.
        seen: u64,
    },
    /// The active version's secret is not there.
    #[error("{0} signs by the key ledger, but its secret is not loaded")]
    ActiveMissing(KeyVersion),
    /// A secret belongs to other public keys than the ledger names.
    #[error("the secret of {0} is not the one that the key ledger knows")]
    OtherSecret(KeyVersion),
    /// There is no key to begin with.
    #[error("no signing key is loaded")]
    NoKey,
}

/// A signature as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// 64 hex digits, or base64.
    pub text: String,
    /// The version that really signed.
    pub version: KeyVersion,
    /// The version that should have, when this is a fallback.
    pub instead_of: Option<KeyVersion>,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The name of the key.
    pub kid: String,
}

/// Why nothing was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// No key can.
    #[error("{0}")]
    Key(#[from] ChoiceRefused),
    /// Ed25519 was asked for, and v1 would sign; or ML-DSA-87, which signs no answers.
    #[error("{} is not to be had from {}", algorithm.name(), version)]
    Algorithm {
        /// Which would have signed.
        version: KeyVersion,
        /// What was asked for.
        algorithm: Algorithm,
    },
}

/// What a verification found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the signature counts.
    pub valid: bool,
    /// The state of the version; none when the ledger does not know it.
    pub state: Option<VersionState>,
}

impl Keyring {
    /// The first record of a new ledger: the lowest version signs, the others are prepared. The caller puts it into
    /// the first frame of a timeline, whose address it then gives to [`Keyring::open`].
    ///
    /// # Errors
    /// [`KeyringError::NoKey`].
    pub fn first_record(
        loaded: &LoadedKeys,
        node: &SigningKey,
        by: &str,
        now: Now,
    ) -> Result<LedgerRecord, KeyringError> {
        let public = loaded.keys.values().flat_map(|(keys, _)| keys.public_keys()).collect();
        let state = KeyStates::init(loaded.keys.keys().copied(), public).ok_or(KeyringError::NoKey)?;
        let (active, _) = &loaded.keys[&state.active];
        let draft = Draft {
            ledger: None,
            epoch: 1,
            prev: None,
            action: Action::Init,
            state,
            rotation_timestamp: write_time(now.wall_ms),
            auto: false,
            node: NodeId::of(node.public()),
            by,
            reason: "",
        };
        Ok(LedgerRecord::make(draft, |signed| {
            std::iter::once(sign_by_node(node, signed)).chain(sign(active, signed)).collect()
        }))
    }

    /// Puts keys and ledger together. `row` is the cached row of the store, `epoch_seen` the greatest epoch in the
    /// key file.
    ///
    /// # Errors
    /// [`KeyringError`]; then the gateway does not start, and nothing is reset.
    // Spec: GW-56
    pub fn open(
        loaded: LoadedKeys,
        address: &str,
        records: &[LedgerRecord],
        row: &LedgerRow,
        epoch_seen: u64,
        node: &PublicKey,
        policy: KeyPolicy,
    ) -> Result<Self, KeyringError> {
        let ledger = Ledger::open(address, records, node)?;
        let tip = ledger.tip();
        if tip.epoch < epoch_seen {
            return Err(KeyringError::Shortened { found: tip.epoch, seen: epoch_seen });
        }
        let told = (row.epoch, row.key_version.as_str(), row.rotation_timestamp.as_str());
        if told != (tip.epoch, tip.active().digits().as_str(), tip.rotation_timestamp.as_str()) {
            return Err(KeyringError::Row);
        }
        let active = tip.active();
        for (version, (keys, _)) in &loaded.keys {
            let known = ledger.state(*version).is_some_and(|state| state != VersionState::Destroyed);
            let same = keys.public_keys().iter().eq(ledger.keys().iter().filter(|key| key.version == *version));
            if known && !same {
                return Err(KeyringError::OtherSecret(*version));
            }
        }
        if !loaded.keys.contains_key(&active) {
            return Err(KeyringError::ActiveMissing(active));
        }
        Ok(Self { keys: loaded.keys, ledger, policy, probation: None })
    }

    /// Signs an answer: HMAC or Ed25519 by the version that [`Keyring::choose`] names.
    ///
    /// # Errors
    /// [`SignError`]; nothing unsigned is ever sent instead.
    // Spec: GW-49
    pub fn sign(
        &self,
        payload: &[u8],
        context: GatewayContext,
        algorithm: Algorithm,
        requested: Option<KeyVersion>,
        may_fall_back: bool,
        wall_ms: u64,
    ) -> Result<Signed, SignError> {
        let choice = self.choose(requested, may_fall_back, wall_ms)?;
        let refused = SignError::Algorithm { version: choice.used, algorithm };
        let (keys, _) = self.keys.get(&choice.used).ok_or(refused)?;
        let (text, kid) = match algorithm {
            Algorithm::HmacSha256 => (keys.hmac(payload), keys.hmac_kid()),
            Algorithm::Ed25519 if choice.used > KeyVersion::V1 => {
                let kid = keys.public_keys().pop().ok_or(refused)?.kid;
                (keys.ed25519(context, payload).ok_or(refused)?, kid)
            }
            Algorithm::Ed25519 | Algorithm::MlDsa87 => return Err(refused),
        };
        Ok(Signed { text, version: choice.used, instead_of: choice.instead_of, algorithm, kid })
    }

    /// Signs the registry: Ed25519 of the active version; `None` when it has no pair. Spec: gateway §8.1.
    pub fn sign_registry(&self, payload: &[u8]) -> Option<Signed> {
        let version = self.ledger.tip().active();
        let (keys, _) = self.keys.get(&version)?;
        let kid = keys.public_keys().pop()?.kid;
        let text = keys.ed25519(GatewayContext::Registry, payload)?;
        Some(Signed { text, version, instead_of: None, algorithm: Algorithm::Ed25519, kid })
    }

    /// Whether a signature counts now. HMAC needs the secret; Ed25519 is checked with the key of the ledger.
    // Spec: GW-55
    pub fn verify(
        &self,
        payload: &[u8],
        context: GatewayContext,
        algorithm: Algorithm,
        version: KeyVersion,
        text: &str,
        wall_ms: u64,
    ) -> Verdict {
        let state = self.ledger.state_at(version, wall_ms);
        let counts = matches!(state, Some(VersionState::Active | VersionState::Prepared | VersionState::VerifyOnly));
        let holds = || match algorithm {
            Algorithm::HmacSha256 => self.keys.get(&version).is_some_and(|(keys, _)| keys.hmac_verifies(payload, text)),
            Algorithm::Ed25519 => self.ed25519_verifies(payload, context, version, text),
            Algorithm::MlDsa87 => false,
        };
        Verdict { valid: counts && holds(), state }
    }

    fn ed25519_verifies(&self, payload: &[u8], context: GatewayContext, version: KeyVersion, text: &str) -> bool {
        let of_version = |key: &&super::PublicKeyEntry| key.version == version && key.algorithm == Algorithm::Ed25519;
        let key = self.ledger.keys().iter().find(of_version);
        let key = key.and_then(|key| Ed25519PublicKey::parse(&key.public_key).ok());
        let signature = decode_signature(Algorithm::Ed25519, text);
        key.zip(signature).is_some_and(|(key, signature)| key.verify_alone(context, payload, &signature).is_ok())
    }

    /// Tells that a live signature was checked.
    // Spec: GW-54
    pub fn observe(&mut self, signed: &Signed, verified: bool, now: Now) -> ProbationVerdict {
        match &mut self.probation {
            Some(probation) => probation.observe(signed.version, verified, now.mono_ms),
            None => ProbationVerdict::Nothing,
        }
    }

    /// Whether a signature has to be checked and told to [`Keyring::observe`].
    pub fn watches(&self, signed: &Signed, now: Now) -> bool {
        self.probation.is_some_and(|probation| probation.watches(signed.version, now.mono_ms))
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The policy.
    pub fn policy(&self) -> &KeyPolicy {
        &self.policy
    }

    /// The keys of a version, when its secret is loaded.
    pub fn keys(&self, version: KeyVersion) -> Option<&VersionKeys> {
        self.keys.get(&version).map(|(keys, _)| keys)
    }

    /// Where the secret of a version came from.
    pub fn source(&self, version: KeyVersion) -> Option<KeySource> {
        self.keys.get(&version).map(|(_, source)| *source)
    }

    /// Versions whose secret is loaded, lowest first.
    pub fn loaded(&self) -> impl Iterator<Item = KeyVersion> {
        self.keys.keys().copied()
    }

    /// The row that goes with the newest record, in the frame at `tip`.
    pub fn row(&self, tip: &str, last_sig_version: Option<KeyVersion>) -> LedgerRow {
        LedgerRow::of(self.ledger.tip(), tip, last_sig_version)
    }

    /// Takes in the keys of a version that was made while the gateway runs; the ledger does not know it yet.
    ///
    /// # Errors
    /// [`KeyringError::OtherSecret`] for a version that has keys already, or that the ledger knows.
    pub fn take_in(&mut self, version: KeyVersion, secret: KeySecret) -> Result<(), KeyringError> {
        let keys = VersionKeys::derive(version, secret);
        let is_twin = self.keys.values().any(|(other, _)| other.secret().is(keys.secret()));
        if is_twin || self.keys.contains_key(&version) || self.ledger.state(version).is_some() {
            return Err(KeyringError::OtherSecret(version));
        }
        self.keys.insert(version, (keys, KeySource::Stored));
        Ok(())
    }

    /// Takes a version out again that [`Keyring::take_in`] brought and that the ledger did not get to know, or that was
    /// destroyed.
    pub fn forget(&mut self, version: KeyVersion) {
        if matches!(self.ledger.state(version), None | Some(VersionState::Destroyed)) {
            self.keys.remove(&version);
        }
    }

    /// Goes on from a recovery that is durable: its version signs from here on, with this secret.
    ///
    /// # Errors
    /// [`KeyringError::Ledger`] for a record that does not come after the newest; then nothing changed.
    // Spec: GW-106
    pub fn recovered(
        &mut self,
        record: LedgerRecord,
        secret: KeySecret,
        node: &SigningKey,
    ) -> Result<(), KeyringError> {
        let version = record.active();
        self.ledger = self.ledger.extend(record, node.public())?;
        self.keys.insert(version, (VersionKeys::derive(version, secret), KeySource::Stored));
        self.probation = None;
        Ok(())
    }

    pub(super) fn take_over(&mut self, ledger: Ledger) {
        self.ledger = ledger;
    }

    pub(super) fn watch(&mut self, probation: Option<Probation>) {
        self.probation = probation;
    }
}

impl LedgerRow {
    /// The row that goes with a record.
    pub fn of(record: &LedgerRecord, tip: &str, last_sig_version: Option<KeyVersion>) -> Self {
        Self {
            key_version: record.active().digits(),
            rotation_timestamp: record.rotation_timestamp.clone(),
            last_sig_version: last_sig_version.map(|version| version.to_string()),
            epoch: record.epoch,
            tip: tip.to_owned(),
        }
    }
}
