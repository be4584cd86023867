//! The chores of this repository, run as `cargo xtask …`.
//!
//! * `tidy`: the rules of the house that no compiler checks;
//! * `spec`: which requirement has code, and which has a test;
//! * `slowest`: the summary at the end of a test run.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a chore talks to the person who runs it")]

mod slowest;
mod source;
mod spec;
mod tidy;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use workspace::Workspace;

const USAGE: &str = "\
cargo xtask tidy                                 check the rules of the house
cargo xtask spec                                 table: requirement, code, tests
cargo xtask spec --check FILE [--warn-only]      tell which requirements of FILE no test proves; fail if there are any
cargo xtask slowest [--junit FILE] [--log FILE]  how many tests passed, and which ten were slowest
                                                 (--log: output of `cargo test`, may be given more than once)";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}

/// Runs one chore. `Ok(false)` when it found something wrong, `Err` when it could not run.
fn run(words: &[String]) -> Result<bool, String> {
    let (chore, options) = words.split_first().ok_or_else(|| format!("which chore?\n{USAGE}"))?;
    let mut options = Options::parse(options)?;
    match chore.as_str() {
        "tidy" => {
            options.only(&[])?;
            run_tidy()
        }
        "spec" => {
            options.only(&["--check", "--warn-only"])?;
            run_spec(&mut options)
        }
        "slowest" => {
            options.only(&["--junit", "--log"])?;
            run_slowest(&mut options)
        }
        other => Err(format!("there is no chore {other}\n{USAGE}")),
    }
}

fn run_tidy() -> Result<bool, String> {
    let workspace = Workspace::load()?;
    let problems = tidy::check(&workspace);
    for problem in &problems {
        eprintln!("{problem}");
    }
    let (packages, files) = (workspace.packages.len(), workspace.files.len());
    println!("tidy: {} problems in {packages} packages, {files} files", problems.len());
    Ok(problems.is_empty())
}

fn run_spec(options: &mut Options) -> Result<bool, String> {
    let workspace = Workspace::load()?;
    let coverage = spec::Coverage::collect(&workspace.files);
    let Some(file) = options.take("--check") else {
        print!("{}", coverage.table());
        return Ok(true);
    };
    let listed = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
    let required = spec::parse_requirements(&listed).map_err(|error| format!("{file}: {error}"))?;
    let missing = coverage.unproven(&required);
    print!("{}", coverage.report(&required, &missing));
    Ok(missing.is_empty() || options.has("--warn-only"))
}

fn run_slowest(options: &mut Options) -> Result<bool, String> {
    let junit = options.take("--junit");
    let mut logs = Vec::new();
    while let Some(log) = options.take("--log") {
        logs.push(read(&log)?);
    }
    let junit = junit.map(|file| read(&file)).transpose()?;
    let summary = slowest::Summary::collect(junit.as_deref(), &logs);
    print!("{summary}");
    Ok(summary.failed == 0)
}

fn read(file: &str) -> Result<String, String> {
    std::fs::read_to_string(PathBuf::from(file)).map_err(|error| format!("{file}: {error}"))
}

/// The options of a chore: `--name` or `--name VALUE`.
struct Options(Vec<(String, Option<String>)>);

impl Options {
    fn parse(words: &[String]) -> Result<Self, String> {
        let mut options: Vec<(String, Option<String>)> = Vec::new();
        for word in words {
            match options.last_mut() {
                _ if word.starts_with("--") => options.push((word.clone(), None)),
                Some((_, value @ None)) => *value = Some(word.clone()),
                _ => return Err(format!("{word} belongs to no option\n{USAGE}")),
            }
        }
        Ok(Self(options))
    }

    fn only(&self, names: &[&str]) -> Result<(), String> {
        match self.0.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            Some((name, _)) => Err(format!("there is no option {name}\n{USAGE}")),
            None => Ok(()),
        }
    }

    /// Takes the value of the first option of this name.
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(this, value)| this == name && value.is_some())?;
        self.0.remove(at).1
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(this, _)| this == name)
    }
}
