//! What must be in a space in the end, by the plainest reasoning.

use std::collections::{BTreeMap, BTreeSet};

use sealtide_ibgib::{Address, FrameFacts, MergeStrategy, Sid, Verified, merge_tips};
use sealtide_identity::authorship::read_commit;
use sealtide_store::Store;
use sealtide_sync::{SetSummary, SpaceView};

/// One record as the model knows it.
#[derive(Clone, Debug)]
struct Entry {
    address: Address,
    frame: Option<FrameFacts>,
    /// Everything that it refers to.
    needs: Vec<Address>,
}

impl Entry {
    fn of(record: &Verified) -> Self {
        let needs = record.relations().values().flatten().filter(|address| !address.is_primitive());
        Self { address: record.address().clone(), frame: record.frame(), needs: needs.cloned().collect() }
    }
}

/// All changes of one space, wherever they were made.
#[derive(Clone, Debug, Default)]
pub struct Model {
    made: BTreeMap<Sid, Entry>,
    /// A node has reported these as durable to whoever made them.
    acknowledged: BTreeSet<Sid>,
}

impl Model {
    /// Records that somebody tries to commit.
    pub fn made(&mut self, records: &[Verified]) {
        self.made.extend(records.iter().map(|record| (record.sid(), Entry::of(record))));
    }

    /// They were reported durable.
    pub fn acknowledged(&mut self, records: &[Verified]) {
        self.acknowledged.extend(records.iter().map(Verified::sid));
    }

    /// A node is put back to an earlier copy of its store: what is in that copy or at another node, `held`, stays; of the
    /// rest nothing is promised any more. How many records that are.
    pub fn forget_all_but(&mut self, held: &BTreeSet<Sid>) -> usize {
        let before = self.acknowledged.len();
        self.acknowledged.retain(|sid| held.contains(sid));
        before - self.acknowledged.len()
    }

    /// How many records were reported durable.
    pub fn acknowledged_count(&self) -> usize {
        self.acknowledged.len()
    }

    /// Compares a space with what must be in it. Records whose commit was never answered may be there or not.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check(&self, store: &Store, space: &sealtide_identity::SpaceId) -> Result<(), String> {
        let view = store.view(space).ok_or("the space is gone")?;
        let members = crate::world::members(store, space);
        if let Some(lost) = self.acknowledged.difference(&members).next() {
            return Err(format!("{lost} ({}) was acknowledged and is lost", self.made[lost].address));
        }
        let mut known = self.made.clone();
        for sid in members.iter().filter(|sid| !self.made.contains_key(sid)) {
            let record = view.record(sid).ok_or_else(|| format!("{sid} cannot be read"))?;
            explain(&view, &record).map_err(|what| format!("{sid} is there and nobody made it: {what}"))?;
            known.insert(*sid, Entry::of(&record));
        }
        let entries: BTreeMap<&Address, (Sid, &Entry)> =
            members.iter().map(|sid| (&known[sid].address, (*sid, &known[sid]))).collect();
        for (address, (_, entry)) in &entries {
            if let Some(missing) = entry.needs.iter().find(|needed| !entries.contains_key(needed)) {
                return Err(format!("{address} is there without {missing}"));
            }
        }
        let tips: BTreeSet<Sid> = view.tip_items().into_iter().map(|tip| tip.sid).collect();
        let naive = maximal(&entries);
        if tips != naive {
            return Err(format!("the tips are {tips:?}, not {naive:?}"));
        }
        let (mut items, mut ends) = (SetSummary::default(), SetSummary::default());
        members.iter().for_each(|sid| items.add(sid.as_bytes()));
        view.tip_items().iter().for_each(|tip| ends.add(&tip.id));
        let snapshot = view.snapshot();
        if (&snapshot.item_summary, &snapshot.tip_summary) != (&items, &ends) {
            return Err("the summaries are not those of a recount".to_owned());
        }
        for (address, (sid, _)) in &entries {
            let record = view.record(sid).ok_or_else(|| format!("{sid} cannot be read"))?;
            if record.address() != *address {
                return Err(format!("{sid} has another address"));
            }
            for chunk in sealtide_ibgib::Manifest::chunks_listed(&record) {
                let bytes =
                    view.chunk(&chunk.hash, 0, usize::MAX).ok_or_else(|| format!("{} is missing", chunk.hash))?;
                chunk.check(&bytes).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}

/// The only records that nobody made are merges: of two members, and exactly what the rules give for them. Commit stones
/// are made by the engine; whose they are is looked at elsewhere.
fn explain(view: &impl SpaceView, record: &Verified) -> Result<(), String> {
    if read_commit(record).is_some() {
        return Ok(());
    }
    let facts = record.frame().ok_or("it is no frame")?;
    let mut load = |address: &Address| {
        view.by_address(address).iter().find_map(|sid| view.record(sid)).filter(|found| found != record)
    };
    let ([past], [orphan]) = (&facts.past[..], &facts.orphans[..]) else { return Err("it has not two parents".into()) };
    let (left, right) = load(past).zip(load(orphan)).ok_or("a parent is missing")?;
    let merged =
        merge_tips((&left, &right), &MergeStrategy::Optimistic, &mut load).map_err(|error| error.to_string())?;
    if merged == *record { Ok(()) } else { Err(format!("the merge of its parents is {}", merged.address())) }
}

/// The frames that no other frame has as ancestor.
fn maximal(entries: &BTreeMap<&Address, (Sid, &Entry)>) -> BTreeSet<Sid> {
    let frames = entries.values().filter(|(_, entry)| entry.frame.is_some());
    let mut tips: BTreeSet<Sid> = frames.clone().map(|(sid, _)| *sid).collect();
    for (_, entry) in frames {
        // The frame before takes its own ancestors away, when its turn comes.
        for parent in entry.frame.iter().flat_map(|frame| frame.past.iter().chain(&frame.orphans)) {
            if let Some((sid, _)) = entries.get(parent) {
                tips.remove(sid);
            }
        }
    }
    tips
}
