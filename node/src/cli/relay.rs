//! `relay run`: a blind meeting point, in the foreground. Spec: link C.5.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use sealtide_crypto::Entropy;
use sealtide_gateway::{Gateway, Probe, Sample};
use sealtide_identity::{InviteSecret, NodeId, RelayAddress, RelayHint};
use sealtide_link::{Admit, Proxies, Relay, RelayConfig, RelayError};
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::args::RelayArgs;
use crate::cli::relay_status::StatusSocket;
use crate::cli::up::Interrupts;
use crate::cli::{Cx, make_home};
use crate::failure::{Exit, Failure};
use crate::seal::SecretFile;
use crate::world::OsEntropy;

/// Where a relay listens when nothing is said.
const DEFAULT: &str = "127.0.0.1:7444";
/// Ports tried after the default one when it is taken.
const PORTS_TRIED: u16 = 100;

/// Health and figures of a relay.
struct Figures(Relay);

impl Probe for Figures {
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn samples(&self) -> Vec<Sample> {
        let stats = self.0.stats();
        vec![
            Sample::gauge("sealtide_relay_nodes", "Nodes logged in", stats.nodes),
            Sample::gauge("sealtide_relay_guests", "Guests among them", stats.guests),
            Sample::gauge("sealtide_relay_circuits", "Circuits now", stats.circuits),
            Sample::gauge("sealtide_relay_waiting_bytes", "Bytes that wait for their receivers", stats.waiting_bytes),
            Sample::counter("sealtide_relay_circuits_opened", "Circuits that came about", stats.circuits_opened),
            Sample::counter("sealtide_relay_refused", "Wishes for a circuit that led to none", stats.refused),
            Sample::counter("sealtide_relay_bytes_in", "Bytes taken", stats.bytes_in),
            Sample::counter("sealtide_relay_bytes_out", "Bytes passed on", stats.bytes_out),
            Sample::counter("sealtide_relay_rate_delays", "How often reading waited for the rate", stats.rate_delays),
            Sample::counter("sealtide_relay_blocked", "How often reading waited for receivers", stats.blocked),
            Sample::counter("sealtide_relay_logins", "Logins so far", stats.logins),
            Sample::counter("sealtide_relay_replaced", "Logins replaced by a newer one", stats.replaced),
        ]
    }
}

/// Runs the relay until a signal; then its nodes are told to come back later.
pub(crate) async fn run(cx: Cx, args: RelayArgs) -> Result<u8, Failure> {
    let mut interrupts = Interrupts::new()?;
    let allowed = args.allow.iter().map(|text| read_node(text)).collect::<Result<BTreeSet<_>, _>>()?;
    let listed = allowed.len();
    make_home(&cx, None, None)?;
    let identity = cx.home.identity()?;
    let (admit, token) = match args.admit.as_str() {
        "open" => (Admit::Open, None),
        "allow-list" => (Admit::AllowList(allowed), None),
        "token" => (Admit::Token(allowed), Some(token(&cx)?)),
        other => {
            return Err(
                Failure::usage("admit", format!("{other} is no way to admit nodes")).hint("allow-list, token or open")
            );
        }
    };
    let mut config = RelayConfig::new(identity.key, admit);
    config.token.clone_from(&token);
    config.bind0 = args.behind_proxy;
    config.settings.rate_bytes_s = match cx.config.bytes("relay", "rate") {
        u64::MAX => 0,
        rate => rate,
    };
    let trusted = cx.config.relay_proxies();
    if !trusted.is_empty() {
        config.proxies = Proxies::new(move |peer, lines| sealtide_gateway::forwarded_client(&trusted, peer, lines));
    }
    let relay = open(&config, args.listen).await?;
    let url = args.url.unwrap_or_else(|| format!("wss://{}", reachable(relay.address())));
    let hint = RelayHint { relay: relay.id(), url };
    if !hint.has_valid_url() {
        return Err(Failure::usage("url", format!("{} is not wss://HOST[:PORT][/PATH]", hint.url)));
    }
    let url_shown = hint.url.clone();
    let address = RelayAddress { relay: hint, bind0: args.behind_proxy, token };
    let door = match args.gateway {
        Some(address) => Some(
            Gateway::open(address, Arc::new(Figures(relay.clone())))
                .await
                .map_err(|error| Failure::usage("gateway", error.to_string()))?,
        ),
        None => None,
    };
    match (args.admit.as_str(), listed) {
        ("allow-list", 0) => cx.out.note("nobody may log in yet: name the nodes with --allow stn1…"),
        ("allow-list", _) => cx.out.note(&format!("{listed} nodes may log in, and those that they let in")),
        ("token", _) => cx.out.note("whoever has the str1… address may log in: keep it like a password"),
        _ => cx.out.note("anybody may use this relay"),
    }
    let mut ready = json!({
        "schema": "sealtide/ready/1",
        "node": relay.id().to_string(),
        "home": cx.home.root(),
        "listen": [relay.address().to_string()],
        "relay": address.encode(),
    });
    if let Some(door) = &door {
        ready["gateway"] = json!(format!("http://{}", door.address()));
    }
    let facts = json!({
        "relay": relay.id().to_string(),
        "url": url_shown,
        "listen": [relay.address().to_string()],
        "admit": args.admit,
        "bind": u8::from(!args.behind_proxy),
        "since": crate::commands::rfc3339(crate::real::now().wall_ms),
    });
    let status = StatusSocket::open(&cx.home, relay.clone(), facts)?;
    cx.out.answer(&ready);
    let exit = interrupts.next().await;
    relay.drain().await;
    drop((door, status));
    Ok(exit.code())
}

async fn open(config: &RelayConfig, wanted: Option<SocketAddr>) -> Result<Relay, Failure> {
    let address = wanted.unwrap_or(DEFAULT.parse().expect("the default is an address"));
    let last = if wanted.is_none() { address.port() + PORTS_TRIED } else { address.port() };
    let mut failure = None;
    for port in address.port()..=last {
        match Relay::open(config.clone(), SocketAddr::new(address.ip(), port)).await {
            Ok(relay) => return Ok(relay),
            Err(error @ RelayError::Listen(_)) => drop(failure.get_or_insert(error)),
            Err(error) => return Err(Failure::failed("relay", error.to_string())),
        }
    }
    let told = failure.map_or_else(|| "no port is free".to_owned(), |error| error.to_string());
    Err(Failure::failed("listen", told).hint("name another address with --listen"))
}

/// What others can dial: for a door on all interfaces the one that leads out.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    // Nothing is sent: connecting a datagram socket only asks for the route.
    let out = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    out.map_or(address, |out| SocketAddr::new(out.ip(), address.port()))
}

fn read_node(text: &str) -> Result<NodeId, Failure> {
    text.parse().map_err(|_| Failure::usage("node", format!("{text} is no node id, stn1…")))
}

/// The token of this relay: made once, so that its address stays the same.
fn token(cx: &Cx) -> Result<InviteSecret, Failure> {
    let path = cx.home.relay_token_path();
    let file = SecretFile::new(path.clone(), cx.home.seal()?);
    let hint = "where it is removed a new one is made, and the nodes need the new address";
    if let Some(text) = file.read().map_err(|error| file.failure(error).hint(hint))? {
        let bytes = HEXLOWER.decode(text.trim().as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        let damaged =
            || Failure::new(Exit::Failed, "token_damaged", format!("{} is damaged", path.display())).hint(hint);
        return bytes.map(InviteSecret::from_bytes).ok_or_else(damaged);
    }
    let mut bytes = [0; 32];
    OsEntropy.fill(&mut bytes);
    file.write(&Zeroizing::new(HEXLOWER.encode(&bytes))).map_err(|error| file.failure(error))?;
    Ok(InviteSecret::from_bytes(bytes))
}
