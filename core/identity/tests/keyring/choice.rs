//! Which version signs.

use sealtide_crypto::GatewayContext;
use sealtide_identity::keyring::{Algorithm, Fallback, KeyPolicy, Order, SignError, VersionState};

use super::support::{DAY, Rig, at, v};

// Proves: GW-49
#[test]
fn key_choice_a_caller_raises_and_never_lowers() {
    let mut rig = Rig::new(&[1, 2, 3]);
    assert_eq!((rig.sign(None), rig.sign(Some(1)), rig.sign(Some(2))), (Some(1), Some(1), Some(2)));
    rig.rotate(2, at(1)).unwrap();
    assert_eq!((rig.sign(None), rig.sign(Some(1)), rig.sign(Some(2))), (Some(2), Some(2), Some(2)));
    assert_eq!((rig.sign(Some(3)), rig.sign(Some(4))), (Some(3), None));
    // After a roll-back the newer version verifies, but signs nothing.
    rig.order(Order::Rollback, at(2)).unwrap();
    assert_eq!((rig.sign(None), rig.sign(Some(2))), (Some(1), None));
}

// Proves: GW-49
#[test]
fn ed25519_needs_a_version_above_v1() {
    let mut rig = Rig::new(&[1, 2]);
    let sign = |rig: &Rig, requested| {
        rig.ring.sign(b"[]", GatewayContext::Bump, Algorithm::Ed25519, requested, false, at(0).wall_ms)
    };
    assert!(matches!(sign(&rig, None), Err(SignError::Algorithm { .. })));
    let signed = sign(&rig, Some(v(2))).unwrap();
    let verdict = rig.ring.verify(b"[]", GatewayContext::Bump, Algorithm::Ed25519, v(2), &signed.text, at(0).wall_ms);
    assert!(verdict.valid);
    assert!(!rig.ring.verify(b"[]", GatewayContext::Bump, Algorithm::Ed25519, v(1), &signed.text, at(0).wall_ms).valid);
    rig.rotate(2, at(1)).unwrap();
    assert_eq!(sign(&rig, None).unwrap().version, v(2));
    let post_quantum = rig.ring.sign(b"[]", GatewayContext::Bump, Algorithm::MlDsa87, None, false, at(0).wall_ms);
    assert!(matches!(post_quantum, Err(SignError::Algorithm { .. })));
}

// Proves: GW-50
#[test]
fn fallback_matrix() {
    let audited = KeyPolicy { fallback: Fallback::Audited, ..KeyPolicy::default() };
    for (policy, may, wanted) in
        [(KeyPolicy::default(), true, None), (audited, false, None), (audited, true, Some((v(1), Some(v(2)))))]
    {
        let rig = Rig::with(&[1], policy);
        let choice = rig.ring.choose(Some(v(2)), may, at(0).wall_ms).ok();
        assert_eq!(choice.map(|choice| (choice.used, choice.instead_of)), wanted);
        // Nothing falls back where nothing has to.
        let plain = rig.ring.choose(None, may, at(0).wall_ms).unwrap();
        assert_eq!((plain.used, plain.instead_of), (v(1), None));
    }
    let signed =
        Rig::with(&[1], audited).ring.sign(b"[]", GatewayContext::Bump, Algorithm::HmacSha256, Some(v(2)), true, 0);
    let signed = signed.unwrap();
    assert_eq!((signed.version, signed.instead_of), (v(1), Some(v(2))), "the label is the version that signed");
}

// Proves: GW-50
#[test]
fn nothing_falls_back_after_force_expiry_or_a_lost_secret() {
    let audited = KeyPolicy { fallback: Fallback::Audited, ..KeyPolicy::default() };
    let mut plain = Rig::with(&[1, 2], audited);
    plain.rotate(2, at(1)).unwrap();
    assert_eq!(plain.ring.choose(Some(v(3)), true, at(2).wall_ms).unwrap().used, v(2));
    let mut forced = Rig::with(&[1, 2], audited);
    forced.order(Order::Force { to: v(2) }, at(1)).unwrap();
    assert!(forced.ring.choose(Some(v(3)), true, at(2).wall_ms).is_err());
    // v2 is not loaded any more and v1 has passed its date: there is no start, and no choice either.
    assert_eq!(plain.ring.ledger().state_at(v(1), at(40 * DAY).wall_ms), Some(VersionState::Expired));
    let mut given_up = Rig::with(&[1, 2], audited);
    given_up.rotate(2, at(1)).unwrap();
    given_up.order(Order::Compromise(v(1), Vec::new()), at(2)).unwrap();
    given_up.order(Order::Retire(v(1)), at(3)).unwrap_err();
    assert_eq!(given_up.ring.choose(Some(v(3)), true, at(4).wall_ms).unwrap().used, v(2));
}
