//! Whom a relay lets in: by list, by token, or because a node that is let in says so. Spec: link C.5 "Admission".

use std::collections::{BTreeMap, BTreeSet};

use sealtide_identity::NodeId;

/// Stands for guests in R_ALLOW.
pub(super) const GUESTS: NodeId = NodeId::from_bytes([0; 32]);

/// Who may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Admit {
    /// Anybody.
    Open,
    /// These ids.
    AllowList(BTreeSet<NodeId>),
    /// Who proves the token of the relay's address, and these ids.
    Token(BTreeSet<NodeId>),
}

impl Admit {
    fn lists(&self, node: &NodeId) -> bool {
        match self {
            Self::Open => true,
            Self::AllowList(listed) | Self::Token(listed) => listed.contains(node),
        }
    }
}

/// What a node on the relay may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Let in by the operator; may let in others.
    Member,
    /// Let in by a member.
    Friend,
    /// Anybody else, while a member expects guests: one circuit to such a member, for a while.
    Guest,
}

/// One R_ALLOW: who is let in, or [`GUESTS`], and the member that says so.
type Entry = (NodeId, NodeId);

/// The operator's rule and the entries of the members.
#[derive(Debug)]
pub(super) struct GuestList {
    admit: Admit,
    /// Nodes that proved the token.
    proved: BTreeSet<NodeId>,
    /// Each entry with its end on the monotonic clock, ms.
    entries: BTreeMap<Entry, u64>,
    /// The same by their ends.
    ends: BTreeSet<(u64, Entry)>,
    /// How many entries each member made.
    made: BTreeMap<NodeId, usize>,
    per_maker_max: usize,
}

impl GuestList {
    pub(super) fn new(admit: Admit, per_maker_max: usize) -> Self {
        Self {
            admit,
            proved: BTreeSet::new(),
            entries: BTreeMap::new(),
            ends: BTreeSet::new(),
            made: BTreeMap::new(),
            per_maker_max,
        }
    }

    /// How `node` would stand; `None`: it is not let in.
    // Spec: LK-26
    pub(super) fn standing(&self, now_ms: u64, node: &NodeId) -> Option<Standing> {
        if self.is_member(node) {
            Some(Standing::Member)
        } else if *node != GUESTS && self.any_entry(now_ms, node) {
            Some(Standing::Friend)
        } else {
            self.any_entry(now_ms, &GUESTS).then_some(Standing::Guest)
        }
    }

    /// Whether `node` expects guests.
    // Spec: LK-108
    pub(super) fn expects_guests(&self, now_ms: u64, node: &NodeId) -> bool {
        self.entries.get(&(GUESTS, *node)).is_some_and(|end| *end > now_ms)
    }

    /// `node` has proved the token.
    pub(super) fn proved_token(&mut self, node: NodeId) {
        self.proved.insert(node);
    }

    /// R_ALLOW of a member; false when it has too many entries.
    pub(super) fn allow(&mut self, now_ms: u64, maker: NodeId, node: NodeId, seconds: u32) -> bool {
        let entry = (node, maker);
        if seconds == 0 {
            self.remove(entry);
            return true;
        }
        let made = self.made.get(&maker).copied().unwrap_or(0);
        if made >= self.per_maker_max && !self.entries.contains_key(&entry) {
            return false;
        }
        self.remove(entry);
        let end = now_ms + u64::from(seconds) * 1000;
        self.entries.insert(entry, end);
        self.ends.insert((end, entry));
        *self.made.entry(maker).or_default() += 1;
        true
    }

    /// The operator's new rule. Entries of those who are members no longer end with it.
    pub(super) fn set_admit(&mut self, admit: Admit) {
        self.admit = admit;
        if !matches!(self.admit, Admit::Token(_)) {
            self.proved.clear();
        }
        let lost: Vec<_> = self.entries.keys().filter(|(_, maker)| !self.is_member(maker)).copied().collect();
        lost.into_iter().for_each(|entry| self.remove(entry));
    }

    /// When the next entry ends.
    pub(super) fn next_end(&self) -> Option<u64> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Forgets what has ended; true when something had.
    pub(super) fn expire(&mut self, now_ms: u64) -> bool {
        let mut expired = false;
        while let Some((_, entry)) = self.ends.first().copied().filter(|(end, _)| *end <= now_ms) {
            self.remove(entry);
            expired = true;
        }
        expired
    }

    fn remove(&mut self, entry: Entry) {
        let Some(end) = self.entries.remove(&entry) else { return };
        self.ends.remove(&(end, entry));
        if let Some(made) = self.made.get_mut(&entry.1) {
            *made -= 1;
            if *made == 0 {
                self.made.remove(&entry.1);
            }
        }
    }

    fn is_member(&self, node: &NodeId) -> bool {
        self.admit.lists(node) || self.proved.contains(node)
    }

    fn any_entry(&self, now_ms: u64, node: &NodeId) -> bool {
        let all = (*node, NodeId::from_bytes([0; 32]))..=(*node, NodeId::from_bytes([0xff; 32]));
        self.entries.range(all).any(|(_, end)| *end > now_ms)
    }
}
