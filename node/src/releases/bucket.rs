//! The archive in a bucket. Spec: releases §7.
//!
//! ```text
//! s3://BUCKET/PREFIX/archive/vK/NAME/VERSION.manifest.json   the claim: whoever wrote it first owns the name
//!                                   /VERSION.stb             the bundle
//!                                   /VERSION.meta.json       when it was archived, what it is
//! ```
//!
//! Nothing here is written over: every object is made only where none is, and one that is there must be the same. Calls
//! wait for the network: they run on threads that may. Each has a deadline by its size.

use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path as Key;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientOptions, Error, GetOptions, ObjectStore, PutMode, PutMultipartOptions,
    PutOptions, RetryConfig,
};
use sealtide_crypto::Blake3;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use super::archive::{AccessKeys, ArchiveSettings, BucketPlace};
use crate::failure::{Exit, Failure, whole};

/// A bundle with more bytes goes in several parts.
const SINGLE_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of a part at least, but of the last one; a server takes 10 000 of them.
const PART: usize = 16 * 1024 * 1024;
/// Parts of one bundle, at most.
const PARTS_MAX: u64 = 10_000;
/// What every call may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes per second that a server must reach at least.
const PACE: u64 = 256 * 1024;
/// Without a byte for so long a request is given up.
const SILENCE: Duration = Duration::from_secs(20);
/// Bytes of a manifest or of what is known of a bundle, at most.
const TEXT_MAX: u64 = 32 * 1024 * 1024;

/// An open bucket.
pub(crate) struct Bucket {
    store: AmazonS3,
    place: BucketPlace,
    class: String,
    server: String,
}

/// Whether an object was made, or the name is taken.
enum Made {
    New,
    Taken,
}

impl Bucket {
    /// Opens nothing on the network.
    ///
    /// # Errors
    /// Exit 2 for settings that are none.
    pub(super) fn open(settings: &ArchiveSettings, place: &BucketPlace, keys: &AccessKeys) -> Result<Self, Failure> {
        // The client would look for variables by itself where none is named: then it is told one that it uses for nobody.
        let proxy = settings.proxy_address()?;
        let for_nobody = || (Zeroizing::new("http://127.0.0.1:9".to_owned()), "*,0.0.0.0/0,::/0");
        let (proxy, excluded) = proxy.map_or_else(for_nobody, |it| (it, ""));
        let options = ClientOptions::new()
            .with_proxy_url(proxy.as_str())
            .with_proxy_excludes(excluded)
            .with_connect_timeout(Duration::from_secs(10))
            .with_read_timeout(SILENCE)
            .with_timeout_disabled()
            .with_allow_http(true);
        let backoff = BackoffConfig {
            init_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(2),
            ..BackoffConfig::default()
        };
        let mut builder = AmazonS3Builder::new()
            .with_client_options(options)
            .with_retry(RetryConfig { backoff, max_retries: 2, retry_timeout: Duration::from_secs(30) })
            .with_bucket_name(&place.bucket)
            .with_region(&settings.region)
            .with_access_key_id(keys.id.as_str())
            .with_secret_access_key(keys.secret.as_str());
        if let Some(token) = &keys.token {
            builder = builder.with_token(token.as_str());
        }
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(true);
        }
        let store = builder.build().map_err(|error| Failure::usage("archive", whole(&error)))?;
        let server = settings.endpoint.clone().unwrap_or_else(|| format!("AWS in {}", settings.region));
        Ok(Self { store, place: place.clone(), class: settings.class.clone(), server })
    }

    /// How an object is named in what a person reads, and in what is known of a bundle.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("{}/archive/{name}", self.place)
    }

    /// The class that objects get.
    pub(crate) fn class(&self) -> &str {
        &self.class
    }

    /// Takes a name for a manifest. That it was taken before by the same is fine.
    ///
    /// The server is asked twice: one that makes it a second time does not look at conditions, and nothing is moved to it.
    ///
    /// # Errors
    /// Exit 5 when the name belongs to another manifest; as [`Bucket::failure`].
    // Spec: GW-75
    pub(crate) fn claim(&self, name: &str, manifest: &str) -> Result<(), Failure> {
        if matches!(self.make(name, Bytes::from(manifest.to_owned()))?, Made::New)
            && matches!(self.make(name, Bytes::from(manifest.to_owned()))?, Made::New)
        {
            let text = format!("{} does not look at conditions: it made {} twice", self.server, self.url(name));
            return Err(Failure::failed("archive_unconditional", text).hint(
                "bundles stay where they are; name a server that honours If-None-Match, or leave archive.url empty",
            ));
        }
        if self.text(name)? == manifest { Ok(()) } else { Err(self.another(name)) }
    }

    /// Copies a file into the bucket and reads it back.
    ///
    /// # Errors
    /// Exit 5 when what stands there is not the file; as [`Bucket::failure`].
    pub(crate) fn put_file(&self, name: &str, path: &Path, hash: [u8; 32], size: u64) -> Result<(), Failure> {
        if size <= SINGLE_MAX {
            let bytes = Bytes::from(std::fs::read(path)?);
            self.make(name, bytes)?;
        } else if !self.has(name)? {
            // The claim keeps others away: parts that come together are not made under a condition.
            self.put_parts(name, path, size)?;
        }
        crate::failpoint::hit("archive_copied");
        let found = self.get(name, size, &mut std::io::sink())?;
        if found == hash { Ok(()) } else { Err(self.another(name)) }
    }

    /// Writes what is known of a bundle. What an earlier try wrote counts.
    ///
    /// # Errors
    /// As [`Bucket::failure`].
    pub(crate) fn put_meta(&self, name: &str, meta: &str) -> Result<(), Failure> {
        self.make(name, Bytes::from(meta.to_owned())).map(drop)
    }

    /// Reads an object of a known size to its end; the BLAKE3-256 of what came.
    ///
    /// # Errors
    /// Exit 5 when it has another size; as [`Bucket::failure`].
    pub(crate) fn get(&self, name: &str, size: u64, to: &mut dyn Write) -> Result<[u8; 32], Failure> {
        let key = self.key(name);
        let (hash, bytes) = self.wait(name, size, async {
            let got = self.store.get_opts(&key, GetOptions::default()).await.map_err(Trouble::Server)?;
            let (mut hash, mut bytes, mut pieces) = (Blake3::new(), 0, got.into_stream());
            while let Some(piece) = pieces.try_next().await.map_err(Trouble::Server)? {
                bytes += piece.len() as u64;
                if bytes > size {
                    break;
                }
                hash.update(&piece);
                to.write_all(&piece).map_err(Trouble::Disk)?;
            }
            Ok((hash.finish(), bytes))
        })?;
        if bytes == size { Ok(hash) } else { Err(self.another(name)) }
    }

    fn key(&self, name: &str) -> Key {
        let gap = if self.place.prefix.is_empty() { "" } else { "/" };
        Key::from(format!("{}{gap}archive/{name}", self.place.prefix))
    }

    fn attributes(&self) -> Attributes {
        Attributes::from_iter([(Attribute::StorageClass, self.class.clone())])
    }

    /// Makes an object where none is.
    fn make(&self, name: &str, bytes: Bytes) -> Result<Made, Failure> {
        let (key, size) = (self.key(name), bytes.len() as u64);
        let options = PutOptions { mode: PutMode::Create, attributes: self.attributes(), ..PutOptions::default() };
        self.wait(name, size, async {
            match self.store.put_opts(&key, bytes.into(), options).await {
                Ok(_) => Ok(Made::New),
                Err(Error::AlreadyExists { .. }) => Ok(Made::Taken),
                Err(error) => Err(Trouble::Server(error)),
            }
        })
    }

    fn has(&self, name: &str) -> Result<bool, Failure> {
        let key = self.key(name);
        self.wait(name, 0, async {
            match self.store.get_opts(&key, GetOptions { head: true, ..GetOptions::default() }).await {
                Ok(_) => Ok(true),
                Err(Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(Trouble::Server(error)),
            }
        })
    }

    fn text(&self, name: &str) -> Result<String, Failure> {
        let key = self.key(name);
        let bytes = self.wait(name, 0, async {
            let got = self.store.get_opts(&key, GetOptions::default()).await.map_err(Trouble::Server)?;
            if got.meta.size > TEXT_MAX {
                return Ok(Bytes::new());
            }
            got.bytes().await.map_err(Trouble::Server)
        })?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.another(name))
    }

    fn put_parts(&self, name: &str, path: &Path, size: u64) -> Result<(), Failure> {
        let key = self.key(name);
        let part = usize::try_from(size.div_ceil(PARTS_MAX)).unwrap_or(PART).max(PART);
        let mut file = File::open(path)?;
        self.wait(name, size, async {
            let options = PutMultipartOptions { attributes: self.attributes(), ..PutMultipartOptions::default() };
            let mut upload = self.store.put_multipart_opts(&key, options).await.map_err(Trouble::Server)?;
            let sent = async {
                loop {
                    let mut bytes = Vec::with_capacity(part);
                    (&mut file).take(part as u64).read_to_end(&mut bytes).map_err(Trouble::Disk)?;
                    if bytes.is_empty() {
                        break;
                    }
                    upload.put_part(bytes.into()).await.map_err(Trouble::Server)?;
                    crate::failpoint::hit("archive_part");
                }
                upload.complete().await.map_err(Trouble::Server)
            }
            .await;
            if let Err(trouble) = sent {
                // Parts that nobody completes cost money; where this fails too, a rule of the bucket removes them.
                let _ = upload.abort().await;
                return Err(trouble);
            }
            Ok(())
        })
    }

    /// Waits for the server, up to the deadline.
    fn wait<T>(&self, name: &str, size: u64, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Failure> {
        let deadline = PATIENCE + Duration::from_secs(size / PACE);
        match Handle::current().block_on(async { tokio::time::timeout(deadline, work).await }) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(Trouble::Disk(error))) => Err(error.into()),
            Ok(Err(Trouble::Server(error))) => Err(self.failure(name, &error)),
            Err(_) => Err(self.away(&format!("{} did not end within {} s", self.url(name), deadline.as_secs()))),
        }
    }

    fn another(&self, name: &str) -> Failure {
        let text = format!("{} at {} is not what was archived there", self.url(name), self.server);
        Failure::new(Exit::Verification, "archive_conflict", text)
            .hint("nothing was written over it; move that object away, or name another archive.url")
    }

    fn away(&self, what: &str) -> Failure {
        Failure::failed(UNREACHABLE, format!("the archive {} at {} cannot be reached: {what}", self.place, self.server))
            .hint("bundles of the hot tier go on; look at archive.endpoint and the network: the next job tries again")
    }

    /// What a server refused, and what to do about it.
    fn failure(&self, name: &str, error: &Error) -> Failure {
        let text = whole(error);
        let named = format!("{} at {}: {text}", self.url(name), self.server);
        let says = |word: &str| text.contains(word);
        let stay = "bundles stay where they are";
        match Answer::of(error, &text) {
            Answer::Away => self.away(&text),
            Answer::Class => Failure::failed("archive_class", format!("storage class {} is refused: {named}", self.class))
                .hint(format!("{stay}; set archive.class to a class that this server has, such as STANDARD")),
            Answer::Unable => Failure::failed("archive_unable", format!("the server cannot do this: {named}")).hint(
                format!("{stay}; archive.class or the condition If-None-Match is not taken: try archive.class STANDARD, or another server"),
            ),
            Answer::Refused => Failure::new(Exit::Refused, "archive_refused", format!("access is refused: {named}"))
                .hint(format!("{stay}; look at the access key, its rights, archive.region and the clock of this machine")),
            Answer::Missing if says("NoSuchBucket") => Failure::failed("archive_no_bucket", named)
                .hint(format!("{stay}; make bucket {}, or correct archive.url", self.place.bucket)),
            Answer::Missing => Failure::failed("archive_gone", format!("it is not there any more: {named}"))
                .hint("put the object back from a copy, or publish the release anew"),
            Answer::Other => Failure::failed("archive", named).hint(stay),
        }
    }
}

/// The code of a failure that tells that the place is away.
pub(crate) const UNREACHABLE: &str = "archive_unreachable";

/// What stopped a call.
enum Trouble {
    Server(Error),
    Disk(std::io::Error),
}

/// What a failed request means.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Away,
    Class,
    Unable,
    Refused,
    Missing,
    Other,
}

impl Answer {
    fn of(error: &Error, text: &str) -> Self {
        let mut cause = Some(error as &(dyn std::error::Error + 'static));
        while let Some(at) = cause {
            if let Some(http) = at.downcast_ref::<HttpError>() {
                return if http.kind() == HttpErrorKind::Decode { Self::Other } else { Self::Away };
            }
            cause = at.source();
        }
        Self::of_text(error, text)
    }

    fn of_text(error: &Error, text: &str) -> Self {
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if says(&["InvalidStorageClass", "storage class", "StorageClass", "x-amz-storage-class"]) {
            return Self::Class;
        }
        match error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Self::Refused,
            _ if says(&[
                "SignatureDoesNotMatch",
                "InvalidAccessKeyId",
                "AccessDenied",
                "AuthorizationHeaderMalformed",
            ]) =>
            {
                Self::Refused
            }
            Error::NotFound { .. } => Self::Missing,
            _ if says(&["NotImplemented", "status code: 501", "status code: 400"]) => Self::Unable,
            _ if says(&["status code: 5", "status code: 429"]) => Self::Away,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let of = |text: &str| {
            let error = Error::Generic { store: "S3", source: text.to_owned().into() };
            Answer::of_text(&error, &whole(&error))
        };
        let non =
            |status: &str, code: &str| format!("Server returned non-2xx status code: {status}: <Code>{code}</Code>");
        assert_eq!(of(&non("400 Bad Request", "InvalidStorageClass")), Answer::Class);
        assert_eq!(of(&non("501 Not Implemented", "NotImplemented")), Answer::Unable);
        assert_eq!(of(&non("400 Bad Request", "InvalidRequest")), Answer::Unable);
        assert_eq!(of(&non("403 Forbidden", "SignatureDoesNotMatch")), Answer::Refused);
        assert_eq!(of(&non("503 Service Unavailable", "SlowDown")), Answer::Away);
        assert_eq!(of("something else"), Answer::Other);
        let gone = Error::NotFound { path: "x".to_owned(), source: "gone".into() };
        assert_eq!(Answer::of_text(&gone, "gone"), Answer::Missing);
    }
}
