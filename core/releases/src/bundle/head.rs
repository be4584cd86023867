//! The head of a channel: which release is the newest, signed anew every day. Spec: gateway §9.6.

use data_encoding::HEXLOWER;
use sealtide_crypto::Label;
use sealtide_identity::keyring::write_time;
use semver::Version;
use serde_json::{Value, json};

use super::Channel;
use super::manifest::version;
use super::signed::{Content, Members, address, hex32, integer, time};

/// The schema of a head.
const SCHEMA: &str = "sealtide/head/1";
/// Numbers of yanked releases in one head, at most.
pub const YANKED_MAX: usize = 1024;
/// How long a head holds when nothing else is said: 7 days, in ms.
pub const HEAD_MS_DEFAULT: u64 = 7 * 86_400_000;
/// How long it can hold, at most: 90 days, in ms.
pub const HEAD_MS_MAX: u64 = 90 * 86_400_000;

/// How far ahead of the own clock a head may be dated: clocks differ, one day at most.
const AHEAD_MS_MAX: u64 = 86_400_000;

/// The head of a channel, as it says.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelHead {
    /// Address of the first frame of the release timeline.
    pub registry: String,
    /// The channel.
    pub channel: Channel,
    /// Number of the newest release.
    pub seq: u64,
    /// SHA-256 of the signed bytes of its manifest.
    pub manifest_sha256: [u8; 32],
    /// Its version.
    pub version: Version,
    /// Epoch of the key ledger when the head was signed.
    pub epoch: u64,
    /// When it was signed, ms.
    pub issued_at: u64,
    /// Until when it says what is the newest, ms.
    pub not_after: u64,
    /// Numbers of releases that nobody should install, ascending.
    pub yanked: Vec<u64>,
}

impl ChannelHead {
    /// Whether it is dated in the future: the clock of whoever signed it was ahead, and it would count as the newest until then.
    pub fn is_early(&self, wall_ms: u64) -> bool {
        is_ahead(self.issued_at, wall_ms)
    }
}

/// Whether a head of this time is dated in the future.
pub(super) fn is_ahead(issued_at: u64, wall_ms: u64) -> bool {
    issued_at > wall_ms.saturating_add(AHEAD_MS_MAX)
}

impl Content for ChannelHead {
    const WHAT: &'static str = "no channel head";
    const LABEL: Label = Label::ReleaseHead;

    fn to_value(&self) -> Value {
        json!({
            "schema": SCHEMA,
            "registry": self.registry,
            "channel": self.channel.as_str(),
            "seq": self.seq,
            "manifestSha256": HEXLOWER.encode(&self.manifest_sha256),
            "version": self.version.to_string(),
            "epoch": self.epoch,
            "issuedAt": write_time(self.issued_at),
            "notAfter": write_time(self.not_after),
            "yanked": self.yanked,
        })
    }

    fn read(members: &mut Members) -> Result<Self, &'static str> {
        members.is("schema", SCHEMA)?;
        let head = Self {
            registry: members.read("registry", address)?,
            channel: members.read("channel", |value| Channel::parse(value.as_str()?))?,
            seq: members.read("seq", |value| integer(value).filter(|seq| *seq > 0))?,
            manifest_sha256: members.read("manifestSha256", hex32)?,
            version: members.read("version", version)?,
            epoch: members.read("epoch", |value| integer(value).filter(|epoch| *epoch > 0))?,
            issued_at: members.read("issuedAt", time)?,
            not_after: members.read("notAfter", time)?,
            yanked: members.read("yanked", yanked)?,
        };
        let holds_ms = head.not_after.checked_sub(head.issued_at).ok_or("notAfter")?;
        if holds_ms > HEAD_MS_MAX { Err("notAfter") } else { Ok(head) }
    }
}

fn yanked(value: &Value) -> Option<Vec<u64>> {
    let list = value.as_array().filter(|list| list.len() <= YANKED_MAX)?;
    let numbers: Vec<u64> = list.iter().map(|value| integer(value).filter(|seq| *seq > 0)).collect::<Option<_>>()?;
    numbers.is_sorted_by(|left, right| left < right).then_some(numbers)
}
