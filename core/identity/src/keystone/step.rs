//! The rules of every frame after the first (E1–E14). Spec: ibgib §12.3.

use std::collections::BTreeSet;

use sealtide_crypto::PublicKey;
use sealtide_ibgib::Address;

use super::class::{Class, POOL_MANAGE, POOL_REVOKE};
use super::digest::{bound_ids, session_ids};
use super::frame::{Frame, KEYSTONE_IB, Proof};
use super::pool::{BindingMap, ChallengeId, Pool, Replenish};
use super::rules::{Broken, Report, Rule, check_first, check_pools, from_keystone, hashes_fit};

/// How a frame ranks among successors of one frame. Spec: ibgib §12.3 "Precedence".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Any other.
    Ordinary,
    /// Proven by pool `manage`.
    Manage,
    /// The end.
    Revoke,
}

impl Rank {
    pub(super) fn of(frame: &Frame) -> Self {
        match frame.proven_by() {
            _ if frame.revoked.is_some() => Self::Revoke,
            Some(POOL_MANAGE) => Self::Manage,
            _ => Self::Ordinary,
        }
    }
}

/// A frame whose whole way back to the first frame was checked, precedence aside. There is no other way to make one
/// than to pass the rules.
#[derive(Clone, Debug)]
pub struct Standing {
    frame: Frame,
    class: Class,
    first: Address,
    key: PublicKey,
    rank: Rank,
}

impl Standing {
    /// Checks a first frame.
    ///
    /// # Errors
    /// Every rule that it breaks.
    // Spec: SY-20
    pub fn first(frame: Frame) -> Result<Self, Vec<Broken>> {
        let (class, key) = check_first(&frame)?;
        let first = frame.address().clone();
        Ok(Self { frame, class, first, key, rank: Rank::Ordinary })
    }

    /// Checks a successor. `used` tells whether an id was used by this frame's ancestors; this frame itself is looked
    /// at anyway.
    ///
    /// # Errors
    /// Every rule that it breaks.
    // Spec: SY-20
    pub fn step(&self, next: Frame, used: &dyn Fn(ChallengeId) -> bool) -> Result<Self, Vec<Broken>> {
        let rank = Rank::of(&next);
        let mut check = Check { previous: self, next: &next, rank, used, report: Report::default() };
        let key = check.run();
        if check.report.0.is_empty() {
            let (class, first) = (self.class, self.first.clone());
            Ok(Self { frame: next, class, first, key, rank })
        } else {
            Err(check.report.0)
        }
    }

    /// The frame.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The class of the keystone.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The address of the first frame: the identity's name.
    pub fn first_address(&self) -> &Address {
        &self.first
    }

    /// The key in force after this frame.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// How it ranks.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// The uuid that secrets are derived with.
    pub fn uuid(&self) -> &str {
        &self.frame.uuid
    }
}

struct Check<'a> {
    previous: &'a Standing,
    next: &'a Frame,
    rank: Rank,
    used: &'a dyn Fn(ChallengeId) -> bool,
    report: Report,
}

impl Check<'_> {
    /// The key in force afterwards; means nothing when something is reported.
    fn run(&mut self) -> PublicKey {
        let over = self.previous.rank == Rank::Revoke;
        self.check(Rule::E2, !over, "a revocation has no successor");
        self.place();
        if let [proof] = self.next.proofs.as_slice() {
            self.check(Rule::E6, !proof.solutions.is_empty(), "the proof has no solution");
            self.proof(proof);
        } else {
            self.check(Rule::E6, false, "there is not exactly one proof");
        }
        self.block()
    }

    fn check(&mut self, rule: Rule, holds: bool, what: &'static str) {
        self.report.check(rule, holds, what);
    }

    /// E3, E4, E5.
    fn place(&mut self) {
        let (old, new) = (&self.previous.frame, self.next);
        let relations = new.record.relations();
        let only =
            |name: &str, wanted: &Address| relations.get(name).is_some_and(|list| list.as_slice() == [wanted.clone()]);
        let names: Vec<&str> = relations.keys().map(String::as_str).collect();
        let linked = only("past", old.address()) && only("tjp", &self.previous.first);
        self.check(Rule::E3, linked, "past is the previous frame and tjp the first");
        let spelled = names == ["ancestor", "past", "tjp"] && from_keystone(new);
        self.check(Rule::E3, spelled, "the other relation is ancestor keystone^gib");
        self.check(Rule::E3, new.address().ib() == KEYSTONE_IB, "the ib is not keystone");

        let counted = new.facts().n == old.facts().n + 1;
        self.check(Rule::E4, counted, "n is not one more");
        self.check(Rule::E4, new.uuid == old.uuid, "the uuid changed");
        self.check(Rule::E4, new.member("isTjp").is_none(), "isTjp is for the first frame");
        let stamped = new.facts().stamp.is_some_and(|stamp| Some(stamp) >= old.facts().stamp);
        self.check(Rule::E5, stamped, "the time stamp is missing or before the previous one");
    }

    /// E7 to E13.
    fn proof(&mut self, proof: &Proof) {
        let session = self.previous.class == Class::Session;
        let fits = proof
            .claim
            .as_ref()
            .filter(|claim| !claim.verb.is_empty())
            .is_some_and(|claim| claim.target_address().is_some() || (session && claim.target_is_digest()));
        self.check(Rule::E13, fits, "the claim has no verb, or no target that it may have");
        let name = proof.solutions.first().map_or("", |solution| solution.pool.as_str());
        let previous = self.previous;
        let Some(pool) = previous.frame.pool(name) else {
            self.check(Rule::E7, false, "the proof names no pool of the previous frame");
            return;
        };
        let one = proof.solutions.iter().all(|solution| solution.pool == name);
        self.check(Rule::E7, one, "the solutions are of more than one pool");
        let exact = proof.solutions.iter().map(|solution| solution.id).eq(proof.demanded.iter().copied());
        self.check(Rule::E7, exact, "the solutions are not the demanded ones, each once, in their order");
        self.values(proof, pool);

        if let Some(claim) = &proof.claim {
            self.check(Rule::E8, pool.config.allows(&claim.verb), "the pool does not take the verb");
            let expected = if session {
                session_ids(pool, &claim.target)
            } else {
                let (core, relations) = (self.next.core(), self.next.record.relations_text());
                bound_ids(pool, previous.frame.address(), claim, &core, relations)
            };
            self.check(Rule::E9, proof.demanded == expected, "the demanded ids do not follow from the content");
        }
        match self.rank {
            Rank::Revoke => self.revocation(proof, pool),
            Rank::Manage => self.management(proof, pool),
            Rank::Ordinary => self.replenished(pool, proof),
        }
    }

    /// The values: as many as could be demanded, so that foreign rounds cost a bounded time.
    fn values(&mut self, proof: &Proof, pool: &Pool) {
        let most = pool.config.bind.unwrap_or(8) as usize;
        self.check(Rule::E7, proof.solutions.len() <= most, "more is solved than can be demanded");
        let wanted: BTreeSet<ChallengeId> = proof.solutions.iter().take(most).map(|solution| solution.id).collect();
        let places = pool.challenges.iter().filter(|challenge| wanted.contains(&challenge.id));
        let hashes: std::collections::BTreeMap<ChallengeId, &str> =
            places.map(|challenge| (challenge.id, &self.previous.frame.text()[challenge.hash.clone()])).collect();
        let derivation = pool.config.derivation();
        let solved = proof.solutions.iter().take(most).all(|solution| {
            hashes.get(&solution.id).is_some_and(|hash| derivation.solves(&solution.value, solution.id.as_str(), hash))
        });
        self.check(Rule::E8, solved, "a value does not solve its challenge");
    }

    /// E10: all pools but the named one are as they were, that one changed by its strategy.
    fn replenished(&mut self, named: &Pool, proof: &Proof) {
        let forbidden = proof.claim.as_ref().is_some_and(|claim| claim.verb == "revoke") || named.id == POOL_REVOKE;
        self.check(Rule::E12, !forbidden, "a revocation says so in revocationInfo");
        let (old, new) = (&self.previous.frame, self.next);
        let same_pools = old.pools.len() == new.pools.len()
            && old.pools.iter().zip(&new.pools).all(|(old_pool, new_pool)| {
                old_pool.id == new_pool.id
                    && (old_pool.id == named.id || old.pool_text(old_pool) == new.pool_text(new_pool))
            });
        self.check(Rule::E10, same_pools, "a pool changed that the proof does not name");
        let Some(after) = new.pool(&named.id) else { return };
        self.check(Rule::E10, after.config == named.config, "the config of the named pool changed");
        let spent: BTreeSet<ChallengeId> = proof.solutions.iter().map(|solution| solution.id).collect();
        self.strategy(named, after, &spent);
    }

    fn strategy(&mut self, before: &Pool, after: &Pool, spent: &BTreeSet<ChallengeId>) {
        let (old, new) = (&self.previous.frame, self.next);
        let tops_up = before.config.replenish == Replenish::TopUp;
        let survivors = before.challenges.iter().filter(|challenge| tops_up && !spent.contains(&challenge.id));
        let survivors: Vec<_> = survivors.collect();
        let kept = after.challenges.len() >= survivors.len()
            && survivors.iter().zip(&after.challenges).all(|(before, after)| {
                before.id == after.id && old.text()[before.hash.clone()] == new.text()[after.hash.clone()]
            });
        self.check(Rule::E10, kept, "surviving challenges changed or moved");
        let full = after.challenges.len() == after.config.size as usize;
        self.check(Rule::E10, full, "the pool is not full again");
        self.check(Rule::E10, hashes_fit(new, after), "a new challenge has no hash of the pool");
        let fresh = after.challenges.get(survivors.len()..).unwrap_or_default();
        let ids: Vec<ChallengeId> = fresh.iter().map(|challenge| challenge.id).collect();
        self.fresh(&ids, Rule::E10);
        let mut map = if tops_up {
            BindingMap::read(old.text(), before.map.clone()).unwrap_or_default()
        } else {
            BindingMap::default()
        };
        map.keep(|id| !spent.contains(&id));
        ids.iter().for_each(|id| map.add(*id));
        let mapped = new.text()[after.map.clone()] == map.write();
        self.check(Rule::E10, mapped, "the binding map does not follow the challenges");
    }

    // Spec: SY-22
    fn fresh(&mut self, ids: &[ChallengeId], rule: Rule) {
        let before: BTreeSet<ChallengeId> = self.previous.frame.challenge_ids().collect();
        let mut seen = BTreeSet::new();
        let fresh = ids.iter().all(|id| id.is_hex() && seen.insert(*id) && !before.contains(id) && !(self.used)(*id));
        self.check(rule, fresh, "a new challenge id was used before, or is no id");
    }

    /// E11: new pools of the same class, every id new; a pool that the proof does not name may stay as it is.
    fn management(&mut self, proof: &Proof, named: &Pool) {
        let (old, new) = (&self.previous.frame, self.next);
        self.about_previous(proof, "manage", Rule::E11);
        let class = Class::of(new.pools.iter().map(|pool| pool.id.as_str()));
        self.check(Rule::E11, class == Some(self.previous.class), "the class changed");
        check_pools(&mut self.report, new, Some(self.previous.class));
        let mut ids = Vec::new();
        for pool in &new.pools {
            let same = old.pool(&pool.id).is_some_and(|before| old.pool_text(before) == new.pool_text(pool));
            if !same || pool.id == named.id {
                ids.extend(pool.ids());
            }
        }
        self.fresh(&ids, Rule::E10);
    }

    /// E12: the same proof twice, all pools empty.
    fn revocation(&mut self, proof: &Proof, named: &Pool) {
        self.about_previous(proof, "revoke", Rule::E12);
        self.check(Rule::E12, named.id == POOL_REVOKE, "the proof is not from pool revoke");
        self.check(Rule::E12, self.next.revocation_proof_matches(), "the proof in revocationInfo is another");
        let (old, new) = (&self.previous.frame, self.next);
        let emptied = old.pools.len() == new.pools.len()
            && old.pools.iter().zip(&new.pools).all(|(before, after)| {
                let mut map = BindingMap::read(old.text(), before.map.clone()).unwrap_or_default();
                map.keep(|_| false);
                let same = before.id == after.id && before.config == after.config;
                same && after.challenges.is_empty() && new.text()[after.map.clone()] == map.write()
            });
        self.check(Rule::E12, emptied, "not all pools are emptied");
    }

    fn about_previous(&mut self, proof: &Proof, verb: &str, rule: Rule) {
        let previous = self.previous.frame.address().as_str();
        let fits = proof.claim.as_ref().is_some_and(|claim| claim.verb == verb && claim.target == previous);
        self.check(rule, fits, "the claim is not about the previous frame");
    }

    /// E14.
    // Spec: SY-24, SY-81
    fn block(&mut self) -> PublicKey {
        let in_force = &self.previous.key;
        let new_key = self.next.block.as_ref().filter(|block| block.pk.is_some());
        let holds = match (&self.next.block, self.rank) {
            (block, Rank::Revoke) => {
                self.check(Rule::E14, block.is_none(), "a revocation has no hybrid block");
                return in_force.clone();
            }
            (None, _) => None,
            (Some(_), Rank::Ordinary) if new_key.is_some() => None,
            (Some(block), _) => {
                let key = if new_key.is_some() { block.public_key() } else { Some(in_force.clone()) };
                let content = self.next.signed_content(Some(self.previous.frame.address()));
                key.filter(|key| block.verifies(key, &content))
            }
        };
        self.check(Rule::E14, holds.is_some(), "the hybrid block is not valid under the key that it has to be");
        holds.unwrap_or_else(|| in_force.clone())
    }
}
