//! Keystone frames on one core: making and checking each class and profile.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot go on ends")]

use divan::{Bencher, black_box};
use sealtide_crypto::{Seed, SeededEntropy, SigningKey};
use sealtide_ibgib::{Stamp, Verified};
use sealtide_identity::keystone::{
    Chain, Claim, Frame, Manage, OwnerProfiles, Profile, RootSecret, Signer, Standing, Verb, WorkingSecret,
    device_genesis, manage, owner_genesis, session_genesis, sign,
};

const AT: Stamp = Stamp { ms: 1_700_000_000_000 };

fn main() {
    divan::main();
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Owner,
    DeviceLight,
    DeviceStandard,
    DeviceStrong,
    Session,
}

const KINDS: [Kind; 5] = [Kind::Owner, Kind::DeviceLight, Kind::DeviceStandard, Kind::DeviceStrong, Kind::Session];

struct Holder {
    root: RootSecret,
    working: WorkingSecret,
    key: SigningKey,
    entropy: SeededEntropy,
}

impl Holder {
    fn new(kind: Kind) -> Self {
        let working = WorkingSecret::from_bytes([2; 32]);
        let seed = match kind {
            Kind::Session => working.session(&[4; 32]).key_seed(),
            _ => Seed::from_bytes([3; 32]),
        };
        let (root, key) = (RootSecret::from_bytes([1; 32]), SigningKey::from_seed(&seed));
        Self { root, working, key, entropy: SeededEntropy::new(5) }
    }

    fn first(&mut self, kind: Kind) -> Standing {
        let (root, working, key, entropy) = (&self.root, &self.working, &self.key, &mut self.entropy);
        let profile = match kind {
            Kind::Owner => return owner_genesis(root, working, key, OwnerProfiles::default(), AT, entropy),
            Kind::Session => return session_genesis(&working.session(&[4; 32]), AT, entropy),
            Kind::DeviceLight => Profile::Light,
            Kind::DeviceStandard => Profile::Standard,
            Kind::DeviceStrong => Profile::Strong,
        };
        device_genesis(working, key, profile, AT, entropy)
    }

    fn next(&mut self, kind: Kind, chain: &Chain) -> Standing {
        let secret = self.working.session(&[4; 32]);
        let signer = match kind {
            Kind::Session => Signer::Session(&secret),
            _ => Signer::Working(&self.working),
        };
        let claim = Claim::new(Verb::Sync, "keystone^gib");
        sign(chain, signer, &self.key, &claim, AT, &mut self.entropy).unwrap()
    }
}

/// A first frame: challenges derived, signed, checked.
#[divan::bench(args = KINDS)]
fn genesis(bencher: Bencher, kind: Kind) {
    let mut holder = Holder::new(kind);
    bencher.bench_local(|| black_box(holder.first(kind)));
}

/// A next frame: challenges derived, demands solved, signed, checked.
#[divan::bench(args = KINDS)]
fn evolve(bencher: Bencher, kind: Kind) {
    let mut holder = Holder::new(kind);
    let chain = Chain::begun(holder.first(kind));
    bencher.bench_local(|| black_box(holder.next(kind, &chain)));
}

/// A foreign frame from its bytes: accepted, read, checked against the one before it.
#[divan::bench(args = KINDS)]
fn verify(bencher: Bencher, kind: Kind) {
    let mut holder = Holder::new(kind);
    let first = holder.first(kind);
    let bytes = holder.next(kind, &Chain::begun(first.clone())).frame().record().encoded().clone();
    bencher.bench_local(|| {
        let record = Verified::accept(bytes.clone()).unwrap();
        black_box(first.step(Frame::read(&record).unwrap(), &|_| false).unwrap())
    });
}

/// What `verify` costs beside the rules: the record accepted and hashed.
#[divan::bench(args = KINDS)]
fn accept(bencher: Bencher, kind: Kind) {
    let mut holder = Holder::new(kind);
    let first = holder.first(kind);
    let bytes = holder.next(kind, &Chain::begun(first)).frame().record().encoded().clone();
    bencher.bench_local(|| black_box(Verified::accept(bytes.clone()).unwrap()));
}

/// All pools of an owner replaced.
#[divan::bench]
fn manage_owner(bencher: Bencher) {
    let mut holder = Holder::new(Kind::Owner);
    let chain = Chain::begun(holder.first(Kind::Owner));
    bencher.bench_local(|| {
        let plan = Manage {
            root: &holder.root,
            working: &holder.working,
            key: &holder.key,
            profiles: OwnerProfiles::default(),
            from: None,
        };
        black_box(manage(&chain, &plan, AT, &mut holder.entropy).unwrap())
    });
}

/// One more frame in a long chain: one step is checked.
#[divan::bench(args = [1, 100])]
fn chain_add(bencher: Bencher, frames: usize) {
    let mut holder = Holder::new(Kind::DeviceLight);
    let mut chain = Chain::begun(holder.first(Kind::DeviceLight));
    for _ in 1..frames {
        let next = holder.next(Kind::DeviceLight, &chain);
        let _ = chain.extend(next);
    }
    let next = holder.next(Kind::DeviceLight, &chain).frame().record().clone();
    bencher.with_inputs(|| chain.clone()).bench_local_values(|mut chain| {
        let added = chain.add(&next);
        (chain, added)
    });
}
