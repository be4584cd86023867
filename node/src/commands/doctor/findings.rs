//! What the doctor found: one line per check, and who is to blame.

use serde_json::{Value, json};

use crate::failure::{Exit, Failure};

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    /// It works, with less than it could.
    Warn,
    Fail,
    /// It could not be looked at, or there was nothing to look at.
    Skip,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

struct Finding {
    check: &'static str,
    verdict: Verdict,
    text: String,
    todo: Option<String>,
    /// How the command ends because of it.
    exit: Exit,
}

/// All findings, in the order in which things depend on each other: the first that failed is the culprit.
#[derive(Default)]
pub(super) struct Findings {
    all: Vec<Finding>,
    /// What a failure from now on means for the exit code.
    about_target: bool,
}

impl Findings {
    /// From now on findings are about the way to the target.
    pub(super) fn begin_target(&mut self) {
        self.about_target = true;
    }

    pub(super) fn add(&mut self, check: &'static str, verdict: Verdict, text: impl Into<String>, todo: Option<&str>) {
        let exit = if self.about_target { Exit::NoRoute } else { Exit::Failed };
        let todo = todo.map(str::to_owned);
        self.all.push(Finding { check, verdict, text: text.into(), todo, exit });
    }

    pub(super) fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, Verdict::Ok, text, None);
    }

    pub(super) fn skip(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, Verdict::Skip, text, None);
    }

    /// Failures of a way become warnings when another way led there.
    pub(super) fn forgive_since(&mut self, first: usize) {
        for finding in &mut self.all[first..] {
            if finding.verdict == Verdict::Fail {
                finding.verdict = Verdict::Warn;
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The document of `doctor`.
    pub(super) fn document(&self) -> Value {
        let show = |finding: &Finding| {
            json!({
                "check": finding.check, "result": finding.verdict.word(), "text": finding.text, "do": finding.todo,
            })
        };
        let culprit = self.culprit();
        json!({
            "schema": "sealtide/doctor/1",
            "ok": culprit.is_none(),
            "culprit": culprit.map(show),
            "exit": culprit.map_or(0, |culprit| culprit.exit.code()),
            "findings": self.all.iter().map(show).collect::<Vec<_>>(),
        })
    }

    fn culprit(&self) -> Option<&Finding> {
        self.all.iter().find(|finding| finding.verdict == Verdict::Fail)
    }
}

/// What the command line makes of the document: the culprit as its error.
pub(crate) fn verdict(document: &Value) -> Result<(), Failure> {
    let culprit = &document["culprit"];
    if culprit.is_null() {
        return Ok(());
    }
    let word = |key: &str| culprit[key].as_str().unwrap_or_default();
    let exit = if document["exit"] == Exit::NoRoute.code() { Exit::NoRoute } else { Exit::Failed };
    let failure = Failure::new(exit, "doctor", format!("{}: {}", word("check"), word("text")));
    Err(if word("do").is_empty() { failure } else { failure.hint(word("do")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_the_culprit_and_decides_the_exit_code() {
        let mut findings = Findings::default();
        findings.ok("home", "x");
        findings.add("clock", Verdict::Warn, "x", Some("y"));
        assert!(verdict(&findings.document()).is_ok(), "a warning is no failure");
        findings.begin_target();
        let way = findings.len();
        findings.add("tcp", Verdict::Fail, "refused", Some("open the port"));
        findings.add("tls", Verdict::Fail, "x", None);
        let failure = verdict(&findings.document()).unwrap_err();
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::NoRoute, "tcp: refused"));
        assert_eq!(failure.hint.as_deref(), Some("open the port"));
        findings.forgive_since(way);
        assert!(verdict(&findings.document()).is_ok(), "another way led there");
        let mut here = Findings::default();
        here.add("folder", Verdict::Fail, "gone", None);
        assert_eq!(verdict(&here.document()).unwrap_err().exit, Exit::Failed);
    }
}
