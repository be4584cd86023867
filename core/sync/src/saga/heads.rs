//! The heads of one timeline: one, nearly always; thousands while the frames of a long one come in no order.

use std::collections::BTreeMap;

use sealtide_ibgib::Sid;
use smallvec::SmallVec;

/// A frame that no received frame has as ancestor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) sid: Sid,
    /// Its level-0 id as a tip.
    pub(super) id: [u8; 32],
}

/// Heads, each once. Finding one takes no longer the more there are: a bulk stream of a timeline with N frames looks for N.
#[derive(Debug)]
pub(super) enum Heads {
    Few(SmallVec<[Head; 1]>),
    Many(BTreeMap<Sid, [u8; 32]>),
}

/// So many are few.
const FEW_MAX: usize = 16;

impl Default for Heads {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl Heads {
    /// Adds one; `false` when it is there.
    pub(super) fn insert(&mut self, head: Head) -> bool {
        match self {
            Self::Few(few) if few.iter().any(|there| there.sid == head.sid) => false,
            Self::Few(few) if few.len() < FEW_MAX => {
                few.push(head);
                true
            }
            Self::Few(few) => {
                let many = few.iter().chain([&head]).map(|head| (head.sid, head.id));
                *self = Self::Many(many.collect());
                true
            }
            Self::Many(many) => many.insert(head.sid, head.id).is_none(),
        }
    }

    /// Takes one away, if it is there.
    pub(super) fn remove(&mut self, sid: &Sid) -> Option<Head> {
        match self {
            Self::Few(few) => few.iter().position(|head| head.sid == *sid).map(|at| few.swap_remove(at)),
            Self::Many(many) => many.remove(sid).map(|id| Head { sid: *sid, id }),
        }
    }

    /// All of them, in no order that means something.
    pub(super) fn iter(&self) -> impl Iterator<Item = Head> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few), None),
            Self::Many(many) => (None, Some(many)),
        };
        let few = few.into_iter().flatten().copied();
        few.chain(many.into_iter().flat_map(|many| many.iter()).map(|(sid, id)| Head { sid: *sid, id: *id }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_there_once_few_or_many() {
        let head = |number: u8| Head { sid: Sid([number; 32]), id: [number ^ 1; 32] };
        let (mut heads, mut model) = (Heads::default(), BTreeMap::new());
        for number in (0..60).chain(20..90) {
            assert_eq!(heads.insert(head(number)), model.insert(head(number).sid, head(number)).is_none());
            // Every third goes, before and behind the step from few to many.
            if number % 3 == 0 {
                assert_eq!(heads.remove(&head(number / 2).sid), model.remove(&head(number / 2).sid));
            }
            assert_eq!(heads.remove(&head(200).sid), None);
            let mut all: Vec<_> = heads.iter().collect();
            all.sort_unstable_by_key(|head| head.sid);
            assert_eq!(all, model.values().copied().collect::<Vec<_>>());
        }
        assert!(matches!(heads, Heads::Many(_)));
    }
}
