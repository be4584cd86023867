//! The words of the command line.

mod gateway;
mod release;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use gateway::{GatewayArgs, GatewayCommand, GatewayRoleArg};
pub(crate) use release::{RegistryCommand, ReleaseCommand, TierArg};

/// Keeps signed, versioned folders and documents in step between machines, through anything that lets HTTPS out.
#[derive(Debug, Parser)]
#[command(name = "sealtide", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 done · 1 failed · 2 usage or configuration · 3 finished with items skipped · \
4 conflict needs a person · 5 verification failed · 6 refused · 7 no route · 8 policy hold · 10 no store here · \
11 store locked · 12 wrong or missing passphrase · 130/143 interrupted, state consistent.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Home directory of the node [default: the XDG data directory]
    // An empty variable is as good as none, and clap would refuse it.
    #[arg(long, global = true, env = "SEALTIDE_HOME", value_name = "DIR", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) home: Option<PathBuf>,
    /// Settings file [default: HOME/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more; twice for debugging
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// No colours (also NO_COLOR)
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// Answer yes to questions of policy
    #[arg(long, global = true)]
    pub(crate) yes: bool,
    /// Sign although this home may be an old or a copied one, and no peer can tell
    #[arg(long, global = true)]
    pub(crate) offline_sign: bool,
    /// Time without progress after which a waiting command gives up [default: 60s]
    #[arg(long, global = true, value_name = "TIME")]
    pub(crate) timeout: Option<String>,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the node key and the store (`up` and `join` on a fresh home do the same)
    Init {
        /// Name of this node, shown by `status` [default: the host name]
        #[arg(long)]
        name: Option<String>,
        /// Make the owner identity too, and write its recovery words into this new file
        #[arg(long, value_name = "FILE")]
        recovery_out: Option<PathBuf>,
    },
    /// Run the node in the foreground and share directories; prints tickets
    Up(UpArgs),
    /// A relay: a blind meeting point for nodes that cannot reach each other
    Relay {
        /// What to do
        #[command(subcommand)]
        command: RelayCommand,
    },
    /// The door for browsers and apps
    Gateway {
        /// What to do
        #[command(subcommand)]
        command: GatewayCommand,
    },
    /// Signing keys of releases and the gateway: which version signs, and the ledger that says so
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Versions and releases
    Release {
        #[command(subcommand)]
        command: ReleaseCommand,
    },
    /// Stop the running node
    Down,
    /// Tell what is shared, with whom, and whether it is in step
    Status {
        /// Exit 0 only when everything is in step
        #[arg(long)]
        check: bool,
        /// Print again whenever something changes
        #[arg(long, conflicts_with = "check")]
        watch: bool,
    },
    /// Stop syncing a space (or all) until `resume` or the next start
    Pause {
        /// Name or sts1… id
        space: Option<String>,
    },
    /// Go on syncing
    Resume {
        /// Name or sts1… id
        space: Option<String>,
    },
    /// Invite other nodes
    Ticket {
        #[command(subcommand)]
        command: TicketCommand,
    },
    /// Enrol at the node that made a ticket, and get its space
    Join {
        /// The stt1… text
        ticket: String,
        /// The directory to keep it in; without one the space has no folder here
        dir: Option<PathBuf>,
        /// Return when the directory is in step, not when all records are here
        #[arg(long)]
        wait: bool,
        /// This is another device of yours, and the ticket one of `ticket new --device`: take every space, and speak for your owner
        #[arg(long)]
        device: bool,
        /// Name of this node, when it is made now
        #[arg(long)]
        name: Option<String>,
        /// When the node is made now: make the owner identity too, and write its recovery words into this new file
        #[arg(long, value_name = "FILE")]
        recovery_out: Option<PathBuf>,
    },
    /// Nodes that this one knows
    Peers {
        #[command(subcommand)]
        command: PeersCommand,
    },
    /// Who this node is and who speaks for whom: the owner, its devices, recovery words
    Identity {
        #[command(subcommand)]
        command: IdentityCommand,
    },
    /// Spaces of this node
    Spaces {
        #[command(subcommand)]
        command: SpacesCommand,
    },
    /// Bring spaces in step now
    Sync(SyncArgs),
    /// Store a JSON document from standard input
    Put {
        /// Name or sts1… id of the space
        space: String,
        /// Name of the document
        name: String,
        /// Only over this version (N or 8 and more digits of the hash, as `get --json` tells), else exit 4; `none`: only where
        /// there is no such document
        #[arg(long, value_name = "VERSION")]
        base: Option<String>,
    },
    /// Print a file or document, or list a space
    Get {
        /// SPACE[:PATH|NAME][@VERSION]; VERSION is a counter, 8 or more digits of the hash, or a time
        target: String,
    },
    /// Versions of a file or document, or the newest changes
    Log {
        /// SPACE[:PATH]
        target: Option<String>,
        /// At most this many entries
        #[arg(short = 'n', long, default_value_t = 50)]
        limit: usize,
    },
    /// What changed between two versions (one: against the version before)
    Diff {
        /// SPACE:PATH[@VERSION]
        a: String,
        /// SPACE:PATH[@VERSION]
        b: Option<String>,
    },
    /// Make an old version the newest, or write it elsewhere
    Restore {
        /// SPACE:PATH@VERSION
        target: String,
        /// Write it into this directory instead
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Versions that stand against each other
    Conflicts {
        #[command(subcommand)]
        command: ConflictsCommand,
    },
    /// What waits for a person: check-outs, and what removed writers brought
    Hold {
        #[command(subcommand)]
        command: HoldCommand,
    },
    /// Read everything again and check it, offline
    Verify {
        /// One space [default: the whole store]
        space: Option<String>,
    },
    /// Write a space as plain files, as a tar, or as lines with all its history
    Export {
        /// Which space
        space: String,
        /// dir: what stands in it now; tar: the same in one file; jsonl: every record, all history
        #[arg(long, value_name = "FORMAT", default_value = "dir")]
        format: ExportArg,
        /// Where to [default: the name of the space, here]
        #[arg(long, value_name = "PATH")]
        out: Option<PathBuf>,
    },
    /// A whole home in one file
    Backup {
        #[command(subcommand)]
        command: BackupCommand,
    },
    /// Take a space in: what `export` wrote, or a plain directory or tar of any tool
    ///
    /// Lines (--format jsonl) become the space that they were, with all its history. A directory or a tar becomes a new space with its
    /// files: content, right to run, time (to the millisecond), links as links, empty directories. Where nothing but files/ and
    /// documents/ stands at the top, as `export` writes it, documents/NAME.json are documents and the rest is below files/; else
    /// everything is files. Ignore rules do not count here: all of it is taken, or nothing. Hard links, sparse files, devices and names
    /// that no folder holds are refused. `sealtide spaces folder NAME DIR` keeps the space in a directory.
    Import {
        /// The file or directory
        path: PathBuf,
        /// What to call the space here [default: what it was called, or the name of the file or directory]
        #[arg(long)]
        name: Option<String>,
    },
    /// Erase what spaces that were removed said, and give the room of binaries that nobody needs back to the disk
    ///
    /// What goes belongs to spaces that were removed (their texts, names of files and history), to transfers that were
    /// given up, and to old releases of apps that are installed here: beside those installed and the ones before them, the
    /// newest `release.keep` of each channel stay (2; `all`: every one). Signatures and manifests of all stay, and so does
    /// all other history of every space. A running node does this at its start and every six hours. Chunks that it received
    /// in the last 24 hours wait.
    Gc {
        /// Only tell what would be freed
        #[arg(long)]
        dry_run: bool,
    },
    /// The audit of this node
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Look for what is wrong, and say what to do
    ///
    /// Each check is ok, warn, fail or skip. Exit code: 0 when nothing failed (warnings included), 1 when something of
    /// this node failed, 7 when the way to the target did.
    Doctor {
        /// What to reach: a ticket (stt1…), a relay address (str1…), a peer, or HOST:PORT
        target: Option<String>,
    },
    /// Measure this machine
    Bench {
        /// live: how long an edit takes to show up on another node; link: a session beside plain TLS, direct and over a
        /// relay; gateway: the door for browsers beside ws and Bun; reconcile: what two large spaces say to find a small
        /// difference; bulk: how fast a new node gets a whole space; release: packing and checking a release of --bytes
        /// bytes; identity: what the proofs of identities cost
        #[arg(default_value = "live")]
        name: String,
        #[command(flatten)]
        sizes: super::bench::Sizes,
    },
    /// Settings
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Plumbing: ibGib transforms, one JSON object per line in and out
    Ibgib {
        /// hash, fork, mut8, rel8, firstgen or check
        op: IbgibOp,
    },
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands
    Man {
        /// Write a page for each command into this directory
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print the version
    Version,
}

/// `up`
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Directories to share; without one the node serves what it has
    pub(crate) dirs: Vec<PathBuf>,
    /// Address of the link door; 0.0.0.0:7443 lets other machines in [default: 127.0.0.1:7443 or the next free port]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Address of the gateway door [default: 127.0.0.1:7480 or the next free port]
    #[arg(long, value_name = "ADDR")]
    pub(crate) gateway: Option<SocketAddr>,
    /// A relay to log in at (str1…), so that nodes that cannot reach this one meet it there; may be given again
    #[arg(long, value_name = "STR1")]
    pub(crate) relay: Vec<String>,
    /// Name of this node, when it is made now
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// When the node is made now: make the owner identity too, and write its recovery words into this new file
    #[arg(long, value_name = "FILE")]
    pub(crate) recovery_out: Option<PathBuf>,
}

/// `relay`
#[derive(Debug, Subcommand)]
pub(crate) enum RelayCommand {
    /// Run a relay in the foreground; prints its str1… address. It forwards bytes that it cannot read
    Run(RelayArgs),
    /// What the relay of this home does now
    Status,
}

/// `relay run`
#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    /// Address of the door; 0.0.0.0:443 lets other machines in [default: 127.0.0.1:7444 or the next free port]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// What str1… names, where that is not --listen: wss://HOST[:PORT][/PATH]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Nodes come through a proxy that ends their TLS (needs --url): str1… says so, and the proxy connects here with TLS 1.3
    #[arg(long, requires = "url")]
    pub(crate) behind_proxy: bool,
    /// Who is let in: allow-list, token (who has the str1… address; it is a secret then), or open
    #[arg(long, value_name = "MODE", default_value = "allow-list")]
    pub(crate) admit: String,
    /// A node that is let in, stn1…; may be given again
    #[arg(long, value_name = "NODE")]
    pub(crate) allow: Vec<String>,
    /// Address of a door for health and metrics [default: none]
    #[arg(long, value_name = "ADDR")]
    pub(crate) gateway: Option<SocketAddr>,
}

/// `identity`
#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Show the own owner and device, and those of peers
    Show {
        /// The address of a keystone, a peer's name or its stn1… id
        keystone: Option<String>,
    },
    /// Make the owner identity; its recovery words are shown once
    New {
        /// Write the recovery words into this new file instead of showing them
        #[arg(long, value_name = "FILE")]
        recovery_out: Option<PathBuf>,
    },
    /// Take the owner identity back with its recovery words (from standard input)
    Recover {
        /// A copy of the owner's frames, made by `identity export` [default: those that are here]
        #[arg(long, value_name = "FILE")]
        frames: Option<PathBuf>,
    },
    /// Check that recovery words (from standard input) are those of the owner; nothing changes
    Drill,
    /// End the owner identity for good, with its recovery words (from standard input)
    Revoke {
        /// End this device only: the owner takes back what it may do
        #[arg(long)]
        device: bool,
        /// Why, for all to read
        #[arg(long, default_value = "", conflicts_with = "device")]
        reason: String,
        /// A copy of the owner's frames [default: those that are here]
        #[arg(long, value_name = "FILE", conflicts_with = "device")]
        frames: Option<PathBuf>,
    },
    /// Seal the secrets of this home by a passphrase (asked for, or from standard input); the node must be down
    Passphrase {
        /// Take the passphrase away
        #[arg(long)]
        remove: bool,
    },
    /// Let a node speak for the owner
    Delegate {
        /// A peer's name or stn1… id
        node: String,
        /// connect, sync, post
        #[arg(long, default_value = "connect,sync,post", value_delimiter = ',')]
        verbs: Vec<String>,
        /// Until when, RFC 3339 [default: ten years from now]
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
    },
    /// Take back what a node may do for the owner
    Undelegate {
        /// A peer's name or stn1… id, or the keystone of a device, as `identity show` lists it
        node: String,
    },
    /// Speak for the owner of another node, which delegated this one: what the owner may do, this device may
    SpeakFor {
        /// A peer's name or stn1… id
        #[arg(required_unless_present = "nobody")]
        peer: Option<String>,
        /// Speak for nobody but this device again
        #[arg(long, conflicts_with = "peer")]
        nobody: bool,
    },
    /// Write the owner's frames into a new file: with the recovery words enough to recover anywhere
    Export {
        /// The file
        file: PathBuf,
        /// Those of the owner that this node spoke for when it was met last: a peer's name or stn1… id [default: the own owner]
        #[arg(long, value_name = "NODE")]
        of: Option<String>,
    },
}

/// `backup`
#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Write this home into a new file, while the node goes on: keys, identity, spaces with all history, audit, releases, settings
    ///
    /// Where a passphrase is set (`sealtide identity passphrase`) all of it is sealed by it. Otherwise the file has the secrets in the
    /// clear, for its owner alone, as the home has: keep it as safe.
    Create {
        /// The file
        file: PathBuf,
    },
    /// Make a home of a backup, in an empty place (--home DIR): all of it, or nothing
    ///
    /// The home is that node again. Do not run it beside the original. Before it signs with its identity a peer has to tell that it has
    /// the newest frames. Shared folders are filled from the spaces at the next `sealtide up`.
    Restore {
        /// The file
        file: PathBuf,
        /// Another node instead, with keys of its own, that may run beside the original: all spaces are here, and one
        /// `ticket new --device` of the original lets it in. What the backup holds is not sent again. The original's settings are laid beside the new ones
        #[arg(long)]
        as_new_device: bool,
    },
}

/// `keys`
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Which version signs, what the others may do, where each secret came from
    Status,
    /// Every change of keys, oldest first
    Ledger {
        /// Only records with a greater epoch
        #[arg(long, value_name = "EPOCH", default_value_t = 0)]
        since: u64,
    },
    /// Let the next version sign, and make it first where this home made the one that signs; signatures of the one before count on for 30 days
    Rotate {
        /// This version instead
        #[arg(long, value_name = "VERSION")]
        to: Option<String>,
        #[command(flatten)]
        common: KeysCommon,
    },
    /// Let the version before sign again
    Rollback {
        #[command(flatten)]
        common: KeysCommon,
    },
    /// Let a higher version sign, with no way back
    Force {
        /// v2, v3, …
        version: String,
        #[command(flatten)]
        common: KeysCommon,
    },
    /// Make a version with a secret of its own, which stays in HOME/gateway.key
    New {
        /// v2, v3, … [default: the next number]
        version: Option<String>,
        #[command(flatten)]
        common: KeysCommon,
    },
    /// End a version that only verifies: its signatures do not count any more
    Retire {
        /// v1, v2, …
        version: String,
        /// Somebody else may have its secret; a version that signs is left for the next one first
        #[arg(long)]
        compromised: bool,
        /// Its last good release in a channel, where that is not the newest one; once for each channel
        #[arg(long, value_name = "CHANNEL=SEQ", requires = "compromised")]
        last_good: Vec<String>,
        #[command(flatten)]
        common: KeysCommon,
    },
    /// Replace a signing key that was lost or stolen, with the owner's recovery words (from standard input)
    ///
    /// Makes a version with a new secret, which signs from here on. Whoever has a trust file that names the owner as its root (those
    /// written since there is one do) follows by himself, with no new file. Stop publishing meanwhile; heads are signed anew.
    ///
    /// Where the home with the keys is lost: `identity recover` and `import` of the app's space in a fresh home, then this with --app.
    Recover {
        /// Somebody else may have the secrets of before: of what they signed only the releases up to the last good ones count
        #[arg(long)]
        compromised: bool,
        /// The last good release in a channel, where that is not the newest one; once for each channel
        #[arg(long, value_name = "CHANNEL=SEQ", requires = "compromised")]
        last_good: Vec<String>,
        /// Why; it stands in the ledger, for all to read
        #[arg(long, default_value = "")]
        reason: String,
        /// Go on from the key ledger that the space of this app has, in a home that never had the keys
        #[arg(long)]
        app: Option<String>,
        /// A trust file of that app, where its space has several ledgers or names no owner
        #[arg(long, value_name = "FILE", requires = "app")]
        trust: Option<PathBuf>,
    },
    /// Print a signed request to another node that names this one among its supervisors
    ///
    /// Put it as a document into a space that both share: `sealtide keys signal … | sealtide put SPACE NAME`. It counts while
    /// the key ledger there is at that epoch.
    Signal {
        /// What the other node is to do
        action: SignalArg,
        /// Address of its key ledger, as its `keys status --json` tells
        #[arg(long, value_name = "ADDRESS")]
        ledger: String,
        /// The epoch that its key ledger is at
        #[arg(long)]
        epoch: u64,
    },
    /// Delete the secret of a version that has ended
    Destroy {
        /// v1, v2, …
        version: String,
        #[command(flatten)]
        common: KeysCommon,
    },
}

/// What a supervisor asks for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SignalArg {
    /// The next version signs
    Rotate,
    /// The version before signs again
    Rollback,
}

/// Options of every change of keys.
#[derive(Debug, Args)]
pub(crate) struct KeysCommon {
    /// Only if this version signs now
    #[arg(long, value_name = "VERSION")]
    pub(crate) expect: Option<String>,
    /// Why; it stands in the ledger, for all to read
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    /// Only tell what it would come to
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// A form of export.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ExportArg {
    /// A directory
    Dir,
    /// A tar
    Tar,
    /// Lines of JSON
    Jsonl,
}

/// `ticket`
#[derive(Debug, Subcommand)]
pub(crate) enum TicketCommand {
    /// Make a ticket
    New {
        /// Name or sts1… id [default: the only space]
        #[arg(long)]
        space: Option<String>,
        /// What the other node may do
        #[arg(long, default_value = "write")]
        role: RoleArg,
        /// How long it lives [default: 10m]
        #[arg(long, value_name = "TIME")]
        ttl: Option<String>,
        /// How many nodes may use it
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// For another device of yours: into every space that this node administers, as admin; once
        ///
        /// Where this node has the owner identity, the owner delegates the device, and it speaks for you.
        #[arg(long, conflicts_with_all = ["space", "role", "uses"])]
        device: bool,
    },
    /// List tickets
    List,
    /// Take a ticket back
    Revoke {
        /// The id that `ticket list` shows, or its first 8 characters
        id: String,
    },
}

/// A role as a word.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RoleArg {
    /// May pull
    Read,
    /// May also change
    Write,
    /// May also invite others
    Admin,
}

/// `peers`
#[derive(Debug, Subcommand)]
pub(crate) enum PeersCommand {
    /// List peers
    List,
    /// Show one peer
    Show {
        /// Name or stn1… id
        peer: String,
    },
    /// Give a peer another name
    Rename {
        /// Name or stn1… id
        peer: String,
        /// The new name
        name: String,
    },
    /// Take every grant from a peer and cut its sessions at once
    Revoke {
        /// Name or stn1… id
        peer: String,
    },
}

/// `spaces`
#[derive(Debug, Subcommand)]
pub(crate) enum SpacesCommand {
    /// List spaces
    List,
    /// Make a space without a folder, for documents
    Create {
        /// Its name
        name: String,
    },
    /// Keep a space that has no folder here in a directory, which is made when it is missing: files come out, and changes are
    /// synced from then on
    Folder {
        /// Name or sts1… id
        space: String,
        /// The directory
        dir: PathBuf,
    },
    /// Forget a space; files in its folder stay, and what the home knew of it is erased by the next `gc`
    Remove {
        /// Name or sts1… id
        space: String,
    },
}

/// `sync`
#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    /// Names or sts1… ids [default: all]
    pub(crate) spaces: Vec<String>,
    /// Only with this peer
    #[arg(long, value_name = "PEER")]
    pub(crate) with: Option<String>,
    /// What happens to versions that diverged
    #[arg(long, default_value = "optimistic")]
    pub(crate) strategy: StrategyArg,
    /// Return when both nodes hold the same; the peer may still be writing its folder
    #[arg(long)]
    pub(crate) wait: bool,
    /// Tell what differs, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Cancel what runs for this space
    #[arg(long, value_name = "SPACE")]
    pub(crate) cancel: Option<String>,
}

/// A strategy as a word.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum StrategyArg {
    /// Merge both; what cannot be merged is listed as a conflict
    Optimistic,
    /// Refuse
    Abort,
    /// Ours wins
    Ours,
    /// Theirs wins
    Theirs,
}

/// `conflicts`
#[derive(Debug, Subcommand)]
pub(crate) enum ConflictsCommand {
    /// List conflicts
    List {
        /// One space [default: all]
        space: Option<String>,
    },
    /// Show the versions of one
    Show {
        /// SPACE:PATH
        target: String,
    },
    /// Join the versions of one into the one to keep
    Resolve {
        /// SPACE:PATH
        target: String,
        /// Version to keep [default: what stands in the folder]
        #[arg(long, value_name = "VERSION")]
        keep: Option<String>,
    },
}

/// `hold`
#[derive(Debug, Subcommand)]
pub(crate) enum HoldCommand {
    /// List what is held
    List,
    /// Show what would change
    Show {
        /// Name or sts1… id
        space: String,
    },
    /// Let it happen
    Accept {
        /// Name or sts1… id
        space: String,
    },
    /// Keep the folder as it stands, as newer versions
    Reject {
        /// Name or sts1… id
        space: String,
    },
}

/// `audit`
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// The last lines
    Tail {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: usize,
    },
    /// Check the chain and its signed checkpoints
    Verify {
        /// What `audit export` wrote, on any machine and without a home
        file: Option<PathBuf>,
        /// The node whose audit it must be, stn1…; without it the answer tells whose it is
        #[arg(long, value_name = "NODE", requires = "file")]
        node: Option<String>,
    },
    /// Write every line with the checkpoints that cover it, for `audit verify FILE` elsewhere
    Export {
        /// A new file [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// `config`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// List settings
    Show {
        /// Say where each value came from
        #[arg(long)]
        origin: bool,
    },
    /// Write a setting to the file
    Set {
        /// SECTION.KEY
        key: String,
        /// Its value; `-`: from standard input, so that no password stands among the words of a command
        value: String,
    },
}

/// `ibgib`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum IbgibOp {
    /// Hash records
    Hash,
    /// Fork
    Fork,
    /// Mut8
    Mut8,
    /// Rel8
    Rel8,
    /// First generation
    Firstgen,
    /// Validate addresses and records
    Check,
}
