//! What every story needs: machines with homes and processes, directories with files, and patience with an end.

mod https;
mod machine;
mod netns;
mod proxy;
mod tree;

use std::time::{Duration, Instant};

pub(crate) use https::Https;
pub(crate) use machine::{Done, Machine, Running};
pub(crate) use netns::{Gate, Net, Side};
pub(crate) use proxy::Proxy;
pub(crate) use tree::{Dice, Entry, Snapshot, Written, assert_same, copy, snapshot, write};

/// How long anything may take before a test says what it waited for. Far beyond what is needed, since nothing may
/// depend on how busy this machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Asks again until there is an answer.
#[track_caller]
pub(crate) fn until<T>(what: &str, ask: impl FnMut() -> Result<T, String>) -> T {
    until_within(PATIENCE, what, ask)
}

/// As [`until`], with patience of its own.
#[track_caller]
pub(crate) fn until_within<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) => assert!(started.elapsed() < patience, "waited {patience:?} for: {what}; last: {why}"),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// As [`until`], for what passes quickly: looks all the time.
#[track_caller]
pub(crate) fn watch(what: &str, mut seen: impl FnMut() -> bool) {
    let started = Instant::now();
    while !seen() {
        assert!(started.elapsed() < PATIENCE, "not seen: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Two machines that share one folder, both nodes running and in step.
pub(crate) struct Pair {
    pub(crate) a: Machine,
    pub(crate) b: Machine,
    pub(crate) node_a: Running,
    pub(crate) node_b: Running,
}

impl Pair {
    /// The folder `Notes` of the first machine holds what `fill` puts there; the second joined it.
    #[track_caller]
    pub(crate) fn with(fill: impl FnOnce(&std::path::Path)) -> Self {
        let (a, b) = (Machine::new(), Machine::new());
        fill(&a.notes());
        let node_a = a.share();
        let joined = b.ok(&["join", node_a.ticket(), b.notes_text(), "--wait"]);
        assert_eq!(joined["in_step"], true);
        let node_b = b.up(&[]);
        Self { a, b, node_a, node_b }
    }

    /// Waits until both folders hold the same.
    #[track_caller]
    pub(crate) fn agree(&self) -> Snapshot {
        agree(&self.a, &self.b)
    }

    /// As [`Pair::agree`], and both stores pass `verify`, and `status --check` says in step on both sides.
    #[track_caller]
    pub(crate) fn agree_and_verify(&self) -> Snapshot {
        let agreed = self.agree();
        for machine in [&self.a, &self.b] {
            machine.in_step();
            machine.ok(&["verify"]);
        }
        // Nothing moved any more while that was looked at.
        assert_same(&agreed, &snapshot(&self.a.notes()));
        assert_same(&agreed, &snapshot(&self.b.notes()));
        agreed
    }
}

/// Waits until the folder `Notes` is the same on both machines.
#[track_caller]
pub(crate) fn agree(a: &Machine, b: &Machine) -> Snapshot {
    until("both folders are equal", || {
        let (left, right) = (snapshot(&a.notes()), snapshot(&b.notes()));
        match left.difference(&right) {
            None => Ok(left),
            Some(difference) => Err(format!("{difference}\n{}\n{}", a.told(), b.told())),
        }
    })
}
