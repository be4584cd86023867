//! Keystones as text.

use serde_json::Value;

use crate::cli::render::{rows, short, size, word};

/// The own owner and device, and those of peers.
pub(crate) fn identity(answer: &Value) -> String {
    let mut text = format!("node {}\n", word(&answer["node"]));
    if let Some(doubt) = answer["doubt"]["text"].as_str() {
        text += &format!("nothing is signed: {doubt}\n");
    }
    for role in ["owner", "device"] {
        text += &match &answer[role] {
            Value::Null if role == "owner" && answer["speaks_for"].is_string() => {
                format!("\nowner: {}, for whom this device speaks\n", word(&answer["speaks_for"]))
            }
            Value::Null => format!("\n{role}: none; `sealtide identity new` makes one\n"),
            shown => format!("\n{}\n", keystone(shown)),
        };
    }
    for peer in answer["peers"].as_array().into_iter().flatten() {
        let name =
            peer["name"].as_str().filter(|name| !name.is_empty()).map_or_else(|| short(&peer["node"]), str::to_owned);
        text += &format!("\npeer {name}\n");
        for role in ["owner", "device"] {
            let shown = &peer[role];
            if !shown.is_null() {
                text += &format!("  {role} {}  {}  frame {}\n", word(&shown["keystone"]), state(shown), shown["n"]);
            }
        }
        if !peer["owner"].is_null() && peer["speaks_for_owner"] == false {
            text += "  does not speak for its owner\n";
        }
    }
    text
}

/// One keystone.
pub(crate) fn keystone(shown: &Value) -> String {
    let mut text = format!(
        "{} {}\n  {}  key {}  frame {} of {}  {}\n",
        word(&shown["class"]),
        word(&shown["keystone"]),
        state(shown),
        word(&shown["kid"]).get(..8).unwrap_or_default(),
        shown["n"],
        word(&shown["evolved"]),
        size(shown["bytes"].as_u64().unwrap_or(0)),
    );
    let pool = |pool: &Value| format!("{} {}", word(&pool["id"]), pool["size"]);
    text += &format!("  pools {}", rows(&shown["pools"], pool).replace('\n', ", "));
    for row in shown["delegations"].as_array().into_iter().flatten() {
        let who = if row["this_node"] == true { "this node".to_owned() } else { holder(row) };
        let verbs = rows(&row["verbs"], word).replace('\n', ", ");
        text += &format!("\n  {who} may {verbs} until {}", word(&row["until"]));
    }
    for (member, what) in [("voided", "voided, never counts"), ("undecided", "of a fork, not decided")] {
        for frame in shown[member].as_array().into_iter().flatten() {
            text += &format!("\n  frame {} {what}", word(frame));
        }
    }
    text
}

/// What has the device keystone of a row.
pub(crate) fn holder(row: &Value) -> String {
    if row["node"].is_string() { format!("node {}", short(&row["node"])) } else { word(&row["device"]) }
}

/// An owner that came back, and what else still speaks for it.
pub(crate) fn recovered(answer: &Value) -> String {
    let mut text = format!("owner {} is back, with new keys; this device speaks for it", word(&answer["owner"]));
    for row in answer["others"].as_array().into_iter().flatten() {
        let (who, until) = (holder(row), word(&row["until"]));
        let named = if row["node"].is_string() { word(&row["node"]) } else { format!("'{}'", word(&row["device"])) };
        text +=
            &format!("\n{who} speaks for it too, until {until}; if it is lost: sealtide identity undelegate {named}");
    }
    text
}

fn state(shown: &Value) -> String {
    word(&shown["state"]).replace('_', " ")
}
