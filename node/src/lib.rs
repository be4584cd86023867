//! The sealtide node: joins the store, folders, links and the command line.
//!
//! Main path: `main.rs` → `cli` (words to a [`api::Request`]) → [`api::execute`] → [`node::Node`] →
//! [`engine::Engine`] (sessions and sagas) and `share` (folders). A browser comes in by [`console`] instead of `cli`.

pub mod api;
pub mod audit;
mod backup;
mod beside;
pub mod cli;
mod commands;
pub mod config;
pub mod console;
mod content;
pub mod control;
pub mod engine;
pub mod failpoint;
pub mod failure;
pub mod fuzzing;
pub mod gateway;
pub mod home;
pub mod identity;
pub mod known;
pub mod node;
mod proxy;
pub mod real;
pub mod recovery;
mod releases;
mod seal;
pub mod share;
pub mod world;
