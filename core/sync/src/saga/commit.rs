//! STAGED, COMMIT and what comes after. Spec: ibgib §13.2, §14.3, §14.4

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sealtide_crypto::Sha256;
use sealtide_ibgib::{ChunkHash, Sid, TimelineId, Verified};
use sealtide_identity::Role;

use super::contexts::{Chain, ContextKind, Contexts, auth};
use super::heads::Head;
use super::index::{Index, Kind, Place};
use super::merging::Merges;
use super::opening::body_hash;
use super::run::Run;
use super::signing::Ledger;
use super::{Context, Fault, Mode, NOT_ALLOWED, SagaId, SagaOutcome, SagaOutput, Side, Strategy};
use crate::message::{Commit, Staged, TIPS_MAX, TipMove};
use crate::{AbortCode, CommitRequest, CommitResult, Facts, Message, SetSummary, Snapshot, TipItem};

/// What this side staged and announced.
#[derive(Debug)]
pub(super) struct OwnStaged {
    pub(super) staged: Staged,
    hash: [u8; 32],
    sids: Vec<Sid>,
    merges: Merges,
    /// The tips at OPEN of the timelines that move and had some, by sid; of all that move where the commit is strict.
    expected: BTreeMap<TimelineId, Vec<Sid>>,
    moved: MovedKinds,
}

/// What kinds of timelines the peer moves.
#[derive(Clone, Copy, Debug, Default)]
struct MovedKinds {
    space: bool,
    members: bool,
    /// Any at all.
    some: bool,
}

impl MovedKinds {
    fn add(&mut self, kind: Kind) {
        self.some = true;
        self.space |= kind == Kind::Space;
        self.members |= kind == Kind::Members;
    }
}

impl Run {
    /// Sends TIPS and STAGED. Everything received is complete and durable.
    pub(super) fn stage(&mut self, context: &mut Context<'_>) -> Result<(), Fault> {
        self.receive.close(context, &mut self.scoped)?;
        let index = &self.receive.index;
        let mut changes = Changes::of(self.scoped.snapshot(), &index.heads, self.terms.strategy == Strategy::Abort);
        // Nearly all timelines end with one tip: their moves are written down at once. The others wait for merges.
        let (mut diverged, mut moved) = (TipsAfter::new(), MovedKinds::default());
        changes.moves.reserve_exact(index.timelines.len());
        for (Place(_, id), timeline) in index.timelines.iter() {
            let before = self.tips_before(id);
            let after = index.tips_after(timeline, &before);
            if before.is_empty() && after.len() == 1 {
                moved.add(timeline.kind);
                changes.begins(*id, &after);
                continue;
            }
            timeline.heads.iter().for_each(|head| changes.tips.sub(&head.id));
            if after.iter().map(|tip| tip.sid).eq(before.iter().map(|tip| tip.sid)) {
                continue;
            }
            moved.add(timeline.kind);
            if after.len() > 1 {
                let moving = Moving { after: self.read_tips(context, &after, &before)?, before };
                // Spec: SY-64
                if self.terms.strategy == Strategy::Abort {
                    let tjp = moving.after.first().map(|tip| tip.tjp.to_string()).unwrap_or_default();
                    return Err(Fault::new(AbortCode::Divergence, format!("{tjp} diverged")));
                }
                diverged.insert(*id, moving);
            } else {
                changes.note(*id, &heads(&before), &after);
            }
        }
        check_moves(context, moved)?;
        let sids = index.sids();
        if !self.holds(context)? {
            return self.deepen(context);
        }
        let truth = !self.scoped.moved(context.view);
        let mut tips = changes.tips.clone();
        diverged.values().for_each(|moving| move_tips(&mut tips, &heads(&moving.before), &heads(&moving.after)));
        let merges = if truth { self.merge(context, &changes, &mut diverged) } else { Merges::default() };
        diverged.iter().for_each(|(id, moving)| changes.note(*id, &heads(&moving.before), &heads(&moving.after)));
        let facts = if self.merges_alike() {
            self.facts_after(&changes.tips, &merges.frames)
        } else {
            self.facts_after(&tips, &[])
        };
        let Changes { mut moves, expected, .. } = changes;
        moves.sort_unstable();
        let staged = Staged {
            count: sids.len() as u64,
            root: Index::root(&sids),
            move_count: moves.len() as u64,
            move_hash: PeerMoves::of(&moves),
            after: truth.then_some(facts),
        };
        for part in moves.chunks(TIPS_MAX) {
            context.out.send(&Message::Tips(part.to_vec()));
        }
        let hash = body_hash(&context.out.send(&Message::Staged(staged.clone())));
        self.own_staged = Some(OwnStaged { staged, hash, sids, merges, expected, moved });
        Ok(())
    }

    /// Tips with what their records say: some of `before`, others received.
    fn read_tips(&self, context: &Context<'_>, tips: &[Head], before: &[TipItem]) -> Result<Vec<TipItem>, Fault> {
        let read = |head: &Head| {
            let known = before.iter().find(|tip| tip.sid == head.sid).cloned();
            let staged = || TipItem::of(&context.view.staged_record(&context.config.saga, &head.sid)?);
            known.or_else(staged).ok_or_else(|| Fault::new(AbortCode::Disk, "a staged record cannot be read"))
        };
        tips.iter().map(read).collect()
    }

    /// The tips of a timeline at OPEN, sorted by sid.
    pub(super) fn tips_before(&self, timeline: &TimelineId) -> Vec<TipItem> {
        let mut tips = self.scoped.tips_of(timeline);
        tips.sort_by_key(|tip| tip.sid);
        tips
    }

    /// What the space will be: the snapshot with everything received and these merge frames, and these tips.
    fn facts_after(&self, tips: &SetSummary, merged: &[Verified]) -> Facts {
        let mut items = self.scoped.snapshot().item_summary.clone();
        items.add_all(&self.receive.index.summary);
        merged.iter().for_each(|record| items.add(record.sid().as_bytes()));
        Facts::of(tips, &items)
    }

    /// The COMMIT that both sides must mean; `None` while a STAGED is missing.
    pub(super) fn commit(&self, saga: SagaId) -> Option<Commit> {
        let (own, peer) = (self.own_staged.as_ref()?.hash, self.peer_staged.as_ref()?.1);
        let (staged_opener, staged_answerer) = if self.terms.side == Side::Opener { (own, peer) } else { (peer, own) };
        Some(Commit {
            saga,
            open: self.terms.open_hash,
            open_ack: self.terms.ack_hash,
            direction: self.terms.direction,
            staged_opener,
            staged_answerer,
        })
    }
}

impl Run {
    /// Whether the saga moves anything, on either side.
    fn brings_news(&self) -> bool {
        let moves = |staged: &Staged| staged.count > 0 || staged.move_count > 0;
        self.own_staged.as_ref().is_some_and(|own| moves(&own.staged))
            || self.peer_staged.as_ref().is_some_and(|(peer, _)| moves(peer))
    }

    /// A COMMIT without a signature is refused where one was due long ago. Spec: ibgib §12.4, SY-33
    pub(super) fn check_unsigned(&self, context: &Context<'_>, signed: bool) -> Result<(), Fault> {
        match &context.config.contexts {
            Some(contexts) if !signed && contexts.ledger.closing_required(context.clock.now, self.brings_news()) => {
                Err(auth("a COMMIT that had to be signed"))
            }
            _ => Ok(()),
        }
    }
}

/// The timelines that move and end with several tips, unless those are merged.
pub(super) type TipsAfter = BTreeMap<TimelineId, Moving>;

/// How the tips of a space change, timeline by timeline: a large saga moves hundreds of thousands, so no list of what each
/// was and will be is kept.
#[derive(Debug)]
pub(super) struct Changes {
    /// The tips as they will be.
    tips: SetSummary,
    moves: Vec<TipMove>,
    /// The tips at OPEN. Timelines that had none are left out, but where a commit must be strict.
    expected: BTreeMap<TimelineId, Vec<Sid>>,
    strict: bool,
}

impl Changes {
    /// With all received heads among the tips: whoever notes something else than [`Changes::begins`] of a timeline takes its own away.
    fn of(snapshot: &Snapshot, heads: &SetSummary, strict: bool) -> Self {
        let (mut tips, moves, expected) = (snapshot.tip_summary.clone(), Vec::new(), BTreeMap::new());
        tips.add_all(heads);
        Self { tips, moves, expected, strict }
    }

    /// Notes a timeline that had no tips and has one, the received head.
    fn begins(&mut self, timeline: TimelineId, after: &[Head]) {
        note_moves(timeline, &[], after, &mut self.moves);
        if self.strict {
            self.expected.insert(timeline, Vec::new());
        }
    }

    fn note(&mut self, timeline: TimelineId, before: &[Head], after: &[Head]) {
        move_tips(&mut self.tips, before, after);
        note_moves(timeline, before, after, &mut self.moves);
        if self.strict || !before.is_empty() {
            self.expected.insert(timeline, before.iter().map(|tip| tip.sid).collect());
        }
    }

    /// Whether a timeline that had tips is among those noted.
    pub(super) fn moves(&self, timeline: &TimelineId) -> bool {
        self.expected.contains_key(timeline)
    }
}

fn heads(tips: &[TipItem]) -> Vec<Head> {
    tips.iter().map(|tip| Head { sid: tip.sid, id: tip.id }).collect()
}

fn move_tips(tips: &mut SetSummary, before: &[Head], after: &[Head]) {
    let (gone, new) = differences(before, after);
    gone.iter().for_each(|tip| tips.sub(&tip.id));
    new.iter().for_each(|tip| tips.add(&tip.id));
}

/// How the tips of one timeline change, both sorted by sid.
#[derive(Debug)]
pub(super) struct Moving {
    /// The tips at OPEN.
    pub(super) before: Vec<TipItem>,
    /// The tips after the commit.
    pub(super) after: Vec<TipItem>,
}

/// The tips that are gone, and those that are new.
fn differences<'a>(before: &'a [Head], after: &'a [Head]) -> (Vec<&'a Head>, Vec<&'a Head>) {
    let sids = |tips: &[Head]| tips.iter().map(|tip| tip.sid).collect::<BTreeSet<Sid>>();
    let (there, here) = (sids(before), sids(after));
    let gone = before.iter().filter(|tip| !here.contains(&tip.sid)).collect();
    let new = after.iter().filter(|tip| !there.contains(&tip.sid)).collect();
    (gone, new)
}

/// Writes down how the tips of one timeline change.
fn note_moves(timeline: TimelineId, before: &[Head], after: &[Head], moves: &mut Vec<TipMove>) {
    let (gone, new) = differences(before, after);
    for place in 0..gone.len().max(new.len()) {
        let sid = |list: &[&Head]| list.get(place).map_or([0; 32], |tip| tip.sid.0);
        moves.push(TipMove { timeline, old: sid(&gone), new: sid(&new) });
    }
}

/// Whether the peer may move these timelines: ordinary ones with `write`, those that say who may do what with
/// `admin`. Where this node goes by a members frame, the driver looks who claimed a new one, and anybody who may write may
/// bring it. Asked before STAGED and again at the commit. Spec: ibgib §12.5, SY-101
fn check_moves(context: &Context<'_>, moved: MovedKinds) -> Result<(), Fault> {
    let claimed = context.config.contexts.as_ref().is_some_and(|contexts| contexts.members.is_some());
    let by_admin = moved.space || moved.members && !claimed;
    let least = if by_admin { Role::Admin } else { Role::Write };
    match context.config.peer_role {
        None => Err(Fault::new(AbortCode::NotAllowed, NOT_ALLOWED)),
        Some(role) if moved.some && role < least => {
            Err(Fault::new(AbortCode::NotAllowed, "the peer may not change this"))
        }
        Some(_) => Ok(()),
    }
}

/// The peer's TIPS as they come: only their hash is kept.
#[derive(Default)]
pub(super) struct PeerMoves {
    hasher: Sha256,
    count: u64,
    last: Option<TipMove>,
}

impl std::fmt::Debug for PeerMoves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PeerMoves({})", self.count)
    }
}

impl PeerMoves {
    pub(super) fn take(&mut self, moves: &[TipMove]) -> Result<(), Fault> {
        for entry in moves {
            if self.last.is_some_and(|last| last >= *entry) || entry.old == entry.new {
                return Err(Fault::protocol("TIPS out of order"));
            }
            self.hasher.update(entry.timeline.as_bytes());
            self.hasher.update(&entry.old);
            self.hasher.update(&entry.new);
            self.last = Some(*entry);
            self.count += 1;
        }
        Ok(())
    }

    pub(super) fn check(&self, staged: &Staged) -> Result<(), Fault> {
        if (self.count, self.hasher.clone().finish()) == (staged.move_count, staged.move_hash) {
            Ok(())
        } else {
            Err(Fault::protocol("a STAGED that does not fit its TIPS"))
        }
    }

    fn of(moves: &[TipMove]) -> [u8; 32] {
        let mut hasher = Sha256::new();
        moves.iter().flat_map(|entry| [&entry.timeline.0, &entry.old, &entry.new]).for_each(|part| hasher.update(part));
        hasher.finish()
    }
}

/// COMMIT was sent or received.
#[derive(Debug)]
pub(super) struct Committing {
    side: Side,
    commit: Commit,
    request: Option<CommitRequest>,
    /// Chunks that it goes without.
    lacking: BTreeSet<ChunkHash>,
    expected: BTreeMap<TimelineId, Vec<Sid>>,
    moved: MovedKinds,
    step: Step,
    mode: Mode,
    received: u64,
    sent: u64,
    again: bool,
    /// Whether COMMIT is signed, and so COMMIT_ACK.
    signed: bool,
    /// The hash of the body of COMMIT.
    commit_hash: [u8; 32],
    /// The ledger of the space with this saga in it, from COMMIT_ACK on. Without keystones there is none.
    completed: Option<Ledger>,
    /// Answerer: whether COMMIT_ACK cannot reach the peer.
    ack_lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Opener: COMMIT is being signed.
    SigningCommit,
    /// Opener: COMMIT was sent.
    AwaitAck,
    /// The store was asked.
    InStore,
    /// Answerer: the store did it, and COMMIT_ACK is being signed.
    SigningAck,
    Finished,
}

impl Committing {
    /// The opener sends COMMIT; the answerer, which got it, asks the store.
    pub(super) fn begin(run: Run, context: &mut Context<'_>) -> Result<Self, Fault> {
        let missing = || Fault::protocol("nothing is staged");
        let commit = run.commit(context.config.saga).ok_or_else(missing)?;
        let (mode, sent) = (run.mode(), run.serve.records);
        let contexts = context.config.contexts.as_ref();
        let due = contexts
            .is_some_and(|contexts| contexts.ledger.closing_due(context.clock.now, run.brings_news(), contexts.last));
        let (commit_hash, signed) = run.commit_seen.unwrap_or(([0; 32], due));
        let own = run.own_staged.ok_or_else(missing)?;
        let (peer, _) = run.peer_staged.ok_or_else(missing)?;
        let strict = run.terms.strategy == Strategy::Abort;
        if strict && run.scoped.moved(context.view) && moved_since(&own, context) {
            return Err(Fault::new(AbortCode::TipMoved, "a tip moved while the saga ran"));
        }
        let again = own.staged.after.is_none() || peer.after.is_none() || own.merges.again;
        let received = own.sids.len() as u64;
        let request = (received > 0 || !own.merges.frames.is_empty()).then(|| CommitRequest {
            saga: Some(context.config.saga),
            staged: run.receive.pruned.then(|| own.sids.clone()),
            records: own.merges.frames,
            expected: own.expected.clone().into_iter().collect(),
            strict,
        });
        let (side, expected, moved) = (run.terms.side, own.expected, own.moved);
        let lacking = run.receive.lacking;
        let step = Step::AwaitAck;
        let mut this = Self {
            side,
            commit,
            request,
            lacking,
            expected,
            moved,
            step,
            mode,
            received,
            sent,
            again,
            signed,
            commit_hash,
            completed: None,
            ack_lost: false,
        };
        if side == Side::Opener && signed {
            this.step = Step::SigningCommit;
        } else if side == Side::Opener {
            this.send(context, None);
        } else {
            this.ask_store(context)?;
        }
        Ok(this)
    }

    /// Whether nothing that the peer says can change the outcome.
    pub(super) fn in_store(&self) -> bool {
        matches!(self.step, Step::InStore | Step::SigningAck)
    }

    /// Whether it is visible here, and only the answer to the peer is missing.
    pub(super) fn has_stored(&self) -> bool {
        self.step == Step::SigningAck
    }

    /// Whether COMMIT was sent or received.
    pub(super) fn is_sent(&self) -> bool {
        self.step != Step::SigningCommit
    }

    pub(super) fn is_signed(&self) -> bool {
        self.signed
    }

    /// The message that is to be signed, without its signature.
    pub(super) fn to_sign(&self) -> Option<(ContextKind, Message)> {
        match self.step {
            Step::SigningCommit => Some((ContextKind::Commit, Message::Commit(self.commit, None))),
            Step::SigningAck => Some((ContextKind::CommitAck, Message::CommitAck(self.commit, None))),
            _ => None,
        }
    }

    /// Sends COMMIT or COMMIT_ACK.
    pub(super) fn send(&mut self, context: &mut Context<'_>, sig: Option<Verified>) {
        if self.side == Side::Opener {
            self.commit_hash = body_hash(&context.out.send(&Message::Commit(self.commit, sig)));
            self.step = Step::AwaitAck;
        } else {
            let ack = context.out.send(&Message::CommitAck(self.commit, sig));
            self.complete(context, &ack);
            self.step = Step::Finished;
        }
    }

    fn complete(&mut self, context: &Context<'_>, ack: &Bytes) {
        let completed = |contexts: &Contexts| {
            contexts.ledger.completed(context.clock.now, &self.commit_hash, &body_hash(ack), self.signed)
        };
        self.completed = context.config.contexts.as_ref().map(completed);
    }

    /// The channel is gone before COMMIT_ACK was sent.
    pub(super) fn lose_ack(&mut self) {
        if self.side == Side::Answerer {
            self.ack_lost = true;
            if self.step == Step::SigningAck {
                self.step = Step::Finished;
            }
        }
    }

    /// COMMIT_ACK cannot be signed.
    pub(super) fn give_up_ack(&mut self) {
        self.step = Step::Finished;
        self.again = true;
    }

    /// What the saga means for the chain, when it ends like this.
    pub(super) fn chain(&self, outcome: &SagaOutcome) -> Chain {
        match (self.completed, self.step) {
            _ if self.ack_lost => Chain::Unknown,
            (Some(ledger), _) => Chain::Completed(ledger),
            (None, Step::AwaitAck) if !matches!(outcome, SagaOutcome::Aborted { by_peer: true, .. }) => Chain::Unknown,
            _ => Chain::Same,
        }
    }

    pub(super) fn awaits_ack(&self) -> bool {
        self.step == Step::AwaitAck
    }

    pub(super) fn message(&mut self, context: &mut Context<'_>, message: Message, bytes: &Bytes) -> Result<(), Fault> {
        match message {
            Message::Stored { .. } | Message::Progress(_) => Ok(()),
            Message::CommitAck(commit, _) if self.awaits_ack() && commit == self.commit => {
                self.complete(context, bytes);
                self.ask_store(context)
            }
            _ => Err(Fault::protocol("expected COMMIT_ACK")),
        }
    }

    fn ask_store(&mut self, context: &mut Context<'_>) -> Result<(), Fault> {
        check_moves(context, self.moved)?;
        match self.request.take() {
            Some(request) => {
                self.step = Step::InStore;
                if !self.lacking.is_empty() {
                    context.out.push(SagaOutput::Lack(std::mem::take(&mut self.lacking)));
                }
                context.out.push(SagaOutput::Commit(request));
            }
            None => self.finish(context),
        }
        Ok(())
    }

    /// The store did it.
    pub(super) fn committed(&mut self, context: &mut Context<'_>, result: &CommitResult) {
        if self.step != Step::InStore {
            return;
        }
        // Spec: SY-108
        self.again |= result.moved.iter().any(|(timeline, before, _)| {
            let mut before = before.clone();
            before.sort_unstable();
            self.expected.get(timeline).map_or(&[][..], Vec::as_slice) != before
        });
        self.finish(context);
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        match self.side {
            Side::Answerer if self.signed && !self.ack_lost => self.step = Step::SigningAck,
            Side::Answerer => self.send(context, None),
            Side::Opener => self.step = Step::Finished,
        }
    }

    pub(super) fn outcome(&self) -> Option<SagaOutcome> {
        (self.step == Step::Finished).then_some(SagaOutcome::Committed {
            mode: self.mode,
            received: self.received,
            sent: self.sent,
            again: self.again,
        })
    }
}

/// Whether one of the timelines that are to move has other tips now than at OPEN.
fn moved_since(own: &OwnStaged, context: &Context<'_>) -> bool {
    let now = context.view.snapshot();
    own.expected.iter().any(|(timeline, expected)| {
        let mut sids: Vec<Sid> = now.tips.of(timeline).iter().map(|tip| tip.sid).collect();
        sids.sort_unstable();
        sids != *expected
    })
}
