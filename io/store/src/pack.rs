//! Packs: append-only files of entries. Spec: store, "Packs".

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sealtide_crypto::blake3;

use crate::compress::ChunkForm;
use crate::disk::{Disk, DiskFile};
use crate::entry::{
    CHUNK_LINE_BYTES, Cut, Entry, HEAD_BYTES, Head, KIND_COMMIT, KIND_ERASE, KIND_FREE, KIND_MARK, KIND_RECORD, MAGIC,
    PackKey, RecordLine,
};
use crate::error::{Damage, OpenError};
use crate::table::Stored;

/// All packs by number.
pub(crate) type Packs = BTreeMap<u32, Arc<Pack>>;

/// The folder of the packs.
pub(crate) const FOLDER: &str = "packs";
/// Bytes in front of the first entry.
pub(crate) const PACK_HEAD_BYTES: u64 = 64;
const PACK_MAGIC: &[u8; 16] = b"sealtide pack 1\n";
/// Bytes that a scan reads at once.
const WINDOW_BYTES: usize = 1024 * 1024;

/// One pack, open for reading by everybody.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) number: u32,
    pub(crate) key: PackKey,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Whether something that should be in it could not be read, and was left out of an answer.
    pub(crate) left_out: AtomicBool,
}

/// The name of pack `number`.
pub(crate) fn pack_name(number: u32) -> String {
    format!("{FOLDER}/{number:08}.pack")
}

impl Pack {
    /// Makes pack `number`: head written, name and head durable.
    pub(crate) fn create(disk: &dyn Disk, number: u32) -> io::Result<Self> {
        let key = PackKey(disk.random()?);
        let file = disk.create(&pack_name(number))?;
        file.append(&Self::head(number, &key))?;
        file.sync()?;
        disk.sync_folder(FOLDER)?;
        Ok(Self::of(number, key, file))
    }

    fn of(number: u32, key: PackKey, file: Arc<dyn DiskFile>) -> Self {
        Self { number, key, file, left_out: AtomicBool::new(false) }
    }

    fn head(number: u32, key: &PackKey) -> Vec<u8> {
        let mut head = PACK_MAGIC.to_vec();
        head.extend_from_slice(&u64::from(number).to_le_bytes());
        head.extend_from_slice(&key.0);
        let check = blake3(&head);
        head.extend_from_slice(&check[..8]);
        head
    }

    /// Opens pack `number`; `Ok(None)` when its head is not whole, which a crash while making it can leave.
    pub(crate) fn open(disk: &dyn Disk, number: u32) -> io::Result<Option<Self>> {
        let file = disk.open(&pack_name(number))?;
        let mut head = [0; PACK_HEAD_BYTES as usize];
        if file.len()? < PACK_HEAD_BYTES {
            return Ok(None);
        }
        file.read_at(0, &mut head)?;
        let mut key = [0; 32];
        key.copy_from_slice(&head[24..56]);
        let key = PackKey(key);
        Ok((head[..] == Self::head(number, &key)).then(|| Self::of(number, key, file)))
    }

    pub(crate) fn damage(&self, offset: u64, what: impl Into<String>) -> Damage {
        Damage { file: pack_name(self.number), offset, what: what.into() }
    }

    /// Reads the whole entry at `offset` and checks it: kind and body.
    pub(crate) fn entry(&self, offset: u64, body_len: usize) -> io::Result<Result<(u8, Vec<u8>), Damage>> {
        let mut bytes = vec![0; HEAD_BYTES + body_len];
        self.file.read_at(offset, &mut bytes)?;
        let head = Head::read(&self.key, offset, &bytes).filter(|head| head.body_len == body_len);
        let Some(head) = head else {
            return Ok(Err(self.damage(offset, "the head of the entry does not have its checksum")));
        };
        if !head.fits(&self.key, offset, &bytes[HEAD_BYTES..]) {
            return Ok(Err(self.damage(offset, "the entry does not have its checksum")));
        }
        bytes.drain(..HEAD_BYTES);
        Ok(Ok((head.kind, bytes)))
    }

    /// What stands in front of a record, and the check of it, whether or not the record itself is still there: only
    /// the head vouches for it. `None` where no such record begins.
    pub(crate) fn record_line(&self, stored: &Stored) -> io::Result<Option<(RecordLine, [u8; 8])>> {
        let (place, encoded_len) = (stored.place, stored.encoded_len);
        let mut bytes = vec![0; HEAD_BYTES + place.body_len.saturating_sub(encoded_len) as usize];
        let offset = u64::from(place.offset);
        self.file.read_at(offset, &mut bytes)?;
        let head = Head::read(&self.key, offset, &bytes).filter(|head| head.body_len == place.body_len as usize);
        let mut rest = Cut(&bytes[HEAD_BYTES..]);
        match head.and_then(|head| Entry::read_slim(head.kind, &mut rest)) {
            Some(Entry::Record { line: says, encoded_len: len, .. }) if rest.0.is_empty() && len == encoded_len => {
                Ok(Some((says, self.key.line_check(offset, &bytes))))
            }
            _ => Ok(None),
        }
    }
}

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) pack: u32,
    pub(crate) offset: u32,
    pub(crate) body_len: u32,
}

impl Place {
    /// What an entry here says in its last `len` bytes.
    pub(crate) fn hole(self, len: u32) -> Hole {
        let end = u64::from(self.offset) + HEAD_BYTES as u64 + u64::from(self.body_len);
        Hole { pack: self.pack, offset: end.saturating_sub(u64::from(len)), len: u64::from(len) }
    }
}

/// Bytes of a sealed pack whose room may be given back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hole {
    pack: u32,
    offset: u64,
    len: u64,
}

/// An entry whose content was given up: hash or sid, place, and for a record the check of what stands in front of it.
type GivenUp = ([u8; 32], Place, [u8; 8]);

/// Walks through the entries of a pack from one offset to another.
pub(crate) struct Scan<'a> {
    pack: &'a Pack,
    /// Where the next entry begins.
    pub(crate) at: u64,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
}

/// One step of a scan.
pub(crate) enum Step<'b> {
    /// An entry that has its checksums.
    Entry { offset: u64, kind: u8, body: &'b [u8] },
    /// No whole entry begins here.
    Bad { offset: u64, what: &'static str },
    /// The end.
    End,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(pack: &'a Pack, from: u64, end: u64) -> Self {
        Self { pack, at: from, end, window: Vec::new(), window_at: from }
    }

    /// Makes `count` bytes from `at` readable in the window, fewer at the end; gives the range.
    fn fill(&mut self, at: u64, count: usize) -> io::Result<std::ops::Range<usize>> {
        let count = (self.end - at).min(count as u64) as usize;
        let have = self.window_at + self.window.len() as u64;
        if at < self.window_at || at + count as u64 > have {
            let len = (self.end - at).min(count.max(WINDOW_BYTES) as u64) as usize;
            self.window.resize(len, 0);
            self.pack.file.read_at(at, &mut self.window)?;
            self.window_at = at;
        }
        let start = (at - self.window_at) as usize;
        Ok(start..start + count)
    }

    pub(crate) fn next(&mut self) -> io::Result<Step<'_>> {
        let offset = self.at;
        if offset >= self.end {
            return Ok(Step::End);
        }
        let range = self.fill(offset, HEAD_BYTES)?;
        let Some(head) = Head::read(&self.pack.key, offset, &self.window[range]) else {
            return Ok(Step::Bad { offset, what: "no entry begins here" });
        };
        let range = self.fill(offset, HEAD_BYTES + head.body_len)?;
        let body = &self.window[range][HEAD_BYTES..];
        if body.len() < head.body_len {
            return Ok(Step::Bad { offset, what: "the entry ends behind the end of the file" });
        }
        if !head.fits(&self.pack.key, offset, body) {
            return Ok(Step::Bad { offset, what: "the entry does not have its checksum" });
        }
        self.at = offset + (HEAD_BYTES + body.len()) as u64;
        Ok(Step::Entry { offset, kind: head.kind, body })
    }

    /// After a bad place: when the entry of a chunk or record stands there whose content is gone, what its head and line
    /// say, and the scan goes on behind it. Whether the content was given up is the caller's question.
    fn hollow(&mut self) -> io::Result<Option<(GivenUp, Entry<'static>)>> {
        let (offset, key) = (self.at, self.pack.key);
        let range = self.fill(offset, HEAD_BYTES)?;
        let Some(head) = Head::read(&key, offset, &self.window[range]) else { return Ok(None) };
        let next = offset + (HEAD_BYTES + head.body_len) as u64;
        if !(head.is_chunk() || head.kind == KIND_RECORD) || next > self.end {
            return Ok(None);
        }
        let place = Place { pack: self.pack.number, offset: offset as u32, body_len: head.body_len as u32 };
        let range = self.fill(offset, HEAD_BYTES + head.body_len)?;
        let bytes = &self.window[range];
        let mut rest = Cut(&bytes[HEAD_BYTES..]);
        let found = match Entry::read_slim(head.kind, &mut rest) {
            Some(Entry::Chunk { hash, stored, content_len })
                if stored.compressed || content_len as usize + CHUNK_LINE_BYTES == head.body_len =>
            {
                let stored = ChunkForm { bytes: Cow::default(), compressed: stored.compressed };
                ((hash.0, place, [0; 8]), Entry::Chunk { hash, stored, content_len })
            }
            Some(Entry::Record { txn, line, encoded_len, .. }) if rest.0.len() == encoded_len as usize => {
                let check = key.line_check(offset, &bytes[..bytes.len() - rest.0.len()]);
                ((line.sid.0, place, check), Entry::Record { txn, line, encoded: &[], encoded_len })
            }
            _ => return Ok(None),
        };
        self.at = next;
        Ok(Some(found))
    }

    /// After a bad place: goes to the next place where an entry begins, or to the end.
    pub(crate) fn resync(&mut self) -> io::Result<()> {
        let mut at = self.at + 1;
        while at < self.end {
            let range = self.fill(at, WINDOW_BYTES)?;
            let window = &self.window[range];
            let found = window.windows(MAGIC.len()).position(|bytes| bytes == MAGIC);
            let Some(found) = found else {
                at += (window.len() - (MAGIC.len() - 1).min(window.len())).max(1) as u64;
                continue;
            };
            at += found as u64;
            let range = self.fill(at, HEAD_BYTES)?;
            if Head::read(&self.pack.key, at, &self.window[range]).is_some() {
                self.at = at;
                return Ok(());
            }
            at += 1;
        }
        self.at = self.end;
        Ok(())
    }
}

/// Whether bytes behind the bad place `bad` prove that it was durable once: a later commit or mark says so.
/// Then it is damage, else it is what a crash leaves behind. Spec: store, "Torn tail".
pub(crate) fn was_durable(pack: &Pack, bad: u64, end: u64) -> io::Result<bool> {
    let mut scan = Scan::new(pack, bad, end);
    loop {
        match scan.next()? {
            Step::End => return Ok(false),
            Step::Bad { .. } => scan.resync()?,
            Step::Entry { kind, body, .. } => {
                let durable = match kind {
                    KIND_COMMIT | KIND_MARK => match Entry::read(kind, body) {
                        Some(Entry::Commit(commit)) => commit.durable,
                        Some(Entry::Mark { durable }) => durable,
                        _ => 0,
                    },
                    _ => 0,
                };
                if durable > bad {
                    return Ok(true);
                }
            }
        }
    }
}

/// Every entry of a chunk or record that was given up, as far as these packs say: its content may be gone. Reads all
/// of them.
fn given_up<'a>(packs: impl Iterator<Item = &'a Arc<Pack>>) -> io::Result<BTreeSet<GivenUp>> {
    let mut freed = BTreeSet::new();
    for pack in packs {
        let mut scan = Scan::new(pack, PACK_HEAD_BYTES, pack.file.len()?);
        loop {
            match scan.next()? {
                Step::End => break,
                Step::Entry { kind: kind @ (KIND_FREE | KIND_ERASE), body, .. } => match Entry::read(kind, body) {
                    Some(Entry::Free { chunks }) => {
                        freed.extend(chunks.into_iter().map(|(hash, place)| (hash.0, place, [0; 8])));
                    }
                    Some(Entry::Erase { records }) => {
                        freed.extend(records.into_iter().map(|record| (record.sid.0, record.place, record.line_check)));
                    }
                    _ => {}
                },
                Step::Entry { .. } => {}
                Step::Bad { .. } => {
                    if scan.hollow()?.is_none() {
                        scan.resync()?;
                    }
                }
            }
        }
    }
    Ok(freed)
}

/// The entries whose content may be gone, found out when the first such is met.
#[derive(Debug, Default)]
pub(crate) struct Freed(Option<BTreeSet<GivenUp>>);

impl Freed {
    /// At a bad place of a scan: the entry that stands there, if its content was given up. Then the scan is behind it.
    pub(crate) fn at<'a>(
        &mut self,
        scan: &mut Scan<'_>,
        packs: impl Iterator<Item = &'a Arc<Pack>>,
    ) -> io::Result<Option<(Place, Entry<'static>)>> {
        let at = scan.at;
        let Some((found, entry)) = scan.hollow()? else { return Ok(None) };
        let freed = match &mut self.0 {
            Some(freed) => freed,
            None => self.0.insert(given_up(packs)?),
        };
        if freed.contains(&found) {
            return Ok(Some((found.1, entry)));
        }
        scan.at = at;
        Ok(None)
    }
}

/// Gives the room of what these entries said back, durably.
pub(crate) fn punch(packs: &Packs, freed: &[Hole]) -> io::Result<()> {
    let mut touched: BTreeMap<u32, &Arc<Pack>> = BTreeMap::new();
    for hole in freed {
        let Some(pack) = packs.get(&hole.pack) else { continue };
        match pack.file.punch(hole.offset, hole.len) {
            // A home that was moved to a file system without holes: the room is lost there, and nothing waits for it.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(()),
            other => other?,
        }
        touched.insert(hole.pack, pack);
    }
    touched.values().try_for_each(|pack| pack.file.sync())
}

pub(crate) fn io_error(pack: &Pack, source: io::Error) -> OpenError {
    OpenError::Io { file: pack_name(pack.number), source }
}
