//! The settings of the gateway's door and of the keys behind it: one row each, with what it changes. Spec: gateway §12.
//!
//! A row reads its text and puts it where it belongs; a text that it cannot read is refused where it stands, so a fault in
//! the file names its line.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ipnet::IpNet;
use sealtide_gateway::{Auth, ForwardedBy, Rung, Settings, TlsFiles};
use sealtide_identity::NodeId;
use sealtide_identity::keyring::Fallback;

use super::{Config, Origin, Setting};
use crate::failure::Failure;
use crate::gateway::{DeskSettings, parse_key_files, read_bearers};
use crate::home::Home;
use crate::releases::ArchiveSettings;

const DAY_MS: u64 = 86_400_000;

/// Everything that is set about the door and what stands behind it.
#[derive(Clone, Debug, Default)]
pub struct GatewaySettings {
    /// Of the door.
    pub door: Settings,
    /// Of keys and registry.
    pub desk: DeskSettings,
    /// Whether the settings for clients of the older system were asked for.
    pub compat: bool,
    bearers: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
}

/// Puts the text of a setting where it belongs; none when it is no value.
type Apply = fn(&str, &mut GatewaySettings) -> Option<()>;

/// One setting and what it changes.
pub(super) struct Row {
    pub(super) setting: Setting,
    apply: Apply,
}

macro_rules! row {
    ($key:literal, $default:literal, $about:literal, $apply:expr) => {
        Row {
            setting: Setting {
                section: "gateway",
                key: $key,
                default: $default,
                about: $about,
                check: |text| {
                    let apply: Apply = $apply;
                    apply(text, &mut GatewaySettings::default()).is_some()
                },
            },
            apply: $apply,
        }
    };
}

/// All of them, but for `listen`, `app` and `trusted_proxies`, which a node without the whole door knows too.
pub(super) const ROWS: &[Row] = &[
    row!(
        "public_host",
        "",
        "the name under which browsers reach the gateway through a proxy; makes it public",
        |text, it| {
            it.door.public_host = some_text(text);
            Some(())
        }
    ),
    row!(
        "forwarded_by",
        "x-forwarded-for",
        "which header of a trusted proxy names the client: x-forwarded-for, forwarded or cf-connecting-ip",
        |text, it| {
            it.door.forwarded_by = match text {
                "x-forwarded-for" => ForwardedBy::XForwardedFor,
                "forwarded" => ForwardedBy::Forwarded,
                "cf-connecting-ip" => ForwardedBy::CfConnectingIp,
                _ => return None,
            };
            Some(())
        }
    ),
    row!(
        "use_forwarded_host",
        "false",
        "whether X-Forwarded-Host of a trusted proxy takes the place of Host",
        |text, it| { flag(text, &mut it.door.use_forwarded_host) }
    ),
    row!(
        "allowed_hosts",
        "",
        "further names that are ours, with or without a port; commas between them",
        |text, it| {
            it.door.allowed_hosts = texts(text);
            it.door.allowed_hosts.iter().all(|host| Settings::is_host(host)).then_some(())
        }
    ),
    row!(
        "allowed_origins",
        "",
        "origins whose pages may connect, https://host[:port]; commas between them",
        |text, it| {
            it.door.allowed_origins = texts(text);
            it.door.allowed_origins.iter().all(|origin| Settings::is_origin(origin)).then_some(())
        }
    ),
    row!(
        "allow_missing_origin",
        "auto",
        "whether an upgrade without Origin is taken: true, false, or auto (where auth is none)",
        |text, it| {
            if text != "auto" {
                it.door.allow_missing_origin = Some(text.parse().ok()?);
            }
            Some(())
        }
    ),
    row!(
        "auth",
        "auto",
        "who comes in without a credential: none (everybody on a listener that is not public), bearer (nobody), or auto",
        |text, it| {
            it.door.auth = match text {
                "auto" => None,
                "none" => Some(Auth::None),
                "bearer" => Some(Auth::Bearer),
                _ => return None,
            };
            Some(())
        }
    ),
    row!(
        "bearers",
        "",
        "file of bearer tokens: role, name and SHA-256 on each line [HOME/bearers, if there]",
        |text, it| {
            it.bearers = some_text(text).map(PathBuf::from);
            Some(())
        }
    ),
    row!(
        "admin_allow_from",
        "",
        "networks from which keys may be changed over the door [this machine]; commas between them",
        |text, it| {
            it.door.admin_allow_from = nets(text)?;
            Some(())
        }
    ),
    row!(
        "tls_cert",
        "",
        "PEM file with the certificate chain of the door; with it and tls_key the door may be outside of this machine",
        |text, it| {
            it.tls_cert = some_text(text).map(PathBuf::from);
            Some(())
        }
    ),
    row!(
        "tls_key",
        "",
        "PEM file with the key of that certificate; both are read again when they change",
        |text, it| {
            it.tls_key = some_text(text).map(PathBuf::from);
            Some(())
        }
    ),
    row!("sign_in_ttl_ms", "43200000", "life of a browser's sign-in, 60000 to 2592000000", |text, it| {
        it.door.sign_in_ttl_ms = within(text, 60_000, 30 * DAY_MS)?;
        Some(())
    }),
    row!(
        "session_ttl_ms",
        "43200000",
        "life of a WebSocket session of a credential's holder that is not renewed; 0: without end",
        |text, it| {
            it.door.session_ttl_ms = within(text, 0, 30 * DAY_MS)?;
            Some(())
        }
    ),
    row!("public_read", "false", "whether anybody may read", |text, it| flag(text, &mut it.door.public_read)),
    row!("allow_query_token", "false", "whether a token may stand in the query, where logs keep it", |text, it| {
        flag(text, &mut it.door.allow_query_token)
    }),
    row!("compat", "false", "for clients of the older system: public_read and allow_query_token", |text, it| {
        flag(text, &mut it.compat)
    }),
    row!("ws_token_ttl_ms", "300000", "life of an upgrade token, 1000 to 300000", |text, it| {
        it.door.ws_token_ttl_ms = within(text, 1_000, 300_000)?;
        Some(())
    }),
    row!(
        "tokens_per_source",
        "auto",
        "tokens of one source that wait to be used; auto: 32 on a public listener",
        |text, it| { automatic(text, &mut it.door.tokens_per_source) }
    ),
    row!("tokens_max", "65536", "tokens in all that wait to be used", |text, it| count(text, &mut it.door.tokens_max)),
    row!("tokens_per_second", "10", "token requests of one source; 0: any number", |text, it| {
        rate(text, &mut it.door.tokens_per_second)
    }),
    row!("upgrades_per_second", "20", "upgrades of one source; 0: any number", |text, it| {
        rate(text, &mut it.door.upgrades_per_second)
    }),
    row!("requests_per_second", "50", "requests of one source; 0: any number", |text, it| {
        rate(text, &mut it.door.requests_per_second)
    }),
    row!("messages_per_second", "100", "messages of one session; 0: any number", |text, it| {
        rate(text, &mut it.door.messages_per_second)
    }),
    row!("limits_loopback", "false", "whether rates hold for this machine too", |text, it| {
        flag(text, &mut it.door.limits_loopback)
    }),
    row!("subprotocols", "tes-ui-v1,tes-ui-v2", "rungs that are spoken; the client's order counts", |text, it| {
        it.door.subprotocols = rungs(text)?;
        Some(())
    }),
    row!("min_subprotocol", "tes-ui-v1", "the lowest rung that is taken", |text, it| {
        it.door.min_subprotocol = Rung::parse(text)?;
        Some(())
    }),
    row!("legacy_alias", "false", "whether tes-subproto-v1 means tes-ui-v1", |text, it| {
        flag(text, &mut it.door.legacy_alias)
    }),
    row!(
        "withdraw_grace_ms",
        "30000",
        "time between the notice that a rung is withdrawn and the end of its sessions",
        |text, it| {
            it.door.withdraw_grace_ms = within(text, 0, DAY_MS)?;
            Some(())
        }
    ),
    row!("compression", "on", "whether messages may be compressed: on or off", |text, it| {
        it.door.compression = match text {
            "on" => true,
            "off" => false,
            _ => return None,
        };
        Some(())
    }),
    row!("compress_min_bytes", "256", "bytes from which a message is worth compressing", |text, it| {
        it.door.compress_min_bytes = text.parse().ok()?;
        Some(())
    }),
    row!("inflate_max_ratio", "200", "how many times its size a message may inflate to, beyond 64 KiB", |text, it| {
        count(text, &mut it.door.inflate_max_ratio)
    }),
    row!("max_message_bytes", "auto", "bytes of one message of a client, 1024 to 16777216; auto: 65536", |text, it| {
        if text != "auto" {
            it.door.max_message_bytes = Some(usize::try_from(within(text, 1_024, 16 << 20)?).ok()?);
        }
        Some(())
    }),
    row!("max_fragments", "1024", "fragments of one message", |text, it| count(text, &mut it.door.max_fragments)),
    row!("max_sessions", "10000", "WebSocket sessions in all", |text, it| count(text, &mut it.door.max_sessions)),
    row!("sessions_per_source", "auto", "sessions of one source; auto: 64 on a public listener", |text, it| {
        automatic(text, &mut it.door.sessions_per_source)
    }),
    row!("handshake_timeout_ms", "5000", "time in which a request head must be complete", |text, it| {
        it.door.handshake_timeout_ms = within(text, 1, DAY_MS)?;
        Some(())
    }),
    row!("idle_timeout_ms", "60000", "time without any frame after which a session is dropped", |text, it| {
        it.door.idle_timeout_ms = within(text, 1, DAY_MS)?;
        Some(())
    }),
    row!("bundle_bytes_max", "1073741824", "bytes of a release bundle that somebody puts, at most", |text, it| {
        it.door.bundle_bytes_max = within(text, 1, 1 << 40)?;
        Some(())
    }),
    row!("upload_timeout_ms", "3600000", "time in which such a bundle must have come", |text, it| {
        it.door.upload_timeout_ms = within(text, 1, DAY_MS)?;
        Some(())
    }),
    row!("ping_interval_ms", "30000", "time between pings", |text, it| {
        it.door.ping_interval_ms = within(text, 1, DAY_MS)?;
        Some(())
    }),
    row!("registry", "", "file with a JSON array of entities, taken when the store has no registry yet", |text, it| {
        it.desk.registry = some_text(text).map(PathBuf::from);
        Some(())
    }),
    row!("supervisors", "", "nodes (stn1…) whose rotation signals are followed; commas between them", |text, it| {
        let nodes: Option<Vec<NodeId>> = texts(text).iter().map(|node| node.parse().ok()).collect();
        it.desk.supervisors = nodes?;
        Some(())
    }),
    row!(
        "key_files",
        "",
        "files with signing secrets, v1=/PATH, for their owner alone; commas between them",
        |text, it| {
            it.desk.key_files = parse_key_files(&texts(text))?;
            Some(())
        }
    ),
    row!(
        "key_fallback",
        "never",
        "whether a lower key version may sign a bump when the wanted one cannot: never, or audited (labelled)",
        |text, it| {
            it.desk.policy.fallback = match text {
                "never" => Fallback::Never,
                "audited" => Fallback::Audited,
                _ => return None,
            };
            Some(())
        }
    ),
    row!(
        "allow_generated_key",
        "auto",
        "whether v1 is made when no secret is configured: true, false, or auto (where the listener is not public)",
        |text, it| {
            it.desk.generate = match text {
                "auto" => None,
                other => Some(other.parse().ok()?),
            };
            Some(())
        }
    ),
    row!("rotate_after_days", "90", "age of a key version at which the daily look nudges; 0: never", |text, it| {
        it.desk.rotate_after_days = within(text, 0, 36_500)?;
        Some(())
    }),
    row!(
        "auto_rotate",
        "false",
        "whether the daily look rotates by itself when the version is old and another one prepared",
        |text, it| { flag(text, &mut it.desk.auto_rotate) }
    ),
    row!("v1_grace_days", "30", "days for which signatures of a version count after a rotation", |text, it| {
        it.desk.policy.grace_ms = within(text, 0, 36_500)? * DAY_MS;
        Some(())
    }),
    row!("probation_ms", "60000", "time in which the first signatures of a new version are checked", |text, it| {
        it.desk.policy.probation_ms = within(text, 0, DAY_MS)?;
        Some(())
    }),
    row!("probation_signatures", "16", "how many of the first signatures of a new version are checked", |text, it| {
        it.desk.policy.probation_signatures = text.parse().ok()?;
        Some(())
    }),
];

impl Config {
    /// What is set about the gateway. Bearers are read from their file.
    ///
    /// # Errors
    /// Exit 2 for a file of bearers that cannot be read.
    // Spec: GW-85, GW-98
    pub fn gateway(&self, home: &Home) -> Result<GatewaySettings, Failure> {
        let mut settings = GatewaySettings::default();
        for row in ROWS {
            let text = self.text("gateway", row.setting.key);
            (row.apply)(text, &mut settings).ok_or_else(|| {
                Failure::usage("config", format!("{text:?} is no value for gateway.{}", row.setting.key))
            })?;
        }
        settings.desk.archive = ArchiveSettings::of(self);
        settings.door.trusted_proxies = nets(self.text("gateway", "trusted_proxies")).unwrap_or_default();
        settings.door.tls = match (settings.tls_cert.take(), settings.tls_key.take()) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            (None, None) => None,
            _ => return Err(Failure::usage("config", "gateway.tls_cert and gateway.tls_key go together")),
        };
        let named = settings.bearers.take();
        let path = named.clone().unwrap_or_else(|| home.bearers_path());
        (settings.door.bearers, settings.door.passphrases) = read_bearers(&path, named.is_some())?;
        if settings.door.is_public() {
            // What is said on the way to browsers of others is signed by a key that somebody chose.
            settings.desk.generate.get_or_insert(false);
        }
        if settings.compat {
            settings.door.public_read = true;
            settings.door.allow_query_token = true;
        }
        Ok(settings)
    }

    /// Names of the older system, which hold where nobody said anything under ours.
    pub(super) fn read_older_names(&mut self) -> Result<(), Failure> {
        for (name, key) in [("TES_SUPPORTED_SUBPROTOCOLS", "subprotocols"), ("TES_PROXY_IPS", "trusted_proxies")] {
            let Ok(value) = std::env::var(name) else { continue };
            let setting = super::find("gateway", key).filter(|_| *self.origin("gateway", key) == Origin::Default);
            if let Some(setting) = setting {
                self.put(setting, value, Origin::Variable(name.to_owned()))?;
            }
        }
        Ok(())
    }
}

fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn texts(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Networks, or single addresses.
pub(super) fn nets(text: &str) -> Option<Vec<IpNet>> {
    let net =
        |part: &String| part.parse().ok().or_else(|| part.parse().ok().map(|address: std::net::IpAddr| address.into()));
    texts(text).iter().map(net).collect()
}

fn rungs(text: &str) -> Option<BTreeSet<Rung>> {
    let rungs: Option<BTreeSet<Rung>> = texts(text).iter().map(|name| Rung::parse(name)).collect();
    rungs.filter(|rungs| !rungs.is_empty())
}

fn flag(text: &str, at: &mut bool) -> Option<()> {
    *at = text.parse().ok()?;
    Some(())
}

fn rate(text: &str, at: &mut u32) -> Option<()> {
    *at = text.parse().ok()?;
    Some(())
}

fn count(text: &str, at: &mut usize) -> Option<()> {
    *at = text.parse().ok().filter(|number| *number > 0)?;
    Some(())
}

fn automatic(text: &str, at: &mut Option<usize>) -> Option<()> {
    if text != "auto" {
        *at = Some(text.parse().ok().filter(|number| *number > 0)?);
    }
    Some(())
}

fn within(text: &str, least: u64, most: u64) -> Option<u64> {
    text.parse().ok().filter(|number| (least..=most).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<GatewaySettings, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path, true)?.gateway(&Home::new(dir.path().to_owned()))
    }

    // Proves: GW-85
    #[test]
    fn config() {
        let plain = read("").unwrap();
        assert_eq!(format!("{:?}", plain.door), format!("{:?}", Settings::default()), "the defaults are one thing");
        assert_eq!(plain.desk.policy, Default::default());
        let set = read(
            "[gateway]\nallowed_origins = [\"https://a.example\", \"https://b.example:8443\"]\nmax_message_bytes = 1024\n\
             trusted_proxies = \"10.0.0.0/8, ::1\"\nlimits_loopback = true\nkey_fallback = \"audited\"\nv1_grace_days = 7\n\
             subprotocols = \"tes-ui-v2, tes-ui-v3\"\nauth = \"bearer\"\n",
        )
        .unwrap();
        assert_eq!(set.door.allowed_origins.len(), 2);
        assert_eq!((set.door.max_message_bytes, set.door.trusted_proxies.len()), (Some(1024), 2));
        assert!(set.door.limits_loopback && set.door.auth == Some(Auth::Bearer) && set.door.subprotocols.len() == 2);
        assert_eq!((set.desk.policy.fallback, set.desk.policy.grace_ms), (Fallback::Audited, 7 * DAY_MS));
        for (line, wrong) in [
            ("nonsense = 1", "gateway.nonsense is no setting"),
            ("trusted_proxies = \"10.0.0.0/40\"", "10.0.0.0/40"),
            ("allowed_origins = \"a.example\"", "a.example"),
            ("allowed_origins = [\"https://a.example/path\"]", "path"),
            ("allowed_hosts = \"a b\"", "a b"),
            ("ws_token_ttl_ms = 999", "999"),
            ("ws_token_ttl_ms = 300001", "300001"),
            ("max_message_bytes = 1023", "1023"),
            ("supervisors = \"stn1nobody\"", "stn1nobody"),
            ("min_subprotocol = \"v2\"", "v2"),
            ("key_files = \"v1\"", "v1"),
            ("max_sessions = 0", "0"),
            ("auth = \"basic\"", "basic"),
            ("public_read = \"perhaps\"", "perhaps"),
        ] {
            let failure = read(&format!("[gateway]\n# one\n{line}\n")).unwrap_err();
            assert!(failure.message.contains(":3") && failure.message.contains(wrong), "{line}: {}", failure.message);
        }
        let missing = read("[gateway]\nbearers = \"/nowhere/at/all\"\n").unwrap_err();
        assert!(missing.message.contains("/nowhere/at/all"));
    }

    // Proves: GW-98
    #[test]
    fn compat_sets_exactly_two_settings() {
        let (plain, compat) = (read("").unwrap(), read("[gateway]\ncompat = true\n").unwrap());
        let both = Settings { public_read: true, allow_query_token: true, ..plain.door };
        assert_eq!(format!("{:?}", compat.door), format!("{both:?}"));
        assert_eq!(format!("{:?}", compat.desk), format!("{:?}", plain.desk));
    }
}
