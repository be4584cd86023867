//! The keyring from outside: vectors, loading, choice, changes, the ledger under attack.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and says what it ran")]

mod changes;
mod choice;
mod ledger;
mod loading;
mod signals;
mod signatures;
mod support;
mod vectors;
