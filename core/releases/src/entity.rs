//! One entity of the registry: its members exactly as they were stored, and what they mean. Spec: gateway §8.1.

use sealtide_ibgib::json::{Js, JsObject, JsString};

/// What an entity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntityKind {
    /// The head of a tree.
    Global,
    /// A part of the product.
    Component,
    /// A group of endpoints.
    ApiScope,
    /// A command.
    CliTool,
    /// A text.
    Documentation,
}

impl EntityKind {
    /// All kinds with their words.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Global, "global"),
        (Self::Component, "component"),
        (Self::ApiScope, "api-scope"),
        (Self::CliTool, "cli-tool"),
        (Self::Documentation, "documentation"),
    ];
}

/// Whether an entity moves with its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Yes.
    Linked,
    /// No, and what hangs below it neither.
    Independent,
}

/// One place in a file that holds the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRule<'a> {
    /// Path below the root of the source tree.
    pub path: &'a str,
    /// Regular expression; its group 1 is the version.
    pub pattern: &'a str,
    /// Whether a bump of the tree stops when the file, or the place in it, is not there.
    pub is_required: bool,
}

/// One entity. Members that this code does not know are kept, and so is the order of all: the bytes are signed.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity(JsObject);

impl Entity {
    /// Takes an object with a text `id`; what else must hold, [`crate::validate`] says.
    pub fn new(value: Js) -> Option<Self> {
        match value {
            Js::Object(object) => {
                object.named("id").as_string().and_then(JsString::as_str).is_some().then_some(Self(object))
            }
            _ => None,
        }
    }

    /// Its name, such as `component:sample`.
    pub fn id(&self) -> &str {
        self.text("id").unwrap_or_default()
    }

    /// What it is; none for an unknown word.
    pub fn kind(&self) -> Option<EntityKind> {
        let word = self.text("type")?;
        EntityKind::ALL.iter().find(|(_, name)| *name == word).map(|(kind, _)| *kind)
    }

    /// Its version as stored.
    pub fn current_version(&self) -> &str {
        self.text("currentVersion").unwrap_or_default()
    }

    /// Its name for people.
    pub fn display_name(&self) -> &str {
        self.text("displayName").unwrap_or_default()
    }

    /// Whether it moves with its parent; none for an unknown word.
    pub fn strategy(&self) -> Option<Strategy> {
        match self.text("updateStrategy")? {
            "linked-to-parent" => Some(Strategy::Linked),
            "independent" => Some(Strategy::Independent),
            _ => None,
        }
    }

    /// The id of its parent.
    pub fn parent(&self) -> Option<&str> {
        self.text("parentVersionId")
    }

    /// Whether people see it.
    pub fn is_displayed(&self) -> bool {
        *self.member("displayInUi") == Js::Bool(true)
    }

    /// The places that hold its version; none when `files` is no list of rules with a path and a pattern.
    pub fn files(&self) -> Option<Vec<FileRule<'_>>> {
        self.member("files").as_array()?.iter().map(file_rule).collect()
    }

    /// A text member.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.member(name).as_string()?.as_str()
    }

    /// A member, or `undefined`.
    pub fn member(&self, name: &str) -> &Js {
        self.0.named(name)
    }

    /// All members.
    pub fn object(&self) -> &JsObject {
        &self.0
    }

    /// The entity at another version; every other member keeps its place and bytes.
    pub(crate) fn at_version(&self, version: &str) -> Self {
        let mut object = self.0.clone();
        object.set("currentVersion", Js::text(version));
        Self(object)
    }

    /// The entity without the places in files, for readers who may not change them.
    pub(crate) fn without_files(&self) -> Js {
        let mut object = self.0.clone();
        object.remove(&JsString::from("files"));
        Js::Object(object)
    }
}

fn file_rule(value: &Js) -> Option<FileRule<'_>> {
    let object = value.as_object()?;
    let text = |name: &str| object.named(name).as_string().and_then(JsString::as_str);
    let is_required = *object.named("required") == Js::Bool(true);
    Some(FileRule { path: text("path")?, pattern: text("pattern")?, is_required })
}
