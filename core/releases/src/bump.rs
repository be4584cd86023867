//! What a bump would change. Spec: gateway §8.3.

use std::collections::{BTreeMap, BTreeSet};

use crate::{BumpRequest, Entity, EntityVersion, REGISTRY_BYTES_MAX, Registry, Strategy};

/// One entity that moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionChange {
    /// Its id.
    pub entity_id: String,
    /// As it was stored.
    pub old_version: String,
    /// In the written form.
    pub new_version: String,
    /// Its name for people.
    pub display_name: String,
}

/// The outcome of a bump, not yet durable.
#[derive(Clone, Debug, PartialEq)]
pub struct BumpPlan {
    /// The registry after it, one revision later.
    pub after: Registry,
    /// What moved, the target first.
    pub changes: Vec<VersionChange>,
    /// The value of `bumped`: built once, signed, and sent as it is.
    pub bumped: String,
}

/// Why there is no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BumpError {
    /// No such entity.
    #[error("no entity {0}")]
    NotFound(String),
    /// A version cannot be raised.
    #[error("the version of {0} cannot be raised")]
    Version(String),
    /// The registry would be too long to be kept.
    #[error("the registry would be longer than {REGISTRY_BYTES_MAX} bytes")]
    Long,
}

/// Works out a bump. `root` is the entity whose tree moves when none is named. The registry stays as it is.
///
/// # Errors
/// [`BumpError`].
// Spec: GW-63, GW-64
pub fn plan(registry: &Registry, request: &BumpRequest, root: &str) -> Result<BumpPlan, BumpError> {
    let order = if request.all {
        registry.entities().iter().collect()
    } else {
        let id = request.entity.as_deref().unwrap_or(root);
        let target = registry.entity(id).ok_or_else(|| BumpError::NotFound(id.to_owned()))?;
        if request.cascade { tree(registry, target) } else { vec![target] }
    };
    let mut moved: BTreeMap<&str, String> = BTreeMap::new();
    let mut changes = Vec::with_capacity(order.len());
    for entity in order {
        let failed = |_| BumpError::Version(entity.id().to_owned());
        let version = EntityVersion::parse(entity.current_version()).and_then(|it| it.bump(request.scope));
        let new_version = version.map_err(failed)?.to_string();
        moved.insert(entity.id(), new_version.clone());
        changes.push(VersionChange {
            entity_id: entity.id().to_owned(),
            old_version: entity.current_version().to_owned(),
            new_version,
            display_name: entity.display_name().to_owned(),
        });
    }
    let after = registry.entities().iter().map(|entity| match moved.get(entity.id()) {
        Some(version) => entity.at_version(version),
        None => entity.clone(),
    });
    let after = registry.next(after.collect());
    let bumped = after.text();
    if bumped.len() > REGISTRY_BYTES_MAX {
        return Err(BumpError::Long);
    }
    Ok(BumpPlan { after, changes, bumped })
}

/// The target and all that is linked below it: parents first, siblings in registry order, each once.
fn tree<'a>(registry: &'a Registry, target: &'a Entity) -> Vec<&'a Entity> {
    let mut children: BTreeMap<&str, Vec<&Entity>> = BTreeMap::new();
    for entity in registry.entities().iter().filter(|entity| entity.strategy() == Some(Strategy::Linked)) {
        if let Some(parent) = entity.parent() {
            children.entry(parent).or_default().push(entity);
        }
    }
    let (mut order, mut seen, mut waiting) = (Vec::new(), BTreeSet::new(), vec![target]);
    while let Some(entity) = waiting.pop() {
        if seen.insert(entity.id()) {
            order.push(entity);
            waiting.extend(children.get(entity.id()).into_iter().flatten().rev());
        }
    }
    order
}
