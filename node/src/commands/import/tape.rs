//! A tar becomes a new space. It is read twice: names and kinds first, so that nothing is begun for one that cannot be
//! taken, and contents then.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Bound;
use std::rc::Rc;
use std::time::SystemTime;

use sealtide_folder::{PathProblem, check_path};
use sealtide_ibgib::{Content, FileFrame, FileKind};
use tar::{Archive, Entry, EntryType};

use super::Import;
use super::plain::{DOCUMENTS, FILES, Filling, NO_DOCUMENT, document_name, is_part_of_name};
use crate::content::store_file;
use crate::failure::Failure;

/// Things in a tar, at most …
const MEMBERS_MAX: usize = 2_000_000;
/// … and bytes of their names: both are in memory.
const NAME_BYTES_MAX: usize = 256 << 20;
/// Bytes that may stand before a thing to describe it: headers, long names, notes.
const HEAD_BYTES_MAX: u64 = 1 << 20;
/// Bytes that are read at once where contents are read.
const PIECE: usize = 1 << 20;

/// A tar that was looked at: nothing in it is refused for its name or kind.
pub(super) struct Tape<'a> {
    import: &'a Import<'a>,
    file: File,
    bytes: u64,
    changed: SystemTime,
    kinds: BTreeMap<String, FileKind>,
    is_export: bool,
}

/// One thing in a tar.
struct Member {
    path: String,
    kind: FileKind,
    exec: bool,
    mtime_ms: i64,
    /// Where a link points.
    target: String,
    bytes: u64,
}

impl<'a> Tape<'a> {
    /// Reads names and kinds.
    ///
    /// # Errors
    /// Exit 5 with the name of what cannot be part of a space.
    pub(super) fn look(import: &'a Import<'a>, file: File) -> Result<Self, Failure> {
        let stat = file.metadata()?;
        let (bytes, changed) = (stat.len(), stat.modified()?);
        let mut tape = Self { import, file, bytes, changed, kinds: BTreeMap::new(), is_export: false };
        let (mut kinds, mut name_bytes) = (BTreeMap::new(), 0);
        tape.walk(false, &mut |member, _| {
            name_bytes += member.path.len();
            if kinds.len() >= MEMBERS_MAX || name_bytes > NAME_BYTES_MAX {
                let text = format!("more than {MEMBERS_MAX} entries, or names of more than {NAME_BYTES_MAX} bytes");
                return Err(import.wrong(&member.path, text));
            }
            match kinds.insert(member.path.clone(), member.kind) {
                Some(_) => Err(import.wrong(&member.path, "the tar has it twice")),
                None => Ok(()),
            }
        })?;
        tape.kinds = kinds;
        tape.is_export = tape.has_form_of_export();
        tape.kinds.iter().try_for_each(|(path, kind)| tape.check(path, *kind))?;
        Ok(tape)
    }

    /// Takes everything.
    ///
    /// # Errors
    /// Exit 5 as for a look, and where the tar ends too early.
    pub(super) fn fill(&self, filling: &mut Filling<'_>) -> Result<(), Failure> {
        let mut taken = 0;
        self.walk(true, &mut |member, content| {
            taken += member.bytes;
            if filling.taken().is_multiple_of(256) {
                self.import.tell(filling.taken(), taken, self.bytes);
            }
            let path = member.path.as_str();
            if self.kinds.get(path) != Some(&member.kind) {
                return Err(self.import.wrong(path, CHANGING));
            }
            match path.split_once('/').filter(|_| self.is_export) {
                Some((DOCUMENTS, _)) if member.kind == FileKind::Dir => Ok(()),
                Some((DOCUMENTS, name)) => filling.document(name, content),
                Some((_, path)) => self.file(&member, path, content, filling),
                None if self.is_export => Ok(()),
                None => self.file(&member, path, content, filling),
            }
        })?;
        // What was read is what was looked at.
        let stat = self.file.metadata()?;
        if (stat.len(), stat.modified()?) != (self.bytes, self.changed) {
            return Err(self.import.wrong("all of it", CHANGING));
        }
        Ok(())
    }

    fn file(
        &self,
        member: &Member,
        path: &str,
        content: &mut dyn Read,
        filling: &mut Filling<'_>,
    ) -> Result<(), Failure> {
        // A directory with something in it is told by what is in it.
        if member.kind == FileKind::Dir && self.below(&member.path).is_some() {
            return Ok(());
        }
        let (content, records) = match member.kind {
            FileKind::Dir => (Content::None, Vec::new()),
            FileKind::Symlink => (Content::Target(member.target.clone()), Vec::new()),
            FileKind::File => {
                store_file(self.import.node.store(), content).map_err(|error| self.import.wrong(&member.path, error))?
            }
        };
        let frame = FileFrame {
            path: path.to_owned(),
            kind: member.kind,
            exec: member.exec,
            mtime: member.mtime_ms,
            by: filling.by(),
            content,
            deleted: false,
            yielded: None,
        };
        filling.file(&frame, records)
    }

    /// Whether nothing but the two directories of an export stands at its top, at least one of them.
    fn has_form_of_export(&self) -> bool {
        let tops = self.kinds.iter().map(|(path, kind)| match path.split_once('/') {
            Some((top, _)) => (top, FileKind::Dir),
            None => (path.as_str(), *kind),
        });
        let is_of_export = |(top, kind)| [FILES, DOCUMENTS].contains(&top) && kind == FileKind::Dir;
        !self.kinds.is_empty() && tops.into_iter().all(is_of_export)
    }

    fn check(&self, path: &str, kind: FileKind) -> Result<(), Failure> {
        if kind != FileKind::Dir
            && let Some(below) = self.below(path)
        {
            return Err(self.import.wrong(below, format!("{} is not a directory", path.escape_debug())));
        }
        if !self.is_export {
            return check_path(path).map_err(|problem| self.import.wrong(path, problem));
        }
        let Some(file) = path.strip_prefix(DOCUMENTS).and_then(|rest| rest.strip_prefix('/')) else { return Ok(()) };
        let is_right = match kind {
            FileKind::File => document_name(file).is_some(),
            FileKind::Dir => is_part_of_name(file),
            FileKind::Symlink => false,
        };
        if is_right { Ok(()) } else { Err(self.import.wrong(path, NO_DOCUMENT)) }
    }

    /// The first path below a path.
    fn below(&self, path: &str) -> Option<&str> {
        let below = format!("{path}/");
        let (first, _) = self.kinds.range::<str, _>((Bound::Excluded(below.as_str()), Bound::Unbounded)).next()?;
        first.starts_with(&below).then_some(first)
    }

    /// Gives each thing to `each`, with its content where contents are wanted.
    fn walk(
        &self,
        contents: bool,
        each: &mut dyn FnMut(Member, &mut dyn Read) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        let (room, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        // What is skipped is skipped by seeking, which throws away what was read ahead.
        let reader = if contents { BufReader::with_capacity(PIECE, file) } else { BufReader::new(file) };
        let mut archive = Archive::new(Metered { inner: reader, room: Rc::clone(&room), ended: Rc::clone(&ended) });
        let mut entries = if contents { archive.entries() } else { archive.entries_with_seek() }?;
        let mut last = "its begin".to_owned();
        loop {
            room.set(HEAD_BYTES_MAX);
            let Some(entry) = entries.next() else { break };
            let mut entry = entry.map_err(|error| self.import.wrong(&format!("behind {last}"), error))?;
            last = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let member = member(&mut entry).map_err(|problem| self.import.wrong(&last, problem))?;
            let end = entry.raw_file_position().checked_add(entry.size());
            if end.is_none_or(|end| end > self.bytes) {
                return Err(self.import.wrong(&last, "the tar ends within it"));
            }
            room.set(u64::MAX);
            if let Some(member) = member {
                each(member, &mut entry)?;
            }
        }
        // Its end is an empty block; one that was cut between two things has none.
        if ended.get() { Err(self.import.wrong(&format!("behind {last}"), "the tar ends too early")) } else { Ok(()) }
    }
}

/// What an entry is; nothing for the top itself and for notes.
fn member<R: Read>(entry: &mut Entry<'_, R>) -> Result<Option<Member>, String> {
    let text = |error: io::Error| error.to_string();
    let entry_type = entry.header().entry_type();
    let is_for_all = entry_type.is_pax_global_extensions();
    let seconds = entry.header().mtime().map_err(text)?.cast_signed();
    let mut mtime_ms = seconds.checked_mul(1000);
    for note in entry.pax_extensions().map_err(text)?.into_iter().flatten() {
        let note = note.map_err(text)?;
        match note.key().map_err(|error| error.to_string())? {
            "comment" => {}
            key if is_for_all => return Err(format!("sets {} for all entries", key.escape_debug())),
            key if key.starts_with("GNU.sparse.") => return Err(SPARSE.to_owned()),
            "mtime" => mtime_ms = note.value().ok().and_then(pax_ms),
            _ => {}
        }
    }
    let kind = match entry_type {
        EntryType::XGlobalHeader => return Ok(None),
        EntryType::Regular | EntryType::Continuous => FileKind::File,
        EntryType::Directory => FileKind::Dir,
        EntryType::Symlink => FileKind::Symlink,
        EntryType::Link => return Err("is a hard link; `tar --hard-dereference` writes files instead".to_owned()),
        EntryType::GNUSparse => return Err(SPARSE.to_owned()),
        EntryType::Char | EntryType::Block | EntryType::Fifo => return Err("is a device or a pipe".to_owned()),
        other => return Err(format!("is of type {:?}, which no folder holds", char::from(other.as_byte()))),
    };
    let name = String::from_utf8(entry.path_bytes().into_owned()).map_err(|_| "the name is not valid UTF-8")?;
    if kind == FileKind::Dir && [".", "./"].contains(&name.as_str()) {
        return Ok(None);
    }
    let mut path = name.as_str();
    while let Some(rest) = path.strip_prefix("./") {
        path = rest;
    }
    if kind == FileKind::Dir {
        path = path.strip_suffix('/').unwrap_or(path);
    }
    match check_path(path) {
        // In an export the path of the folder begins behind this; whether it is one shows at the end.
        Err(PathProblem::PathTooLong)
            if path.split_once('/').is_some_and(|(top, rest)| top == FILES && check_path(rest).is_ok()) => {}
        checked => checked.map_err(|problem| problem.to_string())?,
    }
    let target = entry.link_name_bytes().filter(|_| kind == FileKind::Symlink).map(|target| target.into_owned());
    Ok(Some(Member {
        path: path.to_owned(),
        kind,
        exec: kind == FileKind::File && entry.header().mode().map_err(text)? & 0o100 != 0,
        mtime_ms: mtime_ms.ok_or("its time cannot be read")?,
        target: String::from_utf8(target.unwrap_or_default())
            .map_err(|_| "the target of the link is not valid UTF-8")?,
        bytes: entry.size(),
    }))
}

const CHANGING: &str = "the tar is being changed";
const SPARSE: &str = "is a sparse file; without `--sparse` tar writes it whole";

/// Seconds with a fraction, of either sign, as whole ms, rounded down.
fn pax_ms(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let ms: i64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    let more = i64::from(fraction.bytes().skip(3).any(|byte| byte != b'0'));
    let is_negative = whole.starts_with('-');
    seconds.checked_mul(1000)?.checked_add(if is_negative { -ms - more } else { ms })
}

/// Counts what is read, up to a bound that the caller sets anew, and sees the end.
struct Metered {
    inner: BufReader<File>,
    room: Rc<Cell<u64>>,
    ended: Rc<Cell<bool>>,
}

impl Read for Metered {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.room.get().checked_sub(bytes.len() as u64);
        self.room.set(left.ok_or_else(|| io::Error::other("too much stands before the next entry"))?);
        let read = self.inner.read(bytes)?;
        self.ended.set(read == 0 && !bytes.is_empty());
        Ok(read)
    }
}

impl Seek for Metered {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_notes() {
        for (text, ms) in [
            ("1350244992", Some(1_350_244_992_000)),
            ("1350244992.023960108", Some(1_350_244_992_023)),
            ("1.5", Some(1500)),
            ("1.", Some(1000)),
            ("-1.5", Some(-1500)),
            ("-1.5001", Some(-1501)),
            ("-0.25", Some(-250)),
            ("", None),
            ("1.5x", None),
            ("9223372036854775807", None),
        ] {
            assert_eq!(pax_ms(text), ms, "{text}");
        }
    }
}
