//! Version numbers: read leniently, written in one form. Spec: gateway §8.2.

use std::fmt;

/// Greatest number of a part: 2^53 − 1.
const PART_MAX: u64 = (1 << 53) - 1;

/// Which part of a version moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The first; the others become zero.
    Major,
    /// The second; the third becomes zero.
    Minor,
    /// The third.
    Patch,
}

impl Scope {
    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Major => "major",
            Self::Minor => "minor",
            Self::Patch => "patch",
        }
    }

    /// The scope of a word.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Major, Self::Minor, Self::Patch].into_iter().find(|scope| scope.name() == name)
    }
}

/// A version of an entity: three numbers up to 2^53 − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntityVersion {
    major: u64,
    minor: u64,
    patch: u64,
}

/// A text that is no version, or one that cannot be raised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no version of up to three numbers")]
pub struct InvalidVersion;

impl EntityVersion {
    /// Reads a version: an optional `v`, one to three numbers, leading zeros allowed.
    ///
    /// # Errors
    /// [`InvalidVersion`] for anything else.
    // Spec: GW-62
    pub fn parse(text: &str) -> Result<Self, InvalidVersion> {
        let mut parts = [0; 3];
        let numbers = text.strip_prefix('v').unwrap_or(text);
        for (at, part) in numbers.split('.').enumerate() {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            let number = part.parse().ok().filter(|number| digits && *number <= PART_MAX);
            *parts.get_mut(at).ok_or(InvalidVersion)? = number.ok_or(InvalidVersion)?;
        }
        let [major, minor, patch] = parts;
        Ok(Self { major, minor, patch })
    }

    /// The next version.
    ///
    /// # Errors
    /// [`InvalidVersion`] when the part cannot grow.
    pub fn bump(self, scope: Scope) -> Result<Self, InvalidVersion> {
        let grown = |part: u64| Some(part + 1).filter(|part| *part <= PART_MAX).ok_or(InvalidVersion);
        Ok(match scope {
            Scope::Major => Self { major: grown(self.major)?, minor: 0, patch: 0 },
            Scope::Minor => Self { minor: grown(self.minor)?, patch: 0, ..self },
            Scope::Patch => Self { patch: grown(self.patch)?, ..self },
        })
    }
}

impl fmt::Display for EntityVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: GW-62
    #[test]
    fn semver_table() {
        for (from, major, minor, patch) in [
            ("1.2.3", "2.0.0", "1.3.0", "1.2.4"),
            ("2.1.02", "3.0.0", "2.2.0", "2.1.3"),
            ("1.0", "2.0.0", "1.1.0", "1.0.1"),
            ("7", "8.0.0", "7.1.0", "7.0.1"),
            ("v3.1.0", "4.0.0", "3.2.0", "3.1.1"),
            ("0.0.9", "1.0.0", "0.1.0", "0.0.10"),
            ("00.01.09", "1.0.0", "0.2.0", "0.1.10"),
            ("1.2.9007199254740990", "2.0.0", "1.3.0", "1.2.9007199254740991"),
        ] {
            let version = EntityVersion::parse(from).unwrap();
            let next = |scope| version.bump(scope).unwrap().to_string();
            assert_eq!([next(Scope::Major), next(Scope::Minor), next(Scope::Patch)], [major, minor, patch], "{from}");
        }
        for bad in [
            "",
            "v",
            "1.",
            ".1",
            "1..2",
            "1.2.3.4",
            "1.2.x",
            "1.2.3-rc1",
            " 1.2.3",
            "1.2.3 ",
            "+1",
            "1,2",
            "١.0.0",
            "V1",
            "9007199254740992",
            "99999999999999999999999",
        ] {
            assert_eq!(EntityVersion::parse(bad), Err(InvalidVersion), "{bad}");
        }
        let last = EntityVersion::parse("1.2.9007199254740991").unwrap();
        assert_eq!(last.bump(Scope::Patch), Err(InvalidVersion));
        assert_eq!(last.bump(Scope::Minor).unwrap().to_string(), "1.3.0");
    }
}
