//! The plumbing commands: a vector case in, what is expected of it out. Spec: SY-1, SY-6, SY-9, SY-12.
//!
//! One JSON text in, one out, nothing else touched: the command line and the vector tests share this.
//!
//! | case has | it is | answer |
//! |---|---|---|
//! | `json` or `ej`, maybe `salt` | a hashing case | part hashes, canonical texts, `hash`, `gib` or `gib_error` |
//! | `steps` | a transforms case | `{"results":[…]}` |
//! | `opts` (and `src`) | one transform step, named by `op` or by the command | one result |
//! | `addr` | an address | `parse`, `validate`, `gib_info`, `is_primitive`, `rejoined` |
//! | `ibgib` | a record | `validate`, `has_tjp`, `is_dna`, `timeline`, `addr`, `sid`, `order`, `strict` |
//! | `rel8ns` | relations | `validate` |
//!
//! Values that JSON lacks are written as in the vectors: `{"$u":1}`, `{"$n":"NaN"}`, `{"$b":"<hex>"}`.

use sealtide_crypto::Entropy;

use crate::hash::{gib_of, sha256v1};
use crate::json::{Js, JsObject, JsString, Rules, parse, write};
use crate::record::Encodable;
use crate::transform::{Surroundings, TransformError, Transformed, first_gen, fork, mut8, record_address, rel8};
use crate::validate::{Thrown, has_tjp, is_dna, validate_record, validate_relations};
use crate::{GibInfo, gib_info, order_key, split_address, validate_address};

/// Answers one case. `op` is the command (`hash`, `fork`, `mut8`, `rel8`, `firstgen`, `check`); the members of the
/// case say what it is, `op` only names the transform of a single step that does not name its own.
///
/// A case that cannot be read is answered with `{"error":"bad_case"}`.
pub fn run(op: &str, case: &str) -> String {
    let answer = parse(case, Rules::Compat).ok().and_then(|case| answer(op, case.as_object()?));
    let answer = answer.unwrap_or_else(|| object([("error", Js::text("bad_case"))]));
    write(&Js::Object(answer)).unwrap_or_default()
}

fn answer(op: &str, case: &JsObject) -> Option<JsObject> {
    let has = |name: &str| *case.named(name) != Js::Undefined;
    if has("json") || has("ej") {
        hash_case(case)
    } else if has("steps") {
        transforms_case(case)
    } else if has("opts") {
        let mut made = Vec::new();
        step(op, case, case, &mut made)
    } else if has("addr") && !has("ibgib") {
        address_case(&case.named("addr").as_string()?.to_text())
    } else if has("ibgib") {
        record_case(&parsed(case.named("ibgib"))?)
    } else if has("rel8ns") {
        let relations = parsed(case.named("rel8ns"))?;
        Some(object([("validate", codes_or_thrown(validate_relations(&relations)))]))
    } else {
        None
    }
}

fn hash_case(case: &JsObject) -> Option<JsObject> {
    let record = match case.named("json") {
        Js::Undefined => extended(case.named("ej")),
        text => parse(text.as_string()?.as_str()?, Rules::Compat).ok()?,
    };
    let record = record.as_object()?;
    let salt = case.named("salt").as_string().map(|salt| salt.to_text());
    let hashed = sha256v1(record, salt.as_deref().unwrap_or_default());
    let mut answer = object([
        ("has_rel8ns", Js::Bool(hashed.has_rel8ns)),
        ("has_data", Js::Bool(hashed.has_data)),
        ("ib_hash", Js::text(hashed.ib_hash)),
    ]);
    let mut set = |name: &str, text: Option<String>| {
        if let Some(text) = text {
            answer.set(name, Js::text(text));
        }
    };
    set("canon_rel8ns", hashed.canon_rel8ns);
    set("rel8ns_hash", Some(hashed.rel8ns_hash));
    set("canon_data", hashed.canon_data);
    set("data_hash", Some(hashed.data_hash));
    set("hash", Some(hashed.hash));
    if salt.is_none() {
        match gib_of(record, false) {
            Ok(gib) => set("gib", Some(gib)),
            Err(error) => set("gib_error", Some(error.to_string())),
        }
    }
    Some(answer)
}

fn transforms_case(case: &JsObject) -> Option<JsObject> {
    let mut made = Vec::new();
    let results = case.named("steps").as_array()?.iter().map(|one| {
        let one = one.as_object()?;
        step("", one, case, &mut made).map(Js::Object)
    });
    let results = results.collect::<Option<Vec<Js>>>()?;
    Some(object([("results", Js::Array(results))]))
}

/// Runs one step and keeps its new record for later steps.
fn step(op: &str, step: &JsObject, case: &JsObject, made: &mut Vec<Option<JsObject>>) -> Option<JsObject> {
    let own = |name: &str| if *step.named(name) == Js::Undefined { case.named(name) } else { step.named(name) };
    let src = match step.named("src") {
        Js::Number(position) => made.get(*position as usize)?.clone(),
        Js::String(text) => parse(text.as_str()?, Rules::Compat).ok()?.as_object().cloned(),
        _ => None,
    };
    let Js::Object(opts) = extended(step.named("opts")) else { return None };
    let clock_ms = match own("clock_ms") {
        Js::Number(ms) if *ms >= 0.0 => *ms as u64,
        _ => 0,
    };
    let mut draws = Draws::of(own("rng"))?;
    let mut clock = || clock_ms;
    let mut surroundings = Surroundings { clock: &mut clock, entropy: &mut draws };
    let op = step.named("op").as_string().and_then(|op| op.as_str()).unwrap_or(op);
    let result = match op {
        "fork" => fork(src.as_ref(), &opts, &mut surroundings),
        "mut8" => mut8(src.as_ref(), &opts, &mut surroundings),
        "rel8" => rel8(src.as_ref(), &opts, &mut surroundings),
        "firstGen" | "firstgen" => first_gen(src.as_ref(), &opts, &mut surroundings),
        _ => return None,
    };
    made.push(result.as_ref().ok().map(|result| result.new.clone()));
    Some(step_answer(result))
}

fn step_answer(result: Result<Transformed, TransformError>) -> JsObject {
    let made = match result {
        Ok(made) => made,
        Err(error) => return object([("error", Js::text(error.to_string()))]),
    };
    let shown = |record: &JsObject| {
        let json = write(&Js::Object(record.clone())).unwrap_or_default();
        Js::Object(object([("addr", Js::String(record_address(record))), ("json", Js::text(json))]))
    };
    let mut answer = object([("new", shown(&made.new))]);
    for (name, records) in [("dnas", &made.dnas), ("intermediate", &made.intermediate)] {
        if !records.is_empty() {
            answer.set(name, Js::Array(records.iter().map(shown).collect()));
        }
    }
    let valid = Js::Object(made.new).json_round_trip();
    let valid = valid.as_object().map(validate_record);
    answer.set("intrinsic_valid", Js::Bool(valid.is_some_and(|codes| codes.is_ok_and(|codes| codes.is_empty()))));
    answer
}

fn address_case(text: &str) -> Option<JsObject> {
    let validated = codes_or_thrown(validate_address(text).map_err(|error| Thrown::Address(error.code())));
    let (ib, gib) = match split_address(text) {
        Ok(parts) => parts,
        Err(error) => return Some(object([("parse", thrown(error.code())), ("validate", validated)])),
    };
    let parts = object([("ib", Js::text(ib)), ("gib", Js::text(gib))]);
    let mut answer = object([("parse", Js::Object(parts)), ("validate", validated)]);
    if !gib.is_empty() {
        let info = match gib_info(gib) {
            Ok(info) => Js::Object(info_object(info)),
            Err(error) => thrown(error.code()),
        };
        answer.set("gib_info", info);
        answer.set("is_primitive", Js::Bool(gib == "gib"));
    }
    answer.set("rejoined", Js::text(format!("{ib}^{gib}")));
    Some(answer)
}

fn info_object(info: GibInfo<'_>) -> JsObject {
    match info {
        GibInfo::Primitive => object([("isPrimitive", Js::Bool(true))]),
        GibInfo::Hash { punctiliar, tjp, pieces } => {
            let mut answer = object([("punctiliarHash", Js::text(punctiliar))]);
            if let Some(tjp) = tjp {
                answer.set("tjpGib", Js::text(tjp));
            }
            answer.set("piecesCount", Js::Number(pieces as f64));
            answer.set("delimiter", Js::text("."));
            answer
        }
    }
}

fn record_case(record: &Js) -> Option<JsObject> {
    let record = record.as_object()?;
    let timeline = has_tjp(record);
    let mut answer = object([
        ("validate", codes_or_thrown(validate_record(record))),
        ("has_tjp", Js::Bool(timeline)),
        ("is_dna", Js::Bool(is_dna(record))),
        ("timeline", Js::Bool(timeline)),
        ("addr", Js::String(record_address(record))),
    ]);
    if let Some(encodable) = Encodable::of(record) {
        answer.set("sid", Js::text(encodable.sid().to_string()));
        if let Ok(address) = encodable.address() {
            answer.set("order", Js::text(order_key(&address, timeline).to_string()));
        }
        let strict = match crate::Verified::accept(encodable.encode().into()) {
            Ok(_) => Js::Null,
            Err(refusal) => Js::text(refusal.to_string()),
        };
        answer.set("strict", strict);
    }
    Some(answer)
}

/// The value of a case member that is a JSON text, its extended values resolved.
fn parsed(text: &Js) -> Option<Js> {
    Some(extended(&parse(text.as_string()?.as_str()?, Rules::Compat).ok()?))
}

/// Resolves `{"$u":1}`, `{"$n":…}` and `{"$b":…}`.
fn extended(value: &Js) -> Js {
    match value {
        Js::Array(elements) => Js::Array(elements.iter().map(extended).collect()),
        Js::Object(members) => special(members).unwrap_or_else(|| {
            let mut copy = JsObject::new();
            for (key, member) in members.iter() {
                copy.set(key, extended(member));
            }
            Js::Object(copy)
        }),
        other => other.clone(),
    }
}

fn special(members: &JsObject) -> Option<Js> {
    let (key, value) = members.iter().next().filter(|_| members.len() == 1)?;
    let text = value.as_string().and_then(JsString::as_str);
    match (key.as_str()?, text) {
        ("$u", _) => Some(Js::Undefined),
        ("$n", Some("NaN")) => Some(Js::Number(f64::NAN)),
        ("$n", Some("Infinity")) => Some(Js::Number(f64::INFINITY)),
        ("$n", Some("-Infinity")) => Some(Js::Number(f64::NEG_INFINITY)),
        ("$n", Some("-0")) => Some(Js::Number(-0.0)),
        ("$b", Some(hex)) => data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok().map(Js::Bytes),
        _ => None,
    }
}

fn codes_or_thrown(result: Result<Vec<&'static str>, Thrown>) -> Js {
    match result {
        Ok(codes) if codes.is_empty() => Js::Null,
        Ok(codes) => Js::Array(codes.into_iter().map(Js::text).collect()),
        Err(error) => thrown(&error.to_string()),
    }
}

fn thrown(code: &str) -> Js {
    Js::Object(object([("throws", Js::text(code))]))
}

fn object<const N: usize>(members: [(&str, Js); N]) -> JsObject {
    let mut object = JsObject::new();
    for (key, value) in members {
        object.set(key, value);
    }
    object
}

/// The prepared draws of a case, 16 bytes each, then zeros.
struct Draws(std::collections::VecDeque<u8>);

impl Draws {
    fn of(list: &Js) -> Option<Self> {
        let texts = list.as_array().unwrap_or_default().iter();
        let draws =
            texts.map(|text| data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_string()?.as_str()?.as_bytes()).ok());
        Some(Self(draws.collect::<Option<Vec<Vec<u8>>>>()?.into_iter().flatten().collect()))
    }
}

impl Entropy for Draws {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            *byte = self.0.pop_front().unwrap_or(0);
        }
    }
}
