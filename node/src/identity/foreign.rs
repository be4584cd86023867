//! Frames of others: which are kept, and which are given away. Spec: ibgib §13.2 "Authentication"

use std::collections::BTreeSet;

use sealtide_ibgib::{Address, Verified};
use sealtide_identity::NodeId;
use sealtide_identity::keystone::{Added, Chain, Class, Place, Standing};
use sealtide_sync::{AbortCode, Refused};

use super::verdict::refused;
use super::{Identities, PeerIdentity, lock};
use crate::engine::keystones::Connection;

/// Frames of one keystone that are held, at most.
const CHAIN_FRAMES_MAX: usize = 16_384;

/// Nodes whose device keystone has come in part and who have not proved yet, at most.
const COMING_MAX: usize = 256;

/// What of a keystone a peer may have.
enum Share {
    Nothing,
    /// The first frame: of the device of another node that shares a space with it, the key is all that it needs.
    First,
    All,
}

impl Identities {
    /// Checks frames that came from a peer and keeps those that follow the rules. Frames of a session keystone are only
    /// remembered until a proof or a signature shows that they count.
    pub(super) fn keep_now(
        &self,
        connection: &Connection,
        first: &Address,
        frames: &[Verified],
        last: bool,
    ) -> Result<(), Refused> {
        if [self.device(), self.owner()].contains(&Some(first.clone())) {
            self.import(first, frames).map_err(|trouble| refused(AbortCode::Disk, &trouble.to_string()))?;
            self.heard(first, frames);
        } else if !frames.is_empty() {
            self.keep_foreign(connection, first, frames)?;
        }
        if last {
            lock(&self.0.answered).insert((connection.binding, first.clone()));
        }
        self.tell();
        self.enforce();
        Ok(())
    }

    fn keep_foreign(&self, connection: &Connection, first: &Address, frames: &[Verified]) -> Result<(), Refused> {
        let asked = lock(&self.0.signers).contains(&(connection.binding, first.clone()));
        let held = self.0.frames.count(first) > 0 || asked;
        self.0.frames.with(first, |chain| {
            self.count_brought(&connection.peer, chain, frames)?;
            let kept = add_all(chain, frames).and_then(|()| match chain.newest() {
                // Spec: SY-90
                Some(newest)
                    if newest.class() == Class::Device && !held && NodeId::of(newest.key()) != connection.peer =>
                {
                    Err(Refused::auth("a device keystone whose key is another node's"))
                }
                Some(newest) if newest.class() == Class::Session => Ok(()),
                _ => self.save(chain),
            });
            match &kept {
                Err(_) => *chain = self.0.frames.load(first),
                Ok(()) => self.note_coming(connection, chain),
            }
            kept
        })
    }

    /// A long device keystone may not come whole before the connection ends: the next one goes on behind what is here.
    fn note_coming(&self, connection: &Connection, chain: &Chain) {
        let of_peer =
            |newest: &Standing| newest.class() == Class::Device && NodeId::of(newest.key()) == connection.peer;
        if chain.newest().is_some_and(of_peer) && PeerIdentity::of(&self.0.store, &connection.peer).is_none() {
            let mut coming = lock(&self.0.coming);
            if coming.len() >= COMING_MAX && !coming.contains_key(&connection.peer) {
                coming.pop_first();
            }
            coming.insert(connection.peer, chain.first_address().clone());
        }
    }

    /// Writes the frames of a chain that are not in the store yet.
    pub(super) fn save(&self, chain: &Chain) -> Result<(), Refused> {
        let disk = |trouble: super::StoreTrouble| refused(AbortCode::Disk, &trouble.to_string());
        let mut new: Vec<Verified> = Vec::new();
        let all: Vec<_> = chain.frames().map(|frame| frame.record()).collect();
        // Frames are written in the order they were checked, so what is missing is the end.
        for record in all.into_iter().rev().take_while(|record| !self.0.frames.holds(record)) {
            new.push(record.clone());
        }
        if new.is_empty() {
            return Ok(());
        }
        new.reverse();
        self.0.frames.prepare(self.0.node.id, self.now()).map_err(disk)?;
        self.0.frames.commit(new).map_err(disk)
    }

    /// The frames of a keystone that a peer may have: the own ones, its own, those `named` by the members of a space that
    /// it shares and their devices', and those of nodes that share a space with it. Those with n over `after`; voided branches come after the valid one.
    pub(super) fn frames_for(
        &self,
        connection: &Connection,
        first: &Address,
        after: Option<u64>,
        named: &BTreeSet<Address>,
    ) -> Vec<Verified> {
        match self.may_have(connection, first, named) {
            Share::Nothing => Vec::new(),
            Share::First if after.is_some() => Vec::new(),
            Share::First => {
                let genesis = |chain: &mut Chain| chain.genesis().map(|genesis| genesis.frame().record().clone());
                self.0.frames.with(first, genesis).into_iter().collect()
            }
            Share::All => self.frames_after(first, after),
        }
    }

    fn may_have(&self, connection: &Connection, first: &Address, named: &BTreeSet<Address>) -> Share {
        let mut allowed: Vec<Address> = [self.device(), self.speaks_for()].into_iter().flatten().collect();
        if let Some(live) = self.live(connection) {
            allowed.extend(live.own_session.map(|(session, _)| session.first));
            allowed.extend([Some(live.peer_device), live.peer_owner, live.peer_session].into_iter().flatten());
        }
        if allowed.contains(first) || self.belongs_to(first, named) {
            return Share::All;
        }
        let grants = self.0.store.facts().grants().unwrap_or_default();
        let spaces = |node: &NodeId| {
            let of_node = grants.iter().filter(|grant| grant.node == *node);
            of_node.map(|grant| grant.space).collect::<BTreeSet<_>>()
        };
        let theirs = spaces(&connection.peer);
        let sharing = grants.iter().map(|grant| grant.node).filter(|node| !spaces(node).is_disjoint(&theirs));
        let nodes: BTreeSet<NodeId> = sharing.chain([connection.peer]).collect();
        for (node, row) in nodes.iter().filter_map(|node| Some((node, PeerIdentity::of(&self.0.store, node)?))) {
            if row.owner.as_ref() == Some(first) || row.device == *first && *node == connection.peer {
                return Share::All;
            }
            if row.device == *first {
                return Share::First;
            }
        }
        Share::Nothing
    }

    /// Asks a peer for the first frame of a device keystone that signed commits in a shared space, once in a connection.
    pub(super) fn ask_for_signer(&self, connection: &Connection, keystone: &Address) {
        if self.live(connection).is_some() && lock(&self.0.signers).insert((connection.binding, keystone.clone())) {
            connection.ask(keystone.clone(), None);
        }
    }

    /// Frames with n over `after`, the valid chain first.
    pub(super) fn frames_after(&self, first: &Address, after: Option<u64>) -> Vec<Verified> {
        self.0.frames.with(first, |chain| {
            let newer = |n: u64| after.is_none_or(|after| n > after);
            let mut valid: Vec<Verified> = chain
                .valid_backwards()
                .map(Standing::frame)
                .take_while(|frame| newer(frame.facts().n))
                .map(|frame| frame.record().clone())
                .collect();
            valid.reverse();
            let others = chain.frames().filter(|frame| chain.place(frame.address()) != Some(Place::Valid));
            valid.extend(others.filter(|frame| newer(frame.facts().n)).map(|frame| frame.record().clone()));
            valid
        })
    }
}

/// Adds frames of a peer; those that break rules refuse all.
pub(super) fn add_all(chain: &mut Chain, frames: &[Verified]) -> Result<(), Refused> {
    for frame in frames {
        match chain.add(frame) {
            Added::Checked | Added::Known | Added::Waiting => {}
            Added::Broken(broken) => {
                let first = broken.first().map(|broken| format!("{:?}: {}", broken.rule, broken.what));
                return Err(Refused::auth(format!("a frame breaks a rule: {}", first.unwrap_or_default())));
            }
            Added::Full => return Err(refused(AbortCode::Limit, "too many frames wait for others")),
        }
    }
    if chain.frames().count() > CHAIN_FRAMES_MAX {
        return Err(refused(AbortCode::Limit, "too many frames of one keystone"));
    }
    Ok(())
}
