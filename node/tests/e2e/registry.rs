//! One registry at several nodes: read everywhere, written by one, handed over.

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::support::{Machine, Running, until};

/// A node with a whole door.
struct Seat {
    machine: Machine,
    node: Running,
}

impl Seat {
    fn new() -> Self {
        let machine = Machine::new();
        let node = machine.up_in(&[("SEALTIDE_GATEWAY_APP", "yes")], &[]);
        Self { machine, node }
    }

    fn again(&mut self) {
        self.node = self.machine.up_in(&[("SEALTIDE_GATEWAY_APP", "yes")], &[]);
    }

    /// Starts anew, and ends at this point of a hand-over.
    fn until_killed_at(&mut self, point: &str) {
        self.node.stop();
        let point = format!("{point}:1");
        self.node = self.machine.up_in(&[("SEALTIDE_GATEWAY_APP", "yes"), ("SEALTIDE_FAILPOINT", &point)], &[]);
    }

    /// Hands over, as soon as it knows the ledger of the other, and is killed by that.
    #[track_caller]
    fn dies_handing_over_to(&mut self, other: &Self) {
        until("it is killed", || {
            let cut = self.machine.run(&["release", "registry", "hand-over", &other.id()]);
            assert!(cut.code != 0, "{cut:?}");
            if self.node.is_alive() { Err(format!("{cut:?}")) } else { Ok(()) }
        });
        assert!(self.node.wait() < 0);
    }

    /// Waits until this node says whether it writes the registry.
    #[track_caller]
    fn owns(&self, is_own: bool) {
        until("who writes", || {
            let shown = self.registry(&["show"]);
            if shown["own"] == is_own { Ok(()) } else { Err(format!("{shown} {}", self.machine.told())) }
        });
    }

    fn door(&self) -> Gateway {
        Gateway { child: None, at: self.node.gateway().trim_start_matches("http://").to_owned() }
    }

    fn id(&self) -> String {
        self.node.ready()["node"].as_str().unwrap().to_owned()
    }

    fn registry(&self, words: &[&str]) -> Value {
        self.machine.ok(&[&["release", "registry"], words].concat())
    }

    /// The name of the HMAC key that signs here.
    fn kid(&self) -> String {
        let keys = self.machine.ok(&["keys", "status"]);
        let own = keys["versions"][0]["keys"].as_array().unwrap();
        let hmac = own.iter().find(|key| key["alg"] == "HMAC-SHA256").unwrap();
        hmac["kid"].as_str().unwrap().to_owned()
    }

    fn joins(&self, other: &Self, role: &str) {
        let ticket = other.machine.ok(&["ticket", "new", "--space", "registry", "--role", role])["ticket"].clone();
        assert_eq!(self.machine.ok(&["join", ticket.as_str().unwrap(), "--wait"])["name"], "registry");
        assert_eq!(self.registry(&["follow", "registry"])["writer"], other.id().as_str());
    }

    /// Waits until this door shows a revision.
    #[track_caller]
    fn shows(&self, revision: &Value) {
        until("the door shows the revision", || {
            let shown = self.door().get("/version/registry");
            if shown["revision"] == *revision { Ok(()) } else { Err(format!("{shown}\n{}", self.machine.told())) }
        });
    }

    /// A bump, again and again while the writer is not reached.
    #[track_caller]
    fn bumps(&self) -> Value {
        until("a bump", || {
            let told = self.door().bump(r#"{"entityId":"api:sample"}"#);
            if told["success"] == true { Ok(told) } else { Err(format!("{told}\n{}", self.machine.told())) }
        })
    }
}

// Proves: GW-108
#[test]
fn registry_writer() {
    let (mut a, mut b, c) = (Seat::new(), Seat::new(), Seat::new());
    a.machine.ok(&["release", "bump", "minor"]);
    let shared = a.registry(&["share"]);
    assert_eq!((&shared["own"], &shared["revision"]), (&json!(true), &json!(2)), "{shared}");
    assert_eq!(a.machine.run(&["release", "registry", "share"]).code, 2, "once");
    b.joins(&a, "write");
    c.joins(&a, "read");
    let (ours, theirs) = (a.door().get("/version/registry"), b.door().get("/version/registry"));
    assert_eq!((&ours["entities"], &ours["registrySignature"]), (&theirs["entities"], &theirs["registrySignature"]));
    assert!(theirs["registrySignature"].is_string());

    // Passed on: the writer's key, the writer's number, and the same registry everywhere.
    let told = b.bumps();
    assert_eq!((&told["revision"], told["kid"].as_str().unwrap()), (&json!(3), a.kid().as_str()), "{told}");
    let signed = told["signature"].as_str().unwrap();
    assert_eq!(signed.len(), 64);
    for seat in [&a, &b, &c] {
        seat.shows(&json!(3));
    }
    assert_eq!(b.machine.ok(&["release", "bump", "--entity", "api:sample"])["revision"], 4);
    assert_eq!(b.door().bump(r#"{"dryRun":true}"#)["dryRun"], true);
    // What the writer refuses is refused here in its words.
    assert_eq!(b.door().bump(r#"{"entityId":"api:none"}"#)["code"], "ENTITY_NOT_FOUND");
    assert_eq!(b.door().bump(r#"{"entityId":"api:sample","crypto":"ed25519"}"#)["code"], "INVALID_FIELD");
    // Who may only read the space reads it.
    assert_eq!(c.door().bump(r#"{"entityId":"api:sample"}"#)["code"], "FORBIDDEN");

    // Offline: read goes on, and a bump says when to try again.
    b.shows(&json!(4));
    a.node.stop();
    until("the session is gone", || match b.door().bump(r#"{"entityId":"api:sample"}"#) {
        told if told["code"] == "WRITER_UNREACHABLE" => Ok(()),
        told => Err(told.to_string()),
    });
    let token = b.door().get("/api/auth/csrf-token")["token"].as_str().unwrap().to_owned();
    let lines = ["Content-Type: application/json".to_owned(), format!("X-CSRF-Token: {token}")];
    let refused = b.door().ask("POST /version/bump", &lines, "{}").to_lowercase();
    assert!(refused.starts_with("http/1.1 503") && refused.contains("retry-after: 5"), "{refused}");
    assert_eq!(b.door().get("/version/registry")["revision"], 4);
    a.again();
    let told = b.bumps();
    assert_eq!(told["kid"].as_str().unwrap(), a.kid().as_str());

    // Handed over: from here on the other's key signs, also after both started anew.
    b.shows(&told["revision"]);
    c.machine.fails(&["release", "registry", "hand-over", &a.id()], 6, "not_the_writer");
    let handed = a.registry(&["hand-over", &b.id()]);
    assert_eq!((&handed["own"], &handed["writer"]), (&json!(false), &json!(b.id())), "{handed}");
    b.owns(true);
    for round in 0..2 {
        let told = [a.bumps(), b.bumps()];
        assert!(told.iter().all(|told| told["kid"].as_str().unwrap() == b.kid()), "{told:?}");
        for seat in [&a, &b, &c] {
            seat.shows(&told[1]["revision"]);
        }
        if round == 0 {
            a.node.stop();
            b.node.stop();
            a.again();
            b.again();
        }
    }
    // And back.
    b.registry(&["hand-over", &a.id()]);
    a.owns(true);
    let told = b.bumps();
    assert_eq!(told["kid"].as_str().unwrap(), a.kid().as_str());
    for seat in [&a, &b, &c] {
        seat.shows(&told["revision"]);
        seat.machine.ok(&["audit", "verify"]);
    }
}

/// Both directions: what is taken over stands beside the registry that the node began, and what comes back goes on in its own.
// Proves: GW-108
#[test]
fn a_kill_while_a_registry_changes_hands_is_gone_on_from() {
    changes_hands_with_a_kill_at("registry_copied");
}

// Proves: GW-108
#[test]
fn a_kill_between_two_parts_of_a_registry_that_changes_hands_is_gone_on_from() {
    changes_hands_with_a_kill_at("registry_copying");
}

/// Whoever takes it over is killed at this point.
fn changes_hands_with_a_kill_at(point: &str) {
    let (mut a, mut b) = (Seat::new(), Seat::new());
    a.machine.ok(&["release", "bump", "minor"]);
    a.registry(&["share"]);
    b.joins(&a, "write");
    b.bumps();
    for _ in 0..2 {
        // `a` writes, and `b` is to go on; each is killed where it has done a part of that.
        a.until_killed_at("registry_handing");
        a.dies_handing_over_to(&b);
        a.again();
        a.owns(true);
        a.until_killed_at("registry_handed");
        b.until_killed_at(point);
        a.dies_handing_over_to(&b);
        a.again();
        a.owns(false);
        assert!(b.node.wait() < 0);
        b.again();
        b.owns(true);
        let told = a.bumps();
        assert_eq!(told["kid"].as_str().unwrap(), b.kid(), "{told}");
        for seat in [&a, &b] {
            seat.shows(&told["revision"]);
            seat.machine.ok(&["audit", "verify"]);
        }
        std::mem::swap(&mut a, &mut b);
    }
}
