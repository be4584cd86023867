//! The control socket: commands of the same user reach the running node. JSON lines, mode 0600, the peer's uid checked.
//!
//! A client writes one line with a [`Request`] and reads lines: `{"progress": …}` any number of times, then
//! `{"result": …}` or `{"error": …}`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::api::{Progress, Request, execute};
use crate::audit::Audit;
use crate::failure::Failure;
use crate::gateway::GatewayHost;
use crate::node::Node;

/// Bytes of one request, at most: a document to `put`, with room.
const REQUEST_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// How long a socket rests when a connection could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Progress(Value),
    Result(Value),
    Error(Failure),
}

/// Who answers the commands of a home: the node that runs there, or the gateway alone.
#[derive(Clone)]
pub enum Host {
    /// A node, which knows every command.
    Node(Node),
    /// `gateway run`.
    Gateway(GatewayHost),
}

impl Host {
    /// Does what a request asks.
    ///
    /// # Errors
    /// What the command reports.
    pub async fn execute(&self, request: Request, progress: &Progress) -> Result<Value, Failure> {
        match self {
            Self::Node(node) => execute(node, request, progress).await,
            Self::Gateway(host) => host.execute(request).await,
        }
    }

    /// The audit of the home.
    pub(crate) fn audit(&self) -> &Arc<Audit> {
        match self {
            Self::Node(node) => node.shared_audit(),
            Self::Gateway(host) => host.audit(),
        }
    }

    /// Turns true when the process is about to end.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        match self {
            Self::Node(node) => node.stopping(),
            Self::Gateway(host) => host.stopping(),
        }
    }
}

/// The open socket; its file goes when this is dropped.
pub struct ControlSocket {
    path: PathBuf,
}

impl ControlSocket {
    /// Opens the socket of a home, whose lock the caller holds, and serves it.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn open(path: PathBuf, host: Host) -> Result<Self, Failure> {
        // The lock of the store says that no other node runs here: what lies there is left over.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)
            .map_err(|error| Failure::failed("control", format!("{}: {error}", path.display())))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        tokio::spawn(async move {
            loop {
                tokio::spawn(serve(host.clone(), next_client(&listener).await));
            }
        });
        Ok(Self { path })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The next client of a socket that is of the same user, or root. A connection that the system cannot give now is no end: for want of
/// descriptors, most likely, and others close theirs.
pub(crate) async fn next_client(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let uid = rustix::process::getuid().as_raw();
                if stream.peer_cred().is_ok_and(|peer| peer.uid() == uid || peer.uid() == 0) {
                    return stream;
                }
            }
            Err(error) => {
                tracing::warn!("accepting a connection of this machine failed: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(host: Host, stream: UnixStream) {
    let (reader, mut writer) = stream.into_split();
    // It may hold recovery words.
    let mut text = Zeroizing::new(String::new());
    let mut reader = BufReader::new(reader.take(REQUEST_BYTES_MAX));
    if let Err(error) = reader.read_line(&mut text).await {
        let failure = Failure::usage("request", format!("the request cannot be read: {error}"));
        let _ = write(&mut writer, &Line::Error(failure)).await;
        return;
    }
    let request: Request = match serde_json::from_str(&text) {
        Ok(request) => request,
        Err(error) => {
            // A command of another version has another name; else it is a member that is wrong.
            let failure = if error.to_string().starts_with("unknown variant") {
                Failure::usage("request", format!("the running node does not know this command: {error}"))
                    .hint("the node may be of another version: `sealtide down`, then `sealtide up`")
            } else {
                Failure::usage("request", format!("the request cannot be read: {error}"))
            };
            let _ = write(&mut writer, &Line::Error(failure)).await;
            return;
        }
    };
    let ends_node = matches!(request, Request::Down);
    let (progress, mut told) = Progress::channel();
    let work = host.execute(request, &progress);
    tokio::pin!(work);
    // A client that goes away ends its command.
    let mut gone = [0u8; 1];
    let line = loop {
        tokio::select! {
            done = &mut work => break done.map_or_else(Line::Error, Line::Result),
            Some(line) = told.recv() => {
                if write(&mut writer, &Line::Progress(line)).await.is_err() {
                    return;
                }
            }
            read = reader.read(&mut gone) => if matches!(read, Ok(0) | Err(_)) { return },
        }
    };
    let _ = write(&mut writer, &line).await;
    if ends_node {
        // The client waits for the end of this connection: it comes with the end of the process, when the system closes
        // what was left open, the lock of the store among it.
        std::mem::forget((reader, writer));
    }
}

async fn write(writer: &mut (impl AsyncWriteExt + Unpin), line: &Line) -> std::io::Result<()> {
    let mut text = serde_json::to_string(line).map_err(std::io::Error::other)?;
    text.push('\n');
    writer.write_all(text.as_bytes()).await
}

/// The code of a failure where the node ended before its answer.
pub(crate) const LOST: &str = "control";

/// Asks the node that runs on a home. `None` when none runs there. `Down` returns when the process is gone.
///
/// # Errors
/// What the command reports.
pub async fn ask(socket: &Path, request: &Request, progress: &Progress) -> Option<Result<Value, Failure>> {
    let mut stream = connect(socket).await?;
    // Where the socket lies in a directory of all, somebody else may have put one there.
    if stream.peer_cred().ok()?.uid() != rustix::process::getuid().as_raw() {
        return None;
    }
    let text = serde_json::to_string(request);
    let mut text = match text {
        Ok(text) => Zeroizing::new(text),
        Err(error) => return Some(Err(Failure::usage("request", format!("the request cannot be told: {error}")))),
    };
    text.push('\n');
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut lines = BufReader::new(stream).lines();
    loop {
        let lost = || Failure::failed(LOST, "the running node went away before it answered");
        let Ok(Some(line)) = lines.next_line().await else { return Some(Err(lost())) };
        match serde_json::from_str(&line) {
            Ok(Line::Progress(told)) => drop(progress.tell(told)),
            Ok(Line::Result(result)) => {
                if matches!(request, Request::Down) {
                    while let Ok(Some(_)) = lines.next_line().await {}
                }
                return Some(Ok(result));
            }
            Ok(Line::Error(failure)) => return Some(Err(failure)),
            Err(_) => return Some(Err(lost())),
        }
    }
}

async fn connect(socket: &Path) -> Option<UnixStream> {
    for _ in 0..100 {
        match UnixStream::connect(socket).await {
            // Many clients knock at once; the node is there.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            connected => return connected.ok(),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    /// Set in the process that has the test for itself: a limit of descriptors holds for all that run in one.
    const ALONE: &str = "SEALTIDE_TEST_ALONE";

    #[tokio::test]
    async fn a_socket_takes_clients_again_when_there_are_descriptors_again() {
        if std::env::var_os(ALONE).is_none() {
            let own = "control::tests::a_socket_takes_clients_again_when_there_are_descriptors_again";
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            let told = alone.args([own, "--exact"]).env(ALONE, "1").output().unwrap();
            let text = String::from_utf8_lossy(&told.stdout);
            assert!(told.status.success() && text.contains("1 passed"), "{text}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let _client = UnixStream::connect(dir.path().join("socket")).await.unwrap();
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..before }).unwrap();
        let mut next = std::pin::pin!(next_client(&listener));
        let taken = tokio::time::timeout(4 * ACCEPT_PAUSE, &mut next).await;
        setrlimit(Resource::Nofile, before).unwrap();
        assert!(taken.is_err(), "there was no descriptor to take one with");
        next.await;
    }

    /// Somebody else on this machine.
    const NOBODY: u32 = 65_534;
    /// Set in the process that is somebody else: the socket that it looks at.
    const SOCKET: &str = "SEALTIDE_TEST_SOCKET";

    /// Runs a test of this module as somebody else, who looks at a socket.
    fn as_nobody(test: &str, socket: &Path) -> Command {
        let mut nobody = Command::new(std::env::current_exe().unwrap());
        let own = format!("control::tests::{test}");
        nobody.args([&own, "--exact"]).env(SOCKET, socket).uid(NOBODY).current_dir("/").stdout(Stdio::piped());
        nobody
    }

    /// A directory where everybody may look around.
    fn open_dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        dir
    }

    /// The mode of the socket keeps others out, and where it was changed the uid does.
    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_else_is_answered() {
        if let Some(socket) = std::env::var_os(SOCKET) {
            let mut stream = UnixStream::connect(socket).await.unwrap();
            // It may be closed before this is written.
            let _ = stream.write_all(b"{\"command\":\"status\"}\n").await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
            return;
        }
        let dir = open_dir();
        let node = Node::new_at(dir.path().join("home"));
        let socket = dir.path().join("socket");
        let _open = ControlSocket::open(socket.clone(), Host::Node(node)).unwrap();
        let mode = || std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode() & 0o777, 0o600);
        let progress = Progress::none();
        assert!(ask(&socket, &Request::Status, &progress).await.unwrap().is_ok(), "the own user");
        if !rustix::process::geteuid().is_root() {
            return;
        }
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
        let nobody = as_nobody("nobody_else_is_answered", &socket).output().unwrap();
        let told = String::from_utf8_lossy(&nobody.stdout);
        assert!(nobody.status.success() && told.contains("1 passed"), "{told}");
    }

    /// Who asks looks whose socket it is before anything goes over it: recovery words may.
    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_else_is_asked() {
        if let Some(socket) = std::env::var_os(SOCKET) {
            let listener = UnixListener::bind(&socket).unwrap();
            std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
            println!("listening");
            let (mut stream, _) = listener.accept().await.unwrap();
            // Whoever asks would wait for an answer.
            let heard = stream.read(&mut [0]).await;
            assert!(matches!(heard, Ok(0) | Err(_)), "{heard:?}");
            return;
        }
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = open_dir();
        let socket = dir.path().join("socket");
        let mut nobody = as_nobody("nobody_else_is_asked", &socket).arg("--nocapture").spawn().unwrap();
        let mut told = std::io::BufReader::new(nobody.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            assert_ne!(std::io::BufRead::read_line(&mut told, &mut line).unwrap(), 0, "it ended");
        }
        let progress = Progress::none();
        assert!(ask(&socket, &Request::Status, &progress).await.is_none());
        assert!(nobody.wait().unwrap().success(), "it heard something");
    }
}
