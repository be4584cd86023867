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
pub struct SignIns {
    table: Mutex<HashMap<[u8; 32], SignIn>>,
    /// Held while the table is written down, so that none of before is written over one of after.
    keeping: Mutex<()>,
}

struct SignIn {
    holder: Holder,
    ends_mono_ms: u64,
}

/// A sign-in that begins.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The value of the cookie, given out once.
    pub value: String,
    /// SHA-256 of it.
    pub digest: [u8; 32],
    /// The oldest one of its holder, which ended for it.
    pub gone: Option<[u8; 32]>,
}

impl SignIns {
    /// Signs a holder in until `ends_mono_ms`. None when all places are taken.
    pub fn begin(&self, holder: Holder, ends_mono_ms: u64, mono_ms: u64, entropy: &mut dyn Entropy) -> Option<Begun> {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes);
        let value = BASE64URL_NOPAD.encode(&bytes);
        let mut table = self.lock();
        table.retain(|_, sign_in| mono_ms < sign_in.ends_mono_ms);
        let own = table.iter().filter(|(_, sign_in)| sign_in.holder == holder);
        let own: Vec<([u8; 32], u64)> = own.map(|(digest, sign_in)| (*digest, sign_in.ends_mono_ms)).collect();
        // All live equally long, so the one that ends first is the oldest.
        let oldest = own.iter().min_by_key(|(_, ends)| *ends).filter(|_| own.len() >= OF_ONE_MAX);
        let gone = oldest.map(|(digest, _)| *digest);
        if table.len() >= SIGN_INS_MAX && gone.is_none() {
            return None;
        }
        gone.and_then(|gone| table.remove(&gone));
        let digest = sha256(value.as_bytes());
        table.insert(digest, SignIn { holder, ends_mono_ms });
        Some(Begun { value, digest, gone })
    }

    /// Has all of them written down, to be kept over a restart. Whoever asks for it takes turns: what is written last is the newest.
    pub fn keep(&self, mono_ms: u64, wall_ms: u64, write: impl FnOnce(&[KeptSignIn])) {
        let _turn = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        write(&self.kept(mono_ms, wall_ms));
    }

    fn kept(&self, mono_ms: u64, wall_ms: u64) -> Vec<KeptSignIn> {
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

    /// Ends the sign-in of a cookie; its SHA-256 when there was one.
    pub fn end(&self, value: &str) -> Option<[u8; 32]> {
        let digest = sha256(value.as_bytes());
        self.lock().remove(&digest).map(|_| digest)
    }

    /// Whether the sign-in that somebody showed is not over; true for who showed none.
    pub fn stands(&self, principal: &Principal, mono_ms: u64) -> bool {
        let Some(digest) = principal.sign_in else { return true };
        self.lock().get(&digest).is_some_and(|sign_in| mono_ms < sign_in.ends_mono_ms)
    }

    fn find(&self, digest: &[u8; 32], mono_ms: u64) -> Option<(Holder, u64)> {
        let table = self.lock();
        let found = table.get(digest).filter(|sign_in| mono_ms < sign_in.ends_mono_ms)?;
        Some((found.holder.clone(), found.ends_mono_ms))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], SignIn>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
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
    let digest = sha256(value.as_bytes());
    let (holder, ends_mono_ms) = sign_ins.find(&digest, mono_ms).ok_or(Unauthenticated)?;
    let role = holder.role(door).ok_or(Unauthenticated)?;
    let id = Some(holder.id().to_owned());
    Ok(Principal { id, role, ends_mono_ms: Some(ends_mono_ms), sign_in: Some(digest) })
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
        let Begun { value, digest: local, .. } = before.begin(Holder::Local, 1_000, 0, &mut entropy).unwrap();
        let named = before.begin(Holder::Named("eve".to_owned()), 5_000, 0, &mut entropy).unwrap().digest;
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
        assert_eq!((before.end(&value), before.end(&value)), (Some(local), None));
        assert_eq!(before.kept(400, 0).len(), 1);
    }

    #[test]
    fn what_is_written_down_last_is_the_newest() {
        let (table, mut entropy) = (SignIns::default(), SeededEntropy::new(3));
        let value = table.begin(Holder::Local, 1_000, 0, &mut entropy).unwrap().value;
        let (disk, (done, is_done)) = (Mutex::new(Vec::new()), std::sync::mpsc::channel());
        let write = |all: &[KeptSignIn]| *disk.lock().unwrap() = all.to_vec();
        std::thread::scope(|scope| {
            table.keep(0, 0, |before| {
                let (table, value) = (&table, &value);
                scope.spawn(move || {
                    table.end(value).unwrap();
                    table.keep(0, 0, write);
                    let _ = done.send(());
                });
                // Where nobody waits for a turn, the other one has written by then.
                let _ = is_done.recv_timeout(std::time::Duration::from_millis(200));
                write(before);
            });
        });
        assert_eq!(*disk.lock().unwrap(), [], "who signed out does not come back");
    }

    #[test]
    fn sign_ins_are_bounded_for_each_holder_and_in_all() {
        let (table, mut entropy) = (SignIns::default(), SeededEntropy::new(1));
        let mut begin = |name: &str, ends, now| table.begin(Holder::Named(name.to_owned()), ends, now, &mut entropy);
        let first = begin("a", 1_000, 0).unwrap().digest;
        for at in 1..OF_ONE_MAX as u64 {
            begin("a", 1_000 + at, at).unwrap();
        }
        assert!(table.find(&first, 500).is_some() && table.find(&first, 1_000).is_none(), "until its end");
        assert_eq!(begin("a", 2_000, 500).unwrap().gone, Some(first));
        assert!(table.find(&first, 500).is_none(), "the oldest went");
        for holder in 0..SIGN_INS_MAX - OF_ONE_MAX {
            begin(&format!("h{holder}"), 10_000, 500).unwrap();
        }
        assert!(begin("b", 10_000, 500).is_none());
        assert!(begin("b", 30_000, 5_000).is_some());
    }
}
