//! Three-way merge of JSON members and of relations. Spec: ibgib §16, merge §3.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Tally;
use super::text::merge_placed;
use crate::json::write_norm_value;
use crate::{Address, Object, Relations};

/// The relations that a merge sets itself.
const OWN_RELATIONS: [&str; 6] = ["past", "ancestor", "dna", "tjp", "graftbase", "graftorphan"];

/// What one member, or one part of a frame, became.
pub(super) enum Choice {
    /// Unchanged by the other side, or changed alike: the winner's.
    Winner,
    /// Changed by the loser alone.
    Loser,
    /// Changed by both, differently.
    Both,
}

/// Which of two sides changed something.
pub(super) fn choose<T: PartialEq + ?Sized>(base: &T, winner: &T, loser: &T) -> Choice {
    if winner == loser || base == loser {
        Choice::Winner
    } else if base == winner {
        Choice::Loser
    } else {
        Choice::Both
    }
}

/// Merges objects member by member, but for the members in `except`, which are left out. Counts conflicts.
pub(super) fn merge_objects(
    base: &Object,
    winner: &Object,
    loser: &Object,
    except: &[&str],
    tally: &mut Tally,
) -> Object {
    let names: BTreeSet<&String> = base.keys().chain(winner.keys()).chain(loser.keys()).collect();
    let mut merged = Object::new();
    for name in names.into_iter().filter(|name| !except.contains(&name.as_str())) {
        let sides = [base.get(name), winner.get(name), loser.get(name)];
        if let Some(value) = merge_member(name, sides, tally) {
            merged.insert(name.clone(), value);
        }
    }
    merged
}

/// One member; `None` stands for a member that is not there.
fn merge_member(name: &str, [base, winner, loser]: [Option<&Value>; 3], tally: &mut Tally) -> Option<Value> {
    if let (Some(Value::Object(winner)), Some(Value::Object(loser))) = (winner, loser) {
        let none = Object::new();
        let base = base.and_then(Value::as_object).unwrap_or(&none);
        return Some(Value::Object(merge_objects(base, winner, loser, &[], tally)));
    }
    // Compared as they are hashed: the order of members matters inside lists and nowhere else.
    let text = |value: Option<&Value>| {
        value.map(|value| {
            let mut text = String::new();
            write_norm_value(value, &mut text);
            text
        })
    };
    match choose(&text(base), &text(winner), &text(loser)) {
        Choice::Winner => return winner.cloned(),
        Choice::Loser => return loser.cloned(),
        Choice::Both => {}
    }
    if let (Some(winner), Some(loser)) = (strings(winner), strings(loser)) {
        let merged = merge_lists(&strings(base).unwrap_or_default(), &winner, &loser);
        return Some(merged.into_iter().map(|entry| Value::String(entry.to_owned())).collect());
    }
    if name == "text"
        && let (Some(Value::String(base)), Some(Value::String(winner)), Some(Value::String(loser))) =
            (base, winner, loser)
    {
        let merged = merge_placed(tally.places, base, winner, loser);
        tally.conflicts += merged.conflicts;
        return Some(Value::String(merged.text));
    }
    tally.conflicts += 1;
    // Removed by one and changed by the other: the change stands.
    winner.or(loser).cloned()
}

/// The entries of a list that holds nothing but strings.
fn strings(value: Option<&Value>) -> Option<Vec<&str>> {
    value?.as_array()?.iter().map(Value::as_str).collect()
}

/// The base without what either side removed, then what the winner added, then what the loser added besides. An
/// entry that stands several times is counted.
fn merge_lists<'a, T: Ord + ?Sized>(base: &[&'a T], winner: &[&'a T], loser: &[&'a T]) -> Vec<&'a T> {
    let [in_base, in_winner, in_loser] = [base, winner, loser].map(counts);
    let count = |counts: &BTreeMap<&T, usize>, entry: &T| counts.get(entry).copied().unwrap_or(0);
    // Walks a list and takes of each entry the copies whose number among their like, from 1, `wanted` says yes to.
    let mut merged = Vec::new();
    let mut take = |list: &[&'a T], wanted: &dyn Fn(&'a T, usize) -> bool| {
        let mut seen: BTreeMap<&T, usize> = BTreeMap::new();
        for entry in list {
            let number = seen.entry(entry).or_default();
            *number += 1;
            if wanted(entry, *number) {
                merged.push(*entry);
            }
        }
    };
    take(base, &|entry, number| number <= count(&in_winner, entry).min(count(&in_loser, entry)));
    take(winner, &|entry, number| number > count(&in_base, entry));
    take(loser, &|entry, number| number > count(&in_base, entry).max(count(&in_winner, entry)));
    merged
}

fn counts<'a, T: Ord + ?Sized>(list: &[&'a T]) -> BTreeMap<&'a T, usize> {
    let mut counts = BTreeMap::new();
    list.iter().for_each(|entry| *counts.entry(*entry).or_default() += 1);
    counts
}

/// Merges relations as lists, but for those that a merge sets itself and those in `except`, which are left out.
pub(super) fn merge_relations(base: &Relations, winner: &Relations, loser: &Relations, except: &[&str]) -> Relations {
    let names: BTreeSet<&String> = base.keys().chain(winner.keys()).chain(loser.keys()).collect();
    let mut merged = Relations::new();
    for name in names {
        if OWN_RELATIONS.contains(&name.as_str()) || except.contains(&name.as_str()) {
            continue;
        }
        let sides = [base, winner, loser].map(|side| side.get(name));
        let list = match choose(&sides[0], &sides[1], &sides[2]) {
            Choice::Winner => sides[1].cloned(),
            Choice::Loser => sides[2].cloned(),
            Choice::Both => {
                let [base, winner, loser] =
                    sides.map(|side| side.map(|list| list.iter().collect::<Vec<&Address>>()).unwrap_or_default());
                let merged: Vec<Address> = merge_lists(&base, &winner, &loser).into_iter().cloned().collect();
                (!merged.is_empty()).then_some(merged)
            }
        };
        if let Some(list) = list {
            merged.insert(name.clone(), list);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Places;
    use super::*;

    fn merge(base: Value, winner: Value, loser: Value) -> (Value, u64) {
        let mut tally = Tally { places: Places::Settled, conflicts: 0 };
        let [base, winner, loser] = [base, winner, loser].map(|side| side.as_object().unwrap().clone());
        let merged = merge_objects(&base, &winner, &loser, &[], &mut tally);
        (Value::Object(merged), tally.conflicts)
    }

    // Proves: SY-59 (members, lists, nested objects)
    #[test]
    fn table_of_members() {
        for (base, winner, loser, expected, conflicts) in [
            (json!({"a": 0, "b": 0}), json!({"a": 1, "b": 0}), json!({"a": 0, "b": 2}), json!({"a": 1, "b": 2}), 0),
            (json!({"a": 0}), json!({"a": 1}), json!({"a": 1}), json!({"a": 1}), 0),
            (json!({"a": 0}), json!({"a": 1}), json!({"a": 2}), json!({"a": 1}), 1),
            (json!({"a": 0}), json!({}), json!({"a": 0}), json!({}), 0),
            (json!({"a": 0}), json!({"a": 0}), json!({}), json!({}), 0),
            (json!({"a": 0}), json!({}), json!({"a": 2}), json!({"a": 2}), 1),
            (json!({"a": 0}), json!({"a": 2}), json!({}), json!({"a": 2}), 1),
            (json!({}), json!({"a": 1}), json!({"b": 1}), json!({"a": 1, "b": 1}), 0),
            (json!({"a": null}), json!({"a": null}), json!({}), json!({}), 0),
            (json!({}), json!({"o": {"x": 1}}), json!({"o": {"y": 2}}), json!({"o": {"x": 1, "y": 2}}), 0),
            (json!({"o": 1}), json!({"o": {"x": 1}}), json!({"o": {"x": 2}}), json!({"o": {"x": 1}}), 1),
            (
                json!({"l": ["a", "b"]}),
                json!({"l": ["b", "c"]}),
                json!({"l": ["a", "b", "d"]}),
                json!({"l": ["b", "c", "d"]}),
                0,
            ),
            (json!({"l": ["a"]}), json!({"l": ["a", "a"]}), json!({"l": ["a", "b"]}), json!({"l": ["a", "a", "b"]}), 0),
            (json!({"l": ["a"]}), json!({"l": ["x", "a"]}), json!({"l": ["a", "x"]}), json!({"l": ["a", "x"]}), 0),
            (json!({"l": [1]}), json!({"l": [1, 2]}), json!({"l": [1, 3]}), json!({"l": [1, 2]}), 1),
            (
                json!({"o": {"text": "a b"}}),
                json!({"o": {"text": "x a b"}}),
                json!({"o": {"text": "a b y"}}),
                json!({"o": {"text": "x a b y"}}),
                0,
            ),
            (json!({}), json!({"text": "a"}), json!({"text": "b"}), json!({"text": "a"}), 1),
            (json!({"name": "a b"}), json!({"name": "x a b"}), json!({"name": "a b y"}), json!({"name": "x a b"}), 1),
        ] {
            assert_eq!(merge(base.clone(), winner, loser), (expected, conflicts), "{base}");
        }
    }

    #[test]
    fn the_order_of_members_inside_lists_is_a_change() {
        let (turned, straight) = (r#"{"l":[{"b":1,"a":2}]}"#, r#"{"l":[{"a":2,"b":1}]}"#);
        let object = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let (merged, conflicts) = merge(object(straight), object(straight), object(turned));
        assert_eq!((merged.to_string().as_str(), conflicts), (turned, 0));
    }
}
