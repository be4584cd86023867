//! Which secrets are taken, in which order, and which stop the start.

use std::collections::BTreeMap;

use sealtide_crypto::SeededEntropy;
use sealtide_identity::keyring::{
    KeyOffers, KeySecret, KeySource, LoadError, LoadWarning, LoadedKeys, SecretRefused, VersionKeys, environment_name,
};

use super::support::{secret, v};

fn load(offers: &KeyOffers) -> Result<LoadedKeys, LoadError> {
    LoadedKeys::load(offers, &mut SeededEntropy::new(5))
}

fn environment(entries: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    entries.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

fn hmac(loaded: &LoadedKeys, version: u16) -> String {
    loaded.keys[&v(version)].0.hmac(b"[]")
}

// Proves: GW-45
#[test]
fn key_loading_takes_the_first_place_that_has_a_secret() {
    let mut offers = KeyOffers {
        files: BTreeMap::from([(v(1), secret(1).into_bytes())]),
        credentials: BTreeMap::from([(v(1), secret(2).into_bytes())]),
        environment: environment(&[("VERSION_SIGNING_KEY", &secret(3))]),
        stored: BTreeMap::from([(v(1), [4; 32])]),
        may_generate: true,
    };
    let of = |text: &str| VersionKeys::derive(v(1), KeySecret::from_text(text.as_bytes()).unwrap()).hmac(b"[]");
    for (source, wanted) in [
        (KeySource::File, of(&secret(1))),
        (KeySource::Credential, of(&secret(2))),
        (KeySource::Environment, of(&secret(3))),
        (KeySource::Stored, VersionKeys::derive(v(1), KeySecret::from_raw([4; 32])).hmac(b"[]")),
    ] {
        let loaded = load(&offers).unwrap();
        assert_eq!((loaded.keys[&v(1)].1, hmac(&loaded, 1)), (source, wanted));
        match source {
            KeySource::File => offers.files.clear(),
            KeySource::Credential => offers.credentials.clear(),
            KeySource::Environment => offers.environment.clear(),
            _ => offers.stored.clear(),
        }
    }
    let made = load(&offers).unwrap();
    assert_eq!(made.warnings, [LoadWarning::Generated]);
    // Proves: GW-47
    let stored = made.generated().map(|key| (v(1), *key)).into_iter().collect();
    let again = load(&KeyOffers { stored, ..KeyOffers::default() }).unwrap();
    assert_eq!(hmac(&made, 1), hmac(&again, 1));
    assert_eq!(made.keys[&v(1)].0.public_keys(), again.keys[&v(1)].0.public_keys());
    offers.may_generate = false;
    assert_eq!(load(&offers).unwrap_err(), LoadError::NoKey);
}

// Proves: GW-45
#[test]
fn key_loading_drops_one_line_end_of_a_file_and_nothing_else() {
    let file = |bytes: &[u8]| KeySecret::from_file(bytes).map(|secret| secret.expose().to_vec());
    let text = secret(7);
    for end in ["", "\n", "\r\n"] {
        assert_eq!(file(format!("{text}{end}").as_bytes()).unwrap(), text.as_bytes());
    }
    assert_eq!(file(format!(" {text}").as_bytes()).unwrap(), format!(" {text}").as_bytes());
    for bad in [
        format!("{text}\n\n"),
        format!("\u{feff}{text}"),
        format!("{text}\0"),
        format!("a\n{text}"),
        format!("{text}\r"),
    ] {
        assert_eq!(file(bad.as_bytes()).unwrap_err(), SecretRefused::Characters, "{bad:?}");
    }
    assert_eq!(KeySecret::from_text(format!("{text}\n").as_bytes()).unwrap_err(), SecretRefused::Characters);
    assert_eq!(file(&[0xff; 40]).unwrap_err(), SecretRefused::NotText);
    assert_eq!(file(&[b'a'; 31]).unwrap_err(), SecretRefused::Short);
    assert!(file(&[b'a'; 32]).is_ok());
    assert_eq!(file(&[b'a'; 4097]).unwrap_err(), SecretRefused::Long);
}

// Proves: GW-45, GW-101
#[test]
fn key_loading_refuses_conflicts() {
    let alias = |first: &str, second: &str| {
        load(&KeyOffers {
            environment: environment(&[("VERSION_SIGNING_KEY", first), ("VERSION_SIGNING_KEY_V1", second)]),
            ..KeyOffers::default()
        })
    };
    assert!(alias(&secret(1), &secret(1)).is_ok());
    assert_eq!(alias(&secret(1), &secret(2)).unwrap_err(), LoadError::AliasConflict);
    let two = |second: &str| {
        load(&KeyOffers {
            environment: environment(&[("VERSION_SIGNING_KEY", &secret(1)), ("VERSION_SIGNING_KEY_V2", second)]),
            ..KeyOffers::default()
        })
    };
    assert_eq!(two(&secret(2)).unwrap().keys.len(), 2);
    assert_eq!(two(&secret(1)).unwrap_err(), LoadError::Equal(v(1), v(2)));
    assert_eq!(two(&secret(0xab).to_uppercase()).unwrap_err(), LoadError::NoPair(v(2)));
    assert_eq!(two("a passphrase that is long enough").unwrap_err(), LoadError::NoPair(v(2)));
    let v1 = load(&KeyOffers {
        environment: environment(&[("VERSION_SIGNING_KEY", "a passphrase that is long enough")]),
        ..KeyOffers::default()
    });
    assert_eq!(v1.unwrap().warnings, [LoadWarning::NoPair]);
    let short =
        load(&KeyOffers { environment: environment(&[("VERSION_SIGNING_KEY_V2", "short")]), ..KeyOffers::default() });
    assert!(matches!(short, Err(LoadError::Refused { reason: SecretRefused::Short, .. })));
}

// Proves: GW-59
#[test]
fn versions_are_added_by_their_name_alone() {
    assert_eq!(environment_name("VERSION_SIGNING_KEY"), Some(v(1)));
    assert_eq!(environment_name("VERSION_SIGNING_KEY_V1"), Some(v(1)));
    assert_eq!(environment_name("VERSION_SIGNING_KEY_V37"), Some(v(37)));
    for other in
        ["VERSION_SIGNING_KEY_V0", "VERSION_SIGNING_KEY_V01", "VERSION_SIGNING_KEYS", "VERSION_SIGNING_KEY_", "PATH"]
    {
        assert_eq!(environment_name(other), None, "{other}");
    }
}

// Proves: GW-60
#[test]
fn no_leak_in_debug_output() {
    let loaded =
        load(&KeyOffers { files: BTreeMap::from([(v(1), secret(1).into_bytes())]), ..KeyOffers::default() }).unwrap();
    let text = format!("{loaded:?} {:?}", KeySecret::from_raw([0xaa; 32]));
    assert!(!text.contains(&secret(1)[..8]) && !text.contains("170") && text.contains("secret"), "{text}");
}
