//! Records and their rules, in one program, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "helpers of tests: the first error ends them")]

mod graph_memory;
mod node;
mod properties;
mod records;
mod strict;
mod support;
mod vectors;
