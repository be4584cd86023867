//! The audit as others check it: written into a file beside a running gateway, verified on a machine without a home.

use crate::gateway::start;
use crate::support::Machine;

// Proves: GW-79
#[test]
fn an_export_is_verified_elsewhere() {
    let (machine, elsewhere) = (Machine::new(), Machine::new());
    let node = machine.ok(&["init"])["node"].as_str().unwrap().to_owned();
    let mut gateway = start(&machine.home(), &[], &[("VERSION_SIGNING_KEY", &"a1".repeat(32))]);
    gateway.bump("{}");
    let file = machine.home().with_file_name("audit-export.jsonl");
    let path = file.to_str().unwrap();
    // Beside the gateway that runs and goes on writing.
    let told = machine.ok(&["audit", "export", "--out", path]);
    assert!(told["lines"].as_u64().unwrap() > 0, "{told}");
    assert_eq!(machine.run(&["audit", "export", "--out", path]).code, 2, "no file is overwritten");
    assert_eq!(elsewhere.ok(&["audit", "verify", path, "--node", &node])["node"], node.as_str());
    gateway.bump("{}");
    machine.ok(&["down"]);
    assert!(gateway.child.as_mut().unwrap().wait().unwrap().success());
    // At its end everything was signed, by the node key and by the key pair that was active.
    let last = machine.plain(&["audit", "export"]).stdout;
    std::fs::write(&file, &last).unwrap();
    let report = elsewhere.ok(&["audit", "verify", path]);
    assert!(report["checkpoints"].as_u64().unwrap() > 0 && report["not_yet_signed"] == 0, "{report}");
    assert!(last.contains("\"alg\":\"Ed25519\""), "both signatures");
    let forged = last.replacen("version_bump_success", "version_bump_succesS", 1);
    assert_ne!(forged, last);
    std::fs::write(&file, forged).unwrap();
    assert_eq!(elsewhere.run(&["audit", "verify", path]).code, 5);
    let other = elsewhere.ok(&["init"])["node"].as_str().unwrap().to_owned();
    std::fs::write(&file, last).unwrap();
    assert_eq!(elsewhere.run(&["audit", "verify", path, "--node", &other]).code, 5, "the audit of somebody else");
}
