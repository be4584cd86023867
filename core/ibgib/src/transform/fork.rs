//! fork: a new record that descends from a source. Spec: ibgib §3.2.

use super::{
    Gib, Job, Surroundings, TransformError, Transformed, Type, finished, has_members, set_member, uuid_of_draw,
};
use crate::json::{Js, JsObject};

/// Forks `src` (a record; `None` is an error). Options: `destIb`, `uuid`, `tjp {uuid, timestamp}`, `cloneRel8ns`,
/// `cloneData`, `nCounter`, `dna`, `linkedRel8ns`, `noTimestamp`.
///
/// # Errors
/// [`TransformError`]; nothing is left behind.
// Spec: SY-6
pub fn fork(
    src: Option<&JsObject>,
    opts: &JsObject,
    surroundings: &mut Surroundings<'_>,
) -> Result<Transformed, TransformError> {
    let job = Job::new(Type::Fork, src, opts)?;
    let dest_ib = match opts.named("destIb") {
        Js::String(ib) if !ib.is_empty() => ib.clone(),
        value if value.truthy() => return Err(TransformError::Type),
        _ => "ib".into(),
    };
    if dest_ib.has_ascii(b'^') {
        return Err(TransformError::DestIbDelimiter);
    }
    let tjp = |name: &str| opts.named("tjp").as_object().is_some_and(|tjp| tjp.named(name).truthy());
    if job.asks("noTimestamp") && tjp("timestamp") {
        return Err(TransformError::TimestampConflict);
    }

    let mut relations = if job.asks("cloneRel8ns") { job.cloned_relations()? } else { JsObject::new() };
    let mut data = if job.asks("cloneData") { job.cloned_data() } else { Js::Object(JsObject::new()) };
    if job.asks("nCounter") {
        set_member(&mut data, "n", Js::Number(0.0))?;
    }
    job.link(&mut relations, "ancestor", &job.address)?;
    relations.remove(&"tjp".into());
    job.stamp(&mut data, surroundings)?;
    if tjp("uuid") || job.asks("uuid") {
        let mut draw = [0; 16];
        surroundings.entropy.fill(&mut draw);
        set_member(&mut data, "uuid", Js::text(uuid_of_draw(&draw)))?;
    }
    if tjp("uuid") || tjp("timestamp") {
        set_member(&mut data, "isTjp", Js::Bool(true))?;
    } else if let Js::Object(members) = &mut data {
        members.remove(&"isTjp".into());
    }
    let dnas = job.dna(&mut relations)?;

    // The new record starts as a copy of the source: the root keeps its (missing) relations, and a fork that adds
    // no data keeps the source's.
    let rel8ns = if job.address == *"ib^gib" { job.rel8ns.clone() } else { Js::Object(relations) };
    let data = if has_members(&data) { data } else { job.data.clone() };
    let new = finished(&dest_ib, data, rel8ns, Gib::Bare)?;
    Ok(Transformed { new, dnas, intermediate: Vec::new() })
}
