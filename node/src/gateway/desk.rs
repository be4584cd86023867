//! The application behind the door: one writer for keys and registry, durable before anything is told.
//!
//! Both are timelines (ib `keyring`, ib `registry`) in one space of kind `app`. A frame holds the
//! whole state, so the newest is all that is needed of the registry; of the ledger every record is verified at start.
//!
//! Whoever changes something holds the [`Turn`]; readers look at the [`State`] and never wait for the disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use sealtide_crypto::Label;
use sealtide_gateway::{App, Bumped, BundleShelf, Code, DoorEvent, KeptSignIn, KeyDesk, KeyFacts, Notice, Sample, Way};
use sealtide_ibgib::Verified;
use sealtide_identity::keyring::{
    KeyOffers, KeyPolicy, KeyVersion, Keyring, KeyringError, LedgerRecord, LedgerRow, LoadError, LoadWarning,
    LoadedKeys, Order, VersionState, environment_name, parse_time,
};
use sealtide_identity::{NodeId, SpaceId};
use sealtide_releases::{BumpRequest, Registry};
use sealtide_store::Store;
use tokio::sync::{broadcast, watch};
use zeroize::{Zeroize, Zeroizing};

use super::alerts::{Alerts, Fact};
use super::changes::Ordered;
use super::events::Events;
use super::figures::Figures;
use super::key_file::{KeyFile, Keys};
use super::key_places::{read_credentials, read_key_files};
use super::registry::{self, Origin};
use super::sign_in_codes::{CODE_MS, SignInCodes};
use super::thread_state::ThreadState;
use super::timelines::{Frames, app_space, data_of, known_space, ledger_address, member};
use super::watch::Told;
use crate::audit::{Audit, AuditEvent, CheckpointSigner};
use crate::failure::{Exit, Failure};
use crate::home::{Home, Identity};
use crate::real::now;
use crate::releases::{ArchiveSettings, Tier, Tiers};
use crate::world::OsEntropy;

/// Notices that wait for the door; one that is further behind looks at everything anew.
const NOTICES: usize = 64;
/// What to do without the secret that signs.
const LOST: &str = "bring it back to where it was, or `sealtide keys recover` makes another in its place, with the owner's recovery words";
/// What to do about a ledger whose taking over was cut off.
const TAKEN: &str = "`sealtide keys recover --app APP` takes it over, with the owner's recovery words";

/// What an operator decides about keys and registry.
#[derive(Clone, Debug, Default)]
pub struct DeskSettings {
    /// A JSON array of entities, for a store without a registry.
    pub registry: Option<PathBuf>,
    /// Files with the secrets of versions.
    pub key_files: BTreeMap<KeyVersion, PathBuf>,
    /// Grace, probation, fallback.
    pub policy: KeyPolicy,
    /// Nodes whose signals are followed.
    pub supervisors: Vec<NodeId>,
    /// Days after which a version is said to be old; 0: never.
    pub rotate_after_days: u64,
    /// Whether the daily look rotates by itself.
    pub auto_rotate: bool,
    /// Whether v1 may be made when no key is configured; none: where the listener is not public.
    pub generate: Option<bool>,
    /// Where archived bundles stand.
    pub archive: ArchiveSettings,
}

/// Keys and registry of a node.
pub struct Desk {
    store: Store,
    space: SpaceId,
    identity: Identity,
    audit: Arc<Audit>,
    key_file: KeyFile,
    tiers: Tiers,
    pub(super) settings: DeskSettings,
    turn: Mutex<Turn>,
    state: RwLock<State>,
    notices: broadcast::Sender<Notice>,
    /// Goes up when a frame of keys or registry became durable.
    moved: watch::Sender<u64>,
    events: Events,
    pub(super) figures: Figures,
    told: Mutex<Told>,
    alerts: Mutex<Alerts>,
    thread: Mutex<ThreadState>,
    events_by_name: Mutex<BTreeMap<String, u64>>,
    codes: Mutex<SignInCodes>,
    url: OnceLock<String>,
}

/// What the one writer has in hand.
pub(super) struct Turn {
    pub(super) keys: Keys,
    pub(super) ledger: Verified,
    pub(super) registry: Verified,
    /// What the frame says. It may be ahead of what everybody sees: that is swapped when the frame is durable.
    pub(super) ahead: Arc<Registry>,
    /// Who writes the registry now; none: this node.
    pub(super) writer: Option<NodeId>,
}

/// What everybody sees.
pub(super) struct State {
    pub(super) ring: Keyring,
    pub(super) registry: Arc<Registry>,
    pub(super) last: Option<KeyVersion>,
    /// Of the registry.
    pub(super) signature: Option<String>,
}

impl Desk {
    /// Whether the store holds keys and a registry of before.
    pub fn exists(store: &Store) -> bool {
        known_space(store).is_some()
    }

    /// Opens what the store holds, or begins: keys from the environment or the key file, the registry from a file or the
    /// built-in sample. Returns what the operator should know. Versions that are configured and new join the ledger, and
    /// what a crash left unfinished is finished.
    ///
    /// # Errors
    /// Exit 2 for secrets or a registry that are refused, 5 for a ledger that does not verify.
    // Spec: GW-45, GW-47, GW-56, GW-59, GW-97
    pub fn open(
        home: &Home,
        store: Store,
        identity: Identity,
        audit: Arc<Audit>,
        settings: DeskSettings,
    ) -> Result<(Arc<Self>, Vec<String>), Failure> {
        let key_file = KeyFile::of(home)?;
        let mut keys = key_file.read()?;
        let is_begin = known_space(&store).is_none_or(|space| !Frames::is_begun(&store, &space, "keyring"));
        let loaded = load_keys(&keys, &settings, is_begin).inspect_err(|failure| {
            let event = AuditEvent::new("key:refused", "#FF0000").member("source", "configuration");
            audit.event(&event.member("reason", &failure.message));
        })?;
        let is_generated = loaded.generated().is_some();
        let mut told: Vec<String> = loaded.warnings.iter().map(|warning| warning_text(*warning)).collect();
        if let Some(made) = loaded.generated() {
            keys.made.insert(KeyVersion::V1, Zeroizing::new(*made));
            key_file.write(&keys)?;
        }
        let space = app_space(&store, &identity)?;
        let (ring, ledger) = open_ring(&store, &space, &identity, loaded, keys.epoch, settings.policy)?;
        let epoch = ring.ledger().tip().epoch;
        let is_gone = |version: &KeyVersion| ring.ledger().state(*version) == Some(VersionState::Destroyed);
        let gone: Vec<KeyVersion> = keys.made.keys().copied().filter(is_gone).collect();
        if keys.epoch != epoch || !gone.is_empty() {
            keys.epoch = epoch;
            gone.iter().for_each(|version| drop(keys.made.remove(version)));
            key_file.write(&keys)?;
        }
        let frames = Frames { store: &store, space: &space, ib: "registry" };
        let origin = Origin { writer: &identity.id, ring: &ring, last: None };
        let opened = registry::open(&frames, &origin, settings.registry.as_deref(), &mut told)?;
        let (frame, registry, writer) = (opened.frame, opened.registry, opened.writer);
        let last = member(&frame, "lastSigVersion").as_str().and_then(KeyVersion::parse);
        let events = Events::new(audit.clone())?;
        let registry = Arc::new(registry);
        let desk = Self {
            store,
            space,
            identity,
            audit,
            key_file,
            tiers: Tiers::of(home),
            settings,
            state: RwLock::new(State {
                ring,
                registry: registry.clone(),
                last,
                signature: registry::signature_of(&frame),
            }),
            turn: Mutex::new(Turn { keys, ledger, registry: frame, ahead: registry, writer }),
            notices: broadcast::Sender::new(NOTICES),
            moved: watch::Sender::new(0),
            events,
            figures: Figures::default(),
            told: Mutex::default(),
            alerts: Mutex::default(),
            thread: Mutex::default(),
            events_by_name: Mutex::default(),
            codes: Mutex::default(),
            url: OnceLock::new(),
        };
        let desk = Arc::new(desk);
        let signer: Arc<dyn CheckpointSigner> = desk.clone();
        desk.audit.sign_with(Arc::downgrade(&signer));
        desk.finish_outbox()?;
        if is_generated {
            let event = AuditEvent::new("key:generated", "#FF8C00").member("version", KeyVersion::V1);
            desk.note_event(event.member("source", "generated"));
        }
        desk.add_unknown(&mut told);
        Ok((desk, told))
    }

    /// Reads secrets again, from where `settings` say; new versions join the ledger. Returns what the operator should know.
    ///
    /// # Errors
    /// As [`Desk::open`]; then the keys of before hold.
    // Spec: GW-85
    pub fn reread_keys(&self, settings: &DeskSettings) -> Result<Vec<String>, Failure> {
        {
            let mut turn = self.turn();
            let loaded = load_keys(&turn.keys, settings, false)?;
            let (epoch, policy) = (turn.keys.epoch, self.settings.policy);
            let (ring, ledger) = open_ring(&self.store, &self.space, &self.identity, loaded, epoch, policy)?;
            self.write().ring = ring;
            turn.ledger = ledger;
        }
        let mut told = Vec::new();
        self.add_unknown(&mut told);
        self.notify(Notice::KeysMoved);
        Ok(told)
    }

    /// Versions that are configured and that the ledger does not know become prepared.
    fn add_unknown(&self, told: &mut Vec<String>) {
        let mut turn = self.turn();
        let unknown = self.read().ring.unknown();
        for version in unknown {
            let order = Ordered { order: Order::Add(version), expect: None, by: "configuration", reason: "" };
            match self.follow(&mut turn, &order) {
                Ok(_) => told.push(format!("{version} joined the key ledger; `sealtide keys rotate` makes it sign")),
                Err(refused) => told.push(format!("{version} did not join the key ledger: {refused}")),
            }
        }
    }

    /// A door with this address is open in front.
    pub fn opened(&self, url: String) {
        let _ = self.url.set(url);
    }

    /// Draws a one-time code for a browser of this machine: the code, the address of the door, and the code's life in
    /// milliseconds. None where no door is open.
    pub(crate) fn sign_in_code(&self) -> Option<(Zeroizing<String>, &str, u64)> {
        let url = self.url.get()?;
        let code = lock(&self.codes).draw(now().mono_ms, &mut OsEntropy);
        self.note_event(AuditEvent::normal("access:code_drawn"));
        Some((code, url, CODE_MS))
    }

    /// Who keeps these keys.
    pub fn node(&self) -> &Identity {
        &self.identity
    }

    /// The audit of the node.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Looks at everything from outside and changes something, one after the other.
    pub(super) fn turn(&self) -> MutexGuard<'_, Turn> {
        lock(&self.turn)
    }

    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        lock(&self.told)
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Where archived bundles stand.
    pub(crate) fn archive_settings(&self) -> &ArchiveSettings {
        &self.settings.archive
    }

    pub(super) fn tiers(&self) -> &Tiers {
        &self.tiers
    }

    pub(super) fn space(&self) -> &SpaceId {
        &self.space
    }

    pub(super) fn key_file(&self) -> &KeyFile {
        &self.key_file
    }

    /// Writes what waits for the audit. Events of later are lost.
    pub fn close(&self) {
        self.events.close();
    }

    /// Signatures of each version since the start.
    pub fn signatures(&self) -> BTreeMap<KeyVersion, u64> {
        self.figures.signatures()
    }

    /// The figures of keys, registry and audit.
    // Spec: GW-81
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = self.figures.samples();
        let (active, since) = {
            let state = self.read();
            let tip = state.ring.ledger().tip();
            (tip.active().number(), parse_time(&tip.rotation_timestamp).unwrap_or(0))
        };
        let age = now().wall_ms.saturating_sub(since) / 1000;
        samples.push(Sample::gauge("sealtide_gw_key_active_version", "The key version that signs", active.into()));
        samples.push(Sample::gauge("sealtide_gw_key_age_seconds", "Since the keys changed last", age));
        let errors = self.audit.write_errors();
        samples.push(Sample::counter("sealtide_gw_audit_write_errors", "Lines that could not be written", errors));
        for tier in [Tier::Hot, Tier::Cold] {
            let count = self.tiers.count(tier).unwrap_or(0);
            samples.push(Sample::gauge("sealtide_gw_bundles", "Bundles", count).label("tier", tier.class()));
        }
        for (event, count) in lock(&self.events_by_name).iter() {
            samples.push(Sample::counter("sealtide_gw_audit_events", "Events", *count).label("event", event));
        }
        samples
    }

    /// Lets the rules about alerts look at a fact; what they find stands in the audit.
    pub(super) fn alert(&self, fact: &Fact<'_>) {
        let found = lock(&self.alerts).take(fact, now().wall_ms);
        for alert in found {
            let (words, hsl) = alert.words();
            tracing::warn!("gateway: {words}");
            self.note_event(
                AuditEvent::new("CHANNEL_NOTIFY", hsl)
                    .member("channel", "EVENT_CHANNEL")
                    .member("threadId", "0x5003")
                    .member("payload", words),
            );
        }
    }

    /// Bundles went to the archive, or did not.
    pub(crate) fn note_moves(&self, done: u64, failed: u64) {
        self.figures.moved(done, failed);
    }

    pub(super) fn lost_events(&self) -> u64 {
        self.events.lost()
    }

    /// What version management does, for whoever changes it.
    pub(super) fn thread(&self) -> MutexGuard<'_, ThreadState> {
        lock(&self.thread)
    }

    /// What happens behind the door, from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// Goes up when a frame of keys or registry became durable.
    pub(crate) fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    pub(super) fn note_moved(&self) {
        self.moved.send_modify(|moved| *moved += 1);
    }

    /// Tells the door, if one is open.
    pub(super) fn notify(&self, notice: Notice) {
        let _ = self.notices.send(notice);
    }

    /// Gives an event to the audit without waiting for it.
    pub(super) fn note_event(&self, event: AuditEvent) {
        // Names come from this code; but for fallbacks, which name the version that a caller asked for.
        let name = if event.name().starts_with("key:fallback_") { "key:fallback" } else { event.name() };
        *lock(&self.events_by_name).entry(name.to_owned()).or_default() += 1;
        self.events.note(event);
    }
}

impl CheckpointSigner for Desk {
    fn kid(&self) -> Option<String> {
        let state = self.read();
        Some(state.ring.keys(state.ring.ledger().tip().active())?.public_keys().pop()?.kid)
    }

    fn sign(&self, kid: &str, content: &[u8]) -> Option<Vec<u8>> {
        let state = self.read();
        let keys = state.ring.keys(state.ring.ledger().tip().active())?;
        let is_same = keys.public_keys().pop()?.kid == kid;
        keys.pair().filter(|_| is_same).map(|pair| pair.ed25519.sign(Label::AuditCheckpoint, content).to_vec())
    }
}

impl App for Desk {
    fn keys(&self) -> KeyFacts {
        let state = self.read();
        let v1 = state.ring.ledger().state_at(KeyVersion::V1, now().wall_ms);
        KeyFacts {
            ledger: state.ring.ledger().tip().active().number(),
            loaded: state.ring.loaded().last().map_or(0, KeyVersion::number),
            v1_counts: matches!(v1, Some(VersionState::Active | VersionState::VerifyOnly))
                && !state.ring.ledger().tip().forced(),
        }
    }

    fn key_status(&self) -> (KeyVersion, u64, Option<KeyVersion>) {
        let state = self.read();
        (state.ring.ledger().tip().active(), state.ring.ledger().tip().epoch, state.last)
    }

    fn registry(&self) -> Arc<Registry> {
        self.read().registry.clone()
    }

    fn registry_signature(&self) -> Option<String> {
        self.read().signature.clone()
    }

    fn lifecycle(&self) -> &'static str {
        self.thread().word(now().mono_ms)
    }

    fn bump(&self, request: &BumpRequest, way: Way) -> Result<Bumped, Code> {
        self.bump_by(request, way, None).map_err(|refused| refused.code())
    }

    fn wall_ms(&self) -> u64 {
        now().wall_ms
    }

    fn kept_sign_ins(&self) -> Vec<KeptSignIn> {
        super::kept_sign_ins(&self.store)
    }

    fn keep_sign_ins(&self, all: &[KeptSignIn]) {
        super::keep_sign_ins(&self.store, all);
    }

    fn take_sign_in_code(&self, code: &str) -> bool {
        lock(&self.codes).take(code, now().mono_ms)
    }

    fn key_desk(&self) -> Option<&dyn KeyDesk> {
        Some(self)
    }

    fn bundles(&self) -> Option<&dyn BundleShelf> {
        Some(self)
    }

    fn notices(&self) -> Option<broadcast::Receiver<Notice>> {
        Some(self.subscribe())
    }

    fn note(&self, event: DoorEvent) {
        let member = |name: &str| event.members.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_str());
        match event.name {
            "ws:upgrade:headers_validated" => self.thread().active(now().mono_ms),
            "ws:upgrade:csrf_invalid" if matches!(member("reason"), Some("unknown" | "replayed")) => {
                self.alert(&Fact::TokenRefused(member("clientIP").unwrap_or_default()));
            }
            _ => {}
        }
        self.note_event(AuditEvent::of_door(event));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything that is configured or kept. A key is made at the begin of a ledger only: of one that is lost another does not take the
/// place unseen.
fn load_keys(keys: &Keys, settings: &DeskSettings, is_begin: bool) -> Result<LoadedKeys, Failure> {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let environment = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|name| environment_name(name).is_some())?;
        Some((name, value.into_encoded_bytes()))
    });
    let mut offers = KeyOffers {
        environment: environment.collect(),
        stored: keys.made.iter().map(|(version, key)| (*version, **key)).collect(),
        files: read_key_files(&settings.key_files)?,
        credentials: read_credentials(directory.as_deref())?,
        may_generate: is_begin && settings.generate.unwrap_or(true),
    };
    let loaded = LoadedKeys::load(&offers, &mut OsEntropy);
    // The texts have done their work; what is kept of them is kept typed.
    let texts = offers.files.values_mut().chain(offers.credentials.values_mut());
    texts.chain(offers.environment.values_mut()).for_each(Zeroize::zeroize);
    loaded.map_err(|error| match error {
        LoadError::NoKey if !is_begin => {
            let text = "the key ledger knows signing keys, and their secrets are nowhere to be found";
            Failure::new(Exit::Refused, "key_lost", text).hint(LOST)
        }
        error => Failure::usage("signing_key", error.to_string()),
    })
}

/// The keys with their ledger, and the newest frame of it.
fn open_ring(
    store: &Store,
    space: &SpaceId,
    identity: &Identity,
    loaded: LoadedKeys,
    epoch_seen: u64,
    policy: KeyPolicy,
) -> Result<(Keyring, Verified), Failure> {
    let broken = |error: String| Failure::new(Exit::Verification, "key_ledger", error);
    let ledger = Frames { store, space, ib: "keyring" };
    let mut frames = ledger.all()?;
    if frames.is_empty() && epoch_seen > 0 {
        return Err(broken("the key file has seen a key ledger, and the store holds none".to_owned()));
    }
    if frames.is_empty() {
        let first = Keyring::first_record(&loaded, &identity.key, "configuration", now());
        let first = first.map_err(|error| Failure::failed("key_ledger", error.to_string()))?;
        frames.push(ledger.begin(data_of("record", first.to_value()))?);
    }
    let records: Result<Vec<LedgerRecord>, _> =
        frames.iter().map(|frame| LedgerRecord::parse(&member(frame, "record"))).collect();
    let records = records.map_err(|error| broken(error.to_string()))?;
    if !records.iter().any(|record| record.node == identity.id) {
        let text = "the key ledger here is another node's, and no recovery lets this one go on with it";
        return Err(Failure::new(Exit::Refused, "key_lost", text).hint(TAKEN));
    }
    let address = ledger_address(&frames, &records, identity.id);
    let row = LedgerRow::of(&records[records.len() - 1], &address, None);
    let ring = Keyring::open(loaded, &address, &records, &row, epoch_seen, identity.key.public(), policy);
    let ring = ring.map_err(|error| match error {
        KeyringError::ActiveMissing(_) => Failure::new(Exit::Refused, "key_lost", error.to_string()).hint(LOST),
        error => broken(error.to_string()),
    })?;
    Ok((ring, frames.swap_remove(records.len() - 1)))
}

fn warning_text(warning: LoadWarning) -> String {
    match warning {
        LoadWarning::Generated => "a signing key v1 was made; set VERSION_SIGNING_KEY to use one of yours",
        LoadWarning::NoPair => "the secret of v1 is no 64 lower-case hex digits: it signs HMAC only",
    }
    .to_owned()
}
