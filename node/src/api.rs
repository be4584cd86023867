//! What the command line asks of a node: one request, progress lines, one answer.
//!
//! The same [`execute`] serves a command inside its own process (no node runs) and over the control socket (one runs).
//! Answers are JSON documents with a `schema` member, exactly what `--json` prints; the text form is made from them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::audit::LineFilter;
use crate::commands;
use crate::commands::export::ExportFormat;
use crate::commands::keys::KeysRequest;
use crate::commands::keys_recover::RecoverOrder;
use crate::commands::release::ReleaseRequest;
use crate::failure::Failure;
use crate::node::Node;
use crate::recovery::RecoveryWords;

/// Where a long command tells what it does while it works: `{"phase":…,"items":[done,all],"bytes":[done,all],"text":…}`.
///
/// Whoever takes the lines is taken to wait for the command: when the receiving end is dropped, work that takes long stops and leaves
/// nothing behind (exit 130, `interrupted`). Whoever wants the command and no lines says [`Progress::none`].
#[derive(Clone, Debug)]
pub struct Progress(Option<mpsc::UnboundedSender<Value>>);

impl Progress {
    /// Progress, and where its lines come out. They pile up until they are read.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Value>) {
        let (lines, told) = mpsc::unbounded_channel();
        (Self(Some(lines)), told)
    }

    /// Nobody wants the lines, and the work goes on to its end.
    pub fn none() -> Self {
        Self(None)
    }

    /// Tells a line; `false` when whoever took them went away.
    pub(crate) fn tell(&self, line: Value) -> bool {
        self.0.as_ref().is_none_or(|lines| lines.send(line).is_ok())
    }

    /// Whether whoever took the lines went away.
    pub(crate) fn is_over(&self) -> bool {
        self.0.as_ref().is_some_and(mpsc::UnboundedSender::is_closed)
    }
}

/// What a command asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// `status`
    Status,
    /// `down`: the running node stops.
    Down,
    /// `pause [SPACE]`
    Pause {
        /// One space, or all.
        space: Option<String>,
    },
    /// `resume [SPACE]`
    Resume {
        /// One space, or all.
        space: Option<String>,
    },
    /// `up DIR…`: share directories (those shared already keep their space).
    Share {
        /// Absolute paths.
        dirs: Vec<PathBuf>,
    },
    /// `ticket new`
    TicketNew {
        /// The space; `None` takes the only one.
        space: Option<String>,
        /// `read`, `write` or `admin`.
        role: String,
        /// Seconds that the invite lives.
        ttl_s: u64,
        /// How many nodes may use it.
        uses: u32,
        /// For another device of the same owner: into every space that this node administers, as admin, once.
        #[serde(default)]
        device: bool,
    },
    /// `ticket list`
    TicketList,
    /// `ticket revoke ID`
    TicketRevoke {
        /// The id as `ticket list` shows it, or a beginning of at least 8 characters.
        id: String,
    },
    /// `join TICKET [DIR]`
    Join {
        /// The `stt1…` text.
        ticket: String,
        /// Absolute path, or `None` to take the space without a folder.
        dir: Option<PathBuf>,
        /// Return when the directory is in step, not when all records are here.
        wait: bool,
        /// Go on although most files of the directory are not in the space.
        yes: bool,
        /// Seconds without progress before giving up.
        timeout_s: u64,
        /// This node is another device of whoever made the ticket.
        #[serde(default)]
        device: bool,
    },
    /// `peers list`
    PeersList,
    /// `peers show P`
    PeersShow {
        /// Name or `stn1…`.
        peer: String,
    },
    /// `peers rename P N`
    PeersRename {
        /// Name or `stn1…`.
        peer: String,
        /// The new name.
        name: String,
    },
    /// `peers revoke P`
    PeersRevoke {
        /// Name or `stn1…`.
        peer: String,
    },
    /// `identity show [KEYSTONE]`
    IdentityShow {
        /// Address of a keystone, or a peer; `None`: all.
        keystone: Option<String>,
    },
    /// `identity new`
    IdentityNew {
        /// The recovery words; they were shown or written down before.
        words: RecoveryWords,
        /// Sign although the store may be an old one.
        offline_sign: bool,
    },
    /// `identity drill`
    IdentityDrill {
        /// The words to try.
        words: RecoveryWords,
    },
    /// `backup create`
    BackupCreate {
        /// A new file, absolute.
        file: PathBuf,
    },
    /// `keys recover`
    KeysRecover {
        /// Of the owner.
        words: RecoveryWords,
        /// What is to be replaced.
        order: RecoverOrder,
    },
    /// `identity recover`
    IdentityRecover {
        /// The words of the owner.
        words: RecoveryWords,
        /// Absolute path of a copy of its frames.
        frames: Option<PathBuf>,
    },
    /// `identity revoke`
    IdentityRevoke {
        /// The words of the owner.
        words: RecoveryWords,
        /// Why.
        reason: String,
        /// Absolute path of a copy of its frames.
        frames: Option<PathBuf>,
    },
    /// `identity delegate NODE`
    IdentityDelegate {
        /// Name or `stn1…`.
        node: String,
        /// Some of `connect`, `sync`, `post`.
        verbs: Vec<String>,
        /// RFC 3339; `None`: ten years.
        until: Option<String>,
        /// Sign although the store may be an old one.
        offline_sign: bool,
    },
    /// `identity undelegate NODE`, and `identity revoke --device` without a node.
    IdentityUndelegate {
        /// Name, `stn1…` or a device's keystone; `None`: this node.
        node: Option<String>,
        /// Sign although the store may be an old one.
        offline_sign: bool,
    },
    /// `identity speak-for PEER|--nobody`
    IdentitySpeakFor {
        /// Name or `stn1…` of a node whose owner delegated this one; `None`: for nobody.
        peer: Option<String>,
    },
    /// `identity export FILE`
    IdentityExport {
        /// Absolute path.
        file: PathBuf,
        /// A peer whose owner is meant; `None`: the own owner.
        of: Option<String>,
    },
    /// `spaces list`
    SpacesList,
    /// `spaces create N`: a space without a folder.
    SpacesCreate {
        /// Its name.
        name: String,
    },
    /// `spaces folder S DIR`: its files come into a directory, which is synced from then on.
    SpacesFolder {
        /// Which.
        space: String,
        /// Absolute path of the directory.
        dir: PathBuf,
        /// Whether it may hold many other files.
        yes: bool,
    },
    /// `spaces remove S`: this node forgets it; the folder stays.
    SpacesRemove {
        /// Which.
        space: String,
    },
    /// `sync`
    Sync {
        /// Which spaces; empty takes all.
        spaces: Vec<String>,
        /// Only with this peer.
        with: Option<String>,
        /// `optimistic`, `abort`, `ours` or `theirs`.
        strategy: String,
        /// Return when really in step.
        wait: bool,
        /// Seconds without progress before giving up.
        timeout_s: u64,
        /// Tell what differs, change nothing.
        dry_run: bool,
        /// Cancel the sagas of this space instead.
        cancel: Option<String>,
    },
    /// `put SPACE NAME`
    Put {
        /// Which space.
        space: String,
        /// Name of the document, ≤ 255 bytes.
        name: String,
        /// Any JSON.
        doc: Value,
        /// Only over this version: `@N`, `@HASH`, or `none` where there must be none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base: Option<String>,
    },
    /// `get SPACE[:PATH|NAME][@VERSION]`
    Get {
        /// The target as typed.
        target: String,
    },
    /// `log [SPACE[:PATH]]`
    Log {
        /// The target as typed; `None` takes all spaces.
        target: Option<String>,
        /// At most this many entries, the newest first.
        limit: usize,
    },
    /// One directory of a space, for pages.
    Files {
        /// Which space.
        space: String,
        /// The directory; empty for the space itself.
        under: String,
        /// The last name of the page before.
        after: Option<String>,
        /// At most this many names.
        limit: usize,
    },
    /// Sagas and links of late, for pages.
    Recent,
    /// `diff A [B]`
    Diff {
        /// A target as typed.
        a: String,
        /// Another, or the version before.
        b: Option<String>,
    },
    /// `restore SPACE:PATH@VERSION [--to DIR]`
    Restore {
        /// The target as typed.
        target: String,
        /// A directory to write to instead of the space.
        to: Option<PathBuf>,
    },
    /// `conflicts list`
    ConflictsList {
        /// One space, or all.
        space: Option<String>,
    },
    /// `conflicts show SPACE:PATH`
    ConflictsShow {
        /// The target as typed.
        target: String,
    },
    /// `conflicts resolve SPACE:PATH --keep VERSION`
    ConflictsResolve {
        /// The target as typed.
        target: String,
        /// `@N`, `@HASH` of the version to keep; `None` keeps what stands in the folder.
        keep: Option<String>,
    },
    /// `hold list`
    HoldList,
    /// `hold show SPACE`
    HoldShow {
        /// Which space.
        space: String,
    },
    /// `hold accept|reject SPACE`
    HoldDecide {
        /// Which space.
        space: String,
        /// Accept, or reject.
        accept: bool,
    },
    /// `verify [SPACE]`
    Verify {
        /// One space, or the whole store.
        space: Option<String>,
    },
    /// `gc`
    Gc {
        /// Only tell what would be freed.
        dry_run: bool,
    },
    /// `export SPACE`
    Export {
        /// Which space.
        space: String,
        /// In which form.
        format: ExportFormat,
        /// Absolute path of what is made.
        out: PathBuf,
    },
    /// `import PATH`
    Import {
        /// Absolute path of what `export` wrote, or of a directory or tar of another tool.
        path: PathBuf,
        /// What the space is called here.
        name: Option<String>,
    },
    /// `audit verify`
    AuditVerify,
    /// Lines of the audit, for pages: what is new, or back from a line.
    AuditLines {
        /// Only lines before this one, the newest first.
        before: Option<u64>,
        /// Only lines after this one, the oldest first.
        since: Option<u64>,
        /// At most this many.
        limit: usize,
        /// Which.
        filter: LineFilter,
    },
    /// Checkpoints for `audit export`, some at a time.
    AuditCheckpoints {
        /// Those with a greater number.
        since: u64,
    },
    /// `keys …` and `release bump`
    Keys(KeysRequest),
    /// `release publish`, `install` and so on
    Release(ReleaseRequest),
    /// `doctor [TARGET]`
    Doctor {
        /// A ticket, a peer, or nothing.
        target: Option<String>,
    },
}

impl Request {
    /// Whether a node that runs heeds `--offline-sign` for it, or there is nothing to sign.
    pub(crate) fn heeds_offline_sign(&self) -> bool {
        matches!(
            self,
            Self::IdentityShow { .. }
                | Self::IdentityNew { .. }
                | Self::IdentityDelegate { .. }
                | Self::IdentityUndelegate { .. }
        )
    }
}

/// Does what a request asks.
///
/// # Errors
/// A [`Failure`] with the exit code of the command; `interrupted` when the other end of `progress` was dropped.
pub async fn execute(node: &Node, request: Request, progress: &Progress) -> Result<Value, Failure> {
    match request {
        Request::Status => commands::blocking("status", node, commands::status::status).await,
        Request::Down => commands::status::down(node),
        Request::Pause { space } => commands::status::pause(node, space.as_deref(), true),
        Request::Resume { space } => commands::status::pause(node, space.as_deref(), false),
        Request::Share { dirs } => commands::share::share(node, &dirs).await,
        Request::TicketNew { device: true, ttl_s, .. } => commands::ticket::new_for_device(node, ttl_s),
        Request::TicketNew { space, role, ttl_s, uses, device: false } => {
            commands::ticket::new(node, space.as_deref(), &role, ttl_s, uses).await
        }
        Request::TicketList => commands::ticket::list(node),
        Request::TicketRevoke { id } => commands::ticket::revoke(node, &id),
        Request::Join { ticket, dir, wait, yes, timeout_s, device } => {
            let order = commands::join::JoinOrder { ticket, dir, wait, yes, timeout_s, device };
            commands::join::join(node, order, progress).await
        }
        Request::PeersList => commands::peers::list(node),
        Request::PeersShow { peer } => commands::peers::show(node, &peer),
        Request::PeersRename { peer, name } => commands::peers::rename(node, &peer, &name),
        Request::PeersRevoke { peer } => commands::peers::revoke(node, &peer).await,
        Request::IdentityShow { keystone } => commands::identity::show(node, keystone).await,
        Request::IdentityNew { words, offline_sign } => commands::identity::new(node, words, offline_sign).await,
        Request::IdentityDrill { words } => commands::identity::drill(node, words).await,
        Request::IdentityRecover { words, frames } => commands::identity::recover(node, words, frames).await,
        Request::IdentityRevoke { words, reason, frames } => {
            commands::identity::revoke(node, words, reason, frames).await
        }
        Request::IdentityDelegate { node: to, verbs, until, offline_sign } => {
            commands::identity::delegate(node, to, verbs, until, offline_sign).await
        }
        Request::IdentityUndelegate { node: from, offline_sign } => {
            commands::identity::undelegate(node, from, offline_sign).await
        }
        Request::IdentitySpeakFor { peer } => commands::identity::speak_for(node, peer).await,
        Request::IdentityExport { file, of } => commands::identity::export(node, file, of).await,
        Request::SpacesList => commands::spaces::list(node),
        Request::SpacesCreate { name } => commands::spaces::create(node, &name).await,
        Request::SpacesFolder { space, dir, yes } => commands::spaces::folder(node, &space, &dir, yes).await,
        Request::SpacesRemove { space } => commands::spaces::remove(node, &space),
        Request::Sync { spaces, with, strategy, wait, timeout_s, dry_run, cancel } => {
            let order = commands::sync::SyncCommand { spaces, with, strategy, wait, timeout_s, dry_run, cancel };
            commands::sync::sync(node, order, progress).await
        }
        Request::Put { space, name, doc, base } => {
            commands::documents::put(node, &space, &name, doc, base.as_deref()).await
        }
        Request::Get { target } => {
            commands::blocking("get", node, move |node| commands::documents::get(node, &target)).await
        }
        Request::Log { target, limit } => {
            commands::blocking("log", node, move |node| commands::history::log(node, target.as_deref(), limit)).await
        }
        Request::Files { space, under, after, limit } => {
            let list = move |node: &Node| commands::files::files(node, &space, &under, after.as_deref(), limit);
            commands::blocking("files", node, list).await
        }
        Request::Recent => Ok(node.recent().told(node)),
        Request::Diff { a, b } => {
            commands::blocking("diff", node, move |node| commands::history::diff(node, &a, b.as_deref())).await
        }
        Request::Restore { target, to } => commands::history::restore(node, target, to).await,
        Request::ConflictsList { space } => {
            commands::blocking("conflicts", node, move |node| commands::conflicts::list(node, space.as_deref())).await
        }
        Request::ConflictsShow { target } => {
            commands::blocking("conflicts", node, move |node| commands::conflicts::show(node, &target)).await
        }
        Request::ConflictsResolve { target, keep } => commands::conflicts::resolve(node, target, keep).await,
        Request::HoldList => commands::hold::list(node),
        Request::HoldShow { space } => commands::hold::show(node, &space),
        Request::HoldDecide { space, accept } => commands::hold::decide(node, &space, accept).await,
        Request::Verify { space } => commands::verify::verify(node, space.as_deref(), progress).await,
        Request::Gc { dry_run } => commands::gc::gc(node, dry_run).await,
        Request::Export { space, format, out } => {
            let progress = progress.clone();
            let work = move |node: &Node| commands::export::export(node, &space, format, &out, &progress);
            commands::blocking("export", node, work).await
        }
        Request::Import { path, name } => {
            let progress = progress.clone();
            let work = move |node: &Node| commands::import::import(node, &path, name.as_deref(), &progress);
            commands::blocking("import", node, work).await
        }
        Request::AuditVerify => commands::verify::audit(node).await,
        Request::AuditLines { before, since, limit, filter } => {
            let look = move |node: &Node| commands::verify::audit_lines(node.audit(), before, since, limit, &filter);
            commands::blocking("audit", node, look).await
        }
        Request::AuditCheckpoints { since } => commands::verify::audit_checkpoints(node.audit(), since),
        Request::Keys(KeysRequest::SignInCode) => commands::keys::node_code(node),
        Request::BackupCreate { file } => {
            let progress = progress.clone();
            let work = move |node: &Node| {
                let done = crate::backup::create(node.home(), node.store(), &file, &progress)?;
                node.audit().note("backup_created", &[("file", &file.display().to_string())]);
                Ok(done)
            };
            commands::blocking("backup", node, work).await
        }
        Request::KeysRecover { words, order } => commands::keys_recover::recover(node, words, order).await,
        Request::Keys(KeysRequest::Bump { request, expect: None, tree: None }) if node.followed().is_some() => {
            commands::keys::bump_elsewhere(node, &request).await
        }
        Request::Keys(request) => {
            let desk = node.desk(request.may_begin())?;
            let changes = request.changes_keys();
            let answer = commands::keys::execute(desk, request).await?;
            if changes {
                // Heads of the pair before are void from here on. The change holds whatever becomes of them.
                if let Err(failure) = crate::releases::renew(node).await {
                    tracing::warn!(%failure, "heads of release channels were not signed anew; a running node tries again");
                }
            }
            Ok(answer)
        }
        Request::Release(request) => commands::release::execute(node, request, progress).await,
        Request::Doctor { target } => commands::doctor::doctor(node, target.as_deref()).await,
    }
}
