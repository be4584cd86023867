//! Pages of runs that were read lately, in a fixed number of bytes. Spec: store, "Runs".

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::guard;
use crate::table::Table;

/// Bytes of all pages that are kept.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Which page: serial number of the run, table, number in the table.
pub(crate) type PageId = (u64, Table, u32);

/// The pages. Which one goes is decided by a clock: a hand that passes over pages used since it last came.
#[derive(Debug)]
pub(crate) struct Cache {
    state: Mutex<State>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    slots: Vec<Slot>,
    by_page: HashMap<PageId, usize>,
    bytes: usize,
    hand: usize,
    serial: u64,
}

#[derive(Debug)]
struct Slot {
    page: PageId,
    bytes: Arc<[u8]>,
    used: bool,
}

impl Default for Cache {
    fn default() -> Self {
        Self { state: Mutex::default(), bytes_max: CACHE_BYTES }
    }
}

impl Cache {
    /// A number for a run that no other has.
    pub(crate) fn serial(&self) -> u64 {
        let mut state = guard(&self.state);
        state.serial += 1;
        state.serial
    }

    pub(crate) fn get(&self, page: &PageId) -> Option<Arc<[u8]>> {
        let mut state = guard(&self.state);
        let at = *state.by_page.get(page)?;
        let slot = &mut state.slots[at];
        slot.used = true;
        Some(Arc::clone(&slot.bytes))
    }

    pub(crate) fn put(&self, page: PageId, bytes: &Arc<[u8]>) {
        let mut state = guard(&self.state);
        if state.by_page.contains_key(&page) {
            return;
        }
        while !state.slots.is_empty() && state.bytes + bytes.len() > self.bytes_max {
            state.evict();
        }
        let at = state.slots.len();
        state.bytes += bytes.len();
        state.slots.push(Slot { page, bytes: Arc::clone(bytes), used: false });
        state.by_page.insert(page, at);
    }
}

impl State {
    /// Lets go of one page.
    fn evict(&mut self) {
        loop {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let slot = &mut self.slots[self.hand];
            if std::mem::take(&mut slot.used) {
                self.hand += 1;
                continue;
            }
            let gone = self.slots.swap_remove(self.hand);
            self.bytes -= gone.bytes.len();
            self.by_page.remove(&gone.page);
            if let Some(moved) = self.slots.get(self.hand) {
                self.by_page.insert(moved.page, self.hand);
            }
            self.hand += 1;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_keeps_its_size_and_what_is_used() {
        let cache = Cache { bytes_max: 1000, ..Cache::default() };
        let page = |number: u32| (1, Table::Members, number);
        let bytes = |number: u32| -> Arc<[u8]> { Arc::from(vec![number as u8; 100]) };
        cache.put(page(0), &bytes(0));
        for number in 1..500 {
            assert_eq!(cache.get(&page(0)).as_deref(), Some(&bytes(0)[..]), "used all the time");
            cache.put(page(number), &bytes(number));
            let state = guard(&cache.state);
            assert!(state.bytes <= 1000 && state.slots.len() == state.by_page.len());
            assert!(state.by_page.iter().all(|(page, at)| state.slots[*at].page == *page));
        }
        assert_eq!((cache.get(&page(1)), cache.get(&page(499))), (None, Some(bytes(499))));
    }
}
