//! The node through its own door, as a page asks: who may, what is passed on, what is told of changes.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::door::{read_head, text_frame};
use crate::support::{Machine, Running, until};

/// A browser, as far as a door can tell.
struct Browser {
    at: String,
    cookie: Option<String>,
}

impl Browser {
    fn of(node: &Running) -> Self {
        Self { at: node.gateway().trim_start_matches("http://").to_owned(), cookie: None }
    }

    /// Somebody who signed in by the code in the link that the node printed.
    fn signed_in(node: &Running) -> Self {
        let mut browser = Self::of(node);
        let link = node.ready()["dashboard"].as_str().unwrap().to_owned();
        let code = link.split_once("#code=").unwrap().1;
        assert!(link.starts_with(node.gateway()), "{link}");
        let (status, told) = browser.sign_in(code);
        assert_eq!((status, &told["role"]), (200, &json!("admin")), "{told}");
        browser
    }

    fn sign_in(&mut self, code: &str) -> (u16, Value) {
        let answer = self.ask("POST /api/auth/session", &[], &json!({"code": code}).to_string());
        let line = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).map(str::to_owned);
        self.cookie = line.map(|line| line.split(';').next().unwrap().to_owned()).or(self.cookie.take());
        (status(&answer), body(&answer))
    }

    fn head(&self, request: &str, lines: &[&str]) -> String {
        let cookie = self.cookie.iter().map(|cookie| format!("Cookie: {cookie}\r\n")).collect::<String>();
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        format!("{request} HTTP/1.1\r\nHost: {}\r\n{cookie}{lines}", self.at)
    }

    fn bytes(&self, request: &str, lines: &[&str], body: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(&self.at).unwrap();
        let kind = "Content-Type: application/json";
        let head = self.head(request, &[lines, &[kind, "Connection: close"]].concat());
        stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    fn ask(&self, request: &str, lines: &[&str], body: &str) -> String {
        String::from_utf8(self.bytes(request, lines, body)).unwrap()
    }

    fn call(&self, request: &Value) -> (u16, Value) {
        let answer = self.ask("POST /api/node/call", &[], &request.to_string());
        (status(&answer), body(&answer))
    }

    fn token(&self, purpose: &str) -> String {
        let told = body(&self.ask(&format!("GET /api/auth/csrf-token?purpose={purpose}"), &[], ""));
        told["token"].as_str().unwrap().to_owned()
    }

    fn change(&self, request: &Value) -> (u16, Value) {
        let token = format!("X-CSRF-Token: {}", self.token("http"));
        let answer = self.ask("POST /api/node/call", &[&token], &request.to_string());
        (status(&answer), body(&answer))
    }

    /// A WebSocket that watches the node.
    fn watch(&self) -> Messages {
        let mut stream = TcpStream::connect(&self.at).unwrap();
        let offer = format!("Sec-WebSocket-Protocol: tes-ui-v1, tes-token.{}", self.token("ws"));
        let origin = format!("Origin: http://{}", self.at);
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        let lines = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", key, &offer, &origin];
        stream.write_all(format!("{}\r\n", self.head("GET /version/ws", &lines)).as_bytes()).unwrap();
        let head = read_head(&mut stream);
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        stream.write_all(&text_frame(r#"{"type":"watch","id":"w"}"#)).unwrap();
        Messages(stream)
    }
}

/// What a WebSocket says.
struct Messages(TcpStream);

impl Messages {
    fn next(&mut self) -> Value {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let mut length = usize::from(head[1]);
        if length == 126 {
            let mut long = [0; 2];
            self.0.read_exact(&mut long).unwrap();
            length = usize::from(u16::from_be_bytes(long));
        }
        let mut message = vec![0; length];
        self.0.read_exact(&mut message).unwrap();
        match head[0] {
            0x81 => serde_json::from_slice(&message).unwrap(),
            0x89 => self.next(),
            other => panic!("frame {other:x}: {}", String::from_utf8_lossy(&message)),
        }
    }

    /// Reads until one of these topics is told of.
    fn until(&mut self, topic: &str) {
        while !self.next()["topics"].as_array().is_some_and(|topics| topics.iter().any(|it| it == topic)) {}
    }
}

fn status(answer: &str) -> u16 {
    answer[9..12].parse().unwrap()
}

fn body(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or(Value::Null)
}

#[test]
fn nobody_without_a_sign_in_sees_the_node_and_every_change_stands_in_the_audit() {
    let machine = Machine::new();
    std::fs::write(machine.notes().join("plan.md"), "one\n").unwrap();
    let node = machine.share();
    machine.recorded();
    let stranger = Browser::of(&node);
    let page = stranger.ask("GET /dashboard/", &[], "");
    assert!(status(&page) == 200 && page.contains("content-security-policy: default-src 'none'"), "{page}");
    let ask = json!({"command": "status"});
    assert_eq!(stranger.call(&ask).0, 401, "on this machine neither");
    for path in ["file?space=Notes&path=plan.md", "audit", "trust?app=kiosk"] {
        assert_eq!(status(&stranger.ask(&format!("GET /api/node/{path}"), &[], "")), 401, "{path}");
    }
    assert_eq!(Browser::of(&node).sign_in("AAAA").0, 401);

    let browser = Browser::signed_in(&node);
    let (_, told) = browser.call(&ask);
    assert_eq!(told["result"]["spaces"][0]["name"], "Notes", "{told}");
    let foreign = ["Origin: https://evil.example"];
    assert_eq!(status(&browser.ask("POST /api/node/call", &foreign, &ask.to_string())), 403);
    let link = node.ready()["dashboard"].as_str().unwrap();
    assert_eq!(Browser::of(&node).sign_in(link.split_once("#code=").unwrap().1).0, 401, "a code is good once");

    let pause = json!({"command": "pause", "space": "Notes"});
    let (refused, told) = browser.call(&pause);
    assert_eq!((refused, &told["code"]), (403, &json!("CSRF_INVALID")));
    assert_eq!(machine.space()["paused"], false);
    let (done, told) = browser.change(&pause);
    assert_eq!((done, machine.space()["paused"].clone()), (200, json!(true)), "{told}");
    let line = browser.call(&json!({
        "command": "audit_lines", "before": null, "since": told["audit"].as_u64().unwrap() - 1, "limit": 1,
        "filter": {"event": "console:"},
    }));
    let line = &line.1["result"]["lines"][0];
    assert_eq!(
        (&line["principal"], &line["command"], &line["space"]),
        (&json!("local:"), &json!("pause"), &json!("Notes"))
    );
    for never in [
        json!({"command": "down"}),
        json!({"command": "share", "dirs": ["/etc"]}),
        json!({"command": "export", "space": "Notes", "format": "dir", "out": "/tmp/sealtide-never"}),
    ] {
        assert_eq!(browser.change(&never).0, 403, "{never}");
    }
    assert_eq!(browser.change(&json!({"command": "nonsense"})).0, 400);
    let failed = browser.change(&json!({"command": "pause", "space": "Nope"}));
    assert_eq!((failed.0, &failed.1["error"]["code"]), (400, &json!("no_space")), "{failed:?}");
    assert_eq!(machine.ok(&["audit", "verify"])["ok"], true);
}

#[test]
fn who_may_read_changes_nothing() {
    let machine = Machine::new();
    machine.ok(&["init"]);
    let bearer = machine.ok(&["gateway", "bearer", "ada", "--role", "reader"])["token"].as_str().unwrap().to_owned();
    let node = machine.share();
    let browser = Browser::of(&node);
    let bearer = format!("Authorization: Bearer {bearer}");
    let ask = |request: Value| {
        let answer = browser.ask("POST /api/node/call", &[&bearer], &request.to_string());
        (status(&answer), body(&answer))
    };
    assert_eq!(ask(json!({"command": "status"})).0, 200);
    for request in [
        json!({"command": "pause", "space": null}),
        json!({"command": "ticket_new", "space": "Notes", "role": "admin", "ttl_s": 60, "uses": 1}),
        json!({"command": "ticket_list"}),
        json!({"command": "peers_revoke", "peer": "x"}),
    ] {
        let (status, told) = ask(request.clone());
        assert_eq!((status, &told["code"]), (403, &json!("FORBIDDEN")), "{request}");
    }
    assert_eq!(status(&browser.ask("GET /api/node/audit", &[&bearer], "")), 403);
}

/// A bumper changes what spaces hold, and neither who may do what nor keys.
#[test]
fn who_may_bump_does_not_rule() {
    let machine = Machine::new();
    machine.ok(&["init"]);
    let bearer = machine.ok(&["gateway", "bearer", "ada", "--role", "bumper"])["token"].as_str().unwrap().to_owned();
    let node = machine.share();
    let browser = Browser::of(&node);
    let bearer = format!("Authorization: Bearer {bearer}");
    let ask = |request: Value| {
        let token = body(&browser.ask("GET /api/auth/csrf-token?purpose=http", &[&bearer], ""));
        let token = format!("X-CSRF-Token: {}", token["token"].as_str().unwrap());
        let answer = browser.ask("POST /api/node/call", &[&bearer, &token], &request.to_string());
        (status(&answer), body(&answer))
    };
    let (done, told) = ask(json!({"command": "pause", "space": "Notes"}));
    assert_eq!((done, machine.space()["paused"].clone()), (200, json!(true)), "{told}");
    for request in [
        json!({"command": "ticket_new", "space": "Notes", "role": "admin", "ttl_s": 60, "uses": 1}),
        json!({"command": "ticket_list"}),
        json!({"command": "peers_revoke", "peer": "x"}),
        json!({"command": "hold_decide", "space": "Notes", "accept": true}),
        json!({
            "command": "keys", "keys": "change", "change": {"change": "new", "version": null}, "expect": null,
            "reason": "", "dry_run": false,
        }),
    ] {
        let (status, told) = ask(request.clone());
        assert_eq!((status, &told["code"]), (403, &json!("FORBIDDEN")), "{request}");
    }
}

/// A door that is open takes somebody new, and lets somebody go, when it is told to look.
// Proves: GW-85
#[test]
fn a_running_node_reads_the_bearers_again() {
    let machine = Machine::new();
    machine.ok(&["init"]);
    let mut node = machine.share();
    let made = machine.plain(&["gateway", "bearer", "ada", "--role", "reader"]);
    assert!(made.code == 0 && made.stderr.contains("SIGHUP"), "{made:?}");
    let browser = Browser::of(&node);
    let bearer = format!("Authorization: Bearer {}", made.stdout.trim());
    let ask = || status(&browser.ask("POST /api/node/call", &[&bearer], r#"{"command":"status"}"#));
    assert_eq!(ask(), 401);
    let answers = |wanted: u16| {
        node.hang_up();
        until("the door has looked", || match ask() {
            now if now == wanted => Ok(()),
            now => Err(format!("{now} {}", machine.told())),
        });
    };
    answers(200);
    std::fs::remove_file(machine.home().join("bearers")).unwrap();
    answers(401);
    node.stop();
}

#[test]
fn a_directory_comes_in_pages_and_a_file_as_it_is() {
    let machine = Machine::new();
    for name in ["b/1.txt", "b/c/2.txt", "a.txt", "z.txt", "m.txt"] {
        let path = machine.notes().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }
    let large: Vec<u8> = (0..3_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(machine.notes().join("ü large.bin"), &large).unwrap();
    let node = machine.share();
    machine.recorded();
    let browser = Browser::signed_in(&node);
    let page = |under: &str, after: Option<&str>| {
        let request = json!({"command": "files", "space": "Notes", "under": under, "after": after, "limit": 2});
        let told = browser.call(&request).1["result"].take();
        let names: Vec<String> =
            told["entries"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect();
        (names.join(" "), told["more"].as_bool().unwrap(), told)
    };
    let (names, more, told) = page("", None);
    assert_eq!((names.as_str(), more, &told["total"]), ("b a.txt", true, &json!(5)), "directories first: {told}");
    assert_eq!((&told["entries"][0]["kind"], &told["entries"][0]["files"]), (&json!("dir"), &json!(2)));
    assert_eq!((&told["entries"][1]["bytes"], &told["entries"][1]["by_name"]), (&json!(5), &json!("this node")));
    assert_eq!(page("", Some("a.txt")).0, "m.txt z.txt");
    assert_eq!(page("", Some("z.txt")).0, "ü large.bin");
    assert_eq!(
        (page("b", None).0, page("b/c", None).0, page("none", None).0),
        ("c 1.txt".into(), "2.txt".into(), String::new())
    );

    let answer = browser.bytes("GET /api/node/file?space=Notes&path=%C3%BC%20large.bin", &[], "");
    assert!(answer.ends_with(&large) && answer.starts_with(b"HTTP/1.1 200"));
    let head = String::from_utf8_lossy(&answer[..answer.len() - large.len()]).into_owned();
    assert!(head.contains("attachment; filename*=UTF-8''%C3%BC%20large.bin") && head.contains("sandbox"), "{head}");
    std::fs::write(machine.notes().join("a.txt"), "second").unwrap();
    until("the second version is there", || match machine.ok(&["log", "Notes:a.txt"])["entries"].as_array() {
        Some(entries) if entries.len() == 2 => Ok(()),
        entries => Err(format!("{entries:?}")),
    });
    let text = |version: &str| browser.ask(&format!("GET /api/node/file?space=Notes&path=a.txt{version}"), &[], "");
    assert!(text("").ends_with("\r\n\r\nsecond") && text("&version=@0").ends_with("\r\n\r\na.txt"));
    assert_eq!(status(&text("&version=@9")), 404);
    let export = browser.ask("GET /api/node/audit", &[], "");
    assert!(export.contains("sealtide/audit_export") && export.contains("{\"end\":"), "{}", &export[..500]);
}

#[test]
fn whoever_watches_is_told_what_changed() {
    let machine = Machine::new();
    let mut node = machine.share();
    let mut stranger = Browser::of(&node).watch();
    assert_eq!(stranger.next()["code"], "UNAUTHENTICATED");
    let browser = Browser::signed_in(&node);
    let mut messages = browser.watch();
    assert_eq!(messages.next()["type"], "watching");
    // Everything once, for what changed in between.
    messages.until("status");
    std::fs::write(machine.notes().join("new.md"), "one\n").unwrap();
    messages.until("files:Notes");
    browser.change(&json!({"command": "pause", "space": "Notes"}));
    messages.until("status");
    browser.change(&json!({
        "command": "keys", "keys": "change", "change": {"change": "new", "version": null}, "expect": null,
        "reason": "", "dry_run": false,
    }));
    messages.until("keys");
    node.stop();
    // The door says that it goes: a close frame.
    let mut rest = Vec::new();
    messages.0.read_to_end(&mut rest).unwrap();
    assert!(rest.windows(2).any(|pair| pair[0] == 0x88), "{rest:?}");
}
