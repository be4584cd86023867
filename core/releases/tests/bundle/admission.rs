//! Which release may be installed.

use sealtide_identity::keyring::{LastGood, Order, RecordSignature};
use sealtide_releases::bundle::{
    ChannelHead, HEAD_MS_DEFAULT, HEAD_MS_MAX, Manifest, ReleaseRefused, Seen, Signed, Trust, Wanted,
};

use crate::support::{DAY, Publisher, REGISTRY, app, channel, v};

fn wanted(name: &str) -> Wanted {
    Wanted { name: app(), channel: channel(name), allow_downgrade: false }
}

/// What a client with this trust and memory answers.
fn ask(
    trust: &Trust,
    seen: &Seen,
    head: &Signed<ChannelHead>,
    manifest: &Signed<Manifest>,
    wanted: &Wanted,
    now: u64,
) -> Result<Seen, ReleaseRefused> {
    let head = trust.head(head, now)?;
    let manifest = trust.manifest(manifest, &[], now)?;
    seen.admit(&head, &manifest, wanted, now)?;
    let mut seen = seen.clone();
    seen.see(&head, now);
    Ok(seen)
}

fn code<T>(result: Result<T, ReleaseRefused>) -> &'static str {
    result.err().map_or("taken", |refused| refused.code())
}

// Proves: GW-103
#[test]
fn one_signature_missing() {
    let mut publisher = Publisher::new(&[1, 2]);
    let manifest = publisher.publish("stable", "1.0.0");
    let (trust, now) = (publisher.trust(), publisher.now);
    let with = |change: &dyn Fn(&mut Vec<RecordSignature>)| {
        let mut signatures = manifest.signatures().to_vec();
        change(&mut signatures);
        let odd = Signed::<Manifest>::parse(manifest.bytes(), signatures).unwrap();
        code(trust.manifest(&odd, &[], now))
    };
    let other = Signed::sign(manifest.content().clone(), publisher.pair(v(2)));
    assert_eq!(with(&|_| ()), "taken");
    assert_eq!(with(&|entries| drop(entries.remove(0))), "bad_signature");
    assert_eq!(with(&|entries| drop(entries.remove(1))), "bad_signature");
    assert_eq!(with(&|entries| entries.clear()), "unknown_key");
    assert_eq!(with(&|entries| entries.swap(0, 1)), "bad_signature");
    assert_eq!(with(&|entries| entries[1] = entries[0].clone()), "bad_signature");
    assert_eq!(with(&|entries| entries.push(entries[1].clone())), "bad_signature");
    assert_eq!(with(&|entries| entries[0] = other.signatures()[0].clone()), "unknown_key");
    assert_eq!(with(&|entries| entries[1] = other.signatures()[1].clone()), "bad_signature");
    assert_eq!(with(&|entries| entries[0].signature = other.signatures()[0].signature.clone()), "bad_signature");
    assert_eq!(with(&|entries| entries[1].signature = other.signatures()[1].signature.clone()), "bad_signature");
    // A head's signatures are of another label, although the bytes could be the same.
    assert_eq!(with(&|entries| *entries = publisher.head(&manifest).signatures().to_vec()), "bad_signature");
}

// Proves: GW-104
#[test]
fn freeze() {
    let mut publisher = Publisher::new(&[1]);
    let manifest = publisher.publish("stable", "1.0.0");
    let (trust, head) = (publisher.trust(), publisher.head(&manifest));
    let at = |now| code(ask(&trust, &Seen::default(), &head, &manifest, &wanted("stable"), now));
    let end = publisher.now + HEAD_MS_DEFAULT;
    assert_eq!((at(end - 1), at(end)), ("taken", "head_expired"));
    let signed = publisher.now;
    assert_eq!((at(signed - DAY), at(signed - DAY - 1)), ("taken", "head_early"));
    // A head that says it holds for longer than a head can.
    let mut long = publisher.head_of(&manifest, &[]);
    long.not_after = long.issued_at + HEAD_MS_MAX + 1;
    let long = Signed::sign(long, publisher.pair(v(1)));
    assert_eq!(Signed::<ChannelHead>::from_value(&long.to_value()).unwrap_err().member, "notAfter");
}

// Proves: GW-104
#[test]
fn rollback_release() {
    let mut publisher = Publisher::new(&[1]);
    let (first, second) = (publisher.publish("stable", "1.0.0"), publisher.publish("stable", "1.1.0"));
    let (trust, now) = (publisher.trust(), publisher.now);
    let seen = ask(&trust, &Seen::default(), &publisher.head(&second), &second, &wanted("stable"), now).unwrap();
    assert_eq!(Seen::read(&seen.to_value()), Some(seen.clone()), "it is kept");
    let old = publisher.head(&first);
    assert_eq!(code(ask(&trust, &seen, &old, &first, &wanted("stable"), now)), "rollback");
    let downgrade = Wanted { allow_downgrade: true, ..wanted("stable") };
    assert_eq!(code(ask(&trust, &seen, &old, &first, &downgrade, now)), "rollback", "an old head never counts");
    let head = publisher.head(&second);
    assert_eq!(code(ask(&trust, &seen, &head, &first, &wanted("stable"), now)), "not_of_head");
    assert_eq!(code(ask(&trust, &seen, &head, &first, &downgrade, now)), "taken", "with a head in date, on purpose");
    // Without a head, as a file brings it.
    let alone =
        |seen: &Seen, manifest, allow| code(seen.admit_alone(&trust.manifest(manifest, &[], now).unwrap(), allow, now));
    assert_eq!(alone(&Seen::default(), &first, false), "taken");
    assert_eq!((alone(&seen, &first, false), alone(&seen, &first, true)), ("rollback", "taken"));
}

/// A head of before it was taken back, which is in date still, does not bring a release back.
// Proves: GW-104
#[test]
fn a_replayed_head_undoes_no_yank() {
    let mut publisher = Publisher::new(&[1]);
    let manifest = publisher.publish("stable", "1.0.0");
    let (trust, old) = (publisher.trust(), publisher.head(&manifest));
    publisher.now += 1;
    let (now, pair) = (publisher.now, publisher.pair(v(1)));
    let yanked = Signed::sign(publisher.head_of(&manifest, &[1]), pair);
    let mut seen = ask(&trust, &Seen::default(), &old, &manifest, &wanted("stable"), now).unwrap();
    assert_eq!(code(ask(&trust, &seen, &old, &manifest, &wanted("stable"), now)), "taken", "the same again");
    seen.see(&trust.head(&yanked, now).unwrap(), now);
    assert_eq!(code(ask(&trust, &seen, &old, &manifest, &wanted("stable"), now)), "rollback");
    let seen = Seen::read(&seen.to_value()).unwrap();
    assert_eq!(code(ask(&trust, &seen, &old, &manifest, &wanted("stable"), now)), "rollback", "it is kept");
    // A file of the same release tells nothing of heads; what an older version wrote down had no time.
    let mut alone = seen.clone();
    alone.see_alone(&trust.manifest(&manifest, &[], now).unwrap(), now);
    assert_eq!(alone, seen);
    let mut rows = seen.to_value();
    rows["stable"].as_array_mut().unwrap().pop();
    let older = Seen::read(&rows).unwrap();
    assert_eq!(older.newest(&channel("stable")), seen.newest(&channel("stable")));
    assert_eq!(code(ask(&trust, &older, &old, &manifest, &wanted("stable"), now)), "taken");
}

/// The clocks of publisher and follower were ahead together: what was remembered then keeps no head of after from being taken.
// Proves: GW-104
#[test]
fn what_was_seen_with_a_clock_that_was_ahead_binds_nobody() {
    let mut publisher = Publisher::new(&[1]);
    let manifest = publisher.publish("stable", "1.0.0");
    let (trust, now) = (publisher.trust(), publisher.now);
    publisher.now += 365 * DAY;
    let ahead = publisher.head(&manifest);
    let seen = ask(&trust, &Seen::default(), &ahead, &manifest, &wanted("stable"), publisher.now).unwrap();
    publisher.now = now;
    let (head, was) = (publisher.head(&manifest), now + 364 * DAY);
    assert_eq!(code(ask(&trust, &seen, &head, &manifest, &wanted("stable"), now)), "taken");
    let after = ask(&trust, &seen, &head, &manifest, &wanted("stable"), now).unwrap();
    let mut both = after.clone();
    both.merge(seen.clone(), now);
    assert_eq!(both, after, "what was seen elsewhere does not bring it back");
    // It binds within a day of the clock, and what took its place binds as any other.
    let counts = trust.head(&head, now).unwrap();
    assert_eq!((seen.is_newest(&counts, was - 1).is_ok(), code(seen.is_newest(&counts, was))), (true, "rollback"));
    publisher.now -= 1;
    assert_eq!(code(ask(&trust, &after, &publisher.head(&manifest), &manifest, &wanted("stable"), now)), "rollback");
    // Number and manifest go on binding.
    let mut other = manifest.content().clone();
    other.registry_revision += 1;
    let other = Signed::sign(other, publisher.pair(v(1)));
    assert_eq!(code(ask(&trust, &seen, &publisher.head(&other), &other, &wanted("stable"), now)), "equivocation");
}

// Proves: GW-104
#[test]
fn channel_swap() {
    let mut publisher = Publisher::new(&[1]);
    let (stable, beta) = (publisher.publish("stable", "1.0.0"), publisher.publish("beta", "2.0.0"));
    let (trust, now) = (publisher.trust(), publisher.now);
    let ask = |head: &_, manifest: &_, of: &str| code(ask(&trust, &Seen::default(), head, manifest, &wanted(of), now));
    assert_eq!(ask(&publisher.head(&beta), &beta, "stable"), "other_channel");
    assert_eq!(ask(&publisher.head(&stable), &beta, "stable"), "other_channel");
    // A head that names a manifest of the other channel.
    let mut mixed = publisher.head_of(&beta, &[]);
    mixed.channel = channel("stable");
    let mixed = Signed::sign(mixed, publisher.pair(v(1)));
    assert_eq!(ask(&mixed, &beta, "stable"), "other_channel");
    assert_eq!(ask(&mixed, &stable, "stable"), "not_of_head");
}

// Proves: GW-104
#[test]
fn head_equivocation() {
    let mut publisher = Publisher::new(&[1]);
    let first = publisher.publish("stable", "1.0.0");
    let mut other = publisher.draft("stable", "1.0.0");
    (other.seq, other.prev) = (1, None);
    other.registry_revision = 2;
    let other = Signed::sign(other, publisher.pair(v(1)));
    let (trust, now) = (publisher.trust(), publisher.now);
    let seen = ask(&trust, &Seen::default(), &publisher.head(&first), &first, &wanted("stable"), now).unwrap();
    assert_eq!(code(ask(&trust, &seen, &publisher.head(&other), &other, &wanted("stable"), now)), "equivocation");
    let downgrade = Wanted { allow_downgrade: true, ..wanted("stable") };
    assert_eq!(code(ask(&trust, &seen, &publisher.head(&other), &other, &downgrade, now)), "equivocation");
}

// Proves: GW-104
#[test]
fn yanked_and_expired_releases() {
    let publisher = Publisher::new(&[1]);
    let mut draft = publisher.draft("stable", "1.0.0");
    draft.expiry = Some(publisher.now + DAY);
    let manifest = Signed::sign(draft, publisher.pair(v(1)));
    let (trust, now) = (publisher.trust(), publisher.now);
    let head = Signed::sign(publisher.head_of(&manifest, &[1]), publisher.pair(v(1)));
    let downgrade = Wanted { allow_downgrade: true, ..wanted("stable") };
    assert_eq!(code(ask(&trust, &Seen::default(), &head, &manifest, &wanted("stable"), now)), "yanked");
    assert_eq!(code(ask(&trust, &Seen::default(), &head, &manifest, &downgrade, now)), "taken");
    let head = publisher.head(&manifest);
    let at = |now| code(ask(&trust, &Seen::default(), &head, &manifest, &wanted("stable"), now));
    assert_eq!((at(now + DAY - 1), at(now + DAY)), ("taken", "expired"));
    // A version below the minimum that it names itself counts as yanked; what builds are called does not matter.
    for (minimum, with_head, alone) in [
        ("1.0.0", "taken", "taken"),
        ("1.0.0+b", "taken", "taken"),
        ("0.9.0", "taken", "taken"),
        ("1.0.1-a", "yanked", "yanked"),
    ] {
        let mut draft = publisher.draft("stable", "1.0.0");
        draft.minimum_version = Some(minimum.parse().unwrap());
        let manifest = Signed::sign(draft, publisher.pair(v(1)));
        let head = publisher.head(&manifest);
        assert_eq!(
            code(ask(&trust, &Seen::default(), &head, &manifest, &wanted("stable"), now)),
            with_head,
            "{minimum}"
        );
        assert_eq!(code(ask(&trust, &Seen::default(), &head, &manifest, &downgrade, now)), "taken");
        let counts = trust.manifest(&manifest, &[], now).unwrap();
        assert_eq!(code(Seen::default().admit_alone(&counts, false, now)), alone, "{minimum}");
        assert_eq!(code(Seen::default().admit_alone(&counts, true, now)), "taken");
    }
}

// Proves: GW-104
#[test]
fn heads_of_a_replaced_pair_are_void() {
    let mut publisher = Publisher::new(&[1, 2]);
    let manifest = publisher.publish("stable", "1.0.0");
    let (mut trust, old, now) = (publisher.trust(), publisher.head(&manifest), publisher.now);
    publisher.rotate(2);
    let new = publisher.head(&manifest);
    assert_eq!(code(trust.head(&new, now)), "unknown_key", "not followed yet");
    trust.follow(&publisher.records).unwrap();
    assert_eq!(code(trust.head(&old, now)), "head_retired");
    assert_eq!(code(trust.head(&new, now)), "taken");
    assert_eq!(code(trust.manifest(&manifest, &[], now)), "taken", "a release outlives the head");
    let mut ahead = publisher.head_of(&manifest, &[]);
    ahead.epoch += 1;
    assert_eq!(code(trust.head(&Signed::sign(ahead, publisher.pair(v(2))), now)), "head_ahead");
}

#[test]
fn a_pair_ends_with_its_date() {
    let mut publisher = Publisher::new(&[1, 2]);
    let (manifest, mut trust) = (publisher.publish("stable", "1.0.0"), publisher.trust());
    publisher.rotate(2);
    trust.follow(&publisher.records).unwrap();
    let at = |now| code(trust.manifest(&manifest, &[], now));
    assert_eq!(at(publisher.now + 30 * DAY - 1), "taken");
    assert_eq!(at(publisher.now + 30 * DAY), "key_expired");
    // What the new pair signs as v1, and what is of another registry.
    let mut draft = publisher.draft("stable", "1.1.0");
    draft.key_version = v(1);
    assert_eq!(code(trust.manifest(&Signed::sign(draft, publisher.pair(v(2))), &[], publisher.now)), "key_version");
    let mut draft = publisher.draft("stable", "1.1.0");
    draft.registry = "releases^BBBB".to_owned();
    assert_eq!(code(trust.manifest(&Signed::sign(draft, publisher.pair(v(2))), &[], publisher.now)), "other_registry");
}

// Proves: GW-107
#[test]
fn backdated() {
    let mut publisher = Publisher::new(&[1, 2]);
    let (first, second) = (publisher.publish("stable", "1.0.0"), publisher.publish("stable", "1.1.0"));
    let mut trust = publisher.trust();
    // What whoever stole v1 makes afterwards, with an old date and a free number; and before, in another channel.
    let mut draft = publisher.draft("stable", "6.6.6");
    draft.created_at -= 30 * DAY;
    let forged = Signed::sign(draft, publisher.pair(v(1)));
    let beta = publisher.publish("beta", "1.0.0");
    let stolen_head = publisher.head(&forged);
    publisher.rotate(2);
    let good = |manifest: &Signed<Manifest>, name: &str| LastGood {
        registry: REGISTRY.to_owned(),
        channel: name.to_owned(),
        seq: manifest.content().seq,
        manifest_sha256: manifest.hash(),
    };
    publisher.order(Order::Compromise(v(1), vec![good(&second, "stable")]));
    trust.follow(&publisher.records).unwrap();
    let now = publisher.now;
    let all = [first.clone(), second.clone()];
    assert_eq!(code(trust.manifest(&second, &[], now)), "taken", "the recorded one");
    assert_eq!(code(trust.manifest(&first, &all, now)), "taken", "reached from it");
    assert_eq!(code(trust.manifest(&first, &[], now)), "key_compromised", "the manifests between are missing");
    assert_eq!(code(trust.manifest(&forged, &all, now)), "key_compromised");
    assert_eq!(code(trust.manifest(&beta, &[], now)), "key_compromised", "a channel that the record does not name");
    assert_eq!(code(trust.head(&stolen_head, now)), "head_retired");
    // Much later the date of the pair does not matter: what was good stays good.
    assert_eq!(code(trust.manifest(&second, &[], now + 400 * DAY)), "taken");
    // And all of it is remembered.
    let kept = Trust::parse(trust.to_value().to_string().as_bytes()).unwrap();
    assert_eq!(kept, trust);
}
