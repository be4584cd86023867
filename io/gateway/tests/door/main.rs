//! The whole door over real sockets.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and says what it ran")]

mod bumps;
mod client;
mod echo;
mod events;
mod http;
mod keys;
mod sessions;
