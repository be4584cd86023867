//! Bumps: planned, signed, durable, then told. One path for HTTP, WebSocket and the command. Spec: gateway §8.3.

use std::sync::Arc;
use std::time::Instant;

use sealtide_crypto::GatewayContext;
use sealtide_gateway::{Bumped, Code, Notice, Way};
use sealtide_identity::keyring::{Algorithm, KeyVersion, Order, ProbationVerdict, SignError, Signed};
use sealtide_releases::{BumpAnswer, BumpError, BumpPlan, BumpRequest, Crypto, Registry, plan};
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
        let done = self.bump_by(request, Way::Rest, expect)?;
        if let Some(signed) = &done.signed {
            let answer = BumpAnswer {
                plan: &done.plan,
                signed: Some(signed),
                key_version: done.key_version,
                timestamp: done.timestamp,
                revision: done.revision,
            };
            self.notify(Notice::VersionChanged(answer.broadcast().into()));
        }
        Ok(done)
    }

    // Spec: GW-52, GW-65, GW-66
    pub(super) fn bump_by(&self, request: &BumpRequest, way: Way, expect: Option<u64>) -> Result<Bumped, BumpRefused> {
        let began = Instant::now();
        self.thread().active(now().mono_ms);
        let mut turn = self.turn();
        let done = self.bump_in(&mut turn, request, way, expect);
        drop(turn);
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

    pub(super) fn bump_in(
        &self,
        turn: &mut Turn,
        request: &BumpRequest,
        way: Way,
        expect: Option<u64>,
    ) -> Result<Bumped, BumpRefused> {
        let plan = self.plan_of(request, expect)?;
        let (algorithm, may_fall_back) = algorithm_of(way, request.crypto)?;
        let signed = self.sign(turn, &plan, request.key_version, algorithm, may_fall_back);
        if let Err(BumpRefused::Sign(SignError::Key(_))) = &signed {
            self.thread().end(false);
        }
        let signed = signed?;
        let (key_version, timestamp) = (signed.version, now().wall_ms);
        if request.dry_run {
            let revision = self.read().registry.revision();
            return Ok(Bumped { plan, signed: None, key_version, timestamp, revision });
        }
        self.commit_revision(turn, &plan.after, key_version, None)?;
        self.note_signed(&signed);
        let revision = plan.after.revision();
        Ok(Bumped { plan, signed: Some(signed), key_version, timestamp, revision })
    }

    /// Makes the next revision durable, with the name of the transaction that changed files together with it.
    pub(super) fn commit_revision(
        &self,
        turn: &mut Turn,
        after: &Registry,
        key_version: KeyVersion,
        transaction: Option<&str>,
    ) -> Result<(), BumpRefused> {
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
        self.thread().begin(now().mono_ms);
        let frame = frames.next(&turn.registry, data);
        self.thread().end(frame.is_ok());
        let frame = frame.map_err(|error| {
            tracing::error!(%error, "a bump was not stored");
            BumpRefused::Store
        })?;
        failpoint::hit("bump_committed");
        let signature = signature_of(&frame);
        turn.registry = frame;
        let mut state = self.write();
        state.signature = signature;
        state.registry = Arc::new(after.clone());
        state.last = Some(key_version);
        Ok(())
    }

    pub(super) fn plan_of(&self, request: &BumpRequest, expect: Option<u64>) -> Result<BumpPlan, BumpRefused> {
        let state = self.read();
        let found = state.registry.revision();
        match expect {
            Some(expected) if expected != found => Err(BumpRefused::Revision { found, expected }),
            _ => Ok(plan(&state.registry, request, ROOT)?),
        }
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
        let signed = self.read().ring.sign(bytes, context, algorithm, requested, may_fall_back, now().wall_ms)?;
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
        self.figures.signed(signed);
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

/// How an answer is signed on a way, and whether a lower version may stand in.
fn algorithm_of(way: Way, crypto: Option<Crypto>) -> Result<(Algorithm, bool), BumpRefused> {
    match (way, crypto) {
        (Way::Rung(rung), Some(Crypto::Hmac)) if rung.number() > 1 => Err(BumpRefused::Algorithm),
        (Way::Rung(rung), _) if rung.number() > 1 => Ok((Algorithm::Ed25519, false)),
        (_, Some(Crypto::Ed25519)) => Ok((Algorithm::Ed25519, true)),
        _ => Ok((Algorithm::HmacSha256, true)),
    }
}
