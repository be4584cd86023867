//! What V1 checks of two consecutive frames. Spec: ibgib §6.6.

use std::collections::BTreeSet;

use sealtide_ibgib::json::{Js, JsObject, Rules, parse};
use sealtide_ibgib::transform::record_address;

use super::pool::{Pool, text};
use super::select::{SelectionError, select};
use crate::keystone::strategy::CHALLENGE_TYPE;

/// The codes of what V1 finds wrong with `current` as successor of `previous`; empty when it is satisfied.
///
/// Being satisfied means little: a frame without proofs passes (W1).
///
/// # Errors
/// [`SelectionError`] where V1 throws.
// Spec: SY-19
pub fn v1_validate(previous: &JsObject, current: &JsObject) -> Result<Vec<&'static str>, SelectionError> {
    let (Some(old), Some(new)) = (previous.named("data").as_object(), current.named("data").as_object()) else {
        return Ok(vec!["no_data"]);
    };
    let pools = pools(old);
    let mut codes = Vec::new();
    for proof in new.named("proofs").as_array().unwrap_or_default().iter().filter_map(Js::as_object) {
        codes.extend(check_proof(&pools, proof)?);
    }
    let revocation = new.named("revocationInfo");
    if revocation.truthy() {
        let proof = revocation.as_object().map(|info| info.named("proof"));
        let target = proof.and_then(Js::as_object).map(|proof| claim(proof).named("target"));
        if target != Some(&Js::String(record_address(previous))) {
            codes.push("revocation_target_mismatch");
        }
    }
    Ok(codes)
}

/// As [`v1_validate`], on record texts; what is no record has the code `unreadable`.
///
/// # Errors
/// [`SelectionError`] where V1 throws.
pub fn v1_validate_texts(previous: &str, current: &str) -> Result<Vec<&'static str>, SelectionError> {
    match (parse(previous, Rules::Compat), parse(current, Rules::Compat)) {
        (Ok(Js::Object(previous)), Ok(Js::Object(current))) => v1_validate(&previous, &current),
        _ => Ok(vec!["unreadable"]),
    }
}

/// The pools of a frame's data.
pub(super) fn pools(data: &JsObject) -> Vec<&JsObject> {
    data.named("challengePools").as_array().unwrap_or_default().iter().filter_map(Js::as_object).collect()
}

fn check_proof(pools: &[&JsObject], proof: &JsObject) -> Result<Vec<&'static str>, SelectionError> {
    let solutions: Vec<&JsObject> =
        proof.named("solutions").as_array().unwrap_or_default().iter().filter_map(Js::as_object).collect();
    let Some(first) = solutions.first() else { return Ok(vec!["no_solutions"]) };
    let Some(pool) = pools.iter().map(|pool| Pool(pool)).find(|pool| pool.id() == text(first, "poolId")) else {
        return Ok(vec!["unknown_pool"]);
    };
    let mut codes = Vec::new();
    let verbs = pool.verbs();
    if !verbs.is_empty() && !verbs.contains(&text(claim(proof), "verb")) {
        codes.push("verb_not_authorized");
    }

    let demanded: Vec<String> =
        proof.named("requiredChallengeIds").as_array().unwrap_or_default().iter().map(id).collect();
    let target = claim(proof).named("target").as_string().map(|target| target.to_text());
    let policy = pool.selection();
    let (mandatory, available) = select(&pool.ids(), pool.binding_map(), policy, &demanded, target.as_deref())?;
    let solved: Vec<&str> = solutions.iter().map(|solution| text(solution, "challengeId")).collect();
    let given: BTreeSet<&str> = solved.iter().copied().collect();
    if mandatory.iter().any(|id| !given.contains(id.as_str())) {
        codes.push("missing_mandatory");
    }
    let mandatory: BTreeSet<&str> = mandatory.iter().map(String::as_str).collect();
    let others: Vec<&str> = solved.iter().copied().filter(|id| !mandatory.contains(id)).collect();
    if others.len() < policy.randomly {
        codes.push("insufficient_random");
    }
    let mut free: BTreeSet<&str> = available.iter().map(String::as_str).collect();
    codes.extend(others.iter().filter(|id| !free.remove(*id)).map(|_| "invalid_or_double"));
    codes.extend(solutions.iter().filter_map(|solution| check_solution(&pool, solution)));
    Ok(codes)
}

fn check_solution(pool: &Pool<'_>, solution: &JsObject) -> Option<&'static str> {
    let id = text(solution, "challengeId");
    let Some(challenge) = pool.challenges().named(id).as_object() else { return Some("challenge_not_found") };
    let types = [text(solution, "type"), text(challenge, "type")];
    let solved = types == [CHALLENGE_TYPE; 2]
        && pool
            .derivation()
            .is_some_and(|derivation| derivation.solves(text(solution, "value"), id, text(challenge, "hash")));
    if solved { None } else { Some("bad_solution") }
}

fn claim(proof: &JsObject) -> &JsObject {
    static NONE: JsObject = JsObject::EMPTY;
    proof.named("claim").as_object().unwrap_or(&NONE)
}

fn id(value: &Js) -> String {
    value.as_string().map(|id| id.to_text()).unwrap_or_default()
}
