//! Directories that take names of different case for one (vfat, exFAT, ext4 with `casefold`, some network file systems): what answers to a
//! name may be listed under another, and is another path then.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use crate::Placed;
use crate::path::{ancestors, join, split};
use crate::root::{Root, entries};
use crate::stat::Look;

/// The names in directories, listed as they are needed. One value serves one operation.
#[derive(Default)]
pub(crate) struct Spelling {
    names: HashMap<String, BTreeSet<Vec<u8>>>,
    #[cfg(test)]
    listings: usize,
}

impl Spelling {
    /// Whether a directory lists the path by exactly this name.
    pub(crate) fn is_listed(&mut self, root: &Root, path: &str) -> io::Result<bool> {
        let (dir, name) = split(path);
        if self.names.get(dir).is_some_and(|names| names.contains(name.as_bytes())) {
            return Ok(true);
        }
        // It may have come since the directory was listed.
        #[cfg(test)]
        {
            self.listings += 1;
        }
        let names = entries(&*root.dir(dir)?)?.into_iter().map(|(name, _)| name.into_bytes()).collect();
        let names: &BTreeSet<Vec<u8>> = self.names.entry(dir.to_owned()).insert_entry(names).into_mut();
        Ok(names.contains(name.as_bytes()))
    }

    /// How often a directory was listed.
    #[cfg(test)]
    pub(crate) fn listings(&self) -> usize {
        self.listings
    }

    /// Nothing stands at the path by this name any more.
    pub(crate) fn forget(&mut self, path: &str) {
        let (dir, name) = split(path);
        if let Some(names) = self.names.get_mut(dir) {
            names.remove(name.as_bytes());
        }
    }

    /// Whether nothing stands at the path or above it that is listed under another name. What is known to stand somewhere was found by its
    /// name, and so was all above it.
    pub(crate) fn is_exact(&mut self, root: &Root, cache: &BTreeMap<String, Placed>, path: &str) -> io::Result<bool> {
        for part in std::iter::once(path).chain(ancestors(path)).filter(|part| !part.is_empty()) {
            if is_known(cache, part) {
                break;
            }
            if !matches!(root.look(part)?, Look::Nothing) && !self.is_listed(root, part)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether something is known to stand at a path or below it.
fn is_known(cache: &BTreeMap<String, Placed>, path: &str) -> bool {
    let below = join(path, "");
    cache.contains_key(path) || cache.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below))
}
