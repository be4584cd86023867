//! The lines of an export become the space that they were, with all its history.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use data_encoding::{BASE64, HEXLOWER};
use sealtide_crypto::blake3;
use sealtide_ibgib::json::{Js, Rules, parse};
use sealtide_ibgib::record::Encodable;
use sealtide_ibgib::{ChunkHash, Manifest, Verified};
use sealtide_identity::SpaceId;
use sealtide_store::SpaceHandle;
use sealtide_sync::{CommitRequest, Fitting, SpaceView};
use serde_json::Value;

use super::{COMMIT_BYTES, Import};
use crate::commands::export::SCHEMA;
use crate::commands::store_failure;
use crate::engine::only_releases_need;
use crate::failpoint;
use crate::failure::{Exit, Failure};
use crate::known::Absence;

/// Bytes of a line, at most: the largest chunk in base64, with room.
const LINE_BYTES_MAX: u64 = 8 << 20;
/// Records of one commit, at most.
const COMMIT_RECORDS: usize = 1024;

/// What the first line says.
pub(super) struct Head {
    pub(super) space: SpaceId,
    pub(super) name: String,
    pub(super) kind: &'static str,
}

/// The lines of an export.
pub(super) struct Lines<'a> {
    import: &'a Import<'a>,
    reader: BufReader<File>,
    number: u64,
    bytes: u64,
    bytes_all: u64,
}

enum Line {
    Chunk(ChunkHash, Vec<u8>),
    /// A chunk of an old release that was not there either.
    Absent(ChunkHash),
    Record(Box<Verified>),
}

impl<'a> Lines<'a> {
    /// Reads the first line.
    ///
    /// # Errors
    /// Exit 5 when it is not that of an export.
    pub(super) fn open(import: &'a Import<'a>, file: File) -> Result<(Self, Head), Failure> {
        let bytes_all = file.metadata()?.len();
        let reader = BufReader::with_capacity(1 << 20, file);
        let mut lines = Self { import, reader, number: 0, bytes: 0, bytes_all };
        let first: Value = lines.next()?.and_then(|line| serde_json::from_str(&line).ok()).unwrap_or_default();
        let space = first["space"].as_str().and_then(|text| text.parse().ok()).filter(|_| first["schema"] == SCHEMA);
        let head = Head {
            space: space.ok_or_else(|| lines.wrong("this is no export of a space"))?,
            name: first["name"].as_str().unwrap_or("imported").to_owned(),
            // A kind of the own spaces (`audit`) told by a file would have them taken for each other.
            kind: if first["kind"] == "folder" { "folder" } else { "data" },
        };
        Ok((lines, head))
    }

    /// Takes every record in, checked as if a peer had sent it; gives how many there are, and how many chunks are absent.
    ///
    /// # Errors
    /// Exit 5 for a line that is no record or chunk, and for a record that needs a chunk or a record that is not there.
    pub(super) fn take(&mut self, space: SpaceId) -> Result<(u64, u64), Failure> {
        let (mut batch, mut bytes, mut records) = (Vec::new(), 0, 0);
        let (mut absent, mut lacking) = (BTreeSet::new(), Vec::new());
        let (store, engine) = (self.import.node.store(), self.import.node.engine());
        let view = store.view(&space).ok_or_else(|| Failure::failed("no_space", "the space is gone"))?;
        // What a record names may come with a later line.
        let mut fitting = Fitting::new(Some(&view));
        let commit = |batch: &mut Vec<Verified>| {
            failpoint::hit("import_commit");
            let records = std::mem::take(batch);
            let request = CommitRequest::local(records);
            store.commit(&space, &request).map(drop).map_err(store_failure)
        };
        // A local change has all its chunks; what is received may go without.
        let receive = |record: Verified| {
            let saga = engine.new_saga_id();
            store.stage(&space, &saga, &[record], &[]).map_err(store_failure)?;
            let (saga, records) = (Some(saga), Vec::new());
            let request = CommitRequest { saga, staged: None, records, expected: Vec::new(), strict: false };
            store.commit(&space, &request).map(drop).map_err(store_failure)
        };
        while let Some(line) = self.next()? {
            match read_line(&line).ok_or_else(|| self.wrong("neither a record nor a chunk"))? {
                Line::Chunk(hash, bytes) if blake3(&bytes) == hash.0 => {
                    store.put_chunk(hash, &bytes).map_err(store_failure)?
                }
                Line::Chunk(..) => return Err(self.wrong("the chunk has another hash")),
                Line::Absent(hash) => drop(absent.insert(hash)),
                Line::Record(record) => {
                    fitting.add(&record).map_err(|misfit| self.wrong(&misfit.to_string()))?;
                    records += 1;
                    let chunks = Manifest::chunks_listed(&record);
                    let missing = || chunks.iter().map(|chunk| chunk.hash).filter(|hash| !store.holds_chunk(hash));
                    if let Some(hash) = missing().find(|hash| !absent.contains(hash)) {
                        return Err(self.wrong(&format!("chunk {hash} of the record is missing")));
                    }
                    if missing().next().is_some() {
                        lacking.push((*record).clone());
                        receive(*record)?;
                        continue;
                    }
                    bytes += record.encoded().len();
                    batch.push(*record);
                    if batch.len() >= COMMIT_RECORDS || bytes >= COMMIT_BYTES {
                        commit(&mut batch)?;
                        bytes = 0;
                        fitting.committed();
                        self.import.tell(records, self.bytes, self.bytes_all);
                    }
                }
            }
        }
        commit(&mut batch)?;
        // Whoever syncs a space needs every record that another names.
        if let Err(misfit) = fitting.missing() {
            return Err(self.wrong(&misfit.to_string()).hint(
                "export the space again: earlier versions left records out when something was written meanwhile",
            ));
        }
        if !lacking.is_empty() {
            if !only_releases_need(&lacking, &mut every_record(&view)) {
                return Err(self.wrong("a content is absent that is not the tar of a release"));
            }
            let never_came = lacking.iter().map(|record| (record.sid(), Absence::NeverCame));
            let known = self.import.node.known();
            known.change_absences(&space, |absences| absences.extend(never_came)).map_err(store_failure)?;
        }
        Ok((records, absent.len() as u64))
    }

    /// The next line, bounded.
    fn next(&mut self) -> Result<Option<String>, Failure> {
        let mut line = String::new();
        let read = (&mut self.reader).take(LINE_BYTES_MAX).read_line(&mut line);
        self.number += 1;
        let read = read.map_err(|error: io::Error| self.wrong(&error.to_string()))? as u64;
        self.bytes += read;
        if read == LINE_BYTES_MAX {
            return Err(self.wrong("the line is too long"));
        }
        Ok((read > 0).then_some(line))
    }

    fn wrong(&self, problem: &str) -> Failure {
        let text = format!("{}, line {}: {problem}", self.import.path.display(), self.number);
        Failure::new(Exit::Verification, "import", text)
    }
}

/// Every member of a space.
fn every_record(view: &SpaceHandle) -> impl Iterator<Item = Verified> {
    let mut after = None;
    let batches = std::iter::from_fn(move || {
        let batch = view.bulk(after, COMMIT_RECORDS);
        after = Some(*batch.last()?);
        Some(batch)
    });
    batches.flatten().filter_map(|(_, sid)| view.record(&sid))
}

/// Reads a line; a record is accepted as strictly as one that a peer sends.
fn read_line(line: &str) -> Option<Line> {
    let Js::Object(mut object) = parse(line, Rules::Strict).ok()? else { return None };
    let text = |name: &str| object.named(name).as_string().and_then(|text| text.as_str()).map(str::to_owned);
    let bytes = text("base64").map(|text| BASE64.decode(text.as_bytes()));
    let hash = |text: String| Some(ChunkHash(HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()?));
    if let Some(chunk) = text("chunk") {
        return Some(Line::Chunk(hash(chunk)?, bytes?.ok()?));
    }
    if let Some(chunk) = text("absent") {
        return hash(chunk).map(Line::Absent);
    }
    if let Some(bytes) = bytes {
        object.set("data", Js::Bytes(bytes.ok()?));
    }
    let record = Verified::accept(Encodable::of(&object)?.encode().into()).ok()?;
    Some(Line::Record(Box::new(record)))
}
