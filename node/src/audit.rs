//! The audit: one line of JSON for each action, each with the hash of the line before, and signed checkpoints.
//!
//! Lines go to `audit/NNNN.jsonl` without waiting for the disk, except for actions of an admin. Every 256 lines, after
//! ten seconds and at stop a checkpoint frame on the node's own timeline `audit` covers them; it is signed with the
//! node key under the label `audit1 checkpoint`. Spec: gateway §10.1. The timeline stands in a space of kind `audit`
//! that is never shared.

mod chain;
mod checkpoint;
mod event;
mod read;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use data_encoding::HEXLOWER;
use sealtide_crypto::sha256;
use sealtide_ibgib::{Object, Relations, Stamp, Verified, evolve, genesis, space_genesis, uuid};
use sealtide_identity::SpaceId;
use sealtide_store::Store;
use sealtide_sync::{CommitRequest, SpaceView};
use serde_json::{Value, json};

use crate::commands::rfc3339;
use crate::failure::Failure;
use crate::home::{Home, Identity};
use crate::known::Known;
use crate::real::now;
use crate::world::OsEntropy;

use chain::{Chain, Signers};
pub(crate) use chain::{Export, export_lines, verify_export};
pub use checkpoint::CheckpointSigner;
use checkpoint::Covered;
pub use event::AuditEvent;
pub use read::{LineFilter, holds, since, tail};
use read::{file_path, files};
pub(crate) use read::{lines_after, lines_before};

/// The kind of the space that holds the audit timeline.
pub const AUDIT_KIND: &str = "audit";
/// Lines that one checkpoint covers, at most.
const CHECKPOINT_LINES: u64 = 256;
/// Milliseconds after which uncovered lines get a checkpoint.
const CHECKPOINT_MS: u64 = 10_000;
/// Checkpoints in one answer, at most: some 6 KiB each.
const CHECKPOINTS_MAX: usize = 64;
/// Bytes after which the next file begins.
const FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Characters of one value, at most.
const VALUE_CHARS: usize = 256;
/// Actions whose line waits for the disk.
const ADMIN: [&str; 12] = [
    "node:space_created",
    "node:space_removed",
    "node:ticket_made",
    "node:ticket_revoked",
    "node:peer_enrolled",
    "node:peer_revoked",
    "node:identity_made",
    "node:identity_recovered",
    "node:identity_revoked",
    "node:identity_delegated",
    "node:identity_undelegated",
    "node:offline_sign",
];

/// The audit of one node.
pub struct Audit {
    dir: PathBuf,
    store: Store,
    identity: Identity,
    second: OnceLock<Weak<dyn CheckpointSigner>>,
    state: Mutex<State>,
}

struct State {
    file: File,
    number: u32,
    bytes: u64,
    seq: u64,
    prev: [u8; 32],
    /// The last line that a checkpoint covers.
    covered: u64,
    /// How many checkpoints there are.
    checkpoints: u64,
    first_uncovered_ms: Option<u64>,
    /// Whether the last line could not be written, so that a piece of it may stand in the file.
    failing: bool,
    /// How many lines could not be written.
    errors: u64,
    /// How many of them the audit does not tell of yet.
    lost: u64,
}

impl Audit {
    /// Opens the audit of a home and finds its end. A torn last line is cut.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn open(home: &Home, store: Store, identity: Identity) -> Result<Self, Failure> {
        let dir = home.audit_dir();
        let failed = |error: std::io::Error| Failure::failed("audit", format!("{}: {error}", dir.display()));
        let number = files(&dir).map_err(failed)?.last().map_or(1, |(number, _)| *number);
        let path = file_path(&dir, number);
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path).map_err(failed)?;
        let end = last_line(&mut file).map_err(failed)?;
        let (mut seq, mut prev) = (0, [0; 32]);
        match end.line {
            Some(line) => {
                seq = serde_json::from_str::<Value>(&line).ok().and_then(|line| line["[SEQ]"].as_u64()).unwrap_or(0);
                prev = sha256(line.as_bytes());
            }
            None if number > 1 => {
                let before = File::open(file_path(&dir, number - 1)).map_err(failed)?;
                let line = BufReader::new(before).lines().map_while(Result::ok).last().unwrap_or_default();
                seq = serde_json::from_str::<Value>(&line).ok().and_then(|line| line["[SEQ]"].as_u64()).unwrap_or(0);
                prev = sha256(line.as_bytes());
            }
            None => {}
        }
        let (checkpoints, covered) = match checkpoint_tip(&store) {
            Some((_, tip)) => {
                let told = tip.object().and_then(|data| data.get("checkpoint").cloned()).unwrap_or_default();
                (told["n"].as_u64().unwrap_or(0), told["to"].as_u64().unwrap_or(0))
            }
            None => (0, 0),
        };
        let first_uncovered_ms = (seq > covered).then(|| now().wall_ms);
        let state = State {
            file,
            number,
            bytes: end.bytes,
            seq,
            prev,
            covered,
            checkpoints,
            first_uncovered_ms,
            failing: false,
            errors: 0,
            lost: 0,
        };
        Ok(Self { dir, store, identity, second: OnceLock::new(), state: Mutex::new(state) })
    }

    /// From here on checkpoints are signed by this too, as long as it is there. The first to be named stays.
    pub fn sign_with(&self, second: Weak<dyn CheckpointSigner>) {
        let _ = self.second.set(second);
    }

    /// Writes one line. `event` gets the prefix `node:`; values from outside are cut and escaped.
    pub fn note(&self, event: &str, members: &[(&str, &str)]) {
        let name = format!("node:{event}");
        let is_admin = ADMIN.contains(&name.as_str());
        let event = members.iter().fold(AuditEvent::normal(name), |event, (name, value)| event.member(name, value));
        self.event(&if is_admin { event.durable() } else { event });
    }

    /// Writes one line. What cannot be written is told to the log.
    pub fn event(&self, event: &AuditEvent) {
        if let Err(error) = self.try_event(event) {
            tracing::error!(%error, event = event.name, "the audit could not be written");
        }
    }

    /// Writes one line; gives its number.
    ///
    /// # Errors
    /// When it cannot be written, or a durable one does not reach the disk.
    pub fn try_event(&self, event: &AuditEvent) -> std::io::Result<u64> {
        let (number, due) = {
            let mut state = self.lock();
            let written = self.tell_lost(&mut state).and_then(|()| self.append(&mut state, event));
            state.failing = written.is_err();
            state.errors += u64::from(written.is_err());
            state.lost += u64::from(written.is_err());
            written?;
            (state.seq, state.seq.saturating_sub(state.covered) >= CHECKPOINT_LINES)
        };
        if due {
            self.checkpoint();
        }
        Ok(number)
    }

    /// The first line that can be written again says how many could not.
    fn tell_lost(&self, state: &mut State) -> std::io::Result<()> {
        if state.lost > 0 {
            let event = AuditEvent::new("node:audit_lines_lost", "#FF0000").member("lines", state.lost).durable();
            self.append(state, &event)?;
            (state.lost, state.failing) = (0, false);
        }
        Ok(())
    }

    /// Whether the last line could not be written: actions of admins are refused then.
    pub fn is_failing(&self) -> bool {
        self.lock().failing
    }

    /// From now on nothing can be written to it, as on a full disk, and it knows that.
    #[cfg(test)]
    pub(crate) fn fill_disk(&self) {
        self.lock().file = File::open("/dev/null").expect("nobody can write through it");
        self.note("test", &[]);
    }

    /// How many lines could not be written since the start.
    pub fn write_errors(&self) -> u64 {
        self.lock().errors
    }

    /// Where the files are.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// The number of the last line, and of the last checkpoint.
    pub fn position(&self) -> (u64, u64) {
        let state = self.lock();
        (state.seq, state.checkpoints)
    }

    // Spec: GW-80
    fn append(&self, state: &mut State, event: &AuditEvent) -> std::io::Result<()> {
        if state.failing {
            // What a full disk left of a line would spoil the next one.
            state.file.set_len(state.bytes)?;
        }
        if state.bytes >= FILE_BYTES {
            state.file.sync_data()?;
            let path = file_path(&self.dir, state.number + 1);
            state.file = OpenOptions::new().create_new(true).append(true).open(path)?;
            (state.number, state.bytes) = (state.number + 1, 0);
        }
        let time = now().wall_ms;
        let mut line = Object::new();
        line.insert("[SEQ]".to_owned(), json!(state.seq + 1));
        line.insert("[PREV]".to_owned(), json!(HEXLOWER.encode(&state.prev)));
        line.insert("[TES_EVENT]".to_owned(), json!(event.name));
        line.insert("[TIMESTAMP]".to_owned(), json!(time));
        line.insert("[ISO_TIME]".to_owned(), json!(rfc3339(time)));
        line.insert("[USER]".to_owned(), json!(self.identity.id.to_string()));
        line.insert("[THREAD_GROUP]".to_owned(), json!("EXTERNAL_SERVICES"));
        line.insert("[THREAD_ID]".to_owned(), json!("0x6001"));
        line.insert("[CHANNEL]".to_owned(), json!("COMMAND_CHANNEL"));
        line.insert("[HSL]".to_owned(), json!("#9D4EDD"));
        line.insert("[SIGNED]".to_owned(), json!(format!("cp:{}", state.checkpoints + 1)));
        line.insert("hsl".to_owned(), json!(event.hsl));
        for (name, value) in &event.members {
            // What is said about an event takes no place of the envelope.
            line.entry(name.clone()).or_insert_with(|| json!(cleaned(value)));
        }
        let text = Value::Object(line).to_string();
        state.file.write_all(format!("{text}\n").as_bytes())?;
        if event.is_durable {
            state.file.sync_data()?;
        }
        state.seq += 1;
        state.bytes += text.len() as u64 + 1;
        state.prev = sha256(text.as_bytes());
        state.first_uncovered_ms.get_or_insert(time);
        Ok(())
    }

    /// Makes a checkpoint when lines have waited for ten seconds.
    pub fn tick(&self) {
        let due = self.lock().first_uncovered_ms.is_some_and(|since| now().wall_ms >= since + CHECKPOINT_MS);
        if due {
            self.checkpoint();
        }
    }

    /// Covers every line written so far by a signed frame on the timeline `audit`. Does nothing when all are covered.
    pub fn checkpoint(&self) {
        let mut state = self.lock();
        if state.seq <= state.covered {
            return;
        }
        if let Err(error) = self.make_checkpoint(&mut state) {
            tracing::error!(%error, "the audit could not be checkpointed");
        }
    }

    fn make_checkpoint(&self, state: &mut State) -> Result<(), Failure> {
        state.file.sync_data()?;
        let covered = Covered { n: state.checkpoints + 1, from: state.covered + 1, to: state.seq, head: state.prev };
        let second = self.second.get().and_then(Weak::upgrade);
        let signed = checkpoint::make(&covered, &self.identity.key, second.as_deref());
        let stamp = Stamp { ms: now().wall_ms };
        let mut data = Object::new();
        data.insert("checkpoint".to_owned(), signed);
        let (space, record) = match checkpoint_tip(&self.store) {
            Some((space, tip)) => (space, evolve(&tip, data, Relations::new(), stamp)),
            None => (self.make_space(stamp)?, genesis("audit", data, Relations::new(), stamp, &uuid(&mut OsEntropy))),
        };
        let request = CommitRequest::local(vec![record]);
        self.store.commit(&space, &request).map_err(|error| Failure::failed("store", error.to_string()))?;
        state.checkpoints += 1;
        state.covered = state.seq;
        state.first_uncovered_ms = None;
        Ok(())
    }

    fn make_space(&self, stamp: Stamp) -> Result<SpaceId, Failure> {
        let store_failed = |error: &dyn std::fmt::Display| Failure::failed("store", error.to_string());
        let first = space_genesis(AUDIT_KIND, AUDIT_KIND, &self.identity.id.to_string(), stamp, &uuid(&mut OsEntropy));
        let space = self.store.create_space(first).map_err(|error| store_failed(&error))?;
        let label = sealtide_store::SpaceLabel { name: AUDIT_KIND.to_owned(), kind: AUDIT_KIND.to_owned(), dir: None };
        Known::of(&self.store).put_label(&space, Some(&label)).map_err(|error| store_failed(&error))?;
        Ok(space)
    }

    /// Checks every line against the one before, and the checkpoints against the lines and their signatures: what stood there when it
    /// began. Others write meanwhile.
    ///
    /// # Errors
    /// What is wrong first, in words.
    pub fn verify(&self) -> Result<AuditReport, String> {
        let (last, bytes, made) = {
            let state = self.lock();
            (state.number, state.bytes, state.checkpoints)
        };
        let mut expected = self.checkpoints_to(made);
        let keys = crate::gateway::ed25519_keys(&self.store);
        let signers = Signers { node: self.identity.key.public(), keys: &keys };
        let mut next = expected.next();
        let mut chain = Chain::default();
        let files = files(&self.dir).map_err(|error| error.to_string())?;
        for (number, path) in files.into_iter().filter(|(number, _)| *number <= last) {
            let file = File::open(&path).map_err(|error| error.to_string())?;
            // Behind that stands what came since, or what a full disk left of a line.
            let end = if number == last { bytes } else { u64::MAX };
            for line in BufReader::new(file.take(end)).lines() {
                chain.line(&line.map_err(|error| error.to_string())?)?;
                if let Some(checkpoint) = &next
                    && checkpoint["to"] == json!(chain.seq)
                {
                    chain.checkpoint(checkpoint, &signers)?;
                    next = expected.next();
                }
            }
        }
        if next.is_some() {
            let found = chain.seq;
            return Err(format!("audit lines are missing: a checkpoint covers more than the {found} lines there are"));
        }
        Ok(chain.report())
    }

    /// For an export: whose audit it is with all keys that ever signed checkpoints, and the checkpoints behind number
    /// `since`, at most so many as fit into one answer.
    pub fn checkpoints_since(&self, since: u64) -> (Value, Vec<Value>) {
        let head = chain::export_head(self.identity.key.public(), &crate::gateway::ed25519_keys(&self.store));
        (head, self.checkpoint_frames(since, CHECKPOINTS_MAX))
    }

    /// The checkpoints up to this number. Each is some KiB, and a node of years has very many: so many are read as fit into one answer.
    fn checkpoints_to(&self, made: u64) -> impl Iterator<Item = Value> {
        let pages = (0..made).step_by(CHECKPOINTS_MAX);
        pages.flat_map(move |from| self.checkpoint_frames(from, CHECKPOINTS_MAX.min((made - from) as usize)))
    }

    /// Checkpoint n stands in frame n − 1.
    fn checkpoint_frames(&self, from: u64, limit: usize) -> Vec<Value> {
        let Some((space, tip)) = checkpoint_tip(&self.store) else { return Vec::new() };
        let Some((view, facts)) = self.store.view(&space).zip(tip.frame()) else { return Vec::new() };
        let frames = view.frames(&facts.timeline, from, facts.n, limit);
        let records = frames.iter().filter_map(|sid| view.record(sid));
        records.filter_map(|record| record.object()?.get("checkpoint").cloned()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `verify` found of the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// Lines.
    pub lines: u64,
    /// Checkpoints, all of which verify.
    pub checkpoints: u64,
    /// Lines behind the last checkpoint.
    pub not_yet_signed: u64,
}

fn checkpoint_tip(store: &Store) -> Option<(SpaceId, Verified)> {
    let labels = Known::of(store).labels();
    let (space, _) = labels.into_iter().find(|(_, label)| label.kind == AUDIT_KIND)?;
    let view = store.view(&space)?;
    let timelines = view.timelines_of("audit");
    let tip = timelines.first()?.tips.first()?;
    Some((space, view.record(&tip.sid)?))
}

struct End {
    line: Option<String>,
    bytes: u64,
}

/// Finds the last whole line; what stands behind it was torn by a crash and is cut.
fn last_line(file: &mut File) -> std::io::Result<End> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(&*file);
    let (mut whole, mut last, mut line) = (0u64, None, Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            break;
        }
        whole += read as u64;
        last = Some(String::from_utf8_lossy(&line).into_owned());
    }
    file.set_len(whole)?;
    Ok(End { line: last, bytes: whole })
}

/// Cut at 256 characters, control characters replaced.
fn cleaned(value: &str) -> String {
    value.chars().take(VALUE_CHARS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Rig {
        home: Home,
        store: Store,
        identity: Identity,
        _dir: tempfile::TempDir,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let home = Home::new(dir.path().join("home"));
            let (identity, _) = home.init().unwrap();
            let store = home.open_store().unwrap();
            Self { home, store, identity, _dir: dir }
        }

        fn open(&self) -> Audit {
            Audit::open(&self.home, self.store.clone(), self.identity.clone()).unwrap()
        }

        fn file(&self) -> PathBuf {
            file_path(&self.home.audit_dir(), 1)
        }

        fn append(&self, bytes: &[u8]) {
            OpenOptions::new().append(true).open(self.file()).unwrap().write_all(bytes).unwrap();
        }
    }

    #[test]
    fn lines_and_checkpoints_verify_over_restarts_and_files() {
        let rig = Rig::new();
        for round in 0..3 {
            let audit = rig.open();
            audit.note("test", &[("round", &round.to_string()), ("odd", "a\nb\u{1b}[31m")]);
            audit.checkpoint();
            // The next line begins a new file.
            audit.lock().bytes = FILE_BYTES;
            audit.note("test", &[]);
        }
        let audit = rig.open();
        audit.note("test", &[]);
        let report = audit.verify().unwrap();
        assert_eq!((report.lines, report.checkpoints, report.not_yet_signed), (7, 3, 2));
        assert!(files(&rig.home.audit_dir()).unwrap().len() > 1);
    }

    /// The first file is a pipe, so that the check waits in the middle of it for as long as this test wants.
    #[test]
    fn lines_are_written_while_the_others_are_checked() {
        let rig = Rig::new();
        let audit = rig.open();
        audit.note("test", &[]);
        audit.lock().bytes = FILE_BYTES;
        audit.note("test", &[]);
        audit.checkpoint();
        let text = fs::read(rig.file()).unwrap();
        fs::remove_file(rig.file()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(rig.file()).status().unwrap().success());
        std::thread::scope(|scope| {
            let check = scope.spawn(|| audit.verify());
            // It is open on both ends from here on.
            let mut pipe = OpenOptions::new().write(true).open(rig.file()).unwrap();
            let (tell, written) = std::sync::mpsc::channel();
            let audit = &audit;
            scope.spawn(move || {
                audit.note("test", &[]);
                audit.checkpoint();
                let _ = tell.send(());
            });
            let written = written.recv_timeout(std::time::Duration::from_secs(60));
            pipe.write_all(&text).unwrap();
            drop(pipe);
            let report = check.join().unwrap().unwrap();
            written.expect("a line waits for the check");
            assert_eq!((report.lines, report.checkpoints, report.not_yet_signed), (2, 1, 0));
        });
    }

    #[test]
    fn lines_that_a_full_disk_took_are_told_of_by_the_next_one() {
        let rig = Rig::new();
        let audit = rig.open();
        audit.note("test", &[]);
        // Writing to it fails from now on, as on a full disk.
        let writable = std::mem::replace(&mut audit.lock().file, File::open(rig.file()).unwrap());
        audit.note("ticket_made", &[]);
        audit.note("ticket_made", &[]);
        rig.append(b"{\"[SEQ]\":2,\"[PR");
        assert!(audit.is_failing());
        assert_eq!(audit.verify().map(|report| report.lines), Ok(1), "half a line is no damage");
        audit.lock().file = writable;
        audit.note("test", &[]);
        assert!(!audit.is_failing());
        let lines: Vec<Value> =
            fs::read_to_string(rig.file()).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told = lines.iter().map(|line| (line["[TES_EVENT]"].as_str().unwrap(), line["lines"].as_str()));
        let expected = [("node:test", None), ("node:audit_lines_lost", Some("2")), ("node:test", None)];
        assert_eq!(told.collect::<Vec<_>>(), expected);
        assert_eq!(audit.verify().map(|report| report.lines), Ok(3));
    }

    // Proves: GW-80
    #[test]
    fn audit_injection() {
        let rig = Rig::new();
        let audit = rig.open();
        let forged = "x\",\"[TES_EVENT]\":\"key_rotate\"}\n{\"[SEQ]\":9";
        let event = AuditEvent::new("ws:upgrade:host_mismatch", "#FF4500")
            .member("[TES_EVENT]", "key_rotate")
            .member("[SEQ]", 7)
            .member("hsl", "#000000")
            .member("declaredHost", forged)
            .member("long", "é".repeat(1_000));
        audit.event(&event);
        audit.note("test", &[]);
        let lines = tail(&rig.home.audit_dir(), 10).unwrap();
        assert_eq!(lines.len(), 2, "one line for each event");
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!((&line["[TES_EVENT]"], &line["[SEQ]"]), (&json!("ws:upgrade:host_mismatch"), &json!(1)));
        assert_eq!(line["hsl"], "#FF4500");
        assert_eq!(line["long"].as_str().unwrap().chars().count(), VALUE_CHARS);
        assert!(line["declaredHost"].as_str().unwrap().starts_with("x\",\"[TES_EVENT]\""));
        assert_eq!(audit.verify().unwrap().lines, 2);
    }

    #[test]
    fn lines_are_found_by_number_over_all_files() {
        let rig = Rig::new();
        let audit = rig.open();
        for number in 1..=9 {
            audit.note("test", &[("own", &number.to_string())]);
            if number % 3 == 0 {
                audit.lock().bytes = FILE_BYTES;
            }
        }
        let dir = rig.home.audit_dir();
        let numbers = |since: u64, limit| -> Vec<u64> {
            let lines = super::since(&dir, since, limit).unwrap();
            lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["[SEQ]"].as_u64().unwrap()).collect()
        };
        assert_eq!(numbers(0, 4), [1, 2, 3, 4]);
        assert_eq!(numbers(5, 100), [6, 7, 8, 9]);
        assert!(numbers(9, 100).is_empty() && numbers(100, 100).is_empty() && numbers(0, 0).is_empty());
        assert!(holds(&dir, |line| line["own"] == "2").unwrap());
        assert!(!holds(&dir, |line| line["own"] == "10").unwrap());
    }

    #[test]
    fn a_torn_last_line_is_cut_even_in_the_middle_of_a_character() {
        let rig = Rig::new();
        rig.open().note("test", &[]);
        rig.append(&[b'{', 0xc3]);
        let audit = rig.open();
        audit.note("test", &[]);
        assert_eq!(audit.verify().unwrap().lines, 2);
    }

    #[test]
    fn damage_before_the_end_is_kept_and_told() {
        let rig = Rig::new();
        rig.open().note("test", &[]);
        rig.append(&[vec![b'x'; 100_000], vec![b'\n']].concat());
        let before = fs::metadata(rig.file()).unwrap().len();
        assert!(rig.open().verify().is_err());
        assert_eq!(fs::metadata(rig.file()).unwrap().len(), before);
    }

    #[test]
    fn what_a_full_disk_left_of_a_line_spoils_nothing() {
        let rig = Rig::new();
        let audit = rig.open();
        audit.note("test", &[]);
        rig.append(b"{\"[SEQ]\":2,\"[PR");
        audit.lock().failing = true;
        audit.note("test", &[]);
        assert_eq!(audit.verify().unwrap().lines, 2);
    }

    // Proves: GW-79
    #[test]
    fn audit_chain() {
        let rig = Rig::new();
        let audit = rig.open();
        (0..CHECKPOINT_LINES + 3).for_each(|number| audit.note("test", &[("own", &number.to_string())]));
        let report = audit.verify().unwrap();
        assert_eq!((report.checkpoints, report.not_yet_signed), (1, 3), "one for each 256 lines");
        audit.tick();
        assert_eq!(audit.verify().unwrap().not_yet_signed, 3, "ten seconds are not over");
        audit.lock().first_uncovered_ms = Some(now().wall_ms - CHECKPOINT_MS);
        audit.tick();
        assert_eq!(audit.verify().unwrap().not_yet_signed, 0);
        let text = fs::read_to_string(rig.file()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let with = |change: &dyn Fn(&mut Vec<String>)| {
            let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            change(&mut lines);
            fs::write(rig.file(), lines.join("\n") + "\n").unwrap();
            audit.verify()
        };
        with(&|lines| lines[5] = lines[5].replace("\"own\":\"5\"", "\"own\":\"6\"")).unwrap_err();
        with(&|lines| lines.swap(5, 6)).unwrap_err();
        with(&|lines| drop(lines.remove(5))).unwrap_err();
        with(&|lines| lines.truncate(100)).unwrap_err();
        // The last line has no successor; the checkpoint knows it.
        with(&|lines| *lines.last_mut().unwrap() = lines.last().unwrap().replace("test", "tost")).unwrap_err();
        with(&|_| {}).unwrap();
    }

    fn exported(rig: &Rig, audit: &Audit) -> String {
        let mut out = Vec::new();
        let pages = |since| crate::commands::verify::audit_checkpoints(audit, since);
        export_lines(&rig.home.audit_dir(), &mut out, pages).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_read_both_ways() {
        let rig = Rig::new();
        let audit = rig.open();
        for number in 1..=300 {
            // Some are longer than a block that is read at once.
            let long = "x".repeat(if number % 100 == 0 { 200 } else { 1 });
            audit.note(if number % 2 == 0 { "even" } else { "odd" }, &[("own", &format!("{number}{long}"))]);
            if number == 150 {
                audit.lock().bytes = FILE_BYTES;
            }
        }
        let numbers = |lines: &[Value]| lines.iter().map(|line| line["[SEQ]"].as_u64().unwrap()).collect::<Vec<_>>();
        let (dir, all) = (rig.home.audit_dir(), LineFilter::default());
        let newest = lines_before(&dir, None, 3, &all).unwrap();
        assert_eq!((numbers(&newest.lines), newest.more, newest.reached), (vec![300, 299, 298], true, Some(298)));
        let over_files = lines_before(&dir, Some(152), 300, &all).unwrap();
        assert_eq!(numbers(&over_files.lines), (1..152).rev().collect::<Vec<_>>());
        assert!(!over_files.more);
        let after = lines_after(&dir, 298, 10, &all).unwrap();
        assert_eq!((numbers(&after.lines), after.more), (vec![299, 300], false));
        let more = |limit| lines_after(&dir, 290, limit, &all).map(|page| (page.lines.len(), page.more, page.reached));
        assert_eq!((more(9).unwrap(), more(10).unwrap()), ((9, true, Some(299)), (10, false, Some(300))));
        let even = LineFilter { event: Some("node:even".to_owned()), ..all.clone() };
        assert_eq!(numbers(&lines_before(&dir, Some(10), 3, &even).unwrap().lines), [8, 6, 4]);
        let one = LineFilter { peer: Some("77x".to_owned()), ..all };
        assert_eq!(numbers(&lines_after(&dir, 0, 10, &one).unwrap().lines), [77, 177, 277]);
        // A line that is being written is not one yet.
        fs::OpenOptions::new().append(true).open(file_path(&dir, 2)).unwrap().write_all(b"{\"[SEQ]\":301").unwrap();
        assert_eq!(numbers(&lines_before(&dir, None, 1, &LineFilter::default()).unwrap().lines), [300]);
    }

    // Proves: GW-79
    #[test]
    fn an_export_is_verified_without_home_or_store_and_every_change_of_it_is_found() {
        let rig = Rig::new();
        let audit = rig.open();
        for number in 0..CHECKPOINTS_MAX + 3 {
            audit.note("test", &[("own", &number.to_string())]);
            audit.checkpoint();
            if number == 20 {
                audit.lock().bytes = FILE_BYTES;
            }
        }
        audit.note("test", &[("own", "the last")]);
        let text = exported(&rig, &audit);
        let check =
            |text: &str, wanted| verify_export(text.as_bytes(), wanted).map(|(node, report)| (node, report.lines));
        let own = rig.identity.id;
        let (node, report) = verify_export(text.as_bytes(), Some(&own)).unwrap();
        assert_eq!((node, report), (own, audit.verify().unwrap()));
        assert_eq!((report.checkpoints as usize, report.not_yet_signed), (CHECKPOINTS_MAX + 3, 1));
        let other = Home::new(rig._dir.path().join("other")).init().unwrap().0;
        assert!(check(&text, Some(&other.id)).unwrap_err().contains("one of"));
        let lines: Vec<&str> = text.lines().collect();
        let with = |change: &dyn Fn(&mut Vec<String>)| {
            let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            change(&mut lines);
            check(&(lines.join("\n") + "\n"), None)
        };
        with(&|_| {}).unwrap();
        with(&|lines| lines[1] = lines[1].replace("\"own\":\"0\"", "\"own\":\"1\"")).unwrap_err();
        with(&|lines| drop(lines.remove(1))).unwrap_err();
        with(&|lines| drop(lines.remove(2))).unwrap_err();
        with(&|lines| lines.swap(1, 3)).unwrap_err();
        with(&|lines| drop(lines.pop())).unwrap_err();
        with(&|lines| lines.truncate(lines.len() - 4)).unwrap_err();
        with(&|lines| lines.push("{}".to_owned())).unwrap_err();
        // A line behind the last checkpoint is signed by nobody: only the end tells of it.
        with(&|lines| drop(lines.remove(lines.len() - 2))).unwrap_err();
        let (_, foreign) = Rig::new().open().checkpoints_since(0);
        assert!(foreign.is_empty());
        let stranger = chain::export_head(other.key.public(), &Default::default());
        with(&|lines| lines[0] = stranger.to_string()).unwrap_err();
        with(&|lines| lines[0] = lines[0].replace(&own.to_string(), &other.id.to_string())).unwrap_err();
        for bad in ["", "{}\n", "x\n", &text[..text.len() - 1]] {
            check(bad, None).unwrap_err();
        }
    }

    #[test]
    fn checkpoints_are_read_some_at_a_time() {
        let rig = Rig::new();
        let audit = rig.open();
        for _ in 0..CHECKPOINTS_MAX + 2 {
            audit.note("test", &[]);
            audit.checkpoint();
        }
        let made = CHECKPOINTS_MAX as u64 + 2;
        let numbers: Vec<u64> = audit.checkpoints_to(made - 1).filter_map(|it| it["n"].as_u64()).collect();
        assert_eq!(numbers, (1..made).collect::<Vec<_>>());
        let mut all = audit.checkpoints_to(made);
        all.next();
        // What was not asked for yet is not there any more.
        rig.store.remove_space(&checkpoint_tip(&rig.store).unwrap().0).unwrap();
        assert_eq!(all.count(), CHECKPOINTS_MAX - 1);
    }

    #[test]
    fn lines_taken_away_are_told_and_stop_nothing() {
        let rig = Rig::new();
        let audit = rig.open();
        (0..3).for_each(|_| audit.note("test", &[]));
        audit.checkpoint();
        drop(audit);
        let text = fs::read_to_string(rig.file()).unwrap();
        fs::write(rig.file(), text.lines().next().unwrap().to_owned() + "\n").unwrap();
        let audit = rig.open();
        assert!(audit.verify().unwrap_err().contains("missing"));
        audit.note("test", &[]);
        audit.checkpoint();
    }
}
