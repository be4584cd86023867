//! Keystones as V1 makes and checks them, byte for byte. Spec: ibgib §6.
//!
//! For reading and comparing old keystones only: V1's check accepts frames that anybody can make (W1–W10), so nothing
//! here is ever an authorisation. Works on JavaScript values, because what V1 does to odd input is part of the format.

// Spec: SY-77: no type of the strict half can be made from anything here.
mod life;
mod pool;
mod select;
mod validate;

pub use life::{V1Error, V1Genesis, V1Revoke, V1Sign, v1_genesis, v1_revoke, v1_sign};
pub use select::{Selection, SelectionError, select};
pub use validate::{v1_validate, v1_validate_texts};
