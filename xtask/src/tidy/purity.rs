//! A core takes facts and gives wishes: no clock, disk, net, environment, thread, async or hash order in its sources.

use super::Problem;
use crate::source::{Source, test_modules};

/// Whole paths or words that may not stand in code, and what to take instead.
const BANNED: [(&str, &str); 19] = [
    ("std::fs", "files belong to io/"),
    ("std::net", "sockets belong to io/; only SocketAddr and the IpAddr types are plain data"),
    ("std::thread", "threads belong to io/ and node"),
    ("std::env", "settings arrive as arguments"),
    ("std::process", "processes belong to node"),
    ("std::time::Instant", "time arrives as Now"),
    ("std::time::SystemTime", "time arrives as Now"),
    ("Instant", "time arrives as Now"),
    ("SystemTime", "time arrives as Now"),
    ("tokio", "runtimes belong to io/ and node"),
    ("async fn", "a core does not wait"),
    ("async move", "a core does not wait"),
    (".await", "a core does not wait"),
    ("HashMap", "hash order differs from run to run; take BTreeMap"),
    ("HashSet", "hash order differs from run to run; take BTreeSet"),
    ("thread_local!", "no globals"),
    ("static mut", "no globals"),
    ("std::io::stdin", "input arrives as arguments"),
    ("getrandom", "chance arrives as &mut dyn Entropy"),
];
/// What of `std::net` is plain data.
const NET_DATA: [&str; 8] =
    ["AddrParseError", "IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6", "self"];

/// Checks the sources of the cores outside of `#[cfg(test)]`.
pub(super) fn check(files: &[Source]) -> Vec<Problem> {
    let test_modules = test_modules(files);
    let is_test = |path: &str| {
        let rest =
            |module: &String| path.strip_prefix(module.as_str()).is_some_and(|rest| rest.starts_with(['.', '/']));
        test_modules.iter().any(rest)
    };
    let cores = files.iter().filter(|file| is_core_source(&file.path) && file.is_rust() && !is_test(&file.path));
    cores.flat_map(check_core).collect()
}

fn check_core(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (line, code) in source.shipped_lines() {
        let found = BANNED.iter().filter(|(word, _)| contains_word(code, word));
        let found = found.filter(|(word, _)| *word != "std::net" || !is_net_data(source, line));
        // One problem per line is enough: `std::time::Instant` is three entries of the table.
        if let Some((word, why)) = found.max_by_key(|(word, _)| word.len()) {
            problems.push(Problem::at(source, line, format!("{} in a core: {why}", word)));
        }
        if ["fs", "env", "thread", "process"].iter().any(|module| imports_from_std(source, line, module)) {
            problems.push(Problem::at(source, line, "a core imports disk, environment or threads from std"));
        }
    }
    problems
}

/// `core/<name>/src/…`
fn is_core_source(path: &str) -> bool {
    let mut parts = path.split('/');
    parts.next() == Some("core") && parts.nth(1) == Some("src")
}

/// Whether `word` stands in `code` and is not a part of a longer name.
fn contains_word(code: &str, word: &str) -> bool {
    let is_name = |char: char| char.is_alphanumeric() || char == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let starts_name = word.starts_with(is_name);
        let ends_name = word.ends_with(is_name);
        let goes_on = starts_name && before.is_some_and(is_name) || ends_name && after.is_some_and(is_name);
        !goes_on
    })
}

/// Whether all that follows `std::net::` on this line (or, in a list, up to its brace) is plain data.
fn is_net_data(source: &Source, line: usize) -> bool {
    let (from, first) = statement(source, line);
    from.match_indices("std::net").filter(|(at, _)| *at < first).all(|(at, word)| {
        let Some(rest) = from[at + word.len()..].strip_prefix("::") else { return false };
        match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default().split(',').all(|name| is_data_name(name.trim())),
            None => {
                let end = rest.find(|char: char| !char.is_alphanumeric() && char != '_').unwrap_or(rest.len());
                is_data_name(&rest[..end])
            }
        }
    })
}

/// This line with the ones after it, enough for a list of imports, and the length of the line itself.
fn statement(source: &Source, line: usize) -> (String, usize) {
    let mut lines = source.code.lines().skip(line - 1);
    let first = lines.next().unwrap_or_default();
    let rest: String = lines.take(20).flat_map(|line| [" ", line]).collect();
    (format!("{first}{rest}"), first.len())
}

fn is_data_name(name: &str) -> bool {
    let name = name.split_whitespace().next().unwrap_or_default();
    name.is_empty() || NET_DATA.contains(&name)
}

/// `use std::{fs, io};`
fn imports_from_std(source: &Source, line: usize, module: &str) -> bool {
    let (from, first) = statement(source, line);
    let list = from.split_once("use std::{").filter(|(before, _)| before.len() < first);
    let Some((_, list)) = list else { return false };
    let mut names = list.split(';').next().unwrap_or_default().split([',', '{', '}']).map(str::trim);
    names.any(|name| name == module || name.strip_prefix(module).is_some_and(|rest| rest.starts_with("::")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> usize {
        check(&[Source::new(path, text.to_owned())]).len()
    }

    #[test]
    fn pure_code_is_fine() {
        let text = "\
//! Reads no std::fs, no HashMap.
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::net::{
    Ipv6Addr,
    SocketAddrV6,
};
fn a(at: std::net::SocketAddr) -> &'static str { \"std::env\" }
struct InstantNoodles;
#[cfg(test)]
mod tests {
    use std::env;
    use std::collections::HashMap;
}
";
        assert_eq!(problems("core/wire/src/a.rs", text), 0);
    }

    #[test]
    fn files_of_test_modules_may_read_vectors() {
        let parent = |test: &str| Source::new("core/wire/src/lib.rs", format!("{test}\nmod vectors;\n"));
        let child = || Source::new("core/wire/src/vectors.rs", "fn a() { std::fs::read(\"\") }\n".to_owned());
        assert_eq!(check(&[parent("#[cfg(test)]"), child()]).len(), 0);
        assert_eq!(check(&[parent(""), child()]).len(), 1);
    }

    #[test]
    fn every_banned_word_is_refused() {
        for (word, _) in BANNED {
            let text = format!("fn a() {{ {word} }}\n");
            assert_eq!(problems("core/wire/src/deep/a.rs", &text), 1, "{word}");
            assert_eq!(problems("core/wire/tests/a.rs", &text), 0, "{word}");
            assert_eq!(problems("io/link/src/a.rs", &text), 0, "{word}");
        }
    }

    #[test]
    fn sockets_are_refused_however_they_are_named() {
        assert_eq!(problems("core/wire/src/a.rs", "use std::net::TcpStream;\n"), 1);
        assert_eq!(problems("core/wire/src/a.rs", "use std::net::{IpAddr, UdpSocket};\n"), 1);
        assert_eq!(problems("core/wire/src/a.rs", "use std::net::{\n  IpAddr,\n  UdpSocket,\n};\n"), 1);
        assert_eq!(problems("core/wire/src/a.rs", "use std::net;\n"), 1);
    }

    #[test]
    fn lists_of_imports_are_looked_into() {
        assert_eq!(problems("core/wire/src/a.rs", "use std::{fs, io};\n"), 1);
        assert_eq!(problems("core/wire/src/a.rs", "use std::{collections::BTreeMap, env};\n"), 1);
        assert_eq!(problems("core/wire/src/a.rs", "use std::{\n    fmt,\n    thread,\n};\n"), 1);
        assert_eq!(problems("core/wire/src/a.rs", "use std::{fmt, io};\nuse crate::fs;\n"), 0);
    }
}
