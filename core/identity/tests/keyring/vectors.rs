//! Known answers: `vectors/gateway/hmac.json` and the worked examples. The folder is `SEALTIDE_VECTORS` or `vectors/`.

use std::path::PathBuf;

use data_encoding::HEXLOWER;
use sealtide_crypto::{GatewayContext, Label, sha256, signed_message};
use sealtide_identity::keyring::{Algorithm, KeySecret, VersionKeys, decode_signature};
use serde_json::Value;

use super::support::v;

/// The secret of the worked examples, with which v2 signs.
const SECRET: &str = "25fa979bd57e02bd21c0a2c5b630d663bf7e9e5602901957fc5ae77f2205f988";

fn cases() -> Vec<Value> {
    let default = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors"));
    #[expect(clippy::disallowed_methods, reason = "a test reads its vectors from disk")]
    let folder = std::env::var("SEALTIDE_VECTORS").map_or(default, PathBuf::from).join("gateway");
    let entries = std::fs::read_dir(&folder).into_iter().flatten();
    let files =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|it| it == "json"));
    let values = files.map(|path| serde_json::from_str::<Value>(&std::fs::read_to_string(path).unwrap()).unwrap());
    let cases: Vec<Value> = values
        .filter(|value| value["algorithm"] == "HMAC-SHA256")
        .flat_map(|value| value["vectors"].as_array().cloned().unwrap_or_default())
        .collect();
    println!("{} cases of algorithm HMAC-SHA256 in {}", cases.len(), folder.display());
    cases
}

fn key_of(case: &Value) -> KeySecret {
    let key = &case["key"];
    match key["encoding"].as_str().unwrap() {
        "utf8-text" => KeySecret::from_text(key["text"].as_str().unwrap().as_bytes()).unwrap(),
        "raw-bytes" => {
            let bytes = HEXLOWER.decode(key["hex"].as_str().unwrap().as_bytes()).unwrap();
            KeySecret::from_raw(bytes.try_into().unwrap())
        }
        other => panic!("{other}"),
    }
}

// Proves: GW-42
#[test]
fn hmac_vectors() {
    let cases = cases();
    assert!(!cases.is_empty(), "no vectors of algorithm HMAC-SHA256");
    let mut forbidden = 0;
    for case in &cases {
        let payload = case["payload_utf8"].as_str().unwrap().as_bytes();
        assert_eq!(HEXLOWER.encode(&sha256(payload)), case["payload_sha256"].as_str().unwrap(), "{}", case["id"]);
        let secret = key_of(case);
        assert_eq!(secret.expose().len() as u64, case["key_bytes_len"].as_u64().unwrap(), "{}", case["id"]);
        let keys = VersionKeys::derive(v(1), secret);
        let mac = keys.hmac(payload);
        assert_eq!(mac, case["hmac_sha256_hex"].as_str().unwrap(), "{}", case["id"]);
        assert!(keys.hmac_verifies(payload, &mac));
        assert!(!keys.hmac_verifies(payload, &mac.to_uppercase()));
        for (name, wrong) in case["must_not_equal"].as_object().into_iter().flatten() {
            assert_ne!(mac, wrong.as_str().unwrap(), "{} {name}", case["id"]);
            assert!(!keys.hmac_verifies(payload, wrong.as_str().unwrap()), "{} {name}", case["id"]);
            forbidden += 1;
        }
    }
    println!("{forbidden} values that must not come out");
    assert!(forbidden > 0);
}

// Proves: GW-44
#[test]
fn ed25519_vectors() {
    let keys = VersionKeys::derive(v(2), KeySecret::from_text(SECRET.as_bytes()).unwrap());
    let public = keys.public_keys();
    let ed25519 = public.iter().find(|key| key.algorithm == Algorithm::Ed25519).unwrap();
    let wanted = "660462195784db60d1b2a35992b4047e9e1f32fbb9a25fd2b0b92d4a7f9ab43e";
    assert_eq!(HEXLOWER.encode(&ed25519.public_key), wanted);
    assert_eq!(ed25519.kid, "369a4c9cee054705");
    let text = "tZXmCqh7u2txOHDi2RZztup+Nz2xXMeJJ3OFmo+qIsJJSAQLNV+U33ex2Tpl5puuAez2q/NmCTQDc+LUVsc1Dw==";
    assert_eq!(keys.ed25519(GatewayContext::Bump, b"[]").unwrap(), text);
    let signature = decode_signature(Algorithm::Ed25519, text).unwrap();
    let public = keys.pair().unwrap().ed25519.public();
    assert!(public.verify_alone(GatewayContext::Bump, b"[]", &signature).is_ok());
    assert!(public.verify_alone(GatewayContext::Registry, b"[]", &signature).is_err());
    assert!(public.verify_alone(GatewayContext::Bump, b"[ ]", &signature).is_err());
    // Another version of the same secret has another pair.
    let other = VersionKeys::derive(v(3), KeySecret::from_text(SECRET.as_bytes()).unwrap());
    assert_ne!(other.ed25519(GatewayContext::Bump, b"[]").unwrap(), text);
}

// Proves: GW-44
#[test]
fn mldsa_vectors() {
    let keys = VersionKeys::derive(v(2), KeySecret::from_text(SECRET.as_bytes()).unwrap());
    let pair = keys.pair().unwrap();
    let hash = HEXLOWER.encode(&sha256(pair.ml_dsa.public().as_bytes()));
    assert_eq!(hash, "1c069be31163e0e48e72686cfe3fbc7490abaebdf0e4d45bb38c6806ea29afec");
    let message = HEXLOWER.encode(&sha256(&signed_message(Label::ReleaseManifest, b"{}")));
    assert_eq!(message, "b7ec8f358eda9caa9a652b5202cf45e8dd93e7e590b434f391a155748196fdb8");
    // The key that the seed of the example stands for, made by a second implementation.
    let seed = HEXLOWER.decode(b"f949d208e0f40c743b2c139d8d284eaa5e1d4054f53720ed2009a5b035e85469").unwrap();
    let seed: [u8; 32] = seed.try_into().unwrap();
    let signature = pair.ml_dsa.sign(Label::ReleaseManifest, b"{}");
    let oracle = {
        use ml_dsa::{Keypair, MlDsa87, SigningKey, signature::Verifier};
        let key = SigningKey::<MlDsa87>::from_seed(&seed.into());
        let signature = ml_dsa::Signature::<MlDsa87>::try_from(signature.as_bytes()).unwrap();
        key.verifying_key().verify(&signed_message(Label::ReleaseManifest, b"{}"), &signature)
    };
    assert!(oracle.is_ok());
}

// Proves: GW-101
#[test]
fn pair_seeds() {
    let derive = |secret: KeySecret| VersionKeys::derive(v(2), secret);
    let lower = derive(KeySecret::from_text(SECRET.as_bytes()).unwrap());
    assert_eq!(lower.public_keys().len(), 2);
    // The raw bytes that the digits spell are the same material for the pair, but another HMAC key.
    let raw = KeySecret::from_raw(HEXLOWER.decode(SECRET.as_bytes()).unwrap().try_into().unwrap());
    let raw = derive(raw);
    assert_eq!(raw.public_keys(), lower.public_keys());
    assert_ne!(raw.hmac(b"[]"), lower.hmac(b"[]"));
    for other in
        [SECRET.to_uppercase(), format!("{SECRET}00"), "correct horse battery staple, and then some".to_owned()]
    {
        assert!(derive(KeySecret::from_text(other.as_bytes()).unwrap()).pair().is_none(), "{other}");
    }
}
