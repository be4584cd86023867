//! Bounds, numbers and ranges of negentropy V1 as bytes. Spec: ibgib §13.3.
//!
//! A message is the version byte and a list of ranges: bound (order key as the difference to the one before plus one,
//! 0 for the end; length and bytes of an id prefix), mode, content. A range begins where the one before ended.

use std::collections::BTreeSet;

use crate::{MessageError, RangeBound};

const VERSION: u8 = 0x61;
const ID_BYTES: usize = 32;
/// The order key that stands for the end of everything.
const INFINITY: u64 = u64::MAX;

pub(super) const MODE_SKIP: u64 = 0;
pub(super) const MODE_FINGERPRINT: u64 = 1;
pub(super) const MODE_LIST: u64 = 2;

/// Writes ranges.
pub(super) struct Encoder {
    pub(super) bytes: Vec<u8>,
    end: RangeBound,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { bytes: vec![VERSION], end: RangeBound::START }
    }

    /// Where the last range written ends.
    pub(super) fn end(&self) -> RangeBound {
        self.end
    }

    pub(super) fn skip(&mut self, hi: &RangeBound) {
        self.bound(hi);
        write_varint(&mut self.bytes, MODE_SKIP);
    }

    pub(super) fn fingerprint(&mut self, fingerprint: &[u8; 16], hi: &RangeBound) {
        self.bound(hi);
        write_varint(&mut self.bytes, MODE_FINGERPRINT);
        self.bytes.extend_from_slice(fingerprint);
    }

    pub(super) fn ids(&mut self, items: &[(u64, [u8; 32])], hi: &RangeBound) {
        self.bound(hi);
        write_varint(&mut self.bytes, MODE_LIST);
        write_varint(&mut self.bytes, items.len() as u64);
        items.iter().for_each(|(_, id)| self.bytes.extend_from_slice(id));
    }

    fn bound(&mut self, bound: &RangeBound) {
        // Zeros at the end of a prefix say nothing: a reader fills up with zeros.
        let length = bound.id.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let delta = if bound.order == INFINITY { 0 } else { bound.order - self.end.order + 1 };
        self.end = *bound;
        write_varint(&mut self.bytes, delta);
        write_varint(&mut self.bytes, length as u64);
        self.bytes.extend_from_slice(&bound.id[..length]);
    }
}

/// A message being read.
pub(super) struct Input<'a> {
    left: &'a [u8],
    order: u64,
}

impl<'a> Input<'a> {
    pub(super) fn new(message: &'a [u8]) -> Result<Self, MessageError> {
        let mut input = Self { left: message, order: 0 };
        if input.byte()? == VERSION { Ok(input) } else { Err(MessageError::bad("not negentropy V1")) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], MessageError> {
        let (taken, rest) = self.left.split_at_checked(count).ok_or(MessageError::bad("truncated negentropy"))?;
        self.left = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, MessageError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(super) fn varint(&mut self) -> Result<u64, MessageError> {
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

    pub(super) fn bound(&mut self) -> Result<RangeBound, MessageError> {
        self.order = match self.varint()? {
            0 => INFINITY,
            delta => self.order.saturating_add(delta - 1),
        };
        let length = self.varint()?;
        if length > ID_BYTES as u64 {
            return Err(MessageError::bad("a negentropy bound over 32 bytes"));
        }
        let mut id = [0; ID_BYTES];
        id[..length as usize].copy_from_slice(self.take(length as usize)?);
        Ok(RangeBound { order: self.order, id })
    }

    pub(super) fn list(&mut self) -> Result<BTreeSet<[u8; 32]>, MessageError> {
        let count = self.varint()?;
        if count > (self.left.len() / ID_BYTES) as u64 {
            return Err(MessageError::bad("truncated negentropy"));
        }
        (0..count).map(|_| self.fixed()).collect()
    }
}

/// Base 128, most significant digit first.
pub(super) fn write_varint(out: &mut Vec<u8>, value: u64) {
    let digits = (64 - value.leading_zeros()).div_ceil(7).max(1);
    for digit in (0..digits).rev() {
        let more = if digit == 0 { 0 } else { 0x80 };
        out.push((value >> (7 * digit)) as u8 & 0x7f | more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_has_its_digits_in_order() {
        for value in [0, 1, 127, 128, 300, 1 << 35, u64::MAX] {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, value);
            let mut input = Input { left: &bytes, order: 0 };
            assert_eq!(input.varint(), Ok(value));
            assert!(input.is_empty());
        }
        assert!(Input { left: &[0xff; 11], order: 0 }.varint().is_err());
    }

    #[test]
    fn a_bound_is_written_short_and_read_back() {
        let mut id = [0; 32];
        (id[0], id[2]) = (9, 4);
        let bounds = [
            RangeBound { order: 3, id: [0; 32] },
            RangeBound { order: 3, id },
            RangeBound { order: u64::MAX - 1, id: [0xff; 32] },
            RangeBound::END,
        ];
        let mut encoder = Encoder::new();
        bounds.iter().for_each(|bound| encoder.skip(bound));
        assert_eq!(encoder.bytes[1..10], [4, 0, 0, 1, 3, 9, 0, 4, 0]);
        let mut input = Input::new(&encoder.bytes).unwrap();
        for bound in bounds {
            assert_eq!((input.bound(), input.varint()), (Ok(bound), Ok(MODE_SKIP)));
        }
        assert!(input.is_empty());
    }
}
