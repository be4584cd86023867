//! A `.stb` file: opened, checked, unpacked. Needs no node and no network.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sealtide_crypto::Blake3;
use sealtide_folder::release::{Plain, ReleaseProgress, check, decompress};
use sealtide_releases::bundle::{BundleHead, HEAD_BYTES_MAX, NotABundle, ReleaseRefused, Trust};

use super::{refused, unpacked, untrusted};
use crate::failure::{Exit, Failure};

/// Bytes that are read at once.
const PIECE: usize = 1024 * 1024;
/// Bytes of a head that are tried first; most are shorter.
const HEAD_FIRST: usize = 256 * 1024;

/// A bundle file whose head was read.
pub(crate) struct OpenBundle {
    pub(crate) path: PathBuf,
    pub(crate) head: BundleHead,
    begin: u64,
}

impl OpenBundle {
    /// Opens a file and reads its head.
    ///
    /// # Errors
    /// Exit 5 for what is no bundle, or is longer or shorter than its manifest says.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let named = |error: io::Error| Failure::from(error).about(path);
        let mut file = File::open(path).map_err(named)?;
        let mut bytes = Vec::new();
        let (head, length) = loop {
            let most = if bytes.is_empty() { HEAD_FIRST } else { HEAD_BYTES_MAX };
            let before = bytes.len();
            (&mut file).take((most - before) as u64).read_to_end(&mut bytes).map_err(named)?;
            match BundleHead::read(&bytes) {
                Ok(read) => break read,
                Err(NotABundle::Short) if bytes.len() > before && bytes.len() < HEAD_BYTES_MAX => {}
                Err(error) => {
                    let code = if error == NotABundle::Untrusted { "untrusted" } else { "not_a_bundle" };
                    let text = format!("{} is no release bundle: {error}", path.display());
                    return Err(Failure::new(Exit::Verification, code, text));
                }
            }
        };
        let (begin, all) = (length as u64, file.metadata().map_err(named)?.len());
        let told = head.manifest.content().size;
        if all - begin != told {
            let text =
                format!("{}: its payload has {} bytes, and the manifest says {told}", path.display(), all - begin);
            return Err(Failure::new(Exit::Verification, "payload", text));
        }
        Ok(Self { path: path.to_owned(), head, begin })
    }

    /// Where the payload begins.
    pub(crate) fn payload_at(&self) -> u64 {
        self.begin
    }

    /// The payload as it stands in the file; nothing of it is checked.
    ///
    /// # Errors
    /// As the system reports.
    pub(crate) fn payload(&self) -> io::Result<File> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.begin))?;
        Ok(file)
    }

    /// Whether the payload is the one of the manifest, before a byte of it is unpacked.
    ///
    /// # Errors
    /// Exit 5.
    // Spec: GW-105
    pub(crate) fn check_payload(&self) -> Result<(), Failure> {
        let mut hash = Blake3::new();
        let mut payload = Hashed { inner: self.payload()?, hash: &mut hash };
        let mut piece = vec![0; PIECE];
        while payload.read(&mut piece)? > 0 {}
        self.is_payload(hash)
    }

    fn is_payload(&self, hash: Blake3) -> Result<(), Failure> {
        if hash.finish() == self.head.manifest.content().hash {
            return Ok(());
        }
        let text = format!("{}: the payload is not the one of the manifest: its hash differs", self.path.display());
        Err(Failure::new(Exit::Verification, "payload", text).hint("what is installed stays"))
    }

    /// The plain tar, from the begin of the payload. `use_it` reads all of it; that the payload is the one of the manifest is
    /// known when this returns.
    ///
    /// # Errors
    /// Exit 5.
    pub(crate) fn with_payload(
        &self,
        use_it: impl FnOnce(&mut dyn Read) -> Result<(), sealtide_folder::release::ReleaseError>,
    ) -> Result<(), Failure> {
        let what = self.path.display().to_string();
        let failed = |error: &sealtide_folder::release::ReleaseError| unpacked(&what, error);
        let mut hash = Blake3::new();
        let hashed = Hashed { inner: self.payload()?, hash: &mut hash };
        let mut plain: Plain<_> =
            decompress(BufReader::with_capacity(PIECE, hashed)).map_err(|error| failed(&error))?;
        use_it(&mut plain).map_err(|error| failed(&error))?;
        plain.finish().map_err(|error| failed(&error))?;
        self.is_payload(hash)
    }
}

/// Hashes what is read.
struct Hashed<'a, R> {
    inner: R,
    hash: &'a mut Blake3,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.hash.update(&bytes[..read]);
        Ok(read)
    }
}

/// Checks a file with nothing but a trust: chain, signatures, payload, every file. Freshness is not checked.
///
/// # Errors
/// Exit 5.
// Spec: GW-110
pub(crate) fn verify_file(
    bundle: &OpenBundle,
    trust: &mut Trust,
    wall_ms: u64,
    progress: &mut dyn FnMut(ReleaseProgress),
) -> Result<(), Failure> {
    let what = bundle.path.display().to_string();
    // Before its keys, which are others then.
    let found = &bundle.head.manifest.content().registry;
    if found != trust.registry() {
        let (trusted, found) = (trust.registry().to_owned(), found.clone());
        return Err(refused(&what, &ReleaseRefused::Registry { trusted, found }));
    }
    trust.follow_proven(&bundle.head.chain, &bundle.head.proof).map_err(|error| untrusted(&what, &error))?;
    trust.manifest(&bundle.head.manifest, &[], wall_ms).map_err(|error| refused(&what, &error))?;
    bundle.with_payload(|plain| check(&bundle.head.manifest.content().files, plain, progress))
}
