//! Copies of archived bundles that were fetched out of a bucket. Spec: releases §7.
//!
//! `HOME/bundles/scratch/fetched/HASH.stb`, named by the BLAKE3-256 of the file, which is looked at each time. The oldest
//! go when there is no room. One is fetched at a time; only so many wait for it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use data_encoding::HEXLOWER;

use super::archive::{Archive, ArchiveSettings};
use super::tiers::{Place, hash};
use crate::failure::{Exit, Failure};

/// Requests that may wait for a fetch, in this process.
const WAITING_MAX: usize = 16;

static WAITING: AtomicUsize = AtomicUsize::new(0);
static FETCHING: Mutex<()> = Mutex::new(());

/// The copy of a bundle that stands in a bucket, fetched when it is not there. Waits for the network.
///
/// # Errors
/// Exit 1 when the bucket cannot be reached or has it no more, 5 when what came is not the bundle.
// Spec: GW-74
pub(super) fn fetch(dir: &Path, place: &Place, settings: &ArchiveSettings) -> Result<PathBuf, Failure> {
    let path = dir.join(format!("{}.stb", HEXLOWER.encode(&place.hash)));
    if is_bundle(&path, place) {
        return Ok(path);
    }
    let turn = Turn::take().ok_or_else(|| {
        Failure::failed("archive_busy", format!("{WAITING_MAX} requests wait for bundles out of the archive"))
            .hint("try again in a while")
    })?;
    let _alone = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_bundle(&path, place) {
        fetch_alone(dir, &path, place, settings)?;
    }
    drop(turn);
    Ok(path)
}

fn fetch_alone(dir: &Path, path: &Path, place: &Place, settings: &ArchiveSettings) -> Result<(), Failure> {
    let elsewhere = || {
        Failure::failed(
            "archive_elsewhere",
            format!("the bundle stands in {}, and archive.url names another place", place.url),
        )
        .hint("set archive.url to that place again")
    };
    let Archive::Bucket(bucket) = Archive::open(settings)? else { return Err(elsewhere()) };
    let name = place.name.as_str();
    if bucket.url(name) != place.url {
        return Err(elsewhere());
    }
    if place.size > settings.scratch_bytes {
        let text =
            format!("{} has {} bytes, and archive.scratch allows {}", place.url, place.size, settings.scratch_bytes);
        return Err(Failure::failed("archive_scratch", text).hint("raise archive.scratch"));
    }
    fs::create_dir_all(dir)?;
    make_room(dir, settings.scratch_bytes - place.size)?;
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    let found = bucket.get(name, place.size, &mut file)?;
    if found != place.hash {
        fs::remove_file(&beside)?;
        let text = format!("{} is not the bundle that was archived", place.url);
        return Err(Failure::new(Exit::Verification, "archive_damaged", text)
            .hint("put the object back from a copy, or publish the release anew"));
    }
    Ok(fs::rename(&beside, path)?)
}

/// Removes the oldest until what is left has no more bytes than this; what a crash left half fetched goes first.
fn make_room(dir: &Path, bytes_max: u64) -> io::Result<()> {
    let mut copies: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let (path, meta) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
        if path.extension().is_some_and(|end| end == "new") {
            fs::remove_file(&path)?;
        } else {
            copies.push((meta.modified()?, path, meta.len()));
        }
    }
    copies.sort();
    let mut bytes: u64 = copies.iter().map(|(_, _, size)| size).sum();
    for (_, path, size) in copies {
        if bytes <= bytes_max {
            break;
        }
        fs::remove_file(&path)?;
        bytes -= size;
    }
    Ok(())
}

fn is_bundle(path: &Path, place: &Place) -> bool {
    let found = File::open(path).and_then(|mut file| hash(&mut file, &mut io::sink()));
    found.is_ok_and(|found| found == (place.hash, place.size))
}

/// A place among those who wait.
struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        let before = WAITING.fetch_add(1, Ordering::Relaxed);
        let turn = Self;
        (before < WAITING_MAX).then_some(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_oldest_copies_make_room() {
        let dir = tempfile::tempdir().unwrap();
        for (name, age) in [("a.stb", 30), ("b.stb", 20), ("c.stb", 10), ("d.new", 0)] {
            let path = dir.path().join(name);
            fs::write(&path, [0; 10]).unwrap();
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(100 - age))
                .unwrap();
        }
        let left = || {
            let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
            names.sort();
            names
        };
        make_room(dir.path(), 30).unwrap();
        assert_eq!(left(), ["a.stb", "b.stb", "c.stb"], "only what is half");
        make_room(dir.path(), 15).unwrap();
        assert_eq!(left(), ["c.stb"]);
    }

    #[test]
    fn a_copy_that_rotted_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.stb");
        fs::write(&path, b"bundle").unwrap();
        let (hash, size) = hash(&mut &b"bundle"[..], &mut io::sink()).unwrap();
        let place = Place { url: String::new(), name: String::new(), hash, size };
        assert!(is_bundle(&path, &place));
        fs::write(&path, b"bundel").unwrap();
        assert!(!is_bundle(&path, &place) && !is_bundle(&dir.path().join("y.stb"), &place));
    }

    #[test]
    fn only_so_many_wait() {
        let turns: Vec<Turn> = std::iter::from_fn(Turn::take).take(WAITING_MAX + 1).collect();
        assert_eq!(turns.len(), WAITING_MAX);
        drop(turns);
        assert!(Turn::take().is_some());
    }
}
