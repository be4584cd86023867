//! Session keystones: targets, demands, authorisation. Spec: ibgib §12.4.

use sealtide_crypto::{SeededEntropy, SigningKey, sha256, sha512};
use sealtide_ibgib::{Address, Verified};
use sealtide_identity::NodeId;
use sealtide_identity::keystone::{
    Added, Chain, Claim, ConnectFacts, Rule, SessionRefused, SessionScope, SessionSecret, Side, Signer, State, Verb,
    check_session, context_target, session_genesis, sign,
};
use serde_json::json;

use crate::support::{Holder, TARGET, at, broken_next, post, resigned, scale};

/// A session keystone with its secret.
struct Session {
    secret: SessionSecret,
    key: SigningKey,
    entropy: SeededEntropy,
    chain: Chain,
}

impl Session {
    fn of(device: &Holder, id: u8) -> Self {
        let secret = device.working.session(&[id; 32]);
        let key = SigningKey::from_seed(&secret.key_seed());
        let mut entropy = SeededEntropy::new(id.into());
        let chain = Chain::begun(session_genesis(&secret, at(0), &mut entropy));
        Self { secret, key, entropy, chain }
    }

    fn sign(&mut self, claim: &Claim) -> Verified {
        let signer = Signer::Session(&self.secret);
        let made = sign(&self.chain, signer, &self.key, claim, at(0), &mut self.entropy).unwrap();
        let record = made.frame().record().clone();
        assert_eq!(self.chain.extend(made), Added::Checked);
        record
    }
}

fn facts<'a>(addresses: &'a [Address; 3], nodes: &'a [NodeId; 2], bytes: &'a [[u8; 32]; 3]) -> ConnectFacts<'a> {
    ConnectFacts {
        side: Side::Initiator,
        binding: &bytes[0],
        prover: &nodes[0],
        verifier: &nodes[1],
        prover_session: &addresses[0],
        prover_device: &addresses[1],
        verifier_device: &addresses[2],
        received: &bytes[1],
        sent: &bytes[2],
    }
}

// Proves: SY-88 (target), SY-89 (each input)
#[test]
fn the_connect_target_binds_every_input() {
    let addresses = [1, 2, 3].map(|n| Address::parse(&format!("keystone^{n:064X}")).unwrap());
    let nodes = [NodeId::from_bytes([4; 32]), NodeId::from_bytes([5; 32])];
    let bytes = [[6; 32], [7; 32], [8; 32]];
    let right = facts(&addresses, &nodes, &bytes);
    let target = right.target().unwrap();
    let mut by_hand = b"sealtide/connect/1\0\x01".to_vec();
    by_hand.extend([[6; 32], [4; 32], [5; 32]].concat());
    for address in &addresses {
        by_hand.extend((address.as_str().len() as u64).to_be_bytes());
        by_hand.extend(address.as_str().bytes());
    }
    by_hand.extend([[7; 32], [8; 32]].concat());
    assert_eq!(target, data_encoding::HEXLOWER.encode(&sha256(&by_hand)));

    let (other, node, bits) = (Address::parse("keystone^gib").unwrap(), NodeId::from_bytes([9; 32]), [9; 32]);
    for wrong in [
        ConnectFacts { side: Side::Responder, ..right },
        ConnectFacts { binding: &bits, ..right },
        ConnectFacts { prover: &node, ..right },
        ConnectFacts { verifier: &node, ..right },
        ConnectFacts { prover_session: &other, ..right },
        ConnectFacts { prover_device: &other, ..right },
        ConnectFacts { verifier_device: &other, ..right },
        ConnectFacts { received: &bits, ..right },
        ConnectFacts { sent: &bits, ..right },
    ] {
        assert_ne!(wrong.target().unwrap(), target);
    }
    assert_eq!(ConnectFacts { binding: &[0; 32], ..right }.target(), None, "no binding, no proof");
}

#[test]
fn context_targets() {
    let body = b"body";
    let mut by_hand = b"sealtide/context/1\0\x07".to_vec();
    by_hand.extend([1; 32]);
    by_hand.extend(body);
    assert_eq!(context_target(7, &[1; 32], body), data_encoding::HEXLOWER.encode(&sha256(&by_hand)));
}

/// The demanded ids follow from the target; a frame with others is refused.
// Proves: SY-88
#[test]
fn demands_follow_from_the_target() {
    let device = Holder::device(100);
    let mut session = Session::of(&device, 1);
    for n in 0..20 {
        let before = session.chain.newest().unwrap().clone();
        let target = format!("{n:064x}");
        let record = session.sign(&Claim::new(Verb::Sync, &target));
        // By hand: 16-bit words of SHA-512(D || 0), modulo 8, the first two that differ.
        let digest = sha512(&[b"sealtide/demand/1\0".as_slice(), target.as_bytes()].concat());
        let words = sha512(&[digest.as_slice(), &[0; 4]].concat());
        let mut places: Vec<usize> = Vec::new();
        for word in words.chunks(2) {
            let place = usize::from(word[1]) % 8;
            if places.len() < 2 && !places.contains(&place) {
                places.push(place);
            }
        }
        let pool = &before.frame().pools[0];
        let wanted: Vec<_> = places.iter().map(|place| pool.challenges[*place].id).collect();
        let frame = session.chain.standing(record.address()).unwrap().frame();
        assert_eq!(frame.proofs[0].demanded, wanted);
        // The others stay in their order, two new ones come last.
        let left: Vec<_> = pool.ids().filter(|id| !wanted.contains(id)).collect();
        let now: Vec<_> = frame.pools[0].ids().collect();
        assert_eq!((now.len(), &now[..6]), (8, &left[..]));

        let previous = before.frame().record();
        let swapped = resigned(&record, &session.key, Some(previous), |data| {
            for list in ["requiredChallengeIds", "solutions"] {
                data["proofs"][0][list].as_array_mut().unwrap().swap(0, 1);
            }
        });
        assert_eq!(broken_next(&before, &swapped), [Rule::E9]);
        let moved = resigned(&record, &session.key, Some(previous), |data| {
            data["challengePools"][0]["challenges"].as_object_mut().unwrap().values_mut().next().unwrap()["hash"] =
                json!("0".repeat(64));
        });
        assert_eq!(broken_next(&before, &moved), [Rule::E10]);
    }
}

// Proves: SY-22
#[test]
fn ids_never_return_under_a_frozen_clock() {
    // 10 000 and more at scale 4.
    let signs = 2_500 * scale();
    let device = Holder::device(101);
    let mut session = Session::of(&device, 2);
    let mut ids: std::collections::BTreeSet<_> = session.chain.newest().unwrap().frame().challenge_ids().collect();
    for n in 0..signs {
        session.sign(&Claim::new(Verb::Sync, &format!("{n:064x}")));
        let newest = session.chain.newest().unwrap().frame();
        ids.extend(newest.challenge_ids());
    }
    println!("{signs} signs at one time, {} different ids", ids.len());
    assert_eq!(ids.len() as u32, 8 + 2 * signs);
    assert_eq!(u64::from(signs), session.chain.newest().unwrap().frame().facts().n);
}

// Proves: SY-28, SY-27
#[test]
fn who_may_use_a_session() {
    let (mut device, peer, third) = (Holder::device(102), Holder::device(103), Holder::device(104));
    let (peer_first, third_first) = (peer.chain.first_address().clone(), third.chain.first_address().clone());
    let mut session = Session::of(&device, 3);
    let name = session.chain.first_address().clone();
    let node = NodeId::of(device.key.public());
    let check = |device: &Holder, session: &Session, own: &Address, seconds| {
        check_session(&session.chain, &device.chain, &node, own, at(seconds))
    };
    assert_eq!(check(&device, &session, &peer_first, 1), Err(SessionRefused::NotAuthorised));
    let scope = SessionScope {
        peer: peer_first.clone(),
        session: [3; 32],
        until: sealtide_ibgib::Stamp { ms: at(100).ms / 1000 * 1000 },
    };
    device.sign(&scope.claim(&name), 1);
    session.sign(&Claim::new(Verb::Connect, &"0".repeat(64)));
    assert_eq!(check(&device, &session, &peer_first, 2), Ok(scope.clone()));
    // another peer, another time, another session, another node
    assert_eq!(check(&device, &session, &third_first, 2), Err(SessionRefused::NotAuthorised));
    assert_eq!(check(&device, &session, &peer_first, 100), Err(SessionRefused::Expired));
    assert_eq!(check(&device, &Session::of(&device, 4), &peer_first, 2), Err(SessionRefused::NotAuthorised));
    let stranger = NodeId::of(third.key.public());
    let found = check_session(&session.chain, &device.chain, &stranger, &peer_first, at(2));
    assert_eq!(found, Err(SessionRefused::Device));
    let found = check_session(&device.chain, &device.chain, &node, &peer_first, at(2));
    assert_eq!(found, Err(SessionRefused::Session));
    let empty = Chain::new(name.clone());
    assert_eq!(check_session(&empty, &device.chain, &node, &peer_first, at(2)), Err(SessionRefused::Session));
    let empty = Chain::new(device.chain.first_address().clone());
    assert_eq!(check_session(&session.chain, &empty, &node, &peer_first, at(2)), Err(SessionRefused::Device));
    // a claim with another verb authorises nothing
    let mut poster = Holder::device(107);
    poster.sign(&Claim::new(Verb::Post, name.as_str()).scoped(scope.scope()), 1);
    let found = check_session(&session.chain, &poster.chain, &NodeId::of(poster.key.public()), &peer_first, at(2));
    assert_eq!(found, Err(SessionRefused::NotAuthorised));
    // forks of either
    let whole = device.chain.clone();
    let other = device.make(&post(), 5).unwrap().frame().record().clone();
    device.post(6);
    assert_eq!(device.chain.add(&other), Added::Checked);
    assert_eq!(device.chain.state(), State::Forked);
    assert_eq!(check(&device, &session, &peer_first, 2), Err(SessionRefused::Forked));
    device.chain = whole;
    let mut twin = Session::of(&device, 3);
    twin.chain = Chain::begun(session.chain.genesis().unwrap().clone());
    let second = twin.sign(&Claim::new(Verb::Connect, &"1".repeat(64)));
    assert_eq!(session.chain.add(&second), Added::Checked);
    assert_eq!(check(&device, &session, &peer_first, 2), Err(SessionRefused::Forked));
}

#[test]
fn session_scopes() {
    let text = format!("peer=keystone^{:064X};session={};until=2027-01-01T00:00:00Z", 5, "ab".repeat(32));
    assert_eq!(SessionScope::parse(&text).unwrap().scope(), text);
    for bad in [
        text.replace("peer=", "peer ="),
        text.replace("session=", "Session="),
        text.replace("ab", "AB"),
        text.replace("keystone", ""),
        text.replace("2027", "27"),
        format!("{text};x=1"),
        String::new(),
    ] {
        assert_eq!(SessionScope::parse(&bad), None, "{bad}");
    }
}

/// A device keystone claims addresses only; a session keystone also digests.
// Proves: SY-20 (E13)
#[test]
fn targets_of_the_classes() {
    let mut device = Holder::device(105);
    assert!(device.make(&Claim::new(Verb::Sync, &"0".repeat(64)), 1).is_err());
    assert!(device.make(&post(), 1).is_ok());
    let mut session = Session::of(&device, 5);
    session.sign(&Claim::new(Verb::Sync, &"0".repeat(64)));
    session.sign(&Claim::new(Verb::Sync, TARGET));
    let refused = sign(
        &session.chain,
        Signer::Session(&session.secret),
        &session.key,
        &Claim::new(Verb::Sync, &"A".repeat(64)),
        at(1),
        &mut session.entropy,
    );
    assert!(refused.is_err());
}
