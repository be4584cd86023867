//! The registry as the seed's development server told it. Spec: gateway §1.1, E7.

use sealtide_ibgib::json::{Js, JsObject, write};

use crate::{Entity, EntityKind, Problem, Registry, validate};

/// The body of `GET /api/dev/versions`. Places in files are told to those only who may bump.
pub fn summary(registry: &Registry, may_bump: bool) -> String {
    let shown = |entity: &Entity| {
        if may_bump { Js::Object(entity.object().clone()) } else { entity.without_files() }
    };
    let list = |keep: &dyn Fn(&Entity) -> bool| {
        Js::Array(registry.entities().iter().filter(|entity| keep(entity)).map(shown).collect())
    };
    let version_of = |kind: EntityKind| registry.entities().iter().find(|entity| entity.kind() == Some(kind));
    let named = |entity: Option<&Entity>, with_name: bool| {
        let mut object = JsObject::new();
        object.set("version", Js::text(entity.map_or("", Entity::current_version)));
        if with_name {
            object.set("name", Js::text(entity.map_or("", Entity::display_name)));
        }
        object.set("description", Js::text(entity.and_then(|it| it.text("description")).unwrap_or_default()));
        Js::Object(object)
    };
    let mut components = JsObject::new();
    for entity in registry.entities().iter().filter(|entity| entity.kind() == Some(EntityKind::Component)) {
        components.set(entity.display_name(), Js::text(entity.current_version()));
    }
    let mut by_type = JsObject::new();
    for (kind, name) in EntityKind::ALL {
        by_type.set(name, list(&|entity| entity.kind() == Some(kind)));
    }
    let mut entities = JsObject::new();
    entities.set("all", list(&|_| true));
    entities.set("byType", Js::Object(by_type));
    entities.set("displayable", list(&Entity::is_displayed));

    let mut body = JsObject::new();
    body.set("package", named(version_of(EntityKind::Global), true));
    body.set("api", named(version_of(EntityKind::ApiScope), false));
    body.set("components", Js::Object(components));
    body.set("entities", Js::Object(entities));
    body.set("validation", validation(registry));
    write(&Js::Object(body)).unwrap_or_default()
}

fn validation(registry: &Registry) -> Js {
    let report = validate(registry.entities());
    let told = |problems: &[Problem]| {
        Js::Array(problems.iter().map(|problem| Js::text(format!("{}: {}", problem.entity, problem.what))).collect())
    };
    let mut object = JsObject::new();
    object.set("valid", Js::Bool(report.is_valid()));
    object.set("errors", told(&report.errors));
    object.set("warnings", told(&report.warnings));
    object.set("info", Js::Array(Vec::new()));
    Js::Object(object)
}
