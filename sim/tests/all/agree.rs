//! Nodes that are cut, crash and run full in the middle of everything agree in the end, and nothing is lost.
//!
//! `SEALTIDE_SIM_SEED=n` plays one seed and prints all that happens; `SEALTIDE_TEST_SCALE` gives the number of seeds.

#![expect(clippy::print_stdout, reason = "says what it ran, as every long test does")]

use sealtide_sim::seeds::{only_seed, run_restored, run_seed, run_signed, scale};

/// Seeds of each part at scale 1.
const SEEDS: u64 = 250;

fn play(part: u64) {
    if let Some(seed) = only_seed() {
        if part == 0 {
            tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::INFO).init();
            let (outcome, lines) = run_seed(seed, true).unwrap_or_else(|failure| panic!("{failure}"));
            println!("{lines}{outcome:#?}");
        }
        return;
    }
    let count = SEEDS * scale();
    let (mut cuts, mut crashes, mut records, mut slowest) = (0, 0, 0, 0);
    for seed in part * count..(part + 1) * count {
        let (outcome, _) = run_seed(seed, false).unwrap_or_else(|failure| panic!("{failure}"));
        cuts += outcome.cuts;
        crashes += outcome.crashes;
        records += outcome.acknowledged;
        slowest = slowest.max(outcome.settled_ms);
    }
    println!("{count} seeds: {records} records, {cuts} cuts, {crashes} crashes; slowest to settle {slowest} ms");
    assert!(cuts > count && crashes > count / 4, "the faults do happen");
}

/// Proves: SY-48, SY-49
mod agree_after_any_interruption {
    #[test]
    fn part_1() {
        super::play(0);
    }

    #[test]
    fn part_2() {
        super::play(1);
    }

    #[test]
    fn part_3() {
        super::play(2);
    }

    #[test]
    fn part_4() {
        super::play(3);
    }
}

#[test]
fn one_seed_gives_one_run() {
    for seed in 0..40 {
        let first = run_seed(seed, false).unwrap_or_else(|failure| panic!("{failure}"));
        let second = run_seed(seed, false).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(first.0, second.0, "seed {seed}");
        assert_eq!(first.1, second.1, "seed {seed}: the traces differ");
    }
}

/// With a signature for every local commit: stones arrive with their frames through all that, and nobody is taken for
/// somebody else.
// Proves: SY-103
#[test]
fn signed_commits_agree_too() {
    if let Some(seed) = only_seed() {
        let (outcome, lines) = run_signed(seed, true).unwrap_or_else(|failure| panic!("{failure}"));
        println!("{lines}{outcome:#?}");
        return;
    }
    let count = 60 * scale();
    let (mut proven, mut named) = (0, 0);
    for seed in 0..count {
        let (outcome, _) = run_signed(seed, false).unwrap_or_else(|failure| panic!("{failure}"));
        (proven, named) = (proven + outcome.authors.0, named + outcome.authors.1);
    }
    println!("{count} seeds with signed commits: {proven} of {named} frames proven");
    assert!(proven > named * 9 / 10, "{proven} of {named}");
}

/// With identities, and a node whose store is put back to an earlier copy in the middle of it all: what anybody else had, or
/// the copy, is there in the end; the node signs nothing twice, since it asks its peers first.
// Proves: SY-26, SY-48
#[test]
fn restored_backups_lose_only_what_nobody_else_had() {
    if let Some(seed) = only_seed() {
        tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::INFO).init();
        let (outcome, lines) = run_restored(seed, true).unwrap_or_else(|failure| panic!("{failure}"));
        println!("{lines}{outcome:#?}");
        return;
    }
    let count = 100 * scale();
    let (mut restores, mut forgotten, mut crashes) = (0, 0, 0);
    for seed in 0..count {
        let (outcome, _) = run_restored(seed, false).unwrap_or_else(|failure| panic!("{failure}"));
        (restores, forgotten) = (restores + outcome.restores, forgotten + outcome.forgotten);
        crashes += outcome.crashes;
    }
    println!("{count} seeds, {restores} restores that {forgotten} records went with, {crashes} nodes down in all");
    assert!(restores > count && forgotten > 0, "{restores} restores, {forgotten} records");
}
