//! A machine: a home, a folder, and the processes of the binary that is tested.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::until;

/// How long one command may take before it counts as hung.
const COMMAND_PATIENCE: Duration = Duration::from_secs(180);

/// What a panic writes into the log.
const PANIC: &str = "panicked at";

/// A machine of its own: a home, and the folder `Notes` beside it.
pub(crate) struct Machine {
    root: TempDir,
    notes: String,
    /// The network namespace where it runs, and listens on every address; without one it runs beside the test.
    namespace: Option<String>,
}

/// A command that ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// The one document on standard output.
    #[track_caller]
    pub(crate) fn document(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("one document expected, {error}: {self:?}"))
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("sealtide-e2e-").tempdir().unwrap();
        let notes = root.path().canonicalize().unwrap().join("Notes");
        fs::create_dir(&notes).unwrap();
        Self { root, notes: notes.to_str().unwrap().to_owned(), namespace: None }
    }

    /// A machine in a network namespace.
    pub(crate) fn within(namespace: String) -> Self {
        let mut machine = Self::new();
        machine.namespace = Some(namespace);
        machine
    }

    /// A directory that belongs to this machine and to no node.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    /// The folder.
    pub(crate) fn notes(&self) -> PathBuf {
        PathBuf::from(&self.notes)
    }

    pub(crate) fn notes_text(&self) -> &str {
        &self.notes
    }

    fn command(&self, args: &[&str]) -> Command {
        self.command_at(&self.home(), args)
    }

    fn command_at(&self, home: &Path, args: &[&str]) -> Command {
        let mut command = match &self.namespace {
            None => Command::new(env!("CARGO_BIN_EXE_sealtide")),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_sealtide")]);
                command
            }
        };
        // Nothing of the developer's own settings reaches the test.
        let is_setting = |name: &str| name.starts_with("SEALTIDE_") || name.to_ascii_uppercase().ends_with("_PROXY");
        for (name, _) in std::env::vars().filter(|(name, _)| is_setting(name)) {
            command.env_remove(name);
        }
        command.env("NO_COLOR", "1").arg("--home").arg(home).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end, exactly these words.
    #[track_caller]
    pub(crate) fn plain(&self, args: &[&str]) -> Done {
        self.finish(self.command(args), None)
    }

    /// Runs a command with `--json`.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        let mut words = vec!["--json"];
        words.extend(args);
        self.plain(&words)
    }

    /// Runs a command with `--json` at another home.
    #[track_caller]
    pub(crate) fn run_at(&self, home: &Path, args: &[&str]) -> Done {
        let mut command = self.command_at(home, args);
        command.arg("--json");
        self.finish(command, None)
    }

    /// Runs a command with `--json` and these variables at another home.
    #[track_caller]
    pub(crate) fn run_at_in(&self, variables: &[(&str, &str)], home: &Path, args: &[&str]) -> Done {
        let mut command = self.command_at(home, args);
        command.arg("--json").envs(variables.iter().copied());
        self.finish(command, None)
    }

    /// Runs a command with `--json` and this on its standard input.
    #[track_caller]
    pub(crate) fn run_with(&self, args: &[&str], input: &str) -> Done {
        let mut command = self.command(args);
        command.arg("--json").stdin(Stdio::piped());
        self.finish(command, Some(input))
    }

    /// Runs a command with `--json` and these variables.
    #[track_caller]
    pub(crate) fn run_in(&self, variables: &[(&str, &str)], args: &[&str]) -> Done {
        let mut command = self.command(args);
        command.arg("--json").envs(variables.iter().copied());
        self.finish(command, None)
    }

    /// Runs a command with `--json`, these variables, and this on its standard input.
    #[track_caller]
    pub(crate) fn run_with_in(&self, variables: &[(&str, &str)], args: &[&str], input: &str) -> Done {
        let mut command = self.command(args);
        command.arg("--json").envs(variables.iter().copied()).stdin(Stdio::piped());
        self.finish(command, Some(input))
    }

    /// Runs a command that must succeed while strace writes down these system calls of it, with the paths of descriptors.
    #[track_caller]
    pub(crate) fn traced(&self, calls: &str, to: &Path, home: &Path, args: &[&str], input: Option<&str>) {
        let command = self.command_at(home, args);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-y", "-qq", "-s", "4096", "-e", &format!("trace={calls}"), "-o"]).arg(to);
        strace.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => strace.env(name, value),
                None => strace.env_remove(name),
            };
        }
        strace.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        strace.stdout(Stdio::piped()).stderr(Stdio::piped());
        let done = self.finish(strace, input);
        assert_eq!(done.code, 0, "{args:?}: {done:?}");
    }

    #[track_caller]
    fn finish(&self, mut command: Command, input: Option<&str>) -> Done {
        let mut child = command.spawn().unwrap();
        if let Some(input) = input {
            let mut stdin = child.stdin.take().unwrap();
            // A command that refuses its words does not read.
            let _ = stdin.write_all(input.as_bytes());
        }
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        let Some(status) = wait_for(&mut child, COMMAND_PATIENCE) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} did not end: {:?} {:?}", stdout.join(), stderr.join())
        };
        Done { code: exit_code(status), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
    }

    /// Runs a command that must succeed and gives its document.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> Value {
        let done = self.run(args);
        assert_eq!(done.code, 0, "{args:?}: {done:?}\n{}", self.log());
        let document = done.document();
        let schema = document["schema"].as_str().unwrap_or_else(|| panic!("{args:?} has no schema: {document}"));
        assert!(schema.starts_with("sealtide/"), "{args:?}: {schema}");
        document
    }

    /// Runs a command that must end with this exit code and machine code; gives the error.
    #[track_caller]
    pub(crate) fn fails(&self, args: &[&str], exit: i32, code: &str) -> Value {
        let done = self.run(args);
        assert_eq!(done.code, exit, "{args:?}: {done:?}\n{}", self.log());
        let error = done.document()["error"].clone();
        assert_eq!(error["code"], code, "{args:?}: {error}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{args:?}: {error}");
        assert!(error.get("hint").is_some(), "{args:?}: {error}");
        error
    }

    /// Waits until `status --check` says that all is in step.
    #[track_caller]
    pub(crate) fn in_step(&self) {
        until("status --check", || {
            let done = self.run(&["status", "--check"]);
            if done.code == 0 { Ok(()) } else { Err(format!("{done:?}\n{}", self.log())) }
        });
    }

    /// What the first space's `status` says.
    #[track_caller]
    pub(crate) fn space(&self) -> Value {
        self.ok(&["status"])["spaces"][0].clone()
    }

    /// For a failed test: the status and the log of the node.
    pub(crate) fn told(&self) -> String {
        let status = self.run(&["status"]);
        format!("{} {}\n{}", status.stdout.trim(), status.stderr.trim(), self.log())
    }

    fn log_path(&self) -> PathBuf {
        self.root.path().join("log")
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.iter().position(|line| line.contains(PANIC)).unwrap_or(lines.len().saturating_sub(40));
        lines[from..].join("\n")
    }

    /// Starts the node with the folder `Notes` and waits until its doors are open.
    #[track_caller]
    pub(crate) fn share(&self) -> Running {
        self.up(&[self.notes_text()])
    }

    /// Starts the node and waits until its doors are open.
    #[track_caller]
    pub(crate) fn up(&self, args: &[&str]) -> Running {
        self.up_in(&[], args)
    }

    /// As [`Machine::up`], with these variables. The node may be gone before it is ready when they say so.
    #[track_caller]
    pub(crate) fn up_in(&self, variables: &[(&str, &str)], args: &[&str]) -> Running {
        let mut running = self.spawn(variables, args);
        running.wait_ready().unwrap_or_else(|status| panic!("the node ended with {status}: {}", self.log()));
        running
    }

    /// Waits until everything in the folder stands in the space.
    #[track_caller]
    pub(crate) fn recorded(&self) {
        until("everything is recorded", || {
            let space = self.space();
            let files = super::snapshot(&self.notes()).0.len() as u64;
            if space["phase"] == "idle" && space["files"] == files { Ok(()) } else { Err(self.told()) }
        });
    }

    /// Starts the node and does not wait.
    pub(crate) fn spawn(&self, variables: &[(&str, &str)], args: &[&str]) -> Running {
        let listen = if self.namespace.is_some() { "[::]:7443" } else { "127.0.0.1:0" };
        let mut words = vec!["--json", "up", "--listen", listen, "--gateway", "127.0.0.1:0"];
        words.extend(args);
        self.spawn_words(variables, &words)
    }

    /// Starts a command that goes on until it is stopped, and waits until its doors are open.
    #[track_caller]
    pub(crate) fn serve(&self, args: &[&str]) -> Running {
        self.serve_in(&[], args)
    }

    /// As [`Machine::serve`], with these variables.
    #[track_caller]
    pub(crate) fn serve_in(&self, variables: &[(&str, &str)], args: &[&str]) -> Running {
        let mut words = vec!["--json"];
        words.extend(args);
        let mut running = self.spawn_words(variables, &words);
        running.wait_ready().unwrap_or_else(|status| panic!("it ended with {status}: {}", self.log()));
        running
    }

    /// Starts a command that tells one line after the other until it is stopped; they are its events.
    pub(crate) fn stream(&self, args: &[&str]) -> Running {
        let mut words = vec!["--json"];
        words.extend(args);
        self.spawn_words(&[], &words)
    }

    fn spawn_words(&self, variables: &[(&str, &str)], words: &[&str]) -> Running {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = self.command(words);
        command.env("SEALTIDE_LOG", std::env::var("SEALTIDE_E2E_LOG").unwrap_or_else(|_| "info".to_owned()));
        command.envs(variables.iter().copied()).stderr(log);
        Running::new(command.spawn().unwrap())
    }
}

impl Drop for Machine {
    /// A process that panicked somewhere fails the test, also where another of its tasks went on.
    fn drop(&mut self) {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        if !std::thread::panicking() {
            assert!(!log.contains(PANIC), "a process of this machine panicked:\n{}", self.log());
        }
    }
}

/// A running node. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    ready: Value,
    readiness: mpsc::Receiver<Value>,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Running {
    fn new(mut child: Child) -> Self {
        let (tell, readiness) = mpsc::channel();
        let events = Arc::<Mutex<Vec<Value>>>::default();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let seen = events.clone();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
                if line["schema"] == "sealtide/ready/1" {
                    let _ = tell.send(line);
                } else {
                    seen.lock().unwrap().push(line);
                }
            }
        });
        Self { child, ready: Value::Null, readiness, events }
    }

    /// Waits for the line that says that every door is open; the exit status when the node ended instead.
    pub(crate) fn wait_ready(&mut self) -> Result<(), ExitStatus> {
        match self.readiness.recv_timeout(COMMAND_PATIENCE) {
            Ok(ready) => {
                self.ready = ready;
                Ok(())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(self.child.wait().unwrap()),
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the node did not become ready"),
        }
    }

    /// The line that said that every door is open.
    pub(crate) fn ready(&self) -> &Value {
        &self.ready
    }

    /// The ticket of the first directory named.
    #[track_caller]
    pub(crate) fn ticket(&self) -> &str {
        self.ready["ticket"].as_str().unwrap_or_else(|| panic!("no ticket in {}", self.ready))
    }

    /// The address of the link door.
    pub(crate) fn link_address(&self) -> &str {
        self.ready["listen"][0].as_str().unwrap()
    }

    /// `http://…` of the gateway door.
    pub(crate) fn gateway(&self) -> &str {
        self.ready["gateway"].as_str().unwrap()
    }

    /// The events told since the start.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.events.lock().unwrap().clone()
    }

    /// Ends the process in the middle of whatever it does.
    pub(crate) fn kill_9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the process to end with a signal and gives its exit code.
    #[track_caller]
    pub(crate) fn signal(&mut self, signal: Signal) -> i32 {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.wait()
    }

    /// Tells the process to read its settings again.
    pub(crate) fn hang_up(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).unwrap();
    }

    /// Ends the process in order.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        assert_eq!(self.signal(Signal::TERM), 143);
    }

    /// Whether the process is still there.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until the process ended by itself; −(signal) when a signal ended it.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> i32 {
        let status = wait_for(&mut self.child, COMMAND_PATIENCE).expect("the node does not end");
        exit_code(status)
    }

    /// Bytes of memory in use now, and at most so far.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Files and sockets that are open.
    /// Everything in the writable memory of the process, one region after the other.
    pub(crate) fn memory_bytes(&self) -> Vec<u8> {
        use std::io::{Read, Seek, SeekFrom};

        let pid = self.child.id();
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let mut memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
        let mut all = Vec::new();
        for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
            let mut region = vec![0; usize::try_from(to - from).unwrap()];
            // Some regions belong to the kernel and cannot be read.
            if memory.seek(SeekFrom::Start(from)).is_ok() && memory.read_exact(&mut region).is_ok() {
                all.append(&mut region);
            }
        }
        all
    }

    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait_for(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if started.elapsed() > patience {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
}
