//! Up to where the releases of a compromised version are good. Spec: gateway §7.9.
//!
//! Of each channel that the version signed in, the newest manifest of it is the last good one, or an older one that the
//! operator names.

use std::collections::BTreeMap;

use sealtide_identity::keyring::{KeyVersion, LastGood, PublicPair};
use sealtide_releases::bundle::{Manifest, Signed};

use crate::failure::Failure;

/// A release that somebody calls the last good one: `CHANNEL=SEQ`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// Name of the channel.
    pub(crate) channel: String,
    /// The number in it.
    pub(crate) seq: u64,
}

impl Named {
    /// Reads `CHANNEL=SEQ`; none for any other form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (channel, seq) = text.split_once('=')?;
        Some(Self { channel: channel.to_owned(), seq: seq.parse().ok()? }).filter(|named| !named.channel.is_empty())
    }
}

/// The last good manifest of `version` in each channel, among those that a store holds. Manifests that its `pair` did not sign are
/// passed over: whoever may write into a shared space could put one there.
///
/// # Errors
/// Exit 2 for a named channel or number that is not there, or that stands for two channels.
// Spec: GW-107
pub(crate) fn last_good(
    manifests: &[Signed<Manifest>],
    version: KeyVersion,
    pair: &PublicPair,
    named: &[Named],
) -> Result<Vec<LastGood>, Failure> {
    let mut found: BTreeMap<(String, String), BTreeMap<u64, [u8; 32]>> = BTreeMap::new();
    for manifest in manifests {
        let content = manifest.content();
        if content.key_version == version && manifest.verify(pair).is_ok() {
            let channel = (content.registry.clone(), content.channel.as_str().to_owned());
            found.entry(channel).or_default().insert(content.seq, manifest.hash());
        }
    }
    for (at, name) in named.iter().enumerate() {
        let wrong = |what: String| Err(Failure::usage("last_good", format!("{}={}: {what}", name.channel, name.seq)));
        if named[..at].iter().any(|other| other.channel == name.channel) {
            return wrong("the channel is named twice".to_owned());
        }
        let mut channels = found.iter_mut().filter(|((_, channel), _)| *channel == name.channel);
        match (channels.next(), channels.next()) {
            (Some((_, releases)), None) if releases.contains_key(&name.seq) => {
                releases.retain(|seq, _| *seq <= name.seq);
            }
            (Some(_), None) => return wrong(format!("no release of {version} has that number there")),
            (None, _) => return wrong(format!("{version} signed nothing in that channel")),
            (Some(_), Some(_)) => return wrong("two registries have a channel of that name".to_owned()),
        }
    }
    let newest = |((registry, channel), releases): ((String, String), BTreeMap<u64, [u8; 32]>)| {
        let (seq, manifest_sha256) = releases.into_iter().next_back()?;
        Some(LastGood { registry, channel, seq, manifest_sha256 })
    };
    Ok(found.into_iter().filter_map(newest).collect())
}

#[cfg(test)]
mod tests {
    use sealtide_identity::keyring::{KeySecret, Pair, VersionKeys};
    use sealtide_releases::bundle::{AppName, Channel};

    use super::*;

    fn keys(number: u16) -> VersionKeys {
        let secret = KeySecret::from_text(format!("{number:04x}").repeat(16).as_bytes()).unwrap();
        VersionKeys::derive(KeyVersion::new(number).unwrap(), secret)
    }

    fn public(keys: &VersionKeys) -> PublicPair {
        let entries = keys.public_keys();
        PublicPair::of_entries(&entries.iter().collect::<Vec<_>>()).unwrap()
    }

    fn manifest(channel: &str, seq: u64, version: KeyVersion) -> Manifest {
        Manifest {
            registry: "releases^AAAA".to_owned(),
            name: AppName::parse("kiosk").unwrap(),
            version: format!("1.0.{seq}").parse().unwrap(),
            channel: Channel::parse(channel).unwrap(),
            seq,
            prev: (seq > 1).then_some([7; 32]),
            minimum_version: None,
            key_version: version,
            created_at: 1_700_000_000_000,
            expiry: None,
            archive_date: None,
            hash: [1; 32],
            size: 0,
            unpacked_size: 0,
            files: Vec::new(),
            registry_revision: 1,
            signed_at: 1_700_000_000_000,
        }
    }

    // Proves: GW-107
    #[test]
    fn the_newest_release_of_each_channel_is_the_last_good_one_unless_an_older_one_is_named() {
        let (first, second) = (keys(1), keys(2));
        let (v1, v2) = (KeyVersion::V1, KeyVersion::new(2).unwrap());
        let sign = |channel: &str, seq, version, by: &Pair| Signed::sign(manifest(channel, seq, version), by);
        let (own, other) = (first.pair().unwrap(), second.pair().unwrap());
        let stable = [sign("stable", 1, v1, own), sign("stable", 2, v1, own), sign("stable", 3, v2, other)];
        // Says v1 and is signed by another pair: somebody forged it.
        let beta = [sign("beta", 1, v1, own), sign("beta", 2, v1, other)];
        let all = [&stable[..], &beta].concat();
        let ask = |named: &[&str]| {
            let named: Vec<Named> = named.iter().map(|text| Named::parse(text).unwrap()).collect();
            last_good(&all, v1, &public(&first), &named)
        };
        let seqs = |found: Vec<LastGood>| found.into_iter().map(|it| (it.channel, it.seq)).collect::<Vec<_>>();
        let plain = ask(&[]).unwrap();
        assert_eq!(plain[1].manifest_sha256, stable[1].hash());
        assert_eq!(seqs(plain), [("beta".to_owned(), 1), ("stable".to_owned(), 2)]);
        assert_eq!(seqs(ask(&["stable=1"]).unwrap()), [("beta".to_owned(), 1), ("stable".to_owned(), 1)]);
        for wrong in [&["stable=3"][..], &["beta=2"], &["nightly=1"], &["stable=1", "stable=2"]] {
            assert!(ask(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(Named::parse("stable"), None);
        assert_eq!((Named::parse("=1"), Named::parse("stable=x")), (None, None));
    }
}
