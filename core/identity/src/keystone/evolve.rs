//! Next frames: sign, manage, revoke. Spec: ibgib §12.3, §12.4.
//!
//! Nothing is revealed here: the caller gets a frame, writes it and the fact that it was signed durably, and only then
//! shows it to anybody (SY-25).

use sealtide_crypto::{Entropy, SigningKey, ct_eq};
use sealtide_ibgib::{Address, Stamp};

use super::chain::{Chain, State};
use super::claim::{Claim, Verb};
use super::class::{Class, OwnerProfiles, POOL_MANAGE, POOL_REVOKE};
use super::digest::{bound_ids, session_ids};
use super::draft::{Draft, MakeError, ProofText};
use super::genesis::{OwnerMasters, draw_ids, new_pool, owner_pools};
use super::hybrid::Block;
use super::pool::{BindingMap, ChallengeId, Pool, new_challenges, pool_text, solutions};
use super::rules::{Broken, Rule};
use super::secrets::{MasterSecret, RootSecret, SessionSecret, WorkingSecret};
use super::step::{Rank, Standing};

/// Why a frame is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// No first frame is known, or the frame to extend is not.
    #[error("the keystone's frames are not here")]
    Unknown,
    /// The keystone is revoked.
    #[error("the keystone is revoked")]
    Revoked,
    /// The keystone is forked: only `manage` or `revoke` decide (two managing frames: only `revoke`).
    #[error("the keystone is forked")]
    Forked,
    /// A class or a pool that does not do this.
    #[error("this keystone does not prove {0}")]
    Verb(String),
    /// The target is no address (nor, in a session, 64 hex digits).
    #[error("a target that cannot be claimed")]
    Target,
    /// The key is not the one in force.
    #[error("the key is not the one in force")]
    WrongKey,
    /// The secret does not solve the challenges of this keystone.
    #[error("the secret is not that of this keystone")]
    WrongSecret,
    /// The frame cannot be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// The frame would break rules.
    #[error("the frame would break a rule")]
    Broken(Vec<Broken>),
}

/// The secret that an ordinary frame is signed with.
#[derive(Clone, Copy, Debug)]
pub enum Signer<'a> {
    /// Of an owner or a device keystone.
    Working(&'a WorkingSecret),
    /// Of a session keystone.
    Session(&'a SessionSecret),
}

/// What a managing frame puts in place: all pools are replaced, and the key when it is another one.
#[derive(Clone, Copy)]
pub struct Manage<'a> {
    /// From the words.
    pub root: &'a RootSecret,
    /// The working secret from now on.
    pub working: &'a WorkingSecret,
    /// The key from now on; the one in force stays when it is the same.
    pub key: &'a SigningKey,
    /// The pools' profiles from now on.
    pub profiles: OwnerProfiles,
    /// The frame to extend; `None`: the newest, or where a fork begins.
    pub from: Option<&'a Address>,
}

/// Signs a claim with the next ordinary frame. Sessions: any verb, target 64 hex digits or an address.
///
/// The same chain gives a frame each time; the caller lets only one of them leave the machine (`already_signed`).
///
/// # Errors
/// [`SignError`].
pub fn sign(
    chain: &Chain,
    signer: Signer<'_>,
    key: &SigningKey,
    claim: &Claim,
    stamp: Stamp,
    entropy: &mut dyn Entropy,
) -> Result<Standing, SignError> {
    let previous = match chain.state() {
        State::Empty => return Err(SignError::Unknown),
        State::Revoked => return Err(SignError::Revoked),
        State::Forked | State::ManagedTwice => return Err(SignError::Forked),
        State::Live => chain.newest().ok_or(SignError::Unknown)?,
    };
    let session = previous.class() == Class::Session;
    let fits = claim.target_address().is_some() || (session && claim.target_is_digest());
    if !fits {
        return Err(SignError::Target);
    }
    if key.public() != previous.key() {
        return Err(SignError::WrongKey);
    }
    let pool = &previous.frame().pools[0];
    if claim.verb.is_empty() || !pool.config.allows(&claim.verb) {
        return Err(SignError::Verb(claim.verb.clone()));
    }
    let master = match (signer, session) {
        (Signer::Working(working), false) => working.master(previous.uuid()),
        (Signer::Session(secret), true) => secret.master(),
        _ => return Err(SignError::WrongSecret),
    };
    let step = Step { chain, previous, claim, stamp };
    let mut used = step.used();
    let (solved, next_pool) = if session {
        let ids = session_ids(pool, &claim.target);
        let next = topped_up(previous, pool, &ids, &master, &mut used, entropy);
        (Some(ids), next)
    } else {
        (None, new_pool(&pool.config, &master, &mut used, entropy))
    };
    let mut pools = step.same_pools();
    pools[0] = next_pool;
    let draft = step.draft(pools, Some(Block::unsigned_for(key.public(), false)), None);
    step.finish(&draft, pool, solved, &master, key)
}

/// Replaces all pools of an owner keystone, and its key when `manage.key` is a new one. Recovers after a theft or
/// after everything but the words was lost.
///
/// # Errors
/// [`SignError`].
// Spec: SY-82
pub fn manage(
    chain: &Chain,
    manage: &Manage<'_>,
    stamp: Stamp,
    entropy: &mut dyn Entropy,
) -> Result<Standing, SignError> {
    managed(chain, manage, None, stamp, entropy)
}

/// As [`manage`], and the frame lets a record of a key ledger count that the pair before did not sign. Only the words can say
/// that: what a stolen device holds is not enough.
///
/// # Errors
/// [`SignError`].
// Spec: GW-106
pub fn manage_keyring(
    chain: &Chain,
    manage: &Manage<'_>,
    record: &[u8; 32],
    stamp: Stamp,
    entropy: &mut dyn Entropy,
) -> Result<Standing, SignError> {
    managed(chain, manage, Some(data_encoding::HEXLOWER.encode(record)), stamp, entropy)
}

fn managed(
    chain: &Chain,
    manage: &Manage<'_>,
    keyring: Option<String>,
    stamp: Stamp,
    entropy: &mut dyn Entropy,
) -> Result<Standing, SignError> {
    let previous = extended(chain, manage.from, Rank::Manage)?;
    let claim = Claim::new(Verb::Manage, previous.frame().address().as_str());
    let step = Step { chain, previous, claim: &claim, stamp };
    let pool = step.pool(POOL_MANAGE)?;
    let uuid = previous.uuid();
    let masters = OwnerMasters { root: manage.root.master(uuid), working: manage.working.master(uuid) };
    let pools = owner_pools(&masters, manage.profiles, &mut step.used(), entropy);
    let names_key = manage.key.public() != previous.key();
    let block = Some(Block::unsigned_for(manage.key.public(), names_key));
    let draft = Draft { keyring, ..step.draft(pools, block, None) };
    step.finish(&draft, pool, None, &masters.root, manage.key)
}

/// Ends an owner keystone. Needs the words only, no key.
///
/// # Errors
/// [`SignError`].
// Spec: SY-82
pub fn revoke(
    chain: &Chain,
    root: &RootSecret,
    reason: &str,
    from: Option<&Address>,
    stamp: Stamp,
) -> Result<Standing, SignError> {
    let previous = extended(chain, from, Rank::Revoke)?;
    let claim = Claim::new(Verb::Revoke, previous.frame().address().as_str());
    let step = Step { chain, previous, claim: &claim, stamp };
    let pool = step.pool(POOL_REVOKE)?;
    let draft = step.draft(step.emptied_pools(), None, Some(reason));
    let master = root.master(previous.uuid());
    let proof = step.proof(&draft, pool, None, &master);
    let frame = draft.finish_unsigned(&proof)?;
    step.checked(frame)
}

/// Derives one solution of pool `manage` again and compares its hash, revealing nothing: whether the words are those
/// of this keystone.
///
/// # Errors
/// [`SignError::WrongSecret`] when they are not; [`SignError::Verb`] for a keystone without that pool.
// Spec: SY-31
pub fn drill(chain: &Chain, root: &RootSecret) -> Result<(), SignError> {
    let newest = chain.newest().ok_or(SignError::Unknown)?;
    let frame = newest.frame();
    let pool = frame.pool(POOL_MANAGE).ok_or_else(|| SignError::Verb(Verb::Manage.word().to_owned()))?;
    let first = pool.challenges.first().ok_or(SignError::Revoked)?;
    let made = new_challenges(&pool.config, root.master(newest.uuid()).expose(), &[first.id]);
    let published = frame.text()[first.hash.clone()].as_bytes();
    if ct_eq(made[0].1.as_bytes(), published) { Ok(()) } else { Err(SignError::WrongSecret) }
}

/// The frame that a managing or revoking frame extends.
fn extended<'a>(chain: &'a Chain, from: Option<&Address>, rank: Rank) -> Result<&'a Standing, SignError> {
    match (chain.state(), rank) {
        (State::Empty, _) => return Err(SignError::Unknown),
        (State::Revoked, _) => return Err(SignError::Revoked),
        (State::ManagedTwice, Rank::Manage) => return Err(SignError::Forked),
        _ => {}
    }
    match from {
        Some(address) => chain.standing(address),
        None => chain.newest(),
    }
    .ok_or(SignError::Unknown)
}

struct Step<'a> {
    chain: &'a Chain,
    previous: &'a Standing,
    claim: &'a Claim,
    stamp: Stamp,
}

impl<'a> Step<'a> {
    fn pool(&self, id: &str) -> Result<&'a Pool, SignError> {
        self.previous.frame().pool(id).ok_or_else(|| SignError::Verb(self.claim.verb.clone()))
    }

    /// Whether an id was ever used in this keystone, on whatever branch.
    fn used(&self) -> impl FnMut(ChallengeId) -> bool + use<'a> {
        let chain = self.chain;
        move |id| chain.knows_id(id)
    }

    fn same_pools(&self) -> Vec<String> {
        let frame = self.previous.frame();
        frame.pools.iter().map(|pool| frame.pool_text(pool).to_owned()).collect()
    }

    fn emptied_pools(&self) -> Vec<String> {
        let frame = self.previous.frame();
        let emptied = |pool: &Pool| {
            let mut map = BindingMap::read(frame.text(), pool.map.clone()).unwrap_or_default();
            map.keep(|_| false);
            pool_text(&pool.config, &[], &map)
        };
        frame.pools.iter().map(emptied).collect()
    }

    fn draft<'d>(&'d self, pools: Vec<String>, block: Option<Block>, reason: Option<&'d str>) -> Draft<'d> {
        let facts = self.previous.frame().facts();
        Draft {
            previous: Some(self.previous.frame().address()),
            first: Some(self.previous.first_address()),
            pools,
            n: facts.n + 1,
            uuid: self.previous.uuid(),
            stamp: facts.stamp.map_or(self.stamp, |before| before.max(self.stamp)),
            block,
            reason,
            keyring: None,
        }
    }

    /// The proof, with the ids that the draft demands (or those given).
    fn proof(&self, draft: &Draft<'_>, pool: &Pool, ids: Option<Vec<ChallengeId>>, master: &MasterSecret) -> ProofText {
        let previous = self.previous.frame().address();
        let ids = ids.unwrap_or_else(|| bound_ids(pool, previous, self.claim, &draft.core(), &draft.relations_text()));
        let values = solutions(&pool.config, master.expose(), &ids);
        let solved: Vec<(ChallengeId, &str)> = ids.into_iter().zip(values.iter().map(|value| value.as_str())).collect();
        ProofText::of(self.claim, &pool.id, &solved)
    }

    fn finish(
        &self,
        draft: &Draft<'_>,
        pool: &Pool,
        ids: Option<Vec<ChallengeId>>,
        master: &MasterSecret,
        key: &SigningKey,
    ) -> Result<Standing, SignError> {
        let proof = self.proof(draft, pool, ids, master);
        self.checked(draft.finish(Some(&proof), key)?)
    }

    /// Checks the new frame like a foreign one: a wrong secret is found before anything is revealed.
    fn checked(&self, frame: super::frame::Frame) -> Result<Standing, SignError> {
        self.previous.step(frame, &|id| self.chain.knows_id(id)).map_err(|broken| {
            let wrong = broken.iter().any(|broken| broken.rule == Rule::E8);
            if wrong { SignError::WrongSecret } else { SignError::Broken(broken) }
        })
    }
}

/// A session's pool after two of its challenges were solved: the others stay, new ones come last.
fn topped_up(
    previous: &Standing,
    pool: &Pool,
    spent: &[ChallengeId],
    master: &MasterSecret,
    used: &mut dyn FnMut(ChallengeId) -> bool,
    entropy: &mut dyn Entropy,
) -> String {
    let frame = previous.frame();
    let text = frame.text();
    let mut map = BindingMap::read(text, pool.map.clone()).unwrap_or_default();
    map.keep(|id| !spent.contains(&id));
    let left = pool.challenges.iter().filter(|challenge| !spent.contains(&challenge.id));
    let mut challenges: Vec<(ChallengeId, String)> =
        left.map(|challenge| (challenge.id, text[challenge.hash.clone()].to_owned())).collect();
    let ids = draw_ids(spent.len(), used, entropy);
    ids.iter().for_each(|id| map.add(*id));
    challenges.extend(new_challenges(&pool.config, master.expose(), &ids));
    pool_text(&pool.config, &challenges, &map)
}
