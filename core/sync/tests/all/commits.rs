//! Commit stones on their way: nothing refers to them, so they go along with the frames that they sign.
use std::slice::from_ref;

use crate::support::{Author, MemSpace, Pair, code_of, mode_of};
use bytes::Bytes;
use sealtide_crypto::{Seed, SigningKey};
use sealtide_ibgib::{Address, Verified};
use sealtide_identity::authorship::{Author as Signer, Tip, commit_stones, read_commit};
use sealtide_sync::{AbortCode, Direction, Message, Mode, Scope, Strategy};

/// A node that signs what it commits.
struct Writer {
    key: SigningKey,
    keystone: Address,
    last: Option<(Address, u64)>,
}

impl Writer {
    fn new(number: u8) -> Self {
        let keystone = Address::parse(&format!("keystone^{number:064X}")).unwrap();
        Self { key: SigningKey::from_seed(&Seed::from_bytes([number; 32])), keystone, last: None }
    }

    fn sign(&mut self, frames: &[&Verified]) -> Vec<Verified> {
        let signer = Signer { key: &self.key, keystone: &self.keystone };
        let tips = frames.iter().map(|frame| Tip { sid: frame.sid(), address: frame.address().clone() }).collect();
        let before = self.last.as_ref().map(|(address, seq)| (address, *seq));
        let stones = commit_stones(&signer, tips, 1_700_000_000_000, before).unwrap();
        let last = stones.last().unwrap();
        self.last = Some((last.address().clone(), read_commit(last).unwrap().seq));
        stones
    }

    fn commit(&mut self, space: &mut MemSpace, frames: &[Verified]) {
        let stones = self.sign(&frames.iter().collect::<Vec<_>>());
        space.put(&[frames, &stones].concat());
    }
}

fn bytes(pair: &Pair) -> usize {
    pair.a.sent.iter().chain(&pair.b.sent).map(Bytes::len).sum()
}

fn kinds(sent: &[Bytes]) -> Vec<u8> {
    sent.iter().map(|bytes| bytes[0]).collect()
}

// Proves: SY-103
#[test]
fn a_live_edit_costs_the_stone_and_no_message_more() {
    let mut author = Author::new(1);
    let first = author.first("one");
    let next = author.edit(&first, "two");
    let mut plain = Pair::new(MemSpace::with(from_ref(&first)), MemSpace::with(from_ref(&first)));
    plain.a.space.put(from_ref(&next));
    plain.sync_ok();

    let mut writer = Writer::new(1);
    let mut space = MemSpace::default();
    writer.commit(&mut space, &[first]);
    let mut signed = Pair::new(space.clone(), space);
    writer.commit(&mut signed.a.space, &[next]);
    signed.sync_ok();
    signed.assert_equal();
    assert_eq!(mode_of(&signed.a.outcome), Mode::Walk);
    assert_eq!((kinds(&signed.a.sent), kinds(&signed.b.sent)), (kinds(&plain.a.sent), kinds(&plain.b.sent)));
    let (with, without) = (bytes(&signed), bytes(&plain));
    println!("one live edit: {without} bytes without a commit stone, {with} with");
    assert!(with - without < 8 * 1024, "{} bytes more", with - without);
}

// Proves: SY-103
#[test]
fn stones_of_many_commits_on_both_sides_come_with_the_frames() {
    let mut author = Author::new(2);
    let lines: Vec<Verified> = (0..6).map(|_| author.first("start")).collect();
    let (mut left, mut right) = (Writer::new(1), Writer::new(2));
    let mut space = MemSpace::default();
    left.commit(&mut space, &lines);
    let mut pair = Pair::new(space.clone(), space);
    let (mut a, mut b) = (lines[0].clone(), lines[1].clone());
    for number in 0..40 {
        a = author.edit(&a, &format!("a {number}"));
        left.commit(&mut pair.a.space, std::slice::from_ref(&a));
        b = author.edit(&b, &format!("b {number}"));
        right.commit(&mut pair.b.space, std::slice::from_ref(&b));
    }
    // Both went on from one frame too: the result of that is a merge frame, which nobody signs.
    let both = [author.edit(&lines[2], "left"), author.edit(&lines[2], "right")];
    left.commit(&mut pair.a.space, &both[..1]);
    right.commit(&mut pair.b.space, &both[1..]);
    pair.sync_ok();
    pair.assert_equal();
    assert_eq!(mode_of(&pair.a.outcome), Mode::Walk);
    assert_eq!((pair.a.records_sent(), pair.b.records_sent()), (82, 82), "each record once");
    assert_eq!(pair.a.space.records.len(), 6 + 1 + 4 * 41 + 1);
}

// Proves: SY-103
#[test]
fn one_stone_of_many_frames_is_sent_once() {
    let mut author = Author::new(3);
    let root = author.first("root");
    let mut writer = Writer::new(1);
    let mut space = MemSpace::default();
    writer.commit(&mut space, &[root]);
    let mut pair = Pair::new(space.clone(), space);
    let lines: Vec<Verified> = (0..5_000).map(|number| author.first(&number.to_string())).collect();
    writer.commit(&mut pair.a.space, &lines);
    pair.sync_ok();
    pair.assert_equal();
    assert_eq!(mode_of(&pair.a.outcome), Mode::Walk);
    assert_eq!(pair.a.records_sent(), 5_002, "5 000 frames and two stones");
}

// Proves: SY-103
#[test]
fn a_first_sync_brings_them_and_an_edit_meanwhile_does_not_end_it() {
    let mut author = Author::new(4);
    let lines: Vec<Verified> = (0..300).map(|number| author.first(&number.to_string())).collect();
    let mut writer = Writer::new(1);
    let mut pair = Pair::new(MemSpace::default(), MemSpace::default());
    writer.commit(&mut pair.a.space, &lines);
    pair.a.limits.batch_records = 16;
    pair.window = 1;
    let edit = author.edit(&lines[0], "meanwhile");
    let stone = writer.sign(&[&edit]);
    let mut edits = vec![[vec![edit], stone].concat()];
    pair.before = Some(Box::new(move |delivered, a, _| {
        if delivered == 5
            && let Some(edit) = edits.pop()
        {
            a.space.put(&edit);
        }
    }));
    pair.sync_ok();
    assert_eq!(pair.a.space.records.len(), 303, "the edit came while the stream ran");
    assert_eq!(pair.b.space.records.len(), 301, "the state at OPEN");
    pair.before = None;
    pair.sync_ok();
    pair.assert_equal();
    assert_eq!(pair.b.space.records.len(), 303);
}

// Proves: SY-103
#[test]
fn a_stone_of_frames_that_did_not_come_was_not_asked_for() {
    let mut author = Author::new(5);
    let first = author.first("one");
    let next = author.edit(&first, "two");
    let mut writer = Writer::new(1);
    let stone = writer.sign(&[&author.first("elsewhere")]).remove(0);
    let mut pair = Pair::new(MemSpace::with(&[first.clone(), next]), MemSpace::with(&[first]));
    pair.zstd = false;
    pair.tamper = Some(Box::new(move |opener, bytes| {
        let message = Message::decode(&bytes).unwrap();
        let Message::Batch { number, want, end, .. } = message else { return Some(bytes) };
        if !opener {
            return Some(bytes);
        }
        let mut raw = minicbor::Encoder::new(Vec::new());
        raw.array(1).unwrap().bytes(stone.encoded()).unwrap();
        let payload = Bytes::from(raw.into_writer());
        Some(Message::Batch { number, want, zstd: false, size: payload.len() as u64, payload, end }.encode())
    }));
    let outcomes = pair.run(Scope::All, Direction::Both, Strategy::Optimistic);
    assert_eq!(code_of(&outcomes[1]), AbortCode::Protocol);
}
