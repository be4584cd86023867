//! What this node knows for itself: peers, grants, invites, names of spaces, unfinished sagas.
//!
//! A thin reading of the store's facts in the words of this crate. Reads that fail are logged and give nothing: a node
//! that cannot read its grants lets nobody do anything.

use std::collections::BTreeMap;

use sealtide_ibgib::Sid;
use sealtide_identity::{Grant, Invite, InviteId, NodeId, SpaceId};
use sealtide_store::{EnrolError, FactsError, Peer, SpaceLabel, Store};
use sealtide_sync::SagaId;

use crate::real::now;

/// The facts of a store.
#[derive(Clone)]
pub struct Known(Store);

/// A saga that a cut or a kill left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSaga {
    /// Where.
    pub space: SpaceId,
    /// Which.
    pub saga: SagaId,
    /// Whether its COMMIT was under way, so that the peer must be asked what became of it.
    pub commit_sent: bool,
}

/// Why a record is here and the chunks that it lists may not be. Only contents of old releases are: releases §6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// Given up here, to make room.
    GivenUp,
    /// Whoever brought the record did not have them.
    NeverCame,
    /// They did not come with the record, and are here since they were fetched: what the store tells of the bytes of the space does
    /// not count them.
    CameLater,
}

impl Absence {
    const ALL: [(u8, Self); 3] = [(b'g', Self::GivenUp), (b'n', Self::NeverCame), (b'l', Self::CameLater)];

    /// Whether the chunks may be missing now.
    pub fn is_away(self) -> bool {
        self != Self::CameLater
    }

    fn byte(self) -> u8 {
        Self::ALL.into_iter().find(|(_, absence)| *absence == self).map_or(0, |(byte, _)| byte)
    }
}

/// Records of a space whose contents are, or were, not here.
pub type Absences = BTreeMap<Sid, Absence>;

/// What the names of the rows of [`Known::absences`] begin with.
pub const ABSENT_SETTINGS: &str = "content/absent/";
/// Bytes of one record in such a row: why, and its sid.
const ABSENT_BYTES: usize = 33;

impl Known {
    /// The facts of `store`.
    pub fn of(store: &Store) -> Self {
        Self(store.clone())
    }

    /// All peers.
    pub fn peers(&self) -> Vec<Peer> {
        logged(self.0.facts().peers())
    }

    /// One peer.
    pub fn peer(&self, node: &NodeId) -> Option<Peer> {
        logged(self.0.facts().peer(node))
    }

    /// What a peer is called here; nothing when it has no name.
    pub fn peer_name(&self, node: &NodeId) -> Option<String> {
        self.peer(node).map(|peer| peer.name).filter(|name| !name.is_empty())
    }

    /// Writes a peer, whole: under the lock of `Node::with_peers`, or a revocation that came in between is taken back.
    ///
    /// # Errors
    /// As the store reports.
    pub(crate) fn put_peer(&self, peer: &Peer) -> Result<(), FactsError> {
        self.0.facts().put_peer(peer)
    }

    /// Marks a peer as thrown out; its grants go, its row stays. A part of [`crate::node::Node::revoke_peer`].
    ///
    /// # Errors
    /// As the store reports.
    pub(crate) fn revoke_peer(&self, node: &NodeId) -> Result<bool, FactsError> {
        self.0.facts().revoke_peer(node)
    }

    /// All grants.
    pub fn grants(&self) -> Vec<Grant> {
        logged(self.0.facts().grants())
    }

    /// The grant of a node in a space.
    pub fn grant(&self, space: &SpaceId, node: &NodeId) -> Option<Grant> {
        logged(self.0.facts().grant(space, node))
    }

    /// Writes a grant.
    ///
    /// # Errors
    /// As the store reports.
    pub fn put_grant(&self, grant: &Grant) -> Result<(), FactsError> {
        self.0.facts().put_grant(grant)
    }

    /// Takes all grants of a space away.
    ///
    /// # Errors
    /// As the store reports.
    pub fn remove_grants_in(&self, space: &SpaceId) -> Result<(), FactsError> {
        for grant in self.grants().iter().filter(|grant| grant.space == *space) {
            self.0.facts().remove_grant(space, &grant.node)?;
        }
        Ok(())
    }

    /// All invites.
    pub fn invites(&self) -> Vec<Invite> {
        logged(self.0.facts().invites())
    }

    /// One invite.
    pub fn invite(&self, id: &InviteId) -> Option<Invite> {
        logged(self.0.facts().invite(id))
    }

    /// Writes an invite.
    ///
    /// # Errors
    /// As the store reports.
    pub fn put_invite(&self, invite: &Invite) -> Result<(), FactsError> {
        self.0.facts().put_invite(invite)
    }

    /// Takes an invite back.
    ///
    /// # Errors
    /// As the store reports.
    pub fn remove_invite(&self, id: &InviteId) -> Result<bool, FactsError> {
        self.put_setting(&device_invite_key(id), None)?;
        self.0.facts().remove_invite(id)
    }

    /// Writes down that an invite is for another device of the same owner: it lets into more than its own space.
    ///
    /// # Errors
    /// As the store reports.
    pub fn note_device_invite(&self, id: &InviteId) -> Result<(), FactsError> {
        self.put_setting(&device_invite_key(id), Some("all"))
    }

    /// Whether an invite is one for a device.
    pub fn is_device_invite(&self, id: &InviteId) -> bool {
        self.setting(&device_invite_key(id)).is_some()
    }

    /// Writes down that an invite for a device has let this one into all that it opens.
    ///
    /// # Errors
    /// As the store reports.
    pub fn note_device_let_in(&self, id: &InviteId, device: &NodeId) -> Result<(), FactsError> {
        let before = self.setting(&device_invite_key(id)).unwrap_or_default();
        self.put_setting(&device_invite_key(id), Some(&format!("{before} {device}")))
    }

    /// Whether an invite for a device has let this one in already.
    pub fn was_device_let_in(&self, id: &InviteId, device: &NodeId) -> bool {
        let row = self.setting(&device_invite_key(id)).unwrap_or_default();
        row.split(' ').any(|word| word == device.to_string())
    }

    /// Writes down that the own owner is to delegate a device as soon as it can, or that it has.
    ///
    /// # Errors
    /// As the store reports.
    pub fn note_awaits_owner(&self, device: &NodeId, awaits: bool) -> Result<(), FactsError> {
        self.put_setting(&format!("device/awaiting/{device}"), awaits.then_some("delegation"))
    }

    /// Whether the own owner is to delegate a device.
    pub fn awaits_owner(&self, device: &NodeId) -> bool {
        self.setting(&format!("device/awaiting/{device}")).is_some()
    }

    /// The node whose owner this device is to speak for as soon as that one delegates it, or nobody.
    ///
    /// # Errors
    /// As the store reports.
    pub fn note_device_of(&self, node: Option<&NodeId>) -> Result<(), FactsError> {
        self.put_setting(DEVICE_OF, node.map(ToString::to_string).as_deref())
    }

    /// The node whose owner this device waits for.
    pub fn device_of(&self) -> Option<NodeId> {
        self.setting(DEVICE_OF)?.parse().ok()
    }

    /// Takes one use of an invite and enrols a node, in one durable step. `None`: the invite enrolled it before, and what
    /// that granted was spent or taken away.
    ///
    /// # Errors
    /// When the invite is not open any more, or the store fails.
    pub fn enrol(&self, id: &InviteId, node: NodeId) -> Result<Option<Grant>, EnrolError> {
        self.0.facts().enrol(id, node, now())
    }

    /// Takes back what an invite granted to a node that could be made no member: it has its use again, and lets that node in when
    /// there is room.
    ///
    /// # Errors
    /// As the store reports.
    pub fn unenrol(&self, grant: &Grant) -> Result<(), FactsError> {
        if let Some(id) = grant.invite.filter(|id| self.was_device_let_in(id, &grant.node)) {
            let device = grant.node.to_string();
            let others = |row: &str| row.split(' ').filter(|word| *word != device).collect::<Vec<_>>().join(" ");
            self.change_setting(&device_invite_key(&id), |row| row.map(others))?;
        }
        self.0.facts().unenrol(grant)
    }

    /// A setting, as text.
    pub fn setting(&self, key: &str) -> Option<String> {
        logged(self.0.facts().setting(key)).and_then(|bytes| String::from_utf8(bytes).ok())
    }

    /// Writes a setting, or takes it away.
    ///
    /// # Errors
    /// As the store reports.
    pub fn put_setting(&self, key: &str, value: Option<&str>) -> Result<(), FactsError> {
        self.0.facts().put_setting(key, value.map(str::as_bytes))
    }

    /// Writes several settings in one step.
    ///
    /// # Errors
    /// As the store reports; then none is written.
    pub fn put_settings(&self, settings: &[(&str, &str)]) -> Result<(), FactsError> {
        self.0.facts().put_settings(settings.iter().map(|(key, value)| (*key, Some(value.as_bytes()))))
    }

    /// Changes a setting that is text in one step, durably: `change` gets what it is and gives what it becomes.
    ///
    /// # Errors
    /// As the store reports.
    pub fn change_setting(
        &self,
        key: &str,
        change: impl FnOnce(Option<&str>) -> Option<String>,
    ) -> Result<(), FactsError> {
        self.0.facts().change_setting(key, |row| {
            change(row.and_then(|row| std::str::from_utf8(row).ok())).map(String::into_bytes)
        })
    }

    /// The records of a space whose contents are, or were, not here.
    pub fn absences(&self, space: &SpaceId) -> Absences {
        read_absences(&logged(self.0.facts().setting(&absent_key(space))).unwrap_or_default())
    }

    /// Changes, durably, whose contents are not here, in one step: a saga may write some down while others are fetched. Nothing is
    /// written where nothing is new.
    ///
    /// # Errors
    /// As the store reports.
    pub fn change_absences(&self, space: &SpaceId, change: impl FnOnce(&mut Absences)) -> Result<(), FactsError> {
        self.0.facts().change_setting(&absent_key(space), |row| {
            let mut absences = read_absences(row.unwrap_or_default());
            change(&mut absences);
            let row = absences.iter().flat_map(|(sid, absence)| [&[absence.byte()][..], &sid.0].concat());
            Some(row.collect()).filter(|row: &Vec<u8>| !row.is_empty())
        })
    }

    /// How every space is called here, and where it stands.
    pub fn labels(&self) -> Vec<(SpaceId, SpaceLabel)> {
        logged(self.0.facts().labels())
    }

    /// How one space is called here.
    pub fn label(&self, space: &SpaceId) -> Option<SpaceLabel> {
        self.labels().into_iter().find(|(id, _)| id == space).map(|(_, label)| label)
    }

    /// Writes the label of a space, or takes it away.
    ///
    /// # Errors
    /// As the store reports.
    pub fn put_label(&self, space: &SpaceId, label: Option<&SpaceLabel>) -> Result<(), FactsError> {
        self.0.facts().put_label(space, label)
    }

    /// The saga with a peer over a space that was left open, if any.
    pub fn open_saga(&self, peer: &NodeId, space: &SpaceId) -> Option<OpenSaga> {
        let bytes = logged(self.0.facts().setting(&saga_key(peer, space)))?;
        let (saga, sent) = bytes.split_first_chunk::<32>()?;
        Some(OpenSaga { space: *space, saga: SagaId(*saga), commit_sent: sent == [1] })
    }

    /// Writes down a saga that must be taken up again after a cut.
    ///
    /// # Errors
    /// As the store reports.
    pub fn note_open_saga(&self, peer: &NodeId, open: &OpenSaga) -> Result<(), FactsError> {
        let mut bytes = open.saga.0.to_vec();
        bytes.push(u8::from(open.commit_sent));
        self.0.facts().put_setting(&saga_key(peer, &open.space), Some(&bytes))
    }

    /// Forgets the saga: it is over.
    ///
    /// # Errors
    /// As the store reports.
    pub fn clear_open_saga(&self, peer: &NodeId, space: &SpaceId) -> Result<(), FactsError> {
        // Most sagas were never written down; those need no durable write to be forgotten.
        if self.open_saga(peer, space).is_none() {
            return Ok(());
        }
        self.0.facts().put_setting(&saga_key(peer, space), None)
    }
}

/// The row of [`Known::device_of`].
const DEVICE_OF: &str = "device/of";

fn device_invite_key(id: &InviteId) -> String {
    format!("device/invite/{}", data_encoding::HEXLOWER.encode(id))
}

fn absent_key(space: &SpaceId) -> String {
    format!("{ABSENT_SETTINGS}{space}")
}

fn read_absences(row: &[u8]) -> Absences {
    let read = |row: &[u8]| {
        let (byte, sid) = row.split_first()?;
        let (_, absence) = Absence::ALL.into_iter().find(|(known, _)| known == byte)?;
        Some((Sid(sid.try_into().ok()?), absence))
    };
    row.chunks_exact(ABSENT_BYTES).filter_map(read).collect()
}

fn saga_key(peer: &NodeId, space: &SpaceId) -> String {
    format!("saga/{peer}/{space}")
}

fn logged<T: Default>(read: Result<T, FactsError>) -> T {
    read.unwrap_or_else(|error| {
        tracing::error!(%error, "what this node knows could not be read");
        T::default()
    })
}
