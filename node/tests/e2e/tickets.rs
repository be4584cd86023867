//! Who gets in: tickets of every kind, revoked peers, and impostors.

use std::fs;

use sealtide_identity::{InviteSecret, NodeId, Ticket};
use serde_json::Value;

use crate::support::{Machine, Pair, Running, until, watch, write};

struct Issuer {
    machine: Machine,
    node: Running,
}

fn issuer() -> Issuer {
    let machine = Machine::new();
    write(&machine.notes(), "plan.md", "plan\n");
    let node = machine.share();
    Issuer { machine, node }
}

impl Issuer {
    fn ticket(&self, args: &[&str]) -> Value {
        let mut words = vec!["ticket", "new"];
        words.extend(args);
        self.machine.ok(&words)
    }
}

fn text(ticket: &Value) -> &str {
    ticket["ticket"].as_str().unwrap()
}

/// A fresh machine with this ticket is refused: exit code, machine code, and no space is left behind.
#[track_caller]
fn refused(ticket: &str, exit: i32, code: &str) {
    let guest = Machine::new();
    write(&guest.notes(), "own.md", "own\n");
    guest.fails(&["join", ticket, guest.notes_text(), "--timeout", "20s"], exit, code);
    if guest.home().exists() {
        let spaces = guest.ok(&["spaces", "list"]);
        assert_eq!(spaces["spaces"].as_array().unwrap().len(), 0, "{spaces}");
    }
    assert_eq!(fs::read_dir(guest.notes()).unwrap().count(), 1, "the directory is as it was");
}

// Proves: LK-3
#[test]
fn a_mistyped_ticket_is_told_before_anything_is_made() {
    let issuer = issuer();
    let ticket = issuer.node.ticket();
    let mut letters: Vec<char> = ticket.chars().collect();
    for place in [5, letters.len() / 2, letters.len() - 1] {
        let right = letters[place];
        letters[place] = if right == 'q' { 'p' } else { 'q' };
        refused(&letters.iter().collect::<String>(), 2, "ticket");
        letters[place] = right;
    }
    refused(&ticket[..ticket.len() - 3], 2, "ticket");
    refused("not a ticket", 2, "ticket");
    let guest = Machine::new();
    guest.fails(&["join", "stt1nonsense"], 2, "ticket");
    assert!(!guest.home().exists(), "a mistyped ticket leaves no home behind");
    issuer.machine.fails(&["join", ticket], 2, "own_ticket");
    // Spaces and line breaks of a mail around it do no harm.
    let good = Machine::new();
    good.ok(&["join", &format!(" {ticket}\n"), good.notes_text(), "--wait"]);
}

// Proves: SY-100, LK-4
#[test]
fn tickets_that_are_over_let_nobody_in() {
    let issuer = issuer();
    let short = issuer.ticket(&["--ttl", "1s"]);
    let taken_back = issuer.ticket(&[]);
    issuer.machine.ok(&["ticket", "revoke", &taken_back["id"].as_str().unwrap()[..10]]);
    let state = |id: &Value| -> Value {
        let listed = issuer.machine.ok(&["ticket", "list"]);
        let found = listed["tickets"].as_array().unwrap().iter().find(|ticket| ticket["id"] == *id).cloned();
        found.map_or(Value::Null, |ticket| ticket["state"].clone())
    };
    until("the ticket is over", || match state(&short["id"]) {
        over if over == "expired" => Ok(()),
        other => Err(other.to_string()),
    });
    refused(text(&short), 6, "refused");
    assert_eq!(state(&taken_back["id"]), Value::Null);
    refused(text(&taken_back), 6, "refused");
    // One use, and it is taken.
    let single = issuer.ticket(&[]);
    let guest = Machine::new();
    let joined = guest.ok(&["join", text(&single), guest.notes_text(), "--wait"]);
    assert_eq!(joined["role"], "write");
    assert_eq!(state(&single["id"]), "used_up");
    refused(text(&single), 6, "refused");
    // An invite that the issuer never made, and one with another secret.
    let mut forged = Ticket::decode(text(&issuer.ticket(&[]))).unwrap();
    let (id, _) = forged.invite.clone().unwrap();
    forged.invite = Some((id, InviteSecret::from_bytes([7; 32])));
    refused(&forged.encode(), 6, "refused");
    forged.invite = Some(([9; 16], InviteSecret::from_bytes([7; 32])));
    refused(&forged.encode(), 6, "refused");
    // Two uses are two guests.
    let double = issuer.ticket(&["--uses", "2", "--role", "read"]);
    for _ in 0..2 {
        let guest = Machine::new();
        assert_eq!(guest.ok(&["join", text(&double), guest.notes_text(), "--wait"])["role"], "read");
    }
    refused(text(&double), 6, "refused");
    issuer.machine.fails(&["ticket", "new", "--uses", "0"], 2, "ticket");
    issuer.machine.fails(&["ticket", "new", "--space", "Nothing"], 2, "no_space");
    issuer.machine.fails(&["ticket", "revoke", "00000000"], 2, "no_ticket");
}

/// A further space from a node that is connected already, and dials back as soon as a session ends: each time the session
/// of the invite is the one that comes to stand.
// Proves: LK-111
#[test]
fn joining_further_spaces_of_a_connected_node() {
    let pair = Pair::with(|notes| write(notes, "plan.md", "plan\n"));
    pair.agree();
    for number in 0..20 {
        let name = format!("space-{number}");
        pair.a.ok(&["spaces", "create", &name]);
        pair.a.run_with(&["put", &name, "note"], &format!("{{\"number\": {number}}}"));
        let ticket = pair.a.ok(&["ticket", "new", "--space", &name]);
        let joined = pair.b.ok(&["join", text(&ticket), "--wait"]);
        assert_eq!((&joined["name"], &joined["in_step"]), (&Value::from(name.as_str()), &Value::from(true)));
        let got = pair.b.ok(&["get", &format!("{name}:note")]);
        assert!(got.to_string().contains(&format!("\"number\":{number}")), "{got}");
    }
    pair.agree_and_verify();
}

#[test]
fn nobody_there() {
    let mut issuer = issuer();
    let ticket = issuer.node.ticket().to_owned();
    issuer.node.stop();
    refused(&ticket, 7, "no_route");
    let guest = Machine::new();
    guest.fails(&["doctor", &ticket], 7, "doctor");
    assert!(!guest.home().exists(), "a look makes no home");
    guest.ok(&["init"]);
    guest.fails(&["doctor", &ticket], 7, "doctor");
}

/// Somebody else answers at the address of the ticket: it is seen, nothing is told to them, and the use of the ticket is
/// not lost.
// Proves: LK-17
#[test]
fn somebody_else_answers() {
    let (issuer, impostor) = (issuer(), issuer());
    let ticket = Ticket::decode(issuer.node.ticket()).unwrap();
    let other = Ticket::decode(impostor.node.ticket()).unwrap();
    // The right node by name, at the address of another.
    let misled = Ticket { addresses: other.addresses.clone(), ..ticket.clone() };
    refused(&misled.encode(), 6, "no_answer");
    // A node that does not exist, at an address where one answers.
    let renamed = Ticket { node: NodeId::from_bytes([3; 32]), ..ticket.clone() };
    refused(&renamed.encode(), 6, "no_answer");
    let guest = Machine::new();
    guest.ok(&["join", &ticket.encode(), guest.notes_text(), "--wait"]);
}

/// A revoked peer is cut off at once, in both directions, and neither its old ticket nor a used one lets it in again.
// Proves: SY-101
#[test]
fn a_revoked_peer_is_out_at_once() {
    let mut pair = Pair::with(|notes| write(notes, "plan.md", "plan\n"));
    let again = pair.a.ok(&["ticket", "new", "--uses", "5"]);
    pair.agree();
    let peers = pair.a.ok(&["peers", "list"]);
    let peer = peers["peers"][0]["node"].as_str().unwrap().to_owned();
    assert_eq!(peers["peers"][0]["connected"], true);
    pair.a.ok(&["peers", "rename", &peer, "laptop"]);
    assert_eq!(pair.a.ok(&["peers", "show", "laptop"])["name"], "laptop");
    // It used a ticket of several uses, so that there are uses left for it to try.
    pair.b.fails(&["join", text(&again), pair.b.root().join("x").to_str().unwrap()], 2, "space_here");

    let revoked = pair.a.ok(&["peers", "revoke", "laptop"]);
    assert_eq!(revoked["node"], peer.as_str());
    write(&pair.a.notes(), "secret.md", "for others\n");
    write(&pair.b.notes(), "unwanted.md", "from outside\n");
    until("the session is over", || {
        let links = pair.a.ok(&["status"])["links"].clone();
        if links.as_array().unwrap().is_empty() { Ok(()) } else { Err(links.to_string()) }
    });
    until("the other one knows", || {
        let links = pair.b.ok(&["status"])["links"].clone();
        if links[0]["why_not_direct"] == "refused" { Ok(()) } else { Err(links.to_string()) }
    });
    pair.b.fails(&["sync", "--timeout", "3s"], 7, "no_route");
    assert!(!pair.b.notes().join("secret.md").exists());
    assert!(!pair.a.notes().join("unwanted.md").exists());
    assert_eq!(pair.a.ok(&["peers", "show", "laptop"])["revoked"], true);
    // Neither the ticket that let it in nor the other one that it has used.
    let used = pair.node_a.ticket().to_owned();
    pair.b.ok(&["spaces", "remove", "Notes"]);
    for ticket in [used.as_str(), text(&again)] {
        pair.b.fails(&["join", ticket, pair.b.notes_text()], 6, "refused");
    }
    // The same after a restart of both.
    pair.node_a.stop();
    pair.node_b.stop();
    pair.node_a = pair.a.up(&[]);
    for ticket in [used.as_str(), text(&again)] {
        pair.b.fails(&["join", ticket, pair.b.notes_text()], 6, "refused");
    }
    assert!(!pair.b.notes().join("secret.md").exists());
    pair.a.ok(&["verify"]);
}

/// A peer that is revoked in the middle of a transfer gets no more of it.
// Proves: SY-101
#[test]
fn revoked_in_the_middle_of_a_transfer() {
    let pair = Pair::with(|notes| write(notes, "plan.md", "plan\n"));
    let peer = pair.a.ok(&["peers", "list"])["peers"][0]["node"].as_str().unwrap().to_owned();
    let received = || pair.b.ok(&["status"])["links"][0]["bytes_in"].as_u64().unwrap_or(0);
    write(&pair.a.notes(), "film.bin", crate::support::Dice::new(6).bytes(200_000_000));
    watch("the film is on its way", || received() > 1_000_000);
    pair.a.ok(&["peers", "revoke", &peer]);
    assert_eq!(pair.a.ok(&["peers", "show", &peer])["connected"], false);
    until("the other one knows", || {
        let links = pair.b.ok(&["status"])["links"].clone();
        if links[0]["why_not_direct"] == "refused" { Ok(()) } else { Err(links.to_string()) }
    });
    assert!(!pair.b.notes().join("film.bin").exists(), "all had arrived before the peer was revoked");
    assert_eq!(pair.b.ok(&["get", "Notes"])["names"].as_array().unwrap().len(), 1, "a part is not visible");
    for machine in [&pair.a, &pair.b] {
        machine.ok(&["verify"]);
    }
}

/// What a peer may do, by role: who may only read pulls, keeps its own changes here, and they are set aside when a new
/// version of such a file comes.
// Proves: SY-101
#[test]
fn a_reader_only_reads() {
    let issuer = issuer();
    let ticket = issuer.ticket(&["--role", "read"]);
    let reader = Machine::new();
    let joined = reader.ok(&["join", text(&ticket), reader.notes_text(), "--wait"]);
    assert_eq!(joined["role"], "read");
    let _node = reader.up(&[]);
    write(&issuer.machine.notes(), "second.md", "second\n");
    until("the reader gets it", || {
        fs::read_to_string(reader.notes().join("second.md")).map_err(|error| error.to_string())
    });
    write(&reader.notes(), "mine.md", "mine\n");
    write(&reader.notes(), "plan.md", "scribbled\n");
    until("its changes are listed as local", || {
        let local = reader.space()["local_only"].clone();
        let listed = local.as_array().cloned().unwrap_or_default();
        if listed.contains(&"mine.md".into()) && listed.contains(&"plan.md".into()) {
            Ok(())
        } else {
            Err(local.to_string())
        }
    });
    write(&issuer.machine.notes(), "plan.md", "plan, second edition\n");
    until("the new edition stands, what was scribbled is set aside", || {
        let standing = fs::read_to_string(reader.notes().join("plan.md")).unwrap_or_default();
        let names: Vec<String> = crate::support::snapshot(&reader.notes()).0.into_keys().collect();
        let aside = names.iter().any(|name| {
            name != "plan.md" && fs::read_to_string(reader.notes().join(name)).is_ok_and(|text| text == "scribbled\n")
        });
        if standing == "plan, second edition\n" && aside { Ok(()) } else { Err(format!("{standing} {names:?}")) }
    });
    assert!(!issuer.machine.notes().join("mine.md").exists());
    assert_eq!(fs::read_to_string(reader.notes().join("mine.md")).unwrap(), "mine\n");
    let put = reader.run_with(&["put", "Notes", "doc"], "{}");
    assert_eq!((put.code, &put.document()["error"]["code"]), (6, &Value::from("read_only")));
    reader.fails(&["restore", "Notes:plan.md@0"], 6, "read_only");
    reader.fails(&["ticket", "new"], 6, "not_admin");
    issuer.machine.ok(&["verify"]);
    reader.ok(&["verify"]);
}

/// A space that is here is taken from its members, as far as this node has heard of them: a ticket of another is refused with the way out,
/// and does not hang.
// Proves: SY-101 (open part)
#[test]
fn a_ticket_of_somebody_who_is_no_member_here_yet() {
    let issuer = issuer();
    let (b, c) = (Machine::new(), Machine::new());
    b.ok(&["join", text(&issuer.ticket(&[])), b.notes_text(), "--wait"]);
    // What b does not hear of: it is off.
    c.ok(&["join", text(&issuer.ticket(&["--role", "admin"])), c.notes_text(), "--wait"]);
    let _node_c = c.up(&[]);
    let ticket = c.ok(&["ticket", "new", "--space", "Notes"]);
    let refused = b.fails(&["join", text(&ticket), "--timeout", "30s"], 6, "not_a_member");
    assert!(refused["hint"].as_str().unwrap().contains("sealtide up"), "{refused}");
    // A member that both know tells of it.
    let _node_b = b.up(&[]);
    until("b and c have met", || {
        write(&c.notes(), "of-c.md", "hello\n");
        match fs::read_to_string(b.notes().join("of-c.md")) {
            Ok(found) if found == "hello\n" => Ok(()),
            found => Err(format!("{found:?}: {}", b.ok(&["status"]))),
        }
    });
}
