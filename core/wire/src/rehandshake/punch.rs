//! PUNCH: both ends dial each other at the same moment, through translators that let in what was asked for.
//! Spec: link C.10.

use sealtide_identity::{ADDRESS_COUNT_MAX, LearnedFrom, LinkAddress, ReadError, Reader, TicketError, read_addresses};

use crate::session::PathId;

/// One attempt, announced inside the session by the end that will be the dialler of the re-handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Punch {
    /// The number that the REQUEST on the new path will carry: a connection with another one is refused.
    pub path: PathId,
    /// How long after its arrival the peer begins, in ms.
    pub start_in_ms: u16,
    /// Where translators show the sender; the first 8 are told.
    pub addresses: Vec<LinkAddress>,
}

impl Punch {
    /// The payload: `path_id u32 | start_in_ms u16 | n u8 × address 20`.
    pub fn payload(&self) -> Vec<u8> {
        let addresses = &self.addresses[..self.addresses.len().min(ADDRESS_COUNT_MAX)];
        let mut out = self.path.0.to_be_bytes().to_vec();
        out.extend_from_slice(&self.start_in_ms.to_be_bytes());
        out.push(addresses.len() as u8);
        addresses.iter().for_each(|address| out.extend_from_slice(&address.to_bytes()));
        out
    }

    /// Reads a payload; addresses that must not be dialled are left out. Spec: LK-24, LK-107.
    ///
    /// # Errors
    /// The rule that is broken: the session ends with ABORT.
    pub fn read(payload: &[u8]) -> Result<Self, &'static str> {
        let mut reader = Reader::new(payload);
        let path = PathId(u32::from_be_bytes(reader.array().map_err(ReadError::rule)?));
        let start_in_ms = u16::from_be_bytes(reader.array().map_err(ReadError::rule)?);
        let mut addresses = read_addresses(&mut reader).map_err(|error| match error {
            TicketError::Malformed(rule) => rule,
            _ => "an address breaks its layout",
        })?;
        reader.end().map_err(ReadError::rule)?;
        addresses.retain(|address| address.may_be_dialled(LearnedFrom::Punch));
        Ok(Self { path, start_in_ms, addresses })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn punch(addresses: &[&str]) -> Punch {
        let address = |text: &&str| LinkAddress { source: 2, socket: text.parse().unwrap() };
        Punch { path: PathId(7), start_in_ms: 40, addresses: addresses.iter().map(address).collect() }
    }

    #[test]
    fn punch_reads_back_and_takes_no_byte_more_or_less() {
        let sent = punch(&["203.0.113.2:7443", "[2001:db8::2]:7443"]);
        let payload = sent.payload();
        assert_eq!(payload.len(), 4 + 2 + 1 + 40);
        assert_eq!(Punch::read(&payload), Ok(sent));
        for cut in 0..payload.len() {
            assert!(Punch::read(&payload[..cut]).is_err(), "{cut}");
        }
        assert!(Punch::read(&[&payload[..], &[0]].concat()).is_err());
    }

    /// A peer cannot have this node dial itself, a group, or a service below 1024.
    // Proves: LK-24
    #[test]
    fn loopback_addr_and_the_like_are_never_punched() {
        let bad = ["127.0.0.1:7443", "[::1]:7443", "224.0.0.1:7443", "0.0.0.0:7443", "203.0.113.2:22"];
        let good = punch(&["203.0.113.2:443"]);
        let mut sent = punch(&bad);
        sent.addresses.extend(good.addresses.clone());
        assert_eq!(Punch::read(&sent.payload()), Ok(good));
        let many: Vec<_> = (0..9).map(|_| "203.0.113.2:7443").collect();
        let mut payload = punch(&many).payload();
        assert_eq!(Punch::read(&payload).unwrap().addresses.len(), 8, "a writer leaves out the ninth");
        payload[6] = 9;
        payload.extend_from_slice(&punch(&["203.0.113.2:7443"]).addresses[0].to_bytes());
        assert!(Punch::read(&payload).is_err(), "a reader takes 8");
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_within_bounds(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(read) = Punch::read(&raw) {
                prop_assert!(read.addresses.len() <= 8);
            }
        }
    }
}
