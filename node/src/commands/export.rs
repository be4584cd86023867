//! `export SPACE` and `import FILE`: nobody is locked in.
//!
//! ```text
//! dir, tar   files/PATH        what stands in the folder now, with times and the right to run
//!            documents/NAME.json
//! jsonl      {"schema":"sealtide/export/1","space","name","kind"}   one line
//!            {"chunk","base64"}                                     before the record that lists it
//!            {"ib","gib","data","rel8ns"}, or "base64" for data     every record, all history, oldest first
//! ```
//!
//! In the lines `data` and `rel8ns` are the very texts that are hashed, so the addresses can be checked by anybody. A new
//! home takes the lines back with `import`, history and all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use data_encoding::{BASE64, HEXLOWER};
use sealtide_crypto::blake3;
use sealtide_ibgib::json::{Js, Rules, parse};
use sealtide_ibgib::record::Encodable;
use sealtide_ibgib::{Address, ChunkHash, Content, FileFrame, FileKind, FrameFacts, Kind, Manifest, Sid, Verified};
use sealtide_identity::{Role, SpaceId};
use sealtide_store::{SpaceHandle, SpaceLabel};
use sealtide_sync::{CommitRequest, SpaceView};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::Progress;
use crate::commands::target::{DOC_IB, name_of};
use crate::commands::{role_name, store_failure};
use crate::content::ContentReader;
use crate::failure::{Exit, Failure};
use crate::node::Node;
use crate::share::{live_files, tip_records};

/// The schema of the first line.
const SCHEMA: &str = "sealtide/export/1";
/// Bytes of a line, at most: the largest chunk in base64, with room.
const LINE_BYTES_MAX: u64 = 8 << 20;
/// Records of one commit, at most.
const COMMIT_RECORDS: usize = 1024;
/// Records that are read at once.
const BATCH: usize = 1024;

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
    if fs::symlink_metadata(out).is_ok() {
        let text = format!("{} exists already", out.display());
        return Err(Failure::usage("exists", text).hint("name another place with --out"));
    }
    let view = node.store().view(&id).ok_or_else(|| Failure::failed("no_space", "the space is gone"))?;
    let export = Export { node, space: id, view, progress };
    let written = match format {
        ExportFormat::Dir => export.everything(&mut Dir { root: out.to_owned() }),
        ExportFormat::Tar => export.tar(out),
        ExportFormat::Jsonl => export.lines(out),
    };
    let written = written.inspect_err(|_| remove(out))?;
    Ok(json!({
        "schema": "sealtide/export_done/1", "space": space, "format": format, "out": out, "items": written.items,
        "bytes": written.bytes,
    }))
}

/// What was begun is worth nothing.
fn remove(out: &Path) {
    let _ = if out.is_dir() { fs::remove_dir_all(out) } else { fs::remove_file(out) };
}

#[derive(Clone, Copy, Debug, Default)]
struct Written {
    items: u64,
    bytes: u64,
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
    fn link(&mut self, path: &str, to: &str) -> io::Result<()>;
    fn dir(&mut self, path: &str) -> io::Result<()>;
}

impl Export<'_> {
    fn everything(&self, target: &mut dyn Target) -> Result<Written, Failure> {
        let mut written = Written::default();
        let files = live_files(&self.view);
        let all = files.len() as u64;
        for (path, frame) in files {
            written.bytes += self.file(&path, &frame, target)?;
            written.items += 1;
            let _ = self
                .progress
                .send(json!({"phase": "exporting", "items": [written.items, all], "bytes": [written.bytes, 0]}));
        }
        for info in self.view.timelines_of(DOC_IB) {
            let Some(tip) = tip_records(&self.view, &info.timeline).into_iter().next() else { continue };
            let (Some((name, true)), Some(data)) = (name_of(&tip), tip.object()) else { continue };
            let text = format!("{:#}\n", data.get("doc").cloned().unwrap_or_default());
            let path = format!("documents/{}.json", plain(&name));
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
            (Content::Target(to), _) => target.link(&place, to)?,
            (_, FileKind::Dir) => target.dir(&place)?,
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

    fn tar(&self, out: &Path) -> Result<Written, Failure> {
        let mut builder = tar::Builder::new(BufWriter::new(File::create_new(out)?));
        let written = self.everything(&mut Tar(&mut builder))?;
        let file = builder.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(written)
    }

    fn lines(&self, out: &Path) -> Result<Written, Failure> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create_new(out)?);
        let label = self.node.known().label(&self.space).unwrap_or_default();
        let first = json!({"schema": SCHEMA, "space": self.space.to_string(), "name": label.name, "kind": label.kind});
        writeln!(file, "{first}")?;
        let all = self.view.info().map_or(0, |info| info.records);
        let (mut written, mut after, mut chunks) = (Written::default(), None, BTreeSet::new());
        loop {
            let batch: Vec<(u64, Sid)> = self.view.bulk(after, BATCH);
            let Some(last) = batch.last().copied() else { break };
            for (_, sid) in batch {
                let record = self.view.record(&sid).ok_or_else(|| missing(&format!("record {sid}")))?;
                for chunk in Manifest::chunks_listed(&record) {
                    let chunk = chunk.hash;
                    if chunks.insert(chunk) {
                        let bytes =
                            self.node.store().read_chunk(&chunk).ok_or_else(|| missing(&format!("chunk {chunk}")))?;
                        writeln!(file, r#"{{"chunk":"{chunk}","base64":"{}"}}"#, BASE64.encode(&bytes))?;
                        written.bytes += bytes.len() as u64;
                    }
                }
                writeln!(file, "{}", line_of(&record))?;
                written.items += 1;
                written.bytes += record.encoded().len() as u64;
            }
            after = Some(last);
            let _ = self
                .progress
                .send(json!({"phase": "exporting", "items": [written.items, all], "bytes": [written.bytes, 0]}));
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(written)
    }
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
        let mut file = options.open(self.place(path)?)?;
        io::copy(content, &mut file)?;
        if let Ok(ms) = u64::try_from(mtime_ms) {
            file.set_modified(UNIX_EPOCH + Duration::from_millis(ms))?;
        }
        file.sync_data()
    }

    fn link(&mut self, path: &str, to: &str) -> io::Result<()> {
        std::os::unix::fs::symlink(to, self.place(path)?)
    }

    fn dir(&mut self, path: &str) -> io::Result<()> {
        fs::create_dir_all(self.place(path)?)
    }
}

struct Tar<'a, W: Write>(&'a mut tar::Builder<W>);

impl<W: Write> Tar<'_, W> {
    fn header(kind: tar::EntryType, size: u64, mtime_ms: i64, mode: u32) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_mtime(u64::try_from(mtime_ms / 1000).unwrap_or(0));
        header
    }
}

impl<W: Write> Target for Tar<'_, W> {
    fn file(&mut self, path: &str, size: u64, mtime_ms: i64, exec: bool, content: &mut dyn Read) -> io::Result<()> {
        let mode = if exec { 0o755 } else { 0o644 };
        self.0.append_data(&mut Self::header(tar::EntryType::Regular, size, mtime_ms, mode), path, content)
    }

    fn link(&mut self, path: &str, to: &str) -> io::Result<()> {
        self.0.append_link(&mut Self::header(tar::EntryType::Symlink, 0, 0, 0o777), path, to)
    }

    fn dir(&mut self, path: &str) -> io::Result<()> {
        self.0.append_data(&mut Self::header(tar::EntryType::Directory, 0, 0, 0o755), path, io::empty())
    }
}

/// Takes the lines of an export in, as the space that they were. Every record is checked as if a peer had sent it.
///
/// # Errors
/// Exit 2 when the space is here, 5 for a line that is no record or chunk.
pub(crate) fn import(node: &Node, file: &Path, progress: &Progress) -> Result<Value, Failure> {
    let named = |error: io::Error| Failure::failed("io", format!("{}: {error}", file.display()));
    let all = fs::metadata(file).map_err(named)?.len();
    let mut lines =
        Lines { reader: BufReader::with_capacity(1 << 20, File::open(file).map_err(named)?), number: 0, bytes: 0 };
    let wrong = |number: u64, what: &str| {
        Failure::new(Exit::Verification, "import", format!("{}, line {number}: {what}", file.display()))
    };
    let first: Value =
        lines.next().map_err(named)?.and_then(|line| serde_json::from_str(&line).ok()).unwrap_or_default();
    let space: Option<SpaceId> = first["space"].as_str().and_then(|text| text.parse().ok());
    let space = space.filter(|_| first["schema"] == SCHEMA).ok_or_else(|| wrong(1, "this is no export of a space"))?;
    if node.has_space(&space) {
        let text = format!("the space is here already, as {}", node.label(&space));
        return Err(Failure::usage("space_here", text).hint("`sealtide spaces remove` forgets it first"));
    }
    node.store().adopt_space(space).map_err(store_failure)?;
    let taken = take_lines(node, space, &mut lines, |number, what| wrong(number, what), &mut |bytes, records| {
        let _ = progress.send(json!({"phase": "importing", "items": [records, 0], "bytes": [bytes, all]}));
    });
    let records = match taken {
        Ok(records) => records,
        Err(failure) => {
            node.store().remove_space(&space).map_err(store_failure)?;
            return Err(failure);
        }
    };
    let name = node.free_label(first["name"].as_str().unwrap_or("imported"));
    // A kind of the own spaces (`audit`) told by a file would have them taken for each other.
    let kind = if first["kind"] == "folder" { "folder" } else { "data" };
    let label = SpaceLabel { name: name.clone(), kind: kind.to_owned(), dir: None };
    node.known().put_label(&space, Some(&label)).map_err(store_failure)?;
    node.grant(space, node.id(), Role::Admin)?;
    node.audit().note("imported", &[("space", &space.to_string())]);
    let role = node.engine().role(&node.id(), &space).map(role_name);
    Ok(
        json!({"schema": "sealtide/import/1", "space": space.to_string(), "name": name, "records": records, "role": role}),
    )
}

fn take_lines(
    node: &Node,
    space: SpaceId,
    lines: &mut Lines,
    wrong: impl Fn(u64, &str) -> Failure,
    told: &mut dyn FnMut(u64, u64),
) -> Result<u64, Failure> {
    let (mut batch, mut records) = (Vec::new(), 0u64);
    let store = node.store();
    let view = store.view(&space).ok_or_else(|| Failure::failed("no_space", "the space is gone"))?;
    // Frames that are read and not committed yet.
    let mut known: BTreeMap<Address, FrameFacts> = BTreeMap::new();
    let commit = |batch: &mut Vec<Verified>| {
        let records = std::mem::take(batch);
        let request = CommitRequest { saga: None, staged: None, records, expected: Vec::new(), strict: false };
        store.commit(&space, &request).map(drop).map_err(store_failure)
    };
    while let Some(line) = lines.next().map_err(|error| wrong(0, &error.to_string()))? {
        let number = lines.number;
        match read_line(&line).ok_or_else(|| wrong(number, "neither a record nor a chunk"))? {
            Line::Chunk(hash, bytes) if blake3(&bytes) == hash.0 => {
                store.put_chunk(hash, &bytes).map_err(store_failure)?
            }
            Line::Chunk(..) => return Err(wrong(number, "the chunk has another hash")),
            Line::Record(record) => {
                let mut before = |address: &Address| known.get(address).cloned().or_else(|| view.frame_facts(address));
                record.check_counter(&mut before).map_err(|refusal| wrong(number, &refusal.to_string()))?;
                known.extend(record.frame().map(|facts| (record.address().clone(), facts)));
                batch.push(*record);
                records += 1;
                if batch.len() >= COMMIT_RECORDS {
                    commit(&mut batch)?;
                    known.clear();
                    told(lines.bytes, records);
                }
            }
        }
    }
    commit(&mut batch)?;
    Ok(records)
}

enum Line {
    Chunk(ChunkHash, Vec<u8>),
    Record(Box<Verified>),
}

/// Reads a line; a record is accepted as strictly as one that a peer sends.
fn read_line(line: &str) -> Option<Line> {
    let Js::Object(mut object) = parse(line, Rules::Strict).ok()? else { return None };
    let text = |name: &str| object.named(name).as_string().and_then(|text| text.as_str()).map(str::to_owned);
    let bytes = text("base64").map(|text| BASE64.decode(text.as_bytes()));
    if let Some(chunk) = text("chunk") {
        let hash = HEXLOWER.decode(chunk.as_bytes()).ok()?.try_into().ok()?;
        return Some(Line::Chunk(ChunkHash(hash), bytes?.ok()?));
    }
    if let Some(bytes) = bytes {
        object.set("data", Js::Bytes(bytes.ok()?));
    }
    let record = Verified::accept(Encodable::of(&object)?.encode().into()).ok()?;
    Some(Line::Record(Box::new(record)))
}

/// Lines of a file, each bounded.
struct Lines {
    reader: BufReader<File>,
    number: u64,
    bytes: u64,
}

impl Lines {
    fn next(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        let read = (&mut self.reader).take(LINE_BYTES_MAX).read_line(&mut line)?;
        self.number += 1;
        self.bytes += read as u64;
        if read as u64 == LINE_BYTES_MAX {
            return Err(io::Error::other(format!("line {} is too long", self.number)));
        }
        Ok((read > 0).then_some(line))
    }
}
