//! rel8: the next frame with changed relations. Spec: ibgib §3.4.

use super::{
    Gib, Job, Surroundings, TransformError, Transformed, Type, assign, entries, finished, has_members, own_members,
};
use crate::json::{Js, JsObject, JsString};

/// The relations that a rel8 cannot change. Spec: ibgib §1.5.
const RESERVED: [&str; 4] = ["past", "ancestor", "dna", "tjp"];

/// Adds and removes relations of `src`. Options: `rel8nsToAddByAddr`, `rel8nsToRemoveByAddr`, `nCounter`, `dna`,
/// `linkedRel8ns`, `noTimestamp`.
///
/// # Errors
/// [`TransformError`]; nothing is left behind.
// Spec: SY-6
pub fn rel8(
    src: Option<&JsObject>,
    opts: &JsObject,
    surroundings: &mut Surroundings<'_>,
) -> Result<Transformed, TransformError> {
    let job = Job::new(Type::Rel8, src, opts)?;
    job.check_frame_source()?;
    let (add, remove) = (opts.named("rel8nsToAddByAddr"), opts.named("rel8nsToRemoveByAddr"));
    if !has_members(add) && !has_members(remove) {
        return Err(TransformError::NothingToDo);
    }
    let (add, remove) = (lists(add)?, lists(remove)?);
    if add.iter().chain(&remove).any(|(name, _)| RESERVED.iter().any(|reserved| *name == **reserved)) {
        return Err(TransformError::ForbiddenRel8n);
    }

    let mut relations = job.cloned_relations()?;
    let mut data = job.cloned_data();
    job.count(&mut data)?;
    job.stamp(&mut data, surroundings)?;
    for (name, addresses) in add {
        let mut all = entries(&relations, &name)?;
        // Only what was there before is skipped: repeats inside the list are both kept.
        let new: Vec<Js> = addresses.into_iter().filter(|address| !all.contains(address)).collect();
        all.extend(new);
        assign(&mut relations, name, Js::Array(all));
    }
    for (name, addresses) in remove {
        if !relations.named_key(&name).truthy() {
            continue;
        }
        let mut left = entries(&relations, &name)?;
        left.retain(|address| !addresses.contains(address));
        if left.is_empty() {
            relations.remove(&name);
        } else {
            relations.set(name, Js::Array(left));
        }
    }
    let mut past = entries(&relations, &"past".into())?;
    past.push(Js::String(job.address.clone()));
    relations.set("past", Js::Array(past));
    keep_last(&mut relations, job.linked());
    job.leave_tjp(&mut data, &mut relations)?;
    let dnas = job.dna(&mut relations)?;
    let new = finished(&job.ib, data, Js::Object(relations), Gib::Timeline)?;
    Ok(Transformed { new, dnas, intermediate: Vec::new() })
}

/// Each linked relation with more than one entry keeps its last.
fn keep_last(relations: &mut JsObject, linked: &[Js]) {
    for name in linked.iter().filter_map(Js::as_string) {
        if let Some(Js::Array(entries)) = relations.get_mut(name)
            && entries.len() > 1
        {
            entries.drain(..entries.len() - 1);
        }
    }
}

/// The lists of an option in the caller's order, every address looked at.
fn lists(option: &Js) -> Result<Vec<(JsString, Vec<Js>)>, TransformError> {
    if !option.truthy() {
        return Ok(Vec::new());
    }
    own_members(option)?
        .into_iter()
        .map(|(name, list)| match list {
            Js::Array(addresses) if addresses.iter().all(looks_like_address) => Ok((name, addresses)),
            _ => Err(TransformError::InvalidAddress),
        })
        .collect()
}

/// The lax check of rel8: a string of at least 2 characters with something before its first `^`.
fn looks_like_address(value: &Js) -> bool {
    value.as_string().is_some_and(|address| {
        let units = address.units();
        units.len() >= 2 && units.iter().position(|unit| *unit == u16::from(b'^')).is_some_and(|at| at > 0)
    })
}
