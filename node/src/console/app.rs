//! What a node puts behind its own door: keys and registry where it has them, the registry of another node where it follows one,
//! and else an empty registry that nobody can change.

use std::sync::Arc;

use sealtide_gateway::{
    App, Bumped, BundleShelf, BundleTaker, Code, DoorEvent, KeptSignIn, KeyDesk, KeyFacts, Notice, Upload, UploadPlace,
    Way,
};
use sealtide_identity::keyring::KeyVersion;
use sealtide_releases::bundle::AppName;
use sealtide_releases::{BumpRequest, Registry};
use tokio::sync::{Mutex, broadcast};

use super::followed::Followed;
use crate::audit::AuditEvent;
use crate::gateway::{Desk, Events, keep_sign_ins, kept_sign_ins};
use crate::node::Node;
use crate::real::now;
use crate::releases::{NotReceived, Tiers, receive};

/// The application behind the door of a node.
pub(crate) struct NodeApp {
    node: Node,
    /// What is told as long as there are no keys.
    events: Events,
    nothing: Arc<Registry>,
    followed: Followed,
    /// One bundle comes at a time.
    uploads: Arc<Mutex<()>>,
}

impl NodeApp {
    /// Of a node; its keys and registry may come later.
    ///
    /// # Errors
    /// When no thread can be had for the audit.
    pub(crate) fn new(node: Node) -> std::io::Result<Self> {
        let events = Events::new(node.shared_audit().clone())?;
        let nothing = Registry::read(b"[]", 0).map_err(std::io::Error::other)?;
        let followed = Followed(node.clone());
        Ok(Self { node, events, nothing: Arc::new(nothing), followed, uploads: Arc::default() })
    }

    fn desk(&self) -> Option<&Arc<Desk>> {
        self.node.desk_if_open()
    }
}

impl App for NodeApp {
    fn keys(&self) -> KeyFacts {
        if let Some(followed) = self.node.followed() {
            return Followed::facts(&followed);
        }
        self.desk().map_or(KeyFacts { ledger: 1, loaded: 1, v1_counts: true }, |desk| desk.keys())
    }

    fn key_status(&self) -> (KeyVersion, u64, Option<KeyVersion>) {
        if let Some(followed) = self.node.followed() {
            return Followed::status(&followed);
        }
        self.desk().map_or((KeyVersion::V1, 0, None), |desk| desk.key_status())
    }

    fn registry(&self) -> Arc<Registry> {
        if let Some(followed) = self.node.followed() {
            return followed.registry;
        }
        self.desk().map_or_else(|| self.nothing.clone(), |desk| desk.registry())
    }

    fn registry_signature(&self) -> Option<String> {
        if let Some(followed) = self.node.followed() {
            return Some(followed.signature);
        }
        self.desk().and_then(|desk| desk.registry_signature())
    }

    fn lifecycle(&self) -> &'static str {
        self.desk().map_or("IDLE", |desk| desk.lifecycle())
    }

    fn bump(&self, request: &BumpRequest, way: Way) -> Result<Bumped, Code> {
        if let Some(followed) = self.node.followed() {
            // Whoever calls this may wait.
            let passing = self.node.pass_on_bump(&followed, request, way);
            return tokio::runtime::Handle::current().block_on(passing);
        }
        self.desk().map_or(Err(Code::KeyUnavailable), |desk| App::bump(&**desk, request, way))
    }

    fn wall_ms(&self) -> u64 {
        now().wall_ms
    }

    fn key_desk(&self) -> Option<&dyn KeyDesk> {
        if self.node.followed().is_some() {
            return Some(&self.followed);
        }
        self.desk().map(|desk| &**desk as &dyn KeyDesk)
    }

    fn bundles(&self) -> Option<&dyn BundleShelf> {
        self.desk().map(|desk| &**desk as &dyn BundleShelf)
    }

    fn bundle_taker(&self) -> Option<&dyn BundleTaker> {
        self.desk().map(|_| self as &dyn BundleTaker)
    }

    fn notices(&self) -> Option<broadcast::Receiver<Notice>> {
        Some(self.node.notices())
    }

    fn kept_sign_ins(&self) -> Vec<KeptSignIn> {
        kept_sign_ins(self.node.store())
    }

    fn keep_sign_ins(&self, all: &[KeptSignIn]) {
        keep_sign_ins(self.node.store(), all);
    }

    fn take_sign_in_code(&self, code: &str) -> bool {
        self.node.take_sign_in_code(code)
    }

    fn note(&self, event: DoorEvent) {
        match self.desk() {
            Some(desk) => App::note(&**desk, event),
            None => self.events.note(AuditEvent::of_door(event)),
        }
    }
}

impl BundleTaker for NodeApp {
    fn place(&self) -> Result<UploadPlace, Code> {
        let turn = self.uploads.clone().try_lock_owned().map_err(|_| Code::Overload)?;
        let path = Tiers::of(self.node.home()).coming().map_err(|_| Code::StorageError)?;
        Ok(UploadPlace::new(path, turn))
    }

    fn take(&self, upload: &Upload<'_>) -> Result<String, Code> {
        let name = AppName::parse(upload.name).ok_or(Code::InvalidField)?;
        // Whoever calls this may wait.
        let taking = receive(&self.node, &name, upload.version, upload.file);
        let taken = tokio::runtime::Handle::current().block_on(taking);
        let by = upload.by.unwrap_or("local");
        let event = |event: &str, hsl| {
            AuditEvent::new(event, hsl).member("name", &name).member("version", upload.version).member("principal", by)
        };
        match taken {
            Ok(published) => {
                let content = published.manifest.content();
                let event = event("bundle:received", "#9D4EDD");
                self.node.audit().event(&event.member("channel", &content.channel).member("seq", content.seq));
                Ok(published.manifest.to_value().to_string())
            }
            Err(refused) => {
                tracing::warn!(%refused, app = %name, version = upload.version, "a bundle was not taken");
                let reason = NotReceived::code(&refused).name();
                self.node.audit().event(&event("bundle:rejected", "#FF4500").member("reason", reason));
                Err(refused.code())
            }
        }
    }
}
