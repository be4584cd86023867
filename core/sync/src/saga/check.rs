//! The check: whether what each side will have is what it should be. Spec: ibgib §13.4 "Check", SY-52

use super::run::Run;
use super::{Context, Fault};
use crate::AbortCode;

/// What the check of both results says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Agree,
    Differ,
}

/// With more items of its own than this a receiver of a one-way saga does not have them all listed only to compare.
const ALONE_MAX: u64 = 65_536;

impl Run {
    /// Whether both results are what they should be; `None` while one is not there. Both sides decide alike.
    pub(super) fn check(&self) -> Result<Option<Verdict>, Fault> {
        let (Some(own), Some((peer, _))) = (&self.own_staged, &self.peer_staged) else { return Ok(None) };
        // A side whose space changed meanwhile cannot vouch for the sum. References are complete all the same, and
        // another saga follows at once.
        let (Some(own), Some(peer)) = (&own.staged.after, &peer.after) else { return Ok(Some(Verdict::Agree)) };
        match (self.terms.receives(), self.terms.sends()) {
            (true, true) => Ok(Some(if own == peer { Verdict::Agree } else { Verdict::Differ })),
            (false, true) if peer.item_count < self.terms.own.item_count => {
                Err(Fault::new(AbortCode::Incomplete, "the receiver has less than was sent"))
            }
            // The receiver compared before it said STAGED.
            _ => Ok(Some(Verdict::Agree)),
        }
    }

    /// Whether what this side, the only receiver, will have with the records it received is what the sender had at OPEN
    /// and what only this side has. Asked before STAGED.
    pub(super) fn holds(&self, context: &Context<'_>) -> Result<bool, Fault> {
        let sender = &self.terms.peer;
        let vouches = self.peer_staged.as_ref().is_none_or(|(staged, _)| staged.after.is_some());
        let one_way = self.terms.receives() && !self.terms.sends();
        if !one_way || !vouches || sender.item_count == 0 || self.scoped.moved(context.view) {
            return Ok(true);
        }
        let mut shared = self.scoped.snapshot().item_summary.clone();
        shared.add_all(&self.receive.index.summary);
        if let Some(alone) = &self.alone {
            shared.remove_all(alone);
        }
        if (shared.count, shared.lanes.digest()) == (sender.item_count, sender.item_digest) {
            return Ok(true);
        }
        let own = shared.count.saturating_sub(sender.item_count);
        if own == 0 || context.config.recon && own <= ALONE_MAX {
            return Ok(false);
        }
        // The receiver has records of its own. The whole stream proves that none of the sender's is missing.
        match self.receive.streamed().is_none_or(|set| set.lanes.digest() == sender.item_digest) {
            true => Ok(true),
            false => Err(Fault::new(AbortCode::Incomplete, "the stream was not the set that the peer described")),
        }
    }

    /// The results differ: level 1, then level 1 with salted ids; without it the bulk stream, once.
    pub(super) fn deepen(&mut self, context: &mut Context<'_>) -> Result<(), Fault> {
        if context.config.recon {
            return self.call_for_items(context);
        }
        if std::mem::replace(&mut self.fell_back, true) {
            return Err(Fault::new(AbortCode::Incomplete, "both sides differ after the whole set was sent"));
        }
        self.unstage();
        if self.receive.active() {
            if self.terms.peer.item_count == 0 {
                self.receive.nothing_to_receive();
            } else {
                self.receive.stream(None);
            }
        }
        Ok(())
    }
}
