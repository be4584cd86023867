//! The runs of reconciliation in a saga: level 0 once, then, when that was not enough, level 1 once as it is and once
//! salted. Both sides know which run comes next, so each says nothing but its number. Spec: ibgib §13.2, §13.4

use std::sync::Arc;

use sealtide_ibgib::Sid;

use super::salted::{Salt, SaltedSet, all_items};
use super::{Context, Fault, Side};
use crate::message::Message;
use crate::negentropy::{Difference, Ranges, Run};
use crate::scope::Scoped;
use crate::{AbortCode, IdSum, Level, RangeBound, Snapshot, SpaceView};

/// Messages of one run before it counts as endless. Two of them cut ranges by 256, so honest runs need a handful.
const MESSAGES_MAX: u32 = 256;

/// What a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Level 0.
    Tips,
    /// Level 1.
    Items,
    /// Level 1 with salted ids.
    Salted,
}

impl Kind {
    pub(super) fn of(level: u64, salted: bool) -> Result<Self, Fault> {
        match (level, salted) {
            (0, false) => Ok(Self::Tips),
            (1, false) => Ok(Self::Items),
            (1, true) => Ok(Self::Salted),
            _ => Err(Fault::protocol("an unknown level of reconciliation")),
        }
    }
}

/// All runs of a saga.
#[derive(Debug)]
pub(super) struct Reconcile {
    side: Side,
    /// The kinds begun so far; their number is the number of the last run.
    begun: Vec<Kind>,
    current: Option<Current>,
    /// The set of the salted run: kept, because WANTs name its ids.
    salted: Option<SaltedSet>,
}

/// The run under way.
#[derive(Debug)]
struct Current {
    kind: Kind,
    set: Set,
    difference: Difference,
    messages: u32,
}

/// Where sums and lists come from.
#[derive(Debug)]
enum Set {
    /// Level 0, as it was at OPEN.
    Tips(Arc<Snapshot>),
    /// Level 1 of the whole space.
    Items,
    /// Level 1 of a part of it.
    Run(Run),
    /// [`Reconcile::salted`].
    Salted,
}

/// What comes of a RECON.
#[derive(Debug)]
pub(super) enum Step {
    /// Send this and wait.
    Answer(Box<Message>),
    /// The client knows everything.
    Finished(Difference),
}

/// The members of a space as the splitter sees them.
struct Items<'a>(&'a dyn SpaceView);

impl Ranges for Items<'_> {
    fn sum(&self, lo: &RangeBound, hi: &RangeBound) -> (u64, IdSum) {
        self.0.range_sum(lo, hi)
    }

    fn list(&self, lo: &RangeBound, hi: &RangeBound, limit: usize) -> Vec<(u64, [u8; 32])> {
        self.0.range_list(lo, hi, limit)
    }
}

impl Reconcile {
    pub(super) fn new(side: Side) -> Self {
        Self { side, begun: Vec::new(), current: None, salted: None }
    }

    /// The number of the last run.
    fn last(&self) -> u64 {
        self.begun.len() as u64
    }

    /// Whether this is the number of the run that comes next.
    pub(super) fn is_next(&self, run: u64) -> bool {
        run == self.last() + 1
    }

    /// Whether a run of this kind has begun.
    pub(super) fn begun(&self, kind: Kind) -> bool {
        self.begun.contains(&kind)
    }

    /// Which run comes next when both sides still differ. Spec: ibgib §13.4 "Check"
    pub(super) fn next_kind(&self) -> Result<Kind, Fault> {
        match (self.begun(Kind::Items), self.begun(Kind::Salted)) {
            (false, _) => Ok(Kind::Items),
            (true, false) => Ok(Kind::Salted),
            (true, true) => {
                Err(Fault::new(AbortCode::Incomplete, "both sides differ after every item was compared twice"))
            }
        }
    }

    /// Whether a run of this kind is under way.
    pub(super) fn runs(&self, level: Level) -> bool {
        self.current.as_ref().is_some_and(|current| (current.kind == Kind::Tips) == (level == Level::Tips))
    }

    /// Whether the peer has not shown yet that it knows of the run of level 1: what it said of its result belongs to the
    /// time before, and it says it again. Before level 0 nothing is void: a sender whose space moved has its say at once.
    pub(super) fn unanswered(&self) -> bool {
        let is_first = |current: &Current| current.kind != Kind::Tips && current.messages == 0;
        self.side == Side::Opener && self.current.as_ref().is_some_and(is_first)
    }

    /// The set of the salted run, once there was one.
    pub(super) fn salted(&self) -> Option<&SaltedSet> {
        self.salted.as_ref()
    }

    /// Begins a run. `first` is what the first run of this saga must be.
    pub(super) fn begin(
        &mut self,
        context: &Context<'_>,
        scoped: &Scoped,
        kind: Kind,
        first: Kind,
    ) -> Result<(), Fault> {
        let due = if self.begun.is_empty() { Some(first) } else { self.next_kind().ok() };
        if due != Some(kind) {
            return Err(Fault::protocol("a reconciliation that is not due"));
        }
        self.begun.push(kind);
        let set = match kind {
            Kind::Tips => Set::Tips(Arc::clone(scoped.snapshot())),
            Kind::Items => scoped.item_run().map_or(Set::Items, Set::Run),
            Kind::Salted => {
                let salt = Salt { saga: context.config.saga, run: self.begun.len() as u32 };
                self.salted = Some(match scoped.item_run() {
                    Some(run) => SaltedSet::new(salt, run.items().iter().copied()),
                    None => SaltedSet::new(salt, all_items(context.view)),
                });
                Set::Salted
            }
        };
        self.current = Some(Current { kind, set, difference: Difference::default(), messages: 0 });
        Ok(())
    }

    /// The client's first message of the run.
    pub(super) fn initiate(&self, context: &Context<'_>) -> Option<Message> {
        let current = self.current.as_ref()?;
        let splitter = context.config.splitter;
        let payload = current.with(context.view, self.salted.as_ref(), |set| splitter.initiate(set));
        Some(current.message(self.last(), payload))
    }

    /// An empty RECON: the answerer asks for the next run.
    pub(super) fn ask(&self, kind: Kind) -> Message {
        let payload = bytes::Bytes::new();
        Message::Recon { level: 1, run: self.last() + 1, salted: kind == Kind::Salted, payload }
    }

    /// Takes a RECON of the run under way. `need_max` bounds what the peer may name.
    pub(super) fn take(
        &mut self,
        context: &Context<'_>,
        (kind, run): (Kind, u64),
        payload: &[u8],
        need_max: u64,
    ) -> Result<Step, Fault> {
        let (last, side, salted) = (self.last(), self.side, self.salted.as_ref());
        let Some(current) = self.current.as_mut().filter(|current| current.kind == kind && run == last) else {
            return Err(Fault::protocol("a RECON that nobody waits for"));
        };
        current.messages += 1;
        if current.messages > MESSAGES_MAX {
            return Err(Fault::new(AbortCode::Limit, "a reconciliation without end"));
        }
        let splitter = context.config.splitter;
        let answer = if side == Side::Answerer {
            Some(current.with(context.view, salted, |set| splitter.server(set, payload))?)
        } else {
            let mut difference = std::mem::take(&mut current.difference);
            let next =
                current.with(context.view, salted, |set| splitter.client(set, payload, &mut difference, need_max))?;
            current.difference = difference;
            next
        };
        match answer {
            Some(payload) => Ok(Step::Answer(Box::new(current.message(last, payload)))),
            None => {
                let difference = std::mem::take(&mut current.difference);
                self.current = None;
                Ok(Step::Finished(difference))
            }
        }
    }

    /// The answerer has been told the result.
    pub(super) fn close(&mut self) {
        self.current = None;
    }

    /// Whether `run` is the run of level 1 under way.
    pub(super) fn is_current(&self, run: u64) -> bool {
        self.runs(Level::Items) && run == self.last()
    }

    /// The number of the last run, for DIFF.
    pub(super) fn number(&self) -> u64 {
        self.last()
    }

    /// The salt of the last run; `None` when its ids are sids.
    pub(super) fn salt(&self) -> Option<Salt> {
        self.salted.as_ref().map(|set| set.salt)
    }

    /// The own record with this id of the last run of level 1.
    pub(super) fn own_sid(&self, id: &[u8; 32]) -> Option<Sid> {
        match &self.salted {
            Some(set) => set.sid(id),
            None => Some(Sid(*id)),
        }
    }
}

impl Current {
    fn with<T>(&self, view: &dyn SpaceView, salted: Option<&SaltedSet>, act: impl FnOnce(&dyn Ranges) -> T) -> T {
        match &self.set {
            // Tips are named as they were at OPEN, whatever moves meanwhile.
            Set::Tips(snapshot) => act(&*snapshot.tips),
            Set::Items => act(&Items(view)),
            Set::Run(run) => act(run),
            Set::Salted => match salted {
                Some(set) => act(&set.run),
                None => act(&Run::default()),
            },
        }
    }

    fn message(&self, run: u64, payload: Vec<u8>) -> Message {
        let (level, salted) = (u64::from(self.kind != Kind::Tips), self.kind == Kind::Salted);
        Message::Recon { level, run, salted, payload: payload.into() }
    }
}
