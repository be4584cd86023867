//! Bytes on their way to TLS: small ones are collected, large ones stay where they are and are sealed out of there.
//! Spec: link C.9.4.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// From this size on a piece is not copied: below it a copy costs less than a slice more.
const KEPT_BYTES: usize = 2 * 1024;
/// Pieces that are handed on in one go.
pub(crate) const SLICES: usize = 64;

/// A queue of bytes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    pieces: VecDeque<Bytes>,
    /// Bytes in `pieces`.
    bytes: usize,
    /// What follows them.
    tail: BytesMut,
}

impl Outgoing {
    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes + self.tail.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The end of the queue, for whoever appends there.
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends `piece`, without a copy when it is large.
    pub(crate) fn push(&mut self, piece: Bytes) {
        if piece.len() < KEPT_BYTES {
            self.tail.extend_from_slice(&piece);
            return;
        }
        self.seal_tail();
        self.bytes += piece.len();
        self.pieces.push_back(piece);
    }

    /// The first bytes, as many as `slices` can hold; gives the number of slices.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let tail = Some(&self.tail[..]).filter(|tail| !tail.is_empty());
        let all = self.pieces.iter().map(|piece| &piece[..]).chain(tail);
        let mut count = 0;
        for (slot, piece) in slices.iter_mut().zip(all) {
            *slot = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    /// Writes what `stream` takes of it; `Ready` when nothing is left.
    ///
    /// # Errors
    /// Those of `stream`.
    pub(crate) fn poll_write<S>(&mut self, cx: &mut Context<'_>, stream: &mut S) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while !self.is_empty() {
            let mut pieces = [IoSlice::new(&[]); SLICES];
            let count = self.slices(&mut pieces);
            match ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &pieces[..count]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Drops the first `count` bytes. There must be as many.
    pub(crate) fn advance(&mut self, mut count: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let gone = count.min(piece.len());
            self.bytes -= gone;
            count -= gone;
            if gone < piece.len() {
                piece.advance(gone);
                return;
            }
            self.pieces.pop_front();
        }
        self.tail.advance(count);
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.bytes += self.tail.len();
            self.pieces.push_back(self.tail.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_leave_in_order_however_they_are_taken(
            sizes in proptest::collection::vec((0usize..5_000, any::<bool>()), 0..200), step in 1usize..9_000,
        ) {
            let (mut out, mut expected) = (Outgoing::default(), Vec::new());
            for (at, (size, appended)) in sizes.into_iter().enumerate() {
                let piece = vec![at as u8; size];
                expected.extend_from_slice(&piece);
                if appended { out.tail().extend_from_slice(&piece) } else { out.push(piece.into()) }
                prop_assert_eq!(out.len(), expected.len());
            }
            let mut got = Vec::new();
            while !out.is_empty() {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = out.slices(&mut slices);
                // No more than is taken: one byte a step would read all of it for each byte.
                let there = slices[..count].iter().flat_map(|slice| slice.iter().copied());
                let before = got.len();
                got.extend(there.take(step));
                let taken = got.len() - before;
                prop_assert!(taken > 0);
                out.advance(taken);
            }
            prop_assert!(got == expected);
        }
    }
}
