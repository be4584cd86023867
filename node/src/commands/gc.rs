//! `gc`: gives the room of chunks that nobody needs back to the disk. Spec: SY-67

use sealtide_store::StoreError;
use serde_json::{Value, json};

use crate::commands::store_failure;
use crate::failure::Failure;
use crate::node::Node;

/// Frees what is unused, or tells what would be freed.
pub(crate) async fn gc(node: &Node, dry_run: bool) -> Result<Value, Failure> {
    let store = node.store().clone();
    let collecting = tokio::task::spawn_blocking(move || {
        if dry_run {
            return Ok(store.collectable());
        }
        store.expire()?;
        store.collect()
    });
    let collected = collecting.await.map_err(|error| Failure::failed("gc", error.to_string()))?;
    let collected = collected.map_err(|error| match error {
        StoreError::NoHoles => Failure::failed("no_holes", error.to_string())
            .hint("move the home to a file system with sparse files, such as ext4, xfs, btrfs or tmpfs"),
        error => store_failure(error),
    })?;
    if !dry_run {
        node.audit().note("gc", &[("chunks", &collected.chunks.to_string()), ("bytes", &collected.bytes.to_string())]);
    }
    Ok(json!({
        "schema": "sealtide/gc/1", "dry_run": dry_run, "chunks": collected.chunks, "bytes": collected.bytes,
    }))
}
