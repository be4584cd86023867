//! All frames of one keystone that a node holds, and what counts of them. Spec: ibgib §12.3 "Precedence".
//!
//! Frames come in any order; each is checked once, against the frame before it, when that frame is there. What counts
//! follows from the set of checked frames alone:
//!
//! * An *era* is a managing frame (or the first frame) with the ordinary frames after it. Exactly one managing frame in
//!   an era opens the next one and voids all other branches; two freeze the identity.
//! * A revocation anywhere is final, whatever else there is: a node that saw it first could never take it back.
//! * In the last era, two successors of one frame freeze the identity at that frame.

use std::collections::{BTreeMap, BTreeSet};

use sealtide_ibgib::{Address, Verified};

use super::claim::{Claim, Verb};
use super::delegation::Delegation;
use super::frame::Frame;
use super::pool::ChallengeId;
use super::rules::{Broken, Rule};
use super::step::{Rank, Standing};

/// Frames that wait for the one before them, at most.
pub const WAITING_MAX: usize = 1_024;
/// Bytes of the frames that wait, at most.
pub const WAITING_BYTES_MAX: usize = 64 << 20;

/// What a keystone is now.
// Spec: SY-27, SY-28
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The first frame is not here.
    Empty,
    /// One valid chain.
    Live,
    /// Two successors of one frame: frozen until `manage` or `revoke`.
    Forked,
    /// Two managing frames in one era: frozen until `revoke`.
    ManagedTwice,
    /// Ended.
    Revoked,
}

/// Where a checked frame stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the valid chain.
    Valid,
    /// On a branch of a fork that is not decided.
    Undecided,
    /// On a branch that a frame of higher rank voided: kept, never counted.
    Voided,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Added {
    /// It was checked and is kept; [`Chain::place`] tells where.
    Checked,
    /// It was here already.
    Known,
    /// The frame before it is not here; it is checked when that comes.
    Waiting,
    /// It breaks rules, and is not kept.
    Broken(Vec<Broken>),
    /// Too many frames wait already; it is not kept.
    Full,
}

/// The frames of one keystone.
#[derive(Clone, Debug)]
pub struct Chain {
    first: Address,
    nodes: Vec<Node>,
    by_address: BTreeMap<Address, usize>,
    /// Every challenge id with the frame that brought it.
    ids: BTreeSet<(u64, usize)>,
    /// Frames by claim target.
    by_target: BTreeMap<String, Vec<usize>>,
    waiting: BTreeMap<Address, Vec<Frame>>,
    waiting_count: usize,
    waiting_bytes: usize,
    view: View,
}

#[derive(Clone, Debug)]
struct Node {
    standing: Standing,
    parent: Option<usize>,
    children: Vec<usize>,
}

#[derive(Clone, Debug)]
struct View {
    state: State,
    newest: usize,
    valid: Vec<bool>,
    delegations: BTreeMap<Address, Vec<Delegation>>,
}

impl Chain {
    /// Begins with no frame of the keystone whose first frame has this address.
    pub fn new(first: Address) -> Self {
        let view = View { state: State::Empty, newest: 0, valid: Vec::new(), delegations: BTreeMap::new() };
        Self {
            first,
            nodes: Vec::new(),
            by_address: BTreeMap::new(),
            ids: BTreeSet::new(),
            by_target: BTreeMap::new(),
            waiting: BTreeMap::new(),
            waiting_count: 0,
            waiting_bytes: 0,
            view,
        }
    }

    /// Begins with a first frame.
    pub fn begun(first: Standing) -> Self {
        let mut chain = Self::new(first.first_address().clone());
        chain.insert(first, None);
        chain
    }

    /// Adds a frame that came from somewhere, and every waiting frame that it was missing for.
    pub fn add(&mut self, record: &Verified) -> Added {
        if self.by_address.contains_key(record.address()) {
            return Added::Known;
        }
        match Frame::read(record) {
            Ok(frame) => self.add_frame(frame),
            Err(error) => Added::Broken(vec![Broken { rule: Rule::Form, what: error.0 }]),
        }
    }

    /// As [`Chain::add`], for a frame that was read already.
    pub fn add_frame(&mut self, frame: Frame) -> Added {
        if self.by_address.contains_key(frame.address()) {
            return Added::Known;
        }
        let added = self.place_frame(frame);
        if let Ok(at) = added {
            self.release_waiting(at);
            return Added::Checked;
        }
        added.err().unwrap_or(Added::Known)
    }

    /// Adds a frame that this node made and checked.
    pub fn extend(&mut self, made: Standing) -> Added {
        self.add_frame(made.frame().clone())
    }

    /// The name of the identity: the address of its first frame.
    pub fn first_address(&self) -> &Address {
        &self.first
    }

    /// What it is now.
    pub fn state(&self) -> State {
        self.view.state
    }

    /// Whether it may authorise anything now.
    pub fn is_live(&self) -> bool {
        self.view.state == State::Live
    }

    /// The newest frame of the valid chain: where a fork begins when it is frozen.
    pub fn newest(&self) -> Option<&Standing> {
        self.nodes.get(self.view.newest).map(|node| &node.standing)
    }

    /// The first frame.
    pub fn genesis(&self) -> Option<&Standing> {
        self.nodes.iter().find(|node| node.parent.is_none()).map(|node| &node.standing)
    }

    /// A checked frame.
    pub fn standing(&self, address: &Address) -> Option<&Standing> {
        self.by_address.get(address).map(|at| &self.nodes[*at].standing)
    }

    /// Whether a frame is here, checked or waiting for the one before it.
    pub fn holds(&self, record: &Verified) -> bool {
        let previous = record.frame_ref().and_then(|facts| facts.past.last());
        let waiting = previous.and_then(|previous| self.waiting.get(previous)).into_iter().flatten();
        self.by_address.contains_key(record.address()) || waiting.map(Frame::address).any(|one| one == record.address())
    }

    /// Where a checked frame stands.
    // Spec: SY-84
    pub fn place(&self, address: &Address) -> Option<Place> {
        let at = *self.by_address.get(address)?;
        Some(self.place_at(at))
    }

    /// The frames of the valid chain, newest first.
    pub fn valid_backwards(&self) -> impl Iterator<Item = &Standing> {
        let start = (!self.nodes.is_empty()).then_some(self.view.newest);
        std::iter::successors(start, |at| self.nodes[*at].parent).map(|at| &self.nodes[at].standing)
    }

    /// Frames that a frame of higher rank voided.
    pub fn voided(&self) -> impl Iterator<Item = &Address> {
        let voided = |at: &usize| self.place_at(*at) == Place::Voided;
        (0..self.nodes.len()).filter(voided).map(|at| self.nodes[at].standing.frame().address())
    }

    /// Every checked frame, in the order it was checked.
    pub fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.nodes.iter().map(|node| node.standing.frame())
    }

    /// The addresses that frames wait for.
    pub fn missing(&self) -> impl Iterator<Item = &Address> {
        self.waiting.keys()
    }

    /// The claims with this target in frames of the valid chain; none unless the keystone is live.
    pub fn claims_on(&self, target: &str) -> impl Iterator<Item = &Claim> {
        let live = self.is_live();
        self.proofs_on(target).filter(move |_| live).filter_map(Frame::claim)
    }

    /// The frames of the valid chain that claim something about this target, whatever the keystone is now: what was
    /// posted before a revocation stays posted.
    pub fn proofs_on(&self, target: &str) -> impl Iterator<Item = &Frame> {
        let frames = self.by_target.get(target).into_iter().flatten();
        frames.filter(|at| self.view.valid[**at]).map(|at| self.nodes[*at].standing.frame())
    }

    /// The counter of the managing frame that lets a record of a key ledger count, by the hash of that record. None when no frame
    /// of the valid chain does, and when nobody can say which chain is valid.
    // Spec: GW-106
    pub fn keyring_authority(&self, record: &[u8; 32]) -> Option<u64> {
        let decided = matches!(self.state(), State::Live | State::Forked);
        let managing = self.valid_backwards().filter(|standing| standing.rank() == Rank::Manage);
        let frame = managing.map(Standing::frame).find(|frame| frame.keyring().as_ref() == Some(record));
        frame.filter(|_| decided).map(|frame| frame.facts().n)
    }

    /// The frames of the valid chain up to the newest one that lets a record of a key ledger count, oldest first: what proves every
    /// such record. Empty when there is none.
    pub fn keyring_proof(&self) -> Vec<Verified> {
        let to_newest = self.valid_backwards().skip_while(|standing| standing.frame().keyring().is_none());
        let mut frames: Vec<Verified> = to_newest.map(|standing| standing.frame().record().clone()).collect();
        frames.reverse();
        frames
    }

    /// What the owner's valid chain delegates to a device, newest last.
    pub fn delegations(&self, device: &Address) -> &[Delegation] {
        self.view.delegations.get(device).map(Vec::as_slice).unwrap_or_default()
    }

    /// Every device that something is delegated to.
    pub fn delegated(&self) -> impl Iterator<Item = (&Address, &[Delegation])> {
        self.view.delegations.iter().map(|(device, list)| (device, list.as_slice()))
    }

    /// Whether some frame, on whatever branch, brought this challenge id.
    pub fn knows_id(&self, id: ChallengeId) -> bool {
        let number = id.number();
        self.ids.range((number, 0)..=(number, usize::MAX)).next().is_some()
    }

    /// How many challenge ids were ever used.
    pub fn id_count(&self) -> usize {
        self.ids.len()
    }

    fn place_frame(&mut self, frame: Frame) -> Result<usize, Added> {
        let wrong = |what| Added::Broken(vec![Broken { rule: Rule::E3, what }]);
        if *frame.address() == self.first {
            let standing = Standing::first(frame).map_err(Added::Broken)?;
            return Ok(self.insert(standing, None));
        }
        if frame.facts().tjp != self.first {
            return Err(wrong("a frame of another keystone"));
        }
        let parent = frame.facts().past.last().cloned().ok_or_else(|| wrong("past is empty"))?;
        let Some(at) = self.by_address.get(&parent).copied() else {
            return Err(self.wait(parent, frame));
        };
        let standing = {
            let before = BranchIds { chain: self, at, ancestors: std::cell::OnceCell::new() };
            self.nodes[at].standing.step(frame, &|id| before.hold(id)).map_err(Added::Broken)?
        };
        Ok(self.insert(standing, Some(at)))
    }

    fn wait(&mut self, parent: Address, frame: Frame) -> Added {
        let frames = self.waiting.entry(parent.clone()).or_default();
        if frames.iter().any(|waiting| waiting.address() == frame.address()) {
            return Added::Waiting;
        }
        let bytes = frame.record().encoded().len();
        if self.waiting_count >= WAITING_MAX || self.waiting_bytes + bytes > WAITING_BYTES_MAX {
            if frames.is_empty() {
                self.waiting.remove(&parent);
            }
            return Added::Full;
        }
        self.waiting_bytes += bytes;
        frames.push(frame);
        self.waiting_count += 1;
        Added::Waiting
    }

    /// Checks the frames that waited for this one, and those that waited for them.
    fn release_waiting(&mut self, at: usize) {
        let mut arrived = vec![at];
        while let Some(at) = arrived.pop() {
            let address = self.nodes[at].standing.frame().address().clone();
            for frame in self.waiting.remove(&address).unwrap_or_default() {
                self.waiting_count -= 1;
                self.waiting_bytes -= frame.record().encoded().len();
                if let Ok(at) = self.place_frame(frame) {
                    arrived.push(at);
                }
            }
        }
    }

    fn insert(&mut self, standing: Standing, parent: Option<usize>) -> usize {
        let at = self.nodes.len();
        let frame = standing.frame();
        let ids: Vec<u64> = match parent {
            None => frame.challenge_ids().map(|id| id.number()).collect(),
            Some(parent) => {
                let before: BTreeSet<ChallengeId> = self.nodes[parent].standing.frame().challenge_ids().collect();
                frame.challenge_ids().filter(|id| !before.contains(id)).map(|id| id.number()).collect()
            }
        };
        self.ids.extend(ids.into_iter().map(|id| (id, at)));
        self.by_address.insert(frame.address().clone(), at);
        if let Some(claim) = frame.claim() {
            self.by_target.entry(claim.target.clone()).or_default().push(at);
        }
        let simple = self.extends_newest(&standing, parent);
        self.nodes.push(Node { standing, parent, children: Vec::new() });
        self.view.valid.push(false);
        if let Some(parent) = parent {
            self.nodes[parent].children.push(at);
        }
        if simple {
            self.advance(at)
        } else {
            self.decide()
        }
        at
    }

    /// Whether nothing has to be decided: an ordinary frame after the newest, which has no other successor.
    fn extends_newest(&self, standing: &Standing, parent: Option<usize>) -> bool {
        let only = parent.is_some_and(|parent| parent == self.view.newest && self.nodes[parent].children.is_empty());
        only && self.view.state == State::Live && standing.rank() == Rank::Ordinary
    }

    fn advance(&mut self, at: usize) {
        self.view.newest = at;
        self.view.valid[at] = true;
        let claim = self.nodes[at].standing.frame().claim();
        apply(&mut self.view.delegations, claim);
    }

    /// Looks at all frames again. Spec: ibgib §12.3 E15.
    // Spec: SY-84
    fn decide(&mut self) {
        let Some(root) = self.nodes.iter().position(|node| node.parent.is_none()) else { return };
        let (newest, state) = match self.revocation() {
            Some(at) => (at, State::Revoked),
            None => self.last_of_eras(root),
        };
        let mut path: Vec<usize> = self.path_to(newest);
        path.reverse();
        let mut valid = vec![false; self.nodes.len()];
        let mut delegations = BTreeMap::new();
        for at in path {
            valid[at] = true;
            apply(&mut delegations, self.nodes[at].standing.frame().claim());
        }
        self.view = View { state, newest, valid, delegations };
    }

    /// Several revocations are one: the earliest counts, then the smallest address.
    fn revocation(&self) -> Option<usize> {
        let revoking = (0..self.nodes.len()).filter(|at| self.nodes[*at].standing.rank() == Rank::Revoke);
        revoking.min_by_key(|at| {
            let frame = self.nodes[*at].standing.frame();
            (frame.facts().n, frame.address().clone())
        })
    }

    fn last_of_eras(&self, root: usize) -> (usize, State) {
        let mut era = root;
        loop {
            match self.managing_in(era).as_slice() {
                [] => return self.newest_in(era),
                [next] => era = *next,
                several => return (self.common_ancestor(several), State::ManagedTwice),
            }
        }
    }

    /// The managing frames whose parents are in the era that begins at `era`.
    fn managing_in(&self, era: usize) -> Vec<usize> {
        let (mut managing, mut open) = (Vec::new(), vec![era]);
        while let Some(at) = open.pop() {
            for child in &self.nodes[at].children {
                match self.nodes[*child].standing.rank() {
                    Rank::Manage => managing.push(*child),
                    Rank::Ordinary => open.push(*child),
                    Rank::Revoke => {}
                }
            }
        }
        managing
    }

    /// The end of an era without managing frames, or where it forks.
    fn newest_in(&self, era: usize) -> (usize, State) {
        let mut at = era;
        loop {
            match self.nodes[at].children.as_slice() {
                [] => return (at, State::Live),
                [child] => at = *child,
                _ => return (at, State::Forked),
            }
        }
    }

    fn common_ancestor(&self, frames: &[usize]) -> usize {
        let mut common: Option<BTreeSet<usize>> = None;
        for at in frames {
            let path: BTreeSet<usize> = self.path_to(*at).into_iter().collect();
            common = Some(match common {
                Some(common) => common.intersection(&path).copied().collect(),
                None => path,
            });
        }
        let deepest = common.unwrap_or_default();
        deepest.into_iter().max_by_key(|at| self.nodes[*at].standing.frame().facts().n).unwrap_or_default()
    }

    /// From a frame back to the first.
    fn path_to(&self, at: usize) -> Vec<usize> {
        std::iter::successors(Some(at), |at| self.nodes[*at].parent).collect()
    }

    fn place_at(&self, at: usize) -> Place {
        let frozen = matches!(self.view.state, State::Forked | State::ManagedTwice);
        if self.view.valid[at] {
            Place::Valid
        } else if frozen && self.path_to(at).contains(&self.view.newest) {
            Place::Undecided
        } else {
            Place::Voided
        }
    }
}

/// The ids that a branch used: those of a frame's ancestors and its own.
struct BranchIds<'a> {
    chain: &'a Chain,
    at: usize,
    ancestors: std::cell::OnceCell<BTreeSet<usize>>,
}

impl BranchIds<'_> {
    /// Looks at the branch only when some branch knows the id, which chance alone never brings about.
    fn hold(&self, id: ChallengeId) -> bool {
        let number = id.number();
        self.chain.ids.range((number, 0)..=(number, usize::MAX)).any(|(_, owner)| {
            self.ancestors.get_or_init(|| self.chain.path_to(self.at).into_iter().collect()).contains(owner)
        })
    }
}

fn apply(delegations: &mut BTreeMap<Address, Vec<Delegation>>, claim: Option<&Claim>) {
    let Some((claim, device)) = claim.and_then(|claim| claim.target_address().map(|device| (claim, device))) else {
        return;
    };
    match claim.known_verb() {
        Some(Verb::Delegate) => {
            if let Some(delegation) = claim.scope.as_deref().and_then(Delegation::parse) {
                delegations.entry(device).or_default().push(delegation);
            }
        }
        Some(Verb::Undelegate) => drop(delegations.remove(&device)),
        _ => {}
    }
}
