//! What a saga says to a peer that breaks the rules, and to one that says nothing.
use crate::support::{Author, MemSpace, Pair, stone};
use bytes::Bytes;
use sealtide_ibgib::{Address, ChunkHash, Sid, TimelineId, Verified, binary_record};
use sealtide_identity::{Role, SpaceId};
use sealtide_sync::message::{Want, ZSTD_RATIO_MAX};
use sealtide_sync::{
    AbortCode, Direction, MESSAGE_BYTES_MAX, Message, Mode, OpenHead, Saga, SagaId, SagaInput, SagaOutcome, SagaOutput,
    Scope, Strategy,
};

fn code_of(outcome: &Option<SagaOutcome>) -> AbortCode {
    match outcome {
        Some(SagaOutcome::Aborted { code, .. }) => *code,
        other => panic!("{other:?}"),
    }
}

/// Both sides have something new; the walk takes several batches.
fn pair() -> Pair {
    let mut author = Author::new(53);
    let common = author.timeline(3);
    let own = |author: &mut Author| {
        let stone = binary_record(vec![author.number(200) as u8; 400].into());
        let mut records = common.clone();
        for n in 0..5 {
            records.push(author.first_with("doc", &format!("{n}"), &[("bin", &stone)]));
        }
        records.push(stone);
        records
    };
    let (a, b) = (own(&mut author), own(&mut author));
    let mut pair = Pair::new(MemSpace::with(&a), MemSpace::with(&b));
    pair.zstd = false;
    (pair.a.limits.batch_records, pair.b.limits.batch_records) = (2, 2);
    pair
}

type Change = fn(Message) -> Vec<Bytes>;

/// Replaces the `nth` message of a type from one side; what came of it at the side that got it.
fn change(mut pair: Pair, from_opener: bool, kind: u8, nth: usize, change: Change) -> Option<SagaOutcome> {
    let before = [pair.a.space.sids(), pair.b.space.sids()];
    let mut count = 0;
    let mut more = Vec::new();
    pair.open(Scope::All, Direction::Both, Strategy::Optimistic);
    loop {
        let hit = std::cell::Cell::new(false);
        // One message at a time by hand: a change may put out several.
        if !pair.step_with(&mut |opener, message| {
            if opener == from_opener && message[0] == kind {
                count += 1;
                if count == nth + 1 {
                    hit.set(true);
                    let mut changed = change(Message::decode(&message).unwrap());
                    let first = if changed.is_empty() { None } else { Some(changed.remove(0)) };
                    more = changed;
                    return first;
                }
            }
            Some(message)
        }) {
            break;
        }
        if hit.get() {
            let now = pair.now;
            let victim = if from_opener { &mut pair.b } else { &mut pair.a };
            more.drain(..).for_each(|message| victim.handle(now, SagaInput::Message(message)));
        }
    }
    assert!(count > nth, "there was no message {kind:#x} number {nth}");
    let outcome = if from_opener { pair.b.outcome.clone() } else { pair.a.outcome.clone() };
    if matches!(outcome, Some(SagaOutcome::Aborted { .. })) {
        assert_eq!([pair.a.space.sids(), pair.b.space.sids()], before, "something became visible");
    }
    outcome
}

fn one(message: Message) -> Vec<Bytes> {
    vec![message.encode()]
}

fn twice(message: Message) -> Vec<Bytes> {
    vec![message.encode(), message.encode()]
}

fn cut_short(message: Message) -> Vec<Bytes> {
    let bytes = message.encode();
    vec![bytes.slice(..bytes.len() - 1)]
}

fn lengthened(message: Message) -> Vec<Bytes> {
    vec![[&message.encode()[..], &[0]].concat().into()]
}

fn oversized(_: Message) -> Vec<Bytes> {
    vec![vec![0x14; MESSAGE_BYTES_MAX + 1].into()]
}

fn unknown_type(_: Message) -> Vec<Bytes> {
    vec![Bytes::from_static(&[0x55, 0x80])]
}

fn keystone_frame(_: Message) -> Vec<Bytes> {
    vec![Bytes::from_static(&[0x04, 0x80])]
}

fn batch(records: &[Bytes], message: Message) -> Vec<Bytes> {
    let mut encoder = minicbor::Encoder::new(Vec::new());
    encoder.array(records.len() as u64).unwrap();
    records.iter().for_each(|record| _ = encoder.bytes(record).unwrap());
    let raw = encoder.into_writer();
    let Message::Batch { number, want, end, .. } = message else { panic!() };
    one(Message::Batch { number, want, zstd: false, size: raw.len() as u64, payload: raw.into(), end })
}

// Proves: SY-53, SY-45
#[test]
fn each_broken_rule_has_its_code() {
    use AbortCode::{BadRecord, Incomplete, Limit, Protocol};
    let rows: Vec<(&str, u8, usize, Change, AbortCode)> = vec![
        ("OPEN twice", 0x10, 0, twice, Protocol),
        ("truncated RECON", 0x12, 0, cut_short, Protocol),
        ("lengthened RECON", 0x12, 0, lengthened, Protocol),
        ("oversized", 0x12, 0, oversized, Limit),
        ("unknown type", 0x12, 0, unknown_type, Protocol),
        ("keystone frame", 0x12, 0, keystone_frame, Protocol),
        (
            "level 1",
            0x12,
            0,
            |m| match m {
                Message::Recon { run, salted, payload, .. } => one(Message::Recon { level: 1, run, salted, payload }),
                _ => panic!(),
            },
            Protocol,
        ),
        (
            "salted",
            0x12,
            0,
            |m| match m {
                Message::Recon { level, run, payload, .. } => one(Message::Recon { level, run, salted: true, payload }),
                _ => panic!(),
            },
            Protocol,
        ),
        (
            "no negentropy",
            0x12,
            0,
            |_| one(Message::Recon { level: 0, run: 1, salted: false, payload: Bytes::from_static(b"x") }),
            Protocol,
        ),
        ("WANT twice", 0x13, 0, twice, Protocol),
        (
            "too many WANTs",
            0x13,
            0,
            |m| match m {
                Message::Want { number, want } => {
                    (0..17).map(|more| Message::Want { number: number + more, want: want.clone() }.encode()).collect()
                }
                _ => panic!(),
            },
            Limit,
        ),
        (
            "too many n in a WANT",
            0x13,
            0,
            |_| one(Message::Want { number: 1, want: Want::Ranges(vec![(TimelineId([0; 32]), 0, 1024)]) }),
            Limit,
        ),
        (
            "backward range",
            0x13,
            0,
            |_| one(Message::Want { number: 1, want: Want::Ranges(vec![(TimelineId([0; 32]), 2, 1)]) }),
            Protocol,
        ),
        ("BATCH twice", 0x14, 0, twice, Protocol),
        ("BATCH lost", 0x14, 0, |_| Vec::new(), Protocol),
        ("BATCH truncated", 0x14, 0, cut_short, Protocol),
        (
            "BATCH for no WANT",
            0x14,
            0,
            |m| match m {
                Message::Batch { number, zstd, size, payload, end, .. } => {
                    one(Message::Batch { number, want: 99, zstd, size, payload, end })
                }
                _ => panic!(),
            },
            Protocol,
        ),
        ("record not asked for", 0x14, 0, |m| batch(&[stone("evil", &[]).encoded().clone()], m), Protocol),
        (
            "record twice in a batch",
            0x14,
            0,
            |m| {
                let record = crate::support::batch_records(&m)[0].clone();
                batch(&[record.clone(), record], m)
            },
            Protocol,
        ),
        (
            "bad record",
            0x14,
            0,
            |m| {
                let mut record = crate::support::batch_records(&m)[0].to_vec();
                let last = record.len() - 1;
                record[last] ^= 1;
                batch(&[record.into()], m)
            },
            BadRecord,
        ),
        ("record too large", 0x14, 0, |m| batch(&[vec![0; 768 * 1024 + 1].into()], m), BadRecord),
        (
            "another size",
            0x14,
            0,
            |m| match m {
                Message::Batch { number, want, zstd, size, payload, end } => {
                    one(Message::Batch { number, want, zstd, size: size + 1, payload, end })
                }
                _ => panic!(),
            },
            Protocol,
        ),
        (
            "zstd not agreed on",
            0x14,
            0,
            |m| match m {
                Message::Batch { number, want, size, payload, end, .. } => {
                    let payload = zstd::bulk::compress(&payload, 1).unwrap().into();
                    one(Message::Batch { number, want, zstd: true, size, payload, end })
                }
                _ => panic!(),
            },
            Protocol,
        ),
        (
            "nothing in a range",
            0x14,
            0,
            |m| match m {
                Message::Batch { number, want, .. } => {
                    let payload = Bytes::from_static(&[0x80]);
                    one(Message::Batch { number, want, zstd: false, size: 1, payload, end: true })
                }
                _ => panic!(),
            },
            Incomplete,
        ),
        (
            "CHUNKS not asked for",
            0x14,
            0,
            |_| {
                let bytes = Bytes::from_static(b"x");
                one(Message::Chunks { want: 1, hash: ChunkHash([0; 32]), offset: 0, bytes, end: true })
            },
            Protocol,
        ),
        ("STORED of a batch not sent", 0x17, 0, |_| one(Message::Stored { batch: 999 }), Protocol),
        (
            "TIPS out of order",
            0x19,
            0,
            |m| match m {
                Message::Tips(mut moves) => {
                    moves.reverse();
                    one(Message::Tips(moves))
                }
                _ => panic!(),
            },
            Protocol,
        ),
        (
            "TIPS changed",
            0x19,
            0,
            |m| match m {
                Message::Tips(mut moves) => {
                    moves.pop();
                    one(Message::Tips(moves))
                }
                _ => panic!(),
            },
            Protocol,
        ),
        (
            "a tip twice",
            0x1a,
            0,
            |m| match m {
                Message::TipList { want, mut tips, last } => {
                    tips.push(tips[0].clone());
                    one(Message::TipList { want, tips, last })
                }
                _ => panic!(),
            },
            Protocol,
        ),
        (
            "a tip with another id",
            0x1a,
            0,
            |m| match m {
                Message::TipList { want, mut tips, last } => {
                    tips[0].sid.0[0] ^= 1;
                    one(Message::TipList { want, tips, last })
                }
                _ => panic!(),
            },
            Protocol,
        ),
        (
            "a tip with a huge counter",
            0x1a,
            0,
            |m| match m {
                Message::TipList { want, mut tips, last } => {
                    tips[0].n = 1 << 50;
                    one(Message::TipList { want, tips, last })
                }
                _ => panic!(),
            },
            Protocol,
        ),
        (
            "STAGED changed",
            0x20,
            0,
            |m| match m {
                Message::Staged(mut staged) => {
                    staged.move_hash[0] ^= 1;
                    one(Message::Staged(staged))
                }
                _ => panic!(),
            },
            Protocol,
        ),
    ];
    for (name, kind, nth, how, code) in rows {
        for from_opener in [true, false] {
            if kind == 0x10 && !from_opener {
                continue;
            }
            let outcome = change(pair(), from_opener, kind, nth, how);
            assert_eq!(code_of(&outcome), code, "{name}, from the opener: {from_opener}: {outcome:?}");
        }
    }
    // What only the opener or only the answerer says.
    let wrong_commit: Change = |m| match m {
        Message::Commit(mut commit, sig) => {
            commit.staged_opener[0] ^= 1;
            one(Message::Commit(commit, sig))
        }
        _ => panic!(),
    };
    assert_eq!(code_of(&change(pair(), true, 0x21, 0, wrong_commit)), Protocol);
    let wrong_mode: Change = |m| match m {
        Message::OpenAck(mut ack) => {
            ack.mode = Mode::Recon;
            one(Message::OpenAck(ack))
        }
        _ => panic!(),
    };
    assert_eq!(code_of(&change(pair(), false, 0x11, 0, wrong_mode)), Protocol);
}

/// A COMMIT_ACK that does not fit leaves the opener in doubt, not with an abort.
// Proves: SY-53
#[test]
fn a_wrong_answer_to_commit_is_asked_about_later() {
    let outcome = change(pair(), false, 0x22, 0, |m| match m {
        Message::CommitAck(mut commit, sig) => {
            commit.open[0] ^= 1;
            one(Message::CommitAck(commit, sig))
        }
        _ => panic!(),
    });
    assert_eq!(outcome, Some(SagaOutcome::Interrupted { commit_sent: true }));
}

#[test]
fn unknown_types_from_0x80_are_ignored() {
    for kind in [0x12, 0x13, 0x14, 0x20] {
        let outcome = change(pair(), true, kind, 0, |m| vec![Bytes::from_static(&[0x80, 1, 2]), m.encode()]);
        assert!(matches!(outcome, Some(SagaOutcome::Committed { .. })), "{outcome:?}");
    }
}

// Proves: SY-54
#[test]
fn a_decompression_bomb_is_refused() {
    let bomb = |size: u64, length: usize| {
        let mut pair = pair();
        pair.zstd = true;
        let packed: Bytes = zstd::bulk::compress(&vec![0; length], 19).unwrap().into();
        pair.open(Scope::All, Direction::Both, Strategy::Optimistic);
        let mut done = false;
        while pair.step_with(&mut |opener, message| match Message::decode(&message).unwrap() {
            Message::Batch { number, want, end, .. } if opener && !done => {
                done = true;
                Some(Message::Batch { number, want, zstd: true, size, payload: packed.clone(), end }.encode())
            }
            _ => Some(message),
        }) {}
        code_of(&pair.b.outcome)
    };
    assert_eq!(bomb(1_000_000, 1_000_000), AbortCode::Limit, "over the ratio of {ZSTD_RATIO_MAX}");
    assert_eq!(bomb(2_000_000, 2_000_000), AbortCode::Limit, "over a message");
    assert_eq!(bomb(1000, 1_000_000), AbortCode::Protocol, "larger than it says");
}

// Proves: SY-51
#[test]
fn a_withheld_stone_is_found_before_commit() {
    let mut author = Author::new(51);
    let deep = stone("deep", &[]);
    let middle = stone("middle", &[("next", &deep)]);
    let common = author.first("common");
    let frame = author.first_with("doc", "x", &[("note", &middle)]);
    for target in [MemSpace::default(), MemSpace::with(std::slice::from_ref(&common))] {
        let mut source = MemSpace::with(&[deep.clone(), middle.clone(), frame.clone(), common.clone()]);
        // The source says that it has the stone, and never sends it.
        source.records.remove(&deep.sid());
        let mut pair = Pair::new(source, target.clone());
        pair.sync();
        assert_eq!(code_of(&pair.b.outcome), AbortCode::Incomplete);
        assert_eq!(pair.b.space.sids(), target.sids());
    }
}

// Proves: SY-73
#[test]
fn guessed_names_give_nothing() {
    let mut author = Author::new(73);
    let (inside, outside) = (author.first("inside"), author.first("outside"));
    let chunk = Bytes::from(vec![9; 1000]);
    let hash = ChunkHash(sealtide_crypto::blake3(&chunk));
    let mut space = MemSpace::with(&[inside.clone(), outside.clone()]);
    // The node stores this chunk for another space.
    space.add_chunks(&[(hash, chunk)]);
    let mut peer = Pair::new(MemSpace::with(&[author.first("mine")]), space);
    let scope = Scope::Roots { roots: vec![inside.address().clone()], live: true, skipped: Vec::new() };
    let facts_of = |pair: &mut Pair| {
        pair.open(scope.clone(), Direction::Pull, Strategy::Optimistic);
        pair.perform_only(true);
        pair.a.sent[0].clone()
    };
    let open = facts_of(&mut peer);
    let now = peer.now;
    peer.b.handle(now, SagaInput::Message(open));
    let timeline = outside.frame().unwrap().timeline;
    for (number, want) in [
        (1, Want::Sids(vec![outside.sid(), Sid([3; 32])])),
        (2, Want::Addresses(vec![outside.address().clone()])),
        (3, Want::Ranges(vec![(timeline, 0, 100)])),
        (4, Want::Chunks(vec![(hash, 0)])),
        (5, Want::Bulk(None)),
    ] {
        peer.b.handle(now, SagaInput::Message(Message::Want { number, want }.encode()));
    }
    let mut seen = Vec::new();
    while let Some(wish) = peer.b.saga.as_mut().unwrap().poll(&peer.b.space.clone()) {
        if let SagaOutput::Send(bytes) = wish {
            match Message::decode(&bytes).unwrap() {
                Message::Chunks { bytes, end, .. } => assert!(bytes.is_empty() && end),
                message => seen.extend(crate::support::batch_records(&message)),
            }
        }
    }
    assert_eq!(seen, [inside.encoded().clone()], "only what the scope holds");
}

// Proves: SY-100
#[test]
fn an_unknown_and_a_forbidden_space_get_the_same_answer() {
    let mut pair = pair();
    pair.b.role = None;
    pair.sync();
    let forbidden = pair.b.sent.last().unwrap().clone();
    assert_eq!(Saga::refusal(AbortCode::NotAllowed, "no space of this name", 0), forbidden);
    assert_eq!(code_of(&pair.a.outcome), AbortCode::NotAllowed);
    assert_eq!(pair.b.sent.len(), 1);
    let open = pair.a.sent[0].clone();
    let head = OpenHead { saga: SagaId([1; 32]), space: crate::support::space_id(), fresh: false };
    assert_eq!(Saga::peek_open(&open), Ok(head));
    assert!(Saga::peek_open(&forbidden).is_err() && Saga::peek_open(&[]).is_err());
    assert_ne!(SpaceId::from_bytes([8; 32]), crate::support::space_id());
    assert!(Role::Read < Role::Write);
}

// Proves: SY-55
#[test]
fn time_limits() {
    // (what is held back, milliseconds until the end, who ends)
    let idle = |mut pair: Pair, opener: bool, from: fn(&mut Pair)| {
        from(&mut pair);
        let start = pair.now.mono_ms;
        let mut wakes = 0;
        loop {
            let end = if opener { &mut pair.a } else { &mut pair.b };
            let at = end.wake_ms.expect("a time limit is set");
            wakes += 1;
            assert!(wakes < 60, "woken without end");
            pair.now.mono_ms = at.max(pair.now.mono_ms);
            let now = pair.now;
            let end = if opener { &mut pair.a } else { &mut pair.b };
            end.handle(now, SagaInput::Tick);
            pair.perform_only(opener);
            let end = if opener { &mut pair.a } else { &mut pair.b };
            if end.outcome.is_some() {
                assert_eq!(code_of(&end.outcome), AbortCode::Timeout);
                return pair.now.mono_ms - start;
            }
        }
    };
    // No OPEN_ACK, no OPEN.
    let opened = |pair: &mut Pair| {
        pair.open(Scope::All, Direction::Both, Strategy::Optimistic);
        pair.perform_only(true);
        pair.perform_only(false);
    };
    assert_eq!(idle(pair(), true, opened), 120_000);
    assert_eq!(idle(pair(), false, opened), 120_000);
    // A WANT without an answer.
    let wanted = |pair: &mut Pair| {
        pair.open(Scope::All, Direction::Both, Strategy::Optimistic);
        while pair.a.sent_of(0x13) == 0 && pair.step() {}
    };
    let waited = idle(pair(), true, wanted);
    assert!((30_000..=60_000).contains(&waited), "{waited} ms");
    // Staged, and no COMMIT.
    let staged = |pair: &mut Pair| {
        pair.open(Scope::All, Direction::Both, Strategy::Optimistic);
        while pair.step_with(&mut |_, message| (message[0] != 0x21).then_some(message)) {}
    };
    assert_eq!(idle(pair(), false, staged), 600_000);
}

// Proves: SY-50
#[test]
fn a_stalled_peer_holds_nothing() {
    let mut pair = pair();
    pair.open(Scope::All, Direction::Both, Strategy::Optimistic);
    for _ in 0..6 {
        pair.step();
    }
    // A local change goes through although the saga stands still.
    pair.a.space.put(&[Author::new(500).first("local")]);
    pair.settle();
    assert!(matches!(pair.a.outcome, Some(SagaOutcome::Committed { .. })));
    pair.sync_ok();
    pair.assert_equal();
}

// Proves: SY-57
#[test]
fn nothing_comes_after_done() {
    let mut pair = pair();
    pair.sync_ok();
    let now = pair.now;
    for input in [
        SagaInput::ChannelLost,
        SagaInput::Tick,
        SagaInput::Cancel,
        SagaInput::Durable(9),
        SagaInput::TipMoved,
        SagaInput::PeerRole(None),
        SagaInput::Message(Message::Bye.encode()),
        SagaInput::Message(Bytes::new()),
    ] {
        pair.a.handle(now, input);
        assert!(pair.a.saga.as_mut().unwrap().poll(&MemSpace::default()).is_none());
    }
    // An abort is said before the end, and the channel being lost afterwards changes nothing.
    let mut pair = self::pair();
    pair.open(Scope::All, Direction::Both, Strategy::Optimistic);
    pair.b.handle(now, SagaInput::Message(Bytes::new()));
    pair.b.handle(now, SagaInput::ChannelLost);
    pair.perform_only(false);
    assert_eq!(pair.b.sent_of(0x30), 1);
    assert_eq!(code_of(&pair.b.outcome), AbortCode::Protocol);
}

// Proves: SY-46
#[test]
fn credit_comes_back_only_for_what_is_durable() {
    let mut pair = pair();
    pair.b.slow_disk = true;
    pair.open(Scope::All, Direction::Push, Strategy::Optimistic);
    pair.settle();
    let payload: u64 = pair.a.sent.iter().filter(|bytes| bytes[0] == 0x14).map(|bytes| bytes.len() as u64).sum();
    assert!(payload > 0);
    assert_eq!(pair.b.delivered - pair.b.released, payload);
    pair.b.slow_disk = false;
    pair.settle();
    assert!(matches!(pair.b.outcome, Some(SagaOutcome::Committed { .. })));
    assert!(pair.b.delivered - pair.b.released < 300, "all but COMMIT");
}

// Proves: SY-45
#[test]
fn the_largest_record_passes_and_no_message_is_over_1_mib() {
    // An address is as long as it may be; 2 000 tips with such names still fit into messages.
    let mut author = Author::new(45);
    let long = "x".repeat(4096);
    let mut records: Vec<Verified> = (0..300).map(|_| author.first_with(&long, "t", &[])).collect();
    let mut room = 780_000;
    let largest = loop {
        let text = "y".repeat(room);
        let data = sealtide_ibgib::Data::Json(serde_json::json!({ "text": text }));
        match Verified::make("big", data, Default::default()) {
            Ok(record) if record.encoded().len() == 768 * 1024 => break record,
            Ok(record) => room += 768 * 1024 - record.encoded().len(),
            Err(_) => panic!("larger than a record may be"),
        }
    };
    records.push(author.first_with("doc", "t", &[("note", &largest)]));
    records.push(largest);
    let first = author.first("known");
    for target in [MemSpace::default(), MemSpace::with(&[first])] {
        let mut pair = Pair::new(MemSpace::with(&records), target);
        // The harness checks the size of every message.
        pair.sync_ok();
        pair.assert_equal();
    }
}

// Proves: SY-91
#[test]
fn keystones_are_neither_sent_nor_taken() {
    let mut pair = pair();
    pair.sync_ok();
    let open = pair.a.sent[0].clone();
    assert_eq!(open[open.len() - 2..], [0xf6, 0xf6], "members and sig are null");
    let mut signed = open[..open.len() - 1].to_vec();
    signed.push(0x40);
    assert!(Message::decode(&signed.into()).is_err());
    let address = Address::parse("a^gib").unwrap();
    assert!(address.is_primitive());
}

/// What a peer names and does not bring takes memory: tips, ids and references.
#[test]
fn what_is_only_named_is_bounded() {
    let mut author = Author::new(75);
    let first: Vec<_> = (0..100).map(|number| author.first(&format!("old {number}"))).collect();
    let newer: Vec<_> = first.iter().map(|frame| author.edit(frame, "new")).collect();
    let loose: Vec<_> = (0..100).map(|number| stone(&format!("loose {number}"), &[])).collect();
    // What came counts for it, so one record names many.
    let names: Vec<_> = (0..loose.len()).map(|number| format!("to{number}")).collect();
    let links: Vec<_> = names.iter().map(String::as_str).zip(&loose).collect();
    let refers: Vec<_> = (0..4).map(|number| stone(&format!("refers {number}"), &links)).collect();
    let all = [first.clone(), newer.clone()].concat();
    let tips = (MemSpace::with(&all), MemSpace::with(&first));
    let ids = (MemSpace::with(&[first.clone(), loose.clone()].concat()), MemSpace::with(&first));
    let references = (MemSpace::with(&[refers, loose].concat()), MemSpace::default());
    for (what, (a, b), enough) in [("tips", tips, 100_000), ("ids", ids, 4_000), ("references", references, 50_000)] {
        for (bytes_max, fits) in [(enough, true), (300, false)] {
            let mut pair = Pair::new(a.clone(), b.clone());
            pair.b.limits.named_bytes_max = bytes_max;
            pair.run(Scope::All, Direction::Push, Strategy::Optimistic);
            if fits {
                pair.assert_equal();
            } else {
                assert_eq!(code_of(&pair.b.outcome), AbortCode::Limit, "{what}");
            }
        }
    }
}
