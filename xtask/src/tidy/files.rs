//! Names and sizes of files and modules.

use super::Problem;
use crate::source::Source;

/// Names that say nothing about what is inside.
const BANNED_MODULES: [&str; 7] = ["common", "helper", "helpers", "misc", "types", "util", "utils"];
/// Near 700 lines there is a second idea inside; at 900 it has to move out.
const LINES_MAX: usize = 900;

/// Checks one Rust file.
pub(super) fn check(source: &Source) -> Vec<Problem> {
    if !source.is_rust() {
        return Vec::new();
    }
    let mut problems = Vec::new();
    if let Some(name) = source.path.trim_end_matches(".rs").split('/').find(|part| BANNED_MODULES.contains(part)) {
        problems.push(Problem::whole(&source.path, format!("`{name}` says nothing: name it after what it holds")));
    }
    for (line, code) in source.code_lines() {
        let code = code.trim();
        let is_inline = code.ends_with('{');
        if let Some(name) = inline_module(code).filter(|name| is_inline && BANNED_MODULES.contains(name)) {
            problems.push(Problem::at(source, line, format!("`{name}` says nothing: name it after what it holds")));
        }
    }
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        problems
            .push(Problem::whole(&source.path, format!("{lines} lines: over {LINES_MAX}, move the second idea out")));
    }
    problems
}

/// The name in `pub(crate) mod NAME {`.
fn inline_module(code: &str) -> Option<&str> {
    let mut words = code.split_whitespace().skip_while(|word| word.starts_with("pub"));
    (words.next() == Some("mod")).then(|| words.next().unwrap_or_default().trim_end_matches('{'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> usize {
        check(&Source::new(path, text.to_owned())).len()
    }

    #[test]
    fn telling_names_are_fine() {
        assert_eq!(problems("core/wire/src/frame.rs", "pub(crate) mod header {\n}\nmod types_of_frames {\n}\n"), 0);
        assert_eq!(problems("spec/common.md", ""), 0);
        assert_eq!(problems("core/wire/src/frame.rs", &"\n".repeat(LINES_MAX)), 0);
    }

    #[test]
    fn empty_names_and_long_files_are_refused() {
        assert_eq!(problems("core/wire/src/utils.rs", ""), 1);
        assert_eq!(problems("io/store/tests/common/mod.rs", ""), 1);
        assert_eq!(problems("core/wire/src/frame.rs", "mod helpers {\n}\n"), 1);
        assert_eq!(problems("core/wire/src/frame.rs", "pub(crate) mod types {\n}\n"), 1);
        assert_eq!(problems("core/wire/src/frame.rs", &"\n".repeat(LINES_MAX + 1)), 1);
    }
}
