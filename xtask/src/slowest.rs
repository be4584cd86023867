//! `cargo xtask slowest`: the last words of a test run.
//!
//! Counts come from the JUnit report that nextest writes (configured in `.config/nextest.toml`) and from the output of
//! `cargo test`, which runs the documentation's examples, or everything where nextest is absent.

use std::fmt;

/// How many tests are named.
const NAMED: usize = 10;

/// What ran.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Summary {
    passed: usize,
    pub(crate) failed: usize,
    skipped: usize,
    /// Name and milliseconds, slowest first.
    timed: Vec<(String, u64)>,
}

impl Summary {
    /// Adds up a JUnit report and outputs of `cargo test`.
    pub(crate) fn collect(junit: Option<&str>, logs: &[String]) -> Self {
        let mut summary = Self::default();
        if let Some(report) = junit {
            summary.read_junit(report);
        }
        for log in logs {
            summary.read_log(log);
        }
        summary.timed.sort_by_key(|(_, ms)| std::cmp::Reverse(*ms));
        summary
    }

    /// Reads the test cases of nextest's own report; that writer's form is enough, this is no XML reader.
    fn read_junit(&mut self, report: &str) {
        for case in report.split("<testcase ").skip(1) {
            let (head, rest) = case.split_once('>').unwrap_or((case, ""));
            let body = if head.ends_with('/') { "" } else { rest.split("</testcase>").next().unwrap_or_default() };
            let name = [attribute(head, "classname"), attribute(head, "name")].into_iter().flatten();
            let name = name.collect::<Vec<_>>().join(" ");
            if body.contains("<skipped") {
                self.skipped += 1;
                continue;
            }
            if body.contains("<failure") || body.contains("<error") {
                self.failed += 1;
            } else {
                self.passed += 1;
            }
            let seconds = attribute(head, "time").and_then(|time| time.parse::<f64>().ok()).unwrap_or(0.0);
            self.timed.push((name, (seconds * 1000.0).round() as u64));
        }
    }

    /// Reads lines such as `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; …`.
    fn read_log(&mut self, log: &str) {
        for line in log.lines().filter_map(|line| line.trim().strip_prefix("test result: ")) {
            let counts = line.split_once(". ").map_or("", |(_, counts)| counts);
            for part in counts.split(';') {
                let Some((count, what)) = part.trim().split_once(' ') else { continue };
                let Ok(count) = count.parse::<usize>() else { continue };
                match what {
                    "passed" => self.passed += count,
                    "failed" => self.failed += count,
                    "ignored" => self.skipped += count,
                    _ => {}
                }
            }
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.timed.len() {
            0 => writeln!(out, "No times: `cargo test` tells none (install cargo-nextest to see the slowest tests).")?,
            count => writeln!(out, "The {} slowest tests:", count.min(NAMED))?,
        }
        for (name, ms) in self.timed.iter().take(NAMED) {
            writeln!(out, "{:>9.3} s  {name}", *ms as f64 / 1000.0)?;
        }
        writeln!(out, "{} tests passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// The value of an attribute, entities resolved.
fn attribute(head: &str, name: &str) -> Option<String> {
    let (_, rest) = head.split_once(&format!(" {name}=\"")).or_else(|| head.split_once(&format!("{name}=\"")))?;
    let value = rest.split('"').next()?;
    let value = value.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    Some(value.replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="4" failures="1" time="2.5">
    <testsuite name="sealtide-wire" tests="3" failures="1">
        <testcase name="frame::a&lt;b&gt;" classname="sealtide-wire" timestamp="2026-11-20T10:00:00Z" time="0.250">
        </testcase>
        <testcase name="frame::slow" classname="sealtide-wire" time="2.000"/>
        <testcase name="frame::broken" classname="sealtide-wire" time="0.001">
            <failure message="no">text with 9 passed</failure>
        </testcase>
        <testcase name="frame::left_out" classname="sealtide-wire" time="0.0">
            <skipped/>
        </testcase>
    </testsuite>
</testsuites>"#;

    #[test]
    fn a_report_is_added_up() {
        let summary = Summary::collect(Some(REPORT), &[]);
        assert_eq!((summary.passed, summary.failed, summary.skipped), (2, 1, 1));
        assert_eq!(summary.timed[0], ("sealtide-wire frame::slow".to_owned(), 2_000));
        assert_eq!(summary.timed[1], ("sealtide-wire frame::a<b>".to_owned(), 250));
        let text = summary.to_string();
        assert!(text.contains("The 3 slowest tests:\n    2.000 s  sealtide-wire frame::slow\n"), "{text}");
        assert!(text.ends_with("2 tests passed, 1 failed, 1 skipped\n"), "{text}");
    }

    #[test]
    fn logs_of_cargo_test_are_added_up() {
        let log = "\nrunning 3 tests\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.5s\n\
                   test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured\nno test result: ok. 9 passed;\n";
        let summary = Summary::collect(None, &[log.to_owned()]);
        assert_eq!((summary.passed, summary.failed, summary.skipped), (4, 2, 1));
        assert!(summary.to_string().starts_with("No times"));
    }

    #[test]
    fn only_ten_are_named() {
        let case = |n: usize| format!("<testcase name=\"t{n}\" classname=\"c\" time=\"0.{n:03}\"/>");
        let report: String = (0..25).map(case).collect();
        let text = Summary::collect(Some(&report), &[]).to_string();
        assert!(text.contains("The 10 slowest") && text.contains("c t24\n") && !text.contains("c t14\n"), "{text}");
    }
}
