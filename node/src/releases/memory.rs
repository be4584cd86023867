//! What this node remembers of apps: whom it trusts, what it has seen, what it installed. Each in one row of the settings,
//! written before anything is done with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sealtide_crypto::sha256;
use sealtide_ibgib::Sid;
use sealtide_releases::bundle::{Channel, Seen, Trust};
use serde_json::{Value, json};

use crate::commands::store_failure;
use crate::failure::{Exit, Failure};
use crate::known::Known;

/// What the names of the rows begin with that say whom this node trusts, and what it has seen.
pub(crate) const MEMORY_SETTINGS: [&str; 2] = [TRUST, SEEN];
const TRUST: &str = "release.trust.";
const SEEN: &str = "release.seen.";
/// What the names of the rows begin with that say what this node released itself: `{channel: [number, sid of its newest frame]}`.
const MADE: &str = "release.made.";
/// The names of the rows of installs.
const INSTALLS: &str = "release.installs";
/// What the names of the rows of installs begin with that are under way.
const BEGUN: &str = "release.begun.";
/// Installs that are remembered, at most.
const INSTALLS_MAX: usize = 256;

/// Trust and sight of one registry.
pub(crate) struct Memory {
    known: Known,
    registry: String,
}

/// What this node released last in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    /// Its number.
    pub(crate) seq: u64,
    /// The newest frame that this node wrote there.
    pub(crate) frame: Sid,
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
        read_seen(self.known.setting(&self.key(SEEN)).as_deref())
    }

    /// Changes what was seen, in one step: installs elsewhere see other channels meanwhile.
    pub(crate) fn change_seen(&self, change: impl FnOnce(&mut Seen)) -> Result<(), Failure> {
        let mut damaged = None;
        let changed = self.known.change_setting(&self.key(SEEN), |row| match read_seen(row) {
            Ok(mut seen) => {
                change(&mut seen);
                Some(seen.to_value().to_string())
            }
            Err(failure) => {
                damaged = Some(failure);
                row.map(str::to_owned)
            }
        });
        changed.map_err(store_failure)?;
        damaged.map_or(Ok(()), Err)
    }

    /// Whether the registry is one that this node published to, or trusts somebody for.
    pub(crate) fn is_known(&self) -> bool {
        [MADE, TRUST].iter().any(|what| self.known.setting(&self.key(what)).is_some())
    }

    /// What this node released last, by channel.
    ///
    /// # Errors
    /// Exit 5 when the row is damaged: then nobody knows which number is next.
    pub(crate) fn made(&self) -> Result<BTreeMap<Channel, Made>, Failure> {
        read_made(self.known.setting(&self.key(MADE)).as_deref())
    }

    /// Remembers what was released last, in some channels.
    pub(crate) fn keep_made(&self, made: &[(Channel, Made)]) -> Result<(), Failure> {
        if made.is_empty() {
            return Ok(());
        }
        let mut all = self.made()?;
        all.extend(made.iter().cloned());
        let row = |(channel, made): (&Channel, &Made)| {
            (channel.as_str().to_owned(), json!([made.seq, HEXLOWER.encode(&made.frame.0)]))
        };
        let text = Value::Object(all.iter().map(row).collect()).to_string();
        self.known.put_setting(&self.key(MADE), Some(&text)).map_err(store_failure)
    }

    /// Nothing that was seen counts any more.
    pub(crate) fn forget_seen(&self) -> Result<(), Failure> {
        let none = Seen::default().to_value().to_string();
        self.known.put_setting(&self.key(SEEN), Some(&none)).map_err(store_failure)
    }
}

fn read_seen(row: Option<&str>) -> Result<Seen, Failure> {
    let Some(text) = row else { return Ok(Seen::default()) };
    let seen = serde_json::from_str(text).ok().and_then(|value| Seen::read(&value));
    seen.ok_or_else(|| Failure::new(Exit::Verification, "seen", "what was seen of the channels is damaged"))
}

fn read_made(row: Option<&str>) -> Result<BTreeMap<Channel, Made>, Failure> {
    let Some(text) = row else { return Ok(BTreeMap::new()) };
    let read = |(channel, made): (&String, &Value)| {
        let frame = HEXLOWER.decode(made.get(1)?.as_str()?.as_bytes()).ok()?;
        let made = Made { seq: made.get(0)?.as_u64()?, frame: Sid(frame.try_into().ok()?) };
        Some((Channel::parse(channel)?, made))
    };
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let made = value.as_object().and_then(|object| object.iter().map(read).collect());
    made.ok_or_else(|| Failure::new(Exit::Verification, "made", "what was released here last is damaged"))
}

/// Everything that was installed by this node.
pub(crate) fn installs(known: &Known) -> Vec<InstalledAt> {
    read_installs(known.setting(INSTALLS).as_deref())
}

fn read_installs(row: Option<&str>) -> Vec<InstalledAt> {
    let value: Value = serde_json::from_str(row.unwrap_or_default()).unwrap_or_default();
    value.as_array().into_iter().flatten().filter_map(read).collect()
}

/// What this node installed in a directory.
pub(crate) fn installed_at(known: &Known, dir: &Path) -> Option<InstalledAt> {
    installs(known).into_iter().find(|install| install.dir == dir)
}

/// Remembers an install, in one step: others are into other directories meanwhile.
pub(crate) fn keep_install(known: &Known, install: InstalledAt) -> Result<(), Failure> {
    let changed = known.change_setting(INSTALLS, |row| {
        let mut all = read_installs(row);
        all.retain(|other| other.dir != install.dir);
        all.insert(0, install);
        all.truncate(INSTALLS_MAX);
        Some(Value::Array(all.iter().map(InstalledAt::to_value).collect()).to_string())
    });
    changed.map_err(store_failure)
}

/// An install that is under way: a crash may come before it is [kept](keep_install).
pub(crate) struct Begun {
    pub(crate) install: InstalledAt,
    /// Inode of the directory that is unpacked into, and that takes the place of `install.dir`.
    pub(crate) unpacked: u64,
    /// Inode of what stands there before, if anything does; rows of before do not say.
    pub(crate) was: Option<u64>,
    /// Whether it is whole, and about to take its place.
    pub(crate) is_whole: bool,
}

impl Begun {
    pub(crate) fn keep(&self, known: &Known) -> Result<(), Failure> {
        let row = json!({
            "install": self.install.to_value(), "ino": self.unpacked, "was": self.was, "part": !self.is_whole,
        });
        known.put_setting(&begun_key(&self.install.dir), Some(&row.to_string())).map_err(store_failure)
    }

    /// What was under way in `dir` when this node died.
    pub(crate) fn of(known: &Known, dir: &Path) -> Option<Self> {
        let row: Value = serde_json::from_str(&known.setting(&begun_key(dir))?).ok()?;
        Some(Self {
            install: read(row.get("install")?)?,
            unpacked: row.get("ino")?.as_u64()?,
            was: row.get("was").and_then(Value::as_u64),
            is_whole: row.get("part").and_then(Value::as_bool) != Some(true),
        })
    }

    /// Nothing is under way in `dir`.
    pub(crate) fn end(known: &Known, dir: &Path) -> Result<(), Failure> {
        known.put_setting(&begun_key(dir), None).map_err(store_failure)
    }
}

/// One key however the path is spelled: a `/` at its end changes nothing.
fn begun_key(dir: &Path) -> String {
    let dir: PathBuf = dir.components().collect();
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::{Arc, Barrier};

    use sealtide_store::mem::MemDisk;
    use sealtide_store::{Config, Store};

    use super::*;

    #[test]
    fn installs_at_once_lose_nothing_of_each_other() {
        let store = Store::open(Arc::new(MemDisk::new(1)), Config::default()).unwrap();
        let (known, begin) = (Known::of(&store), Barrier::new(8));
        let install = |number: u64| InstalledAt {
            dir: format!("/opt/{number}").into(),
            app: "kiosk".to_owned(),
            channel: "stable".to_owned(),
            version: "1.0.0".to_owned(),
            seq: number,
            manifest: String::new(),
            previous: None,
            at_ms: 0,
        };
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (known, begin, install) = (&known, &begin, &install);
                scope.spawn(move || {
                    let memory = Memory::of(known.clone(), "releases^A");
                    begin.wait();
                    for number in 0..8 {
                        let number = thread * 8 + number;
                        keep_install(known, install(number)).unwrap();
                        let more = json!({format!("c{number}"): [1, "00".repeat(32), 0]});
                        memory.change_seen(|seen| seen.merge(Seen::read(&more).unwrap(), 0)).unwrap();
                    }
                });
            }
        });
        assert_eq!(installs(&known).len(), 64);
        let seen = Memory::of(known, "releases^A").seen().unwrap();
        assert_eq!(seen.to_value().as_object().unwrap().len(), 64);
    }
}
