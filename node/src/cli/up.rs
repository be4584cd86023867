//! `up`: the node in the foreground.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Once;
use std::time::{Duration, Instant};

use sealtide_identity::{RelayAddress, Role, SpaceId};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::{Progress, Request};
use crate::cli::args::UpArgs;
use crate::cli::gateway;
use crate::cli::{Cx, make_home};
use crate::commands::ticket;
use crate::config::{Config, Origin};
use crate::control::{self, ControlSocket, Host};
use crate::engine::Event;
use crate::failure::{Exit, Failure};
use crate::node::Node;
use crate::share::Phase;

/// Ports tried after the default one when it is taken.
const PORTS_TRIED: u16 = 100;
/// How often the bar is looked after.
const GLANCE: Duration = Duration::from_millis(250);
/// How often folders that could not be opened are tried again.
const FOLDERS: Duration = Duration::from_secs(5);
/// How long after its terminal was closed a node still takes a hangup for the word of that.
const OUTLIVED: Duration = Duration::from_secs(10);
/// How long the invites that `up` makes live.
const INVITE_TTL_S: u64 = 24 * 3600;

/// Runs the node until a signal or `down`.
pub(crate) async fn up(cx: Cx, args: UpArgs) -> Result<u8, Failure> {
    let signals = Signals {
        interrupts: Interrupts::new()?,
        hangup: signal(SignalKind::hangup())?,
        terminals: Terminals::new(terminals()),
    };
    let dirs: Vec<PathBuf> = args.dirs.iter().map(std::path::absolute).collect::<Result<_, _>>()?;
    let mut relays = cx.config.relays();
    for text in &args.relay {
        let read = RelayAddress::decode(text.trim());
        relays.push(read.map_err(|error| {
            Failure::usage("relay", format!("this is no address of a relay: {error}"))
                .hint("`sealtide relay run` prints it, str1…")
        })?);
    }
    let made = make_home(&cx, args.name.as_deref(), args.recovery_out.as_deref())?;
    let progress = Progress::none();
    // A node that runs already is handed the directories.
    let request = Request::Share { dirs: dirs.clone() };
    if let Some(answer) = control::ask(&cx.home.control_socket(), &request, &progress).await {
        cx.out.answer(&answer?);
        let given = [
            ("--listen", args.listen.is_some()),
            ("--gateway", args.gateway.is_some()),
            ("--relay", !args.relay.is_empty()),
            ("--name", args.name.is_some()),
            ("--offline-sign", cx.offline_sign),
        ];
        let given: Vec<&str> = given.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        if !given.is_empty() {
            cx.out.note(&format!(
                "a node runs on this home already, so {} did nothing: `sealtide down` first",
                given.join(", ")
            ));
        }
        return Ok(0);
    }
    let node = Node::open(cx.home.clone(), cx.config.clone())?;
    if cx.offline_sign {
        node.offline_sign()?;
    }
    if made {
        cx.out.note(&format!("made node {} in {}", node.id().short(), cx.home.root().display()));
    }
    let listen = open_link(&cx.config, &node, args.listen).await?;
    open_gateway(&cx, &node, args.gateway).await?;
    let events = node.engine().subscribe();
    for relay in relays {
        node.use_relay(&relay)?;
    }
    node.serve()?;
    crate::commands::share::share(&node, &dirs).await?;
    let control = ControlSocket::open(node.home().control_socket(), Host::Node(node.clone()))?;
    let tickets = tickets(&node, &dirs)?;
    node.set_doors_open(true);
    node.audit().note("up", &[("listen", &listen.to_string())]);
    tell_ready(&cx, &node, listen, &tickets);
    let exit = serve(&cx, &node, events, signals).await;
    drop(control);
    node.audit().note("stopped", &[]);
    node.shutdown().await;
    match exit {
        None => Ok(0),
        Some(signal) => Ok(signal.code()),
    }
}

/// Where nobody says which port, the one of the last time comes first: peers know it.
async fn open_link(config: &Config, node: &Node, wanted: Option<SocketAddr>) -> Result<SocketAddr, Failure> {
    let is_default = wanted.is_none() && *config.origin("link", "listen") == Origin::Default;
    let address = wanted.unwrap_or(parse(config.text("link", "listen"))?);
    let of_last_time = node.last_port(address.ip()).filter(|_| is_default);
    let mut failure = None;
    for port in of_last_time.into_iter().chain(ports(address.port(), is_default)) {
        match node.listen(SocketAddr::new(address.ip(), port)).await {
            Ok(bound) => return Ok(bound),
            Err(error) => drop(failure.get_or_insert(error)),
        }
    }
    Err(failure.unwrap_or_else(|| Failure::failed("listen", "no port is free")))
}

async fn open_gateway(cx: &Cx, node: &Node, wanted: Option<SocketAddr>) -> Result<(), Failure> {
    let is_default = wanted.is_none() && *cx.config.origin("gateway", "listen") == Origin::Default;
    let address = wanted.unwrap_or(parse(cx.config.text("gateway", "listen"))?);
    let mut failure = None;
    for port in ports(address.port(), is_default) {
        match node.open_gateway(SocketAddr::new(address.ip(), port)).await {
            Ok(_) => return Ok(()),
            Err(error) => drop(failure.get_or_insert(error)),
        }
    }
    Err(failure.unwrap_or_else(|| Failure::failed("gateway", "no port is free")))
}

/// The port wanted, and the next ones when it is only the default.
pub(crate) fn ports(first: u16, is_default: bool) -> impl Iterator<Item = u16> {
    first..=if is_default { first.saturating_add(PORTS_TRIED) } else { first }
}

pub(crate) fn parse(text: &str) -> Result<SocketAddr, Failure> {
    text.parse().map_err(|_| Failure::usage("address", format!("{text} is no address of the form IP:PORT")))
}

/// One invite for each directory named (or the only space, where it is a folder: who serves releases invites readers by `ticket new`) where
/// the own role is admin.
fn tickets(node: &Node, dirs: &[PathBuf]) -> Result<Vec<(String, String)>, Failure> {
    let mut spaces: Vec<SpaceId> = Vec::new();
    for dir in dirs {
        spaces.extend(node.space_of_dir(&dir.canonicalize()?));
    }
    if dirs.is_empty()
        && let [only] = node.spaces().as_slice()
        && node.shared_dirs().iter().any(|(space, _)| space == only)
    {
        spaces.push(*only);
    }
    let admin = |space: &SpaceId| node.engine().role(&node.id(), space) == Some(Role::Admin);
    // Each ticket opens the space for a day: whoever has company makes more by `ticket new`.
    let grants = node.engine().grants();
    let alone = |space: &SpaceId| grants.iter().all(|grant| grant.space != *space || grant.node == node.id());
    spaces
        .into_iter()
        .filter(|space| admin(space) && alone(space) && node.engine().room_for(space, None).is_ok())
        .map(|space| Ok((node.label(&space), ticket::make(node, space, Role::Write, INVITE_TTL_S, 1)?.ticket.encode())))
        .collect()
}

fn tell_ready(cx: &Cx, node: &Node, listen: SocketAddr, tickets: &[(String, String)]) {
    let mut ready = json!({
        "schema": "sealtide/ready/1",
        "node": node.id().to_string(),
        "home": cx.home.root(),
        "listen": [listen.to_string()],
        "gateway": node.gateway_url(),
    });
    if let Some((code, url, _)) = node.sign_in_code() {
        ready["dashboard"] = json!(crate::console::link(&url, Some(&code)));
    }
    if let Some((_, ticket)) = tickets.first() {
        ready["ticket"] = json!(ticket);
        ready["tickets"] = Value::Object(tickets.iter().map(|(name, text)| (name.clone(), json!(text))).collect());
    }
    cx.out.answer(&ready);
}

/// Prints events until the end; returns the signal that ended it.
async fn serve(
    cx: &Cx,
    node: &Node,
    mut events: tokio::sync::broadcast::Receiver<Event>,
    mut signals: Signals,
) -> Option<Exit> {
    let mut stop = node.stopping();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut glance = tokio::time::interval(GLANCE);
    let mut folders = tokio::time::interval(FOLDERS);
    let (progress, told) = Progress::channel();
    let bars = cx.out.shows_progress().then(|| tokio::spawn(crate::cli::progress::show(told, cx.out.clone())));
    loop {
        tokio::select! {
            signal = signals.interrupts.next() => return Some(signal),
            _ = stop.wait_for(|stopped| *stopped) => return None,
            // Keys wait for the disk, and whoever changes them for a turn.
            _ = signals.hangup.recv() => match signals.terminals.hung_up(terminals(), Instant::now()) {
                true => return Some(Exit::Terminated),
                false => tokio::task::block_in_place(|| reload_door(cx, node)),
            },
            _ = second.tick() => {
                signals.terminals.look(terminals(), Instant::now());
                let node = node.clone();
                // The checkpoint waits for the disk.
                let looked = tokio::task::spawn_blocking(move || {
                    node.audit().tick();
                    if let Some(desk) = node.open_desk() {
                        desk.tick();
                    }
                });
                let _ = looked.await;
            }
            _ = folders.tick() => node.open_unopened_shares(),
            _ = glance.tick(), if bars.is_some() => tell_progress(node, &progress),
            event = events.recv() => match event {
                Ok(Event::Progress(moving)) => {
                    progress.tell(json!({"phase": "transfer", "items": moving.items, "bytes": moving.bytes}));
                }
                Ok(event) => tell_event(cx, node, &event),
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(_) => return None,
            },
        }
    }
}

/// The signals that a node heeds.
struct Signals {
    interrupts: Interrupts,
    /// Taken from the first moment: one that nobody waits for would end the process.
    hangup: Signal,
    /// What became of the terminals since the start: a hangup also says that theirs was closed.
    terminals: Terminals,
}

/// Whether stdin and stderr are terminals.
fn terminals() -> [bool; 2] {
    [std::io::stdin().is_terminal(), std::io::stderr().is_terminal()]
}

/// Whether stdin and stderr were terminals at the start, and since when one is none any more: a terminal that hung up, as one whose window
/// was closed, does not answer.
struct Terminals {
    before: [bool; 2],
    closed: Option<Instant>,
}

impl Terminals {
    fn new(before: [bool; 2]) -> Self {
        Self { before, closed: None }
    }

    fn look(&mut self, found: [bool; 2], now: Instant) {
        if self.closed.is_none() && self.before.into_iter().zip(found).any(|(before, found)| before && !found) {
            self.closed = Some(now);
        }
    }

    /// Whether a hangup that came now says that they were closed. One that comes long after that is from somebody else: the node outlives
    /// its terminal (`disown`).
    fn hung_up(&mut self, found: [bool; 2], now: Instant) -> bool {
        self.look(found, now);
        self.closed.is_some_and(|closed| now.duration_since(closed) < OUTLIVED)
    }
}

/// Reads again who may come in at the door of the node, and how.
fn reload_door(cx: &Cx, node: &Node) {
    let Some(address) = node.gateway() else { return };
    let desk = node.open_desk();
    let read = || gateway::config_now(cx)?.gateway(&cx.home);
    gateway::reload(node.audit(), desk.as_deref(), address, read, |door| node.reload_gateway(door));
}

/// What the folders are busy with, for the bar.
fn tell_progress(node: &Node, progress: &Progress) {
    let busy = node.shares().values().map(|share| share.status()).find(|status| status.phase != Phase::Idle);
    let syncing =
        node.spaces().iter().any(|space| node.engine().peer_spaces(space).iter().any(|(_, known)| known.running));
    let line = match busy {
        Some(status) => json!({"phase": status.phase, "items": status.items, "bytes": status.bytes}),
        None if syncing => return,
        None => json!({"phase": "idle"}),
    };
    progress.tell(line);
}

fn tell_event(cx: &Cx, node: &Node, event: &Event) {
    let name = |peer: &sealtide_identity::NodeId| {
        node.known().peer_name(peer).unwrap_or_else(|| format!("node {}", peer.short()))
    };
    let (line, text) = match event {
        Event::PeerReady(peer) => {
            (json!({"event": "peer_connected", "peer": peer.to_string()}), format!("connected to {}", name(peer)))
        }
        Event::PeerFailed(peer, why) => (
            json!({"event": "peer_failed", "peer": peer.to_string(), "text": why}),
            format!("{} cannot sync with this node: {why}", name(peer)),
        ),
        Event::PeerGone(peer) => {
            (json!({"event": "peer_gone", "peer": peer.to_string()}), format!("lost {}", name(peer)))
        }
        // Nothing moved: sagas are only asked to look again.
        Event::Changed { timelines, .. } if timelines.is_empty() => return,
        Event::Changed { space, origin, timelines } => {
            let label = node.label(space);
            let from = origin.as_ref().map_or_else(|| "here".to_owned(), |peer| format!("from {}", name(peer)));
            (
                json!({
                    "event": "changed", "space": label, "count": timelines.len(),
                    "origin": origin.map(|peer| peer.to_string()),
                }),
                format!("{label}: {} changed {from}", timelines.len()),
            )
        }
        Event::SagaEnded(report) => {
            let (outcome, text) = match &report.outcome {
                sealtide_sync::SagaOutcome::Committed { received, sent, .. } if received + sent > 0 => (
                    json!({"result": "committed", "received": received, "sent": sent}),
                    format!(
                        "{}: in step with {} ({received} received, {sent} sent)",
                        node.label(&report.space),
                        name(&report.peer)
                    ),
                ),
                sealtide_sync::SagaOutcome::Aborted { code, text, .. } if *code != sealtide_sync::AbortCode::Busy => (
                    json!({"result": "aborted", "code": format!("{code:?}").to_lowercase(), "text": text}),
                    format!("{}: sync with {} aborted: {text}", node.label(&report.space), name(&report.peer)),
                ),
                _ => return,
            };
            let mut line =
                json!({"event": "saga", "space": node.label(&report.space), "peer": report.peer.to_string()});
            line.as_object_mut().expect("made above").extend(outcome.as_object().cloned().unwrap_or_default());
            (line, text)
        }
        Event::Held { space, peer } => (
            json!({"event": "held", "space": node.label(space), "peer": peer.to_string()}),
            format!("{}: held what {} brought; `sealtide hold list`", node.label(space), name(peer)),
        ),
        Event::MemberRemoved { space, peer } => (
            json!({"event": "member_removed", "space": node.label(space), "peer": peer.to_string()}),
            format!("{}: {} is no member any more", node.label(space), name(peer)),
        ),
        Event::PeerSpaces(..) | Event::SagaBegan { .. } | Event::Progress(_) => return,
    };
    if cx.out.is_json() {
        let mut line = line;
        line["schema"] = json!("sealtide/event/1");
        line["time"] = json!(crate::commands::rfc3339(crate::real::now().wall_ms));
        cx.out.line(&line.to_string());
    } else {
        cx.out.note(&text);
    }
}

/// The signals that end the process in order. Made before the work begins, so that none is lost: neither one that
/// comes early nor one that comes while nobody waits.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Begins to take signals.
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one. Whoever sends another after it wants no order any more: that one ends the process at once, as a crash
    /// would.
    pub(crate) async fn next(&mut self) -> Exit {
        let exit = self.received().await;
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            if let Err(failure) = end_at_the_next() {
                tracing::warn!(%failure, "another signal does not end the process at once");
            }
        });
        exit
    }

    async fn received(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }
}

/// Takes the next signal in a thread of its own, whatever everybody else waits for.
fn end_at_the_next() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut interrupts = {
        let _inside = runtime.enter();
        Interrupts::new()?
    };
    std::thread::spawn(move || std::process::exit(i32::from(runtime.block_on(interrupts.received()).code())));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;

    /// A hangup ends the node only where the terminal that it was started in was closed just now; else it reads its settings again.
    #[test]
    fn a_terminal_that_hung_up_is_told_from_none() {
        let (now, [none, one, both]) = (Instant::now(), [[false; 2], [true, false], [true; 2]]);
        for (before, found, closed) in
            [(none, none, false), (one, one, false), (both, both, false), (one, none, true), (both, none, true)]
        {
            let mut terminals = Terminals::new(before);
            terminals.look(before, now);
            assert_eq!(terminals.hung_up(found, now), closed, "{before:?} {found:?}");
            // Whoever waits for its end sends it a little later.
            assert_eq!(terminals.hung_up(found, now + OUTLIVED / 2), closed, "{before:?} {found:?}");
            assert!(!terminals.hung_up(found, now + OUTLIVED), "the node outlived it: {before:?} {found:?}");
        }
    }

    /// Another node may have taken the default port once; peers know the port that this one got instead.
    #[tokio::test]
    async fn a_node_comes_back_at_the_port_of_last_time() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("home"));
        home.init().unwrap();
        let config = Config::load(&dir.path().join("none"), false).unwrap();
        let node = Node::open(home, config.clone()).unwrap();
        let address = parse(config.text("link", "listen")).unwrap();
        let free = std::net::TcpListener::bind((address.ip(), 0)).unwrap().local_addr().unwrap().port();
        node.known().put_setting(&format!("port/{}", address.ip()), Some(&free.to_string())).unwrap();
        assert_eq!(open_link(&config, &node, None).await.unwrap().port(), free);
    }
}
