//! What happened in a run, for the reader of a failure.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use crate::guard;

/// Lines that are kept: the last ones tell most.
const LINES_MAX: usize = 120;

/// The lines of a run, with virtual time. Clones are the same trace.
#[derive(Clone, Debug)]
pub struct Trace {
    start: Instant,
    /// All lines, or only the last [`LINES_MAX`].
    whole: bool,
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl Trace {
    /// An empty trace that begins now.
    pub fn new(whole: bool) -> Self {
        Self { start: Instant::now(), whole, lines: Arc::default() }
    }

    /// Adds a line.
    pub fn note(&self, who: impl fmt::Display, what: fmt::Arguments<'_>) {
        let mut lines = guard(&self.lines);
        if !self.whole && lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(format!("{:>9} {who} {what}", self.start.elapsed().as_millis()));
    }

    /// Virtual milliseconds since the start.
    pub fn elapsed_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// The lines.
    pub fn text(&self) -> String {
        guard(&self.lines).iter().map(|line| format!("{line}\n")).collect()
    }
}
