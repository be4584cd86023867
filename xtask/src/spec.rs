//! `cargo xtask spec`: which requirement has code, and which has a test.
//!
//! A comment says `Spec: SY-14` at the code that keeps a rule and `Proves: SY-14` at the test that shows it. Ids are
//! read from the marker to the end of its comment line, and on while a line ends with a comma. `SY-1…SY-4` is a range.

use std::collections::BTreeMap;
use std::fmt;

use crate::source::Source;

/// The specifications that number their rules.
const FAMILIES: [&str; 3] = ["SY", "LK", "GW"];
/// The longest range: more is a slip of the pen.
const RANGE_MAX: u32 = 200;

/// A requirement, as in `SY-14`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    family: &'static str,
    number: u32,
}

impl Id {
    fn parse(text: &str) -> Option<Self> {
        let (family, number) = text.split_once('-')?;
        let family = FAMILIES.into_iter().find(|known| *known == family)?;
        Some(Self { family, number: number.parse().ok()? })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.family, self.number)
    }
}

/// Where a requirement is spoken of.
#[derive(Debug, Default, PartialEq)]
struct Places {
    code: Vec<String>,
    tests: Vec<String>,
}

/// All requirements that comments name.
#[derive(Debug, Default)]
pub(crate) struct Coverage(BTreeMap<Id, Places>);

impl Coverage {
    pub(crate) fn collect(files: &[Source]) -> Self {
        let mut coverage = Self::default();
        // Markdown explains the markers; this crate has them in its tests.
        for source in files.iter().filter(|file| !file.path.ends_with(".md") && !file.path.starts_with("xtask/")) {
            coverage.read(source);
        }
        coverage
    }

    fn read(&mut self, source: &Source) {
        for (at, comment) in source.comments.iter().enumerate() {
            for (marker, proves) in [("Spec:", false), ("Proves:", true)] {
                let Some((_, said)) = comment.split_once(marker) else { continue };
                // A line may have both markers: each speaks up to the other.
                let said = said.split(if proves { "Spec:" } else { "Proves:" }).next().unwrap_or_default();
                let place = if proves { test_place(source, at) } else { format!("{}:{}", source.path, at + 1) };
                for id in ids(&with_continuation(source, at, said)) {
                    let places = self.0.entry(id).or_default();
                    let list = if proves { &mut places.tests } else { &mut places.code };
                    if !list.contains(&place) {
                        list.push(place.clone());
                    }
                }
            }
        }
    }

    /// One line per requirement and place.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for (id, places) in &self.0 {
            let rows = places.code.len().max(places.tests.len());
            let width = places.code.iter().map(String::len).max().unwrap_or(0).max(1);
            for row in 0..rows {
                let label = if row == 0 { id.to_string() } else { String::new() };
                let code = places.code.get(row).map_or(if row == 0 { "–" } else { "" }, String::as_str);
                let test = places.tests.get(row).map_or(if row == 0 { "–" } else { "" }, String::as_str);
                text.push_str(format!("{label:8}{code:width$}  {test}").trim_end());
                text.push('\n');
            }
        }
        text.push_str(&format!("{}\n", self.counts()));
        text
    }

    fn counts(&self) -> String {
        let proven = self.0.values().filter(|places| !places.tests.is_empty()).count();
        format!("{} requirements named, {proven} proven by a test", self.0.len())
    }

    /// Those of `required` that no test claims to prove.
    pub(crate) fn unproven(&self, required: &[Id]) -> Vec<Id> {
        let is_proven = |id: &Id| self.0.get(id).is_some_and(|places| !places.tests.is_empty());
        required.iter().filter(|id| !is_proven(id)).copied().collect()
    }

    /// The result of a check, with the code places of what has no test.
    pub(crate) fn report(&self, required: &[Id], missing: &[Id]) -> String {
        let proven = required.len() - missing.len();
        let mut text = format!("spec: {proven} of {} required ids proven; {}\n", required.len(), self.counts());
        for id in missing {
            let code = self.0.get(id).map(|places| places.code.join(", ")).filter(|code| !code.is_empty());
            text.push_str(&format!("  no test proves {id} (code: {})\n", code.as_deref().unwrap_or("none")));
        }
        text
    }
}

/// The ids listed in a file, one per line, `#` begins a comment. Sorted, each once.
pub(crate) fn parse_requirements(text: &str) -> Result<Vec<Id>, String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let lines = lines.filter(|line| !line.is_empty());
    let ids: Result<Vec<Id>, String> =
        lines.map(|line| Id::parse(line).ok_or_else(|| format!("{line} is not an id such as SY-14"))).collect();
    let mut ids = ids?;
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// What a marker says, with the lines that it goes on over.
fn with_continuation(source: &Source, at: usize, said: &str) -> String {
    let mut text = said.trim_end().to_owned();
    for comment in &source.comments[at + 1..] {
        if !text.ends_with(',') || comment.is_empty() || comment.contains("Spec:") || comment.contains("Proves:") {
            break;
        }
        text.push(' ');
        text.push_str(comment.trim_end());
    }
    text
}

/// All ids in a text, ranges written out.
fn ids(text: &str) -> Vec<Id> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '-';
    let mut found: Vec<Id> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_part) {
        let between = &rest[..start];
        rest = &rest[start..];
        let end = rest.find(|char| !is_part(char)).unwrap_or(rest.len());
        let id = Id::parse(rest[..end].trim_end_matches('-'));
        rest = &rest[end..];
        let Some(id) = id else { continue };
        let is_range = matches!(between.trim(), "…" | "..." | ".." | "–" | "..=");
        match found.last().copied() {
            Some(first)
                if is_range && first.family == id.family && id.number.saturating_sub(first.number) <= RANGE_MAX =>
            {
                found.extend((first.number + 1..=id.number).map(|number| Id { family: id.family, number }));
            }
            _ => found.push(id),
        }
    }
    found
}

/// `file::test` of the test that a comment on line `at` (from 0) belongs to: the function below it if only attributes
/// stand between, else the function around it; the file alone when there is none.
fn test_place(source: &Source, at: usize) -> String {
    let code: Vec<&str> = source.code.lines().map(str::trim).collect();
    let has_code_before = code.get(at).is_some_and(|line| !line.is_empty());
    let below = code.iter().skip(at + 1).find(|line| !line.is_empty() && !line.starts_with("#["));
    let below = below.and_then(|line| function_name(line)).filter(|_| !has_code_before);
    let around = || code[..code.len().min(at + 1)].iter().rev().find_map(|line| function_name(line));
    match below.or_else(around) {
        Some(name) => format!("{}::{name}", source.path),
        None => source.path.clone(),
    }
}

/// The name in a line that begins a function.
fn function_name(line: &str) -> Option<&str> {
    let mut words = line
        .split_whitespace()
        .skip_while(|word| matches!(*word, "async" | "const" | "unsafe") || word.starts_with("pub"));
    let name = words.next().filter(|word| *word == "fn").and(words.next())?;
    name.split(['(', '<']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coverage(path: &str, text: &str) -> Coverage {
        Coverage::collect(&[Source::new(path, text.to_owned())])
    }

    fn names(ids: &[Id]) -> Vec<String> {
        ids.iter().map(Id::to_string).collect()
    }

    #[test]
    fn ids_are_found_in_prose_lists_and_ranges() {
        assert_eq!(names(&ids(" link C.3, LK-1 and SY-14 (bad_bin), GW-7.")), ["LK-1", "SY-14", "GW-7"]);
        assert_eq!(names(&ids("SY-3…SY-5, LK-9")), ["SY-3", "SY-4", "SY-5", "LK-9"]);
        assert_eq!(names(&ids("SY-107 SY-65 (over 4 096 chunks)")), ["SY-107", "SY-65"]);
        assert_eq!(names(&ids("XX-1, SY, SY-, SY-x, ESY-1, RFC-8785")), Vec::<String>::new());
    }

    #[test]
    fn code_and_tests_are_told_apart() {
        let text = "\
/// Keeps it. Spec: link C.3, LK-1.
fn keep() {} // Spec: LK-2

// Proves: LK-1, LK-2,
// LK-3
#[test]
fn it_is_kept() {
    // Proves: LK-4
    assert!(true);
}
";
        let coverage = coverage("core/wire/src/a.rs", text);
        let places = |id: &str| &coverage.0[&Id::parse(id).expect("an id")];
        assert_eq!(places("LK-1").code, ["core/wire/src/a.rs:1"]);
        assert_eq!(places("LK-2").code, ["core/wire/src/a.rs:2"]);
        for id in ["LK-1", "LK-2", "LK-3", "LK-4"] {
            assert_eq!(places(id).tests, ["core/wire/src/a.rs::it_is_kept"], "{id}");
        }
    }

    #[test]
    fn literals_are_no_proof() {
        let coverage = coverage("a.rs", "fn a() { print(\"Proves: SY-1\"); }\n");
        assert!(coverage.0.is_empty(), "{coverage:?}");
    }

    #[test]
    fn comments_above_a_file_stand_for_the_file() {
        let coverage = coverage("io/x/tests/a.rs", "//! Proves: SY-1\n\nuse a::b;\n\nfn first() {}\n");
        assert_eq!(coverage.0.values().next().expect("one").tests, ["io/x/tests/a.rs"]);
    }

    #[test]
    fn a_check_names_what_no_test_proves() {
        let coverage = coverage("a.rs", "// Spec: SY-2\n// Proves: SY-1\nfn a() {}\n");
        let required = parse_requirements("# head\nSY-2\nSY-1 # why\n\nSY-3\nSY-1\n").expect("good lines");
        let missing = coverage.unproven(&required);
        assert_eq!(names(&missing), ["SY-2", "SY-3"]);
        let report = coverage.report(&required, &missing);
        assert!(report.starts_with("spec: 1 of 3 required ids proven"), "{report}");
        assert!(report.contains("SY-2 (code: a.rs:1)") && report.contains("SY-3 (code: none)"), "{report}");
        assert!(parse_requirements("SY-1 SY-2").is_err());
    }

    #[test]
    fn the_list_of_this_repository_can_be_read() {
        let text = include_str!("../../spec/requirements.txt");
        assert!(parse_requirements(text).expect("good lines").len() > 50);
    }
}
