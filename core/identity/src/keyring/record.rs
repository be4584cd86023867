//! One record of the key ledger: what it says, its signed bytes, and how it is read. Spec: gateway §7.6.

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER};
use sealtide_crypto::sha256;
use sealtide_ibgib::Object;
use sealtide_ibgib::json::{Js, write_rfc8785};
use serde_json::{Value, json};

use super::keys::kid;
use super::ledger::KeyStates;
use super::{Algorithm, KeyVersion, PublicKeyEntry, VersionState, decode_signature, encode_signature, parse_time};
use crate::NodeId;

/// The schema of a record.
const SCHEMA: &str = "sealtide/keyring/1";
/// Greatest integer in a signed object: 2^53 − 1.
const INTEGER_MAX: u64 = (1 << 53) - 1;
/// Characters of `by` and of `reason`, at most.
pub(super) const WORDS_MAX: usize = 256;
/// Versions in one ledger, at most.
pub(super) const VERSIONS_MAX: usize = 64;
/// Channels named when a key is given up, at most.
const CHANNELS_MAX: usize = 1024;
/// Signatures of one record, at most: the node's and two pairs.
const SIGNATURES_MAX: usize = 5;

/// What a record changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The first record.
    Init,
    /// A version was loaded for the first time.
    Add,
    /// A higher version signs from here on.
    Rotate,
    /// The version before signs again.
    Rollback,
    /// As rotate, and there is no way back.
    Force,
    /// The date of a version came.
    Expire,
    /// A version was ended by hand, or given up as compromised.
    Retire,
    /// The secret of an ended version was deleted.
    Destroy,
    /// A lost key was replaced by the owner.
    Recover,
}

impl Action {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Init, "init"),
        (Self::Add, "add"),
        (Self::Rotate, "rotate"),
        (Self::Rollback, "rollback"),
        (Self::Force, "force"),
        (Self::Expire, "expire"),
        (Self::Retire, "retire"),
        (Self::Destroy, "destroy"),
        (Self::Recover, "recover"),
    ];

    /// Its word.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(action, _)| *action == self).map_or("", |(_, name)| name)
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, word)| *word == name).map(|(action, _)| *action)
    }
}

/// Until when signatures of a version count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// Milliseconds since 1970; from then on they do not.
    At(u64),
    /// A date that nobody can read: they do not count any more. Spec: gateway §7.9.
    Unreadable,
}

impl Deadline {
    /// Whether it has come.
    // Spec: GW-55
    pub fn is_over(self, wall_ms: u64) -> bool {
        match self {
            Self::At(ms) => wall_ms >= ms,
            Self::Unreadable => true,
        }
    }

    fn read(value: &Value) -> Self {
        let ms = value.as_u64().filter(|ms| *ms <= INTEGER_MAX).or_else(|| parse_time(value.as_str()?));
        ms.map_or(Self::Unreadable, Self::At)
    }

    fn value(self) -> Value {
        match self {
            Self::At(ms) => json!(ms),
            Self::Unreadable => Value::Null,
        }
    }
}

/// The last manifest of a channel that a version which was given up signed in good faith. Spec: gateway §7.9.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastGood {
    /// Address of the first frame of the release timeline.
    pub registry: String,
    /// Name of the channel.
    pub channel: String,
    /// Its number in the channel.
    pub seq: u64,
    /// SHA-256 of its signed bytes.
    pub manifest_sha256: [u8; 32],
}

impl LastGood {
    /// `{"registry", "channel", "seq", "manifestSha256"}`.
    pub fn to_value(&self) -> Value {
        let hash = HEXLOWER.encode(&self.manifest_sha256);
        json!({"registry": self.registry, "channel": self.channel, "seq": self.seq, "manifestSha256": hash})
    }

    /// Reads that form.
    pub fn read(value: &Value) -> Option<Self> {
        let object = value.as_object().filter(|object| object.len() == 4)?;
        Some(Self {
            registry: object.get("registry").and_then(words)?,
            channel: object.get("channel").and_then(words)?,
            seq: object.get("seq").and_then(integer)?,
            manifest_sha256: object.get("manifestSha256").and_then(|value| hex32(value.as_str()?))?,
        })
    }
}

/// One signature of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSignature {
    /// First 16 hex digits of the SHA-256 of the key.
    pub kid: String,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its bytes.
    pub signature: Vec<u8>,
}

/// One record, read but not verified.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerRecord {
    /// Address of the first frame of the ledger; none in the first record.
    pub ledger: Option<String>,
    /// 1, then one more for each change.
    pub epoch: u64,
    /// SHA-256 of the signed bytes of the record before; none in the first.
    pub prev: Option<[u8; 32]>,
    /// What it changes.
    pub action: Action,
    /// What holds from here on.
    pub(super) state: KeyStates,
    /// When.
    pub rotation_timestamp: String,
    /// Whether no person asked for it.
    pub auto: bool,
    /// The node that keeps the ledger.
    pub node: NodeId,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// All signatures, in order.
    pub signatures: Vec<RecordSignature>,
    /// What was signed.
    signed: String,
}

impl RecordSignature {
    /// `{"kid", "alg", "sig"}`. Spec: gateway §7.3.
    pub fn to_value(&self) -> Value {
        json!({"kid": self.kid, "alg": self.algorithm.name(), "sig": encode_signature(&self.signature)})
    }

    /// Reads that form: three members, a signature of the length of its algorithm. HMAC is none here.
    pub fn read(value: &Value) -> Option<Self> {
        let object = value.as_object().filter(|object| object.len() == 3)?;
        let algorithm = Algorithm::named(object.get("alg")?.as_str()?).filter(|it| *it != Algorithm::HmacSha256)?;
        let signature = decode_signature(algorithm, object.get("sig")?.as_str()?)?;
        let kid = object.get("kid")?.as_str().filter(|kid| kid.len() == 16)?.to_owned();
        Some(Self { kid, algorithm, signature })
    }
}

/// A record that is none, by the member that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no ledger record: {0}")]
pub struct RecordError(pub &'static str);

/// What a new record says, before it is signed.
pub(super) struct Draft<'a> {
    pub(super) ledger: Option<&'a str>,
    pub(super) epoch: u64,
    pub(super) prev: Option<[u8; 32]>,
    pub(super) action: Action,
    pub(super) state: KeyStates,
    pub(super) rotation_timestamp: String,
    pub(super) auto: bool,
    pub(super) node: NodeId,
    pub(super) by: &'a str,
    pub(super) reason: &'a str,
}

impl LedgerRecord {
    /// Makes a record; `sign` gives the signatures of its signed bytes.
    pub(super) fn make(draft: Draft<'_>, sign: impl FnOnce(&str) -> Vec<RecordSignature>) -> Self {
        let value = draft.value();
        let signed = canonical(&value).expect("a draft holds texts and small integers");
        let signatures = sign(&signed);
        Self {
            ledger: draft.ledger.map(str::to_owned),
            epoch: draft.epoch,
            prev: draft.prev,
            action: draft.action,
            state: draft.state,
            rotation_timestamp: draft.rotation_timestamp,
            auto: draft.auto,
            node: draft.node,
            by: draft.by.to_owned(),
            reason: draft.reason.to_owned(),
            signatures,
            signed,
        }
    }

    /// The bytes that are signed: the RFC 8785 form without `signatures`.
    pub fn signed_bytes(&self) -> &[u8] {
        self.signed.as_bytes()
    }

    /// The name by which the next record calls this one.
    pub fn hash(&self) -> [u8; 32] {
        sha256(self.signed.as_bytes())
    }

    /// Which version signs from here on.
    pub fn active(&self) -> KeyVersion {
        self.state.active
    }

    /// Which version a roll-back goes to.
    pub fn previous(&self) -> Option<KeyVersion> {
        self.state.previous
    }

    /// Whether there is no way back.
    pub fn forced(&self) -> bool {
        self.state.forced
    }

    /// Every version and its state after this record, lowest first.
    pub fn versions(&self) -> impl Iterator<Item = (KeyVersion, VersionState)> {
        self.state.states.iter().map(|(version, state)| (*version, *state))
    }

    /// Until when signatures of a version count, when that is said.
    pub fn not_after(&self, version: KeyVersion) -> Option<Deadline> {
        self.state.not_after.get(&version).copied()
    }

    /// The public keys of a version: ML-DSA-87, then Ed25519; empty when it has no pair.
    pub fn keys_of(&self, version: KeyVersion) -> Vec<&PublicKeyEntry> {
        self.state.pair(version)
    }

    /// For each version that was given up: the last good manifest of each channel.
    pub fn compromised(&self) -> impl Iterator<Item = (KeyVersion, &[LastGood])> {
        self.state.compromised.iter().map(|(version, channels)| (*version, channels.as_slice()))
    }

    /// The record as JSON, `signatures` last.
    pub fn to_value(&self) -> Value {
        let mut value: Value = serde_json::from_str(&self.signed).expect("its own text");
        value["signatures"] = self.signatures.iter().map(RecordSignature::to_value).collect();
        value
    }

    /// Reads a record. Its signed bytes are those of what was received, so nothing can hide in a member.
    ///
    /// # Errors
    /// [`RecordError`] for a member that is missing, unknown or of another form.
    pub fn parse(value: &Value) -> Result<Self, RecordError> {
        let mut object = value.as_object().ok_or(RecordError("object"))?.clone();
        let signatures = object.shift_remove("signatures").ok_or(RecordError("signatures"))?;
        let signatures =
            list(&signatures, SIGNATURES_MAX).and_then(|list| list.iter().map(RecordSignature::read).collect());
        let signatures: Vec<RecordSignature> = signatures.ok_or(RecordError("signatures"))?;
        let signed = canonical(&Value::Object(object.clone())).ok_or(RecordError("text"))?;
        let mut members = Members(object);
        if members.take("schema")? != SCHEMA {
            return Err(RecordError("schema"));
        }
        let record = Self {
            ledger: members.optional("ledger", |value| value.as_str().map(str::to_owned))?,
            epoch: members.read("epoch", integer)?,
            prev: members.optional("prev", |value| hex32(value.as_str()?))?,
            action: members.read("action", |value| Action::named(value.as_str()?))?,
            state: KeyStates {
                active: members.read("keyVersion", |value| KeyVersion::parse_digits(value.as_str()?))?,
                previous: members.optional("previous", |value| KeyVersion::parse_digits(value.as_str()?))?,
                forced: members.read("forced", Value::as_bool)?,
                states: members.read("states", |value| by_version(value, |it| VersionState::named(it.as_str()?)))?,
                not_after: members.read("notAfter", |value| by_version(value, |it| Some(Deadline::read(it))))?,
                keys: members.read("keys", read_keys)?,
                compromised: members.read("compromised", read_compromised)?,
            },
            rotation_timestamp: members.read("rotationTimestamp", |value| {
                value.as_str().filter(|text| parse_time(text).is_some()).map(str::to_owned)
            })?,
            auto: members.read("auto", Value::as_bool)?,
            node: members.read("node", |value| value.as_str()?.parse().ok())?,
            by: members.read("by", words)?,
            reason: members.read("reason", words)?,
            signatures,
            signed,
        };
        if members.0.is_empty() { Ok(record) } else { Err(RecordError("an unknown member")) }
    }
}

impl Draft<'_> {
    fn value(&self) -> Value {
        let state = &self.state;
        let states: Object = state.states.iter().map(|(v, state)| (v.to_string(), json!(state.name()))).collect();
        let not_after: Object = state.not_after.iter().map(|(v, date)| (v.to_string(), date.value())).collect();
        let key = |key: &PublicKeyEntry| {
            let public = BASE64.encode(&key.public_key);
            json!({"version": key.version.to_string(), "alg": key.algorithm.name(), "kid": key.kid, "publicKey": public})
        };
        let given_up = |(version, channels): (&KeyVersion, &Vec<LastGood>)| json!({"version": version.to_string(), "channels": channels.iter().map(LastGood::to_value).collect::<Vec<_>>()});
        json!({
            "schema": SCHEMA,
            "ledger": self.ledger,
            "epoch": self.epoch,
            "prev": self.prev.map(|hash| HEXLOWER.encode(&hash)),
            "action": self.action.name(),
            "keyVersion": state.active.digits(),
            "previous": state.previous.map(KeyVersion::digits),
            "rotationTimestamp": self.rotation_timestamp,
            "forced": state.forced,
            "auto": self.auto,
            "states": states,
            "notAfter": not_after,
            "keys": state.keys.iter().map(key).collect::<Vec<_>>(),
            "compromised": state.compromised.iter().map(given_up).collect::<Vec<_>>(),
            "node": self.node.to_string(),
            "by": self.by,
            "reason": self.reason,
        })
    }
}

/// Members that were not read yet.
struct Members(Object);

impl Members {
    fn take(&mut self, name: &'static str) -> Result<Value, RecordError> {
        self.0.shift_remove(name).ok_or(RecordError(name))
    }

    fn read<T>(&mut self, name: &'static str, read: impl FnOnce(&Value) -> Option<T>) -> Result<T, RecordError> {
        read(&self.take(name)?).ok_or(RecordError(name))
    }

    fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, RecordError> {
        match self.take(name)? {
            Value::Null => Ok(None),
            value => read(&value).map(Some).ok_or(RecordError(name)),
        }
    }
}

fn canonical(value: &Value) -> Option<String> {
    write_rfc8785(&Js::from(value))
}

fn integer(value: &Value) -> Option<u64> {
    value.as_u64().filter(|number| *number <= INTEGER_MAX)
}

fn words(value: &Value) -> Option<String> {
    value.as_str().filter(|text| text.chars().count() <= WORDS_MAX).map(str::to_owned)
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

fn list(value: &Value, max: usize) -> Option<&Vec<Value>> {
    value.as_array().filter(|list| list.len() <= max)
}

fn by_version<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<BTreeMap<KeyVersion, T>> {
    let object = value.as_object().filter(|object| object.len() <= VERSIONS_MAX)?;
    object.iter().map(|(version, value)| Some((KeyVersion::parse(version)?, read(value)?))).collect()
}

fn read_keys(value: &Value) -> Option<Vec<PublicKeyEntry>> {
    list(value, 2 * VERSIONS_MAX)?.iter().map(read_key).collect()
}

fn read_key(value: &Value) -> Option<PublicKeyEntry> {
    let object = value.as_object().filter(|object| object.len() == 4)?;
    let algorithm = Algorithm::named(object.get("alg")?.as_str()?).filter(|it| *it != Algorithm::HmacSha256)?;
    let public_key = BASE64.decode(object.get("publicKey")?.as_str()?.as_bytes()).ok()?;
    let told = object.get("kid")?.as_str()?;
    let version = KeyVersion::parse(object.get("version")?.as_str()?)?;
    (told == kid(&public_key)).then(|| PublicKeyEntry { version, algorithm, kid: told.to_owned(), public_key })
}

fn read_compromised(value: &Value) -> Option<BTreeMap<KeyVersion, Vec<LastGood>>> {
    let mut found = BTreeMap::new();
    for entry in list(value, VERSIONS_MAX)? {
        let object = entry.as_object().filter(|object| object.len() == 2)?;
        let version = KeyVersion::parse(object.get("version")?.as_str()?)?;
        let channels: Option<Vec<LastGood>> =
            list(object.get("channels")?, CHANNELS_MAX)?.iter().map(LastGood::read).collect();
        if found.insert(version, channels?).is_some() {
            return None;
        }
    }
    Some(found)
}
