//! Eight nodes write one timeline at once, over signed sagas: nothing is lost, and what each node shows of the timeline
//! only goes forward.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealtide_ibgib::{Address, Sid, Stamp, TimelineId, Verified};
use sealtide_identity::{Role, SpaceId};
use sealtide_node::engine::{Event, SagaReport};
use sealtide_sim::author::Author;
use sealtide_sim::cluster::Cluster;
use sealtide_sim::dice::Dice;
use sealtide_sim::keystones::PlainKeystones;
use sealtide_sim::net::Weather;
use sealtide_sim::seeds::{in_virtual_time, scale};
use sealtide_store::SpaceHandle;
use sealtide_sync::{AbortCode, SagaOutcome, SpaceView};
use tokio::time::sleep;

const STAMP: Stamp = Stamp { ms: 1_767_225_600_000 };
const WRITERS: usize = 8;

fn cluster(count: usize, seed: u64) -> (Cluster, SpaceId) {
    let cluster = Cluster::with_keystones(count, seed, false, |id| Arc::new(PlainKeystones::new(id)));
    let space = cluster.space(seed);
    (cluster, space)
}

fn tips(view: &SpaceHandle, timeline: &TimelineId) -> BTreeSet<Sid> {
    view.tips(timeline).into_iter().map(|tip| tip.sid).collect()
}

/// Everything that a frame builds on, itself included.
fn behind(view: &SpaceHandle, from: &BTreeSet<Sid>) -> BTreeSet<Sid> {
    let mut found = BTreeSet::new();
    let mut open: Vec<Sid> = from.iter().copied().collect();
    while let Some(sid) = open.pop() {
        if !found.insert(sid) {
            continue;
        }
        let record = view.record(&sid).expect("what a frame builds on is here");
        let Some(facts) = record.frame_ref() else { continue };
        let parents: Vec<&Address> = facts.past.iter().chain(&facts.orphans).collect();
        open.extend(parents.into_iter().flat_map(|parent| view.by_address(parent)));
    }
    found
}

/// The history of one register, the tips of the timeline at one node: what each look and each write saw, in order.
#[derive(Default)]
struct History(Vec<BTreeSet<Sid>>);

impl History {
    /// One value follows another only when everything of the earlier is in it or behind it: the order of the looks is one
    /// that a single register could have given, and no write that was acknowledged has gone again.
    fn check(&self, view: &SpaceHandle) -> Result<(), String> {
        let mut known: BTreeMap<&BTreeSet<Sid>, BTreeSet<Sid>> = BTreeMap::new();
        for pair in self.0.windows(2).filter(|pair| pair[0] != pair[1]) {
            let later = known.entry(&pair[1]).or_insert_with(|| behind(view, &pair[1]));
            if let Some(gone) = pair[0].difference(later).next() {
                return Err(format!("{gone} was a tip, and what came later does not build on it"));
            }
        }
        Ok(())
    }
}

/// A hub with eight writers around it, and lines between some of them.
/// Proves: SY-49
#[test]
fn eight_writers_of_one_timeline_lose_nothing() {
    let (mut frames, mut merges, mut sagas) = (0, 0, 0);
    let seeds = 20 * scale();
    for seed in 0..seeds {
        let counts = in_virtual_time(eight(seed));
        frames += counts[0];
        merges += counts[1];
        sagas += counts[2];
    }
    println!("{seeds} seeds: {frames} frames of {WRITERS} writers, {merges} merges, {sagas} sagas");
    assert!(merges > seeds * 4, "they do write at once: {merges}");
}

async fn eight(seed: u64) -> [u64; 3] {
    let (mut cluster, space) = cluster(WRITERS + 1, seed);
    let mut dice = Dice::new(seed);
    let latency_ms = dice.between(1, 60);
    cluster.set_forecast(move |dice| Weather { latency_ms, jitter_ms: dice.below(30), ..Weather::default() });
    let first = Author::new(dice.split(), cluster.nodes[0].id()).document(STAMP);
    cluster.engine(0).commit_local(space, vec![first.clone()]).await.unwrap();
    for writer in 1..=WRITERS {
        cluster.keep_connected(0, writer);
    }
    for writer in 1..WRITERS {
        if dice.one_in(3) {
            cluster.keep_connected(writer, writer + 1);
        }
    }
    cluster.settle(60_000).await.unwrap();
    let timeline = first.frame().unwrap().timeline;
    let histories: Vec<_> = (0..=WRITERS).map(|_| Arc::new(Mutex::new(History::default()))).collect();
    let mut events = cluster.engine(0).subscribe();
    let mut tasks = Vec::new();
    for (node, history) in histories.iter().enumerate() {
        let (cluster, history, mut dice) = (cluster.clone(), history.clone(), dice.split());
        tasks.push(tokio::spawn(async move {
            let mut author = Author::new(dice.split(), cluster.nodes[node].id());
            let engine = cluster.engine(node);
            let view = engine.store().view(&space).unwrap();
            let mut made = Vec::new();
            for _ in 0..6 {
                sleep(Duration::from_millis(dice.below(400))).await;
                let seen = tips(&view, &timeline);
                history.lock().unwrap().0.push(seen.clone());
                if node == 0 {
                    continue;
                }
                let list: Vec<Sid> = seen.iter().copied().collect();
                let on = view.record(dice.pick(&list).unwrap()).unwrap();
                let next: Verified = author.next(&on, STAMP);
                engine.commit_local(space, vec![next.clone()]).await.unwrap();
                // The write is durable: whoever looks from now on sees it, or something on top of it.
                history.lock().unwrap().0.push(seen.into_iter().chain([next.sid()]).collect());
                history.lock().unwrap().0.push(tips(&view, &timeline));
                made.push(next);
            }
            made
        }));
    }
    let mut made = Vec::new();
    for task in tasks {
        made.extend(task.await.unwrap());
    }
    let context = |what: String| format!("seed {seed}: {what}\n{}", cluster.trace.text());
    cluster.settle(200_000).await.unwrap_or_else(|what| panic!("{}", context(what)));
    cluster.check_agreement(&space).unwrap_or_else(|what| panic!("{}", context(what)));
    for (node, history) in histories.iter().enumerate() {
        let view = cluster.engine(node).store().view(&space).unwrap();
        let last = tips(&view, &timeline);
        assert_eq!(last.len(), 1, "{}", context(format!("node {node} has the tips {last:?}")));
        let all = behind(&view, &last);
        for frame in &made {
            assert!(all.contains(&frame.sid()), "{}", context(format!("{} is lost", frame.address())));
        }
        let mut history = history.lock().unwrap();
        history.0.push(last);
        history.check(&view).unwrap_or_else(|what| panic!("{}", context(format!("node {node}: {what}"))));
    }
    let view = cluster.engine(0).store().view(&space).unwrap();
    let all = behind(&view, &tips(&view, &timeline));
    let merges = all.iter().filter(|sid| {
        let record = view.record(sid).unwrap();
        record.frame_ref().is_some_and(|facts| !facts.orphans.is_empty())
    });
    let mut sagas = 0;
    while let Ok(event) = events.try_recv() {
        if let Event::SagaEnded(report) = event {
            well(&report).unwrap_or_else(|what| panic!("{}", context(what)));
            sagas += 1;
        }
    }
    [made.len() as u64, merges.count() as u64, sagas]
}

fn well(report: &SagaReport) -> Result<(), String> {
    match &report.outcome {
        SagaOutcome::Committed { .. } | SagaOutcome::Aborted { code: AbortCode::Busy, .. } => Ok(()),
        other => Err(format!("a saga ended with {other:?}")),
    }
}

/// Two peers bring an edit of one frame each in the same moment: both sagas end well, and one of them merges.
/// Proves: SY-49
#[test]
fn two_sagas_on_one_timeline_at_once() {
    let (seeds, mut at_once) = (200 * scale(), 0);
    for seed in 0..seeds {
        at_once += u64::from(in_virtual_time(two_at_once(seed)));
    }
    println!("{seeds} seeds, {at_once} with two sagas at once");
    assert!(at_once > seeds / 4, "{at_once}");
}

async fn two_at_once(seed: u64) -> bool {
    let (mut cluster, space) = cluster(3, seed);
    let mut dice = Dice::new(seed);
    let latency_ms = dice.between(1, 30);
    cluster.set_forecast(move |dice| Weather { latency_ms, jitter_ms: dice.below(20), ..Weather::default() });
    let first = Author::new(dice.split(), cluster.nodes[0].id()).document(STAMP);
    cluster.engine(0).commit_local(space, vec![first.clone()]).await.unwrap();
    cluster.keep_connected(0, 1);
    cluster.keep_connected(0, 2);
    cluster.settle(60_000).await.unwrap();
    let mut events = cluster.engine(0).subscribe();
    let mut made = Vec::new();
    for node in 1..3 {
        let next = Author::new(dice.split(), cluster.nodes[node].id()).next(&first, STAMP);
        cluster.engine(node).commit_local(space, vec![next.clone()]).await.unwrap();
        made.push(next);
        sleep(Duration::from_millis(dice.below(10))).await;
    }
    cluster.settle(60_000).await.unwrap();
    cluster.check_agreement(&space).unwrap();
    let timeline = first.frame().unwrap().timeline;
    for node in 0..3 {
        let view = cluster.engine(node).store().view(&space).unwrap();
        let tips = view.tips(&timeline);
        let [tip] = &tips[..] else { panic!("seed {seed}: one tip, not {tips:?}") };
        let merged = view.record(&tip.sid).unwrap();
        let all = behind(&view, &BTreeSet::from([tip.sid]));
        assert!(merged.frame_ref().is_some_and(|facts| facts.orphans.len() == 1), "seed {seed}: one merge");
        assert!(made.iter().all(|frame| all.contains(&frame.sid())), "seed {seed}: both edits");
    }
    let (mut running, mut most) = (0i32, 0);
    while let Ok(event) = events.try_recv() {
        match event {
            Event::SagaBegan { .. } => running += 1,
            Event::SagaEnded(report) => {
                well(&report).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
                running -= 1;
            }
            _ => {}
        }
        most = most.max(running);
    }
    most > 1
}

/// Peers of a hub that have no part in a contended space take no turns from the two that write it.
#[test]
fn who_has_no_part_in_a_space_takes_no_turn() {
    for seed in 0..10 * scale() {
        let [alone, among_strangers] = [0, 12].map(|strangers| in_virtual_time(contended(seed, strangers)));
        assert!(
            among_strangers <= alone + 1_000,
            "seed {seed}: {among_strangers} ms, and {alone} ms without strangers"
        );
    }
}

/// How long two writers take to agree who write one timeline at once, again and again, ms of virtual time.
async fn contended(seed: u64, strangers: usize) -> u64 {
    let mut cluster = Cluster::with_keystones(3 + strangers, seed, false, |id| Arc::new(PlainKeystones::new(id)));
    let space = cluster.space_with(seed, &[Role::Admin; 3]);
    cluster.set_forecast(|_| Weather { latency_ms: 10, ..Weather::default() });
    let mut dice = Dice::new(seed);
    let mut tip = Author::new(dice.split(), cluster.nodes[0].id()).document(STAMP);
    cluster.engine(0).commit_local(space, vec![tip.clone()]).await.unwrap();
    for other in 1..3 + strangers {
        cluster.keep_connected(0, other);
    }
    sleep(Duration::from_secs(5)).await;
    let timeline = tip.frame().unwrap().timeline;
    let mut authors = [1, 2].map(|node| Author::new(dice.split(), cluster.nodes[node].id()));
    let mut took = 0;
    for _ in 0..5 {
        for (node, author) in (1..3).zip(&mut authors) {
            cluster.engine(node).commit_local(space, vec![author.next(&tip, STAMP)]).await.unwrap();
        }
        let began = tokio::time::Instant::now();
        let seen = |node| tips(&cluster.engine(node).store().view(&space).unwrap(), &timeline);
        while seen(1).len() != 1 || seen(1) != seen(2) || seen(1).contains(&tip.sid()) {
            assert!(began.elapsed() < Duration::from_secs(300), "seed {seed}: the two do not agree");
            sleep(Duration::from_millis(10)).await;
        }
        took += began.elapsed().as_millis() as u64;
        let view = cluster.engine(1).store().view(&space).unwrap();
        tip = view.record(seen(1).first().unwrap()).unwrap();
    }
    took
}
