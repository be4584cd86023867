//! `HOME/identity.key`: the secrets of the own keystones, and what tells a restored or copied home. Spec: identity
//!
//! ```text
//! sealtide identity key 1
//! generation 17            own frames that were signed so far
//! marker <64 hex>          the machine and the place of the home
//! sessions 3               sessions authorised by earlier device frames are never used again
//! working <64 hex>
//! device <address>         its key is the node key, in node.key
//! owner <address> <64 hex> the seed of its ML-DSA-87 key
//! ```
//!
//! A [`SecretFile`]: replaced whole, read by nobody else, sealed where a passphrase is set.

use std::io;

use data_encoding::HEXLOWER;
use sealtide_crypto::{SEED_BYTES, Seed};
use sealtide_ibgib::Address;
use sealtide_identity::keystone::WorkingSecret;
use zeroize::Zeroizing;

use crate::seal::SecretFile;

/// The first line of the file.
const HEAD: &str = "sealtide identity key 1";

/// What the key file holds.
pub(super) struct Keys {
    /// All pools but those of the root come from it.
    pub(super) working: WorkingSecret,
    /// First frame of the device keystone.
    pub(super) device: Option<Address>,
    /// First frame of the owner keystone that this node signs for, and the seed of its key.
    pub(super) owner: Option<(Address, Seed)>,
    /// How many own frames were signed.
    pub(super) generation: u64,
    /// Sessions that were authorised by device frames with a lower n are not used.
    pub(super) sessions_from: u64,
    /// Where the home was when this was written.
    pub(super) marker: [u8; 32],
}

/// A key file that is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {0} of the key file is damaged")]
pub(super) struct Damaged(usize);

impl Keys {
    /// The text of the file.
    pub(super) fn text(&self) -> Zeroizing<String> {
        // Room for everything: a growing text would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(2048));
        let mut line = |word: &str, parts: &[&str]| {
            text.push_str(word);
            for part in parts {
                text.push(' ');
                text.push_str(part);
            }
            text.push('\n');
        };
        line(HEAD, &[]);
        line("generation", &[&self.generation.to_string()]);
        line("marker", &[&HEXLOWER.encode(&self.marker)]);
        line("sessions", &[&self.sessions_from.to_string()]);
        line("working", &[&hex(self.working.expose())]);
        if let Some(device) = &self.device {
            line("device", &[device.as_str()]);
        }
        if let Some((owner, seed)) = &self.owner {
            line("owner", &[owner.as_str(), &hex(seed.expose())]);
        }
        text
    }

    /// Reads the text of the file; every line once, in its order.
    pub(super) fn parse(text: &str) -> Result<Self, Damaged> {
        let mut lines = text.lines().enumerate().peekable();
        let mut next = |word: &str| -> Option<(usize, &str)> {
            let (at, line) = lines.next_if(|(_, line)| line.split(' ').next() == Some(word))?;
            Some((at + 1, line.get(word.len() + 1..).unwrap_or_default()))
        };
        let head = next("sealtide").filter(|(_, rest)| HEAD.ends_with(rest));
        head.ok_or(Damaged(1))?;
        let (at, generation) = next("generation").ok_or(Damaged(2))?;
        let generation = generation.parse().map_err(|_| Damaged(at))?;
        let (at, marker) = next("marker").ok_or(Damaged(3))?;
        let marker = *read_hex(marker).ok_or(Damaged(at))?;
        let (at, sessions_from) = next("sessions").ok_or(Damaged(4))?;
        let sessions_from = sessions_from.parse().map_err(|_| Damaged(at))?;
        let (at, working) = next("working").ok_or(Damaged(5))?;
        let working = WorkingSecret::from_bytes(*read_hex(working).ok_or(Damaged(at))?);
        let device = match next("device") {
            Some((at, first)) => Some(Address::parse(first).map_err(|_| Damaged(at))?),
            None => None,
        };
        let owner = match next("owner") {
            Some((at, rest)) => {
                let (first, seed) = rest.split_once(' ').ok_or(Damaged(at))?;
                let first = Address::parse(first).map_err(|_| Damaged(at))?;
                Some((first, Seed::from_bytes(*read_hex(seed).ok_or(Damaged(at))?)))
            }
            None => None,
        };
        match lines.next() {
            Some((at, _)) => Err(Damaged(at + 1)),
            None => Ok(Self { working, device, owner, generation, sessions_from, marker }),
        }
    }
}

fn hex(bytes: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(HEXLOWER.encode(bytes))
}

fn read_hex(text: &str) -> Option<Zeroizing<[u8; SEED_BYTES]>> {
    let bytes = Zeroizing::new(HEXLOWER.decode(text.as_bytes()).ok()?);
    Some(Zeroizing::new(bytes.as_slice().try_into().ok()?))
}

/// Where a key file lies. The tests have one in memory whose power fails.
pub trait KeyPlace: Send + Sync {
    /// The whole text; `None` when there is no file.
    ///
    /// # Errors
    /// When it cannot be read, or others can read it.
    fn read(&self) -> io::Result<Option<Zeroizing<String>>>;

    /// Replaces the text, durably: afterwards there is the old text or the new one, whatever happens.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write(&self, text: &str) -> io::Result<()>;
}

impl KeyPlace for SecretFile {
    fn read(&self) -> io::Result<Option<Zeroizing<String>>> {
        Self::read(self)
    }

    fn write(&self, text: &str) -> io::Result<()> {
        Self::write(self, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(owner: bool) -> Keys {
        let first = |digit: &str| Address::parse(&format!("keystone^{}", digit.repeat(64))).unwrap();
        Keys {
            working: WorkingSecret::from_bytes([0xAB; 32]),
            device: Some(first("A")),
            owner: owner.then(|| (first("B"), Seed::from_bytes([0xCD; 32]))),
            generation: 17,
            sessions_from: 3,
            marker: [7; 32],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for owner in [false, true] {
            let text = keys(owner).text();
            let read = Keys::parse(&text).unwrap();
            assert_eq!(*read.text(), *text);
            assert_eq!((read.generation, read.sessions_from, read.owner.is_some()), (17, 3, owner));
        }
    }

    #[test]
    fn damage_is_told_by_line_and_without_the_secret() {
        let text = keys(true).text();
        for (line, _) in text.lines().enumerate() {
            let damaged: Vec<String> = text
                .lines()
                .enumerate()
                .map(|(at, text)| if at == line { format!("{}!", &text[..text.len() - 2]) } else { text.to_owned() })
                .collect();
            let error = Keys::parse(&damaged.join("\n")).err().unwrap_or_else(|| panic!("line {} was read", line + 1));
            assert_eq!(error, Damaged(line + 1));
            assert!(!error.to_string().contains("ab"), "{error}");
        }
        assert_eq!(Keys::parse("").err(), Some(Damaged(1)));
        assert_eq!(Keys::parse(&format!("{}more\n", *text)).err(), Some(Damaged(8)));
    }
}
