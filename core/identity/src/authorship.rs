//! Commit stones: a node signs the tips of a batch, so that a frame can be shown as written by it. Spec: ibgib §12.6.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use sealtide_crypto::{Label, PublicKey, SIGNATURE_BYTES, SigningKey, sha256_parts};
use sealtide_ibgib::json::{Js, write_norm};
use sealtide_ibgib::{Address, Data, Object, Refusal, Relations, Sid, Verified};
use serde_json::{Value, json};

use crate::NodeId;
use crate::keystone::kid;

/// The ib of a commit stone.
pub const COMMIT_IB: &str = "commit";
/// Tips of one stone, at most; a larger batch has several stones.
pub const TIPS_MAX: usize = 4_096;
/// Bytes of one stone, at most.
pub const STONE_BYTES_MAX: usize = 512 * 1024;
/// The largest counter and time: beyond it doubles skip integers.
const INTEGER_MAX: u64 = (1 << 53) - 1;

/// One new tip.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tip {
    /// Its strong id; stones list tips by it.
    pub sid: Sid,
    /// Its address.
    pub address: Address,
}

/// Who commits.
pub struct Author<'a> {
    /// The node key.
    pub key: &'a SigningKey,
    /// The first frame of the node's device keystone.
    pub keystone: &'a Address,
}

/// A commit stone whose signature holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The node.
    pub by: NodeId,
    /// The first frame of its device keystone.
    pub keystone: Address,
    /// When, ms since 1970, as the node says.
    pub at_ms: u64,
    /// Stones of this node in this space before it.
    pub seq: u64,
    /// The tips, in ascending order of their sids.
    pub tips: Vec<Address>,
    /// The stone before it.
    pub prev: Option<Address>,
    tips_digest: String,
}

/// Why a stone proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitRefused {
    /// Not in the form of a commit stone.
    #[error("no commit stone")]
    Form,
    /// The key is not that of the node it names.
    #[error("the key is not that of the node named in the stone")]
    Key,
    /// The signature does not verify.
    #[error("the signature of the stone does not verify")]
    Signature,
    /// The tips are not those that were signed.
    #[error("the tips are not those of the stone")]
    Tips,
    /// A stone after the first without the one before it, or a first with one.
    #[error("the stone does not name the one before it")]
    Previous,
}

/// Makes the stones of one batch: one for each 4 096 tips, fewer where a stone would pass 512 KiB. `before` is this
/// node's last stone in the space with its `seq`.
///
/// # Errors
/// [`Refusal`] when a single tip does not fit.
// Spec: SY-103
pub fn commit_stones(
    author: &Author<'_>,
    mut tips: Vec<Tip>,
    at_ms: u64,
    before: Option<(&Address, u64)>,
) -> Result<Vec<Verified>, Refusal> {
    tips.sort();
    tips.dedup();
    let mut stones: Vec<Verified> = Vec::new();
    let mut seq = before.map_or(0, |(_, seq)| seq + 1);
    let mut previous = before.map(|(address, _)| address.clone());
    let mut rest = tips.as_slice();
    while !rest.is_empty() {
        let mut count = rest.len().min(TIPS_MAX);
        let stone = loop {
            let made = stone(author, &rest[..count], at_ms, seq, previous.as_ref());
            match made {
                Ok(stone) if stone.encoded().len() <= STONE_BYTES_MAX => break stone,
                Ok(_) | Err(Refusal::TooLarge) if count > 1 => count = count.div_ceil(2),
                Ok(_) => return Err(Refusal::TooLarge),
                Err(refusal) => return Err(refusal),
            }
        };
        rest = &rest[count..];
        seq += 1;
        previous = Some(stone.address().clone());
        stones.push(stone);
    }
    Ok(stones)
}

/// What a stone says, whoever made it: form only, no signature is checked. `None` for a record that is no stone.
pub fn read_commit(record: &Verified) -> Option<Commit> {
    read(record).map(|(commit, _)| commit)
}

/// Checks form and signature of a stone under the key of its node. That the tips are those that were signed is checked
/// by [`Commit::check_tips`] where the records are.
///
/// # Errors
/// [`CommitRefused`].
// Spec: SY-103
pub fn check_commit(record: &Verified, key: &PublicKey) -> Result<Commit, CommitRefused> {
    let (commit, block) = read(record).ok_or(CommitRefused::Form)?;
    if NodeId::of(key) != commit.by || block.kid != kid(key) {
        return Err(CommitRefused::Key);
    }
    if (commit.seq == 0) != commit.prev.is_none() {
        return Err(CommitRefused::Previous);
    }
    let content = content(&unsigned(record).ok_or(CommitRefused::Form)?, record.relations_text());
    key.verify(Label::CommitStone, &content, &block.signature).map_err(|_| CommitRefused::Signature)?;
    Ok(commit)
}

impl Commit {
    /// Whether these are the sids of the tips, in the order of the stone.
    ///
    /// # Errors
    /// [`CommitRefused::Tips`].
    pub fn check_tips(&self, sids: &[Sid]) -> Result<(), CommitRefused> {
        let ascending = sids.windows(2).all(|pair| pair[0] < pair[1]);
        let right = ascending && sids.len() == self.tips.len() && tips_digest(sids.iter()) == self.tips_digest;
        if right { Ok(()) } else { Err(CommitRefused::Tips) }
    }
}

/// Who wrote which frame, as far as commits prove it. Spec: ibgib §12.6.
#[derive(Clone, Debug, Default)]
pub struct Authors {
    /// Tips with the node that committed them; the first commit of a frame counts.
    tips: BTreeMap<Address, NodeId>,
}

impl Authors {
    /// Takes a valid commit whose tips were checked. Commits of one space are added in the order of their times, equal
    /// times by address, so that the result does not depend on arrival.
    pub fn add(&mut self, commit: &Commit) {
        for tip in &commit.tips {
            self.tips.entry(tip.clone()).or_insert(commit.by);
        }
    }

    /// The author of a frame of a timeline: named by a commit, or reached from a later frame that is named through
    /// `past` alone, without passing a frame that is named itself. `later` gives the frames whose `past` is exactly the
    /// given one; a merge (two pasts) ends the way.
    pub fn of(&self, frame: &Address, later: &mut dyn FnMut(&Address) -> Vec<Address>) -> Option<NodeId> {
        let mut open = vec![frame.clone()];
        let mut seen = std::collections::BTreeSet::new();
        let mut found = std::collections::BTreeSet::new();
        while let Some(at) = open.pop() {
            if let Some(by) = self.tips.get(&at) {
                found.insert(*by);
            } else if seen.insert(at.clone()) {
                open.extend(later(&at));
            }
        }
        // Two nodes went on from one frame that neither had named: it stays a claim.
        if found.len() == 1 { found.first().copied() } else { None }
    }
}

struct BlockRead {
    kid: String,
    signature: Vec<u8>,
}

fn read(record: &Verified) -> Option<(Commit, BlockRead)> {
    let stone = record.address().ib() == COMMIT_IB && record.frame_ref().is_none();
    let data = record.object().filter(|_| stone && record.encoded().len() <= STONE_BYTES_MAX)?;
    let text = |object: &Object, name: &str| object.get(name)?.as_str().map(str::to_owned);
    let integer = |name: &str| data.get(name)?.as_u64().filter(|number| *number <= INTEGER_MAX);
    let block = data.get("st")?.as_object()?;
    let formed = block.get("v") == Some(&json!(1)) && block.get("alg") == Some(&json!("ML-DSA-87"));
    let exact =
        |object: &Object, names: &[&str]| object.len() == names.len() && names.iter().all(|n| object.contains_key(*n));
    let shaped =
        exact(&data, &["by", "keystone", "at", "seq", "tips", "st"]) && exact(block, &["v", "alg", "kid", "sig"]);
    let relations = record.relations();
    let tips = relations.get("tip").filter(|tips| (1..=TIPS_MAX).contains(&tips.len()))?.clone();
    let prev = match relations.get("prev").map(Vec::as_slice) {
        None => None,
        Some([only]) => Some(only.clone()),
        Some(_) => return None,
    };
    let named = relations.keys().all(|name| name == "tip" || name == "prev");
    let signature = BASE64URL_NOPAD.decode(text(block, "sig")?.as_bytes()).ok()?;
    if !formed || !shaped || !named || signature.len() != SIGNATURE_BYTES {
        return None;
    }
    let by = text(&data, "by")?;
    let commit = Commit {
        by: by.parse().ok().filter(|node: &NodeId| node.to_string() == by)?,
        keystone: Address::parse(&text(&data, "keystone")?).ok()?,
        at_ms: integer("at")?,
        seq: integer("seq")?,
        tips,
        prev,
        tips_digest: text(&data, "tips")?,
    };
    Some((commit, BlockRead { kid: text(block, "kid")?, signature }))
}

fn stone(
    author: &Author<'_>,
    tips: &[Tip],
    at_ms: u64,
    seq: u64,
    previous: Option<&Address>,
) -> Result<Verified, Refusal> {
    let key = author.key.public();
    let mut relations =
        Relations::from([("tip".to_owned(), tips.iter().map(|tip| tip.address.clone()).collect::<Vec<_>>())]);
    if let Some(previous) = previous {
        relations.insert("prev".to_owned(), vec![previous.clone()]);
    }
    let mut data = json!({
        "by": NodeId::of(key).to_string(),
        "keystone": author.keystone.as_str(),
        "at": at_ms,
        "seq": seq,
        "tips": tips_digest(tips.iter().map(|tip| &tip.sid)),
        "st": {"v": 1, "alg": "ML-DSA-87", "kid": kid(key)},
    });
    let bare = Verified::make(COMMIT_IB, Data::Json(data.clone()), relations.clone())?;
    let content = content(bare.data_text().unwrap_or_default(), bare.relations_text());
    let signature = author.key.sign(Label::CommitStone, &content);
    data["st"]["sig"] = BASE64URL_NOPAD.encode(signature.as_bytes()).into();
    Verified::make(COMMIT_IB, Data::Json(data), relations)
}

/// The canonical data without `st.sig`.
fn unsigned(record: &Verified) -> Option<String> {
    let mut data = Value::Object(record.object()?);
    data.get_mut("st")?.as_object_mut()?.shift_remove("sig");
    write_norm(&Js::from(&data))
}

fn content(data: &str, relations: &str) -> Vec<u8> {
    let mut content = Vec::with_capacity(data.len() + relations.len() + 16);
    for part in [data, relations] {
        content.extend_from_slice(&(part.len() as u64).to_be_bytes());
        content.extend_from_slice(part.as_bytes());
    }
    content
}

fn tips_digest<'a>(sids: impl Iterator<Item = &'a Sid>) -> String {
    let parts: Vec<&[u8]> = sids.map(|sid| sid.as_bytes().as_slice()).collect();
    data_encoding::HEXLOWER.encode(&sha256_parts(&parts))
}
