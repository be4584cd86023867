//! One frame of a keystone, read from its record: pools, proofs, hybrid block. Spec: ibgib §6.1, §12.3.
//!
//! Reading judges the form only: one spelling of every part, because the order of members is part of the hash. What
//! the parts say is judged by the rules (`rules.rs`).

use std::ops::Range;

use sealtide_ibgib::{Address, FrameFacts, Verified};

use super::claim::Claim;
use super::hybrid::Block;
use super::pool::{ChallengeId, POOL_SIZE_MAX, Pool};
use super::text::{Cursor, FormError};

/// The ib of every keystone frame.
pub const KEYSTONE_IB: &str = "keystone";
/// The member by which a managing frame names a record of a key ledger. Spec: releases.md §4
pub(super) const KEYRING_MEMBER: &str = "keyring";
/// Pools of one frame, at most: an owner has three.
const POOLS_MAX: usize = 8;
/// Proofs that are read; the rules take one.
const PROOFS_MAX: usize = 4;
/// Bytes of one revealed value, at most: SHA-512 in hex.
const VALUE_BYTES_MAX: usize = 128;

/// One revealed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solution {
    /// The pool.
    pub pool: String,
    /// The challenge.
    pub id: ChallengeId,
    /// The value; public from now on.
    pub value: String,
}

/// One proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What for; `None` when it is not `{target, verb, scope?}` of texts.
    pub claim: Option<Claim>,
    /// The revealed values.
    pub solutions: Vec<Solution>,
    /// Which challenges had to be solved.
    pub demanded: Vec<ChallengeId>,
    place: Range<usize>,
}

/// A keystone frame in the form that ours have. Holds its record; cheap to share behind an `Arc`.
#[derive(Clone, Debug)]
pub struct Frame {
    pub(super) record: Verified,
    /// The pools, in order.
    pub pools: Vec<Pool>,
    /// The proofs: none in a first frame, one in every other.
    pub proofs: Vec<Proof>,
    /// The hybrid block, absent in a revocation.
    pub block: Option<Block>,
    /// Why it was revoked, in a revocation.
    pub revoked: Option<String>,
    pub(super) uuid: String,
    revocation_proof: Option<Range<usize>>,
    /// Top-level members, as the text has them.
    members: Vec<(String, Range<usize>)>,
}

impl Frame {
    /// Reads a record.
    ///
    /// # Errors
    /// [`FormError`]: the record is no keystone frame in our spelling.
    pub fn read(record: &Verified) -> Result<Self, FormError> {
        let text = record.data_text().ok_or(FormError("JSON data"))?;
        record.frame_ref().ok_or(FormError("a frame of a timeline"))?;
        let mut cursor = Cursor::new(text, 0..text.len());
        let members = cursor.members()?;
        cursor.end()?;
        let place = |name: &str| members.iter().find(|(member, _)| *member == name).map(|(_, place)| place.clone());
        let required = |name: &'static str| place(name).ok_or(FormError(name));

        let pools = Cursor::new(text, required("challengePools")?).list("[", "]", Pool::read)?;
        let challenges: usize = pools.iter().map(|pool| pool.challenges.len()).sum();
        if pools.len() > POOLS_MAX || challenges > POOLS_MAX * POOL_SIZE_MAX {
            return Err(FormError("at most 8 pools"));
        }
        let proofs = Cursor::new(text, required("proofs")?).list("[", "]", |cursor| read_proof(cursor, text))?;
        if proofs.len() > PROOFS_MAX {
            return Err(FormError("at most 4 proofs"));
        }
        let block = place("st").map(|place| Block::read(text, place)).transpose()?;
        let (revoked, revocation_proof) = match place("revocationInfo") {
            Some(place) => read_revocation(text, place)?,
            None => (None, None),
        };
        let uuid = Cursor::new(text, required("uuid")?).plain()?.to_owned();
        let members = members.into_iter().map(|(name, place)| (name.to_owned(), place)).collect();
        Ok(Self { record: record.clone(), pools, proofs, block, revoked, uuid, revocation_proof, members })
    }

    /// The record.
    pub fn record(&self) -> &Verified {
        &self.record
    }

    /// Its address.
    pub fn address(&self) -> &Address {
        self.record.address()
    }

    /// Its place in the timeline.
    pub fn facts(&self) -> &FrameFacts {
        self.record.frame_ref().expect("reading found a frame of a timeline")
    }

    /// The claim of the only proof, when there is exactly one.
    pub fn claim(&self) -> Option<&Claim> {
        match self.proofs.as_slice() {
            [proof] => proof.claim.as_ref(),
            _ => None,
        }
    }

    /// The pool of the only proof, as its first solution names it.
    pub fn proven_by(&self) -> Option<&str> {
        match self.proofs.as_slice() {
            [proof] => proof.solutions.first().map(|solution| solution.pool.as_str()),
            _ => None,
        }
    }

    /// The hash of the record of a key ledger that this frame names.
    pub fn keyring(&self) -> Option<[u8; 32]> {
        let text = self.member(KEYRING_MEMBER)?.strip_prefix('"')?.strip_suffix('"')?;
        data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
    }

    /// The pool called `id`.
    pub fn pool(&self, id: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.id == id)
    }

    /// Every challenge id, in order.
    pub fn challenge_ids(&self) -> impl Iterator<Item = ChallengeId> {
        self.pools.iter().flat_map(Pool::ids)
    }

    pub(super) fn text(&self) -> &str {
        self.record.data_text().unwrap_or_default()
    }

    pub(super) fn pool_text(&self, pool: &Pool) -> &str {
        &self.text()[pool.place.clone()]
    }

    pub(super) fn member(&self, name: &str) -> Option<&str> {
        let (_, place) = self.members.iter().find(|(member, _)| member == name)?;
        self.text().get(place.clone())
    }

    /// What a proof binds: the data without `proofs`, `st.sig` and `revocationInfo.proof`. Spec: ibgib §12.3.
    pub(super) fn core(&self) -> String {
        self.without(&["proofs"], true)
    }

    /// What the signature covers of the data: all but `st.sig`.
    pub(super) fn signed_data(&self) -> String {
        self.without(&[], false)
    }

    fn without(&self, left_out: &[&str], leave_out_revocation_proof: bool) -> String {
        let text = self.text();
        let mut out = String::with_capacity(text.len());
        out.push('{');
        for (name, place) in self.members.iter().filter(|(name, _)| !left_out.contains(&name.as_str())) {
            if out.len() > 1 {
                out.push(',');
            }
            out.push('"');
            out.push_str(name);
            out.push_str("\":");
            match (name.as_str(), &self.block) {
                ("st", Some(block)) => out.push_str(&block.unsigned()),
                ("revocationInfo", _) if leave_out_revocation_proof => out.push_str(&self.bare_revocation()),
                _ => out.push_str(&text[place.clone()]),
            }
        }
        out.push('}');
        out
    }

    fn bare_revocation(&self) -> String {
        revocation_core(self.revoked.as_deref().unwrap_or_default())
    }

    /// Whether the proof inside `revocationInfo` is the one in `proofs`, whatever the order of members.
    pub(super) fn revocation_proof_matches(&self) -> bool {
        let ([proof], Some(place)) = (self.proofs.as_slice(), &self.revocation_proof) else { return false };
        let value = |place: &Range<usize>| serde_json::from_str::<serde_json::Value>(&self.text()[place.clone()]).ok();
        value(&proof.place).is_some_and(|proof| value(place) == Some(proof))
    }
}

/// `revocationInfo` without its proof.
pub(super) fn revocation_core(reason: &str) -> String {
    format!("{{\"reason\":{}}}", super::text::quoted(reason))
}

fn read_proof(cursor: &mut Cursor<'_>, text: &str) -> Result<Proof, FormError> {
    let start = cursor.at();
    cursor.expect("{\"claim\":")?;
    let claim = Claim::read(&text[cursor.value()?]);
    cursor.expect(",\"solutions\":")?;
    let solutions = cursor.list("[", "]", |cursor| {
        cursor.expect("{\"type\":\"hash-reveal-v1\",\"poolId\":")?;
        let pool = cursor.plain()?.to_owned();
        cursor.expect(",\"challengeId\":")?;
        let id = ChallengeId::parse(cursor.plain()?).ok_or(FormError("a challenge id of 16 characters"))?;
        cursor.expect(",\"value\":")?;
        let value = cursor.plain()?.to_owned();
        cursor.expect("}")?;
        if value.len() > VALUE_BYTES_MAX { Err(FormError("a short value")) } else { Ok(Solution { pool, id, value }) }
    })?;
    let demanded = if cursor.takes(",\"requiredChallengeIds\":") {
        cursor.list("[", "]", |cursor| ChallengeId::parse(cursor.plain()?).ok_or(FormError("a demanded id")))?
    } else {
        Vec::new()
    };
    cursor.expect("}")?;
    if solutions.len() > POOL_SIZE_MAX || demanded.len() > POOL_SIZE_MAX {
        return Err(FormError("at most 1024 solutions"));
    }
    Ok(Proof { claim, solutions, demanded, place: start..cursor.at() })
}

/// `{proof, reason}` and nothing else.
fn read_revocation(text: &str, place: Range<usize>) -> Result<(Option<String>, Option<Range<usize>>), FormError> {
    let mut cursor = Cursor::new(text, place);
    cursor.expect("{")?;
    let proof = if cursor.takes("\"proof\":") {
        let place = cursor.value()?;
        cursor.expect(",")?;
        Some(place)
    } else {
        None
    };
    cursor.expect("\"reason\":")?;
    let reason = serde_json::from_str(&text[cursor.value()?]).map_err(|_| FormError("a reason"))?;
    cursor.expect("}")?;
    cursor.end()?;
    Ok((Some(reason), proof))
}
