//! A plain directory becomes a new space.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use sealtide_folder::{Folder, Scan, ScanProgress, SkipReason};
use sealtide_ibgib::{Sid, TimelineId};

use super::Import;
use super::plain::{DOCUMENTS, FILES, Filling, NO_DOCUMENT, is_part_of_name};
use crate::content::ChunkKeeper;
use crate::failure::{Failure, whole};
use crate::share::frame_of_found;

/// Takes all that stands in the directory: files and documents of an export, else files.
///
/// # Errors
/// Exit 5, with its name, for what a folder cannot hold.
pub(super) fn fill(import: &Import<'_>, filling: &mut Filling<'_>) -> Result<(), Failure> {
    let root = import.path.canonicalize()?;
    if !is_export(&root)? {
        return files(import, &root, filling);
    }
    if root.join(DOCUMENTS).is_dir() {
        documents(import, &root, "", filling)?;
    }
    let root = root.join(FILES);
    if root.is_dir() { files(import, &root, filling) } else { Ok(()) }
}

/// Takes the documents below a directory in `documents` (none at its top): all in it are files, or directories with parts of long names.
fn documents(import: &Import<'_>, root: &Path, dir: &str, filling: &mut Filling<'_>) -> Result<(), Failure> {
    for name in names(&root.join(DOCUMENTS).join(dir))? {
        let name = if dir.is_empty() { name } else { format!("{dir}/{name}") };
        let (shown, path) = (format!("{DOCUMENTS}/{name}"), root.join(DOCUMENTS).join(&name));
        if is_part_of_name(&name) && fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            documents(import, root, &name, filling)?;
            continue;
        }
        let text = open_document(&path).map_err(|error| import.wrong(&shown, error))?;
        let mut text = text.ok_or_else(|| import.wrong(&shown, NO_DOCUMENT))?;
        filling.document(&name, &mut text)?;
    }
    Ok(())
}

/// Whether nothing but the two directories of an export stands there, at least one of them.
fn is_export(root: &Path) -> io::Result<bool> {
    let mut any = false;
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        if (name != FILES && name != DOCUMENTS) || !entry.file_type()?.is_dir() {
            return Ok(false);
        }
        any = true;
    }
    Ok(any)
}

/// What stands in a directory, in order; a name that is not UTF-8 comes as one that no document has.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(dir)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()?;
    names.sort();
    Ok(names)
}

/// The file at a path, links not followed; nothing when it is none.
fn open_document(path: &PathBuf) -> io::Result<Option<File>> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(Some(File::from(rustix::fs::open(path, flags, Mode::empty())?)))
}

fn files(import: &Import<'_>, root: &Path, filling: &mut Filling<'_>) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::failed("import", whole(error));
    // Where the notes of its folder are; it has none, and forgetting the space removes them.
    let state = import.node.home().folder_state(&filling.space());
    let mut folder = Folder::open(root, &state).map_err(|error| failed(&error))?;
    folder.take_ignored_too();
    loop {
        let scan = scan(import, &mut folder, filling.taken())?;
        if let Some((path, reason)) = scan.skipped.first() {
            return Err(import.wrong(path, reason));
        }
        for change in &scan.changes {
            let mut records = Vec::new();
            let frame = frame_of_found(change.path.clone(), filling.by(), &change.found, &mut records);
            // What a scan before this one saw is taken already.
            let frame = frame.filter(|_| change.known.is_none());
            let frame = frame.ok_or_else(|| import.wrong(&change.path, SkipReason::Changing))?;
            filling.file(&frame, records)?;
            folder.settle(change, TimelineId([0; 32]), Sid([0; 32])).map_err(|error| failed(&error))?;
        }
        // A scan holds only so much in memory; what it left out comes with the next.
        if !scan.more {
            break;
        }
    }
    drop(folder);
    Ok(fs::remove_file(&state)?)
}

fn scan(import: &Import<'_>, folder: &mut Folder, taken: u64) -> Result<Scan, Failure> {
    let mut keeper = ChunkKeeper::new(import.node.store());
    let mut told = |seen: ScanProgress| import.tell(taken + seen.files_read, seen.bytes_read, 0);
    let scanned = folder.scan(None, &mut |chunk| keeper.keep(chunk), &mut told);
    keeper.finish().map_err(|error| Failure::failed("import", whole(&error)))?;
    scanned.map_err(|error| Failure::failed("import", whole(&error)))
}
