//! Sagas between nodes with keystones: which contexts are signed, and what becomes of one that is changed on its way.
//! Spec: ibgib §12.4
use crate::support::{Author, MemSpace, Pair, signature};
use bytes::Bytes;
use sealtide_crypto::{SeededEntropy, sha256};
use sealtide_sync::message::{Open, OpenAck};
use sealtide_sync::{AbortCode, Chain, Direction, Ledger, Message, SagaId, SagaInput, SagaOutcome, Scope, Strategy};

/// Both sides have something new and keystones.
fn pair(author: &mut Author) -> Pair {
    let common = author.timeline(2);
    let left = [common.clone(), author.timeline(2)].concat();
    let right = [common, author.timeline(2)].concat();
    let mut pair = Pair::new(MemSpace::with(&left), MemSpace::with(&right));
    (pair.a.ledger, pair.b.ledger) = (Some(Ledger::new()), Some(Ledger::new()));
    pair
}

/// The opener has one more timeline.
fn news(pair: &mut Pair, author: &mut Author) {
    let records = pair.a.space.records.values().cloned().chain(author.timeline(1)).collect::<Vec<_>>();
    pair.a.space = MemSpace::with(&records);
}

/// How many signatures each side has made since the last time.
fn signed(pair: &mut Pair) -> [usize; 2] {
    [&mut pair.a, &mut pair.b].map(|end| std::mem::take(&mut end.signed).len())
}

fn code(outcome: &Option<SagaOutcome>) -> Option<AbortCode> {
    match outcome {
        Some(SagaOutcome::Aborted { code, .. }) => Some(*code),
        _ => None,
    }
}

fn equal_ledgers(pair: &Pair) {
    let chain = |ledger: &Option<Ledger>| ledger.map(|ledger| (*ledger.chain(), ledger.unsigned()));
    assert_eq!(chain(&pair.a.ledger), chain(&pair.b.ledger));
}

// Proves: SY-33, SY-34
#[test]
fn what_is_signed_from_the_first_saga_to_the_last() {
    let mut author = Author::new(33);
    let mut pair = pair(&mut author);
    pair.sync_ok();
    pair.assert_equal();
    // Opening and closing; with the connect frame that makes n = 3 on both sides.
    assert_eq!(signed(&mut pair), [2, 2]);
    equal_ledgers(&pair);
    let body = |sent: &[Bytes], kind| sha256(&sent.iter().find(|bytes| bytes[0] == kind).unwrap()[1..]);
    let bodies = [[0; 32], body(&pair.a.sent, 0x21), body(&pair.b.sent, 0x22)].concat();
    assert_eq!(pair.a.ledger.map(|ledger| *ledger.chain()), Some(sha256(&bodies)), "bodies as sent, sig included");
    // In between nothing is signed.
    for round in 1..4 {
        news(&mut pair, &mut author);
        pair.sync_ok();
        assert_eq!(signed(&mut pair), [0, 0]);
        assert_eq!(pair.b.ledger.map(|ledger| ledger.unsigned()), Some(round));
        equal_ledgers(&pair);
    }
    // Ten minutes later only a saga that brings something new is signed.
    pair.now.mono_ms += 600_000;
    pair.sync_ok();
    assert_eq!(signed(&mut pair), [0, 0]);
    news(&mut pair, &mut author);
    pair.sync_ok();
    assert_eq!(signed(&mut pair), [1, 1]);
    assert_eq!(pair.b.ledger.map(|ledger| ledger.unsigned()), Some(0));
    // The last one before BYE, where something is left to sign.
    pair.a.last = true;
    pair.sync_ok();
    assert_eq!(signed(&mut pair), [0, 0]);
    pair.a.last = false;
    pair.sync_ok();
    pair.a.last = true;
    pair.sync_ok();
    assert_eq!(signed(&mut pair), [1, 1]);
    equal_ledgers(&pair);
}

// Proves: SY-91
#[test]
fn without_keystones_nothing_is_signed_and_no_signature_is_taken() {
    let mut author = Author::new(91);
    let mut pair = pair(&mut author);
    (pair.a.ledger, pair.b.ledger) = (None, None);
    pair.tamper = Some(Box::new(|opener, message| {
        if !opener || message[0] != 0x10 {
            return Some(message);
        }
        let Ok(Message::Open(open)) = Message::decode(&message) else { panic!() };
        Some(Message::Open(Open { sig: Some(signature("x")), ..open }).encode())
    }));
    pair.sync();
    assert_eq!(code(&pair.b.outcome), Some(AbortCode::Protocol));
    pair.tamper = None;
    pair.sync_ok();
    assert_eq!(signed(&mut pair), [0, 0]);
}

type Change = fn(Message) -> Message;

/// Every field of the five messages changed, one at a time.
fn changes() -> Vec<(&'static str, bool, u8, Change)> {
    fn open(message: Message, change: impl FnOnce(&mut Open)) -> Message {
        let Message::Open(mut open) = message else { panic!() };
        change(&mut open);
        Message::Open(open)
    }
    fn ack(message: Message, change: impl FnOnce(&mut OpenAck)) -> Message {
        let Message::OpenAck(mut ack) = message else { panic!() };
        change(&mut ack);
        Message::OpenAck(ack)
    }
    fn staged(message: Message, change: impl FnOnce(&mut sealtide_sync::message::Staged)) -> Message {
        let Message::Staged(mut staged) = message else { panic!() };
        change(&mut staged);
        Message::Staged(staged)
    }
    fn commit(message: Message, change: impl FnOnce(&mut sealtide_sync::message::Commit)) -> Message {
        match message {
            Message::Commit(mut commit, sig) => {
                change(&mut commit);
                Message::Commit(commit, sig)
            }
            Message::CommitAck(mut commit, sig) => {
                change(&mut commit);
                Message::CommitAck(commit, sig)
            }
            _ => panic!(),
        }
    }
    let mut rows: Vec<(&'static str, bool, u8, Change)> = vec![
        ("saga", true, 0x10, |m| open(m, |o| o.saga.0[0] ^= 1)),
        ("scope", true, 0x10, |m| {
            open(m, |o| o.scope = Scope::Roots { roots: Vec::new(), live: true, skipped: Vec::new() })
        }),
        ("direction", true, 0x10, |m| open(m, |o| o.direction = Direction::Push)),
        ("strategy", true, 0x10, |m| open(m, |o| o.strategy = Strategy::Abort)),
        ("facts", true, 0x10, |m| open(m, |o| o.facts.item_digest[0] ^= 1)),
        ("flags", true, 0x10, |m| open(m, |o| o.flags = 1)),
        ("resume", true, 0x10, |m| {
            open(m, |o| o.resume = Some(sealtide_sync::message::Resume { count: 1, root: [0; 32] }))
        }),
        ("members", true, 0x10, |m| open(m, |o| o.members = Some(signature("m").address().clone()))),
        ("ack saga", false, 0x11, |m| ack(m, |o| o.saga.0[0] ^= 1)),
        ("ack facts", false, 0x11, |m| ack(m, |o| o.facts.item_digest[0] ^= 1)),
        ("ack flags", false, 0x11, |m| ack(m, |o| o.flags = 1)),
        ("ack members", false, 0x11, |m| ack(m, |o| o.members = Some(signature("m").address().clone()))),
        ("direction in COMMIT", true, 0x21, |m| commit(m, |c| c.direction = Direction::Push)),
        ("OPEN in COMMIT", true, 0x21, |m| commit(m, |c| c.open[0] ^= 1)),
        ("OPEN_ACK in COMMIT", true, 0x21, |m| commit(m, |c| c.open_ack[0] ^= 1)),
        ("A's STAGED in COMMIT", true, 0x21, |m| commit(m, |c| c.staged_opener[0] ^= 1)),
        ("B's STAGED in COMMIT", true, 0x21, |m| commit(m, |c| c.staged_answerer[0] ^= 1)),
        ("saga in COMMIT", true, 0x21, |m| commit(m, |c| c.saga.0[0] ^= 1)),
        ("COMMIT_ACK", false, 0x22, |m| commit(m, |c| c.open[0] ^= 1)),
    ];
    for opener in [true, false] {
        rows.push(("count", opener, 0x20, |m| staged(m, |s| s.count += 1)));
        rows.push(("root", opener, 0x20, |m| staged(m, |s| s.root[0] ^= 1)));
        rows.push(("move hash", opener, 0x20, |m| staged(m, |s| s.move_hash[0] ^= 1)));
        rows.push(("after", opener, 0x20, |m| staged(m, |s| s.after = None)));
    }
    rows
}

/// In the first saga, whose contexts are signed, and in a later one that rests on the six hashes.
// Proves: SY-34
#[test]
fn a_context_that_is_changed_on_its_way_ends_the_saga() {
    for (name, from_opener, kind, change) in changes() {
        for first in [true, false] {
            let mut author = Author::new(34);
            let mut pair = pair(&mut author);
            if !first {
                pair.sync_ok();
                news(&mut pair, &mut author);
            }
            pair.tamper = Some(Box::new(move |opener, message| {
                if (opener, message[0]) != (from_opener, kind) {
                    return Some(message);
                }
                Some(change(Message::decode(&message).unwrap()).encode())
            }));
            let before = pair.b.space.sids();
            let outcomes = pair.sync();
            let both = outcomes.iter().all(|outcome| matches!(outcome, Some(SagaOutcome::Committed { .. })));
            assert!(!both, "{name}, first {first}: {outcomes:?}");
            if kind != 0x22 {
                assert_eq!(pair.b.space.sids(), before, "{name}, first {first}: something became visible");
            }
            let receiver = if from_opener { &pair.b } else { &pair.a };
            if first && kind != 0x20 {
                assert_eq!(code(&receiver.outcome), Some(AbortCode::Auth), "{name}: {:?}", receiver.outcome);
            }
            // The two may not go on with different ledgers: who cannot know says so.
            if pair.a.chain != Some(Chain::Unknown) {
                equal_ledgers(&pair);
            }
        }
    }
}

/// A signature that is missing, one of another message, and one that is not due.
// Proves: SY-33, SY-34
#[test]
fn due_signatures_are_demanded_and_others_refused() {
    fn with(message: &Bytes, sig: Option<&str>) -> Bytes {
        let sig = sig.map(signature);
        match Message::decode(message).unwrap() {
            Message::Open(open) => Message::Open(Open { sig, ..open }),
            Message::OpenAck(ack) => Message::OpenAck(OpenAck { sig, ..ack }),
            Message::Commit(commit, _) => Message::Commit(commit, sig),
            Message::CommitAck(commit, _) => Message::CommitAck(commit, sig),
            _ => panic!(),
        }
        .encode()
    }
    for (kind, from_opener) in [(0x10, true), (0x11, false), (0x21, true), (0x22, false)] {
        for (sig, first) in [(None, true), (Some("another target"), true), (Some("not due"), false)] {
            if kind == 0x21 && !first {
                // The opener may sign more often than it must, but not wrongly: that is the row before.
                continue;
            }
            let mut author = Author::new(35);
            let mut pair = pair(&mut author);
            if !first {
                pair.sync_ok();
                news(&mut pair, &mut author);
            }
            pair.tamper = Some(Box::new(move |opener, message| {
                Some(if (opener, message[0]) == (from_opener, kind) { with(&message, sig) } else { message })
            }));
            pair.sync();
            let receiver = if from_opener { &pair.b } else { &pair.a };
            assert_eq!(code(&receiver.outcome), Some(AbortCode::Auth), "{kind:#x} {sig:?} {first}");
        }
    }
    // By the clock the answerer demands one from twice the limit on.
    for (ms, demanded) in [(1_199_000, false), (1_200_000, true)] {
        let mut author = Author::new(36);
        let mut pair = pair(&mut author);
        pair.sync_ok();
        news(&mut pair, &mut author);
        pair.now.mono_ms += ms;
        pair.open(Scope::All, Direction::Both, Strategy::Optimistic);
        // An opener whose clock stands still: both ends have one clock here, so its signature is lost on the way.
        pair.tamper =
            Some(Box::new(|_, message| Some(if message[0] == 0x21 { with(&message, None) } else { message })));
        pair.settle();
        assert_eq!(code(&pair.b.outcome) == Some(AbortCode::Auth), demanded, "{ms}: {:?}", pair.b.outcome);
    }
}

/// A relay in the middle changes OPEN for the answerer and both commits, so that each side sees what it expects.
// Proves: SY-34
#[test]
fn a_context_altered_alike_everywhere_is_found_by_the_next_signature() {
    let mut author = Author::new(37);
    let mut pair = pair(&mut author);
    pair.sync_ok();
    let hashes = std::rc::Rc::new(std::cell::Cell::new([[0; 32]; 2]));
    pair.tamper = Some(Box::new(move |_, message| {
        let changed = match Message::decode(&message).unwrap() {
            Message::Open(open) => {
                let changed = Message::Open(Open { flags: 1, ..open }).encode();
                hashes.set([sha256(&message[1..]), sha256(&changed[1..])]);
                return Some(changed);
            }
            Message::Commit(mut commit, sig) => {
                commit.open = hashes.get()[1];
                Message::Commit(commit, sig)
            }
            Message::CommitAck(mut commit, sig) => {
                commit.open = hashes.get()[0];
                Message::CommitAck(commit, sig)
            }
            _ => return Some(message),
        };
        Some(changed.encode())
    }));
    pair.sync_ok();
    assert_ne!(pair.a.ledger.map(|ledger| *ledger.chain()), pair.b.ledger.map(|ledger| *ledger.chain()));
    pair.tamper = None;
    news(&mut pair, &mut author);
    pair.now.mono_ms += 600_000;
    pair.sync();
    assert_eq!(code(&pair.b.outcome), Some(AbortCode::Auth), "{:?}", pair.b.outcome);
}

/// Each cut ends the connection, so both begin with a new ledger.
// Proves: SY-34
#[test]
fn fifty_cuts_leave_the_same_content_and_the_same_chain() {
    let mut completed = 0;
    for seed in 0..10 * crate::support::scale() as u64 {
        let mut author = Author::new(100 + seed);
        let mut pair = pair(&mut author);
        pair.chance = SeededEntropy::new(seed);
        for cut in 0..50u8 {
            (pair.a.ledger, pair.b.ledger) = (Some(Ledger::new()), Some(Ledger::new()));
            (pair.a.chain, pair.b.chain) = (None, None);
            for saga in 0..2u8 {
                pair.saga = SagaId([cut.wrapping_mul(2) + saga; 32]);
                pair.cut_after = (saga == 1).then(|| author.number(24));
                news(&mut pair, &mut author);
                pair.open(Scope::All, Direction::Both, Strategy::Optimistic);
                pair.settle();
                if pair.a.outcome == pair.b.outcome {
                    equal_ledgers(&pair);
                }
                // A ledger is given up exactly where COMMIT was under way.
                let ended = [&pair.a, &pair.b].map(|end| end.chain);
                assert!(
                    pair.cut || ended.iter().all(|chain| matches!(chain, Some(Chain::Completed(_)))),
                    "seed {seed}, cut {cut}: {ended:?}"
                );
                if matches!(pair.a.chain, Some(Chain::Completed(_))) && pair.b.chain != Some(Chain::Unknown) {
                    equal_ledgers(&pair);
                    completed += 1;
                }
            }
            for end in [&mut pair.a, &mut pair.b] {
                end.space.staged.clear();
            }
        }
        pair.cut_after = None;
        (pair.a.ledger, pair.b.ledger) = (Some(Ledger::new()), Some(Ledger::new()));
        pair.saga = SagaId([255; 32]);
        pair.sync_ok();
        pair.assert_equal();
        equal_ledgers(&pair);
    }
    assert!(completed > 400, "{completed}");
}

/// A signature may take its time, on either side; what the peer says meanwhile is not lost.
// Proves: SY-55
#[test]
fn a_slow_signature_breaks_nothing() {
    for slow_opener in [true, false] {
        let mut author = Author::new(38);
        let mut pair = pair(&mut author);
        if slow_opener {
            pair.a.slow_signer = true
        } else {
            pair.b.slow_signer = true
        }
        pair.open(Scope::All, Direction::Both, Strategy::Optimistic);
        let mut waited = 0;
        loop {
            pair.settle();
            pair.now.mono_ms += 9_000;
            let now = pair.now;
            let end = if slow_opener { &mut pair.a } else { &mut pair.b };
            let Some(target) = end.to_sign.take() else { break };
            end.handle(now, SagaInput::Tick);
            end.sign(now, target);
            waited += 1;
        }
        assert_eq!(waited, 2, "opening and closing");
        for end in [&pair.a, &pair.b] {
            assert!(matches!(end.outcome, Some(SagaOutcome::Committed { .. })), "{:?}", end.outcome);
        }
        pair.assert_equal();
        equal_ledgers(&pair);
    }
}

/// A sender's space moves while OPEN_ACK is signed, as it does where one release follows another: it says STAGED before the first
/// RECON of the opener reaches it, and does not say it again.
#[test]
fn a_sender_that_moved_before_level_0_is_heard() {
    for recon in [true, false] {
        let mut author = Author::new(44);
        let common = author.timeline(2);
        let news = [common.clone(), author.timeline(3)].concat();
        let mut pair = Pair::new(MemSpace::with(&common), MemSpace::with(&news));
        pair.recon = recon;
        (pair.a.ledger, pair.b.ledger) = (Some(Ledger::new()), Some(Ledger::new()));
        pair.b.slow_signer = true;
        pair.open(Scope::All, Direction::Pull, Strategy::Optimistic);
        pair.settle();
        pair.b.space.put(&author.timeline(1));
        while let Some(target) = pair.b.to_sign.take() {
            let now = pair.now;
            pair.b.sign(now, target);
            pair.settle();
        }
        let staged = pair.b.sent.iter().position(|bytes| bytes[0] == 0x20).unwrap();
        let recon = pair.b.sent.iter().position(|bytes| bytes[0] == 0x12).unwrap();
        assert!(staged < recon, "the case that is meant");
        for end in [&pair.a, &pair.b] {
            let outcome = end.outcome.as_ref();
            assert!(matches!(outcome, Some(SagaOutcome::Committed { again: true, .. })), "{outcome:?}");
        }
        assert_eq!(pair.a.space.records.len(), news.len(), "what was there at OPEN");
    }
}

/// Who cannot sign ends the saga; an answerer that has committed already says so and keeps what it has.
#[test]
fn a_signature_that_cannot_be_made() {
    let mut author = Author::new(39);
    let mut opener = pair(&mut author);
    opener.a.cannot_sign = true;
    opener.sync();
    assert_eq!(code(&opener.a.outcome), Some(AbortCode::Auth));
    // At COMMIT_ACK.
    let mut answerer = pair(&mut author);
    answerer.b.slow_signer = true;
    answerer.open(Scope::All, Direction::Both, Strategy::Optimistic);
    answerer.settle();
    let (now, target) = (answerer.now, answerer.b.to_sign.take().unwrap());
    answerer.b.sign(now, target);
    answerer.settle();
    assert_eq!(answerer.b.commits, 1, "the store did it");
    answerer.b.cannot_sign = true;
    let target = answerer.b.to_sign.take().unwrap();
    answerer.b.sign(now, target);
    answerer.settle();
    assert!(matches!(answerer.b.outcome, Some(SagaOutcome::Committed { again: true, .. })), "{:?}", answerer.b.outcome);
    assert!(matches!(answerer.a.outcome, Some(SagaOutcome::Aborted { by_peer: true, .. })));
    equal_ledgers(&answerer);
}

/// The answerer ends the channel right behind COMMIT_ACK: its signature is checked all the same.
#[test]
fn the_channel_ends_while_commit_ack_is_checked() {
    for good in [true, false] {
        let mut author = Author::new(40);
        let mut pair = pair(&mut author);
        pair.sync_ok();
        news(&mut pair, &mut author);
        pair.now.mono_ms += 600_000;
        pair.open(Scope::All, Direction::Both, Strategy::Optimistic);
        let held = std::rc::Rc::new(std::cell::RefCell::new(None));
        let hold = held.clone();
        pair.tamper = Some(Box::new(move |_, message| {
            if message[0] != 0x22 {
                return Some(message);
            }
            *hold.borrow_mut() = Some(message);
            None
        }));
        pair.settle();
        let (now, ack) = (pair.now, held.borrow_mut().take().unwrap());
        pair.a.handle(now, SagaInput::Message(ack));
        // The wish to check is not performed yet when the end of the channel is seen.
        pair.a.handle(now, SagaInput::ChannelLost);
        if !good {
            pair.a.handle(now, SagaInput::SigChecked(Err(sealtide_sync::Refused::auth("no"))));
        }
        pair.settle();
        match good {
            true => assert!(matches!(pair.a.outcome, Some(SagaOutcome::Committed { .. })), "{:?}", pair.a.outcome),
            false => {
                assert_eq!(code(&pair.a.outcome), Some(AbortCode::Auth));
                assert_eq!(pair.a.chain, Some(Chain::Unknown), "the answerer has counted it: the connection must end");
            }
        }
        assert!(matches!(pair.b.outcome, Some(SagaOutcome::Committed { .. })));
    }
}
