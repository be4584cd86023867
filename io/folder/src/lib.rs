//! Placeholder for the public API of this crate.
