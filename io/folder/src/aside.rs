//! Names for a local file that makes room: `stem (local yyyy-mm-dd).ext`.

use std::io;

use time::OffsetDateTime;

use crate::path::{NAME_BYTES_MAX, PATH_BYTES_MAX, join, split};
use crate::root::Root;

/// Renames `at` to the first free name beside `path`, and returns the new path.
pub(crate) fn rename(root: &Root, at: &str, path: &str) -> io::Result<String> {
    let date = OffsetDateTime::now_utc().date();
    for count in 1..=ATTEMPTS_MAX {
        let to = name(path, &date.to_string(), count);
        match root.rename_new(at, &to) {
            Err(problem) if problem.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|()| to),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "all names to set the file aside are taken"))
}

/// The `count`-th name to set `path` aside by; the stem is cut where the name or path would become too long.
fn name(path: &str, date: &str, count: u32) -> String {
    let (dir, name) = split(path);
    let (stem, extension) = match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= EXTENSION_BYTES_MAX => name.split_at(dot),
        _ => (name, ""),
    };
    let counted = if count > 1 { format!(" {count}") } else { String::new() };
    let end = format!(" (local {date}){counted}{extension}");
    let above = if dir.is_empty() { 0 } else { dir.len() + 1 };
    let room = NAME_BYTES_MAX.min(PATH_BYTES_MAX.saturating_sub(above)).saturating_sub(end.len());
    let cut = (0..=room.min(stem.len())).rev().find(|at| stem.is_char_boundary(*at)).unwrap_or(0);
    join(dir, &format!("{}{end}", &stem[..cut]))
}

const ATTEMPTS_MAX: u32 = 1000;
const EXTENSION_BYTES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn keeps_the_extension_and_the_limits() {
        assert_eq!(name("d/a.tar.gz", "2026-11-02", 1), "d/a.tar (local 2026-11-02).gz");
        assert_eq!(name("a", "2026-11-02", 3), "a (local 2026-11-02) 3");
        assert_eq!(name(".bashrc", "2026-11-02", 1), ".bashrc (local 2026-11-02)");
        let long = name(&format!("{}.txt", "ü".repeat(125)), "2026-11-02", 1);
        assert!(long.len() <= 255 && long.ends_with("ü (local 2026-11-02).txt"), "{long}");
    }
}
