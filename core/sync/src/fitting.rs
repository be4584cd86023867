//! Whether records can become part of a space as they are. A peer asks the same of what it receives, where it can still ask for what is
//! missing (`saga/index.rs`); what is made or read here has nobody to ask, and a log takes nothing back. Spec: SY-14, SY-51

use std::collections::BTreeMap;

use sealtide_ibgib::{Address, FrameFacts, Verified};

use crate::SpaceView;

/// Why records cannot become part of a space: no peer would take the space with them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misfit {
    /// `data.n` is not one more than that of the frame before.
    #[error("the number of {0} does not follow that of the frame before it")]
    Counter(Address),
    /// A reference leads nowhere.
    #[error("{record} names {link}, and that is neither in the space nor among what comes with it")]
    Missing {
        /// Who names it.
        record: Address,
        /// What is named.
        link: Address,
    },
}

/// Records on their way into a space, in whatever order.
pub struct Fitting<'a> {
    /// The space; nothing for one that begins with these records.
    view: Option<&'a dyn SpaceView>,
    /// What came and is not in the space yet, with the counter of frames.
    here: BTreeMap<Address, Option<u64>>,
    /// Frames that did not come yet: the counter that they must have, and for whom.
    expected: BTreeMap<Address, (u64, Address)>,
    /// What is named and did not come yet, and by whom.
    missing: BTreeMap<Address, Address>,
}

impl<'a> Fitting<'a> {
    /// Nothing so far, on the way into this space, or into one that begins with it.
    pub fn new(view: Option<&'a dyn SpaceView>) -> Self {
        Self { view, here: BTreeMap::new(), expected: BTreeMap::new(), missing: BTreeMap::new() }
    }

    /// Whether all of these fit, with nothing but them and the space.
    ///
    /// # Errors
    /// The first [`Misfit`].
    pub fn check(view: Option<&'a dyn SpaceView>, records: &[Verified]) -> Result<(), Misfit> {
        let mut fitting = Self::new(view);
        records.iter().try_for_each(|record| fitting.add(record))?;
        fitting.missing()
    }

    /// Takes a record in. What it names may come later.
    ///
    /// # Errors
    /// [`Misfit::Counter`].
    pub fn add(&mut self, record: &Verified) -> Result<(), Misfit> {
        let (address, frame) = (record.address(), record.frame_ref());
        if let Some(frame) = frame {
            self.check_counter(address, frame)?;
        }
        // Of several shapes of one address the frame counts.
        let here = self.here.entry(address.clone()).or_default();
        *here = here.or(frame.map(|frame| frame.n));
        self.missing.remove(address);
        for link in record.relations().values().flatten().filter(|link| !link.is_primitive()) {
            if !self.here.contains_key(link) && !self.missing.contains_key(link) && !self.is_member(link) {
                self.missing.insert(link.clone(), address.clone());
            }
        }
        Ok(())
    }

    /// What came so far is in the space now.
    pub fn committed(&mut self) {
        let view = self.view;
        self.here.retain(|address, _| view.is_none_or(|view| view.by_address(address).is_empty()));
    }

    /// Whether nothing is named that did not come.
    ///
    /// # Errors
    /// [`Misfit::Missing`].
    pub fn missing(&self) -> Result<(), Misfit> {
        let Some((link, record)) = self.missing.first_key_value() else { return Ok(()) };
        Err(Misfit::Missing { record: record.clone(), link: link.clone() })
    }

    fn is_member(&self, address: &Address) -> bool {
        self.view.is_some_and(|view| !view.by_address(address).is_empty())
    }

    fn check_counter(&mut self, address: &Address, frame: &FrameFacts) -> Result<(), Misfit> {
        let bad = |of: &Address| Err(Misfit::Counter(of.clone()));
        if let Some((n, by)) = self.expected.remove(address)
            && n != frame.n
        {
            return bad(&by);
        }
        let Some(parent) = frame.past.last() else {
            return if frame.n == 0 { Ok(()) } else { bad(address) };
        };
        let Some(before) = frame.n.checked_sub(1) else { return bad(address) };
        let follows = match self.here.get(parent) {
            Some(Some(n)) => Some(*n == before),
            _ => self.view.and_then(|view| is_at(view, parent, frame, before)),
        };
        match follows {
            Some(true) => Ok(()),
            Some(false) => bad(address),
            None => {
                match self.expected.entry(parent.clone()).or_insert_with(|| (before, address.clone())).0 == before {
                    true => Ok(()),
                    false => bad(address),
                }
            }
        }
    }
}

impl std::fmt::Debug for Fitting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fitting({} here, {} missing)", self.here.len(), self.missing.len())
    }
}

/// Frames with one counter among which the one that is looked for is found without a look at its record.
const BESIDE: usize = 16;

/// Whether the counter of a frame of the space is `n`; nothing when the space has no such frame. Mostly two look-ups by key.
fn is_at(view: &dyn SpaceView, address: &Address, after: &FrameFacts, n: u64) -> Option<bool> {
    let shapes = view.by_address(address);
    if shapes.is_empty() {
        return None;
    }
    if view.frames(&after.timeline, n, n, BESIDE).iter().any(|sid| shapes.contains(sid)) {
        return Some(true);
    }
    view.frame_facts(address).map(|facts| facts.n == n)
}
