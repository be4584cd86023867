//! `bench gateway`: the door beside npm `ws` on Node and `Bun.serve`, where those are there, in one run.
//!
//! Every server is a process of its own and has one load generator, on one thread of this process. They take turns in every
//! measurement, so that a machine that slows down slows all. Ratios count more than figures, and the time of the server's
//! processor more than both: it moves little where rates move much.

mod load;
mod servers;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Map, Value, json};

use self::load::{Aim, Load, Session};
use self::servers::{Kind, Serving, all};
use crate::failure::Failure;

/// Turns of each measurement; the middle one counts.
const TURNS: usize = 3;
/// Upgrades of one turn, and how many are under way at once.
const UPGRADES: usize = 4_000;
const AT_ONCE: usize = 32;
/// Round trips of one turn, over all connections.
const TRIPS: usize = 40_000;
/// Bytes of an echo.
const ECHO_BYTES: usize = 32;
/// Bumps of one turn.
const BUMPS: usize = 400;
/// Clients that bump while the keys change, and bumps of each.
const ROTATION: (usize, usize) = (16, 100);
/// Messages to all of one turn.
const BROADCASTS: usize = 20;
/// Idle connections that are weighed.
const IDLE: usize = 2_000;

/// What one turn of a measurement came to.
#[derive(Clone, Copy, Debug)]
struct Turn {
    per_second: f64,
    /// Microseconds of the server's processor for each.
    cpu_us: f64,
}

/// Runs the bench; `sessions` is how many hear a broadcast at most, `peers` the folder whose `node_modules` has the others.
pub(super) async fn gateway(dir: &Path, sessions: usize, peers: Option<&Path>) -> Result<Value, Failure> {
    // The peers run in their own folder, where a relative path would lead elsewhere.
    let (dir, peers) = (dir.to_owned(), peers.map(Path::canonicalize).transpose()?);
    let run = move || -> Result<Value, Failure> {
        let servers = all(&dir, peers.as_deref())?;
        let load = Load::new()?;
        let bench = Bench { servers, load };
        let mut told = Map::new();
        told.insert("schema".into(), json!("sealtide/bench_gateway/1"));
        told.insert("machine".into(), super::link::machine());
        told.insert("servers".into(), bench.servers.iter().map(|server| server.kind.name()).collect());
        told.insert("turns".into(), json!(TURNS));
        // First: what was used and given back would hide what a connection needs.
        told.insert("idle_connection".into(), bench.idle()?);
        told.insert("upgrades".into(), bench.upgrades()?);
        for connections in [1, 64, 512] {
            told.insert(format!("round_trips_{connections}"), bench.round_trips(connections)?);
        }
        told.insert("pings_64".into(), bench.pings(64)?);
        for clients in [1, 16] {
            told.insert(format!("bumps_{clients}"), bench.bumps(clients)?);
        }
        told.insert("rotation".into(), bench.rotation(&dir)?);
        for listeners in [1_000, 10_000].into_iter().filter(|count| *count <= sessions) {
            told.insert(format!("fan_out_{listeners}"), bench.fan_out(listeners)?);
        }
        Ok(Value::Object(told))
    };
    // The load is on a thread of its own, with a runtime of its own.
    tokio::task::spawn_blocking(run).await.map_err(|error| Failure::failed("bench", error.to_string()))?
}

struct Bench {
    servers: Vec<Serving>,
    load: Load,
}

impl Bench {
    /// A server with a token for each upgrade has one fetched and burnt; the echo and the others have none.
    fn upgrades(&self) -> Result<Value, Failure> {
        self.compare(&[Kind::Door, Kind::Echo, Kind::Ws, Kind::Bun], |server| {
            self.turn(server, UPGRADES, || self.load.upgrades(&server.aim, UPGRADES, AT_ONCE))
        })
    }

    fn round_trips(&self, connections: usize) -> Result<Value, Failure> {
        let trips = TRIPS.min(20_000 * connections) / connections;
        self.compare(&[Kind::Echo, Kind::Ws, Kind::Bun], |server| {
            let mut sessions = self.load.sessions(&server.aim, connections)?;
            let message = [b'x'; ECHO_BYTES];
            self.turn(server, trips * connections, || self.load.trips(&mut sessions, &message, 2 + ECHO_BYTES, trips))
        })
    }

    /// `ping` and `pong` of the door itself: JSON in, JSON out.
    fn pings(&self, connections: usize) -> Result<Value, Failure> {
        let trips = TRIPS / connections;
        self.compare(&[Kind::Door], |server| {
            let mut sessions = self.load.sessions(&server.aim, connections)?;
            let (ping, pong) = (br#"{"type":"ping"}"#, br##"{"type":"pong","hsl":"#9D4EDD"}"##.len());
            self.turn(server, trips * connections, || self.load.trips(&mut sessions, ping, 2 + pong, trips))
        })
    }

    /// Signed, and on the disk before they are answered.
    fn bumps(&self, clients: usize) -> Result<Value, Failure> {
        self.compare(&[Kind::Door], |server| {
            let mut sessions = self.load.sessions(&server.aim, clients)?;
            self.turn(server, BUMPS, || self.load.bumps(&mut sessions, BUMPS / clients))
        })
    }

    /// How long a bump takes, with keys that stand still and with keys that are rotated and rolled back all the time.
    fn rotation(&self, dir: &Path) -> Result<Value, Failure> {
        let Some(server) = self.servers.iter().find(|server| server.kind == Kind::Door) else {
            return Ok(Value::Null);
        };
        order(dir, &["keys", "new"])?;
        let (clients, bumps) = ROTATION;
        let mut sessions = self.load.sessions(&server.aim, clients)?;
        let quiet = self.load.bump_times(&mut sessions, bumps)?;
        let done = AtomicBool::new(false);
        let (rotating, changes) = std::thread::scope(|scope| {
            let changing = scope.spawn(|| {
                let mut changes = 0_u64;
                while !done.load(Ordering::Acquire) {
                    order(dir, &["keys", if changes.is_multiple_of(2) { "rotate" } else { "rollback" }])?;
                    changes += 1;
                }
                Ok::<u64, Failure>(changes)
            });
            let times = self.load.bump_times(&mut sessions, bumps);
            done.store(true, Ordering::Release);
            let changes = changing.join().map_err(|_| failed("the thread that changes keys panicked"))?;
            Ok::<_, Failure>((times?, changes?))
        })?;
        let figures = |times: &[f64]| json!({"p50_ms": at_part(times, 0.5), "p99_ms": at_part(times, 0.99)});
        let mut told = json!({"quiet": figures(&quiet), "rotating": figures(&rotating)});
        told["rotating"]["changes"] = json!(changes);
        Ok(told)
    }

    /// One tells all. On the door that is a bump, which is signed and durable besides.
    fn fan_out(&self, listeners: usize) -> Result<Value, Failure> {
        self.compare(&[Kind::Door, Kind::Ws, Kind::Bun], |server| {
            let mut sessions = self.load.sessions(&server.aim, listeners)?;
            let mut teller = self.load.sessions(&server.aim, 1)?;
            let teller: &mut Session = teller.first_mut().ok_or_else(|| Failure::failed("bench", "no session"))?;
            self.turn(server, BROADCASTS * listeners, || {
                self.load.broadcasts(&server.aim, teller, &mut sessions, BROADCASTS)
            })
        })
    }

    /// Resident memory of a connection that has said one thing and then nothing.
    fn idle(&self) -> Result<Value, Failure> {
        let mut told = Map::new();
        for server in &self.servers {
            let before = server.resident_bytes()?;
            let mut sessions = self.load.sessions(&server.aim, IDLE)?;
            let message =
                if server.kind == Kind::Door { br#"{"type":"ping"}"#.as_slice() } else { &[b'x'; ECHO_BYTES] };
            let answer = if server.kind == Kind::Door { 2 + 31 } else { 2 + ECHO_BYTES };
            self.load.trips(&mut sessions, message, answer, 1)?;
            let bytes = (server.resident_bytes()? as f64 - before as f64) / IDLE as f64;
            told.insert(server.kind.name().into(), json!({ "bytes": bytes.round() }));
        }
        Ok(Value::Object(told))
    }

    /// One turn of one server: the rate, and what it cost.
    fn turn(
        &self,
        server: &Serving,
        count: usize,
        work: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Turn, Failure> {
        let (cpu, began) = (server.cpu_seconds()?, Instant::now());
        work()?;
        let seconds = began.elapsed().as_secs_f64();
        let cpu_us = (server.cpu_seconds()? - cpu) * 1e6 / count as f64;
        Ok(Turn { per_second: count as f64 / seconds, cpu_us })
    }

    /// All servers of these kinds in turns; the middle of each, and its ratio to the best of the others.
    fn compare(
        &self,
        kinds: &[Kind],
        mut measure: impl FnMut(&Serving) -> Result<Turn, Failure>,
    ) -> Result<Value, Failure> {
        let servers: Vec<&Serving> = self.servers.iter().filter(|server| kinds.contains(&server.kind)).collect();
        let mut turns: Vec<Vec<Turn>> = vec![Vec::new(); servers.len()];
        for _ in 0..TURNS {
            for (server, turns) in servers.iter().zip(&mut turns) {
                turns.push(measure(server)?);
            }
        }
        // The ratio of each turn to the best of the others in the same turn.
        let best = |turn: usize| {
            let others = servers.iter().zip(&turns).filter(|(server, _)| !server.kind.is_ours());
            others.map(|(_, turns)| turns[turn].per_second).fold(0.0, f64::max)
        };
        let mut told = Map::new();
        for (server, turns) in servers.iter().zip(&turns) {
            let rates: Vec<f64> = turns.iter().map(|turn| turn.per_second).collect();
            let mut figures = json!({
                "per_second": middle(&rates).round(),
                "cpu_us": (middle(&turns.iter().map(|turn| turn.cpu_us).collect::<Vec<_>>()) * 100.0).round() / 100.0,
            });
            let ratios: Vec<f64> = rates.iter().enumerate().map(|(turn, rate)| rate / best(turn)).collect();
            if server.kind.is_ours() && ratios.iter().all(|ratio| ratio.is_finite()) {
                figures["ratio_to_best_peer"] = json!((middle(&ratios) * 1000.0).round() / 1000.0);
            }
            told.insert(server.kind.name().into(), figures);
        }
        Ok(Value::Object(told))
    }
}

/// Runs a command on the home of the door.
fn order(dir: &Path, words: &[&str]) -> Result<(), Failure> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.arg("--home").arg(dir.join("door")).args(["--yes", "--quiet"]).args(words);
    let done = command.output()?;
    if done.status.success() { Ok(()) } else { Err(failed(String::from_utf8_lossy(&done.stderr))) }
}

/// The value below which this part of the others lies, to the hundredth.
fn at_part(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    (sorted.get(at).copied().unwrap_or_default() * 100.0).round() / 100.0
}

fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Used by [`servers`] and [`load`] alike.
fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed("bench", error.to_string())
}

/// What a server is asked for.
impl Kind {
    fn is_ours(self) -> bool {
        matches!(self, Self::Door | Self::Echo)
    }
}

/// So that the load knows nothing of kinds.
impl Serving {
    fn aim(kind: Kind, at: std::net::SocketAddr) -> Aim {
        Aim { at, has_tokens: kind == Kind::Door }
    }
}
