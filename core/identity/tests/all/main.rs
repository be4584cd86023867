//! Names, tickets and signed messages, in one program, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "helpers of tests: the first error ends them")]

mod address;
mod admission;
mod authorship;
mod signed_messages;
mod text_forms;
mod ticket;
