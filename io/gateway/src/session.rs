//! What is said on a WebSocket: the messages of `tes-ui-v1` and `tes-ui-v2`, and the echo. Spec: gateway §2.

use std::collections::VecDeque;
use std::sync::Arc;

use sealtide_ibgib::json::{Js, JsObject, JsString, Rules, parse, write};
use sealtide_releases::{BumpRequest, FieldError, HSL_NORMAL, refresh_text};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{broadcast, watch};

use crate::app::{App, DoorEvent, Way};
use crate::connection::{Reply, Talk};
use crate::counts::{Counted, Counts};
use crate::frames::{Class, CloseCode};
use crate::ladder::Rung;
use crate::lifecycle::{self, Lives, Load, Phase};
use crate::principal::{Principal, Role};
use crate::refusal::Code;
use crate::settings::Door;
use crate::spoken::Spoken;
use crate::standing::Standing;
use crate::token::{Admission, Binding, Purpose, TokenDigest};

/// Nesting of JSON, at most.
const DEPTH_MAX: usize = 32;
/// Bytes of a client's `id`, at most.
const ID_BYTES_MAX: usize = 64;
/// Bad messages within the window, at which a session is closed.
const FAULTS_MAX: usize = 5;
/// The window, in milliseconds.
const FAULTS_MS: u64 = 60_000;

/// Sends everything back.
pub(crate) struct Echo;

impl Talk for Echo {
    fn text(&mut self, text: String, _: u64) -> Vec<Reply> {
        vec![Reply::Text(text, Class::Public)]
    }

    fn binary(&mut self, bytes: Vec<u8>, _: u64) -> Vec<Reply> {
        vec![Reply::Binary(bytes, Class::Public)]
    }
}

/// What every session hears.
#[derive(Clone, Debug)]
pub(crate) enum Broadcast {
    /// A message for readers, but for the session that caused it.
    Said {
        /// Its number; `u64::MAX` for none.
        from: u64,
        spoken: Arc<Spoken>,
    },
    /// What changed at the node, for those who watch it.
    Node { spoken: Arc<Spoken> },
    /// Keys changed: each session looks whether its rung can still be kept. The message is for everybody.
    Keys { spoken: Option<Arc<Spoken>> },
    /// The settings were read again: a session whose holder is not known any more ends.
    Settings(Arc<Door>),
    /// A sign-in is over, SHA-256 of its cookie: the sessions that began or were renewed with it end.
    SignedOut([u8; 32]),
}

/// One session of the real door.
pub(crate) struct Session {
    pub(crate) number: u64,
    pub(crate) counts: Arc<Counts>,
    pub(crate) lives: Arc<Lives>,
    pub(crate) door: Arc<Door>,
    /// The settings of now: who renews must be known to them.
    pub(crate) doors: watch::Receiver<Arc<Door>>,
    pub(crate) app: Arc<dyn App>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) others: broadcast::Sender<Broadcast>,
    pub(crate) principal: Principal,
    pub(crate) standing: Arc<Standing>,
    pub(crate) binding: Binding,
    pub(crate) rung: Rung,
    pub(crate) faults: VecDeque<u64>,
    /// Whether it was about to be thrown out when that was looked at last.
    pub(crate) is_tense: bool,
}

impl Talk for Session {
    fn text(&mut self, text: String, mono_ms: u64) -> Vec<Reply> {
        self.step(Phase::Active, mono_ms);
        let replies = match read_object(&text) {
            Some(object) => self.object(&object, mono_ms),
            None => self.fault(Code::InvalidJson, None, mono_ms),
        };
        for _ in &replies {
            self.counts.add(Counted::Messages, &[("dir", "out"), ("type", "answer")]);
        }
        replies
    }

    fn binary(&mut self, bytes: Vec<u8>, mono_ms: u64) -> Vec<Reply> {
        if let [1, token @ ..] = bytes.as_slice() {
            return self.renew(std::str::from_utf8(token).unwrap_or_default(), None, mono_ms);
        }
        match String::from_utf8(bytes) {
            Ok(text) => self.text(text, mono_ms),
            Err(_) => self.fault(Code::InvalidJson, None, mono_ms),
        }
    }
}

impl Session {
    // Spec: GW-30, GW-31, GW-32
    fn object(&mut self, object: &JsObject, mono_ms: u64) -> Vec<Reply> {
        let id = match object.named("id") {
            Js::Undefined => None,
            Js::String(JsString::Text(id)) if id.len() <= ID_BYTES_MAX => Some(id.as_str()),
            _ => return self.fault(Code::InvalidField, None, mono_ms),
        };
        let word = object.named("type").as_string().and_then(JsString::as_str);
        let kind = ["ping", "refresh", "bump", "renew", "watch"]
            .into_iter()
            .find(|kind| word == Some(kind))
            .unwrap_or("other");
        self.counts.add(Counted::Messages, &[("dir", "in"), ("type", kind)]);
        match word {
            Some("ping") => vec![Reply::Text(pong(id), Class::Public)],
            Some("refresh") if !self.principal.may(&self.door, Role::Reader) => vec![error(Code::Forbidden, id)],
            Some("refresh") => {
                let text = refresh_text(&self.app.registry(), self.app.lifecycle(), id);
                vec![Reply::Text(text, Class::Public)]
            }
            Some("bump") if !self.principal.may(&self.door, Role::Bumper) => vec![error(Code::Forbidden, id)],
            Some("bump") => self.bump(object, id, mono_ms),
            Some("renew") => match object.named("token").as_string().and_then(JsString::as_str) {
                Some(token) => self.renew(token, id, mono_ms),
                None => self.fault(Code::InvalidField, id, mono_ms),
            },
            // Where nobody signed in nobody is told of the node.
            Some("watch") if self.principal.id.is_none() => vec![error(Code::Unauthenticated, id)],
            Some("watch") if !self.principal.may(&self.door, Role::Reader) => vec![error(Code::Forbidden, id)],
            Some("watch") if self.standing.watch() => {
                let mut object = JsObject::new();
                object.set("type", Js::text("watching"));
                vec![Reply::Text(with_id(object, id), Class::Public)]
            }
            _ => self.fault(Code::UnknownType, id, mono_ms),
        }
    }

    // Spec: GW-33
    fn bump(&mut self, object: &JsObject, id: Option<&str>, mono_ms: u64) -> Vec<Reply> {
        let request = match BumpRequest::read(object, &["type", "id"], None) {
            Ok(request) => request,
            Err(FieldError::Scope) => return self.fault(Code::InvalidScope, id, mono_ms),
            Err(FieldError::Field(_)) => return self.fault(Code::InvalidField, id, mono_ms),
        };
        let done = match waiting(|| self.app.bump(&request, Way::Rung(self.rung))) {
            Ok(done) => done,
            Err(code) => return vec![error(code, id)],
        };
        let answer = done.answer();
        if done.signed.is_some() {
            let spoken = Arc::new(Spoken::new(answer.broadcast()));
            let _ = self.others.send(Broadcast::Said { from: self.number, spoken });
        }
        vec![Reply::Text(answer.message(id), Class::Signed)]
    }

    /// A fresh token prolongs the session, in the name of whoever fetched it.
    fn renew(&mut self, token: &str, id: Option<&str>, mono_ms: u64) -> Vec<Reply> {
        let digest = TokenDigest::of(token);
        let checked = digest.and_then(|digest| {
            let principal = self.admission.check(&digest, Purpose::Ws, &self.binding, mono_ms).ok()?;
            let is_known = self.doors.borrow().knows(&principal);
            (self.admission.take(&digest) && is_known).then_some(principal)
        });
        match checked {
            Some(principal) => {
                self.step(Phase::Renew, mono_ms);
                self.step(Phase::Active, mono_ms);
                self.standing.renew(&self.door, &principal, mono_ms);
                // What was said of them in between was said of others, as far as this session knew.
                if !self.doors.borrow().knows(&principal) || !self.admission.sign_ins.stands(&principal, mono_ms) {
                    return vec![Reply::Close(CloseCode::EXPIRED)];
                }
                self.principal = principal;
                let left = self.standing.ends_mono_ms().map(|ends| ends.saturating_sub(mono_ms));
                // A session without end is told the life of a token, as clients of the older system expect.
                let expires = self.app.wall_ms() + left.unwrap_or(self.door.settings.ws_token_ttl_ms);
                let mut object = JsObject::new();
                object.set("type", Js::text("renewed"));
                object.set("expiresAt", Js::Number(expires as f64));
                vec![Reply::Text(with_id(object, id), Class::Secret)]
            }
            None => self.fault(Code::CsrfInvalid, id, mono_ms),
        }
    }

    /// The session goes on; a step to another phase is an event.
    fn step(&mut self, phase: Phase, mono_ms: u64) {
        self.faults.retain(|at| mono_ms.saturating_sub(*at) < FAULTS_MS);
        let load = Load { error_rate: self.faults.len() as f64 / FAULTS_MAX as f64, ..Load::default() };
        if self.lives.step(self.number, phase, &load, mono_ms).is_some() {
            let tension = lifecycle::tension(phase, &load);
            let members = vec![
                ("sessionID", self.lives.pseudonym(self.number)),
                ("phase", phase.name().to_owned()),
                ("tension", tension.to_string()),
                ("level", lifecycle::level(tension).0.to_owned()),
                ("forecast", lifecycle::forecast(tension).to_owned()),
            ];
            let event = |name, hsl| DoorEvent { name, hsl, members: members.clone(), request_id: None };
            self.app.note(event("LIFECYCLE_TRANSITION", HSL_NORMAL));
        }
        self.watch_tension(phase, &load);
    }

    /// Tells of a session that is about to be thrown out, when it gets there.
    // Spec: GW-83
    fn watch_tension(&mut self, phase: Phase, load: &Load) {
        let tension = lifecycle::tension(phase, load);
        let is_tense = lifecycle::forecast(tension) == "EVICT_IMMINENT";
        if is_tense && !self.is_tense {
            let members = vec![
                ("sessionID", self.lives.pseudonym(self.number)),
                ("phase", phase.name().to_owned()),
                ("tension", tension.to_string()),
            ];
            for name in ["TENSION_SPIKE", "FORECAST_ALERT"] {
                self.app.note(DoorEvent { name, hsl: "#FF8C00", members: members.clone(), request_id: None });
            }
        }
        self.is_tense = is_tense;
    }

    /// Says what is wrong; the fifth time within a minute it is the last that is said.
    fn fault(&mut self, code: Code, id: Option<&str>, mono_ms: u64) -> Vec<Reply> {
        self.faults.retain(|at| mono_ms.saturating_sub(*at) < FAULTS_MS);
        self.faults.push_back(mono_ms);
        let mut replies = vec![error(code, id)];
        if self.faults.len() >= FAULTS_MAX {
            replies.push(Reply::Close(CloseCode::POLICY));
        }
        replies
    }
}

/// Does what waits for the disk, while other connections of this thread go on elsewhere where there is an elsewhere.
fn waiting<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// An object out of a text, when it is one and not nested too deep.
// Spec: GW-100
pub(crate) fn read_object(text: &str) -> Option<JsObject> {
    let mut depth = 0usize;
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return None;
        }
    }
    match parse(text, Rules::Strict) {
        Ok(Js::Object(object)) => Some(object),
        _ => None,
    }
}

fn pong(id: Option<&str>) -> String {
    let mut object = JsObject::new();
    object.set("type", Js::text("pong"));
    object.set("hsl", Js::text(HSL_NORMAL));
    with_id(object, id)
}

fn error(code: Code, id: Option<&str>) -> Reply {
    let mut object = JsObject::new();
    for (name, value) in
        [("type", "error"), ("status", "ERROR"), ("error", code.line()), ("code", code.name()), ("hsl", "#FF0000")]
    {
        object.set(name, Js::text(value));
    }
    Reply::Text(with_id(object, id), Class::Public)
}

fn with_id(mut object: JsObject, id: Option<&str>) -> String {
    if let Some(id) = id {
        object.set("id", Js::text(id));
    }
    write(&Js::Object(object)).unwrap_or_default()
}
