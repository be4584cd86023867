//! Challenge pools as our frames have them: one fixed spelling, read in one pass. Spec: ibgib §6.1, §12.3.

use std::fmt;
use std::fmt::Write as _;
use std::ops::Range;

use zeroize::Zeroizing;

use super::strategy::{Algo, CHALLENGE_TYPE, Derivation};
use super::text::{Cursor, FormError, is_hex};
use sealtide_crypto::Entropy;

/// Challenges of one pool, at most. Spec: ibgib §12.3 G6.
pub const POOL_SIZE_MAX: usize = 1_024;

/// The id of a challenge: 16 characters, hex digits in a valid frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChallengeId([u8; 16]);

impl ChallengeId {
    /// Takes 16 ASCII characters.
    pub fn parse(text: &str) -> Option<Self> {
        text.as_bytes().try_into().ok().filter(|_| text.is_ascii()).map(Self)
    }

    /// Draws one.
    pub(super) fn draw(entropy: &mut dyn Entropy) -> Self {
        let mut bytes = [0; 8];
        entropy.fill(&mut bytes);
        let mut text = [0; 16];
        data_encoding::HEXLOWER.encode_mut(&bytes, &mut text);
        Self(text)
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Whether it is 16 lower-case hex digits.
    pub(super) fn is_hex(&self) -> bool {
        is_hex(self.as_str(), 16)
    }

    /// The digits as a number; two ids that are no hex may share one.
    pub(super) fn number(&self) -> u64 {
        u64::from_str_radix(self.as_str(), 16).unwrap_or_default()
    }

    /// The bucket of the binding map.
    fn digit(&self) -> u8 {
        self.0[0].to_ascii_lowercase()
    }
}

impl fmt::Display for ChallengeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ChallengeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens to a pool when a frame used it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replenish {
    /// As many new challenges as were spent.
    TopUp,
    /// A whole new set.
    ReplaceAll,
    /// Nothing new.
    Consume,
    /// Everything goes.
    ScorchedEarth,
}

impl Replenish {
    const ALL: [(Self, &'static str); 4] = [
        (Self::TopUp, "top-up"),
        (Self::ReplaceAll, "replace-all"),
        (Self::Consume, "consume"),
        (Self::ScorchedEarth, "scorched-earth"),
    ];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(which, _)| *which == self).map_or("", |(_, word)| word)
    }

    fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == word).map(|(which, _)| *which)
    }
}

/// The config of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Salt, and id of the pool.
    pub salt: String,
    /// Verbs it proves; none: any.
    pub verbs: Vec<String>,
    /// Number of challenges.
    pub size: u32,
    /// What happens after use.
    pub replenish: Replenish,
    /// How many are taken in order.
    pub select_sequentially: u32,
    /// How many by chance.
    pub select_randomly: u32,
    /// How many by characters of the target.
    pub target_binding_chars: u32,
    /// The hash.
    pub algo: Algo,
    /// How often it is applied.
    pub rounds: u32,
    /// `stBind`: how many a digest demands. Spec: ibgib §12.3 "digest demands".
    pub bind: Option<u32>,
}

impl PoolConfig {
    pub(super) fn derivation(&self) -> Derivation<'_> {
        Derivation { salt: &self.salt, algo: self.algo, rounds: self.rounds }
    }

    /// Whether the verb may be proven by this pool.
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.is_empty() || self.verbs.iter().any(|allowed| allowed == verb)
    }

    fn write(&self, out: &mut String) {
        let verbs: Vec<String> = self.verbs.iter().map(|verb| format!("\"{verb}\"")).collect();
        let bind = self.bind.map(|bind| format!(",\"stBind\":{bind}")).unwrap_or_default();
        let _ = write!(
            out,
            "{{\"type\":\"{CHALLENGE_TYPE}\",\"salt\":\"{}\",\"allowedVerbs\":[{}],\"behavior\":{{\"size\":{},\
             \"replenish\":\"{}\",\"selectSequentially\":{},\"selectRandomly\":{},\"targetBindingChars\":{}}},\
             \"algo\":\"{}\",\"rounds\":{}{bind}}}",
            self.salt,
            verbs.join(","),
            self.size,
            self.replenish.word(),
            self.select_sequentially,
            self.select_randomly,
            self.target_binding_chars,
            self.algo.name(),
            self.rounds,
        );
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, FormError> {
        cursor.expect("{\"type\":\"hash-reveal-v1\",\"salt\":")?;
        let salt = cursor.plain()?.to_owned();
        cursor.expect(",\"allowedVerbs\":")?;
        let verbs = cursor.list("[", "]", |cursor| cursor.plain().map(str::to_owned))?;
        cursor.expect(",\"behavior\":{\"size\":")?;
        let size = cursor.number()?;
        cursor.expect(",\"replenish\":")?;
        let replenish = Replenish::of(cursor.plain()?).ok_or(FormError("a replenish strategy"))?;
        cursor.expect(",\"selectSequentially\":")?;
        let select_sequentially = cursor.number()?;
        cursor.expect(",\"selectRandomly\":")?;
        let select_randomly = cursor.number()?;
        cursor.expect(",\"targetBindingChars\":")?;
        let target_binding_chars = cursor.number()?;
        cursor.expect("},\"algo\":")?;
        let algo = Algo::named(cursor.plain()?).ok_or(FormError("a hash"))?;
        cursor.expect(",\"rounds\":")?;
        let rounds = cursor.number()?;
        let bind = if cursor.takes(",\"stBind\":") { Some(cursor.number()?) } else { None };
        cursor.expect("}")?;
        Ok(Self {
            salt,
            verbs,
            size,
            replenish,
            select_sequentially,
            select_randomly,
            target_binding_chars,
            algo,
            rounds,
            bind,
        })
    }
}

/// One published challenge; the hash stays in the text of the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Its id.
    pub id: ChallengeId,
    /// Where its hash stands in the data text.
    pub(super) hash: Range<usize>,
}

/// One pool of a frame.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The id.
    pub id: String,
    /// The config.
    pub config: PoolConfig,
    /// The challenges in insertion order.
    pub challenges: Vec<Challenge>,
    /// Where the whole pool stands in the data text.
    pub(super) place: Range<usize>,
    /// Where its binding map stands.
    pub(super) map: Range<usize>,
}

impl Pool {
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self, FormError> {
        let start = cursor.at();
        cursor.expect("{\"id\":")?;
        let id = cursor.plain()?.to_owned();
        cursor.expect(",\"config\":")?;
        let config = PoolConfig::read(cursor)?;
        cursor.expect(",\"challenges\":")?;
        let challenges = cursor.list("{", "}", |cursor| {
            let id = ChallengeId::parse(cursor.plain()?).ok_or(FormError("a challenge id of 16 characters"))?;
            cursor.expect(":{\"type\":\"hash-reveal-v1\",\"hash\":")?;
            let at = cursor.at() + 1;
            let hash = cursor.plain()?;
            cursor.expect("}")?;
            Ok(Challenge { id, hash: at..at + hash.len() })
        })?;
        cursor.expect(",\"bindingMap\":")?;
        let map = cursor.value()?;
        cursor.expect("}")?;
        Ok(Self { id, config, challenges, place: start..cursor.at(), map })
    }

    /// The ids in insertion order.
    pub fn ids(&self) -> impl Iterator<Item = ChallengeId> {
        self.challenges.iter().map(|challenge| challenge.id)
    }
}

/// Which challenges stand in which bucket, in the order JavaScript lists the buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BindingMap(Vec<(u8, Vec<ChallengeId>)>);

impl BindingMap {
    pub(super) fn of(ids: impl Iterator<Item = ChallengeId>) -> Self {
        let mut map = Self::default();
        ids.for_each(|id| map.add(id));
        map
    }

    pub(super) fn read(text: &str, place: Range<usize>) -> Result<Self, FormError> {
        let mut cursor = Cursor::new(text, place);
        let buckets = cursor.list("{", "}", |cursor| {
            let digit = cursor.plain()?.bytes().next().ok_or(FormError("a bucket"))?;
            cursor.expect(":")?;
            let ids = cursor.list("[", "]", |cursor| ChallengeId::parse(cursor.plain()?).ok_or(FormError("an id")))?;
            Ok((digit, ids))
        })?;
        Ok(Self(buckets))
    }

    pub(super) fn add(&mut self, id: ChallengeId) {
        match self.0.iter_mut().find(|(digit, _)| *digit == id.digit()) {
            Some((_, bucket)) => bucket.push(id),
            None => self.0.push((id.digit(), vec![id])),
        }
    }

    pub(super) fn keep(&mut self, mut stays: impl FnMut(ChallengeId) -> bool) {
        self.0.iter_mut().for_each(|(_, bucket)| bucket.retain(|id| stays(*id)));
    }

    pub(super) fn write(&self) -> String {
        let mut order: Vec<&(u8, Vec<ChallengeId>)> = self.0.iter().collect();
        // Digits are array indices and come first, in order; letters stay as they came.
        order.sort_by_key(|(digit, _)| if digit.is_ascii_digit() { *digit } else { u8::MAX });
        let buckets: Vec<String> = order
            .into_iter()
            .map(|(digit, bucket)| {
                let ids: Vec<String> = bucket.iter().map(|id| format!("\"{id}\"")).collect();
                format!("\"{}\":[{}]", char::from(*digit), ids.join(","))
            })
            .collect();
        format!("{{{}}}", buckets.join(","))
    }
}

/// The text of a pool from its parts; `challenges` pairs ids with hashes.
pub(super) fn pool_text(config: &PoolConfig, challenges: &[(ChallengeId, String)], map: &BindingMap) -> String {
    let mut out = format!("{{\"id\":\"{}\",\"config\":", config.salt);
    config.write(&mut out);
    out.push_str(",\"challenges\":{");
    for (position, (id, hash)) in challenges.iter().enumerate() {
        let comma = if position > 0 { "," } else { "" };
        let _ = write!(out, "{comma}\"{id}\":{{\"type\":\"{CHALLENGE_TYPE}\",\"hash\":\"{hash}\"}}");
    }
    let _ = write!(out, "}},\"bindingMap\":{}}}", map.write());
    out
}

/// A full pool of new challenges.
pub(super) fn fresh_pool(config: &PoolConfig, master: &str, ids: &[ChallengeId]) -> String {
    let challenges = new_challenges(config, master, ids);
    pool_text(config, &challenges, &BindingMap::of(ids.iter().copied()))
}

/// The hashes of new ids.
pub(super) fn new_challenges(config: &PoolConfig, master: &str, ids: &[ChallengeId]) -> Vec<(ChallengeId, String)> {
    let derivation = config.derivation();
    let secret = derivation.pool_secret(master);
    let hash = |id: &ChallengeId| derivation.challenge(&derivation.solution(&secret, id.as_str()), id.as_str());
    ids.iter().map(|id| (*id, hash(id))).collect()
}

/// The solutions of some ids.
pub(super) fn solutions(config: &PoolConfig, master: &str, ids: &[ChallengeId]) -> Vec<Zeroizing<String>> {
    let derivation = config.derivation();
    let secret = derivation.pool_secret(master);
    ids.iter().map(|id| derivation.solution(&secret, id.as_str())).collect()
}
