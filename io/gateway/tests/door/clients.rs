//! Clients that other people wrote: npm `ws`, Bun, Python `websockets`, and pages in headless Chromium.
//!
//! `make setup` installs them from the lock files in `tests/clients`. Where one is missing its test says so.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::client::{Desk, door};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

fn found(paths: &[PathBuf], what: &str) -> Option<PathBuf> {
    let path = paths.iter().find(|path| path.exists()).cloned();
    if path.is_none() {
        println!("SKIPPED: {what} is not installed (make setup installs it)");
    }
    path
}

/// A door with keys v1 and v2 of which v2 is active, and the story that one client tells of it.
async fn told(program: &Path, script: &str, variables: &[(&str, &str)]) -> Value {
    let desk = Desk::new();
    desk.rotate();
    let server = door(&desk, |_| {}).await;
    let mut command = std::process::Command::new(program);
    command.arg(folder().join(script)).current_dir(folder()).env("BASE", format!("http://{}", server.address()));
    command.env("KEY", BASE64.encode(&desk.ed25519_key())).envs(variables.iter().copied());
    command.stdin(Stdio::null());
    let done = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    let what = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{script}: {text}{what}");
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{script}: {text}{what}"))
}

/// What every client must see.
fn check(told: &Value) {
    println!("{told}");
    assert_eq!(told["protocols"], json!(["tes-ui-v2", "tes-ui-v1"]), "the client's order decides; no token is echoed");
    assert_eq!(told["pong"], r##"{"type":"pong","hsl":"#9D4EDD"}"##);
    assert_eq!((&told["before"], &told["after"]), (&json!("1.0.0"), &json!("1.0.1")));
    assert_eq!(told["change"], json!({ "type": "version_changed", "to": "1.0.1" }));
    assert_eq!((&told["algorithm"], &told["replayed"]), (&json!("Ed25519"), &json!("refused")));
    assert_eq!(told["closed"], json!({ "code": 1000, "clean": true }));
}

fn check_badges(told: &Value) {
    let badges = json!({ "pinned": "verified", "unpinned": "signed, key not pinned", "forged": "not verified" });
    assert_eq!(told["badges"], badges);
}

fn node() -> Option<PathBuf> {
    found(&[folder().join("node_modules/ws")], "npm ws")?;
    found(&["/usr/bin/node".into(), "/usr/local/bin/node".into()], "Node")
}

// Proves: GW-5, GW-24, GW-33
#[tokio::test]
async fn npm_ws() {
    let Some(node) = node() else { return };
    let told = told(&node, "node-or-bun.mjs", &[]).await;
    check(&told);
    check_badges(&told);
}

// Proves: GW-5, GW-24, GW-33
#[tokio::test]
async fn bun() {
    // Its npm package would copy the binary when it is installed; that script is not run.
    let kinds = ["bun-linux-x64", "bun-linux-x64-baseline", "bun-linux-aarch64"];
    let paths = kinds.map(|kind| folder().join("node_modules/@oven").join(kind).join("bin/bun"));
    let Some(bun) = found(&paths, "Bun") else { return };
    let told = told(&bun, "node-or-bun.mjs", &[]).await;
    check(&told);
    check_badges(&told);
}

// Proves: GW-5, GW-24, GW-33
#[tokio::test]
async fn python_websockets() {
    let Some(python) = found(&[folder().join("venv/bin/python3")], "Python websockets") else { return };
    let told = told(&python, "client.py", &[]).await;
    check(&told);
    assert_eq!(told["fragments"], true);
}

// Proves: GW-88
#[tokio::test]
async fn chromium() {
    let Some(node) = node() else { return };
    let Some(chromium) = found(&["/usr/bin/chromium".into()], "Chromium") else { return };
    let told = told(&node, "chromium.mjs", &[("CHROMIUM", chromium.to_str().unwrap())]).await;
    check(&told);
    check_badges(&told);
    assert_eq!(told["foreign"], json!({ "fetched": "refused", "opened": "refused" }));
}
