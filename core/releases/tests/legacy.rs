//! Transaction manifests of the older system, and bundle manifests that HMAC signed. Known answers: `gateway/hmac.json` in
//! `SEALTIDE_VECTORS`, else in `vectors/`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and says what it ran")]

use std::path::PathBuf;

use sealtide_identity::keyring::{KeySecret, KeyVersion, VersionKeys};
use sealtide_releases::bundle::{BundleHead, Manifest, NotABundle, Signed};
use sealtide_releases::{LegacyManifest, LegacyRefused};
use serde_json::{Value, json};

/// Payload, HMAC and key of the cases about manifests.
fn cases() -> Vec<(String, String, VersionKeys)> {
    let default = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors"));
    #[expect(clippy::disallowed_methods, reason = "a test reads its vectors from disk")]
    let folder = std::env::var("SEALTIDE_VECTORS").map_or(default, PathBuf::from).join("gateway");
    let entries = std::fs::read_dir(&folder).into_iter().flatten();
    let files =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|it| it == "json"));
    let values = files.map(|path| serde_json::from_str::<Value>(&std::fs::read_to_string(path).unwrap()).unwrap());
    let cases = values.filter(|value| value["algorithm"] == "HMAC-SHA256");
    let cases: Vec<Value> = cases.flat_map(|value| value["vectors"].as_array().cloned().unwrap_or_default()).collect();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |case: &Value| {
        let secret = KeySecret::from_text(case["key"]["text"].as_str().unwrap().as_bytes()).unwrap();
        (text(&case["payload_utf8"]), text(&case["hmac_sha256_hex"]), VersionKeys::derive(KeyVersion::V1, secret))
    };
    let wanted = ["s09-bump-manifest", "s10-manifest-global-no-entity"];
    let found = cases.iter().filter(|case| wanted.contains(&case["id"].as_str().unwrap_or_default()));
    found.map(of).collect()
}

/// A manifest as the older system wrote it: pretty, with both members behind the others.
fn written(payload: &str, signature: &str) -> String {
    let mut value: Value = serde_json::from_str(payload).unwrap();
    value["signature"] = json!(signature);
    value["signedAt"] = json!("2025-11-11T19:05:00.000Z");
    serde_json::to_string_pretty(&value).unwrap()
}

// Proves: GW-73
#[test]
fn legacy_manifest() {
    let cases = cases();
    println!("{} transaction manifests", cases.len());
    assert_eq!(cases.len(), 2);
    for (payload, mac, keys) in &cases {
        let read = LegacyManifest::read(&written(payload, mac)).unwrap();
        assert_eq!((read.content(), read.verify(keys)), (payload.as_str(), Ok(())));
        assert_eq!(read.id(), "5f1d2c3b-0000-4000-8000-0000000000a1");
        // What the older verifier hashed is another text.
        let left_in: Value = serde_json::from_str(&written(payload, mac)).unwrap();
        let mut left_in = left_in.as_object().unwrap().clone();
        left_in.shift_remove("signature");
        assert!(!keys.hmac_verifies(serde_json::to_string(&left_in).unwrap().as_bytes(), mac));
        // Nothing is proven of `signedAt`; everything else is.
        let later = written(payload, mac).replace("2025", "2026");
        assert_eq!(LegacyManifest::read(&later).unwrap().verify(keys), Ok(()));
        for (from, to) in [("prepared", "committed"), ("2.1.3", "2.1.4"), ("1762887900000", "1762887900001")] {
            let changed = LegacyManifest::read(&written(payload, mac).replace(from, to)).unwrap();
            assert_eq!(changed.verify(keys), Err(LegacyRefused::Signature), "{from}");
        }
        let other = VersionKeys::derive(KeyVersion::V1, KeySecret::from_text(&[b'7'; 64]).unwrap());
        assert_eq!(read.verify(&other), Err(LegacyRefused::Signature));
        assert_eq!(LegacyManifest::read(payload).unwrap().verify(keys), Err(LegacyRefused::NotSigned));
        for wrong in ["", "x", &mac[..62]] {
            let read = LegacyManifest::read(&written(payload, wrong)).unwrap();
            assert_eq!(read.verify(keys), Err(LegacyRefused::Signature), "{wrong:?}");
        }
        let odd = |change: &dyn Fn(&mut Value)| {
            let mut value: Value = serde_json::from_str(&written(payload, mac)).unwrap();
            change(&mut value);
            LegacyManifest::read(&value.to_string())
        };
        assert_eq!(odd(&|it| it["more"] = json!(1)), Err(LegacyRefused::Form));
        assert_eq!(odd(&|it| drop(it.as_object_mut().unwrap().remove("status"))), Err(LegacyRefused::Form));
        assert_eq!(odd(&|it| it["transactionId"] = json!(7)), Err(LegacyRefused::Form));
    }
    for text in ["", "[]", "{}", "{\"transactionId\":\"a\",\"transactionId\":\"b\"}"] {
        assert_eq!(LegacyManifest::read(text), Err(LegacyRefused::Form), "{text}");
    }
}

/// A bundle manifest signed by HMAC: whoever could check it could have written it.
// Proves: GW-73
#[test]
fn hmac_bundle_manifest_is_untrusted() {
    let keys = VersionKeys::derive(KeyVersion::V1, KeySecret::from_text(&[b'7'; 64]).unwrap());
    let manifest = json!({"manifestVersion": 1, "registry": "releases^AAAA", "files": []});
    let mac = keys.hmac(manifest.to_string().as_bytes());
    let mut signed = manifest.clone();
    signed["signature"] = json!(mac);
    assert_eq!(LegacyManifest::read(&signed.to_string()), Err(LegacyRefused::Untrusted));
    // In a file, as one of the two signatures or as both: it is said what it is, and it is no bundle.
    let text = manifest.to_string();
    let file = |algorithms: [&str; 2]| {
        let mut bytes = b"\x84\x64STB1".to_vec();
        bytes.extend([0x58, u8::try_from(text.len()).unwrap()]);
        bytes.extend(text.as_bytes());
        bytes.push(0x82);
        for algorithm in algorithms {
            bytes.extend([0x83, 0x61, b'k', 0x60 + u8::try_from(algorithm.len()).unwrap()]);
            bytes.extend(algorithm.as_bytes());
            bytes.extend([0x43, 1, 2, 3]);
        }
        bytes.push(0x80);
        bytes
    };
    for algorithms in [["HMAC-SHA256", "HMAC-SHA256"], ["ML-DSA-87", "HMAC-SHA256"]] {
        assert_eq!(BundleHead::read(&file(algorithms)).unwrap_err(), NotABundle::Untrusted, "{algorithms:?}");
    }
    assert!(matches!(BundleHead::read(&file(["ML-DSA-87", "Ed25519"])).unwrap_err(), NotABundle::Manifest(_)));
    assert_eq!(BundleHead::read(&file(["ML-DSA-87", "MD5"])).unwrap_err(), NotABundle::Encoding);
    // As a document: it is not even read as signed.
    let entry = json!({"kid": "k", "alg": "HMAC-SHA256", "signature": mac});
    signed["signatures"] = json!([entry, entry]);
    assert!(Signed::<Manifest>::from_value(&signed).is_err());
}
