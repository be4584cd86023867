//! A directory, packed and unpacked; hostile payloads; the switch.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sealtide_crypto::blake3;
use sealtide_folder::fuzzing;
use sealtide_folder::release::{
    Installed, Packed, ReleaseError, begin, check, decompress, discard, identity, keep_previous, list_files, look,
    pack, previous_of, switch, unpack,
};
use sealtide_releases::bundle::ReleaseFile;
use tempfile::TempDir;

use crate::fixture::scale;

type Tree = BTreeMap<String, (Vec<u8>, bool)>;

fn tree(files: &[(&str, &[u8], bool)]) -> Tree {
    files.iter().map(|(path, bytes, exec)| ((*path).to_owned(), (bytes.to_vec(), *exec))).collect()
}

fn write(dir: &Path, tree: &Tree) {
    for (path, (bytes, exec)) in tree {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(if *exec { 0o700 } else { 0o600 })).unwrap();
    }
}

fn read(dir: &Path) -> Tree {
    let listed = list_files(dir).unwrap();
    let file = |file: sealtide_folder::release::Listed| {
        let bytes = fs::read(dir.join(&file.path)).unwrap();
        (file.path, (bytes, file.executable))
    };
    listed.into_iter().map(file).collect()
}

fn packed(dir: &Path) -> (Packed, Vec<u8>, Vec<u8>) {
    let (mut payload, mut plain) = (Vec::new(), Vec::new());
    let list = list_files(dir).unwrap();
    let mut take = |piece: bytes::Bytes| {
        plain.extend_from_slice(&piece);
        Ok(())
    };
    let packed = pack(dir, &list, &mut payload, &mut take, &mut |_| ()).unwrap();
    (packed, payload, plain)
}

fn sample() -> Tree {
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(200));
    let mut sample = tree(&[
        ("bin/kiosk", b"#!/bin/sh\necho hello\n", true),
        ("empty", b"", false),
        ("index.html", b"<!doctype html>", false),
        ("texte/gr\u{fc}n", &[0xff; 513], false),
        ("exact", &[7; 1024], false),
    ]);
    sample.insert(long, (b"far away".to_vec(), false));
    sample.insert("big".to_owned(), ((0..3_000_000u32).flat_map(u32::to_le_bytes).collect(), false));
    sample
}

fn unpacked(files: &[ReleaseFile], plain: &[u8]) -> Result<Tree, ReleaseError> {
    let dir = TempDir::new().unwrap();
    unpack(files, &mut Cursor::new(plain), dir.path(), &mut |_| ())?;
    Ok(read(dir.path()))
}

// Proves: GW-72
#[test]
fn bundle_roundtrip_of_the_payload() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write(one.path(), &sample());
    write(two.path(), &sample());
    let (packed_one, payload, plain) = packed(one.path());
    let again = packed(two.path());
    assert_eq!((&packed_one, &payload, &plain), (&again.0, &again.1, &again.2), "same input, same bytes");
    assert_eq!((packed_one.hash, packed_one.size), (blake3(&payload), payload.len() as u64));
    let mut decompressed = decompress(Cursor::new(&payload)).unwrap();
    let mut found = Vec::new();
    decompressed.read_to_end(&mut found).unwrap();
    decompressed.finish().unwrap();
    assert_eq!(found, plain);
    assert_eq!(unpacked(&packed_one.files, &plain).unwrap(), sample());
    // Any tar can read it.
    let mut archive = tar::Archive::new(Cursor::new(&plain));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().entry_type(), tar::EntryType::Regular);
        assert_eq!((entry.header().uid().unwrap(), entry.header().mtime().unwrap()), (0, 0));
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
    });
    let found: BTreeMap<String, Vec<u8>> = entries.collect();
    let wanted: BTreeMap<String, Vec<u8>> = sample().into_iter().map(|(path, (bytes, _))| (path, bytes)).collect();
    assert_eq!(found, wanted);
}

// Proves: GW-72
#[test]
fn a_changed_payload_is_refused() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), &tree(&[("a", b"hello", false), ("b", &[1; 600], true)]));
    let (packed, payload, plain) = packed(dir.path());
    let takes = |payload: &[u8]| -> Result<(), ReleaseError> {
        let mut plain = decompress(Cursor::new(payload))?;
        check(&packed.files, &mut plain, &mut |_| ())?;
        plain.finish()
    };
    takes(&payload).unwrap();
    assert!(matches!(takes(&[&payload[..], b"x"].concat()), Err(ReleaseError::Trailing)));
    assert!(matches!(takes(&[&payload[..], &payload[..]].concat()), Err(ReleaseError::Trailing)), "two frames");
    for end in 0..payload.len() - 1 {
        assert!(takes(&payload[..end]).is_err(), "cut at {end}");
    }
    // Every byte of the plain tar counts, padding and end too.
    for at in 0..plain.len() {
        let mut odd = plain.clone();
        odd[at] ^= 1;
        assert!(check(&packed.files, &mut Cursor::new(odd), &mut |_| ()).is_err(), "byte {at}");
    }
    for end in (0..plain.len()).step_by(61) {
        assert!(check(&packed.files, &mut Cursor::new(&plain[..end]), &mut |_| ()).is_err(), "cut at {end}");
    }
    assert!(check(&packed.files, &mut Cursor::new([&plain[..], &[0]].concat()), &mut |_| ()).is_err());
}

/// A tar as somebody with bad intentions writes it.
fn hostile(entries: &[(&str, tar::EntryType, &[u8], &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, bytes, link) in entries {
        let mut header = tar::Header::new_gnu();
        // Past the checks of the library.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

// Proves: GW-77
#[test]
fn tar_safety() {
    use tar::EntryType::{Block, Char, Directory, Fifo, Link, Regular, Symlink, XHeader};

    let file = |path: &str, bytes: &[u8]| ReleaseFile {
        path: path.to_owned(),
        hash: blake3(bytes),
        size: bytes.len() as u64,
        executable: false,
    };
    let files = [file("a", b"hello"), file("b", b"")];
    let good: [(&str, tar::EntryType, &[u8], &str); 2] = [("a", Regular, b"hello", ""), ("b", Regular, b"", "")];
    assert_eq!(unpacked(&files, &hostile(&good)).unwrap().len(), 2);
    let odd = [
        ("a link in the place of a file", ("b", Symlink, &b""[..], "/etc/passwd")),
        ("a hard link", ("b", Link, b"", "a")),
        ("a device", ("b", Char, b"", "")),
        ("a block device", ("b", Block, b"", "")),
        ("a pipe", ("b", Fifo, b"", "")),
        ("a directory", ("b", Directory, b"", "")),
        ("an extended header", ("b", XHeader, b"12 path=c\n", "")),
        ("an absolute path", ("/b", Regular, b"", "")),
        ("a way up", ("../b", Regular, b"", "")),
        ("a file that is not listed", ("c", Regular, b"", "")),
        ("the same file again", ("a", Regular, b"hello", "")),
        ("more bytes than listed", ("b", Regular, b"more", "")),
    ];
    for (what, entry) in odd {
        let outside = TempDir::new().unwrap();
        let to = outside.path().join("to");
        fs::create_dir(&to).unwrap();
        let tar = hostile(&[good[0], entry]);
        let refused = unpack(&files, &mut Cursor::new(tar), &to, &mut |_| ());
        assert!(matches!(refused, Err(ReleaseError::Tar(_))), "{what}: {refused:?}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{what}: nothing outside");
        assert_eq!(read(&to).keys().collect::<Vec<_>>(), ["a"], "{what}");
    }
    for (what, tar) in [
        ("out of order", hostile(&[good[1], good[0]])),
        ("one too few", hostile(&good[..1])),
        ("one too many", hostile(&[good[0], good[1], ("c", Regular, b"", "")])),
        ("nothing", hostile(&[])),
        ("other bytes", hostile(&[("a", Regular, b"HELLO", ""), good[1]])),
    ] {
        assert!(unpacked(&files, &tar).is_err(), "{what}");
    }
    // A list that nobody may unpack is refused before anything is read.
    let refused = unpacked(&[file("../a", b"hello")], &hostile(&good));
    assert!(matches!(refused, Err(ReleaseError::Files(_))), "{refused:?}");
}

// Proves: GW-77
#[test]
fn a_bomb_makes_no_more_than_the_listed_files() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    let header = hostile(&[("a", tar::EntryType::Regular, b"", "")]);
    encoder.write_all(&header[..512]).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..512 {
        encoder.write_all(&zeros).unwrap();
    }
    let payload = encoder.finish().unwrap();
    assert!(payload.len() < 1 << 20, "{}", payload.len());
    let files = [ReleaseFile { path: "a".to_owned(), hash: blake3(b""), size: 0, executable: false }];
    let mut plain = decompress(Cursor::new(&payload)).unwrap();
    let dir = TempDir::new().unwrap();
    assert!(unpack(&files, &mut plain, dir.path(), &mut |_| ()).is_err());
    assert_eq!(read(dir.path()), tree(&[("a", b"", false)]));
    // A window that no decoder should give memory to.
    let mut wide = zstd::Encoder::new(Vec::new(), 3).unwrap();
    wide.window_log(30).unwrap();
    wide.write_all(&header).unwrap();
    let wide = wide.finish().unwrap();
    let mut plain = decompress(Cursor::new(&wide)).unwrap();
    assert!(matches!(check(&files, &mut plain, &mut |_| ()), Err(ReleaseError::Compression(_))));
}

#[test]
fn what_is_no_file_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), &tree(&[("a", b"", false)]));
    std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
    let refused = list_files(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("link") && refused.contains("symbolic link"), "{refused}");
    fs::remove_file(dir.path().join("link")).unwrap();
    fs::write(dir.path().join("back\\slash"), b"").unwrap();
    assert!(matches!(list_files(dir.path()), Err(ReleaseError::Files(_))));
}

// Proves: GW-72
#[test]
fn a_file_that_grows_while_it_is_packed_is_refused() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), &tree(&[("a", b"hello", false)]));
    let list = list_files(dir.path()).unwrap();
    for bytes in [&b"hello, world"[..], b"hell"] {
        fs::write(dir.path().join("a"), bytes).unwrap();
        let packed = pack(dir.path(), &list, &mut Vec::new(), &mut |_| Ok(()), &mut |_| ());
        assert!(matches!(packed, Err(ReleaseError::Changed(_))), "{packed:?}");
    }
}

#[test]
fn a_release_is_not_unpacked_where_its_directory_is_gone() {
    let dir = TempDir::new().unwrap();
    for path in ["a", "far/away/a"] {
        let files = [ReleaseFile { path: path.to_owned(), hash: blake3(b""), size: 0, executable: false }];
        let gone = dir.path().join("gone");
        let refused = unpack(&files, &mut Cursor::new(hostile(&[])), &gone, &mut |_| ());
        assert!(refused.is_err() && !gone.exists(), "{path}");
    }
}

fn version(dir: &Path) -> Option<String> {
    fs::read_to_string(dir.join("version")).ok()
}

/// Installs a version over what stands at `target`; tells where something unknown was put.
fn install(target: &Path, named: &str) -> (Installed, Option<PathBuf>) {
    let installed = look(target).unwrap();
    let (next, aside) = begin(target).unwrap();
    write(&next, &tree(&[("version", named.as_bytes(), false)]));
    let was = identity(target).ok();
    switch(&next, target).unwrap();
    keep_previous(target, was).unwrap();
    (installed, aside)
}

#[test]
fn the_switch_shows_one_version_or_the_other() {
    let root = TempDir::new().unwrap();
    let target = root.path().join("opt/kiosk");
    let previous = previous_of(&target).unwrap();
    assert_eq!(install(&target, "1"), (Installed::Nothing, None));
    assert_eq!((version(&target).as_deref(), previous.exists()), (Some("1"), false));
    assert_eq!(install(&target, "2"), (Installed::Something, None));
    assert_eq!((version(&target).as_deref(), version(&previous).as_deref()), (Some("2"), Some("1")));
    assert_eq!(install(&target, "3"), (Installed::Something, None));
    assert_eq!((version(&target).as_deref(), version(&previous).as_deref()), (Some("3"), Some("2")));
    // What a crash while unpacking left goes, when it is known whose it is.
    let (next, _) = begin(&target).unwrap();
    fs::write(next.join("half"), b"").unwrap();
    discard(&target, identity(&next).unwrap());
    assert_eq!(install(&target, "4"), (Installed::Something, None));
    assert_eq!(read(&target).len(), 1);
    assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 2, "nothing else is left");
    // An empty directory is nothing; a file is somebody's.
    let empty = root.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(install(&empty, "1"), (Installed::Nothing, None));
    assert!(!previous_of(&empty).unwrap().exists());
    let file = root.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(look(&file), Err(ReleaseError::Occupied(_))));
}

#[test]
fn what_stands_beside_a_target_and_is_unknown_is_kept() {
    let root = TempDir::new().unwrap();
    let target = root.path().join("kiosk");
    let beside = |name: &str| root.path().join(format!(".kiosk.{name}"));
    install(&target, "1");
    // A crash behind the switch, and nobody remembers it: what is installed under `.next` is not removed.
    write(&beside("next"), &tree(&[("version", b"0", false)]));
    discard(&target, identity(&target).unwrap());
    keep_previous(&target, identity(&target).ok()).unwrap();
    let (_, aside) = install(&target, "2");
    assert_eq!((aside, version(&beside("next-1")).as_deref()), (Some(beside("next-1")), Some("0")));
    // A version before that cannot be removed: a file stands for it.
    fs::remove_dir_all(beside("previous")).unwrap();
    fs::write(beside("previous"), b"somebody's").unwrap();
    let (next, _) = begin(&target).unwrap();
    write(&next, &tree(&[("version", b"3", false)]));
    switch(&next, &target).unwrap();
    assert!(keep_previous(&target, None).is_err(), "it says so");
    assert_eq!((version(&target).as_deref(), version(&beside("previous")).as_deref()), (Some("3"), Some("2")));
    assert_eq!(fs::read(beside("previous-1")).unwrap(), b"somebody's");
    assert!(!beside("next").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tree_comes_back(files in prop::collection::btree_map("[a-c]{1,3}(/[a-e.]{1,2}x){0,2}", (prop::collection::vec(any::<u8>(), 0..1500), any::<bool>()), 0..12)) {
        let dir = TempDir::new().unwrap();
        let clashes = |path: &String| files.keys().any(|other| other.starts_with(&format!("{path}/")));
        let files: Tree = files.iter().filter(|(path, _)| !clashes(path)).map(|(path, file)| (path.clone(), file.clone())).collect();
        write(dir.path(), &files);
        let (packed, _, plain) = packed(dir.path());
        prop_assert_eq!(unpacked(&packed.files, &plain).unwrap(), files);
    }
}

/// Lists as the fuzz target reads them: mostly of names that pass, in any order, and any bytes behind.
fn lists() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        6 => "[a-d]{1,3}(/[a-d]{1,3}){0,2}",
        1 => Just("n".repeat(120)),
        1 => prop::sample::select(vec!["", ".", "..", "../a", "/a", "a/", "a//b", "a/./b", "a\\b", "a\0", "c:", " "]).prop_map(str::to_owned),
        1 => "\\PC{0,6}",
    ];
    let file = (name, any::<u16>(), any::<u8>()).prop_map(|(name, size, full)| {
        let size = size.to_le_bytes();
        [&[name.len() as u8], name.as_bytes(), &[size[0], size[1], full]].concat()
    });
    let behind = prop::collection::vec(any::<u8>(), 0..40);
    let files = (prop::collection::vec(file, 0..=4), any::<bool>());
    (files, behind).prop_map(|((mut files, sorted), behind)| {
        // The lengths in front keep the order only among names of one length; that is enough to have good lists often.
        if sorted {
            files.sort_by(|left, right| left[1..].cmp(&right[1..]));
        }
        [vec![files.len() as u8], files.concat(), behind].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500 * u32::try_from(scale()).unwrap()))]

    // Proves: GW-77
    #[test]
    fn exactly_one_tar_is_that_of_a_list(input in lists()) {
        fuzzing::release_tar(&input);
    }
}
