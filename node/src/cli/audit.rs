//! `audit …`: the last lines, the check of all of them, and a file with which others can check them.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use sealtide_identity::NodeId;
use serde_json::json;
use tokio::runtime::Handle;

use crate::api::Request;
use crate::audit::{export_lines, tail, verify_export};
use crate::beside::Beside;
use crate::cli::args::AuditCommand;
use crate::cli::{Cx, answer, ask};
use crate::failure::{Exit, Failure};

/// Runs one of the commands about the audit.
pub(crate) async fn run(cx: &Cx, command: AuditCommand) -> Result<u8, Failure> {
    match command {
        AuditCommand::Tail { lines } => {
            cx.home.identity()?;
            tail(&cx.home.audit_dir(), lines)?.iter().for_each(|line| cx.out.line(line));
            Ok(0)
        }
        AuditCommand::Verify { file: None, .. } => ask(cx, Request::AuditVerify).await,
        AuditCommand::Verify { file: Some(file), node } => verify(cx, &file, node.as_deref()),
        AuditCommand::Export { out } => export(cx, out).await,
    }
}

fn verify(cx: &Cx, path: &Path, node: Option<&str>) -> Result<u8, Failure> {
    let wanted: Option<NodeId> = node
        .map(|text| text.parse().map_err(|_| Failure::usage("node", format!("{text} is no node")).hint("stn1…")))
        .transpose()?;
    let file = File::open(path).map_err(|error| Failure::usage("file", format!("{}: {error}", path.display())))?;
    let (node, report) = verify_export(BufReader::new(file), wanted.as_ref())
        .map_err(|what| Failure::new(Exit::Verification, "audit", format!("{}: {what}", path.display())))?;
    cx.out.answer(&json!({
        "schema": "sealtide/audit_verify/1", "ok": true, "node": node.to_string(), "lines": report.lines,
        "checkpoints": report.checkpoints, "not_yet_signed": report.not_yet_signed,
    }));
    Ok(0)
}

async fn export(cx: &Cx, path: Option<PathBuf>) -> Result<u8, Failure> {
    cx.home.identity()?;
    let (beside, out): (_, Box<dyn Write + Send>) = match &path {
        // The audit tells who came and went: for whoever asked alone, and over no other file.
        Some(path) => {
            let failed = |error: &dyn std::fmt::Display| Failure::usage("out", format!("{}: {error}", path.display()));
            if path.symlink_metadata().is_ok() {
                return Err(failed(&"is there already").hint("name a new file"));
            }
            let (beside, file) = Beside::begin(path, 0o600).map_err(|error| failed(&error))?;
            let whole = file.try_clone().map_err(|error| failed(&error))?;
            (Some((beside, whole)), Box::new(file))
        }
        None => (None, Box::new(std::io::stdout())),
    };
    let (dir, runtime) = (cx.home.audit_dir(), Handle::current());
    let pages = |since| runtime.block_on(answer(cx, Request::AuditCheckpoints { since }));
    let (lines, checkpoints) = tokio::task::block_in_place(|| export_lines(&dir, BufWriter::new(out), pages))?;
    if let (Some(file), Some((beside, whole))) = (path, beside) {
        whole.sync_all().and_then(|()| beside.place()).map_err(|error| Failure::from(error).about(&file))?;
        cx.out.answer(&json!({
            "schema": "sealtide/audit_exported/1", "file": file, "lines": lines, "checkpoints": checkpoints,
        }));
    }
    Ok(0)
}
