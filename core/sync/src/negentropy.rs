//! Negentropy V1: the splitter over sets that are sorted by (order key, id). Spec: ibgib §13.3.
//!
//! The client starts with [`Splitter::initiate`] and feeds every answer to [`Splitter::client`] until it has nothing
//! more to say; the server answers with [`Splitter::server`] and keeps no state between messages. A set is only asked
//! for sums and short lists of ranges ([`Ranges`]), so memory follows the message, not the set. Ranges are cut by key
//! (`cut`), those under 32 items are listed; whatever correct splitting a peer uses is understood. Messages stay
//! within [`FRAME_BYTES_MAX`]: a full one closes with one fingerprint over all that is left.

mod codec;
mod cut;
mod run;

use std::collections::BTreeSet;

use self::codec::{Encoder, Input, MODE_FINGERPRINT, MODE_LIST, MODE_SKIP};
pub use self::run::Run;
use crate::{IdSum, MessageError, RangeBound};

/// Bytes of one negentropy message.
pub const FRAME_BYTES_MAX: usize = 1_000_000;

/// Into how many parts a range is cut.
const PARTS: usize = 16;
/// Ranges with fewer items are listed.
const LISTED_BELOW: usize = 2 * PARTS;
/// Room for the largest answer to one range and the fingerprint that closes a message.
const RESERVE: usize = 2048;
/// Items that a client reads at a time when it compares a list with its own.
const PAGE: usize = 1024;

/// A set sorted by (order key, id), as far as the splitter needs it.
pub trait Ranges {
    /// How many items are in `lo ≤ (order key, id) < hi`, and the sum of their ids.
    fn sum(&self, lo: &RangeBound, hi: &RangeBound) -> (u64, IdSum);
    /// The first `limit` of them, in order.
    fn list(&self, lo: &RangeBound, hi: &RangeBound, limit: usize) -> Vec<(u64, [u8; 32])>;
}

/// What stands for a range on the wire: 16 bytes made of sum and count.
pub type Fingerprint = fn(&IdSum, u64) -> [u8; 16];

/// First 16 bytes of SHA-256(sum, little-endian ‖ varint count).
pub fn fingerprint(sum: &IdSum, count: u64) -> [u8; 16] {
    let mut input = sum.0.to_vec();
    codec::write_varint(&mut input, count);
    let digest = sealtide_crypto::sha256(&input);
    let mut out = [0; 16];
    out.copy_from_slice(&digest[..16]);
    out
}

/// What the client learnt so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Ids that only the client has.
    pub have: BTreeSet<[u8; 32]>,
    /// Ids that only the server has.
    pub need: BTreeSet<[u8; 32]>,
}

/// How messages are made: the fingerprint, and when a message is full.
#[derive(Clone, Copy, Debug)]
pub struct Splitter {
    fingerprint: Fingerprint,
    bytes_max: usize,
}

impl Default for Splitter {
    fn default() -> Self {
        Self { fingerprint, bytes_max: FRAME_BYTES_MAX }
    }
}

impl Splitter {
    /// A splitter with another fingerprint: tests make it short enough for collisions to be found.
    pub fn with_fingerprint(fingerprint: Fingerprint) -> Self {
        Self { fingerprint, ..Self::default() }
    }

    /// A splitter with smaller messages, at least 4,096 bytes.
    pub fn with_bytes_max(bytes_max: usize) -> Self {
        Self { bytes_max: bytes_max.clamp(2 * RESERVE, FRAME_BYTES_MAX), ..Self::default() }
    }

    /// The client's first message.
    pub fn initiate(&self, set: &dyn Ranges) -> Vec<u8> {
        let mut output = Output::new(*self, set);
        let (count, _) = set.sum(&RangeBound::START, &RangeBound::END);
        output.split(RangeBound::START, RangeBound::END, count);
        output.encoder.bytes
    }

    /// The client takes an answer: its next message, or `None` when everything is known.
    ///
    /// # Errors
    /// [`MessageError`] when the bytes are no negentropy V1, or name more than `need_max` ids in all.
    pub fn client(
        &self,
        set: &dyn Ranges,
        message: &[u8],
        difference: &mut Difference,
        need_max: u64,
    ) -> Result<Option<Vec<u8>>, MessageError> {
        let answer = self.reconcile(set, message, Some((difference, need_max)))?;
        Ok((answer.len() > 1).then_some(answer))
    }

    /// The server answers a message.
    ///
    /// # Errors
    /// [`MessageError`] when the bytes are no negentropy V1.
    pub fn server(&self, set: &dyn Ranges, message: &[u8]) -> Result<Vec<u8>, MessageError> {
        self.reconcile(set, message, None)
    }

    fn reconcile(
        &self,
        set: &dyn Ranges,
        message: &[u8],
        mut client: Option<(&mut Difference, u64)>,
    ) -> Result<Vec<u8>, MessageError> {
        let mut input = Input::new(message)?;
        let mut output = Output::new(*self, set);
        let mut lo = RangeBound::START;
        while !input.is_empty() {
            let hi = input.bound()?;
            if hi < lo {
                return Err(MessageError::bad("negentropy bounds that step back"));
            }
            match input.varint()? {
                MODE_SKIP => output.skip(hi),
                MODE_FINGERPRINT => {
                    let (count, sum) = set.sum(&lo, &hi);
                    if input.fixed::<16>()? == (self.fingerprint)(&sum, count) {
                        output.skip(hi);
                    } else {
                        output.split(lo, hi, count);
                    }
                }
                MODE_LIST => {
                    let listed = input.list()?;
                    match &mut client {
                        Some((difference, need_max)) => {
                            compare(set, lo, hi, listed, difference);
                            if difference.need.len() as u64 > *need_max {
                                return Err(MessageError::bad("more ids than the peer's facts say"));
                            }
                            output.skip(hi);
                        }
                        None => output.answer_list(lo, hi, &listed),
                    }
                }
                _ => return Err(MessageError::bad("an unknown negentropy mode")),
            }
            if output.is_full() {
                output.close();
                break;
            }
            lo = hi;
        }
        Ok(output.encoder.bytes)
    }
}

/// Compares a list of the server with the own items of the range, page by page.
fn compare(
    set: &dyn Ranges,
    mut lo: RangeBound,
    hi: RangeBound,
    listed: BTreeSet<[u8; 32]>,
    difference: &mut Difference,
) {
    let mut theirs = listed;
    loop {
        let page = set.list(&lo, &hi, PAGE + 1);
        for (_, id) in page.iter().take(PAGE) {
            if !theirs.remove(id) {
                difference.have.insert(*id);
            }
        }
        let Some((order, id)) = page.get(PAGE) else { break };
        lo = RangeBound { order: *order, id: *id };
    }
    difference.need.extend(theirs);
}

/// A message being written. Ranges with nothing to say are joined into one skip, written only when another follows.
struct Output<'a> {
    splitter: Splitter,
    set: &'a dyn Ranges,
    encoder: Encoder,
    skipped: Option<RangeBound>,
    /// Whether a list was cut because the message is full.
    cut: bool,
}

impl<'a> Output<'a> {
    fn new(splitter: Splitter, set: &'a dyn Ranges) -> Self {
        Self { splitter, set, encoder: Encoder::new(), skipped: None, cut: false }
    }

    fn skip(&mut self, hi: RangeBound) {
        self.skipped = Some(hi);
    }

    fn flush_skip(&mut self) {
        if let Some(hi) = self.skipped.take() {
            self.encoder.skip(&hi);
        }
    }

    fn is_full(&self) -> bool {
        self.cut || self.encoder.bytes.len() > self.splitter.bytes_max - RESERVE
    }

    /// A range that differs: its ids when they are few, else its parts. `count` is how many items it has.
    fn split(&mut self, lo: RangeBound, hi: RangeBound, count: u64) {
        self.flush_skip();
        if count < LISTED_BELOW as u64 {
            return self.encoder.ids(&self.set.list(&lo, &hi, LISTED_BELOW), &hi);
        }
        let (from, parts) = self.parts(lo, hi, count);
        if lo < from {
            self.encoder.ids(&[], &from);
        }
        let mut empty = None;
        for (end, part, sum) in parts {
            if part == 0 {
                empty = Some(end);
                continue;
            }
            if let Some(end) = empty.take() {
                self.encoder.ids(&[], &end);
            }
            self.encoder.fingerprint(&(self.splitter.fingerprint)(&sum, part), &end);
        }
        if empty.is_some() || self.encoder.end() < hi {
            self.encoder.ids(&[], &hi);
        }
    }

    /// The parts of a range with at least two items, as (end, count, sum), and where the first one begins. While all
    /// items are in one part, that one is cut further: a crowded key costs a few more sums here, not a round each.
    fn parts(&self, lo: RangeBound, hi: RangeBound, count: u64) -> (RangeBound, Vec<(RangeBound, u64, IdSum)>) {
        let (mut from, mut to) = (lo, hi);
        loop {
            let mut start = from;
            let mut parts = Vec::with_capacity(PARTS);
            for end in cut::inside(&from, &to).into_iter().chain([to]) {
                let (count, sum) = self.set.sum(&start, &end);
                parts.push((start, end, count, sum));
                start = end;
            }
            let crowded = parts.iter().find(|(.., part, _)| *part >= count).filter(|_| parts.len() > 1);
            match crowded {
                Some((start, end, ..)) => (from, to) = (*start, *end),
                None => return (from, parts.into_iter().map(|(_, end, count, sum)| (end, count, sum)).collect()),
            }
        }
    }

    /// The server's answer to a list: its own ids of the range, as many as fit; nothing when they are the same.
    fn answer_list(&mut self, lo: RangeBound, hi: RangeBound, listed: &BTreeSet<[u8; 32]>) {
        let used = self.encoder.bytes.len() + RESERVE / 2;
        let room = self.splitter.bytes_max.saturating_sub(used) / size_of::<[u8; 32]>();
        let mut own = self.set.list(&lo, &hi, room + 1);
        if own.len() == listed.len() && own.iter().all(|(_, id)| listed.contains(id)) {
            return self.skip(hi);
        }
        self.flush_skip();
        let end = match own.get(room) {
            Some((order, id)) => RangeBound { order: *order, id: *id },
            None => hi,
        };
        self.cut = own.len() > room;
        own.truncate(room);
        self.encoder.ids(&own, &end);
    }

    /// One fingerprint over everything behind the last range.
    fn close(&mut self) {
        self.flush_skip();
        let lo = self.encoder.end();
        if lo < RangeBound::END {
            let (count, sum) = self.set.sum(&lo, &RangeBound::END);
            self.encoder.fingerprint(&(self.splitter.fingerprint)(&sum, count), &RangeBound::END);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(number: u64) -> (u64, [u8; 32]) {
        (number % 50, sealtide_crypto::sha256(&number.to_be_bytes()))
    }

    /// Runs both roles with a small message size until the client is done.
    fn run_pair(client: &Run, server: &Run, bytes_max: usize) -> (Difference, usize) {
        let splitter = Splitter::with_bytes_max(bytes_max);
        let (mut difference, mut rounds) = (Difference::default(), 0);
        let mut message = Some(splitter.initiate(client));
        while let Some(query) = message {
            rounds += 1;
            assert!(rounds < 200, "the runs do not end");
            let answer = splitter.server(server, &query).unwrap();
            assert!(answer.len() <= bytes_max, "{} bytes", answer.len());
            message = splitter.client(client, &answer, &mut difference, u64::MAX).unwrap();
        }
        (difference, rounds)
    }

    #[test]
    fn small_messages_give_the_same_result_as_large_ones() {
        let client = Run::new((0..3000).map(item).collect());
        let server = Run::new((200..3700).map(item).collect());
        for bytes_max in [4096, 10_000, FRAME_BYTES_MAX] {
            let (difference, _) = run_pair(&client, &server, bytes_max);
            assert_eq!(difference.have, (0..200).map(|n| item(n).1).collect());
            assert_eq!(difference.need, (3000..3700).map(|n| item(n).1).collect());
        }
    }

    /// Crowded keys: one order key, ids that share their first bytes, order keys that differ in the last bit.
    #[test]
    fn crowded_keys_cost_no_rounds() {
        let prefixed = |number: u64| {
            let mut id = sealtide_crypto::sha256(&number.to_be_bytes());
            id[..20].fill(7);
            id
        };
        let makers: [&dyn Fn(u64) -> (u64, [u8; 32]); 4] = [
            &|n| (1 << 62, sealtide_crypto::sha256(&n.to_be_bytes())),
            &|n| (u64::MAX - 1, prefixed(n)),
            &|n| (n, sealtide_crypto::sha256(&n.to_be_bytes())),
            &|n| (n & 1 | 8, prefixed(n)),
        ];
        for (which, make) in makers.iter().enumerate() {
            let all: Vec<_> = (0..5000).map(make).collect();
            let (client, server) = (Run::new(all[..4999].to_vec()), Run::new(all[1..].to_vec()));
            let (difference, rounds) = run_pair(&client, &server, FRAME_BYTES_MAX);
            assert_eq!(difference.have, BTreeSet::from([all[0].1]));
            assert_eq!(difference.need, BTreeSet::from([all[4999].1]));
            assert!(rounds <= 3, "{rounds} rounds for {which}");
        }
    }

    /// A full message is cut inside the list of a range, and goes on there.
    #[test]
    fn a_long_list_is_cut_and_continued() {
        let server = Run::new((0..2000).map(|n| (5, item(n).1)).collect());
        let (difference, rounds) = run_pair(&Run::default(), &server, 8192);
        assert_eq!(difference.need.len(), 2000);
        assert!(rounds > 5, "{rounds} rounds");
        let (difference, _) = run_pair(&server, &Run::default(), 8192);
        assert_eq!(difference.have.len(), 2000);
    }

    #[test]
    fn equal_lists_are_not_repeated() {
        let run = Run::new((0..20).map(item).collect());
        let splitter = Splitter::default();
        assert_eq!(splitter.server(&run, &splitter.initiate(&run)).unwrap().len(), 1);
    }
}
