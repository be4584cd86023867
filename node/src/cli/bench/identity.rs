//! `bench identity`: what the proofs of two identities cost: a node joins a space, then documents go over one by one. Two
//! real nodes in this process. Spec: SY-33
//!
//! Bytes are those of the keystone frames that a node keeps of itself and of the other, from before the join on: what was
//! signed and sent, each frame once.

use std::path::Path;
use std::time::{Duration, Instant};

use sealtide_ibgib::{Object, Relations, Stamp, genesis, uuid};
use sealtide_sync::SpaceView;
use serde_json::{Value, json};

use super::{node, until};
use crate::api::Progress;
use crate::commands::{join, ticket};
use crate::failure::Failure;
use crate::identity::IDENTITY_KIND;
use crate::node::Node;
use crate::real::now;
use crate::world::OsEntropy;

/// Keystone frames here, and their bytes.
fn kept(node: &Node) -> (u64, u64) {
    let labels = node.known().labels().into_iter().filter(|(_, label)| label.kind == IDENTITY_KIND);
    let infos = labels.filter_map(|(space, _)| node.store().view(&space)?.info());
    infos.fold((0, 0), |(records, bytes), info| (records + info.records, bytes + info.bytes))
}

pub(super) async fn identity(dir: &Path, edits: u32) -> Result<Value, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed("bench", error.to_string());
    let a = node(&dir.join("home-a")).await?;
    let b = node(&dir.join("home-b")).await?;
    let space = a.create_space("identity", "data")?;
    let made = kept(&b);
    let invite = ticket::make(&a, space, sealtide_identity::Role::Write, 600, 1)?;
    let started = Instant::now();
    let order = join::JoinOrder {
        ticket: invite.ticket.encode(),
        dir: None,
        wait: true,
        yes: true,
        device: false,
        timeout_s: 30,
    };
    let progress = Progress::none();
    join::join(&b, order, &progress).await?;
    let first_ms = started.elapsed().as_secs_f64() * 1000.0;
    let joined = kept(&b);
    let view = b.store().view(&space).ok_or_else(|| failed(&"the space is gone"))?;
    let mut times = Vec::new();
    for edit in 0..edits {
        let data = Object::from_iter([("doc".to_owned(), json!(edit))]);
        let frame = genesis("doc", data, Relations::new(), Stamp { ms: now().wall_ms }, &uuid(&mut OsEntropy));
        let (sid, started) = (frame.sid(), Instant::now());
        a.engine().commit_local(space, vec![frame]).await.map_err(|error| failed(&error))?;
        until(|| view.contains(&sid)).await?;
        times.push(started.elapsed().as_secs_f64() * 1000.0);
        // Sagas that follow at once are one saga.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let after = kept(&b);
    a.shutdown().await;
    b.shutdown().await;
    times.sort_by(f64::total_cmp);
    let rounded = |ms: f64| (ms * 10.0).round() / 10.0;
    let at = |share: f64| rounded(times[((times.len() - 1) as f64 * share).round() as usize]);
    let (frames, bytes) = (joined.0 - made.0, joined.1 - made.1);
    Ok(json!({
        "schema": "sealtide/bench_identity/1",
        "join": {"frames": frames, "bytes": bytes, "ms": rounded(first_ms)},
        "following_sagas": {
            "sagas": edits,
            "frames": after.0 - joined.0,
            "bytes": after.1 - joined.1,
            "ms": {"min": at(0.0), "p50": at(0.5), "p95": at(0.95), "max": at(1.0)},
        },
    }))
}
