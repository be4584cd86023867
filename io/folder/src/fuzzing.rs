//! Bodies of the fuzz targets, shared with the property tests: they panic when a promise is broken.

use std::io::Read;

use sealtide_crypto::blake3;
use sealtide_releases::bundle::{ReleaseFile, check_files};

use crate::release::{END, ReleaseProgress, check, decompress, header, padding};

/// Files of one list, at most.
const FILES: u8 = 4;
/// Bytes of one file, below.
const SIZE: u16 = 1536;

/// A list of files, and behind it any bytes as its tar and as its payload. Exactly one sequence of bytes is the tar of a list
/// that can be unpacked; a list that cannot has none.
///
/// ```text
/// count u8, for each: length of the path u8, path, size u16, what it is full of u8 (bit 0: executable); then any bytes
/// ```
pub fn release_tar(input: &[u8]) {
    let (files, contents, rest) = listed(input);
    let is_good = check_files(&files).is_ok();
    let Some(tar) = tar_of(&files, &contents) else {
        assert!(!is_good, "a list that passes has a tar: {files:?}");
        return;
    };
    assert_eq!(is_whole(&files, &tar), is_good, "{files:?}");
    assert_eq!(is_whole(&files, rest), is_good && rest == tar);
    if is_payload(&files, rest) {
        let mut plain = Vec::new();
        let read = decompress(rest).map(|mut payload| payload.read_to_end(&mut plain));
        assert!(read.is_ok_and(|read| read.is_ok()) && plain == tar);
    }
    if !is_good {
        return;
    }
    assert!(!is_whole(&files, &[&tar[..], &[0]].concat()), "something stands behind it");
    let payload = zstd::encode_all(&tar[..], 1).expect("what is in memory can be compressed");
    assert!(is_payload(&files, &payload));
    assert!(!is_payload(&files, &[&payload[..], &[0]].concat()), "something stands behind it");
    if let [low, high, other, ..] = *rest {
        let at = usize::from(u16::from_le_bytes([low, high])) % tar.len();
        assert!(!is_whole(&files, &tar[..at]), "cut at {at}");
        let mut changed = tar.clone();
        changed[at] ^= other;
        assert_eq!(is_whole(&files, &changed), other == 0, "another byte at {at}");
    }
}

fn is_whole(files: &[ReleaseFile], mut tar: &[u8]) -> bool {
    walk(files, &mut tar)
}

fn is_payload(files: &[ReleaseFile], payload: &[u8]) -> bool {
    let Ok(mut plain) = decompress(payload) else { return false };
    walk(files, &mut plain) && plain.finish().is_ok()
}

fn walk(files: &[ReleaseFile], plain: &mut dyn Read) -> bool {
    let (mut last, all) = (ReleaseProgress::default(), files.iter().map(|file| file.size).sum());
    let checked = check(files, plain, &mut |now| {
        assert!(now.bytes >= last.bytes && now.bytes <= all && now.files <= files.len() as u64, "{now:?} of {all}");
        last = now;
    });
    checked.is_ok()
}

/// The files that the input lists, their contents, and what stands behind.
fn listed(input: &[u8]) -> (Vec<ReleaseFile>, Vec<Vec<u8>>, &[u8]) {
    let (mut files, mut contents) = (Vec::new(), Vec::new());
    let Some((count, mut rest)) = input.split_first() else { return (files, contents, input) };
    for _ in 0..count % (FILES + 1) {
        let Some((file, content, behind)) = one(rest) else { break };
        rest = behind;
        files.push(file);
        contents.push(content);
    }
    (files, contents, rest)
}

fn one(input: &[u8]) -> Option<(ReleaseFile, Vec<u8>, &[u8])> {
    let (length, rest) = input.split_first()?;
    let (path, rest) = rest.split_at_checked(usize::from(*length))?;
    let (&[low, high, full], rest) = rest.split_first_chunk::<3>()?;
    let content = vec![full; usize::from(u16::from_le_bytes([low, high]) % SIZE)];
    let file = ReleaseFile {
        path: std::str::from_utf8(path).ok()?.to_owned(),
        hash: blake3(&content),
        size: content.len() as u64,
        executable: full & 1 == 1,
    };
    Some((file, content, rest))
}

/// The tar of a list; `None` where a path cannot stand in one.
fn tar_of(files: &[ReleaseFile], contents: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut tar = Vec::new();
    for (file, content) in files.iter().zip(contents) {
        tar.extend(header(&file.path, file.size, file.executable).ok()?);
        tar.extend(content);
        tar.extend(padding(file.size));
    }
    tar.extend(END);
    Some(tar)
}
