//! A device that speaks for its owner. Spec: ibgib §12.3 "Delegation".

use sealtide_ibgib::Stamp;

use super::chain::Chain;
use super::claim::{Claim, Verb};
use super::class::Class;
use super::moment::{parse_moment, write_moment};

/// The verbs that can be delegated, in the order a scope lists them.
const DELEGABLE: [Verb; 3] = [Verb::Connect, Verb::Sync, Verb::Post];

/// What is delegated: some of `connect`, `sync` and `post`, until a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    verbs: Vec<Verb>,
    until: Stamp,
}

impl Delegation {
    /// `None` without a verb or with one that cannot be delegated. The time is cut to whole seconds.
    pub fn new(verbs: &[Verb], until: Stamp) -> Option<Self> {
        let delegable = !verbs.is_empty() && verbs.iter().all(|verb| DELEGABLE.contains(verb));
        let verbs = DELEGABLE.into_iter().filter(|verb| verbs.contains(verb)).collect();
        delegable.then_some(Self { verbs, until: Stamp { ms: until.ms - until.ms % 1000 } })
    }

    /// Whether it holds for this verb at this time.
    pub fn allows(&self, verb: Verb, now: Stamp) -> bool {
        self.verbs.contains(&verb) && now < self.until
    }

    /// When it ends.
    pub fn until(&self) -> Stamp {
        self.until
    }

    /// The verbs.
    pub fn verbs(&self) -> &[Verb] {
        &self.verbs
    }

    /// The scope text: `verbs=connect,sync,post;until=2027-01-01T00:00:00Z`.
    pub fn scope(&self) -> String {
        let verbs: Vec<&str> = self.verbs.iter().map(|verb| verb.word()).collect();
        format!("verbs={};until={}", verbs.join(","), write_moment(self.until))
    }

    /// Reads a scope text; only the one spelling of [`Delegation::scope`].
    pub fn parse(scope: &str) -> Option<Self> {
        let (verbs, until) = scope.strip_prefix("verbs=")?.split_once(";until=")?;
        let verbs: Option<Vec<Verb>> = verbs.split(',').map(Verb::of).collect();
        let delegation = Self::new(&verbs?, parse_moment(until)?)?;
        (delegation.scope() == scope).then_some(delegation)
    }

    /// The claim that delegates to a device.
    pub fn claim(&self, device_first: &str) -> Claim {
        Claim::new(Verb::Delegate, device_first).scoped(self.scope())
    }
}

/// Whether a proof of `device` counts for `owner`: both live, delegated for this verb, before its end. One level only:
/// a device cannot delegate, and an owner is nobody's device.
// Spec: SY-29
pub fn speaks_for(owner: &Chain, device: &Chain, verb: Verb, now: Stamp) -> bool {
    let class = |chain: &Chain, class| chain.newest().is_some_and(|newest| newest.class() == class);
    let whole = owner.is_live() && device.is_live() && class(owner, Class::Owner) && class(device, Class::Device);
    whole && owner.delegations(device.first_address()).iter().any(|delegation| delegation.allows(verb, now))
}
