//! Nodes in virtual time, in one program, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "helpers of tests: the first error ends them")]

mod agree;
mod identities;
mod keystones;
mod leaks;
mod migrating;
mod rounds;
mod sagas;
mod settling;
mod writers;
