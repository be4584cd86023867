//! Rotating, rolling back, ending: what happens, and what is refused.

use sealtide_crypto::GatewayContext;
use sealtide_identity::keyring::{
    Action, Algorithm, ChangeRefused, ChangeRequest, KeyPolicy, Keyring, LedgerRow, Order, ProbationVerdict,
    VersionState,
};

use super::support::{DAY, LEDGER, Rig, at, load, v};

// Proves: GW-51
#[test]
fn rotate_moves_once() {
    let mut rig = Rig::new(&[1, 2]);
    let change = rig.propose(Order::Rotate { to: None, keep_until: None }, at(5)).unwrap().unwrap();
    assert_eq!((change.from, change.to, change.record.epoch), (v(1), v(2), 2));
    assert_eq!(rig.active(), 1, "a proposal changes nothing");
    rig.take(change, at(5)).unwrap();
    assert_eq!(rig.active(), 2);
    assert_eq!(rig.ring.ledger().state(v(1)), Some(VersionState::VerifyOnly));
    assert!(!rig.rotate(2, at(6)).unwrap(), "so already");
    assert_eq!(rig.records.len(), 2);
    assert_eq!(
        rig.propose(Order::Rotate { to: None, keep_until: None }, at(6)).unwrap_err(),
        ChangeRefused::NothingHigher(v(2))
    );
    assert!(matches!(rig.rotate(1, at(6)), Err(ChangeRefused::State { .. })), "down is a roll-back");
    assert!(matches!(rig.rotate(3, at(6)), Err(ChangeRefused::State { state: None, .. })));
}

// Proves: GW-51
#[test]
fn of_two_rotations_at_once_one_wins() {
    let mut rig = Rig::new(&[1, 2, 3]);
    let first = rig.propose(Order::Rotate { to: Some(v(2)), keep_until: None }, at(1)).unwrap().unwrap();
    let second = rig.propose(Order::Rotate { to: Some(v(3)), keep_until: None }, at(1)).unwrap().unwrap();
    rig.take(first, at(1)).unwrap();
    assert_eq!(rig.take(second, at(1)).unwrap_err(), ChangeRefused::Conflict { active: v(2), epoch: 2 });
    assert_eq!(rig.active(), 2);
    let order = Order::Rotate { to: Some(v(3)), keep_until: None };
    let request =
        |expect| ChangeRequest { order: order.clone(), expect: Some(expect), auto: false, by: "", reason: "" };
    let conflict = rig.ring.propose(&request(v(1)), &rig.node, at(2)).unwrap_err();
    assert!(matches!(conflict, ChangeRefused::Conflict { .. }));
    assert!(rig.ring.propose(&request(v(2)), &rig.node, at(2)).unwrap().is_some());
}

// Proves: GW-52
#[test]
fn rotate_under_load_every_signature_verifies_under_its_label() {
    let mut rig = Rig::new(&[1, 2]);
    let mut made = Vec::new();
    for round in 0..40u64 {
        for _ in 0..5 {
            let algorithm = if rig.active() == 2 { Algorithm::Ed25519 } else { Algorithm::HmacSha256 };
            let signed = rig.ring.sign(b"[1]", GatewayContext::Bump, algorithm, None, true, at(round).wall_ms).unwrap();
            assert_eq!(signed.version.number(), rig.active());
            made.push(signed);
        }
        let order = if rig.active() == 1 { Order::Rotate { to: None, keep_until: None } } else { Order::Rollback };
        let change = rig.propose(order, at(round)).unwrap().unwrap();
        // Between the proposal and the take-over the old version signs on.
        assert!(rig.sign(None).is_some());
        rig.take(change, at(round)).unwrap();
        for signed in &made {
            let now = at(round).wall_ms;
            let verdict =
                rig.ring.verify(b"[1]", GatewayContext::Bump, signed.algorithm, signed.version, &signed.text, now);
            assert!(verdict.valid, "{signed:?} in round {round}");
        }
    }
    println!("{} signatures over 40 changes", made.len());
    rig.reopen(&[1, 2]).unwrap();
}

// Proves: GW-53
#[test]
fn rotate_crash_leaves_the_old_state_or_the_new_one() {
    let mut rig = Rig::new(&[1, 2]);
    let change = rig.propose(Order::Rotate { to: None, keep_until: None }, at(1)).unwrap().unwrap();
    // Before the transaction: the record is lost, the old version goes on.
    rig.reopen(&[1, 2]).unwrap();
    assert_eq!(rig.active(), 1);
    // After the transaction, before the epoch reached the key file: the ledger counts.
    rig.records.push(change.record.clone());
    let row = LedgerRow::of(&change.record, "tip", None);
    let policy = KeyPolicy::default();
    let open = |row: &LedgerRow, seen| {
        Keyring::open(load(&[1, 2]), LEDGER, &rig.records, row, seen, rig.node.public(), policy)
    };
    assert_eq!(open(&row, 1).unwrap().ledger().tip().active(), v(2));
    assert_eq!(open(&row, 2).unwrap().ledger().tip().active(), v(2));
    // A row and a ledger that disagree cannot come from a crash: they are written together.
    assert!(open(&LedgerRow::of(&rig.records[0], "tip", None), 1).is_err());
}

// Proves: GW-54
#[test]
fn rollback_by_hand_and_where_there_is_none() {
    let mut rig = Rig::new(&[1, 2, 3]);
    assert_eq!(rig.order(Order::Rollback, at(1)).unwrap_err(), ChangeRefused::NoWayBack(v(1)));
    rig.rotate(2, at(1)).unwrap();
    rig.order(Order::Rollback, at(2)).unwrap();
    assert_eq!((rig.active(), rig.ring.ledger().state(v(2))), (1, Some(VersionState::VerifyOnly)));
    assert_eq!(rig.records.last().unwrap().action, Action::Rollback);
    assert_eq!(rig.order(Order::Rollback, at(3)).unwrap_err(), ChangeRefused::NoWayBack(v(1)));
    rig.rotate(2, at(4)).unwrap();
    // Past its date there is no way back, with or without a record that says so.
    let late = at(31 * DAY);
    assert!(matches!(rig.order(Order::Rollback, late), Err(ChangeRefused::State { .. })));
    rig.order(Order::Retire(v(1)), late).unwrap();
    assert_eq!(rig.records.last().unwrap().action, Action::Expire);
    assert!(matches!(rig.order(Order::Rollback, late), Err(ChangeRefused::State { .. })));
    rig.order(Order::Force { to: v(3) }, late).unwrap();
    assert_eq!(rig.order(Order::Rollback, late).unwrap_err(), ChangeRefused::NoWayBack(v(3)));
}

// Proves: GW-54
#[test]
fn rollback_is_refused_to_a_version_that_was_given_up() {
    let mut rig = Rig::new(&[1, 2]);
    assert!(matches!(rig.order(Order::Compromise(v(1), Vec::new()), at(1)), Err(ChangeRefused::State { .. })));
    rig.rotate(2, at(1)).unwrap();
    rig.order(Order::Compromise(v(1), Vec::new()), at(2)).unwrap();
    let refused = rig.order(Order::Rollback, at(3)).unwrap_err();
    assert_eq!(refused, ChangeRefused::State { version: v(1), state: Some(VersionState::Compromised) });
    let old = rig.ring.keys(v(1)).unwrap().hmac(b"[]");
    let verdict = rig.ring.verify(b"[]", GatewayContext::Bump, Algorithm::HmacSha256, v(1), &old, at(3).wall_ms);
    assert_eq!((verdict.valid, verdict.state), (false, Some(VersionState::Compromised)));
    rig.order(Order::Destroy(v(1)), at(4)).unwrap();
    rig.ring.forget(v(1));
    rig.reopen(&[2]).unwrap();
    assert!(rig.ring.ledger().keys().iter().all(|key| key.version == v(2)));
}

// Proves: GW-54
#[test]
fn rollback_by_itself_when_a_first_signature_fails() {
    let mut rig = Rig::new(&[1, 2]);
    rig.rotate(2, at(1_000)).unwrap();
    let signed = rig.ring.sign(b"[]", GatewayContext::Bump, Algorithm::HmacSha256, None, false, 0).unwrap();
    assert_eq!(rig.ring.observe(&signed, true, at(1_001)), ProbationVerdict::Good);
    assert_eq!(rig.ring.observe(&signed, false, at(1_002)), ProbationVerdict::RollBack);
    let request = ChangeRequest { order: Order::Rollback, expect: Some(v(2)), auto: true, by: "probation", reason: "" };
    let change = rig.ring.propose(&request, &rig.node, at(1_003)).unwrap().unwrap();
    assert!(change.record.auto);
    // The version that is not trusted any more did not sign: the node and v1 did.
    assert_eq!(change.record.signatures.len(), 3);
    rig.take(change, at(1_003)).unwrap();
    assert_eq!(rig.active(), 1);
    rig.reopen(&[1, 2]).unwrap();
}

// Proves: GW-54
#[test]
fn probation_ends_by_count_and_by_time() {
    let few = KeyPolicy { probation_signatures: 2, ..KeyPolicy::default() };
    for (late, wanted) in [
        (0, [ProbationVerdict::Good, ProbationVerdict::Passed, ProbationVerdict::Nothing]),
        (60_000, [ProbationVerdict::Nothing; 3]),
    ] {
        let mut rig = Rig::with(&[1, 2], few);
        let old = rig.ring.sign(b"[]", GatewayContext::Bump, Algorithm::HmacSha256, None, false, 0).unwrap();
        rig.rotate(2, at(0)).unwrap();
        let signed = rig.ring.sign(b"[]", GatewayContext::Bump, Algorithm::HmacSha256, None, false, 0).unwrap();
        assert_eq!(rig.ring.observe(&old, false, at(late)), ProbationVerdict::Nothing, "v1 is not watched");
        assert_eq!([(); 3].map(|()| rig.ring.observe(&signed, true, at(late))), wanted);
    }
}

// Proves: GW-54
#[test]
fn a_version_that_fails_its_probe_never_signs() {
    // The ledger knows v2 by keys of another secret: what a swapped file would do.
    let mut rig = Rig::new(&[1, 2]);
    let mut swapped = load(&[1, 3]);
    let (keys, source) = swapped.keys.remove(&v(3)).unwrap();
    swapped.keys.insert(v(2), (keys, source));
    let row = LedgerRow::of(&rig.records[0], "tip", None);
    let opened = Keyring::open(swapped, LEDGER, &rig.records, &row, 1, rig.node.public(), KeyPolicy::default());
    assert!(opened.unwrap_err().to_string().contains("v2"));
    assert!(rig.rotate(2, at(1)).unwrap());
}

// Proves: GW-55
#[test]
fn expiry() {
    let mut rig = Rig::new(&[1, 2]);
    let old = rig.ring.keys(v(1)).unwrap().hmac(b"[]");
    rig.rotate(2, at(0)).unwrap();
    let verdict =
        |rig: &Rig, ms| rig.ring.verify(b"[]", GatewayContext::Bump, Algorithm::HmacSha256, v(1), &old, at(ms).wall_ms);
    assert!(verdict(&rig, 30 * DAY - 1).valid);
    let over = verdict(&rig, 30 * DAY);
    assert_eq!((over.valid, over.state), (false, Some(VersionState::Expired)));
    assert_eq!((rig.ring.due(at(30 * DAY - 1).wall_ms), rig.ring.due(at(30 * DAY).wall_ms)), (vec![], vec![v(1)]));
    rig.order(Order::Retire(v(1)), at(30 * DAY)).unwrap();
    assert!(rig.ring.due(at(31 * DAY).wall_ms).is_empty());
    // A bundle that lives longer keeps the version alive.
    let mut kept = Rig::new(&[1, 2]);
    kept.order(Order::Rotate { to: None, keep_until: Some(at(90 * DAY).wall_ms) }, at(0)).unwrap();
    assert!(verdict(&kept, 89 * DAY).valid);
    assert!(!verdict(&kept, 90 * DAY).valid);
}

#[test]
fn the_active_version_is_not_retired_or_destroyed() {
    let mut rig = Rig::new(&[1, 2]);
    for order in [Order::Retire(v(1)), Order::Destroy(v(1)), Order::Destroy(v(2)), Order::Retire(v(2))] {
        assert!(matches!(rig.order(order.clone(), at(1)), Err(ChangeRefused::State { .. })), "{order:?}");
    }
}

// Proves: GW-59
#[test]
fn v3_comes_by_configuration_only() {
    let mut rig = Rig::new(&[1, 2]);
    let old = rig.ring.sign(b"[]", GatewayContext::Bump, Algorithm::HmacSha256, Some(v(2)), false, 0).unwrap();
    rig.reopen(&[1, 2, 3]).unwrap();
    assert_eq!(rig.ring.unknown(), [v(3)]);
    assert_eq!(rig.sign(Some(3)), None, "the ledger does not know it yet");
    rig.order(Order::Add(v(3)), at(1)).unwrap();
    assert!(matches!(rig.order(Order::Add(v(3)), at(1)), Err(ChangeRefused::State { .. })));
    rig.rotate(3, at(2)).unwrap();
    assert_eq!(rig.sign(None), Some(3));
    assert!(rig.ring.verify(b"[]", GatewayContext::Bump, Algorithm::HmacSha256, v(2), &old.text, at(2).wall_ms).valid);
    rig.reopen(&[1, 2, 3]).unwrap();
    assert!(rig.reopen(&[1, 2]).is_err(), "the active version's secret is gone");
}
