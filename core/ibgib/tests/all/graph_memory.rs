//! One million records are walked in under 64 MiB. Alone in its file, so that nothing else fills the process.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "helpers of tests are tests")]

use sealtide_ibgib::{Address, GraphOptions, GraphSource, Verified, dependency_graph};

const NODES: u64 = 1_000_000;
const MIB: u64 = 1024 * 1024;

/// A graph that is computed, not stored: node numbers → the numbers that they link.
struct Computed<F>(F);

fn mixed(number: u64) -> u64 {
    let word = (number ^ (number >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (word ^ (word >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn name(number: u64) -> (String, String) {
    (format!("node {number}"), (0..4).map(|part| format!("{:016X}", mixed(number * 4 + part + 1))).collect())
}

impl<F: FnMut(u64) -> Vec<u64>> GraphSource for Computed<F> {
    /// As from a log: the hash of such a record was checked when it was written.
    fn load(&mut self, address: &Address) -> Option<Verified> {
        let number: u64 = address.ib().strip_prefix("node ")?.parse().ok()?;
        let links: Vec<String> = (self.0)(number)
            .into_iter()
            .filter(|link| *link < NODES && *link != number)
            .map(|link| {
                let (ib, gib) = name(link);
                format!("\"{ib}^{gib}\"")
            })
            .collect();
        let relations = if links.is_empty() { String::new() } else { format!("{{\"x\":[{}]}}", links.join(",")) };
        let (ib, gib) = name(number);
        let mut encoder = minicbor::Encoder::new(Vec::new());
        encoder.array(5).unwrap().str(&ib).unwrap().str(&gib).unwrap();
        encoder.u8(0).unwrap().str("").unwrap().str(&relations).unwrap();
        Some(Verified::from_own_log(encoder.into_writer().into()).unwrap())
    }
}

#[expect(clippy::disallowed_methods, reason = "a test may ask its environment for its size")]
fn scale() -> u32 {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// A line of `/proc/self/status`, in bytes.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    value.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

// Proves: SY-15 (1 million nodes in under 64 MiB)
#[test]
fn a_million_records_in_64_mib() {
    let (ib, gib) = name(0);
    let root = [Address::parse(&format!("{ib}^{gib}")).unwrap()];
    let before = memory("VmRSS:");
    let check = |title: &str, links: fn(u64) -> Vec<u64>| {
        let count = dependency_graph(&root, &GraphOptions::default(), &mut Computed(links), &mut |_| {}).unwrap();
        let used = memory("VmHWM:") - before;
        println!("{title}: {count} records, {:.1} MiB at most so far", used as f64 / MIB as f64);
        assert_eq!(count, NODES);
        assert!(used < 64 * MIB, "{used} bytes");
    };
    // A spine that is gone down at once, with nine leaves left behind at each step.
    check("comb", |number| {
        if number % 10 == 0 { [10, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(|step| number + step).into() } else { Vec::new() }
    });
    if scale() > 1 {
        check("tangle", |number| vec![2 * number + 1, 2 * number + 2, number + 1 + mixed(number) % 1000]);
        check("chain", |number| vec![number + 1]);
        check("fan", |number| match number {
            0 => (1..=1000).collect(),
            1..=1000 => (0..999).map(|link| 1001 + (number - 1) * 999 + link).collect(),
            _ => Vec::new(),
        });
    }
}
