//! Which releases count, and which may be installed. Everything here comes before the first byte is unpacked.
//! Spec: gateway §7.9, §9.5 to §9.7.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use sealtide_identity::keyring::{KeyVersion, PairRefused, VersionState, write_time};
use semver::Version;
use serde_json::{Value, json};

use super::head::{ChannelHead, is_ahead};
use super::manifest::Manifest;
use super::signed::{Content, Signed, hex32, integer};
use super::trust::{Trust, TrustedPair};
use super::{AppName, Channel};

/// A manifest or head whose signatures count. Only [`Trust`] makes it.
#[derive(Clone, Copy, Debug)]
pub struct Trusted<'a, T>(&'a Signed<T>);

impl<'a, T> std::ops::Deref for Trusted<'a, T> {
    type Target = Signed<T>;

    fn deref(&self) -> &Signed<T> {
        self.0
    }
}

/// Why a release does not count, or may not be installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseRefused {
    /// Another app's.
    #[error("it belongs to another registry ({found}) than the trust ({trusted})")]
    Registry {
        /// Of the trust.
        trusted: String,
        /// In the object.
        found: String,
    },
    /// Signed by a key that the trust does not know.
    #[error("it is signed by key {0}, which this trust does not know")]
    UnknownKey(String),
    /// A signature is missing, doubled, swapped or wrong.
    #[error("{0}")]
    Signature(#[from] PairRefused),
    /// The manifest names another key version than the one that signed.
    #[error("it says that {told} signed, and {signed} did")]
    KeyVersion {
        /// In the manifest.
        told: KeyVersion,
        /// By the ledger.
        signed: KeyVersion,
    },
    /// The version that signed has ended.
    #[error("it is signed by {0}, which has expired")]
    KeyExpired(KeyVersion),
    /// The version that signed was given up, and this release is not among those that it signed in good faith.
    #[error("it is signed by {0}, which was compromised, and it is not among the releases signed before that")]
    KeyCompromised(KeyVersion),
    /// A head by a pair that does not sign any more.
    #[error("the head of the channel is signed by a pair that has been replaced")]
    HeadRetired,
    /// A head of an epoch that the trust has not followed.
    #[error("the head of the channel is of epoch {found} of the key ledger, and only {trusted} is known here")]
    HeadAhead {
        /// Of the trust.
        trusted: u64,
        /// Of the head.
        found: u64,
    },
    /// The head is dated in the future.
    #[error("the head of channel {channel} was signed at {issued}, which is more than a day from now")]
    HeadEarly {
        /// Of the head.
        channel: Channel,
        /// When, as it says.
        issued: String,
    },
    /// The head says nothing about today.
    #[error("the head of channel {channel} expired at {ended}: nobody can say that this is still the newest release")]
    HeadExpired {
        /// Of the head.
        channel: Channel,
        /// When.
        ended: String,
    },
    /// A head of another channel.
    #[error("it is of channel {found}, and {wanted} was asked for")]
    Channel {
        /// Asked for.
        wanted: Channel,
        /// In the object.
        found: Channel,
    },
    /// Another app's release in the registry.
    #[error("it is a release of {found}, and {wanted} was asked for")]
    Name {
        /// Asked for.
        wanted: AppName,
        /// In the manifest.
        found: AppName,
    },
    /// The head names another release.
    #[error("the manifest is not the one that the head of the channel names")]
    NotOfHead,
    /// Older than what was seen before.
    #[error("release {found} of channel {channel} is older than release {seen}, which was seen before")]
    Rollback {
        /// Of both.
        channel: Channel,
        /// Seen before.
        seen: u64,
        /// Offered now.
        found: u64,
    },
    /// A head that was signed before one that was seen, of the same release: it may say less of what was taken back.
    #[error("the head of channel {channel} was signed at {found}, and one of {seen} was seen before")]
    OlderHead {
        /// Of both.
        channel: Channel,
        /// Seen before.
        seen: String,
        /// Offered now.
        found: String,
    },
    /// The same number with another manifest.
    #[error(
        "there are two releases {seq} of channel {channel}, {}… and {}…: the publisher, or whoever has its keys, shows different people different releases; report it",
        HEXLOWER.encode(&.seen[..8]), HEXLOWER.encode(&.found[..8])
    )]
    Equivocation {
        /// Of both.
        channel: Channel,
        /// Of both.
        seq: u64,
        /// Seen before.
        seen: [u8; 32],
        /// Offered now.
        found: [u8; 32],
    },
    /// The publisher took it back.
    #[error("release {seq} ({version}) was yanked")]
    Yanked {
        /// Its number.
        seq: u64,
        /// Its version.
        version: Version,
    },
    /// Past its date.
    #[error("it expired at {0}")]
    Expired(String),
}

impl ReleaseRefused {
    /// Its word, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Registry { .. } => "other_registry",
            Self::UnknownKey(_) => "unknown_key",
            Self::Signature(_) => "bad_signature",
            Self::KeyVersion { .. } => "key_version",
            Self::KeyExpired(_) => "key_expired",
            Self::KeyCompromised(_) => "key_compromised",
            Self::HeadRetired => "head_retired",
            Self::HeadAhead { .. } => "head_ahead",
            Self::HeadEarly { .. } => "head_early",
            Self::HeadExpired { .. } => "head_expired",
            Self::Channel { .. } => "other_channel",
            Self::Name { .. } => "other_app",
            Self::NotOfHead => "not_of_head",
            Self::Rollback { .. } | Self::OlderHead { .. } => "rollback",
            Self::Equivocation { .. } => "equivocation",
            Self::Yanked { .. } => "yanked",
            Self::Expired(_) => "expired",
        }
    }
}

impl Trust {
    /// Whether a manifest counts: its registry, both signatures, the state of the version that signed. `earlier` are other
    /// manifests of its channel, from which a compromised version's last good one can be reached. Says nothing about
    /// freshness.
    ///
    /// # Errors
    /// [`ReleaseRefused`].
    // Spec: GW-103, GW-107
    pub fn manifest<'a>(
        &self,
        signed: &'a Signed<Manifest>,
        earlier: &[Signed<Manifest>],
        wall_ms: u64,
    ) -> Result<Trusted<'a, Manifest>, ReleaseRefused> {
        let manifest = signed.content();
        let trusted = self.signer(signed, &manifest.registry)?;
        let version = trusted.version.unwrap_or(manifest.key_version);
        if version != manifest.key_version {
            return Err(ReleaseRefused::KeyVersion { told: manifest.key_version, signed: version });
        }
        let is_over = trusted.not_after.is_some_and(|end| end.is_over(wall_ms));
        match trusted.state {
            VersionState::Active | VersionState::Prepared => {}
            VersionState::VerifyOnly if !is_over => {}
            VersionState::Compromised if self.is_good(version, signed, earlier) => {}
            VersionState::Compromised => return Err(ReleaseRefused::KeyCompromised(version)),
            VersionState::VerifyOnly | VersionState::Expired | VersionState::Destroyed => {
                return Err(ReleaseRefused::KeyExpired(version));
            }
        }
        Ok(Trusted(signed))
    }

    /// Whether a head counts now: both signatures of the pair that is active at the newest epoch, and in date: neither over, nor
    /// signed more than a day from now.
    ///
    /// # Errors
    /// [`ReleaseRefused`].
    // Spec: GW-104
    pub fn head<'a>(
        &self,
        signed: &'a Signed<ChannelHead>,
        wall_ms: u64,
    ) -> Result<Trusted<'a, ChannelHead>, ReleaseRefused> {
        let head = signed.content();
        let trusted = self.signer(signed, &head.registry)?;
        if !self.is_active(&trusted.pair) || trusted.state == VersionState::Compromised {
            return Err(ReleaseRefused::HeadRetired);
        }
        if head.epoch > self.epoch() {
            return Err(ReleaseRefused::HeadAhead { trusted: self.epoch(), found: head.epoch });
        }
        if head.is_early(wall_ms) {
            let issued = write_time(head.issued_at);
            return Err(ReleaseRefused::HeadEarly { channel: head.channel.clone(), issued });
        }
        if wall_ms >= head.not_after {
            let ended = write_time(head.not_after);
            return Err(ReleaseRefused::HeadExpired { channel: head.channel.clone(), ended });
        }
        Ok(Trusted(signed))
    }

    /// Who signed an object of this registry, with both keys.
    fn signer<T: Content>(&self, signed: &Signed<T>, registry: &str) -> Result<&TrustedPair, ReleaseRefused> {
        if registry != self.registry() {
            let (trusted, found) = (self.registry().to_owned(), registry.to_owned());
            return Err(ReleaseRefused::Registry { trusted, found });
        }
        let kid = signed.signatures().first().map(|entry| entry.kid.as_str()).unwrap_or_default();
        let trusted = self.pair_of(kid).ok_or_else(|| ReleaseRefused::UnknownKey(kid.to_owned()))?;
        signed.verify(&trusted.pair)?;
        Ok(trusted)
    }

    /// Whether a manifest is the last good one of its channel, or one that it names as before it, directly or not.
    fn is_good(&self, version: KeyVersion, signed: &Signed<Manifest>, earlier: &[Signed<Manifest>]) -> bool {
        let manifest = signed.content();
        let last = self.last_good(version).into_iter().flatten();
        let last = last.filter(|good| good.registry == manifest.registry && good.channel == manifest.channel.as_str());
        let by_hash: BTreeMap<[u8; 32], &Signed<Manifest>> = earlier.iter().map(|it| (it.hash(), it)).collect();
        let wanted = signed.hash();
        last.map(|good| good.manifest_sha256).any(|mut at| {
            // A chain has no cycle that anybody could make; the bound keeps the walk short all the same.
            for _ in 0..=earlier.len() {
                if at == wanted {
                    return true;
                }
                let Some(before) = by_hash.get(&at).and_then(|it| it.content().prev) else { return false };
                at = before;
            }
            false
        })
    }
}

/// What a client remembers of the channels of one registry, so that nobody can show it an older state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<Channel, Sight>);

/// The newest of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sight {
    seq: u64,
    manifest_sha256: [u8; 32],
    /// When its newest head was signed, ms; 0 where none was seen, or an older version wrote it down.
    issued_at: u64,
}

impl Sight {
    /// The time that later heads of the release must have. One that is ahead of the own clock binds nobody: that clock was ahead as well
    /// when it was remembered, and all true heads would be older for as long as it was wrong.
    fn binds_from(&self, wall_ms: u64) -> u64 {
        if is_ahead(self.issued_at, wall_ms) { 0 } else { self.issued_at }
    }
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The app.
    pub name: AppName,
    /// The channel.
    pub channel: Channel,
    /// Take an older or a yanked release all the same.
    pub allow_downgrade: bool,
}

impl Seen {
    /// The newest release that was seen in a channel: its number, and the hash of its manifest.
    pub fn newest(&self, channel: &Channel) -> Option<(u64, [u8; 32])> {
        self.0.get(channel).map(|seen| (seen.seq, seen.manifest_sha256))
    }

    /// Whether a release may be installed: it is what its head names, of the channel that was asked for, not older than what
    /// was seen, not yanked, in date.
    ///
    /// # Errors
    /// [`ReleaseRefused`].
    // Spec: GW-104
    pub fn admit(
        &self,
        head: &Trusted<'_, ChannelHead>,
        manifest: &Trusted<'_, Manifest>,
        wanted: &Wanted,
        wall_ms: u64,
    ) -> Result<(), ReleaseRefused> {
        let (told, release) = (head.content(), manifest.content());
        let of_channel = |found: &Channel| {
            let other = || ReleaseRefused::Channel { wanted: wanted.channel.clone(), found: found.clone() };
            if *found == wanted.channel { Ok(()) } else { Err(other()) }
        };
        of_channel(&told.channel)?;
        of_channel(&release.channel)?;
        if release.name != wanted.name {
            return Err(ReleaseRefused::Name { wanted: wanted.name.clone(), found: release.name.clone() });
        }
        self.is_newest(head, wall_ms)?;
        let is_newest = release.seq == told.seq && manifest.hash() == told.manifest_sha256;
        let is_wanted = is_newest || wanted.allow_downgrade && release.seq < told.seq;
        if !is_wanted {
            return Err(ReleaseRefused::NotOfHead);
        }
        if !wanted.allow_downgrade && (told.yanked.contains(&release.seq) || release.is_below_its_minimum()) {
            return Err(yanked(release));
        }
        check_expiry(release, wall_ms)
    }

    /// Whether nothing newer than a head was seen: no later release, and no later head of the same but for one that is dated in the future.
    ///
    /// # Errors
    /// [`ReleaseRefused`].
    pub fn is_newest(&self, head: &Trusted<'_, ChannelHead>, wall_ms: u64) -> Result<(), ReleaseRefused> {
        let head = head.content();
        self.check_seen(&head.channel, head.seq, head.manifest_sha256)?;
        match self.0.get(&head.channel) {
            Some(seen) if seen.seq == head.seq && head.issued_at < seen.binds_from(wall_ms) => {
                Err(ReleaseRefused::OlderHead {
                    channel: head.channel.clone(),
                    seen: write_time(seen.issued_at),
                    found: write_time(head.issued_at),
                })
            }
            _ => Ok(()),
        }
    }

    /// Whether a release is at least as new as what was seen.
    fn check_seen(&self, channel: &Channel, seq: u64, found: [u8; 32]) -> Result<(), ReleaseRefused> {
        let channel = channel.clone();
        match self.newest(&channel) {
            Some((seen, _)) if seq < seen => Err(ReleaseRefused::Rollback { channel, seen, found: seq }),
            Some((same, seen)) if same == seq && seen != found => {
                Err(ReleaseRefused::Equivocation { channel, seq, seen, found })
            }
            _ => Ok(()),
        }
    }

    /// Remembers a head that counts. Older ones change nothing; one of the same release that is dated in the future gives way.
    pub fn see(&mut self, head: &Trusted<'_, ChannelHead>, wall_ms: u64) {
        let ChannelHead { channel, seq, manifest_sha256, issued_at, .. } = head.content();
        self.keep(channel, Sight { seq: *seq, manifest_sha256: *manifest_sha256, issued_at: *issued_at }, wall_ms);
    }

    /// Remembers a release that counts and came without a head. Older ones change nothing.
    pub fn see_alone(&mut self, manifest: &Trusted<'_, Manifest>, wall_ms: u64) {
        let release = manifest.content();
        self.keep(
            &release.channel,
            Sight { seq: release.seq, manifest_sha256: manifest.hash(), issued_at: 0 },
            wall_ms,
        );
    }

    /// Remembers what was seen elsewhere too. Of each channel the newest stays.
    pub fn merge(&mut self, other: Self, wall_ms: u64) {
        for (channel, found) in other.0 {
            self.keep(&channel, found, wall_ms);
        }
    }

    fn keep(&mut self, channel: &Channel, found: Sight, wall_ms: u64) {
        let order = |sight: &Sight| (sight.seq, sight.binds_from(wall_ms));
        if self.0.get(channel).is_none_or(|seen| order(seen) < order(&found)) {
            self.0.insert(channel.clone(), found);
        }
    }

    /// Whether a release that came without a head may be installed: nothing newer of its channel was seen.
    ///
    /// # Errors
    /// [`ReleaseRefused`].
    pub fn admit_alone(
        &self,
        manifest: &Trusted<'_, Manifest>,
        allow_downgrade: bool,
        wall_ms: u64,
    ) -> Result<(), ReleaseRefused> {
        let release = manifest.content();
        match self.check_seen(&release.channel, release.seq, manifest.hash()) {
            Err(ReleaseRefused::Rollback { .. }) if allow_downgrade => {}
            refused => refused?,
        }
        if !allow_downgrade && release.is_below_its_minimum() {
            return Err(yanked(release));
        }
        check_expiry(release, wall_ms)
    }

    /// As it is kept: `{"stable": [seq, hash, issuedAt]}`.
    pub fn to_value(&self) -> Value {
        let row = |(channel, seen): (&Channel, &Sight)| {
            (channel.to_string(), json!([seen.seq, HEXLOWER.encode(&seen.manifest_sha256), seen.issued_at]))
        };
        Value::Object(self.0.iter().map(row).collect())
    }

    /// Reads that form, and the one without a time that there was before.
    pub fn read(value: &Value) -> Option<Self> {
        let row = |(channel, row): (&String, &Value)| {
            let (seq, manifest_sha256) = (integer(row.get(0)?)?, hex32(row.get(1)?)?);
            let issued_at = row.get(2).map_or(Some(0), integer)?;
            Some((Channel::parse(channel)?, Sight { seq, manifest_sha256, issued_at }))
        };
        value.as_object()?.iter().map(row).collect::<Option<_>>().map(Self)
    }
}

fn yanked(release: &Manifest) -> ReleaseRefused {
    ReleaseRefused::Yanked { seq: release.seq, version: release.version.clone() }
}

fn check_expiry(release: &Manifest, wall_ms: u64) -> Result<(), ReleaseRefused> {
    match release.expiry {
        Some(end) if wall_ms >= end => Err(ReleaseRefused::Expired(write_time(end))),
        _ => Ok(()),
    }
}
