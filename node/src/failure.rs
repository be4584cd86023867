//! What went wrong, for a person and for a script: exit code, machine code, message, next step.

use serde::{Deserialize, Serialize};

/// Exit codes of the command line. They are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// 1: failed.
    Failed,
    /// 2: usage or configuration, a mistyped ticket.
    Usage,
    /// 3: finished with items skipped.
    Skipped,
    /// 4: a conflict needs a person.
    Conflict,
    /// 5: verification failed.
    Verification,
    /// 6: identity, permission, ticket or token refused.
    Refused,
    /// 7: no route to a peer or relay.
    NoRoute,
    /// 8: held by policy.
    Held,
    /// 10: no store here.
    NoStore,
    /// 11: the store is locked by another process.
    Locked,
    /// 12: the passphrase is wrong, or cannot be asked for.
    WrongPassphrase,
    /// 130: interrupted, state consistent.
    Interrupted,
    /// 143: terminated, state consistent.
    Terminated,
}

impl Exit {
    /// The number given to the shell.
    pub const fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Skipped => 3,
            Self::Conflict => 4,
            Self::Verification => 5,
            Self::Refused => 6,
            Self::NoRoute => 7,
            Self::Held => 8,
            Self::NoStore => 10,
            Self::Locked => 11,
            Self::WrongPassphrase => 12,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

/// A failed command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// For scripts: snake_case, stable.
    pub code: String,
    /// What happened, to which thing.
    pub message: String,
    /// What to do next, when that is known.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with its exit code, machine code and message.
    pub fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        Self { exit, code: code.to_owned(), message: message.into(), hint: None }
    }

    /// Adds the next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What happened and what to do next, in one line.
    pub(crate) fn with_hint(&self) -> String {
        self.hint.as_ref().map_or_else(|| self.message.clone(), |hint| format!("{} ({hint})", self.message))
    }

    /// Names the file that it is about.
    #[must_use]
    pub(crate) fn about(mut self, file: &std::path::Path) -> Self {
        self.message = format!("{}: {}", file.display(), self.message);
        self
    }

    /// A plain failure (exit 1).
    pub fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, code, message)
    }

    /// Wrong usage or configuration (exit 2).
    pub fn usage(code: &str, message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, code, message)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let failure = Self::failed("io", error.to_string());
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                failure.hint("make room on that disk, and try again; `sealtide gc` frees what the home does not need")
            }
            _ => failure,
        }
    }
}

/// An error with everything that caused it, in one line.
pub fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
