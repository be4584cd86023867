//! The middle of a saga: reconcile, receive, serve, until both sides have STAGED. Spec: ibgib §13.4, §14

use bytes::Bytes;

use super::check::Verdict;
use super::clock::Clock;
use super::commit::{Committing, OwnStaged, PeerMoves};
use super::items::{GROWTH_MAX, Told};
use super::opening::body_hash;
use super::receive::{Batch, Receive};
use super::reconcile::{Kind, Reconcile, Step};
use super::serve::Serve;
use super::{Context, Direction, Fault, Limits, Mode, Side, Strategy};
use crate::message::{Staged, Want};
use crate::scope::Scoped;
use crate::{Facts, Level, Message, SagaOutput, SetSummary};

/// What OPEN and OPEN_ACK fixed.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) side: Side,
    pub(super) direction: Direction,
    pub(super) strategy: Strategy,
    pub(super) mode: Mode,
    /// The own facts at OPEN.
    pub(super) own: Facts,
    /// The peer's.
    pub(super) peer: Facts,
    pub(super) open_hash: [u8; 32],
    pub(super) ack_hash: [u8; 32],
}

impl Terms {
    /// Whether records flow to this side.
    pub(super) fn receives(&self) -> bool {
        let against = if self.side == Side::Opener { Direction::Push } else { Direction::Pull };
        self.direction != against
    }

    /// Whether records flow to the peer.
    pub(super) fn sends(&self) -> bool {
        let against = if self.side == Side::Opener { Direction::Pull } else { Direction::Push };
        self.direction != against
    }
}

/// RECONCILING, TRANSFERRING and STAGED.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) terms: Terms,
    pub(super) scoped: Scoped,
    pub(super) reconcile: Reconcile,
    /// What DIFF has told so far.
    pub(super) told: Told,
    /// What only this side has, once level 1 has told.
    pub(super) alone: Option<SetSummary>,
    pub(super) receive: Receive,
    pub(super) serve: Serve,
    pub(super) own_staged: Option<OwnStaged>,
    /// The peer's STAGED and the hash of its body.
    pub(super) peer_staged: Option<(Staged, [u8; 32])>,
    peer_moves: PeerMoves,
    /// Set when both STAGED agree: COMMIT may come. The time is when that was.
    agreed_ms: Option<u64>,
    /// Answerer: the hash of the body of COMMIT, and whether it was signed.
    pub(super) commit_seen: Option<([u8; 32], bool)>,
    /// Whether the bulk stream was taken because the results differed.
    pub(super) fell_back: bool,
}

impl Run {
    pub(super) fn open(context: &mut Context<'_>, terms: Terms, scoped: Scoped) -> Result<Self, Fault> {
        let mut run = Self {
            receive: Receive::new(terms.receives()),
            reconcile: Reconcile::new(terms.side),
            told: Told::default(),
            alone: None,
            scoped,
            serve: Serve::default(),
            own_staged: None,
            peer_staged: None,
            peer_moves: PeerMoves::default(),
            agreed_ms: None,
            commit_seen: None,
            fell_back: false,
            terms,
        };
        context.clock.answered();
        if run.receive.active() {
            let staged = context.view.staged(&context.config.saga);
            run.receive.resume(context, &mut run.scoped, &staged)?;
        }
        match run.terms.mode {
            Mode::Walk if run.terms.side == Side::Opener => run.start(context, Kind::Tips)?,
            Mode::Walk => {}
            Mode::Recon if run.terms.side == Side::Opener => run.start(context, Kind::Items)?,
            Mode::Recon => run.expect_items(),
            Mode::Bulk => run.start_stream(context),
            Mode::Equal => run.receive.nothing_to_receive(),
        }
        Ok(run)
    }

    fn start_stream(&mut self, context: &Context<'_>) {
        if !self.receive.active() {
            return;
        }
        if self.terms.peer.item_count == 0 {
            return self.receive.nothing_to_receive();
        }
        if let Some(roots) = self.scoped.frozen_roots() {
            // A frozen graph is what its roots refer to: asking by address sends only what is not here.
            let unknown = roots.iter().filter(|root| context.view.by_address(root).is_empty());
            return self.receive.walk_from(unknown);
        }
        // What an empty side has staged came by the stream, in its order, so it goes on behind the last.
        let resumes = self.terms.own.item_count == 0 && self.receive.resumed > 0;
        let saga = &context.config.saga;
        let last = resumes.then(|| {
            let staged = self.receive.index.sids();
            let records = staged.iter().filter_map(|sid| context.view.staged_record(saga, sid));
            records.map(|record| (record.order_key(), record.sid())).max()
        });
        self.receive.stream(last.flatten());
    }

    /// Takes a message; `true` when it is the COMMIT that fits.
    pub(super) fn message(
        &mut self,
        context: &mut Context<'_>,
        message: Message,
        bytes: &Bytes,
    ) -> Result<bool, Fault> {
        let credit = bytes.len() as u64;
        match message {
            Message::Batch { number, want, zstd, size, payload, end } => {
                let batch = Batch { number, want, zstd, size, payload, end };
                if zstd && !context.config.zstd {
                    return Err(Fault::protocol("zstd was not agreed on"));
                }
                return self.receive.batch(context, &mut self.scoped, batch, credit).map(|()| false);
            }
            Message::Chunks { .. } => return self.receive.piece(context, message, credit).map(|()| false),
            _ => context.out.release(credit),
        }
        match message {
            Message::Recon { level, run, salted, payload } => self.recon(context, level, run, salted, &payload)?,
            Message::Want { number, want } if self.terms.sends() => {
                let want = match want {
                    Want::Sids(ids) => Want::Sids(self.plain_sids(ids)),
                    want => want,
                };
                self.serve.want(&context.config.limits, number, want)?;
            }
            Message::Want { .. } => return Err(Fault::protocol("a WANT of the side that only sends")),
            Message::Stored { batch } => self.serve.stored(batch)?,
            Message::Progress(_) => {}
            Message::TipList { want, tips, last } => self.tip_list(context, want, tips, last)?,
            Message::Diff { run, only_opener, only_answerer, last } => {
                self.diff(context, run, [only_opener, only_answerer], last)?;
            }
            // Said before the peer knew that level 1 had begun.
            Message::Tips(_) | Message::Staged(_) if self.reconcile.unanswered() => {}
            Message::Tips(moves) => {
                if self.peer_staged.take().is_some() {
                    self.peer_moves = PeerMoves::default();
                    self.agreed_ms = None;
                }
                self.peer_moves.take(&moves)?;
            }
            Message::Staged(staged) => {
                if self.peer_staged.take().is_some() && staged.move_count == 0 {
                    self.peer_moves = PeerMoves::default();
                }
                self.agreed_ms = None;
                self.peer_moves.check(&staged)?;
                self.peer_staged = Some((staged, body_hash(bytes)));
            }
            Message::Commit(commit, sig) if self.terms.side == Side::Answerer => {
                let fits = self.agreed_ms.is_some() && self.commit(context.config.saga) == Some(commit);
                if !fits {
                    return Err(Fault::protocol("a COMMIT of something else"));
                }
                self.check_unsigned(context, sig.is_some())?;
                self.commit_seen = Some((body_hash(bytes), sig.is_some()));
                return Ok(true);
            }
            _ => return Err(Fault::protocol("not expected now on a saga channel")),
        }
        Ok(false)
    }

    fn recon(
        &mut self,
        context: &mut Context<'_>,
        level: u64,
        run: u64,
        salted: bool,
        payload: &[u8],
    ) -> Result<(), Fault> {
        let kind = Kind::of(level, salted)?;
        if kind != Kind::Tips && !context.config.recon {
            return Err(Fault::protocol("recon not offered"));
        }
        if payload.is_empty() {
            return self.asked_for(context, kind, run);
        }
        if self.terms.side == Side::Answerer && self.reconcile.is_next(run) {
            self.begin(context, kind)?;
        }
        let named_max = (context.config.limits.named_bytes_max / 32) as u64;
        let need_max = match kind {
            Kind::Tips => self.terms.peer.tip_count,
            _ => self.terms.peer.item_count.saturating_add(GROWTH_MAX),
        };
        let need_max = need_max.min(named_max);
        match self.reconcile.take(context, (kind, run), payload, need_max)? {
            Step::Answer(message) => _ = context.out.send(&message),
            Step::Finished(difference) if kind != Kind::Tips => self.items_known(difference),
            Step::Finished(difference) => {
                self.serve.list_own_tips(if self.terms.sends() { difference.have } else { Default::default() });
                if self.receive.waiting() {
                    self.receive.wants.ask_tips(difference.need);
                    if self.receive.wants.tips_named() {
                        self.receive.tips_known(context, &self.scoped);
                    }
                }
            }
        }
        Ok(())
    }

    fn tip_list(
        &mut self,
        context: &mut Context<'_>,
        want: u64,
        tips: Vec<crate::message::ListedTip>,
        last: bool,
    ) -> Result<(), Fault> {
        context.clock.answered();
        let bytes_max = context.config.limits.named_bytes_max;
        if want == 0 {
            if self.terms.side != Side::Answerer || !self.reconcile.runs(Level::Tips) {
                return Err(Fault::protocol("a TIPLIST that nobody waits for"));
            }
            if tips.is_empty() && !last {
                return Err(Fault::protocol("an empty part of a TIPLIST"));
            }
            if self.receive.waiting() {
                for tip in tips {
                    self.receive.tip(tip, &self.scoped, self.terms.peer.item_count, bytes_max)?;
                }
            }
            if last {
                self.reconcile.close();
                self.receive.tips_known(context, &self.scoped);
            }
            return Ok(());
        }
        for tip in tips {
            self.receive.wants.admit_tip(want, &tip.id)?;
            self.receive.tip(tip, &self.scoped, self.terms.peer.item_count, bytes_max)?;
        }
        if last {
            self.receive.wants.tips_answered(want)?;
            if self.receive.wants.tips_named() {
                self.receive.tips_known(context, &self.scoped);
            }
        }
        Ok(())
    }

    /// Does what has become possible: the opener's COMMIT at last.
    pub(super) fn advance(&mut self, context: &mut Context<'_>) -> Result<bool, Fault> {
        if self.receive.advance(context, &self.scoped, self.reconcile.salt())? {
            self.call_for_items(context)?;
        }
        self.report(context);
        if self.own_staged.is_none() && self.may_stage(context) {
            self.stage(context)?;
        }
        if self.agreed_ms.is_some() {
            return Ok(false);
        }
        match self.check()? {
            None => {}
            Some(Verdict::Agree) => {
                self.agreed_ms = Some(context.clock.now.mono_ms);
                return Ok(self.terms.side == Side::Opener);
            }
            Some(Verdict::Differ) => self.deepen(context)?,
        }
        Ok(false)
    }

    /// A side that receives stages when it has everything; one that does not, when the peer has, so that its `after`
    /// can still say that its space moved while it served. Once it has moved, it says so at once: the receiver then
    /// need not ask why the results differ.
    fn may_stage(&self, context: &Context<'_>) -> bool {
        match self.receive.active() {
            true => self.receive.complete(),
            false => self.peer_staged.is_some() || self.scoped.moved(context.view),
        }
    }

    /// Forgets what both sides have said of their results.
    pub(super) fn unstage(&mut self) {
        self.own_staged = None;
        self.peer_staged = None;
        self.peer_moves = PeerMoves::default();
        self.agreed_ms = None;
    }

    /// How the difference was found in the end.
    pub(super) fn mode(&self) -> Mode {
        match self.fell_back || self.receive.streams() || self.serve.streams {
            _ if self.reconcile.begun(Kind::Items) => Mode::Recon,
            true => Mode::Bulk,
            false => self.terms.mode,
        }
    }

    /// The next message that needs room in the channel.
    pub(super) fn next_message(&mut self, context: &Context<'_>) -> Option<Message> {
        if let Some((number, want)) = self.receive.wants.next(context.config.limits.wants_open_max) {
            return Some(Message::Want { number, want });
        }
        self.serve.next_message(context, &self.scoped)
    }

    /// Spec: SY-74
    fn report(&self, context: &mut Context<'_>) {
        let (received, serve) = (&self.receive, &self.serve);
        let done_items = received.index.len() as u64 + received.chunk_items + serve.items;
        if done_items == 0 || !context.clock.report_due() {
            return;
        }
        let (more_items, more_bytes) = received.outstanding(self.terms.peer.item_count);
        let done_bytes = received.bytes + serve.bytes;
        context.out.push(SagaOutput::Progress {
            done_items,
            all_items: done_items + more_items,
            done_bytes,
            all_bytes: done_bytes + more_bytes,
        });
    }

    /// When to look at the time limits next.
    pub(super) fn deadline(&self, limits: &Limits, clock: &Clock) -> u64 {
        match self.agreed_ms {
            Some(since) => since.saturating_add(limits.commit_wait_ms),
            None if self.receive.waits_for_answer() => clock.next_look(limits).min(clock.answer_deadline(limits)),
            None => clock.next_look(limits),
        }
    }

    /// Which time limit is over, if any.
    pub(super) fn late(&self, limits: &Limits, clock: &Clock) -> Option<&'static str> {
        if let Some(since) = self.agreed_ms {
            return (clock.now.mono_ms >= since.saturating_add(limits.commit_wait_ms)).then_some("no COMMIT");
        }
        let unanswered = self.receive.waits_for_answer() && clock.now.mono_ms >= clock.answer_deadline(limits);
        clock.idle_over(limits).or(unanswered.then_some("a WANT without an answer"))
    }

    /// Leaves for the commit.
    pub(super) fn into_committing(self, context: &mut Context<'_>) -> Result<Committing, Fault> {
        Committing::begin(self, context)
    }
}
