//! Level 1: every item of both sides is compared, when the tips do not tell, when a walk takes too long, or when the
//! results differ. The client tells the result with DIFF. Spec: ibgib §13.2 DIFF, §13.4 rules 3 and 5, "Check"

use sealtide_ibgib::Sid;

use super::reconcile::Kind;
use super::run::Run;
use super::{Context, Fault, Mode, Side};
use crate::negentropy::Difference;
use crate::{AbortCode, Level, SetSummary};

/// How many more ids than the facts at OPEN say a peer may name: its space may have grown since.
pub(super) const GROWTH_MAX: u64 = 65_536;

/// What the answerer has been told by DIFF so far.
#[derive(Debug, Default)]
pub(super) struct Told {
    need: Vec<[u8; 32]>,
    /// The last ids of both lists: they ascend over all DIFFs of a run.
    last: [Option<[u8; 32]>; 2],
}

impl Run {
    /// Begins a run; one of level 1 makes both sides forget what they have said of their results.
    pub(super) fn begin(&mut self, context: &Context<'_>, kind: Kind) -> Result<(), Fault> {
        let first = if self.terms.mode == Mode::Walk { Kind::Tips } else { Kind::Items };
        self.reconcile.begin(context, &self.scoped, kind, first)?;
        if kind != Kind::Tips {
            self.unstage();
            self.told = Told::default();
            self.alone = None;
            self.receive.await_items();
        }
        Ok(())
    }

    /// The client begins a run.
    pub(super) fn start(&mut self, context: &mut Context<'_>, kind: Kind) -> Result<(), Fault> {
        while let Some(message) = self.serve.next_told(&self.scoped) {
            context.out.send(&message);
        }
        self.begin(context, kind)?;
        if let Some(message) = self.reconcile.initiate(context) {
            context.out.send(&message);
        }
        Ok(())
    }

    /// This side needs level 1: the opener begins it, the answerer asks for it.
    pub(super) fn call_for_items(&mut self, context: &mut Context<'_>) -> Result<(), Fault> {
        let kind = self.reconcile.next_kind()?;
        if self.terms.side == Side::Opener {
            return self.start(context, kind);
        }
        context.out.send(&self.reconcile.ask(kind));
        self.expect_items();
        Ok(())
    }

    /// Level 1 comes next, and the opener knows.
    pub(super) fn expect_items(&mut self) {
        self.unstage();
        self.receive.await_items();
    }

    /// The answerer asks for a run. One that has begun meanwhile is meant by both.
    pub(super) fn asked_for(&mut self, context: &mut Context<'_>, kind: Kind, run: u64) -> Result<(), Fault> {
        if self.terms.side != Side::Opener || kind == Kind::Tips {
            return Err(Fault::protocol("an empty RECON"));
        }
        if !self.reconcile.is_next(run) {
            return if self.reconcile.begun(kind) { Ok(()) } else { Err(Fault::protocol("a RECON of another run")) };
        }
        if self.reconcile.runs(Level::Tips) {
            return Err(Fault::protocol("level 1 before the tips are known"));
        }
        self.start(context, kind)
    }

    /// The client knows the difference of level 1.
    pub(super) fn items_known(&mut self, difference: Difference) {
        let mut alone = SetSummary::default();
        let own = difference.have.iter().filter_map(|id| self.reconcile.own_sid(id));
        own.for_each(|sid| alone.add(sid.as_bytes()));
        self.alone = Some(alone);
        let Difference { have, need } = difference;
        self.receive.items_known(need.iter().copied().collect());
        self.serve.tell(self.reconcile.number(), have, need);
    }

    /// Takes a DIFF: what only the opener has is needed here, what only this side has is its own.
    pub(super) fn diff(
        &mut self,
        context: &Context<'_>,
        run: u64,
        [theirs, own]: [Vec<[u8; 32]>; 2],
        last: bool,
    ) -> Result<(), Fault> {
        if self.terms.side != Side::Answerer || !self.reconcile.is_current(run) {
            return Err(Fault::protocol("a DIFF that nobody waits for"));
        }
        if theirs.is_empty() && own.is_empty() && !last {
            return Err(Fault::protocol("an empty part of a DIFF"));
        }
        for (list, before) in [&theirs, &own].into_iter().zip(&mut self.told.last) {
            for id in list {
                if before.replace(*id).is_some_and(|before| before >= *id) {
                    return Err(Fault::protocol("DIFF out of order"));
                }
            }
        }
        let alone = self.alone.get_or_insert_default();
        for id in &own {
            let sid = self.reconcile.own_sid(id).filter(|sid| self.scoped.contains(context.view, sid));
            let sid = sid.ok_or(Fault::protocol("a DIFF that names what nobody has"))?;
            alone.add(sid.as_bytes());
        }
        self.told.need.extend(theirs);
        if self.told.need.len() as u64 > self.terms.peer.item_count.saturating_add(GROWTH_MAX) {
            return Err(Fault::protocol("more ids than the peer's facts say"));
        }
        if self.told.need.len() * 32 > context.config.limits.named_bytes_max {
            return Err(Fault::new(AbortCode::Limit, "too many ids at once"));
        }
        if last {
            self.reconcile.close();
            self.receive.items_known(std::mem::take(&mut self.told.need));
        }
        Ok(())
    }

    /// What a WANT of kind 1 means: after a salted run its ids are salted.
    pub(super) fn plain_sids(&self, ids: Vec<Sid>) -> Vec<Sid> {
        match self.reconcile.salted() {
            Some(set) => ids.iter().filter_map(|id| set.sid(&id.0)).collect(),
            None => ids,
        }
    }
}
