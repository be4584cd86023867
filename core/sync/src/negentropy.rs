//! Negentropy V1: codec and splitter over one sorted run of (order key, id). Spec: ibgib §13.3.
//!
//! The client starts with [`initiate`] and feeds every answer to [`reconcile_client`] until it has nothing more to
//! say; the server answers with [`reconcile_server`] and keeps no state between messages. Ranges are cut into 16
//! parts by rank, ranges under 32 ids are listed; whatever correct splitting a peer uses is understood. Both sides
//! stay below [`FRAME_BYTES_MAX`] by closing a message with one fingerprint over all that is left.

use std::collections::BTreeSet;

use crate::{IdSum, MessageError};

/// Bytes of one negentropy message.
pub const FRAME_BYTES_MAX: usize = 1_000_000;

const VERSION: u8 = 0x61;
const PARTS: usize = 16;
const LISTED_BELOW: usize = 2 * PARTS;
const ID_BYTES: usize = 32;
/// Room for the closing fingerprint and the bound before it.
const RESERVE: usize = 200;
/// Entries between two stored sums.
const STRIDE: usize = 64;
/// The order key that stands for the end of everything.
const INFINITY: u64 = u64::MAX;

const MODE_SKIP: u64 = 0;
const MODE_FINGERPRINT: u64 = 1;
const MODE_LIST: u64 = 2;

/// A sorted run of items with stored sums, so that a range's fingerprint costs at most 128 additions.
#[derive(Clone, Debug)]
pub struct Run {
    items: Vec<(u64, [u8; 32])>,
    /// `sums[i]` is the sum of the first `i * STRIDE` ids.
    sums: Vec<IdSum>,
}

impl Run {
    /// Takes items in any order; equal items count once.
    pub fn new(mut items: Vec<(u64, [u8; 32])>) -> Self {
        items.sort_unstable();
        items.dedup();
        let mut sum = IdSum::default();
        let mut sums = vec![sum];
        for stride in items.chunks(STRIDE) {
            stride.iter().for_each(|(_, id)| sum.add(id));
            sums.push(sum);
        }
        Self { items, sums }
    }

    /// How many items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether the item is in the run.
    pub fn contains(&self, order: u64, id: &[u8; 32]) -> bool {
        self.items.binary_search(&(order, *id)).is_ok()
    }

    fn fingerprint(&self, lower: usize, upper: usize) -> [u8; 16] {
        let mut sum = self.sum_below(upper);
        sum.sub(&self.sum_below(lower).0);
        fingerprint(&sum, (upper - lower) as u64)
    }

    fn sum_below(&self, end: usize) -> IdSum {
        let stored = end / STRIDE;
        let mut sum = self.sums[stored];
        self.items[stored * STRIDE..end].iter().for_each(|(_, id)| sum.add(id));
        sum
    }

    /// The first position, from `from`, that is not below `bound`.
    fn position(&self, from: usize, bound: &Bound) -> usize {
        from + self.items[from..].partition_point(|(order, id)| (*order, &id[..]) < (bound.order, &bound.prefix[..]))
    }
}

impl Default for Run {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

/// First 16 bytes of SHA-256(sum, little-endian ‖ varint count).
pub fn fingerprint(sum: &IdSum, count: u64) -> [u8; 16] {
    let mut input = sum.0.to_vec();
    write_varint(&mut input, count);
    let digest = sealtide_crypto::sha256(&input);
    let mut out = [0; 16];
    out.copy_from_slice(&digest[..16]);
    out
}

/// What the client learnt so far.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    /// Ids that only the client has.
    pub have: BTreeSet<[u8; 32]>,
    /// Ids that only the server has.
    pub need: BTreeSet<[u8; 32]>,
}

/// The client's first message.
pub fn initiate(run: &Run) -> Vec<u8> {
    let mut output = Output::new();
    output.split(run, 0, run.len(), &Bound::infinite());
    output.bytes
}

/// The client takes an answer: its next message, or `None` when everything is known.
///
/// # Errors
/// [`MessageError`] when the bytes are no negentropy V1, or name more than `need_max` ids.
pub fn reconcile_client(
    run: &Run,
    message: &[u8],
    difference: &mut Difference,
    need_max: u64,
) -> Result<Option<Vec<u8>>, MessageError> {
    let answer = reconcile(run, message, FRAME_BYTES_MAX, Some((difference, need_max)))?;
    Ok((answer.len() > 1).then_some(answer))
}

/// The server answers a message.
///
/// # Errors
/// [`MessageError`] when the bytes are no negentropy V1.
pub fn reconcile_server(run: &Run, message: &[u8]) -> Result<Vec<u8>, MessageError> {
    reconcile(run, message, FRAME_BYTES_MAX, None)
}

fn reconcile(
    run: &Run,
    message: &[u8],
    bytes_max: usize,
    mut client: Option<(&mut Difference, u64)>,
) -> Result<Vec<u8>, MessageError> {
    let mut input = Input { left: message, order: 0 };
    if input.byte()? != VERSION {
        return Err(MessageError::bad("not negentropy V1"));
    }
    let mut output = Output::new();
    let mut lower = 0;
    let mut last = Bound { order: 0, prefix: Vec::new() };
    while !input.left.is_empty() {
        let bound = input.bound()?;
        if (bound.order, &bound.prefix) < (last.order, &last.prefix) {
            return Err(MessageError::bad("negentropy bounds that step back"));
        }
        let upper = run.position(lower, &bound);
        match input.varint()? {
            MODE_SKIP => output.skip(&bound),
            MODE_FINGERPRINT => {
                if input.fixed::<16>()? == run.fingerprint(lower, upper) {
                    output.skip(&bound);
                } else {
                    output.split(run, lower, upper, &bound);
                }
            }
            MODE_LIST => {
                let listed = input.list()?;
                match &mut client {
                    Some((difference, need_max)) => {
                        compare(run, lower, upper, listed, difference);
                        if difference.need.len() as u64 > *need_max {
                            return Err(MessageError::bad("more ids than the peer's facts say"));
                        }
                        output.skip(&bound);
                    }
                    None => output.list(run, lower, upper, &bound, bytes_max),
                }
            }
            _ => return Err(MessageError::bad("an unknown negentropy mode")),
        }
        if output.full || output.bytes.len() > bytes_max - RESERVE {
            output.close(run);
            break;
        }
        (lower, last) = (upper, bound);
    }
    Ok(output.bytes)
}

fn compare(run: &Run, lower: usize, upper: usize, listed: BTreeSet<[u8; 32]>, difference: &mut Difference) {
    let mut theirs = listed;
    for (_, id) in &run.items[lower..upper] {
        if !theirs.remove(id) {
            difference.have.insert(*id);
        }
    }
    difference.need.extend(theirs);
}

/// The end of a range: everything below (order, prefix padded with zeros).
#[derive(Clone, Debug)]
struct Bound {
    order: u64,
    prefix: Vec<u8>,
}

impl Bound {
    fn infinite() -> Self {
        Self { order: INFINITY, prefix: Vec::new() }
    }

    /// The shortest bound that is above `before` and not above `item`.
    fn between(before: &(u64, [u8; 32]), item: &(u64, [u8; 32])) -> Self {
        if before.0 != item.0 {
            return Self { order: item.0, prefix: Vec::new() };
        }
        let shared = before.1.iter().zip(&item.1).take_while(|(a, b)| a == b).count();
        Self { order: item.0, prefix: item.1[..shared + 1].to_vec() }
    }
}

/// A message being written. Ranges with nothing to say are joined into one skip, written only when another follows.
struct Output {
    bytes: Vec<u8>,
    order: u64,
    skipped: Option<Bound>,
    /// Where the last range written ends, as a position in the run.
    written: usize,
    /// Whether a list was cut because the message is full.
    full: bool,
}

impl Output {
    fn new() -> Self {
        Self { bytes: vec![VERSION], order: 0, skipped: None, written: 0, full: false }
    }

    fn skip(&mut self, bound: &Bound) {
        self.skipped = Some(bound.clone());
    }

    fn flush_skip(&mut self) {
        if let Some(bound) = self.skipped.take() {
            self.bound(&bound);
            write_varint(&mut self.bytes, MODE_SKIP);
        }
    }

    fn split(&mut self, run: &Run, lower: usize, upper: usize, bound: &Bound) {
        self.flush_skip();
        let count = upper - lower;
        if count < LISTED_BELOW {
            self.ids(run, lower, upper, bound);
            return;
        }
        let mut from = lower;
        for part in 0..PARTS {
            let to = from + count / PARTS + usize::from(part < count % PARTS);
            let end = if to == upper { bound.clone() } else { Bound::between(&run.items[to - 1], &run.items[to]) };
            self.bound(&end);
            write_varint(&mut self.bytes, MODE_FINGERPRINT);
            self.bytes.extend_from_slice(&run.fingerprint(from, to));
            from = to;
        }
        self.written = upper;
    }

    /// The answer to a list: the own ids of the range, as many as fit.
    fn list(&mut self, run: &Run, lower: usize, upper: usize, bound: &Bound, bytes_max: usize) {
        self.flush_skip();
        let room = bytes_max.saturating_sub(RESERVE + self.bytes.len()) / ID_BYTES;
        if upper - lower <= room {
            return self.ids(run, lower, upper, bound);
        }
        let cut = lower + room;
        let (order, id) = run.items[cut];
        self.ids(run, lower, cut, &Bound { order, prefix: id.to_vec() });
        self.full = true;
    }

    fn ids(&mut self, run: &Run, lower: usize, upper: usize, bound: &Bound) {
        self.bound(bound);
        write_varint(&mut self.bytes, MODE_LIST);
        write_varint(&mut self.bytes, (upper - lower) as u64);
        run.items[lower..upper].iter().for_each(|(_, id)| self.bytes.extend_from_slice(id));
        self.written = upper;
    }

    /// One fingerprint over everything behind the last range written.
    fn close(&mut self, run: &Run) {
        if self.order != INFINITY {
            self.bound(&Bound::infinite());
            write_varint(&mut self.bytes, MODE_FINGERPRINT);
            self.bytes.extend_from_slice(&run.fingerprint(self.written, run.len()));
        }
    }

    fn bound(&mut self, bound: &Bound) {
        let delta = if bound.order == INFINITY { 0 } else { bound.order - self.order + 1 };
        self.order = bound.order;
        write_varint(&mut self.bytes, delta);
        write_varint(&mut self.bytes, bound.prefix.len() as u64);
        self.bytes.extend_from_slice(&bound.prefix);
    }
}

/// A message being read.
struct Input<'a> {
    left: &'a [u8],
    order: u64,
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], MessageError> {
        let (taken, rest) = self.left.split_at_checked(count).ok_or(MessageError::bad("truncated negentropy"))?;
        self.left = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, MessageError> {
        Ok(self.take(1)?[0])
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn varint(&mut self) -> Result<u64, MessageError> {
        let mut value = 0u64;
        loop {
            let byte = self.byte()?;
            if value >> 57 != 0 {
                return Err(MessageError::bad("a negentropy number over 64 bits"));
            }
            value = value << 7 | u64::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
    }

    fn bound(&mut self) -> Result<Bound, MessageError> {
        self.order = match self.varint()? {
            0 => INFINITY,
            delta => self.order.saturating_add(delta - 1),
        };
        let length = self.varint()?;
        if length > ID_BYTES as u64 {
            return Err(MessageError::bad("a negentropy bound over 32 bytes"));
        }
        Ok(Bound { order: self.order, prefix: self.take(length as usize)?.to_vec() })
    }

    fn list(&mut self) -> Result<BTreeSet<[u8; 32]>, MessageError> {
        let count = self.varint()?;
        if count > (self.left.len() / ID_BYTES) as u64 {
            return Err(MessageError::bad("truncated negentropy"));
        }
        (0..count).map(|_| self.fixed()).collect()
    }
}

/// Base 128, most significant digit first.
fn write_varint(out: &mut Vec<u8>, value: u64) {
    let digits = (64 - value.leading_zeros()).div_ceil(7).max(1);
    for digit in (0..digits).rev() {
        let more = if digit == 0 { 0 } else { 0x80 };
        out.push((value >> (7 * digit)) as u8 & 0x7f | more);
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
        let (mut difference, mut rounds) = (Difference::default(), 0);
        let mut message = Some(initiate(client));
        while let Some(query) = message {
            rounds += 1;
            assert!(rounds < 200, "the runs do not end");
            let answer = reconcile(server, &query, bytes_max, None).unwrap();
            assert!(answer.len() < bytes_max + 2000, "{} bytes", answer.len());
            let next = reconcile(client, &answer, bytes_max, Some((&mut difference, u64::MAX))).unwrap();
            message = (next.len() > 1).then_some(next);
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

    #[test]
    fn a_varint_has_its_digits_in_order() {
        for value in [0, 1, 127, 128, 300, 1 << 35, u64::MAX] {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, value);
            let mut input = Input { left: &bytes, order: 0 };
            assert_eq!(input.varint(), Ok(value));
            assert!(input.left.is_empty());
        }
        assert!(Input { left: &[0xff; 11], order: 0 }.varint().is_err());
    }
}
