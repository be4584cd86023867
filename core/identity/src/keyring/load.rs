//! Where the secrets come from, and which of several counts. Spec: gateway §7.1.

use std::collections::BTreeMap;

use sealtide_crypto::Entropy;

use super::{KeySecret, KeyVersion, SecretRefused, VersionKeys};

/// Where a secret was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeySource {
    /// A key file named in the configuration.
    File,
    /// A credential of the service manager.
    Credential,
    /// An environment variable.
    Environment,
    /// The key that an earlier start made and kept.
    Stored,
    /// Just made.
    Generated,
}

impl KeySource {
    /// The word for logs and `keys status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Credential => "credential",
            Self::Environment => "environment",
            Self::Stored => "stored",
            Self::Generated => "generated",
        }
    }
}

/// What the caller found in each place, unread.
#[derive(Default)]
pub struct KeyOffers {
    /// Bytes of key files, whose mode and owner the caller checked.
    pub files: BTreeMap<KeyVersion, Vec<u8>>,
    /// Bytes of credentials of the service manager.
    pub credentials: BTreeMap<KeyVersion, Vec<u8>>,
    /// Values of environment variables by name; names that are none of ours are skipped.
    pub environment: BTreeMap<String, Vec<u8>>,
    /// Raw keys that this node made and kept: v1 at its first start, others when somebody asked for a new version.
    pub stored: BTreeMap<KeyVersion, [u8; 32]>,
    /// Whether a v1 key may be made when there is none.
    pub may_generate: bool,
}

/// The keys that hold.
#[derive(Debug)]
pub struct LoadedKeys {
    /// By version, with their source.
    pub keys: BTreeMap<KeyVersion, (VersionKeys, KeySource)>,
    /// What the operator should know.
    pub warnings: Vec<LoadWarning>,
}

/// Something odd that stops nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadWarning {
    /// The v1 secret is no 64 lower-case hex digits: it signs HMAC only.
    NoPair,
    /// A v1 key was made, for there was none.
    Generated,
}

/// Why the gateway cannot start with these secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A secret is none.
    #[error("the secret of {version} ({}) is refused: {reason}", source_.name())]
    Refused {
        /// Whose.
        version: KeyVersion,
        /// Found where.
        source_: KeySource,
        /// Why.
        reason: SecretRefused,
    },
    /// `VERSION_SIGNING_KEY` and `VERSION_SIGNING_KEY_V1` are both set and differ.
    #[error("VERSION_SIGNING_KEY and VERSION_SIGNING_KEY_V1 are both set and differ")]
    AliasConflict,
    /// Two versions have one secret.
    #[error("{0} and {1} have the same secret")]
    Equal(KeyVersion, KeyVersion),
    /// A secret of a version from v2 on that has no pair.
    #[error("the secret of {0} is no 64 lower-case hex digits, so it has no key pair")]
    NoPair(KeyVersion),
    /// No key at all, and none may be made.
    #[error("no signing key is configured")]
    NoKey,
}

/// The version whose secret an environment variable of this name holds.
pub fn environment_name(name: &str) -> Option<KeyVersion> {
    match name.strip_prefix("VERSION_SIGNING_KEY")? {
        "" => Some(KeyVersion::V1),
        rest => KeyVersion::parse_digits(rest.strip_prefix("_V")?),
    }
}

impl LoadedKeys {
    /// Takes for each version the first secret of: file, credential, environment, stored, generated.
    ///
    /// # Errors
    /// [`LoadError`]; then the gateway does not start.
    // Spec: GW-45, GW-101
    pub fn load(offers: &KeyOffers, entropy: &mut dyn Entropy) -> Result<Self, LoadError> {
        let mut found = BTreeMap::new();
        let environment = of_environment(&offers.environment)?;
        take(&mut found, &offers.files, KeySource::File, KeySecret::from_file)?;
        take(&mut found, &offers.credentials, KeySource::Credential, KeySecret::from_file)?;
        take(&mut found, &environment, KeySource::Environment, KeySecret::from_text)?;
        for (version, stored) in &offers.stored {
            found.entry(*version).or_insert_with(|| (KeySecret::from_raw(*stored), KeySource::Stored));
        }
        let mut warnings = Vec::new();
        if !found.contains_key(&KeyVersion::V1) && offers.may_generate {
            found.insert(KeyVersion::V1, (KeySecret::generate(entropy), KeySource::Generated));
            warnings.push(LoadWarning::Generated);
        }
        if found.is_empty() {
            return Err(LoadError::NoKey);
        }
        let mut keys: BTreeMap<KeyVersion, (VersionKeys, KeySource)> = BTreeMap::new();
        for (version, (secret, source)) in found {
            if let Some((twin, _)) = keys.iter().find(|(_, (other, _))| other.secret().is(&secret)) {
                return Err(LoadError::Equal(*twin, version));
            }
            let derived = VersionKeys::derive(version, secret);
            match (derived.pair().is_some(), version) {
                (true, _) => {}
                (false, KeyVersion::V1) => warnings.push(LoadWarning::NoPair),
                (false, _) => return Err(LoadError::NoPair(version)),
            }
            keys.insert(version, (derived, source));
        }
        Ok(Self { keys, warnings })
    }

    /// The raw key that was just made and must be kept.
    pub fn generated(&self) -> Option<&[u8; 32]> {
        let (keys, _) = self.keys.get(&KeyVersion::V1).filter(|(_, source)| *source == KeySource::Generated)?;
        keys.secret().expose().try_into().ok()
    }
}

fn of_environment(variables: &BTreeMap<String, Vec<u8>>) -> Result<BTreeMap<KeyVersion, Vec<u8>>, LoadError> {
    let mut found: BTreeMap<KeyVersion, Vec<u8>> = BTreeMap::new();
    for (name, value) in variables {
        let Some(version) = environment_name(name) else { continue };
        // Only v1 has two names.
        if found.get(&version).is_some_and(|other| other != value) {
            return Err(LoadError::AliasConflict);
        }
        found.insert(version, value.clone());
    }
    Ok(found)
}

fn take(
    found: &mut BTreeMap<KeyVersion, (KeySecret, KeySource)>,
    offers: &BTreeMap<KeyVersion, Vec<u8>>,
    source: KeySource,
    read: fn(&[u8]) -> Result<KeySecret, SecretRefused>,
) -> Result<(), LoadError> {
    for (version, bytes) in offers {
        if found.contains_key(version) {
            continue;
        }
        let refused = |reason| LoadError::Refused { version: *version, source_: source, reason };
        found.insert(*version, (read(bytes).map_err(refused)?, source));
    }
    Ok(())
}
