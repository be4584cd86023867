//! Answers as text for people, made from the JSON documents by their `schema`.

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::cli::{render_identity, render_keys, render_release};

/// The text of an answer.
pub(crate) fn text(answer: &Value) -> String {
    let schema = answer["schema"].as_str().unwrap_or_default();
    match schema.split('/').nth(1).unwrap_or_default() {
        "status" => status(answer),
        "ready" => ready(answer),
        "share" => rows(&answer["shared"], |row| format!("{} is shared as {}", word(&row["dir"]), word(&row["name"]))),
        "ticket" if answer["device"] == true => format!(
            "{}\nfor a device of yours, into {}, once and until {}{}: `sealtide join --device` there; treat it like a password",
            word(&answer["ticket"]),
            rows(&answer["spaces"], word).replace('\n', ", "),
            word(&answer["expires"]),
            if answer["owner"].is_string() { "; the owner delegates it" } else { "" },
        ),
        "ticket" => format!(
            "{}\n{} for {} until {}; treat it like a password",
            word(&answer["ticket"]),
            word(&answer["role"]),
            count(&answer["uses"], "use"),
            word(&answer["expires"])
        ),
        "tickets" => table(&answer["tickets"], &["id", "space", "role", "state", "uses_left", "expires"]),
        "peers" => table(&answer["peers"], &["name", "node", "connected", "revoked", "last_seen"]),
        "peer" => peer(answer),
        "peer_revoke" => revoked(answer),
        "identity" => render_identity::identity(answer),
        "keystone" => render_identity::keystone(answer),
        "identity_new" => format!("made owner {}; this device speaks for it", word(&answer["owner"])),
        "identity_drill" => format!("these are the words of owner {}", word(&answer["owner"])),
        "identity_recover" => render_identity::recovered(answer),
        "identity_revoke" => format!("owner {} is revoked, for good", word(&answer["owner"])),
        "identity_delegate" => {
            format!("node {} speaks for the owner until {}", short(&answer["node"]), word(&answer["until"]))
        }
        "identity_undelegate" => format!("{} does not speak for the owner any more", render_identity::holder(answer)),
        "identity_export" => format!("wrote {} frames to {}", answer["frames"], word(&answer["file"])),
        "registry" => render_release::registry(answer),
        "releases" => render_release::list(answer),
        "release" => render_release::show(answer),
        "release_publish" => render_release::published(answer),
        "release_install" => render_release::installed(answer),
        "release_refused" => render_release::refused(answer),
        "legacy_manifest" => format!("transaction {}: {}", word(&answer["transaction"]), word(&answer["state"])),
        "release_verify" => render_release::verified(answer),
        "export_done" => {
            let text =
                format!("wrote {} items, {} bytes, to {}", answer["items"], answer["bytes"], word(&answer["out"]));
            text + &absent(answer, "are not in it: they were given up here, or never came")
        }
        "import" => imported(answer),
        "space_folder" => format!("{} is kept in {}", word(&answer["name"]), word(&answer["dir"])),
        "release_archive" => format!(
            "{} bundles moved to the archive ({} bytes), {} failed; {} stay",
            answer["moved"], answer["bytes"], answer["failed"], answer["left"]
        ),
        "release_yank" => format!(
            "{} {} ({}) is yanked: nobody installs it from now on; what is installed stays",
            word(&answer["app"]),
            word(&answer["version"]),
            word(&answer["channel"])
        ),
        "spaces" => table(&answer["spaces"], &["name", "kind", "role", "items", "bytes", "bytes_max", "dir", "id"]),
        "list" => rows(&answer["names"], word),
        "get" => get(answer),
        "put" if answer["changed"] == false => "unchanged".to_owned(),
        "put" => format!("stored {} as version {}", word(&answer["address"]), answer["n"]),
        "log" => rows(&answer["entries"], log_entry),
        "diff" if answer["equal"] == true => "no difference".to_owned(),
        "diff" => diff(&word(&answer["diff"])),
        "restore" => match answer["written"].as_str() {
            Some(path) => format!("wrote version {} to {path}", answer["n"]),
            None => {
                format!("{} is version {} again (as version {})", word(&answer["path"]), answer["n"], answer["new_n"])
            }
        },
        "conflicts" => conflicts(answer),
        "conflict" => conflict(answer),
        "conflict_resolve" => format!("{} is settled; the other versions stay in the log", word(&answer["path"])),
        "holds" => rows(&answer["holds"], held),
        "hold" if answer["kind"] == "writer" => {
            format!("{}\n{}", held(answer), rows(&answer["versions"], held_version))
        }
        "hold" => format!(
            "{} since {}{}\n{}\n{}",
            word(&answer["space"]),
            word(&answer["since"]),
            match answer["gone"].as_u64() {
                Some(gone) if gone > 0 => {
                    format!("; {} went just before (`sealtide log`, `restore`)", count(&json!(gone), "file"))
                }
                _ => String::new(),
            },
            rows(&answer["removed"], |path| format!("remove   {}", word(path))),
            rows(&answer["replaced"], |path| format!("replace  {}", word(path)))
        ),
        "join" => format!(
            "joined {} ({}){}",
            rows(&answer["spaces"], word).replace('\n', ", "),
            word(&answer["role"]),
            match (answer["in_step"].as_bool(), answer["dir"].as_str()) {
                (Some(true), Some(dir)) => format!("; {dir} is in step"),
                (_, Some(dir)) => format!("; `sealtide up` keeps {dir} in step"),
                _ => String::new(),
            } + &absent(answer, "are not here: the other node gave them up")
        ),
        "sync" => rows(&answer["sagas"], |row| {
            format!(
                "{}: {} received, {} sent, mode {} ({})",
                word(&row["space"]),
                row["received"],
                row["sent"],
                word(&row["mode"]),
                short(&row["peer"])
            )
        }),
        "gateway_bearer" => word(&answer["token"]),
        "gateway_code" => format!(
            "{}\n\nfor one browser, within {} s; at another address of this door, the code is {}",
            word(&answer["dashboard"]),
            answer["expires_in_s"],
            word(&answer["code"])
        ),
        "keys" => render_keys::status(answer),
        "keys_ledger" => table(&answer["records"], &["epoch", "time", "action", "active", "by", "reason"]),
        "keys_change" => render_keys::change(answer),
        "keys_preview" => render_keys::preview(answer),
        "release_bump" => render_keys::bump(answer),
        "release_revert" => format!(
            "took back {}: {} as before, revision {}",
            word(&answer["reverted"]),
            count(&answer["files"].as_array().map_or(0, Vec::len).into(), "file"),
            answer["revision"]
        ),
        "verify" => verified(answer),
        "backup_create" => format!(
            "wrote {}: {}, {}, {}",
            word(&answer["file"]),
            count(&answer["files"], "file"),
            size(answer["bytes"].as_u64().unwrap_or(0)),
            if answer["sealed"] == true {
                "sealed by the passphrase"
            } else {
                "its secrets in the clear: keep it safe"
            }
        ),
        "backup_restore" if answer["as_new_device"] == true => new_device(answer),
        "backup_restore" => format!("{} is node {} again", word(&answer["home"]), word(&answer["node"])),
        "space_remove" => format!("{} is forgotten here; files in its folder stay", word(&answer["name"])),
        "down" => "stopped".to_owned(),
        "gc" => freed(answer),
        "audit_verify" => format!(
            "{} lines, {} signed checkpoints, {} lines not yet signed: no damage",
            answer["lines"], answer["checkpoints"], answer["not_yet_signed"]
        ),
        "doctor" => rows(&answer["findings"], finding),
        "config" => config(answer),
        "version" => format!("sealtide {}", word(&answer["version"])),
        "init" if answer["made"] == true => format!("made node {} in {}", word(&answer["node"]), word(&answer["home"])),
        "init" => format!("node {} in {}", word(&answer["node"]), word(&answer["home"])),
        "bench_live" => bench(answer),
        _ => plain(answer),
    }
}

/// What is said of contents of old releases that are not here; nothing when all are.
fn absent(answer: &Value, why: &str) -> String {
    match answer["absent"].as_u64() {
        None | Some(0) => String::new(),
        Some(chunks) => {
            format!("\n{chunks} chunks of old releases {why}; `sealtide release show APP` says of which")
        }
    }
}

fn freed(answer: &Value) -> String {
    let bytes = |row: &Value| size(row["bytes"].as_u64().unwrap_or(0));
    let release = |row: &Value| {
        format!("{} {} ({})  {}", word(&row["app"]), word(&row["version"]), word(&row["channel"]), bytes(row))
    };
    let (done, gone) = match answer["dry_run"] == true {
        true => ("would free", "would give up the contents of these releases"),
        false => ("freed", "gave up the contents of these releases"),
    };
    let mut text = format!("{done} {} chunks, {}", answer["chunks"], bytes(answer));
    if answer["records"].as_u64().is_some_and(|records| records > 0) {
        let bytes = size(answer["record_bytes"].as_u64().unwrap_or(0));
        text += &format!("; {} records that no space has any more, {bytes}", answer["records"]);
    }
    if answer["releases"].as_array().is_some_and(|releases| !releases.is_empty()) {
        text += &format!("\n{gone} (`release.keep` says how many stay):\n{}", rows(&answer["releases"], release));
    }
    text
}

/// The content of a file that was asked for, byte for byte.
pub(crate) fn content(answer: &Value) -> Option<Vec<u8>> {
    if answer["schema"] != "sealtide/get/1" || answer["kind"] != "file" {
        return None;
    }
    match answer["text"].as_str() {
        Some(text) => Some(text.as_bytes().to_vec()),
        None => BASE64.decode(answer["base64"].as_str()?.as_bytes()).ok(),
    }
}

/// The text of a value: a string without quotes, nothing for null.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}

/// A node id as people see it: the first eight characters.
pub(super) fn short(value: &Value) -> String {
    let text = word(value);
    text.strip_prefix("stn1").and_then(|id| id.get(..8)).map_or(text.clone(), str::to_owned)
}

pub(super) fn rows(list: &Value, row: impl Fn(&Value) -> String) -> String {
    list.as_array().map(|list| list.iter().map(row).collect::<Vec<_>>().join("\n")).unwrap_or_default()
}

pub(super) fn table(list: &Value, columns: &[&str]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| column.replace('_', " ").to_uppercase()));
    for row in list.as_array().into_iter().flatten() {
        table.add_row(columns.iter().map(|column| word(&row[*column])));
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn plain(answer: &Value) -> String {
    let Some(object) = answer.as_object() else { return answer.to_string() };
    let members = object.iter().filter(|(name, value)| *name != "schema" && !value.is_null());
    members.map(|(name, value)| format!("{name}: {}", word(value))).collect::<Vec<_>>().join("\n")
}

fn colour(state: &str) -> Style {
    let colour = match state {
        "in_step" | "ok" => AnsiColor::Green,
        "syncing" | "behind" | "warn" => AnsiColor::Yellow,
        _ => AnsiColor::Red,
    };
    Style::new().fg_color(Some(colour.into()))
}

fn status(answer: &Value) -> String {
    let mut text = format!("node {}  {}\n", short(&answer["node"]), word(&answer["home"]));
    match answer["running"].as_bool() {
        Some(true) => {
            let listen = rows(&answer["listen"], word).replace('\n', " ");
            text += &format!("listening on {listen}, gateway {}\n", word(&answer["gateway"]));
        }
        _ => text += "not running: `sealtide up` starts it\n",
    }
    for space in answer["spaces"].as_array().into_iter().flatten() {
        let state = word(&space["state"]);
        let style = colour(&state);
        text += &format!(
            "\n{}  {style}{}{style:#}  {}, {}, {}  {}\n",
            word(&space["name"]),
            state.replace('_', " "),
            count(&space["files"], "file"),
            count(&space["items"], "record"),
            size(space["bytes"].as_u64().unwrap_or(0)),
            word(&space["dir"])
        );
        // As after a `join` that was cut off.
        if space["kind"] == "folder" && space["dir"].is_null() {
            text += &format!("  in no directory here: sealtide spaces folder {} DIR\n", word(&space["name"]));
        }
        // What it is besides, where another state goes first.
        if space["paused"] == true && state != "paused" {
            text += "  paused: nothing comes or goes until `sealtide resume`\n";
        }
        if state == "held" {
            text += &format!("  waits for you: sealtide hold show {}\n", word(&space["name"]));
        }
        for peer in space["peers"].as_array().into_iter().flatten() {
            text += &peer_line(peer);
        }
        for (path, reason) in space["skipped"].as_object().into_iter().flatten() {
            text += &format!("  skipped {path}: {}\n", word(reason));
        }
        if let Some(reason) = space["unwatched"].as_str() {
            text += &format!("  not watched whole ({reason}): changes are looked for now and then\n");
        }
        for path in space["local_only"].as_array().into_iter().flatten() {
            text += &format!("  local only {}\n", word(path));
        }
        if let Some(error) = space["error"].as_str() {
            text += &format!("  error: {error}\n");
        }
    }
    for link in answer["links"].as_array().into_iter().flatten() {
        let name =
            link["name"].as_str().filter(|name| !name.is_empty()).map_or_else(|| short(&link["peer"]), str::to_owned);
        text += &match link["path"].as_str() {
            Some(path) => format!(
                "\nlink {name}  {path}  {}  {}  rtt {} ms, up {} s",
                word(&link["remote"]),
                word(&link["suite"]),
                link["rtt_ms"],
                link["age_s"]
            ),
            None if link["refused"].is_string() => {
                format!("\nlink {name}  none: cannot sync: {}", word(&link["refused"]))
            }
            // A node that was revoked learns no more than a stranger.
            None if link["why_not_direct"] == "refused" => {
                format!("\nlink {name}  none: refused there; this node may have lost its access")
            }
            None if link["why_not_direct"] == "no_address" => {
                format!(
                    "\nlink {name}  none: no address; `sealtide ticket new` on one side and `sealtide join` on the other lead them together"
                )
            }
            None if link["why_not_direct"] == "unreachable" => {
                format!(
                    "\nlink {name}  none: unreachable; if both moved, `sealtide join` with a new ticket of one of them leads them together"
                )
            }
            None => format!("\nlink {name}  none: {}", word(&link["why_not_direct"]).replace('_', " ")),
        };
    }
    for relay in answer["relays"].as_array().into_iter().flatten().filter(|_| answer["running"] == true) {
        text += &format!("\nrelay {}  {}  ", short(&relay["relay"]), word(&relay["url"]));
        text += &match (relay["up"].as_bool(), relay["observed"].as_str(), relay["why_not"].as_str()) {
            (Some(true), Some(seen), _) => format!("logged in, sees this node at {seen}"),
            (Some(true), None, _) => "logged in".to_owned(),
            (_, _, Some(why)) => format!("no login: {why}"),
            _ => "no login yet".to_owned(),
        };
    }
    text
}

fn peer(peer: &Value) -> String {
    let mut text = format!("{}  {}", word(&peer["name"]), word(&peer["node"]));
    text += match (peer["revoked"].as_bool(), peer["connected"].as_bool()) {
        (Some(true), _) => "  revoked",
        (_, Some(true)) => "  connected",
        _ => "  away",
    };
    if let Some(seen) = peer["last_seen"].as_str() {
        text += &format!(", last seen {seen}");
    }
    for address in peer["addresses"].as_array().into_iter().flatten() {
        text += &format!("\n  at {}", word(address));
    }
    for space in peer["spaces"].as_array().into_iter().flatten() {
        text += &format!("\n  {}  {} since {}", word(&space["space"]), word(&space["role"]), word(&space["since"]));
    }
    text
}

fn revoked(answer: &Value) -> String {
    let name = answer["name"].as_str().filter(|name| !name.is_empty());
    let name = name.map_or_else(|| short(&answer["node"]), str::to_owned);
    let spaces = rows(&answer["no_member_of"], word).replace('\n', ", ");
    match spaces.is_empty() {
        true => format!("{name} has no access any more"),
        false => format!("{name} has no access any more, and is no member of {spaces} on any node that hears of it"),
    }
}

/// A number of things, in the singular where it is one.
pub(super) fn count(number: &Value, thing: &str) -> String {
    if *number == 1 { format!("1 {thing}") } else { format!("{} {thing}s", word(number)) }
}

fn peer_line(peer: &Value) -> String {
    let name =
        peer["name"].as_str().filter(|name| !name.is_empty()).map_or_else(|| short(&peer["peer"]), str::to_owned);
    let state = match (peer["connected"].as_bool(), peer["in_step"].as_bool(), peer["syncing"].as_bool()) {
        (Some(false), ..) => "away",
        (_, _, Some(true)) => "syncing",
        (_, Some(true), _) => "in step",
        _ => "behind",
    };
    let mut line = format!("  {name}  {}  {state}", word(&peer["role"]));
    if let Some(synced) = peer["synced"].as_str() {
        line += &format!(", last synced {synced}");
    }
    if let Some(error) = peer["error"].as_str() {
        line += &format!(", {error}");
    }
    line + "\n"
}

fn ready(answer: &Value) -> String {
    let page = answer["dashboard"].as_str().map_or_else(String::new, |link| {
        format!("\n\nthe dashboard, for five minutes and one browser (then: sealtide gateway code):\n\n{link}")
    });
    if answer["node"].is_null() {
        return format!("the gateway is open at {}{page}", word(&answer["gateway"]));
    }
    let mut text = format!("node {} is up, listening on {}", short(&answer["node"]), rows(&answer["listen"], word));
    if let Some(gateway) = answer["gateway"].as_str() {
        text += &format!(", gateway {gateway}");
    }
    if let Some(relay) = answer["relay"].as_str() {
        text += &format!(
            "\n\nthe address of this relay:\n\n{relay}\n\na node that uses it: sealtide up DIR --relay ADDRESS"
        );
    }
    for (name, ticket) in answer["tickets"].as_object().into_iter().flatten() {
        text +=
            &format!("\n\nticket for {name} (write, one use, 24 h; treat it like a password):\n\n{}\n", word(ticket));
        text += "\non the other machine: sealtide join TICKET DIR --wait";
    }
    text + &page
}

fn get(answer: &Value) -> String {
    for member in ["text", "target"] {
        if let Some(text) = answer[member].as_str() {
            return text.to_owned();
        }
    }
    if answer.get("doc").is_some() {
        return serde_json::to_string_pretty(&answer["doc"]).unwrap_or_default();
    }
    word(&answer["kind"])
}

fn new_device(answer: &Value) -> String {
    let spaces: Vec<String> = answer["spaces"].as_array().into_iter().flatten().map(|it| word(&it["name"])).collect();
    format!(
        "{} is a new node, {}, with what the backup holds of: {}\nlet it in: `sealtide ticket new --device` where the original runs, then \
         `sealtide join --device TICKET` here, and `sealtide spaces folder SPACE DIR` for each that has a folder; is the original lost? \
         `sealtide identity recover`, with the words",
        word(&answer["home"]),
        word(&answer["node"]),
        spaces.join(", ")
    )
}

fn verified(answer: &Value) -> String {
    let commits = &answer["commits"];
    let bad = commits["bad"].as_array().map_or(0, Vec::len);
    format!(
        "verified {} entries, {} records, {} identities, {} signed commits: no damage{}{}",
        answer["entries"],
        answer["records"],
        answer["identities"],
        commits["verified"],
        if commits["unknown"] == 0 { String::new() } else { format!("; {} of unknown nodes", commits["unknown"]) },
        if bad == 0 { String::new() } else { format!("; {bad} forged commits, which prove nothing") },
    ) + &absent(answer, "are not here: they were given up, or never came")
}

fn log_entry(entry: &Value) -> String {
    let dim = Style::new().dimmed();
    let named = |name: &str, id: &str| {
        entry[name].as_str().filter(|name| !name.is_empty()).map_or_else(|| short(&entry[id]), str::to_owned)
    };
    let by = match entry["authorship"].as_str() {
        Some("verified") => format!("✔ {}", named("verified_name", "verified_by")),
        Some("merged") => "merged by rule".to_owned(),
        _ => format!("{} (claimed)", named("by_name", "by")),
    };
    format!(
        "{}  {}@{:<4} {:8} {}:{}  {dim}{by}{dim:#}{}{}",
        word(&entry["time"]),
        word(&entry["hash"]).get(..8).unwrap_or_default(),
        word(&entry["n"]),
        word(&entry["what"]),
        word(&entry["space"]),
        word(&entry["path"]),
        if entry["tip"] == true { "  tip" } else { "" },
        of_parents(entry)
    )
}

/// The versions that met in one, for one that has several.
fn of_parents(entry: &Value) -> String {
    match entry["parents"].as_array().map(Vec::as_slice) {
        Some(parents @ [_, _, ..]) => {
            let hashes: Vec<String> = parents.iter().map(|hash| word(hash).chars().take(8).collect()).collect();
            format!("  of {}", hashes.join(" and "))
        }
        _ => String::new(),
    }
}

fn diff(unified: &str) -> String {
    let (red, green) =
        (Style::new().fg_color(Some(AnsiColor::Red.into())), Style::new().fg_color(Some(AnsiColor::Green.into())));
    let line = |line: &str| match line.as_bytes().first() {
        Some(b'+') => format!("{green}{line}{green:#}"),
        Some(b'-') => format!("{red}{line}{red:#}"),
        _ => line.to_owned(),
    };
    unified.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn conflicts(answer: &Value) -> String {
    if answer["conflicts"].as_array().is_some_and(Vec::is_empty) {
        return "no conflicts".to_owned();
    }
    rows(&answer["conflicts"], |row| {
        let place = format!("{}:{}", word(&row["space"]), word(&row["path"]));
        match row["alias"].as_str() {
            Some(alias) => format!("{place}  two files of one name; the other stands at {alias}"),
            None if row["kind"] == "merged" => format!("{place}  merged; both sides changed the same place"),
            None => format!("{place}  {} versions of one file", row["versions"].as_array().map_or(0, Vec::len)),
        }
    })
}

fn conflict(answer: &Value) -> String {
    let versions = answer["versions"].as_array().map_or(&[][..], Vec::as_slice);
    // Where the name is what they differ in, it says so.
    let renamed = versions.iter().any(|version| version["path"] != versions[0]["path"]);
    rows(&answer["versions"], |version| {
        let name =
            version["path"].as_str().filter(|_| renamed).map(|path| format!(" named {path}")).unwrap_or_default();
        let gone = if version["deleted"] == true { " deleted" } else { "" };
        let stands = match (version["in_folder"] == true, version["path"].is_string()) {
            (false, _) => "",
            (true, true) => " (in the folder)",
            (true, false) => " (what stands)",
        };
        format!(
            "--- {}{name}{gone} @{} {} by {}{stands}\n{}",
            word(&version["what"]),
            word(&version["hash"]).get(..8).unwrap_or_default(),
            word(&version["time"]),
            short(&version["by"]),
            word(&version["text"])
        )
    })
}

fn held_version(row: &Value) -> String {
    // Only files say who made them.
    let by = row["by"].as_str().map(|_| format!(", by {}", short(&row["by"]))).unwrap_or_default();
    format!("{}  version {}{by}, received from {}", word(&row["path"]), row["n"], short(&row["peer"]))
}

fn held(row: &Value) -> String {
    if row["kind"] == "writer" {
        return format!(
            "{}: {} versions of somebody who may not write any more; `sealtide hold accept|reject {}`",
            word(&row["space"]),
            row["frames"],
            word(&row["space"])
        );
    }
    let gone = row["gone"].as_u64().filter(|gone| *gone > 0);
    format!(
        "{}: {} of {} files would be removed, {} replaced{}; `sealtide hold accept|reject {}`",
        word(&row["space"]),
        row["removed"],
        row["total"],
        row["replaced"],
        gone.map_or_else(String::new, |gone| format!(" ({gone} were removed just before)")),
        word(&row["space"])
    )
}

fn finding(finding: &Value) -> String {
    let result = word(&finding["result"]);
    let style = colour(&result);
    let mut line = format!("{style}{result:4}{style:#}  {:9} {}", word(&finding["check"]), word(&finding["text"]));
    if let Some(todo) = finding["do"].as_str() {
        line += &format!("\n      {todo}");
    }
    line
}

fn config(answer: &Value) -> String {
    rows(&answer["settings"], |row| {
        let origin = row["origin"].as_str().map(|origin| format!("  ({origin})")).unwrap_or_default();
        format!("# {}\n{} = {}{origin}", word(&row["about"]), word(&row["key"]), row["value"])
    })
}

fn imported(answer: &Value) -> String {
    let name = word(&answer["name"]);
    match answer["records"].as_u64() {
        Some(records) => format!(
            "{name} is back: {records} records, role {}; `sealtide get {name}` lists what is in it{}",
            word(&answer["role"]),
            absent(answer, "were not in it"),
        ),
        None => format!(
            "{name} is a new space with {} and {}; `sealtide spaces folder {name} DIR` keeps it in a directory",
            count(&answer["files"], "file"),
            count(&answer["documents"], "document")
        ),
    }
}

fn bench(answer: &Value) -> String {
    let ms = |name: &str| answer["ms"][name].as_f64().unwrap_or_default();
    format!(
        "{} edits of {} on loopback: p50 {:.0} ms, p95 {:.0} ms, max {:.0} ms until the other folder shows them",
        answer["edits"],
        size(answer["bytes"].as_u64().unwrap_or(0)),
        ms("p50"),
        ms("p95"),
        ms("max")
    )
}

pub(super) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(answer: Value, expected: &str) {
        assert_eq!(anstream::adapter::strip_str(&text(&answer)).to_string(), expected);
    }

    #[test]
    fn answers_as_text() {
        check(json!({"schema": "sealtide/version/1", "version": "1.2.3"}), "sealtide 1.2.3");
        check(json!({"schema": "sealtide/list/1", "names": ["a", "b"]}), "a\nb");
        check(json!({"schema": "sealtide/conflicts/1", "conflicts": []}), "no conflicts");
        check(json!({"schema": "sealtide/unheard/1", "x": 1, "y": null, "z": "w"}), "x: 1\nz: w");
        check(
            json!({"schema": "sealtide/tickets/1", "tickets": [{"id": "ab", "space": "Notes", "role": "write",
                "state": "open", "uses_left": 1, "expires": "t"}]}),
            " ID  SPACE  ROLE   STATE  USES LEFT  EXPIRES\n ab  Notes  write  open   1          t",
        );
    }

    #[test]
    fn status_names_state_and_peers() {
        let answer = json!({"schema": "sealtide/status/1", "node": "stn1abcdefghijk", "home": "/h", "running": true,
            "listen": ["127.0.0.1:1"], "gateway": "http://127.0.0.1:2", "spaces": [{"name": "Notes", "state": "in_step",
            "files": 2, "items": 3, "bytes": 2048, "dir": "/d", "peers": [{"peer": "stn1zzzzzzzzzz", "role": "write",
            "connected": true, "in_step": true, "syncing": false}]},
            {"name": "Far", "kind": "folder", "state": "in_step", "files": 0, "items": 7, "bytes": 10, "dir": null}],
            "links": [{"peer": "stn1zzzzzzzzzz", "path": null, "why_not_direct": "no_address"}]});
        check(
            answer,
            "node abcdefgh  /h\nlistening on 127.0.0.1:1, gateway http://127.0.0.1:2\n\nNotes  in step  2 files, 3 records, \
             2.00 KiB  /d\n  zzzzzzzz  write  in step\n\nFar  in step  0 files, 7 records, 10 B  \n  in no directory here: sealtide spaces \
             folder Far DIR\n\nlink zzzzzzzz  none: no address; `sealtide ticket new` \
             on one side and `sealtide join` on the other lead them together",
        );
    }
}
