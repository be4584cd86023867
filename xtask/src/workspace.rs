//! What the chores look at: the packages as `cargo metadata` tells them, and the text files of the repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::source::Source;

/// Folders that hold nothing written by hand.
const SKIPPED_FOLDERS: [&str; 8] =
    ["target", "build", "node_modules", "venv", "corpus", "artifacts", "demo-home", "demo-folder"];
/// Files that tools write. A `.git` file stands in for the folder in a second work tree.
const SKIPPED_FILES: [&str; 2] = ["Cargo.lock", ".git"];
/// Hidden folders that belong to the repository.
const KEPT_HIDDEN: [&str; 4] = [".cargo", ".ci", ".config", ".github"];

/// Packages and files.
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
    pub(crate) files: Vec<Source>,
}

impl Workspace {
    /// Reads the workspace that this program was started in by cargo, else the one that it was built in.
    pub(crate) fn load() -> Result<Self, String> {
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
        let root = Path::new(&folder).parent().ok_or("xtask has no parent folder")?;
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
            .current_dir(root)
            .output()
            .map_err(|error| format!("cargo metadata: {error}"))?;
        if !output.status.success() {
            return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let metadata = serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
        let packages = Package::all(&metadata).ok_or("cargo metadata: not of the expected form")?;
        let mut files = Vec::new();
        walk(root, root, &mut files).map_err(|error| format!("reading the repository: {error}"))?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { packages, files })
    }
}

/// One member of the workspace.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Its folder relative to the root, as in `core/wire`.
    pub(crate) folder: String,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One arrow out of a package.
#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Only for tests, examples and benchmarks.
    pub(crate) dev: bool,
}

impl Package {
    /// The packages in the answer of `cargo metadata --no-deps`; `None` when it is not of the known form.
    pub(crate) fn all(metadata: &Value) -> Option<Vec<Self>> {
        let root = metadata["workspace_root"].as_str()?;
        metadata["packages"].as_array()?.iter().map(|package| Self::one(package, root)).collect()
    }

    fn one(package: &Value, root: &str) -> Option<Self> {
        let manifest = package["manifest_path"].as_str()?;
        let folder = manifest.strip_prefix(root)?.strip_suffix("Cargo.toml")?.trim_matches('/');
        let dependencies = package["dependencies"].as_array()?.iter().map(|dependency| {
            let dev = dependency["kind"].as_str() == Some("dev");
            Some(Dependency { name: dependency["name"].as_str()?.to_owned(), dev })
        });
        Some(Self {
            name: package["name"].as_str()?.to_owned(),
            folder: folder.to_owned(),
            dependencies: dependencies.collect::<Option<_>>()?,
        })
    }
}

/// Adds every text file below `folder`; files that are not UTF-8 are data, not text.
fn walk(root: &Path, folder: &Path, files: &mut Vec<Source>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        if kind.is_dir() && !is_skipped(&name) {
            walk(root, &entry.path(), files)?;
        } else if kind.is_file()
            && !SKIPPED_FILES.contains(&name.as_str())
            && let Ok(text) = String::from_utf8(fs::read(entry.path())?)
        {
            files.push(Source::new(&relative(root, entry.path()), text));
        }
    }
    Ok(())
}

fn is_skipped(name: &str) -> bool {
    SKIPPED_FOLDERS.contains(&name) || (name.starts_with('.') && !KEPT_HIDDEN.contains(&name))
}

fn relative(root: &Path, path: PathBuf) -> String {
    path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned()
}
