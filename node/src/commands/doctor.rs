//! `doctor [TARGET]`: looks at what a node needs, and says for each thing ok, warn or fail and what to do.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sealtide_link::DialTarget;
use serde_json::{Value, json};

use crate::commands::join::read_ticket;
use crate::failure::{Exit, Failure};
use crate::node::Node;

#[derive(Default)]
struct Findings(Vec<Value>);

impl Findings {
    fn add(&mut self, what: &str, result: &str, text: impl Into<String>, todo: Option<&str>) {
        self.0.push(json!({"check": what, "result": result, "text": text.into(), "do": todo}));
    }

    fn failed(&self) -> bool {
        self.0.iter().any(|finding| finding["result"] == "fail")
    }
}

/// Looks at this node, and at the way to a ticket's issuer or a peer.
pub(crate) async fn doctor(node: &Node, target: Option<&str>) -> Result<Value, Failure> {
    let mut findings = Findings::default();
    here(node, &mut findings);
    if let Some(target) = target {
        let (who, addresses) = if target.trim_start().to_ascii_lowercase().starts_with("stt1") {
            let ticket = read_ticket(target)?;
            (ticket.node, ticket.addresses)
        } else {
            let peer = node.find_peer(target)?;
            (peer.node, peer.addresses)
        };
        if addresses.is_empty() {
            findings.add(
                "address",
                "fail",
                format!("no address of node {} is known", who.short()),
                Some("ask for a new ticket"),
            );
        }
        let mut reached = false;
        for address in &addresses {
            reached |= connect(address.socket, &mut findings).await;
        }
        if reached && who != node.id() {
            let started = Instant::now();
            let dialled = DialTarget { node: who, addresses, invite: None };
            match node.link().dial(dialled).await {
                Ok(session) => {
                    let text = format!("node {} proved itself in {} ms", who.short(), started.elapsed().as_millis());
                    findings.add("handshake", "ok", text, None);
                    node.welcome(session);
                }
                Err(sealtide_link::DialError::Refused) => findings.add(
                    "handshake",
                    "warn",
                    format!("node {} is there and proved itself, but does not know this node yet", who.short()),
                    Some("`sealtide join TICKET DIR` enrols it"),
                ),
                Err(error) => findings.add(
                    "handshake",
                    "fail",
                    error.to_string(),
                    Some("update both nodes; look for a proxy that inspects TLS"),
                ),
            }
        }
    }
    let document = json!({"schema": "sealtide/doctor/1", "ok": !findings.failed(), "findings": findings.0});
    if findings.failed() && target.is_some() {
        let failed = findings.0.iter().find(|finding| finding["result"] == "fail");
        let text = failed.and_then(|finding| finding["text"].as_str()).unwrap_or_default().to_owned();
        let todo = failed.and_then(|finding| finding["do"].as_str()).unwrap_or_default().to_owned();
        return Err(Failure::new(Exit::NoRoute, "doctor", text).hint(todo));
    }
    Ok(document)
}

fn here(node: &Node, findings: &mut Findings) {
    findings.add("home", "ok", format!("{}", node.home().root().display()), None);
    findings.add("identity", "ok", format!("node {}", node.id().short()), None);
    let year = crate::commands::rfc3339(crate::real::now().wall_ms);
    let sane = year.as_str() > "2026";
    let todo = (!sane).then_some("set the clock; stamps in records use it");
    findings.add("clock", if sane { "ok" } else { "warn" }, year, todo);
    match node.listening().as_slice() {
        [] => findings.add("listener", "warn", "this process does not listen", Some("`sealtide up` runs the node")),
        listening => {
            for address in listening {
                let (result, todo) = if address.ip().is_loopback() {
                    ("warn", Some("only this machine can dial in; --listen 0.0.0.0:7443 opens the door to others"))
                } else {
                    ("ok", None)
                };
                findings.add("listener", result, address.to_string(), todo);
            }
        }
    }
    for share in node.shares().values() {
        let status = share.status();
        match status.failed {
            Some(failed) => findings.add("folder", "fail", failed, Some("look at the directory and its permissions")),
            None => findings.add("folder", "ok", share.dir().display().to_string(), None),
        }
    }
    for failed in node.spaces().iter().filter_map(|space| node.unopened(space)) {
        findings.add("folder", "fail", failed, Some("look at the directory and its permissions"));
    }
}

async fn connect(address: SocketAddr, findings: &mut Findings) -> bool {
    let started = Instant::now();
    match tokio::time::timeout(Duration::from_secs(5), tokio::net::TcpStream::connect(address)).await {
        Ok(Ok(_)) => {
            findings.add("tcp", "ok", format!("{address} answers in {} ms", started.elapsed().as_millis()), None);
            true
        }
        Ok(Err(error)) => {
            findings.add(
                "tcp",
                "fail",
                format!("{address}: {error}"),
                Some("is `sealtide up` running there? is the port open in the firewall?"),
            );
            false
        }
        Err(_) => {
            findings.add(
                "tcp",
                "fail",
                format!("{address} does not answer"),
                Some("a firewall drops the connection, or the address is wrong"),
            );
            false
        }
    }
}
