//! Which subprotocol a session speaks. Spec: gateway §5.

use std::collections::BTreeSet;
use std::fmt;

use http::HeaderMap;

/// Names in one offer, at most.
const NAMES_MAX: usize = 16;
/// Bytes of all names together, at most.
const OFFER_BYTES_MAX: usize = 4_096;
/// A carrier entry: it brings the token and is never selected.
pub(crate) const CARRIER: &str = "tes-token.";
const LEGACY: &str = "tes-subproto-v1";

/// A rung of the ladder: `tes-ui-v1` signs with HMAC, `tes-ui-v2` with Ed25519.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rung(u16);

impl Rung {
    /// `tes-ui-v1`.
    pub const V1: Self = Self(1);
    /// `tes-ui-v2`.
    pub const V2: Self = Self(2);

    /// The rung of a name, `tes-ui-vN` with N from 1 to 9999.
    pub fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_prefix("tes-ui-v")?;
        let plain = digits.len() <= 4 && digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
        plain.then(|| digits.parse().ok()).flatten().map(Self)
    }

    /// Its number, which is the lowest key version that may sign on it.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tes-ui-v{}", self.0)
    }
}

/// What the keyring says about the rungs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    /// The active version of the ledger.
    pub ledger: u16,
    /// The highest version whose secret is loaded.
    pub loaded: u16,
    /// Whether v1 is neither expired nor compromised nor forced away.
    pub v1_counts: bool,
}

impl KeyFacts {
    /// Whether a rung can keep what it promises.
    // Spec: GW-25, GW-29
    pub fn allow(&self, rung: Rung) -> bool {
        match rung {
            Rung::V1 => self.v1_counts,
            Rung(number) => self.loaded >= number && self.ledger >= number,
        }
    }
}

/// What a client offers in `Sec-WebSocket-Protocol`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Names in the client's order, carriers left out.
    pub names: Vec<String>,
    /// Tokens in carrier entries.
    pub tokens: Vec<String>,
}

/// What came of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The name to answer with; none when nothing was offered.
    pub name: Option<String>,
    /// What the session speaks.
    pub rung: Rung,
}

/// An offer that leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The header is malformed, has a name twice, or too many.
    Malformed,
    /// No name is one that is spoken here.
    Unsupported,
    /// The names that are spoken here cannot be kept with the keys as they are.
    Ineligible,
}

impl Offer {
    /// Reads all lines of the header.
    ///
    /// # Errors
    /// [`Mismatch::Malformed`].
    // Spec: GW-28
    pub fn read(headers: &HeaderMap) -> Result<Self, Mismatch> {
        let mut offer = Self::default();
        let (mut seen, mut bytes) = (BTreeSet::new(), 0);
        for line in headers.get_all("sec-websocket-protocol") {
            for name in
                line.to_str().map_err(|_| Mismatch::Malformed)?.split(',').map(|name| name.trim_matches([' ', '\t']))
            {
                bytes += name.len();
                let fits = is_token(name) && seen.insert(name.to_owned()) && seen.len() <= NAMES_MAX;
                if !fits || bytes > OFFER_BYTES_MAX {
                    return Err(Mismatch::Malformed);
                }
                match name.strip_prefix(CARRIER) {
                    Some(token) => offer.tokens.push(token.to_owned()),
                    None => offer.names.push(name.to_owned()),
                }
            }
        }
        Ok(offer)
    }

    /// The first name, in the client's order, that is spoken here and can be kept. A name that was not offered is
    /// never answered: real clients drop such a connection.
    ///
    /// # Errors
    /// [`Mismatch`].
    // Spec: GW-24, GW-26, GW-27
    pub fn select(
        &self,
        spoken: &BTreeSet<Rung>,
        lowest: Rung,
        legacy_alias: bool,
        keys: &KeyFacts,
    ) -> Result<Selected, Mismatch> {
        if self.names.is_empty() {
            let fits = lowest == Rung::V1;
            return if fits { Ok(Selected { name: None, rung: Rung::V1 }) } else { Err(Mismatch::Unsupported) };
        }
        let rung_of = |name: &str| if legacy_alias && name == LEGACY { Some(Rung::V1) } else { Rung::parse(name) };
        let known = self.names.iter().filter_map(|name| Some((name, rung_of(name)?)));
        let supported: Vec<(&String, Rung)> =
            known.filter(|(_, rung)| spoken.contains(rung) && *rung >= lowest).collect();
        match supported.iter().find(|(_, rung)| keys.allow(*rung)) {
            Some((name, rung)) => Ok(Selected { name: Some((*name).clone()), rung: *rung }),
            None if supported.is_empty() => Err(Mismatch::Unsupported),
            None => Err(Mismatch::Ineligible),
        }
    }
}

/// A token of RFC 9110.
fn is_token(text: &str) -> bool {
    let special = b"!#$%&'*+-.^_`|~";
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || special.contains(&byte))
}
