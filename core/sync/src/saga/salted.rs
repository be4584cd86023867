//! Salted ids: nobody can prepare items whose sums collide when the ids are hashed with what nobody knew before.
//! Spec: ibgib §13.1, §13.4

use sealtide_ibgib::Sid;

use crate::negentropy::Run;
use crate::{RangeBound, SagaId, SpaceView};

/// What ids are hashed with: the saga and the run. The opener alone chooses both, so a salted run is as good as the
/// chance in its saga ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Salt {
    pub(super) saga: SagaId,
    pub(super) run: u32,
}

impl Salt {
    /// SHA-256(saga id ‖ be32(run) ‖ id).
    pub(super) fn of(&self, id: &[u8; 32]) -> [u8; 32] {
        sealtide_crypto::sha256_parts(&[&self.saga.0, &self.run.to_be_bytes(), id])
    }
}

/// Level 1 under salted ids: a run of its own, in memory, with the way back to the sids.
#[derive(Debug)]
pub(super) struct SaltedSet {
    pub(super) salt: Salt,
    pub(super) run: Run,
    /// The sids, in the order of the run.
    sids: Vec<Sid>,
    /// Places in the run, sorted by salted id.
    by_id: Vec<u32>,
}

/// Items read from the store at a time.
const PAGE: usize = 4096;

impl SaltedSet {
    pub(super) fn new(salt: Salt, items: impl Iterator<Item = (u64, [u8; 32])>) -> Self {
        let mut all: Vec<_> = items.map(|(order, id)| ((order, salt.of(&id)), Sid(id))).collect();
        all.sort_unstable();
        let sids = all.iter().map(|(_, sid)| *sid).collect();
        let run = Run::new(all.into_iter().map(|(item, _)| item).collect());
        let mut by_id: Vec<u32> = (0..run.len() as u32).collect();
        by_id.sort_unstable_by_key(|place| run.items()[*place as usize].1);
        Self { salt, run, sids, by_id }
    }

    /// The sid behind a salted id.
    pub(super) fn sid(&self, salted: &[u8; 32]) -> Option<Sid> {
        let found = self.by_id.binary_search_by_key(salted, |place| self.run.items()[*place as usize].1).ok()?;
        Some(self.sids[self.by_id[found] as usize])
    }
}

/// Every member of the space, page by page.
pub(super) fn all_items(view: &dyn SpaceView) -> impl Iterator<Item = (u64, [u8; 32])> {
    let (mut page, mut lo) = (Vec::new().into_iter(), Some(RangeBound::START));
    std::iter::from_fn(move || {
        if page.len() == 0
            && let Some(from) = lo.take()
        {
            // One more than a page: it tells where the next one begins.
            let mut items = view.range_list(&from, &RangeBound::END, PAGE + 1);
            if items.len() > PAGE {
                lo = items.pop().map(|(order, id)| RangeBound { order, id });
            }
            page = items.into_iter();
        }
        page.next()
    })
}
