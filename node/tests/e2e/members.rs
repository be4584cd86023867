//! Members of a space with the real binary: who is listed, who is removed, and what comes of the removed through others.

use serde_json::{Value, json};

use crate::support::{Machine, Running, agree, until, write};

fn node_of(machine: &Machine) -> String {
    machine.ok(&["identity", "show"])["node"].as_str().unwrap().to_owned()
}

fn read(machine: &Machine, path: &str) -> String {
    std::fs::read_to_string(machine.notes().join(path)).unwrap_or_default()
}

#[track_caller]
fn until_read(machine: &Machine, path: &str, text: &str) {
    until("a file arrives", || {
        let found = read(machine, path);
        if found == text { Ok(()) } else { Err(format!("{path}: {found:?}\n{}", machine.told())) }
    });
}

/// The roles in the only space, by node.
fn roles(machine: &Machine) -> Value {
    let spaces = machine.ok(&["spaces", "list"]);
    let rows = spaces["spaces"][0]["members"].as_array().cloned().unwrap_or_default();
    let roles = rows.iter().map(|row| (row["nodes"][0].as_str().unwrap().to_owned(), row["role"].clone()));
    Value::Object(roles.collect())
}

#[track_caller]
fn until_roles(machine: &Machine, wanted: &Value) {
    until("the members are known", || {
        let roles = roles(machine);
        if roles == *wanted { Ok(()) } else { Err(format!("{roles}\n{}", machine.told())) }
    });
}

/// Three homes in a row: the founder, an admin that it invited, and a writer that only the admin knows. The founder removes
/// the writer while it is cut off; what the writer wrote meanwhile comes through the honest admin and is held.
struct Scene {
    a: Machine,
    b: Machine,
    c: Machine,
    node_a: Running,
    node_c: Running,
    _node_b: Running,
    /// The one that let the writer in.
    ticket: String,
}

fn a_removed_writer() -> Scene {
    let (a, b, c) = (Machine::new(), Machine::new(), Machine::new());
    write(&a.notes(), "plan.md", "plan\n");
    let mut node_a = a.share();
    let ticket = a.ok(&["ticket", "new", "--role", "admin"])["ticket"].as_str().unwrap().to_owned();
    c.ok(&["join", &ticket, c.notes_text(), "--wait"]);
    let node_c = c.up(&[]);
    let [id_a, id_b, id_c] = [&a, &b, &c].map(|machine| {
        if !machine.home().exists() {
            machine.ok(&["init"]);
        }
        node_of(machine)
    });
    until_roles(&c, &json!({id_a.clone(): "admin", id_c.clone(): "admin"}));
    let ticket = c.ok(&["ticket", "new", "--role", "write"])["ticket"].as_str().unwrap().to_owned();
    b.ok(&["join", &ticket, b.notes_text(), "--wait"]);
    let node_b = b.up(&[]);
    // Every node knows of every member, also of those that it never met.
    let all = json!({id_a.clone(): "admin", id_c.clone(): "admin", id_b.clone(): "write"});
    [&a, &b, &c].into_iter().for_each(|machine| until_roles(machine, &all));
    write(&b.notes(), "early.md", "early\n");
    until_read(&a, "early.md", "early\n");
    agree(&c, &a);

    node_a.stop();
    let gone = a.ok(&["peers", "revoke", &id_b]);
    assert_eq!(gone["no_member_of"].as_array().map(Vec::len), Some(1), "{gone}");
    write(&b.notes(), "late.md", "late\n");
    write(&b.notes(), "plan.md", "plan of the writer\n");
    until_read(&c, "late.md", "late\n");
    until_read(&c, "plan.md", "plan of the writer\n");
    write(&c.notes(), "honest.md", "honest\n");
    let node_a = a.up(&[]);
    let left = json!({id_a: "admin", id_c: "admin"});
    until_roles(&c, &left);
    until("what the admin wrote arrives, and the rest is held", || {
        let holds = a.ok(&["hold", "list"]);
        let honest = a.notes().join("honest.md").exists();
        match holds["holds"][0]["kind"] == "writer" && honest {
            true => Ok(()),
            false => Err(format!("{holds}\n{}", a.told())),
        }
    });
    assert_eq!(held_paths(&a), ["late.md", "plan.md"]);
    Scene { a, b, c, node_a, node_c, _node_b: node_b, ticket }
}

/// Who forgets the only space that it shares with a peer joins it, and others of that peer, again: that the space is gone here says nothing
/// about who its members are.
#[test]
fn a_space_that_was_removed_is_joined_again() {
    let (a, b) = (Machine::new(), Machine::new());
    write(&a.notes(), "plan.md", "plan\n");
    let node_a = a.share();
    b.ok(&["init"]);
    let _node_b = b.up(&[]);
    b.ok(&["join", node_a.ticket(), b.notes_text(), "--wait"]);
    for name in ["Again", "Third"] {
        b.ok(&["spaces", "remove", "Notes"]);
        let ticket = a.ok(&["ticket", "new"])["ticket"].as_str().unwrap().to_owned();
        let dir = b.root().join(name).join("Notes");
        let joined = b.ok(&["join", &ticket, dir.to_str().unwrap(), "--wait"]);
        assert_eq!(joined["in_step"], true, "{joined}");
        assert_eq!(std::fs::read_to_string(dir.join("plan.md")).unwrap(), "plan\n");
    }
    let audit = b.plain(&["audit", "export"]).stdout;
    assert!(audit.contains("space_removed") && !audit.contains("member_removed"), "{audit}");
}

/// The paths of what is held, in order.
fn held_paths(machine: &Machine) -> Vec<String> {
    let held = machine.ok(&["hold", "show", "Notes"]);
    let versions = held["versions"].as_array().unwrap().iter();
    let mut paths: Vec<String> = versions.filter_map(|version| version["path"].as_str().map(str::to_owned)).collect();
    paths.sort_unstable();
    paths
}

// Proves: SY-101 SY-102
#[test]
fn a_removed_writer_through_an_honest_third_node() {
    let Scene { a, b, c, mut node_a, node_c, _node_b, ticket } = a_removed_writer();
    assert!(!a.notes().join("late.md").exists());
    assert_eq!(read(&a, "plan.md"), "plan\n");
    assert_eq!(read(&a, "early.md"), "early\n", "what was there before the removal stays");
    // The writer is out at the third node too.
    write(&b.notes(), "later.md", "later\n");
    b.recorded();
    assert!(!c.notes().join("later.md").exists());
    // It is told by what the others do not offer any more, and says so.
    until("the writer knows", || match b.run(&["status", "--check"]) {
        done if done.code == 1 && done.stdout.contains("does not share this space with this node") => Ok(()),
        done => Err(format!("{done:?}")),
    });
    b.fails(&["sync", "--wait", "--timeout", "2s"], 6, "not_shared");
    // The ticket that let it in is used up, also at the node that made it and has not thrown it out itself.
    let left = roles(&c);
    b.fails(&["join", &ticket, b.notes_text()], 6, "refused");
    assert_eq!((roles(&c), roles(&c).get(node_of(&b))), (left, None));
    drop(node_c);

    // What is held outlives the process.
    node_a.kill_9();
    let node_a = a.up(&[]);
    assert_eq!(held_paths(&a), ["late.md", "plan.md"]);
    assert!(!a.notes().join("late.md").exists());
    let decided = a.ok(&["hold", "accept", "Notes"]);
    assert_eq!((&decided["accepted"], &decided["frames"]), (&json!(true), &json!(2)), "{decided}");
    assert_eq!(read(&a, "late.md"), "late\n");
    assert_eq!(read(&a, "plan.md"), "plan of the writer\n");
    assert_eq!(a.ok(&["hold", "list"])["holds"], json!([]));
    drop(node_a);
    let _node_a = a.up(&[]);
    assert_eq!(a.ok(&["hold", "list"])["holds"], json!([]), "what was decided stays decided");
    assert_eq!(read(&a, "late.md"), "late\n");
    a.ok(&["verify"]);
    let _node_c = c.up(&[]);
    // A new ticket gives it access again, also where it names the directory that it has.
    let ticket = c.ok(&["ticket", "new", "--role", "write"])["ticket"].as_str().unwrap().to_owned();
    assert_eq!(b.ok(&["join", &ticket, b.notes_text(), "--wait"])["in_step"], true);
    until_read(&c, "later.md", "later\n");
    until("it is in step again", || match b.run(&["status", "--check"]) {
        done if done.code == 0 => Ok(()),
        done => Err(format!("{done:?}")),
    });
}

/// Rejected after a restart: what stood before stands again, at the third node too, and the history keeps both.
// Proves: SY-102
#[test]
fn what_is_held_is_rejected_for_everybody() {
    let Scene { a, c, mut node_a, node_c: _node_c, .. } = a_removed_writer();
    node_a.kill_9();
    let _node_a = a.up(&[]);
    let decided = a.ok(&["hold", "reject", "Notes"]);
    assert_eq!((&decided["accepted"], &decided["frames"]), (&json!(false), &json!(2)), "{decided}");
    assert_eq!(a.ok(&["hold", "list"])["holds"], json!([]));
    until("it is as it was at the third node", || {
        let found = (read(&c, "plan.md"), c.notes().join("late.md").exists());
        if found == ("plan\n".to_owned(), false) { Ok(()) } else { Err(format!("{found:?}\n{}", c.told())) }
    });
    let agreed = agree(&a, &c);
    assert_eq!(agreed.paths(), ["early.md", "honest.md", "plan.md"]);
    let log = a.ok(&["log", "Notes:plan.md"]);
    assert!(log["entries"].as_array().unwrap().len() >= 3, "the rejected version stays in the history: {log}");
    a.ok(&["verify"]);
    c.ok(&["verify"]);
}

/// Nobody could look at what is held of a space that is gone, and nothing would ever free it.
// Proves: SY-67
#[test]
fn what_is_held_goes_with_its_space() {
    let Scene { a, node_a: _node_a, node_c: _node_c, .. } = a_removed_writer();
    let is_on_the_disk = || {
        let packs = std::fs::read_dir(a.home().join("store/packs")).unwrap();
        packs
            .map(|pack| std::fs::read(pack.unwrap().path()).unwrap())
            .any(|pack| pack.windows(7).any(|at| at == b"late.md"))
    };
    assert!(is_on_the_disk());
    a.ok(&["spaces", "remove", "Notes"]);
    a.ok(&["gc"]);
    assert!(!is_on_the_disk());
    a.ok(&["verify"]);
}

/// What is held is looked at again when the members change: the writer is let in again.
// Proves: SY-102
#[test]
fn what_is_held_is_taken_when_its_writer_may_write_again() {
    let Scene { a, b, c: _c, node_a: _node_a, node_c: _node_c, _node_b, .. } = a_removed_writer();
    // That an admin goes on from a version does not vouch for it: it has a name under it, of somebody who may not.
    let ticket = a.ok(&["ticket", "new", "--role", "write"])["ticket"].as_str().unwrap().to_owned();
    // The writer has the space, in its directory; it is the invite that counts.
    b.ok(&["join", &ticket]);
    until_read(&a, "late.md", "late\n");
    until_read(&a, "plan.md", "plan of the writer\n");
    assert_eq!(a.ok(&["hold", "list"])["holds"], json!([]));
    a.ok(&["verify"]);
}

/// An admin that was removed while it was cut off lists somebody; through an honest admin that frame comes and is held.
/// A person decides.
// Proves: SY-102
#[test]
fn held_members_are_decided_by_hand() {
    for accept in [true, false] {
        let [a, b, c, d] = [(); 4].map(|()| Machine::new());
        write(&a.notes(), "plan.md", "plan\n");
        let mut node_a = a.share();
        let admin_ticket = |machine: &Machine| {
            machine.ok(&["ticket", "new", "--role", "admin"])["ticket"].as_str().unwrap().to_owned()
        };
        c.ok(&["join", &admin_ticket(&a), c.notes_text(), "--wait"]);
        let _node_c = c.up(&[]);
        // The honest admin knows both others, and keeps no folder.
        d.ok(&["join", &admin_ticket(&a), "--wait"]);
        let _node_d = d.up(&[]);
        b.ok(&["init"]);
        let [id_a, id_b, id_c, id_d] = [&a, &b, &c, &d].map(node_of);
        let three = json!({id_a.clone(): "admin", id_c.clone(): "admin", id_d.clone(): "admin"});
        [&a, &c, &d].into_iter().for_each(|machine| until_roles(machine, &three));
        d.ok(&["join", &admin_ticket(&c), "--wait"]);
        node_a.stop();
        a.ok(&["peers", "revoke", &id_c]);
        let ticket = c.ok(&["ticket", "new", "--role", "write"])["ticket"].as_str().unwrap().to_owned();
        b.ok(&["join", &ticket, b.notes_text(), "--wait"]);
        let mut listed = three.clone();
        listed[&id_b] = json!("write");
        until_roles(&d, &listed);
        let _node_a = a.up(&[]);
        let left = json!({id_a.clone(): "admin", id_d.clone(): "admin"});
        let mut with_b = left.clone();
        with_b[&id_b] = json!("write");
        until_roles(&d, &with_b);
        until("the frame of the removed admin is held", || {
            let holds = a.ok(&["hold", "list"]);
            if holds["holds"][0]["kind"] == "writer" { Ok(()) } else { Err(format!("{holds}\n{}", a.told())) }
        });
        until_roles(&a, &left);
        a.ok(&["hold", if accept { "accept" } else { "reject" }, "Notes"]);
        let wanted = if accept { &with_b } else { &left };
        until_roles(&a, wanted);
        until_roles(&d, wanted);
        assert_eq!(a.ok(&["hold", "list"])["holds"], json!([]));
        a.ok(&["verify"]);
    }
}
