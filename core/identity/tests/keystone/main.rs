//! Keystones from outside: vectors, rules, attacks, forks, sessions.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and says what it ran")]

mod attacks;
mod chains;
mod fuzz_twin;
mod life;
mod members;
mod mutations;
mod rules;
mod sessions;
mod support;
mod vectors;
