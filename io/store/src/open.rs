//! Opening: the index is put together from runs, the sealed packs that none covers, and the open pack.
//! Spec: store, "Opening".

use std::io;
use std::sync::Arc;

use crate::disk::Disk;
use crate::entry::{Entry, UNKNOWN_ENTRY};
use crate::error::{Damage, OpenError};
use crate::index::{Index, Sums};
use crate::log::Log;
use crate::merge::{Merge, MergeError};
use crate::pack::{FOLDER, Freed, PACK_HEAD_BYTES, Pack, Place, Scan, Step, io_error, pack_name, punch, was_durable};
use crate::runs::{CHECK_FOLDER, RUNS_FOLDER, Runs};
use crate::seal::write_run;
use crate::state;

/// Name of the file that says which format this is.
pub(crate) const FORMAT_FILE: &str = "format";
const FORMAT: &str = "sealtide store 1\n";

/// Whether there is a store of this format; `false` when it is still to be made. The format file is the last thing
/// that making a store writes, so without it nothing else here counts.
pub(crate) fn has_format(disk: &dyn Disk) -> Result<bool, OpenError> {
    let failed = |source| OpenError::Io { file: FORMAT_FILE.to_owned(), source };
    let bytes = match disk.open(FORMAT_FILE) {
        Ok(file) => {
            let mut bytes = vec![0; file.len().map_err(failed)?.min(64) as usize];
            file.read_at(0, &mut bytes).map_err(failed)?;
            bytes
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed(error)),
    };
    if bytes == FORMAT.as_bytes() {
        // A process that was killed while it made the store left these in the page cache.
        disk.open(FORMAT_FILE).and_then(|file| file.sync()).and_then(|()| disk.sync_folder("")).map_err(failed)?;
        return Ok(true);
    }
    let torn = FORMAT.as_bytes().starts_with(&bytes) || bytes.iter().all(|byte| *byte == 0);
    if !torn {
        let found = String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned();
        return Err(OpenError::Version { file: FORMAT_FILE.to_owned(), found });
    }
    if !disk.list(FOLDER).map_err(failed)?.is_empty() {
        let what = "it is missing, and there are packs".to_owned();
        return Err(Damage { file: FORMAT_FILE.to_owned(), offset: 0, what }.into());
    }
    Ok(false)
}

/// Writes the format file: from now on there is a store.
pub(crate) fn write_format(disk: &dyn Disk) -> Result<(), OpenError> {
    let write = || {
        match disk.remove(FORMAT_FILE) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(FORMAT_FILE)?;
        file.append(FORMAT.as_bytes())?;
        file.sync()?;
        disk.sync_folder("")
    };
    write().map_err(|source| OpenError::Io { file: FORMAT_FILE.to_owned(), source })
}

/// The packs of the store in order, and whether the last one may be open.
pub(crate) fn open_packs(disk: &dyn Disk) -> Result<Vec<Arc<Pack>>, OpenError> {
    let names = disk.list(FOLDER).map_err(|source| OpenError::Io { file: FOLDER.to_owned(), source })?;
    let numbers: Vec<u32> = names.iter().filter_map(|name| name.strip_suffix(".pack")?.parse().ok()).collect();
    let mut packs = Vec::new();
    for (at, number) in numbers.iter().enumerate() {
        let number = *number;
        let file = pack_name(number);
        let failed = |source| OpenError::Io { file: file.clone(), source };
        if number as usize != at + 1 {
            let what = "packs before this one are missing".to_owned();
            return Err(Damage { file, offset: 0, what }.into());
        }
        match Pack::open(disk, number).map_err(failed)? {
            Some(pack) => packs.push(Arc::new(pack)),
            None => {
                // Nothing is written to a pack before its head is durable: a short file is one that never began.
                let len = disk.open(&file).and_then(|file| file.len()).map_err(failed)?;
                if number as usize == numbers.len() && len <= PACK_HEAD_BYTES {
                    disk.remove(&file).map_err(failed)?;
                } else {
                    let what = "the head of the pack does not have its checksum".to_owned();
                    return Err(Damage { file, offset: 0, what }.into());
                }
            }
        }
    }
    Ok(packs)
}

/// What a scan of the open pack found.
enum Tail {
    Open,
    Sealed,
}

/// Attempts to open before giving up: each one has removed a damaged run.
const ATTEMPTS: usize = 64;

/// How far the log went when the store was closed in order. Kept outside the log: a log that lost its end cannot tell, since
/// what is left of it looks like one that a crash tore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) pack: u32,
    pub(crate) len: u64,
}

impl Closed {
    pub(crate) fn bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.pack.to_le_bytes());
        bytes[4..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (pack, len) = bytes.split_first_chunk()?;
        Some(Self { pack: u32::from_le_bytes(*pack), len: u64::from_le_bytes(len.try_into().ok()?) })
    }

    /// What is said of a log that ends in `pack` at `len`, which is before this.
    fn check(self, pack: u32, len: u64) -> Result<(), OpenError> {
        if (pack, len) >= (self.pack, self.len) {
            return Ok(());
        }
        let what = format!(
            "the log ends here, and it went on to byte {} of pack {} when the store was closed",
            self.len, self.pack
        );
        Err(Damage { file: pack_name(pack.max(1)), offset: len, what }.into())
    }
}

/// Puts the index together and opens the log for writing. `closed` says how far it went at least.
pub(crate) fn rebuild(
    disk: &Arc<dyn Disk>,
    pack_bytes: u64,
    closed: Option<Closed>,
) -> Result<(Index, Log), OpenError> {
    remove_leftovers(&**disk).map_err(|source| OpenError::Io { file: FOLDER.to_owned(), source })?;
    let mut attempt = 1;
    loop {
        let runs = Runs::new(disk, RUNS_FOLDER);
        let health = Arc::clone(&runs.health);
        let rebuilt = rebuild_once(disk, pack_bytes, runs, closed);
        // A damaged run is gone now, so the next attempt reads its packs.
        if !health.is_damaged() || attempt == ATTEMPTS {
            return rebuilt;
        }
        attempt += 1;
    }
}

fn rebuild_once(
    disk: &Arc<dyn Disk>,
    pack_bytes: u64,
    runs: Runs,
    closed: Option<Closed>,
) -> Result<(Index, Log), OpenError> {
    let mut packs = open_packs(&**disk)?;
    drop_unused_last(disk, &mut packs)?;
    // As their bytes below, so their names: what a killed process made is written to from now on.
    if !packs.is_empty() {
        disk.sync_folder(FOLDER).map_err(|source| OpenError::Io { file: FOLDER.to_owned(), source })?;
    }
    let mut index = Index::new(runs);
    let last = packs.pop();
    index.packs.extend(packs.iter().map(|pack| (pack.number, Arc::clone(pack))));
    load_runs(disk, &mut index)?;
    let all: Vec<Arc<Pack>> = packs.iter().chain(&last).cloned().collect();
    let mut freed = Freed::default();
    for pack in packs.iter().filter(|pack| pack.number > index.runs.last_pack()).cloned().collect::<Vec<_>>() {
        tracing::info!(pack = pack.number, "no run covers the pack: reading it");
        // A process that was killed while it sealed the pack left its end in the page cache. The run is durable, and so is what comes next.
        pack.file.sync().map_err(|source| io_error(&pack, source))?;
        read_sealed_pack(&mut index, &pack, &mut freed, &all)?;
        seal_run(&mut index, pack.number);
        merge_due(&**disk, &mut index);
    }
    let went_on = |pack, len| closed.map_or(Ok(()), |closed| closed.check(pack, len));
    let Some(last) = last else {
        went_on(0, 0)?;
        // No pack at all: a new store.
        return Ok((index, first_pack(disk, 1, pack_bytes)?));
    };
    index.packs.insert(last.number, Arc::clone(&last));
    let (len, tail) = read_open_pack(&mut index, &last, &|len| went_on(last.number, len))?;
    index.settle_sums();
    if let Some(space) = index.spaces.keys().find(|space| !index.digests_fit(space)) {
        return Err(last.damage(len, format!("the digests of space {space} do not fit its records")).into());
    }
    match tail {
        Tail::Open => Ok((index, Log::new(Arc::clone(disk), last, len, pack_bytes))),
        Tail::Sealed => {
            last.file.sync().map_err(|source| io_error(&last, source))?;
            seal_run(&mut index, last.number);
            merge_due(&**disk, &mut index);
            let log = first_pack(disk, last.number + 1, pack_bytes)?;
            Ok((index, log))
        }
    }
}

/// Takes away what a check left, and the side indexes that older versions wrote beside the packs.
fn remove_leftovers(disk: &dyn Disk) -> io::Result<()> {
    for (folder, end) in [(FOLDER, ".idx"), (CHECK_FOLDER, "")] {
        for name in disk.list(folder)?.iter().filter(|name| name.ends_with(end)) {
            disk.remove(&format!("{folder}/{name}"))?;
        }
    }
    Ok(())
}

/// Opens the runs, and takes over what the newest says of everything that is in no table.
fn load_runs(disk: &Arc<dyn Disk>, index: &mut Index) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io { file: RUNS_FOLDER.to_owned(), source };
    index.runs.load(&**disk, &index.packs).map_err(failed)?;
    if let Some(run) = index.runs.list.last().cloned() {
        let good = run.state().is_ok_and(|state| state::read(&state, index).is_some());
        if !good {
            run.report("the state is none");
            return Err(Damage { file: run.name().to_owned(), offset: 0, what: "the state is none".to_owned() }.into());
        }
    }
    Ok(())
}

/// Writes the run of the sealed packs up to `last`, all of them durable, if the disk lets it; until then they stay in memory.
pub(crate) fn seal_run(index: &mut Index, last: u32) {
    // No run says which room is still to be given back.
    let freed = std::mem::take(&mut index.freed);
    if let Err(error) = punch(&index.packs, &freed) {
        tracing::warn!(%error, pack = last, "the room of freed chunks was not given back: their packs stay in memory");
        index.freed = freed;
        return;
    }
    index.settle_sums();
    match write_run(index, last) {
        Ok(run) => index.adopt_run(run),
        Err(error) => tracing::warn!(%error, pack = last, "no run was written: its packs stay in memory"),
    }
}

/// Merges runs for as long as a merge is due: where each pack was read again, its run is one of many.
fn merge_due(disk: &dyn Disk, index: &mut Index) {
    let mut merge_one = || {
        let Some(merge) = Merge::begin(&index.runs, &index.packs)? else { return Ok(false) };
        let run = merge.complete(&Arc::clone(&index.runs.cache))?;
        remove_merged(disk, index.replace_runs(run));
        Ok::<bool, MergeError>(true)
    };
    loop {
        match merge_one() {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return tracing::warn!(%error, "the runs were not merged"),
        }
    }
}

/// Removes the files of runs that a merged one stands for. It is durable: from here on a crash leaves one of the two, or
/// both.
pub(crate) fn remove_merged(disk: &dyn Disk, gone: Vec<String>) {
    for name in gone {
        if let Err(error) = disk.remove(&name) {
            tracing::warn!(%error, name, "a merged run was not removed; the next open does it");
        }
    }
}

/// Applies the entries of a sealed pack.
fn read_sealed_pack(
    index: &mut Index,
    pack: &Arc<Pack>,
    freed: &mut Freed,
    all: &[Arc<Pack>],
) -> Result<(), OpenError> {
    let failed = |source| io_error(pack, source);
    let end = pack.file.len().map_err(failed)?;
    let mut scan = Scan::new(pack, PACK_HEAD_BYTES, end);
    let mut sealed = false;
    loop {
        match scan.next().map_err(failed)? {
            Step::End if sealed => return Ok(()),
            Step::End => return Err(pack.damage(end, "the pack ends without its seal").into()),
            Step::Bad { offset, what } => match freed.at(&mut scan, all.iter()).map_err(failed)? {
                Some((place, entry)) => apply(index, pack, place, entry)?,
                None => return Err(pack.damage(offset, what).into()),
            },
            Step::Entry { offset, kind, body } => {
                let entry = Entry::read(kind, body).ok_or_else(|| pack.damage(offset, UNKNOWN_ENTRY))?;
                sealed = entry == Entry::Seal;
                let place = Place { pack: pack.number, offset: offset as u32, body_len: body.len() as u32 };
                apply(index, pack, place, entry)?;
            }
        }
    }
}

fn first_pack(disk: &Arc<dyn Disk>, number: u32, pack_bytes: u64) -> Result<Log, OpenError> {
    let pack = Pack::create(&**disk, number).map_err(|source| OpenError::Io { file: pack_name(number), source })?;
    Ok(Log::new(Arc::clone(disk), Arc::new(pack), PACK_HEAD_BYTES, pack_bytes))
}

/// A pack is made before the one in front of it is sealed. After a crash between the two it is empty and goes.
fn drop_unused_last(disk: &Arc<dyn Disk>, packs: &mut Vec<Arc<Pack>>) -> Result<(), OpenError> {
    let [.., before, last] = packs.as_slice() else { return Ok(()) };
    let len = last.file.len().map_err(|source| io_error(last, source))?;
    if len > PACK_HEAD_BYTES || is_sealed(before)? {
        return Ok(());
    }
    let file = pack_name(last.number);
    disk.remove(&file).map_err(|source| OpenError::Io { file, source })?;
    packs.pop();
    Ok(())
}

/// Whether the pack ends with a seal.
fn is_sealed(pack: &Pack) -> Result<bool, OpenError> {
    let failed = |source| io_error(pack, source);
    let len = pack.file.len().map_err(failed)?;
    let Some(offset) = len.checked_sub(crate::entry::HEAD_BYTES as u64).filter(|offset| *offset >= PACK_HEAD_BYTES)
    else {
        return Ok(false);
    };
    let entry = pack.entry(offset, 0).map_err(failed)?;
    Ok(entry.is_ok_and(|(kind, body)| Entry::read(kind, &body) == Some(Entry::Seal)))
}

fn apply(index: &mut Index, pack: &Pack, place: Place, entry: Entry<'_>) -> Result<(), OpenError> {
    index.apply(place, entry, Sums::Later).map_err(|what| pack.damage(u64::from(place.offset), what).into())
}

/// Applies the entries of the last pack; a torn tail is cut, and the cut made durable before anything is appended. `may_end` refuses
/// an end that nothing explains.
fn read_open_pack(
    index: &mut Index,
    pack: &Arc<Pack>,
    may_end: &dyn Fn(u64) -> Result<(), OpenError>,
) -> Result<(u64, Tail), OpenError> {
    let failed = |source| io_error(pack, source);
    let end = pack.file.len().map_err(failed)?;
    let mut scan = Scan::new(pack, PACK_HEAD_BYTES, end);
    let mut tail = Tail::Open;
    loop {
        match scan.next().map_err(failed)? {
            Step::End => return may_end(end).map(|()| (end, tail)),
            Step::Entry { offset, kind, body } => {
                let entry = Entry::read(kind, body).ok_or_else(|| pack.damage(offset, UNKNOWN_ENTRY))?;
                if matches!(tail, Tail::Sealed) {
                    return Err(pack.damage(offset, "an entry behind the seal").into());
                }
                if entry == Entry::Seal {
                    tail = Tail::Sealed;
                }
                let place = Place { pack: pack.number, offset: offset as u32, body_len: body.len() as u32 };
                apply(index, pack, place, entry)?;
            }
            Step::Bad { offset, what } => {
                if matches!(tail, Tail::Sealed) || was_durable(pack, offset, end).map_err(failed)? {
                    return Err(pack.damage(offset, what).into());
                }
                may_end(offset)?;
                tracing::info!(pack = pack.number, offset, bytes = end - offset, "cut what a crash left behind");
                pack.file.truncate(offset).map_err(failed)?;
                pack.file.sync().map_err(failed)?;
                return Ok((offset, Tail::Open));
            }
        }
    }
}
