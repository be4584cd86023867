//! A keyring in memory: what a node does with it, without a disk.

use std::collections::BTreeMap;

use sealtide_crypto::{GatewayContext, Now, Seed, SeededEntropy, SigningKey};
use sealtide_identity::keyring::{
    Algorithm, Change, ChangeRefused, ChangeRequest, KeyOffers, KeyPolicy, KeyVersion, Keyring, KeyringError,
    LedgerRecord, LedgerRow, LoadedKeys, Order,
};

/// Address of the first frame in these tests.
pub(crate) const LEDGER: &str = "keyring^0000";
pub(crate) const DAY: u64 = 86_400_000;

pub(crate) fn v(number: u16) -> KeyVersion {
    KeyVersion::new(number).unwrap()
}

pub(crate) fn at(ms: u64) -> Now {
    Now { mono_ms: ms, wall_ms: 1_700_000_000_000 + ms }
}

/// 64 lower-case hex digits that belong to a version.
pub(crate) fn secret(number: u16) -> String {
    format!("{number:04x}").repeat(16)
}

pub(crate) fn load(versions: &[u16]) -> LoadedKeys {
    let files: BTreeMap<KeyVersion, Vec<u8>> =
        versions.iter().map(|number| (v(*number), secret(*number).into_bytes())).collect();
    LoadedKeys::load(&KeyOffers { files, ..KeyOffers::default() }, &mut SeededEntropy::new(1)).unwrap()
}

/// A node with a ledger that it keeps.
pub(crate) struct Rig {
    pub(crate) node: SigningKey,
    pub(crate) ring: Keyring,
    pub(crate) records: Vec<LedgerRecord>,
}

impl Rig {
    pub(crate) fn new(versions: &[u16]) -> Self {
        Self::with(versions, KeyPolicy::default())
    }

    pub(crate) fn with(versions: &[u16], policy: KeyPolicy) -> Self {
        let node = SigningKey::from_seed(&Seed::from_bytes([3; 32]));
        let first = Keyring::first_record(&load(versions), &node, "test", at(0)).unwrap();
        let row = LedgerRow::of(&first, "tip", None);
        let records = vec![first];
        let ring = Keyring::open(load(versions), LEDGER, &records, &row, 1, node.public(), policy).unwrap();
        Self { node, ring, records }
    }

    /// The same home after a restart, with these secrets.
    pub(crate) fn reopen(&mut self, versions: &[u16]) -> Result<(), KeyringError> {
        let row = LedgerRow::of(self.records.last().unwrap(), "tip", None);
        let policy = *self.ring.policy();
        self.ring = Keyring::open(
            load(versions),
            LEDGER,
            &self.records,
            &row,
            self.records.len() as u64,
            self.node.public(),
            policy,
        )?;
        Ok(())
    }

    pub(crate) fn propose(&self, order: Order, now: Now) -> Result<Option<Change>, ChangeRefused> {
        let request = ChangeRequest { order, expect: None, auto: false, by: "tester", reason: "a test" };
        self.ring.propose(&request, &self.node, now)
    }

    pub(crate) fn take(&mut self, change: Change, now: Now) -> Result<(), ChangeRefused> {
        let record = change.record.clone();
        self.ring.apply(change, &self.node, now)?;
        self.records.push(record);
        Ok(())
    }

    /// Proposes, makes durable, takes over.
    pub(crate) fn order(&mut self, order: Order, now: Now) -> Result<bool, ChangeRefused> {
        match self.propose(order, now)? {
            Some(change) => self.take(change, now).map(|()| true),
            None => Ok(false),
        }
    }

    pub(crate) fn rotate(&mut self, to: u16, now: Now) -> Result<bool, ChangeRefused> {
        self.order(Order::Rotate { to: Some(v(to)), keep_until: None }, now)
    }

    pub(crate) fn active(&self) -> u16 {
        self.ring.ledger().tip().active().number()
    }

    /// Signs a bump as REST does and says by which version.
    pub(crate) fn sign(&self, requested: Option<u16>) -> Option<u16> {
        let now = at(0).wall_ms;
        let requested = requested.map(v);
        let signed = self.ring.sign(b"[]", GatewayContext::Bump, Algorithm::HmacSha256, requested, true, now).ok()?;
        assert!(
            self.ring
                .verify(b"[]", GatewayContext::Bump, Algorithm::HmacSha256, signed.version, &signed.text, now)
                .valid
        );
        Some(signed.version.number())
    }
}
