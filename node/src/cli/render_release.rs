//! Releases as text for people.

use serde_json::Value;

use crate::cli::render::{count, rows, table, word};

pub(super) fn published(answer: &Value) -> String {
    let copy =
        |name: &str, what: &str| answer[name].as_str().map(|path| format!("\n{what}: {path}")).unwrap_or_default();
    format!(
        "{} {} is out in channel {} (release {}, signed by {}): {}, {} bytes, {} as a bundle\nspace {}: `sealtide ticket new --space {} --role read` lets others follow{}{}",
        word(&answer["app"]),
        word(&answer["version"]),
        word(&answer["channel"]),
        answer["seq"],
        word(&answer["key_version"]),
        count(&answer["files"], "file"),
        answer["bytes"],
        answer["payload_bytes"],
        word(&answer["space"]),
        word(&answer["space"]),
        copy("out", "bundle"),
        copy("trust_out", "trust file"),
    )
}

pub(super) fn installed(answer: &Value) -> String {
    let what = format!("{} {} ({})", word(&answer["app"]), word(&answer["version"]), word(&answer["channel"]));
    if answer["changed"] == false {
        return format!("{what} stands in {} already", word(&answer["dir"]));
    }
    let previous = answer["previous"].as_str().map(|dir| format!("; before it: {dir}")).unwrap_or_default();
    let trust = match answer["trust"].as_str() {
        Some("known") | None => String::new(),
        Some(trust) => {
            format!("\n{trust}: from now on only releases signed by these keys, or by those they name, are taken")
        }
    };
    let fresh = match answer["fresh_until"].as_str() {
        Some(_) => String::new(),
        None => "\nauthentic; a file does not say whether it is the newest".to_owned(),
    };
    format!("installed {what} in {}{previous}{trust}{fresh}", word(&answer["dir"]))
}

pub(super) fn refused(answer: &Value) -> String {
    let hint = answer["error"]["hint"].as_str().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    format!("refused: {}{hint}", word(&answer["error"]["message"]))
}

pub(super) fn verified(answer: &Value) -> String {
    let over = match (answer["expired"] == true, answer["expires"].as_str()) {
        (true, Some(end)) => format!("\nit expired at {end}: `install` refuses it"),
        (false, Some(end)) => format!("\nit expires at {end}"),
        _ => String::new(),
    };
    format!(
        "{} {} ({}, release {}): authentic, signed by {}, {}; freshness not checked{over}",
        word(&answer["app"]),
        word(&answer["version"]),
        word(&answer["channel"]),
        answer["seq"],
        word(&answer["key_version"]),
        count(&answer["files"], "file")
    )
}

pub(super) fn list(answer: &Value) -> String {
    let channels =
        table(&answer["channels"], &["app", "channel", "version", "seq", "issued", "fresh", "tier", "own", "space"]);
    match answer["installed"].as_array() {
        Some(installed) if !installed.is_empty() => {
            format!("{channels}\n{}", table(&answer["installed"], &["app", "channel", "version", "seq", "dir"]))
        }
        _ => channels,
    }
}

pub(super) fn show(answer: &Value) -> String {
    let mut columns = vec![
        "channel",
        "version",
        "seq",
        "key_version",
        "created",
        "expires",
        "minimum_version",
        "files",
        "bytes",
        "here",
        "tier",
        "yanked",
        "verified",
    ];
    // What hardly any release has takes no room where none has it.
    let is_said =
        |name: &str| answer["releases"].as_array().is_some_and(|rows| rows.iter().any(|row| !row[name].is_null()));
    columns.retain(|name| !matches!(*name, "expires" | "minimum_version") || is_said(name));
    let files = answer["releases"].as_array().into_iter().flatten().filter_map(|release| release.get("list"));
    let files = files
        .map(|list| rows(list, |file| format!("{} {:>12} {}", word(&file["mode"]), file["size"], word(&file["path"]))));
    let files: Vec<String> = files.collect();
    let table = table(&answer["releases"], &columns);
    if files.is_empty() { table } else { format!("{table}\n{}", files.join("\n")) }
}

pub(super) fn registry(answer: &Value) -> String {
    if answer["writer"].is_null() {
        return "no registry here yet: `sealtide gateway run` or `sealtide release bump` makes one".to_owned();
    }
    let writer = match (answer["own"] == true, answer["writer_name"].as_str()) {
        (true, _) => "this node".to_owned(),
        (false, Some(name)) => name.to_owned(),
        (false, None) => word(&answer["writer"]),
    };
    let space = match answer["space"].as_str() {
        Some(space) => format!(
            "\nshared in space {space}: `sealtide ticket new --space {space} --role write` lets a node read it and pass bumps on"
        ),
        None => String::new(),
    };
    let forked = match answer["forked"].as_u64() {
        Some(revision) => format!("\nits writer signed two revisions after {revision}: neither is taken"),
        None => String::new(),
    };
    format!("revision {}, written by {writer}{space}{forked}", answer["revision"])
}
