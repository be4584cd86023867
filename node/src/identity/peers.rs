//! Whose device a node is: what was proven last time. One row of the store's settings for each peer.

use std::collections::BTreeMap;

use sealtide_ibgib::Address;
use sealtide_identity::NodeId;
use sealtide_store::Store;

use super::frames::StoreTrouble;
use super::live::Brought;

/// What is known of the identities of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// First frame of the device keystone that proved the node.
    pub device: Address,
    /// First frame of the owner that the device named last and that delegated it.
    pub owner: Option<Address>,
    /// Every owner that the node ever named and that delegated it, with the device that it named it with. What becomes of
    /// them binds the node, whatever device it makes for itself later.
    pub owners: BTreeMap<Address, Address>,
    /// What this peer brought of late.
    pub brought: Brought,
}

/// Owners that one node may ever name.
pub(super) const OWNERS_MAX: usize = 8;
/// What the names of the rows begin with.
pub const PEER_SETTINGS: &str = "identity/peer/";

fn key(node: &NodeId) -> String {
    format!("{PEER_SETTINGS}{node}")
}

impl PeerIdentity {
    /// The row of a peer.
    pub(super) fn of(store: &Store, node: &NodeId) -> Option<Self> {
        let bytes = store.facts().setting(&key(node)).unwrap_or_else(|error| {
            tracing::error!(%error, "what this node knows could not be read");
            None
        })?;
        Self::parse(std::str::from_utf8(&bytes).ok()?)
    }

    /// Writes the row, durably.
    pub(super) fn put(&self, store: &Store, node: &NodeId) -> Result<(), StoreTrouble> {
        store.facts().put_setting(&key(node), Some(self.text().as_bytes())).map_err(StoreTrouble::of)
    }

    fn text(&self) -> String {
        let owner = self.owner.as_ref().map_or("-", Address::as_str);
        let Brought { day, frames, bytes } = self.brought;
        let owners = self.owners.iter().map(|(owner, device)| format!("\nowner {owner} {device}"));
        format!("{}\n{owner}\n{frames} {bytes}\nday {day}{}", self.device, owners.collect::<String>())
    }

    /// Lines that are missing, as in rows of before, or that a later version adds mean nothing.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let device = Address::parse(lines.next()?).ok()?;
        let owner = match lines.next()? {
            "-" => None,
            owner => Some(Address::parse(owner).ok()?),
        };
        let (frames, bytes) = lines.next()?.split_once(' ')?;
        let mut brought = Brought { day: 0, frames: frames.parse().ok()?, bytes: bytes.parse().ok()? };
        let mut owners: BTreeMap<Address, Address> =
            owner.iter().map(|owner| (owner.clone(), device.clone())).collect();
        for line in lines {
            match line.split_once(' ') {
                Some(("day", day)) => brought.day = day.parse().ok()?,
                Some(("owner", pair)) => {
                    let (owner, with) = pair.split_once(' ')?;
                    owners.insert(Address::parse(owner).ok()?, Address::parse(with).ok()?);
                }
                _ => {}
            }
        }
        Some(Self { device, owner, owners, brought })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let first = |digit: &str| Address::parse(&format!("keystone^{}", digit.repeat(64))).unwrap();
        for owner in [None, Some(first("B"))] {
            let owners =
                owner.iter().map(|owner| (owner.clone(), first("C"))).chain([(first("D"), first("A"))]).collect();
            let brought = Brought { day: 5, frames: 3, bytes: 4 };
            let row = PeerIdentity { device: first("A"), owner, owners, brought };
            assert_eq!(PeerIdentity::parse(&row.text()), Some(row));
        }
        // As it was before all owners were kept, and days counted: too old to count.
        let before = PeerIdentity::parse(&format!("{}\n{}\n3 4", first("A"), first("B"))).unwrap();
        assert_eq!(before.owners, [(first("B"), first("A"))].into());
        let before = PeerIdentity::parse(&format!("{}\n-\n65536 4", first("A"))).unwrap();
        assert_eq!(before.brought, Brought { day: 0, frames: 65_536, bytes: 4 });
        assert_eq!(PeerIdentity::parse("x"), None);
    }
}
