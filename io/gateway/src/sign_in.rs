//! Browsers that signed in: a cookie in place of a credential that a page cannot show. Spec: gateway §1.4 (b).
//!
//! The cookie is 32 random bytes; the table, and the store that keeps it over a restart, know its SHA-256. It is `HttpOnly` and `SameSite=Strict`, under TLS also
//! `Secure` with the prefix `__Host-`, so that no other host and no page without TLS can set it. On plain HTTP its name has
//! the port: cookies of one host are shared by all its ports.
//!
//! A sign-in is worth what its holder is worth now: one that is taken out of the file of bearers ends with it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use data_encoding::BASE64URL_NOPAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};
use sealtide_crypto::{Entropy, sha256};

use crate::peer::Peer;
use crate::principal::{Principal, Role, Unauthenticated};
use crate::settings::Door;

/// Browsers that are signed in, at most.
const SIGN_INS_MAX: usize = 4_096;
/// Browsers of one holder, at most; the oldest goes for a new one.
const OF_ONE_MAX: usize = 32;

/// Who signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Somebody in the file of bearers, by name.
    Named(String),
    /// Somebody at this machine who may use its commands: an admin.
    Local,
}

impl Holder {
    /// The name in bindings and in the audit.
    pub fn id(&self) -> &str {
        match self {
            Self::Named(name) => name,
            // No name of a bearer has a colon.
            Self::Local => "local:",
        }
    }

    /// The holder of a name.
    pub fn of_id(id: &str) -> Self {
        if id == Self::Local.id() { Self::Local } else { Self::Named(id.to_owned()) }
    }

    /// What the holder may do now; none when there is no such holder any more.
    pub fn role(&self, door: &Door) -> Option<Role> {
        match self {
            Self::Named(name) => door.role_of(name),
            Self::Local => Some(Role::Admin),
        }
    }
}

/// A sign-in as it is kept over a restart of the process: never the cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSignIn {
    /// SHA-256 of the cookie's value.
    pub digest: [u8; 32],
    /// Whose: [`Holder::id`].
    pub holder: String,
    /// When it ends, milliseconds since 1970.
    pub ends_wall_ms: u64,
}

/// The table of sign-ins.
#[derive(Default)]
pub struct SignIns(Mutex<HashMap<[u8; 32], SignIn>>);

struct SignIn {
    holder: Holder,
    ends_mono_ms: u64,
}

impl SignIns {
    /// Signs a holder in until `ends_mono_ms`; the value of the cookie is given out once. None when all places are taken.
    pub fn begin(&self, holder: Holder, ends_mono_ms: u64, mono_ms: u64, entropy: &mut dyn Entropy) -> Option<String> {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes);
        let value = BASE64URL_NOPAD.encode(&bytes);
        let mut table = self.lock();
        table.retain(|_, sign_in| mono_ms < sign_in.ends_mono_ms);
        let own = table.iter().filter(|(_, sign_in)| sign_in.holder == holder);
        let own: Vec<([u8; 32], u64)> = own.map(|(digest, sign_in)| (*digest, sign_in.ends_mono_ms)).collect();
        if own.len() >= OF_ONE_MAX {
            // All live equally long, so the one that ends first is the oldest.
            own.iter().min_by_key(|(_, ends)| *ends).and_then(|(digest, _)| table.remove(digest));
        }
        if table.len() >= SIGN_INS_MAX {
            return None;
        }
        table.insert(sha256(value.as_bytes()), SignIn { holder, ends_mono_ms });
        Some(value)
    }

    /// All of them, to be kept over a restart.
    pub fn kept(&self, mono_ms: u64, wall_ms: u64) -> Vec<KeptSignIn> {
        let table = self.lock();
        let left = table.iter().filter(|(_, sign_in)| mono_ms < sign_in.ends_mono_ms);
        let kept = left.map(|(digest, sign_in)| KeptSignIn {
            digest: *digest,
            holder: sign_in.holder.id().to_owned(),
            ends_wall_ms: wall_ms.saturating_add(sign_in.ends_mono_ms - mono_ms),
        });
        kept.collect()
    }

    /// Takes back those that were kept and are not over; none for longer than `life_ms` from now, whatever the clock did.
    pub fn restore(&self, kept: Vec<KeptSignIn>, mono_ms: u64, wall_ms: u64, life_ms: u64) {
        let mut table = self.lock();
        for KeptSignIn { digest, holder, ends_wall_ms } in kept.into_iter().take(SIGN_INS_MAX) {
            let left = ends_wall_ms.saturating_sub(wall_ms).min(life_ms);
            if left > 0 {
                table.insert(digest, SignIn { holder: Holder::of_id(&holder), ends_mono_ms: mono_ms + left });
            }
        }
    }

    /// Ends the sign-in of a cookie; whether there was one.
    pub fn end(&self, value: &str) -> bool {
        self.lock().remove(&sha256(value.as_bytes())).is_some()
    }

    fn find(&self, value: &str, mono_ms: u64) -> Option<(Holder, u64)> {
        let table = self.lock();
        let found = table.get(&sha256(value.as_bytes())).filter(|sign_in| mono_ms < sign_in.ends_mono_ms)?;
        Some((found.holder.clone(), found.ends_mono_ms))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], SignIn>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cookie of this door in a request: none, its value, or two, which is no credential at all.
///
/// # Errors
/// [`Unauthenticated`] for two.
pub fn cookie_value<'a>(door: &Door, headers: &'a HeaderMap) -> Result<Option<&'a str>, Unauthenticated> {
    let name = door.cookie_name();
    let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(own, _)| *own == name).map(|(_, value)| value);
    let first = values.next();
    if values.next().is_some() { Err(Unauthenticated) } else { Ok(first) }
}

/// The line that sets the cookie, or with no value takes it back.
pub(crate) fn set_cookie(door: &Door, value: Option<&str>, life_ms: u64) -> String {
    let secure = if door.scheme == "https" { "; Secure" } else { "" };
    let (value, age) = value.map_or(("", 0), |value| (value, life_ms / 1_000));
    format!("{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}", door.cookie_name())
}

/// Who sent a request, by credential first, then by cookie, then as anybody from here.
///
/// # Errors
/// [`Unauthenticated`] for a credential or a cookie that is unknown, over or doubled.
// Spec: GW-92
pub fn principal_of(
    door: &Door,
    peer: &Peer,
    headers: &HeaderMap,
    sign_ins: &SignIns,
    mono_ms: u64,
) -> Result<Principal, Unauthenticated> {
    let cookie = if headers.contains_key(AUTHORIZATION) { None } else { cookie_value(door, headers)? };
    let Some(value) = cookie else { return Principal::of(door, peer, headers) };
    let (holder, ends_mono_ms) = sign_ins.find(value, mono_ms).ok_or(Unauthenticated)?;
    let role = holder.role(door).ok_or(Unauthenticated)?;
    Ok(Principal { id: Some(holder.id().to_owned()), role, ends_mono_ms: Some(ends_mono_ms) })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use sealtide_crypto::SeededEntropy;

    use super::*;
    use crate::settings::Settings;

    fn door(public_host: Option<&str>) -> Door {
        let public_host = public_host.map(str::to_owned);
        Door::new(Settings { public_host, ..Settings::default() }, "127.0.0.1:7480".parse().unwrap()).unwrap()
    }

    // Proves: GW-92
    #[test]
    fn a_cookie_is_for_its_own_door_and_no_script() {
        let (plain, secure) = (door(None), door(Some("tide.example")));
        let line = set_cookie(&plain, Some("v"), 60_000);
        assert_eq!(line, "sealtide-7480=v; Path=/; HttpOnly; SameSite=Strict; Max-Age=60");
        let line = set_cookie(&secure, Some("v"), 60_000);
        assert_eq!(line, "__Host-sealtide=v; Path=/; HttpOnly; SameSite=Strict; Max-Age=60; Secure");
        assert!(set_cookie(&secure, None, 60_000).contains("Max-Age=0"));
        let headers = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(COOKIE, HeaderValue::from_static(line));
            }
            headers
        };
        let one = headers(&["a=b; sealtide-7480=v; __Host-sealtide=w"]);
        assert_eq!((cookie_value(&plain, &one), cookie_value(&secure, &one)), (Ok(Some("v")), Ok(Some("w"))));
        assert_eq!(cookie_value(&plain, &headers(&["sealtide-7481=v"])), Ok(None));
        for two in [&["sealtide-7480=v; sealtide-7480=v"][..], &["sealtide-7480=v", "sealtide-7480=w"]] {
            assert_eq!(cookie_value(&plain, &headers(two)), Err(Unauthenticated));
        }
    }

    #[test]
    fn sign_ins_outlive_a_restart_and_not_their_time() {
        let (before, mut entropy) = (SignIns::default(), SeededEntropy::new(2));
        let local = before.begin(Holder::Local, 1_000, 0, &mut entropy).unwrap();
        let named = before.begin(Holder::Named("eve".to_owned()), 5_000, 0, &mut entropy).unwrap();
        let kept = before.kept(400, 1_000_400);
        assert_eq!(kept.len(), 2);
        // The clock that never steps begins anew.
        let after = SignIns::default();
        after.restore(kept.clone(), 7, 1_000_900, 60_000);
        assert_eq!(after.find(&local, 7), Some((Holder::Local, 107)));
        assert_eq!(after.find(&named, 7), Some((Holder::Named("eve".to_owned()), 4_107)));
        let late = SignIns::default();
        late.restore(kept.clone(), 7, 1_002_000, 60_000);
        assert!(late.find(&local, 7).is_none() && late.find(&named, 7).is_some());
        // A clock that was set back prolongs nothing beyond a whole life.
        let early = SignIns::default();
        early.restore(kept, 7, 0, 300);
        assert_eq!(early.find(&named, 7).unwrap().1, 307);
        before.end(&local);
        assert_eq!(before.kept(400, 0).len(), 1);
    }

    #[test]
    fn sign_ins_are_bounded_for_each_holder_and_in_all() {
        let (table, mut entropy) = (SignIns::default(), SeededEntropy::new(1));
        let mut begin = |name: &str, ends, now| table.begin(Holder::Named(name.to_owned()), ends, now, &mut entropy);
        let first = begin("a", 1_000, 0).unwrap();
        for at in 1..OF_ONE_MAX as u64 {
            begin("a", 1_000 + at, at).unwrap();
        }
        assert!(table.find(&first, 500).is_some() && table.find(&first, 1_000).is_none(), "until its end");
        begin("a", 2_000, 500).unwrap();
        assert!(table.find(&first, 500).is_none(), "the oldest went");
        for holder in 0..SIGN_INS_MAX - OF_ONE_MAX {
            begin(&format!("h{holder}"), 10_000, 500).unwrap();
        }
        assert_eq!(begin("b", 10_000, 500), None);
        let late = begin("b", 30_000, 5_000).unwrap();
        assert!(table.end(&late) && !table.end(&late));
    }
}
