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

/// An export that is being written.
struct Export<W: Write> {
    out: W,
    lines: u64,
    checkpoints: u64,
}

impl<W: Write> Export<W> {
    /// Writes the head, as [`super::Audit::checkpoints_since`] gives it.
    fn begin(mut out: W, head: &Value) -> io::Result<Self> {
        writeln!(out, "{head}")?;
        Ok(Self { out, lines: 0, checkpoints: 0 })
    }

    /// Writes the next line.
    fn line(&mut self, text: &str) -> io::Result<()> {
        self.lines += 1;
        writeln!(self.out, "{text}")
    }

    /// Whether the line that was written last is the last one that a checkpoint covers.
    fn is_end_of(&self, checkpoint: &Value) -> bool {
        checkpoint["to"] == json!(self.lines)
    }

    /// Writes a checkpoint behind its last line.
    fn checkpoint(&mut self, checkpoint: &Value) -> io::Result<()> {
        self.checkpoints += 1;
        writeln!(self.out, "{}", json!({"checkpoint": checkpoint}))
    }

    /// Writes the end; gives the number of lines and checkpoints.
    fn end(mut self) -> io::Result<(u64, u64)> {
        writeln!(self.out, "{}", json!({"end": {"lines": self.lines}}))?;
        self.out.flush()?;
        Ok((self.lines, self.checkpoints))
    }
}

/// Writes the export of the audit in `dir`. `pages` gives the head and the checkpoints after one, some at a time; gives
/// the number of lines and checkpoints.
///
/// # Errors
/// What `pages` reports, what the disk reports; exit 5 when lines are missing.
pub(crate) fn export_lines(
    dir: &Path,
    out: impl Write,
    mut pages: impl FnMut(u64) -> Result<Value, Failure>,
) -> Result<(u64, u64), Failure> {
    let failed = |error: io::Error| Failure::failed("export", error.to_string());
    let taken = |page: &mut Value| -> VecDeque<Value> {
        page["checkpoints"].as_array_mut().map(std::mem::take).unwrap_or_default().into()
    };
    let mut page = pages(0)?;
    let mut waiting = taken(&mut page);
    let mut export = Export::begin(out, &page["head"]).map_err(failed)?;
    for line in Lines::of(dir).map_err(failed)? {
        export.line(&line.map_err(failed)?).map_err(failed)?;
        let Some(checkpoint) = waiting.pop_front_if(|checkpoint| export.is_end_of(checkpoint)) else { continue };
        export.checkpoint(&checkpoint).map_err(failed)?;
        if waiting.is_empty() {
            waiting = taken(&mut pages(export.checkpoints)?);
        }
    }
    if let Some(checkpoint) = waiting.front() {
        let what = format!("lines are missing: checkpoint {} covers more than there are", checkpoint["n"]);
        return Err(Failure::new(Exit::Verification, "audit", what));
    }
    export.end().map_err(failed)
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
