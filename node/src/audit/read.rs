//! The lines of the audit, read back from their files.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The last `count` lines of the audit in `dir`, oldest first.
///
/// # Errors
/// When the files cannot be read.
pub fn tail(dir: &Path, count: usize) -> io::Result<Vec<String>> {
    let mut lines = std::collections::VecDeque::new();
    for (_, path) in files(dir)?.into_iter().rev().take(2).rev() {
        for line in BufReader::new(File::open(path)?).lines() {
            lines.push_back(line?);
            if lines.len() > count {
                lines.pop_front();
            }
        }
    }
    Ok(lines.into())
}

/// Lines of the audit in `dir` whose number is above `since`, oldest first, at most `limit`.
///
/// # Errors
/// When the files cannot be read.
pub fn since(dir: &Path, since: u64, limit: usize) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    let files = files(dir)?;
    // The last file that begins at or before the first line wanted.
    let mut begins = 0;
    for (at, (_, path)) in files.iter().enumerate() {
        let first = BufReader::new(File::open(path)?).lines().next().transpose()?;
        if first.is_none_or(|first| number(&first) > since + 1) {
            break;
        }
        begins = at;
    }
    for (_, path) in files.iter().skip(begins) {
        for line in BufReader::new(File::open(path)?).lines() {
            let line = line?;
            if lines.len() == limit {
                return Ok(lines);
            }
            if number(&line) > since {
                lines.push(line);
            }
        }
    }
    Ok(lines)
}

/// Whether a line of the audit in `dir` is an event for which `is_wanted` holds. Reads everything: for after a crash.
///
/// # Errors
/// When the files cannot be read.
pub fn holds(dir: &Path, is_wanted: impl Fn(&Value) -> bool) -> io::Result<bool> {
    for (_, path) in files(dir)?.into_iter().rev() {
        for line in BufReader::new(File::open(path)?).lines() {
            if serde_json::from_str(&line?).is_ok_and(|line| is_wanted(&line)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// All lines of the audit, oldest first, byte for byte. A last line that is being written is left out.
pub(crate) struct Lines {
    files: std::vec::IntoIter<(u32, PathBuf)>,
    current: Option<BufReader<File>>,
}

impl Lines {
    /// Of the audit in `dir`, as many files as there are now.
    ///
    /// # Errors
    /// When the files cannot be listed.
    pub(crate) fn of(dir: &Path) -> io::Result<Self> {
        Ok(Self { files: files(dir)?.into_iter(), current: None })
    }
}

impl Iterator for Lines {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(file) = &mut self.current else {
                let (_, path) = self.files.next()?;
                match File::open(path) {
                    Ok(file) => self.current = Some(BufReader::new(file)),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            let mut line = String::new();
            match file.read_line(&mut line) {
                Err(error) => return Some(Err(error)),
                Ok(_) if line.pop() == Some('\n') => return Some(Ok(line)),
                Ok(_) => self.current = None,
            }
        }
    }
}

fn number(line: &str) -> u64 {
    serde_json::from_str::<Value>(line).ok().and_then(|line| line["[SEQ]"].as_u64()).unwrap_or(0)
}

pub(super) fn file_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:04}.jsonl"))
}

/// The files in order of number.
pub(super) fn files(dir: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jsonl")?.parse().ok());
        files.extend(number.map(|number| (number, path)));
    }
    files.sort();
    Ok(files)
}
