//! The registry in the store: one frame for each revision, signed by the version that is active. Spec: gateway §8.1.

use std::path::Path;

use sealtide_crypto::{Ed25519PublicKey, GatewayContext};
use sealtide_ibgib::{Object, Verified};
use sealtide_identity::NodeId;
use sealtide_identity::keyring::{Algorithm, KeyVersion, Keyring, PublicKeyEntry, VersionState, decode_signature};
use sealtide_releases::{REGISTRY_BYTES_MAX, Registry};
use serde_json::{Value, json};

use super::timelines::{APP, Frames, member};
use crate::failure::{Exit, Failure};

/// The member with the signature: Ed25519, context `registry`, over the envelope.
const SIGNATURE: &str = "registrySignature";

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
    if let Some(text) = signature_of(frame)
        && !is_signed(&registry, origin, &member(frame, "signedBy"), &text)
    {
        return Err(damaged("its signature does not verify".to_owned()));
    }
    Ok(registry)
}

/// Whether the version that a frame names signed it. With a destroyed version nothing can be checked any more.
fn is_signed(registry: &Registry, origin: &Origin<'_>, by: &Value, text: &str) -> bool {
    let Some(version) = by.as_str().and_then(KeyVersion::parse) else { return false };
    let ledger = origin.ring.ledger();
    if ledger.state(version) == Some(VersionState::Destroyed) {
        return true;
    }
    let of_version = |key: &&PublicKeyEntry| key.version == version && key.algorithm == Algorithm::Ed25519;
    let key = ledger.keys().iter().find(of_version).and_then(|key| Ed25519PublicKey::parse(&key.public_key).ok());
    let envelope = registry.envelope(APP, &origin.writer.to_string(), ledger.address());
    let signature = decode_signature(Algorithm::Ed25519, text);
    // A version that ended since signed it in its time: what counts here is that nobody else did.
    key.zip(envelope).zip(signature).is_some_and(|((key, envelope), signature)| {
        key.verify_alone(GatewayContext::Registry, envelope.as_bytes(), &signature).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sealtide_crypto::{Now, Seed, SeededEntropy, SigningKey};
    use sealtide_ibgib::{Relations, Stamp, genesis};
    use sealtide_identity::keyring::{KeyOffers, KeyPolicy, LedgerRow, LoadedKeys};

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

    // Proves: GW-108
    #[test]
    fn a_frame_of_another_writer_or_with_another_signature_is_refused() {
        let node = SigningKey::from_seed(&Seed::from_bytes([3; 32]));
        let (ring, writer) = (ring(&node), NodeId::of(node.public()));
        let origin = Origin { writer: &writer, ring: &ring, last: None };
        let registry = Registry::sample();
        let data = frame_data(&registry, &origin).unwrap();
        let frame = |data: Object| genesis("registry", data, Relations::new(), Stamp { ms: 1 }, "u");
        assert_eq!(read(&frame(data.clone()), &origin).unwrap(), registry);
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
            assert!(read(&frame(changed), &origin).is_err(), "{name}");
        }
        // Frames of before have neither.
        let mut plain = data;
        for name in ["writer", "ledger", SIGNATURE, "signedBy"] {
            plain.shift_remove(name);
        }
        assert!(read(&frame(plain), &origin).is_ok());
    }
}
