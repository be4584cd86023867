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
    space: SpaceId,
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
        Signing { ledger: ledger.lock_owned().await, keys: self, space }
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
    /// What the saga that begins must know. `last`: BYE follows.
    pub(crate) fn contexts(&self, last: bool) -> Contexts {
        let members: Option<Address> = self.keys.keystones.members(&self.space);
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
