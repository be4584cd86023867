//! The rules of a first frame (G1–G10, B), and what is common to all. Spec: ibgib §12.3.
//!
//! All rules are evaluated; every one that is broken is reported.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use sealtide_crypto::PublicKey;
use sealtide_ibgib::Verified;

use super::class::{BIND_RANGE, Class, POOL_REVOKE, SESSION_SIZE};
use super::frame::{Frame, KEYSTONE_IB};
use super::pool::{BindingMap, POOL_SIZE_MAX, Pool, Replenish};
use super::text::is_hex;

/// A rule of ibgib §12.3.
// Spec: SY-20, SY-21
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The data is in the one spelling of our frames.
    Form,
    /// The record is accepted.
    G1,
    /// ib, ancestor, no other relation.
    G2,
    /// Counter, `isTjp`, uuid.
    G3,
    /// No proof, no revocation.
    G4,
    /// Pool ids.
    G5,
    /// Challenges.
    G6,
    /// Binding map.
    G7,
    /// Rounds and selection numbers.
    G8,
    /// The pools are those of one class.
    G9,
    /// The hybrid block.
    G10,
    /// Binding pools.
    B,
    /// Both frames are accepted.
    E1,
    /// The previous frame is valid and no revocation.
    E2,
    /// Relations and ib.
    E3,
    /// Counter, uuid, no `isTjp`.
    E4,
    /// Time stamp.
    E5,
    /// Exactly one proof with a solution.
    E6,
    /// The solutions are those the policy wants.
    E7,
    /// V1's check: verb, ids, values.
    E8,
    /// Digest demands.
    E9,
    /// Pools change by their strategy only.
    E10,
    /// Managing.
    E11,
    /// Revoking.
    E12,
    /// The claim.
    E13,
    /// The hybrid block.
    E14,
    /// Precedence.
    E15,
}

/// A rule that a frame breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {rule}: {what}")]
pub struct Broken {
    /// The rule.
    pub rule: Rule,
    /// What is wrong, in words.
    pub what: &'static str,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Collects what is broken.
#[derive(Default)]
pub(super) struct Report(pub(super) Vec<Broken>);

impl Report {
    pub(super) fn check(&mut self, rule: Rule, holds: bool, what: &'static str) {
        if !holds {
            self.0.push(Broken { rule, what });
        }
    }
}

/// Takes the encoded first frame of a keystone.
///
/// # Errors
/// Rule `G1` when the record is not accepted, `Form` when it is no keystone frame.
// Spec: SY-20
pub fn read_first(encoded: Bytes) -> Result<Frame, Broken> {
    read(encoded, Rule::G1)
}

/// Takes any other encoded frame of a keystone.
///
/// # Errors
/// Rule `E1` when the record is not accepted, `Form` when it is no keystone frame.
pub fn read_next(encoded: Bytes) -> Result<Frame, Broken> {
    read(encoded, Rule::E1)
}

fn read(encoded: Bytes, rule: Rule) -> Result<Frame, Broken> {
    let record = Verified::accept(encoded).map_err(|_| Broken { rule, what: "the record is not accepted" })?;
    Frame::read(&record).map_err(|error| Broken { rule: Rule::Form, what: error.0 })
}

/// Class and key of a first frame.
///
/// # Errors
/// Every rule that it breaks.
// Spec: SY-20
pub(super) fn check_first(frame: &Frame) -> Result<(Class, PublicKey), Vec<Broken>> {
    let mut report = Report::default();
    let relations = frame.record.relations();
    let names: Vec<&str> = relations.keys().map(String::as_str).collect();
    report.check(Rule::G2, frame.address().ib() == KEYSTONE_IB, "the ib is not keystone");
    report.check(Rule::G2, names == ["ancestor"] && from_keystone(frame), "the only relation is ancestor keystone^gib");
    let counted = frame.member("n") == Some("0") && frame.member("isTjp") == Some("true");
    report.check(Rule::G3, counted, "n is 0 and isTjp true");
    report.check(Rule::G3, is_hex(&frame.uuid, 64), "the uuid is 64 hex digits");
    report.check(Rule::G4, frame.proofs.is_empty(), "a first frame has no proof");
    report.check(Rule::G4, frame.revoked.is_none(), "a first frame is no revocation");
    let class = Class::of(frame.pools.iter().map(|pool| pool.id.as_str()));
    report.check(Rule::G9, class.is_some(), "the pools are not those of one class");
    check_pools(&mut report, frame, class);

    let key = frame.block.as_ref().and_then(|block| block.public_key());
    let signed = frame.block.as_ref().zip(key.as_ref());
    let signed = signed.is_some_and(|(block, key)| block.verifies(key, &frame.signed_content(None)));
    report.check(Rule::G10, signed, "the hybrid block is not valid under its own key");
    match (class, key) {
        (Some(class), Some(key)) if report.0.is_empty() => Ok((class, key)),
        _ => Err(report.0),
    }
}

/// Whether the ancestor is exactly `keystone^gib`.
pub(super) fn from_keystone(frame: &Frame) -> bool {
    let ancestors = frame.record.relations().get("ancestor").map(Vec::as_slice).unwrap_or_default();
    matches!(ancestors, [only] if only.as_str() == "keystone^gib")
}

/// G5 to G9 and B of full pools: those of a first frame and of one that replaces them.
pub(super) fn check_pools(report: &mut Report, frame: &Frame, class: Option<Class>) {
    let ids: BTreeSet<&str> = frame.pools.iter().map(|pool| pool.id.as_str()).collect();
    report.check(Rule::G5, ids.len() == frame.pools.len(), "pool ids are unique");
    let challenges: BTreeSet<&str> =
        frame.pools.iter().flat_map(|pool| &pool.challenges).map(|challenge| challenge.id.as_str()).collect();
    let count: usize = frame.pools.iter().map(|pool| pool.challenges.len()).sum();
    report.check(Rule::G6, challenges.len() == count, "challenge ids are all different");
    for pool in &frame.pools {
        check_pool(report, frame, pool, class);
    }
}

fn check_pool(report: &mut Report, frame: &Frame, pool: &Pool, class: Option<Class>) {
    let config = &pool.config;
    let spelled = pool.id.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
    report.check(Rule::G5, spelled && (1..=64).contains(&pool.id.len()), "a pool id has 1 to 64 of a-z 0-9 . _ -");
    report.check(Rule::G5, pool.id == config.salt, "the pool id is its salt");

    let size = pool.challenges.len();
    report.check(Rule::G6, (1..=POOL_SIZE_MAX).contains(&size), "a pool has 1 to 1024 challenges");
    report.check(Rule::G6, size == config.size as usize, "the number of challenges is the size");
    report.check(Rule::G6, pool.ids().all(|id| id.is_hex()), "challenge ids are 16 hex digits");
    report.check(Rule::G6, hashes_fit(frame, pool), "challenge hashes are hex of the pool's hash");
    let map = BindingMap::of(pool.ids()).write();
    report.check(Rule::G7, frame.text()[pool.map.clone()] == map, "the binding map is not that of the challenges");

    let selected = [config.select_sequentially, config.select_randomly, config.target_binding_chars];
    let sum: u64 = selected.iter().map(|count| u64::from(*count)).sum();
    report.check(Rule::G8, (1..=10_000).contains(&config.rounds), "rounds are 1 to 10000");
    report.check(Rule::G8, sum <= u64::from(config.size), "no more is selected than there is");
    let selects = sum > 0 || config.bind.is_some() || class == Some(Class::Session);
    report.check(Rule::G8, selects, "the policy selects nothing");

    let Some(class) = class else { return };
    report.check(Rule::G9, config.verbs == class.verbs(&pool.id), "the verbs are not those of the pool");
    if class == Class::Session {
        let fits =
            *config == Class::Session.config(&pool.id, super::class::Profile::Light) && config.size == SESSION_SIZE;
        report.check(Rule::G8, fits, "a session's pool is not that of the session rule");
    } else {
        check_binding(report, pool, class, sum);
    }
}

// Spec: SY-85
fn check_binding(report: &mut Report, pool: &Pool, class: Class, selected: u64) {
    let config = &pool.config;
    let wanted = if pool.id == POOL_REVOKE { Replenish::ScorchedEarth } else { Replenish::ReplaceAll };
    report.check(Rule::B, config.bind.is_some(), "a pool of a long-lived keystone binds");
    let bind = config.bind.unwrap_or(*BIND_RANGE.start());
    report.check(Rule::B, BIND_RANGE.contains(&bind), "stBind is 32 to 64");
    report.check(Rule::B, selected == 0, "a binding pool selects nothing else");
    report.check(Rule::B, config.replenish == wanted, "the strategy is not that of the pool");
    let sized = config.size.is_power_of_two() && (class.size_min(&pool.id)..=1_024).contains(&config.size);
    report.check(Rule::B, sized, "the size is a power of two from 256 (manage: 512) to 1024");
}

pub(super) fn hashes_fit(frame: &Frame, pool: &Pool) -> bool {
    let digits = pool.config.algo.hex_digits();
    pool.challenges.iter().all(|challenge| is_hex(&frame.text()[challenge.hash.clone()], digits))
}
