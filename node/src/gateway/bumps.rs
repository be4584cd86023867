//! Bumps: planned, signed, durable, then told. One path for HTTP, WebSocket and the command. Spec: gateway §8.3.

use std::sync::Arc;
use std::time::Instant;

use sealtide_crypto::GatewayContext;
use sealtide_gateway::{Bumped, Code, Notice, Way};
use sealtide_identity::NodeId;
use sealtide_identity::keyring::{Algorithm, KeyVersion, Order, ProbationVerdict, SignError, Signed};
use sealtide_releases::{BumpError, BumpPlan, BumpRequest, Crypto, Registry, plan};
use sealtide_store::Underway;
use serde_json::json;

use super::alerts::Fact;
use super::changes::Ordered;
use super::desk::{Desk, Turn};
use super::registry::{Origin, frame_data, signature_of};
use super::timelines::Frames;
use super::tree::TreeRefused;
use crate::audit::AuditEvent;
use crate::failpoint;
use crate::real::now;

/// The entity whose tree moves when none is named.
const ROOT: &str = "global:main";

/// Why nothing was bumped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BumpRefused {
    /// The request does not fit the registry.
    #[error("{0}")]
    Plan(#[from] BumpError),
    /// The registry is at another revision than was expected.
    #[error("the registry is at revision {found}, not {expected}")]
    Revision {
        /// Its revision.
        found: u64,
        /// What the request expects.
        expected: u64,
    },
    /// No key can sign it.
    #[error("{0}")]
    Sign(#[from] SignError),
    /// The algorithm is none of this rung.
    #[error("this algorithm is not spoken on this subprotocol")]
    Algorithm,
    /// The files of the source tree do not allow it.
    #[error("{0}")]
    Tree(#[from] TreeRefused),
    /// Another node writes this registry.
    #[error("node {} writes this registry", .0.short())]
    Writer(NodeId),
    /// The store failed; nothing changed.
    #[error("the store failed")]
    Store,
}

impl BumpRefused {
    /// What a caller at the door is told.
    pub fn code(&self) -> Code {
        match self {
            Self::Plan(BumpError::NotFound(_)) => Code::EntityNotFound,
            Self::Plan(_) => Code::InvalidVersion,
            Self::Revision { .. } | Self::Tree(_) => Code::StateConflict,
            Self::Sign(SignError::Algorithm { .. }) | Self::Algorithm => Code::InvalidField,
            Self::Sign(_) => Code::KeyUnavailable,
            Self::Writer(_) => Code::WriterUnreachable,
            Self::Store => Code::StorageError,
        }
    }
}

impl Desk {
    /// Bumps as the command does, and tells the door.
    ///
    /// # Errors
    /// [`BumpRefused`]; then nothing changed.
    pub fn bump_by_command(&self, request: &BumpRequest, expect: Option<u64>) -> Result<Bumped, BumpRefused> {
        self.bump_and_tell(request, Way::Rest, expect)
    }

    /// Bumps for another node that passed it on, and tells the door.
    ///
    /// # Errors
    /// [`BumpRefused`]; then nothing changed.
    // Spec: GW-108
    pub(crate) fn bump_for(&self, peer: &NodeId, request: &BumpRequest, way: Way) -> Result<Bumped, BumpRefused> {
        let done = self.bump_and_tell(request, way, None);
        let told = AuditEvent::normal("bump:passed_on").member("from", peer);
        self.note_event(match &done {
            Ok(done) => told.member("revision", done.revision),
            Err(refused) => told.member("error", refused.code().name()),
        });
        done
    }

    fn bump_and_tell(&self, request: &BumpRequest, way: Way, expect: Option<u64>) -> Result<Bumped, BumpRefused> {
        let done = self.bump_by(request, way, expect)?;
        if done.signed.is_some() {
            self.notify(Notice::VersionChanged(done.answer().broadcast().into()));
        }
        Ok(done)
    }

    // Spec: GW-52, GW-65, GW-66
    pub(super) fn bump_by(&self, request: &BumpRequest, way: Way, expect: Option<u64>) -> Result<Bumped, BumpRefused> {
        let began = Instant::now();
        self.thread().active(now().mono_ms);
        let mut turn = self.turn();
        let begun = self.bump_in(&mut turn, request, way, expect);
        // The next one plans and signs while this one waits for the disk; one write of the disk serves all that wait.
        drop(turn);
        let done = begun.and_then(|(done, revision)| {
            revision.map_or(Ok(()), |revision| self.settle(revision))?;
            done.signed.iter().for_each(|signed| self.note_signed(signed));
            Ok(done)
        });
        let millis = began.elapsed().as_millis();
        self.figures.bumped(request.scope, done.is_ok());
        let entity = request.entity.as_deref().unwrap_or(ROOT);
        let about = |event: AuditEvent| {
            event.member("scope", request.scope.name()).member("entityId", entity).member("duration", millis)
        };
        self.note_event(match &done {
            Ok(done) if request.dry_run => about(AuditEvent::normal("bump:transaction:dry_run"))
                .member("[AFFECTED_ENTITIES]", done.plan.changes.len()),
            Ok(done) => about(AuditEvent::normal("version_bump_success"))
                .member("entitiesBumped", done.plan.changes.len())
                .member("revision", done.revision)
                .member("keyVersion", done.key_version),
            Err(refused) => {
                about(AuditEvent::new("version_bump_failed", "#FF0000")).member("error", refused.code().name())
            }
        });
        done
    }

    /// Plans and signs a bump and puts it into the log; nobody is told of it before [`Desk::settle`].
    pub(super) fn bump_in(
        &self,
        turn: &mut Turn,
        request: &BumpRequest,
        way: Way,
        expect: Option<u64>,
    ) -> Result<(Bumped, Option<Revision>), BumpRefused> {
        is_writer(turn)?;
        let plan = plan_of(&turn.ahead, request, expect)?;
        let (algorithm, may_fall_back) = algorithm_of(way, request.crypto)?;
        let signed = self.sign(turn, &plan, request.key_version, algorithm, may_fall_back);
        if let Err(BumpRefused::Sign(SignError::Key(_))) = &signed {
            self.thread().fail();
        }
        let signed = signed?;
        let (key_version, timestamp) = (signed.version, now().wall_ms);
        if request.dry_run {
            let revision = turn.ahead.revision();
            return Ok((Bumped { plan, signed: None, key_version, timestamp, revision }, None));
        }
        let begun = self.begin_revision(turn, &plan.after, key_version, None)?;
        let revision = plan.after.revision();
        Ok((Bumped { plan, signed: Some(signed), key_version, timestamp, revision }, Some(begun)))
    }

    /// Makes the next revision durable, with the name of the transaction that changed files together with it.
    pub(super) fn commit_revision(
        &self,
        turn: &mut Turn,
        after: &Registry,
        key_version: KeyVersion,
        transaction: Option<&str>,
    ) -> Result<(), BumpRefused> {
        let begun = self.begin_revision(turn, after, key_version, transaction)?;
        self.settle(begun)
    }

    /// Puts the next revision into the log. Whoever has the turn next goes on from it: what follows it in the log cannot be
    /// durable without it, and when the disk fails nothing that was begun is, and the store takes no more.
    fn begin_revision(
        &self,
        turn: &mut Turn,
        after: &Registry,
        key_version: KeyVersion,
        transaction: Option<&str>,
    ) -> Result<Revision, BumpRefused> {
        is_writer(turn)?;
        let mut data = {
            let state = self.read();
            let origin = Origin { writer: &self.node().id, ring: &state.ring, last: Some(key_version) };
            frame_data(after, &origin).ok_or(BumpRefused::Store)?
        };
        if let Some(id) = transaction {
            data.insert("transaction".to_owned(), json!(id));
        }
        failpoint::hit("bump_signed");
        let frames = Frames { store: self.store(), space: self.space(), ib: "registry" };
        let began_mono_ms = now().mono_ms;
        self.thread().begin(began_mono_ms);
        let (frame, underway) = frames.begin_next(&turn.registry, data).map_err(|error| {
            self.thread().end(began_mono_ms, false);
            not_stored(&error)
        })?;
        let (signature, registry) = (signature_of(&frame), Arc::new(after.clone()));
        (turn.registry, turn.ahead) = (frame, registry.clone());
        Ok(Revision { underway, registry, signature, key_version, began_mono_ms })
    }

    /// Waits until a revision is durable and shows it to everybody.
    // Spec: GW-66
    fn settle(&self, revision: Revision) -> Result<(), BumpRefused> {
        let durable = revision.underway.durable();
        self.thread().end(revision.began_mono_ms, durable.is_ok());
        durable.map_err(|error| not_stored(&error))?;
        failpoint::hit("bump_committed");
        let mut state = self.write();
        // Of several that became durable at once a later one may be here already.
        if state.registry.revision() < revision.registry.revision() {
            state.signature = revision.signature;
            state.registry = revision.registry;
            state.last = Some(revision.key_version);
        }
        drop(state);
        self.note_moved();
        Ok(())
    }

    /// Signs; the first signatures of a new version are verified before anybody gets them, and one that fails takes the
    /// version back and is made again by the one before.
    // Spec: GW-49, GW-50, GW-54
    pub(super) fn sign(
        &self,
        turn: &mut Turn,
        plan: &BumpPlan,
        requested: Option<KeyVersion>,
        algorithm: Algorithm,
        may_fall_back: bool,
    ) -> Result<Signed, BumpRefused> {
        let (bytes, context) = (plan.bumped.as_bytes(), GatewayContext::Bump);
        let began = Instant::now();
        let signed = self.read().ring.sign(bytes, context, algorithm, requested, may_fall_back, now().wall_ms)?;
        self.figures.signing_took(began.elapsed().as_secs_f64());
        if !self.read().ring.watches(&signed, now()) {
            return Ok(signed);
        }
        let verdict = {
            let ring = &self.read().ring;
            ring.verify(bytes, context, signed.algorithm, signed.version, &signed.text, now().wall_ms)
        };
        let holds = verdict.valid && !failpoint::fails("probation");
        if self.write().ring.observe(&signed, holds, now()) != ProbationVerdict::RollBack {
            return Ok(signed);
        }
        tracing::error!(version = %signed.version, "a new key version made a signature that does not verify");
        self.note_event(
            AuditEvent::new("signature:rejected", "#FF0000")
                .member("keyVersion", signed.version)
                .member("reason", "probation"),
        );
        let back = Ordered {
            order: Order::Rollback,
            expect: Some(signed.version),
            by: "probation",
            reason: "a signature did not verify",
        };
        if let Err(refused) = self.follow(turn, &back) {
            tracing::error!(%refused, "the version before could not take its place again");
        }
        // Nothing is sent that does not verify: the version before signs, or nobody.
        Ok(self.read().ring.sign(bytes, context, algorithm, requested, may_fall_back, now().wall_ms)?)
            .and_then(|again| if again.version == signed.version { Err(BumpRefused::Store) } else { Ok(again) })
    }

    pub(super) fn note_signed(&self, signed: &Signed) {
        self.figures.signed(signed, |version| self.read().ring.ledger().state(version).is_some());
        self.alert(&Fact::Signed { version: signed.version.number(), fallback: signed.instead_of.is_some() });
        let preview: String = signed.text.chars().take(16).collect();
        let version = signed.version.digits();
        self.note_event(
            AuditEvent::normal("signature:generated")
                .member("keyVersion", signed.version)
                .member("signaturePreview", format!("{preview}..."))
                .member("[META:KEY-VERSION]", &version)
                .member("alg", signed.algorithm.name())
                .member("kid", &signed.kid)
                .member("context", "bump"),
        );
        if let Some(wanted) = signed.instead_of {
            self.note_event(
                AuditEvent::new(format!("key:fallback_{wanted}_to_{}", signed.version), "#FF8C00")
                    .member("[META:KEY-VERSION]", &version)
                    .member("requested", wanted),
            );
        }
    }
}

/// A revision that is in the log and not shown to anybody yet.
pub(super) struct Revision {
    underway: Underway,
    registry: Arc<Registry>,
    signature: Option<String>,
    key_version: KeyVersion,
    began_mono_ms: u64,
}

/// Refuses what only the writer may do.
pub(super) fn is_writer(turn: &Turn) -> Result<(), BumpRefused> {
    turn.writer.map_or(Ok(()), |writer| Err(BumpRefused::Writer(writer)))
}

pub(super) fn not_stored(error: &dyn std::fmt::Display) -> BumpRefused {
    tracing::error!(%error, "a bump was not stored");
    BumpRefused::Store
}

/// What a request comes to.
pub(super) fn plan_of(
    registry: &Registry,
    request: &BumpRequest,
    expect: Option<u64>,
) -> Result<BumpPlan, BumpRefused> {
    let found = registry.revision();
    match expect {
        Some(expected) if expected != found => Err(BumpRefused::Revision { found, expected }),
        _ => Ok(plan(registry, request, ROOT)?),
    }
}

/// How an answer is signed on a way, and whether a lower version may stand in.
fn algorithm_of(way: Way, crypto: Option<Crypto>) -> Result<(Algorithm, bool), BumpRefused> {
    match (way, crypto) {
        (Way::Rung(rung), Some(Crypto::Hmac)) if rung.number() > 1 => Err(BumpRefused::Algorithm),
        (Way::Rung(rung), _) if rung.number() > 1 => Ok((Algorithm::Ed25519, false)),
        (_, Some(Crypto::Ed25519)) => Ok((Algorithm::Ed25519, true)),
        _ => Ok((Algorithm::HmacSha256, true)),
    }
}
