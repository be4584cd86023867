//! The versions in files of a source tree: which places move, and what the files say afterwards. Spec: gateway §8.4.
//!
//! All places of a file are changed in one buffer. Only group 1 of a pattern is replaced, everywhere it matches.

use std::collections::BTreeMap;

use regex_automata::Input;
use regex_automata::util::captures::Captures;

use crate::validate::compile;
use crate::{BumpPlan, Entity, VersionChange};

/// The places of one file that move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEdit {
    /// Path below the root of the source tree.
    pub path: String,
    /// Whether the bump stops when the file is not there.
    pub is_required: bool,
    /// Pattern, and the version that its group 1 becomes.
    pub places: Vec<(String, String)>,
}

/// Why a file cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The places cannot be read, or a pattern does not compile; validation lets no such registry in.
    #[error("the places of {0} are no list of rules")]
    Rules(String),
    /// A pattern that must match does not.
    #[error("a pattern finds nothing in {0}")]
    NoMatch(String),
}

impl BumpPlan {
    /// The files that this bump changes, in order of path.
    ///
    /// # Errors
    /// [`EditError::Rules`].
    // Spec: GW-70
    pub fn file_edits(&self) -> Result<Vec<FileEdit>, EditError> {
        let mut edits: BTreeMap<&str, FileEdit> = BTreeMap::new();
        for change in &self.changes {
            let VersionChange { entity_id, new_version, .. } = change;
            let rules = || EditError::Rules(entity_id.clone());
            let entity = self.after.entity(entity_id).ok_or_else(rules)?;
            for rule in Entity::files(entity).ok_or_else(rules)? {
                let edit = edits.entry(rule.path).or_insert_with(|| FileEdit {
                    path: rule.path.to_owned(),
                    is_required: false,
                    places: Vec::new(),
                });
                edit.is_required |= rule.is_required;
                edit.places.push((rule.pattern.to_owned(), new_version.clone()));
            }
        }
        Ok(edits.into_values().collect())
    }
}

impl FileEdit {
    /// The file with all its places changed, and how many there were. Places are found in what the ones before left.
    ///
    /// # Errors
    /// [`EditError`]; a required file must hold every place.
    // Spec: GW-70
    pub fn apply(&self, text: &str) -> Result<(String, usize), EditError> {
        let (mut text, mut found) = (text.to_owned(), 0);
        for (pattern, version) in &self.places {
            let regex = compile(pattern).ok_or_else(|| EditError::Rules(self.path.clone()))?;
            let (mut out, mut copied, mut here) = (String::with_capacity(text.len()), 0, 0);
            let mut captures: Captures = regex.create_captures();
            let mut at = 0;
            while at <= text.len() {
                regex.captures(Input::new(&text).range(at..), &mut captures);
                let Some(whole) = captures.get_match() else { break };
                if let Some(group) = captures.get_group(1).filter(|group| group.start >= copied) {
                    out.push_str(&text[copied..group.start]);
                    out.push_str(version);
                    copied = group.end;
                    here += 1;
                }
                // An empty match must not be found again.
                at = if whole.is_empty() { next_char(&text, whole.end()) } else { whole.end() };
            }
            if here == 0 && self.is_required {
                return Err(EditError::NoMatch(self.path.clone()));
            }
            out.push_str(&text[copied..]);
            (text, found) = (out, found + here);
        }
        Ok((text, found))
    }
}

fn next_char(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(at + 1, |next| at + next.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(places: &[(&str, &str)], is_required: bool) -> FileEdit {
        let places = places.iter().map(|(pattern, version)| ((*pattern).to_owned(), (*version).to_owned())).collect();
        FileEdit { path: "a.toml".to_owned(), is_required, places }
    }

    // Proves: GW-70
    #[test]
    fn all_places_of_a_file_move_in_one_buffer_and_only_group_1() {
        let text = "version = \"1.0.0\"\napi = 'v1.0.0' # é 1.0.0\nversion = \"0.9\"\n";
        let both = edit(&[("version = \"([0-9.]+)\"", "1.1.0"), ("api = '(v[0-9.]+)'", "v2.0.0")], true);
        let (changed, found) = both.apply(text).unwrap();
        assert_eq!(changed, "version = \"1.1.0\"\napi = 'v2.0.0' # é 1.0.0\nversion = \"1.1.0\"\n");
        assert_eq!(found, 3);
        assert_eq!(edit(&[("x(y)", "1")], true).apply(text), Err(EditError::NoMatch("a.toml".to_owned())));
        assert_eq!(edit(&[("x(y)", "1")], false).apply(text).unwrap(), (text.to_owned(), 0));
        assert_eq!(edit(&[("(", "1")], false).apply(text), Err(EditError::Rules("a.toml".to_owned())));
        // Patterns that match nothing come to an end, also between the bytes of a character.
        assert_eq!(edit(&[("()", "-")], false).apply("aé").unwrap(), ("-a-é-".to_owned(), 3));
        assert_eq!(edit(&[("a(b)?", "!")], false).apply("aab").unwrap(), ("aa!".to_owned(), 1));
    }
}
