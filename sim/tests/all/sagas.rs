//! Single promises of the driver, each with its own scene.

use std::time::Duration;

use sealtide_ibgib::{Stamp, Verified};
use sealtide_identity::{Role, SpaceId};
use sealtide_node::engine::{Engine, Event, SagaReport};
use sealtide_node::world::PeerSession;
use sealtide_sim::author::Author;
use sealtide_sim::cluster::Cluster;
use sealtide_sim::dice::Dice;
use sealtide_sim::net::{SAGA_WINDOW, Weather};
use sealtide_sim::seeds::{in_virtual_time, scale};
use sealtide_sim::world::{Faults, SimWorld, members};
use sealtide_sync::{AbortCode, SagaOutcome};
use tokio::sync::broadcast::Receiver;
use tokio::time::{Instant, sleep, timeout};

const STAMP: Stamp = Stamp { ms: 1_767_225_600_000 };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn author(cluster: &Cluster, node: usize, seed: u64) -> Author {
    Author::new(Dice::new(seed), cluster.nodes[node].id())
}

async fn commit(cluster: &Cluster, node: usize, space: SpaceId, records: &[Verified]) {
    cluster.engine(node).commit_local(space, records.to_vec()).await.unwrap();
}

/// Waits for the end of a saga that `wanted` accepts.
async fn ended(events: &mut Receiver<Event>, mut wanted: impl FnMut(&SagaReport) -> bool) -> SagaReport {
    loop {
        if let Ok(Event::SagaEnded(report)) = events.recv().await
            && wanted(&report)
        {
            return report;
        }
    }
}

async fn began(events: &mut Receiver<Event>) {
    while !matches!(events.recv().await, Ok(Event::SagaBegan { .. })) {}
}

fn has(engine: &Engine<SimWorld>, space: &SpaceId, records: &[Verified]) -> bool {
    let members = members(engine.store(), space);
    records.iter().all(|record| members.contains(&record.sid()))
}

fn is_abort(report: &SagaReport, wanted: AbortCode) -> bool {
    matches!(report.outcome, SagaOutcome::Aborted { code, .. } if code == wanted)
}

/// All reports that have come in.
fn reports(events: &mut Receiver<Event>) -> Vec<SagaReport> {
    let mut found = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Event::SagaEnded(report) = event {
            found.push(report);
        }
    }
    found
}

/// Proves: SY-95
#[test]
fn crossing_sagas_bring_both_changes() {
    let (seeds, mut crossed) = (1000 * scale(), 0);
    for seed in 0..seeds {
        crossed += u64::from(in_virtual_time(cross(seed)));
    }
    println!("{seeds} seeds, {crossed} of them with sagas that crossed");
    assert!(crossed > seeds / 4);
}

/// Both nodes change a space within few ms, so that both open a saga; gives whether they crossed.
async fn cross(seed: u64) -> bool {
    let mut dice = Dice::new(seed);
    let mut cluster = Cluster::new(2, seed, false);
    let space = cluster.space(seed);
    let weather = Weather { latency_ms: dice.between(1, 40), jitter_ms: dice.below(10), ..Weather::default() };
    cluster.set_forecast(move |_| weather.clone());
    cluster.keep_connected(0, 1);
    cluster.settle(30_000).await.unwrap();

    let mut events = [0, 1].map(|node| cluster.engine(node).subscribe());
    let made = [0, 1].map(|node| vec![author(&cluster, node, seed).document(STAMP)]);
    let gap = dice.below(40);
    commit(&cluster, 0, space, &made[0]).await;
    sleep(ms(gap)).await;
    commit(&cluster, 1, space, &made[1]).await;
    let took = cluster.settle(30_000).await.unwrap();
    assert!(took < 5000, "seed {seed}: {took} ms");

    let context = |what: String| format!("seed {seed}: {what}\n{}", cluster.trace.text());
    cluster.check_agreement(&space).unwrap_or_else(|what| panic!("{}", context(what)));
    for node in 0..2 {
        assert!(made.iter().all(|made| has(&cluster.engine(node), &space, made)), "{}", context("lost".to_owned()));
    }
    let (mut all, mut crossed) = (Vec::new(), false);
    for events in &mut events {
        let mut open = 0;
        while let Ok(event) = events.try_recv() {
            match event {
                // The node that lost its saga to the other one's begins twice and does not report the first.
                Event::SagaBegan { .. } => open += 1,
                Event::SagaEnded(report) => {
                    open = 0;
                    all.push(report);
                }
                _ => {}
            }
            crossed |= open > 1;
        }
    }
    assert!(all.len() <= 12, "{}", context(format!("{} sagas for two changes", all.len())));
    let busy = |report: &SagaReport| is_abort(report, AbortCode::Busy);
    let bad = all.iter().find(|report| !matches!(report.outcome, SagaOutcome::Committed { .. }) && !busy(report));
    assert!(bad.is_none(), "{}", context(format!("{bad:?}")));
    crossed
}

/// Two nodes; the first has a binary of some MiB that the second lacks. The space is shared, the line is not open.
async fn sender_and_receiver(mib: usize) -> (Cluster, SpaceId, Vec<Verified>) {
    let cluster = Cluster::new(2, 7, false);
    let space = cluster.space(1);
    let change = author(&cluster, 0, 7).large(mib * 1024 * 1024, None, STAMP);
    let store = cluster.engine(0).store().clone();
    change.chunks.iter().for_each(|(hash, bytes)| store.put_chunk(*hash, bytes).unwrap());
    commit(&cluster, 0, space, &change.records).await;
    (cluster, space, change.records)
}

/// Proves: SY-46
#[test]
fn a_slow_reader_holds_up_nobody_else() {
    in_virtual_time(async {
        let (mut cluster, large, records) = sender_and_receiver(24).await;
        let small = cluster.space(2);
        // The reader takes 10 KiB of sagas in a second.
        cluster.set_forecast(|_| Weather { saga_rate: [Some(10 * 1024); 2], ..Weather::default() });
        cluster.keep_connected(0, 1);
        let mut events = cluster.engine(0).subscribe();
        began(&mut events).await;
        let before = cluster.nodes[0].world().unwrap().disk().bytes_read();
        sleep(Duration::from_secs(300)).await;
        // What was read to be sent is in the window, in the reader's hands, or the one message that waits.
        let counts = cluster.traffic.counts();
        let read = cluster.nodes[0].world().unwrap().disk().bytes_read() - before;
        assert!(counts.peak <= SAGA_WINDOW, "{counts:?}");
        let room = 300 * 10 * 1024 + SAGA_WINDOW + 3 * 1024 * 1024;
        assert!(read < room, "{read} bytes were read while {} could be taken", counts.bytes);
        assert!(!has(&cluster.engine(1), &large, &records), "the large one is still on its way");

        // Another saga of the same pair goes on meanwhile.
        let document = author(&cluster, 0, 8).document(STAMP);
        commit(&cluster, 0, small, std::slice::from_ref(&document)).await;
        sleep(Duration::from_secs(10)).await;
        assert!(has(&cluster.engine(1), &small, &[document]));

        for session in cluster.nodes[0].sessions() {
            session.weather(|weather| weather.saga_rate = [None; 2]);
        }
        cluster.settle(4_000_000).await.unwrap();
        cluster.check_agreement(&large).unwrap();
    });
}

/// Proves: SY-50
#[test]
fn a_stalled_peer_blocks_no_local_change() {
    in_virtual_time(async {
        let (mut cluster, space, _) = sender_and_receiver(12).await;
        cluster.set_forecast(|_| Weather { latency_ms: 20, ..Weather::default() });
        cluster.keep_connected(0, 1);
        let mut events = [0, 1].map(|node| cluster.engine(node).subscribe());
        for events in &mut events {
            began(events).await;
        }
        sleep(ms(50)).await;
        // One byte in a second: the saga stands still.
        for session in cluster.nodes[0].sessions() {
            session.weather(|weather| weather.saga_rate = [Some(1); 2]);
        }
        let mut prev = author(&cluster, 0, 8).document(STAMP);
        commit(&cluster, 0, space, std::slice::from_ref(&prev)).await;
        for number in 0..50 {
            let begin = Instant::now();
            let next = author(&cluster, 0, 100 + number).next(&prev, STAMP);
            commit(&cluster, 0, space, std::slice::from_ref(&next)).await;
            let other = author(&cluster, 1, 200 + number).document(STAMP);
            commit(&cluster, 1, space, std::slice::from_ref(&other)).await;
            assert_eq!(begin.elapsed(), Duration::ZERO, "nothing waits for the peer");
            prev = next;
            sleep(ms(100)).await;
        }
        let known = cluster.engine(0).peer_spaces(&space);
        assert!(known.iter().any(|(_, known)| known.running && !known.in_step), "the saga stands still: {known:?}");
        // In the end both give up: a saga does not outlive its time limit because the channel is full.
        sleep(Duration::from_secs(125)).await;
        let late = events.iter_mut().flat_map(reports).collect::<Vec<_>>();
        let timeouts = late.iter().filter(|report| is_abort(report, AbortCode::Timeout));
        assert!(timeouts.count() >= 2, "{late:?}");
    });
}

/// Proves: SY-101
#[test]
fn a_grant_taken_back_ends_the_saga_within_a_second() {
    for revoker in 0..2 {
        for wait_ms in [0, 3, 50, 700, 5000] {
            in_virtual_time(revoke(revoker, wait_ms));
        }
    }
}

async fn revoke(revoker: usize, wait_ms: u64) {
    let (mut cluster, space, records) = sender_and_receiver(6).await;
    cluster.set_forecast(|_| Weather { latency_ms: 5, saga_rate: [Some(200 * 1024); 2], ..Weather::default() });
    cluster.keep_connected(0, 1);
    let mut events = cluster.engine(revoker).subscribe();
    began(&mut events).await;
    sleep(ms(wait_ms)).await;

    let (engine, other) = (cluster.engine(revoker), cluster.nodes[1 - revoker].id());
    engine.store().facts().remove_grant(&space, &other).unwrap();
    engine.grants_changed();
    let report = timeout(ms(1000), ended(&mut events, |_| true)).await.expect("the saga ends");
    assert!(is_abort(&report, AbortCode::Revoked), "{report:?}");
    // It stays so, and nothing of the saga is visible or kept.
    sleep(Duration::from_secs(60)).await;
    assert!(!has(&cluster.engine(1), &space, &records));
    for node in 0..2 {
        let known = cluster.engine(node).peer_spaces(&space);
        assert!(known.iter().all(|(_, known)| !known.running), "node {node}: {known:?}");
    }
    let late = reports(&mut events).into_iter().find(|report| matches!(report.outcome, SagaOutcome::Committed { .. }));
    assert!(late.is_none(), "{late:?}");
}

/// Proves: SY-101
#[test]
fn who_may_only_read_brings_nothing() {
    in_virtual_time(async {
        let mut cluster = Cluster::new(2, 3, false);
        let space = cluster.space_with(1, &[Role::Admin, Role::Read]);
        cluster.keep_connected(0, 1);
        cluster.settle(30_000).await.unwrap();
        let (good, stray) = (author(&cluster, 0, 1).document(STAMP), author(&cluster, 1, 2).document(STAMP));
        commit(&cluster, 1, space, std::slice::from_ref(&stray)).await;
        sleep(Duration::from_secs(5)).await;
        commit(&cluster, 0, space, std::slice::from_ref(&good)).await;
        sleep(Duration::from_secs(30)).await;
        assert!(!has(&cluster.engine(0), &space, &[stray]));
        assert!(has(&cluster.engine(1), &space, &[good]));
    });
}

/// Proves: SY-108
#[test]
fn a_local_edit_within_a_saga_is_merged_with_the_other() {
    let mut within = 0;
    for wait_ms in (0..120).step_by(2) {
        for node in 0..2 {
            within += u64::from(in_virtual_time(edit_within(node, wait_ms)));
        }
    }
    println!("120 runs, {within} edits within a saga");
    assert!(within > 30 && within < 120, "before its commit and after it");
}

/// A node edits a document at some time in the saga that brings another edit of it.
async fn edit_within(node: usize, wait_ms: u64) -> bool {
    let mut cluster = Cluster::new(2, 5, false);
    let space = cluster.space(1);
    cluster.set_forecast(|_| Weather { latency_ms: 8, ..Weather::default() });
    cluster.keep_connected(0, 1);
    let first = author(&cluster, 0, 1).document(STAMP);
    commit(&cluster, 0, space, std::slice::from_ref(&first)).await;
    cluster.settle(30_000).await.unwrap();
    cluster.nodes.iter().for_each(|node| node.set_faults(Faults { delay_ms: 6, crash_in: None }, 0));

    let mut events = cluster.engine(node).subscribe();
    let theirs = author(&cluster, 1 - node, 2).next(&first, STAMP);
    commit(&cluster, 1 - node, space, std::slice::from_ref(&theirs)).await;
    began(&mut events).await;
    sleep(ms(wait_ms)).await;
    let within = !has(&cluster.engine(node), &space, std::slice::from_ref(&theirs));
    let ours = author(&cluster, node, 3).next(&first, STAMP);
    commit(&cluster, node, space, std::slice::from_ref(&ours)).await;
    cluster.settle(30_000).await.unwrap();

    cluster.check_agreement(&space).unwrap();
    let timeline = first.frame().unwrap().timeline;
    for node in 0..2 {
        let tips = cluster.engine(node).store().view(&space).unwrap().tips(&timeline);
        assert_eq!(tips.len(), 1, "one tip, wait {wait_ms}");
        assert!(has(&cluster.engine(node), &space, &[ours.clone(), theirs.clone()]));
    }
    within
}

/// Proves: SY-56
#[test]
fn sessions_leave_no_tasks_behind() {
    in_virtual_time(async {
        let rounds = 500 * scale();
        let cluster = Cluster::new(2, 9, false);
        let space = cluster.space(1);
        let mut dice = Dice::new(9);
        sleep(ms(100)).await;
        let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = alive();
        for round in 0..rounds {
            let cut_after = (!dice.one_in(4)).then(|| dice.between(1, 30));
            let latency_ms = dice.below(20);
            cluster.set_forecast(move |_| Weather { latency_ms, cut_after, notice_ms: 200, ..Weather::default() });
            let [dialler, listener] = cluster.connect(0, 1).unwrap();
            let document = author(&cluster, 0, 1000 + round).document(STAMP);
            commit(&cluster, (round % 2) as usize, space, &[document]).await;
            sleep(ms(dice.below(400))).await;
            // Cut, closed in order, or both at once from both ends.
            match dice.below(4) {
                0 => dialler.cut(),
                1 => listener.close(),
                2 => cluster.engine(0).close(&cluster.nodes[1].id()),
                _ => {
                    dialler.close();
                    listener.close();
                }
            }
            if dice.one_in(3) {
                dialler.cut();
            }
            dialler.over().await;
            listener.over().await;
        }
        sleep(Duration::from_secs(30)).await;
        assert_eq!(alive(), before, "after {rounds} sessions");
        for node in 0..2 {
            assert_eq!(cluster.engine(node).peers(), []);
        }
    });
}

/// A session that lives long: its wake-ups are used once, and its sagas are let go.
#[test]
fn a_quiet_session_sleeps() {
    in_virtual_time(async {
        let mut cluster = Cluster::new(2, 9, false);
        let space = cluster.space(1);
        cluster.keep_connected(0, 1);
        cluster.settle(30_000).await.unwrap();
        let before = cluster.traffic.counts().messages;
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(cluster.traffic.counts().messages, before, "an hour without a change needs no saga");
        cluster.check_agreement(&space).unwrap();
        assert!(cluster.nodes.iter().all(|node| node.sessions().iter().all(|session| !session.is_over())));
    });
}
