//! The node as somebody sees and steers it who signed in at the gateway door: the commands that a door passes on, files,
//! and what changes.
//!
//! ```text
//! door ──request──▶ needs (who may) ──▶ Host::execute, as for the command line ──▶ audit line ──▶ answer
//!      ◀──topics─── watch (events, and what a look finds changed)
//! ```

mod app;
mod followed;
mod needs;
mod recent;
mod watch;

use std::io;
use std::sync::Arc;

use sealtide_gateway::{Attachment, Call, Called, Code, Console, Wanted};
use sealtide_ibgib::{Content, FileFrame};
use sealtide_releases::bundle::AppName;
use serde_json::{Value, json};
use tokio::sync::broadcast;

pub(crate) use app::NodeApp;
pub(crate) use recent::Recent;

use crate::api::{Progress, Request};
use crate::audit::{AuditEvent, Export};
use crate::commands::target::{Line, Target, parse_version};
use crate::commands::verify::audit_checkpoints;
use crate::content::ContentReader;
use crate::control::Host;
use crate::failure::{Exit, Failure};
use crate::releases;

/// Topics that wait for the door; one that is further behind is told everything anew.
const TOPICS: usize = 256;

/// The console of a home's one process.
pub struct HostConsole {
    host: Host,
    topics: broadcast::Sender<Arc<str>>,
}

impl HostConsole {
    /// Of whoever answers the commands of a home; what changes is told from now on, until it stops.
    pub fn new(host: Host) -> Arc<Self> {
        let topics = broadcast::Sender::new(TOPICS);
        watch::begin(&host, &topics);
        Arc::new(Self { host, topics })
    }
}

impl Console for HostConsole {
    fn read(&self, text: &str) -> Result<Call, Code> {
        let request: Request = serde_json::from_str(text).map_err(|_| Code::InvalidField)?;
        let need = needs::of(&request).ok_or(Code::Forbidden)?;
        let host = self.host.clone();
        Ok(Call {
            role: need.role,
            is_change: need.is_change,
            run: Box::new(move |by| Box::pin(perform(host, request, need.is_change, by))),
        })
    }

    fn attachment(&self, wanted: &Wanted) -> Result<Attachment, Code> {
        let made = match wanted {
            Wanted::File { space, path, version } => file(&self.host, space, path, version.as_deref()),
            Wanted::Audit => audit(&self.host),
            Wanted::Trust { app } => trust(&self.host, app),
        };
        made.map_err(|failure| {
            tracing::debug!(%failure, ?wanted, "not given to the door");
            if failure.exit == Exit::Usage { Code::NotFound } else { Code::StorageError }
        })
    }

    fn topics(&self) -> broadcast::Receiver<Arc<str>> {
        self.topics.subscribe()
    }

    fn all_topics(&self) -> Vec<Arc<str>> {
        watch::all(&self.host)
    }
}

/// Does what is asked. A change stands in the audit when it is answered, with who asked and what came of it.
async fn perform(host: Host, request: Request, is_change: bool, by: String) -> Called {
    if is_change && host.audit().is_failing() {
        let failure = Failure::failed("audit", "the audit cannot be written, so nothing is changed through the door");
        return refused(&failure.hint("make room on the disk of this home"));
    }
    let words = is_change.then(|| needs::words(&request));
    let done = host.execute(request, &Progress::none()).await;
    let line = match words {
        None => None,
        Some(words) => {
            let outcome = done.as_ref().map_or_else(|failure| failure.code.as_str(), |_| "done");
            let hsl = if done.is_ok() { "#9D4EDD" } else { "#FF8C00" };
            let event = AuditEvent::new("console:change", hsl).member("principal", &by).member("outcome", outcome);
            let event = words.iter().fold(event, |event, (name, value)| event.member(name, value)).durable();
            let audit = host.audit().clone();
            let written = tokio::task::spawn_blocking(move || audit.try_event(&event)).await;
            written.ok().and_then(Result::ok)
        }
    };
    match done {
        Ok(result) => {
            let mut body = json!({"result": result});
            if let Some(line) = line {
                body["audit"] = json!(line);
            }
            Called { status: 200, body: body.to_string() }
        }
        Err(failure) => refused(&failure),
    }
}

fn refused(failure: &Failure) -> Called {
    let status = match failure.exit {
        Exit::Usage => 400,
        Exit::Refused | Exit::WrongPassphrase => 403,
        Exit::Conflict | Exit::Held | Exit::Locked => 409,
        Exit::NoRoute => 503,
        _ => 500,
    };
    let error = json!({"code": failure.code, "message": failure.message, "hint": failure.hint});
    Called { status, body: json!({"error": error}).to_string() }
}

/// A version of a file, or of a document as JSON.
fn file(host: &Host, space: &str, path: &str, version: Option<&str>) -> Result<Attachment, Failure> {
    let Host::Node(node) = host else { return Err(no_node()) };
    let wrong = || Failure::usage("version", "this is no version");
    let version = version.map(|text| parse_version(text.trim_start_matches('@')).ok_or_else(wrong)).transpose()?;
    let target = Target { space: space.to_owned(), path: Some(path.to_owned()), version };
    let line = Line::find(node, &target)?;
    let record = line.version(target.version.as_ref())?;
    let name = path.rsplit('/').next().unwrap_or(path).to_owned();
    let of_text = |name: String, media, text: String| Attachment {
        name,
        media,
        size: Some(text.len() as u64),
        content: Box::new(io::Cursor::new(text)),
    };
    let Ok(frame) = FileFrame::read(&record) else {
        let document = record.object().and_then(|object| object.get("doc").cloned()).unwrap_or_default();
        return Ok(of_text(format!("{name}.json"), "application/json", format!("{document:#}\n")));
    };
    if frame.deleted {
        return Err(Failure::usage("deleted", format!("{} is deleted in this version", frame.path)));
    }
    match frame.content {
        Content::Text(text) | Content::Target(text) => Ok(of_text(name, "application/octet-stream", text)),
        Content::None => Err(Failure::usage("no_content", format!("{} is a directory", frame.path))),
        Content::Bin(address) => {
            let content = ContentReader::open(node.store(), &line.view, &address)?;
            Ok(Attachment {
                name,
                media: "application/octet-stream",
                size: Some(content.size()),
                content: Box::new(content),
            })
        }
    }
}

fn audit(host: &Host) -> Result<Attachment, Failure> {
    let audit = host.audit().clone();
    let dir = audit.dir().to_owned();
    let export = Export::begin(&dir, move |since| audit_checkpoints(&audit, since))?;
    Ok(Attachment {
        name: "audit.jsonl".to_owned(),
        media: "application/x-ndjson",
        size: None,
        content: Box::new(export),
    })
}

fn trust(host: &Host, app: &str) -> Result<Attachment, Failure> {
    let Host::Node(node) = host else { return Err(no_node()) };
    let wrong = || Failure::usage("app", format!("{app:?} is no name of an app"));
    let trust = releases::shown_trust(node, &AppName::parse(app).ok_or_else(wrong)?)?;
    let text = format!("{:#}\n", trust.to_value());
    Ok(Attachment {
        name: format!("{app}.root"),
        media: "application/json",
        size: Some(text.len() as u64),
        content: Box::new(io::Cursor::new(text)),
    })
}

fn no_node() -> Failure {
    Failure::usage("gateway_only", "the gateway runs alone on this home")
}

/// The page where a browser signs in: with the code in the part of the address that is never sent.
pub(crate) fn link(url: &str, code: Option<&str>) -> String {
    code.map_or_else(|| format!("{url}/dashboard/"), |code| format!("{url}/dashboard/#code={code}"))
}

/// What a one-time code is told as.
pub(crate) fn code_answer(url: &str, code: &str, life_ms: u64) -> Value {
    json!({
        "schema": "sealtide/gateway_code/1", "code": code, "gateway": url, "dashboard": link(url, Some(code)),
        "expires_in_s": life_ms / 1_000,
    })
}

#[cfg(test)]
mod tests {
    use sealtide_identity::keyring::{KeyVersion, Order};

    use super::*;
    use crate::gateway::{OrderRefused, Ordered, Replacement};
    use crate::node::Node;

    /// Nobody changes anything unseen: neither through the door, nor the keys by any way.
    #[tokio::test(flavor = "multi_thread")]
    async fn while_the_audit_cannot_be_written_nothing_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::new_at(dir.path().join("home"));
        let space = node.create_space("Notes", "data").unwrap();
        let desk = node.desk(true).unwrap();
        let call = |request: Value| {
            let request: Request = serde_json::from_value(request).unwrap();
            let need = needs::of(&request).unwrap();
            perform(Host::Node(node.clone()), request, need.is_change, "ada".to_owned())
        };
        let pause = |space: Option<&str>| call(json!({"command": "pause", "space": space}));
        assert_eq!(pause(Some("Notes")).await.status, 200);
        assert_eq!(call(json!({"command": "resume", "space": "Notes"})).await.status, 200);
        node.audit().fill_disk();
        assert!(node.audit().is_failing());

        let refused = pause(Some("Notes")).await;
        assert!(refused.status == 500 && refused.body.contains("\"audit\""), "{}", refused.body);
        assert!(!node.engine().is_paused(&space));
        assert_eq!(call(json!({"command": "status"})).await.status, 200, "to look changes nothing");

        let epoch = || desk.show().epoch;
        let (before, version) = (epoch(), KeyVersion::new(2).unwrap());
        let order = Ordered { order: Order::Add(version), expect: None, by: "ada", reason: "" };
        assert!(matches!(desk.order(&order), Err(OrderRefused::Audit)));
        assert!(matches!(desk.new_version(None, "ada"), Err(OrderRefused::Audit)));
        let replacement =
            Replacement { compromised: false, last_good: vec![], by: "ada", reason: String::new(), taken: None };
        let refused = desk.replace(&replacement, &mut |_| panic!("the words are asked")).unwrap_err();
        assert_eq!((refused.code.as_str(), epoch()), ("audit", before));
    }
}
