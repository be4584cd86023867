//! What can go wrong with a folder as a whole, and why single paths are left out.

use std::io;
use std::path::PathBuf;

/// Why an operation on a whole folder failed. Problems of single paths are [`SkipReason`]s in the reports.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The directory cannot be opened.
    #[error("cannot open the directory {}", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another directory stands where the folder was, and it holds fewer than half of the files that were known: an unmounted disk, most
    /// likely. Nothing is compared, because everything would look deleted.
    #[error("{} is not the directory that was known: is a disk not mounted?", path.display())]
    RootReplaced {
        /// The directory.
        path: PathBuf,
    },
    /// Another directory stands where the folder was, with at least half of the files that were known, and it has not stood still for long
    /// enough: a copy may be under way. Asking again in a moment takes it.
    #[error("{} is another directory than the one that was known: it is compared anew as soon as nothing comes to it any more", path.display())]
    RootUnsettled {
        /// The directory.
        path: PathBuf,
    },
    /// The state file cannot be opened, read or written.
    #[error("the state file {} failed", path.display())]
    State {
        /// The state file.
        path: PathBuf,
        /// What the database said.
        source: Box<redb::Error>,
    },
    /// The state file holds something this version does not understand.
    #[error("the state file {} is damaged: {problem}", path.display())]
    Damaged {
        /// The state file.
        path: PathBuf,
        /// What is wrong in it.
        problem: &'static str,
    },
    /// The receiver of chunks refused one.
    #[error("a chunk of {path} could not be kept")]
    Keep {
        /// The file that was being read.
        path: String,
        /// What the receiver said.
        source: io::Error,
    },
    /// One path that an operation was asked about failed.
    #[error("cannot work on {path}")]
    Path {
        /// The path in the folder.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The operating system cannot sync the directory to disk.
    #[error("cannot sync the directory to disk")]
    Sync {
        /// What the system said.
        source: io::Error,
    },
    /// A step hook stopped the operation where a crash would.
    #[error("stopped at a failpoint")]
    Stopped,
}

/// Why one path was left alone. The text is meant for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SkipReason {
    /// The name is not UTF-8.
    #[error("the name is not valid UTF-8")]
    NameNotUtf8,
    /// The target of a symbolic link is not UTF-8.
    #[error("the target of the link is not valid UTF-8")]
    TargetNotUtf8,
    /// A rule of paths is broken.
    #[error("{0}")]
    BadPath(#[from] crate::PathProblem),
    /// A device, socket or named pipe.
    #[error("only files, directories and symbolic links can be shared")]
    Special,
    /// The file changed while it was read: the next scan takes it.
    #[error("the file is being changed: it is read again later")]
    Changing,
    /// The file or directory cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// A file system was mounted at this directory, and is not now.
    #[error("what was mounted here is not: mount it, or remove the directory where its files are to go everywhere")]
    NotMounted,
    /// An ignore rule covers the path.
    #[error("an ignore rule covers it")]
    Ignored,
    /// The file with ignore rules cannot be read, so nobody can say what they cover.
    #[error(
        "the ignore rules in {path} cannot be read ({problem}): nothing beside or below them is synced until they can"
    )]
    RulesUnreadable {
        /// The file with the rules.
        path: String,
        /// What the system said.
        problem: String,
    },
    /// A file or a symbolic link stands where a directory is needed. Links are never followed.
    #[error("{0} is not a directory")]
    ParentNotDirectory(String),
    /// Where the path would stand another one answers, which differs only in case, or in the way in which a letter is written.
    #[error(
        "the file system takes its name for that of another path here, which differs only in case: rename one of the two"
    )]
    OtherSpelling,
    /// A directory with other files stands where a file is to be written.
    #[error("a directory that is not empty stands there")]
    DirectoryNotEmpty,
    /// Source and target of a move are on different file systems: a plan that removes and puts does it.
    #[error("it would have to move to another file system")]
    OtherFileSystem,
    /// The content cannot be loaded or does not fit its description.
    #[error("the content cannot be loaded: {0}")]
    Content(String),
    /// The system refused a step.
    #[error("{0}")]
    System(String),
}
