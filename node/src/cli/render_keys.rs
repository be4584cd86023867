//! Keys and bumps as text for people.

use serde_json::Value;

use crate::cli::render::{rows, table, word};

pub(super) fn status(answer: &Value) -> String {
    let back = match (answer["previous"].as_str(), answer["forced"].as_bool()) {
        (_, Some(true)) => ", forced: there is no way back".to_owned(),
        (Some(previous), _) => format!(", after {previous}"),
        (None, _) => String::new(),
    };
    let last = answer["last_signature"].as_str().unwrap_or("none yet");
    format!(
        "{} signs since {} (epoch {}{back}); last bump by {last}\n{}",
        word(&answer["active"]),
        word(&answer["since"]),
        answer["epoch"],
        table(&answer["versions"], &["version", "state", "source", "not_after"])
    )
}

pub(super) fn change(answer: &Value) -> String {
    match (answer["change"].as_str(), answer["changed"].as_bool()) {
        (Some("new"), _) => {
            format!("made {}; `sealtide keys rotate` lets it sign", word(&answer["version"]))
        }
        (_, Some(false)) => format!("{} signs already; nothing changed", word(&answer["to"])),
        _ if answer["from"] == answer["to"] => {
            format!("done; {} signs (epoch {})", word(&answer["to"]), answer["epoch"])
        }
        _ => {
            let made = answer["made"].as_str().map_or_else(String::new, |version| format!("made {version}\n"));
            let (to, from) = (word(&answer["to"]), word(&answer["from"]));
            format!("{made}{to} signs now, after {from} (epoch {})", answer["epoch"])
        }
    }
}

pub(super) fn preview(answer: &Value) -> String {
    let states = answer["states"].as_object().into_iter().flatten();
    let states: Vec<String> = states.map(|(version, state)| format!("{version} becomes {}", word(state))).collect();
    match answer["would_change"].as_bool() {
        Some(false) => "nothing would change".to_owned(),
        Some(true) => {
            let made = answer["would_make"].as_str().map_or_else(String::new, |version| format!("make {version} and "));
            format!("would {made}{}: {} (epoch {} now)", word(&answer["change"]), states.join(", "), answer["epoch"])
        }
        None => format!("would {} (epoch {} now)", word(&answer["change"]), answer["epoch"]),
    }
}

pub(super) fn bump(answer: &Value) -> String {
    let changes = rows(&answer["changes"], |change| {
        format!("{}: {} → {}", word(&change["entity"]), word(&change["from"]), word(&change["to"]))
    });
    let files = rows(&answer["files"], |file| format!("\n{}: {} places", word(&file["path"]), file["places"]));
    let transaction =
        answer["transaction"].as_str().map(|id| format!("; `sealtide release revert {id}` takes it back"));
    match answer["dry_run"].as_bool() {
        Some(true) => format!("{changes}{files}\nnothing was changed"),
        _ => format!(
            "{changes}{files}\nrevision {}, signed by {}{}",
            answer["revision"],
            word(&answer["key_version"]),
            transaction.unwrap_or_default()
        ),
    }
}
