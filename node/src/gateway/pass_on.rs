//! A bump on its way to the node that writes the registry, and the answer on its way back: one channel for each. Spec:
//! registry.md, "Several nodes".
//!
//! ```text
//! ─▶ {"schema","space","first","rung","request"}     ≤ 8 KiB
//! ◀─ {"code"} when it is refused, {"bytes"} when it is not, then the answer of the writer in pieces
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use sealtide_gateway::{Bumped, Code, Rung, Way};
use sealtide_ibgib::json::{Js, JsObject, Rules, parse, write};
use sealtide_identity::keyring::{Algorithm, KeyVersion, Signed};
use sealtide_identity::{NodeId, SpaceId};
use sealtide_releases::{BumpPlan, BumpRequest, Crypto, Registry, VersionChange};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::world::{ChannelGone, PeerChannel};

/// The name of the channel.
pub(crate) const CHANNEL: &str = "registry/1";
const SCHEMA: &str = "sealtide/bump/1";
/// Bytes of a request, and of the head of an answer, at most.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Bytes of an answer, at most: a whole registry, and what moved of it.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Bytes that are sent at once.
const PIECE: usize = 64 * 1024;
/// Bumps of other nodes that are made at once.
const PLACES: usize = 8;
/// Those of one node.
const PLACES_OF_ONE: usize = 2;
/// How long whoever opened a channel may take to say what for.
const ASKING: Duration = Duration::from_secs(10);
/// How long the writer may take.
const ANSWERING: Duration = Duration::from_secs(30);
/// What a bump may be refused with.
const REFUSALS: [Code; 10] = [
    Code::Forbidden,
    Code::NotFound,
    Code::EntityNotFound,
    Code::InvalidField,
    Code::InvalidVersion,
    Code::StateConflict,
    Code::KeyUnavailable,
    Code::StorageError,
    Code::WriterUnreachable,
    Code::InvalidJson,
];

/// A bump as it is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PassedOn {
    /// The space with the registry.
    pub(crate) space: SpaceId,
    /// Address of its first frame.
    pub(crate) first: String,
    /// Over which way it came.
    pub(crate) way: Way,
    pub(crate) request: BumpRequest,
}

impl PassedOn {
    fn to_bytes(&self) -> Bytes {
        let request = &self.request;
        let rung = match self.way {
            Way::Rest => None,
            Way::Rung(rung) => Some(rung.to_string()),
        };
        let crypto = request.crypto.map(|crypto| match crypto {
            Crypto::Hmac => "hmac",
            Crypto::Ed25519 => "ed25519",
        });
        let mut members = json!({
            "scope": request.scope.name(), "cascade": request.cascade, "dryRun": request.dry_run, "all": request.all,
        });
        let version = request.key_version.map(|version| version.to_string());
        for (name, value) in
            [("entityId", request.entity.as_deref()), ("keyVersion", version.as_deref()), ("crypto", crypto)]
        {
            if let Some(value) = value {
                members[name] = json!(value);
            }
        }
        let (space, first) = (self.space.to_string(), &self.first);
        json!({"schema": SCHEMA, "space": space, "first": first, "rung": rung, "request": members})
            .to_string()
            .into_bytes()
            .into()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= HEAD_BYTES_MAX)?;
        let Ok(Js::Object(object)) = parse(text, Rules::Strict) else { return None };
        let word = |name: &str| text_of(&object, name);
        (word("schema")? == SCHEMA).then_some(())?;
        let Js::Object(members) = object.named("request") else { return None };
        let way = match object.named("rung") {
            Js::Null => Way::Rest,
            _ => Way::Rung(Rung::parse(word("rung")?)?),
        };
        let request = BumpRequest::read(members, &[], None).ok()?;
        Some(Self { space: word("space")?.parse().ok()?, first: word("first")?.to_owned(), way, request })
    }
}

/// Bumps that are made at once for nodes that pass them on: a few in all, and fewer of each node, so that none keeps the others out.
pub(crate) struct Places {
    all: Arc<Semaphore>,
    of: Mutex<BTreeMap<NodeId, Weak<Semaphore>>>,
}

/// A place; it is free again when this is dropped.
pub(crate) struct Place {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Default for Places {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(PLACES)), of: Mutex::default() }
    }
}

impl Places {
    /// Waits for a place for this node.
    pub(crate) async fn take(&self, node: NodeId) -> Option<Place> {
        let own = {
            let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
            let own = of.get(&node).and_then(Weak::upgrade);
            own.unwrap_or_else(|| {
                of.retain(|_, places| places.strong_count() > 0);
                let own = Arc::new(Semaphore::new(PLACES_OF_ONE));
                of.insert(node, Arc::downgrade(&own));
                own
            })
        };
        let own = own.acquire_owned().await.ok()?;
        let all = self.all.clone().acquire_owned().await.ok()?;
        Some(Place { _all: all, _own: own })
    }
}

/// Asks the writer over a channel that was opened to it.
///
/// # Errors
/// What the writer says; [`Code::WriterUnreachable`] when it says nothing, and then the bump may have been made.
// Spec: GW-108
pub(crate) async fn pass_on<C: PeerChannel>(channel: &C, bump: &PassedOn) -> Result<Bumped, Code> {
    let asked = tokio::time::timeout(ANSWERING, async {
        channel.send(bump.to_bytes()).await.map_err(|ChannelGone| Code::WriterUnreachable)?;
        let head = next(channel).await?;
        let told: Value = serde_json::from_slice(&head).map_err(|_| Code::WriterUnreachable)?;
        if let Some(code) = told["code"].as_str() {
            let known = REFUSALS.into_iter().find(|known| known.name() == code);
            return Err(known.unwrap_or(Code::WriterUnreachable));
        }
        let size = told["bytes"].as_u64().and_then(|size| usize::try_from(size).ok());
        let size = size.filter(|size| *size <= ANSWER_BYTES_MAX).ok_or(Code::WriterUnreachable)?;
        let mut body = Vec::new();
        while body.len() < size {
            let piece = next(channel).await?;
            if piece.is_empty() || body.len() + piece.len() > size {
                return Err(Code::WriterUnreachable);
            }
            body.extend_from_slice(&piece);
        }
        read_answer(&body).ok_or(Code::WriterUnreachable)
    });
    let told = asked.await.unwrap_or(Err(Code::WriterUnreachable));
    channel.finish();
    told
}

async fn next<C: PeerChannel>(channel: &C) -> Result<Bytes, Code> {
    match channel.recv().await {
        Ok(Some(message)) => {
            channel.release(message.len() as u64);
            Ok(message)
        }
        Ok(None) | Err(ChannelGone) => Err(Code::WriterUnreachable),
    }
}

/// Answers what somebody passed on: `bump` looks whether it may be, and does it.
pub(crate) async fn answer<C, F>(channel: &C, bump: impl FnOnce(PassedOn) -> F)
where
    C: PeerChannel,
    F: Future<Output = Result<Bumped, Code>>,
{
    let asked = tokio::time::timeout(ASKING, channel.recv()).await;
    if let Ok(Ok(Some(message))) = asked {
        channel.release(message.len() as u64);
        let done = match PassedOn::read(&message) {
            Some(passed) => bump(passed).await,
            None => Err(Code::InvalidJson),
        };
        let _ = tokio::time::timeout(ANSWERING, tell(channel, done)).await;
    }
    channel.finish();
}

async fn tell<C: PeerChannel>(channel: &C, done: Result<Bumped, Code>) -> Result<(), ChannelGone> {
    let body = match done {
        Ok(done) => done.answer().body(),
        Err(code) => return channel.send(json!({"code": code.name()}).to_string().into_bytes().into()).await,
    };
    let body = Bytes::from(body.into_bytes());
    channel.send(json!({"bytes": body.len()}).to_string().into_bytes().into()).await?;
    let mut at = 0;
    while at < body.len() {
        let end = (at + PIECE).min(body.len());
        channel.send(body.slice(at..end)).await?;
        at = end;
    }
    Ok(())
}

/// The answer of the writer: the signed bytes in it come out as they went in.
fn read_answer(body: &[u8]) -> Option<Bumped> {
    let Ok(Js::Object(object)) = parse(std::str::from_utf8(body).ok()?, Rules::Compat) else { return None };
    let word = |name: &str| text_of(&object, name);
    let number = |name: &str| match object.named(name) {
        Js::Number(number) if *number >= 0.0 && number.fract() == 0.0 => Some(*number as u64),
        _ => None,
    };
    let (revision, key_version) = (number("revision")?, KeyVersion::parse(word("keyVersion")?)?);
    let bumped = write(object.named("bumped"))?;
    let after = Registry::read(bumped.as_bytes(), revision).ok()?;
    let Js::Array(changes) = object.named("changes") else { return None };
    let change = |change: &Js| {
        let Js::Object(change) = change else { return None };
        let word = |name: &str| text_of(change, name).map(str::to_owned);
        Some(VersionChange {
            entity_id: word("entityId")?,
            old_version: word("oldVersion")?,
            new_version: word("newVersion")?,
            display_name: word("displayName")?,
        })
    };
    let signed = match word("signature") {
        None => None,
        Some(text) => Some(Signed {
            text: text.to_owned(),
            version: key_version,
            instead_of: word("requestedKeyVersion").and_then(KeyVersion::parse),
            algorithm: Algorithm::named(word("alg")?)?,
            kid: word("kid")?.to_owned(),
        }),
    };
    Some(Bumped {
        plan: BumpPlan { after, changes: changes.iter().map(change).collect::<Option<_>>()?, bumped },
        signed,
        key_version,
        timestamp: number("timestamp")?,
        revision,
    })
}

fn text_of<'a>(object: &'a JsObject, name: &str) -> Option<&'a str> {
    match object.named(name) {
        Js::String(text) => text.as_str(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use sealtide_releases::{Scope, plan};

    use super::*;

    fn passed(way: Way) -> PassedOn {
        let request = BumpRequest {
            scope: Scope::Minor,
            entity: Some("api:sample".to_owned()),
            cascade: false,
            dry_run: true,
            all: false,
            key_version: KeyVersion::parse("v2"),
            crypto: Some(Crypto::Ed25519),
        };
        PassedOn { space: SpaceId::from_bytes([7; 32]), first: "registry^AB".to_owned(), way, request }
    }

    // Proves: GW-108
    #[test]
    fn a_node_that_takes_its_time_leaves_places_to_others() {
        let (places, mut cx) = (Places::default(), Context::from_waker(Waker::noop()));
        let node = |number| NodeId::from_bytes([number; 32]);
        let taken = |number| match pin!(places.take(node(number))).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => place,
            Poll::Pending => None,
        };
        let slow: Vec<_> = (0..PLACES_OF_ONE).map(|_| taken(1).expect("a place")).collect();
        let mut third = pin!(places.take(node(1)));
        assert!(third.as_mut().poll(&mut cx).is_pending());
        let others: Vec<_> = (2..=4).flat_map(|number| [taken(number), taken(number)]).collect();
        assert!(others.iter().all(Option::is_some) && taken(5).is_none(), "eight in all");
        drop(slow);
        assert!(third.as_mut().poll(&mut cx).is_ready());
    }

    // Proves: GW-108
    #[test]
    fn a_request_comes_out_as_it_went_in() {
        let plain = PassedOn { request: BumpRequest::default(), ..passed(Way::Rest) };
        for bump in [passed(Way::Rest), passed(Way::Rung(Rung::V2)), plain] {
            assert_eq!(PassedOn::read(&bump.to_bytes()), Some(bump));
        }
        let good: Value = serde_json::from_slice(&passed(Way::Rest).to_bytes()).unwrap();
        for (name, value) in [
            ("schema", json!("sealtide/bump/2")),
            ("space", json!("x")),
            ("first", json!(1)),
            ("rung", json!("tes-ui-v0")),
            ("request", json!({"scope": "huge"})),
            ("request", json!({"scope": "patch", "more": 1})),
            ("request", json!([])),
        ] {
            let mut changed = good.clone();
            changed[name] = value;
            assert_eq!(PassedOn::read(changed.to_string().as_bytes()), None, "{name}");
        }
        assert_eq!(PassedOn::read(&[b'x'; 9000]), None);
    }

    // Proves: GW-108
    #[test]
    fn an_answer_comes_out_as_it_went_in() {
        let text = r#"[{"id":"global:main","type":"global","currentVersion":"1.0.0","displayName":"é\u0001","updateStrategy":"independent","displayInUi":true,"files":[],"z":1.5,"a":{"y":1,"b":2}}]"#;
        let before = Registry::read(text.as_bytes(), 4).unwrap();
        let plan = plan(&before, &BumpRequest::default(), "global:main").unwrap();
        let version = KeyVersion::parse("v1").unwrap();
        let signed = Signed {
            text: "ab".repeat(32),
            version,
            instead_of: KeyVersion::parse("v2"),
            algorithm: Algorithm::HmacSha256,
            kid: "0011".to_owned(),
        };
        for signed in [Some(signed), None] {
            let done =
                Bumped { plan: plan.clone(), signed, key_version: version, timestamp: 1_700_000_000_123, revision: 5 };
            let body = done.answer().body();
            let read = read_answer(body.as_bytes()).unwrap();
            assert_eq!((read.answer().body(), &read.plan), (body.clone(), &done.plan), "byte for byte");
            assert!(read_answer(&body.as_bytes()[..body.len() - 1]).is_none());
        }
    }
}
