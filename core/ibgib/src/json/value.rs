//! A JavaScript value, as far as JSON can say it, plus `undefined` and bytes.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::Value;

/// A JavaScript string: mostly Unicode text, rarely UTF-16 code units with a lone surrogate among them.
///
/// `Units` is used only when the units are not well-formed UTF-16, so equal strings have equal forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsString {
    /// Well-formed text.
    Text(String),
    /// UTF-16 code units with at least one lone surrogate.
    Units(Vec<u16>),
}

impl JsString {
    /// The string of these UTF-16 code units.
    pub fn from_units(units: Vec<u16>) -> Self {
        match String::from_utf16(&units) {
            Ok(text) => Self::Text(text),
            Err(_) => Self::Units(units),
        }
    }

    /// The text, unless the string holds a lone surrogate.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Units(_) => None,
        }
    }

    /// The text as UTF-8 encoding gives it: U+FFFD for each lone surrogate. Spec: ibgib §2.3.
    pub fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Units(units) => String::from_utf16_lossy(units),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Units(units) => units.is_empty(),
        }
    }

    /// Whether it holds the ASCII character `wanted`.
    pub fn has_ascii(&self, wanted: u8) -> bool {
        match self {
            Self::Text(text) => text.as_bytes().contains(&wanted),
            Self::Units(units) => units.contains(&u16::from(wanted)),
        }
    }

    /// `self` followed by `tail`, as JavaScript's `+`.
    pub fn join(&self, tail: &Self) -> Self {
        match (self, tail) {
            (Self::Text(head), Self::Text(tail)) => Self::Text(format!("{head}{tail}")),
            _ => {
                let mut units = self.units();
                units.extend(tail.units());
                Self::from_units(units)
            }
        }
    }

    /// The UTF-16 code units.
    pub fn units(&self) -> Vec<u16> {
        match self {
            Self::Text(text) => text.encode_utf16().collect(),
            Self::Units(units) => units.clone(),
        }
    }
}

impl From<&str> for JsString {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for JsString {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl PartialEq<str> for JsString {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == Some(other)
    }
}

/// By UTF-16 code units, as JavaScript compares. Spec: ibgib §2.2.
impl Ord for JsString {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(left), Self::Text(right)) => cmp_utf16(left, right),
            _ => self.units().cmp(&other.units()),
        }
    }
}

impl PartialOrd for JsString {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Compares two texts by UTF-16 code units without decoding them.
///
/// UTF-8 bytes order by code point. That differs from UTF-16 only where a supplementary character (lead byte F0 and
/// up, first unit a surrogate D800–DBFF) meets one of U+E000–U+FFFF (lead byte EE or EF): the former sorts first.
pub(crate) fn cmp_utf16(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    match left.iter().zip(right).find(|(l, r)| l != r) {
        None => left.len().cmp(&right.len()),
        Some((&l, &r)) if l >= 0xF0 && matches!(r, 0xEE | 0xEF) => Ordering::Less,
        Some((&l, &r)) if r >= 0xF0 && matches!(l, 0xEE | 0xEF) => Ordering::Greater,
        Some((l, r)) => l.cmp(r),
    }
}

/// A JavaScript value.
#[derive(Clone, Debug, PartialEq)]
pub enum Js {
    /// `undefined`.
    Undefined,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number: always a double.
    Number(f64),
    /// A string.
    String(JsString),
    /// Bytes (`Uint8Array`).
    Bytes(Vec<u8>),
    /// An array.
    Array(Vec<Js>),
    /// An object.
    Object(JsObject),
}

impl Js {
    /// A string value.
    pub fn text(text: impl Into<String>) -> Self {
        Self::String(JsString::Text(text.into()))
    }

    /// JavaScript's truth: false is `undefined`, `null`, `false`, `0`, `-0`, `NaN` and the empty string.
    pub fn truthy(&self) -> bool {
        match self {
            Self::Undefined | Self::Null => false,
            Self::Bool(value) => *value,
            Self::Number(value) => *value != 0.0 && !value.is_nan(),
            Self::String(text) => !text.is_empty(),
            Self::Bytes(_) | Self::Array(_) | Self::Object(_) => true,
        }
    }

    /// The object, if it is one.
    pub fn as_object(&self) -> Option<&JsObject> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The elements, if it is an array.
    pub fn as_array(&self) -> Option<&[Js]> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The string, if it is one.
    pub fn as_string(&self) -> Option<&JsString> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// What `JSON.parse(JSON.stringify(self))` gives; `undefined` stays `undefined`.
    pub fn json_round_trip(&self) -> Self {
        match self {
            Self::Number(value) if !value.is_finite() => Self::Null,
            Self::Number(value) if *value == 0.0 => Self::Number(0.0),
            Self::Bytes(bytes) => Self::Object(JsObject::of_bytes(bytes)),
            Self::Array(elements) => Self::Array(
                elements
                    .iter()
                    .map(|element| match element.json_round_trip() {
                        Self::Undefined => Self::Null,
                        other => other,
                    })
                    .collect(),
            ),
            Self::Object(object) => {
                let mut copy = JsObject::new();
                for (key, value) in object.iter().filter(|(_, value)| !matches!(value, Self::Undefined)) {
                    copy.set(key, value.json_round_trip());
                }
                Self::Object(copy)
            }
            other => other.clone(),
        }
    }
}

impl From<&Value> for Js {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::Number(number.as_f64().unwrap_or(f64::NAN)),
            Value::String(text) => Self::text(text),
            Value::Array(elements) => Self::Array(elements.iter().map(Self::from).collect()),
            Value::Object(members) => {
                let mut object = JsObject::new();
                for (key, value) in members {
                    object.set(JsString::from(key.as_str()), Self::from(value));
                }
                Self::Object(object)
            }
        }
    }
}

/// A JavaScript object: array indices first in numeric order, then the other members as they were first set.
#[derive(Clone, Debug, Default)]
pub struct JsObject {
    indices: BTreeMap<u32, Js>,
    places: BTreeMap<JsString, u64>,
    members: BTreeMap<u64, (JsString, Js)>,
    next_place: u64,
}

impl JsObject {
    /// An object without members, for statics.
    pub const EMPTY: Self =
        Self { indices: BTreeMap::new(), places: BTreeMap::new(), members: BTreeMap::new(), next_place: 0 };

    /// An object without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// What an object of indices looks like: `{"0":1,"1":2}` for the bytes 1, 2. Spec: ibgib §2.2 rule 5.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let indices = (0u32..).zip(bytes).map(|(index, byte)| (index, Js::Number(f64::from(*byte)))).collect();
        Self { indices, ..Self::default() }
    }

    /// Sets a member; a new one goes last, one that is there keeps its place. Returns `false` when it was there.
    pub fn set(&mut self, key: impl Into<JsString>, value: Js) -> bool {
        let key = key.into();
        if let Some(index) = key.as_str().and_then(array_index) {
            return self.indices.insert(index, value).is_none();
        }
        if let Some(member) = self.places.get(&key).and_then(|place| self.members.get_mut(place)) {
            member.1 = value;
            return false;
        }
        self.places.insert(key.clone(), self.next_place);
        self.members.insert(self.next_place, (key, value));
        self.next_place += 1;
        true
    }

    /// The member called `key`.
    pub fn get(&self, key: &JsString) -> Option<&Js> {
        match key.as_str().and_then(array_index) {
            Some(index) => self.indices.get(&index),
            None => self.places.get(key).and_then(|place| self.members.get(place)).map(|(_, value)| value),
        }
    }

    /// The member called `name`, or `undefined`.
    pub fn named(&self, name: &str) -> &Js {
        self.get(&JsString::from(name)).unwrap_or(&Js::Undefined)
    }

    /// The member called `key`, or `undefined`.
    pub fn named_key(&self, key: &JsString) -> &Js {
        self.get(key).unwrap_or(&Js::Undefined)
    }

    /// The member called `key`, to change it.
    pub fn get_mut(&mut self, key: &JsString) -> Option<&mut Js> {
        match key.as_str().and_then(array_index) {
            Some(index) => self.indices.get_mut(&index),
            None => self.places.get(key).and_then(|place| self.members.get_mut(place)).map(|(_, value)| value),
        }
    }

    /// Deletes the member called `key` and gives it back.
    pub fn remove(&mut self, key: &JsString) -> Option<Js> {
        match key.as_str().and_then(array_index) {
            Some(index) => self.indices.remove(&index),
            None => self.places.remove(key).and_then(|place| self.members.remove(&place)).map(|(_, value)| value),
        }
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.indices.len() + self.members.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The members in JavaScript's order.
    pub fn iter(&self) -> impl Iterator<Item = (JsString, &Js)> {
        self.indices
            .iter()
            .map(|(index, value)| (JsString::Text(index.to_string()), value))
            .chain(self.members.values().map(|(key, value)| (key.clone(), value)))
    }

    /// The members whose names are array indices, in numeric order.
    pub(crate) fn indices(&self) -> impl Iterator<Item = (u32, &Js)> {
        self.indices.iter().map(|(index, value)| (*index, value))
    }

    /// The other members, in the order they were first set.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&JsString, &Js)> {
        self.members.values().map(|(key, value)| (key, value))
    }

    /// The other members, in the order of their names by UTF-16 code units.
    pub(crate) fn names_sorted(&self) -> impl Iterator<Item = (&JsString, &Js)> {
        self.places.iter().filter_map(|(key, place)| self.members.get(place).map(|(_, value)| (key, value)))
    }
}

/// Equal when they have the same members in the same order.
impl PartialEq for JsObject {
    fn eq(&self, other: &Self) -> bool {
        self.indices == other.indices && self.members.values().eq(other.members.values())
    }
}

/// The array index that `key` spells canonically: decimal 0 to 4294967294 without leading zero. Spec: ibgib §2.2.
pub(crate) fn array_index(key: &str) -> Option<u32> {
    let bytes = key.as_bytes();
    let canonical = matches!(bytes, [b'0'] | [b'1'..=b'9', ..]) && bytes.len() <= 10;
    if !canonical || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    key.parse::<u32>().ok().filter(|index| *index < u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf16_order_without_decoding() {
        let samples = ["", "a", "b", "\u{e000}", "\u{ffff}", "\u{10000}", "\u{10ffff}", "é", "a\u{10000}", "a\u{e000}"];
        for left in samples {
            for right in samples {
                let expected = left.encode_utf16().cmp(right.encode_utf16());
                assert_eq!(cmp_utf16(left, right), expected, "{left:?} {right:?}");
            }
        }
    }

    // Proves: SY-3
    #[test]
    fn indices_come_first() {
        let mut object = JsObject::new();
        for key in ["b", "10", "9", "01", "4294967295", "4294967294", "a", "0"] {
            object.set(key, Js::Null);
        }
        let keys: Vec<String> = object.iter().map(|(key, _)| key.to_text()).collect();
        assert_eq!(keys, ["0", "9", "10", "4294967294", "b", "01", "4294967295", "a"]);
    }
}
