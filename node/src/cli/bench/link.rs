//! `bench link`: a session between two links in this process, beside plain TLS with the same suite and group over the
//! same loopback. Both take turns, five times, so that a machine that slows down slows both. Ratios count more than
//! figures: both ends share the cores. Spec: LK-80, LK-82 to LK-85, LK-87, LK-89, LK-94, LK-95

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sealtide_crypto::{Seed, SigningKey};
use sealtide_identity::{InviteId, InviteSecret, LinkAddress, NodeId};
use sealtide_link::{Admission, Ages, Channel, DialTarget, GROUP_NAME, Link, LinkConfig, PlainTls, Refused, Session};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::cli::bench::{Sizes, distance, relayed};
use crate::failure::Failure;
use crate::real::now;
use crate::world::OsEntropy;

/// Repetitions of each measurement.
pub(super) const REPETITIONS: usize = 5;
/// Handshakes of one repetition.
const HANDSHAKES: usize = 40;
/// Echoes of one repetition.
const ECHOES: usize = 1_000;
/// Bytes of an echo.
const ECHO_BYTES: usize = 64;
/// Bytes of one repetition of the throughput.
const BULK_BYTES: usize = 192 << 20;
/// Bytes of one message of it.
const MESSAGE_BYTES: usize = 64 * 1024;
/// Planned switches that are measured …
const SWITCHES: usize = 60;
/// … of paths that grow this old.
const PATH_AGE: Duration = Duration::from_millis(600);
/// Messages this far apart, in ms, show the pause of a switch; so much before and after one belongs to it.
const TICK_MS: u64 = 1;
const AROUND_MS: f64 = 40.0;
/// How long idle sessions are watched.
const IDLE: Duration = Duration::from_secs(10);

/// Lets everybody in.
pub(super) struct Everyone;

impl Admission for Everyone {
    fn allowed(&self, _: &NodeId) -> bool {
        true
    }

    fn invite_secret(&self, _: &InviteId) -> Option<InviteSecret> {
        None
    }

    fn enrol(&self, _: &InviteId, _: &NodeId) -> Result<(), Refused> {
        Err(Refused)
    }
}

/// Runs the bench; what a relay needs on the disk is below `dir`.
pub(super) async fn link(dir: &Path, sizes: Sizes) -> Result<Value, Failure> {
    let plain = PlainTls::new(now()).await?;
    let door = door().await?;
    let handshakes = handshakes(&plain, &door).await?;
    let dialler = new_link()?;
    let ours = dialler.dial(door.target()).await.map_err(failed)?;
    let theirs = door.accept().await?;
    let echo = echoes(&plain, &ours, &theirs).await?;
    let throughput = throughput(&plain, &ours, &theirs, &processor_time).await?;
    let suite = ours.info().suite;
    dialler.shutdown().await;
    let further = distance::further_paths(&door).await?;
    let distances = distance::distances().await?;
    let recovery = distance::recovery().await?;
    let switches = switches().await?;
    let idle = idle(&door, sizes.sessions).await?;
    door.link.shutdown().await;
    let relayed = relayed::relayed(dir, &plain, sizes).await?;
    Ok(json!({
        "schema": "sealtide/bench_link/1",
        "machine": machine(),
        "suite": suite,
        "plain": format!("tokio-rustls over TCP, {GROUP_NAME}, both certificates"),
        "repetitions": REPETITIONS,
        "handshake": handshakes,
        "echo": echo,
        "throughput": throughput,
        "further_path": further,
        "distances": distances,
        "recovery": recovery,
        "planned_switch": switches,
        "idle": idle,
        "relay": relayed,
    }))
}

// --- ends ---

/// A link that listens.
pub(super) struct OpenDoor {
    pub(super) link: Link,
    pub(super) address: SocketAddr,
}

impl OpenDoor {
    pub(super) fn target(&self) -> DialTarget {
        self.target_at(self.address)
    }

    /// The same node, met at another address.
    pub(super) fn target_at(&self, socket: SocketAddr) -> DialTarget {
        let addresses = vec![LinkAddress { source: 4, socket }];
        DialTarget { node: self.link.id(), addresses, relays: Vec::new(), invite: None }
    }

    pub(super) async fn accept(&self) -> Result<Session, Failure> {
        self.link.accept().await.ok_or_else(|| failed("the link is over"))
    }
}

pub(super) fn new_link() -> Result<Link, Failure> {
    link_with(|_| {})
}

fn link_aged(ages: Ages) -> Result<Link, Failure> {
    link_with(|config| config.ages = ages)
}

pub(super) fn link_with(change: impl FnOnce(&mut LinkConfig)) -> Result<Link, Failure> {
    let key = Arc::new(SigningKey::from_seed(&Seed::generate(&mut OsEntropy)));
    let id = NodeId::of(key.public());
    let mut config = LinkConfig::new(key, id);
    change(&mut config);
    Link::new(config, Arc::new(Everyone)).map_err(failed)
}

async fn door() -> Result<OpenDoor, Failure> {
    door_of(new_link()?).await
}

pub(super) async fn door_of(link: Link) -> Result<OpenDoor, Failure> {
    let address = link.listen(([127, 0, 0, 1], 0).into()).await.map_err(failed)?;
    Ok(OpenDoor { link, address })
}

pub(super) fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed("bench", error.to_string())
}

// --- measurements ---

// Measures: LK-80
async fn handshakes(plain: &PlainTls, door: &OpenDoor) -> Result<Value, Failure> {
    let (mut full, mut tls) = (Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        for _ in 0..HANDSHAKES {
            let dialler = new_link()?;
            let began = Instant::now();
            let session = dialler.dial(door.target()).await.map_err(failed)?;
            full.push(ms(began));
            drop((session, door.accept().await?));
            dialler.shutdown().await;
            let began = Instant::now();
            drop(plain.pair().await?);
            tls.push(ms(began));
        }
    }
    let (full, tls) = (Figures(full), Figures(tls));
    Ok(json!({
        "full_ms": full.shown(),
        "plain_tls_ms": tls.shown(),
        "ratio_p50": round(full.at(0.5) / tls.at(0.5)),
    }))
}

// Measures: LK-85
pub(super) async fn echoes(plain: &PlainTls, ours: &Session, theirs: &Session) -> Result<Value, Failure> {
    let (mut linked, mut bare) = (Vec::new(), Vec::new());
    let channel = ours.open(1, "echo").map_err(failed)?;
    let message = Bytes::from(vec![7; ECHO_BYTES]);
    channel.send(message.clone()).await.map_err(failed)?;
    let other = theirs.accept_channel().await.ok_or_else(|| failed("no channel"))?;
    let answering = tokio::spawn(async move {
        while let Ok(Some(message)) = other.recv().await {
            other.release(message.len() as u64);
            if other.send(message).await.is_err() {
                break;
            }
        }
    });
    take(&channel).await?;
    let (mut client, mut server) = plain.pair().await?;
    let echoing = tokio::spawn(async move {
        let mut bytes = [0; ECHO_BYTES];
        while server.read_exact(&mut bytes).await.is_ok() {
            if server.write_all(&bytes).await.is_err() || server.flush().await.is_err() {
                break;
            }
        }
    });
    for _ in 0..REPETITIONS {
        for _ in 0..ECHOES {
            let began = Instant::now();
            channel.send(message.clone()).await.map_err(failed)?;
            take(&channel).await?;
            linked.push(ms(began) * 1000.0);
        }
        for _ in 0..ECHOES {
            let began = Instant::now();
            let mut bytes = [0; ECHO_BYTES];
            client.write_all(&message).await?;
            client.flush().await?;
            client.read_exact(&mut bytes).await?;
            bare.push(ms(began) * 1000.0);
        }
    }
    channel.finish();
    answering.abort();
    echoing.abort();
    let (linked, bare) = (Figures(linked), Figures(bare));
    Ok(json!({
        "bytes": ECHO_BYTES,
        "round_trip_us": linked.shown(),
        "plain_tls_round_trip_us": bare.shown(),
        "added_one_way_us": {
            "p50": round((linked.at(0.5) - bare.at(0.5)) / 2.0),
            "p99": round((linked.at(0.99) - bare.at(0.99)) / 2.0),
        },
    }))
}

pub(super) async fn take(channel: &Channel) -> Result<(), Failure> {
    let message = channel.recv().await.map_err(failed)?.ok_or_else(|| failed("the channel ended"))?;
    channel.release(message.len() as u64);
    Ok(())
}

/// What moving bytes cost.
#[derive(Default)]
struct Rates {
    mib_per_s: Vec<f64>,
    /// Of both ends, and of the relay where there is one.
    processor_ms_per_gib: Vec<f64>,
}

impl Rates {
    fn add(&mut self, began: Instant, used: Duration) {
        let seconds = began.elapsed().as_secs_f64();
        let gib = BULK_BYTES as f64 / f64::from(1 << 30);
        self.mib_per_s.push(gib * 1024.0 / seconds);
        self.processor_ms_per_gib.push(used.as_secs_f64() * 1000.0 / gib);
    }

    fn shown(self) -> (f64, f64, Value) {
        let (rates, costs) = (Figures(self.mib_per_s), Figures(self.processor_ms_per_gib));
        let (rate, cost) = (rates.at(0.5), costs.at(0.5));
        let shown = json!({
            "mib_per_s": round(rate), "gbit_per_s": round(rate * 8.0 * 1.048_576 / 1000.0),
            "mib_per_s_min": round(rates.at(0.0)), "mib_per_s_max": round(rates.at(1.0)),
            "processor_ms_per_gib": round(cost),
        });
        (rate, cost, shown)
    }
}

/// `used` tells the processor time of all that takes part.
// Measures: LK-87
pub(super) async fn throughput(
    plain: &PlainTls,
    ours: &Session,
    theirs: &Session,
    used: &(dyn Fn() -> Duration + Sync),
) -> Result<Value, Failure> {
    let (mut up, mut down, mut bare) = (Rates::default(), Rates::default(), Rates::default());
    for _ in 0..REPETITIONS {
        let (client, server) = plain.pair().await?;
        let (began, before) = (Instant::now(), used());
        stream(client, server).await?;
        bare.add(began, used() - before);
        for (from, to, rates) in [(ours, theirs, &mut up), (theirs, ours, &mut down)] {
            let (began, before) = (Instant::now(), used());
            messages(from, to).await?;
            rates.add(began, used() - before);
        }
    }
    let ((up, up_cost, up_shown), (down, down_cost, down_shown)) = (up.shown(), down.shown());
    let (bare, bare_cost, bare_shown) = bare.shown();
    Ok(json!({
        "message_bytes": MESSAGE_BYTES,
        "dialler_to_listener": up_shown,
        "listener_to_dialler": down_shown,
        "plain_tls": bare_shown,
        "ratio": {"dialler_to_listener": round(up / bare), "listener_to_dialler": round(down / bare)},
        "processor_ratio": {
            "dialler_to_listener": round(bare_cost / up_cost),
            "listener_to_dialler": round(bare_cost / down_cost),
        },
    }))
}

async fn stream<A, B>(mut from: A, mut to: B) -> Result<(), Failure>
where
    A: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let writing = tokio::spawn(async move {
        let data = vec![7; MESSAGE_BYTES];
        for _ in 0..BULK_BYTES / MESSAGE_BYTES {
            from.write_all(&data).await?;
        }
        from.flush().await?;
        std::io::Result::Ok(from)
    });
    let mut buffer = vec![0; 256 * 1024];
    let mut left = BULK_BYTES;
    while left > 0 {
        left -= to.read(&mut buffer).await?;
    }
    drop(writing.await.map_err(failed)??);
    Ok(())
}

async fn messages(from: &Session, to: &Session) -> Result<(), Failure> {
    let channel = from.open(7, "sts/1").map_err(failed)?;
    let sending = tokio::spawn(async move {
        let message = Bytes::from(vec![7; MESSAGE_BYTES]);
        for _ in 0..BULK_BYTES / MESSAGE_BYTES {
            channel.send(message.clone()).await?;
        }
        channel.finish();
        Ok::<_, sealtide_link::ChannelClosed>(channel)
    });
    let other = to.accept_channel().await.ok_or_else(|| failed("no channel"))?;
    for _ in 0..BULK_BYTES / MESSAGE_BYTES {
        take(&other).await?;
    }
    other.finish();
    drop(sending.await.map_err(failed)?.map_err(failed)?);
    Ok(())
}

/// What sessions weigh that do nothing. Both ends are in this process, so each session counts twice.
// Measures: LK-89, LK-95
async fn idle(door: &OpenDoor, sessions: usize) -> Result<Value, Failure> {
    let diallers: Vec<Link> = (0..sessions).map(|_| new_link()).collect::<Result<_, _>>()?;
    let before = resident_bytes();
    let mut held = Vec::new();
    for dialler in &diallers {
        held.push(dialler.dial(door.target()).await.map_err(failed)?);
        held.push(door.accept().await?);
    }
    let grown = resident_bytes().saturating_sub(before);
    let used = processor_time();
    tokio::time::sleep(IDLE).await;
    let share = (processor_time() - used).as_secs_f64() / IDLE.as_secs_f64();
    let ends = held.len().max(1);
    drop(held);
    for dialler in &diallers {
        dialler.shutdown().await;
    }
    Ok(json!({
        "sessions": sessions,
        "bytes_per_end": grown / ends as u64,
        "core_share_per_session": (share / ends as f64 * 1e6).round() / 1e6,
        "core_share": round(share),
    }))
}

/// The pause that an application sees when a path that has grown old gives way to its successor: a message every
/// millisecond, and the longest way of one around each switch of the sender. Beside it the same figure between switches,
/// since a busy machine pauses too.
// Measures: LK-94
async fn switches() -> Result<Value, Failure> {
    let ages = Ages { path: PATH_AGE, ..Ages::default() };
    let (door, dialler) = (door_of(link_aged(ages)?).await?, link_aged(ages)?);
    let ours = dialler.dial(door.target()).await.map_err(failed)?;
    let theirs = door.accept().await?;
    let channel = ours.open(1, "ticks").map_err(failed)?;
    let epoch = Instant::now();
    let ticking = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
        loop {
            ticks.tick().await;
            let sent = epoch.elapsed().as_secs_f64() * 1000.0;
            if channel.send(Bytes::copy_from_slice(&sent.to_be_bytes())).await.is_err() {
                return;
            }
        }
    });
    let other = theirs.accept_channel().await.ok_or_else(|| failed("no channel"))?;
    let (mut ways, mut switched) = (Vec::new(), Vec::new());
    let mut seen = ours.info().switches;
    while switched.len() < SWITCHES {
        let message = other.recv().await.map_err(failed)?.ok_or_else(|| failed("the ticks ended"))?;
        other.release(message.len() as u64);
        let sent = f64::from_be_bytes(message[..].try_into().map_err(failed)?);
        ways.push((sent, ms(epoch) - sent));
        let switches = ours.info().switches;
        if std::mem::replace(&mut seen, switches) != switches {
            switched.push(ms(epoch));
        }
    }
    ticking.abort();
    dialler.shutdown().await;
    door.link.shutdown().await;
    let longest = |at: f64| {
        let near = ways.iter().filter(|(sent, _)| (sent - at).abs() <= AROUND_MS);
        near.map(|(_, way)| *way).fold(0.0, f64::max)
    };
    // The last switch has no messages after it, the first may be that of the begin.
    let around: Vec<f64> = switched[1..switched.len() - 1].iter().map(|at| longest(*at)).collect();
    let between: Vec<f64> = switched.windows(2).map(|pair| longest(f64::midpoint(pair[0], pair[1]))).collect();
    Ok(json!({
        "switches": around.len(),
        "pause_ms": Figures(around).shown(),
        "without_switch_ms": Figures(between).shown(),
    }))
}

// --- figures ---

pub(super) struct Figures(pub(super) Vec<f64>);

impl Figures {
    /// The figure that the part `share` (0 to 1) of all does not exceed.
    pub(super) fn at(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * share).round() as usize]
    }

    pub(super) fn shown(&self) -> Value {
        json!({"p50": round(self.at(0.5)), "p99": round(self.at(0.99)), "max": round(self.at(1.0))})
    }
}

pub(super) fn ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

pub(super) fn round(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

/// Processor time of this process, in steps of 10 ms; zero where the system does not tell.
pub(super) fn processor_time() -> Duration {
    processor_time_of("self")
}

/// The same of another process.
pub(super) fn processor_time_of(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything: user and system time are the 12th and 13th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().skip(11).take(2);
    Duration::from_millis(fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10)
}

/// Bytes of memory that this process has; zero where the system does not tell.
fn resident_bytes() -> u64 {
    resident_bytes_of("self")
}

/// The same of another process.
pub(super) fn resident_bytes_of(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_ascii_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

pub(super) fn machine() -> Value {
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    json!({
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "processor": model.trim_start_matches(['\t', ' ', ':']),
    })
}
