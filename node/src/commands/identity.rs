//! `identity show|new|drill|recover|revoke|delegate|undelegate|speak-for|export`.

use std::path::{Path, PathBuf};

use sealtide_ibgib::{Address, Stamp, Verified};
use sealtide_identity::keystone::{Class, Delegation, RootSecret, State, Verb};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::commands::{blocking, rfc3339};
use crate::failure::{Exit, Failure};
use crate::identity::{DelegationOrder, KeystoneView, OwnerError, SignRefused, read_frames, write_frames};
use crate::node::Node;
use crate::recovery::RecoveryWords;

/// Does work that waits for the disk.
async fn work<T: Send + 'static>(
    node: &Node,
    work: impl FnOnce(&Node) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    blocking("identity", node, work).await
}

/// The own owner and device, and those of peers; or one keystone.
pub(crate) async fn show(node: &Node, keystone: Option<String>) -> Result<Value, Failure> {
    work(node, move |node| match keystone {
        Some(named) => show_one(node, &named),
        None => Ok(show_all(node)),
    })
    .await
}

fn show_all(node: &Node) -> Value {
    let identities = node.identities();
    let own =
        |first: Option<Address>| first.and_then(|first| identities.view(&first)).map(|view| document(node, &view));
    let peers: Vec<Value> = node
        .known()
        .peers()
        .iter()
        .filter_map(|peer| Some((peer, identities.peer(&peer.node)?)))
        .map(|(peer, identity)| {
            let brief = |first: &Address| identities.view(first).map(|view| brief(&view));
            json!({
                "node": peer.node.to_string(),
                "name": peer.name,
                "device": brief(&identity.device),
                "owner": identity.owner.as_ref().and_then(brief),
                "speaks_for_owner": identities.speaks_for_owner(&identity),
            })
        })
        .collect();
    let doubt = identities.doubt();
    json!({
        "schema": "sealtide/identity/1",
        "node": node.id().to_string(),
        "signing": if doubt.is_some() { "refused" } else { "ready" },
        "doubt": doubt.map(|doubt| json!({"code": doubt.code(), "text": doubt.to_string()})),
        "device": own(identities.device()),
        "owner": own(identities.owner()),
        "speaks_for": identities.speaks_for().map(|owner| owner.to_string()),
        "peers": peers,
    })
}

fn show_one(node: &Node, named: &str) -> Result<Value, Failure> {
    let identities = node.identities();
    let first = match Address::parse(named) {
        Ok(first) => first,
        Err(_) if *named == node.id().to_string() => identities.device().ok_or_else(|| unknown(named))?,
        Err(_) => identities.peer(&node.find_peer(named)?.node).ok_or_else(|| unknown(named))?.device,
    };
    let view = identities.view(&first).ok_or_else(|| unknown(named))?;
    let mut shown = document(node, &view);
    shown["schema"] = json!("sealtide/keystone/1");
    Ok(shown)
}

fn unknown(named: &str) -> Failure {
    Failure::usage("no_keystone", format!("no keystone {named} is known here"))
        .hint("`sealtide identity show` lists those there are")
}

fn brief(view: &KeystoneView) -> Value {
    json!({
        "keystone": view.first.to_string(), "class": class(view.class), "state": state(view.state),
        "n": view.n, "kid": view.kid,
    })
}

fn document(node: &Node, view: &KeystoneView) -> Value {
    let stamp = |stamp: Option<Stamp>| stamp.map(|stamp| rfc3339(stamp.ms));
    let delegations = delegations(node, view);
    let pools: Vec<Value> = view
        .pools
        .iter()
        .map(|pool| json!({"id": pool.id, "size": pool.challenges, "bind": pool.bind, "verbs": pool.verbs}))
        .collect();
    let addresses = |list: &[Address]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut shown = brief(view);
    let more = json!({
        "newest": view.newest.to_string(),
        "made": stamp(view.made),
        "evolved": stamp(view.evolved),
        "frames": view.frames,
        "bytes": view.bytes,
        "pools": pools,
        "delegations": delegations,
        "voided": addresses(&view.voided),
        "undecided": addresses(&view.undecided),
    });
    shown.as_object_mut().expect("made above").extend(more.as_object().cloned().unwrap_or_default());
    if view.class == Class::Device {
        shown["node"] = json!(view.node.to_string());
    }
    shown
}

/// Who may do what for an owner, and until when. What another delegation of the same device holds too is left out: each
/// recovery delegates its device again.
fn delegations(node: &Node, view: &KeystoneView) -> Vec<Value> {
    let own = node.identities().device();
    let rows = view.delegations.iter().flat_map(|(device, list)| {
        let holds = |place: usize, held: &Delegation| {
            let wider = |other: &Delegation| {
                other.until() >= held.until() && held.verbs().iter().all(|verb| other.verbs().contains(verb))
            };
            // Of two that hold each other the later is shown.
            list.iter().enumerate().any(|(at, other)| at != place && wider(other) && (at > place || *other != *held))
        };
        let shown = list.iter().enumerate().filter(move |(place, held)| !holds(*place, held));
        shown.map(move |(_, delegation)| (device, delegation))
    });
    rows.map(|(device, delegation)| {
        let holder = node.identities().view(device);
        json!({
            "device": device.to_string(),
            "node": holder.map(|holder| holder.node.to_string()),
            "this_node": own.as_ref() == Some(device),
            "verbs": delegation.verbs().iter().map(|verb| verb.word()).collect::<Vec<_>>(),
            "until": rfc3339(delegation.until().ms),
        })
    })
    .collect()
}

fn class(class: Class) -> &'static str {
    match class {
        Class::Owner => "owner",
        Class::Device => "device",
        Class::Session => "session",
    }
}

fn state(state: State) -> &'static str {
    match state {
        State::Empty => "unknown",
        State::Live => "live",
        State::Forked => "frozen",
        State::ManagedTwice => "frozen_for_good",
        State::Revoked => "revoked",
    }
}

/// Makes the owner; the words were shown or written down before.
pub(crate) async fn new(node: &Node, words: RecoveryWords, offline_sign: bool) -> Result<Value, Failure> {
    work(node, move |node| {
        let root = root(&words)?;
        if offline_sign {
            node.offline_sign()?;
        }
        let owner = node.identities().make_owner(&root).map_err(failure)?;
        node.audit().note("identity_made", &[("keystone", owner.as_str())]);
        let spaces = node.enter_owner();
        node.identities_changed();
        Ok(json!({
            "schema": "sealtide/identity_new/1", "owner": owner.to_string(), "node": node.id().to_string(),
            "spaces": spaces,
        }))
    })
    .await
}

/// Compares words with the owner.
pub(crate) async fn drill(node: &Node, words: RecoveryWords) -> Result<Value, Failure> {
    work(node, move |node| {
        let owner = node.identities().drill(&root(&words)?).map_err(failure)?;
        Ok(json!({"schema": "sealtide/identity_drill/1", "owner": owner.to_string(), "fits": true}))
    })
    .await
}

/// Takes the owner back.
pub(crate) async fn recover(node: &Node, words: RecoveryWords, frames: Option<PathBuf>) -> Result<Value, Failure> {
    ask_peers(node).await;
    work(node, move |node| {
        let (root, frames) = (root(&words)?, frames_of(frames.as_deref())?);
        let recovered = node.identities().recover(&root, &frames).map_err(failure)?;
        node.audit().note("identity_recovered", &[("keystone", recovered.owner.as_str())]);
        node.identities_changed();
        let view = node.identities().view(&recovered.owner);
        let delegated = view.map(|view| delegations(node, &view)).unwrap_or_default();
        let others: Vec<Value> = delegated.into_iter().filter(|row| row["this_node"] == false).collect();
        Ok(json!({
            "schema": "sealtide/identity_recover/1", "owner": recovered.owner.to_string(),
            "node": node.id().to_string(), "voided": recovered.voided, "others": others,
        }))
    })
    .await
}

/// Ends the owner.
pub(crate) async fn revoke(
    node: &Node,
    words: RecoveryWords,
    reason: String,
    frames: Option<PathBuf>,
) -> Result<Value, Failure> {
    work(node, move |node| {
        if reason.len() > 1024 {
            return Err(Failure::usage("reason", "a reason has at most 1024 bytes"));
        }
        let (root, frames) = (root(&words)?, frames_of(frames.as_deref())?);
        let owner = node.identities().revoke(&root, &reason, &frames).map_err(failure)?;
        node.audit().note("identity_revoked", &[("keystone", owner.as_str())]);
        node.identities_changed();
        Ok(json!({"schema": "sealtide/identity_revoke/1", "owner": owner.to_string(), "revoked": true}))
    })
    .await
}

/// Lets a node speak for the owner.
pub(crate) async fn delegate(
    node: &Node,
    to: String,
    verbs: Vec<String>,
    until: Option<String>,
    offline_sign: bool,
) -> Result<Value, Failure> {
    ask_peers(node).await;
    work(node, move |node| {
        let device = find_node(node, &to)?;
        let verbs: Option<Vec<Verb>> = verbs.iter().map(|word| Verb::of(word)).collect();
        let verbs = verbs.ok_or_else(|| failure(OwnerError::Order))?;
        let until = until.as_deref().map(moment).transpose()?;
        if offline_sign {
            node.offline_sign()?;
        }
        let order = DelegationOrder { node: device, verbs, until };
        let delegation = node.identities().delegate(&order).map_err(failure)?;
        node.audit().note("identity_delegated", &[("node", &device.to_string()), ("scope", &delegation.scope())]);
        node.identities_changed();
        Ok(json!({
            "schema": "sealtide/identity_delegate/1", "node": device.to_string(),
            "verbs": delegation.verbs().iter().map(|verb| verb.word()).collect::<Vec<_>>(),
            "until": rfc3339(delegation.until().ms),
        }))
    })
    .await
}

/// Takes back what a node may do.
pub(crate) async fn undelegate(node: &Node, from: Option<String>, offline_sign: bool) -> Result<Value, Failure> {
    ask_peers(node).await;
    work(node, move |node| {
        let identities = node.identities();
        // A device that this node never met is named by its keystone, as the owner's frames name it.
        let device = match from.as_deref().map(|from| (from, Address::parse(from))) {
            Some((_, Ok(keystone))) => keystone,
            Some((from, Err(_))) => identities.device_of(&find_node(node, from)?).map_err(failure)?,
            None => identities.device_of(&node.id()).map_err(failure)?,
        };
        if offline_sign {
            node.offline_sign()?;
        }
        identities.undelegate(&device).map_err(failure)?;
        let holder = identities.view(&device).map(|holder| holder.node.to_string());
        let mut noted = vec![("keystone", device.as_str())];
        noted.extend(holder.as_deref().map(|holder| ("node", holder)));
        node.audit().note("identity_undelegated", &noted);
        node.identities_changed();
        Ok(json!({
            "schema": "sealtide/identity_undelegate/1", "node": holder, "device": device.to_string(),
        }))
    })
    .await
}

/// Has this device speak for the owner of a peer, or for itself alone.
pub(crate) async fn speak_for(node: &Node, peer: Option<String>) -> Result<Value, Failure> {
    work(node, move |node| {
        let peer = peer.map(|peer| find_node(node, &peer)).transpose()?;
        let owner = node.identities().speak_for(peer.as_ref()).map_err(failure)?;
        let named = owner.as_ref().map(ToString::to_string);
        node.audit().note("identity_speaks_for", &[("keystone", named.as_deref().unwrap_or("none"))]);
        node.identities_changed();
        Ok(json!({"schema": "sealtide/identity_speak_for/1", "owner": named}))
    })
    .await
}

/// Asks the peers that are there for newer frames of the own owner, before it signs.
pub(crate) async fn ask_peers(node: &Node) {
    if let Some(owner) = node.identities().owner() {
        node.identities().ask_witnesses(&owner).await;
    }
}

/// Writes the frames of the own owner, or of that of a peer, into a file.
pub(crate) async fn export(node: &Node, file: PathBuf, of: Option<String>) -> Result<Value, Failure> {
    work(node, move |node| {
        let owner = match &of {
            None => node.identities().owner(),
            Some(peer) => node.identities().peer(&find_node(node, peer)?).and_then(|peer| peer.owner),
        };
        let owner = owner.ok_or_else(|| failure(OwnerError::NoOwner))?;
        let frames = node.identities().frames_of(&owner);
        write_frames(&file, &frames).map_err(|error| Failure::from(error).about(&file))?;
        Ok(json!({
            "schema": "sealtide/identity_export/1", "owner": owner.to_string(), "frames": frames.len(), "file": file,
        }))
    })
    .await
}

fn find_node(node: &Node, named: &str) -> Result<sealtide_identity::NodeId, Failure> {
    if named == node.id().to_string() { Ok(node.id()) } else { Ok(node.find_peer(named)?.node) }
}

pub(crate) fn root(words: &RecoveryWords) -> Result<RootSecret, Failure> {
    words.root().map_err(|error| {
        Failure::usage("words", error.to_string())
            .hint("24 words with spaces between, in their order, on standard input")
    })
}

fn frames_of(path: Option<&Path>) -> Result<Vec<Verified>, Failure> {
    let Some(path) = path else { return Ok(Vec::new()) };
    read_frames(path).map_err(|error| {
        Failure::new(Exit::Verification, "frames", format!("{}: {error}", path.display()))
            .hint("`sealtide identity export FILE` writes such a file on a machine that knows the owner")
    })
}

fn moment(text: &str) -> Result<Stamp, Failure> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok();
    let ms = time.and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok());
    ms.map(|ms| Stamp { ms })
        .ok_or_else(|| Failure::usage("time", format!("{text} is no time")).hint("RFC 3339: 2027-01-01T00:00:00Z"))
}

/// The exit code and next step of what the identities refuse.
pub(crate) fn failure(error: OwnerError) -> Failure {
    let text = error.to_string();
    let refused = |code: &str| Failure::new(Exit::Refused, code, text.clone());
    match error {
        OwnerError::Exists(_) => {
            Failure::usage("owner_exists", text).hint("`sealtide identity show` shows it; `identity revoke` ends it")
        }
        OwnerError::NoOwner => Failure::usage("no_owner", text)
            .hint("`sealtide identity new` makes one, `sealtide identity recover` takes one back"),
        OwnerError::NotTheWords => refused("wrong_words")
            .hint("words of another owner? Its frames come with --frames FILE (`sealtide identity export`)"),
        OwnerError::Revoked => refused("revoked").hint("that is final; `sealtide identity new` makes another owner"),
        OwnerError::ManagedTwice => refused("identity_forked").hint("`sealtide identity revoke` ends it"),
        OwnerError::NoDevice => Failure::usage("no_device", text)
            .hint("it becomes known when the two nodes have met once; `sealtide identity show` names keystones too"),
        OwnerError::NotDelegated => {
            Failure::usage("not_delegated", text).hint("`sealtide identity show` lists what may act for the owner")
        }
        OwnerError::Order => Failure::usage("delegation", text),
        OwnerError::Refused(refused) => sign_failure(&refused),
        error => Failure::failed("identity", error.to_string()),
    }
}

/// What to do where a home may be an old or a copied one.
pub(crate) const DOUBT_HINT: &str = "let it meet a peer first; --offline-sign signs at your own risk";

fn sign_failure(error: &SignRefused) -> Failure {
    let text = error.to_string();
    match error {
        SignRefused::Doubtful(doubt) => Failure::new(Exit::Refused, doubt.code(), text).hint(DOUBT_HINT),
        SignRefused::Behind => Failure::new(Exit::Refused, "behind", text).hint("try again in a moment"),
        SignRefused::NoKeys | SignRefused::Sign(_) => Failure::new(Exit::Refused, "no_keys", text)
            .hint("`sealtide identity recover` brings the owner's keys to this node"),
        _ => Failure::failed("identity", text),
    }
}
