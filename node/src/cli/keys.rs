//! `keys …`. What nothing brings back is shown first, and a person says yes.

use sealtide_crypto::Entropy;
use sealtide_identity::keyring::{RotationSignal, SignalAction};
use serde_json::Value;

use crate::api::Request;
use crate::cli::args::{KeysCommand, KeysCommon, SignalArg};
use crate::cli::release::read_trust_file;
use crate::cli::{Cx, answer, ask};
use crate::commands::keys::{KeysChange, KeysRequest};
use crate::commands::keys_recover::RecoverOrder;
use crate::failure::{Exit, Failure};
use crate::recovery::RecoveryWords;
use crate::world::OsEntropy;

/// Runs one of the commands about keys.
pub(crate) async fn run(cx: &Cx, command: KeysCommand) -> Result<u8, Failure> {
    let (change, common) = match command {
        KeysCommand::Status => return ask(cx, Request::Keys(KeysRequest::Status)).await,
        KeysCommand::Ledger { since } => return ask(cx, Request::Keys(KeysRequest::Ledger { since })).await,
        KeysCommand::Signal { action, ledger, epoch } => return signal(cx, action, &ledger, epoch),
        KeysCommand::Recover { compromised, last_good, reason, app, trust } => {
            let trust = trust.map(read_trust_file).transpose()?;
            let order = RecoverOrder { compromised, last_good, reason, app, trust };
            return ask(cx, Request::KeysRecover { words: RecoveryWords::ask()?, order }).await;
        }
        KeysCommand::Rotate { to, common } => (KeysChange::Rotate { to }, common),
        KeysCommand::Rollback { common } => (KeysChange::Rollback, common),
        KeysCommand::Force { version, common } => (KeysChange::Force { to: version }, common),
        KeysCommand::New { version, common } => (KeysChange::New { version }, common),
        KeysCommand::Retire { version, compromised, last_good, common } => {
            (KeysChange::Retire { version, compromised, last_good }, common)
        }
        KeysCommand::Destroy { version, common } => (KeysChange::Destroy { version }, common),
    };
    let KeysCommon { expect, reason, dry_run } = common;
    let is_final = change.is_final();
    let request = |dry_run, expect| {
        Request::Keys(KeysRequest::Change { change: change.clone(), expect, reason: reason.clone(), dry_run })
    };
    if dry_run {
        return ask(cx, request(true, expect)).await;
    }
    if !is_final || cx.yes {
        return ask(cx, request(false, expect)).await;
    }
    let preview = answer(cx, request(true, expect.clone())).await?;
    let active = preview["active"].as_str().map(str::to_owned);
    if let Some(code) = confirm(cx, preview)? {
        return Ok(code);
    }
    // What was shown holds only while the version that signed then still signs.
    ask(cx, request(false, expect.or(active))).await
}

/// The signal is the answer, as it is put into a document.
fn signal(cx: &Cx, action: SignalArg, ledger: &str, epoch: u64) -> Result<u8, Failure> {
    let identity = cx.home.identity()?;
    let action = match action {
        SignalArg::Rotate => SignalAction::Rotate,
        SignalArg::Rollback => SignalAction::Rollback,
    };
    let mut nonce = [0; 16];
    OsEntropy.fill(&mut nonce);
    cx.out.line(&RotationSignal::make(action, ledger, epoch, nonce, &identity.key).to_string());
    Ok(0)
}

/// Asks a person; the exit code when the answer is not yes.
fn confirm(cx: &Cx, preview: Value) -> Result<Option<u8>, Failure> {
    let held = Failure::new(Exit::Held, "not_confirmed", "nothing brings back what this ends, and nobody said yes");
    let held = held.hint("--yes says it; --dry-run only shows what would change");
    if !cx.out.can_ask() {
        return Ok(Some(cx.out.answer_checked(preview, Err(held))));
    }
    cx.out.answer(&preview);
    if cx.out.ask("nothing brings this back. go on?")? { Ok(None) } else { Err(held) }
}
