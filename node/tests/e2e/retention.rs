//! Followers do not grow with every release: what `gc` gives up, what it never does, and what becomes of whoever needs it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::releases::{Publisher, audited, opt, version_in};
use crate::support::{Dice, Machine, Running, until, write};

/// Bytes of the file that is another one in each release.
const BIG: usize = 2 << 20;

/// A follower that installed each release as it came.
struct Story {
    publisher: Publisher,
    /// Recovery words of the owner.
    words: String,
    node: Running,
    follower: Machine,
}

fn content(number: u64) -> Vec<u8> {
    Dice::new(number).bytes(BIG)
}

fn ticket(machine: &Machine, role: &str) -> String {
    machine.ok(&["ticket", "new", "--space", "kiosk", "--role", role])["ticket"].as_str().unwrap().to_owned()
}

impl Story {
    fn of(releases: u64) -> Self {
        let (publisher, words) = Publisher::with_owner();
        write(&publisher.dist(), "big", content(1));
        publisher.publish("1.0.0");
        let node = publisher.machine.up(&[]);
        let follower = Machine::new();
        // A node that begins to work gives up what it can.
        follower.ok(&["config", "set", "release.keep", "all"]);
        follower.ok(&["join", &ticket(&publisher.machine, "admin")]);
        let story = Self { publisher, words, node, follower };
        story.install(&[]);
        (2..=releases).for_each(|number| story.ship(number, number));
        story
    }

    /// As [`Story::of`], and all but the newest two are given up.
    fn given_up(releases: u64) -> Self {
        let story = Self::of(releases);
        story.follower.ok(&["config", "set", "release.keep", "2"]);
        let done = story.follower.ok(&["gc"]);
        assert_eq!(versions(&done).len() as u64, releases - 2, "{done}");
        story
    }

    /// Publishes a release and has the follower install it.
    fn ship(&self, number: u64, content_of: u64) {
        write(&self.publisher.dist(), "big", content(content_of));
        self.publisher.publish(&format!("{number}.0.0"));
        self.follower.ok(&["sync", "kiosk", "--wait"]);
        assert_eq!(self.install(&[])["version"], format!("{number}.0.0"));
    }

    fn install(&self, more: &[&str]) -> Value {
        self.follower.ok(&[&install_to(&opt(&self.follower))[..], more].concat())
    }
}

fn install_to(dir: &Path) -> [&str; 5] {
    ["release", "install", "kiosk", "--to", dir.to_str().unwrap()]
}

/// An older version, put into a directory of its own.
fn older<'a>(dir: &'a Path, version: &'a str) -> Vec<&'a str> {
    [&install_to(dir)[..], &["--allow-downgrade", "--version", version]].concat()
}

/// What the packs take on the disk.
fn blocks(machine: &Machine) -> u64 {
    let packs = fs::read_dir(machine.home().join("store/packs")).unwrap();
    packs.map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
}

fn versions(answer: &Value) -> Vec<&str> {
    answer["releases"].as_array().unwrap().iter().map(|row| row["version"].as_str().unwrap()).collect()
}

/// Whether each release is whole here, oldest first.
fn here(machine: &Machine) -> Vec<bool> {
    let shown = machine.ok(&["release", "show", "kiosk"]);
    shown["releases"].as_array().unwrap().iter().map(|row| row["here"] == true).collect()
}

fn absent(answer: &Value) -> u64 {
    answer["absent"].as_u64().unwrap()
}

fn is_content(dir: &Path, number: u64) -> bool {
    fs::read(dir.join("big")).is_ok_and(|bytes| bytes == content(number))
}

fn place(machine: &Machine, name: &str) -> PathBuf {
    machine.root().join(name)
}

// Proves: SY-67
#[test]
fn a_follower_gives_up_old_releases_and_keeps_what_is_installed() {
    let mut story = Story::of(5);
    let (follower, to) = (&story.follower, opt(&story.follower));
    follower.ok(&["config", "set", "release.keep", "2"]);
    let before = blocks(follower);
    let told = follower.ok(&["gc", "--dry-run"]);
    assert_eq!(versions(&told), ["1.0.0", "2.0.0", "3.0.0"], "{told}");
    assert!(
        told["releases"].as_array().unwrap().iter().all(|row| row["bytes"].as_u64().unwrap() >= BIG as u64),
        "{told}"
    );
    assert_eq!((here(follower), blocks(follower)), (vec![true; 5], before), "a dry run changes nothing");
    let text = follower.plain(&["gc", "--dry-run"]).stdout;
    assert!(text.contains("kiosk 1.0.0 (stable)") && text.contains("release.keep"), "{text}");
    for (keep, expected) in [("all", vec![]), ("4", vec!["1.0.0"])] {
        follower.ok(&["config", "set", "release.keep", keep]);
        assert_eq!(versions(&follower.ok(&["gc", "--dry-run"])), expected, "{keep}");
    }
    assert_eq!(follower.run(&["config", "set", "release.keep", "0"]).code, 2);
    follower.ok(&["config", "set", "release.keep", "1"]);
    // What stood there before what is installed stays too.
    assert_eq!(versions(&follower.ok(&["gc", "--dry-run"])), ["1.0.0", "2.0.0", "3.0.0"]);
    assert_eq!(absent(&follower.ok(&["verify"])), 0);

    let done = follower.ok(&["gc"]);
    assert_eq!((versions(&done), done["dry_run"].as_bool()), (vec!["1.0.0", "2.0.0", "3.0.0"], Some(false)));
    assert_eq!(audited(follower, "release_given_up"), 3);
    assert!(blocks(follower) + 3 * BIG as u64 <= before + (1 << 20), "{} of {before}", blocks(follower));
    assert_eq!(here(follower), [false, false, false, true, true]);
    assert_eq!(versions(&follower.ok(&["gc"])), Vec::<&str>::new());
    assert!(absent(&follower.ok(&["verify"])) >= 3, "no damage, and told");
    let text = follower.plain(&["verify"]).stdout;
    assert!(text.contains("no damage") && text.contains("of old releases are not here"), "{text}");

    // A backup goes without it too, and what is restored knows; so does another device.
    let file = place(follower, "home.backup");
    let file = file.to_str().unwrap();
    follower.ok(&["backup", "create", file]);
    for more in [&[][..], &["--as-new-device"]] {
        let restored = Machine::new();
        restored.ok(&[&["backup", "restore", file][..], more].concat());
        assert_eq!(absent(&restored.ok(&["verify"])), absent(&follower.ok(&["verify"])), "{more:?}");
    }

    // What is installed stays, the one before it is at hand, and what is gone is fetched from the publisher.
    assert_eq!(story.install(&["--allow-downgrade", "--version", "4.0.0"])["version"], "4.0.0");
    assert!(is_content(&to, 4));
    let by_hand = place(follower, "by-hand");
    assert_eq!(follower.ok(&older(&by_hand, "2.0.0"))["version"], "2.0.0");
    assert!(is_content(&by_hand, 2));
    assert_eq!(audited(follower, "release_fetched"), 1);
    assert_eq!(here(follower), [false, true, false, true, true]);
    // Without the publisher it is refused with what to do, or comes from a file.
    story.node.stop();
    let error = follower.fails(&older(&by_hand, "3.0.0"), 1, "given_up");
    assert!(error["hint"].as_str().unwrap().contains(".stb"), "{error}");
    assert!(is_content(&by_hand, 2));
    let bundle = story.publisher.bundle("3.0.0");
    let file = ["release", "install", &bundle, "--to", by_hand.to_str().unwrap(), "--allow-downgrade"];
    assert_eq!(follower.ok(&file)["version"], "3.0.0");
    story.node = story.publisher.machine.up(&[]);

    // A release with a content of before brings it again.
    story.ship(6, 1);
    assert!(is_content(&to, 1));
    // Killed in the middle of it, nothing that is needed is gone.
    let _ = story.follower.run_in(&[("SEALTIDE_FAILPOINT", "gc_planned:1")], &["gc"]);
    story.follower.ok(&["verify"]);
    story.follower.ok(&["gc"]);
    // Installed is 6, before it stood 4; the other place has 3, which came in a file, and had 2.
    assert_eq!(here(&story.follower), [false, true, false, true, false, true]);

    // The publisher keeps all.
    assert_eq!(versions(&story.publisher.machine.ok(&["gc", "--dry-run"])), Vec::<&str>::new());
    story.node.stop();
    story.publisher.machine.ok(&["gc"]);
    story.node = story.publisher.machine.up(&[]);
    let late = Machine::new();
    assert_eq!(absent(&late.ok(&["join", &ticket(&story.publisher.machine, "read")])), 0);
    assert_eq!(here(&late), [true; 6]);
    // It has installed nothing: it may hold them for others.
    assert_eq!(late.ok(&["gc", "--dry-run"])["releases"], json!([]));
    // The follower and its publisher are in step all the same.
    story.follower.ok(&["sync", "kiosk", "--wait"]);
}

/// What was given up comes out again, in another channel: whoever follows that has it all the same.
#[test]
fn an_old_release_that_is_promoted_is_fetched_again() {
    let story = Story::given_up(4);
    let (publisher, follower) = (&story.publisher.machine, &story.follower);
    assert_eq!(here(follower), [false, false, true, true]);
    publisher.ok(&["release", "promote", "kiosk", "--version", "2.0.0", "--from", "stable", "--to", "slow"]);
    follower.ok(&["sync", "kiosk", "--wait"]);
    let slow = place(follower, "slow");
    let words = [&install_to(&slow)[..], &["--channel", "slow"]].concat();
    assert_eq!(follower.ok(&words)["version"], "2.0.0");
    assert!(is_content(&slow, 2));
    follower.ok(&["gc"]);
    assert!(is_content(&slow, 2) && follower.ok(&words)["changed"] == false);
}

/// The publisher is away. Whoever comes late, by a ticket of a follower, takes what that one has.
#[test]
fn a_late_joiner_takes_what_a_follower_has() {
    let mut story = Story::given_up(5);
    story.node.stop();
    let node = story.follower.up(&[]);
    let late = Machine::new();
    let joined = late.ok(&["join", &ticket(&story.follower, "read")]);
    assert!(absent(&joined) >= 3, "{joined}");
    assert_eq!(here(&late), [false, false, false, true, true]);
    assert_eq!(absent(&late.ok(&["verify"])), absent(&joined));
    assert_eq!(late.ok(&install_to(&opt(&late)))["version"], "5.0.0");
    assert!(is_content(&opt(&late), 5));
    let by_hand = place(&late, "by-hand");
    let error = late.fails(&older(&by_hand, "1.0.0"), 1, "given_up");
    assert!(error["hint"].as_str().unwrap().contains("publisher"), "{error}");
    // The two are in step.
    late.ok(&["sync", "kiosk", "--wait"]);
    // Once the publisher is back the follower can have it again, and then others from that one.
    story.node = story.publisher.machine.up(&[]);
    let place = place(&story.follower, "by-hand");
    until("the follower reaches the publisher", || {
        let done = story.follower.run(&older(&place, "1.0.0"));
        if done.code == 0 { Ok(()) } else { Err(format!("{done:?}")) }
    });
    assert_eq!(late.ok(&older(&by_hand, "1.0.0"))["version"], "1.0.0");
    assert!(is_content(&by_hand, 1));
    drop(node);
}

/// The publisher's machine is lost, and whoever followed has given up old releases: its copy brings the publisher back.
// Proves: GW-106
#[test]
fn a_lost_publisher_comes_back_from_a_follower_that_gave_up_old_releases() {
    let mut story = Story::given_up(4);
    let (follower, words) = (&story.follower, &story.words);
    let lost = story.publisher.machine.ok(&["status"])["node"].as_str().unwrap().to_owned();
    story.node.kill_9();
    fs::remove_dir_all(story.publisher.machine.home()).unwrap();
    let text = |name: &str| place(follower, name).to_str().unwrap().to_owned();
    let (frames, copy) = (text("owner.frames"), text("kiosk.jsonl"));
    follower.ok(&["identity", "export", &frames, "--of", &lost]);
    let out = ["export", "kiosk", "--format", "jsonl", "--out", &copy];
    let told = follower.ok(&out);
    assert!(absent(&told) >= 2, "{told}");
    fs::remove_file(&copy).unwrap();
    assert!(follower.plain(&out).stdout.contains("of old releases are not in it"));

    let new = Publisher::new();
    new.machine.ok(&["init"]);
    assert_eq!(new.machine.run_with(&["identity", "recover", "--frames", &frames], words).code, 0);
    // A chunk that is missing without a word is damage, and nothing of it stays.
    let lines = fs::read_to_string(&copy).unwrap();
    let cut: Vec<&str> = lines.lines().filter(|line| !line.contains("absent")).collect();
    let odd = text("odd.jsonl");
    fs::write(&odd, cut.join("\n") + "\n").unwrap();
    new.machine.fails(&["import", &odd], 5, "import");
    let back = new.machine.ok(&["import", &copy]);
    assert_eq!(absent(&back), absent(&told), "{back}");
    assert_eq!(here(&new.machine), [false, false, true, true]);
    assert_eq!(absent(&new.machine.ok(&["verify"])), absent(&told));
    let done = new.machine.run_with(&["keys", "recover", "--app", "kiosk"], words);
    assert_eq!(done.code, 0, "{done:?}");
    let published = new.publish("5.0.0");
    assert_eq!(published["seq"], 5);
    // Who comes new, and who followed before, have it from there.
    let node = new.machine.up(&[]);
    let late = Machine::new();
    assert_eq!(absent(&late.ok(&["join", &ticket(&new.machine, "read")])), absent(&told));
    assert_eq!(late.ok(&install_to(&opt(&late)))["version"], "5.0.0");
    follower.ok(&["join", &ticket(&new.machine, "read")]);
    until("the old follower has the release", || {
        follower.run(&["sync", "kiosk", "--wait"]);
        let done = follower.run(&install_to(&opt(follower)));
        if version_in(&opt(follower)).as_deref() == Some("5.0.0") { Ok(()) } else { Err(format!("{done:?}")) }
    });
    drop(node);
}

/// The bound of a space is about the room that it takes: a follower that gave up old releases takes new ones.
// Proves: SY-68
#[test]
fn what_is_given_up_makes_room_in_the_quota() {
    let story = Story::of(3);
    let follower = &story.follower;
    let bytes = |machine: &Machine| machine.ok(&["spaces", "list"])["spaces"][0]["bytes"].as_u64().unwrap();
    let before = bytes(follower);
    follower.ok(&["config", "set", "quota.space", &(before + BIG as u64 / 2).to_string()]);
    write(&story.publisher.dist(), "big", content(4));
    story.publisher.publish("4.0.0");
    let refused = follower.run(&["sync", "kiosk", "--wait"]);
    assert!(refused.code == 1 && format!("{refused:?}").contains("quota.space"), "{refused:?}");
    // The running node of a follower does this by itself.
    follower.ok(&["config", "set", "release.keep", "2"]);
    follower.ok(&["gc"]);
    assert!(bytes(follower) + BIG as u64 <= before, "{} of {before}", bytes(follower));
    follower.ok(&["sync", "kiosk", "--wait"]);
    assert_eq!(story.install(&[])["version"], "4.0.0");
}

/// Who keeps more than the node it joined at has the rest as soon as somebody who has it connects, and nobody has to ask.
#[test]
fn a_mirror_completes_itself() {
    let mut story = Story::given_up(5);
    story.node.stop();
    let mut node = story.follower.up(&[]);
    let (mirror, late) = (Machine::new(), Machine::new());
    mirror.ok(&["config", "set", "release.keep", "all"]);
    late.ok(&["config", "set", "release.keep", "3"]);
    let mut running = Vec::new();
    let roles = [(&mirror, "admin"), (&late, "read")];
    for (machine, role) in roles {
        assert!(absent(&machine.ok(&["join", &ticket(&story.follower, role)])) >= 3);
        assert_eq!(here(machine), [false, false, false, true, true]);
        running.push(machine.up(&[]));
    }
    story.node = story.publisher.machine.up(&[]);
    for (machine, role) in roles {
        machine.ok(&["join", &ticket(&story.publisher.machine, role)]);
    }
    becomes_whole(&mirror, &[true; 5]);
    becomes_whole(&late, &[false, false, true, true, true]);
    assert_eq!(absent(&mirror.ok(&["verify"])), 0);
    assert_eq!((audited(&mirror, "release_fetched"), audited(&late, "release_fetched")), (3, 1));
    assert_eq!(mirror.ok(&["gc"])["releases"], json!([]));

    // What a node gave up it has again when it is set to keep it: here from the mirror, the publisher is away.
    story.node.stop();
    assert_eq!(here(&story.follower), [false, false, false, true, true], "it keeps two");
    node.stop();
    story.follower.ok(&["config", "set", "release.keep", "all"]);
    story.follower.ok(&["join", &ticket(&mirror, "read")]);
    let node = story.follower.up(&[]);
    becomes_whole(&story.follower, &[true; 5]);
    assert_eq!(absent(&story.follower.ok(&["verify"])), 0);
    assert_eq!(here(&late), [false, false, true, true, true], "more is not fetched");
    for machine in [&mirror, &story.follower] {
        let by_hand = place(machine, "by-hand");
        assert_eq!(machine.ok(&older(&by_hand, "1.0.0"))["version"], "1.0.0");
        assert!(is_content(&by_hand, 1));
    }
    drop((node, running));
}

#[track_caller]
fn becomes_whole(machine: &Machine, expected: &[bool]) {
    until("releases come by themselves", || {
        let found = here(machine);
        if found == expected { Ok(()) } else { Err(format!("{found:?} {}", machine.told())) }
    });
}

/// What comes later counts, and no release is begun for which there is no room.
// Proves: SY-68
#[test]
fn a_mirror_keeps_to_its_quota() {
    let story = Story::given_up(4);
    let node = story.follower.up(&[]);
    let mirror = Machine::new();
    mirror.ok(&["join", &ticket(&story.follower, "read")]);
    assert_eq!(here(&mirror), [false, false, true, true]);
    let bytes = || mirror.ok(&["spaces", "list"])["spaces"][0]["bytes"].as_u64().unwrap();
    let (before, big) = (bytes(), BIG as u64);
    mirror.ok(&["config", "set", "release.keep", "all"]);
    mirror.ok(&["config", "set", "quota.space", &(before + big * 3 / 2).to_string()]);
    let mut running = mirror.up(&[]);
    mirror.ok(&["join", &ticket(&story.publisher.machine, "read")]);
    // The newest first.
    becomes_whole(&mirror, &[false, true, true, true]);
    assert!((before + big..before + big * 3 / 2).contains(&bytes()), "{} after {before}", bytes());
    until("it says why no more comes", || {
        let log = fs::read_to_string(place(&mirror, "log")).unwrap();
        if log.contains("quota.space is full") { Ok(()) } else { Err(log) }
    });
    assert_eq!(here(&mirror), [false, true, true, true]);
    running.stop();
    mirror.ok(&["config", "set", "quota.space", "none"]);
    running = mirror.up(&[]);
    becomes_whole(&mirror, &[true; 4]);
    drop((node, running));
}
