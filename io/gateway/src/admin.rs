//! Changes of keys over the door, and the audit for those who may make them. Spec: gateway §1.2 E10 to E12, E18; §7.10.
//!
//! A change needs all of: the role, a token made for it, an origin that may connect if there is one, an address that is
//! allowed. Each that is missing is written into the audit.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use sealtide_ibgib::json::{Js, JsObject, JsString, write};
use sealtide_identity::keyring::{KeyVersion, write_time};

use crate::app::{App, DoorEvent, KeyAction, KeyChange, KeyOrder};
use crate::handshake::{Caller, single};
use crate::key_routes::number;
use crate::principal::{Principal, Role};
use crate::refusal::Code;
use crate::routes::{Answer, json, read_json, unstored};
use crate::server::Shared;
use crate::token::{Binding, Purpose, TokenDigest, TokenRefusal};
use crate::told;

/// Lines of the audit in one answer: default and most.
const LINES: (u64, u64) = (100, 1_000);
/// Characters of a reason.
const REASON_CHARS_MAX: usize = 256;

/// What a path below `/admin/` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdminPath {
    Rotate,
    Rollback,
    Force,
    Audit,
}

impl AdminPath {
    pub(crate) fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/admin/rotate" => Self::Rotate,
            "/admin/rollback" => Self::Rollback,
            "/admin/force" => Self::Force,
            "/admin/audit" => Self::Audit,
            _ => return None,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::Rotate => "rotate",
            Self::Rollback => "rollback",
            Self::Force => "force",
            Self::Audit => "audit",
        }
    }
}

/// Serves one of the paths; a refusal for want of a right is an event.
// Spec: GW-57
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    app: Arc<dyn App>,
    caller: &Caller,
    principal: &Principal,
    path: AdminPath,
    request: Request<Incoming>,
) -> Result<Answer, Code> {
    let wanted = if path == AdminPath::Audit { Method::GET } else { Method::POST };
    if request.method() != wanted {
        return Err(Code::Method);
    }
    if app.key_desk().is_none() {
        return Err(Code::NotFound);
    }
    let allowed = may(shared, caller, principal).and_then(|()| match path {
        AdminPath::Audit => Ok(None),
        _ => token(shared, caller, principal, request.headers()).map(Some),
    });
    let digest = allowed.inspect_err(|code| app.note(denied(caller, principal, path, *code)))?;
    if path == AdminPath::Audit {
        return audit(app, request.uri().query().unwrap_or_default().to_owned()).await;
    }
    let object = order_object(shared, request).await?;
    let order = read_order(path, &object, principal)?;
    // The token goes when everything else about the request is right.
    if let Some(digest) = digest {
        if !shared.admission.take(&digest) {
            app.note(denied(caller, principal, path, Code::CsrfInvalid));
            return Err(Code::CsrfInvalid);
        }
        app.note(told::http_token(Some(&digest), Purpose::Admin, true));
    }
    // The change waits for the disk: not on a thread that serves others.
    let work = move || app.key_desk().map_or(Err(Code::NotFound), |desk| desk.change(&order));
    let change = tokio::task::spawn_blocking(work).await.map_err(|_| Code::StorageError)??;
    Ok(unstored(json(StatusCode::OK, &told(path, &change))))
}

fn may(shared: &Shared, caller: &Caller, principal: &Principal) -> Result<(), Code> {
    match principal.role {
        Role::Admin => {}
        Role::Public => return Err(Code::Unauthenticated),
        Role::Reader | Role::Bumper => return Err(Code::Forbidden),
    }
    if caller.origin.is_some() && !caller.origin_allowed {
        return Err(Code::OriginDenied);
    }
    if shared.door.allows_admin(caller.peer.client) { Ok(()) } else { Err(Code::Forbidden) }
}

fn token(shared: &Shared, caller: &Caller, principal: &Principal, headers: &HeaderMap) -> Result<TokenDigest, Code> {
    let carried = single(headers, "x-csrf-token").ok_or(TokenRefusal::Missing);
    let binding = Binding::new(principal, &caller.peer, &caller.effective_origin(&shared.door), &caller.host);
    let checked = shared.admission.check_carried(carried, Purpose::Admin, &binding, shared.mono_ms());
    checked.map(|(digest, _)| digest).map_err(|_| Code::CsrfInvalid)
}

/// An empty body says nothing, and that is an order too.
async fn order_object(shared: &Shared, request: Request<Incoming>) -> Result<JsObject, Code> {
    let is_empty = |headers: &HeaderMap| {
        !headers.contains_key(header::TRANSFER_ENCODING)
            && single(headers, "content-length").is_none_or(|length| length == "0")
    };
    if is_empty(request.headers()) {
        return Ok(JsObject::new());
    }
    read_json(shared, request).await.map(|(_, object)| object)
}

fn read_order(path: AdminPath, object: &JsObject, principal: &Principal) -> Result<KeyOrder, Code> {
    let known: &[&str] = match path {
        AdminPath::Rotate => &["to", "expect", "reason"],
        AdminPath::Force => &["to", "expect", "reason"],
        AdminPath::Rollback | AdminPath::Audit => &["expect", "reason"],
    };
    if object.iter().any(|(name, _)| !name.as_str().is_some_and(|name| known.contains(&name))) {
        return Err(Code::InvalidField);
    }
    let text = |name: &str| match object.named(name) {
        Js::Undefined => Ok(None),
        value => value.as_string().and_then(JsString::as_str).map(Some).ok_or(Code::InvalidField),
    };
    let version = |name: &str| text(name)?.map(|text| KeyVersion::parse(text).ok_or(Code::InvalidField)).transpose();
    let reason = text("reason")?.unwrap_or_default();
    if reason.chars().count() > REASON_CHARS_MAX {
        return Err(Code::InvalidField);
    }
    let action = match path {
        AdminPath::Rotate => KeyAction::Rotate(version("to")?),
        AdminPath::Force => KeyAction::Force(version("to")?.ok_or(Code::InvalidField)?),
        AdminPath::Rollback | AdminPath::Audit => KeyAction::Rollback,
    };
    Ok(KeyOrder {
        action,
        expect: version("expect")?,
        by: principal.id.clone().unwrap_or_default(),
        reason: reason.to_owned(),
    })
}

fn told(path: AdminPath, change: &KeyChange) -> String {
    let (message, hsl) = match path {
        _ if change.from == change.to => (format!("{} signs already", change.to), "#9D4EDD"),
        AdminPath::Rollback => (format!("Rolled back to {}", change.to), "#FF8C00"),
        _ => (format!("Rotated to {}", change.to), "#9D4EDD"),
    };
    let mut object = JsObject::new();
    object.set("success", Js::Bool(true));
    object.set("message", Js::text(message));
    object.set("keyVersion", Js::text(change.to.digits()));
    object.set("from", Js::text(change.from.to_string()));
    object.set("to", Js::text(change.to.to_string()));
    object.set("epoch", Js::Number(change.epoch as f64));
    object.set("rotationTimestamp", Js::text(write_time(change.at_ms)));
    object.set("hsl", Js::text(hsl));
    write(&Js::Object(object)).unwrap_or_default()
}

/// E18: JSON lines.
async fn audit(app: Arc<dyn App>, query: String) -> Result<Answer, Code> {
    let (since, limit) = (number(&query, "since")?.unwrap_or(0), number(&query, "limit")?.unwrap_or(LINES.0));
    let limit = usize::try_from(limit.min(LINES.1)).unwrap_or(0);
    let work = move || app.key_desk().map_or(Err(Code::NotFound), |desk| desk.audit(since, limit));
    let lines = tokio::task::spawn_blocking(work).await.map_err(|_| Code::StorageError)??;
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    let mut answer = Answer::new(Bytes::from(text).into());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(unstored(answer))
}

fn denied(caller: &Caller, principal: &Principal, path: AdminPath, code: Code) -> DoorEvent {
    let members = vec![
        ("principal", principal.id.clone().unwrap_or_default()),
        ("action", path.word().to_owned()),
        ("source", caller.peer.client.to_string()),
        ("code", code.name().to_owned()),
    ];
    DoorEvent { name: "admin:denied", hsl: "#FF4500", members, request_id: None }
}
