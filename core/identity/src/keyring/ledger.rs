//! The ledger: which version is in which state, and who signed that it is. Spec: gateway §7.6.

use std::collections::BTreeMap;

use sealtide_crypto::{Ed25519PublicKey, Label, PublicKey};

use super::keys::kid;
use super::record::{Action, Deadline, LastGood, LedgerRecord, RecordSignature, VERSIONS_MAX};
use super::{Algorithm, KeyVersion, PublicKeyEntry};
use crate::NodeId;

/// What a version may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionState {
    /// Loaded, not used yet.
    Prepared,
    /// Signs. Exactly one version is in this state.
    Active,
    /// Its signatures count, it makes none.
    VerifyOnly,
    /// Its signatures do not count any more.
    Expired,
    /// Somebody else may have its secret.
    Compromised,
    /// Its secret is gone.
    Destroyed,
}

impl VersionState {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Prepared, "prepared"),
        (Self::Active, "active"),
        (Self::VerifyOnly, "verify-only"),
        (Self::Expired, "expired"),
        (Self::Compromised, "compromised"),
        (Self::Destroyed, "destroyed"),
    ];

    /// Its word.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, name)| name)
    }

    /// The state of a word.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, word)| *word == name).map(|(state, _)| *state)
    }
}

/// What holds after a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyStates {
    pub(super) active: KeyVersion,
    pub(super) previous: Option<KeyVersion>,
    pub(super) forced: bool,
    pub(super) states: BTreeMap<KeyVersion, VersionState>,
    pub(super) not_after: BTreeMap<KeyVersion, Deadline>,
    pub(super) keys: Vec<PublicKeyEntry>,
    pub(super) compromised: BTreeMap<KeyVersion, Vec<LastGood>>,
}

/// One change of what holds.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Add(KeyVersion, Vec<PublicKeyEntry>),
    Raise {
        to: KeyVersion,
        forced: bool,
        not_after: Option<Deadline>,
    },
    Back,
    Expire(KeyVersion),
    Compromise(KeyVersion, Vec<LastGood>),
    Destroy(KeyVersion),
    /// A new version signs, whatever became of those before.
    Recover {
        to: KeyVersion,
        keys: Vec<PublicKeyEntry>,
        not_after: Option<Deadline>,
        compromised: BTreeMap<KeyVersion, Vec<LastGood>>,
    },
}

/// A step that the states do not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// A record does not follow the one before: epoch, hash, ledger or node.
    #[error("record {epoch} of the key ledger does not follow the one before")]
    Chain {
        /// Its epoch.
        epoch: u64,
    },
    /// A record says something that its action does not lead to.
    #[error("record {epoch} of the key ledger does not say what its action leads to")]
    States {
        /// Its epoch.
        epoch: u64,
    },
    /// A signature is missing, too many, or does not verify.
    #[error("record {epoch} of the key ledger is not signed as it must be")]
    Signatures {
        /// Its epoch.
        epoch: u64,
    },
    /// There is no record.
    #[error("the key ledger is empty")]
    Empty,
}

/// A ledger whose every record was verified.
#[derive(Clone, Debug)]
pub struct Ledger {
    address: String,
    tip: LedgerRecord,
}

impl Ledger {
    /// Verifies all records, oldest first. `address` is that of the first frame, `node` the key of the node that
    /// keeps the ledger. One that was taken over from a lost node begins with the records of that one, and the first of
    /// the own node is a recovery: it names the newest of them by its hash.
    ///
    /// # Errors
    /// [`LedgerError`] of the first record that breaks a rule.
    // Spec: GW-56
    pub fn open(address: &str, records: &[LedgerRecord], node: &PublicKey) -> Result<Self, LedgerError> {
        let first = records.first().ok_or(LedgerError::Empty)?;
        let own = NodeId::of(node);
        let taken = records.iter().position(|record| record.node == own);
        let taken = taken.ok_or(LedgerError::Chain { epoch: first.epoch })?;
        let (mut ledger, rest) = match taken {
            0 => (Self::first(address, first.clone(), Some(node))?, &records[1..]),
            taken => (Self::of_another(address, &records[..taken])?, &records[taken..]),
        };
        for record in rest {
            ledger = ledger.extend(record.clone(), node)?;
        }
        Ok(ledger)
    }

    /// Verifies the ledger of another node, as far as others can: hashes, states and the pairs that signed. The entries of
    /// the node keys say nothing here.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    // Spec: GW-106
    pub fn of_another(address: &str, records: &[LedgerRecord]) -> Result<Self, LedgerError> {
        let (first, rest) = records.split_first().ok_or(LedgerError::Empty)?;
        let mut ledger = Self::first(address, first.clone(), None)?;
        for record in rest {
            ledger = ledger.follow(record.clone(), None)?;
        }
        Ok(ledger)
    }

    /// Begins with a first record.
    fn first(address: &str, record: LedgerRecord, node: Option<&PublicKey>) -> Result<Self, LedgerError> {
        let epoch = record.epoch;
        let begins = record.ledger.is_none() && epoch == 1 && record.prev.is_none() && record.action == Action::Init;
        if !begins {
            return Err(LedgerError::Chain { epoch });
        }
        let fresh = KeyStates::init(record.state.states.keys().copied(), record.state.keys.clone());
        if fresh.as_ref() != Some(&record.state) || record.auto {
            return Err(LedgerError::States { epoch });
        }
        check_signatures(None, &record, node)?;
        Ok(Self { address: address.to_owned(), tip: record })
    }

    /// Verifies the record that follows. A recovery counts here when the node and the new pair signed it; whether the owner wanted it
    /// is what others ask.
    ///
    /// # Errors
    /// [`LedgerError`]; then this ledger stays as it is.
    pub fn extend(&self, record: LedgerRecord, node: &PublicKey) -> Result<Self, LedgerError> {
        if record.node != NodeId::of(node) {
            return Err(LedgerError::Chain { epoch: record.epoch });
        }
        self.follow(record, Some(node))
    }

    fn follow(&self, record: LedgerRecord, node: Option<&PublicKey>) -> Result<Self, LedgerError> {
        let epoch = record.epoch;
        let follows = record.ledger.as_ref() == Some(&self.address)
            && epoch == self.tip.epoch + 1
            && record.prev == Some(self.tip.hash())
            // Only a recovery hands a ledger to another node.
            && (record.node == self.tip.node || record.action == Action::Recover);
        if !follows {
            return Err(LedgerError::Chain { epoch });
        }
        let may_be_auto = matches!(record.action, Action::Rollback | Action::Rotate | Action::Force | Action::Expire);
        let step = step_of(&self.tip.state, &record).filter(|_| may_be_auto || !record.auto);
        if step.and_then(|step| self.tip.state.step(&step)).as_ref() != Some(&record.state) {
            return Err(LedgerError::States { epoch });
        }
        check_signatures(Some(&self.tip), &record, node)?;
        Ok(Self { address: self.address.clone(), tip: record })
    }

    /// Address of its first frame.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The newest record.
    pub fn tip(&self) -> &LedgerRecord {
        &self.tip
    }

    /// The state of a version as the record says; for a date that came, ask [`Ledger::state_at`].
    pub fn state(&self, version: KeyVersion) -> Option<VersionState> {
        self.tip.state.states.get(&version).copied()
    }

    /// The state of a version now: a version whose date came is expired, whether or not a record says so yet.
    // Spec: GW-55
    pub fn state_at(&self, version: KeyVersion, wall_ms: u64) -> Option<VersionState> {
        let state = self.state(version)?;
        let is_over = self.not_after(version).is_some_and(|date| date.is_over(wall_ms));
        Some(if state == VersionState::VerifyOnly && is_over { VersionState::Expired } else { state })
    }

    /// Until when signatures of a version count, when that is said.
    pub fn not_after(&self, version: KeyVersion) -> Option<Deadline> {
        self.tip.state.not_after.get(&version).copied()
    }

    /// Every version and its state, lowest first.
    pub fn versions(&self) -> impl Iterator<Item = (KeyVersion, VersionState)> {
        self.tip.state.states.iter().map(|(version, state)| (*version, *state))
    }

    /// The public keys of all versions that are not destroyed.
    pub fn keys(&self) -> &[PublicKeyEntry] {
        &self.tip.state.keys
    }
}

impl KeyStates {
    /// The lowest version signs, the others wait.
    pub(super) fn init(versions: impl Iterator<Item = KeyVersion>, keys: Vec<PublicKeyEntry>) -> Option<Self> {
        let mut states: BTreeMap<_, _> = versions.map(|version| (version, VersionState::Prepared)).collect();
        let (active, state) = states.iter_mut().next()?;
        *state = VersionState::Active;
        let active = *active;
        let begin = Self {
            active,
            previous: None,
            forced: false,
            states,
            not_after: BTreeMap::new(),
            keys,
            compromised: BTreeMap::new(),
        };
        begin.keys_fit().then_some(begin)
    }

    /// What holds after a step; `None` when the step is not allowed.
    pub(super) fn step(&self, step: &Step) -> Option<Self> {
        let mut next = self.clone();
        match step {
            Step::Add(version, keys) => {
                let is_new = next.states.insert(*version, VersionState::Prepared).is_none();
                next.keys.extend(keys.iter().cloned());
                next.keys.sort_by_key(|key| (key.version, key.algorithm == Algorithm::Ed25519));
                (is_new && next.states.len() <= VERSIONS_MAX && keys.iter().all(|key| key.version == *version))
                    .then_some(())?;
            }
            Step::Raise { to, forced, not_after } => {
                let usable = matches!(self.states.get(to)?, VersionState::Prepared | VersionState::VerifyOnly);
                (usable && *to > self.active).then_some(())?;
                next.swap_active(*to, *not_after);
                next.forced = *forced;
            }
            Step::Back => {
                let to = self.previous.filter(|to| *to < self.active && !self.forced)?;
                (self.states.get(&to) == Some(&VersionState::VerifyOnly)).then_some(())?;
                next.swap_active(to, None);
            }
            Step::Expire(version) => {
                (self.states.get(version) == Some(&VersionState::VerifyOnly)).then_some(())?;
                next.states.insert(*version, VersionState::Expired);
            }
            Step::Compromise(version, channels) => {
                let state = self.states.get(version)?;
                matches!(state, VersionState::Prepared | VersionState::VerifyOnly).then_some(())?;
                next.states.insert(*version, VersionState::Compromised);
                next.compromised.insert(*version, channels.clone());
            }
            Step::Destroy(version) => {
                let state = self.states.get(version)?;
                matches!(state, VersionState::Expired | VersionState::Compromised).then_some(())?;
                next.states.insert(*version, VersionState::Destroyed);
                next.keys.retain(|key| key.version != *version);
            }
            Step::Recover { to, keys, not_after, compromised } => {
                let is_higher = self.states.keys().next_back().is_some_and(|last| to > last);
                let is_pair = keys.len() == 2 && keys.iter().all(|key| key.version == *to);
                (is_higher && is_pair && self.states.len() < VERSIONS_MAX).then_some(())?;
                // Whoever has the secret that signed may have those that waited.
                next.states
                    .values_mut()
                    .filter(|it| **it == VersionState::Prepared)
                    .for_each(|it| *it = VersionState::Expired);
                next.keys.extend(keys.iter().cloned());
                next.swap_active(*to, *not_after);
                next.forced = true;
                for (version, channels) in compromised {
                    (next.states.get(version) == Some(&VersionState::VerifyOnly)).then_some(())?;
                    next.states.insert(*version, VersionState::Compromised);
                    next.compromised.insert(*version, channels.clone());
                }
            }
        }
        next.keys_fit().then_some(next)
    }

    fn swap_active(&mut self, to: KeyVersion, not_after: Option<Deadline>) {
        let from = self.active;
        self.states.insert(from, VersionState::VerifyOnly);
        self.states.insert(to, VersionState::Active);
        self.not_after.remove(&to);
        self.not_after.extend(not_after.map(|date| (from, date)));
        (self.active, self.previous) = (to, Some(from));
    }

    /// Each version has a whole pair in its order or nothing, no key serves twice, and only versions that are there.
    fn keys_fit(&self) -> bool {
        let whole = self.keys.chunks(2).all(|pair| {
            pair.len() == 2
                && pair[0].version == pair[1].version
                && pair[0].algorithm == Algorithm::MlDsa87
                && pair[1].algorithm == Algorithm::Ed25519
        });
        let ascending = self.keys.chunks(2).map(|pair| pair[0].version).is_sorted_by(|left, right| left < right);
        let known = self.keys.iter().all(|key| self.states.contains_key(&key.version));
        let mut kids: Vec<&str> = self.keys.iter().map(|key| key.kid.as_str()).collect();
        kids.sort_unstable();
        whole && ascending && known && kids.is_sorted_by(|left, right| left < right)
    }

    pub(super) fn pair(&self, version: KeyVersion) -> Vec<&PublicKeyEntry> {
        self.keys.iter().filter(|key| key.version == version).collect()
    }
}

/// The step that a record claims to be, from its action and the first difference to what held.
fn step_of(before: &KeyStates, record: &LedgerRecord) -> Option<Step> {
    let after = &record.state;
    let moved = after.states.iter().find(|(version, state)| before.states.get(version) != Some(state));
    let moved = moved.map(|(version, _)| *version);
    Some(match record.action {
        Action::Init => return None,
        Action::Recover => Step::Recover {
            to: after.active,
            keys: after.keys.iter().filter(|key| key.version == after.active).cloned().collect(),
            not_after: after.not_after.get(&before.active).copied(),
            compromised: after
                .compromised
                .iter()
                .filter(|(version, _)| !before.compromised.contains_key(version))
                .map(|(version, channels)| (*version, channels.clone()))
                .collect(),
        },
        Action::Add => {
            let version = moved?;
            Step::Add(version, after.keys.iter().filter(|key| key.version == version).cloned().collect())
        }
        Action::Rotate | Action::Force => Step::Raise {
            to: after.active,
            forced: record.action == Action::Force,
            not_after: after.not_after.get(&before.active).copied(),
        },
        Action::Rollback => Step::Back,
        Action::Expire => Step::Expire(moved?),
        Action::Retire => match after.compromised.get(&moved?) {
            Some(channels) => Step::Compromise(moved?, channels.clone()),
            None => Step::Expire(moved?),
        },
        Action::Destroy => Step::Destroy(moved?),
    })
}

/// Who must sign a record: the node, where its key is known; the pair before; the pair after where that is another.
fn check_signatures(
    before: Option<&LedgerRecord>,
    record: &LedgerRecord,
    node: Option<&PublicKey>,
) -> Result<(), LedgerError> {
    let failed = LedgerError::Signatures { epoch: record.epoch };
    let (own, pairs) = record.signatures.split_first().ok_or(failed)?;
    let is_by = |node: &PublicKey| {
        own.algorithm == Algorithm::MlDsa87
            && own.kid == kid(node.as_bytes())
            && node.verify(Label::KeysRotate, record.signed_bytes(), &own.signature).is_ok()
    };
    if !node.is_none_or(is_by) {
        return Err(failed);
    }
    let old = before.map(|before| (before.active(), before.state.pair(before.active())));
    let new = record.state.pair(record.active());
    let changed = old.as_ref().is_none_or(|(version, _)| *version != record.active());
    let old = old.map(|(_, pair)| pair).unwrap_or_default();
    let new = if changed { new } else { Vec::new() };
    let may_miss_old = record.action == Action::Recover || record.action == Action::Rollback && record.auto;
    let whole: Vec<&PublicKeyEntry> = old.iter().chain(&new).copied().collect();
    let verifies = |keys: &[&PublicKeyEntry]| {
        keys.len() == pairs.len() && keys.iter().zip(pairs).all(|(key, entry)| verifies(key, record, entry))
    };
    if verifies(&whole) || may_miss_old && verifies(&new) { Ok(()) } else { Err(failed) }
}

/// The key says which algorithm counts, not the entry.
fn verifies(key: &PublicKeyEntry, record: &LedgerRecord, entry: &RecordSignature) -> bool {
    if entry.kid != key.kid || entry.algorithm != key.algorithm {
        return false;
    }
    let (label, content) = (Label::KeysRotate, record.signed_bytes());
    match key.algorithm {
        Algorithm::HmacSha256 => false,
        Algorithm::Ed25519 => Ed25519PublicKey::parse(&key.public_key)
            .is_ok_and(|public| public.verify(label, content, &entry.signature).is_ok()),
        Algorithm::MlDsa87 => PublicKey::parse(&key.public_key)
            .is_ok_and(|public| public.verify(label, content, &entry.signature).is_ok()),
    }
}
