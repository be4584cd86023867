//! `gateway run`: the door for browsers and apps, in the foreground. `gateway bearer`: who may come in.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sealtide_gateway::{
    App, Behind, Console, Door, GatewayError, Probe, Role, Sample, Server, Settings, SettingsError,
};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::audit::{Audit, AuditEvent};
use crate::cli::args::{GatewayArgs, GatewayRoleArg};
use crate::cli::up::{Interrupts, parse, ports};
use crate::cli::{Cx, make_home};
use crate::config::{Config, GatewaySettings, Origin};
use crate::console::{HostConsole, link};
use crate::control::{ControlSocket, Host};
use crate::engine::Engine;
use crate::failure::Failure;
use crate::gateway::{Desk, GatewayHost, add_bearer, add_passphrase};
use crate::node::open_identities;
use crate::real::RealWorld;
use crate::releases::keep_fresh_alone;
use crate::seal::new_passphrase;

/// When a door that is open takes somebody new.
const KNOWN_AFTER: &str = "a node or gateway that runs knows it after SIGHUP (`kill -HUP PID`), or its next start";

/// What health and figures of a gateway ask: it is ready when its control socket is open too.
struct Open {
    desk: Option<Arc<Desk>>,
    is_open: Arc<AtomicBool>,
}

impl Probe for Open {
    // Spec: GW-109
    fn ready(&self) -> Result<(), String> {
        if self.is_open.load(Ordering::Acquire) { Ok(()) } else { Err("not every door is open".to_owned()) }
    }

    fn samples(&self) -> Vec<Sample> {
        self.desk.as_ref().map(|desk| desk.samples()).unwrap_or_default()
    }
}

/// Runs the gateway until a signal or `down`.
pub(crate) async fn run(cx: Cx, args: GatewayArgs) -> Result<u8, Failure> {
    let mut interrupts = Interrupts::new()?;
    // From the first moment: a hangup that nobody waits for would end the process.
    let mut hangup = signal(SignalKind::hangup())?;
    let config = with_options(&cx.config, &args)?;
    let mut settings = config.gateway(&cx.home)?;
    settings.door.echo = args.echo;
    if std::env::var_os("CSRF_SECRET").is_some() {
        cx.out.note("CSRF_SECRET is set and not used: tokens are drawn, not derived");
    }
    if settings.compat {
        cx.out.note("compat: anybody may read, and tokens may stand in the query");
    }
    let addresses = addresses(&config, &args)?;
    // What the settings forbid is said before anything is made.
    if let Some(first) = addresses.first() {
        let door = Door::new(settings.door.clone(), *first);
        if door.map_err(|error| Failure::usage("gateway", error.to_string()))?.is_public {
            settings.desk.generate.get_or_insert(false);
        }
    }
    if args.echo {
        let is_open = Arc::new(AtomicBool::new(true));
        let _server = ready(&cx, open(settings.door, &addresses, None, &is_open).await?, None);
        return Ok(interrupts.next().await.code());
    }
    make_home(&cx, None, None)?;
    let (identity, store) = (cx.home.identity()?, cx.home.open_store()?);
    let audit = Arc::new(Audit::open(&cx.home, store.clone(), identity.clone())?);
    if settings.compat {
        let both = "public_read,allow_query_token";
        audit.event(&AuditEvent::new("access:compat_enabled", "#FF8C00").member("settings", both));
    }
    let (desk, told) = Desk::open(&cx.home, store.clone(), identity.clone(), audit.clone(), settings.desk)?;
    told.iter().for_each(|line| cx.out.note(line));
    let (stop, mut stopped) = watch::channel(false);
    match open_identities(&cx.home, identity.clone(), store.clone()) {
        Ok(identities) => {
            let engine = Engine::with_keystones(RealWorld, store, identity.id, Arc::new(identities.clone()));
            keep_fresh_alone(cx.home.clone(), engine, identities, desk.clone(), stop.subscribe());
        }
        Err(failure) => tracing::warn!(%failure, "heads of release channels are not signed anew here"),
    }
    let host = Host::Gateway(GatewayHost::new(desk.clone(), audit.clone(), stop.clone()));
    let is_open = Arc::new(AtomicBool::new(false));
    let behind = Some((desk.clone(), HostConsole::new(host.clone())));
    let server = open(settings.door, &addresses, behind, &is_open).await?;
    let control = ControlSocket::open(cx.home.control_socket(), host)?;
    is_open.store(true, Ordering::Release);
    desk.opened(server.url());
    let server = ready(&cx, server, Some(&desk));
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let code = loop {
        tokio::select! {
            exit = interrupts.next() => break exit.code(),
            _ = stopped.wait_for(|stopped| *stopped) => break 0,
            _ = hangup.recv() => {
                // Keys wait for the disk, and whoever changes them for a turn.
                tokio::task::block_in_place(|| {
                    let read = || with_options(&config_now(&cx)?, &args)?.gateway(&cx.home);
                    reload(&audit, Some(&desk), server.address(), read, |door| server.reload(door));
                });
            }
            _ = second.tick() => {
                let (audit, desk) = (audit.clone(), desk.clone());
                // Both wait for the disk now and then.
                let looked = tokio::task::spawn_blocking(move || {
                    audit.tick();
                    desk.tick();
                });
                let _ = looked.await;
            }
        }
    };
    drop(control);
    stop.send_replace(true);
    drop(server);
    desk.close();
    audit.checkpoint();
    Ok(code)
}

/// Reads settings and secrets of an open door again. A fault leaves the old ones in force.
// Spec: GW-85
pub(crate) fn reload(
    audit: &Audit,
    desk: Option<&Desk>,
    address: SocketAddr,
    read: impl FnOnce() -> Result<GatewaySettings, Failure>,
    take: impl FnOnce(Settings) -> Result<(), SettingsError>,
) {
    let reloaded = || {
        let settings = read()?;
        let refused = |error: SettingsError| Failure::usage("gateway", error.to_string());
        // What is wrong with the one is found before the other is changed.
        Door::new(settings.door.clone(), address).map_err(refused)?;
        let told = desk.map_or_else(|| Ok(Vec::new()), |desk| desk.reread_keys(&settings.desk))?;
        take(settings.door).map_err(refused)?;
        Ok::<_, Failure>(told)
    };
    match reloaded() {
        Ok(told) => {
            told.iter().for_each(|line| tracing::info!("{line}"));
            audit.event(&AuditEvent::normal("config:reloaded").member("changed", "door,keys"));
            tracing::info!("the settings of the door were read again");
        }
        Err(failure) => {
            audit.event(&AuditEvent::new("config:refused", "#FF0000").member("error", &failure.message));
            tracing::error!("the settings of the door were not read again, the old ones hold: {}", failure.message);
        }
    }
}

/// The settings as they stand in the file now.
pub(crate) fn config_now(cx: &Cx) -> Result<Config, Failure> {
    Config::load(&cx.config_path, cx.config_path.exists())
}

/// The settings with what the command line says.
fn with_options(config: &Config, args: &GatewayArgs) -> Result<Config, Failure> {
    let mut config = config.clone();
    for (key, value) in &args.settings.0 {
        config.flag("gateway", key, Some(value))?;
    }
    let lists = [
        ("trusted_proxies", &args.trusted_proxy),
        ("allowed_hosts", &args.allowed_host),
        ("allowed_origins", &args.allowed_origin),
    ];
    for (key, entries) in lists {
        let joined = (!entries.is_empty()).then(|| entries.join(","));
        config.flag("gateway", key, joined.as_deref())?;
    }
    Ok(config)
}

/// Where to listen: one address, or the default one and the ports after it.
fn addresses(config: &Config, args: &GatewayArgs) -> Result<Vec<SocketAddr>, Failure> {
    let is_default = args.listen.is_none() && *config.origin("gateway", "listen") == Origin::Default;
    let first = args.listen.map_or_else(|| parse(config.text("gateway", "listen")), Ok)?;
    Ok(ports(first.port(), is_default).map(|port| SocketAddr::new(first.ip(), port)).collect())
}

async fn open(
    settings: Settings,
    addresses: &[SocketAddr],
    behind: Option<(Arc<Desk>, Arc<HostConsole>)>,
    is_open: &Arc<AtomicBool>,
) -> Result<Server, Failure> {
    let mut failure = None;
    let (desk, console) = behind.unzip();
    let probe = Arc::new(Open { desk: desk.clone(), is_open: is_open.clone() });
    for address in addresses {
        let behind = Behind {
            app: desk.clone().map(|desk| desk as Arc<dyn App>),
            console: console.clone().map(|console| console as Arc<dyn Console>),
            tunnels: None,
        };
        match Server::open_with(settings.clone(), *address, probe.clone(), behind).await {
            Ok(server) => return Ok(server),
            Err(error @ GatewayError::Listen { .. }) => drop(failure.get_or_insert(error)),
            Err(error) => return Err(Failure::usage("gateway", error.to_string())),
        }
    }
    let told = failure.map_or_else(|| "there is no address to listen on".to_owned(), |error| error.to_string());
    Err(Failure::usage("gateway", told))
}

fn ready(cx: &Cx, server: Server, desk: Option<&Desk>) -> Server {
    let mut ready = json!({
        "schema": "sealtide/ready/1",
        "home": cx.home.root(),
        "gateway": server.url(),
    });
    if let Some((code, url, _)) = desk.and_then(Desk::sign_in_code) {
        ready["dashboard"] = json!(link(url, Some(&code)));
    }
    cx.out.answer(&ready);
    server
}

fn role_of(role: GatewayRoleArg) -> Role {
    match role {
        GatewayRoleArg::Reader => Role::Reader,
        GatewayRoleArg::Bumper => Role::Bumper,
        GatewayRoleArg::Admin => Role::Admin,
    }
}

/// `gateway passphrase`: it is asked for at the terminal, or read from standard input.
pub(crate) fn passphrase(cx: &Cx, name: &str, role: GatewayRoleArg, file: Option<PathBuf>) -> Result<u8, Failure> {
    cx.home.identity()?;
    let file = file.unwrap_or_else(|| cx.home.bearers_path());
    add_passphrase(&file, name, role_of(role), &new_passphrase()?)?;
    cx.out.answer(&json!({"schema": "sealtide/gateway_passphrase/1", "name": name, "file": file}));
    cx.out.note(KNOWN_AFTER);
    Ok(0)
}

/// `gateway bearer`: the token is the answer, and nowhere else.
pub(crate) fn bearer(cx: &Cx, name: &str, role: GatewayRoleArg, file: Option<PathBuf>) -> Result<u8, Failure> {
    cx.home.identity()?;
    let role = role_of(role);
    let file = file.unwrap_or_else(|| cx.home.bearers_path());
    let token = add_bearer(&file, name, role)?;
    cx.out.answer(&json!({
        "schema": "sealtide/gateway_bearer/1", "token": *token, "name": name, "file": file,
    }));
    cx.out.note(&format!("the token is shown once; {KNOWN_AFTER}"));
    Ok(0)
}
