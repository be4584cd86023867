//! The keystones of one session: the saga chain of each space, signing, and the wait of a signature for its predecessor.
//! Spec: ibgib §12.4

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealtide_ibgib::{Address, Verified};
use sealtide_identity::SpaceId;
use sealtide_sync::{AbortCode, Chain, Contexts, Ledger, Refused, SagaInput};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::engine::keystones::{Checked, Connection, Keystones};

/// How long a signature waits for the frame before it until the peer is asked …
const ASK_AFTER: Duration = Duration::from_secs(1);
/// … and until it is refused.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
/// How long a disk may take to make a signature durable.
const SIGN_WAIT: Duration = Duration::from_secs(60);

/// What all sagas of a session share.
pub(crate) struct SessionKeys {
    keystones: Arc<dyn Keystones>,
    connection: Connection,
    ledgers: Mutex<BTreeMap<SpaceId, Arc<tokio::sync::Mutex<Ledger>>>>,
    /// Goes up when a frame of the peer was kept, so that signatures that wait look again.
    kept: watch::Sender<u64>,
}

/// The ledger of one space, held by the one saga that runs: two orders of sagas would be two chains.
pub(crate) struct Signing {
    pub(crate) keys: Arc<SessionKeys>,
    ledger: OwnedMutexGuard<Ledger>,
}

impl SessionKeys {
    pub(crate) fn new(keystones: Arc<dyn Keystones>, connection: Connection) -> Arc<Self> {
        let (kept, _) = watch::channel(0);
        Arc::new(Self { keystones, connection, ledgers: Mutex::default(), kept })
    }

    pub(crate) fn keystones(&self) -> &Arc<dyn Keystones> {
        &self.keystones
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Takes the ledger of a space; waits for the saga before, which may have completed at the peer already.
    pub(crate) async fn begin(self: Arc<Self>, space: SpaceId) -> Signing {
        let ledger = self.lock().entry(space).or_default().clone();
        Signing { ledger: ledger.lock_owned().await, keys: self }
    }

    /// Spaces with completed sagas that no signature covers yet, and no saga that runs.
    pub(crate) fn unsigned(&self) -> Vec<SpaceId> {
        let ledgers = self.lock();
        let left = |ledger: &tokio::sync::Mutex<Ledger>| ledger.try_lock().is_ok_and(|ledger| ledger.unsigned() > 0);
        ledgers.iter().filter(|(_, ledger)| left(ledger)).map(|(space, _)| *space).collect()
    }

    /// Frames of the peer were kept.
    pub(crate) fn came(&self) {
        self.kept.send_modify(|count| *count += 1);
    }

    /// Keeps the signature of an OPEN that was refused unseen.
    pub(crate) async fn unseen(&self, sig: Verified) {
        self.keystones.keep_unseen(self.connection.clone(), sig).await;
        self.came();
    }

    pub(crate) async fn sign(self: Arc<Self>, target: String) -> SagaInput {
        let signed = timeout(SIGN_WAIT, self.keystones.sign(self.connection.clone(), target)).await;
        SagaInput::Signed(signed.unwrap_or_else(|_| {
            Err(Refused { code: AbortCode::Timeout, text: "the signature could not be made in time".to_owned() })
        }))
    }

    /// Checks a signature. Sagas run on several channels, so it may come before the frame that it builds on.
    pub(crate) async fn check(self: Arc<Self>, target: String, sig: Verified) -> SagaInput {
        let late = || Err(Refused::auth("the frame before a signature did not come"));
        let give_up = Instant::now() + GIVE_UP_AFTER;
        SagaInput::SigChecked(timeout_at(give_up, self.check_in_turn(target, sig)).await.unwrap_or_else(|_| late()))
    }

    async fn check_in_turn(&self, target: String, sig: Verified) -> Result<(), Refused> {
        let mut kept = self.kept.subscribe();
        let mut ask_at = Some(Instant::now() + ASK_AFTER);
        loop {
            kept.borrow_and_update();
            let (first, after) =
                match self.keystones.check_sig(self.connection.clone(), target.clone(), sig.clone()).await? {
                    Checked::Good => {
                        self.came();
                        return Ok(());
                    }
                    Checked::Waits { first, after } => (first, after),
                };
            tokio::select! {
                biased;
                _ = kept.changed() => {}
                () = sleep_until(ask_at.unwrap_or_else(Instant::now)), if ask_at.is_some() => {
                    ask_at = None;
                    self.connection.ask(first, after);
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<SpaceId, Arc<tokio::sync::Mutex<Ledger>>>> {
        self.ledgers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signing {
    /// What the saga that begins must know. `last`: BYE follows; `members`: the newest frame that counts.
    pub(crate) fn contexts(&self, last: bool, members: Option<Address>) -> Contexts {
        Contexts { ledger: *self.ledger, members, last }
    }

    /// The saga is over.
    pub(crate) fn end(mut self, chain: Chain) {
        match chain {
            Chain::Same => {}
            Chain::Completed(ledger) => *self.ledger = ledger,
            Chain::Unknown => self.keys.connection.broken(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sealtide_ibgib::{Data, Relations, stone};
    use sealtide_identity::NodeId;
    use sealtide_sync::{Introduction, OwnIdentity, Proof};

    use super::*;
    use crate::engine::keystones::{Ask, Asks, Work};

    /// A keeper that waits for the frame before a signature until it is told that it came.
    #[derive(Clone, Default)]
    struct Waiting(Arc<Mutex<bool>>);

    fn frame() -> Verified {
        stone("frame", Data::Json(true.into()), Relations::new())
    }

    impl Keystones for Waiting {
        fn identity(&self, _: &NodeId) -> Option<OwnIdentity> {
            None
        }
        fn held(&self, _: Address) -> Work<Option<u64>> {
            unreachable!("not part of signing")
        }
        fn prove(&self, _: Connection, _: Introduction) -> Work<Result<Proof, Refused>> {
            unreachable!("not part of signing")
        }
        fn check_proof(&self, _: Connection, _: Vec<Verified>, _: Introduction) -> Work<Result<(), Refused>> {
            unreachable!("not part of signing")
        }
        fn frames(&self, _: Connection, _: Address, _: Option<u64>, _: BTreeSet<Address>) -> Work<Vec<Verified>> {
            unreachable!("not part of signing")
        }
        fn keep(&self, _: Connection, _: Address, _: Vec<Verified>, _: bool) -> Work<Result<(), Refused>> {
            unreachable!("not part of signing")
        }
        fn keep_unseen(&self, _: Connection, _: Verified) -> Work<()> {
            *self.0.lock().expect("nothing panics") = true;
            Box::pin(std::future::ready(()))
        }
        fn sign(&self, _: Connection, _: String) -> Work<Result<Verified, Refused>> {
            Box::pin(std::future::pending())
        }
        fn check_sig(&self, _: Connection, _: String, _: Verified) -> Work<Result<Checked, Refused>> {
            let came = *self.0.lock().expect("nothing panics");
            let waits = Checked::Waits { first: frame().address().clone(), after: Some(4) };
            Box::pin(std::future::ready(Ok(if came { Checked::Good } else { waits })))
        }
        fn ended(&self, _: &Connection) {}
    }

    fn keys() -> (Arc<SessionKeys>, Asks) {
        let nodes = [1, 2].map(|byte| NodeId::from_bytes([byte; 32]));
        let (connection, asks) = Connection::new(nodes[0], nodes[1], true, [3; 32]);
        (SessionKeys::new(Arc::new(Waiting::default()), connection), asks)
    }

    fn asked(asks: &mut Asks) -> bool {
        matches!(asks.try_recv(), Ok(Ask::Keystone(first, Some(4))) if first == *frame().address())
    }

    /// The frame before comes on another channel; it is asked for after a second, and waited for ten.
    // Proves: SY-33
    #[tokio::test(start_paused = true)]
    async fn a_signature_waits_for_the_frame_before_it() {
        let ms = Duration::from_millis;
        // (when it comes, whether it is asked for, whether it is good)
        for (comes_ms, is_asked, good) in [(500, false, true), (5_000, true, true), (10_500, true, false)] {
            let (keys, mut asks) = keys();
            let begin = Instant::now();
            let check = tokio::spawn(keys.clone().check("target".into(), frame()));
            tokio::time::sleep(ms(999.min(comes_ms))).await;
            assert!(!asked(&mut asks), "not within the first second");
            tokio::time::sleep(ms(comes_ms.saturating_sub(999))).await;
            keys.unseen(frame()).await;
            let SagaInput::SigChecked(result) = check.await.expect("it does not panic") else { panic!("another fact") };
            assert_eq!(result.is_ok(), good, "{comes_ms}: {result:?}");
            assert!(good || result == Err(Refused::auth("the frame before a signature did not come")));
            assert!(begin.elapsed() >= ms(comes_ms));
            assert_eq!(asked(&mut asks), is_asked, "{comes_ms}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_signature_that_is_never_made() {
        let (keys, _asks) = keys();
        let SagaInput::Signed(Err(refused)) = keys.sign("target".into()).await else { panic!("another fact") };
        assert_eq!(refused.code, AbortCode::Timeout);
    }

    /// One saga of a space at a time has the ledger; the next sees what it left.
    #[tokio::test(start_paused = true)]
    async fn the_ledger_goes_from_saga_to_saga() {
        let (keys, mut asks) = keys();
        let space = SpaceId::from_bytes([5; 32]);
        let first = keys.clone().begin(space).await;
        let second = tokio::spawn(keys.clone().begin(space));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!second.is_finished(), "it waits");
        assert!(keys.unsigned().is_empty());
        first.end(Chain::Unknown);
        assert!(matches!(asks.try_recv(), Ok(Ask::Broken)), "the connection ends");
        assert_eq!(second.await.expect("it does not panic").contexts(false, None).ledger, Ledger::new());
    }
}
