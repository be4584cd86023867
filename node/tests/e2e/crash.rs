//! A process that ends at any point of its work leaves nothing half done: after the next start all goes on.

use crate::support::{Dice, Machine, Pair, Running, Written, agree, until, write};

/// What a process that aborts at a named point is told.
fn failpoint(name: &str, count: u64) -> String {
    format!("{name}:{count}")
}

const ABORTED: i32 = -6;

/// 200 small files and one of 20 MB.
fn load(machine: &Machine, below: &str, seed: u64) {
    let mut dice = Dice::new(seed);
    for n in 0..200 {
        write(&machine.notes(), &format!("{below}/{}/{n}.md", n % 9), dice.text());
    }
    write(&machine.notes(), &format!("{below}/film.bin"), dice.bytes(20_000_000));
}

/// Waits until the process aborted at its point. Points that one saga passes only once are reached again by `more`.
#[track_caller]
fn aborts(node: &mut Running, mut more: impl FnMut(u64)) {
    let mut turn = 0;
    until("the process aborts at its point", || {
        if node.is_alive() {
            turn += 1;
            if turn % 4 == 0 {
                more(turn);
            }
            return Err(format!("turn {turn}"));
        }
        Ok(())
    });
    assert_eq!(node.wait(), ABORTED);
}

/// The one that receives ends at the point, is started again, and gets everything.
#[track_caller]
fn receiver_crashes(point: &str) {
    for count in 1..=3 {
        let mut pair = Pair::with(|notes| write(notes, "first.md", "first\n"));
        pair.node_b.stop();
        load(&pair.a, "load", count);
        pair.a.recorded();
        let mut node = pair.b.spawn(&[("SEALTIDE_FAILPOINT", &failpoint(point, count))], &[]);
        aborts(&mut node, |turn| write(&pair.a.notes(), &format!("more/{turn}.md"), format!("{turn}\n")));
        // What is in the store after the crash is sound before anything goes on.
        pair.b.ok(&["verify"]);
        pair.node_b = pair.b.up(&[]);
        let agreed = pair.agree_and_verify();
        assert!(agreed.0.len() > 200, "{point}:{count}: {:?}", agreed.paths());
    }
}

/// The one that sends ends at the point, is started again, and the other gets everything.
#[track_caller]
fn sender_crashes(point: &str) {
    for count in 1..=3 {
        let mut pair = Pair::with(|notes| write(notes, "first.md", "first\n"));
        pair.node_a.stop();
        load(&pair.a, "load", count);
        let mut node = pair.a.spawn(&[("SEALTIDE_FAILPOINT", &failpoint(point, count))], &[]);
        aborts(&mut node, |turn| {
            write(&pair.a.notes(), &format!("more/{turn}.md"), format!("{turn}\n"));
            write(&pair.b.notes(), &format!("back/{turn}.md"), format!("{turn}\n"));
        });
        pair.a.ok(&["verify"]);
        pair.node_a = pair.a.up(&[]);
        let agreed = pair.agree_and_verify();
        assert!(agreed.0.len() > 200, "{point}:{count}: {:?}", agreed.paths());
    }
}

// Proves: SY-48, SY-79
#[test]
fn receiver_ends_while_it_stages() {
    receiver_crashes("saga_stage");
}

// Proves: SY-48, SY-79
#[test]
fn receiver_ends_when_staged_is_durable() {
    receiver_crashes("saga_durable");
}

// Proves: SY-48, SY-79
#[test]
fn receiver_ends_before_the_commit() {
    receiver_crashes("saga_commit");
}

// Proves: SY-48, SY-79
#[test]
fn receiver_ends_after_the_commit() {
    receiver_crashes("saga_committed");
}

// Proves: SY-48
#[test]
fn receiver_ends_while_it_writes_files() {
    receiver_crashes("checkout_batch");
}

// Proves: SY-48
#[test]
fn sender_ends_before_it_records() {
    sender_crashes("record_commit");
}

// Proves: SY-48
#[test]
fn sender_ends_after_it_recorded() {
    sender_crashes("record_committed");
}

// Proves: SY-48
#[test]
fn sender_ends_before_its_commit() {
    sender_crashes("saga_commit");
}

// Proves: SY-48
#[test]
fn sender_ends_after_its_commit() {
    sender_crashes("saga_committed");
}

/// The first start with a folder ends while it records; the next one shares the same space.
#[test]
fn the_first_share_ends_halfway() {
    for point in ["record_commit", "record_committed"] {
        let machine = Machine::new();
        load(&machine, "load", 7);
        let mut node = machine.spawn(&[("SEALTIDE_FAILPOINT", &failpoint(point, 2))], &[machine.notes_text()]);
        aborts(&mut node, |turn| write(&machine.notes(), &format!("more/{turn}.md"), format!("{turn}\n")));
        machine.ok(&["verify"]);
        let node = machine.share();
        let spaces = machine.ok(&["spaces", "list"]);
        assert_eq!(spaces["spaces"].as_array().unwrap().len(), 1, "{spaces}");
        let other = Machine::new();
        other.ok(&["join", node.ticket(), other.notes_text(), "--wait"]);
        agree(&machine, &other);
    }
}

/// A join that ends halfway is repeated with the same ticket, although that ticket is good for one use only.
// Proves: SY-48, SY-100
#[test]
fn a_join_that_ended_halfway_is_repeated() {
    for (point, count) in [
        ("saga_stage", 1),
        ("saga_stage", 5),
        ("saga_durable", 1),
        ("saga_commit", 1),
        ("saga_committed", 1),
        ("checkout_batch", 1),
    ] {
        let machine = Machine::new();
        load(&machine, "load", count);
        let node = machine.share();
        machine.recorded();
        let other = Machine::new();
        let join = ["join", node.ticket(), other.notes_text(), "--wait"];
        let died = other.run_in(&[("SEALTIDE_FAILPOINT", &failpoint(point, count))], &join);
        assert_eq!(died.code, ABORTED, "{point}: {died:?}");
        let joined = other.run(&join);
        if joined.code == 2 {
            // It had come so far that the folder was shared already: running the node ends it.
            assert_eq!(joined.document()["error"]["code"], "dir_shared", "{point}: {joined:?}");
            assert_eq!(point, "checkout_batch");
        } else {
            assert_eq!(joined.code, 0, "{point}: {joined:?}");
        }
        let _other = other.up(&[]);
        agree(&machine, &other);
        for machine in [&machine, &other] {
            machine.in_step();
            machine.ok(&["verify"]);
        }
        let spaces = other.ok(&["spaces", "list"]);
        assert_eq!(spaces["spaces"].as_array().unwrap().len(), 1, "{spaces}");
    }
}

/// Kills at random moments while both sides work; in the end all is the same, and what was written last.
// Proves: SY-48, SY-49
#[test]
fn kills_at_random_moments() {
    let mut pair = Pair::with(|notes| write(notes, "first.md", "first\n"));
    let mut dice = Dice::new(48);
    let mut written = Written::of(&pair.a.notes());
    let rounds = 6 * crate::scale();
    for round in 0..rounds {
        for n in 0..60 {
            let (left, right) = (dice.text(), dice.text());
            written.write(&pair.a.notes(), &format!("a/{}/{n}.md", round % 3), left);
            written.write(&pair.b.notes(), &format!("b/{}/{n}.md", round % 3), right);
        }
        written.write(&pair.a.notes(), "a/film.bin", dice.bytes(3_000_000));
        if round % 3 == 2 {
            written.rename(&pair.b.notes(), "b/0", &format!("b/moved-{round}"));
        }
        std::thread::sleep(std::time::Duration::from_millis(dice.below(1200)));
        if dice.below(2) == 0 {
            pair.node_a.kill_9();
            pair.node_a = pair.a.up(&[]);
        } else {
            pair.node_b.kill_9();
            pair.node_b = pair.b.up(&[]);
        }
    }
    println!("{rounds} kills");
    written.assert_survived(&pair.agree_and_verify());
    let listed = pair.a.ok(&["conflicts", "list"]);
    assert_eq!(listed["conflicts"].as_array().unwrap().len(), 0, "{listed}");
}
