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
pub mod fuzzing;
mod graph;
pub mod hash;
pub mod json;
mod latest;
mod merge;
mod order;
pub mod plumbing;
pub mod record;
mod shape;
mod stamp_text;
pub mod transform;
mod tree;
pub mod validate;

pub use address::{
    Address, AddressError, GibInfo, Sid, TimelineId, gib_info, split_address, validate_address, validate_gib,
    validate_ib,
};
pub use binary::{
    AssembleError, BIN_INLINE_BYTES_MAX, CHUNK_BYTES_AVERAGE, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, CHUNKS_PER_LIST_MAX,
    ChunkError, ChunkHash, ChunkRef, CutChunk, Manifest, ManifestError, binary_record, read_binary,
};
pub use cbor::Kind;
pub use encoded::{Data, RECORD_BYTES_MAX, Refusal, Relations, Verified};
pub use file::{
    Content, FILE_IB, FileFrame, FileFrameError, FileKind, NAME_BYTES_MAX, PATH_BYTES_MAX, TARGET_BYTES_MAX,
    TEXT_JSON_BYTES_MAX, check_path, inline_text, yield_frame,
};
pub use frame::{FrameFacts, Stamp, evolve, genesis, space_genesis, stone, try_evolve, try_genesis, uuid};
pub use graph::{GraphError, GraphOptions, GraphSource, dependency_graph};
pub use latest::{Latest, latest, settle_tips, winner, winner_order};
pub use merge::{
    MergeStrategy, MergedAll, MergedText, NoMerge, TIPS_MERGED_MAX, merge_all, merge_conflicts, merge_text, merge_tips,
};
pub use order::order_key;
pub use shape::{Reader, pick_shape};
pub use tree::{Placement, TipView, Tree, path_rank};

/// A JSON object with its members in insertion order.
pub type Object = serde_json::Map<String, serde_json::Value>;
