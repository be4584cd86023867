//! The application behind the door: one writer for keys and registry, durable before anything is told.
//!
//! Both are timelines (ib `keyring`, ib `registry`) in one space of kind `app`. A frame holds the
//! whole state, so the newest is all that is needed of the registry; of the ledger every record is verified at start.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealtide_crypto::GatewayContext;
use sealtide_gateway::{App, Bumped, Code, KeyFacts, Way};
use sealtide_ibgib::{Object, Relations, Stamp, Verified, genesis, space_genesis, try_evolve, uuid};
use sealtide_identity::SpaceId;
use sealtide_identity::keyring::{
    Algorithm, KeyOffers, KeyPolicy, KeyVersion, Keyring, LedgerRecord, LedgerRow, LoadWarning, LoadedKeys, SignError,
    VersionState, environment_name,
};
use sealtide_releases::{BumpError, BumpRequest, Crypto, REGISTRY_BYTES_MAX, Registry, plan};
use sealtide_store::{SpaceLabel, Store};
use sealtide_sync::{CommitRequest, SpaceView};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::key_file::KeyFile;
use crate::audit::Audit;
use crate::failure::{Exit, Failure};
use crate::home::{Home, Identity};
use crate::known::Known;
use crate::real::now;
use crate::world::OsEntropy;

/// The app whose registry this is.
const APP: &str = "default";
/// The entity whose tree moves when none is named.
const ROOT: &str = "global:main";
/// The kind of the space of an app. It is not shared: that a registry has one writer is not enforced at sync yet.
pub const APP_KIND: &str = "app";

/// Keys and registry of a node.
pub struct Desk {
    store: Store,
    space: SpaceId,
    identity: Identity,
    audit: Arc<Audit>,
    state: Mutex<State>,
}

struct State {
    ring: Keyring,
    registry: Arc<Registry>,
    frame: Verified,
    last: Option<KeyVersion>,
}

impl Desk {
    /// Opens what the store holds, or begins: keys from the environment or the key file, the registry from `file` or the
    /// built-in sample. Returns what the operator should know.
    ///
    /// # Errors
    /// Exit 2 for secrets or a registry that are refused, 5 for a ledger that does not verify.
    // Spec: GW-45, GW-47, GW-56, GW-97
    pub fn open(
        home: &Home,
        store: Store,
        identity: Identity,
        audit: Arc<Audit>,
        file: Option<&Path>,
    ) -> Result<(Arc<Self>, Vec<String>), Failure> {
        let keys_at = KeyFile::of(home)?;
        let mut keys = keys_at.read()?;
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| environment_name(name).is_some())?;
            Some((name, value.into_encoded_bytes()))
        });
        let offers = KeyOffers {
            environment: environment.collect(),
            stored: keys.made.as_deref().copied(),
            may_generate: true,
            ..KeyOffers::default()
        };
        let loaded = LoadedKeys::load(&offers, &mut OsEntropy);
        let loaded = loaded.map_err(|error| Failure::usage("signing_key", error.to_string()))?;
        let mut told: Vec<String> = loaded.warnings.iter().map(|warning| warning_text(*warning)).collect();
        if let Some(made) = loaded.generated() {
            keys.made = Some(Zeroizing::new(*made));
            keys_at.write(&keys)?;
        }
        let space = app_space(&store, &identity)?;
        let ledger = Frames { store: &store, space: &space, ib: "keyring" };
        let mut frames = ledger.all()?;
        if frames.is_empty() && keys.epoch > 0 {
            let found = "the key file has seen a key ledger, and the store holds none";
            return Err(Failure::new(Exit::Verification, "key_ledger", found));
        }
        if frames.is_empty() {
            let first = Keyring::first_record(&loaded, &identity.key, &identity.id.to_string(), now());
            let first = first.map_err(|error| Failure::failed("key_ledger", error.to_string()))?;
            frames.push(ledger.begin("record", first.to_value())?);
        }
        let records: Result<Vec<LedgerRecord>, _> =
            frames.iter().map(|frame| LedgerRecord::parse(&member(frame, "record"))).collect();
        let broken = |error: String| Failure::new(Exit::Verification, "key_ledger", error);
        let records = records.map_err(|error| broken(error.to_string()))?;
        let (first, tip) = (&frames[0], &records[records.len() - 1]);
        let row = LedgerRow::of(tip, first.address().as_str(), None);
        let public = identity.key.public();
        let policy = KeyPolicy::default();
        let ring = Keyring::open(loaded, first.address().as_str(), &records, &row, keys.epoch, public, policy);
        let ring = ring.map_err(|error| broken(error.to_string()))?;
        if keys.epoch != tip.epoch {
            keys.epoch = tip.epoch;
            keys_at.write(&keys)?;
        }
        let (frame, registry) = open_registry(&store, &space, file, &mut told)?;
        let last = member(&frame, "lastSigVersion").as_str().and_then(KeyVersion::parse);
        let state = Mutex::new(State { ring, registry: Arc::new(registry), frame, last });
        Ok((Arc::new(Self { store, space, identity, audit, state }), told))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl App for Desk {
    fn keys(&self) -> KeyFacts {
        let state = self.lock();
        let v1 = state.ring.ledger().state_at(KeyVersion::V1, now().wall_ms);
        KeyFacts {
            ledger: state.ring.ledger().tip().active().number(),
            loaded: state.ring.loaded().last().map_or(0, KeyVersion::number),
            v1_counts: matches!(v1, Some(VersionState::Active | VersionState::VerifyOnly))
                && !state.ring.ledger().tip().forced(),
        }
    }

    fn key_status(&self) -> (KeyVersion, u64, Option<KeyVersion>) {
        let state = self.lock();
        (state.ring.ledger().tip().active(), state.ring.ledger().tip().epoch, state.last)
    }

    fn registry(&self) -> Arc<Registry> {
        self.lock().registry.clone()
    }

    fn lifecycle(&self) -> &'static str {
        "RUNNING"
    }

    // Spec: GW-65, GW-66
    fn bump(&self, request: &BumpRequest, way: Way) -> Result<Bumped, Code> {
        let mut state = self.lock();
        let now = now();
        let plan = plan(&state.registry, request, ROOT).map_err(|error| match error {
            BumpError::NotFound(_) => Code::EntityNotFound,
            _ => Code::InvalidVersion,
        })?;
        let (algorithm, may_fall_back) = match (way, request.crypto) {
            (Way::Rung(rung), Some(Crypto::Hmac)) if rung.number() > 1 => return Err(Code::InvalidField),
            (Way::Rung(rung), _) if rung.number() > 1 => (Algorithm::Ed25519, false),
            (_, Some(Crypto::Ed25519)) => (Algorithm::Ed25519, true),
            _ => (Algorithm::HmacSha256, true),
        };
        let (bytes, context) = (plan.bumped.as_bytes(), GatewayContext::Bump);
        let signed = state.ring.sign(bytes, context, algorithm, request.key_version, may_fall_back, now.wall_ms);
        let signed = signed.map_err(|error| match error {
            SignError::Algorithm { .. } => Code::InvalidField,
            _ => Code::KeyUnavailable,
        })?;
        let (key_version, timestamp) = (signed.version, now.wall_ms);
        if request.dry_run {
            let revision = state.registry.revision();
            return Ok(Bumped { plan, signed: None, key_version, timestamp, revision });
        }
        let data = registry_data(&plan.after, Some(signed.version)).ok_or(Code::StorageError)?;
        let frame = try_evolve(&state.frame, data, Relations::new(), Stamp { ms: now.wall_ms });
        let frame = frame.map_err(|_| Code::StorageError)?;
        commit(&self.store, &self.space, frame.clone()).map_err(|_| Code::StorageError)?;
        (state.registry, state.frame) = (Arc::new(plan.after.clone()), frame);
        state.last = Some(signed.version);
        let revision = plan.after.revision();
        drop(state);
        let (scope, entity) = (request.scope.name(), request.entity.as_deref().unwrap_or(ROOT));
        let (revision_text, version) = (revision.to_string(), key_version.to_string());
        let members = [("scope", scope), ("entityId", entity), ("revision", &revision_text), ("keyVersion", &version)];
        self.audit.note("version_bump_success", &members);
        Ok(Bumped { plan, signed: Some(signed), key_version, timestamp, revision })
    }

    fn wall_ms(&self) -> u64 {
        now().wall_ms
    }
}

impl Desk {
    /// Who keeps these keys.
    pub fn node(&self) -> &Identity {
        &self.identity
    }
}

/// The frames of the one timeline with this ib.
struct Frames<'a> {
    store: &'a Store,
    space: &'a SpaceId,
    ib: &'static str,
}

impl Frames<'_> {
    /// All, oldest first.
    fn all(&self) -> Result<Vec<Verified>, Failure> {
        let Some(view) = self.store.view(self.space) else { return Ok(Vec::new()) };
        let tips: Vec<_> = view.timelines_of(self.ib).into_iter().flat_map(|info| info.tips).collect();
        let [tip] = tips.as_slice() else {
            let told = format!("{} timelines {} in the space of the gateway", tips.len(), self.ib);
            let forked = Failure::new(Exit::Verification, "forked", told);
            return if tips.is_empty() { Ok(Vec::new()) } else { Err(forked) };
        };
        let lost = || Failure::new(Exit::Verification, "store_damaged", format!("a frame of {} is lost", self.ib));
        let record = view.record(&tip.sid).ok_or_else(lost)?;
        let facts = record.frame().ok_or_else(lost)?;
        let sids = view.frames(&facts.timeline, 0, facts.n, usize::MAX);
        sids.iter().map(|sid| view.record(sid).ok_or_else(lost)).collect()
    }

    fn begin(&self, name: &str, value: Value) -> Result<Verified, Failure> {
        let data = Object::from_iter([(name.to_owned(), value)]);
        let frame = genesis(self.ib, data, Relations::new(), Stamp { ms: now().wall_ms }, &uuid(&mut OsEntropy));
        commit(self.store, self.space, frame.clone())?;
        Ok(frame)
    }
}

fn open_registry(
    store: &Store,
    space: &SpaceId,
    file: Option<&Path>,
    told: &mut Vec<String>,
) -> Result<(Verified, Registry), Failure> {
    let frames = Frames { store, space, ib: "registry" };
    if let Some(frame) = frames.all()?.pop() {
        if file.is_some() {
            told.push("--registry is ignored: the store holds a registry".to_owned());
        }
        let revision = member(&frame, "revision").as_u64().unwrap_or(0);
        let read = Registry::read(member(&frame, "entities").to_string().as_bytes(), revision);
        let damaged = |error| Failure::new(Exit::Verification, "registry", format!("the stored registry: {error}"));
        return Ok((frame, read.map_err(damaged)?));
    }
    let registry = match file {
        Some(path) => {
            let size = std::fs::metadata(path)?.len();
            if size > REGISTRY_BYTES_MAX as u64 {
                return Err(Failure::usage("registry", format!("{} is too long", path.display())));
            }
            Registry::read(&std::fs::read(path)?, 1)
                .map_err(|error| Failure::usage("registry", format!("{}: {error}", path.display())))?
        }
        None => {
            told.push("no registry yet: the built-in sample is shown; --registry FILE brings one".to_owned());
            Registry::sample()
        }
    };
    let refused = || Failure::usage("registry", "the registry holds text that is not Unicode");
    let data = registry_data(&registry, None).ok_or_else(refused)?;
    let frame = genesis("registry", data, Relations::new(), Stamp { ms: now().wall_ms }, &uuid(&mut OsEntropy));
    commit(store, space, frame.clone())?;
    Ok((frame, registry))
}

/// The members of a registry frame; none for entities that cannot be written as Unicode.
fn registry_data(registry: &Registry, last: Option<KeyVersion>) -> Option<Object> {
    let entities: Value = serde_json::from_str(&registry.text()).ok()?;
    let members: BTreeMap<&str, Value> = BTreeMap::from([
        ("app", json!(APP)),
        ("revision", json!(registry.revision())),
        ("entities", entities),
        ("lastSigVersion", json!(last.map(|version| version.to_string()))),
    ]);
    Some(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn member(frame: &Verified, name: &str) -> Value {
    frame.object().and_then(|data| data.get(name).cloned()).unwrap_or_default()
}

fn commit(store: &Store, space: &SpaceId, record: Verified) -> Result<(), Failure> {
    let request =
        CommitRequest { saga: None, staged: None, records: vec![record], expected: Vec::new(), strict: false };
    store.commit(space, &request).map(drop).map_err(|error| Failure::failed("store", error.to_string()))
}

/// The space of the app, made at the first start. Its id is kept as a setting: another space may have its name.
fn app_space(store: &Store, identity: &Identity) -> Result<SpaceId, Failure> {
    const SETTING: &str = "gateway.space";
    let failed = |error: &dyn std::fmt::Display| Failure::failed("store", error.to_string());
    let known = Known::of(store);
    if let Some(space) = known.setting(SETTING).and_then(|text| text.parse().ok()) {
        return Ok(space);
    }
    let stamp = Stamp { ms: now().wall_ms };
    let first = space_genesis(APP, APP_KIND, &identity.id.to_string(), stamp, &uuid(&mut OsEntropy));
    let space = store.create_space(first).map_err(|error| failed(&error))?;
    let label = SpaceLabel { name: format!("app-{APP}"), kind: APP_KIND.to_owned(), dir: None };
    known.put_label(&space, Some(&label)).map_err(|error| failed(&error))?;
    known.put_setting(SETTING, Some(&space.to_string())).map_err(|error| failed(&error))?;
    Ok(space)
}

fn warning_text(warning: LoadWarning) -> String {
    match warning {
        LoadWarning::Generated => "a signing key v1 was made; set VERSION_SIGNING_KEY to use one of yours",
        LoadWarning::NoPair => "the secret of v1 is no 64 lower-case hex digits: it signs HMAC only",
    }
    .to_owned()
}
