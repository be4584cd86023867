//! The keys of the gateway sign releases: manifests and heads by the active pair, and the ledger that says so. And what was
//! published is served through the door.

use sealtide_gateway::{BundleShelf, Code, ServedBundle};
use sealtide_identity::keyring::{KeyVersion, LedgerRecord, Order, PublicKeyEntry, PublicPair, VersionState};
use sealtide_releases::EntityVersion;
use sealtide_releases::bundle::{AppName, Channel, Content, Manifest, Signed};
use serde_json::json;

use super::Desk;
use super::changes::Ordered;
use super::timelines::ledger_nodes;
use crate::audit::AuditEvent;
use crate::failure::{Exit, Failure};
use crate::real::now;
use crate::releases::{App, OpenBundle, OwnKeys, Stored, Tier, Tiers};

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
        let signed = Signed::sign(make(tip.active(), tip.epoch), pair);
        // What nobody could read is not given out.
        let unreadable = |error: sealtide_releases::bundle::NotSigned| {
            Failure::failed("release", format!("what was signed cannot be read, and is given to nobody: {error}"))
        };
        Signed::parse(signed.bytes(), signed.signatures().to_vec()).map_err(unreadable)
    }

    /// The epoch of the key ledger.
    pub fn epoch(&self) -> u64 {
        self.read().ring.ledger().tip().epoch
    }

    /// The version that signs, and its public pair where it has one.
    pub(crate) fn active_pair(&self) -> (KeyVersion, Option<PublicPair>) {
        let state = self.read();
        let ledger = state.ring.ledger();
        let active = ledger.tip().active();
        let keys: Vec<&PublicKeyEntry> = ledger.keys().iter().filter(|key| key.version == active).collect();
        (active, PublicPair::of_entries(&keys))
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

impl Desk {
    /// Whether a manifest is signed by a version of the own ledger whose signatures count.
    fn counts(&self, manifest: &Signed<Manifest>) -> bool {
        let (state, version) = (self.read(), manifest.content().key_version);
        let ledger = state.ring.ledger();
        let standing = ledger.state_at(version, now().wall_ms);
        let keys: Vec<&PublicKeyEntry> = ledger.keys().iter().filter(|key| key.version == version).collect();
        let counts = matches!(standing, Some(VersionState::Active | VersionState::Prepared | VersionState::VerifyOnly));
        counts && PublicPair::of_entries(&keys).is_some_and(|pair| manifest.verify(&pair).is_ok())
    }

    /// A bundle of the version that signs is past its date: the next version signs from here on, where one is loaded.
    // Spec: GW-76
    fn force_next(&self, expired: &Manifest) {
        let next = {
            let state = self.read();
            let active = state.ring.ledger().tip().active();
            let is_usable = |version: &KeyVersion| {
                let standing = state.ring.ledger().state(*version);
                *version > active && matches!(standing, Some(VersionState::Prepared | VersionState::VerifyOnly))
            };
            let mut loaded = state.ring.loaded();
            if expired.key_version == active { loaded.find(is_usable) } else { None }
        };
        let Some(to) = next else { return };
        let reason = format!("bundle {} {} has expired", expired.name, expired.version);
        let order = Order::Force { to };
        let ordered = Ordered { order, expect: Some(expired.key_version), by: "expiry", reason: &reason };
        if let Err(refused) = self.order(&ordered) {
            tracing::warn!(%refused, "the next key version was not forced");
        }
    }
}

fn event_of(name: &str, hsl: &'static str, stored: &Stored) -> AuditEvent {
    let manifest = stored.manifest.content();
    AuditEvent::new(name, hsl)
        .member("name", &manifest.name)
        .member("version", &manifest.version)
        .member("keyVersion", manifest.key_version)
        .member("storageClass", stored.tier.class())
        .member("bytes", manifest.size)
}

impl BundleShelf for Desk {
    fn open(&self, name: &str, version: &str) -> Result<ServedBundle, Code> {
        let name = AppName::parse(name).ok_or(Code::NotFound)?;
        let stored = self.tiers().named(&name, version).map_err(|_| Code::StorageError)?.ok_or(Code::NotFound)?;
        let manifest = stored.manifest.content();
        if manifest.expiry.is_some_and(|end| now().wall_ms >= end) {
            self.note_event(event_of("bundle:expired", "#FF8C00", &stored));
            self.force_next(manifest);
            return Err(Code::BundleExpired);
        }
        let rejected = |reason: &str| {
            self.note_event(event_of("bundle:rejected", "#FF0000", &stored).member("reason", reason));
            Code::BundleInvalid
        };
        if !self.counts(&stored.manifest) {
            return Err(rejected("key"));
        }
        let path = self.tiers().file(&stored, &self.settings.archive).map_err(|failure| {
            let (bundle, hint) = (Tiers::key(&stored), failure.hint.as_deref().unwrap_or_default());
            tracing::warn!(bundle, %failure, hint, "an archived bundle cannot be served");
            Code::StorageError
        })?;
        let bundle = OpenBundle::open(&path).map_err(|_| rejected("file"))?;
        if bundle.head.manifest.bytes() != stored.manifest.bytes() {
            return Err(rejected("manifest"));
        }
        let file = std::fs::File::open(&path).map_err(|_| Code::StorageError)?;
        Ok(ServedBundle {
            file,
            size: bundle.payload_at() + manifest.size,
            payload_at: bundle.payload_at(),
            payload_hash: manifest.hash,
            class: stored.tier.class(),
            manifest: stored.manifest.to_value().to_string(),
        })
    }

    fn page(&self, prefix: &str, tier: Option<&str>, cursor: &str, limit: usize) -> Result<String, Code> {
        let mut found: Vec<(String, Stored)> = Vec::new();
        // The hot one of two comes first.
        for wanted in [Tier::Hot, Tier::Cold] {
            if tier.is_none_or(|tier| tier == wanted.class()) {
                let listed = self.tiers().list(wanted, None).map_err(|_| Code::StorageError)?;
                found.extend(listed.into_iter().map(|stored| (Tiers::key(&stored), stored)));
            }
        }
        found.retain(|(key, _)| key.starts_with(prefix) && key.as_str() > cursor);
        found.sort_by(|(left, _), (right, _)| left.cmp(right));
        found.dedup_by(|(later, _), (earlier, _)| later == earlier);
        let more = found.len() > limit;
        found.truncate(limit);
        let row = |(key, stored): &(String, Stored)| {
            let manifest = stored.manifest.content();
            json!({
                "key": key, "name": manifest.name.as_str(), "version": manifest.version.to_string(),
                "channel": manifest.channel.as_str(), "seq": manifest.seq, "keyVersion": manifest.key_version.to_string(),
                "size": manifest.size, "storageClass": stored.tier.class(),
            })
        };
        let cursor = found.last().filter(|_| more).map(|(key, _)| key);
        Ok(json!({"bundles": found.iter().map(row).collect::<Vec<_>>(), "cursor": cursor}).to_string())
    }

    fn head(&self, name: &str, channel: &str) -> Result<String, Code> {
        let (name, channel) = AppName::parse(name).zip(Channel::parse(channel)).ok_or(Code::NotFound)?;
        let own = ledger_nodes(self.store(), self.node().id);
        let keys = OwnKeys::of(&self.ledger_records().map_err(|_| Code::StorageError)?);
        let apps = App::all(self.store()).into_iter().filter(|app| app.name == name && app.is_by(&own));
        let wall_ms = now().wall_ms;
        let newest = |app: App| match keys.newest_in_time(&app, &channel, wall_ms) {
            Ok(None) => keys.newest_head(&app, &channel),
            found => found,
        };
        let heads = apps.map(|app| newest(app).map_err(|_| Code::StorageError));
        let head = heads.filter_map(Result::transpose).next().ok_or(Code::NotFound)??;
        Ok(head.to_value().to_string())
    }
}
