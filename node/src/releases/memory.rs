//! What this node remembers of apps: whom it trusts, what it has seen, what it installed. Each in one row of the settings,
//! written before anything is done with it.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sealtide_crypto::sha256;
use sealtide_releases::bundle::{Seen, Trust};
use serde_json::{Value, json};

use crate::commands::store_failure;
use crate::failure::{Exit, Failure};
use crate::known::Known;

/// What the names of the rows begin with that say whom this node trusts, and what it has seen.
pub(crate) const MEMORY_SETTINGS: [&str; 2] = [TRUST, SEEN];
const TRUST: &str = "release.trust.";
const SEEN: &str = "release.seen.";
/// The names of the rows of installs.
const INSTALLS: &str = "release.installs";
/// What the names of the rows of installs begin with that are about to take their place.
const BEGUN: &str = "release.begun.";
/// Installs that are remembered, at most.
const INSTALLS_MAX: usize = 256;

/// Trust and sight of one registry.
pub(crate) struct Memory {
    known: Known,
    registry: String,
}

/// What was installed where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InstalledAt {
    pub(crate) dir: PathBuf,
    pub(crate) app: String,
    pub(crate) channel: String,
    pub(crate) version: String,
    pub(crate) seq: u64,
    pub(crate) manifest: String,
    /// The manifest of what stood there before.
    pub(crate) previous: Option<String>,
    pub(crate) at_ms: u64,
}

impl Memory {
    pub(crate) fn of(known: Known, registry: &str) -> Self {
        Self { known, registry: registry.to_owned() }
    }

    fn key(&self, what: &str) -> String {
        format!("{what}{}", HEXLOWER.encode(&sha256(self.registry.as_bytes())[..16]))
    }

    /// Whom this node trusts for the registry.
    ///
    /// # Errors
    /// Exit 5 when the row is damaged: then nobody is trusted.
    pub(crate) fn trust(&self) -> Result<Option<Trust>, Failure> {
        let Some(text) = self.known.setting(&self.key(TRUST)) else { return Ok(None) };
        let trust = Trust::parse(text.as_bytes());
        let trust = trust.map_err(|error| Failure::new(Exit::Verification, "trust", error.to_string()))?;
        Ok(Some(trust))
    }

    pub(crate) fn keep_trust(&self, trust: &Trust) -> Result<(), Failure> {
        let text = trust.to_value().to_string();
        self.known.put_setting(&self.key(TRUST), Some(&text)).map_err(store_failure)
    }

    /// What this node has seen of the channels of the registry.
    pub(crate) fn seen(&self) -> Result<Seen, Failure> {
        let Some(text) = self.known.setting(&self.key(SEEN)) else { return Ok(Seen::default()) };
        let seen = serde_json::from_str(&text).ok().and_then(|value| Seen::read(&value));
        seen.ok_or_else(|| Failure::new(Exit::Verification, "seen", "what was seen of the channels is damaged"))
    }

    pub(crate) fn keep_seen(&self, seen: &Seen) -> Result<(), Failure> {
        self.known.put_setting(&self.key(SEEN), Some(&seen.to_value().to_string())).map_err(store_failure)
    }
}

/// Everything that was installed by this node.
pub(crate) fn installs(known: &Known) -> Vec<InstalledAt> {
    let text = known.setting(INSTALLS).unwrap_or_default();
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    value.as_array().into_iter().flatten().filter_map(read).collect()
}

/// What this node installed in a directory.
pub(crate) fn installed_at(known: &Known, dir: &Path) -> Option<InstalledAt> {
    installs(known).into_iter().find(|install| install.dir == dir)
}

pub(crate) fn keep_install(known: &Known, install: InstalledAt) -> Result<(), Failure> {
    let mut all = installs(known);
    all.retain(|other| other.dir != install.dir);
    all.insert(0, install);
    all.truncate(INSTALLS_MAX);
    let text = Value::Array(all.iter().map(InstalledAt::to_value).collect()).to_string();
    known.put_setting(INSTALLS, Some(&text)).map_err(store_failure)
}

/// Remembers what is about to take the place of `install.dir`, a directory of this identity: a crash may come before it is
/// [kept](keep_install).
pub(crate) fn begin_install(known: &Known, install: &InstalledAt, unpacked: (u64, u64)) -> Result<(), Failure> {
    let row = json!({"install": install.to_value(), "dev": unpacked.0, "ino": unpacked.1}).to_string();
    known.put_setting(&begun_key(&install.dir), Some(&row)).map_err(store_failure)
}

/// What was about to take the place of `dir` when this node died.
pub(crate) fn begun_install(known: &Known, dir: &Path) -> Option<(InstalledAt, (u64, u64))> {
    let row: Value = serde_json::from_str(&known.setting(&begun_key(dir))?).ok()?;
    Some((read(row.get("install")?)?, (row.get("dev")?.as_u64()?, row.get("ino")?.as_u64()?)))
}

/// Nothing is about to take the place of `dir`.
pub(crate) fn end_install(known: &Known, dir: &Path) -> Result<(), Failure> {
    known.put_setting(&begun_key(dir), None).map_err(store_failure)
}

fn begun_key(dir: &Path) -> String {
    format!("{BEGUN}{}", HEXLOWER.encode(&sha256(dir.as_os_str().as_encoded_bytes())[..16]))
}

impl InstalledAt {
    pub(crate) fn to_value(&self) -> Value {
        json!({
            "dir": self.dir, "app": self.app, "channel": self.channel, "version": self.version, "seq": self.seq,
            "manifest": self.manifest, "previous": self.previous, "at": self.at_ms,
        })
    }
}

fn read(value: &Value) -> Option<InstalledAt> {
    let text = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
    Some(InstalledAt {
        dir: PathBuf::from(text("dir")?),
        app: text("app")?,
        channel: text("channel")?,
        version: text("version")?,
        seq: value.get("seq")?.as_u64()?,
        manifest: text("manifest")?,
        previous: text("previous"),
        at_ms: value.get("at")?.as_u64()?,
    })
}
