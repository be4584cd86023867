//! What a frame is for: verb, target and scope. Spec: ibgib §6.1, §12.3.

use sealtide_ibgib::Address;
use sealtide_ibgib::json::{Js, Rules, parse, write_norm};

use super::text::{is_hex, quoted};

/// What a proof is for. Plain words, no addresses (C4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// A session keystone, or a context, is authorised.
    Sync,
    /// A record is posted, a members frame for instance.
    Post,
    /// A device keystone speaks for its owner.
    Delegate,
    /// It does no more.
    Undelegate,
    /// Pools or key are replaced.
    Manage,
    /// The identity ends.
    Revoke,
    /// A connection is proven (session keystones).
    Connect,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 7] =
        [Self::Sync, Self::Post, Self::Delegate, Self::Undelegate, Self::Manage, Self::Revoke, Self::Connect];

    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Post => "post",
            Self::Delegate => "delegate",
            Self::Undelegate => "undelegate",
            Self::Manage => "manage",
            Self::Revoke => "revoke",
            Self::Connect => "connect",
        }
    }

    /// The verb of this word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.word() == word)
    }
}

/// The claim of a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The verb's word; session keystones take any, long-lived ones those of [`Verb`].
    pub verb: String,
    /// An address, or 64 lower-case hex digits in a session keystone.
    pub target: String,
    /// Free text that narrows it.
    pub scope: Option<String>,
}

impl Claim {
    /// A claim without scope.
    pub fn new(verb: Verb, target: &str) -> Self {
        Self { verb: verb.word().to_owned(), target: target.to_owned(), scope: None }
    }

    /// The same with a scope.
    #[must_use]
    pub fn scoped(self, scope: String) -> Self {
        Self { scope: Some(scope), ..self }
    }

    /// The verb, when it is one we know.
    pub fn known_verb(&self) -> Option<Verb> {
        Verb::of(&self.verb)
    }

    /// The target as the address of a record.
    pub fn target_address(&self) -> Option<Address> {
        Address::parse(&self.target).ok()
    }

    /// Whether the target is 64 lower-case hex digits.
    pub fn target_is_digest(&self) -> bool {
        is_hex(&self.target, 64)
    }

    /// As it stands in a proof: target, verb, scope.
    pub(super) fn as_written(&self) -> String {
        let scope = self.scope.as_ref().map(|scope| format!(",\"scope\":{}", quoted(scope))).unwrap_or_default();
        format!("{{\"target\":{},\"verb\":{}{scope}}}", quoted(&self.target), quoted(&self.verb))
    }

    /// `json(norm(claim))`: members by name.
    pub(super) fn canonical(&self) -> String {
        let scope = self.scope.as_ref().map(|scope| format!("\"scope\":{},", quoted(scope))).unwrap_or_default();
        format!("{{{scope}\"target\":{},\"verb\":{}}}", quoted(&self.target), quoted(&self.verb))
    }

    /// Reads `{target, verb, scope?}` in any order; `None` for other members or other types.
    pub(super) fn read(text: &str) -> Option<Self> {
        let Js::Object(members) = parse(text, Rules::Strict).ok()? else { return None };
        let member = |name: &str| members.named(name).as_string()?.as_str().map(str::to_owned);
        let scope = member("scope");
        let claim = Self { verb: member("verb")?, target: member("target")?, scope };
        // Nothing else may hide in it.
        (write_norm(&Js::Object(members.clone()))? == claim.canonical()).then_some(claim)
    }
}
