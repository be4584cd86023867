//! Names of apps and channels.

use std::fmt;

/// Bytes of a name, at most.
const NAME_BYTES_MAX: usize = 64;

/// The name of an app: it stands in file names, so it is lower-case letters, digits, `.`, `_` and `-`, begins with a letter
/// or digit, and has 1 to 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppName(String);

/// The name of a channel, in the same form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(String);

impl AppName {
    /// Reads a name; `None` for any other form.
    pub fn parse(text: &str) -> Option<Self> {
        is_name(text).then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Channel {
    /// Reads a name; `None` for any other form.
    pub fn parse(text: &str) -> Option<Self> {
        is_name(text).then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let begins = text.bytes().next().is_some_and(letter);
    begins && text.len() <= NAME_BYTES_MAX && text.bytes().all(|byte| letter(byte) || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_file_names() {
        for good in ["kiosk", "a", "betting-glossary", "v2.x_1", &"a".repeat(64)] {
            assert!(AppName::parse(good).is_some() && Channel::parse(good).is_some(), "{good}");
        }
        for bad in ["", ".", "..", ".a", "-a", "a/b", "a\\b", "Kiosk", "ä", "a b", "a\0", &"a".repeat(65)] {
            assert!(AppName::parse(bad).is_none() && Channel::parse(bad).is_none(), "{bad}");
        }
    }
}
