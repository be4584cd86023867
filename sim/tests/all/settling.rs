//! Merges that meet merges: several nodes in chains and rings edit one timeline at once, over lines and disks of very
//! different speed, so that a saga over a slow line is still under way while others of the same node come and go. Without
//! new edits it always ends, with one tip everywhere.

use std::time::Duration;

use sealtide_ibgib::Stamp;
use sealtide_sim::author::Author;
use sealtide_sim::cluster::Cluster;
use sealtide_sim::dice::Dice;
use sealtide_sim::net::Weather;
use sealtide_sim::seeds::{in_virtual_time, only_seed, scale};
use sealtide_sim::world::Faults;
use sealtide_sync::SpaceView;
use tokio::time::sleep;

const STAMP: Stamp = Stamp { ms: 1_767_225_600_000 };
/// Virtual time that may pass between the last edit and the last message: the slowest sagas take some 20 s.
const SETTLED_WITHIN_MS: u64 = 900_000;

/// What a run came to.
struct Settled {
    ms: u64,
    merges: usize,
    edits: usize,
}

/// Proves: SY-49, SY-61
#[test]
fn merges_of_merges_end() {
    let (first, count) = only_seed().map_or((0, 150 * scale()), |seed| (seed, 1));
    let (mut slowest, mut merges, mut edits, mut most) = (0, 0, 0, 0);
    for seed in first..first + count {
        let settled = in_virtual_time(play(seed));
        slowest = slowest.max(settled.ms);
        (merges, edits) = (merges + settled.merges, edits + settled.edits);
        most = most.max(settled.merges);
    }
    println!("{count} seeds: {edits} edits, {merges} merges, {most} in one run; slowest to settle {slowest} ms");
    assert!(merges > count as usize, "they do edit at once");
}

async fn play(seed: u64) -> Settled {
    let mut dice = Dice::new(seed);
    let count = dice.between(3, 7) as usize;
    let mut cluster = Cluster::new(count, seed, only_seed().is_some());
    let space = cluster.space(seed);
    let slow = dice.one_in(2);
    cluster.set_forecast(move |dice| {
        let latency_ms = *dice.pick(if slow { &[2, 300, 1200] } else { &[2, 40, 200] }).unwrap();
        Weather { latency_ms, jitter_ms: dice.below(latency_ms / 4 + 1), ..Weather::default() }
    });
    for node in &cluster.nodes {
        node.set_faults(Faults { delay_ms: *dice.pick(&[0, 20, 300]).unwrap(), crash_in: None }, 0);
    }
    for node in 1..count {
        cluster.keep_connected(node - 1, node);
    }
    if dice.one_in(2) {
        cluster.keep_connected(count - 1, 0);
    }
    let first = Author::new(dice.split(), cluster.nodes[0].id()).document(STAMP);
    cluster.engine(0).commit_local(space, vec![first.clone()]).await.unwrap();
    cluster.settle(SETTLED_WITHIN_MS).await.unwrap();

    let timeline = first.frame().unwrap().timeline;
    let edits = dice.between(1, 3) as usize;
    let writers = (0..count).map(|node| {
        let (cluster, mut dice) = (cluster.clone(), dice.split());
        tokio::spawn(async move {
            let mut author = Author::new(dice.split(), cluster.nodes[node].id());
            for _ in 0..edits {
                sleep(Duration::from_millis(dice.below(1500))).await;
                let view = cluster.engine(node).store().view(&space).unwrap();
                let tips = view.tips(&timeline);
                let on = view.record(&dice.pick(&tips).unwrap().sid).unwrap();
                cluster.engine(node).commit_local(space, vec![author.next(&on, STAMP)]).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let context = |what: String| format!("seed {seed}: {what}\n{}", cluster.trace.text());
    let settled = cluster.settle(SETTLED_WITHIN_MS).await;
    let ms = settled.unwrap_or_else(|what| panic!("{}", context(what)));
    cluster.check_agreement(&space).unwrap_or_else(|what| panic!("{}", context(what)));
    let view = cluster.engine(0).store().view(&space).unwrap();
    assert_eq!(view.tips(&timeline).len(), 1, "{}", context("several tips".to_owned()));
    let records = view.bulk(None, usize::MAX).into_iter().filter_map(|(_, sid)| view.record(&sid));
    let merges = records.filter(|record| record.frame_ref().is_some_and(|facts| !facts.orphans.is_empty())).count();
    Settled { ms, merges, edits: edits * count }
}
