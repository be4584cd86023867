//! The lines of the audit, read back from their files.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
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

/// Which lines of the audit somebody wants to see; what is not set lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineFilter {
    /// How the name of the event begins.
    #[serde(default)]
    pub event: Option<String>,
    /// The channel.
    #[serde(default)]
    pub channel: Option<String>,
    /// The thread, by its id.
    #[serde(default)]
    pub thread: Option<String>,
    /// Something that stands in one of its own members: a peer, a principal, an address.
    #[serde(default)]
    pub peer: Option<String>,
}

impl LineFilter {
    fn lets(&self, line: &Value) -> bool {
        let is = |wanted: &Option<String>, name: &str| {
            wanted.as_deref().is_none_or(|wanted| line[name].as_str().is_some_and(|own| own == wanted))
        };
        let begins =
            |wanted: &String| line["[TES_EVENT]"].as_str().is_some_and(|name| name.starts_with(wanted.as_str()));
        let holds = |wanted: &String| {
            let own = line.as_object().into_iter().flatten().filter(|(name, _)| !name.starts_with('['));
            own.filter_map(|(_, value)| value.as_str()).any(|value| value.contains(wanted.as_str()))
        };
        self.event.as_ref().is_none_or(begins)
            && is(&self.channel, "[CHANNEL]")
            && is(&self.thread, "[THREAD_ID]")
            && self.peer.as_ref().is_none_or(holds)
    }
}

/// Some lines of the audit.
pub(crate) struct LinesPage {
    pub(crate) lines: Vec<Value>,
    /// Whether there may be more in this direction.
    pub(crate) more: bool,
    /// The number of the last line that was looked at; none when none was.
    pub(crate) reached: Option<u64>,
}

/// Lines that are looked at for one page, at most.
const LOOKED_MAX: usize = 50_000;

/// The lines before `before` (or the newest) that fit, the newest first, at most `limit`.
///
/// # Errors
/// When the files cannot be read.
pub(crate) fn lines_before(
    dir: &Path,
    before: Option<u64>,
    limit: usize,
    filter: &LineFilter,
) -> io::Result<LinesPage> {
    let mut page = LinesPage { lines: Vec::new(), more: false, reached: None };
    let mut looked = 0;
    for (_, path) in files(dir)?.into_iter().rev() {
        for line in Backwards::of(File::open(path)?)? {
            let Ok(line) = serde_json::from_slice::<Value>(&line?) else { continue };
            let number = line["[SEQ]"].as_u64().unwrap_or(0);
            if before.is_some_and(|before| number >= before) {
                continue;
            }
            if page.lines.len() == limit || looked == LOOKED_MAX {
                page.more = true;
                return Ok(page);
            }
            (page.reached, looked) = (Some(number), looked + 1);
            if filter.lets(&line) {
                page.lines.push(line);
            }
        }
    }
    Ok(page)
}

/// The lines after `after` that fit, the oldest first, at most `limit`.
///
/// # Errors
/// When the files cannot be read.
pub(crate) fn lines_after(dir: &Path, after: u64, limit: usize, filter: &LineFilter) -> io::Result<LinesPage> {
    let mut page = LinesPage { lines: Vec::new(), more: false, reached: None };
    // Without a filter every line fits: one more than are wanted tells whether there are more.
    let looked_max =
        if *filter == LineFilter::default() { LOOKED_MAX.min(limit.saturating_add(1)) } else { LOOKED_MAX };
    let found = since(dir, after, looked_max)?;
    page.more = found.len() == looked_max;
    for line in found {
        let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
        if page.lines.len() == limit {
            page.more = true;
            break;
        }
        page.reached = line["[SEQ]"].as_u64();
        if filter.lets(&line) {
            page.lines.push(line);
        }
    }
    Ok(page)
}

/// The whole lines of a file, the last one first. What follows the last end of a line is left out.
struct Backwards {
    file: File,
    /// Bytes of the file that were not read yet.
    left: u64,
    /// What was read and not given out.
    read: Vec<u8>,
}

/// Bytes that are read at once.
const BLOCK: u64 = 64 * 1024;

impl Backwards {
    fn of(file: File) -> io::Result<Self> {
        let left = file.metadata()?.len();
        let mut lines = Self { file, left, read: Vec::new() };
        // A line that is being written.
        while lines.cut().is_none() && lines.more()? {}
        Ok(lines)
    }

    /// Takes what stands behind the last end of a line.
    fn cut(&mut self) -> Option<Vec<u8>> {
        let at = self.read.iter().rposition(|byte| *byte == b'\n')?;
        let line = self.read.split_off(at + 1);
        self.read.pop();
        Some(line)
    }

    fn more(&mut self) -> io::Result<bool> {
        if self.left == 0 {
            return Ok(false);
        }
        let most = self.left.min(BLOCK);
        self.left -= most;
        let mut block = vec![0; usize::try_from(most).unwrap_or(0)];
        self.file.seek(SeekFrom::Start(self.left))?;
        self.file.read_exact(&mut block)?;
        block.append(&mut self.read);
        self.read = block;
        Ok(true)
    }
}

impl Iterator for Backwards {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(line) = self.cut() {
                return Some(Ok(line));
            }
            match self.more() {
                Ok(true) => {}
                Ok(false) if self.read.is_empty() => return None,
                Ok(false) => return Some(Ok(std::mem::take(&mut self.read))),
                Err(error) => return Some(Err(error)),
            }
        }
    }
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
