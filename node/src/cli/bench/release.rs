//! `bench release`: what it takes to pack, publish and check a release, beside the parts that bound it (SHA-256 and
//! `zstd -3`, on one core, and the disk) and, where they are installed, beside `tar`, `zstd` and `minisign`, and The Update Framework.
//! Spec: gateway §9, DESIGN "Speed".

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use sealtide_crypto::{Sha256, blake3_derive};
use sealtide_folder::release::{list_files, pack};
use sealtide_releases::bundle::{AppName, Channel, Signed, Trust};
use semver::Version;
use serde_json::{Value, json};

use super::{Sizes, node};
use crate::api::Progress;
use crate::failure::Failure;
use crate::releases::{OpenBundle, Publication, publish, verify_file};

/// Files of the directory.
const FILES: usize = 1_000;
/// Bytes that are read at once.
const PIECE: usize = 1024 * 1024;
/// Manifests that are checked to measure one.
const CHECKS: u32 = 200;

fn failed(error: &dyn std::fmt::Display) -> Failure {
    Failure::failed("bench", error.to_string())
}

/// Half of each file is noise, half of it is text that compresses.
fn fill(dir: &Path, bytes: usize) -> io::Result<()> {
    let each = (bytes / FILES).max(64);
    let mut noise = vec![0; each / 2];
    for number in 0..FILES {
        let place = dir.join(format!("part-{}", number % 10));
        fs::create_dir_all(&place)?;
        blake3_derive("sealtide bench release", &number.to_le_bytes(), &mut noise);
        let text = format!("line {number} of a file that compresses as programs and pages do\n");
        let mut content = text.repeat((each - noise.len()).div_ceil(text.len()));
        content.truncate(each - noise.len());
        fs::write(place.join(format!("file-{number}")), [content.as_bytes(), &noise].concat())?;
    }
    Ok(())
}

/// Seconds that `work` takes.
fn time<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<(f64, T), Failure> {
    let started = Instant::now();
    let done = work()?;
    Ok((started.elapsed().as_secs_f64(), done))
}

/// Packs, publishes and checks a directory: one that is given, or one of `sizes.bytes` bytes.
pub(super) async fn release(dir: &Path, sizes: &Sizes) -> Result<Value, Failure> {
    let source = sizes.source.clone().unwrap_or_else(|| dir.join("source"));
    fs::create_dir_all(dir)?;
    if sizes.source.is_none() {
        fs::create_dir(&source)?;
        fill(&source, sizes.bytes)?;
    }
    let list = list_files(&source).map_err(|error| failed(&error))?;
    let bytes: u64 = list.iter().map(|file| file.size).sum();
    let mib = |seconds: f64| (bytes as f64 / f64::from(1 << 20) / seconds * 10.0).round() / 10.0;
    // The page cache is warm for everybody, and the disk has nothing else to write.
    each_file(&source, &list, |_, _| ())?;
    rustix::fs::syncfs(fs::File::open(dir)?).map_err(io::Error::from)?;
    let (sha256_s, ()) = time(|| each_file(&source, &list, |piece, hash: &mut Sha256| hash.update(piece)))?;
    let (zstd_s, ()) = time(|| {
        let mut zstd = zstd::Encoder::new(io::sink(), 3)?;
        read_files(&source, &list, &mut |piece| zstd.write_all(piece))?;
        zstd.finish()?;
        Ok(())
    })?;
    let (pack_s, packed) =
        time(|| pack(&source, &list, &mut io::sink(), &mut |_| Ok(()), &mut |_| ()).map_err(|error| failed(&error)))?;
    let home = dir.join("home");
    let here = node(&home).await?;
    let before = room_of(&home)?;
    let progress = Progress::none();
    let (app, channel) = (AppName::parse("bench"), Channel::parse("stable"));
    let (app, channel) = app.zip(channel).ok_or_else(|| failed(&"the names of the bench"))?;
    let order = Publication {
        app,
        dir: source.clone(),
        channel,
        version: Some(Version::new(1, 0, 0)),
        minimum_version: None,
        expiry: None,
        allow_downgrade: false,
    };
    let started = Instant::now();
    let published = publish(&here, order, &progress).await?;
    let publish_s = started.elapsed().as_secs_f64();
    // What it put on the disk: the chunks of the files, compressed, and the bundle.
    let durable = room_of(&home)?.saturating_sub(before);
    let (disk_s, ()) = time(|| write_durably(&dir.join("disk"), durable))?;
    let trust = Trust::parse(published.trust.to_value().to_string().as_bytes()).map_err(|error| failed(&error))?;
    let wall_ms = crate::real::now().wall_ms;
    let (verify_s, bundle) = time(|| {
        let bundle = OpenBundle::open(&published.file)?;
        verify_file(&bundle, &mut trust.clone(), wall_ms, &mut |_| ())?;
        Ok(bundle)
    })?;
    let manifest = &bundle.head.manifest;
    let (manifests_s, ()) = time(|| {
        for _ in 0..CHECKS {
            let read =
                Signed::parse(manifest.bytes(), manifest.signatures().to_vec()).map_err(|error| failed(&error))?;
            trust.manifest(&read, &[], wall_ms).map_err(|error| failed(&error))?;
        }
        Ok(())
    })?;
    here.shutdown().await;
    let bound = mib(sha256_s).min(mib(zstd_s));
    let ratio = |seconds: f64| (mib(seconds) / bound * 100.0).round() / 100.0;
    Ok(json!({
        "schema": "sealtide/bench_release/1",
        "files": list.len(),
        "bytes": bytes,
        "payload_bytes": packed.size,
        "mib_per_second": {
            "sha256": mib(sha256_s), "zstd_3": mib(zstd_s),
            "pack": mib(pack_s), "publish": mib(publish_s), "verify": mib(verify_s),
        },
        "disk": {
            "durable_bytes": durable, "seconds": (disk_s * 1000.0).round() / 1000.0,
            "publish_seconds": (publish_s * 1000.0).round() / 1000.0,
            "publish_ratio": (disk_s / publish_s * 100.0).round() / 100.0,
        },
        "ratio_to_slower_part": {"pack": ratio(pack_s), "publish": ratio(publish_s), "verify": ratio(verify_s)},
        "manifest_verify_ms": (manifests_s * 1000.0 / f64::from(CHECKS) * 1000.0).round() / 1000.0,
        "tar_zstd_minisign": peers(dir, &source, bytes)?,
        "tuf": tuf(dir, &published.file, bytes, sizes.peers.as_deref())?,
    }))
}

fn read_files(
    dir: &Path,
    list: &[sealtide_folder::release::Listed],
    take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    for listed in list {
        let mut file = fs::File::open(dir.join(&listed.path))?;
        loop {
            match file.read(&mut piece)? {
                0 => break,
                read => take(&piece[..read])?,
            }
        }
    }
    Ok(())
}

/// Bytes on the disk of all files below a directory.
fn room_of(dir: &Path) -> io::Result<u64> {
    let mut room = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let found = entry.metadata()?;
        room += if found.is_dir() { room_of(&entry.path())? } else { found.blocks() * 512 };
    }
    Ok(room)
}

/// Writes so many bytes to a new file, in order, and waits for the disk.
fn write_durably(path: &Path, bytes: u64) -> Result<(), Failure> {
    let mut noise = vec![0; PIECE];
    blake3_derive("sealtide bench disk", &[], &mut noise);
    let mut file = fs::File::create(path)?;
    let mut left = bytes;
    while left > 0 {
        let piece = left.min(PIECE as u64);
        file.write_all(&noise[..piece as usize])?;
        left -= piece;
    }
    file.sync_data()?;
    fs::remove_file(path)?;
    Ok(())
}

fn each_file(
    dir: &Path,
    list: &[sealtide_folder::release::Listed],
    take: impl Fn(&[u8], &mut Sha256),
) -> Result<(), Failure> {
    let mut hash = Sha256::new();
    read_files(dir, list, &mut |piece| {
        take(piece, &mut hash);
        Ok(())
    })?;
    let _ = hash.finish();
    Ok(())
}

/// The same by the tools that people use: `tar | zstd -3`, then `minisign -S` and `minisign -V` with the unpacking; null where
/// one of them is missing.
fn peers(dir: &Path, source: &Path, bytes: u64) -> Result<Value, Failure> {
    let is_there =
        |tool: &str| Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !["tar", "zstd"].into_iter().all(is_there)
        || Command::new("minisign").arg("-v").stdout(Stdio::null()).status().is_err()
    {
        return Ok(Value::Null);
    }
    let shell = |text: &str| -> Result<f64, Failure> {
        let started = Instant::now();
        let done = Command::new("sh").arg("-ec").arg(text).current_dir(dir).stdout(Stdio::null()).status()?;
        if done.success() { Ok(started.elapsed().as_secs_f64()) } else { Err(failed(&format!("{text}: {done}"))) }
    };
    shell("minisign -G -f -W -p peer.pub -s peer.key")?;
    let pack = shell(&format!(
        "tar -c -C '{}' . | zstd -q -3 -o peer.tar.zst && sync -d peer.tar.zst && minisign -S -s peer.key -m peer.tar.zst",
        source.display()
    ))?;
    let verify = shell("minisign -V -q -p peer.pub -m peer.tar.zst && zstd -q -d -c peer.tar.zst | tar -t")?;
    let mib = |seconds: f64| (bytes as f64 / f64::from(1 << 20) / seconds * 10.0).round() / 10.0;
    Ok(json!({"publish_mib_per_second": mib(pack), "verify_mib_per_second": mib(verify)}))
}

/// Makes a repository of one file, and fetches it as a new client.
const TUF: &str = include_str!("peers/tuf.py");

/// The Update Framework in Python on the finished bundle: what signing and checking its metadata and fetching the file costs,
/// without packing and unpacking. Null where Python has no module `tuf`.
fn tuf(dir: &Path, bundle: &Path, bytes: u64, peers: Option<&Path>) -> Result<Value, Failure> {
    let own = peers.map(|peers| peers.join("bin/python")).filter(|python| python.exists());
    let python = own.unwrap_or_else(|| "python3".into());
    let has_tuf = Command::new(&python).args(["-c", "import tuf.ngclient"]).stderr(Stdio::null()).status();
    if !has_tuf.is_ok_and(|status| status.success()) {
        return Ok(Value::Null);
    }
    let said = Command::new(&python).args(["-c", TUF]).args([bundle, dir]).stderr(Stdio::inherit()).output()?;
    let seconds: Value = serde_json::from_slice(&said.stdout).map_err(|error| failed(&format!("tuf: {error}")))?;
    let rate = |name: &str| {
        let seconds = seconds[name].as_f64().unwrap_or(f64::NAN);
        (bytes as f64 / f64::from(1 << 20) / seconds * 10.0).round() / 10.0
    };
    Ok(json!({"publish_mib_per_second": rate("publish_s"), "verify_mib_per_second": rate("verify_s")}))
}
