//! `release bump` and `release revert`: registry and source tree together, or neither.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::gateway::start;
use crate::support::Machine;

const CARGO: &str = "[package]\nname = \"é\"\nversion = \"1.0.0\"\n# api 1.0.0\n";
const PAGE: &str = "<p>Version v1.0.0</p>\n";

/// A home whose registry names places in a source tree.
pub(crate) struct Tree {
    pub(crate) machine: Machine,
    pub(crate) root: PathBuf,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let machine = Machine::new();
        let root = machine.root().join("source");
        fs::create_dir_all(root.join("web")).unwrap();
        fs::write(root.join("Cargo.toml"), CARGO).unwrap();
        fs::write(root.join("web/index.html"), PAGE).unwrap();
        let rule = |path: &str, pattern: &str, required: bool| json!({"path": path, "pattern": pattern, "replacement": "$1", "description": "", "required": required});
        let entity = |id: &str, kind: &str, parent: Option<&str>, files: Value| {
            let strategy = if parent.is_some() { "linked-to-parent" } else { "independent" };
            let mut entity = json!({"id": id, "type": kind, "currentVersion": "1.0.0", "displayName": id, "updateStrategy": strategy, "displayInUi": true, "files": files});
            if let Some(parent) = parent {
                entity["parentVersionId"] = json!(parent);
            }
            entity
        };
        let registry = json!([
            entity("global:main", "global", None, json!([rule("Cargo.toml", "version = \"([0-9.]+)\"", true)])),
            entity(
                "component:page",
                "component",
                Some("global:main"),
                json!([
                    rule("web/index.html", "Version v([0-9.]+)", true),
                    rule("Cargo.toml", "# api ([0-9.]+)", false),
                    rule("not/there.txt", "([0-9.]+)", false),
                ])
            ),
        ]);
        let file = machine.root().join("registry.json");
        fs::write(&file, registry.to_string()).unwrap();
        drop(start(&machine.home(), &["--registry", file.to_str().unwrap()], &[]));
        Self { machine, root }
    }

    pub(crate) fn words<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        [words, &["--tree", self.root.to_str().unwrap()]].concat()
    }

    fn files(&self) -> (String, String) {
        let read = |path: &str| fs::read_to_string(self.root.join(path)).unwrap();
        (read("Cargo.toml"), read("web/index.html"))
    }

    fn original(&self) -> (String, String) {
        (CARGO.to_owned(), PAGE.to_owned())
    }

    fn bumped(&self) -> (String, String) {
        (CARGO.replace("1.0.0", "1.1.0"), PAGE.replace("1.0.0", "1.1.0"))
    }

    /// The revision, and the version of the root.
    fn registry(&self) -> (u64, String) {
        let told = self.machine.ok(&["release", "bump", "--dry-run"]);
        (told["revision"].as_u64().unwrap(), told["changes"][0]["from"].as_str().unwrap().to_owned())
    }

    /// Nothing of a transaction is left between the files.
    fn is_tidy(&self) -> bool {
        let names =
            |dir: PathBuf| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let hidden = |name: &String| name.starts_with('.') && name != ".bump_backups";
        !names(self.root.clone()).chain(names(self.root.join("web"))).any(|name| hidden(&name))
    }
}

// Proves: GW-64, GW-70
#[test]
fn file_bump() {
    let tree = Tree::new();
    let machine = &tree.machine;
    let shown = machine.run(&tree.words(&["release", "bump", "minor"]));
    assert_eq!((shown.code, &shown.document()["error"]["code"]), (2, &"not_confirmed".into()), "{shown:?}");
    assert_eq!(
        shown.document()["files"],
        json!([{"path": "Cargo.toml", "places": 2}, {"path": "web/index.html", "places": 1}])
    );
    assert_eq!((tree.files(), tree.registry()), (tree.original(), (1, "1.0.0".to_owned())));
    assert!(!tree.root.join(".bump_backups").exists(), "nothing was written");

    let missed = machine.run(&tree.words(&["release", "bump", "minor", "--confirm", "--expect", "9"]));
    assert_eq!((missed.code, &missed.document()["error"]["code"]), (1, &"revision".into()));
    let done = machine.ok(&tree.words(&["release", "bump", "minor", "--confirm", "--expect", "1"]));
    assert_eq!((tree.files(), tree.registry()), (tree.bumped(), (2, "1.1.0".to_owned())));
    assert!(tree.is_tidy());
    let id = done["transaction"].as_str().unwrap();
    let manifest: Value =
        serde_json::from_slice(&fs::read(tree.root.join(".bump_backups").join(id).join(".manifest.json")).unwrap())
            .unwrap();
    assert_eq!(
        (&manifest["status"], &manifest["type"], &manifest["revision"]),
        (&"committed".into(), &"global".into(), &2.into())
    );

    // A file that must be there stops everything before anything is written.
    fs::rename(tree.root.join("web/index.html"), tree.root.join("web/away.html")).unwrap();
    let missing = machine.run(&tree.words(&["release", "bump", "--confirm"]));
    assert_eq!((missing.code, &missing.document()["error"]["code"]), (1, &"tree".into()));
    assert_eq!(fs::read_to_string(tree.root.join("Cargo.toml")).unwrap(), tree.bumped().0);
    std::os::unix::fs::symlink("away.html", tree.root.join("web/index.html")).unwrap();
    let link = machine.run(&tree.words(&["release", "bump", "--confirm"]));
    assert!(link.document()["error"]["message"].as_str().unwrap().contains("over a link"), "{link:?}");
    assert_eq!(tree.registry().0, 2);
}

// Proves: GW-70
#[test]
fn file_bump_cut_at_every_step() {
    let points = [
        ("tree_staged:1", false),
        ("tree_renamed:1", false),
        ("tree_renamed:2", false),
        ("tree_swapped:1", false),
        ("bump_signed:1", false),
        ("bump_committed:1", true),
        ("tree_committed:1", true),
    ];
    let mut tree = Tree::new();
    for (point, is_done) in points {
        if tree.registry().0 != 1 {
            tree = Tree::new();
        }
        let cut = tree
            .machine
            .run_in(&[("SEALTIDE_FAILPOINT", point)], &tree.words(&["release", "bump", "minor", "--confirm"]));
        assert!(cut.code != 0, "{point} {cut:?}");
        // Whoever looks at the tree next finishes it.
        tree.machine.ok(&tree.words(&["release", "bump", "--dry-run"]));
        let wanted =
            if is_done { (tree.bumped(), (2, "1.1.0".to_owned())) } else { (tree.original(), (1, "1.0.0".to_owned())) };
        assert_eq!((tree.files(), tree.registry()), wanted, "{point}");
        assert!(tree.is_tidy(), "{point}");
    }
}

/// What a version signed that ended since is no hindrance: neither a bump that is over, nor one that was cut.
// Proves: GW-70
#[test]
fn file_bump_after_the_version_of_an_older_one_ended() {
    let tree = Tree::new();
    let (machine, bump) = (&tree.machine, tree.words(&["release", "bump", "minor", "--confirm"]));
    machine.ok(&bump);
    let cut = machine.run_in(&[("SEALTIDE_FAILPOINT", "tree_swapped:1")], &bump);
    assert!(cut.code != 0 && tree.files() != tree.bumped(), "{cut:?}");
    for words in [["keys", "new"].as_slice(), &["keys", "rotate"], &["keys", "retire", "v1", "--yes"]] {
        machine.ok(words);
    }
    machine.ok(&tree.words(&["release", "bump", "--dry-run"]));
    assert_eq!((tree.files(), tree.registry()), (tree.bumped(), (2, "1.1.0".to_owned())));
    assert!(tree.is_tidy());
}

// Proves: GW-71
#[test]
fn revert() {
    let tree = Tree::new();
    let machine = &tree.machine;
    let done = machine.ok(&tree.words(&["release", "bump", "minor", "--confirm"]));
    let id = done["transaction"].as_str().unwrap().to_owned();
    let refused = |id: &str| {
        let done = machine.run(&tree.words(&["release", "revert", id]));
        let code = done.document()["error"]["code"].as_str().unwrap_or_else(|| panic!("{done:?}")).to_owned();
        (done.code, code)
    };
    fs::create_dir_all(tree.root.join(".bump_backups/elsewhere")).unwrap();
    for odd in ["..", "../source", "/etc", "elsewhere", "", &id.to_uppercase(), "00000000-0000-4000-8000-000000000000"]
    {
        assert_eq!(refused(odd), (1, "tree".to_owned()), "{odd:?}");
    }
    let dir = tree.root.join(".bump_backups").join(&id);
    let path = dir.join(".manifest.json");
    let good = fs::read_to_string(&path).unwrap();
    let manifest: Value = serde_json::from_str(&good).unwrap();
    for (member, value) in [
        ("status", json!("prepared")),
        ("keyVersion", json!("v7")),
        ("alg", json!("HMAC-SHA256")),
        ("signature", json!("")),
        ("more", json!(1)),
        ("fileChanges", json!([])),
    ] {
        let mut changed = manifest.clone();
        changed[member] = value;
        fs::write(&path, changed.to_string()).unwrap();
        assert_eq!(refused(&id), (5, "manifest".to_owned()), "{member}");
    }
    fs::write(&path, &good).unwrap();
    // A backup that was exchanged, a file that somebody worked on, a registry that went on.
    let backup = fs::read(dir.join("0")).unwrap();
    fs::write(dir.join("0"), "other").unwrap();
    assert_eq!(refused(&id), (5, "manifest".to_owned()));
    fs::write(dir.join("0"), backup).unwrap();
    fs::write(tree.root.join("web/index.html"), "mine").unwrap();
    assert_eq!(refused(&id), (1, "tree".to_owned()));
    assert_eq!(fs::read_to_string(tree.root.join("web/index.html")).unwrap(), "mine");
    fs::write(tree.root.join("web/index.html"), tree.bumped().1).unwrap();

    let back = machine.ok(&tree.words(&["release", "revert", &id]));
    assert_eq!((&back["revision"], back["files"].as_array().unwrap().len()), (&3.into(), 2));
    assert_eq!((tree.files(), tree.registry()), (tree.original(), (3, "1.0.0".to_owned())));
    assert!(tree.is_tidy());
    assert_eq!(refused(&id), (1, "tree".to_owned()), "once");
    // The way back has a way back.
    let again = back["transaction"].as_str().unwrap();
    machine.ok(&tree.words(&["release", "revert", again]));
    assert_eq!((tree.files(), tree.registry()), (tree.bumped(), (4, "1.1.0".to_owned())));
    machine.ok(&["release", "bump", "--entity", "component:page"]);
    let last = machine.run(&tree.words(&["release", "revert", again]));
    assert!(last.document()["error"]["message"].as_str().unwrap().len() > 10, "{last:?}");
    machine.ok(&["audit", "verify"]);
}
