//! The binary as people run it: real processes, real homes, real files, real sockets on loopback.
//!
//! A story per test; `support` holds machines, directories and patience. Nothing waits a fixed time, nothing asserts
//! a duration. `SEALTIDE_TEST_SCALE` sets the size of the long ones.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "this is a test from end to end")]

mod apart;
mod archive;
mod audit;
mod authorship;
mod backup;
mod between_nats;
mod big;
mod bumps;
mod cli;
mod compat;
mod console;
mod crash;
mod devices;
mod door;
mod door_settings;
mod events;
mod export;
mod faults;
mod gateway;
mod identity;
mod import;
mod key_places;
mod keys;
mod legacy;
mod live;
mod lost_keys;
mod members;
mod memory;
mod netns;
mod nginx;
mod notes;
mod page;
mod policy;
mod registry;
mod relay;
mod releases;
mod retention;
mod room;
mod scenes;
mod secrets;
mod support;
mod synced;
mod tickets;
mod tunnel;
mod uploads;

/// The size of long tests: 1 in every run.
fn scale() -> u64 {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
