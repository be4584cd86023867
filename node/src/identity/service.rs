//! What the engine asks of identities: prove, check, sign, keep. Spec: ibgib §12.4, §13.2 "Authentication"

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sealtide_crypto::PublicKey;
use sealtide_ibgib::{Address, Verified};
use sealtide_identity::NodeId;
use sealtide_identity::keystone::{
    Chain, Claim, Class, ConnectFacts, Place, SessionRefused, Side, State, Verb, check_session,
};
use sealtide_sync::{AbortCode, Introduction, OwnIdentity, Proof, Refused};
use tokio::time::{Instant, timeout_at};

use super::foreign::add_all;
use super::signing::SignRefused;
use super::verdict::refused;
use super::witness::WITNESS_WAIT;
use super::{Identities, PeerIdentity, lock};
use crate::engine::authorship::CommitKey;
use crate::engine::keystones::{Checked, Connection, Keystones, Work};

/// How long a node whose identity ended answers questions before it refuses to prove anything.
const FAREWELL_WAIT: Duration = Duration::from_secs(2);

/// Why a proof is not good, or not yet.
enum NotGood {
    Refused(Refused),
    /// Frames before those that came are not here.
    Missing(Address, Option<u64>),
}

impl From<Refused> for NotGood {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

fn sign_refused(error: SignRefused) -> Refused {
    match &error {
        SignRefused::Store(_) => refused(AbortCode::Disk, &error.to_string()),
        _ => Refused::auth(error.to_string()),
    }
}

fn session_refused(error: SessionRefused) -> Refused {
    let code = match error {
        SessionRefused::Revoked => AbortCode::Revoked,
        SessionRefused::Forked => AbortCode::IdentityForked,
        _ => AbortCode::Auth,
    };
    refused(code, &error.to_string())
}

impl Identities {
    /// Does work that waits for the disk; it goes on when nobody waits for it any more.
    fn work<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> T + Send + 'static) -> Work<T> {
        let identities = self.clone();
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || work(&identities)).await;
            done.expect("the identities do not panic")
        })
    }

    /// The key that the first frame of a device keystone carries. What it signed stays signed, whatever became of the
    /// keystone. Spec: ibgib §12.6
    fn device_key(&self, first: &Address) -> Option<PublicKey> {
        self.0.frames.with(first, |chain| {
            let device = chain.genesis().filter(|genesis| genesis.class() == Class::Device);
            device.map(|genesis| genesis.key().clone())
        })
    }

    /// The claim of a connect frame. Spec: SY-32
    fn connect_claim(
        &self,
        connection: &Connection,
        said: &Introduction,
        session: &Address,
        own: bool,
    ) -> Result<Claim, Refused> {
        let device = self.device().ok_or_else(|| Refused::auth("this node has no identity"))?;
        let initiator = connection.is_initiator == own;
        let (own_side, peer_side) = ((&connection.own, &device), (&connection.peer, &said.peer_keystone));
        let (prover, verifier) = if own { (own_side, peer_side) } else { (peer_side, own_side) };
        let (received, sent) = match own {
            true => (&said.peer_challenge, &said.own_challenge),
            false => (&said.own_challenge, &said.peer_challenge),
        };
        let facts = ConnectFacts {
            side: if initiator { Side::Initiator } else { Side::Responder },
            binding: &connection.binding,
            prover: prover.0,
            verifier: verifier.0,
            prover_session: session,
            prover_device: prover.1,
            verifier_device: verifier.1,
            received,
            sent,
        };
        facts.claim().ok_or_else(|| Refused::auth("a connection without a session binding"))
    }

    fn prove_now(&self, connection: &Connection, said: &Introduction) -> Result<Proof, Refused> {
        let device = self.device().ok_or_else(|| Refused::auth("this node has no identity"))?;
        let session = self.session_for(&said.peer_keystone).map_err(sign_refused)?;
        let claim = self.connect_claim(connection, said, &session.first, true)?;
        let frame = self.sign_with(&session, &claim).map_err(sign_refused)?;
        let n = frame.frame_ref().map_or(0, |facts| facts.n);
        self.note_live(connection, &said.peer_keystone, said.peer_owner.as_ref(), |live| {
            live.own_session = Some((session.clone(), n));
        });
        let known = said
            .peer_known
            .as_ref()
            .filter(|(address, _)| self.0.frames.with(&device, |chain| chain.place(address) == Some(Place::Valid)));
        let device_frames = self.frames_after(&device, known.map(|(_, n)| *n));
        let session_frames = self.frames_after(&session.first, session.shown);
        Ok(Proof { device: device_frames, session: session_frames })
    }

    fn check_proof_now(
        &self,
        connection: &Connection,
        frames: &[Verified],
        said: &Introduction,
    ) -> Result<(), NotGood> {
        let device = &said.peer_keystone;
        let connect = frames.last().ok_or_else(|| Refused::auth("a proof of nothing"))?;
        let first = connect.frame_ref().map(|facts| facts.tjp.clone());
        let first = first.ok_or_else(|| Refused::auth("a proof that is no frame"))?;
        self.check_node_key(connection, device)?;
        let own = self.device().ok_or_else(|| Refused::auth("this node has no identity"))?;
        let (claim, now) = (self.connect_claim(connection, said, &first, false)?, self.now());
        let checked = self.0.frames.with_two(device, &first, |of_device, session| {
            self.count_brought(&connection.peer, session, frames)?;
            let checked = add_all(session, frames).map_err(NotGood::from).and_then(|()| {
                if session.standing(connect.address()).is_none() {
                    return Err(NotGood::Missing(first.clone(), greatest(session)));
                }
                match check_session(session, of_device, &connection.peer, &own, now) {
                    Ok(_) => {}
                    // Two frames after one are kept, so that the freeze is.
                    Err(SessionRefused::Forked) if self.0.frames.count(&first) > 0 => {
                        self.save(session)?;
                        return Err(session_refused(SessionRefused::Forked).into());
                    }
                    Err(error) => return Err(session_refused(error).into()),
                }
                // Spec: SY-32
                let newest = session.newest().map(|newest| newest.frame());
                let proves =
                    newest.is_some_and(|frame| frame.address() == connect.address() && frame.claim() == Some(&claim));
                if proves { Ok(self.save(session)?) } else { Err(Refused::auth("a proof of something else").into()) }
            });
            if matches!(checked, Err(NotGood::Refused(_))) {
                *session = self.0.frames.load(&first);
            }
            checked
        });
        checked.unwrap_or_else(|| Err(Refused::auth("a proof by the device itself instead of a session").into()))?;
        self.device_stands(&connection.peer, device, said.peer_owner.as_ref())?;
        self.remember(connection, said, first);
        Ok(())
    }

    /// The key in force in the device keystone is the node key that the link proved.
    // Spec: SY-90
    fn check_node_key(&self, connection: &Connection, device: &Address) -> Result<(), NotGood> {
        let key = self.0.frames.with(device, |chain| chain.newest().map(|newest| NodeId::of(newest.key())));
        match key {
            None => Err(NotGood::Missing(device.clone(), None)),
            Some(node) if node == connection.peer => Ok(()),
            Some(_) => Err(Refused::auth("a device keystone whose key is another node's").into()),
        }
    }

    /// Writes down who the peer proved to be.
    fn remember(&self, connection: &Connection, said: &Introduction, session: Address) {
        let device = said.peer_keystone.clone();
        let before = PeerIdentity::of(&self.0.store, &connection.peer);
        let mut owners = before.as_ref().map(|row| row.owners.clone()).unwrap_or_default();
        owners.extend(said.peer_owner.clone().map(|owner| (owner, device.clone())));
        let same = before.filter(|row| row.device == device);
        let owner = said.peer_owner.clone().or_else(|| same.and_then(|row| row.owner));
        let brought = lock(&self.0.brought).get(&connection.peer).copied().unwrap_or_default();
        self.put_peer(&connection.peer, PeerIdentity { device, owner, owners, brought });
        lock(&self.0.coming).remove(&connection.peer);
        self.note_live(connection, &said.peer_keystone, said.peer_owner.as_ref(), |live| {
            live.peer_session = Some(session);
        });
        self.tell();
    }

    fn check_sig_now(&self, connection: &Connection, target: &str, sig: &Verified) -> Result<Checked, Refused> {
        let live = self.live(connection).ok_or_else(|| Refused::auth("a signature before the proof"))?;
        let first = live.peer_session.clone().ok_or_else(|| Refused::auth("a signature before the proof"))?;
        if sig.frame_ref().is_none_or(|facts| facts.tjp != first) {
            return Err(Refused::auth("a signature of another keystone"));
        }
        let checked = self.0.frames.with(&first, |session| {
            self.count_brought(&connection.peer, session, std::slice::from_ref(sig))?;
            add_all(session, std::slice::from_ref(sig))?;
            let Some(standing) = session.standing(sig.address()) else {
                return Ok(Checked::Waits { first: first.clone(), after: greatest(session) });
            };
            let good = standing.frame().claim() == Some(&Claim::new(Verb::Sync, target));
            self.save(session)?;
            match session.state() {
                State::Live if good => Ok(Checked::Good),
                State::Live => Err(Refused::auth("a signature of something else")),
                _ => Err(session_refused(SessionRefused::Forked)),
            }
        })?;
        if checked == Checked::Good
            && let Some((session, n)) = live.own_session
            && let Some(own) = lock(&self.0.sessions).get_mut(&live.peer_device)
            && own.first == session.first
        {
            // Sagas begin when both accepted, so the peer holds the proof.
            own.shown = own.shown.max(Some(n));
        }
        Ok(checked)
    }

    fn sign_now(&self, connection: &Connection, target: &str) -> Result<Verified, Refused> {
        let live = self.live(connection).and_then(|live| live.own_session);
        let (session, _) = live.ok_or_else(|| Refused::auth("nothing was proven on this connection"))?;
        if self.now() >= session.until || self.is_used_up(&session, 0) {
            connection.broken();
            return Err(Refused::auth("the session is used up; the next connection begins a new one"));
        }
        self.sign_with(&session, &Claim::new(Verb::Sync, target)).map_err(sign_refused)
    }
}

fn greatest(chain: &Chain) -> Option<u64> {
    chain.frames().map(|frame| frame.facts().n).max()
}

impl Keystones for Identities {
    fn identity(&self, peer: &NodeId) -> Option<OwnIdentity> {
        let keystone = self.device()?;
        let device = PeerIdentity::of(&self.0.store, peer).map(|row| row.device);
        let known = device.or_else(|| lock(&self.0.coming).get(peer).cloned()).and_then(|device| {
            let tip = self.0.frames.only_tip(&device);
            tip.or_else(|| {
                let newest = |chain: &mut Chain| {
                    chain.newest().map(|newest| (newest.frame().address().clone(), newest.frame().facts().n))
                };
                self.0.frames.with(&device, newest)
            })
        });
        Some(OwnIdentity { keystone, owner: self.owner_to_name(), known })
    }

    fn held(&self, first: Address) -> Work<Option<u64>> {
        self.work(move |identities| identities.0.frames.with(&first, |chain| greatest(chain)))
    }

    fn prove(&self, connection: Connection, introduction: Introduction) -> Work<Result<Proof, Refused>> {
        let identities = self.clone();
        Box::pin(async move {
            if let Err(refused) = identities.own_stands() {
                // The peer asks for the owner's frames meanwhile, and hears of the end.
                tokio::time::sleep(FAREWELL_WAIT).await;
                return Err(refused);
            }
            identities.hear_witness(&connection, introduction.peer_known.clone()).await?;
            identities.work(move |identities| identities.prove_now(&connection, &introduction)).await
        })
    }

    fn check_proof(
        &self,
        connection: Connection,
        frames: Vec<Verified>,
        introduction: Introduction,
    ) -> Work<Result<(), Refused>> {
        let identities = self.clone();
        Box::pin(async move {
            let (until, mut news) = (Instant::now() + WITNESS_WAIT, identities.0.news.subscribe());
            let mut asked = BTreeSet::new();
            let work = Arc::new((connection.clone(), frames, introduction));
            loop {
                news.borrow_and_update();
                let what = work.clone();
                let checked = identities.work(move |identities| identities.check_proof_now(&what.0, &what.1, &what.2));
                match checked.await {
                    Ok(()) => return Ok(()),
                    Err(NotGood::Refused(refused)) => return Err(refused),
                    Err(NotGood::Missing(first, after)) => {
                        if asked.insert(first.clone()) {
                            connection.ask(first, after);
                        }
                    }
                }
                if timeout_at(until, news.changed()).await.is_err() {
                    return Err(Refused::auth("the frames before the proof did not come"));
                }
            }
        })
    }

    fn frames(
        &self,
        connection: Connection,
        first: Address,
        after: Option<u64>,
        named: BTreeSet<Address>,
    ) -> Work<Vec<Verified>> {
        self.work(move |identities| identities.frames_for(&connection, &first, after, &named))
    }

    fn keep(
        &self,
        connection: Connection,
        first: Address,
        frames: Vec<Verified>,
        last: bool,
    ) -> Work<Result<(), Refused>> {
        self.work(move |identities| identities.keep_now(&connection, &first, &frames, last))
    }

    fn keep_unseen(&self, connection: Connection, sig: Verified) -> Work<()> {
        self.work(move |identities| {
            let first = identities.live(&connection).and_then(|live| live.peer_session);
            let of_peer = sig.frame_ref().map(|facts| facts.tjp.clone());
            if let Some(first) = first.filter(|first| Some(first) == of_peer.as_ref()) {
                identities.0.frames.with(&first, |session| {
                    if add_all(session, std::slice::from_ref(&sig)).is_ok() {
                        let _ = identities.save(session);
                    }
                });
                identities.tell();
            }
        })
    }

    fn sign(&self, connection: Connection, target: String) -> Work<Result<Verified, Refused>> {
        self.work(move |identities| identities.sign_now(&connection, &target))
    }

    fn check_sig(&self, connection: Connection, target: String, sig: Verified) -> Work<Result<Checked, Refused>> {
        self.work(move |identities| identities.check_sig_now(&connection, &target, &sig))
    }

    fn ended(&self, connection: &Connection) {
        self.forget_live(connection);
    }

    fn refused_as_forked(&self, connection: &Connection) {
        self.let_go_of_session(connection);
    }

    fn commit_key(&self) -> Option<CommitKey> {
        Some(CommitKey { key: self.0.node.key.clone(), keystone: self.device()? })
    }

    fn node_key(&self, keystone: &Address) -> Option<PublicKey> {
        self.device_key(keystone)
    }

    fn ask_for_signer(&self, connection: &Connection, keystone: &Address) {
        Identities::ask_for_signer(self, connection, keystone);
    }

    fn chains(&self) -> Option<&dyn sealtide_identity::members::Keystones> {
        Some(self)
    }

    fn news(&self) -> u64 {
        *self.0.news.borrow()
    }

    fn acts_as(&self, node: &NodeId) -> Vec<Address> {
        Identities::acts_as(self, node)
    }

    fn delegates(&self, owner: &Address, device: &Address) -> bool {
        self.delegates_now(owner, device, Verb::Sync)
    }

    fn post(&self, target: &Address) -> Result<(), Refused> {
        Identities::post(self, target).map_err(sign_refused)
    }

    fn fetch(&self, connection: Connection, wanted: Vec<Address>) -> Work<()> {
        let identities = self.clone();
        Box::pin(async move { identities.fetch_all(&connection, wanted).await })
    }
}
