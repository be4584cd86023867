//! Sagas between stores in memory, in one program, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "helpers of tests: the first error ends them")]

mod commits;
mod connect;
mod control;
mod fitting;
mod fuzz_twin;
mod merges;
mod recon;
mod refusals;
mod resume;
mod scenario_cuts;
mod scenarios;
mod signed;
mod support;
mod vectors;
