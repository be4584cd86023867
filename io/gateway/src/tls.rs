//! TLS of the door: certificate and key from files, read again when they change. Spec: gateway §1.4.
//!
//! TLS 1.3 only, as on links, with the same suites. Browsers come in here, and not all of them have the post-quantum group,
//! so that X25519 alone is taken too. Nothing resumes, so that no ticket outlives a key.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;

/// How often it is looked whether the files are others, at most.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of either file, at most: a chain has a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where certificate and key are, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the certificate of the door first.
    pub certificate: PathBuf,
    /// Its key. Nobody but its owner and its group may read it.
    pub key: PathBuf,
}

/// Why the door has no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Everybody on this machine can read the key.
    #[error("{} can be read by everybody; chmod 600 it", .0.display())]
    Exposed(PathBuf),
    /// A file without a certificate, or without a key, in PEM.
    #[error("{} holds no {what} in PEM", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// Certificate and key do not belong together, or are of a kind that is not spoken.
    #[error("certificate and key: {0}")]
    Pair(#[from] rustls::Error),
}

/// What tells one state of the files from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp([(u64, u64, i64, i64); 2]);

/// The configuration that new connections get.
pub(crate) struct Tls {
    files: TlsFiles,
    state: Mutex<State>,
}

struct State {
    /// Of the last files that were read, good or not.
    stamp: Option<Stamp>,
    config: Arc<ServerConfig>,
    looked_at: Instant,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    // Spec: GW-48
    pub(crate) fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let stamp = Stamp::of(&files);
        let config = read(&files)?;
        Ok(Self { files, state: Mutex::new(State { stamp, config, looked_at: Instant::now() }) })
    }

    /// What the next connection gets. Files that changed are read; while they are faulty the old ones hold, and running
    /// connections keep what they have.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now < state.looked_at + LOOK {
            return state.config.clone();
        }
        state.looked_at = now;
        let stamp = Stamp::of(&self.files);
        if stamp != state.stamp {
            state.stamp = stamp;
            match read(&self.files) {
                Ok(config) => {
                    tracing::info!("certificate and key of the gateway door were read again");
                    state.config = config;
                }
                Err(error) => tracing::warn!(%error, "the gateway door goes on with its old certificate"),
            }
        }
        state.config.clone()
    }
}

impl Stamp {
    /// None while one of them is away.
    fn of(files: &TlsFiles) -> Option<Self> {
        let of = |path: &Path| {
            let found: Metadata = fs::metadata(path).ok()?;
            Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
        };
        Some(Self([of(&files.certificate)?, of(&files.key)?]))
    }
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = content(&files.certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
    let no_chain = || TlsError::Empty { path: files.certificate.clone(), what: "certificate" };
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(no_chain)?;
    let mode = fs::metadata(&files.key).map(|found| found.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o007 != 0) {
        return Err(TlsError::Exposed(files.key.clone()));
    }
    let key = zeroize::Zeroizing::new(content(&files.key)?);
    let no_key = |_| TlsError::Empty { path: files.key.clone(), what: "private key" };
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(no_key)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

fn content(path: &Path) -> Result<Vec<u8>, TlsError> {
    let broken = |source| TlsError::Read { path: path.to_owned(), source };
    let found = fs::metadata(path).map_err(broken)?;
    if !found.is_file() || found.len() > FILE_BYTES_MAX {
        return Err(broken(io::Error::other("not a file of a certificate's size")));
    }
    fs::read(path).map_err(broken)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    })
}
