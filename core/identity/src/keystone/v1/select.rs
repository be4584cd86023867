//! Which challenges a frame has to solve. Spec: ibgib §6.3.

use std::collections::BTreeSet;

use sealtide_ibgib::json::JsObject;

/// The numbers of a pool's policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selection {
    /// How many in insertion order.
    pub sequentially: usize,
    /// How many by chance.
    pub randomly: usize,
    /// How many characters of the target's gib choose one each.
    pub binding_chars: usize,
}

/// Why a selection fails; the text is V1's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectionError {
    /// A demanded id is not in the pool.
    #[error("required_id_not_found")]
    RequiredNotFound,
    /// No id is left in the bucket of a character.
    #[error("binding_exhausted")]
    BindingExhausted,
    /// Fewer ids are left than are taken in order.
    #[error("fifo_exhausted")]
    FifoExhausted,
}

/// The mandatory ids in their order, and the ids that are left to choose from.
///
/// `ids` are those of the pool in JavaScript's order, `demanded` those a verifier asks for, `target` the claim's.
///
/// # Errors
/// [`SelectionError`].
// Spec: SY-17
pub fn select(
    ids: &[String],
    binding_map: &JsObject,
    policy: Selection,
    demanded: &[String],
    target: Option<&str>,
) -> Result<(Vec<String>, Vec<String>), SelectionError> {
    let known: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut mandatory = Vec::new();
    for id in demanded {
        if !known.contains(id.as_str()) {
            return Err(SelectionError::RequiredNotFound);
        }
        if taken.insert(id.clone()) {
            mandatory.push(id.clone());
        }
    }
    let gib = target.map_or("", |target| target.rsplit_once('^').map_or(target, |(_, gib)| gib));
    for character in gib.chars().take(policy.binding_chars) {
        let bucket = binding_map.named(&character.to_lowercase().to_string()).as_array().unwrap_or_default();
        let mut free = bucket.iter().filter_map(|id| id.as_string()?.as_str());
        let id = free.find(|id| known.contains(id) && !taken.contains(*id)).ok_or(SelectionError::BindingExhausted)?;
        taken.insert(id.to_owned());
        mandatory.push(id.to_owned());
    }
    let mut left = ids.iter().filter(|id| !taken.contains(*id)).cloned();
    let in_order: Vec<String> = left.by_ref().take(policy.sequentially).collect();
    if in_order.len() < policy.sequentially {
        return Err(SelectionError::FifoExhausted);
    }
    let available = left.collect();
    mandatory.extend(in_order);
    Ok((mandatory, available))
}
