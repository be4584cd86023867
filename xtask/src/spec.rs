//! `cargo xtask spec`: which requirement has code, and which has a test.
//!
//! A comment says `Spec: SY-14` at the code that keeps a rule and `Proves: SY-14` at the test that shows it. Ids are
//! read from the marker to the end of its comment line, and on while a line ends with a comma. `SY-1…SY-4` is a range.
//! Only a test proves: what stands at a helper is told, and counts for nothing. A speed is measured, not proven: the benchmark says
//! `Measures: SY-11`, and the list of requirements `SY-11 measured`.

use std::collections::BTreeMap;
use std::fmt;

use crate::source::Source;

/// The specifications that number their rules.
const FAMILIES: [&str; 3] = ["SY", "LK", "GW"];
/// What comments say of a requirement.
const MARKERS: [&str; 3] = ["Spec:", "Proves:", "Measures:"];
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
    /// Benchmarks.
    measured: Vec<String>,
    /// What says that it proves it, and is no test.
    claims: Vec<String>,
}

/// What is required of this repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Required {
    id: Id,
    /// By a benchmark; else by a test.
    measured: bool,
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
            for marker in MARKERS {
                let Some((_, said)) = comment.split_once(marker) else { continue };
                // A line may have several markers: each speaks up to the next.
                let end = MARKERS.iter().filter_map(|other| said.find(other)).min().unwrap_or(said.len());
                let (place, is_test) = match marker {
                    "Proves:" => test_place(source, at),
                    _ => (format!("{}:{}", source.path, at + 1), false),
                };
                for id in ids(&with_continuation(source, at, &said[..end])) {
                    let places = self.0.entry(id).or_default();
                    let list = match (marker, is_test) {
                        ("Proves:", true) => &mut places.tests,
                        ("Proves:", false) => &mut places.claims,
                        ("Measures:", _) => &mut places.measured,
                        _ => &mut places.code,
                    };
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

    /// Those of `required` that no test proves, or no benchmark measures.
    pub(crate) fn unproven(&self, required: &[Required]) -> Vec<Required> {
        let is_proven = |required: &Required| {
            self.0.get(&required.id).is_some_and(|places| match required.measured {
                true => !places.measured.is_empty(),
                false => !places.tests.is_empty(),
            })
        };
        required.iter().filter(|required| !is_proven(required)).copied().collect()
    }

    /// The result of a check, with the code places of what has no test.
    pub(crate) fn report(&self, required: &[Required], missing: &[Required]) -> String {
        let proven = required.len() - missing.len();
        let mut text = format!("spec: {proven} of {} required ids proven; {}\n", required.len(), self.counts());
        for Required { id, measured } in missing {
            let by = if *measured { "benchmark measures" } else { "test proves" };
            let told = |list: fn(&Places) -> &Vec<String>| {
                let places = self.0.get(id).map(|places| list(places).join(", "));
                places.filter(|places| !places.is_empty()).unwrap_or_else(|| "none".to_owned())
            };
            text.push_str(&format!("  no {by} {id} (code: {})\n", told(|places| &places.code)));
            let claims = told(|places| &places.claims);
            if claims != "none" {
                text.push_str(&format!("    said of what is no test: {claims}\n"));
            }
        }
        text
    }
}

/// The ids listed in a file, one per line, with ` measured` behind it where a benchmark shows it; `#` begins a comment. Sorted, each
/// once.
pub(crate) fn parse_requirements(text: &str) -> Result<Vec<Required>, String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let lines = lines.filter(|line| !line.is_empty());
    let required = |line: &str| {
        let (id, measured) = line.strip_suffix(" measured").map_or((line, false), |id| (id, true));
        let id = Id::parse(id).ok_or_else(|| format!("{line} is not an id such as SY-14"))?;
        Ok(Required { id, measured })
    };
    let mut ids = lines.map(required).collect::<Result<Vec<Required>, String>>()?;
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// What a marker says, with the lines that it goes on over.
fn with_continuation(source: &Source, at: usize, said: &str) -> String {
    let mut text = said.trim_end().to_owned();
    for comment in &source.comments[at + 1..] {
        if !text.ends_with(',') || comment.is_empty() || MARKERS.iter().any(|marker| comment.contains(marker)) {
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
/// stand between, else the function around it; the file alone when there is none. And whether it is a test: a function
/// with such an attribute, a file with one, a call of `test` or the like in TypeScript.
fn test_place(source: &Source, at: usize) -> (String, bool) {
    if !source.is_rust() {
        return (source.path.clone(), is_script_test(source, at));
    }
    let code: Vec<&str> = source.code.lines().map(str::trim).collect();
    let has_code_before = code.get(at).is_some_and(|line| !line.is_empty());
    let below = (at + 1..code.len()).find(|line| !code[*line].is_empty() && !code[*line].starts_with("#["));
    let below = below.filter(|line| !has_code_before && function_name(code[*line]).is_some());
    let around = || (0..code.len().min(at + 1)).rev().find(|line| function_name(code[*line]).is_some());
    let Some(begin) = below.or_else(around) else {
        return (source.path.clone(), code.iter().any(|line| is_test_attribute(line)));
    };
    let above = code[..begin].iter().rev().take_while(|line| line.is_empty() || line.starts_with("#["));
    let name = function_name(code[begin]).unwrap_or_default();
    (format!("{}::{name}", source.path), above.into_iter().any(|line| is_test_attribute(line)))
}

fn is_test_attribute(line: &str) -> bool {
    line.starts_with("#[test]") || line.starts_with("#[tokio::test")
}

/// Whether the statement below a comment, or else the one around it, calls what makes a test.
fn is_script_test(source: &Source, at: usize) -> bool {
    let lines: Vec<&str> = source.text.lines().collect();
    let is_test = |line: &str| {
        let line = line.trim_start();
        ["test(", "it(", "withVectors("].iter().any(|begin| line.starts_with(begin))
    };
    let is_comment = |line: &str| ["//", "/*", "*", "#"].iter().any(|begin| line.trim_start().starts_with(begin));
    let below = lines.iter().skip(at + 1).find(|line| !line.trim().is_empty() && !is_comment(line));
    below.is_some_and(|line| is_test(line))
        || lines[at].starts_with(' ')
            && lines[..at].iter().rev().find(|line| !line.starts_with([' ', '}'])).is_some_and(|line| is_test(line))
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
        let coverage = coverage("io/x/tests/a.rs", "//! Proves: SY-1\n\nuse a::b;\n\n#[test]\nfn first() {}\n");
        assert_eq!(coverage.0.values().next().expect("one").tests, ["io/x/tests/a.rs"]);
    }

    #[test]
    fn what_is_no_test_proves_nothing() {
        let text = "\
// Proves: SY-1
fn helper() {
    // Proves: SY-2
}

// Proves: SY-3, SY-4
#[divan::bench]
fn measured() {} // Measures: SY-4

// Proves: SY-5
#[tokio::test(flavor = \"multi_thread\")]
// It has two threads.
async fn test() {}
";
        let rust = coverage("a.rs", text);
        let script =
            "// Proves: SY-1\ntest('it', () => {\n  // Proves: SY-2\n  a();\n});\n\n// Proves: SY-3\nfunction a() {}\n";
        let script = coverage("a.test.ts", script);
        let of = |coverage: &Coverage, wanted: &str| {
            names(
                &coverage
                    .unproven(&parse_requirements(wanted).expect("good lines"))
                    .iter()
                    .map(|it| it.id)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(of(&rust, "SY-1\nSY-2\nSY-3\nSY-4\nSY-5"), ["SY-1", "SY-2", "SY-3", "SY-4"]);
        assert_eq!(of(&rust, "SY-4 measured\nSY-5 measured"), ["SY-5"]);
        assert_eq!(of(&script, "SY-1\nSY-2\nSY-3"), ["SY-3"]);
        let required = parse_requirements("SY-1").expect("a good line");
        assert!(
            rust.report(&required, &required).contains("no test: a.rs::helper"),
            "{}",
            rust.report(&required, &required)
        );
    }

    #[test]
    fn a_check_names_what_no_test_proves() {
        let coverage = coverage("a.rs", "// Spec: SY-2\n// Proves: SY-1\n#[test]\nfn a() {}\n");
        let required = parse_requirements("# head\nSY-2\nSY-1 # why\n\nSY-3\nSY-1\n").expect("good lines");
        let missing = coverage.unproven(&required);
        assert_eq!(names(&missing.iter().map(|it| it.id).collect::<Vec<_>>()), ["SY-2", "SY-3"]);
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
