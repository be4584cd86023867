//! `keys …` and `release bump`: the same whether the gateway runs, the node does, or nobody.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealtide_gateway::{Bumped, Way};
use sealtide_ibgib::json::{Js, JsObject, Rules, parse};
use sealtide_identity::keyring::{ChangeRefused, KeySource, KeyVersion, LedgerRecord, Order, VersionState, parse_time};
use sealtide_releases::BumpRequest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::commands::rfc3339;
use crate::console::code_answer;
use crate::failure::{Exit, Failure};
use crate::gateway::{BumpRefused, Desk, Named, OrderRefused, Ordered, TreeRefused, end_ms};
use crate::node::Node;

/// Who orders by a command.
const BY: &str = "command";
/// Records of the ledger in one answer.
const RECORDS_MAX: usize = 256;

/// What a command asks of the keys of a home.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "keys", rename_all = "snake_case")]
pub enum KeysRequest {
    /// `keys status`
    Status,
    /// `keys ledger`
    Ledger {
        /// Records with a greater epoch.
        since: u64,
    },
    /// `keys rotate`, `rollback`, `force`, `new`, `retire`, `destroy`
    Change {
        /// What.
        change: KeysChange,
        /// The version that must be active, `vN`.
        expect: Option<String>,
        /// Why.
        reason: String,
        /// Only tell what it would come to.
        dry_run: bool,
    },
    /// `gateway code`
    SignInCode,
    /// `release bump`
    Bump {
        /// The members of a bump request, as over HTTP.
        request: Value,
        /// The revision that the registry must have.
        expect: Option<u64>,
        /// Absolute path of a source tree whose files change too.
        tree: Option<PathBuf>,
    },
    /// `release revert`
    Revert {
        /// The transaction.
        id: String,
        /// Absolute path of the source tree.
        tree: PathBuf,
    },
}

impl KeysRequest {
    /// Whether another pair may sign afterwards.
    pub(crate) fn changes_keys(&self) -> bool {
        matches!(self, Self::Change { dry_run: false, .. })
    }

    /// Whether it may make keys and a registry where there are none.
    pub(crate) fn may_begin(&self) -> bool {
        matches!(self, Self::Bump { .. } | Self::Change { change: KeysChange::New { .. }, dry_run: false, .. })
    }
}

/// A change of keys; versions are written `vN`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum KeysChange {
    /// Another version signs.
    Rotate {
        /// This one, or the next that is loaded; where there is none and this home made the one that signs, one is made.
        to: Option<String>,
    },
    /// The version before signs again.
    Rollback,
    /// Another version signs, and there is no way back.
    Force {
        /// Which.
        to: String,
    },
    /// A version with a secret of its own is made.
    New {
        /// This one, or the next number.
        version: Option<String>,
    },
    /// A version that only verifies ends now.
    Retire {
        /// Which.
        version: String,
        /// Somebody else may have its secret.
        compromised: bool,
        /// Releases that are the last good ones of their channels, `CHANNEL=SEQ`; of the others it is the newest.
        #[serde(default)]
        last_good: Vec<String>,
    },
    /// The secret of a version that ended is deleted.
    Destroy {
        /// Which.
        version: String,
    },
}

impl KeysChange {
    fn word(&self) -> &'static str {
        match self {
            Self::Rotate { .. } => "rotate",
            Self::Rollback => "rollback",
            Self::Force { .. } => "force",
            Self::New { .. } => "new",
            Self::Retire { .. } => "retire",
            Self::Destroy { .. } => "destroy",
        }
    }

    /// Whether nothing brings back what was before.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Force { .. } | Self::Retire { .. } | Self::Destroy { .. })
    }
}

/// Does what is asked, on a thread that may wait for the disk.
///
/// # Errors
/// A [`Failure`] with the exit code of the command.
pub(crate) async fn execute(desk: Arc<Desk>, request: KeysRequest) -> Result<Value, Failure> {
    let work = move || match request {
        KeysRequest::Status => Ok(status(&desk)),
        KeysRequest::Ledger { since } => ledger(&desk, since),
        KeysRequest::SignInCode => sign_in_code(&desk),
        KeysRequest::Change { change, expect, reason, dry_run } => {
            let expect = expect.as_deref().map(version).transpose()?;
            if dry_run { preview(&desk, &change, expect) } else { follow(&desk, &change, expect, &reason) }
        }
        KeysRequest::Bump { request, expect, tree } => bump(&desk, &request, expect, tree.as_deref()),
        KeysRequest::Revert { id, tree } => revert(&desk, &id, &tree),
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::failed("keys", error.to_string()))?
}

fn status(desk: &Desk) -> Value {
    let shown = desk.show();
    let versions: Vec<Value> = shown
        .versions
        .iter()
        .map(|version| {
            json!({
                "version": version.version.to_string(),
                "state": version.state.name(),
                "source": version.source.map(KeySource::name),
                "not_after": version.not_after.map(|end| rfc3339(end_ms(end))),
                "keys": version.keys.iter().map(|(alg, kid)| json!({"alg": alg, "kid": kid})).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "schema": "sealtide/keys/1",
        "active": shown.active.to_string(),
        "previous": shown.previous.map(|version| version.to_string()),
        "forced": shown.forced,
        "epoch": shown.epoch,
        "since": shown.since_ms.map(rfc3339),
        "ledger": shown.ledger,
        "last_signature": shown.last.map(|version| version.to_string()),
        "versions": versions,
    })
}

fn ledger(desk: &Desk, since: u64) -> Result<Value, Failure> {
    let records = desk.records(since, RECORDS_MAX)?;
    let rows: Result<Vec<Value>, Failure> = records.iter().map(row).collect();
    Ok(json!({"schema": "sealtide/keys_ledger/1", "records": rows?}))
}

fn sign_in_code(desk: &Desk) -> Result<Value, Failure> {
    let (code, url, life_ms) = desk.sign_in_code().ok_or_else(no_door)?;
    Ok(code_answer(url, &code, life_ms))
}

/// A one-time code for the door of a node, which may have no keys.
pub(crate) fn node_code(node: &Node) -> Result<Value, Failure> {
    let (code, url, life_ms) = node.sign_in_code().ok_or_else(no_door)?;
    Ok(code_answer(&url, &code, life_ms))
}

fn no_door() -> Failure {
    Failure::failed("no_door", "no door is open that a browser could sign in at")
}

fn row(value: &Value) -> Result<Value, Failure> {
    let damaged = |error: &dyn std::fmt::Display| Failure::new(Exit::Verification, "key_ledger", error.to_string());
    let record = LedgerRecord::parse(value).map_err(|error| damaged(&error))?;
    Ok(json!({
        "epoch": record.epoch,
        "time": parse_time(&record.rotation_timestamp).map(rfc3339),
        "action": record.action.name(),
        "active": record.active().to_string(),
        "by": record.by,
        "reason": record.reason,
        "auto": record.auto,
        "record": value,
    }))
}

fn preview(desk: &Desk, change: &KeysChange, expect: Option<KeyVersion>) -> Result<Value, Failure> {
    let order = match change {
        KeysChange::New { .. } => None,
        // An active version is left first; what that comes to is shown.
        KeysChange::Retire { version: name, compromised: true, .. } if desk.show().active == version(name)? => {
            Some(Order::Rotate { to: None, keep_until: None })
        }
        other => order_of(other)?,
    };
    let shown = desk.show();
    let mut document = json!({
        "schema": "sealtide/keys_preview/1",
        "change": change.word(),
        "final": change.is_final(),
        "active": shown.active.to_string(),
        "epoch": shown.epoch,
    });
    let Some(order) = order else { return Ok(document) };
    let ordered = Ordered { order, expect, by: BY, reason: "" };
    if let Some(version) = to_make(desk, &ordered) {
        document["would_change"] = json!(true);
        document["would_make"] = json!(version.to_string());
        document["would_be"] = json!(version.to_string());
        document["states"] = json!({
            shown.active.to_string(): VersionState::VerifyOnly.name(), version.to_string(): VersionState::Active.name(),
        });
        return Ok(document);
    }
    match desk.preview(&ordered).map_err(|refused| failure(&refused))? {
        None => document["would_change"] = json!(false),
        Some(change) => {
            let moves = change.record.versions().filter(|(version, state)| {
                let before = shown.versions.iter().find(|shown| shown.version == *version);
                before.is_none_or(|before| before.state != *state)
            });
            document["would_change"] = json!(true);
            document["would_be"] = json!(change.to.to_string());
            document["states"] =
                Value::Object(moves.map(|(version, state)| (version.to_string(), json!(state.name()))).collect());
        }
    }
    Ok(document)
}

fn order_of(change: &KeysChange) -> Result<Option<Order>, Failure> {
    Ok(Some(match change {
        KeysChange::Rotate { to } => Order::Rotate { to: to.as_deref().map(version).transpose()?, keep_until: None },
        KeysChange::Rollback => Order::Rollback,
        KeysChange::Force { to } => Order::Force { to: version(to)? },
        KeysChange::Retire { version: name, compromised: false, .. } => Order::Retire(version(name)?),
        KeysChange::Retire { version: name, compromised: true, .. } => Order::Compromise(version(name)?, Vec::new()),
        KeysChange::Destroy { version: name } => Order::Destroy(version(name)?),
        KeysChange::New { .. } => return Ok(None),
    }))
}

fn follow(desk: &Desk, change: &KeysChange, expect: Option<KeyVersion>, reason: &str) -> Result<Value, Failure> {
    let refused = |refused: OrderRefused| failure(&refused);
    if let Some(expected) = expect
        && desk.show().active != expected
    {
        let shown = desk.show();
        return Err(failure(&ChangeRefused::Conflict { active: shown.active, epoch: shown.epoch }.into()));
    }
    let (before, mut made) = (desk.show(), None);
    match change {
        KeysChange::New { version: name } => {
            let wanted = name.as_deref().map(version).transpose()?;
            let made = desk.new_version(wanted, BY).map_err(refused)?;
            let after = desk.show();
            return Ok(json!({
                "schema": "sealtide/keys_change/1", "change": "new", "version": made.to_string(),
                "from": after.active.to_string(), "to": after.active.to_string(), "epoch": after.epoch,
            }));
        }
        KeysChange::Retire { version: name, compromised: true, last_good } => {
            let named: Option<Vec<Named>> = last_good.iter().map(|text| Named::parse(text)).collect();
            let named = named.ok_or_else(|| Failure::usage("last_good", "a last good release is CHANNEL=SEQ"))?;
            desk.compromise(version(name)?, &named, BY, reason).map_err(refused)?;
        }
        KeysChange::Destroy { version: name } => {
            desk.destroy(version(name)?, BY, reason).map_err(refused)?;
        }
        other => {
            let order = order_of(other)?.ok_or_else(|| Failure::usage("keys", "this is no change"))?;
            let ordered = Ordered { order, expect, by: BY, reason };
            if let Some(version) = to_make(desk, &ordered) {
                made = Some(desk.new_version(Some(version), BY).map_err(refused)?);
            }
            desk.order(&ordered).map_err(refused)?;
        }
    }
    let after = desk.show();
    let mut document = json!({
        "schema": "sealtide/keys_change/1", "change": change.word(), "changed": after.epoch != before.epoch,
        "from": before.active.to_string(), "to": after.active.to_string(), "epoch": after.epoch,
    });
    if let Some(version) = made {
        document["made"] = json!(version.to_string());
    }
    Ok(document)
}

/// The version that a rotation to the next one has to make first.
fn to_make(desk: &Desk, ordered: &Ordered<'_>) -> Option<KeyVersion> {
    let is_next = matches!(ordered.order, Order::Rotate { to: None, .. });
    let lacks = || matches!(desk.preview(ordered), Err(OrderRefused::Change(ChangeRefused::NothingHigher(_))));
    if is_next && lacks() { desk.show().next_own() } else { None }
}

/// A bump of a registry that another node writes.
pub(crate) async fn bump_elsewhere(node: &Node, members: &Value) -> Result<Value, Failure> {
    let request = bump_request(members)?;
    let writer = node.followed().ok_or_else(|| Failure::failed("bump", "no registry is followed"))?;
    let done = node.pass_on_bump(&writer, &request, Way::Rest).await.map_err(|code| {
        let told = format!("node {} writes this registry: {}", writer.writer.node.short(), code.line());
        Failure::failed(&code.name().to_ascii_lowercase(), told)
    })?;
    Ok(bump_document(&request, &done))
}

fn bump_request(members: &Value) -> Result<BumpRequest, Failure> {
    let object: JsObject = match parse(&members.to_string(), Rules::Strict) {
        Ok(Js::Object(object)) => object,
        _ => return Err(Failure::usage("bump", "the request is no object")),
    };
    BumpRequest::read(&object, &[], None).map_err(|error| Failure::usage("bump", error.to_string()))
}

fn bump(desk: &Desk, members: &Value, expect: Option<u64>, tree: Option<&Path>) -> Result<Value, Failure> {
    let request = bump_request(members)?;
    let (done, files, transaction) = match tree {
        None => (desk.bump_by_command(&request, expect).map_err(|refused| bump_failure(&refused))?, None, None),
        Some(root) => {
            let done = desk.bump_tree(&request, expect, root).map_err(|refused| bump_failure(&refused))?;
            let row = |(path, places): &(String, usize)| json!({"path": path, "places": places});
            (done.bumped, Some(done.files.iter().map(row).collect::<Vec<_>>()), done.transaction)
        }
    };
    let mut document = bump_document(&request, &done);
    if let Some(files) = files {
        document["files"] = json!(files);
        document["transaction"] = json!(transaction);
    }
    Ok(document)
}

fn bump_document(request: &BumpRequest, done: &Bumped) -> Value {
    let changes: Vec<Value> = done
        .plan
        .changes
        .iter()
        .map(|change| {
            json!({"entity": change.entity_id, "name": change.display_name, "from": change.old_version, "to": change.new_version})
        })
        .collect();
    let mut document = json!({
        "schema": "sealtide/release_bump/1",
        "dry_run": request.dry_run,
        "changes": changes,
        "revision": done.revision,
        "key_version": done.key_version.to_string(),
    });
    if let Some(signed) = &done.signed {
        document["signature"] = json!(signed.text);
        document["alg"] = json!(signed.algorithm.name());
        document["kid"] = json!(signed.kid);
    }
    document
}

fn revert(desk: &Desk, id: &str, tree: &Path) -> Result<Value, Failure> {
    let done = desk.revert_tree(id, tree).map_err(|refused| bump_failure(&refused))?;
    Ok(json!({
        "schema": "sealtide/release_revert/1", "reverted": id, "transaction": done.transaction,
        "files": done.files, "revision": done.revision,
    }))
}

/// Reads `vN`, or `N`.
fn version(text: &str) -> Result<KeyVersion, Failure> {
    let read = KeyVersion::parse(text).or_else(|| KeyVersion::parse_digits(text));
    read.ok_or_else(|| Failure::usage("key_version", format!("{text} is no key version")).hint("v1, v2, …"))
}

fn failure(refused: &OrderRefused) -> Failure {
    let told = |code: &str| Failure::failed(code, refused.to_string());
    match refused {
        OrderRefused::Change(ChangeRefused::Conflict { .. }) => {
            told("key_conflict").hint("`sealtide keys status` tells which version signs")
        }
        OrderRefused::Change(ChangeRefused::NothingHigher(_) | ChangeRefused::Unavailable(_)) => {
            told("key_unavailable")
                .hint("`sealtide keys new` makes a version; VERSION_SIGNING_KEY_V2 brings one of yours")
        }
        OrderRefused::Change(ChangeRefused::Probe(_)) => {
            Failure::new(Exit::Verification, "key_probe", refused.to_string())
        }
        OrderRefused::Change(ChangeRefused::State { state: Some(VersionState::Active), .. }) => {
            told("key_active").hint("`sealtide keys rotate` first: a version that signs is not ended")
        }
        OrderRefused::Change(_) => told("key_state"),
        OrderRefused::Audit => told("audit"),
        OrderRefused::Store(failure) => failure.clone(),
    }
}

fn bump_failure(refused: &BumpRefused) -> Failure {
    let code = match refused {
        BumpRefused::Tree(TreeRefused::Manifest(_)) => {
            return Failure::new(Exit::Verification, "manifest", refused.to_string());
        }
        BumpRefused::Tree(_) => "tree",
        BumpRefused::Plan(_) => "bump",
        BumpRefused::Revision { .. } => "revision",
        BumpRefused::Sign(_) | BumpRefused::Algorithm => "key_unavailable",
        BumpRefused::Writer(_) => {
            return Failure::failed("not_the_writer", refused.to_string())
                .hint("`sealtide release registry show` tells more; a running node that follows it passes bumps on");
        }
        BumpRefused::Store => "store",
    };
    Failure::failed(code, refused.to_string())
}
