//! A frame in the making: its canonical text, piece by piece, and the record of it. Spec: ibgib §6.1, §12.3.

use sealtide_crypto::SigningKey;
use sealtide_ibgib::{Address, Refusal, Relations, Stamp, Verified};

use super::claim::Claim;
use super::frame::{Frame, KEYRING_MEMBER, KEYSTONE_IB, revocation_core};
use super::hybrid::{Block, content, sign};
use super::pool::ChallengeId;
use super::text::{FormError, quoted};

/// Why a frame could not be made of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MakeError {
    /// The record is refused, `too_large` for instance.
    #[error("the frame is refused: {0}")]
    Refused(#[from] Refusal),
    /// The text is in no form of ours.
    #[error(transparent)]
    Form(#[from] FormError),
}

/// The parts of a frame but for proof and signature.
pub(super) struct Draft<'a> {
    pub(super) previous: Option<&'a Address>,
    pub(super) first: Option<&'a Address>,
    /// The texts of the pools.
    pub(super) pools: Vec<String>,
    pub(super) n: u64,
    pub(super) uuid: &'a str,
    pub(super) stamp: Stamp,
    pub(super) block: Option<Block>,
    pub(super) reason: Option<&'a str>,
    /// SHA-256 of the ledger record that this frame lets count, in hex.
    pub(super) keyring: Option<String>,
}

/// What a frame proves, once its solutions are known.
pub(super) struct ProofText {
    /// As it stands in `proofs`.
    written: String,
    /// As it stands, normalised, in `revocationInfo`.
    canonical: String,
}

impl ProofText {
    pub(super) fn of(claim: &Claim, pool: &str, solved: &[(ChallengeId, &str)]) -> Self {
        let solutions: Vec<String> = solved
            .iter()
            .map(|(id, value)| {
                format!(
                    "{{\"type\":\"hash-reveal-v1\",\"poolId\":\"{pool}\",\"challengeId\":\"{id}\",\"value\":\"{value}\"}}"
                )
            })
            .collect();
        let demanded: Vec<String> = solved.iter().map(|(id, _)| format!("\"{id}\"")).collect();
        let (solutions, demanded) = (solutions.join(","), demanded.join(","));
        Self {
            written: format!(
                "{{\"claim\":{},\"solutions\":[{solutions}],\"requiredChallengeIds\":[{demanded}]}}",
                claim.as_written()
            ),
            canonical: format!(
                "{{\"claim\":{},\"requiredChallengeIds\":[{demanded}],\"solutions\":[{solutions}]}}",
                claim.canonical()
            ),
        }
    }
}

impl Draft<'_> {
    pub(super) fn relations(&self) -> Relations {
        let keystone = Address::parse("keystone^gib").expect("a valid address");
        let mut relations = Relations::from([("ancestor".to_owned(), vec![keystone])]);
        for (name, address) in [("past", self.previous), ("tjp", self.first)] {
            if let Some(address) = address {
                relations.insert(name.to_owned(), vec![address.clone()]);
            }
        }
        relations
    }

    /// The canonical relations. The addresses of keystones need no escapes.
    pub(super) fn relations_text(&self) -> String {
        let link = |name: &str, address: Option<&Address>| {
            address.map(|address| format!(",\"{name}\":[\"{address}\"]")).unwrap_or_default()
        };
        format!("{{\"ancestor\":[\"keystone^gib\"]{}{}}}", link("past", self.previous), link("tjp", self.first))
    }

    /// What the digest of the demands covers.
    pub(super) fn core(&self) -> String {
        let revocation = self.reason.map(revocation_core);
        self.text(None, revocation, self.block.as_ref().map(Block::unsigned))
    }

    /// The finished frame, signed with `key`.
    pub(super) fn finish(&self, proof: Option<&ProofText>, key: &SigningKey) -> Result<Frame, MakeError> {
        self.finish_with(proof, Some(key))
    }

    /// The finished frame of a revocation, which has no signature.
    pub(super) fn finish_unsigned(&self, proof: &ProofText) -> Result<Frame, MakeError> {
        self.finish_with(Some(proof), None)
    }

    fn finish_with(&self, proof: Option<&ProofText>, key: Option<&SigningKey>) -> Result<Frame, MakeError> {
        let proofs = format!("[{}]", proof.map(|proof| proof.written.as_str()).unwrap_or_default());
        let revocation = self.reason.map(|reason| {
            let proof = proof.map(|proof| proof.canonical.as_str()).unwrap_or("null");
            format!("{{\"proof\":{proof},\"reason\":{}}}", quoted(reason))
        });
        let block = self.block.as_ref().zip(key).map(|(block, key)| {
            let data = self.text(Some(&proofs), revocation.clone(), Some(block.unsigned()));
            block.signed(&sign(key, &content(self.previous, &data, &self.relations_text())))
        });
        let data = self.text(Some(&proofs), revocation, block);
        let record = Verified::make_canonical(KEYSTONE_IB, &data, &self.relations())?;
        Ok(Frame::read(&record)?)
    }

    /// The canonical data: members by name.
    fn text(&self, proofs: Option<&str>, revocation: Option<String>, block: Option<String>) -> String {
        let mut out = format!("{{\"challengePools\":[{}]", self.pools.join(","));
        if self.first.is_none() {
            out.push_str(",\"isTjp\":true");
        }
        if let Some(record) = &self.keyring {
            out.push_str(&format!(",\"{KEYRING_MEMBER}\":\"{record}\""));
        }
        out.push_str(&format!(",\"n\":{}", self.n));
        for (name, value) in [("proofs", proofs), ("revocationInfo", revocation.as_deref()), ("st", block.as_deref())] {
            if let Some(value) = value {
                out.push_str(&format!(",\"{name}\":{value}"));
            }
        }
        let (timestamp, ms) = (self.stamp.timestamp(), self.stamp.timestamp_ms());
        out.push_str(&format!(",\"timestamp\":\"{timestamp}\",\"timestampMs\":{ms},\"uuid\":{}}}", quoted(self.uuid)));
        out
    }
}
