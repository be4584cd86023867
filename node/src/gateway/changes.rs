//! Changes of keys: ordered by whoever may, durable, told once. Spec: gateway §7.7 to §7.10.
//!
//! ```text
//! propose (self-test, sign) ─▶ frame of the ledger ─▶ epoch in the key file ─▶ the new version signs ─▶ audit ─▶ told
//!                              from here on it holds     a crash here: the next start goes on from the frame
//! ```
//!
//! The frame is the outbox: at start every record that the audit does not name yet is told to it, once.

use std::collections::BTreeMap;
use std::time::Instant;

use sealtide_crypto::Entropy;
use sealtide_gateway::{Code, KeyAction, KeyChange, KeyDesk, KeyList, KeyOrder, ListedVersion, Notice, Question};
use sealtide_identity::keyring::{
    Action, Algorithm, Change, ChangeRefused, ChangeRequest, Deadline, KeySecret, KeySource, KeyVersion, LastGood,
    LedgerRecord, Order, PublicPair, Verdict, VersionState, parse_time,
};
use zeroize::Zeroizing;

use super::alerts::Fact;
use super::desk::{Desk, Turn};
use super::last_good::{Named, last_good};
use super::timelines::{Frames, data_of, member};
use crate::audit::{self, AuditEvent};
use crate::failpoint;
use crate::failure::Failure;
use crate::known::Known;
use crate::real::now;
use crate::releases::App;
use crate::world::OsEntropy;

/// The epoch up to which the audit was told.
const TOLD_SETTING: &str = "gateway.told_epoch";
const HSL_WARNING: &str = "#FF8C00";
const HSL_FAULT: &str = "#FF0000";

/// An order, and on whose word. `by` begins with what pulled it: `command`, `door`, `signal`, `policy`, `probation`.
#[derive(Clone, Debug)]
pub struct Ordered<'a> {
    /// What.
    pub order: Order,
    /// The version that must be active.
    pub expect: Option<KeyVersion>,
    /// `trigger` or `trigger:who`.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
}

impl Ordered<'_> {
    fn request(&self) -> ChangeRequest<'_> {
        let auto = ["policy", "probation"].contains(&self.by);
        ChangeRequest { order: self.order.clone(), expect: self.expect, auto, by: self.by, reason: self.reason }
    }
}

/// Why an order was not followed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OrderRefused {
    /// The keys do not allow it.
    #[error("{0}")]
    Change(#[from] ChangeRefused),
    /// The audit cannot be written, and changes of keys are not made unseen.
    #[error("the audit cannot be written, and keys are not changed without it")]
    Audit,
    /// The store or the key file failed.
    #[error("{0}")]
    Store(Failure),
}

impl OrderRefused {
    /// What a caller at the door is told.
    pub fn code(&self) -> Code {
        match self {
            Self::Change(
                ChangeRefused::NothingHigher(_)
                | ChangeRefused::Unavailable(_)
                | ChangeRefused::Probe(_)
                | ChangeRefused::State { state: None, .. },
            ) => Code::KeyUnavailable,
            Self::Change(_) => Code::StateConflict,
            Self::Audit | Self::Store(_) => Code::StorageError,
        }
    }
}

/// All keys, as `keys status` shows them.
#[derive(Clone, Debug)]
pub struct KeysShown {
    /// Signs.
    pub active: KeyVersion,
    /// Signed before.
    pub previous: Option<KeyVersion>,
    /// Whether there is no way back.
    pub forced: bool,
    /// Of the ledger.
    pub epoch: u64,
    /// When the newest record was made, milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Address of the ledger's first frame.
    pub ledger: String,
    /// What signed last.
    pub last: Option<KeyVersion>,
    /// Every version that the ledger knows, lowest first.
    pub versions: Vec<ShownVersion>,
}

/// One version of [`KeysShown`].
#[derive(Clone, Debug)]
pub struct ShownVersion {
    /// Which.
    pub version: KeyVersion,
    /// What it may do now.
    pub state: VersionState,
    /// Where its secret came from; none when it is not loaded.
    pub source: Option<KeySource>,
    /// Until when its signatures count.
    pub not_after: Option<Deadline>,
    /// Algorithm and name of each key.
    pub keys: Vec<(&'static str, String)>,
}

impl KeysShown {
    /// The version that [`Desk::new_version`] would make for whoever wants the next one: none where this home did not make the secret that
    /// signs, since who brings secrets brings the next one too.
    pub fn next_own(&self) -> Option<KeyVersion> {
        let active = self.versions.iter().find(|shown| shown.version == self.active)?;
        let is_own = matches!(active.source, Some(KeySource::Stored | KeySource::Generated));
        self.versions.last().filter(|_| is_own).and_then(|last| KeyVersion::new(last.version.number() + 1))
    }
}

impl Desk {
    /// Everything that is told about keys to who may see it; never a secret.
    pub fn show(&self) -> KeysShown {
        let state = self.read();
        let (ring, now) = (&state.ring, now().wall_ms);
        let (ledger, tip) = (ring.ledger(), ring.ledger().tip());
        let of = |version: KeyVersion, state: VersionState| {
            let hmac = ring.keys(version).map(|keys| (Algorithm::HmacSha256.name(), keys.hmac_kid()));
            let pair = ledger.keys().iter().filter(|key| key.version == version);
            ShownVersion {
                version,
                state: ledger.state_at(version, now).unwrap_or(state),
                source: ring.source(version),
                not_after: ledger.not_after(version),
                keys: hmac.into_iter().chain(pair.map(|key| (key.algorithm.name(), key.kid.clone()))).collect(),
            }
        };
        KeysShown {
            active: tip.active(),
            previous: tip.previous(),
            forced: tip.forced(),
            epoch: tip.epoch,
            since_ms: parse_time(&tip.rotation_timestamp),
            ledger: ledger.address().to_owned(),
            last: state.last,
            versions: ledger.versions().map(|(version, state)| of(version, state)).collect(),
        }
    }

    /// What an order would come to; nothing changes. `None` when it is so already.
    ///
    /// # Errors
    /// [`OrderRefused::Change`].
    pub fn preview(&self, ordered: &Ordered<'_>) -> Result<Option<Change>, OrderRefused> {
        let _turn = self.turn();
        Ok(self.read().ring.propose(&ordered.request(), &self.node().key, now())?)
    }

    /// Follows an order. A repeated one changes nothing and is no fault.
    ///
    /// # Errors
    /// [`OrderRefused`]; then nothing changed.
    // Spec: GW-51, GW-53
    pub fn order(&self, ordered: &Ordered<'_>) -> Result<KeyChange, OrderRefused> {
        let began = Instant::now();
        let mut turn = self.turn();
        let done = self.follow(&mut turn, ordered);
        if let (Ok(change), true) = (&done, moves_active(&ordered.order)) {
            self.figures.awaits(change.to, began);
        }
        if let (Err(refused), true) = (&done, moves_active(&ordered.order)) {
            self.figures.rotation(false);
            self.alert(&Fact::RotationFailed);
            let event = AuditEvent::new("key:rotate_failed", HSL_FAULT).member("by", ordered.by);
            self.note_event(event.member("reason", refused));
        }
        done
    }

    /// As [`Desk::order`], for who has the turn already.
    pub(super) fn follow(&self, turn: &mut Turn, ordered: &Ordered<'_>) -> Result<KeyChange, OrderRefused> {
        if self.audit().is_failing() {
            return Err(OrderRefused::Audit);
        }
        let now = now();
        let proposed = self.read().ring.propose(&ordered.request(), &self.node().key, now)?;
        let Some(change) = proposed else {
            let state = self.read();
            let tip = state.ring.ledger().tip();
            let at_ms = parse_time(&tip.rotation_timestamp).unwrap_or(0);
            return Ok(KeyChange { from: tip.active(), to: tip.active(), epoch: tip.epoch, at_ms });
        };
        failpoint::hit("keys_proposed");
        self.thread().begin(now.mono_ms);
        let frame = self.ledger_frames().next(&turn.ledger, data_of("record", change.record.to_value()));
        self.thread().end(now.mono_ms, frame.is_ok());
        let frame = frame.map_err(OrderRefused::Store)?;
        failpoint::hit("keys_committed");
        // From here on the change holds, whatever else fails.
        turn.ledger = frame;
        turn.keys.epoch = change.record.epoch;
        if let Err(error) = self.key_file().write(&turn.keys) {
            tracing::error!(%error, "the epoch of the key ledger was not written; the next start does it");
        }
        failpoint::hit("keys_epoch");
        let done = KeyChange { from: change.from, to: change.to, epoch: change.record.epoch, at_ms: now.wall_ms };
        let (record, before) = (change.record.clone(), Before::of(self.read().ring.ledger().tip()));
        self.write().ring.apply(change, &self.node().key, now)?;
        self.tell(&record, &before);
        self.note_moved();
        let notice = if done.from == done.to { Notice::KeysMoved } else { Notice::KeyRotated(done) };
        self.notify(notice);
        if moves_active(&ordered.order) {
            self.figures.rotation(true);
            self.alert(&Fact::Rotated { from: done.from.number(), to: done.to.number() });
        }
        failpoint::hit("keys_told");
        Ok(done)
    }

    /// Makes a secret for a version that has none, and tells the ledger. It is kept in the key file and shown nowhere.
    ///
    /// # Errors
    /// [`OrderRefused`]; then nothing changed.
    pub fn new_version(&self, version: Option<KeyVersion>, by: &str) -> Result<KeyVersion, OrderRefused> {
        let mut turn = self.turn();
        let highest = self.read().ring.ledger().versions().last().map_or(0, |(version, _)| version.number());
        let version = version.or_else(|| KeyVersion::new(highest + 1));
        let version = version.ok_or_else(|| OrderRefused::Store(Failure::usage("version", "no version is left")))?;
        let mut key = Zeroizing::new([0; 32]);
        OsEntropy.fill(key.as_mut_slice());
        let taken = self.write().ring.take_in(version, KeySecret::from_raw(*key));
        let known = || ChangeRefused::State { version, state: self.read().ring.ledger().state(version) };
        taken.map_err(|_| known())?;
        // The secret is durable before the ledger names its keys.
        turn.keys.made.insert(version, key);
        let kept = self.key_file().write(&turn.keys).map_err(OrderRefused::Store);
        failpoint::hit("keys_made");
        let order = Ordered { order: Order::Add(version), expect: None, by, reason: "" };
        let added = kept.and_then(|()| self.follow(&mut turn, &order));
        if let Err(refused) = added {
            turn.keys.made.remove(&version);
            self.write().ring.forget(version);
            let _ = self.key_file().write(&turn.keys);
            return Err(refused);
        }
        Ok(version)
    }

    /// Ends a version whose secret somebody else may have. An active one is left first. Its releases count up to the
    /// newest one of each channel, or an older one that is `named`.
    ///
    /// # Errors
    /// [`OrderRefused`]; the active version is kept when no other can take its place, and for a release that is not there.
    pub(crate) fn compromise(
        &self,
        version: KeyVersion,
        named: &[Named],
        by: &str,
        reason: &str,
    ) -> Result<KeyChange, OrderRefused> {
        let mut turn = self.turn();
        let channels = self.last_good(version, named).map_err(OrderRefused::Store)?;
        let is_active = self.read().ring.ledger().tip().active() == version;
        if is_active {
            let rotate = Order::Rotate { to: None, keep_until: None };
            self.follow(&mut turn, &Ordered { order: rotate, expect: Some(version), by, reason })?;
            failpoint::hit("keys_left");
        }
        let order = Order::Compromise(version, channels);
        self.follow(&mut turn, &Ordered { order, expect: None, by, reason })
    }

    fn last_good(&self, version: KeyVersion, named: &[Named]) -> Result<Vec<LastGood>, Failure> {
        let pair = {
            let state = self.read();
            let entries = state.ring.ledger().keys().iter().filter(|key| key.version == version);
            PublicPair::of_entries(&entries.collect::<Vec<_>>())
        };
        match pair {
            Some(pair) => {
                let manifests = App::manifests(self.store(), std::slice::from_ref(&pair))?;
                last_good(&manifests, version, &pair, named)
            }
            // A version without a pair signs no release.
            None if named.is_empty() => Ok(Vec::new()),
            None => Err(Failure::usage("last_good", format!("{version} has no pair and signed no release"))),
        }
    }

    /// Deletes the secret of a version that has ended.
    ///
    /// # Errors
    /// [`OrderRefused`]; then nothing changed.
    pub fn destroy(&self, version: KeyVersion, by: &str, reason: &str) -> Result<KeyChange, OrderRefused> {
        let mut turn = self.turn();
        let done = self.follow(&mut turn, &Ordered { order: Order::Destroy(version), expect: None, by, reason })?;
        self.write().ring.forget(version);
        // A crash before this: the next start finds the secret of a destroyed version and deletes it.
        if turn.keys.made.remove(&version).is_some() {
            self.key_file().write(&turn.keys).map_err(OrderRefused::Store)?;
        }
        Ok(done)
    }

    /// Ledger records from the store, oldest first, as they were made.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn records(&self, since: u64, limit: usize) -> Result<Vec<serde_json::Value>, Failure> {
        // The record of epoch e stands in frame e − 1.
        let frames = self.ledger_frames().from(since, limit)?;
        Ok(frames.iter().map(|frame| member(frame, "record")).collect())
    }

    /// Tells the audit what a crash kept it from hearing.
    pub(super) fn finish_outbox(&self) -> Result<(), Failure> {
        let known = Known::of(self.store());
        let told: u64 = known.setting(TOLD_SETTING).and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut before = Before::default();
        for value in self.records(told.saturating_sub(1), usize::MAX)? {
            let Ok(record) = LedgerRecord::parse(&value) else { continue };
            let epoch = record.epoch.to_string();
            let names_it = |line: &serde_json::Value| line["epoch"] == epoch && line["ledger"].is_string();
            if record.epoch > told && audit::holds(self.audit().dir(), names_it)? {
                self.keep_told(record.epoch);
            } else if record.epoch > told {
                self.tell(&record, &before);
            }
            before = Before::of(&record);
        }
        Ok(())
    }

    pub(super) fn tell(&self, record: &LedgerRecord, before: &Before) {
        // A line may bring a checkpoint, which asks for the keys.
        let ledger = self.read().ring.ledger().address().to_owned();
        self.audit().event(&event_of(record, before, &ledger));
        failpoint::hit("keys_audited");
        self.keep_told(record.epoch);
    }

    fn keep_told(&self, epoch: u64) {
        if let Err(error) = Known::of(self.store()).put_setting(TOLD_SETTING, Some(&epoch.to_string())) {
            tracing::warn!(%error, "how far the audit was told of keys was not written");
        }
    }

    fn ledger_frames(&self) -> Frames<'_> {
        Frames { store: self.store(), space: self.space(), ib: "keyring" }
    }
}

/// What held before a record.
#[derive(Default)]
pub(super) struct Before {
    active: Option<KeyVersion>,
    states: BTreeMap<KeyVersion, VersionState>,
}

impl Before {
    pub(super) fn of(record: &LedgerRecord) -> Self {
        Self { active: Some(record.active()), states: record.versions().collect() }
    }

    /// The version that a record is about, where it is not about the active one: the first in another state.
    fn moved(&self, record: &LedgerRecord) -> Option<(KeyVersion, VersionState)> {
        record.versions().find(|(version, state)| self.states.get(version) != Some(state))
    }
}

/// The event of a record; its members `epoch` and `ledger` say which record it is.
fn event_of(record: &LedgerRecord, before: &Before, ledger: &str) -> AuditEvent {
    let (trigger, _) = record.by.split_once(':').unwrap_or((record.by.as_str(), ""));
    let (from, to) = (before.active.unwrap_or(record.active()), record.active());
    let moved = |name: &str, hsl| {
        AuditEvent::new(name, hsl)
            .member("from", from.digits())
            .member("to", to.digits())
            .member("threadId", "0x6001")
            .member("channel", "COMMAND_CHANNEL")
            .member("trigger", trigger)
            .member("[META:KEY-VERSION]", to.digits())
    };
    let (version, state) = before.moved(record).unwrap_or((to, VersionState::Active));
    let about = |name: &str, hsl| AuditEvent::new(name, hsl).member("version", version);
    let event = match record.action {
        Action::Rotate => moved("key_rotate", "#9D4EDD"),
        Action::Rollback => moved("key_rollback", HSL_WARNING),
        Action::Force => moved("key:forced", HSL_WARNING).member("version", to),
        Action::Init | Action::Add => about("key:loaded", "#9D4EDD"),
        Action::Expire => about("key:expired", HSL_WARNING),
        Action::Retire if state == VersionState::Compromised => about("key:compromised", HSL_FAULT),
        Action::Retire => about("key:retired", HSL_WARNING),
        Action::Destroy => about("key:destroyed", HSL_WARNING),
        Action::Recover => moved("key:recovered", HSL_FAULT).member("version", to),
    };
    event
        .member("epoch", record.epoch)
        .member("ledger", ledger)
        .member("auto", record.auto)
        .member("by", &record.by)
        .member("reason", &record.reason)
        .durable()
}

fn moves_active(order: &Order) -> bool {
    matches!(order, Order::Rotate { .. } | Order::Force { .. } | Order::Rollback)
}

/// An end as callers are told it: one that nobody can read has come.
pub(crate) fn end_ms(deadline: Deadline) -> u64 {
    match deadline {
        Deadline::At(ms) => ms,
        Deadline::Unreadable => 0,
    }
}

impl KeyDesk for Desk {
    fn list(&self) -> KeyList {
        let state = self.read();
        let (ring, now) = (&state.ring, now().wall_ms);
        let ledger = ring.ledger();
        let counts = |state| matches!(state, VersionState::Active | VersionState::Prepared | VersionState::VerifyOnly);
        let listed = |version: KeyVersion| {
            let state = ledger.state_at(version, now).filter(|state| counts(*state))?;
            Some(ListedVersion {
                version,
                state,
                not_after: ledger.not_after(version).map(end_ms),
                keys: ledger.keys().iter().filter(|key| key.version == version).cloned().collect(),
                hmac_kid: ring.keys(version).map(sealtide_identity::keyring::VersionKeys::hmac_kid),
            })
        };
        KeyList {
            active: ledger.tip().active(),
            epoch: ledger.tip().epoch,
            versions: ledger.versions().filter_map(|(version, _)| listed(version)).collect(),
        }
    }

    fn verify(&self, question: &Question<'_>) -> Verdict {
        let state = self.read();
        let Question { payload, context, algorithm, version, signature } = question;
        let verdict = state.ring.verify(payload, *context, *algorithm, *version, signature, now().wall_ms);
        drop(state);
        if !verdict.valid {
            let reason = verdict.state.map_or("unknown", VersionState::name);
            self.note_event(
                AuditEvent::new("signature:rejected", HSL_FAULT).member("keyVersion", version).member("reason", reason),
            );
        }
        verdict
    }

    fn change(&self, order: &KeyOrder) -> Result<KeyChange, Code> {
        let wanted = match order.action {
            KeyAction::Rotate(to) => Order::Rotate { to, keep_until: None },
            KeyAction::Rollback => Order::Rollback,
            KeyAction::Force(to) => Order::Force { to },
        };
        let by = format!("door:{}", order.by);
        let ordered = Ordered { order: wanted, expect: order.expect, by: &by, reason: &order.reason };
        self.order(&ordered).map_err(|refused| refused.code())
    }

    fn ledger(&self, since: u64, limit: usize) -> Result<Vec<String>, Code> {
        let records = self.records(since, limit).map_err(|_| Code::StorageError)?;
        Ok(records.iter().map(ToString::to_string).collect())
    }

    fn audit(&self, since: u64, limit: usize) -> Result<Vec<String>, Code> {
        audit::since(self.audit().dir(), since, limit).map_err(|_| Code::StorageError)
    }
}
