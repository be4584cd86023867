//! `gateway run`: the door for browsers and apps, in the foreground.

use std::sync::Arc;

use sealtide_gateway::{App, Probe, Sample, Server, Settings};
use serde_json::json;

use crate::audit::Audit;
use crate::cli::args::GatewayArgs;
use crate::cli::up::Interrupts;
use crate::cli::{Cx, make_home};
use crate::failure::Failure;
use crate::gateway::Desk;

/// The door is open when it answers.
struct Open;

impl Probe for Open {
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn samples(&self) -> Vec<Sample> {
        Vec::new()
    }
}

/// Runs the gateway until a signal.
pub(crate) async fn run(cx: Cx, args: GatewayArgs) -> Result<u8, Failure> {
    let mut interrupts = Interrupts::new()?;
    let settings = Settings {
        public_host: args.public_host,
        trusted_proxies: args.trusted_proxy,
        allowed_hosts: args.allowed_host,
        allowed_origins: args.allowed_origin,
        public_read: args.compat,
        allow_query_token: args.compat,
        echo: args.echo,
        ..Settings::default()
    };
    let mut audit = None;
    let app: Option<Arc<dyn App>> = if args.echo {
        None
    } else {
        make_home(&cx, None, None)?;
        let (identity, store) = (cx.home.identity()?, cx.home.open_store()?);
        let log = Arc::new(Audit::open(&cx.home, store.clone(), identity.clone())?);
        if args.compat {
            log.note("access:compat_enabled", &[("settings", "public_read,allow_query_token")]);
        }
        audit = Some(log.clone());
        let (desk, told) = Desk::open(&cx.home, store, identity, log, args.registry.as_deref())?;
        told.iter().for_each(|line| cx.out.note(line));
        Some(desk)
    };
    if args.compat {
        cx.out.note("compat: anybody may read, and tokens may stand in the query");
    }
    let server = Server::open(settings, args.listen, Arc::new(Open), app).await;
    let server = server.map_err(|error| Failure::usage("gateway", error.to_string()))?;
    cx.out.answer(&json!({
        "schema": "sealtide/ready/1",
        "home": cx.home.root(),
        "gateway": format!("http://{}", server.address()),
    }));
    let exit = interrupts.next().await;
    drop(server);
    if let Some(audit) = audit {
        audit.checkpoint();
    }
    Ok(exit.code())
}
