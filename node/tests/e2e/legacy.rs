//! What the older system signed by HMAC, as the command line shows it.

use std::fs;

use serde_json::{Value, json};

use crate::releases::{Publisher, opt};
use crate::support::Machine;

/// The case of the vectors: payload, HMAC, secret.
fn case() -> (Value, String, String) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/gateway/hmac.json");
    let all: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let case = all["vectors"].as_array().unwrap().iter().find(|case| case["id"] == "s09-bump-manifest").unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let payload = serde_json::from_str(case["payload_utf8"].as_str().unwrap()).unwrap();
    (payload, text(&case["hmac_sha256_hex"]), text(&case["key"]["text"]))
}

// Proves: GW-73
#[test]
fn a_manifest_of_the_older_system_is_verified_and_a_bundle_of_hmac_is_untrusted() {
    let machine = Machine::new();
    let file = machine.root().join("manifest.json");
    let file_text = file.to_str().unwrap();
    let (payload, mac, secret) = case();
    let signed = |change: &dyn Fn(&mut Value)| {
        let mut manifest = payload.clone();
        manifest["signature"] = json!(mac);
        manifest["signedAt"] = json!("2025-11-11T19:05:00.000Z");
        change(&mut manifest);
        fs::write(&file, serde_json::to_string_pretty(&manifest).unwrap()).unwrap();
    };
    let verify = |key: Option<&str>| {
        let variables: Vec<(&str, &str)> = key.into_iter().map(|key| ("VERSION_SIGNING_KEY", key)).collect();
        let done = machine.run_in(&variables, &["release", "verify", file_text]);
        (done.code, done.document())
    };
    signed(&|_| ());
    let (code, told) = verify(Some(&secret));
    assert_eq!((code, &told["state"], &told["content"]), (0, &json!("verified"), &payload), "{told}");
    let (code, told) = verify(None);
    assert_eq!((code, &told["error"]["code"]), (6, &json!("no_signing_key")), "nothing is proven without it: {told}");
    let refused = |key: Option<&str>, wanted: &str| {
        let (code, told) = verify(key);
        assert_eq!((code, &told["error"]["code"]), (5, &json!(wanted)), "{told}");
    };
    refused(Some(&"7".repeat(64)), "bad_signature");
    signed(&|manifest| manifest["status"] = json!("committed"));
    refused(Some(&secret), "bad_signature");
    signed(&|manifest| drop(manifest.as_object_mut().unwrap().remove("signature")));
    refused(None, "not_signed");
    signed(&|manifest| manifest["more"] = json!(1));
    refused(Some(&secret), "not_a_manifest");
    signed(&|manifest| manifest["manifestVersion"] = json!(1));
    refused(Some(&secret), "untrusted");
    // A bundle whose second signature says that it is an HMAC: untrusted by name, and not installed.
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    let mut bundle = fs::read(publisher.bundle("1.0.0")).unwrap();
    let at = bundle.windows(8).position(|found| found == b"\x67Ed25519").unwrap();
    bundle.splice(at..at + 8, b"\x6bHMAC-SHA256".iter().copied());
    let odd = machine.root().join("odd.stb");
    fs::write(&odd, &bundle).unwrap();
    let to = opt(&machine);
    let trust = publisher.trust("1.0.0");
    let install =
        ["release", "install", odd.to_str().unwrap(), "--to", to.to_str().unwrap(), "--trust", trust.as_str()];
    machine.fails(&install, 5, "untrusted");
    machine.fails(&["release", "verify", odd.to_str().unwrap(), "--trust", &trust], 5, "untrusted");
    assert!(!to.exists());
}
