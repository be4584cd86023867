//! The timelines of an app in the store: the key ledger and the registry, one frame for each change.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;
use sealtide_crypto::Ed25519PublicKey;
use sealtide_ibgib::{Object, Relations, Stamp, Verified, space_genesis, try_evolve, try_genesis, uuid};
use sealtide_identity::keyring::{Algorithm, LedgerRecord};
use sealtide_identity::{NodeId, SpaceId};
use sealtide_store::{CommitError, SpaceLabel, Store, Underway};
use sealtide_sync::{CommitRequest, SpaceView, TipItem};
use serde_json::Value;

use crate::failure::{Exit, Failure};
use crate::home::Identity;
use crate::known::Known;
use crate::real::now;
use crate::world::OsEntropy;

/// The app whose registry this is.
pub(super) const APP: &str = "default";
/// The kind of the space of an app. It is not shared itself: what is shared is a copy of its frames in a space of its own
/// (`shared.rs`), so that nothing that others write can come between the writer and its next frame.
pub const APP_KIND: &str = "app";
/// Where the id of that space is kept: another space may have its name.
const SPACE_SETTING: &str = "gateway.space";

/// Where the first frame of the registry is kept, when this node did not begin it.
pub(super) const REGISTRY_SETTING: &str = "gateway.registry";

/// Frames that are read at once when they are looked through.
const PAGE: u64 = 64;

/// The frames of the one timeline with this ib.
pub(super) struct Frames<'a> {
    pub(super) store: &'a Store,
    pub(super) space: &'a SpaceId,
    pub(super) ib: &'static str,
}

impl Frames<'_> {
    /// All, oldest first.
    pub(super) fn all(&self) -> Result<Vec<Verified>, Failure> {
        self.from(0, usize::MAX)
    }

    /// Whether there is one.
    pub(super) fn is_begun(store: &Store, space: &SpaceId, ib: &'static str) -> bool {
        store.view(space).is_some_and(|view| !view.timelines_of(ib).is_empty())
    }

    /// Those from counter `from` on, at most `limit`.
    pub(super) fn from(&self, from: u64, limit: usize) -> Result<Vec<Verified>, Failure> {
        let (Some(view), Some(tip)) = (self.store.view(self.space), self.tip()?) else { return Ok(Vec::new()) };
        let sids = view.frames(&tip.timeline, from, tip.n, limit);
        sids.iter().map(|sid| view.record(sid).ok_or_else(|| self.lost())).collect()
    }

    /// The newest, without the others.
    pub(super) fn newest(&self) -> Result<Option<Verified>, Failure> {
        let (Some(view), Some(tip)) = (self.store.view(self.space), self.tip()?) else { return Ok(None) };
        view.record(&tip.sid).map(Some).ok_or_else(|| self.lost())
    }

    /// Whether one is such, the newest first: a few at a time are in memory.
    pub(super) fn any_back(&self, is_such: impl Fn(&Verified) -> bool) -> Result<bool, Failure> {
        let mut behind = self.count()?;
        while behind > 0 {
            let from = behind.saturating_sub(PAGE);
            if self.from(from, (behind - from) as usize)?.iter().rev().any(&is_such) {
                return Ok(true);
            }
            behind = from;
        }
        Ok(false)
    }

    fn lost(&self) -> Failure {
        Failure::new(Exit::Verification, "store_damaged", format!("a frame of {} is lost", self.ib))
    }

    /// How many there are.
    pub(super) fn count(&self) -> Result<u64, Failure> {
        Ok(self.tip()?.map_or(0, |tip| tip.n + 1))
    }

    /// The place of the newest.
    fn tip(&self) -> Result<Option<TipItem>, Failure> {
        let Some(view) = self.store.view(self.space) else { return Ok(None) };
        // A registry that was taken over stands beside the one that this node began.
        let first = Known::of(self.store).setting(REGISTRY_SETTING).filter(|_| self.ib == "registry");
        let lines = view.timelines_of(self.ib).into_iter();
        let lines = lines.filter(|info| first.as_deref().is_none_or(|first| info.tjp.as_str() == first));
        let mut tips: Vec<_> = lines.flat_map(|info| info.tips).collect();
        if tips.len() > 1 {
            let told = format!("{} timelines {} in the space of the gateway", tips.len(), self.ib);
            return Err(Failure::new(Exit::Verification, "forked", told));
        }
        Ok(tips.pop())
    }

    /// Makes the first frame, durably.
    pub(super) fn begin(&self, data: Object) -> Result<Verified, Failure> {
        let frame = try_genesis(self.ib, data, Relations::new(), Stamp { ms: now().wall_ms }, &uuid(&mut OsEntropy));
        let frame = frame.map_err(|error| Failure::failed("store", format!("{}: {error}", self.ib)))?;
        commit(self.store, self.space, frame.clone())?;
        Ok(frame)
    }

    /// Makes the frame after `tip`, durably.
    pub(super) fn next(&self, tip: &Verified, data: Object) -> Result<Verified, Failure> {
        let (frame, underway) = self.begin_next(tip, data)?;
        underway.durable().map_err(|error| Failure::failed("store", error.to_string()))?;
        Ok(frame)
    }

    /// As [`Frames::next`], but for the wait for the disk. Refused when the store has gone on from `tip` already, whatever the
    /// caller believes: two frames behind one could not be opened any more.
    pub(super) fn begin_next(&self, tip: &Verified, data: Object) -> Result<(Verified, Underway), Failure> {
        let frame = try_evolve(tip, data, Relations::new(), Stamp { ms: now().wall_ms });
        let frame = frame.map_err(|error| Failure::failed("store", format!("{}: {error}", self.ib)))?;
        let expected = tip.frame().map(|facts| (facts.timeline, vec![tip.sid()])).into_iter().collect();
        let request = CommitRequest { expected, strict: true, ..request(frame.clone()) };
        let underway = self.store.begin_commit(self.space, &request).map_err(|error| match error {
            CommitError::TipMoved(_) => {
                let text =
                    format!("the store holds more of {} than this process knows of; nothing was written", self.ib);
                Failure::failed("stale", text).hint("start the node anew: it goes on from what is stored")
            }
            error => Failure::failed("store", error.to_string()),
        })?;
        Ok((frame, underway))
    }
}

/// The data of a frame with one member.
pub(super) fn data_of(name: &str, value: Value) -> Object {
    Object::from_iter([(name.to_owned(), value)])
}

/// A member of a frame's data; null when it is not there.
pub(super) fn member(frame: &Verified, name: &str) -> Value {
    frame.object().and_then(|data| data.get(name).cloned()).unwrap_or_default()
}

fn request(record: Verified) -> CommitRequest {
    CommitRequest::local(vec![record])
}

fn commit(store: &Store, space: &SpaceId, record: Verified) -> Result<(), Failure> {
    store.commit(space, &request(record)).map(drop).map_err(|error| Failure::failed("store", error.to_string()))
}

/// Every Ed25519 key that the key ledger of this home ever named, by its name: for what was signed long ago.
pub(crate) fn ed25519_keys(store: &Store) -> BTreeMap<String, Ed25519PublicKey> {
    let Some(space) = known_space(store) else { return BTreeMap::new() };
    let frames = Frames { store, space: &space, ib: "keyring" }.all().unwrap_or_default();
    let mut found = BTreeMap::new();
    for frame in frames {
        for key in member(&frame, "record")["keys"].as_array().into_iter().flatten() {
            let text = |name: &str| key[name].as_str().unwrap_or_default();
            let bytes = BASE64.decode(text("publicKey").as_bytes()).unwrap_or_default();
            if let (true, Ok(public)) = (text("alg") == Algorithm::Ed25519.name(), Ed25519PublicKey::parse(&bytes)) {
                found.insert(text("kid").to_owned(), public);
            }
        }
    }
    found
}

/// The nodes that keep, or kept, the key ledger of this home: this one, and those that it was taken over from.
pub(crate) fn ledger_nodes(store: &Store, own: NodeId) -> BTreeSet<String> {
    let space = known_space(store);
    let frames = space.map(|space| Frames { store, space: &space, ib: "keyring" }.all().unwrap_or_default());
    let nodes =
        frames.into_iter().flatten().filter_map(|frame| Some(member(&frame, "record")["node"].as_str()?.to_owned()));
    nodes.chain([own.to_string()]).collect()
}

/// Which ledger these records are of: what they say themselves where they begin with those of another node, else the first frame.
pub(super) fn ledger_address(frames: &[Verified], records: &[LedgerRecord], own: NodeId) -> String {
    let told = records.get(1).filter(|_| records[0].node != own).and_then(|second| second.ledger.clone());
    told.unwrap_or_else(|| frames[0].address().as_str().to_owned())
}

/// The space of the app, when it was made.
pub(super) fn known_space(store: &Store) -> Option<SpaceId> {
    Known::of(store).setting(SPACE_SETTING).and_then(|text| text.parse().ok())
}

/// The space of the app, made at the first start.
pub(super) fn app_space(store: &Store, identity: &Identity) -> Result<SpaceId, Failure> {
    if let Some(space) = known_space(store) {
        return Ok(space);
    }
    let failed = |error: &dyn std::fmt::Display| Failure::failed("store", error.to_string());
    let known = Known::of(store);
    let stamp = Stamp { ms: now().wall_ms };
    let first = space_genesis(APP, APP_KIND, &identity.id.to_string(), stamp, &uuid(&mut OsEntropy));
    let space = store.create_space(first).map_err(|error| failed(&error))?;
    let label = SpaceLabel { name: format!("app-{APP}"), kind: APP_KIND.to_owned(), dir: None };
    known.put_label(&space, Some(&label)).map_err(|error| failed(&error))?;
    known.put_setting(SPACE_SETTING, Some(&space.to_string())).map_err(|error| failed(&error))?;
    Ok(space)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sealtide_store::Config;
    use sealtide_store::mem::MemDisk;

    use super::*;

    // Proves: GW-106
    #[test]
    fn nothing_goes_on_from_a_frame_that_is_not_the_newest() {
        let store = Store::open(Arc::new(MemDisk::new(1)), Config::default()).unwrap();
        let first = space_genesis(APP, APP_KIND, "somebody", Stamp { ms: 1 }, "u");
        let space = store.create_space(first).unwrap();
        let frames = Frames { store: &store, space: &space, ib: "keyring" };
        let first = frames.begin(data_of("record", Value::from(1))).unwrap();
        let second = frames.next(&first, data_of("record", Value::from(2))).unwrap();
        assert_eq!(frames.next(&first, data_of("record", Value::from(3))).unwrap_err().code, "stale");
        assert_eq!(frames.all().unwrap(), [first, second.clone()]);
        frames.next(&second, data_of("record", Value::from(3))).unwrap();
    }

    #[test]
    fn frames_are_looked_through_from_the_newest_to_the_first() {
        let store = Store::open(Arc::new(MemDisk::new(1)), Config::default()).unwrap();
        let first = space_genesis(APP, APP_KIND, "somebody", Stamp { ms: 1 }, "u");
        let space = store.create_space(first).unwrap();
        let frames = Frames { store: &store, space: &space, ib: "registry" };
        assert_eq!(frames.newest().unwrap(), None);
        let count = 2 * PAGE + 3;
        let mut tip = frames.begin(data_of("at", Value::from(0))).unwrap();
        for at in 1..count {
            tip = frames.next(&tip, data_of("at", Value::from(at))).unwrap();
        }
        assert_eq!(frames.newest().unwrap(), Some(tip));
        let seen = std::cell::RefCell::new(Vec::new());
        let note = |frame: &Verified| {
            seen.borrow_mut().push(member(frame, "at").as_u64().unwrap());
            false
        };
        assert!(!frames.any_back(note).unwrap());
        assert_eq!(seen.into_inner(), (0..count).rev().collect::<Vec<_>>());
        assert!(frames.any_back(|frame| member(frame, "at") == 1).unwrap());
    }
}
