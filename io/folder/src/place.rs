//! Decisions about whole folders: where one may stand, and which change is too large to take without asking.

use std::io;
use std::path::{Path, PathBuf};

/// Why a directory cannot be shared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceProblem {
    /// It lies inside another shared folder.
    #[error("{} lies inside the shared folder {}", dir.display(), other.display())]
    Inside {
        /// The directory.
        dir: PathBuf,
        /// The folder around it.
        other: PathBuf,
    },
    /// Another shared folder lies inside it.
    #[error("the shared folder {} lies inside {}", other.display(), dir.display())]
    Around {
        /// The directory.
        dir: PathBuf,
        /// The folder inside.
        other: PathBuf,
    },
    /// It holds the home of the node, or lies in it.
    #[error("{} and the home of the node, {}, overlap", dir.display(), home.display())]
    Home {
        /// The directory.
        dir: PathBuf,
        /// The home.
        home: PathBuf,
    },
}

/// Whether `inner` is `outer` or lies inside it, with all links resolved. Paths that do not exist yet count as where
/// they would be made.
///
/// # Errors
/// What the system reports while it resolves the paths.
pub fn is_inside(inner: &Path, outer: &Path) -> io::Result<bool> {
    Ok(resolve(inner)?.starts_with(resolve(outer)?))
}

/// Checks that `dir` neither overlaps with the home of the node nor with another shared folder. The same folder once
/// more is no problem.
///
/// # Errors
/// The outer result is what the system reports, the inner one the first [`PlaceProblem`].
pub fn may_share(dir: &Path, home: &Path, shared: &[PathBuf]) -> io::Result<Result<(), PlaceProblem>> {
    let (dir, home) = (resolve(dir)?, resolve(home)?);
    if dir.starts_with(&home) || home.starts_with(&dir) {
        return Ok(Err(PlaceProblem::Home { dir, home }));
    }
    for other in shared {
        let other = resolve(other)?;
        if other == dir {
            continue;
        }
        if dir.starts_with(&other) {
            return Ok(Err(PlaceProblem::Inside { dir, other }));
        }
        if other.starts_with(&dir) {
            return Ok(Err(PlaceProblem::Around { dir, other }));
        }
    }
    Ok(Ok(()))
}

/// How few files a folder has of which any number may change.
const FEW: usize = 20;
/// From how many files on new versions of files count as a mass change.
const EDITS_MIN: usize = 100;

/// Whether a change that removes or replaces `gone` files of a folder of `total`, and brings new versions of `edited` others, must wait
/// for a person: more than half of those that did not come a moment ago (`newcomers`), in a folder with over 20 files. New versions count
/// from 100 of them on: somebody who worked on a dozen files of a small folder while others were away did nothing that anybody must be
/// asked about.
pub fn is_mass_change(total: usize, newcomers: usize, gone: usize, edited: usize) -> bool {
    let edited = if edited < EDITS_MIN { 0 } else { edited };
    // However many came, a few that go are few.
    let standing = total.saturating_sub(newcomers).max(FEW);
    total > FEW && gone.saturating_add(edited).saturating_mul(2) > standing
}

/// The path without links; for the part that does not exist yet, as written.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for existing in path.ancestors() {
        match existing.canonicalize() {
            Ok(real) => {
                let rest = path.strip_prefix(existing).map_err(io::Error::other)?;
                return Ok(if rest.as_os_str().is_empty() { real } else { real.join(rest) });
            }
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => {}
            Err(problem) => return Err(problem),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_folder_with_over_twenty() {
        for (total, newcomers, gone, edited, expected) in [
            (20, 0, 20, 0, false),
            (21, 0, 10, 0, false),
            (21, 0, 11, 0, true),
            (22, 0, 11, 0, false),
            (0, 0, 0, 0, false),
            (1000, 0, 501, 0, true),
            (22, 0, 0, 22, false),
            (22, 0, 11, 22, false),
            (120, 0, 0, 99, false),
            (120, 0, 0, 100, true),
            (200, 0, 1, 100, true),
            (200, 0, 0, 100, false),
            (46, 16, 16, 0, true),
            (46, 16, 15, 0, false),
            (25, 10, 15, 0, true),
            (30, 28, 2, 0, false),
        ] {
            let found = is_mass_change(total, newcomers, gone, edited);
            assert_eq!(found, expected, "{gone} and {edited} of {total}, {newcomers} new");
        }
    }

    #[test]
    fn overlaps_are_found_through_links() {
        let temp = tempfile::tempdir().expect("temp dir");
        let at = |name: &str| temp.path().join(name);
        std::fs::create_dir_all(at("a/b")).expect("make");
        std::fs::create_dir_all(at("home")).expect("make");
        std::os::unix::fs::symlink(at("a"), at("link")).expect("link");
        assert!(is_inside(&at("link/b/new"), &at("a")).expect("resolve"));
        assert!(!is_inside(&at("ab"), &at("a")).expect("resolve"));
        let share = |dir: &str| may_share(&at(dir), &at("home"), &[at("a")]).expect("resolve");
        assert!(matches!(share("link/b"), Err(PlaceProblem::Inside { .. })));
        assert!(matches!(share(""), Err(PlaceProblem::Home { .. })));
        assert!(matches!(share("home/x"), Err(PlaceProblem::Home { .. })));
        assert_eq!((share("a"), share("c")), (Ok(()), Ok(())));
        let around = may_share(&at("a"), &at("home"), &[at("a/b")]).expect("resolve");
        assert!(matches!(around, Err(PlaceProblem::Around { .. })));
    }
}
