//! Members of a space with the real binary: who is listed, who is removed, and what comes of the removed through others.

use serde_json::{Value, json};

use crate::support::{Machine, agree, until, write};

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
// Proves: SY-101 SY-102
#[test]
fn a_removed_writer_through_an_honest_third_node() {
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
    let _node_b = b.up(&[]);
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
    let _node_a = a.up(&[]);
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
    let held = a.ok(&["hold", "show", "Notes"]);
    let mut paths: Vec<&str> =
        held["versions"].as_array().unwrap().iter().filter_map(|version| version["path"].as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["late.md", "plan.md"], "{held}");
    assert!(!a.notes().join("late.md").exists());
    assert_eq!(read(&a, "plan.md"), "plan\n");
    assert_eq!(read(&a, "early.md"), "early\n", "what was there before the removal stays");
    // The writer is out at the third node too.
    write(&b.notes(), "later.md", "later\n");
    b.recorded();
    b.run(&["sync", "--timeout", "2s"]);
    assert!(!c.notes().join("later.md").exists());
    drop(node_c);

    let decided = a.ok(&["hold", "accept", "Notes"]);
    assert_eq!((&decided["accepted"], &decided["frames"]), (&json!(true), &json!(2)), "{decided}");
    assert_eq!(read(&a, "late.md"), "late\n");
    assert_eq!(read(&a, "plan.md"), "plan of the writer\n");
    assert_eq!(a.ok(&["hold", "list"])["holds"], json!([]));
}
