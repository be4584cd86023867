//! Paths of a folder: UTF-8, `/` between names, relative, and never a way out. Spec: ibgib §12.7.

/// Bytes of a path, at most.
pub const PATH_BYTES_MAX: usize = 1024;
/// Bytes of one name of a path, at most.
pub const NAME_BYTES_MAX: usize = 255;
/// How the names of our own temporary files begin; no path with such a name is ever shared.
pub const TEMP_PREFIX: &str = ".sealtide-tmp-";

/// The rule that a path breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathProblem {
    /// No bytes.
    #[error("the path is empty")]
    Empty,
    /// More than [`PATH_BYTES_MAX`] bytes.
    #[error("the path is longer than 1024 bytes")]
    PathTooLong,
    /// More than [`NAME_BYTES_MAX`] bytes in one name.
    #[error("a name is longer than 255 bytes")]
    NameTooLong,
    /// It begins with `/`.
    #[error("the path is absolute")]
    Absolute,
    /// `.`, `..` or nothing between two `/`.
    #[error("a name is empty, `.` or `..`")]
    DotName,
    /// U+0000.
    #[error("the path holds a NUL")]
    Nul,
    /// A name of our own temporary files.
    #[error("names that begin with .sealtide-tmp- are reserved")]
    Reserved,
}

/// Checks a path of a folder by all rules.
///
/// # Errors
/// [`PathProblem`] with the first rule that is broken.
pub fn check_path(path: &str) -> Result<(), PathProblem> {
    if path.is_empty() {
        return Err(PathProblem::Empty);
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(PathProblem::PathTooLong);
    }
    if path.starts_with('/') {
        return Err(PathProblem::Absolute);
    }
    path.split('/').try_for_each(check_name)
}

fn check_name(name: &str) -> Result<(), PathProblem> {
    match name {
        "" | "." | ".." => Err(PathProblem::DotName),
        _ if name.len() > NAME_BYTES_MAX => Err(PathProblem::NameTooLong),
        _ if name.contains('\0') => Err(PathProblem::Nul),
        _ if name.starts_with(TEMP_PREFIX) => Err(PathProblem::Reserved),
        _ => Ok(()),
    }
}

/// The directory part (empty for the top) and the name.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// `dir/name`, or `name` at the top.
pub(crate) fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// The directories above `path`, nearest first, without the top.
pub(crate) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(split(path).0), |dir| Some(split(dir).0)).take_while(|dir| !dir.is_empty())
}

/// Whether `path` is `dir` or lies below it; everything lies below the top.
pub(crate) fn is_within(path: &str, dir: &str) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_every_way_out() {
        for (path, problem) in [
            ("", PathProblem::Empty),
            ("/etc/passwd", PathProblem::Absolute),
            ("..", PathProblem::DotName),
            ("a/../../b", PathProblem::DotName),
            ("a//b", PathProblem::DotName),
            ("a/", PathProblem::DotName),
            ("./a", PathProblem::DotName),
            ("a\0b", PathProblem::Nul),
            ("d/.sealtide-tmp-1", PathProblem::Reserved),
        ] {
            assert_eq!(check_path(path), Err(problem), "{path:?}");
        }
        assert_eq!(check_path(&"n".repeat(256)), Err(PathProblem::NameTooLong));
        assert_eq!(check_path(&vec!["n".repeat(200); 6].join("/")), Err(PathProblem::PathTooLong));
        for path in ["a", "a^b/c d", "ü/🦀", "...", "..a", "a/.b", &"n".repeat(255)] {
            assert_eq!(check_path(path), Ok(()), "{path:?}");
        }
    }

    #[test]
    fn splits_and_climbs() {
        assert_eq!(split("a/b/c"), ("a/b", "c"));
        assert_eq!(split("a"), ("", "a"));
        assert_eq!(ancestors("a/b/c").collect::<Vec<_>>(), ["a/b", "a"]);
        assert_eq!(ancestors("a").count(), 0);
        assert!(is_within("a/b", "a") && is_within("a", "a") && is_within("a", "") && !is_within("ab", "a"));
    }
}
