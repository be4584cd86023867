//! The command line: words in, one request to a node, one answer out.

mod args;
mod audit;
mod bench;
mod foreign;
mod gateway;
mod identity;
mod keys;
mod limits;
mod output;
mod plumbing;
mod progress;
mod relay;
mod relay_status;
mod release;
mod render;
mod render_identity;
mod render_keys;
mod render_release;
mod up;

use std::io::{BufRead, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use sealtide_crypto::Entropy;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::api::{Progress, Request, execute};
use crate::backup::RestoreOrder;
use crate::commands::INTERRUPTED;
use crate::commands::export::ExportFormat;
use crate::commands::keys::KeysRequest;
use crate::config::{self, Config};
use crate::control;
use crate::failure::{Exit, Failure};
use crate::home::Home;
use crate::node::Node;
use crate::world::OsEntropy;

use args::{
    Cli, Command, ConfigCommand, ConflictsCommand, ExportArg, Global, HoldCommand, PeersCommand, SpacesCommand,
    TicketCommand,
};
use output::Output;

/// How often it is looked whether work that was interrupted has ended.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of a document from standard input, at most.
const DOCUMENT_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of the value of a setting from standard input, at most.
const VALUE_BYTES_MAX: u64 = 64 * 1024;

/// What every command has at hand.
pub(crate) struct Cx {
    pub(crate) home: Home,
    pub(crate) config: Config,
    pub(crate) config_path: PathBuf,
    pub(crate) out: Output,
    pub(crate) yes: bool,
    pub(crate) offline_sign: bool,
    pub(crate) timeout_s: u64,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let out = Output::unread(std::env::args_os());
            if error.use_stderr() && out.is_json() {
                let text = error.to_string();
                let (message, hint) = text.split_once("\n\n").unwrap_or((text.trim(), ""));
                let message = message.trim_start_matches("error: ");
                out.failure(&Failure::usage("usage", message).hint(hint.trim()));
            } else {
                let _ = error.print();
            }
            return ExitCode::from(if error.use_stderr() { Exit::Usage.code() } else { 0 });
        }
    };
    let out = Output::new(&cli.global);
    if let Some(word) = std::env::args_os().find(|word| word.to_str().is_none()) {
        let failure = not_utf8(&word.to_string_lossy());
        out.failure(&failure);
        return ExitCode::from(out.end(failure.exit.code()));
    }
    if let Err(error) = limits::switch_off_cores() {
        let failure = Failure::failed("core_dumps", format!("core dumps could not be switched off: {error}"));
        out.failure(&failure);
        return ExitCode::from(failure.exit.code());
    }
    limits::open_many_files();
    // A running node is stopped, and a setting is mended, also where the file has a mistake.
    let lenient = matches!(cli.command, Command::Down | Command::Config { command: ConfigCommand::Set { .. } });
    let done = prepare(&cli.global, out.clone(), lenient).and_then(|cx| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let done = runtime.block_on(run(cx, cli.command));
        Ok((done, runtime))
    });
    let (done, runtime) = match done {
        Ok((done, runtime)) => (done, Some(runtime)),
        Err(failure) => (Err(failure), None),
    };
    let code = done.unwrap_or_else(|failure| {
        out.failure(&failure);
        failure.exit.code()
    });
    let code = out.end(code);
    // It waits for whatever still waits for the disk: everything is said by now.
    drop(runtime);
    ExitCode::from(code)
}

fn prepare(global: &Global, out: Output, lenient: bool) -> Result<Cx, Failure> {
    let is_unset = || std::env::var_os("SEALTIDE_HOME").is_some_and(|home| home.is_empty());
    let root = match &global.home {
        Some(home) if home.as_os_str().is_empty() && is_unset() => default_home()?,
        Some(home) if home.as_os_str().is_empty() => {
            return Err(Failure::usage("home", "--home needs a directory".to_owned()));
        }
        Some(home) => std::path::absolute(home)?,
        None => default_home()?,
    };
    root.to_str().ok_or_else(|| not_utf8("the path of the home"))?;
    let home = Home::new(root);
    let config_path = global.config.clone().unwrap_or_else(|| home.config_path());
    let mut config = match Config::load(&config_path, global.config.is_some()) {
        Err(failure) if lenient => {
            out.note(&format!("{}; none of its settings are used", failure.message));
            Config::defaults()
        }
        loaded => loaded?,
    };
    config.flag("sync", "timeout", global.timeout.as_deref())?;
    output::start_log(global, config.text("log", "level"));
    let timeout_s = config.seconds("sync", "timeout");
    let passphrase_file = Some(config.text("identity", "passphrase_file")).filter(|file| !file.is_empty());
    let home = home.with_passphrase_file(passphrase_file.map(PathBuf::from));
    Ok(Cx { home, config, config_path, out, yes: global.yes, offline_sign: global.offline_sign, timeout_s })
}

fn not_utf8(what: &str) -> Failure {
    Failure::usage("utf8", format!("{what} is not UTF-8")).hint("rename it, or a directory above it")
}

fn default_home() -> Result<PathBuf, Failure> {
    let data = std::env::var_os("XDG_DATA_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let data = data.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")));
    let data =
        data.ok_or_else(|| Failure::usage("home", "neither HOME nor XDG_DATA_HOME is set").hint("use --home DIR"))?;
    Ok(data.join("sealtide"))
}

async fn run(cx: Cx, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Init { name, recovery_out } => init(&cx, name.as_deref(), recovery_out.as_deref()),
        Command::Up(args) => up::up(cx, args).await,
        Command::Relay { command: args::RelayCommand::Run(args) } => relay::run(cx, args).await,
        Command::Relay { command: args::RelayCommand::Status } => relay_status::status(&cx).await,
        Command::Gateway { command: args::GatewayCommand::Run(args) } => gateway::run(cx, args).await,
        Command::Gateway { command: args::GatewayCommand::Bearer { name, role, file } } => {
            gateway::bearer(&cx, &name, role, file)
        }
        Command::Gateway { command: args::GatewayCommand::Passphrase { name, role, file } } => {
            gateway::passphrase(&cx, &name, role, file)
        }
        Command::Gateway { command: args::GatewayCommand::Code } => {
            ask(&cx, Request::Keys(KeysRequest::SignInCode)).await
        }
        Command::Backup { command: args::BackupCommand::Create { file } } => {
            ask(&cx, Request::BackupCreate { file: std::path::absolute(file)? }).await
        }
        Command::Backup { command: args::BackupCommand::Restore { file, as_new_device } } => {
            restore(cx, file, as_new_device).await
        }
        Command::Keys { command } => keys::run(&cx, command).await,
        Command::Release { command } => release::run(&cx, command).await,
        Command::Status { check, watch } => status(&cx, check, watch).await,
        Command::Audit { command } => audit::run(&cx, command).await,
        Command::Bench { name, sizes } => bench::bench(&cx, &name, sizes).await,
        Command::Config { command } => configure(&cx, &command),
        Command::Ibgib { op } => plumbing::ibgib(op),
        Command::Doctor { target } => {
            let found = match target {
                Some(target) if !cx.home.exists() => looked_at_by_nobody(&cx, &target).await?,
                target => answer(&cx, Request::Doctor { target }).await?,
            };
            let checked = crate::commands::doctor::verdict(&found);
            Ok(cx.out.answer_checked(found, checked))
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sealtide", &mut script);
            cx.out.bytes(&script);
            Ok(0)
        }
        Command::Man { dir: None } => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            cx.out.bytes(&page);
            Ok(0)
        }
        Command::Man { dir: Some(dir) } => {
            std::fs::create_dir_all(&dir)?;
            clap_mangen::generate_to(Cli::command(), &dir)?;
            cx.out.note(&format!("`man --local-file {}` shows one of the pages", dir.join("sealtide-up.1").display()));
            Ok(0)
        }
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            cx.out.answer(&json!({"schema": "sealtide/version/1", "version": version}));
            Ok(0)
        }
        Command::Put { space, name, base } => {
            let request = Request::Put { space, name, doc: read_document()?, base };
            ask(&cx, request).await
        }
        Command::Identity { command } => identity::run(&cx, command).await,
        Command::Join { ticket, dir, wait, device, name, recovery_out } => {
            let dir = dir.map(std::path::absolute).transpose()?;
            // A mistyped ticket must not leave a home behind.
            crate::commands::join::read_ticket(&ticket)?;
            make_home(&cx, name.as_deref(), recovery_out.as_deref())?;
            ask(&cx, Request::Join { ticket, dir, wait, yes: cx.yes, timeout_s: cx.timeout_s, device }).await
        }
        other => {
            agree(&cx, &other)?;
            let request = request_of(&cx, other)?;
            ask(&cx, request).await
        }
    }
}

/// Asks a person before a space is forgotten. A script is not asked: it was written to do that.
fn agree(cx: &Cx, command: &Command) -> Result<(), Failure> {
    let Command::Spaces { command: SpacesCommand::Remove { space } } = command else { return Ok(()) };
    let question = format!("the next gc erases the history of {space} from this node. forget it?");
    if cx.yes || !cx.out.can_ask() || cx.out.ask(&question)? {
        return Ok(());
    }
    Err(Failure::new(Exit::Held, "not_confirmed", "nothing was removed, since nobody said yes"))
}

/// The request of a command that needs nothing else.
fn request_of(cx: &Cx, command: Command) -> Result<Request, Failure> {
    let word = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
    Ok(match command {
        Command::Down => Request::Down,
        Command::Pause { space } => Request::Pause { space },
        Command::Resume { space } => Request::Resume { space },
        Command::Ticket { command: TicketCommand::New { space, role, ttl, uses, device } } => {
            let mut config = cx.config.clone();
            config.flag("ticket", "ttl", ttl.as_deref())?;
            Request::TicketNew { space, role: word(&role), ttl_s: config.seconds("ticket", "ttl"), uses, device }
        }
        Command::Ticket { command: TicketCommand::List } => Request::TicketList,
        Command::Ticket { command: TicketCommand::Revoke { id } } => Request::TicketRevoke { id },
        Command::Peers { command: PeersCommand::List } => Request::PeersList,
        Command::Peers { command: PeersCommand::Show { peer } } => Request::PeersShow { peer },
        Command::Peers { command: PeersCommand::Rename { peer, name } } => Request::PeersRename { peer, name },
        Command::Peers { command: PeersCommand::Revoke { peer } } => Request::PeersRevoke { peer },
        Command::Spaces { command: SpacesCommand::List } => Request::SpacesList,
        Command::Spaces { command: SpacesCommand::Create { name } } => Request::SpacesCreate { name },
        Command::Spaces { command: SpacesCommand::Folder { space, dir } } => {
            Request::SpacesFolder { space, dir: std::path::absolute(dir)?, yes: cx.yes }
        }
        Command::Spaces { command: SpacesCommand::Remove { space } } => Request::SpacesRemove { space },
        Command::Sync(args) => Request::Sync {
            spaces: args.spaces,
            with: args.with,
            strategy: word(&args.strategy),
            wait: args.wait,
            timeout_s: cx.timeout_s,
            dry_run: args.dry_run,
            cancel: args.cancel,
        },
        Command::Get { target } => Request::Get { target },
        Command::Log { target, limit } => Request::Log { target, limit },
        Command::Diff { a, b } => Request::Diff { a, b },
        Command::Restore { target, to } => Request::Restore { target, to: to.map(std::path::absolute).transpose()? },
        Command::Conflicts { command: ConflictsCommand::List { space } } => Request::ConflictsList { space },
        Command::Conflicts { command: ConflictsCommand::Show { target } } => Request::ConflictsShow { target },
        Command::Conflicts { command: ConflictsCommand::Resolve { target, keep } } => {
            Request::ConflictsResolve { target, keep }
        }
        Command::Hold { command: HoldCommand::List } => Request::HoldList,
        Command::Hold { command: HoldCommand::Show { space } } => Request::HoldShow { space },
        Command::Hold { command: HoldCommand::Accept { space } } => Request::HoldDecide { space, accept: true },
        Command::Hold { command: HoldCommand::Reject { space } } => Request::HoldDecide { space, accept: false },
        Command::Verify { space } => Request::Verify { space },
        Command::Export { space, format, out } => {
            let (format, end) = match format {
                ExportArg::Dir => (ExportFormat::Dir, ""),
                ExportArg::Tar => (ExportFormat::Tar, ".tar"),
                ExportArg::Jsonl => (ExportFormat::Jsonl, ".jsonl"),
            };
            let out = std::path::absolute(out.unwrap_or_else(|| PathBuf::from(format!("{space}{end}"))))?;
            Request::Export { space, format, out }
        }
        Command::Import { path, name } => Request::Import { path: std::path::absolute(path)?, name },
        Command::Gc { dry_run } => Request::Gc { dry_run },
        _ => unreachable!("commands with their own path are served by `run`"),
    })
}

/// Makes a home of a backup; there is no node that could be asked.
async fn restore(cx: Cx, file: PathBuf, as_new_device: bool) -> Result<u8, Failure> {
    let (progress, told) = Progress::channel();
    let shown = tokio::spawn(progress::show(told, cx.out.clone()));
    let passphrase = Some(cx.config.text("identity", "passphrase_file")).filter(|file| !file.is_empty());
    let (home, passphrase_file) = (cx.home.clone(), passphrase.map(PathBuf::from));
    let order = RestoreOrder { file, passphrase_file, as_new_device };
    let work = move || crate::backup::restore(&home, &order, &progress);
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| Failure::failed("backup", error.to_string()))?;
    let _ = shown.await;
    cx.out.answer(&done?);
    Ok(0)
}

/// Has a request done by the running node, or in this process when none runs, and prints the answer.
async fn ask(cx: &Cx, request: Request) -> Result<u8, Failure> {
    let answer = answer(cx, request).await?;
    cx.out.answer(&answer);
    Ok(0)
}

/// The answer to a request.
pub(crate) async fn answer(cx: &Cx, request: Request) -> Result<Value, Failure> {
    // Requests and answers are JSON, which has no other names: said before anything is done.
    serde_json::to_value(&request).map_err(|_| not_utf8("the path of what this is about"))?;
    let (progress, told) = Progress::channel();
    let mut shown = Some(tokio::spawn(progress::show(told, cx.out.clone())));
    let socket = cx.home.control_socket();
    let asked = control::ask(&socket, &request, &progress);
    let asked = if matches!(request, Request::Down) {
        tokio::time::timeout(Duration::from_secs(cx.timeout_s), asked).await.map_err(|_| {
            Failure::failed("stopping", "the node was told to stop and still runs")
                .hint("try again, or wait longer with --timeout")
        })?
    } else {
        asked.await
    };
    let result = match asked {
        Some(result) => {
            if cx.offline_sign && !request.heeds_offline_sign() {
                cx.out.note("a node runs on this home, so --offline-sign did nothing: `sealtide down` first");
            }
            result
        }
        None => alone(cx, request, &progress, &mut shown).await,
    };
    drop(progress);
    if let Some(shown) = shown {
        let _ = shown.await;
    }
    result
}

/// Does a request in this process: no node runs.
async fn alone(
    cx: &Cx,
    request: Request,
    progress: &Progress,
    shown: &mut Option<JoinHandle<()>>,
) -> Result<Value, Failure> {
    if matches!(request, Request::Down | Request::Pause { .. } | Request::Resume { .. })
        || matches!(request, Request::Keys(KeysRequest::SignInCode))
    {
        // Opening the store tells an unlocked home from a node that does not answer.
        drop(cx.home.open_store()?);
        return Err(Failure::failed("not_running", "no node runs on this home").hint("`sealtide up` starts it"));
    }
    let mut interrupts = up::Interrupts::new()?;
    let node = match Node::open(cx.home.clone(), cx.config.clone()) {
        // A node that was starting has its doors open by now.
        Err(locked) if locked.exit == Exit::Locked => {
            let asked = control::ask(&cx.home.control_socket(), &request, progress).await;
            return asked.unwrap_or(Err(locked));
        }
        opened => opened?,
    };
    if cx.offline_sign {
        node.offline_sign()?;
    }
    let work = async {
        if needs_folders(&request) {
            node.open_shares();
            // What they tell of themselves holds from their first look on.
            let shares: Vec<_> = node.shares().values().cloned().collect();
            for share in shares {
                share.flush().await;
            }
        }
        execute(&node, request, progress).await
    };
    tokio::pin!(work);
    let result = tokio::select! {
        result = &mut work => result,
        signal = interrupts.next() => {
            // Work on the disk sees that nobody looks any more and stops, or goes on to its end: then it is done, and said to be.
            if let Some(shown) = shown.take() {
                shown.abort();
                let _ = shown.await;
            }
            if node.is_at_work() {
                cx.out.note("ending; once more ends it at once");
            }
            let interrupted = || Failure::new(signal, INTERRUPTED, "interrupted; the state is consistent");
            tokio::select! {
                biased;
                result = &mut work => result.map_err(|failure| if failure.code == INTERRUPTED { interrupted() } else { failure }),
                () = at_rest(&node) => Err(interrupted()),
            }
        }
    };
    node.shutdown().await;
    result
}

/// Waits until no work on the disk of a command is under way.
async fn at_rest(node: &Node) {
    while node.is_at_work() {
        tokio::time::sleep(LOOK).await;
    }
}

/// What the doctor says of a target where there is no node: a key made for this look stands for one, in a home that goes
/// away again.
async fn looked_at_by_nobody(cx: &Cx, target: &str) -> Result<Value, Failure> {
    let passing = PassingHome::make()?;
    let home = Home::new(passing.0.clone());
    home.init()?;
    let mut interrupts = up::Interrupts::new()?;
    let node = Node::open(home, cx.config.clone())?;
    let looking = crate::commands::doctor::doctor_of_nobody(&node, cx.home.root(), target);
    let found = tokio::select! {
        found = looking => found,
        signal = interrupts.next() => Err(Failure::new(signal, "interrupted", "interrupted; nothing was changed")),
    };
    node.shutdown().await;
    found
}

/// A home for one look, for nobody but this user; removed in the end.
struct PassingHome(PathBuf);

impl PassingHome {
    fn make() -> Result<Self, Failure> {
        let mut name = [0; 8];
        OsEntropy.fill(&mut name);
        let dir = std::env::temp_dir().join(format!("sealtide-doctor-{:016x}", u64::from_le_bytes(name)));
        std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for PassingHome {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Commands whose answer depends on what stands in the folders.
fn needs_folders(request: &Request) -> bool {
    matches!(
        request,
        Request::Status
            | Request::Restore { to: None, .. }
            | Request::ConflictsResolve { .. }
            | Request::ConflictsList { .. }
            | Request::HoldList
            | Request::HoldShow { .. }
            | Request::HoldDecide { .. }
    )
}

fn init(cx: &Cx, name: Option<&str>, recovery_out: Option<&Path>) -> Result<u8, Failure> {
    let made = make_home(cx, name, recovery_out)?;
    let id = cx.home.identity()?.id;
    cx.out.answer(&json!({
        "schema": "sealtide/init/1", "node": id.to_string(), "home": cx.home.root(), "made": made,
    }));
    Ok(0)
}

/// Makes the node key, the store and the identities when there are none.
pub(crate) fn make_home(cx: &Cx, name: Option<&str>, recovery_out: Option<&Path>) -> Result<bool, Failure> {
    identity::check_recovery_out(cx, recovery_out)?;
    let (identity, made) = cx.home.init()?;
    if made {
        let store = cx.home.open_store()?;
        let name = name.map_or_else(host_name, str::to_owned);
        crate::known::Known::of(&store)
            .put_setting("name", Some(&name))
            .map_err(|error| Failure::failed("store", error.to_string()))?;
        identity::make(cx, identity, store, recovery_out)?;
    }
    Ok(made)
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().take(64).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}

async fn status(cx: &Cx, check: bool, watch: bool) -> Result<u8, Failure> {
    let mut last = None;
    let mut interrupts = if watch { Some(up::Interrupts::new()?) } else { None };
    loop {
        let shown = answer(cx, Request::Status).await?;
        let Some(interrupts) = &mut interrupts else {
            let checked = if check { all_in_step(&shown) } else { Ok(()) };
            return Ok(cx.out.answer_checked(shown, checked));
        };
        // Ages and round-trip times move all the time; they alone are no news.
        let mut news = shown.clone();
        for link in news["links"].as_array_mut().into_iter().flatten() {
            for moving in ["rtt_ms", "age_s", "bytes_in", "bytes_out"] {
                link.as_object_mut().and_then(|link| link.remove(moving));
            }
        }
        if last.as_ref() != Some(&news) {
            cx.out.answer(&shown);
            last = Some(news);
        }
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_millis(500)) => {}
            _ = interrupts.next() => return Ok(0),
        }
    }
}

fn all_in_step(status: &Value) -> Result<(), Failure> {
    let spaces = status["spaces"].as_array().cloned().unwrap_or_default();
    let state_of = |wanted: &str| spaces.iter().find(|space| space["state"] == wanted);
    let name = |space: &Value| space["name"].as_str().unwrap_or_default().to_owned();
    if let Some(space) = state_of("held") {
        return Err(Failure::new(Exit::Held, "held", format!("{} is held", name(space))).hint("`sealtide hold list`"));
    }
    if let Some(space) = state_of("conflict") {
        return Err(Failure::new(Exit::Conflict, "conflict", format!("{} has conflicts", name(space)))
            .hint("`sealtide conflicts list`"));
    }
    if let Some(space) = spaces.iter().find(|space| space["state"] != "in_step") {
        let text = format!("{} is {}", name(space), space["state"].as_str().unwrap_or_default());
        return Err(Failure::failed("not_in_step", text));
    }
    let skipped = |space: &&Value| space["skipped"].as_object().is_some_and(|skipped| !skipped.is_empty());
    match spaces.iter().find(skipped) {
        None => Ok(()),
        Some(space) => {
            Err(Failure::new(Exit::Skipped, "skipped", format!("{} is in step but for what was skipped", name(space)))
                .hint("`sealtide status` lists it, with the reason"))
        }
    }
}

fn configure(cx: &Cx, command: &ConfigCommand) -> Result<u8, Failure> {
    match command {
        ConfigCommand::Show { origin } => {
            let mut shown = cx.config.show();
            if !origin {
                for row in shown["settings"].as_array_mut().into_iter().flatten() {
                    row.as_object_mut().and_then(|row| row.remove("origin"));
                }
            }
            cx.out.answer(&shown);
        }
        ConfigCommand::Set { key, value } => {
            if cx.config_path == cx.home.config_path() {
                cx.home.make_root()?;
            }
            let value = if value == "-" { read_value()? } else { value.clone() };
            cx.out.answer(&config::set(&cx.config_path, key, &value)?);
        }
    }
    Ok(0)
}

/// The value of a setting: a line of standard input.
fn read_value() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().lock().take(VALUE_BYTES_MAX + 1).read_line(&mut text)?;
    if text.len() as u64 > VALUE_BYTES_MAX {
        return Err(Failure::usage("too_large", "the value is larger than 64 KiB"));
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn read_document() -> Result<Value, Failure> {
    let mut text = String::new();
    std::io::stdin().take(DOCUMENT_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(Failure::usage("too_large", "the document is larger than 1 MiB"));
    }
    serde_json::from_str(&text).map_err(|error| Failure::usage("json", format!("standard input is not JSON: {error}")))
}
