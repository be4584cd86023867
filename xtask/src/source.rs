//! One file, split into what the compiler reads and what people read.
//!
//! Rules about code must not stumble over comments and string literals (this crate names every forbidden thing in
//! literals), and requirement ids are looked for in comments only. So a Rust file is cut once, by a small scanner that
//! knows comments, strings, raw strings, characters and lifetimes, into two texts of the same lines.

/// A text file of the repository.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments and the inside of literals blanked out; empty for files that are not Rust.
    pub(crate) code: String,
    /// Of each line, the comment on it without its marker; same count of lines as the text.
    pub(crate) comments: Vec<String>,
    /// Lines (from 0) that belong to an item under `#[cfg(test)]`.
    test_lines: Vec<bool>,
}

impl Source {
    /// Cuts a file. Only `*.rs` has code; in other languages a line that starts with `//` or `#` is a comment.
    pub(crate) fn new(path: &str, text: String) -> Self {
        let (code, comments) = if path.ends_with(".rs") { cut(&text) } else { (String::new(), plain_comments(&text)) };
        let test_lines = mark_tests(&code);
        Self { path: path.to_owned(), text, code, comments, test_lines }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Lines of code, numbered from 1.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(at, line)| (at + 1, line))
    }

    /// Lines of code outside of `#[cfg(test)]`, numbered from 1.
    pub(crate) fn shipped_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code_lines().filter(|(line, _)| !self.test_lines.get(line - 1).copied().unwrap_or(false))
    }
}

/// The files of modules that are declared as `#[cfg(test)] mod NAME;`, as path prefixes without `.rs`.
pub(crate) fn test_modules(files: &[Source]) -> Vec<String> {
    let mut modules = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let folder = match name {
            "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
            name => format!("{folder}/{}", name.trim_end_matches(".rs")),
        };
        let tests = file.code_lines().filter(|(line, _)| file.test_lines.get(line - 1) == Some(&true));
        let names =
            tests.filter_map(|(_, code)| code.trim().strip_suffix(';')?.split_once("mod ").map(|(_, name)| name));
        modules.extend(names.map(|name| format!("{folder}/{}", name.trim())));
    }
    modules
}

/// What the scanner is inside of.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Code,
    LineComment,
    BlockComment { depth: usize },
    Text,
    RawText { hashes: usize },
}

/// Code with comments and literals blanked, and the comments by line.
fn cut(text: &str) -> (String, Vec<String>) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut comments, mut inside, mut at) = (String::new(), vec![String::new()], Inside::Code, 0);
    while at < chars.len() {
        let (char, rest) = (chars[at], &chars[at..]);
        if char == '\n' {
            code.push('\n');
            comments.push(String::new());
            inside = if inside == Inside::LineComment { Inside::Code } else { inside };
            at += 1;
            continue;
        }
        let mut taken = 1;
        match inside {
            Inside::Code => match begin(rest, at.checked_sub(1).map(|before| chars[before])) {
                Some((next, length)) => {
                    // Quotes stay, so that code still reads as code.
                    let keeps_quote = matches!(next, Inside::Text | Inside::RawText { .. });
                    code.extend(rest[..length].iter().map(|char| if keeps_quote { *char } else { ' ' }));
                    (inside, taken) = (next, length);
                }
                None => {
                    let length = char_literal(rest).unwrap_or(1);
                    let blank = |place: usize| length > 1 && place != 0 && place != length - 1;
                    code.extend(rest[..length].iter().enumerate().map(|(i, c)| if blank(i) { ' ' } else { *c }));
                    taken = length;
                }
            },
            Inside::LineComment => {
                code.push(' ');
                comments.last_mut().expect("has one from the start").push(char);
            }
            Inside::BlockComment { depth } => {
                if rest.starts_with(&['*', '/']) {
                    inside = if depth == 1 { Inside::Code } else { Inside::BlockComment { depth: depth - 1 } };
                    taken = 2;
                } else if rest.starts_with(&['/', '*']) {
                    inside = Inside::BlockComment { depth: depth + 1 };
                    taken = 2;
                } else {
                    comments.last_mut().expect("has one from the start").push(char);
                }
                code.extend(std::iter::repeat_n(' ', taken));
            }
            Inside::Text if char == '\\' && rest.len() > 1 && rest[1] != '\n' => {
                code.push_str("  ");
                taken = 2;
            }
            Inside::Text if char == '"' => {
                code.push('"');
                inside = Inside::Code;
            }
            Inside::RawText { hashes }
                if char == '"' && rest[1..].iter().take_while(|c| **c == '#').count() >= hashes =>
            {
                taken = 1 + hashes;
                code.extend(&rest[..taken]);
                inside = Inside::Code;
            }
            Inside::Text | Inside::RawText { .. } => code.push(' '),
        }
        at += taken;
    }
    if text.ends_with('\n') {
        comments.pop();
    }
    for comment in &mut comments {
        *comment = comment.trim_start_matches(['/', '!', '*']).trim().to_owned();
    }
    (code, comments)
}

/// The comment or literal that begins here, and the length of its opening.
fn begin(rest: &[char], before: Option<char>) -> Option<(Inside, usize)> {
    if rest.starts_with(&['/', '/']) {
        return Some((Inside::LineComment, 2));
    }
    if rest.starts_with(&['/', '*']) {
        return Some((Inside::BlockComment { depth: 1 }, 2));
    }
    if rest[0] == '"' {
        return Some((Inside::Text, 1));
    }
    // r"…", r#"…"#, br"…": the r must not be the end of a word, and r#name is an identifier.
    let in_word = before.is_some_and(|char| char.is_alphanumeric() || char == '_') && before != Some('b');
    if rest[0] == 'r' && !in_word {
        let hashes = rest[1..].iter().take_while(|char| **char == '#').count();
        return (rest.get(1 + hashes) == Some(&'"')).then_some((Inside::RawText { hashes }, 2 + hashes));
    }
    None
}

/// The length of the character literal that begins here, quotes included; `None` for a lifetime.
fn char_literal(rest: &[char]) -> Option<usize> {
    if rest.first() != Some(&'\'') {
        return None;
    }
    if rest.get(1) == Some(&'\\') {
        // '\'' and '\\' first, then '\n', '\x7f', '\u{1f600}'.
        return rest.iter().skip(3).take(10).position(|char| *char == '\'').map(|end| end + 4);
    }
    (rest.get(2) == Some(&'\'')).then_some(3)
}

/// Comments of languages without a scanner here: only whole lines count.
fn plain_comments(text: &str) -> Vec<String> {
    let comment = |line: &str| {
        let line = line.trim_start();
        let rest = line.strip_prefix("//").or_else(|| line.strip_prefix('#'));
        rest.map(|rest| rest.trim().to_owned()).unwrap_or_default()
    };
    text.lines().map(comment).collect()
}

/// Which lines belong to an item under `#[cfg(test)]`: from the attribute to the closing brace or semicolon.
fn mark_tests(code: &str) -> Vec<bool> {
    let lines: Vec<&str> = code.lines().collect();
    let mut marks = vec![false; lines.len()];
    let mut at = 0;
    while at < lines.len() {
        if !lines[at].trim_start().starts_with("#[cfg(test)]") {
            at += 1;
            continue;
        }
        let (mut depth, mut opened) = (0i64, false);
        while at < lines.len() {
            marks[at] = true;
            let line = lines[at].trim_start().trim_start_matches("#[cfg(test)]");
            depth += line.matches('{').count() as i64 - line.matches('}').count() as i64;
            opened |= line.contains('{');
            at += 1;
            if (opened && depth <= 0) || (!opened && line.trim_end().ends_with(';')) {
                break;
            }
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let source = Source::new("a.rs", "let a = \"std::fs\"; // std::net\n/* std::env\n */ let b = 'x';\n".into());
        let code: Vec<&str> = source.code.lines().map(str::trim).collect();
        assert_eq!(code, ["let a = \"       \";", "", "let b = ' ';"]);
        assert_eq!(source.code.chars().count(), source.text.chars().count(), "columns stay");
        assert_eq!(source.comments, ["std::net", "std::env", ""]);
    }

    #[test]
    fn raw_strings_escapes_and_lifetimes() {
        let text = "r#\"a \" std::fs\"# 'a: &'static \"\\\"std::fs\" br\"std::fs\" '\\'' '\\\\' '\"' r#type code";
        let source = Source::new("a.rs", text.into());
        assert!(!source.code.contains("std::fs"), "{}", source.code);
        assert!(source.code.ends_with("r#type code"), "{}", source.code);
        assert!(source.code.contains("'a: &'static"), "{}", source.code);
    }

    #[test]
    fn block_comments_nest() {
        let source = Source::new("a.rs", "/* a /* b */ c */ code".into());
        assert_eq!(source.code.trim(), "code");
    }

    #[test]
    fn files_of_test_modules_are_known() {
        let parent = |path: &str| Source::new(path, "mod shipped;\n#[cfg(test)]\nmod vectors;\n".into());
        let files = [parent("core/a/src/lib.rs"), parent("core/a/src/deep/mod.rs"), parent("core/a/src/flat.rs")];
        assert_eq!(test_modules(&files), ["core/a/src/vectors", "core/a/src/deep/vectors", "core/a/src/flat/vectors"]);
    }

    #[test]
    fn items_under_cfg_test_are_not_shipped() {
        let text =
            "fn a() {}\n#[cfg(test)]\nuse std::fs;\nfn b() {}\n#[cfg(test)]\nmod tests {\n  fn c() { }\n}\nfn d() {}\n";
        let source = Source::new("a.rs", text.into());
        let shipped: Vec<usize> = source.shipped_lines().map(|(line, _)| line).collect();
        assert_eq!(shipped, [1, 4, 9]);
    }
}
