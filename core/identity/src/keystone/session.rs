//! Session keystones: what their frames are about, and who authorised them. Spec: ibgib §12.4.

use sealtide_crypto::{sha256, sha256_parts};
use sealtide_ibgib::{Address, Stamp};

use super::chain::Chain;
use super::claim::{Claim, Verb};
use super::class::Class;
use super::moment::{parse_moment, write_moment};
use super::text::is_hex;
use crate::NodeId;

/// Bytes of the session binding of a link. Spec: link C.4.5.
pub const SESSION_BINDING_BYTES: usize = 32;

/// Which side of a session proves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The session initiator.
    Initiator,
    /// The responder.
    Responder,
}

/// What a connect proof is bound to.
#[derive(Clone, Copy, Debug)]
pub struct ConnectFacts<'a> {
    /// The side of the prover.
    pub side: Side,
    /// The session binding; never zeros.
    pub binding: &'a [u8; SESSION_BINDING_BYTES],
    /// The node that proves.
    pub prover: &'a NodeId,
    /// The node that checks.
    pub verifier: &'a NodeId,
    /// The first frame of the prover's session keystone.
    pub prover_session: &'a Address,
    /// The first frame of the prover's device keystone.
    pub prover_device: &'a Address,
    /// The first frame of the verifier's device keystone.
    pub verifier_device: &'a Address,
    /// The challenge that the prover received.
    pub received: &'a [u8; 32],
    /// The challenge that the prover sent.
    pub sent: &'a [u8; 32],
}

impl ConnectFacts<'_> {
    /// The target of the connect claim, 64 lower-case hex digits; `None` without a session binding.
    pub fn target(&self) -> Option<String> {
        if self.binding.iter().all(|byte| *byte == 0) {
            return None;
        }
        let side = match self.side {
            Side::Initiator => 1,
            Side::Responder => 2,
        };
        let mut bytes = b"sealtide/connect/1\0".to_vec();
        bytes.push(side);
        for part in [self.binding, self.prover.as_bytes(), self.verifier.as_bytes()] {
            bytes.extend_from_slice(part);
        }
        for address in [self.prover_session, self.prover_device, self.verifier_device] {
            super::hybrid::lp(&mut bytes, address.as_str());
        }
        bytes.extend_from_slice(self.received);
        bytes.extend_from_slice(self.sent);
        Some(data_encoding::HEXLOWER.encode(&sha256(&bytes)))
    }

    /// The claim that proves the connection.
    pub fn claim(&self) -> Option<Claim> {
        Some(Claim::new(Verb::Connect, &self.target()?))
    }
}

/// The target of the claim that signs a sync message: `kind` is the message's type byte, `body` its deterministic CBOR
/// with `sig` null, `chain` the saga chain of the space on this connection.
pub fn context_target(kind: u8, chain: &[u8; 32], body: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&sha256_parts(&[b"sealtide/context/1\0", &[kind], chain, body]))
}

/// The scope of the device frame that authorises a session keystone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionScope {
    /// The first frame of the peer's device keystone.
    pub peer: Address,
    /// The session id, 32 random bytes of the holder.
    pub session: [u8; 32],
    /// When it ends; whole seconds.
    pub until: Stamp,
}

impl SessionScope {
    /// `peer=…;session=…;until=…`.
    pub fn scope(&self) -> String {
        let session = data_encoding::HEXLOWER.encode(&self.session);
        format!("peer={};session={session};until={}", self.peer, write_moment(self.until))
    }

    /// Reads a scope text; only the one spelling of [`SessionScope::scope`].
    pub fn parse(scope: &str) -> Option<Self> {
        let (peer, rest) = scope.strip_prefix("peer=")?.split_once(";session=")?;
        let (session, until) = rest.split_once(";until=")?;
        let bytes = data_encoding::HEXLOWER.decode(session.as_bytes()).ok().filter(|_| is_hex(session, 64))?;
        let scope_read =
            Self { peer: Address::parse(peer).ok()?, session: bytes.try_into().ok()?, until: parse_moment(until)? };
        (scope_read.scope() == scope).then_some(scope_read)
    }

    /// The claim of the device frame.
    pub fn claim(&self, session_first: &Address) -> Claim {
        Claim::new(Verb::Sync, session_first.as_str()).scoped(self.scope())
    }
}

/// Why a session keystone is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionRefused {
    /// The device keystone is not here, not of its class, or does not hold the key of the node.
    #[error("the device keystone is not that of the node")]
    Device,
    /// The device keystone, or the session's, is revoked.
    #[error("revoked")]
    Revoked,
    /// The device keystone, or the session's, is forked.
    #[error("identity_forked")]
    Forked,
    /// The session keystone is not here, or is none.
    #[error("no session keystone")]
    Session,
    /// No frame of the device authorises it for this peer.
    #[error("no frame of the device authorises the session for this peer")]
    NotAuthorised,
    /// Its time is over.
    #[error("the session's time is over, as the clock here says: do the clocks of both nodes agree?")]
    Expired,
}

/// Checks a session keystone for use with a node: S is whole and live, and the valid chain of the device keystone of
/// `prover` holds a frame that authorises it for `own_device` until after `now`. Gives the scope.
///
/// # Errors
/// [`SessionRefused`].
// Spec: SY-28
pub fn check_session(
    session: &Chain,
    device: &Chain,
    prover: &NodeId,
    own_device: &Address,
    now: Stamp,
) -> Result<SessionScope, SessionRefused> {
    for chain in [device, session] {
        match chain.state() {
            super::State::Revoked => return Err(SessionRefused::Revoked),
            super::State::Forked | super::State::ManagedTwice => return Err(SessionRefused::Forked),
            super::State::Empty | super::State::Live => {}
        }
    }
    let newest = device.newest().filter(|newest| newest.class() == Class::Device).ok_or(SessionRefused::Device)?;
    if NodeId::of(newest.key()) != *prover {
        return Err(SessionRefused::Device);
    }
    session.newest().filter(|newest| newest.class() == Class::Session).ok_or(SessionRefused::Session)?;
    let scopes = device.claims_on(session.first_address().as_str()).filter(|claim| claim.verb == Verb::Sync.word());
    let scopes = scopes.filter_map(|claim| SessionScope::parse(claim.scope.as_deref()?));
    let last = scopes.filter(|scope| scope.peer == *own_device).max_by_key(|scope| scope.until);
    let scope = last.ok_or(SessionRefused::NotAuthorised)?;
    if now < scope.until { Ok(scope) } else { Err(SessionRefused::Expired) }
}
