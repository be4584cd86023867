//! Signals of supervisors: which are followed, which are not.

use sealtide_crypto::{Seed, SigningKey};
use sealtide_identity::NodeId;
use sealtide_identity::keyring::{RotationSignal, SignalAction, SignalIgnored};
use serde_json::json;

use super::support::{LEDGER, Rig, at};

// Proves: GW-58
#[test]
fn rotate_signal() {
    let mut rig = Rig::new(&[1, 2]);
    let supervisor = SigningKey::from_seed(&Seed::from_bytes([7; 32]));
    let stranger = SigningKey::from_seed(&Seed::from_bytes([8; 32]));
    let listed = [NodeId::of(supervisor.public())];
    let make = |epoch, key: &SigningKey| RotationSignal::make(SignalAction::Rotate, LEDGER, epoch, [5; 16], key);
    let good = make(1, &supervisor);
    let read = RotationSignal::read(&good, rig.ring.ledger(), &listed).unwrap();
    assert_eq!((read.action, read.node, read.nonce), (SignalAction::Rotate, listed[0], [5; 16]));

    let ledger = rig.ring.ledger();
    let ignored = |value: &serde_json::Value| RotationSignal::read(value, ledger, &listed).unwrap_err();
    assert_eq!(ignored(&make(2, &supervisor)), SignalIgnored::Epoch { told: 2, epoch: 1 });
    assert_eq!(ignored(&make(1, &stranger)), SignalIgnored::NotListed);
    let elsewhere = RotationSignal::make(SignalAction::Rotate, "keyring^1111", 1, [5; 16], &supervisor);
    assert_eq!(ignored(&elsewhere), SignalIgnored::OtherLedger);
    for (member, value) in
        [("action", json!("rollback")), ("nonce", json!("00".repeat(16))), ("sig", make(1, &stranger)["sig"].clone())]
    {
        let mut changed = good.clone();
        changed[member] = value;
        assert_eq!(ignored(&changed), SignalIgnored::Signature, "{member}");
    }
    // The key of somebody else, under the name of a supervisor.
    let mut borrowed = make(1, &stranger);
    borrowed["node"] = good["node"].clone();
    assert_eq!(ignored(&borrowed), SignalIgnored::Signature);
    let mut odd = good.clone();
    odd["more"] = json!(1);
    for bad in [json!(null), json!({}), odd] {
        assert_eq!(ignored(&bad), SignalIgnored::Form);
    }
    rig.rotate(2, at(1)).unwrap();
    let late = RotationSignal::read(&good, rig.ring.ledger(), &listed).unwrap_err();
    assert_eq!(late, SignalIgnored::Epoch { told: 1, epoch: 2 }, "a signal is honoured once");
}
