//! The golden vectors of V1's keystones. The folder is `SEALTIDE_VECTORS` or the repository's `vectors/`.

use std::path::PathBuf;

use sealtide_crypto::Entropy;
use sealtide_ibgib::json::{Js, JsObject, Rules, parse};
use sealtide_ibgib::transform::record_address;
use sealtide_identity::keystone::v1::{
    Selection, V1Genesis, V1Revoke, V1Sign, select, v1_genesis, v1_revoke, v1_sign, v1_validate, v1_validate_texts,
};
use sealtide_identity::keystone::{Algo, Derivation, v1_challenge_id};
use serde_json::Value;

/// The formats that this crate tests.
const KNOWN: [&str; 1] = ["ibgib-keystone-1"];

/// Another folder than that of the repository.
#[expect(clippy::disallowed_methods, reason = "a test reads its vectors from disk")]
fn other() -> Option<String> {
    std::env::var("SEALTIDE_VECTORS").ok()
}

fn folder() -> PathBuf {
    let default = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors"));
    other().map_or(default, PathBuf::from).join("ibgib")
}

/// Every file of this format. The repository has one of each; another folder may lack some.
fn files(format: &str) -> Vec<Value> {
    let entries = std::fs::read_dir(folder()).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let json = paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let found: Vec<Value> = json.map(read).filter(|value: &Value| value["format"] == format).collect();
    if found.is_empty() {
        assert!(other().is_some(), "no file of format {format} in {}", folder().display());
        println!("skipped: no file of format {format} in {}", folder().display());
    }
    found
}

fn cases(member: &str) -> Vec<Value> {
    let cases: Vec<Value> =
        files(KNOWN[0]).iter().flat_map(|file| file[member].as_array().cloned().unwrap_or_default()).collect();
    println!("{} {member} of format {}", cases.len(), KNOWN[0]);
    assert!(!cases.is_empty() || other().is_some(), "no {member} of format {}", KNOWN[0]);
    cases
}

#[test]
fn vectors_some_known_format_is_there() {
    assert!(KNOWN.iter().any(|format| !files(format).is_empty()), "no vectors at all in {}", folder().display());
}

// Proves: SY-17
#[test]
fn vectors_strategy() {
    for case in cases("strategy") {
        let (config, expect) = (&case["config"], &case["expect"]);
        let derivation = Derivation {
            salt: config["salt"].as_str().unwrap(),
            algo: Algo::named(config["algo"].as_str().unwrap()).unwrap(),
            rounds: config["rounds"].as_u64().unwrap() as u32,
        };
        let id = case["challenge_id"].as_str().unwrap();
        let secret = derivation.pool_secret(case["master_secret"].as_str().unwrap());
        let solution = derivation.solution(&secret, id);
        let challenge = derivation.challenge(&solution, id);
        assert_eq!(secret.as_str(), expect["pool_secret"].as_str().unwrap(), "{}", case["id"]);
        assert_eq!(solution.as_str(), expect["solution"].as_str().unwrap(), "{}", case["id"]);
        assert_eq!(challenge, expect["challenge"].as_str().unwrap(), "{}", case["id"]);
        assert_eq!(Value::Bool(derivation.solves(&solution, id, &challenge)), expect["valid"], "{}", case["id"]);
        assert!(!derivation.solves(&format!("{}0", solution.as_str()), id, &challenge), "{}", case["id"]);
    }
}

// Proves: SY-17
#[test]
fn vectors_challenge_ids() {
    for case in cases("challenge_ids") {
        let (salt, ms) = (case["salt"].as_str().unwrap(), case["timestamp"].as_str().unwrap());
        let id = v1_challenge_id(salt, ms, case["index"].as_u64().unwrap());
        assert_eq!(id, case["expect"]["challenge_id"].as_str().unwrap(), "{}", case["id"]);
    }
}

// Proves: SY-17
#[test]
fn vectors_requirements() {
    for case in cases("requirements") {
        // An object puts the ids into the order that JavaScript would.
        let mut challenges = JsObject::new();
        for id in texts(&case["ids"]) {
            challenges.set(id, Js::Null);
        }
        let ids: Vec<String> = challenges.iter().map(|(id, _)| id.to_text()).collect();
        let Ok(Js::Object(map)) = parse(case["binding_map"].as_str().unwrap(), Rules::Compat) else { panic!("map") };
        let number = |name: &str| case["behavior"][name].as_u64().unwrap() as usize;
        let policy = Selection {
            sequentially: number("selectSequentially"),
            randomly: number("selectRandomly"),
            binding_chars: number("targetBindingChars"),
        };
        let found = select(&ids, &map, policy, &texts(&case["required"]), case["target"].as_str());
        let expect = &case["expect"];
        match found {
            Ok((mandatory, available)) => {
                assert_eq!(mandatory, texts(&expect["mandatory"]), "{}", case["id"]);
                assert_eq!(available, texts(&expect["available"]), "{}", case["id"]);
                assert!(expect["error"].is_null(), "{}", case["id"]);
            }
            Err(error) => assert_eq!(expect["error"], error.to_string(), "{}", case["id"]),
        }
    }
}

// Proves: SY-18
#[test]
fn vectors_lifecycle() {
    for case in cases("lifecycle") {
        let id = case["id"].as_str().unwrap();
        let genesis = &case["genesis"];
        let configs: Vec<JsObject> = genesis["configs"].as_array().unwrap().iter().map(object).collect();
        let chance = |config: &Value| config["behavior"]["selectRandomly"].as_u64() != Some(0);
        let reproducible = !genesis["configs"].as_array().unwrap().iter().any(chance);
        let mut draws = Draws(texts(&genesis["rng"]).into());
        let master = case["master_secret"].as_str().unwrap();
        let made = V1Genesis { master, configs: &configs, ms: genesis["clock_ms"].as_u64().unwrap() };
        let expect = case["expect"].as_array().unwrap();
        let mut frames: Vec<JsObject> = vec![check(id, Ok(v1_genesis(&made, &mut draws).unwrap()), &expect[0], None)];
        for (step, expect) in case["steps"].as_array().unwrap().iter().zip(&expect[1..]) {
            let on = step["on"].as_u64().map_or(frames.len() - 1, |on| on as usize);
            let previous = frames[on].clone();
            if !reproducible && expect["error"].is_null() {
                let given = object(&serde_json::from_str(expect["json"].as_str().unwrap()).unwrap());
                let made = run(&previous, step, master, &mut draws).unwrap();
                assert_eq!(v1_validate(&previous, &made).unwrap(), Vec::<&str>::new(), "{id}");
                assert_eq!(v1_validate(&previous, &given).unwrap(), texts(&expect["validate"]), "{id}");
                frames.push(given);
                continue;
            }
            let made = run(&previous, step, master, &mut draws);
            if let Ok(made) = &made {
                assert_eq!(v1_validate(&previous, made).unwrap(), texts(&expect["validate"]), "{id}");
            }
            frames.push(check(id, made, expect, Some(&previous)));
        }
    }
}

/// Compares what was made with what is expected; gives the frame to go on from.
fn check(id: &str, made: Result<JsObject, String>, expect: &Value, previous: Option<&JsObject>) -> JsObject {
    let made = match made {
        Ok(made) => made,
        Err(error) => {
            assert_eq!(expect["error"], error, "{id}");
            return previous.unwrap().clone();
        }
    };
    assert!(expect["error"].is_null(), "{id}: {}", expect["error"]);
    assert_eq!(record_address(&made).to_text(), expect["addr"].as_str().unwrap(), "{id}");
    let shown = sealtide_ibgib::json::write(&Js::Object(made.clone())).unwrap();
    let (shown, wanted): (Value, Value) =
        (serde_json::from_str(&shown).unwrap(), serde_json::from_str(expect["json"].as_str().unwrap()).unwrap());
    assert_eq!(shown, wanted, "{id}");
    if let Some(solved) = expect.get("solved") {
        let solutions = shown["data"]["proofs"][0]["solutions"].as_array().unwrap().clone();
        let ids: Vec<Value> = solutions.iter().map(|solution| solution["challengeId"].clone()).collect();
        assert_eq!(Value::Array(ids), *solved, "{id}");
    }
    made
}

fn run(previous: &JsObject, step: &Value, master: &str, draws: &mut Draws) -> Result<JsObject, String> {
    let master = step["master_secret"].as_str().unwrap_or(master);
    let ms = step["clock_ms"].as_u64().unwrap();
    let details = step.get("frame_details").map(Js::from);
    let made = if step["op"] == "revoke" {
        let reason = step["reason"].as_str().unwrap();
        v1_revoke(previous, &V1Revoke { master, reason, frame_details: details.as_ref(), ms }, draws)
    } else {
        let claim = object(&step["claim"]);
        let demanded = demanded(previous, step);
        let pool_id = step["pool_id"].as_str();
        let sign = V1Sign { master, claim: &claim, pool_id, demanded: &demanded, frame_details: details.as_ref(), ms };
        v1_sign(previous, &sign, draws)
    };
    made.map_err(|error| error.to_string())
}

/// The demanded ids: given, or by position of pool and challenge.
fn demanded(previous: &JsObject, step: &Value) -> Vec<String> {
    if step.get("required").is_some() {
        return texts(&step["required"]);
    }
    let pools = previous.named("data").as_object().unwrap().named("challengePools").as_array().unwrap().to_vec();
    let places = step["required_index"].as_array().cloned().unwrap_or_default();
    let place = |place: &Value| {
        let (pool, at) = (place[0].as_u64().unwrap() as usize, place[1].as_u64().unwrap() as usize);
        let challenges = pools[pool].as_object().unwrap().named("challenges").as_object().unwrap().clone();
        challenges.iter().nth(at).unwrap().0.to_text()
    };
    places.iter().map(place).collect()
}

// Proves: SY-19
#[test]
fn vectors_validation() {
    for case in cases("validation") {
        let (previous, current) = (case["prev"].as_str().unwrap(), case["current"].as_str().unwrap());
        let found = v1_validate_texts(previous, current).unwrap();
        assert_eq!(found, texts(&case["v1_validate"]), "{}", case["id"]);
    }
}

/// The draws of a case, then zeros.
struct Draws(std::collections::VecDeque<String>);

impl Entropy for Draws {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(0);
        if out.len() == 16 {
            let draw = self.0.pop_front().unwrap_or_default();
            let bytes = data_encoding::HEXLOWER.decode(draw.as_bytes()).unwrap();
            out[..bytes.len()].copy_from_slice(&bytes);
        }
    }
}

fn object(value: &Value) -> JsObject {
    let Js::Object(object) = Js::from(value) else { panic!("no object: {value}") };
    object
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}
