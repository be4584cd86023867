//! Where archived bundles stand: in a directory of the home, or in a bucket of a server that speaks the protocol of S3.
//! Spec: releases §7.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use sealtide_link::{Proxy, ProxyKind, ProxySettings};
use zeroize::Zeroizing;

use super::bucket::Bucket;
use crate::config::Config;
use crate::failure::Failure;
use crate::gateway::read_secret_file;

/// Files of credentials of a service manager, and the variables with the same names.
const NAMES: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// What the configuration says about the archive; no secret is in it.
#[derive(Clone, Debug, Default)]
pub struct ArchiveSettings {
    /// `s3://BUCKET[/PREFIX]`; none: a directory of the home.
    pub place: Option<BucketPlace>,
    /// `https://HOST[:PORT]`; none: the one of the region at AWS.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The storage class as the server calls it.
    pub class: String,
    /// A file with the access key, for its owner alone.
    pub credentials_file: Option<PathBuf>,
    /// Whether requests may go out without TLS to others than this machine.
    pub allow_http: bool,
    /// Bytes of fetched copies that are kept, at most; no larger bundle is fetched.
    pub scratch_bytes: u64,
    /// Through which proxy it is reached, if any.
    pub proxy: ProxySettings,
}

/// A bucket, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketPlace {
    /// Its name.
    pub bucket: String,
    /// What the names of all objects begin with; may be empty, no `/` at its ends.
    pub prefix: String,
}

impl BucketPlace {
    /// `None` for what is not `s3://BUCKET[/PREFIX]`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (bucket, prefix) = text.strip_prefix("s3://")?.split_once('/').unwrap_or((&text[5..], ""));
        let name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
        let word = |word: &str| {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !word.is_empty() && !word.starts_with('.') && word.bytes().all(letter)
        };
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let is_bucket = (3..=63).contains(&bucket.len()) && bucket.bytes().all(name);
        let is_place = is_bucket && prefix.len() <= 256 && (prefix.is_empty() || prefix.split('/').all(word));
        is_place.then(|| Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for BucketPlace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gap = if self.prefix.is_empty() { "" } else { "/" };
        write!(out, "s3://{}{gap}{}", self.bucket, self.prefix)
    }
}

/// Whether a text is the address of a server: a scheme, a host, perhaps a port, and nothing behind it.
pub(crate) fn is_endpoint(text: &str) -> bool {
    host_of(text).is_some()
}

/// Whether TLS is spoken at `http[s]://HOST[:PORT]`, and its host and port.
fn host_of(text: &str) -> Option<(bool, &str, u16)> {
    let (scheme, rest) = text.split_once("://")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host.parse::<Ipv6Addr>().ok().map(|_| host)?, port),
        None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
    };
    let (is_secure, usual) = match scheme {
        "https" => (true, 443),
        "http" => (false, 80),
        _ => return None,
    };
    let port = if port.is_empty() { usual } else { port.strip_prefix(':')?.parse().ok()? };
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b".-:".contains(&byte);
    (!host.is_empty() && host.bytes().all(letter)).then_some((is_secure, host, port))
}

/// A name of a storage class: `STANDARD_IA`.
pub(crate) fn is_class(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=64).contains(&text.len()) && text.bytes().all(letter)
}

/// A name of a region: `eu-central-1`.
pub(crate) fn is_region(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(letter)
}

impl ArchiveSettings {
    /// As the settings of section `archive` say.
    pub(crate) fn of(config: &Config) -> Self {
        let text = |key| config.text("archive", key);
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Self {
            place: BucketPlace::parse(text("url")),
            endpoint: some(text("endpoint")),
            region: text("region").to_owned(),
            class: text("class").to_owned(),
            credentials_file: some(text("credentials_file")).map(PathBuf::from),
            allow_http: config.is_on("archive", "allow_http"),
            scratch_bytes: config.bytes("archive", "scratch"),
            proxy: crate::proxy::settings(config),
        }
    }

    /// Refuses what would send bundles and signatures in the open.
    ///
    /// # Errors
    /// Exit 2 for plain HTTP to another machine.
    pub(crate) fn check_endpoint(&self) -> Result<(), Failure> {
        let Some((is_secure, host, _)) = self.endpoint.as_deref().and_then(host_of) else { return Ok(()) };
        let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if is_secure || is_here || self.allow_http {
            return Ok(());
        }
        Err(Failure::usage("archive_http", format!("archive.endpoint http://{host} is plain HTTP to another machine"))
            .hint("name it with https://; archive.allow_http = yes takes the risk where the network is your own"))
    }

    /// The proxy on the way to the server, as an address with what it wants to know of its user; none: the way is direct.
    ///
    /// # Errors
    /// Exit 2 for a proxy that cannot be used.
    pub(super) fn proxy_address(&self) -> Result<Option<Zeroizing<String>>, Failure> {
        let at_aws = format!("s3.{}.amazonaws.com", self.region);
        let (_, host, port) = self.endpoint.as_deref().and_then(host_of).unwrap_or((true, &at_aws, 443));
        let unusable = |what: &str| {
            let text = format!("the archive would be reached through {}: {what}", self.proxy.named_by());
            Failure::usage("archive_proxy", text)
                .hint(format!("correct it, or add {host} to proxy.bypass where the network lets it out directly"))
        };
        let proxy = self.proxy.proxy_for(host, port).map_err(|error| unusable(&error.to_string()))?;
        match proxy {
            Some(proxy) if proxy.kind != ProxyKind::Http => Err(unusable("it is no HTTP proxy")),
            proxy => Ok(proxy.map(address_of)),
        }
    }
}

/// `http://[USER:PASSWORD@]HOST:PORT`, every byte of the two as `%XX`.
fn address_of(proxy: &Proxy) -> Zeroizing<String> {
    let encoded = |text: &str| Zeroizing::new(text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>());
    let plain = proxy.to_string();
    Zeroizing::new(match (&proxy.credentials, plain.split_once("://")) {
        (Some(it), Some((scheme, host))) => {
            format!("{scheme}://{}:{}@{host}", *encoded(&it.user), *encoded(&it.password))
        }
        _ => plain,
    })
}

/// An open archive.
pub(crate) enum Archive {
    /// `HOME/bundles/cold`.
    Directory,
    /// A bucket, and stubs in `HOME/bundles/cold` that say what is in it.
    Bucket(Box<Bucket>),
}

impl Archive {
    /// As it is configured. Reads the credentials; nothing is asked of the server.
    ///
    /// # Errors
    /// Exit 2 for settings that do not fit each other, 6 without credentials or with such that others can read.
    pub(crate) fn open(settings: &ArchiveSettings) -> Result<Self, Failure> {
        match &settings.place {
            None => Ok(Self::Directory),
            Some(place) => {
                settings.check_endpoint()?;
                let keys = AccessKeys::read(settings)?;
                Ok(Self::Bucket(Box::new(Bucket::open(settings, place, &keys)?)))
            }
        }
    }
}

/// What requests are signed with.
#[derive(Default)]
pub(super) struct AccessKeys {
    pub(super) id: Zeroizing<String>,
    pub(super) secret: Zeroizing<String>,
    pub(super) token: Option<Zeroizing<String>>,
}

impl AccessKeys {
    /// Of the file, else of the service manager, else of the environment: one of them has all.
    fn read(settings: &ArchiveSettings) -> Result<Self, Failure> {
        if let Some(path) = &settings.credentials_file {
            let bytes = Zeroizing::new(read_secret_file(path, "archive_credentials")?);
            let named = path.display();
            let wrong = || {
                Failure::usage("archive_credentials", format!("{named}: no access key is in it"))
                    .hint("two lines: aws_access_key_id = … and aws_secret_access_key = …")
            };
            return Self::parse(std::str::from_utf8(&bytes).map_err(|_| wrong())?).ok_or_else(wrong);
        }
        if let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
            && directory.join(NAMES[0]).is_file()
        {
            return Self::of(|name| std::fs::read_to_string(directory.join(name)).ok());
        }
        Self::of(|name| std::env::var(name).ok())
    }

    fn of(value: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let word = |name| {
            value(name)
                .map(Zeroizing::new)
                .map(|text| Zeroizing::new(text.trim().to_owned()))
                .filter(|it| !it.is_empty())
        };
        match (word(NAMES[0]), word(NAMES[1])) {
            (Some(id), Some(secret)) => Ok(Self { id, secret, token: word(NAMES[2]) }),
            _ => {
                Err(Failure::new(crate::failure::Exit::Refused, "archive_credentials", "the archive has no access key")
                    .hint(
                        "name a file with archive.credentials_file, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                    ))
            }
        }
    }

    /// Lines `aws_access_key_id = …`, as the file of the AWS command line has them, of one section.
    fn parse(text: &str) -> Option<Self> {
        let mut keys = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '['])) {
            let (name, value) = line.split_once('=')?;
            let value = Zeroizing::new(value.trim().to_owned());
            match name.trim() {
                "aws_access_key_id" if keys.id.is_empty() => keys.id = value,
                "aws_secret_access_key" if keys.secret.is_empty() => keys.secret = value,
                "aws_session_token" if keys.token.is_none() => keys.token = Some(value),
                _ => return None,
            }
        }
        (!keys.id.is_empty() && !keys.secret.is_empty()).then_some(keys)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn places_are_plain() {
        let place = BucketPlace::parse("s3://tides/apps/kiosk/").unwrap();
        assert_eq!((place.bucket.as_str(), place.prefix.as_str()), ("tides", "apps/kiosk"));
        assert_eq!(place.to_string(), "s3://tides/apps/kiosk");
        assert_eq!(BucketPlace::parse("s3://tides").unwrap().to_string(), "s3://tides");
        for bad in ["tides", "s3://", "s3://T", "s3://tides/../x", "s3://tides//x", "https://tides", "s3://a@tides"] {
            assert_eq!(BucketPlace::parse(bad), None, "{bad}");
        }
        assert!(is_endpoint("https://s3.example:9000") && is_endpoint("http://127.0.0.1:1"));
        for bad in ["s3.example", "ftp://s3.example", "https://me:sesame@s3.example", "https://s3.example/x"] {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        let of = |endpoint: &str, allow_http| {
            ArchiveSettings { endpoint: Some(endpoint.to_owned()), allow_http, ..Default::default() }.check_endpoint()
        };
        for good in ["http://127.0.0.1:9000", "http://[::1]:1", "http://localhost:1", "https://s3.example"] {
            assert!(of(good, false).is_ok(), "{good}");
        }
        for bad in ["http://s3.example", "http://127.0.0.1.example", "http://192.0.2.1:9000"] {
            assert_eq!(of(bad, false).unwrap_err().code, "archive_http", "{bad}");
            assert!(of(bad, true).is_ok(), "{bad}");
        }
    }

    #[test]
    fn the_proxy_is_the_one_of_everything_that_is_dialled() {
        let of = |endpoint: &str, proxy: ProxySettings| {
            let settings = ArchiveSettings {
                endpoint: (!endpoint.is_empty()).then(|| endpoint.to_owned()),
                region: "eu-central-1".to_owned(),
                proxy,
                ..Default::default()
            };
            settings.proxy_address().map(|found| found.map(|address| address.to_string())).map_err(|error| error.code)
        };
        let corp = || ProxySettings::new("http://me:s%20a@proxy:8080", "proxy.url");
        let found = Ok(Some("http://%6D%65:%73%20%61@proxy:8080".to_owned()));
        assert_eq!(of("", corp()), found);
        assert_eq!(of("https://s3.example", corp()), found);
        assert_eq!(of("http://127.0.0.1:9000", corp()), Ok(None));
        assert_eq!(of("http://127.0.0.1:9000", corp().through("127.0.0.1")), found);
        assert_eq!(of("", corp().bypassing(".amazonaws.com")), Ok(None));
        assert_eq!(of("https://s3.example", ProxySettings::default()), Ok(None));
        assert_eq!(of("", ProxySettings::new("socks5://proxy:1", "proxy.url")), Err("archive_proxy".to_owned()));
        assert_eq!(of("", ProxySettings::new("https://proxy:1", "proxy.url")), Err("archive_proxy".to_owned()));
    }

    #[test]
    fn a_file_holds_one_access_key() {
        let keys =
            AccessKeys::parse("# ours\n[default]\naws_access_key_id = me\naws_secret_access_key=sesame\n").unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.as_str(), keys.token.is_none()), ("me", "sesame", true));
        let twice = "aws_access_key_id = a\naws_secret_access_key = b\n[other]\naws_access_key_id = c\n";
        for bad in ["", "aws_access_key_id = me", "sesame", twice] {
            assert!(AccessKeys::parse(bad).is_none(), "{bad}");
        }
    }
}
