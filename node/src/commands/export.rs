//! `export SPACE`: nobody is locked in.
//!
//! ```text
//! dir, tar   files/PATH        what stands in the folder now, with times and the right to run
//!            documents/NAME.json                                    a long NAME in parts: documents/NA+/ME.json
//! jsonl      {"schema":"sealtide/export/1","space","name","kind"}   one line
//!            {"chunk","base64"}                                     before the record that lists it, or
//!            {"absent"}                                             a chunk of an old release that is not here (releases §6)
//!            {"ib","gib","data","rel8ns"}, or "base64" for data     every record, all history, oldest first
//! ```
//!
//! In the lines `data` and `rel8ns` are the very texts that are hashed, so the addresses can be checked by anybody. `import`
//! takes all three forms.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use sealtide_ibgib::{Content, FileFrame, FileKind, Kind, Manifest, Sid, Verified};
use sealtide_identity::SpaceId;
use sealtide_store::SpaceHandle;
use sealtide_sync::SpaceView;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::Progress;
use crate::commands::go_on;
use crate::commands::target::{DOC_IB, name_of};
use crate::content::ContentReader;
use crate::failure::{Exit, Failure};
use crate::node::Node;
use crate::share::{live_files, tip_records};

/// The schema of the first line.
pub(crate) const SCHEMA: &str = "sealtide/export/1";
/// Bytes of the text of a document in a file of its own, at most.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 4 << 20;
/// Bytes of the name of a document, at most.
const DOCUMENT_NAME_MAX: usize = 255;
/// Bytes of it in the name of one file, at most: `.json` goes behind them.
const PLAIN_BYTES_MAX: usize = 250;
/// Records that are read at once.
const BATCH: usize = 1024;
/// How often all members are listed, before whoever writes has to wait for it.
const PASSES: usize = 16;

/// A form of export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    /// A plain directory.
    Dir,
    /// The same in a tar.
    Tar,
    /// Every record, with its history.
    Jsonl,
}

/// Writes a space to a new file or directory. Waits for the disk.
///
/// # Errors
/// Exit 2 when something stands there already, 5 when a content is missing in the store.
pub(crate) fn export(
    node: &Node,
    space: &str,
    format: ExportFormat,
    out: &Path,
    progress: &Progress,
) -> Result<Value, Failure> {
    let id = node.find_space(space)?;
    let view = node.store().view(&id).ok_or_else(|| Failure::failed("no_space", "the space is gone"))?;
    let export = Export { node, space: id, view, progress };
    let taken = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::usage("exists", format!("{} exists already", out.display())).hint("name another place with --out")
        }
        _ => Failure::from(error).about(out),
    };
    // Made first, and only if nothing is there: what fails from here on takes away nothing that it did not make.
    let written = if format == ExportFormat::Dir {
        out.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::create_dir(out)).map_err(taken)?;
        export.everything(&mut Dir { root: out.to_owned() }).inspect_err(|_| drop(fs::remove_dir_all(out)))?
    } else {
        let file = File::create_new(out).map_err(taken)?;
        let written = if format == ExportFormat::Tar { export.tar(file) } else { export.lines(file) };
        written.inspect_err(|_| drop(fs::remove_file(out)))?
    };
    Ok(json!({
        "schema": "sealtide/export_done/1", "space": space, "format": format, "out": out, "items": written.items,
        "bytes": written.bytes, "absent": written.absent,
    }))
}

#[derive(Clone, Copy, Debug, Default)]
struct Written {
    items: u64,
    bytes: u64,
    /// Chunks of old releases that are not here.
    absent: u64,
}

struct Export<'a> {
    node: &'a Node,
    space: SpaceId,
    view: SpaceHandle,
    progress: &'a Progress,
}

/// Where files go.
trait Target {
    fn file(&mut self, path: &str, size: u64, mtime_ms: i64, exec: bool, content: &mut dyn Read) -> io::Result<()>;
    fn link(&mut self, path: &str, mtime_ms: i64, to: &str) -> io::Result<()>;
    fn dir(&mut self, path: &str, mtime_ms: i64) -> io::Result<()>;
}

impl Export<'_> {
    fn everything(&self, target: &mut dyn Target) -> Result<Written, Failure> {
        let mut written = Written::default();
        let files = live_files(&self.view);
        let all = files.len() as u64;
        for (path, frame) in files {
            go_on(self.progress)?;
            written.bytes += self.file(&path, &frame, target)?;
            written.items += 1;
            self.progress
                .tell(json!({"phase": "exporting", "items": [written.items, all], "bytes": [written.bytes, 0]}));
        }
        let mut names = BTreeSet::new();
        for info in self.view.timelines_of(DOC_IB) {
            go_on(self.progress)?;
            let Some(tip) = tip_records(&self.view, &info.timeline).into_iter().next() else { continue };
            let (Some((name, true)), Some(data)) = (name_of(&tip), tip.object()) else { continue };
            // Two nodes may have made documents of one name without knowing of each other.
            let (mut free, mut count) = (name.clone(), 2);
            while !names.insert(free.clone()) {
                let more = format!(" ({count})");
                free = format!("{}{more}", &name[..name.floor_char_boundary(DOCUMENT_NAME_MAX - more.len())]);
                count += 1;
            }
            let doc = data.get("doc").cloned().unwrap_or_default();
            let mut text = format!("{doc:#}\n");
            if text.len() > DOCUMENT_BYTES_MAX {
                text = format!("{doc}\n");
            }
            let path = format!("documents/{}", document_file(&free));
            target.file(&path, text.len() as u64, 0, false, &mut text.as_bytes())?;
            written.items += 1;
            written.bytes += text.len() as u64;
        }
        Ok(written)
    }

    fn file(&self, path: &str, frame: &FileFrame, target: &mut dyn Target) -> Result<u64, Failure> {
        let place = format!("files/{path}");
        let mtime = frame.mtime;
        match (&frame.content, frame.kind) {
            (Content::Target(to), _) => target.link(&place, mtime, to)?,
            (_, FileKind::Dir) => target.dir(&place, mtime)?,
            (Content::Bin(address), _) => {
                let mut content = ContentReader::open(self.node.store(), &self.view, address)?;
                let size = content.size();
                target.file(&place, size, mtime, frame.exec, &mut content)?;
                return Ok(size);
            }
            (Content::Text(text), _) => {
                target.file(&place, text.len() as u64, mtime, frame.exec, &mut text.as_bytes())?;
                return Ok(text.len() as u64);
            }
            (Content::None, _) => target.file(&place, 0, mtime, frame.exec, &mut io::empty())?,
        };
        Ok(0)
    }

    fn tar(&self, out: File) -> Result<Written, Failure> {
        let mut builder = tar::Builder::new(BufWriter::new(out));
        let written = self.everything(&mut Tar(&mut builder))?;
        let file = builder.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(written)
    }

    fn lines(&self, out: File) -> Result<Written, Failure> {
        let mut file = BufWriter::with_capacity(1 << 20, out);
        // Nothing is given up meanwhile.
        let _in_use = self.node.use_contents();
        let (absences, mut absent) = (self.node.known().absences(&self.space), BTreeSet::new());
        let label = self.node.known().label(&self.space).unwrap_or_default();
        let first = json!({"schema": SCHEMA, "space": self.space.to_string(), "name": label.name, "kind": label.kind});
        writeln!(file, "{first}")?;
        let members: Vec<(u64, Sid)> =
            members_of_a_moment(|after, limit| self.view.bulk(after, limit)).into_iter().collect();
        let (mut written, mut chunks) = (Written::default(), BTreeSet::new());
        for batch in members.chunks(BATCH) {
            go_on(self.progress)?;
            for (_, sid) in batch {
                let record = self.view.record(sid).ok_or_else(|| missing(&format!("record {sid}")))?;
                let may_lack = absences.get(sid).is_some_and(|absence| absence.is_away());
                for chunk in Manifest::chunks_listed(&record) {
                    let chunk = chunk.hash;
                    if chunks.insert(chunk) {
                        match self.node.store().read_chunk(&chunk) {
                            Some(bytes) => {
                                writeln!(file, r#"{{"chunk":"{chunk}","base64":"{}"}}"#, BASE64.encode(&bytes))?;
                                written.bytes += bytes.len() as u64;
                            }
                            None if may_lack && !self.node.store().holds_chunk(&chunk) => {
                                writeln!(file, r#"{{"absent":"{chunk}"}}"#)?;
                                absent.insert(chunk);
                            }
                            None => return Err(missing(&format!("chunk {chunk}"))),
                        }
                    } else if !may_lack && absent.contains(&chunk) {
                        return Err(missing(&format!("chunk {chunk}")));
                    }
                }
                writeln!(file, "{}", line_of(&record))?;
                written.items += 1;
                written.bytes += record.encoded().len() as u64;
            }
            let items = [written.items, members.len() as u64];
            self.progress.tell(json!({"phase": "exporting", "items": items, "bytes": [written.bytes, 0]}));
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        written.absent = absent.len() as u64;
        Ok(written)
    }
}

/// The members of a space as they were in one moment, in the order of a bulk stream, read in pieces by `bulk`: nobody waits for long. What
/// is committed meanwhile may have one half before the piece that is read and the other behind it, so all is read until nothing is
/// new: commits are whole, and members never leave.
fn members_of_a_moment(mut bulk: impl FnMut(Option<(u64, Sid)>, usize) -> Vec<(u64, Sid)>) -> BTreeSet<(u64, Sid)> {
    let mut members = BTreeSet::new();
    for _ in 0..PASSES {
        let (before, mut after) = (members.len(), None);
        loop {
            let batch = bulk(after, BATCH);
            let is_last = batch.len() < BATCH;
            after = batch.last().copied();
            members.extend(batch);
            if is_last {
                break;
            }
        }
        if members.len() == before {
            return members;
        }
    }
    // It never rests: at once, then.
    members.extend(bulk(None, usize::MAX));
    members
}

fn missing(what: &str) -> Failure {
    Failure::new(Exit::Verification, "missing", format!("{what} is missing in the store"))
        .hint("`sealtide verify` lists all that is; a sync with a peer brings it back")
}

/// A record as a line: the texts in it are those that are hashed.
fn line_of(record: &Verified) -> String {
    let address = record.address();
    let (ib, gib) = (json!(address.ib()), json!(address.gib()));
    let relations = match record.relations_text() {
        "" => String::new(),
        text => format!(r#","rel8ns":{text}"#),
    };
    let data = match record.kind() {
        Kind::Bytes => format!(r#","base64":"{}""#, BASE64.encode(record.data_bytes())),
        Kind::Json => format!(r#","data":{}"#, record.data_text().unwrap_or("null")),
        Kind::None => String::new(),
    };
    format!(r#"{{"ib":{ib},"gib":{gib}{data}{relations}}}"#)
}

/// The file of a document in `documents`. What is too long for the name of a file is in parts: all but the last are directories, with `+`
/// behind each.
pub(crate) fn document_file(name: &str) -> String {
    let plain = plain(name);
    let parts = plain.as_bytes().chunks(PLAIN_BYTES_MAX).map(String::from_utf8_lossy);
    format!("{}.json", parts.collect::<Vec<_>>().join("+/"))
}

/// A name that every file system takes: letters, digits, `.`, `_`, `-`; all else as `%XX`.
fn plain(name: &str) -> String {
    let byte = |(at, byte): (usize, u8)| {
        let is_plain = byte.is_ascii_alphanumeric() || b"_-".contains(&byte) || (byte == b'.' && at > 0);
        if is_plain { (byte as char).to_string() } else { format!("%{byte:02X}") }
    };
    name.bytes().enumerate().map(byte).collect()
}

struct Dir {
    root: PathBuf,
}

impl Dir {
    fn place(&self, path: &str) -> io::Result<PathBuf> {
        let place = self.root.join(path);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(place)
    }
}

impl Target for Dir {
    fn file(&mut self, path: &str, _: u64, mtime_ms: i64, exec: bool, content: &mut dyn Read) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(if exec { 0o755 } else { 0o644 });
        let place = self.place(path)?;
        let mut file = options.open(&place)?;
        io::copy(content, &mut file)?;
        set_mtime(&place, mtime_ms)?;
        file.sync_data()
    }

    fn link(&mut self, path: &str, mtime_ms: i64, to: &str) -> io::Result<()> {
        let place = self.place(path)?;
        std::os::unix::fs::symlink(to, &place)?;
        set_mtime(&place, mtime_ms)
    }

    // An empty one: nothing is made in it after this.
    fn dir(&mut self, path: &str, mtime_ms: i64) -> io::Result<()> {
        let place = self.place(path)?;
        fs::create_dir_all(&place)?;
        set_mtime(&place, mtime_ms)
    }
}

/// Sets the time of a file, link or directory.
fn set_mtime(place: &Path, mtime_ms: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: mtime_ms.div_euclid(1000), tv_nsec: mtime_ms.rem_euclid(1000) * 1_000_000 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

struct Tar<'a, W: Write>(&'a mut tar::Builder<W>);

impl<W: Write> Tar<'_, W> {
    /// Begins an entry. What its header cannot say of the time, parts of a second and years before 1970, a note says that
    /// goes before it.
    fn header(&mut self, kind: tar::EntryType, size: u64, mtime_ms: i64, mode: u32) -> io::Result<tar::Header> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_mtime(u64::try_from(mtime_ms / 1000).unwrap_or(0));
        if mtime_ms < 0 || mtime_ms % 1000 != 0 {
            let sign = if mtime_ms < 0 { "-" } else { "" };
            let ms = mtime_ms.unsigned_abs();
            let text = format!("{sign}{}.{:03}", ms / 1000, ms % 1000);
            self.0.append_pax_extensions([("mtime", text.as_bytes())])?;
        }
        Ok(header)
    }
}

impl<W: Write> Target for Tar<'_, W> {
    fn file(&mut self, path: &str, size: u64, mtime_ms: i64, exec: bool, content: &mut dyn Read) -> io::Result<()> {
        let mode = if exec { 0o755 } else { 0o644 };
        let mut header = self.header(tar::EntryType::Regular, size, mtime_ms, mode)?;
        self.0.append_data(&mut header, path, content)
    }

    fn link(&mut self, path: &str, mtime_ms: i64, to: &str) -> io::Result<()> {
        let mut header = self.header(tar::EntryType::Symlink, 0, mtime_ms, 0o777)?;
        self.0.append_link(&mut header, path, to)
    }

    fn dir(&mut self, path: &str, mtime_ms: i64) -> io::Result<()> {
        let mut header = self.header(tar::EntryType::Directory, 0, mtime_ms, 0o755)?;
        self.0.append_data(&mut header, path, io::empty())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// Of exports to one place one is made, and the others take nothing of it away.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_an_export_did_not_make_it_does_not_remove() {
        let place = tempfile::tempdir().unwrap();
        let node = Node::new_at(place.path().join("home"));
        node.create_space("Notes", "folder").unwrap();
        let progress = Progress::none();
        for (round, format) in
            [ExportFormat::Dir, ExportFormat::Tar, ExportFormat::Jsonl].into_iter().cycle().take(60).enumerate()
        {
            let (out, start) = (place.path().join(round.to_string()), Barrier::new(4));
            let run = || {
                start.wait();
                export(&node, "Notes", format, &out, &progress).map_err(|failure| failure.code)
            };
            let ends: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1, "{format:?}: {ends:?}");
            assert!(
                ends.iter()
                    .all(|end| end.as_ref().is_ok_and(|_| true) || end.as_ref().is_err_and(|code| code == "exists"))
            );
            assert!(out.exists(), "{format:?}");
        }
    }

    /// Somebody reads the lines as they are written: while there are more to come, nothing is given up.
    #[tokio::test(flavor = "multi_thread")]
    async fn contents_stay_while_they_are_exported() {
        let place = tempfile::tempdir().unwrap();
        let node = Node::new_at(place.path().join("home"));
        let space = node.create_space("Notes", "data").unwrap();
        let many = "x".repeat(200_000);
        for n in 0..16 {
            let doc = serde_json::json!({"n": n, "text": many});
            crate::commands::documents::put(&node, "Notes", &n.to_string(), doc, None).await.unwrap();
        }
        let view = node.store().view(&space).unwrap();
        let progress = crate::api::Progress::none();
        let (mut lines, out) = io::pipe().unwrap();
        let kept = std::thread::scope(|scope| {
            let export = Export { node: &node, space, view, progress: &progress };
            let written = scope.spawn(move || export.lines(std::os::fd::OwnedFd::from(out).into()).map(drop));
            lines.read_exact(&mut [0]).unwrap();
            let kept = node.gives_up_nothing();
            io::copy(&mut lines, &mut io::sink()).unwrap();
            // All of it is written; a pipe cannot be brought to the disk.
            assert_eq!(written.join().unwrap().unwrap_err().code, "io");
            kept
        });
        assert!(kept, "while it is written");
        assert!(!node.gives_up_nothing(), "it is written");
    }

    /// A space into which commits come while it is listed: a record far behind in the order, and one before all of it.
    #[test]
    fn an_export_holds_no_half_of_a_commit() {
        for busy in [1, 40, usize::MAX] {
            let sid = |order: u64, number: usize| (order, Sid([u8::try_from(number % 256).unwrap(); 32]));
            let mut space: BTreeSet<(u64, Sid)> = (10..4000).map(|order| sid(order, 0)).collect();
            let mut calls = 0;
            let members = members_of_a_moment(|after, limit| {
                let behind = space.iter().filter(|item| after.is_none_or(|after| **item > after));
                let batch: Vec<(u64, Sid)> = behind.take(limit).copied().collect();
                calls += 1;
                if calls <= busy {
                    space.extend([sid(1, calls), sid(5000 + calls as u64, calls)]);
                }
                batch
            });
            let halves = members.iter().filter(|(order, _)| *order == 1).count();
            let others = members.iter().filter(|(order, _)| *order > 5000).count();
            assert_eq!(halves, others, "{busy}");
            assert!(halves >= busy.min(16), "{busy}: {halves}");
        }
    }
}
