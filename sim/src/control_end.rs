//! One end of a control channel with a keeper of keystones behind it and no engine: connect, step by step.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use sealtide_crypto::Now;
use sealtide_node::engine::keystones::{Connection, Keystones};
use sealtide_sync::{AbortCode, Control, ControlInput, ControlOutput};

/// One end.
pub struct ControlEnd {
    machine: Control,
    keystones: Arc<dyn Keystones>,
    connection: Connection,
    out: VecDeque<Bytes>,
    ready: bool,
    failed: Option<AbortCode>,
}

impl ControlEnd {
    /// An end that has not started.
    ///
    /// # Panics
    /// When the keeper has no identity.
    pub fn new(keystones: Arc<dyn Keystones>, connection: Connection, challenge: [u8; 32]) -> Self {
        let own = keystones.identity(&connection.peer).expect("the keeper has an identity");
        let machine = Control::with_identity(16, own, challenge);
        Self { machine, keystones, connection, out: VecDeque::new(), ready: false, failed: None }
    }

    /// Takes a fact and does everything that follows.
    pub async fn take(&mut self, now: Now, input: ControlInput) {
        self.machine.handle(now, input);
        while let Some(wish) = self.machine.poll() {
            let on = self.connection.clone();
            let input = match wish {
                ControlOutput::Send(message) => {
                    self.out.push_back(message);
                    continue;
                }
                ControlOutput::ProofWanted(said) => ControlInput::Proved(self.keystones.prove(on, said).await),
                ControlOutput::CheckProof { frames, introduction } => {
                    ControlInput::ProofChecked(self.keystones.check_proof(on, frames, introduction).await)
                }
                ControlOutput::PeerOwner(first) => {
                    let after = self.keystones.held(first.clone()).await;
                    ControlInput::AskKeystone { first, after }
                }
                ControlOutput::KeystoneWanted { first, after } => {
                    let frames = self.keystones.frames(on, first.clone(), after, BTreeSet::new()).await;
                    ControlInput::Keystone { first, frames }
                }
                ControlOutput::PeerKeystone { first, frames, last } => {
                    ControlInput::Kept(self.keystones.keep(on, first, frames, last).await)
                }
                ControlOutput::Ready(_) => {
                    self.ready = true;
                    continue;
                }
                ControlOutput::Failed(code, _) => {
                    self.failed = Some(code);
                    continue;
                }
                _ => continue,
            };
            self.machine.handle(now, input);
        }
    }

    /// The next message to be sent.
    pub fn next_message(&mut self) -> Option<Bytes> {
        self.out.pop_front()
    }

    /// Whether both ends have accepted each other, as far as this one knows.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Why it was given up.
    pub fn failed(&self) -> Option<AbortCode> {
        self.failed
    }
}
