//! Judges whether a text is canonical (`json(norm(x))` of what it says) in one pass, without building a value.
//!
//! A `false` here only means "not plainly canonical": the caller then parses the text to tell `bad_json` from
//! `not_canonical`. A `true` is final: `scan_agrees_with_parse_and_write` in the tests compares both ways.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::parse::{Rules, STRICT_DEPTH_MAX, STRICT_VALUES_MAX, number_length, parse};
use super::plain::plain_length;
use super::value::{array_index, cmp_utf16};
use super::write::write_text;

/// The raw texts of the reserved members at the top of a data object. Spec: ibgib §1.5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Top<'a> {
    /// Whether the value is an object at all.
    pub(crate) object: bool,
    pub(crate) is_tjp: Option<&'a str>,
    pub(crate) n: Option<&'a str>,
    pub(crate) timestamp: Option<&'a str>,
    pub(crate) timestamp_ms: Option<&'a str>,
}

/// Relations as they stand in a text: (name, entries) in its order.
pub(crate) type NamedLists<'a> = Vec<(Cow<'a, str>, Vec<Cow<'a, str>>)>;

/// What a canonical relations text says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RelText<'a> {
    /// Lists of strings only, the usual case.
    Lists(NamedLists<'a>),
    /// Canonical, but some value is no list of strings.
    Odd,
}

/// The reserved members of a data text; `None` when it is not plainly canonical.
pub(crate) fn scan_data(text: &str) -> Option<Top<'_>> {
    let mut scanner = Scanner::new(text);
    scanner.value(0, false)?;
    scanner.done()?;
    Some(scanner.top)
}

/// The lists of a relations text; `None` when it is not plainly canonical.
pub(crate) fn scan_relations(text: &str) -> Option<RelText<'_>> {
    let mut scanner = Scanner::new(text);
    if let Some(lists) = scanner.lists()
        && scanner.done().is_some()
    {
        return Some(RelText::Lists(lists));
    }
    scan_data(text).map(|_| RelText::Odd)
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    values: usize,
    top: Top<'a>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, values: 0, top: Top::default() }
    }

    fn value(&mut self, depth: usize, in_array: bool) -> Option<()> {
        self.count()?;
        match self.peek()? {
            b'{' => self.object(depth + 1, in_array),
            b'[' => self.array(depth + 1),
            b'"' => self.string().map(|_| ()),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize, in_array: bool) -> Option<()> {
        self.enter(depth)?;
        self.top.object |= depth == 1;
        if self.take(b'}') {
            return Some(());
        }
        // Outside arrays the names must rise strictly. Inside, only the indices are in order, and names that do not
        // repeat are told by their raw texts: one string has one canonical spelling.
        let mut last: Option<Key<'a>> = None;
        let mut names: Vec<&'a str> = Vec::new();
        loop {
            let key = Key::of(self.string()?);
            if key.raw == "__proto__" || last.as_ref().is_some_and(|last| !last.may_precede(&key, in_array)) {
                return None;
            }
            self.expect(b':')?;
            let start = self.at;
            self.value(depth, in_array)?;
            if depth == 1 && !in_array {
                self.reserved(key.raw, start);
            }
            if in_array {
                names.push(key.raw);
            }
            last = Some(key);
            if self.take(b'}') {
                break;
            }
            self.expect(b',')?;
        }
        names.sort_unstable();
        names.windows(2).all(|pair| pair[0] != pair[1]).then_some(())
    }

    fn reserved(&mut self, name: &str, start: usize) {
        let raw = Some(&self.text[start..self.at]);
        match name {
            "isTjp" => self.top.is_tjp = raw,
            "n" => self.top.n = raw,
            "timestamp" => self.top.timestamp = raw,
            "timestampMs" => self.top.timestamp_ms = raw,
            _ => {}
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.enter(depth)?;
        if self.take(b']') {
            return Some(());
        }
        loop {
            self.value(depth, true)?;
            if self.take(b']') {
                return Some(());
            }
            self.expect(b',')?;
        }
    }

    fn lists(&mut self) -> Option<NamedLists<'a>> {
        let mut lists = NamedLists::new();
        let mut last: Option<Key<'a>> = None;
        self.count()?;
        self.expect(b'{')?;
        loop {
            let key = Key::of(self.string()?);
            if key.raw == "__proto__" || last.as_ref().is_some_and(|last| !last.may_precede(&key, false)) {
                return None;
            }
            self.count()?;
            self.expect(b':')?;
            self.expect(b'[')?;
            let mut entries = Vec::new();
            while !self.take(b']') {
                if !entries.is_empty() {
                    self.expect(b',')?;
                }
                self.count()?;
                entries.push(unescape(self.string()?));
            }
            lists.push((unescape(key.raw), entries));
            last = Some(key);
            if self.take(b'}') {
                return Some(lists);
            }
            self.expect(b',')?;
        }
    }

    /// The raw inside of the string that stands here, when it is spelled canonically and well-formed.
    fn string(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut by_number = false;
        loop {
            self.at += plain_length(bytes.get(self.at..)?);
            match *bytes.get(self.at)? {
                b'"' => break,
                b'\\' => match *bytes.get(self.at + 1)? {
                    b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
                    b'u' => {
                        by_number = true;
                        self.at += 6;
                    }
                    _ => return None,
                },
                _ => return None,
            }
        }
        let raw = self.text.get(start..self.at)?;
        self.at += 1;
        if by_number && !respelled(raw) { None } else { Some(raw) }
    }

    fn number(&mut self) -> Option<()> {
        let bytes = &self.text.as_bytes()[self.at..];
        let length = number_length(bytes)?;
        let raw = &self.text[self.at..self.at + length];
        // Up to 15 digits without sign, point or exponent are exact and already in ECMAScript's form.
        let short = length <= 15 && raw.bytes().all(|byte| byte.is_ascii_digit());
        if !short {
            let number: f64 = raw.parse().ok().filter(|number: &f64| number.is_finite())?;
            if ryu_js::Buffer::new().format_finite(number) != raw {
                return None;
            }
        }
        self.at += length;
        Some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let found = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += word.len();
        found.then_some(())
    }

    fn enter(&mut self, depth: usize) -> Option<()> {
        self.at += 1;
        (depth <= STRICT_DEPTH_MAX).then_some(())
    }

    fn count(&mut self) -> Option<()> {
        self.values += 1;
        (self.values <= STRICT_VALUES_MAX).then_some(())
    }

    fn done(&self) -> Option<()> {
        (self.at == self.text.len()).then_some(())
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.take(byte).then_some(())
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

/// A member name as it stands in the text, with the index it spells.
struct Key<'a> {
    raw: &'a str,
    index: Option<u32>,
}

impl<'a> Key<'a> {
    fn of(raw: &'a str) -> Self {
        Self { raw, index: array_index(raw) }
    }

    /// Whether a canonical object may list `next` right after this one.
    fn may_precede(&self, next: &Key<'_>, in_array: bool) -> bool {
        match (self.index, next.index) {
            (Some(this), Some(next)) => this < next,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => in_array || cmp_utf16(&unescape(self.raw), &unescape(next.raw)) == Ordering::Less,
        }
    }
}

/// The string that the inside of a canonical JSON string stands for.
fn unescape(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    match parse(&format!("\"{raw}\""), Rules::Strict) {
        Ok(value) => Cow::Owned(value.as_string().map(|text| text.to_text()).unwrap_or_default()),
        Err(_) => Cow::Borrowed(raw),
    }
}

/// Whether writing what `raw` stands for gives `raw` again. Decides about `\u` escapes, which are rare.
fn respelled(raw: &str) -> bool {
    let quoted = format!("\"{raw}\"");
    let Ok(value) = parse(&quoted, Rules::Strict) else { return false };
    let mut again = String::with_capacity(quoted.len());
    value.as_string().and_then(|text| text.as_str()).is_some_and(|text| {
        write_text(text, &mut again);
        again == quoted
    })
}
