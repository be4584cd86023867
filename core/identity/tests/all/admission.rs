//! Grants and invites. Spec: ibgib §12.5, link C.3.

use sealtide_identity::{Action, Grant, Invite, InviteRefused, InviteSecret, NodeId, Role, SpaceId, allows};

const SPACE: SpaceId = SpaceId::from_bytes([1; 32]);
const NODE: NodeId = NodeId::from_bytes([2; 32]);

fn grant(role: Role) -> Grant {
    Grant { space: SPACE, node: NODE, role, since_ms: 0, invite: None }
}

// Proves: SY-101
#[test]
fn grants_role_by_action() {
    use Action::{ChangeSpace, Invite, MoveTips, Pull};
    let table = [
        (None, [false, false, false, false]),
        (Some(Role::Read), [true, false, false, false]),
        (Some(Role::Write), [true, true, false, false]),
        (Some(Role::Admin), [true, true, true, true]),
    ];
    for (role, expected) in table {
        let grants: Vec<_> = role.map(grant).into_iter().collect();
        for (action, expected) in [Pull, MoveTips, ChangeSpace, Invite].into_iter().zip(expected) {
            assert_eq!(allows(&grants, &NODE, &SPACE, action), expected, "{role:?} {action:?}");
        }
    }
}

// Proves: SY-101
#[test]
fn grants_are_for_one_node_and_one_space() {
    let grants = [grant(Role::Admin)];
    assert!(!allows(&grants, &NodeId::from_bytes([3; 32]), &SPACE, Action::Pull));
    assert!(!allows(&grants, &NODE, &SpaceId::from_bytes([3; 32]), Action::Pull));
    let two = [grant(Role::Admin), grant(Role::Read)];
    assert!(!allows(&two, &NODE, &SPACE, Action::MoveTips), "of two roles the lesser");
}

fn invite(uses_left: u32) -> Invite {
    Invite {
        id: [1; 16],
        secret: InviteSecret::from_bytes([2; 32]),
        space: SPACE,
        role: Role::Write,
        expires_ms: 1_000,
        uses_left,
        enrolled: Vec::new(),
        refused: Vec::new(),
    }
}

// Proves: LK-4
#[test]
fn invite_lifecycle() {
    let [first, second, third] = [5, 6, 7].map(|byte| NodeId::from_bytes([byte; 32]));
    let mut two = invite(2);
    assert_eq!(two.enrol(first, 0), Ok(()));
    assert_eq!(two.enrol(first, 0), Ok(()), "the same node again");
    assert_eq!(two.uses_left, 1, "without a second use");
    assert_eq!(two.enrol(second, 999), Ok(()));
    assert_eq!(two.enrol(third, 999), Err(InviteRefused::UsedUp));
    assert_eq!(two.enrol(first, 5_000), Ok(()), "used up and expired, but enrolled before");
    assert_eq!(two.enrolled, [first, second]);

    let mut late = invite(1);
    assert_eq!(late.enrol(first, 1_000), Err(InviteRefused::Expired));
    assert_eq!((late.uses_left, late.enrolled.len()), (1, 0), "a refusal takes no use");
}

// Proves: LK-4
#[test]
fn a_node_that_could_be_made_no_member_gives_its_use_back() {
    let mut one = invite(1);
    let first = NodeId::from_bytes([5; 32]);
    one.refuse(&first);
    assert_eq!(one, invite(1), "never enrolled");
    for round in 0..3 {
        assert_eq!(one.enrol(first, 0), Ok(()));
        one.refuse(&first);
        assert_eq!((one.uses_left, one.enrolled.len(), one.refused.len()), (1, 0, 1), "round {round}");
    }
    // One ticket does not bring any number of strangers that far.
    let others = (0..=u8::MAX).map(|byte| NodeId::from_bytes([byte; 32])).filter(|node| *node != first);
    let came = others.take_while(|node| {
        let came = one.enrol(*node, 0).is_ok();
        one.refuse(node);
        came
    });
    assert_eq!(came.count(), Invite::REFUSED_MAX);
    assert_eq!((one.uses_left, one.enrolled.len(), one.refused.len()), (0, 1, Invite::REFUSED_MAX));
    assert!(one.was_proved_by(&first) && one.was_proved_by(&one.enrolled[0]));
}
