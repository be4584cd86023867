//! Folders on a real disk, in one program, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "helpers of tests: the first error ends them")]

mod checkout;
mod crash;
mod fixture;
mod release;
mod scan;
mod watch;
