//! What must be in a space in the end, by the plainest reasoning.

use std::collections::{BTreeMap, BTreeSet};

use sealtide_ibgib::{Address, FrameFacts, Sid, Verified};
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
        for record in records {
            let needs = record.relations().values().flatten().filter(|address| !address.is_primitive());
            let needs = needs.cloned().collect();
            let entry = Entry { address: record.address().clone(), frame: record.frame(), needs };
            self.made.insert(record.sid(), entry);
        }
    }

    /// They were reported durable.
    pub fn acknowledged(&mut self, records: &[Verified]) {
        self.acknowledged.extend(records.iter().map(Verified::sid));
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
        if let Some(stray) = members.iter().find(|sid| !self.made.contains_key(sid)) {
            return Err(format!("{stray} is there and nobody made it"));
        }
        let entries: BTreeMap<&Address, (Sid, &Entry)> =
            members.iter().map(|sid| (&self.made[sid].address, (*sid, &self.made[sid]))).collect();
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
        self.check_records(&view, &members)
    }

    fn check_records(&self, view: &impl SpaceView, members: &BTreeSet<Sid>) -> Result<(), String> {
        for sid in members {
            let record = view.record(sid).ok_or_else(|| format!("{sid} cannot be read"))?;
            if *record.address() != self.made[sid].address {
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

/// The frames that no other frame has as ancestor.
fn maximal(entries: &BTreeMap<&Address, (Sid, &Entry)>) -> BTreeSet<Sid> {
    let frames = entries.values().filter(|(_, entry)| entry.frame.is_some());
    let mut tips: BTreeSet<Sid> = frames.clone().map(|(sid, _)| *sid).collect();
    for (_, entry) in frames {
        // The frame before takes its own ancestors away, when its turn comes.
        for past in entry.frame.iter().flat_map(|frame| &frame.past) {
            if let Some((sid, _)) = entries.get(past) {
                tips.remove(sid);
            }
        }
    }
    tips
}
