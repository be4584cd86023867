//! Large spaces under a limit of memory that the kernel keeps: whoever asks for more is ended.

use std::process::{Command, Output};

use serde_json::Value;

use crate::scale;

/// Records of the space; ten million by hand: `sealtide bench reconcile --items 10000000 --memory-mib 384`, whose peak is below 256 MiB.
const RECORDS: u64 = 300_000;
/// What the kernel gives a process, whatever the number of records. It counts what the allocator asked for and has not given back too.
/// Spec: ibgib §14
const LIMIT_MIB: u64 = 256;
/// The most that may lie in memory at once, files aside, measured every 10 ms.
const PEAK_MIB: f64 = 128.0;

/// Records of the space that a new node gets.
const BULK_RECORDS: u64 = 20_000;

fn bench(name: &str, items: u64, memory_mib: u64) -> Output {
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealtide"));
    command.args(["bench", name, "--json", "--items", &items.to_string()]);
    command.args(["--differences", "200", "--memory-mib", &memory_mib.to_string(), "--directory"]).arg(place.path());
    command.output().unwrap()
}

/// One saga brings a whole space, in a window of 4 MiB: what came before lies on the disk.
// Proves: SY-44
#[test]
fn a_whole_space_is_received_under_a_limit_of_memory() {
    let done = bench("bulk", BULK_RECORDS, LIMIT_MIB);
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}: {told}", done.status);
    let found: Value = serde_json::from_slice(&done.stdout).unwrap();
    println!("{found:#}");
    assert!(found["records"].as_u64() >= Some(BULK_RECORDS));
    assert!(found["bytes"].as_u64() >= Some(BULK_RECORDS * 1000));
    for end in ["peak_of_sender", "peak_of_receiver"] {
        let peak = found["anonymous_mib"][end].as_f64().unwrap();
        assert!(0.0 < peak && peak < PEAK_MIB, "{end} {peak}");
    }
}

/// Filling, opening, the four sagas, and sixteen at once, in two processes with the limit each.
// Proves: SY-40, SY-41, SY-42, SY-44
#[test]
fn large_spaces_are_reconciled_under_a_limit_of_memory() {
    let items = RECORDS * scale();
    let done = bench("reconcile", items, LIMIT_MIB);
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}: {told}", done.status);
    let found: Value = serde_json::from_slice(&done.stdout).unwrap();
    println!("{items} records: {found:#}");
    let number = |saga: &str, name: &str| found[saga][name].as_u64().unwrap();
    let modes = ["equal", "scattered_items", "scattered_tips", "one_frame"].map(|saga| found[saga]["mode"].as_str());
    assert_eq!(modes, [Some("equal"), Some("recon"), Some("walk"), Some("walk")]);
    assert!(number("equal", "other_bytes") < 4096);
    for saga in ["scattered_items", "scattered_tips"] {
        assert_eq!(number(saga, "records"), 200);
        assert!(number(saga, "rounds") <= 6);
        assert!(number(saga, "reconciliation_bytes") < 200 * 2 * 1024 * 1024 / 1000);
    }
    assert!(number("one_frame", "reconciliation_bytes") + number("one_frame", "other_bytes") < 8 * 1024);
    assert!(number("one_frame", "rounds") <= 3);
    let memory = &found["anonymous_mib"];
    for peak in [&memory["peak_while_filling"], &memory["peak"][0], &memory["peak"][1]] {
        let peak = peak.as_f64().unwrap();
        assert!(0.0 < peak && (peak < PEAK_MIB || scale() > 1), "{memory}");
    }
}

/// The limit is one: with too little the bench ends, and not well. It is above what a process takes before it does anything: where the
/// kernel refuses threads, those that are there wait for them.
// Proves: SY-44
#[test]
fn a_process_over_its_limit_of_memory_is_ended() {
    assert!(!bench("reconcile", 200_000, 64).status.success());
}
