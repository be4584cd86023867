//! `doctor [TARGET]`: looks at what a node needs, and says for each thing ok, warn, fail or skip, and what to do.
//!
//! TARGET is a ticket, a relay address, a peer, `HOST:PORT` or nothing. Checks stand in the order in which they depend
//! on each other, so the first that fails names the culprit. Exit code: 0 when nothing failed (warnings included), 1
//! when something of this node failed, 7 when the way to the target did.

mod findings;
mod way;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Instant;

use sealtide_identity::{LinkAddress, NodeId, RelayAddress, RelayHint};
use sealtide_link::{DialError, DialTarget, ProbeFailure, RelayCheck, RelayState, Session};
use serde_json::Value;

use crate::commands::join::read_ticket;
use crate::failure::Failure;
use crate::node::Node;
use crate::share::Share;

use findings::{Findings, Verdict};
use way::Place;

pub(crate) use findings::verdict;

/// What is looked for.
enum Target {
    Node { id: NodeId, addresses: Vec<LinkAddress>, relays: Vec<RelayHint> },
    Relay(RelayAddress),
    Place(Place),
}

impl Target {
    fn read(node: &Node, text: &str) -> Result<Self, Failure> {
        let prefix: String = text.trim_start().chars().take(4).collect::<String>().to_ascii_lowercase();
        match prefix.as_str() {
            "stt1" => {
                let ticket = read_ticket(text)?;
                Ok(Self::Node { id: ticket.node, addresses: ticket.addresses, relays: ticket.relays })
            }
            "str1" => {
                let relay = RelayAddress::decode(text)
                    .map_err(|error| Failure::usage("relay", format!("the relay address is mistyped: {error}")))?;
                Ok(Self::Relay(relay))
            }
            _ => match Place::parse(text) {
                Some(place) => Ok(Self::Place(place)),
                None => {
                    let peer = node.find_peer(text)?;
                    Ok(Self::Node { id: peer.node, addresses: peer.addresses, relays: peer.relays })
                }
            },
        }
    }
}

/// Looks at this node, and at the way to a target.
pub(crate) async fn doctor(node: &Node, target: Option<&str>) -> Result<Value, Failure> {
    let target = target.map(|text| Target::read(node, text)).transpose()?;
    let mut findings = Findings::default();
    findings.ok("home", node.home().root().display().to_string());
    here(node, &mut findings);
    doors(node, &mut findings);
    relays(node, &mut findings);
    folders(node, &mut findings);
    look_at(node, target, findings).await
}

/// Looks at the way to a target from a machine that has no node in `home`; `node` is made for this look.
pub(crate) async fn doctor_of_nobody(node: &Node, home: &Path, target: &str) -> Result<Value, Failure> {
    let target = Target::read(node, target)?;
    let mut findings = Findings::default();
    let text = format!("no node in {}: a key made for this look stands for one", home.display());
    findings.add("home", Verdict::Warn, text, Some("`sealtide up DIR` or `sealtide join TICKET DIR` makes one"));
    here(node, &mut findings);
    look_at(node, Some(target), findings).await
}

async fn look_at(node: &Node, target: Option<Target>, mut findings: Findings) -> Result<Value, Failure> {
    findings.begin_target();
    match target {
        None => {}
        Some(Target::Place(place)) => look_at_place(node, &place, &mut findings).await,
        Some(Target::Relay(relay)) => {
            if look_at_relay(node, &relay.relay, &mut findings).await {
                log_in(node, &relay, &mut findings).await;
            } else {
                findings.skip("login", "the relay is not reached");
            }
        }
        Some(Target::Node { id, addresses, relays }) => {
            look_at_node(node, id, addresses, &relays, &mut findings).await;
        }
    }
    Ok(findings.document())
}

// --- this node ---

fn here(node: &Node, findings: &mut Findings) {
    findings.ok("identity", format!("node {}", node.id().short()));
    let year = crate::commands::rfc3339(crate::real::now().wall_ms);
    if year.as_str() > "2026" {
        findings.ok("clock", year);
    } else {
        findings.add("clock", Verdict::Warn, year, Some("set the clock; stamps in records use it"));
    }
    let proxy = node.link().proxy();
    match proxy.proxy() {
        Ok(None) => findings.ok("proxy", "none is set"),
        Ok(Some(found)) => findings.ok("proxy", format!("{found} ({})", proxy.named_by())),
        Err(error) => {
            let text = format!("{} cannot be used: {error}", proxy.named_by());
            findings.add("proxy", Verdict::Fail, text, Some("correct it, or unset it to dial without a proxy"));
        }
    }
}

fn doors(node: &Node, findings: &mut Findings) {
    let listening = node.listening();
    if listening.is_empty() {
        let todo = Some("`sealtide up` runs the node");
        return findings.add("listener", Verdict::Warn, "this process does not listen", todo);
    }
    for address in listening {
        if address.ip().is_loopback() {
            let todo = "only this machine can dial in; --listen 0.0.0.0:7443 opens the door to others";
            findings.add("listener", Verdict::Warn, address.to_string(), Some(todo));
        } else {
            findings.ok("listener", address.to_string());
        }
    }
    let told: Vec<SocketAddr> = node.link().announce().iter().map(|address| address.socket).collect();
    let shown = told.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if told.iter().any(|address| is_public(address.ip())) {
        findings.ok("address", format!("peers are told {shown}"));
    } else {
        let todo = "peers in other networks need a relay, or a forwarded port that link.announce tells them";
        findings.add("address", Verdict::Warn, format!("peers are told {shown}: none is public"), Some(todo));
    }
}

/// Where a running node should be logged in. One relay that answers is enough to be met.
fn relays(node: &Node, findings: &mut Findings) {
    if node.listening().is_empty() {
        return;
    }
    let all = node.link().relays();
    let verdict = if all.iter().any(|relay| relay.up) { Verdict::Warn } else { Verdict::Fail };
    for RelayState { relay, up, why_not, .. } in all {
        let named = format!("{} ({})", relay.relay.short(), relay.url);
        if up {
            findings.ok("login", format!("this node is logged in at relay {named}"));
            continue;
        }
        let why = why_not.unwrap_or_else(|| "it is being tried".to_owned());
        let todo = "`sealtide doctor str1…` looks at the way there; the node goes on trying";
        findings.add("login", verdict, format!("not logged in at relay {named}: {why}"), Some(todo));
    }
}

/// What is not as it should be in a folder that is open.
fn look(share: &Share) -> Option<(String, &'static str)> {
    let (dir, status) = (share.dir().display(), share.status());
    if let Some((path, reason)) = status.skipped.iter().next() {
        let more = status.skipped.len() - 1;
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        return Some((format!("{dir}: {path} is skipped: {reason}{more}"), "`sealtide status` lists what is skipped"));
    }
    let todo = "changes are found by looking through it now and then: slower, and more work for the disk";
    status.unwatched.map(|reason| (format!("{dir} is not watched whole: {reason}"), todo))
}

fn folders(node: &Node, findings: &mut Findings) {
    let todo = Some("look at the directory, its permissions, and the room on its disk and on that of the home");
    for share in node.shares().values() {
        match share.status().failed {
            Some(failed) => findings.add("folder", Verdict::Fail, failed, todo),
            None => match look(share) {
                Some((text, todo)) => findings.add("folder", Verdict::Warn, text, Some(todo)),
                None => findings.ok("folder", share.dir().display().to_string()),
            },
        }
    }
    for failed in node.spaces().iter().filter_map(|space| node.unopened(space)) {
        findings.add("folder", Verdict::Fail, failed, todo);
    }
}

// --- the target ---

async fn look_at_place(node: &Node, place: &Place, findings: &mut Findings) {
    if way::look(node, place, findings).await {
        findings.skip("handshake", "no identity is known for it; a ticket or a peer has one");
    }
}

async fn look_at_node(
    node: &Node,
    id: NodeId,
    addresses: Vec<LinkAddress>,
    relays: &[RelayHint],
    findings: &mut Findings,
) {
    if addresses.is_empty() && relays.is_empty() {
        let text = format!("no address of node {} is known", id.short());
        findings.add("address", Verdict::Fail, text, Some("ask for a new ticket"));
    }
    let first = findings.len();
    let (mut reached, mut leading) = (false, Vec::new());
    for address in &addresses {
        let place = Place { host: address.socket.ip().to_canonical().to_string(), port: address.socket.port() };
        reached |= way::look(node, &place, findings).await;
    }
    for relay in relays {
        if look_at_relay(node, relay, findings).await {
            leading.push(relay.clone());
        }
    }
    if !reached && leading.is_empty() {
        return findings.skip("handshake", "no way leads there");
    }
    // One good way is enough.
    findings.forgive_since(first);
    if id == node.id() {
        return findings.skip("handshake", "that is this node");
    }
    let addresses = if reached { addresses } else { Vec::new() };
    handshake(node, DialTarget { node: id, addresses, relays: leading, invite: None }, findings).await;
}

async fn handshake(node: &Node, target: DialTarget, findings: &mut Findings) {
    let started = Instant::now();
    let short = target.node.short();
    match node.link().dial(target).await {
        Ok(session) => {
            findings.ok("handshake", format!("node {short} proved itself in {} ms", started.elapsed().as_millis()));
            observed(&session, findings);
            node.welcome(session);
        }
        Err(DialError::Refused) => {
            let text = format!("node {short} is there and proved itself, but does not know this node yet");
            findings.add("handshake", Verdict::Warn, text, Some("`sealtide join TICKET DIR` enrols it"));
        }
        Err(DialError::WrongPeer | DialError::NoAnswer) => {
            let text = format!("what answers is not node {short}, or does not prove it");
            let todo = "another node listens there now, or something stands between; compare the ticket with the \
                        other machine";
            findings.add("handshake", Verdict::Fail, text, Some(todo));
        }
        Err(DialError::Version) => {
            let text = format!("node {short} speaks another version of the protocol");
            findings.add("handshake", Verdict::Fail, text, Some("update sealtide on both machines"));
        }
        Err(error) => {
            let text = error.to_string();
            let todo = if text.contains("Unreachable") {
                "it is not logged in at that relay, or lets no stranger in there: with a new ticket it does"
            } else {
                "try again in a minute"
            };
            findings.add("handshake", Verdict::Fail, text, Some(todo));
        }
    }
}

/// What the peer sees of this node: whether an address translator stands between.
fn observed(session: &Session, findings: &mut Findings) {
    let Some(seen) = session.observed() else {
        return findings.skip("nat", "the peer does not say which address it sees");
    };
    let ip = seen.socket.ip().to_canonical();
    let own: Vec<IpAddr> =
        if_addrs::get_if_addrs().unwrap_or_default().into_iter().map(|interface| interface.ip()).collect();
    if ip.is_loopback() {
        findings.skip("nat", "the peer is on this machine");
    } else if own.contains(&ip) {
        findings.ok("nat", format!("the peer sees {ip}, which is an address of this machine: no translation"));
    } else {
        let todo = "peers reach this node by dialling back or through a relay; a forwarded port named in link.announce \
                    makes it direct";
        let text = format!(
            "the peer sees {ip}, which is no address of this machine: addresses are translated, or a \
                            proxy dials"
        );
        findings.add("nat", Verdict::Warn, text, Some(todo));
    }
}

/// Whether the host of a relay answers; true when it does.
async fn look_at_relay(node: &Node, relay: &RelayHint, findings: &mut Findings) -> bool {
    let Some(place) = Place::of_url(&relay.url) else {
        findings.add("relay", Verdict::Fail, "its URL names no host", Some("ask for a new relay address"));
        return false;
    };
    if !way::named(node, &place, findings).await {
        return false;
    }
    let probe = node.link().probe(&place.host, place.port).await;
    match probe.connected {
        Some(took) => {
            findings.ok("relay", format!("{place} answers in {} ms", took.as_millis()));
            true
        }
        None => {
            let todo = match &probe.failure {
                Some(ProbeFailure::Proxy(_)) => way::ASK_PROXY,
                Some(ProbeFailure::Connect(text)) if text.contains("unreachable") => {
                    "is this machine in a network? where only a proxy leads out, name it by HTTPS_PROXY or proxy.url"
                }
                _ => "is `sealtide relay run` running there? is its port open?",
            };
            let why = probe.failure.map(|failure| failure.to_string()).unwrap_or_default();
            findings.add("relay", Verdict::Fail, format!("{place}: {why}"), Some(todo));
            false
        }
    }
}

/// Whether the relay proves its id and lets this node in.
async fn log_in(node: &Node, relay: &RelayAddress, findings: &mut Findings) {
    let checked = node.link().check_relay(&relay.relay, relay.bind0, relay.token.clone()).await;
    let short = relay.relay.relay.short();
    match checked {
        Ok(RelayCheck { took, .. }) if took.is_zero() => {
            findings.ok("login", format!("this node is logged in at relay {short}"));
        }
        Ok(RelayCheck { took, observed, .. }) => {
            let seen = observed.map_or_else(String::new, |seen| format!("; it sees this node at {}", seen.socket.ip()));
            findings.ok("login", format!("relay {short} let this node in within {} ms{seen}", took.as_millis()));
        }
        Err(why) => {
            let todo = if why.contains("fatal alert") || why.contains("handshake") {
                "no relay answers there, or something on the way opens TLS and lacks its key exchange: have the address exempted \
                 from inspection; a proxy of the operator that ends TLS needs TLS 1.3 and link.relay_authorities"
            } else {
                "is this the whole address? does its operator let this node in (`--allow` with the id of this node)?"
            };
            findings.add("login", Verdict::Fail, format!("relay {short}: {why}"), Some(todo));
        }
    }
}

fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(four) => !four.is_private() && !four.is_loopback() && !four.is_link_local() && !is_shared(four),
        IpAddr::V6(six) => !six.is_loopback() && !six.is_unique_local() && !six.is_unicast_link_local(),
    }
}

/// 100.64.0.0/10, the addresses between a provider's translator and its customers.
fn is_shared(ip: std::net::Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 100 && second & 0xc0 == 64
}
