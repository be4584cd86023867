//! Bodies of the fuzz targets, shared with the property tests: they panic when a promise is broken.

use sealtide_ibgib::ChunkRef;

use crate::engine::contents::{ASK_BYTES_MAX, CHUNKS_MAX, question, read_question};

/// Any bytes as a question for contents (sync §14). What is read is bounded, and comes out again as it was asked.
pub fn contents_question(input: &[u8]) {
    let Some((space, chunks)) = read_question(input) else { return };
    assert!(input.len() <= ASK_BYTES_MAX && chunks.len() <= CHUNKS_MAX);
    let asked: Vec<ChunkRef> = chunks.iter().map(|hash| ChunkRef { length: 1, hash: *hash }).collect();
    assert_eq!(read_question(&question(&space, &asked)), Some((space, chunks)));
}
