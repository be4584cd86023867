//! The registry in the store: one frame for each revision, signed by the version that is active. Spec: gateway §8.1.

use std::path::Path;

use sealtide_ibgib::{Object, Verified};
use sealtide_identity::NodeId;
use sealtide_identity::keyring::{KeyVersion, Keyring};
use sealtide_releases::{REGISTRY_BYTES_MAX, Registry};
use serde_json::{Value, json};

use super::timelines::{APP, Frames, member};
use crate::failure::{Exit, Failure};

/// What a frame says beside the entities.
pub(super) struct Origin<'a> {
    pub(super) writer: &'a NodeId,
    pub(super) ring: &'a Keyring,
    pub(super) last: Option<KeyVersion>,
}

/// The members of a frame; none for entities that cannot be written as Unicode. Without a pair there is no signature,
/// and the registry stays on its node.
// Spec: GW-108
pub(super) fn frame_data(registry: &Registry, origin: &Origin<'_>) -> Option<Object> {
    let (writer, ledger) = (origin.writer.to_string(), origin.ring.ledger().address());
    let entities: Value = serde_json::from_str(&registry.text()).ok()?;
    let signed = registry.envelope(APP, &writer, ledger).and_then(|text| origin.ring.sign_registry(text.as_bytes()));
    let mut data = Object::from_iter([
        ("app".to_owned(), json!(APP)),
        ("writer".to_owned(), json!(writer)),
        ("ledger".to_owned(), json!(ledger)),
        ("revision".to_owned(), json!(registry.revision())),
        ("entities".to_owned(), entities),
        ("lastSigVersion".to_owned(), json!(origin.last.map(|version| version.to_string()))),
    ]);
    if let Some(signed) = signed {
        data.insert("registrySignature".to_owned(), json!(signed.text));
    }
    Some(data)
}

/// The registry of the store or, when it holds none, that of `file` or the built-in sample.
///
/// # Errors
/// Exit 2 for a file that is no registry, 5 for a stored one that is damaged.
// Spec: GW-97
pub(super) fn open(
    frames: &Frames<'_>,
    origin: &Origin<'_>,
    file: Option<&Path>,
    told: &mut Vec<String>,
) -> Result<(Verified, Registry), Failure> {
    if let Some(frame) = frames.all()?.pop() {
        if file.is_some() {
            told.push("--registry is ignored: the store holds a registry".to_owned());
        }
        let registry = read(&frame, origin)?;
        return Ok((frame, registry));
    }
    let registry = match file {
        Some(path) => {
            let size = std::fs::metadata(path)?.len();
            if size > REGISTRY_BYTES_MAX as u64 {
                return Err(Failure::usage("registry", format!("{} is too long", path.display())));
            }
            Registry::read(&std::fs::read(path)?, 1)
                .map_err(|error| Failure::usage("registry", format!("{}: {error}", path.display())))?
        }
        None => {
            told.push("no registry yet: the built-in sample is shown; --registry FILE brings one".to_owned());
            Registry::sample()
        }
    };
    let refused = || Failure::usage("registry", "the registry holds text that is not Unicode");
    let frame = frames.begin(frame_data(&registry, origin).ok_or_else(refused)?)?;
    Ok((frame, registry))
}

fn read(frame: &Verified, origin: &Origin<'_>) -> Result<Registry, Failure> {
    let damaged = |what: String| Failure::new(Exit::Verification, "registry", format!("the stored registry: {what}"));
    let revision = member(frame, "revision").as_u64().unwrap_or(0);
    let registry = Registry::read(member(frame, "entities").to_string().as_bytes(), revision);
    let registry = registry.map_err(|error| damaged(error.to_string()))?;
    let (writer, ledger) = (member(frame, "writer"), member(frame, "ledger"));
    // Frames of before name no writer; they were never shared.
    if writer.is_null() {
        return Ok(registry);
    }
    if writer != json!(origin.writer.to_string()) || ledger != json!(origin.ring.ledger().address()) {
        return Err(damaged("it was written by another node".to_owned()));
    }
    Ok(registry)
}
