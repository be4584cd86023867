//! What this node released, found among all that stands in the space of an app. Whoever may write there can write anything, behind the
//! own frames and in timelines of their own, so only what a pair of the own key ledger signed counts; and all that stands there is looked
//! at, for a number that somebody hid would be signed again. Spec: releases §5.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;

use sealtide_ibgib::{Sid, TimelineId};
use sealtide_identity::keyring::{Action, KeyVersion, LastGood, LedgerRecord, PublicPair, VersionState};
use sealtide_releases::bundle::{Channel, ChannelHead, Content, INTEGER_MAX, Manifest, Signed};
use semver::Version;

use super::app::{App, Entry};
use super::memory::Made;
use crate::failure::{Exit, Failure};
use crate::real::now;

/// The pairs that signed, by the own key ledger.
#[derive(Default)]
pub(crate) struct OwnKeys {
    pairs: Vec<(KeyVersion, PublicPair)>,
    /// The one whose heads followers take.
    active: Option<KeyVersion>,
    /// Versions that were given up, with the last manifests that they signed in good faith.
    compromised: BTreeMap<KeyVersion, Vec<LastGood>>,
    /// Those of them that a recovery replaced: whoever follows it forgets what was seen of the channels, so their numbers bind nobody.
    forgotten: BTreeSet<KeyVersion>,
    /// How many signatures were looked at so far.
    #[cfg(test)]
    pub(super) verified: std::cell::Cell<usize>,
}

/// What this node released in a channel.
#[derive(Default)]
pub(super) struct OwnLine {
    /// The frame that the next one goes behind, whoever wrote it.
    pub(super) tip: Option<Entry>,
    /// Its releases, oldest first.
    pub(super) releases: Vec<Released>,
    /// The newest head that followers take, where a clock that was ahead dated some in the future.
    pub(super) in_time: Option<Signed<ChannelHead>>,
    /// The highest number that was signed and the manifest that has it, also with a key that was given up since.
    newest: Option<(u64, [u8; 32])>,
    /// The numbers that any head takes back which counts.
    yanked: BTreeSet<u64>,
    /// What is remembered of the last release where the space does not show its number or its frame, which may be of a yank behind it, and the
    /// highest number that it shows.
    missing: Option<(Made, u64)>,
    /// What is to be remembered of it, where nothing is yet.
    pub(super) unremembered: Option<Made>,
}

/// A release that this node made, as far as the next ones depend on it. Its manifest lists every file, and there may be very many
/// releases: the whole of one is read where it is needed.
#[derive(Clone, Debug)]
pub(super) struct Released {
    pub(super) seq: u64,
    pub(super) version: Version,
    /// Of its manifest.
    pub(super) hash: [u8; 32],
    prev: Option<[u8; 32]>,
    signer: KeyVersion,
    /// The first frame that names it.
    frame: Sid,
}

impl Released {
    /// Its manifest, and the first entry that names it.
    ///
    /// # Errors
    /// When it cannot be read any more.
    pub(super) fn whole(&self, app: &App) -> Result<(Signed<Manifest>, Entry), Failure> {
        let entry = app.entry_at(&self.frame)?;
        Ok((app.bundle_head(&entry)?.manifest, entry))
    }
}

/// A frame whose head this node signed.
struct OwnFrame {
    sid: Sid,
    timeline: TimelineId,
    n: u64,
    version: KeyVersion,
    seq: u64,
    issued_at: u64,
    manifest_sha256: [u8; 32],
    head_sha256: [u8; 32],
    yanked: Vec<u64>,
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
        let mut keys = Self { pairs, ..Self::default() };
        let Some(newest) = ledger.last() else { return keys };
        let active = PublicPair::of_entries(&newest.keys_of(newest.active()));
        keys.active = keys.pairs.iter().find(|(_, pair)| Some(pair) == active.as_ref()).map(|(version, _)| *version);
        keys.compromised = given_up(newest).map(|version| (version, Vec::new())).collect();
        keys.compromised.extend(newest.compromised().map(|(version, good)| (version, good.to_vec())));
        let recovery = ledger.iter().rev().find(|record| record.action == Action::Recover);
        keys.forgotten = recovery.into_iter().flat_map(given_up).collect();
        keys
    }

    /// Which version is said to have signed, by the name of its key; nothing is verified.
    fn claimed<T: Content>(&self, signed: &Signed<T>) -> Option<&(KeyVersion, PublicPair)> {
        let kid = &signed.signatures().first()?.kid;
        self.pairs.iter().find(|(_, pair)| pair.has(kid))
    }

    /// Which version signed.
    fn signer<T: Content>(&self, signed: &Signed<T>) -> Option<KeyVersion> {
        let (version, pair) = self.claimed(signed)?;
        #[cfg(test)]
        self.verified.set(self.verified.get() + 1);
        signed.verify(pair).is_ok().then_some(*version)
    }

    /// Whether an app has a release of this node. All of it is looked at until one is found.
    ///
    /// # Errors
    /// As the store reports.
    pub(crate) fn released(&self, app: &App) -> Result<bool, Failure> {
        let mut found = false;
        app.each_entry(&mut |channel, entry| {
            found = self.head(app, channel, entry).is_some();
            if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(found)
    }

    /// The newest head of a channel of an app that this node signed; those of a key that was given up come last.
    ///
    /// # Errors
    /// As the store reports.
    pub(crate) fn newest_head(&self, app: &App, channel: &Channel) -> Result<Option<Signed<ChannelHead>>, Failure> {
        self.newest_where(app, channel, |_, _| true)
    }

    /// The same, without those of a key that was given up and those that a clock dated ahead which was wrong. Those of the key that signs
    /// now come first: followers take no others, and one of before that was dated ahead may be the latest for as long.
    ///
    /// # Errors
    /// As the store reports.
    pub(crate) fn newest_in_time(
        &self,
        app: &App,
        channel: &Channel,
        wall_ms: u64,
    ) -> Result<Option<Signed<ChannelHead>>, Failure> {
        let counts = |version, head: &ChannelHead| !self.compromised.contains_key(&version) && !head.is_early(wall_ms);
        let active = |version, head: &ChannelHead| self.active == Some(version) && counts(version, head);
        match self.newest_where(app, channel, active)? {
            None => self.newest_where(app, channel, counts),
            found => Ok(found),
        }
    }

    /// No signature is looked at of a head that says less than one that counts.
    fn newest_where(
        &self,
        app: &App,
        channel: &Channel,
        counts: impl Fn(KeyVersion, &ChannelHead) -> bool,
    ) -> Result<Option<Signed<ChannelHead>>, Failure> {
        let mut newest: Option<((bool, u64, u64), Signed<ChannelHead>)> = None;
        app.each_entry(&mut |of, entry| {
            let content = entry.head.content();
            let claimed = self.claimed(&entry.head).filter(|(version, _)| of == channel && counts(*version, content));
            let standing = claimed.map(|(version, _)| self.standing(*version, content.seq, content.issued_at));
            if let Some(standing) = standing
                && newest.as_ref().is_none_or(|(best, _)| *best < standing)
                && self.head(app, channel, entry).is_some()
            {
                newest = Some((standing, entry.head.clone()));
            }
            ControlFlow::Continue(())
        })?;
        Ok(newest.map(|(_, head)| head))
    }

    fn standing(&self, version: KeyVersion, seq: u64, issued_at: u64) -> (bool, u64, u64) {
        (!self.compromised.contains_key(&version), seq, issued_at)
    }

    /// Which version signed the head of an entry of a channel. A frame that names another manifest beside it is none that this node wrote.
    fn head(&self, app: &App, channel: &Channel, entry: &Entry) -> Option<KeyVersion> {
        let content = entry.head.content();
        let is_of = content.registry == app.registry && content.channel == *channel;
        let is_of = is_of && content.manifest_sha256 == entry.manifest_sha256;
        if is_of { self.signer(&entry.head) } else { None }
    }

    fn manifest(&self, app: &App, channel: &Channel, signed: &Signed<Manifest>) -> Option<KeyVersion> {
        let content = signed.content();
        let is_of = content.registry == app.registry && content.channel == *channel && content.name == app.name;
        if is_of { self.signer(signed) } else { None }
    }

    /// The manifests of a channel that a version which was given up signed in good faith: those that the ledger names of it, and those
    /// before them.
    fn good(
        &self,
        app: &App,
        channel: &Channel,
        version: KeyVersion,
        all: &BTreeMap<[u8; 32], Released>,
    ) -> BTreeSet<[u8; 32]> {
        let named = self.compromised.get(&version).into_iter().flatten();
        let named = named.filter(|good| good.registry == app.registry && good.channel == channel.as_str());
        let mut good = BTreeSet::new();
        for named in named {
            let mut at = Some(named.manifest_sha256);
            while let Some(hash) = at.filter(|hash| good.insert(*hash)) {
                at = all.get(&hash).and_then(|release| release.prev);
            }
        }
        good
    }
}

fn given_up(record: &LedgerRecord) -> impl Iterator<Item = KeyVersion> {
    record.versions().filter(|(_, state)| *state == VersionState::Compromised).map(|(version, _)| version)
}

impl OwnLine {
    /// # Errors
    /// When a release that this node signed cannot be read: the next must not be made as if it were not there.
    pub(super) fn of(app: &App, channel: &Channel, keys: &OwnKeys) -> Result<Self, Failure> {
        let mut found = Self::look(app, keys, Some(channel))?;
        found.remove(channel).unwrap_or_else(|| Ok(Self::default()))
    }

    /// What this node released in each channel of an app; none where it released nothing.
    ///
    /// # Errors
    /// As the store reports; of one channel, as of [`OwnLine::of`].
    pub(super) fn all(app: &App, keys: &OwnKeys) -> Result<BTreeMap<Channel, Result<Self, Failure>>, Failure> {
        Self::look(app, keys, None)
    }

    fn look(
        app: &App,
        keys: &OwnKeys,
        wanted: Option<&Channel>,
    ) -> Result<BTreeMap<Channel, Result<Self, Failure>>, Failure> {
        let is_wanted = |channel: &Channel| wanted.is_none_or(|wanted| wanted == channel);
        let mut made = app.memory().made()?;
        let remembered = made.keys().filter(|channel| is_wanted(channel)).cloned();
        let mut found: BTreeMap<Channel, Vec<OwnFrame>> = remembered.map(|channel| (channel, Vec::new())).collect();
        app.each_entry(&mut |channel, entry| {
            if is_wanted(channel)
                && let Some(version) = keys.head(app, channel, entry)
                && let Some(facts) = entry.frame.frame()
            {
                let head = entry.head.content();
                found.entry(channel.clone()).or_default().push(OwnFrame {
                    sid: entry.frame.sid(),
                    timeline: facts.timeline,
                    n: facts.n,
                    version,
                    seq: head.seq,
                    issued_at: head.issued_at,
                    manifest_sha256: entry.manifest_sha256,
                    head_sha256: entry.head.hash(),
                    yanked: head.yanked.clone(),
                });
            }
            ControlFlow::Continue(())
        })?;
        let read = |(channel, frames): (Channel, Vec<OwnFrame>)| {
            let line = Self::read(app, &channel, keys, frames, made.remove(&channel));
            (channel, line)
        };
        Ok(found.into_iter().map(read).collect())
    }

    fn read(
        app: &App,
        channel: &Channel,
        keys: &OwnKeys,
        mut frames: Vec<OwnFrame>,
        made: Option<Made>,
    ) -> Result<Self, Failure> {
        let most = frames.iter().map(|frame| frame.seq).max().unwrap_or(0);
        let base = base_of(&frames, keys, made).map(|base| app.entry_at(&base)).transpose()?;
        let path: HashSet<Sid> =
            base.iter().flat_map(|base| app.path_to(base.frame.clone())).map(|frame| frame.sid()).collect();
        // What this node wrote comes first, before what others repeated of it.
        frames.sort_by_key(|frame| (!path.contains(&frame.sid), frame.n));
        let (mut own, mut all) = (Self::default(), BTreeMap::new());
        let is_shown = |made: &Made| made.seq <= most && frames.iter().any(|frame| frame.sid == made.frame);
        own.missing = made.filter(|made| !is_shown(made)).map(|made| (made, most));
        let mut unread: BTreeMap<[u8; 32], Failure> = BTreeMap::new();
        for frame in &frames {
            own.note(keys, frame.version, frame.seq, frame.manifest_sha256);
            if all.contains_key(&frame.manifest_sha256) {
                continue;
            }
            let entry = app.entry_at(&frame.sid)?;
            match app.bundle_head(&entry) {
                Ok(found) => {
                    if let Some(signer) = keys.manifest(app, channel, &found.manifest) {
                        let (content, hash) = (found.manifest.content(), frame.manifest_sha256);
                        own.note(keys, signer, content.seq, hash);
                        let (seq, version, prev) = (content.seq, content.version.clone(), content.prev);
                        all.insert(hash, Released { seq, version, hash, prev, signer, frame: frame.sid });
                    }
                }
                Err(failure) => drop(unread.insert(frame.manifest_sha256, failure)),
            }
        }
        frames.sort_by_key(|frame| std::cmp::Reverse(keys.standing(frame.version, frame.seq, frame.issued_at)));
        let counting = || frames.iter().filter(|frame| !keys.compromised.contains_key(&frame.version));
        own.yanked = counting().chain(frames.first()).flat_map(|frame| frame.yanked.iter().copied()).collect();
        for frame in counting() {
            let head = app.entry_at(&frame.sid)?.head;
            if !head.content().is_early(now().wall_ms) {
                own.in_time = Some(head);
                break;
            }
        }
        let named = frames.first().map(|newest| newest.manifest_sha256);
        if let Some(failure) = named.filter(|named| !all.contains_key(named)).and_then(|named| unread.remove(&named)) {
            return Err(failure);
        }
        let good: BTreeMap<KeyVersion, _> =
            keys.compromised.keys().map(|version| (*version, keys.good(app, channel, *version, &all))).collect();
        let counts = |release: &Released| good.get(&release.signer).is_none_or(|good| good.contains(&release.hash));
        own.releases = all.into_values().filter(counts).collect();
        own.releases.sort_by_key(|release| release.seq);
        // Those that count bind whoever follows, whichever key signed them.
        let last = own.releases.last().map(|last| (last.seq, last.hash));
        own.newest = own.newest.max(last);
        let unremembered = base.as_ref().filter(|_| made.is_none());
        own.unremembered = unremembered.map(|base| Made { seq: most, frame: base.frame.sid() });
        own.tip = base.map(|base| app.end_behind(base, channel));
        Ok(own)
    }

    /// A number that was signed.
    fn note(&mut self, keys: &OwnKeys, version: KeyVersion, seq: u64, manifest: [u8; 32]) {
        if !keys.forgotten.contains(&version) && self.newest.is_none_or(|(newest, _)| newest < seq) {
            self.newest = Some((seq, manifest));
        }
    }

    /// Whether the space shows all that this node released in the channel: what was taken back last may stand in what is missing, so no
    /// head is signed of what is there.
    ///
    /// # Errors
    /// Exit 6 when the newest release is not there any more.
    pub(super) fn is_whole(&self, app: &App, channel: &Channel) -> Result<(), Failure> {
        self.missing.map_or(Ok(()), |(made, found)| Err(lost(app, channel, made.seq, found)))
    }

    /// The number of the next release. None is given twice, also where the release that has it is missing here.
    ///
    /// # Errors
    /// Exit 6 when there is no greater one: whoever had a key that was given up has signed the last.
    pub(super) fn next_seq(&self) -> Result<u64, Failure> {
        let missing = self.missing.map(|(made, _)| made.seq);
        let next = self.newest.map(|(newest, _)| newest).max(missing).unwrap_or(0).saturating_add(1);
        if next <= INTEGER_MAX {
            return Ok(next);
        }
        Err(Failure::new(Exit::Refused, "last_number", "a key of this node has signed the last number that a channel can have")
            .hint("publish in another channel; or `sealtide keys recover --compromised` with the recovery words gives the key and its numbers up"))
    }

    /// The manifest that the next one names as the one before it: the newest that counts, else the one whose number it comes after. Where
    /// none is here, the frame that was remembered of it stands for it.
    pub(super) fn prev(&self) -> Option<[u8; 32]> {
        let newest = self.releases.last().map(|newest| newest.hash).or(self.newest.map(|(_, manifest)| manifest));
        newest.or(self.missing.map(|(made, _)| made.frame.0))
    }

    /// The numbers that were taken back; what was stays so, whatever the clock said when: a head that it dated ahead may become the newest
    /// days later and know nothing of what came after it. A number that is yet to be given cannot be one: a thief may have said so.
    pub(super) fn yanked(&self) -> Vec<u64> {
        let newest = self.newest.map_or(0, |(newest, _)| newest);
        self.yanked.iter().copied().filter(|seq| *seq <= newest).collect()
    }

    /// The newest head of the release with this number that followers take, if there is one.
    pub(super) fn head_of(&self, seq: u64) -> Option<&ChannelHead> {
        self.in_time.as_ref().map(Signed::content).filter(|head| head.seq == seq)
    }
}

/// The newest frame that this node wrote itself: the one that it remembers, else of the timeline that holds most of its heads, each counted
/// once however often it stands there.
fn base_of(frames: &[OwnFrame], keys: &OwnKeys, made: Option<Made>) -> Option<Sid> {
    if let Some(made) = made.filter(|made| frames.iter().any(|frame| frame.sid == made.frame)) {
        return Some(made.frame);
    }
    let mut heads: BTreeMap<TimelineId, (HashSet<[u8; 32]>, u64, Sid)> = BTreeMap::new();
    for frame in frames.iter().filter(|frame| !keys.compromised.contains_key(&frame.version)) {
        let (found, n, newest) = heads.entry(frame.timeline).or_insert((HashSet::new(), frame.n, frame.sid));
        found.insert(frame.head_sha256);
        if frame.n > *n {
            (*n, *newest) = (frame.n, frame.sid);
        }
    }
    heads.into_values().max_by_key(|(found, n, _)| (found.len(), *n)).map(|(_, _, newest)| newest)
}

fn lost(app: &App, channel: &Channel, made: u64, found: u64) -> Failure {
    let name = &app.name;
    let shown = if found < made {
        format!("release {made} of {name} ({channel}) was made here, and the newest that its space shows is {found}")
    } else {
        format!("this node wrote more of {name} ({channel}) than its space shows, behind release {made}")
    };
    let text = format!("{shown}: what was taken back since is not known");
    Failure::new(Exit::Refused, "releases_lost", text).hint(
        "let the node meet a peer that has the space whole, or `sealtide import` what one exported; where nobody has it, publishing a new \
         release into the channel goes on behind that number",
    )
}
