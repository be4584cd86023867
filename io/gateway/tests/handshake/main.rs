//! The decision over request heads, from outside: every rule with what it takes and what it refuses.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and says what it ran")]

mod addresses;
mod ladder;
mod order;
mod rig;
mod tokens;
