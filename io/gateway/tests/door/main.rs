//! The whole door over real sockets.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and says what it ran")]

mod access;
mod bumps;
mod checklist;
mod client;
mod clients;
mod conformance;
mod echo;
mod events;
mod hostile;
mod http;
mod keys;
mod limits;
mod nginx;
mod outputs;
mod sessions;
mod sign_in;
mod tls;
mod tunnel;

/// The size of long tests: 1 in every run.
fn scale() -> usize {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
