//! A change of keys that another node asks for: a record `rotation-signal`, signed by a supervisor. Spec: gateway §7.10.
//!
//! It carries the node key beside the node id: an id is the hash of its key, and nothing else here keeps keys of peers.

use data_encoding::{BASE64, HEXLOWER};
use sealtide_crypto::{Label, PublicKey, SigningKey};
use sealtide_ibgib::Object;
use sealtide_ibgib::json::{Js, write_rfc8785};
use serde_json::{Value, json};

use super::Ledger;
use crate::NodeId;

/// The schema of a signal.
const SCHEMA: &str = "sealtide/rotation-signal/1";

/// What a supervisor asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalAction {
    /// The next version signs.
    Rotate,
    /// The version before signs again.
    Rollback,
}

impl SignalAction {
    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rotate => "rotate",
            Self::Rollback => "rollback",
        }
    }

    /// The action of a word.
    pub fn named(word: &str) -> Option<Self> {
        [Self::Rotate, Self::Rollback].into_iter().find(|action| action.name() == word)
    }
}

/// A signal whose signature was checked. [`RotationSignal::read`] is the only way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationSignal {
    /// What is asked for.
    pub action: SignalAction,
    /// Who asks.
    pub node: NodeId,
    /// What makes two signals of one epoch differ.
    pub nonce: [u8; 16],
}

/// Why a signal is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignalIgnored {
    /// A member is missing, unknown or of another form.
    #[error("it is no rotation signal")]
    Form,
    /// It speaks of another ledger.
    #[error("it is for another key ledger")]
    OtherLedger,
    /// The ledger went on since, or is not as far.
    #[error("it is for epoch {told}, and the ledger is at {epoch}")]
    Epoch {
        /// In the signal.
        told: u64,
        /// Of the ledger.
        epoch: u64,
    },
    /// Its node is no supervisor.
    #[error("its node is no supervisor")]
    NotListed,
    /// The signature does not verify, or the key is another node's.
    #[error("its signature does not verify")]
    Signature,
}

impl RotationSignal {
    /// Makes and signs a signal for a ledger as it stands at `epoch`.
    pub fn make(action: SignalAction, ledger: &str, epoch: u64, nonce: [u8; 16], node: &SigningKey) -> Value {
        let mut value = json!({
            "schema": SCHEMA,
            "action": action.name(),
            "ledger": ledger,
            "epoch": epoch,
            "nonce": HEXLOWER.encode(&nonce),
            "node": NodeId::of(node.public()).to_string(),
            "key": BASE64.encode(node.public().as_bytes()),
        });
        let content = write_rfc8785(&Js::from(&value)).expect("short texts and a small integer");
        let signature = node.sign(Label::KeysRotate, content.as_bytes());
        value["sig"] = json!(BASE64.encode(signature.as_bytes()));
        value
    }

    /// Reads a signal for `ledger` from one of `supervisors`.
    ///
    /// # Errors
    /// [`SignalIgnored`]; nothing is done then.
    // Spec: GW-58
    pub fn read(value: &Value, ledger: &Ledger, supervisors: &[NodeId]) -> Result<Self, SignalIgnored> {
        let mut object: Object = value.as_object().ok_or(SignalIgnored::Form)?.clone();
        let signature = object.shift_remove("sig").ok_or(SignalIgnored::Form)?;
        let text = |name: &str| object.get(name).and_then(Value::as_str).ok_or(SignalIgnored::Form);
        if object.len() != 7 || text("schema")? != SCHEMA {
            return Err(SignalIgnored::Form);
        }
        let action = SignalAction::named(text("action")?).ok_or(SignalIgnored::Form)?;
        let node: NodeId = text("node")?.parse().map_err(|_| SignalIgnored::Form)?;
        let nonce = HEXLOWER.decode(text("nonce")?.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        let nonce: [u8; 16] = nonce.ok_or(SignalIgnored::Form)?;
        let told = object.get("epoch").and_then(Value::as_u64).ok_or(SignalIgnored::Form)?;
        if text("ledger")? != ledger.address() {
            return Err(SignalIgnored::OtherLedger);
        }
        let epoch = ledger.tip().epoch;
        if told != epoch {
            return Err(SignalIgnored::Epoch { told, epoch });
        }
        if !supervisors.contains(&node) {
            return Err(SignalIgnored::NotListed);
        }
        let key = BASE64.decode(text("key")?.as_bytes()).ok().and_then(|bytes| PublicKey::parse(&bytes).ok());
        let key = key.ok_or(SignalIgnored::Form)?;
        let content = write_rfc8785(&Js::from(&Value::Object(object))).ok_or(SignalIgnored::Form)?;
        let signature = signature.as_str().and_then(|text| BASE64.decode(text.as_bytes()).ok());
        let signature = signature.ok_or(SignalIgnored::Signature)?;
        if NodeId::of(&key) != node || key.verify(Label::KeysRotate, content.as_bytes(), &signature).is_err() {
            return Err(SignalIgnored::Signature);
        }
        Ok(Self { action, node, nonce })
    }
}
