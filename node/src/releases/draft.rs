//! A bundle whose payload is being made: from a directory, behind the place that its head will take.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use sealtide_folder::release::{Listed, Packed, ReleaseProgress, list_files, pack};
use sealtide_ibgib::{Address, Verified};
use sealtide_identity::keyring::{LedgerRecord, PublicPair};
use sealtide_releases::bundle::{BundleHead, Manifest, ReleaseFile};
use serde_json::json;

use super::publish::chain_of;
use super::tiers::{Scratch, Tiers};
use super::unpublished;
use crate::api::Progress;
use crate::commands::{go_on, store_failure};
use crate::content::ContentWriter;
use crate::failure::Failure;
use crate::node::Node;

/// Bytes of a payload that are kept in memory. One that is longer goes to a file, and from these it is told how long it will be.
const KEPT_BYTES: usize = 32 * 1024 * 1024;
/// Bytes that are written at once.
const PIECE: usize = 1024 * 1024;

/// The work on a directory.
pub(super) struct Packing {
    pub(super) node: Node,
    pub(super) dir: PathBuf,
    pub(super) progress: Progress,
    pub(super) expected: Expected,
}

/// The head of a bundle as far as it is known before its payload is.
pub(super) struct Expected {
    /// Without files, sizes and hashes.
    pub(super) manifest: Manifest,
    /// Which keys will sign it.
    pub(super) pair: Option<PublicPair>,
    pub(super) ledger: Vec<LedgerRecord>,
    pub(super) proof: Vec<Verified>,
}

/// What was packed.
pub(super) struct PackedDir {
    pub(super) packed: Packed,
    pub(super) payload: Draft,
    /// The plain tar.
    pub(super) tar: Address,
    /// Its records.
    pub(super) records: Vec<Verified>,
}

impl Packing {
    pub(super) fn pack(&self) -> Result<PackedDir, Failure> {
        let list = list_files(&self.dir).map_err(|error| unpublished(&error))?;
        if list.is_empty() {
            let text = format!("there is no file in {}", self.dir.display());
            return Err(Failure::usage("directory", text).hint("name the directory that holds what is to be shipped"));
        }
        let (files, bytes) = (list.len() as u64, list.iter().map(|file| file.size).sum::<u64>());
        let done = Cell::new(0);
        let begin = |came: u64| self.expected.begin(&list, came as f64 / done.get().max(1) as f64);
        let scratch = Tiers::of(self.node.home()).scratch()?;
        let mut out = Drafting { draft: Draft { scratch, kept: Vec::new(), begin: 0 }, file: None, begin: &begin };
        let mut content = ContentWriter::new(self.node.store().clone());
        let mut told = |now: ReleaseProgress| {
            done.set(now.bytes);
            self.progress.tell(json!({"phase": "packing", "items": [now.files, files], "bytes": [now.bytes, bytes]}));
        };
        let mut take = |piece| match self.progress.is_over() {
            false => content.push(piece),
            true => Err(io::ErrorKind::BrokenPipe.into()),
        };
        let packed = pack(&self.dir, &list, &mut out, &mut take, &mut told);
        // A store that failed says why at the end; the packing only saw that nobody took its bytes.
        let records = content.finish();
        go_on(&self.progress)?;
        let packed = match (packed, &records) {
            (Err(_), Err(error)) => return Err(store_failure(error)),
            (packed, _) => packed.map_err(|error| unpublished(&error))?,
        };
        let payload = out.finish()?;
        let records = records.map_err(store_failure)?;
        let tar = records.last().map(|record| record.address().clone());
        let tar = tar.ok_or_else(|| Failure::failed("release", "the content was not stored"))?;
        Ok(PackedDir { packed, payload, tar, records })
    }
}

impl Expected {
    /// Where the payload will begin, if of each byte of these files so much is left. A guess: whoever puts the head there looks.
    fn begin(&self, list: &[Listed], left: f64) -> u64 {
        let Some(pair) = &self.pair else { return 0 };
        let unread = |file: &Listed| ReleaseFile {
            path: file.path.clone(),
            hash: [0; 32],
            size: file.size,
            executable: file.executable,
        };
        let unpacked_size = list.iter().map(|file| file.size).sum::<u64>();
        let manifest = Manifest {
            files: list.iter().map(unread).collect(),
            unpacked_size,
            size: (unpacked_size as f64 * left) as u64,
            ..self.manifest.clone()
        };
        let (chain, proof) = chain_of(&self.ledger, self.proof.clone());
        BundleHead::length_of(&manifest, pair, &chain, &proof).map_or(0, |length| length as u64)
    }
}

/// A payload that is whole, without its head.
#[derive(Debug)]
pub(crate) struct Draft {
    scratch: Scratch,
    /// All of it; empty where it is in the scratch file.
    kept: Vec<u8>,
    /// Where it begins in the file.
    begin: u64,
}

impl Draft {
    /// Puts `head` before the payload, to become the file at `path`; on the disk when this returns. Where the payload stands right
    /// already, nothing of it is written again.
    pub(crate) fn put(&self, head: &[u8], path: &Path) -> io::Result<()> {
        if !self.kept.is_empty() {
            return write_whole(path, head, &mut self.kept.as_slice());
        }
        if self.begin == head.len() as u64 {
            let file = File::options().write(true).open(&self.scratch.0)?;
            file.write_all_at(head, 0)?;
            file.sync_all()?;
            match fs::rename(&self.scratch.0, path) {
                // Somebody keeps the bundles on a disk of their own.
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
                renamed => return renamed,
            }
        }
        let mut payload = File::open(&self.scratch.0)?;
        payload.seek(SeekFrom::Start(self.begin))?;
        write_whole(path, head, &mut payload)
    }
}

/// Writes a bundle; on the disk when this returns, and nothing is left where that fails: on a disk that is full the room is needed for
/// whatever makes room.
pub(super) fn write_whole(path: &Path, head: &[u8], payload: &mut dyn io::Read) -> io::Result<()> {
    let beside = Scratch(path.with_extension("new"));
    let mut file = File::create(&beside.0)?;
    file.write_all(head)?;
    io::copy(payload, &mut file)?;
    file.sync_all()?;
    fs::rename(&beside.0, path)
}

/// Takes a payload.
struct Drafting<'a> {
    draft: Draft,
    file: Option<BufWriter<File>>,
    /// Where a payload of more than these bytes will probably begin.
    begin: &'a dyn Fn(u64) -> u64,
}

impl Drafting<'_> {
    fn spill(&mut self) -> io::Result<&mut BufWriter<File>> {
        let kept = std::mem::take(&mut self.draft.kept);
        self.draft.begin = (self.begin)(kept.len() as u64);
        let mut file = BufWriter::with_capacity(PIECE, File::create(&self.draft.scratch.0)?);
        file.seek(SeekFrom::Start(self.draft.begin))?;
        file.write_all(&kept)?;
        Ok(self.file.insert(file))
    }

    fn finish(mut self) -> io::Result<Draft> {
        if let Some(file) = self.file.take() {
            file.into_inner().map_err(io::IntoInnerError::into_error)?;
        }
        Ok(self.draft)
    }
}

impl Write for Drafting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.file {
            Some(file) => file.write(bytes),
            None if self.draft.kept.len() + bytes.len() > KEPT_BYTES => self.spill()?.write(bytes),
            None => self.draft.kept.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A payload of so many bytes behind a head of 100, where one of `guess` was expected; and whether its file was taken as it is.
    fn put(length: usize, guess: u64) -> (Vec<u8>, Vec<u8>, bool) {
        let dir = tempfile::tempdir().unwrap();
        let payload: Vec<u8> = (0..length).map(|at| (at * 31 / 7) as u8).collect();
        let head = [7; 100];
        let draft = Draft { scratch: Scratch(dir.path().join("payload")), kept: Vec::new(), begin: 0 };
        let begin = |came: u64| if came as usize > KEPT_BYTES - PIECE { guess } else { 0 };
        let mut out = Drafting { draft, file: None, begin: &begin };
        payload.chunks(PIECE / 3).for_each(|piece| out.write_all(piece).unwrap());
        let draft = out.finish().unwrap();
        let path = dir.path().join("1.0.0.stb");
        draft.put(&head, &path).unwrap();
        let was_taken = length > KEPT_BYTES && !draft.scratch.0.exists();
        let found = fs::read(&path).unwrap();
        drop(draft);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing but the bundle stays");
        (found, [&head[..], &payload].concat(), was_taken)
    }

    #[test]
    fn a_bundle_is_its_head_and_its_payload_wherever_the_payload_was_put() {
        for (length, guess, expected) in
            [(1, 100, false), (KEPT_BYTES, 100, false), (KEPT_BYTES + 1, 100, true), (KEPT_BYTES + PIECE, 101, false)]
        {
            let (found, wanted, was_taken) = put(length, guess);
            assert!(found == wanted, "{length} bytes, {guess}");
            assert_eq!(was_taken, expected, "{length} bytes, {guess}");
        }
    }
}
