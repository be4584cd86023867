//! What this node released, found among all that stands in the space of an app. Whoever may write there can write anything, behind the
//! own frames and in timelines of their own, so only what a pair of the own key ledger signed counts. Spec: releases §5.

use std::collections::{BTreeMap, BTreeSet};

use sealtide_identity::keyring::{KeyVersion, LastGood, LedgerRecord, PublicPair, VersionState};
use sealtide_releases::bundle::{Channel, ChannelHead, Content, Manifest, Signed};

use super::app::{App, Entry};
use crate::failure::Failure;
use crate::real::now;

/// The pairs that signed, by the own key ledger.
pub(crate) struct OwnKeys {
    pairs: Vec<(KeyVersion, PublicPair)>,
    /// Versions that were given up, with the last manifests that they signed in good faith.
    compromised: BTreeMap<KeyVersion, Vec<LastGood>>,
}

/// What this node released in a channel.
#[derive(Default)]
pub(super) struct OwnLine {
    /// The frame that the next one goes behind, whoever wrote it.
    pub(super) tip: Option<Entry>,
    /// Its releases, oldest first.
    pub(super) manifests: Vec<Signed<Manifest>>,
    /// The newest head.
    head: Option<Signed<ChannelHead>>,
    /// The newest that followers take, where a clock that was ahead dated some in the future.
    pub(super) in_time: Option<Signed<ChannelHead>>,
    /// The first frame of each release.
    entries: BTreeMap<[u8; 32], Entry>,
    /// The highest number that was signed, also with a key that was given up since.
    newest: u64,
}

impl OwnKeys {
    pub(crate) fn of(ledger: &[LedgerRecord]) -> Self {
        let mut pairs: Vec<(KeyVersion, PublicPair)> = Vec::new();
        for record in ledger {
            let pair = PublicPair::of_entries(&record.keys_of(record.active()));
            if let Some(pair) = pair.filter(|pair| pairs.iter().all(|(_, known)| known != pair)) {
                pairs.push((record.active(), pair));
            }
        }
        let Some(newest) = ledger.last() else { return Self { pairs, compromised: BTreeMap::new() } };
        let given_up = newest.versions().filter(|(_, state)| *state == VersionState::Compromised);
        let mut compromised: BTreeMap<_, _> = given_up.map(|(version, _)| (version, Vec::new())).collect();
        compromised.extend(newest.compromised().map(|(version, good)| (version, good.to_vec())));
        Self { pairs, compromised }
    }

    /// Which version signed.
    fn signer<T: Content>(&self, signed: &Signed<T>) -> Option<KeyVersion> {
        self.pairs.iter().find(|(_, pair)| signed.verify(pair).is_ok()).map(|(version, _)| *version)
    }

    /// Whether an app has a release of this node.
    pub(crate) fn released(&self, app: &App) -> bool {
        let is_own =
            |entry: &Entry| entry.head.content().registry == app.registry && self.signer(&entry.head).is_some();
        app.channels().iter().any(|channel| app.channel(channel).iter().flatten().any(is_own))
    }

    /// The newest head of a channel of an app that this node signed; those of a key that was given up come last.
    pub(crate) fn newest_head(&self, app: &App, channel: &Channel) -> Option<Signed<ChannelHead>> {
        self.newest_where(app, channel, |_, _| true)
    }

    /// The same, without those of a key that was given up and those that a clock dated ahead which was wrong.
    pub(crate) fn newest_in_time(&self, app: &App, channel: &Channel, wall_ms: u64) -> Option<Signed<ChannelHead>> {
        let counts = |version, head: &ChannelHead| !self.compromised.contains_key(&version) && !head.is_early(wall_ms);
        self.newest_where(app, channel, counts)
    }

    fn newest_where(
        &self,
        app: &App,
        channel: &Channel,
        counts: impl Fn(KeyVersion, &ChannelHead) -> bool,
    ) -> Option<Signed<ChannelHead>> {
        let lines = app.channel(channel);
        let heads = lines.iter().flatten().filter_map(|entry| self.head(app, channel, entry));
        let heads = heads.filter(|(version, head)| counts(*version, head.content()));
        let newest = heads.max_by_key(|(version, head)| self.standing(*version, head.content()));
        newest.map(|(_, head)| head.clone())
    }

    fn standing(&self, version: KeyVersion, head: &ChannelHead) -> (bool, u64, u64) {
        (!self.compromised.contains_key(&version), head.seq, head.issued_at)
    }

    fn head<'a>(
        &self,
        app: &App,
        channel: &Channel,
        entry: &'a Entry,
    ) -> Option<(KeyVersion, &'a Signed<ChannelHead>)> {
        let content = entry.head.content();
        let is_of = content.registry == app.registry && content.channel == *channel;
        Some((self.signer(&entry.head).filter(|_| is_of)?, &entry.head))
    }

    fn manifest(&self, app: &App, channel: &Channel, signed: &Signed<Manifest>) -> Option<KeyVersion> {
        let content = signed.content();
        let is_of = content.registry == app.registry && content.channel == *channel && content.name == app.name;
        self.signer(signed).filter(|_| is_of)
    }

    /// The manifests of a channel that versions which were given up signed in good faith: those that the ledger names, and those
    /// before them.
    fn good(&self, app: &App, channel: &Channel, all: &BTreeMap<[u8; 32], Signed<Manifest>>) -> BTreeSet<[u8; 32]> {
        let named = self.compromised.values().flatten();
        let named = named.filter(|good| good.registry == app.registry && good.channel == channel.as_str());
        let mut good = BTreeSet::new();
        for named in named {
            let mut at = Some(named.manifest_sha256);
            while let Some(hash) = at.filter(|hash| good.insert(*hash)) {
                at = all.get(&hash).and_then(|manifest| manifest.content().prev);
            }
        }
        good
    }
}

impl OwnLine {
    /// # Errors
    /// When a release that this node signed cannot be read: the next must not be made as if it were not there.
    pub(super) fn of(app: &App, channel: &Channel, keys: &OwnKeys) -> Result<Self, Failure> {
        let mut lines = app.channel(channel);
        let own_heads =
            |line: &Vec<Entry>| line.iter().filter(|entry| keys.head(app, channel, entry).is_some()).count();
        // The one that this node wrote comes first, before those where others repeat some of it.
        lines.sort_by_cached_key(|line| std::cmp::Reverse(own_heads(line)));
        let (mut own, mut all) = (Self::default(), BTreeMap::new());
        let mut signers: BTreeMap<[u8; 32], KeyVersion> = BTreeMap::new();
        let mut unread: BTreeMap<[u8; 32], Failure> = BTreeMap::new();
        for line in &lines {
            let mut is_own = false;
            for entry in line {
                if let Some((version, head)) = keys.head(app, channel, entry) {
                    own.newest = own.newest.max(head.content().seq);
                    is_own |= !keys.compromised.contains_key(&version);
                }
                if all.contains_key(&entry.manifest_sha256) {
                    continue;
                }
                match app.bundle_head(entry) {
                    Ok(found) => {
                        if let Some(version) = keys.manifest(app, channel, &found.manifest) {
                            own.newest = own.newest.max(found.manifest.content().seq);
                            signers.insert(entry.manifest_sha256, version);
                            own.entries.insert(entry.manifest_sha256, entry.clone());
                            all.insert(entry.manifest_sha256, found.manifest);
                        }
                    }
                    Err(failure) => drop(unread.insert(entry.manifest_sha256, failure)),
                }
            }
            if is_own && own.tip.is_none() {
                own.tip = line.last().cloned();
            }
        }
        own.head = keys.newest_head(app, channel);
        own.in_time = keys.newest_in_time(app, channel, now().wall_ms);
        let named = own.head.as_ref().map(|head| head.content().manifest_sha256);
        if let Some(failure) = named.filter(|named| !all.contains_key(named)).and_then(|named| unread.remove(&named)) {
            return Err(failure);
        }
        let good = keys.good(app, channel, &all);
        let counts = |hash: &[u8; 32]| {
            good.contains(hash) || signers.get(hash).is_some_and(|version| !keys.compromised.contains_key(version))
        };
        own.manifests = all.into_iter().filter(|(hash, _)| counts(hash)).map(|(_, manifest)| manifest).collect();
        own.manifests.sort_by_key(|manifest| manifest.content().seq);
        Ok(own)
    }

    /// The number of the next release.
    pub(super) fn next_seq(&self) -> u64 {
        self.newest + 1
    }

    /// The numbers that were taken back; what was stays so, whatever the clock said when.
    pub(super) fn yanked(&self) -> Vec<u64> {
        let heads = self.head.iter().chain(&self.in_time);
        let all: BTreeSet<u64> = heads.flat_map(|head| head.content().yanked.iter().copied()).collect();
        all.into_iter().collect()
    }

    /// The newest head of a release that followers take, if there is one.
    pub(super) fn head_of(&self, manifest: &Manifest) -> Option<&ChannelHead> {
        self.in_time.as_ref().map(Signed::content).filter(|head| head.seq == manifest.seq)
    }

    /// The first frame of a release.
    pub(super) fn entry_of(&self, manifest: &Signed<Manifest>) -> Option<&Entry> {
        self.entries.get(&manifest.hash())
    }
}
