//! `ibgib`: one JSON object per line, a vector case in, its `expect` out.

use std::io::{BufRead, Write};

use crate::cli::args::IbgibOp;
use crate::failure::Failure;

/// Bytes of one line, at most.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Answers every line of standard input.
pub(crate) fn ibgib(op: IbgibOp) -> Result<u8, Failure> {
    let op = match op {
        IbgibOp::Hash => "hash",
        IbgibOp::Fork => "fork",
        IbgibOp::Mut8 => "mut8",
        IbgibOp::Rel8 => "rel8",
        IbgibOp::Firstgen => "firstgen",
        IbgibOp::Check => "check",
    };
    let mut stdout = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(Failure::usage("too_large", "a line is longer than 64 MiB"));
        }
        writeln!(stdout, "{}", sealtide_ibgib::plumbing::run(op, &line))?;
    }
    Ok(0)
}
