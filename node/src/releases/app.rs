//! An app as its space holds it.
//!
//! ```text
//! releases   one frame {schema, name, by}: its address is the registry that manifests name
//! keys       one frame for each record of the publisher's key ledger, {record}; of a recovery, bin: [frames of the owner]
//! channel    one timeline for each channel, one frame for each release, yank or renewal:
//!            {registry, channel, seq, manifest: its SHA-256, head}, bin: [bundle head, plain tar]
//! ```
//!
//! Nothing of it is believed because it stands here: whoever may write to the space can write anything. Trust begins with
//! the pair that signed ([`sealtide_releases::bundle::Trust`]). Who follows looks at so much of it; the publisher, who goes on from what
//! it finds, looks at all ([`App::each_entry`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::ControlFlow;

use data_encoding::HEXLOWER;
use sealtide_ibgib::{
    Address, ChunkRef, Manifest as Listing, Object, Relations, Sid, Stamp, Verified, genesis, try_evolve, uuid,
};
use sealtide_identity::SpaceId;
use sealtide_identity::keyring::{Action, LedgerRecord, PublicPair};
use sealtide_releases::bundle::{AppName, BundleHead, Channel, ChannelHead, HEAD_BYTES_MAX, Manifest, Signed};
use sealtide_store::{SpaceHandle, Store};
use sealtide_sync::SpaceView;
use serde_json::{Value, json};

use super::memory::Memory;
use super::own::OwnKeys;
use crate::content::{ContentReader, store_bytes};
use crate::engine::RELEASE_IB;
use crate::failure::{Exit, Failure};
use crate::identity::{encode_frames, parse_frames};
use crate::known::Known;
use crate::node::Node;
use crate::real::now;
use crate::world::OsEntropy;

/// The kind of the space of an app; it is shared as any other.
const SPACE_KIND: &str = "data";
const RELEASES_IB: &str = "releases";
const KEYS_IB: &str = "keys";
const CHANNEL_IB: &str = RELEASE_IB;
/// The schema of the first frame.
const SCHEMA: &str = "sealtide/releases/1";
/// Apps in one space that are looked at, at most; our own spaces have one.
const APPS_MAX: usize = 16;
/// Timelines of keys or channels that are looked at, at most.
const TIMELINES_MAX: usize = 256;
/// Ends of a diverged timeline of keys that are looked at, at most.
const ENDS_MAX: usize = 16;
/// Proofs of recoveries that are read, at most, the newest first.
const PROOFS_MAX: usize = 4;
/// Frames of one channel that are looked at, at most, the newest first.
const FRAMES_MAX: usize = 65_536;
/// Frames behind the newest own one that are looked at, at most, for the end that the next one goes behind.
const BEHIND_MAX: usize = 4096;

/// An app in a space of this node.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) space: SpaceId,
    pub(crate) name: AppName,
    /// Address of the first frame of the release timeline.
    pub(crate) registry: String,
    store: Store,
    view: SpaceHandle,
}

/// One frame of a channel: a release, with the head of its time.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) frame: Verified,
    pub(crate) seq: u64,
    pub(crate) manifest_sha256: [u8; 32],
    pub(crate) head: Signed<ChannelHead>,
    bundle_head: Address,
    /// The plain tar.
    pub(crate) tar: Address,
}

/// One end of a timeline of ledger records; nothing of it is verified.
pub(crate) struct LedgerLine {
    /// Oldest first.
    pub(crate) records: Vec<LedgerRecord>,
    /// Frames of a keystone, for the recoveries among them.
    pub(crate) proof: Vec<Verified>,
}

impl App {
    /// The apps of all spaces of a store.
    pub(crate) fn all(store: &Store) -> Vec<Self> {
        let labels = Known::of(store).labels();
        let shared = labels.into_iter().filter(|(_, label)| label.kind == SPACE_KIND);
        shared.flat_map(|(space, _)| Self::of_space(store, space)).collect()
    }

    /// The manifests in the channels of a store that one of these pairs signed. All that stands there is looked at.
    ///
    /// # Errors
    /// As the store reports.
    pub(crate) fn manifests(store: &Store, pairs: &[PublicPair]) -> Result<Vec<Signed<Manifest>>, Failure> {
        let mut found = BTreeMap::new();
        for app in Self::all(store) {
            app.each_entry(&mut |_, entry| {
                if !found.contains_key(&entry.manifest_sha256)
                    && let Ok(head) = app.bundle_head(entry)
                    && pairs.iter().any(|pair| head.manifest.verify(pair).is_ok())
                {
                    found.insert(entry.manifest_sha256, head.manifest);
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(found.into_values().collect())
    }

    /// The app with a name.
    ///
    /// # Errors
    /// Exit 2 when several spaces have one of that name, and not just one of them is known: published here, or trusted.
    pub(crate) fn find(node: &Node, name: &AppName) -> Result<Option<Self>, Failure> {
        let mut found: Vec<Self> = Self::all(node.store()).into_iter().filter(|app| app.name == *name).collect();
        if found.len() > 1 {
            let keys = node.open_desk().map(|desk| desk.ledger_records()).transpose()?;
            let keys = keys.map(|ledger| OwnKeys::of(&ledger));
            let is_trusted = |app: &Self| app.memory().trust().is_ok_and(|trust| trust.is_some());
            let mut known: Vec<&Self> = Vec::new();
            for app in &found {
                if is_trusted(app) || keys.as_ref().map_or(Ok(false), |keys| keys.released(app))? {
                    known.push(app);
                }
            }
            if let [only] = known.as_slice() {
                return Ok(Some((*only).clone()));
            }
            let places: Vec<String> = found.iter().map(|app| node.label(&app.space)).collect();
            let text = format!("several spaces have an app {name}: {}", places.join(", "));
            return Err(Failure::usage("several_apps", text).hint("`sealtide spaces remove` forgets one of them"));
        }
        Ok(found.pop())
    }

    fn of_space(store: &Store, space: SpaceId) -> Vec<Self> {
        let Some(view) = store.view(&space) else { return Vec::new() };
        let mut timelines = view.timelines_of(RELEASES_IB);
        // Whoever may write can begin others: one that matters here is never left out for them.
        if timelines.len() > APPS_MAX {
            let known = Known::of(store);
            timelines.sort_by_cached_key(|info| !Memory::of(known.clone(), info.tjp.as_str()).is_known());
        }
        let app = |first: Verified| {
            let data = first.object()?;
            let is_app = data.get("schema")?.as_str()? == SCHEMA;
            let name = AppName::parse(data.get("name")?.as_str()?).filter(|_| is_app)?;
            let (store, view) = (store.clone(), view.clone());
            Some(Self { space, name, registry: first.address().as_str().to_owned(), store, view })
        };
        let firsts =
            timelines.into_iter().take(APPS_MAX).filter_map(|info| view.records_at(&info.tjp).into_iter().next());
        firsts.filter_map(app).collect()
    }

    /// Makes a space for an app.
    ///
    /// # Errors
    /// As the store reports.
    pub(crate) async fn begin(node: &Node, name: &AppName) -> Result<Self, Failure> {
        let making = (node.clone(), name.clone());
        let space = tokio::task::spawn_blocking(move || making.0.create_space(making.1.as_str(), SPACE_KIND)).await;
        let space = space.map_err(|error| Failure::failed("release", error.to_string()))??;
        let mut data = object(json!({"schema": SCHEMA, "name": name.as_str(), "by": node.id().to_string()}));
        if let Some(owner) = node.identities().owner() {
            data.insert("root".to_owned(), json!(owner.to_string()));
        }
        let first = genesis(RELEASES_IB, data, Relations::new(), stamp(), &uuid(&mut OsEntropy));
        let registry = first.address().as_str().to_owned();
        node.engine().commit_local(space, vec![first]).await.map_err(crate::commands::store_failure)?;
        let made = Self::of_space(node.store(), space).into_iter().find(|app| app.registry == registry);
        made.ok_or_else(|| Failure::failed("release", "the space of the app is gone"))
    }

    /// A text of the length that every [`App::registry`] has, for one that is not made yet.
    pub(super) fn unmade_registry() -> String {
        format!("{RELEASES_IB}^{}", "0".repeat(64))
    }

    /// Whether its first frame says that one of these nodes publishes it.
    pub(crate) fn is_by(&self, nodes: &BTreeSet<String>) -> bool {
        self.first_member("by").is_some_and(|by| nodes.contains(&by))
    }

    /// The owner that its first frame names as the root of its keys: as little proven as all that stands here.
    pub(crate) fn root(&self) -> Option<String> {
        self.first_member("root").filter(|root| Address::parse(root).is_ok())
    }

    fn first_member(&self, name: &str) -> Option<String> {
        let first = self.view.timelines_of(RELEASES_IB).into_iter().find(|info| info.tjp.as_str() == self.registry)?;
        let first = self.view.records_at(&first.tjp).into_iter().next()?;
        first.object()?.get(name)?.as_str().map(str::to_owned)
    }

    /// The records of the publisher's key ledger, oldest first, as each timeline of them goes, a diverged one once for each end;
    /// none are verified. Whoever may write can begin other timelines, so all are given.
    pub(crate) fn ledgers(&self) -> Vec<LedgerLine> {
        self.key_lines().iter().map(|frames| self.ledger_line(frames)).collect()
    }

    fn key_lines(&self) -> Vec<Vec<Verified>> {
        let lines = self.view.timelines_of(KEYS_IB).into_iter().take(TIMELINES_MAX);
        let ends = lines.flat_map(|info| info.tips.into_iter().take(ENDS_MAX));
        ends.filter_map(|tip| self.line_to(&tip.sid)).take(TIMELINES_MAX).collect()
    }

    /// The end of the longest timeline that holds the begin of these records and nothing else, and how many it holds. All are looked at.
    fn copy_of(&self, records: &[LedgerRecord]) -> Option<(Verified, usize)> {
        let is_at = |frame: &Verified| {
            let at = frame.frame().and_then(|facts| usize::try_from(facts.n).ok());
            at.and_then(|at| records.get(at)).is_some_and(|record| ledger_record(frame).as_ref() == Some(record))
        };
        let lines = self.view.timelines_of(KEYS_IB).into_iter();
        let mut ends: Vec<_> = lines.flat_map(|info| info.tips).filter(|tip| tip.n < records.len() as u64).collect();
        ends.sort_by_key(|tip| std::cmp::Reverse(tip.n));
        ends.into_iter().find_map(|tip| {
            let end = self.view.record(&tip.sid)?;
            let length = usize::try_from(tip.n).ok()? + 1;
            (self.path_to(end.clone()).take_while(is_at).count() == length).then_some((end, length))
        })
    }

    fn ledger_line(&self, frames: &[Verified]) -> LedgerLine {
        let mut line = LedgerLine { records: frames.iter().filter_map(ledger_record).collect(), proof: Vec::new() };
        let mut known = BTreeSet::new();
        // The newest proof holds those before it; a few are enough for whoever was away.
        for frame in frames.iter().rev().filter(|frame| frame.relations().contains_key("bin")).take(PROOFS_MAX) {
            for frame in self.proof(frame).unwrap_or_default() {
                if known.insert(frame.sid()) {
                    line.proof.push(frame);
                }
            }
        }
        line
    }

    fn proof(&self, frame: &Verified) -> Option<Vec<Verified>> {
        let [content] = frame.relations().get("bin")?.as_slice() else { return None };
        let mut bytes = Vec::new();
        let reader = ContentReader::open(&self.store, &self.view, content).ok()?;
        reader.take(HEAD_BYTES_MAX as u64).read_to_end(&mut bytes).ok()?;
        parse_frames(&bytes.into()).ok()
    }

    /// The entries of a channel, oldest first, for each timeline that says it is this channel.
    pub(crate) fn channel(&self, channel: &Channel) -> Vec<Vec<Entry>> {
        let mut lines: Vec<Vec<Entry>> = self
            .lines(CHANNEL_IB)
            .iter()
            .map(|line| line.iter().filter_map(|frame| self.entry(frame)).collect::<Vec<_>>())
            .map(|line: Vec<(Channel, Entry)>| {
                line.into_iter().filter(|(of, _)| of == channel).map(|(_, entry)| entry).collect()
            })
            .collect();
        lines.retain(|line| !line.is_empty());
        lines
    }

    /// The channels that the space speaks of.
    pub(crate) fn channels(&self) -> Vec<Channel> {
        let lines = self.lines(CHANNEL_IB);
        let found: BTreeSet<Channel> = lines.iter().flatten().filter_map(|frame| Some(self.entry(frame)?.0)).collect();
        found.into_iter().collect()
    }

    fn entry(&self, frame: &Verified) -> Option<(Channel, Entry)> {
        let data = frame.object()?;
        let is_own = data.get("registry")?.as_str()? == self.registry;
        let channel = Channel::parse(data.get("channel")?.as_str()?).filter(|_| is_own)?;
        let relations = frame.relations();
        let [bundle_head, tar] = relations.get("bin")?.as_slice() else { return None };
        let hash = HEXLOWER.decode(data.get("manifest")?.as_str()?.as_bytes()).ok()?;
        let entry = Entry {
            frame: frame.clone(),
            seq: data.get("seq")?.as_u64()?,
            manifest_sha256: hash.try_into().ok()?,
            head: Signed::from_value(data.get("head")?).ok()?,
            bundle_head: bundle_head.clone(),
            tar: tar.clone(),
        };
        Some((channel, entry))
    }

    /// The frames of every timeline with this ib, oldest first. Where one is diverged, nobody but its writers can say which side holds:
    /// the side with the most frames comes first, then what the others have behind where they part; the signatures tell the rest.
    fn lines(&self, ib: &str) -> Vec<Vec<Verified>> {
        let sides = |info: sealtide_store::TimelineInfo| -> Vec<Vec<Verified>> {
            let (mut tips, mut known) = (info.tips, BTreeSet::new());
            tips.sort_by_key(|tip| std::cmp::Reverse(tip.n));
            let lines = tips.iter().take(ENDS_MAX).filter_map(|tip| self.line_to(&tip.sid));
            let new = lines.map(|line| line.into_iter().filter(|frame| known.insert(frame.sid())).collect());
            new.collect()
        };
        self.view.timelines_of(ib).into_iter().take(TIMELINES_MAX).flat_map(sides).collect()
    }

    /// Goes through every frame of every timeline of channels, on whatever side it stands, of each timeline the newest first, until it is
    /// told to stop. Nothing is left out and nothing kept, so that nothing that others write there hides a frame.
    ///
    /// # Errors
    /// When a frame cannot be read: it may be the one that is looked for.
    pub(super) fn each_entry(&self, visit: &mut dyn FnMut(&Channel, &Entry) -> ControlFlow<()>) -> Result<(), Failure> {
        for info in self.view.timelines_of(CHANNEL_IB) {
            for sid in self.view.frames(&info.timeline, 0, u64::MAX, usize::MAX).iter().rev() {
                let frame = self.view.record(sid).ok_or_else(|| self.lost())?;
                if let Some((channel, entry)) = self.entry(&frame)
                    && visit(&channel, &entry).is_break()
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The entry that a frame is.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn entry_at(&self, sid: &Sid) -> Result<Entry, Failure> {
        let frame = self.view.record(sid).ok_or_else(|| self.lost())?;
        self.entry(&frame).map(|(_, entry)| entry).ok_or_else(|| self.lost())
    }

    fn lost(&self) -> Failure {
        let text = format!("a frame of a release channel of {} cannot be read", self.name);
        Failure::new(Exit::Verification, "store_damaged", text).hint("`sealtide verify` tells what is damaged")
    }

    /// A frame and those before it, back to the first of its timeline.
    pub(super) fn path_to(&self, end: Verified) -> impl Iterator<Item = Verified> {
        std::iter::successors(Some(end), |frame| self.view.records_at(frame.frame()?.past.last()?).into_iter().next())
    }

    /// The last entry of a channel on a side that goes on behind `own`, whoever wrote it; `own` itself where all that stands behind it is
    /// too much to look at.
    pub(super) fn end_behind(&self, own: Entry, channel: &Channel) -> Entry {
        let Some((timeline, n)) = own.frame.frame().map(|facts| (facts.timeline, facts.n)) else { return own };
        let mut tips = self.view.tips(&timeline);
        tips.sort_by_key(|tip| std::cmp::Reverse(tip.n));
        let is_own = |frame: &Verified| frame.sid() == own.frame.sid();
        let end = tips.iter().take(ENDS_MAX).find_map(|tip| {
            let path = self.path_to(self.view.record(&tip.sid)?).take(BEHIND_MAX);
            let behind: Vec<Verified> =
                path.take_while(|frame| frame.frame().is_some_and(|facts| facts.n >= n)).collect();
            let entry = |frame: &Verified| self.entry(frame).filter(|(of, _)| of == channel).map(|(_, entry)| entry);
            behind.last().filter(|last| is_own(last)).and_then(|_| behind.iter().find_map(entry))
        });
        end.unwrap_or(own)
    }

    /// The frames of a timeline up to one of its ends, oldest first.
    fn line_to(&self, end: &Sid) -> Option<Vec<Verified>> {
        let mut line = vec![self.view.record(end)?];
        while line.len() < FRAMES_MAX
            && let Some(past) = line.last()?.frame()?.past.last().cloned()
        {
            line.push(self.view.records_at(&past).into_iter().next()?);
        }
        line.reverse();
        Some(line)
    }

    /// Manifest and chain of an entry; nothing of them is verified, but they are what the entry names.
    ///
    /// # Errors
    /// Exit 5 for what is no bundle head.
    pub(crate) fn bundle_head(&self, entry: &Entry) -> Result<BundleHead, Failure> {
        let damaged = |text: String| Failure::new(Exit::Verification, "not_a_bundle", text);
        let mut bytes = Vec::new();
        let reader = ContentReader::open(&self.store, &self.view, &entry.bundle_head)?;
        reader.take(HEAD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        let (head, length) = BundleHead::read(&bytes).map_err(|error| damaged(error.to_string()))?;
        if length != bytes.len() || head.manifest.hash() != entry.manifest_sha256 {
            return Err(damaged("the channel names another manifest than the one that stands there".to_owned()));
        }
        Ok(head)
    }

    /// What this node remembers of it.
    pub(super) fn memory(&self) -> Memory {
        Memory::of(Known::of(&self.store), &self.registry)
    }

    /// The space, as it was when the app was looked for.
    pub(super) fn view(&self) -> &SpaceHandle {
        &self.view
    }

    /// The records that list the chunks of an entry's tar; none do where it is one record.
    pub(super) fn content_records(&self, entry: &Entry) -> Vec<Verified> {
        let record = |address: &Address| self.view.records_at(address).into_iter().next();
        let Some(listing) = record(&entry.tar) else { return Vec::new() };
        let mut records = vec![listing.clone()];
        // One that cannot be read lists nothing that could be given up.
        let _ = Listing::read(&listing, &mut |page| {
            let page = record(page);
            records.extend(page.clone());
            page
        });
        records
    }

    /// The chunks of an entry's tar that are not here.
    pub(super) fn absent_chunks(&self, entry: &Entry) -> Vec<ChunkRef> {
        let records = self.content_records(entry);
        let mut chunks: Vec<ChunkRef> = records.iter().flat_map(Listing::chunks_listed).collect();
        chunks.retain(|chunk| !self.store.holds_chunk(&chunk.hash));
        chunks
    }

    /// Whether the whole tar of an entry is here.
    pub(crate) fn is_here(&self, entry: &Entry) -> bool {
        self.absent_chunks(entry).is_empty()
    }

    /// The plain tar of an entry.
    ///
    /// # Errors
    /// Exit 5 when it is not whole here.
    pub(crate) fn tar(&self, entry: &Entry) -> Result<ContentReader, Failure> {
        ContentReader::open(&self.store, &self.view, &entry.tar)
    }

    /// The frame that names a release as the newest of its channel, behind `tip`; where nothing can stand behind that, it begins a timeline.
    pub(crate) fn next_entry(&self, tip: Option<&Entry>, head: &Signed<ChannelHead>, bin: [Address; 2]) -> Verified {
        let content = head.content();
        let data = object(json!({
            "registry": self.registry,
            "channel": content.channel.as_str(),
            "seq": content.seq,
            "manifest": HEXLOWER.encode(&content.manifest_sha256),
            "head": head.to_value(),
        }));
        let relations = Relations::from([("bin".to_owned(), bin.to_vec())]);
        let behind = tip.and_then(|tip| try_evolve(&tip.frame, data.clone(), relations.clone(), stamp()).ok());
        behind.unwrap_or_else(|| genesis(CHANNEL_IB, data, relations, stamp(), &uuid(&mut OsEntropy)))
    }

    /// The frames that bring the copy of the key ledger up to `records`: behind the longest copy of its begin that is here, else a new one,
    /// since whoever may write can put anything behind a copy. A recovery brings `proof`, the frames of the owner that prove it.
    pub(crate) fn next_keys(&self, records: &[LedgerRecord], proof: &[Verified]) -> Result<Vec<Verified>, Failure> {
        let (mut tip, known) = self.copy_of(records).unzip();
        let known = known.unwrap_or(0);
        let mut made = Vec::new();
        for record in records.iter().skip(known) {
            let data = Object::from_iter([("record".to_owned(), record.to_value())]);
            let mut relations = Relations::new();
            if record.action == Action::Recover && !proof.is_empty() {
                let content = store_bytes(&self.store, &encode_frames(proof))?;
                relations.insert("bin".to_owned(), content.last().map(|it| it.address().clone()).into_iter().collect());
                made.extend(content);
            }
            let frame = match &tip {
                None => genesis(KEYS_IB, data, relations, stamp(), &uuid(&mut OsEntropy)),
                Some(tip) => try_evolve(tip, data, relations, stamp())
                    .map_err(|error| Failure::failed("store", format!("keys: {error}")))?,
            };
            tip = Some(frame.clone());
            made.push(frame);
        }
        Ok(made)
    }
}

fn ledger_record(frame: &Verified) -> Option<LedgerRecord> {
    LedgerRecord::parse(frame.object()?.get("record")?).ok()
}

impl Entry {
    /// Where its bundle head and its tar stand.
    pub(crate) fn bin(&self) -> [Address; 2] {
        [self.bundle_head.clone(), self.tar.clone()]
    }
}

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

fn stamp() -> Stamp {
    Stamp { ms: now().wall_ms }
}
