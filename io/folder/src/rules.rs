//! Ignore rules: `.sealtideignore` in any directory of the folder, gitignore syntax.

use std::collections::HashMap;
use std::io::{self, Read};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::io::Errno;
use sealtide_ibgib::FileKind;

use crate::SkipReason;
use crate::path::{TEMP_PREFIX, ancestors, join, split};
use crate::root::{Root, look_fd};

/// The name of a file with ignore rules. It is shared like any other file.
pub const IGNORE_FILE: &str = ".sealtideignore";

/// The ignore rules of a folder, read as they are needed. One value serves one operation.
#[derive(Default)]
pub(crate) struct Rules {
    files: HashMap<String, RulesOfDir>,
    /// Files with rules are files like any other.
    off: bool,
}

/// The rules of one directory.
enum RulesOfDir {
    /// There is no file with rules.
    None,
    Known(Gitignore),
    /// There is one that cannot be read, for this reason. Any path of the directory may be covered, so all of them count as ignored.
    Unknown(String),
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

    /// Whether a rule covers `path`, when no directory above it is ignored. The nearest file with an opinion decides. A file with rules
    /// that cannot be read covers all beside and below it, but not itself: a version of it that can be read may take its place.
    pub(crate) fn is_ignored_here(&mut self, root: &Root, path: &str, is_dir: bool) -> bool {
        if split(path).1.starts_with(TEMP_PREFIX) {
            return true;
        }
        if self.off {
            return false;
        }
        for dir in ancestors(path).chain(std::iter::once("")) {
            let below = if dir.is_empty() { path } else { &path[dir.len() + 1..] };
            let rules = match self.of_dir(root, dir) {
                RulesOfDir::Known(rules) => rules,
                RulesOfDir::Unknown(_) if below != IGNORE_FILE => return true,
                RulesOfDir::Unknown(_) | RulesOfDir::None => continue,
            };
            match rules.matched(below, is_dir) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }

    /// Why nothing is known of the rules of a directory, where that is so.
    pub(crate) fn problem(&mut self, root: &Root, dir: &str) -> Option<SkipReason> {
        if self.off {
            return None;
        }
        let RulesOfDir::Unknown(problem) = self.of_dir(root, dir) else { return None };
        Some(SkipReason::RulesUnreadable { path: join(dir, IGNORE_FILE), problem: problem.clone() })
    }

    /// Why an ignored path is left alone.
    pub(crate) fn reason(&mut self, root: &Root, path: &str) -> SkipReason {
        let mut dirs = ancestors(path).chain(std::iter::once(""));
        dirs.find_map(|dir| self.problem(root, dir)).unwrap_or(SkipReason::Ignored)
    }

    fn of_dir(&mut self, root: &Root, dir: &str) -> &RulesOfDir {
        if !self.files.contains_key(dir) {
            self.files.insert(dir.to_owned(), read(root, dir));
        }
        &self.files[dir]
    }

    /// Notes that a directory that was listed holds no file with rules, which saves the attempt to open it.
    pub(crate) fn has_none(&mut self, dir: &str) {
        self.files.insert(dir.to_owned(), RulesOfDir::None);
    }
}

fn read(root: &Root, dir: &str) -> RulesOfDir {
    let path = join(dir, IGNORE_FILE);
    let text = match read_text(root, &path) {
        Ok(Some(text)) => text,
        Ok(None) => return RulesOfDir::None,
        Err(problem) => return RulesOfDir::Unknown(problem.to_string()),
    };
    // As text of one byte for a letter, UTF-16 is rules that cover nothing.
    if text.contains(&0) || [&[0xff, 0xfe], &[0xfe, 0xff]].iter().any(|mark| text.starts_with(*mark)) {
        return RulesOfDir::Unknown("it is not UTF-8 text: save it as UTF-8".to_owned());
    }
    let mut builder = GitignoreBuilder::new("");
    // A comment in another encoding says nothing; a rule in one covers no path, since all of those are UTF-8.
    for line in String::from_utf8_lossy(text.strip_prefix(BOM).unwrap_or(&text)).lines() {
        if let Err(problem) = builder.add_line(None, line) {
            tracing::warn!(path, line, %problem, "an ignore rule is not understood");
        }
    }
    builder.build().map_or_else(|problem| RulesOfDir::Unknown(problem.to_string()), RulesOfDir::Known)
}

/// The bytes of a file with rules; none where there is no such file.
fn read_text(root: &Root, path: &str) -> io::Result<Option<Vec<u8>>> {
    let file = match root.open_file(path) {
        Err(problem) if matches!(Errno::from_io_error(&problem), Some(Errno::NOENT | Errno::NOTDIR)) => {
            return Ok(None);
        }
        Err(problem) if Errno::from_io_error(&problem) == Some(Errno::LOOP) => {
            return Err(io::Error::other("it is a symbolic link, which is never followed"));
        }
        other => other?,
    };
    if look_fd(&file)?.stat().is_none_or(|stat| stat.kind != FileKind::File) {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = Vec::new();
    file.take(RULES_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > RULES_BYTES_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(Some(text))
}

/// What some editors put before the first line.
const BOM: &[u8] = "\u{feff}".as_bytes();
/// Bytes of a file with rules that are read, at most.
const RULES_BYTES_MAX: u64 = 1024 * 1024;
