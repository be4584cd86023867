//! What a node that follows gives up of old releases, so that it does not grow with each that comes. Spec: releases §6.
//!
//! ```text
//! kept whole   the newest of each channel (`release.keep`), what is installed, what was installed before it in the same place
//! given up     the tar of every other one; its frame, its head and its manifest stay, so all that is signed is checked as before
//! ```
//!
//! Only where a release of the app was installed: a node that holds a space for others keeps all of it, and so does whoever publishes,
//! so that what was given up can be had again ([`super::from_peers`]).

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use sealtide_ibgib::{ChunkHash, FILE_IB, Manifest as Listing, Sid, Verified};
use sealtide_identity::SpaceId;
use sealtide_store::GivenUp;
use semver::Version;
use serde_json::{Value, json};

use super::app::{App, Entry};
use super::memory::{InstalledAt, installs};
use crate::config::Config;
use crate::gateway::ledger_nodes;
use crate::node::Node;

/// How many releases of each channel stay whole; `None`: all.
pub(crate) fn kept(config: &Config) -> Option<usize> {
    config.text("release", "keep").parse().ok()
}

/// Whether the setting can be read.
pub(crate) fn is_kept(text: &str) -> bool {
    text == "all" || text.parse::<usize>().is_ok_and(|count| count > 0)
}

/// What is to be given up.
#[derive(Default)]
pub(crate) struct Retired {
    pub(crate) given_up: GivenUp,
    /// The records that list their contents, by space.
    pub(crate) records: BTreeMap<SpaceId, BTreeSet<Sid>>,
    pub(crate) releases: Vec<RetiredRelease>,
}

/// One release whose content is not needed here.
pub(crate) struct RetiredRelease {
    app: String,
    channel: String,
    version: Version,
    seq: u64,
    chunks: Vec<ChunkHash>,
}

/// The releases whose contents this node does not need. Those of a space that is being synced wait, since a peer may be fetching them.
pub(crate) fn retired(node: &Node) -> Retired {
    let mut retired = Retired::default();
    let Some(keep) = kept(node.config()) else { return retired };
    let (own, installed) = (ledger_nodes(node.store(), node.id()), installs(&node.known()));
    let mut apps = App::all(node.store());
    apps.sort_by_key(|app| app.space);
    for apps in apps.chunk_by(|left, right| left.space == right.space) {
        let follows = apps.iter().any(|app| installed.iter().any(|at| at.app == app.name.as_str()));
        let publishes = apps.iter().any(|app| app.is_by(&own));
        // A file may have the content of a release; no release has files in its space.
        let has_files = !apps[0].view().timelines_of(FILE_IB).is_empty();
        if follows && !publishes && !has_files && !is_syncing(node, &apps[0].space) {
            retired.take_space(apps, &installed, keep);
        }
    }
    retired
}

pub(super) fn is_syncing(node: &Node, space: &SpaceId) -> bool {
    node.engine().peer_spaces(space).iter().any(|(_, known)| known.running)
}

impl Retired {
    fn take_space(&mut self, apps: &[App], installed: &[InstalledAt], keep: usize) {
        let mut needed: BTreeSet<Sid> = BTreeSet::new();
        let mut old: Vec<(RetiredRelease, Vec<Verified>)> = Vec::new();
        for app in apps {
            let of_app = || installed.iter().filter(|at| at.app == app.name.as_str());
            let in_use: BTreeSet<&str> =
                of_app().flat_map(|at| [Some(at.manifest.as_str()), at.previous.as_deref()]).flatten().collect();
            let is_followed = of_app().next().is_some();
            for channel in app.channels() {
                for line in app.channel(&channel) {
                    for (entry, is_new) in with_newest(&line, Some(keep)) {
                        let records = app.content_records(entry);
                        let is_used = in_use.contains(HEXLOWER.encode(&entry.manifest_sha256).as_str());
                        if is_new || is_used || !is_followed {
                            needed.extend(records.iter().map(Verified::sid));
                            continue;
                        }
                        // What stands in the channel under another name than its own is as good as not named.
                        let version = app.bundle_head(entry).map(|head| head.manifest.content().version.clone());
                        let version = version.unwrap_or_else(|_| entry.head.content().version.clone());
                        let release = RetiredRelease {
                            app: app.name.to_string(),
                            channel: channel.to_string(),
                            version,
                            seq: entry.seq,
                            chunks: records.iter().flat_map(Listing::chunks_listed).map(|chunk| chunk.hash).collect(),
                        };
                        old.push((release, records));
                    }
                }
            }
        }
        let Some(view) = apps.first().map(App::view) else { return };
        for (release, records) in old {
            for record in records.iter().filter(|record| !needed.contains(&record.sid())) {
                self.given_up.add(view, record);
                self.records.entry(view.id()).or_default().insert(record.sid());
            }
            self.releases.push(release);
        }
    }

    /// What goes, by release: of `free`, the chunks that would go, each counts for the first release that has it.
    pub(crate) fn rows(&self, free: &[(ChunkHash, u32)]) -> Vec<Value> {
        let mut free: BTreeMap<ChunkHash, u32> = free.iter().copied().collect();
        let mut rows = Vec::new();
        for release in &self.releases {
            let lengths: Vec<u32> = release.chunks.iter().filter_map(|chunk| free.remove(chunk)).collect();
            if lengths.is_empty() {
                continue;
            }
            rows.push(json!({
                "app": release.app, "channel": release.channel, "version": release.version.to_string(), "seq": release.seq,
                "chunks": lengths.len(), "bytes": lengths.iter().map(|length| u64::from(*length)).sum::<u64>(),
            }));
        }
        rows
    }
}

/// The releases of a line, oldest first, and whether each is one of the newest that stay; `None`: all do.
pub(super) fn with_newest(line: &[Entry], keep: Option<usize>) -> impl Iterator<Item = (&Entry, bool)> {
    let releases = distinct(line);
    let first_kept = keep.map_or(0, |keep| releases.len().saturating_sub(keep));
    releases.into_iter().enumerate().map(move |(at, entry)| (entry, at >= first_kept))
}

/// One entry for each release, oldest first: renewals and yanks name the same one again.
fn distinct(line: &[Entry]) -> Vec<&Entry> {
    let mut releases: Vec<&Entry> = Vec::new();
    for entry in line {
        if releases.last().is_none_or(|before| before.manifest_sha256 != entry.manifest_sha256) {
            releases.push(entry);
        }
    }
    releases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_the_newest_is_kept() {
        for (text, good) in [("all", true), ("1", true), ("12", true), ("0", false), ("", false), ("none", false)] {
            assert_eq!(is_kept(text), good, "{text}");
        }
    }
}
