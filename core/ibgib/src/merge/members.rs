//! The merge of two members frames: by the shape of their data alone. A removal wins, and of two roles the lesser.
//! Spec: ibgib §12.5, merge §4a

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::value::{Choice, choose};
use crate::Object;

/// The ib of members frames.
pub(super) const MEMBERS_IB: &str = "members";
/// Members of the data that this rule sets.
pub(super) const MEMBERS: [&str; 2] = ["members", "last"];
/// Roles, the lesser first.
const ROLES: [&str; 3] = ["read", "write", "admin"];
/// Nodes of one member, at most.
const NODES_MAX: usize = 16;
/// Last commits of one former writer, at most.
const LAST_MAX: usize = 64;

/// Puts the merged list of members, and how far the commits of former writers count, into `data`. The three are base,
/// winner and loser; which of the two is the winner decides nothing but members that the rule does not know.
// Spec: SY-102
pub(super) fn merge_members(objects: &[Object; 3], data: &mut Object) {
    let tables = |name: &str| objects.each_ref().map(|object| object.get(name).and_then(Value::as_object));
    let merged = merge_table(tables("members"), merge_member);
    let mut last = merge_table(tables("last"), |sides| sorted_union(sides[1], sides[2]));
    // Whoever was added again is no former writer any more, but for one who may only read now.
    last.retain(|name, _| merged.get(name).is_none_or(|member| member.get("role") == Some(&json!(ROLES[0]))));
    data.insert("members".to_owned(), Value::Object(merged));
    if !last.is_empty() {
        data.insert("last".to_owned(), Value::Object(last));
    }
}

/// Entries of both sides; one that a side removed is gone, one that a side added is there.
fn merge_table(
    [base, winner, loser]: [Option<&Object>; 3],
    both: impl Fn([Option<&Value>; 3]) -> Option<Value>,
) -> Object {
    let none = Object::new();
    let (base, winner, loser) = (base.unwrap_or(&none), winner.unwrap_or(&none), loser.unwrap_or(&none));
    let names: BTreeSet<&String> = winner.keys().chain(loser.keys()).collect();
    let entries = names.into_iter().filter_map(|name| {
        let sides = [base.get(name), winner.get(name), loser.get(name)];
        let entry = match sides {
            [_, Some(_), Some(_)] => both(sides)?,
            [None, Some(only), None] | [None, None, Some(only)] => only.clone(),
            _ => return None,
        };
        Some((name.clone(), entry))
    });
    entries.collect()
}

/// One member that both sides list.
fn merge_member(sides: [Option<&Value>; 3]) -> Option<Value> {
    let [base, winner, loser] = sides.map(|side| side.and_then(Value::as_object));
    let (winner, loser) = (winner?, loser?);
    let part = |name: &str| [base.and_then(|base| base.get(name)), winner.get(name), loser.get(name)];
    let mut merged = winner.clone();
    let parts = [
        ("role", changed(part("role"), lesser_role)),
        ("since", changed(part("since"), |left, right| left.as_u64() <= right.as_u64())),
        ("nodes", merge_nodes(part("nodes"))),
    ];
    for (name, value) in parts {
        if let Some(value) = value {
            merged.insert(name.to_owned(), value);
        }
    }
    Some(Value::Object(merged))
}

/// What one side changed; of two changes the one that comes first by `before`.
fn changed([base, winner, loser]: [Option<&Value>; 3], before: impl Fn(&Value, &Value) -> bool) -> Option<Value> {
    let none = Value::Null;
    let (base, winner, loser) = (base.unwrap_or(&none), winner?, loser?);
    let chosen = match choose(base, winner, loser) {
        Choice::Winner => winner,
        Choice::Loser => loser,
        Choice::Both if before(winner, loser) => winner,
        Choice::Both => loser,
    };
    Some(chosen.clone())
}

/// A word that is no role comes before all roles: nobody gains by it.
fn lesser_role(left: &Value, right: &Value) -> bool {
    let place = |value: &Value| ROLES.iter().position(|role| Some(*role) == value.as_str());
    (place(left), left.as_str()) <= (place(right), right.as_str())
}

/// Base minus removals plus additions, sorted.
fn merge_nodes(sides: [Option<&Value>; 3]) -> Option<Value> {
    let [base, winner, loser] = sides.map(texts);
    let kept =
        winner.union(&loser).filter(|node| winner.contains(*node) && loser.contains(*node) || !base.contains(*node));
    Some(json!(kept.take(NODES_MAX).collect::<Vec<_>>()))
}

fn sorted_union(left: Option<&Value>, right: Option<&Value>) -> Option<Value> {
    Some(json!(texts(left).union(&texts(right)).take(LAST_MAX).collect::<Vec<_>>()))
}

fn texts(list: Option<&Value>) -> BTreeSet<&str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}
