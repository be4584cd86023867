//! The registry in the store: one frame for each revision, signed by the version that is active. Spec: gateway §8.1.

use std::path::Path;

use sealtide_crypto::{Ed25519PublicKey, GatewayContext};
use sealtide_ibgib::{Object, Verified};
use sealtide_identity::NodeId;
use sealtide_identity::keyring::{Algorithm, KeyVersion, Keyring, PublicKeyEntry, VersionState, decode_signature};
use sealtide_releases::{REGISTRY_BYTES_MAX, REGISTRY_TEXT_BYTES_MAX, Registry, Writer};
use serde_json::{Value, json};

use super::timelines::{APP, Frames, member};
use crate::failure::{Exit, Failure};
use crate::known::Known;

/// Where the frame is kept with which this node became the writer. While it is copied: the newest frame that is here, and the one that
/// comes next, each in a line.
pub(super) const TAKEN_SETTING: &str = "gateway.registry_taken";
/// The member with the signature: Ed25519, context `registry`, over the envelope.
const SIGNATURE: &str = "registrySignature";

/// What a frame says beside the entities.
pub(super) struct Origin<'a> {
    pub(super) writer: &'a NodeId,
    pub(super) ring: &'a Keyring,
    pub(super) last: Option<KeyVersion>,
}

/// The registry of a store.
pub(super) struct Opened {
    pub(super) frame: Verified,
    pub(super) registry: Registry,
    /// Who writes it now, when this node has handed it over.
    pub(super) writer: Option<NodeId>,
}

/// The members of a frame; none for entities that cannot be written as Unicode. Without a pair there is no signature,
/// and the registry stays on its node.
// Spec: GW-108
pub(super) fn frame_data(registry: &Registry, origin: &Origin<'_>) -> Option<Object> {
    let own = Writer { node: *origin.writer, ledger: origin.ring.ledger().address().to_owned() };
    frame_for(registry, origin, &own)
}

/// As [`frame_data`], for a frame after which `next` writes.
pub(super) fn frame_for(registry: &Registry, origin: &Origin<'_>, next: &Writer) -> Option<Object> {
    let (writer, ledger) = (next.node.to_string(), next.ledger.as_str());
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
        data.insert("signedBy".to_owned(), json!(signed.version.to_string()));
        data.insert(SIGNATURE.to_owned(), json!(signed.text));
    }
    Some(data)
}

/// The signature of a frame, as it is told to readers.
pub(super) fn signature_of(frame: &Verified) -> Option<String> {
    member(frame, SIGNATURE).as_str().map(str::to_owned)
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
) -> Result<Opened, Failure> {
    if let Some(frame) = frames.newest()? {
        if file.is_some() {
            told.push("--registry is ignored: the store holds a registry".to_owned());
        }
        let taken = Known::of(frames.store).setting(TAKEN_SETTING);
        let (registry, writer) = read(&frame, origin, taken.as_deref())?;
        return Ok(Opened { frame, registry, writer });
    }
    let registry = match file {
        Some(path) => {
            let size = std::fs::metadata(path)?.len();
            let long = |most: usize| {
                let text = format!("{} is too long: a registry has at most {most} bytes", path.display());
                Failure::usage("registry", text)
                    .hint("the home is as it was; a registry with fewer entities begins one")
            };
            if size > REGISTRY_TEXT_BYTES_MAX as u64 {
                return Err(long(REGISTRY_TEXT_BYTES_MAX));
            }
            let registry = Registry::read(&std::fs::read(path)?, 1)
                .map_err(|error| Failure::usage("registry", format!("{}: {error}", path.display())))?;
            if registry.text().len() > REGISTRY_BYTES_MAX {
                return Err(long(REGISTRY_BYTES_MAX));
            }
            registry
        }
        None => {
            told.push("no registry yet: the built-in sample is shown; --registry FILE brings one".to_owned());
            Registry::sample()
        }
    };
    let refused = || Failure::usage("registry", "the registry holds text that is not Unicode");
    let frame = frames.begin(frame_data(&registry, origin).ok_or_else(refused)?)?;
    Ok(Opened { frame, registry, writer: None })
}

/// The registry of a frame, and who writes it now when that is not this node. `taken` is the frame with which this node became
/// the writer, or frames on the way there: another signed it, which was verified then.
fn read(frame: &Verified, origin: &Origin<'_>, taken: Option<&str>) -> Result<(Registry, Option<NodeId>), Failure> {
    let damaged = |what: String| Failure::new(Exit::Verification, "registry", format!("the stored registry: {what}"));
    let revision = member(frame, "revision").as_u64().unwrap_or(0);
    let registry = Registry::read(member(frame, "entities").to_string().as_bytes(), revision);
    let registry = registry.map_err(|error| damaged(error.to_string()))?;
    let (writer, ledger) = (member(frame, "writer"), member(frame, "ledger"));
    // Frames of before name no writer; they were never shared.
    if writer.is_null() {
        return Ok((registry, None));
    }
    let named = writer
        .as_str()
        .zip(ledger.as_str())
        .and_then(|(node, ledger)| Some(Writer { node: node.parse().ok()?, ledger: ledger.to_owned() }));
    let named = named.ok_or_else(|| damaged("it names no writer".to_owned()))?;
    let own = Writer { node: *origin.writer, ledger: origin.ring.ledger().address().to_owned() };
    if taken.is_some_and(|taken| taken.lines().any(|taken| taken == frame.address().as_str())) {
        // A part of what was copied: another writes until the rest is here.
        return Ok((registry, Some(named.node).filter(|node| *node != own.node)));
    }
    let signature = signature_of(frame);
    if named != own && (signature.is_none() || named.node == own.node) {
        return Err(damaged("it was written by another node".to_owned()));
    }
    if let Some(text) = signature
        && !is_signed(&registry, origin, &named, &member(frame, "signedBy"), &text)
    {
        return Err(damaged("it was written by another node, or its signature does not verify".to_owned()));
    }
    // Signed by this node, and naming another: it was handed over.
    Ok((registry, Some(named.node).filter(|node| *node != own.node)))
}

/// Whether the version that a frame names signed it. With a destroyed version nothing can be checked any more.
fn is_signed(registry: &Registry, origin: &Origin<'_>, named: &Writer, by: &Value, text: &str) -> bool {
    let Some(version) = by.as_str().and_then(KeyVersion::parse) else { return false };
    let ledger = origin.ring.ledger();
    if ledger.state(version) == Some(VersionState::Destroyed) {
        return true;
    }
    let of_version = |key: &&PublicKeyEntry| key.version == version && key.algorithm == Algorithm::Ed25519;
    let key = ledger.keys().iter().find(of_version).and_then(|key| Ed25519PublicKey::parse(&key.public_key).ok());
    let envelope = registry.envelope(APP, &named.node.to_string(), &named.ledger);
    let signature = decode_signature(Algorithm::Ed25519, text);
    // A version that ended since signed it in its time: what counts here is that nobody else did.
    key.zip(envelope).zip(signature).is_some_and(|((key, envelope), signature)| {
        key.verify_alone(GatewayContext::Registry, envelope.as_bytes(), &signature).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use sealtide_crypto::{Now, Seed, SeededEntropy, SigningKey};
    use sealtide_ibgib::{Relations, Stamp, genesis, space_genesis};
    use sealtide_identity::keyring::{KeyOffers, KeyPolicy, LedgerRow, LoadedKeys};
    use sealtide_store::mem::MemDisk;
    use sealtide_store::{Config, Store};

    use super::*;

    fn ring(node: &SigningKey) -> Keyring {
        let load = || {
            let files = BTreeMap::from([(KeyVersion::V1, "a1".repeat(32).into_bytes())]);
            LoadedKeys::load(&KeyOffers { files, ..KeyOffers::default() }, &mut SeededEntropy::new(1)).unwrap()
        };
        let first = Keyring::first_record(&load(), node, "test", Now { mono_ms: 0, wall_ms: 1 }).unwrap();
        let row = LedgerRow::of(&first, "tip", None);
        Keyring::open(load(), "keyring^1", &[first], &row, 1, node.public(), KeyPolicy::default()).unwrap()
    }

    // Proves: GW-97
    #[test]
    fn a_registry_that_no_record_takes_is_refused_and_the_longest_is_kept() {
        let store = Store::open(Arc::new(MemDisk::new(1)), Config::default()).unwrap();
        let space = store.create_space(space_genesis(APP, "app", "somebody", Stamp { ms: 1 }, "u")).unwrap();
        let node = SigningKey::from_seed(&Seed::from_bytes([3; 32]));
        let (ring, writer) = (ring(&node), NodeId::of(node.public()));
        let origin = Origin { writer: &writer, ring: &ring, last: None };
        let frames = Frames { store: &store, space: &space, ib: "registry" };
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = |bytes: usize| {
            let mut text = Registry::sample().text();
            let length = bytes - text.len();
            text = text.replacen("Main", &format!("Main{}", "x".repeat(length)), 1);
            std::fs::write(file.path(), text).unwrap();
            open(&frames, &origin, Some(file.path()), &mut Vec::new())
        };
        for bytes in [REGISTRY_BYTES_MAX + 1, REGISTRY_TEXT_BYTES_MAX + 1] {
            let refused = open(bytes).err().expect("it is too long");
            assert_eq!((refused.exit, refused.code.as_str()), (Exit::Usage, "registry"), "{}", refused.message);
        }
        assert_eq!(frames.count().unwrap(), 0);
        let kept = open(REGISTRY_BYTES_MAX).unwrap();
        assert_eq!(frames.newest().unwrap(), Some(kept.frame));
    }

    // Proves: GW-108
    #[test]
    fn a_frame_of_another_writer_or_with_another_signature_is_refused() {
        let node = SigningKey::from_seed(&Seed::from_bytes([3; 32]));
        let (ring, writer) = (ring(&node), NodeId::of(node.public()));
        let origin = Origin { writer: &writer, ring: &ring, last: None };
        let registry = Registry::sample();
        let data = frame_data(&registry, &origin).unwrap();
        let frame = |data: Object| genesis("registry", data, Relations::new(), Stamp { ms: 1 }, "u");
        let read = |frame: &Verified| read(frame, &origin, None);
        assert_eq!(read(&frame(data.clone())).unwrap(), (registry.clone(), None));
        let other = NodeId::from_bytes([9; 32]).to_string();
        for (name, value) in [
            ("writer", json!(other)),
            ("ledger", json!("keyring^2")),
            ("revision", json!(2)),
            ("signedBy", json!("v2")),
            ("signedBy", json!(null)),
            (SIGNATURE, json!("AAAA")),
            ("entities", json!([])),
        ] {
            let mut changed = data.clone();
            changed.insert(name.to_owned(), value);
            assert!(read(&frame(changed)).is_err(), "{name}");
        }
        // This node says itself that another writes from here on.
        let next = Writer { node: NodeId::from_bytes([9; 32]), ledger: "keyring^9".to_owned() };
        let handed = frame_for(&registry, &origin, &next).unwrap();
        assert_eq!(read(&frame(handed.clone())).unwrap().1, Some(next.node));
        let mut unsigned = handed;
        unsigned.shift_remove(SIGNATURE);
        assert!(read(&frame(unsigned)).is_err(), "so could anybody");
        // Frames of before have neither.
        let mut plain = data;
        for name in ["writer", "ledger", SIGNATURE, "signedBy"] {
            plain.shift_remove(name);
        }
        assert!(read(&frame(plain)).is_ok());
    }
}
