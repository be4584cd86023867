//! The registry changes hands: one frame of the old writer names the new one, which goes on from it. Spec: gateway §8.1.

use std::sync::Arc;

use sealtide_gateway::Notice;
use sealtide_ibgib::Verified;
use sealtide_identity::keyring::PublicKeyEntry;
use sealtide_identity::{NodeId, SpaceId};
use sealtide_releases::{RegistryFrame, Writer};
use sealtide_store::Store;
use sealtide_sync::{CommitRequest, SpaceView};

use super::bumps::is_writer;
use super::desk::Desk;
use super::registry::{Origin, TAKEN_SETTING, frame_for, signature_of};
use super::timelines::{Frames, REGISTRY_SETTING};
use crate::audit::AuditEvent;
use crate::failpoint;
use crate::failure::{Exit, Failure};
use crate::known::Known;
use crate::real::now;

/// Frames that are copied in one commit. A crash test has a short line, and cuts it too.
const COPIED_AT_ONCE: usize = if cfg!(feature = "failpoints") { 1 } else { 256 };

impl Desk {
    /// Who this node is as a writer.
    pub(crate) fn as_writer(&self) -> Writer {
        Writer { node: self.node().id, ledger: self.read().ring.ledger().address().to_owned() }
    }

    /// Who writes the registry, when it is not this node.
    pub(crate) fn handed_to(&self) -> Option<NodeId> {
        self.turn().writer
    }

    /// The revision that everybody sees.
    pub(crate) fn registry_revision(&self) -> u64 {
        self.read().registry.revision()
    }

    /// Whether the version that signs has a pair: without one others cannot verify anything.
    pub(crate) fn has_pair(&self) -> bool {
        let state = self.read();
        let active = state.ring.ledger().tip().active();
        let is_active = |key: &PublicKeyEntry| key.version == active;
        state.ring.ledger().keys().iter().any(is_active)
    }

    /// Frames of the own ledger (`keyring`) or registry (`registry`) from counter `from` on, at most `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn frames(&self, ib: &'static str, from: u64, limit: usize) -> Result<Vec<Verified>, Failure> {
        Frames { store: self.store(), space: self.space(), ib }.from(from, limit)
    }

    /// How many such frames there are.
    ///
    /// # Errors
    /// As [`Desk::frames`].
    pub(crate) fn count(&self, ib: &'static str) -> Result<u64, Failure> {
        Frames { store: self.store(), space: self.space(), ib }.count()
    }

    /// Lets another node write from here on: the next frame says so, and this node signs it. Waits for the disk.
    ///
    /// # Errors
    /// Exit 6 when this node is not the writer or has no pair; as the store reports.
    // Spec: GW-108
    pub(crate) fn hand_over(&self, to: &Writer) -> Result<u64, Failure> {
        let mut turn = self.turn();
        is_writer(&turn).map_err(|refused| Failure::new(Exit::Refused, "not_the_writer", refused.to_string()))?;
        let after = turn.ahead.with_versions(&[]).expect("no entity is missing among none");
        let data = {
            let state = self.read();
            let own = self.node().id;
            frame_for(&after, &Origin { writer: &own, ring: &state.ring, last: state.last }, to)
        };
        let unsigned = || Failure::new(Exit::Refused, "key_unavailable", "the active version has no pair");
        let data = data.filter(|data| data.contains_key("registrySignature")).ok_or_else(unsigned)?;
        failpoint::hit("registry_handing");
        let frames = Frames { store: self.store(), space: self.space(), ib: "registry" };
        // From here on the other writes, whatever else fails.
        let frame = frames.next(&turn.registry, data)?;
        failpoint::hit("registry_handed");
        let (revision, registry) = (after.revision(), Arc::new(after));
        {
            let mut state = self.write();
            state.signature = signature_of(&frame);
            state.registry = registry.clone();
        }
        (turn.registry, turn.ahead, turn.writer) = (frame, registry, Some(to.node));
        drop(turn);
        self.note_event(
            AuditEvent::new("registry:handed_over", "#FF8C00")
                .member("to", to.node)
                .member("ledger", &to.ledger)
                .member("revision", revision),
        );
        self.note_moved();
        Ok(revision)
    }

    /// Goes on from the last of these frames, which names this node as the writer. They are a line from its first frame on, and the
    /// caller has verified them. Waits for the disk.
    ///
    /// # Errors
    /// As the store reports; then this node writes what it wrote before.
    // Spec: GW-108
    pub(crate) fn take_over(&self, line: &[Verified]) -> Result<(), Failure> {
        let (Some(first), Some(last)) = (line.first(), line.last()) else { return Ok(()) };
        let damaged = |error: String| Failure::new(Exit::Verification, "registry", error);
        let frame = RegistryFrame::read(&last.object().ok_or_else(|| damaged("no frame".to_owned()))?);
        let frame = frame.map_err(|error| damaged(error.to_string()))?;
        if frame.writer != self.as_writer() {
            return Err(damaged("it names another writer".to_owned()));
        }
        let mut turn = self.turn();
        self.keep_line(line, first, last)?;
        let (registry, revision) = (Arc::new(frame.registry), turn.ahead.revision());
        {
            let mut state = self.write();
            state.signature = signature_of(last);
            state.registry = registry.clone();
        }
        tracing::info!(revision = registry.revision(), before = revision, "this node writes the registry now");
        (turn.registry, turn.ahead, turn.writer) = (last.clone(), registry.clone(), None);
        drop(turn);
        self.thread().active(now().mono_ms);
        self.note_event(
            AuditEvent::new("registry:taken_over", "#FF8C00")
                .member("first", first.address())
                .member("revision", registry.revision()),
        );
        self.notify(Notice::KeysMoved);
        self.note_moved();
        Ok(())
    }

    /// Makes a line the registry of this home, durably. Whatever a kill leaves of that can be opened, as what was there before or as the
    /// line, and is done again.
    fn keep_line(&self, line: &[Verified], first: &Verified, last: &Verified) -> Result<(), Failure> {
        let (known, first, last) = (Known::of(self.store()), first.address().as_str(), last.address().as_str());
        let own = self.frames("registry", 0, 1)?;
        match own.first().map(|own| own.address().as_str()) {
            // It comes back: others signed what is new, which counts at a start because it is named here before it is there. With only a
            // part of it the newest frame names one of those as the writer.
            Some(own) if own == first => {
                let here = Frames { store: self.store(), space: self.space(), ib: "registry" }.newest()?;
                let mut newest = here.map_or_else(String::new, |here| here.address().as_str().to_owned());
                copy(self.store(), self.space(), line, |next| {
                    let next = next.address().as_str();
                    known.put_setting(TAKEN_SETTING, Some(&format!("{newest}\n{next}"))).map_err(store_failed)?;
                    next.clone_into(&mut newest);
                    Ok(())
                })?;
                failpoint::hit("registry_copied");
                known.put_setting(TAKEN_SETTING, Some(last)).map_err(store_failed)?;
            }
            // Two lines stand side by side from the copy on, so which of them counts is said first, and changed in one step.
            own => {
                known.put_setting(REGISTRY_SETTING, own).map_err(store_failed)?;
                copy(self.store(), self.space(), line, |_| Ok(()))?;
                failpoint::hit("registry_copied");
                known.put_settings(&[(TAKEN_SETTING, last), (REGISTRY_SETTING, first)]).map_err(store_failed)?;
            }
        }
        Ok(())
    }
}

/// Puts frames into a space that are not there yet, so many at a time: a line may be longer than one commit can be, and others wait
/// meanwhile. `before` is told the last of each batch before it is there.
fn copy(
    store: &Store,
    space: &SpaceId,
    line: &[Verified],
    mut before: impl FnMut(&Verified) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let view = store.view(space).ok_or_else(|| Failure::failed("store", "the space of the gateway is gone"))?;
    let missing: Vec<&Verified> = line.iter().filter(|frame| !view.contains(&frame.sid())).collect();
    for batch in missing.chunks(COPIED_AT_ONCE) {
        batch.last().map_or(Ok(()), |last| before(last))?;
        let records = batch.iter().copied().cloned().collect();
        let request = CommitRequest::local(records);
        store.commit(space, &request).map_err(store_failed)?;
        failpoint::hit("registry_copying");
    }
    Ok(())
}

fn store_failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed("store", error.to_string())
}
