//! Reading canonical JSON in one pass, without values: pieces of the text and fixed forms.

use std::ops::Range;

/// A text that is not in the form of a keystone frame; says what was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no keystone frame: {0}")]
pub struct FormError(pub &'static str);

/// Takes pieces off the front of canonical JSON text (no spaces, known to be JSON). Never panics on anything else.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str, range: Range<usize>) -> Self {
        Self { text: text.get(..range.end).unwrap_or_default(), at: range.start }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Whether the text goes on with `expected`; then it is taken.
    pub(super) fn takes(&mut self, expected: &str) -> bool {
        let goes_on = self.rest().starts_with(expected);
        self.at += if goes_on { expected.len() } else { 0 };
        goes_on
    }

    pub(super) fn expect(&mut self, expected: &'static str) -> Result<(), FormError> {
        if self.takes(expected) { Ok(()) } else { Err(FormError(expected)) }
    }

    /// A string without escapes, quotes left out. Its place is `at` before the call plus one.
    pub(super) fn plain(&mut self) -> Result<&'a str, FormError> {
        let inner = self.rest().strip_prefix('"').ok_or(FormError("a string"))?;
        let end = inner.bytes().position(|byte| matches!(byte, b'"' | b'\\')).ok_or(FormError("a string's end"))?;
        if inner.as_bytes()[end] == b'\\' {
            return Err(FormError("a string without escapes"));
        }
        self.at += end + 2;
        Ok(&inner[..end])
    }

    /// A whole number of at most nine digits.
    pub(super) fn number(&mut self) -> Result<u32, FormError> {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let number = self.rest()[..digits].parse().ok().filter(|_| digits < 10).ok_or(FormError("a whole number"))?;
        self.at += digits;
        Ok(number)
    }

    /// Any value; gives its place.
    pub(super) fn value(&mut self) -> Result<Range<usize>, FormError> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut depth = 0usize;
        let mut at = start;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'"' => at = string_end(bytes, at).ok_or(FormError("a string's end"))?,
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 0 => break,
                b'}' | b']' => depth -= 1,
                b',' if depth == 0 => break,
                _ => {}
            }
            at += 1;
            if depth == 0 && matches!(byte, b'"' | b'}' | b']') {
                break;
            }
        }
        if at == start || depth > 0 {
            return Err(FormError("a value"));
        }
        self.at = at;
        Ok(start..at)
    }

    /// The members of an object: names without escapes, and the places of the values.
    pub(super) fn members(&mut self) -> Result<Vec<(&'a str, Range<usize>)>, FormError> {
        self.list("{", "}", |cursor| {
            let name = cursor.plain()?;
            cursor.expect(":")?;
            Ok((name, cursor.value()?))
        })
    }

    /// What stands between `open` and `close`, with commas between.
    pub(super) fn list<T>(
        &mut self,
        open: &'static str,
        close: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<T, FormError>,
    ) -> Result<Vec<T>, FormError> {
        self.expect(open)?;
        let mut items = Vec::new();
        if self.takes(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.takes(close) {
                return Ok(items);
            }
            self.expect(",")?;
        }
    }

    pub(super) fn end(&self) -> Result<(), FormError> {
        if self.rest().is_empty() { Ok(()) } else { Err(FormError("the end")) }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }
}

/// The place of the closing quote of the string that opens at `at`.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// `text` as a JSON string, quotes included.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether `text` is `digits` lower-case hex digits.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
