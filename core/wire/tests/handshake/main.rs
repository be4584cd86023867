//! The full handshake between two ends, through the public API. Spec: link C.4.

mod attacks;
mod good;
mod invites;
mod simultaneous;
mod world;
