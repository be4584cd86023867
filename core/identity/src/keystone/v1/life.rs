//! Genesis, sign and revoke as V1 does them. Spec: ibgib §6.4, §6.5, §6.7.

use sealtide_crypto::Entropy;
use sealtide_ibgib::hash::gib_of;
use sealtide_ibgib::json::{Js, JsObject};
use sealtide_ibgib::transform::{Surroundings, first_gen, mut8, record_address};

use super::pool::{Pool, new_pool, replenished, text};
use super::select::{SelectionError, select};
use super::validate::v1_validate;
use crate::keystone::strategy::CHALLENGE_TYPE;

/// Why V1 refuses to make a frame; the text is its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum V1Error {
    /// The keystone is revoked.
    #[error("revoked")]
    Revoked,
    /// The claim has no verb and no pool was named.
    #[error("no_verb")]
    NoVerb,
    /// No pool has the given id, or none takes the verb.
    #[error("pool_not_found")]
    PoolNotFound,
    /// The pool does not take the verb.
    #[error("verb_not_authorized")]
    VerbNotAuthorized,
    /// The challenges cannot be selected.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// The new frame does not pass the check; the first code.
    #[error("self_check:{0}")]
    SelfCheck(&'static str),
    /// A config or a frame that cannot be worked with.
    #[error("unusable")]
    Unusable,
}

/// A first frame to be made.
pub struct V1Genesis<'a> {
    /// The master secret.
    pub master: &'a str,
    /// The configs of the pools, in order.
    pub configs: &'a [JsObject],
    /// Milliseconds since 1970.
    pub ms: u64,
}

/// A frame to be signed.
pub struct V1Sign<'a> {
    /// The master secret.
    pub master: &'a str,
    /// `{target, verb, scope?}` in the caller's order.
    pub claim: &'a JsObject,
    /// The pool, when the caller chooses it.
    pub pool_id: Option<&'a str>,
    /// Ids that the verifier asks for.
    pub demanded: &'a [String],
    /// Free data of this frame.
    pub frame_details: Option<&'a Js>,
    /// Milliseconds since 1970.
    pub ms: u64,
}

/// A revocation to be made.
pub struct V1Revoke<'a> {
    /// The master secret.
    pub master: &'a str,
    /// Why.
    pub reason: &'a str,
    /// Free data of this frame.
    pub frame_details: Option<&'a Js>,
    /// Milliseconds since 1970.
    pub ms: u64,
}

/// Makes the first frame.
///
/// # Errors
/// [`V1Error::Unusable`] for a config without type, hash or sane rounds.
// Spec: SY-18
pub fn v1_genesis(genesis: &V1Genesis<'_>, entropy: &mut dyn Entropy) -> Result<JsObject, V1Error> {
    let pools: Option<Vec<Js>> =
        genesis.configs.iter().map(|config| new_pool(config, genesis.master, genesis.ms).map(Js::Object)).collect();
    let data = object([("challengePools", Js::Array(pools.ok_or(V1Error::Unusable)?)), ("proofs", Js::Array(vec![]))]);
    let tjp = object([("uuid", Js::Bool(true)), ("timestamp", Js::Bool(true))]);
    let opts = object([
        ("ib", Js::text("keystone")),
        ("data", Js::Object(data)),
        ("tjp", Js::Object(tjp)),
        ("nCounter", Js::Bool(true)),
    ]);
    let parent = object([("ib", Js::text("keystone")), ("gib", Js::text("gib"))]);
    let mut clock = || genesis.ms;
    let surroundings = &mut Surroundings { clock: &mut clock, entropy };
    let mut frame = first_gen(Some(&parent), &opts, surroundings).map_err(|_| V1Error::Unusable)?.new;
    // The fork in between is dropped, so this frame is the first one.
    if let Some(Js::Object(data)) = frame.get_mut(&"data".into()) {
        data.set("n", Js::Number(0.0));
        data.set("isTjp", Js::Bool(true));
    }
    if let Some(Js::Object(rel8ns)) = frame.get_mut(&"rel8ns".into()) {
        rel8ns.remove(&"tjp".into());
        rel8ns.remove(&"past".into());
    }
    let gib = gib_of(&frame, true).map_err(|_| V1Error::Unusable)?;
    frame.set("gib", Js::text(gib));
    Ok(frame)
}

/// Makes the next frame with one proof; `entropy` is used by pools that choose by chance.
///
/// # Errors
/// [`V1Error`].
// Spec: SY-18
pub fn v1_sign(previous: &JsObject, sign: &V1Sign<'_>, entropy: &mut dyn Entropy) -> Result<JsObject, V1Error> {
    let verb = text(sign.claim, "verb");
    let pools = pools_of(previous)?;
    let at = pool_for(&pools, sign.pool_id, verb)?;
    next_frame(previous, &pools, at, sign, None, entropy)
}

/// Makes the last frame.
///
/// # Errors
/// [`V1Error`].
// Spec: SY-18
pub fn v1_revoke(previous: &JsObject, revoke: &V1Revoke<'_>, entropy: &mut dyn Entropy) -> Result<JsObject, V1Error> {
    let pools = pools_of(previous)?;
    let at = pool_for(&pools, Some("revoke"), "revoke")?;
    let claim = object([("verb", Js::text("revoke")), ("target", Js::String(record_address(previous)))]);
    let sign = V1Sign {
        master: revoke.master,
        claim: &claim,
        pool_id: None,
        demanded: &[],
        frame_details: revoke.frame_details,
        ms: revoke.ms,
    };
    next_frame(previous, &pools, at, &sign, Some(revoke.reason), entropy)
}

fn next_frame(
    previous: &JsObject,
    pools: &[&JsObject],
    at: usize,
    sign: &V1Sign<'_>,
    reason: Option<&str>,
    entropy: &mut dyn Entropy,
) -> Result<JsObject, V1Error> {
    let pool = Pool(pools[at]);
    let policy = pool.selection();
    let target = sign.claim.named("target").as_string().map(|target| target.to_text());
    let (mut chosen, available) = select(&pool.ids(), pool.binding_map(), policy, sign.demanded, target.as_deref())?;
    chosen.extend(by_chance(available, policy.randomly, entropy));

    let proof = proof(&pool, &chosen, sign).ok_or(V1Error::Unusable)?;
    let next_pool = replenished(pool.0, &chosen, sign.master, sign.ms).ok_or(V1Error::Unusable)?;
    let next_pools = pools
        .iter()
        .enumerate()
        .map(|(position, pool)| Js::Object(if position == at { next_pool.clone() } else { (*pool).clone() }));
    let mut patch = object([
        ("challengePools", Js::Array(next_pools.collect())),
        ("proofs", Js::Array(vec![Js::Object(proof.clone())])),
        // An undefined patch over an old object replaces it; two objects merge.
        ("frameDetails", sign.frame_details.cloned().unwrap_or(Js::Undefined)),
    ]);
    if let Some(reason) = reason {
        let revocation = object([("reason", Js::text(reason)), ("proof", Js::Object(proof))]);
        patch.set("revocationInfo", Js::Object(revocation));
    }
    let opts = object([("dataToAddOrPatch", Js::Object(patch)), ("nCounter", Js::Bool(true))]);
    let mut clock = || sign.ms;
    let surroundings = &mut Surroundings { clock: &mut clock, entropy };
    let made = mut8(Some(previous), &opts, surroundings).map_err(|_| V1Error::Unusable)?.new;
    let Js::Object(made) = Js::Object(made).json_round_trip() else { return Err(V1Error::Unusable) };
    match v1_validate(previous, &made)?.first() {
        Some(code) => Err(V1Error::SelfCheck(code)),
        None => Ok(made),
    }
}

fn proof(pool: &Pool<'_>, chosen: &[String], sign: &V1Sign<'_>) -> Option<JsObject> {
    let derivation = pool.derivation()?;
    let secret = derivation.pool_secret(sign.master);
    let solutions = chosen.iter().map(|id| {
        Js::Object(object([
            ("type", Js::text(CHALLENGE_TYPE)),
            ("poolId", Js::text(pool.id())),
            ("challengeId", Js::text(id)),
            ("value", Js::text(derivation.solution(&secret, id).as_str())),
        ]))
    });
    let mut proof = object([("claim", Js::Object(sign.claim.clone())), ("solutions", Js::Array(solutions.collect()))]);
    if !sign.demanded.is_empty() {
        proof.set("requiredChallengeIds", Js::Array(sign.demanded.iter().map(Js::text).collect()));
    }
    Some(proof)
}

/// The pool that the caller names or the verb leads to.
fn pool_for(pools: &[&JsObject], pool_id: Option<&str>, verb: &str) -> Result<usize, V1Error> {
    if let Some(id) = pool_id {
        let at = pools.iter().position(|pool| Pool(pool).id() == id).ok_or(V1Error::PoolNotFound)?;
        let verbs = Pool(pools[at]).verbs();
        return if verbs.is_empty() || verbs.contains(&verb) { Ok(at) } else { Err(V1Error::VerbNotAuthorized) };
    }
    if verb.is_empty() {
        return Err(V1Error::NoVerb);
    }
    let named = pools.iter().position(|pool| Pool(pool).verbs().contains(&verb));
    let any = || pools.iter().position(|pool| Pool(pool).verbs().is_empty());
    named.or_else(any).ok_or(V1Error::PoolNotFound)
}

fn pools_of(frame: &JsObject) -> Result<Vec<&JsObject>, V1Error> {
    let data = frame.named("data").as_object().ok_or(V1Error::Unusable)?;
    if data.named("revocationInfo").truthy() {
        return Err(V1Error::Revoked);
    }
    Ok(super::validate::pools(data))
}

/// Any `count` of them; all when there are fewer.
fn by_chance(mut available: Vec<String>, count: usize, entropy: &mut dyn Entropy) -> Vec<String> {
    let mut chosen = Vec::new();
    while chosen.len() < count && !available.is_empty() {
        let mut draw = [0; 8];
        entropy.fill(&mut draw);
        chosen.push(available.swap_remove((u64::from_be_bytes(draw) % available.len() as u64) as usize));
    }
    chosen
}

fn object<const N: usize>(members: [(&str, Js); N]) -> JsObject {
    let mut object = JsObject::new();
    for (name, value) in members {
        object.set(name, value);
    }
    object
}
