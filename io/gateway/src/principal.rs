//! Who asks, and what they may do. Spec: gateway §1.4.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sealtide_crypto::{ct_eq, sha256};

use crate::peer::Peer;
use crate::settings::{Auth, Door};

/// What a caller may do; each role may do what the ones before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Nothing but health, keys and, where the operator says so, reading.
    Public,
    /// Read.
    Reader,
    /// Bump.
    Bumper,
    /// Change keys.
    Admin,
}

impl Role {
    /// Its word, in files and answers.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Reader => "reader",
            Self::Bumper => "bumper",
            Self::Admin => "admin",
        }
    }
}

/// A bearer token as it is kept: never itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// SHA-256 of the token.
    pub digest: [u8; 32],
    /// Who has it.
    pub id: String,
    /// What they may do.
    pub role: Role,
}

/// Somebody who signs in with a passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassphraseHolder {
    /// Who.
    pub id: String,
    /// What they may do.
    pub role: Role,
    /// Knows the passphrase when it comes.
    pub verifier: crate::passphrase::Verifier,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The name of a credential's holder; none for callers without one.
    pub id: Option<String>,
    /// What they may do.
    pub role: Role,
    /// When what they showed ends, on the clock that never steps; none for what has no end.
    pub ends_mono_ms: Option<u64>,
    /// The sign-in that they showed, SHA-256 of its cookie; none for what is no cookie.
    pub sign_in: Option<[u8; 32]>,
}

/// A credential that is unknown: it is refused, never taken for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unauthenticated;

impl Principal {
    /// Who sent a request.
    ///
    /// # Errors
    /// [`Unauthenticated`] for a credential that is unknown, malformed or doubled.
    // Spec: GW-92, GW-93
    pub fn of(door: &Door, peer: &Peer, headers: &HeaderMap) -> Result<Self, Unauthenticated> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            let is_listener = door.auth == Auth::None && !peer.is_public;
            return Ok(Self::nobody(if is_listener { Role::Bumper } else { Role::Public }));
        };
        let text = value.to_str().ok().filter(|_| values.next().is_none()).ok_or(Unauthenticated)?;
        let (scheme, token) = text.split_once(' ').ok_or(Unauthenticated)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Unauthenticated);
        }
        let digest = sha256(token.trim().as_bytes());
        let mut bearers = door.settings.bearers.iter();
        let found = bearers.find(|bearer| ct_eq(&bearer.digest, &digest)).ok_or(Unauthenticated)?;
        Ok(Self { id: Some(found.id.clone()), role: found.role, ends_mono_ms: None, sign_in: None })
    }

    /// A caller without a credential.
    pub fn nobody(role: Role) -> Self {
        Self { id: None, role, ends_mono_ms: None, sign_in: None }
    }

    /// Whether it may do what needs `role`; reading is for everybody where the operator says so.
    pub fn may(&self, door: &Door, role: Role) -> bool {
        self.role >= role || role == Role::Reader && door.settings.public_read
    }
}
