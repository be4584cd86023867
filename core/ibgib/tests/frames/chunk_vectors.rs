//! Cut points of generated inputs: `sealtide-chunks-1`.

use sealtide_ibgib::Manifest;
use serde_json::{Value, json};

use crate::splitmix;

/// Another folder than that of the repository.
#[expect(clippy::disallowed_methods, reason = "a test may ask its environment where the vectors are")]
fn other() -> Option<String> {
    std::env::var("SEALTIDE_VECTORS").ok()
}

fn folder() -> std::path::PathBuf {
    let root = other().unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors").to_owned());
    std::path::Path::new(&root).join("ibgib")
}

/// The input of a case: `rule` `splitmix64` (words of the stream of `seed`, little-endian) or `zeros`, `size` bytes,
/// then each byte at an offset in `flip` with its lowest bit changed.
fn input(case: &Value) -> Vec<u8> {
    let size = case["size"].as_u64().unwrap() as usize;
    let mut bytes = match case["rule"].as_str().unwrap() {
        "splitmix64" => splitmix(case["seed"].as_u64().unwrap(), size),
        "zeros" => vec![0; size],
        other => panic!("no rule is called {other}"),
    };
    for offset in case["flip"].as_array().into_iter().flatten() {
        bytes[offset.as_u64().unwrap() as usize] ^= 1;
    }
    bytes
}

fn outcome(bytes: &[u8]) -> Value {
    let manifest = Manifest::cut(&mut &bytes[..], &mut |cut| {
        cut.chunk().check(cut.bytes()).unwrap();
        Ok(())
    })
    .unwrap();
    let chunks: Vec<Value> =
        manifest.chunks.iter().map(|chunk| json!([chunk.length, chunk.hash.to_string()])).collect();
    let hash: String = manifest.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let record = manifest.records().pop().unwrap();
    json!({"hash": hash, "chunks": chunks, "manifest": record.address().as_str(), "sid": record.sid().to_string()})
}

// Proves: SY-65 (cut points do not move unnoticed)
#[test]
fn vectors_chunks() {
    let folder = folder();
    let mut cases = 0;
    for entry in std::fs::read_dir(&folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let file: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        if file["format"] != "sealtide-chunks-1" {
            continue;
        }
        for case in file["cases"].as_array().unwrap() {
            let found = outcome(&input(case));
            assert_eq!(found, case["expect"], "{}: {case:.200}", path.display());
            cases += 1;
        }
    }
    if cases == 0 {
        assert!(other().is_some(), "no case of format sealtide-chunks-1 in {}", folder.display());
        println!("no file of format sealtide-chunks-1 in {}: skipped", folder.display());
    }
}

/// One case in the code as well, so that nothing passes only because no file was found.
#[test]
fn one_cut_is_fixed_here_too() {
    let expected = json!({
        "hash": "b4857b213abd4e666144961afdc102375b465362adb8f7b2ca762e604dd7ddf1",
        "chunks": [
            [278_755, "30785df56752ad0e18b87ecf002e654193ad294a80fdc44e62289a7be3e38dd6"],
            [321_245, "d7e4b8ccc977f5b61a36d1b01dba3f6b081d6a2592d362be28d14bd6babbf0d9"],
        ],
        "manifest": "bin b4857b213abd4e666144961afdc102375b465362adb8f7b2ca762e604dd7ddf1 ^\
                     D0B4D5C1334D548DF45AE066EFB20F2881E36EF8EC9C7B8E5EC7AC49914D09A3",
        "sid": "01ee56af5d6f674e0e6c0d46be312c7b4e1feacd82e427cf8d0bfd77f518c5af",
    });
    assert_eq!(outcome(&splitmix(1, 600_000)), expected);
}
