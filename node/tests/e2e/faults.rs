//! Faults of the world around a node: strangers at its door, homes that cannot be used, damaged stores, signals.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Dice, Machine, Pair, agree, snapshot, until, write};

/// Says this at a door and hangs up; gives what comes back before the door closes.
fn say(address: &str, words: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    let _ = stream.write_all(words);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    listen(stream)
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn listen(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Strangers say anything at the link door: they learn nothing, and the node goes on with its work.
// Proves: LK-67, LK-65
#[test]
fn garbage_at_the_link_door() {
    let pair = Pair::with(|notes| write(notes, "plan.md", "plan\n"));
    let door = pair.node_a.link_address().to_owned();
    let before = pair.node_a.open_files();
    let mut dice = Dice::new(9);
    for turn in 0..60 * crate::scale() {
        let length = dice.below(5000) as usize;
        let mut words = dice.bytes(length);
        if turn % 3 == 0 {
            // Like the head of a TLS record.
            words.splice(0..0, [22, 3, 1, (length >> 8) as u8, length as u8]);
        }
        say(&door, &words);
    }
    for words in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /st/v1/link HTTP/1.1\r\n\r\n", "\r\n\r\n", ""] {
        let answer = say(&door, words.as_bytes());
        assert!(!String::from_utf8_lossy(&answer).contains("sealtide"), "{answer:?}");
    }
    // Some that connect and say nothing are there all the while.
    let silent: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(&door).unwrap()).collect();
    write(&pair.b.notes(), "meanwhile.md", "meanwhile\n");
    until("work goes on", || if pair.a.notes().join("meanwhile.md").exists() { Ok(()) } else { Err(pair.a.told()) });
    drop(silent);
    until("no socket is left over", || match pair.node_a.open_files() {
        now if now <= before + 4 => Ok(()),
        now => Err(format!("{now} open files, {before} before")),
    });
    pair.agree_and_verify();
}

/// The gateway door tells health and figures, and nothing else.
#[test]
fn the_gateway_door() {
    let pair = Pair::with(|notes| write(notes, "plan.md", "plan\n"));
    let door = pair.node_a.gateway().strip_prefix("http://").unwrap().to_owned();
    let get = |path: &str| {
        let mut stream = connect(&door);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {door}\r\nConnection: close\r\n\r\n").unwrap();
        String::from_utf8_lossy(&listen(stream)).into_owned()
    };
    for path in ["/healthz", "/readyz"] {
        let answer = get(path);
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let figures = get("/metrics");
    assert!(figures.starts_with("HTTP/1.1 200") && figures.contains("sealtide_space_records"), "{figures}");
    assert!(figures.contains("# EOF"), "{figures}");
    assert!(get("/nothing/here").starts_with("HTTP/1.1 404"));
    assert!(!String::from_utf8_lossy(&say(&door, &Dice::new(4).bytes(4000))).contains("200 OK"));
    pair.agree();
}

#[test]
fn a_second_process_on_one_store() {
    let machine = Machine::new();
    write(&machine.notes(), "plan.md", "plan\n");
    let mut node = machine.share();
    // A second `up` hands over its directories and is done.
    let more = machine.root().join("More");
    fs::create_dir(&more).unwrap();
    write(&more, "more.md", "more\n");
    let handed = machine.ok(&["up", more.to_str().unwrap()]);
    assert_eq!(handed["shared"][0]["name"], "More", "{handed}");
    until("it is shared", || {
        let spaces = machine.ok(&["status"])["spaces"].clone();
        let files = spaces[0]["files"].as_u64().unwrap_or(0) + spaces[1]["files"].as_u64().unwrap_or(0);
        if files == 2 { Ok(()) } else { Err(spaces.to_string()) }
    });
    // A socket that is gone leaves the lock.
    let socket = machine.home().join("control.sock");
    assert!(socket.exists());
    fs::remove_file(&socket).unwrap();
    for args in [&["status"][..], &["verify"], &["ticket", "new"], &["down"], &["up"], &["audit", "verify"]] {
        machine.fails(args, 11, "store_locked");
    }
    assert!(node.is_alive());
    node.kill_9();
    assert_eq!(machine.ok(&["status"])["running"], false);
    // What a killed node leaves lying about is no obstacle.
    let _ = std::os::unix::net::UnixListener::bind(&socket).map(drop);
    let node = machine.up(&[]);
    assert_eq!(machine.ok(&["status"])["running"], true);
    drop(node);
}

/// Looking at a node while it starts neither fails nor keeps it from starting.
#[test]
fn commands_that_come_at_one_time_wait_for_each_other() {
    let machine = Machine::new();
    machine.ok(&["init"]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..4).for_each(|_| drop(machine.ok(&["status"]))));
        }
        drop(machine.up(&[]));
    });
}

#[test]
fn no_store_here() {
    let machine = Machine::new();
    for args in [
        &["status"][..],
        &["verify"],
        &["ticket", "new"],
        &["ticket", "list"],
        &["peers", "list"],
        &["spaces", "list"],
        &["sync"],
        &["log"],
        &["get", "Notes:plan.md"],
        &["conflicts", "list"],
        &["hold", "list"],
        &["doctor"],
        &["down"],
        &["pause"],
        &["audit", "tail"],
        &["audit", "verify"],
    ] {
        machine.fails(args, 10, "no_store");
        assert!(!machine.home().exists(), "{args:?} makes no home");
    }
}

#[test]
fn homes_that_cannot_be() {
    let machine = Machine::new();
    let file = machine.root().join("file");
    fs::write(&file, "a file").unwrap();
    let check = |home: &Path| {
        let done = machine.run_at(home, &["init"]);
        let error = done.document()["error"].clone();
        assert_eq!(done.code, 1, "{done:?}");
        assert!(error["message"].as_str().unwrap().contains(home.to_str().unwrap()), "{error}");
        assert!(error["hint"].is_string(), "{error}");
    };
    check(&file);
    check(&file.join("below"));
    // Nobody may write there, not even root.
    check(Path::new("/proc/sealtide-home"));
    // A key that others can read is refused, with the command that mends it.
    machine.ok(&["init"]);
    let key = machine.home().join("node.key");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = machine.fails(&["status"], 6, "key_exposed");
    assert!(error["hint"].as_str().unwrap().contains("chmod 600"), "{error}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    machine.ok(&["status"]);
    let good = fs::read(&key).unwrap();
    fs::write(&key, &good[..20]).unwrap();
    machine.fails(&["status"], 1, "key_damaged");
}

/// Files of a store, with their bytes.
fn files_below(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()));
        } else {
            files.push((entry.path(), fs::read(entry.path()).unwrap()));
        }
    }
    files.sort();
    files
}

/// A flipped bit in any stored record or chunk is found, and the file is named. Only behind the last commit, where
/// nothing is stored, may it be without effect.
// Proves: SY-78
#[test]
fn a_flipped_bit_is_found() {
    let machine = Machine::new();
    let mut dice = Dice::new(78);
    for n in 0..5 {
        write(&machine.notes(), &format!("{n}.md"), dice.text());
    }
    write(&machine.notes(), "small.bin", dice.bytes(40_000));
    write(&machine.notes(), "large.bin", dice.bytes(3_000_000));
    let mut node = machine.share();
    machine.recorded();
    node.stop();
    let sound = machine.ok(&["verify"]);
    let store = machine.home().join("store");
    let files = files_below(&store);
    let packs: Vec<_> = files.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "pack")).collect();
    let bytes: usize = packs.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes > 3_000_000, "{bytes}");
    let (mut found, mut harmless) = (0, 0);
    for turn in 0..120 * crate::scale() {
        let (path, good) = packs[dice.below(packs.len() as u64) as usize];
        let at = match turn % 4 {
            // Heads and the small records are a small part of all bytes: they get their share.
            0 => dice.below(good.len().min(20_000) as u64),
            1 => good.len() as u64 - 1 - dice.below(good.len().min(3_000) as u64),
            _ => dice.below(good.len() as u64),
        } as usize;
        let mut bad = good.clone();
        bad[at] ^= 1 << dice.below(8);
        fs::write(path, &bad).unwrap();
        let done = machine.run(&["verify"]);
        let name = path.file_name().unwrap().to_str().unwrap();
        if done.code == 5 {
            let error = done.document()["error"].clone();
            assert!(error["message"].as_str().unwrap().contains(name), "byte {at} of {name}: {error}");
            found += 1;
        } else {
            // The last mark proves nothing but what is there.
            assert_eq!(done.code, 0, "byte {at} of {name}: {done:?}");
            assert!(at + 64 >= good.len(), "byte {at} of {} in {name} was not found: {done:?}", good.len());
            assert_eq!(done.document()["records"], sound["records"]);
            harmless += 1;
        }
        for (path, good) in &files {
            fs::write(path, good).unwrap();
        }
    }
    println!("{found} flipped bits found, {harmless} where nothing is stored");
    assert!(found > 100 * crate::scale());
    // Nothing was written by the checks that failed; the store is as good as before.
    assert_eq!(machine.ok(&["verify"])["records"], sound["records"]);
}

/// The same for the audit: lines and their order.
#[test]
fn a_changed_audit_is_found() {
    let machine = Machine::new();
    let mut node = machine.share();
    (0..5).for_each(|_| drop(machine.ok(&["ticket", "new"])));
    node.stop();
    let checked = machine.ok(&["audit", "verify"]);
    assert!(checked["lines"].as_u64().unwrap() > 5 && checked["not_yet_signed"] == 0, "{checked}");
    let tail = machine.run(&["audit", "tail", "-n", "3"]);
    assert_eq!(tail.stdout.lines().count(), 3, "{tail:?}");
    let [(path, good)] = &files_below(&machine.home().join("audit"))[..] else { panic!("one file expected") };
    let text = String::from_utf8(good.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    let cut = lines[..lines.len() - 1].to_vec();
    let mut gone = lines.clone();
    gone.remove(2);
    let changed = text.replacen("ticket_made", "ticket_lost", 1);
    for (what, bad) in [
        ("swapped", swapped.join("\n") + "\n"),
        ("cut", cut.join("\n") + "\n"),
        ("gone", gone.join("\n") + "\n"),
        ("changed", changed),
    ] {
        fs::write(path, bad).unwrap();
        let done = machine.run(&["audit", "verify"]);
        assert_eq!((done.code, &done.document()["error"]["code"]), (5, &"audit".into()), "{what}: {done:?}");
        fs::write(path, good).unwrap();
    }
    machine.ok(&["audit", "verify"]);
}

/// Signals end the process in order, with the codes that shells expect, at any moment of its work.
// Proves: SY-48
#[test]
fn signals_end_it_in_order() {
    let mut pair = Pair::with(|notes| write(notes, "plan.md", "plan\n"));
    let mut dice = Dice::new(3);
    for turn in 0..6 {
        for n in 0..100 {
            write(&pair.a.notes(), &format!("{turn}/{n}.md"), dice.text());
        }
        write(&pair.a.notes(), "film.bin", dice.bytes(5_000_000));
        std::thread::sleep(Duration::from_millis(dice.below(400)));
        let (signal, code) = if turn % 2 == 0 { (Signal::TERM, 143) } else { (Signal::INT, 130) };
        assert_eq!(pair.node_b.signal(signal), code);
        pair.b.ok(&["verify"]);
        pair.node_b = pair.b.up(&[]);
    }
    // At once after the start, too.
    pair.node_b.stop();
    pair.node_b = pair.b.up(&[]);
    pair.node_b.stop();
    pair.node_b = pair.b.up(&[]);
    pair.agree_and_verify();
}

/// Work on the disk that is interrupted stops, leaves nothing and says so; where it waits for something, another signal ends the
/// process at once.
#[test]
fn work_that_is_interrupted_stops_and_the_second_signal_ends_it() {
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::OpenOptionsExt;

    let machine = Machine::new();
    machine.ok(&["init"]);
    // Whoever reads it waits until somebody writes: so it is known where the backup is.
    let bearers = machine.home().join("bearers");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    rustix::fs::mknodat(rustix::fs::CWD, &bearers, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let file = machine.root().join("home.backup");
    for again in [false, true] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealtide"));
        command.arg("--home").arg(machine.home()).args(["backup", "create"]).arg(&file);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
        let pid = rustix::process::Pid::from_child(&child);
        drop(fs::OpenOptions::new().write(true).open(&bearers).unwrap());
        rustix::process::kill_process(pid, Signal::INT).unwrap();
        let note = told.next().unwrap().unwrap();
        assert!(note.contains("once more"), "{note}");
        if again {
            rustix::process::kill_process(pid, Signal::INT).unwrap();
        }
        // It reads the file twice. Which of the two a writer meets is not known, so there is one until the process is over; none where the
        // second signal ends it while it waits.
        let ended = until("the backup ends", || {
            if !again {
                drop(fs::OpenOptions::new().write(true).custom_flags(nonblock).open(&bearers));
            }
            child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned())
        });
        assert_eq!(ended.code(), Some(130));
        let told: Vec<String> = told.map(Result::unwrap).collect();
        assert_eq!(told.iter().any(|line| line.contains("interrupted")), !again, "{told:?}");
        assert!(!file.exists());
    }
    fs::remove_file(&bearers).unwrap();
    machine.ok(&["backup", "create", file.to_str().unwrap()]);
    let left = fs::read_dir(machine.root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!left.into_iter().any(|name| name.contains("unfinished")));
}

/// A shared directory that is gone while the node is down is not taken for the deletion of everything.
#[test]
fn a_directory_that_is_gone_deletes_nothing() {
    let mut pair = Pair::with(|notes| (0..30).for_each(|n| write(notes, &format!("{n}.md"), "x\n")));
    pair.agree();
    pair.node_b.stop();
    let away = pair.b.root().join("away");
    fs::rename(pair.b.notes(), &away).unwrap();
    pair.node_b = pair.b.up(&[]);
    write(&pair.a.notes(), "new.md", "new\n");
    let told = until("the fault is told", || {
        let space = pair.b.space();
        if space["error"].is_string() { Ok(space) } else { Err(pair.b.told()) }
    });
    assert!(told["error"].as_str().unwrap().contains("Notes"), "{told}");
    assert_eq!(snapshot(&pair.a.notes()).0.len(), 31);
    pair.node_b.stop();
    fs::rename(&away, pair.b.notes()).unwrap();
    pair.node_b = pair.b.up(&[]);
    let agreed = agree(&pair.a, &pair.b);
    assert_eq!(agreed.0.len(), 31);
}
