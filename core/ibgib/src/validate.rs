//! Validation and classification of any record JavaScript could hold. Spec: ibgib §1.3, §1.4, §1.6.

use crate::hash::{GibError, gib_of, has_length};
use crate::json::{Js, JsObject};
use crate::transform::record_address;
use crate::validate_address;

/// What V1 throws instead of listing it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Thrown {
    /// The address has an empty gib segment.
    #[error("{0}")]
    Address(&'static str),
    /// The gib cannot be made.
    #[error(transparent)]
    Gib(#[from] GibError),
}

/// The codes that a record breaks, in order; empty for a valid one. A primitive passes whatever its content.
///
/// # Errors
/// [`Thrown`] where V1 throws.
// Spec: SY-9
pub fn validate_record(record: &JsObject) -> Result<Vec<&'static str>, Thrown> {
    let codes = validate_address(&record_address(record).to_text()).map_err(|error| Thrown::Address(error.code()))?;
    let gib = record.named("gib");
    if !codes.is_empty() || *gib == Js::text("gib") {
        return Ok(codes);
    }
    if matches_gib(record, gib)? || legacy_rel8(record).map_or(Ok(false), |record| matches_gib(&record, gib))? {
        return Ok(Vec::new());
    }
    Ok(vec!["gib_mismatch"])
}

fn matches_gib(record: &JsObject, gib: &Js) -> Result<bool, GibError> {
    Ok(*gib == Js::text(gib_of(record, false)?))
}

/// The record that an old rel8 dna was hashed as: without `src` and `srcAddr`.
fn legacy_rel8(record: &JsObject) -> Option<JsObject> {
    let data = record.named("data").as_object()?;
    let old = *record.named("ib") == Js::text("rel8") && data.named("src").truthy() && data.named("srcAddr").truthy();
    old.then(|| {
        let mut data = data.clone();
        data.remove(&"src".into());
        data.remove(&"srcAddr".into());
        let mut record = record.clone();
        record.set("data", Js::Object(data));
        record
    })
}

/// The first code of each bad address in a relations object, in order. `null` lists count as empty.
///
/// # Errors
/// [`Thrown`] when an address has an empty gib segment.
// Spec: SY-9
pub fn validate_relations(rel8ns: &Js) -> Result<Vec<&'static str>, Thrown> {
    let mut codes = Vec::new();
    for entry in rel8ns.as_object().into_iter().flat_map(JsObject::iter).flat_map(|(_, list)| elements(list)) {
        let text = entry.as_string().map(|text| text.to_text()).unwrap_or_default();
        let found = validate_address(&text).map_err(|error| Thrown::Address(error.code()))?;
        codes.extend(found.first());
    }
    Ok(codes)
}

/// Whether a record is in a timeline. Spec: ibgib §1.4.
pub fn has_tjp(record: &JsObject) -> bool {
    let is_tjp = record.named("data").as_object().is_some_and(|data| data.named("isTjp").truthy());
    if is_tjp || has_length(relation(record, "tjp")) {
        return true;
    }
    let descends_from = |names: &[&str]| ancestors(record).any(|address| names.contains(&address.as_str()));
    !descends_from(&["fork^gib", "mut8^gib", "rel8^gib"])
        && record.named("gib").as_string().is_some_and(|gib| gib.has_ascii(b'.'))
}

/// Whether a record is a dna. Spec: ibgib §1.6.
pub fn is_dna(record: &JsObject) -> bool {
    ancestors(record).any(|address| matches!(address.as_str(), "fork^gib" | "mut8^gib" | "rel8^gib" | "plan^gib"))
}

/// The address of the first frame: the last entry of `rel8ns.tjp`, else its own if it is one. Spec: ibgib §1.4.
pub fn tjp_address(record: &JsObject) -> Option<String> {
    if let Some(last) = elements(relation(record, "tjp")).last().and_then(Js::as_string) {
        return Some(last.to_text());
    }
    let is_tjp = record.named("data").as_object().is_some_and(|data| data.named("isTjp").truthy());
    is_tjp.then(|| record_address(record).to_text())
}

fn ancestors(record: &JsObject) -> impl Iterator<Item = String> {
    elements(relation(record, "ancestor")).iter().filter_map(Js::as_string).map(|address| address.to_text())
}

fn relation<'a>(record: &'a JsObject, name: &str) -> &'a Js {
    record.named("rel8ns").as_object().map_or(&Js::Undefined, |rel8ns| rel8ns.named(name))
}

fn elements(list: &Js) -> &[Js] {
    list.as_array().unwrap_or_default()
}
