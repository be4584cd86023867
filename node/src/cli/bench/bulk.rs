//! `bench bulk`: a new node gets a whole space of documents of about 1 KiB: two real nodes, each a process of its own, over
//! the link on loopback. Spec: SY-43, SY-44

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use data_encoding::BASE64;
use sealtide_ibgib::{Object, Relations, Stamp, Verified, genesis};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::memory::{self, Watch};
use super::{Sizes, node};
use crate::api::Progress;
use crate::commands::{join, ticket};
use crate::failure::Failure;

/// Documents of one local commit while the space is filled.
const FILL: usize = 1_000;
/// Random bytes of a document, so that its record has 1 KiB.
const CONTENT_BYTES: usize = 495;
/// How long nothing may move, in seconds.
const PATIENCE_S: u64 = 600;

fn failed(error: &dyn std::fmt::Display) -> Failure {
    Failure::failed("bench", error.to_string())
}

fn document(number: usize) -> Verified {
    let mut content = vec![0; CONTENT_BYTES];
    sealtide_crypto::blake3_derive("sealtide bench bulk", &number.to_le_bytes(), &mut content);
    let mut data = Object::new();
    data.insert("name".to_owned(), format!("document {number}").into());
    data.insert("doc".to_owned(), BASE64.encode(&content).into());
    let uuid: String = content[..32].iter().map(|byte| format!("{byte:02x}")).collect();
    genesis("doc", data, Relations::new(), Stamp { ms: 1_700_000_000_000 + number as u64 }, &uuid)
}

/// Fills a space, and has another process get it.
// Measures: SY-43
pub(super) async fn bulk(dir: &Path, sizes: &Sizes) -> Result<Value, Failure> {
    if let Some(mib) = sizes.memory_mib {
        memory::limit(mib << 20)?;
    }
    let home = dir.join("home-a");
    let here = node(&home).await?;
    let space = here.create_space("bulk", "data")?;
    let started = Instant::now();
    for from in (0..sizes.items).step_by(FILL) {
        let records = (from..sizes.items.min(from + FILL)).map(document).collect();
        here.engine().commit_local(space, records).await.map_err(|error| failed(&error))?;
    }
    let fill_seconds = started.elapsed().as_secs_f64();
    let info = here.store().view(&space).and_then(|view| view.info()).ok_or_else(|| failed(&"the space is gone"))?;
    let invite = ticket::make(&here, space, sealtide_identity::Role::Write, 600, 1)?;
    let watch = Watch::start();
    let got = far(&dir.join("home-b"), &invite.ticket.encode(), sizes.memory_mib).await?;
    let peak = watch.peak();
    here.shutdown().await;
    let seconds = got["seconds"].as_f64().unwrap_or(f64::INFINITY);
    let rounded = |number: f64| (number * 10.0).round() / 10.0;
    let mib = |bytes: u64| rounded(bytes as f64 / f64::from(1 << 20));
    // With the joiner among the members there are a few more.
    if got["records"].as_u64() < Some(info.records) {
        return Err(failed(&format!("{} of {} records came", got["records"], info.records)));
    }
    Ok(json!({
        "schema": "sealtide/bench_bulk/1",
        "records": info.records,
        "bytes": info.bytes,
        "fill_seconds": rounded(fill_seconds),
        "seconds": rounded(seconds),
        "mib_per_second": rounded(info.bytes as f64 / f64::from(1 << 20) / seconds),
        "anonymous_mib": {
            "limit": sizes.memory_mib,
            "peak_of_sender": mib(peak),
            "peak_of_receiver": mib(got["peak"].as_u64().unwrap_or(0)),
        },
    }))
}

/// Has a process of its own join; gives what it says.
async fn far(home: &Path, ticket: &str, memory_mib: Option<u64>) -> Result<Value, Failure> {
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let mut command = Command::new(program);
    command.args(["bench", "bulk-end", "--json", "--directory"]).arg(home);
    if let Some(mib) = memory_mib {
        command.args(["--memory-mib", &mib.to_string()]);
    }
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn();
    let mut child = child.map_err(|error| failed(&error))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(ticket.as_bytes()).await.map_err(|error| failed(&error))?;
    }
    let output = child.wait_with_output().await.map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(failed(&format!("the other node ended with {}: out of memory?", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(&error))
}

/// The process that gets the space: joins with the ticket on standard input.
pub(super) async fn end(home: &Path) -> Result<Value, Failure> {
    let ticket = std::io::read_to_string(std::io::stdin()).map_err(|error| failed(&error))?;
    let watch = Watch::start();
    let here = node(home).await?;
    let started = Instant::now();
    let order = join::JoinOrder { ticket, dir: None, wait: true, yes: true, device: false, timeout_s: PATIENCE_S };
    let progress = Progress::none();
    join::join(&here, order, &progress).await?;
    let seconds = started.elapsed().as_secs_f64();
    let space = here.space_or_only(None)?;
    let records = here.store().view(&space).and_then(|view| view.info()).map_or(0, |info| info.records);
    let found = json!({"seconds": seconds, "records": records, "peak": watch.peak()});
    here.shutdown().await;
    Ok(found)
}
