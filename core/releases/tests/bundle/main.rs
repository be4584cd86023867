//! Releases from outside: what counts, what is refused, how trust follows the keys.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and says what it ran")]

mod admission;
mod encoding;
mod fuzz_twin;
mod recovery;
mod support;
mod trust;
mod vectors;
