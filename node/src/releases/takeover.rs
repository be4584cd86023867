//! The key ledger of a publisher whose home is lost, as the space of an app has it. Spec: releases.md §4.

use sealtide_ibgib::Address;
use sealtide_identity::keyring::LedgerRecord;
use sealtide_releases::bundle::{AppName, Trust, TrustRefused};

use super::app::{App, LedgerLine};
use super::install::proven;
use super::untrusted;
use crate::failure::{Exit, Failure};
use crate::node::Node;

/// The records to go on from, oldest first: verified from `trust` on, or from the first record where there is one ledger.
/// `owner` must be the root by which followers learn of a recovery.
///
/// # Errors
/// Exit 2 without such an app, or when nobody can tell which ledger it is; 5 for one that does not verify; 6 for another owner.
pub(crate) fn ledger_of_app(
    node: &Node,
    name: &AppName,
    trust: Option<Trust>,
    owner: &Address,
) -> Result<Vec<LedgerRecord>, Failure> {
    let unknown = || {
        Failure::usage("no_app", format!("no app {name} here"))
            .hint("`sealtide export SPACE --format jsonl` on a machine that follows it, and `sealtide import` here")
    };
    let app = App::find(node, name)?.ok_or_else(unknown)?;
    let lines = app.ledgers();
    let what = format!("the key ledger of {name}");
    let trust = match (trust, lines.as_slice()) {
        (Some(trust), _) if trust.registry() == app.registry => trust,
        (Some(_), _) => {
            return Err(Failure::usage("trust", format!("the trust file is not one of the app {name} here")));
        }
        (None, [LedgerLine { records, .. }]) => {
            let first = records.first().ok_or_else(|| empty(&what))?;
            let trust = Trust::of_publisher(&app.registry, first, app.root().as_deref());
            trust.map_err(|error| untrusted(&what, &error))?
        }
        (None, []) => return Err(empty(&what)),
        (None, _) => {
            let text = format!("the space of {name} has {} key ledgers", lines.len());
            return Err(Failure::usage("trust", text).hint("--trust FILE, a trust file of the app, tells which counts"));
        }
    };
    if trust.root() != Some(owner.as_str()) {
        let text = match trust.root() {
            Some(root) => format!("{name} goes by the owner {root}, and these are the words of {owner}"),
            None => format!("nothing says that {name} goes by the owner {owner}"),
        };
        return Err(Failure::new(Exit::Refused, "other_root", text)
            .hint("--trust FILE, a trust file written since the app has an owner, says so"));
    }
    let follow = |line: LedgerLine| -> Result<(u64, Vec<LedgerRecord>), TrustRefused> {
        let mut trust = trust.clone();
        trust.follow_proven(&line.records, &proven(node, &trust, &line.proof))?;
        let reached = line.records.last().map_or(0, |record| record.epoch);
        if trust.epoch() != reached { Err(TrustRefused::Chain(reached)) } else { Ok((reached, line.records)) }
    };
    let mut refused = None;
    let mut best: Option<(u64, Vec<LedgerRecord>)> = None;
    for line in lines {
        match follow(line) {
            Ok(line) if best.as_ref().is_none_or(|best| best.0 < line.0) => best = Some(line),
            Ok(_) => {}
            Err(error) => refused = Some(error),
        }
    }
    match (best, refused) {
        (Some((_, records)), _) => Ok(records),
        (None, Some(error)) => Err(untrusted(&what, &error)),
        (None, None) => Err(empty(&what)),
    }
}

fn empty(what: &str) -> Failure {
    Failure::new(Exit::Verification, "key_ledger", format!("{what} is empty"))
}
