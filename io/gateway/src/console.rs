//! The node behind the door, for somebody who signed in: one request as the command line asks it, and files.
//!
//! | Path | |
//! |---|---|
//! | `POST /api/node/call` | one request, one answer; a change needs a token of purpose `http` |
//! | `GET /api/node/file?…` | a version of a file, as it is |
//! | `GET /api/node/audit` | the audit with its checkpoints |
//! | `GET /api/node/trust?app=…` | the trust file of an app |
//!
//! Nobody without a sign-in or a bearer gets anything here, on this machine neither: other users of it can reach the door
//! too. What a request needs is told by the node; that the caller has it is seen to here.

use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use sealtide_ibgib::json::{Js, JsObject, write};
use tokio::sync::{broadcast, watch};

use crate::body::{AnswerBody, DownloadPlace};
use crate::connection::stopped;
use crate::handshake::Caller;
use crate::principal::{Principal, Role};
use crate::refusal::Code;
use crate::routes::{Answer, json, read_json, take_http_token, unstored};
use crate::server::Shared;
use crate::session::Broadcast;
use crate::spoken::Spoken;

/// Where everything of the node is.
const ROOT: &str = "/api/node/";
/// How long topics are gathered before they are said.
const GATHER: Duration = Duration::from_millis(200);

/// The node, as a signed-in caller sees and steers it.
pub trait Console: Send + Sync + 'static {
    /// Reads a request, one JSON object.
    ///
    /// # Errors
    /// [`Code::InvalidField`] for what is no request, [`Code::Forbidden`] for one that no door passes on.
    fn read(&self, text: &str) -> Result<Call, Code>;
    /// Something that is sent as it is read. May wait for the disk.
    ///
    /// # Errors
    /// What the caller is told.
    fn attachment(&self, wanted: &Wanted) -> Result<Attachment, Code>;
    /// What changes, by topic, from now on. As long as nobody listens nothing has to be looked at.
    fn topics(&self) -> broadcast::Receiver<Arc<str>>;
    /// Every topic there is.
    fn all_topics(&self) -> Vec<Arc<str>>;
}

/// A request under way.
pub type Calling = Pin<Box<dyn Future<Output = Called> + Send>>;

/// A request that was read.
pub struct Call {
    /// Who may ask it.
    pub role: Role,
    /// Whether it changes something.
    pub is_change: bool,
    /// Does it, in the name of somebody.
    pub run: Box<dyn FnOnce(String) -> Calling + Send>,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    /// The status of HTTP.
    pub status: u16,
    /// `{"result"}` or `{"error"}`.
    pub body: String,
}

/// What is asked for as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A version of a file; without one the newest.
    File {
        /// Name or id of the space.
        space: String,
        /// Path in it.
        path: String,
        /// `@N`, `@HASH` or `@TIME`.
        version: Option<String>,
    },
    /// The audit with its checkpoints.
    Audit,
    /// The trust file of an app.
    Trust {
        /// Its name.
        app: String,
    },
}

/// A file that is sent as it is read.
pub struct Attachment {
    /// How it is called.
    pub name: String,
    /// What it is.
    pub media: &'static str,
    /// Bytes, when they are known.
    pub size: Option<u64>,
    /// Gives it. A read may wait for the disk, never for whoever gets it.
    pub content: Box<dyn Read + Send>,
}

/// Whether a path belongs here.
pub(crate) fn is_path(path: &str) -> bool {
    path.starts_with(ROOT)
}

/// Serves one of the paths.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    caller: &Caller,
    principal: &Principal,
    request: Request<Incoming>,
) -> Result<Answer, Code> {
    let console = shared.console.clone().ok_or(Code::NotFound)?;
    if principal.id.is_none() {
        return Err(Code::Unauthenticated);
    }
    let site = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
    let is_foreign = caller.origin.is_some() || matches!(site, Some(b"cross-site" | b"same-site"));
    if is_foreign && !caller.origin_allowed {
        return Err(Code::OriginDenied);
    }
    let path = request.uri().path().to_owned();
    if path == "/api/node/call" {
        return if request.method() == Method::POST {
            call(shared, console, caller, principal, request).await
        } else {
            Err(Code::Method)
        };
    }
    let wanted = wanted(&path, request.uri().query().unwrap_or_default())?;
    if request.method() != Method::GET {
        return Err(Code::Method);
    }
    needs(shared, caller, principal, if wanted == Wanted::Audit { Role::Admin } else { Role::Reader })?;
    let place = shared.download()?;
    let made = tokio::task::spawn_blocking(move || console.attachment(&wanted));
    Ok(attached(made.await.map_err(|_| Code::StorageError)??, place))
}

fn needs(shared: &Shared, caller: &Caller, principal: &Principal, role: Role) -> Result<(), Code> {
    let is_enough = principal.may(&shared.door, role);
    let is_near = role < Role::Admin || shared.door.allows_admin(caller.peer.client);
    if is_enough && is_near { Ok(()) } else { Err(Code::Forbidden) }
}

async fn call(
    shared: &Arc<Shared>,
    console: Arc<dyn Console>,
    caller: &Caller,
    principal: &Principal,
    request: Request<Incoming>,
) -> Result<Answer, Code> {
    let headers = request.headers().clone();
    let (body, _) = read_json(shared, request).await?;
    let call = console.read(std::str::from_utf8(&body).map_err(|_| Code::InvalidJson)?)?;
    needs(shared, caller, principal, call.role)?;
    if call.is_change {
        take_http_token(shared, caller, principal, &headers)?;
    }
    // A change that has begun is finished, whether the caller waits for it or not.
    let by = principal.id.clone().unwrap_or_default();
    let called = tokio::spawn((call.run)(by)).await.map_err(|_| Code::StorageError)?;
    let status = StatusCode::from_u16(called.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Ok(unstored(json(status, &called.body)))
}

fn wanted(path: &str, query: &str) -> Result<Wanted, Code> {
    let mut members = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(Code::InvalidField)?;
        if members.iter().any(|(known, _)| *known == name) {
            return Err(Code::InvalidField);
        }
        members.push((name, decoded(value).ok_or(Code::InvalidField)?));
    }
    let mut take = |name: &str| {
        let at = members.iter().position(|(known, _)| *known == name)?;
        Some(members.swap_remove(at).1)
    };
    let wanted = match path {
        "/api/node/file" => Wanted::File {
            space: take("space").ok_or(Code::InvalidField)?,
            path: take("path").ok_or(Code::InvalidField)?,
            version: take("version"),
        },
        "/api/node/audit" => Wanted::Audit,
        "/api/node/trust" => Wanted::Trust { app: take("app").ok_or(Code::InvalidField)? },
        _ => return Err(Code::NotFound),
    };
    if members.is_empty() { Ok(wanted) } else { Err(Code::InvalidField) }
}

/// A value of a query: `%XX` and `+`. Spec: WHATWG URL, application/x-www-form-urlencoded.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let (byte, tail) = match first {
            b'%' => {
                let (hex, tail) = tail.split_at_checked(2)?;
                (*data_encoding::HEXLOWER_PERMISSIVE.decode(hex).ok()?.first()?, tail)
            }
            b'+' => (b' ', tail),
            other => (*other, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// Whatever it is, a browser keeps it as a file and shows nothing of it.
fn attached(made: Attachment, place: DownloadPlace) -> Answer {
    let Attachment { name, media, size, content } = made;
    let mut answer = Response::new(AnswerBody::read(content, size, place));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    let encoded: String = name.bytes().map(encoded).collect();
    if let Ok(line) = HeaderValue::from_str(&format!("attachment; filename*=UTF-8''{encoded}")) {
        headers.insert(header::CONTENT_DISPOSITION, line);
    }
    if let Some(size) = size {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    }
    unstored(answer)
}

/// A byte of an extended value. Spec: RFC 8187 §3.2.
fn encoded(byte: u8) -> String {
    match byte {
        plain if plain.is_ascii_alphanumeric() || b"-._~".contains(&plain) => char::from(plain).to_string(),
        other => format!("%{other:02X}"),
    }
}

/// Says to those who watch what changed, gathered for a moment. Whoever begins to watch is told everything once, so that
/// what changed between an answer and that moment is not missed.
pub(crate) async fn pass_on(
    console: Arc<dyn Console>,
    others: broadcast::Sender<Broadcast>,
    mut watchers: watch::Receiver<usize>,
    mut stop: watch::Receiver<bool>,
) {
    let mut seq = 0;
    loop {
        tokio::select! {
            waited = watchers.wait_for(|watchers| *watchers > 0) => if waited.is_err() { return },
            () = stopped(&mut stop) => return,
        }
        let mut topics = console.topics();
        let mut due = console.all_topics();
        loop {
            if !due.is_empty() {
                seq += 1;
                let spoken = Arc::new(Spoken::new(changed(seq, &due)));
                let _ = others.send(Broadcast::Node { spoken });
                due.clear();
            }
            let topic = tokio::select! {
                topic = topics.recv() => topic,
                // Somebody came, or the last one went.
                moved = watchers.changed() => {
                    if moved.is_err() {
                        return;
                    }
                    let left = *watchers.borrow_and_update();
                    if left == 0 {
                        break;
                    }
                    due = console.all_topics();
                    continue;
                }
                () = stopped(&mut stop) => return,
            };
            let mut gather = |topic| match topic {
                Ok(topic) if due.contains(&topic) => true,
                Ok(topic) => {
                    due.push(topic);
                    true
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    due = console.all_topics();
                    true
                }
                Err(broadcast::error::RecvError::Closed) => false,
            };
            if !gather(topic) {
                return;
            }
            let over = tokio::time::sleep(GATHER);
            tokio::pin!(over);
            loop {
                tokio::select! {
                    () = &mut over => break,
                    topic = topics.recv() => if !gather(topic) { return },
                }
            }
        }
    }
}

fn changed(seq: u64, topics: &[Arc<str>]) -> String {
    let mut object = JsObject::new();
    object.set("type", Js::text("node"));
    object.set("seq", Js::Number(seq as f64));
    object.set("topics", Js::Array(topics.iter().map(|topic| Js::text(&**topic)).collect()));
    write(&Js::Object(object)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_whole_or_not_at_all() {
        let file = |version: Option<&str>| Wanted::File {
            space: "Notes".to_owned(),
            path: "a b/ü.md".to_owned(),
            version: version.map(str::to_owned),
        };
        assert_eq!(wanted("/api/node/file", "space=Notes&path=a+b%2F%C3%BC.md"), Ok(file(None)));
        assert_eq!(wanted("/api/node/file", "path=a%20b/%c3%bc.md&space=Notes&version=%402"), Ok(file(Some("@2"))));
        assert_eq!(wanted("/api/node/audit", ""), Ok(Wanted::Audit));
        for bad in ["", "space=a", "space=a&path=b&path=c", "space=a&path=%4", "space=a&path=%ff", "space=a&path=b&c=d"]
        {
            assert_eq!(wanted("/api/node/file", bad), Err(Code::InvalidField), "{bad}");
        }
        assert_eq!(wanted("/api/node/other", ""), Err(Code::NotFound));
    }
}
