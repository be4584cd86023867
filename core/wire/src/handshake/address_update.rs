//! ADDR_UPDATE: where the sender is now. Spec: link C.10.

use sealtide_identity::{
    ADDRESS_COUNT_MAX, LinkAddress, RELAY_COUNT_MAX, ReadError, Reader, RelayHint, read_addresses, read_relays,
};

use super::established::ticket_rule;

/// The address and relay parts of ESTABLISHED, on their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressUpdate {
    /// Where the sender listens; the first 8 are told.
    pub addresses: Vec<LinkAddress>,
    /// The relays that it is logged in at; the first 4 are told.
    pub relays: Vec<RelayHint>,
}

impl AddressUpdate {
    /// The payload: `n_addr u8 × address 20 | n_relay u8 × { relay_id 32 | url var8 }`.
    pub fn payload(&self) -> Vec<u8> {
        let addresses = &self.addresses[..self.addresses.len().min(ADDRESS_COUNT_MAX)];
        let mut out = vec![addresses.len() as u8];
        addresses.iter().for_each(|address| out.extend_from_slice(&address.to_bytes()));
        let relays = &self.relays[..self.relays.len().min(RELAY_COUNT_MAX)];
        out.push(relays.len() as u8);
        relays.iter().for_each(|relay| relay.write(&mut out));
        out
    }

    /// Reads a payload. Which of the addresses may be dialled, the reader decides.
    ///
    /// # Errors
    /// The rule that is broken: the session ends with ABORT.
    pub fn read(payload: &[u8]) -> Result<Self, &'static str> {
        let mut reader = Reader::new(payload);
        let addresses = read_addresses(&mut reader).map_err(ticket_rule)?;
        let relays = read_relays(&mut reader).map_err(ticket_rule)?;
        reader.end().map_err(ReadError::rule)?;
        Ok(Self { addresses, relays })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sealtide_identity::NodeId;

    use super::*;

    fn update() -> AddressUpdate {
        let address = |text: &str| LinkAddress { source: 4, socket: text.parse().unwrap() };
        AddressUpdate {
            addresses: vec![address("192.0.2.1:443"), address("[2001:db8::1]:7443")],
            relays: vec![RelayHint { relay: NodeId::from_bytes([7; 32]), url: "wss://relay.example".into() }],
        }
    }

    #[test]
    fn update_reads_back_and_takes_no_byte_more_or_less() {
        let payload = update().payload();
        assert_eq!(AddressUpdate::read(&payload), Ok(update()));
        for cut in 0..payload.len() {
            assert!(AddressUpdate::read(&payload[..cut]).is_err(), "{cut}");
        }
        assert!(AddressUpdate::read(&[&payload[..], &[0]].concat()).is_err());
        assert_eq!(AddressUpdate::read(&[0, 0]), Ok(AddressUpdate::default()));
    }

    proptest! {
        /// The twin of the fuzz target: what is read is written again as it came.
        #[test]
        fn any_update_is_refused_or_written_as_read(
            at in 0usize..200, value: u8, cut in 0usize..200, raw in proptest::collection::vec(any::<u8>(), 0..80)
        ) {
            let mut payload = update().payload();
            if let Some(byte) = payload.get_mut(at) { *byte = value; }
            payload.truncate(payload.len() - cut.min(payload.len()) / 8);
            for bytes in [payload, raw] {
                if let Ok(read) = AddressUpdate::read(&bytes) {
                    prop_assert_eq!(read.payload(), bytes);
                }
            }
        }
    }
}
