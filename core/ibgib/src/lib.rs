//! The ibGib data model: records, addresses, hashing, transforms, timelines, binaries and the frames of a shared folder.
//!
//! Pure: bytes in, values out. The spec is `spec/ibgib.md`; section numbers in this crate refer to it.

mod accept;
mod address;
mod bin_rules;
mod binary;
mod cbor;
mod encoded;
mod file;
mod frame;
pub mod hash;
pub mod json;
mod order;
mod stamp_text;
mod tree;

pub use address::{
    Address, AddressError, GibInfo, Sid, TimelineId, gib_info, split_address, validate_address, validate_gib,
    validate_ib,
};
pub use binary::{
    BIN_INLINE_BYTES_MAX, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, CHUNKS_PER_LIST_MAX, ChunkHash, ChunkRef, Manifest,
    ManifestError, binary_record, read_binary,
};
pub use cbor::Kind;
pub use encoded::{Data, RECORD_BYTES_MAX, Refusal, Relations, Verified};
pub use file::{Content, FILE_IB, FileFrame, FileFrameError, FileKind, TEXT_JSON_BYTES_MAX, inline_text, yield_frame};
pub use frame::{FrameFacts, Stamp, evolve, genesis, settle_tips, space_genesis, stone, uuid};
pub use order::order_key;
pub use tree::{Placement, TipView, Tree};

/// A JSON object with its members in insertion order.
pub type Object = serde_json::Map<String, serde_json::Value>;
