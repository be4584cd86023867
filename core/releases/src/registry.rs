//! The registry: entities in their order, and a revision. Spec: gateway §8.1.

use sealtide_ibgib::RECORD_BYTES_MAX;
use sealtide_ibgib::json::{Js, JsObject, Rules, parse, write, write_rfc8785};

use crate::{Entity, Problem, validate};

/// Bytes of a text that is read as a registry, at most: files may be written with spaces.
pub const REGISTRY_TEXT_BYTES_MAX: usize = 4 << 20;
/// Bytes of a registry as it is written and signed, at most: it is kept in one record, with its signature.
pub const REGISTRY_BYTES_MAX: usize = RECORD_BYTES_MAX - 4 * 1024;
/// What a loopback gateway shows in its first minute. Spec: gateway §8.1.
const SAMPLE: &str = r#"[{"id":"global:main","type":"global","currentVersion":"1.0.0","displayName":"Main","updateStrategy":"independent","displayInUi":true,"files":[]},{"id":"component:sample","type":"component","currentVersion":"1.0.0","displayName":"Sample Component","updateStrategy":"linked-to-parent","parentVersionId":"global:main","displayInUi":true,"files":[]},{"id":"api:sample","type":"api-scope","currentVersion":"1.0.0","displayName":"Sample API","updateStrategy":"linked-to-parent","parentVersionId":"component:sample","displayInUi":true,"files":[],"apiEndpointPrefix":"/api/sample"}]"#;

/// All entities of an app at one revision. Valid: the only ways to one check it.
#[derive(Clone, Debug, PartialEq)]
pub struct Registry {
    entities: Vec<Entity>,
    revision: u64,
}

/// Why a text is no registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Longer than 4 MiB.
    #[error("the registry is longer than {REGISTRY_TEXT_BYTES_MAX} bytes")]
    Long,
    /// Not UTF-8, not JSON, or nested too deep.
    #[error("the registry is no JSON text")]
    Json,
    /// Not an array of objects with an id.
    #[error("the registry is no list of entities")]
    Form,
    /// It breaks rules.
    #[error("{}: {}", .0[0].entity, .0[0].what)]
    Invalid(Vec<Problem>),
}

impl Registry {
    /// Reads a registry as revision `revision`.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn read(text: &[u8], revision: u64) -> Result<Self, ImportError> {
        if text.len() > REGISTRY_TEXT_BYTES_MAX {
            return Err(ImportError::Long);
        }
        let text = std::str::from_utf8(text).map_err(|_| ImportError::Json)?;
        let Js::Array(list) = parse(text, Rules::Compat).map_err(|_| ImportError::Json)? else {
            return Err(ImportError::Form);
        };
        let entities: Option<Vec<Entity>> = list.into_iter().map(Entity::new).collect();
        Self::of(entities.ok_or(ImportError::Form)?, revision)
    }

    /// The built-in sample, revision 1.
    pub fn sample() -> Self {
        Self::read(SAMPLE.as_bytes(), 1).expect("the sample is valid")
    }

    fn of(entities: Vec<Entity>, revision: u64) -> Result<Self, ImportError> {
        let report = validate(&entities);
        if report.is_valid() { Ok(Self { entities, revision }) } else { Err(ImportError::Invalid(report.errors)) }
    }

    /// The next revision, with these entities; they differ from the old ones in versions only.
    pub(crate) fn next(&self, entities: Vec<Entity>) -> Self {
        Self { entities, revision: self.revision + 1 }
    }

    /// The next revision, with some entities at other versions; none when one of them is not there.
    pub fn with_versions(&self, versions: &[(String, String)]) -> Option<Self> {
        versions.iter().all(|(id, _)| self.entity(id).is_some()).then_some(())?;
        let at = |entity: &Entity| match versions.iter().find(|(id, _)| id == entity.id()) {
            Some((_, version)) => entity.at_version(version),
            None => entity.clone(),
        };
        Some(self.next(self.entities.iter().map(at).collect()))
    }

    /// From 1.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All entities, in their order.
    pub fn entities(&self) -> &[Entity] {
        &self.entities
    }

    /// The entity with this id.
    pub fn entity(&self, id: &str) -> Option<&Entity> {
        self.entities.iter().find(|entity| entity.id() == id)
    }

    /// The compact JSON array of all entities, as `JSON.stringify` writes it: what HMAC and Ed25519 sign.
    // Spec: GW-43
    pub fn text(&self) -> String {
        write(&self.array()).expect("an array has a text")
    }

    /// What `registrySignature` signs: the RFC 8785 form of `{app, writer, ledger, revision, entities}`; none when a
    /// lone surrogate stands in a text, for then there is no such form. Spec: gateway §8.1.
    pub fn envelope(&self, app: &str, writer: &str, ledger: &str) -> Option<String> {
        let mut object = JsObject::new();
        object.set("app", Js::text(app));
        object.set("writer", Js::text(writer));
        object.set("ledger", Js::text(ledger));
        object.set("revision", Js::Number(self.revision as f64));
        object.set("entities", self.array());
        write_rfc8785(&Js::Object(object))
    }

    fn array(&self) -> Js {
        Js::Array(self.entities.iter().map(|entity| Js::Object(entity.object().clone())).collect())
    }
}
