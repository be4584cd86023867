//! Keystones for tests: one owner, one device, sessions; and frames with one thing changed.

use sealtide_crypto::{Entropy, Seed, SeededEntropy, SigningKey};
use sealtide_ibgib::json::{Js, Rules, parse};
use sealtide_ibgib::{Data, Stamp, Verified};
use sealtide_identity::keystone::v1::v1_validate;
use sealtide_identity::keystone::{
    Added, Broken, Chain, Claim, Frame, OwnerProfiles, Profile, RootSecret, Rule, SignError, Signer, Standing, Verb,
    WorkingSecret, device_genesis, owner_genesis, sign,
};
use serde_json::Value;

/// A target for posts.
pub(crate) const TARGET: &str = "comment hi^A1C0499999999999999999999999999999999999999999999999999999999999";

/// Multiplies the size of long tests: `SEALTIDE_TEST_SCALE`, 1 when unset.
pub(crate) fn scale() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "a test takes its size from the environment")]
    let scale = std::env::var("SEALTIDE_TEST_SCALE");
    scale.ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

pub(crate) fn at(seconds: u64) -> Stamp {
    Stamp { ms: 1_700_000_000_123 + seconds * 1_000 }
}

/// Secrets and a chain of its own.
pub(crate) struct Holder {
    pub(crate) root: RootSecret,
    pub(crate) working: WorkingSecret,
    pub(crate) key: SigningKey,
    pub(crate) entropy: SeededEntropy,
    pub(crate) chain: Chain,
}

impl Holder {
    fn secrets(seed: u64) -> (RootSecret, WorkingSecret, SigningKey, SeededEntropy) {
        let mut entropy = SeededEntropy::new(seed);
        let (root, working) = (RootSecret::generate(&mut entropy), WorkingSecret::generate(&mut entropy));
        (root, working, SigningKey::from_seed(&Seed::generate(&mut entropy)), entropy)
    }

    pub(crate) fn owner(seed: u64) -> Self {
        let (root, working, key, mut entropy) = Self::secrets(seed);
        let first = owner_genesis(&root, &working, &key, OwnerProfiles::default(), at(0), &mut entropy);
        Self { root, working, key, entropy, chain: Chain::begun(first) }
    }

    pub(crate) fn device(seed: u64) -> Self {
        let (root, working, key, mut entropy) = Self::secrets(seed);
        let first = device_genesis(&working, &key, Profile::Light, at(0), &mut entropy);
        Self { root, working, key, entropy, chain: Chain::begun(first) }
    }

    /// The next frame for a claim; it is not added.
    pub(crate) fn make(&mut self, claim: &Claim, seconds: u64) -> Result<Standing, SignError> {
        sign(&self.chain, Signer::Working(&self.working), &self.key, claim, at(seconds), &mut self.entropy)
    }

    /// Makes and adds the next frame; gives its record.
    pub(crate) fn sign(&mut self, claim: &Claim, seconds: u64) -> Verified {
        let made = self.make(claim, seconds).unwrap();
        let record = made.frame().record().clone();
        assert_eq!(self.chain.extend(made), Added::Checked);
        record
    }

    pub(crate) fn post(&mut self, seconds: u64) -> Verified {
        self.sign(&post(), seconds)
    }

    pub(crate) fn newest(&self) -> &Standing {
        self.chain.newest().unwrap()
    }

    pub(crate) fn first_record(&self) -> Verified {
        self.chain.genesis().unwrap().frame().record().clone()
    }
}

pub(crate) fn post() -> Claim {
    Claim::new(Verb::Post, TARGET)
}

pub(crate) fn rand(entropy: &mut dyn Entropy, below: usize) -> usize {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    (u64::from_be_bytes(bytes) % below as u64) as usize
}

/// The record with its data changed, hashed again.
pub(crate) fn changed(record: &Verified, change: impl FnOnce(&mut Value)) -> Verified {
    let mut data = Value::Object(record.object().unwrap());
    change(&mut data);
    Verified::make(record.address().ib(), Data::Json(data), record.relations().clone()).unwrap()
}

/// The same, signed again with `key` over the changed data.
pub(crate) fn resigned(
    record: &Verified,
    key: &SigningKey,
    previous: Option<&Verified>,
    change: impl FnOnce(&mut Value),
) -> Verified {
    let record = changed(record, change);
    // What is in no form of ours cannot be signed either.
    let Ok(frame) = Frame::read(&record) else { return record };
    let content = frame.signed_content(previous.map(Verified::address));
    let signature = key.sign(sealtide_crypto::Label::KeystoneFrame, &content);
    let text = data_encoding::BASE64URL_NOPAD.encode(signature.as_bytes());
    changed(&record, |data| data["st"]["sig"] = text.into())
}

/// The rules that a record breaks as a first frame.
pub(crate) fn broken_first(record: &Verified) -> Vec<Rule> {
    match Frame::read(record) {
        Ok(frame) => rules_of(Standing::first(frame).err()),
        Err(_) => vec![Rule::Form],
    }
}

/// The rules that a record breaks as successor of a frame.
pub(crate) fn broken_next(previous: &Standing, record: &Verified) -> Vec<Rule> {
    match Frame::read(record) {
        Ok(frame) => rules_of(previous.step(frame, &|_| false).err()),
        Err(_) => vec![Rule::Form],
    }
}

fn rules_of(broken: Option<Vec<Broken>>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = broken.unwrap_or_default().iter().map(|broken| broken.rule).collect();
    rules.sort();
    rules.dedup();
    rules
}

/// Whether V1 takes it: the record, and the step when there is a frame before it.
pub(crate) fn v1_takes(previous: Option<&Verified>, record: &Verified) -> bool {
    let js = |record: &Verified| match parse(&record.to_json().to_string(), Rules::Compat) {
        Ok(Js::Object(object)) => object,
        other => panic!("{other:?}"),
    };
    let whole = sealtide_ibgib::validate::validate_record(&js(record)) == Ok(Vec::new());
    whole && previous.is_none_or(|previous| v1_validate(&js(previous), &js(record)) == Ok(Vec::new()))
}
