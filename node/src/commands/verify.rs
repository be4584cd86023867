//! `verify [SPACE]`: reads everything again and checks it.

use sealtide_ibgib::{Address, Manifest, Verified};
use sealtide_identity::SpaceId;
use sealtide_store::{SpaceHandle, Store};
use sealtide_sync::SpaceView;
use serde_json::{Value, json};

use crate::api::Progress;
use crate::audit::{Audit, LineFilter, lines_after, lines_before};
use crate::commands::{blocking, go_on};
use crate::engine::authorship::{StoneVerdict, is_stone};
use crate::failure::{Exit, Failure};
use crate::node::Node;

/// Missing references, and bad commit stones, listed one by one, at most.
const LISTED_MAX: usize = 100;

/// Checks the log entry by entry, then that every reference of every member is there.
pub(crate) async fn verify(node: &Node, space: Option<&str>, progress: &Progress) -> Result<Value, Failure> {
    let spaces: Vec<SpaceId> = match space {
        Some(name) => vec![node.find_space(name)?],
        None => node.store().spaces().iter().map(|info| info.space).collect(),
    };
    let progress = progress.clone();
    blocking("verify", node, move |node| check(node, &spaces, &progress)).await
}

/// Checks the lines of the audit and their checkpoints.
pub(crate) async fn audit(node: &Node) -> Result<Value, Failure> {
    let node = node.clone();
    let checked = tokio::task::spawn_blocking(move || audit_report(node.audit())).await;
    checked.map_err(|error| Failure::failed("verify", error.to_string()))?
}

/// What there is to say about an audit that was checked.
pub(crate) fn audit_report(audit: &Audit) -> Result<Value, Failure> {
    let report = audit.verify().map_err(|text| Failure::new(Exit::Verification, "audit", text))?;
    Ok(json!({
        "schema": "sealtide/audit_verify/1", "ok": true, "lines": report.lines,
        "checkpoints": report.checkpoints, "not_yet_signed": report.not_yet_signed,
    }))
}

/// One page of checkpoints, and the head of an export.
pub(crate) fn audit_checkpoints(audit: &Audit, since: u64) -> Result<Value, Failure> {
    let (head, checkpoints) = audit.checkpoints_since(since);
    Ok(json!({"schema": "sealtide/audit_checkpoints/1", "head": head, "checkpoints": checkpoints}))
}

/// Lines of the audit that fit: what came after one, or back from one, or the newest.
pub(crate) fn audit_lines(
    audit: &Audit,
    before: Option<u64>,
    since: Option<u64>,
    limit: usize,
    filter: &LineFilter,
) -> Result<Value, Failure> {
    const LIMIT_MAX: usize = 1_000;
    let limit = limit.clamp(1, LIMIT_MAX);
    let page = match since {
        Some(since) => lines_after(audit.dir(), since, limit, filter)?,
        None => lines_before(audit.dir(), before, limit, filter)?,
    };
    Ok(json!({
        "schema": "sealtide/audit_lines/1", "lines": page.lines, "more": page.more, "reached": page.reached,
        "last": audit.position().0,
    }))
}

fn check(node: &Node, spaces: &[SpaceId], progress: &Progress) -> Result<Value, Failure> {
    let mut told =
        |done: u64, all: u64| progress.tell(json!({"phase": "verifying", "items": [0, 0], "bytes": [done, all]}));
    let report = node.store().verify_while(&mut told);
    go_on(progress)?;
    let report = report.map_err(|error| Failure::failed("store", error.to_string()))?;
    let audit = node.audit().verify();
    let (identities, broken) = node.identities().verify();
    let (mut missing, mut absent) = (Vec::new(), 0u64);
    let mut records = 0u64;
    let mut commits = Commits::default();
    for space in spaces {
        if let Some(view) = node.store().view(space) {
            let absences = node.known().absences(space);
            let mut after = None;
            loop {
                let batch = view.bulk(after, 1024);
                let Some(last) = batch.last().copied() else { break };
                go_on(progress)?;
                after = Some(last);
                records += batch.len() as u64;
                for (_, sid) in batch {
                    if let Some(record) = view.record(&sid) {
                        missing.extend(missing_references(&view, &record));
                        let chunks = missing_chunks(node.store(), &record);
                        if absences.get(&sid).is_some_and(|absence| absence.is_away()) {
                            absent += chunks.len() as u64;
                        } else {
                            missing.extend(chunks);
                        }
                        if is_stone(&record) {
                            commits.count(node, &view, &record);
                        }
                    }
                }
                if missing.len() > LISTED_MAX {
                    break;
                }
            }
        }
    }
    let damage: Vec<Value> =
        report.bad.iter().map(|bad| json!({"file": bad.file, "offset": bad.offset, "what": bad.what})).collect();
    let ok = damage.is_empty() && missing.is_empty() && audit.is_ok() && broken.is_empty();
    let document = json!({
        "schema": "sealtide/verify/1",
        "ok": ok,
        "entries": report.entries,
        "records": records,
        "identities": identities,
        "broken_identities": broken,
        "damage": damage,
        "missing": missing,
        "absent": absent,
        "commits": {"verified": commits.verified, "unknown": commits.unknown, "bad": commits.bad},
        "audit": audit.as_ref().err(),
    });
    if ok {
        return Ok(document);
    }
    // The audit stands beside the data: nothing is fetched anew for its sake.
    if let Err(what) = &audit
        && damage.is_empty()
        && missing.is_empty()
        && broken.is_empty()
    {
        let text = format!("verification failed: {what}; everything else is whole");
        let failure = Failure::new(Exit::Verification, "verify", text);
        return Err(failure.hint(
            "is the disk full, or was it? Then it mends itself with the next line; else `sealtide audit verify`",
        ));
    }
    let what = report.bad.first().map_or_else(
        || missing.first().cloned().or(audit.err()).or(broken.first().cloned()).unwrap_or_default(),
        |bad| format!("{} at byte {} of {}", bad.what, bad.offset, bad.file),
    );
    Err(Failure::new(
        Exit::Verification,
        "verify",
        format!(
            "verification failed: {} damaged entries, {} missing references; first: {what}",
            damage.len(),
            missing.len()
        ),
    )
    .hint("a peer that is in step holds good copies: move this home away and `sealtide join` anew"))
}

/// Commit stones by what they are worth. A bad one is no damage: whoever may write could have made it, and the frames
/// that it names stay claims.
#[derive(Default)]
struct Commits {
    verified: u64,
    /// The device keystone is not held here.
    unknown: u64,
    bad: Vec<String>,
}

impl Commits {
    fn count(&mut self, node: &Node, view: &SpaceHandle, stone: &Verified) {
        match node.engine().stone_verdict(view, stone) {
            StoneVerdict::Good => self.verified += 1,
            StoneVerdict::Unknown => self.unknown += 1,
            StoneVerdict::Bad if self.bad.len() < LISTED_MAX => self.bad.push(stone.address().to_string()),
            StoneVerdict::Bad => {}
        }
    }
}

fn missing_references(view: &SpaceHandle, record: &Verified) -> Vec<String> {
    let absent = |address: &Address| view.by_address(address).is_empty();
    record.links().iter().filter(|address| absent(address)).map(ToString::to_string).collect()
}

/// Looks without a touch: what was only checked may be given up as before.
fn missing_chunks(store: &Store, record: &Verified) -> Vec<String> {
    let mut chunks = Manifest::chunks_listed(record);
    chunks.retain(|chunk| !store.holds_chunk(&chunk.hash));
    chunks.iter().map(|chunk| format!("chunk {}", chunk.hash)).collect()
}
