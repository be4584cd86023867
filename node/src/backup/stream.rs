//! The file of a backup: a head, then pieces, each sealed or hashed, in their order, the last one marked.
//!
//! ```text
//! "sealtide backup 1" 0A, length u32 of seal.key, seal.key (nothing where no passphrase is set), 16 random bytes
//! for each piece: length u32, sealed or hashed [last: 0 or 1, up to 1 MiB]
//! ```
//!
//! What binds a piece to its place is its context: the hash of the head and the number of the piece. So a piece that is missing, doubled
//! or of another backup is found as one whose bytes were changed.

use std::io::{self, ErrorKind, Read, Write};

use sealtide_crypto::{Blake3, Entropy, SealingKey, sha256};
use zeroize::Zeroizing;

use super::damaged;
use crate::failure::Failure;
use crate::world::OsEntropy;

const HEAD: &[u8] = b"sealtide backup 1\n";
/// Bytes of one piece before it is sealed.
const PIECE: usize = 1024 * 1024;
/// Bytes that sealing or hashing adds, at most, and the mark.
const MORE: usize = 64;
/// Bytes of a `seal.key`, at most.
const SEAL_MAX: usize = 4096;
const HASH_BYTES: usize = 32;

/// What seals pieces, or only hashes them where the home has no passphrase.
struct Pieces {
    seal: Option<SealingKey>,
    head_hash: [u8; 32],
    number: u64,
}

impl Pieces {
    fn context(&mut self) -> Vec<u8> {
        let context = [HEAD, &self.head_hash, &self.number.to_be_bytes()].concat();
        self.number += 1;
        context
    }

    fn close(&mut self, plain: &[u8]) -> Vec<u8> {
        let context = self.context();
        match &self.seal {
            Some(seal) => seal.seal(&context, plain, &mut OsEntropy),
            None => [plain, &hash(&context, plain)].concat(),
        }
    }

    fn open(&mut self, closed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let context = self.context();
        match &self.seal {
            Some(seal) => seal.open(&context, closed).ok(),
            None => {
                let (plain, told) = closed.split_at_checked(closed.len().checked_sub(HASH_BYTES)?)?;
                (hash(&context, plain) == told).then(|| Zeroizing::new(plain.to_vec()))
            }
        }
    }
}

fn hash(context: &[u8], plain: &[u8]) -> [u8; HASH_BYTES] {
    let mut hash = Blake3::new();
    hash.update(context);
    hash.update(plain);
    hash.finish()
}

/// Takes the bytes of items.
pub(super) struct BackupWriter<W> {
    out: W,
    pieces: Pieces,
    piece: Zeroizing<Vec<u8>>,
}

impl<W: Write> BackupWriter<W> {
    /// Begins a file; `seal` with the text of `seal.key`, where the home has a passphrase.
    pub(super) fn begin(mut out: W, seal: Option<(SealingKey, String)>) -> io::Result<Self> {
        let (seal, text) = seal.map_or((None, String::new()), |(seal, text)| (Some(seal), text));
        let mut drawn = [0; 16];
        OsEntropy.fill(&mut drawn);
        let head = [HEAD, &(text.len() as u32).to_be_bytes(), text.as_bytes(), &drawn].concat();
        out.write_all(&head)?;
        let pieces = Pieces { seal, head_hash: sha256(&head), number: 0 };
        Ok(Self { out, pieces, piece: empty() })
    }

    /// Marks the next bytes as those of an item. Exactly `size` bytes follow.
    pub(super) fn item(&mut self, name: &str, size: u64) -> io::Result<()> {
        let length = u16::try_from(name.len()).map_err(|_| ErrorKind::InvalidInput)?;
        self.write_all(&length.to_be_bytes())?;
        self.write_all(name.as_bytes())?;
        self.write_all(&size.to_be_bytes())
    }

    /// Writes what waits, and the end.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.write_all(&0u16.to_be_bytes())?;
        self.piece[0] = 1;
        self.put()?;
        Ok(self.out)
    }

    fn put(&mut self) -> io::Result<()> {
        let closed = self.pieces.close(&self.piece);
        self.piece = empty();
        self.out.write_all(&(closed.len() as u32).to_be_bytes())?;
        self.out.write_all(&closed)
    }
}

fn empty() -> Zeroizing<Vec<u8>> {
    let mut piece = Zeroizing::new(Vec::with_capacity(PIECE + 1));
    piece.push(0);
    piece
}

impl<W: Write> Write for BackupWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The last piece is marked when it is known to be the last.
        if self.piece.len() > PIECE {
            self.put()?;
        }
        let room = (PIECE + 1 - self.piece.len()).min(bytes.len());
        self.piece.extend_from_slice(&bytes[..room]);
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives the bytes of items, every one of them checked.
pub(super) struct BackupReader<R> {
    from: R,
    pieces: Pieces,
    piece: Zeroizing<Vec<u8>>,
    at: usize,
    is_last: bool,
}

/// What a backup begins with.
pub(super) struct BackupHead {
    /// The text of `seal.key`; empty where no passphrase was set.
    pub(super) seal: String,
    hash: [u8; 32],
}

impl BackupHead {
    pub(super) fn read(from: &mut impl Read) -> Result<Self, Failure> {
        let mut head = vec![0; HEAD.len() + 4];
        from.read_exact(&mut head).map_err(|_| damaged("is no backup of a home"))?;
        let (begin, length) = head.split_at(HEAD.len());
        let length = length.try_into().map(u32::from_be_bytes).map_or(usize::MAX, |length| length as usize);
        if begin != HEAD || length > SEAL_MAX {
            return Err(damaged("is no backup of a home"));
        }
        let mut rest = vec![0; length + 16];
        from.read_exact(&mut rest).map_err(|_| damaged("ends too early"))?;
        let seal = std::str::from_utf8(&rest[..length]).map_err(|_| damaged("was changed"))?.to_owned();
        Ok(Self { seal, hash: sha256(&[head, rest].concat()) })
    }
}

impl<R: Read> BackupReader<R> {
    /// Goes on behind the head.
    pub(super) fn new(from: R, head: &BackupHead, seal: Option<SealingKey>) -> Self {
        let pieces = Pieces { seal, head_hash: head.hash, number: 0 };
        Self { from, pieces, piece: Zeroizing::new(Vec::new()), at: 0, is_last: false }
    }

    /// Name and size of the next item; none at the end.
    pub(super) fn item(&mut self) -> Result<Option<(String, u64)>, Failure> {
        let mut length = [0; 2];
        self.exactly(&mut length)?;
        let mut name = vec![0; usize::from(u16::from_be_bytes(length))];
        if name.is_empty() {
            let mut more = [0; 1];
            let is_end = self.is_last && self.at == self.piece.len() && self.from.read(&mut more)? == 0;
            return if is_end { Ok(None) } else { Err(damaged("goes on behind its end")) };
        }
        self.exactly(&mut name)?;
        let mut size = [0; 8];
        self.exactly(&mut size)?;
        let name = String::from_utf8(name).map_err(|_| damaged("was changed"))?;
        Ok(Some((name, u64::from_be_bytes(size))))
    }

    /// Hands over the `size` bytes of an item, in pieces.
    pub(super) fn bytes(&mut self, size: u64, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), Failure> {
        let mut left = size;
        while left > 0 {
            self.fill()?;
            let most = (self.piece.len() - self.at).min(usize::try_from(left).unwrap_or(usize::MAX));
            take(&self.piece[self.at..self.at + most])?;
            self.at += most;
            left -= most as u64;
        }
        Ok(())
    }

    fn exactly(&mut self, out: &mut [u8]) -> Result<(), Failure> {
        let mut at = 0;
        self.bytes(out.len() as u64, |bytes| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
            Ok(())
        })
    }

    /// At least one byte more.
    fn fill(&mut self) -> Result<(), Failure> {
        while self.at == self.piece.len() {
            if self.is_last {
                return Err(damaged("ends too early"));
            }
            let mut length = [0; 4];
            self.from.read_exact(&mut length).map_err(|_| damaged("ends too early"))?;
            let length = u32::from_be_bytes(length) as usize;
            if length > PIECE + MORE {
                return Err(damaged("was changed"));
            }
            let mut closed = vec![0; length];
            self.from.read_exact(&mut closed).map_err(|_| damaged("ends too early"))?;
            self.piece = self.pieces.open(&closed).ok_or_else(|| damaged("was changed"))?;
            self.is_last = match self.piece.first() {
                Some(0) => false,
                Some(1) => true,
                _ => return Err(damaged("was changed")),
            };
            self.at = 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Items = Vec<(String, Vec<u8>)>;

    fn items() -> Items {
        let long: Vec<u8> = (0..2_500_000u32).map(|at| (at % 251) as u8).collect();
        vec![("a".to_owned(), b"one".to_vec()), ("empty".to_owned(), Vec::new()), ("b/long".to_owned(), long)]
    }

    fn write(seal: Option<&SealingKey>) -> Vec<u8> {
        let seal = seal.map(|seal| (seal.clone(), "a seal".to_owned()));
        let mut writer = BackupWriter::begin(Vec::new(), seal).unwrap();
        for (name, bytes) in items() {
            writer.item(&name, bytes.len() as u64).unwrap();
            writer.write_all(&bytes).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8], seal: Option<&SealingKey>) -> Result<Items, Failure> {
        let mut from = bytes;
        let head = BackupHead::read(&mut from)?;
        let mut reader = BackupReader::new(from, &head, seal.cloned());
        let mut found = Vec::new();
        while let Some((name, size)) = reader.item()? {
            let mut all = Vec::new();
            reader.bytes(size, |bytes| {
                all.extend_from_slice(bytes);
                Ok(())
            })?;
            found.push((name, all));
        }
        Ok(found)
    }

    #[test]
    fn what_was_written_comes_back_and_nothing_else() {
        let seal = SealingKey::generate(&mut OsEntropy);
        for seal in [None, Some(&seal)] {
            let bytes = write(seal);
            assert_eq!(read(&bytes, seal).unwrap(), items());
            let shows = bytes.windows(6).any(|six| six == b"b/long");
            assert_eq!(shows, seal.is_none(), "a sealed one shows no name");
            // Any byte that is changed, wherever it is, and any end that is not the end.
            for at in (0..bytes.len()).step_by(bytes.len() / 97).chain([0, 20, 30, 60, bytes.len() - 1]) {
                let mut odd = bytes.clone();
                odd[at] ^= 1;
                assert!(read(&odd, seal).is_err(), "byte {at}");
                assert!(read(&bytes[..at], seal).is_err(), "cut at {at}");
            }
            assert!(read(&[&bytes[..], b"x"].concat(), seal).is_err(), "longer");
        }
        let sealed = write(Some(&seal));
        assert!(read(&sealed, Some(&SealingKey::generate(&mut OsEntropy))).is_err(), "another seal");
        assert!(read(&sealed, None).is_err());
    }

    #[test]
    fn pieces_of_another_backup_or_place_are_refused() {
        let (one, two) = (write(None), write(None));
        let head = HEAD.len() + 4 + 16;
        let piece = 4 + PIECE + 1 + HASH_BYTES;
        let mixed = [&one[..head + piece], &two[head + piece..]].concat();
        assert!(read(&mixed, None).is_err());
        let turned =
            [&one[..head], &one[head + piece..head + 2 * piece], &one[head..head + piece], &one[head + 2 * piece..]];
        assert!(read(&turned.concat(), None).is_err());
        let left_out = [&one[..head + piece], &one[head + 2 * piece..]].concat();
        assert!(read(&left_out, None).is_err());
    }
}
