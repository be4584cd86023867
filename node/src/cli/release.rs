//! `release …`: bumps of the version registry, and what is shipped.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use sealtide_releases::bundle::{TRUST_BYTES_MAX, Trust};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::api::{Progress, Request};
use crate::cli::args::{RegistryCommand, ReleaseCommand, TierArg};
use crate::cli::{Cx, answer, ask, make_home, progress, up};
use crate::commands::keys::KeysRequest;
use crate::commands::registry::RegistryRequest;
use crate::commands::release::{self, ReleaseRequest, TRY_AGAIN, read_trust, refused_event};
use crate::control;
use crate::failure::{Exit, Failure};
use crate::home::Home;
use crate::known::Known;
use crate::releases::Memory;

/// Runs one of the commands about releases.
pub(crate) async fn run(cx: &Cx, command: ReleaseCommand) -> Result<u8, Failure> {
    match command {
        ReleaseCommand::Bump {
            scope,
            entity,
            no_cascade,
            all,
            dry_run,
            expect,
            key_version,
            crypto,
            tree,
            confirm,
        } => {
            let word = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
            // Files are changed for who says so; everybody else is shown what would change.
            let is_unconfirmed = tree.is_some() && !confirm && !dry_run;
            let is_dry = dry_run || is_unconfirmed;
            let mut request = json!({"scope": word(&scope), "cascade": !no_cascade, "all": all, "dryRun": is_dry});
            let crypto = crypto.map(|crypto| word(&crypto));
            for (name, value) in [("entityId", entity), ("keyVersion", key_version), ("crypto", crypto)] {
                if let Some(value) = value {
                    request[name] = json!(value);
                }
            }
            let tree = tree.map(std::path::absolute).transpose()?;
            let told = answer(cx, Request::Keys(KeysRequest::Bump { request, expect, tree })).await?;
            let unconfirmed = Failure::usage("not_confirmed", "nothing was written: files change with --confirm only");
            Ok(cx.out.answer_checked(told, if is_unconfirmed { Err(unconfirmed) } else { Ok(()) }))
        }
        ReleaseCommand::Revert { id, tree } => {
            ask(cx, Request::Keys(KeysRequest::Revert { id, tree: std::path::absolute(tree)? })).await
        }
        ReleaseCommand::Publish {
            app,
            dir,
            channel,
            version,
            minimum_version,
            expires,
            allow_downgrade,
            out,
            trust_out,
        } => {
            let (out, trust_out) = (absolute(out)?, absolute(trust_out)?);
            let request = ReleaseRequest::Publish {
                app,
                dir: std::path::absolute(dir)?,
                channel,
                version,
                minimum_version,
                expires,
                allow_downgrade,
                out,
                trust_out,
            };
            // A publisher's first release makes the home.
            make_home(cx, None, None)?;
            ask(cx, Request::Release(request)).await
        }
        ReleaseCommand::Promote { app, version, from, to, allow_downgrade } => {
            ask(cx, Request::Release(ReleaseRequest::Promote { app, version, from, to, allow_downgrade })).await
        }
        ReleaseCommand::Archive { app, older, tier: TierArg::Infrequent } => {
            let older = humantime::parse_duration(&older)
                .map_err(|error| Failure::usage("older", format!("{older:?} is no time of the form 30d: {error}")))?;
            let request = ReleaseRequest::Archive { app, older_s: older.as_secs() };
            ask(cx, Request::Release(request)).await
        }
        ReleaseCommand::Registry(command) => {
            let request = match command {
                RegistryCommand::Show => RegistryRequest::Show,
                RegistryCommand::Share => RegistryRequest::Share,
                RegistryCommand::Follow { space } => RegistryRequest::Follow { space },
                RegistryCommand::Leave => RegistryRequest::Leave,
                RegistryCommand::HandOver { node } => RegistryRequest::HandOver { peer: node },
            };
            ask(cx, Request::Release(ReleaseRequest::Registry(request))).await
        }
        ReleaseCommand::List => ask(cx, Request::Release(ReleaseRequest::List)).await,
        ReleaseCommand::Show { app, channel, version } => {
            ask(cx, Request::Release(ReleaseRequest::Show { app, channel, version })).await
        }
        ReleaseCommand::Install { app, channel, version, to, trust, follow, allow_downgrade } => {
            let trust = trust.map(read_trust_file).transpose()?;
            let is_file = app.contains('/') || app.ends_with(".stb");
            let app = if is_file { path_text(&app)? } else { app };
            let (to, yes) = (std::path::absolute(to)?, cx.yes);
            make_home(cx, None, None)?;
            let request = ReleaseRequest::Install { app, channel, version, to, trust, follow, allow_downgrade, yes };
            if follow { follow_app(cx, request).await } else { ask(cx, Request::Release(request)).await }
        }
        ReleaseCommand::Verify { file, trust } => verify(cx, file, trust).await,
        ReleaseCommand::Yank { app, version, channel } => {
            ask(cx, Request::Release(ReleaseRequest::Yank { app, version, channel })).await
        }
    }
}

fn absolute(path: Option<PathBuf>) -> Result<Option<PathBuf>, Failure> {
    Ok(path.map(std::path::absolute).transpose()?)
}

fn path_text(text: &str) -> Result<String, Failure> {
    let path = std::path::absolute(text)?;
    path.to_str().map(str::to_owned).ok_or_else(|| Failure::usage("file", format!("{} is not UTF-8", path.display())))
}

pub(super) fn read_trust_file(path: PathBuf) -> Result<String, Failure> {
    let named = |error: std::io::Error| Failure::usage("trust", format!("{}: {error}", path.display()));
    let mut text = String::new();
    let file = std::fs::File::open(&path).map_err(named)?;
    file.take(TRUST_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(named)?;
    read_trust(&text)
        .map_err(|failure| Failure { message: format!("{}: {}", path.display(), failure.message), ..failure })?;
    Ok(text)
}

/// How often to look for a node that went away while it was followed.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Installs what the running node gets, until somebody ends it: also a node that comes back after it went.
async fn follow_app(cx: &Cx, request: ReleaseRequest) -> Result<u8, Failure> {
    let mut interrupts = up::Interrupts::new()?;
    let (mut told, mut was_there, mut waits) = (None, false, false);
    loop {
        let ended = tokio::select! {
            ended = follow_once(cx, request.clone(), &mut told) => ended,
            signal = interrupts.next() => return Ok(signal.code()),
        };
        let went = matches!(ended, Ended::WentAway);
        (was_there, waits) = (was_there || went, waits && !went);
        let mut pause = LOOK_AGAIN;
        match ended {
            // The node came back, and its peers may not be there yet; what goes wrong then ends nothing either.
            Ended::Answered(Err(failure)) if was_there => {
                let refused = refused_event(&failure);
                if told.as_ref() != Some(&refused) {
                    cx.out.answer(&refused);
                    told = Some(refused);
                }
                pause = TRY_AGAIN;
            }
            Ended::Answered(result) => return result,
            Ended::NoNode if !was_there => {
                return Err(Failure::failed("not_running", "no node runs on this home, so nothing new would come")
                    .hint("`sealtide up` runs it; without --follow the newest release that is here is installed"));
            }
            Ended::WentAway | Ended::NoNode if !waits => {
                cx.out.note("the node of this home is not running; waiting for it");
                waits = true;
            }
            Ended::WentAway | Ended::NoNode => {}
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            signal = interrupts.next() => return Ok(signal.code()),
        }
    }
}

/// How a try to follow ended.
enum Ended {
    Answered(Result<u8, Failure>),
    /// The node ended, whatever it was doing.
    WentAway,
    /// None is running.
    NoNode,
}

/// Follows as long as the node runs. `told` is what was said last: a node that came back begins with it.
async fn follow_once(cx: &Cx, request: ReleaseRequest, told: &mut Option<Value>) -> Ended {
    let (progress, mut lines) = Progress::channel();
    let (shown, bars) = mpsc::unbounded_channel();
    let bars = tokio::spawn(progress::show(bars, cx.out.clone()));
    let socket = cx.home.control_socket();
    let request = Request::Release(request);
    let asked = control::ask(&socket, &request, &progress);
    tokio::pin!(asked);
    let mut tell = |line: Value| {
        if !line["event"].is_object() {
            let _ = shown.send(line);
            return;
        }
        let _ = shown.send(json!({"phase": "idle"}));
        let event = &line["event"];
        let is_told = told.as_ref().is_some_and(|told| told["manifest"] == event["manifest"]);
        if event["changed"] != false || !is_told {
            cx.out.answer(event);
        }
        *told = Some(event.clone());
    };
    let ended = loop {
        tokio::select! {
            ended = &mut asked => break ended,
            Some(line) = lines.recv() => tell(line),
        }
    };
    // What was said before the node went.
    while let Ok(line) = lines.try_recv() {
        tell(line);
    }
    drop(shown);
    let _ = bars.await;
    match ended {
        None => Ended::NoNode,
        Some(Err(failure)) if failure.code == control::LOST => Ended::WentAway,
        Some(result) => Ended::Answered(result.map(|answer| {
            cx.out.answer(&answer);
            0
        })),
    }
}

/// Checks a bundle in this process: no node, no network.
async fn verify(cx: &Cx, file: PathBuf, trust: Option<PathBuf>) -> Result<u8, Failure> {
    let trust = trust.map(read_trust_file).transpose()?;
    let (progress, told) = Progress::channel();
    let shown = tokio::spawn(progress::show(told, cx.out.clone()));
    let home = cx.home.clone();
    let checked = tokio::task::spawn_blocking(move || {
        let known = |registry: &str| known_trust(&home, registry);
        release::verify(&file, trust.as_deref(), known, &mut |now, manifest| {
            let (files, bytes) = (manifest.files.len(), manifest.unpacked_size);
            progress.tell(json!({"phase": "verifying", "items": [now.files, files], "bytes": [now.bytes, bytes]}));
        })
    });
    let checked = checked.await.map_err(|error| Failure::failed("verify", error.to_string()))?;
    let _ = shown.await;
    cx.out.answer(&checked?);
    Ok(0)
}

/// What the node of this home trusts, when there is a home; a node that has it open is asked. Waits, so not for a worker.
fn known_trust(home: &Home, registry: &str) -> Result<Option<Trust>, Failure> {
    match home.open_store() {
        Ok(store) => Memory::of(Known::of(&store), registry).trust(),
        Err(failure) if failure.exit == Exit::NoStore => Ok(None),
        Err(failure) if failure.exit == Exit::Locked => {
            let request = Request::Release(ReleaseRequest::Trust { registry: registry.to_owned() });
            let progress = Progress::none();
            let socket = home.control_socket();
            let asked = control::ask(&socket, &request, &progress);
            let told = Handle::current().block_on(asked).unwrap_or(Err(failure));
            let told = told.map_err(|failure| failure.hint("name the trust file with --trust FILE"))?;
            let trust = Some(&told["trust"]).filter(|trust| !trust.is_null());
            trust.map(|trust| release::read_trust(&trust.to_string())).transpose()
        }
        Err(failure) => Err(failure.hint("name the trust file with --trust FILE")),
    }
}
