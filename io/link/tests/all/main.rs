//! The transport over real sockets, in one program, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "helpers of tests: the first error ends them")]

mod chaos;
mod door;
mod evil_relay;
mod evil_relay_in_memory;
mod harness;
mod inspection;
mod leaks;
mod migrate;
mod proxies;
mod relay;
mod relay_behind_proxy;
mod renewal;
mod revocation;
mod secrets;
mod secure_channel;
mod session;
mod soak;

/// As in the binary, so that what is measured here is true there.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
