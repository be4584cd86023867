//! A pool as V1 has it in a frame: read, filled, spent. Spec: ibgib §6.1, §6.4.

use sealtide_ibgib::json::{Js, JsObject};

use super::select::Selection;
use crate::keystone::strategy::{Algo, CHALLENGE_TYPE, Derivation, v1_challenge_id};

/// Rounds that are worked through; V1 has no limit, a reader of foreign frames needs one.
const ROUNDS_MAX: u32 = 10_000;
/// Challenges that are made for one pool, at most.
const SIZE_MAX: usize = 4_096;

/// A view of one pool.
pub(super) struct Pool<'a>(pub(super) &'a JsObject);

/// What happens to a pool when it was used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Replenish {
    TopUp,
    ReplaceAll,
    Consume,
    ScorchedEarth,
}

impl<'a> Pool<'a> {
    pub(super) fn id(&self) -> &'a str {
        text(self.0, "id")
    }

    pub(super) fn verbs(&self) -> Vec<&'a str> {
        let verbs = self.config().named("allowedVerbs").as_array().unwrap_or_default();
        verbs.iter().filter_map(|verb| verb.as_string()?.as_str()).collect()
    }

    pub(super) fn selection(&self) -> Selection {
        let number = |name| count(self.behavior().named(name));
        Selection {
            sequentially: number("selectSequentially"),
            randomly: number("selectRandomly"),
            binding_chars: number("targetBindingChars"),
        }
    }

    pub(super) fn size(&self) -> usize {
        count(self.behavior().named("size")).min(SIZE_MAX)
    }

    pub(super) fn replenish(&self) -> Option<Replenish> {
        Some(match text(self.behavior(), "replenish") {
            "top-up" => Replenish::TopUp,
            "replace-all" => Replenish::ReplaceAll,
            "consume" => Replenish::Consume,
            "scorched-earth" => Replenish::ScorchedEarth,
            _ => return None,
        })
    }

    /// How its challenges are derived; `None` when the config says nothing usable.
    pub(super) fn derivation(&self) -> Option<Derivation<'a>> {
        let config = self.config();
        let rounds = u32::try_from(count(config.named("rounds"))).ok().filter(|rounds| *rounds <= ROUNDS_MAX)?;
        let usable = text(config, "type") == CHALLENGE_TYPE;
        let algo = Algo::named(text(config, "algo"))?;
        usable.then_some(Derivation { salt: text(config, "salt"), algo, rounds })
    }

    pub(super) fn challenges(&self) -> &'a JsObject {
        object(self.0, "challenges")
    }

    /// The ids in JavaScript's order.
    pub(super) fn ids(&self) -> Vec<String> {
        self.challenges().iter().map(|(id, _)| id.to_text()).collect()
    }

    pub(super) fn binding_map(&self) -> &'a JsObject {
        object(self.0, "bindingMap")
    }

    fn config(&self) -> &'a JsObject {
        object(self.0, "config")
    }

    fn behavior(&self) -> &'a JsObject {
        object(self.config(), "behavior")
    }
}

/// A full pool with this config, all ids from one reading of the clock.
pub(super) fn new_pool(config: &JsObject, master: &str, ms: u64) -> Option<JsObject> {
    let mut pool = JsObject::new();
    pool.set("id", config.named("salt").clone());
    pool.set("config", Js::Object(config.clone()));
    pool.set("challenges", Js::Object(JsObject::new()));
    pool.set("bindingMap", Js::Object(JsObject::new()));
    let size = Pool(&pool).size();
    fill(&pool, size, master, ms)
}

/// The pool after `spent` were revealed.
pub(super) fn replenished(pool: &JsObject, spent: &[String], master: &str, ms: u64) -> Option<JsObject> {
    let (replenish, size) = (Pool(pool).replenish()?, Pool(pool).size());
    Some(match replenish {
        Replenish::TopUp => fill(&without(pool, spent), spent.len(), master, ms)?,
        Replenish::Consume => without(pool, spent),
        Replenish::ReplaceAll => fill(&emptied(pool), size, master, ms)?,
        Replenish::ScorchedEarth => emptied(pool),
    })
}

fn emptied(pool: &JsObject) -> JsObject {
    let mut pool = pool.clone();
    pool.set("challenges", Js::Object(JsObject::new()));
    pool.set("bindingMap", Js::Object(JsObject::new()));
    pool
}

fn without(pool: &JsObject, spent: &[String]) -> JsObject {
    let (mut challenges, mut map) = (Pool(pool).challenges().clone(), JsObject::new());
    for id in spent {
        challenges.remove(&id.as_str().into());
    }
    let is_spent = |id: &Js| id.as_string().and_then(|id| id.as_str()).is_some_and(|id| spent.iter().any(|s| s == id));
    for (digit, bucket) in Pool(pool).binding_map().iter() {
        let left = bucket.as_array().unwrap_or_default().iter().filter(|id| !is_spent(id)).cloned().collect();
        map.set(digit, Js::Array(left));
    }
    let mut pool = pool.clone();
    pool.set("challenges", Js::Object(challenges));
    pool.set("bindingMap", Js::Object(map));
    pool
}

/// Appends `count` new challenges.
fn fill(pool: &JsObject, count: usize, master: &str, ms: u64) -> Option<JsObject> {
    let view = Pool(pool);
    let derivation = view.derivation()?;
    let secret = derivation.pool_secret(master);
    let (mut challenges, mut map) = (view.challenges().clone(), view.binding_map().clone());
    for index in 0..count {
        let id = v1_challenge_id(derivation.salt, &ms.to_string(), index as u64);
        let mut challenge = JsObject::new();
        challenge.set("type", Js::text(CHALLENGE_TYPE));
        challenge.set("hash", Js::text(derivation.challenge(&derivation.solution(&secret, &id), &id)));
        challenges.set(id.as_str(), Js::Object(challenge));
        let digit = id[..1].to_owned();
        let mut bucket = map.named(&digit).as_array().unwrap_or_default().to_vec();
        bucket.push(Js::text(id));
        map.set(digit, Js::Array(bucket));
    }
    let mut pool = pool.clone();
    pool.set("challenges", Js::Object(challenges));
    pool.set("bindingMap", Js::Object(map));
    Some(pool)
}

/// The text of a member; empty when it is none.
pub(super) fn text<'a>(object: &'a JsObject, name: &str) -> &'a str {
    object.named(name).as_string().and_then(|text| text.as_str()).unwrap_or_default()
}

fn object<'a>(parent: &'a JsObject, name: &str) -> &'a JsObject {
    static NONE: JsObject = JsObject::EMPTY;
    parent.named(name).as_object().unwrap_or(&NONE)
}

/// A whole number that is not negative; zero for anything else.
fn count(value: &Js) -> usize {
    match value {
        Js::Number(number) if *number >= 0.0 && number.fract() == 0.0 => *number as usize,
        _ => 0,
    }
}
