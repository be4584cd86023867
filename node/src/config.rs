//! Settings: flag > variable (`SEALTIDE_<SECTION>_<KEY>`) > file (`config.toml`) > default.
//!
//! Every setting is one row of [`settings`]. An unknown key in the file is an error that names the line.

mod gateway;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use sealtide_identity::{NodeId, RelayAddress, RelayHint};
use sealtide_link::{Padding, PathPolicy, Proxy, ProxySettings, Roots};
use serde_json::{Value, json};
use toml_edit::DocumentMut;

use crate::beside::Beside;
use crate::engine::quota::QuotaLimits;
use crate::failure::Failure;
use crate::releases::{BucketPlace, is_class, is_endpoint, is_kept, is_region};

pub use gateway::GatewaySettings;

/// One setting there is.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Section of the file.
    pub section: &'static str,
    /// Key in the section.
    pub key: &'static str,
    /// What holds when nothing is said.
    pub default: &'static str,
    /// What it does, one line.
    pub about: &'static str,
    check: fn(&str) -> bool,
}

impl Setting {
    /// The value as it is shown: without the user name and password of a proxy.
    fn shown(&self, value: &str) -> String {
        match (self.section, value.rsplit_once('@')) {
            ("proxy", Some((before, host))) => {
                let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
                let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
                format!("{scheme}***@{host}")
            }
            _ => value.to_owned(),
        }
    }
}

/// All settings.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().chain(gateway::ROWS.iter().map(|row| &row.setting))
}

/// The settings of the gateway that `gateway run` takes as options, `--like-this`.
pub(crate) fn gateway_options() -> impl Iterator<Item = &'static Setting> {
    gateway::ROWS.iter().map(|row| &row.setting)
}

/// The settings of everything but the whole door of the gateway.
const SETTINGS: &[Setting] = &[
    Setting {
        section: "link",
        key: "listen",
        default: "127.0.0.1:7443",
        about: "address of the link door; the default moves on to the next free port",
        check: is_address,
    },
    Setting {
        section: "link",
        key: "announce",
        default: "",
        about: "addresses told to peers instead of where it listens (a forwarded port, a proxy); commas between them",
        check: are_addresses,
    },
    Setting {
        section: "link",
        key: "policy",
        default: "auto",
        about: "paths to peers: auto, prefer-direct, relay-only (peers do not learn the address) or direct-only",
        check: |word| PathPolicy::from_word(word).is_some(),
    },
    Setting {
        section: "link",
        key: "tunnel",
        default: "",
        about: "wss://HOST[:PORT][/PATH] under which the gateway door is reached from outside, behind your HTTPS; peers that \
                reach nothing else come through it",
        check: |url| url.is_empty() || tunnel_host(url).is_some(),
    },
    Setting {
        section: "link",
        key: "padding",
        default: "off",
        about: "off; padme: what is sent is rounded up, at most 12 %, so that sizes tell little; constant:RATE: 1,024 bytes \
                at a time leave at this rate, in bytes per second, so that times tell nothing either",
        check: |word| Padding::from_word(word).is_some(),
    },
    Setting {
        section: "link",
        key: "relays",
        default: "",
        about: "relays to log in at, str1… with commas between them; more come with --relay",
        check: are_relays,
    },
    Setting {
        section: "link",
        key: "relay_authorities",
        default: "",
        about: "file with the certificates (PEM) of those who may vouch for a proxy that ends the TLS in front of a relay;                 without it such relays are not used",
        check: |_| true,
    },
    Setting {
        section: "relay",
        key: "rate",
        default: "6250kB",
        about: "what one node may send over `relay run` per second, in bytes, as 6250kB; 0 for no limit",
        check: |text| read_size(text).is_some(),
    },
    Setting {
        section: "relay",
        key: "trusted_proxies",
        default: "",
        about: "networks of proxies in front of `relay run` whose X-Forwarded-For says where a node is seen; commas between                 them",
        check: |text| gateway::nets(text).is_some(),
    },
    Setting {
        section: "gateway",
        key: "listen",
        default: "127.0.0.1:7480",
        about: "address of the gateway door (dashboard, health, metrics); outside of loopback with TLS only; the default moves on to the next free port",
        check: is_address,
    },
    Setting {
        section: "gateway",
        key: "trusted_proxies",
        default: "",
        about: "networks of reverse proxies whose X-Forwarded-For says where a tunnel comes from; commas between them",
        check: |text| gateway::nets(text).is_some(),
    },
    Setting {
        section: "gateway",
        key: "app",
        default: "no",
        about: "whether `up` makes keys and a registry for its gateway door where there are none, as `gateway run`: yes or no",
        check: |word| is_yes(word).is_some(),
    },
    Setting {
        section: "identity",
        key: "passphrase_file",
        default: "",
        about: "a file with the passphrase of this home, for a node that starts without a terminal",
        check: |_| true,
    },
    Setting {
        section: "proxy",
        key: "url",
        default: "",
        about: "proxy for everything dialled: http://[USER:PASSWORD@]HOST:PORT or socks5://…; `none` for none, \
                whatever HTTPS_PROXY and ALL_PROXY say",
        check: is_proxy,
    },
    Setting {
        section: "proxy",
        key: "bypass",
        default: "",
        about: "targets dialled without the proxy, as in NO_PROXY and added to it; commas between them",
        check: ProxySettings::are_patterns,
    },
    Setting {
        section: "proxy",
        key: "through",
        default: "",
        about: "targets dialled through the proxy although they are loopback or bypassed; commas between them",
        check: ProxySettings::are_patterns,
    },
    Setting { section: "ticket", key: "ttl", default: "10m", about: "how long a new ticket lives", check: is_duration },
    Setting {
        section: "sync",
        key: "timeout",
        default: "60s",
        about: "time without progress after which a waiting command gives up",
        check: is_duration,
    },
    Setting {
        section: "quota",
        key: "saga",
        default: "64GiB",
        about: "bytes that one saga may bring: a number with B, kB, KiB, MB, MiB, GB, GiB, TB or TiB, or none",
        check: |text| read_size(text).is_some(),
    },
    Setting {
        section: "quota",
        key: "peer",
        default: "128GiB",
        about: "bytes that may wait from one peer (transfers not finished, held versions), all spaces together",
        check: |text| read_size(text).is_some(),
    },
    Setting {
        section: "quota",
        key: "space",
        default: "1TiB",
        about: "bytes that one space may take here with its history before nothing more is received for it",
        check: |text| read_size(text).is_some(),
    },
    Setting {
        section: "release",
        key: "keep",
        default: "2",
        about: "releases of each channel whose contents stay at a node that installs from it, beside what is installed and what was \
                before it, and that a node fetches by itself where they are not here: a number from 1 on, or all",
        check: is_kept,
    },
    Setting {
        section: "archive",
        key: "url",
        default: "",
        about: "s3://BUCKET[/PREFIX] of a server with the protocol of S3, for archived bundles; empty: a directory of the home",
        check: |text| text.is_empty() || BucketPlace::parse(text).is_some(),
    },
    Setting {
        section: "archive",
        key: "endpoint",
        default: "",
        about: "https://HOST[:PORT] of that server; empty: AWS in the region",
        check: |text| text.is_empty() || is_endpoint(text),
    },
    Setting {
        section: "archive",
        key: "region",
        default: "us-east-1",
        about: "region that its requests are signed for",
        check: is_region,
    },
    Setting {
        section: "archive",
        key: "class",
        default: "STANDARD_IA",
        about: "storage class of archived bundles, as that server calls it",
        check: is_class,
    },
    Setting {
        section: "archive",
        key: "credentials_file",
        default: "",
        about: "file of mode 600 with aws_access_key_id = … and aws_secret_access_key = …; empty: credentials of the service \
                manager, else variables, named AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        check: |_| true,
    },
    Setting {
        section: "archive",
        key: "allow_http",
        default: "no",
        about: "whether an endpoint on another machine may be plain http://: yes or no",
        check: |word| is_yes(word).is_some(),
    },
    Setting {
        section: "archive",
        key: "scratch",
        default: "4GiB",
        about: "bytes of archived bundles that are kept beside the node after they were fetched; no larger one is fetched",
        check: |text| read_size(text).is_some(),
    },
    Setting {
        section: "log",
        key: "level",
        default: "warn",
        about: "error, warn, info, debug or trace; -v raises it",
        check: is_level,
    },
];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Given on the command line.
    Flag,
    /// An environment variable.
    Variable(String),
    /// A file, and the line in it.
    File(PathBuf, usize),
    /// Nobody said anything.
    Default,
}

impl Origin {
    /// The origin as people read it.
    pub fn text(&self) -> String {
        match self {
            Self::Flag => "flag".to_owned(),
            Self::Variable(name) => format!("variable {name}"),
            Self::File(path, line) => format!("{}:{line}", path.display()),
            Self::Default => "default".to_owned(),
        }
    }
}

/// The settings that hold.
#[derive(Clone, Debug)]
pub struct Config {
    values: BTreeMap<(&'static str, &'static str), (String, Origin)>,
}

impl Config {
    /// Reads the file (if there is one) and the variables.
    ///
    /// # Errors
    /// Exit 2, naming the line or variable that is wrong.
    pub fn load(path: &Path, explicit: bool) -> Result<Self, Failure> {
        let mut config = Self::defaults();
        match std::fs::read_to_string(path) {
            Ok(text) => config.read_file(path, &text)?,
            Err(error) if !explicit && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err(Failure::usage("config", format!("{}: {error}", path.display()))),
        }
        for setting in settings() {
            let name = variable(setting);
            if let Ok(value) = std::env::var(&name) {
                config.put(setting, value, Origin::Variable(name))?;
            }
        }
        config.read_older_names()?;
        Ok(config)
    }

    /// Whether a switch is on.
    pub(crate) fn is_on(&self, section: &'static str, key: &'static str) -> bool {
        is_yes(self.text(section, key)) == Some(true)
    }

    /// What holds where nobody sets anything.
    pub fn defaults() -> Self {
        let default =
            |setting: &'static Setting| ((setting.section, setting.key), (setting.default.to_owned(), Origin::Default));
        Self { values: settings().map(default).collect() }
    }

    fn read_file(&mut self, path: &Path, text: &str) -> Result<(), Failure> {
        let document = toml_edit::Document::parse(text).map_err(|error| {
            Failure::usage("config", format!("{}: {}", path.display(), error.to_string().trim_end()))
        })?;
        let line_of = |span: Option<std::ops::Range<usize>>| {
            span.map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1)
        };
        let unknown = |line: usize, what: &str| {
            Failure::usage("config", format!("{}:{line}: {what} is no setting", path.display())).hint(near(what))
        };
        for (section, item) in document.as_table().iter() {
            let line = line_of(document.as_table().key(section).and_then(|key| key.span()));
            let table = item.as_table_like().ok_or_else(|| unknown(line, section))?;
            for (key, item) in table.iter() {
                let line = line_of(table.key(key).and_then(|key| key.span()));
                let setting = find(section, key).ok_or_else(|| unknown(line, &format!("{section}.{key}")))?;
                let value = text_of(item).ok_or_else(|| {
                    Failure::usage("config", format!("{}:{line}: {section}.{key} must be a text", path.display()))
                })?;
                self.put(setting, value, Origin::File(path.to_owned(), line))?;
            }
        }
        Ok(())
    }

    fn put(&mut self, setting: &Setting, value: String, origin: Origin) -> Result<(), Failure> {
        if !(setting.check)(&value) {
            let shown = setting.shown(&value);
            let text = format!("{}: {shown:?} is no value for {}.{}", origin.text(), setting.section, setting.key);
            return Err(Failure::usage("config", text).hint(setting.about));
        }
        self.values.insert((setting.section, setting.key), (value, origin));
        Ok(())
    }

    /// Takes a value from the command line.
    ///
    /// # Errors
    /// Exit 2 when it is no value for that setting.
    pub fn flag(&mut self, section: &'static str, key: &'static str, value: Option<&str>) -> Result<(), Failure> {
        match (value, find(section, key)) {
            (Some(value), Some(setting)) => self.put(setting, value.to_owned(), Origin::Flag),
            _ => Ok(()),
        }
    }

    /// The value of a setting.
    pub fn text(&self, section: &'static str, key: &'static str) -> &str {
        &self.values[&(section, key)].0
    }

    /// Where the value of a setting came from.
    pub fn origin(&self, section: &'static str, key: &'static str) -> &Origin {
        &self.values[&(section, key)].1
    }

    /// The relays of `link.relays`.
    pub fn relays(&self) -> Vec<RelayAddress> {
        self.text("link", "relays").split(',').filter_map(|part| RelayAddress::decode(part.trim()).ok()).collect()
    }

    /// Who may vouch for proxies in front of relays; `None` when nobody is named.
    ///
    /// # Errors
    /// Exit 2 when the file cannot be read or names nobody.
    pub fn relay_authorities(&self) -> Result<Option<Roots>, Failure> {
        let path = self.text("link", "relay_authorities");
        if path.is_empty() {
            return Ok(None);
        }
        let wrong = |error: String| Failure::usage("relay_authorities", format!("{path}: {error}"));
        let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        Roots::read(&pem).map(Some).map_err(|error| wrong(error.to_string()))
    }

    /// The networks of the proxies in front of `relay run`.
    pub fn relay_proxies(&self) -> Vec<IpNet> {
        gateway::nets(self.text("relay", "trusted_proxies")).unwrap_or_default()
    }

    /// The value of a setting that is a list of addresses.
    pub fn addresses(&self, section: &'static str, key: &'static str) -> Vec<std::net::SocketAddr> {
        self.text(section, key).split(',').filter_map(|part| part.trim().parse().ok()).collect()
    }

    /// The URL of the own tunnel, and what its door looks at.
    pub fn tunnel(&self) -> Option<(String, sealtide_gateway::Settings)> {
        let url = self.text("link", "tunnel");
        let door = tunnel_door(tunnel_host(url)?, self.text("gateway", "trusted_proxies"))?;
        Some((url.to_owned(), door))
    }

    /// What is added to what is sent over links.
    pub fn padding(&self) -> Padding {
        Padding::from_word(self.text("link", "padding")).unwrap_or_default()
    }

    /// Which paths to peers are used.
    pub fn path_policy(&self) -> PathPolicy {
        PathPolicy::from_word(self.text("link", "policy")).unwrap_or_default()
    }

    /// The value of a setting that is a duration.
    pub fn seconds(&self, section: &'static str, key: &'static str) -> u64 {
        humantime::parse_duration(self.text(section, key)).map_or(60, |duration| duration.as_secs())
    }

    /// The value of a setting that is a number of bytes; `u64::MAX` for none.
    pub fn bytes(&self, section: &'static str, key: &'static str) -> u64 {
        read_size(self.text(section, key)).unwrap_or(u64::MAX)
    }

    /// How much peers may bring.
    pub fn quotas(&self) -> QuotaLimits {
        let bytes = |key| self.bytes("quota", key);
        QuotaLimits { saga: bytes("saga"), peer: bytes("peer"), space: bytes("space") }
    }

    /// `config show`.
    pub fn show(&self) -> Value {
        let rows: Vec<Value> = settings()
            .map(|setting| {
                let (value, origin) = &self.values[&(setting.section, setting.key)];
                json!({
                    "key": format!("{}.{}", setting.section, setting.key),
                    "value": setting.shown(value),
                    "origin": origin.text(),
                    "about": setting.about,
                })
            })
            .collect();
        json!({"schema": "sealtide/config/1", "settings": rows})
    }
}

/// Writes one setting to the file and keeps everything else in it as it is.
///
/// # Errors
/// Exit 2 for a key or value that is none.
pub fn set(path: &Path, name: &str, value: &str) -> Result<Value, Failure> {
    let (section, key) = name.split_once('.').unwrap_or((name, ""));
    let setting =
        find(section, key).ok_or_else(|| Failure::usage("config", format!("{name} is no setting")).hint(near(name)))?;
    if !(setting.check)(value) {
        let shown = setting.shown(value);
        return Err(Failure::usage("config", format!("{shown:?} is no value for {name}")).hint(setting.about));
    }
    let wrong = |what: &dyn std::fmt::Display| Failure::usage("config", format!("{}: {what}", path.display()));
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        // What cannot be read must not be written over.
        text => text.map_err(|error| wrong(&error).hint("nothing was changed"))?,
    };
    let mut document: DocumentMut = text.parse().map_err(|error| wrong(&error))?;
    let item = document.entry(section).or_insert(toml_edit::table());
    let table = item.as_table_like_mut().ok_or_else(|| {
        wrong(&format!("{section} is no section there, so {name} cannot be set"))
            .hint(format!("write it as [{section}]"))
    })?;
    table.insert(key, toml_edit::value(value));
    let named = |error: std::io::Error| Failure::from(error).about(path);
    // A proxy may be set with its password.
    let (beside, mut file) = Beside::over(path, 0o600).map_err(named)?;
    let written = file.write_all(document.to_string().as_bytes()).and_then(|()| file.sync_all());
    written.and_then(|()| beside.replace()).map_err(named)?;
    Ok(json!({"schema": "sealtide/config_set/1", "key": name, "value": setting.shown(value), "file": path}))
}

/// What a switch says: yes and no, or true and false as the settings of the door have it.
fn is_yes(word: &str) -> Option<bool> {
    match word {
        "yes" | "true" => Some(true),
        "no" | "false" => Some(false),
        _ => None,
    }
}

/// The setting that somebody may have meant, and where all of them are told: also where the file has a mistake.
fn near(what: &str) -> String {
    let names: Vec<String> = settings().map(|setting| format!("{}.{}", setting.section, setting.key)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let near = similar::get_close_matches(what, &names, 1, 0.7);
    let near = near.first().map_or_else(String::new, |name| format!("{name}? "));
    format!("{near}`sealtide --config /dev/null config show` lists all settings")
}

fn find(section: &str, key: &str) -> Option<&'static Setting> {
    settings().find(|setting| setting.section == section && setting.key == key)
}

fn variable(setting: &Setting) -> String {
    format!("SEALTIDE_{}_{}", setting.section.to_uppercase(), setting.key.to_uppercase())
}

/// The text of a value: a text, a whole number, true or false, or a list of texts, which gets commas.
fn text_of(item: &toml_edit::Item) -> Option<String> {
    let plain = item.as_str().map(str::to_owned).or_else(|| item.as_integer().map(|number| number.to_string()));
    let plain = plain.or_else(|| item.as_bool().map(|flag| flag.to_string()));
    let list = || {
        let texts: Option<Vec<&str>> = item.as_array()?.iter().map(toml_edit::Value::as_str).collect();
        texts.map(|texts| texts.join(","))
    };
    plain.or_else(list)
}

/// Addresses with commas between them, or nothing. None of them may be a wildcard: nobody can dial one.
fn are_addresses(text: &str) -> bool {
    let dialable = |part: &str| {
        let address = part.trim().parse::<std::net::SocketAddr>();
        address.is_ok_and(|address| !address.ip().is_unspecified() && address.port() != 0)
    };
    text.is_empty() || text.split(',').all(dialable)
}

fn is_proxy(text: &str) -> bool {
    text.is_empty() || text == "none" || Proxy::parse(text).is_ok()
}

fn are_relays(text: &str) -> bool {
    text.split(',').filter(|part| !part.trim().is_empty()).all(|part| RelayAddress::decode(part.trim()).is_ok())
}

/// A door for requests that name `host`, behind these proxies; none when one of them is no network.
fn tunnel_door(host: String, proxies: &str) -> Option<sealtide_gateway::Settings> {
    let trusted_proxies = gateway::nets(proxies)?;
    Some(sealtide_gateway::Settings { public_host: Some(host), trusted_proxies, ..Default::default() })
}

/// The host, with its port, that requests to a tunnel at this URL name; none when it is no such URL.
fn tunnel_host(url: &str) -> Option<String> {
    let hint = RelayHint { relay: NodeId::from_bytes([0; 32]), url: url.to_owned() };
    let authority = url.strip_prefix("wss://")?.split('/').next()?;
    hint.has_valid_url().then(|| authority.strip_suffix(":443").unwrap_or(authority).to_owned())
}

fn is_address(text: &str) -> bool {
    text.parse::<std::net::SocketAddr>().is_ok()
}

fn is_duration(text: &str) -> bool {
    humantime::parse_duration(text).is_ok_and(|duration| duration.as_secs() > 0)
}

/// A number of bytes with its unit; `u64::MAX` for `none`.
fn read_size(text: &str) -> Option<u64> {
    if text == "none" {
        return Some(u64::MAX);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" => 1000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn is_level(text: &str) -> bool {
    ["error", "warn", "info", "debug", "trace"].contains(&text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::failure::Exit;

    fn read(text: &str) -> Result<Config, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path, true)
    }

    #[test]
    fn the_file_wins_over_the_default() {
        let config = read("# mine\n[link]\nlisten = \"0.0.0.0:9\"\n").unwrap();
        assert_eq!(config.text("link", "listen"), "0.0.0.0:9");
        assert!(matches!(config.origin("link", "listen"), Origin::File(_, 3)));
        assert_eq!(config.text("ticket", "ttl"), "10m");
    }

    #[test]
    fn unknown_keys_and_bad_values_name_the_line() {
        let unknown = read("[link]\n\nlisen = \"x\"\n").unwrap_err();
        assert!(unknown.message.contains(":3: link.lisen is no setting"), "{}", unknown.message);
        let bad = read("[ticket]\nttl = \"soon\"\n").unwrap_err();
        assert!(bad.message.contains(":2") && bad.message.contains("soon"), "{}", bad.message);
    }

    #[test]
    fn a_tunnel_names_its_host_and_the_proxies_that_are_believed() {
        let config = read(
            "[link]\ntunnel = \"wss://tides.example:8443/in\"\n[gateway]\ntrusted_proxies = \"127.0.0.1/32, ::1/128\"\n",
        );
        let (url, door) = config.unwrap().tunnel().unwrap();
        assert_eq!(
            (url.as_str(), door.public_host.as_deref()),
            ("wss://tides.example:8443/in", Some("tides.example:8443"))
        );
        assert_eq!(door.trusted_proxies.len(), 2);
        assert!(read("").unwrap().tunnel().is_none());
        for bad in ["[link]\ntunnel = \"https://tides.example\"\n", "[gateway]\ntrusted_proxies = \"nobody\"\n"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_to_announce_are_those_that_can_be_dialled() {
        let config = read("[link]\nannounce = \"192.0.2.1:7443, [2001:db8::1]:443\"\n").unwrap();
        let wanted = ["192.0.2.1:7443", "[2001:db8::1]:443"].map(|text| text.parse().unwrap());
        assert_eq!(config.addresses("link", "announce"), wanted);
        assert!(read("").unwrap().addresses("link", "announce").is_empty());
        for bad in ["0.0.0.0:7443", "192.0.2.1:0", "192.0.2.1", "192.0.2.1:1,"] {
            assert!(read(&format!("[link]\nannounce = \"{bad}\"\n")).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_password_of_a_proxy_is_never_shown() {
        let config = read("[proxy]\nurl = \"http://me:sesame@proxy:1\"\nbypass = \"10.0.0.0/8, .lan\"\n").unwrap();
        let shown = config.show().to_string();
        assert!(shown.contains("http://***@proxy:1") && !shown.contains("sesame"), "{shown}");
        assert_eq!(config.text("proxy", "url"), "http://me:sesame@proxy:1");
        let bad = read("[proxy]\nurl = \"ftp://me:sesame@proxy:1\"\n").unwrap_err();
        assert!(bad.message.contains("ftp://***@proxy:1") && !bad.message.contains("sesame"), "{}", bad.message);
        assert!(read("[proxy]\nbypass = \"10.0.0.0/40\"\n").is_err());
    }

    #[test]
    fn sizes_have_units() {
        let sizes = [("0", 0), ("12B", 12), ("3 kB", 3000), ("2KiB", 2048), ("1TiB", 1 << 40), ("none", u64::MAX)];
        for (text, bytes) in sizes {
            assert_eq!(read_size(text), Some(bytes), "{text}");
        }
        for bad in ["", "GiB", "1.5GiB", "-1", "1 gib", "99999999TiB"] {
            assert_eq!(read_size(bad), None, "{bad}");
        }
        let quotas = read("[quota]\nspace = \"2MiB\"\nsaga = 100\n").unwrap().quotas();
        assert_eq!((quotas.saga, quotas.peer, quotas.space), (100, 128 << 30, 2 << 20));
        assert!(read("[quota]\nspace = \"much\"\n").is_err());
    }

    #[test]
    fn set_keeps_comments() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "# mine\n[ticket]\nttl = \"5m\" # short\n").unwrap();
        set(&path, "link.listen", "127.0.0.1:1").unwrap();
        set(&path, "ticket.ttl", "1h").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# mine\n") && text.contains("127.0.0.1:1"), "{text}");
        assert_eq!(Config::load(&path, true).unwrap().seconds("ticket", "ttl"), 3600);
    }

    #[test]
    fn set_keeps_a_file_that_it_cannot_read_and_who_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        set(&path, "proxy.url", "http://me:secret@proxy:1").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for odd in [&b"# caf\xe9\n[ticket]\nttl = \"5m\"\n"[..], b"ticket = \"x\"\n", b"[[ticket]]\nttl = \"5m\"\n"] {
            std::fs::write(&path, odd).unwrap();
            let refused = set(&path, "ticket.ttl", "1h").unwrap_err();
            assert!(refused.exit == Exit::Usage && refused.message.contains("config.toml"), "{refused:?}");
            assert_eq!(std::fs::read(&path).unwrap(), odd);
        }
    }
}
