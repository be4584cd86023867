//! Drives the pure handshake over a path: who is at the other end, and is it let in. Spec: link C.4.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use sealtide_crypto::sha256;
use sealtide_identity::NodeId;
use sealtide_wire::frame::{ErrorCode, FrameType, HEADER_BYTES, Notice};
use sealtide_wire::handshake::{
    BindingError, CertificateCheck, CertificateRejected, Established, HANDSHAKE_PAYLOAD_BYTES_MAX, HandshakeError,
    Initiator, LocalEnd, Proof, Responder, Step,
};
use sealtide_wire::rehandshake::{REQUEST_PAYLOAD_BYTES, RehandshakeError};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::{Instant, sleep, timeout};

use crate::attach::{self, Doorkeeper};
use crate::certificate::CertificateFacts;
use crate::clock::SystemEntropy;
use crate::limits::{Limits, Place};
use crate::node::Node;
use crate::path::{Path, PathError};
use crate::registry::{Turn, Yield};
use crate::session::Session;

/// What one handshake message may hold: RESPONSE and ESTABLISHED come together.
const MESSAGE_BYTES_MAX: usize = 2 * (HANDSHAKE_PAYLOAD_BYTES_MAX as usize + HEADER_BYTES);

/// A handshake that finished, with the path it ran on. The frames in `send` are to be written first.
pub(crate) struct Proven {
    pub(crate) path: Path,
    pub(crate) established: Box<Established>,
    pub(crate) turn: Turn,
    pub(crate) send: Vec<Vec<u8>>,
}

/// Why a handshake did not finish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ProofError {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Rehandshake(#[from] RehandshakeError),
    #[error(transparent)]
    Binding(#[from] BindingError),
    #[error("the settings do not permit such a path")]
    Policy,
    #[error("nothing came for too long")]
    Silent,
    #[error("too many handshakes at once")]
    Busy,
    #[error(transparent)]
    Yield(#[from] Yield),
    #[error("it closed the connection without an answer")]
    NoAnswer,
}

/// The processor time of strangers: so many ML-DSA operations at a time, so many waiting. Spec: link C.12.
#[derive(Debug)]
pub(crate) struct Workers {
    at_once: Semaphore,
    waiting: AtomicUsize,
    waiting_max: usize,
}

impl Workers {
    pub(crate) fn new(limits: &Limits) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let at_once = if limits.proofs_at_once == 0 { cores } else { limits.proofs_at_once };
        Self { at_once: Semaphore::new(at_once), waiting: AtomicUsize::new(0), waiting_max: limits.proofs_waiting }
    }

    /// Waits for its turn; `None` when too many wait already.
    pub(crate) async fn turn(&self) -> Option<WorkTurn<'_>> {
        let queued = Queued(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.waiting_max {
            return None;
        }
        let permit = self.at_once.acquire().await.ok()?;
        drop(queued);
        Some(WorkTurn(permit))
    }
}

/// The right to one ML-DSA operation.
pub(crate) struct WorkTurn<'a>(SemaphorePermit<'a>);

impl WorkTurn<'_> {
    /// Runs `work` on a thread for blocking work: it costs up to a millisecond and may write to disk.
    async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ProofError> {
        let done = tokio::task::spawn_blocking(work).await.map_err(|_| ProofError::Busy);
        drop(self.0);
        done
    }
}

/// One place in the queue, given back however the wait ends.
struct Queued<'a>(&'a AtomicUsize);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The certificate in ESTABLISHED must be the one that this connection shows.
// Spec: LK-17
struct Shown([u8; 32]);

impl CertificateCheck for Shown {
    fn dates(&self, der: &[u8]) -> Result<(u64, u64), CertificateRejected> {
        if sha256(der) != self.0 {
            return Err(CertificateRejected("not the certificate of this connection"));
        }
        let facts = CertificateFacts::read(der).map_err(|_| CertificateRejected("not of the accepted form"))?;
        Ok((facts.not_before_s, facts.not_after_s))
    }
}

/// The dialling end, on a path that is ready. `continues` is a session of the same peer that may go on.
pub(crate) async fn initiate(
    node: &Arc<Node>,
    mut path: Path,
    peer: NodeId,
    proof: Proof,
    continues: Option<&Session>,
) -> Result<Proven, ProofError> {
    let local = Arc::new(node.local_end(&path.certificate));
    let connection = path.stream.connection(path.certificate.fingerprint(), path.remote)?;
    let began = Instant::now();
    let (mut initiator, hello) =
        Initiator::start(local, peer, proof, connection, continues.map(attach::offer), &mut SystemEntropy);
    path.send(&[hello]).await?;
    let mut turn: Option<(Turn, oneshot::Receiver<()>)> = None;
    loop {
        let frame = match &mut turn {
            None => {
                let next = path.frame(HANDSHAKE_PAYLOAD_BYTES_MAX, MESSAGE_BYTES_MAX);
                timeout(node.limits.hello_deadline, next).await.map_err(|_| ProofError::Silent)?
            }
            Some((_, stopped)) => match next_unless(&mut path, stopped).await {
                Some(next) => next,
                None => return Err(give_way(path, Yield::Duplicate).await),
            },
        };
        let frame = frame.map_err(|error| match error {
            // A node with another id is silent, as is everything that is no node.
            PathError::Closed | PathError::Io(_) if turn.is_none() => ProofError::NoAnswer,
            error => error.into(),
        })?;
        let Some(work) = node.workers.turn().await else {
            // Nothing but HELLO is written to a peer that has not proved its id. Spec: link C.4.5
            let proven = turn.is_some();
            return Err(if proven { too_busy(path).await } else { ProofError::Busy });
        };
        let (back, machine, step) = initiator_step(work, path, initiator, frame).await?;
        path = back;
        initiator = machine;
        let step = match step {
            Ok(step) => step,
            Err(error) => return Err(give_up(path, error).await),
        };
        if turn.is_none() && initiator.peer_is_proven() {
            match node.registry.begin(peer, true, began, continues) {
                Ok(begun) => turn = Some(begun),
                Err(yielded) => return Err(give_way(path, yielded).await),
            }
        }
        match step {
            Step::Wait => {}
            Step::Send(frames) => path.send(&frames).await?,
            Step::Done { send, established } => {
                let (turn, _stopped) = turn.ok_or(ProofError::NoAnswer)?;
                return Ok(Proven { path, established, turn, send });
            }
            Step::LoggedIn { .. } => return Err(ProofError::NoAnswer),
        }
    }
}

/// The first frame on a path that was upgraded, HELLO or REQUEST. Before it little is read, nothing is written, and
/// time is short. Spec: LK-13.
pub(crate) async fn first_frame(node: &Node, mut path: Path) -> Result<(Path, Bytes), ProofError> {
    let limits = node.limits;
    let first = timeout(limits.hello_deadline, path.frame(REQUEST_PAYLOAD_BYTES, limits.bytes_before_knock)).await;
    let frame = first.map_err(|_| ProofError::Silent)??;
    Ok((path, frame))
}

/// The listening end; `frame` is the first one.
pub(crate) async fn respond(
    node: &Arc<Node>,
    mut path: Path,
    mut frame: Bytes,
    place: &Place,
) -> Result<Proven, ProofError> {
    let local = Arc::new(node.local_end(&path.certificate));
    let connection = path.stream.connection(path.certificate.fingerprint(), path.remote)?;
    let mut responder = Responder::new(local, connection);

    let began = Instant::now();
    let mut turn: Option<(Turn, oneshot::Receiver<()>)> = None;
    let mut knocked = false;
    // Looked at before the wait for a turn: a stranger takes nobody's place there, and who knocked right is told that
    // this node is busy.
    if !responder.is_knock(&frame) {
        node.counters.wrong_knocks.add(1);
        place.failed();
        return Err(HandshakeError::WrongKnock.into());
    }
    loop {
        let Some(work) = node.workers.turn().await else { return Err(too_busy(path).await) };
        let (back, machine, step) = responder_step(node, work, path, responder, frame).await?;
        path = back;
        responder = machine;
        let step = match step {
            Ok(step) => step,
            Err(error) => {
                match &error {
                    HandshakeError::BadProof { .. } => node.counters.bad_proofs.add(1),
                    HandshakeError::NotAdmitted { .. } => node.counters.refused.add(1),
                    _ => {}
                }
                // A refusal without a proven peer is a bad signature or tag.
                let guessed = match &error {
                    HandshakeError::BadProof { .. } => true,
                    HandshakeError::NotAdmitted { peer, .. } => peer.is_none(),
                    _ => false,
                };
                if guessed {
                    place.failed();
                }
                return Err(give_up(path, error).await);
            }
        };
        if !knocked {
            knocked = true;
            let late = place.knocked();
            if !late.is_zero() {
                node.counters.slowed.add(1);
                sleep(late).await;
            }
        }
        if turn.is_none()
            && let Some(peer) = responder.proven_peer()
        {
            place.proved();
            match node.registry.begin(peer, false, began, None) {
                Ok(begun) => turn = Some(begun),
                Err(yielded) => return Err(give_way(path, yielded).await),
            }
        }
        match step {
            Step::Wait => {}
            Step::Send(frames) => path.send(&frames).await?,
            Step::Done { send, established } => {
                let (turn, _stopped) = turn.ok_or(ProofError::NoAnswer)?;
                return Ok(Proven { path, established, turn, send });
            }
            Step::LoggedIn { .. } => return Err(ProofError::NoAnswer),
        }
        frame = match &mut turn {
            None => path.frame(HANDSHAKE_PAYLOAD_BYTES_MAX, MESSAGE_BYTES_MAX).await?,
            Some((_, stopped)) => match next_unless(&mut path, stopped).await {
                Some(next) => next?,
                None => return Err(give_way(path, Yield::Duplicate).await),
            },
        };
    }
}

/// The next frame; `None` when the handshake has to give way.
async fn next_unless(path: &mut Path, stopped: &mut oneshot::Receiver<()>) -> Option<Result<Bytes, PathError>> {
    let next = path.frame(HANDSHAKE_PAYLOAD_BYTES_MAX, MESSAGE_BYTES_MAX);
    tokio::select! { _ = stopped => None, next = next => Some(next) }
}

type Stepped<M> = (Path, M, Result<Step, HandshakeError>);

async fn initiator_step(
    work: WorkTurn<'_>,
    path: Path,
    mut initiator: Initiator,
    frame: Bytes,
) -> Result<Stepped<Initiator>, ProofError> {
    let shown = Shown(path.stream.peer_fingerprint().unwrap_or_default());
    let step = move || {
        let step = initiator.handle(&frame, &path.stream, &shown);
        (path, initiator, step)
    };
    work.run(step).await
}

async fn responder_step(
    node: &Arc<Node>,
    work: WorkTurn<'_>,
    path: Path,
    mut responder: Responder,
    frame: Bytes,
) -> Result<Stepped<Responder>, ProofError> {
    let shown = Shown(path.stream.peer_fingerprint().unwrap_or_default());
    let admission = Doorkeeper { admission: node.admission.clone(), registry: node.registry.clone() };
    let step = move || {
        let step = responder.handle(&frame, &path.stream, &shown, &admission, &mut SystemEntropy);
        (path, responder, step)
    };
    work.run(step).await
}

/// Says why, where that is allowed, and closes.
async fn give_up(mut path: Path, error: HandshakeError) -> ProofError {
    if let Some(reply) = error.reply() {
        let _gone_already = path.send(&[reply]).await;
        path.hang_up().await;
    }
    error.into()
}

/// Tells the peer that another handshake goes first, or that there is no place, and closes.
pub(crate) async fn give_way(mut path: Path, why: Yield) -> ProofError {
    let code = match why {
        Yield::Duplicate => ErrorCode::Duplicate,
        Yield::Full => ErrorCode::Limit,
        Yield::Closed => ErrorCode::GoingAway,
    };
    tell(&mut path, code).await;
    why.into()
}

/// Tells a peer that knocked right, or proved its id, that the processor has too much to do, and closes.
// Spec: link C.12
async fn too_busy(mut path: Path) -> ProofError {
    tell(&mut path, ErrorCode::Busy).await;
    ProofError::Busy
}

async fn tell(path: &mut Path, code: ErrorCode) {
    let _gone_already = path.send(&[Notice::new(code).frame(FrameType::Error)]).await;
    path.hang_up().await;
}

/// What this node shows of itself in a handshake that uses `certificate`.
impl Node {
    fn local_end(&self, certificate: &crate::certificate::NodeCertificate) -> LocalEnd {
        let mut local = LocalEnd::new(self.key.clone(), certificate.facts());
        local.cert_epoch = certificate.epoch();
        local.addresses = self.announce();
        local.relays = self.told_relays();
        local.terms = self.terms;
        local
    }
}
