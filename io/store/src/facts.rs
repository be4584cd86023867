//! The small facts that are not in the log: peers, grants, invites, settings and local names, in redb. Every change
//! is one durable transaction. Spec: ibgib §12.5, link C.3.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use sealtide_crypto::Now;
use sealtide_identity::{
    Grant, Invite, InviteId, InviteRefused, InviteSecret, LinkAddress, NodeId, RelayHint, Role, SpaceId,
};

use crate::disk::{Disk, FACTS_FILE};
use crate::error::OpenError;

const PEERS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("peers");
/// Key: space ‖ node.
const GRANTS: TableDefinition<&[u8; 64], &[u8]> = TableDefinition::new("grants");
const INVITES: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("invites");
const SETTINGS: TableDefinition<&str, &[u8]> = TableDefinition::new("settings");
const LABELS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("labels");
/// Memory that redb may use for pages.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// Room on the disk that opening again after a failure may take.
const ROOM_BYTES: u64 = 4 * 1024 * 1024;

/// A node that this one knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub node: NodeId,
    /// Local name; may be empty.
    pub name: String,
    /// Where it was reachable last.
    pub addresses: Vec<LinkAddress>,
    /// Relays that lead to it.
    pub relays: Vec<RelayHint>,
    /// Since when it is known, ms since 1970.
    pub added_ms: u64,
    /// Last link, ms since 1970; 0 = never.
    pub last_seen_ms: u64,
    /// Whether it was thrown out. The row stays, so that an old invite does not let it in again.
    pub revoked: bool,
}

impl Peer {
    /// A peer that was just met.
    pub fn new(node: NodeId, now: Now) -> Self {
        let (name, addresses, relays) = (String::new(), Vec::new(), Vec::new());
        Self { node, name, addresses, relays, added_ms: now.wall_ms, last_seen_ms: 0, revoked: false }
    }
}

/// How a space is called here, and which directory shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpaceLabel {
    /// Local name.
    pub name: String,
    /// `folder` or `data`.
    pub kind: String,
    /// The directory of a shared folder, as the user gave it, made absolute.
    pub dir: Option<String>,
}

/// Why a fact was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FactsError {
    /// redb reports an error; a change did not happen.
    #[error("{FACTS_FILE}: {0}")]
    Database(#[source] Box<redb::Error>),
    /// A row that this version did not write.
    #[error("{FACTS_FILE}: a row of `{0}` cannot be read")]
    BadRow(&'static str),
}

/// Why an invite let nobody in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// There is no such invite here: never was, or it was revoked.
    #[error("there is no such invite")]
    Unknown,
    /// It is over.
    #[error(transparent)]
    Refused(#[from] InviteRefused),
    /// The node was thrown out since this invite let it in; only a new invite lets it in again.
    #[error("the node was revoked")]
    Revoked,
    /// Nothing was changed.
    #[error(transparent)]
    Facts(#[from] FactsError),
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for FactsError {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }

        impl From<$error> for EnrolError {
            fn from(error: $error) -> Self {
                Self::Facts(error.into())
            }
        }
    )*};
}

from_redb!(redb::DatabaseError, redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

#[derive(Encode, Decode)]
struct PeerRow {
    #[n(0)]
    name: String,
    /// 20 bytes each, link C.10.
    #[n(1)]
    addresses: Vec<ByteArray<20>>,
    #[n(2)]
    relays: Vec<RelayRow>,
    #[n(3)]
    added_ms: u64,
    #[n(4)]
    last_seen_ms: u64,
    #[n(5)]
    revoked: bool,
}

#[derive(Encode, Decode)]
struct RelayRow {
    #[n(0)]
    relay: ByteArray<32>,
    #[n(1)]
    url: String,
}

#[derive(Encode, Decode)]
struct GrantRow {
    #[n(0)]
    role: u8,
    #[n(1)]
    since_ms: u64,
    #[n(2)]
    invite: Option<ByteArray<16>>,
}

#[derive(Encode, Decode)]
struct InviteRow {
    #[n(0)]
    secret: ByteArray<32>,
    #[n(1)]
    space: ByteArray<32>,
    #[n(2)]
    role: u8,
    #[n(3)]
    expires_ms: u64,
    #[n(4)]
    uses_left: u32,
    #[n(5)]
    enrolled: Vec<ByteArray<32>>,
    /// Not in rows of before.
    #[n(6)]
    refused: Option<Vec<ByteArray<32>>>,
}

#[derive(Encode, Decode)]
struct LabelRow {
    #[n(0)]
    name: String,
    #[n(1)]
    kind: String,
    #[n(2)]
    dir: Option<String>,
}

fn encode(row: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(row).expect("writing to memory cannot fail")
}

fn decode<'a, T: Decode<'a, ()>>(table: &'static str, bytes: &'a [u8]) -> Result<T, FactsError> {
    minicbor::decode(bytes).map_err(|_| FactsError::BadRow(table))
}

fn role_byte(role: Role) -> u8 {
    match role {
        Role::Read => 1,
        Role::Write => 2,
        Role::Admin => 3,
    }
}

fn role_of(table: &'static str, byte: u8) -> Result<Role, FactsError> {
    match byte {
        1 => Ok(Role::Read),
        2 => Ok(Role::Write),
        3 => Ok(Role::Admin),
        _ => Err(FactsError::BadRow(table)),
    }
}

fn peer_row(peer: &Peer) -> Vec<u8> {
    let relay = |hint: &RelayHint| RelayRow { relay: (*hint.relay.as_bytes()).into(), url: hint.url.clone() };
    encode(&PeerRow {
        name: peer.name.clone(),
        addresses: peer.addresses.iter().map(|address| address.to_bytes().into()).collect(),
        relays: peer.relays.iter().map(relay).collect(),
        added_ms: peer.added_ms,
        last_seen_ms: peer.last_seen_ms,
        revoked: peer.revoked,
    })
}

fn peer_of(node: &[u8; 32], bytes: &[u8]) -> Result<Peer, FactsError> {
    let row: PeerRow = decode("peers", bytes)?;
    let relay = |row: RelayRow| RelayHint { relay: NodeId::from_bytes(*row.relay), url: row.url };
    Ok(Peer {
        node: NodeId::from_bytes(*node),
        name: row.name,
        addresses: row.addresses.iter().filter_map(|address| LinkAddress::from_bytes(address)).collect(),
        relays: row.relays.into_iter().map(relay).collect(),
        added_ms: row.added_ms,
        last_seen_ms: row.last_seen_ms,
        revoked: row.revoked,
    })
}

fn grant_key(space: &SpaceId, node: &NodeId) -> [u8; 64] {
    let mut key = [0; 64];
    key[..32].copy_from_slice(space.as_bytes());
    key[32..].copy_from_slice(node.as_bytes());
    key
}

fn grant_row(grant: &Grant) -> Vec<u8> {
    let invite = grant.invite.map(ByteArray::from);
    encode(&GrantRow { role: role_byte(grant.role), since_ms: grant.since_ms, invite })
}

fn grant_of(key: &[u8; 64], bytes: &[u8]) -> Result<Grant, FactsError> {
    let row: GrantRow = decode("grants", bytes)?;
    let (mut space, mut node) = ([0; 32], [0; 32]);
    space.copy_from_slice(&key[..32]);
    node.copy_from_slice(&key[32..]);
    Ok(Grant {
        space: SpaceId::from_bytes(space),
        node: NodeId::from_bytes(node),
        role: role_of("grants", row.role)?,
        since_ms: row.since_ms,
        invite: row.invite.map(|invite| *invite),
    })
}

fn invite_row(invite: &Invite) -> Vec<u8> {
    let all = |nodes: &[NodeId]| nodes.iter().map(|node| (*node.as_bytes()).into()).collect();
    encode(&InviteRow {
        secret: (*invite.secret.expose()).into(),
        space: (*invite.space.as_bytes()).into(),
        role: role_byte(invite.role),
        expires_ms: invite.expires_ms,
        uses_left: invite.uses_left,
        enrolled: all(&invite.enrolled),
        refused: Some(all(&invite.refused)).filter(|refused: &Vec<_>| !refused.is_empty()),
    })
}

fn invite_of(id: &InviteId, bytes: &[u8]) -> Result<Invite, FactsError> {
    let row: InviteRow = decode("invites", bytes)?;
    let all = |nodes: Vec<ByteArray<32>>| nodes.into_iter().map(|node| NodeId::from_bytes(*node)).collect();
    Ok(Invite {
        id: *id,
        secret: InviteSecret::from_bytes(*row.secret),
        space: SpaceId::from_bytes(*row.space),
        role: role_of("invites", row.role)?,
        expires_ms: row.expires_ms,
        uses_left: row.uses_left,
        enrolled: all(row.enrolled),
        refused: row.refused.map(all).unwrap_or_default(),
    })
}

/// The small facts of a home.
///
/// redb refuses everything after an error of the disk until it is opened again. So it is, with the next change: a disk that was full
/// and has room again needs no restart. Until there is room, what is in its cache is still read.
#[derive(Debug)]
pub struct Facts {
    disk: Arc<dyn Disk>,
    opened: RwLock<Opened>,
}

/// The database as it is open now.
#[derive(Debug)]
struct Opened {
    /// `None` when opening again failed.
    database: Option<Database>,
    /// Whether the disk has failed since.
    has_failed: Arc<AtomicBool>,
}

impl Opened {
    fn open(disk: &dyn Disk, anew: bool) -> Result<Self, redb::DatabaseError> {
        let has_failed = Arc::<AtomicBool>::default();
        let file = disk.facts(anew).map_err(redb::StorageError::Io)?;
        let backend = Backend { file, has_failed: Arc::clone(&has_failed) };
        let database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
        Ok(Self { database: Some(database), has_failed })
    }

    fn is_good(&self) -> bool {
        self.database.is_some() && !self.has_failed.load(Ordering::Relaxed)
    }

    fn database(&self) -> Result<&Database, redb::StorageError> {
        self.database.as_ref().ok_or(redb::StorageError::PreviousIo)
    }
}

/// redb wants a type of its own, not a boxed trait.
#[derive(Debug)]
struct Backend {
    file: Box<dyn redb::StorageBackend>,
    has_failed: Arc<AtomicBool>,
}

impl Backend {
    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|_| self.has_failed.store(true, Ordering::Relaxed))
    }
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.noted(self.file.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.noted(self.file.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.noted(self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.noted(self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.noted(self.file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// What stands behind its length, and the rest.
fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, tail) = bytes.split_first_chunk::<4>()?;
    tail.split_at_checked(u32::from_be_bytes(*length) as usize)
}

impl Facts {
    /// Opens the facts; `anew` makes them, which is no step that a crash may interrupt: the format file comes later.
    pub(crate) fn open(disk: Arc<dyn Disk>, anew: bool) -> Result<Self, OpenError> {
        let failed = |what: String| OpenError::Facts { file: FACTS_FILE, what };
        let opened = Opened::open(&*disk, anew).map_err(|error| failed(error.to_string()))?;
        let facts = Self { disk, opened: RwLock::new(opened) };
        facts.make_tables().map_err(|error| failed(error.to_string()))?;
        facts.disk.sync_folder("").map_err(|error| failed(error.to_string()))?;
        Ok(facts)
    }

    fn begin_read(&self) -> Result<ReadTransaction, FactsError> {
        if self.opened().database.is_none() {
            self.open_again()?;
        }
        Ok(self.opened().database()?.begin_read()?)
    }

    fn begin_write(&self) -> Result<WriteTransaction, FactsError> {
        if !self.opened().is_good() {
            self.open_again()?;
        }
        Ok(self.opened().database()?.begin_write()?)
    }

    fn opened(&self) -> RwLockReadGuard<'_, Opened> {
        self.opened.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the database again, as after a crash: what was committed is there, the change that failed is not.
    fn open_again(&self) -> Result<(), FactsError> {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        if opened.is_good() {
            return Ok(());
        }
        // Without room it would fail once more, and then nothing could be read.
        if self.disk.room().map_err(redb::StorageError::Io)? < ROOM_BYTES {
            return Err(redb::StorageError::Io(io::ErrorKind::StorageFull.into()).into());
        }
        // The file is locked as long as it is open.
        opened.database = None;
        *opened = Opened::open(&*self.disk, false)?;
        tracing::warn!("{FACTS_FILE} was opened again after an error of the disk");
        Ok(())
    }

    fn make_tables(&self) -> Result<(), FactsError> {
        let made = self.begin_read()?.list_tables()?.count();
        if made >= 5 {
            return Ok(());
        }
        let write = self.begin_write()?;
        write.open_table(PEERS)?;
        write.open_table(GRANTS)?;
        write.open_table(INVITES)?;
        write.open_table(SETTINGS)?;
        write.open_table(LABELS)?;
        write.commit()?;
        Ok(())
    }

    /// Every row of every table: for each its table, then key and value with their lengths.
    pub(crate) fn dump(&self) -> Result<Vec<u8>, FactsError> {
        let read = self.begin_read()?;
        let mut out = Vec::new();
        let mut row = |table: u8, key: &[u8], value: &[u8]| {
            out.push(table);
            for part in [key, value] {
                out.extend_from_slice(&(part.len() as u32).to_be_bytes());
                out.extend_from_slice(part);
            }
        };
        for entry in read.open_table(PEERS)?.iter()? {
            let (key, value) = entry?;
            row(0, key.value(), value.value());
        }
        for entry in read.open_table(GRANTS)?.iter()? {
            let (key, value) = entry?;
            row(1, key.value(), value.value());
        }
        for entry in read.open_table(INVITES)?.iter()? {
            let (key, value) = entry?;
            row(2, key.value(), value.value());
        }
        for entry in read.open_table(SETTINGS)?.iter()? {
            let (key, value) = entry?;
            row(3, key.value().as_bytes(), value.value());
        }
        for entry in read.open_table(LABELS)?.iter()? {
            let (key, value) = entry?;
            row(4, key.value(), value.value());
        }
        Ok(out)
    }

    /// Writes the rows of a dump, all or none.
    pub(crate) fn load(&self, dump: &[u8]) -> Result<(), FactsError> {
        let write = self.begin_write()?;
        let mut rest = dump;
        while let Some((table, tail)) = rest.split_first() {
            let bad = || FactsError::BadRow("a copy");
            let (key, tail) = part(tail).ok_or_else(bad)?;
            let (value, tail) = part(tail).ok_or_else(bad)?;
            rest = tail;
            match table {
                0 => drop(write.open_table(PEERS)?.insert(<&[u8; 32]>::try_from(key).map_err(|_| bad())?, value)?),
                1 => drop(write.open_table(GRANTS)?.insert(<&[u8; 64]>::try_from(key).map_err(|_| bad())?, value)?),
                2 => drop(write.open_table(INVITES)?.insert(<&[u8; 16]>::try_from(key).map_err(|_| bad())?, value)?),
                3 => drop(write.open_table(SETTINGS)?.insert(std::str::from_utf8(key).map_err(|_| bad())?, value)?),
                4 => drop(write.open_table(LABELS)?.insert(<&[u8; 32]>::try_from(key).map_err(|_| bad())?, value)?),
                _ => return Err(bad()),
            }
        }
        Ok(write.commit()?)
    }

    /// All peers, revoked ones too, in order of their ids.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn peers(&self) -> Result<Vec<Peer>, FactsError> {
        let table = self.begin_read()?.open_table(PEERS)?;
        let mut peers = Vec::new();
        for row in table.iter()? {
            let (node, bytes) = row?;
            peers.push(peer_of(node.value(), bytes.value())?);
        }
        Ok(peers)
    }

    /// One peer.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn peer(&self, node: &NodeId) -> Result<Option<Peer>, FactsError> {
        let table = self.begin_read()?.open_table(PEERS)?;
        let row = table.get(node.as_bytes())?;
        row.map(|bytes| peer_of(node.as_bytes(), bytes.value())).transpose()
    }

    /// Writes a peer, whole. Whoever read it before and changes it here takes back what was written in between, a revocation too:
    /// [`Facts::update_peer`] does not.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn put_peer(&self, peer: &Peer) -> Result<(), FactsError> {
        let write = self.begin_write()?;
        write.open_table(PEERS)?.insert(peer.node.as_bytes(), peer_row(peer).as_slice())?;
        Ok(write.commit()?)
    }

    /// Changes a peer in one transaction; `false` when it is not known.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn update_peer(&self, node: &NodeId, change: impl FnOnce(&mut Peer)) -> Result<bool, FactsError> {
        let write = self.begin_write()?;
        {
            let mut table = write.open_table(PEERS)?;
            let row = table.get(node.as_bytes())?.map(|bytes| peer_of(node.as_bytes(), bytes.value())).transpose()?;
            let Some(mut peer) = row else { return Ok(false) };
            change(&mut peer);
            table.insert(node.as_bytes(), peer_row(&peer).as_slice())?;
        }
        write.commit()?;
        Ok(true)
    }

    /// Throws a peer out in one transaction: it is marked and all its grants go; `false` when it is not known. Spec: ibgib §12.5.
    ///
    /// No more than these rows: sessions that stand, sagas at work, open invites, and lists of members that name the peer are for the
    /// caller. In a node `Node::revoke_peer` does all of it.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn revoke_peer(&self, node: &NodeId) -> Result<bool, FactsError> {
        let write = self.begin_write()?;
        {
            let mut peers = write.open_table(PEERS)?;
            let row = peers.get(node.as_bytes())?.map(|bytes| peer_of(node.as_bytes(), bytes.value())).transpose()?;
            let Some(mut peer) = row else { return Ok(false) };
            peer.revoked = true;
            peers.insert(node.as_bytes(), peer_row(&peer).as_slice())?;
            write.open_table(GRANTS)?.retain(|key, _| key[32..] != node.as_bytes()[..])?;
        }
        write.commit()?;
        Ok(true)
    }

    /// Forgets a peer.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn remove_peer(&self, node: &NodeId) -> Result<bool, FactsError> {
        let write = self.begin_write()?;
        let was = write.open_table(PEERS)?.remove(node.as_bytes())?.is_some();
        write.commit()?;
        Ok(was)
    }

    /// All grants, in order of (space, node).
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn grants(&self) -> Result<Vec<Grant>, FactsError> {
        let table = self.begin_read()?.open_table(GRANTS)?;
        let mut grants = Vec::new();
        for row in table.iter()? {
            let (key, bytes) = row?;
            grants.push(grant_of(key.value(), bytes.value())?);
        }
        Ok(grants)
    }

    /// The grant of a node in a space.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn grant(&self, space: &SpaceId, node: &NodeId) -> Result<Option<Grant>, FactsError> {
        let key = grant_key(space, node);
        let table = self.begin_read()?.open_table(GRANTS)?;
        table.get(&key)?.map(|bytes| grant_of(&key, bytes.value())).transpose()
    }

    /// Writes a grant; it takes the place of the one before.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn put_grant(&self, grant: &Grant) -> Result<(), FactsError> {
        let write = self.begin_write()?;
        write.open_table(GRANTS)?.insert(&grant_key(&grant.space, &grant.node), grant_row(grant).as_slice())?;
        Ok(write.commit()?)
    }

    /// Takes a grant away.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn remove_grant(&self, space: &SpaceId, node: &NodeId) -> Result<bool, FactsError> {
        let write = self.begin_write()?;
        let was = write.open_table(GRANTS)?.remove(&grant_key(space, node))?.is_some();
        write.commit()?;
        Ok(was)
    }

    /// All invites, used-up ones too.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn invites(&self) -> Result<Vec<Invite>, FactsError> {
        let table = self.begin_read()?.open_table(INVITES)?;
        let mut invites = Vec::new();
        for row in table.iter()? {
            let (id, bytes) = row?;
            invites.push(invite_of(id.value(), bytes.value())?);
        }
        Ok(invites)
    }

    /// One invite.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn invite(&self, id: &InviteId) -> Result<Option<Invite>, FactsError> {
        let table = self.begin_read()?.open_table(INVITES)?;
        table.get(id)?.map(|bytes| invite_of(id, bytes.value())).transpose()
    }

    /// Writes a new invite.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn put_invite(&self, invite: &Invite) -> Result<(), FactsError> {
        let write = self.begin_write()?;
        write.open_table(INVITES)?.insert(&invite.id, invite_row(invite).as_slice())?;
        Ok(write.commit()?)
    }

    /// Revokes an invite: nobody is let in by it any more.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn remove_invite(&self, id: &InviteId) -> Result<bool, FactsError> {
        let write = self.begin_write()?;
        let was = write.open_table(INVITES)?.remove(id)?.is_some();
        write.commit()?;
        Ok(was)
    }

    /// Takes one use off an invite, writes the grant and the peer: one durable transaction. A grant with a higher role is
    /// kept. The same node again takes no second use and is granted nothing more: it has the grant that is there, or
    /// `None` when that was spent or taken away since. Spec: link C.4.3, LK-4, LK-100.
    ///
    /// # Errors
    /// [`EnrolError`]; then nothing was changed.
    pub fn enrol(&self, id: &InviteId, node: NodeId, now: Now) -> Result<Option<Grant>, EnrolError> {
        let write = self.begin_write()?;
        let grant;
        {
            let mut invites = write.open_table(INVITES)?;
            let row = invites.get(id)?.map(|bytes| invite_of(id, bytes.value())).transpose()?;
            let mut invite = row.ok_or(EnrolError::Unknown)?;
            let mut peers = write.open_table(PEERS)?;
            let known = peers.get(node.as_bytes())?.map(|bytes| peer_of(node.as_bytes(), bytes.value())).transpose()?;
            let mut grants = write.open_table(GRANTS)?;
            let key = grant_key(&invite.space, &node);
            let there = grants.get(&key)?.map(|bytes| grant_of(&key, bytes.value())).transpose()?;
            if invite.was_proved_by(&node) && known.as_ref().is_some_and(|peer| peer.revoked) {
                return Err(EnrolError::Revoked);
            }
            if invite.enrolled.contains(&node) {
                return Ok(there);
            }
            invite.enrol(node, now.wall_ms)?;
            invites.insert(id, invite_row(&invite).as_slice())?;
            let (space, role) = (invite.space, invite.role);
            let new = Grant { space, node, role, since_ms: now.wall_ms, invite: Some(*id) };
            grant = there.filter(|there| there.role >= role).unwrap_or(new);
            grants.insert(&key, grant_row(&grant).as_slice())?;

            let peer = Peer { revoked: false, ..known.unwrap_or_else(|| Peer::new(node, now)) };
            peers.insert(node.as_bytes(), peer_row(&peer).as_slice())?;
        }
        write.commit()?;
        Ok(Some(grant))
    }

    /// Takes back what an invite granted to a node that could be made no member: the grant goes, and the use is there again
    /// ([`Invite::refuse`]), in one durable transaction. Not the use of an invite by which somebody came who was thrown out since: that
    /// closed it.
    ///
    /// # Errors
    /// [`FactsError`]; then nothing was changed.
    pub fn unenrol(&self, grant: &Grant) -> Result<(), FactsError> {
        let write = self.begin_write()?;
        {
            write.open_table(GRANTS)?.remove(&grant_key(&grant.space, &grant.node))?;
            let (peers, mut invites) = (write.open_table(PEERS)?, write.open_table(INVITES)?);
            let id = grant.invite.unwrap_or_default();
            let row = invites.get(&id)?.map(|bytes| invite_of(&id, bytes.value())).transpose()?;
            if let Some(mut invite) = row {
                let mut is_closed = false;
                for node in invite.enrolled.iter().chain(&invite.refused) {
                    let bytes = peers.get(node.as_bytes())?;
                    let peer = bytes.map(|bytes| peer_of(node.as_bytes(), bytes.value())).transpose()?;
                    is_closed |= peer.is_some_and(|peer| peer.revoked);
                }
                if !is_closed {
                    invite.refuse(&grant.node);
                    invites.insert(&id, invite_row(&invite).as_slice())?;
                }
            }
        }
        Ok(write.commit()?)
    }

    /// A setting.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn setting(&self, key: &str) -> Result<Option<Vec<u8>>, FactsError> {
        let table = self.begin_read()?.open_table(SETTINGS)?;
        Ok(table.get(key)?.map(|bytes| bytes.value().to_vec()))
    }

    /// The names of all settings, sorted.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn setting_names(&self) -> Result<Vec<String>, FactsError> {
        let table = self.begin_read()?.open_table(SETTINGS)?;
        table.iter()?.map(|row| Ok(row?.0.value().to_owned())).collect()
    }

    /// Writes a setting; `None` takes it away.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn put_setting(&self, key: &str, value: Option<&[u8]>) -> Result<(), FactsError> {
        self.put_settings([(key, value)])
    }

    /// As [`Facts::put_setting`], for several in one step: all of them, or none.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn put_settings<'a>(
        &self,
        settings: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) -> Result<(), FactsError> {
        let write = self.begin_write()?;
        {
            let mut table = write.open_table(SETTINGS)?;
            for (key, value) in settings {
                match value {
                    Some(value) => drop(table.insert(key, value)?),
                    None => drop(table.remove(key)?),
                }
            }
        }
        Ok(write.commit()?)
    }

    /// Changes a setting to what `change` makes of it, in one step: nobody else's change comes between. Nothing is written
    /// where it stays as it was.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn change_setting(
        &self,
        key: &str,
        change: impl FnOnce(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<(), FactsError> {
        let write = self.begin_write()?;
        {
            let mut table = write.open_table(SETTINGS)?;
            let before = table.get(key)?.map(|bytes| bytes.value().to_vec());
            match change(before.as_deref()) {
                // What is not committed is as if it had not begun.
                after if after == before => return Ok(()),
                Some(value) => drop(table.insert(key, value.as_slice())?),
                None => drop(table.remove(key)?),
            }
        }
        Ok(write.commit()?)
    }

    /// The local names and directories of spaces.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn labels(&self) -> Result<Vec<(SpaceId, SpaceLabel)>, FactsError> {
        let table = self.begin_read()?.open_table(LABELS)?;
        let mut labels = Vec::new();
        for row in table.iter()? {
            let (space, bytes) = row?;
            let row: LabelRow = decode("labels", bytes.value())?;
            let label = SpaceLabel { name: row.name, kind: row.kind, dir: row.dir };
            labels.push((SpaceId::from_bytes(*space.value()), label));
        }
        Ok(labels)
    }

    /// Writes the local name and directory of a space; `None` takes them away.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn put_label(&self, space: &SpaceId, label: Option<&SpaceLabel>) -> Result<(), FactsError> {
        let write = self.begin_write()?;
        {
            let mut table = write.open_table(LABELS)?;
            match label {
                Some(label) => {
                    let SpaceLabel { name, kind, dir } = label.clone();
                    drop(table.insert(space.as_bytes(), encode(&LabelRow { name, kind, dir }).as_slice())?);
                }
                None => drop(table.remove(space.as_bytes())?),
            }
        }
        Ok(write.commit()?)
    }
}
