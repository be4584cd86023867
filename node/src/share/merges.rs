//! Merges that a person should look at. Spec: merge §7

use std::collections::BTreeSet;

use sealtide_ibgib::{Address, Reader, Verified, merge_conflicts, pick_shape};
use sealtide_store::SpaceHandle;
use sealtide_sync::SpaceView;

/// Merge frames behind a tip that are looked at, at most.
const LOOKED_BACK: usize = 64;

/// The merge with conflicts that the tip is, or is made of by merges alone: nobody has made a version since.
pub(crate) fn unsettled(view: &SpaceHandle, tip: &Verified) -> Option<Verified> {
    let (mut open, mut met) = (vec![tip.clone()], BTreeSet::new());
    while let Some(frame) = open.pop() {
        let Some(conflicts) = merge_conflicts(&frame) else { continue };
        if conflicts > 0 {
            return Some(frame);
        }
        if met.len() < LOOKED_BACK && met.insert(frame.sid()) {
            let parents = frame.frame().into_iter().flat_map(|facts| facts.past.into_iter().chain(facts.orphans));
            open.extend(parents.filter_map(|parent| record(view, &parent)));
        }
    }
    None
}

/// The two versions that met in a merge, the one that won first, and what both were made of.
pub(crate) fn parents(view: &SpaceHandle, merge: &Verified) -> Vec<(&'static str, Verified)> {
    let named = [("past", "one side"), ("graftorphan", "other side"), ("graftbase", "before")];
    let named = named.into_iter().filter_map(|(relation, what)| {
        let address = merge.relations().get(relation)?.last()?;
        Some((what, record(view, address)?))
    });
    named.collect()
}

/// The record at an address that is read as JSON.
fn record(view: &SpaceHandle, address: &Address) -> Option<Verified> {
    let shapes: Vec<Verified> = view.by_address(address).iter().filter_map(|sid| view.record(sid)).collect();
    pick_shape(Reader::Json, &shapes).cloned()
}
