//! `import PATH`: a space comes in, from what `export` wrote or from what other tools did.
//!
//! ```text
//! lines        the space that it was, every version and every id kept
//! directory    a new space with these files
//! tar          the same
//! ```
//!
//! All or nothing: the space is begun, filled, and listed at the end ([`Node::begin_space`]). What fails is forgotten at
//! once, what a crash cut off at the next start.

mod directory;
mod lines;
mod plain;
mod tape;

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::Path;

use sealtide_identity::SpaceId;
use serde_json::{Value, json};

use crate::api::Progress;
use crate::commands::role_name;
use crate::commands::spaces::forget;
use crate::failpoint;
use crate::failure::{Exit, Failure};
use crate::node::Node;

use self::lines::Lines;
use self::plain::Filling;
use self::tape::Tape;

/// Bytes of the records of one commit, about.
const COMMIT_BYTES: usize = 16 << 20;
/// Bytes of a block of a tar, by which it is told.
const BLOCK: usize = 512;
/// How files begin that have to be unpacked first.
const PACKED: [(&[u8], &str); 5] = [
    (b"\x1f\x8b", "gunzip"),
    (b"\x28\xb5\x2f\xfd", "unzstd"),
    (b"\xfd7zXZ", "unxz"),
    (b"BZh", "bunzip2"),
    (b"PK", "unzip"),
];

/// One import.
struct Import<'a> {
    node: &'a Node,
    path: &'a Path,
    progress: &'a Progress,
}

/// What stands at the path.
enum Form {
    Lines(File),
    Tar(File),
    Directory,
}

/// Takes a space in and gives it a local name: `name`, or what it was called. Waits for the disk.
///
/// # Errors
/// Exit 2 when the space is here or nothing stands at the path, 5 for what cannot be part of a space. No space is left.
pub(crate) fn import(node: &Node, path: &Path, name: Option<&str>, progress: &Progress) -> Result<Value, Failure> {
    let import = Import { node, path, progress };
    let told = match import.form()? {
        Form::Lines(file) => {
            let (mut lines, head) = Lines::open(&import, file)?;
            let begun = node.begin_foreign_space(head.space, name.unwrap_or(&head.name))?;
            import.fill(begun, head.kind, |space| {
                let (records, absent) = lines.take(space)?;
                Ok(json!({"form": "jsonl", "records": records, "absent": absent}))
            })?
        }
        Form::Tar(file) => {
            let tape = Tape::look(&import, file)?;
            let begun = node.begin_space(name.unwrap_or(&import.stem()), "folder")?;
            import.fill(begun, "folder", |space| {
                let mut filling = Filling::new(&import, space);
                tape.fill(&mut filling)?;
                filling.finish("tar")
            })?
        }
        Form::Directory => {
            import.apart_from_home()?;
            let begun = node.begin_space(name.unwrap_or(&import.stem()), "folder")?;
            import.fill(begun, "folder", |space| {
                let mut filling = Filling::new(&import, space);
                directory::fill(&import, &mut filling)?;
                filling.finish("dir")
            })?
        }
    };
    Ok(told)
}

impl Import<'_> {
    fn form(&self) -> Result<Form, Failure> {
        let named = |error: io::Error| Failure::usage("import", format!("{}: {error}", self.path.display()));
        let stat = fs::metadata(self.path).map_err(named)?;
        if stat.is_dir() {
            return Ok(Form::Directory);
        }
        if !stat.is_file() {
            return Err(Failure::usage("import", format!("{} is neither a file nor a directory", self.path.display())));
        }
        let mut file = File::open(self.path).map_err(named)?;
        let mut begin = Vec::with_capacity(BLOCK);
        (&file).take(BLOCK as u64).read_to_end(&mut begin).map_err(named)?;
        file.rewind().map_err(named)?;
        if is_tar(&begin) {
            return Ok(Form::Tar(file));
        }
        if begin.first() == Some(&b'{') {
            return Ok(Form::Lines(file));
        }
        let text = format!("{} is neither the lines of an export nor a tar", self.path.display());
        let failure = Failure::new(Exit::Verification, "import", text);
        Err(match PACKED.iter().find(|(magic, _)| begin.starts_with(magic)) {
            Some((_, tool)) => failure.hint(format!("it is packed: `{tool}` first, then import what that gives")),
            None => failure,
        })
    }

    /// Fills a space that was begun and lists it, or leaves nothing of it.
    fn fill(
        &self,
        (space, label): (SpaceId, String),
        kind: &str,
        take: impl FnOnce(SpaceId) -> Result<Value, Failure>,
    ) -> Result<Value, Failure> {
        let filled = take(space).and_then(|told| {
            failpoint::hit("import_filled");
            self.node.list_space(space, &label, kind)?;
            Ok(told)
        });
        // What cannot be forgotten now is at the next start.
        let mut told = filled.inspect_err(|_| drop(forget(self.node, &space)))?;
        self.node.audit().note("imported", &[("space", &space.to_string()), ("name", &label)]);
        told["schema"] = json!("sealtide/import/1");
        told["space"] = json!(space.to_string());
        told["name"] = json!(label);
        told["role"] = json!(self.node.engine().role(&self.node.id(), &space).map(role_name));
        Ok(told)
    }

    /// What a space is called that comes from here.
    fn stem(&self) -> String {
        let name = self.path.file_name().map_or_else(|| "imported".into(), |name| name.to_string_lossy());
        name.strip_suffix(".tar").unwrap_or(&name).to_owned()
    }

    /// The keys of this node are in no space.
    fn apart_from_home(&self) -> Result<(), Failure> {
        let home = self.node.home().root();
        if sealtide_folder::is_inside(home, self.path)? || sealtide_folder::is_inside(self.path, home)? {
            let text = format!("{} and the home {} lie inside each other", self.path.display(), home.display());
            return Err(Failure::usage("dir", text).hint("name a directory apart from it"));
        }
        Ok(())
    }

    /// Something that cannot be part of a space, named as it is in what is imported.
    fn wrong(&self, entry: &str, problem: impl Display) -> Failure {
        let text = format!("{}, {}: {problem}", self.path.display(), entry.escape_debug());
        Failure::new(Exit::Verification, "import", text)
    }

    fn tell(&self, items: u64, bytes: u64, bytes_all: u64) {
        let told = json!({"phase": "importing", "items": [items, 0], "bytes": [bytes, bytes_all]});
        self.progress.tell(told);
    }
}

/// Whether a file that begins so is a tar: its first header adds up, or it is the end of one that is empty.
fn is_tar(begin: &[u8]) -> bool {
    let Ok(block) = <&[u8; BLOCK]>::try_from(begin) else { return false };
    let sum: u32 =
        block.iter().enumerate().map(|(at, byte)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte })).sum();
    let told = tar::Header::from_byte_slice(block).cksum();
    told.is_ok_and(|told| told == sum) || block.iter().all(|byte| *byte == 0)
}
