//! The store on disks that fail, in one program, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "helpers of tests: the first error ends them")]

mod collect;
mod conformance;
mod crash;
mod damage;
mod erase;
mod facts;
mod home;
mod linear;
mod model;
mod runs;
mod stones;
mod support;
mod tips;
