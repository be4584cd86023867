//! A run: the index of one or more sealed packs as sorted tables in one file, written once. Spec: store, "Runs".

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sealtide_crypto::{Blake3, blake3};
use sealtide_sync::IdSum;
use twox_hash::XxHash3_64;

use crate::cache::Cache;
use crate::disk::{Disk, DiskFile};
use crate::entry::Cut;
use crate::error::Damage;
use crate::filter::Filter;
use crate::merge::MergeError;
use crate::table::{PAGE_ROWS, Table, row_count};

mod writer;

pub(crate) use writer::RunWriter;

const HEAD_MAGIC: &[u8; 16] = b"sealtide run 5\n\0";
const TAIL_MAGIC: &[u8; 16] = b"sealtide run end";
const HEAD_BYTES: u64 = 64;
const TAIL_BYTES: u64 = 72;
/// Bytes of the checksum behind the rows of a page.
const CHECK_BYTES: usize = 8;
/// Bytes of the state that are read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// A page of a run that is not what was written. Whoever finds it has already told [`Health`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

impl From<Unreadable> for &'static str {
    fn from(_: Unreadable) -> Self {
        "a run cannot be read"
    }
}

/// Whether all runs of an index could be read so far. A damaged one is removed, so the next open builds it again;
/// until then nothing may be written, for what the index says is not to be trusted.
#[derive(Debug)]
pub(crate) struct Health {
    disk: Arc<dyn Disk>,
    damaged: AtomicBool,
    /// Whether what is written must outlive a crash.
    durable: bool,
}

impl Health {
    pub(crate) fn new(disk: Arc<dyn Disk>, durable: bool) -> Self {
        Self { disk, damaged: AtomicBool::new(false), durable }
    }

    fn sync(&self, file: &dyn DiskFile) -> io::Result<()> {
        if self.durable { file.sync() } else { Ok(()) }
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    fn report(&self, name: &str, what: &dyn std::fmt::Display) -> Unreadable {
        if !self.damaged.swap(true, Ordering::AcqRel) {
            tracing::error!(run = name, error = %what, "a run cannot be read; it is built again at the next open");
        }
        let _ = self.disk.remove(name);
        Unreadable
    }
}

/// The packs that a run is about, and what binds it to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cover {
    pub(crate) first: u32,
    pub(crate) last: u32,
    /// Hash of the keys and lengths of these packs.
    pub(crate) print: [u8; 32],
}

impl Cover {
    pub(crate) fn name(&self, folder: &str) -> String {
        format!("{folder}/{:08}-{:08}.run", self.first, self.last)
    }

    /// First and last pack by the name of a file; `None` for other files.
    pub(crate) fn parse(name: &str) -> Option<(u32, u32)> {
        let (first, last) = name.strip_suffix(".run")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?)).filter(|(first, last)| first <= last)
    }

    fn head(&self) -> Vec<u8> {
        let mut head = HEAD_MAGIC.to_vec();
        head.extend_from_slice(&self.first.to_le_bytes());
        head.extend_from_slice(&self.last.to_le_bytes());
        head.extend_from_slice(&self.print);
        let check = blake3(&head);
        head.extend_from_slice(&check[..8]);
        head
    }

    /// Tells a page that is not what was written: no secret and no signature, so a fast checksum serves (XXH3, 64 bits). Whoever can write
    /// into the file could write the check too.
    fn page_check(&self, table: Table, page: u32, rows: &[u8]) -> [u8; CHECK_BYTES] {
        let print = self.print.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let seed = print ^ (u64::from(table as u8) << 32 | u64::from(page));
        XxHash3_64::oneshot_with_seed(seed, rows).to_le_bytes()
    }
}

/// How many ids, modulo 2⁶⁴, and their sum.
type Sum = (u64, IdSum);

/// Adds a row of a summed table; one that takes an id away counts as −1.
fn add_row(table: Table, row: &[u8], (count, sum): &mut Sum) {
    let shape = table.shape();
    let id = id_of(row, shape.key);
    if shape.counted && row_count(row) as i32 <= 0 {
        *count = count.wrapping_sub(1);
        sum.sub(&id);
    } else {
        *count = count.wrapping_add(1);
        sum.add(&id);
    }
}

/// What is kept in memory of one table of a run.
#[derive(Debug)]
struct Part {
    offset: u64,
    rows: u64,
    /// The front of the first key of each page.
    fences: Vec<u8>,
    /// How many ids there are before each page, and their sum.
    sums: Vec<Sum>,
    filter: Filter,
}

/// A run, open for reading.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) cover: Cover,
    name: String,
    file: Arc<dyn DiskFile>,
    serial: u64,
    parts: Vec<Part>,
    /// Where the state lies, and its hash.
    state: (u64, u64, [u8; 32]),
    health: Arc<Health>,
}

impl Run {
    /// Opens a run; `Ok(None)` when it is not whole or belongs to other packs.
    pub(crate) fn open(health: &Arc<Health>, cache: &Cache, folder: &str, cover: Cover) -> io::Result<Option<Self>> {
        let name = cover.name(folder);
        let file = health.disk.open(&name)?;
        let len = file.len()?;
        if len < HEAD_BYTES + TAIL_BYTES {
            return Ok(None);
        }
        let mut head = [0; HEAD_BYTES as usize];
        file.read_at(0, &mut head)?;
        let mut tail = [0; TAIL_BYTES as usize];
        file.read_at(len - TAIL_BYTES, &mut tail)?;
        if head[..] != cover.head() || !tail.ends_with(TAIL_MAGIC) {
            return Ok(None);
        }
        let mut cut = Cut(&tail);
        let (Some(offset), Some(hash)) = (cut.u64(), cut.id()) else { return Ok(None) };
        if tail[40..56] != blake3(&tail[..40])[..16] || offset < HEAD_BYTES || offset > len - TAIL_BYTES {
            return Ok(None);
        }
        let mut footer = vec![0; usize::try_from(len - TAIL_BYTES - offset).map_err(io::Error::other)?];
        file.read_at(offset, &mut footer)?;
        if blake3(&footer) != hash {
            return Ok(None);
        }
        let Some((parts, state)) = read_footer(&footer) else { return Ok(None) };
        let health = Arc::clone(health);
        Ok(Some(Self { cover, name, file, serial: cache.serial(), parts, state, health }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Says that the run is not to be trusted, and removes it.
    pub(crate) fn report(&self, what: &str) {
        self.health.report(&self.name, &what);
    }

    pub(crate) fn rows(&self, table: Table) -> u64 {
        self.parts[table as usize].rows
    }

    /// How many packs it covers.
    pub(crate) fn packs(&self) -> u32 {
        self.cover.last - self.cover.first + 1
    }

    /// What the index kept in memory beside the tables when its last pack was sealed.
    pub(crate) fn state(&self) -> Result<Vec<u8>, Unreadable> {
        let mut bytes = Vec::with_capacity(self.state.1 as usize);
        let copied = self.copy_state(&mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        copied.map(|()| bytes).map_err(|_| Unreadable)
    }

    /// The first bytes of the state, unchecked: whoever uses them must read the whole of it before it matters.
    pub(crate) fn state_front(&self, len: usize) -> Result<Vec<u8>, Unreadable> {
        let mut bytes = vec![0; len.min(self.state.1 as usize)];
        match self.file.read_at(self.state.0, &mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) => Err(self.health.report(&self.name, &error)),
        }
    }

    /// Hands the state to `take` in pieces; the last call of `take` may be for nothing when the hash does not fit.
    pub(crate) fn copy_state(&self, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), MergeError> {
        let (offset, len, hash) = self.state;
        let mut hasher = Blake3::new();
        let mut at = 0;
        while at < len {
            let mut piece = vec![0; (len - at).min(PIECE_BYTES as u64) as usize];
            if let Err(error) = self.file.read_at(offset + at, &mut piece) {
                return Err(self.health.report(&self.name, &error).into());
            }
            hasher.update(&piece);
            take(&piece)?;
            at += piece.len() as u64;
        }
        if hasher.finish() == hash {
            return Ok(());
        }
        Err(self.health.report(&self.name, &"the state does not have its hash").into())
    }

    /// The rows of a page, checked. Pages come from the cache when there is one.
    fn page(&self, cache: Option<&Cache>, table: Table, page: u32) -> Result<Arc<[u8]>, Unreadable> {
        let id = (self.serial, table, page);
        if let Some(bytes) = cache.and_then(|cache| cache.get(&id)) {
            return Ok(bytes);
        }
        let (part, row) = (&self.parts[table as usize], table.shape().row);
        let rows = (part.rows - u64::from(page) * PAGE_ROWS as u64).min(PAGE_ROWS as u64) as usize;
        let mut bytes = vec![0; rows * row + CHECK_BYTES];
        let offset = part.offset + u64::from(page) * (PAGE_ROWS * row + CHECK_BYTES) as u64;
        if let Err(error) = self.file.read_at(offset, &mut bytes) {
            return Err(self.health.report(&self.name, &error));
        }
        let (content, check) = bytes.split_at(rows * row);
        if self.cover.page_check(table, page, content) != *check {
            return Err(self.health.report(&self.name, &"a page does not have its checksum"));
        }
        bytes.truncate(rows * row);
        let bytes: Arc<[u8]> = bytes.into();
        if let Some(cache) = cache {
            cache.put(id, &bytes);
        }
        Ok(bytes)
    }

    /// Whether the key may be there: a wrong yes is rare, a no is always right.
    pub(crate) fn may_have(&self, table: Table, key: &[u8]) -> bool {
        let shape = table.shape();
        shape.filter == 0 || key.len() < shape.filter || self.parts[table as usize].filter.has(&key[..shape.filter])
    }

    /// The number of rows below `key`, which may be the front of a key.
    pub(crate) fn lower_bound(&self, cache: &Cache, table: Table, key: &[u8]) -> Result<u64, Unreadable> {
        let (part, shape) = (&self.parts[table as usize], table.shape());
        let pages = part.rows.div_ceil(PAGE_ROWS as u64) as u32;
        let near = &key[..key.len().min(shape.fence)];
        let fence = |page: u32| &part.fences[page as usize * shape.fence..][..near.len()];
        let (mut low, mut high) = (0, pages);
        while low < high {
            let middle = low + (high - low) / 2;
            if fence(middle) < near { low = middle + 1 } else { high = middle }
        }
        // The page in front of the first one that begins at or behind the key may end behind it.
        for page in low.saturating_sub(1)..pages {
            if fence(page) > near {
                return Ok(u64::from(page) * PAGE_ROWS as u64);
            }
            let rows = self.page(Some(cache), table, page)?;
            let count = rows.len() / shape.row;
            let at = first_at_least(&rows, shape.row, key);
            if at < count {
                return Ok(u64::from(page) * PAGE_ROWS as u64 + at as u64);
            }
        }
        Ok(part.rows)
    }

    /// Count, modulo 2⁶⁴, and sum of the ids below `key`.
    pub(crate) fn sum_below(&self, cache: &Cache, table: Table, key: &[u8]) -> Result<Sum, Unreadable> {
        let at = self.lower_bound(cache, table, key)?;
        let (part, shape) = (&self.parts[table as usize], table.shape());
        let (page, inside) = ((at / PAGE_ROWS as u64) as usize, (at % PAGE_ROWS as u64) as usize);
        let mut sum = part.sums[page];
        if inside > 0 {
            let rows = self.page(Some(cache), table, page as u32)?;
            rows.chunks_exact(shape.row).take(inside).for_each(|row| add_row(table, row, &mut sum));
        }
        Ok(sum)
    }

    /// The rows that begin with the number of a space.
    fn numbered(&self, cache: &Cache, table: Table, number: u32) -> Result<Range<u64>, Unreadable> {
        let start = self.lower_bound(cache, table, &number.to_be_bytes())?;
        let end = match number.checked_add(1) {
            Some(next) => self.lower_bound(cache, table, &next.to_be_bytes())?,
            None => self.rows(table),
        };
        Ok(start..end)
    }

    /// The row with exactly this key.
    pub(crate) fn get(&self, cache: &Cache, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Unreadable> {
        if !self.may_have(table, key) {
            return Ok(None);
        }
        let at = self.lower_bound(cache, table, key)?;
        if at >= self.rows(table) {
            return Ok(None);
        }
        let rows = self.page(Some(cache), table, (at / PAGE_ROWS as u64) as u32)?;
        let size = table.shape().row;
        let row = &rows[(at % PAGE_ROWS as u64) as usize * size..][..size];
        Ok(row.starts_with(key).then(|| row.to_vec()))
    }

    /// Reads the whole file again: that its head and end are those in memory, every page, that rows are sorted, and
    /// that first keys, sums and filters are theirs.
    pub(crate) fn check(&self, folder: &str, cache: &Cache) -> Option<Damage> {
        let damage = |offset: u64, what: &str| {
            self.health.report(&self.name, &what);
            Some(Damage { file: self.name.clone(), offset, what: what.to_owned() })
        };
        if !matches!(Self::open(&self.health, cache, folder, self.cover), Ok(Some(_))) {
            return damage(0, "the head or the end is not what was written");
        }
        for table in Table::ALL {
            if let Err((offset, what)) = self.check_table(table) {
                return damage(offset, what);
            }
        }
        let readable = self.state().is_ok();
        if readable { None } else { damage(self.state.0, "the state does not have its hash") }
    }

    fn check_table(&self, table: Table) -> Result<(), (u64, &'static str)> {
        let (part, shape) = (&self.parts[table as usize], table.shape());
        let (mut last, mut sum) = (Vec::new(), Sum::default());
        for page in 0..part.rows.div_ceil(PAGE_ROWS as u64) as u32 {
            let offset = part.offset + u64::from(page) * (PAGE_ROWS * shape.row + CHECK_BYTES) as u64;
            let rows = self.page(None, table, page).map_err(|_| (offset, "the page does not have its checksum"))?;
            let fence = &part.fences[page as usize * shape.fence..][..shape.fence];
            let mut good = rows.starts_with(fence) && (!shape.summed || part.sums[page as usize] == sum);
            for row in rows.chunks_exact(shape.row) {
                good &= last.as_slice() < &row[..shape.key] && self.may_have(table, row);
                last.clear();
                last.extend_from_slice(&row[..shape.key]);
                if shape.summed {
                    add_row(table, row, &mut sum);
                }
            }
            if !good {
                return Err((offset, "the page is not what the end of the file says"));
            }
        }
        let good = !shape.summed || part.sums.last() == Some(&sum);
        if good { Ok(()) } else { Err((part.offset, "the sums are not those of a recount")) }
    }
}

fn id_of(row: &[u8], key: usize) -> [u8; 32] {
    let mut id = [0; 32];
    id.copy_from_slice(&row[key - 32..key]);
    id
}

/// The first of the sorted rows that is not below `key`.
fn first_at_least(rows: &[u8], row: usize, key: &[u8]) -> usize {
    let (mut low, mut high) = (0, rows.len() / row);
    while low < high {
        let middle = low + (high - low) / 2;
        if &rows[middle * row..][..key.len()] < key { low = middle + 1 } else { high = middle }
    }
    low
}

/// The rows of one table of one run, from some place on.
#[derive(Debug)]
pub(crate) struct Cursor {
    run: Arc<Run>,
    cache: Option<Arc<Cache>>,
    table: Table,
    at: u64,
    /// Behind the last row.
    end: u64,
    page: Option<(u32, Arc<[u8]>)>,
    /// Rows that are left out, in order.
    left_out: VecDeque<Range<u64>>,
    /// The number of a space that stands for the one in the rows, and the row at hand with it.
    renumbered: Option<(u32, Vec<u8>)>,
}

impl Cursor {
    /// Reads through the cache from the first row that is not below `from`.
    pub(crate) fn new(run: &Arc<Run>, cache: &Arc<Cache>, table: Table, from: &[u8]) -> Result<Self, Unreadable> {
        let at = run.lower_bound(cache, table, from)?;
        Ok(Self { at, cache: Some(Arc::clone(cache)), ..Self::whole(run, table) })
    }

    /// Reads the whole table past the cache.
    pub(crate) fn whole(run: &Arc<Run>, table: Table) -> Self {
        let (run, end) = (Arc::clone(run), run.rows(table));
        Self { run, cache: None, table, at: 0, end, page: None, left_out: VecDeque::new(), renumbered: None }
    }

    /// Ends behind the rows of the space with the number `number`, and gives them the number `space`.
    pub(crate) fn renumbered(mut self, cache: &Cache, number: u32, space: u32) -> Result<Self, Unreadable> {
        self.end = self.run.numbered(cache, self.table, number)?.end;
        self.renumbered = Some((space, Vec::new()));
        Ok(self)
    }

    /// As [`Cursor::whole`], the rows of one number alone, as those of `space`.
    pub(crate) fn whole_of(
        run: &Arc<Run>,
        cache: &Cache,
        table: Table,
        (number, space): (u32, u32),
    ) -> Result<Self, Unreadable> {
        let at = run.numbered(cache, table, number)?.start;
        Self { at, ..Self::whole(run, table) }.renumbered(cache, number, space)
    }

    /// Leaves out the rows of these numbers, which ascend.
    pub(crate) fn without(mut self, cache: &Cache, numbers: impl Iterator<Item = u32>) -> Result<Self, Unreadable> {
        for number in numbers {
            self.left_out.push_back(self.run.numbered(cache, self.table, number)?);
        }
        Ok(self)
    }

    /// The row at hand; `None` at the end.
    pub(crate) fn peek(&mut self) -> Result<Option<&[u8]>, Unreadable> {
        while let Some(rows) = self.left_out.pop_front_if(|rows| rows.start <= self.at) {
            self.at = self.at.max(rows.end);
        }
        if self.at >= self.end {
            return Ok(None);
        }
        let number = (self.at / PAGE_ROWS as u64) as u32;
        if self.page.as_ref().is_none_or(|(page, _)| *page != number) {
            self.page = Some((number, self.run.page(self.cache.as_deref(), self.table, number)?));
        }
        let row = self.table.shape().row;
        let inside = (self.at % PAGE_ROWS as u64) as usize * row;
        let Some((_, rows)) = &self.page else { return Ok(None) };
        let row = &rows[inside..inside + row];
        let Some((space, renumbered)) = &mut self.renumbered else { return Ok(Some(row)) };
        renumbered.clear();
        renumbered.extend_from_slice(row);
        renumbered[..4].copy_from_slice(&space.to_be_bytes());
        Ok(Some(renumbered))
    }

    pub(crate) fn step(&mut self) {
        self.at += 1;
    }
}

type Footer = (Vec<Part>, (u64, u64, [u8; 32]));

fn read_footer(bytes: &[u8]) -> Option<Footer> {
    let mut cut = Cut(bytes);
    let state = (cut.u64()?, cut.u64()?, cut.id()?);
    let mut parts = Vec::new();
    for table in Table::ALL {
        let shape = table.shape();
        let (offset, rows) = (cut.u64()?, cut.u64()?);
        let pages = usize::try_from(rows.div_ceil(PAGE_ROWS as u64)).ok()?;
        let fences = cut.take(pages.checked_mul(shape.fence)?)?.to_vec();
        let sums = if shape.summed { pages + 1 } else { 0 };
        let sums = (0..sums).map(|_| Some((cut.u64()?, IdSum(cut.id()?)))).collect::<Option<_>>()?;
        parts.push(Part { offset, rows, fences, sums, filter: Filter::read(&mut cut)? });
    }
    cut.0.is_empty().then_some((parts, state))
}
