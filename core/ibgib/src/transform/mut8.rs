//! mut8: the next frame with changed data. Spec: ibgib §3.3.

use super::{Gib, Job, Surroundings, TransformError, Transformed, Type, assign, finished, has_members, own_members};
use crate::json::{Js, JsObject, JsString};

/// Changes the data or the ib of `src`. Options: `dataToRename`, `dataToRemove`, `dataToAddOrPatch`, `mut8Ib`,
/// `nCounter`, `dna`, `linkedRel8ns`, `noTimestamp`.
///
/// # Errors
/// [`TransformError`]; nothing is left behind.
// Spec: SY-6
pub fn mut8(
    src: Option<&JsObject>,
    opts: &JsObject,
    surroundings: &mut Surroundings<'_>,
) -> Result<Transformed, TransformError> {
    let job = Job::new(Type::Mut8, src, opts)?;
    job.check_frame_source()?;
    if !["dataToRename", "dataToRemove", "dataToAddOrPatch", "mut8Ib"].iter().any(|option| job.asks(option)) {
        return Err(TransformError::NothingToDo);
    }
    let mut relations = job.cloned_relations()?;
    job.link(&mut relations, "past", &job.address)?;
    let mut data = job.cloned_data();
    if job.asks("dataToRename") {
        direct(&mut data, opts.named("dataToRename"), Directive::Rename)?;
    }
    if job.asks("dataToRemove") {
        direct(&mut data, opts.named("dataToRemove"), Directive::Remove)?;
    }
    if job.asks("dataToAddOrPatch") {
        patch(&mut data, opts.named("dataToAddOrPatch"))?;
    }
    job.stamp(&mut data, surroundings)?;
    job.count(&mut data)?;
    job.leave_tjp(&mut data, &mut relations)?;
    let dnas = job.dna(&mut relations)?;

    let ib = match opts.named("mut8Ib") {
        Js::String(ib) if !ib.is_empty() => ib.clone(),
        value if value.truthy() => return Err(TransformError::Type),
        _ => job.ib.clone(),
    };
    let data = if has_members(&data) { data } else { Js::Undefined };
    let new = finished(&ib, data, Js::Object(relations), Gib::Timeline)?;
    Ok(Transformed { new, dnas, intermediate: Vec::new() })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Directive {
    Rename,
    Remove,
}

/// Walks the directive, not the data. Spec: ibgib §3.3 rule 4.
fn direct(data: &mut Js, directive: &Js, what: Directive) -> Result<(), TransformError> {
    for (key, value) in own_members(directive)? {
        if key == *"timestamp" {
            return Err(TransformError::ForbiddenKey);
        }
        if !has_member(data, &key)? {
            continue;
        }
        let Js::String(target) = value else {
            match data {
                Js::Object(members) => {
                    if let Some(inner) = members.get_mut(&key) {
                        direct(inner, &value, what)?;
                    }
                }
                Js::Array(elements) => {
                    if let Some(inner) = position(&key).and_then(|at| elements.get_mut(at)) {
                        direct(inner, &value, what)?;
                    }
                }
                // The members of strings and bytes are strings and numbers: nothing in them to rename or remove.
                _ => drop(own_members(&value)?),
            }
            continue;
        };
        if what == Directive::Rename {
            if target == *"timestamp" {
                return Err(TransformError::ForbiddenKey);
            }
            rename(data, &key, target)?;
        }
        remove(data, &key)?;
    }
    Ok(())
}

fn has_member(data: &Js, key: &JsString) -> Result<bool, TransformError> {
    let within = |length: usize| position(key).is_some_and(|at| at < length);
    Ok(match data {
        Js::Undefined | Js::Null => return Err(TransformError::Type),
        Js::Bool(_) | Js::Number(_) => false,
        Js::String(text) => within(text.units().len()),
        Js::Bytes(bytes) => within(bytes.len()),
        Js::Array(elements) => within(elements.len()),
        Js::Object(members) => members.get(key).is_some(),
    })
}

/// `data[target] = data[key]`.
fn rename(data: &mut Js, key: &JsString, target: JsString) -> Result<(), TransformError> {
    match data {
        Js::Object(members) => {
            let value = members.get(key).cloned().unwrap_or(Js::Undefined);
            assign(members, target, value);
            Ok(())
        }
        Js::Array(elements) => {
            let value = position(key).and_then(|at| elements.get(at)).cloned().unwrap_or(Js::Undefined);
            match position(&target) {
                Some(at) if at < elements.len() => elements[at] = value,
                Some(at) if at == elements.len() => elements.push(value),
                // JavaScript would make an array with a gap as long as the caller likes.
                Some(_) => return Err(TransformError::Type),
                // A name on an array is lost when the array is written.
                None => {}
            }
            Ok(())
        }
        _ => Err(TransformError::Type),
    }
}

/// `delete data[key]`; in an array it leaves a hole.
fn remove(data: &mut Js, key: &JsString) -> Result<(), TransformError> {
    match data {
        Js::Object(members) => drop(members.remove(key)),
        Js::Array(elements) => {
            if let Some(element) = position(key).and_then(|at| elements.get_mut(at)) {
                *element = Js::Undefined;
            }
        }
        _ => return Err(TransformError::Type),
    }
    Ok(())
}

/// Spec: ibgib §3.3 rule 5.
fn patch(data: &mut Js, patch_with: &Js) -> Result<(), TransformError> {
    for (key, value) in own_members(patch_with)? {
        match data {
            Js::Object(members) => match members.get_mut(&key) {
                // Both objects: `null` counts as one, and then has no keys to walk.
                Some(existing @ (Js::Object(_) | Js::Bytes(_)))
                    if matches!(value, Js::Object(_) | Js::Bytes(_) | Js::Null) =>
                {
                    patch(existing, &value)?;
                }
                _ => assign(members, key, value),
            },
            Js::Array(elements) => patch_element(elements, &key, value)?,
            // Data that was bytes is an object of indices after the clone; only patched-in bytes stand here.
            Js::Bytes(_) => {}
            _ => return Err(TransformError::Type),
        }
    }
    Ok(())
}

fn patch_element(elements: &mut Vec<Js>, key: &JsString, value: Js) -> Result<(), TransformError> {
    let Some(at) = position(key) else { return Ok(()) };
    if at > elements.len() {
        return Err(TransformError::Type);
    }
    if at == elements.len() {
        elements.push(value);
        return Ok(());
    }
    match &mut elements[at] {
        existing @ Js::Object(_) if matches!(value, Js::Object(_) | Js::Null) => patch(existing, &value),
        existing => {
            *existing = value;
            Ok(())
        }
    }
}

/// The array position that a key names.
fn position(key: &JsString) -> Option<usize> {
    key.as_str().and_then(crate::json::array_index).and_then(|index| usize::try_from(index).ok())
}
