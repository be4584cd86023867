//! `cargo xtask tidy`: the rules of the house that no compiler checks.
//!
//! | Rule | Where |
//! |---|---|
//! | arrows point down, no cycles, packages named after their folder | `arrows` |
//! | crypto only through `core/crypto`, TLS only in `io/link` and `io/gateway`, cores without clock, chance, disk and runtime crates | `libraries` |
//! | cores without clock, chance, disk, net, environment, threads and hash maps | `purity` |
//! | no catch-all modules, no file over 900 lines | `files` |
//! | nothing unfinished, nothing switched off, nothing that points out of the repository, lints everywhere | `text` |

mod arrows;
mod files;
mod libraries;
mod purity;
mod text;

use std::fmt;

use crate::source::Source;
use crate::workspace::Workspace;

/// One broken rule.
#[derive(Debug, PartialEq)]
pub(crate) struct Problem {
    /// A file of the repository, or a folder of a package.
    place: String,
    /// From 1; `None` when the whole file is meant.
    line: Option<usize>,
    what: String,
}

impl Problem {
    fn whole(place: &str, what: impl Into<String>) -> Self {
        Self { place: place.to_owned(), line: None, what: what.into() }
    }

    fn at(source: &Source, line: usize, what: impl Into<String>) -> Self {
        Self { place: source.path.clone(), line: Some(line), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(out, "{}:{line}: {}", self.place, self.what),
            None => write!(out, "{}: {}", self.place, self.what),
        }
    }
}

/// All broken rules of a workspace.
pub(crate) fn check(workspace: &Workspace) -> Vec<Problem> {
    let mut problems = arrows::check(&workspace.packages);
    problems.extend(libraries::check(&workspace.packages));
    problems.extend(text::check_lints(&workspace.packages, &workspace.files));
    problems.extend(purity::check(&workspace.files));
    for source in &workspace.files {
        problems.extend(files::check(source));
        problems.extend(text::check(source));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That it is tidy is for `make test` to say; that all of it is looked at is for this test.
    #[test]
    fn the_whole_repository_is_looked_at() {
        let workspace = Workspace::load().expect("the repository can be read");
        let folders: Vec<&str> = workspace.packages.iter().map(|package| package.folder.as_str()).collect();
        for folder in ["core/crypto", "io/store", "node", "xtask"] {
            assert!(folders.contains(&folder), "{folder} is not in {folders:?}");
            let is_inside = |file: &&Source| file.path.starts_with(folder) && file.is_rust() && !file.code.is_empty();
            assert!(workspace.files.iter().filter(is_inside).count() > 0, "{folder} has no sources");
        }
        assert!(workspace.packages.iter().any(|package| !package.dependencies.is_empty()));
        assert!(workspace.files.iter().all(|file| !file.path.starts_with("target/") && !file.path.contains(".git/")));
        drop(check(&workspace));
    }

    #[test]
    fn problems_name_their_place() {
        let source = Source::new("a.rs", String::new());
        assert_eq!(Problem::at(&source, 3, "bad").to_string(), "a.rs:3: bad");
        assert_eq!(Problem::whole("core/wire", "bad").to_string(), "core/wire: bad");
    }
}
