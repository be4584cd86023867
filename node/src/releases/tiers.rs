//! Bundles as files: the hot tier, and the archive. Spec: gateway §9.2 to §9.4.
//!
//! ```text
//! HOME/bundles/hot/bundle/vK/NAME/VERSION.stb         K signed it
//!                                /VERSION.manifest.json
//! HOME/bundles/cold/archive/vK/NAME/…                 the same, later
//! HOME/bundles/scratch/                               half-made; emptied at the next start of one
//! ```
//!
//! A version that stands in a second channel too is `VERSION~CHANNEL`. There is no index: a bundle is where its file is, and
//! while it moves it is in both places.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sealtide_releases::bundle::{Manifest, Signed};

use crate::failure::Failure;
use crate::home::Home;

/// What a bundle's name ends with.
const SUFFIX: &str = ".stb";
/// What the name of the manifest beside it ends with.
const MANIFEST_SUFFIX: &str = ".manifest.json";

/// The bundles of a home.
#[derive(Clone, Debug)]
pub(crate) struct Tiers {
    root: PathBuf,
}

/// Where a bundle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// `STANDARD`.
    Hot,
    /// `INFREQUENT_ACCESS`.
    Cold,
}

impl Tier {
    /// The name of its class.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Hot => "STANDARD",
            Self::Cold => "INFREQUENT_ACCESS",
        }
    }

    fn dir(self) -> &'static str {
        match self {
            Self::Hot => "hot/bundle",
            Self::Cold => "cold/archive",
        }
    }
}

impl Tiers {
    pub(crate) fn of(home: &Home) -> Self {
        Self { root: home.root().join("bundles") }
    }

    /// The name of a new file that nobody else uses.
    pub(crate) fn scratch(&self) -> io::Result<PathBuf> {
        let dir = self.root.join("scratch");
        fs::create_dir_all(&dir)?;
        // One publication at a time: what lies here was left by a crash.
        for entry in fs::read_dir(&dir)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(dir.join("payload"))
    }

    /// Writes a bundle to the hot tier; on disk when this returns.
    pub(crate) fn put(&self, manifest: &Signed<Manifest>, head: &[u8], payload: &mut dyn Read) -> io::Result<PathBuf> {
        let path = self.new_path(manifest);
        let dir = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(dir)?;
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(head)?;
        io::copy(payload, &mut file)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        let text = manifest.to_value().to_string();
        let listed = manifest_of(&path);
        fs::write(&beside, text)?;
        File::open(&beside)?.sync_all()?;
        fs::rename(&beside, listed)?;
        File::open(dir)?.sync_all()?;
        Ok(path)
    }

    /// The file of a release.
    ///
    /// # Errors
    /// Exit 1 when it is in no tier.
    pub(crate) fn find(&self, manifest: &Manifest) -> Result<PathBuf, Failure> {
        let names = [plain_name(manifest), channel_name(manifest)];
        let places = [Tier::Hot, Tier::Cold].into_iter().flat_map(|tier| names.iter().map(move |name| (tier, name)));
        let paths = places.map(|(tier, name)| self.dir(tier, manifest).join(format!("{name}{SUFFIX}")));
        let is_it = |path: &PathBuf| read_manifest(path).is_some_and(|found| found.content() == manifest);
        let gone = || {
            let text = format!("the bundle of {} {} ({}) is in no tier", manifest.name, manifest.version, manifest.channel);
            Failure::failed("no_bundle", text)
        };
        paths.into_iter().find(is_it).ok_or_else(gone)
    }

    fn dir(&self, tier: Tier, manifest: &Manifest) -> PathBuf {
        self.root.join(tier.dir()).join(manifest.key_version.to_string()).join(manifest.name.as_str())
    }

    /// The plain name, unless another channel has it.
    fn new_path(&self, manifest: &Signed<Manifest>) -> PathBuf {
        let content = manifest.content();
        let dir = self.dir(Tier::Hot, content);
        let path = dir.join(format!("{}{SUFFIX}", plain_name(content)));
        match read_manifest(&path) {
            Some(other) if other.content().channel != content.channel => {
                dir.join(format!("{}{SUFFIX}", channel_name(content)))
            }
            _ => path,
        }
    }
}

fn plain_name(manifest: &Manifest) -> String {
    manifest.version.to_string()
}

fn channel_name(manifest: &Manifest) -> String {
    format!("{}~{}", manifest.version, manifest.channel)
}

fn manifest_of(bundle: &Path) -> PathBuf {
    let name = bundle.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    bundle.with_file_name(format!("{}{MANIFEST_SUFFIX}", name.trim_end_matches(SUFFIX)))
}

/// The manifest beside a bundle.
fn read_manifest(bundle: &Path) -> Option<Signed<Manifest>> {
    let text = fs::read_to_string(manifest_of(bundle)).ok()?;
    Signed::from_value(&serde_json::from_str(&text).ok()?).ok()
}
