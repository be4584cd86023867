//! Which versions of a file say what yields go by. A timeline may be long, and who was removed may name many: each is read from its
//! newest version down, within bounds, and what was read is remembered for as long as something is held. Spec: sync §13

use std::collections::{BTreeMap, BTreeSet};

use sealtide_crypto::sha256;
use sealtide_ibgib::{Address, FileFrame, Sid, Verified};
use sealtide_store::SpaceHandle;
use sealtide_sync::SpaceView;

/// Versions of one timeline of the space that are looked at, at most: the newest. A yield is made against what was the newest then.
pub(crate) const VERSIONS_MAX: usize = if cfg!(test) { 64 } else { 65_536 };
/// As many of each timeline are looked at, whatever comes with it …
pub(crate) const VERSIONS_FREE: usize = if cfg!(test) { 8 } else { 64 };
/// … and as many beyond these, of all timelines that one batch names. What would need more is as if it followed from no rule, until the next look.
pub(crate) const VERSIONS_MORE: usize = 2 * VERSIONS_MAX;

/// What a version of a file wants: its path, and the content that stands there.
pub(super) type Want = [u8; 32];

/// What a version of a file wants.
pub(super) fn want_of(frame: &FileFrame) -> Want {
    sha256(format!("{:?}", (&frame.path, &frame.kind, frame.exec, &frame.content)).as_bytes())
}

/// What a live version of a file wants; of anything else nothing.
pub(super) fn live_want(record: &Verified) -> Option<Want> {
    FileFrame::read(record).ok().filter(|frame| !frame.deleted).map(|frame| want_of(&frame))
}

/// What was read to judge a batch, for the next look at the same records.
#[derive(Debug, Default)]
pub(super) struct Histories {
    /// By the first frame of each owner that yields name.
    owners: BTreeMap<Address, Searched>,
    /// Whether a merge follows from rules: by what is behind it, so for good.
    pub(super) merges: BTreeMap<Address, bool>,
    /// Versions that were read …
    pub(super) read: usize,
    /// … and those of them beyond the free ones.
    more: usize,
}

/// What was looked for in a timeline.
#[derive(Clone, Debug, Default)]
struct Searched {
    /// The tips from which all was looked at.
    tips: Vec<Sid>,
    /// A version for each, or none where there is none.
    wants: BTreeMap<Want, Option<Address>>,
}

impl Histories {
    /// A version in the space for each of these, where the bounds let one be found; `before` is what is known from the last look.
    pub(super) fn search(
        &mut self,
        before: &Self,
        space: &SpaceHandle,
        owner: &Address,
        wants: &BTreeSet<Want>,
    ) -> BTreeMap<Want, Address> {
        let timeline = owner.timeline_id();
        let before = before.owners.get(owner).cloned().unwrap_or_default();
        let mut found: BTreeMap<Want, Address> = BTreeMap::new();
        let mut open = wants.clone();
        for (want, version) in &before.wants {
            if let Some(version) = version.as_ref().filter(|_| open.remove(want)) {
                found.insert(*want, version.clone());
            }
        }
        // What was looked for before is not behind those tips; anything else may be.
        let goes_on = open.iter().all(|want| before.wants.contains_key(want));
        let mut met: BTreeSet<Sid> = before.tips.iter().filter(|_| goes_on).copied().collect();
        let tips = space.tip_sids(&timeline);
        let mut next = if open.is_empty() { Vec::new() } else { tips.clone() };
        let (mut behind, mut count, mut all) = (BTreeMap::new(), 0, true);
        loop {
            for sid in next.drain(..).filter(|sid| met.insert(*sid)) {
                if count == VERSIONS_MAX || !all {
                    break;
                }
                if count >= VERSIONS_FREE {
                    all = self.more < VERSIONS_MORE;
                    self.more += 1;
                }
                (count, self.read) = (count + 1, self.read + 1);
                let Some(version) = space.record(&sid) else { continue };
                let Some(facts) = version.frame_ref().filter(|facts| facts.timeline == timeline) else { continue };
                let parents: Vec<Address> = facts.past.iter().chain(&facts.orphans).cloned().collect();
                behind.insert((facts.n, sid), parents);
                if let Some(want) = live_want(&version).filter(|want| open.remove(want)) {
                    found.insert(want, version.address().clone());
                }
            }
            let Some((_, parents)) = behind.pop_last().filter(|_| all && !open.is_empty()) else { break };
            next.extend(parents.iter().flat_map(|parent| space.by_address(parent)));
        }
        let mut known: BTreeMap<Want, Option<Address>> =
            found.iter().map(|(want, version)| (*want, Some(version.clone()))).collect();
        if all || goes_on {
            known.extend(open.into_iter().map(|want| (want, None)));
        }
        self.owners.insert(owner.clone(), Searched { tips: if all { tips } else { before.tips }, wants: known });
        found
    }
}
