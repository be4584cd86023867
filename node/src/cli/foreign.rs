//! Text of others on a terminal. Names and contents come from whoever shares a space, and a terminal obeys what it is shown: an
//! escape sequence may move the cursor, change the title, or hide what stands beside it. So it is shown as what it is.

use std::borrow::Cow;

use serde_json::Value;

/// Whether a terminal would do something else than show the character: controls, and what turns the direction of text around.
fn acts(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') || c.is_control() && c != '\n' && c != '\t'
}

/// The text with every character that acts written as an escape, `\u{1b}` for one; ends of lines of any system stay.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' if chars.peek() == Some(&'\n') => {}
            c if acts(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The same for all texts of an answer, names of members too.
pub(super) fn shown_all(answer: &Value) -> Value {
    match answer {
        Value::String(text) => Value::String(shown(text).into_owned()),
        Value::Array(list) => list.iter().map(shown_all).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (shown(name).into_owned(), shown_all(value))).collect()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        assert_eq!(shown("a\u{1b}]0;title\u{7}b"), "a\\u{1b}]0;title\\u{7}b");
        assert_eq!(shown("gpj.\u{202e}exe"), "gpj.\\u{202e}exe");
        assert_eq!(shown("over\rwritten \u{9b}31m"), "over\\u{d}written \\u{9b}31m");
        assert_eq!(shown("one\r\ntwo\n\tthree"), "one\r\ntwo\n\tthree".replace('\r', ""));
        assert!(matches!(shown("häßlich, 日本語 👍🏽\n\tx"), Cow::Borrowed(_)));
        let answer = json!({"names": ["a\u{8}b", {"k\u{1b}": 1}], "n": 7, "no": null});
        assert_eq!(shown_all(&answer), json!({"names": ["a\\u{8}b", {"k\\u{1b}": 1}], "n": 7, "no": null}));
    }
}
