//! What may not stand in any file, and what must stand in each manifest.

use super::Problem;
use crate::source::Source;
use crate::workspace::Package;

/// Code that is not finished, or tests that do not run.
const UNFINISHED: [(&str, &str); 3] = [
    ("todo!(", "unfinished: write it, or do not declare it"),
    ("unimplemented!(", "unfinished: write it, or do not declare it"),
    ("#[ignore", "a test that does not run proves nothing: make it small, or delete it"),
];

/// Checks one file.
pub(super) fn check(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (line, code) in source.code_lines() {
        for (word, why) in UNFINISHED.iter().filter(|(word, _)| code.contains(word)) {
            problems.push(Problem::at(source, line, format!("{word}…: {why}")));
        }
    }
    for (at, text) in source.text.lines().enumerate() {
        if let Some(place) = outside(&source.path, text) {
            problems.push(Problem::at(source, at + 1, format!("{place} points out of the repository")));
        }
    }
    problems
}

/// Checks that every package takes the lints of the workspace.
pub(super) fn check_lints(packages: &[Package], files: &[Source]) -> Vec<Problem> {
    let manifest = |package: &Package| format!("{}/Cargo.toml", package.folder);
    let lints = |path: &str| files.iter().any(|file| file.path == path && inherits_lints(&file.text));
    let bare = packages.iter().map(manifest).filter(|path| !lints(path));
    bare.map(|path| Problem::whole(&path, "lacks `[lints] workspace = true`")).collect()
}

fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(|line| line.split('#').next().unwrap_or_default().replace(' ', ""));
    let in_section = lines.by_ref().any(|line| line == "[lints]");
    in_section && lines.take_while(|line| !line.starts_with('[')).any(|line| line == "workspace=true")
}

/// The place that this line of the file at `path` names outside of the repository.
///
/// Paths are followed where something opens them: `path = "…"` in manifests, `include…!("…")`, links in Markdown.
/// Elsewhere climbing paths are often the subject, as in tests of names that escape.
fn outside(path: &str, line: &str) -> Option<String> {
    // Written in two pieces: this file is checked too.
    for forbidden in [concat!("../", "shared"), concat!("/work", "/")] {
        if let Some(at) = line.find(forbidden) {
            return Some(line[at..].split([' ', '"', ')', '`']).next().unwrap_or(forbidden).to_owned());
        }
    }
    let opened: &[&str] = match path.rsplit('.').next()? {
        "toml" => &["path = \""],
        "rs" => &["include_str!(\"", "include_bytes!(\"", "include!(\"", "#[path = \""],
        "md" => &["]("],
        _ => return None,
    };
    let depth = path.matches('/').count();
    let targets = opened.iter().flat_map(|open| line.match_indices(open).map(|(at, _)| &line[at + open.len()..]));
    let mut targets = targets.map(|rest| rest.split(['"', ')', '#']).next().unwrap_or_default());
    targets.find(|target| climbs_out(depth, target)).map(str::to_owned)
}

/// Whether a relative path leaves the root when followed from a folder that lies `depth` below it.
fn climbs_out(depth: usize, target: &str) -> bool {
    let mut depth = depth as i64;
    target.split('/').any(|part| {
        depth += match part {
            ".." => -1,
            "" | "." => 0,
            _ => 1,
        };
        depth < 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> usize {
        check(&Source::new(path, text.to_owned())).len()
    }

    #[test]
    fn finished_code_is_fine() {
        assert_eq!(problems("a.rs", "// todo!() was here\nlet a = \"unimplemented!(\"; // #[ignore]\n"), 0);
        assert_eq!(problems("fuzz/Cargo.toml", "wire = { path = \"../core/wire\" }\n"), 0);
        assert_eq!(problems("core/wire/src/a.rs", "include_str!(\"../../../vectors/a.json\")\n"), 0);
        assert_eq!(problems("core/wire/src/a.rs", "let escape = \"../../../../../etc/passwd\";\n"), 0);
        assert_eq!(problems("spec/link.md", "[wire](../core/wire/src/lib.rs#L3) and [site](https://a.b/c)\n"), 0);
    }

    #[test]
    fn unfinished_code_is_refused() {
        for (word, _) in UNFINISHED {
            assert_eq!(problems("a.rs", &format!("{word} \"\")]\n")), 1, "{word}");
        }
    }

    #[test]
    fn places_outside_are_refused() {
        assert_eq!(problems("spec/link.md", concat!("see ../", "shared/DESIGN.md\n")), 1);
        assert_eq!(problems("a.sh", concat!("cat /work", "/notes\n")), 1);
        assert_eq!(problems("core/wire/Cargo.toml", "other = { path = \"../../../other\" }\n"), 1);
        assert_eq!(problems("core/wire/src/a.rs", "include_bytes!(\"../../../../a\")\n"), 1);
        assert_eq!(problems("spec/link.md", "[x](../../x.md)\n"), 1);
    }

    #[test]
    fn every_package_takes_the_lints() {
        let package = Package { name: "sealtide-wire".into(), folder: "core/wire".into(), dependencies: Vec::new() };
        let checked = |text: &str| {
            let file = Source::new("core/wire/Cargo.toml", text.to_owned());
            check_lints(std::slice::from_ref(&package), &[file]).is_empty()
        };
        assert!(checked("[package]\n\n[lints]\nworkspace = true\n"));
        assert!(!checked("[package]\nworkspace = true\n"));
        assert!(!checked("[lints]\n[dependencies]\nworkspace = true\n"));
        assert!(!checked("[lints]\n# workspace = true\n"));
    }
}
