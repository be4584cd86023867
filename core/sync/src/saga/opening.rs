//! OPEN and OPEN_ACK: what the saga is about, whether it is allowed, and how the difference is found.
//! Spec: ibgib §13.2, §13.4

use bytes::Bytes;
use sealtide_crypto::sha256;
use sealtide_ibgib::{Address, Verified};
use sealtide_identity::Role;

use super::index::Index;
use super::outbox::Outbox;
use super::run::{Run, Terms};
use super::{Context, Direction, Fault, Mode, NOT_ALLOWED, Scope, Side, Strategy};
use crate::message::{Open, OpenAck, Resume};
use crate::scope::Scoped;
use crate::{AbortCode, Facts, Message};

/// The opener, after OPEN.
#[derive(Debug)]
pub(super) struct AwaitAck {
    scoped: Scoped,
    facts: Facts,
    direction: Direction,
    strategy: Strategy,
    /// OPEN without a signature, until it is sent.
    open: Option<Open>,
    open_hash: [u8; 32],
}

impl AwaitAck {
    pub(super) fn new(context: &mut Context<'_>, scope: Scope, direction: Direction, strategy: Strategy) -> Self {
        let scoped = Scoped::take(&scope, context.view);
        let facts = scoped.facts();
        let open = Open {
            saga: context.config.saga,
            space: context.config.space,
            scope,
            direction,
            strategy,
            facts: facts.clone(),
            flags: if context.config.fresh { Open::FRESH } else { 0 },
            resume: resume(context),
            members: members(context),
            sig: None,
        };
        Self { scoped, facts, direction, strategy, open: Some(open), open_hash: [0; 32] }
    }

    /// OPEN without a signature.
    pub(super) fn message(&self) -> Message {
        Message::Open(self.open.clone().expect("OPEN is asked for before it is sent"))
    }

    /// Sends OPEN.
    pub(super) fn send(&mut self, out: &mut Outbox, sig: Option<Verified>) {
        if let Some(open) = self.open.take() {
            self.open_hash = body_hash(&out.send(&Message::Open(Open { sig, ..open })));
        }
    }

    /// Takes OPEN_ACK.
    pub(super) fn acknowledged(self, context: &mut Context<'_>, message: Message, bytes: &Bytes) -> Result<Run, Fault> {
        let Message::OpenAck(ack) = message else {
            return Err(Fault::protocol("expected OPEN_ACK"));
        };
        if (ack.saga, ack.space) != (context.config.saga, context.config.space) {
            return Err(Fault::protocol("OPEN_ACK of another saga"));
        }
        check_facts(&ack.facts)?;
        if ack.mode != choose(&self.facts, &ack.facts, context.config.recon) {
            return Err(Fault::protocol("a mode that the facts do not give"));
        }
        let terms = Terms {
            side: Side::Opener,
            direction: self.direction,
            strategy: self.strategy,
            mode: ack.mode,
            own: self.facts,
            peer: ack.facts,
            open_hash: self.open_hash,
            ack_hash: body_hash(bytes),
        };
        terms.check_role(context.config.peer_role)?;
        Run::open(context, terms, self.scoped)
    }
}

/// The answerer, before OPEN_ACK.
#[derive(Debug)]
pub(super) struct Answering {
    ack: OpenAck,
    terms: Terms,
    scoped: Scoped,
}

impl Answering {
    /// OPEN_ACK without a signature.
    pub(super) fn message(&self) -> Message {
        Message::OpenAck(self.ack.clone())
    }

    /// Sends OPEN_ACK and goes on.
    pub(super) fn send(mut self, context: &mut Context<'_>, sig: Option<Verified>) -> Result<Run, Fault> {
        let ack = OpenAck { sig, ..self.ack };
        self.terms.ack_hash = body_hash(&context.out.send(&Message::OpenAck(ack)));
        Run::open(context, self.terms, self.scoped)
    }
}

/// Takes OPEN and prepares the answer.
pub(super) fn answer(context: &mut Context<'_>, message: Message, bytes: &Bytes) -> Result<Answering, Fault> {
    let Message::Open(open) = message else {
        return Err(Fault::protocol("expected OPEN"));
    };
    if (open.saga, open.space) != (context.config.saga, context.config.space) {
        return Err(Fault::protocol("OPEN of another saga"));
    }
    // Spec: SY-100, SY-101
    if context.config.peer_role.is_none() {
        return Err(Fault::new(AbortCode::NotAllowed, NOT_ALLOWED));
    }
    check_facts(&open.facts)?;
    let scoped = Scoped::take(&open.scope, context.view);
    let own = scoped.facts();
    let mode = choose(&open.facts, &own, context.config.recon);
    let terms = Terms {
        side: Side::Answerer,
        direction: open.direction,
        strategy: open.strategy,
        mode,
        own: own.clone(),
        peer: open.facts,
        open_hash: body_hash(bytes),
        ack_hash: [0; 32],
    };
    terms.check_role(context.config.peer_role)?;
    let ack = OpenAck {
        saga: open.saga,
        space: open.space,
        facts: own,
        mode,
        flags: 0,
        resume: resume(context),
        members: members(context),
        sig: None,
    };
    Ok(Answering { ack, terms, scoped })
}

/// The newest `members` frame, for OPEN and OPEN_ACK.
fn members(context: &Context<'_>) -> Option<Address> {
    context.config.contexts.as_ref().and_then(|contexts| contexts.members.clone())
}

/// How the difference is found, from the opener's and the answerer's facts; both sides compute the same. Without level
/// 1 the bulk stream takes its place. Spec: ibgib §13.4
fn choose(opener: &Facts, answerer: &Facts, recon: bool) -> Mode {
    if opener == answerer {
        return Mode::Equal;
    }
    let one_is_empty = opener.item_count == 0 || answerer.item_count == 0;
    let same_tips = (opener.tip_count, opener.tip_fingerprint, opener.tip_digest)
        == (answerer.tip_count, answerer.tip_fingerprint, answerer.tip_digest);
    match same_tips {
        _ if one_is_empty => Mode::Bulk,
        true if recon => Mode::Recon,
        true => Mode::Bulk,
        false => Mode::Walk,
    }
}

/// Facts that no space can have.
fn check_facts(facts: &Facts) -> Result<(), Fault> {
    if facts.tip_count > facts.item_count { Err(Fault::protocol("more tips than records")) } else { Ok(()) }
}

impl Terms {
    /// Whether the peer may do what this saga would let it do here. Spec: ibgib §12.5, SY-101
    fn check_role(&self, role: Option<Role>) -> Result<(), Fault> {
        let brings = self.receives() && self.mode != Mode::Equal && self.peer.item_count > 0;
        match role {
            None => Err(Fault::new(AbortCode::NotAllowed, NOT_ALLOWED)),
            Some(Role::Read) if brings => Err(Fault::new(AbortCode::NotAllowed, "the peer may only read this space")),
            Some(_) => Ok(()),
        }
    }
}

fn resume(context: &Context<'_>) -> Option<Resume> {
    let staged = context.view.staged(&context.config.saga);
    (!staged.is_empty()).then(|| Resume { count: staged.len() as u64, root: Index::root(&staged) })
}

/// SHA-256 of the body of a message: everything behind the type byte.
pub(super) fn body_hash(message: &Bytes) -> [u8; 32] {
    sha256(&message[1..])
}
