//! The part of `bench link` over a relay, which runs in a process of its own, so that its memory and its processor time are
//! those of a relay alone. The nodes share this process. Spec: LK-81, LK-86, LK-88 to LK-93

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sealtide_crypto::{Seed, SigningKey};
use sealtide_identity::{LinkAddress, NodeId, RelayAddress, RelayHint};
use sealtide_link::{DialTarget, Link, LinkConfig, PathPolicy, PlainTls, Session};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;

use super::link::{
    Everyone, Figures, echoes, failed, ms, processor_time, processor_time_of, resident_bytes_of, round, take,
    throughput,
};
use super::{Sizes, distance};
use crate::failure::Failure;
use crate::world::OsEntropy;

/// Handshakes over the relay.
const HANDSHAKES: usize = 100;
/// Echoes of each session that echoes once a second.
const SECONDS: usize = 10;
/// Logins that are under way at one time.
const AT_ONCE: usize = 64;
/// How long a session may take to get its second path …
const BOTH: Duration = Duration::from_secs(5);
/// … and all of them to let go of what they needed for it.
const REST: Duration = Duration::from_secs(5);
/// How long all logins may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// A relay in a process of its own; it ends when this is dropped.
struct RelayProcess {
    child: Child,
    hint: RelayHint,
}

impl RelayProcess {
    /// Anybody may log in and send as fast as it goes: the rate of a node is not what is measured.
    async fn start(dir: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--json").arg("--home").arg(dir.join("relay"));
        command.args(["relay", "run", "--listen", "127.0.0.1:0", "--admit", "open"]);
        command.env("SEALTIDE_RELAY_RATE", "0").kill_on_drop(true);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let out = child.stdout.take().ok_or_else(|| failed("the relay says nothing"))?;
        let ready = BufReader::new(out).lines().next_line().await?.ok_or_else(|| failed("the relay did not start"))?;
        let ready: Value = serde_json::from_str(&ready).map_err(failed)?;
        let address = RelayAddress::decode(ready["relay"].as_str().unwrap_or_default()).map_err(failed)?;
        Ok(Self { child, hint: address.relay })
    }

    fn process(&self) -> String {
        self.child.id().map_or_else(String::new, |id| id.to_string())
    }

    fn processor_time(&self) -> Duration {
        processor_time_of(&self.process())
    }

    fn resident_bytes(&self) -> u64 {
        resident_bytes_of(&self.process())
    }
}

/// Runs this part.
pub(super) async fn relayed(dir: &Path, plain: &PlainTls, sizes: Sizes) -> Result<Value, Failure> {
    let relay = RelayProcess::start(dir).await?;
    let door = node(&relay).await?;
    let handshake = handshakes(&relay, &door).await?;
    let (dialler, ours, theirs) = pair(&relay, &door).await?;
    let echo = hop(plain, &ours, &theirs).await?;
    // Measures: LK-88
    let throughput = throughput(plain, &ours, &theirs, &|| processor_time() + relay.processor_time()).await?;
    dialler.shutdown().await;
    let fallback = distance::fallback(&relay.hint).await?;
    let idle = idle_with_both(&relay, sizes.relayed).await?;
    let logins = logins(&relay, sizes.logins).await?;
    let sessions = sessions(&relay, &door, sizes.relayed).await?;
    door.shutdown().await;
    Ok(json!({
        "handshake_ms": handshake,
        "echo": echo,
        "throughput": throughput,
        "fallback": fallback,
        "idle_with_both_paths": idle,
        "logins": logins,
        "sessions": sessions,
    }))
}

/// What sessions weigh that do nothing and have both paths, a direct one and one over the relay. They meet at the relay, and hear there
/// where the other node listens. Both ends are in this process; the logins were there before.
// Measures: LK-89
async fn idle_with_both(relay: &RelayProcess, count: usize) -> Result<Value, Failure> {
    let door = direct_node()?;
    // What listens on loopback alone is told to nobody who is met elsewhere.
    door.listen(([0, 0, 0, 0], 0).into()).await.map_err(failed)?;
    let diallers = (0..count).map(|_| direct_node()).collect::<Result<Vec<_>, _>>()?;
    for link in diallers.iter().chain([&door]) {
        link.use_relay(&relay.hint, None);
        log_in(link).await?;
    }
    let before = resident_bytes_of("self");
    let has_both = |session: &&Session| session.info().path == Some("direct") && session.info().paths == 2;
    let mut held = Vec::new();
    for dialler in &diallers {
        let (ours, began) = (dial(relay, dialler, &door).await?, Instant::now());
        let theirs = door.accept().await.ok_or_else(|| failed("the link is over"))?;
        // One after the other: dials that wait for each other are given up, and tried again much later.
        while began.elapsed() < BOTH && !(has_both(&&ours) && has_both(&&theirs)) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        held.extend([ours, theirs]);
    }
    tokio::time::sleep(REST).await;
    let both = held.iter().filter(has_both).count();
    let grown = resident_bytes_of("self").saturating_sub(before);
    let ends = held.len().max(1);
    drop(held);
    for link in diallers.iter().chain([&door]) {
        link.shutdown().await;
    }
    Ok(json!({"sessions": count, "ends": ends, "ends_with_both": both, "bytes_per_end": grown / ends as u64}))
}

/// A node that is logged in and uses nothing but the relay.
async fn node(relay: &RelayProcess) -> Result<Link, Failure> {
    let key = Arc::new(SigningKey::from_seed(&Seed::generate(&mut OsEntropy)));
    let id = NodeId::of(key.public());
    let mut config = LinkConfig::new(key, id);
    config.policy = PathPolicy::RelayOnly;
    let link = Link::new(config, Arc::new(Everyone)).map_err(failed)?;
    link.use_relay(&relay.hint, None);
    log_in(&link).await?;
    Ok(link)
}

pub(super) async fn log_in(link: &Link) -> Result<(), Failure> {
    let began = Instant::now();
    while !link.relays().iter().all(|relay| relay.up) {
        if began.elapsed() > PATIENCE {
            let why = link.relays().into_iter().find_map(|relay| relay.why_not).unwrap_or_default();
            return Err(failed(format!("no login at the relay: {why}")));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

async fn dial(relay: &RelayProcess, from: &Link, to: &Link) -> Result<Session, Failure> {
    let (node, relays) = (to.id(), vec![relay.hint.clone()]);
    from.dial(DialTarget { node, addresses: Vec::new(), relays, invite: None }).await.map_err(failed)
}

async fn pair(relay: &RelayProcess, door: &Link) -> Result<(Link, Session, Session), Failure> {
    let dialler = node(relay).await?;
    let ours = dial(relay, &dialler, door).await?;
    let theirs = door.accept().await.ok_or_else(|| failed("the link is over"))?;
    Ok((dialler, ours, theirs))
}

/// From the wish for a circuit to the session, the node being logged in.
// Measures: LK-81
async fn handshakes(relay: &RelayProcess, door: &Link) -> Result<Value, Failure> {
    let mut times = Vec::new();
    for _ in 0..HANDSHAKES {
        let dialler = node(relay).await?;
        let began = Instant::now();
        let session = dial(relay, &dialler, door).await?;
        times.push(ms(began));
        drop((session, door.accept().await));
        dialler.shutdown().await;
    }
    Ok(Figures(times).shown())
}

/// An echo over the relay beside one over a direct session and one over plain TLS.
// Measures: LK-86
async fn hop(plain: &PlainTls, ours: &Session, theirs: &Session) -> Result<Value, Failure> {
    let (near, far) = (direct_node()?, direct_node()?);
    let address = far.listen(([127, 0, 0, 1], 0).into()).await.map_err(failed)?;
    let addresses = vec![LinkAddress { source: LinkAddress::CONFIGURED, socket: address }];
    let target = DialTarget { node: far.id(), addresses, relays: Vec::new(), invite: None };
    let straight = near.dial(target).await.map_err(failed)?;
    let other = far.accept().await.ok_or_else(|| failed("the link is over"))?;
    let direct = echoes(plain, &straight, &other).await?;
    let over = echoes(plain, ours, theirs).await?;
    near.shutdown().await;
    far.shutdown().await;
    let added = |part: &str| {
        let at = |echo: &Value| echo["round_trip_us"][part].as_f64().unwrap_or(0.0);
        round((at(&over) - at(&direct)) / 2.0)
    };
    Ok(json!({
        "round_trip_us": over["round_trip_us"],
        "direct_round_trip_us": direct["round_trip_us"],
        "plain_tls_round_trip_us": over["plain_tls_round_trip_us"],
        "added_one_way_by_the_relay_us": {"p50": added("p50"), "p99": added("p99")},
    }))
}

fn direct_node() -> Result<Link, Failure> {
    let key = Arc::new(SigningKey::from_seed(&Seed::generate(&mut OsEntropy)));
    let id = NodeId::of(key.public());
    Link::new(LinkConfig::new(key, id), Arc::new(Everyone)).map_err(failed)
}

/// Logins of nodes that stay and do nothing: what each costs the relay in processor time and memory. Half of the nodes are in a
/// process of their own, so that neither has more connections than a process may.
// Measures: LK-90, LK-92, LK-93
async fn logins(relay: &RelayProcess, count: usize) -> Result<Value, Failure> {
    let (memory, used, began) = (relay.resident_bytes(), relay.processor_time(), Instant::now());
    let mut elsewhere = LoginProcess::start(&relay.hint, count / 2).await?;
    let here = log_all_in(&relay.hint, count - count / 2);
    let (links, there) = tokio::join!(here, elsewhere.done());
    let links = links?;
    there?;
    let (seconds, cost) = (began.elapsed().as_secs_f64(), (relay.processor_time() - used).as_secs_f64());
    let grown = relay.resident_bytes().saturating_sub(memory);
    let all = count.max(1) as f64;
    for link in &links {
        link.shutdown().await;
    }
    Ok(json!({
        "logins": count,
        "processes": 2,
        "seconds": round(seconds),
        "relay_processor_ms_per_login": round(cost * 1000.0 / all),
        "logins_per_second_and_core": if cost > 0.0 { round(all / cost) } else { 0.0 },
        "relay_bytes_per_node": (grown as f64 / all) as u64,
        "relay_resident_bytes": memory + grown,
    }))
}

async fn log_all_in(relay: &RelayHint, count: usize) -> Result<Vec<Link>, Failure> {
    let links = (0..count).map(|_| direct_node()).collect::<Result<Vec<_>, _>>()?;
    let mut tasks = JoinSet::new();
    for link in &links {
        while tasks.len() >= AT_ONCE {
            tasks.join_next().await.transpose().map_err(failed)?.transpose()?;
        }
        link.use_relay(relay, None);
        let link = link.clone();
        tasks.spawn(async move { log_in(&link).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(failed)??;
    }
    Ok(links)
}

/// Nodes in a process of their own; they are gone when this is dropped.
struct LoginProcess {
    _child: Child,
    says: tokio::io::Lines<BufReader<ChildStdout>>,
}

impl LoginProcess {
    async fn start(relay: &RelayHint, count: usize) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--json", "bench", "login-end"]).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let ends = child.stdin.take().zip(child.stdout.take());
        let (mut to, out) = ends.ok_or_else(|| failed("a process without pipes"))?;
        let order = json!({"relay": relay.relay.as_bytes().to_vec(), "url": relay.url, "count": count});
        to.write_all(format!("{order}\n").as_bytes()).await?;
        Ok(Self { _child: child, says: BufReader::new(out).lines() })
    }

    /// Waits until all are logged in.
    async fn done(&mut self) -> Result<(), Failure> {
        let line = self.says.next_line().await?;
        line.map(drop).ok_or_else(|| failed("the other process did not log in; see its limit of open files"))
    }
}

/// The other process: logs in as often as it is told, says so, and stays until it is ended.
pub(super) async fn login_end() -> Result<Value, Failure> {
    let mut order = String::new();
    std::io::stdin().read_line(&mut order)?;
    let order: Value = serde_json::from_str(&order).map_err(failed)?;
    let id: Vec<u8> = serde_json::from_value(order["relay"].clone()).map_err(failed)?;
    let id: [u8; 32] = id.try_into().map_err(|_| failed("an id has 32 bytes"))?;
    let relay = RelayHint { relay: NodeId::from_bytes(id), url: order["url"].as_str().unwrap_or_default().to_owned() };
    let links = log_all_in(&relay, order["count"].as_u64().unwrap_or(0) as usize).await?;
    let mut out = std::io::stdout();
    std::io::Write::write_all(&mut out, b"{\"logged_in\":true}\n")?;
    std::io::Write::flush(&mut out)?;
    tokio::time::sleep(PATIENCE).await;
    Ok(json!({"links": links.len()}))
}

/// Sessions over the relay that echo once a second.
// Measures: LK-91
async fn sessions(relay: &RelayProcess, door: &Link, count: usize) -> Result<Value, Failure> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(pair(relay, door).await?);
    }
    let (used, began) = (relay.processor_time(), Instant::now());
    let mut tasks = JoinSet::new();
    for (number, (_, ours, theirs)) in held.iter().enumerate() {
        let (ours, theirs) = (ours.clone(), theirs.clone());
        // Spread over the second.
        let late = Duration::from_micros(number as u64 * 1_000_000 / count as u64);
        tasks.spawn(async move { echo_each_second(&ours, &theirs, late).await });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done.map_err(failed)??);
    }
    let share = (relay.processor_time() - used).as_secs_f64() / began.elapsed().as_secs_f64();
    let memory = relay.resident_bytes();
    for (dialler, ..) in &held {
        dialler.shutdown().await;
    }
    Ok(json!({
        "sessions": count,
        "echoes": times.len(),
        "echo_ms": if times.is_empty() { Value::Null } else { Figures(times).shown() },
        "relay_core_share": round(share),
        "relay_resident_bytes": memory,
    }))
}

async fn echo_each_second(ours: &Session, theirs: &Session, late: Duration) -> Result<Vec<f64>, Failure> {
    tokio::time::sleep(late).await;
    let channel = ours.open(1, "echo").map_err(failed)?;
    let message = Bytes::from_static(&[7; 64]);
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
    let (mut times, mut each) = (Vec::new(), tokio::time::interval(Duration::from_secs(1)));
    for _ in 0..SECONDS {
        each.tick().await;
        let began = Instant::now();
        channel.send(message.clone()).await.map_err(failed)?;
        take(&channel).await?;
        times.push(ms(began));
    }
    answering.abort();
    Ok(times)
}
