//! Strict decoding of messages. Spec: ibgib §13.2.

use bytes::Bytes;
use sealtide_ibgib::{Address, CHUNK_BYTES_MAX, ChunkHash, RECORD_BYTES_MAX, Sid, TimelineId, Verified};
use sealtide_identity::{Role, SpaceId};

use super::*;
use crate::cbor::Reader;

/// What a reader gives.
type Read<T> = Result<T, MessageError>;

/// Versions in one HELLO.
const VERSIONS_MAX: usize = 16;

impl Message {
    /// Reads one message.
    ///
    /// # Errors
    /// [`MessageError`] with the first rule that is broken. Spec: ibgib §13.2, SY-53
    pub fn decode(bytes: &Bytes) -> Result<Self, MessageError> {
        // Spec: SY-45
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(MessageError::limit("a message over 1 MiB"));
        }
        let (&kind, body) = bytes.split_first().ok_or(MessageError::bad("an empty message"))?;
        // Spec: SY-75
        if kind >= 0x80 {
            return Ok(Self::Unknown(kind));
        }
        let mut body = Reader::new(body);
        let message = read_body(kind, &mut body, bytes)?;
        body.end()?;
        Ok(message)
    }
}

fn read_body(kind: u8, body: &mut Reader<'_>, whole: &Bytes) -> Read<Message> {
    Ok(match kind {
        0x01 => read_hello(body)?,
        0x02 => {
            body.tuple(1)?;
            Message::Challenge(body.fixed()?)
        }
        0x03 => {
            body.tuple(1)?;
            Message::Proof(read_list(body, KEYSTONE_FRAMES_MAX, |body| read_record(body, whole))?)
        }
        0x04 => {
            body.tuple(0)?;
            Message::Accept
        }
        0x05 => {
            body.tuple(2)?;
            Message::Spaces { list: read_list(body, SPACES_MAX, read_offer)?, last: body.bool()? }
        }
        0x06 => {
            body.tuple(2)?;
            let first = read_address(body)?;
            Message::AskKeystone { first, after: if body.null() { None } else { Some(body.uint()?) } }
        }
        0x07 => {
            body.tuple(3)?;
            let first = read_address(body)?;
            let frames = read_list(body, KEYSTONE_FRAMES_MAX, |body| read_record(body, whole))?;
            Message::Keystone { first, frames, last: body.bool()? }
        }
        0x10 => Message::Open(read_open(body, whole)?),
        0x11 => Message::OpenAck(read_open_ack(body, whole)?),
        0x12 => {
            body.tuple(4)?;
            let (level, run, salted) = (body.uint()?, body.uint()?, body.bool()?);
            Message::Recon { level, run, salted, payload: whole.slice_ref(body.bytes()?) }
        }
        0x13 => {
            body.tuple(3)?;
            Message::Want { number: body.uint()?, want: read_want(body)? }
        }
        0x14 => read_batch(body, whole)?,
        0x15 => read_chunks(body, whole)?,
        0x17 => {
            body.tuple(1)?;
            Message::Stored { batch: body.uint()? }
        }
        0x18 => {
            body.tuple(4)?;
            Message::Progress([body.uint()?, body.uint()?, body.uint()?, body.uint()?])
        }
        0x19 => {
            body.tuple(1)?;
            Message::Tips(read_list(body, TIPS_MAX, read_move)?)
        }
        0x1a => {
            body.tuple(3)?;
            let want = body.uint()?;
            Message::TipList { want, tips: read_list(body, TIP_LIST_MAX, read_listed_tip)?, last: body.bool()? }
        }
        0x1b => return Err(MessageError::bad("recon not offered")),
        0x20 => read_staged(body)?,
        0x21 => {
            body.tuple(7)?;
            Message::Commit(read_commit(body)?, read_sig(body, whole)?)
        }
        0x22 => {
            body.tuple(8)?;
            let commit = read_commit(body)?;
            if body.uint()? != 0 {
                return Err(MessageError::bad("an unknown result"));
            }
            Message::CommitAck(commit, read_sig(body, whole)?)
        }
        0x23 => {
            body.tuple(2)?;
            let ask = read_list(body, STATUS_MAX, |body| body.fixed().map(SagaId))?;
            Message::Status { ask, answer: read_list(body, STATUS_MAX, read_state)? }
        }
        0x30 => {
            body.tuple(3)?;
            let (code, text) = (body.text(64)?, body.text(ABORT_TEXT_BYTES_MAX)?);
            Message::Abort { code: AbortCode::parse(code), text: text.to_owned(), retry_after_ms: body.uint()? }
        }
        0x31 => {
            body.tuple(0)?;
            Message::Bye
        }
        _ => return Err(MessageError::bad("an unknown type")),
    })
}

fn read_list<'a, T>(body: &mut Reader<'a>, limit: usize, one: impl Fn(&mut Reader<'a>) -> Read<T>) -> Read<Vec<T>> {
    let count = body.list(limit)?;
    let mut list = Vec::with_capacity(count);
    for _ in 0..count {
        list.push(one(body)?);
    }
    Ok(list)
}

fn read_hello(body: &mut Reader<'_>) -> Read<Message> {
    body.tuple(6)?;
    let versions = read_list(body, VERSIONS_MAX, Reader::uint)?;
    let features = body.uint()?;
    let max_sagas = u32::try_from(body.uint()?).map_err(|_| MessageError::limit("max_sagas is too large"))?;
    let keystone = read_optional_address(body)?;
    let owner = read_optional_address(body)?;
    let known = if body.null() {
        None
    } else {
        body.tuple(2)?;
        Some((read_address(body)?, body.uint()?))
    };
    let identity = HelloIdentity { keystone, owner, known };
    if identity != HelloIdentity::default() && features & 1 == 0 {
        return Err(MessageError::bad("keystones without their feature"));
    }
    Ok(Message::Hello { versions, features, max_sagas, identity })
}

fn read_offer(body: &mut Reader<'_>) -> Read<SpaceOffer> {
    body.tuple(7)?;
    Ok(SpaceOffer {
        space: SpaceId::from_bytes(body.fixed()?),
        name: body.text(SPACE_NAME_BYTES_MAX)?.to_owned(),
        kind: body.text(SPACE_NAME_BYTES_MAX)?.to_owned(),
        role: match body.uint()? {
            1 => Role::Read,
            2 => Role::Write,
            3 => Role::Admin,
            _ => return Err(MessageError::bad("an unknown role")),
        },
        invited: body.bool()?,
        tip_count: body.uint()?,
        tip_fingerprint: body.fixed()?,
    })
}

fn read_state(body: &mut Reader<'_>) -> Read<(SagaId, SagaState)> {
    body.tuple(2)?;
    let saga = SagaId(body.fixed()?);
    let state = match body.uint()? {
        0 => SagaState::Unknown,
        1 => SagaState::Open,
        2 => SagaState::Staged,
        3 => SagaState::Committed,
        4 => SagaState::Aborted,
        _ => return Err(MessageError::bad("an unknown state")),
    };
    Ok((saga, state))
}

fn read_facts(body: &mut Reader<'_>) -> Read<Facts> {
    body.tuple(6)?;
    Ok(Facts {
        tip_count: body.uint()?,
        tip_fingerprint: body.fixed()?,
        tip_digest: body.fixed()?,
        item_count: body.uint()?,
        item_fingerprint: body.fixed()?,
        item_digest: body.fixed()?,
    })
}

fn read_resume(body: &mut Reader<'_>) -> Read<Option<Resume>> {
    if body.null() {
        return Ok(None);
    }
    body.tuple(2)?;
    Ok(Some(Resume { count: body.uint()?, root: body.fixed()? }))
}

fn read_direction(body: &mut Reader<'_>) -> Read<Direction> {
    match body.uint()? {
        1 => Ok(Direction::Push),
        2 => Ok(Direction::Pull),
        3 => Ok(Direction::Both),
        _ => Err(MessageError::bad("an unknown direction")),
    }
}

fn read_scope(body: &mut Reader<'_>) -> Read<Scope> {
    let members = body.list(4)?;
    match (members, body.text(8)?) {
        (1, "all") => Ok(Scope::All),
        (4, "roots") => Ok(Scope::Roots {
            roots: read_list(body, ROOTS_MAX, read_address)?,
            live: body.bool()?,
            skipped: read_list(body, SKIPPED_MAX, |body| body.text(RELATION_NAME_BYTES_MAX).map(str::to_owned))?,
        }),
        _ => Err(MessageError::bad("an unknown scope")),
    }
}

fn read_optional_address(body: &mut Reader<'_>) -> Read<Option<Address>> {
    if body.null() { Ok(None) } else { read_address(body).map(Some) }
}

/// An encoded record that passes strict acceptance. Spec: ibgib §12.2.2
fn read_record(body: &mut Reader<'_>, whole: &Bytes) -> Read<Verified> {
    let bytes = body.bytes()?;
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(MessageError::limit("a record over 768 KiB"));
    }
    let refused = MessageError { code: AbortCode::BadRecord, text: "a frame of a keystone that acceptance refuses" };
    Verified::accept(whole.slice_ref(bytes)).map_err(|_| refused)
}

fn read_sig(body: &mut Reader<'_>, whole: &Bytes) -> Read<Option<Verified>> {
    if body.null() { Ok(None) } else { read_record(body, whole).map(Some) }
}

fn read_open(body: &mut Reader<'_>, whole: &Bytes) -> Read<Open> {
    body.tuple(10)?;
    let open = Open {
        saga: SagaId(body.fixed()?),
        space: SpaceId::from_bytes(body.fixed()?),
        scope: read_scope(body)?,
        direction: read_direction(body)?,
        strategy: match body.uint()? {
            0 => Strategy::Abort,
            1 => Strategy::Optimistic,
            2 => Strategy::Ours,
            3 => Strategy::Theirs,
            _ => return Err(MessageError::bad("an unknown strategy")),
        },
        facts: read_facts(body)?,
        flags: body.uint()?,
        resume: read_resume(body)?,
        members: read_optional_address(body)?,
        sig: read_sig(body, whole)?,
    };
    Ok(open)
}

fn read_open_ack(body: &mut Reader<'_>, whole: &Bytes) -> Read<OpenAck> {
    body.tuple(8)?;
    let ack = OpenAck {
        saga: SagaId(body.fixed()?),
        space: SpaceId::from_bytes(body.fixed()?),
        facts: read_facts(body)?,
        mode: match body.uint()? {
            0 => Mode::Equal,
            1 => Mode::Walk,
            2 => Mode::Recon,
            3 => Mode::Bulk,
            _ => return Err(MessageError::bad("an unknown mode")),
        },
        flags: body.uint()?,
        resume: read_resume(body)?,
        members: read_optional_address(body)?,
        sig: read_sig(body, whole)?,
    };
    Ok(ack)
}

fn read_address(body: &mut Reader<'_>) -> Read<Address> {
    Address::parse(body.text(ADDRESS_BYTES_MAX)?).map_err(|_| MessageError::bad("not an address"))
}

fn read_want(body: &mut Reader<'_>) -> Read<Want> {
    Ok(match body.uint()? {
        1 => Want::Sids(read_list(body, WANT_IDS_MAX, |body| body.fixed().map(Sid))?),
        2 => Want::Addresses(read_list(body, WANT_NAMES_MAX, read_address)?),
        3 => {
            let ranges = read_list(body, WANT_RANGES_MAX, |body| {
                body.tuple(3)?;
                Ok((TimelineId(body.fixed()?), body.uint()?, body.uint()?))
            })?;
            check_ranges(&ranges)?;
            Want::Ranges(ranges)
        }
        4 => Want::Tips(read_list(body, WANT_IDS_MAX, Reader::fixed)?),
        5 => {
            body.tuple(1)?;
            if body.null() {
                Want::Bulk(None)
            } else {
                body.tuple(2)?;
                Want::Bulk(Some((body.uint()?, Sid(body.fixed()?))))
            }
        }
        6 => Want::Chunks(read_list(body, WANT_NAMES_MAX, |body| {
            body.tuple(2)?;
            Ok((ChunkHash(body.fixed()?), read_offset(body)?))
        })?),
        _ => return Err(MessageError::bad("an unknown kind of WANT")),
    })
}

fn check_ranges(ranges: &[(TimelineId, u64, u64)]) -> Read<()> {
    let mut values = 0u64;
    for (_, from, to) in ranges {
        let more = to.checked_sub(*from).ok_or(MessageError::bad("a range that ends before it begins"))?;
        values = values.saturating_add(more).saturating_add(1);
    }
    if values > WANT_FRAMES_MAX { Err(MessageError::limit("too many values of n in a WANT")) } else { Ok(()) }
}

fn read_offset(body: &mut Reader<'_>) -> Read<u32> {
    let offset = body.uint()?;
    if offset > u64::from(CHUNK_BYTES_MAX) {
        return Err(MessageError::limit("an offset past the largest chunk"));
    }
    Ok(offset as u32)
}

fn read_batch(body: &mut Reader<'_>, whole: &Bytes) -> Read<Message> {
    body.tuple(6)?;
    let (number, want) = (body.uint()?, body.uint()?);
    let zstd = match body.uint()? {
        0 => false,
        1 => true,
        _ => return Err(MessageError::bad("an unknown encoding")),
    };
    let size = body.uint()?;
    let payload = whole.slice_ref(body.bytes()?);
    let end = body.bool()?;
    if size > BATCH_BYTES_MAX as u64 {
        return Err(MessageError::limit("a BATCH over 1 MiB unpacked"));
    }
    if !zstd && size != payload.len() as u64 {
        return Err(MessageError::bad("a BATCH of another size than it says"));
    }
    Ok(Message::Batch { number, want, zstd, size, payload, end })
}

fn read_chunks(body: &mut Reader<'_>, whole: &Bytes) -> Read<Message> {
    body.tuple(5)?;
    let (want, hash, offset) = (body.uint()?, ChunkHash(body.fixed()?), read_offset(body)?);
    let bytes = whole.slice_ref(body.bytes()?);
    let end = body.bool()?;
    if bytes.len() > CHUNK_PIECE_BYTES_MAX {
        return Err(MessageError::limit("a piece of a chunk over 256 KiB"));
    }
    if bytes.is_empty() && !end {
        return Err(MessageError::bad("an empty piece of a chunk"));
    }
    Ok(Message::Chunks { want, hash, offset, bytes, end })
}

fn read_move(body: &mut Reader<'_>) -> Read<TipMove> {
    body.tuple(3)?;
    Ok(TipMove { timeline: TimelineId(body.fixed()?), old: body.fixed()?, new: body.fixed()? })
}

fn read_listed_tip(body: &mut Reader<'_>) -> Read<ListedTip> {
    body.tuple(5)?;
    Ok(ListedTip {
        id: body.fixed()?,
        tjp: read_address(body)?,
        tip: read_address(body)?,
        sid: Sid(body.fixed()?),
        n: body.uint()?,
    })
}

fn read_staged(body: &mut Reader<'_>) -> Read<Message> {
    body.tuple(5)?;
    Ok(Message::Staged(Staged {
        count: body.uint()?,
        root: body.fixed()?,
        move_count: body.uint()?,
        move_hash: body.fixed()?,
        after: if body.null() { None } else { Some(read_facts(body)?) },
    }))
}

fn read_commit(body: &mut Reader<'_>) -> Read<Commit> {
    Ok(Commit {
        saga: SagaId(body.fixed()?),
        open: body.fixed()?,
        open_ack: body.fixed()?,
        direction: read_direction(body)?,
        staged_opener: body.fixed()?,
        staged_answerer: body.fixed()?,
    })
}
