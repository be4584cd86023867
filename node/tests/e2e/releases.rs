//! Releases with the real binary: published, followed by a fleet, carried by hand, attacked, cut off in the middle.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::page::Page;
use crate::support::{Machine, Running, until, write};

/// A publisher with something to ship.
pub(crate) struct Publisher {
    pub(crate) machine: Machine,
}

impl Publisher {
    pub(crate) fn new() -> Self {
        let publisher = Self { machine: Machine::new() };
        publisher.changes("bin/kiosk", "#!/bin/sh\necho kiosk\n");
        publisher
    }

    /// With an owner, whose recovery words stand in a file.
    pub(crate) fn with_owner() -> (Self, String) {
        let publisher = Self::new();
        let words = publisher.file("words");
        publisher.machine.ok(&["init", "--recovery-out", words.to_str().unwrap()]);
        let words = fs::read_to_string(words).unwrap();
        (publisher, words)
    }

    pub(crate) fn dist(&self) -> PathBuf {
        self.machine.root().join("dist")
    }

    pub(crate) fn changes(&self, path: &str, text: &str) {
        write(&self.dist(), path, text);
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.machine.root().join(name)
    }

    /// Publishes a version whose file `version` says so.
    #[track_caller]
    pub(crate) fn publish(&self, version: &str) -> Value {
        self.publish_in(version, "stable")
    }

    #[track_caller]
    pub(crate) fn publish_in(&self, version: &str, channel: &str) -> Value {
        self.changes("version", version);
        let (bundle, trust) = (self.file(&format!("{version}.stb")), self.file(&format!("{version}.root")));
        let (bundle, trust) = (bundle.to_str().unwrap(), trust.to_str().unwrap());
        let dist = self.dist();
        let words = ["release", "publish", "kiosk", dist.to_str().unwrap(), "--channel", channel, "--version", version];
        let words = [&words[..], &["--out", bundle, "--trust-out", trust]].concat();
        self.machine.ok(&words)
    }

    /// Lets one machine follow.
    pub(crate) fn ticket(&self) -> String {
        let ticket = self.machine.ok(&["ticket", "new", "--space", "kiosk", "--role", "read"]);
        ticket["ticket"].as_str().unwrap().to_owned()
    }

    pub(crate) fn bundle(&self, version: &str) -> String {
        self.file(&format!("{version}.stb")).to_str().unwrap().to_owned()
    }

    pub(crate) fn trust(&self, version: &str) -> String {
        self.file(&format!("{version}.root")).to_str().unwrap().to_owned()
    }
}

pub(crate) fn version_in(dir: &Path) -> Option<String> {
    fs::read_to_string(dir.join("version")).ok()
}

pub(crate) fn opt(machine: &Machine) -> PathBuf {
    machine.root().join("opt/kiosk")
}

/// Lines of the audit with this event.
pub(crate) fn audited(machine: &Machine, event: &str) -> usize {
    let lines = machine.plain(&["audit", "tail", "--lines", "1000"]).stdout;
    lines.lines().filter(|line| line.contains(event)).count()
}

/// Machines that follow.
const FLEET: usize = 10;

/// A machine that follows a channel.
struct Follower {
    machine: Machine,
    follow: Running,
    node: Running,
}

impl Follower {
    #[track_caller]
    fn join(ticket: &str, trust: Option<&str>) -> Self {
        Self::join_in(&[], ticket, trust)
    }

    /// As [`Follower::join`], with a node that has this environment.
    #[track_caller]
    fn join_in(environment: &[(&str, &str)], ticket: &str, trust: Option<&str>) -> Self {
        let machine = Machine::new();
        machine.ok(&["join", ticket]);
        let node = machine.up_in(environment, &[]);
        let to = opt(&machine);
        let mut words = vec!["release", "install", "kiosk", "--to", to.to_str().unwrap(), "--follow"];
        words.extend(trust.into_iter().flat_map(|trust| ["--trust", trust]));
        let follow = machine.stream(&words);
        Self { machine, follow, node }
    }

    /// Its node dies, wherever it is at `point`.
    fn dies_at(&mut self, point: &str) {
        self.machine.ok(&["down"]);
        self.node = self.machine.up_in(&[("SEALTIDE_FAILPOINT", &format!("{point}:1"))], &[]);
    }

    /// What it told so far: versions that it installed, and refusals.
    fn told(&self) -> (Vec<String>, Vec<Value>) {
        let lines = self.follow.events();
        let installed = lines.iter().filter(|line| line["schema"] == "sealtide/release_install/1");
        let installed = installed.map(|line| line["version"].as_str().unwrap().to_owned()).collect();
        (installed, lines.into_iter().filter(|line| line["schema"] == "sealtide/release_refused/1").collect())
    }

    /// Until it told of this version last, and of no refusal.
    #[track_caller]
    fn until_told(&self, version: &str) {
        until("it says so", || match self.told() {
            (told, refused) if told.last().is_some_and(|told| told == version) && refused.is_empty() => Ok(()),
            told => Err(format!("{told:?}")),
        });
    }

    #[track_caller]
    fn until_version(&self, version: &str, known: &BTreeSet<String>) {
        until("a follower has the release", || {
            let found = version_in(&opt(&self.machine));
            // At every moment a whole version that was published.
            assert!(found.as_ref().is_none_or(|found| known.contains(found)), "{found:?}");
            let is_there = found.as_deref() == Some(version);
            if is_there { Ok(()) } else { Err(format!("{found:?}, {:?}\n{}", self.told(), self.machine.told())) }
        });
    }
}

/// The versions that the publisher of the fleet brings out.
const STORY: [&str; 6] = ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "2.0.0", "2.1.0"];

/// The node of a publisher with the door that the page asks; pages of `page`'s site may read there, and no others.
fn publishing(publisher: &Publisher, page: Option<&Page>) -> Running {
    let origin = page.map_or("https://nobody.example", |page| &page.origin);
    let settings = [("SEALTIDE_GATEWAY_APP", "yes"), ("SEALTIDE_GATEWAY_ALLOWED_ORIGINS", origin)];
    publisher.machine.up_in(&settings, &[])
}

/// Publishes a version that says its name when it runs in a page.
fn publish_script(publisher: &Publisher, version: &str) -> Value {
    publisher.changes("app.js", &format!("ran.push('{version}')\n"));
    publisher.publish(version)
}

/// What cannot be written besides is said before the release is out; where that shows only then, what is out is said to be.
#[test]
fn a_copy_that_cannot_be_written_is_told_before_the_release_is_out() {
    let publisher = Publisher::new();
    let dist = publisher.dist();
    let words = ["release", "publish", "kiosk", dist.to_str().unwrap(), "--version", "1.0.0", "--trust-out"];
    let (trust, nowhere) = (publisher.trust("1.0.0"), publisher.trust("not/there"));
    let out = |place: &str| [&words[..], &[&trust, "--out", place]].concat().join("\n");
    let run = |variables: &[(&str, &str)], words: &str| {
        publisher.machine.run_in(variables, &words.split('\n').collect::<Vec<_>>())
    };
    for place in [nowhere.as_str(), "/dev/full", &trust] {
        let done = run(&[], &out(place));
        assert!(done.code != 0 && done.document()["error"]["code"] != "exists", "{place}: {done:?}");
    }
    write(publisher.machine.root(), "old.stb", "what stands there");
    let bundle = publisher.bundle("old");
    let full = run(&[("SEALTIDE_FAULT", "release_copy:1")], &out(&bundle));
    let error = full.document()["error"].clone();
    assert!(full.code == 1 && error["message"].as_str().unwrap().contains("1.0.0 is out"), "{full:?}");
    assert_eq!(fs::read_to_string(&bundle).unwrap(), "what stands there");
    let stored =
        error["hint"].as_str().unwrap().split([' ', ';']).find(|word| word.ends_with(".stb")).unwrap().to_owned();
    // What could be written was.
    assert_eq!(publisher.machine.ok(&["release", "verify", &stored, "--trust", &trust])["version"], "1.0.0");
}

/// Ten machines, a page in a browser and one publisher, from the first release to the day when the key is lost: everybody ends on
/// the right version, and at no moment anything else than a whole release stands there, or runs.
// Proves: GW-72, GW-106
#[test]
fn a_fleet_follows_through_rotations_roll_backs_and_a_lost_key() {
    let (publisher, words) = Publisher::with_owner();
    let publish = |version: &str| publish_script(&publisher, version);
    let first = publish("1.0.0");
    assert_eq!((first["seq"].as_u64(), first["key_version"].as_str()), (Some(1), Some("v1")));
    let trust = publisher.trust("1.0.0");
    let mut page = Page::open(&trust);
    let node = publishing(&publisher, page.as_ref());
    let count = FLEET;
    let uses = count.to_string();
    let ticket = publisher.machine.ok(&["ticket", "new", "--space", "kiosk", "--role", "read", "--uses", &uses]);
    let ticket = ticket["ticket"].as_str().unwrap();
    // Half of them got the trust file by another way, the others pin what they see first.
    let fleet: Vec<Follower> =
        (0..count).map(|at| Follower::join(ticket, (at % 2 == 0).then_some(trust.as_str()))).collect();
    println!("a fleet of {count}, and {} page", i32::from(page.is_some()));
    let mut known = BTreeSet::new();
    let mut all_have = |version: &str, node: &Running, page: &mut Option<Page>| {
        known.insert(version.to_owned());
        if let Some(page) = page {
            let told = page.look(node.gateway());
            assert_eq!((&told["title"], &told["refused"]), (&json!(version), &json!([])), "{told}");
        }
        fleet.iter().for_each(|follower| follower.until_version(version, &known));
    };
    all_have("1.0.0", &node, &mut page);
    publish("1.1.0");
    all_have("1.1.0", &node, &mut page);
    publisher.machine.ok(&["keys", "new"]);
    publisher.machine.ok(&["keys", "rotate"]);
    assert_eq!(publish("1.2.0")["key_version"], "v2");
    all_have("1.2.0", &node, &mut page);
    publisher.machine.ok(&["keys", "rollback"]);
    assert_eq!(publish("1.3.0")["key_version"], "v1");
    all_have("1.3.0", &node, &mut page);
    // The publisher is away for a while and comes back.
    drop(node);
    let node = publishing(&publisher, page.as_ref());
    publisher.machine.ok(&["keys", "rotate"]);
    publish("2.0.0");
    all_have("2.0.0", &node, &mut page);
    // The secrets are lost. The owner's words put another key in their place, and nobody gets a new file.
    drop(node);
    fs::remove_file(publisher.machine.home().join("gateway.key")).unwrap();
    publisher.machine.fails(&["keys", "status"], 6, "key_lost");
    let done = publisher.machine.run_with(&["keys", "recover", "--reason", "the disk died"], &words);
    assert_eq!((done.code, &done.document()["to"]), (0, &Value::from("v3")), "{done:?}");
    let node = publishing(&publisher, page.as_ref());
    assert_eq!(publish("2.1.0")["key_version"], "v3");
    all_have("2.1.0", &node, &mut page);
    for follower in &fleet {
        let (installed, refused) = follower.told();
        assert_eq!(installed, STORY, "{}", follower.machine.told());
        assert_eq!(refused, Vec::<Value>::new());
        let previous = opt(&follower.machine).with_file_name(".kiosk.previous");
        assert_eq!(version_in(&previous).as_deref(), Some("2.0.0"));
        let shown = follower.machine.ok(&["release", "show", "kiosk"]);
        let rows = shown["releases"].as_array().unwrap();
        assert!(rows.len() == 6 && rows.iter().all(|row| row["verified"] == "authentic"), "{shown}");
    }
    // The trust file of the first day takes a bundle of the last one, and the other way round.
    let (old, new) = (publisher.trust("1.0.0"), publisher.trust("2.1.0"));
    let checked = publisher.machine.ok(&["release", "verify", &publisher.bundle("2.1.0"), "--trust", &old]);
    assert_eq!((checked["authentic"].as_bool(), checked["freshness"].as_str()), (Some(true), Some("not checked")));
    publisher.machine.ok(&["release", "verify", &publisher.bundle("2.1.0"), "--trust", &new]);
    if let Some(mut page) = page {
        page_follows_and_refuses(&mut page, &publisher, node.gateway());
    }
}

/// The page went through the whole story with the trust file of the first day. Now somebody stands before the door.
fn page_follows_and_refuses(page: &mut Page, publisher: &Publisher, door: &str) {
    let told = page.look(door);
    let story = json!({ "installed": STORY, "refused": [], "ran": STORY, "title": "2.1.0" });
    assert_eq!(told, story, "what is here already is not fetched again");
    let keep = |page: &mut Page| page.ask(&json!({ "do": "keep", "gateway": door }));
    let attack = |page: &mut Page, how: &str| page.ask(&json!({ "do": "attack", "gateway": door, "how": how }));
    assert_eq!(keep(page)["version"], "2.1.0");
    publish_script(publisher, "2.2.0");
    let told = attack(page, "changed_byte");
    assert_eq!((&told["refused"], &told["ran"]), (&json!(["payload"]), &json!(STORY)), "{told}");
    assert_eq!(page.look(door)["title"], "2.2.0");
    // What was seen outlives the page that saw it; so does what was learned of keys, also of those that changed since.
    page.ask(&json!({ "do": "reload" }));
    let told = attack(page, "old_head");
    assert_eq!((&told["refused"], &told["ran"]), (&json!(["rollback"]), &json!([])), "{told}");
    publisher.machine.ok(&["keys", "new"]);
    publisher.machine.ok(&["keys", "rotate"]);
    until("heads are signed by the new pair", || {
        let epoch = keep(page)["epoch"].as_u64();
        if epoch == publisher.machine.ok(&["keys", "status"])["epoch"].as_u64() {
            Ok(())
        } else {
            Err(format!("{epoch:?}"))
        }
    });
    let told = page.look(door);
    assert_eq!((&told["installed"], &told["refused"]), (&json!(["2.2.0"]), &json!(["rollback"])), "{told}");
    // A page of another site reads nothing: the door names one origin, and the browser keeps the others out.
    assert_eq!(page.ask(&json!({ "do": "foreign", "gateway": door }))["ended"], "TypeError");
}

// Proves: GW-110
#[test]
fn verify_offline() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    let other = Publisher::new();
    other.publish("1.0.0");
    let (bundle, trust) = (publisher.bundle("1.0.0"), publisher.trust("1.0.0"));
    let nowhere = publisher.machine.root().join("no-home");
    let verify = |namespace: bool, trust: Option<&str>| {
        let binary = env!("CARGO_BIN_EXE_sealtide");
        let mut command = if namespace { Command::new("unshare") } else { Command::new(binary) };
        if namespace {
            command.args(["--net", binary]);
        }
        command.arg("--home").arg(&nowhere).args(["--json", "release", "verify", &bundle]);
        command.args(trust.into_iter().flat_map(|trust| ["--trust", trust]));
        let done = command.output().unwrap();
        let document: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
        (done.status.code(), document, String::from_utf8(done.stderr).unwrap())
    };
    let (code, document, told) = verify(false, Some(&trust));
    assert_eq!((code, &document["freshness"]), (Some(0), &Value::from("not checked")), "{told}");
    let (code, _, _) = verify(false, Some(&other.trust("1.0.0")));
    assert_eq!(code, Some(5));
    let (code, _, told) = verify(false, None);
    assert_eq!(code, Some(6), "{told}");
    if rustix::process::geteuid().is_root()
        && Command::new("unshare").args(["--net", "true"]).status().is_ok_and(|it| it.success())
    {
        let (code, document, told) = verify(true, Some(&trust));
        assert_eq!((code, &document["authentic"]), (Some(0), &Value::from(true)), "{told}");
    } else {
        println!("skipped: an empty network namespace needs root");
    }
    assert!(!nowhere.exists(), "verify makes no home");
}

// Proves: GW-72, GW-103, GW-105
#[test]
fn what_was_tampered_with_is_refused_and_the_installed_version_stays() {
    let publisher = Publisher::new();
    publisher.changes("big.bin", &"0123456789abcdef".repeat(20_000));
    publisher.publish("1.0.0");
    publisher.publish("1.1.0");
    let client = Machine::new();
    let to = opt(&client);
    let to_text = to.to_str().unwrap();
    let trust = publisher.trust("1.0.0");
    let install = |bundle: &str| client.run(&["release", "install", bundle, "--to", to_text, "--trust", &trust]);
    assert_eq!(install(&publisher.bundle("1.1.0")).code, 0);
    assert_eq!(version_in(&to).as_deref(), Some("1.1.0"));
    let bytes = fs::read(publisher.bundle("1.1.0")).unwrap();
    let odd = client.root().join("odd.stb");
    let step = bytes.len() / 60;
    let mut unnoticed = 0;
    for at in (0..bytes.len()).step_by(step).chain([6, 30, bytes.len() - 1]) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&odd, &changed).unwrap();
        let done = client.run(&["release", "verify", odd.to_str().unwrap(), "--trust", &trust]);
        assert!(done.code == 5 || done.code == 0, "byte {at}: {}", done.stderr);
        unnoticed += usize::from(done.code == 0);
    }
    // The node's own entry in a ledger record, 6 172 characters, says nothing to anybody but that node.
    assert!(unnoticed * step < 6_172 + 2 * step, "{unnoticed} changed bytes of {} were not noticed", bytes.len());
    assert!(unnoticed < 60);
    for (what, changed) in [
        ("cut", &bytes[..bytes.len() - 1]),
        ("half", &bytes[..bytes.len() / 2]),
        ("longer", &[&bytes[..], b"x"].concat()[..]),
        ("nothing", b""),
        ("another file", b"#!/bin/sh\nrm -rf /\n"),
    ] {
        fs::write(&odd, changed).unwrap();
        let done = install(odd.to_str().unwrap());
        assert_eq!(done.code, 5, "{what}: {done:?}");
        assert!(done.stdout.contains("odd.stb"), "{what}: {done:?}");
    }
    // The head of one version with the payload of another.
    let (old, new) = (fs::read(publisher.bundle("1.0.0")).unwrap(), &bytes);
    let begins = |file: &[u8]| sealtide_releases::bundle::BundleHead::read(file).unwrap().1;
    fs::write(&odd, [&old[..begins(&old)], &new[begins(new)..]].concat()).unwrap();
    assert_eq!(install(odd.to_str().unwrap()).code, 5);
    assert_eq!(version_in(&to).as_deref(), Some("1.1.0"));
    let beside: Vec<_> = fs::read_dir(to.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside, ["kiosk"], "what is refused leaves nothing");
    // Somebody else's trust, and somebody else's release.
    let other = Publisher::new();
    other.publish("9.9.9");
    client.fails(
        &["release", "install", &other.bundle("9.9.9"), "--to", to_text, "--trust", &trust],
        5,
        "other_registry",
    );
    client.fails(&["release", "install", &other.bundle("9.9.9"), "--to", to_text], 6, "no_trust");
    assert_eq!(version_in(&to).as_deref(), Some("1.1.0"));
}

/// Who follows goes on when the node of the machine was away: a fleet is updated, and its machines start anew, by themselves.
#[test]
fn a_follower_outlives_its_node() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    let _node = publisher.machine.up(&[]);
    let mut follower = Follower::join(&publisher.ticket(), None);
    let known = BTreeSet::from(["1.0.0", "1.1.0", "1.2.0"].map(str::to_owned));
    follower.until_version("1.0.0", &known);
    // A node that dies between the two has nobody to tell of it.
    follower.until_told("1.0.0");
    follower.node.kill_9();
    publisher.publish("1.1.0");
    follower.node = follower.machine.up(&[]);
    follower.until_version("1.1.0", &known);
    follower.until_told("1.1.0");
    follower.machine.ok(&["down"]);
    publisher.publish("1.2.0");
    follower.node = follower.machine.up(&[]);
    follower.until_version("1.2.0", &known);
    follower.until_told("1.2.0");
    assert_eq!(follower.told(), (["1.0.0", "1.1.0", "1.2.0"].map(str::to_owned).to_vec(), vec![]));
    let previous = opt(&follower.machine).with_file_name(".kiosk.previous");
    assert_eq!(version_in(&previous).as_deref(), Some("1.1.0"));
    // Nor does it matter where the node was when it died.
    for (point, version) in [("release_unpacked", "1.3.0"), ("release_switched", "1.4.0")] {
        follower.dies_at(point);
        publisher.publish(version);
        assert!(follower.node.wait() < 0);
        follower.node = follower.machine.up(&[]);
        let versions = ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"].map(str::to_owned);
        follower.until_version(version, &BTreeSet::from(versions));
        follower.until_told(version);
    }
    assert_eq!(version_in(&previous).as_deref(), Some("1.3.0"), "what was cut off went to its end");
}

/// Who begins with a trust file of today verifies what earlier keys signed, too, but not what a stolen one did.
// Proves: GW-106
#[test]
fn a_new_trust_file_knows_earlier_keys() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    publisher.machine.ok(&["keys", "new"]);
    publisher.machine.ok(&["--yes", "keys", "rotate"]);
    publisher.publish("1.1.0");
    let client = Machine::new();
    let verify = |version: &str, trust: &str| {
        let done = client.run(&["release", "verify", &publisher.bundle(version), "--trust", &publisher.trust(trust)]);
        (done.code, done.document()["key_version"].as_str().unwrap_or_default().to_owned())
    };
    for trust in ["1.0.0", "1.1.0"] {
        assert_eq!(verify("1.0.0", trust), (0, "v1".to_owned()), "{trust}");
        assert_eq!(verify("1.1.0", trust), (0, "v2".to_owned()), "{trust}");
    }
    let (to, bundle) = (opt(&client), publisher.bundle("1.0.0"));
    client.ok(&["release", "install", &bundle, "--to", to.to_str().unwrap(), "--trust", &publisher.trust("1.1.0")]);
    let other = Publisher::new();
    other.publish("1.0.0");
    client.fails(
        &["release", "verify", &other.bundle("1.0.0"), "--trust", &publisher.trust("1.1.0")],
        5,
        "other_registry",
    );
}

/// Beside a node that runs, a file is verified by what that node trusts.
#[test]
fn a_file_is_verified_beside_the_running_node() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    let (client, file) = (Machine::new(), publisher.bundle("1.0.0"));
    let to = opt(&client);
    let verify = ["release", "verify", &file];
    client.fails(&verify, 6, "no_trust");
    client.ok(&["release", "install", &file, "--to", to.to_str().unwrap(), "--trust", &publisher.trust("1.0.0")]);
    assert_eq!(client.ok(&verify)["authentic"], true);
    let _node = client.up(&[]);
    assert_eq!(client.ok(&verify)["authentic"], true);
    let other = Publisher::new();
    other.publish("1.0.0");
    client.fails(&["release", "verify", &other.bundle("1.0.0")], 6, "no_trust");
}

/// The very first release of a machine, whose node dies right behind the switch: what stands there is known again.
// Proves: GW-72
#[test]
fn a_first_install_that_was_cut_off_is_known_again() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    let _node = publisher.machine.up(&[]);
    let dies = [("SEALTIDE_FAILPOINT", "release_switched:1")];
    let mut follower = Follower::join_in(&dies, &publisher.ticket(), None);
    assert!(follower.node.wait() < 0);
    assert_eq!(version_in(&opt(&follower.machine)).as_deref(), Some("1.0.0"));
    assert_eq!(follower.told(), (vec![], vec![]));
    follower.node = follower.machine.up(&[]);
    follower.until_told("1.0.0");
    publisher.publish("1.1.0");
    follower.until_version("1.1.0", &BTreeSet::from(["1.0.0", "1.1.0"].map(str::to_owned)));
}

// Proves: GW-104
#[test]
fn older_yanked_and_unknown_releases() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    let _node = publisher.machine.up(&[]);
    let follower = Follower::join(&publisher.ticket(), None);
    let known = BTreeSet::from(["1.0.0", "1.1.0", "1.2.0"].map(str::to_owned));
    follower.until_version("1.0.0", &known);
    publisher.publish("1.1.0");
    follower.until_version("1.1.0", &known);
    let (machine, to) = (&follower.machine, opt(&follower.machine));
    let install = ["release", "install", "kiosk", "--to", to.to_str().unwrap(), "--version", "1.0.0"];
    machine.fails(&install, 5, "not_of_head");
    let installed = machine.ok(&[&install[..], &["--allow-downgrade"]].concat());
    assert_eq!(installed["version"], "1.0.0");
    until("the audit says so", || match audited(machine, "release:downgrade") {
        1 => Ok(()),
        count => Err(format!("{count}: {}", machine.plain(&["audit", "tail"]).stdout)),
    });
    // A file of the publisher that is older than what was seen of the channel.
    let elsewhere = machine.root().join("elsewhere");
    let file = publisher.bundle("1.0.0");
    let by_hand = ["release", "install", &file, "--to", elsewhere.to_str().unwrap()];
    machine.fails(&by_hand, 5, "rollback");
    assert!(!elsewhere.exists());
    machine.ok(&[&by_hand[..], &["--allow-downgrade"]].concat());
    assert_eq!(version_in(&elsewhere).as_deref(), Some("1.0.0"));
    // Where only files arrive, an older one does not go over a newer one either.
    let (alone, trust) = (Machine::new(), publisher.trust("1.1.0"));
    let opt = opt(&alone);
    let (newer, older) = (publisher.bundle("1.1.0"), publisher.bundle("1.0.0"));
    let newer = ["release", "install", &newer, "--to", opt.to_str().unwrap(), "--trust", &trust];
    let older = ["release", "install", &older, "--to", opt.to_str().unwrap(), "--trust", &trust];
    alone.ok(&newer);
    alone.fails(&older, 5, "rollback");
    assert_eq!(version_in(&opt).as_deref(), Some("1.1.0"));
    assert_eq!(audited(&alone, "release:downgrade"), 0);
    alone.ok(&[&older[..], &["--allow-downgrade"]].concat());
    assert_eq!((version_in(&opt).as_deref(), audited(&alone, "release:downgrade")), (Some("1.0.0"), 1));
    alone.ok(&newer);
    // A release that the publisher takes back.
    publisher.publish("1.2.0");
    follower.until_version("1.2.0", &known);
    publisher.machine.ok(&["release", "yank", "kiosk", "1.2.0"]);
    until("the follower hears of it", || match follower.told().1.last() {
        Some(told) if told["error"]["code"] == "yanked" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(version_in(&to).as_deref(), Some("1.2.0"), "what is installed stays");
    // Nor is it what another channel gets.
    let (words, beta) = (["release", "promote", "kiosk", "--from", "stable", "--to"], ["canary", "--version", "1.2.0"]);
    publisher.machine.fails(&[&words[..], &beta].concat(), 2, "yanked");
    assert_eq!(publisher.machine.ok(&[&words[..], &["canary"]].concat())["version"], "1.1.0");
    let dist = publisher.dist();
    let below = ["--version", "2.0.0", "--channel", "beta", "--minimum-version", "3.0.0"];
    let words = ["release", "publish", "kiosk", dist.to_str().unwrap()];
    publisher.machine.fails(&[&words[..], &below].concat(), 2, "minimum_version");
    // Channels are apart, and a promotion is a release of its own.
    publisher.publish_in("2.0.0", "beta");
    let promoted = publisher.machine.ok(&["release", "promote", "kiosk", "--from", "beta", "--to", "stable"]);
    assert_eq!((promoted["seq"].as_u64(), promoted["version"].as_str()), (Some(4), Some("2.0.0")));
    until("the promoted release", || match version_in(&to).as_deref() {
        Some("2.0.0") => Ok(()),
        other => Err(format!("{other:?} {:?}", follower.told())),
    });
    // Words that are wrong.
    machine.fails(&["release", "install", "nothing", "--to", "x"], 6, "no_app");
    machine.fails(&["release", "install", "kiosk", "--channel", "gamma", "--to", "x"], 2, "no_channel");
    machine.fails(&["release", "show", "Kiosk"], 2, "name");
    let dist = publisher.dist();
    let again = ["release", "publish", "kiosk", dist.to_str().unwrap(), "--version", "2.0.0"];
    publisher.machine.fails(&again, 2, "exists");
    // Without a version the registry's is taken: 1.0.0 of the sample, which is out; and going back is said aloud.
    publisher.machine.fails(&again[..4], 2, "exists");
    let back = ["release", "publish", "kiosk", dist.to_str().unwrap(), "--version", "1.9.0"];
    publisher.machine.fails(&back, 2, "older");
    publisher.machine.ok(&[&back[..], &["--allow-downgrade"]].concat());
    until("everybody goes back", || match follower.told().0.last().map(String::as_str) {
        Some("1.9.0") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let newer = ["release", "publish", "kiosk", dist.to_str().unwrap(), "--version", "two"];
    publisher.machine.fails(&newer, 2, "version");
    std::os::unix::fs::symlink("/etc/passwd", dist.join("link")).unwrap();
    let linked = ["release", "publish", "kiosk", dist.to_str().unwrap(), "--version", "3.0.0"];
    let error = publisher.machine.fails(&linked, 2, "directory");
    assert!(error["message"].as_str().unwrap().contains("symbolic link"), "{error}");
}

#[test]
fn what_no_release_put_there_is_kept() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    let client = Machine::new();
    let to = opt(&client);
    write(&to, "mine.txt", "mine");
    let (bundle, trust) = (publisher.bundle("1.0.0"), publisher.trust("1.0.0"));
    let install = ["release", "install", &bundle, "--to", to.to_str().unwrap(), "--trust", &trust];
    client.fails(&install, 8, "occupied");
    assert_eq!(fs::read_to_string(to.join("mine.txt")).unwrap(), "mine");
    assert!(!to.with_file_name(".kiosk.next").exists());
    client.ok(&[&install[..], &["--yes"]].concat());
    assert_eq!(version_in(&to).as_deref(), Some("1.0.0"));
    assert_eq!(fs::read_to_string(to.with_file_name(".kiosk.previous").join("mine.txt")).unwrap(), "mine");
    assert_eq!(client.ok(&install)["changed"], false, "the second time nothing happens");
    assert_eq!(client.ok(&["release", "list"])["installed"][0]["version"], "1.0.0");
}

/// Two installs into one directory at once go one after the other: what stands there, and what stood there before, is whole.
#[test]
fn two_installs_into_one_directory_take_turns() {
    let publisher = Publisher::new();
    for number in 0..1500 {
        publisher.changes(&format!("pages/{number}"), &number.to_string());
    }
    for version in ["1.0.0", "1.1.0"] {
        publisher.publish(version);
    }
    let (client, trust) = (Machine::new(), publisher.trust("1.1.0"));
    let (to, _node) = (opt(&client), client.up(&[]));
    let files = |dir: &Path| fs::read_dir(dir.join("pages")).map_or(0, Iterator::count);
    let install = |version: &str, to: String| {
        let bundle = publisher.bundle(version);
        client.ok(&["release", "install", &bundle, "--to", &to, "--trust", &trust, "--allow-downgrade"])
    };
    std::thread::scope(|scope| {
        scope.spawn(|| install("1.0.0", to.display().to_string()));
        scope.spawn(|| install("1.1.0", format!("{}/", to.display())));
    });
    let previous = to.with_file_name(".kiosk.previous");
    assert_eq!((files(&to), files(&previous)), (1500, 1500));
    let versions = BTreeSet::from([version_in(&to), version_in(&previous)].map(Option::unwrap));
    assert_eq!(versions, BTreeSet::from(["1.0.0", "1.1.0"].map(str::to_owned)));
    assert_eq!(client.ok(&["release", "list"])["installed"][0]["version"], version_in(&to).unwrap());
}

/// Behind the exchange the release is installed, whatever becomes of the versions before; and they are not lost with it.
#[test]
fn what_fails_behind_the_switch_takes_nothing_back() {
    let publisher = Publisher::new();
    for version in ["1.0.0", "1.1.0", "1.2.0", "1.3.0"] {
        publisher.publish(version);
    }
    let (client, trust) = (Machine::new(), publisher.trust("1.3.0"));
    let to = opt(&client);
    let install = |version: &str, to: &str, point: &str| {
        let bundle = publisher.bundle(version);
        let words = ["release", "install", &bundle, "--to", to, "--trust", &trust];
        client.run_in(&[("SEALTIDE_FAILPOINT", point)], &words).code
    };
    let (plain, slashed) = (to.to_str().unwrap(), format!("{}/", to.display()));
    let previous = || version_in(&to.with_file_name(".kiosk.previous"));
    assert_eq!(install("1.0.0", plain, ""), 0);
    // Nobody can remove a file as a directory.
    fs::write(to.with_file_name(".kiosk.previous"), "").unwrap();
    assert_eq!(install("1.1.0", plain, ""), 0);
    assert_eq!((version_in(&to).as_deref(), previous().as_deref()), (Some("1.1.0"), Some("1.0.0")));
    assert_eq!(client.ok(&["release", "list"])["installed"][0]["version"], "1.1.0");
    // Cut off behind the exchange, and gone on with under another spelling of the path: the version before is kept as such.
    assert!(install("1.2.0", &slashed, "release_switched:1") < 0);
    assert_eq!(version_in(&to).as_deref(), Some("1.2.0"));
    assert_eq!(install("1.3.0", plain, "release_unpacked:1"), -6);
    assert_eq!(previous().as_deref(), Some("1.1.0"));
    assert_eq!(install("1.3.0", plain, ""), 0);
    assert_eq!((version_in(&to).as_deref(), previous().as_deref()), (Some("1.3.0"), Some("1.2.0")));
    let beside: BTreeSet<String> = fs::read_dir(to.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(beside, BTreeSet::from(["kiosk", ".kiosk.previous", ".kiosk.previous-1"].map(str::to_owned)));
}

// Proves: GW-72
#[test]
fn a_release_is_whole_or_not_there_whenever_the_process_dies() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    let client = Machine::new();
    let to = opt(&client);
    let trust = publisher.trust("1.0.0");
    let install = |version: &str, point: &str| {
        let bundle = publisher.bundle(version);
        let words = ["release", "install", &bundle, "--to", to.to_str().unwrap(), "--trust", &trust];
        client.run_in(&[("SEALTIDE_FAILPOINT", point)], &words).code
    };
    assert_eq!(install("1.0.0", ""), 0);
    for (number, point) in ["release_unpacked", "release_switched"].into_iter().enumerate() {
        let version = format!("1.{}.0", number + 1);
        publisher.publish(&version);
        let before = version_in(&to).unwrap();
        assert!(install(&version, &format!("{point}:1")) < 0, "{point}");
        let found = version_in(&to).unwrap();
        assert!(found == before || found == version, "{point}: {found}");
        assert!(to.join("bin/kiosk").is_file(), "{point}: whole");
        assert_eq!(install(&version, ""), 0, "{point}");
        assert_eq!(version_in(&to).as_deref(), Some(version.as_str()));
    }
    for (number, point) in ["release_stored", "release_announced"].into_iter().enumerate() {
        let version = format!("2.{number}.0");
        publisher.changes("version", &version);
        let dist = publisher.dist();
        let words = ["release", "publish", "kiosk", dist.to_str().unwrap(), "--version", &version];
        let died = publisher.machine.run_in(&[("SEALTIDE_FAILPOINT", &format!("{point}:1"))], &words);
        assert!(died.code < 0, "{point}: {died:?}");
        let again = publisher.machine.run(&words);
        let is_out = point == "release_announced";
        assert_eq!(again.code, if is_out { 2 } else { 0 }, "{point}: {}", again.stderr);
        let shown = publisher.machine.ok(&["release", "show", "kiosk"]);
        let numbers: Vec<u64> =
            shown["releases"].as_array().unwrap().iter().map(|row| row["seq"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{point}: no number is left out or twice");
    }
}

// Proves: GW-75
#[test]
fn archive_on_rotate_moves_every_bundle_and_none_is_lost_when_it_is_cut() {
    let publisher = Publisher::new();
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        publisher.publish(version);
    }
    let machine = &publisher.machine;
    let tiers = |machine: &Machine| -> Vec<String> {
        let shown = machine.ok(&["release", "show", "kiosk"]);
        let rows = shown["releases"].as_array().unwrap().iter();
        rows.map(|row| row["tier"].as_str().unwrap_or("gone").to_owned()).collect()
    };
    assert_eq!(tiers(machine), ["STANDARD"; 3]);
    machine.ok(&["release", "archive", "--older", "30d"]);
    assert_eq!(tiers(machine), ["STANDARD"; 3], "too young");
    for point in ["archive_copied", "archive_moved"] {
        let died =
            machine.run_in(&[("SEALTIDE_FAILPOINT", &format!("{point}:1"))], &["release", "archive", "--older", "0s"]);
        assert!(died.code < 0, "{point}: {died:?}");
        assert!(!tiers(machine).contains(&"gone".to_owned()), "{point}");
    }
    machine.ok(&["keys", "new"]);
    let _node = machine.up(&[]);
    machine.ok(&["keys", "rotate"]);
    publisher.publish("2.0.0");
    let wanted = ["INFREQUENT_ACCESS", "INFREQUENT_ACCESS", "INFREQUENT_ACCESS", "STANDARD"];
    until("the bundles of v1 are archived", || {
        let found = tiers(machine);
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    });
    assert!(audited(machine, "bundle:archived") >= 2 && audited(machine, "bundle:archive:done") >= 1);
    // An archived one is promoted as any other.
    let words = ["release", "promote", "kiosk", "--from", "stable", "--to", "lts", "--version", "1.1.0"];
    assert_eq!(machine.ok(&words)["version"], "1.1.0");
}

/// One request at the door: status, head, body.
pub(crate) fn get(gateway: &str, path: &str) -> (u16, String, Vec<u8>) {
    use std::io::{Read, Write};
    let at = gateway.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(at).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), answer[end + 4..].to_vec())
}

/// A few seconds from now.
pub(crate) fn soon() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now() + Duration::from_secs(4)).to_string()
}

/// Until the date of a bundle has come.
#[track_caller]
pub(crate) fn until_over(node: &Running, path: &str) {
    until("it is over", || match get(node.gateway(), path).0 {
        410 => Ok(()),
        status => Err(status.to_string()),
    });
}

// Proves: GW-75, GW-76
#[test]
fn bundles_are_served_through_the_door_hot_or_archived() {
    let publisher = Publisher::new();
    publisher.changes("big.bin", &"0123456789abcdef".repeat(40_000));
    publisher.publish("1.0.0");
    let machine = &publisher.machine;
    machine.ok(&["keys", "new"]);
    let node = machine.up_in(&[("SEALTIDE_GATEWAY_APP", "yes")], &[]);
    let ask = |path: &str| get(node.gateway(), path);
    let json = |path: &str| -> Value { serde_json::from_slice(&ask(path).2).unwrap() };
    let file = fs::read(publisher.bundle("1.0.0")).unwrap();
    let (status, head, body) = ask("/bundle/kiosk/1.0.0");
    assert!(status == 200 && head.contains("tes-storage-class: standard\r\n") && body == file, "{head}");
    let manifest = json("/bundle/kiosk/1.0.0/manifest");
    assert_eq!((&manifest["name"], manifest["signatures"].as_array().unwrap().len()), (&Value::from("kiosk"), 2));
    assert_eq!(json("/bundle/kiosk/head/stable")["version"], "1.0.0");
    assert_eq!(json("/bundle?prefix=v1/kiosk")["bundles"][0]["key"], "v1/kiosk/1.0.0");
    assert_eq!(json("/bundle?prefix=v1/kiosk&cursor=v1/kiosk/1.0.0")["bundles"], serde_json::json!([]));
    for (path, wanted) in [
        ("/bundle/kiosk/9.9.9", 404),
        ("/bundle/other/1.0.0", 404),
        ("/bundle/../1.0.0", 404),
        ("/bundle/kiosk/head/beta", 404),
        ("/bundle?tier=%00", 400),
        ("/bundle?wrong=1", 400),
    ] {
        assert_eq!(ask(path).0, wanted, "{path}");
    }
    // Archived, it is the same, and says so.
    machine.ok(&["release", "archive", "--older", "0s"]);
    let (status, head, body) = ask("/bundle/kiosk/1.0.0");
    assert!(status == 200 && head.contains("tes-storage-class: infrequent_access\r\n") && body == file, "{head}");
    assert_eq!(json("/bundle?tier=STANDARD")["bundles"], serde_json::json!([]));
    // A bundle that rots on the disk never comes to its end.
    let shown = json("/bundle?tier=INFREQUENT_ACCESS");
    assert_eq!(shown["bundles"][0]["storageClass"], "INFREQUENT_ACCESS");
    let place = machine.home().join("bundles/cold/archive/v1/kiosk/1.0.0.stb");
    let mut rotten = file.clone();
    let last = rotten.len() - 1;
    rotten[last] ^= 1;
    fs::write(&place, &rotten).unwrap();
    assert!(ask("/bundle/kiosk/1.0.0").2.len() < file.len());
    // One of the active version that is past its date: gone, and the next version signs, with no way back.
    publisher.changes("version", "1.1.0");
    let dist = publisher.dist();
    let words = ["release", "publish", "kiosk", dist.to_str().unwrap(), "--version", "1.1.0"];
    machine.fails(&[&words[..], &["--expires", "2026-01-01T00:00:00Z"]].concat(), 2, "expired");
    machine.ok(&[&words[..], &["--expires", &soon()]].concat());
    assert_eq!(machine.ok(&["keys", "status"])["active"], "v1");
    until_over(&node, "/bundle/kiosk/1.1.0");
    machine.fails(&["release", "promote", "kiosk", "--from", "stable", "--to", "beta"], 2, "expired");
    let verified = machine.ok(&["release", "verify", &publisher.bundle("1.0.0"), "--trust", &publisher.trust("1.0.0")]);
    assert_eq!((&verified["expired"], &verified["expires"]), (&Value::from(false), &Value::Null));
    let status = machine.ok(&["keys", "status"]);
    assert_eq!((&status["active"], &status["forced"]), (&Value::from("v2"), &Value::from(true)));
    until("the heads are signed by the new pair", || {
        let head = json("/bundle/kiosk/head/stable");
        if head["epoch"] == status["epoch"] { Ok(()) } else { Err(head.to_string()) }
    });
}

/// A gateway that runs alone on the home of a publisher keeps its heads good: they are signed anew when the keys change, and
/// bundles of the version before go to the archive.
// Proves: GW-104
#[test]
fn a_gateway_alone_renews_heads() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    let machine = &publisher.machine;
    machine.ok(&["keys", "new"]);
    let gateway = crate::gateway::start(&machine.home(), &[], &[]);
    let head = || gateway.get("/bundle/kiosk/head/stable");
    let before = head();
    machine.ok(&["--yes", "keys", "rotate"]);
    let epoch = machine.ok(&["keys", "status"])["epoch"].clone();
    assert_ne!(before["epoch"], epoch);
    until("the head is of the new pair", || {
        let found = head();
        let is_new = found["epoch"] == epoch && found["signatures"][0]["kid"] != before["signatures"][0]["kid"];
        if is_new && found["seq"] == before["seq"] { Ok(()) } else { Err(found.to_string()) }
    });
    until("the bundle of v1 is archived", || {
        let page = gateway.get("/bundle?tier=INFREQUENT_ACCESS");
        if page["bundles"].as_array().is_some_and(|found| found.len() == 1) { Ok(()) } else { Err(page.to_string()) }
    });
    machine.ok(&["down"]);
    drop(gateway);
    machine.ok(&["verify"]);
    machine.ok(&["audit", "verify"]);
}
