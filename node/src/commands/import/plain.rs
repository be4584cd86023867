//! Plain files and documents become the frames of a new space.

use std::collections::BTreeSet;
use std::io::Read;

use data_encoding::HEXUPPER_PERMISSIVE;
use sealtide_ibgib::{FileFrame, Stamp, Verified, uuid};
use sealtide_identity::SpaceId;
use serde_json::{Value, json};

use super::{COMMIT_BYTES, Import};
use crate::commands::export::{DOCUMENT_BYTES_MAX, document_file};
use crate::commands::{documents, store_failure};
use crate::failpoint;
use crate::failure::Failure;
use crate::real::now;
use crate::world::OsEntropy;

/// Where an export has its files.
pub(super) const FILES: &str = "files";
/// Where an export has its documents, NAME.json each.
pub(super) const DOCUMENTS: &str = "documents";
/// Files of one commit, at most.
const COMMIT_FILES: usize = 2048;

/// A new space while it is filled. Memory holds one commit of it.
pub(super) struct Filling<'a> {
    import: &'a Import<'a>,
    space: SpaceId,
    by: String,
    records: Vec<Verified>,
    /// Of these, how many stand for a file or document, and the bytes of all.
    waiting: (usize, usize),
    files: u64,
    documents: BTreeSet<String>,
}

impl<'a> Filling<'a> {
    pub(super) fn new(import: &'a Import<'a>, space: SpaceId) -> Self {
        let by = import.node.id().to_string();
        let (records, documents) = (Vec::new(), BTreeSet::new());
        Self { import, space, by, records, waiting: (0, 0), files: 0, documents }
    }

    /// Which space.
    pub(super) fn space(&self) -> SpaceId {
        self.space
    }

    /// Who makes the frames.
    pub(super) fn by(&self) -> String {
        self.by.clone()
    }

    /// Things taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.files + self.documents.len() as u64
    }

    /// Takes what stands at a path; `content` are the records that its frame needs.
    ///
    /// # Errors
    /// Exit 5 for a frame that breaks a rule of folders.
    pub(super) fn file(&mut self, frame: &FileFrame, content: Vec<Verified>) -> Result<(), Failure> {
        let first = frame.genesis(Stamp { ms: now().wall_ms }, &uuid(&mut OsEntropy));
        let first = first.map_err(|error| self.import.wrong(&frame.path, error))?;
        self.files += 1;
        self.push(content.into_iter().chain([first]))
    }

    /// Takes a document, `file` being how its file is called.
    ///
    /// # Errors
    /// Exit 5 when it is no JSON, too large, or its name is none or there already.
    pub(super) fn document(&mut self, file: &str, text: &mut dyn Read) -> Result<(), Failure> {
        let entry = format!("{DOCUMENTS}/{file}");
        let wrong = |problem: &str| self.import.wrong(&entry, problem);
        let name = document_name(file).ok_or_else(|| wrong(NO_DOCUMENT))?;
        let mut bytes = Vec::new();
        text.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| wrong(&error.to_string()))?;
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(wrong("the document is too large"));
        }
        let doc: Value = serde_json::from_slice(&bytes).map_err(|error| wrong(&error.to_string()))?;
        let first = documents::first_frame(self.import.node, &name, doc);
        let first = first.map_err(|failure| wrong(&failure.message))?;
        if self.documents.contains(&name) {
            return Err(wrong("another document has this name"));
        }
        self.documents.insert(name);
        self.push([first])
    }

    fn push(&mut self, records: impl IntoIterator<Item = Verified>) -> Result<(), Failure> {
        for record in records {
            self.waiting.1 += record.encoded().len();
            self.records.push(record);
        }
        self.waiting.0 += 1;
        if self.waiting.0 >= COMMIT_FILES || self.waiting.1 >= COMMIT_BYTES { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<(), Failure> {
        failpoint::hit("import_commit");
        self.waiting = (0, 0);
        let records = std::mem::take(&mut self.records);
        self.import.node.engine().commit_in_thread(self.space, records).map(drop).map_err(store_failure)
    }

    /// Commits the rest, and tells what the space holds.
    ///
    /// # Errors
    /// As the store reports.
    pub(super) fn finish(mut self, form: &str) -> Result<Value, Failure> {
        if !self.records.is_empty() {
            self.commit()?;
        }
        Ok(json!({"form": form, "files": self.files, "documents": self.documents.len()}))
    }
}

/// What is said of something in `documents/` that is no document.
pub(super) const NO_DOCUMENT: &str = "beside files/, an export has documents/NAME.json and nothing else; what is no \
    export is taken as plain files when it stands in a directory of another name";

/// Whether a directory in `documents` holds the rests of long names.
pub(super) fn is_part_of_name(dir: &str) -> bool {
    dir.split('/').all(|part| part.ends_with('+'))
}

/// The name of the document in a file that an export wrote: without `.json`, `%XX` being a byte, a long one in parts.
pub(super) fn document_name(file: &str) -> Option<String> {
    let name = decoded(&file.strip_suffix(".json")?.replace("+/", ""))?;
    Some(name).filter(|name| !file.contains('/') || document_file(name) == file)
}

fn decoded(plain: &str) -> Option<String> {
    let mut rest = plain.as_bytes();
    let mut name = Vec::new();
    while let [byte, behind @ ..] = rest {
        rest = match (byte, behind) {
            (b'%', [high, low, behind @ ..]) => {
                name.extend(HEXUPPER_PERMISSIVE.decode(&[*high, *low]).ok()?);
                behind
            }
            (b'%', _) => return None,
            _ => {
                name.push(*byte);
                behind
            }
        };
    }
    String::from_utf8(name).ok().filter(|name| (1..=255).contains(&name.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_export_calls_a_document_is_its_name_again(name in "\\PC{1,63}|[ж-я]{1,127}|[a-z.]{200,255}") {
            let file = document_file(&name);
            prop_assert!(file.split('/').all(|part| part.len() <= 255), "{}", file);
            prop_assert_eq!(document_name(&file), Some(name));
        }

        #[test]
        fn any_name_of_a_file_is_a_document_or_none(file in ".*") {
            prop_assert!(document_name(&file).is_none_or(|name| (1..=255).contains(&name.len())));
        }
    }

    #[test]
    fn names_of_documents_come_back() {
        for (file, name) in [
            ("plan.json", Some("plan")),
            ("to%20do%2F1.json", Some("to do/1")),
            ("%C3%bc.json", Some("\u{fc}")),
            ("%2E.json", Some(".")),
            ("a.json.json", Some("a.json")),
            (".json", None),
            ("plan", None),
            ("a%2.json", None),
            ("a%zz.json", None),
            ("%FF.json", None),
        ] {
            assert_eq!(document_name(file).as_deref(), name, "{file}");
        }
        assert_eq!(document_name(&format!("{}.json", "n".repeat(256))), None);
        let long = "ж".repeat(84);
        let file = document_file(&long);
        assert_eq!(file.split('/').map(str::len).collect::<Vec<_>>(), [251, 251, 4 + 5]);
        assert_eq!(document_name(&file), Some(long));
        for other in ["a+/b.json", "a/b.json", "+/a.json", "a+/.json", "/a.json"] {
            assert_eq!(document_name(other), None, "{other}");
        }
    }
}
