//! `put SPACE NAME` and `get SPACE[:PATH|NAME][@VERSION]`.

use data_encoding::{BASE64, HEXLOWER};
use sealtide_crypto::sha256_parts;
use sealtide_ibgib::{Content, FileFrame, Object, Refusal, Relations, Stamp, Verified, try_evolve, try_genesis, uuid};
use sealtide_identity::{Role, SpaceId};
use sealtide_store::{CommitError, SpaceHandle};
use sealtide_sync::SpaceView;
use serde_json::{Value, json};

use crate::commands::target::{DOC_IB, Line, Target, n_of, name_of, parse_version, stamp_of};
use crate::commands::{blocking, rfc3339, store_failure};
use crate::content::ContentReader;
use crate::failure::{Exit, Failure};
use crate::node::Node;
use crate::real::now;
use crate::world::OsEntropy;

/// Makes or changes a document; an equal document makes no frame. With `base` (a version, or `none`) only where that is what
/// stands there: whoever read, changed and puts back overwrites nothing that came meanwhile.
///
/// # Errors
/// Exit 4 where something else stands there than `base`; exit 2 for what cannot be a document; exit 6 where the own role is read.
pub(crate) async fn put(
    node: &Node,
    space: &str,
    name: &str,
    doc: Value,
    base: Option<&str>,
) -> Result<Value, Failure> {
    let id = node.find_space(space)?;
    may_write(node, &id)?;
    let data = members(node, name, doc)?;
    let target = Target { space: space.to_owned(), path: Some(name.to_owned()), version: None };
    let is_bound = base.is_some();
    let base = base.map(str::to_owned);
    let _turn = node.putting().lock().await;
    let find = move |node: &Node| {
        let line = Line::find_of(node, &target, Some(DOC_IB)).ok();
        let tips = line.iter().flat_map(|line| &line.tips).map(Verified::sid).collect::<Vec<_>>();
        let tip = match base {
            Some(base) => based_on(&target, line.as_ref(), &base)?.cloned(),
            None => line.map(|line| line.tips[0].clone()),
        };
        Ok((tip, tips))
    };
    let (tip, tips) = blocking("put", node, find).await?;
    let stamp = Stamp { ms: now().wall_ms };
    if let Some(tip) = &tip
        && tip.object().and_then(|object| object.get("doc").cloned()).as_ref() == data.get("doc")
    {
        return Ok(
            json!({"schema": "sealtide/put/1", "address": tip.address().as_str(), "n": n_of(tip), "changed": false}),
        );
    }
    let mut records = Vec::new();
    let record = match &tip {
        Some(tip) => try_evolve(tip, data, Relations::new(), stamp),
        None => {
            let root = root(&id, name).map_err(no_record)?;
            let record = try_evolve(&root, data, Relations::new(), stamp);
            records.push(root);
            record
        }
    };
    let record = record.map_err(no_record)?;
    records.push(record.clone());
    let committed = if is_bound {
        let timeline = record.frame_ref().map(|facts| facts.timeline);
        let expected = timeline.map(|timeline| (timeline, tips)).into_iter().collect();
        node.engine().commit_local_if(id, records, expected).await
    } else {
        node.engine().commit_local(id, records).await
    };
    committed.map_err(|error| match error {
        CommitError::TipMoved(_) => other_base(name, "another version came in this moment"),
        error => store_failure(error),
    })?;
    Ok(json!({
        "schema": "sealtide/put/1", "address": record.address().as_str(), "n": n_of(&record), "changed": true,
    }))
}

/// The first frame of every document of this name in a space, empty, and the same on every node: what two nodes make under one
/// name before they have heard of each other is one document with two versions, which are merged. Spec: node §4
fn root(space: &SpaceId, name: &str) -> Result<Verified, Refusal> {
    let digest = sha256_parts(&[b"sealtide/document/1\0", space.as_bytes(), name.as_bytes()]);
    let data = Object::from_iter([("name".to_owned(), json!(name)), ("doc".to_owned(), json!({}))]);
    try_genesis(DOC_IB, data, Relations::new(), Stamp { ms: 0 }, &HEXLOWER.encode(&digest[..16]))
}

/// Whether a record is the first frame that all documents of a name share. It is no version.
pub(crate) fn is_root(record: &Verified) -> bool {
    let of_nobody = || record.object().is_some_and(|object| !object.contains_key("by"));
    record.address().ib() == DOC_IB && n_of(record) == 0 && of_nobody()
}

fn other_base(name: &str, what: &str) -> Failure {
    let text = format!("{name} is not what --base says any more: {what}");
    Failure::new(Exit::Conflict, "other_base", text).hint("get it again, make the change in that, and put it")
}

/// The tip that `base` names.
fn based_on<'a>(target: &Target, line: Option<&'a Line>, base: &str) -> Result<Option<&'a Verified>, Failure> {
    let other = |what: &str| other_base(target.path.as_deref().unwrap_or_default(), what);
    let Some(line) = line else {
        return if base == "none" { Ok(None) } else { Err(other("there is no such document")) };
    };
    let stands = || format!("version {} stands there", n_of(&line.tips[0]));
    if base == "none" {
        return Err(other(&stands()));
    }
    let version = parse_version(base.trim_start_matches('@')).ok_or_else(|| {
        Failure::usage("base", format!("{base} is no version"))
            .hint("@N or @HASH as `sealtide get --json` tells, or none")
    })?;
    let wanted = line.version(Some(&version))?;
    line.tips.iter().find(|tip| tip.sid() == wanted.sid()).map(Some).ok_or_else(|| other(&stands()))
}

/// The first frame of a document that is read from elsewhere, by this node.
///
/// # Errors
/// Exit 2 for a name or a size that a document cannot have.
pub(crate) fn first_frame(node: &Node, name: &str, doc: Value) -> Result<Verified, Failure> {
    let data = members(node, name, doc)?;
    let stamp = Stamp { ms: now().wall_ms };
    try_genesis(DOC_IB, data, Relations::new(), stamp, &uuid(&mut OsEntropy)).map_err(no_record)
}

fn no_record(refusal: Refusal) -> Failure {
    Failure::usage("document", format!("the document cannot be a record: {refusal}"))
}

fn members(node: &Node, name: &str, doc: Value) -> Result<Object, Failure> {
    if name.is_empty() || name.len() > 255 {
        return Err(Failure::usage("name", "the name of a document has 1 to 255 bytes"));
    }
    let mut data = Object::new();
    data.insert("name".to_owned(), json!(name));
    data.insert("doc".to_owned(), doc);
    data.insert("by".to_owned(), json!(node.id().to_string()));
    if let Some(number) = inexact(&data["doc"]) {
        let text = format!(
            "the document has the number {number}, which would be stored as another: numbers here are those of JavaScript"
        );
        return Err(Failure::usage("number", text).hint("write it as a text, in quotes"));
    }
    if has_proto(&data["doc"]) {
        return Err(Failure::usage("member", "the document has a member __proto__, which records cannot have"));
    }
    let size = serde_json::to_vec(&data).map_or(0, |bytes| bytes.len());
    if size > 700 * 1024 {
        return Err(Failure::usage(
            "too_large",
            format!("the document has {size} bytes; at most 700 KiB fit into one record"),
        )
        .hint("put it as a file into a shared folder"));
    }
    Ok(data)
}

/// Whether some member is called `__proto__`, which JavaScript takes for something else. Spec: ibgib §12.2.2
fn has_proto(doc: &Value) -> bool {
    match doc {
        Value::Array(items) => items.iter().any(has_proto),
        Value::Object(members) => members.iter().any(|(name, value)| name == "__proto__" || has_proto(value)),
        _ => false,
    }
}

/// The first whole number of a document that a double does not hold.
fn inexact(doc: &Value) -> Option<&serde_json::Number> {
    match doc {
        Value::Number(number) => {
            let is_held = match (number.as_u64(), number.as_i64()) {
                (Some(whole), _) => (whole as f64) as u128 == u128::from(whole),
                (_, Some(whole)) => (whole as f64) as i128 == i128::from(whole),
                _ => true,
            };
            (!is_held).then_some(number)
        }
        Value::Array(items) => items.iter().find_map(inexact),
        Value::Object(members) => members.values().find_map(inexact),
        _ => None,
    }
}

/// Refuses where the own role is read.
pub(crate) fn may_write(node: &Node, space: &SpaceId) -> Result<(), Failure> {
    if node.engine().role(&node.id(), space) >= Some(Role::Write) {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, "read_only", "this node may only read this space")
        .hint("ask an admin of the space for a ticket with role write"))
}

/// One version of a file or document; without a path the list of what is live in the space.
pub(crate) fn get(node: &Node, text: &str) -> Result<Value, Failure> {
    let target = Target::parse(text);
    if target.path.is_none() {
        return list(node, &target);
    }
    let line = Line::find(node, &target)?;
    let record = line.version(target.version.as_ref())?;
    let mut document = json!({
        "schema": "sealtide/get/1",
        "space": target.space,
        "address": record.address().as_str(),
        "n": n_of(&record),
        "time": rfc3339(stamp_of(&record)),
    });
    if let Ok(frame) = FileFrame::read(&record) {
        document["path"] = json!(frame.path);
        document["kind"] = json!(format!("{:?}", frame.kind).to_lowercase());
        document["by"] = json!(frame.by);
        document["deleted"] = json!(frame.deleted);
        if frame.deleted {
            return Err(Failure::new(Exit::Failed, "deleted", format!("{} is deleted in this version", frame.path))
                .hint(format!("`sealtide log {text}` lists the versions before")));
        }
        match &frame.content {
            Content::Text(text) => document["text"] = json!(text),
            Content::Target(target) => document["target"] = json!(target),
            Content::Bin(_) => {
                let bytes = content(node, &line.view, &frame)?;
                match String::from_utf8(bytes) {
                    Ok(text) => document["text"] = json!(text),
                    Err(error) => document["base64"] = json!(BASE64.encode(error.as_bytes())),
                }
            }
            Content::None => {}
        }
    } else {
        let object = record.object().unwrap_or_default();
        document["name"] = object.get("name").cloned().unwrap_or_default();
        document["doc"] = object.get("doc").cloned().unwrap_or_default();
        document["by"] = object.get("by").cloned().unwrap_or_default();
    }
    Ok(document)
}

fn list(node: &Node, target: &Target) -> Result<Value, Failure> {
    let space = node.find_space(&target.space)?;
    let view = node.store().view(&space).ok_or_else(|| Failure::failed("no_space", "the space is gone"))?;
    let mut names = std::collections::BTreeSet::new();
    for timeline in view.timelines() {
        let live = timeline.tips.iter().filter_map(|tip| view.record(&tip.sid)).filter_map(|tip| name_of(&tip));
        names.extend(live.filter(|(_, live)| *live).map(|(name, _)| name));
    }
    Ok(json!({"schema": "sealtide/list/1", "space": target.space, "names": names}))
}

/// The bytes of a file frame. For one command's answer, so bounded: 64 MiB.
pub(crate) fn content(node: &Node, view: &SpaceHandle, frame: &FileFrame) -> Result<Vec<u8>, Failure> {
    const BYTES_MAX: u64 = 64 * 1024 * 1024;
    let address = match &frame.content {
        Content::Text(text) => return Ok(text.clone().into_bytes()),
        Content::Target(target) => return Ok(target.clone().into_bytes()),
        Content::None => return Ok(Vec::new()),
        Content::Bin(address) => address,
    };
    let mut content = ContentReader::open(node.store(), view, address)?;
    if content.size() > BYTES_MAX {
        return Err(Failure::usage(
            "too_large",
            format!("{} has {} bytes; too many to print", frame.path, content.size()),
        )
        .hint("`sealtide restore SPACE:PATH@VERSION --to DIR` writes it to a file"));
    }
    let mut bytes = Vec::with_capacity(content.size() as usize);
    while let Some(piece) = content.next_piece()? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
