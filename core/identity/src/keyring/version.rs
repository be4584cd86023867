//! Which key.

use std::fmt;

/// The number of a key version, from 1 to 9999. Text: `v2`; in the ledger bare digits, `2`. Spec: gateway §7.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyVersion(u16);

impl KeyVersion {
    /// The version that the seed's system began with.
    pub const V1: Self = Self(1);
    /// The highest number.
    pub const NUMBER_MAX: u16 = 9999;

    /// The version with this number.
    pub fn new(number: u16) -> Option<Self> {
        (1..=Self::NUMBER_MAX).contains(&number).then_some(Self(number))
    }

    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// Reads `v2`: a small letter, digits without a leading zero.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_digits(text.strip_prefix('v')?)
    }

    /// Reads `2`, as the ledger writes it.
    pub fn parse_digits(text: &str) -> Option<Self> {
        let plain = text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        plain.then(|| text.parse().ok()).flatten().and_then(Self::new)
    }

    /// `2`.
    pub fn digits(self) -> String {
        self.0.to_string()
    }
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_for_each_version() {
        for number in [1, 2, 10, 9999] {
            let version = KeyVersion::new(number).unwrap();
            assert_eq!(KeyVersion::parse(&version.to_string()), Some(version));
            assert_eq!(KeyVersion::parse_digits(&version.digits()), Some(version));
        }
        for bad in ["", "v", "v0", "v01", "V1", "1", "v10000", "v1 ", "v-1", "v1e1", "v１"] {
            assert_eq!(KeyVersion::parse(bad), None, "{bad}");
        }
    }
}
