//! The servers of `bench gateway`: this binary twice, and the others where they are installed.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::failed;
use super::load::Aim;
use crate::failure::Failure;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The door, as `gateway run` opens it.
    Door,
    /// Its echo.
    Echo,
    /// npm `ws` on Node.
    Ws,
    /// `Bun.serve`.
    Bun,
}

impl Kind {
    /// As it stands in the figures.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Door => "door",
            Self::Echo => "door_echo",
            Self::Ws => "ws",
            Self::Bun => "bun",
        }
    }
}

/// A server; it is ended when dropped.
pub(super) struct Serving {
    pub(super) kind: Kind,
    pub(super) aim: Aim,
    child: Child,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts all that are there; homes are made in `dir`.
pub(super) fn all(dir: &Path, peers: Option<&Path>) -> Result<Vec<Serving>, Failure> {
    let own = std::env::current_exe()?;
    let ours = |kind: Kind, home: &str, more: &[&str]| {
        let mut command = Command::new(&own);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SEALTIDE_")) {
            command.env_remove(name);
        }
        command.arg("--home").arg(dir.join(home)).args([
            "--json",
            "--quiet",
            "gateway",
            "run",
            "--listen",
            "127.0.0.1:0",
        ]);
        command.args(more);
        start(kind, command, |line| {
            let told: Value = serde_json::from_str(line).ok()?;
            told["gateway"].as_str()?.rsplit_once('/')?.1.parse().ok()
        })
    };
    let many = ["--max-sessions", "20000"];
    let mut servers = vec![ours(Kind::Door, "door", &many)?, ours(Kind::Echo, "echo", &["--echo", many[0], many[1]])?];
    for (kind, program) in programs(peers) {
        let mut command = Command::new(program);
        let script = match kind {
            Kind::Bun => include_str!("../peers/bun.mjs"),
            _ => include_str!("../peers/ws.mjs"),
        };
        if kind == Kind::Ws {
            command.arg("--input-type=module");
        }
        command.args(["-e", script]).current_dir(peers.unwrap_or(dir));
        servers.push(start(kind, command, |line| Some(([127, 0, 0, 1], line.trim().parse().ok()?).into()))?);
    }
    Ok(servers)
}

/// The peers that are installed, and what runs them.
fn programs(peers: Option<&Path>) -> Vec<(Kind, PathBuf)> {
    let Some(modules) = peers.map(|peers| peers.join("node_modules")) else { return Vec::new() };
    let kinds = ["bun-linux-x64", "bun-linux-x64-baseline", "bun-linux-aarch64"];
    let bun = kinds.map(|kind| modules.join("@oven").join(kind).join("bin/bun")).into_iter().find(|path| path.exists());
    let ws = modules.join("ws").exists().then(|| (Kind::Ws, PathBuf::from("node")));
    ws.into_iter().chain(bun.map(|path| (Kind::Bun, path))).collect()
}

fn start(kind: Kind, mut command: Command, at: impl Fn(&str) -> Option<SocketAddr>) -> Result<Serving, Failure> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let out = child.stdout.take().ok_or_else(|| failed("no output"))?;
    let mut line = String::new();
    let read = BufReader::new(out).read_line(&mut line);
    let at = read.ok().and_then(|_| at(&line));
    let Some(at) = at else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed(format!("{} does not start: {line:?}", kind.name())));
    };
    Ok(Serving { kind, aim: Serving::aim(kind, at), child })
}

impl Serving {
    /// Time of its processor so far, all threads, in user and in kernel.
    pub(super) fn cpu_seconds(&self) -> Result<f64, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name may hold blanks; what follows it does not. Fields 14 and 15 of the whole line.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
        // A tick is a hundredth of a second on every Linux that we know.
        Ok((ticks(11) + ticks(12)) / 100.0)
    }

    /// Resident memory.
    pub(super) fn resident_bytes(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().map_err(failed)?;
        Ok(kib * 1_024)
    }
}
