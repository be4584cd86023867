//! `identity …`, and what `init`, `up` and `join` make of it on a fresh home. Secrets never come as arguments.

use std::path::{Path, PathBuf};

use sealtide_ibgib::Address;
use sealtide_store::Store;
use serde_json::json;

use crate::api::Request;
use crate::audit::Audit;
use crate::cli::args::IdentityCommand;
use crate::cli::{Cx, answer, ask};
use crate::commands::identity::{DOUBT_HINT, failure};
use crate::failure::{Exit, Failure};
use crate::home::Identity;
use crate::identity::OwnerError;
use crate::node::open_identities;
use crate::recovery::RecoveryWords;

/// Runs one of the commands.
pub(crate) async fn run(cx: &Cx, command: IdentityCommand) -> Result<u8, Failure> {
    let offline_sign = cx.offline_sign;
    let request = match command {
        IdentityCommand::Show { keystone } => Request::IdentityShow { keystone },
        IdentityCommand::New { recovery_out } => {
            check_new(recovery_out.as_deref())?;
            // Whoever begins with an identity needs no other command before.
            let has_place = recovery_out.is_some() || cx.out.is_terminal();
            if has_place && !cx.home.exists() && crate::cli::make_home(cx, None, recovery_out.as_deref())? {
                return ask(cx, Request::IdentityShow { keystone: None }).await;
            }
            cx.home.identity()?;
            // Words that are shown or written down and belong to nobody would be trusted one day.
            let shown = answer(cx, Request::IdentityShow { keystone: None }).await?;
            let stands = shown["owner"]["state"] != "revoked" && shown["owner"]["state"] != "unknown";
            let owner = shown["owner"]["keystone"].as_str().filter(|_| stands);
            if let Some(owner) = owner.and_then(|owner| Address::parse(owner).ok()) {
                return Err(failure(OwnerError::Exists(owner)));
            }
            if let (false, Some(code)) = (offline_sign, shown["doubt"]["code"].as_str()) {
                let text = shown["doubt"]["text"].as_str().unwrap_or_default();
                return Err(Failure::new(Exit::Refused, code, text).hint(DOUBT_HINT));
            }
            let words = new_words(cx, recovery_out.as_deref())?.ok_or_else(|| {
                Failure::usage("no_place_for_words", "there is no terminal to show the recovery words on")
                    .hint("--recovery-out FILE writes them into a new file")
            })?;
            Request::IdentityNew { words, offline_sign }
        }
        IdentityCommand::Passphrase { remove } => return passphrase(cx, remove),
        IdentityCommand::Drill => Request::IdentityDrill { words: RecoveryWords::ask()? },
        IdentityCommand::Recover { frames } => {
            Request::IdentityRecover { frames: absolute(frames)?, words: RecoveryWords::ask()? }
        }
        IdentityCommand::Revoke { device: true, .. } => Request::IdentityUndelegate { node: None, offline_sign },
        IdentityCommand::Revoke { device: false, reason, frames } => {
            Request::IdentityRevoke { frames: absolute(frames)?, words: RecoveryWords::ask()?, reason }
        }
        IdentityCommand::Delegate { node, verbs, until } => {
            Request::IdentityDelegate { node, verbs, until, offline_sign }
        }
        IdentityCommand::Undelegate { node } => Request::IdentityUndelegate { node: Some(node), offline_sign },
        IdentityCommand::SpeakFor { peer, .. } => Request::IdentitySpeakFor { peer },
        IdentityCommand::Export { file, of } => Request::IdentityExport { file: std::path::absolute(file)?, of },
    };
    ask(cx, request).await
}

/// Sets or takes away the passphrase. Audited.
fn passphrase(cx: &Cx, remove: bool) -> Result<u8, Failure> {
    // Holds the lock: a node that runs would write its secrets as it knows them.
    let store = cx.home.open_store()?;
    let node = cx.home.identity()?;
    if remove {
        cx.home.remove_passphrase()?;
    } else {
        cx.home.set_passphrase(&crate::seal::new_passphrase()?)?;
    }
    let event = if remove { "passphrase_removed" } else { "passphrase_set" };
    Audit::open(&cx.home, store, node)?.note(event, &[]);
    cx.out.answer(&json!({"schema": "sealtide/identity_passphrase/1", "sealed": !remove}));
    Ok(0)
}

fn absolute(path: Option<PathBuf>) -> Result<Option<PathBuf>, Failure> {
    Ok(path.map(std::path::absolute).transpose()?)
}

/// Refuses `--recovery-out` where no owner will be made, before anything is.
pub(crate) fn check_recovery_out(cx: &Cx, recovery_out: Option<&Path>) -> Result<(), Failure> {
    if recovery_out.is_some() && cx.home.exists() {
        return Err(Failure::usage("home_exists", "there is a node here already, and no owner is made now")
            .hint("`sealtide identity new --recovery-out FILE` makes one"));
    }
    check_new(recovery_out)
}

fn check_new(recovery_out: Option<&Path>) -> Result<(), Failure> {
    match recovery_out {
        Some(path) if path.exists() => {
            Err(Failure::usage("exists", format!("{} is there already", path.display())).hint("name a new file"))
        }
        _ => Ok(()),
    }
}

/// The identities of a fresh home: the device always, the owner where its words have a place to go.
pub(crate) fn make(cx: &Cx, node: Identity, store: Store, recovery_out: Option<&Path>) -> Result<(), Failure> {
    let identities = open_identities(&cx.home, node.clone(), store.clone())?;
    let Some(words) = new_words(cx, recovery_out)? else {
        cx.out.note("this node has a device identity; `sealtide identity new` makes its owner, with recovery words");
        return Ok(());
    };
    let root = words.root().map_err(|error| Failure::failed("identity", error.to_string()))?;
    let owner = identities.make_owner(&root).map_err(failure)?;
    Audit::open(&cx.home, store, node)?.note("identity_made", &[("keystone", owner.as_str())]);
    Ok(())
}

/// New words, written into a file or shown to a person; `None` where neither can be. They are out before the identity is
/// made, since nobody could give them again.
fn new_words(cx: &Cx, recovery_out: Option<&Path>) -> Result<Option<RecoveryWords>, Failure> {
    let words = RecoveryWords::draw();
    match recovery_out {
        Some(path) => words
            .write(path)
            .map_err(|error| Failure::failed("recovery_out", format!("{}: {error}", path.display())))?,
        None if cx.out.is_terminal() => words.show()?,
        None => return Ok(None),
    }
    Ok(Some(words))
}
