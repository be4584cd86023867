//! Sessions that meet faults again and again for a long time: none gets stuck, and none leaves anything behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::harness::chaos::{Chaos, Weather};
use crate::harness::{Node, target, until, wired};
use bytes::Bytes;
use sealtide_crypto::{Entropy, SeededEntropy};
use sealtide_link::{LinkConfig, Session};
use tokio::task::JoinSet;

/// Pairs of nodes with a session each; in the long run as many as LK-71 asks for.
const PAIRS: u64 = 8;
const PAIRS_LONG: u64 = 200;
/// A run that says something of the slope of the memory.
const LONG: Duration = Duration::from_secs(1_800);
/// How long a session rests between two faults in such a run, at the most. Without a rest 200 sessions would keep the machine busy, and
/// what is measured would be how little of it is enough.
const REST: Duration = Duration::from_secs(5);
/// Rounds of faults at scale 1; each is a fault of every session, and a message each way after it.
const ROUNDS: u64 = 24;
/// How long such a run lets everything come to rest before it looks at the memory: sessions that wait for a path, and what the allocator
/// gives back only after ten seconds, are some megabytes more or less from one look to the next.
const CALM: Duration = Duration::from_secs(20);
/// How long one message may take that meets a fault. It is no claim about speed: it says "stuck".
const STUCK: Duration = Duration::from_secs(120);
/// Bytes that may stay behind for whatever reason but the number of rounds: arenas of the allocator, mostly.
const ALLOWANCE: u64 = 24 << 20;

fn scale() -> u64 {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1u64).max(1)
}

fn impatient(config: &mut LinkConfig) {
    (config.session.busy_ms, config.session.pong_ms, config.session.progress_ms) = (100, 100, 400);
}

/// One pair of nodes, the way between them, and the session.
struct Pair {
    a: Node,
    b: Node,
    chaos: Chaos,
    ours: Session,
    theirs: Session,
    random: SeededEntropy,
}

impl Pair {
    async fn new(number: u64) -> Self {
        let (a, b, chaos, ours, theirs) = wired(1_000 + 2 * number, impatient).await;
        Self { a, b, chaos, ours, theirs, random: SeededEntropy::new(number) }
    }

    fn random(&mut self) -> u8 {
        let mut byte = [0];
        self.random.fill(&mut byte);
        byte[0]
    }

    /// Some fault, while both ends talk, and a new session now and then.
    async fn round(&mut self) {
        let pick = self.random();
        let harm = async {
            match pick % 6 {
                0 | 1 => self.chaos.cut(),
                2 => self.chaos.weather(Weather::Stalled),
                3 => self.chaos.weather(Weather::Swallowed { to_listener: true, to_dialler: true }),
                4 => self.chaos.weather(Weather::Swallowed { to_listener: true, to_dialler: false }),
                _ => {}
            }
        };
        let (there, back) = (echo(&self.ours, &self.theirs), echo(&self.theirs, &self.ours));
        tokio::join!(harm, there, back);
        self.chaos.weather(Weather::Fair);
        if pick >= 224 {
            self.begin_again(pick.is_multiple_of(2)).await;
        }
    }

    async fn begin_again(&mut self, in_order: bool) {
        if in_order {
            self.ours.close();
        } else {
            self.theirs.abort(sealtide_wire::frame::ErrorCode::GoingAway);
        }
        self.ours.closed().await;
        self.theirs.closed().await;
        let to = target(self.b.id(), &[self.chaos.address]);
        // The listener may not have forgotten the old session yet.
        self.ours = loop {
            if let Ok(session) = self.a.link.dial(to.clone()).await {
                break session;
            }
            tokio::task::yield_now().await;
        };
        self.theirs = self.b.link.accept().await.unwrap();
    }
}

/// Messages there and back over a channel of their own, which ends.
async fn echo(from: &Session, to: &Session) {
    let channel = from.open(3, "soak").unwrap();
    let sending = async {
        for length in [1, 20_000, 100_000] {
            channel.send(Bytes::from(vec![7; length])).await.unwrap();
        }
        channel.finish();
        assert_eq!(channel.recv().await.unwrap().unwrap(), b"all"[..]);
        channel.release(3);
        assert_eq!(channel.recv().await, Ok(None));
    };
    let receiving = async {
        let channel = to.accept_channel().await.unwrap();
        while let Some(message) = channel.recv().await.unwrap() {
            channel.release(message.len() as u64);
        }
        channel.send(Bytes::from_static(b"all")).await.unwrap();
        channel.finish();
    };
    tokio::join!(sending, receiving);
}

/// By how much the second number grows with the first, by least squares.
fn slope(looks: &[(f64, f64)]) -> f64 {
    let count = looks.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| looks.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|look| look.0), mean(|look| look.1));
    let (over, under) = looks
        .iter()
        .fold((0.0, 0.0), |(over, under), look| (over + (look.0 - x) * (look.1 - y), under + (look.0 - x).powi(2)));
    if under > 0.0 { over / under } else { 0.0 }
}

/// Memory of this process; zero where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_ascii_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

async fn rounds(mut pairs: Vec<Pair>, count: u64, rest: Duration) -> Vec<Pair> {
    let mut tasks = JoinSet::new();
    for mut pair in pairs.drain(..) {
        tasks.spawn(async move {
            for _ in 0..count {
                tokio::time::sleep(rest * u32::from(pair.random()) / 255).await;
                tokio::time::timeout(STUCK, pair.round()).await.expect("a session is stuck");
            }
            pair
        });
    }
    tasks.join_all().await
}

/// The time and the memory, when all has come to rest.
async fn look(began: Instant, calm: Duration) -> (Duration, u64) {
    tokio::time::sleep(calm).await;
    (began.elapsed(), resident())
}

/// The memory after the last rounds is that after the first, but for a fixed allowance: it does not follow their number. At
/// scale 10 this goes on for an hour; `SEALTIDE_SOAK_SECONDS` says another time. From half an hour on there are 200 sessions
/// (or as many as `SEALTIDE_SOAK_SESSIONS` says), which rest between faults. By how much the memory grew in an hour of the last two thirds is printed.
// Proves: LK-71
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak() {
    // Also in a task that nobody waits for.
    let panics = Arc::new(AtomicU64::new(0));
    let (seen, told) = (panics.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        seen.fetch_add(1, Ordering::Relaxed);
        told(info);
    }));
    let set = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let least = Duration::from_secs(set("SEALTIDE_SOAK_SECONDS").unwrap_or(if scale() >= 10 { 3_600 } else { 0 }));
    let pairs_wanted = if least >= LONG { PAIRS_LONG } else { PAIRS };
    let count_of_pairs = set("SEALTIDE_SOAK_SESSIONS").unwrap_or(pairs_wanted);
    let (rest, calm) = if least >= LONG { (REST, CALM) } else { (Duration::ZERO, Duration::ZERO) };
    let began = Instant::now();
    let mut pairs = Vec::new();
    for number in 0..count_of_pairs {
        pairs.push(Pair::new(number).await);
    }
    pairs = rounds(pairs, ROUNDS, rest).await;
    let (mut done, warm) = (ROUNDS, look(began, calm).await);
    let (mut last, mut looks) = (warm, Vec::new());
    while done < 2 * ROUNDS || began.elapsed() < least {
        pairs = rounds(pairs, ROUNDS, rest).await;
        done += ROUNDS;
        last = look(began, calm).await;
        looks.push((last.0.as_secs_f64() / 3_600.0, last.1 as f64));
    }
    looks.retain(|(hours, _)| *hours >= began.elapsed().as_secs_f64() / 3_600.0 / 3.0);
    let slope = slope(&looks);
    let count = |read: fn(&sealtide_link::LinkMetrics) -> u64| -> u64 {
        pairs.iter().map(|pair| read(&pair.a.link.metrics())).sum()
    };
    println!(
        "soak: {count_of_pairs} sessions, {done} rounds in {:.0} s: {} suspensions, {} re-handshakes, {} sessions; {} MiB at \
         the first, {} MiB at the last, {:.2} MB per hour over the last two thirds",
        began.elapsed().as_secs_f64(),
        count(|metrics| metrics.suspensions),
        count(|metrics| metrics.rehandshakes_dialled),
        count(|metrics| metrics.handshakes_dialled),
        warm.1 >> 20,
        last.1 >> 20,
        slope / 1e6,
    );
    assert_eq!(panics.load(Ordering::Relaxed), 0, "panics");
    assert!(count(|metrics| metrics.rehandshakes_dialled) > done, "faults happened");
    let allowed = ALLOWANCE * count_of_pairs / PAIRS;
    assert!(last.1 <= warm.1 + allowed, "memory follows the number of rounds");
    for pair in &pairs {
        assert_eq!((pair.a.link.sessions().len(), pair.b.link.sessions().len()), (1, 1));
        until("no channel stays", || pair.ours.info().channels == 0 && pair.theirs.info().channels == 0).await;
        until("one path stays", || pair.ours.info().paths <= 1).await;
    }
}

/// The bound means something: what is kept on purpose is seen.
#[test]
fn memory_that_is_kept_is_seen() {
    let before = resident();
    if before == 0 {
        return println!("soak: this system does not tell the memory of a process");
    }
    let kept = vec![1u8; 2 * ALLOWANCE as usize];
    assert!(resident() > before + ALLOWANCE, "{} bytes were kept", std::hint::black_box(kept).len());
}
