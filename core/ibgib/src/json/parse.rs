//! `JSON.parse`, with the stricter rules of ibgib §12.2.2 on request.

use super::plain::plain_length;
use super::value::{Js, JsObject, JsString};

/// How deep the compat reader follows nested arrays and objects. Deeper text is refused, so that recursion is bounded.
const COMPAT_DEPTH_MAX: usize = 512;
/// Nesting that strict acceptance takes. Spec: ibgib §12.2.2.
pub(crate) const STRICT_DEPTH_MAX: usize = 64;
/// Values (members, elements and the value itself) that strict acceptance takes. Spec: ibgib §12.2.2.
pub(crate) const STRICT_VALUES_MAX: usize = 65_536;

/// Which texts are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Everything JavaScript takes, up to 512 levels of nesting.
    Compat,
    /// No repeated member, no `__proto__`, no lone surrogate, no number that overflows, at most 64 levels and
    /// 65 536 values. Spec: ibgib §12.2.2 `bad_json`.
    Strict,
}

/// A text that is no JSON, or none the rules take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no usable JSON at byte {at}: {problem}")]
pub struct ParseError {
    /// Where, in bytes from the start.
    pub at: usize,
    /// What is wrong there.
    pub problem: &'static str,
}

/// Reads a JSON text as JavaScript does: indices first, repeated members keep the first place and the last value.
///
/// # Errors
/// [`ParseError`] when the text is no JSON or breaks the rules.
pub fn parse(text: &str, rules: Rules) -> Result<Js, ParseError> {
    let mut parser = Parser { text, at: 0, rules, values: 0 };
    parser.skip_space();
    let value = parser.value(0)?;
    parser.skip_space();
    if parser.at < text.len() { Err(parser.error("something follows the value")) } else { Ok(value) }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    rules: Rules,
    values: usize,
}

impl Parser<'_> {
    fn value(&mut self, depth: usize) -> Result<Js, ParseError> {
        self.values += 1;
        if self.strict() && self.values > STRICT_VALUES_MAX {
            return Err(self.error("too many values"));
        }
        match self.peek() {
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(Js::String),
            Some(b't') => self.word("true", Js::Bool(true)),
            Some(b'f') => self.word("false", Js::Bool(false)),
            Some(b'n') => self.word("null", Js::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.error("no value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Js, ParseError> {
        self.enter(depth)?;
        let mut object = JsObject::new();
        if self.closes(b'}') {
            return Ok(Js::Object(object));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.error("no member name"));
            }
            let key = self.string()?;
            if self.strict() && key == *"__proto__" {
                return Err(self.error("a member is called __proto__"));
            }
            self.skip_space();
            self.expect(b':', "no colon")?;
            self.skip_space();
            let value = self.value(depth)?;
            if !object.set(key, value) && self.strict() {
                return Err(self.error("a member is repeated"));
            }
            if self.ends_or_goes_on(b'}')? {
                return Ok(Js::Object(object));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Js, ParseError> {
        self.enter(depth)?;
        let mut elements = Vec::new();
        if self.closes(b']') {
            return Ok(Js::Array(elements));
        }
        loop {
            elements.push(self.value(depth)?);
            if self.ends_or_goes_on(b']')? {
                return Ok(Js::Array(elements));
            }
        }
    }

    fn enter(&mut self, depth: usize) -> Result<(), ParseError> {
        let depth_max = if self.strict() { STRICT_DEPTH_MAX } else { COMPAT_DEPTH_MAX };
        if depth > depth_max {
            return Err(self.error("nested too deep"));
        }
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    fn closes(&mut self, close: u8) -> bool {
        let closes = self.peek() == Some(close);
        self.at += usize::from(closes);
        closes
    }

    fn ends_or_goes_on(&mut self, close: u8) -> Result<bool, ParseError> {
        self.skip_space();
        if self.closes(close) {
            return Ok(true);
        }
        self.expect(b',', "no comma")?;
        self.skip_space();
        Ok(false)
    }

    fn string(&mut self) -> Result<JsString, ParseError> {
        self.at += 1;
        let start = self.at;
        self.at += plain_length(&self.text.as_bytes()[start..]);
        match self.peek() {
            Some(b'"') => {
                let text = self.text[start..self.at].to_owned();
                self.at += 1;
                Ok(JsString::Text(text))
            }
            Some(b'\\') => self.escaped_string(start),
            _ => Err(self.error("a string does not end")),
        }
    }

    /// The rest of a string whose first escape stands here; `start` is its first byte.
    fn escaped_string(&mut self, start: usize) -> Result<JsString, ParseError> {
        let mut units: Vec<u16> = self.text[start..self.at].encode_utf16().collect();
        loop {
            let plain = self.at;
            self.at += plain_length(&self.text.as_bytes()[plain..]);
            units.extend(self.text[plain..self.at].encode_utf16());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    break;
                }
                Some(b'\\') => units.push(self.escape()?),
                _ => return Err(self.error("a string does not end")),
            }
        }
        let string = JsString::from_units(units);
        if self.strict() && string.as_str().is_none() {
            return Err(self.error("a lone surrogate"));
        }
        Ok(string)
    }

    fn escape(&mut self) -> Result<u16, ParseError> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        let unit = match rest.first() {
            Some(b'"') => 0x22,
            Some(b'\\') => 0x5C,
            Some(b'/') => 0x2F,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0C,
            Some(b'n') => 0x0A,
            Some(b'r') => 0x0D,
            Some(b't') => 0x09,
            Some(b'u') => {
                let digits = rest.get(1..5).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
                let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
                let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
                let unit = unit.ok_or_else(|| self.error("an escape without four hex digits"))?;
                self.at += 4;
                unit
            }
            _ => return Err(self.error("an unknown escape")),
        };
        self.at += 2;
        Ok(unit)
    }

    fn number(&mut self) -> Result<Js, ParseError> {
        let length = number_length(&self.text.as_bytes()[self.at..]).ok_or_else(|| self.error("no number"))?;
        let digits = &self.text[self.at..self.at + length];
        let number: f64 = digits.parse().map_err(|_| self.error("no number"))?;
        if self.strict() && number.is_infinite() {
            return Err(self.error("a number that overflows"));
        }
        self.at += length;
        Ok(Js::Number(number))
    }

    fn word(&mut self, word: &str, value: Js) -> Result<Js, ParseError> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.error("no value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn expect(&mut self, byte: u8, problem: &'static str) -> Result<(), ParseError> {
        if self.closes(byte) { Ok(()) } else { Err(self.error(problem)) }
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn strict(&self) -> bool {
        self.rules == Rules::Strict
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn error(&self, problem: &'static str) -> ParseError {
        ParseError { at: self.at, problem }
    }
}

/// Bytes of the JSON number at the start of `bytes`; `None` when there is none.
pub(crate) fn number_length(bytes: &[u8]) -> Option<usize> {
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    at += match bytes.get(at) {
        Some(b'0') => 1,
        Some(b'1'..=b'9') => digits(at),
        _ => return None,
    };
    if bytes.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        at += if fraction > 0 { 1 + fraction } else { return None };
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at + 1 + sign);
        at += if exponent > 0 { 1 + sign + exponent } else { return None };
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, compat: bool, strict: bool) {
        assert_eq!(parse(text, Rules::Compat).is_ok(), compat, "compat {text}");
        assert_eq!(parse(text, Rules::Strict).is_ok(), strict, "strict {text}");
    }

    #[test]
    fn what_each_rule_takes() {
        for text in
            ["0", "-0", " [1 , 2] ", "1e5", "1E+5", "0.5", "\"\\ud83d\\ude00\"", "{\"a\":{\"a\":1}}", "\u{2028}".trim()]
        {
            check(text, !text.is_empty(), !text.is_empty());
        }
        for text in ["{\"a\":1,\"a\":2}", "{\"__proto__\":1}", "\"\\ud800\"", "1e999", "[{\"1\":0,\"1\":0}]"] {
            check(text, true, false);
        }
        for text in [
            "",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "tru",
            "nul",
            "{a:1}",
            "[1,]",
            "{\"a\":1,}",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"",
            "[",
            "1 2",
            "NaN",
        ] {
            check(text, false, false);
        }
    }

    #[test]
    fn depth_and_count_are_bounded() {
        let nest = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        check(&nest(64), true, true);
        check(&nest(65), true, false);
        check(&nest(512), true, false);
        check(&nest(513), false, false);
        let flat = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        check(&flat(65_535), true, true);
        check(&flat(65_536), true, false);
    }
}
