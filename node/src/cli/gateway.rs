//! `gateway run`: the door for browsers and apps, in the foreground.

use std::sync::Arc;
use std::time::Duration;

use sealtide_gateway::{App, Probe, Role, Sample, Server, Settings};
use serde_json::json;
use tokio::sync::watch;

use crate::audit::{Audit, AuditEvent};
use crate::cli::args::{GatewayArgs, GatewayRoleArg};
use crate::cli::up::Interrupts;
use crate::cli::{Cx, make_home};
use crate::control::{ControlSocket, Host};
use crate::failure::Failure;
use crate::gateway::{Desk, DeskSettings, GatewayHost, add_bearer, read_bearers};

/// The door is open when it answers.
struct Open(Option<Arc<Desk>>);

impl Probe for Open {
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn samples(&self) -> Vec<Sample> {
        self.0.as_ref().map(|desk| desk.samples()).unwrap_or_default()
    }
}

/// Runs the gateway until a signal or `down`.
pub(crate) async fn run(cx: Cx, args: GatewayArgs) -> Result<u8, Failure> {
    let mut interrupts = Interrupts::new()?;
    let must_exist = args.bearers.is_some();
    let bearers = args.bearers.unwrap_or_else(|| cx.home.bearers_path());
    let settings = Settings {
        bearers: read_bearers(&bearers, must_exist)?,
        public_host: args.public_host,
        trusted_proxies: args.trusted_proxy,
        allowed_hosts: args.allowed_host,
        allowed_origins: args.allowed_origin,
        public_read: args.compat,
        allow_query_token: args.compat,
        echo: args.echo,
        ..Settings::default()
    };
    if args.compat {
        cx.out.note("compat: anybody may read, and tokens may stand in the query");
    }
    if args.echo {
        let _server = open(settings, &args.listen, None).await.map(|server| ready(&cx, server))?;
        return Ok(interrupts.next().await.code());
    }
    make_home(&cx, None, None)?;
    let (identity, store) = (cx.home.identity()?, cx.home.open_store()?);
    let audit = Arc::new(Audit::open(&cx.home, store.clone(), identity.clone())?);
    if args.compat {
        let settings = "public_read,allow_query_token";
        audit.event(&AuditEvent::new("access:compat_enabled", "#FF8C00").member("settings", settings));
    }
    let desk_settings = DeskSettings { registry: args.registry, may_generate: true, ..DeskSettings::default() };
    let (desk, told) = Desk::open(&cx.home, store, identity, audit.clone(), desk_settings)?;
    told.iter().for_each(|line| cx.out.note(line));
    let server = open(settings, &args.listen, Some(desk.clone())).await?;
    let (stop, mut stopped) = watch::channel(false);
    let host = Host::Gateway(GatewayHost::new(desk.clone(), audit.clone(), stop));
    let control = ControlSocket::open(cx.home.control_socket(), host)?;
    let server = ready(&cx, server);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let code = loop {
        tokio::select! {
            exit = interrupts.next() => break exit.code(),
            _ = stopped.wait_for(|stopped| *stopped) => break 0,
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
    drop(server);
    desk.close();
    audit.checkpoint();
    Ok(code)
}

/// `gateway bearer`: the token is the answer, and nowhere else.
pub(crate) fn bearer(
    cx: &Cx,
    name: &str,
    role: GatewayRoleArg,
    file: Option<std::path::PathBuf>,
) -> Result<u8, Failure> {
    cx.home.identity()?;
    let role = match role {
        GatewayRoleArg::Reader => Role::Reader,
        GatewayRoleArg::Bumper => Role::Bumper,
        GatewayRoleArg::Admin => Role::Admin,
    };
    let file = file.unwrap_or_else(|| cx.home.bearers_path());
    let token = add_bearer(&file, name, role)?;
    cx.out.answer(&json!({
        "schema": "sealtide/gateway_bearer/1", "token": *token, "name": name, "file": file,
    }));
    Ok(0)
}

async fn open(settings: Settings, listen: &std::net::SocketAddr, desk: Option<Arc<Desk>>) -> Result<Server, Failure> {
    let app = desk.clone().map(|desk| desk as Arc<dyn App>);
    let server = Server::open(settings, *listen, Arc::new(Open(desk)), app).await;
    server.map_err(|error| Failure::usage("gateway", error.to_string()))
}

fn ready(cx: &Cx, server: Server) -> Server {
    cx.out.answer(&json!({
        "schema": "sealtide/ready/1",
        "home": cx.home.root(),
        "gateway": format!("http://{}", server.address()),
    }));
    server
}
