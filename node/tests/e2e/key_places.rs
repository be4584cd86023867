//! Secrets out of files, of credentials of a service manager and of the environment: which counts, and who may read them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::gateway::{refused, start};
use crate::support::Machine;

// Proves: GW-46, GW-47
#[test]
fn a_file_counts_before_a_credential_and_both_before_the_environment() {
    let machine = Machine::new();
    machine.ok(&["init"]);
    let credentials = machine.home().with_file_name("credentials");
    fs::create_dir(&credentials).unwrap();
    let secret = |word: &str| word.repeat(32);
    fs::write(credentials.join("VERSION_SIGNING_KEY"), secret("b2")).unwrap();
    fs::write(credentials.join("VERSION_SIGNING_KEY_V2"), format!("{}\n", secret("c3"))).unwrap();
    let file = machine.home().with_file_name("v1.key");
    fs::write(&file, format!("{}\n", secret("a1"))).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let named = format!("v1={}", file.display());
    let environment = secret("d4");
    let variables =
        [("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap()), ("VERSION_SIGNING_KEY_V3", environment.as_str())];
    let gateway = start(&machine.home(), &["--key-files", &named], &variables);
    let status = machine.ok(&["keys", "status"]);
    let sources: Vec<&str> =
        status["versions"].as_array().unwrap().iter().map(|it| it["source"].as_str().unwrap()).collect();
    assert_eq!(sources, ["file", "credential", "environment"]);
    gateway.bump("{}");
    drop(gateway);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, told) = refused(&machine.home(), &["--key-files", &named], &variables);
    assert!(code == 6 && told.contains("v1.key") && !told.contains(&secret("a1")), "{code} {told}");
    // Without the file the credential is another v1 than the ledger knows.
    let (code, told) = refused(&machine.home(), &[], &variables);
    assert!(code == 5 && told.contains("v1"), "{code} {told}");
    let (code, _) = refused(&machine.home(), &["--key-files", "v1=relative"], &variables);
    assert_eq!(code, 2);
}
