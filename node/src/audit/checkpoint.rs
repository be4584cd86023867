//! What a checkpoint says, and who must have signed it. Spec: gateway §10.1.
//!
//! The node key (ML-DSA-87) always signs; beside it the Ed25519 key of the version that is active, where the home has
//! signing keys. `signers` is part of what is signed: none can be left out afterwards.

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER};
use sealtide_crypto::{Ed25519PublicKey, Label, PublicKey, SigningKey, sha256};
use serde_json::{Value, json};

/// The schema of a checkpoint.
const SCHEMA: &str = "sealtide/checkpoint/1";
const ML_DSA: &str = "ML-DSA-87";
const ED25519: &str = "Ed25519";

/// The second signer of checkpoints: whoever keeps the signing keys.
pub trait CheckpointSigner: Send + Sync {
    /// The name of its Ed25519 key now; none without one.
    fn kid(&self) -> Option<String>;
    /// The signature by the key of that name; none when another one signs by now.
    fn sign(&self, kid: &str, content: &[u8]) -> Option<Vec<u8>>;
}

/// Lines that a checkpoint covers, and the hash of the last one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Covered {
    pub(super) n: u64,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) head: [u8; 32],
}

/// Makes a signed checkpoint.
pub(super) fn make(covered: &Covered, node: &SigningKey, second: Option<&dyn CheckpointSigner>) -> Value {
    let own = node_kid(node.public());
    let with_second = second.and_then(|second| {
        let kid = second.kid()?;
        let unsigned = unsigned(covered, &own, Some(&kid));
        let signature = second.sign(&kid, unsigned.to_string().as_bytes())?;
        Some((unsigned, Some((kid, signature))))
    });
    let (mut value, ed25519) = with_second.unwrap_or_else(|| (unsigned(covered, &own, None), None));
    let signature = node.sign(Label::AuditCheckpoint, value.to_string().as_bytes());
    let entry = |kid: &str, alg: &str, sig: &[u8]| json!({"kid": kid, "alg": alg, "sig": BASE64.encode(sig)});
    let mut signatures = vec![entry(&own, ML_DSA, signature.as_bytes())];
    signatures.extend(ed25519.map(|(kid, signature)| entry(&kid, ED25519, &signature)));
    value["signatures"] = json!(signatures);
    value
}

/// Checks a checkpoint against the hash of the line it ends with, and all its signatures.
///
/// # Errors
/// What is wrong, in words.
// Spec: GW-79
pub(super) fn check(
    checkpoint: &Value,
    head: &[u8; 32],
    node: &PublicKey,
    keys: &BTreeMap<String, Ed25519PublicKey>,
) -> Result<(), String> {
    let name = format!("audit checkpoint {}", checkpoint["n"]);
    if checkpoint["head"] != json!(HEXLOWER.encode(head)) {
        return Err(format!("{name} does not fit the lines it covers"));
    }
    let mut unsigned = checkpoint.clone();
    let signatures = unsigned.as_object_mut().and_then(|object| object.shift_remove("signatures")).unwrap_or_default();
    let content = unsigned.to_string();
    let (signers, signatures) = (list(&unsigned["signers"]), list(&signatures));
    let is_node_first = signers.first().is_some_and(|first| first["alg"] == ML_DSA);
    if !is_node_first || signers.len() != signatures.len() || signers.len() > 2 {
        return Err(format!("a signer of {name} did not sign it"));
    }
    for (at, (signer, entry)) in signers.iter().zip(signatures).enumerate() {
        let bad = || format!("a signature of {name} does not verify");
        let kid = signer["kid"].as_str().ok_or_else(bad)?;
        if entry["kid"] != signer["kid"] || entry["alg"] != signer["alg"] {
            return Err(format!("a signer of {name} did not sign it"));
        }
        let signature = entry["sig"].as_str().and_then(|text| BASE64.decode(text.as_bytes()).ok()).ok_or_else(bad)?;
        let content = content.as_bytes();
        let holds = match at {
            0 => kid == node_kid(node) && node.verify(Label::AuditCheckpoint, content, &signature).is_ok(),
            _ if signer["alg"] != ED25519 => false,
            _ => keys.get(kid).is_some_and(|key| key.verify(Label::AuditCheckpoint, content, &signature).is_ok()),
        };
        if !holds {
            return Err(bad());
        }
    }
    Ok(())
}

/// Members in order of name, as RFC 8785 wants them; all values are small integers and ASCII text.
fn unsigned(covered: &Covered, node_kid: &str, second_kid: Option<&str>) -> Value {
    let mut signers = vec![json!({"alg": ML_DSA, "kid": node_kid})];
    signers.extend(second_kid.map(|kid| json!({"alg": ED25519, "kid": kid})));
    json!({
        "from": covered.from,
        "head": HEXLOWER.encode(&covered.head),
        "n": covered.n,
        "schema": SCHEMA,
        "signers": signers,
        "to": covered.to,
    })
}

fn node_kid(key: &PublicKey) -> String {
    HEXLOWER.encode(&sha256(key.as_bytes())[..16])
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use sealtide_crypto::{Ed25519SigningKey, Seed};

    use super::*;

    struct Second(Ed25519SigningKey);

    impl CheckpointSigner for Second {
        fn kid(&self) -> Option<String> {
            Some("00ff".to_owned())
        }

        fn sign(&self, _: &str, content: &[u8]) -> Option<Vec<u8>> {
            Some(self.0.sign(Label::AuditCheckpoint, content).to_vec())
        }
    }

    // Proves: GW-79
    #[test]
    fn audit_checkpoint() {
        let node = SigningKey::from_seed(&Seed::from_bytes([3; 32]));
        let second = Second(Ed25519SigningKey::from_seed(&Seed::from_bytes([4; 32])));
        let key = Ed25519PublicKey::parse(second.0.public().as_bytes()).unwrap();
        let keys = BTreeMap::from([("00ff".to_owned(), key)]);
        let covered = Covered { n: 1, from: 1, to: 9, head: [7; 32] };
        let alone = make(&covered, &node, None);
        let both = make(&covered, &node, Some(&second));
        for (made, count) in [(&alone, 1), (&both, 2)] {
            assert_eq!(list(&made["signatures"]).len(), count);
            check(made, &[7; 32], node.public(), &keys).unwrap();
            assert!(check(made, &[8; 32], node.public(), &keys).is_err());
        }
        assert!(check(&both, &[7; 32], node.public(), &BTreeMap::new()).is_err(), "the key is not known");
        let bad = |change: &dyn Fn(&mut Value)| {
            let mut changed = both.clone();
            change(&mut changed);
            check(&changed, &[7; 32], node.public(), &keys).unwrap_err()
        };
        bad(&|value| drop(value["signatures"].as_array_mut().unwrap().pop()));
        bad(&|value| drop(value["signatures"].as_array_mut().unwrap().remove(0)));
        bad(&|value| value["signatures"].as_array_mut().unwrap().swap(0, 1));
        // Left out on both sides: what was signed named it.
        bad(&|value| {
            value["signatures"].as_array_mut().unwrap().pop();
            value["signers"].as_array_mut().unwrap().pop();
        });
        bad(&|value| {
            value["signatures"].as_array_mut().unwrap().remove(0);
            value["signers"].as_array_mut().unwrap().remove(0);
        });
        bad(&|value| value["to"] = json!(10));
        bad(&|value| value["signatures"][1]["alg"] = json!("ML-DSA-87"));
    }
}
