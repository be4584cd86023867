//! `up DIR…`: share directories.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::node::Node;

/// Shares directories; one that is shared already keeps its space. The answer names the space of each.
pub(crate) async fn share(node: &Node, dirs: &[PathBuf]) -> Result<Value, Failure> {
    let mut shared = Vec::new();
    for dir in dirs {
        let dir = existing(dir)?;
        let space = match node.space_of_dir(&dir) {
            Some(space) => {
                node.open_share(space, &dir)?;
                space
            }
            None => {
                node.check_dir(&dir)?;
                let name =
                    dir.file_name().map_or_else(|| "space".to_owned(), |name| name.to_string_lossy().into_owned());
                let space = node.create_space(&name, "folder")?;
                // A space without its directory is of no use to anybody.
                node.share_dir(space, &dir).inspect_err(|_| drop(crate::commands::spaces::forget(node, &space)))?;
                space
            }
        };
        let label = node.label(&space);
        shared.push(json!({"dir": dir, "space": space.to_string(), "name": label}));
    }
    Ok(json!({"schema": "sealtide/share/1", "shared": shared}))
}

/// The directory, made when it is missing, without symlinks in its path.
pub(crate) fn existing(dir: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: std::io::Error| Failure::usage("dir", format!("{}: {error}", dir.display()));
    if dir.exists() && !dir.is_dir() {
        return Err(Failure::usage("dir", format!("{} is no directory", dir.display()))
            .hint("name the directory that it is in"));
    }
    std::fs::create_dir_all(dir).map_err(failed)?;
    dir.canonicalize().map_err(failed)
}
