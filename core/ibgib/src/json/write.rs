//! `JSON.stringify` without spaces, of a value as it is or after norm. Spec: ibgib §2.2, §2.3.

use serde_json::Value;

use super::plain::plain_length;
use super::value::{Js, JsObject, JsString, array_index, cmp_utf16};

/// What `JSON.stringify(value)` gives; `None` for `undefined`.
pub fn write(value: &Js) -> Option<String> {
    let mut out = String::new();
    plain(value, &mut out).then_some(out)
}

/// What `JSON.stringify(norm(value))` gives; `None` for `undefined`. The canonical text of ibgib §2.
pub fn write_norm(value: &Js) -> Option<String> {
    let mut out = String::new();
    normal(value, &mut out).then_some(out)
}

/// ECMAScript's text of a number as JSON has it: `null` when it is not finite. Spec: ibgib §2.3.
pub fn number_text(number: f64) -> String {
    let mut out = String::new();
    push_number(number, &mut out);
    out
}

/// Appends the value without norm. `false`, and nothing appended, for `undefined`.
fn plain(value: &Js, out: &mut String) -> bool {
    match value {
        Js::Undefined => return false,
        Js::Null => out.push_str("null"),
        Js::Bool(true) => out.push_str("true"),
        Js::Bool(false) => out.push_str("false"),
        Js::Number(number) => push_number(*number, out),
        Js::String(text) => push_string(text, out),
        Js::Bytes(bytes) => push_bytes(bytes, out),
        Js::Array(elements) => push_array(elements, out),
        Js::Object(object) => {
            let mut members = Members::open(out);
            members.indices(object, plain);
            for (key, value) in object.names() {
                members.member(|out| push_string(key, out), value, plain);
            }
            members.close();
        }
    }
    true
}

/// Appends the value after norm: members sorted, but indices first, `__proto__` lost, arrays as they are.
fn normal(value: &Js, out: &mut String) -> bool {
    let Js::Object(object) = value else { return plain(value, out) };
    let mut members = Members::open(out);
    members.indices(object, normal);
    for (key, value) in object.names_sorted().filter(|(key, _)| **key != *"__proto__") {
        members.member(|out| push_string(key, out), value, normal);
    }
    members.close();
    true
}

/// Writes the members of one object with the commas between them.
struct Members<'a> {
    out: &'a mut String,
    first: bool,
}

impl<'a> Members<'a> {
    fn open(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, first: true }
    }

    fn member(&mut self, key: impl Fn(&mut String), value: &Js, write: fn(&Js, &mut String) -> bool) {
        let start = self.out.len();
        if !self.first {
            self.out.push(',');
        }
        key(self.out);
        self.out.push(':');
        if write(value, self.out) {
            self.first = false;
        } else {
            // The value was undefined: the member does not exist.
            self.out.truncate(start);
        }
    }

    fn indices(&mut self, object: &JsObject, write: fn(&Js, &mut String) -> bool) {
        for (index, value) in object.indices() {
            self.member(|out| out.push_str(&format!("\"{index}\"")), value, write);
        }
    }

    fn close(self) {
        self.out.push('}');
    }
}

fn push_array(elements: &[Js], out: &mut String) {
    out.push('[');
    for (position, element) in elements.iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        if !plain(element, out) {
            out.push_str("null");
        }
    }
    out.push(']');
}

fn push_bytes(bytes: &[u8], out: &mut String) {
    out.push('{');
    for (position, byte) in bytes.iter().enumerate() {
        let comma = if position > 0 { "," } else { "" };
        out.push_str(&format!("{comma}\"{position}\":{byte}"));
    }
    out.push('}');
}

pub(super) fn push_number(number: f64, out: &mut String) {
    if number.is_finite() {
        out.push_str(ryu_js::Buffer::new().format_finite(number));
    } else {
        out.push_str("null");
    }
}

pub(super) fn push_string(text: &JsString, out: &mut String) {
    match text {
        JsString::Text(text) => write_text(text, out),
        JsString::Units(units) => {
            out.push('"');
            for unit in char::decode_utf16(units.iter().copied()) {
                match unit {
                    Ok(character) => push_escaped(character.encode_utf8(&mut [0; 4]), out),
                    Err(lone) => out.push_str(&format!("\\u{:04x}", lone.unpaired_surrogate())),
                }
            }
            out.push('"');
        }
    }
}

/// Appends `text` as a JSON string, quotes included.
pub(crate) fn write_text(text: &str, out: &mut String) {
    out.push('"');
    push_escaped(text, out);
    out.push('"');
}

fn push_escaped(text: &str, out: &mut String) {
    let mut rest = text;
    loop {
        let (plain, behind) = rest.split_at(plain_length(rest.as_bytes()));
        out.push_str(plain);
        let Some(byte) = behind.bytes().next() else { return };
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            0x0C => out.push_str("\\f"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            other => out.push_str(&format!("\\u{other:04x}")),
        }
        rest = &behind[1..];
    }
}

/// Appends the canonical text (`json(norm(value))`) of a serde value, without a [`Js`] in between.
pub(crate) fn write_norm_value(value: &Value, out: &mut String) {
    let Value::Object(members) = value else { return write_value(value, out) };
    let mut order: Vec<(Option<u32>, &str, &Value)> =
        members.iter().map(|(key, value)| (array_index(key), key.as_str(), value)).collect();
    order.sort_by(|left, right| match (left.0, right.0) {
        (None, None) => cmp_utf16(left.1, right.1),
        (left, right) => left.unwrap_or(u32::MAX).cmp(&right.unwrap_or(u32::MAX)),
    });
    out.push('{');
    for (position, (_, key, value)) in order.into_iter().filter(|(_, key, _)| *key != "__proto__").enumerate() {
        push_key(position, key, out);
        write_norm_value(value, out);
    }
    out.push('}');
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => push_number(number.as_f64().unwrap_or(f64::NAN), out),
        Value::String(text) => write_text(text, out),
        Value::Array(elements) => {
            out.push('[');
            for (position, element) in elements.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write_value(element, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut order: Vec<(Option<u32>, &str, &Value)> =
                members.iter().map(|(key, value)| (array_index(key), key.as_str(), value)).collect();
            // A stable sort: indices first, the rest as they were put in.
            order.sort_by_key(|(index, _, _)| index.unwrap_or(u32::MAX));
            out.push('{');
            for (position, (_, key, value)) in order.into_iter().enumerate() {
                push_key(position, key, out);
                write_value(value, out);
            }
            out.push('}');
        }
    }
}

fn push_key(position: usize, key: &str, out: &mut String) {
    if position > 0 {
        out.push(',');
    }
    write_text(key, out);
    out.push(':');
}
