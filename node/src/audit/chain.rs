//! The lines of an audit one after the other, and the checkpoints between them: what holds wherever they are read.
//!
//! An export is one file of JSON lines that needs neither a home nor a store to be verified:
//!
//! ```text
//! {"schema":"sealtide/audit_export/1","node":"stn1…","key":…,"ed25519":{kid: key}}
//! the lines, byte for byte as they were written
//! {"checkpoint":{…}}          behind the last line that it covers
//! {"end":{"lines":N}}         without it the file was cut
//! ```
//!
//! The node id is the hash of the key, and a `kid` that of its key, so the head can claim no key of others.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, Read, Write};
use std::path::Path;

use data_encoding::{BASE64, HEXLOWER};
use sealtide_crypto::{Ed25519PublicKey, PublicKey, sha256};
use sealtide_identity::NodeId;
use serde_json::{Value, json};

use super::read::Lines;
use super::{AuditReport, checkpoint};
use crate::failure::{Exit, Failure};

/// The schema of an export.
pub(crate) const EXPORT_SCHEMA: &str = "sealtide/audit_export/1";
/// Bytes of one line of an export, at most.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Ed25519 keys in the head of an export, at most.
const KEYS_MAX: usize = 1_024;

/// Whose audit it is, and the keys that sign its checkpoints.
pub(super) struct Signers<'a> {
    pub(super) node: &'a PublicKey,
    pub(super) keys: &'a BTreeMap<String, Ed25519PublicKey>,
}

/// Lines and checkpoints that were found good so far.
#[derive(Default)]
pub(super) struct Chain {
    pub(super) seq: u64,
    prev: [u8; 32],
    covered: u64,
    checkpoints: u64,
}

impl Chain {
    /// Takes the next line.
    pub(super) fn line(&mut self, text: &str) -> Result<(), String> {
        let value: Value = serde_json::from_str(text).map_err(|_| format!("audit line {} is damaged", self.seq + 1))?;
        self.seq += 1;
        if value["[SEQ]"] != json!(self.seq) || value["[PREV]"] != json!(HEXLOWER.encode(&self.prev)) {
            return Err(format!("audit line {} does not follow the line before it", self.seq));
        }
        self.prev = sha256(text.as_bytes());
        Ok(())
    }

    /// Takes a checkpoint that ends with the line that was taken last.
    // Spec: GW-79
    pub(super) fn checkpoint(&mut self, checkpoint: &Value, signers: &Signers<'_>) -> Result<(), String> {
        let follows = checkpoint["n"] == json!(self.checkpoints + 1)
            && checkpoint["from"] == json!(self.covered + 1)
            && checkpoint["to"] == json!(self.seq);
        if !follows {
            return Err(format!("audit checkpoint {} does not follow the one before it", checkpoint["n"]));
        }
        checkpoint::check(checkpoint, &self.prev, signers.node, signers.keys)?;
        (self.checkpoints, self.covered) = (self.checkpoints + 1, self.seq);
        Ok(())
    }

    pub(super) fn report(&self) -> AuditReport {
        AuditReport { lines: self.seq, checkpoints: self.checkpoints, not_yet_signed: self.seq - self.covered }
    }
}

/// The first line of an export.
pub(crate) fn export_head(node: &PublicKey, keys: &BTreeMap<String, Ed25519PublicKey>) -> Value {
    let ed25519: BTreeMap<&String, String> =
        keys.iter().map(|(kid, key)| (kid, BASE64.encode(key.as_bytes()))).collect();
    json!({
        "schema": EXPORT_SCHEMA,
        "node": NodeId::of(node).to_string(),
        "key": BASE64.encode(node.as_bytes()),
        "ed25519": ed25519,
    })
}

/// An export that is made while it is read. Whatever goes wrong ends it without its last line.
pub(crate) struct Export<P> {
    source: Lines,
    pages: P,
    /// Checkpoints that were not reached yet.
    waiting: VecDeque<Value>,
    lines: u64,
    checkpoints: u64,
    /// Made, and not read yet.
    made: VecDeque<u8>,
    is_over: bool,
}

impl<P: FnMut(u64) -> Result<Value, Failure>> Export<P> {
    /// Of the audit in `dir`. `pages` gives the head, as [`super::Audit::checkpoints_since`] does, and the checkpoints after one,
    /// some at a time.
    ///
    /// # Errors
    /// What `pages` reports, what the disk reports.
    pub(crate) fn begin(dir: &Path, mut pages: P) -> Result<Self, Failure> {
        let mut page = pages(0)?;
        let (source, waiting) = (Lines::of(dir).map_err(export_failed)?, checkpoints_of(&mut page));
        let mut made = VecDeque::new();
        put(&mut made, &page["head"]);
        Ok(Self { source, pages, waiting, lines: 0, checkpoints: 0, made, is_over: false })
    }

    /// Makes the next line, with the checkpoint behind it, or the end.
    fn more(&mut self) -> Result<(), Failure> {
        if let Some(line) = self.source.next() {
            put(&mut self.made, &line.map_err(export_failed)?);
            self.lines += 1;
            let is_reached = |checkpoint: &mut Value| checkpoint["to"] == json!(self.lines);
            let Some(checkpoint) = self.waiting.pop_front_if(is_reached) else { return Ok(()) };
            put(&mut self.made, &json!({"checkpoint": checkpoint}));
            self.checkpoints += 1;
            if self.waiting.is_empty() {
                self.waiting = checkpoints_of(&mut (self.pages)(self.checkpoints)?);
            }
            return Ok(());
        }
        if let Some(checkpoint) = self.waiting.front() {
            let what = format!("lines are missing: checkpoint {} covers more than there are", checkpoint["n"]);
            return Err(Failure::new(Exit::Verification, "audit", what));
        }
        put(&mut self.made, &json!({"end": {"lines": self.lines}}));
        self.is_over = true;
        Ok(())
    }
}

impl<P: FnMut(u64) -> Result<Value, Failure>> Read for Export<P> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.made.is_empty() && !self.is_over {
            self.more().map_err(io::Error::other)?;
        }
        self.made.read(to)
    }
}

fn put(made: &mut VecDeque<u8>, line: &dyn std::fmt::Display) {
    made.extend(format!("{line}\n").as_bytes());
}

fn checkpoints_of(page: &mut Value) -> VecDeque<Value> {
    page["checkpoints"].as_array_mut().map(std::mem::take).unwrap_or_default().into()
}

fn export_failed(error: io::Error) -> Failure {
    Failure::failed("export", error.to_string())
}

/// Writes an [`Export`]; gives the number of lines and checkpoints.
///
/// # Errors
/// What `pages` reports, what the disk reports; exit 5 when lines are missing.
pub(crate) fn export_lines(
    dir: &Path,
    mut out: impl Write,
    pages: impl FnMut(u64) -> Result<Value, Failure>,
) -> Result<(u64, u64), Failure> {
    let mut export = Export::begin(dir, pages)?;
    loop {
        out.write_all(export.made.make_contiguous()).map_err(export_failed)?;
        export.made.clear();
        if export.is_over {
            out.flush().map_err(export_failed)?;
            return Ok((export.lines, export.checkpoints));
        }
        export.more()?;
    }
}

/// Verifies an export from its first byte to its last. Gives whose audit it is, and what stands in it.
///
/// # Errors
/// What is wrong first, in words.
// Spec: GW-79
pub(crate) fn verify_export(mut from: impl BufRead, wanted: Option<&NodeId>) -> Result<(NodeId, AuditReport), String> {
    let head = read_line(&mut from)?.ok_or("the file is empty")?;
    let head: Value = serde_json::from_str(&head).map_err(|_| "the file is no export of an audit")?;
    if head["schema"] != EXPORT_SCHEMA {
        return Err("the file is no export of an audit".to_owned());
    }
    let (key, keys) = read_keys(&head).ok_or("the keys at the head of the export are damaged")?;
    let node = NodeId::of(&key);
    if head["node"] != node.to_string() || wanted.is_some_and(|wanted| *wanted != node) {
        return Err(format!("the export is one of {node}"));
    }
    let (mut chain, signers) = (Chain::default(), Signers { node: &key, keys: &keys });
    while let Some(line) = read_line(&mut from)? {
        // Lines of the audit begin with their number; the export's own begin otherwise.
        if line.starts_with("{\"[SEQ]\"") {
            chain.line(&line)?;
            continue;
        }
        let value: Value = serde_json::from_str(&line).map_err(|_| format!("damage behind line {}", chain.seq))?;
        if let Some(checkpoint) = value.get("checkpoint") {
            chain.checkpoint(checkpoint, &signers)?;
            continue;
        }
        if value["end"]["lines"] != json!(chain.seq) || read_line(&mut from)?.is_some() {
            return Err(format!("what stands behind line {} is neither a line nor the end", chain.seq));
        }
        return Ok((node, chain.report()));
    }
    Err(format!("the export was cut behind line {}", chain.seq))
}

fn read_line(from: &mut impl BufRead) -> Result<Option<String>, String> {
    let mut bytes = Vec::new();
    from.take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).map_err(|error| error.to_string())?;
    match bytes.pop() {
        None => Ok(None),
        Some(b'\n') => String::from_utf8(bytes).map(Some).map_err(|_| "a line is no text".to_owned()),
        Some(_) => Err("the last line was cut, or is too long".to_owned()),
    }
}

fn read_keys(head: &Value) -> Option<(PublicKey, BTreeMap<String, Ed25519PublicKey>)> {
    let bytes = |value: &Value| BASE64.decode(value.as_str()?.as_bytes()).ok();
    let node = PublicKey::parse(&bytes(&head["key"])?).ok()?;
    let list = head["ed25519"].as_object().filter(|keys| keys.len() <= KEYS_MAX)?;
    let key = |(kid, value): (&String, &Value)| {
        let bytes = bytes(value)?;
        let named = HEXLOWER.encode(&sha256(&bytes)[..8]) == *kid;
        Some((kid.clone(), Ed25519PublicKey::parse(&bytes).ok().filter(|_| named)?))
    };
    Some((node, list.iter().map(key).collect::<Option<_>>()?))
}
