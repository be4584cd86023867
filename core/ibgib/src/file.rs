//! Frames of a shared folder, ib `file`: one timeline per path. Spec: ibgib §12.7, folders §2.

use serde_json::{Value, json};

use crate::frame::{try_evolve, try_genesis};
use crate::{Address, Object, Relations, Stamp, Verified};

/// The ib of every file frame.
pub const FILE_IB: &str = "file";
/// Bytes of a text as canonical JSON, at most, to stand inline in a frame.
pub const TEXT_JSON_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a path, at most.
pub const PATH_BYTES_MAX: usize = 1024;
/// Bytes of one name of a path, at most.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of the target of a symbolic link, at most: no system lets a longer one be made.
pub const TARGET_BYTES_MAX: usize = 4096;

/// The greatest integer that a JSON number holds exactly, either sign.
const INTEGER_MAX: i64 = (1 << 53) - 1;
/// Characters of a node id: `stn1` and 58 of base 32. Its check is the identity crate's affair.
const NODE_ID_CHARS: usize = 62;

/// What a path holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A symbolic link, stored as a link.
    Symlink,
    /// A directory that was found empty.
    Dir,
}

impl FileKind {
    /// The word in `data.kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Symlink => "symlink",
            Self::Dir => "dir",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::File, Self::Symlink, Self::Dir].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// The content of a live path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text that stands in the frame.
    Text(String),
    /// The target of a symbolic link.
    Target(String),
    /// The address of a binary record or manifest.
    Bin(Address),
    /// None: a directory, or a deletion.
    None,
}

/// One version of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFrame {
    /// UTF-8, `/` between names, ≤ 1 024 bytes, each name 1–255 bytes, no `.`, `..` or NUL.
    pub path: String,
    /// File, symlink or empty directory.
    pub kind: FileKind,
    /// Whether the file may be executed.
    pub exec: bool,
    /// Modification time, ms since 1970.
    pub mtime: i64,
    /// The node id (`stn1…`) that made the change.
    pub by: String,
    /// The content; `None` for directories and deletions.
    pub content: Content,
    /// Whether this frame says that the path is gone.
    pub deleted: bool,
    /// Only in a yield frame: the first frame of the timeline that owns the path.
    pub yielded: Option<Address>,
}

impl FileFrame {
    /// Reads a frame with ib `file` by the table of ibgib §12.7. Members that the table does not name are left
    /// alone, since merges add some.
    ///
    /// A text longer than [`TEXT_JSON_BYTES_MAX`] is read: a merge may grow one past it, and the next change
    /// decides again.
    ///
    /// # Errors
    /// [`FileFrameError`] with the member that breaks a rule.
    pub fn read(record: &Verified) -> Result<Self, FileFrameError> {
        if record.address().ib() != FILE_IB {
            return fault("ib", "is not \"file\"");
        }
        let mut data = record.object().ok_or(FileFrameError { member: "data", problem: "is not an object" })?;
        if record.frame().is_none() {
            return fault("tjp", "is missing: the record is in no timeline");
        }
        let yielded = text(&data, "yielded", "data.yielded")?
            .map(|text| Address::parse(text).map_err(|_| bad("data.yielded", "is not an address")))
            .transpose()?;
        let frame = Self {
            path: needed(text(&data, "path", "data.path")?, "data.path")?.to_owned(),
            kind: FileKind::parse(needed(text(&data, "kind", "data.kind")?, "data.kind")?)
                .ok_or(bad("data.kind", "is not file, symlink or dir"))?,
            exec: flag(&data, "exec", "data.exec")?,
            mtime: needed(data.get("mtime"), "data.mtime")?
                .as_i64()
                .ok_or(bad("data.mtime", "is not an integer in range"))?,
            by: needed(text(&data, "by", "data.by")?, "data.by")?.to_owned(),
            content: content(&mut data, record.relations())?,
            deleted: flag(&data, "deleted", "data.deleted")?,
            yielded,
        };
        frame.check()?;
        Ok(frame)
    }

    /// The members and relations for `genesis` or `evolve`.
    ///
    /// # Errors
    /// [`FileFrameError`] when a member breaks the table (a path over 1 024 bytes, for instance), or a text may not
    /// stand inline.
    pub fn parts(&self) -> Result<(Object, Relations), FileFrameError> {
        self.check()?;
        let (mut data, mut relations) = (Object::new(), Relations::new());
        data.insert("path".to_owned(), json!(self.path));
        data.insert("kind".to_owned(), json!(self.kind.as_str()));
        data.insert("mtime".to_owned(), json!(self.mtime));
        data.insert("by".to_owned(), json!(self.by));
        if self.exec {
            data.insert("exec".to_owned(), Value::Bool(true));
        }
        match &self.content {
            Content::Text(text) => {
                inline_text(text.as_bytes()).ok_or(bad("data.text", "is too long to stand in a frame"))?;
                data.insert("text".to_owned(), json!(text));
            }
            Content::Target(target) => {
                data.insert("target".to_owned(), json!(target));
            }
            Content::Bin(address) => {
                relations.insert("bin".to_owned(), vec![address.clone()]);
            }
            Content::None => {}
        }
        if self.deleted {
            data.insert("deleted".to_owned(), Value::Bool(true));
        }
        if let Some(owner) = &self.yielded {
            data.insert("yielded".to_owned(), json!(owner.as_str()));
        }
        Ok((data, relations))
    }

    /// Whether both frames hold the same kind, exec and content (path, mtime and by may differ), or both are
    /// deletions of the same kind.
    pub fn same_content(&self, other: &Self) -> bool {
        (self.kind, self.exec, self.deleted) == (other.kind, other.exec, other.deleted) && self.content == other.content
    }

    /// The frame that says this path is gone: keeps path and kind, drops content and exec.
    pub fn deletion(&self, mtime: i64, by: &str) -> Self {
        Self {
            path: self.path.clone(),
            kind: self.kind,
            exec: false,
            mtime,
            by: by.to_owned(),
            content: Content::None,
            deleted: true,
            yielded: None,
        }
    }

    /// Makes the first frame of a new path.
    ///
    /// # Errors
    /// As [`FileFrame::parts`].
    pub fn genesis(&self, stamp: Stamp, uuid: &str) -> Result<Verified, FileFrameError> {
        let (data, relations) = self.parts()?;
        try_genesis(FILE_IB, data, relations, stamp, uuid).map_err(|_| bad("record", "cannot be made"))
    }

    /// Makes the next frame of a path.
    ///
    /// # Errors
    /// As [`FileFrame::parts`]; also when `prev` is no frame with ib `file`, or what is kept of a foreign one
    /// leaves no room.
    pub fn evolve(&self, prev: &Verified, stamp: Stamp) -> Result<Verified, FileFrameError> {
        if prev.address().ib() != FILE_IB {
            return fault("ib", "of the frame before is not \"file\"");
        }
        let (data, relations) = self.parts()?;
        try_evolve(prev, data, relations, stamp).map_err(|_| bad("record", "cannot follow the frame before"))
    }

    /// The table of ibgib §12.7, for frames read and frames about to be made alike.
    fn check(&self) -> Result<(), FileFrameError> {
        check_path(&self.path)?;
        if !(-INTEGER_MAX..=INTEGER_MAX).contains(&self.mtime) {
            return fault("data.mtime", "is not an integer in range");
        }
        let base32 = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
        match self.by.strip_prefix("stn1") {
            Some(rest) if self.by.len() == NODE_ID_CHARS && rest.bytes().all(base32) => {}
            _ => return fault("data.by", "is not a node id"),
        }
        if self.deleted {
            return self.check_deletion();
        }
        if self.yielded.is_some() {
            return fault("data.yielded", "stands in a frame that is no deletion");
        }
        match (self.kind, &self.content) {
            (FileKind::File, Content::Text(text)) if text.bytes().any(is_control) => {
                fault("data.text", "holds control characters")
            }
            (FileKind::File, Content::Bin(address)) if !is_binary(address) => {
                fault("rel8ns.bin", "is not the address of a binary")
            }
            (FileKind::Symlink, Content::Target(target)) if !(1..=TARGET_BYTES_MAX).contains(&target.len()) => {
                fault("data.target", "is not 1 to 4 096 bytes long")
            }
            (FileKind::Symlink, Content::Target(target)) if target.contains('\0') => {
                fault("data.target", "holds U+0000")
            }
            (FileKind::File, Content::Text(_) | Content::Bin(_))
            | (FileKind::Symlink, Content::Target(_))
            | (FileKind::Dir, Content::None) => Ok(()),
            _ => fault("content", "does not fit the kind"),
        }
    }

    fn check_deletion(&self) -> Result<(), FileFrameError> {
        if self.exec {
            return fault("data.exec", "stands in a deletion");
        }
        if self.content != Content::None {
            return fault("content", "stands in a deletion");
        }
        match &self.yielded {
            Some(owner) if owner.ib() != FILE_IB || owner.is_primitive() || owner.gib().contains('.') => {
                fault("data.yielded", "is not the first frame of a path")
            }
            _ => Ok(()),
        }
    }
}

/// Checks a path by the table of ibgib §12.7.
///
/// # Errors
/// [`FileFrameError`] with the rule that is broken.
pub fn check_path(path: &str) -> Result<(), FileFrameError> {
    if path.len() > PATH_BYTES_MAX {
        return fault("data.path", "is longer than 1 024 bytes");
    }
    if path.contains('\0') {
        return fault("data.path", "holds U+0000");
    }
    for name in path.split('/') {
        match name {
            "" => return fault("data.path", "holds an empty name"),
            "." | ".." => return fault("data.path", "holds the name . or .."),
            _ if name.len() > NAME_BYTES_MAX => return fault("data.path", "holds a name longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

/// The text of `bytes` when they may stand inline: valid UTF-8, no control characters but TAB, LF and CR,
/// at most [`TEXT_JSON_BYTES_MAX`] bytes as canonical JSON. Spec: ibgib §12.7.
pub fn inline_text(bytes: &[u8]) -> Option<&str> {
    let quotes = 2;
    if bytes.len() + quotes > TEXT_JSON_BYTES_MAX || bytes.iter().any(|byte| is_control(*byte)) {
        return None;
    }
    // Each of these is written as a backslash and one character.
    let escaped = bytes.iter().filter(|byte| matches!(byte, b'"' | b'\\' | b'\t' | b'\n' | b'\r')).count();
    if bytes.len() + escaped + quotes > TEXT_JSON_BYTES_MAX { None } else { std::str::from_utf8(bytes).ok() }
}

/// The clock-free yield frame that ends `loser` (the tip of the other timeline) in favour of the timeline that
/// begins with `owner_first`: every node computes the same address. Spec: ibgib §12.7.
///
/// # Errors
/// [`FileFrameError`] when `loser` is no live file frame, or `owner_first` no first frame of a path.
pub fn yield_frame(loser: &Verified, owner_first: &Address) -> Result<Verified, FileFrameError> {
    let before = FileFrame::read(loser)?;
    if before.deleted {
        return fault("data.deleted", "is set already");
    }
    let frame = FileFrame { yielded: Some(owner_first.clone()), ..before.deletion(before.mtime, &before.by) };
    // Evolving never goes back behind the stamp of `loser`, so the earliest stamp gives that of `loser`.
    frame.evolve(loser, Stamp { ms: 0 })
}

/// A frame that breaks the table of ibgib §12.7.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a file frame: {member} {problem}")]
pub struct FileFrameError {
    /// The member at fault, `data.path` for instance.
    pub member: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

fn bad(member: &'static str, problem: &'static str) -> FileFrameError {
    FileFrameError { member, problem }
}

fn fault<T>(member: &'static str, problem: &'static str) -> Result<T, FileFrameError> {
    Err(bad(member, problem))
}

fn needed<T>(value: Option<T>, member: &'static str) -> Result<T, FileFrameError> {
    value.ok_or(bad(member, "is missing"))
}

fn text<'a>(data: &'a Object, name: &str, member: &'static str) -> Result<Option<&'a str>, FileFrameError> {
    data.get(name).map(|value| value.as_str().ok_or(bad(member, "is not a text"))).transpose()
}

/// A member that is `true` or absent.
fn flag(data: &Object, name: &str, member: &'static str) -> Result<bool, FileFrameError> {
    match data.get(name) {
        None => Ok(false),
        Some(Value::Bool(true)) => Ok(true),
        Some(_) => fault(member, "is neither true nor absent"),
    }
}

/// The one of `text`, `target` and `bin` that is there.
fn content(data: &mut Object, relations: &Relations) -> Result<Content, FileFrameError> {
    let mut take = |name: &str, member| match data.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => fault(member, "is not a text"),
    };
    let inline = take("text", "data.text")?.map(Content::Text);
    let target = take("target", "data.target")?.map(Content::Target);
    let bin = match relations.get("bin").map(Vec::as_slice) {
        None | Some([]) => None,
        Some([address]) => Some(Content::Bin(address.clone())),
        Some(_) => return fault("rel8ns.bin", "is more than one address"),
    };
    let mut found = [inline, target, bin].into_iter().flatten();
    let first = found.next().unwrap_or(Content::None);
    if found.next().is_some() { fault("content", "stands twice") } else { Ok(first) }
}

fn is_control(byte: u8) -> bool {
    byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r')
}

/// Whether the ib is that of a binary of ibgib §15: `bin <64 lower-case hex digits> `.
fn is_binary(address: &Address) -> bool {
    let hash = address.ib().strip_prefix("bin ").and_then(|rest| rest.strip_suffix(' '));
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    !address.is_primitive() && hash.is_some_and(|hash| hash.len() == 64 && hash.bytes().all(hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: SY-104 (the text rule)
    #[test]
    fn text_rule_counts_canonical_json() {
        let room = TEXT_JSON_BYTES_MAX - 2;
        assert!(inline_text(&vec![b'a'; room]).is_some());
        assert!(inline_text(&vec![b'a'; room + 1]).is_none());
        assert!(inline_text(&vec![b'"'; room / 2]).is_some());
        assert!(inline_text(&vec![b'\n'; room / 2 + 1]).is_none());
        assert!(inline_text("ä".repeat(room / 2).as_bytes()).is_some());
        let mixed = "a\"\\\t\n\r\u{7f}\u{2028}é😀/".repeat(50);
        let by_json = serde_json::to_string(&mixed).unwrap().len();
        let filler = "x".repeat(TEXT_JSON_BYTES_MAX - by_json);
        assert!(inline_text((mixed.clone() + &filler).as_bytes()).is_some());
        assert!(inline_text((mixed + &filler + "x").as_bytes()).is_none());
    }

    // Proves: SY-104 (200 KiB of zero bytes is a binary)
    #[test]
    fn only_clean_text_stands_inline() {
        assert_eq!(inline_text(b""), Some(""));
        assert_eq!(inline_text("\tä\r\n".as_bytes()), Some("\tä\r\n"));
        assert!(inline_text(&[0; 200 * 1024]).is_none());
        for byte in (0..0x20).filter(|byte| ![b'\t', b'\n', b'\r'].contains(byte)) {
            assert!(inline_text(&[b'a', byte]).is_none(), "{byte}");
        }
        assert!(inline_text(b"\xff").is_none());
        assert!(inline_text(b"\xed\xa0\x80").is_none());
    }

    #[test]
    fn paths() {
        let longest = format!("{0}/{0}/{0}/{1}/b", "n".repeat(255), "n".repeat(254));
        assert_eq!(longest.len(), PATH_BYTES_MAX);
        for good in ["a", "a/b", ".a", "...", "a b", "a\\b", "\u{1}", "é", "a/..b", &longest] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        let (too_long, long_name) = (format!("{longest}b"), "n".repeat(256));
        for wrong in ["", "/", "/a", "a/", "a//b", ".", "..", "a/.", "../a", "a/../b", "a\0", &too_long, &long_name] {
            assert!(check_path(wrong).is_err(), "{wrong}");
        }
    }
}
