//! One-time upgrade tokens, and the places of sessions: what is taken in one step. Spec: gateway §4, §3 step 13.
//!
//! Memory only, no key: a restart voids every token. One lock holds both tables, so that test and removal, and the
//! place that is taken with them, are one operation.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use data_encoding::BASE64URL_NOPAD;
use sealtide_crypto::{Entropy, ct_eq, sha256, sha256_parts};

use crate::peer::Peer;
use crate::principal::Principal;
use crate::sign_in::SignIns;

/// Characters of a token.
const TOKEN_CHARS: usize = 43;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A WebSocket upgrade or a change over HTTP, as clients of the seed expect.
    General,
    /// A WebSocket upgrade.
    Ws,
    /// A change over HTTP.
    Http,
    /// A change of keys.
    Admin,
}

impl Purpose {
    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::General => "general",
            Self::Ws => "ws",
            Self::Http => "http",
            Self::Admin => "admin",
        }
    }

    /// The purpose of a word.
    pub fn named(name: &str) -> Option<Self> {
        [Self::General, Self::Ws, Self::Http, Self::Admin].into_iter().find(|purpose| purpose.name() == name)
    }

    /// Whether a token for this serves where `wanted` is needed.
    fn serves(self, wanted: Self) -> bool {
        self == wanted || self == Self::General && matches!(wanted, Self::Ws | Self::Http)
    }
}

/// What a token is bound to: the same at issue and at use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    holder: Option<String>,
    source: [u8; 9],
    origin: String,
    host: String,
}

/// The digests of a binding: with the holder of a credential, and with the source of the request.
#[derive(Clone, Copy)]
struct Bound {
    holder: Option<[u8; 16]>,
    source: [u8; 16],
}

impl Binding {
    /// Of a request: its principal or, without one, its source; the origin it has or would have; the matched host.
    // Spec: GW-9
    pub fn new(principal: &Principal, peer: &Peer, origin: &str, host: &str) -> Self {
        let holder = principal.id.clone();
        Self { holder, source: peer.source(), origin: origin.to_owned(), host: host.to_owned() }
    }

    fn bound(&self, purpose: Purpose) -> Bound {
        let source = self.digest(&[b"a:", self.source.as_slice()].concat(), purpose);
        let holder = self.holder.as_ref().map(|id| self.digest(&[b"p:", id.as_bytes()].concat(), purpose));
        Bound { holder, source }
    }

    fn digest(&self, who: &[u8], purpose: Purpose) -> [u8; 16] {
        work::count(work::Step::Bound);
        let length = |bytes: &[u8]| (bytes.len() as u64).to_be_bytes();
        let (origin, host) = (self.origin.as_bytes(), self.host.as_bytes());
        let parts: [&[u8]; 7] = [&length(who), who, &length(origin), origin, &length(host), host, &[purpose as u8]];
        sha256_parts(&parts)[..16].try_into().expect("half of 32 bytes")
    }
}

impl Bound {
    /// Whether a request with `other` may use what was issued to this one. A page shows its credential when it fetches
    /// the token and cannot show it on the upgrade; then it must come from the same source.
    fn admits(&self, other: &Self) -> bool {
        work::count(work::Step::Compared);
        match other.holder {
            Some(holder) => ct_eq(&self.holder.unwrap_or_default(), &holder),
            None => ct_eq(&self.source, &other.source),
        }
    }
}

/// The SHA-256 of a token: what the table and the audit know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Of a token of the right form: 43 characters of base64url without padding, canonical.
    // Spec: GW-91
    pub fn of(token: &str) -> Option<Self> {
        let fits =
            token.len() == TOKEN_CHARS && BASE64URL_NOPAD.decode(token.as_bytes()).is_ok_and(|it| it.len() == 32);
        fits.then(|| Self::hash(token))
    }

    fn hash(text: &str) -> Self {
        work::count(work::Step::Hashed);
        Self(sha256(text.as_bytes()))
    }

    /// The first 8 hex digits, for the audit.
    pub fn nonce_hash(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0[..4])
    }
}

/// Why a token is refused; only the audit learns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefusal {
    /// None was sent.
    Missing,
    /// Two were sent.
    Carrier,
    /// Not of the form of a token.
    Malformed,
    /// Used before, or never issued.
    Unknown,
    /// Past its time.
    Expired,
    /// Meant for something else.
    Purpose,
    /// Issued to somebody else, to another page, or under another name.
    Binding,
    /// Taken by another request a moment ago.
    Replayed,
}

/// There is no place for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Tokens that wait to be used, and sessions that are open.
pub struct Admission {
    /// Browsers that signed in.
    pub sign_ins: SignIns,
    limits: AdmissionLimits,
    tables: Mutex<Tables>,
}

/// How many of each.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionLimits {
    /// Life of a token in milliseconds.
    pub token_ttl_ms: u64,
    /// Tokens in all.
    pub tokens: usize,
    /// Tokens of one source.
    pub tokens_per_source: usize,
    /// Sessions in all.
    pub sessions: usize,
    /// Sessions of one source.
    pub sessions_per_source: usize,
}

#[derive(Default)]
struct Tables {
    tokens: HashMap<TokenDigest, Entry>,
    /// In order of issue, which is the order of expiry: every token lives equally long.
    expiries: VecDeque<(u64, TokenDigest)>,
    tokens_of: HashMap<[u8; 9], usize>,
    sessions: usize,
    sessions_of: HashMap<[u8; 9], usize>,
}

#[derive(Clone)]
struct Entry {
    expires_mono_ms: u64,
    purpose: Purpose,
    binding: Bound,
    principal: Principal,
    source: [u8; 9],
}

impl Admission {
    /// Empty tables.
    pub fn new(limits: AdmissionLimits) -> Self {
        Self { sign_ins: SignIns::default(), limits, tables: Mutex::default() }
    }

    /// Issues a token. Tokens that are there are never thrown out for it.
    ///
    /// # Errors
    /// [`Full`].
    // Spec: GW-12
    pub fn issue(
        &self,
        purpose: Purpose,
        binding: &Binding,
        principal: &Principal,
        source: [u8; 9],
        mono_ms: u64,
        entropy: &mut dyn Entropy,
    ) -> Result<String, Full> {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes);
        let token = BASE64URL_NOPAD.encode(&bytes);
        let digest = TokenDigest::of(&token).ok_or(Full)?;
        let mut tables = self.lock();
        tables.sweep(mono_ms);
        let own = tables.tokens_of.get(&source).copied().unwrap_or(0);
        if tables.tokens.len() >= self.limits.tokens || own >= self.limits.tokens_per_source {
            return Err(Full);
        }
        let expires_mono_ms = mono_ms + self.limits.token_ttl_ms;
        let entry =
            Entry { expires_mono_ms, purpose, binding: binding.bound(purpose), principal: principal.clone(), source };
        tables.tokens.insert(digest, entry);
        tables.expiries.push_back((expires_mono_ms, digest));
        *tables.tokens_of.entry(source).or_default() += 1;
        Ok(token)
    }

    /// Looks whether a token would be taken; it stays. The time does not tell an unknown token from a bound one.
    ///
    /// # Errors
    /// [`TokenRefusal`].
    // Spec: GW-8, GW-23
    pub fn check(
        &self,
        digest: &TokenDigest,
        wanted: Purpose,
        binding: &Binding,
        mono_ms: u64,
    ) -> Result<Principal, TokenRefusal> {
        work::count(work::Step::Asked);
        let found = self.lock().tokens.get(digest).map(|entry| (entry.expires_mono_ms, entry.purpose, entry.binding));
        // A token that is unknown is compared too: with one that nobody has.
        let (expires_mono_ms, purpose, told) = found.unwrap_or((0, wanted, Bound { holder: None, source: [0; 16] }));
        let is_bound = told.admits(&binding.bound(purpose));
        if found.is_none() {
            return Err(TokenRefusal::Unknown);
        }
        if mono_ms >= expires_mono_ms {
            return Err(TokenRefusal::Expired);
        }
        if !purpose.serves(wanted) {
            return Err(TokenRefusal::Purpose);
        }
        if !is_bound {
            return Err(TokenRefusal::Binding);
        }
        // Taken by somebody else in between, or its sign-in is over: it is known no more.
        let principal = self.lock().tokens.get(digest).map(|entry| entry.principal.clone());
        principal.filter(|principal| self.sign_ins.stands(principal, mono_ms)).ok_or(TokenRefusal::Unknown)
    }

    /// As [`Admission::check`], for what a head carries. Whatever is wrong with it, the same is done: one hash, one question to
    /// the table, one comparison.
    ///
    /// # Errors
    /// [`TokenRefusal`].
    // Spec: GW-23
    pub fn check_carried(
        &self,
        carried: Result<&str, TokenRefusal>,
        wanted: Purpose,
        binding: &Binding,
        mono_ms: u64,
    ) -> Result<(TokenDigest, Principal), TokenRefusal> {
        let text = carried.unwrap_or_default();
        let digest = TokenDigest::of(text);
        // The hash of what is no token stands in no table.
        let asked = digest.unwrap_or_else(|| TokenDigest::hash(text));
        let checked = self.check(&asked, wanted, binding, mono_ms);
        carried?;
        Ok((digest.ok_or(TokenRefusal::Malformed)?, checked?))
    }

    /// Takes a token that was just checked: true for exactly one of all who try.
    pub fn take(&self, digest: &TokenDigest) -> bool {
        self.lock().remove(digest)
    }

    /// Forgets the tokens that were fetched with a sign-in.
    pub fn forget(&self, sign_in: &[u8; 32]) {
        let mut tables = self.lock();
        let own = tables.tokens.iter().filter(|(_, entry)| entry.principal.sign_in.as_ref() == Some(sign_in));
        for digest in own.map(|(digest, _)| *digest).collect::<Vec<_>>() {
            tables.remove(&digest);
        }
    }

    /// Whether a source could have one more session now.
    ///
    /// # Errors
    /// [`Full`].
    pub fn room(&self, source: [u8; 9]) -> Result<(), Full> {
        if self.lock().has_room(&self.limits, source) { Ok(()) } else { Err(Full) }
    }

    /// Takes a place and the token in one step. Without a token (echo) only the place.
    ///
    /// # Errors
    /// [`AdmitRefusal`]; then nothing was taken.
    // Spec: GW-7
    pub fn admit(&self, token: Option<&TokenDigest>, source: [u8; 9]) -> Result<(), AdmitRefusal> {
        let mut tables = self.lock();
        if !tables.has_room(&self.limits, source) {
            return Err(AdmitRefusal::Full);
        }
        if token.is_some_and(|token| !tables.remove(token)) {
            return Err(AdmitRefusal::Replayed);
        }
        tables.sessions += 1;
        *tables.sessions_of.entry(source).or_default() += 1;
        Ok(())
    }

    /// Gives a place back.
    pub fn leave(&self, source: [u8; 9]) {
        let mut tables = self.lock();
        tables.sessions = tables.sessions.saturating_sub(1);
        lower(&mut tables.sessions_of, source);
    }

    /// Forgets tokens whose time is over.
    pub fn sweep(&self, mono_ms: u64) {
        self.lock().sweep(mono_ms);
    }

    /// Tokens that wait to be used, and open sessions.
    pub fn counts(&self) -> (usize, usize) {
        let tables = self.lock();
        (tables.tokens.len(), tables.sessions)
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why nobody was let in at the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmitRefusal {
    /// The last place went to somebody else.
    Full,
    /// The token did.
    Replayed,
}

impl Tables {
    fn remove(&mut self, digest: &TokenDigest) -> bool {
        let Some(entry) = self.tokens.remove(digest) else { return false };
        lower(&mut self.tokens_of, entry.source);
        true
    }

    fn sweep(&mut self, mono_ms: u64) {
        while let Some((_, digest)) = self.expiries.pop_front_if(|(expires, _)| *expires <= mono_ms) {
            self.remove(&digest);
        }
        // Used tokens leave their place in the queue behind; it must not outgrow the table for long.
        if self.expiries.len() > 2 * self.tokens.len() + 1_024 {
            let tokens = std::mem::take(&mut self.tokens);
            self.expiries.retain(|(_, digest)| tokens.contains_key(digest));
            self.tokens = tokens;
        }
    }

    fn has_room(&self, limits: &AdmissionLimits, source: [u8; 9]) -> bool {
        let own = self.sessions_of.get(&source).copied().unwrap_or(0);
        self.sessions < limits.sessions && own < limits.sessions_per_source
    }
}

fn lower(counts: &mut HashMap<[u8; 9], usize>, source: [u8; 9]) {
    if let Some(count) = counts.get_mut(&source) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&source);
        }
    }
}

/// What a look at a token costs, counted where it is tested that every refusal costs the same.
mod work {
    /// One piece of work.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub(super) enum Step {
        /// The hash of what was carried.
        Hashed,
        /// A question to the table.
        Asked,
        /// A digest of what the request is bound to.
        Bound,
        /// Two digests, in constant time.
        Compared,
    }

    #[cfg(not(test))]
    #[inline]
    pub(super) fn count(_step: Step) {}

    #[cfg(test)]
    pub(super) use counted::{count, take};

    #[cfg(test)]
    mod counted {
        use std::cell::RefCell;

        use super::Step;

        thread_local!(static DONE: RefCell<Vec<Step>> = const { RefCell::new(Vec::new()) });

        pub(in super::super) fn count(step: Step) {
            DONE.with_borrow_mut(|done| done.push(step));
        }

        /// What was done in this thread since the last time, in its order.
        pub(in super::super) fn take() -> Vec<Step> {
            DONE.take()
        }
    }
}

#[cfg(test)]
mod tests {
    use sealtide_crypto::SeededEntropy;

    use super::work::Step;
    use super::*;
    use crate::principal::Role;

    /// What a request carries, and what becomes of it.
    type Case<'a> = (Result<&'a str, TokenRefusal>, Result<(), TokenRefusal>);

    fn admission() -> Admission {
        let most = 1_000;
        Admission::new(AdmissionLimits {
            token_ttl_ms: 1_000,
            tokens: most,
            tokens_per_source: most,
            sessions: most,
            sessions_per_source: most,
        })
    }

    fn binding(holder: Option<&str>, host: &str) -> Binding {
        let origin = format!("http://{host}");
        Binding { holder: holder.map(str::to_owned), source: [1; 9], origin, host: host.to_owned() }
    }

    /// The steps of a refusal are those of every other one, and of a token that is taken: nothing but what was asked for decides
    /// how much is done.
    // Proves: GW-23
    #[test]
    fn every_refusal_of_a_token_is_the_same_work() {
        for holder in [None, Some("somebody")] {
            let (admission, mut entropy) = (admission(), SeededEntropy::new(1));
            let principal = Principal { id: holder.map(str::to_owned), ..Principal::nobody(Role::Reader) };
            let own = binding(holder, "localhost");
            let mut issue = |purpose, at: &Binding, mono_ms| {
                admission.issue(purpose, at, &principal, [1; 9], mono_ms, &mut entropy).unwrap()
            };
            let good = issue(Purpose::Ws, &own, 5_000);
            let late = issue(Purpose::Ws, &own, 3_000);
            let http = issue(Purpose::Http, &own, 5_000);
            let elsewhere = issue(Purpose::Ws, &binding(holder, "example.org"), 5_000);
            let used = issue(Purpose::Ws, &own, 5_000);
            assert!(admission.take(&TokenDigest::of(&used).unwrap()));
            let never = "A".repeat(43);
            let long = "x".repeat(43);
            let cases: [Case<'_>; 10] = [
                (Ok(&good), Ok(())),
                (Err(TokenRefusal::Missing), Err(TokenRefusal::Missing)),
                (Err(TokenRefusal::Carrier), Err(TokenRefusal::Carrier)),
                (Ok("short"), Err(TokenRefusal::Malformed)),
                (Ok(&long), Err(TokenRefusal::Malformed)),
                (Ok(&never), Err(TokenRefusal::Unknown)),
                (Ok(&used), Err(TokenRefusal::Unknown)),
                (Ok(&late), Err(TokenRefusal::Expired)),
                (Ok(&http), Err(TokenRefusal::Purpose)),
                (Ok(&elsewhere), Err(TokenRefusal::Binding)),
            ];
            let bound = if holder.is_some() { vec![Step::Bound, Step::Bound] } else { vec![Step::Bound] };
            let wanted = [&[Step::Hashed, Step::Asked][..], &bound, &[Step::Compared]].concat();
            for (carried, outcome) in cases {
                work::take();
                let told = admission.check_carried(carried, Purpose::Ws, &own, 5_500).map(drop);
                assert_eq!((told, work::take()), (outcome, wanted.clone()), "{carried:?}");
            }
        }
    }
}
