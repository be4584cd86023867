//! Ignore rules: `.sealtideignore` in any directory of the folder, gitignore syntax.

use std::collections::HashMap;
use std::io::Read;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::path::{TEMP_PREFIX, ancestors, join, split};
use crate::root::Root;

/// The name of a file with ignore rules. It is shared like any other file.
pub const IGNORE_FILE: &str = ".sealtideignore";

/// The ignore rules of a folder, read as they are needed. One value serves one operation.
#[derive(Default)]
pub(crate) struct Rules {
    files: HashMap<String, Option<Gitignore>>,
    /// Files with rules are files like any other.
    off: bool,
}

impl Rules {
    /// No rules at all when `off`, else those of the folder.
    pub(crate) fn unless(off: bool) -> Self {
        Self { off, ..Self::default() }
    }

    /// Whether a rule covers `path` or a directory above it.
    pub(crate) fn is_ignored(&mut self, root: &Root, path: &str, is_dir: bool) -> bool {
        let mut above: Vec<&str> = ancestors(path).collect();
        above.reverse();
        above.into_iter().any(|dir| self.is_ignored_here(root, dir, true)) || self.is_ignored_here(root, path, is_dir)
    }

    /// Whether a rule covers `path`, when no directory above it is ignored. The nearest file with an opinion decides.
    pub(crate) fn is_ignored_here(&mut self, root: &Root, path: &str, is_dir: bool) -> bool {
        if split(path).1.starts_with(TEMP_PREFIX) {
            return true;
        }
        if self.off {
            return false;
        }
        for dir in ancestors(path).chain(std::iter::once("")) {
            let Some(rules) = self.of_dir(root, dir) else { continue };
            let below = if dir.is_empty() { path } else { &path[dir.len() + 1..] };
            match rules.matched(below, is_dir) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }

    fn of_dir(&mut self, root: &Root, dir: &str) -> Option<&Gitignore> {
        if !self.files.contains_key(dir) {
            self.files.insert(dir.to_owned(), read(root, dir));
        }
        self.files.get(dir).and_then(Option::as_ref)
    }

    /// Notes that a directory that was listed holds no file with rules, which saves the attempt to open it.
    pub(crate) fn has_none(&mut self, dir: &str) {
        self.files.insert(dir.to_owned(), None);
    }
}

fn read(root: &Root, dir: &str) -> Option<Gitignore> {
    let path = join(dir, IGNORE_FILE);
    let file = root.open_file(&path).ok()?;
    let mut text = String::new();
    if file.take(RULES_BYTES_MAX).read_to_string(&mut text).is_err() {
        tracing::warn!(path, "ignore rules cannot be read as UTF-8 text");
        return None;
    }
    let mut builder = GitignoreBuilder::new("");
    for line in text.lines() {
        if let Err(problem) = builder.add_line(None, line) {
            tracing::warn!(path, line, %problem, "an ignore rule is not understood");
        }
    }
    builder.build().inspect_err(|problem| tracing::warn!(path, %problem, "ignore rules are not understood")).ok()
}

/// Bytes of a file with rules that are read, at most.
const RULES_BYTES_MAX: u64 = 1024 * 1024;
