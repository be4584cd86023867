//! The frames of `sts/1` as bytes: one type byte, then a deterministic CBOR array. Spec: ibgib §13.2.
//!
//! [`Message::decode`] is strict: one spelling for each message, every list, text and byte string bounded, nothing
//! after the end. Frames of keystones are read always; who did not agree on keystones refuses them.

mod decode;

use bytes::Bytes;
use sealtide_ibgib::{Address, ChunkHash, Sid, TimelineId, Verified};
use sealtide_identity::{Role, SpaceId};

use crate::cbor::Writer;
use crate::{Direction, Mode, SagaId, SagaState, Scope, SpaceOffer, Strategy};

/// Bytes of one sync message, type included, at most.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one piece of a chunk.
pub const CHUNK_PIECE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of the records of one BATCH, unpacked.
pub const BATCH_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 64;
/// How many times larger than its zstd form a BATCH may be.
pub const ZSTD_RATIO_MAX: usize = 100;

/// What both sides tell about a scope. Spec: ibgib §13.2 `facts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// How many tips.
    pub tip_count: u64,
    /// First 16 bytes of the negentropy fingerprint over the tip ids.
    pub tip_fingerprint: [u8; 16],
    /// Set digest of the tips.
    pub tip_digest: [u8; 32],
    /// How many records.
    pub item_count: u64,
    /// Fingerprint over the sids.
    pub item_fingerprint: [u8; 16],
    /// Set digest of the records.
    pub item_digest: [u8; 32],
}

/// Why a saga ended without a commit. Spec: ibgib §13.2 "Abort codes".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortCode {
    /// Identity proof missing or wrong.
    Auth,
    /// A message broke the protocol.
    Protocol,
    /// A limit was exceeded.
    Limit,
    /// No progress in time.
    Timeout,
    /// Too many sagas, or another one of this space is running.
    Busy,
    /// Tips diverged and the strategy is abort.
    Divergence,
    /// A tip moved during the saga and the strategy is abort.
    TipMoved,
    /// A reference or an item is missing.
    Incomplete,
    /// A record was refused.
    BadRecord,
    /// The identity is forked.
    IdentityForked,
    /// The identity or grant was revoked.
    Revoked,
    /// The grants do not allow it, or there is no such space.
    NotAllowed,
    /// The disk failed or is full.
    Disk,
    /// Cancelled by the user.
    Cancelled,
}

impl AbortCode {
    /// Every code, in the order of the specification.
    pub const ALL: [Self; 14] = [
        Self::Auth,
        Self::Protocol,
        Self::Limit,
        Self::Timeout,
        Self::Busy,
        Self::Divergence,
        Self::TipMoved,
        Self::Incomplete,
        Self::BadRecord,
        Self::IdentityForked,
        Self::Revoked,
        Self::NotAllowed,
        Self::Disk,
        Self::Cancelled,
    ];

    /// The text on the wire and in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Protocol => "protocol",
            Self::Limit => "limit",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::Divergence => "divergence",
            Self::TipMoved => "tip_moved",
            Self::Incomplete => "incomplete",
            Self::BadRecord => "bad_record",
            Self::IdentityForked => "identity_forked",
            Self::Revoked => "revoked",
            Self::NotAllowed => "not_allowed",
            Self::Disk => "disk",
            Self::Cancelled => "cancelled",
        }
    }

    /// What happened, in words for people; the report adds the text of the saga. Spec: SY-76
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Auth => "the other node could not prove its identity",
            Self::Protocol => "the other node broke the sync protocol, or speaks a newer version of it",
            Self::Limit => "more than a limit or a quota allows; the message says which",
            Self::Timeout => "no progress for too long",
            Self::Busy => "another sync of this space is running; it will be tried again",
            Self::Divergence => "both sides changed the same thing and the strategy is abort",
            Self::TipMoved => "something changed here while the sync ran and the strategy is abort",
            Self::Incomplete => "the other node did not have everything that its records refer to",
            Self::BadRecord => "the other node sent a record that does not pass verification",
            Self::IdentityForked => "the identity of the other node is forked and frozen",
            Self::Revoked => "the right to this space was taken back",
            Self::NotAllowed => "no right to do this in this space, or no such space",
            Self::Disk => "the disk failed or is full",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the text; a code that this version does not know counts as `protocol`.
    pub fn parse(text: &str) -> Self {
        Self::ALL.into_iter().find(|code| code.as_str() == text).unwrap_or(Self::Protocol)
    }
}

impl std::fmt::Display for AbortCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A driver refuses: what to abort with, and a text for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct Refused {
    /// The code.
    pub code: AbortCode,
    /// Why.
    pub text: String,
}

impl Refused {
    /// With code `auth`.
    pub fn auth(text: impl Into<String>) -> Self {
        Self { code: AbortCode::Auth, text: text.into() }
    }
}

/// Bytes that are no message of `sts/1`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad sync message: {text}")]
pub struct MessageError {
    /// What a saga that got it aborts with: `protocol`, or `limit` when a size or count is over its bound.
    pub code: AbortCode,
    /// Which rule.
    pub text: &'static str,
}

impl MessageError {
    pub(crate) const fn bad(text: &'static str) -> Self {
        Self { code: AbortCode::Protocol, text }
    }

    pub(crate) const fn limit(text: &'static str) -> Self {
        Self { code: AbortCode::Limit, text }
    }
}

/// What one side has staged of a saga that was cut. Spec: ibgib §13.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// How many records.
    pub count: u64,
    /// SHA-256 over their sids in ascending order.
    pub root: [u8; 32],
}

/// OPEN. Spec: ibgib §13.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Which saga.
    pub saga: SagaId,
    /// Which space.
    pub space: SpaceId,
    /// Which records.
    pub scope: Scope,
    /// Which way.
    pub direction: Direction,
    /// What becomes of divergence.
    pub strategy: Strategy,
    /// The opener's facts.
    pub facts: Facts,
    /// [`Open::FRESH`]; unknown bits are ignored.
    pub flags: u64,
    /// What the opener has staged.
    pub resume: Option<Resume>,
    /// The newest `members` frame that the opener holds.
    pub members: Option<Address>,
    /// The frame of the opener's session keystone that signs this. Spec: ibgib §12.4
    pub sig: Option<Verified>,
}

impl Open {
    /// The answerer is asked to take in what changed outside its store before it answers, so that both really are in
    /// step afterwards.
    pub const FRESH: u64 = 1;
}

/// OPEN_ACK. Spec: ibgib §13.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenAck {
    /// Which saga.
    pub saga: SagaId,
    /// Which space.
    pub space: SpaceId,
    /// The answerer's facts.
    pub facts: Facts,
    /// How the difference is found.
    pub mode: Mode,
    /// Reserved; unknown bits are ignored.
    pub flags: u64,
    /// What the answerer has staged.
    pub resume: Option<Resume>,
    /// The newest `members` frame that the answerer holds.
    pub members: Option<Address>,
    /// The frame of the answerer's session keystone that signs this.
    pub sig: Option<Verified>,
}

/// What a WANT asks for. Spec: ibgib §13.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Kind 1, ≤ 4 096.
    Sids(Vec<Sid>),
    /// Kind 2, ≤ 1 024: every shape.
    Addresses(Vec<Address>),
    /// Kind 3, ≤ 256, together ≤ 1 024 values of n: all frames of a timeline with from ≤ n ≤ to.
    Ranges(Vec<(TimelineId, u64, u64)>),
    /// Kind 4, ≤ 4 096: ids of level 0.
    Tips(Vec<[u8; 32]>),
    /// Kind 5: everything after the last (order key, id).
    Bulk(Option<(u64, Sid)>),
    /// Kind 6, ≤ 1 024: chunks from an offset.
    Chunks(Vec<(ChunkHash, u32)>),
}

/// A tip as TIPLIST names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTip {
    /// Level-0 id.
    pub id: [u8; 32],
    /// First frame.
    pub tjp: Address,
    /// The tip.
    pub tip: Address,
    /// Its strong id.
    pub sid: Sid,
    /// Its counter.
    pub n: u64,
}

/// One move in TIPS. All zeros stand for "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TipMove {
    /// The timeline.
    pub timeline: TimelineId,
    /// The sid that is no tip any more, or zeros.
    pub old: [u8; 32],
    /// The sid that is a tip now, or zeros.
    pub new: [u8; 32],
}

/// STAGED. Spec: ibgib §13.2, changed as `spec/sync.md` says: `after` may be null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Records received.
    pub count: u64,
    /// SHA-256 over their sids in ascending order.
    pub root: [u8; 32],
    /// Entries of all TIPS frames before it.
    pub move_count: u64,
    /// SHA-256 over them, 96 bytes each.
    pub move_hash: [u8; 32],
    /// The facts after the commit; `None` when the sender's space changed while the saga ran, so that it cannot vouch.
    pub after: Option<Facts>,
}

/// COMMIT, and the first six members of COMMIT_ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Which saga.
    pub saga: SagaId,
    /// SHA-256 of the OPEN body.
    pub open: [u8; 32],
    /// SHA-256 of the OPEN_ACK body.
    pub open_ack: [u8; 32],
    /// Which way.
    pub direction: Direction,
    /// SHA-256 of the opener's STAGED body.
    pub staged_opener: [u8; 32],
    /// SHA-256 of the answerer's STAGED body.
    pub staged_answerer: [u8; 32],
}

/// What HELLO says of keystones. Spec: ibgib §13.2
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HelloIdentity {
    /// First frame of the sender's device keystone.
    pub keystone: Option<Address>,
    /// First frame of its owner's.
    pub owner: Option<Address>,
    /// The newest frame that the sender holds of the device keystone last seen with the receiver's node id, and its n.
    pub known: Option<(Address, u64)>,
}

/// One message of `sts/1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// 01.
    Hello {
        /// Versions of the protocol.
        versions: Vec<u64>,
        /// Feature bits.
        features: u64,
        /// Sagas the sender allows at once.
        max_sagas: u32,
        /// Who the sender is; nothing without keystones.
        identity: HelloIdentity,
    },
    /// 02.
    Challenge([u8; 32]),
    /// 03: frames of the sender's session keystone, the connect frame last (≤ 256).
    Proof(Vec<Verified>),
    /// 04.
    Accept,
    /// 06.
    AskKeystone {
        /// First frame of the keystone asked for.
        first: Address,
        /// Only frames with a greater n.
        after: Option<u64>,
    },
    /// 07.
    Keystone {
        /// First frame of the keystone.
        first: Address,
        /// Frames in order of n, voided branches after the valid one (≤ 256).
        frames: Vec<Verified>,
        /// Whether the answer ends here.
        last: bool,
    },
    /// 05.
    Spaces {
        /// Offers.
        list: Vec<SpaceOffer>,
        /// Whether the list ends here.
        last: bool,
    },
    /// 23.
    Status {
        /// Sagas asked about.
        ask: Vec<SagaId>,
        /// What became of them.
        answer: Vec<(SagaId, SagaState)>,
    },
    /// 31.
    Bye,
    /// 10.
    Open(Open),
    /// 11.
    OpenAck(OpenAck),
    /// 12.
    Recon {
        /// 0 tips, 1 items.
        level: u64,
        /// Number of the run.
        run: u64,
        /// Whether ids are salted.
        salted: bool,
        /// The negentropy message.
        payload: Bytes,
    },
    /// 13.
    Want {
        /// Grows by one with each WANT of a side, from 1.
        number: u64,
        /// What.
        want: Want,
    },
    /// 14.
    Batch {
        /// Grows by one with each BATCH of a side, from 1.
        number: u64,
        /// The WANT it answers.
        want: u64,
        /// Whether the payload is packed.
        zstd: bool,
        /// Bytes of the payload, unpacked.
        size: u64,
        /// CBOR list of encoded records.
        payload: Bytes,
        /// Whether the WANT is answered.
        end: bool,
    },
    /// 15.
    Chunks {
        /// The WANT it answers.
        want: u64,
        /// Which chunk.
        hash: ChunkHash,
        /// Where the piece stands in it.
        offset: u32,
        /// The piece; empty with `end` at offset 0: not there.
        bytes: Bytes,
        /// Whether the chunk ends here.
        end: bool,
    },
    /// 17.
    Stored {
        /// Highest batch that is durable.
        batch: u64,
    },
    /// 18.
    Progress([u64; 4]),
    /// 19.
    Tips(Vec<TipMove>),
    /// 1A.
    TipList {
        /// The WANT, 0 for the tips that only the opener has.
        want: u64,
        /// Tips.
        tips: Vec<ListedTip>,
        /// Whether the list ends here.
        last: bool,
    },
    /// 1B, from the opener after each run of level 1; ids ascend over all DIFFs of a run.
    Diff {
        /// Number of the run.
        run: u64,
        /// Ids that only the opener has.
        only_opener: Vec<[u8; 32]>,
        /// Ids that only the answerer has; both lists together ≤ 16 384.
        only_answerer: Vec<[u8; 32]>,
        /// Whether the lists end here.
        last: bool,
    },
    /// 20.
    Staged(Staged),
    /// 21, with the frame that signs it.
    Commit(Commit, Option<Verified>),
    /// 22, with the frame that signs it.
    CommitAck(Commit, Option<Verified>),
    /// 30.
    Abort {
        /// Why.
        code: AbortCode,
        /// For people, ≤ 1 KiB.
        text: String,
        /// Wait this long.
        retry_after_ms: u64,
    },
    /// A type from 0x80: ignored.
    Unknown(u8),
}

/// Bytes of the text of an ABORT.
pub(crate) const ABORT_TEXT_BYTES_MAX: usize = 1024;
/// Bytes of the name and of the kind of a space on offer.
pub(crate) const SPACE_NAME_BYTES_MAX: usize = 64;
/// Bytes of an address: ib ≤ 4 096, `^`, four segments of 64 and three points.
pub(crate) const ADDRESS_BYTES_MAX: usize = 4096 + 1 + 4 * 64 + 3;
/// Entries of one TIPS.
pub(crate) const TIPS_MAX: usize = 4096;
/// Entries of one TIPLIST.
pub(crate) const TIP_LIST_MAX: usize = 1024;
/// Ids in both lists of one DIFF.
pub(crate) const DIFF_IDS_MAX: usize = 16_384;
/// Entries of one SPACES.
pub(crate) const SPACES_MAX: usize = 256;
/// Entries of each list of STATUS.
pub(crate) const STATUS_MAX: usize = 1024;
/// Ids in one WANT of kind 1 and 4.
pub(crate) const WANT_IDS_MAX: usize = 4096;
/// Addresses or chunks in one WANT.
pub(crate) const WANT_NAMES_MAX: usize = 1024;
/// Ranges in one WANT.
pub(crate) const WANT_RANGES_MAX: usize = 256;
/// Values of n in all ranges of one WANT.
pub(crate) const WANT_FRAMES_MAX: u64 = 1024;
/// Roots of a scope.
pub(crate) const ROOTS_MAX: usize = 1024;
/// Frames of one PROOF or KEYSTONE.
pub(crate) const KEYSTONE_FRAMES_MAX: usize = 256;
/// Relations that a scope skips.
pub(crate) const SKIPPED_MAX: usize = 64;
/// Bytes of the name of a relation that a scope skips.
pub(crate) const RELATION_NAME_BYTES_MAX: usize = 1024;

impl Message {
    /// The bytes on the channel.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer(vec![self.type_byte()]);
        self.write_body(&mut out);
        debug_assert!(out.0.len() <= MESSAGE_BYTES_MAX, "every maker of messages keeps to the limits");
        out.0.into()
    }

    /// The first byte.
    pub fn type_byte(&self) -> u8 {
        match self {
            Self::Hello { .. } => 0x01,
            Self::Challenge(_) => 0x02,
            Self::Proof(_) => 0x03,
            Self::Accept => 0x04,
            Self::Spaces { .. } => 0x05,
            Self::AskKeystone { .. } => 0x06,
            Self::Keystone { .. } => 0x07,
            Self::Open(_) => 0x10,
            Self::OpenAck(_) => 0x11,
            Self::Recon { .. } => 0x12,
            Self::Want { .. } => 0x13,
            Self::Batch { .. } => 0x14,
            Self::Chunks { .. } => 0x15,
            Self::Stored { .. } => 0x17,
            Self::Progress(_) => 0x18,
            Self::Tips(_) => 0x19,
            Self::TipList { .. } => 0x1a,
            Self::Diff { .. } => 0x1b,
            Self::Staged(_) => 0x20,
            Self::Commit(..) => 0x21,
            Self::CommitAck(..) => 0x22,
            Self::Status { .. } => 0x23,
            Self::Abort { .. } => 0x30,
            Self::Bye => 0x31,
            Self::Unknown(byte) => *byte,
        }
    }

    fn write_body(&self, out: &mut Writer) {
        match self {
            Self::Hello { versions, features, max_sagas, identity } => {
                out.array(6).array(versions.len());
                versions.iter().for_each(|version| _ = out.uint(*version));
                out.uint(*features).uint(u64::from(*max_sagas));
                write_identity(out, identity);
            }
            Self::Challenge(bytes) => _ = out.array(1).bytes(bytes),
            Self::Proof(frames) => write_frames(out.array(1), frames),
            Self::Accept | Self::Bye => _ = out.array(0),
            Self::AskKeystone { first, after } => {
                out.array(2).text(first.as_str());
                match after {
                    Some(n) => out.uint(*n),
                    None => out.null(),
                };
            }
            Self::Keystone { first, frames, last } => {
                write_frames(out.array(3).text(first.as_str()), frames);
                out.bool(*last);
            }
            Self::Spaces { list, last } => {
                out.array(2).array(list.len());
                list.iter().for_each(|offer| write_offer(out, offer));
                out.bool(*last);
            }
            Self::Status { ask, answer } => {
                out.array(2).array(ask.len());
                ask.iter().for_each(|saga| _ = out.bytes(&saga.0));
                out.array(answer.len());
                answer.iter().for_each(|(saga, state)| _ = out.array(2).bytes(&saga.0).uint(*state as u64));
            }
            Self::Open(open) => write_open(out, open),
            Self::OpenAck(ack) => {
                out.array(8).bytes(&ack.saga.0).bytes(ack.space.as_bytes());
                write_facts(out, &ack.facts);
                out.uint(ack.mode as u64).uint(ack.flags);
                write_resume(out, ack.resume);
                write_address(out, ack.members.as_ref());
                write_sig(out, ack.sig.as_ref());
            }
            Self::Recon { level, run, salted, payload } => {
                out.array(4).uint(*level).uint(*run).bool(*salted).bytes(payload);
            }
            Self::Want { number, want } => {
                out.array(3).uint(*number);
                write_want(out, want);
            }
            Self::Batch { number, want, zstd, size, payload, end } => {
                out.array(6).uint(*number).uint(*want).uint(u64::from(*zstd)).uint(*size).bytes(payload).bool(*end);
            }
            Self::Chunks { want, hash, offset, bytes, end } => {
                out.array(5).uint(*want).bytes(&hash.0).uint(u64::from(*offset)).bytes(bytes).bool(*end);
            }
            Self::Stored { batch } => _ = out.array(1).uint(*batch),
            Self::Progress(numbers) => {
                out.array(4);
                numbers.iter().for_each(|number| _ = out.uint(*number));
            }
            Self::Tips(moves) => {
                out.array(1).array(moves.len());
                for entry in moves {
                    out.array(3).bytes(entry.timeline.as_bytes()).bytes(&entry.old).bytes(&entry.new);
                }
            }
            Self::TipList { want, tips, last } => {
                out.array(3).uint(*want).array(tips.len());
                for tip in tips {
                    out.array(5).bytes(&tip.id).text(tip.tjp.as_str()).text(tip.tip.as_str());
                    out.bytes(tip.sid.as_bytes()).uint(tip.n);
                }
                out.bool(*last);
            }
            Self::Diff { run, only_opener, only_answerer, last } => {
                out.array(4).uint(*run);
                for ids in [only_opener, only_answerer] {
                    out.array(ids.len());
                    ids.iter().for_each(|id| _ = out.bytes(id));
                }
                out.bool(*last);
            }
            Self::Staged(staged) => {
                out.array(5).uint(staged.count).bytes(&staged.root).uint(staged.move_count).bytes(&staged.move_hash);
                match &staged.after {
                    Some(facts) => write_facts(out, facts),
                    None => _ = out.null(),
                }
            }
            Self::Commit(commit, sig) => {
                write_commit(out.array(7), commit);
                write_sig(out, sig.as_ref());
            }
            Self::CommitAck(commit, sig) => {
                write_commit(out.array(8), commit);
                write_sig(out.uint(0), sig.as_ref());
            }
            Self::Abort { code, text, retry_after_ms } => {
                out.array(3).text(code.as_str()).text(cut_text(text, ABORT_TEXT_BYTES_MAX)).uint(*retry_after_ms);
            }
            Self::Unknown(_) => _ = out.array(0),
        }
    }
}

/// At most `bytes_max` bytes of a text, cut between characters.
pub(crate) fn cut_text(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

fn write_facts(out: &mut Writer, facts: &Facts) {
    out.array(6).uint(facts.tip_count).bytes(&facts.tip_fingerprint).bytes(&facts.tip_digest);
    out.uint(facts.item_count).bytes(&facts.item_fingerprint).bytes(&facts.item_digest);
}

fn write_identity(out: &mut Writer, identity: &HelloIdentity) {
    write_address(out, identity.keystone.as_ref());
    write_address(out, identity.owner.as_ref());
    match &identity.known {
        Some((address, n)) => out.array(2).text(address.as_str()).uint(*n),
        None => out.null(),
    };
}

fn write_frames(out: &mut Writer, frames: &[Verified]) {
    out.array(frames.len());
    frames.iter().for_each(|frame| _ = out.bytes(frame.encoded()));
}

fn write_address(out: &mut Writer, address: Option<&Address>) {
    match address {
        Some(address) => out.text(address.as_str()),
        None => out.null(),
    };
}

fn write_sig(out: &mut Writer, sig: Option<&Verified>) {
    match sig {
        Some(frame) => out.bytes(frame.encoded()),
        None => out.null(),
    };
}

fn write_resume(out: &mut Writer, resume: Option<Resume>) {
    match resume {
        Some(resume) => out.array(2).uint(resume.count).bytes(&resume.root),
        None => out.null(),
    };
}

fn write_open(out: &mut Writer, open: &Open) {
    out.array(10).bytes(&open.saga.0).bytes(open.space.as_bytes());
    match &open.scope {
        Scope::All => _ = out.array(1).text("all"),
        Scope::Roots { roots, live, skipped } => {
            out.array(4).text("roots").array(roots.len());
            roots.iter().for_each(|root| _ = out.text(root.as_str()));
            out.bool(*live).array(skipped.len());
            skipped.iter().for_each(|name| _ = out.text(name));
        }
    }
    let direction = match open.direction {
        Direction::Push => 1,
        Direction::Pull => 2,
        Direction::Both => 3,
    };
    out.uint(direction).uint(open.strategy as u64);
    write_facts(out, &open.facts);
    out.uint(open.flags);
    write_resume(out, open.resume);
    write_address(out, open.members.as_ref());
    write_sig(out, open.sig.as_ref());
}

fn write_want(out: &mut Writer, want: &Want) {
    match want {
        Want::Sids(sids) => {
            out.uint(1).array(sids.len());
            sids.iter().for_each(|sid| _ = out.bytes(sid.as_bytes()));
        }
        Want::Addresses(addresses) => {
            out.uint(2).array(addresses.len());
            addresses.iter().for_each(|address| _ = out.text(address.as_str()));
        }
        Want::Ranges(ranges) => {
            out.uint(3).array(ranges.len());
            for (timeline, from, to) in ranges {
                out.array(3).bytes(timeline.as_bytes()).uint(*from).uint(*to);
            }
        }
        Want::Tips(ids) => {
            out.uint(4).array(ids.len());
            ids.iter().for_each(|id| _ = out.bytes(id));
        }
        Want::Bulk(after) => {
            out.uint(5).array(1);
            match after {
                Some((order, sid)) => out.array(2).uint(*order).bytes(sid.as_bytes()),
                None => out.null(),
            };
        }
        Want::Chunks(chunks) => {
            out.uint(6).array(chunks.len());
            chunks.iter().for_each(|(hash, offset)| _ = out.array(2).bytes(&hash.0).uint(u64::from(*offset)));
        }
    }
}

fn write_commit(out: &mut Writer, commit: &Commit) {
    let direction = match commit.direction {
        Direction::Push => 1,
        Direction::Pull => 2,
        Direction::Both => 3,
    };
    out.bytes(&commit.saga.0).bytes(&commit.open).bytes(&commit.open_ack).uint(direction);
    out.bytes(&commit.staged_opener).bytes(&commit.staged_answerer);
}

fn write_offer(out: &mut Writer, offer: &SpaceOffer) {
    let role = match offer.role {
        Role::Read => 1,
        Role::Write => 2,
        Role::Admin => 3,
    };
    out.array(7).bytes(offer.space.as_bytes()).text(cut_text(&offer.name, SPACE_NAME_BYTES_MAX));
    out.text(cut_text(&offer.kind, SPACE_NAME_BYTES_MAX)).uint(role).bool(offer.invited).uint(offer.tip_count);
    out.bytes(&offer.tip_fingerprint);
}
