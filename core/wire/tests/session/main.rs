//! The session through its public API: two ends in memory, virtual time, seeded schedules.
#![expect(clippy::unwrap_used, reason = "a test stops where its set-up fails")]

mod channels;
mod chaos;
mod credit;
mod keepalive;
mod pair;
mod parser;
mod paths;
