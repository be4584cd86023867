//! Changes of the ledger: proposed here, made durable by the caller, then taken over. Spec: gateway §7.7 to §7.9.

use sealtide_crypto::{Label, Now, SigningKey};

use super::keys::kid;
use super::ledger::Step;
use super::record::{Draft, WORDS_MAX};
use super::{
    Action, Algorithm, Deadline, KeyVersion, Keyring, LastGood, LedgerRecord, Probation, RecordSignature, VersionKeys,
    VersionState, write_time,
};
use crate::NodeId;

/// What somebody wants changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A higher version signs: this one, or the next that is loaded. Signatures of the version before count at least
    /// until `keep_until` (ms), whatever the grace: bundles signed with it may live longer.
    Rotate {
        /// To which version.
        to: Option<KeyVersion>,
        /// Not earlier than this.
        keep_until: Option<u64>,
    },
    /// The version before signs again.
    Rollback,
    /// As rotate, and there is no way back.
    Force {
        /// To which version.
        to: KeyVersion,
    },
    /// A loaded version that the ledger does not know becomes prepared.
    Add(KeyVersion),
    /// A version whose date came, or that is ended by hand.
    Retire(KeyVersion),
    /// A version whose secret somebody else may have.
    Compromise(KeyVersion, Vec<LastGood>),
    /// The secret of an ended version is deleted.
    Destroy(KeyVersion),
}

/// An order, and who gave it.
#[derive(Clone, Debug)]
pub struct ChangeRequest<'a> {
    /// What.
    pub order: Order,
    /// The version that must be active for the order to hold.
    pub expect: Option<KeyVersion>,
    /// Whether no person asked for it: an automatic roll-back, an expiry.
    pub auto: bool,
    /// Who.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
}

/// A signed record that the ledger would take.
#[derive(Clone, Debug)]
pub struct Change {
    /// To be made durable, together with the cached row.
    pub record: LedgerRecord,
    /// The version that signed before.
    pub from: KeyVersion,
    /// The version that signs afterwards.
    pub to: KeyVersion,
}

/// Why an order was not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeRefused {
    /// Another version is active than the order expects, or another change came first.
    #[error("the active version is {active}, epoch {epoch}")]
    Conflict {
        /// The version that is active.
        active: KeyVersion,
        /// The epoch of the ledger.
        epoch: u64,
    },
    /// The state of a version does not allow it.
    #[error("{version} is {}", state.map_or("unknown to the ledger", VersionState::name))]
    State {
        /// Which version.
        version: KeyVersion,
        /// Its state.
        state: Option<VersionState>,
    },
    /// There is nothing to go back to: no version before, or it was left by force.
    #[error("there is no way back from {0}")]
    NoWayBack(KeyVersion),
    /// There is no higher version to go to.
    #[error("no version above {0} is loaded")]
    NothingHigher(KeyVersion),
    /// The secret of the version is not loaded.
    #[error("{0} is not loaded")]
    Unavailable(KeyVersion),
    /// The version failed its self-test.
    #[error("{0} failed its self-test")]
    Probe(KeyVersion),
}

impl Keyring {
    /// Works out and signs the record of an order; `None` when it is so already. Nothing changes yet.
    ///
    /// # Errors
    /// [`ChangeRefused`].
    // Spec: GW-51, GW-54
    pub fn propose(
        &self,
        request: &ChangeRequest<'_>,
        node: &SigningKey,
        now: Now,
    ) -> Result<Option<Change>, ChangeRefused> {
        let active = self.ledger().tip().active();
        if request.expect.is_some_and(|expected| expected != active) {
            return Err(self.conflict());
        }
        let Some((action, step)) = self.plan(&request.order, now)? else { return Ok(None) };
        let states = &self.ledger().tip().state;
        let state = states.step(&step).ok_or_else(|| self.refusal(&request.order))?;
        let to = state.active;
        if to != active {
            self.keys(to).ok_or(ChangeRefused::Unavailable(to))?;
            self.probe(to)?;
        }
        // An automatic roll-back does not ask the key that it does not trust.
        let old = self.keys(active).filter(|_| !(action == Action::Rollback && request.auto));
        let new = self.keys(to).filter(|_| to != active);
        let draft = Draft {
            ledger: Some(self.ledger().address()),
            epoch: self.ledger().tip().epoch + 1,
            prev: Some(self.ledger().tip().hash()),
            action,
            state,
            rotation_timestamp: write_time(now.wall_ms),
            auto: request.auto,
            node: NodeId::of(node.public()),
            by: cut(request.by),
            reason: cut(request.reason),
        };
        let record = LedgerRecord::make(draft, |signed| {
            let pairs = old.into_iter().chain(new).flat_map(|keys| sign(keys, signed));
            std::iter::once(sign_by_node(node, signed)).chain(pairs).collect()
        });
        // A record that this node would not take at its next start is never written.
        match self.ledger().extend(record.clone(), node.public()) {
            Ok(_) => Ok(Some(Change { record, from: active, to })),
            Err(_) => Err(ChangeRefused::Probe(to)),
        }
    }

    /// Takes over a change that is durable. From here on the new version signs.
    ///
    /// # Errors
    /// [`ChangeRefused::Conflict`] when another change came first; then nothing changed.
    pub fn apply(&mut self, change: Change, node: &SigningKey, now: Now) -> Result<(), ChangeRefused> {
        let ledger = self.ledger().extend(change.record, node.public()).map_err(|_| self.conflict())?;
        if change.to > change.from {
            self.watch(Probation::begin(change.to, self.policy(), now.mono_ms));
        } else if change.to < change.from {
            self.watch(None);
        }
        self.take_over(ledger);
        Ok(())
    }

    /// Versions whose date came and that no record calls expired yet.
    pub fn due(&self, wall_ms: u64) -> Vec<KeyVersion> {
        let came = |(version, state): &(KeyVersion, VersionState)| {
            *state == VersionState::VerifyOnly
                && self.ledger().state_at(*version, wall_ms) == Some(VersionState::Expired)
        };
        self.ledger().versions().filter(came).map(|(version, _)| version).collect()
    }

    /// Loaded versions that the ledger does not know.
    pub fn unknown(&self) -> Vec<KeyVersion> {
        self.loaded().filter(|version| self.ledger().state(*version).is_none()).collect()
    }

    fn plan(&self, order: &Order, now: Now) -> Result<Option<(Action, Step)>, ChangeRefused> {
        let active = self.ledger().tip().active();
        let until = |keep: Option<u64>| {
            let grace = now.wall_ms.saturating_add(self.policy().grace_ms);
            Some(Deadline::At(keep.map_or(grace, |keep| keep.max(grace))))
        };
        Ok(Some(match order {
            Order::Rotate { to, keep_until } => {
                let to = to.or_else(|| self.next_higher()).ok_or(ChangeRefused::NothingHigher(active))?;
                if to == active {
                    return Ok(None);
                }
                (Action::Rotate, Step::Raise { to, forced: false, not_after: until(*keep_until) })
            }
            Order::Force { to } if *to == active && self.ledger().tip().forced() => return Ok(None),
            Order::Force { to } => (Action::Force, Step::Raise { to: *to, forced: true, not_after: until(None) }),
            Order::Rollback => {
                let to = self.ledger().tip().previous().filter(|to| *to < active);
                let to = to.filter(|_| !self.ledger().tip().forced()).ok_or(ChangeRefused::NoWayBack(active))?;
                let state = self.ledger().state_at(to, now.wall_ms);
                if state != Some(VersionState::VerifyOnly) {
                    return Err(ChangeRefused::State { version: to, state });
                }
                (Action::Rollback, Step::Back)
            }
            Order::Add(version) => {
                let keys = self.keys(*version).ok_or(ChangeRefused::Unavailable(*version))?;
                (Action::Add, Step::Add(*version, keys.public_keys()))
            }
            Order::Retire(version) => {
                let came = self.due(now.wall_ms).contains(version);
                (if came { Action::Expire } else { Action::Retire }, Step::Expire(*version))
            }
            Order::Compromise(version, channels) => (Action::Retire, Step::Compromise(*version, channels.clone())),
            Order::Destroy(version) => (Action::Destroy, Step::Destroy(*version)),
        }))
    }

    fn next_higher(&self) -> Option<KeyVersion> {
        let active = self.ledger().tip().active();
        let usable = |version: &KeyVersion| {
            matches!(self.ledger().state(*version), Some(VersionState::Prepared | VersionState::VerifyOnly))
        };
        self.loaded().filter(|version| *version > active).find(usable)
    }

    fn probe(&self, version: KeyVersion) -> Result<(), ChangeRefused> {
        let keys = self.keys(version).ok_or(ChangeRefused::Unavailable(version))?;
        if keys.probe(self.ledger().keys()) { Ok(()) } else { Err(ChangeRefused::Probe(version)) }
    }

    fn refusal(&self, order: &Order) -> ChangeRefused {
        let version = match order {
            Order::Rotate { to: Some(version), .. } | Order::Force { to: version } => *version,
            Order::Add(version) | Order::Retire(version) | Order::Destroy(version) => *version,
            Order::Compromise(version, _) => *version,
            Order::Rotate { to: None, .. } | Order::Rollback => self.ledger().tip().active(),
        };
        ChangeRefused::State { version, state: self.ledger().state(version) }
    }

    fn conflict(&self) -> ChangeRefused {
        ChangeRefused::Conflict { active: self.ledger().tip().active(), epoch: self.ledger().tip().epoch }
    }
}

pub(super) fn sign_by_node(node: &SigningKey, signed: &str) -> RecordSignature {
    let signature = node.sign(Label::KeysRotate, signed.as_bytes());
    RecordSignature {
        kid: kid(node.public().as_bytes()),
        algorithm: Algorithm::MlDsa87,
        signature: signature.as_bytes().to_vec(),
    }
}

pub(super) fn sign(keys: &VersionKeys, signed: &str) -> Vec<RecordSignature> {
    keys.pair().map(|pair| pair.sign(Label::KeysRotate, signed.as_bytes())).unwrap_or_default()
}

/// What a record has room for.
pub(super) fn cut(words: &str) -> &str {
    words.char_indices().nth(WORDS_MAX).map_or(words, |(at, _)| &words[..at])
}
