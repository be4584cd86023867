//! What is counted at the door. Spec: gateway §11.1.
//!
//! Labels come from fixed sets: a name that a caller chose never becomes one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::metrics::{Sample, Spread};

/// What is counted, with its help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Counted {
    Upgrades,
    TokensIssued,
    TokensRejected,
    Messages,
    ForwardingIgnored,
    InflateRejected,
}

impl Counted {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Upgrades => ("sealtide_gw_upgrades", "Upgrades to WebSocket, by what came of them"),
            Self::TokensIssued => ("sealtide_gw_tokens_issued", "Tokens given out"),
            Self::TokensRejected => ("sealtide_gw_tokens_rejected", "Tokens refused"),
            Self::Messages => ("sealtide_gw_messages", "Messages of sessions"),
            Self::InflateRejected => {
                ("sealtide_gw_inflate_rejected", "Messages that did not inflate within the bounds")
            }
            Self::ForwardingIgnored => ("sealtide_gw_forwarding_ignored", "Forwarding headers of peers nobody trusts"),
        }
    }
}

/// Names and values of the labels of one counter.
type Labels = Vec<(&'static str, &'static str)>;

/// All counters of a door.
pub(crate) struct Counts {
    table: Mutex<BTreeMap<(Counted, Labels), u64>>,
    /// What is left of messages that were compressed.
    pub(crate) deflate: Spread,
}

impl Default for Counts {
    fn default() -> Self {
        Self { table: Mutex::default(), deflate: Spread::of_parts() }
    }
}

impl Counts {
    /// Counts one more. All calls for one counter name the same labels.
    pub(crate) fn add(&self, counted: Counted, labels: &[(&'static str, &'static str)]) {
        let mut counts = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((counted, labels.to_vec())).or_default() += 1;
    }

    pub(crate) fn samples(&self) -> Vec<Sample> {
        let counts = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let sample = |((counted, labels), count): (&(Counted, Labels), &u64)| {
            let (name, help) = counted.words();
            labels.iter().fold(Sample::counter(name, help, *count), |sample, (name, value)| sample.label(name, value))
        };
        let deflate = Sample::spread("sealtide_gw_deflate_ratio", "What is left of compressed messages", &self.deflate);
        counts.iter().map(sample).chain([deflate]).collect()
    }
}
