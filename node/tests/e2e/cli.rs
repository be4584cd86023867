//! The command line as programs see it: documents, codes, settings, history.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::{Machine, Pair, until, write};

/// One machine with a folder and a running node.
fn one() -> (Machine, crate::support::Running) {
    let machine = Machine::new();
    write(&machine.notes(), "plan.md", "first\n");
    let node = machine.share();
    machine.recorded();
    (machine, node)
}

fn versions(machine: &Machine, target: &str) -> Vec<Value> {
    machine.ok(&["log", target])["entries"].as_array().unwrap().clone()
}

/// Edits the plan and waits until the log has that many versions.
fn edit(machine: &Machine, text: &str, count: usize) {
    write(&machine.notes(), "plan.md", text);
    until("the version is in the log", || match versions(machine, "Notes:plan.md").len() {
        now if now == count => Ok(()),
        now => Err(format!("{now} versions")),
    });
}

/// Versions are listed, shown, compared, brought back and written elsewhere, by counter, hash and time.
#[test]
fn history() {
    let (machine, _node) = one();
    edit(&machine, "first\nsecond\n", 2);
    edit(&machine, "first\nsecond\nthird\n", 3);
    let log = versions(&machine, "Notes:plan.md");
    assert_eq!(log.iter().map(|entry| entry["n"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 1, 0]);
    assert_eq!(
        (&log[0]["tip"], &log[2]["what"], &log[1]["what"]),
        (&json!(true), &json!("created"), &json!("changed"))
    );
    let get = |version: &str| machine.ok(&["get", &format!("Notes:plan.md{version}")])["text"].clone();
    assert_eq!(get(""), "first\nsecond\nthird\n");
    assert_eq!(get("@0"), "first\n");
    assert_eq!(get(&format!("@{}", &log[1]["hash"].as_str().unwrap()[..8])), "first\nsecond\n");
    assert_eq!(get(&format!("@{}", log[2]["time"].as_str().unwrap())), "first\n");
    machine.fails(&["get", "Notes:plan.md@9"], 2, "no_version");
    machine.fails(&["get", "Notes:nothing.md"], 2, "not_found");
    machine.fails(&["get", "Nothing:plan.md"], 2, "no_space");
    let diff = machine.ok(&["diff", "Notes:plan.md@0", "Notes:plan.md@2"]);
    assert!(diff["diff"].as_str().unwrap().contains("+third"), "{diff}");
    let last = machine.ok(&["diff", "Notes:plan.md"]);
    assert!(last["diff"].as_str().unwrap().contains("+third") && !last["diff"].as_str().unwrap().contains("+second"));
    let out = machine.root().join("out");
    machine.ok(&["restore", "Notes:plan.md@1", "--to", out.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(out.join("plan.md")).unwrap(), "first\nsecond\n");
    machine.fails(&["restore", "Notes:plan.md@1", "--to", out.to_str().unwrap()], 2, "exists");
    machine.ok(&["restore", "Notes:plan.md@0"]);
    assert_eq!(fs::read_to_string(machine.notes().join("plan.md")).unwrap(), "first\n");
    assert_eq!(versions(&machine, "Notes:plan.md").len(), 4);
    // A deleted file comes back from its history.
    fs::remove_file(machine.notes().join("plan.md")).unwrap();
    until("the deletion is in the log", || match versions(&machine, "Notes:plan.md").len() {
        5 => Ok(()),
        now => Err(format!("{now} versions")),
    });
    machine.fails(&["get", "Notes:plan.md"], 1, "deleted");
    let gone = machine.root().join("gone");
    machine.fails(&["restore", "Notes:plan.md", "--to", gone.to_str().unwrap()], 2, "deleted");
    assert!(!gone.exists());
    machine.ok(&["restore", "Notes:plan.md@2"]);
    assert_eq!(fs::read_to_string(machine.notes().join("plan.md")).unwrap(), "first\nsecond\nthird\n");
    assert_eq!(machine.ok(&["get", "Notes"])["names"], json!(["plan.md"]));
    assert!(versions(&machine, "Notes").len() >= 6);
}

/// Text for people: the plain output of the same commands.
#[test]
fn text_for_people() {
    let (machine, _node) = one();
    edit(&machine, "first\nsecond\n", 2);
    assert_eq!(machine.plain(&["get", "Notes:plan.md"]).stdout, "first\nsecond\n");
    assert!(machine.plain(&["diff", "Notes:plan.md"]).stdout.contains("+second"));
    for args in [
        &["status"][..],
        &["spaces", "list"],
        &["log"],
        &["ticket", "list"],
        &["config", "show"],
        &["doctor"],
        &["version"],
    ] {
        let done = machine.plain(args);
        assert_eq!(done.code, 0, "{args:?} {done:?}");
        assert!(
            !done.stdout.is_empty() && !done.stdout.contains('\u{1b}') && !done.stdout.starts_with('{'),
            "{done:?}"
        );
    }
    let wrong = machine.plain(&["get", "Nothing:x"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.stdout.is_empty() && wrong.stderr.contains("error:") && wrong.stderr.contains("hint:"), "{wrong:?}");
    assert_eq!(machine.plain(&["frobnicate"]).code, 2);
    assert_eq!(machine.plain(&["--help"]).code, 0);
    assert!(machine.plain(&["--version"]).stdout.contains(env!("CARGO_PKG_VERSION")));
}

/// Documents without a folder, synced like files.
#[test]
fn documents() {
    let mut pair = Pair::with(|notes| write(notes, "plan.md", "plan\n"));
    assert_eq!(pair.a.ok(&["spaces", "create", "Data"])["name"], "Data");
    let put = |machine: &Machine, doc: &Value| -> Value {
        let done = machine.run_with(&["put", "Data", "settings"], &doc.to_string());
        assert_eq!(done.code, 0, "{done:?}");
        done.document()
    };
    let first = put(&pair.a, &json!({"a": 1, "list": [1, 2.5, null], "text": "ü^"}));
    assert_eq!((&first["n"], &first["changed"]), (&json!(1), &json!(true)));
    // An equal document makes no version.
    assert_eq!(put(&pair.a, &json!({"a": 1, "list": [1, 2.5, null], "text": "ü^"}))["changed"], false);
    assert_eq!(put(&pair.a, &json!({"a": 2}))["n"], 2);
    let log = pair.a.ok(&["log", "Data:settings"])["entries"].clone();
    assert_eq!(
        (&log[1]["what"], &log[1]["parents"], log.as_array().unwrap().len()),
        (&json!("created"), &json!([]), 2)
    );
    // Whoever read an older version overwrites nothing.
    for (base, code) in [("1", 4), ("none", 4), ("7", 2), ("x", 2), ("2", 0)] {
        let done = pair.a.run_with(&["put", "Data", "settings", "--base", base], r#"{"a": 2, "b": 1}"#);
        assert_eq!(done.code, code, "{base}: {done:?}");
    }
    // Many at once follow one another.
    std::thread::scope(|scope| {
        for number in 0..8 {
            let a = &pair.a;
            scope.spawn(move || assert_eq!(a.run_with(&["put", "Data", "many"], &number.to_string()).code, 0));
        }
    });
    let many = pair.a.ok(&["log", "Data:many"])["entries"].clone();
    assert_eq!(
        (many.as_array().unwrap().len(), &many[0]["n"], &many[1]["tip"]),
        (8, &json!(8), &json!(false)),
        "{many}"
    );
    let new = |base: &str| pair.a.run_with(&["put", "Data", "new", "--base", base], "1").code;
    assert_eq!([new("1"), new("none"), new("none"), new("1")], [4, 0, 4, 0]);
    assert_eq!(put(&pair.a, &json!({"a": 2}))["n"], 4);
    let ticket = pair.a.ok(&["ticket", "new", "--space", "Data"])["ticket"].as_str().unwrap().to_owned();
    let joined = pair.b.ok(&["join", &ticket]);
    assert_eq!(joined["name"], "Data");
    assert_eq!(pair.b.ok(&["get", "Data:settings"])["doc"], json!({"a": 2}));
    assert_eq!(pair.b.ok(&["get", "Data:settings@1"])["doc"]["text"], "ü^");
    assert_eq!(put(&pair.b, &json!({"a": 3}))["n"], 5);
    until("it arrives at the first", || {
        let doc = pair.a.ok(&["get", "Data:settings"])["doc"].clone();
        if doc == json!({"a": 3}) { Ok(()) } else { Err(doc.to_string()) }
    });
    pair.a.ok(&["restore", "Data:settings@1"]);
    until("the old version is back at the second", || {
        let doc = pair.b.ok(&["get", "Data:settings"])["doc"].clone();
        if doc["a"] == 1 { Ok(()) } else { Err(doc.to_string()) }
    });
    // Two make a document of one name before they hear of each other: both parts are in it.
    for machine in [&pair.a, &pair.b] {
        machine.ok(&["pause", "Data"]);
    }
    for (machine, doc) in [(&pair.a, r#"{"k": 1, "t": "a"}"#), (&pair.b, r#"{"j": 1, "t": "b"}"#)] {
        assert_eq!(machine.run_with(&["put", "Data", "both"], doc).code, 0);
    }
    for machine in [&pair.a, &pair.b] {
        machine.ok(&["resume", "Data"]);
    }
    for machine in [&pair.a, &pair.b] {
        until("both are one", || {
            let doc = machine.ok(&["get", "Data:both"])["doc"].clone();
            if (&doc["k"], &doc["j"]) == (&json!(1), &json!(1)) { Ok(()) } else { Err(doc.to_string()) }
        });
        // What cannot be merged is listed.
        let listed = machine.ok(&["conflicts", "list", "Data"])["conflicts"].clone();
        assert_eq!((&listed[0]["path"], listed.as_array().unwrap().len()), (&json!("both"), 1), "{listed}");
        machine.fails(&["status", "--check"], 4, "conflict");
    }
    pair.a.ok(&["conflicts", "resolve", "Data:both"]);
    let bad = pair.a.run_with(&["put", "Data", "bad"], "{not json");
    assert_eq!((bad.code, &bad.document()["error"]["code"]), (2, &json!("json")));
    for (number, code) in [("9007199254740993", 2), ("-9007199254740993", 2), ("9007199254740992", 0), ("0.1", 0)] {
        let put = pair.a.run_with(&["put", "Data", "number"], &format!("{{\"x\":[{number}]}}"));
        assert_eq!(put.code, code, "{number}: {put:?}");
    }
    let proto = pair.a.run_with(&["put", "Data", "proto"], r#"{"a": [{"__proto__": 1}]}"#);
    assert_eq!((proto.code, &proto.document()["error"]["code"]), (2, &json!("member")));
    let large = pair.a.run_with(&["put", "Data", "large"], &json!("x".repeat(800_000)).to_string());
    assert_eq!((large.code, &large.document()["error"]["code"]), (2, &json!("too_large")));
    // Forgotten at one side, it stays at the other.
    pair.a.in_step();
    pair.b.ok(&["spaces", "remove", "Data"]);
    pair.b.fails(&["get", "Data:settings"], 2, "no_space");
    pair.node_b.stop();
    pair.node_b = pair.b.up(&[]);
    pair.agree();
    pair.a.ok(&["verify"]);
    assert_eq!(pair.a.ok(&["get", "Data:settings"])["doc"]["a"], 1);
    // Whoever counts on the other's copy is told.
    until("the first knows", || {
        let spaces = pair.a.ok(&["status"])["spaces"].clone();
        let told = |at: usize| (spaces[at]["state"].clone(), spaces[at]["peers"][0]["error"].clone());
        let gone = json!("the other node does not share this space with this node, or not any more");
        match (told(0), told(1)) {
            ((data, why), (notes, none)) if data == "behind" && why == gone && notes == "in_step" && none.is_null() => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    });
}

/// A command gives the same document whether a node runs (over the socket) or not (on its own).
#[test]
fn the_same_documents_with_and_without_a_node() {
    let mut pair = Pair::with(|notes| {
        write(notes, "plan.md", "plan\n");
        write(notes, "photo.bin", [0, 1, 2]);
    });
    pair.agree_and_verify();
    let commands: [&[&str]; 12] = [
        &["spaces", "list"],
        &["peers", "list"],
        &["ticket", "list"],
        &["log"],
        &["log", "Notes:plan.md"],
        &["get", "Notes"],
        &["get", "Notes:plan.md"],
        &["get", "Notes:photo.bin"],
        &["diff", "Notes:plan.md"],
        &["conflicts", "list"],
        &["conflicts", "show", "Notes:plan.md"],
        &["hold", "list"],
    ];
    let ask = |pair: &Pair| -> Vec<Value> {
        let documents = commands.iter().map(|command| pair.a.ok(command));
        documents
            .map(|mut document| {
                // Who is connected now is told too.
                for peer in document["peers"].as_array_mut().into_iter().flatten() {
                    peer["connected"] = Value::Null;
                    peer["last_seen"] = Value::Null;
                }
                document
            })
            .collect()
    };
    let running = ask(&pair);
    let refused = ["get", "Notes:nothing"];
    let refused_running = pair.a.fails(&refused, 2, "not_found");
    pair.node_a.stop();
    for ((command, with), without) in commands.iter().zip(running).zip(ask(&pair)) {
        assert_eq!(with, without, "{command:?}");
    }
    assert_eq!(refused_running, pair.a.fails(&refused, 2, "not_found"));
    let status = pair.a.ok(&["status"]);
    assert_eq!((&status["running"], &status["spaces"][0]["name"]), (&json!(false), &json!("Notes")));
    pair.a.fails(&["down"], 1, "not_running");
    // `sync --wait` works without a running node too: it dials, syncs and checks out.
    write(&pair.b.notes(), "later.md", "later\n");
    pair.b.recorded();
    pair.a.ok(&["sync", "--wait"]);
    assert!(pair.a.notes().join("later.md").exists());
}

/// Settings: where each value came from, what is written, and what is wrong with a file, by line.
#[test]
fn settings() {
    let machine = Machine::new();
    machine.ok(&["init"]);
    let origin = |done: &Value, key: &str| -> (String, String) {
        let row = done["settings"].as_array().unwrap().iter().find(|row| row["key"] == key).unwrap().clone();
        (row["value"].as_str().unwrap().to_owned(), row["origin"].as_str().unwrap_or_default().to_owned())
    };
    let show = ["config", "show", "--origin"];
    assert_eq!(origin(&machine.ok(&show), "ticket.ttl"), ("10m".to_owned(), "default".to_owned()));
    machine.ok(&["config", "set", "ticket.ttl", "1h"]);
    let file = machine.home().join("config.toml");
    let (value, from) = origin(&machine.ok(&show), "ticket.ttl");
    assert_eq!(value, "1h");
    assert!(from.starts_with(file.to_str().unwrap()), "{from}");
    let done = machine.run_in(&[("SEALTIDE_TICKET_TTL", "2h")], &show);
    assert_eq!(origin(&done.document(), "ticket.ttl"), ("2h".to_owned(), "variable SEALTIDE_TICKET_TTL".to_owned()));
    let done = machine.run(&["config", "show", "--origin", "--timeout", "5s"]);
    assert_eq!(origin(&done.document(), "sync.timeout"), ("5s".to_owned(), "flag".to_owned()));
    assert!(machine.ok(&["config", "show"])["settings"][0].get("origin").is_none());
    machine.fails(&["config", "set", "ticket.tll", "1h"], 2, "config");
    machine.fails(&["config", "set", "ticket.ttl", "soon"], 2, "config");
    fs::write(&file, "# mine\n[ticket]\nttl = \"1h\"\n\n[link]\nlisten_on = \"x\"\n").unwrap();
    let error = machine.fails(&["status"], 2, "config");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("config.toml:6") && message.contains("link.listen_on"), "{message}");
    assert!(error["hint"].as_str().unwrap().starts_with("link.listen? "), "{error}");
    machine.ok(&["--config", "/dev/null", "config", "show"]);
    machine.ok(&["config", "set", "ticket.ttl", "2h"]);
    fs::write(&file, "").unwrap();
    let node = machine.up(&[]);
    fs::write(&file, "[link]\nlisten_on = \"x\"\n").unwrap();
    machine.ok(&["down"]);
    drop(node);
    fs::write(&file, "[ticket\n").unwrap();
    machine.fails(&["status"], 2, "config");
    let other = machine.root().join("other.toml");
    fs::write(&other, "[ticket]\nttl = \"3h\"\n").unwrap();
    let done = machine.ok(&["--config", other.to_str().unwrap(), "config", "show"]);
    assert_eq!(origin(&done, "ticket.ttl").0, "3h");
    machine.fails(&["--config", "/nowhere/at/all.toml", "status"], 2, "config");
}

/// Settings come before the node as a rule, and the password of a proxy with them: nobody else reads it, and it need not stand among the
/// words of a command.
#[test]
fn settings_before_the_node_are_of_this_user_alone() {
    use std::os::unix::fs::PermissionsExt;

    let machine = Machine::new();
    let done = machine.run_with(&["config", "set", "proxy.url", "-"], "http://me:secret@proxy:1\n");
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!done.stdout.contains("secret"), "{done:?}");
    let file = machine.home().join("config.toml");
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), "[proxy]\nurl = \"http://me:secret@proxy:1\"");
    for (path, wanted) in [(machine.home(), 0o700), (file, 0o600)] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, wanted, "{}", path.display());
    }
}

/// An answer that nobody could read is not an answer.
#[test]
fn an_answer_that_is_lost_is_a_failure() {
    use std::process::Command;

    let machine = Machine::new();
    machine.ok(&["init"]);
    let run = |args: &[&str]| {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealtide"));
        command.arg("--home").arg(machine.home()).args(args).stdout(full).output().unwrap()
    };
    for args in [&["--json", "spaces", "list"][..], &["version"], &["gateway", "bearer", "ada"], &["man"]] {
        let done = run(args);
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{args:?}: {told}");
        assert!(told.contains("standard output") && told.contains("No space left"), "{args:?}: {told}");
    }
}

/// Words that no command takes, or that would do nothing.
#[test]
fn words_that_would_do_nothing_are_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    let machine = Machine::new();
    machine.fails(&["status", "--check", "--watch"], 2, "usage");
    let node = machine.share();
    let odd = OsStr::from_bytes(b"caf\xe9.tar");
    for (args, odd_at_home) in
        [(&["export", "Notes", "--format", "tar", "--out"][..], false), (&["status", "--home"], true)]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealtide"));
        command.current_dir(machine.root()).arg("--json");
        if !odd_at_home {
            command.arg("--home").arg(machine.home());
        }
        let done = command.args(args).arg(odd).output().unwrap();
        let told = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.code() == Some(2) && told.contains("UTF-8"), "{args:?}: {told} {done:?}");
    }
    assert!(!machine.root().join(odd).exists());
    let told = machine.plain(&["--offline-sign", "spaces", "list"]);
    assert!(told.code == 0 && told.stderr.contains("--offline-sign did nothing"), "{told:?}");
    drop(node);
}

/// A listener on port 0 asks for the port it got before.
#[test]
fn port_zero_keeps_its_port() {
    let mut pair = Pair::with(|notes| write(notes, "plan.md", "plan\n"));
    let before = pair.node_a.link_address().to_owned();
    assert!(pair.node_a.ready()["node"].as_str().unwrap().starts_with("stn1"));
    for _ in 0..2 {
        pair.node_a.stop();
        pair.node_a = pair.a.up(&[]);
        assert_eq!(pair.node_a.link_address(), before);
    }
    // So the other side finds it again, whoever dials.
    write(&pair.b.notes(), "later.md", "later\n");
    pair.agree_and_verify();
    let events = pair.node_b.events();
    assert!(events.iter().any(|event| event["event"] == "peer_connected"), "{events:?}");
    assert!(events.iter().all(|event| event["schema"] == "sealtide/event/1"), "{events:?}");
}

/// What plumbing, shells and manuals need.
// Proves: SY-1
#[test]
fn plumbing() {
    let machine = Machine::new();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/ibgib/hashing.json");
    let vectors: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    let input: String = cases.iter().map(|case| format!("{case}\n")).collect();
    let done = machine.run_with(&["ibgib", "hash"], &input);
    assert_eq!(done.code, 0, "{done:?}");
    let answers: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), cases.len());
    for (case, answer) in cases.iter().zip(&answers) {
        for (name, wanted) in case["expect"].as_object().unwrap() {
            assert_eq!(&answer[name], wanted, "{}: {name}", case["id"]);
        }
    }
    let bad = machine.run_with(&["ibgib", "hash"], "nonsense\n{}\n");
    assert_eq!((bad.code, bad.stdout.lines().count()), (0, 2), "{bad:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = machine.plain(&["completions", shell]);
        assert!(script.code == 0 && script.stdout.contains("sealtide"), "{shell}");
    }
    let page = machine.plain(&["man"]);
    assert!(page.code == 0 && page.stdout.contains(".TH"), "{page:?}");
    assert_eq!(machine.ok(&["version"])["version"], env!("CARGO_PKG_VERSION"));
    assert!(!machine.home().exists(), "none of these makes a home");
}

/// The result of the last finding of a check.
fn result_of<'a>(document: &'a Value, check: &str) -> &'a str {
    let findings = document["findings"].as_array().unwrap();
    findings.iter().rfind(|finding| finding["check"] == check).map_or("", |found| found["result"].as_str().unwrap())
}

/// What the doctor says of ways that are broken in one place.
fn culprits(machine: &Machine, ticket: &str, door: &str) {
    let culprit = |variables: &[(&str, &str)], target: &str| {
        let done = machine.run_in(variables, &["doctor", target]);
        let document = done.document();
        let culprit = document["culprit"]["check"].as_str().unwrap_or_default().to_owned();
        assert_eq!(document["error"].is_null(), done.code == 0, "{document}");
        assert_eq!(document["ok"], done.code == 0, "{document}");
        (done.code, culprit, document)
    };
    // Somebody who refuses, someone who hangs up, and a name that is none.
    let refuses = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://me:sesame@{}", refuses.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut tcp in refuses.incoming().map_while(Result::ok) {
            let _ = tcp.read(&mut [0; 1024]);
            let _ = tcp.write_all(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n");
        }
    });
    let through = [("HTTPS_PROXY", proxy.as_str()), ("SEALTIDE_PROXY_THROUGH", "127.0.0.1")];
    for target in [ticket, door] {
        let (code, check, document) = culprit(&through, target);
        assert_eq!((code, check.as_str()), (7, "proxy"), "{document}");
        let text = document.to_string();
        assert!(text.contains("407") && text.contains("HTTPS_PROXY") && !text.contains("sesame"), "{text}");
    }
    let (code, check, document) = culprit(&[("ALL_PROXY", "socks4://x")], "peer.invalid:7443");
    assert_eq!((code, check.as_str()), (1, "proxy"), "{document}");
    let hangs_up = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = hangs_up.local_addr().unwrap().to_string();
    std::thread::spawn(move || hangs_up.incoming().map_while(Result::ok).for_each(drop));
    let (code, check, document) = culprit(&[], &address);
    assert_eq!((code, check.as_str()), (7, "tls"), "{document}");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, check, document) = culprit(&[], &free);
    assert_eq!((code, check.as_str()), (7, "tcp"), "{document}");
    let (code, check, document) = culprit(&[], "peer.invalid:7443");
    assert_eq!((code, check.as_str()), (7, "dns"), "{document}");
    // The same as text: the culprit is the error, with a hint.
    let done = machine.plain(&["doctor", &free]);
    assert!(done.code == 7 && done.stderr.contains("error: tcp:") && done.stderr.contains("hint:"), "{done:?}");
}

#[test]
fn doctor_and_down() {
    let mut pair = Pair::with(|notes| write(notes, "plan.md", "plan\n"));
    assert_eq!(pair.a.ok(&["doctor"])["ok"], true);
    let ticket = pair.a.ok(&["ticket", "new"])["ticket"].as_str().unwrap().to_owned();
    let stranger = Machine::new();
    let found = stranger.ok(&["doctor", &ticket]);
    assert_eq!((result_of(&found, "home"), result_of(&found, "handshake")), ("warn", "warn"), "{found}");
    assert!(!stranger.home().exists(), "a look makes no home");
    assert_eq!(stranger.ok(&["init", "--name", "stranger"])["made"], true);
    assert_eq!(stranger.ok(&["init"])["made"], false);
    let found = stranger.ok(&["doctor", &ticket]);
    assert_eq!(found["ok"], true, "{found}");
    stranger.fails(&["doctor", "nobody"], 2, "no_peer");
    for check in ["tcp", "tls", "inspection", "upgrade", "clock"] {
        assert_eq!(result_of(&found, check), "ok", "{found}");
    }
    assert_eq!(result_of(&found, "handshake"), "warn", "it is not enrolled: {found}");
    let peer = pair.b.ok(&["peers", "list"])["peers"][0]["node"].as_str().unwrap().to_owned();
    let found = pair.b.ok(&["doctor", &peer]);
    assert_eq!(result_of(&found, "handshake"), "ok", "{found}");
    let door = pair.node_a.link_address().to_owned();
    let found = stranger.ok(&["doctor", &door]);
    assert_eq!((result_of(&found, "upgrade"), result_of(&found, "handshake")), ("ok", "skip"), "{found}");
    culprits(&stranger, &ticket, &door);
    pair.b.ok(&["down"]);
    assert_eq!(pair.node_b.wait(), 0);
    assert!(!pair.b.home().join("control.sock").exists());
    pair.b.ok(&["verify"]);
    pair.a.fails(&["sync", "--timeout", "2s"], 7, "no_route");
    until("the first sees that it is gone", || {
        let peer = pair.a.space()["peers"][0].clone();
        if peer["connected"] == false { Ok(()) } else { Err(peer.to_string()) }
    });
    pair.a.fails(&["status", "--check"], 1, "not_in_step");
    let alone = Machine::new();
    write(&alone.notes(), "x", "x");
    let _node = alone.share();
    alone.fails(&["sync"], 7, "no_peers");
    alone.in_step();
}

/// An empty SEALTIDE_HOME is as good as none; an empty `--home`, as of a variable that is not set in a script, is refused.
#[test]
fn an_empty_variable_names_no_home() {
    let data = tempfile::TempDir::new().unwrap();
    let run = |words: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sealtide"));
        command.args(words).env("SEALTIDE_HOME", "").env("XDG_DATA_HOME", data.path()).output().unwrap()
    };
    let done = run(&["--json", "init"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(data.path().join("sealtide/node.key").exists());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sealtide"));
    let done = command.args(["--home", "", "status"]).env_remove("SEALTIDE_HOME").output().unwrap();
    assert_eq!(done.status.code(), Some(2), "{}", String::from_utf8_lossy(&done.stderr));
}
