//! What must hold of a registry before anything is bumped. Spec: gateway §8.1.

use std::collections::BTreeMap;

use regex_automata::meta::Regex;

use crate::{Entity, EntityKind, EntityVersion, Strategy};

/// Entities, at most.
const ENTITIES_MAX: usize = 10_000;
/// Bytes of one pattern, at most.
const PATTERN_BYTES_MAX: usize = 4_096;
/// Bytes that a compiled pattern may take.
const PATTERN_MEMORY_MAX: usize = 1 << 20;

/// One thing that is wrong, and with which entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its id.
    pub entity: String,
    /// What is wrong.
    pub what: &'static str,
}

/// What was found. With errors nothing starts and nothing is bumped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// They stop start and bumps.
    pub errors: Vec<Problem>,
    /// They stop nothing.
    pub warnings: Vec<Problem>,
}

impl Report {
    /// Whether nothing is stopped.
    pub fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }

    fn error(&mut self, entity: &Entity, what: &'static str) {
        self.errors.push(Problem { entity: entity.id().to_owned(), what });
    }

    fn warning(&mut self, entity: &Entity, what: &'static str) {
        self.warnings.push(Problem { entity: entity.id().to_owned(), what });
    }
}

/// Checks a registry.
// Spec: GW-61
pub fn validate(entities: &[Entity]) -> Report {
    let mut report = Report::default();
    let mut by_id: BTreeMap<&str, &Entity> = BTreeMap::new();
    for entity in entities {
        if by_id.insert(entity.id(), entity).is_some() {
            report.error(entity, "two entities have this id");
        }
    }
    if let Some(surplus) = entities.get(ENTITIES_MAX) {
        report.error(surplus, "there are more entities than a registry takes");
        return report;
    }
    for entity in entities {
        check_members(entity, &mut report);
        check_files(entity, &mut report);
        check_parents(entity, &by_id, &mut report);
    }
    report
}

fn check_members(entity: &Entity, report: &mut Report) {
    if !is_id(entity.id()) {
        report.error(entity, "its id is not of the form type:name");
    }
    if entity.kind().is_none() {
        report.error(entity, "its type is unknown");
    }
    if entity.strategy().is_none() {
        report.error(entity, "its updateStrategy is unknown");
    }
    if EntityVersion::parse(entity.current_version()).is_err() {
        report.error(entity, "its currentVersion is no version");
    }
    if entity.text("displayName").is_none() {
        report.error(entity, "it has no displayName");
    }
    match entity.kind() {
        Some(EntityKind::ApiScope) if entity.text("apiEndpointPrefix").is_none() => {
            report.warning(entity, "an api-scope without apiEndpointPrefix");
        }
        Some(EntityKind::CliTool) if entity.text("cliCommandName").is_none() => {
            report.warning(entity, "a cli-tool without cliCommandName");
        }
        _ => {}
    }
}

fn check_files(entity: &Entity, report: &mut Report) {
    let Some(rules) = entity.files() else {
        report.error(entity, "its files are no list of rules with path and pattern");
        return;
    };
    for rule in rules {
        if !is_inside(rule.path) {
            report.error(entity, "a path of its files leaves the root");
        }
        match compile(rule.pattern) {
            None => report.error(entity, "a pattern of its files does not compile"),
            // The whole match is group 0.
            Some(regex) if regex.group_info().group_len(regex_automata::PatternID::ZERO) < 2 => {
                report.error(entity, "a pattern of its files has no group 1");
            }
            Some(_) => {}
        }
    }
}

/// A pattern in an engine that takes time linear in its input.
pub(crate) fn compile(pattern: &str) -> Option<Regex> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return None;
    }
    let config = Regex::config().nfa_size_limit(Some(PATTERN_MEMORY_MAX)).onepass(false).hybrid(false).dfa(false);
    Regex::builder().configure(config).build(pattern).ok()
}

/// Relative, below the root, plain names only.
pub(crate) fn is_inside(path: &str) -> bool {
    let drive = path.as_bytes().get(1) == Some(&b':');
    let plain = |name: &str| !name.is_empty() && name != "." && name != "..";
    !path.starts_with('/') && !drive && !path.contains(['\\', '\0']) && path.split('/').all(plain)
}

fn check_parents(entity: &Entity, by_id: &BTreeMap<&str, &Entity>, report: &mut Report) {
    let Some(parent) = entity.parent() else {
        if entity.strategy() == Some(Strategy::Linked) {
            report.warning(entity, "linked to a parent, but names none");
        } else if entity.kind() != Some(EntityKind::Global) {
            report.warning(entity, "its chain of parents does not end at a global");
        }
        return;
    };
    if !by_id.contains_key(parent) {
        report.error(entity, "its parent does not exist");
        return;
    }
    let mut at = entity;
    // A walk longer than there are entities has been somewhere twice.
    for _ in 0..=by_id.len() {
        let Some(next) = at.parent().and_then(|parent| by_id.get(parent)) else {
            if at.parent().is_none() && at.kind() != Some(EntityKind::Global) {
                report.warning(entity, "its chain of parents does not end at a global");
            }
            return;
        };
        at = next;
    }
    report.error(entity, "its chain of parents is a circle");
}

/// `^[a-z]+:[a-z0-9][a-z0-9-]*$`
pub(crate) fn is_id(text: &str) -> bool {
    let Some((kind, name)) = text.split_once(':') else { return false };
    let letter = |byte: u8| byte.is_ascii_lowercase();
    let word = |byte: u8| letter(byte) || byte.is_ascii_digit();
    !kind.is_empty()
        && kind.bytes().all(letter)
        && name.bytes().next().is_some_and(word)
        && name.bytes().all(|byte| word(byte) || byte == b'-')
}
