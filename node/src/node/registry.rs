//! The registry that several nodes have: the writer keeps a copy of its frames in a space that is shared, the others read it
//! there and pass bumps on. Spec: registry.md, "Several nodes".

use std::sync::{Arc, Mutex};

use sealtide_gateway::{Bumped, Code, Notice, Way};
use sealtide_ibgib::{Address, Verified};
use sealtide_identity::{NodeId, Role, SpaceId};
use sealtide_releases::{BumpRequest, RegistryFrame};
use sealtide_sync::SpaceView;
use serde_json::json;
use tokio::sync::{Notify, broadcast};

use super::{Node, lock};
use crate::audit::AuditEvent;
use crate::commands::store_failure;
use crate::engine::Event;
use crate::engine::members::founder_of;
use crate::failure::{Exit, Failure};
use crate::gateway::{
    BUMP_CHANNEL, Desk, Looked, PassedOn, Places, SharedRegistry, SharedState, answer_passed_on, ledgers_in, pass_on,
    registries_in, writer_frame, writers_in,
};

/// The kind of the space: it is shared as any other.
const SPACE_KIND: &str = "data";
const SPACE_NAME: &str = "registry";
const SPACE_SETTING: &str = "registry.space";
const FIRST_SETTING: &str = "registry.first";
/// Frames that are copied at once.
const BATCH: usize = 256;

/// What a node knows of its shared registry.
#[derive(Default)]
pub(super) struct RegistrySlot {
    known: Mutex<Option<Option<Arc<SharedRegistry>>>>,
    /// Something may have to be copied or looked at.
    news: Notify,
    /// Held while it is copied and looked at.
    tending: tokio::sync::Mutex<()>,
}

impl Node {
    /// The registry that this home shares or follows; looked at when it is asked for the first time, which nobody waits for who asks
    /// whether there is one.
    pub(crate) fn shared_registry(&self) -> Option<Arc<SharedRegistry>> {
        let shared = self.known_registry()?;
        shared.look_first();
        Some(shared)
    }

    fn known_registry(&self) -> Option<Arc<SharedRegistry>> {
        let mut known = lock(&self.0.registry.known);
        known
            .get_or_insert_with(|| {
                let setting = |name: &str| self.known().setting(name);
                let (space, first) = setting(SPACE_SETTING).zip(setting(FIRST_SETTING))?;
                let first = Address::parse(&first).ok()?;
                Some(Arc::new(SharedRegistry::new(self.store().clone(), space.parse().ok()?, first)))
            })
            .clone()
    }

    /// The registry of another node that this one shows in place of its own.
    pub(crate) fn followed(&self) -> Option<SharedState> {
        self.shared_registry()?.state().filter(|state| state.writer.node != self.id())
    }

    /// Makes a space for the registry of this home and copies it there.
    ///
    /// # Errors
    /// Exit 2 when one is shared or followed already, 6 when not every revision of it is signed.
    pub(crate) async fn share_registry(&self) -> Result<(), Failure> {
        let desk = self.not_shared_yet().and_then(|()| self.desk(true))?;
        let checked = desk.clone();
        let first = super::off(move || {
            let frames = checked.frames("registry", 0, usize::MAX)?;
            let is_signed = |frame: &Verified| frame.object().is_some_and(|data| RegistryFrame::read(&data).is_ok());
            let first = frames.first().filter(|_| frames.iter().all(is_signed));
            first.map(|first| first.address().clone()).ok_or_else(|| {
                Failure::new(Exit::Refused, "unsigned", "not every revision of the registry is signed by a key pair")
                    .hint("other nodes take signed revisions only")
            })
        })
        .await?;
        let making = self.clone();
        let space = super::off(move || making.create_space(SPACE_NAME, SPACE_KIND)).await?;
        self.put_shared(space, &first, None)?;
        self.tend_registry().await?;
        self.audit().note("registry_shared", &[("space", &space.to_string()), ("first", first.as_str())]);
        Ok(())
    }

    /// From now on the door shows the registry of this space, and bumps are passed on to its writer.
    ///
    /// # Errors
    /// Exit 2 when one is shared or followed already, or the space holds several; 5 when none of them counts.
    pub(crate) async fn follow_registry(&self, space: SpaceId) -> Result<(), Failure> {
        self.not_shared_yet()?;
        let view = self.store().view(&space).ok_or_else(|| Failure::usage("no_space", "this space is not here"))?;
        let all = registries_in(&view);
        let founder = founder_of(&view);
        // Whoever may write can begin one; the space is its founder's.
        let own = all.iter().filter(|(_, writer)| Some(writer.node) == founder).collect::<Vec<_>>();
        let first = match own.as_slice() {
            [(first, _)] => first.clone(),
            [] => return Err(Failure::usage("no_registry", "whoever made this space keeps no registry in it")),
            _ => return Err(Failure::usage("several_registries", "whoever made this space keeps several in it")),
        };
        let shared = Arc::new(SharedRegistry::new(self.store().clone(), space, first.clone()));
        let looking = shared.clone();
        super::off(move || {
            looking.look_first();
            Ok(())
        })
        .await?;
        let state = shared.state().ok_or_else(|| {
            Failure::new(Exit::Verification, "registry", "the registry of this space is not signed by its writer")
        })?;
        self.put_shared(space, &first, Some(shared))?;
        if Desk::exists(self.store()) {
            self.desk(false)?;
        }
        self.tend_registry().await?;
        let writer = state.writer.node.to_string();
        self.audit().note("registry_followed", &[("first", first.as_str()), ("writer", &writer)]);
        Ok(())
    }

    /// The door shows what this home has of its own again; nothing is copied any more.
    ///
    /// # Errors
    /// As the store reports.
    pub(crate) fn leave_registry(&self) -> Result<(), Failure> {
        for name in [SPACE_SETTING, FIRST_SETTING] {
            self.known().put_setting(name, None).map_err(store_failure)?;
        }
        *lock(&self.0.registry.known) = None;
        self.audit().note("registry_left", &[]);
        let _ = self.0.notices.send(Notice::KeysMoved);
        Ok(())
    }

    /// Lets another node write from here on.
    ///
    /// # Errors
    /// Exit 6 when this node is not the writer, or the other has no keys in the space.
    // Spec: GW-108
    pub(crate) async fn hand_over_registry(&self, to: NodeId) -> Result<u64, Failure> {
        let shared = self.shared_registry().ok_or_else(not_shared)?;
        // Its own registry, if it has another, is not what is handed over.
        let writer = shared.state().map(|state| state.writer.node);
        if writer != Some(self.id()) {
            let who = writer.map_or_else(|| "nobody".to_owned(), |node| format!("node {}", node.short()));
            let text = format!("{who} writes this registry, and only the writer hands it over");
            return Err(Failure::new(Exit::Refused, "not_the_writer", text));
        }
        let desk = self.desk(false)?;
        let view = self.store().view(&shared.space()).ok_or_else(not_shared)?;
        let own = self.id();
        let known = super::off(move || Ok(ledgers_in(&view))).await?;
        let mut offered = known.into_iter().filter(|(_, known)| known.ledger.tip().node == to && to != own);
        let (Some((ledger, _)), None) = (offered.next(), offered.next()) else {
            let text = format!("node {} has not exactly one key ledger in the space of the registry", to.short());
            return Err(Failure::new(Exit::Refused, "no_ledger", text).hint(
                "there: `sealtide release registry follow SPACE` with the role write, and `sealtide keys new` where it has no keys",
            ));
        };
        let writer = sealtide_releases::Writer { node: to, ledger };
        let handing = desk.clone();
        let revision = super::off(move || handing.hand_over(&writer)).await?;
        self.tend_registry().await?;
        Ok(revision)
    }

    fn not_shared_yet(&self) -> Result<(), Failure> {
        match self.known_registry() {
            None => Ok(()),
            Some(shared) => {
                let text = format!("the registry of {} is shared or followed already", self.label(&shared.space()));
                Err(Failure::usage("registry_shared", text).hint("`sealtide release registry leave` ends that"))
            }
        }
    }

    fn put_shared(
        &self,
        space: SpaceId,
        first: &Address,
        looked_at: Option<Arc<SharedRegistry>>,
    ) -> Result<(), Failure> {
        let known = self.known();
        known.put_setting(FIRST_SETTING, Some(first.as_str())).map_err(store_failure)?;
        known.put_setting(SPACE_SETTING, Some(&space.to_string())).map_err(store_failure)?;
        *lock(&self.0.registry.known) = looked_at.map(Some);
        self.0.registry.news.notify_one();
        Ok(())
    }

    /// Copies what is new here, looks at what is new there, and goes on writing when another handed the registry over.
    async fn tend_registry(&self) -> Result<(), Failure> {
        let _alone = self.0.registry.tending.lock().await;
        let asked = self.clone();
        let Some(shared) = super::off(move || Ok(asked.shared_registry())).await? else { return Ok(()) };
        if let Some(desk) = self.open_desk() {
            self.copy_frames(&desk, &shared).await?;
        }
        let looking = shared.clone();
        let looked = super::off(move || Ok(looking.look())).await?;
        self.tell_looked(&shared, looked);
        let Some(state) = shared.state().filter(|state| state.writer.node == self.id()) else { return Ok(()) };
        let desk = self.desk(false)?;
        let (taking, revision, first) = (desk.clone(), state.registry.revision(), shared.first().clone());
        super::off(move || {
            let begun = taking.frames("registry", 0, 1)?;
            let is_another = begun.first().is_none_or(|own| *own.address() != first);
            let is_back = taking.handed_to().is_some() && revision > taking.registry_revision();
            if taking.as_writer() == state.writer && (is_another || is_back) {
                taking.take_over(&shared.frames())?;
            }
            Ok(())
        })
        .await
    }

    /// Puts frames of the own ledger, and of the registry where this home wrote it, into the shared space.
    async fn copy_frames(&self, desk: &Arc<Desk>, shared: &Arc<SharedRegistry>) -> Result<(), Failure> {
        let space = shared.space();
        if self.engine().role(&self.id(), &space) < Some(Role::Write) || !desk.has_pair() {
            return Ok(());
        }
        let (desk, store, first) = (desk.clone(), self.store().clone(), shared.first().clone());
        let missing = super::off(move || {
            let Some(view) = store.view(&space) else { return Ok(Vec::new()) };
            let own = desk.node();
            let mut missing = Vec::new();
            if !writers_in(&view).contains_key(&own.id) {
                missing.push(writer_frame(&own.id, own.key.public()));
            }
            let is_here = |frame: &Verified| view.contains(&frame.sid());
            missing.extend(missing_of(&desk, "keyring", &is_here)?);
            if desk.frames("registry", 0, 1)?.first().is_some_and(|own| *own.address() == first) {
                missing.extend(missing_of(&desk, "registry", &is_here)?);
            }
            Ok(missing)
        })
        .await?;
        for batch in missing.chunks(BATCH) {
            self.engine().commit_local(space, batch.to_vec()).await.map_err(store_failure)?;
        }
        Ok(())
    }

    fn tell_looked(&self, shared: &SharedRegistry, looked: Looked) {
        for (address, why) in looked.refused {
            tracing::warn!(%address, %why, "a frame of the registry does not count");
            let event = AuditEvent::new("registry:frame_refused", "#FF0000").member("frame", address);
            self.audit().event(&event.member("reason", why));
        }
        if let Some((left, right)) = looked.forked {
            let event = AuditEvent::new("registry:forked", "#FF0000").member("first", left);
            self.audit().event(&event.member("second", right));
        }
        let Some(state) = shared.state().filter(|state| looked.moved && state.writer.node != self.id()) else { return };
        let told = json!({
            "type": "version_changed", "changes": [], "revision": state.registry.revision(),
            "keyVersion": state.signed_by.to_string(),
        });
        let _ = self.0.notices.send(Notice::VersionChanged(told.to_string().into()));
        let _ = self.0.notices.send(Notice::KeysMoved);
    }

    /// Whatever becomes durable behind the desk is copied soon.
    pub(super) fn watch_desk(&self, desk: &Desk) {
        let (node, mut moved, mut stop) = (self.clone(), desk.moved(), self.stopping());
        tokio::spawn(async move {
            loop {
                node.0.registry.news.notify_one();
                tokio::select! {
                    changed = moved.changed() => if changed.is_err() { return },
                    _ = stop.wait_for(|stopped| *stopped) => return,
                }
            }
        });
    }

    /// Keeps the copy and what is seen of it up to date, and answers nodes that pass bumps on.
    pub(super) fn keep_registry(&self) {
        self.answer_nodes();
        let (node, mut events, mut stop) = (self.clone(), self.engine().subscribe(), self.stopping());
        tokio::spawn(async move {
            loop {
                match node.tend_registry().await {
                    Ok(()) => {}
                    Err(failure) if failure.exit == Exit::Interrupted => return,
                    Err(failure) => tracing::warn!(%failure, "the shared registry was not looked after"),
                }
                let space = node.known_registry().map(|shared| shared.space());
                let news = async {
                    loop {
                        match events.recv().await {
                            Ok(Event::Changed { space: changed, .. }) if Some(changed) == space => return true,
                            Ok(_) => {}
                            Err(broadcast::error::RecvError::Lagged(_)) => return true,
                            Err(broadcast::error::RecvError::Closed) => return false,
                        }
                    }
                };
                tokio::select! {
                    goes_on = news => if !goes_on { return },
                    () = node.0.registry.news.notified() => {}
                    _ = stop.wait_for(|stopped| *stopped) => return,
                }
            }
        });
    }

    // --- bumps of other nodes ---

    /// Lets the writer bump.
    ///
    /// # Errors
    /// What it says; [`Code::WriterUnreachable`] when there is no session with it, [`Code::StateConflict`] for a forked registry.
    // Spec: GW-108
    pub(crate) async fn pass_on_bump(&self, to: &SharedState, request: &BumpRequest, way: Way) -> Result<Bumped, Code> {
        if to.forked.is_some() {
            return Err(Code::StateConflict);
        }
        let shared = self.shared_registry().ok_or(Code::WriterUnreachable)?;
        let (space, first) = (shared.space(), shared.first().as_str().to_owned());
        let bump = PassedOn { space, first, way, request: request.clone() };
        let done = match self.link().session(&to.writer.node).map(|session| session.open(1, BUMP_CHANNEL)) {
            Some(Ok(channel)) => pass_on(&channel, &bump).await,
            _ => Err(Code::WriterUnreachable),
        };
        let event = AuditEvent::normal("bump:passed_on").member("to", to.writer.node);
        self.audit().event(&match &done {
            Ok(done) => event.member("revision", done.revision),
            Err(code) => event.member("error", code.name()),
        });
        done
    }

    fn answer_nodes(&self) {
        let (node, mut stop) = (self.clone(), self.stopping());
        let mut channels = self.engine().serve_channels(BUMP_CHANNEL);
        let places = Arc::new(Places::default());
        tokio::spawn(async move {
            loop {
                let (peer, channel) = tokio::select! {
                    Some(opened) = channels.recv() => opened,
                    _ = stop.wait_for(|stopped| *stopped) => return,
                };
                let (node, places) = (node.clone(), places.clone());
                tokio::spawn(async move {
                    // Who may not bump takes no place.
                    match node.may_pass_on(&peer) {
                        Err(code) => answer_passed_on(&channel, async |_| Err(code)).await,
                        Ok(()) => {
                            let Some(_place) = places.take(peer).await else { return };
                            answer_passed_on(&channel, |bump| node.bump_for(peer, bump)).await;
                        }
                    }
                });
            }
        });
    }

    /// Whether a peer may bump here: it must have the registry, and may write to its space.
    fn may_pass_on(&self, peer: &NodeId) -> Result<(), Code> {
        // A registry that is not here and one that is not granted get the same answer.
        let shared = self.known_registry().ok_or(Code::NotFound)?;
        match self.engine().role(peer, &shared.space()) {
            None => Err(Code::NotFound),
            Some(Role::Read) => Err(Code::Forbidden),
            Some(_) => Ok(()),
        }
    }

    /// A bump that a peer passed on.
    async fn bump_for(&self, peer: NodeId, bump: PassedOn) -> Result<Bumped, Code> {
        // It may have waited for its place.
        self.may_pass_on(&peer)?;
        let shared = self.known_registry().filter(|shared| shared.space() == bump.space);
        shared.filter(|shared| shared.first().as_str() == bump.first).ok_or(Code::NotFound)?;
        let desk = self.open_desk().ok_or(Code::WriterUnreachable)?;
        let done = tokio::task::spawn_blocking(move || desk.bump_for(&peer, &bump.request, bump.way)).await;
        done.map_err(|_| Code::StorageError)?.map_err(|refused| refused.code())
    }
}

/// The frames of the desk that are not in a place where those before them are, oldest first.
fn missing_of(desk: &Desk, ib: &'static str, is_here: &dyn Fn(&Verified) -> bool) -> Result<Vec<Verified>, Failure> {
    // Halving: what is there is there from the first frame on.
    let (mut low, mut high) = (0_u64, desk.count(ib)?);
    while low < high {
        let middle = if high - low <= 2 { high - 1 } else { low + (high - low) / 2 };
        match desk.frames(ib, middle, 1)?.first() {
            Some(frame) if is_here(frame) => low = middle + 1,
            _ => high = middle,
        }
    }
    desk.frames(ib, low, usize::MAX)
}

fn not_shared() -> Failure {
    Failure::usage("registry_not_shared", "no registry is shared or followed here")
        .hint("`sealtide release registry share` shares it, `sealtide release registry follow SPACE` follows one")
}
