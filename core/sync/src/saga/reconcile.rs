//! Level 0: which tips only one side has. Spec: ibgib §13.3, §13.4

use crate::message::Message;
use crate::negentropy::{Difference, Run, Splitter};
use crate::scope::Scoped;

use super::{Fault, Side};

/// Messages of one run before it counts as endless. Each cuts ranges by 16, so honest runs need a handful.
const MESSAGES_MAX: u32 = 256;
/// The number of the only run there is.
const RUN: u64 = 1;

/// The reconciliation of a walk.
#[derive(Debug)]
pub(super) struct Reconcile {
    side: Side,
    run: Run,
    difference: Difference,
    messages: u32,
}

/// What comes of a RECON.
#[derive(Debug)]
pub(super) enum Step {
    /// Send this and wait.
    Answer(Box<Message>),
    /// The client knows everything.
    Finished(Difference),
}

impl Reconcile {
    pub(super) fn new(side: Side, scoped: &Scoped) -> Self {
        Self { side, run: scoped.tip_run(), difference: Difference::default(), messages: 0 }
    }

    /// The client's first message.
    pub(super) fn initiate(&self) -> Message {
        message(Splitter::default().initiate(&self.run))
    }

    /// Takes a RECON. `peer_tips` bounds what the peer may name.
    pub(super) fn take(
        &mut self,
        level: u64,
        run: u64,
        salted: bool,
        payload: &[u8],
        peer_tips: u64,
    ) -> Result<Step, Fault> {
        if level != 0 || salted {
            return Err(Fault::protocol("recon not offered"));
        }
        if run != RUN {
            return Err(Fault::protocol("a RECON of another run"));
        }
        self.messages += 1;
        if self.messages > MESSAGES_MAX {
            return Err(Fault::new(crate::AbortCode::Limit, "a reconciliation without end"));
        }
        if self.side == Side::Answerer {
            return Ok(Step::Answer(Box::new(message(Splitter::default().server(&self.run, payload)?))));
        }
        match Splitter::default().client(&self.run, payload, &mut self.difference, peer_tips)? {
            Some(next) => Ok(Step::Answer(Box::new(message(next)))),
            None => Ok(Step::Finished(std::mem::take(&mut self.difference))),
        }
    }
}

fn message(payload: Vec<u8>) -> Message {
    Message::Recon { level: 0, run: RUN, salted: false, payload: payload.into() }
}
